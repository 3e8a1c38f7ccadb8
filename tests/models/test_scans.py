"""Our own loops over time against torch's modules, and their backwards against differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import latentrnn as lr
from latentrnn.models.scans import gru, gru_scan, layer_of, layout, run, run_directions, vanilla_scan
from tests.registry import shake

KERNELS: dict[str, Callable[..., nn.RNNBase]] = {
    "gru": nn.GRU,
    "tanh": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="tanh", **options),
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
WAYS = {"forwards": (False,), "backwards": (True,), "both": (False, True)}
LENGTHS = torch.tensor([5, 1, 3])
every_kernel = pytest.mark.parametrize("kind", KERNELS)
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(
    params=[(2**20, 2**20), (2**20, 0), (24, 0), (1, 2**20)],
    ids=["one chunk", "one chunk of large steps", "chunks of two large steps", "chunks of one"],
    autouse=True,
)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences are 5 steps of 3 rows with 4 units, so that the last of several chunks is shorter.

    Of large steps a GRU's backward takes other operations.
    """
    monkeypatch.setattr(layout, "CHUNK", request.param[0])
    monkeypatch.setattr(gru, "LARGE", request.param[1])


class Setting(NamedTuple):
    kernels: list[nn.RNNBase]
    inputs: Tensor
    state: Tensor
    reverse: tuple[bool, ...]

    @property
    def wanted(self) -> list[Tensor]:
        return [self.inputs, self.state, *(p for kernel in self.kernels for p in kernel.parameters())]


def setting(kind: str, way: str, steps: int = 5) -> Setting:
    torch.manual_seed(0)
    reverse = WAYS[way]
    kernels = [KERNELS[kind](2, 4, batch_first=True).double() for _ in reverse]
    inputs = torch.randn(3, steps, 2, dtype=torch.float64, requires_grad=True)
    state = torch.randn(len(reverse), 3, 4, dtype=torch.float64, requires_grad=True)
    return Setting(kernels, inputs, state, reverse)


def scan(kind: str, at: Setting, inputs: Tensor, state: Tensor | None, lengths: Tensor | None = None) -> Tensor:
    """What is said of each step, and after it what each direction says at its end, as one more step."""
    layers = [layer_of(kernel, 0) for kernel in at.kernels]
    if kind == "gru":
        found = gru_scan(inputs, state, layers, at.reverse, lengths)
    else:
        found = vanilla_scan(inputs, state, layers, at.reverse, lengths, nonlinearity=kind)
    return torch.cat([found[0], found[1].unsqueeze(1)], 1)


def by_torch(at: Setting, inputs: Tensor, state: Tensor | None) -> Tensor:
    found = []
    for k, (kernel, back) in enumerate(zip(at.kernels, at.reverse, strict=True)):
        outputs = kernel(inputs.flip(1) if back else inputs, None if state is None else state[k : k + 1])[0]
        found.append(torch.cat([outputs.flip(1) if back else outputs, outputs[:, -1:]], 1))
    return torch.cat(found, -1)


