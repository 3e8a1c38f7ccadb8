"""Interventions against recursions in NumPy: gates held at some steps and units, covariates moved, units silent."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.interpret import clamp, contrast, do, intervene, lesion, perturb
from tests.interpret.small import Adapting, posterior_of, recording, sigmoid

SAMPLES = 3


def test_nothing_done_is_what_the_posterior_says() -> None:
    posterior = posterior_of(lr.LSTM(4), lr.Innovations(2))
    found = intervene(posterior, num_samples=SAMPLES)
    np.testing.assert_array_equal(found.spikes, posterior.rates("spikes", SAMPLES))
    assert found.spikes.dims == ("sample", "sequence", "time", "spikes_channel")
    effect = contrast(posterior, lr.interpret.Intervention(), num_samples=SAMPLES)
    assert float(np.abs(effect.spikes).max()) == 0.0


def test_gates_are_held_at_some_steps_for_some_units() -> None:
    posterior = posterior_of(lr.GRU(4), lr.Innovations(2))
    held = clamp("update", 0.25, at=slice(3, 6), units=[1, 2]) + clamp("update", 1.0, at=4, units=[2])
    found = intervene(posterior, held, SAMPLES)
    kernel = posterior.model.transition.kernel
    (weight, recurrent, bias, other) = (p.detach().numpy() for p in kernel.parameters())
    inputs = lr.interpret.trace(posterior, SAMPLES).inputs.values
    for sample, sequence in ((0, 0), (2, 2)):
        h = np.zeros(4)
        for t in range(int(posterior.data.lengths[sequence])):
            (ri, zi, ni), (rr, zr, nr) = (
                np.split(x, 3) for x in (weight @ inputs[sample, sequence, t] + bias, recurrent @ h + other)
            )
            update = 1 - sigmoid(zi + zr)
            if 3 <= t < 6:
                update[[1, 2]] = 0.25
            if t == 4:
                update[2] = 1.0
            h = (1 - update) * h + update * np.tanh(ni + sigmoid(ri + rr) * nr)
            np.testing.assert_allclose(found.states[sample, sequence, t], h, atol=1e-12)


def test_functions_are_told_the_units_that_they_hold() -> None:
    posterior = posterior_of(lr.GRU(4), lr.InitialState(2))
    seen = []

    def half(value: torch.Tensor, place: lr.GatePlace) -> torch.Tensor:
        seen.append((place.step, value.shape[-1]))
        return value / 2

    found = intervene(posterior, clamp("update", half, at=[2, 5], units=[3]), SAMPLES)
    assert seen == [(2, 1), (5, 1)]
    plain = intervene(posterior, num_samples=SAMPLES)
    np.testing.assert_array_equal(found.states[:, :, :2], plain.states[:, :, :2])
    assert float(np.abs(found.states - plain.states)[:, :, 2, 3].min()) > 0


def test_a_silent_unit_is_a_zero_in_a_recursion() -> None:
    posterior = posterior_of(lr.LSTM(4), lr.Innovations(2))
    found = intervene(posterior, lesion([0, 2], at=slice(4, None)), SAMPLES)
    kernel = posterior.model.transition.kernel
    (weight, recurrent, bias, other) = (p.detach().numpy() for p in kernel.parameters())
    inputs = lr.interpret.trace(posterior, SAMPLES).inputs.values
    h, c = np.zeros(4), np.zeros(4)
    for t in range(12):
        i, f, g, o = np.split(weight @ inputs[1, 0, t] + bias + recurrent @ h + other, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        if t >= 4:
            h[[0, 2]] = 0.0
        np.testing.assert_allclose(found.states[1, 0, t], h, atol=1e-12)


@pytest.mark.parametrize("latent", [lr.MarkovNormal(), lr.RecurrentNormal(2), lr.InitialState(2)], ids=repr)
def test_units_are_silent_whatever_the_latent(latent: lr.Latent) -> None:
    posterior = posterior_of(lr.GRU(3), latent)
    found = intervene(posterior, lesion([1]), SAMPLES).states
    h = found[..., -3:].sel(sequence="0")
    assert float(np.abs(h[..., 1]).max()) == 0.0
    assert float(np.abs(h[..., 0]).min()) > 0.0


def test_covariates_are_set_and_moved() -> None:
    """A leaky integrator answers an impulse by its own decay: h_{t+k} - h_t moves by r^k W delta."""
    memory = lr.LeakyIntegrator(2, tau=0.05, learned=False)
    posterior = posterior_of(memory, lr.Innovations(1))
    effect = contrast(posterior, perturb("x", [0.5, 0.0], at=3), num_samples=SAMPLES)
    weight = posterior.model.transition.input_weight.detach().numpy()[:, 0]
    for t in range(3, 12):
        expected = np.exp(-0.01 * (t - 3) / 0.05) * weight * 0.5
        np.testing.assert_allclose(effect.states[0, 0, t], expected, rtol=1e-6)
    assert float(np.abs(effect.states[0, 0, :3]).max()) == 0.0
    both = contrast(posterior, do("x", 0.0) + perturb("x", 1.0, at=3), do("x", 0.0), num_samples=SAMPLES)
    moved = np.exp(-0.01 * (5 - 3) / 0.05) * posterior.model.transition.input_weight.detach().numpy()[:, :2].sum(-1)
    np.testing.assert_allclose(both.states[0, 0, 5], moved, rtol=1e-6)


def test_outcomes_of_whole_sequences_answer_too() -> None:
    rng = np.random.default_rng(0)
    arrays = {"y": rng.normal(size=(4, 8, 1)), "label": rng.integers(0, 2, (4, 1)).astype(float)}
    data = lr.SequenceData.from_arrays(arrays, {"x": rng.normal(size=(4, 8, 1))}, per_sequence=["label"])
    heads = {"y": lr.Gaussian(), "label": lr.Bernoulli()}
    model = lr.LatentRNN(data.spec, transition=lr.LSTM(3), latent=lr.InitialState(2), observations=heads)
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)), data)
    effect = contrast(posterior, do("x", 1.0), do("x", -1.0), SAMPLES)
    assert effect.label.dims == ("sample", "sequence", "label_channel")
    assert float(np.abs(effect.label).min()) > 0.0


def test_a_transition_of_ones_own_with_draws_and_an_ensemble() -> None:
    data = recording()
    members = [posterior_of(Adapting(3), lr.Innovations(1), data) for _ in range(2)]
    both = lr.EnsemblePosterior(members, torch.tensor([0.5, 0.5]))
    found = intervene(both, clamp("room", 0.0) + lesion([1]), 4)
    # without room the state fades by itself from zero
    assert float(np.abs(found.states.sel(sequence="0")).max()) == 0.0
    drawn = posterior_of(lr.LeakyIntegrator(2, priors={"time_constant": dist.LogNormal(-3.0, 0.5)}), lr.Innovations(1))
    effect = contrast(drawn, perturb("x", [1.0, 0.0], at=3), num_samples=4)
    (tau,) = drawn.parameters(4).values()
    ratio = effect.states[:, 0, 6] / effect.states[:, 0, 3]
    np.testing.assert_allclose(ratio, np.exp(-0.03 / tau.numpy()).reshape(4, 2), rtol=1e-5)
    silent = intervene(drawn, lesion([0]), 4)
    assert float(np.abs(silent.states.sel(sequence="0")[..., 0]).max()) == 0.0


def test_averages_of_sequences_against_thresholds() -> None:
    posterior = posterior_of(lr.LSTM(4), lr.Innovations(2))
    found = lr.interpret.telemetry(posterior, below={"forget": 0.5}, above={"input": 0.5}, num_samples=20)
    traced = lr.interpret.trace(posterior, 20)
    average = np.nanmean(traced.forget.values, (2, 3))
    np.testing.assert_allclose(found.forget, average)
    np.testing.assert_allclose(found.forget_below, (average < 0.5).mean(0))
    np.testing.assert_allclose(found.input_above, (np.nanmean(traced.input.values, (2, 3)) > 0.5).mean(0))


def test_mistakes_are_named() -> None:
    posterior = posterior_of(lr.LSTM(4), lr.Innovations(2))
    for intervention, message in (
        (clamp("memory", 1.0), "no gate 'memory'"),
        (clamp("forget", 1.0, units=[7]), "units below 4"),
        (clamp("forget", 1.0, at=40), "steps of the data, 0 to 11"),
        (do("light", 1.0), "unknown covariate 'light'"),
        (do("x", np.zeros(5)), "expected one number"),
        (lesion([9]), "units below 4"),
        (clamp("forget", np.zeros((3, 4)), dims=("sequence", "time")), "expected \\(sequence, time\\)"),
    ):
        with pytest.raises(ValueError, match=message):
            intervene(posterior, intervention, 2)
    with pytest.raises(TypeError, match="intervention must be"):
        intervene(posterior, {"forget": 1.0}, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a base step, a slice or a list"):
        do("x", 1.0, at="early")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown name 'memory'"):
        lr.interpret.telemetry(posterior, below={"memory": 0.5})
    with pytest.raises(ValueError, match="expected a threshold"):
        lr.interpret.telemetry(posterior)


def test_states_that_are_summed_out_have_no_unit_to_silence() -> None:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(2, 6, 2))})
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.LinearGaussian(), observations=heads)
    posterior = lr.Posterior(model, lr.Guide(model), data)
    with pytest.raises(ValueError, match="LinearGaussian sums states out"):
        intervene(posterior, lesion([0]), 2)
