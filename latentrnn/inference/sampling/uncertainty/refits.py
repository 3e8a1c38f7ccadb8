"""Quantities of fits to resampled sequences, and of fits from other seeds."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.fitting.fit import fit
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.settings.reporting import Reporting
from latentrnn.inference.fitting.settings.stopping import EarlyStopping
from latentrnn.inference.guides.families.per_sequence import PerSequence
from latentrnn.inference.sampling.ensemble import Ensemble, fit_ensemble
from latentrnn.inference.sampling.uncertainty.curvature import Spread
from latentrnn.inference.sampling.uncertainty.derivatives import Expansion, jacobian
from latentrnn.inference.sampling.uncertainty.directions import Direction
from latentrnn.inference.sampling.uncertainty.observed_information import (
    Problem,
    Settings,
    evaluated,
    known_values,
    notes_of,
    warn_of_open,
)
from latentrnn.inference.sampling.uncertainty.polish import polished
from latentrnn.inference.sampling.uncertainty.quantities import (
    OWNER,
    Layout,
    Quantity,
    declared_entries,
    with_transform,
)
from latentrnn.inference.sampling.uncertainty.result import Uncertainty
from latentrnn.inference.sampling.uncertainty.weights import Weights
from latentrnn.support.isolation import generator
from latentrnn.support.progress import progress_bar

FEWEST = 10  # independent sequences of a session that can be resampled
CONTINUED = 10  # refits that are made longer, to see whether they had come to rest
STILL_MOVING = 0.2  # of their distance from the fit, by which they then move on


class Resampling:
    """Sequences drawn with replacement, within their session, windows of one sequence together.

    Args:
        data: the sequences.

    Raises:
        ValueError: too few to resample.
    """

    def __init__(self, data: SequenceData) -> None:
        groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        sessions = [""] * len(data) if data.sessions is None else list(data.sessions)
        for row, (session, key) in enumerate(zip(sessions, data.keys, strict=True)):
            groups[session, key.key].append(row)
        self.sessions: dict[str, list[list[int]]] = {session: [] for session in dict.fromkeys(sessions)}
        for (session, _), rows in groups.items():
            self.sessions[session].append(rows)
        for session, members in self.sessions.items():
            if len(members) < FEWEST:
                of = f" in session {session!r}" if session else ""
                raise ValueError(
                    f"{OWNER}: the bootstrap needs at least {FEWEST} sequences that are independent of each other{of}, "
                    f'which it draws with replacement; found {len(members)}; use how="laplace", or cut recordings into '
                    "sequences that are long beside what they remember"
                )

    def draw(self, random: torch.Generator) -> list[int]:
        """Return rows of the data, as many sequences of each session as it has."""
        rows: list[int] = []
        for members in self.sessions.values():
            for i in torch.randint(0, len(members), (len(members),), generator=random).tolist():
                rows += members[i]
        return rows


_OF_THE_FIRST, _LIMITS = ("steps", "batch_size"), ("max_steps", "max_time")


@dataclass(frozen=True)
class Refits:
    """How many fits are made, and how; see `uncertainty`."""

    number: int
    fit_settings: Mapping[str, Any]
    progress: bool

    def as_the_first(self, result: FitResult) -> dict[str, Any]:
        """Return settings of `fit`: steps, limits and batch size of the first fit where nothing else is said."""
        known: dict[str, Any] = {"reporting": Reporting(progress=False)}
        known |= {name: result.settings[name] for name in _OF_THE_FIRST if name in result.settings}
        if limits := {name: result.settings[name] for name in _LIMITS if name in result.settings}:
            known["stopping"] = EarlyStopping(**limits)
        return known | dict(self.fit_settings)


class Example(NamedTuple):
    """A quantity of one fit: its value, the vector of weights that it has there, and what it is made of."""

    weights: Weights
    at: Tensor
    values: Tensor
    layout: Layout

    @classmethod
    def of(cls, fitted: FitResult, quantity: Quantity) -> Example:
        """Return it at the weights of a fit."""
        weights = Weights.of(fitted)
        at = weights.start.clone().requires_grad_(True)
        return cls(weights, at, *quantity.at(weights, at, plain=True))


Refit = Callable[[SequenceData, int], tuple[Tensor, FitResult | None]]  # resampled data and number to the quantity


def by_resampling(
    result: FitResult,
    data: SequenceData,
    quantity: Quantity,
    settings: Settings,
    refits: Refits,
) -> Uncertainty:
    """Return the uncertainty of a quantity by refits to resampled sequences; see `uncertainty`."""
    resampling, random = Resampling(data), generator(settings.seed)
    rows = [resampling.draw(random) for _ in range(refits.number)]
    by_fit = bool(refits.fit_settings) or bool(result.model.latent_sites())
    first = Example.of(result, quantity)
    start, notes = first.at.detach(), [""] * len(first.values)
    if not by_fit or (len(start) <= settings.max_dense and not result.model.latent_sites()):
        start, notes = _mode(result, data, quantity, settings)
        warn_of_open(first.layout, notes)
    refit = _fits(result, quantity, settings, refits) if by_fit else _modes(result, quantity, settings, start)
    found: list[Tensor] = []
    failures: list[str] = []
    kept: list[tuple[FitResult, int, Tensor]] = []
    for number, chosen in enumerate(progress_bar(rows, desc="refits", disable=not refits.progress)):
        try:
            values, again = refit(data[chosen], number)
        except (ValueError, RuntimeError) as error:
            failures.append(f"refit {number}: {error}")
            continue
        found.append(values)
        if again is not None and len(kept) < CONTINUED:
            kept.append((again, number, values))
    _check_failures(failures, found)
    if kept:
        _warn_of_movement(kept, rows, first.values.detach(), data, quantity, settings, refits)
    draws = torch.stack(found)
    equal = torch.full((len(draws),), 1 / len(draws), dtype=torch.float64)
    return _summary("bootstrap", draws, equal, first, data, settings, known_values(first.weights), notes)


def _mode(result: FitResult, data: SequenceData, quantity: Quantity, settings: Settings) -> tuple[Tensor, list[str]]:
    """Return the mode of the density of all sequences, and for every entry why these do not determine it, or "".

    Refits begin at one point, from which nothing moves them along a flat direction: their spread does not show it.
    """
    problem = Problem(result, data, settings)
    found = polished(problem.function, problem.weights.start, settings.polish, generator(settings.seed))
    known = evaluated(problem, quantity, Expansion(problem.function, found.point), settings, plain=True)
    along = _open(known.curvature.spread(known.slopes)) if found.arrived else [[] for _ in known.values]
    return found.point, notes_of(along)


def _open(spread: Spread) -> list[list[Direction]]:
    """Return for every entry the directions along which it moves and that are flat, or may be."""
    return [[each for each in along if each.kind != "negative"] for along in spread.moved_along]


def by_members(ensemble: Ensemble, data: SequenceData, quantity: Quantity, settings: Settings) -> Uncertainty:
    """Return the spread of a quantity over the members of an ensemble; see `uncertainty`."""
    examples = [Example.of(member, quantity) for member in ensemble.members]
    draws = torch.stack([each.values.detach() for each in examples])
    given, known = "the sequences, which all members share", known_values(examples[0].weights)
    given = f"{given}, and {known}" if known else given
    shares = ensemble.weights.double().cpu()
    notes = ["one member has all the weight" if float(shares.max()) == 1.0 else ""] * draws.shape[1]
    return _summary("ensemble", draws, shares, examples[0], data, settings, given, notes)


def other_seeds(result: FitResult, data: SequenceData, settings: Settings, refits: Refits) -> Ensemble:
    """Return fits of the same model from other seeds."""
    seeds = [settings.seed + 1 + number for number in range(refits.number)]
    return fit_ensemble(result.model, result.guide, data, seeds=seeds, **refits.as_the_first(result))


def _modes(result: FitResult, quantity: Quantity, settings: Settings, start: Tensor) -> Refit:
    """Return what maximises the density of resampled sequences, from a vector of weights on."""

    def refit(data: SequenceData, number: int) -> tuple[Tensor, None]:
        problem = Problem(result, data, settings)
        probes = generator(settings.seed)
        found = polished(problem.function, start, settings.polish, probes, last_steps=0)
        if not found.arrived:
            raise ValueError(
                f"no mode was reached within {settings.polish} steps (gradient {found.slope:.2g} nats per unit)"
            )
        return quantity.at(problem.weights, found.point, plain=True)[0].detach().cpu(), None

    return refit


def _fits(result: FitResult, quantity: Quantity, settings: Settings, refits: Refits) -> Refit:
    """Return what fits resampled sequences, from the fitted weights on."""
    if isinstance(getattr(result.guide, "local", None), PerSequence):
        raise ValueError(
            f"{OWNER}: the guide has numbers for every sequence, which refits to resampled ones would change in the "
            'others; fit with an encoder alone, or use how="laplace"'
        )
    given = refits.as_the_first(result)

    def refit(data: SequenceData, number: int, start: FitResult = result) -> tuple[Tensor, FitResult]:
        again = fit(result.model, result.guide, data, seed=settings.seed + 1 + number, start_from=start, **given)
        return Example.of(again, quantity).values.detach(), again

    return refit


def _warn_of_movement(
    kept: list[tuple[FitResult, int, Tensor]],
    rows: list[list[int]],
    fitted: Tensor,
    data: SequenceData,
    quantity: Quantity,
    settings: Settings,
    refits: Refits,
) -> None:
    """Warn where refits had not come to rest: made longer, they move further away from where they began."""
    given = refits.as_the_first(kept[0][0])
    before, after = [], []
    for again, number, values in kept:
        seed = settings.seed + 1 + refits.number + number
        longer = fit(again.model, again.guide, data[rows[number]], seed=seed, start_from=again, **given)
        before.append(values - fitted)
        after.append(Example.of(longer, quantity).values.detach() - fitted)
    start, end = torch.stack(before), torch.stack(after)
    moved = ((end - start) * start).sum(0) / start.square().sum(0).clamp_min(1e-300)
    if float(moved.max()) > STILL_MOVING:
        warnings.warn(
            f"{OWNER}: refits of {given['steps']} steps had not come to rest: as many steps again take them "
            f"{100 * float(moved.max()):.0f}% further from the fit, so that their spread is too small; raise steps",
            UserWarning,
            stacklevel=5,
        )


def _check_failures(failures: list[str], found: list[Tensor]) -> None:
    """Warn of refits that came to nothing.

    Raises:
        ValueError: more than one in ten did.
    """
    if len(failures) > len(found) / 9:
        raise ValueError(
            f"{OWNER}: {len(failures)} of {len(failures) + len(found)} refits came to nothing, so that the others are "
            f"no fair sample; {failures[0]}"
        )
    if failures:
        warnings.warn(
            f"{OWNER}: {len(failures)} of {len(failures) + len(found)} refits came to nothing and are left out; "
            f"{failures[0]}",
            UserWarning,
            stacklevel=5,
        )


def _summary(
    how: str,
    draws: Tensor,
    shares: Tensor,
    example: Example,
    data: SequenceData,
    settings: Settings,
    conditional_on: str | None,
    notes: list[str],
) -> Uncertainty:
    """Return weighted mean and covariance of draws, (draw, entry), with these shares, (draw,)."""
    mean = shares @ draws
    centred = draws - mean
    left = 1 - float(shares.square().sum())  # what makes the covariance unbiased; none with one draw alone
    covariance = (shares[:, None] * centred).mT @ centred / (left if left > 1e-12 else torch.nan)
    weights, at, values, layout = example
    entries = declared_entries(weights, at, values, jacobian(values, at), data.spec)
    support = with_transform(entries, settings.transform, layout, mean)
    for entry in [i for i, note in enumerate(notes) if note and how == "bootstrap"]:
        covariance[entry, :] = covariance[:, entry] = torch.nan
        covariance[entry, entry] = torch.inf
    return Uncertainty(
        how=how,
        entries=tuple(layout.entries),
        units=support.units,
        covariance=covariance,
        draws=draws,
        member_weights=shares,
        flat_directions=(),
        negative_directions=(),
        notes=tuple(notes),
        remaining=None,
        conditional_on=conditional_on,
        seed=settings.seed,
        _means=mean,
        _support=support,
        _layout=layout,
    )
