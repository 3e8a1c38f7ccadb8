"""From a head's linear predictor to the parameter of its family: named links, to which users can add their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.models.component import Component

_NAMED: dict[str, Link] = {}


class Link(Component):
    """parameter = link(eta), increasing, elementwise (a statistician's inverse link).

    A subclass that has a `name` can be asked for by that name; any link can be passed as an object:

        >>> import torch, latentrnn as lr
        >>> from latentrnn.models.observations.links import PositiveLink
        >>> class SquareLink(PositiveLink):
        ...     name = "square of softplus"
        ...     def forward(self, eta): return torch.nn.functional.softplus(eta) ** 2
        ...     def inverse(self, value): return torch.log(torch.expm1(value.sqrt()))
        >>> lr.Poisson(link="square of softplus"), lr.Poisson(link=SquareLink())
        (Poisson(link='square of softplus'), Poisson(link=SquareLink()))
    """

    name: ClassVar[str | None] = None
    codomain: ClassVar[str] = "the real line"

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "name" in vars(cls):
            _NAMED[vars(cls)["name"]] = cls()

    @abstractmethod
    def forward(self, eta: Tensor) -> Tensor:
        """Return the parameter of every entry, in the shape of eta."""

    @abstractmethod
    def inverse(self, value: Tensor) -> Tensor:
        """Return the eta whose parameter is `value`, which lies inside the codomain."""


class RealLink(Link):
    """A link onto the real line."""


class PositiveLink(Link):
    """A link onto the positive numbers."""

    codomain = "the positive numbers"

    def log(self, eta: Tensor) -> Tensor:
        """Return log link(eta), finite where the parameter underflows."""
        return self(eta).clamp_min(1e-30).log()


class UnitLink(Link):
    """A link onto the interval (0, 1)."""

    codomain = "(0, 1)"

    def logit(self, eta: Tensor) -> Tensor:
        """Return the log-odds of link(eta), finite where the probability rounds to zero or one."""
        return torch.logit(self(eta), eps=1e-7)


class IdentityLink(RealLink):
    """eta."""

    name = "identity"

    def forward(self, eta: Tensor) -> Tensor:
        return eta

    def inverse(self, value: Tensor) -> Tensor:
        return value


class ArcsinhLink(RealLink):
    """arcsinh(eta): linear near zero, logarithmic far from it on either side."""

    name = "arcsinh"

    def forward(self, eta: Tensor) -> Tensor:
        return torch.asinh(eta)

    def inverse(self, value: Tensor) -> Tensor:
        return torch.sinh(value)


class ExpLink(PositiveLink):
    """exp(eta): effects multiply."""

    name = "exp"

    def forward(self, eta: Tensor) -> Tensor:
        return eta.exp()

    def log(self, eta: Tensor) -> Tensor:
        return eta

    def inverse(self, value: Tensor) -> Tensor:
        return value.log()


class SoftplusLink(PositiveLink):
    """log(1 + exp(eta)): effects add where the parameter is large."""

    name = "softplus"

    def forward(self, eta: Tensor) -> Tensor:
        return F.softplus(eta)

    def inverse(self, value: Tensor) -> Tensor:
        return value + torch.log(-torch.expm1(-value))


class SigmoidLink(UnitLink):
    """1 / (1 + exp(-eta)): effects act on log-odds."""

    name = "sigmoid"

    def forward(self, eta: Tensor) -> Tensor:
        return torch.sigmoid(eta)

    def logit(self, eta: Tensor) -> Tensor:
        return eta

    def inverse(self, value: Tensor) -> Tensor:
        return torch.logit(value)


class ProbitLink(UnitLink):
    """The standard normal distribution function: a Gaussian threshold."""

    name = "probit"

    def forward(self, eta: Tensor) -> Tensor:
        return torch.special.ndtr(eta)

    def logit(self, eta: Tensor) -> Tensor:
        return torch.special.log_ndtr(eta) - torch.special.log_ndtr(-eta)

    def inverse(self, value: Tensor) -> Tensor:
        return torch.special.ndtri(value)


class CLogLogLink(UnitLink):
    """1 - exp(-exp(eta)): at least one event of a Poisson process with log-rate eta (proportional hazards)."""

    name = "cloglog"

    def forward(self, eta: Tensor) -> Tensor:
        return -torch.expm1(-eta.clamp(max=50.0).exp())

    def logit(self, eta: Tensor) -> Tensor:
        rate = eta.clamp(min=-80.0, max=50.0).exp()
        # log(exp(rate) - 1), which is the rate itself where that is large
        return rate + torch.log(-torch.expm1(-rate))

    def inverse(self, value: Tensor) -> Tensor:
        return torch.log(-torch.log1p(-value))


def check_link(owner: str, link: str | Link, kind: Any, argument: str = "link") -> str | Link:
    """Return the link of a family as it was given.

    Raises:
        ValueError: an unknown name, or a link onto something else than the family's parameter.
        TypeError: neither a name nor a `Link`.
    """
    names = [name for name, known in _NAMED.items() if isinstance(known, kind)]
    if isinstance(link, str):
        if link not in names:
            raise ValueError(f"{owner}: {argument} must be {' or '.join(map(repr, names))}; found {link!r}")
    elif not isinstance(link, Link):
        raise TypeError(f"{owner}: {argument} must be a name or a Link; found {type(link).__name__}")
    elif not isinstance(link, kind):
        raise ValueError(f"{owner}: {argument} must map onto {kind.codomain}; {link!r} maps onto {link.codomain}")
    return str(link) if isinstance(link, str) else link


def as_link(link: str | Link) -> Any:
    """Return the link that a name stands for, or the link itself."""
    return _NAMED[link] if isinstance(link, str) else link
