"""Factors that tie heads to each other: penalties of a fit, reported apart, and no part of any density."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from latentrnn.models.component import Component
from latentrnn.models.observations import Bernoulli, Categorical, DiscreteHazard, Observation
from latentrnn.models.rollout import Rollout
from latentrnn.support.arguments import check_number, check_text

FLOOR = 1e-6  # probabilities are kept this far from zero and one


class Coupling(Component):
    """weight * penalty(rollout), in nats, subtracted from the ELBO while fitting.

    A coupling un-normalises the model, so it enters the loss of `fit` alone. The reported ELBO, validation, evidence,
    log-likelihoods, comparison, and whatever Pyro does with the model leave it out; `fit` reports the penalty itself,
    unweighted, as `coupling/<name>` in `FitResult.history` (nats per sequence), and `Posterior.couplings` on any data.
    A new one writes `penalty`.

    Args:
        weight: how much a nat of penalty counts against a nat of ELBO.
        name: what it is called in reports, by default its class; couplings of one class need different names.

    Raises:
        ValueError: a weight that is not positive, or an empty name.

    References:
        Ganchev, Graça, Gillenwater, Taskar. Posterior regularization for structured latent variable models. 2010.
    """

    def __init__(self, weight: float = 1.0, *, name: str | None = None) -> None:
        super().__init__()
        self.name = None if name is None else check_text(type(self).__name__, "name", name)
        self.weight = check_number(type(self).__name__, "weight", weight, above=0)

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.name or type(self).__name__

    def check(self, observations: Mapping[str, Observation]) -> None:
        """Raise a ValueError where the model's heads are not those that the coupling needs."""

    @abstractmethod
    def penalty(self, rollout: Rollout) -> Tensor:
        """Return a penalty of each sequence, nats, (*sample, sequence), given one draw of the latents."""


