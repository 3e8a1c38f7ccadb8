"""Dropout and zoneout belong to training; the clock reaches timed transitions; planted constants are found again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.models.features.gap import elapsed

NOISY = {
    "gru, dropout": lambda: lr.GRU(6, layers=2, dropout=0.5),
    "lstm, dropout": lambda: lr.LSTM(6, layers=2, dropout=0.5),
    "rnn, zoneout": lambda: lr.VanillaRNN(6, zoneout=0.5),
    "lstm, zoneout": lambda: lr.LSTM(6, zoneout=0.5),
    "gru, all": lambda: lr.GRU(6, layers=2, dropout=0.3, zoneout=0.2, layer_norm=True),
}


def noisy(name: str) -> Any:
    cell = NOISY[name]()
    cell.build(2)
    return cell.double()


# -- dropout and zoneout -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOISY)
def test_training_is_noisy_and_evaluation_is_not(name: str) -> None:
    cell = noisy(name)
    inputs, state = torch.randn(3, 8, 2).double(), torch.randn(3, cell.state_size).double()
    first, second = cell.train().scan(inputs, state)[0], cell.scan(inputs, state)[0]
    assert (first - second).abs().max() > 1e-3
    cell.eval()
    quiet = cell.scan(inputs, state)[0]
    assert torch.equal(quiet, cell.scan(inputs, state)[0])
    torch.testing.assert_close(cell.record(inputs, state).outputs, quiet, rtol=0, atol=1e-12)


def test_zoneout_keeps_units_in_training_and_averages_in_evaluation() -> None:
    cell, plain = noisy("rnn, zoneout"), lr.VanillaRNN(6)
    plain.build(2)
    plain.double().load_state_dict(cell.state_dict())
    state, inputs = torch.randn(2000, 6).double(), torch.randn(2000, 2).double()
    new, found = plain.step(state, inputs), cell.train().step(state, inputs)
    kept = found == state
    assert torch.equal(found[~kept], new[~kept])
    assert abs(float(kept.double().mean()) - 0.5) < 6 * 0.5 / 12_000**0.5
    torch.testing.assert_close(cell.eval().step(state, inputs), 0.5 * (state + new))


def test_steps_drop_between_layers_as_the_kernel_does() -> None:
    """The mean and spread of the output over many draws are those of the fused kernel's."""
    cell = noisy("gru, dropout").train()
    inputs, state = torch.randn(1, 2).double().expand(20_000, 2), torch.zeros(20_000, cell.state_size).double()
    with torch.no_grad():
        stepped = cell.output(cell.step(state, inputs))
        kernel = cell.scan(inputs.unsqueeze(1), state)[0].squeeze(1)
    error = stepped.std(0) * (2 / 20_000) ** 0.5
    assert ((stepped.mean(0) - kernel.mean(0)).abs() < 6 * error).all()
    torch.testing.assert_close(stepped.std(0), kernel.std(0), rtol=0.1, atol=1e-3)
    assert (stepped.std(0) > 1e-3).any()


