"""The log density of a Pyro program as a function of flat vectors, of all chains at once, with its gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_uniform
from torch import Tensor
from torch.distributions import Transform, biject_to
from torch.func import vmap

from latentrnn.inference.objectives.terms import sampled_sites
from latentrnn.models.scans import vmap_over_members
from latentrnn.support.recorded import recorded

Evaluator = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # positions to log densities and gradients
Operation = Callable[[Tensor], tuple[Tensor, Tensor]]

AGREEMENT = 1e-6  # between a density that was recorded and the program, relative


class _Site(NamedTuple):
    """A random variable: how it follows from unconstrained numbers, and the shape of these."""

    transform: Transform
    shape: torch.Size


class FlatDensity:
    """log p(x(u), y) + log |det dx/du| of a Pyro program, whose random variables x are those of one flat vector u.

    The program is run once for all chains, with an axis of chains in front of all that is drawn, and what it does to
    tensors is recorded, so that an evaluation costs no more than these operations. A program that does not go with
    that (a part without a rule for `vmap`, or whose operations depend on values) is run chain by chain, or every time.

    Args:
        program: all of whose random variables are continuous, with supports that depend on no other variable.
        arguments: of the program.

    Attributes:
        dim: of u.

    Raises:
        NotImplementedError: a random variable that is not continuous.
    """

    def __init__(self, program: Callable[..., Any], arguments: tuple[Any, ...] = ()) -> None:
        self.program, self.arguments = program, arguments
        with pyro.validation_enabled(False), torch.no_grad():
            trace = poutine.trace(InitMessenger(init_to_uniform)(program)).get_trace(*arguments)
        self.sites: dict[str, _Site] = {}
        for name, site in sampled_sites(trace):
            if not site["is_observed"]:
                transform = biject_to(site["fn"].support)
                self.sites[name] = _Site(transform, transform.inv(site["value"]).shape)
        self.sizes = [site.shape.numel() for site in self.sites.values()]
        self.dim = sum(self.sizes)
        example = next(iter(sampled_sites(trace)))[1]["value"]
        self.device, self.dtype = example.device, torch.float64

    def flat(self, values: Mapping[str, Tensor], others: Tensor) -> Tensor:
        """Return u, (dim,), of values by site, and for sites without one as in another vector, (dim,)."""
        parts = [
            site.transform.inv(values[name]).reshape(-1) if name in values else other
            for (name, site), other in zip(self.sites.items(), others.split(self.sizes), strict=True)
        ]
        return torch.cat(parts)

    def values(self, flat: Tensor) -> dict[str, Tensor]:
        """Return values by site, (*batch, *shape), of vectors u, (*batch, dim)."""
        return {name: value for name, (value, _) in self._values(flat).items()}

    def _values(self, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return values and their log |det dx/du|, (*batch,)."""
        found = {}
        batch = flat.shape[:-1]
        for (name, site), part in zip(self.sites.items(), flat.split(self.sizes, -1), strict=True):
            free = part.reshape(batch + site.shape)
            value = site.transform(free)
            log_jacobian = site.transform.log_abs_det_jacobian(free, value)
            found[name] = value, log_jacobian.reshape(batch + (-1,)).sum(-1)
        return found

    def log_joint(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return log p(x, y) of one value for each site, nats."""
        return poutine.trace(poutine.condition(self.program, data=values)).get_trace(*self.arguments).log_prob_sum()

    def with_gradient(self, flat: Tensor, *, vectorised: bool = True) -> tuple[Tensor, Tensor]:
        """Return log densities, (chain,) in nats, and gradients, (chain, dim), at u, (chain, dim), by the program."""
        point = flat.detach().requires_grad_()
        with torch.enable_grad(), pyro.validation_enabled(False):
            found = self._values(point)
            values = {name: value for name, (value, _) in found.items()}
            if vectorised:
                with vmap_over_members():
                    total = vmap(self.log_joint)(values)
            else:
                each = [self.log_joint(dict(zip(values, of, strict=True))) for of in zip(*values.values(), strict=True)]
                total = torch.stack(each)
            total = total + torch.stack([log_jacobian for _, log_jacobian in found.values()]).sum(0)
            (gradient,) = torch.autograd.grad(total.sum(), point)
        return total.detach(), gradient

    def evaluator(self, starts: np.ndarray) -> Evaluator:
        """Return the fastest of the ways to evaluate, as a function of arrays u, (chain, dim).

        Args:
            starts: an example of what it is to be called with.
        """
        example, other = self.tensor(starts), self.tensor(0.9 * starts + 0.01)
        expected = self.with_gradient(other, vectorised=False)
        for vectorised in (True, False):
            try:
                with warnings.catch_warnings():
                    # of `vmap`, where it takes one chain after the other for an operation
                    warnings.filterwarnings("ignore", message="There is a performance drop")
                    program = recorded(partial(self.with_gradient, vectorised=vectorised), example.clone())
                found = torch.inference_mode()(program)
                agrees = _agree(found(other), expected)
            except (NotImplementedError, RuntimeError):
                continue
            if agrees:
                return self._of_arrays(found)
        return self._of_arrays(partial(self.with_gradient, vectorised=False))

    def tensor(self, flat: np.ndarray) -> Tensor:
        """Return u as a tensor on the program's device."""
        return torch.as_tensor(flat, dtype=self.dtype, device=self.device)

    def _of_arrays(self, evaluate: Operation) -> Evaluator:
        def evaluated(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            log_density, gradient = evaluate(self.tensor(flat))
            return log_density.cpu().numpy(), gradient.cpu().numpy()

        return evaluated


def _agree(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> bool:
    return all(
        torch.allclose(a, b, rtol=AGREEMENT, atol=AGREEMENT, equal_nan=True)
        for a, b in zip(found, expected, strict=True)
    )
