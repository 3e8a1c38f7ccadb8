"""A multivariate normal at every step, whose covariance is a few shared directions and a diagonal."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentrnn.models.readouts.linear import per_entry


class StepwiseLowRankNormal(TorchDistribution):
    """y_t ~ Normal(loc_t, F F^T + diag(s^2)) at every step, missing channels integrated out.

    A missing channel is one without precision: its row of F and its residual then drop out of

        A = I + F^T diag(s^-2) F,    log det R = log det A + sum log s^2,
        r^T R^-1 r = |r / s|^2 - |A^-1/2 F^T (r / s^2)|^2

    (the matrix determinant lemma and Woodbury), so a step costs channels x rank^2.

    Args:
        loc: (..., time, channel).
        factor: F, (channel, rank), or, where densities are all that is asked for, (..., time, channel, rank).
        scale: s, (channel,).
        mask: True = observed, (sequence, time, channel), or None.
        partial: whether a step can be observed in some channels only; if not, one A serves all steps.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, loc: Tensor, factor: Tensor, scale: Tensor, mask: Tensor | None, partial: bool) -> None:
        self.loc, self.factor, self.scale, self.mask, self.partial = loc, factor, scale, mask, partial
        super().__init__(loc.shape[:-2], loc.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[y], (..., time, channel)."""
        return self.loc

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> StepwiseLowRankNormal:
        loc = self.loc.expand(torch.Size(batch_shape) + self.event_shape)
        return StepwiseLowRankNormal(loc, self.factor, self.scale, self.mask, self.partial)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        own = torch.randn(torch.Size(sample_shape) + self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        shared = torch.randn(*own.shape[:-1], self.factor.shape[-1], dtype=own.dtype, device=own.device)
        return self.loc + self.scale * own + per_entry(shared, self.factor)

    def marginals(self) -> dist.Normal:
        """Return the distribution of every entry by itself, no mask applied."""
        scale = (self.scale**2 + self.factor.square().sum(-1)).sqrt()
        return dist.Normal(self.loc, scale, validate_args=False)

    def step_log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities per step, nats, (..., time), zero where nothing is observed."""
        seen = torch.ones_like(self.scale) if self.mask is None or not self.partial else self.mask.to(self.loc.dtype)
        residual = value - self.loc
        if self.mask is not None:
            residual = torch.where(self.mask, residual, 0.0)
        identity = torch.eye(self.factor.shape[-1], dtype=residual.dtype, device=residual.device)
        standard, loading = residual / self.scale, self.factor / self.scale.unsqueeze(-1)
        tril = torch.linalg.cholesky(identity + loading.mT @ (seen.unsqueeze(-1) * loading))
        pushed = per_entry(standard, loading.mT).unsqueeze(-1)
        projected = torch.linalg.solve_triangular(tril, pushed, upper=False).squeeze(-1)
        log_det = (seen * self.scale.log()).sum(-1) + tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        quadratic = (standard**2).sum(-1) - (projected**2).sum(-1)
        log_prob = -0.5 * quadratic - log_det - seen.sum(-1) * 0.5 * math.log(2 * math.pi)
        return log_prob if self.mask is None else torch.where(self.mask.any(-1), log_prob, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.step_log_prob(value).sum(-1)
