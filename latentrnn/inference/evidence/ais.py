"""Annealed importance sampling: draws of the guide led to the posterior by Hamiltonian transitions."""

from __future__ import annotations

import math
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.evidence.evidence import AIS
from latentrnn.inference.objectives.terms import local_log_prob, sampled_sites
from latentrnn.models.sites import LATENTS

TARGET_ACCEPTANCE = 0.8
SCALE_DRAWS = 64  # draws of the guide that tell the scale of every coordinate
WARM_UP = 20  # transitions of the pilot before the path, in which a first step size is found
JITTER = 0.2  # step sizes vary by so much from chain to chain, so that no orbit closes
STEEPNESS = 4.0  # of the schedule: temperatures lie closer at both ends of the path


class Point(NamedTuple):
    """The points at which all chains are: values by site, and their log-densities, (particle, sequence)."""

    values: dict[str, Tensor]
    guide: Tensor  # log q(z | y)
    model: Tensor  # log p(y, z)


def anneal(model: nn.Module, guide: nn.Module, data: SequenceData, num_particles: int, settings: AIS) -> Tensor:
    """Return log-weights of annealed draws, (particle, sequence), in nats; their weights average to p(y | theta).

        z_0 ~ q(z | y),  z_k ~ T_k(z_{k-1}),  log w = sum_k (b_k - b_{k-1}) (log p(y, z_{k-1}) - log q(z_{k-1} | y))

    T_k is a Hamiltonian transition that leaves q^(1 - b_k) p^(b_k) as it is, accepted or rejected for every particle
    and sequence by itself. Step sizes, one for every temperature and sequence, come from a pilot run with other
    draws, and scales of coordinates from the guide, so that the average is right whatever they are. Parameters with a
    posterior are drawn anew for each particle, as for importance weights.

    Args:
        model, guide: Pyro programs over a batch.
        data: the batch.
        num_particles: chains.
        settings: how long, and how fine.

    References:
        Neal. Annealed importance sampling. 2001.
        Neal. MCMC using Hamiltonian dynamics. 2011.
        Wu, Burda, Salakhutdinov, Grosse. On the quantitative analysis of decoder-based generative models. 2017.
    """
    # cuDNN has no backward in eval mode
    with torch.backends.cudnn.flags(enabled=False):
        scales = guide_scales(guide, data)
        sizes = Annealer(model, guide, data, settings.pilot, scales).find_sizes(settings)
        return Annealer(model, guide, data, num_particles, scales).run(settings, sizes)


def schedule(temperatures: int) -> list[float]:
    """Return 0 = b_0 < ... < b_K = 1, sigmoidal: steps are small where weights change fast."""

    def at(k: int) -> float:
        return 1 / (1 + math.exp(-STEEPNESS * (2 * k / temperatures - 1)))

    return [(at(k) - at(0)) / (at(temperatures) - at(0)) for k in range(temperatures + 1)]


