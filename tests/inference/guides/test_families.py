"""Families over trajectories: their densities against dense Gaussians and quadrature, padding, particles, saving."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from scipy.stats import multivariate_normal
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.guides.families.block_tridiagonal_normal import BlockTridiagonalNormal
from latentrnn.inference.guides.flows import AutoregressiveFlow
from tests.registry import OBSERVATIONS, make_data, make_model

FAMILIES = {
    "mean field": lr.MeanField(),
    "markov": lr.Markov(5),
    "markov, mixing of steps": lr.Markov(5, mixing="step"),
    "driven markov": lr.DrivenMarkov(5),
    "combiner": lr.Combiner(),
    "chain": lr.GaussianChain(),
    "chain of one reading": lr.GaussianChain(readings=1),
    "flow on mean field": lr.Flow(lr.MeanField(), layers=2, hidden_size=4),
    "flow on chain": lr.Flow(lr.GaussianChain(), layers=1, hidden_size=4),
    "per sequence": lr.PerSequence(lr.MeanField()),
    "per sequence chain": lr.PerSequence(lr.GaussianChain()),
}
every_family = pytest.mark.parametrize("family", FAMILIES)
every_latent = pytest.mark.parametrize(
    "latent", ["initial state", "innovations", "innovations with initial", "markov normal", "recurrent normal"]
)


def setting(
    family: str, latent: str = "innovations", transition: str = "gru"
) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model(transition, latent, "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), family=FAMILIES[family]).double()
    guide.initialise(model, data)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model, guide, data


# -- the block tridiagonal Gaussian --------------------------------------------------------------------------------


def chain(length: int, dim: int = 3) -> tuple[BlockTridiagonalNormal, np.ndarray, np.ndarray]:
    """A random one with two in the batch, and means and covariances by inverting its dense precision."""
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root = draw(2, length, dim, dim)
    diagonal, lower = root @ root.mT + 4 * torch.eye(dim), 0.5 * draw(2, length - 1, dim, dim)
    linear = draw(2, length, dim)
    precision = np.zeros((2, length * dim, length * dim))
    for t in range(length):
        here, after = slice(t * dim, (t + 1) * dim), slice((t + 1) * dim, (t + 2) * dim)
        precision[:, here, here] = diagonal[:, t]
        if t + 1 < length:
            precision[:, after, here] = lower[:, t]
            precision[:, here, after] = lower[:, t].mT
    covariance = np.linalg.inv(precision)
    mean = (covariance @ linear.reshape(2, -1, 1).numpy()).squeeze(-1)
    return BlockTridiagonalNormal(diagonal, lower, linear), mean, covariance


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 13, 32])
def test_a_block_tridiagonal_gaussian_is_the_dense_one(length: int) -> None:
    q, mean, covariance = chain(length)
    values = np.random.default_rng(0).normal(size=(4, 2, length, 3))
    found = q.log_prob(torch.as_tensor(values))
    for b in range(2):
        expected = multivariate_normal(mean[b], covariance[b]).logpdf(values[:, b].reshape(4, -1))
        np.testing.assert_allclose(found[:, b], expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(q.mean, mean.reshape(2, length, 3), rtol=0, atol=1e-12)
    blocks = np.stack([covariance.reshape(2, length, 3, length, 3)[:, t, :, t] for t in range(length)], 1)
    np.testing.assert_allclose(q.covariance, blocks, rtol=0, atol=1e-12)
    np.testing.assert_allclose(q.variance, np.diagonal(blocks, axis1=-2, axis2=-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [2, 5, 8])
def test_its_draws_have_its_moments(length: int) -> None:
    q, mean, covariance = chain(length)
    torch.manual_seed(0)
    count = 40_000
    draws = q.rsample((count,)).reshape(count, 2, -1).numpy()
    for b in range(2):
        spread = np.sqrt(np.diag(covariance[b]))
        assert np.abs((draws[:, b].mean(0) - mean[b]) / spread).max() < 5 / math.sqrt(count)
        correlation = (np.cov(draws[:, b].T) - covariance[b]) / np.outer(spread, spread)
        assert np.abs(correlation).max() < 5 * math.sqrt(2 / count)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_its_conditionals_multiply_to_it(length: int) -> None:
    q = chain(length)[0]
    gain, offset, root = q.conditionals()
    value = torch.randn(2, length, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = torch.cat([torch.zeros(2, 1, 3), value[:, :-1]], 1)
    loc = (gain @ before.unsqueeze(-1)).squeeze(-1) + offset
    steps = torch.distributions.MultivariateNormal(loc, precision_matrix=root @ root.mT).log_prob(value).sum(-1)
    torch.testing.assert_close(steps, q.log_prob(value), rtol=0, atol=1e-10)


def test_its_gradients_are_those_of_the_dense_one() -> None:
    torch.manual_seed(0)
    diagonal = (
        4 * torch.eye(2, dtype=torch.float64) + 0.3 * torch.randn(5, 2, 2, dtype=torch.float64)
    ).requires_grad_()
    lower = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    linear = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    value = torch.randn(5, 2, dtype=torch.float64)

    def run(diagonal: Tensor, lower: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
        q = BlockTridiagonalNormal(diagonal + diagonal.mT, lower, linear)
        torch.manual_seed(1)  # the same noise at every call
        return q.rsample(), q.log_prob(value)

    assert torch.autograd.gradcheck(run, (diagonal, lower, linear))


# -- every family --------------------------------------------------------------------------------------------------


@every_family
@every_latent
def test_padding_is_standard_normal_and_changes_nothing_else(family: str, latent: str) -> None:
    """Given one value in padding and another, log q differs by the standard normal's difference alone."""
    model, guide, data = setting(family, latent)
    assert data.padded
    torch.manual_seed(0)
    trace = poutine.trace(guide).get_trace(data)
    for site in model.latent_sites():
        if not site.along_time:
            continue
        fn, value = trace.nodes[site.name]["fn"], trace.nodes[site.name]["value"].detach()
        other = torch.where(data.valid.unsqueeze(-1), value, value + 1.0)
        standard = torch.distributions.Normal(0.0, 1.0)
        expected = (standard.log_prob(other) - standard.log_prob(value)).sum((-2, -1))
        torch.testing.assert_close(fn.log_prob(other) - fn.log_prob(value), expected, rtol=0, atol=1e-9)


