"""How far a posterior is from keeping its model's couplings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.support.notebooks import ShownInNotebooks


@dataclass(frozen=True)
class CouplingReport(ShownInNotebooks):
    """E_q[penalty] of one coupling, unweighted; no part of any density.

    Attributes:
        name: the coupling's name.
        weight: what it counted in the fit.
        values: nats, (sequence,), the mean over draws.
        standard_error: Monte Carlo error of each value, nats, (sequence,).
        mean: the mean over sequences, nats per sequence.
        mean_standard_error: its Monte Carlo error, nats, draws of parameters being shared by all sequences.
        num_samples: draws behind it.
    """

    name: str
    weight: float
    values: Tensor
    standard_error: Tensor
    mean: float
    mean_standard_error: float
    num_samples: int

    def __repr__(self) -> str:
        return (
            f"CouplingReport({self.name}: {self.mean:.4g} nats per sequence in {len(self.values)} sequences, Monte "
            f"Carlo error {self.mean_standard_error:.2g}, {self.num_samples} draws)"
        )


def coupling_reports(sampler: PosteriorSampler, num_samples: int) -> dict[str, CouplingReport]:
    """Return a report of every coupling of the model, by name, over draws of latents and parameters."""
    exact = not sampler.model.latent_sites() and sampler.guide.parameter_sites is None
    parts: dict[str, list[Tensor]] = {coupling.label: [] for coupling in sampler.model.couplings}
    for sampled in sampler.rollouts(num_samples) if parts else ():
        for coupling in sampler.model.couplings:
            value = coupling.penalty(sampled.rollout)  # without a sample axis where nothing is random
            parts[coupling.label].append(value.expand(num_samples, sampled.rollout.data.num_sequences).cpu())
    found = {}
    for coupling in sampler.model.couplings:
        value = torch.cat(parts[coupling.label], 1)
        average = value.mean(1)
        scale = 0.0 if exact else num_samples**-0.5
        found[coupling.label] = CouplingReport(
            coupling.label,
            coupling.weight,
            value.mean(0),
            value.std(0) * scale,
            float(average.mean()),
            float(average.std()) * scale,
            num_samples,
        )
    return found
