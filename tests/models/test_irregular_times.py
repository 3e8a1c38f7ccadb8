"""Steps at times of their own: in any unit of time, told to transitions and encoders, and fading what was known."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pyro
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.guides.windows import window_plan
from tests.registry import LATENTS, TRANSITIONS, latent_for, shake

SEQUENCES, STEPS = 6, 12
GAPS = np.random.default_rng(0).uniform(0.2, 2.0, (SEQUENCES, STEPS))
VALUES = np.random.default_rng(1).normal(size=(SEQUENCES, STEPS, 2))
GAP = [lr.Gap()]


def recorded(unit: float = 1.0, lengths: list[int] | None = None) -> lr.SequenceData:
    times = np.cumsum(GAPS, 1) * unit
    if lengths is None:
        return lr.SequenceData.from_arrays({"y": VALUES}, times=times)
    cut = list(zip(VALUES, times, lengths, strict=True))
    return lr.SequenceData.from_arrays({"y": [v[:n] for v, _, n in cut]}, times=[t[:n] for _, t, n in cut])


def put_together(
    data: lr.SequenceData, transition: lr.Transition, latent: lr.Latent | None = None, inputs: list | None = None
) -> lr.LatentRNN:
    latent = latent or lr.Innovations(1)
    return lr.LatentRNN(
        data.spec, transition=transition, latent=latent, observations={"y": lr.Gaussian()}, inputs=inputs
    )


MODELS: dict[str, Callable[[lr.SequenceData], lr.LatentRNN]] = {
    "ar1": lambda data: put_together(data, lr.GRU(4), lr.Innovations(1, prior="ar1")),
    "matern32": lambda data: put_together(data, lr.GRU(4), lr.Innovations(1, prior="matern32")),
    "leaky": lambda data: put_together(data, lr.LeakyIntegrator(4)),
    "thermodynamic": lambda data: put_together(data, lr.ThermodynamicCell(3, width=4)),
    "neural ode": lambda data: put_together(data, lr.NeuralODE(3, width=4, method="rk4")),
    "decay": lambda data: put_together(data, lr.Decay(lr.LSTM(3))),
    "gap": lambda data: put_together(data, lr.GRU(4), inputs=GAP),
}


@pytest.mark.parametrize("name", MODELS)
def test_fits_are_the_same_in_any_unit_of_time(name: str) -> None:
    found = {}
    for unit in (1.0, 1e-9, 1e-3, 1e6):
        data = recorded(unit)
        model = MODELS[name](data)
        result = lr.fit(
            model,
            lr.Guide(model, encoder=lr.RNNEncoder(4)),
            data,
            steps=4,
            reporting=lr.Reporting(every=1, progress=False),
            compute=lr.Compute(device="cpu"),
        )
        assert not result.events
        found[unit] = torch.tensor(result.history["elbo"], dtype=torch.float64)
        assert len(found[unit]) == 4
        torch.testing.assert_close(found[unit], found[1.0], rtol=0, atol=5e-3)


def test_time_constants_start_at_multiples_of_the_median_gap() -> None:
    data = recorded(1e-3)
    gaps = np.sort(GAPS[:, 1:], axis=None)
    median = 1e-3 * gaps[(len(gaps) - 1) // 2]
    for name, expected in (("ar1", [10.0]), ("matern32", [10.0]), ("decay", 10 * 10 ** np.linspace(0, 1, 6))):
        model = MODELS[name](data)
        model.initialise(data)
        part = model.transition if name == "decay" else model.latent
        np.testing.assert_allclose(part.time_constant.numpy(), np.multiply(expected, median), rtol=1e-5)
    asked = put_together(data, lr.Decay(lr.GRU(2), tau=[0.3, 4.0]))
    asked.initialise(data)
    torch.testing.assert_close(asked.transition.time_constant, torch.tensor([0.3, 4.0]))


def test_short_gaps_keep_the_noise_of_an_ar1_process() -> None:
    data = recorded(1e-9)
    model = put_together(data, lr.GRU(2), lr.Innovations(1, prior="ar1"))
    with torch.no_grad():
        model.latent.log_time_constant.zero_()  # a second: what a step adds is lost in single precision
    prior = model.latent.path_prior(data)
    expected = np.sqrt(-np.expm1(-2e-9 * GAPS[:, 1:]))
    np.testing.assert_allclose(prior.noise[:, 1:, 0].detach().numpy(), expected, rtol=1e-4)
    prior.log_prob(torch.zeros(SEQUENCES, STEPS, 1)).sum().backward()
    assert torch.isfinite(model.latent.log_time_constant.grad).all()


# -- the gap as an input --------------------------------------------------------------------------------------------


def test_the_gap_is_the_standardised_log_of_the_time_since_the_step_before() -> None:
    lengths = [12, 5, 1, 12, 7, 12]
    data = recorded(lengths=lengths)
    model = put_together(data, lr.GRU(3), inputs=GAP)
    model.initialise(data)
    known = np.concatenate([np.log(GAPS[n, 1:length]) for n, length in enumerate(lengths)])
    drive = model.transition_inputs(data)[..., 0].numpy()
    for n, length in enumerate(lengths):
        expected = (np.log(GAPS[n, 1:length]) - known.mean()) / known.std()
        np.testing.assert_allclose(drive[n, 1:length], expected, rtol=1e-3, atol=1e-4)
        assert drive[n, 0] == 0.0
    assert np.isfinite(drive).all()


def test_a_clock_that_jitters_is_not_blown_up() -> None:
    jitter = 1e-6 * np.random.default_rng(0).normal(size=(SEQUENCES, STEPS))
    data = lr.SequenceData.from_arrays({"y": VALUES}, times=np.cumsum(1 + jitter, 1))
    model = put_together(data, lr.GRU(3), inputs=GAP)
    model.initialise(data)
    assert model.transition_inputs(data).abs().max() < 0.01


@pytest.mark.parametrize("lengths", [None, [12, 5, 4, 12, 9, 8]])
def test_windows_know_the_gap_before_their_first_step(lengths: list[int] | None) -> None:
    data = recorded(lengths=lengths)
    model = put_together(data, lr.GRU(3), inputs=GAP)
    model.initialise(data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal"))
    starts, ends = [], lengths or [STEPS] * SEQUENCES
    known = np.concatenate([np.log(GAPS[n, 1:end]) for n, end in enumerate(ends)])
    for number, window in enumerate(window_plan("test", lr.Window(4), model, guide).through(data)):
        start = 4 * number
        drive = model.transition_inputs(window)[..., 0].numpy()
        assert drive.shape == (SEQUENCES, 4)
        for n, end in enumerate(ends):
            steps = np.arange(start, min(start + 4, end))
            expected = (np.log(GAPS[n, steps]) - known.mean()) / known.std()
            expected[steps == 0] = 0.0  # before the first of all there is none
            np.testing.assert_allclose(drive[n, : len(steps)], expected, rtol=1e-3, atol=1e-4)
        starts.append(drive[:, 0])
    assert len(starts) == 3
    assert abs(starts[1]).max() > 1e-3  # the first of a later window is told
    result = lr.fit(
        model,
        guide,
        data,
        steps=4,
        batch_size=6,
        compute=lr.Compute(window=lr.Window(4), device="cpu"),
        reporting=lr.Reporting(progress=False),
    )
    assert not result.events


def test_online_filters_know_the_gap() -> None:
    data = recorded()
    for transition, inputs in ((lr.GRU(3), GAP), (lr.Decay(lr.LSTM(2)), [])):
        model = put_together(data, transition, lr.Deterministic(), inputs)
        result = lr.fit(
            model,
            lr.Guide(model),
            data,
            steps=2,
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(device="cpu"),
        )
        online = lr.OnlineFilter(result, num_particles=1)
        states = result.model.unroll(data[:1]).states().squeeze(0)
        for t in range(STEPS):
            found = online.update(VALUES[0, t], time=float(np.cumsum(GAPS[0])[t]))
            torch.testing.assert_close(found.states[0], states.reshape(STEPS, -1)[t].detach(), rtol=1e-4, atol=1e-5)


def test_data_on_a_clock_have_no_gaps() -> None:
    data = lr.SequenceData.from_arrays({"y": VALUES}, dt=0.1)
    with pytest.raises(ValueError, match="Gap needs data with times of their own"):
        put_together(data, lr.GRU(2), inputs=GAP)


def test_a_gap_tells_what_counting_steps_cannot() -> None:
    rng = np.random.default_rng(0)
    gaps = rng.choice([0.1, 3.0], (40, 20))
    values = np.where(gaps == 3.0, 1.0, -1.0)[..., None] + 0.1 * rng.normal(size=(40, 20, 1))
    data = lr.SequenceData.from_arrays({"y": values}, times=np.cumsum(gaps, 1))
    error = {}
    for told in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = put_together(data, lr.GRU(4), lr.Deterministic(), GAP if told else [])
        result = lr.fit(
            model,
            lr.Guide(model),
            data,
            steps=60,
            optimizer=lr.AdamW(0.05),
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(device="cpu"),
        )
        error[told] = float((result.posterior(data).mean("y", 1) - data.observations["y"])[:, 1:].square().mean())
    assert error[True] < 0.3 < 0.8 < error[False]


# -- a state that fades ---------------------------------------------------------------------------------------------


def test_a_decaying_state_fades_by_the_time_that_passed() -> None:
    cell = lr.Decay(lr.Linear(2), tau=[0.5, 4.0])
    cell.build(3)
    inputs, h = torch.randn(5, 3).abs(), torch.tensor([1.0, -2.0])
    recording = cell.record(inputs, h)
    a, b, c = (getattr(cell.transition, name).detach().numpy() for name in ("recurrent_weight", "input_weight", "bias"))
    state = h.numpy()
    for t, x in enumerate(inputs.numpy()):
        fading = np.exp(-x[0] / np.array([0.5, 4.0]))
        state = a @ (fading * state) + b @ x[1:] + c
        np.testing.assert_allclose(recording.outputs[t].detach().numpy(), state, rtol=1e-5)
        np.testing.assert_allclose(recording.gates["decay"][t].detach().numpy(), fading, rtol=1e-5)
    torch.testing.assert_close(cell.scan(inputs, h)[0], recording.outputs)


def test_gates_within_a_decaying_transition_are_recorded_and_clamped() -> None:
    cell = lr.Decay(lr.GRU(2))
    cell.build(3)
    inputs = torch.rand(4, 3)
    assert set(cell.record(inputs, torch.zeros(2)).gates) == {"decay", "reset", "update", "candidate"}
    with cell.gates_through(lambda name, value: 0 * value if name == "update" else value):
        states, _ = cell.scan(inputs, torch.ones(2))
    expected = torch.exp(-inputs[:, :1].cumsum(0) / cell.time_constant)
    torch.testing.assert_close(states, expected)


def test_what_decay_refuses() -> None:
    with pytest.raises(TypeError, match="Decay: transition must be a Transition; found str"):
        lr.Decay("gru")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Decay: tau must be a positive number or 4 of them"):
        lr.Decay(lr.LSTM(2), tau=[1.0, 2.0])


# -- who ignores time says so ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("transition", [lr.GRU(2), lr.LSTM(2), lr.VanillaRNN(2), lr.Linear(2), lr.MinGRU(2)])
def test_a_transition_that_ignores_time_says_so(transition: lr.Transition) -> None:
    with pytest.warns(UserWarning, match=rf"irregular times, but {type(transition).__name__}\(hidden_size=2\) counts"):
        put_together(recorded(), transition)


EVERY_PART = [(name, latent_for(name, "gaussian", "innovations")) for name in TRANSITIONS] + [
    ("linear" if name.startswith("markov") else "gru", name) for name in LATENTS
]


@pytest.mark.parametrize(("transition", "latent"), EVERY_PART)
def test_every_part_reads_the_time_between_steps_or_says_that_it_does_not(transition: str, latent: str) -> None:
    """One behaviour for all: the density changes with the times, or a warning came with the model."""
    rng = np.random.default_rng(0)
    known = {"drive": rng.normal(size=(*VALUES.shape[:2], 1)), "stimulus": rng.normal(size=(*VALUES.shape[:2], 2))}
    data, other = (
        lr.SequenceData.from_arrays({"y": VALUES}, known, times=np.cumsum(gaps, 1), dtype=torch.float64)
        for gaps in (GAPS, GAPS[:, ::-1])
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = put_together(data, TRANSITIONS[transition](), LATENTS[latent]()).double()
    told = any("counts steps, whatever time" in str(warning.message) for warning in said)
    shake(model)
    drawn = pyro.poutine.trace(model).get_trace(data)
    densities = []
    for each in (data, other):
        with torch.no_grad():
            replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace=drawn)).get_trace(each)
            densities.append(float(replayed.log_prob_sum()))
    assert (densities[0] == densities[1]) == told


@pytest.mark.parametrize("part", ["History", "Lags", "Convolution"])
def test_parts_that_look_back_by_steps_say_so_beside_those_that_know_the_time(part: str) -> None:
    drive = np.random.default_rng(0).normal(size=(*VALUES.shape[:2], 1))
    data = lr.SequenceData.from_arrays({"y": VALUES}, {"x": drive}, times=np.cumsum(GAPS, 1))
    inputs = {"History": ["x"], "Lags": [lr.Lags("x", 3)], "Convolution": [lr.Convolution("x", 1, widths=2)]}[part]

    def make(inputs: list) -> None:
        head = lr.Gaussian(feedback=lr.History(2) if part == "History" else None)
        lr.LatentRNN(
            data.spec, transition=lr.LeakyIntegrator(3), latent=lr.Deterministic(), observations={"y": head},
            inputs=inputs,
        )  # fmt: skip

    with pytest.warns(UserWarning, match=f"irregular times, but {part} looks back by steps"):
        make(inputs)
    make([*inputs, lr.Gap()])  # which tells it


def test_nothing_is_said_where_time_is_used_or_regular() -> None:
    data = recorded()
    for make in MODELS.values():
        make(data)
    put_together(data, lr.Streams({"a": lr.GRU(2), "b": lr.LeakyIntegrator(2)}))
    put_together(lr.SequenceData.from_arrays({"y": VALUES}), lr.GRU(2))


@pytest.mark.parametrize("encoder", [lr.RNNEncoder(3), lr.StepEncoder([3])])
def test_encoders_are_told_the_gap(encoder: lr.RNNEncoder) -> None:
    data, other = recorded(), lr.SequenceData.from_arrays({"y": VALUES}, times=np.cumsum(GAPS[:, ::-1], 1))
    model = put_together(data, lr.GRU(2), inputs=GAP)
    arguments = encoder.arguments()
    for told in (True, False):
        guide = lr.Guide(model, encoder=type(encoder)(**{**arguments, "gap_input": None if told else False}))
        found = [guide.encoder(part).steps for part in (data, other)]
        assert torch.equal(*found) is not told
