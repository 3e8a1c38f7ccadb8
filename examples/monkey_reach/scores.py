"""What a fit says of trials that it has not seen: rates of hidden units, and velocity by way of the states."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import latentrnn as lr
from examples.gallery import ranged
from examples.monkey_reach.baselines import by_ridge
from examples.monkey_reach.data import as_sequences, split
from examples.simulate import Array, Reaches
from latentrnn.criticism import RSquared

DRAWS = 50


class Fitted(NamedTuple):
    """What one fit says of test trials."""

    score: lr.Score  # bits per spike of the hidden units
    rates: Array  # of these, (trial, bin, unit)
    velocity: Array  # (trial, bin, 2)
    decoding: RSquared
    seconds: float  # of the fit, the processor's
    ended: str


def fitted(found: Reaches, pair: tuple[lr.LatentRNN, lr.Guide], seed: int, **settings: Any) -> Fitted:
    """Fit with a seed, predict the hidden units, and read velocity off the states."""
    parts, start = as_sequences(found), time.process_time()
    result = lr.fit(*pair, *parts[:2], seed=seed, reporting=lr.Reporting(progress=False), **settings)
    seconds = time.process_time() - start
    states = [result.posterior(part).latents(DRAWS)["states"].mean(0).double().numpy() for part in parts]
    velocity, decoding = by_ridge(*zip(states, split(found, found.velocity), strict=True))
    rates = result.posterior(parts[2]).rates("hidden", DRAWS).mean(0).double()
    score = lr.bits_per_spike_by_block(rates, parts[2].observations["hidden"])
    return Fitted(score, rates.numpy(), velocity, decoding, seconds, result.stop_reason)


def in_words(each: Sequence[Fitted]) -> str:
    """Return bits per spike and velocity with their range over seeds, and seconds."""
    bits, decoded = ranged(fit.score.value for fit in each), ranged(float(fit.decoding) for fit in each)
    return f"{bits} bits per spike, velocity R2 {decoded}, {np.mean([fit.seconds for fit in each]):.0f} s a fit"
