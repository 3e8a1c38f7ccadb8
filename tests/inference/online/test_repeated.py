"""Steps online that are repeated without Python say what the filter says, to the bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.online.repeated import COMPARED, KINDS, RepeatedStep, repeatable
from tests.inference.online.streamed import STREAMED, setting, steps_of
from tests.registry import LATENTS, TRANSITIONS

READ = ("binary words", "binary words, driven", "binary words history")  # whose families look at values
STEPS = 26  # enough for the steps of every phase of a slow head to be recorded, compared and repeated


Told = list[dict[str, Any]]


def streamed(
    observation: str,
    latent: str,
    transition: str | None = None,
    num_particles: int | None = None,
    proposal: str = "guide",
) -> tuple[lr.OnlineFilter, lr.OnlineFilter, Told]:
    """Two filters, of the guide alone if there are no particles, of which one repeats nothing, and a recording."""
    model, guide, data = setting(observation, latent, transition, steps=STEPS)
    source = lr.Posterior(model, guide, data)
    filters = [lr.OnlineFilter(source, num_particles=num_particles, proposal=proposal) for _ in "ab"]
    filters[1].way.repeated = RepeatedStep(repeats=False)
    return filters[0], filters[1], steps_of(data)


def agree(found: lr.FilteredState, expected: lr.FilteredState, tolerance: float = 0.0) -> None:
    for name in ("values", "states", "weights", "spread"):
        own, other = getattr(found, name), getattr(expected, name)
        assert (own is None) == (other is None), name
        if own is not None:
            torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance)
    assert found.rates.keys() == expected.rates.keys()
    for name, rate in found.rates.items():
        # products of a few numbers round by where these lie in memory, on some processors
        torch.testing.assert_close(rate, expected.rates[name], rtol=tolerance or 1e-14, atol=tolerance or 1e-15)
    assert found.step == expected.step


def hold(observation: str, latent: str, transition: str | None = None) -> None:
    repeating, plain, told = streamed(observation, latent, transition)
    for step in told:
        agree(repeating.update(**step), plain.update(**step))
    assert not plain.way.repeated._programs
    own = repeatable(repeating.model, repeating.guide) and observation not in READ
    assert bool(repeating.way.repeated._programs) == own


@pytest.mark.parametrize("observation", STREAMED)
def test_heads(observation: str) -> None:
    hold(observation, "innovations with initial")


def same(own: Any, other: Any) -> None:
    torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12, equal_nan=True)


def hold_with_particles(observation: str, latent: str, proposal: str) -> None:
    """What is known after a step, its predictions, which are asked for at the end, and the random numbers."""
    repeating, plain, told = streamed(observation, latent, None, 12, proposal)
    found = []
    for step in told:
        found.append((repeating.update(**step), plain.update(**step)))
        agree(*found[-1], tolerance=1e-12)  # rounded by where numbers lie in memory
        assert torch.equal(repeating.memory.generator, plain.memory.generator)
    for own, other in found:
        assert own.log_prob == pytest.approx(other.log_prob, abs=1e-9)
        assert own.effective_sample_size == pytest.approx(other.effective_sample_size)
        assert list(own.predictions) == list(other.predictions) == list(own.predicted)
        for name in own.predicted:
            same(own.predicted[name], other.predicted[name])
            same(own.pit(name), other.pit(name))
            same(own.log_density(name), other.log_density(name))
    assert not plain.way.repeated._programs
    values = torch.stack([state.states for state, _ in found])
    assert len(values.unique(dim=0)) == len(values)  # negative control: every step draws anew


@pytest.mark.parametrize("observation", STREAMED)
def test_particles_of_heads(observation: str) -> None:
    hold_with_particles(observation, "innovations with initial", "prior")


@pytest.mark.parametrize("latent", ["innovations", "innovations ar1", "markov normal", "recurrent normal"])
@pytest.mark.parametrize("proposal", ["prior", "guide"])
def test_particles_of_latents(latent: str, proposal: str) -> None:
    hold_with_particles("poisson", latent, proposal)


def test_particles_are_repeated() -> None:
    for proposal in ("prior", "guide"):
        repeating, _, told = streamed("poisson", "innovations", None, 12, proposal)
        for step in told:
            repeating.update(**step)
        assert repeating.way.repeated._programs


@pytest.mark.parametrize("latent", [name for name in LATENTS if "linear" not in name])
def test_latents(latent: str) -> None:
    try:
        streamed("poisson", latent)
    except ValueError as refused:
        pytest.skip(f"not followed by the guide alone: {refused}")
    hold("poisson", latent)


@pytest.mark.parametrize("transition", [name for name in TRANSITIONS if name != "switching given"])
def test_transitions(transition: str) -> None:
    hold("poisson", "innovations", transition)


def test_draws_of_parameters_and_missing_entries() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (3, 40, 2)).astype(float)
    data = lr.SequenceData.from_arrays({"y": counts})
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(2), observations={"y": head})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4, direction="causal", mask_input=True), family=lr.MeanField())
    source = lr.Posterior(model, guide, data)
    options = {"num_particles": None, "proposal": "guide", "num_draws": 5}
    repeating, plain = (lr.OnlineFilter(source, **options) for _ in "ab")
    plain.way.repeated = RepeatedStep(repeats=False)
    for t, row in enumerate(counts[0]):
        shown = None if t % 7 == 3 else np.where(rng.random(2) < 0.3, np.nan, row)
        agree(repeating.update(shown), plain.update(shown))
    assert repeating.way.repeated._programs


def test_off_and_on_again_and_copies(tmp_path: Path) -> None:
    repeating, plain, told = streamed("poisson", "innovations")
    for step in told[:12]:
        repeating.update(**step), plain.update(**step)
    copied = copy.deepcopy(repeating)
    assert not copied.way.repeated._programs  # they are of other places in memory
    repeating.save(tmp_path / "state.safetensors")
    for step in told[12:18]:
        repeating.update(**step)
    repeating.load(tmp_path / "state.safetensors")
    for step in told[12:]:
        expected = plain.update(**step)
        agree(repeating.update(**step), expected)
        agree(copied.update(**step), expected)


def test_what_a_state_holds_may_be_written_into() -> None:
    repeating, plain, told = streamed("poisson", "innovations")
    for step in told:
        found = repeating.update(**step)
        agree(found, plain.update(**step))
        with torch.inference_mode():
            for value in (found.weights, *found.rates.values()):
                value.fill_(torch.nan)


class Counting(lr.Transition):
    """h_t = h_{t-1} / 2 + a_t, which counts how often it is called."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = self.state_size = 2

    def build(self, input_size: int) -> None:
        self.weight = torch.nn.Parameter(torch.ones(2, input_size))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        Counting.calls += 1
        return 0.5 * state + inputs @ self.weight.mT


