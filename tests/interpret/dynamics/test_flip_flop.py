"""Memories that were learned from spikes alone: three bits and their saddles, and an angle on a ring."""

from __future__ import annotations

import numpy as np
import pytest

import latentrnn as lr
from examples.simulate import angle_memory, flip_flop

pytestmark = pytest.mark.slow


def fit(data: lr.SequenceData, units: int, steps: int, rate: float) -> lr.Posterior:
    heads = {"spikes": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(units), latent=lr.Deterministic(), observations=heads)
    quiet = lr.Reporting(progress=False)
    result = lr.fit(
        model, lr.Guide(model), data, seed=0, steps=steps, batch_size=100, optimizer=lr.AdamW(rate), reporting=quiet
    )
    return result.posterior(data)


def decoder(posterior: lr.Posterior, planted: np.ndarray) -> np.ndarray:
    """Least squares from states to what was planted, (unit + 1, number)."""
    states = posterior.latents(1)["states"][0].numpy()
    states = states.reshape(-1, states.shape[-1])
    design = np.concatenate([states, np.ones((len(states), 1))], 1)
    return np.linalg.lstsq(design, planted.reshape(len(states), -1), rcond=None)[0]


def test_a_trained_flip_flop_has_eight_stable_points_and_their_saddles() -> None:
    trials = flip_flop(0, 200)
    data = lr.SequenceData.from_arrays({"spikes": trials.spikes}, {"pulses": trials.pulses}, dt=trials.dt)
    posterior = fit(data, 12, 500, 2e-2)
    found = lr.interpret.fixed_points(posterior, {"pulses": 0.0}, num_starts=300, noise=1.0)
    here = found.dataset.isel(sample=0)
    counts = found.counts()
    assert counts["stable"] == 8
    stable = here.state.values[here.unstable.values == 0]
    read = np.concatenate([stable, np.ones((8, 1))], 1) @ decoder(posterior, trials.bits)
    assert len(np.unique(np.sign(read), axis=0)) == 8  # one for each word of three bits
    np.testing.assert_allclose(np.abs(read), 1.0, atol=0.35)
    assert (here.unstable.values == 1).sum() >= 9  # of the cube's twelve edges
    assert counts["repeller"] == 0
    assert str(lr.interpret.attractor(found).kind.values[0]) == "points"
    np.testing.assert_allclose(here.basin.sum(), 1.0)


def test_a_trained_memory_of_an_angle_is_a_ring() -> None:
    trials = angle_memory(0, 300)
    covariates = {"cue": trials.cue, "velocity": trials.velocity}
    data = lr.SequenceData.from_arrays({"spikes": trials.spikes}, covariates, dt=trials.dt)
    posterior = fit(data, 16, 800, 1e-2)
    found = lr.interpret.fixed_points(posterior, {"cue": 0.0, "velocity": 0.0}, noise=0.3)
    kind = lr.interpret.attractor(found).isel(sample=0)
    assert str(kind.kind.values) == "ring"
    planted = np.stack([np.cos(trials.angle), np.sin(trials.angle)], -1)
    here = found.dataset.isel(sample=0)
    read = np.concatenate([here.state.values, np.ones((here.sizes["point"], 1))], 1) @ decoder(posterior, planted)
    assert abs(np.median(np.hypot(*read.T)) - 1) < 0.1
    angles = np.sort(np.arctan2(*read.T))
    assert np.diff([*angles, angles[0] + 2 * np.pi]).max() < np.pi / 2  # all the way around, where it closes too
