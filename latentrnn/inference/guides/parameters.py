"""Families over the parameters that have priors: points, Normals of several shapes, a flow."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform, TransformedDistribution, biject_to, constraints
from torch.distributions.transforms import AffineTransform, ExpTransform, identity_transform

from latentrnn.inference.guides.flows import AutoregressiveFlow, Bent

JOINT = "parameters"  # the auxiliary site of families that draw all parameters at once
POSITIVE = biject_to(constraints.positive)
EDGE = 15.0  # logit of what is as good as the edge of an interval
START_SCALE = 0.05
LARGEST_FAMILY = 2**22  # numbers of its own, so that a step stays within tens of milliseconds

Parameters = Mapping[str, tuple[dist.Distribution, Tensor]]  # prior and starting value of every site, by name


def _is_interval(support: Any) -> bool:
    """Return whether every entry has two ends."""
    while isinstance(support, type(constraints.independent(constraints.real, 1))):
        support = support.base_constraint
    return isinstance(support, type(constraints.unit_interval) | type(constraints.half_open_interval(0, 1)))


class ParameterFamily(nn.Module):
    """q(theta) over all sites with priors, in unconstrained space.

    Numbers of sites on the real line are kept in units of their own, by which they are multiplied: a step of the
    optimizer is then as large for a weight in volts as for one in microvolts.

    Standard deviations start at a twentieth, those of a network's weights at a twentieth of 1 / sqrt(fan_in). The noise
    of all weights of a unit together is then a twentieth of what it is fed, whatever its size: networks whose weights
    start noisier do not learn, since the likelihood's gradient is lost in the noise before the prior is (weights began
    at sds of 0.075 in Graves 2011, and of 0.7 to 2 hundredths in implementations of Blundell et al. 2015).

    Args:
        parameters: prior and starting value of every site, by name.
        spreads: by which the starting standard deviations of sites are multiplied; one where there is none.

    References:
        Graves. Practical variational inference for neural networks. 2011.
        Blundell, Cornebise, Kavukcuoglu, Wierstra. Weight uncertainty in neural networks. 2015.
    """

    added_later: tuple[str, ...] = ()  # as of a `Component`

    def __init__(self, parameters: Parameters, spreads: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.start_scales = {name: START_SCALE * (spreads or {}).get(name, 1.0) for name in parameters}
        self.transforms = {name: biject_to(prior.support) for name, (prior, _) in parameters.items()}
        self.bounded = {name for name, (prior, _) in parameters.items() if _is_interval(prior.support)}
        self.on_the_line = {name for name in parameters if self._of_each_entry(name) == identity_transform}
        self.positive = {name for name in parameters if self._of_each_entry(name) == POSITIVE}
        # of the unconstrained numbers, of which probabilities have one less, and axes of the values themselves
        self.shapes = {
            name: self.transforms[name].inverse_shape(start.shape) for name, (_, start) in parameters.items()
        }
        self.event_dims = {name: start.dim() for name, (_, start) in parameters.items()}

    @abstractmethod
    def start_at(self, starts: Mapping[str, Tensor], units: Mapping[str, Tensor] | None = None) -> None:
        """Put the location at `starts`, with a small spread, from now on in these `units` (one, by default)."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name in self.added_later:
            state_dict.setdefault(prefix + name, self.get_buffer(name))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @abstractmethod
    def forward(self) -> dict[str, Tensor]:
        """Sample every site."""

    @abstractmethod
    def centre(self) -> dict[str, Tensor]:
        """Return the value of every site at the location of the unconstrained numbers."""

    def _of_each_entry(self, name: str) -> Transform:
        transform = self.transforms[name]
        return getattr(transform, "base_transform", transform)

    def _units(self, units: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the units of the unconstrained numbers of every site; others than those on the line have none."""
        ones = {name: torch.ones(shape) for name, shape in self.shapes.items()}
        known = {name: unit for name, unit in (units or {}).items() if name in self.on_the_line}
        return {name: known[name].expand(one.shape) if name in known else one for name, one in ones.items()}

    def _unconstrained(self, name: str, start: Tensor) -> Tensor:
        """Return the numbers that stand for a start; one on the edge of the support or outside begins in its middle."""
        free = self.transforms[name].inv(start)
        settled = torch.isfinite(free)
        if name in self.bounded:  # torch's inverse puts what is outside next to the edge, where nothing has a gradient
            settled &= free.abs() < EDGE
        return torch.where(settled, free, 0.0)


class _Separate(ParameterFamily):
    """What families share that draw every site by itself: a location for each."""

    def __init__(self, parameters: Parameters, spreads: Mapping[str, float] | None = None) -> None:
        super().__init__(parameters, spreads)
        self._keys = {name: name.replace(".", "_") for name in self.shapes}
        self.loc = nn.ParameterDict({self._keys[name]: torch.zeros(shape) for name, shape in self.shapes.items()})
        for name, shape in self.shapes.items():
            self.register_buffer(self._unit(name), torch.ones(shape))
        self.added_later = tuple(self._unit(name) for name in self.shapes)

    def _unit(self, name: str) -> str:
        return f"unit_{self._keys[name]}"

    def start_at(self, starts: Mapping[str, Tensor], units: Mapping[str, Tensor] | None = None) -> None:
        with torch.no_grad():
            for name, unit in self._units(units).items():
                self.get_buffer(self._unit(name)).copy_(unit)
                self.loc[self._keys[name]].copy_(self._unconstrained(name, starts[name]) / unit.to(starts[name]))

    def centre(self) -> dict[str, Tensor]:
        return {name: self.transforms[name](self._location(name)).detach() for name in self.shapes}

    def _location(self, name: str) -> Tensor:
        """Return the location of a site's unconstrained numbers."""
        return self.loc[self._keys[name]] * self.get_buffer(self._unit(name))


class PointParameters(_Separate):
    """q(theta) all at one point: the maximum of the posterior density given the latents' family (MAP).

    The density that is maximised is that of the parameters in their own space. Evidence then treats the point as
    known: it leaves the prior's mass out, and is no estimate of the density of the data under the prior.
    """

    def __init__(self, parameters: Parameters, spreads: Mapping[str, float] | None = None) -> None:
        super().__init__(parameters, spreads)
        self.start_at({name: start for name, (_, start) in parameters.items()})

    def forward(self) -> dict[str, Tensor]:
        return {
            name: pyro.sample(name, dist.Delta(self.transforms[name](self._location(name)), event_dim=event_dim))
            for name, event_dim in self.event_dims.items()
        }


class NormalParameters(_Separate):
    """q(theta) = prod Normal(m, s^2) over every entry of every site, in unconstrained space."""

    def __init__(self, parameters: Parameters, spreads: Mapping[str, float] | None = None) -> None:
        super().__init__(parameters, spreads)
        keys = self._keys
        self.log_scale = nn.ParameterDict({keys[name]: torch.zeros(shape) for name, shape in self.shapes.items()})
        self.start_at({name: start for name, (_, start) in parameters.items()})

    def start_at(self, starts: Mapping[str, Tensor], units: Mapping[str, Tensor] | None = None) -> None:
        super().start_at(starts, units)
        with torch.no_grad():
            for name in starts:
                self.log_scale[self._keys[name]].fill_(math.log(self.start_scales[name]))

    def forward(self) -> dict[str, Tensor]:
        values = {}
        for name, shape in self.shapes.items():
            loc = self._location(name)
            scale = self.log_scale[self._keys[name]].exp() * self.get_buffer(self._unit(name))
            values[name] = pyro.sample(name, self._distribution(name, loc, scale, len(shape)))
        return values

    def _distribution(self, name: str, loc: Tensor, scale: Tensor, event_dim: int) -> dist.Distribution:
        """Return a Normal or LogNormal where it is one, whose divergence from another has a closed form."""
        if name in self.positive:
            return _LogNormal(loc, scale, validate_args=False).to_event(event_dim)
        base = dist.Normal(loc, scale, validate_args=False).to_event(event_dim)
        if name in self.on_the_line:
            return base
        return dist.TransformedDistribution(base, [self.transforms[name]], validate_args=False)


class _LogNormal(dist.LogNormal):
    """A LogNormal that leaves its numbers unchecked where it is told to: Pyro's checks them all the same."""

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        base = dist.Normal(loc, scale, validate_args=validate_args)
        TransformedDistribution.__init__(self, base, ExpTransform(), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = self._get_checked_instance(_LogNormal, _instance)
        return TransformedDistribution.expand(self, batch_shape, _instance=new)


class JointParameters(ParameterFamily):
    """What families share that draw all sites at once, at an auxiliary site, and hand out the parts."""

    added_later = ("unit",)
    unit: Tensor

    def __init__(self, parameters: Parameters, spreads: Mapping[str, float] | None = None) -> None:
        super().__init__(parameters, spreads)
        self.size = sum(shape.numel() for shape in self.shapes.values())
        self._check_size()
        self.loc = nn.Parameter(torch.zeros(self.size))
        self.log_scale = nn.Parameter(torch.zeros(self.size))
        self.register_buffer("unit", torch.ones(self.size))
        self._build()
        self.start_at({name: start for name, (_, start) in parameters.items()})

    def _build(self) -> None:
        """Create the further parameters of the family."""

    @classmethod
    def numbers(cls, size: int) -> int:
        """Return about how many further parameters the family has for parameters of this size."""
        return 0

    def _check_size(self) -> None:
        if (numbers := self.numbers(self.size)) > LARGEST_FAMILY:
            name = next(name for name, kind in FAMILIES.items() if kind is type(self))
            raise ValueError(
                f"Guide: global_family={name!r} over {self.size:,} parameters would have {numbers:,} numbers of its "
                f"own, more than {LARGEST_FAMILY:,}; use 'low_rank' or 'normal', or put priors on fewer weights, those "
                "of the readouts for instance"
            )

    def start_at(self, starts: Mapping[str, Tensor], units: Mapping[str, Tensor] | None = None) -> None:
        with torch.no_grad():
            self.unit.copy_(torch.cat([unit.flatten() for unit in self._units(units).values()]))
            self.loc.copy_(self.pack(starts) / self.unit)
            self.log_scale.copy_(self._start_log_scales())

    def _start_log_scales(self) -> Tensor:
        """Return the logarithm of the standard deviation at which every entry starts, (size,)."""
        sizes = {name: shape.numel() for name, shape in self.shapes.items()}
        return torch.cat([torch.full((size,), math.log(self.start_scales[name])) for name, size in sizes.items()])

    @abstractmethod
    def joint(self) -> dist.Distribution:
        """Return the distribution of all entries, event (size,)."""

    def forward(self) -> dict[str, Tensor]:
        flat = pyro.sample(JOINT, self.joint(), infer={"is_auxiliary": True})
        values = {}
        for name, (value, log_jacobian) in self.unpack(flat).items():
            delta = dist.Delta(value, log_density=-log_jacobian, event_dim=self.event_dims[name])
            values[name] = pyro.sample(name, delta)
        return values

    def centre(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, (value, _) in self.unpack(self.loc * self.unit).items()}

    def unpack(self, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return by site the value that unconstrained numbers (..., size) stand for, and log |d value / d numbers|."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            part = flat[..., start : start + shape.numel()].reshape((*flat.shape[:-1], *shape))
            start += shape.numel()
            value = self.transforms[name](part)
            log_jacobian = self.transforms[name].log_abs_det_jacobian(part, value)
            found[name] = value, log_jacobian.reshape(*flat.shape[:-1], -1).sum(-1)
        return found

    def pack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the unconstrained numbers (size,) of a value of every site."""
        return torch.cat([self._unconstrained(name, values[name]).flatten() for name in self.shapes])


class MultivariateParameters(JointParameters):
    """q(theta) = Normal(m, L L^T) over all sites jointly, in unconstrained space."""

    @classmethod
    def numbers(cls, size: int) -> int:
        return size * size

    def _build(self) -> None:
        self.mixing = nn.Parameter(torch.zeros(self.size, self.size))

    def start_at(self, starts: Mapping[str, Tensor], units: Mapping[str, Tensor] | None = None) -> None:
        super().start_at(starts, units)
        with torch.no_grad():
            self.mixing.zero_()

    def place(self, loc: Tensor, scale_tril: Tensor) -> None:
        """Become Normal(loc, L L^T) for a lower triangular L with a positive diagonal, (size, size)."""
        scale = scale_tril.diagonal()
        with torch.no_grad():
            self.unit.fill_(1.0), self.loc.copy_(loc), self.log_scale.copy_(scale.log())
            self.mixing.copy_(torch.tril(scale_tril, -1) / scale.unsqueeze(-1))

    def joint(self) -> dist.Distribution:
        scale = self.log_scale.exp() * self.unit
        tril = scale.unsqueeze(-1) * (torch.tril(self.mixing, -1) + torch.eye(len(scale)).to(scale))
        return dist.MultivariateNormal(self.loc * self.unit, scale_tril=tril, validate_args=False)


class LowRankParameters(JointParameters):
    """q(theta) = Normal(m, F F^T + diag(s^2)) over all sites jointly, in unconstrained space.

    Args:
        parameters, spreads: see `ParameterFamily`.
        rank: columns of F; the square root of the number of parameters by default.

    Raises:
        ValueError: more columns than parameters.

    References:
        Ong, Nott, Smith. Gaussian variational approximation with a factor covariance structure. 2018.
    """

    def __init__(
        self, parameters: Parameters, spreads: Mapping[str, float] | None = None, rank: int | None = None
    ) -> None:
        self.rank = rank
        super().__init__(parameters, spreads)

    def _build(self) -> None:
        rank = max(1, math.isqrt(self.size)) if self.rank is None else self.rank
        if rank > self.size:
            raise ValueError(f"Guide: global_rank must be at most the {self.size} numbers there are; found {rank}")
        self.factor = nn.Parameter(torch.zeros(self.size, rank))

    def start_at(self, starts: Mapping[str, Tensor], units: Mapping[str, Tensor] | None = None) -> None:
        super().start_at(starts, units)
        with torch.no_grad():
            # columns that differ, or their gradients would never
            scale = self.log_scale.exp().unsqueeze(-1)
            self.factor.normal_(0.0, 0.1 / self.factor.shape[1] ** 0.5).mul_(scale)

    def joint(self) -> dist.Distribution:
        # in units of its own, for the squares of very small ones would underflow
        scale = self.log_scale.exp()
        own = dist.LowRankMultivariateNormal(self.loc, self.factor, scale.square(), validate_args=False)
        return dist.TransformedDistribution(own, [AffineTransform(torch.zeros_like(self.unit), self.unit, event_dim=1)])


class FlowParameters(JointParameters):
    """q(theta): a Normal sent through two inverse autoregressive flows, over all sites jointly, in unconstrained space.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling. Improved variational inference with inverse
        autoregressive flow. 2016.
    """

    @classmethod
    def numbers(cls, size: int) -> int:
        return 12 * size * size

    def _build(self) -> None:
        self.flow = AutoregressiveFlow(self.size, layers=2, hidden_size=2 * self.size)

    def joint(self) -> dist.Distribution:
        base = dist.Normal(torch.zeros_like(self.loc), 1.0, validate_args=False).to_event(1)
        placed = _Placed(self.flow, self.loc * self.unit, self.log_scale + self.unit.log())
        return Bent(base, placed, None)


class _Placed(NamedTuple):
    """z = m + s * f(x)."""

    flow: AutoregressiveFlow
    loc: Tensor
    log_scale: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.flow(x)
        return self.loc + self.log_scale.exp() * z, log_det + self.log_scale.sum()

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.flow.inverse((z - self.loc) * torch.exp(-self.log_scale))
        return x, log_det + self.log_scale.sum()


FAMILIES: dict[str, type[ParameterFamily]] = {
    "normal": NormalParameters,
    "multivariate": MultivariateParameters,
    "low_rank": LowRankParameters,
    "flow": FlowParameters,
    "point": PointParameters,
}
