"""Several fits of one model from different seeds, weighed by what they say of held-out sequences."""

from __future__ import annotations

import dataclasses
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentrnn.data import DataSpec, SequenceData, SequenceKey, StoredSequences
from latentrnn.inference.fitting.distributed.processes import ProcessLost, launched_processes
from latentrnn.inference.fitting.fit import fit
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.settings.checkpointing import Checkpointing
from latentrnn.inference.fitting.settings.compute import Compute
from latentrnn.inference.fitting.settings.optimizers import AdamW
from latentrnn.inference.fitting.settings.reporting import Reporting
from latentrnn.inference.fitting.vectorised.vectorised import fit_vectorised
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior
from latentrnn.inference.sampling.saved_ensembles import Mixture, load_ensemble, save_ensemble
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_flag, check_kind_of, check_list, check_seed, check_size
from latentrnn.support.deprecations import former_arguments
from latentrnn.support.isolation import isolated
from latentrnn.support.notebooks import ShownInNotebooks

OPTIMAL = 1e-9  # nats per sequence that other weights could still gain


@dataclass(frozen=True)
class Ensemble(ShownInNotebooks):
    """A mixture of fits: p(y) = sum_k w_k p_k(y).

    Attributes:
        members: the fits, each a result of its own.
        weights: w_k, (member,), adding up to one.
        log_evidence: of every sequence that decided the weights, by member, (member, sequence), nats; None where all
            weights are equal because no sequences were given.
        used: identity of every sequence that was fitted, decided when to stop, or decided the weights.
        failures: why fits from other seeds came to nothing, by seed; not saved.

    References:
        Yao, Vehtari, Simpson, Gelman. Using stacking to average Bayesian predictive distributions. 2018.
        Lakshminarayanan, Pritzel, Blundell. Simple and scalable predictive uncertainty estimation using deep
        ensembles. 2017.
    """

    members: tuple[FitResult, ...]
    weights: Tensor
    log_evidence: Tensor | None
    used: frozenset[SequenceKey]
    failures: Mapping[int, str] = field(default_factory=dict)

    def posterior(self, data: SequenceData, **settings: Any) -> EnsemblePosterior:
        """Return what the mixture believes about sequences; settings as of `FitResult.posterior`."""
        members = [member.posterior(data, **settings) for member in self.members]
        return EnsemblePosterior(members, self.weights, self)

    @property
    def spec(self) -> DataSpec:
        """The spec of the data that the members were built for."""
        return self.members[0].spec

    @isolated
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write every member and what weighs them into the folder `path`; `Ensemble.load` reads it."""
        save_ensemble(Mixture(self.members, self.weights, self.log_evidence, self.used), path)

    @staticmethod
    @isolated
    def load(path: str | os.PathLike[str], *, spec: DataSpec | None = None) -> Ensemble:
        """Read what `save` wrote, on the CPU; `spec` is compared with the saved one, as by `latentrnn.load`."""
        return Ensemble(*load_ensemble(path, spec=spec))

    def _shown(self) -> tuple[list[str], list[Any]]:
        weights = self.weights.tolist()
        lines = [f"{weight:.3f}: {member!r}" for weight, member in zip(weights, self.members, strict=True)]
        return lines, []

    def __repr__(self) -> str:
        shown = ", ".join(f"seed {m.seed}: {w:.3f}" for m, w in zip(self.members, self.weights.tolist(), strict=True))
        return f"Ensemble({shown})"


@former_arguments(
    "fit_ensemble", hands_on_to=fit, each={"optimizer": "optimizers"}, checkpointing=Checkpointing.of_former
)
@isolated
def fit_ensemble(
    model: LatentRNN,
    guide: Guide,
    train: SequenceData,
    validation: SequenceData | None = None,
    *,
    seeds: Sequence[int] = range(5),
    optimizers: Sequence[AdamW] | None = None,
    vectorised: bool = False,
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
        optimizers: one per member, for members that differ in learning rate, decay and the like; None gives all that
            of the settings.
        vectorised: whether members take their steps at once, their weights in one tensor with an axis of members,
            which is faster the smaller they are (docs/performance.md); else one fit follows the other, to the bit as it
            would alone. The random numbers are the same, so that results agree up to rounding.
        stacking: the sequences that decide the weights.
        num_evidence_particles: behind each p_k(y_n), see `Posterior.evidence("auto")`.
        **settings: of every fit.

    Raises:
        ValueError: no seed or one twice, another number of optimizers, stacking sequences that took part in the fits, a
            setting that members cannot share, data or parts that do not go with `vectorised`, or whatever `fit` raises.
        TypeError: an argument of the wrong kind, or one that `fit` does not have.

    Warns:
        RuntimeWarning: the fit of a seed came to nothing; those of the others are the members. Where all did, the
            first one's error is raised.

    References:
        Yao, Vehtari, Simpson, Gelman. Using stacking to average Bayesian predictive distributions. 2018.
    """
    seeds = _checked_seeds(seeds)
    vectorised = check_flag("fit_ensemble", "vectorised", vectorised)
    for name in settings.keys() - inspect.signature(fit).parameters.keys():
        raise TypeError(f"fit_ensemble: {name!r} is no setting of fit, to which all that is not named here goes")
    for name in ("seed", "start_from", "checkpointing"):
        if settings.pop(name, None) is not None:
            raise ValueError(f"fit_ensemble: {name} belongs to one fit, and cannot be shared by the members")
    check_size("fit_ensemble", "num_evidence_particles", num_evidence_particles)
    if stacking is not None:
        check_kind_of("fit_ensemble", "stacking", stacking, SequenceData)
        for name, other in (("train", train), ("validation", validation)):
            if other is None:
                continue
            check_kind_of("fit_ensemble", name, other, SequenceData, StoredSequences)
            if common := stacking.overlaps(other):
                raise ValueError(
                    f"fit_ensemble: {common} stacking sequences are in {name} too, where they would favour what "
                    f"over-fits; stacking.without({name})"
                )
    optimizers = [settings.pop("optimizer", AdamW())] * len(seeds) if optimizers is None else optimizers
    optimizers = check_list("fit_ensemble", "optimizers", optimizers, "AdamW, one for each seed")
    if len(optimizers) != len(seeds) or "optimizer" in settings:
        raise ValueError(
            f"fit_ensemble: optimizers must be one for each of {len(seeds)} seeds, without optimizer=; "
            f"found {len(optimizers)}"
        )
    found: list[Any]
    if vectorised:
        found = list(fit_vectorised(model, guide, train, validation, seeds, optimizers, settings))
    else:
        found = [
            _fit_or_failure(model, guide, train, validation, seed=seed, optimizer=optimizer, **_of_member(k, settings))
            for k, (seed, optimizer) in enumerate(zip(seeds, optimizers, strict=True))
        ]
    members, failures = _apart(seeds, found)
    used = frozenset().union(*(member.used for member in members))
    if stacking is None:
        equal = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
        return Ensemble(members, equal, None, used, failures)
    device = settings.get("compute", Compute()).device
    judged = [member.posterior(stacking, device=device).evidence("auto", num_evidence_particles) for member in members]
    for member, evidence in zip(members, judged, strict=True):
        evidence.warn("fit_ensemble", f"the member of seed {member.seed}")
    values = torch.stack([evidence.values for evidence in judged]).double()
    return Ensemble(members, stacking_weights(values), values, used | frozenset(stacking.keys), failures)


