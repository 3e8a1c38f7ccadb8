"""Pooling: against loops over sequences, blind to padding, and what attention over steps is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

import latentrnn as lr
from latentrnn.models import LastState, MeanState, Pooling
from tests.models.memoryless import Memoryless
from tests.oracles import Array
from tests.registry import LENGTHS, OBSERVATIONS, make_data

HIDDEN = 4
DATA = make_data(OBSERVATIONS["per sequence"])
POOLINGS = {"last": LastState(), "mean": MeanState(), "attention": lr.AttentionPooling(3)}


def built(name: str) -> Pooling:
    pooling = POOLINGS[name].fresh()
    pooling.build(HIDDEN)
    pooling.double()
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return pooling


def written_out(name: str, pooling: Pooling, h: Array) -> Array:
    if name == "last":
        return h[-1]
    if name == "mean":
        return h.mean(0)
    w = {key: value.detach().numpy() for key, value in pooling.named_parameters()}
    alpha = special.softmax([w["direction"] @ np.tanh(w["map.weight"] @ h_t + w["map.bias"]) for h_t in h])
    return np.sum(alpha[:, None] * h, 0)


@pytest.mark.parametrize("sample", [(), (5,)], ids=["", "particles"])
@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_is_its_formula_within_each_sequence(name: str, sample: tuple[int, ...]) -> None:
    pooling = built(name)
    states = torch.randn(*sample, len(LENGTHS), max(LENGTHS), HIDDEN, dtype=torch.float64)
    found = pooling(states, DATA).detach()
    assert found.shape == (*sample, len(LENGTHS), HIDDEN)
    for index in np.ndindex(*sample, len(LENGTHS)):
        expected = written_out(name, pooling, states[index][: LENGTHS[index[-1]]].numpy())
        np.testing.assert_allclose(found[index], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_has_no_effect_and_no_gradient(name: str) -> None:
    pooling = built(name)
    states = torch.randn(len(LENGTHS), max(LENGTHS), HIDDEN, dtype=torch.float64, requires_grad=True)
    pooled = pooling(states, DATA)
    (gradient,) = torch.autograd.grad(pooled.square().sum(), states)
    assert not gradient[~DATA.valid].any()
    assert gradient[DATA.valid].any()
    spoilt = torch.where(DATA.valid.unsqueeze(-1), states, 1e6)
    assert torch.equal(pooling(spoilt, DATA), pooled)


@pytest.mark.parametrize("pooling", ["attention", lr.AttentionPooling(5), MeanState()], ids=str)
def test_a_pooling_may_be_named_or_given(pooling: str | Pooling) -> None:
    head = lr.Categorical(3, pooling=pooling)
    model = lr.LatentRNN(DATA.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": head})
    again = lr.LatentRNN.from_config(model.config(), DATA.spec)
    assert again.config() == model.config()
    assert list(again.state_dict()) == list(model.state_dict())
    assert repr(pooling) in repr(model)


def test_a_readout_of_a_pooled_state_may_be_non_linear() -> None:
    head = lr.Categorical(3, pooling="attention", readout=lr.MLPReadout(4))
    model = lr.LatentRNN(DATA.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": head})
    assert model.double()(DATA)["y"].shape == (len(LENGTHS), 1)


@pytest.mark.parametrize("pooling", ["mean", lr.AttentionPooling()], ids=str)
def test_pooling_on_a_per_step_head_is_refused(pooling: str | Pooling) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    with pytest.raises(ValueError, match="a per-step head reads every state; pooling is for per-sequence heads"):
        lr.LatentRNN(
            data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson(pooling=pooling)}
        )


def flagged(seed: int, sequences: int = 300, steps: int = 30) -> tuple[lr.SequenceData, Tensor]:
    """One step of each sequence is flagged; the label is the sign of the other input there, and of nothing else."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(sequences, steps, 2))
    where = rng.integers(0, steps, sequences)
    x[..., 1] = 0.0
    x[np.arange(sequences), where, 1] = 1.0
    label = (x[np.arange(sequences), where, 0] > 0).astype(float)[:, None]
    return lr.SequenceData.from_arrays({"label": label}, {"x": x}, per_sequence=["label"]), torch.as_tensor(where)


@pytest.mark.slow
def test_attention_finds_the_step_that_counts() -> None:
    """A mean over thirty steps drowns the one that decides; learned weights find it."""
    (train, _), (test, where) = flagged(0), flagged(1)
    accuracy = {}
    for pooling in ("attention", "mean"):
        heads = {"label": lr.Bernoulli(pooling=pooling)}
        model = lr.LatentRNN(train.spec, transition=Memoryless(4), latent=lr.Deterministic(), observations=heads)
        result = lr.fit(
            model,
            lr.Guide(model),
            train,
            steps=300,
            batch_size=100,
            optimizer=lr.AdamW(learning_rate=0.02),
            reporting=lr.Reporting(progress=False),
        )
        mean = result.posterior(test).mean("label", num_samples=1)
        accuracy[pooling] = float(((mean > 0.5) == (test.observations["label"] > 0.5)).double().mean())
        if pooling == "attention":
            states = model_states(result.model, test)
            weights = result.model.observations["label"].pooling.weights(states, test)
            assert (weights.argmax(-1) == where).double().mean() > 0.9
    assert accuracy["attention"] > 0.9
    assert accuracy["mean"] < 0.8


def model_states(model: lr.LatentRNN, data: lr.SequenceData) -> Tensor:
    return model.unroll(data).states().detach()
