"""What if a gate were held, a covariate another, a unit silent: interventions that compose, and what they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.inference.posterior.interventions.clamps import Clamp
from latentrnn.inference.posterior.interventions.places import Steps, checked_steps, checked_units, steps_of
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.results.labelled import AnyPosterior, Variable, labelled, pooled
from latentrnn.support.arguments import check_choice, check_kind_of, check_text
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class _Change:
    """A covariate set to a value, or moved by it, at some steps."""

    covariate: str
    value: Any
    at: Steps
    moves: bool

    def of(self, before: Tensor, steps: Tensor) -> Tensor:
        owner = f"{'perturb' if self.moves else 'do'}: covariates[{self.covariate!r}]"
        value = to_tensor(owner, self.value).to(before)
        if value.dim() and value.shape not in (before.shape[-1:], before.shape[1:], before.shape):
            raise ValueError(
                f"{owner}: expected one number, or (feature,), (time, feature) or (sequence, time, feature) of "
                f"{tuple(before.shape)}; found {tuple(value.shape)}"
            )
        new = before + value if self.moves else value.expand(before.shape)
        return torch.where(steps.to(before.device)[:, None], new, before)


@dataclass(frozen=True)
class Intervention:
    """What is done to a fitted model: made by `clamp`, `do`, `perturb` and `lesion`, put together by `+`.

    Where two act on one gate or covariate, the later goes over the earlier.
    """

    changes: tuple[_Change, ...] = ()
    clamps: Mapping[str, tuple[Clamp, ...]] = field(default_factory=dict)
    silent: tuple[int, ...] = ()
    silent_at: Steps = None

    def __add__(self, other: Intervention) -> Intervention:
        if not isinstance(other, Intervention):
            return NotImplemented
        if self.silent and other.silent and self.silent_at != other.silent_at:
            raise ValueError(
                f"lesion: units are silent at one set of steps; found {self.silent_at!r}, {other.silent_at!r}"
            )
        gates = {*self.clamps, *other.clamps}
        return Intervention(
            self.changes + other.changes,
            {gate: (*self.clamps.get(gate, ()), *other.clamps.get(gate, ())) for gate in sorted(gates)},
            tuple(sorted({*self.silent, *other.silent})),
            self.silent_at if self.silent else other.silent_at,
        )

    def __repr__(self) -> str:
        parts = [f"{'perturb' if each.moves else 'do'}({each.covariate!r}, {_at(each.at)})" for each in self.changes]
        parts += [f"clamp({gate!r}, {held!r})" for gate, several in self.clamps.items() for held in several]
        parts += [f"lesion({list(self.silent)}, {_at(self.silent_at)})"] if self.silent else []
        return " + ".join(parts) or "Intervention()"


def _at(at: Steps) -> str:
    return "everywhere" if at is None else f"at={at!r}"


def clamp(
    gate: str, value: Any, *, at: Steps = None, units: Sequence[int] | None = None, dims: Sequence[str] | None = None
) -> Intervention:
    """Hold a gate at a value.

    Args:
        gate: as `trace` names it: "forget" is that of all layers, "layer0.forget" of one, "audio.forget" of a stream.
        value: one number; numbers whose axes `dims` names; or a function of the gate's value, (sample, sequence, unit),
            which may take a second argument, the `GatePlace` that says step, layer and stream.
        at: base steps at which it is held: one, a slice, a list; None for all. Elsewhere the gate is free.
        units: units that are held; None for all.
        dims: which of "sample", "sequence", "time" and "unit" the axes of the value are.

    Raises:
        ValueError: dims that are not one per axis, or steps and units that are no places.
        TypeError: a gate that is no name, or a value that is neither numbers nor a function.

    Example:
        >>> clamp("forget", 1.0, at=slice(10, 20)) + do("stimulus", 0.0)
        do('stimulus', everywhere) + clamp('forget', Clamp(1.0, at=slice(10, 20, None)))
    """
    held = value if isinstance(value, Clamp) else Clamp(value, dims, at, units)
    return Intervention(clamps={check_text("clamp", "gate", gate): (held,)})


def do(covariate: str, value: Any, *, at: Steps = None) -> Intervention:
    """Set a covariate to a value, in the data's units.

    Args:
        covariate: its name.
        value: one number, (feature,), (time, feature) or (sequence, time, feature).
        at: base steps at which it is set: one, a slice, a list; None for all.

    Raises:
        ValueError: `at` that names no steps.
        TypeError: a covariate that is no name.
    """
    return Intervention((_Change(check_text("do", "covariate", covariate), value, checked_steps("do", at), False),))


def perturb(covariate: str, delta: Any, *, at: Steps = None) -> Intervention:
    """Move a covariate by so much, in the data's units; arguments as of `do`."""
    name = check_text("perturb", "covariate", covariate)
    return Intervention((_Change(name, delta, checked_steps("perturb", at), True),))


