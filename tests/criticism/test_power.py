"""Models that are wrong in one way are told so by the statistic that the way has, and the right ones are left alone.

A right model is flagged with a probability of 0.01 per check at most, but for the errors of its weights; seeds are
fixed, so that a run that fails says that the check has lost its power, or its calibration.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import latentrnn as lr
from examples.simulate import gain

pytestmark = pytest.mark.slow

SEQUENCES, STEPS, CHANNELS = 200, 60, 4
Array = NDArray[np.float64]


def driven(seed: int) -> tuple[Array, Array, np.random.Generator]:
    """A stimulus, (sequence, time, 1), and rates that follow it, (sequence, time, channel)."""
    rng = np.random.default_rng(seed)
    stimulus = np.repeat(rng.normal(size=(SEQUENCES, STEPS // 6, 1)), 6, 1)
    return stimulus, np.exp(np.linspace(0.6, -0.3, CHANNELS) * stimulus - 0.2), rng


def present() -> lr.Transition:
    """What the rates follow: the stimulus as it is."""
    return lr.LeakyIntegrator(1, tau=1e-4, learned=False, average=True)


def check(
    counts: Array, stimulus: Array, head: lr.Observation, transition: lr.Transition | None = None
) -> lr.PredictiveCheck:
    """Fit a model without random latents, and check new sequences by free-running replicates.

    These are few beside those that are learned from: weights are points, whose errors no replicate knows of.
    """
    data = lr.SequenceData.from_arrays({"y": counts}, {"stimulus": stimulus}, dt=0.02)
    train, validation, test = data.split(0.75, 0.1, 0.15, seed=0)
    model = lr.LatentRNN(
        data.spec,
        transition=transition or present(),
        latent=lr.Deterministic(),
        observations={"y": head},
        inputs=["stimulus"],
    )
    quiet = lr.Reporting(progress=False)
    result = lr.fit(model, lr.Guide(model), train, validation, seed=0, reporting=quiet)
    found = lr.criticise(result.posterior(test)).rollouts
    assert found is not None
    return found


def named(found: lr.PredictiveCheck) -> set[str]:
    return {str(row["statistic"]).split(" (")[0] for row in found.flagged}


def test_over_dispersed_counts_are_seen_by_the_fano_factor() -> None:
    stimulus, rate, rng = driven(0)
    counts = rng.poisson(rate * rng.gamma(2.0, 0.5, rate.shape)).astype(float)  # variance m + m^2 / 2
    assert "Fano factor" in named(check(counts, stimulus, lr.Poisson()))
    assert named(check(counts, stimulus, lr.NegativeBinomial())) == set()


def test_units_that_fire_once_a_bin_are_no_allocation_of_a_total() -> None:
    stimulus, rate, rng = driven(1)
    independent = (rng.random(rate.shape) < rate / (1 + rate)).astype(float)
    assert {"zero fraction", "Fano factor"} <= named(check(independent, stimulus, lr.Multinomial()))
    allocated = rng.multinomial(rng.poisson(3.0, rate.shape[:2]), rate / rate.sum(-1, keepdims=True)).astype(float)
    assert named(check(allocated, stimulus, lr.Multinomial())) == set()


def test_independent_poisson_counts_are_an_allocation_once_their_total_is_given() -> None:
    """Which is a theorem: what tells them apart is how totals vary, of which a multinomial says nothing."""
    stimulus, rate, rng = driven(2)
    assert named(check(rng.poisson(rate).astype(float), stimulus, lr.Multinomial())) == set()


def test_a_gate_is_missed_by_how_counts_answer_to_the_stimulus() -> None:
    found = gain(0, SEQUENCES)
    without = check(found.counts, found.stimulus, lr.Poisson(), lr.LeakyIntegrator(2, average=True))
    assert "mean by stimulus" in named(without)
    gated = lr.Poisson(gain=lr.StimulusGain("stimulus"), fixed={"weight": 0.0})
    assert named(check(found.counts, found.stimulus, gated, lr.LeakyIntegrator(1, 0.3, average=True))) == set()
