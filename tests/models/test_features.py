"""Features of the covariates: against formulas written out, blind to padding, and how far each looks ahead."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.models.features import CovariateReader, Feature
from tests import oracles
from tests.oracles import Array
from tests.registry import FEATURES, LENGTHS, OBSERVATIONS, make_data, shake

DATA = make_data(OBSERVATIONS["features"])
EXACT = {"rtol": 0.0, "atol": 1e-12}


def built(feature: Feature, data: lr.SequenceData = DATA) -> Feature:
    feature = feature.fresh()
    feature.build("here", data.spec)
    feature.double()
    shake(feature, 0.5)
    return feature


def rows(name: str, n: int, data: lr.SequenceData = DATA) -> Array:
    return data.covariates[name][n, : int(data.lengths[n])].numpy()


def window(x: Array, steps: int, future: int) -> Array:
    padded = np.concatenate([np.zeros((steps - 1, x.shape[1])), x, np.zeros((future, x.shape[1]))])
    return np.stack([padded[t : t + steps + future][::-1].ravel() for t in range(len(x))])


def convolved(feature: Feature, x: Array) -> Array:
    parts = []
    shapes = itertools.product(feature.widths, feature.dilations)
    for bank, (width, dilation) in zip(feature.banks, shapes, strict=True):
        weight, bias = bank.weight.detach().numpy(), bank.bias.detach().numpy()
        ahead = 0 if feature.causal else (width - 1) // 2 * dilation
        out = np.tile(bias, (len(x), 1))
        for t in range(len(x)):
            for tap in range(width):
                s = t + ahead - (width - 1 - tap) * dilation
                if 0 <= s < len(x):
                    out[t] += weight[:, :, tap] @ x[s]
        parts.append(out)
    return np.concatenate(parts, 1)


def scanned(kernel: torch.nn.GRU, x: Array) -> Array:
    weights = {key.removesuffix("_l0"): value.detach().numpy() for key, value in kernel.named_parameters()}
    h, out = np.zeros(kernel.hidden_size), []
    for x_t in x:
        h = oracles.gru_step(x_t, h, weights)
        out.append(h)
    return np.stack(out)


def written_out(name: str, feature: Feature, n: int) -> Array:
    drive, stimulus, symbol = (rows(covariate, n) for covariate in ("drive", "stimulus", "symbol"))
    onehot = np.eye(3)[symbol[:, 0].astype(int)]
    if name == "lags":
        return window(drive, 3, 0)
    if name == "lags ahead":
        return window(stimulus, 2, 2)
    if name == "one-hot":
        return onehot
    if name == "embedding":
        return onehot @ feature.vectors.weight.detach().numpy()
    if name == "convolution":
        return np.tanh(convolved(feature, np.concatenate([drive, stimulus], 1)))
    if name == "convolution, centred":
        return np.tanh(convolved(feature, onehot))
    vectors = feature.reader.parts[1].vectors.weight.detach().numpy()
    x = np.concatenate([drive, onehot @ vectors], 1)
    return np.concatenate([scanned(feature.forwards, x), scanned(feature.backwards, x[::-1])[::-1]], 1)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_its_formula_within_each_sequence(name: str) -> None:
    feature = built(FEATURES[name]())
    found = feature(DATA).detach()
    assert found.shape == (len(DATA), DATA.num_steps, feature.size)
    for n, length in enumerate(LENGTHS):
        np.testing.assert_allclose(found[n, :length], written_out(name, feature, n), **EXACT)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_looks_ahead_as_far_as_it_says(name: str) -> None:
    data = make_data(OBSERVATIONS["features"], (9,))
    feature = built(FEATURES[name](), data)
    before, furthest = feature(data), -math.inf
    for changed in range(9):
        covariates = {key: value.clone() for key, value in data.covariates.items()}
        for key, value in covariates.items():
            value[:, changed] = (value[:, changed] + 1) % 3 if key == "symbol" else value[:, changed] + 1.0
        other = lr.SequenceData(**{**vars_of(data), "covariates": covariates})
        affected = (feature(other) - before).abs().amax(-1)[0].nonzero()[:, 0]
        furthest = max(furthest, changed - int(affected.min()))
    assert furthest == (8 if math.isinf(feature.lookahead) else feature.lookahead)


def vars_of(data: lr.SequenceData) -> dict[str, object]:
    return {name: getattr(data, name) for name in data.__dataclass_fields__}


def test_standardised_covariates_enter_in_standard_units() -> None:
    x = np.random.default_rng(0).normal(50.0, 5.0, (2, 4, 1))
    data = lr.SequenceData.from_arrays({"y": np.zeros((2, 4, 1))}, {"x": x}, standardise=["x"], dtype=torch.float64)
    lags = built(lr.Lags("x", 2, future=1), data)(data)
    expected = (x[..., 0] - x.mean()) / x.std()
    np.testing.assert_allclose(lags[:, 1:, 2], expected[:, :-1], rtol=0, atol=1e-6)
    assert not lags[:, -1, 0].any()


# -- in a model ----------------------------------------------------------------------------------------------------


def model(inputs: list[str | Feature], data: lr.SequenceData = DATA) -> lr.LatentRNN:
    return lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Deterministic(),
        observations={"y": lr.Gaussian()},
        inputs=inputs,
    ).to(data.dtype)


@pytest.mark.parametrize(
    ("inputs", "latency"),
    [
        (["drive"], 0.0),
        ([lr.Lags("drive", 3)], 0.0),
        ([lr.Lags("drive", 3, future=4), "stimulus"], 4 * 0.02),
        ([lr.Convolution("drive", widths=(3, 7), dilations=(1, 2), causal=False)], 6 * 0.02),
        ([lr.Convolution(lr.Lags("drive", 1, future=2), widths=3, causal=False)], 3 * 0.02),
        ([lr.Convolution(lr.BidirectionalRNN("drive", 2))], math.inf),
    ],
)
def test_a_model_knows_its_latency(inputs: list[str | Feature], latency: float) -> None:
    assert model(inputs).latency == pytest.approx(latency)


def test_what_sees_the_whole_sequence_is_refused_one_step_ahead() -> None:
    offline = model([lr.BidirectionalRNN("drive", 2)])
    posterior = lr.Posterior(offline, lr.Guide(offline), DATA)
    assert torch.isfinite(posterior.evidence().values).all()
    with pytest.raises(ValueError, match="sees the covariates of the whole sequence at every step"):
        posterior.one_step_ahead("y")
    buffered = model([lr.Lags("drive", 2, future=1)])
    assert lr.Posterior(buffered, lr.Guide(buffered), DATA).one_step_ahead("y").exact


@pytest.mark.parametrize("feature", [lr.OneHot("symbol", 2), lr.Embedding("symbol", 2, 3)], ids=repr)
def test_unknown_symbols_are_named(feature: Feature) -> None:
    with pytest.raises(ValueError, match=r"needs integer codes from 0 to 1; found 2.0 at sequence \d, step \d"):
        model([feature]).check(DATA)


REFUSED = {
    "an unknown covariate": (lambda: model([lr.OneHot("letter", 3)]), ValueError, "inputs: unknown covariate 'letter'"),
    "no symbols": (lambda: lr.OneHot("symbol", 0), ValueError, "OneHot: symbols must be a positive integer"),
    "no vector": (lambda: lr.Embedding("symbol", 3, 0), ValueError, "Embedding: dim must be a positive integer"),
    "no width": (lambda: lr.Convolution("drive", widths=()), ValueError, "Convolution: widths must hold at least one"),
    "a half width": (lambda: lr.Convolution("drive", widths=2.5), TypeError, "positive integers; found 2.5"),
    "an unknown activation": (
        lambda: lr.Convolution("drive", activation="exp"),
        ValueError,
        "Convolution: activation must be one of 'relu', 'tanh', 'silu', 'none'; found 'exp'",
    ),
    "nothing to convolve": (lambda: lr.Convolution([]), ValueError, "Convolution: covariates must name at least one"),
    "a number": (lambda: lr.BidirectionalRNN([3], 2), TypeError, "expected covariate names or features; found int"),
    "a negative future": (
        lambda: lr.Lags("drive", 2, future=-1),
        ValueError,
        "Lags: future must be a non-negative integer; found -1",
    ),
}


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(make, kind, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind) as error:
        make()
    assert message in str(error.value)


def test_one_description_serves_several_readers() -> None:
    feature = lr.Embedding("symbol", 3, 2)
    first, second = (CovariateReader("here", [feature], DATA.spec) for _ in range(2))
    assert not list(feature.parameters())
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


# -- recovery ------------------------------------------------------------------------------------------------------


def edges(seed: int) -> lr.SequenceData:
    """The observation is the covariate's change between steps t + 1 and t - 1: only a centred window knows it."""
    x = np.random.default_rng(seed).normal(size=(60, 20, 1))
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    y = padded[:, 2:] - padded[:, :-2]
    return lr.SequenceData.from_arrays({"y": y + 0.1 * np.random.default_rng(seed + 1).normal(size=y.shape)}, {"x": x})


@pytest.mark.slow
def test_what_looks_ahead_learns_what_lies_ahead() -> None:
    """Half of the variance of the target lies ahead, so a causal front end cannot explain more than half."""
    train, test = edges(0), edges(10)
    explained: dict[bool, float] = {}
    for causal in (False, True):
        inputs = [lr.Convolution("x", 4, widths=3, causal=causal, activation="none")]
        heads = {"y": lr.Gaussian()}
        declared = lr.LatentRNN(
            train.spec, transition=lr.GRU(8), latent=lr.Deterministic(), observations=heads, inputs=inputs
        )
        result = lr.fit(
            declared,
            lr.Guide(declared),
            train,
            steps=400,
            optimizer=lr.AdamW(learning_rate=0.02),
            reporting=lr.Reporting(progress=False),
        )
        mean: Tensor = result.posterior(test).mean("y", num_samples=1)
        target = test.observations["y"]
        explained[causal] = 1 - float((mean - target).square().mean() / target.var())
    assert explained[False] > 0.9
    assert explained[True] < 0.6
