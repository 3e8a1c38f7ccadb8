"""Gaussian noise around a trajectory, on a slow drift of random size that is integrated out."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class DriftingNormal(TorchDistribution):
    """y = loc + sum_k loading_k w_k + scale * noise, w ~ Normal(0, I) for every sequence and channel, integrated out.

    With residuals r, weights m = mask / scale^2 and A = I + loading^T diag(m) loading:

        log p(y) = -1/2 [sum m r^2 - v^T A^-1 v + log det A] - sum over observed of [log scale + 1/2 log 2 pi],
        v = loading^T diag(m) r

    Args:
        loc: (..., time, channel).
        scale: (channel,), or draws of it, (*sample, 1, 1, channel).
        loading: (time, weight, channel), or draws of it, (*sample, 1, time, weight, channel).
        mask: True = observed, (sequence, time, channel), or None.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, loading: Tensor, mask: Tensor | None) -> None:
        self.loc, self.scale, self.loading, self.mask = loc, scale, loading, mask
        super().__init__(loc.shape[:-2], loc.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[y], (..., time, channel)."""
        return self.loc

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> DriftingNormal:
        loc = self.loc.expand(torch.Size(batch_shape) + self.event_shape)
        return DriftingNormal(loc, self.scale, self.loading, self.mask)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        noise = torch.randn(torch.Size(sample_shape) + self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        shape = (*noise.shape[:-2], *self.loading.shape[-2:])
        weights = torch.randn(shape, dtype=noise.dtype, device=noise.device)
        return self.loc + self.scale * noise + torch.einsum("...tkc,...kc->...tc", self.loading, weights)

    def completed(self, value: Tensor, mask: Tensor) -> Tensor:
        """Return a draw given the observed entries: one of all, its weights corrected by what it has wrong of them."""
        weights = torch.randn(*self.loc.shape[:-2], *self.loading.shape[-2:], dtype=value.dtype, device=value.device)
        drift = torch.einsum("...tkc,...kc->...tc", self.loading, weights)
        noise = self.scale * torch.randn_like(self.loc)
        error = torch.where(mask, (value - self.loc - drift - noise) / self.scale, 0.0)
        loading, seen = self._own_loading(), mask.to(value.dtype).expand_as(error)
        identity = torch.eye(loading.shape[-2], dtype=value.dtype, device=value.device)
        precision = identity + torch.einsum("...tkc,...tc,...tlc->...ckl", loading, seen, loading)
        pushed = torch.einsum("...tkc,...tc->...ck", loading, error).unsqueeze(-1)
        moved = torch.linalg.solve(precision, pushed).squeeze(-1)
        drift = drift + torch.einsum("...tkc,...ck->...tc", self.loading, moved)
        return torch.where(mask, value, self.loc + drift + noise)

    def _standard(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return residuals and loadings in units of the noise, and which entries count."""
        seen = torch.ones_like(self.loc) if self.mask is None else self.mask.to(self.loc.dtype)
        residual = (value - self.loc) / self.scale
        return residual if self.mask is None else torch.where(self.mask, residual, 0.0), self._own_loading(), seen

    def _own_loading(self) -> Tensor:
        """Return the loadings in units of the noise."""
        return self.loading / (self.scale if self.scale.dim() == 1 else self.scale.unsqueeze(-2))

    def _constant(self, seen: Tensor) -> Tensor:
        return seen * (self.scale.log() + 0.5 * math.log(2 * math.pi))

    def log_prob(self, value: Tensor) -> Tensor:
        residual, loading, seen = self._standard(value)
        identity = torch.eye(loading.shape[-2], dtype=loading.dtype, device=loading.device)
        tril = torch.linalg.cholesky(identity + torch.einsum("...tkc,...tc,...tlc->...ckl", loading, seen, loading))
        projected = torch.einsum("...tkc,...tc->...ck", loading, residual).unsqueeze(-1)
        explained = torch.linalg.solve_triangular(tril, projected, upper=False).squeeze(-1)
        log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum((-2, -1))
        quadratic = (residual**2).sum((-2, -1)) - (explained**2).sum((-2, -1))
        return -0.5 * quadratic - log_det - self._constant(seen).sum((-2, -1))

    def entry_log_prob(self, value: Tensor) -> Tensor:
        """Return log p(y_t | the observed entries before t) of every entry, nats, zero where masked."""
        residual, loading, seen = self._standard(value)
        identity = torch.eye(loading.shape[-2], dtype=loading.dtype, device=loading.device)
        outer = torch.einsum("...tkc,...tc,...tlc->...tckl", loading, seen, loading)
        products = torch.einsum("...tkc,...tc->...tck", loading, residual)
        now = loading.transpose(-2, -1).unsqueeze(-1)  # (time, channel, weight, 1)
        tril = torch.linalg.cholesky(identity + outer.cumsum(-4) - outer)
        past = torch.linalg.solve_triangular(tril, (products.cumsum(-3) - products).unsqueeze(-1), upper=False)
        ahead = torch.linalg.solve_triangular(tril, now.expand(*tril.shape[:-1], 1), upper=False)
        variance = 1 + (ahead**2).sum((-2, -1))
        error = residual - (past * ahead).sum((-2, -1))
        return seen * (-0.5 * error**2 / variance - 0.5 * variance.log()) - self._constant(seen)
