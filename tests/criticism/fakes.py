"""Stand-ins with the interface that criticism reads, holding known arrays."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from latentrnn.data import SequenceData, SequenceKey
from latentrnn.inference.evidence.evidence import Evidence


def counts_data(counts, *, dt=0.01, masks=None, head="spikes") -> SequenceData:
    return SequenceData.from_arrays({head: counts}, dt=dt, masks=None if masks is None else {head: masks})


class FakePosterior:
    """Replicates and log evidence are what the test says they are."""

    def __init__(
        self,
        data: SequenceData,
        *,
        replicates: dict[str, Tensor] | None = None,
        log_evidence: Tensor | None = None,
        monte_carlo: float = 0.0,
        pareto_k: Tensor | None = None,
        used: frozenset[SequenceKey] | None = frozenset(),
        heads: list[str] | None = None,
    ) -> None:
        self.data = data
        self.replicates = replicates or {}
        self.log_evidence = log_evidence
        self.monte_carlo, self.pareto_k = monte_carlo, pareto_k
        self.result = None if used is None else SimpleNamespace(used=used)
        self.model = SimpleNamespace(observations=dict.fromkeys(heads or list(data.observations)))
        self.asked: dict[str, object] = {}

    def predictive(self, num_samples, *, heads=None, **options):
        self.asked = {"num_samples": num_samples, "heads": heads, **options}
        return {head: self.replicates[head][:num_samples] for head in heads}

    def evidence(self, kind="elbo", num_particles=64):
        self.asked = {"kind": kind, "num_particles": num_particles}
        values = self.log_evidence
        error = torch.full_like(values, self.monte_carlo)
        if self.pareto_k is None:
            return Evidence("iwae", values, error, num_particles)
        return Evidence("iwae", values, error, num_particles, torch.full_like(values, 9.0), self.pareto_k)


def one_step_ahead(
    log_prob, mean, observed, *, scored=None, head="spikes", standard_error=None, used=frozenset(), keys=None
):
    if keys is None:
        keys = tuple(SequenceKey(f"recording {i}", 0, observed.shape[1]) for i in range(observed.shape[0]))
    return SimpleNamespace(
        head=head,
        log_prob=log_prob,
        mean=mean,
        observed=observed,
        scored=torch.ones_like(log_prob, dtype=torch.bool) if scored is None else scored,
        standard_error=standard_error,
        exact=standard_error is None,
        dt=0.001,
        keys=keys,
        used=used,
    )


def poisson_one_step_ahead(rates: Tensor, counts: Tensor, **options):
    rates, counts = rates.double(), counts.double()
    return one_step_ahead(torch.distributions.Poisson(rates).log_prob(counts), rates, counts, **options)
