"""Draws of the parameters with priors that an online filter carries along, weighed by what each of them expected."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyro
import torch
from torch import Tensor

from latentrnn.inference.guides.guide import Guide
from latentrnn.models.state_space import LatentRNN

Draws = Mapping[str, Tensor]  # of every parameter with a prior, by site, (draw, *shape)


def draw_parameters(model: LatentRNN, guide: Guide, number: int) -> Draws:
    """Return draws from a guide, from torch's generators as they are; none where no parameter has a prior."""
    names = list(model.parameter_sites())
    if guide.parameter_sites is None or not names:
        return {}
    with torch.no_grad(), pyro.plate("draws", number, dim=-2):
        values = guide.parameter_sites()
    return {name: values[name].detach().squeeze(1).contiguous() for name in names}


def with_draws(model: LatentRNN, draws: Draws) -> LatentRNN:
    """Return a model under all draws at once, on the first of the axes (draw, particle, stream)."""
    return model.with_parameters({name: value[:, None, None] for name, value in draws.items()})


def normalised(log_weights: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the mass of weights along an axis, nats, and them with a mass of one; equal ones where none has any."""
    mass = torch.logsumexp(log_weights, dim, keepdim=True)
    alive = mass.isfinite()
    equal = -math.log(log_weights.shape[dim])
    return mass, torch.where(alive, log_weights - torch.where(alive, mass, 0.0), equal)


def weighed(log_weights: Tensor, log_densities: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(y_t | y_{<t}) of a mixture of draws, nats, (stream,), and their log-weights given y_t too.

    Args:
        log_weights: given y_{<t}, (draw, 1, stream), with a mass of one.
        log_densities: log p(y_t | y_{<t}) under each of them, nats, in the same shape.
    """
    # under a draw that is ruled out states may have grown beyond what numbers hold, and with them the density
    joint = torch.where(log_weights.isneginf(), log_weights, log_weights + log_densities)
    mass, found = normalised(joint, 0)
    return mass.flatten(), found


def check_draws(state: Mapping[str, Tensor], draws: Draws) -> None:
    """Raise a ValueError unless a state was reached with these very draws; `state` holds its own by the same names."""
    for name, value in draws.items():
        if not torch.equal(state[name].to(value), value):
            raise ValueError(
                f"OnlineFilter: the state was reached with other draws of {name!r}; make the filter that goes on from "
                "it of the same fit, with the same num_draws and seed"
            )
