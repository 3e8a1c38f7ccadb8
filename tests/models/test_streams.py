"""Streams: each is its own transition on its own share of the drive, and they meet in the readouts alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.terms import log_weights
from latentrnn.models.component import from_config
from tests import oracles
from tests.registry import shake

STEPS = 6
EXACT = {"rtol": 0.0, "atol": 1e-12}


def make_data(sequences: int = 3, channels: int = 2, dtype: torch.dtype = torch.float64) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    shape = (sequences, STEPS)
    return lr.SequenceData.from_arrays(
        {"y": rng.normal(size=(*shape, channels))},
        {
            "audio": rng.normal(size=(*shape, 2)),
            "text": rng.normal(size=(*shape, 1)),
            "both": rng.normal(size=(*shape, 1)),
        },
        dt=0.1,
        dtype=dtype,
    )


DATA = make_data()


def make_model(
    transition: lr.Transition | None = None,
    latent: lr.Latent | None = None,
    data: lr.SequenceData = DATA,
    inputs: list[str] | None = None,
    **head: object,
) -> lr.LatentRNN:
    model = lr.LatentRNN(
        data.spec,
        transition=two() if transition is None else transition,
        latent=lr.Innovations(2) if latent is None else latent,
        observations={"y": lr.Gaussian(**head)},
        inputs=inputs,
    ).to(data.dtype)
    shake(model)
    return model


def two(**options: object) -> lr.Streams:
    return lr.Streams({"ear": lr.GRU(3), "eye": lr.LSTM(2)}, {"ear": "audio", "eye": [lr.Lags("text", 2)]}, **options)


def kernel(cell: lr.Transition) -> dict[str, np.ndarray]:
    return {name.removesuffix("_l0"): value.detach().numpy() for name, value in cell.kernel.named_parameters()}


@pytest.mark.parametrize("common", [None, "eye"])
def test_each_stream_is_the_textbook_s_cell_on_its_share(common: str | None) -> None:
    """Channels of a_t: audio (2), text with its last value (2), then what all share: `both`, innovations (2)."""
    model = make_model(two(common=common), inputs=["both"])
    transition = model.transition
    u = torch.randn(3, STEPS, 2, dtype=torch.float64)
    drive = torch.cat([model.transition_inputs(DATA), u], -1)
    assert drive.shape[-1] == 2 + 2 + 1 + 2
    state = torch.randn(3, transition.state_size, dtype=torch.float64)
    outputs, last = transition.scan(drive, state)
    for n in range(3):
        h, (g, c) = state[n, :3].numpy(), state[n, 3:].numpy().reshape(2, 2)
        for t in range(STEPS):
            covariates = {name: value[n].numpy() for name, value in DATA.covariates.items()}
            before = covariates["text"][t - 1] if t else np.zeros(1)
            shared = np.concatenate([covariates["both"][t], u[n, t].numpy()])
            own = np.concatenate([covariates["text"][t], before])
            ear = np.concatenate([covariates["audio"][t], [] if common else shared])
            h = oracles.gru_step(ear, h, kernel(transition.cells["ear"]))
            g, c = oracles.lstm_step(np.concatenate([own, shared]), g, c, kernel(transition.cells["eye"]))
            np.testing.assert_allclose(outputs[n, t].detach(), np.concatenate([h, g]), **EXACT)
        np.testing.assert_allclose(last[n].detach(), np.concatenate([h, g, c]), **EXACT)


@pytest.mark.parametrize("handled", [False, True])
def test_a_scan_is_repeated_steps(handled: bool) -> None:
    model = make_model(two(common="ear"), lr.Deterministic(), inputs=["both"])
    transition, drive = model.transition, model.transition_inputs(DATA)
    state = torch.randn(4, 3, transition.state_size, dtype=torch.float64)
    seen: list[str] = []

    def note(name: str, value: Tensor) -> Tensor:
        seen.append(name)
        return value

    if handled:
        with transition.gates_through(note):
            outputs, last = transition.scan(drive, state)
    else:
        outputs, last = transition.scan(drive, state)
    assert bool(seen) == handled
    for t in range(STEPS):
        state = transition.step(state, drive[:, t].expand(4, 3, -1))
        torch.testing.assert_close(transition.output(state), outputs[..., t, :], **EXACT)
    torch.testing.assert_close(state, last, **EXACT)


def test_gates_are_recorded_and_clamped_by_stream() -> None:
    transition = make_model(latent=lr.Deterministic()).transition
    inputs = torch.randn(2, STEPS, 4, dtype=torch.float64)
    state = torch.randn(2, transition.state_size, dtype=torch.float64)
    found = transition.record(inputs, state)
    torch.testing.assert_close(found.outputs, transition.scan(inputs, state)[0], **EXACT)
    ear = {"ear.reset", "ear.update", "ear.candidate"}
    assert set(found.gates) == ear | {"eye.input", "eye.forget", "eye.output", "eye.candidate"}
    alone = transition.cells["ear"].record(inputs[..., :2], state[..., :3])
    for name, gate in alone.gates.items():
        torch.testing.assert_close(found.gates[f"ear.{name}"], gate, **EXACT)
    with transition.gates_through(lambda name, value: 0 * value if name == "ear.update" else value):
        clamped = transition.scan(inputs, state)[0]
    assert torch.equal(clamped[..., :3], state[:, None, :3].expand(2, STEPS, 3))  # a closed update gate: it stays
    torch.testing.assert_close(clamped[..., 3:], found.outputs[..., 3:], **EXACT)


def test_streams_may_hold_streams() -> None:
    inner = lr.Streams({"left": lr.GRU(2), "right": lr.Linear(3)}, {"left": "audio"})
    outer = lr.Streams({"ears": inner, "eye": lr.GRU(1)}, {"ears": "both", "eye": "text"})
    assert outer.parts == {
        "ears": slice(0, 5), "ears.left": slice(0, 2), "ears.right": slice(2, 5), "eye": slice(5, 6),
    }  # fmt: skip
    model = make_model(outer, lr.Deterministic(), readout=lr.CrossAttention("ears.right", "eye", 2))
    inner, eye = model.transition.cells["ears"], model.transition.cells["eye"]
    sizes = [cell.kernel.input_size for cell in (inner.cells["left"], eye)] + [
        inner.cells["right"].input_weight.shape[1]
    ]
    assert sizes == [2 + 1, 1, 1]  # left: audio and, as both ears, `both`; eye: text; right: `both`
    assert model.transition_inputs(DATA).shape[-1] == 4
    assert (
        "ears.left.update"
        in model.transition.record(model.transition_inputs(DATA), model.latent.begin((3,)).state).gates
    )
    log_weights(model, lr.Guide(model), DATA, 1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.transition.parameters())


def test_what_drives_one_stream_does_not_reach_the_other() -> None:
    transition = make_model(two(common="eye")).transition
    inputs = torch.randn(1, STEPS, 6, dtype=torch.float64, requires_grad=True)  # audio, text, innovations: 2 each
    outputs = transition.scan(inputs, torch.zeros(transition.state_size, dtype=torch.float64))[0]
    for name, reached in (("ear", slice(0, 2)), ("eye", slice(2, 6))):
        (gradient,) = torch.autograd.grad(outputs[..., transition.parts[name]].sum(), inputs, retain_graph=True)
        assert gradient[..., reached].all()
        assert gradient.count_nonzero() == gradient[..., reached].numel()


def test_a_stream_that_nothing_drives_runs_by_itself() -> None:
    transition = lr.Streams({"ear": lr.GRU(2), "clock": lr.GRU(2)}, {"ear": "audio"})
    model = make_model(transition, lr.InitialState(2))
    assert model.transition.cells["clock"].kernel.input_size == 1
    states = model.transition.scan(model.transition_inputs(DATA), torch.ones(4, dtype=torch.float64))[0]
    assert (states[0, :, 2:] == states[1, :, 2:]).all()
    assert (states[:, 1:, 2:] != states[:, :-1, 2:]).all()


@pytest.mark.parametrize(
    "latent",
    [lr.InitialState(2), lr.RecurrentNormal(3), lr.MarkovNormal()],
    ids=lambda latent: type(latent).__name__,
)
def test_a_readout_finds_the_streams_in_what_it_sees(latent: lr.Latent) -> None:
    streams = lr.Streams({"ear": lr.GRU(3), "eye": lr.VanillaRNN(2)}, {"ear": "audio", "eye": "text"})
    model = make_model(streams, latent, readout=lr.CrossAttention("eye", "ear", 2))
    shift = 3 if isinstance(latent, lr.RecurrentNormal) else 0  # z_t comes before h_t
    parts = model.observations["y"].readout.parts
    assert parts == {"ear": slice(shift, shift + 3), "eye": slice(shift + 3, shift + 5)}
    rollout = poutine.trace(model.unroll).get_trace(DATA).nodes["_RETURN"]["value"]
    seen = rollout.states()
    assert seen.shape[-1] == shift + 5
    if not isinstance(latent, lr.MarkovNormal):
        z = torch.nn.functional.pad(seen[..., :shift], (0, 0, 1, 0))[:, :-1]
        h = model.transition.scan(torch.cat([model.transition_inputs(DATA), z], -1), rollout.path.initial_state)[0]
        torch.testing.assert_close(seen[..., shift:], h, **EXACT)


def test_a_stream_may_be_mixed_by_the_latent_s_switch() -> None:
    streams = {"ear": lr.GRU(3), "eye": lr.SwitchingLinear(2, 3, switch="given")}
    model = make_model(lr.Streams(streams, {"ear": "audio", "eye": "text"}, common="eye"), lr.RelaxedDiscrete(3))
    drive = torch.randn(1, STEPS, 3, dtype=torch.float64)
    one_hot = torch.eye(3, dtype=torch.float64)[[2] * STEPS].unsqueeze(0)
    state = torch.randn(1, 5, dtype=torch.float64)
    outputs = model.transition.scan(torch.cat([drive, one_hot], -1), state)[0]
    eye, h = model.transition.cells["eye"], state[0, 3:]
    for t in range(STEPS):  # the third regime's linear map throughout
        h = eye.recurrent_weight[2] @ h + eye.input_weight[2] @ drive[0, t, 2:] + eye.bias[2]
        torch.testing.assert_close(outputs[0, t, 3:], h, **EXACT)


def test_streams_are_described_in_json_whatever_their_names() -> None:
    streams = lr.Streams({"class": lr.GRU(2), "distribution": lr.LSTM(1)}, {"class": "audio"}, common=["class"])
    again = from_config(json.loads(json.dumps(streams.config())))
    assert again.config() == streams.config()
    assert repr(again) == repr(streams)
    assert list(again.cells) == ["class", "distribution"]


def test_one_cell_may_describe_two_streams() -> None:
    cell = lr.GRU(2)
    model = make_model(lr.Streams({"ear": cell, "eye": cell}, {"ear": "audio", "eye": "text"}))
    ear, eye = model.transition.cells.values()
    assert not {id(p) for p in ear.parameters()} & {id(p) for p in eye.parameters()}
    assert not list(cell.parameters())


def test_a_fit_is_saved_and_loaded(tmp_path: Path) -> None:
    data = make_data(8, dtype=torch.float32)
    model = make_model(data=data, readout=lr.CrossAttention("eye", "ear", 2))
    result = lr.fit(
        model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data, steps=3, reporting=lr.Reporting(progress=False)
    )
    result.save(tmp_path / "fit")
    again = lr.load(tmp_path / "fit")
    expected, found = (each.posterior(data).mean("y", num_samples=3) for each in (result, again))
    assert torch.equal(found, expected)


def test_without_noise_a_filter_is_the_run_all_at_once() -> None:
    """The particles then all follow the one rollout, which readouts of the past must find step by step."""
    data = make_data(channels=1)
    readout = lr.CrossAttention("eye", "ear", 4, heads=2)
    model = make_model(data=data, readout=readout)
    with torch.no_grad():
        model.latent.log_scale.fill_(-40.0)
        for parameter in model.observations["y"].readout.parameters():
            parameter.copy_(torch.randn_like(parameter))
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)).double(), data)
    ahead = posterior.one_step_ahead("y", num_particles=4, num_filters=2)
    head = model.observations["y"]
    drive = torch.nn.functional.pad(model.transition_inputs(data), (0, 2))
    states = model.transition.scan(drive, model.latent.begin((3,)).state)[0]
    expected = head.entry_log_prob(head(states, head.inputs(data)), data.observations["y"])
    torch.testing.assert_close(ahead.log_prob, expected, rtol=0, atol=1e-9)
    # negative control: without the past the densities are others
    alone = [head.readout(states[:, t : t + 1]) for t in range(STEPS)]
    assert (torch.cat(alone, 1) - head.readout(states))[:, 1:].abs().min() > 1e-3


def test_nuts() -> None:
    data = make_data(2)
    model = make_model(two(common="ear"), lr.Innovations(1), data=data, priors={"weight": dist.Normal(0.0, 1.0)})
    chain = MCMC(NUTS(model, step_size=0.02, adapt_step_size=False, max_tree_depth=3), 4, 3, disable_progbar=True)
    chain.run(data)
    samples = chain.get_samples()
    assert samples["y.readout.weight"].shape == (4, 2, 5)
    assert samples["innovations"].shape == (4, 2, STEPS, 1)
    assert all(torch.isfinite(value).all() and (value[0] != value[-1]).any() for value in samples.values())


REFUSED = {
    "no stream": (lambda: lr.Streams({}), ValueError, "Streams: expected at least one named transition"),
    "a list": (lambda: lr.Streams([lr.GRU(2)]), ValueError, "Streams: expected at least one named transition"),
    "a dot": (lambda: lr.Streams({"a.b": lr.GRU(2)}), ValueError, "Streams: 'a.b' cannot name a stream"),
    "a method's name": (lambda: lr.Streams({"items": lr.GRU(2)}), ValueError, "Streams: 'items' cannot name a stream"),
    "no transition": (lambda: lr.Streams({"a": 3}), TypeError, "Streams: 'a' must be a Transition; found int"),
    "inputs of nobody": (
        lambda: lr.Streams({"a": lr.GRU(2)}, {"b": "audio"}),
        ValueError,
        "Streams: inputs names unknown stream 'b'; there are ['a']",
    ),
    "noise for nobody": (
        lambda: lr.Streams({"a": lr.GRU(2)}, common="b"),
        ValueError,
        "Streams: common names unknown stream 'b'; there are ['a']",
    ),
    "a switch that does not arrive": (
        lambda: lr.Streams({"a": lr.SwitchingLinear(2, 3, switch="given"), "b": lr.GRU(2)}, common="b"),
        ValueError,
        "Streams: a switch drives ['a'], which must be in `common` and of one size",
    ),
    "an unknown covariate": (
        lambda: make_model(lr.Streams({"a": lr.GRU(2)}, {"a": "smell"})),
        ValueError,
        "unknown covariate 'smell'; the data have ['audio', 'both', 'text']",
    ),
    "another stream": (
        lambda: make_model(readout=lr.CrossAttention("ear", "nose")),
        ValueError,
        "CrossAttention: asked names unknown stream 'nose'; the states have ['ear', 'eye']",
    ),
    "a state that readouts do not see": (
        lambda: make_model(latent=lr.MarkovNormal()),
        ValueError,
        "MarkovNormal draws the whole state at every step",
    ),
}


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(make, kind, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind) as error:
        make()
    assert message in str(error.value)


# -- recovery ------------------------------------------------------------------------------------------------------


def lookup_data(seed: int, sequences: int = 150, steps: int = 10) -> lr.SequenceData:
    """One stream stores values under two keys; y_t is the mean of those under the key that the other asks for."""
    rng = np.random.default_rng(seed)
    shape = (sequences, steps, 1)
    value, key, question = rng.normal(size=shape), rng.choice([-1.0, 1.0], shape), rng.choice([-1.0, 1.0], shape)
    y = np.zeros(shape)
    for t in range(steps):
        match = key[:, : t + 1] == question[:, t : t + 1]
        y[:, t] = (value[:, : t + 1] * match).sum(1) / np.maximum(match.sum(1), 1)
    covariates = {"value": value, "key": key, "question": question}
    return lr.SequenceData.from_arrays({"y": y + 0.1 * rng.normal(size=shape)}, covariates)


@pytest.mark.slow
def test_one_stream_finds_what_it_asks_for_in_the_other_s_past() -> None:
    """Which of the stored values count depends on the other stream: no sum of what either says will do."""
    train, test = lookup_data(0), lookup_data(1)
    errors = {}
    readouts = {"cross": lr.CrossAttention("ask", "store", 8), "causal": lr.CausalAttention(8), "linear": None}
    for name, readout in readouts.items():
        streams = lr.Streams({"ask": lr.GRU(4), "store": lr.GRU(8)}, {"ask": "question", "store": ["value", "key"]})
        heads = {"y": lr.Gaussian(readout=readout)}
        model = lr.LatentRNN(train.spec, transition=streams, latent=lr.Deterministic(), observations=heads)
        optimiser = lr.AdamW(learning_rate=0.02)
        result = lr.fit(
            model, lr.Guide(model), train, steps=500, optimizer=optimiser, reporting=lr.Reporting(progress=False)
        )
        mean = result.posterior(test).mean("y", num_samples=1)
        errors[name] = float((mean - test.observations["y"]).square().mean() / test.observations["y"].var())
    assert errors["cross"] < 0.25  # measured: 0.11
    assert errors["causal"] < 0.25  # measured: 0.12, as all of h_t may ask all of it
    assert errors["linear"] > 0.45  # measured: 0.62
