"""Data drawn from a model alone: parameters and latents from their priors."""

from __future__ import annotations

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr


def level_model(data: lr.SequenceData, **head: object) -> lr.LatentRNN:
    """One level for all that is drawn, next to no noise, and nothing else."""
    observation = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 100.0)}, fixed={"scale": 1e-3}, **head)
    memory = lr.LeakyIntegrator(1, fixed={"time_constant": 1.0})
    return lr.LatentRNN(data.spec, transition=memory, latent=lr.InitialState(1), observations={"v": observation})


@pytest.mark.parametrize("cut", [{"max_elements": 12}, {"window": lr.Window(4)}])
def test_parameters_are_the_same_in_all_parts_of_a_data_set(cut: dict) -> None:
    data = lr.SequenceData.from_arrays({"v": np.zeros((6, 8, 1))}, dt=0.1)
    model = level_model(data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    found = lr.Posterior(model, guide, data, device="cpu", **cut).prior_predictive(5)["v"]
    assert float(found.mean((1, 2, 3)).std()) > 20
    assert float(found.std((1, 2, 3)).max()) < 5
