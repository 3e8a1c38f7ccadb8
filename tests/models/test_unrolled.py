"""Scans whose backward follows all steps at once, against the same steps under autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import latentrnn as lr
from latentrnn.inference.fitting.loss import TrainingLoss, scored_steps
from latentrnn.models.scans import unrolled
from latentrnn.support.private_symbols import replace_tensor
from tests.registry import OBSERVATIONS, TRANSITIONS, make_data, shake

STEPS, ROWS, INPUTS = 12, 3, 2
TAKEN = {  # of the registry; others have a scan of their own, or take what cannot be repeated
    "gru stacked, layer norm",
    "coupled gate lstm",
    "modulated forget lstm",
    "gated",
    "switching",
    "switching sigmoid",
    "switching given",
    "thermodynamic",
    "decay",
    "decay, timed",
    "linear",
    "neural ode",
}


class OneStep(lr.Transition):
    """A transition whose step is one of `OWN`: a function of weights, the state and the input."""

    def __init__(self, kind: str, hidden_size: int = 4) -> None:
        super().__init__()
        self.kind, self.hidden_size, self.state_size = kind, hidden_size, hidden_size

    def build(self, input_size: int) -> None:
        self.first = nn.Linear(self.hidden_size + input_size, 6)
        self.second = nn.Linear(6, self.hidden_size)
        self.scale = nn.Parameter(torch.ones(self.hidden_size))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return OWN[self.kind](self, state, inputs)


def _mixed(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    units = cell.first(torch.cat([inputs, state], -1))
    left, right = units.split([2, 4], -1)
    gate = torch.softmax(right, -1)
    return (
        cell.scale * (state * gate + F.softplus(left).sum(-1, keepdim=True) / 5) - F.gelu(cell.second(units)) ** 2 / 4
    )


def _slices(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    turned = torch.cat([state[..., 1:], -state[..., :1]], -1)
    return (
        0.5 * turned
        + torch.where(state > 0, state, 0.1 * state)
        + torch.tanh(cell.second(F.silu(cell.first(torch.cat([state, inputs], -1)))))
        + state[..., :1]
    )


def _by_heads(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    """Rows and heads change places, so that the rows of a step do not lie together."""
    heads = state.unflatten(-1, (2, 2)).transpose(0, 1)
    mixed = torch.tanh(heads.reshape(-1, 2)).reshape(heads.shape).transpose(0, 1).flatten(-2)
    return mixed + torch.tanh(cell.second(cell.first(torch.cat([state, inputs], -1))))


def _without_state(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    return torch.tanh(cell.second(cell.first(torch.cat([0 * state.detach(), inputs], -1))))


def _identity(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    return state


def _plain(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    return torch.tanh(cell.second(torch.relu(cell.first(torch.cat([state, inputs], -1))))) + 0.3 * cell.scale * state


OWN: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "plain": _plain,
    "mixed": _mixed,
    "slices": _slices,
    "without the state": _without_state,
    "identity": _identity,
}


def built(make: Callable[[], lr.Transition], inputs: int = INPUTS) -> lr.Transition:
    torch.manual_seed(0)
    cell = make()
    cell.dt = 0.1
    if isinstance(cell, lr.Streams):
        cell.own_sizes = [1] * len(cell.own_inputs)
    cell.build(inputs + cell.given_weights + int(cell.timed))
    shake(cell.double())
    return cell


def run_of(cell: lr.Transition, batch: tuple[int, ...] = (ROWS,), steps: int = STEPS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = INPUTS + cell.given_weights + int(cell.timed)
    inputs = torch.rand(*batch, steps, size, dtype=torch.float64, generator=generator).requires_grad_()
    state = torch.randn(*batch, cell.state_size, dtype=torch.float64, generator=generator).requires_grad_()
    return inputs, state


def one_by_one(cell: lr.Transition, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    inputs, state = (
        inputs.expand(*torch.broadcast_shapes(inputs.shape[:-2], state.shape[:-1]), *inputs.shape[-2:]),
        state,
    )
    for a_t in inputs.unbind(-2):
        state = cell.step(state.expand(*a_t.shape[:-1], -1), a_t)
        outputs.append(cell.output(state))
    return torch.stack(outputs, -2), state


def gradients(found: tuple[Tensor, Tensor], wanted: list[Tensor], **options: Any) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(2)
    loss = sum((part * torch.randn(part.shape, dtype=part.dtype, generator=generator)).sum() for part in found)
    return list(torch.autograd.grad(loss, wanted, allow_unused=True, **options))


def assert_same(cell: lr.Transition, inputs: Tensor, state: Tensor, more: tuple[Tensor, ...] = ()) -> None:
    wanted = [inputs, state, *cell.parameters(), *more]
    found, expected = cell.scan(inputs, state), one_by_one(cell, inputs, state)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-11, atol=1e-11)
    pairs = list(zip(gradients(found, wanted), gradients(expected, wanted), strict=True))
    assert max(float(other.abs().max()) for _, other in pairs if other is not None) > 1e-2
    for own, other in pairs:
        if other is None:
            assert own is None or not own.any()
        else:
            assert own is not None
            torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def fewest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrolled, "FEWEST", 8)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each scan was unrolled."""
    found: list[bool] = []
    original = unrolled._Steps.apply

    def noted(*given: Any) -> Any:
        found.append(True)
        return original(*given)

    monkeypatch.setattr(unrolled._Steps, "apply", noted)
    return found


