"""Sessions that share one latent dynamics: each is scored by its own channels and read in by its own map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import latentrnn as lr
from latentrnn.inference.guides.read_in import ReadIn
from latentrnn.inference.objectives.terms import log_weights
from tests.registry import Fixed, fixed_latents, rows, shake

CHANNELS = {"a": 3, "b": 2}
LENGTHS = {"a": (6, 4, 5), "b": (7, 3)}


def sessions() -> dict[str, lr.SequenceData]:
    rng = np.random.default_rng(0)
    found = {}
    for name, lengths in LENGTHS.items():
        voltage = [rng.normal(3.0, 2.0, (steps, CHANNELS[name])) for steps in lengths]
        voltage[0][2, 1] = np.nan
        found[name] = lr.SequenceData.from_arrays(
            {
                "heldin": [rng.poisson(1.0, (steps, CHANNELS[name])) for steps in lengths],
                "heldout": [rng.poisson(1.0, (steps, 2)) for steps in lengths],
                "voltage": voltage,
                "speed": [rng.normal(size=(steps, 1)) for steps in lengths],
            },
            {"drive": [rng.normal(size=(steps, 1)) for steps in lengths]},
            dt=0.02,
            dtype=torch.float64,
        )
    return found


HEADS = {
    "heldin": lr.Poisson(priors={"weight": dist.Normal(0.0, 1.0)}),
    "heldout": lr.NegativeBinomial(),
    "voltage": lr.Gaussian(covariance="full"),
    "speed": lr.Gaussian(),
}


def make(data: lr.SequenceData, observes: list[str] | None = None) -> tuple[lr.LatentRNN, lr.Guide]:
    torch.manual_seed(0)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4),
        latent=lr.Innovations(2, initial=2),
        observations=lr.per_session(data.spec, HEADS) if any(h.session for h in data.spec.heads.values()) else HEADS,
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, observes=observes, read_in=5))
    for name, head in model.observations.items():
        head.initialise(data.observations[name], data.masks[name])
    guide.initialise(model, data)
    model.double(), guide.double()
    shake(model), shake(guide)
    return model, guide


@pytest.fixture(scope="module")
def joint() -> tuple[lr.SequenceData, lr.LatentRNN, lr.Guide]:
    data = lr.SequenceData.join(sessions(), shared=["speed"])
    return data, *make(data)


def test_heads_are_declared_once_for_all_sessions(joint: tuple) -> None:
    data, model, _ = joint
    own = [f"{head}_{session}" for head in ("heldin", "heldout", "voltage") for session in "ab"]
    assert list(model.observations) == [*own, "speed"]
    # each session has parameters of its own, and sites of its own where they have priors
    assert set(model.parameter_sites()) == {f"heldin_{session}.readout.weight" for session in "ab"}
    assert model.observations["voltage_a"].readout is not model.observations["voltage_b"].readout
    with pytest.raises(ValueError, match="session_heads: expected a head that sessions have of their own"):
        lr.per_session(data.spec, {"spikes": lr.Poisson()})


@pytest.mark.parametrize("session", CHANNELS)
def test_a_sequence_is_scored_by_its_own_session_alone(joint: tuple, session: str) -> None:
    """The joint density of a session's sequences is that of a model of this session with the same weights."""
    data, model, _ = joint
    alone = sessions()[session]
    single, _ = make(alone)
    weights = model.state_dict()
    single.load_state_dict({
        name: weights[name if (own := name.replace("observations.", "", 1)) == name or own.startswith("speed")
        else "observations." + own.replace(".", f"_{session}.", 1)]
        for name in single.state_dict()
    })  # fmt: skip
    part = data.session(session)
    values = fixed_latents(model, part)
    own_values = {name.replace(f"_{session}.", "."): value for name, value in values.items()}
    own_values = rows(single, own_values, list(range(len(alone))), alone.num_steps)
    with Fixed(values):
        trace = poutine.trace(model).get_trace(part)
    with Fixed(own_values):
        own_trace = poutine.trace(single).get_trace(alone)
    for head in HEADS:
        name = head if head in model.observations else f"{head}_{session}"
        found, expected = (
            t.nodes[n]["fn"].log_prob(t.nodes[n]["value"]) for t, n in ((trace, name), (own_trace, head))
        )
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for name in model.observations:
        if name.endswith(f"_{'b' if session == 'a' else 'a'}"):
            site = trace.nodes[name]
            assert (site["fn"].log_prob(site["value"]) == 0).all()


