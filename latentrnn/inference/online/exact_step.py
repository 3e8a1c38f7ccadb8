"""A step of streams whose state is linear and Gaussian: the Kalman filter's, without particles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.online.filtered_state import FilteredStates
from latentrnn.inference.online.followed import Followed
from latentrnn.inference.online.memory import Memory
from latentrnn.inference.online.parameter_draws import weighed
from latentrnn.inference.online.prediction import average, predictions
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
        moments: mean and root of the state given the step, (draw, 1, stream, state[, state]).
        log_prob: log p(y_t | y_{<t}), nats, (draw, 1, stream).
        rates: head to E[y_t | y_{<=t}], (draw, stream, channel).
        predicted: head to E[y_t | y_{<t}], likewise.
        ahead: head to the distribution of y_t given y_{<t}, every entry by itself, (draw, 1, stream, 1, channel).
    """

    moments: Moments
    log_prob: Tensor
    rates: dict[str, Tensor]
    predicted: dict[str, Tensor]
    ahead: dict[str, Any]


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
    """Filter the last step of a batch, one sequence for each stream.

    Args:
        model: under all draws of its parameters.
        double_heads: its heads in double precision.
        data: the last few steps, of which the last alone shows something.
        before: of the step before; None at the first.
        due: heads with a frame that is complete.
        shape: (draw, 1, stream).
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
    means: dict[str, Tensor] = {}
    ahead: dict[str, Any] = {}
    for name in due:
        mean = heads[name].mean(states.heads.given(name, both, None))
        means[name] = mean[..., -1, :].expand(2, *shape, -1)[:, :, 0]
        ahead[name] = heads[name].marginals(states.heads.predicted_last(name, filtered))
    rates, expected = ({name: mean[k] for name, mean in means.items()} for k in (0, 1))
    return ExactStep(Moments(loc, root), log_prob.expand(shape), rates, expected, ahead)


def joined_covariance(moments: Moments, weights: Tensor) -> Tensor:
    """Return the covariance, (stream, state, state), of mixtures of Normals by weights (draw, stream)."""
    loc, root = moments.loc[:, 0], moments.root[:, 0]
    weights = weights.unsqueeze(-1)
    centred = loc - (weights * loc).sum(0)
    own = root @ root.mT + centred.unsqueeze(-1) * centred.unsqueeze(-2)
    return (weights.unsqueeze(-1) * own).sum(0)


class Exactly:
    """Steps of the Kalman filter, under every draw of the parameters.

    Args:
        followed: model and guide.
        seed: of what predictions draw.
    """

    def __init__(self, followed: Followed, seed: int) -> None:
        self.followed, self.seed = followed, seed

    def step(
        self, number: int, data: SequenceData, memory: Memory, names: tuple[str, ...]
    ) -> tuple[Memory, FilteredStates]:
        """Return what is remembered of a step, and what is known after it."""
        followed = self.followed
        due, dtype = followed.heads_due(number), followed.now(data, memory.histories).inputs.dtype
        step = exact_step(followed.model, followed.double_heads, data, memory.moments, due, followed.shape)
        memory = memory._replace(moments=step.moments)
        if (before := memory.log_draw_weights) is None:
            before = after = torch.zeros_like(step.log_prob)
            log_prob = step.log_prob.flatten()
        else:
            log_prob, after = weighed(before, step.log_prob)
            memory = memory._replace(log_draw_weights=after)
        ahead, weights = (part.exp().squeeze(1).T for part in (before, after))  # (stream, draw)
        loc = step.moments.loc[:, 0].transpose(0, 1).to(dtype)
        return memory, FilteredStates(
            number,
            names,
            loc,
            loc,
            weights.to(dtype),
            {name: average(weights, mean.transpose(0, 1)).to(dtype) for name, mean in step.rates.items()},
            {name: average(ahead, mean.transpose(0, 1)).to(dtype) for name, mean in step.predicted.items()},
            log_prob,
            None,
            joined_covariance(step.moments, weights.T).to(dtype),
            weights.to(dtype) if followed.draws else None,
            predictions=predictions(
                followed, self.seed, number, {n: (m, None) for n, m in step.ahead.items()}, data, before
            ),
        )


def _in_double(head: Observation, states: Tensor, inputs: HeadInputs, history: Tensor | None) -> dist.Distribution:
    found: dist.Distribution = head(to_double(states), inputs_to_double(inputs), to_double(history))
    return found
