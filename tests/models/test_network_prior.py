"""Priors over the weights of a network: their density written out, draws that agree, closed forms, and misuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import linalg, stats
from torch import Tensor
from torch.distributions import Independent

import latentrnn as lr
from tests.oracles import Array
from tests.registry import Fixed

DRAWS = 4


def make_data(seed: int = 0) -> lr.SequenceData:
    """Ragged counts and large reals, driven by two covariates."""
    rng = np.random.default_rng(seed)
    lengths = [6, 4, 5]
    return lr.SequenceData.from_arrays(
        {
            "n": [rng.poisson(1.0, (size, 3)) for size in lengths],
            "v": [rng.normal(1000.0, 50.0, (size, 2)) for size in lengths],
        },
        {"x": [rng.normal(size=(size, 2)) for size in lengths]},
        dtype=torch.float64,
    )


def network(
    transition: lr.Transition, prior: Any, data: lr.SequenceData, latent: lr.Latent | None = None
) -> lr.LatentRNN:
    """A transition with the prior on its weights, a head with it on a network and one with it on its last layer."""
    described = type(transition)(**transition.arguments() | {"priors": {"weights": prior}})
    model = lr.LatentRNN(
        data.spec,
        transition=described,
        latent=lr.Innovations(2) if latent is None else latent,
        observations={
            "n": lr.Poisson(priors={"weights": prior}),
            "v": lr.Gaussian(readout=lr.MLPReadout(3, priors={"weights": prior})),
        },
    ).double()
    model.initialise(data)
    return model


def traced(model: lr.LatentRNN, data: lr.SequenceData, particles: int) -> Any:
    with pyro.plate("particles", particles, dim=-2):
        trace = poutine.trace(model).get_trace(data)
    trace.compute_log_prob()
    return trace


# -- the density, written out ----------------------------------------------------------------------------------------

# every tensor, with its fan-in where it is a matrix: of an input of 2 covariates and 2 innovations and 5 units
TENSORS = {
    "transition": {
        "kernel.weight_ih_l0": 4,
        "kernel.weight_hh_l0": 5,
        "kernel.bias_ih_l0": None,
        "kernel.bias_hh_l0": None,
    },
    "n.readout": {"weight": 5, "baseline": None},
    "v.readout": {"weight": 3, "baseline": None, "hidden.0.weight": 5, "hidden.0.bias": None},
}  # fmt: skip
KINDS: dict[str, tuple[Callable[[], lr.NetworkPrior], Any, Any]] = {  # with the laws of scales, None where known
    "learned": (lr.NetworkPrior, stats.halfnorm(scale=1.0), stats.halfnorm(scale=1.0)),
    "shared": (
        lambda: lr.NetworkPrior(scale=0.3, bias_scale=2.1, shared=True),
        stats.halfnorm(scale=0.3), stats.halfnorm(scale=2.1),
    ),
    "known": (lambda: lr.NetworkPrior(scale=0.7, bias_scale=0.2, learned=False), None, None),
    "half Cauchy": (
        lambda: lr.NetworkPrior(scale=dist.HalfCauchy(0.5), bias_scale=0.2, learned=False),
        stats.halfcauchy(scale=0.5), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_the_sum_written_out(kind: str, particles: int) -> None:
    """sum_k log p(s_k) + sum of log Normal(w; 0, s_k^2 / fan_in) over all entries, particle by particle, by SciPy."""
    make, *laws = KINDS[kind]
    data, prior = make_data(), make()
    model = network(lr.GRU(5), prior, data)
    trace = traced(model, data, particles)
    head = model.observations["v"]
    units = {"v.readout.baseline": (head.location.numpy(), head.scale.numpy())}  # a level of 1000, in units of 50
    expected = np.zeros(particles)
    for owner, tensors in TENSORS.items():
        scales = {}
        for part, law in zip(("scale", "bias_scale"), laws, strict=True):
            number = sum((fan_in is not None) == (part == "scale") for fan_in in tensors.values())
            if law is None:
                scales[part] = np.full((particles, number), getattr(prior, part))
                continue
            value = trace.nodes[f"{owner}.weights.{part}"]["value"].detach().numpy().reshape(particles, -1)
            assert value.shape[1] == (1 if prior.shared else number)
            assert len(np.unique(value)) == value.size
            expected += law.logpdf(value).sum(1)
            scales[part] = np.broadcast_to(value, (particles, number))
        place = dict.fromkeys(scales, 0)
        for name, fan_in in tensors.items():
            part = "bias_scale" if fan_in is None else "scale"
            scale = scales[part][:, place[part]] / (1 if fan_in is None else fan_in**0.5)
            place[part] += 1
            value = trace.nodes[f"{owner}.{name}"]["value"].detach().numpy().reshape(particles, -1)
            centre, unit = units.get(f"{owner}.{name}", (0.0, 1.0))
            expected += stats.norm(centre, unit * scale[:, None]).logpdf(value).sum(1)
    found = sum(trace.nodes[name]["log_prob"].reshape(-1) for name in model.parameter_sites()).numpy(force=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_another_prior_or_value_takes_a_tensor_out_of_the_network() -> None:
    data = make_data()
    transition = lr.GRU(
        4,
        layers=2,
        layer_norm=True,
        priors={"kernel.bias_hh_l0": dist.Laplace(0.0, 0.3), "weights": lr.NetworkPrior(scale=0.5)},
        fixed={"kernel.bias_ih_l0": 0.0},
    )
    heads = {"n": lr.Poisson(priors={"weights": lr.NetworkPrior(), "baseline": dist.Normal(-1.0, 2.0)})}
    model = lr.LatentRNN(data.spec, transition=transition, latent=lr.Innovations(1), observations=heads).double()
    table = model.parameters_table()
    given = table["given"].to_dict()
    assert given["transition.kernel.bias_hh_l0"] == "Laplace(loc=0, scale=0.3)"
    assert given["transition.kernel.bias_ih_l0"] == "fixed"
    assert given["transition.kernel.weight_hh_l1"] == "NetworkPrior, fan-in 4, scale learned"
    assert given["transition.kernel.bias_hh_l1"] == "NetworkPrior, bias, scale learned"
    assert given["transition.weights.scale"] == "HalfNormal(scale=0.5)"
    assert given["n.readout.weight"] == "NetworkPrior, fan-in 4, scale learned"
    assert given["n.readout.baseline"] == "Normal(loc=-1, scale=2)"
    assert "n.readout.weights.bias_scale" not in given  # there is no bias left to have a scale
    assert table.loc["transition.weights.scale", "shape"] == (4,)
    assert table.loc["transition.weights.bias_scale", "shape"] == (3,)  # two biases above, and the layer norm's gains
    assert table.loc["transition.kernel.weight_ih_l0", "dims"] == "output, input"
    gains = model.parameter_sites()["transition.norm_gain"][0]
    assert torch.equal(gains.base_dist.loc, torch.ones(2, 3, 4).double())


def test_time_constants_and_frequencies_are_no_weights() -> None:
    data = make_data()
    for transition, left in (
        (lr.LeakyIntegrator(3, priors={"weights": lr.NetworkPrior()}), {"time_constant"}),
        (lr.DiagonalLinear(4, priors={"weights": lr.NetworkPrior()}), {"time_constant", "frequency"}),
        (lr.ModulatedForgetLSTM(3, priors={"weights": lr.NetworkPrior()}), {"beta"}),
        (lr.SwitchingLinear(3, 2, priors={"weights": lr.NetworkPrior()}), set()),
    ):
        heads = {"n": lr.Poisson()}
        model = lr.LatentRNN(data.spec, transition=transition, latent=lr.Innovations(1), observations=heads)
        given = model.parameters_table()["given"]
        own = given[given.index.str.startswith("transition.")]
        assert set(own.index[own == "point estimate"]) == {f"transition.{name}" for name in left}
        bias = [name for name in own.index if "bias" in name and "bias_scale" not in name]
        assert all(own[name] == "NetworkPrior, bias, scale learned" for name in bias)


def test_one_distribution_may_be_of_all_weights() -> None:
    data = make_data()
    model = network(lr.VanillaRNN(3), dist.Normal(0.0, 0.5), data)
    assert model.parameters_table().loc["transition.kernel.bias_hh_l0", "given"] == "Normal(loc=0, scale=0.5)"
    assert sum(name.startswith("transition.") for name in model.parameter_sites()) == 4
    one = network(lr.VanillaRNN(3), lr.Population("weights"), data)
    assert len(one.populations["weights"][1]) == 10


def test_of_one_tensor_alone() -> None:
    data = make_data()
    prior = lr.NetworkPrior(scale=0.2)
    transition = lr.GRU(3, priors={"kernel.weight_hh_l0": prior, "weights": lr.NetworkPrior(learned=False)})
    model = lr.LatentRNN(data.spec, transition=transition, latent=lr.Innovations(1), observations={"n": lr.Poisson()})
    sites = model.parameter_sites()
    assert [name for name in sites if name.endswith("scale")] == ["transition.kernel.weight_hh_l0.scale"]
    torch.testing.assert_close(sites["transition.kernel.weight_hh_l0.scale"][0].base_dist.scale, torch.tensor([0.2]))
    torch.testing.assert_close(
        sites["transition.kernel.weight_ih_l0"][0].base_dist.scale, torch.tensor(3**-0.5).expand(9, 3)
    )


# -- units -----------------------------------------------------------------------------------------------------------


def test_the_prior_is_the_same_in_any_units() -> None:
    """Data, covariates in other units: draws of the same random numbers predict the same, in these units."""
    found = []
    for factor, shift in ((1.0, 0.0), (1e-3, 7.0)):
        plain = make_data()
        values = {"n": plain.observations["n"], "v": plain.observations["v"] * factor + shift}
        arrays = {
            name: [value[row, :size].numpy() for row, size in enumerate([6, 4, 5])] for name, value in values.items()
        }
        drive = [plain.covariates["x"][row, :size].numpy() * factor + shift for row, size in enumerate([6, 4, 5])]
        data = lr.SequenceData.from_arrays(arrays, {"x": drive}, dtype=torch.float64)
        torch.manual_seed(0)
        model = network(lr.GRU(4), lr.NetworkPrior(), data, lr.Deterministic())
        pyro.set_rng_seed(1)
        trace = poutine.trace(model).get_trace(data)
        means = {name: model.observations[name].mean(trace.nodes[name]["fn"]) for name in ("n", "v")}
        found.append((means["n"], (means["v"] - shift) / factor))
    for one, other in zip(*found, strict=True):
        valid = make_data().valid
        torch.testing.assert_close(one[valid], other[valid], rtol=1e-8, atol=1e-8)


def test_inputs_and_outputs_are_standardised_beside_it() -> None:
    data = make_data()
    with_prior = network(lr.GRU(3), lr.NetworkPrior(), data)
    plain = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Innovations(2),
        observations={"n": lr.Poisson(), "v": lr.Gaussian(readout=lr.MLPReadout(3))},
    ).double()
    plain.initialise(data)
    assert torch.equal(with_prior.transition_inputs(data), plain.transition_inputs(data))
    for name in ("location", "scale"):
        expected = getattr(plain.observations["v"], name)
        assert torch.equal(getattr(with_prior.observations["v"], name), expected)
        assert not torch.equal(expected, torch.full_like(expected, float(name == "scale")))


# -- draws -----------------------------------------------------------------------------------------------------------

CELLS: dict[str, Callable[[], lr.Transition]] = {
    "gru": lambda: lr.GRU(5, layers=2),
    "lstm": lambda: lr.LSTM(4),
    "vanilla": lambda: lr.VanillaRNN(5),
    "linear": lambda: lr.Linear(3),
}


@pytest.mark.parametrize("cell", CELLS)
def test_many_draws_at_once_are_those_of_a_loop(cell: str) -> None:
    data = make_data()
    model = network(CELLS[cell](), lr.NetworkPrior(), data)
    pyro.set_rng_seed(0)
    many = traced(model, data, DRAWS)
    values = {name: many.nodes[name]["value"] for name in (*model.parameter_sites(), "innovations")}
    for name in ("n", "v"):
        together = many.nodes[name]["fn"].log_prob(data.observations[name])
        assert together.shape == (DRAWS, len(data))
        for draw in range(DRAWS):
            one = {site: value[draw] if site == "innovations" else value[draw, 0] for site, value in values.items()}
            with Fixed(one):
                alone = poutine.trace(model).get_trace(data)
            torch.testing.assert_close(
                together[draw], alone.nodes[name]["fn"].log_prob(data.observations[name]), rtol=1e-10, atol=1e-10
            )
        assert together.std(0).min() > 0


def test_gradients_of_many_draws_are_those_of_a_loop() -> None:
    """The bound of several particles: the mean of those of one each, and so are its gradients."""
    data = make_data()
    model = network(lr.GRU(4), lr.NetworkPrior(), data, lr.Deterministic())
    guide = lr.Guide(model).double()
    numbers = [torch.randn(DRAWS, 1, *start.shape).double() for _, start in model.parameter_sites().values()]

    class Known(pyro.poutine.messenger.Messenger):
        """Draws that are the location plus the scale times given numbers."""

        def __init__(self, draw: int | None) -> None:
            super().__init__()
            self.draw, self.given = draw, iter(numbers)

        def _pyro_sample(self, msg: dict[str, Any]) -> None:
            if msg["name"] not in model.parameter_sites() or msg["done"]:
                return
            standard = next(self.given)
            standard = standard if self.draw is None else standard[self.draw, 0]
            fn = msg["fn"]
            entries = fn.base_dist if isinstance(fn, Independent) else fn
            value = entries.loc + entries.scale * standard  # of the logarithm, where the number is positive
            if isinstance(entries, dist.LogNormal):
                value = value.exp()
            msg["value"], msg["done"] = value, True

    def gradient(draw: int | None) -> tuple[Tensor, list[Tensor]]:
        copied = copy.deepcopy(guide)
        with Known(draw):
            elbo = lr.elbo_terms(model, copied, data, num_particles=DRAWS if draw is None else 1).elbo()
        return elbo.detach(), list(torch.autograd.grad(elbo, list(copied.parameters())))

    value, together = gradient(None)
    values, alone = zip(*(gradient(draw) for draw in range(DRAWS)), strict=True)
    torch.testing.assert_close(value, torch.stack(values).mean(), rtol=1e-10, atol=1e-9)
    for number, found in enumerate(together):
        expected = torch.stack([each[number] for each in alone]).mean(0)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("cell", CELLS)
def test_a_fit_starts_from_weights_of_its_seed(cell: str) -> None:
    """Tensors with priors are drawn anew as those without are, so that seeds differ and are what they say."""
    data = make_data()
    found = []
    for seed in (0, 0, 1):
        model = network(CELLS[cell](), lr.NetworkPrior(), data)
        torch.manual_seed(seed)
        model.draw_weights()
        found.append({name: start for name, (_, start) in model.parameter_sites().items()})
    for name, first in found[0].items():
        assert torch.equal(first, found[1][name])
        if name.startswith("transition.") and "bias" not in name:
            assert not torch.equal(first, found[2][name])


# -- Bayesian linear regression --------------------------------------------------------------------------------------

NOISE, HIDDEN = 0.4, 3


class Regression:
    """y = W h + b + noise of known scale, states h known: linear in weights with a `NetworkPrior`.

    Args:
        prior: of weight and baseline.
    """

    def __init__(self, prior: lr.NetworkPrior) -> None:
        rng = np.random.default_rng(0)
        y, x = rng.normal(0.4, 0.7, (4, 5, 1)), rng.normal(size=(4, 5, 2))
        self.data = lr.SequenceData.from_arrays({"y": y}, {"x": x}, dtype=torch.float64)
        self.model = lr.LatentRNN(
            self.data.spec,
            transition=lr.GRU(HIDDEN),
            latent=lr.Deterministic(),
            observations={"y": lr.Gaussian(fixed={"scale": NOISE}, priors={"weights": prior})},
        ).double()
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(0.8 * torch.randn_like(parameter))
                parameter.requires_grad_(False)
            states = self.model.transition.scan(self.data.covariates["x"], self.model.latent.initial_state)[0]
        self.design = np.concatenate([states.reshape(-1, HIDDEN).numpy(), np.ones((20, 1))], 1)
        self.y = y.ravel()

    def variance(self, scale: float, bias_scale: float) -> Array:
        return np.array([scale**2 / HIDDEN] * HIDDEN + [bias_scale**2])

    def log_evidence(self, scale: float, bias_scale: float) -> float:
        X, variance = self.design, self.variance(scale, bias_scale)
        return float(stats.multivariate_normal.logpdf(self.y, cov=X * variance @ X.T + NOISE**2 * np.eye(20)))

    def posterior(self, scale: float, bias_scale: float) -> tuple[Array, Array]:
        precision = np.diag(1 / self.variance(scale, bias_scale)) + self.design.T @ self.design / NOISE**2
        return linalg.solve(precision, self.design.T @ self.y / NOISE**2), linalg.inv(precision)


def known(scale: float = 0.9, bias_scale: float = 1.3) -> lr.NetworkPrior:
    return lr.NetworkPrior(scale=scale, bias_scale=bias_scale, learned=False)


def test_the_conjugate_posterior_gives_the_evidence_at_every_draw() -> None:
    regression = Regression(known())
    guide = lr.Guide(regression.model, global_family="multivariate").double()
    mean, covariance = regression.posterior(0.9, 1.3)
    guide.parameter_sites.place(torch.as_tensor(mean), torch.as_tensor(np.linalg.cholesky(covariance)))
    for _ in range(3):
        elbo = lr.elbo_terms(regression.model, guide, regression.data, analytic_kl=False).elbo()
        assert elbo.item() == pytest.approx(regression.log_evidence(0.9, 1.3), rel=0, abs=1e-9)
    # a scale that is not the prior's is noticed
    assert abs(regression.log_evidence(0.9, 1.3) - regression.log_evidence(0.9 * HIDDEN**0.5, 1.3)) > 0.1


def test_inferred_scales_integrate_to_the_evidence() -> None:
    """At given scales the weights are conjugate: any of their values gives p(y | s), and s is left to quadrature."""
    regression = Regression(lr.NetworkPrior(bias_scale=0.5))
    program, rng = poutine.uncondition(regression.model), np.random.default_rng(1)
    observed = {"y": regression.data.observations["y"]}

    def joint(scale: float, bias_scale: float) -> float:
        """log p(y, s, r) = log p(y, s, r, W) - log p(W | y, s, r), for a random W."""
        mean, covariance = regression.posterior(scale, bias_scale)
        theta = rng.multivariate_normal(mean, covariance)
        values = {
            "y.readout.weights.scale": [scale],
            "y.readout.weights.bias_scale": [bias_scale],
            "y.readout.weight": [theta[:HIDDEN].tolist()],
            "y.readout.baseline": [theta[HIDDEN]],
        }
        tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
        trace = poutine.trace(poutine.condition(program, data=observed | tensors)).get_trace(regression.data)
        return float(trace.log_prob_sum()) - float(stats.multivariate_normal.logpdf(theta, mean, covariance))

    def expected(scale: float, bias_scale: float) -> float:
        priors = stats.halfnorm(scale=1.0).logpdf(scale) + stats.halfnorm(scale=0.5).logpdf(bias_scale)
        return regression.log_evidence(scale, bias_scale) + float(priors)

    points, weights = legendre(8)
    ours = np.array([[joint(s, r) for r in points] for s in points])
    np.testing.assert_allclose(ours, [[expected(s, r) for r in points] for s in points], rtol=0, atol=1e-9)
    found = np.log(weights @ np.exp(ours) @ weights)
    points, weights = legendre(40)
    exact = np.log(weights @ np.exp([[expected(s, r) for r in points] for s in points]) @ weights)
    assert found == pytest.approx(exact, abs=0.01)


def legendre(count: int) -> tuple[Array, Array]:
    """Places and weights of Gauss and Legendre for an integral from 0 to 5."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return 2.5 * (nodes + 1), 2.5 * weights