def test_other_sessions_have_no_effect_on_value_or_gradient(joint: tuple) -> None:
    data, model, guide = joint
    part = data.session("b")
    torch.manual_seed(1)
    values = fixed_latents(model, part)
    # whatever stands in for another session's channels is never looked at
    other = part.with_observations({n: v + 3.0 for n, v in part.observations.items() if n.endswith("_a")})
    with Fixed(values):
        first, second = log_weights(model, guide, part, 1), log_weights(model, guide, other, 1)
    assert torch.equal(first, second)
    model.zero_grad(), guide.zero_grad()
    lr.elbo_terms(model, guide, part).elbo().backward()
    for module in (model, guide):
        for name, parameter in module.named_parameters():
            if parameter.grad is None or "parameter_sites" in name:
                continue
            if "_a." in name:
                assert (parameter.grad == 0).all(), name
            elif "_b." in name and "observations" in name:
                assert (parameter.grad != 0).any(), name


def test_an_absent_session_is_not_an_average_one(joint: tuple) -> None:
    """The encoder reads b's sequences as if there were no a: neither zeros, nor masks, nor an offset come of it."""
    data, _, guide = joint
    encoder, part = guide.encoder, data.session("b")
    before = encoder(part)
    with torch.no_grad():
        for parameter in encoder.reader.maps["heldin_a"].parameters():
            parameter.add_(1.0)
        after = encoder(part)
        assert torch.equal(before.steps, after.steps)
        assert not torch.equal(encoder(data).steps, encoder(part).steps)
        # the control: an a of nothing but average values is read
        average = part.masks["heldin_a"] | part.valid[..., None]
        present = dataclasses.replace(part, masks={**part.masks, "heldin_a": average}, sessions=None)
        assert not torch.allclose(encoder(present).steps, before.steps)
        for parameter in encoder.reader.maps["heldin_a"].parameters():
            parameter.sub_(1.0)


def test_read_in_is_the_sum_of_what_is_there() -> None:
    torch.manual_seed(0)
    reader = ReadIn({"a": 3, "b": 2}, 4)
    a, b = torch.randn(3, 5, 3), torch.randn(3, 5, 2)
    there = {"a": torch.tensor([True, False, True]), "b": torch.tensor([False, True, True])}
    found = reader({"a": a, "b": b}, there)
    from_a, from_b = reader.maps["a"](a), reader.maps["b"](b)
    expected = torch.stack([from_a[0], from_b[1], from_a[2] + from_b[2]])
    torch.testing.assert_close(found, expected)


def test_held_out_channels_of_every_session_are_not_seen() -> None:
    data = lr.SequenceData.join(sessions(), shared=["speed"])
    observes = list(data.spec.session_heads("heldin").values())
    _, guide = make(data, observes)
    assert guide.encoder.visible == ["heldin_a", "heldin_b"]
    other = data.with_observations({n: v + 1.0 for n, v in data.observations.items() if n not in observes})
    assert torch.equal(guide.encoder(data).steps, guide.encoder(other).steps)


def test_batches_of_one_session_have_the_evidence_of_mixed_ones(joint: tuple) -> None:
    data, model, guide = joint
    torch.manual_seed(2)
    values = fixed_latents(model, data)
    with Fixed(values), torch.no_grad():
        whole = log_weights(model, guide, data, 1)[0]
    for session in CHANNELS:
        chosen = [i for i, name in enumerate(data.sessions) if name == session]
        part = data.batch(torch.tensor(chosen))
        with Fixed(rows(model, values, chosen, part.num_steps)), torch.no_grad():
            torch.testing.assert_close(log_weights(model, guide, part, 1)[0], whole[chosen], rtol=1e-10, atol=1e-10)


