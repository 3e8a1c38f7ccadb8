"""A per-step and a per-sequence head of the same classes: what the couplings share that tie the one to the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from latentrnn.models.couplings.coupling import Coupling
from latentrnn.models.observations import Bernoulli, Categorical, Observation
from latentrnn.models.rollout import Rollout

FLOOR = 1e-6  # probabilities are kept this far from zero and one


class StepAndSequence(Coupling):
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
        steps, sequence = (_classes(observations[name]) for name in (self.steps, self.sequence))
        if steps != sequence:
            raise ValueError(f"{owner}: {self.steps!r} has {steps} classes, {self.sequence!r} has {sequence}")

    def average(self, values: Tensor, rollout: Rollout) -> Tensor:
        """Return the mean over the steps inside each sequence, at the head's clock, of (*, sequence, time, ...)."""
        clock = rollout.observations[self.steps].head.clock
        frames = torch.arange(values.shape[-2], device=values.device) < (rollout.data.lengths // clock)[:, None]
        inside = frames.to(values.dtype).unsqueeze(-1)
        return (values * inside).sum(-2) / inside.sum(-2).clamp_min(1)


def _classes(head: Observation) -> int:
    return head.classes if isinstance(head, Categorical) else 2


def class_log_probs(rollout: Rollout, name: str) -> Tensor:
    """Return log-probabilities of a one-channel head's classes, (..., [time,] class)."""
    head = rollout.observations[name]
    mean = head.mean(rollout.distribution(name))
    probs = mean.squeeze(-2) if isinstance(head, Categorical) else torch.cat([1 - mean, mean], -1)
    return probs.clamp(FLOOR, 1 - FLOOR).log()


def jeffreys(first: Tensor, second: Tensor) -> Tensor:
    """Return KL(p || q) + KL(q || p), nats, of log-probabilities (..., class)."""
    return ((first.exp() - second.exp()) * (first - second)).sum(-1)
