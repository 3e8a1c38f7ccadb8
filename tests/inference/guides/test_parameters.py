"""Posteriors of parameters: with the conjugate posterior as guide every draw gives the evidence of Bayesian regression.

With a deterministic state the readout is a linear regression on known states, so that posterior, evidence and
predictive density of `weight` and `baseline` under Normal priors are Gaussian and known.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from scipy import linalg, special, stats

import latentrnn as lr
from latentrnn.inference import elbo_terms
from tests.oracles import Array

CHANNELS, HIDDEN = 2, 3
PRIORS = {"weight": dist.Normal(0.0, 0.7), "baseline": dist.Normal(0.2, 1.5)}


@dataclass(frozen=True)
class Regression:
    """One Gaussian over all observed entries: y = X theta + noise, theta ~ Normal(mean, diag(variance))."""

    model: lr.LatentRNN
    data: lr.SequenceData
    designs: list[Array]  # per sequence (entry, parameter)
    noises: list[Array]
    values: list[Array]
    prior: tuple[Array, Array]

    def joint(self, sequences: list[int]) -> tuple[Array, Array, Array]:
        """Stack the design, the noise covariance and the values of some sequences."""
        return (
            np.concatenate([self.designs[i] for i in sequences]),
            linalg.block_diag(*[self.noises[i] for i in sequences]),
            np.concatenate([self.values[i] for i in sequences]),
        )

    def evidence(self) -> float:
        X, noise, y = self.joint(list(range(len(self.data))))
        mean, variance = self.prior
        return float(stats.multivariate_normal.logpdf(y, X @ mean, X @ np.diag(variance) @ X.T + noise))

    def posterior(self, sequences: list[int]) -> tuple[Array, Array]:
        X, noise, y = self.joint(sequences)
        mean, variance = self.prior
        precision = np.diag(1 / variance) + X.T @ np.linalg.solve(noise, X)
        covariance = np.linalg.inv(precision)
        return covariance @ (mean / variance + X.T @ np.linalg.solve(noise, y)), covariance


def make(priors: dict[str, dist.Distribution], covariance: str = "full") -> Regression:
    rng = np.random.default_rng(0)
    lengths = [6, 3, 8, 4]
    y = [np.where(rng.random((n, CHANNELS)) < 0.2, np.nan, rng.normal(size=(n, CHANNELS))) for n in lengths]
    x = [rng.normal(size=(n, 2)) for n in lengths]
    data = lr.SequenceData.from_arrays({"y": y}, {"x": x}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(HIDDEN),
        latent=lr.Deterministic(),
        observations={"y": lr.Gaussian(covariance=covariance, priors=priors)},
    ).double()
    head = model.observations["y"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn_like(parameter))
        head.readout.weight.copy_(0.5 * torch.randn_like(head.readout.weight))
    R = np.diag(np.exp(2 * head.log_noise_scale.detach().numpy()))
    if covariance == "full":
        root = torch.tril(head.noise_ratio, -1) + torch.diag_embed(head.log_noise_scale.exp())
        head.set_noise_covariance((root @ root.mT).detach())
        R = (head.noise_scale_tril @ head.noise_scale_tril.T).detach().numpy()
    states = model.transition.scan(data.covariates["x"], model.latent.initial_state)[0].detach().numpy()
    offset = np.zeros(CHANNELS)
    means, variances = [], []
    for name, (prior, start) in model.parameter_sites().items():
        means.append(np.full(start.numel(), prior.mean.flatten()[0].item()))
        variances.append(np.full(start.numel(), prior.variance.flatten()[0].item()))
        assert name in ("y.readout.weight", "y.readout.baseline")
    designs, noises, values = [], [], []
    for i, length in enumerate(lengths):
        rows = []
        for t in range(length):
            weight = np.kron(np.eye(CHANNELS), states[i, t])  # eta_c = sum_h W[c, h] h + b_c
            offset = np.zeros(CHANNELS) if "weight" in priors else head.readout.weight.numpy(force=True) @ states[i, t]
            parts = {"y.readout.weight": weight, "y.readout.baseline": np.eye(CHANNELS)}
            rows.append((np.concatenate([parts[name] for name in model.parameter_sites()], 1), y[i][t] - offset))
        seen = ~np.isnan(y[i].ravel())
        designs.append(np.concatenate([row for row, _ in rows])[seen])
        values.append(np.concatenate([value for _, value in rows])[seen])
        noises.append(np.kron(np.eye(length), R)[np.ix_(seen, seen)])
    return Regression(model, data, designs, noises, values, (np.concatenate(means), np.concatenate(variances)))


def multivariate_guide(regression: Regression, sequences: list[int]) -> lr.Guide:
    """The guide of the conjugate posterior given some of the sequences."""
    guide = lr.Guide(regression.model, global_family="multivariate").double()
    mean, covariance = regression.posterior(sequences)
    tril = np.linalg.cholesky(covariance)
    scale = np.diag(tril)
    with torch.no_grad():
        guide.parameter_sites.loc.copy_(torch.as_tensor(mean))
        guide.parameter_sites.log_scale.copy_(torch.as_tensor(np.log(scale)))
        guide.parameter_sites.mixing.copy_(torch.as_tensor(tril / scale[:, None]))
    return guide


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("particles", [1, 4])
def test_every_draw_of_the_conjugate_posterior_gives_the_evidence(covariance: str, particles: int) -> None:
    regression = make(PRIORS, covariance)
    guide = multivariate_guide(regression, [0, 1, 2, 3])
    pyro_s = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=1)
    for _ in range(3):
        ours = elbo_terms(regression.model, guide, regression.data, num_particles=particles, analytic_kl=False)
        assert ours.elbo().item() == pytest.approx(regression.evidence(), rel=0, abs=1e-9)
        theirs = -pyro_s.loss(regression.model, guide, regression.data)
        assert theirs == pytest.approx(regression.evidence(), rel=0, abs=1e-9)


def test_where_the_posterior_factorises_the_independent_family_is_exact() -> None:
    """A baseline per channel under independent noise: sampled, and by the closed form in expectation."""
    regression = make({"baseline": PRIORS["baseline"]}, "diagonal")
    guide = lr.Guide(regression.model).double()
    mean, covariance = regression.posterior([0, 1, 2, 3])
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-12
    family = guide.parameter_sites
    with torch.no_grad():
        family.loc["y_readout_baseline"].copy_(torch.as_tensor(mean))
        family.log_scale["y_readout_baseline"].copy_(torch.as_tensor(0.5 * np.log(np.diag(covariance))))
    elbo = elbo_terms(regression.model, guide, regression.data, num_particles=4, analytic_kl=False).elbo()
    assert elbo.item() == pytest.approx(regression.evidence(), rel=0, abs=1e-9)
    guide = copy.deepcopy(guide)  # as every fit does: the closed form must survive it
    exact = elbo_terms(regression.model, guide, regression.data).kl["parameters"].item()
    prior_mean, prior_variance = regression.prior
    ratio = np.diag(covariance) / prior_variance
    expected = 0.5 * (ratio - 1 - np.log(ratio) + (mean - prior_mean) ** 2 / prior_variance).sum()
    assert exact == pytest.approx(expected, abs=1e-10)


def test_batches_weigh_the_likelihood_up_and_the_parameters_once() -> None:
    """For one draw of the parameters, the ELBOs of an epoch's batches average to that of the whole plate."""
    regression = make(PRIORS)
    guide, elbos = multivariate_guide(regression, [0, 1, 2, 3]), []
    for chosen in ([0, 3], [1, 2]):
        pyro.set_rng_seed(5)  # the only random numbers are those of the parameters
        batch = regression.data.batch(torch.tensor(chosen))
        elbos.append(elbo_terms(regression.model, guide, batch, analytic_kl=False).elbo().item())
    assert np.mean(elbos) == pytest.approx(regression.evidence(), rel=0, abs=1e-9)
    assert abs(elbos[0] - elbos[1]) > 0.1


