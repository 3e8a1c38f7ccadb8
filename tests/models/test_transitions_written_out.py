"""Every newer transition against its own equations in NumPy or SciPy, its scan against its steps; what is refused."""

from __future__ import annotations

import builtins
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.signal
import scipy.special
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.recurrence import linear_recurrence
from tests.models.test_pyro import run_nuts
from tests.oracles import Array
from tests.registry import OBSERVATIONS, make_data

HIDDEN, INPUTS, STEPS = 4, 3, 7
Weights = Mapping[str, Array]
sigmoid, softplus = scipy.special.expit, lambda x: np.logaddexp(0, x)


def leaky(w: Weights, x: Array, s: Array) -> Array:
    return np.exp(-x[0] / np.exp(w["log_time_constant"])) * s + w["input_weight"] @ x[1:]


def leaky_average(w: Weights, x: Array, s: Array) -> Array:
    retention = np.exp(-x[0] / np.exp(w["log_time_constant"]))
    return retention * s + (1 - retention) * (w["input_weight"] @ x[1:])


def coupled(w: Weights, x: Array, s: Array) -> Array:
    h, c = s[:HIDDEN], sigmoid(s[HIDDEN:])
    f, g, o = sigmoid(w["input_map.weight"] @ x + w["input_map.bias"] + w["recurrent_map.weight"] @ h).reshape(3, -1)
    c = f * c + (1 - f) * g
    return np.concatenate([o * c, np.log(c / (1 - c))])


def modulated(w: Weights, x: Array, s: Array) -> Array:
    h, c = s[:HIDDEN], s[HIDDEN:]
    i, g, o = (w["input_map.weight"] @ x + w["input_map.bias"] + w["recurrent_map.weight"] @ h).reshape(3, -1)
    f = sigmoid(w["alpha"] - softplus(w["raw_beta"]) @ np.abs(x))
    c = f * c + sigmoid(i) * np.tanh(g)
    return np.concatenate([sigmoid(o) * np.tanh(c), c])


def gated(w: Weights, x: Array, s: Array) -> Array:
    width = w["gate_map.weight"].shape[1]
    units = w["input_map.weight"] @ x + w["input_map.bias"] + w["state_map.weight"] @ s
    gate = sigmoid(w["gate_map.weight"] @ np.maximum(units[:width], 0) + w["gate_map.bias"])
    new = w["nonlinear_map.weight"] @ np.maximum(units[width : 2 * width], 0) + w["nonlinear_map.bias"]
    return (1 - gate) * units[2 * width :] + gate * new


def min_gru(w: Weights, x: Array, s: Array) -> Array:
    update, new = (w["map.weight"] @ x + w["map.bias"]).reshape(2, -1)
    return (1 - sigmoid(update)) * s + sigmoid(update) * new


