"""What heads ask of shared weights, and what a prediction owes to what was observed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import latentrnn as lr
from latentrnn.inference.objectives.terms import elbo_terms


def two_heads(loud: float = 1.0) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    rng = np.random.default_rng(0)
    hidden = np.cumsum(rng.normal(size=(6, 10, 1)), 1) * 0.3
    arrays = {"a": hidden + 0.1 * rng.normal(size=(6, 10, 2)), "b": loud * hidden + 0.1 * rng.normal(size=(6, 10, 1))}
    data = lr.SequenceData.from_arrays(arrays, dtype=torch.float64)
    heads = {"a": lr.Gaussian(), "b": lr.Gaussian()}
    torch.manual_seed(0)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(1), observations=heads).double()
    return model, lr.Guide(model, encoder=lr.RNNEncoder(4)).double(), data


def test_gradients_of_heads_are_those_of_the_bound() -> None:
    model, guide, data = two_heads()
    found = lr.interpret.head_gradients(model, guide, data, num_particles=2, seed=3)
    own = [p for part in (model.observations["a"], model.observations["b"]) for p in part.parameters()]
    shared = [p for part in (model, guide) for p in part.parameters() if all(p is not q for q in own)]
    gradients = []
    for head in ("a", "b"):
        torch.manual_seed(3)
        terms = elbo_terms(model, guide, data, num_particles=2).log_likelihood
        parts = torch.autograd.grad(terms[head], shared, allow_unused=True)
        pairs = zip(parts, shared, strict=True)
        gradients.append(np.concatenate([(0 * p if g is None else g).detach().numpy().ravel() for g, p in pairs]))
    a, b = (g / len(data) for g in gradients)
    np.testing.assert_allclose(found.norm, [np.linalg.norm(a), np.linalg.norm(b)], rtol=1e-9)
    np.testing.assert_allclose(found.cosine[0, 1], a @ b / np.linalg.norm(a) / np.linalg.norm(b), rtol=1e-9)
    np.testing.assert_allclose(np.diag(found.cosine), 1.0)
    assert found.attrs["largest_ratio"] >= 1.0


def test_a_fit_tells_of_its_heads_and_is_the_same_fit() -> None:
    model, guide, data = two_heads()
    looks = lr.interpret.HeadGradients(data, every=10)
    told = lr.fit(model, guide, data, steps=30, reporting=lr.Reporting(progress=False, every=5, callbacks=[looks]))
    plain = lr.fit(model, guide, data, steps=30, reporting=lr.Reporting(progress=False, every=5))
    found = looks.to_xarray()
    assert found.step.values.tolist() == [4, 14, 24]
    assert found.norm.dims == ("step", "head")
    for one, other in zip(told.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_compared_is_named() -> None:
    guide, data = two_heads()[1:]
    with pytest.raises(ValueError, match="no fit has called this yet"):
        lr.interpret.HeadGradients(data).to_xarray()
    with pytest.raises(TypeError, match="model must be"):
        lr.interpret.head_gradients(nn.Linear(1, 1), guide, data)  # type: ignore[arg-type]
    one = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(1), observations={"a": lr.Gaussian()})
    with pytest.raises(ValueError, match="several heads"):
        lr.interpret.head_gradients(one, guide, data)


def test_hidden_channels_change_what_hangs_on_them() -> None:
    """Of two channels that both say the state, with noise of .1 and of 10, the prediction owes all to the first."""
    rng = np.random.default_rng(1)
    steps = np.cumsum(rng.normal(size=(12, 10)), 1)
    arrays = {
        "y": np.stack([steps + 0.1 * rng.normal(size=steps.shape), steps + 10 * rng.normal(size=steps.shape)], -1)
    }
    data = lr.SequenceData.from_arrays(arrays, channel_names={"y": ["sharp", "blurred"]}, dtype=torch.float64)
    heads = {"y": lr.Gaussian(fixed={"scale": np.array([0.1, 10.0]), "baseline": np.zeros(2)})}
    model = lr.LatentRNN(data.spec, transition=lr.Linear(1), latent=lr.LinearGaussian(), observations=heads).double()
    result = lr.fit(model, lr.Guide(model).double(), data, steps=150, seed=0, reporting=lr.Reporting(progress=False))
    posterior = result.posterior(data)
    found = lr.interpret.mask_sensitivity(posterior, "y", "y", num_samples=20)
    assert found["size"].sel(hidden_channel="sharp") > 5 * found["size"].sel(hidden_channel="blurred")
    np.testing.assert_allclose(found.observed, 1.0)
    only = lr.interpret.mask_sensitivity(posterior, "y", "y", ["sharp"], num_samples=20)
    np.testing.assert_array_equal(only.change[0], found.change[0])
    masked = {"y": arrays["y"].copy()}
    masked["y"][..., 0] = np.nan
    other = lr.SequenceData.from_arrays(masked, channel_names={"y": ["sharp", "blurred"]}, dtype=torch.float64)
    expected = result.posterior(other).mean("y", 20) - posterior.mean("y", 20)
    np.testing.assert_allclose(found.change.sel(hidden_channel="sharp"), expected, atol=1e-8)
    with pytest.raises(ValueError, match="unknown head 'z'"):
        lr.interpret.mask_sensitivity(posterior, "z", "y")
    with pytest.raises(ValueError, match="channels"):
        lr.interpret.mask_sensitivity(posterior, "y", "y", ["dull"])
