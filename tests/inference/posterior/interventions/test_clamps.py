"""Gates held at traces: axes that are named, layers and streams by name, functions that are told where they are."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from tests.registry import LATENTS, OBSERVATIONS, make_data, make_model

SAMPLES, SEQUENCES, STEPS, UNITS = 3, 4, 7, 2


@cache
def leaky(steps: int = STEPS, max_elements: int | None = None) -> lr.Posterior:
    """A model whose states are a recursion that can be written out."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": rng.normal(size=(SEQUENCES, steps, 2)), "label": rng.normal(size=(SEQUENCES, 1))},
        {"x": rng.normal(size=(SEQUENCES, steps, 1))},
        per_sequence=["label"],
        dtype=torch.float64,
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.LeakyIntegrator(UNITS, tau=3.0),
        latent=lr.Innovations(1),
        observations={"y": lr.Gaussian(), "label": lr.Gaussian()},
    ).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    return lr.Posterior(model, guide, data, device="cpu", max_elements=max_elements)


def recursion(posterior: lr.Posterior, retention: np.ndarray, from_step: int) -> np.ndarray:
    """h_t = r_t h_{t-1} + W (x_t, u_t), in plain NumPy; retention is (sample, sequence, time, unit)."""
    u, x = posterior.latents(SAMPLES)["innovations"].numpy(), posterior.data.covariates["x"].numpy()
    cell = posterior.model.transition
    weight, free = cell.input_weight.detach().numpy(), np.exp(-1 / cell.time_constant.detach().numpy())
    h, found = zero_path(posterior).initial_state.detach().numpy(), []
    for t in range(x.shape[1]):
        a_t = np.concatenate([np.broadcast_to(x[:, t], (SAMPLES, *x[:, t].shape)), u[:, :, t]], -1)
        r_t = free if t < from_step else retention[:, :, t]
        h = r_t * h + a_t @ weight.T
        found.append(h)
    return np.stack(found, 2)


def zero_path(posterior: lr.Posterior) -> Any:
    with torch.no_grad():
        return posterior.model.unroll(posterior.data).path


SHAPES: dict[str, tuple[tuple[int, ...], tuple[str, ...] | None]] = {
    "one number": ((), None),
    "per unit": ((UNITS,), None),
    "trace": ((STEPS, UNITS), None),
    "trace of each sequence": ((SEQUENCES, STEPS, UNITS), None),
    "trace of each draw": ((SAMPLES, SEQUENCES, STEPS, UNITS), None),
    "per sequence, named": ((SEQUENCES, UNITS), ("sequence", "unit")),
    "one trace for all units, named": ((STEPS,), ("time",)),
    "in another order, named": ((UNITS, STEPS), ("unit", "time")),
}
AXES = ("sample", "sequence", "time", "unit")


def in_full(value: np.ndarray, dims: tuple[str, ...]) -> np.ndarray:
    sizes = dict(zip(AXES, (SAMPLES, SEQUENCES, STEPS, UNITS), strict=True))
    letters = {"sample": "s", "sequence": "n", "time": "t", "unit": "u"}
    rest = [name for name in AXES if name not in dims]
    ones = [np.ones(sizes[name]) for name in rest]
    given = ",".join(["".join(letters[d] for d in dims), *(letters[name] for name in rest)])
    return np.einsum(f"{given}->sntu", value, *ones)


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("chunk", [SAMPLES * STEPS * 4, None])  # one or two sequences, or all
def test_states_under_a_held_gate_are_the_recursion_written_out(case: str, chunk: int | None) -> None:
    shape, dims = SHAPES[case]
    value = np.random.default_rng(1).uniform(0.1, 0.9, shape)
    posterior = leaky(max_elements=chunk)
    held: Any = value if dims is None else lr.Clamp(value, dims=dims)
    found = posterior.counterfactual(clamp={"retention": held}, from_step=2, num_samples=SAMPLES).states
    named = dims or AXES[4 - value.ndim :]
    np.testing.assert_allclose(found, recursion(posterior, in_full(value, named), 2), rtol=0, atol=1e-12)
    # negative control: steps the other way round are not the same
    if "time" in named:
        turned = recursion(posterior, in_full(np.flip(value, named.index("time")), named), 2)
        assert np.abs(found.numpy() - turned).max() > 1e-3


