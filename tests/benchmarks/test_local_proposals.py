"""The particle filter of the planted systems that rare, large inputs drive."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from benchmarks.local_proposals import System, log_evidence

DOUBLE = torch.float64
SYSTEM = System(
    dynamics=torch.tensor([[0.9, -0.2], [0.2, 0.9]], dtype=DOUBLE),
    offset=torch.tensor([0.1, 0.0], dtype=DOUBLE),
    inputs=torch.tensor([[1.0, 0.3], [0.0, 0.8]], dtype=DOUBLE),
    scale=torch.tensor([0.2, 0.3], dtype=DOUBLE),
    degrees=torch.tensor([2.5, 4.0], dtype=DOUBLE),
    start=torch.tensor([0.5, -0.5], dtype=DOUBLE),
    weight=torch.tensor([[1.0, 0.0], [-0.5, 1.0], [0.3, -1.2]], dtype=DOUBLE),
    baseline=torch.tensor([0.0, -0.5, 0.2], dtype=DOUBLE),
)


def by_quadrature(counts: torch.Tensor) -> float:
    """Log density of one step's counts, a sum over a grid of innovations whose tails reach far out."""
    line = torch.linspace(-7.0, 7.0, 801, dtype=DOUBLE).sinh() / 20
    width = torch.gradient(line)[0]
    u = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    prior = torch.distributions.StudentT(SYSTEM.degrees, 0.0, SYSTEM.scale).log_prob(u).sum(-1)
    z = SYSTEM.start @ SYSTEM.dynamics.T + SYSTEM.offset + u @ SYSTEM.inputs.T
    rate = F.softplus(z @ SYSTEM.weight.T + SYSTEM.baseline).clamp_min(1e-300)
    heard = torch.distributions.Poisson(rate).log_prob(counts).sum(-1)
    return float(torch.logsumexp((prior + heard + width.log()[:, None] + width.log()).flatten(), 0))


def test_one_step_is_the_integral_over_innovations() -> None:
    # the last needs an input of some 25 scales, of which 40,000 draws of the prior hold a dozen
    counts = torch.tensor([[0.0, 0.0, 1.0], [2.0, 1.0, 0.0], [9.0, 0.0, 5.0]], dtype=DOUBLE)
    found = log_evidence(SYSTEM, counts.unsqueeze(1), 40_000)
    for own, seen in zip(found, counts, strict=True):
        assert abs(float(own) - by_quadrature(seen)) < 0.03


def test_several_steps_agree_with_draws_of_the_prior() -> None:
    # bound: some seven standard errors of both
    counts = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 2.0, 0.0], [1.0, 1.0, 0.0]]], dtype=DOUBLE)
    draws, dim = 400_000, 2
    torch.manual_seed(0)
    z, heard = SYSTEM.start.expand(draws, dim), torch.zeros(draws, dtype=DOUBLE)
    for now in counts[0]:
        u = torch.distributions.StudentT(SYSTEM.degrees, 0.0, SYSTEM.scale).sample((draws,))
        z = z @ SYSTEM.dynamics.T + SYSTEM.offset + u @ SYSTEM.inputs.T
        heard += torch.distributions.Poisson(F.softplus(z @ SYSTEM.weight.T + SYSTEM.baseline)).log_prob(now).sum(-1)
    expected = float(torch.logsumexp(heard, 0)) - math.log(draws)
    assert abs(float(log_evidence(SYSTEM, counts, 40_000)) - expected) < 0.03
    lighter = SYSTEM._replace(scale=2 * SYSTEM.scale)
    assert abs(float(log_evidence(lighter, counts, 40_000)) - expected) > 0.05
