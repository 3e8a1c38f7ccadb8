"""The no-U-turn sampler on every component, all of whose parameters have priors: density, gradient and moves."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from pyro import poutine

import latentrnn as lr
from latentrnn.inference.sampling.hamiltonian.density import FlatDensity
from tests.models.priors_everywhere import built
from tests.registry import Combination, Fixed, each_against_defaults

CHAINS = 2


def joint_density(model: lr.LatentRNN, data: lr.SequenceData, density: FlatDensity, flat: np.ndarray) -> float:
    """log p of everything at one vector, by a plain trace, and the volume of the map to it."""
    free = torch.as_tensor(flat)
    volume, values = 0.0, {}
    parts = free.split(density.sizes)
    for (name, site), part in zip(density.sites.items(), parts, strict=True):
        unconstrained = part.reshape(site.shape)
        values[name] = site.transform(unconstrained)
        volume += float(site.transform.log_abs_det_jacobian(unconstrained, values[name]).sum())
    with Fixed(values), torch.no_grad():
        return float(poutine.trace(model).get_trace(data).log_prob_sum()) + volume


@pytest.mark.slow
@pytest.mark.parametrize("parts", each_against_defaults(), ids="-".join)
def test_chains_move_through_the_density_of_every_component(parts: Combination) -> None:
    torch.manual_seed(0)
    model, data = built(parts)
    data = data[[0]]
    density = FlatDensity(model, (data,))
    rng = np.random.default_rng(0)
    at = 0.1 * rng.normal(size=(CHAINS, density.dim))
    values, gradients = (found.numpy() for found in density.with_gradient(density.tensor(at)))
    for chain in range(CHAINS):
        expected = joint_density(model, data, density, at[chain])
        assert values[chain] == pytest.approx(expected, rel=1e-9, abs=1e-7)
        way = rng.normal(size=density.dim)
        ahead, behind = (joint_density(model, data, density, at[chain] + step * way) for step in (1e-5, -1e-5))
        slope = (ahead - behind) / 2e-5
        assert gradients[chain] @ way == pytest.approx(slope, rel=1e-4, abs=1e-3)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        posterior = lr.sample(
            model, data, num_samples=4, warmup=8, chains=CHAINS, max_tree_depth=3, progress=False, device="cpu",
            check_priors=False,
        )  # fmt: skip
    drawn = posterior.parameters(CHAINS * 2)
    for name, (prior, _) in model.parameter_sites().items():
        assert drawn[name].isfinite().all(), name
        assert prior.support.check(drawn[name].double()).all(), name
        assert len(drawn[name].flatten(1).unique(dim=0)) > CHAINS, name
