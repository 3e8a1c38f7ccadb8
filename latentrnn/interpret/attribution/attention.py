"""Which steps attention reads: the weights of a head's readout or pooling, draw by draw."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.posterior.interventions.replays import Replay
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.attribution.targets import asked_instead, head_of
from latentrnn.interpret.results.labelled import AnyPosterior, pooled
from latentrnn.interpret.results.rows import Found, of_rows
from latentrnn.models.observations import HeadInputs, Observation
from latentrnn.models.pooling import AttentionPooling
from latentrnn.models.readouts import AttentionReadout, SourceAttention
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray


@isolated
def attention(posterior: AnyPosterior, head: str, *, num_samples: int = 20) -> xarray.Dataset:
    """Return the attention weights of a head, alpha_ts: how much of what it reads at step t is of step s.

    Of a readout that attends (`CausalAttention`, `WindowedAttention`, `ModulatedAttention`, `CrossAttention`,
    `SourceAttention`), or of a per-sequence head with `AttentionPooling`. They sum to one over the source steps.

    Args:
        posterior: of any model, or of an ensemble.
        head: the head's name.
        num_samples: number of draws, those of `posterior.latents(num_samples)`.

    Returns:
        A dataset with "weight": of a readout (sample, sequence, time, attention_head, source), of a pooling (sample,
        sequence, source). "source" has the times of the steps that are read. Of a head with a clock, "time" and
        "source" count its own frames, labelled with the start of each; a `SourceAttention`'s source counts base steps.
        Rows of padding are NaN, and so are source steps in padding.

    Raises:
        TypeError: something that is no posterior.
        ValueError: an unknown head, or one that does not attend.

    References:
        Bahdanau, Cho, Bengio. Neural machine translation by jointly learning to align and translate. 2015.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, {"x": np.ones((2, 5, 1))}, dt=0.01)
        >>> heads = {"v": lr.Gaussian(readout=lr.WindowedAttention(2, size=4))}
        >>> model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations=heads)
        >>> found = lr.interpret.attention(lr.Posterior(model, lr.Guide(model), data), "v", num_samples=1)
        >>> found.weight[0, 0, 3, 0].round(1).values.tolist()  # at step 3: of steps 2 and 3 alone
        [0.0, 0.0, 0.5, 0.5, 0.0]
    """
    return pooled("attention", posterior, num_samples, lambda one, count: _of_one(one, head, count))


def _of_one(posterior: Posterior, head: str, num_samples: int) -> xarray.Dataset:
    observation = head_of("attention", posterior.model, head)
    known, clock = posterior.data.to("cpu").to_xarray(), observation.head.clock
    time = known["time" if clock == 1 else f"{head}_time"].values
    if not observation.head.per_step:
        if not isinstance(observation.pooling, AttentionPooling):
            raise ValueError(f"attention: head {head!r} pools by {observation.pooling!r}, which has no weights")
        coords, find = {"source": known["time"].values}, partial(_of_pooling, head)
    else:
        if not isinstance(observation.readout, AttentionReadout):
            raise ValueError(f"attention: the readout of head {head!r}, {observation.readout!r}, does not attend")
        base = isinstance(observation.readout, SourceAttention)
        coords, find = {"source": known["time"].values if base else time}, partial(_of_readout, head, base)
        if clock > 1:
            coords["frame"] = time
    found = of_rows(posterior, num_samples, find, coords, {"head": head}, output=False)
    return found.rename(frame="time") if "frame" in found.dims else found


@torch.no_grad()
def _of_pooling(head: str, replay: Replay) -> Found:
    rollout = replay.rollout(replay.data)
    pooling = rollout.observations[head].pooling
    assert isinstance(pooling, AttentionPooling)
    weight = pooling.weights(rollout.states(), rollout.data).flatten(0, -2)  # (row, source), an axis of draws or none
    weight = weight.expand(len(replay), -1).masked_fill(~rollout.data.valid, torch.nan)
    return Found({"weight": (("source",), weight)}, [])


@torch.no_grad()
def _of_readout(head: str, base: bool, replay: Replay) -> Found:
    rollout = replay.rollout(replay.data)
    weight = asked_instead(rollout, head, _weights).flatten(0, -4).movedim(-3, -2)  # (row, frame, head, source)
    weight = weight.expand(len(replay), *weight.shape[1:])
    data, clock = rollout.data, rollout.observations[head].head.clock
    frames = (data.lengths // clock)[:, None]
    inside = torch.arange(weight.shape[1], device=weight.device) < frames
    there = data.valid if base else inside
    weight = weight.masked_fill(~inside[:, :, None, None] | ~there[:, None, None], torch.nan)
    return Found({"weight": (("time" if clock == 1 else "frame", "attention_head", "source"), weight)}, [])


def _weights(part: Observation, states: Tensor, inputs: HeadInputs, history: Tensor | None) -> Tensor:
    assert isinstance(part.readout, AttentionReadout)
    return part.readout.weights(states, inputs.surroundings)
