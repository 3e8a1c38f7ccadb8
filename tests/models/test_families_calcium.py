"""Fluorescence against recursions written out, drifts against dense covariances, and rates shared with spikes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import stats

import latentrnn as lr
from latentrnn.models.observations.drifting_normal import DriftingNormal

DT, DECAY, RISE = 0.02, 0.3, 0.05
RNG = np.random.default_rng(0)
KERNELS = {"ar1": {"decay": DECAY}, "ar2": {"decay": DECAY, "rise": RISE}}
KERNELS["double_exponential"] = KERNELS["ar2"]


def n(tensor: torch.Tensor) -> Any:
    return tensor.detach().numpy()


def built(
    head: lr.Calcium, values: Any, spikes: Any = None, *, latent: lr.Latent | None = None, **options: Any
) -> tuple[lr.LatentRNN, Any, lr.SequenceData]:
    arrays = {"f": values} if spikes is None else {"f": values, "spikes": spikes}
    data = lr.SequenceData.from_arrays(arrays, dtype=torch.float64, **({"dt": DT} | options))
    heads = {"f": head} if spikes is None else {"f": head, "spikes": lr.Poisson()}
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Deterministic() if latent is None else latent, observations=heads
    ).double()
    model.observations["f"].reset_parameters()  # the kernel's start in double precision
    return model, model.observations["f"], data


def recursion(kernel: str, rates: Any) -> Any:
    """Calcium step by step, (time, channel), from the steady state of the first rate."""
    decay, rise = np.exp(-DT / DECAY), np.exp(-DT / RISE)
    slow, fast = rates[0] / (1 - decay), rates[0] / (1 - rise)
    before = older = rates[0] / (1 - decay) / (1 - rise)  # AR(2)
    found = []
    for rate in rates:
        slow, fast = decay * slow + rate, rise * fast + rate
        before, older = (decay + rise) * before - decay * rise * older + rate, before
        found.append({"ar1": slow, "ar2": before, "double_exponential": slow - fast}[kernel])
    time = np.linspace(0, 2, 2_000_001)
    peak = (np.exp(-time / DECAY) - np.exp(-time / RISE)).max()
    return np.stack(found) / (peak if kernel == "double_exponential" else 1.0)


@pytest.mark.parametrize("clock", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_mean_is_the_recursion_at_each_frames_last_step(kernel: str, clock: int) -> None:
    frames = 24 // clock
    options = {"clocks": {"f": clock}, "covariates": {"x": RNG.normal(size=(2, 24, 1))}}
    _, head, data = built(lr.Calcium(kernel=kernel, **KERNELS[kernel]), RNG.normal(size=(2, frames, 2)), **options)
    with torch.no_grad():
        head.fluorescence_baseline.copy_(torch.tensor([0.5, -1.0]))
    states = torch.randn(2, 24, 3, dtype=torch.float64)
    fn = head(head.at_clock(states, frames), head.inputs(data))
    rates = np.logaddexp(0, n(states) @ n(head.readout.weight).T + n(head.readout.baseline))
    for sequence in range(2):
        expected = recursion(kernel, rates[sequence])[clock - 1 :: clock] + np.array([0.5, -1.0])
        np.testing.assert_allclose(n(head.mean(fn))[sequence], expected, rtol=1e-9)
    expected = stats.norm.logpdf(n(data.observations["f"]), n(head.mean(fn)), n(head.noise_scale))
    np.testing.assert_allclose(n(head.entry_log_prob(fn, data.observations["f"])), expected, rtol=1e-10)


@pytest.mark.parametrize("events", [None, "spikes"])
def test_rates_after_a_sequences_end_do_not_round_away_those_before(events: str | None) -> None:
    """All steps share the rounding of the transforms, and a state left to itself may give rates of any size."""
    lengths = (9, 24)
    values, spikes = ([RNG.poisson(2.0, (steps, 2)).astype(float) for steps in lengths] for _ in range(2))
    _, head, data = built(lr.Calcium(DECAY, events=events), values, spikes if events else None)
    states = torch.randn(2, 24, 3, dtype=torch.float64)
    with torch.no_grad():
        if events is None:
            head.readout.weight.fill_(1.0)
    rates = states[..., :2].exp() if events else states
    expected = head.forward(rates[:1, :9], head.inputs(data[0]))
    rates[0, 9:] = 1e25
    found = head.forward(rates, head.inputs(data))
    np.testing.assert_allclose(n(head.mean(found))[0, :9], n(head.mean(expected))[0], rtol=1e-12)


def test_one_event_peaks_at_the_amplitude() -> None:
    _, head, _ = built(lr.Calcium(DECAY, RISE, kernel="double_exponential"), np.zeros((1, 4, 1)), dt=0.001)
    rates = torch.zeros(1, 1000, 1, dtype=torch.float64)
    rates[0, 100] = 1.0
    assert float(head.calcium(rates).max().detach()) == pytest.approx(1.0, abs=1e-3)


# -- drift ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0.0, 0.4])
def test_a_drift_is_a_covariance_between_the_frames(hidden: float) -> None:
    values = RNG.normal(size=(2, 9, 2))
    missing = RNG.random(values.shape) < hidden
    _, head, data = built(lr.Calcium(DECAY, drift=3 * DT), np.where(missing, np.nan, values))
    with torch.no_grad():
        for parameter in (head.log_noise_scale, head.log_offset_scale, head.log_drift_scale):
            parameter.copy_(0.5 * torch.randn_like(parameter))
    fn = head(torch.randn(5, 2, 9, 3, dtype=torch.float64), head.inputs(data))
    knots = np.arange(3)
    ramps = np.clip((np.arange(9)[:, None] + 1) / 3 - knots, 0, 1)
    found, entries = n(fn.log_prob(data.observations["f"])), n(head.entry_log_prob(fn, data.observations["f"]))
    np.testing.assert_allclose(entries.sum((-2, -1)), found, rtol=1e-11)
    assert not entries[:, missing].any()
    for sample in range(5):
        for sequence in range(2):
            total = 0.0
            for c in range(2):
                covariance = np.eye(9) * n(head.noise_scale)[c] ** 2
                covariance += np.exp(2 * n(head.log_offset_scale)[c])
                covariance += ramps @ ramps.T * np.exp(2 * n(head.log_drift_scale)[c])
                seen = ~missing[sequence, :, c]
                mean, y = n(fn.mean)[sample, sequence, seen, c], values[sequence, seen, c]
                total += stats.multivariate_normal.logpdf(y, mean, covariance[np.ix_(seen, seen)])
            assert found[sample, sequence] == pytest.approx(total, rel=1e-10)


def test_drifts_are_drawn_with_their_covariance() -> None:
    loading = torch.randn(4, 2, 1, dtype=torch.float64)
    draws = DriftingNormal(torch.zeros(4, 1).double(), torch.tensor([0.5]).double(), loading, None).sample((40000,))
    covariance = (loading @ loading.mT).new_zeros(4, 4) + loading[..., 0] @ loading[..., 0].T + 0.25 * torch.eye(4)
    products = draws[..., 0].unsqueeze(-1) * draws[..., 0].unsqueeze(-2)
    error = products.std(0) / 200
    assert ((products.mean(0) - covariance) / error).abs().max() < 6
    assert ((products.mean(0) - 0.25 * torch.eye(4)) / error).abs().max() > 20


# -- together with spikes ------------------------------------------------------------------------------------------


def test_fluorescence_follows_the_rate_of_the_spikes_head() -> None:
    values, spikes = RNG.normal(size=(2, 5, 2)), RNG.poisson(1.0, (2, 10, 2)).astype(float)
    spikes[1] = np.nan  # a sequence whose spikes nobody recorded
    model, head, data = built(
        lr.Calcium(DECAY, RISE, kernel="ar2", events="spikes"), values, spikes, clocks={"f": 2}, standardise=["f"]
    )
    assert not list(head.readout.parameters())
    with torch.no_grad():
        head.log_amplitude.copy_(torch.tensor([0.3, -0.4], dtype=torch.float64))
    trace = poutine.trace(model).get_trace(data)
    rates = n(trace.nodes["spikes"]["fn"].base_dist.base_dist.mean)
    expected = np.stack([recursion("ar2", rates[i])[1::2] for i in range(2)])
    expected = n(head.location) + n(head.scale) * (n(head.fluorescence_baseline) + np.exp([0.3, -0.4]) * expected)
    np.testing.assert_allclose(n(trace.nodes["f"]["fn"].mean), expected, rtol=1e-9)
    trace.nodes["f"]["fn"].log_prob(data.observations["f"])[1].backward()
    assert model.observations["spikes"].readout.weight.grad.any()  # fluorescence alone informs the rate of its spikes


@pytest.mark.parametrize("events", [None, "spikes"])
def test_events_add_up_inside_the_response(events: str | None) -> None:
    values, spikes = RNG.normal(size=(2, 8, 2)), RNG.poisson(1.0, (2, 8, 2)).astype(float)
    calcium = lr.Calcium(DECAY, events=events, response="arcsinh")
    _, head, data = built(calcium, values, spikes, standardise=["f"])
    amplitude = np.array([0.3, 2.0]) if events else np.ones(2)
    with torch.no_grad():
        head.fluorescence_baseline.copy_(torch.tensor([0.5, -1.0]))
        if events:
            head.log_amplitude.copy_(torch.as_tensor(amplitude).log())
    states = torch.randn(2, 8, 3, dtype=torch.float64)
    read = states if events is None else torch.rand(2, 8, 2, dtype=torch.float64)
    rates = np.logaddexp(0, n(states) @ n(head.readout.weight).T + n(head.readout.baseline)) if not events else n(read)
    level = np.array([0.5, -1.0]) + amplitude * np.stack([recursion("ar1", r) for r in rates])
    expected = values.mean((0, 1)) + values.std((0, 1)) * np.arcsinh(level)
    np.testing.assert_allclose(n(head.mean(head(read, head.inputs(data)))), expected, rtol=1e-6)  # float32 statistics
    np.testing.assert_allclose(n(head.amplitude), amplitude, rtol=1e-12)


def test_a_fit_with_a_response_starts_from_the_data() -> None:
    spikes = np.where(RNG.random((20, 60, 2)) < 0.2, 1.0, 0.0)
    spikes[:, 0] = 0.0  # the calcium starts at rest
    values = np.arcsinh(0.5 + 3.0 * np.stack([recursion("ar1", r) for r in spikes]))
    _, head, data = built(lr.Calcium(DECAY, response="arcsinh"), values)
    head.initialise(data.observations["f"], data.masks["f"])
    fn = head(torch.zeros(20, 60, 3).double(), head.inputs(data))
    np.testing.assert_allclose(np.sinh(n(head.mean(fn))[0, 0]), np.sinh(values).mean((0, 1)), rtol=0.05)


def test_a_fit_starts_from_the_data() -> None:
    rates = np.where(RNG.random((20, 60, 2)) < 0.1, 1.0, 0.0)
    values = 7.0 + 3.0 * np.stack([recursion("ar1", r) for r in rates]) + 0.1 * RNG.normal(size=rates.shape)
    _, head, data = built(lr.Calcium(DECAY), values)
    head.initialise(data.observations["f"], data.masks["f"])
    fn = head(torch.zeros(20, 60, 3).double(), head.inputs(data))
    np.testing.assert_allclose(n(head.mean(fn))[0, 0], values.mean((0, 1)), rtol=0.05)
    assert (np.abs(n(head.resting_level) - 7.0) < 3.0).all()


SPIKES, FLUORESCENCE = np.ones((2, 6, 2)), np.zeros((2, 6, 2))
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "kernel": (
        lambda: lr.Calcium(0.3, kernel="alpha"),
        "Calcium: kernel must be one of 'ar1', 'ar2', 'double_exponential'; found 'alpha'",
    ),
    "no rise": (
        lambda: lr.Calcium(0.3, kernel="ar2"),
        "Calcium: rise goes with 'ar2' and 'double_exponential'; found 'ar2' with rise None",
    ),
    "a rise too many": (lambda: lr.Calcium(0.3, 0.1), "found 'ar1' with rise 0.1"),
    "order": (
        lambda: lr.Calcium(0.3, 0.4, kernel="ar2"),
        "Calcium: rise must be below decay; found rise 0.4 and decay 0.3",
    ),
    "sign": (lambda: lr.Calcium(-1.0), "Calcium: decay must be positive; found -1.0"),
    "drift": (lambda: lr.Calcium(1.0, drift=0.0), "Calcium: drift must be positive; found 0.0"),
    "response": (
        lambda: lr.Calcium(0.3, response="exp"),
        "Calcium: response must be 'identity' or 'arcsinh'; found 'exp'",
    ),
    "feedback": (
        lambda: lr.Calcium(0.3, feedback=lr.History(2)),
        "Calcium: fluorescence does not drive what comes next; let the spikes' head feed back",
    ),
    "covariates": (
        lambda: lr.Calcium(0.3, events="spikes", covariates=["x"]),
        "Calcium: with events='spikes' gain, covariates, priors and readout belong to that head",
    ),
    "readout": (
        lambda: lr.Calcium(0.3, events="spikes", readout=lr.MLPReadout(3)),
        "Calcium: with events='spikes' gain, covariates, priors and readout belong to that head",
    ),
    "events unknown": (
        lambda: built(lr.Calcium(0.3, events="calls"), FLUORESCENCE, SPIKES),
        "observations['f']: it reads 'calls', which the model does not have; it has ['f', 'spikes']",
    ),
    "events of other cells": (
        lambda: built(lr.Calcium(0.3, events="spikes"), FLUORESCENCE, SPIKES[..., :1]),
        "observations['f']: Calcium(events='spikes') needs a per-step head on the base clock with 2 channels; "
        "'spikes' has 1, clock 1",
    ),
    "irregular": (
        lambda: built(lr.Calcium(0.3), FLUORESCENCE, dt=None, times=np.cumsum(np.ones((2, 6)), 1)),
        "observations['f']: Calcium needs steps of equal length; the data have times of their own",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_particles_do_not_carry_calcium() -> None:
    model, _, data = built(lr.Calcium(DECAY), FLUORESCENCE, latent=lr.InitialState(2))
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    with pytest.raises(ValueError, match="one_step_ahead: head 'f', Calcium, depends on the states of earlier steps"):
        lr.Posterior(model, guide, data).one_step_ahead("f", num_particles=5, num_filters=2)
