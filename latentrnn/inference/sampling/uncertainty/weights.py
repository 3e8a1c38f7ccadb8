"""Everything that was learned of a model, as one vector, and functions of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Transform, biject_to
from torch.func import functional_call

from latentrnn.inference.evidence.marginal import Marginal
from latentrnn.inference.guides.fitted import Fitted
from latentrnn.inference.guides.parameters import ParameterFamily, PointParameters
from latentrnn.models.component import Component, tensor_at
from latentrnn.models.parameters.parameter_sites import Parameter
from latentrnn.models.state_space import LatentRNN

CENTRE_DRAWS = 1000  # of a guide's family, whose mean is where parameters with priors start


class Unpacked(NamedTuple):
    """What a vector stands for.

    Attributes:
        learned: tensors without a prior, by name in the model.
        sites: values of parameters with priors, by site.
        log_jacobian: log |d sites / d vector|, nats.
    """

    learned: dict[str, Tensor]
    sites: dict[str, Tensor]
    log_jacobian: Tensor


class _Holder(nn.Module):
    """A module that runs any function of a model, so that `functional_call` can give the model other tensors."""

    def __init__(self, model: LatentRNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[LatentRNN], Any]) -> Any:
        return function(self.model)


class Weights:
    """Every learned tensor of a model, and every parameter with a prior in unconstrained space, as one vector.

    Args:
        model: the model, which nothing else changes meanwhile.
        guide: whose family of the parameters with priors has a centre, at which these start; None for the model's own
            starting values.

    Attributes:
        start: the vector that stands for the model as it is, (size,).
        names: of every entry, by the name of its parameter in `parameters_table`.
        owners: the same without the index.
    """

    def __init__(self, model: LatentRNN, guide: nn.Module | None) -> None:
        self.model, self._holder = model, _Holder(model)
        learned, priors = dict(model.named_parameters()), model.parameter_sites()
        self._transforms: dict[str, Transform] = {k: biject_to(prior.support) for k, (prior, _) in priors.items()}
        family = getattr(guide, "parameter_sites", None)
        if family is None:
            free = {name: self._transforms[name].inv(start) for name, (_, start) in priors.items()}
        else:
            free = _centre(family, self._transforms)
        self._shapes = {name: value.shape for name, value in learned.items()}
        self._site_shapes = {name: free[name].shape for name in priors}
        parts = [value.detach() for value in learned.values()] + [free[name].detach() for name in priors]
        self.start = torch.cat([part.reshape(-1) for part in parts]) if parts else torch.zeros(0)
        known = names_of_tensors(model)
        owners = [(known.get(name, name), shape) for name, shape in self._shapes.items()]
        owners += list(self._site_shapes.items())
        self.owners = [owner for owner, shape in owners for _ in range(shape.numel())]
        self.names = [name for owner, shape in owners for name in entry_names(owner, shape)]

    @classmethod
    def of(cls, fitted: Fitted) -> Weights:
        """Return those of a fit, in double precision, on a copy of its model."""
        return cls(copy.deepcopy(fitted.model).eval().double(), copy.deepcopy(fitted.guide).double())

    @property
    def size(self) -> int:
        """How many numbers were learned."""
        return len(self.start)

    def unpack(self, flat: Tensor) -> Unpacked:
        """Return what a vector (size,) stands for."""
        shapes = [*self._shapes.values(), *self._site_shapes.values()]
        parts = [
            part.reshape(shape)
            for part, shape in zip(flat.split([shape.numel() for shape in shapes]), shapes, strict=True)
        ]
        learned = dict(zip(self._shapes, parts, strict=False))
        sites, log_jacobian = {}, flat.new_zeros(())
        for (name, transform), free in zip(self._transforms.items(), parts[len(learned) :], strict=True):
            sites[name] = transform(free)
            log_jacobian = log_jacobian + transform.log_abs_det_jacobian(free, sites[name]).sum()
        return Unpacked(learned, sites, log_jacobian)

    def energy(self, marginal: Marginal) -> Callable[[Tensor], Tensor]:
        """Return minus the log density of data and parameters as a function of the vector, nats.

        Args:
            marginal: of this very model.
        """

        def function(flat: Tensor) -> Tensor:
            found = self.unpack(flat)
            # cuDNN's recurrent networks have no second derivatives
            plain = torch.backends.cudnn.flags(enabled=False) if flat.is_cuda else nullcontext()
            with pyro.validation_enabled(False), plain:
                log_density = self._with(found.learned, lambda _: marginal.log_density(found.sites))
            return -log_density - found.log_jacobian

        return function

    def evaluate(self, function: Callable[[LatentRNN], Any], flat: Tensor) -> Any:
        """Return a function of the model that has the vector's numbers in the place of its own."""
        found = self.unpack(flat)

        def inner(model: LatentRNN) -> Any:
            return self._with(self._in_place(found.sites), function) if found.sites else function(model)

        return self._with(found.learned, inner)

    def _with(self, tensors: Mapping[str, Tensor], function: Callable[[LatentRNN], Any]) -> Any:
        return functional_call(self._holder, {f"model.{name}": value for name, value in tensors.items()}, (function,))

    def _in_place(self, sites: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors that stand for the sites, by name in the model."""
        places = {id(tensor): name for name, tensor in self.model.named_buffers()}
        found: dict[str, Tensor] = {}
        tensors: dict[str, dict[str, Tensor]] = {}
        sampled = sorted(self.model.given.sampled, key=lambda each: bool(each.parameter.spec.follows))
        for parameter, _ in sampled:
            own = tensors.setdefault(parameter.owner, {})
            tensor = parameter.tensor(sites[parameter.site], own)
            own[parameter.tensor_path] = tensor
            found[places[id(tensor_at(parameter.of, parameter.spec.raw))]] = tensor
        return found


def declared_parameters(model: LatentRNN) -> Iterator[Parameter]:
    """Yield every parameter that the parts of a model declare, under each of its names."""
    for owner, part in model.given.parts.items():
        for path, module in part.named_modules():
            if isinstance(module, Component):
                for name in module.parameter_specs():
                    yield Parameter(owner, part, path, module, name)


def names_of_tensors(model: LatentRNN) -> dict[str, str]:
    """Return the name in `parameters_table` of every tensor of a model, by its name in the model."""
    declared: dict[int, str] = {}
    for parameter in declared_parameters(model):
        declared.setdefault(id(tensor_at(parameter.of, parameter.spec.raw)), parameter.site)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: declared[id(tensor)] for name, tensor in tensors if id(tensor) in declared}


def entry_names(owner: str, shape: torch.Size) -> list[str]:
    """Return the names of the entries of a tensor; one that has a single entry goes by its own.

    Example:
        >>> entry_names("weight", torch.Size([1, 2]))
        ['weight[0, 0]', 'weight[0, 1]']
        >>> entry_names("weight", torch.Size([1]))
        ['weight']
    """
    if shape.numel() == 1:
        return [owner]
    places = torch.cartesian_prod(*(torch.arange(size) for size in shape)).reshape(-1, len(shape))
    return [f"{owner}[{', '.join(map(str, place))}]" for place in places.tolist()]


def _centre(family: ParameterFamily, transforms: Mapping[str, Transform]) -> dict[str, Tensor]:
    """Return the mean of a family's draws by site, in unconstrained space."""
    total: dict[str, Tensor] = {}
    count = 1 if isinstance(family, PointParameters) else CENTRE_DRAWS
    with torch.no_grad():
        for _ in range(count):
            nodes = poutine.trace(family).get_trace().nodes
            for name, transform in transforms.items():
                total[name] = total.get(name, 0.0) + transform.inv(nodes[name]["value"]) / count
    return total
