"""How long a fitted memory lasts: by the gates that keep it, and by the Jacobians of the whole step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.transition_runs import TransitionRun
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.derivatives.derivatives import by_draw, jacobian, jacobian_blocks, step_blocks, whole_state
from latentrnn.interpret.memories.shares import Share, kept_shares, say_all
from latentrnn.interpret.memories.spectrum import time_constant
from latentrnn.interpret.results.labelled import AnyPosterior, Variable, in_rows, labelled, pooled, without_padding
from latentrnn.models.features.gap import elapsed
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_flag, check_list, check_number
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

OWNER = "time_constants"
AXES = ("sample", "sequence", "time")


@isolated
def time_constants(
    posterior: AnyPosterior,
    gate: str | None = None,
    *,
    complement: bool = False,
    plausible: Sequence[float] | None = None,
    left: float = 0.1,
    disagreement: float | None = 2.0,
    num_samples: int = 10,
) -> xarray.Dataset:
    """Return the time constants of a memory by its gates, and beside them those of the step's Jacobians.

        tau_t = -dt_t / ln k_t,   k_t the share of the state that step t keeps, by its gate
        jacobian_tau = -(time of the sequence) / ln |lambda|,   lambda the leading eigenvalue of J_T ... J_1

    with dt_t the time since the step before. A gate says how long a memory lasts only where nothing writes back what
    it lets go: weights of the state onto itself, and gates that read the state, make the Jacobian's another. Where the
    longest of one is more than `disagreement` times the longest of the other, a warning says so: the fit remembers
    otherwise than by its gates, or does not need to remember. Take several seeds (an ensemble) and see what they share.

    Args:
        posterior: of any model, or of an ensemble, whose members are warned of one by one.
        gate: the gate whose value is the share that is kept, as in `trace`, e.g. of a transition of one's own; by
            default what the transition says (forget gates; complements of update gates; retention).
        complement: whether 1 - gate is the share that is kept.
        plausible: lowest and highest time constant that physiology allows, seconds (steps without a clock).
        left: share of a memory at which its length is taken.
        disagreement: factor, above one, from which on gates and Jacobians are said to disagree; None never says so.
        num_samples: number of draws, those of `trace`.

    Returns:
        For each cell, by its prefix ("slow.tau", "layer0.tau", of a single cell "tau"): "tau", (sample, sequence, time,
        unit), in seconds or steps; "memory", (sample, sequence, unit), the time in which the product of the kept
        shares along the sequence falls to `left`, at its average rate, and "memory_steps"; with `plausible`
        "within", (sample, unit), the share of steps with tau inside, whose mean over draws is the probability; and
        "reads_state", (sample, unit): whether the gate depends on the state at any step (by autograd). Of whole states
        "jacobian_tau", "jacobian_memory" and "jacobian_memory_steps", (sample, sequence), and "disagreement", likewise,
        the longest of the gates' memories over the Jacobians'. What does not fall lasts for ever: inf.

    Raises:
        TypeError: something that is no posterior, a range that is no pair.
        ValueError: an unknown gate, one with values outside [0, 1]; bounds out of order, settings out of range.

    References:
        Tallec, Ollivier. Can recurrent neural networks warp time? 2018.
        Quax, D'Asaro, van Gerven. Adaptive time scales in recurrent neural networks. 2020.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, {"x": np.ones((2, 5, 1))}, dt=0.01)
        >>> heads, memory = {"v": lr.Gaussian()}, lr.LeakyIntegrator(1, tau=0.195, learned=False)
        >>> model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads)
        >>> posterior = lr.Posterior(model, lr.Guide(model), data)
        >>> found = lr.interpret.time_constants(posterior, plausible=(0.1, 0.5), num_samples=1).isel(sequence=0)
        >>> [round(found[name].values.item(), 3) for name in ("jacobian_tau", "memory", "within", "disagreement")]
        [0.195, 0.449, 1.0, 1.0]
    """
    check_number(OWNER, "left", left, above=0.0, below=1.0)
    check_flag(OWNER, "complement", complement)
    if disagreement is not None:
        check_number(OWNER, "disagreement", disagreement, above=1.0)
    bounds = None if plausible is None else _bounds(plausible)
    if complement and gate is None:
        raise ValueError(f"{OWNER}: complement: expected a gate whose complement is kept; found gate None")

    share = Share(gate, complement)
    found = pooled(OWNER, posterior, num_samples, lambda one, count: _of_one(one, share, bounds, left, count))
    if disagreement is not None and "disagreement" in found:
        _warn(found, disagreement)
    return found


def _bounds(plausible: Sequence[float]) -> tuple[float, float]:
    pair = check_list(OWNER, "plausible", plausible, "numbers")
    if len(pair) != 2:
        raise ValueError(f"{OWNER}: plausible: expected the lowest and the highest time constant; found {plausible!r}")
    low = check_number(OWNER, "plausible[0]", pair[0], least=0.0)
    return low, check_number(OWNER, "plausible[1]", pair[1], above=low)


def _of_one(
    posterior: Posterior, share: Share, bounds: tuple[float, float] | None, left: float, num_samples: int
) -> xarray.Dataset:
    transition, parts, reading = posterior.model.transition, [], []
    for run in posterior.transition_runs(num_samples):
        shares = kept_shares(OWNER, transition, run.gates(), share)
        by_gates = {prefix + name: value for prefix, kept in shares.items() for name, value in _of(run, kept, left)}
        parts.append(by_gates | _by_jacobians(run, left))
        reading.append(_reading(run, share) if shares else {})
    arrays, prefixes = in_rows(parts), list(reading[0])
    if prefixes and (share.gate is not None or say_all(transition, reading[0])):
        longest = torch.cat([arrays[f"{prefix}memory"] for prefix in prefixes], -1).amax(-1)
        arrays["disagreement"] = _ratio(longest, arrays["jacobian_memory"])
    sizes = [arrays[f"{prefix}tau"].shape[-1] for prefix in prefixes]
    most = max(sizes, key=lambda size: (sizes.count(size), size), default=0)
    variables: dict[str, Variable] = {name: (AXES[:2], value) for name, value in arrays.items() if value.dim() == 2}
    for prefix, size in zip(prefixes, sizes, strict=True):
        unit = "unit" if size == most else f"{prefix}unit"
        tau = arrays[f"{prefix}tau"]
        variables[f"{prefix}tau"] = ((*AXES, unit), tau)
        for name in ("memory", "memory_steps"):
            variables[prefix + name] = ((*AXES[:2], unit), arrays[prefix + name])
        variables[f"{prefix}reads_state"] = (("sample", unit), torch.stack([each[prefix] for each in reading]).any(0))
        if bounds is not None:
            inside = torch.where(tau.isnan(), torch.nan, ((tau >= bounds[0]) & (tau <= bounds[1])).to(tau.dtype))
            variables[f"{prefix}within"] = (("sample", unit), inside.nanmean((1, 2)))
    attributes = {"left": left} | ({} if bounds is None else {"plausible": bounds})
    return labelled(posterior.data, variables, attributes=attributes)


def _of(run: TransitionRun, kept: Tensor, left: float) -> Iterator[tuple[str, Tensor]]:
    """Yield what is found by the kept share, (sample, sequence, time, unit), of one cell."""
    data = run.rollout.data
    gap = elapsed(data).double()
    log_kept = kept.double().log()
    total = torch.where(data.valid[..., None], log_kept, 0.0).sum(2)
    yield "tau", without_padding(time_constant(log_kept, gap[..., None]), data)
    yield "memory", _length(total, gap.sum(-1)[:, None], left)
    yield "memory_steps", _length(total, data.lengths.double()[:, None], left)


def _by_jacobians(run: TransitionRun, left: float) -> dict[str, Tensor]:
    """Return what is found by the leading eigenvalue of the product of a sequence's Jacobians, (sample, sequence)."""
    data = run.rollout.data
    one = torch.eye(run.before.shape[-1], dtype=torch.float64, device=run.before.device)
    product = one.expand(*run.before.shape[:2], -1, -1)
    total = product.new_zeros(product.shape[:2])
    for block, found in jacobian_blocks(run, whole_state, "state", "total"):
        for step, valid in zip(found.double().unbind(2), data.valid[:, block].unbind(1), strict=True):
            product = torch.where(valid[:, None, None], step, one) @ product
            scale = product.abs().amax((-1, -2))  # taken out, so that long products neither vanish nor explode
            scale = torch.where(scale > 0, scale, 1.0)
            product, total = product / scale[..., None, None], total + scale.log()
    total = total + torch.linalg.eigvals(product.cpu()).abs().amax(-1).log().to(total)
    span = elapsed(data).double().sum(-1)
    return {
        "jacobian_tau": time_constant(total, span),
        "jacobian_memory": _length(total, span, left),
        "jacobian_memory_steps": _length(total, data.lengths.double(), left),
    }


