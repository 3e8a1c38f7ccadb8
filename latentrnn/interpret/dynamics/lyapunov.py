"""Lyapunov exponents of a fitted transition: how fast nearby states part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.transition_runs import TransitionRun
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.derivatives.derivatives import jacobian
from latentrnn.interpret.dynamics.held import Held, HeldMap, held_maps, visited
from latentrnn.interpret.results.labelled import AnyPosterior, labelled, pooled
from latentrnn.support.arguments import check_integer, check_size
from latentrnn.support.clock import step_length
from latentrnn.support.isolation import generator, isolated

if TYPE_CHECKING:
    import xarray

AT_ONCE = 2**22  # numbers of Jacobians that are held at once


@isolated
def lyapunov(
    posterior: AnyPosterior,
    covariates: Mapping[str, Any] | None = None,
    *,
    past: str | Mapping[str, Any] = "mean",
    regime: int | None = None,
    gap: float | None = None,
    num_exponents: int | None = None,
    num_samples: int = 1,
    num_runs: int = 16,
    steps: int = 4000,
    burn_in: int = 500,
    num_blocks: int = 4,
) -> xarray.Dataset:
    """Return the Lyapunov spectrum of s_t = F(s_{t-1}; a), the transition without noise at a constant input.

        J_t Q_{t-1} = Q_t R_t,   lambda_i = lim_T (1 / (T dt)) sum_t ln |R_t|_ii,   J_t = dF/ds at s_{t-1}

    Runs begin at states visited along the data and are free from there: after a burn-in, in which the directions turn
    to where they grow, all their steps count. A positive largest exponent is chaos, zero a cycle, negative a rest.

    Args:
        posterior: of any model; of an ensemble, every member has a spectrum of its own.
        covariates, past, regime, gap: what is held constant; as of `fixed_points`.
        num_exponents: how many, the largest; all by default.
        num_samples: draws of the parameters; where no prior is on what F is made of, one is all there is.
        num_runs: runs side by side.
        steps: of each run.
        burn_in: steps before them.
        num_blocks: parts of each run, whose spread is the error.

    Returns:
        A dataset by sample and exponent, the largest first: "exponent" (per second, per step where the data have no
        clock), "standard_error" of it over blocks; and by sample "dimension", that of Kaplan and Yorke.

    Raises:
        ValueError: something that drives the transition is not told, or cannot be constant, by name; a number out of
            range; runs that leave all bounds.
        TypeError: something that is no posterior.

    References:
        Benettin, Galgani, Giorgilli, Strelcyn. Lyapunov characteristic exponents for smooth dynamical systems. 1980.
        Vogt, Puelma Touzel, Shlizerman, Lajoie. On Lyapunov exponents for RNNs. 2022.
        Kaplan, Yorke. Chaotic behavior of multidimensional difference equations. 1979.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, dt=0.01)
        >>> memory = lr.LeakyIntegrator(1, fixed={"time_constant": 0.1})
        >>> heads = {"v": lr.Gaussian()}
        >>> model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads)
        >>> found = lr.interpret.lyapunov(lr.Posterior(model, lr.Guide(model), data), steps=100, burn_in=0)
        >>> round(float(found.exponent.squeeze()), 3)
        -10.0
    """
    owner = "lyapunov"
    held = Held(covariates, past, regime, gap)
    numbers = {"num_runs": num_runs, "steps": steps, "num_blocks": num_blocks}
    runs, steps, blocks = (check_size(owner, name, value) for name, value in numbers.items())
    burn_in = check_integer(owner, "burn_in", burn_in)
    if steps % blocks:
        raise ValueError(f"{owner}: steps must be a multiple of num_blocks={blocks}; found {steps}")

    def of_one(posterior: Posterior, count: int) -> xarray.Dataset:
        maps = held_maps(owner, posterior, count, held)
        size = _number(owner, num_exponents, posterior)
        states = visited(posterior, len(maps))
        chosen = torch.randint(states.shape[1], (runs,), generator=generator(posterior.seed))
        growth = []
        for each, own in zip(maps, states, strict=True):
            start = own[chosen].to(each.inputs)
            growth.append(_growth(owner, each, start, size, burn_in, steps, blocks) / each.seconds)
        return _labelled(posterior, torch.stack(growth))

    return pooled(owner, posterior, num_samples, of_one)


@isolated
def lyapunov_along(
    posterior: AnyPosterior, *, num_exponents: int | None = None, num_samples: int = 10, burn_in: int = 0
) -> xarray.Dataset:
    """Return the Lyapunov spectrum along the sequences, as their inputs drive them.

    As `lyapunov`, with J_t at the states and inputs of the posterior's draws: covariates, the recorded past and
    innovations. What is positive here is sensitive in spite of its inputs; what is negative forgets where it began. The
    error is over sequences; of short ones the exponents are those of their length.

    Args:
        posterior: of any model, or of an ensemble.
        num_exponents: how many, the largest; all by default.
        num_samples: number of draws.
        burn_in: first steps of each sequence, which do not count.

    Returns:
        As of `lyapunov`; and "of_sequence" (sample, sequence, exponent).

    Raises:
        ValueError: a number out of range, or sequences that are all shorter than the burn-in.
        TypeError: something that is no posterior.
    """
    owner = "lyapunov_along"
    burn_in = check_integer(owner, "burn_in", burn_in)

    def of_one(posterior: Posterior, count: int) -> xarray.Dataset:
        size = _number(owner, num_exponents, posterior)
        if (longest := int(posterior.data.host_lengths.max())) <= burn_in:
            raise ValueError(f"{owner}: burn_in={burn_in}, but the longest sequence has {longest} steps")
        if posterior.data.times is not None:
            raise ValueError(f"{owner}: the data's steps are irregular, so that there is no rate per second")
        growth = torch.cat([_along(run, size, burn_in) for run in posterior.transition_runs(count)], 1)
        growth = growth / step_length(posterior.data.spec.dt)
        own = {"of_sequence": (("sample", "sequence", "exponent_number"), growth)}
        return _labelled(posterior, growth).merge(labelled(posterior.data, own), combine_attrs="override")

    return pooled(owner, posterior, num_samples, of_one)


def _number(owner: str, wanted: int | None, posterior: Posterior) -> int:
    size = posterior.model.transition.state_size
    return size if wanted is None else check_size(owner, "num_exponents", wanted, most=size)


def _growth(owner: str, step: HeldMap, state: Tensor, size: int, burn_in: int, steps: int, blocks: int) -> Tensor:
    """Return the mean log growth per step of each direction, (block, exponent), over the blocks of all runs."""
    runs, width = state.shape
    directions = _start(runs, size, state)
    chunk = max(1, AT_ONCE // (runs * width * width))
    sums = state.new_zeros(blocks, runs, size)
    done = -burn_in
    while done < steps:
        path = [state]
        with torch.no_grad():
            for _ in range(min(chunk, steps - done)):
                path.append(step(path[-1]))
        before, state = torch.stack(path[:-1]), path[-1]
        if not bool(state.isfinite().all()):
            raise ValueError(f"{owner}: runs without noise leave all bounds; the dynamics do not stay near the data")
        slopes = jacobian(step, before.flatten(0, 1)).unflatten(0, before.shape[:2])
        for slope in slopes:  # (run, size, size) of a step
            directions, log = _turn(slope, directions)
            if done >= 0:
                sums[done * blocks // steps] += log
            done += 1
    return (sums * blocks / steps).flatten(0, 1).cpu()


def _along(run: TransitionRun, size: int, burn_in: int) -> Tensor:
    """Return the mean log growth per step along recorded sequences, (sample, sequence, exponent)."""
    inside = run.rollout.data.valid
    samples, sequences, steps, width = run.before.shape
    directions = _start(samples * sequences, size, run.before).unflatten(0, (samples, sequences))
    total = run.before.new_zeros(samples, sequences, size)
    chunk = max(1, AT_ONCE // (samples * sequences * width * width))
    for start in range(0, steps, chunk):
        here = slice(start, start + chunk)
        before, inputs = run.before[:, :, here], run.inputs[:, :, here].detach()
        flat = inputs.flatten(1, 2)
        slopes = jacobian(lambda s, a_t=flat: run.transition.step(s, a_t), before.flatten(1, 2))  # type: ignore[misc]
        slopes = slopes.unflatten(1, before.shape[1:3])
        for step in range(before.shape[2]):
            there = inside[:, start + step]
            turned, log = _turn(slopes[:, :, step], directions)
            directions = torch.where(there[:, None, None], turned, directions)
            if start + step >= burn_in:
                total = total + torch.where(there[:, None], log, 0.0)
    counted = (run.rollout.data.lengths - burn_in).clamp_min(0).to(total)
    return (total / torch.where(counted > 0, counted, torch.nan)[:, None]).cpu()


def _start(runs: int, size: int, like: Tensor) -> Tensor:
    """Return orthonormal directions, (run, state, direction)."""
    width = like.shape[-1]
    noise = torch.randn(runs, width, size, generator=generator(0), dtype=torch.float64).to(like)
    return torch.linalg.qr(noise)[0]


def _turn(slope: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a step takes directions, made orthonormal again, and the logarithm of how each grew."""
    turned, triangle = torch.linalg.qr(slope @ directions)
    return turned, triangle.diagonal(dim1=-2, dim2=-1).abs().clamp_min(1e-300).log()


