"""A state that is itself drawn at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.models import sites
from latentrnn.models.latents.from_noise import FromNoise
from latentrnn.models.latents.initial_state import Affine
from latentrnn.models.latents.latent import STATE, Latent, along_time, where_valid
from latentrnn.models.latents.path import Carry, LatentSite, Path, Step
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_choice


class MarkovNormal(Latent):
    """z_0 ~ Normal(m, diag(s^2));  z_t ~ Normal(h_t, diag(scale^2)),  h_t = transition(z_{t-1}, a_t).

    With `Linear` this is the linear-Gaussian state-space model (a diagonal noise is no restriction there: the
    state's basis is free), which `LinearGaussian` sums out exactly; with other transitions a deep Markov model.

    Args:
        scale: "constant", one learned standard deviation per dimension, or "state", softplus(W h_t + b).

    Raises:
        ValueError: an unknown scale, or, when the model is put together, a transition whose state holds more
            than its output (LSTM, stacked layers): z_t is the whole state.

    References:
        Krishnan, Shalit, Sontag. Structured inference networks for nonlinear state space models. 2017.
    """

    declared: ClassVar = {
        "scale": ParameterSpec.positive("log_scale", dims=("state",)),
        "initial_loc": ParameterSpec("initial_loc", dims=("state",)),
        "initial_scale": ParameterSpec.positive("initial_log_scale", dims=("state",)),
    }

    consumes_feedback = False
    draws_states = True
    continues = True

    def __init__(self, scale: str = "constant", **shared: Any) -> None:
        super().__init__(**shared)
        self.scale = check_choice("MarkovNormal", "scale", scale, ("constant", "state"))

    def build(self, transition: Transition, dt: float | None) -> None:
        if transition.state_size != transition.hidden_size:
            raise ValueError(
                f"MarkovNormal draws the whole state at every step, but the state of {transition!r} holds "
                f"{transition.state_size} numbers of which its output is {transition.hidden_size}; "
                "expected a single-layer transition without a separate cell state (VanillaRNN, GRU, Linear)"
            )
        size = self.dim = transition.state_size
        self.initial_loc = nn.Parameter(torch.zeros(size))
        self.initial_log_scale = nn.Parameter(torch.zeros(size))
        if self.scale == "constant":
            self.log_scale = nn.Parameter(torch.zeros(size))
        else:
            self.scale_map = Affine(size, size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to a standard normal z_0 and a constant scale of 0.3."""
        with torch.no_grad():
            self.initial_loc.zero_()
            self.initial_log_scale.zero_()
            if self.scale == "constant":
                self.log_scale.fill_(math.log(0.3))

    def sites(self) -> list[LatentSite]:
        return [LatentSite(sites.INITIAL, self.dim, False), LatentSite(sites.STATES, self.dim, True)]

    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        if data.carry_in is not None:
            z_0 = data.carry_in[STATE]
        else:
            z_0 = pyro.sample(sites.INITIAL, self._initial((data.num_sequences,)))
        z = pyro.sample(sites.STATES, MarkovNormalPath(self, transition, z_0, inputs, data))
        return Path(z_0, states=z)

    def run(self, transition: Transition, inputs: Tensor, path: Path) -> tuple[Tensor, dict[str, Tensor]]:
        assert path.states is not None
        return path.states, {STATE: path.states[..., -1, :]}

    def start_prior(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        return {sites.INITIAL: self._initial(shape)}

    def begin_with(self, shape: tuple[int, ...], values: Mapping[str, Tensor]) -> Carry:
        return Carry(values[sites.INITIAL])

    def step(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Step:
        h_t = transition.step(carry.state, a_t)
        prior = dist.Normal(h_t, self.noise_scale(h_t), validate_args=False).to_event(1)

        def move(z_t: Tensor | None) -> Carry:
            assert z_t is not None
            return Carry(z_t)

        return Step(prior, move)

    def noise_scale(self, h_t: Tensor) -> Tensor:
        """Return the standard deviation of z_t, broadcastable to (..., dim) of a step's h_t."""
        return self.log_scale.exp() if self.scale == "constant" else _positive(self.scale_map.at_step(h_t))

    def scales_of(self, h: Tensor) -> Tensor:
        """Return the same of all steps, broadcastable to (..., time, dim)."""
        return along_time(self.log_scale.exp()) if self.scale == "constant" else _positive(self.scale_map(h))

    def _initial(self, shape: tuple[int, ...]) -> dist.Distribution:
        shape = torch.broadcast_shapes((*shape, self.dim), self.initial_loc.shape, self.initial_log_scale.shape)
        loc = self.initial_loc.expand(shape)
        return dist.Normal(loc, self.initial_log_scale.exp().expand_as(loc), validate_args=False).to_event(1)


def _positive(raw: Tensor) -> Tensor:
    return F.softplus(raw) + 1e-4


class MarkovNormalPath(FromNoise):
    """p(z_{1:T} | z_0, a_{1:T}): sampled along time, scored for all steps in one call; standard normal in padding."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self, latent: MarkovNormal, transition: Transition, z_0: Tensor, inputs: Tensor, data: SequenceData
    ) -> None:
        self.latent, self.transition, self.data = latent, transition, data
        self.z_0, self.inputs = z_0, inputs
        batch = torch.broadcast_shapes(z_0.shape[:-1], inputs.shape[:-2])
        super().__init__(batch, torch.Size((inputs.shape[-2], latent.dim)), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> MarkovNormalPath:
        z_0 = self.z_0.expand(*batch_shape, self.latent.dim)
        return MarkovNormalPath(self.latent, self.transition, z_0, self.inputs, self.data)

    def _step(self, previous: Tensor, inputs: Tensor) -> Tensor:
        """Return h_{1:T}, (..., sequence, time, dim), all steps at once."""
        if not self.transition.has_draws:
            return self.transition.step(previous, inputs)
        found = self.transition.step(previous.flatten(-3, -2), inputs.flatten(-3, -2))
        return found.unflatten(-2, previous.shape[-3:-1])

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        start = self.z_0.expand(*sample_shape, *self.batch_shape, -1)
        return self._moved_by(start, (torch.randn_like(start) for _ in range(self.event_shape[0])))

    def from_noise(self, noise: Tensor) -> Tensor:
        return self._moved_by(self.z_0.expand(*noise.shape[:-2], -1), noise.unbind(-2))

    def noise_of(self, value: Tensor) -> Tensor:
        return self._standard(value)[0]

    def _moved_by(self, z: Tensor, noises: Iterable[Tensor]) -> Tensor:
        """Return z_{1:T} from z_0 and the noise of every step, (..., dim)."""
        path = []
        valid = self.data.valid.unsqueeze(-1).unbind(1) if self.data.padded else None
        for t, (a_t, noise) in enumerate(zip(self.inputs.unbind(-2), noises, strict=True)):
            h_t = self.transition.step(z, a_t.expand(*z.shape[:-1], -1))
            z = h_t + self.latent.noise_scale(h_t) * noise
            if valid is not None:
                z = torch.where(valid[t], z, noise)
            path.append(z)
        return torch.stack(path, -2)

    def _standard(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of every step, (..., time, dim), and its scale; the value itself and one in padding."""
        previous, inputs = self._before(value)
        loc = self._step(previous, inputs)
        loc, scale = torch.broadcast_tensors(loc, self.latent.scales_of(loc))
        scale = where_valid(scale, self.data, 1.0)
        return (value - where_valid(loc, self.data, 0.0)) / scale, scale

    def _before(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return z_{0:T-1} and the inputs of every step."""
        z_0 = self.z_0.unsqueeze(-2).expand(*value.shape[:-2], 1, -1)
        previous = torch.cat([z_0, value[..., :-1, :]], -2)
        return previous, self.inputs.expand(*previous.shape[:-1], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = self.data.inside
        constant = 0.5 * math.log(2 * math.pi) * self.event_shape.numel()
        if inside is None or not self.transition.by_rows:
            standard, scale = self._standard(value)
            return (-0.5 * standard**2 - scale.log()).sum((-2, -1)) - constant
        # padding needs no transition
        parts = (value, *self._before(value))
        z, previous, inputs = (part.flatten(-3, -2).index_select(-2, inside) for part in parts)
        loc = self.transition.step(previous, inputs)
        loc, scale = torch.broadcast_tensors(loc, self.latent.noise_scale(loc))
        entries = (-0.5 * ((z - loc) / scale) ** 2 - scale.log()).sum(-1)
        padding = torch.where(self.data.valid, 0.0, -0.5 * (value**2).sum(-1))
        padding = padding.expand(*entries.shape[:-1], *padding.shape[-2:])
        return padding.flatten(-2).index_copy(-1, inside, entries).view_as(padding).sum(-1) - constant