def test_a_model_alone_draws_whole_networks() -> None:
    """Draws of the weights have the spread of their scale by fan-in, and data follow from them."""
    data = make_data()
    model = network(lr.GRU(5), lr.NetworkPrior(), data, lr.Deterministic())
    drawn = model.prior_predictive(data, 400, seed=0, device="cpu")
    for name, place, fan_in in (("weight_ih_l0", 0, 2), ("weight_hh_l0", 1, 5)):
        scale = drawn.parameters["transition.weights.scale"][:, place]
        weight = drawn.parameters[f"transition.kernel.{name}"]
        standard = weight * fan_in**0.5 / scale.reshape(-1, 1, 1)
        assert abs(float(standard.std()) - 1) < 6 * (2 * standard.numel()) ** -0.5
    assert torch.isfinite(drawn["n"][:, data.valid]).all()


# -- round trips -----------------------------------------------------------------------------------------------------


def test_what_is_described_is_made_again() -> None:
    data = make_data()
    prior = lr.NetworkPrior(scale=dist.HalfCauchy(0.5), bias_scale=0.25, learned=False, shared=True)
    model = network(lr.GRU(3), prior, data)
    again = lr.LatentRNN.from_config(model.config(), data.spec)
    assert again.config() == model.config()
    assert repr(again.transition) == repr(model.transition)
    assert again.parameters_table().equals(model.parameters_table())
    copied = model.transition.fresh()
    assert copied.config() == model.transition.config()


