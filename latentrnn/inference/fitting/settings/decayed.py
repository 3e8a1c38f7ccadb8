"""Which weights decay: those of networks, never a number that means something by itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from latentrnn.inference.guides.guide import Guide
from latentrnn.models.component import Component
from latentrnn.models.readouts import FactorReadout, LinearReadout
from latentrnn.models.state_space import LatentRNN
from latentrnn.models.transitions import Transition

LAYERS = (nn.Linear, nn.RNNBase, nn.modules.conv._ConvNd)


def network_weights(model: LatentRNN, guide: Guide) -> list[nn.Parameter]:
    """Return the weight matrices of the networks of a model and its guide, in order.

    These are those of torch's layers and those that a component names (`Component.network_weights`). Under a transition
    that is no network, the loadings that states have in linear readouts, and the map that they start by, are none
    either.
    """
    spared: set[int] = set()
    if not is_network(model.transition):
        loadings = [part for part in model.modules() if isinstance(part, LinearReadout | FactorReadout)]
        spared = {id(p) for part in (model.latent, *loadings) for p in part.parameters()}
    return [weight for weight in (*_of(model), *_of(guide)) if id(weight) not in spared]


def is_network(transition: Transition) -> bool:
    """Return whether there is a network in a transition."""
    return bool(_of(transition))


def in_order(parameters: Sequence[nn.Parameter], guide: Guide) -> list[nn.Parameter]:
    """Return parameters in the order in which checkpoints number their moments: matrices of no posterior come first."""
    posteriors = set[int]() if guide.parameter_sites is None else {id(p) for p in guide.parameter_sites.parameters()}
    return sorted(parameters, key=lambda p: p.dim() <= 1 or id(p) in posteriors)


def _of(module: nn.Module) -> list[nn.Parameter]:
    if isinstance(module, Component) and not module.is_network:
        return []
    own = list(module.named_parameters(recurse=False))
    if isinstance(module, LAYERS):
        found = [tensor for name, tensor in own if name.startswith("weight") and tensor.dim() > 1]
    else:
        names = module.network_weights if isinstance(module, Component) else ()
        found = [tensor for name, tensor in own if name in names]
    return found + [weight for child in module.children() for weight in _of(child)]
