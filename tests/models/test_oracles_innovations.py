"""Exact oracle for random inputs and random initial states: with `Linear` and `Gaussian` they are jointly Gaussian.

All of a sequence's latents x = [g, u_1, ..., u_T] have a Gaussian prior and the observations are affine in them, so
evidence and posterior are those of one dense linear-Gaussian model, unrolled here step by step in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyro
import pytest
import torch
from scipy import linalg, stats

import latentrnn as lr
from latentrnn.inference import elbo_terms
from latentrnn.inference.objectives.terms import log_weights
from tests import oracles
from tests.linear_gaussian import ExactGuide, set_linear
from tests.oracles import Array

# what is computed is held to oracles that count steps, whatever time lies between them
pytestmark = pytest.mark.filterwarnings("ignore:LatentRNN. the data have irregular times")
TOLERANCE = 1e-9  # nats
DIM, INITIAL = 2, 3
LATENTS = {
    "initial state": lr.InitialState(INITIAL),
    "white": lr.Innovations(DIM),
    "white, initial": lr.Innovations(DIM, initial=INITIAL),
    "ar1": lr.Innovations(DIM, prior="ar1"),
    "ar1, initial": lr.Innovations(DIM, initial=INITIAL, prior="ar1"),
}


@dataclass(frozen=True)
class Instance:
    """A model with random weights and ragged data with holes; what is exact of each sequence."""

    model: lr.LatentRNN
    data: lr.SequenceData
    posteriors: list[tuple[Array, Array]]
    evidence: Array

    def guide(self) -> ExactGuide:
        sites = {site.name: site.dim for site in self.model.latent_sites()}
        along = ("innovations", DIM) if "innovations" in sites else None
        return ExactGuide(self.posteriors, initial=sites.get("initial", 0), along_time=along)


def make(latent: lr.models.latents.Latent, clock: str, seed: int = 0) -> Instance:
    rng = np.random.default_rng(seed)
    numbers = oracles.random_lgssm(rng, state_dim=2, channels=3, inputs=1)
    lengths = [9, 5, 1]
    stamps = [np.cumsum(rng.uniform(0.05, 0.5, n)) + 3.0 for n in lengths]
    y = [np.where(rng.random((n, 3)) < 0.25, np.nan, rng.normal(size=(n, 3))) for n in lengths]
    u = [rng.normal(size=(n, 1)) for n in lengths]
    data = lr.SequenceData.from_arrays(
        {"y": y},
        {"u": u},
        dt=0.1 if clock == "dt" else None,
        times=stamps if clock == "times" else None,
        dtype=torch.float64,
    )
    pyro.set_rng_seed(seed)
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(2), latent=latent, observations={"y": lr.Gaussian(covariance="full")}
    ).double()
    with torch.no_grad():
        for parameter in model.latent.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        if clock != "steps" and hasattr(model.latent, "log_time_constant"):
            model.latent.log_time_constant -= 1.5  # about 0.2 seconds
        set_linear(model, numbers)
        weight = model.transition.input_weight
        weight[:, 1:] = torch.randn_like(weight[:, 1:])
    step = {"steps": 1.0, "dt": 0.1}.get(clock)
    found = [
        exact(model, numbers, y[i], u[i], stamps[i] if step is None else step * np.arange(lengths[i])) for i in range(3)
    ]
    return Instance(model, data, [(mean, cov) for mean, cov, _ in found], np.array([e for _, _, e in found]))


def exact(model: lr.LatentRNN, numbers: oracles.LGSSM, y: Array, u: Array, times: Array) -> tuple[Array, Array, float]:
    """Posterior mean and covariance of all latents of one sequence, and its log evidence."""
    latent = {name: value.detach().numpy() for name, value in model.latent.named_parameters()}
    random_input = model.transition.input_weight.detach().numpy()[:, 1:]
    first = INITIAL if "start.map.weight" in latent else 0
    dim = random_input.shape[1]
    prior = linalg.block_diag(np.eye(first), trajectory_covariance(latent, times, dim))

    def observed_mean(x: Array) -> Array:
        h = latent["start.map.weight"] @ x[:first] + latent["start.map.bias"] if first else latent["initial_state"]
        means = []
        for u_t, v_t in zip(u, x[first:].reshape(len(u), dim), strict=True):
            h = numbers.A @ h + numbers.b + numbers.B @ u_t + random_input @ v_t
            means.append(numbers.C @ h + numbers.d)
        return np.concatenate(means)

    offset = observed_mean(np.zeros(len(prior)))
    read = np.stack([observed_mean(x) - offset for x in np.eye(len(prior))], 1)
    seen = ~np.isnan(y.ravel())
    read, residual = read[seen], (y.ravel() - offset)[seen]
    noise = np.kron(np.eye(len(y)), numbers.R)[np.ix_(seen, seen)]
    total = read @ prior @ read.T + noise
    gain = np.linalg.solve(total, read @ prior).T
    covariance = prior - gain @ read @ prior
    evidence = stats.multivariate_normal.logpdf(residual, np.zeros(len(residual)), total) if seen.any() else 0.0
    return gain @ residual, 0.5 * (covariance + covariance.T), float(evidence)


def trajectory_covariance(latent: dict[str, Array], times: Array, dim: int) -> Array:
    """Prior covariance of u_1, ..., u_T, flattened over (time, dim)."""
    covariance = np.zeros((len(times), dim, len(times), dim))
    for d in range(dim):
        if "log_time_constant" in latent:
            gap = np.abs(np.subtract.outer(times, times))
            kernel = np.exp(-gap / np.exp(latent["log_time_constant"][d]))
        else:
            kernel = np.eye(len(times))
        covariance[:, d, :, d] = np.exp(2 * latent["log_scale"][d]) * kernel
    return covariance.reshape(len(times) * dim, len(times) * dim)


@pytest.mark.parametrize("clock", ["steps", "dt", "times"])
@pytest.mark.parametrize("name", LATENTS)
def test_every_draw_of_an_exact_guide_gives_the_evidence(name: str, clock: str) -> None:
    instance = make(LATENTS[name], clock)
    found = log_weights(instance.model, instance.guide(), instance.data, 4).detach()
    np.testing.assert_allclose(found, np.tile(instance.evidence, (4, 1)), rtol=0, atol=TOLERANCE)
    batch = instance.data.batch(torch.tensor([2, 1]))
    elbo = elbo_terms(instance.model, instance.guide(), batch, analytic_kl=False).elbo().item()
    assert elbo == pytest.approx(1.5 * instance.evidence[1:].sum(), rel=0, abs=TOLERANCE)


@pytest.mark.parametrize("name", ["ar1", "ar1, initial"])
def test_irregular_times_matter(name: str) -> None:
    """Negative control: the posterior of a regular clock is not that of the recorded times."""
    regular, irregular = make(LATENTS[name], "dt"), make(LATENTS[name], "times")
    found = log_weights(irregular.model, regular.guide(), irregular.data, 4).detach().numpy()
    assert np.abs(found - irregular.evidence)[:, :2].max() > 1e-2


@pytest.mark.parametrize("clock", ["steps", "dt", "times"])
@pytest.mark.parametrize("name", LATENTS)
def test_every_parameter_has_a_finite_gradient(name: str, clock: str) -> None:
    """First steps (no gap before them), padding and missing entries included."""
    instance = make(LATENTS[name], clock)
    elbo_terms(instance.model, instance.guide(), instance.data, analytic_kl=False).elbo().backward()
    for path, parameter in instance.model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("path", ["latent.log_scale", "latent.log_time_constant"])
def test_gradients_average_to_the_slope_of_the_evidence(path: str) -> None:
    """Fisher's identity: E[d log p(y, z) / d theta] under the exact posterior is d log p(y) / d theta."""
    instance = make(LATENTS["ar1, initial"], "times")
    guide, parameter = instance.guide(), instance.model.get_parameter(path)
    grads = []
    for _ in range(60):
        elbo = elbo_terms(instance.model, guide, instance.data, num_particles=50, analytic_kl=False).elbo()
        grads.append(torch.autograd.grad(elbo, parameter)[0][0].item())
    with torch.no_grad():
        above, below = (evidence_at(instance, parameter, step) for step in (1e-5, -1e-5))
    error = np.std(grads, ddof=1) / 60**0.5
    assert abs(np.mean(grads) - (above - below) / 2e-5) < 6 * error
    assert abs(np.mean(grads)) > 12 * error  # zero, or the slope of another parameter, would be noticed


def evidence_at(instance: Instance, parameter: torch.Tensor, step: float) -> float:
    """Total log evidence with the first entry of a parameter moved by `step`."""
    parameter[0] += step
    model, data = instance.model, instance.data
    head, transition = model.observations["y"], model.transition
    numbers = oracles.LGSSM(
        A=transition.recurrent_weight.numpy(),
        b=transition.bias.numpy(),
        B=transition.input_weight.numpy()[:, :1],
        C=head.readout.weight.numpy(),
        d=head.readout.baseline.numpy(),
        R=(head.noise_scale_tril @ head.noise_scale_tril.T).numpy(),
        Q=np.eye(2),
        m0=np.zeros(2),
        S0=np.eye(2),
    )
    total = 0.0
    for i, length in enumerate(data.lengths.tolist()):
        mask = data.masks["y"][i, :length].numpy()
        y = np.where(mask, data.observations["y"][i, :length].numpy(), np.nan)
        u, times = data.covariates["u"][i, :length].numpy(), data.times[i, :length].numpy()
        total += exact(model, numbers, y, u, times)[2]
    parameter[0] -= step
    return total