def assert_same(found: Tensor, expected: Tensor, wanted: list[Tensor]) -> None:
    """Values and gradients, of the sum under random weights."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((weights * h).sum(), wanted, allow_unused=True) for h in (found, expected)]
    assert sum(g is not None and bool(g.abs().max() > 1e-3) for g in gradients[1]) >= len(wanted) - 1
    for own, other in zip(*gradients, strict=True):
        if other is not None:
            torch.testing.assert_close(own, other, rtol=0, atol=1e-11)


@every_kernel
@every_way
@pytest.mark.parametrize("steps", [1, 5])
def test_values_and_gradients_are_those_of_torch(kind: str, way: str, steps: int) -> None:
    at = setting(kind, way, steps)
    assert_same(scan(kind, at, at.inputs, at.state), by_torch(at, at.inputs, at.state), at.wanted)
    if steps > 1:
        assert_same(scan(kind, at, at.inputs, None), by_torch(at, at.inputs, None), at.wanted)
    with torch.no_grad():
        torch.testing.assert_close(scan(kind, at, at.inputs, at.state), by_torch(at, at.inputs, at.state))


@every_kernel
@every_way
def test_a_row_with_padding_is_as_alone(kind: str, way: str) -> None:
    """What lies in padding leaves no trace, whatever stands there; h is zero in it."""
    at = setting(kind, way)
    valid = torch.arange(5) < LENGTHS[:, None]
    disturbed = torch.where(valid.unsqueeze(-1), at.inputs, 1e3)
    found = scan(kind, at, disturbed, None, LENGTHS)
    assert not found[:, :-1][~valid].any()
    alone = [by_torch(at, at.inputs[n : n + 1, :length], None)[0] for n, length in enumerate(LENGTHS)]
    own = [torch.cat([found[n, :length], found[n, -1:]]) for n, length in enumerate(LENGTHS)]
    assert_same(torch.cat(own), torch.cat(alone), at.wanted)


@every_kernel
@every_way
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_of_the_ends_alone(kind: str, way: str, padded: bool) -> None:
    at = setting(kind, way)
    pair = [at.kernels[at.reverse.index(back)] if back in at.reverse else None for back in (False, True)]
    found = run_directions(*pair, at.inputs, LENGTHS if padded else None)[1]
    lengths = LENGTHS if padded else torch.full((3,), 5)
    alone = [by_torch(at, at.inputs[n : n + 1, :length], None)[0, -1] for n, length in enumerate(lengths)]
    weights = [at.inputs, *at.wanted[2:]]
    assert_same(found, torch.stack(alone), weights)


@every_kernel
def test_gradients_of_the_inputs_alone(kind: str) -> None:
    """With weights that are not learned, as when latents are sampled given a fitted model."""
    at = setting(kind, "forwards")
    for parameter in at.kernels[0].parameters():
        parameter.requires_grad_(False)
    assert_same(scan(kind, at, at.inputs, at.state), by_torch(at, at.inputs, at.state), [at.inputs, at.state])


@every_kernel
@every_way
def test_first_and_second_derivatives_are_those_of_differences(kind: str, way: str) -> None:
    at = setting(kind, way, 3)
    assert torch.autograd.gradcheck(lambda x, h, *_: scan(kind, at, x, h), at.wanted)
    ragged = torch.tensor([2, 0, 3])
    assert torch.autograd.gradcheck(lambda x, *_: scan(kind, at, x, None, ragged), [at.inputs, *at.wanted[2:]])
    for lengths, state in ((None, at.state), (ragged, None)):
        total = scan(kind, at, at.inputs, state, lengths).square().sum()
        (gradient,) = torch.autograd.grad(total, at.inputs, create_graph=True)
        second = torch.autograd.grad(gradient.square().sum(), at.kernels[0].weight_hh_l0)[0]
        reference = by_loop(kind, at, state, lengths)
        (gradient,) = torch.autograd.grad(reference.square().sum(), at.inputs, create_graph=True)
        expected = torch.autograd.grad(gradient.square().sum(), at.kernels[0].weight_hh_l0)[0]
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(second, expected, rtol=0, atol=1e-9)


def by_loop(kind: str, at: Setting, state: Tensor | None, lengths: Tensor | None) -> Tensor:
    """torch's cells, one step after the other."""
    cell = {"gru": torch.gru_cell, "tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}[kind]
    found = []
    for k, back in enumerate(at.reverse):
        h = at.inputs.new_zeros(3, 4) if state is None else state[k]
        steps = {}
        for t in reversed(range(3)) if back else range(3):
            h = cell(at.inputs[:, t], h, *layer_of(at.kernels[k], 0))
            if lengths is not None:
                h = h * (t < lengths)[:, None]
            steps[t] = h
        last = steps[0] if back else steps[2] if lengths is None else None
        if last is None:  # zero where there is no step at all
            last = torch.stack([steps[max(n - 1, 0)][row] for row, n in enumerate(lengths.tolist())])
        found.append(torch.stack([*(steps[t] for t in range(3)), last], 1))
    return torch.cat(found, -1)


class Last(nn.Module):
    """The last state, as a function of weights that `functional_call` can put in place."""

    def __init__(self, kernel: nn.RNNBase) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, inputs: Tensor) -> Tensor:
        return run(self.kernel, inputs, inputs.new_zeros(1, 3, 4))[0][:, -1]


