"""Posteriors of transitions with planted weights: what gates and Jacobians are is known beforehand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import latentrnn as lr
from tests.interpret.small import posterior_of


def quiet(steps: int = 70, sequences: int = 1, dt: float | None = 0.01) -> lr.SequenceData:
    """Recordings without covariates, in which nothing happens."""
    spikes = [np.ones((steps, 1))] * sequences
    return lr.SequenceData.from_arrays({"spikes": spikes}, {"x": [np.zeros((steps, 1))] * sequences}, dt=dt)


def orthogonal(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double())[0]


def planted(transition: lr.Transition, data: lr.SequenceData, **weights: Tensor | float) -> lr.Posterior:
    """A posterior of a model without a latent that starts from zero, whose transition has these weights, by path."""
    posterior = posterior_of(transition, lr.Deterministic(fixed={"initial_state": 0.0}), data)
    with torch.no_grad():
        for parameter in posterior.model.transition.parameters():
            parameter.zero_()
        for path, value in weights.items():
            owner = posterior.model.transition
            *parts, last = path.split(".")
            for part in parts:
                owner = getattr(owner, part)
            getattr(owner, last).copy_(torch.as_tensor(value).double())
    return posterior


def lstm(units: int, data: lr.SequenceData, *, forget: float, other: float = 0.5) -> lr.Posterior:
    """An LSTM whose gates read nothing: forget gates are `forget`, the others `other`, and nothing comes in."""
    logit = np.log(np.array([other, forget, 0.5, other]) / (1 - np.array([other, forget, 0.5, other])))
    bias = torch.tensor(np.repeat(logit, units))
    return planted(lr.LSTM(units), data, **{"kernel.bias_ih_l0": bias})


def vanilla(units: int, data: lr.SequenceData, *, radius: float) -> lr.Posterior:
    """A vanilla RNN at rest, whose recurrent weights turn the state and shrink it by `radius` a step."""
    return planted(lr.VanillaRNN(units), data, **{"kernel.weight_hh_l0": radius * orthogonal(units)})
