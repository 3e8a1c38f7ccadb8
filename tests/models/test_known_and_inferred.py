"""Known, learned and inferred numbers, against densities written out by hand, and what a fit leaves of them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from numpy.typing import NDArray
from pyro import poutine
from scipy import stats
from torch import Tensor, nn

import latentrnn as lr
from tests.registry import Fixed

Array = NDArray[np.float64]
DT, STEPS = 0.02, 7
QUIET = lr.Reporting(progress=False)


def drive_and_response(dtype: torch.dtype = torch.float64) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, STEPS, 1)), rng.normal(size=(4, STEPS, 2))
    noise = rng.uniform(0.5, 2.0, size=(4, STEPS, 1))
    return lr.SequenceData.from_arrays({"y": y}, {"x": x, "noise": noise}, dt=DT, dtype=dtype)


def memory(data: lr.SequenceData, head: lr.Observation, **shared: Any) -> lr.LatentRNN:
    transition = lr.LeakyIntegrator(1, **shared)
    model = lr.LatentRNN(
        data.spec, transition=transition, latent=lr.Deterministic(), observations={"y": head}, inputs="x"
    )
    return model.to(data.dtype)


def leaky(x: Array, tau: float, weight: float) -> Array:
    h, states = np.zeros(len(x)), []
    for t in range(STEPS):
        h = np.exp(-DT / tau) * h + weight * x[:, t, 0]
        states.append(h)
    return np.stack(states, 1)[..., None]


def test_the_density_of_a_memory_is_the_one_written_out() -> None:
    """log p(tau) + log p(w) + log p(C) + log p(sigma) + sum log Normal(y; C h + d, sigma), by NumPy and SciPy."""
    data = drive_and_response()
    head = lr.Gaussian(
        priors={"scale": dist.HalfNormal(2.0), "weight": dist.Normal(0.0, 1.0)}, fixed={"baseline": [0.25, -0.5]}
    )
    priors = {"time_constant": dist.LogNormal(-2.0, 0.5), "input_weight": dist.Normal(0.0, 2.0)}
    model = memory(data, head, priors=priors)
    double = lambda *values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    values = {
        "transition.time_constant": double(0.1),
        "transition.input_weight": double(1.7).reshape(1, 1),
        "y.scale": double(0.7, 1.3),
        "y.readout.weight": double(0.4, -0.9).reshape(2, 1),
    }
    with Fixed(values), torch.no_grad():
        found = float(poutine.trace(model).get_trace(data).log_prob_sum())
    h = leaky(data.covariates["x"].numpy(), 0.1, 1.7)
    loc = h * np.array([0.4, -0.9]) + np.array([0.25, -0.5])
    expected = stats.norm(loc, [0.7, 1.3]).logpdf(data.observations["y"].numpy()).sum()
    expected += stats.lognorm(s=0.5, scale=np.exp(-2.0)).logpdf(0.1) + stats.norm(0, 2).logpdf(1.7)
    expected += stats.halfnorm(scale=2.0).logpdf([0.7, 1.3]).sum() + stats.norm(0, 1).logpdf([0.4, -0.9]).sum()
    # arguments of priors are stored in single precision
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize(("name", "value"), [("time_constant", 0.1), ("persistence", float(np.exp(-DT / 0.1)))])
def test_two_names_of_one_number_say_the_same(name: str, value: float) -> None:
    data = drive_and_response()
    latent = lr.Innovations(1, prior="ar1", fixed={name: value, "scale": 0.5})
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=latent, observations=heads).double()
    torch.testing.assert_close(float(model.latent.time_constant), 0.1)
    torch.testing.assert_close(float(model.latent.scale), 0.5)


def test_known_values_stay_known_through_a_fit() -> None:
    """Whatever is learned around them, and whatever units the fit works in."""
    data = drive_and_response(torch.float32)
    shifted = lr.SequenceData.from_arrays(
        {"y": 100 + 50 * data.observations["y"].numpy()}, {"x": data.covariates["x"].numpy()}, dt=DT
    )
    fixed = {"scale": [40.0, 60.0], "baseline": [100.0, 90.0], "weight": [[25.0], [10.0]]}
    model = memory(shifted, lr.Gaussian(fixed=fixed), fixed={"time_constant": 0.1})
    result = lr.fit(model, lr.Guide(model), shifted, steps=3, seed=0, reporting=QUIET)
    fitted = result.model
    assert [name for name, _ in fitted.named_parameters()] == ["transition.input_weight", "latent.initial_state"]
    torch.testing.assert_close(fitted.transition.time_constant, torch.tensor([0.1]))
    coefficients = fitted.observations["y"].coefficients()
    torch.testing.assert_close(coefficients["baseline"], torch.tensor([100.0, 90.0]))
    torch.testing.assert_close(coefficients["weight"], torch.tensor([[25.0], [10.0]]))
    covariance = fitted.observations["y"].noise_covariance
    torch.testing.assert_close(covariance.diagonal().sqrt(), torch.tensor([40.0, 60.0]))


@pytest.mark.parametrize(("fixed", "standard"), [({"weight": 0.5}, False), ({}, True)])
def test_known_weights_mean_what_they_say_of_inputs_in_any_unit(fixed: dict[str, float], standard: bool) -> None:
    """A fit standardises what drives a transition, unless its numbers are given: they are per unit of the data."""
    data = drive_and_response(torch.float32)
    heads = {"y": lr.Gaussian()}
    large = lr.SequenceData.from_arrays({"y": data.observations["y"].numpy()}, {"x": 7 + 1e3 * np.ones((4, STEPS, 1))})
    model = lr.LatentRNN(
        large.spec, transition=lr.Linear(1, fixed=fixed), latent=lr.Deterministic(), observations=heads
    )
    model.initialise(large)
    torch.testing.assert_close(model.transition_inputs(large), torch.full((4, STEPS, 1), 0.0 if standard else 1007.0))


@pytest.mark.parametrize("double", [False, True])
def test_a_covariate_tells_the_noise_of_every_step(double: bool) -> None:
    data = drive_and_response(torch.float64 if double else torch.float32)
    model = memory(data, lr.Gaussian(fixed={"scale": "noise"}), fixed={"time_constant": 0.1})
    assert model.inputs == ["x"]
    with torch.no_grad():
        density = poutine.trace(model).get_trace(data).nodes["y"]
        found = density["fn"].log_prob(density["value"])
    weight, head = float(model.transition.input_weight.detach()), model.observations["y"]
    loc = leaky(data.covariates["x"].numpy(), 0.1, weight) * head.readout.weight.detach().numpy()[:, 0]
    loc = loc + head.readout.baseline.detach().numpy()
    expected = stats.norm(loc, data.covariates["noise"].numpy()).logpdf(data.observations["y"].numpy()).sum((1, 2))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5 if not double else 1e-10)


def test_a_population_of_positive_numbers_is_normal_in_their_logarithms() -> None:
    data = drive_and_response()
    population = lr.Population("noises", location=dist.Normal(0.0, 1.0), scale=dist.HalfNormal(1.0))
    model = memory(data, lr.Gaussian(priors={"scale": population}))
    values = {"noises.location": -0.3, "noises.scale": 0.6}
    scales = torch.tensor([0.7, 1.3], dtype=torch.float64)
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()} | {"y.scale": scales}
    with Fixed(given):
        node = poutine.trace(model).get_trace(data).nodes["y.scale"]
    found = float(node["fn"].log_prob(node["value"]))
    expected = stats.lognorm(s=0.6, scale=np.exp(-0.3)).logpdf(scales.numpy()).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_priors_may_differ_from_entry_to_entry() -> None:
    data = drive_and_response()
    prior = dist.LogNormal(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.25]))
    model = memory(data, lr.Gaussian(priors={"scale": prior}))
    law, _ = model.parameter_sites()["y.scale"]
    value = torch.tensor([0.7, 2.0], dtype=torch.float64)
    expected = stats.lognorm(s=0.5).logpdf(0.7) + stats.lognorm(s=0.25, scale=np.e).logpdf(2.0)
    np.testing.assert_allclose(float(law.log_prob(value)), expected, rtol=1e-6)
    again = lr.LatentRNN.from_config(model.config(), data.spec)
    np.testing.assert_allclose(float(again.parameter_sites()["y.scale"][0].log_prob(value)), expected, rtol=1e-6)


class HalfLogistic(dist.TorchDistribution):
    """A family of a user's own, which knows of no `validate_args`."""

    arg_constraints: ClassVar = {"scale": dist.constraints.positive}
    support = dist.constraints.positive

    def __init__(self, scale: Tensor) -> None:
        self.scale = torch.as_tensor(scale)
        super().__init__(self.scale.shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> Any:
        return HalfLogistic(self.scale.expand(batch_shape))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        u = torch.rand(sample_shape + self.batch_shape, dtype=self.scale.dtype)
        return self.scale * ((1 + u) / (1 - u)).log()

    def log_prob(self, value: Tensor) -> Tensor:
        z = value / self.scale
        return np.log(2) - z - self.scale.log() - 2 * torch.log1p((-z).exp())


@pytest.mark.parametrize("scale", [0.7, [0.7, 1.4]])
def test_a_family_of_a_users_own_is_a_prior(scale: Any) -> None:
    data = drive_and_response()
    model = memory(data, lr.Gaussian(priors={"scale": HalfLogistic(torch.tensor(scale))}))
    site = poutine.trace(model).get_trace(data).nodes["y.scale"]
    value = site["value"].detach().numpy()
    expected = stats.halflogistic.logpdf(value, scale=scale).sum()
    assert float(site["fn"].log_prob(site["value"])) == pytest.approx(expected, rel=1e-6)
    result = lr.fit(model, lr.Guide(model), data, steps=3, reporting=QUIET)
    assert result.posterior(data).parameters(5)["y.scale"].shape == (5, 2)


def test_rows_of_a_switch_have_dirichlet_priors_that_guides_can_follow() -> None:
    data = drive_and_response()
    latent = lr.Discrete(3, priors={"transition": dist.Dirichlet(torch.tensor([2.0, 1.0, 1.0]))})
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.VanillaRNN(1), latent=latent, observations=heads).double()
    for family in ("normal", "multivariate", "low_rank", "flow", "point"):
        guide = lr.Guide(model, global_family=family).double()
        rows = guide(data)["latent.transition"]
        assert rows.shape == (3, 3)
        torch.testing.assert_close(rows.sum(-1), torch.ones(3, dtype=torch.float64))
        lr.elbo_terms(model, guide, data, num_particles=2).elbo().backward()


