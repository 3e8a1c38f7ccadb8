"""Strategies: random data, models, guides and fits, small enough that a case takes a fraction of a second."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

import latentrnn as lr
from tests.fuzz.rule import Refused, attempt
from tests.registry import TRANSITIONS

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Kind:
    """A family of observations: how it is made, what its values are, whether they have a unit."""

    make: Callable[..., lr.Observation]
    draw: Draw
    scaled: bool = False
    fewest_channels: int = 1
    per_step_only: bool = False


def _counts(mean: float) -> Draw:
    return lambda rng, shape: rng.poisson(mean, shape).astype(float)


def _codes(classes: int) -> Draw:
    return lambda rng, shape: rng.integers(0, classes, shape).astype(float)


def _reals(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.normal(size=shape)


def _positives(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.gamma(2.0, 1.0, shape) + 1e-3


def _zero_or_positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return _positives(rng, shape) * (rng.random(shape) < 0.7)


def _hazard(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    drawn = rng.random(shape) < 0.2
    return np.where(np.cumsum(drawn, 0) - drawn > 0, np.nan, drawn) if len(shape) == 2 else drawn.astype(float)


KINDS: dict[str, Kind] = {
    "Poisson": Kind(lr.Poisson, _counts(1.0)),
    "Poisson, large": Kind(lr.Poisson, _counts(1e5)),
    "Poisson, softplus": Kind(lambda **k: lr.Poisson("softplus", **k), _counts(1.0)),
    "NegativeBinomial": Kind(lr.NegativeBinomial, _counts(2.0)),
    "ZeroInflatedPoisson": Kind(lr.ZeroInflatedPoisson, _counts(0.7)),
    "ZeroInflatedPoisson, state": Kind(lambda **k: lr.ZeroInflatedPoisson("state", **k), _counts(0.7)),
    "Bernoulli": Kind(lr.Bernoulli, _codes(2)),
    "Bernoulli, cloglog": Kind(lambda **k: lr.Bernoulli("cloglog", **k), _codes(2)),
    "Binomial": Kind(lambda **k: lr.Binomial(3, **k), _codes(4)),
    "BetaBinomial": Kind(lambda **k: lr.BetaBinomial(3, **k), _codes(4)),
    "Categorical": Kind(lambda **k: lr.Categorical(3, **k), _codes(3)),
    "OrderedLogistic": Kind(lambda **k: lr.OrderedLogistic(3, **k), _codes(3)),
    "Multinomial": Kind(lr.Multinomial, _counts(1.0), fewest_channels=2),
    "DirichletMultinomial": Kind(lr.DirichletMultinomial, _counts(1.0), fewest_channels=2),
    "AutoregressiveBernoulli": Kind(lr.AutoregressiveBernoulli, _codes(2)),
    "DiscreteHazard": Kind(lr.DiscreteHazard, _hazard, per_step_only=True),
    "Gaussian": Kind(lr.Gaussian, _reals, scaled=True),
    "Gaussian, full": Kind(lambda **k: lr.Gaussian("full", **k), _reals, scaled=True, fewest_channels=2),
    "Gaussian, low rank": Kind(lambda **k: lr.Gaussian("low_rank", 1, **k), _reals, scaled=True, fewest_channels=2),
    "Gaussian, arcsinh": Kind(lambda **k: lr.Gaussian(link="arcsinh", **k), _reals, scaled=True),
    "StudentT": Kind(lr.StudentT, _reals, scaled=True),
    "Volatility": Kind(lr.Volatility, _reals, scaled=True),
    "LogNormal": Kind(lr.LogNormal, _positives, scaled=True),
    "Gamma": Kind(lr.Gamma, _positives, scaled=True),
    "ZeroInflatedGamma": Kind(lr.ZeroInflatedGamma, _zero_or_positive, scaled=True),
    "Calcium": Kind(lambda **k: lr.Calcium(0.1, **k), _reals, scaled=True, per_step_only=True),
}

CELLS = {name: make for name, make in TRANSITIONS.items() if not name.startswith("streams")}  # those name covariates
CELLS["streams"] = lambda: lr.Streams({"first": lr.GRU(2), "second": lr.VanillaRNN(2)})

LATENTS: dict[str, Callable[[], lr.Latent]] = {
    "deterministic": lr.Deterministic,
    "initial state": lambda: lr.InitialState(2),
    "innovations": lambda: lr.Innovations(1),
    "innovations, initial": lambda: lr.Innovations(2, initial=2),
    "innovations, ar1": lambda: lr.Innovations(1, prior="ar1"),
    "innovations, matern": lambda: lr.Innovations(1, prior="matern32"),
    "innovations, student": lambda: lr.Innovations(1, prior="student_t"),
    "markov": lr.MarkovNormal,
    "markov, state": lambda: lr.MarkovNormal(scale="state"),
    "recurrent": lambda: lr.RecurrentNormal(2, initial=2),
    "relaxed": lambda: lr.RelaxedDiscrete(2),
    "discrete": lambda: lr.Discrete(2),
    "discrete, driven": lambda: lr.Discrete(2, driven=True),
}

FAMILIES: dict[str, Callable[[], lr.Family]] = {
    "mean field": lr.MeanField,
    "markov": lambda: lr.Markov(4),
    "chain": lr.GaussianChain,
    "flow": lambda: lr.Flow(lr.MeanField(), layers=1, hidden_size=4),
    "combiner": lr.Combiner,
    "per sequence": lambda: lr.PerSequence(lr.MeanField()),
}

ENCODERS: dict[str, Callable[[], lr.Encoder | None]] = {
    "bidirectional": lambda: lr.RNNEncoder(3),
    "causal": lambda: lr.RNNEncoder(3, direction="causal"),
    "backward": lambda: lr.RNNEncoder(3, direction="backward"),
    "step": lambda: lr.StepEncoder((4,)),
    "none": lambda: None,
}

OBJECTIVES: dict[str, Callable[[], lr.Objective]] = {
    "elbo": lr.ELBO,
    "landing": lambda: lr.ELBO(sticking_the_landing=True),
    "iwae": lr.IWAE,
    "renyi": lr.Renyi,
    "fivo": lr.FIVO,
}

MISSING = ("none", "none", "some", "channel", "sequence", "most")


def _normal() -> dist.Distribution:
    return dist.Normal(0.0, 1.0)


@dataclass
class Case:
    """Data with the heads that go with them.

    Args:
        data: all sequences.
        observations: one head of the model for every head of the data.
        described: what was drawn, for the report of a failure.
    """

    data: lr.SequenceData
    observations: dict[str, lr.Observation]
    described: dict[str, Any]


@st.composite
def arrays(draw: Any) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """Draw arguments for `from_arrays`, the kind of every head, and what there is to say of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    count = draw(st.integers(1, 5))
    longest = draw(st.integers(1, 7))
    ragged = draw(st.booleans())
    lengths = rng.integers(1, longest + 1, count) if ragged else np.full(count, longest)
    names = ["y", "z"][: draw(st.sampled_from([1, 1, 2]))]
    observations: dict[str, Any] = {}
    options: dict[str, Any] = {"clocks": {}, "per_sequence": [], "totals": {}}
    kinds: dict[str, str] = {}
    said: dict[str, Any] = {"lengths": lengths.tolist()}
    for name in names:
        kinds[name] = draw(st.sampled_from(list(KINDS)))
        kind = KINDS[kinds[name]]
        channels = draw(st.integers(kind.fewest_channels, 3))
        scale = 10.0 ** draw(st.integers(-6, 6)) if kind.scaled and draw(st.booleans()) else 1.0
        shape = draw(st.sampled_from(["step", "step", "step", "slow", "sequence"])) if name == "z" else "step"
        missing = draw(st.sampled_from(MISSING))
        said[name] = (kinds[name], channels, scale, shape, missing)
        if shape == "sequence" and not kind.per_step_only:
            values: Any = scale * kind.draw(rng, (count, channels))
            options["per_sequence"].append(name)
        else:
            clock = 2 if shape == "slow" and longest >= 2 else 1
            if clock == 2:
                options["clocks"][name] = 2
            values = [scale * kind.draw(rng, (int(length) // clock, channels)) for length in lengths]
        total = [part.sum(-1) for part in values] if "ultinomial" in kinds[name] and shape == "step" else None
        if total is not None and missing != "none" and draw(st.booleans()):
            options["totals"][name] = total
        for index, part in enumerate(values):
            if missing == "some":
                part[rng.random(part.shape) < 0.3] = np.nan
            elif missing == "channel":
                part[..., 0] = np.nan
            elif missing == "sequence" and index == 0:
                part[...] = np.nan
            elif missing == "most":
                part[rng.random(part.shape) < 0.9] = np.nan
        observations[name] = values
    options["observations"] = observations
    if draw(st.booleans()):
        size = 10.0 ** draw(st.integers(-4, 4))
        said["covariate"] = size
        options["covariates"] = {"x": [size * rng.normal(size=(int(length), 2)) for length in lengths]}
    clock = draw(st.sampled_from(["none", "dt", "times", "close"]))
    said["time"] = clock
    if clock == "dt":
        options["dt"] = 0.02
    elif clock != "none":
        gap = 0.3 if clock == "times" else 1e-5
        options["times"] = [np.cumsum(rng.uniform(0.1, 1.0, int(length))) * gap for length in lengths]
    options["dtype"] = draw(st.sampled_from([torch.float32, torch.float32, torch.float64]))
    if any(KINDS[kind].scaled for kind in kinds.values()) and draw(st.integers(0, 3)) == 0:
        options["standardise"] = [name for name, kind in kinds.items() if kind in ("Gaussian", "StudentT")]
    return options, kinds, said


@st.composite
def heads(draw: Any, options: dict[str, Any], kinds: dict[str, str], said: dict[str, Any]) -> dict[str, Any]:
    """Draw a head of the model for every head of the data."""
    found = {}
    for name, kind in kinds.items():
        settings: dict[str, Any] = {}
        per_step = name not in options["per_sequence"]
        if draw(st.integers(0, 3)) == 0:
            given = draw(st.sampled_from(["baseline", "weight", "weights"]))
            settings["priors"] = {given: lr.NetworkPrior() if given == "weights" else _normal()}
        if per_step and "covariates" in options:
            extra = draw(st.sampled_from(["none", "none", "gain", "covariates", "both"]))
            if extra in ("gain", "both"):
                settings["gain"] = lr.StimulusGain("x", lags=draw(st.integers(1, 2)), gated=draw(st.booleans()))
            if extra in ("covariates", "both"):
                settings["covariates"] = ["x"]
        if per_step and name not in options["clocks"] and draw(st.integers(0, 4)) == 0:
            settings["feedback"] = lr.History(2, filters=1, into=draw(st.sampled_from(["transition", "readout"])))
        if not per_step:
            settings["pooling"] = draw(st.sampled_from(["last", "mean", "attention"]))
        said[f"head {name}"] = settings
        found[name] = KINDS[kind].make(**settings)
    return found


@st.composite
def cases(draw: Any) -> Case | None:
    """Draw data and heads; None where `from_arrays` refuses the data."""
    options, kinds, said = draw(arrays())
    data = attempt("from_arrays", lambda: lr.SequenceData.from_arrays(**options))
    if isinstance(data, Refused):
        return None
    found = attempt("heads", lambda: draw(heads(options, kinds, said)))
    return None if isinstance(found, Refused) else Case(data, found, said)


@st.composite
def models(draw: Any, case: Case) -> tuple[lr.LatentRNN, lr.Guide] | None:
    """Draw a model and a guide for a case; None where they do not go together."""
    transition, latent = draw(st.sampled_from(list(CELLS))), draw(st.sampled_from(list(LATENTS)))
    if draw(st.integers(0, 2)) == 0:
        transition = "gru"  # most of the others have a loop of their own, and go with fewer latents
    encoder, family = draw(st.sampled_from(list(ENCODERS))), draw(st.sampled_from(list(FAMILIES)))
    if draw(st.booleans()):
        encoder, family = "bidirectional", "mean field"
    if encoder == "none" and latent != "deterministic":
        family = "per sequence"
    parameters = draw(st.sampled_from(["normal", "multivariate", "low_rank", "point"]))
    case.described |= {"model": (transition, latent), "guide": (encoder, family, parameters)}
    model = attempt(
        "LatentRNN",
        lambda: lr.LatentRNN(
            case.data.spec,
            transition=CELLS[transition](),
            latent=LATENTS[latent](),
            observations=case.observations,
        ),
    )
    if isinstance(model, Refused):
        return None
    guide = attempt(
        "Guide",
        lambda: lr.Guide(model, encoder=ENCODERS[encoder](), family=FAMILIES[family](), global_family=parameters),
    )
    return None if isinstance(guide, Refused) else (model, guide)


@st.composite
def fits(draw: Any) -> dict[str, Any]:
    """Draw settings of a fit of a few steps."""
    settings: dict[str, Any] = {
        "seed": draw(st.integers(0, 9)),
        "steps": draw(st.integers(1, 4)),
        "batch_size": draw(st.integers(1, 6)),
        "reporting": lr.Reporting(progress=False),
    }
    objective = lr.ELBO()
    if draw(st.integers(0, 3)) == 0:
        objective = OBJECTIVES[draw(st.sampled_from(list(OBJECTIVES)))]()
    fewest = objective.fewest_particles
    if fewest > 1 or draw(st.integers(0, 2)) == 0:
        objective = dataclasses.replace(objective, num_particles=draw(st.integers(fewest, 3)))
    if draw(st.integers(0, 4)) == 0:
        settings["compute"] = lr.Compute(window=lr.Window(draw(st.integers(1, 4))))
    if draw(st.integers(0, 5)) == 0:
        objective = dataclasses.replace(objective, coordinated_dropout=0.3)
    settings["objective"] = objective
    if draw(st.integers(0, 4)) == 0:
        settings["optimizer"] = lr.AdamW(learning_rate=10.0 ** draw(st.integers(-5, 0)))
    if draw(st.integers(0, 4)) == 0:
        settings["stopping"] = lr.EarlyStopping(every=1, num_particles=draw(st.integers(1, 2)))
    return settings


def frames(data: lr.SequenceData, head: str) -> torch.Tensor | None:
    """Return where a head has frames, (sequence, frame, 1); None for one value per sequence."""
    spec = data.spec.heads[head]
    if not spec.per_step:
        return None
    there = data.lengths // spec.clock
    longest = math.floor(data.num_steps / spec.clock)
    return (torch.arange(longest) < there[:, None])[..., None]
