"""The units of a head's parameters: the head has its own, sites and `coefficients` have those of the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentrnn.data import HeadSpec
from latentrnn.models.component import Component
from latentrnn.models.features import CovariateReader, standardisation
from latentrnn.models.gain import StimulusGain
from latentrnn.models.readouts import Readout


class HeadUnits(Component):
    """A head's parameters in its own units, and their conversion to and from the units of the data."""

    in_units = False  # whether the family maps `location` and `scale` of its channels to what it is observed in
    head: HeadSpec
    gain: StimulusGain | None
    readout: Readout
    covariates: list[Any]
    reader: CovariateReader
    covariate_weight: Tensor
    location: Tensor
    scale: Tensor

    @property
    def link_is_identity(self) -> bool:
        """Whether eta is what is observed, up to noise: then parameters can be converted from one unit to another."""
        return False

    def to_units(self, path: str, value: Tensor) -> Tensor:
        """Return a site's value, in the data's units (standard ones where these are standardised), in the head's own.

        Args:
            path: e.g. "readout.weight".
            value: (..., *shape), with any leading axes.
        """
        conversion = self._conversion(path)
        return value if conversion is None else (value - conversion[0]) / conversion[1]

    def from_units(self, path: str, value: Tensor) -> Tensor:
        """Return a parameter of the head in the units of its site; the inverse of `to_units`."""
        conversion = self._conversion(path)
        return value if conversion is None else conversion[0] + conversion[1] * value

    def unit_of(self, path: str, like: Tensor) -> Tensor:
        """Return how large one of the head's own units is in the unit of a site, (*shape), positive.

        Args:
            path: as of `to_units`.
            like: a tensor of the parameter's shape; ones are returned where head and site have the same unit.
        """
        conversion = self._conversion(path)
        return torch.ones_like(like) if conversion is None else conversion[1].expand_as(like)

    def _conversion(self, path: str) -> tuple[Tensor, Tensor] | None:
        """Return shift and factor from the head's own units to the data's, which broadcast to the parameter."""
        if path not in ("gain.beta", "covariate_weight") and not path.startswith("readout."):
            return None
        zero, output = self.scale.new_zeros(()), self._output_units()
        reader = {"gain.beta": self.gain and self.gain.reader, "covariate_weight": self.covariates and self.reader}
        if driven := reader.get(path):
            factor = driven.given_units(self.scale)[1] / driven.channel_units(self.scale)[1]
            return zero, factor if output is None else factor * output[1].unsqueeze(-1)
        if output is None:
            return None
        if path == "readout.baseline":
            return output
        scaled = path.startswith("readout.") and path.removeprefix("readout.") in self.readout.per_output
        return (zero, output[1].unsqueeze(-1)) if scaled else None

    def _output_units(self) -> tuple[Tensor, Tensor] | None:
        """Return shift and factor, (channel,), of eta from the head's own to standard units; None where it has none.

        Whatever the readout is: its last summand is the baseline, to which gain and covariates are added.
        """
        if not (self.link_is_identity and self.in_units):
            return None
        location, scale = self._given_units()
        return (self.location - location) / scale, self.scale / scale

    def _given_units(self) -> tuple[Tensor, Tensor]:
        """Return location and scale, (channel,), of the head in the data's spec: zero and one where it has none."""
        location, scale = standardisation(self.head, self.head.channels)
        return location.to(self.scale), scale.to(self.scale)

    def coefficients(self) -> dict[str, Tensor]:
        """Return the linear predictor's coefficients in the data's units (standard ones, where these are standardised).

        With the identity link, weight h + covariate_weight x + beta (g * s) + baseline is what is observed, in its
        units, and with another readout what stands in the place of weight h is in them too. With another link, eta has
        none (of `Volatility`, it is the log-variance), and coefficients are per unit of covariate and stimulus.

        Returns:
            "baseline", (outputs,); "weight", (outputs, hidden_size), or "loading", (outputs, factors), of those two
            readouts; "covariate_weight", (outputs, feature), where there are covariates; "beta", (outputs, feature),
            where there is a gain.
        """
        found = {"baseline": self.from_units("readout.baseline", self.readout.baseline)}
        for name in self.readout.per_output:
            found[name] = self.from_units(f"readout.{name}", getattr(self.readout, name))
        if self.gain is not None:
            found["beta"] = self.from_units("gain.beta", self.gain.beta)
        if self.covariates:
            location, scale = self.reader.channel_units(self.scale)
            given_location, given_scale = self.reader.given_units(self.scale)
            slope, output = self.covariate_weight * (given_scale / scale), self._output_units()
            if output is not None:
                slope = slope * output[1].unsqueeze(-1)
            found["covariate_weight"] = slope
            found["baseline"] = found["baseline"] - slope @ ((location - given_location) / given_scale)
        return {name: value.detach().clone() for name, value in found.items()}