def diagonal(w: Weights, x: Array, s: Array) -> Array:
    turn = np.exp(-1 / np.exp(w["log_time_constant"]) + 1j * w["frequency"])
    driven = (w["map.weight"] @ x + w["map.bias"]).reshape(2, -1)
    z = turn * (s[: HIDDEN // 2] + 1j * s[HIDDEN // 2 :]) + driven[0] + 1j * driven[1]
    return np.concatenate([z.real, z.imag])


def switching(w: Weights, x: Array, s: Array) -> Array:
    logits = w["switch_bias"] + w["switch_state_weight"] @ s + w["switch_input_weight"] @ x
    weights = np.exp(np.append(0.0, logits))
    parts = [a @ s + b @ x + c for a, b, c in zip(w["recurrent_weight"], w["input_weight"], w["bias"], strict=True)]
    return sum(p * part for p, part in zip(weights / weights.sum(), parts, strict=True))


def switching_sigmoid(w: Weights, x: Array, s: Array) -> Array:
    weights = sigmoid(w["switch_bias"] + w["switch_input_weight"] @ x)
    parts = [a @ s + b @ x + c for a, b, c in zip(w["recurrent_weight"], w["input_weight"], w["bias"], strict=True)]
    return sum(p * part for p, part in zip(weights, parts, strict=True))


def thermodynamic(w: Weights, x: Array, s: Array) -> Array:
    stiffness, mobility, scale = (np.exp(w[f"log_{k}"]) for k in ("stiffness", "mobility", "dissipation_scale"))
    units = w["energy_weight"] @ s + w["energy_map.weight"] @ x[1:] + w["energy_map.bias"]
    force = w["drive_weight"] @ x[1:] - stiffness * s - w["energy_weight"].T @ (w["energy_scale"] * np.tanh(units))
    bias = w["dissipation_bias"]
    slope = np.tanh(w["dissipation_weight"] @ force + bias) - np.tanh(bias)
    return s + x[0] / 10 * (mobility * force + w["dissipation_weight"].T @ (scale * slope))


def layer_norm_gru(w: Weights, x: Array, s: Array) -> Array:
    recurrent = (w["kernel.weight_hh_l0"] @ s).reshape(3, -1)
    centred = recurrent - recurrent.mean(1, keepdims=True)
    recurrent = centred / np.sqrt(recurrent.var(1, keepdims=True) + 1e-5) * w["norm_gain"][0]
    recurrent = recurrent + w["kernel.bias_hh_l0"].reshape(3, -1)
    driven = (w["kernel.weight_ih_l0"] @ x + w["kernel.bias_ih_l0"]).reshape(3, -1)
    reset, kept = sigmoid(driven[:2] + recurrent[:2])
    return (1 - kept) * np.tanh(driven[2] + reset * recurrent[2]) + kept * s


CELLS: dict[str, tuple[Transition, Callable[[Weights, Array, Array], Array]]] = {
    "leaky": (lr.LeakyIntegrator(HIDDEN), leaky),
    "leaky average": (lr.LeakyIntegrator(HIDDEN, average=True), leaky_average),
    "coupled gate lstm": (lr.CoupledGateLSTM(HIDDEN), coupled),
    "modulated forget lstm": (lr.ModulatedForgetLSTM(HIDDEN), modulated),
    "gated": (lr.GatedTransition(HIDDEN, width=5), gated),
    "min gru": (lr.MinGRU(HIDDEN), min_gru),
    "diagonal": (lr.DiagonalLinear(HIDDEN), diagonal),
    "switching": (lr.SwitchingLinear(HIDDEN, 3), switching),
    "switching sigmoid": (lr.SwitchingLinear(HIDDEN, 2, weights="sigmoid", switch="input"), switching_sigmoid),
    "thermodynamic": (lr.ThermodynamicCell(HIDDEN, width=5), thermodynamic),
    "gru, layer norm": (lr.GRU(HIDDEN, layer_norm=True), layer_norm_gru),
}
every_cell = pytest.mark.parametrize("name", CELLS)
GATES = {
    "leaky": {"retention"},
    "leaky average": {"retention"},
    "coupled gate lstm": {"forget", "candidate", "output"},
    "modulated forget lstm": {"input", "forget", "candidate", "output"},
    "gated": {"gate"},
    "min gru": {"update", "candidate"},
    "diagonal": set(),
    "switching": {"regime"},
    "switching sigmoid": {"regime"},
    "thermodynamic": {"force"},
    "gru, layer norm": {"reset", "update", "candidate"},
}


def built(cell: Transition, inputs: int = INPUTS, scale: float = 0.6) -> Any:
    cell = cell.fresh()
    cell.build(inputs)
    cell.double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return cell


def random_run(cell: Transition, *batch: int, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(*batch, steps, INPUTS, dtype=torch.float64)
    if cell.timed:
        inputs[..., 0] = inputs[..., 0].abs()
    return inputs, torch.randn(*batch, cell.state_size, dtype=torch.float64)


def weights_of(cell: Transition) -> dict[str, Array]:
    return {name: value.detach().numpy() for name, value in cell.named_parameters()}


@every_cell
def test_one_step_is_what_the_formula_says(name: str) -> None:
    cell, formula = built(CELLS[name][0]), CELLS[name][1]
    inputs, _ = random_run(cell, 3)
    state = torch.randn(3, STEPS, cell.state_size, dtype=torch.float64)
    found = cell.step(state, inputs).detach()
    for index in np.ndindex(3, STEPS):
        expected = formula(weights_of(cell), inputs[index].numpy(), state[index].numpy())
        np.testing.assert_allclose(found[index], expected, rtol=0, atol=1e-11)


@every_cell
def test_a_scan_is_repeated_steps_its_gradients_too(name: str) -> None:
    cell = built(CELLS[name][0])
    for batch, steps in itertools.product([(), (3, 2)], [1, 2, 6, 7]):
        inputs, state = (part.requires_grad_() for part in random_run(cell, *batch, steps=steps))
        scanned, recorded = cell.scan(inputs, state), cell.record(inputs, state)
        assert scanned[0].shape == (*batch, steps, HIDDEN)
        weights = torch.randn_like(scanned[0])
        leaves = [inputs, state, *cell.parameters()]
        gradients = [torch.autograd.grad((out * weights).sum(), leaves) for out in (scanned[0], recorded.outputs)]
        torch.testing.assert_close(scanned[0], recorded.outputs, rtol=0, atol=1e-11)
        torch.testing.assert_close(scanned[1], recorded.state, rtol=0, atol=1e-11)
        for found, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert set(recorded.gates) == GATES[name]
        assert all(gate.shape[:-1] == (*batch, steps) for gate in recorded.gates.values())


@every_cell
def test_one_state_serves_all_and_a_scan_goes_on_from_its_last(name: str) -> None:
    cell = built(CELLS[name][0])
    inputs, state = random_run(cell, 3, 2)
    whole, last = cell.scan(inputs, state[0, 0])
    torch.testing.assert_close(whole, cell.scan(inputs, state[0, 0].expand(3, 2, -1))[0], rtol=0, atol=1e-11)
    first, middle = cell.scan(inputs[..., :3, :], state[0, 0])
    rest, end = cell.scan(inputs[..., 3:, :], middle)
    torch.testing.assert_close(torch.cat([first, rest], -2), whole, rtol=0, atol=1e-11)
    torch.testing.assert_close(end, last, rtol=0, atol=1e-11)


@every_cell
def test_clamped_gates_act_in_scans(name: str) -> None:
    cell = built(CELLS[name][0])
    inputs, state = random_run(cell, 2)
    with cell.gates_through(lambda _, value: 0.3 * value):
        clamped, recorded = cell.scan(inputs, state)[0], cell.record(inputs, state).outputs
    torch.testing.assert_close(clamped, recorded, rtol=0, atol=1e-11)
    assert ((clamped - cell.scan(inputs, state)[0]).abs().max() > 1e-3) == bool(GATES[name])


@pytest.mark.parametrize("name", [*CELLS, "neural ode"])
def test_nuts(name: str) -> None:
    """Hamiltonian dynamics run through every transition; with the whole state drawn, or its inputs."""
    cell = lr.NeuralODE(2, width=3, method="rk4", substeps=1) if name == "neural ode" else CELLS[name][0]
    data = make_data(OBSERVATIONS["gaussian priors"], (3, 2))
    latent = lr.MarkovNormal(scale="state") if cell.state_size == cell.hidden_size else lr.Innovations(1)
    head = OBSERVATIONS["gaussian priors"].observations()
    model = lr.LatentRNN(data.spec, transition=cell, latent=latent, observations=head).double()
    samples = run_nuts(model, data)
    assert all(torch.isfinite(value).all() for value in samples.values())
    assert any((value[0] != value[-1]).any() for value in samples.values())


# -- the parallel scan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 31, 1000, 4097])
def test_the_parallel_scan_is_the_sequential_one(steps: int) -> None:
    retention = torch.rand(2, steps, 3, dtype=torch.float64)
    retention[0] = 1 - 1e-4 * retention[0]  # long memory, where errors could pile up
    driven, state = torch.randn(2, steps, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    h, expected = state, []
    for a, b in zip(retention.unbind(1), driven.unbind(1), strict=True):
        h = a * h + b
        expected.append(h)
    torch.testing.assert_close(
        linear_recurrence(retention, driven, state), torch.stack(expected, 1), rtol=0, atol=1e-10
    )


def test_the_parallel_scan_is_scipy_s_filter() -> None:
    driven = np.random.default_rng(0).normal(size=500)
    found = linear_recurrence(
        torch.tensor(0.97, dtype=torch.float64), torch.as_tensor(driven)[:, None], torch.zeros(1).double()
    )
    np.testing.assert_allclose(found[:, 0], scipy.signal.lfilter([1.0], [1.0, -0.97], driven), rtol=0, atol=1e-10)


def test_the_parallel_scan_has_the_right_gradients_and_forgets_without_dividing() -> None:
    arguments = [torch.rand(5, 2).double(), torch.randn(5, 2).double(), torch.randn(2).double()]
    assert torch.autograd.gradcheck(linear_recurrence, [part.requires_grad_() for part in arguments])
    turn = torch.polar(torch.rand(2).double(), torch.randn(2).double())
    complex_ones = [turn, torch.randn(5, 2, dtype=torch.complex128), torch.randn(2, dtype=torch.complex128)]
    assert torch.autograd.gradcheck(linear_recurrence, [part.requires_grad_() for part in complex_ones])
    driven = torch.randn(6, 2).double()
    assert torch.equal(linear_recurrence(torch.zeros(6, 2).double(), driven, torch.ones(2).double()), driven)


# -- what each cell promises ---------------------------------------------------------------------------------------


def test_a_leak_is_the_exponential_of_time_over_its_constant() -> None:
    cell = lr.LeakyIntegrator(2, tau=[0.02, 0.1])
    cell.dt = 0.005
    cell.build(2)
    torch.testing.assert_close(cell.time_constant.detach(), torch.tensor([0.02, 0.1]))
    inputs = torch.zeros(40, 2)
    inputs[:, 0] = 0.005
    kept = cell.scan(inputs, torch.ones(2))[1].detach()
    torch.testing.assert_close(kept, torch.exp(-torch.tensor([0.2 / 0.02, 0.2 / 0.1])))
    # one gap of eight steps leaks as much as eight steps
    inputs[0, 0] = 0.2
    torch.testing.assert_close(cell.step(torch.ones(2), inputs[0]).detach(), kept)


def test_a_leaky_average_is_the_exponential_moving_average_and_keeps_its_range() -> None:
    cell = lr.LeakyIntegrator(1, tau=12.0, average=True)
    cell.build(2)
    cell.double()
    with torch.no_grad():
        cell.input_weight.fill_(1.0)
    values = np.random.default_rng(0).uniform(size=200)
    inputs = torch.tensor(np.stack([np.ones(200), values], -1))
    found = cell.scan(inputs, torch.tensor([values[0]]))[0][:, 0].detach().numpy()
    expected = pd.Series(np.append(values[0], values)).ewm(alpha=-np.expm1(-1 / 12), adjust=False).mean()[1:]
    np.testing.assert_allclose(found, expected, atol=1e-7)  # the time constant was kept in single precision
    assert found.min() > values.min()
    assert found.max() < values.max()
    plain = lr.LeakyIntegrator(1, tau=12.0)  # negative control: sums leave the range
    plain.build(2)
    plain.load_state_dict(cell.state_dict())
    assert plain.double().scan(inputs, torch.tensor([values[0]]))[0].max().item() > 2


def test_starting_time_constants_are_spread_in_units_of_the_clock_and_may_be_fixed() -> None:
    for dt in (None, 0.001):
        cell = lr.LeakyIntegrator(3, learned=False)
        cell.dt = dt
        cell.build(2)
        torch.testing.assert_close(cell.time_constant / (dt or 1.0), torch.tensor([2.0, 10.0, 50.0]))
        assert [name for name, _ in cell.named_parameters()] == ["input_weight"]


def test_a_coupled_cell_stays_between_zero_and_one_and_averages() -> None:
    cell = built(lr.CoupledGateLSTM(HIDDEN), scale=4.0)
    inputs, state = random_run(cell, 50, steps=40)
    inputs = 10 * inputs
    for a_t in inputs.unbind(-2):
        before = cell.cell(state)
        recording = cell.record(a_t.unsqueeze(-2), state)
        state = recording.state
        candidate, after = recording.gates["candidate"].squeeze(-2), cell.cell(state)
        assert torch.isfinite(state).all()
        assert ((after >= 0) & (after <= 1)).all()
        low, high = torch.minimum(before, candidate), torch.maximum(before, candidate)
        assert ((after >= low - 1e-12) & (after <= high + 1e-12)).all()


def test_stronger_input_never_lengthens_memory_whatever_the_weights() -> None:
    cell = built(lr.ModulatedForgetLSTM(HIDDEN), scale=3.0)
    assert (cell.beta >= 0).all()
    inputs, state = random_run(cell, 20)
    forget = [cell.record(scale * inputs, state).gates["forget"] for scale in (0.0, 1.0, -1.0, 2.0)]
    torch.testing.assert_close(forget[0], torch.sigmoid(cell.alpha).expand_as(forget[0]))
    assert (forget[1] <= forget[0]).all()
    torch.testing.assert_close(forget[1], forget[2])
    assert (forget[3] <= forget[1]).all()
    assert (forget[0] - forget[3]).max() > 0.1


@pytest.mark.parametrize("switch", ["state", "input", "both"])
def test_one_regime_is_the_linear_transition(switch: str) -> None:
    one, linear = built(lr.SwitchingLinear(HIDDEN, 1, switch=switch)), built(lr.Linear(HIDDEN))
    with torch.no_grad():
        for name in ("recurrent_weight", "input_weight", "bias"):
            linear.get_parameter(name).copy_(one.get_parameter(name)[0])
    inputs, state = random_run(one, 2)
    for found, expected in zip(one.scan(inputs, state), linear.scan(inputs, state), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    two = built(lr.SwitchingLinear(HIDDEN, 2, switch=switch))
    assert (two.scan(inputs, state)[0] - linear.scan(inputs, state)[0]).abs().max() > 0.01


def test_the_deep_markov_transition_starts_near_the_identity() -> None:
    cell = lr.GatedTransition(HIDDEN)
    cell.build(INPUTS)
    with torch.no_grad():
        cell.gate_map.bias.fill_(-30.0)  # linear steps only
        cell.input_map.weight.zero_()
    state = torch.randn(5, HIDDEN)
    torch.testing.assert_close(cell.step(state, torch.randn(5, INPUTS)), state)


# -- thermodynamics ------------------------------------------------------------------------------------------------


def test_forces_and_rates_are_the_gradients_of_their_potentials() -> None:
    cell = built(lr.ThermodynamicCell(HIDDEN, width=5))
    inputs, _ = random_run(cell, 2)
    state = torch.randn(2, STEPS, HIDDEN, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(cell.energy(state, inputs).sum(), state)
    force = -gradient
    torch.testing.assert_close(cell.record(inputs, state[:, 0]).gates["force"][:, 0], force[:, 0], rtol=0, atol=1e-12)
    force = force.detach().requires_grad_()
    (rate,) = torch.autograd.grad(cell.potential(force).sum(), force)
    torch.testing.assert_close(cell.step(state, inputs), state + inputs[..., :1] / 10 * rate, rtol=0, atol=1e-12)
    torch.testing.assert_close(cell.dissipation(state, inputs), (force * rate).sum(-1), rtol=0, atol=1e-12)


def test_the_dissipation_potential_is_convex_and_lowest_at_rest() -> None:
    cell = built(lr.ThermodynamicCell(HIDDEN, width=5), scale=2.0)
    first, second = torch.randn(2, 1000, HIDDEN, dtype=torch.float64)
    middle = cell.potential((first + second) / 2)
    assert (middle <= (cell.potential(first) + cell.potential(second)) / 2 + 1e-12).all()
    assert cell.potential(torch.zeros(HIDDEN).double()).abs() < 1e-12
    assert (cell.potential(first) > 0).all()


def dissipations(cell: Any, sequences: int, *, dtype: torch.dtype, scale: float) -> Tensor:
    """D at every step of random trajectories."""
    state, found = scale * torch.randn(sequences, cell.hidden_size, dtype=dtype), []
    with torch.no_grad():
        for _ in range(20):
            inputs = scale * torch.randn(sequences, 3, dtype=dtype)
            inputs[:, 0] = torch.rand(sequences)
            found.append(cell.dissipation(state, inputs))
            state = cell.step(state, inputs)
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0])
def test_dissipation_is_never_negative_untrained_and_trained(dtype: torch.dtype, scale: float) -> None:
    cell = lr.ThermodynamicCell(HIDDEN, width=16)
    cell.build(3)
    cell.to(dtype)
    for trained in (False, True):
        if trained:  # towards a target that the second law has nothing to do with
            optimiser = torch.optim.Adam(cell.parameters(), lr=0.05)
            inputs = torch.randn(32, 10, 3, dtype=dtype).abs()
            target = torch.randn(32, 10, HIDDEN, dtype=dtype)
            before = None
            for _ in range(40):
                loss = (cell.scan(inputs, torch.zeros(HIDDEN, dtype=dtype))[0] - target).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                before = loss.detach() if before is None else before
            assert loss.detach() < before
        found = dissipations(cell, 10_000, dtype=dtype, scale=scale)
        assert torch.isfinite(found).all()
        assert (found >= 0).all()
        assert (found > 0).any()


def test_a_cell_whose_rate_ignores_its_potential_would_be_caught() -> None:
    """Negative control: with the force's sign lost, the same product is negative somewhere."""
    cell = built(lr.ThermodynamicCell(HIDDEN, width=5))
    force = torch.randn(1000, HIDDEN, dtype=torch.float64)
    wrong_rate = force @ torch.randn(HIDDEN, HIDDEN, dtype=torch.float64)
    assert ((force * wrong_rate).sum(-1) < 0).any()
    assert (cell.potential(force) > 0).all()


# -- continuous time -----------------------------------------------------------------------------------------------


def linear_field(method: str = "dopri5", **options: Any) -> Any:
    cell = lr.NeuralODE(HIDDEN, width=None, time_scale=2.0, method=method, **options)
    cell = built(cell, scale=0.8)
    with torch.no_grad():
        cell.state_map.weight -= 1.5 * torch.eye(HIDDEN)
    return cell


def exact_flow(cell: Any, inputs: Array, state: Array) -> Array:
    """dh/dt = (A h + B a + b) / time_scale by the matrix exponential of the affine field."""
    weights, path = weights_of(cell), []
    for a in inputs:
        field = np.zeros((HIDDEN + 1, HIDDEN + 1))
        field[:HIDDEN, :HIDDEN] = weights["state_map.weight"]
        field[:HIDDEN, HIDDEN] = weights["input_map.weight"] @ a[1:] + weights["input_map.bias"]
        state = (scipy.linalg.expm(field * a[0] / cell.time_scale) @ np.append(state, 1.0))[:HIDDEN]
        path.append(state)
    return np.array(path)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_linear_field_follows_the_matrix_exponential(method: str) -> None:
    options = {"substeps": 60} if method == "rk4" else {"rtol": 1e-9, "atol": 1e-10}
    cell = linear_field(method, **options)
    inputs, state = random_run(cell, 3)
    found = cell.scan(inputs, state)[0].detach()
    for n in range(3):
        np.testing.assert_allclose(found[n], exact_flow(cell, inputs[n].numpy(), state[n].numpy()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "rtol"), [("dopri5", 1e-9), ("dopri8", 1e-9), ("bosh3", 1e-7), ("adaptive_heun", 1e-5)]
)
def test_adaptive_solvers_keep_to_their_tolerances_at_the_end_of_a_gap(method: str, rtol: float) -> None:
    """Read off torchdiffeq's polynomial, the end would be wrong by more than a hundred tolerances for two of them."""
    cell = linear_field(method, rtol=rtol, atol=rtol / 10)
    inputs, state = random_run(cell)
    expected = exact_flow(cell, inputs.numpy(), state.numpy())
    found = cell.scan(inputs, state)[0].detach().numpy()
    assert np.abs(found - expected).max() < 30 * rtol * np.abs(expected).max()


def test_a_coarse_solver_would_be_caught() -> None:
    cell = linear_field("euler", substeps=2)
    inputs, state = random_run(cell)
    error = np.abs(cell.scan(inputs, state)[0].detach().numpy() - exact_flow(cell, inputs.numpy(), state.numpy()))
    assert error.max() > 1e-3


def test_no_time_leaves_the_state_where_it_is_and_two_gaps_are_one() -> None:
    cell = built(lr.NeuralODE(HIDDEN, width=5, time_scale=1.0, rtol=1e-9, atol=1e-10))
    inputs, state = random_run(cell, 2, steps=1)
    inputs = inputs.squeeze(-2)
    still, half = inputs.clone(), inputs.clone()
    still[:, 0], half[:, 0] = 0.0, inputs[:, 0] / 2
    torch.testing.assert_close(cell.step(state, still), state, rtol=0, atol=1e-14)
    torch.testing.assert_close(cell.step(cell.step(state, half), half), cell.step(state, inputs), rtol=0, atol=1e-7)


def test_evaluations_are_counted_and_tighter_tolerances_cost_more() -> None:
    loose, tight = lr.NeuralODE(HIDDEN, width=5, rtol=1e-3, atol=1e-3), lr.NeuralODE(HIDDEN, width=5, rtol=1e-9)
    for cell in (loose, tight):
        cell.build(INPUTS)
        cell.double()
        assert cell.evaluations == 0
        cell.scan(*random_run(cell, 2))
    assert 0 < loose.evaluations < tight.evaluations
    fixed = lr.NeuralODE(HIDDEN, width=5, method="rk4", substeps=3)
    fixed.build(INPUTS)
    fixed.double().scan(*random_run(fixed, 2))
    assert fixed.evaluations == 4 * 3 * STEPS


def test_gradients_of_a_solved_field() -> None:
    cell = built(lr.NeuralODE(HIDDEN, width=3, time_scale=1.0, method="rk4"))
    inputs, state = random_run(cell, steps=3)
    arguments = (inputs.requires_grad_(), state.requires_grad_())
    assert torch.autograd.gradcheck(lambda *given: cell.scan(*given)[0], arguments)


def test_without_torchdiffeq_a_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("torchdiffeq"):
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'NeuralODE needs torchdiffeq: pip install "latentrnn\[ode\]"'):
        lr.NeuralODE(HIDDEN).build(INPUTS)


# -- what is refused -----------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no units": (lambda: lr.MinGRU(0), r"MinGRU: hidden_size must be a positive integer; found 0"),
    "half an oscillator": (lambda: lr.DiagonalLinear(3), r"hidden_size must be even, two per oscillator; found 3"),
    "no regime": (lambda: lr.SwitchingLinear(2, 0), r"SwitchingLinear: regimes must be a positive integer; found 0"),
    "unknown weights": (lambda: lr.SwitchingLinear(2, 2, weights="hard"), r"'softmax', 'sigmoid'; found 'hard'"),
    "unknown switch": (lambda: lr.SwitchingLinear(2, 2, switch="time"), r"switch must be one of .*found 'time'"),
    "negative tau": (lambda: lr.LeakyIntegrator(2, tau=-1.0), r"LeakyIntegrator: tau must be a positive.*found -1.0"),
    "wrong number of taus": (lambda: lr.LeakyIntegrator(2, tau=[1.0]), r"2 of them, one per unit; found \[1.0\]"),
    "no width": (lambda: lr.GatedTransition(2, width=0), r"GatedTransition: width must be a positive integer"),
    "time scale": (lambda: lr.ThermodynamicCell(2, time_scale=0.0), r"time_scale must be a positive number.*found 0.0"),
    "unknown method": (lambda: lr.NeuralODE(2, method="magic"), r"NeuralODE: method must be one of .*found 'magic'"),
    "tolerance": (lambda: lr.NeuralODE(2, rtol=0.0), r"NeuralODE: rtol must be positive; found 0.0"),
    "dropout, one layer": (lambda: lr.GRU(4, dropout=0.1), r"GRU: dropout acts between layers; expected layers >= 2"),
    "dropout of all": (lambda: lr.GRU(4, 2, dropout=1.0), r"GRU: dropout must be in \[0, 1\); found 1.0"),
    "zoneout below zero": (lambda: lr.LSTM(4, zoneout=-0.1), r"LSTM: zoneout must be in \[0, 1\); found -0.1"),
    "one normalised unit": (lambda: lr.VanillaRNN(1, layer_norm=True), r"expected hidden_size >= 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("cell", [lr.CoupledGateLSTM(3), lr.ModulatedForgetLSTM(3), lr.GRU(3, layers=2)], ids=repr)
def test_a_markov_latent_refuses_a_state_that_readouts_do_not_see(cell: Transition) -> None:
    data = make_data(OBSERVATIONS["gaussian"])
    with pytest.raises(ValueError, match="MarkovNormal draws the whole state at every step"):
        lr.LatentRNN(data.spec, transition=cell, latent=lr.MarkovNormal(), observations={"y": lr.Gaussian()})


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "rk4", "midpoint", "euler"])
def test_a_field_can_be_looked_at_by_torch_func(method: str) -> None:
    cell = built(lr.NeuralODE(HIDDEN, width=5, method=method, rtol=1e-8, atol=1e-9))
    states, inputs = torch.randn(4, HIDDEN, dtype=torch.float64), torch.rand(4, INPUTS, dtype=torch.float64)

    def one_step(n: int) -> Any:
        return lambda state: cell.step(state, inputs[n])

    expected = torch.stack([torch.autograd.functional.jacobian(one_step(n), states[n]) for n in range(4)])
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(cell.step))(states, inputs), expected, **close)
    torch.testing.assert_close(torch.func.vmap(cell.step)(states, inputs), cell.step(states, inputs), **close)


