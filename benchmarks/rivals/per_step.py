"""The deep Markov model in the idiom of tutorials: one Pyro site for every time step, in model and guide.

The networks are those of `plain.DeepMarkov`, their weights too; only what surrounds them differs.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.nn import functional as F

from benchmarks.rivals.plain import DeepMarkov


class PerStep:
    """Model and guide for `pyro.infer.SVI`."""

    def __init__(self, networks: DeepMarkov) -> None:
        pyro.clear_param_store()
        self.net = networks
        optimiser = pyro.optim.ClippedAdam({"lr": 3e-4, "clip_norm": 10.0})
        self.svi = SVI(self.model, self.guide, optimiser, Trace_ELBO())

    def model(self) -> None:
        """p(y, z), one site after the other."""
        net = pyro.module("per_step", self.net)
        with pyro.plate("sequences", len(net.y)):
            loc, log_scale = net.p_start
            z = pyro.sample("z_0", dist.Normal(loc.expand(len(net.y), -1), log_scale.exp()).to_event(1))
            for t in pyro.markov(range(net.y.shape[1])):
                seen = net.mask[:, t : t + 1].bool()
                gate, proposal = torch.sigmoid(net.gate(z)), net.proposal(z)
                loc = torch.lerp(net.linear(z), proposal, gate)
                scale = F.softplus(net.p_scale(loc))
                z = pyro.sample(f"z_{t + 1}", dist.Normal(loc, scale).mask(seen).to_event(1))
                law = dist.Bernoulli(logits=net.emit(z)).mask(seen).to_event(1)
                pyro.sample(f"y_{t}", law, obs=net.y[:, t])

    def guide(self) -> None:
        """q(z | y), one site after the other."""
        net = pyro.module("per_step", self.net)
        encoded = net.encoded()
        with pyro.plate("sequences", len(net.y)):
            loc, raw = net.q_start(encoded[:, 0]).chunk(2, -1)
            z = pyro.sample("z_0", dist.Normal(loc, F.softplus(raw)).to_event(1))
            for t in pyro.markov(range(net.y.shape[1])):
                seen = net.mask[:, t : t + 1].bool()
                loc, raw = net.q(0.5 * (torch.tanh(net.combine(z)) + encoded[:, t])).chunk(2, -1)
                z = pyro.sample(f"z_{t + 1}", dist.Normal(loc, F.softplus(raw)).mask(seen).to_event(1))

    def step(self) -> float:
        """Take one step of the optimiser."""
        return float(self.svi.step())
