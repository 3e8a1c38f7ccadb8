"""MarkovNormal with scales that depend on the state (the deep Markov model) against equations and a grid."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from scipy import special, stats

import latentrnn as lr
from latentrnn.models import sites
from latentrnn.models.latents.markov_normal import MarkovNormalPath
from tests import oracles
from tests.registry import shake

LENGTHS = (6, 3, 1)


def make() -> tuple[lr.LatentRNN, lr.SequenceData]:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": [rng.normal(size=(n, 2)) for n in LENGTHS]},
        {"x": [rng.normal(size=(n, 2)) for n in LENGTHS]},
        dtype=torch.float64,
    )
    latent = lr.MarkovNormal(scale="state")
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=latent, observations={"y": lr.Gaussian()}).double()
    pyro.set_rng_seed(0)
    shake(model)
    return model, data


def test_the_density_is_the_equations_written_out() -> None:
    model, data = make()
    numbers = {k: v.detach().numpy() for k, v in model.named_parameters()}
    cell = {k.removeprefix("transition.kernel.")[:-3]: v for k, v in numbers.items() if "kernel" in k}
    z_0, z = torch.randn(3, 3).double(), torch.randn(3, 6, 3).double()
    found = (
        MarkovNormalPath(model.latent, model.transition, z_0, model.transition_inputs(data), data)
        .log_prob(z)
        .detach()
        .numpy()
    )
    for n, length in enumerate(LENGTHS):
        before, expected = z_0[n].numpy(), stats.norm.logpdf(z[n, length:].numpy()).sum()
        for t in range(length):
            loc = oracles.gru_step(data.covariates["x"][n, t].numpy(), before, cell)
            scale = np.log1p(np.exp(numbers["latent.scale_map.weight"] @ loc + numbers["latent.scale_map.bias"])) + 1e-4
            before = z[n, t].numpy()
            expected += stats.norm.logpdf(before, loc, scale).sum()
        assert found[n] == pytest.approx(expected, rel=0, abs=1e-10)


def test_draws_step_by_step_are_those_that_are_scored() -> None:
    model, data = make()
    count = 20_000
    with torch.no_grad():
        z_0 = model.latent.start_prior((count, 3))[sites.INITIAL].sample()
        law = MarkovNormalPath(model.latent, model.transition, z_0, model.transition_inputs(data), data)
        z = law.sample()
        before = torch.cat([z_0.unsqueeze(-2), z[..., :-1, :]], -2)
        loc = model.transition.step(before, model.transition_inputs(data).expand(*before.shape[:-1], -1))
        ranks = special.ndtr(((z - loc) / model.latent.noise_scale(loc)).numpy())
        carry = model.latent.begin((count, 3))
        for t in range(6):
            carry = model.latent.advance(
                model.transition, carry, model.transition_inputs(data)[:, t].expand(count, 3, -1), None
            )
    for n, length in enumerate(LENGTHS):
        for t in range(length):
            assert stats.kstest(ranks[:, n, t, 0], "uniform").pvalue > 1e-7
    assert stats.kstest(special.ndtr(z[:, 0, 5, 0].numpy()), "uniform").pvalue < 1e-7  # negative control
    assert stats.kstest(special.ndtr(z[:, 2, 1:].numpy().ravel()), "uniform").pvalue > 1e-7  # padding
    for d in range(3):
        assert stats.ks_2samp(carry.state[:, 0, d].numpy(), z[:, 0, 5, d].numpy()).pvalue > 1e-7


def test_a_scale_that_depends_on_the_state_is_filtered_as_on_a_fine_grid() -> None:
    """A one-dimensional state whose noise grows with it: the filter's integrals by quadrature."""
    y = np.array([0.3, 1.0, 2.5, -0.5])
    data = lr.SequenceData.from_arrays({"y": y[None, :, None]}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(1),
        latent=lr.MarkovNormal(scale="state"),
        observations={"y": lr.Gaussian("full")},
    ).double()
    with torch.no_grad():
        model.transition.recurrent_weight.fill_(0.8)
        model.transition.input_weight.zero_()
        model.latent.scale_map.weight.fill_(1.5)
        model.latent.scale_map.bias.fill_(-0.5)
        model.observations["y"].readout.weight.fill_(1.0)
        model.observations["y"].readout.baseline.zero_()
    model.observations["y"].set_noise_covariance(torch.tensor([[0.25]]).double())
    grid = np.linspace(-14, 14, 2801)
    loc = 0.8 * grid
    move = stats.norm.pdf(grid[:, None], loc, np.log1p(np.exp(1.5 * loc - 0.5)) + 1e-4) * (grid[1] - grid[0])
    density, expected = stats.norm.pdf(grid), []
    for value in y:
        density = (move @ density) * stats.norm.pdf(value, grid, 0.5)
        total = density.sum() * (grid[1] - grid[0])
        expected.append(np.log(total))
        density = density / total
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    found = lr.Posterior(model, guide, data, device="cpu").one_step_ahead("y", num_particles=2000, num_filters=40)
    difference = np.abs(found.log_prob[0, :, 0].numpy() - expected)
    assert (difference < 6 * found.standard_error[0, :, 0].numpy() + 1e-4).all()
    assert found.standard_error.max() < 0.02
