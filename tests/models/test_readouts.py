"""Readouts: against equations written out, all steps at once against step by step, and what they must not see."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import special
from torch import Tensor

import latentrnn as lr
from latentrnn.models.readouts import LinearReadout, Readout, Surroundings
from tests.models.memoryless import Memoryless
from tests.oracles import Array, gru_step
from tests.registry import OBSERVATIONS, make_data

HIDDEN, OUTPUTS, STEPS = 5, 3, 7
EXACT = {"rtol": 0.0, "atol": 1e-12}
READOUTS = {
    "linear": LinearReadout(),
    "mlp": lr.MLPReadout(4, layers=2),
    "factor": lr.FactorReadout(2),
    "causal": lr.CausalAttention(4, heads=2),
    "windowed": lr.WindowedAttention(3, 4, heads=2),
    "windowed, longer than the data": lr.WindowedAttention(9, 2),
    "modulated": lr.ModulatedAttention("stimulus", 4, heads=2),
    "cross": lr.CrossAttention("asking", "asked", 4, heads=2),
    "source": lr.SourceAttention("stimulus", 4, heads=2, hidden_size=3, valid="source_step"),
    "source, all of it": lr.SourceAttention(["drive", "stimulus"], 2, hidden_size=2),
}
DATA = make_data(OBSERVATIONS["poisson"], (STEPS, STEPS))
SOURCE = make_data(OBSERVATIONS["source attention"], (STEPS, STEPS))
PARTS = {"asked": slice(0, 2), "asking": slice(2, 5)}


def data_for(name: str) -> lr.SequenceData:
    return SOURCE if name.startswith("source") else DATA


def built(name: str) -> Readout:
    readout = READOUTS[name].fresh()
    readout.parts = PARTS
    readout.build(HIDDEN, OUTPUTS, data_for(name).spec)
    readout.double()
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return readout


def states() -> Tensor:
    return torch.randn(2, STEPS, HIDDEN, dtype=torch.float64)


def encoded(readout: Readout, w: dict[str, Array], n: int) -> tuple[Array, list[int]]:
    """The source of one sequence read in both directions, (source time, channel), and the steps that it lies at."""
    x = np.concatenate([SOURCE.covariates[item][n].numpy() for item in readout.source], -1)
    steps = list(range(STEPS))
    if readout.valid is not None:
        steps = [s for s in steps if SOURCE.covariates[readout.valid][n, s, 0] == 1]
    out = []
    for direction, order in (("forwards", steps), ("backwards", steps[::-1])):
        kernel = {kind: w[f"{direction}.{kind}_l0"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        h, found = np.zeros(readout.hidden_size), {}
        for s in order:
            h = found[s] = gru_step(x[s], h, kernel)
        out.append(np.stack([found[s] for s in steps]))
    return np.concatenate(out, -1), steps


def written_out(name: str, readout: Readout, h: Array, n: int) -> Array:
    """Raw outputs of one sequence, (time, output), of its states (time, channel), one step at a time."""
    x = DATA.covariates["stimulus"][n].numpy()
    w = {key: value.detach().numpy() for key, value in readout.named_parameters()}
    if name == "linear":
        return np.stack([w["weight"] @ h_t + w["baseline"] for h_t in h])
    if name == "mlp":
        first = np.stack([np.tanh(w["hidden.0.weight"] @ h_t + w["hidden.0.bias"]) for h_t in h])
        second = np.stack([np.tanh(w["hidden.2.weight"] @ f_t + w["hidden.2.bias"]) for f_t in first])
        return np.stack([w["weight"] @ f_t + w["baseline"] for f_t in second])
    if name == "factor":
        rows = w["weight"] / np.sqrt((w["weight"] ** 2).sum(1, keepdims=True))
        return np.stack([w["loading"] @ (rows @ h_t) + w["baseline"] for h_t in h])
    heads, size = readout.heads, readout.size // readout.heads
    window = getattr(readout, "window", len(h))
    eta, asking, asked = [], h, h
    if name == "cross":
        asking, asked = h[:, PARTS["asking"]], h[:, PARTS["asked"]]
    if name.startswith("source"):
        asked = encoded(readout, w, n)[0]
    for t in range(len(h)):
        query = w["attention.query.weight"] @ asking[t] + w["attention.query.bias"]
        if name == "modulated":
            query = (1 + w["scale_weight"] @ x[t]) * query + w["shift_weight"] @ x[t]
        past = range(len(asked)) if name.startswith("source") else range(max(0, t - window + 1), t + 1)
        attended = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = [query[own] @ (w["attention.key.weight"] @ asked[s])[own] / np.sqrt(size) for s in past]
            if "lag_bias" in w:
                scores = [
                    score + w["lag_bias"][head, window - 1 - (t - s)] for score, s in zip(scores, past, strict=True)
                ]
            alpha = special.softmax(scores)
            attended.append(
                sum(a * (w["attention.value.weight"] @ asked[s])[own] for a, s in zip(alpha, past, strict=True))
            )
        eta.append(w["weight"] @ h[t] + w["attended_weight"] @ np.concatenate(attended) + w["baseline"])
    return np.stack(eta)


@pytest.mark.parametrize("name", READOUTS)
def test_a_readout_is_its_equations(name: str) -> None:
    readout, h = built(name), states()
    found = readout(h, readout.surroundings(data_for(name))).detach()
    for n in range(2):
        expected = written_out(name, readout, h[n].numpy(), n)
        np.testing.assert_allclose(found[n], expected, **EXACT)


@pytest.mark.parametrize("name", READOUTS)
def test_step_by_step_is_all_at_once(name: str) -> None:
    readout, h = built(name), states()
    surroundings = readout.surroundings(data_for(name))
    expected, past = readout(h, surroundings), None
    for t in range(STEPS):
        eta = readout(h[:, t : t + 1], surroundings.at(t)._replace(past=past))
        torch.testing.assert_close(eta[:, 0], expected[:, t], **EXACT)
        past = readout.remember(past, h[:, t])
        if readout.memory is not None:
            assert (past is None) == (readout.memory == 0)
            assert past is None or past.shape[-2] <= readout.memory


@pytest.mark.parametrize("name", READOUTS)
def test_samples_broadcast(name: str) -> None:
    readout, h = built(name), torch.randn(4, 2, STEPS, HIDDEN, dtype=torch.float64)
    surroundings = readout.surroundings(data_for(name))
    found = readout(h, surroundings)
    for sample in range(4):
        torch.testing.assert_close(found[sample], readout(h[sample], surroundings), **EXACT)


@pytest.mark.parametrize("name", READOUTS)
def test_no_step_sees_its_future(name: str) -> None:
    readout, h = built(name), states().requires_grad_()
    for t in range(STEPS):
        eta = readout(h, readout.surroundings(data_for(name)))
        (gradient,) = torch.autograd.grad(eta[0, t].sum(), h)
        assert not gradient[0, t + 1 :].any()
        assert gradient[0, t].any()
        reached = gradient[0].any(-1).nonzero()[0].item()
        assert reached == (0 if readout.memory is None else max(0, t - readout.memory))


def test_attention_weights_are_a_distribution_over_the_past() -> None:
    readout, h = built("causal"), states()
    alpha = readout.attention_weights(h)
    torch.testing.assert_close(alpha.sum(-1), torch.ones_like(alpha[..., 0]), **EXACT)
    assert not alpha.triu(1).any()
    attended = torch.einsum("nhts,nshc->nthc", alpha, readout.attention.value(h).unflatten(-1, (2, -1))).flatten(-2)
    expected = readout(h) - h @ readout.weight.mT - readout.baseline
    torch.testing.assert_close(attended @ readout.attended_weight.mT, expected, **EXACT)


def test_cross_attention_weighs_the_other_stream_s_past() -> None:
    readout, h = built("cross"), states()
    alpha = readout.attention_weights(h)
    torch.testing.assert_close(alpha.sum(-1), torch.ones_like(alpha[..., 0]), **EXACT)
    assert not alpha.triu(1).any()
    other = h.clone()
    other[:, :, PARTS["asking"]] = torch.randn(2, STEPS, 3, dtype=torch.float64)
    assert (readout.attention_weights(other) - alpha)[..., 1:, :].abs().amax((-1, -2)).min() > 1e-3
    values = readout.attention.value(h[..., PARTS["asked"]]).unflatten(-1, (2, -1))
    attended = torch.einsum("nhts,nshc->nthc", alpha, values).flatten(-2)
    expected = readout(h) - h @ readout.weight.mT - readout.baseline
    torch.testing.assert_close(attended @ readout.attended_weight.mT, expected, **EXACT)


def test_source_attention_weighs_the_steps_of_the_source_alone() -> None:
    readout, h = built("source"), states()
    there = SOURCE.covariates["source_step"][..., 0] == 1
    assert (~there).any()
    alpha = readout.attention_weights(h, SOURCE)
    torch.testing.assert_close(alpha.sum(-1), torch.ones_like(alpha[..., 0]), **EXACT)
    assert not alpha.movedim(-1, 1)[~there].any()
    assert alpha.movedim(-1, 1)[there].min() > 0
    w = {key: value.detach().numpy() for key, value in readout.named_parameters()}
    for n in range(2):
        source, steps = encoded(readout, w, n)
        key = source @ w["attention.key.weight"].T
        query = h[n].numpy() @ w["attention.query.weight"].T + w["attention.query.bias"]
        for head in range(2):
            own = slice(2 * head, 2 * head + 2)
            expected = special.softmax(query[:, own] @ key[:, own].T / np.sqrt(2), -1)
            np.testing.assert_allclose(alpha[n, head].detach().numpy()[:, steps], expected, **EXACT)


def test_what_is_no_step_of_the_source_is_not_read() -> None:
    """Neither its value nor, where there is none at all, anything: c_t = 0."""
    readout, h = built("source"), states()
    there = SOURCE.covariates["source_step"] == 1
    x = SOURCE.covariates["stimulus"].clone().requires_grad_()
    data = dataclasses.replace(SOURCE, covariates=SOURCE.covariates | {"stimulus": x})
    (gradient,) = torch.autograd.grad(readout(h, readout.surroundings(data)).square().sum(), x)
    assert torch.isfinite(gradient).all()
    assert not gradient[~there.expand_as(x)].any()
    assert gradient[there.expand_as(x)].all()
    nothing = dataclasses.replace(SOURCE, covariates=SOURCE.covariates | {"source_step": torch.zeros_like(x[..., :1])})
    found = readout(h, readout.surroundings(nothing))
    torch.testing.assert_close(found, h @ readout.weight.mT + readout.baseline, **EXACT)


def test_one_step_ahead_is_refused_where_all_of_the_source_is_seen() -> None:
    model = lr.LatentRNN(
        DATA.spec,
        transition=lr.GRU(2),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(readout=lr.SourceAttention("stimulus", 2))},
        inputs=[],
    ).double()
    assert model.latency == math.inf
    with pytest.raises(ValueError, match="sees the covariates of the whole sequence at every step"):
        lr.Posterior(model, lr.Guide(model), DATA).one_step_ahead("y")


def test_a_factor_readout_may_have_priors_of_its_own() -> None:
    head = lr.Poisson(readout=lr.FactorReadout(2, priors={"loading": dist.Normal(0.0, 1.0)}))
    model = lr.LatentRNN(DATA.spec, transition=lr.GRU(4), latent=lr.InitialState(2), observations={"y": head})
    assert list(model.parameter_sites()) == ["y.readout.loading"]


# -- where the model runs step by step -----------------------------------------------------------------------------


@pytest.mark.parametrize("readout", [lr.CausalAttention(3), lr.WindowedAttention(2, 3)], ids=repr)
def test_a_particle_filter_keeps_each_particle_s_own_past(readout: Readout) -> None:
    """Its densities multiply to the evidence, which many draws of the prior estimate without any filter."""
    rng = np.random.default_rng(0)
    arrays = {"y": rng.normal(size=(2, 5, 1))}, {"x": rng.normal(size=(2, 5, 1))}
    data = lr.SequenceData.from_arrays(*arrays, dtype=torch.float64)  # one channel: its densities are the steps'
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Innovations(1),
        observations={"y": lr.Gaussian(readout=readout)},
    ).double()
    with torch.no_grad():
        model.observations["y"].log_noise_scale.fill_(0.5)  # wide, so that draws of the prior find the data
        for name, parameter in model.named_parameters():
            if "readout" in name:
                parameter.copy_(0.8 * torch.randn_like(parameter))
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)).double(), data)
    ahead = posterior.one_step_ahead("y", num_particles=2000, num_filters=8)
    draws = 40_000
    with torch.no_grad():
        drive = model.transition_inputs(data)
        noise = torch.randn(draws, 2, 5, 1, dtype=torch.float64)  # innovations of unit scale
        states = model.transition.scan(
            torch.cat([drive.expand(draws, *drive.shape), noise], -1), model.latent.begin((draws, 2)).state
        )[0]
        head = model.observations["y"]
        log_prob = head(states, head.inputs(data)).log_prob(data.observations["y"])
    expected = torch.logsumexp(log_prob, 0) - np.log(draws)
    error = (log_prob - expected).exp().std(0) / draws**0.5
    filtered = ahead.log_prob.sum((1, 2))
    tolerance = 5 * (error**2 + (ahead.standard_error**2).sum((1, 2))).sqrt()
    assert (filtered - expected).abs().lt(tolerance).all()
    assert tolerance.max() < 0.2
    # negative control: without the past the readout is another one
    whole, alone = head.readout(states[:100])[..., -1:, :], head.readout(states[:100, :, -1:])
    assert (whole - alone).abs().max() > 0.05


# -- what is refused -----------------------------------------------------------------------------------------------


def sourced(readout: Readout) -> lr.LatentRNN:
    heads = {"y": lr.Poisson(readout=readout)}
    return lr.LatentRNN(DATA.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)


REFUSED = {
    "a readout by name": (
        lambda: lr.Poisson(readout="mlp"),
        TypeError,
        "Poisson: readout must be a Readout; found str",
    ),
    "priors of another readout": (
        lambda: lr.Poisson(readout=lr.MLPReadout(), priors={"weight": dist.Normal(0.0, 1.0)}),
        ValueError,
        "Poisson: priors belong to the default readout; give MLPReadout its own",
    ),
    "no factors": (lambda: lr.FactorReadout(0), ValueError, "FactorReadout: factors must be a positive integer"),
    "an unknown activation": (
        lambda: lr.MLPReadout(activation="exp"),
        ValueError,
        "MLPReadout: activation must be one",
    ),
    "heads that do not divide": (
        lambda: lr.CausalAttention(6, heads=4),
        ValueError,
        "CausalAttention: heads must divide size; found size=6 and heads=4",
    ),
    "no window": (lambda: lr.WindowedAttention(0), ValueError, "WindowedAttention: window must be a positive integer"),
    "modulated by nothing": (
        lambda: lr.ModulatedAttention([]),
        ValueError,
        "ModulatedAttention: by must name at least one covariate",
    ),
    "a source that is not 0 or 1": (
        lambda: sourced(lr.SourceAttention("stimulus", valid="drive")).check(DATA),
        ValueError,
        "SourceAttention: covariates['drive'] must be 1 where there is a step of the source and 0 elsewhere; found",
    ),
    "a source of two validities": (
        lambda: sourced(lr.SourceAttention("drive", valid="stimulus")),
        ValueError,
        "SourceAttention: valid must be a covariate of one feature; 'stimulus' has 2",
    ),
    "a source that is not there": (
        lambda: sourced(lr.SourceAttention("words")),
        ValueError,
        "SourceAttention: unknown covariate 'words'; the data have ['drive', 'stimulus']",
    ),
    "streams that are not there": (
        lambda: sourced(lr.CrossAttention("audio", "text")),
        ValueError,
        "CrossAttention: asking names unknown stream 'audio'; the states have no streams, as a Streams transition",
    ),
    "modulated by the unknown": (
        lambda: lr.LatentRNN(
            DATA.spec,
            transition=lr.GRU(2),
            latent=lr.Deterministic(),
            observations={"y": lr.Poisson(readout=lr.ModulatedAttention("speaker"))},
        ),
        ValueError,
        "ModulatedAttention: unknown covariate 'speaker'; the data have ['drive', 'stimulus']",
    ),
}


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(make, kind, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("readout", [lr.CausalAttention(2), lr.SourceAttention("stimulus", 2)], ids=repr)
def test_attention_on_a_per_sequence_head_is_refused(readout: Readout) -> None:
    data = make_data(OBSERVATIONS["per sequence"])
    heads = {"y": lr.Categorical(3, readout=readout)}
    with pytest.raises(ValueError, match="use pooling='attention' to attend over its steps"):
        lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)


# -- recovery ------------------------------------------------------------------------------------------------------


def recall_data(seed: int, sequences: int = 120, steps: int = 20) -> lr.SequenceData:
    """y_t is the largest value of the last three inputs: nothing linear in the present input says it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(sequences, steps, 1))
    padded = np.pad(x, ((0, 0), (2, 0), (0, 0)), constant_values=-9.0)
    largest = np.max([padded[:, lag : lag + steps] for lag in range(3)], 0)
    return lr.SequenceData.from_arrays({"y": largest + 0.1 * rng.normal(size=x.shape)}, {"x": x})


