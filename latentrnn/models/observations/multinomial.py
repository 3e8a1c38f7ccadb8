"""Counts that share a known total at every step."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentrnn.data import HeadSpec, SequenceData
from latentrnn.models.features.units import channel_means
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.observation import Observation, refuse_outside
from latentrnn.models.observations.poisson import LARGEST_RATE
from latentrnn.support.shown import first_entry


class SharedTotal(Observation):
    """A head whose channels, the categories, share the total n_t of their step.

    Totals come from `SequenceData.from_arrays(totals=...)`. Where n_t is known and categories are missing, these count
    as one, into which the rest of n_t fell: the exact marginal of what was observed. Where n_t is not known, it is the
    sum of what was observed, and the density is that of the observed categories given their sum: the missing ones then
    say nothing, their mean is n_t p_c / (sum of the observed p), and they are drawn as Poisson counts around it.
    Arguments: see `Observation`.
    """

    discrete = True
    joint = True

    def family(self, eta: Tensor) -> dist.Distribution:
        raise TypeError(f"{type(self).__name__} joins the channels of a step; use distribution(eta, inputs)")

    def inputs(self, data: SequenceData) -> HeadInputs:
        inputs, name = super().inputs(data), self.head.name
        mask = data.masks[name]
        seen = torch.where(mask, data.observations[name], 0.0).sum(-1)
        if name not in data.totals:
            return inputs._replace(totals=seen, counted=None if inputs.mask is None else mask)
        unknown = data.totals[name].isnan()
        counted = None if inputs.mask is None else mask | ~unknown.unsqueeze(-1)
        return inputs._replace(totals=torch.where(unknown, seen, data.totals[name]), counted=counted)

    def build_family(self, head: HeadSpec) -> None:
        family = type(self).__name__
        if not head.per_step:
            raise ValueError(f"observations[{head.name!r}]: {family} needs a per-step head")
        if head.channels < 2:
            raise ValueError(f"observations[{head.name!r}]: {family} needs at least 2 channels; found 1")

    def entry_log_prob(self, distribution: dist.Distribution, value: Tensor) -> Tensor:
        return distribution.step_log_prob(value).unsqueeze(-1)

    def sample_missing(self, distribution: dist.Distribution, values: Tensor, mask: Tensor) -> Tensor:
        return distribution.completed(values, mask)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & ((values < 0) | (values != values.floor()))
        refuse_outside(name, type(self).__name__, "non-negative integers", bad, values)

    def check_totals(self, name: str, totals: Tensor | None) -> None:
        if totals is None:
            return
        broken = totals.isfinite() & (totals != totals.round())
        if bool(broken.any()):
            index, place = first_entry(broken, ("sequence", "step"))
            raise ValueError(
                f"totals[{name!r}]: {type(self).__name__} needs whole numbers; found {float(totals[index])} at {place}"
            )

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        seen = mask.flatten(0, -2).any(0)
        log = channel_means(values, mask).clamp_min(1e-4).log()
        return log - torch.where(seen, log, 0.0).sum() / seen.sum().clamp_min(1)


class Multinomial(SharedTotal):
    """y_t ~ Multinomial(n_t, softmax(eta_t)): the channels of a step share the total n_t.

    Totals and missing categories: see `SharedTotal`. Arguments: see `Observation`.
    """

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        return MultinomialCounts(eta, inputs.totals, inputs.mask, inputs.counted)


class SharedTotalCounts(TorchDistribution):
    """Counts of the categories of every step, each step with its own total (torch's and Pyro's take one scalar total).

    Args:
        by_category: the family's parameter of every category, (..., time, channel).
        totals: n_t, (sequence, time).
        mask: True = observed, (sequence, time, channel); None where every category was.
        counted: the categories that n_t is the total of, (sequence, time, channel); None for all.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.nonnegative_integer, 2)

    def __init__(self, by_category: Tensor, totals: Tensor, mask: Tensor | None, counted: Tensor | None = None) -> None:
        self.by_category, self.totals, self.mask, self.counted = by_category, totals, mask, counted
        super().__init__(by_category.shape[:-2], by_category.shape[-2:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> Self:
        by_category = self.by_category.expand(torch.Size(batch_shape) + self.event_shape)
        return type(self)(by_category, self.totals, self.mask, self.counted)

    @abstractmethod
    def shares(self) -> Tensor:
        """Return E[y_c] / n_t, (..., time, channel): adding up to one over the categories that n_t is the total of."""

    @abstractmethod
    def draw_log_shares(self, sample_shape: torch.Size) -> Tensor:
        """Return log-probabilities with which the units of a step fall, up to a summand, (..., time, channel)."""

    @abstractmethod
    def step_log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities per step, nats, (..., time), zero where nothing is observed."""

    @property
    def mean(self) -> Tensor:
        """n_t times the shares, (..., time, channel)."""
        return self.totals.unsqueeze(-1) * self.shares()

    def log_prob(self, value: Tensor) -> Tensor:
        return self.step_log_prob(value).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            log_shares = self.draw_log_shares(torch.Size(sample_shape))
            if self.counted is None:
                return draw_multinomial(self.totals, log_shares.softmax(-1))
            drawn = draw_multinomial(self.totals, shares_of(log_shares, self.counted))
            return torch.where(
                self.counted, drawn, torch.poisson(self.mean.clamp(max=LARGEST_RATE).expand(drawn.shape))
            )

    def completed(self, value: Tensor, mask: Tensor) -> Tensor:
        """Return a draw given the observed counts: the rest of the total, over the other categories."""
        with torch.no_grad():
            left = (self.totals - torch.where(mask, value, 0.0).sum(-1)).clamp_min(0.0)
            others = shares_of(self.draw_log_shares(torch.Size()), ~mask)
            return torch.where(mask, value, draw_multinomial(left, others))

    def hidden(self, mask: Tensor) -> Tensor:
        """Return the categories that share the total and were not observed."""
        return ~mask if self.counted is None else ~mask & self.counted

    def rest(self, value: Tensor, hidden: Tensor) -> Tensor:
        """Return what of the total fell into hidden categories, (..., time), the observed counts being `value`."""
        return torch.where(hidden.any(-1), self.totals - value.sum(-1), 0.0)


class MultinomialCounts(SharedTotalCounts):
    """Multinomial counts at every step, by logits.

        log p(y | n) = log n! - sum_c log y_c! + sum_c y_c log p_c,

    one of the c being all hidden categories together.
    """

    def shares(self) -> Tensor:
        return (self.by_category - self._normaliser()).exp()

    def draw_log_shares(self, sample_shape: torch.Size) -> Tensor:
        return self.by_category.expand(sample_shape + self.by_category.shape)

    def step_log_prob(self, value: Tensor) -> Tensor:
        if self.mask is None:
            terms = value * self.by_category.log_softmax(-1) - torch.lgamma(value + 1)
            return torch.lgamma(value.sum(-1) + 1) + terms.sum(-1)
        value, hidden, normaliser = torch.where(self.mask, value, 0.0), self.hidden(self.mask), self._normaliser()
        rest = self.rest(value, hidden)
        log_p = torch.where(self.mask, self.by_category - normaliser, 0.0)
        log_p_rest = (log_sum(self.by_category, hidden) - normaliser).squeeze(-1)
        terms = value * log_p - torch.lgamma(value + 1)
        constant = torch.lgamma(value.sum(-1) + rest + 1) - torch.lgamma(rest + 1)
        return constant + terms.sum(-1) + rest * log_p_rest

    def _normaliser(self) -> Tensor:
        """Return the log of the sum of exp(logits) over the categories that share the total, (..., time, 1)."""
        if self.counted is None:
            return torch.logsumexp(self.by_category, -1, keepdim=True)
        return log_sum(self.by_category, self.counted)


def log_sum(logits: Tensor, chosen: Tensor) -> Tensor:
    """Return log sum exp of the chosen categories, (..., 1); where there are none of all, to multiply a zero."""
    return torch.logsumexp(logits.masked_fill(~(chosen | ~chosen.any(-1, keepdim=True)), -torch.inf), -1, keepdim=True)


def shares_of(log_shares: Tensor, chosen: Tensor) -> Tensor:
    """Return shares (..., category) that add up to one over the chosen categories, zero where none is.

    In logs, since what all of the chosen ones have together may be less than a number can hold.
    """
    none = ~chosen.any(-1, keepdim=True)
    return torch.where(chosen, log_shares.masked_fill(~(chosen | none), -torch.inf).softmax(-1), 0.0)


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
