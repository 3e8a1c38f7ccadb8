"""One step of a stream whose state is linear and Gaussian: the Kalman filter's, without particles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.models.latents import Path
from latentrnn.models.latents.kalman.filter import Moments
from latentrnn.models.latents.kalman.heads import Known
from latentrnn.models.latents.linear_gaussian import ExactStates, LinearGaussian
from latentrnn.models.observations import HeadInputs, Observation
from latentrnn.models.rollout import Rollout
from latentrnn.models.rollout.double_precision import inputs_to_double, to_double
from latentrnn.models.state_space import LatentRNN


class ExactStep(NamedTuple):
    """What is known of one step, in double precision, one row for each draw of the parameters.

    Attributes:
        moments: mean and root of the state given the step, (draw, 1, 1, state[, state]).
        log_prob: log p(y_t | y_{<t}), nats, (draw, 1, 1).
        rates: head to E[y_t | y_{<=t}], (draw, channel).
        predicted: head to E[y_t | y_{<t}], likewise.
    """

    moments: Moments
    log_prob: Tensor
    rates: dict[str, Tensor]
    predicted: dict[str, Tensor]


def is_summed_out(model: LatentRNN) -> bool:
    """Return whether the states of a model are summed out exactly, step by step."""
    return isinstance(model.latent, LinearGaussian)


def exact_step(
    model: LatentRNN,
    double_heads: Mapping[str, Observation],
    data: SequenceData,
    before: Moments | None,
    due: Iterable[str],
    shape: tuple[int, int, int],
) -> ExactStep:
    """Filter the last step of a batch of one sequence.

    Args:
        model: under all draws of its parameters.
        double_heads: its heads in double precision.
        data: the last few steps, of which the last alone shows something.
        before: of the step before; None at the first.
        due: heads with a frame that is complete.
        shape: (draw, 1, 1).
    """
    latent = model.latent
    assert isinstance(latent, LinearGaussian)
    heads = {name: model.observations[name] for name in double_heads}
    doubled: dict[str, Callable[..., dist.Distribution]] = {
        name: partial(_in_double, head) for name, head in double_heads.items()
    }
    inputs = model.transition_inputs(data)
    rollout = Rollout(model.transition, latent, heads, doubled, data, inputs, Path(latent.initial_loc))
    rollout.is_double = True
    states = ExactStates(latent, rollout)
    filtered, log_prob = states.last_step([Known.recorded(data, name) for name in heads], before)
    loc, predicted = (part.squeeze(-2).expand(*shape, -1) for part in (filtered.loc, filtered.predicted_loc))
    root = filtered.root.squeeze(-3).expand(*shape, *filtered.root.shape[-2:])

    both = torch.stack([loc, predicted]).unsqueeze(-2).expand(2, *shape, data.num_steps, -1)
    means = {}
    for name in due:
        mean = heads[name].mean(states.heads.given(name, both, None))
        means[name] = mean[..., -1, :].expand(2, *shape, -1)[:, :, 0, 0]
    rates, expected = ({name: mean[k] for name, mean in means.items()} for k in (0, 1))
    return ExactStep(Moments(loc, root), log_prob.expand(shape), rates, expected)


def joined_covariance(moments: Moments, weights: Tensor) -> Tensor:
    """Return the covariance, (state, state), of the mixture of Normals with these moments and weights (draw,)."""
    loc, root = moments.loc[:, 0, 0], moments.root[:, 0, 0]
    centred = loc - weights @ loc
    own = torch.tensordot(weights, root @ root.mT, 1)
    return own + (weights.unsqueeze(-1) * centred).mT @ centred


def _in_double(head: Observation, states: Tensor, inputs: HeadInputs, history: Tensor | None) -> dist.Distribution:
    found: dist.Distribution = head(to_double(states), inputs_to_double(inputs), to_double(history))
    return found