def test_a_sessions_past_cannot_drive_what_all_share() -> None:
    data = lr.SequenceData.join(sessions())
    heads = lr.per_session(data.spec, {"heldin": lr.Poisson(feedback=lr.History(2))})
    with pytest.raises(ValueError, match=r"observations\['heldin_a'\] belongs to session 'a' alone"):
        lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads)
    heads = lr.per_session(data.spec, {"heldin": lr.Poisson(feedback=lr.History(2, into="readout"))})
    lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads)


def test_a_fit_of_sessions_is_saved_and_loaded(tmp_path) -> None:
    parts = {name: part.to(dtype=torch.float32) for name, part in sessions().items()}
    data = lr.SequenceData.join(parts, shared=["speed"])
    heads = lr.per_session(data.spec, HEADS)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, read_in=4))
    result = lr.fit(
        model, guide, data, steps=2, compute=lr.Compute(device="cpu"), reporting=lr.Reporting(progress=False)
    )
    result.save(tmp_path / "run")
    loaded = lr.load(tmp_path / "run")
    assert loaded.guide.encoder.read_in == 4
    assert loaded.spec == data.spec
    for first, second in ((result, loaded),):
        one, other = (r.posterior(data.session("b"), device="cpu").mean("heldout_b", 5) for r in (first, second))
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_masks_are_read_in_only_where_a_session_misses_entries_of_its_own() -> None:
    """A mask that is one in all of a session would be as many offsets as there are channels, all learning at once."""
    data = lr.SequenceData.join(sessions(), shared=["speed"])
    widths = {name: part.in_features for name, part in make(data)[1].encoder.reader.maps.items()}
    # the first step of each voltage's second channel is missing in both sessions
    assert widths == {
        "heldin_a": 3, "heldout_a": 2, "voltage_a": 6, "heldin_b": 2, "heldout_b": 2, "voltage_b": 4, "speed": 1
    }  # fmt: skip


def test_without_a_read_in_the_encoder_is_told_who_is_absent() -> None:
    data = lr.SequenceData.join(sessions(), shared=["speed"])
    heads = lr.per_session(data.spec, HEADS)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3)).double()
    absent = data.session("b")
    average = dataclasses.replace(absent, masks={**absent.masks, "heldin_a": absent.valid[..., None].expand(-1, -1, 3)})
    average = average.with_observations(
        {**average.observations, "heldin_a": guide.encoder.heldin_a_centre.expand_as(average.observations["heldin_a"])}
    )
    assert not torch.allclose(guide.encoder(absent).steps, guide.encoder(average).steps)
    silent = lr.Guide(model, encoder=lr.RNNEncoder(3, mask_input=False)).double()
    with pytest.raises(ValueError, match="has no input to be told by"):
        silent.encoder(data)


def test_a_joint_density_leaves_out_whole_sessions() -> None:
    """Full covariance, nothing missing within a session: no step is partly observed, and absent ones count nothing."""
    rng = np.random.default_rng(1)
    parts = {
        name: lr.SequenceData.from_arrays({"voltage": rng.normal(size=(2, 4, n))}, dtype=torch.float64)
        for name, n in CHANNELS.items()
    }
    data = lr.SequenceData.join(parts)
    for head in (lr.Gaussian(covariance="full"), lr.Gaussian(covariance="low_rank", rank=1)):
        heads = lr.per_session(data.spec, {"voltage": head})
        model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads).double()
        trace = poutine.trace(model).get_trace(data)
        found = {n: trace.nodes[n]["fn"].log_prob(trace.nodes[n]["value"]) for n in heads}
        assert (found["voltage_a"] != 0).tolist() == [True, True, False, False]
        assert (found["voltage_b"] != 0).tolist() == [False, False, True, True]
        shifted = data.with_observations({n: v + 5.0 * ~data.masks[n] for n, v in data.observations.items()})
        other = poutine.trace(model).get_trace(shifted)
        for name, value in found.items():
            assert torch.equal(other.nodes[name]["fn"].log_prob(other.nodes[name]["value"]), value)