def watched_modes(cell: type, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """(training, gradients wanted) at every scan."""
    seen: list[tuple[bool, bool]] = []
    original = cell.scan

    def scan(self: Any, inputs: Tensor, state: Tensor) -> Any:
        seen.append((self.training, torch.is_grad_enabled()))
        return original(self, inputs, state)

    monkeypatch.setattr(cell, "scan", scan)
    return seen


def test_a_fit_trains_in_training_mode_and_judges_and_predicts_in_evaluation_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.normal(size=(8, 6, 2))}, dt=0.1)
    train, valid = data[:5], data[5:]
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4, layers=2, dropout=0.3),
        latent=lr.Deterministic(),
        observations={"y": lr.Gaussian()},
    )
    model.eval()  # whatever mode it comes in
    seen = watched_modes(lr.GRU, monkeypatch)
    result = lr.fit(
        model,
        lr.Guide(model),
        train,
        validation=valid,
        steps=3,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    assert {mode for mode, gradients in seen if gradients} == {True}
    assert {mode for mode, gradients in seen if not gradients} == {False}
    seen.clear()
    posterior = result.posterior(valid, device="cpu")
    assert torch.equal(posterior.mean("y", 2), posterior.mean("y", 2))
    assert {mode for mode, _ in seen} == {False}
    assert result.model.training  # a copy predicts; the result's own model stays as training left it


# -- the clock -----------------------------------------------------------------------------------------------------


def test_time_since_the_last_step() -> None:
    heads = {"y": [np.zeros((3, 1)), np.zeros((2, 1))]}
    regular = lr.SequenceData.from_arrays(heads, dt=0.02, dtype=torch.float64)
    torch.testing.assert_close(elapsed(regular), torch.tensor([[0.02, 0.02, 0.02], [0.02, 0.02, 0.0]]).double())
    unit = lr.SequenceData.from_arrays(heads, dtype=torch.float64)
    assert elapsed(unit).tolist() == [[1, 1, 1], [1, 1, 0]]
    times = [np.array([5.0, 5.5, 7.0]), np.array([1.0, 1.25])]
    irregular = lr.SequenceData.from_arrays(heads, times=times, dtype=torch.float64)
    assert elapsed(irregular).tolist() == [[0, 0.5, 1.5], [0, 0.25, 0]]


@pytest.mark.parametrize("timed", [True, False])
def test_the_gap_is_the_first_channel_of_what_drives_a_timed_transition(timed: bool) -> None:
    data = lr.SequenceData.from_arrays({"y": np.zeros((1, 2, 1))}, {"x": np.full((1, 2, 1), 3.0)}, dt=0.5)
    cell = lr.LeakyIntegrator(2) if timed else lr.GRU(2)
    for inputs in (["x"], []):
        model = lr.LatentRNN(
            data.spec, transition=cell, latent=lr.Deterministic(), observations={"y": lr.Gaussian()}, inputs=inputs
        )
        rest = [3.0] if inputs else [1.0]  # a transition that nothing drives is given a constant
        assert model.transition_inputs(data).tolist() == [[([0.5] if timed else []) + rest] * 2]
        assert model.transition.dt == 0.5


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in streams"])
def test_time_constants_start_from_the_gaps_of_the_training_data(inside: bool) -> None:
    rng = np.random.default_rng(0)
    gaps = [rng.choice([0.001, 0.004, 2.0], n, p=[0.2, 0.6, 0.2]) for n in (40, 30)]
    heads = {"y": [rng.normal(size=(len(each), 1)) for each in gaps]}
    irregular = lr.SequenceData.from_arrays(heads, times=[np.cumsum(each) for each in gaps])
    regular = lr.SequenceData.from_arrays(heads, dt=0.02)

    def start(data: lr.SequenceData, **options: Any) -> np.ndarray:
        cell: lr.Transition = lr.LeakyIntegrator(3, **options)
        cell = lr.Streams({"one": cell, "other": lr.GRU(2)}) if inside else cell
        model = lr.LatentRNN(data.spec, transition=cell, latent=lr.Deterministic(), observations={"y": lr.Gaussian()})
        options = {
            "optimizer": lr.AdamW(1e-9),
            "steps": 1,
            "reporting": lr.Reporting(progress=False),
            "compute": lr.Compute(device="cpu"),
        }
        found = lr.fit(model, lr.Guide(model), data, **options).model.transition
        return (found.cells["one"] if inside else found).time_constant.detach().numpy()

    np.testing.assert_allclose(start(irregular), 0.004 * np.array([2, 10, 50]), rtol=1e-5)
    np.testing.assert_allclose(start(regular), 0.02 * np.array([2, 10, 50]), rtol=1e-5)
    np.testing.assert_allclose(start(irregular, tau=0.3), 0.3, rtol=1e-5)


# -- recovery ------------------------------------------------------------------------------------------------------


def simulated(step: Any, state: np.ndarray, *, sequences: int, steps: int, seed: int, irregular: bool) -> Any:
    """y_t = h_t + noise of 0.05, driven by white input; gaps of 0.02 to 0.5 s, or 0.1 s throughout."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(sequences, steps, 1))
    gaps = rng.uniform(0.02, 0.5, (sequences, steps)) if irregular else np.full((sequences, steps), 0.1)
    if irregular:
        gaps[:, 0] = 0.0
    h, y = np.tile(state, (sequences, 1)), []
    for t in range(steps):
        h = step(h, x[:, t], gaps[:, t, None])
        y.append(h)
    y = np.stack(y, 1) + 0.05 * rng.normal(size=(sequences, steps, len(state)))
    clock = {"times": np.cumsum(gaps, 1)} if irregular else {"dt": 0.1}
    return lr.SequenceData.from_arrays({"y": y}, {"x": x}, **clock)


def fitted(data: Any, transition: lr.Transition, steps: int = 400) -> Any:
    model = lr.LatentRNN(data.spec, transition=transition, latent=lr.Deterministic(), observations={"y": lr.Gaussian()})
    return lr.fit(
        model,
        lr.Guide(model),
        data,
        optimizer=lr.AdamW(0.02),
        steps=steps,
        batch_size=20,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("irregular", [False, True])
def test_planted_time_constants_are_found_again(irregular: bool) -> None:
    tau = np.array([0.25, 1.5])  # seconds

    def step(h: np.ndarray, x: np.ndarray, gap: np.ndarray) -> np.ndarray:
        return np.exp(-gap / tau) * h + x

    data = simulated(step, np.zeros(2), sequences=40, steps=30, seed=0, irregular=irregular)
    result = fitted(data, lr.LeakyIntegrator(2, tau=[0.5, 0.6]))
    found = np.sort(result.model.transition.time_constant.detach().numpy())
    np.testing.assert_allclose(found, tau, rtol=0.1)
    wrong = fitted(data, lr.LeakyIntegrator(2, tau=[0.5, 0.6], learned=False))  # negative control: fixed elsewhere
    evidence = [float(r.posterior(data, device="cpu").evidence().values.sum()) for r in (result, wrong)]
    assert evidence[0] > evidence[1] + 100


@pytest.mark.slow
def test_a_planted_frequency_is_found_again() -> None:
    decay, angle = np.exp(-1 / 12), 0.25
    turn = decay * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def step(h: np.ndarray, x: np.ndarray, gap: np.ndarray) -> np.ndarray:
        return h @ turn.T + x * [1.0, 0.0]

    data = simulated(step, np.zeros(2), sequences=40, steps=30, seed=1, irregular=False)
    result = fitted(data, lr.DiagonalLinear(2))
    cell = result.model.transition
    assert abs(float(cell.frequency.detach().abs()) - angle) < 0.02
    assert abs(float(cell.time_constant.detach()) / 12 - 1) < 0.15
    still = fitted(data, lr.LeakyIntegrator(2))  # negative control: it decays, and cannot turn
    evidence = [float(r.posterior(data, device="cpu").evidence().values.sum()) for r in (result, still)]
    assert evidence[0] > evidence[1] + 100


@pytest.mark.slow
def test_a_planted_field_is_found_again_from_irregular_times() -> None:
    """Eigenvalues of dh/dt = A h + B x, whatever the basis; a transition that ignores the gaps fits far worse."""
    field, drive = np.array([[-0.5, -2.0], [2.0, -0.5]]), np.array([[1.5, 0.0]])

    def step(h: np.ndarray, x: np.ndarray, gap: np.ndarray) -> np.ndarray:
        for _ in range(40):
            h = h + gap / 40 * ((h + gap / 80 * (h @ field.T + x @ drive)) @ field.T + x @ drive)
        return h

    data = simulated(step, np.array([1.0, 0.0]), sequences=40, steps=20, seed=2, irregular=True)
    result = fitted(data, lr.NeuralODE(2, width=None, time_scale=1.0, method="rk4", substeps=1))
    found = np.linalg.eigvals(result.model.transition.state_map.weight.detach().double().numpy())
    np.testing.assert_allclose(np.sort(found.imag), [-2.0, 2.0], atol=0.15)
    np.testing.assert_allclose(found.real, -0.5, atol=0.15)
    with pytest.warns(UserWarning, match="the data have irregular times, but Linear"):
        blind = fitted(data, lr.Linear(2))
    evidence = [float(r.posterior(data, device="cpu").evidence().values.sum()) for r in (result, blind)]
    assert evidence[0] > evidence[1] + 100