def _of_member(number: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a member's fit: the priors of all are those of the first, and are looked at once."""
    if number == 0:
        return settings
    return settings | {"reporting": dataclasses.replace(settings.get("reporting", Reporting()), check_priors=False)}


def _fit_or_failure(*parts: Any, **settings: Any) -> FitResult | Exception:
    """Return the fit, or the error that left nothing of it, so that those of other seeds are not lost with it."""
    try:
        return fit(*parts, **settings)
    except ProcessLost:
        raise
    except ValueError as error:  # that nothing was learnt, which every process of a fit finds
        return error
    except RuntimeError as error:
        # of one process alone: the others are in the midst of this fit, and would wait for it for ever
        if launched_processes(torch.device("cpu"), settings.get("compute", Compute()).processes).size > 1:
            raise
        return error


def _apart(seeds: Sequence[int], found: Sequence[Any]) -> tuple[tuple[FitResult, ...], dict[int, str]]:
    """Return the fits, and why the others came to nothing.

    Raises:
        ValueError, RuntimeError: all came to nothing; the first one's error.

    Warns:
        RuntimeWarning: some did.
    """
    members = tuple(each for each in found if isinstance(each, FitResult))
    if not members:
        raise found[0]
    failures = {s: str(each) for s, each in zip(seeds, found, strict=True) if not isinstance(each, FitResult)}
    for seed, reason in failures.items():
        warnings.warn(f"fit_ensemble: no member of seed {seed}: {reason}", RuntimeWarning, stacklevel=5)
    return members, failures


def _checked_seeds(seeds: Any) -> list[int]:
    given = check_list("fit_ensemble", "seeds", seeds, "integers")
    found = [check_seed("fit_ensemble", seed, name="each of seeds") for seed in given]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"fit_ensemble: seeds must be different from each other, at least one; found {found}")
    return found


@isolated
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