EVERY = TRANSITIONS | {f"own, {kind}": (lambda kind=kind: OneStep(kind)) for kind in OWN}


SCANNED = {name: make for name, make in TRANSITIONS.items() if not name.startswith("streams")}  # each stream by itself
EVERY: dict[str, Callable[[], lr.Transition]] = SCANNED | {
    f"own, {kind}": (lambda kind=kind: OneStep(kind)) for kind in OWN
}


@pytest.mark.parametrize("batch", [(ROWS,), (), (2, ROWS)], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_values_and_gradients_are_those_of_steps_one_by_one(
    name: str, batch: tuple[int, ...], taken: list[bool]
) -> None:
    cell = built(EVERY[name])
    assert_same(cell, *run_of(cell, batch))
    assert bool(taken) == (name in TAKEN or name.startswith("own"))


@pytest.mark.parametrize("name", ["coupled gate lstm", "thermodynamic", "own, mixed", "own, slices"])
def test_parts_of_the_gradient(name: str, taken: list[bool]) -> None:
    """One start for all rows; inputs, start or weights that want none; the outputs or the last state alone."""
    cell = built(EVERY[name])
    inputs, state = run_of(cell)
    assert_same(cell, inputs, state[0].detach().requires_grad_())
    wanted = list(cell.parameters())
    for given in ((inputs.detach(), state.detach()), (inputs.detach(), state), (inputs, state.detach())):
        for part in (0, 1):
            found = [
                gradients((scan(*given)[part],) * 2, wanted) for scan in (cell.scan, lambda *g: one_by_one(cell, *g))
            ]
            for own, other in zip(*found, strict=True):
                if other is not None:
                    torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
    cell.requires_grad_(False)
    found = [gradients(run(inputs, state), [inputs, state]) for run in (cell.scan, lambda *g: one_by_one(cell, *g))]
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
    assert len(taken) == 8


@pytest.mark.parametrize("name", ["coupled gate lstm", "modulated forget lstm", "gated", "thermodynamic", "own, mixed"])
def test_first_and_second_derivatives_are_those_of_differences(
    name: str, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unrolled, "FEWEST", 3)
    cell = built(EVERY[name])
    inputs, state = run_of(cell, (1,), steps=3)
    some = next(cell.parameters())
    assert torch.autograd.gradcheck(lambda x, h, _: cell.scan(x, h), (inputs, state, some), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x, h: cell.scan(x, h)[0][:, -1], (inputs, state), fast_mode=True)
    second = []
    for scan in (cell.scan, lambda *given: one_by_one(cell, *given)):
        first = gradients(scan(inputs, state), [inputs, some], create_graph=True)
        total = sum(each.square().sum() for each in first if each is not None)
        second.append(torch.autograd.grad(total, [inputs, state, some]))
    for own, other in zip(*second, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)
    assert taken


def test_a_gradient_may_be_asked_for_twice() -> None:
    cell = built(TRANSITIONS["gated"])
    inputs, state = run_of(cell)
    found = cell.scan(inputs, state)[0].sum()
    once = torch.autograd.grad(found, [inputs, *cell.parameters()], retain_graph=True)
    again = torch.autograd.grad(found, [inputs, *cell.parameters()])
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))


def test_weights_that_belong_to_nobody_have_gradients_too(monkeypatch: pytest.MonkeyPatch, taken: list[bool]) -> None:
    outside = torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)
    monkeypatch.setitem(OWN, "outside", lambda cell, s, a: torch.tanh(_plain(cell, s, a) * outside.exp()))
    cell = built(lambda: OneStep("outside"))
    assert_same(cell, *run_of(cell), more=(outside,))
    assert taken


def test_weights_that_follow_from_others(taken: list[bool]) -> None:
    """As where a prior's draw stands in for what a cell has of its own."""
    cell = built(TRANSITIONS["gated"])
    level = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    drawn = level * torch.ones_like(cell.gate_map.weight)
    replace_tensor(cell.gate_map, "weight", drawn)
    inputs, state = run_of(cell)
    found = [
        torch.autograd.grad((scan(inputs, state)[0] ** 2).sum() + drawn.sum(), [level, inputs], retain_graph=True)
        for scan in (cell.scan, lambda *given: one_by_one(cell, *given))
    ]
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
    assert taken