@pytest.mark.slow
def test_attention_recalls_what_a_state_without_memory_forgets() -> None:
    """The state is a function of the present input alone, so only the readout looks back."""
    train, test = recall_data(0), recall_data(1)
    errors = {}
    for name, readout in {"window": lr.WindowedAttention(3, 8), "mlp": lr.MLPReadout(16)}.items():
        model = lr.LatentRNN(
            train.spec,
            transition=Memoryless(8),
            latent=lr.Deterministic(),
            observations={"y": lr.Gaussian(readout=readout)},
        )
        result = lr.fit(
            model,
            lr.Guide(model),
            train,
            steps=500,
            optimizer=lr.AdamW(learning_rate=0.02),
            reporting=lr.Reporting(progress=False),
        )
        mean = result.posterior(test).mean("y", num_samples=1)
        errors[name] = float((mean - test.observations["y"]).square().mean() / test.observations["y"].var())
    assert errors["window"] < 0.15
    assert errors["mlp"] > 0.4


def reversed_data(seed: int, sequences: int = 150, steps: int = 6) -> lr.SequenceData:
    """y is the source backwards; sources are three to six steps long, and `clock` is all that the decoder is told."""
    rng = np.random.default_rng(seed)
    shape = (sequences, steps, 1)
    x, lengths = rng.normal(size=shape), rng.integers(3, steps + 1, sequences)
    y = np.full(shape, np.nan)
    for n, length in enumerate(lengths):
        y[n, :length] = x[n, :length][::-1]
    covariates = {
        "x": x,
        "there": (np.arange(steps) < lengths[:, None])[..., None].astype(float),
        "clock": np.broadcast_to(np.arange(steps)[:, None] / steps, shape).copy(),
    }
    return lr.SequenceData.from_arrays({"y": y + 0.1 * rng.normal(size=shape)}, covariates)


