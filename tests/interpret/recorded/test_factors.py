"""Factors of a head, and factors that several heads share."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from tests.interpret.small import posterior_of, recording


def two_heads(readout: lr.Readout) -> lr.Posterior:
    rng = np.random.default_rng(0)
    arrays = {
        "held_in": rng.poisson(1.0, (4, 10, 3)).astype(float),
        "held_out": rng.poisson(1.0, (4, 10, 2)).astype(float),
    }
    data = lr.SequenceData.from_arrays(arrays, dt=0.01)
    heads = {"held_out": lr.Poisson(readout=readout), "held_in": lr.Poisson(readout=lr.FactorReadout(2))}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(1), observations=heads).double()
    return lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)).double(), data)


def test_factors_drive_their_channels() -> None:
    readout = lr.FactorReadout(2, priors={"loading": dist.Normal(0.0, 1.0)})
    posterior = posterior_of(lr.GRU(4), lr.Innovations(2), head=lr.Poisson(readout=readout))
    found = posterior.factors(5)
    assert found.spikes.dims == ("sample", "sequence", "time", "spikes_factor")
    loading = posterior.parameters(5)["spikes.readout.loading"].numpy()
    np.testing.assert_allclose(found["spikes.loading"], loading)
    weight = posterior.model.observations["spikes"].readout.weight.detach().numpy()
    states = posterior.latents(5)["states"].numpy()
    expected = states @ (weight / np.linalg.norm(weight, axis=1, keepdims=True)).T
    np.testing.assert_allclose(found.spikes, expected, rtol=1e-6)
    assert bool(found.spikes[:, 2, -1].isnull().all())
    rates = posterior.rates("spikes", 5).numpy()
    baseline = posterior.model.observations["spikes"].readout.baseline.detach().numpy()
    predictor = np.einsum("sntf,scf->sntc", found.spikes, loading) + baseline
    np.testing.assert_allclose(np.log(rates), predictor, atol=1e-6)
    same = lr.interpret.factors(lr.EnsemblePosterior([posterior], torch.ones(1)), 5)
    np.testing.assert_array_equal(same.spikes, found.spikes)


def test_several_heads_share_the_same_factors() -> None:
    shared = two_heads(lr.FactorReadout(2, of="held_in"))
    found = shared.factors(3)
    np.testing.assert_array_equal(found.held_in, found.held_out)
    assert found["held_out.loading"].shape == (3, 2, 2)
    apart = two_heads(lr.FactorReadout(2)).factors(3)
    assert float(np.abs(apart.held_in.values - apart.held_out.values).max()) > 1e-3


def test_shared_factors_stay_shared_through_a_fit_and_a_file(tmp_path) -> None:
    start = two_heads(lr.FactorReadout(2, of="held_in"))
    guide = lr.Guide(start.model, encoder=lr.RNNEncoder(4))
    quiet = lr.Reporting(progress=False)
    result = lr.fit(start.model, guide, start.data, steps=3, seed=0, reporting=quiet)
    heads = result.model.observations
    assert heads["held_in"].readout.weight is heads["held_out"].readout.weight
    assert bool((heads["held_in"].readout.weight != start.model.observations["held_in"].readout.weight).any())
    result.save(tmp_path / "fit")
    again = lr.load(tmp_path / "fit").model
    again_heads = again.observations
    torch.testing.assert_close(again_heads["held_in"].readout.weight, heads["held_in"].readout.weight)
    assert again_heads["held_in"].readout.weight is again_heads["held_out"].readout.weight
    copied = lr.LatentRNN.from_config(result.model.config(), result.model.spec)
    assert copied.observations["held_out"].readout.of == "held_in"
    assert "of" not in copied.observations["held_in"].readout.arguments()
    doubled = result.model.double().observations
    assert doubled["held_in"].readout.weight is doubled["held_out"].readout.weight


def test_members_of_a_vectorised_ensemble_share_each_their_own() -> None:
    start = two_heads(lr.FactorReadout(2, of="held_in"))
    guide = lr.Guide(start.model, encoder=lr.RNNEncoder(4))
    quiet = lr.Reporting(progress=False)
    fits = lr.fit_ensemble(start.model, guide, start.data, seeds=[0, 1], steps=3, vectorised=True, reporting=quiet)
    for member in fits.posterior(start.data).posteriors:
        found = member.factors(2)
        np.testing.assert_allclose(found.held_in, found.held_out, rtol=1e-6)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"needs a head with a FactorReadout\(3\) of its own"):
        two_heads(lr.FactorReadout(3, of="held_in"))
    with pytest.raises(ValueError, match=r"FactorReadout\(of='spikes'\), but the other heads are \['held_in'\]"):
        two_heads(lr.FactorReadout(2, of="spikes"))
    with pytest.raises(ValueError, match="no head has a FactorReadout"):
        posterior_of(lr.GRU(3), lr.Innovations(1), data=recording()).factors()
