"""A stimulus gain and its gate, planted in simulated counts, are found again."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
from scipy.stats import binom

import latentrnn as lr
from tests.recovery.simulate import OPEN, area_under_curve, paired_errors, planted_gain

pytestmark = pytest.mark.slow

SEEDS = range(2)  # of what is judged for each fit
POOLED = range(4)  # of what is judged for all fits together
TRAIN, VALID, TEST = 60, 20, 40


class Recovery:
    """A fit to planted data, and what it says of held-out sequences."""

    def __init__(self, seed, *, gated=True, shuffled=False, priors=None, train=TRAIN, steps=200, num_samples=1):
        self.planted = planted_gain(seed, train + VALID + TEST)
        # shuffled: every sequence is given the cues of another
        cue = np.roll(self.planted.cue, 1, axis=0) if shuffled else self.planted.cue
        data = lr.SequenceData.from_arrays(
            {"spikes": self.planted.counts}, covariates={"stimulus": self.planted.stimulus, "cue": cue}
        )
        gain = lr.StimulusGain("stimulus", gated=gated, priors=priors)
        model = lr.LatentRNN(
            data.spec,
            transition=lr.GRU(8),
            latent=lr.Deterministic(),
            observations={"spikes": lr.Poisson(gain=gain)},
            inputs=["cue"],
        )
        result = lr.fit(
            model,
            lr.Guide(model),
            data[:train],
            data[train : train + VALID],
            seed=seed,
            steps=steps,
            batch_size=32,
            optimizer=lr.AdamW(learning_rate=1e-2),
            reporting=lr.Reporting(progress=False),
        )
        held_out = result.posterior(data[train + VALID :])
        found = held_out.gain("spikes", num_samples)
        self.beta = found.beta[..., 0].detach().numpy()  # (sample, channel)
        self.gate = found.gate.mean(0)[..., 0].numpy()  # (sequence, time)
        self.evidence = held_out.evidence().values.numpy()  # (sequence,)
        self.is_open, self.cue = self.planted.is_open[train + VALID :], self.planted.cue[train + VALID :, :, 0]

    @property
    def correlation(self):
        return np.corrcoef(self.beta.mean(0), self.planted.beta)[0, 1]

    @property
    def size(self):
        """Slope of the gains found on the planted ones, both in the convention of a largest gate of one."""
        planted = OPEN * self.planted.beta
        return self.beta.mean(0) @ planted / (planted @ planted)


@pytest.fixture(scope="module", params=SEEDS)
def fits(request):
    return Recovery(request.param), Recovery(request.param, gated=False)


def test_gains_are_found_with_sign_and_size(fits):
    gated, ungated = fits
    assert gated.correlation > 0.95
    assert gated.size == pytest.approx(1, abs=0.15)
    # signs alone do not need the gate, sizes do: a gate fixed at one averages over open and closed
    assert ungated.size < 0.75


def test_the_gate_is_remembered_from_its_cue(fits):
    gated, _ = fits
    assert area_under_curve(gated.gate, gated.is_open) > 0.95
    # not to be read off the cue itself, which is silent at all but one step of a context
    assert area_under_curve(gated.cue, gated.is_open) < 0.6


def test_a_gate_fixed_at_one_loses_on_held_out_evidence(fits):
    gated, ungated = fits
    assert paired_errors(gated.evidence, ungated.evidence) > 4


def test_no_gate_is_found_from_the_cues_of_other_sequences():
    control = Recovery(0, shuffled=True)
    assert 0.3 < area_under_curve(control.gate, control.is_open) < 0.7


def test_intervals_of_the_gains_cover_the_planted_ones():
    """90% intervals of all channels and seeds together hold the planted gain about 90 times in 100.

    The guide is mean-field and all else is a point estimate, so that a little less is expected. The bounds are the
    1e-5 quantiles of Binomial(160, 0.9), 79% and 98%: intervals half or twice as wide are outside.
    """
    planted, draws = [], []
    for seed in POOLED:
        fit = Recovery(seed, priors={"beta": dist.Normal(0.0, 1.0)}, train=40, steps=300, num_samples=400)
        assert fit.correlation > 0.95
        planted.append(OPEN * fit.planted.beta)
        draws.append(fit.beta)
    planted, draws = np.concatenate(planted), np.concatenate(draws, 1)
    least, most = binom.ppf([1e-5, 1 - 1e-5], planted.size, 0.9)
    assert least <= covered(planted, draws) <= most
    centre = draws.mean(0)
    assert covered(planted, centre + (draws - centre) / 2) < least
    assert covered(planted, centre + (draws - centre) * 2) > most


def covered(values, draws, probability=0.9):
    tail = (1 - probability) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return int(((low < values) & (values < high)).sum())