@every_family
def test_a_sequence_has_the_same_posterior_alone_and_among_others(family: str) -> None:
    model, guide, data = setting(family)
    torch.manual_seed(0)
    trace = poutine.trace(guide).get_trace(data)
    for n in range(len(data)):
        alone = data.batch(torch.tensor([n]))
        values = {s.name: trace.nodes[s.name]["value"][n : n + 1] for s in model.latent_sites()}
        for site in model.latent_sites():
            if site.along_time:
                values[site.name] = values[site.name][:, : alone.num_steps]
        with poutine.trace() as recorder, poutine.condition(data=values):
            guide(alone)
        for site in model.latent_sites():
            whole, part = trace.nodes[site.name], recorder.trace.nodes[site.name]
            torch.testing.assert_close(part["value"], values[site.name], rtol=0, atol=0)
            padding = whole["value"][n : n + 1, alone.num_steps :] if site.along_time else torch.zeros(1, 0, 1)
            rest = torch.distributions.Normal(0.0, 1.0).log_prob(padding).sum((-2, -1))
            expected = whole["fn"].log_prob(whole["value"])[n : n + 1] - rest
            torch.testing.assert_close(part["fn"].log_prob(part["value"]), expected, rtol=0, atol=1e-9)


@every_family
@every_latent
def test_elbo_particles_and_gradients(family: str, latent: str) -> None:
    model, guide, data = setting(family, latent)
    torch.manual_seed(0)
    ours = lr.elbo_terms(model, guide, data, num_particles=3, analytic_kl=False).elbo()
    torch.manual_seed(0)
    pyro_s = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, data)
    assert ours.item() == pytest.approx(-pyro_s, rel=1e-10)
    lr.elbo_terms(model, guide, data, num_particles=8).elbo().backward()
    gradients = {name: p.grad for name, p in guide.named_parameters()}
    silent = [name for name, grad in gradients.items() if grad is None or not grad.any()]
    assert [name for name in silent if not idle(name, guide)] == []
    assert all(torch.isfinite(grad).all() for grad in gradients.values() if grad is not None)


def idle(name: str, guide: lr.Guide) -> bool:
    """Whether a parameter does nothing by construction: correlations of a single dimension."""
    return "mixing" in name and guide.get_parameter(name).shape == (1, 1)