@pytest.mark.slow
def test_a_source_is_recited_backwards() -> None:
    """The control reads the same source as it goes on, and so has not heard the end when it must say it."""
    train, test = reversed_data(0), reversed_data(1)
    source = lr.SourceAttention("x", 16, hidden_size=8, valid="there")
    mask, y, errors = test.masks["y"], test.observations["y"], {}
    for name, readout, inputs in (("source", source, ["clock"]), ("linear", None, ["clock", "x"])):
        model = lr.LatentRNN(
            train.spec,
            transition=lr.GRU(12),
            latent=lr.Deterministic(),
            observations={"y": lr.Gaussian(readout=readout)},
            inputs=inputs,
        )
        optimiser = lr.AdamW(learning_rate=0.02)
        result = lr.fit(
            model, lr.Guide(model), train, steps=500, optimizer=optimiser, reporting=lr.Reporting(progress=False)
        )
        mean = result.posterior(test).mean("y", num_samples=1)
        errors[name] = float((mean - y)[mask].square().mean() / y[mask].var())
        if name == "source":  # the weights are the alignment
            states = result.posterior(test).latents(1)["states"][0]
            weights = result.model.observations["y"].readout.attention_weights(states, test)[:, 0]
            mirrored = mask[..., 0].sum(1, keepdim=True) - 1 - torch.arange(6)
            aligned = (weights.argmax(-1) == mirrored)[mask[..., 0]].double().mean()
    assert errors["source"] < 0.1  # measured: 0.013, of which 0.01 is noise
    assert errors["linear"] > 0.6  # measured: 0.89
    assert aligned > 0.8


def test_surroundings_of_a_step_keep_what_has_no_time() -> None:
    whole = Surroundings(context=torch.arange(6.0).reshape(1, 3, 2), source=torch.ones(1, 4, 2))
    one = whole.at(1)
    assert one.context.tolist() == [[[2.0, 3.0]]]
    assert one.source is whole.source
