"""States of several fits laid on each other, against NumPy, and units that do nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.interpret.planted_dynamics import posterior_at
from tests.interpret.small import posterior_of

READ = np.array([[1.0, 0.0, 0.7], [0.0, 1.0, -0.7]])
STARTS = np.random.default_rng(0).normal(size=(30, 3))


def turned(basis: np.ndarray, *, scale: float = 1.0, idle: int = 0) -> lr.Posterior:
    """The same turning states in coordinates of its own; idle units are a function of nothing else, and unread."""
    size = len(basis)
    step = np.array([[0.95, -0.3, 0.0], [0.3, 0.95, 0.0], [0.0, 0.0, 0.8]])
    whole = np.eye(size + idle) * 0.7
    whole[:size, :size] = basis @ step @ np.linalg.inv(basis)
    own = np.random.default_rng(size + idle).normal(size=(len(STARTS), idle))
    posterior = posterior_at(lr.Linear(size + idle), np.concatenate([scale * STARTS @ basis.T, own], 1), steps=20)
    transition, readout = posterior.model.transition, posterior.model.observations["y"].readout
    with torch.no_grad():
        transition.recurrent_weight.copy_(torch.as_tensor(whole))
        transition.bias.zero_()
        transition.input_weight.zero_()
        readout.weight.zero_()
        readout.weight[:, :size] = torch.as_tensor(READ @ np.linalg.inv(basis) / scale)
    return posterior


def orthogonal(seed: int, size: int = 3) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def test_a_rotation_and_a_scale_are_undone() -> None:
    first, second = turned(np.eye(3)), turned(orthogonal(1), scale=2.5)
    found = lr.interpret.align(first, second, num_samples=2)
    assert found.r2() > 1 - 1e-9
    assert found.r2("linear", "a from b") > 1 - 1e-9
    np.testing.assert_allclose(found.dataset.rotation, orthogonal(1).T, atol=1e-9)
    np.testing.assert_allclose(found.dataset.scale, 2.5)
    np.testing.assert_allclose(found.dataset.canonical, 1.0)
    states = first.latents(2)["states"][0].numpy()
    np.testing.assert_allclose(found.apply(states), second.latents(2)["states"][0], atol=1e-9)
    assert "procrustes 1.000 / 1.000" in repr(found)


def test_a_shear_is_undone_by_a_linear_map_alone() -> None:
    found = lr.interpret.align(turned(np.eye(3)), turned(np.diag([1.0, 6.0, 0.2]) @ orthogonal(1)), num_samples=2)
    assert found.r2() < 0.98
    assert found.r2("linear") > 1 - 1e-9
    np.testing.assert_allclose(found.dataset.canonical, 1.0)
    np.testing.assert_allclose(found.dataset.r2_of_b, 1.0)


def test_states_that_have_nothing_in_common_do_not_align() -> None:
    first, second = turned(np.eye(3)), turned(np.eye(3))
    with torch.no_grad():
        second.guide.starts.copy_(torch.as_tensor(np.random.default_rng(5).normal(size=STARTS.shape)))
    found = lr.interpret.align(first, second, num_samples=2)
    assert found.r2() < 0.3
    assert found.r2("linear") < 0.3


def test_idle_units_do_not_replicate() -> None:
    fits = [turned(np.eye(3)), turned(orthogonal(1)), turned(orthogonal(2), idle=2)]
    found = lr.interpret.replication(fits, num_samples=2)
    assert found.replicates[:2, :3].all()
    assert found.replicates[2].values.tolist() == [True] * 3 + [False] * 2
    assert found.idle[2].values.tolist() == [False] * 3 + [True] * 2
    np.testing.assert_allclose(found.effect[2, 3:], 0.0, atol=1e-12)
    assert float(found.r2[2, 3:].max()) < 0.5
    assert bool(found.r2[:2, 3:].isnull().all())  # fits with fewer units
    assert float(found.agreement[0, 1]) > 1 - 1e-9
    assert int(found.component_replicates[0].sum()) == 3
    # a unit that says all about the others' states, but that no head reads, is idle all the same
    with torch.no_grad():
        fits[0].model.observations["y"].readout.weight[:, 0] = 0.0
    unread = lr.interpret.replication(fits[:2], num_samples=2)
    assert float(unread.r2[0, 0]) > 0.99
    assert bool(unread.idle[0, 0])
    assert not bool(unread.replicates[0, 0])


def test_what_the_posterior_leaves_open_no_other_fit_can_tell() -> None:
    fits = [posterior_of(lr.GRU(3), lr.Innovations(2)) for _ in range(2)]
    found = lr.interpret.replication(fits, num_samples=40, folds=2)
    states = fits[0].latents(40)["states"].numpy()
    inside = ~np.isnan(states[0, ..., 0])
    mean, noise = states.mean(0)[inside].var(0), states.var(0)[inside].mean(0)
    np.testing.assert_allclose(found.signal[0], mean / (mean + noise * 40 / 39), rtol=1e-6)
    assert bool((found.r2[0] <= found.signal[0] + 1e-9).all())


def test_mistakes_are_named() -> None:
    first = turned(np.eye(3))
    with pytest.raises(ValueError, match="posterior 1 is of other sequences"):
        lr.interpret.align(first, posterior_of(lr.GRU(3), lr.Innovations(1)))
    with pytest.raises(TypeError, match="posterior 1 must be a Posterior"):
        lr.interpret.align(first, first.model)
    with pytest.raises(ValueError, match="folds must be at most the 30 sequences; found 31"):
        lr.interpret.align(first, first, folds=31)
    with pytest.raises(ValueError, match="two posteriors or more; found 1"):
        lr.interpret.replication([first])
