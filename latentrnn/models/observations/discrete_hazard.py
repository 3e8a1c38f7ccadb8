"""Time until an event, in discrete steps, with censoring."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.data import HeadSpec, SequenceData
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.links import Link, UnitLink, as_link, check_link
from latentrnn.models.observations.observation import Observation, refuse_outside


class DiscreteHazard(Observation):
    """P(event at t | none before) = h_t = link(eta_t): survival analysis with the state as its covariate.

        log p = sum over steps at risk of  y_t log h_t + (1 - y_t) log(1 - h_t)

    The data: each channel is one kind of event, y_t = 1 at the step where it happens and 0 at every step at risk
    before it, at most one event per sequence and channel. A sequence that ends without an event is censored, and
    scored for having survived. Steps after the event count for nothing, whatever they hold; NaN there is best, since
    a window cut after the event cannot know of it otherwise. A missing step (NaN) before the event was not watched:
    it counts for nothing, and the next observed step is known to be at risk (delayed entry).

    The mean is the hazard; `survival` turns hazards into P(no event up to t). Replicates are zero after their event.

    Args:
        link: "sigmoid", "cloglog" (proportional hazards in continuous time), "probit" or a `UnitLink`.
        **shared: see `Observation`.

    Raises:
        ValueError: feedback, an unknown link, or one that does not map onto (0, 1).

    References:
        Cox. Regression models and life-tables. 1972.
        Prentice, Gloeckler. Regression analysis of grouped survival data with application to breast cancer data. 1978.
    """

    discrete = True

    def __init__(self, link: str | Link = "sigmoid", **shared: Any) -> None:
        super().__init__(**shared)
        self.link = check_link("DiscreteHazard", link, UnitLink)
        if self.feedback is not None:
            raise ValueError("DiscreteHazard: before its one event a head has no past to feed back; leave feedback out")

    def build_family(self, head: HeadSpec) -> None:
        if not head.per_step:
            raise ValueError(f"observations[{head.name!r}]: DiscreteHazard needs a per-step head")

    def family(self, eta: Tensor) -> dist.Distribution:
        raise TypeError("DiscreteHazard joins the steps of a sequence; use distribution(eta, inputs)")

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        return EventPath(as_link(self.link).logit(eta), inputs.mask)

    def inputs(self, data: SequenceData) -> HeadInputs:
        inputs, name = super().inputs(data), self.head.name
        # an event in the context, which is not scored itself, ends the risk of what is
        context = data.masks[name] & ~data.scored(name)
        past = (context & (data.observations[name] == 1)).any(-2, keepdim=True)
        return inputs._replace(mask=data.scored(name) & ~past)

    def observed(self, data: SequenceData) -> Tensor:
        mask = data.masks[self.head.name]
        return mask & at_risk(data.observations[self.head.name], mask)

    def entry_log_prob(self, distribution: dist.Distribution, value: Tensor) -> Tensor:
        return distribution.entry_log_prob(value)

    def sample_missing(self, distribution: dist.Distribution, values: Tensor, mask: Tensor) -> Tensor:
        drawn = torch.bernoulli(distribution.mean)
        # who was at risk at an observed step had no event before
        seen = mask & at_risk(values, mask)
        drawn = torch.where(seen.flip(-2).cumsum(-2).flip(-2) > 0, 0.0, drawn)
        drawn = torch.where(mask, values, drawn)
        return torch.where(mask, values, torch.where(at_risk(drawn, None), drawn, 0.0))

    def survival(self, hazard: Tensor) -> Tensor:
        """Return P(no event up to and including t), (..., time, channel), of hazards of that shape."""
        return torch.log1p(-hazard).cumsum(-2).exp()

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        refuse_outside(name, "DiscreteHazard", "zeros and ones", mask & (values != 0) & (values != 1), values)
        second = mask & (values == 1) & ~at_risk(values, mask)
        refuse_outside(name, "DiscreteHazard", "at most one event in a sequence", second, values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        risk = (mask & at_risk(values, mask)).flatten(0, -2)
        events = torch.where(risk, values.flatten(0, -2), 0.0).sum(0)
        return as_link(self.link).inverse((events / risk.sum(0).clamp_min(1)).clamp(1e-4, 1 - 1e-3))


def at_risk(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return where no observed event came before, booleans (..., time, channel)."""
    events = values == 1 if mask is None else mask & (values == 1)
    count = events.to(torch.int32)
    return count.cumsum(-2) == count


class EventPath(TorchDistribution):
    """Zeros until the event, a one where it happens, and what follows of no account.

    Args:
        logits: log-odds of the hazard, (..., time, channel).
        mask: True = observed, (sequence, time, channel), or None.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.boolean, 2)

    def __init__(self, logits: Tensor, mask: Tensor | None) -> None:
        self.logits, self.mask = logits, mask
        super().__init__(logits.shape[:-2], logits.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The hazard, (..., time, channel)."""
        return torch.sigmoid(self.logits)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> EventPath:
        return EventPath(self.logits.expand(torch.Size(batch_shape) + self.event_shape), self.mask)

    def entry_log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities of each step given survival to it, nats, zero where not at risk or not observed."""
        counts = at_risk(value, self.mask)
        counts = counts if self.mask is None else counts & self.mask
        return torch.where(counts, value * self.logits + F.logsigmoid(-self.logits), 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.entry_log_prob(value).sum((-2, -1))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            drawn = torch.bernoulli(torch.sigmoid(self.logits).expand(torch.Size(sample_shape) + self.logits.shape))
            return torch.where(at_risk(drawn, None), drawn, 0.0)
