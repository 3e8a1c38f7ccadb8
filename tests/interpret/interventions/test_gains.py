"""Shares of gains against sums written out, and adaptation against a cell whose step response is known."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray

import latentrnn as lr
from latentrnn.interpret import adaptation, contrast, do, gain_share
from tests.interpret.small import posterior_of, recording


def gained(*, gated: bool = True, prior: bool = False) -> lr.Posterior:
    priors = {"beta": dist.Normal(0.0, 1.0)} if prior else {}
    head = lr.Poisson(gain=lr.StimulusGain("x", gated=gated, priors=priors))
    data = recording()
    torch.manual_seed(0)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(4), latent=lr.Innovations(1), observations={"spikes": head}, inputs=[]
    ).double()
    return lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)).double(), data)


@pytest.mark.parametrize("prior", [False, True])
def test_a_share_is_a_covariance_of_what_is_summed(prior: bool) -> None:
    posterior = gained(prior=prior)
    found = gain_share(posterior, "spikes", 3)
    inside = posterior.data.valid.numpy()
    head = posterior.model.observations["spikes"]
    states = posterior.latents(3)["states"].numpy()
    beta = np.broadcast_to(head.gain.beta.detach().numpy(), (3, 3, 2))
    if prior:
        beta = posterior.parameters(3)["spikes.gain.beta"].numpy()
    weight, shift, bias = (
        p.detach().numpy() for p in (head.gain.state_weight, head.gain.stimulus_weight, head.gain.gate_bias)
    )
    eta = np.log(posterior.rates("spikes", 3).numpy())
    for sample in range(3):
        s = posterior.data.covariates["x"].numpy()[inside]
        gate = 1 / (1 + np.exp(-(states[sample][inside] @ weight.T + s @ shift.T + bias)))
        c, total = (gate * s) @ beta[sample].T, eta[sample][inside]
        share = [np.cov(c[:, k], total[:, k], bias=True)[0, 1] / total[:, k].var() for k in range(3)]
        np.testing.assert_allclose(found.share[sample], share, rtol=1e-6)
        still = (gate.mean(0) * s) @ beta[sample].T
        np.testing.assert_allclose(found.gated[sample], (c - still).var(0) / c.var(0), rtol=1e-6)


def test_a_gate_that_stands_still_gates_nothing() -> None:
    np.testing.assert_allclose(gain_share(gained(gated=False), "spikes", 2).gated, 0.0, atol=1e-12)


def test_a_planted_high_pass_adapts_by_its_time_constant() -> None:
    """Light through w (x - h), h a leaky average of x with tau .1 s, answers a step by a peak that fades to nothing."""
    steps, dt, tau = 200, 0.01, 0.1
    rng = np.random.default_rng(0)
    light = rng.normal(size=(3, steps, 1))
    data = lr.SequenceData.from_arrays(
        {"v": rng.normal(size=(3, steps, 1))}, {"light": light}, dt=dt, dtype=torch.float64
    )
    memory = lr.LeakyIntegrator(1, tau=tau, average=True, fixed={"input_weight": 1.0})
    head = lr.Gaussian(
        covariates=["light"], fixed={"weight": -2.0, "baseline": 0.0, "covariate_weight": 3.0, "scale": 1.0}
    )
    model = lr.LatentRNN(
        data.spec, transition=memory, latent=lr.Deterministic(), observations={"v": head}, inputs=["light"]
    )
    posterior = lr.Posterior(model.double(), lr.Guide(model), data)
    effect = contrast(posterior, do("light", 1.0, at=slice(20, None)), do("light", 0.0, at=slice(20, None)), 2)
    found = adaptation(effect, "v", 20)
    # r_k = 3 - 2 (1 - exp(-(k + 1) dt / tau)): the sum over steps of an exponential
    q = np.exp(-dt / tau)
    np.testing.assert_allclose(found.peak, 1 + 2 * q, rtol=1e-6)
    np.testing.assert_allclose(found.plateau, 1.0, rtol=1e-4)
    np.testing.assert_allclose(found.time_constant, dt / (1 - q), rtol=1e-3)
    np.testing.assert_allclose(found.adapted, 1 - 1 / (1 + 2 * q), rtol=1e-4)


def test_an_inhibition_that_is_larger_than_the_excitation_before_it_is_no_peak() -> None:
    time = 0.01 * np.arange(300)
    response = -2.0 + 3.0 * np.exp(-time / 0.2)
    axes = ("sample", "sequence", "time", "v_channel")
    effect = xarray.Dataset({"v": (axes, response[None, None, :, None])}, {"time": time})
    found = adaptation(effect, "v", 0, within=20)
    np.testing.assert_allclose(found.peak, 1.0)
    np.testing.assert_allclose(found.adapted, 3.0, rtol=1e-4)
    np.testing.assert_allclose(found.time_constant, 0.01 / (1 - np.exp(-0.05)), rtol=1e-3)
    assert adaptation(effect, "v", 0).peak.item() < -1.9  # over all steps it is the inhibition


def test_mistakes_are_named() -> None:
    plain = posterior_of(lr.GRU(3), lr.InitialState(1))
    with pytest.raises(ValueError, match="no StimulusGain"):
        gain_share(plain, "spikes", 2)
    with pytest.raises(ValueError, match="head must be"):
        gain_share(plain, "light", 2)
    effect = contrast(plain, do("x", 1.0), num_samples=2)
    with pytest.raises(ValueError, match="unknown head 'v'"):
        adaptation(effect, "v", 0)
    with pytest.raises(ValueError, match="onset"):
        adaptation(effect, "spikes", 50)
    with pytest.raises(ValueError, match="within"):
        adaptation(effect, "spikes", 0, within=0)
    with pytest.raises(TypeError, match="with draws"):
        adaptation(effect.mean("sample"), "spikes", 0)
