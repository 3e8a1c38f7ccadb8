"""Every prior that a component admits moves the model's density, and every other is refused when a model is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

import latentrnn as lr
from latentrnn.models import assembly
from latentrnn.models.component import Component
from tests.registry import (
    FEATURES,
    LATENTS,
    OBSERVATIONS,
    TRANSITIONS,
    Fixed,
    each_against_defaults,
    fixed_latents,
    make_data,
    normal,
    shake,
)


def with_priors(part: Component) -> Component:
    """The same component with a prior on all that it says may have one."""
    if isinstance(part, lr.Observation):
        given = part.arguments()
        inner = {name: with_priors(given[name]) for name in ("readout", "gain") if given[name] is not None}
        own = given["readout"] is None and part.reads is None
        return type(part)(
            **given | inner | ({"priors": dict.fromkeys(("weight", "baseline"), normal())} if own else {})
        )
    if not part.interpretable:
        return part
    return type(part)(**part.arguments() | {"priors": dict.fromkeys(part.interpretable, normal())})


def build(parts: tuple[str, str, str], heads: dict[str, lr.Observation]) -> tuple[lr.LatentRNN, lr.SequenceData]:
    data = make_data(OBSERVATIONS[parts[2]])
    model = lr.LatentRNN(
        data.spec,
        transition=TRANSITIONS[parts[0]](),
        latent=LATENTS[parts[1]](),
        observations=heads,
        inputs=OBSERVATIONS[parts[2]].inputs(),
    ).to(data.dtype)
    shake(model)
    return model, data


def density_of_the_data(model: lr.LatentRNN, data: lr.SequenceData, values: dict[str, Tensor]) -> float:
    with Fixed(values), torch.no_grad():
        nodes = poutine.trace(model).get_trace(data).nodes
        return sum(float(nodes[name]["fn"].log_prob(nodes[name]["value"]).sum()) for name in model.observations)


def sites_that_do_nothing(model: lr.LatentRNN, data: lr.SequenceData) -> list[str]:
    """The parameters that are sites, but whose values make no difference to the data's density."""
    values = fixed_latents(model, data)
    before = density_of_the_data(model, data, values)
    found = []
    for name in model.parameter_sites():
        if name.split(".")[0] in model.populations:
            continue  # its members' prior, not the data's density
        moved = density_of_the_data(model, data, values | {name: values[name] * torch.rand_like(values[name])})
        if moved == before:
            found.append(name)
    return found


@pytest.mark.parametrize("parts", each_against_defaults(), ids="-".join)
def test_every_prior_that_is_admitted_counts(parts: tuple[str, str, str]) -> None:
    torch.manual_seed(0)
    heads = {name: with_priors(head) for name, head in OBSERVATIONS[parts[2]].observations().items()}
    model, data = build(parts, heads)
    expected = sum(len(head.prior_sites()) for head in model.observations.values())
    assert len(model.parameter_sites()) == expected
    assert sites_that_do_nothing(model, data) == []
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, mask_input=True)).to(data.dtype)
    lr.elbo_terms(model, guide, data).elbo().backward()
    if expected:
        assert guide.parameter_sites is not None
        for name, parameter in guide.parameter_sites.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


class Scaled(lr.Feature):
    """A feature with a prior of its own."""

    interpretable = ("log_scale",)

    def __init__(self, covariate: str, priors: Any = None) -> None:
        super().__init__()
        self.covariate, self.priors = covariate, priors

    def build(self, owner: str, spec: lr.DataSpec) -> None:
        self.size = 1
        self.add_parameter("log_scale", torch.zeros(1), self.priors)

    def forward(self, data: lr.SequenceData) -> Tensor:
        return torch.tanh(self.log_scale.exp() * data.covariates[self.covariate])


def test_a_site_that_does_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: let through, the prior on a head's feature has a site whose draws are not used."""
    heads = lambda: {"y": lr.Poisson(covariates=[Scaled("drive", {"log_scale": normal()})])}  # noqa: E731
    with pytest.raises(ValueError, match=r"observations\['y'\]: Scaled was given a prior on 'log_scale', which would"):
        build(("gru", "innovations", "poisson"), heads())
    monkeypatch.setattr(assembly, "refuse_ignored_priors", lambda *_, **__: None)
    model, data = build(("gru", "innovations", "poisson"), heads())
    assert sites_that_do_nothing(model, data) == ["y.reader.parts.0.log_scale"]


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
    **{
        f"transition {name}": lambda p, make=make: {"transition": extended(make(), p)}
        for name, make in TRANSITIONS.items()
        if "streams" not in name and "given" not in name
    },
    "a stream": lambda p: {"transition": lr.Streams({"one": extended(lr.GRU(2), p), "two": lr.GRU(2)})},
    **{f"latent {name}": lambda p, make=make: {"latent": extended(make(), p)} for name, make in LATENTS.items()},
    **{f"feature {name}": lambda p, make=make: {"inputs": [extended(make(), p)]} for name, make in FEATURES.items()},
    "feature of a head": lambda p: {"observations": {"y": lr.Gaussian(covariates=[extended(lr.Lags("drive", 2), p)])}},
    "feature of a readout": lambda p: {
        "observations": {"y": lr.Gaussian(readout=lr.ModulatedAttention([extended(lr.Lags("drive", 2), p)], 2))}
    },
    "history": lambda p: {"observations": {"y": lr.Gaussian(feedback=extended(lr.History(2, 1), p))}},
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
        ValueError, match=r"Own\w+ was given a prior on 'extra', which would be ignored: .*StimulusGain"
    ):
        build_with(**PLACES[place]({"extra": normal()}))


class Leak(lr.Transition):
    """A transition that hands its priors on under the documented name."""

    interpretable = ("log_tau",)

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
    with pytest.raises(ValueError, match=r"LatentRNN: transition: Leak was given a prior on 'log_tau', which would be"):
        build_with(transition=Leak(2, {"log_tau": normal()}))
    with pytest.raises(TypeError, match="Leak: priors must be priors by parameter name; found 'log_tau'"):
        build_with(transition=Leak(2, "log_tau"))
    model, _ = build_with(observations={"y": lr.Gaussian(readout=OwnReadout({"baseline": normal()}))})
    assert list(model.parameter_sites()) == ["y.readout.baseline"]
    with pytest.raises(
        ValueError, match=r"OwnReadout was given a prior on 'basline'.*there is no parameter of that name"
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
