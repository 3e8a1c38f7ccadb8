"""Every argument of what opens a model is taken or refused by name, whatever comes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.fuzz.rule import RawError, attempt
from tests.fuzz.test_misuse import HARSH, elsewhere, shown

Call = tuple[Callable[..., Any], Mapping[str, Any]]


@functools.cache
def calls() -> dict[str, Call]:
    """Calls that are good as they stand, by name, of everything public in the room."""
    rng = np.random.default_rng(0)
    symbols = rng.integers(0, 3, (6, 5, 1)).astype(float)
    arrays = {"y": rng.poisson(1.0, (6, 5, 2)).astype(float), "label": rng.integers(0, 2, (6, 1)).astype(float)}
    covariates = {"x": rng.normal(size=(6, 5, 1)), "symbol": symbols}
    data = lr.SequenceData.from_arrays(arrays, covariates, dt=0.1, per_sequence=["label"])
    torch.manual_seed(0)
    heads: dict[str, lr.Observation] = {
        "y": lr.Poisson(gain=lr.StimulusGain("x"), readout=lr.FactorReadout(2)),
        "label": lr.Bernoulli(pooling=lr.AttentionPooling()),
    }
    model = lr.LatentRNN(
        data.spec,
        transition=lr.LSTM(3),
        latent=lr.Innovations(1),
        observations=heads,
        inputs=["x", lr.OneHot("symbol", 3)],
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    posterior = lr.Posterior(model, guide, data, device="cpu")
    of = lr.interpret
    traced, effect = of.trace(posterior, 2), of.contrast(posterior, of.do("x", 1.0), num_samples=2)
    points = of.fixed_points(posterior, {"x": 0.0, "symbol": 1.0}, num_starts=8, descent=20)
    held = {"covariates": {"x": 0.0, "symbol": 1.0}, "past": "mean", "regime": None, "gap": None}
    return {
        "adaptation": (of.adaptation, {"effect": effect, "head": "y", "onset": 1, "steady": 2, "within": None}),
        "align": (of.align, {"a": posterior, "b": posterior, "num_samples": 2, "folds": 2}),
        "attention": (of.attention, {"posterior": posterior, "head": "label", "num_samples": 2}),
        "attractor": (of.attractor, {"points": points, "horizon": None}),
        "clamp": (of.clamp, {"gate": "forget", "value": 1.0, "at": 1, "units": [0], "dims": None}),
        "contrast": (
            of.contrast,
            {
                "posterior": posterior,
                "treated": of.lesion([0]),
                "control": of.do("x", 1.0),
                "num_samples": 2,
                "feedback": "free",
            },
        ),
        "decode": (
            of.decode,
            {
                "posterior": posterior,
                "behaviour": rng.normal(size=(6, 5, 1)),
                "lags": (0, 1),
                "of": "hidden",
                "num_samples": 2,
            },
        ),
        "do": (of.do, {"covariate": "x", "value": 1.0, "at": slice(1, 2)}),
        "explained_variance": (of.explained_variance, {"posterior": posterior, "head": "y", "num_samples": 2}),
        "factors": (of.factors, {"posterior": posterior, "num_samples": 2}),
        "fixed_points": (
            of.fixed_points,
            {
                "posterior": posterior,
                **held,
                "num_starts": 4,
                "num_samples": 1,
                "noise": 0.5,
                "slow": 0.1,
                "within": 2.0,
                "descent": 5,
                "run": 5,
            },
        ),
        "gain_share": (of.gain_share, {"posterior": posterior, "head": "y", "num_samples": 2}),
        "gradient_flow": (
            of.gradient_flow,
            {
                "posterior": posterior,
                "lags": [1, 2],
                "of": "output",
                "path": "total",
                "vanishing": 0.01,
                "exploding": 100.0,
                "num_samples": 2,
            },
        ),
        "head_gradients": (
            of.head_gradients,
            {"model": model, "guide": guide, "data": data, "num_particles": 1, "seed": 0},
        ),
        "HeadGradients": (of.HeadGradients, {"data": data, "every": 5, "num_particles": 1, "seed": 0}),
        "head_sensitivity": (
            of.head_sensitivity,
            {"posterior": posterior, "head": "y", "gate": "output", "num_samples": 2},
        ),
        "intervene": (
            of.intervene,
            {"posterior": posterior, "intervention": of.clamp("forget", 1.0), "num_samples": 2, "feedback": "recorded"},
        ),
        "jacobians": (
            of.jacobians,
            {"posterior": posterior, "of": "state", "by": "state", "path": "both", "num_samples": 2},
        ),
        "lesion": (of.lesion, {"units": [0], "at": 1}),
        "lyapunov": (
            of.lyapunov,
            {
                "posterior": posterior,
                **held,
                "num_exponents": 1,
                "num_samples": 1,
                "num_runs": 2,
                "steps": 8,
                "burn_in": 2,
                "num_blocks": 2,
            },
        ),
        "lyapunov_along": (
            of.lyapunov_along,
            {"posterior": posterior, "num_exponents": 1, "num_samples": 2, "burn_in": 0},
        ),
        "mask_sensitivity": (
            of.mask_sensitivity,
            {"posterior": posterior, "head": "label", "hidden": "y", "channels": ["0"], "num_samples": 2},
        ),
        "mutagenesis": (
            of.mutagenesis,
            {
                "posterior": posterior,
                "head": "label",
                "covariate": "symbol",
                "positions": [1],
                "delta": None,
                "channel": 0,
                "step": None,
                "quantity": "predictor",
                "num_samples": 2,
            },
        ),
        "perturb": (of.perturb, {"covariate": "x", "delta": 1.0, "at": [1, 2]}),
        "phase_portrait": (
            of.phase_portrait,
            {"posterior": posterior, **held, "plane": (0, 1), "num_points": 3, "margin": 0.2, "num_samples": 1},
        ),
        "probe": (
            of.probe,
            {
                "posterior": posterior,
                "target": rng.normal(size=6),
                "of": "hidden",
                "kind": "ridge",
                "metric": None,
                "lags": (0,),
                "pooling": "last",
                "folds": 2,
                "controls": 2,
                "types": None,
                "num_samples": 2,
                "seed": 0,
            },
        ),
        "replication": (
            of.replication,
            {"posteriors": [posterior, posterior], "num_samples": 2, "folds": 2, "least_r2": 0.8, "least_effect": 0.01},
        ),
        "saliency": (
            of.saliency,
            {
                "posterior": posterior,
                "head": "label",
                "covariate": "symbol",
                "channel": 0,
                "step": None,
                "quantity": "predictor",
                "method": "integrated_gradients",
                "baseline": "mean",
                "points": 2,
                "num_samples": 2,
            },
        ),
        "sensitivity": (
            of.sensitivity,
            {
                "posterior": posterior,
                "at": 1,
                "span": 2,
                "of": "output",
                "by": "input",
                "path": "total",
                "num_samples": 2,
            },
        ),
        "spectrum": (of.spectrum, {"posterior": posterior, "path": "total", "num_samples": 2}),
        "summarise": (of.summarise, {"dataset": traced, "probability": 0.9}),
        "telemetry": (
            of.telemetry,
            {"posterior": posterior, "below": {"forget": 0.5}, "above": None, "num_samples": 2},
        ),
        "time_constants": (
            of.time_constants,
            {
                "posterior": posterior,
                "gate": "forget",
                "complement": False,
                "plausible": (0.1, 1.0),
                "left": 0.1,
                "disagreement": None,
                "num_samples": 2,
            },
        ),
        "trace": (of.trace, {"posterior": posterior, "num_samples": 2}),
        "trajectories": (of.trajectories, {"posterior": posterior, "dims": 2, "num_samples": 2}),
    }


RESULTS = {"Alignment", "FixedPoints", "Intervention"}  # what calls return


def test_everything_public_is_called_with_every_argument() -> None:
    public = {name: value for name, value in vars(lr.interpret).items() if callable(value) and name[0] != "_"}
    assert set(public) - RESULTS == set(calls())
    for name, (call, arguments) in calls().items():
        known = [key for key, one in inspect.signature(call).parameters.items() if one.kind is not one.VAR_KEYWORD]
        assert set(known) <= set(arguments), name


@pytest.mark.filterwarnings("ignore")  # what the numbers of so small a model are is not asked
def test_the_calls_are_good_as_they_stand() -> None:
    wrong = {}
    for name, (call, arguments) in calls().items():
        try:
            call(**arguments)
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    assert not wrong


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_argument_is_taken_or_refused() -> None:
    raw = []
    for name, (call, arguments) in calls().items():
        for argument in arguments:
            for junk in HARSH:
                given = dict(arguments) | {argument: junk}
                try:
                    with elsewhere():
                        attempt(name, lambda call=call, given=given: call(**given))
                except RawError as error:
                    raw.append(f"{name}: {shown(given, argument)}: {error}")
    assert not raw, "\n".join(raw)
