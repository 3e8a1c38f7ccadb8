"""Gaussians whose precision is block tridiagonal: exact draws, densities and marginals in logarithmic depth."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F


class _Level(NamedTuple):
    """Every other block of a chain, given its neighbours: Normal(mean + left x_{-} + right x_{+}, (L L^T)^{-1})."""

    root: Tensor  # L, (..., even, dim, dim)
    mean: Tensor  # (..., even, dim)
    left: Tensor  # (..., even, dim, dim)
    right: Tensor


class BlockTridiagonalNormal(TorchDistribution):
    """The Gaussian with density proportional to exp(-x^T J x / 2 + h^T x), J symmetric and block tridiagonal.

    Odd-even elimination: given their neighbours, all blocks at even places are independent, and integrating them out
    leaves a chain of half the length. So one draw, one density or all marginals take work linear in the length and
    a number of consecutive operations that is logarithmic in it.

    Args:
        diagonal: blocks J_tt, (..., time, dim, dim).
        lower: blocks J_{t+1,t}, (..., time - 1, dim, dim).
        linear: h, (..., time, dim).

    References:
        Heller. Some aspects of the cyclic reduction algorithm for block tridiagonal linear systems. 1976.
        Rue, Held. Gaussian Markov random fields: theory and applications. 2005.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, diagonal: Tensor, lower: Tensor, linear: Tensor) -> None:
        self.diagonal, self.lower, self.linear = diagonal, lower, linear
        self.levels = _eliminate(diagonal, lower, linear)
        super().__init__(linear.shape[:-2], linear.shape[-2:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> BlockTridiagonalNormal:
        new = BlockTridiagonalNormal.__new__(BlockTridiagonalNormal)
        new.diagonal, new.lower, new.linear, new.levels = self.diagonal, self.lower, self.linear, self.levels
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape
        noise = torch.randn(*shape, *self.event_shape, dtype=self.linear.dtype, device=self.linear.device)
        return self._substitute(noise)

    def _substitute(self, noise: Tensor | None) -> Tensor:
        """Return a draw, or the mean where there is no noise."""
        value: Tensor | None = None
        start = 0
        for level in reversed(self.levels):
            count = level.mean.shape[-2]
            even = level.mean
            if noise is not None:
                drawn = noise[..., start : start + count, :, None]
                start += count
                even = even + torch.linalg.solve_triangular(level.root.mT, drawn, upper=True).squeeze(-1)
            value = even if value is None else _interleave(even + _pull(level, value), value)
        assert value is not None
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        total = value.new_zeros(())
        for level in self.levels:
            even, value = value[..., ::2, :], value[..., 1::2, :]
            residual = even - level.mean
            if value.shape[-2]:
                residual = residual - _pull(level, value)
            white = (level.root.mT @ residual.unsqueeze(-1)).squeeze(-1)
            log_root = level.root.diagonal(dim1=-2, dim2=-1).log()
            total = total + (log_root - 0.5 * white**2 - 0.5 * math.log(2 * math.pi)).sum((-2, -1))
        return total

    @property
    def mean(self) -> Tensor:
        """Return E[x], (..., time, dim)."""
        return self._substitute(None).expand(*self.batch_shape, *self.event_shape)

    @property
    def covariance(self) -> Tensor:
        """Return the marginal covariance of every block, (..., time, dim, dim)."""
        return self._marginals()[0]

    @property
    def variance(self) -> Tensor:
        """Return the marginal variances, (..., time, dim)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).expand(*self.batch_shape, *self.event_shape)

    def _marginals(self) -> tuple[Tensor, Tensor]:
        """Return Cov(x_t), (..., time, dim, dim), and Cov(x_{t+1}, x_t), (..., time - 1, dim, dim)."""
        covariance: Tensor | None = None
        cross: Tensor | None = None  # of neighbours among the odd places
        for level in reversed(self.levels):
            own = torch.cholesky_inverse(level.root)
            if covariance is None or cross is None:
                covariance, cross = own, own[..., :0, :, :]
                continue
            evens, odds = own.shape[-3], covariance.shape[-3]
            before = _pad_blocks(covariance, 1, evens - odds)  # covariance of the odd block k - 1 and, below, k
            left, right = before[..., :evens, :, :], before[..., 1 : evens + 1, :, :]
            between = _pad_blocks(cross, 1, evens - cross.shape[-3])[..., :evens, :, :]  # Cov(odd k, odd k - 1)
            with_left = level.left @ left + level.right @ between  # Cov(even k, odd k - 1)
            with_right = level.left @ between.mT + level.right @ right  # Cov(even k, odd k)
            even = own + with_left @ level.left.mT + with_right @ level.right.mT
            # neighbours in the finer chain: even k with odd k (below), odd k with even k + 1
            below, above = with_right[..., :odds, :, :].mT, with_left[..., 1:, :, :]
            cross = _interleave_blocks(below, above)
            covariance = _interleave_blocks(even, covariance)
        assert covariance is not None
        assert cross is not None
        return covariance, cross

    def conditionals(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same distribution as a process: x_t | x_{t-1} ~ Normal(G_t x_{t-1} + m_t, (L_t L_t^T)^{-1}).

        Returns:
            G, (..., time, dim, dim), zero at the first step; m, (..., time, dim); L, (..., time, dim, dim).
        """
        covariance, cross = self._marginals()
        mean = self.mean
        gain = torch.linalg.solve(covariance[..., :-1, :, :], cross, left=False)
        gain = F.pad(gain, (0, 0, 0, 0, 1, 0))
        before = F.pad(mean, (0, 0, 1, 0))[..., :-1, :]
        offset = mean - (gain @ before.unsqueeze(-1)).squeeze(-1)
        spread = covariance - gain @ F.pad(cross, (0, 0, 0, 0, 1, 0)).mT
        return gain, offset, torch.linalg.cholesky(torch.linalg.inv(spread))


def _eliminate(diagonal: Tensor, lower: Tensor, linear: Tensor) -> list[_Level]:
    """Eliminate every other block until none is left."""
    levels = []
    while True:
        count = diagonal.shape[-3]
        evens, odds = (count + 1) // 2, count // 2
        couplings = F.pad(lower, (0, 0, 0, 0, 1, 1))  # couplings[t] lies between t - 1 and t; none at either end
        from_left, to_right = (
            couplings[..., 0::2, :, :][..., :evens, :, :],
            couplings[..., 1::2, :, :][..., :evens, :, :],
        )
        root = torch.linalg.cholesky(diagonal[..., ::2, :, :])
        # L^{-1} times what ties an even block to the one on its left, to the one on its right, and h
        dim = diagonal.shape[-1]
        tied = torch.cat([from_left, to_right.mT, linear[..., ::2, :].unsqueeze(-1)], -1)
        solved = torch.linalg.solve_triangular(root, tied, upper=False)
        back = torch.linalg.solve_triangular(root.mT, solved, upper=True)
        levels.append(_Level(root, back[..., -1], -back[..., :dim], -back[..., dim : 2 * dim]))
        if not odds:
            return levels
        left, right, free = solved[..., :dim], solved[..., dim : 2 * dim], solved[..., -1:]
        # what elimination adds to the odd block between even k (of which it is the right) and even k + 1
        own = slice(0, odds)
        ahead = (0, 0, 0, 0, 0, odds + 1 - evens)  # a block of zeros where no even block follows the last odd one
        left_next, free_next = F.pad(left, ahead)[..., 1:, :, :], F.pad(free, ahead)[..., 1:, :, :]
        right_next = F.pad(right, ahead)[..., 1:, :, :]
        mine, mine_free = right[..., own, :, :], free[..., own, :, :]
        diagonal = diagonal[..., 1::2, :, :] - mine.mT @ mine - left_next.mT @ left_next
        linear = linear[..., 1::2, :] - (mine.mT @ mine_free + left_next.mT @ free_next).squeeze(-1)
        lower = -(right_next.mT @ left_next)[..., : odds - 1, :, :]


def _pull(level: _Level, odd: Tensor) -> Tensor:
    """Return left x_{-} + right x_{+} for every even block, (..., even, dim), given the odd ones."""
    evens = level.mean.shape[-2]
    around = F.pad(odd, (0, 0, 1, evens - odd.shape[-2])).unsqueeze(-1)
    return (level.left @ around[..., :evens, :, :] + level.right @ around[..., 1 : evens + 1, :, :]).squeeze(-1)


def _pad_blocks(blocks: Tensor, before: int, after: int) -> Tensor:
    return F.pad(blocks, (0, 0, 0, 0, before, after))


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Return x with the even and the odd places filled, (..., time, dim)."""
    batch = torch.broadcast_shapes(even.shape[:-2], odd.shape[:-2])
    even, odd = even.expand(*batch, *even.shape[-2:]), odd.expand(*batch, *odd.shape[-2:])
    paired = torch.stack([even[..., : odd.shape[-2], :], odd], -2).flatten(-3, -2)
    return torch.cat([paired, even[..., odd.shape[-2] :, :]], -2)


def _interleave_blocks(even: Tensor, odd: Tensor) -> Tensor:
    return _interleave(even.flatten(-2), odd.flatten(-2)).unflatten(-1, even.shape[-2:])
