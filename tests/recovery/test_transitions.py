"""Transitions simulated from known parameters are found again in what their systems do; controls are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from tests.recovery.simulate import Array

pytestmark = pytest.mark.slow

TRAIN, TEST, STEPS, NOISE = 100, 30, 15, 0.05


def built(cell: lr.Transition, inputs: int, **parameters: Any) -> Any:
    """A transition with these parameters, in double precision."""
    torch.manual_seed(0)
    cell.dt = None
    cell.build(inputs + int(cell.timed))
    cell.double()
    with torch.no_grad():
        for name, value in parameters.items():
            cell.get_parameter(name).copy_(torch.as_tensor(value, dtype=torch.float64))
    return cell


def simulated(
    cell: Any, seed: int, spread: float = 1.0, inputs: int = 1, steps: int = STEPS
) -> tuple[lr.SequenceData, Tensor, Tensor]:
    """y_t = h_t + noise of 0.05, driven by white input of the given spread; with the inputs and the noise-free h.

    The data say that their units are those of the planted cell: its weights are then of the size that fits start at.
    """
    rng = np.random.default_rng(seed)
    x = torch.as_tensor(spread * rng.normal(size=(TRAIN + TEST, steps, inputs)))
    drive = torch.cat([torch.ones_like(x[..., :1]), x], -1) if cell.timed else x
    with torch.no_grad():
        h = cell.scan(drive, torch.zeros(TRAIN + TEST, cell.state_size).double())[0]
    y = h.numpy() + NOISE * rng.normal(size=h.shape)
    return lr.SequenceData.from_arrays({"y": y}, {"x": x.numpy()}, standardise={"y": (0, 1), "x": (0, 1)}), drive, h


def fitted(data: lr.SequenceData, cell: lr.Transition, steps: int = 300, **options: Any) -> tuple[Any, float]:
    """The transition that was fitted, and the score of held-out sequences one step ahead, nats per entry."""
    model = lr.LatentRNN(data.spec, transition=cell, latent=lr.Deterministic(), observations={"y": lr.Gaussian()})
    result = lr.fit(
        model,
        lr.Guide(model),
        data[:TRAIN],
        steps=steps,
        batch_size=50,
        optimizer=lr.AdamW(0.02, schedule=lr.Cosine()),
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
        **options,
    )
    ahead = result.posterior(data[TRAIN:], device="cpu").one_step_ahead("y")
    return result, float(ahead.log_prob.mean())


# of noise of 0.05 around a state known exactly, nats per entry
TRUTH = float(-0.5 - np.log(NOISE) - 0.5 * np.log(2 * np.pi))


def run(cell: Any, result: Any, drive: Tensor) -> tuple[Any, Any]:
    """What the planted and the fitted transition do on held-out inputs, each from its own start."""
    start = result.model.latent.initial_state
    with torch.no_grad():
        planted = cell.record(drive[TRAIN:], torch.zeros(cell.state_size).double())
        return planted, result.model.transition.record(drive[TRAIN:].to(start), start)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a.double().flatten(), b.double().flatten())[0, 1])


def rotation(decay: float, angle: float) -> Array:
    return decay * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_switching_linear() -> None:
    """Slow turns on one side of a plane, fast ones on the other: both, and where the plane is."""
    cell = built(
        lr.SwitchingLinear(2, 2, switch="state"), 1, recurrent_weight=np.stack([rotation(0.95, 0.2), rotation(0.8, 1)]),
        input_weight=[[[0.5], [0.0]]] * 2, bias=[[0.3, 0.0], [-0.3, 0.0]], switch_bias=[0.0],
        switch_state_weight=[[8.0, 0.0]],
    )  # fmt: skip
    data, drive, _ = simulated(cell, 0)
    result, score = fitted(data, lr.SwitchingLinear(2, 2, switch="state"), 400)
    assert score > TRUTH - 0.05
    eigenvalues = np.linalg.eigvals(result.model.transition.recurrent_weight.detach().double().numpy())
    slow_first = np.argsort(np.abs(np.angle(eigenvalues[:, 0])))
    np.testing.assert_allclose(np.abs(eigenvalues[slow_first, 0]), [0.95, 0.8], atol=0.04)
    np.testing.assert_allclose(np.abs(np.angle(eigenvalues[slow_first, 0])), [0.2, 1.0], atol=0.06)
    planted, found = run(cell, result, drive)
    fast = [(each.gates["regime"][..., k] > 0.5) for each, k in ((planted, 1), (found, int(slow_first[1])))]
    share = float(fast[0].double().mean())
    assert 0.2 < share < 0.8
    assert float((fast[0] == fast[1]).double().mean()) > 0.95
    assert fitted(data, lr.Linear(2), 200)[1] < TRUTH - 0.5  # control: one regime


def test_coupled_gate_lstm() -> None:
    """Time constants of two moving averages, ten steps and two, each of an input of its own."""
    cell = built(
        lr.CoupledGateLSTM(2), 2, **{
            "input_map.weight": [[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 0.0], [0.0, 0.0]],
            "input_map.bias": [2.2, 0.5, 0.0, 0.0, 2.0, 2.0], "recurrent_map.weight": np.zeros((6, 2)),
        },
    )  # fmt: skip
    data, drive, _ = simulated(cell, 0, inputs=2, steps=25)
    result, score = fitted(data, lr.CoupledGateLSTM(2), 800)
    assert score > TRUTH - 0.05
    forget = [each.gates["forget"].mean((0, 1)).sort().values.numpy() for each in run(cell, result, drive)]
    tau = [-1 / np.log(each) for each in forget]
    np.testing.assert_allclose(tau[1], tau[0], rtol=0.3)
    assert tau[0][1] > 3 * tau[0][0]
    assert fitted(data, lr.Linear(2), 200)[1] < TRUTH - 0.15  # control: no candidate that saturates


@pytest.mark.parametrize("planted", [True, False], ids=["modulated", "control"])
def test_modulated_forget_lstm(planted: bool) -> None:
    """The first input is kept, the second only shortens how long it is; in the control it does nothing."""
    cell = built(
        lr.ModulatedForgetLSTM(1), 2, alpha=[2.5], raw_beta=[[-5.0, 2.0 if planted else -5.0]], **{
            "input_map.weight": [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], "input_map.bias": [-0.5, 0.0, 1.0],
            "recurrent_map.weight": np.zeros((3, 1)),
        },
    )  # fmt: skip
    data, drive, _ = simulated(cell, 0, inputs=2)
    result, score = fitted(data, lr.ModulatedForgetLSTM(1), 450)
    assert score > TRUTH - 0.05
    kept, shortens = result.model.transition.beta.detach()[0]
    assert float(kept) < 0.15
    assert float(shortens) == pytest.approx(2.13, abs=0.4) if planted else float(shortens) < 0.15
    if planted:
        assert correlation(*(each.gates["forget"] for each in run(cell, result, drive))) > 0.99
        assert fitted(data, lr.Linear(1), 200)[1] < TRUTH - 0.5


def contraction(cell: Any, recording: Any, start: Tensor, drive: Tensor) -> Tensor:
    """How much volume each held-out step keeps, det dh_t / dh_{t-1}: the same in every basis of the state."""
    before = torch.cat([start.expand(TEST, 1, -1), recording.outputs[:, :-1]], 1).flatten(0, 1)
    step = torch.func.vmap(torch.func.jacrev(cell.step))
    return torch.linalg.det(step(before, drive[TRAIN:].to(before).flatten(0, 1))).detach()


def test_gated_transition() -> None:
    """Its flow: where in the state it contracts, and predictions that no linear flow makes."""
    cell = built(lr.GatedTransition(2, 8), 1)
    with torch.no_grad():
        cell.state_map.weight[16:] = torch.as_tensor(rotation(0.95, 0.3))
        cell.gate_map.weight.mul_(3), cell.nonlinear_map.weight.mul_(2)
    data, drive, _ = simulated(cell, 0)
    result, score = fitted(data, lr.GatedTransition(2, 8), 500)
    assert score > TRUTH - 0.25
    recordings = run(cell, result, drive)
    starts = torch.zeros(2).double(), result.model.latent.initial_state
    planted, found = (
        contraction(*parts, drive) for parts in zip((cell, result.model.transition), recordings, starts, strict=True)
    )
    assert correlation(planted, found) > 0.8
    assert abs(correlation(planted, found.roll(STEPS))) < 0.3  # of other sequences
    assert fitted(data, lr.Linear(2), 200)[1] < TRUTH - 0.5


def test_min_gru() -> None:
    """What opens each unit's gate."""
    weight, bias = np.array([[1.5], [-1.5], [2.0], [1.0]]), np.array([-1.0, -2.0, 0.5, 0.0])
    data, _, _ = simulated(built(lr.MinGRU(2), 1, **{"map.weight": weight, "map.bias": bias}), 0)
    result, score = fitted(data, lr.MinGRU(2))
    assert score > TRUTH - 0.05
    found = result.model.transition.map
    order = found.bias.detach()[:2].argsort(descending=True)
    np.testing.assert_allclose(found.weight.detach()[:2, 0][order], weight[:2, 0], atol=0.15)
    np.testing.assert_allclose(found.bias.detach()[:2][order], bias[:2], atol=0.15)
    assert fitted(data, lr.Linear(2), 200)[1] < TRUTH - 0.5  # control: gates that never move


