"""Memories of how large returns have been, whose forget gates read the last one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import latentrnn as lr

SIZE = math.sqrt(2 / math.pi)  # expected |r| of a standard Normal


class AdaptiveMemories(lr.Transition):
    """Averages of the size and of the course of returns, as of a GARCH model with gates that move.

        f = sigmoid(rest - shock |r| / s)
        s <- f s + (1 - f) |r| exp(-leverage sign(r)),   m <- f m + (1 - f) r

    of the return r of the day before, in units of about its standard deviation. Readouts see log((s / 0.80)^2), and
    m / s, of every memory. With one memory, no shock and no leverage this is a GARCH(1, 1) model of absolute returns in
    which log-variances follow powers. Recorded gate: "forget" f.

    Args:
        memories: number of memories.
        adaptive: whether the gates read the return.

    References:
        Taylor. Modelling financial time series. 1986 (absolute returns).
        Corsi. A simple approximate long-memory model of realized volatility. 2009 (several scales).
        Glosten, Jagannathan, Runkle. On the relation between the expected value and the volatility of the nominal
        excess return on stocks. 1993 (leverage).
        Guyon, Lekeufack. Volatility is (mostly) path-dependent. 2023 (the course beside the size).
    """

    def __init__(self, memories: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.memories = memories
        self.state_size = self.hidden_size = 2 * memories

    def build(self, input_size: int) -> None:
        self.rest = nn.Parameter(torch.linspace(1.0, 4.5, self.memories) if self.memories > 1 else torch.tensor([2.5]))
        self.shock = nn.Parameter(torch.zeros(self.memories))
        self.leverage = nn.Parameter(torch.zeros(1))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        size, course = state.chunk(2, -1)
        strength = inputs.abs()
        forget = self.gate("forget", torch.sigmoid(self.rest - self.shock * strength / size))
        size = torch.lerp(strength * torch.exp(-self.leverage * inputs.sign()), size, forget) + 1e-9
        return torch.cat([size, torch.lerp(inputs.expand_as(course), course, forget)], -1)

    def output(self, state: Tensor) -> Tensor:
        size, course = state.chunk(2, -1)
        return torch.cat([2 * torch.log(size / SIZE), course / size], -1)