class Growth(lr.Transition):
    """x_t = x_{t-1} + r x_{t-1} (1 - x_{t-1} / K): a user's own equation, with its numbers declared."""

    declared: ClassVar = {
        "rate": lr.ParameterSpec.unit_interval("rate_logit", unit="per step"),
        "capacity": lr.ParameterSpec.positive("log_capacity", unit="of the population"),
    }

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = 1

    def build(self, input_size: int) -> None:
        self.rate_logit = nn.Parameter(torch.zeros(1))
        self.log_capacity = nn.Parameter(torch.zeros(1))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return state + self.rate_logit.sigmoid() * state * (1 - state / self.log_capacity.exp())


def test_a_users_own_equation_has_priors_on_its_numbers() -> None:
    x, path = 0.1, []
    for _ in range(30):
        x += 0.3 * x * (1 - x / 2.0)
        path.append([x])
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": np.array([path]) + rng.normal(0, 0.05, (1, 30, 1))}, dtype=torch.float64)
    transition = Growth(priors={"rate": dist.Beta(2.0, 2.0), "capacity": dist.LogNormal(0.0, 1.0)})
    head = lr.Gaussian(fixed={"weight": 1.0, "baseline": 0.0, "scale": 0.05})
    latent = lr.Deterministic(fixed={"initial_state": 0.1})
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": head}).double()
    assert list(model.named_parameters()) == []
    posterior = lr.laplace(model, data, device="cpu").posterior(data)
    draws = posterior.parameters(num_samples=400)
    for name, planted in {"transition.rate": 0.3, "transition.capacity": 2.0}.items():
        low, high = np.quantile(draws[name].numpy(), [0.005, 0.995])
        assert low < planted < high, name
        assert high - low < 0.2, name


