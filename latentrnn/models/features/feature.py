"""What every feature of the covariates fulfils, the plain one, and the reader that puts several side by side."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.data import CovariateSpec, DataSpec, HeadSpec, SequenceData
from latentrnn.models.component import Component
from latentrnn.models.features.units import channel_size, channel_units
from latentrnn.support.arguments import check_list, check_text


class Feature(Component):
    """x_t = feature(covariates): channels made of covariates, (sequence, time, size).

    A feature stands wherever a covariate's name may stand. A new one sets `size` in `build` and writes `forward`; what
    lies in padding must not reach a step inside the sequence.
    """

    size: int  # channels, once built
    lookahead: float = 0  # steps of covariates after t that it uses; infinite for the whole sequence
    memory: int = 0  # steps of covariates before t that it uses

    @abstractmethod
    def build(self, owner: str, spec: DataSpec) -> None:
        """Create the parameters; `owner` is who reads, for error messages."""

    @abstractmethod
    def forward(self, data: SequenceData) -> Tensor:
        """Return (sequence, time, size)."""

    def take_units(self, data: SequenceData, units: str) -> None:
        """Take from the training data what the feature divides by and subtracts.

        Args:
            data: the training data.
            units: what the reader wants: "data", values as they are; "scaled", divided by their size; "standard",
                centred and divided by their spread.
        """

    def channel_units(self) -> tuple[Tensor, Tensor] | None:
        """Return what is subtracted from each channel and then divided by, (size,); None where neither is."""
        return None

    def given_units(self) -> tuple[Tensor, Tensor] | None:
        """Return location and scale of each channel, (size,), as the data's ingestion recorded them; None for none."""
        return None

    def check(self, data: SequenceData) -> None:
        """Raise a ValueError that names the first value that the feature cannot take in."""


