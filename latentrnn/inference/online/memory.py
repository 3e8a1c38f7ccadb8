"""What an online filter remembers from one step to the next, and what it is told at one."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from latentrnn.models.latents import Carry
from latentrnn.models.latents.kalman.filter import Moments


class Memory(NamedTuple):
    """What an online filter remembers of earlier steps, besides the stream's buffers.

    Attributes:
        carry: what the latent needs of the last step; None before the first.
        value: what was drawn at it.
        log_weights: of the particles, (draw, particle, stream), with a mass of one under each draw.
        readout_memory: by head earlier states that its readout remembers.
        histories: by head that feeds back its last observations, encoded, (stream, step, channel).
        encoded: what the encoder needs of the last step.
        chain: what the family's moments need of it.
        generator: state of the random numbers.
        log_draw_weights: of the draws of the parameters, (draw, 1, stream); None where none are carried along.
        moments: of a state that is followed exactly, (draw, 1, stream, state[, state]); None before the first step.
    """

    carry: Carry | None
    value: Tensor | None
    log_weights: Tensor
    readout_memory: dict[str, Tensor | None]
    histories: dict[str, Tensor]
    encoded: Tensor | None
    chain: Tensor | None
    generator: Tensor
    log_draw_weights: Tensor | None
    moments: Moments | None


class Now(NamedTuple):
    """The present step: the last few steps as a batch, and what goes into the transition.

    Attributes:
        data: of the streams.
        inputs: of the transition, (draw, particle, stream, channel), with one draw where none are carried along.
        gap: seconds since the step before, (stream,), where steps are irregular.
        fed_back: by head what it feeds back.
    """

    data: Any
    inputs: Tensor
    gap: Tensor | None
    fed_back: dict[str, Tensor]