def test_a_weight_that_has_changed_since_is_an_error() -> None:
    cell = built(TRANSITIONS["gated"])
    found = cell.scan(*run_of(cell))[0].sum()
    with torch.no_grad():
        cell.gate_map.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


def test_second_derivatives_of_steps_that_have_been_exchanged_are_refused() -> None:
    cell = built(TRANSITIONS["gated"])
    inputs, state = run_of(cell)
    others = {name: nn.Parameter(value.detach() * 1.1) for name, value in cell.named_parameters()}
    before = {name: cell.get_parameter(name) for name in others}
    for names in (others, before):
        for name, value in names.items():
            part, _, own = name.rpartition(".")
            setattr(cell.get_submodule(part), own, value)
        if names is others:
            found = cell.scan(inputs, state)[0].sum()
    torch.autograd.grad(found, [inputs, *others.values()], retain_graph=True)  # the first is right
    with pytest.raises(RuntimeError, match="GatedTransition: a second derivative"):
        torch.autograd.grad(found, inputs, create_graph=True)


class Counted(OneStep):
    """A cell that is not the same at every step."""

    def __init__(self, kind: str, **shared: Any) -> None:
        super().__init__(kind, **shared)
        self.count = 0


def _every_other(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    cell.count += 1
    return _plain(cell, state, inputs) if cell.count % 2 else 0.5 * state


def _with_the_mean(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    return _plain(cell, state, inputs) - state.mean(0, keepdim=True)


def _dropped(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    return F.dropout(_plain(cell, state, inputs), 0.3, cell.training)


def _written_into(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    found = _plain(cell, state, inputs).clone()
    found[..., 0] = 0.5
    return found


def _looked_at(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    return _plain(cell, state, inputs) * (0.5 if float(state.detach()[0, 0]) > 0 else 0.8)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.kept = torch.from_numpy(1 + np.tanh(value.detach().numpy()))
        return value.sinh()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.kept


def _in_python(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    return torch.tanh(_Doubled.apply(_plain(cell, state, inputs)))


def _of_fixed_rows(cell: Any, state: Tensor, inputs: Tensor) -> Tensor:
    return _plain(cell, state, inputs) * torch.linspace(0.5, 1, ROWS, dtype=state.dtype).unsqueeze(-1)


OTHERS = {
    "every other": _every_other,
    "with the mean": _with_the_mean,
    "dropped": _dropped,
    "written into": _written_into,
    "looked at": _looked_at,
    "in Python": _in_python,
    "of fixed rows": _of_fixed_rows,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_cannot_be_repeated_goes_step_by_step(
    kind: str, monkeypatch: pytest.MonkeyPatch, taken: list[bool]
) -> None:
    """Dropout draws what it would have drawn, and a cell that counts begins where it would have begun, or says so."""
    monkeypatch.setitem(OWN, kind, OTHERS[kind])
    cell = built(lambda: Counted(kind))
    inputs, state = run_of(cell)
    found = []
    for scan in (cell.scan, lambda *given: one_by_one(cell, *given)):
        torch.manual_seed(3)
        cell.count = 0
        if kind == "every other" and scan is cell.scan:
            cell.count = -3 + 1  # what looking for a repeated step took
        found.append((scan(inputs, state), [inputs, state, *cell.parameters()]))
    for own, other in zip(*(value for value, _ in found), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
    for own, other in zip(*(gradients(*each) for each in found), strict=True):
        if other is not None:
            torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
    assert not taken


def test_hooks_and_handlers_see_every_step(taken: list[bool]) -> None:
    cell, called = built(lambda: OneStep("plain")), []
    inputs, state = run_of(cell)
    hook = cell.first.register_forward_hook(lambda *_: called.append(1))
    cell.scan(inputs, state)
    assert len(called) == STEPS
    hook.remove()
    gated, noted = built(TRANSITIONS["gated"]), []
    with gated.gates_through(lambda name, value: noted.append(name) or value):
        gated.scan(*run_of(gated))
    assert noted == ["gate"] * STEPS
    assert not taken
    hook = cell.scale.register_hook(lambda gradient: 2 * gradient)
    twice = torch.autograd.grad(cell.scan(inputs, state)[0].sum(), cell.scale)[0]
    hook.remove()
    torch.testing.assert_close(twice, 2 * torch.autograd.grad(cell.scan(inputs, state)[0].sum(), cell.scale)[0])
    assert len(taken) == 1


def test_where_no_gradient_is_followed_nothing_is_recorded(taken: list[bool]) -> None:
    cell = built(TRANSITIONS["gated"])
    inputs, state = (value.detach() for value in run_of(cell))
    expected = one_by_one(cell, inputs, state)[0].detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            # all steps' inputs are one product here and one each there, which processors round in ways of their own
            torch.testing.assert_close(cell.scan(inputs, state)[0], expected, rtol=1e-14, atol=1e-14)
    cell.requires_grad_(False)
    assert not cell.scan(inputs, state)[0].requires_grad
    assert not taken


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own forward derivatives use it
def test_transforms_go_step_by_step(taken: list[bool]) -> None:
    cell = built(TRANSITIONS["coupled gate lstm"])
    inputs, state = run_of(cell, (2,))
    last = lambda x: cell.scan(x, state.detach())[0][:, -1]  # noqa: E731
    expected = torch.autograd.functional.jacobian(lambda x: one_by_one(cell, x, state)[0][:, -1], inputs)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(last)(inputs.detach()), expected, rtol=0, atol=1e-11)
    weights = {name: torch.stack([p.detach(), 0.5 * p.detach()]) for name, p in cell.named_parameters()}
    both = torch.func.vmap(
        lambda own: torch.func.functional_call(_Scan(cell), {f"cell.{k}": v for k, v in own.items()}, (inputs, state))
    )(weights)
    torch.testing.assert_close(both[0], one_by_one(cell, inputs, state)[0], rtol=0, atol=1e-11)
    assert (both[0] - both[1]).abs().max() > 1e-2
    assert not taken


class _Scan(nn.Module):
    def __init__(self, cell: lr.Transition) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        return self.cell.scan(inputs, state)[0]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["coupled gate lstm", "modulated forget lstm", "gated", "thermodynamic", "own, plain"])
def test_single_precision(name: str, device: str, taken: list[bool]) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    cell = built(EVERY[name]).to(device, torch.float32)
    inputs, state = (value.detach().to(device, torch.float32).requires_grad_() for value in run_of(cell, (50,), 60))
    wanted = [inputs, state, *cell.parameters()]
    found = [run(inputs, state)[0].square().mean() for run in (cell.scan, lambda *given: one_by_one(cell, *given))]
    pairs = [torch.autograd.grad(value, wanted, allow_unused=True) for value in found]
    for own, other in zip(*pairs, strict=True):
        if other is not None:
            torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-9)
    assert taken


def test_cells_that_are_full_do_not_stop_it(taken: list[bool]) -> None:
    """The logit of a number next to one is another after any rounding, which must not look like another step."""
    cell = built(TRANSITIONS["coupled gate lstm"]).float()
    inputs, state = (value.detach().float() for value in run_of(cell, (50,), 60))
    state[:, 3:] = 12.0
    cell.scan(inputs, state)[0].sum().backward()
    assert taken


def test_rows_that_do_not_lie_together_are_right_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OWN, "heads", _by_heads)
    cell = built(lambda: OneStep("heads"))
    assert_same(cell, *run_of(cell))


MODELS: dict[str, Callable[[], tuple[lr.Transition, lr.Latent]]] = {
    "innovations": lambda: (lr.GatedTransition(3, width=4), lr.Innovations(2, initial=2)),
    "prior of a cell's number": lambda: (
        lr.ModulatedForgetLSTM(3, priors={"beta": dist.Gamma(2.0, 4.0)}),
        lr.InitialState(2),
    ),
    "fading": lambda: (lr.Decay(lr.GRU(3, layers=2)), lr.RecurrentNormal(2, initial=2)),
    "streams": lambda: (
        lr.Streams({"a": lr.CoupledGateLSTM(2), "b": lr.ThermodynamicCell(2, width=3)}, {"b": ["drive"]}),
        lr.Deterministic(),
    ),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("particles", [1, 2])
def test_a_model_has_the_same_gradients(
    kind: str, particles: int, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sequences that differ in length, with several draws."""
    data = make_data(OBSERVATIONS["poisson"], (14, 11, 12))
    torch.manual_seed(0)
    transition, latent = MODELS[kind]()
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": lr.Poisson()}).double()
    encoder = None if kind == "streams" else lr.RNNEncoder(3)
    guide = lr.Guide(model, encoder=encoder).double()
    for module in (model, guide):
        shake(module, 0.1)
    loss = TrainingLoss(model, guide, lr.ELBO(num_particles=particles), scored_steps(data))
    wanted = [*model.parameters(), *guide.parameters()]
    found = []
    for fewest in (2, 1000):
        monkeypatch.setattr(unrolled, "FEWEST", fewest)
        torch.manual_seed(1)
        value, _ = loss(data, 1.0)
        found.append([value, *torch.autograd.grad(value, wanted, allow_unused=True)])
        expected = kind != "prior of a cell's number" or particles == 1  # several draws go by vmap
        assert bool(taken) == (expected and fewest == 2)
        taken.clear()
    for own, other in zip(*found, strict=True):
        if other is not None:
            assert own is not None
            torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)
