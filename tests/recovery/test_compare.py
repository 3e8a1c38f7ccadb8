"""On held-out evidence the planted truth ranks first, and an over-fitted rival, which wins in sample, does not."""

from __future__ import annotations

from functools import cache

import pytest

import latentrnn as lr
from latentrnn.support import arviz_generations
from tests.recovery.simulate import paired_errors, planted_state

pytestmark = pytest.mark.slow

SEEDS = range(2)
NOISE = 0.4
TRAIN, VALID, TEST = 24, 24, 80


class Rivals:
    """Three models of one planted linear state: its own family, one without noise in the state, a network too large.

    The third may memorise: the stimulus, new at every step, tells a network of 96 units which of 24 training
    sequences it is in, and it is fitted without weight decay and without validation data.
    """

    def __init__(self, seed, noise):
        planted = planted_state(seed, TRAIN + VALID + TEST, noise=noise)
        data = lr.SequenceData.from_arrays({"spikes": planted.counts}, covariates={"stimulus": planted.stimulus})
        self.train, self.valid, self.test = data[:TRAIN], data[TRAIN : TRAIN + VALID], data[TRAIN + VALID :]
        careful = {"validation": self.valid, "steps": 300, "optimizer": lr.AdamW(learning_rate=2e-2), "seed": seed}
        careless = {"steps": 200, "optimizer": lr.Adam(learning_rate=1e-2), "seed": seed}
        self.results = {
            "over-fitted": self._fit(lr.GRU(96), lr.Deterministic(), **careless),
            "noiseless": self._fit(lr.Linear(2), lr.Deterministic(), **careful),
            "noisy": self._fit(lr.Linear(2), lr.Innovations(2), **careful),
        }

    def _fit(self, transition, latent, **settings):
        model = lr.LatentRNN(
            self.train.spec, transition=transition, latent=latent, observations={"spikes": lr.Poisson()}
        )
        guide = lr.Guide(model, encoder=lr.RNNEncoder(24))
        return lr.fit(model, guide, self.train, reporting=lr.Reporting(progress=False), **settings)

    def posteriors(self, data):
        return {name: result.posterior(data) for name, result in self.results.items()}

    def evidence(self, data):
        return {name: posterior.evidence().values for name, posterior in self.posteriors(data).items()}


@cache
def fitted(seed, noise):
    return Rivals(seed, noise)


@pytest.fixture(params=SEEDS)
def rivals(request):
    return fitted(request.param, NOISE)


@pytest.mark.filterwarnings("ignore:compare. ")
def test_the_planted_truth_ranks_first(rivals):
    frame = lr.compare(rivals.posteriors(rivals.test))
    assert list(frame.index) == ["noisy", "noiseless", "over-fitted"]
    ahead = frame["elpd_diff"] / frame["dse"]
    assert ahead["noiseless"] > 2
    assert ahead["over-fitted"] > 4
    assert (frame["doubtful"] <= 4).all()  # of 80 sequences: filters of one seed are apart by more than a nat on two


def test_in_sample_the_over_fitted_rival_would_have_won(rivals):
    evidence = rivals.evidence(rivals.train)
    assert paired_errors(evidence["over-fitted"].numpy(), evidence["noisy"].numpy()) > 4


def test_arviz_itself_compares_held_out_evidence(rivals):
    elpds = {name: lr.elpd_data(values) for name, values in rivals.evidence(rivals.test).items()}
    frame = arviz_generations.compare(elpds, "stacking")
    assert list(frame.index) == ["noisy", "noiseless", "over-fitted"]
    assert frame.loc["noisy", "weight"] > 0.5


def test_noise_that_is_not_there_wins_nothing():
    """The family that ranks first above is not simply the most flexible: it gains nothing where no noise is planted."""
    advantage = {}
    for noise in (NOISE, 0.0):
        evidence = fitted(0, noise).evidence(fitted(0, noise).test)
        advantage[noise] = float((evidence["noisy"] - evidence["noiseless"]).mean())  # nats per sequence
        assert evidence["over-fitted"].mean() < min(evidence["noisy"].mean(), evidence["noiseless"].mean())
    assert advantage[0.0] < 0.1 * advantage[NOISE]


REFUSALS = {
    "training data": (lambda r: r.posteriors(r.train), "24 of 24 sequences were used to fit it or to stop the fit"),
    "data that decided when to stop": (
        lambda r: {name: r.results[name].posterior(r.valid) for name in ("noisy", "noiseless")},
        "24 of 24 sequences were used to fit it or to stop the fit",
    ),
    "other data": (
        lambda r: {"a": r.results["noisy"].posterior(r.test), "b": r.results["noiseless"].posterior(r.test[:40])},
        r"b: its data are not those of 'a' \(40 sequences shared, of 40 and 80\)",
    ),
    "training data, one step ahead": (
        lambda r: {name: p.one_step_ahead("spikes", num_particles=16) for name, p in r.posteriors(r.train).items()},
        "24 of 24 sequences were used to fit it or to stop the fit",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_would_mislead_is_refused(case):
    models, reason = REFUSALS[case]
    with pytest.raises(ValueError, match=reason):
        lr.compare(models(fitted(0, NOISE)))