@every_kernel
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward derivatives use it
def test_functional_transforms_go_through(kind: str) -> None:
    """A population of weights by `vmap`, and both kinds of Jacobians, for which the library has no rules."""
    at = setting(kind, "forwards", 3)
    last, inputs = Last(at.kernels[0]), at.inputs.detach()
    several = {name: torch.stack([p.detach(), 0.5 * p.detach()]) for name, p in last.named_parameters()}
    both = torch.func.vmap(lambda weights: torch.func.functional_call(last, weights, (inputs,)))(several)
    for index, found in enumerate(both):
        one = {name: value[index] for name, value in several.items()}
        torch.testing.assert_close(found, torch.func.functional_call(last, one, (inputs,)), rtol=0, atol=1e-12)
    assert (both[0] - both[1]).abs().max() > 1e-2
    expected = torch.autograd.functional.jacobian(last, inputs)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(last)(inputs), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", [*KERNELS, "lstm"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_modules_that_run_both_ways(kind: str, layers: int, padded: bool) -> None:
    torch.manual_seed(0)
    make = KERNELS.get(kind, nn.LSTM)
    forwards, backwards = (make(2, 4, layers, batch_first=True).double() for _ in range(2))
    inputs = torch.randn(3, 5, 2, dtype=torch.float64)
    lengths = LENGTHS if padded else torch.full((3,), 5)
    for pair in ((forwards, backwards), (forwards, None), (None, backwards)):
        found, ends = run_directions(*pair, inputs, lengths if padded else None)
        for n, length in enumerate(lengths):
            x, expected, last = inputs[n : n + 1, :length], [], []
            if pair[0] is not None:
                expected.append(forwards(x)[0])
                last.append(expected[-1][0, -1])
            if pair[1] is not None:
                expected.append(backwards(x.flip(1))[0].flip(1))
                last.append(expected[-1][0, 0])
            torch.testing.assert_close(found[n, :length], torch.cat(expected, -1)[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(ends[n], torch.cat(last), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "cell", [lr.GRU(4, layers=2), lr.VanillaRNN(4, layers=2, nonlinearity="relu"), lr.LSTM(4)], ids=repr
)
def test_a_transition_scans_as_its_module_does(cell: Any) -> None:
    """Leading sample axes, and the last state of every layer."""
    torch.manual_seed(0)
    cell = cell.fresh()
    cell.build(2)
    shake(cell.double())
    inputs = torch.randn(3, 5, 2, dtype=torch.float64)
    state = torch.randn(2, 1, cell.state_size, dtype=torch.float64)
    outputs, last = cell.scan(inputs, state)
    assert outputs.shape == (2, 3, 5, 4)
    for index in range(2):
        # hidden states of all layers, and after them, of an LSTM, cell states: (part, layer, row, hidden)
        parts = state[index].expand(3, -1).unflatten(-1, (-1, cell.layers, 4)).permute(1, 2, 0, 3).contiguous()
        expected, end = cell.kernel(inputs, tuple(parts) if len(parts) > 1 else parts[0])
        torch.testing.assert_close(outputs[index], expected, rtol=0, atol=1e-12)
        ends = torch.stack(end if isinstance(end, tuple) else (end,)).permute(2, 0, 1, 3).flatten(1)
        torch.testing.assert_close(last[index], ends, rtol=0, atol=1e-12)