@cache
def with_priors(latent: str, max_elements: int | None = None) -> lr.Posterior:
    """The same with a memory and a head whose parameters have priors, so that every draw has gates of its own."""
    data = leaky().data
    priors = {"time_constant": dist.LogNormal(1.0, 0.5), "input_weight": dist.Normal(0.0, 1.0)}
    model = lr.LatentRNN(
        data.spec,
        transition=lr.LeakyIntegrator(UNITS, priors=priors),
        latent=lr.Innovations(1, priors={"scale": dist.LogNormal(0.0, 0.3)})
        if latent == "innovations"
        else lr.MarkovNormal(),
        observations={"y": lr.Gaussian(priors={"weight": dist.Normal(0.0, 1.0)}), "label": lr.Gaussian()},
    ).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    with torch.no_grad():
        for log_scale in guide.parameter_sites.log_scale.values():
            log_scale.fill_(-1.0)  # so that draws differ
    return lr.Posterior(model, guide, data, device="cpu", max_elements=max_elements)


HELD: dict[str, Any] = {
    "one number": lambda rng: (0.3, lambda r, t, s: 0.3),
    "trace": lambda rng: (trace := rng.uniform(0.1, 0.9, (STEPS, UNITS)), lambda r, t, s: trace[t]),
    "trace of each draw": lambda rng: (
        trace := rng.uniform(0.1, 0.9, (SAMPLES, SEQUENCES, STEPS, UNITS)),
        lambda r, t, s: trace[s, :, t],
    ),
    "a function of the draw's own gate": lambda rng: (lambda gate: 0.5 * gate, lambda r, t, s: 0.5 * r),
}


