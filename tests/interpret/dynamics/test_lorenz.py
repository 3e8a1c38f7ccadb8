"""Dynamics that were learned of the Lorenz system: exponents, two fits aligned, dimensions that are too many."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from benchmarks.lorenz import BIN, SPEED, attractor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world() -> tuple[lr.SequenceData, np.ndarray]:
    """Eight channels, affine in the latents with a little noise, in short stretches of the attractor."""
    rng = np.random.default_rng(0)
    paths = attractor(rng, 500, 25)
    latents = (paths - paths.mean((0, 1))) / paths.std((0, 1))
    seen = latents @ (rng.normal(size=(3, 8)) / 3**0.5) + 0.05 * rng.normal(size=(500, 25, 8))
    return lr.SequenceData.from_arrays({"y": seen.astype(np.float32)}, dt=BIN), latents


def fit(data: lr.SequenceData, dim: int, seed: int, steps: int) -> lr.Posterior:
    field = lr.NeuralODE(dim, width=32, method="rk4", substeps=1, time_scale=0.05)
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=field, latent=lr.MarkovNormal(), observations=heads)
    encoder = lr.RNNEncoder(24, direction="bidirectional")
    guide = lr.Guide(model, encoder=encoder, family=lr.Markov(24, mixing="step"))
    objective = lr.ELBO(sticking_the_landing=True, kl=lr.KLWarmUp(0.05))
    optimizer = lr.AdamW(8e-3, weight_decay=0.01, averaging=0.98)
    settings = {"objective": objective, "optimizer": optimizer, "reporting": lr.Reporting(progress=False)}
    result = lr.fit(model, guide, data, seed=seed, steps=steps, batch_size=50, **settings)
    return result.posterior(data[:100])


@pytest.fixture(scope="module")
def learned(world: tuple[lr.SequenceData, np.ndarray]) -> lr.Posterior:
    return fit(world[0], 3, 0, 1200)


def test_the_largest_exponent_is_that_of_the_literature(learned: lr.Posterior) -> None:
    found = lr.interpret.lyapunov(learned, num_runs=16, steps=3000, burn_in=500).isel(sample=0)
    largest, middle, least = found.exponent.values / SPEED
    assert abs(largest - 0.906) < 0.0906  # 10%
    assert abs(middle) < 0.15
    assert least < -5.0
    assert float(found.standard_error[0]) / SPEED < 0.05


def test_fits_agree_and_dimensions_that_are_too_many_do_not_replicate(
    world: tuple[lr.SequenceData, np.ndarray], learned: lr.Posterior
) -> None:
    larger = fit(world[0], 6, 1, 1000)
    found = lr.interpret.align(learned, larger)
    assert found.r2("linear", "a from b") > 0.95
    assert found.r2("linear", "b from a") > 0.95
    across = lr.interpret.replication([learned, larger])
    assert across.component_replicates.values.tolist() == [[True] * 3 + [False] * 3] * 2
    assert bool((across.component_r2[1, 3:] < 0.2).all())
    # and with the planted latents themselves
    states = torch.as_tensor(learned.latents(20)["states"].mean(0))
    x, z = states.reshape(-1, 3).numpy(), world[1][:100].reshape(-1, 3)
    design = np.concatenate([x, np.ones((len(x), 1))], 1)
    left = z - design @ np.linalg.lstsq(design, z, rcond=None)[0]
    assert 1 - left.var(0).sum() / z.var(0).sum() > 0.99
