"""Real-valued observations with Gaussian noise."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from latentrnn.data import HeadSpec
from latentrnn.models.features.units import channel_means
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.links import IdentityLink, Link, RealLink, as_link, check_link
from latentrnn.models.observations.low_rank_normal import StepwiseLowRankNormal
from latentrnn.models.observations.observation import Observation, rows_in_units, scale_in_units
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.readouts.linear import per_entry
from latentrnn.support.arguments import check_choice, check_size


class Gaussian(Observation):
    """y ~ Normal(link(eta), R); R = diag(sigma^2), F F^T + diag(sigma^2), or full between the channels of one step.

    Where `from_arrays` standardised the head, eta and R are in standard units and are mapped back, so that
    the site, its log-density and its samples are in the data's own units. After a fit of data that it did not, they are
    in units of each channel's mean and spread in the training data: the mean is location + scale link(eta), which
    `coefficients()` maps back to the data's units with the identity link alone; with another they are those of this
    eta. Missing channels are integrated out.

    Args:
        covariance: "diagonal", one learned noise scale per channel; "low_rank", noise that channels share in a few
            directions F, (channel, rank), besides their own; or "full".
        rank: number of shared directions of "low_rank".
        link: "identity" or a `RealLink`.
        **shared: see `Observation`.

    Raises:
        ValueError: an unknown covariance, a rank without "low_rank" or the reverse, a covariance between channels on
            a per-sequence head, an unknown link, or one that does not map onto the real line.
    """

    # of covariance="full", R = diag(scale) L L^T diag(scale), where L, the `correlation_factor`, has rows of length one
    declared: ClassVar = {
        "scale": scale_in_units("log_noise_scale"),
        "noise_factor": rows_in_units("noise_factor", ("channel", "direction")),
        "correlation_factor": ParameterSpec(
            "noise_ratio",
            value=lambda _, kept: correlation_factor(kept),
            tensor=lambda _, factor: _ratio(factor),
            support=constraints.corr_cholesky,
            dims=("channel", "channel before"),
        ),
    }

    in_units = True

    def __init__(
        self, covariance: str = "diagonal", rank: int | None = None, link: str | Link = "identity", **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.covariance = check_choice("Gaussian", "covariance", covariance, ("diagonal", "low_rank", "full"))
        if (rank is not None) != (covariance == "low_rank"):
            raise ValueError(f"Gaussian: rank goes with covariance='low_rank'; found {covariance!r} with rank {rank}")
        self.rank = None if rank is None else check_size("Gaussian", "rank", rank)
        self.link = check_link("Gaussian", link, RealLink)
        self.joint = covariance != "diagonal"

    def build_family(self, head: HeadSpec) -> None:
        owner = f"observations[{head.name!r}]: Gaussian(covariance={self.covariance!r})"
        if self.joint and not head.per_step:
            raise ValueError(f"{owner} needs a per-step head")
        self.log_noise_scale = nn.Parameter(torch.zeros(head.channels))
        if self.covariance == "full":
            self.noise_ratio = nn.Parameter(torch.zeros(head.channels, head.channels))
        if self.rank is not None:
            if self.rank >= head.channels:
                raise ValueError(f"{owner}: rank must be below the {head.channels} channels; found {self.rank}")
            self.noise_factor = nn.Parameter(torch.zeros(head.channels, self.rank))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.log_noise_scale.zero_()
            if self.covariance == "full":
                self.noise_ratio.zero_()
            if self.rank is not None:  # at zero exactly no direction is better than its opposite, and none is learned
                self.noise_factor.normal_(0.0, 0.1)

    @property
    def noise_covariance(self) -> Tensor:
        """R in the data's units, (channel, channel)."""
        if self.covariance == "full":
            return self.noise_scale_tril @ self.noise_scale_tril.mT
        own = torch.diag_embed((self.scale * self.log_noise_scale.exp()) ** 2)
        if self.rank is None:
            return own
        shared = self.scale.unsqueeze(-1) * self.noise_factor
        return own + shared @ shared.mT

    @property
    def noise_scale_tril(self) -> Tensor:
        """Lower-triangular square root of R in the data's units, (channel, channel); covariance="full" only."""
        scale = self.scale * self.log_noise_scale.exp()
        return scale.unsqueeze(-1) * correlation_factor(self.noise_ratio)

    def set_noise_covariance(self, covariance: Tensor) -> None:
        """Set R, (channel, channel), positive definite, in the data's units; covariance="full" only."""
        scale = covariance.diagonal().sqrt()
        with torch.no_grad():
            self.log_noise_scale.copy_((scale / self.scale).log())
            self.noise_ratio.copy_(_ratio(torch.linalg.cholesky(covariance)))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # earlier versions kept the triangular root of R itself: its diagonal's logarithm, and what lies below
        if (mixing := state_dict.pop(prefix + "noise_mixing", None)) is not None:
            tril = torch.tril(mixing, -1) + torch.diag_embed(state_dict[prefix + "log_noise_scale"].exp())
            state_dict[prefix + "log_noise_scale"] = tril.norm(dim=-1).log()
            state_dict[prefix + "noise_ratio"] = _ratio(tril)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def family(self, eta: Tensor) -> dist.Distribution:
        scale = (self.scale * self.log_noise_scale.exp()).expand_as(eta)
        return dist.Normal(self._location(eta), scale, validate_args=False)

    def _location(self, eta: Tensor) -> Tensor:
        return self.location + self.scale * as_link(self.link)(eta)

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        if not self.joint:
            return super().distribution(eta, inputs)
        if self.rank is not None:
            factor, own = self.scale.unsqueeze(-1) * self.noise_factor, self.scale * self.log_noise_scale.exp()
            return StepwiseLowRankNormal(self._location(eta), factor, own, inputs.mask, inputs.partial)
        return StepwiseMultivariateNormal(self._location(eta), self.noise_scale_tril, inputs.mask, inputs.partial)

    def marginals(self, distribution: dist.Distribution) -> Any:
        return distribution.marginals() if self.joint else super().marginals(distribution)

    def entry_log_prob(self, distribution: dist.Distribution, value: Tensor) -> Tensor:
        if not self.joint:
            return super().entry_log_prob(distribution, value)
        return distribution.step_log_prob(value).unsqueeze(-1)

    def sample_missing(self, distribution: dist.Distribution, values: Tensor, mask: Tensor) -> Tensor:
        if not self.joint:
            return super().sample_missing(distribution, values, mask)
        if isinstance(distribution, StepwiseLowRankNormal):
            own, shared = torch.diag_embed(distribution.scale**2), distribution.factor
            tril = torch.linalg.cholesky(own + shared @ shared.mT)
        else:
            tril = distribution.scale_tril
        return StepwiseMultivariateNormal(distribution.mean, tril, None, True).completed(values, mask)

    @property
    def link_is_identity(self) -> bool:
        return isinstance(as_link(self.link), IdentityLink)

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return as_link(self.link).inverse((channel_means(values, mask) - self.location) / self.scale)

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        super().initialise(values, mask)
        with torch.no_grad():
            self.log_noise_scale.copy_((self.history_scale / self.scale).log())


