"""Numbers in increasing order, each with a prior of its own: what tells exchangeable regimes apart."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

GRID = 32768  # points of each entry's grid, on which probabilities of order are integrated
REACH = 9.0  # standard deviations that a grid covers
RAREST = 1e-5  # probability of order below which draws would be rejected all but for ever


class OrderedNormal(TorchDistribution):
    """x_1 < x_2 < ... < x_K, x_k ~ Normal(loc_k, scale_k) independently, given that they are in order.

        p(x) = prod_k Normal(x_k; loc_k, scale_k) / P(X_1 < ... < X_K)   where x is in order, and zero elsewhere

    The probability of order is 1 / K! where all entries are alike, and is integrated numerically where they are not,
    so that the density is normalised and evidence counts. As a prior on what regimes read out, along the regimes, it
    leaves one of the K! labellings.

    Args:
        loc: (..., K), before the order is known.
        scale: standard deviations, positive, of a shape that broadcasts with `loc`.

    Raises:
        ValueError: a scale that is not positive; draws where fewer than one in 10^5 would be in order.

    Example:
        >>> import torch
        >>> prior = OrderedNormal(torch.tensor([0.0, 0.0]), torch.tensor(1.0))
        >>> torch.allclose(prior.log_prob(torch.tensor([-1.0, 1.0])), torch.tensor(2.0).log() - 1 - 1.8378771)
        True

    References:
        Stephens. Dealing with label switching in mixture models. 2000.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.independent(constraints.real, 1),
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.ordered_vector

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, torch.as_tensor(scale).to(loc))
        if self.loc.dim() == 0:
            raise ValueError("OrderedNormal: expected a vector of locations; found a single one")
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    @property
    def entries(self) -> dist.Normal:
        """The entries before their order is known."""
        return dist.Normal(self.loc, self.scale, validate_args=False)

    @property
    def log_order(self) -> Tensor:
        """log P(X_1 < ... < X_K), of the batch's shape."""
        rows = [_log_order(*pair) for pair in zip(*map(_rows, (self.loc, self.scale)), strict=True)]
        return self.loc.new_tensor(rows).reshape(self.batch_shape)

    @property
    def middle(self) -> Tensor:
        """A value in order that is typical of the prior, of the shape of `loc`: where a fit may start."""
        size = self.loc.shape[-1]
        ranks = (torch.arange(size, dtype=self.loc.dtype, device=self.loc.device) + 0.5) / size
        found = (self.loc + self.scale * torch.special.ndtri(ranks)).sort(-1).values
        apart = 1e-3 * self.scale.mean(-1, keepdim=True) * torch.arange(size, device=found.device)
        return found + apart  # no two alike

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> OrderedNormal:
        shape = torch.Size(batch_shape) + self.event_shape
        return OrderedNormal(self.loc.expand(shape), self.scale.expand(shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        found = self.entries.log_prob(value).sum(-1) - self.log_order
        return torch.where(self.support.check(value), found, -torch.inf)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            if _alike(self.loc) and _alike(self.scale):
                return self.entries.sample(shape).sort(-1).values
            if float(self.log_order.exp().min()) < RAREST:
                raise ValueError(
                    f"OrderedNormal: with loc {self.loc.tolist()} and scale {self.scale.tolist()} entries are hardly "
                    "ever in increasing order; expected locations that rarely contradict it"
                )
            found = self.entries.sample(shape)
            while bool((wrong := ~self.support.check(found)).any()):
                found = torch.where(wrong.unsqueeze(-1), self.entries.sample(shape), found)
            return found


def _rows(values: Tensor) -> list[tuple[float, ...]]:
    return [tuple(row) for row in values.detach().reshape(-1, values.shape[-1]).tolist()]


def _alike(values: Tensor) -> bool:
    return bool((values == values[..., :1]).all())


@lru_cache(maxsize=256)
def _log_order(locs: tuple[float, ...], scales: tuple[float, ...]) -> float:
    """Return log P(X_1 < ... < X_K) of one vector, in double precision.

    G_1 = F_1,  G_k(x) = int_{-inf}^x f_k(t) G_{k-1}(t) dt,  P = G_K(inf):  by the trapezium rule over all entries'
    quantiles, with which its steps are even where any of the densities is large.
    """
    if len(set(zip(locs, scales, strict=True))) == 1:
        return -math.lgamma(len(locs) + 1.0)
    loc, scale = torch.tensor(locs, dtype=torch.float64), torch.tensor(scales, dtype=torch.float64)
    steps = torch.linspace(-REACH, REACH, GRID, dtype=torch.float64)
    grid = (loc.unsqueeze(-1) + scale.unsqueeze(-1) * steps).flatten().sort().values
    entries = dist.Normal(loc.unsqueeze(-1), scale.unsqueeze(-1))
    below = entries.cdf(grid)
    reached = below[0]
    for own in below[1:]:
        # in the entry's own measure, which is exact however steep its density
        reached = torch.cat([reached.new_zeros(1), (0.5 * (reached[1:] + reached[:-1]) * own.diff()).cumsum(0)])
    return math.log(max(float(reached[-1]), 1e-300))
