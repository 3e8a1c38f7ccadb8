"""Transitions: one step against the textbook's equations, `scan` against repeated steps, gradients included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.models.transitions import Transition
from tests import oracles
from tests.oracles import Array

HIDDEN, INPUTS = 3, 4
TRANSITIONS = {
    "rnn": lr.VanillaRNN(HIDDEN),
    "relu": lr.VanillaRNN(HIDDEN, nonlinearity="relu"),
    "gru": lr.GRU(HIDDEN),
    "lstm": lr.LSTM(HIDDEN),
    "linear": lr.Linear(HIDDEN),
    "rnn, two layers": lr.VanillaRNN(HIDDEN, layers=2),
    "gru, two layers": lr.GRU(HIDDEN, layers=2),
    "lstm, two layers": lr.LSTM(HIDDEN, layers=2),
}


def built(name: str) -> Transition:
    transition = TRANSITIONS[name].fresh()
    transition.build(INPUTS)
    transition.double()
    with torch.no_grad():
        for parameter in transition.parameters():
            parameter.copy_(0.6 * torch.randn_like(parameter))
    return transition


def written_out(name: str, transition: Transition, x: Array, state: Array) -> Array:
    """The next state by the equations of `tests.oracles`; the state is [h of every layer, c of every layer]."""
    weights = {key: value.detach().numpy() for key, value in transition.named_parameters()}
    if name == "linear":
        return weights["recurrent_weight"] @ state + weights["input_weight"] @ x + weights["bias"]
    layers = 2 if "two" in name else 1
    hidden, cells = state[: layers * HIDDEN].reshape(layers, -1), state[layers * HIDDEN :].reshape(-1, HIDDEN)
    new_hidden, new_cells = [], []
    for layer in range(layers):
        own = {kind: weights[f"kernel.{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        if name.startswith("lstm"):
            x, c = oracles.lstm_step(x, hidden[layer], cells[layer], own)
            new_cells.append(c)
        elif name.startswith("gru"):
            x = oracles.gru_step(x, hidden[layer], own)
        else:
            x = oracles.rnn_step(x, hidden[layer], own, "relu" if name == "relu" else "tanh")
        new_hidden.append(x)
    return np.concatenate(new_hidden + new_cells)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_one_step_is_the_textbook_s(name: str) -> None:
    transition = built(name)
    x = torch.randn(2, 5, INPUTS, dtype=torch.float64)
    state = torch.randn(2, 5, transition.state_size, dtype=torch.float64)
    new = transition.step(state, x).detach()
    assert new.shape == state.shape
    for index in np.ndindex(2, 5):
        expected = written_out(name, transition, x[index].numpy(), state[index].numpy())
        np.testing.assert_allclose(new[index], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_the_readout_sees_the_hidden_state_of_the_last_layer(name: str) -> None:
    transition = built(name)
    state = torch.arange(transition.state_size, dtype=torch.float64)
    first = HIDDEN if "two" in name else 0
    assert transition.output(state).tolist() == list(range(first, first + HIDDEN))


def test_the_update_gate_of_torch_keeps_the_old_state() -> None:
    """h_t = (1 - z) n + z h: with z forced open the state stays, which the complement's convention would erase."""
    transition = built("gru")
    with torch.no_grad():
        transition.kernel.bias_ih_l0[HIDDEN : 2 * HIDDEN] = 1e3
    state = torch.randn(HIDDEN, dtype=torch.float64)
    torch.testing.assert_close(transition.step(state, torch.randn(INPUTS, dtype=torch.float64)), state)


def repeated(transition: Transition, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(inputs.shape[-2]):
        state = transition.step(state, inputs[..., t, :])
        outputs.append(transition.output(state))
    return torch.stack(outputs, -2), state


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("batch", [(), (2,), (3, 2), (4, 3, 2)], ids=str)
@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_scan_is_repeated_steps_and_so_are_its_gradients(name: str, batch: tuple[int, ...], steps: int) -> None:
    transition = built(name)
    inputs = torch.randn(*batch, steps, INPUTS, dtype=torch.float64, requires_grad=True)
    state = torch.randn(*batch, transition.state_size, dtype=torch.float64, requires_grad=True)
    scanned, stepped = transition.scan(inputs, state), repeated(transition, inputs, state)
    assert scanned[0].shape == (*batch, steps, HIDDEN)
    leaves = [inputs, state, *transition.parameters()]
    weights = [torch.randn_like(part) for part in scanned]
    gradients = []
    for outputs in (scanned, stepped):
        loss = sum((part * weight).sum() for part, weight in zip(outputs, weights, strict=True))
        gradients.append(torch.autograd.grad(loss, leaves))
    for found, expected in zip(scanned, stepped, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-11)
    assert max(gradient.abs().max() for gradient in gradients[0]) > 0.01


@pytest.mark.parametrize("name", TRANSITIONS)
def test_one_initial_state_serves_all_sequences_and_samples(name: str) -> None:
    transition = built(name)
    inputs = torch.randn(3, 2, 5, INPUTS, dtype=torch.float64)
    for shape in [(), (2,), (3, 1), (3, 2)]:
        state = torch.randn(*shape, transition.state_size, dtype=torch.float64)
        full = state.expand(3, 2, -1)
        for found, expected in zip(transition.scan(inputs, state), transition.scan(inputs, full), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_samples_of_the_initial_state_share_one_input(name: str) -> None:
    transition = built(name)
    inputs = torch.randn(2, 5, INPUTS, dtype=torch.float64)
    state = torch.randn(3, 2, transition.state_size, dtype=torch.float64)
    outputs, last = transition.scan(inputs, state)
    assert outputs.shape == (3, 2, 5, HIDDEN)
    for sample in range(3):
        expected = transition.scan(inputs, state[sample])
        torch.testing.assert_close(outputs[sample], expected[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(last[sample], expected[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_scan_goes_on_from_its_last_state(name: str) -> None:
    transition = built(name)
    inputs = torch.randn(2, 6, INPUTS, dtype=torch.float64)
    state = torch.randn(2, transition.state_size, dtype=torch.float64)
    whole, last = transition.scan(inputs, state)
    first, middle = transition.scan(inputs[:, :4], state)
    rest, end = transition.scan(inputs[:, 4:], middle)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(end, last, rtol=0, atol=1e-12)
