"""What is no array, posterior, score or name is refused by name, wherever predictions are judged."""

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.criticism.fakes import FakePosterior, counts_data, one_step_ahead

COUNTS = torch.poisson(torch.ones(6, 8, 2), generator=torch.Generator().manual_seed(0))
AHEAD = one_step_ahead(-torch.ones(6, 8, 2), torch.ones(6, 8, 2), COUNTS)
BARE = FakePosterior(counts_data(COUNTS), replicates={"spikes": COUNTS.expand(20, 6, 8, 2)})
FORECAST = lr.persistence(counts_data(COUNTS), 2)

CASES = {
    "coverage of nothing": (lambda: lr.coverage(None, np.zeros(3)), "samples: expected real numbers"),
    "crps of dicts": (lambda: lr.crps(np.zeros((4, 3)), {"y": 1}), "observed: expected real numbers"),
    "crps, a word for a flag": (lambda: lr.crps(np.zeros((4, 3)), np.zeros(3), fair="no"), "crps: fair must be True"),
    "quantiles of words": (lambda: FORECAST.quantiles("spikes", ["a"]), "quantiles: probabilities: expected real"),
    "head of a forecast": (lambda: FORECAST.mean(["spikes"]), r"unknown head \['spikes'\]"),
    "r2 of a model": (lambda: lr.r2(COUNTS, lr.GRU(2)), "observed: expected real numbers"),
    "counts of words": (lambda: lr.bits_per_spike(COUNTS, ["y"]), "counts: expected real numbers, found strings"),
    "blocks of a date": (
        lambda: lr.bits_per_spike_by_block(COUNTS + 1, COUNTS, block_length=np.datetime64("2026-01-01")),
        "block_length must be a positive integer",
    ),
    "score of a distribution": (lambda: lr.one_step_ahead_log_likelihood([1]), "expected a OneStepAhead; found list"),
    "difference of numbers": (lambda: lr.paired_difference(1.0, 2.0), "a must be a Score; found 1.0"),
    "rescaling, seed": (lambda: lr.time_rescaling(AHEAD, family="poisson", seed=0.5), "seed must be an integer"),
    "rescaling, family": (lambda: lr.time_rescaling(AHEAD, family=np.zeros(3)), "family must be one of"),
    "ranks of nothing": (lambda: lr.rank_calibration(None, {}), "truth must be a dict of quantity to values"),
    "ranks of a model": (
        lambda: lr.rank_calibration({"a": torch.zeros(3)}, {"a": lr.GRU(2)}),
        "rank_calibration: 'a': expected real numbers",
    ),
    "elpd of nothing": (lambda: lr.elpd_data(None), "elpd_data: values: expected real numbers"),
    "baseline of nothing": (lambda: lr.persistence(None, 2), "data must be a SequenceData; found None"),
    "check of a list": (lambda: lr.posterior_predictive_check([0]), "posterior must be a Posterior; found list"),
    "check, level": (lambda: lr.teacher_forced_check(BARE, level=[1]), "level must be in"),
    "check, one head as text": (
        lambda: lr.posterior_predictive_check(BARE, heads="spikes"),
        r"heads must be a list of names; found 'spikes', write \['spikes'\]",
    ),
    "check, kinds": (
        lambda: lr.posterior_predictive_check(BARE, kinds="count"),
        "kinds must be a dict of head to kind",
    ),
    "check, statistic": (
        lambda: lr.posterior_predictive_check(BARE, statistics={"mean": lambda values, mask: 1.0}, num_samples=4),
        "expected a tensor back; found float",
    ),
    "pit of nothing": (lambda: lr.predictive_pit(None, "spikes"), "posterior must be a Posterior; found NoneType"),
    "compare, method": (lambda: lr.compare({"a": AHEAD, "b": AHEAD}, method=["stacking"]), "method must be one of"),
    "compare, flag": (lambda: lr.compare({"a": AHEAD, "b": AHEAD}, held_out="no"), "held_out must be True or False"),
}


@pytest.mark.parametrize("case", CASES)
def test_misuse_is_refused_by_name(case):
    call, message = CASES[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_sequence_without_a_slow_frame_has_no_forecast_of_it():
    rng = np.random.default_rng(0)
    observations = {"y": [rng.normal(size=(n, 1)) for n in (1, 6)], "slow": [np.zeros((0, 1)), np.ones((2, 1))]}
    data = lr.SequenceData.from_arrays(observations, clocks={"slow": 3})
    for found in (lr.persistence(data, 3), lr.seasonal_naive(data, 3, 2)):
        assert torch.isnan(found.samples["slow"][0, 0]).all()
        assert found.samples["slow"][0, 1].tolist() == [[1.0]]


def test_checks_and_transforms_have_readable_displays():
    check = lr.posterior_predictive_check(BARE, num_samples=20)
    values = torch.tensor([[[0.25], [0.75], [torch.nan]]])
    from latentrnn.criticism.pit import PIT

    assert repr(PIT("y", values, 9, False, None, 0)) == (
        "PIT('y': 2 values in (1, 3, 1), mean 0.500, 9 replicates, new sequences)"
    )
    assert repr(check).startswith("PredictiveCheck(7 statistics of 'spikes'; 20 replicates, global p-value ")
    assert len(repr(check)) < 200


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), None])
def test_seeds_of_numpy_and_none_are_seeds(seed):
    found = lr.time_rescaling(AHEAD, family="poisson", seed=seed)
    again = lr.time_rescaling(AHEAD, family="poisson", seed=found.seed)
    assert torch.equal(found.p_value, again.p_value)
    lr.rank_calibration({"a": torch.zeros(6)}, {"a": torch.zeros(9, 6)}, seed=seed)
