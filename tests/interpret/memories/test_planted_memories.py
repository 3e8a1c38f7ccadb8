"""Memories that were planted in data are found again through fits: by gates, by Jacobians, with intervals that hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

import latentrnn as lr
from examples.simulate import attention, depression, trains
from examples.synaptic_depression.demo import as_sequences, synapse

TAU = 0.195


def interval(posterior: lr.Posterior, draws: int = 400) -> np.ndarray:
    found = lr.interpret.time_constants(posterior.restricted(1), plausible=(0.1, 0.4), num_samples=draws)
    tau = found.tau.isel(sequence=0, time=0, unit=0)
    np.testing.assert_allclose(tau, posterior.parameters(draws)["transition.time_constant"].flatten(), rtol=1e-6)
    np.testing.assert_allclose(found.jacobian_tau[:, 0], tau, rtol=1e-6)
    assert not bool(found.reads_state.any())
    share = float(((tau > 0.1) & (tau < 0.4)).mean())
    assert float(found.within.mean()) == pytest.approx(share)
    return np.quantile(tau, [0.05, 0.95])


@pytest.mark.slow
def test_depression_is_recovered_with_intervals_that_hold_as_often_as_they_say() -> None:
    held, number = 0, 25
    for seed in range(number):
        data = as_sequences(depression(seed, trains(120)))
        low, high = interval(lr.laplace(synapse(data), data).posterior(data))
        held += bool(low < TAU < high)
    assert binom.ppf(1e-5, number, 0.9) <= held
    data = as_sequences(depression(0, trains(120), tau=0.06))  # another one is told apart
    assert interval(lr.laplace(synapse(data), data).posterior(data))[1] < TAU


@pytest.mark.slow
def test_draws_of_nuts_have_time_constants_too() -> None:
    data = as_sequences(depression(0, trains(120)))
    low, high = interval(lr.sample(synapse(data), data, num_samples=100, warmup=100, progress=False), 400)
    assert low < TAU < high < 3 * low


@pytest.mark.slow
def test_a_fitted_input_gate_is_a_share_of_the_input_with_gates_held_alone() -> None:
    found = attention(0, 100, own=3.0)
    covariates = {"stimulus": found.stimulus, "cue": found.cue}
    data = lr.SequenceData.from_arrays({"response": found.response}, covariates, dt=found.dt)
    heads = {"response": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.LSTM(1), latent=lr.Deterministic(), observations=heads)
    settings = {"optimizer": lr.AdamW(2e-2, weight_decay=0.0), "reporting": lr.Reporting(progress=False)}
    fitted = lr.fit(model, lr.Guide(model), data, steps=600, seed=0, batch_size=128, **settings)
    posterior = fitted.posterior(data)
    slopes = lr.interpret.jacobians(posterior, "cell", "input", num_samples=1).sel(by="stimulus")
    gate = np.log(lr.interpret.trace(posterior, 1).input.values.ravel())
    held, free = (np.log(np.abs(slopes[path].values.ravel())) for path in ("direct", "total"))
    assert np.corrcoef(gate, held)[0, 1] > 0.99
    assert abs(np.polyfit(gate, held, 1)[0] - 1) < 0.05
    assert np.corrcoef(gate, free)[0, 1] < 0.95