@pytest.mark.parametrize("case", HELD)
@pytest.mark.parametrize("chunk", [SAMPLES * STEPS * 4, None])  # one or two sequences, or all
def test_held_gates_of_every_draw_of_a_memory_are_its_recursion(case: str, chunk: int | None) -> None:
    """h_t = r_t h_{t-1} + W (x_t, u_t) with tau and W of the draw; its gates before the step, and held from then on."""
    posterior, from_step = with_priors("innovations", chunk), 2
    held, gate = HELD[case](np.random.default_rng(1))
    found = posterior.counterfactual(clamp={"retention": held}, from_step=from_step, num_samples=SAMPLES)
    u, x = posterior.latents(SAMPLES)["innovations"].numpy(), posterior.data.covariates["x"].numpy()
    drawn = {name: value.numpy() for name, value in posterior.parameters(SAMPLES).items()}
    assert np.ptp(drawn["transition.time_constant"], axis=0).min() > 0.1
    head = posterior.model.observations["y"]
    for s in range(SAMPLES):
        own = np.exp(-1 / drawn["transition.time_constant"][s])
        h = zero_path(posterior).initial_state.detach().numpy()
        for t in range(STEPS):
            r_t = own if t < from_step else gate(own, t, s)
            h = r_t * h + np.concatenate([x[:, t], u[s, :, t]], -1) @ drawn["transition.input_weight"][s].T
            np.testing.assert_allclose(found.states[s, :, t].numpy(), h, rtol=0, atol=1e-12)
            rate = h @ drawn["y.readout.weight"][s].T + head.readout.baseline.detach().numpy()
            np.testing.assert_allclose(found.rates["y"][s, :, t].numpy(), rate, rtol=0, atol=1e-12)
    free = posterior.counterfactual(num_samples=SAMPLES)
    assert (free.states[:, :, from_step:] - found.states[:, :, from_step:]).abs().amax((1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("latent", ["innovations", "states"])
def test_gates_held_at_what_they_are_change_no_draw(latent: str) -> None:
    posterior = with_priors(latent)
    free = posterior.counterfactual(num_samples=SAMPLES)
    same = posterior.counterfactual(clamp={"retention": lambda gate: gate}, from_step=1, num_samples=SAMPLES)
    other = posterior.counterfactual(clamp={"retention": 0.9}, from_step=1, num_samples=SAMPLES)
    for name in free.rates:
        torch.testing.assert_close(same.rates[name], free.rates[name], rtol=1e-12, atol=1e-12)
        assert (other.rates[name] - free.rates[name]).abs().max() > 1e-3
    torch.testing.assert_close(same.states, free.states, rtol=1e-12, atol=1e-12)
    assert torch.equal(other.states[:, :, 0], free.states[:, :, 0])


def test_a_trace_that_could_be_per_sequence_has_to_say_what_it_is() -> None:
    posterior, value = leaky(SEQUENCES), np.random.default_rng(1).uniform(0.1, 0.9, (SEQUENCES, UNITS))
    with pytest.raises(ValueError, match=r"\(4, 2\) could be one value per step or per sequence.*Clamp"):
        posterior.counterfactual(clamp={"retention": value}, num_samples=2)
    one, other = (
        posterior.counterfactual(clamp={"retention": lr.Clamp(value, dims=(axis, "unit"))}, num_samples=2).states
        for axis in ("time", "sequence")
    )
    assert (one - other).abs().max() > 1e-3


def test_per_sequence_heads_follow_the_intervention() -> None:
    found = leaky().counterfactual(clamp={"retention": 0.9}, num_samples=SAMPLES).rates["label"]
    assert found.shape == (SAMPLES, SEQUENCES, 1)
    assert (found - leaky().rates("label", SAMPLES)).abs().max() > 1e-3
    assert torch.equal(leaky().counterfactual(num_samples=SAMPLES).rates["label"], leaky().rates("label", SAMPLES))


def two_layers(stream: bool) -> lr.Posterior:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(2, 5, 1))}, dtype=torch.float64)
    cell: lr.Transition = lr.LSTM(2, layers=2)
    if stream:
        cell = lr.Streams({"slow": cell, "fast": lr.GRU(2)})
    model = lr.LatentRNN(data.spec, transition=cell, latent=lr.Innovations(1), observations={"y": lr.Gaussian()})
    model = model.double()
    return lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)).double(), data, device="cpu")


@pytest.mark.parametrize("stream", [False, True])
def test_functions_are_told_step_layer_and_stream_and_layers_have_names(stream: bool) -> None:
    posterior, places = two_layers(stream), []
    prefix = "slow." if stream else ""

    def only_second(value: Tensor, place: lr.GatePlace) -> Tensor:
        places.append(place)
        return 0.0 * value if place.layer == 1 else value

    told = posterior.counterfactual(clamp={f"{prefix}forget": only_second}, from_step=1, num_samples=2).states
    name = "slow" if stream else None
    assert places == [lr.GatePlace(step, "forget", layer, name) for step in range(1, 5) for layer in (0, 1)]
    by_name = posterior.counterfactual(clamp={f"{prefix}layer1.forget": 0.0}, from_step=1, num_samples=2).states
    assert torch.equal(told, by_name)
    both = posterior.counterfactual(clamp={f"{prefix}forget": 0.0}, from_step=1, num_samples=2).states
    assert (both - by_name).abs().max() > 1e-6
    # the name of a layer goes before that of all
    own = {f"{prefix}forget": 0.0, f"{prefix}layer0.forget": lambda value: value}
    assert torch.equal(posterior.counterfactual(clamp=own, from_step=1, num_samples=2).states, by_name)


