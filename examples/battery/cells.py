"""The electrochemistry of a cell as a transition: what fades, what a direction of current leaves behind, charge."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import latentrnn as lr
from latentrnn.models.transitions.recurrence import linear_recurrence


class Circuit(lr.Transition):
    """Branches of a resistor and a capacitor, and one hysteresis that follows the charge that has moved.

        r^k_t = exp(-gap_t / tau_k) r^k_{t-1} + (1 - exp(-gap_t / tau_k)) i_t
        h_t   = exp(-gamma |m_t|) h_{t-1} + (1 - exp(-gamma |m_t|)) sign(m_t)

    of the current i and the charge m that has moved since the row before. Readouts see branches, hysteresis, current
    and charge. Recorded gate: "kept", what branches and hysteresis keep.

    Args:
        branches: how many; their time constants start between 30 s and an hour.

    References:
        Plett. Extended Kalman filtering for battery management systems of LiPB-based HEV battery packs: Part 2.
        Modeling and identification. 2004.
    """

    timed = True  # the first input is the gap, seconds; current, charge and what has moved follow
    input_units = "scaled"
    is_network = False

    def __init__(self, branches: int = 3, **shared: Any) -> None:
        super().__init__(**shared)
        self.branches = branches
        self.state_size = self.hidden_size = branches + 3

    def build(self, input_size: int) -> None:
        if input_size != 4:
            raise ValueError(f"Circuit: inputs must be current, charge and moved; found {input_size - 1} channels")
        self.log_tau = nn.Parameter(torch.linspace(math.log(30.0), math.log(3600.0), self.branches))
        self.log_gamma = nn.Parameter(torch.zeros(1))

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        kept, towards, passed = self._parts(inputs)
        kept = self.gate("kept", kept)
        return torch.cat([kept * state[..., : self.branches + 1] + (1 - kept) * towards, passed], -1)

    def scan(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self._handler is not None:  # gates are recorded, or held: step by step
            return super().scan(inputs, state)
        kept, towards, passed = self._parts(inputs)
        fading = linear_recurrence(kept, (1 - kept) * towards, state[..., : self.branches + 1])
        states = torch.cat([fading, passed.expand(*fading.shape[:-1], 2)], -1)
        return states, states[..., -1, :]

    def _parts(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is kept of branches and hysteresis, what they go towards, and what is passed on."""
        gap, current, charge, moved = inputs.split(1, -1)
        kept = [torch.exp(-gap / self.log_tau.exp()), torch.exp(-self.log_gamma.exp() * moved.abs())]
        towards = torch.cat([current.expand_as(kept[0]), moved.sign()], -1)
        return torch.cat(kept, -1), towards, torch.cat([current, charge], -1)
