"""Arguments of another kind are refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import latentrnn as lr

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "an infinite decay": (lambda: lr.Calcium(math.inf), "Calcium: decay must be finite; found inf"),
    "a decay in words": (lambda: lr.Calcium("0.1"), "Calcium: decay must be positive; found '0.1'"),
    "no totals": (lambda: lr.Binomial(""), "Binomial: total_count must be a positive integer; found ''"),
    "an empty list of totals": (
        lambda: lr.Binomial([]),
        r"Binomial: total_count must be a positive integer; found \[\]",
    ),
    "sizes in words": (
        lambda: lr.StepEncoder(""),
        "hidden_sizes must be a list of positive integers; found ''",
    ),
    "priors in words": (lambda: lr.Poisson(priors="weight"), "Poisson: priors must be a dict of priors by parameter"),
    "a huge size": (lambda: lr.GRU(10**30), "GRU: hidden_size must be a positive integer of at most 2147483647"),
    "inputs as a number": (
        lambda: lr.LatentRNN(
            lr.SequenceData.from_arrays({"y": np.ones((2, 4, 1))}).spec,
            transition=lr.GRU(2),
            latent=lr.Deterministic(),
            observations={"y": lr.Poisson()},
            inputs=3,
        ),
        "LatentRNN: inputs must be covariate names or features; found 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_arguments_of_another_kind_are_refused(case: str) -> None:
    make, message = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_sizes_of_numpy_are_plain_integers() -> None:
    assert type(lr.GRU(np.int64(8)).config()["arguments"]["hidden_size"]) is int


FLAGS: dict[str, Callable[[], Any]] = {
    "GRU.layer_norm": lambda: lr.GRU(2, layer_norm="no"),
    "StimulusGain.gated": lambda: lr.StimulusGain("x", gated="no"),
    "LeakyIntegrator.learned": lambda: lr.LeakyIntegrator(2, learned="no"),
    "LeakyIntegrator.average": lambda: lr.LeakyIntegrator(2, average="no"),
    "Decay.learned": lambda: lr.Decay(lr.GRU(2), learned="no"),
    "Convolution.causal": lambda: lr.Convolution("x", causal="no"),
    "Calcium.learn_kernel": lambda: lr.Calcium(0.5, learn_kernel="no"),
    "GaussianChain.full": lambda: lr.GaussianChain(full="no"),
    "Discrete.driven": lambda: lr.Discrete(2, driven="no"),
    "RNNEncoder.mask_input": lambda: lr.RNNEncoder(2, mask_input="no"),
    "StepEncoder.gap_input": lambda: lr.StepEncoder(gap_input="no"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_in_words_is_refused(name: str) -> None:
    argument = name.partition(".")[2]
    with pytest.raises(TypeError, match=f"{argument} must be True or False; found 'no'"):
        FLAGS[name]()


NAMES: dict[str, Callable[[], Any]] = {
    "Lags": lambda: lr.Lags(3, 2),
    "OneHot": lambda: lr.OneHot(None, 2),
    "Embedding": lambda: lr.Embedding(b"x", 2, 2),
    "CrossAttention": lambda: lr.CrossAttention("a", 1, 4),
    "StimulusGain": lambda: lr.StimulusGain(["x"]),
    "SourceAttention": lambda: lr.SourceAttention("x", 4, valid=1),
    "Calcium": lambda: lr.Calcium(0.5, events=1),
    "Discrete": lambda: lr.Discrete(2, observes=[1]),
    "History": lambda: lr.History(2, 1, into=1.7),
    "Streams": lambda: lr.Streams({"a": lr.GRU(2)}, common=[None]),
    "RNNEncoder": lambda: lr.RNNEncoder(2, observes=1.7),
    "BidirectionalRNN": lambda: lr.BidirectionalRNN(None, 2),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: .* must be (a string|a list of)"):
        NAMES[name]()


def test_arrays_are_no_choices() -> None:
    array = np.array(["tanh", "relu"])
    for make in (
        lambda: lr.VanillaRNN(2, nonlinearity=array),
        lambda: lr.Gaussian(array),
        lambda: lr.Volatility(array),
    ):
        with pytest.raises(ValueError, match="must be one of '"):
            make()


NUMPY: dict[str, Callable[[Any, Any], Any]] = {
    "GRU": lambda n, x: lr.GRU(n, layers=n, dropout=x),
    "CoupledGateLSTM": lambda n, x: lr.CoupledGateLSTM(n),
    "LeakyIntegrator": lambda n, x: lr.LeakyIntegrator(n, tau=np.array([x, x]), learned=np.bool_(False)),
    "NeuralODE": lambda n, x: lr.NeuralODE(n, n, x, rtol=x, atol=x, substeps=n),
    "Lags": lambda n, x: lr.Lags(np.str_("x"), n, future=n),
    "Convolution": lambda n, x: lr.Convolution(np.array(["x"]), n, widths=n, dilations=np.array([1, 2])),
    "WindowedAttention": lambda n, x: lr.WindowedAttention(n, n, heads=n),
    "RelaxedDiscrete": lambda n, x: lr.RelaxedDiscrete(n, x, n),
    "Calcium": lambda n, x: lr.Calcium(x, drift=x),
    "RNNEncoder": lambda n, x: lr.RNNEncoder(n, direction="causal", lag=n, observes=np.array(["y"])),
    "StepEncoder": lambda n, x: lr.StepEncoder(np.array([n, n])),
    "PerSequence": lambda n, x: lr.PerSequence(lr.MeanField(), [("a", 0, n)], n),
    "PhysicalPenalty": lambda n, x: lr.OutcomeCalibration("y", "z", weight=x),
}


@pytest.mark.parametrize("name", NUMPY)
def test_numbers_and_words_of_numpy_are_kept_as_pythons_own(name: str) -> None:
    """A component is described in JSON, which knows no other; and what follows from its sizes is plain too."""
    part, plain = (NUMPY[name](*given) for given in ((np.int64(2), np.float32(0.5)), (2, 0.5)))
    assert json.dumps(part.config()) == json.dumps(plain.config())
    for size in ("state_size", "hidden_size", "memory", "lookahead"):
        assert type(getattr(part, size, 0)) is int


def test_the_steps_of_per_sequence_are_a_number_of_them() -> None:
    with pytest.raises(ValueError, match="PerSequence: num_steps must be a positive integer"):
        lr.PerSequence(lr.MeanField(), num_steps=0.5)


def test_time_constants_in_words_are_refused() -> None:
    with pytest.raises(ValueError, match="tau must be a positive number or 2 of them, one per unit; found 'y'"):
        lr.LeakyIntegrator(2, tau="y")