@pytest.mark.parametrize("feedback", ["recorded", "free"])
@pytest.mark.parametrize("latent", [name for name in LATENTS if not name.startswith("discrete")])
def test_functions_are_called_alike_whatever_the_latent(latent: str, feedback: str) -> None:
    data = make_data(OBSERVATIONS["gaussian"])
    model, guide = make_model("gru", latent, "gaussian", data)
    calls: list[tuple[int, tuple[int, ...]]] = []

    def note(value: Tensor, place: lr.GatePlace) -> Tensor:
        calls.append((place.step, tuple(value.shape)))
        return value

    posterior = lr.Posterior(model, guide, data, device="cpu")
    posterior.counterfactual(clamp={"update": note}, from_step=1, feedback=feedback, num_samples=2)
    units = model.transition.hidden_size
    assert calls == [(step, (2, len(data), units)) for step in range(1, data.num_steps)]


def test_a_function_that_draws_is_asked_once_for_a_course() -> None:
    """What it said stands for the sampled past and for the states that are read from it."""
    data = make_data(OBSERVATIONS["poisson history"])
    model, guide = make_model("gru", "innovations", "poisson history", data)
    posterior, calls = lr.Posterior(model, guide, data, device="cpu"), []

    def noisy(value: Tensor, place: lr.GatePlace) -> Tensor:
        calls.append(place.step)
        return torch.rand_like(value)

    posterior.counterfactual(clamp={"update": noisy}, feedback="free", num_samples=2)
    assert calls == list(range(data.num_steps))


ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "steps": ({"retention": np.zeros((6, 2))}, ValueError, r"expected \(time, unit\) \(7, 'unit'\); found \(6, 2\)"),
    "sequences": ({"retention": np.zeros((3, 7, 2))}, ValueError, r"\(sequence, time, unit\) \(4, 7, 'unit'\)"),
    "units": ({"retention": np.zeros(3)}, ValueError, "expected 2 units along the last axis.*found 3"),
    "axes": ({"retention": np.zeros((1, 1, 1, 1, 1))}, ValueError, "expected one number or axes"),
    "nan": ({"retention": np.nan}, ValueError, "expected numbers from step 0 on; found NaN"),
    "text": ({"retention": "open"}, TypeError, "expected numbers or a function; found str"),
    "none": ({"retention": None}, TypeError, "expected numbers or a function; found NoneType"),
    "returned": ({"retention": lambda r: torch.ones(3)}, ValueError, r"must return one number.*found \(3,\) at step 0"),
    "gate": ({"update": 0.0}, ValueError, r"no gate 'update'; it has \['retention'\]"),
    "layer": ({"layer1.retention": 0.0}, ValueError, "no gate 'layer1.retention'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_held_is_refused_by_name(case: str) -> None:
    clamp, error, match = ERRORS[case]
    with pytest.raises(error, match=match):
        leaky().counterfactual(clamp=clamp, num_samples=2)


@pytest.mark.parametrize("dims", [("time",), ("time", "time"), ("step", "unit"), "unit"])
def test_dims_name_every_axis_once(dims: Any) -> None:
    with pytest.raises(ValueError, match="Clamp: dims must name each axis"):
        lr.Clamp(np.zeros((7, 2)), dims=dims)


def test_record_says_what_of_its_input_is_missing() -> None:
    data = lr.SequenceData.from_arrays({"y": np.zeros((2, 5, 1))}, {"x": np.zeros((2, 5, 1))})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Innovations(2),
        observations={"y": lr.Gaussian(feedback=lr.History(steps=2, filters=1))},
    )
    drive = model.transition_inputs(data)
    with pytest.raises(
        ValueError, match=r"4\), whose channels are 1 of covariates, .* of the past of 'y', 2 of what Inn"
    ):
        model.transition.record(drive, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"expected a state of \(..., 3\).*found \(2, 4\)"):
        model.transition.record(drive, torch.zeros(2, 4))
    whole = torch.cat([drive, torch.zeros(2, 5, sum(model.transition.input_shares.values()) - 1)], -1)
    assert model.transition.record(whole, torch.zeros(2, 3)).gates["update"].shape == (2, 5, 3)