@every_family
def test_a_saved_guide_is_the_same_guide(family: str, tmp_path: Path) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "innovations", "poisson", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), family=FAMILIES[family])
    result = lr.fit(
        model, guide, data, steps=3, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    result.save(tmp_path / "fit")
    loaded = lr.load(tmp_path / "fit")
    assert repr(loaded.guide) == repr(result.guide)
    one, other = (r.posterior(data, device="cpu").latents(4)["innovations"] for r in (result, loaded))
    assert torch.equal(one.nan_to_num(), other.nan_to_num())


@pytest.mark.parametrize("family", [name for name in FAMILIES if "flow" not in name and "driven" not in name])
@pytest.mark.parametrize("latent", ["innovations", "markov normal"])
def test_proposals_multiply_to_the_family(family: str, latent: str) -> None:
    model, guide, data = setting(family, latent)
    if latent == "markov normal" and "chain" in family:
        with pytest.raises(ValueError, match="after the trajectory; use Markov"):
            guide.local.proposals(guide.variational_parameters(data), data).start((len(data),))
        return
    torch.manual_seed(0)
    trace = poutine.trace(guide).get_trace(data)
    values = {site.name: trace.nodes[site.name]["value"] for site in model.latent_sites()}
    (along,) = [site.name for site in model.latent_sites() if site.along_time]
    proposals = guide.local.proposals(guide.variational_parameters(data), data)
    shape = (len(data),)
    for name, law in proposals.start(shape).items():
        expected = trace.nodes[name]["fn"].log_prob(values[name])
        torch.testing.assert_close(law.log_prob(values[name]), expected, rtol=0, atol=1e-10)
    total, before = torch.zeros(shape, dtype=torch.float64), None
    for t, z_t in enumerate(values[along].unbind(-2)):
        step = proposals.step(t, before, values).log_prob(z_t)
        standard = torch.distributions.Normal(0.0, 1.0).log_prob(z_t).sum(-1)
        total = total + torch.where(data.valid[:, t], step, standard)
        before = z_t
    torch.testing.assert_close(total, trace.nodes[along]["fn"].log_prob(values[along]), rtol=0, atol=1e-9)


def driven() -> tuple[Any, Any, Tensor]:
    """A site of a driven family, its matrix, and a draw with particles."""
    _, guide, data = setting("driven markov", "innovations student t")
    torch.manual_seed(0)
    with pyro.plate("particles", 3, dim=-2):
        node = poutine.trace(guide).get_trace(data).nodes["innovations"]
    return node["fn"], guide.local.steps["innovations"].memory.weight, node["value"]


def test_driven_draws_are_what_moves_a_markov_state() -> None:
    law, memory, u = driven()
    c, valid = law.driven(u.clone()), law.states.valid
    torch.testing.assert_close(c, law.driven(u), rtol=0, atol=1e-12)  # kept, and recovered
    before = torch.cat([torch.zeros_like(c[..., :1, :]), c[..., :-1, :]], -2)
    expected = torch.where(valid.unsqueeze(-1), c - before @ memory.T, c)
    torch.testing.assert_close(u, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(law.last(u), c[..., -1, :])
    # the volume of the map is one
    size = u[0, 0].numel()
    jacobian = torch.autograd.functional.jacobian(lambda x: law.driven(x)[0, 0], u.detach())[:, :, 0, 0]
    assert abs(float(torch.linalg.slogdet(jacobian.reshape(size, size))[1])) < 1e-9


def test_the_density_of_a_driven_draw_is_that_of_its_states() -> None:
    law, _, u = driven()
    found = law.log_prob(u)
    torch.testing.assert_close(found, law.log_prob(u.clone()), rtol=0, atol=1e-9)
    torch.testing.assert_close(found, law.states.log_prob(law.driven(u).clone()), rtol=0, atol=1e-9)


def test_no_particles_come_from_a_driven_family() -> None:
    _, guide, data = setting("driven markov")
    with pytest.raises(ValueError, match="DrivenMarkov cannot be drawn step by step; use MeanField"):
        guide.local.proposals(guide.variational_parameters(data), data)


# -- flows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_flow_inverts_itself_and_knows_its_jacobian(dim: int) -> None:
    torch.manual_seed(0)
    flow = AutoregressiveFlow(dim, layers=2, hidden_size=6).double()
    flow.reset_parameters()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    x = torch.randn(7, dim, dtype=torch.float64)
    z, log_det = flow(x)
    back, same = flow.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(same, log_det, rtol=0, atol=1e-9)
    for row in range(7):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow(v)[0], x[row])
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(log_det[row].item(), abs=1e-9)
    assert (z - x).abs().max() > 0.1


# -- numbers of each sequence --------------------------------------------------------------------------------------


def test_sequences_have_numbers_of_their_own_wherever_they_appear() -> None:
    _, guide, data = setting("per sequence")
    whole = guide.variational_parameters(data)["innovations"]
    shuffled = data[torch.tensor([2, 0])]
    part = guide.variational_parameters(shuffled)["innovations"]
    torch.testing.assert_close(part, whole[[2, 0], : shuffled.num_steps], rtol=0, atol=1e-12)
    assert guide.local.knows(data)


def test_unknown_sequences_fall_back_on_what_is_shared() -> None:
    _, guide, data = setting("per sequence")
    other = data.with_observations({"y": data.observations["y"] + 1.0})
    other = lr.SequenceData.from_arrays(
        {"y": [o[: int(n)].numpy() for o, n in zip(other.observations["y"], data.lengths, strict=True)]},
        {
            name: [c[: int(n)].numpy() for c, n in zip(v, data.lengths, strict=True)]
            for name, v in data.covariates.items()
        },
        dt=data.spec.dt,
        dtype=torch.float64,
    )
    assert not guide.local.knows(other)
    encoding = guide.encoder(other)
    shared = guide.local.base.variational_parameters(encoding, other)
    torch.testing.assert_close(guide.variational_parameters(other), shared)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": [["a", 0, 3]]}, "keys and num_steps go together"),
        ({"num_steps": 3}, "keys and num_steps go together"),
        ({"keys": [["a", 0]], "num_steps": 3}, r"keys must be a list of \(key, start, stop\); found \['a', 0\]"),
        ({"keys": [[["a"], 0, 3]], "num_steps": 3}, r"keys must be a list of \(key, start, stop\)"),
        ({"keys": ["abc"], "num_steps": 3}, r"keys must be a list of \(key, start, stop\); found 'abc'"),
    ],
)
def test_numbers_of_sequences_need_their_keys_and_lengths(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"PerSequence: {message}"):
        lr.PerSequence(lr.MeanField(), **arguments)


