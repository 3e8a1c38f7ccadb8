"""Held-out scores of the attempts and their rivals, one day ahead."""

from __future__ import annotations

import dataclasses
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

import latentrnn as lr
from examples.simulate import Array
from examples.volatility.baselines import MODELS, by_garch
from examples.volatility.models import CONTEXT, Attempt, as_sequence, fifths, fitted, free, remembering
from latentrnn.criticism import PairedDifference

BLOCK = 50  # days of a block, over which errors are taken
FREE = "CoupledGateLSTM, defaults"


def ahead(result: lr.FitResult, days: lr.SequenceData) -> lr.OneStepAhead:
    """Densities of every day, given the days before it."""
    return result.posterior(days).one_step_ahead("returns", num_draws=2)  # of a point, both the same


def above(ours: lr.OneStepAhead, log_prob: Array, block: int = BLOCK) -> PairedDifference:
    """Lead over a rival's densities, (day,), nats per day."""
    theirs = torch.zeros_like(ours.log_prob)
    theirs[0, -len(log_prob) :, 0] = torch.as_tensor(log_prob)
    both = (ours, dataclasses.replace(ours, log_prob=theirs))
    return lr.paired_difference(*(lr.one_step_ahead_log_likelihood(each, block_length=block) for each in both))


class Judged(NamedTuple):
    """One series: the attempts of either kind that did best on validation days, and their leads on test days."""

    chosen: str  # the best
    leads: dict[str, dict[tuple[str, str], PairedDifference]]  # of the best of both kinds, by tails and rival
    rivals: dict[str, float]  # nats per day of rivals with Student tails
    course: dict[str, Array]  # nats that the chosen one is ahead of these, cumulated over days
    fit: lr.FitResult  # of the chosen one, with Student tails


def judge(returns: Array, attempts: dict[str, Attempt], steps: int, *, smoke: bool) -> Judged:
    """Choose an attempt by the fourth fifth of the days, and score it on the last."""
    data = as_sequence(returns)
    train, validation, test, learned = fifths(data)
    first, known = (int(each.host_lengths[0]) for each in (train, learned))
    tried = {
        name: ahead(fitted(remembering(data, each, "student"), train, steps), validation)
        for name, each in attempts.items()
    }
    finals: dict[str, lr.FitResult] = {}
    if not smoke:
        finals[FREE] = free(train, validation, "student")
        print(f"{FREE}: {finals[FREE].stop_reason}")
        tried[FREE] = ahead(finals[FREE], validation)
        every = torch.stack([each.log_prob for each in tried.values()])
        tried["average of all"] = dataclasses.replace(tried[FREE], log_prob=every.logsumexp(0) - np.log(len(every)))
    rival = by_garch(returns[:known], first, "GJR", "student")[0][first:]
    found = {name: above(each, rival) for name, each in tried.items()}
    print(*(f"  validation, above GJR: {name}: {lead}" for name, lead in found.items()), sep="\n")
    best = max(attempts, key=lambda name: found[name].value)
    finals[best] = fitted(remembering(data, attempts[best], "student"), learned, steps)
    chosen = max(finals, key=lambda name: found[name].value)
    pairs = [(name, "student", fit) for name, fit in finals.items()]
    if not smoke:
        pairs.append((best, "gaussian", fitted(remembering(data, attempts[best], "gaussian"), learned, steps)))
        pairs.append((FREE, "gaussian", free(train, validation, "gaussian")))
    leads: dict[str, dict[tuple[str, str], PairedDifference]] = {name: {} for name in sorted(finals, key=chosen.__ne__)}
    rivals, course = {}, {}
    scored = [(name, tails, ahead(fit, test)) for name, tails, fit in pairs]
    for (name, tails, ours), against in product(scored, MODELS):
        theirs = by_garch(returns, known, against, tails)[0][known:]
        leads[name][tails, against] = above(ours, theirs)
        print(f"  test, {name}, {tails} tails, above {against}: {leads[name][tails, against]}")
        if (name, tails) == (chosen, "student"):
            rivals[against] = float(theirs.mean())
            course[against] = np.cumsum(ours.log_prob[0, CONTEXT:, 0].numpy() - theirs)
    return Judged(chosen, leads, rivals, course, finals[chosen])


def later(judged: Judged, returns: Array, days: Array) -> dict[str, PairedDifference]:
    """Lead on days of another time, with all parameters from the first four fifths of these, by rival."""
    ours, known = ahead(judged.fit, as_sequence(days)), round(0.8 * len(returns))
    return {name: above(ours, by_garch(returns, known, name, "student", (days,))[1], 20) for name in MODELS}


def shown_all(leads: list[PairedDifference]) -> str:
    """Differences with their errors."""
    return ", ".join(f"{lead.value:+.4f} ({lead.standard_error:.4f})" for lead in leads)
