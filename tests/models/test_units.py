"""A fit is the same whatever units its data, its covariates and its times come in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import latentrnn as lr
from latentrnn.models.component import from_config
from latentrnn.models.features.units import LARGEST_PART, channel_size, channel_units
from latentrnn.models.observations.links import PositiveLink, RealLink

SEQUENCES, STEPS, CHANNELS = 6, 8, 2
TINY, HUGE = 1e-9, 1e9


def real() -> np.ndarray:
    rng = np.random.default_rng(0)
    course = np.sin(np.arange(STEPS) / 2 + rng.uniform(0, 6, (SEQUENCES, 1)))[..., None] * [1.0, 0.5]
    return course + 0.1 * rng.normal(size=course.shape) + [0.3, -2.0]


def positive(zeros: bool = False) -> np.ndarray:
    values = np.exp(real())
    return np.where(np.random.default_rng(1).random(values.shape) < 0.2, 0.0, values) if zeros else values


def fitted(
    head: lr.Observation, values: np.ndarray, covariates: Mapping[str, np.ndarray] | None = None, **options: Any
) -> lr.FitResult:
    transition = options.pop("transition", lr.GRU(4))
    inputs, ingestion = options.pop("inputs", None), options.pop("ingestion", {})
    data = lr.SequenceData.from_arrays({"y": values}, covariates, **ingestion)
    latent = options.pop("latent", None) or lr.Innovations(1, initial=2)
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": head}, inputs=inputs)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), global_family=options.pop("global_family", "normal"))
    return lr.fit(
        model,
        guide,
        data,
        steps=5,
        reporting=lr.Reporting(progress=False, every=1),
        compute=lr.Compute(device="cpu"),
        **options,
    )


def elbos(result: lr.FitResult) -> torch.Tensor:
    assert not result.events
    return torch.tensor(result.history["elbo"], dtype=torch.float64)


REAL: dict[str, Callable[[], lr.Observation]] = {
    "gaussian": lambda: lr.Gaussian(),
    "gaussian full": lambda: lr.Gaussian("full"),
    "gaussian low rank": lambda: lr.Gaussian("low_rank", rank=1),
    "gaussian arcsinh": lambda: lr.Gaussian(link="arcsinh"),
    "gaussian mlp": lambda: lr.Gaussian(readout=lr.MLPReadout(3)),
    "gaussian factors": lambda: lr.Gaussian(readout=lr.FactorReadout(1)),
    "gaussian history": lambda: lr.Gaussian(feedback=lr.History(2, filters=2, into=("transition", "readout"))),
    "student t": lambda: lr.StudentT(),
    "student t arcsinh": lambda: lr.StudentT(link="arcsinh"),
    "volatility": lambda: lr.Volatility(),
    "volatility student": lambda: lr.Volatility("student"),
    "calcium": lambda: lr.Calcium(3.0),
    "calcium drift": lambda: lr.Calcium(3.0, drift=4.0),
}
POSITIVE: dict[str, Callable[[], lr.Observation]] = {
    "log normal": lambda: lr.LogNormal(),
    "gamma": lambda: lr.Gamma(),
    "gamma softplus": lambda: lr.Gamma(link="softplus"),
    "zero-inflated gamma": lambda: lr.ZeroInflatedGamma(),
    "zero-inflated gamma, softplus": lambda: lr.ZeroInflatedGamma("state", link="softplus"),
}


@pytest.mark.parametrize("name", [*REAL, *POSITIVE])
def test_fits_are_the_same_in_any_units(name: str) -> None:
    values = real() if name in REAL else positive(zeros="zero" in name)
    head = {**REAL, **POSITIVE}[name]()
    counted = np.count_nonzero(values) if "zero" in name else values.size  # a point mass at zero has no units
    first = elbos(fitted(head, values))
    assert torch.isfinite(first).all()
    assert len(first) == 5
    for scale in (TINY, 1e-3, 1e3, HUGE) if name == "gaussian" else (TINY, HUGE):
        found = elbos(fitted(head, values * scale)) + counted / SEQUENCES * math.log(scale)
        torch.testing.assert_close(found, first, rtol=0, atol=0.02, msg=f"{name} in units of {1 / scale:g}")


def test_offsets_do_not_matter_either() -> None:
    first, moved = (elbos(fitted(lr.Gaussian(), real() + offset)) for offset in (0.0, 300.0))
    torch.testing.assert_close(first, moved, rtol=0, atol=0.02)


def test_a_fit_in_volts_explains_as_much_as_one_in_standard_units() -> None:
    values = real()
    found = {}
    for scale in (1.0, TINY, HUGE):
        result = fitted(lr.Gaussian(), values * scale)
        data = lr.SequenceData.from_arrays({"y": values * scale})
        error = result.posterior(data).mean("y", 8) - data.observations["y"]
        found[scale] = float((error / scale).square().mean())
    assert found[TINY] == pytest.approx(found[1.0], rel=1e-3)
    assert found[HUGE] == pytest.approx(found[1.0], rel=1e-3)
    assert found[1.0] < 2 * values.var()


TRANSITIONS: dict[str, Callable[[], lr.Transition]] = {
    "gru": lambda: lr.GRU(4),
    "linear": lambda: lr.Linear(3),
    "leaky": lambda: lr.LeakyIntegrator(3),
    "thermodynamic": lambda: lr.ThermodynamicCell(3, width=4),
    "neural ode": lambda: lr.NeuralODE(3, width=4, method="rk4"),
    "modulated forget lstm": lambda: lr.ModulatedForgetLSTM(3),
    "streams": lambda: lr.Streams({"a": lr.GRU(3), "b": lr.Linear(2)}, {"a": "x"}),
    "decay": lambda: lr.Decay(lr.LSTM(3)),
}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_covariates_into_the_transition_may_have_any_units(name: str) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (SEQUENCES, STEPS, CHANNELS)).astype(float)
    x = 400 + np.random.default_rng(1).normal(size=(SEQUENCES, STEPS, 2)) * [1.0, 30.0]
    first = elbos(fitted(lr.Poisson(), counts, {"x": x}, transition=TRANSITIONS[name]()))
    for scale in (TINY, HUGE):
        found = elbos(fitted(lr.Poisson(), counts, {"x": x * scale}, transition=TRANSITIONS[name]()))
        torch.testing.assert_close(found, first, rtol=0, atol=0.02)


HEADS: dict[str, Callable[[], lr.Observation]] = {
    "direct": lambda: lr.Poisson(covariates=["x"]),
    "lags": lambda: lr.Poisson(covariates=[lr.Lags("x", 2)]),
    "gain": lambda: lr.Poisson(gain=lr.StimulusGain("x", lags=2)),
    "ungated gain": lambda: lr.Poisson(gain=lr.StimulusGain("x", gated=False)),
    "attention": lambda: lr.Poisson(readout=lr.ModulatedAttention("x", 2)),
    "source": lambda: lr.Poisson(readout=lr.SourceAttention("x", 2, hidden_size=2)),
}


@pytest.mark.parametrize("name", HEADS)
def test_covariates_into_a_head_may_have_any_units(name: str) -> None:
    counts = np.random.default_rng(0).poisson(1.0, (SEQUENCES, STEPS, CHANNELS)).astype(float)
    x = np.random.default_rng(1).normal(size=(SEQUENCES, STEPS, 2)) + 1.0
    first = elbos(fitted(HEADS[name](), counts, {"x": x}))
    for scale in (TINY, HUGE):
        torch.testing.assert_close(elbos(fitted(HEADS[name](), counts, {"x": x * scale})), first, rtol=0, atol=0.02)


SLOPES = ("y.gain.beta", "y.covariate_weight")


@pytest.mark.parametrize("lags", [1, 2])
@pytest.mark.parametrize("family", [lr.Gaussian, lr.Poisson])
def test_known_slopes_are_those_of_the_data(family: type[lr.Observation], lags: int) -> None:
    rng = np.random.default_rng(0)
    x = 1e3 * rng.normal(size=(3, 40, 1)) + 500
    slopes, level = np.array([2e-3, 1e-3])[:lags], 3.0
    past = np.concatenate([x, np.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]], -1)
    eta = (level + past[..., :lags] @ slopes)[..., None]
    y = 10 + 20 * rng.normal(size=x.shape) if family is lr.Gaussian else rng.poisson(np.exp(eta))
    known = {"covariate_weight": torch.as_tensor(slopes), "weight": 0.0, "baseline": level}
    result = fitted(family(covariates=[lr.Lags("x", lags)], fixed=known), y, {"x": x}, inputs=[])
    head: Any = result.model.observations["y"]
    np.testing.assert_allclose(head.coefficients()["covariate_weight"][0], slopes, rtol=1e-5)
    means = result.posterior(lr.SequenceData.from_arrays({"y": y}, {"x": x}), device="cpu").mean("y", 1)
    np.testing.assert_allclose(means, eta if family is lr.Gaussian else np.exp(eta), rtol=1e-4)


@pytest.mark.parametrize("family", ["normal", "multivariate", "low_rank", "flow", "point"])
def test_priors_stay_in_the_data_s_units_and_fits_scale_with_both(family: str) -> None:
    x = np.random.default_rng(1).normal(size=(SEQUENCES, STEPS, 1)) + 1.0

    def run(unit: float, of_x: float) -> lr.FitResult:
        priors = {"weight": dist.Normal(0.0, unit), "baseline": dist.Normal(-unit, 3 * unit)}
        priors |= {"covariate_weight": dist.Normal(0.0, unit / of_x)}
        gain = lr.StimulusGain("x", priors={"beta": dist.Normal(0.0, unit / of_x)})
        head = lr.Gaussian(priors=priors, gain=gain, covariates=["x"])
        return fitted(head, real() * unit, {"x": x * of_x}, inputs=[], global_family=family)

    first, data = run(1.0, 1.0), real()
    start = first.model.parameter_sites()["y.readout.baseline"][1]
    torch.testing.assert_close(start, torch.as_tensor(data.mean((0, 1))).float(), rtol=1e-5, atol=1e-5)
    for unit, of_x in ((TINY, HUGE), (HUGE, 1e-3)):
        found = run(unit, of_x)
        moved = elbos(found) + data[0].size * math.log(unit)
        if family == "point":  # the density of the parameters has units too
            numbers = {name: value.numel() for name, (_, value) in found.model.parameter_sites().items()}
            moved = moved + sum(numbers.values()) * math.log(unit) / SEQUENCES
            moved = moved - sum(numbers[name] for name in SLOPES) * math.log(of_x) / SEQUENCES
        torch.testing.assert_close(moved, elbos(first), rtol=0, atol=0.05)
        for name, value in found.model.parameter_sites().items():
            factor = unit / of_x if name in SLOPES else unit
            torch.testing.assert_close(value[1] / factor, first.model.parameter_sites()[name][1], rtol=1e-3, atol=1e-4)


def test_populations_scale_with_the_data() -> None:
    found = {}
    for unit in (1.0, TINY):
        shared = lr.Population("level", location=dist.Normal(0.0, unit), scale=dist.HalfNormal(unit))
        result = fitted(lr.Gaussian(priors={"baseline": shared}), real() * unit)
        found[unit] = elbos(result) + STEPS * CHANNELS * math.log(unit)
    torch.testing.assert_close(found[TINY], found[1.0], rtol=0, atol=0.05)


def test_density_of_a_site_is_that_of_its_value_in_the_data_s_units() -> None:
    x = 20 + 5 * np.random.default_rng(1).normal(size=(SEQUENCES, STEPS, 1))
    data = lr.SequenceData.from_arrays({"y": 1e3 * real()}, {"x": x}, dtype=torch.float64)
    priors = {name: dist.Normal(0.0, 1e3) for name in ("weight", "baseline", "covariate_weight")}
    heads = {"y": lr.Gaussian(priors=priors, covariates=["x"])}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads, inputs=[])
    model = lr.fit(
        model, lr.Guide(model), data, steps=1, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    ).model
    weight = torch.tensor([[300.0, -20.0], [5.0, 800.0]], dtype=torch.float64)
    level = torch.tensor([100.0, -2000.0], dtype=torch.float64)
    slope = torch.tensor([[30.0], [-7.0]], dtype=torch.float64)
    values = {"y.readout.weight": weight, "y.readout.baseline": level, "y.covariate_weight": slope}
    with torch.no_grad():
        trace = traced(model, data, values)
    states, _ = model.transition.scan(torch.ones(STEPS, 1, dtype=torch.float64), model.latent.initial_state)
    loc = (states @ weight.mT + level + torch.as_tensor(x) @ slope.mT).detach().numpy()
    noise = model.observations["y"].scale * model.observations["y"].log_noise_scale.exp()
    z = (1e3 * real() - loc) / noise.detach().numpy()
    expected = (-0.5 * z**2 - np.log(noise.detach().numpy()) - 0.5 * np.log(2 * np.pi)).sum((1, 2))
    np.testing.assert_allclose(trace.nodes["y"]["log_prob"].numpy(), expected, rtol=1e-9)


def traced(model: lr.LatentRNN, data: lr.SequenceData, values: dict[str, torch.Tensor]) -> Any:
    trace = poutine.trace(poutine.condition(model, data=values)).get_trace(data)
    trace.compute_log_prob()
    return trace


def test_coefficients_are_those_of_the_data() -> None:
    rng = np.random.default_rng(0)
    x = 20 + 5 * rng.normal(size=(SEQUENCES, STEPS, 2))
    data = lr.SequenceData.from_arrays({"y": 1e3 * real()}, {"x": x}, dtype=torch.float64)
    head = lr.Gaussian(covariates=["x"], gain=lr.StimulusGain("x", gated=False))
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": head})
    model = lr.fit(
        model, lr.Guide(model), data, steps=3, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    ).model
    head, found = model.observations["y"], model.observations["y"].coefficients()
    h = torch.randn(SEQUENCES, STEPS, 3, dtype=torch.float64)
    raw = torch.as_tensor(x)
    written = h @ found["weight"].mT + raw @ found["covariate_weight"].mT + raw @ found["beta"].mT + found["baseline"]
    torch.testing.assert_close(head(h, head.inputs(data)).mean, written)


def test_fits_saved_before_there_were_units_load_with_the_same_numbers(tmp_path: Any) -> None:
    data = lr.SequenceData.from_arrays({"y": real()}, {"x": real()}, times=np.cumsum(np.ones((SEQUENCES, STEPS)), 1))
    heads = {"y": lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)}, gain=lr.StimulusGain("x"))}
    model = lr.LatentRNN(data.spec, transition=lr.NeuralODE(2, 3), latent=lr.Innovations(1), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, gap_input=False))
    later = {"location", "scale", "gap_unit", "unit_y_readout_baseline"}
    state = {k: v for k, v in model.state_dict().items() if k.rpartition(".")[2] not in later}
    assert len(state) < len(model.state_dict())
    other = lr.LatentRNN(data.spec, transition=lr.NeuralODE(2, 3), latent=lr.Innovations(1), observations=heads)
    other.load_state_dict(state)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    state = {k: v for k, v in guide.state_dict().items() if k.rpartition(".")[2] not in later}
    assert len(state) < len(guide.state_dict())
    guide.load_state_dict(state)
    old = guide.encoder.config()
    del old["arguments"]["gap_input"]
    assert from_config(old).gap_input is False  # as it was then, whatever the default is now


def test_a_fit_goes_on_in_the_units_of_the_first() -> None:
    first = fitted(lr.Gaussian(), real())
    data = lr.SequenceData.from_arrays({"y": 50 * real() + 7})
    guide = lr.Guide(first.model, encoder=lr.RNNEncoder(4))
    second = lr.fit(
        first.model,
        guide,
        data,
        steps=2,
        start_from=first,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    torch.testing.assert_close(second.model.observations["y"].scale, first.model.observations["y"].scale)
    assert bool((first.model.observations["y"].scale != 1).all())


def test_units_survive_saving(tmp_path: Any) -> None:
    result = fitted(lr.Gaussian(), 1e6 * real(), {"x": 1e-6 * real()})
    result.save(tmp_path / "fit")
    loaded = lr.load(tmp_path / "fit")
    assert all(torch.equal(v, loaded.model.state_dict()[k]) for k, v in result.model.state_dict().items())
    assert loaded.model.observations["y"].scale.min() > 1e4


# -- starting values ------------------------------------------------------------------------------------------------


class Cubic(RealLink):
    def forward(self, eta: torch.Tensor) -> torch.Tensor:
        return eta**3

    def inverse(self, value: torch.Tensor) -> torch.Tensor:
        return value.sign() * value.abs() ** (1 / 3)


@pytest.mark.parametrize("link", ["identity", "arcsinh", Cubic()])
@pytest.mark.parametrize("level", [0.0, 100.0, -1e9])
@pytest.mark.parametrize("priors", [None, {"baseline": dist.Normal(0.0, 1.0)}])
def test_real_heads_start_finite(link: Any, level: float, priors: Any) -> None:
    values = torch.as_tensor(real() * max(1.0, abs(level) / 100) + level).float()
    for family in (lr.Gaussian, lr.StudentT):
        data = lr.SequenceData.from_arrays({"y": values})
        heads = {"y": family(link=link, priors=priors)}
        model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
        model.initialise(data)
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())
        head = model.observations["y"]
        density = head(torch.zeros(SEQUENCES, STEPS, 2), head.inputs(data)).log_prob(data.observations["y"])
        assert torch.isfinite(density).all()


def test_arcsinh_learns_data_far_from_zero() -> None:
    result = fitted(lr.Gaussian(link="arcsinh"), 100 + real())
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())
    assert result.best_step > 0


def test_a_stimulus_far_from_zero_drives_a_linear_transition() -> None:
    counts = np.random.default_rng(0).poisson(1.0, (SEQUENCES, 40, CHANNELS)).astype(float)
    x = 400 + np.random.default_rng(1).normal(size=(SEQUENCES, 40, 1))
    assert len(elbos(fitted(lr.Poisson(), counts, {"x": x}, transition=lr.Linear(4)))) == 5


@pytest.mark.parametrize("family", [lr.Gamma, lr.ZeroInflatedGamma])
@pytest.mark.parametrize("link", ["exp", "softplus"])
@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 1e30])
def test_positive_heads_start_finite(family: Any, link: str | PositiveLink, scale: float) -> None:
    data = lr.SequenceData.from_arrays({"y": positive() * scale})
    heads = {"y": family(link=link)}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    model.initialise(data)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    head = model.observations["y"]
    mean = head.mean(head(torch.zeros(SEQUENCES, STEPS, 2), head.inputs(data)))
    assert torch.isfinite(mean).all()
    assert (mean > 0).all()


# -- the units themselves -------------------------------------------------------------------------------------------


def test_units_of_channels() -> None:
    values = torch.tensor([[1.0, 5.0, 0.0, 1e20, 0.1], [3.0, 5.0, 0.0, -1e20, 0.1], [9.0, 5.0, 0.0, 0.0, 0.1]])
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[2] = False
    mean, spread = channel_units(values, mask)
    torch.testing.assert_close(mean, torch.tensor([2.0, 5.0, 0.0, 0.0, 0.1]))
    torch.testing.assert_close(spread, torch.tensor([1.0, 5.0, 1.0, 1e20, 0.1]))
    torch.testing.assert_close(channel_size(values, mask), torch.tensor([5.0**0.5, 5.0, 1.0, 1e20, 0.1]))
    nothing = channel_units(values, torch.zeros_like(mask))
    assert nothing[0].tolist() == [0.0] * 5
    assert nothing[1].tolist() == [1.0] * 5


def test_a_transition_of_one_s_own_is_driven_in_the_data_s_units() -> None:
    class Sum(lr.Transition):
        def __init__(self) -> None:
            super().__init__()
            self.state_size = self.hidden_size = 1

        def build(self, input_size: int) -> None:
            self.gain = torch.nn.Parameter(torch.ones(()))

        def step(self, state: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
            return state + self.gain * inputs.sum(-1, keepdim=True)

    data = lr.SequenceData.from_arrays({"y": real()}, {"amps": 400 + real()})
    heads = {"y": lr.Gaussian()}
    for transition, same in ((Sum(), True), (lr.Streams({"own": Sum(), "gru": lr.GRU(2)}), True), (lr.GRU(2), False)):
        model = lr.LatentRNN(data.spec, transition=transition, latent=lr.Deterministic(), observations=heads)
        model.initialise(data)
        assert torch.equal(model.transition_inputs(data), data.covariates["amps"]) is same


# -- units of channels that barely vary, or that were never seen ------------------------------------------------------


def test_a_channel_far_from_zero_has_the_spread_that_it_has() -> None:
    values = (101325 + 0.04 * np.random.default_rng(0).normal(size=(2000, 1))).astype(np.float32)
    _, spread = channel_units(torch.as_tensor(values), torch.ones(2000, 1, dtype=torch.bool))
    np.testing.assert_allclose(spread, values.astype(float).std(0), rtol=1e-6)


@pytest.mark.parametrize("number", [101.3, -0.1, 1e200, 1e-200])
def test_a_constant_s_spread_is_its_distance_from_zero(number: float) -> None:
    count = LARGEST_PART + 5  # more than one part, whose sums make the mean differ from the constant in its last digits
    values = torch.full((count, 1), number, dtype=torch.float64)
    mean, spread = channel_units(values, torch.ones(count, 1, dtype=torch.bool))
    np.testing.assert_allclose(mean, number, rtol=1e-9)
    np.testing.assert_allclose(spread, abs(number), rtol=1e-9)


@pytest.mark.parametrize("readout", [lr.MLPReadout(3), lr.CausalAttention(2)], ids=repr)
def test_coefficients_are_those_of_the_data_whatever_the_readout(readout: lr.Readout) -> None:
    """The mean with a stimulus or covariate less that without it is coefficient times value, exactly."""
    s, x = np.abs(real())[..., :1], 20 + 5 * real()
    covariates = {"s": s, "x": x}
    data = lr.SequenceData.from_arrays({"y": 1000 + 50 * real()}, covariates, dtype=torch.float64)
    head: Any = lr.Gaussian(readout=readout, gain=lr.StimulusGain("s", gated=False), covariates=["x"])
    parts = {"transition": lr.GRU(3), "latent": lr.Deterministic(), "observations": {"y": head}, "inputs": []}
    model = lr.LatentRNN(data.spec, **parts)
    result = lr.fit(
        model, lr.Guide(model), data, steps=1, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    head = result.model.observations["y"]
    with torch.no_grad():
        head.gain.beta.fill_(1.0)
        head.covariate_weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    posterior, found = result.posterior(data), head.coefficients()
    mean = posterior.mean("y", 1)
    nothing = lr.SequenceData.from_arrays({"y": 1000 + 50 * real()}, {"s": 0 * s, "x": 0 * x}, dtype=torch.float64)
    without = result.posterior(nothing).mean("y", 1)
    of_s, of_x = torch.as_tensor(s) @ found["beta"].mT, torch.as_tensor(x) @ found["covariate_weight"].mT
    torch.testing.assert_close(mean - without, of_s + of_x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(posterior.gain("y", 1).beta[0], found["beta"] * 1.0)
    with torch.no_grad():
        states = torch.randn(SEQUENCES, STEPS, 3, dtype=torch.float64)
        by_readout = head.scale * (head.readout(states) - head.readout.baseline)
        torch.testing.assert_close(
            head(states, head.inputs(nothing)).mean - by_readout, found["baseline"] + 0 * by_readout
        )


@pytest.mark.parametrize("ingestion", [{}, {"standardise": {"y": (0.5, 3.0)}}], ids=["raw", "standardised"])
@pytest.mark.parametrize("tails", ["gaussian", "student"])
def test_coefficients_of_a_volatility_are_of_the_log_variance(tails: str, ingestion: dict[str, Any]) -> None:
    data = lr.SequenceData.from_arrays({"y": 0.01 * real()}, dtype=torch.float64, **ingestion)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Volatility(tails)}
    )
    head: Any = lr.fit(
        model, lr.Guide(model), data, steps=1, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    ).model.observations["y"]
    states, found = torch.randn(SEQUENCES, STEPS, 2, dtype=torch.float64), head.coefficients()
    log_variance = head(states, head.inputs(data)).variance.log().detach()
    given = 2 * math.log(3.0 if ingestion else 1.0)  # in units of the scale that `from_arrays` was given
    torch.testing.assert_close(log_variance, states @ found["weight"].mT + found["baseline"] + given)


UNSEEN: dict[str, Callable[[], lr.Observation]] = {
    "gaussian": lambda: lr.Gaussian(),
    "gaussian, full": lambda: lr.Gaussian("full"),
    "gaussian, arcsinh": lambda: lr.Gaussian(link="arcsinh"),
    "student t": lambda: lr.StudentT(),
    "gamma, softplus": lambda: lr.Gamma(link="softplus"),
    "calcium": lambda: lr.Calcium(3.0),
}


@pytest.mark.parametrize("family", UNSEEN)
def test_a_channel_never_seen_starts_at_the_level_and_spread_of_the_others(family: str) -> None:
    values = 300 + 2 * np.random.default_rng(0).normal(size=(4, 30, 3))
    values[..., 2] = np.nan
    data = lr.SequenceData.from_arrays({"y": values}, dt=1.0, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": UNSEEN[family]()}
    ).double()
    model.initialise(data)
    head: Any = model.observations["y"]
    head.readout.weight.data.zero_()
    start = head(torch.zeros(4, 30, 2, dtype=torch.float64), head.inputs(data)).mean[0, 0].detach().numpy()
    np.testing.assert_allclose(start[:2], values[..., :2].mean((0, 1)), rtol=1e-2)
    np.testing.assert_allclose(start[2], start[:2].mean(), rtol=1e-3)
    if hasattr(head, "log_noise_scale"):
        noise = (head.scale * head.log_noise_scale.exp()).detach().numpy()
        np.testing.assert_allclose(noise[2], noise[:2].mean(), rtol=1e-2)
    shown = [part.numpy() for part in (head.history_centre, head.history_scale)]
    shown += [part.numpy() for part in head.encoder_input.centre_and_scale(data.observations["y"], data.masks["y"])]
    for part in shown:
        np.testing.assert_allclose(part[2], part[:2].mean())
