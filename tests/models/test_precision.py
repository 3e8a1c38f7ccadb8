"""Densities in single precision: within 1e-3 nats per sequence of SciPy's in double, at any count."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

import latentrnn as lr
from latentrnn.inference.guides.families.family import loc_and_scale
from latentrnn.inference.objectives.terms import log_weights

STEPS, CHANNELS = 200, 40


def poisson(head: Any, eta: Any, y: Any) -> Any:
    return stats.poisson.logpmf(y, np.exp(eta))


def negative_binomial(head: Any, eta: Any, y: Any) -> Any:
    r = 1 / head.dispersion.detach().double().numpy()
    return stats.nbinom.logpmf(y, r, r / (r + np.exp(eta)))


def binomial(head: Any, eta: Any, y: Any) -> Any:
    return stats.binom.logpmf(y, head.total_count, special.expit(eta))


def beta_binomial(head: Any, eta: Any, y: Any) -> Any:
    p, phi = special.expit(eta), np.exp(head.log_concentration.detach().double().numpy())
    return stats.betabinom.logpmf(y, head.total_count, p * phi, (1 - p) * phi)


def multinomial(head: Any, eta: Any, y: Any) -> Any:
    return stats.multinomial.logpmf(y, y.sum(-1).astype(int), special.softmax(eta, -1))


def dirichlet_multinomial(head: Any, eta: Any, y: Any) -> Any:
    a = np.exp(head.log_concentration.detach().double().numpy()) * special.softmax(eta, -1)
    rising = special.gammaln(y + a) - special.gammaln(a) - special.gammaln(y + 1)
    total, n = a.sum(-1), y.sum(-1)
    return rising.sum(-1) - special.gammaln(n + total) + special.gammaln(total) + special.gammaln(n + 1)


def zero_inflated(head: Any, eta: Any, y: Any) -> Any:
    pi = special.expit(head.zero_logit.detach().double().numpy())
    present = np.log1p(-pi) + stats.poisson.logpmf(y, np.exp(eta))
    return np.where(y == 0, np.logaddexp(np.log(pi), present), present)


def gaussian(head: Any, eta: Any, y: Any) -> Any:
    scale, location = head.scale.double().numpy(), head.location.double().numpy()  # units of the data
    return stats.norm.logpdf(y, location + scale * eta, scale * np.exp(head.log_noise_scale.detach().double().numpy()))


FAMILIES: dict[str, tuple[Callable[[int], Any], Callable[..., Any]]] = {
    "Poisson": (lambda size: lr.Poisson(), poisson),
    "NegativeBinomial": (lambda size: lr.NegativeBinomial(), negative_binomial),
    "Binomial": (lambda size: lr.Binomial(2 * size), binomial),
    "BetaBinomial": (lambda size: lr.BetaBinomial(2 * size), beta_binomial),
    "Multinomial": (lambda size: lr.Multinomial(), multinomial),
    "DirichletMultinomial": (lambda size: lr.DirichletMultinomial(), dirichlet_multinomial),
    "ZeroInflatedPoisson": (lambda size: lr.ZeroInflatedPoisson(), zero_inflated),
    "Gaussian": (lambda size: lr.Gaussian(), gaussian),
}


@pytest.mark.parametrize("size", [1, 100, 10_000, 1_000_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_evidence_is_that_of_double_precision(family: str, size: int) -> None:
    make, by_hand = FAMILIES[family]
    y = np.random.default_rng(size).poisson(size, (2, STEPS, CHANNELS)).clip(max=2 * size).astype(float)
    data = lr.SequenceData.from_arrays({"y": y})
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.Deterministic(), observations={"y": make(size)})
    head: Any = model.observations["y"]
    head.initialise(data.observations["y"], data.masks["y"])
    with torch.no_grad():
        head.readout.weight.mul_(1e-2)
    posterior = lr.Posterior(model, lr.Guide(model), data, device="cpu")
    with torch.no_grad():
        kept = model.unroll(data).states().double().numpy()
        states = copy.deepcopy(model).double().unroll(data.to(dtype=torch.float64)).states().numpy()
    weight, baseline = (p.detach().double().numpy() for p in (head.readout.weight, head.readout.baseline))
    in_single, density = (np.reshape(by_hand(head, h @ weight.T + baseline, y), (2, STEPS, -1)) for h in (kept, states))
    exact = density.sum((1, 2))
    assert np.isfinite(exact).all()
    for found in (
        posterior.evidence("elbo").values,
        posterior.evidence("iwae", num_particles=2).values,
        posterior.evidence("smc", num_particles=2).values,
        posterior.one_step_ahead("y").log_prob.sum((1, 2)),
        posterior.log_likelihood(1, 1)[0],
    ):
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-3)
    none = posterior.one_step_ahead("y").log_prob_zero
    assert (none is None) == (family in ("Multinomial", "DirichletMultinomial", "Gaussian"))
    if none is not None:
        of_zero = by_hand(head, states @ weight.T + baseline, np.zeros_like(y))
        np.testing.assert_allclose(none, of_zero, rtol=1e-7, atol=1e-9)
    tracked = lr.OnlineFilter(posterior, num_particles=2)
    online = sum(float(tracked.update(row).log_prob or 0.0) for row in y[0, :20])
    assert online == pytest.approx(in_single[0, :20].sum(), abs=1e-3)  # its states are those that the model gives


def test_draws_stay_in_the_precision_of_the_data_and_chunks_do_not_matter() -> None:
    y = np.random.default_rng(0).poisson(1e4, (2, 60, 30)).astype(float)
    data, found = lr.SequenceData.from_arrays({"y": y}), []
    for largest in (None, 500):
        torch.manual_seed(0)
        model = lr.LatentRNN(
            data.spec,
            transition=lr.GRU(2),
            latent=lr.InitialState(1),
            observations={"y": lr.Poisson()},
            max_elements=largest,
        )
        model.observations["y"].initialise(data.observations["y"], data.masks["y"])  # type: ignore[operator]
        posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data, device="cpu")
        found.append(posterior.evidence("iwae", num_particles=3).values)
        assert posterior.predictive(2)["y"].dtype == torch.float32
        assert posterior.mean("y", 2).dtype == torch.float32
        assert posterior.one_step_ahead("y", num_particles=4).mean.dtype == torch.float32
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-3)


# -- the stated error ----------------------------------------------------------------------------------------------

LARGE = 1e6  # events of a step and channel: a seventh digit of the states is worth nats
UNINFORMED = ["elbo", "iwae", "smc", lr.AIS(temperatures=2, leapfrog=1, pilot=2)]


def twins(latent: Any, transition: Any = None) -> tuple[Any, Any]:
    """One model of large counts in single and in double precision, and their data: (model, guide, data) each."""
    rng = np.random.default_rng(0)
    drive = (np.sin(np.arange(80) / 9)[:, None] + 0.3 * rng.normal(size=(2, 80, 1))).astype(np.float32)
    y = rng.poisson(LARGE * np.exp(0.4 * drive @ rng.normal(size=(1, 10)))).astype(np.float32)
    single, double = (lr.SequenceData.from_arrays({"y": y}, {"drive": drive}, dtype=d) for d in DTYPES)
    torch.manual_seed(0)
    model = lr.LatentRNN(
        single.spec, transition=transition or lr.GRU(4), latent=latent, observations={"y": lr.Poisson()}
    )
    head: Any = model.observations["y"]
    head.initialise(single.observations["y"], single.masks["y"])
    guide = lr.Guide(model, family=lr.PerSequence(lr.MeanField()))
    guide.initialise(model, single)
    return (model, guide, single), (copy.deepcopy(model).double(), copy.deepcopy(guide).double(), double)


DTYPES = (torch.float32, torch.float64)


def without_influence(model: Any, guide: Any, data: Any) -> None:
    """Let the initial state be the same whatever the latent, and the guide be the prior: weights are then log p(y)."""
    with torch.no_grad():
        loc, scale = loc_and_scale(guide.variational_parameters(data)["initial"][0])
        model.latent.start.map.weight.zero_()
        model.latent.start.loc.copy_(loc)
        model.latent.start.log_scale.copy_(scale.log())


@pytest.mark.parametrize("kind", UNINFORMED, ids=str)
def test_stated_errors_are_never_below_the_rounding_that_is_left(kind: Any) -> None:
    single, double = twins(lr.InitialState(1, prior="learned"))
    without_influence(*single), without_influence(*double)
    stated, exact = (lr.Posterior(*each, device="cpu").evidence(kind, num_particles=4) for each in (single, double))
    off = (stated.values - exact.values).abs()
    assert exact.standard_error.max() < 1e-6
    if isinstance(kind, lr.AIS):  # in double precision throughout
        assert off.max() < 1e-6
        return
    assert off.max() > 1e-2  # what single precision loses
    assert (off < 6 * stated.standard_error).all()
    assert stated.standard_error.max() < 1e-7 * exact.values.abs().max()  # nor does it claim less than it can


@pytest.mark.parametrize("latent", [lr.Deterministic(), lr.Discrete(2)], ids=str)
@pytest.mark.parametrize("kind", ["exact", "elbo", "iwae", "smc", "auto"])
def test_what_is_called_exact_is_exact_to_the_last_digits(latent: Any, kind: str) -> None:
    single, double = twins(latent)
    posterior, twin = (lr.Posterior(*each, device="cpu") for each in (single, double))
    found, exact = posterior.evidence(kind), twin.evidence(kind)
    assert not found.standard_error.any()
    ahead, of_twin = posterior.one_step_ahead("y"), twin.one_step_ahead("y")
    assert ahead.exact
    for values, expected in (
        (found.values, exact.values),
        (posterior.log_likelihood(1, 1)[0], exact.values),
        (ahead.log_prob, of_twin.log_prob),  # of every channel by itself
    ):
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-9)
    with torch.no_grad():  # the control: in single precision throughout it is nats off
        model, guide, data = single
        weights = log_weights(model.eval(), guide, data, 1)[0]
    assert (weights - exact.values).abs().max() > 1e-2


class SingleOnly(lr.Transition):
    """Holds a tensor that torch does not know of, and that stays in single precision."""

    hidden_size = state_size = 2

    def build(self, input_size: int) -> None:
        self.weight, self.kept = torch.nn.Parameter(torch.eye(2)), (torch.eye(2),)

    def step(self, state: Any, inputs: Any) -> Any:
        return torch.tanh(state @ self.weight + inputs.sum(-1, keepdim=True) @ self.kept[0][:1])


@pytest.mark.parametrize("latent", [lr.Deterministic(), lr.InitialState(1)], ids=str)
@pytest.mark.parametrize("kind", ["iwae", lr.AIS(temperatures=2, leapfrog=1, pilot=2)], ids=str)
def test_parts_that_know_single_precision_alone_are_taken_to_be_off_by_a_rounding(latent: Any, kind: Any) -> None:
    (model, guide, data), _ = twins(latent, SingleOnly())
    found = lr.Posterior(model, guide, data, device="cpu").evidence(kind, num_particles=2)
    assert (found.standard_error >= torch.finfo(torch.float32).eps * found.values.abs()).all()
    with pytest.raises(RuntimeError):
        model.double()(data.to(dtype=torch.float64))