def _length(log_kept: Tensor, span: Tensor, left: float) -> Tensor:
    """Return how long it takes until `left` is left, at the rate over a span; inf where nothing falls."""
    return torch.where(log_kept < 0, math.log(left) * span / log_kept, torch.inf)


def _ratio(first: Tensor, second: Tensor) -> Tensor:
    """Return first / second, one where they are the same, be they zero or infinite."""
    return torch.where(first == second, 1.0, first / second)


def _reading(run: TransitionRun, share: Share) -> dict[str, Tensor]:
    """Return whether what a gate keeps depends on the state before, at any step, by prefix: (sample, unit)."""
    names: dict[str, int] = {}

    def of_one(transition: Transition, before: Tensor, inputs: Tensor) -> Tensor:
        def shares(state: Tensor) -> Tensor:
            gates = transition.record(inputs.unsqueeze(-2), state).gates
            found = kept_shares(OWNER, transition, {name: gate.squeeze(-2) for name, gate in gates.items()}, share)
            names.update({name: value.shape[-1] for name, value in found.items()})
            rows = state.shape[:-1]
            return torch.cat([value.expand(*rows, -1) for value in found.values()], -1)

        return (jacobian(shares, before) != 0).any(-1)

    found: list[Tensor] = []
    for _, before, inputs in step_blocks(run):
        found.append(by_draw(run.transition, of_one, before.flatten(1, 2), inputs.flatten(1, 2)).any(1))
    parts = torch.stack(found).any(0).cpu().split(list(names.values()), -1)
    return dict(zip(names, parts, strict=True))


def _warn(found: xarray.Dataset, factor: float) -> None:
    """Warn (UserWarning) of members whose gates and Jacobians disagree by more than a factor."""
    member = found.coords["member"].values if "member" in found.coords else None
    ratios = found.disagreement.values
    for number in [None] if member is None else sorted(set(member.tolist())):
        each = ratios if number is None else ratios[member == number]
        middle = float(np.median(each[~np.isnan(each)])) if not np.isnan(each).all() else 1.0
        if not 1 / factor <= middle <= factor:
            whose = "" if number is None else f"member {number}: "
            warnings.warn(
                f"{OWNER}: {whose}the longest memory of the gates is {middle:.3g} times that of the Jacobians: gates "
                "do not say how long this fit remembers (weights of the state onto itself do too, or nothing is "
                "remembered); see `jacobian_tau`, and whether other seeds agree",
                UserWarning,
                stacklevel=4,
            )
