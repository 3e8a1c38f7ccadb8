"""Real-valued observations with outliers."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_means
from latentrnn.models.observations.links import IdentityLink, Link, RealLink, as_link, check_link
from latentrnn.models.observations.observation import Observation, scale_in_units
from latentrnn.models.parameters.parameter_spec import ParameterSpec


class StudentT(Observation):
    """y ~ StudentT(nu, eta, sigma): location eta, scale sigma and nu > 2 degrees of freedom, learned per channel.

    nu = 2 + exp(a), so that the variance, sigma^2 nu / (nu - 2), exists. Where `from_arrays` standardised the head,
    or a fit took units from the training data, the location is location + scale link(eta), as for `Gaussian`.

    Args:
        link: "identity" or a `RealLink`, from eta to the location.
        **shared: see `Observation`.

    Raises:
        ValueError: an unknown link, or one that does not map onto the real line.

    References:
        Lange, Little, Taylor. Robust statistical modeling using the t distribution. 1989.
    """

    declared: ClassVar = {
        "scale": scale_in_units("log_noise_scale"),
        "df": ParameterSpec.positive("log_excess", least=2.0, dims=("channel",)),
    }

    in_units = True

    def __init__(self, link: str | Link = "identity", **shared: Any) -> None:
        super().__init__(**shared)
        self.link = check_link("StudentT", link, RealLink)

    def build_family(self, head: HeadSpec) -> None:
        self.log_noise_scale = nn.Parameter(torch.zeros(head.channels))
        self.log_excess = nn.Parameter(torch.full((head.channels,), 2.0))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_noise_scale.zero_()
            self.log_excess.fill_(2.0)

    @property
    def degrees_of_freedom(self) -> Tensor:
        """nu, (channel,)."""
        return 2 + self.log_excess.exp()

    @property
    def noise_scale(self) -> Tensor:
        """sigma in the data's units, (channel,)."""
        return self.scale * self.log_noise_scale.exp()

    def family(self, eta: Tensor) -> dist.Distribution:
        loc = self.location + self.scale * as_link(self.link)(eta)
        return dist.StudentT(self.degrees_of_freedom, loc, self.noise_scale, validate_args=False)

    @property
    def link_is_identity(self) -> bool:
        return isinstance(as_link(self.link), IdentityLink)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return as_link(self.link).inverse((channel_means(values, mask) - self.location) / self.scale)

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        super().initialise(values, mask)
        nu = self.degrees_of_freedom
        with torch.no_grad():
            self.log_noise_scale.copy_((self.history_scale / self.scale * ((nu - 2) / nu).sqrt()).log())
