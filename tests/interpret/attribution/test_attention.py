"""Attention maps of every readout and pooling that attends, against softmaxes in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.interpret import attention

LENGTHS = (9, 6)


def recording(clock: int = 1) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    heads = {"v": [rng.normal(size=(n // clock, 1)) for n in LENGTHS], "kind": rng.normal(size=(2, 1))}
    covariates = {"x": [rng.normal(size=(n, 2)) for n in LENGTHS]}
    return lr.SequenceData.from_arrays(
        heads, covariates, dt=0.5, dtype=torch.float64, per_sequence=["kind"], clocks={"v": clock}
    )


def posterior_of(head: lr.Observation, name: str = "v", clock: int = 1, **parts: object) -> lr.Posterior:
    data = recording(clock)
    torch.manual_seed(0)
    given = {"transition": lr.GRU(4), "latent": lr.Innovations(1), **parts}
    model = lr.LatentRNN(data.spec, observations={name: head}, **given).double()
    with torch.no_grad():
        for parameter in model.observations[name].parameters():
            parameter.normal_()  # weights that start at zero would attend to all alike
    return lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)).double(), data)


def softmax(scores: np.ndarray) -> np.ndarray:
    found = np.exp(scores - scores.max(-1, keepdims=True))
    return found / found.sum(-1, keepdims=True)


def scores_of(readout: lr.Readout, asking: np.ndarray, asked: np.ndarray, heads: int) -> np.ndarray:
    """q_t . k_s / sqrt(size / heads), (head, time, source), by hand."""
    part = readout.attention
    query = asking @ part.query.weight.detach().numpy().T + part.query.bias.detach().numpy()
    key = asked @ part.key.weight.detach().numpy().T
    query, key = (each.reshape(len(each), heads, -1).swapaxes(0, 1) for each in (query, key))
    return query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])


def causal(scores: np.ndarray, window: int | None = None) -> np.ndarray:
    lag = np.arange(scores.shape[-2])[:, None] - np.arange(scores.shape[-1])
    return softmax(np.where((lag >= 0) & (lag < (window or len(lag))), scores, -np.inf))


def test_causal_attention_is_a_softmax_over_the_past() -> None:
    posterior = posterior_of(lr.Gaussian(readout=lr.CausalAttention(6, heads=2)))
    found = attention(posterior, "v", num_samples=3).weight
    assert found.dims == ("sample", "sequence", "time", "attention_head", "source")
    states = posterior.latents(3)["states"].numpy()
    for sample, sequence in ((0, 0), (2, 1)):
        h = states[sample, sequence, : LENGTHS[sequence]]
        expected = causal(scores_of(posterior.model.observations["v"].readout, h, h, 2)).swapaxes(0, 1)
        here = found[sample, sequence].values
        np.testing.assert_allclose(here[: len(h), :, : len(h)], expected, atol=1e-12)
        assert np.isnan(here[len(h) :]).all()
        assert np.isnan(here[:, :, len(h) :]).all()
    np.testing.assert_allclose(found.source, 0.5 * np.arange(9))


def test_windowed_attention_has_its_lags_where_they_are() -> None:
    posterior = posterior_of(lr.Gaussian(readout=lr.WindowedAttention(3, 4)))
    found = attention(posterior, "v", num_samples=2).weight
    readout, h = posterior.model.observations["v"].readout, posterior.latents(2)["states"][1, 0].numpy()
    lag = np.arange(9)[:, None] - np.arange(9)
    bias = readout.lag_bias.detach().numpy()[0, ::-1]  # of lags 0, 1, 2
    scores = scores_of(readout, h, h, 1) + bias[np.clip(lag, 0, 2)]
    np.testing.assert_allclose(found[1, 0, :, 0], causal(scores, 3)[0], atol=1e-12)


def test_a_context_changes_what_is_asked() -> None:
    posterior = posterior_of(lr.Gaussian(readout=lr.ModulatedAttention("x", 4)))
    found = attention(posterior, "v", num_samples=2).weight
    readout, h = posterior.model.observations["v"].readout, posterior.latents(2)["states"][0, 0].numpy()
    x = posterior.data.covariates["x"][0].numpy()
    query = h @ readout.attention.query.weight.detach().numpy().T + readout.attention.query.bias.detach().numpy()
    query = query * (1 + x @ readout.scale_weight.detach().numpy().T) + x @ readout.shift_weight.detach().numpy().T
    scores = query @ (h @ readout.attention.key.weight.detach().numpy().T).T / 2
    np.testing.assert_allclose(found[0, 0, :, 0], causal(scores), atol=1e-12)


def test_streams_ask_each_other() -> None:
    streams = lr.Streams({"fast": lr.GRU(2), "slow": lr.GRU(3)}, {"fast": ["x"], "slow": ["x"]})
    readout = lr.CrossAttention("fast", "slow", 4)
    posterior = posterior_of(lr.Gaussian(readout=readout), transition=streams, latent=lr.InitialState(2))
    found = attention(posterior, "v", num_samples=2).weight
    h = posterior.latents(2)["states"][1, 0].numpy()
    expected = causal(scores_of(posterior.model.observations["v"].readout, h[:, :2], h[:, 2:], 1))
    np.testing.assert_allclose(found[1, 0, :, 0], expected[0], atol=1e-12)


def test_a_source_is_seen_whole() -> None:
    readout = lr.SourceAttention("x", 4, hidden_size=2)
    found = attention(posterior_of(lr.Gaussian(readout=readout)), "v", num_samples=2).weight
    assert float(found[0, 0, 0, 0, 8]) > 0
    np.testing.assert_allclose(found[:, 1, :6].sum("source"), 1.0)
    assert bool(found[:, 1, :, :, 6:].isnull().all())


def test_a_pooling_says_which_steps_count() -> None:
    posterior = posterior_of(lr.Gaussian(pooling="attention"), "kind")
    found = attention(posterior, "kind", num_samples=2).weight
    assert found.dims == ("sample", "sequence", "source")
    pooling, h = posterior.model.observations["kind"].pooling, posterior.latents(2)["states"][1, 1, :6].numpy()
    hidden = np.tanh(h @ pooling.map.weight.detach().numpy().T + pooling.map.bias.detach().numpy())
    np.testing.assert_allclose(found[1, 1, :6], softmax(hidden @ pooling.direction.detach().numpy()), atol=1e-12)
    assert bool(found[1, 1, 6:].isnull().all())


def test_frames_of_a_clock_are_steps_of_their_own() -> None:
    posterior = posterior_of(lr.Gaussian(readout=lr.CausalAttention(4)), clock=2)
    found = attention(posterior, "v", num_samples=1).weight
    assert found.sizes["time"] == found.sizes["source"] == 4
    assert found.time.values.tolist() == found.source.values.tolist() == [0.0, 1.0, 2.0, 3.0]
    h = posterior.latents(1)["states"][0, 0, 1::2].numpy()[:4]
    expected = causal(scores_of(posterior.model.observations["v"].readout, h, h, 1))
    np.testing.assert_allclose(found[0, 0, :, 0], expected[0], atol=1e-12)


@pytest.mark.parametrize("make", [lambda: lr.CausalAttention(4), lambda: lr.WindowedAttention(3, 4)])
def test_draws_of_parameters_attend_each_for_itself(make: Callable[[], lr.Readout]) -> None:
    memory = lr.LeakyIntegrator(2, priors={"time_constant": dist.LogNormal(0.0, 0.5)})
    posterior = posterior_of(lr.Gaussian(readout=make()), transition=memory, latent=lr.Deterministic())
    found = attention(posterior, "v", num_samples=3).weight.values
    assert float(np.ptp(found[:, 0, 5, 0, 3:6], axis=0).max()) > 0
    np.testing.assert_allclose(found[:, 0].sum(-1), 1.0)


@pytest.mark.parametrize("name", ["v", "kind"])
def test_one_sequence_where_nothing_is_random_is_one_of_several(name: str) -> None:
    head = lr.Gaussian(readout=lr.CausalAttention(4)) if name == "v" else lr.Gaussian(pooling="attention")
    posterior = posterior_of(head, name, latent=lr.Deterministic())
    whole, alone = (attention(each, name, num_samples=2) for each in (posterior, posterior.restricted(1)))
    np.testing.assert_allclose(alone.weight, whole.weight[:, :1], atol=1e-12)


def test_what_does_not_attend_is_refused() -> None:
    with pytest.raises(ValueError, match="does not attend"):
        attention(posterior_of(lr.Gaussian()), "v")
    with pytest.raises(ValueError, match="has no weights"):
        attention(posterior_of(lr.Gaussian(pooling="mean"), "kind"), "kind")
    with pytest.raises(ValueError, match="unknown head"):
        attention(posterior_of(lr.Gaussian()), "w")