@pytest.mark.parametrize("broken", ["location", "scale", "mixing", "prior"])
def test_the_conjugate_oracle_notices_what_is_wrong(broken: str) -> None:
    regression = make(PRIORS)
    guide = multivariate_guide(regression, [0, 1, 2, 3])
    with torch.no_grad():
        if broken == "location":
            guide.parameter_sites.loc += 1e-4
        if broken == "scale":
            guide.parameter_sites.log_scale += 1e-4
        if broken == "mixing":
            guide.parameter_sites.mixing *= 1.001
    model = regression.model
    if broken == "prior":
        model = make({**PRIORS, "weight": dist.Normal(0.0, 0.7001)}).model
    elbo = elbo_terms(model, guide, regression.data, analytic_kl=False).elbo().item()
    assert abs(elbo - regression.evidence()) > 1e-7


def test_held_out_evidence_is_the_predictive_density() -> None:
    """Fitted on two sequences: each of the others has log Normal(y; X m, X V X^T + R), theta integrated out."""
    regression = make(PRIORS)
    guide = multivariate_guide(regression, [0, 1])
    mean, covariance = regression.posterior([0, 1])
    found = lr.Posterior(regression.model, guide, regression.data[[2, 3]], device="cpu").evidence("iwae", 6000)
    for i, (value, error) in enumerate(zip(found.values, found.standard_error, strict=True)):
        X, noise, y = regression.joint([i + 2])
        expected = stats.multivariate_normal.logpdf(y, X @ mean, X @ covariance @ X.T + noise)
        assert 0 < error < 0.1
        assert abs(value - expected) < 6 * error
        plug_in = stats.multivariate_normal.logpdf(y, X @ mean, noise)
        assert abs(value - plug_in) > 6 * error  # not the density at the posterior mean


