"""Random inputs to the transition at every step."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.models import sites
from latentrnn.models.latents.autoregressive import AutoregressiveNormal
from latentrnn.models.latents.initial_state import NormalStart
from latentrnn.models.latents.latent import Carry, Latent, LatentSite, Path, gaps, join, learned_vector, where_valid
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import check_size


class Innovations(Latent):
    """u_t drives the transition: h_t = transition(s_{t-1}, [a_t, u_t]).

        white: u_t ~ Normal(0, scale^2)
        ar1:   u_t ~ Normal(phi u_{t-1}, (1 - phi^2) scale^2),  phi = exp(-dt / tau),  u_1 ~ Normal(0, scale^2)

    These are LFADS's inferred inputs, not the residuals of a Kalman filter. Scale (per dimension) and tau
    (per dimension; seconds with `dt`, otherwise steps) are learned.

    Args:
        dim: dimension of u_t.
        initial: dimension of a Normal latent mapped to s_0; None for a learned constant s_0.
        prior: "white" or "ar1".

    Raises:
        ValueError: a dimension below one or an unknown prior.

    References:
        Pandarinath et al. Inferring single-trial neural population dynamics using sequential auto-encoders. 2018.
    """

    def __init__(self, dim: int, initial: int | None = None, prior: str = "white") -> None:
        super().__init__()
        if prior not in ("white", "ar1"):
            raise ValueError(f"Innovations: prior must be 'white' or 'ar1'; found {prior!r}")
        self.dim = self.input_size = check_size("Innovations", "dim", dim)
        self.initial = None if initial is None else check_size("Innovations", "initial", initial)
        self.prior = prior

    def build(self, transition: Transition, dt: float | None) -> None:
        self.dt = 1.0 if dt is None else dt
        self.log_scale = nn.Parameter(torch.zeros(self.dim))
        if self.prior == "ar1":
            self.log_time_constant = nn.Parameter(torch.full((self.dim,), math.log(10 * self.dt)))
        if self.initial is None:
            self.initial_state = learned_vector(transition.state_size)
        else:
            self.start = NormalStart(self.initial, transition.state_size)

    def reset_parameters(self) -> None:
        """Return to unit scale and a time constant of ten steps."""
        with torch.no_grad():
            self.log_scale.zero_()
            if self.prior == "ar1":
                self.log_time_constant.fill_(math.log(10 * self.dt))
            if self.initial is None:
                self.initial_state.zero_()

    @property
    def scale(self) -> Tensor:
        """The prior's standard deviation, (dim,)."""
        return self.log_scale.exp()

    @property
    def time_constant(self) -> Tensor:
        """Tau of the AR(1) prior, (dim,), in seconds with `dt`, otherwise in steps."""
        return self.log_time_constant.exp()

    def sites(self) -> list[LatentSite]:
        initial = [] if self.initial is None else [LatentSite(sites.INITIAL, self.initial, along_time=False)]
        return [*initial, LatentSite(sites.INNOVATIONS, self.dim, along_time=True)]

    def sample(self, transition: Transition, drive: Tensor, data: SequenceData) -> Path:
        start = self.initial_state if self.initial is None else self.start.sample(data.num_sequences)
        return Path(start, innovations=pyro.sample(sites.INNOVATIONS, self._prior(data)))

    def _prior(self, data: SequenceData) -> dist.Distribution:
        shape = (data.num_sequences, data.num_steps, self.dim)
        if self.prior == "white":
            scale = where_valid(self.scale, data, 1.0).expand(shape)
            return dist.Normal(torch.zeros_like(scale), scale, validate_args=False).to_event(2)
        valid = data.valid if data.padded else None
        return AutoregressiveNormal(self._memory(gaps(data)), self.scale, shape, valid)

    def _memory(self, gap: Tensor | None) -> Tensor:
        """phi, (..., dim), for gaps (...) in the clock's unit; None stands for one step."""
        if gap is None:
            return torch.exp(-self.dt / self.time_constant)
        return torch.exp(-gap.unsqueeze(-1).to(self.log_scale) / self.time_constant)

    def begin(self, shape: tuple[int, ...]) -> Carry:
        if self.initial is None:
            return Carry(self.initial_state.expand(*shape, -1))
        return Carry(self.start.map(self.start.prior(shape).sample()))

    def advance(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Carry:
        noise = torch.randn(*carry.state.shape[:-1], self.dim, dtype=a_t.dtype, device=a_t.device) * self.scale
        if self.prior == "ar1" and carry.innovation is not None:
            phi = self._memory(gap)
            noise = phi * carry.innovation + (1 - phi**2).sqrt() * noise
        return Carry(transition.step(carry.state, join(a_t, noise)), noise)
