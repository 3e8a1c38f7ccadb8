"""A random initial state, and a deterministic course from there."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.models import sites
from latentrnn.models.latents.latent import Carry, Latent, LatentSite, Path
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import check_size


class NormalStart(nn.Module):
    """g ~ Normal(0, I) of `dim` dimensions, mapped to the state: s_0 = W g + b."""

    def __init__(self, dim: int, state_size: int) -> None:
        super().__init__()
        self.dim = dim
        self.map = nn.Linear(dim, state_size)

    def prior(self, shape: tuple[int, ...] = ()) -> dist.Distribution:
        """Return Normal(0, I) with leading axes `shape` and event (dim,)."""
        zero = self.map.bias.new_zeros(*shape, self.dim)
        return dist.Normal(zero, torch.ones_like(zero), validate_args=False).to_event(1)

    def sample(self, sequences: int) -> Tensor:
        """Draw s_0, (*sample, sequence, state_size), at the site `initial`."""
        return self.map(pyro.sample(sites.INITIAL, self.prior((sequences,))))


class InitialState(Latent):
    """g ~ Normal(0, I); s_0 = W g + b; then h_t = transition(s_{t-1}, a_t) without noise.

    Args:
        dim: dimension of g.

    References:
        Pandarinath et al. Inferring single-trial neural population dynamics using sequential auto-encoders. 2018.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check_size("InitialState", "dim", dim)

    def build(self, transition: Transition, dt: float | None) -> None:
        self.start = NormalStart(self.dim, transition.state_size)

    def sites(self) -> list[LatentSite]:
        return [LatentSite(sites.INITIAL, self.dim, along_time=False)]

    def sample(self, transition: Transition, drive: Tensor, data: SequenceData) -> Path:
        return Path(self.start.sample(data.num_sequences))

    def begin(self, shape: tuple[int, ...]) -> Carry:
        return Carry(self.start.map(self.start.prior(shape).sample()))
