"""Wide heads in chunks of time: the same densities and gradients, in the memory of a chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.terms import elbo_terms, sampled_sites
from latentrnn.models.features import units
from tests.registry import OBSERVATIONS, Fixed, default_transition, fixed_latents, make_data, make_model

# steps of these depend on each other given the states, or belong to no step
WHOLE = {"hazard, missing", "calcium", "per sequence", "per sequence, attention"}
WHOLE |= {"attention, fed back", "cross attention"}


def results(model: lr.LatentRNN, data: lr.SequenceData, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Log-densities of the heads, and gradients of their sum with respect to every weight and latent."""
    model.zero_grad()
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    with Fixed(leaves):
        trace = poutine.trace(model).get_trace(data)
    found = {n: s["fn"].log_prob(s["value"]) for n, s in sampled_sites(trace) if s["is_observed"]}
    assert found.keys() == model.observations.keys()
    sum(value.sum() for value in found.values()).backward()
    found |= {f"d {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found | {f"d {name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def watched(model: lr.LatentRNN) -> list[int]:
    """Steps of whatever a head of a model is asked for; a chunked one is asked for one step first, for its shape."""
    seen: list[int] = []
    for head in model.observations.values():
        if head.head.per_step:
            head.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-2]))
    return seen


@pytest.mark.parametrize("heads", OBSERVATIONS)
def test_densities_and_gradients_are_the_same_in_chunks(heads: str) -> None:
    data = make_data(OBSERVATIONS[heads])
    model, _ = make_model(default_transition(heads), "innovations with initial", heads, data)
    values = fixed_latents(model, data)
    asked = watched(model)
    whole = results(model, data, values)
    once = len(asked)
    for steps in (1, 2):
        model.max_elements = steps * len(data) * min(head.outputs for head in model.observations.values())
        asked.clear()
        again = results(model, data, values)
        assert again.keys() == whole.keys()
        for name, value in whole.items():
            assert torch.allclose(again[name], value, rtol=1e-10, atol=1e-12), name
        assert (len(asked) > once) == (heads not in WHOLE)


def test_particles_go_in_chunks_too() -> None:
    data = make_data(OBSERVATIONS["gaussian priors"])
    model, guide = make_model("gru", "innovations", "gaussian priors", data)
    found, asked = [], watched(model)
    for limit in (None, 3 * 5 * 2 * 2):
        asked.clear()
        model.max_elements = limit
        torch.manual_seed(0)
        found.append(elbo_terms(model, guide, data, num_particles=5).elbo())
    assert torch.allclose(*found, rtol=1e-10)
    assert set(asked) == {1, 2}


def test_a_chunk_is_gone_through_twice_for_a_gradient_and_once_without() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model("gru", "innovations", "poisson", data)
    model.max_elements = 3 * 3 * 2
    asked = watched(model)
    terms = elbo_terms(model, guide, data)
    assert asked == [1, 2, 2, 2]
    terms.elbo().backward()
    assert asked == [1, 2, 2, 2, 2, 2, 2]
    asked.clear()
    with torch.no_grad():
        elbo_terms(model, guide, data)
    assert asked == [1, 2, 2, 2]


def test_what_is_kept_for_the_gradient_does_not_grow_with_the_channels() -> None:
    """Bytes saved between forward and backward, which the whole head has at least one of per count."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.poisson(1.0, (2, 50, 300))})

    def kept(limit: int | None) -> int:
        heads = {"y": lr.Poisson()}
        model = lr.LatentRNN(
            data.spec, transition=lr.GRU(4), latent=lr.Deterministic(), observations=heads, max_elements=limit
        )
        sizes: dict[int, int] = {}

        def note(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            trace = poutine.trace(model).get_trace(data)
            trace.log_prob_sum()
        sizes.pop(data.observations["y"].untyped_storage().data_ptr(), None)
        return sum(sizes.values())

    assert kept(None) > 4 * 2 * 50 * 300
    assert kept(2 * 300) < 4 * 2 * 50 * 300 / 4


def test_the_limit_is_part_of_the_models_description() -> None:
    data = make_data(OBSERVATIONS["poisson"], dtype=torch.float32)
    settings = {"transition": lr.GRU(2), "latent": lr.Deterministic(), "observations": {"y": lr.Poisson()}}
    model = lr.LatentRNN(data.spec, **settings, max_elements=100)
    assert lr.LatentRNN.from_config(model.config(), data.spec).max_elements == 100
    assert "max_elements=100" in repr(model)
    assert "max_elements" not in lr.LatentRNN(data.spec, **settings).config()
    with pytest.raises(ValueError, match="LatentRNN: max_elements must be a positive integer"):
        lr.LatentRNN(data.spec, **settings, max_elements=0)
    free = poutine.uncondition(model)(data)["y"]
    assert free.shape == data.observations["y"].shape


@pytest.mark.parametrize("kind", [lr.RNNEncoder, lr.StepEncoder])
def test_a_read_in_of_wide_heads_is_the_same_in_chunks(kind: Any) -> None:
    data = make_data(OBSERVATIONS["several"])
    model, _ = make_model("gru", "innovations", "several", data)
    parts: list[int] = []

    def note(_: Any, given: tuple[dict[str, Tensor], Any]) -> None:
        parts.append(next(iter(given[0].values())).shape[1])

    found = []
    for limit in (None, 2 * 3 * 4):  # two steps of three sequences of four channels
        model.max_elements = limit
        torch.manual_seed(0)
        guide = lr.Guide(model, encoder=kind([3] if kind is lr.StepEncoder else 3, read_in=2)).double()
        guide.initialise(model, data)
        guide.encoder.reader.register_forward_pre_hook(note)
        numbers = guide.variational_parameters(data)["innovations"]
        numbers.sum().backward()
        found.append([numbers, *(p.grad for p in guide.parameters() if p.grad is not None)])
        with torch.no_grad():
            assert torch.allclose(guide.variational_parameters(data)["innovations"], numbers, rtol=1e-12)
    assert parts == [6, 6] + 3 * [2] + 3 * [2] + 3 * [2]  # backwards again, and without a gradient
    assert len(found[0]) == len(found[1]) > 4
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-13) for a, b in zip(*found, strict=True))


def test_a_check_in_parts_says_where_in_all_of_the_data_it_failed() -> None:
    counts = np.ones((5, 40, 25_000), dtype=np.float32)  # of which four sequences are checked at once
    counts[4, 2, 1] = 0.5
    data = lr.SequenceData.from_arrays({"y": counts})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    with pytest.raises(ValueError, match=r"found 0\.5 at sequence 4, step 2, channel 1"):
        model.check(data)


def test_moments_in_parts_are_those_of_the_whole() -> None:
    values, mask = torch.randn(3, 600_000, 3, dtype=torch.float64), torch.rand(3, 600_000, 3) < 0.7  # two parts
    means, variances = units.channel_moments(values, mask)
    for channel in range(3):
        seen = values[:, :, channel][mask[:, :, channel]]
        assert torch.allclose(means[channel], seen.mean(), rtol=1e-10, atol=1e-12)
        assert torch.allclose(variances[channel], seen.var(correction=0), rtol=1e-10)
