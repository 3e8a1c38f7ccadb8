"""Counts that share a known total at every step."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentrnn.data import HeadSpec, SequenceData
from latentrnn.models.observations.observation import HeadInputs, Observation, channel_means, refuse_outside


class SharedTotal(Observation):
    """A head whose channels share the total n_t of their step.

    Totals come from `SequenceData.from_arrays(totals=...)`; without them n_t is the sum of what was observed at t.
    Arguments: see `Observation`.
    """

    discrete = True
    joint = True

    def family(self, eta: Tensor) -> dist.Distribution:
        raise TypeError(f"{type(self).__name__} joins the channels of a step; use distribution(eta, inputs)")

    def inputs(self, data: SequenceData) -> HeadInputs:
        inputs, name = super().inputs(data), self.head.name
        seen = torch.where(data.masks[name], data.observations[name], 0.0).sum(-1)
        totals = seen if inputs.totals is None else torch.where(inputs.totals.isnan(), seen, inputs.totals)
        return inputs._replace(totals=totals)

    def build_family(self, head: HeadSpec) -> None:
        family = type(self).__name__
        if not head.per_step:
            raise ValueError(f"observations[{head.name!r}]: {family} needs a per-step head")
        if head.channels < 2:
            raise ValueError(f"observations[{head.name!r}]: {family} needs at least 2 channels; found 1")

    def entry_log_prob(self, distribution: dist.Distribution, value: Tensor) -> Tensor:
        return distribution.step_log_prob(value).unsqueeze(-1)

    def complete(self, distribution: dist.Distribution, values: Tensor, mask: Tensor) -> Tensor:
        return distribution.completed(values, mask)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & ((values < 0) | (values != values.floor()))
        refuse_outside(name, type(self).__name__, "non-negative integers", bad, values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        log = channel_means(values, mask).clamp_min(1e-4).log()
        return log - log.mean()


class Multinomial(SharedTotal):
    """y_t ~ Multinomial(n_t, softmax(eta_t)): the channels of a step share the total n_t.

    Totals come from `SequenceData.from_arrays(totals=...)`; without them n_t is the sum of what was observed at t.
    Missing categories are integrated out: given how many fell into the observed ones, these are multinomial with
    renormalised probabilities. Arguments: see `Observation`.
    """

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        return MultinomialCounts(eta, inputs.totals, inputs.mask)


class MultinomialCounts(TorchDistribution):
    """Multinomial counts at every step, each step with its own total (torch's and Pyro's take one scalar total).

        log p(y | n) = log n! - sum_c log y_c! + sum_c y_c log p_c

    Args:
        logits: (..., time, channel).
        totals: n_t, (sequence, time); used for sampling. The density conditions on the sum of the value itself
            over observed channels.
        mask: True = observed, (sequence, time, channel), or None.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 2)

    def __init__(self, logits: Tensor, totals: Tensor, mask: Tensor | None) -> None:
        self.logits, self.totals, self.mask = logits, totals, mask
        super().__init__(logits.shape[:-2], logits.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """n_t p_t, (..., time, channel)."""
        return self.totals.unsqueeze(-1) * self.logits.softmax(-1)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> MultinomialCounts:
        return MultinomialCounts(self.logits.expand(torch.Size(batch_shape) + self.event_shape), self.totals, self.mask)

    def step_log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities per step, nats, (..., time), zero where nothing is observed."""
        logits = self.logits
        if self.mask is not None:
            value = torch.where(self.mask, value, 0.0)
            # an entirely masked step keeps one category, so that its softmax exists; its counts are all zero
            usable = self.mask | ~self.mask.any(-1, keepdim=True)
            logits = logits.masked_fill(~usable, -torch.inf)
        log_p = logits.log_softmax(-1)
        if self.mask is not None:
            log_p = torch.where(self.mask, log_p, 0.0)
        terms = value * log_p - torch.lgamma(value + 1)
        return torch.lgamma(value.sum(-1) + 1) + terms.sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.step_log_prob(value).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.logits.shape
        with torch.no_grad():
            return draw_multinomial(self.totals, self.logits.softmax(-1).expand(shape))

    def completed(self, value: Tensor, mask: Tensor) -> Tensor:
        """Return a draw given the observed counts: the rest of the total, over the other categories."""
        return rest_of_total(self.totals, self.logits.softmax(-1), value, mask)


def rest_of_total(totals: Tensor, p: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Return counts, observed ones as they are, what is left of the totals (...) drawn in proportion to p."""
    with torch.no_grad():
        left = (totals - torch.where(mask, value, 0.0).sum(-1)).clamp_min(0.0)
        others = torch.where(mask, 0.0, p)
        share = others / others.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
        return torch.where(mask, value, draw_multinomial(left, share))


def draw_multinomial(totals: Tensor, p: Tensor) -> Tensor:
    """Return counts, (..., category), of totals (...) that broadcast and probabilities p (..., category)."""
    left = totals.expand(p.shape[:-1]).clone()
    # category by category: y_c given the earlier ones is Binomial(what is left, p_c / what is left of p)
    remaining = p.flip(-1).cumsum(-1).flip(-1).clamp_min(torch.finfo(p.dtype).tiny)
    counts = []
    for c in range(p.shape[-1] - 1):
        drawn = torch.binomial(left, (p[..., c] / remaining[..., c]).clamp(0, 1))
        counts.append(drawn)
        left = left - drawn
    return torch.stack([*counts, left], -1)
