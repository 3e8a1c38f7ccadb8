"""A trajectory drawn step by step, each step given the one before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.inference.guides.encoders import Encoding
from latentrnn.inference.guides.families.family import (
    START_SCALE,
    Draw,
    Family,
    MixedNormal,
    Proposals,
    StartHead,
    positive,
    sample_site,
    start_small,
)
from latentrnn.inference.guides.families.markov_scan import MarkovWeights, markov_scan
from latentrnn.models.latents import LatentSite
from latentrnn.support.arguments import check_choice, check_size


class Markov(Family):
    """q(z_{1:T}) = prod_t Normal(z_t; m_t, (M diag(s_t)) (M diag(s_t))^T), given z_{t-1}.

        x_t = tanh(W z_{t-1} + e_t),  m_t = A z_{t-1} + B x_t + l_t,  s_t = softplus(C x_t + r_t)

    e_t, l_t and r_t are affine in the encoder's features; M is unit lower triangular. Draws loop over time, densities
    do not. With a causal encoder it is a filtering posterior, and a proposal for particle filters.

    Args:
        hidden_size: size of x_t.
        mixing: "shared", one learned M for all steps, or "step", an M_t that is affine in the encoder's features too:
            where what is known of the directions of z_t changes from step to step (missing entries, a state that turns
            quickly). Then there are dim (dim - 1) / 2 parameters more per step, which suits some ten dimensions.

    Raises:
        ValueError: a size below one, an unknown mixing.

    References:
        Krishnan, Shalit, Sontag. Structured inference networks for nonlinear state space models. 2017.
    """

    stepwise = True
    continues = True
    heads: Mapping[str, StartHead]  # nn.ModuleDicts
    steps: Mapping[str, MarkovStep]

    def __init__(self, hidden_size: int = 32, *, mixing: str = "shared") -> None:
        super().__init__()
        self.hidden_size = check_size("Markov", "hidden_size", hidden_size)
        self.mixing = check_choice("Markov", "mixing", mixing, ("shared", "step"))

    def _build(self, step_size: int, summary_size: int) -> None:
        heads = {site.name: StartHead(site, summary_size, None) for site in self.starts}
        self.heads = nn.ModuleDict(heads)  # type: ignore[assignment]
        start = self.starts[0] if self.starts else None
        steps = {s.name: self._make_step(s, start, step_size) for s in self.trajectories}
        self.steps = nn.ModuleDict(steps)  # type: ignore[assignment]

    def _make_step(self, site: LatentSite, start: LatentSite | None, step_size: int) -> MarkovStep:
        noise = MixedNormal(site.dim) if self.mixing == "shared" else None
        return MarkovStep(site, start, self.hidden_size, step_size, noise)

    def variational_parameters(self, encoding: Encoding, data: SequenceData | None) -> dict[str, Tensor]:
        steps = {site.name: self.steps[site.name].map(encoding.steps) for site in self.trajectories}
        return steps | {site.name: self.heads[site.name].head(encoding.summary) for site in self.starts}

    def sample(self, parameters: dict[str, Tensor], data: SequenceData, draw: Draw = sample_site) -> dict[str, Tensor]:
        before, values = data.carry_in, {}
        for site in self.starts if before is None else ():
            values[site.name] = draw(site.name, self.heads[site.name].distribution(parameters[site.name], None))
        start = values[self.starts[0].name] if self.starts and before is None else None
        for site in self.trajectories:
            step, valid = self.steps[site.name], data.valid if data.padded else None
            last = None if before is None else before[f"guide/{site.name}"]
            path = self._path(step, parameters[site.name], start, valid, last)
            values[site.name] = draw(site.name, path)
            data.carry_out(f"guide/{site.name}", path.last(values[site.name]))
        return values

    def _path(
        self, step: MarkovStep, parameters: Tensor, start: Tensor | None, valid: Tensor | None, last: Tensor | None
    ) -> Any:
        """Return the distribution of a trajectory; arguments: see `MarkovPath`."""
        return MarkovPath(step, parameters, start, valid, last)

    def proposals(self, parameters: dict[str, Tensor], data: SequenceData) -> Proposals:
        return _Stepwise(self, parameters)


class MarkovStep(nn.Module):
    """One step of one site."""

    map: nn.Module  # from an encoder's features to the parameters of a step
    place: Tensor

    def __init__(
        self,
        site: LatentSite,
        start: LatentSite | None,
        hidden_size: int,
        step_size: int,
        noise: MixedNormal | None,
    ) -> None:
        super().__init__()
        self.dim, self.hidden_size = site.dim, hidden_size
        below = 0 if noise is not None else site.dim * (site.dim - 1) // 2
        self.map = nn.Linear(step_size, hidden_size + 2 * site.dim + below)
        self.recurrent = nn.Linear(site.dim, hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, 2 * site.dim, bias=False)
        self.dynamics = nn.Parameter(torch.zeros(site.dim, site.dim))
        self.noise = noise
        self.register_buffer("place", None if noise is not None else _triangle(site.dim), persistent=False)
        self.first = None if start is None else nn.Parameter(torch.zeros(site.dim, start.dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start nearly independent of the step before, with small weights from torch's global generator."""
        assert isinstance(self.map, nn.Linear)
        start_small(self.map)
        start_small(self.out)
        with torch.no_grad():
            nn.init.normal_(self.recurrent.weight, 0.0, 1 / self.dim**0.5)
            self.dynamics.zero_()
        self.start_at_start()

    def start_at_start(self) -> None:
        """Let z_0 be the start itself, as far as the dimensions agree."""
        if self.first is not None:
            with torch.no_grad():
                self.first.zero_()
                self.first.fill_diagonal_(1.0)

    def before(self, start: Tensor | None, like: Tensor) -> Tensor:
        """Return z_0, (..., dim): the start in the coordinates of the steps, or zero."""
        return like if start is None or self.first is None else F.linear(start, self.first)

    def parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return e_t, (..., hidden_size), l_t with r_t, (..., 2 dim), and what there is of M_t below its diagonal."""
        size = self.hidden_size + 2 * self.dim
        e, rest, below = parameters.split([self.hidden_size, 2 * self.dim, parameters.shape[-1] - size], -1)
        return e, rest, below

    def mixing(self, below: Tensor) -> Tensor:
        """Return M, (dim, dim), or M_t, (..., dim, dim), given the third of the parts."""
        if self.noise is not None:
            return self.noise.matrix()
        ends = below.new_tensor([0.0, 1.0]).expand(*below.shape[:-1], 2)
        return torch.cat([below, ends], -1).index_select(-1, self.place).unflatten(-1, (self.dim, self.dim))

    def forward(self, z: Tensor, e_t: Tensor, rest_t: Tensor) -> tuple[Tensor, Tensor]:
        """Return m_t and s_t, (..., dim) each, given z_{t-1} and what the encoder says of step t."""
        loc, raw = (rest_t + self.out(torch.tanh(self.recurrent(z) + e_t))).chunk(2, -1)
        return loc + F.linear(z, self.dynamics), positive(raw, START_SCALE)

    def draw(self, start: Tensor, parameters: Tensor, noise: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return z_{1:T} and s_{1:T}, (..., time, dim) each; see `markov_scan`."""
        mixing = self.mixing(self.parts(parameters)[2])
        weights = MarkovWeights(self.recurrent.weight, self.dynamics, self.out.weight, mixing)
        return markov_scan(start, parameters[..., : self.hidden_size + 2 * self.dim], noise, valid, weights)