def _labelled(posterior: Posterior, growth: Tensor) -> xarray.Dataset:
    """Return means over blocks or sequences, (sample, block, exponent), and what follows from them."""
    values = growth.double().numpy()
    mean = np.nanmean(values, 1)
    number = np.isfinite(values).sum(1)
    spread = np.nanstd(values, 1) * np.sqrt(number / np.maximum(number - 1, 1))
    error = np.where(number > 1, spread / np.sqrt(number), np.nan)
    order = np.argsort(-mean, -1, kind="stable")
    mean, error = np.take_along_axis(mean, order, -1), np.take_along_axis(error, order, -1)
    dims = ("sample", "exponent_number")
    variables = {
        "exponent": (dims, mean),
        "standard_error": (dims, error),
        "dimension": (("sample",), _dimension(mean)),
    }
    return labelled(posterior.data, variables)


def _dimension(exponents: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the Kaplan-Yorke dimension of spectra (sample, exponent); that of all where the sums stay positive."""
    found = []
    for spectrum in exponents:
        total = np.cumsum(spectrum)
        last = int(np.max(np.flatnonzero(total >= 0), initial=-1))
        if last < 0 or last + 1 == len(spectrum):
            found.append(float(last + 1))
        else:
            found.append(last + 1 + total[last] / abs(spectrum[last + 1]))
    return np.array(found)
