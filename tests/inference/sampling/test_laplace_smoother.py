"""Laplace's approximation of states: exact under Gaussian heads, else mode and curvature of a dense computation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg, optimize, special

import latentrnn as lr

Array = NDArray[np.float64]
LENGTHS = (9, 14, 5)
QUIET = lr.Reporting(progress=False)


def make(
    heads: Mapping[str, lr.Observation],
    latent: lr.Latent | None = None,
    *,
    states: int = 2,
    seed: int = 0,
    **options: Any,
) -> tuple[lr.LatentRNN, lr.SequenceData]:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {}
    for name in heads:
        clock = options.get("clocks", {}).get(name, 1)
        draw = (
            (lambda n: rng.normal(size=(n, 3))) if name.startswith("v") else (lambda n: rng.poisson(1.5, (n, 3)) * 1.0)
        )
        values[name] = [draw(n // clock) for n in LENGTHS]
        for each in values[name]:
            each[rng.random(each.shape) < 0.2] = np.nan
    x = [rng.normal(size=(n, 1)) for n in LENGTHS]
    data = lr.SequenceData.from_arrays(values, {"x": x}, dtype=torch.float64, **options)
    latent = lr.MarkovNormal() if latent is None else latent
    model = lr.LatentRNN(data.spec, transition=lr.Linear(states), latent=latent, observations=heads).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return model, data


@pytest.mark.parametrize("options", [{}, {"clocks": {"v": 2}}], ids=["every step", "slow head"])
def test_with_gaussian_heads_every_draw_gives_the_exact_evidence(options: dict[str, Any]) -> None:
    heads = {"v": lr.Gaussian("full"), "vlow": lr.Gaussian()}
    model, data = make(heads, **options)
    exact, _ = make(heads, lr.LinearGaussian(), **options)
    exact.load_state_dict(model.state_dict())
    result = lr.laplace_smoother(model, data, device="cpu")
    found = result.posterior(data).evidence("iwae", 4)
    expected = lr.Posterior(exact, lr.Guide(exact), data, device="cpu").evidence("exact")
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-6)
    assert float(found.standard_error.max()) < 1e-6
    assert result.best_step == 1  # one step of Newton's


def dense_mode(model: lr.LatentRNN, data: lr.SequenceData, n: int) -> tuple[Array, Array]:
    """Mode and covariance of z_{1:T} of one sequence with Poisson counts, by a dense prior and SciPy."""
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    A, size, steps = weights["transition.recurrent_weight"], 2, int(data.lengths[n])
    drift = data.covariates["x"][n, :steps].numpy() @ weights["transition.input_weight"].T + weights["transition.bias"]
    noise = np.diag(np.exp(2 * weights["latent.log_scale"]))
    mean, covariance = weights["latent.initial_loc"], np.diag(np.exp(2 * weights["latent.initial_log_scale"]))
    means, blocks = [], []
    for t in range(steps):
        mean, covariance = A @ mean + drift[t], A @ covariance @ A.T + noise
        means.append(mean)
        blocks.append(covariance)
    prior = np.zeros((steps * size, steps * size))
    for t in range(steps):
        block = blocks[t]
        for s in range(t, steps):
            prior[s * size : (s + 1) * size, t * size : (t + 1) * size] = block
            prior[t * size : (t + 1) * size, s * size : (s + 1) * size] = block.T
            block = A @ block
    precision, center = linalg.inv(prior), np.concatenate(means)
    C, d = weights["observations.n.readout.weight"], weights["observations.n.readout.baseline"]
    y, seen = data.observations["n"][n, :steps].numpy(), data.masks["n"][n, :steps].numpy()

    def energy(z: Array) -> tuple[float, Array]:
        eta = z.reshape(steps, size) @ C.T + d
        rate = np.exp(eta)
        total = 0.5 * (z - center) @ precision @ (z - center) + (seen * (rate - y * eta + special.gammaln(y + 1))).sum()
        return total, precision @ (z - center) + ((seen * (rate - y)) @ C).ravel()

    z = optimize.minimize(energy, center, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000}).x
    rate = np.exp(z.reshape(steps, size) @ C.T + d) * seen
    curvature = linalg.block_diag(*[C.T @ np.diag(r) @ C for r in rate])
    return z, linalg.inv(precision + curvature)


def test_modes_and_covariances_of_counts_are_those_of_a_dense_computation() -> None:
    model, data = make({"n": lr.Poisson()})
    result = lr.laplace_smoother(model, data, device="cpu")
    guide = result.guide.double()
    parameters = guide.variational_parameters(data)
    chain = guide.local.base.trajectory(parameters, data)
    for n, steps in enumerate(LENGTHS):
        mode, covariance = dense_mode(model, data, n)
        np.testing.assert_allclose(chain.mean[n, :steps].detach().numpy().ravel(), mode, atol=1e-5)
        blocks = [covariance[2 * t : 2 * t + 2, 2 * t : 2 * t + 2] for t in range(steps)]
        np.testing.assert_allclose(chain.covariance[n, :steps].detach().numpy(), blocks, atol=1e-5)


@pytest.mark.parametrize(
    "head",
    [
        lambda: lr.Poisson(link="softplus"),
        lambda: lr.NegativeBinomial(),
        lambda: lr.Poisson(covariates=["x"], gain=lr.StimulusGain("x")),
        lambda: lr.StudentT(),
        lambda: lr.ZeroInflatedPoisson(),
        lambda: lr.Poisson(readout=lr.MLPReadout(3)),
    ],
    ids=["softplus", "negative binomial", "gated gain", "student t", "zero-inflated", "mlp readout"],
)
def test_evidence_by_the_guide_is_that_of_particle_filters(head: Any) -> None:
    name = "v" if isinstance(head(), lr.StudentT) else "n"
    model, data = make({name: head()}, seed=3)
    posterior = lr.laplace_smoother(model, data, device="cpu").posterior(data)
    found, filters = posterior.evidence("iwae", 2000), posterior.evidence(lr.SMC(num_filters=8), 2000)
    error = (found.standard_error**2 + filters.standard_error**2) ** 0.5
    assert bool((abs(found.values - filters.values) < 6 * error + 1e-3).all())
    assert float(found.standard_error.max()) < 0.05
    elbo = posterior.evidence("elbo", 500)
    assert bool((elbo.values < found.values + 6 * elbo.standard_error + 1e-3).all())
    assert float((found.values - elbo.values).max()) < 0.5


def test_draws_are_saved_and_a_fit_goes_on_from_them(tmp_path: Path) -> None:
    model, data = make({"n": lr.Poisson()})
    result = lr.laplace_smoother(model, data, device="cpu")
    result.save(tmp_path / "fit")
    again = lr.load(tmp_path / "fit").posterior(data)
    torch.testing.assert_close(
        again.latents(3)["states"], result.posterior(data).latents(3)["states"], rtol=0, atol=0, equal_nan=True
    )
    before = float(result.posterior(data).evidence("elbo", 200).total)
    guide = lr.Guide(result.model, family=result.guide.local.fresh())
    fitted = lr.fit(result.model, guide, data, steps=60, start_from=result, seed=0, reporting=QUIET)
    after = float(fitted.posterior(data).evidence("elbo", 200).total)
    assert after > before


def test_long_sequences_of_large_counts_are_followed() -> None:
    rng = np.random.default_rng(0)
    z = np.cumsum(0.3 * rng.normal(size=(600, 1)), 0)
    y = rng.poisson(np.exp(4 + z @ np.ones((1, 5)))).astype(float)
    data = lr.SequenceData.from_arrays({"n": y[None]})
    head = lr.Poisson(fixed={"weight": 1.0, "baseline": 4.0})
    still = {"weight": 1.0, "input_weight": 0.0, "bias": 0.0}
    latent = lr.MarkovNormal(fixed={"scale": 0.3, "initial_loc": 0.0, "initial_scale": 0.1})
    model = lr.LatentRNN(data.spec, transition=lr.Linear(1, fixed=still), latent=latent, observations={"n": head})
    result = lr.laplace_smoother(model, data, device="cpu")
    draws = result.posterior(data).latents(400)["states"][:, 0, :, 0].double()
    error = (draws.mean(0) - torch.as_tensor(z[:, 0])) / draws.std(0)
    assert 0.85 < float(error.square().mean().sqrt()) < 1.15  # of 600 steps that hardly depend on each other
    assert result.best_step < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": lr.LinearGaussian(), "head": lr.Gaussian()}, "needs no guide"),
        ({"latent": lr.MarkovNormal(scale="state")}, "constant scale"),
        ({"latent": lr.Innovations(2)}, "expected Linear under MarkovNormal"),
        ({"head": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})}, r"\['v.readout.baseline'\] have priors"),
        ({"head": lr.Poisson(readout=lr.CausalAttention(2))}, "depends on more than the present state"),
        ({"head": lr.Poisson(feedback=lr.History(2, into="readout"))}, "feeds back"),
    ],
)
def test_what_has_no_gaussian_chain_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"v": rng.poisson(1.0, (2, 6, 2)).astype(float)})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(2),
        latent=change.get("latent", lr.MarkovNormal()),
        observations={"v": change.get("head", lr.Poisson())},
    )
    with pytest.raises(ValueError, match=message):
        lr.laplace_smoother(model, data, device="cpu")


def test_a_mode_that_is_not_reached_is_said() -> None:
    model, data = make({"n": lr.Poisson()})
    with pytest.raises(ValueError, match=r"not reached within 1 Newton steps, .* nats remain"):
        lr.laplace_smoother(model, data, steps=1, device="cpu")
    with pytest.raises(TypeError, match="model must be a LatentRNN"):
        lr.laplace_smoother(data, data)  # type: ignore[arg-type]
