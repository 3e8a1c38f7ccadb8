"""Several fits of one model from different seeds, weighed by what they say of held-out sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentrnn.data import SequenceData, SequenceKey
from latentrnn.inference.evidence import Evidence
from latentrnn.inference.guides import Guide
from latentrnn.inference.posterior import Posterior
from latentrnn.inference.result import FitResult
from latentrnn.inference.schedules import AdamW
from latentrnn.inference.svi import fit
from latentrnn.inference.together import fit_together
from latentrnn.models.state_space import LatentRNN
from latentrnn.models.transitions.transition import check_size

OPTIMAL = 1e-9  # nats per sequence that other weights could still gain


@dataclass(frozen=True)
class Ensemble:
    """A mixture of fits: p(y) = sum_k w_k p_k(y).

    Attributes:
        members: the fits, each a result of its own.
        weights: w_k, (member,), adding up to one.
        log_evidence: of every sequence that decided the weights, by member, (member, sequence), nats; None where all
            weights are equal because no sequences were given.
        used: identity of every sequence that was fitted, decided when to stop, or decided the weights.

    References:
        Yao, Vehtari, Simpson, Gelman. Using stacking to average Bayesian predictive distributions. 2018.
        Lakshminarayanan, Pritzel, Blundell. Simple and scalable predictive uncertainty estimation using deep
        ensembles. 2017.
    """

    members: tuple[FitResult, ...]
    weights: Tensor
    log_evidence: Tensor | None
    used: frozenset[SequenceKey]

    def posterior(self, data: SequenceData, *, device: str = "auto", seed: int = 0) -> EnsemblePosterior:
        """Return what the mixture believes about sequences; arguments as of `FitResult.posterior`."""
        return EnsemblePosterior(
            tuple(member.posterior(data, device=device, seed=seed) for member in self.members), self.weights
        )

    def __repr__(self) -> str:
        shown = ", ".join(f"seed {m.seed}: {w:.3f}" for m, w in zip(self.members, self.weights.tolist(), strict=True))
        return f"Ensemble({shown})"


class EnsemblePosterior:
    """What a mixture of fits believes about sequences.

    Members are weighed as given, whatever each sequence says of them: `evidence` is that of the mixture, and `mean`,
    `rates` and `predictive` mix predictions. Latents of different members have coordinates of their own and cannot be
    mixed; `posteriors[k].latents()` has them.

    Args:
        posteriors: one per member, of the same sequences.
        weights: (member,).
    """

    def __init__(self, posteriors: tuple[Posterior, ...], weights: Tensor) -> None:
        self.posteriors, self.weights, self.data = posteriors, weights, posteriors[0].data

    def mean(self, head: str, num_samples: int = 100) -> Tensor:
        """Return sum_k w_k E_k[y | data], (sequence, time, channel), `num_samples` draws per member; padding is NaN."""
        parts = [posterior.mean(head, num_samples) for posterior in self.posteriors]
        return sum((w * part for w, part in zip(self.weights.to(parts[0]), parts, strict=True)), torch.zeros(()))

    def rates(self, head: str, num_samples: int = 100) -> Tensor:
        """Return draws of E[y | latents], (sample, sequence, time, channel), of each member as many as its weight says.

        The counts are the nearest to `num_samples * weights` that add up.
        """
        return torch.cat([p.rates(head, n) for p, n in self._shared(num_samples)])

    def predictive(self, num_samples: int = 100, **settings: Any) -> dict[str, Tensor]:
        """Draw replicated data, of each member as many as its weight says; settings as of `Posterior.predictive`."""
        parts = [p.predictive(n, **settings) for p, n in self._shared(num_samples)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def evidence(self, kind: str = "iwae", num_particles: int = 64) -> Evidence:
        """Return log sum_k w_k p_k(y_n) of every sequence; of kind "elbo", the bound that the members' bounds imply."""
        found = [posterior.evidence(kind, num_particles) for posterior in self.posteriors]
        values = torch.stack([part.values for part in found])
        joint = values + self.weights.log().unsqueeze(-1).to(values)
        share = torch.softmax(joint, 0)
        errors = torch.stack([part.standard_error for part in found])
        # a member without weight has no share, whatever its error
        error = torch.where(share > 0, share * errors, 0.0).square().sum(0).sqrt()
        return Evidence(kind, torch.logsumexp(joint, 0), error, num_particles)

    def _shared(self, num_samples: int) -> list[tuple[Posterior, int]]:
        check_size("EnsemblePosterior", "number of draws", num_samples)
        exact = self.weights.double() * num_samples
        counts = exact.floor().long()
        rest = (exact - counts).argsort(descending=True, stable=True)[: num_samples - int(counts.sum())]
        counts[rest] += 1
        return [(p, n) for p, n in zip(self.posteriors, counts.tolist(), strict=True) if n]

    def __repr__(self) -> str:
        return f"EnsemblePosterior of {len(self.posteriors)} members and {self.data!r}"