def lesion(units: Sequence[int], *, at: Steps = None) -> Intervention:
    """Silence units of h_t: they send nothing, to readouts and to the next step.

    Args:
        units: their places, counted from zero.
        at: base steps after which they are silent; None for all.

    Raises:
        ValueError: no units, or `at` that names no steps.
        TypeError: units that are no list of integers.
    """
    found = checked_units("lesion", units)
    if found is None:
        raise ValueError("lesion: expected a list of units; found None")
    return Intervention(silent=tuple(sorted(found)), silent_at=checked_steps("lesion", at))


@isolated
def intervene(
    posterior: AnyPosterior,
    intervention: Intervention = Intervention(),
    num_samples: int = 100,
    *,
    feedback: str = "recorded",
) -> xarray.Dataset:
    """Return what the recorded sequences would have been under an intervention, their inferred randomness kept.

    Abduction, action, prediction; see `Posterior.counterfactual`, whose draws these are. Nothing done gives what the
    posterior says of the recording.

    Args:
        posterior: of a model, or of an ensemble, each of whose members is intervened on.
        intervention: of `clamp`, `do`, `perturb`, `lesion`, and sums of these.
        num_samples: number of draws.
        feedback: "recorded", heads that feed back see what was observed; "free", from the first step that is touched on
            they see their own samples.

    Returns:
        Each head's mean given latents and parameters under the head's name, (sample, sequence, time, <head>_channel),
        or (sample, sequence, <head>_channel) of a head that has one value per sequence, in the data's units; and
        "states", what readouts see, (sample, sequence, time, unit). Padding is NaN.

    Raises:
        ValueError: a gate, covariate, unit or step that is not there, or a shape that does not go with the data.
        TypeError: something that is no posterior or no intervention.

    References:
        Pearl. Causality: models, reasoning, and inference. 2009.
    """
    check_kind_of("intervene", "intervention", intervention, Intervention)
    check_choice("intervene", "feedback", feedback, ("recorded", "free"))
    return pooled("intervene", posterior, num_samples, lambda one, n: _of_one(one, intervention, n, feedback))


@isolated
def contrast(
    posterior: AnyPosterior,
    treated: Intervention,
    control: Intervention = Intervention(),
    num_samples: int = 100,
    *,
    feedback: str = "recorded",
) -> xarray.Dataset:
    """Return the effect of one intervention against another: treated less control, draw by draw.

    Both arms have the same draws of latents and parameters and the same random numbers, so that what differs is what
    was done. `interpret.summarise` makes the effect's interval.

    Args:
        posterior: of a model, or of an ensemble.
        treated, control: of `clamp`, `do`, `perturb`, `lesion`, and sums of these; by default nothing is done.
        num_samples: number of draws.
        feedback: as of `intervene`; run free from the first step that either arm touches.

    Returns:
        A dataset as of `intervene`, of differences.

    Raises:
        ValueError, TypeError: as of `intervene`.
    """
    for name, arm in (("treated", treated), ("control", control)):
        check_kind_of("contrast", name, arm, Intervention)
    check_choice("contrast", "feedback", feedback, ("recorded", "free"))

    def of_one(one: Posterior, count: int) -> xarray.Dataset:
        start = min(_first_step(arm, one) for arm in (treated, control))
        arms = [_of_one(one, arm, count, feedback, start) for arm in (treated, control)]
        difference: xarray.Dataset = arms[0] - arms[1]
        return difference.assign_attrs(arms[0].attrs)

    return pooled("contrast", posterior, num_samples, of_one)


def _of_one(
    posterior: Posterior, intervention: Intervention, num_samples: int, feedback: str, start: int | None = None
) -> xarray.Dataset:
    data = posterior.data
    covariates: dict[str, Tensor] = {}
    for change in intervention.changes:
        if change.covariate not in data.covariates:
            raise ValueError(f"do: unknown covariate {change.covariate!r}; the data have {sorted(data.covariates)}")
        before = covariates.get(change.covariate, data.covariates[change.covariate])
        steps = steps_of("perturb" if change.moves else "do", change.at, data.num_steps)
        covariates[change.covariate] = change.of(before, steps)
    found = posterior.counterfactual(
        covariates,
        {gate: list(held) for gate, held in intervention.clamps.items()},
        from_step=_first_step(intervention, posterior) if start is None else start,
        feedback=feedback,
        num_samples=num_samples,
        lesion=list(intervention.silent) or None,
        lesion_at=intervention.silent_at,
    )
    variables: dict[str, Variable] = {"states": (("sample", "sequence", "time", "unit"), found.states)}
    for name, rates in found.rates.items():
        head = data.spec.heads[name]
        time = ("time" if head.clock == 1 else f"{name}_time",) if head.per_step else ()
        variables[name] = (("sample", "sequence", *time, f"{name}_channel"), rates)
    return labelled(data, variables, attributes={"intervention": repr(intervention)})


def _first_step(intervention: Intervention, posterior: Posterior) -> int:
    """Return the first step that an intervention touches."""
    places = [change.at for change in intervention.changes]
    places += [held.at for several in intervention.clamps.values() for held in several]
    places += [intervention.silent_at] if intervention.silent else []
    steps = posterior.data.num_steps
    return min((int(steps_of("intervene", at, steps).nonzero()[0, 0]) for at in places), default=0)