def _triangle(dim: int) -> Tensor:
    """Return for each entry of a unit lower triangular matrix where it lies among those below the diagonal, 0 and 1."""
    rows, columns = torch.tril_indices(dim, dim, -1)
    place = torch.full((dim, dim), len(rows))
    place[rows, columns] = torch.arange(len(rows))
    return place.fill_diagonal_(len(rows) + 1).flatten()


class MarkovPath(TorchDistribution):
    """The distribution of z_{1:T}: drawn along time, scored for all steps in one call; standard normal in padding.

    Args:
        step: one step of the site.
        parameters: what the encoder says, (sequence, time, n).
        start: what was drawn before the first step, (..., dim), or None.
        valid: (sequence, time), False in padding; None where there is none.
        last: z_0 itself, (..., sequence, dim), where the path goes on from there.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        step: MarkovStep,
        parameters: Tensor,
        start: Tensor | None,
        valid: Tensor | None,
        last: Tensor | None = None,
    ) -> None:
        self.step, self.parameters, self.valid = step, parameters, valid
        # the last draw, its noise and its s_{1:T}, shared with what Pyro expands from this: its density follows from
        # them without a second run of the networks, with the whole gradient, that through the draw included
        self._drawn: list[tuple[Tensor, Tensor, Tensor]] = []
        zero = parameters.new_zeros(*parameters.shape[:-2], step.dim)
        self.start = step.before(start, zero) if last is None else last
        batch = torch.broadcast_shapes(self.start.shape[:-1], parameters.shape[:-2])
        super().__init__(batch, torch.Size((parameters.shape[-2], step.dim)), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> MarkovPath:
        new = MarkovPath.__new__(MarkovPath)
        new.step, new.parameters, new.valid, new.start = self.step, self.parameters, self.valid, self.start
        new._drawn = self._drawn
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    @staticmethod
    def last(value: Tensor) -> Tensor:
        """Return z_T of a path, (..., dim), from which a window goes on."""
        return value[..., -1, :]

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape
        noise = torch.randn(*shape, *self.event_shape, dtype=self.parameters.dtype, device=self.parameters.device)
        z, scale = self.step.draw(self.start.expand(*shape, -1), self.parameters, noise, self.valid)
        self._drawn[:] = [(z, noise, scale)]
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self._drawn and self._drawn[0][0] is value:
            _, white, scale = self._drawn[0]
            if (
                scale.requires_grad or not torch.is_grad_enabled()
            ):  # drawn without a graph, it says nothing of gradients
                return self._density(white, scale.log())
        start = self.start.unsqueeze(-2).expand(*value.shape[:-2], 1, -1)
        before = torch.cat([start, value[..., :-1, :]], -2)
        e, rest, below = self.step.parts(self.parameters)
        loc, scale = self.step(before, e, rest)
        residual = (value - loc).unsqueeze(-1)
        white = torch.linalg.solve_triangular(self.step.mixing(below), residual, upper=False, unitriangular=True)
        white = white.squeeze(-1) / scale
        if self.valid is not None:
            inside = self.valid.unsqueeze(-1)
            white, scale = torch.where(inside, white, value), torch.where(inside, scale, 1.0)
        return self._density(white, scale.log())

    @staticmethod
    def _density(white: Tensor, log_scale: Tensor) -> Tensor:
        """Return log q from the noise, in padding the value itself, and from log s_t, there zero."""
        return (-0.5 * white**2 - log_scale - 0.5 * math.log(2 * math.pi)).sum((-2, -1))


class _Stepwise(Proposals):
    def __init__(self, family: Markov, parameters: dict[str, Tensor]) -> None:
        self.family, self.parameters = family, parameters
        if not family.trajectories:
            return
        (site,) = family.trajectories
        self.one = family.steps[site.name]
        self.parts = [part.unbind(-2) for part in self.one.parts(parameters[site.name])]

    def start(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        return {
            s.name: self.family.heads[s.name].distribution(self.parameters[s.name], None).expand(shape)
            for s in self.family.starts
        }

    def step(self, t: int, before: Tensor | None, starts: dict[str, Tensor]) -> dist.Distribution:
        e_t, rest_t, below_t = (part[t] for part in self.parts)
        if before is None:
            start = starts[self.family.starts[0].name] if self.family.starts else None
            before = self.one.before(start, e_t.new_zeros(*e_t.shape[:-1], self.one.dim))
        loc, scale = self.one(before, e_t, rest_t)
        tril = self.one.mixing(below_t) * scale.unsqueeze(-2)
        return dist.MultivariateNormal(loc, scale_tril=tril, validate_args=False)
