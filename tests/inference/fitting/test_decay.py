"""Which weights decay, how batches go by the number of sequences, and in which order moments are numbered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import latentrnn as lr
from latentrnn.inference.fitting.snapshots import in_order, put_back, take_snapshot

ENCODER = {"encoder.forwards.weight_ih_l0", "encoder.forwards.weight_hh_l0"}
GIVEN: dict[str, Any] = {"compute": lr.Compute("cpu"), "reporting": lr.Reporting(progress=False)}


def make_data(sequences: int = 6) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    return lr.SequenceData.from_arrays(
        {"y": rng.poisson(1.0, (sequences, 5, 3)).astype(float)}, {"u": rng.normal(size=(sequences, 5, 1))}, dt=0.01
    )


def parts(
    data: lr.SequenceData, transition: lr.Transition, latent: lr.Latent, head: lr.Observation, family: Any = None
) -> tuple[lr.LatentRNN, lr.Guide]:
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": head})
    return model, lr.Guide(model, encoder=lr.RNNEncoder(2, direction="causal"), family=family)


READOUT, HEAD = "observations.y.readout.weight", "local.heads.innovations.map.weight"
START = "local.heads.initial.map.weight"
CASES: dict[str, tuple[Callable[[], tuple[Any, ...]], set[str]]] = {
    "network": (
        lambda: (lr.GRU(2, layers=2, layer_norm=True), lr.Innovations(1, initial=1), lr.Poisson()),
        {f"transition.kernel.weight_{way}_l{layer}" for way in ("ih", "hh") for layer in (0, 1)}
        | {"latent.start.map.weight", READOUT, HEAD, START},
    ),
    "gain, history, covariates": (
        lambda: (
            lr.GRU(2),
            lr.Innovations(1),
            lr.Poisson(gain=lr.StimulusGain("u"), feedback=lr.History(2, filters=1), covariates=["u"]),
        ),
        {"transition.kernel.weight_ih_l0", "transition.kernel.weight_hh_l0", READOUT, HEAD},
    ),
    "user's own": (lambda: (Own(2), lr.Innovations(1), lr.Poisson()), {"transition.deep", READOUT, HEAD}),
    "linear": (lambda: (lr.Linear(2), lr.Innovations(1, initial=1), lr.Poisson()), {HEAD, START}),
    "leaky, factors": (
        lambda: (lr.LeakyIntegrator(2), lr.Innovations(1), lr.Poisson(readout=lr.FactorReadout(1))),
        {HEAD},
    ),
    "switching": (lambda: (lr.SwitchingLinear(2, 2), lr.Innovations(1), lr.Poisson()), {HEAD}),
    "diagonal, deep readout": (
        lambda: (lr.DiagonalLinear(2), lr.Innovations(1), lr.Poisson(readout=lr.MLPReadout(2))),
        {"observations.y.readout.hidden.0.weight", READOUT, HEAD},
    ),
    "fading network": (
        lambda: (lr.Decay(lr.GRU(2)), lr.Innovations(1), lr.Poisson()),
        {"transition.transition.kernel.weight_ih_l0", "transition.transition.kernel.weight_hh_l0", READOUT, HEAD},
    ),
    "numbers of every sequence": (
        lambda: (lr.Linear(2), lr.Innovations(1), lr.Poisson(), lr.PerSequence(lr.MeanField())),
        {"local.base.heads.innovations.map.weight"},
    ),
}  # fmt: skip


class Own(lr.Transition):
    """A network of a user's own, with one weight that means something."""

    network_weights = ("deep",)

    def __init__(self, hidden_size: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = hidden_size

    def build(self, input_size: int) -> None:
        self.deep = nn.Parameter(torch.full((self.hidden_size, self.hidden_size), 0.3))
        self.known = nn.Parameter(torch.ones(self.hidden_size, input_size))

    def step(self, state: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return torch.tanh(state @ self.deep.mT + inputs @ self.known.mT)


def named(model: nn.Module, guide: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(guide.named_parameters())


@pytest.mark.parametrize("kind", list(CASES))
def test_weights_of_networks_decay_and_nothing_else(kind: str) -> None:
    make, expected = CASES[kind]
    data = make_data()
    model, guide = parts(data, *make())
    found = [
        lr.fit(model, guide, data, steps=1, optimizer=lr.AdamW(0.01, decay, schedule=lr.Constant()), **GIVEN)
        for decay in (0.0, 5.0)
    ]
    free, decayed = (named(result.model, result.guide) for result in found)
    moved = {name for name, value in free.items() if not torch.equal(value, decayed[name])}
    assert moved == expected | ENCODER


def test_plain_adam_decays_nothing() -> None:
    data = make_data()
    model, guide = parts(data, lr.GRU(2), lr.Innovations(1), lr.Poisson())
    found = [lr.fit(model, guide, data, steps=1, optimizer=o, **GIVEN) for o in (lr.Adam(), lr.AdamW(weight_decay=0))]
    for one, other in zip(*(named(result.model, result.guide).values() for result in found), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("sequences", "transition", "expected"),
    [(6, "GRU", 16), (40, "GRU", 16), (100, "GRU", 25), (400, "GRU", 64), (40, "Linear", 64), (400, "Linear", 64)],
)
def test_batches_by_the_number_of_sequences(sequences: int, transition: str, expected: int) -> None:
    data = make_data(sequences)
    model, guide = parts(data, getattr(lr, transition)(2), lr.Innovations(1), lr.Poisson())
    assert lr.fit(model, guide, data, steps=1, **GIVEN).settings["batch_size"] == expected
    assert lr.fit(model, guide, data, steps=1, batch_size=7, **GIVEN).settings["batch_size"] == 7
    ensemble = lr.fit_ensemble(model, guide, data, seeds=[0, 1], vectorised=True, steps=1, **GIVEN)
    assert ensemble.members[0].settings["batch_size"] == expected


def test_moments_are_numbered_as_they_always_were() -> None:
    """By matrices of no posterior first, whatever decays, so that older checkpoints mean the same."""
    data = make_data()
    gain = lr.StimulusGain("u", priors={"beta": torch.distributions.Normal(0.0, 1.0)})
    model, guide = parts(data, lr.Linear(2), lr.Innovations(1), lr.Poisson(gain=gain))
    parameters = [*model.parameters(), *guide.parameters()]
    optimizer = lr.AdamW(0.01).build_for(model, guide)
    order = in_order(optimizer)
    assert guide.parameter_sites is not None
    posteriors = {id(p) for p in guide.parameter_sites.parameters()}
    first = [p for p in parameters if p.dim() > 1 and id(p) not in posteriors]
    rest = [p for p in parameters if p.dim() <= 1 or id(p) in posteriors]
    assert any(id(p) in posteriors and p.dim() > 1 for p in rest)
    assert [id(p) for p in order] == [id(p) for p in (*first, *rest)]

    for number, parameter in enumerate(order):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    optimizer.step()
    snapshot = take_snapshot(0, model, guide, optimizer, [])
    for number, parameter in enumerate(order):
        moment = snapshot.tensors[f"optimiser/{number}/exp_avg"]
        assert torch.allclose(moment, torch.full_like(parameter, 0.1 * (number + 1)))
    optimizer.step()
    put_back(snapshot, model, guide, optimizer, [])
    for parameter, number in zip(order, range(len(order)), strict=True):
        assert torch.equal(optimizer.state[parameter]["exp_avg"], snapshot.tensors[f"optimiser/{number}/exp_avg"])