def test_thermodynamic_cell() -> None:
    """When it dissipates: weak forces hardly move the variable, strong ones do. Its unit is free, its course is not."""
    cell = built(
        lr.ThermodynamicCell(1, 4), 1, log_stiffness=[0.0], log_mobility=[np.log(0.5)], energy_scale=np.zeros(4),
        log_dissipation_scale=np.zeros(4), drive_weight=[[1.5]], dissipation_bias=np.full(4, -2.0),
        dissipation_weight=[[1.5], [-1.5], [1.0], [-1.0]],
    )  # fmt: skip
    data, drive, _ = simulated(cell, 0, spread=2.0)
    result, score = fitted(data, lr.ThermodynamicCell(1, 4), 400)
    assert score > TRUTH - 0.1
    start = result.model.latent.initial_state
    planted, found = run(cell, result, drive)
    dissipated = []
    with torch.no_grad():
        for each, of, first in ((planted, cell, torch.zeros(1).double()), (found, result.model.transition, start)):
            before = torch.cat([first.expand(TEST, 1, 1), each.outputs[:, :-1]], 1)
            dissipated.append(of.dissipation(before, drive[TRAIN:].to(before)))
    assert correlation(*dissipated) > 0.95
    assert abs(correlation(dissipated[0], dissipated[1].roll(1, 0))) < 0.3  # of other sequences
    assert fitted(data, lr.Linear(1), 200)[1] < TRUTH - 0.3  # control: a rate proportional to the force
