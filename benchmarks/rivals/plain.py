"""Training steps in plain torch, without any probabilistic library: the same networks and the same bound as ours.

What a careful engineer writes for one model: fused kernels wherever nothing depends on the sample before, a loop that
does as little as possible where something does, noise drawn at once, constants computed once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Rival(nn.Module):
    """A model, its guide, its data and its optimiser."""

    optimiser: torch.optim.Optimizer

    def loss(self, noise: Any = None) -> Tensor:
        """Return minus the ELBO of the batch, nats; `noise` takes the place of standard normal draws."""
        raise NotImplementedError

    def step(self) -> Tensor:
        """Take one step of the optimiser."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 10.0)
        self.optimiser.step()
        return loss.detach()


def log_normal(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log density of a Normal, entry by entry."""
    return -0.5 * ((x - loc) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def mlp(into: int, hidden: int, out: int) -> nn.Sequential:
    """One hidden layer of rectified units."""
    return nn.Sequential(nn.Linear(into, hidden), nn.ReLU(), nn.Linear(hidden, out))


class DeepMarkov(Rival):
    """The deep Markov model with its backward recurrent guide (Krishnan, Shalit, Sontag 2017).

    Args:
        y: zeros and ones, (sequence, time, channel), zero in padding.
        lengths: steps of each sequence, (sequence,).
        latent, emission, transition, hidden: sizes of the state, of the emission's two layers, of the transition's
            two networks, and of the guide.
    """

    def __init__(self, y: Tensor, lengths: Tensor, latent: int, emission: int, transition: int, hidden: int) -> None:
        super().__init__()
        steps, channels = y.shape[1:]
        self.latent = latent
        self.encoder = nn.RNN(channels, hidden, nonlinearity="relu", batch_first=True)
        self.combine, self.q = nn.Linear(latent, hidden), nn.Linear(hidden, 2 * latent)
        self.q_start = nn.Linear(hidden, 2 * latent)
        self.gate, self.proposal = mlp(latent, transition, latent), mlp(latent, transition, latent)
        self.linear, self.p_scale = nn.Linear(latent, latent), nn.Linear(latent, latent)
        self.emit = nn.Sequential(mlp(latent, emission, emission), nn.ReLU(), nn.Linear(emission, channels))
        self.p_start = nn.Parameter(torch.zeros(2, latent))
        self.y, self.mask = y, (torch.arange(steps) < lengths[:, None]).float()
        self.reverse = (lengths[:, None] - 1 - torch.arange(steps)).clamp_min(0).unsqueeze(-1)
        self.y_reversed = y.gather(1, self.reverse.expand_as(y)) * self.mask.unsqueeze(-1)
        self.optimiser = torch.optim.Adam(self.parameters(), 3e-4)

    def encoded(self) -> Tensor:
        """What the guide's recurrent network says of every step, (sequence, time, hidden)."""
        states = self.encoder(self.y_reversed)[0]
        return states.gather(1, self.reverse.expand(-1, -1, states.shape[-1]))

    def loss(self, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
        encoded, batch, steps = self.encoded(), len(self.y), self.y.shape[1]
        if noise is None:
            noise = torch.randn(batch, self.latent), torch.randn(batch, steps, self.latent)
        loc, raw = self.q_start(encoded[:, 0]).chunk(2, -1)
        scale = F.softplus(raw)
        z = start = loc + scale * noise[0]
        kl = (log_normal(start, loc, scale) - log_normal(start, self.p_start[0], self.p_start[1].exp())).sum()
        states, numbers = [], []
        for encoded_t, noise_t in zip(encoded.unbind(1), noise[1].unbind(1), strict=True):
            number = self.q(0.5 * (torch.tanh(self.combine(z)) + encoded_t))
            loc, raw = number.chunk(2, -1)
            z = torch.addcmul(loc, F.softplus(raw), noise_t)
            states.append(z), numbers.append(number)
        path, (q_loc, q_raw) = torch.stack(states, 1), torch.stack(numbers, 1).chunk(2, -1)
        before = torch.cat([start.unsqueeze(1), path[:, :-1]], 1)
        gate, proposal = torch.sigmoid(self.gate(before)), self.proposal(before)
        p_loc = torch.lerp(self.linear(before), proposal, gate)
        p_scale = F.softplus(self.p_scale(p_loc))
        log_y = -F.binary_cross_entropy_with_logits(self.emit(path), self.y, reduction="none").sum(-1)
        per_step = (log_normal(path, q_loc, F.softplus(q_raw)) - log_normal(path, p_loc, p_scale)).sum(-1) - log_y
        return kl + (per_step * self.mask).sum()


class Innovations(Rival):
    """A GRU driven by inferred inputs, with Poisson channels and a bidirectional GRU as guide (as LFADS, white prior).

    Args:
        y: counts, (sequence, time, channel).
        hidden, encoder, inputs: units of the generator, of each direction of the guide, and inferred inputs per step.
        initial: dimension of the latent that the first state is mapped from; 0 for a learned first state.
        factors: of the readout; 0 reads all units out.
    """

    def __init__(self, y: Tensor, hidden: int, encoder: int, inputs: int, initial: int = 0, factors: int = 0) -> None:
        super().__init__()
        channels = y.shape[-1]
        self.encoder = nn.GRU(channels, encoder, batch_first=True, bidirectional=True)
        self.q = nn.Linear(2 * encoder, 2 * inputs)
        self.scale = nn.Parameter(torch.zeros(inputs))
        self.generator = nn.GRU(inputs, hidden, batch_first=True)
        self.q_initial = nn.Linear(2 * encoder, 2 * initial) if initial else None
        self.to_state = nn.Linear(initial, hidden) if initial else None
        self.first = None if initial else nn.Parameter(torch.zeros(hidden))
        layers = [nn.Linear(hidden, factors, bias=False)] if factors else []
        self.readout = nn.Sequential(*layers, nn.Linear(factors or hidden, channels))
        self.y, self.constant = y, torch.lgamma(y + 1).sum()
        self.optimiser = torch.optim.Adam(self.parameters(), 1e-3)

    def loss(self, noise: tuple[Tensor | None, Tensor] | None = None) -> Tensor:
        states, last = self.encoder(self.y)
        loc, raw = self.q(states).chunk(2, -1)
        q_scale, p_scale = F.softplus(raw), self.scale.exp()
        u = torch.addcmul(loc, q_scale, torch.randn_like(loc) if noise is None else noise[1])
        ratio = (q_scale / p_scale).square()
        kl = 0.5 * (ratio + (loc / p_scale).square() - 1 - ratio.log()).sum()
        if self.q_initial is None or self.to_state is None:
            assert self.first is not None
            start = self.first.expand(1, len(self.y), -1).contiguous()
        else:
            loc, raw = self.q_initial(last.transpose(0, 1).flatten(1)).chunk(2, -1)
            q_scale = F.softplus(raw)
            drawn = torch.addcmul(loc, q_scale, torch.randn_like(loc) if noise is None else noise[0])
            kl = kl + (0.5 * (q_scale.square() + loc.square() - 1) - q_scale.log()).sum()
            start = self.to_state(drawn).unsqueeze(0)
        eta = self.readout(self.generator(u, start)[0])
        return kl - torch.dot(self.y.flatten(), eta.flatten()) + eta.exp().sum() + self.constant