def test_without_an_encoder() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, _ = make_model("gru", "innovations", "poisson", data)
    with pytest.raises(ValueError, match="need an encoder"):
        lr.Guide(model, family=lr.GaussianChain())
    guide = lr.Guide(model, family=lr.PerSequence(lr.GaussianChain()))
    result = lr.fit(
        model,
        guide,
        data,
        steps=150,
        reporting=lr.Reporting(progress=False, every=1),
        compute=lr.Compute(device="cpu"),
        objective=lr.ELBO(kl=lr.KLWarmUp(0.0)),
    )
    elbos = result.history["elbo"]
    assert np.mean(elbos[-20:]) > np.mean(elbos[:5]) + 1
    assert torch.isfinite(result.posterior(data, device="cpu").mean("y", 5)[data.valid]).all()


# -- parameters with priors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["low_rank", "flow"])
def test_families_over_parameters_integrate_to_one(family: str) -> None:
    """Over two parameters: sum exp(log q) on a grid is one, and draws fall where it says."""
    torch.manual_seed(0)
    data = make_data(OBSERVATIONS["poisson gain"])
    gain = lr.StimulusGain("stimulus")
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(gain=gain, priors={"baseline": pyro.distributions.Normal(0.0, 1.0)})},
    ).double()
    q = lr.Guide(model, global_family=family).double().parameter_sites
    assert q.size == 2
    with torch.no_grad():
        for parameter in q.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
        law = q.joint()
        draws = law.expand((20_000,)).rsample() if family == "flow" else law.rsample((20_000,))
        low, high = draws.min(0).values - 1, draws.max(0).values + 1
        axes = [torch.linspace(float(a), float(b), 400, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        grid = torch.cartesian_prod(*axes)
        cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
        density = law.expand((len(grid),)).log_prob(grid).exp()
        assert float(density.sum() * cell) == pytest.approx(1.0, abs=2e-3)
        mean = (density[:, None] * grid).sum(0) * cell
        error = draws.std(0) / len(draws) ** 0.5
        assert ((mean - draws.mean(0)).abs() < 6 * error + 1e-3).all()


def test_a_point_has_no_spread() -> None:
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, _ = make_model("gru", "innovations", "gaussian priors", data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4), global_family="point")
    result = lr.fit(
        model, guide, data, steps=5, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    for value in result.posterior(data, device="cpu").parameters(10).values():
        assert (value == value[0]).all()


def test_importing_costs_no_global_state() -> None:
    code = "import torch; before = torch.random.get_rng_state(); import latentrnn.inference.guides.families; "
    code += "assert torch.equal(before, torch.random.get_rng_state())"
    subprocess.run([sys.executable, "-c", code], check=True)
