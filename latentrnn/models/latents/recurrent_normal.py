"""A random latent on top of a recurrent state that remembers it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.models import sites
from latentrnn.models.latents.from_noise import FromNoise
from latentrnn.models.latents.initial_state import Affine, NormalStart
from latentrnn.models.latents.latent import DRAWN, STATE, Latent, learned_vector, where_valid
from latentrnn.models.latents.path import Carry, LatentSite, Path, Step
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.arguments import check_choice, check_size


class RecurrentNormal(Latent):
    """z_t ~ Normal(loc(h_t), diag(scale(h_t)^2)), and what was drawn joins the next input.

        s_t = transition(s_{t-1}, [a_t, z_{t-1}]),  h_t the output of s_t,  z_0 = 0
        loc and scale are affine in h_t, the scale through a softplus

    Unlike `MarkovNormal`, whose z_t is the whole state, the state s_t goes on without noise and remembers everything
    that was drawn, so that z_{1:T} is not a Markov chain, z_t may be smaller than the state, and any transition will
    do (LSTM, stacked layers). Given z_{1:T} the states are one scan, so that a path is scored without a loop over
    steps. The site `states` is z_{1:T}; readouts see z_t and, unless told otherwise, h_t.

    Args:
        dim: dimension of z_t.
        initial: dimension of a Normal latent mapped to s_0; None for a learned constant s_0.
        reads: what readouts see: "both" [z_t, h_t], or "latent" z_t alone.

    Raises:
        ValueError: a dimension below one or an unknown `reads`.

    References:
        Chung, Kastner, Dinh, Goel, Courville, Bengio. A recurrent latent variable model for sequential data. 2015.
        Fraccaro, Sønderby, Paquet, Winther. Sequential neural models with stochastic layers. 2016.
    """

    consumes_feedback = False
    continues = True

    def __init__(self, dim: int, initial: int | None = None, reads: str = "both", **shared: Any) -> None:
        super().__init__(**shared)
        self.dim = self.input_size = check_size("RecurrentNormal", "dim", dim)
        self.initial = None if initial is None else check_size("RecurrentNormal", "initial", initial)
        self.reads = check_choice("RecurrentNormal", "reads", reads, ("both", "latent"))

    def build(self, transition: Transition, dt: float | None) -> None:
        self.prior_map = Affine(transition.hidden_size, 2 * self.dim)
        if self.initial is None:
            self.initial_state = learned_vector(transition.state_size)
        else:
            self.start = NormalStart(self.initial, transition.state_size)

    def reset_parameters(self) -> None:
        """Return to a learned s_0 of zero; the maps do so themselves."""
        if self.initial is None:
            with torch.no_grad():
                self.initial_state.zero_()

    def readout_size(self, transition: Transition) -> int:
        return self.dim + (transition.hidden_size if self.reads == "both" else 0)

    def parts(self, transition: Transition) -> dict[str, slice]:
        if self.reads == "latent":
            return {}
        return {name: slice(self.dim + s.start, self.dim + s.stop) for name, s in transition.parts.items()}

    def sites(self) -> list[LatentSite]:
        initial = [] if self.initial is None else [LatentSite(sites.INITIAL, self.initial, along_time=False)]
        return [*initial, LatentSite(sites.STATES, self.dim, along_time=True)]

    def prior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale of z_{1:T}, (..., time, dim), given h_{1:T}, (..., time, hidden_size)."""
        return self._loc_and_scale(self.prior_map(h))

    def prior_at_step(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale of z_t, (..., dim), given h_t, (..., hidden_size)."""
        return self._loc_and_scale(self.prior_map.at_step(h))

    def _loc_and_scale(self, mapped: Tensor) -> tuple[Tensor, Tensor]:
        loc, raw = mapped.chunk(2, -1)
        return loc, F.softplus(raw + math.log(math.e - 1)) + 1e-4

    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        before = None
        if data.carry_in is not None:
            start, before = data.carry_in[STATE], data.carry_in[DRAWN]
        else:
            start = self.initial_state if self.initial is None else self.start.sample(data.num_sequences)
        path = RecurrentNormalPath(self, transition, start, inputs, data, before)
        z = pyro.sample(sites.STATES, path)
        if data.around is not None:
            data.carry_out(STATE, path.last(z))
            data.carry_out(DRAWN, z[..., -1, :])
        return Path(start, states=z if self.reads == "latent" else concatenate_channels(z, path.hidden(z)))

    def whole_inputs(self, inputs: Tensor, path: Path) -> Tensor:
        assert path.states is not None
        z = path.states[..., : self.dim]
        return concatenate_channels(inputs, F.pad(z, (0, 0, 1, 0))[..., :-1, :])

    def run(self, transition: Transition, inputs: Tensor, path: Path) -> tuple[Tensor, dict[str, Tensor]]:
        assert path.states is not None
        return path.states, {}  # `sample`, which knows the transition's state, has left it

    def start_prior(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        return {} if self.initial is None else {sites.INITIAL: self.start.prior(shape)}

    def begin_with(self, shape: tuple[int, ...], values: Mapping[str, Tensor]) -> Carry:
        if self.initial is None:
            state = self.initial_state.expand(*shape, -1)
        else:
            state = self.start.map.at_step(values[sites.INITIAL])
        return Carry(state, state.new_zeros(*shape, self.dim))

    def step(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Step:
        assert carry.innovation is not None
        state = transition.step(carry.state, concatenate_channels(a_t, carry.innovation))
        loc, scale = self.prior_at_step(transition.output(state))
        return Step(dist.Normal(loc, scale, validate_args=False).to_event(1), lambda z_t: Carry(state, z_t))

    def output(self, transition: Transition, carry: Carry) -> Tensor:
        z_t = carry.innovation
        assert z_t is not None
        return z_t if self.reads == "latent" else concatenate_channels(z_t, transition.output(carry.state))


class RecurrentNormalPath(FromNoise):
    """p(z_{1:T} | s_0, a_{1:T}): sampled along time, scored by one scan; standard normal in padding."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        latent: RecurrentNormal,
        transition: Transition,
        start: Tensor,
        inputs: Tensor,
        data: SequenceData,
        before: Tensor | None = None,
    ) -> None:
        self.latent, self.transition, self.data = latent, transition, data
        self.start, self.inputs, self.before = start, inputs, before
        # the last path, its h_{1:T} and s_T, shared with what Pyro expands from this: density and readouts need both
        self._scanned: list[tuple[Tensor, Tensor, Tensor]] = []
        batch = torch.broadcast_shapes(start.shape[:-1], inputs.shape[:-2])
        super().__init__(batch, torch.Size((inputs.shape[-2], latent.dim)), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> RecurrentNormalPath:
        start = self.start.expand(*batch_shape, self.start.shape[-1])
        new = RecurrentNormalPath(self.latent, self.transition, start, self.inputs, self.data, self.before)
        new._scanned = self._scanned
        return new

    def hidden(self, z: Tensor) -> Tensor:
        """Return h_{1:T}, (..., time, hidden_size), of z_{1:T}, (..., time, dim)."""
        if not self._scanned or self._scanned[0][0] is not z:
            if self.before is None:
                before = F.pad(z, (0, 0, 1, 0))[..., :-1, :]
            else:
                before = torch.cat([self.before.unsqueeze(-2).expand(*z.shape[:-2], 1, -1), z[..., :-1, :]], -2)
            self._scanned[:] = [(z, *self.transition.scan(concatenate_channels(self.inputs, before), self.start))]
        return self._scanned[0][1]

    def last(self, z: Tensor) -> Tensor:
        """Return s_T, (..., state_size), of z_{1:T}."""
        self.hidden(z)
        return self._scanned[0][2]

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        batch = torch.Size(sample_shape) + self.batch_shape
        like = self.start.new_empty(*batch, self.latent.dim)
        return self._moved_by(batch, (torch.randn_like(like) for _ in range(self.event_shape[0])))

    def from_noise(self, noise: Tensor) -> Tensor:
        return self._moved_by(noise.shape[:-2], noise.unbind(-2))

    def noise_of(self, value: Tensor) -> Tensor:
        return self._standard(value)[0]

    def _moved_by(self, batch: torch.Size, noises: Iterable[Tensor]) -> Tensor:
        """Return z_{1:T} with leading axes `batch` from the noise of every step, (*batch, dim)."""
        state, path = self.start.expand(*batch, -1), []
        z = state.new_zeros(*batch, self.latent.dim) if self.before is None else self.before.expand(*batch, -1)
        valid = self.data.valid.unsqueeze(-1).unbind(1) if self.data.padded else None
        for t, (a_t, noise) in enumerate(zip(self.inputs.unbind(-2), noises, strict=True)):
            state = self.transition.step(state, concatenate_channels(a_t, z))
            loc, scale = self.latent.prior_at_step(self.transition.output(state))
            z = loc + scale * noise
            if valid is not None:
                z = torch.where(valid[t], z, noise)
            path.append(z)
        return torch.stack(path, -2)

    def _standard(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of every step, (..., time, dim), and its scale; the value itself and one in padding."""
        loc, scale = self.latent.prior(self.hidden(value))
        scale = where_valid(scale, self.data, 1.0)
        return (value - where_valid(loc, self.data, 0.0)) / scale, scale

    def log_prob(self, value: Tensor) -> Tensor:
        standard, scale = self._standard(value)
        return (-0.5 * standard**2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum((-2, -1))