# -- misuse ----------------------------------------------------------------------------------------------------------

DATA = make_data()


def built(**parts: Any) -> lr.LatentRNN:
    arguments: dict[str, Any] = {"transition": lr.GRU(3), "latent": lr.Innovations(1)} | parts
    return lr.LatentRNN(DATA.spec, **{"observations": {"n": lr.Poisson()}} | arguments)


def on(kind: Any, *arguments: Any, name: str = "weights", **options: Any) -> Any:
    return kind(*arguments, priors={name: lr.NetworkPrior()}, **options)


WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a negative scale": (lambda: lr.NetworkPrior(scale=-1.0), ValueError, "scale must be positive; found -1"),
    "a scale that is none": (
        lambda: lr.NetworkPrior(bias_scale="1"),  # type: ignore[arg-type]
        TypeError,
        "bias_scale must be a positive number or a distribution; found str",
    ),
    "a real scale": (
        lambda: lr.NetworkPrior(scale=dist.Normal(0.0, 1.0)),
        ValueError,
        "scale needs a prior of one positive number",
    ),
    "scales of one's own": (
        lambda: lr.NetworkPrior(scale=dist.HalfNormal(torch.ones(2))),
        ValueError,
        r"scale needs a prior of one positive number.* of shape \(2,\)",
    ),
    "no flag": (lambda: lr.NetworkPrior(learned="no"), TypeError, "learned must be True or False"),  # type: ignore[arg-type]
    "of a latent": (
        lambda: built(latent=on(lr.Innovations, 1)),
        ValueError,
        "LatentRNN: latent: Innovations: priors.'weights'.: a NetworkPrior is of the weights of a transition or a",
    ),
    "of a gain": (
        lambda: built(observations={"n": lr.Poisson(gain=on(lr.StimulusGain, "x", name="beta"))}),
        ValueError,
        "StimulusGain: priors.'beta'.: a NetworkPrior is of the weights of a transition or a readout",
    ),
    "of streams": (
        lambda: built(transition=on(lr.Streams, {"a": lr.GRU(2), "b": lr.GRU(2)}, {"a": ["x"], "b": ["x"]})),
        ValueError,
        r"Streams: priors\['weights'\]: it has no weights of its own; give it to the parts within, \['cells.a', 'cel",
    ),
    "of no weight": (
        lambda: built(transition=on(lr.LeakyIntegrator, 2, name="time_constant")),
        ValueError,
        "LeakyIntegrator: priors.'time_constant'.: a NetworkPrior is of weights and biases, which this is not",
    ),
    "a misspelt tensor": (
        lambda: built(transition=on(lr.GRU, 2, name="kernel.weight")),
        ValueError,
        r"GRU: priors\['kernel.weight'\]: no such parameter; expected 'weights', for all weights, or one of \['kernel",
    ),
    "nothing left": (
        lambda: built(
            transition=lr.LeakyIntegrator(2, fixed={"input_weight": 1.0}, priors={"weights": lr.NetworkPrior()})
        ),
        ValueError,
        "LeakyIntegrator: priors.'weights'.: all weights have priors or known values of their own; leave it out",
    ),
    "fixed and with a prior": (
        lambda: lr.GRU(2, priors={"weights": lr.NetworkPrior()}, fixed={"weights": 0.0}),
        ValueError,
        r"\['weights'\] cannot be fixed and have a prior at once",
    ),
    "fixed": (
        lambda: built(transition=lr.GRU(2, fixed={"weights": 0.0})),
        ValueError,
        r"GRU: no value can be fixed of 'weights'; expected one of \['kernel.weight_ih_l0'",
    ),
    "beside a readout of one's own": (
        lambda: lr.Poisson(readout=lr.MLPReadout(3), priors={"weights": lr.NetworkPrior()}),
        ValueError,
        "priors belong to the default readout; give MLPReadout its own",
    ),
    "of an encoder": (
        lambda: lr.Guide(built(), encoder=lr.RNNEncoder(3, priors={"weights": lr.NetworkPrior()})),  # type: ignore[call-arg]
        TypeError,
        "priors",
    ),
    "of one entry each": (
        lambda: built(transition=lr.GRU(4, priors={"weights": dist.Normal(torch.zeros(2), 1.0)})),
        ValueError,
        r"priors\['kernel.weight_ih_l0'\] must be a distribution of one entry, for all alike, or of shape",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_named_with_what_was_expected(mistake: str) -> None:
    make, error, message = WRONG[mistake]
    with pytest.raises(error, match=message):
        make()
