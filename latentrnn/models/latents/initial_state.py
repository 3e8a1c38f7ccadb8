"""A random initial state, and deterministic states from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.models import sites
from latentrnn.models.latents.latent import STATE, Latent
from latentrnn.models.latents.path import Carry, LatentSite, Path
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.readouts.linear import linear
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_choice, check_size


class Affine(nn.Linear):
    """W x + b of inputs (..., time, channel), where W and b may be draws, (*sample, 1, ...)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)

    def at_step(self, inputs: Tensor) -> Tensor:
        """Return the same of inputs without an axis for time, (..., channel)."""
        if self.weight.dim() == 2 and self.bias.dim() == 1:
            return self(inputs)
        return self(inputs.unsqueeze(-2)).squeeze(-2)


class NormalStart(nn.Module):
    """g ~ Normal(m, diag(s^2)) of `dim` dimensions, mapped to the state: s_0 = W g + b.

    m = 0 and s = 1 are fixed, unless the prior is learned.
    """

    def __init__(self, dim: int, state_size: int, *, learned: bool = False) -> None:
        super().__init__()
        self.dim, self.learned = dim, learned
        self.map = Affine(dim, state_size)
        if learned:
            self.loc = nn.Parameter(torch.zeros(dim))
            self.log_scale = nn.Parameter(torch.zeros(dim))

    def reset_parameters(self) -> None:
        """Return the prior to Normal(0, I)."""
        if self.learned:
            with torch.no_grad():
                self.loc.zero_()
                self.log_scale.zero_()

    def prior(self, shape: tuple[int, ...] = ()) -> dist.Distribution:
        """Return p(g) with leading axes `shape` and event (dim,)."""
        if not self.learned:
            zero = self.map.bias.new_zeros(*shape, self.dim)
            return dist.Normal(zero, torch.ones_like(zero), validate_args=False).to_event(1)
        shape = torch.broadcast_shapes((*shape, self.dim), self.loc.shape, self.log_scale.shape)
        loc, scale = self.loc.expand(shape), self.log_scale.exp().expand(shape)
        return dist.Normal(loc, scale, validate_args=False).to_event(1)

    def sample(self, sequences: int) -> Tensor:
        """Draw s_0, (*sample, sequence, state_size), at the site `initial`."""
        return self.map.at_step(pyro.sample(sites.INITIAL, self.prior((sequences,))))


class InitialState(Latent):
    """g ~ Normal(0, I); s_0 = W g + b; then h_t = transition(s_{t-1}, a_t) without noise.

    With a learned prior g ~ Normal(m, diag(s^2)). The family of models is the same, since W and b could absorb m and
    s; the optimizer finds its way more easily, and s tells which dimensions vary from sequence to sequence.

    Args:
        dim: dimension of g.
        prior: "standard" or "learned".

    Raises:
        ValueError: a dimension below one or an unknown prior.

    References:
        Pandarinath et al. Inferring single-trial neural population dynamics using sequential auto-encoders. 2018.
    """

    declared: ClassVar = {
        "start_loc": ParameterSpec("start.loc", dims=("initial",)),
        "start_scale": ParameterSpec.positive("start.log_scale", dims=("initial",)),
    }

    continues = True

    def __init__(self, dim: int, prior: str = "standard", **shared: Any) -> None:
        super().__init__(**shared)
        self.dim = check_size("InitialState", "dim", dim)
        self.prior = check_choice("InitialState", "prior", prior, ("standard", "learned"))

    def build(self, transition: Transition, dt: float | None) -> None:
        self.start = NormalStart(self.dim, transition.state_size, learned=self.prior == "learned")

    @property
    def initial_state(self) -> Tensor:
        """The mean of s_0 over sequences, (state_size,): that of the prior, mapped to the state."""
        return self.start.map.at_step(self.start.prior().mean).detach()

    def sites(self) -> list[LatentSite]:
        return [LatentSite(sites.INITIAL, self.dim, along_time=False)]

    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        return Path(self.start.sample(data.num_sequences) if data.carry_in is None else data.carry_in[STATE])

    def start_prior(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        return {sites.INITIAL: self.start.prior(shape)}

    def begin_with(self, shape: tuple[int, ...], values: Mapping[str, Tensor]) -> Carry:
        return Carry(self.start.map.at_step(values[sites.INITIAL]))