def test_log_likelihood_is_that_of_each_draw_of_the_parameters() -> None:
    regression = make(PRIORS)
    posterior = lr.Posterior(
        regression.model, multivariate_guide(regression, [0, 1, 2, 3]), regression.data, device="cpu"
    )
    parameters, found = posterior.parameters(7), posterior.log_likelihood(num_draws=7)
    assert found.shape == (7, 4)
    for draw in range(7):
        theta = torch.cat([parameters[name][draw].flatten() for name in regression.model.parameter_sites()]).numpy()
        for i in range(4):
            X, noise, y = regression.joint([i])
            expected = stats.multivariate_normal.logpdf(y, X @ theta, noise)
            assert found[draw, i].item() == pytest.approx(expected, abs=1e-9)


def test_draws_of_parameters_have_the_guide_s_moments() -> None:
    regression = make(PRIORS)
    mean, covariance = regression.posterior([0, 1, 2, 3])
    guide = multivariate_guide(regression, [0, 1, 2, 3])
    drawn = lr.Posterior(regression.model, guide, regression.data, device="cpu").parameters(8000)
    assert drawn["y.readout.weight"].shape == (8000, CHANNELS, HIDDEN)
    theta = torch.cat([drawn[name].flatten(1) for name in regression.model.parameter_sites()], 1).numpy()
    standard = np.linalg.solve(np.linalg.cholesky(covariance), (theta - mean).T)
    assert np.abs(standard.mean(1)).max() * 8000**0.5 < 6
    assert np.abs(standard @ standard.T / 8000 - np.eye(len(mean))).max() * (8000 / 2) ** 0.5 < 6


# -- constrained supports --------------------------------------------------------------------------------------------

CONSTRAINED = {
    "positive": (dist.LogNormal(-0.5, 0.8), np.log, lambda v: -np.log(v), stats.lognorm(s=0.8, scale=np.exp(-0.5))),
    "gamma": (dist.Gamma(2.0, 3.0), np.log, lambda v: -np.log(v), stats.gamma(2.0, scale=1 / 3.0)),
    "half normal": (dist.HalfNormal(0.6), np.log, lambda v: -np.log(v), stats.halfnorm(scale=0.6)),
    "unit interval": (
        dist.Beta(2.0, 1.5),
        special.logit,
        lambda v: -np.log(v * (1 - v)),
        stats.beta(2.0, 1.5),
    ),
    "real": (dist.StudentT(4.0, 0.1, 0.5), lambda v: v, np.zeros_like, stats.t(4.0, 0.1, 0.5)),
}


