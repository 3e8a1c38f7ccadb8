"""Gates: recorded by name as the textbook's equations say, clamped, and free for a cell of the user's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import latentrnn as lr
from latentrnn.models.transitions import Transition

HIDDEN, INPUTS, STEPS = 3, 2, 5
CELLS = {
    "rnn": lambda: lr.VanillaRNN(HIDDEN),
    "gru": lambda: lr.GRU(HIDDEN),
    "lstm": lambda: lr.LSTM(HIDDEN),
    "gru, two layers": lambda: lr.GRU(HIDDEN, layers=2),
    "lstm, two layers": lambda: lr.LSTM(HIDDEN, layers=2),
    "gru, layer norm": lambda: lr.GRU(HIDDEN, layers=2, layer_norm=True),
    "linear": lambda: lr.Linear(HIDDEN),
}
every_cell = pytest.mark.parametrize("name", CELLS)


def built(name: str) -> Transition:
    cell = CELLS[name]()
    cell.build(INPUTS)
    cell.double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(0.6 * torch.randn_like(parameter))
    return cell


def random_run(cell: Transition, batch: tuple[int, ...] = (2,)) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(*batch, STEPS, INPUTS, dtype=torch.float64)
    return inputs, torch.randn(*batch, cell.state_size, dtype=torch.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@every_cell
def test_a_recording_is_a_scan_with_its_gates(name: str) -> None:
    cell = built(name)
    inputs, state = random_run(cell, (4, 2))
    outputs, last = cell.scan(inputs, state[0])
    found = cell.record(inputs, state[0])
    torch.testing.assert_close(found.outputs, outputs, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.state, last, rtol=0, atol=1e-12)
    for gate in found.gates.values():
        assert gate.shape == (4, 2, STEPS, HIDDEN * getattr(cell, "layers", 1))
    names = {"gru": {"reset", "update", "candidate"}, "lstm": {"input", "forget", "output", "candidate"}}
    assert set(found.gates) == names.get(name.split(",")[0], {"candidate"} if name == "rnn" else set())


def test_gates_of_the_gru_are_the_textbook_s_and_the_update_gate_is_the_complement_of_torch_s() -> None:
    cell = built("gru")
    inputs, state = random_run(cell, ())
    gates = cell.record(inputs, state).gates
    weights = {key: value.detach().numpy() for key, value in cell.kernel.named_parameters()}
    h = state.numpy()
    for t, x in enumerate(inputs.numpy()):
        driven = (weights["weight_ih_l0"] @ x + weights["bias_ih_l0"]).reshape(3, HIDDEN)
        recurrent = (weights["weight_hh_l0"] @ h + weights["bias_hh_l0"]).reshape(3, HIDDEN)
        reset, kept = sigmoid(driven[0] + recurrent[0]), sigmoid(driven[1] + recurrent[1])
        candidate = np.tanh(driven[2] + reset * recurrent[2])
        h = (1 - kept) * candidate + kept * h
        for name, expected in (("reset", reset), ("update", 1 - kept), ("candidate", candidate)):
            np.testing.assert_allclose(gates[name][t].detach(), expected, rtol=0, atol=1e-12)


def test_gates_of_the_lstm_rebuild_its_cell() -> None:
    cell = built("lstm")
    inputs, state = random_run(cell)
    found = cell.record(inputs, state)
    c = state[:, HIDDEN:]
    for t in range(STEPS):
        gate = {name: value[:, t] for name, value in found.gates.items()}
        c = gate["forget"] * c + gate["input"] * gate["candidate"]
        torch.testing.assert_close(found.outputs[:, t], gate["output"] * torch.tanh(c), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.state[:, HIDDEN:], c, rtol=0, atol=1e-12)


def test_the_gates_of_layers_lie_side_by_side() -> None:
    cell = built("gru, two layers")
    inputs, state = random_run(cell)
    found = cell.record(inputs, state)
    first = lr.GRU(HIDDEN)
    first.build(INPUTS)
    first.double().load_state_dict({k: v for k, v in cell.state_dict().items() if "_l0" in k})
    below = first.record(inputs, state[:, :HIDDEN])
    for name, gate in below.gates.items():
        torch.testing.assert_close(found.gates[name][..., :HIDDEN], gate, rtol=0, atol=1e-12)
        assert (found.gates[name][..., HIDDEN:] - gate).abs().max() > 0.01


@pytest.mark.parametrize(("name", "gate", "value"), [("gru", "update", 0.0), ("lstm", "output", 0.0)])
def test_a_clamped_gate_acts_in_scans_and_recordings_and_only_within_its_block(
    name: str, gate: str, value: float
) -> None:
    cell = built(name)
    inputs, state = random_run(cell)
    free = cell.scan(inputs, state)[0]
    with cell.gates_through(lambda found, gates: torch.full_like(gates, value) if found == gate else gates):
        clamped, recording = cell.scan(inputs, state)[0], cell.record(inputs, state)
    held = state[:, None, :HIDDEN] if name == "gru" else torch.zeros(())
    torch.testing.assert_close(clamped, held.expand_as(clamped).double(), rtol=0, atol=0)
    torch.testing.assert_close(recording.outputs, clamped, rtol=0, atol=0)
    assert (recording.gates[gate] == value).all()
    assert torch.equal(cell.scan(inputs, state)[0], free)
    assert (free - clamped).abs().max() > 0.01


def test_a_handler_is_taken_off_where_a_block_fails() -> None:
    cell = built("gru")
    with pytest.raises(KeyError), cell.gates_through(lambda name, value: {}[name]):
        cell.record(*random_run(cell))
    cell.scan(*random_run(cell))


class Mixer(Transition):
    """A cell of the user's own: step alone, one gate named."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = self.state_size = hidden_size

    def build(self, input_size: int) -> None:
        self.open = nn.Linear(input_size, self.hidden_size)
        self.new = nn.Linear(input_size, self.hidden_size)

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        open_ = self.gate("open", torch.sigmoid(self.open(inputs)))
        return (1 - open_) * state + open_ * self.new(inputs)


def test_a_cell_of_the_user_s_own_is_recorded_and_clamped() -> None:
    cell = Mixer(HIDDEN)
    cell.build(INPUTS)
    cell.double()
    inputs, state = random_run(cell)
    found = cell.record(inputs, state)
    torch.testing.assert_close(found.gates["open"], torch.sigmoid(cell.open(inputs)))
    torch.testing.assert_close(found.outputs, cell.scan(inputs, state)[0])
    with cell.gates_through(lambda name, value: torch.zeros_like(value)):
        assert torch.equal(cell.scan(inputs, state)[1], state)


def test_gradients_reach_the_weights_through_recorded_gates() -> None:
    cell = built("lstm")
    cell.record(*random_run(cell)).gates["forget"].sum().backward()
    assert all(parameter.grad is not None for parameter in cell.parameters())
