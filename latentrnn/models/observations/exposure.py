"""Counts whose mean is proportional to a known exposure: an area, a duration, a population at risk."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.data import DataSpec, HeadSpec, SequenceData
from latentrnn.models.features import Feature
from latentrnn.models.features.feature import find
from latentrnn.models.features.units import channel_means
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.links import Link, PositiveLink, as_link, check_link
from latentrnn.models.observations.observation import Observation
from latentrnn.support.shown import first_entry


class LogExposure(Feature):
    """log E_t of a covariate with positive values, in its own units, whatever units other readers take.

    Args:
        covariate: the covariate's name.
    """

    def __init__(self, covariate: str) -> None:
        super().__init__()
        self.covariate = covariate

    def build(self, owner: str, spec: DataSpec) -> None:
        self.size = find(owner, self.covariate, spec).features

    def forward(self, data: SequenceData) -> Tensor:
        values = data.covariates[self.covariate]
        if data.padded:
            values = torch.where(data.valid.unsqueeze(-1), values, 1.0)
        return values.log()

    def check(self, data: SequenceData) -> None:
        values = data.covariates[self.covariate]
        bad = data.valid.unsqueeze(-1) & ~((values > 0) & values.isfinite())
        if bool(bad.any()):
            index, place = first_entry(bad, ("sequence", "step", "feature"))
            raise ValueError(
                f"covariates[{self.covariate!r}]: an exposure must be positive; found {float(values[index])} at {place}"
            )


class ExposedCounts(Observation):
    """mean = exposure * link(eta): a count family whose mean may be proportional to a covariate, with slope one.

    Args:
        link: "exp", "softplus" or a `PositiveLink`.
        exposure: name of a covariate with positive values, one feature for all channels or one per channel; on a
            slower clock a frame's is that of its last base step. link(eta) is then the rate per unit of it: with the
            link "exp" log exposure is an offset of eta. It keeps its own units, does not enter the transition unless
            `LatentRNN(inputs=...)` lists it there too, and is asked for where the future is forecast.
        **shared: see `Observation`.

    Raises:
        TypeError: an exposure that is no name.
        ValueError: an unknown link, or one that does not map onto the positive numbers.
    """

    def __init__(self, link: str | Link = "exp", exposure: str | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        name = type(self).__name__
        self.link = check_link(name, link, PositiveLink)
        if exposure is not None and not isinstance(exposure, str):
            raise TypeError(f"{name}: exposure must be a covariate's name; found {type(exposure).__name__}")
        self.exposure = exposure

    def build(self, head: HeadSpec, spec: DataSpec, hidden_size: int) -> None:
        """Create the parameters of this head.

        Raises:
            ValueError: as any head, and for an exposure that is unknown, of a wrong size, or of a per-sequence head.
        """
        if self.exposure is not None:
            owner = f"observations[{head.name!r}]"
            if not head.per_step:
                raise ValueError(f"{owner}: a per-sequence head has no time axis for an exposure")
            self.log_exposure = LogExposure(self.exposure)
            self.log_exposure.build(f"{owner}: exposure", spec)
            if self.log_exposure.size not in (1, head.channels):
                raise ValueError(
                    f"{owner}: exposure {self.exposure!r} must have one feature, or one per channel ({head.channels}); "
                    f"it has {self.log_exposure.size}"
                )
        super().build(head, spec, hidden_size)

    @property
    def claims(self) -> list[str]:
        return super().claims + ([] if self.exposure is None else [self.exposure])

    @abstractmethod
    def exposed(self, entries: Any, log_exposure: Tensor) -> dist.Distribution:
        """Return the family's entries, (..., time, channel), with means multiplied by the exposure."""

    def inputs(self, data: SequenceData) -> HeadInputs:
        inputs = super().inputs(data)
        if self.exposure is None:
            return inputs
        frames = data.observations[self.head.name].shape[1]
        return inputs._replace(log_exposure=self.at_clock(self.log_exposure(data), frames))

    def entries(self, eta: Tensor, inputs: HeadInputs) -> Any:
        entries = super().entries(eta, inputs)
        return entries if inputs.log_exposure is None else self.exposed(entries, inputs.log_exposure)

    def start_from(self, data: SequenceData) -> None:
        """Set starting values from the training data: the baseline is that of the rate per unit of exposure."""
        super().start_from(data)
        if self.exposure is None:
            return
        values, mask = data.observations[self.head.name], data.masks[self.head.name]
        exposure = self.at_clock(data.covariates[self.exposure], values.shape[1]).expand_as(values)
        seen = mask.flatten(0, -2).any(0)
        mean = torch.where(seen, channel_means(exposure, mask), exposure[mask].mean() if bool(seen.any()) else 1.0)
        link = as_link(self.link)
        with torch.no_grad():
            baseline = self.readout.baseline.unflatten(-1, (self.head.channels, self.outputs_per_channel))[:, 0]
            baseline.copy_(link.inverse((link.log(baseline).exp() / mean.to(baseline)).clamp_min(1e-30)))
