"""Every prior moves the density and reaches the guide; what cannot have one, and every mistake, is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

import latentrnn as lr
from latentrnn.models.parameters.parameter import Sampled
from tests.models.priors_everywhere import sites_that_do_nothing
from tests.registry import OBSERVATIONS, make_data, normal


def test_a_site_that_does_nothing_is_noticed() -> None:
    """The negative control: a parameter of a head that its density does not ask for."""

    class Idle(lr.Poisson):
        def build_family(self, head: Any) -> None:
            self.idle = torch.nn.Parameter(torch.zeros(()))

    data = make_data(OBSERVATIONS["poisson"])
    heads = {"y": Idle(priors={"idle": normal(), "baseline": normal()})}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(2), observations=heads).to(data.dtype)
    assert sites_that_do_nothing(model, data) == ["y.idle"]


def extended(part: Any, priors: Any) -> Any:
    """The same component as a user would extend it: with one parameter more, which has a prior."""

    def build(self: Any, *arguments: Any, **options: Any) -> None:
        type(part).build(self, *arguments, **options)
        self.add_parameter("extra", torch.zeros(1), priors)

    return type(f"Own{type(part).__name__}", (type(part),), {"build": build})(**part.arguments())


def build_with(**parts: Any) -> tuple[lr.LatentRNN, lr.Guide]:
    data = make_data(OBSERVATIONS["features"])
    family = parts.pop("family", lr.MeanField())
    encoder = parts.pop("encoder", lr.RNNEncoder(3))
    arguments = {"transition": lr.GRU(4), "latent": lr.Innovations(2), "observations": {"y": lr.Gaussian()}} | parts
    model = lr.LatentRNN(data.spec, **arguments)
    return model, lr.Guide(model, encoder=encoder, family=family)


PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "encoder": lambda p: {"encoder": extended(lr.RNNEncoder(3), p)},
    "step encoder": lambda p: {"encoder": extended(lr.StepEncoder(), p)},
    "mean field": lambda p: {"family": extended(lr.MeanField(), p)},
    "markov": lambda p: {"family": extended(lr.Markov(3), p)},
    "gaussian chain": lambda p: {"family": extended(lr.GaussianChain(), p)},
    "below a flow": lambda p: {"family": lr.Flow(extended(lr.MeanField(), p), 1, 3)},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_prior_that_would_be_ignored_is_refused(place: str) -> None:
    build_with(**PLACES[place](None))  # the control: without the prior it is a parameter like any other
    with pytest.raises(
        ValueError, match=r"Own\w+ was given a prior or a known value of 'extra', which would be ignored"
    ):
        build_with(**PLACES[place]({"extra": normal()}))


class Leak(lr.Transition):
    """A transition that hands its priors on under the documented name."""

    def __init__(self, hidden_size: int, priors: Any = None) -> None:
        super().__init__()
        self.hidden_size = self.state_size = hidden_size
        self.priors = priors

    def build(self, input_size: int) -> None:
        self.add_parameter("log_tau", torch.zeros(self.hidden_size), self.priors)
        self.weight = torch.nn.Parameter(torch.ones(self.hidden_size, input_size))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        return torch.exp(-1 / self.log_tau.exp()) * state + inputs @ self.weight.T


class OwnReadout(lr.Readout):
    """A readout of the user's own that forgets what it was given under another name."""

    def __init__(self, priors: Any = None) -> None:
        super().__init__()
        self.priors = priors

    def build(self, hidden_size: int, outputs: int, spec: lr.DataSpec) -> None:
        self.add_parameter("baseline", torch.zeros(outputs), self.priors)

    def forward(self, states: Tensor, surroundings: Any = None) -> Tensor:
        return states[..., :1] + self.baseline.unsqueeze(-2)


def test_other_mistakes_with_priors_are_named() -> None:
    model, _ = build_with(transition=Leak(2))
    assert isinstance(model.transition.log_tau, torch.nn.Parameter)
    model, _ = build_with(transition=Leak(2, {"log_tau": normal()}))
    assert list(model.parameter_sites()) == ["transition.log_tau"]
    with pytest.raises(TypeError, match="Leak: priors must be a dict of priors by parameter; found 'log_tau'"):
        build_with(transition=Leak(2, "log_tau"))
    model, _ = build_with(observations={"y": lr.Gaussian(readout=OwnReadout({"baseline": normal()}))})
    assert list(model.parameter_sites()) == ["y.readout.baseline"]
    with pytest.raises(
        ValueError, match=r"OwnReadout: no prior can be put on 'basline'; expected one of \['baseline'\]"
    ):
        build_with(observations={"y": lr.Gaussian(readout=OwnReadout({"basline": normal()}))})
    for prior in (dist.Poisson(1.0), dist.Delta(torch.tensor(1.0)), 3.0):
        with pytest.raises(TypeError, match=r"priors\['baseline'\] must be a distribution"):
            build_with(observations={"y": lr.Gaussian(readout=OwnReadout({"baseline": prior}))})


def test_torchs_own_distributions_are_taken_for_pyros() -> None:
    prior = torch.distributions.Normal(0.5, 2.0)
    model, _ = build_with(observations={"y": lr.Gaussian(priors={"baseline": prior})})
    ((law, start),) = model.parameter_sites().values()
    assert law.log_prob(start).shape == ()
    assert model.config()["observations"]["y"]["arguments"]["priors"]["baseline"]["distribution"] == "Normal"


def test_priors_that_depend_on_no_draw_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every step of a fit; anew where a model has moved, and under `vmap`, whose tensors end with it."""
    data = lr.SequenceData.from_arrays({"y": np.zeros((3, 4, 2))})
    priors = {"scale": dist.LogNormal(0.0, 1.0), "baseline": lr.Population("level")}
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": lr.Gaussian(priors=priors)}
    )
    made: list[torch.dtype] = []
    build = Sampled.distribution

    def counted(self: Sampled, like: Tensor, shared: Any) -> Any:
        made.extend([like.dtype] if self.parameter.name == "scale" else [])
        return build(self, like, shared)

    monkeypatch.setattr(Sampled, "distribution", counted)

    def prior_of(model: lr.LatentRNN, data: lr.SequenceData) -> Any:
        values = {name: start for name, (_, start) in model.parameter_sites().items()}
        made.clear()
        return poutine.trace(poutine.condition(model, values)).get_trace(data).nodes["y.scale"]["fn"]

    with torch.inference_mode():
        prior_of(model, data)
    assert made == [torch.float32]
    first = prior_of(model, data)
    assert made == []
    value = torch.ones(2, requires_grad=True)
    first.log_prob(value).backward()  # what was made in inference mode is of no harm afterwards
    assert value.grad is not None
    torch.vmap(lambda scale: prior_of(model, data).log_prob(scale))(torch.ones(3, 2))
    assert made == [torch.float32]
    assert prior_of(model, data) is first
    wide = prior_of(copy.deepcopy(model).double(), data.to("cpu", torch.float64))
    assert made == [torch.float64]
    assert wide.log_prob(torch.ones(2, dtype=torch.float64)).dtype == torch.float64
    assert prior_of(model, data) is first