def fit_ensemble(
    model: LatentRNN,
    guide: Guide,
    train: SequenceData,
    validation: SequenceData | None = None,
    *,
    seeds: Sequence[int] = range(5),
    optimisers: Sequence[AdamW] | None = None,
    together: bool = False,
    stacking: SequenceData | None = None,
    num_evidence_particles: int = 64,
    **settings: Any,
) -> Ensemble:
    """Fit a model from several seeds, and weigh the fits so that their mixture predicts held-out sequences best.

        w = argmax sum_n log sum_k w_k p_k(y_n)   over the sequences of `stacking`

    Weights of sequences that were fitted, or that chose among a fit's steps, would favour what over-fits: so they take
    sequences of their own, and without these all weights are equal. Each member is what `fit` gives with its seed.

    Args:
        model, guide, train, validation: as of `fit`.
        seeds: one per member.
        optimisers: one per member, for members that differ in learning rate, decay and the like; None gives all that
            of the settings.
        together: whether members take their steps together, their weights in one tensor with an axis of members, which
            is faster the smaller they are (docs/performance.md); else one fit follows the other, to the bit as it
            would alone. The random numbers are the same, so that results agree up to rounding.
        stacking: the sequences that decide the weights.
        num_evidence_particles: importance samples behind each p_k(y_n).
        **settings: of every fit.

    Raises:
        ValueError: no seed or one twice, another number of optimisers, stacking sequences that took part in the fits, a
            setting that members cannot share, data or parts that do not go with `together`, or whatever `fit` raises.

    References:
        Yao, Vehtari, Simpson, Gelman. Using stacking to average Bayesian predictive distributions. 2018.
    """
    seeds = list(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"fit_ensemble: seeds must be different from each other, at least one; found {seeds}")
    for name in ("seed", "start_from", "resume", "checkpoint"):
        if settings.get(name):
            raise ValueError(f"fit_ensemble: {name} belongs to one fit, and cannot be shared by the members")
    check_size("fit_ensemble", "num_evidence_particles", num_evidence_particles)
    if stacking is not None:
        for name, other in (("train", train), ("validation", validation)):
            if other is not None and (shared := stacking.overlaps(other)):
                raise ValueError(
                    f"fit_ensemble: {shared} stacking sequences are in {name} too, where they would favour what "
                    f"over-fits; stacking.without({name})"
                )
    optimisers = [settings.pop("optimiser", AdamW())] * len(seeds) if optimisers is None else list(optimisers)
    if len(optimisers) != len(seeds) or "optimiser" in settings:
        raise ValueError(
            f"fit_ensemble: optimisers must be one for each of {len(seeds)} seeds, without optimiser=; "
            f"found {len(optimisers)}"
        )
    if together:
        members = fit_together(model, guide, train, validation, seeds, optimisers, settings)
    else:
        members = tuple(
            fit(model, guide, train, validation, seed=seed, optimiser=optimiser, **settings)
            for seed, optimiser in zip(seeds, optimisers, strict=True)
        )
    used = frozenset().union(*(member.used for member in members))
    if stacking is None:
        return Ensemble(members, torch.full((len(seeds),), 1 / len(seeds), dtype=torch.float64), None, used)
    device = settings.get("device", "auto")
    found = [
        member.posterior(stacking, device=device).evidence("iwae", num_evidence_particles).values for member in members
    ]
    values = torch.stack(found).double()
    return Ensemble(members, stacking_weights(values), values, used | frozenset(stacking.keys))


def stacking_weights(log_evidence: Tensor, *, max_steps: int = 100_000) -> Tensor:
    """Return the weights of a mixture that maximise the sum of its log densities, (member,).

    By expectation maximisation, which climbs this concave function from equal weights; it ends when no weights could
    gain more than 1e-9 nats per sequence (log max_k mean_n p_k / p bounds that from above).

    Args:
        log_evidence: log p_k(y_n), (member, sequence), nats.
        max_steps: at most.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    values = log_evidence.detach().double().cpu()
    if values.dim() != 2 or not values.numel() or not bool(values.isfinite().all()):
        raise ValueError(f"stacking_weights: expected finite (member, sequence); found shape {tuple(values.shape)}")
    density = (values - values.amax(0)).exp()
    weights = torch.full((len(values),), 1 / len(values), dtype=torch.float64)
    for _ in range(max_steps):
        gain = (density / (weights @ density)).mean(1)
        if float(gain.max().log()) < OPTIMAL:
            break
        weights = weights * gain
    return weights / weights.sum()
