"""Draws of a guide with their log-weights, for bounds that average over importance weights."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.inference.objectives.objective import Evaluation
from latentrnn.inference.objectives.terms import PARAMETERS, Terms, sampled_sites, trace_log_weights
from latentrnn.models.sites import LATENTS


class WeightedDraws:
    """Draws of the guide for one batch, with log p(y, z) - log q(z) of each draw and sequence.

    Parameters with a posterior are drawn once for all particles: the bounds average over latents given parameters.

    Args:
        at: the circumstances.
        detached: whether log q is that of a guide whose parameters are constants, so that gradients reach these
            through the draws alone.
    """

    def __init__(self, at: Evaluation, *, detached: bool) -> None:
        self.at = at
        self._share = _Share()
        shown = at.data if at.guide_data is None else at.guide_data
        parameter_sites = at.guide.parameter_sites
        fixed = Trace() if parameter_sites is None else poutine.trace(parameter_sites).get_trace()
        with pyro.plate("particles", at.num_particles, dim=-2):
            drawn = poutine.trace(poutine.replay(at.guide, trace=fixed)).get_trace(shown)
            used = self._shared(drawn) if detached else drawn
            self.model_trace = poutine.trace(poutine.replay(at.model, trace=used)).get_trace(at.data)
            self.guide_trace = used
            if detached:
                constants = {name: p.detach() for name, p in at.guide.named_parameters()}

                def constant(data: SequenceData) -> Any:
                    return torch.func.functional_call(at.guide, constants, (data,))

                self.guide_trace = poutine.trace(poutine.replay(constant, trace=used)).get_trace(shown)
        self.parameter_kl = parameter_kl(fixed, self.model_trace, at.data)
        self.terms = self._terms()

    def _shared(self, drawn: Trace) -> Trace:
        """Return the trace with every latent as a copy, whose gradient `scale_gradients` can scale on its way back."""
        copied = drawn.copy()
        for name, site in list(copied.nodes.items()):
            if name in LATENTS:
                value = site["value"].clone()
                if value.requires_grad:
                    value.register_hook(self._share)
                copied.nodes[name] = {**site, "value": value}
        return copied

    def scale_gradients(self, share: Tensor) -> None:
        """Multiply what flows back into each draw, (particle, sequence), by `share`."""
        self._share.value = share

    def _terms(self) -> Terms:
        log_likelihood, kl, heads = {}, {}, {}
        scale = self.at.data.total / self.at.data.num_sequences
        with torch.no_grad():
            for name, site in sampled_sites(self.model_trace):
                if site["is_observed"]:
                    value = site["fn"].log_prob(site["value"])
                    heads[name] = value.mean(0)
                    log_likelihood[name] = self.at.weights.get(name, 1.0) * scale * heads[name].sum()
                elif name in LATENTS:
                    other = self.guide_trace.nodes[name]
                    loss = other["fn"].log_prob(other["value"]) - site["fn"].log_prob(site["value"])
                    kl[name] = scale * loss.mean(0).sum()
            if self.at.guide.parameter_sites is not None:
                kl[PARAMETERS] = self.parameter_kl.detach()
        return Terms(log_likelihood, kl, heads_by_sequence=heads)

    def total(self, values: Tensor) -> Tensor:
        """Return what values of each sequence, (sequence,), amount to for the whole plate, less the parameters' KL."""
        scale = self.at.data.total / self.at.data.num_sequences
        return scale * values.sum() - self.at.kl_weight * self.parameter_kl

    def log_weights(self) -> Tensor:
        """Return log-weights, (particle, sequence), nats, with the KL part weighted as it is."""
        at = self.at
        return trace_log_weights(
            self.guide_trace, self.model_trace, at.data, at.num_particles,
            kl_weight=at.kl_weight, head_weights=at.weights,
        )  # fmt: skip


def parameter_kl(fixed: Trace, model_trace: Trace, data: SequenceData) -> Tensor:
    """Return log q(theta) - log p(theta) of the one draw of the parameters with priors, zero where there are none."""
    total = torch.zeros((), dtype=data.dtype, device=data.device)
    for name, site in sampled_sites(fixed):
        total = total + site["fn"].log_prob(site["value"]).sum()
        if name != JOINT:
            prior = model_trace.nodes[name]["fn"].log_prob(site["value"])
            total = total - prior.mean()  # the same for every particle
    return total


class _Share:
    """What the gradients of draws are multiplied by.

    Hooks live as long as the graph and the graph as long as its hooks, where no collector can see it: so the hook knows
    the share alone, and nothing that leads back to the draws.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        if self.value is None:
            return gradient
        return gradient * self.value.reshape(*self.value.shape, *[1] * (gradient.dim() - self.value.dim()))
