"""Every transition, latent and observation of the package, data for them, and the combinations that tests run over."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from numpy.typing import NDArray
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import biject_to

import latentrnn as lr
from latentrnn.models.component import Component

Array = NDArray[np.float64]
Combination = tuple[str, str, str]
LENGTHS = (6, 3, 5)

TRANSITIONS: dict[str, Callable[[], lr.Transition]] = {
    "vanilla": lambda: lr.VanillaRNN(4),
    "vanilla relu": lambda: lr.VanillaRNN(5, layers=2, nonlinearity="relu"),
    "gru": lambda: lr.GRU(4),
    "gru stacked": lambda: lr.GRU(3, layers=2),
    "lstm": lambda: lr.LSTM(3),
    "lstm stacked": lambda: lr.LSTM(2, layers=2),
    "linear": lambda: lr.Linear(3),
    "gru stacked, layer norm": lambda: lr.GRU(3, layers=2, layer_norm=True),
    "leaky": lambda: lr.LeakyIntegrator(3),
    "leaky average": lambda: lr.LeakyIntegrator(3, average=True),
    "coupled gate lstm": lambda: lr.CoupledGateLSTM(3),
    "modulated forget lstm": lambda: lr.ModulatedForgetLSTM(3),
    "gated": lambda: lr.GatedTransition(3, width=4),
    "min gru": lambda: lr.MinGRU(3),
    "diagonal linear": lambda: lr.DiagonalLinear(4),
    "switching": lambda: lr.SwitchingLinear(3, 2),
    "switching sigmoid": lambda: lr.SwitchingLinear(3, 2, weights="sigmoid", switch="state"),
    "switching given": lambda: lr.SwitchingLinear(3, 2, switch="given"),
    "thermodynamic": lambda: lr.ThermodynamicCell(3, width=4),
    "decay": lambda: lr.Decay(lr.GRU(3, layers=2)),
    "decay, timed": lambda: lr.Decay(lr.LeakyIntegrator(3), tau=0.1, learned=False),
    "neural ode": lambda: lr.NeuralODE(3, width=4, method="rk4"),
    "streams": lambda: lr.Streams({"first": lr.GRU(3), "second": lr.VanillaRNN(2)}, {"second": ["drive"]}),
    "streams, timed": lambda: lr.Streams(
        {"first": lr.LSTM(2), "second": lr.NeuralODE(2, width=4, method="rk4"), "idle": lr.MinGRU(2)},
        {"first": [lr.Lags("stimulus", 2)]},
        common=["second"],
    ),
}

LATENTS: dict[str, Callable[[], lr.Latent]] = {
    "deterministic": lambda: lr.Deterministic(),
    "initial state": lambda: lr.InitialState(2),
    "initial state, learned": lambda: lr.InitialState(2, prior="learned"),
    "innovations": lambda: lr.Innovations(2),
    "innovations with initial": lambda: lr.Innovations(2, initial=3),
    "innovations ar1": lambda: lr.Innovations(2, initial=2, prior="ar1"),
    "innovations student t": lambda: lr.Innovations(2, prior="student_t"),
    "innovations matern": lambda: lr.Innovations(2, initial=2, prior="matern32"),
    "markov normal": lambda: lr.MarkovNormal(),
    "markov normal, state scale": lambda: lr.MarkovNormal(scale="state"),
    "recurrent normal": lambda: lr.RecurrentNormal(2, initial=2),
    "relaxed discrete": lambda: lr.RelaxedDiscrete(2, initial=2),
    "relaxed discrete, 3 states": lambda: lr.RelaxedDiscrete(3, 0.7),
}

UNBOUNDED = ("linear", "leaky", "diagonal linear", "switching", "switching sigmoid", "switching given", "gated")
FEATURES: dict[str, Callable[[], lr.Feature]] = {
    "lags": lambda: lr.Lags("drive", 3),
    "lags ahead": lambda: lr.Lags("stimulus", 2, future=2),
    "one-hot": lambda: lr.OneHot("symbol", 3),
    "embedding": lambda: lr.Embedding("symbol", 3, 2),
    "convolution": lambda: lr.Convolution(["drive", "stimulus"], 2, widths=(2, 3), dilations=(1, 2), activation="tanh"),
    "convolution, centred": lambda: lr.Convolution(
        lr.OneHot("symbol", 3), 2, widths=3, causal=False, activation="tanh"
    ),
    "bidirectional": lambda: lr.BidirectionalRNN(["drive", lr.Embedding("symbol", 3, 2)], 2),
}

DEFAULTS = ("gru", "innovations", "poisson")


@dataclass(frozen=True)
class Heads:
    """Observation heads and how to draw data for them.

    Args:
        observations: makes the heads.
        draw: head name to `(rng, frames) -> values` of one sequence.
        options: for `SequenceData.from_arrays`.
        missing: heads some of whose entries are missing.
        totals: give the sum over channels of `y` at every step.
        feeds_transition: feedback enters the transition, which a Markov latent cannot take.
        irregular: steps at times of their own.
        inputs: makes what drives the transition; by default every covariate that no gain claims.
        transition: the one transition that the heads go with, where there is only one.
        source: there is a covariate `source_step`, 1 where there is a step of a source sequence.
    """

    observations: Callable[[], dict[str, lr.Observation]]
    draw: Mapping[str, Callable[[np.random.Generator, int], Array]]
    options: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    totals: bool = False
    feeds_transition: bool = False
    irregular: bool = False
    inputs: Callable[[], list[str | lr.Feature] | None] = lambda: None
    transition: str | None = None
    source: bool = False


def counts(channels: int, mean: float = 1.3) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, steps: rng.poisson(mean, (steps, channels)).astype(float)


def reals(channels: int, loc: float = 0.0, scale: float = 1.0) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, steps: rng.normal(loc, scale, (steps, channels))


def codes(channels: int, classes: int) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, steps: rng.integers(0, classes, (steps, channels)).astype(float)


def positives(channels: int, zeros: float = 0.0) -> Callable[[np.random.Generator, int], Array]:
    """Gamma-distributed values, some of them replaced by zero."""
    return lambda rng, steps: rng.gamma(2.0, 1.0, (steps, channels)) * (rng.random((steps, channels)) >= zeros)


def events(channels: int, hazard: float = 0.2) -> Callable[[np.random.Generator, int], Array]:
    """Zeros, a one where the event happens, and nothing after it."""

    def draw(rng: np.random.Generator, steps: int) -> Array:
        drawn = rng.random((steps, channels)) < hazard
        return np.where(np.cumsum(drawn, 0) - drawn > 0, np.nan, drawn)

    return draw


def normal() -> dist.Distribution:
    return dist.Normal(0.0, 1.0)


def _several() -> dict[str, lr.Observation]:
    return {
        "y": lr.Poisson(covariates=["drive"]),
        "slow": lr.Gaussian(),
        "label": lr.Bernoulli(pooling="mean"),
    }


def _readouts() -> dict[str, lr.Observation]:
    return {
        "mlp": lr.Gaussian(readout=lr.MLPReadout(3, layers=2)),
        "factor": lr.Poisson(readout=lr.FactorReadout(2, priors={"loading": normal()})),
        "causal": lr.Poisson(readout=lr.CausalAttention(4, heads=2)),
        "windowed": lr.Gaussian(readout=lr.WindowedAttention(3, 2), covariates=[lr.Lags("drive", 2)]),
        "modulated": lr.Bernoulli(readout=lr.ModulatedAttention(["stimulus"], 2)),
    }


OBSERVATIONS: dict[str, Heads] = {
    "gaussian": Heads(lambda: {"y": lr.Gaussian()}, {"y": reals(2)}),
    "gaussian standardised": Heads(
        lambda: {"y": lr.Gaussian(covariates=["drive"])}, {"y": reals(2, 1000.0, 50.0)}, {"standardise": ["y", "drive"]}
    ),
    "gaussian full": Heads(lambda: {"y": lr.Gaussian(covariance="full")}, {"y": reals(3)}),
    "gaussian full, missing": Heads(lambda: {"y": lr.Gaussian("full")}, {"y": reals(3)}, missing=("y",)),
    "gaussian priors": Heads(
        lambda: {"y": lr.Gaussian(priors={"weight": normal(), "baseline": normal()})}, {"y": reals(2)}
    ),
    "gaussian population": Heads(
        lambda: {"y": lr.Gaussian(priors={"weight": lr.Population("weights"), "baseline": normal()})}, {"y": reals(2)}
    ),
    "gaussian irregular": Heads(
        lambda: {"y": lr.Gaussian()},
        {"y": reals(2)},
        missing=("y",),
        irregular=True,
        inputs=lambda: ["drive", "stimulus", lr.Gap()],
    ),
    "gaussian history": Heads(
        lambda: {"y": lr.Gaussian(feedback=lr.History(3, filters=2, into=("transition", "readout")))},
        {"y": reals(2)},
        missing=("y",),
        feeds_transition=True,
    ),
    "poisson": Heads(lambda: {"y": lr.Poisson()}, {"y": counts(3)}),
    "poisson softplus, missing": Heads(lambda: {"y": lr.Poisson(link="softplus")}, {"y": counts(2)}, missing=("y",)),
    "poisson gain": Heads(lambda: {"y": lr.Poisson(gain=lr.StimulusGain("stimulus", lags=2))}, {"y": counts(2)}),
    "poisson gain, prior": Heads(
        lambda: {"y": lr.Poisson(gain=lr.StimulusGain("stimulus", priors={"beta": normal()}))}, {"y": counts(2)}
    ),
    "poisson gain, ungated": Heads(
        lambda: {"y": lr.Poisson(gain=lr.StimulusGain("stimulus", gated=False))}, {"y": counts(2)}
    ),
    "poisson history": Heads(
        lambda: {"y": lr.Poisson(feedback=lr.History(3, filters=2))}, {"y": counts(2, 0.7)}, feeds_transition=True
    ),
    "poisson history into readout": Heads(
        lambda: {"y": lr.Poisson(feedback=lr.History(2, filters=2, into="readout"))}, {"y": counts(2, 0.7)}
    ),
    "poisson covariates": Heads(lambda: {"y": lr.Poisson(covariates=["drive", "stimulus"])}, {"y": counts(2)}),
    "bernoulli, missing": Heads(lambda: {"y": lr.Bernoulli()}, {"y": codes(2, 2)}, missing=("y",)),
    "bernoulli history": Heads(
        lambda: {"y": lr.Bernoulli(feedback=lr.History(2, filters=1, into="readout"))}, {"y": codes(2, 2)}
    ),
    "binary words": Heads(lambda: {"y": lr.AutoregressiveBernoulli(units=3)}, {"y": codes(3, 2)}),
    "binary words, driven": Heads(
        lambda: {"y": lr.AutoregressiveBernoulli(units=3, driven_units=True)}, {"y": codes(3, 2)}
    ),
    "binary words history": Heads(
        lambda: {"y": lr.AutoregressiveBernoulli(feedback=lr.History(2, filters=1))},
        {"y": codes(2, 2)},
        feeds_transition=True,
    ),
    "categorical, missing": Heads(lambda: {"y": lr.Categorical(3)}, {"y": codes(2, 3)}, missing=("y",)),
    "categorical history": Heads(
        lambda: {"y": lr.Categorical(3, feedback=lr.History(2, filters=1))}, {"y": codes(1, 3)}, feeds_transition=True
    ),
    "student t, missing": Heads(lambda: {"y": lr.StudentT()}, {"y": reals(2)}, missing=("y",)),
    "volatility student": Heads(lambda: {"y": lr.Volatility(tails="student")}, {"y": reals(2)}, missing=("y",)),
    "log-normal, missing": Heads(lambda: {"y": lr.LogNormal()}, {"y": positives(2)}, missing=("y",)),
    "gamma, missing": Heads(lambda: {"y": lr.Gamma()}, {"y": positives(2)}, missing=("y",)),
    "zero-inflated gamma": Heads(lambda: {"y": lr.ZeroInflatedGamma()}, {"y": positives(2, 0.4)}, missing=("y",)),
    "zero-inflated poisson, state": Heads(
        lambda: {"y": lr.ZeroInflatedPoisson(zeros="state", covariates=["drive"])}, {"y": counts(2, 0.7)}
    ),
    "negative binomial history": Heads(
        lambda: {"y": lr.NegativeBinomial(feedback=lr.History(2, filters=1, into="readout"))}, {"y": counts(2)}
    ),
    "binomial totals, missing": Heads(lambda: {"y": lr.Binomial([1, 4])}, {"y": codes(2, 2)}, missing=("y",)),
    "beta-binomial": Heads(lambda: {"y": lr.BetaBinomial(5, link="cloglog")}, {"y": codes(2, 6)}, missing=("y",)),
    "ordered, missing": Heads(lambda: {"y": lr.OrderedLogistic(4)}, {"y": codes(2, 4)}, missing=("y",)),
    "gaussian low rank, missing": Heads(
        lambda: {"y": lr.Gaussian(covariance="low_rank", rank=1)}, {"y": reals(3)}, missing=("y",)
    ),
    "dirichlet-multinomial totals": Heads(lambda: {"y": lr.DirichletMultinomial()}, {"y": counts(3)}, totals=True),
    "dirichlet-multinomial, missing": Heads(lambda: {"y": lr.DirichletMultinomial()}, {"y": counts(3)}, missing=("y",)),
    "hazard, missing": Heads(lambda: {"y": lr.DiscreteHazard(link="cloglog")}, {"y": events(2)}, missing=("y",)),
    "calcium": Heads(
        lambda: {"y": lr.Calcium(0.1, 0.03, kernel="ar2", drift=0.05)}, {"y": reals(2)}, {"clocks": {"y": 2}}, ("y",)
    ),
    "calcium and spikes": Heads(
        lambda: {
            "y": lr.Calcium(0.1, 0.02, kernel="double_exponential", events="spikes", response="arcsinh"),
            "spikes": lr.Poisson(covariates=["drive"]),
        },
        {"y": reals(2), "spikes": counts(2)},
        {"standardise": ["y"]},
        ("y", "spikes"),
    ),
    "multinomial totals": Heads(lambda: {"y": lr.Multinomial()}, {"y": counts(3)}, totals=True),
    "multinomial, missing": Heads(lambda: {"y": lr.Multinomial()}, {"y": counts(3)}, missing=("y",)),
    "clocked": Heads(lambda: {"y": lr.Gaussian()}, {"y": reals(2)}, {"clocks": {"y": 2}}, missing=("y",)),
    "per sequence": Heads(lambda: {"y": lr.Categorical(3)}, {"y": codes(1, 3)}, {"per_sequence": ["y"]}),
    "per sequence, attention": Heads(
        lambda: {"y": lr.Bernoulli(pooling="attention")}, {"y": codes(2, 2)}, {"per_sequence": ["y"]}
    ),
    "readouts": Heads(
        _readouts,
        {"mlp": reals(2), "factor": counts(3), "causal": counts(2), "windowed": reals(1), "modulated": codes(1, 2)},
        {"clocks": {"causal": 2}},
    ),
    "attention, fed back": Heads(
        lambda: {
            "y": lr.Poisson(readout=lr.CausalAttention(2), feedback=lr.History(2, filters=1)),
            "other": lr.Gaussian(readout=lr.WindowedAttention(2, 2), feedback=lr.History(2, filters=1, into="readout")),
        },
        {"y": counts(2, 0.7), "other": reals(1)},
        feeds_transition=True,
    ),
    "cross attention": Heads(
        lambda: {
            "y": lr.Poisson(readout=lr.CrossAttention("second", "first", 4, heads=2)),
            "other": lr.Gaussian(readout=lr.CrossAttention("first", "second", 2), feedback=lr.History(2, filters=1)),
        },
        {"y": counts(2), "other": reals(1)},
        {"clocks": {"y": 2}},
        missing=("y",),
        feeds_transition=True,
        transition="streams",
    ),
    "source attention": Heads(
        lambda: {
            "y": lr.Gaussian(readout=lr.SourceAttention("stimulus", 4, heads=2, hidden_size=2, valid="source_step")),
            "other": lr.Poisson(
                readout=lr.SourceAttention([lr.Lags("drive", 2)], 2, hidden_size=2),
                feedback=lr.History(2, filters=1, into="readout"),
            ),
        },
        {"y": reals(2), "other": counts(1, 0.7)},
        {"clocks": {"y": 2}},
        missing=("y",),
        source=True,
    ),
    "features": Heads(
        lambda: {"y": lr.Gaussian()}, {"y": reals(2)}, inputs=lambda: [make() for make in FEATURES.values()]
    ),
    "several": Heads(
        _several,
        {"y": counts(2), "slow": reals(2), "label": codes(1, 2)},
        {"clocks": {"slow": 2}, "per_sequence": ["label"]},
        missing=("y",),
    ),
}


def make_data(
    heads: Heads, lengths: tuple[int, ...] = LENGTHS, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> lr.SequenceData:
    """Random data for these heads, with the covariates `drive` (1 feature) and `stimulus` (2 features)."""
    rng = np.random.default_rng(seed)
    clocks, per_sequence = heads.options.get("clocks", {}), heads.options.get("per_sequence", ())
    observations: dict[str, Any] = {}
    for name, draw in heads.draw.items():
        drawn = [draw(rng, 1 if name in per_sequence else steps // clocks.get(name, 1)) for steps in lengths]
        if name in heads.missing:
            for values in drawn:
                values[rng.random(values.shape) < 0.25] = np.nan
        observations[name] = np.concatenate(drawn) if name in per_sequence else drawn
    covariates = {
        "drive": [rng.normal(2.0, 1.0, (steps, 1)) for steps in lengths],
        "stimulus": [rng.normal(size=(steps, 2)) for steps in lengths],
    }
    if heads.inputs() is not None:
        covariates["symbol"] = [rng.integers(0, 3, (steps, 1)).astype(float) for steps in lengths]
    if heads.source:
        covariates["source_step"] = [(rng.random((steps, 1)) < 0.7).astype(float) for steps in lengths]
    options = dict(heads.options)
    if heads.irregular:
        options["times"] = [np.cumsum(rng.uniform(0.01, 0.3, steps)) for steps in lengths]
    else:
        options["dt"] = 0.02
    if heads.totals:
        options["totals"] = {"y": [values.sum(-1) for values in observations["y"]]}
    return lr.SequenceData.from_arrays(observations, covariates, dtype=dtype, **options)


def fits_together(transition: str, latent: str, observation: str) -> bool:
    """Whether the parts make a model; `LatentRNN` refuses the others."""
    if GIVEN_WEIGHTS[transition] not in (0, SWITCH_SIZE[latent]):
        return False
    if OBSERVATIONS[observation].transition not in (None, transition):
        return False
    if latent.startswith("recurrent"):
        return not OBSERVATIONS[observation].feeds_transition
    if not latent.startswith("markov"):
        return True
    return WHOLE_STATE_SEEN[transition] and not OBSERVATIONS[observation].feeds_transition


# a Markov latent draws the whole state, so there can be no cell or layer that readouts do not see
WHOLE_STATE_SEEN = {name: (t := make()).state_size == t.hidden_size for name, make in TRANSITIONS.items()}

# a transition whose regimes a switch of the latent's mixes needs one of that size
GIVEN_WEIGHTS = {name: make().given_weights for name, make in TRANSITIONS.items()}
SWITCH_SIZE = {name: make().switch_size for name, make in LATENTS.items()}


def default_transition(observation: str) -> str:
    """The transition with which to try heads where nothing else is said."""
    return OBSERVATIONS[observation].transition or DEFAULTS[0]


def each_against_defaults() -> list[Combination]:
    """Every part with the default of the other two kinds (a transition that needs another latent, with the first)."""
    transition, latent, observation = DEFAULTS
    found = [(name, latent_for(name, observation, latent), observation) for name in TRANSITIONS]
    found += [(transition, name, observation) for name in LATENTS]
    found += [(default_transition(name), latent, name) for name in OBSERVATIONS]
    return list(dict.fromkeys(found))


def latent_for(transition: str, observation: str, wanted: str) -> str:
    """The latent that is wanted, or, where it does not go with the transition, the first that does."""
    return next(name for name in (wanted, *LATENTS) if fits_together(transition, name, observation))


def possible_combinations() -> list[Combination]:
    return [c for c in itertools.product(TRANSITIONS, LATENTS, OBSERVATIONS) if fits_together(*c)]


def ways(heads: Heads) -> frozenset[str]:
    """All by which heads can meet a transition or a latent: reading, feedback, clocks, drives, but not the family."""
    observations = heads.observations()
    parts = [
        part for head in observations.values() for part in head.arguments().values() if isinstance(part, Component)
    ]
    found = {type(part).__name__ for part in parts}
    found |= {type(observations[name].pooling).__name__ for name in heads.options.get("per_sequence", ())}
    found |= {"priors"} if any(part.settled() for part in (*observations.values(), *parts)) else set()
    found |= {"inputs"} if heads.inputs() is not None else set()
    found |= {"several heads"} if len(observations) > 1 else set()
    found |= {name for name in ("missing", "totals", "feeds_transition", "irregular", "source") if getattr(heads, name)}
    return frozenset(found | set(heads.options))


WAYS = {name: ways(heads) for name, heads in OBSERVATIONS.items()}

# What a combination of parts tries together, by kind.
TRIES: dict[str, Callable[[Combination], set[tuple[str, ...]]]] = {
    "transition, latent": lambda c: {(c[0], c[1])},
    "latent, heads": lambda c: {(c[1], c[2])},
    "transition, way": lambda c: {(c[0], way) for way in WAYS[c[2]]},
    "latent, way": lambda c: {(c[1], way) for way in WAYS[c[2]]},
    "heads": lambda c: {(c[2],)},
}
Kinds = tuple[str, ...]
FAMILIES: Kinds = ("transition, latent", "latent, heads", "transition, way")
MEETINGS: Kinds = ("transition, latent", "transition, way", "latent, way", "heads")
PRIORS: Kinds = ("latent, heads", "transition, way")


def tries(kinds: Kinds, combination: Combination) -> set[tuple[str, ...]]:
    """What a combination tries of these kinds."""
    return {(kind, *pair) for kind in kinds for pair in TRIES[kind](combination)}


def covering_array(
    kinds: Kinds,
    suits: Callable[[Combination], bool] = lambda _: True,
    *,
    among: Sequence[Combination] = (),
) -> list[Combination]:
    """Every part among defaults, then combinations until all pairs of these kinds that fit together have occurred.

    Args:
        kinds: of pairs.
        suits: which combinations may be taken.
        among: another array, from which to take what can be taken, so that one model serves the properties of both.

    They are chosen greedily, each for the most pairs that it adds (pairwise testing).

    Faults come from one part, or from two that meet. A latent meets the transition, whose input or state it is. Heads
    see states alone, whichever transition and latent made them, and meet both only in their ways: how they read and
    pool, what they feed back, their clocks and drives. A family meets the latent besides where the shapes of batches
    and particles are made. So every property that is tested names the kinds of pairs that it can depend on, and is
    tried on as few combinations as have them all. Pairs of a transition and a family are of no kind; but among
    combinations that add as many pairs, one comes first in which these two have not met.
    """
    pairs = {c: tries(kinds, c) for c in possible_combinations() if suits(c)}
    chosen = [c for c in each_against_defaults() if suits(c)]
    wanted = set().union(*pairs.values()).difference(*(pairs[c] for c in chosen))
    met = {c[::2] for c in chosen}
    for possible in ([c for c in pairs if c in set(among)], list(pairs)):
        # what a combination would add only ever shrinks, so that only those at the top need another look
        heap = [((-len(pairs[c]), -1), index) for index, c in enumerate(possible)]
        heapq.heapify(heap)
        while wanted and heap:
            stale, index = heapq.heappop(heap)
            combination = possible[index]
            fresh = -len(pairs[combination] & wanted), -(combination[::2] not in met)
            if fresh > stale and fresh[0]:
                heapq.heappush(heap, (fresh, index))
            elif fresh[0]:
                chosen.append(combination)
                wanted -= pairs[combination]
                met.add(combination[::2])
    return chosen


def each_of(combinations: Sequence[Combination]) -> pytest.MarkDecorator:
    """The parameter `parts` of a test, over an array: parts among defaults are fast, the others slow."""
    fast = set(each_against_defaults())
    marks = {c: [] if c in fast else [pytest.mark.slow] for c in combinations}
    return pytest.mark.parametrize("parts", [pytest.param(c, id="-".join(c), marks=marks[c]) for c in marks])


def check_each(properties: Mapping[str, Callable[[], None]]) -> None:
    """Check all properties of what was built once, and say by name which of them do not hold.

    Raises:
        ExceptionGroup: of the errors of those that do not.
    """
    errors = []
    for name, check in properties.items():
        try:
            check()
        except Exception as error:
            error.add_note(f"property: {name}")
            errors.append(error)
    if errors:
        raise ExceptionGroup("properties that do not hold", errors)


def make_model(
    transition: str,
    latent: str,
    observation: str,
    data: lr.SequenceData,
    *,
    direction: str = "bidirectional",
    family: lr.Family | None = None,
    global_family: str = "normal",
) -> tuple[lr.LatentRNN, lr.Guide]:
    """The model and guide of a combination in the data's precision, all weights random but moderate."""
    model = lr.LatentRNN(
        data.spec,
        transition=TRANSITIONS[transition](),
        latent=LATENTS[latent](),
        observations=OBSERVATIONS[observation].observations(),
        inputs=OBSERVATIONS[observation].inputs(),
    )
    encoder = lr.RNNEncoder(3, direction=direction, mask_input=True)
    guide = lr.Guide(model, encoder=encoder, family=family, global_family=global_family)
    for name, head in model.observations.items():
        head.initialise(data.observations[name], data.masks[name])
    guide.initialise(model, data)
    model.to(data.dtype), guide.to(data.dtype)
    for module in (model, guide):
        shake(module)
    for head in model.observations.values():  # counts that feed back run away where their filters are strong
        if head.feedback is not None and "readout" in head.feedback.into:
            head.feedback.own.detach().mul_(0.3)
    if transition in UNBOUNDED:  # nothing bounds its states: an unstable one leaves no digits to compare
        for parameter in model.transition.parameters():
            parameter.detach().mul_(0.15)
    if transition == "vanilla relu":  # units that are never active have no gradient, rightly
        for name, parameter in model.transition.named_parameters():
            if "bias" in name:
                parameter.detach().abs_().add_(0.3)
    return model, guide


def shake(module: nn.Module, scale: float = 0.3) -> None:
    """Move every weight a little, so that nothing is zero by its starting value."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


class Fixed(Messenger):
    """Gives the named sites these values, as if they had been drawn."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True


def fixed_latents(model: lr.LatentRNN, data: lr.SequenceData) -> dict[str, Tensor]:
    """Random values of every local latent and every parameter with a prior."""
    values = {
        name: (free := biject_to(prior.support))(0.5 * torch.randn(free.inverse_shape(start.shape), dtype=start.dtype))
        for name, (prior, start) in model.parameter_sites().items()
    }
    for site in model.latent_sites():
        shape = (len(data), data.num_steps, site.dim) if site.along_time else (len(data), site.dim)
        values[site.name] = torch.randn(shape, dtype=data.dtype)
    return values


def rows(model: lr.LatentRNN, values: Mapping[str, Tensor], chosen: list[int], steps: int) -> dict[str, Tensor]:
    """The latents of some sequences, cut to a number of steps; parameters stay."""
    out = dict(values)
    for site in model.latent_sites():
        out[site.name] = values[site.name][chosen, :steps] if site.along_time else values[site.name][chosen]
    return out
