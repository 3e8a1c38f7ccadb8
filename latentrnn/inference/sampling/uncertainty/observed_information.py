"""The curvature of a fitted model's density over all of its weights, and what follows for a quantity."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.evidence.marginal import Marginal, fixed_model
from latentrnn.inference.evidence.pareto import LARGEST_GOOD, tail_shape
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.sampling.uncertainty.curvature import Curvature, DenseCurvature, Spread
from latentrnn.inference.sampling.uncertainty.derivatives import Expansion, Function, jacobian
from latentrnn.inference.sampling.uncertainty.directions import Direction
from latentrnn.inference.sampling.uncertainty.krylov_curvature import KrylovCurvature
from latentrnn.inference.sampling.uncertainty.polish import polished
from latentrnn.inference.sampling.uncertainty.quantities import (
    OWNER,
    Entries,
    Layout,
    Quantity,
    check_derivative,
    declared_entries,
    with_transform,
)
from latentrnn.inference.sampling.uncertainty.result import Remaining, Uncertainty, describe
from latentrnn.inference.sampling.uncertainty.weights import Weights
from latentrnn.support.isolation import generator, random_state

MOST_ENTRIES = 200  # of a quantity, each of which costs a system of its own where weights are many
STILL_TO_GAIN = 1e-2  # nats, from which on the point is not called a mode
PARTS = 8  # of the importance samples, which tell the error of them all
LARGEST_ERROR = 0.3  # of a variance, by importance samples, that passes without a word


@dataclass(frozen=True)
class Settings:
    """How the curvature is found; see `uncertainty`."""

    transform: Any
    polish: int
    num_particles: int
    max_dense: int
    device: torch.device
    seed: int


class Problem:
    """Minus the log density of a fit's weights and data, local latents integrated out.

    Args:
        result: the fit.
        data: the sequences.
        settings: of the computation.

    Raises:
        ValueError: the data do not fit, nothing was learned, or a density that is not finite.
        TypeError: a result without a guide of its own, or no data.
    """

    def __init__(self, result: FitResult, data: SequenceData, settings: Settings) -> None:
        model, guide = fixed_model(OWNER, result.model, data, result, integrate=False)
        self.model = model.double().to(settings.device)
        self.data = data.to(settings.device, torch.float64)
        guide = None if guide is None else guide.double().to(settings.device)
        with random_state(settings.seed, settings.device):
            self.marginal = Marginal(self.model, guide, self.data, settings.num_particles)
            self.weights = Weights(self.model, guide)
        if not self.weights.size:
            raise ValueError(f"{OWNER}: nothing was learned: every number of the model is known")
        self.function: Function = self.weights.energy(self.marginal)

    def check_start(self, expansion: Expansion) -> None:
        """Raise a ValueError where density or gradient are no finite numbers."""
        if not expansion.finite:
            bad = (~expansion.gradient.isfinite()).nonzero().flatten().tolist()
            where = f", nor its derivative by {self.weights.names[bad[0]]!r}" if bad else ""
            raise ValueError(
                f"{OWNER}: the log density of the data is not finite at the fitted weights "
                f"({-float(expansion.value):g}{where}); check the data, and the fit's history"
            )

    def tail_shapes(self, point: Tensor) -> Tensor | None:
        """Return k-hat of every sequence's importance weights at a vector of weights; None without any."""
        if not self.marginal.latents:
            return None
        found = self.weights.unpack(point)
        with torch.no_grad():
            log_weights = self.weights.evaluate(lambda _: self.marginal.log_weights(found.sites), point)
        return tail_shape(log_weights)


class Evaluated(NamedTuple):
    """A quantity at a point, with the density's curvature there.

    Attributes:
        curvature: of minus the log density.
        entries: supports and units.
        values: (entry,).
        slopes: d values / d weights, (entry, size).
        layout: what the quantity is made of.
    """

    curvature: Curvature
    entries: Entries
    values: Tensor
    slopes: Tensor
    layout: Layout


def evaluated(
    problem: Problem, quantity: Quantity, expansion: Expansion, settings: Settings, *, plain: bool = False
) -> Evaluated:
    """Return a quantity and a curvature at the point of an expansion.

    Args:
        problem: the density.
        quantity: the quantity.
        expansion: of the density.
        settings: of the computation.
        plain: whether a quantity without derivatives will do, whose slopes are then zero.

    Raises:
        ValueError, TypeError: as of `uncertainty`, for the quantity.
    """
    weights, probes = problem.weights, generator(settings.seed)
    at = expansion.point.clone().requires_grad_(True)
    with torch.enable_grad():
        values, layout = quantity.at(weights, at, plain=plain)
        if weights.size > settings.max_dense and len(values) > MOST_ENTRIES:
            raise ValueError(
                f"{OWNER}: with {weights.size} weights a quantity may have {MOST_ENTRIES} entries; found "
                f"{len(values)}; ask for fewer, or raise max_dense"
            )
        slopes = jacobian(values, at)
        entries = declared_entries(weights, at, values, slopes, problem.data.spec)
    curvature: Curvature
    parts = []
    if problem.marginal.latents:
        parts = [Expansion(weights.energy(part), expansion.point) for part in problem.marginal.parts(PARTS)]
    if weights.size <= settings.max_dense:
        curvature = DenseCurvature(expansion, weights.names, weights.owners, parts)
    else:
        curvature = KrylovCurvature(expansion, weights.names, weights.owners, parts, probes)
    if not plain:
        check_derivative(quantity, weights, expansion.point, slopes, curvature.scale, probes)
    return Evaluated(curvature, entries, values.detach(), slopes, layout)


