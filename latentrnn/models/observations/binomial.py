"""Successes among a known number of trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_means
from latentrnn.models.observations.links import Link, UnitLink, as_link, check_link
from latentrnn.models.observations.observation import Observation, refuse_outside
from latentrnn.support.arguments import check_size


class Trials(Observation):
    """A head whose every channel counts successes among a known number of trials.

    Args:
        total_count: number of trials, one for all channels or one per channel; where the number changes from step to
            step, fewer trials are not missing successes: use `Multinomial` with totals.
        link: "sigmoid", "probit", "cloglog" or a `UnitLink`.
        **shared: see `Observation`.

    Raises:
        ValueError: a total that is no positive integer, an unknown link, or one that does not map onto (0, 1).
    """

    discrete = True
    counts_events = True
    totals: Tensor

    def __init__(self, total_count: int | Sequence[int], link: str | Link = "sigmoid", **shared: Any) -> None:
        super().__init__(**shared)
        owner = type(self).__name__
        self.total_count: int | list[int]
        if isinstance(total_count, Sequence) and not isinstance(total_count, str) and len(total_count):
            self.total_count = [check_size(owner, "total_count", count) for count in total_count]
        else:
            self.total_count = check_size(owner, "total_count", total_count)
        self.link = check_link(owner, link, UnitLink)

    def build_family(self, head: HeadSpec) -> None:
        totals = self.total_count if isinstance(self.total_count, list) else [self.total_count] * head.channels
        if len(totals) != head.channels:
            raise ValueError(
                f"observations[{head.name!r}]: {type(self).__name__} needs one total_count, or one for each of "
                f"{head.channels} channels; found {len(totals)}"
            )
        self.register_buffer("totals", torch.tensor(totals, dtype=torch.get_default_dtype()), persistent=False)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        bad = mask & ((values < 0) | (values > self.totals.to(values)) | (values != values.floor()))
        refuse_outside(name, type(self).__name__, "integers from 0 to total_count", bad, values)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return as_link(self.link).inverse((channel_means(values, mask) / self.totals).clamp(1e-3, 1 - 1e-3))


class Binomial(Trials):
    """y ~ Binomial(n, p), p = link(eta). Arguments: see `Trials`."""

    def family(self, eta: Tensor) -> dist.Distribution:
        logits = as_link(self.link).logit(eta)
        return dist.Binomial(self.totals.expand_as(eta), logits=logits, validate_args=False)
