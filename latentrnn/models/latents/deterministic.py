"""No randomness in the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.models.latents.latent import STATE, Latent, learned_vector
from latentrnn.models.latents.path import Carry, LatentSite, Path
from latentrnn.models.transitions import Transition


class Deterministic(Latent):
    """s_0 is a learned constant and nothing else is random: the likelihood is exact.

    All that varies from sequence to sequence comes through covariates and fed-back observations.
    """

    continues = True

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)

    def build(self, transition: Transition, dt: float | None) -> None:
        self.initial_state = learned_vector(transition.state_size)

    def reset_parameters(self) -> None:
        """Return to s_0 = 0."""
        with torch.no_grad():
            self.initial_state.zero_()

    def sites(self) -> list[LatentSite]:
        return []

    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        return Path(self.initial_state if data.carry_in is None else data.carry_in[STATE])

    def begin_with(self, shape: tuple[int, ...], values: Mapping[str, Tensor]) -> Carry:
        return Carry(self.initial_state.expand(*shape, -1))
