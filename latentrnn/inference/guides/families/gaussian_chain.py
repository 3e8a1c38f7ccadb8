"""A Gaussian over whole trajectories with the Markov property."""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.inference.guides.encoders import Encoding
from latentrnn.inference.guides.families.block_tridiagonal_normal import BlockTridiagonalNormal
from latentrnn.inference.guides.families.family import (
    Draw,
    Family,
    Filtered,
    Proposals,
    Start,
    StartHead,
    positive,
    sample_site,
    start_small,
)
from latentrnn.support.arguments import check_flag, check_size


class GaussianChain(Family):
    """A linear-Gaussian chain, seen at every step through potentials that come from the encoder.

        q(z) prop. prod_t Normal(z_t; A z_{t-1} + b_t, Q) exp(-z_t^T L_t L_t^T z_t / 2 + g_t^T z_t)
                   prod_j exp(-w_tj (x_tj - v_j . z_t)^2 / 2)

    A, Q and the directions v_j are learned; b_t, the readings x_t with their precisions w_t, g_t and the lower
    triangular L_t are functions of the encoder's features. The precision of z is block tridiagonal, so draws,
    densities and marginals are exact in time linear in T. Where the model is linear and Gaussian, the exact posterior
    is in this family; a reading per channel is then all it takes, and an encoder of single steps (`StepEncoder`)
    finds it. Cost grows with the cube of the latent's dimension.

    Args:
        readings: readings per step; by default twice the latent's dimension.
        full: whether there are g_t and L_t, which can say anything of z_t, not only along the directions.

    Raises:
        ValueError: fewer than one reading.

    References:
        Archer, Park, Buesing, Cunningham, Paninski. Black box variational inference for state space models. 2015.
        Johnson, Duvenaud, Wiltschko, Datta, Adams. Composing graphical models with neural networks for structured
        representations and fast inference. 2016.
    """

    chains: Mapping[str, _Chain]  # nn.ModuleDicts
    heads: Mapping[str, StartHead]

    def __init__(self, readings: int | None = None, full: bool = True) -> None:
        super().__init__()
        self.full = check_flag("GaussianChain", "full", full)
        self.readings = None if readings is None else check_size("GaussianChain", "readings", readings)

    def _build(self, step_size: int, summary_size: int) -> None:
        chains = {s.name: _Chain(s.dim, self.readings, self.full, step_size) for s in self.trajectories}
        self.chains = nn.ModuleDict(chains)  # type: ignore[assignment]
        first = self.trajectories[0].dim if self.trajectories else None
        heads = {site.name: StartHead(site, summary_size, first) for site in self.starts}
        self.heads = nn.ModuleDict(heads)  # type: ignore[assignment]

    def variational_parameters(self, encoding: Encoding, data: SequenceData | None) -> dict[str, Tensor]:
        steps = {site.name: self.chains[site.name].map(encoding.steps) for site in self.trajectories}
        return steps | {site.name: self.heads[site.name].head(encoding.summary) for site in self.starts}

    def sample(self, parameters: dict[str, Tensor], data: SequenceData, draw: Draw = sample_site) -> dict[str, Tensor]:
        values = {}
        for site in self.trajectories:
            values[site.name] = draw(site.name, self.chains[site.name](parameters[site.name], data))
        first = values[self.trajectories[0].name][..., 0, :] if self.trajectories else None
        for site in self.starts:
            values[site.name] = draw(site.name, self.heads[site.name].distribution(parameters[site.name], first))
        return values

    def proposals(self, parameters: dict[str, Tensor], data: SequenceData) -> Proposals:
        return _Conditionals(self, parameters, data)

    def filtered(self, parameters: dict[str, Tensor], memory: Tensor | None) -> Filtered:
        (site,) = self.trajectories
        memory = self.chains[site.name].forward_step(parameters[site.name][:, 0], memory)
        precision, linear = memory[..., :-1], memory[..., -1:]
        covariance = torch.linalg.inv(precision)
        mean = (covariance @ linear).squeeze(-1)
        heads = {s.name: self.heads[s.name] for s in self.starts}
        starts = {name: head.distribution(parameters[name], mean).mean for name, head in heads.items()}
        return Filtered(mean, covariance, starts, memory)

    def trajectory(self, parameters: dict[str, Tensor], data: SequenceData) -> BlockTridiagonalNormal:
        """Return the distribution of the first trajectory, with exact `mean` and `covariance`."""
        name = self.trajectories[0].name
        return self.chains[name](parameters[name], data)


