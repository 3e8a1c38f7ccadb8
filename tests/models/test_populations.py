"""Priors with learned location and scale: their density written out, and sessions that lean on each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from scipy import stats

import latentrnn as lr
from tests.oracles import Array

LOCATION, SCALE = dist.Normal(0.5, 2.0), dist.LogNormal(-0.3, 0.6)
NOISE = 0.8
DRAWS = 300  # of NUTS


def sessions(values: dict[str, Array]) -> lr.SequenceData:
    """Join sessions of values (sequence, channel), one step per sequence."""
    parts = {
        name: lr.SequenceData.from_arrays({"y": value[:, None]}, dtype=torch.float64) for name, value in values.items()
    }
    return lr.SequenceData.join(parts)


def means(data: lr.SequenceData, prior: lr.Population | dist.Distribution, readout: dict | None = None) -> lr.LatentRNN:
    """y ~ Normal(baseline, NOISE^2): a model whose states say nothing, so that only baselines are left."""
    head = lr.Gaussian(priors={"baseline": prior, **(readout or {})})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(2),
        latent=lr.Deterministic(),
        observations=lr.per_session(data.spec, {"y": head}),
    ).double()
    with torch.no_grad():
        for one in model.observations.values():
            one.log_noise_scale.fill_(np.log(NOISE))
            one.readout.weight.zero_()
    return model


def two_sessions() -> lr.SequenceData:
    rng = np.random.default_rng(0)
    return sessions({"a": rng.normal(1.0, 1.0, (3, 2)), "b": rng.normal(1.0, 1.0, (2, 3))})


def test_sessions_are_members_of_one_population() -> None:
    model = means(two_sessions(), lr.Population("means"), {"weight": dist.Normal(0.0, 1.0)})
    assert list(model.populations) == ["means"]
    members = [(member.owner, member.path) for member in model.populations["means"][1]]
    assert members == [("y_a", "readout.baseline"), ("y_b", "readout.baseline")]
    assert set(model.parameter_sites()) == {
        "means.location", "means.scale",
        *(f"y_{session}.readout.{name}" for session in "ab" for name in ("weight", "baseline")),
    }  # fmt: skip
    for one, value in zip(model.observations.values(), (1.0, 3.0), strict=True):
        one.readout.baseline.fill_(value)
    starts = torch.tensor([1.0] * 2 + [3.0] * 3).double()
    found = model.parameter_sites()
    torch.testing.assert_close(found["means.location"][1], starts.mean())
    torch.testing.assert_close(found["means.scale"][1], starts.std(correction=0))


@pytest.mark.parametrize("particles", [1, 3])
def test_the_density_is_the_one_written_out(particles: int) -> None:
    """log p(m) + log p(s) + sum_i log Normal(theta_i; m, s^2), particle by particle, by SciPy."""
    data = two_sessions()
    model = means(data, lr.Population("means", location=LOCATION, scale=SCALE))
    with pyro.plate("particles", particles, dim=-2):
        trace = poutine.trace(model).get_trace(data)
    trace.compute_log_prob()
    value = {
        name: site["value"].detach().numpy() for name, site in trace.nodes.items() if "means" in name or "." in name
    }
    m, s = (value[f"means.{part}"].reshape(particles) for part in ("location", "scale"))
    found = trace.nodes["means.location"]["log_prob"].reshape(particles).numpy()
    np.testing.assert_allclose(found, stats.norm(0.5, 2.0).logpdf(m), rtol=1e-6)
    found = trace.nodes["means.scale"]["log_prob"].reshape(particles).numpy()
    # arguments of priors are stored in single precision
    np.testing.assert_allclose(found, stats.lognorm(s=0.6, scale=np.exp(-0.3)).logpdf(s), rtol=1e-6)
    for head, size in (("y_a", 2), ("y_b", 3)):
        site = f"{head}.readout.baseline"
        theta = value[site].reshape(particles, size)
        found = trace.nodes[site]["log_prob"].reshape(particles).numpy()
        np.testing.assert_allclose(found, stats.norm(m[:, None], s[:, None]).logpdf(theta).sum(1), rtol=1e-10)


def grid(values: dict[str, Array]) -> tuple[float, float, Array]:
    """E[m], E[s] and E[theta] under the posterior, every theta integrated out in closed form, m and s on a grid."""
    number = np.concatenate([[len(y)] * y.shape[1] for y in values.values()])
    mean = np.concatenate([y.mean(0) for y in values.values()])
    m, s = np.meshgrid(np.linspace(-6, 8, 561), np.exp(np.linspace(-4, 3, 561)), indexing="ij")
    log_p = stats.norm(0.5, 2.0).logpdf(m) + stats.norm(-0.3, 0.6).logpdf(np.log(s))  # a grid in log s
    spread = NOISE / np.sqrt(number)
    for y_bar, error in zip(mean, spread, strict=True):
        log_p += stats.norm(m, np.hypot(s, error)).logpdf(y_bar)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    kept = [(s**2 * y_bar + error**2 * m) / (s**2 + error**2) for y_bar, error in zip(mean, spread, strict=True)]
    return float((p * m).sum()), float((p * s).sum()), np.array([(p * k).sum() for k in kept])


@pytest.mark.slow
def test_nuts_finds_the_posterior_of_the_hierarchy() -> None:
    rng = np.random.default_rng(1)
    theta = {"a": rng.normal(1.5, 0.5, 3), "b": rng.normal(1.5, 0.5, 3)}
    values = {n: t + NOISE * rng.normal(size=(k, 3)) for (n, t), k in zip(theta.items(), (6, 2), strict=True)}
    data = sessions(values)
    model = means(data, lr.Population("means", location=LOCATION, scale=SCALE))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    pyro.set_rng_seed(0)
    chain = MCMC(NUTS(model), num_samples=DRAWS, warmup_steps=150, disable_progbar=True)
    chain.run(data)
    drawn = chain.get_samples()
    location, scale, expected = grid(values)
    found = torch.cat([drawn[f"y_{name}.readout.baseline"] for name in "ab"], 1)
    errors = found.std(0) / DRAWS**0.5 * 2  # a chain's draws are worth fewer: a quarter, allowed for
    assert (abs(found.mean(0).numpy() - expected) < 5 * errors.numpy()).all()
    assert abs(drawn["means.location"].mean() - location) < 10 * drawn["means.location"].std() / DRAWS**0.5
    assert abs(drawn["means.scale"].mean() - scale) < 10 * drawn["means.scale"].std() / DRAWS**0.5
    # the control: without a population every baseline stays near its own mean, further than the errors allow
    own = np.concatenate([y.mean(0) for y in values.values()])
    assert (abs(own - expected) > 5 * errors.numpy()).any()


def recovered(prior: lr.Population | dist.Distribution, seed: int = 0) -> tuple[float, lr.Posterior]:
    """Root mean square error of baselines in ten sessions of one sequence each, as `prior` has it."""
    rng = np.random.default_rng(seed)
    theta = {name: rng.normal(2.0, 0.3, 4) for name in "abcdefghij"}
    data = sessions({name: t + NOISE * rng.normal(size=(2, 4)) for name, t in theta.items()})
    model = means(data, prior)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    guide = lr.Guide(model).double()
    guide.initialise(model, data)
    optimiser = torch.optim.Adam(guide.parameters(), 0.03)
    torch.manual_seed(seed)
    for _ in range(300):
        optimiser.zero_grad()
        (-lr.elbo_terms(model, guide, data, num_particles=4).elbo()).backward()
        optimiser.step()
    posterior = lr.Posterior(model, guide, data, device="cpu")
    drawn = posterior.parameters(200)
    error = [drawn[f"y_{name}.readout.baseline"].mean(0).numpy() - t for name, t in theta.items()]
    return float(np.sqrt(np.mean(np.square(error)))), posterior


@pytest.mark.slow
def test_sessions_with_few_data_lean_on_the_others() -> None:
    """Planted theta ~ Normal(2, 0.3^2), each seen twice through noise of 0.8: alone the error is 0.8 / sqrt(2)."""
    pooled, posterior = recovered(lr.Population("means"))
    alone, _ = recovered(dist.Normal(0.0, 10.0))
    assert alone == pytest.approx(NOISE / 2**0.5, rel=0.25)
    assert pooled < 0.65 * alone
    drawn = posterior.parameters(200)
    assert drawn["means.location"].mean() == pytest.approx(2.0, abs=0.3)
    assert 0.1 < drawn["means.scale"].mean() < 0.6


def test_a_population_is_saved_loaded_and_exported(tmp_path) -> None:
    data = two_sessions().to(dtype=torch.float32)
    head = lr.Gaussian(priors={"baseline": lr.Population("means", scale=dist.LogNormal(-1.0, 0.5))})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(2),
        latent=lr.Innovations(2),
        observations=lr.per_session(data.spec, {"y": head}),
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2, read_in=2), global_family="multivariate")
    result = lr.fit(
        model,
        guide,
        data,
        steps=3,
        objective=lr.ELBO(num_particles=2),
        compute=lr.Compute(device="cpu"),
        reporting=lr.Reporting(progress=False),
    )
    result.save(tmp_path / "run")
    loaded = lr.load(tmp_path / "run")
    assert loaded.model.config() == result.model.config()
    one, other = (r.posterior(data, device="cpu") for r in (result, loaded))
    for name, drawn in one.parameters(5).items():
        assert torch.equal(drawn, other.parameters(5)[name])
    assert torch.isfinite(one.evidence("iwae", 4).values).all()
    assert one.prior_predictive(3)["y_a"].shape == (3, 5, 1, 2)
    assert {"means.location", "means.scale"} <= set(one.to_arviz(num_samples=4, num_particles=4).posterior.data_vars)


def described_twice() -> None:
    data = two_sessions()
    heads = {
        "y_a": lr.Gaussian(priors={"baseline": lr.Population("means")}),
        "y_b": lr.Gaussian(priors={"baseline": lr.Population("means", location=LOCATION)}),
    }
    lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)


WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a name with a dot": (lambda: lr.Population("a.b"), ValueError, "letters, digits and underscores; found 'a.b'"),
    "no name": (lambda: lr.Population(3), ValueError, "found 3"),  # type: ignore[arg-type]
    "a number": (lambda: lr.Population("a", scale=1.0), TypeError, "scale must be a distribution; found float"),  # type: ignore[arg-type]
    "several": (
        lambda: lr.Population("a", location=dist.Normal(torch.zeros(2), 1.0)),
        ValueError,
        "scalar distribution",
    ),
    "a negative scale": (lambda: lr.Population("a", scale=dist.Normal(1.0, 1.0)), ValueError, "over positive numbers"),
    "two descriptions": (
        described_twice,
        ValueError,
        r"observations\['y_b'\]: expected Population 'means' as described",
    ),
    "the name of a head": (
        lambda: means(two_sessions(), lr.Population("y_a")),
        ValueError,
        "'y_a' is the name of a head",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_population_is_refused(case: str) -> None:
    act, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        act()
