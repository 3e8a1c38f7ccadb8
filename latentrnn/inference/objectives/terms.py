"""The terms of the evidence lower bound, one by one, without a host synchronisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from latentrnn.data import SequenceData
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.inference.objectives.log_weights import paired_traces, sampled_sites
from latentrnn.models.latents.autoregressive import AutoregressiveNormal
from latentrnn.models.latents.gaussian_process import GaussianProcess
from latentrnn.models.sites import LATENTS

PARAMETERS = "parameters"  # the term of all parameters with priors together


class Terms(NamedTuple):
    """The parts of a batch's ELBO, in nats, weighted so that they stand for the whole plate.

    Attributes:
        log_likelihood: per head, E_q[log p(y | z)], summed over the plate.
        kl: per local latent site (and `parameters`), KL(q || p) or its sample estimate.
        floored: the same, each sequence's raised to the free bits; None where there are none.
    """

    log_likelihood: dict[str, Tensor]
    kl: dict[str, Tensor]
    floored: dict[str, Tensor] | None = None

    def elbo(self, kl_weight: float = 1.0) -> Tensor:
        """Return log-likelihood minus KL; the weight is one for the true ELBO."""
        return sum(self.log_likelihood.values()) - kl_weight * sum(self.kl.values(), torch.zeros(()))

    def reweighted(self, weights: Mapping[str, float]) -> Terms:
        """Return the terms with the log-likelihoods of the named heads multiplied."""
        return self._replace(
            log_likelihood={name: v * weights.get(name, 1.0) for name, v in self.log_likelihood.items()}
        )


def elbo_terms(
    model: Callable[[SequenceData], Any],
    guide: nn.Module,
    data: SequenceData,
    *,
    num_particles: int = 1,
    analytic_kl: bool = True,
    guide_data: SequenceData | None = None,
    free_bits: float = 0.0,
) -> Terms:
    """Return the terms of the ELBO of a batch.

    With `analytic_kl=False` their sum is what `pyro.infer.Trace_ELBO` returns for the same random numbers. With it,
    KL(q || p) is exact where both are Gaussian and p does not depend on another latent's draw.

    Args:
        model, guide: Pyro programs over a batch.
        data: the batch.
        num_particles: draws of the guide, vectorised.
        analytic_kl: whether to use closed forms.
        guide_data: what the guide is shown instead of `data` (coordinated dropout).
        free_bits: KL of a sequence and local site to which a lower one is raised in `Terms.floored`, nats.
    """
    guide_trace, model_trace = paired_traces(model, guide, data, num_particles, guide_data)
    log_likelihood: dict[str, Tensor] = {}
    kl: dict[str, Tensor] = {}
    floored: dict[str, Tensor] = {}
    for name, site in sampled_sites(model_trace):
        if site["is_observed"]:
            log_likelihood[name] = _weighted_log_prob(site).sum() / num_particles
            continue
        term = name if name in LATENTS else PARAMETERS
        other = guide_trace.nodes[name]
        if analytic_kl and has_closed_form(other["fn"], site["fn"]):
            value = scale_and_mask(kl_divergence(other["fn"], site["fn"]), site["scale"], site["mask"])
        else:
            value = _weighted_log_prob(other) - _weighted_log_prob(site)
        kl[term] = kl.get(term, 0.0) + value.sum() / num_particles
        if free_bits and name in LATENTS:
            by_sequence = value.reshape(-1, value.shape[-1]).sum(0) / num_particles
            floored[term] = by_sequence.clamp_min(free_bits * site["scale"]).sum()
    if JOINT in guide_trace.nodes:
        kl[PARAMETERS] = kl[PARAMETERS] + _weighted_log_prob(guide_trace.nodes[JOINT]).sum() / num_particles
    return Terms(log_likelihood, kl, kl | floored if free_bits else None)


def has_closed_form(q: Any, p: Any) -> bool:
    """Return whether KL(q || p) is computed exactly."""
    if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal)):
        return False
    if isinstance(p, AutoregressiveNormal | GaussianProcess):
        return True
    return (
        isinstance(p, Independent)
        and isinstance(p.base_dist, Normal)
        and p.reinterpreted_batch_ndims == q.reinterpreted_batch_ndims
    )


def _weighted_log_prob(site: dict[str, Any]) -> Tensor:
    return scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])