def correlation_factor(ratio: Tensor) -> Tensor:
    """Return the Cholesky factor of correlations, (..., row, column), from its entries divided by their diagonal's."""
    rows = torch.tril(ratio, -1) + torch.eye(ratio.shape[-1], dtype=ratio.dtype, device=ratio.device)
    return rows / rows.norm(dim=-1, keepdim=True)


def _ratio(tril: Tensor) -> Tensor:
    """Return the entries below the diagonal divided by their row's on it, of rows of any length."""
    return torch.tril(tril, -1) / tril.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)


class StepwiseMultivariateNormal(TorchDistribution):
    """y_t ~ Normal(loc_t, L L^T) at every step, missing channels integrated out.

    For a missing channel, row and column of the covariance become the identity's and the residual zero; the
    constant that this leaves behind, 0.5 log(2 pi) for each, is added back, so the density is exactly that of the
    observed channels.

    Args:
        loc: (..., time, channel).
        scale_tril: L, (channel, channel).
        mask: True = observed, (sequence, time, channel), or None.
        partial: whether a step can be observed in some channels only; if not, one factorisation serves all steps.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, loc: Tensor, scale_tril: Tensor, mask: Tensor | None, partial: bool) -> None:
        self.loc, self.scale_tril, self.mask, self.partial = loc, scale_tril, mask, partial
        super().__init__(loc.shape[:-2], loc.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[y], (..., time, channel)."""
        return self.loc

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> StepwiseMultivariateNormal:
        loc = self.loc.expand(torch.Size(batch_shape) + self.event_shape)
        return StepwiseMultivariateNormal(loc, self.scale_tril, self.mask, self.partial)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.loc.shape
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + per_entry(noise, self.scale_tril)

    def marginals(self) -> dist.Normal:
        """Return the distribution of every entry by itself, no mask applied."""
        return dist.Normal(self.loc, self.scale_tril.square().sum(-1).sqrt(), validate_args=False)

    def completed(self, value: Tensor, mask: Tensor) -> Tensor:
        """Return a draw given the observed entries: one of all, corrected by what it has wrong of them."""
        drawn, covariance = self.sample(), self.scale_tril @ self.scale_tril.mT
        error = torch.where(mask, value - drawn, 0.0).unsqueeze(-1)
        identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        both = mask.unsqueeze(-1) & mask.unsqueeze(-2)
        weights = torch.linalg.solve(torch.where(both, covariance, identity), error)
        return torch.where(mask, value, drawn + (covariance @ weights).squeeze(-1))

    def step_log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities per step, nats, (..., time), zero where nothing is observed."""
        residual = value - self.loc
        constant = 0.5 * math.log(2 * math.pi)
        if self.mask is None or not self.partial:
            standard = torch.linalg.solve_triangular(self.scale_tril, residual.unsqueeze(-1), upper=False).squeeze(-1)
            log_prob = -0.5 * (standard**2).sum(-1) - self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            log_prob = log_prob - residual.shape[-1] * constant
            return log_prob if self.mask is None else torch.where(self.mask[..., 0], log_prob, 0.0)
        seen = self.mask
        residual = torch.where(seen, residual, 0.0)
        identity = torch.eye(residual.shape[-1], dtype=residual.dtype, device=residual.device)
        both = seen.unsqueeze(-1) & seen.unsqueeze(-2)
        tril = torch.linalg.cholesky(torch.where(both, self.scale_tril @ self.scale_tril.mT, identity))
        standard = torch.linalg.solve_triangular(tril, residual.unsqueeze(-1), upper=False).squeeze(-1)
        log_det = tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        # counted in the dtype of the values: an integer count times a Python float would round the constant to float32
        return -0.5 * (standard**2).sum(-1) - log_det - seen.sum(-1, dtype=residual.dtype) * constant

    def log_prob(self, value: Tensor) -> Tensor:
        return self.step_log_prob(value).sum(-1)