def test_a_users_own_step_is_called_every_time() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 5, 1))})
    model = lr.LatentRNN(data.spec, transition=Counting(), latent=lr.Innovations(2), observations={"y": lr.Poisson()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4, direction="causal"))
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=None, proposal="guide")
    before = Counting.calls
    for _ in range(20):
        online.update([1.0])
    assert Counting.calls == before + 20


def test_hooked_modules_are_called_every_time() -> None:
    layer = torch.nn.Linear(2, 2)
    assert repeatable(layer)
    layer.register_forward_hook(lambda *_: None)
    assert not repeatable(layer)


def test_operations_that_do_not_agree_or_cannot_be_recorded_are_not_repeated() -> None:
    hidden = {"offset": 0.0}

    def leaves_torch(x: Tensor) -> Tensor:
        hidden["offset"] += 1.0
        return x + hidden["offset"]

    def branches(x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x

    generator = torch.Generator().manual_seed(0)

    def draws_elsewhere(x: Tensor) -> Tensor:
        return x + torch.rand(1, generator=generator)

    for function in (leaves_torch, branches, draws_elsewhere):
        repeated = RepeatedStep(repeats=True)
        hidden["offset"] = 0.0
        for call in range(3 * COMPARED):
            x = torch.tensor([float((-1) ** call)])
            repeated("kind", function, [x])
        assert not repeated._programs
    plain = RepeatedStep(repeats=True)
    for kind in range(2 * KINDS):
        for _ in range(COMPARED + 3):
            assert float(plain(kind, lambda x: 2 * x, [torch.ones(1)])) == 2.0
    assert len(plain._programs) == KINDS