class Identity(Feature):
    """A covariate as it is, standardised if `from_arrays` was told to. Its name alone means the same.

    Where it was not, a fit takes units from its training data, as far as the reader wants them: see `take_units`.

    Args:
        covariate: the covariate's name.
    """

    added_later = ("location", "scale")
    location: Tensor
    scale: Tensor

    def __init__(self, covariate: str) -> None:
        super().__init__()
        self.covariate = check_text("Identity", "covariate", covariate)

    def build(self, owner: str, spec: DataSpec) -> None:
        found = find(owner, self.covariate, spec)
        self.size = found.features
        self._found = found
        location, scale = standardisation(found, found.features)
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature of the covariate."""
        return self._found.feature_names

    def take_units(self, data: SequenceData, units: str) -> None:
        if self._found.location is not None or units == "data":
            return
        values, inside = data.covariates[self.covariate], data.valid.unsqueeze(-1)
        if units == "standard":
            location, scale = channel_units(values, inside)
        else:
            scale = channel_size(values, inside)
            location = torch.zeros_like(scale)
        self.location.copy_(location)
        self.scale.copy_(scale)

    def channel_units(self) -> tuple[Tensor, Tensor]:
        return self.location, self.scale

    def given_units(self) -> tuple[Tensor, Tensor]:
        return standardisation(self._found, self._found.features)

    def forward(self, data: SequenceData) -> Tensor:
        return (data.covariates[self.covariate] - self.location) / self.scale


class CovariateReader(nn.Module):
    """Reads named covariates and features from a batch, side by side.

    Args:
        owner: who reads, for error messages.
        items: covariate names, or features.
        spec: the data's spec.

    Raises:
        ValueError: a covariate that the data do not have.
        TypeError: an item that is neither a name nor a `Feature`.
    """

    def __init__(self, owner: str, items: Sequence[str | Feature], spec: DataSpec) -> None:
        super().__init__()
        parts: list[Feature] = []
        for item in items:
            if not isinstance(item, str | Feature):
                raise TypeError(f"{owner}: expected covariate names or features; found {type(item).__name__}")
            parts.append(Identity(item) if isinstance(item, str) else item.fresh())
            parts[-1].build(owner, spec)
        self.parts = nn.ModuleList(parts)
        self.sizes = [part.size for part in parts]  # channels of each item
        self.size = sum(self.sizes)
        self.lookahead = max((part.lookahead for part in parts), default=0)
        self.memory = max((part.memory for part in parts), default=0)

    def take_units(self, data: SequenceData, units: str) -> None:
        """Take units from the training data for all parts, those within features included; see `Feature.take_units`."""
        for part in self.modules():
            if isinstance(part, Feature):
                part.take_units(data, units)

    @property
    def names(self) -> list[str]:
        """Name of each channel: that of a covariate's feature, or the place among what a `Feature` makes."""
        named = [
            part.feature_names if isinstance(part, Identity) else [f"{part!r}[{place}]" for place in range(part.size)]
            for part in self._parts()
        ]
        return [name for names in named for name in names]

    def take_units_of_slopes(self, data: SequenceData) -> None:
        """Take units for covariates whose slopes are known or sites, which are converted; others stay as they are."""
        for part in self._parts():
            units = "data" if part.channel_units() is None else "scaled"
            for each in part.modules():
                if isinstance(each, Feature):
                    each.take_units(data, units)

    def channel_units(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what was subtracted from each channel and then divided by, (size,), in the type of `like`."""
        return self._joined([part.channel_units() for part in self._parts()], like)

    def given_units(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale of each channel, (size,), as the data's ingestion recorded them."""
        return self._joined([part.given_units() for part in self._parts()], like)

    def _parts(self) -> Iterator[Feature]:
        yield from self.parts  # type: ignore[misc]

    def _joined(self, found: list[tuple[Tensor, Tensor] | None], like: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [pair or (like.new_zeros(n), like.new_ones(n)) for pair, n in zip(found, self.sizes, strict=True)]
        if not pairs:
            return like.new_zeros(0), like.new_ones(0)
        location, scale = (torch.cat([pair[i].to(like) for pair in pairs]) for i in (0, 1))
        return location, scale

    def forward(self, data: SequenceData) -> Tensor:
        """Return (sequence, time, size); what a window's features look at before and after it is there."""
        if data.around is not None and (self.memory or self.lookahead):
            before = data.around.before
            return self(data.around.whole)[:, before : before + data.num_steps]
        if not self.parts:
            return torch.zeros(data.num_sequences, data.num_steps, 0, dtype=data.dtype, device=data.device)
        parts = [part(data) for part in self.parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def listed(
    owner: str, argument: str, items: str | Feature | Sequence[str | Feature], *, least: int = 1
) -> list[str | Feature]:
    """Return what reads covariates as a list: one name or feature may stand alone.

    Raises:
        ValueError: there are fewer than `least`.
        TypeError: this is no list, or an item is neither a name nor a feature.
    """
    found: list[Any] = [items]
    if not isinstance(items, str | Feature):
        found = check_list(owner, argument, items, "covariate names or features")
    if len(found) < least:
        raise ValueError(f"{owner}: {argument} must name at least one covariate")
    for item in found:
        if not isinstance(item, str | Feature):
            raise TypeError(f"{owner}: {argument}: expected covariate names or features; found {type(item).__name__}")
    return [str(item) if isinstance(item, str) else item for item in found]


def find(owner: str, covariate: str, spec: DataSpec) -> CovariateSpec:
    """Return a covariate's spec.

    Raises:
        ValueError: the data have no such covariate.
    """
    if covariate not in spec.covariates:
        raise ValueError(f"{owner}: unknown covariate {covariate!r}; the data have {sorted(spec.covariates)}")
    return spec.covariates[covariate]


def inside(values: Tensor, data: SequenceData) -> Tensor:
    """Return values, (sequence, time, channel), with zeros in padding."""
    return torch.where(data.valid.unsqueeze(-1), values, torch.zeros_like(values)) if data.padded else values


def standardisation(spec: CovariateSpec | HeadSpec, size: int) -> tuple[Tensor, Tensor]:
    """Return location and scale, (size,), of a covariate or head; zero and one where the data are as they came."""
    if spec.location is None:
        return torch.zeros(size), torch.ones(size)
    return torch.tensor(spec.location), torch.tensor(spec.scale)