class Annealer:
    """Chains side by side, (particle, sequence), each with a draw of the parameters of its own."""

    def __init__(
        self, model: nn.Module, guide: nn.Module, data: SequenceData, particles: int, scales: dict[str, Tensor]
    ) -> None:
        self.model, self.guide, self.data, self.particles, self.scales = model, guide, data, particles, scales
        with torch.no_grad():
            self.trace = _draw(guide, data, particles)

    def find_sizes(self, settings: AIS) -> Tensor:
        """Return step sizes, (temperature, sequence), at which about the wanted share of proposals is accepted."""
        betas, point = schedule(settings.temperatures), self.start()
        entries = sum(v.shape[-1] * (v.shape[-2] if v.dim() == 4 else 1) for v in point.values.values())
        size = point.model.new_full((self.data.num_sequences,), max(entries, 1) ** -0.25)
        for _ in range(WARM_UP):
            point, accepted = self.move(point, betas[1], size, settings.leapfrog)
            size = size * (accepted.mean(0) - TARGET_ACCEPTANCE).exp()
        sizes = [size]
        for beta in betas[1:-1]:
            point, accepted = self.move(point, beta, size, settings.leapfrog)
            sizes.append(size)
            size = size * (0.5 * (accepted.mean(0) - TARGET_ACCEPTANCE)).exp()
        return torch.stack(sizes)

    def run(self, settings: AIS, sizes: Tensor) -> Tensor:
        """Return the log-weights, (particle, sequence)."""
        betas, point = schedule(settings.temperatures), self.start()
        total = torch.zeros_like(point.model)
        for k in range(1, len(betas)):
            total = total + (betas[k] - betas[k - 1]) * (point.model - point.guide)
            if k + 1 < len(betas):
                point = self.move(point, betas[k], sizes[k], settings.leapfrog)[0]
        return total

    def start(self) -> Point:
        """Return the chains at draws of the guide."""
        values = {name: site["value"] for name, site in self.trace.nodes.items() if name in LATENTS}
        return self._evaluate(values, 0.0)[0]

    def move(self, point: Point, beta: float, size: Tensor, steps: int) -> tuple[Point, Tensor]:
        """Return the chains after one Hamiltonian transition, and the probability with which each was accepted."""
        jitter = 1 + JITTER * (2 * torch.rand_like(point.model) - 1)
        size = size * jitter
        momentum = {name: self._kick(name, value) for name, value in point.values.items()}
        start = (1 - beta) * point.guide + beta * point.model - kinetic_energy(momentum)
        values, force = point.values, self._evaluate(point.values, beta)[1]
        new = point
        for step in range(steps):
            half = 0.5 if step == 0 else 1.0
            momentum = {n: p + self._inside(n, _spread(half * size, p) * force[n]) for n, p in momentum.items()}
            values = {n: v + _spread(size, v) * self.scales[n] * momentum[n] for n, v in values.items()}
            new, force = self._evaluate(values, beta)
        momentum = {n: p + self._inside(n, _spread(0.5 * size, p) * force[n]) for n, p in momentum.items()}
        change = (1 - beta) * new.guide + beta * new.model - kinetic_energy(momentum) - start
        # an orbit that left what can be computed is rejected
        change = torch.where(torch.isfinite(change), change, -math.inf)
        accept = torch.rand_like(change).log() < change
        kept = {n: torch.where(_spread(accept, v), values[n], v) for n, v in point.values.items()}
        moved = Point(kept, torch.where(accept, new.guide, point.guide), torch.where(accept, new.model, point.model))
        return moved, change.clamp(max=0.0).exp()

    def _evaluate(self, values: dict[str, Tensor], beta: float) -> tuple[Point, dict[str, Tensor]]:
        """Return the point, and the force on every coordinate in units of its scale."""
        with torch.enable_grad():
            free = {name: value.detach().requires_grad_() for name, value in values.items()}
            at = Trace()
            for name, site in self.trace.nodes.items():
                at.add_node(name, **{**site, "value": free.get(name, site["value"])})
            with pyro.plate("particles", self.particles, dim=-2):
                guided = poutine.trace(poutine.replay(self.guide, trace=at)).get_trace(self.data)
                joint = poutine.trace(poutine.replay(self.model, trace=at)).get_trace(self.data)
            nothing = torch.zeros(
                self.particles, self.data.num_sequences, dtype=self.data.dtype, device=self.data.device
            )
            log_q = local_log_prob(guided, nothing, observed=False)
            log_p = local_log_prob(joint, nothing, observed=True)
            target = (1 - beta) * log_q + beta * log_p
            found = torch.autograd.grad(target.sum(), list(free.values()))
        force = {name: self.scales[name] * g for name, g in zip(free, found, strict=True)}
        return Point(values, log_q.detach(), log_p.detach()), force

    def _kick(self, name: str, value: Tensor) -> Tensor:
        return self._inside(name, torch.randn_like(value))

    def _inside(self, name: str, momentum: Tensor) -> Tensor:
        """Leave padding where it is: there guide and model are the same."""
        if momentum.dim() != 4 or not self.data.padded:
            return momentum
        return torch.where(self.data.valid.unsqueeze(-1), momentum, 0.0)


def _draw(guide: nn.Module, data: SequenceData, particles: int) -> Trace:
    with pyro.plate("particles", particles, dim=-2):
        trace: Trace = poutine.trace(guide).get_trace(data)
    for name in [name for name, site in trace.nodes.items() if (name, site) not in sampled_sites(trace)]:
        trace.remove_node(name)
    return trace


def guide_scales(guide: nn.Module, data: SequenceData) -> dict[str, Tensor]:
    """Return the guide's standard deviation of every coordinate, (sequence, [time,] dim)."""
    with torch.no_grad():
        trace = _draw(guide, data, SCALE_DRAWS)
    return {n: site["value"].std(0).clamp_min(1e-6) for n, site in trace.nodes.items() if n in LATENTS}


def kinetic_energy(momentum: dict[str, Tensor]) -> Tensor:
    """Return the kinetic energy of every chain, (particle, sequence)."""
    total = sum(0.5 * p.square().flatten(2).sum(-1) for p in momentum.values())
    assert isinstance(total, Tensor)
    return total


def _spread(value: Tensor, like: Tensor) -> Tensor:
    """Return (particle, sequence) with further axes, so that it goes with `like`."""
    return value.reshape(*value.shape, *[1] * (like.dim() - value.dim()))
