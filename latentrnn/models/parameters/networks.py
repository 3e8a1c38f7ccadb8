"""Priors by the name of all weights of a part: of which tensors they are, and where their scales start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
from torch import Tensor

from latentrnn.models.component import tensor_at
from latentrnn.models.parameters.network_prior import WEIGHTS, NetworkGroup, NetworkPrior, WeightPrior, weights_of
from latentrnn.models.parameters.parameter import Parameter, Sampled
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.readouts import Readout
from latentrnn.models.transitions import Transition


def spread_over_networks(weights: Parameter) -> dict[str, NetworkGroup]:
    """Put the priors of a component that are given by the name of all its weights on each, and return the networks.

    Args:
        weights: of the component, all of its weights together.

    Raises:
        ValueError: such a prior of a component that is neither a transition nor a readout, or has no weights that
            nothing else is said of.
    """
    part = weights.of
    specs, given, found = part.parameter_specs(), part.own_priors(), dict[str, NetworkGroup]()
    spoken_for = {specs[name].raw for name in given | part.own_fixed() if name in specs}
    for name, prior in given.items():
        parameter, is_network = weights._replace(name=name), isinstance(prior, NetworkPrior)
        if not isinstance(part, Transition | Readout):
            _refuse_elsewhere(parameter, prior)
        elif is_network or (name == WEIGHTS and name not in specs):
            members = _members(name, specs, spoken_for)
            if not members:
                raise ValueError(_no_weights(parameter, specs))
            shares: Mapping[str, object] = dict.fromkeys(members, prior)
            if isinstance(prior, NetworkPrior):
                tensors = {own: (specs[own], tensor_at(part, specs[own].raw)) for own in members}
                found[parameter.site] = group = NetworkGroup(parameter.site, prior, tensors)
                shares = group.members
            part.spread_prior(name, shares)
    return found


def starting_scales(
    networks: Mapping[str, NetworkGroup], sampled: Sequence[Sampled]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, tuple[dist.Distribution, Tensor]]]:
    """Return the scales of networks as their weights are now, by site of the network, and those of them that are sites.

    Args:
        networks: by site.
        sampled: all parameters with priors.
    """
    standard: dict[str, dict[str, Tensor]] = {}
    for each in sampled:
        if isinstance(each.prior, WeightPrior):
            standard.setdefault(each.prior.group, {})[each.parameter.name] = each.standard()
    scales: dict[str, dict[str, Tensor]] = {}
    sites: dict[str, tuple[dist.Distribution, Tensor]] = {}
    for name, group in networks.items():
        scales[name] = group.start(standard[name])
        priors = group.priors(next(iter(standard[name].values())))
        sites |= {group.site_of(part): (prior, scales[name][part]) for part, prior in priors.items()}
    return scales, sites


def _members(name: str, specs: Mapping[str, ParameterSpec], spoken_for: set[str]) -> list[str]:
    """Return the parameters that a prior of this name is of."""
    if name == WEIGHTS:
        return weights_of(specs, spoken_for - {specs[name].raw} if name in specs else spoken_for)
    return [own for own in weights_of(specs, set()) if own == name]


def _refuse_elsewhere(parameter: Parameter, prior: object) -> None:
    if isinstance(prior, NetworkPrior):
        raise ValueError(
            f"{parameter.said}: priors[{parameter.name!r}]: a NetworkPrior is of the weights of a transition or a "
            "readout; give numbers of this part a distribution"
        )


def _no_weights(parameter: Parameter, specs: Mapping[str, ParameterSpec]) -> str:
    said = f"{parameter.said}: priors[{parameter.name!r}]"
    if parameter.name in specs:
        return f"{said}: a NetworkPrior is of weights and biases, which this is not; give it a distribution"
    if parameter.name != WEIGHTS:
        return f"{said}: no such parameter; expected {WEIGHTS!r}, for all weights, or one of {weights_of(specs, set())}"
    if weights_of(specs, set()):
        return f"{said}: all weights have priors or known values of their own; leave it out"
    inner = [path for path, part in parameter.of.named_modules() if path and isinstance(part, Transition | Readout)]
    return f"{said}: it has no weights of its own" + (f"; give it to the parts within, {inner}" if inner else "")