def test_fixed_steps_are_those_of_torchdiffeq() -> None:
    odeint = pytest.importorskip("torchdiffeq").odeint
    for method in ("rk4", "midpoint", "euler"):
        cell = built(lr.NeuralODE(HIDDEN, width=5, method=method, time_scale=0.7, substeps=4))
        state, inputs = torch.randn(3, HIDDEN, dtype=torch.float64), torch.rand(3, INPUTS, dtype=torch.float64)
        field = lambda _, h, c=cell, x=inputs: x[:, :1] / 0.7 * c.field(h, x[:, 1:])  # noqa: E731
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        expected = odeint(field, state, ends, method=method, options={"step_size": 0.25})[-1]
        torch.testing.assert_close(cell.step(state, inputs), expected, rtol=1e-12, atol=1e-12)


def test_what_is_read_off_components_is_detached() -> None:
    innovations = {prior: lr.Innovations(2, prior=prior) for prior in ("ar1", "matern32", "student_t")}
    for latent in innovations.values():
        latent.build(lr.GRU(3), None)
        assert not latent.scale.requires_grad
    assert not innovations["ar1"].time_constant.requires_grad
    assert not innovations["student_t"].degrees.requires_grad
    for cell in (lr.LeakyIntegrator(2), lr.DiagonalLinear(2), lr.Decay(lr.GRU(2))):
        assert not built(cell).time_constant.requires_grad
        cell.build(INPUTS)
        cell.scan(torch.rand(3, INPUTS), torch.zeros(cell.state_size))[0].square().sum().backward()
        assert cell.log_time_constant.grad.abs().sum() > 0  # and learned all the same


def test_a_random_start_has_a_mean() -> None:
    latent = lr.InitialState(2, prior="learned")
    latent.build(lr.GRU(3), None)
    with torch.no_grad():
        latent.start.loc.copy_(torch.tensor([1.0, -2.0]))
    expected = latent.start.map.weight @ torch.tensor([1.0, -2.0]) + latent.start.map.bias
    torch.testing.assert_close(latent.initial_state, expected.detach())
    assert not latent.initial_state.requires_grad
