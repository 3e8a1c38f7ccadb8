"""A switch between two rotations, planted in a linear system, is found again from what the system shows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import latentrnn as lr
from tests.recovery.simulate import Array, paired_errors

pytestmark = pytest.mark.slow

TRAIN, TEST, STEPS = 120, 60, 20
STAY = 0.95


class Planted(NamedTuple):
    """y_t = C h_t + noise, h_t = A_{c_t} h_{t-1} + b_{c_t}, c_t a sticky chain of two states."""

    y: Array  # (sequence, time, channel)
    switch: Array  # (sequence, time)


def planted(seed: int, switching: bool = True) -> Planted:
    """Slow and fast damped rotations around centres of their own; or, as a control, the first for both states."""
    rng = np.random.default_rng(seed)
    sequences = TRAIN + TEST
    turns, centres = [], np.array([[1.0, 0.0], [-1.0, 0.5]])
    for decay, angle in ((0.95, 0.3), (0.9, 1.0)):
        turns.append(decay * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))
    if not switching:
        turns, centres = [turns[0]] * 2, centres[[0, 0]]
    loading = rng.normal(size=(2, 6))
    switch = (rng.random(sequences) < 0.5).astype(int)
    state, path, y = np.zeros((sequences, 2)), [], []
    for _ in range(STEPS):
        switch = np.where(rng.random(sequences) < STAY, switch, 1 - switch)
        moved = np.stack([(state - centre) @ turn.T + centre for turn, centre in zip(turns, centres, strict=True)])
        state = np.where(switch[:, None] == 0, moved[0], moved[1])
        path.append(switch)
        y.append(state @ loading + 0.1 * rng.normal(size=(sequences, 6)))
    return Planted(np.stack(y, 1), np.stack(path, 1).astype(float))


def fitted(seed: int, y: Array, transition: lr.Transition, latent: lr.Latent, steps: int) -> Any:
    data = lr.SequenceData.from_arrays({"y": y}, standardise=["y"])
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": lr.Gaussian("full")})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(24))
    train, test = data[:TRAIN], data[TRAIN:]
    result = lr.fit(
        model,
        guide,
        train,
        seed=seed,
        steps=steps,
        batch_size=60,
        optimizer=lr.AdamW(1e-2),
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    return result, result.posterior(test, device="cpu")


def accuracy(posterior: Any, switch: Array) -> float:
    """Share of held-out steps whose likelier state is the planted one, up to the names of the two."""
    found = posterior.latents(20)["switch"].mean(0)[..., 1].numpy() > 0.5
    agree = float((found == (switch[TRAIN:] > 0.5)).mean())
    return max(agree, 1 - agree)


@pytest.fixture(scope="module")
def found() -> tuple[Planted, Any, Any]:
    truth = planted(1)
    return truth, *fitted(1, truth.y, lr.SwitchingLinear(2, 2, switch="given"), lr.RelaxedDiscrete(2, initial=2), 450)


def test_the_switch_is_found_on_held_out_sequences(found: tuple[Planted, Any, Any]) -> None:
    truth, _, posterior = found
    assert accuracy(posterior, truth.switch) > 0.9
    # the switches of other sequences are no easier to agree with than their shares allow
    assert accuracy(posterior, np.roll(truth.switch, 1, 0)) < 0.7


def test_the_two_rotations_and_their_dwell_times_are_found(found: tuple[Planted, Any, Any]) -> None:
    _, result, _ = found
    eigenvalues = np.linalg.eigvals(result.model.transition.recurrent_weight.detach().double().numpy())
    angle, decay = np.sort(np.abs(np.angle(eigenvalues)).mean(1)), np.abs(eigenvalues).mean(1)
    np.testing.assert_allclose(angle, [0.3, 1.0], atol=0.05)
    np.testing.assert_allclose(np.sort(decay), [0.9, 0.95], atol=0.04)
    np.testing.assert_allclose(result.model.latent.moves.detach().diagonal().numpy(), STAY, atol=0.05)


def test_one_regime_predicts_worse(found: tuple[Planted, Any, Any]) -> None:
    truth, _, posterior = found
    _, single = fitted(1, truth.y, lr.Linear(2), lr.InitialState(2), 300)
    ahead = [p.one_step_ahead("y").log_prob.sum((1, 2)).numpy() for p in (posterior, single)]
    assert paired_errors(*ahead) > 4


def test_where_nothing_switches_no_switch_is_found() -> None:
    truth = planted(1, switching=False)
    _, posterior = fitted(1, truth.y, lr.SwitchingLinear(2, 2, switch="given"), lr.RelaxedDiscrete(2, initial=2), 300)
    assert accuracy(posterior, truth.switch) < 0.7