@pytest.mark.parametrize("family", ["normal", "multivariate"])
@pytest.mark.parametrize("support", CONSTRAINED)
def test_a_guide_on_a_constrained_support_has_the_density_of_its_draws(support: str, family: str) -> None:
    """log q(v) = log Normal(f(v)) + log |f'(v)|, and the model's site has the prior's density, both by SciPy."""
    prior, free, log_slope, reference = CONSTRAINED[support]
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": rng.poisson(1.0, (2, 4, 3)).astype(float)}, {"s": rng.normal(size=(2, 4, 1))}, dtype=torch.float64
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(2),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(gain=lr.StimulusGain("s", priors={"beta": prior}))},
    ).double()
    guide = lr.Guide(model, global_family=family).double()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    guide_trace = poutine.trace(guide).get_trace(data)
    value = guide_trace.nodes["y.gain.beta"]["value"].detach().numpy().ravel()
    if support == "unit interval":
        assert ((value > 0) & (value < 1)).all()
    elif support != "real":
        assert (value > 0).all()
    if family == "normal":
        loc = guide.parameter_sites.loc["y_gain_beta"].numpy(force=True).ravel()
        covariance = np.diag(np.exp(2 * guide.parameter_sites.log_scale["y_gain_beta"].numpy(force=True).ravel()))
    else:
        sites = guide.parameter_sites
        loc, scale = sites.loc.numpy(force=True), np.exp(sites.log_scale.numpy(force=True))
        tril = scale[:, None] * (np.tril(sites.mixing.numpy(force=True), -1) + np.eye(3))
        covariance = tril @ tril.T
    expected = stats.multivariate_normal.logpdf(free(value), loc, covariance) + log_slope(value).sum()
    assert guide_trace.log_prob_sum().item() == pytest.approx(expected, abs=1e-9)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(data)
    model_trace.compute_log_prob()
    found = model_trace.nodes["y.gain.beta"]["log_prob"].item()
    # arguments of priors are stored in single precision: 0.8 is 0.800000012
    assert found == pytest.approx(reference.logpdf(value).sum(), rel=1e-6)


@pytest.mark.parametrize("family", ["normal", "multivariate"])
def test_a_guide_starts_where_the_model_does(family: str) -> None:
    regression = make(PRIORS)
    guide = lr.Guide(regression.model, global_family=family).double()
    guide.initialise(regression.model, regression.data)
    drawn = lr.Posterior(regression.model, guide, regression.data, device="cpu").parameters(2000)
    for name, (_, start) in regression.model.parameter_sites().items():
        standard = (drawn[name].mean(0) - start) / (0.05 / 2000**0.5)
        assert standard.abs().max() < 6
        assert start.abs().max() > 0 or name == "y.readout.baseline"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", ["normal", "multivariate", "point"])
@pytest.mark.parametrize("start", [30.0, 11.0, 2.0, -1.0])
def test_a_start_outside_an_interval_or_on_its_edge_begins_in_its_middle(
    family: str, dtype: torch.dtype, start: float
) -> None:
    """Next to an edge nothing has a gradient: what began there would have stayed, certain of it."""
    head = lr.StudentT(priors={"df": dist.Uniform(2.0, 11.0)})
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).standard_t(4, (3, 40, 2))}, dtype=dtype)
    observations = {"y": head}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=observations)
    ((name, (_, value)),) = model.parameter_sites().items()
    guide = lr.Guide(model, global_family=family).to(dtype)
    assert guide.parameter_sites is not None
    guide.parameter_sites.start_at({name: torch.tensor([start, 5.0], dtype=dtype).reshape(value.shape)})
    torch.testing.assert_close(
        guide.parameter_sites.centre()[name], torch.tensor([6.5, 5.0], dtype=dtype).reshape(value.shape)
    )
    model = model.to(dtype)
    elbo_terms(model, guide, data).elbo().backward()
    gradients = [parameter.grad for _, parameter in guide.named_parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool(gradient.any()) for gradient in gradients)