class _Chain(nn.Module):
    """The chain of one site."""

    identity: Tensor
    below: Tensor

    def __init__(self, dim: int, readings: int | None, full: bool, step_size: int) -> None:
        super().__init__()
        self.dim, self.readings = dim, 2 * dim if readings is None else readings
        self.free = dim + dim * (dim + 1) // 2 if full else 0
        self.map = nn.Linear(step_size, 2 * self.readings + dim + self.free)
        self.register_buffer("below", torch.stack(tuple(torch.tril_indices(dim, dim))), persistent=False)
        self.dynamics = nn.Parameter(torch.zeros(dim, dim))
        self.noise_root = nn.Parameter(torch.zeros(dim, dim))  # of Q^{-1}: below the diagonal, and its logarithm on it
        self.first_root = nn.Parameter(torch.zeros(dim, dim))
        self.first_loc = nn.Parameter(torch.zeros(dim))
        self.directions = nn.Parameter(torch.zeros(self.readings, dim))
        self.register_buffer("identity", torch.eye(dim), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start from a chain with some memory and directions drawn from torch's global generator."""
        start_small(self.map)
        with torch.no_grad():
            self.dynamics.copy_(0.5 * self.identity)
            self.noise_root.zero_()
            self.first_root.zero_()
            self.first_loc.zero_()
            self.directions.normal_(0.0, 1 / self.readings**0.5)

    def _potentials(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what a step adds to J, (..., dim, dim), and to h, (..., dim), and b_t, (..., dim)."""
        reading, raw, offset, free = parameters.split([self.readings, self.readings, self.dim, self.free], -1)
        weight = positive(raw, 8.0)
        seen = (self.directions.mT * weight.unsqueeze(-2)) @ self.directions
        linear = F.linear(weight * reading, self.directions.mT)
        if self.free:
            pushed, entries = free.split([self.dim, self.free - self.dim], -1)
            root = entries.new_zeros(*entries.shape[:-1], self.dim, self.dim)
            root[..., self.below[0], self.below[1]] = entries
            seen, linear = seen + root @ root.mT, linear + pushed
        return seen, linear, offset

    def forward(self, parameters: Tensor, data: SequenceData) -> BlockTridiagonalNormal:
        """Return the distribution of z_{1:T}; independent standard normals in padding."""
        seen, linear, offset = self._potentials(parameters)
        precision, first = _squared(self.noise_root), _squared(self.first_root)
        pulled = self.dynamics.mT @ precision  # A^T Q^{-1}
        valid = data.valid
        goes_on = F.pad(valid[:, 1:], (0, 1))  # whether a step follows
        inside, follows = valid[..., None, None], goes_on[..., None, None]
        own = torch.cat([first.expand(1, *first.shape), precision.expand(valid.shape[1] - 1, *first.shape)])
        diagonal = torch.where(inside, own + seen, self.identity) + torch.where(follows, pulled @ self.dynamics, 0.0)
        lower = torch.where(follows[:, :-1], -(precision @ self.dynamics), 0.0)
        # Q^{-1} b_t, at the first step with mean and precision of z_1
        offset = offset + F.pad(self.first_loc.unsqueeze(0), (0, 0, 0, valid.shape[1] - 1))
        linear = torch.where(valid.unsqueeze(-1), linear + (own @ offset.unsqueeze(-1)).squeeze(-1), 0.0)
        ahead = F.linear(F.pad(offset[:, 1:], (0, 0, 0, 1)), pulled)
        return BlockTridiagonalNormal(diagonal, lower, linear - torch.where(goes_on.unsqueeze(-1), ahead, 0.0))

    def forward_step(self, parameters: Tensor, before: Tensor | None) -> Tensor:
        """Return [J, h] of z_t, (sequence, dim, dim + 1), all earlier steps integrated out and none later known.

        Args:
            parameters: of step t, (sequence, n).
            before: [J, h] of the step before; None at the first.
        """
        seen, linear, offset = self._potentials(parameters)
        own = _squared(self.first_root if before is None else self.noise_root)
        offset = (own @ (offset + self.first_loc if before is None else offset).unsqueeze(-1)).squeeze(-1)
        if before is None:
            return torch.cat([own + seen, (linear + offset).unsqueeze(-1)], -1)
        # z_{t-1} has J + A^T Q^{-1} A and h - A^T Q^{-1} b_t; it pulls z_t through Q^{-1} A
        pull = own @ self.dynamics
        past = before[..., :-1] + self.dynamics.mT @ pull
        known = before[..., -1:] - self.dynamics.mT @ offset.unsqueeze(-1)
        gain = pull @ torch.linalg.inv(past)
        precision = own + seen - gain @ pull.mT
        return torch.cat([precision, (linear + offset).unsqueeze(-1) + gain @ known], -1)


def _squared(root: Tensor) -> Tensor:
    """Return R R^T of the lower triangular R whose diagonal is given by its logarithm."""
    lower = torch.tril(root, -1) + torch.diag_embed(root.diagonal().exp())
    return lower @ lower.mT


class _Conditionals(Proposals):
    def __init__(self, family: GaussianChain, parameters: dict[str, Tensor], data: SequenceData) -> None:
        self.family, self.parameters = family, parameters
        if not family.trajectories:
            return
        gain, offset, root = family.trajectory(parameters, data).conditionals()
        self.parts = gain.unbind(-3), offset.unbind(-2), root.unbind(-3)

    def start(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        heads = {s.name: self.family.heads[s.name] for s in self.family.starts}
        if any(head.first is not None for head in heads.values()):
            raise ValueError(
                "GaussianChain draws the latent before the first step after the trajectory; use Markov, or `begin`"
            )
        return {name: head.distribution(self.parameters[name], None).expand(shape) for name, head in heads.items()}

    def begin(self, shape: tuple[int, ...]) -> Start:
        if not (self.family.starts and self.family.trajectories):
            return super().begin(shape)
        # q(z_1) q(g | z_1): the latent before the first step leans on the first step
        distribution = self.step(0, None, {}).expand(shape)
        first = distribution.rsample()
        log_density, values = distribution.log_prob(first), {}
        for site in self.family.starts:
            head = self.family.heads[site.name].distribution(self.parameters[site.name], first)
            values[site.name] = head.rsample()
            log_density = log_density + head.log_prob(values[site.name])
        return Start(values, first, log_density)

    def density(self, values: dict[str, Tensor], first: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        if first is None:
            return super().density(values, first, shape)
        log_density = self.step(0, None, {}).expand(shape).log_prob(first)
        for site in self.family.starts:
            head = self.family.heads[site.name].distribution(self.parameters[site.name], first)
            log_density = log_density + head.log_prob(values[site.name])
        return log_density

    def step(self, t: int, before: Tensor | None, starts: dict[str, Tensor]) -> dist.Distribution:
        gain, offset, root = (part[t] for part in self.parts)
        loc = offset if before is None else offset + (gain @ before.unsqueeze(-1)).squeeze(-1)
        return dist.MultivariateNormal(loc, precision_matrix=root @ root.mT, validate_args=False)