class _StepAndSequence(Coupling):
    """Ties a per-step head to a per-sequence head, both of one channel of the same classes."""

    families: tuple[type[Observation], ...] = (Bernoulli, Categorical)  # of the steps' head

    def __init__(self, steps: str, sequence: str, weight: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(weight, name=name)
        self.steps, self.sequence = steps, sequence

    def check(self, observations: Mapping[str, Observation]) -> None:
        owner = type(self).__name__
        for name, per_step in ((self.steps, True), (self.sequence, False)):
            if name not in observations:
                raise ValueError(f"{owner}: unknown head {name!r}; the model has {sorted(observations)}")
            head = observations[name]
            if head.head.per_step is not per_step:
                kind = "per-step" if per_step else "per-sequence"
                raise ValueError(f"{owner}: {name!r} must be a {kind} head")
            families = self.families if per_step else (Bernoulli, Categorical)
            if not isinstance(head, families) or head.head.channels != 1:
                expected = " or ".join(family.__name__ for family in families)
                raise ValueError(f"{owner}: {name!r} must be a {expected} head of one channel")
        classes = [getattr(observations[name], "classes", 2) for name in (self.steps, self.sequence)]
        if classes[0] != classes[1]:
            raise ValueError(f"{owner}: {self.steps!r} has {classes[0]} classes, {self.sequence!r} has {classes[1]}")

    def _average(self, values: Tensor, rollout: Rollout) -> Tensor:
        """Return the mean over the steps inside each sequence, at the head's clock, of (*, sequence, time, ...)."""
        clock = rollout.observations[self.steps].head.clock
        frames = torch.arange(values.shape[-2], device=values.device) < (rollout.data.lengths // clock)[:, None]
        inside = frames.to(values.dtype).unsqueeze(-1)
        return (values * inside).sum(-2) / inside.sum(-2).clamp_min(1)


class SurvivalConsistency(_StepAndSequence):
    """Jeffreys divergence between prod_t (1 - hazard_t) and the probability of the direct survival head.

    Args:
        steps: per-step Bernoulli or DiscreteHazard head, 1 where the event happens; the product runs over all steps of
            the sequence, whether they were watched or not.
        sequence: per-sequence Bernoulli head, 1 where the sequence survives to its end.
        weight, name: see `Coupling`.
    """

    families = (Bernoulli, Categorical, DiscreteHazard)

    def check(self, observations: Mapping[str, Observation]) -> None:
        super().check(observations)
        if not all(isinstance(observations[name], Bernoulli | DiscreteHazard) for name in (self.steps, self.sequence)):
            raise ValueError("SurvivalConsistency: both heads must be Bernoulli (the steps' may be DiscreteHazard)")

    def penalty(self, rollout: Rollout) -> Tensor:
        log_stay = class_log_probs(rollout, self.steps)[..., 0]
        clock = rollout.observations[self.steps].head.clock
        inside = torch.arange(log_stay.shape[-1], device=log_stay.device) < (rollout.data.lengths // clock)[:, None]
        survival = torch.where(inside, log_stay, 0.0).sum(-1).exp().clamp(FLOOR, 1 - FLOOR)
        return jeffreys(torch.stack([1 - survival, survival], -1).log(), class_log_probs(rollout, self.sequence))


class LocalGlobalAgreement(_StepAndSequence):
    """Jeffreys divergence between the sequence's class and softmax of the steps' average log-probabilities.

    Each step contributes to the decision in log-odds, and the contributions add up to it.

    Args:
        steps, sequence: a per-step and a per-sequence head of the same classes (Bernoulli or Categorical).
        weight, name: see `Coupling`.
    """

    def penalty(self, rollout: Rollout) -> Tensor:
        pooled = self._average(class_log_probs(rollout, self.steps), rollout).log_softmax(-1)
        return jeffreys(pooled, class_log_probs(rollout, self.sequence))


class PhaseClassAgreement(_StepAndSequence):
    """KL(average of the steps' class probabilities || the sequence's class).

    Args:
        steps, sequence: a per-step and a per-sequence head of the same classes (Bernoulli or Categorical).
        weight, name: see `Coupling`.
    """

    def penalty(self, rollout: Rollout) -> Tensor:
        pooled = self._average(class_log_probs(rollout, self.steps).exp(), rollout).clamp_min(FLOOR).log()
        return (pooled.exp() * (pooled - class_log_probs(rollout, self.sequence))).sum(-1)


class OutcomeCalibration(_StepAndSequence):
    """-mean_t log p_t(outcome): every step's head is to predict the final outcome, a proper score.

    Sequences whose outcome was not observed do not count.

    Args:
        steps, sequence: a per-step and a per-sequence head of the same classes (Bernoulli or Categorical).
        weight, name: see `Coupling`.

    References:
        Lipton, Kale, Elkan, Wetzel. Learning to diagnose with LSTM recurrent neural networks (target
        replication). 2016.
    """

    def penalty(self, rollout: Rollout) -> Tensor:
        outcome, seen = (part[self.sequence][:, 0] for part in (rollout.data.observations, rollout.data.masks))
        average = self._average(class_log_probs(rollout, self.steps), rollout)
        chosen = average.gather(-1, outcome.long().unsqueeze(-1).expand(*average.shape[:-1], 1)).squeeze(-1)
        return torch.where(seen, -chosen, 0.0)


def class_log_probs(rollout: Rollout, name: str) -> Tensor:
    """Return log-probabilities of a one-channel head's classes, (..., [time,] class)."""
    head = rollout.observations[name]
    mean = head.mean(rollout.distribution(name))
    probs = mean.squeeze(-2) if isinstance(head, Categorical) else torch.cat([1 - mean, mean], -1)
    return probs.clamp(FLOOR, 1 - FLOOR).log()


def jeffreys(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(p || q) + KL(q || p), nats, of log-probabilities (..., class)."""
    return ((first.exp() - second.exp()) * (first - second)).sum(-1)