def test_a_table_lists_every_number() -> None:
    data = drive_and_response()
    latent = lr.Innovations(1, prior="ar1", priors={"persistence": dist.Beta(2.0, 2.0)})
    heads = {"y": lr.Gaussian(fixed={"scale": [1.0, 2.0]})}
    model = lr.LatentRNN(data.spec, transition=lr.LeakyIntegrator(3), latent=latent, observations=heads)
    table = model.parameters_table()
    assert table.loc["transition.time_constant"].to_dict() == {
        "shape": (3,), "dims": "unit", "unit": "seconds", "support": "positive", "given": "point estimate",
    }  # fmt: skip
    assert table.loc["latent.persistence", "given"] == "Beta(concentration1=2, concentration0=2)"
    assert "latent.time_constant" not in table.index
    assert table.loc["y.scale", "given"] == "fixed"
    listed = sum(int(np.prod(shape)) for shape in table["shape"])
    sampled = sum(start.numel() for _, start in model.parameter_sites().values())
    assert listed == sum(p.numel() for p in model.parameters()) + sampled + 2
    assert "time_constant" in table.to_html()
    with pandas.option_context("display.width", 40, "display.max_rows", 3, "display.max_columns", 2):
        assert all(word in repr(table) for word in (*table.index, *table.columns))
        assert "..." not in repr(table)


