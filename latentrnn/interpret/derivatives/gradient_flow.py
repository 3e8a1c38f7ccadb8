"""How much of a change of the state is left after so many steps: whether gradients vanish or explode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.transition_runs import TransitionRun
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.derivatives.derivatives import LARGEST, StepOutput, part_of_state, step_jacobians, whole_state
from latentrnn.interpret.derivatives.jacobians import PATHS
from latentrnn.interpret.results.labelled import AnyPosterior, labelled, pooled
from latentrnn.support.arguments import check_choice, check_integer, check_list, check_number
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

OWNER = "gradient_flow"


@isolated
def gradient_flow(
    posterior: AnyPosterior,
    lags: Iterable[int],
    of: str = "output",
    *,
    path: str = "total",
    vanishing: float = 0.01,
    exploding: float = 100.0,
    num_samples: int = 10,
) -> xarray.Dataset:
    """Return the norm of the derivative of the state by the state of some steps before, against the number of steps.

        norm(k) = || d of(s_t) / d s_{t-k} ||_2,   over all t of a sequence

    The norm is the largest singular value: by how much a small change of s_{t-k}, in the direction in which it lasts
    best, is larger or smaller k steps later. Gradients of a loss at t reach back as far as that.

    Args:
        posterior: of any model, or of an ensemble.
        lags: numbers of steps k, positive, each below the length of some sequence.
        of: part of the state: "output" h_t, "state", or a part by its name in `trace`, e.g. "cell".
        path: "total", or "direct" with gates held as recorded.
        vanishing: norm below which a gradient is said to have vanished.
        exploding: norm above which it is said to have exploded.
        num_samples: number of draws, those of `trace`.

    Returns:
        "norm", (sample, sequence, lag), the geometric mean over t; "largest", likewise, the largest over t; "factor",
        (sample, sequence), by how much the norm changes per step from the first to the last lag; "vanishes" and
        "explodes", (lag,), the shares of draws and sequences whose norm is beyond the bounds. A sequence that is too
        short for a lag has NaN there. The attribute "report" says it in words.

    Raises:
        TypeError: something that is no posterior.
        ValueError: lags that are no such numbers or longer than every sequence, an unknown part or path, bounds that
            are not positive; no draws.

    References:
        Bengio, Simard, Frasconi. Learning long-term dependencies with gradient descent is difficult. 1994.
        Pascanu, Mikolov, Bengio. On the difficulty of training recurrent neural networks. 2013.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 9, 1))}, {"x": np.ones((2, 9, 1))}, dt=0.01)
        >>> heads, memory = {"v": lr.Gaussian()}, lr.LeakyIntegrator(1, tau=0.02, learned=False)
        >>> model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads)
        >>> found = lr.interpret.gradient_flow(lr.Posterior(model, lr.Guide(model), data), [1, 4], num_samples=1)
        >>> found.norm[0, 0].values.round(3).tolist()
        [0.607, 0.135]
    """
    check_choice(OWNER, "path", path, PATHS)
    numbers = [check_integer(OWNER, "each of lags", lag, least=1) for lag in check_list(OWNER, "lags", lags, "steps")]
    for name, bound in (("vanishing", vanishing), ("exploding", exploding)):
        check_number(OWNER, name, bound, above=0.0)
    if not numbers:
        raise ValueError(f"{OWNER}: lags: expected at least one number of steps")
    numbers = sorted(set(numbers))
    found = pooled(OWNER, posterior, num_samples, lambda one, count: _of_one(one, numbers, of, path, count))
    inside = found.norm.notnull().sum(("sample", "sequence"))
    found["vanishes"] = (found.norm < vanishing).sum(("sample", "sequence")) / inside
    found["explodes"] = (found.norm > exploding).sum(("sample", "sequence")) / inside
    return found.assign_attrs(report=_in_words(found))


def _of_one(posterior: Posterior, lags: list[int], of: str, path: str, num_samples: int) -> xarray.Dataset:
    part, longest = part_of_state(OWNER, posterior.model.transition, of), int(posterior.data.lengths.max())
    if lags[-1] > longest:
        raise ValueError(
            f"{OWNER}: lags: expected no more than the longest sequence's {longest} steps; found {lags[-1]}"
        )
    logs = [
        torch.cat(list(_log_norms(run, int(length), lags, part, path, row)))
        for run in posterior.transition_runs(num_samples)
        for row, length in enumerate(run.rollout.data.lengths.tolist())
    ]
    # (sample, sequence, time, lag), NaN where there is no step so far back
    norms = torch.nn.utils.rnn.pad_sequence([log.transpose(0, 1) for log in logs], padding_value=torch.nan)
    norms = norms.permute(2, 1, 0, 3)
    mean, axes = norms.nanmean(2).exp(), ("sample", "sequence", "lag")
    largest = torch.where(norms.isnan(), -torch.inf, norms).amax(2).exp()
    largest = torch.where(mean.isnan(), torch.nan, largest)
    there = (~mean.isnan()).sum(-1, keepdim=True) - 1
    last, steps = mean.gather(-1, there.clamp_min(0))[..., 0], torch.tensor(lags, dtype=mean.dtype)
    span = steps[there.clamp_min(0)[..., 0]]
    ratio = torch.where((span > lags[0]) & (last > 0), last / mean[..., 0], last)
    factor = ratio ** (1 / torch.where(span > lags[0], span - lags[0], span))
    variables = {"norm": (axes, mean), "largest": (axes, largest), "factor": (axes[:2], factor)}
    return labelled(posterior.data, variables, coords={"lag": lags}, attributes={"of": of, "path": path})


def _log_norms(
    run: TransitionRun, length: int, lags: list[int], part: StepOutput, path: str, row: int
) -> Iterator[Tensor]:
    """Yield log norms of one sequence, (sample, time, lag), of as many draws at once as may be held."""
    samples, size = run.before.shape[0], run.before.shape[-1]
    many = max(1, LARGEST // (length * size * size))
    if run.transition.has_draws:
        many = samples  # which are gone through one by one anyway
    before, inputs = run.before[:, row, :length], run.inputs[:, row, :length]
    for first in range(0, samples, many):
        here, given = before[first : first + many], inputs[first : first + many]
        steps = step_jacobians(run.transition, here, given, whole_state, "state", path).double()
        onto = step_jacobians(run.transition, here, given, part, "state", path).double()
        found = steps.new_full((*steps.shape[:2], len(lags)), torch.nan)
        for lag in range(1, lags[-1] + 1):
            if lag > 1:  # onto[t] = d of(s_t) / d s_{t-lag}
                onto = onto[:, 1:] @ steps[:, : length - lag + 1]
            if lag in lags and lag <= length:
                found[:, lag - 1 :, lags.index(lag)] = torch.linalg.matrix_norm(onto, 2).log()
            if lag >= length:
                break
        yield found.cpu()


def _in_words(found: xarray.Dataset) -> str:
    """Return what happens to a change of the state, in words."""
    lag = int(found.lag[-1])
    norms, factor = found.norm.isel(lag=-1), float(found.factor.median())
    low, middle, high = norms.quantile([0.05, 0.5, 0.95]).values
    fate = "vanishes" if float(found.vanishes[-1]) > 0.5 else "explodes" if float(found.explodes[-1]) > 0.5 else "lasts"
    return (
        f"{fate}: after {lag} steps {middle:.3g} times as large [{low:.3g}, {high:.3g}] (90%), by {factor:.3g} per step"
    )
