"""Alarms: their rate of false ones at the binomial bound, their power, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import latentrnn as lr
from tests.registry import shake

BUDGET = 1e-6


def setting(sequences: int, steps: int, *, seed: int = 0, head: lr.Observation | None = None):
    shape = lr.SequenceData.from_arrays({"y": np.ones((sequences, steps, 2))}, dtype=torch.float64)
    head = lr.Gaussian() if head is None else head
    latent = lr.LinearGaussian() if isinstance(head, lr.Gaussian) else lr.Deterministic()
    model = lr.LatentRNN(shape.spec, transition=lr.Linear(2), latent=latent, observations={"y": head}).double()
    shake(model, 0.5)
    drawn = model.prior_predictive(shape, num_samples=2, seed=seed)["y"]
    calibration, new = (lr.SequenceData.from_arrays({"y": each}, dtype=torch.float64) for each in drawn)
    return model, calibration, new


def raised(online: lr.OnlineFilter, alarm: lr.Alarm, data: lr.SequenceData) -> torch.Tensor:
    states = online.fresh(streams=len(data)).follow(data)
    return torch.stack([alarm(state).raised for state in states])  # (step, stream[, channel])


@pytest.mark.parametrize("score", ["tail", "density"])
@pytest.mark.parametrize("by", ["channel", "step"])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_false_ones_come_at_the_stated_rate(score: str, by: str, rate: float) -> None:
    """Counts of 4000 new steps between bounds for the beta-binomial that a conformal threshold makes of them."""
    model, calibration, new = setting(100, 40)
    online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), new))
    alarm = lr.calibrate_alarm(online, calibration, rate=rate, score=score, by=by)
    found = raised(online, alarm, new).numpy().reshape(4000, -1)
    # given n calibration scores the rate is Beta(k, n + 1 - k), k = floor((n + 1) rate)
    n = 4000
    k = int(np.floor((n + 1) * rate))
    low, high = stats.betabinom(n, k, n + 1 - k).ppf([BUDGET, 1 - BUDGET])
    for count in found.sum(0):
        assert low <= count <= high
    # negative control: of scores that are judged at five times the rate
    lax = lr.calibrate_alarm(online, calibration, rate=5 * rate, score=score, by=by)
    assert (raised(online, lax, new).numpy().reshape(4000, -1).sum(0) > high).all()


def test_a_model_that_is_wrong_raises_false_ones_of_a_sequence_at_the_stated_rate_all_the_same() -> None:
    model, calibration, new = setting(400, 10)
    with torch.no_grad():
        model.observations["y"].readout.baseline += 1.0
    online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), new))
    alarm = lr.calibrate_alarm(online, calibration, rate=0.05, rate_of="sequence", by="step")
    count = int(raised(online, alarm, new).any(0).sum())
    low, high = stats.betabinom(400, 20, 381).ppf([BUDGET, 1 - BUDGET])
    assert low <= count <= high


def test_what_is_out_of_the_ordinary_raises_the_channel_that_it_is_in() -> None:
    model, calibration, new = setting(50, 40)
    online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), new), streams=len(new))
    alarm = lr.calibrate_alarm(online, calibration, rate=0.001)
    values = new.observations["y"].clone()
    scale = values[..., 0].std()
    values[:, 20, 0] += 12 * scale
    broken = lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64)
    found = raised(online, alarm, broken)
    assert bool(found[20, :, 0].all())
    assert float(found[20, :, 1].float().mean()) < 0.2
    assert float(found[:20].float().mean()) < 0.02


def test_counts_have_alarms_too_and_missing_entries_have_none() -> None:
    model, calibration, new = setting(60, 30, head=lr.Poisson())
    online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), new))
    alarm = lr.calibrate_alarm(online, calibration, rate=0.01)
    found = raised(online, alarm, new).numpy().reshape(1800, -1).sum(0)
    low, high = stats.betabinom(1800, 18, 1783).ppf([BUDGET, 1 - BUDGET])
    assert ((low <= found) & (found <= high)).all()
    nothing = alarm(online.update([np.nan, 0.0]))
    assert nothing.scores.isnan().tolist() == [True, False]
    assert nothing.p_values.isnan().tolist() == [True, False]
    assert nothing.raised.tolist()[0] is False


def test_the_threshold_is_the_order_statistic_of_split_conformal() -> None:
    model, calibration, new = setting(2, 50)
    online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), new))
    alarm = lr.calibrate_alarm(online, calibration, rate=0.05)
    for channel in range(2):
        scores = np.sort(alarm.calibration[:, channel].numpy())
        assert float(alarm.threshold[channel]) == scores[int(np.ceil(101 * 0.95)) - 1]
    state = online.update(calibration.observations["y"][0, 0])
    judged = alarm(state)
    assert torch.equal(judged.raised, judged.scores > alarm.threshold)
    assert "at most 0.05 false ones per step, from 100 scores" in repr(alarm)
    assert repr(judged).startswith("Alarms(")


def test_what_cannot_be_promised_is_refused() -> None:
    model, calibration, new = setting(2, 20)
    online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), new))
    with pytest.raises(ValueError, match=r"a rate of 0\.01 per step needs 99 scores or more; found 40"):
        lr.calibrate_alarm(online, calibration, rate=0.01)
    with pytest.raises(ValueError, match="of all heads; expected head=None"):
        lr.calibrate_alarm(online, calibration, rate=0.1, score="density", by="step", head="y")
    with pytest.raises(ValueError, match="unknown head 'z'"):
        lr.calibrate_alarm(online, calibration, rate=0.1, head="z")
    with pytest.raises(TypeError, match="online must be an OnlineFilter"):
        lr.calibrate_alarm(model, calibration)
    with pytest.raises(TypeError, match=r"expected what OnlineFilter\.update returned"):
        lr.calibrate_alarm(online, calibration, rate=0.1)(calibration)


def test_sequences_that_were_fitted_are_no_ordinary_ones() -> None:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(6, 20, 1))})
    parts = {"transition": lr.Linear(1), "latent": lr.LinearGaussian(), "observations": {"y": lr.Gaussian()}}
    model = lr.LatentRNN(data.spec, **parts)
    result = lr.fit(model, lr.Guide(model), data[:4], steps=2, reporting=lr.Reporting(progress=False))
    for source in (result, result.posterior(data)):
        online = lr.OnlineFilter(source)
        with pytest.raises(ValueError, match="4 of 6 sequences took part in the fit"):
            lr.calibrate_alarm(online, data, rate=0.1)
        assert lr.calibrate_alarm(online, data[4:], rate=0.1).counts.tolist() == [40]