class Decay(lr.Transition):
    """h_t = exp(-rate) h_{t-1} + x_t, whose rate is declared by a class of the user's own."""

    declared: ClassVar = {
        "rate": lr.ParameterSpec.positive("log_rate", unit="per second or step"),
        "reach": lr.ParameterSpec("reach", unit="metres"),
    }

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = 1

    def build(self, input_size: int) -> None:
        for name in ("log_rate", "reach"):
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(1)))

    def step(self, state: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return torch.exp(-self.log_rate.exp()) * state + self.reach * inputs


CLOCKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "none": ({}, "step", "step"),
    "regular": ({"dt": 0.01}, "second", "step"),
    "irregular": ({"times": [np.cumsum([0.1, 0.2, 0.4, 0.1])] * 3}, "second", "second"),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_units_of_time_are_those_of_the_data(name: str) -> None:
    """Seconds where there is a clock; a persistence is from step to step but where these differ."""
    options, unit, of_persistence = CLOCKS[name]
    arrays = {"y": np.ones((3, 4, 1))}
    spec = lr.SequenceData.from_arrays(arrays, {"x": np.ones((3, 4, 1))}, **options).spec

    def units(transition: lr.Transition, **latent: Any) -> dict[str, str]:
        correlated = lr.Innovations(1, prior="ar1", **latent)
        model = lr.LatentRNN(spec, transition=transition, latent=correlated, observations={"y": lr.Gaussian()})
        return dict(model.parameters_table()["unit"])

    leaky = units(lr.LeakyIntegrator(1))
    assert leaky["transition.time_constant"] == leaky["latent.time_constant"] == f"{unit}s"
    own = units(Decay(), fixed={"persistence": 0.5})
    assert own["transition.rate"] == f"per {unit}"
    assert own["transition.reach"] == "metres"
    assert own["latent.persistence"] == f"per {of_persistence}"


MISTAKES: dict[str, tuple[Any, str]] = {
    "name": (
        lambda: {"transition": lr.LeakyIntegrator(3, priors={"tau": dist.LogNormal(0.0, 1.0)})},
        r"LeakyIntegrator: no prior can be put on 'tau'; expected one of \['time_constant', 'input_weight'\]",
    ),
    "support": (
        lambda: {"transition": lr.LeakyIntegrator(3, priors={"time_constant": dist.Normal(0.0, 1.0)})},
        r"priors\['time_constant'\] must be a distribution over values that are positive; found Normal.*are real",
    ),
    "shape": (
        lambda: {"transition": lr.LeakyIntegrator(3, priors={"time_constant": dist.LogNormal(torch.zeros(2), 1.0)})},
        r"priors\['time_constant'\] must be .* of shape \(3,\); found shape \(2,\)",
    ),
    "known outside": (
        lambda: {"transition": lr.LeakyIntegrator(3, fixed={"time_constant": -1.0})},
        r"fixed\['time_constant'\] must be positive; found -1",
    ),
    "known shape": (
        lambda: {"transition": lr.LeakyIntegrator(3, fixed={"time_constant": [1.0, 2.0]})},
        r"fixed\['time_constant'\] must be one number or of shape \(3,\); found shape \(2,\)",
    ),
    "known name": (
        lambda: {"latent": lr.Innovations(1, fixed={"time_constant": 1.0})},
        r"Innovations: no value can be fixed of 'time_constant'; expected one of \['scale', 'shock', 'initial_state'\]",
    ),
    "an end": (
        lambda: {"latent": lr.Innovations(1, prior="ar1", fixed={"persistence": 1.0})},
        r"fixed\['persistence'\] must be between 0 and 1, its ends left out; found 1",
    ),
    "a shock of what is learned": (
        lambda: {"latent": lr.Innovations(1, prior="ar1", fixed={"shock": 0.1})},
        r"fixed\['shock'\] holds where one of \['time_constant', 'persistence'\] is fixed, too",
    ),
    "two names": (
        lambda: {
            "latent": lr.Innovations(
                1, prior="ar1", fixed={"time_constant": 1.0}, priors={"persistence": dist.Beta(2.0, 2.0)}
            )
        },
        "'persistence' and 'time_constant' are one parameter",
    ),
    "rows": (
        lambda: {"latent": lr.Discrete(2, priors={"transition": dist.Dirichlet(torch.ones(3))})},
        r"priors\['transition'\] must be .* of shape \(2, 2\); found shape \(3,\)",
    ),
    "covariate of a part": (
        lambda: {"latent": lr.Innovations(1, fixed={"scale": "x"})},
        r"fixed\['scale'\]: a covariate can tell what belongs to an entry of a head",
    ),
    "unknown covariate": (
        lambda: {"observations": {"y": lr.Gaussian(fixed={"scale": "nothing"})}},
        r"fixed\['scale'\]: unknown covariate 'nothing'",
    ),
    "covariate of a joint family": (
        lambda: {"observations": {"y": lr.Gaussian(covariance="full", fixed={"scale": "x"})}},
        r"a covariate can tell what belongs to an entry, here \[\]; found 'x'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_with_what_was_expected(mistake: str) -> None:
    parts, message = MISTAKES[mistake]
    data = drive_and_response()
    given = {"transition": lr.GRU(2), "latent": lr.Deterministic(), "observations": {"y": lr.Gaussian()}} | parts()
    with pytest.raises(ValueError, match=message):
        lr.LatentRNN(data.spec, **given)


def test_mistakes_are_named_where_they_are_made() -> None:
    with pytest.raises(TypeError, match="Innovations: priors must be a dict of priors by parameter"):
        lr.Innovations(1, priors=dist.Beta(2.0, 2.0))
    with pytest.raises(TypeError, match=r"Innovations: priors\['scale'\] must be a distribution; found float"):
        lr.Innovations(1, priors={"scale": 3.0})
    with pytest.raises(ValueError, match=r"Innovations: \['scale'\] cannot be fixed and have a prior at once"):
        lr.Innovations(1, priors={"scale": dist.HalfNormal(1.0)}, fixed={"scale": 1.0})
    with pytest.raises(ValueError, match=r"Innovations: fixed\['scale'\] must be finite"):
        lr.Innovations(1, fixed={"scale": float("nan")})
    with pytest.raises(TypeError, match=r"Innovations: fixed\['scale'\] must be a number or an array"):
        lr.Innovations(1, fixed={"scale": object()})


def test_a_fit_with_priors_everywhere_is_saved_and_loaded(tmp_path: Any) -> None:
    data = drive_and_response(torch.float32)
    head = lr.Gaussian(priors={"scale": dist.HalfNormal(1.0)}, fixed={"weight": [[1.0], [2.0]]})
    model = memory(data, head, priors={"time_constant": dist.LogNormal(torch.tensor([-2.0]), 0.5)})
    guide = lr.Guide(model, global_family="multivariate")
    result = lr.fit(model, guide, data, steps=5, seed=0, reporting=QUIET)
    result.save(tmp_path / "fit")
    again = lr.load(tmp_path / "fit")
    assert again.model.config() == result.model.config()
    assert list(again.model.parameter_sites()) == ["transition.time_constant", "y.scale"]
    torch.testing.assert_close(
        again.posterior(data).mean("y", num_samples=5), result.posterior(data).mean("y", num_samples=5)
    )
    pyro.clear_param_store()


def test_a_shock_is_what_comes_new_in_a_step() -> None:
    """Its tensor follows from the persistence too, whichever is drawn: the process has shock / sqrt(1 - phi^2)."""
    data = drive_and_response()
    given = {"shock": dist.HalfCauchy(2.0), "persistence": dist.Beta(2.0, 2.0)}
    latent = lr.Innovations(1, prior="ar1", priors=given)
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=latent, observations=heads).double()
    phi, shock = torch.tensor([0.5, 0.8]).double(), torch.tensor([0.3, 0.4]).double()
    path = torch.randn(len(data), STEPS, 1, dtype=torch.float64)
    many = {"latent.shock": shock.reshape(2, 1, 1), "latent.persistence": phi.reshape(2, 1, 1), "innovations": path}
    with Fixed(many), torch.no_grad():
        node = poutine.trace(model).get_trace(data).nodes["innovations"]
        found = node["fn"].log_prob(path).numpy()
    u = path[..., 0].numpy()
    for k in range(2):
        expected = stats.norm(0, float(shock[k] / (1 - phi[k] ** 2).sqrt())).logpdf(u[:, 0])
        expected = expected + stats.norm(float(phi[k]) * u[:, :-1], float(shock[k])).logpdf(u[:, 1:]).sum(1)
        np.testing.assert_allclose(found[k], expected, rtol=1e-8)


def test_a_model_of_which_all_is_known_has_evidence_and_nothing_to_fit() -> None:
    data = drive_and_response()
    head = lr.Gaussian(fixed={"weight": [[1.0], [2.0]], "baseline": 0.0, "scale": 1.0})
    transition = lr.LeakyIntegrator(1, fixed={"time_constant": 0.1, "input_weight": 1.0})
    latent = lr.Deterministic(fixed={"initial_state": 0.0})
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": head}, inputs="x").double()
    loc = leaky(data.covariates["x"].numpy(), 0.1, 1.0) * np.array([1.0, 2.0])
    expected = stats.norm(loc, 1.0).logpdf(data.observations["y"].numpy()).sum()
    found = lr.Posterior(model, lr.Guide(model), data, device="cpu").evidence("exact").total
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    with pytest.raises(ValueError, match="fit: there is nothing to learn, for every number of the model is known"):
        lr.fit(model, lr.Guide(model), data, steps=2, reporting=QUIET)


def test_interventions_on_covariates_go_with_draws_of_a_memory() -> None:
    data = drive_and_response()
    model = memory(data, lr.Gaussian(), priors={"time_constant": dist.LogNormal(-2.0, 0.5)})
    posterior = lr.Posterior(model, lr.Guide(model).double(), data, device="cpu")
    same = posterior.counterfactual({"x": data.covariates["x"]}, num_samples=4)
    torch.testing.assert_close(same.rates["y"], posterior.rates("y", num_samples=4))


def narrow(guide: lr.Guide, values: dict[str, float]) -> lr.Guide:
    """The guide with hardly any spread, its parameters at these numbers."""
    family = guide.parameter_sites
    with torch.no_grad():
        for name, value in values.items():
            family.loc[name.replace(".", "_")].fill_(value)
            family.log_scale[name.replace(".", "_")].fill_(-14.0)
    return guide


def test_forecasts_go_on_with_the_draws_of_a_transition() -> None:
    """z_t = 0.9 z_{t-1} under the posterior, whatever value the tensor started from."""
    data = lr.SequenceData.from_arrays({"y": 0.9 ** np.arange(8)[None, :, None]}, dtype=torch.float64)
    transition = lr.Linear(1, priors={"weight": dist.Normal(0.0, 1.0)}, fixed={"input_weight": 0.0, "bias": 0.0})
    head = lr.Gaussian(fixed={"weight": 1.0, "baseline": 0.0, "scale": 1e-3})
    latent = lr.MarkovNormal(fixed={"scale": 1e-4})
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": head}).double()
    model.transition.recurrent_weight.fill_(-0.5)
    guide = narrow(lr.Guide(model, encoder=lr.RNNEncoder(2)).double(), {"transition.weight": 0.9})
    posterior = lr.Posterior(model, guide, data, device="cpu")
    last = posterior.latents(1)["states"][0, 0, -1, 0]
    found = posterior.forecast(3, num_samples=1).samples["y"][0, 0, :, 0]
    torch.testing.assert_close(found, last * 0.9 ** torch.arange(1, 4).double(), rtol=0, atol=0.01)


def test_what_is_not_changed_stays_under_draws_of_a_transition() -> None:
    data = drive_and_response()
    wide = dist.Normal(0.0, 2.0)
    gru = lr.GRU(2, priors={"kernel.weight_ih_l0": wide, "kernel.weight_hh_l0": wide})
    model = lr.LatentRNN(data.spec, transition=gru, latent=lr.MarkovNormal(), observations={"y": lr.Gaussian()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
    with torch.no_grad():
        for scale in guide.parameter_sites.log_scale.values():
            scale.fill_(-0.2)
    posterior = lr.Posterior(model.double(), guide.double(), data, device="cpu")
    torch.testing.assert_close(posterior.counterfactual(num_samples=3).rates["y"], posterior.rates("y", num_samples=3))


@pytest.mark.parametrize("names", [("shock", "time_constant"), ("time_constant", "shock"), ("shock", "persistence")])
def test_a_known_shock_holds_in_whichever_order_it_is_said(names: tuple[str, str]) -> None:
    data = drive_and_response()
    known = {"shock": 0.1, "time_constant": 0.5, "persistence": 0.5}
    latent = lr.Innovations(1, prior="ar1", fixed={name: known[name] for name in names})
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=latent, observations=heads).double()
    torch.testing.assert_close(float(model.latent.scale * model.latent.fresh_share()), 0.1)


def test_known_zeros_of_a_switch_have_finite_slopes() -> None:
    data = drive_and_response()
    rows = [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]
    latent = lr.Discrete(3, fixed={"initial": [1.0, 0.0, 0.0], "transition": rows})
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=latent, observations=heads).double()
    loss = poutine.trace(model).get_trace(data).log_prob_sum()
    slopes = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(slope is None or bool(slope.isfinite().all()) for slope in slopes)


def test_what_a_covariate_tells_must_be_possible() -> None:
    data = drive_and_response(torch.float32)
    noise = data.covariates["noise"].numpy().copy()
    noise[2, 3] = 0.0
    wrong = lr.SequenceData.from_arrays({"y": data.observations["y"].numpy()}, {"noise": noise}, dt=DT)
    heads = {"y": lr.Gaussian(fixed={"scale": "noise"})}
    model = lr.LatentRNN(wrong.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    message = r"covariates\['noise'\] tells 'scale' of observations\['y'\], which must be positive; found 0.0"
    with pytest.raises(ValueError, match=message):
        lr.fit(model, lr.Guide(model), wrong, steps=2, reporting=QUIET)
    heads = {"y": lr.Calcium(0.1, fixed={"scale": "noise"})}
    with pytest.raises(ValueError, match=r"a covariate can tell what belongs to an entry, here \[\]; found 'noise'"):
        lr.LatentRNN(wrong.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)


def test_a_fit_in_double_precision_without_any_weight_is_loaded_as_it_was(tmp_path: Any) -> None:
    data = drive_and_response()
    head = lr.Gaussian(fixed={"weight": [[1.0], [2.0]], "baseline": 0.0}, priors={"scale": dist.LogNormal(0.0, 1.0)})
    model = memory(data, head, fixed={"time_constant": 0.1, "input_weight": 1.0})
    model = lr.LatentRNN(
        data.spec,
        transition=model.transition.fresh(),
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={"y": head},
        inputs="x",
    ).double()
    assert list(model.parameters()) == []
    result = lr.fit(model, lr.Guide(model), data, steps=3, seed=0, reporting=QUIET)
    result.save(tmp_path / "fit")
    again = lr.load(tmp_path / "fit")
    torch.testing.assert_close(again.posterior(data).rates("y", 3), result.posterior(data).rates("y", 3))