def by_curvature(result: FitResult, data: SequenceData, quantity: Quantity, settings: Settings) -> Uncertainty:
    """Return the uncertainty of a quantity by the observed information over all weights; see `uncertainty`."""
    problem = Problem(result, data, settings)
    before = Expansion(problem.function, problem.weights.start)
    problem.check_start(before)
    point, steps, _ = polished(problem.function, before.point, settings.polish, generator(settings.seed))
    expansion = Expansion(problem.function, point) if steps else before
    curvature, entries, values, slopes, layout = evaluated(problem, quantity, expansion, settings)
    support = with_transform(entries, settings.transform, layout, values)
    spread = curvature.spread(slopes)
    moved = [each for along in spread.moved_along for each in along]
    directions = list({(each.kind, frozenset(each.entries)): each for each in curvature.directions() + moved}.values())
    remaining = _remaining(curvature, slopes, spread, steps, float(before.value - expansion.value))
    notes = notes_of(spread.moved_along, spread.unsolved)
    warn_of_open(layout, notes, sampled=bool(problem.marginal.latents))
    _warn(remaining, directions, settings, problem.tail_shapes(point))
    _warn_of_error(layout, notes, spread, settings)
    return Uncertainty(
        how="laplace",
        entries=tuple(layout.entries),
        units=support.units,
        covariance=spread.covariance.cpu(),
        draws=None,
        member_weights=None,
        flat_directions=tuple(each for each in directions if each.kind != "negative"),
        negative_directions=tuple(each for each in directions if each.kind == "negative"),
        notes=tuple(notes),
        remaining=remaining,
        conditional_on=known_values(problem.weights),
        seed=settings.seed,
        _means=values.cpu(),
        _support=support,
        _layout=layout,
    )


def known_values(weights: Weights) -> str | None:
    """Return what a model takes as known, as a phrase; None where that is nothing."""
    known = [parameter.site for parameter, _ in weights.model.given.known]
    return f"known values of {', '.join(known)}" if known else None


def _remaining(curvature: Curvature, slopes: Tensor, spread: Spread, steps: int, rise: float) -> Remaining:
    step = curvature.newton_step()
    sd = spread.covariance.diagonal().sqrt()
    shifts = torch.where(sd.isfinite() & (sd > 0), (slopes @ step).abs() / sd, 0.0)
    gain = max(0.0, -0.5 * float(curvature.expansion.gradient @ step))
    return Remaining(steps, rise, gain, curvature.slope, curvature.lowest, float(shifts.max()))


def notes_of(moved_along: list[list[Direction]], unsolved: Sequence[int] = ()) -> list[str]:
    """Return for every entry why it has no standard deviation, or ""."""
    notes = []
    for number, along in enumerate(moved_along):
        note = f"moves along {describe(along)}" if along else ""
        if number in unsolved:
            note = f"{note}; not solved for" if note else "not solved for"
        notes.append(note)
    return notes


def warn_of_open(layout: Layout, notes: list[str], *, sampled: bool = False) -> None:
    """Warn where entries are not determined, with the first one's note; `sampled` where latents are integrated out."""
    bad = [(entry, note) for entry, note in zip(layout.entries, notes, strict=True) if note]
    if not bad:
        return
    entry, note = bad[0]
    others = f" (and so do {len(bad) - 1} other entries)" if len(bad) > 1 else ""
    remedy = "raise num_particles, " if sampled and "unresolved" in note else ""
    warnings.warn(
        f"{OWNER}: the data do not determine {entry!r}: it {note}{others}; {remedy}ask for a combination that they "
        "determine, fix one of these weights, or give it a prior",
        UserWarning,
        stacklevel=5,
    )


def _warn_of_error(layout: Layout, notes: list[str], spread: Spread, settings: Settings) -> None:
    """Warn where importance samples leave standard deviations to chance."""
    known = torch.tensor([not note for note in notes], device=spread.error.device)
    error = torch.where(known, spread.error, 0.0)
    if float(error.max()) > LARGEST_ERROR:
        warnings.warn(
            f"{OWNER}: the standard deviation of {layout.entries[int(error.argmax())]!r} may be wrong by "
            f"{50 * float(error.max()):.0f}%, which {settings.num_particles} importance samples leave to chance; raise "
            "num_particles, or fix what the data leave open of the latents (their scale, say)",
            UserWarning,
            stacklevel=5,
        )


def _warn(remaining: Remaining, directions: list[Direction], settings: Settings, tails: Tensor | None) -> None:
    """Say what speaks against believing the numbers."""
    said = []
    if remaining.gain > STILL_TO_GAIN:
        said.append(
            f"the point is no mode: a further step would gain {remaining.gain:.3g} nats and move an entry by "
            f"{remaining.shift:.2g} of its standard deviations; raise polish (now {settings.polish})"
        )
    if negative := [each for each in directions if each.kind == "negative"]:
        said.append(
            f"the density still rises along {negative[0]} (curvature {remaining.lowest:.2g} of the largest), so that "
            'the point is no mode; raise polish, give the weights priors, or use how="bootstrap"'
        )
    if tails is not None and bool((tails > LARGEST_GOOD).any()):
        said.append(
            f"importance weights of {int((tails > LARGEST_GOOD).sum())} of {len(tails)} sequences have a heavy tail "
            f"(Pareto k-hat up to {float(tails.nan_to_num(0.0).max()):.2f}), so that the density is not to be trusted; "
            'raise num_particles, fit the guide longer, or use how="bootstrap"'
        )
    for text in said:
        warnings.warn(f"{OWNER}: {text}", UserWarning, stacklevel=5)
