"""One parameter of a model, where it is found, and its prior."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import biject_to

from latentrnn.models.component import Component, tensor_at
from latentrnn.models.observations import Observation
from latentrnn.models.parameters.drawn import with_values
from latentrnn.models.parameters.network_prior import WeightPrior
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.parameters.priors import Prior, expanded_prior
from latentrnn.models.sites import parameter_site

ROOMY = ("readout", "gain", "feedback", "reader", "pooling")  # parts of a head that make room for time themselves


class Parameter(NamedTuple):
    """One parameter of a model, where it is found.

    Attributes:
        owner: "transition", "latent", "inputs", or the name of a head.
        part: what goes by that name.
        component: path within it of the component whose parameter it is; "" for itself.
        of: that component.
        name: by which the component declares it.
    """

    owner: str
    part: Any  # a component, or a reader of several
    component: str
    of: Component
    name: str

    @property
    def path(self) -> str:
        """Where it is within the owner, e.g. "readout.weight"."""
        return f"{self.component}.{self.name}" if self.component else self.name

    @property
    def site(self) -> str:
        """What it is called in the whole model, e.g. "spikes.readout.weight"."""
        return parameter_site(self.owner, self.path)

    @property
    def where(self) -> str:
        """What of the model it belongs to, as its user wrote it."""
        head = isinstance(self.part, Observation)
        return f"observations[{self.owner!r}]" if head else f"LatentRNN: {self.owner}"

    @property
    def said(self) -> str:
        """Whose it is, as messages begin."""
        return f"{self.where}: {type(self.of).__name__}"

    @property
    def spec(self) -> ParameterSpec:
        """What the component says of it."""
        return self.of.parameter_spec(self.name)

    @property
    def of_family(self) -> bool:
        """Whether it belongs to a head's family, whose entries have an axis for time; other parts make room for it."""
        elsewhere = self.component.partition(".")[0] in ROOMY or self.tensor_path == "covariate_weight"
        return isinstance(self.part, Observation) and not elsewhere

    @property
    def tensor_path(self) -> str:
        """Where its tensor is within the owner."""
        return f"{self.component}.{self.spec.raw}" if self.component else self.spec.raw

    def value(self) -> Tensor:
        """Return the parameter as it is now, in the units of the data."""
        spec = self.spec
        return self.in_units(spec.value(self.of, tensor_at(self.of, spec.raw)))

    def in_units(self, value: Tensor) -> Tensor:
        """Return a value of the component's own as it is in the units of the data."""
        return self.part.from_units(self.path, value) if isinstance(self.part, Observation) else value

    def unconstrained(self) -> Tensor:
        """Return the parameter as it is now on the real line, where populations are."""
        return biject_to(self.spec.support).inv(self.value())

    def tensor(self, value: Tensor, others: Mapping[str, Tensor] = MappingProxyType({})) -> Tensor:
        """Return the tensor that stands for a value, (*leading, *shape), in the units of the data.

        Args:
            value: of the parameter.
            others: tensors in the place of the owner's own, by path, where it follows from these too.
        """
        own = self.part.to_units(self.path, value) if isinstance(self.part, Observation) else value
        component, spec = self.of, self.spec
        if spec.follows:
            start = f"{self.component}." if self.component else ""
            known = {path.removeprefix(start): tensor for path, tensor in others.items() if path.startswith(start)}
            component = with_values(component, known)
        return spec.tensor(component, own)

    def set(self, value: Tensor) -> None:
        """Put a value, (*shape), in its place."""
        with torch.no_grad():
            tensor_at(self.of, self.spec.raw).copy_(self.tensor(value))

    def unit(self) -> Tensor:
        """Return how large the parameter is by the units of its data."""
        like = tensor_at(self.of, self.spec.raw)
        return self.part.unit_of(self.path, like) if isinstance(self.part, Observation) else torch.ones_like(like)


class Sampled(NamedTuple):
    """A parameter and its prior."""

    parameter: Parameter
    prior: Prior | WeightPrior

    def distribution(self, like: Tensor, shared: Mapping[str, Mapping[str, Tensor]]) -> dist.Distribution:
        """Return the prior as a distribution over tensors like `like`, given draws of what parameters share."""
        if isinstance(self.prior, WeightPrior):
            centre, unit = self._place(like, self.prior)
            return self.prior.distribution(like, centre, unit, shared[self.prior.group])
        return expanded_prior(self.prior, like, shared, self.parameter.spec.support)

    @property
    def dims(self) -> tuple[str, ...]:
        """What the axes of the parameter stand for, in order; () where nothing is said of them."""
        return self.prior.dims if isinstance(self.prior, WeightPrior) else self.parameter.spec.dims

    def standard(self) -> Tensor:
        """Return a network's tensor as it is now, in units in which a scale of its prior is its spread."""
        assert isinstance(self.prior, WeightPrior)
        value = self.parameter.value()
        return self.prior.standard(value, *self._place(value, self.prior))

    def _place(self, like: Tensor, prior: WeightPrior) -> tuple[Tensor, Tensor]:
        return self.parameter.in_units(torch.full_like(like, prior.around)), self.parameter.unit()
