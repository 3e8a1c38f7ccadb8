"""Heads that are Gaussian and affine in the state: what they say of it, and what follows for them from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.models.latents.kalman.filter import Filtered, Information, identity_like, times
from latentrnn.models.latents.rollout_protocol import RolloutProtocol
from latentrnn.models.observations import Gaussian, Observation
from latentrnn.models.observations.entries import unmasked_entries
from latentrnn.models.observations.gaussian import StepwiseMultivariateNormal
from latentrnn.models.observations.head_inputs import ALONG_TIME, HeadInputs
from latentrnn.models.observations.low_rank_normal import StepwiseLowRankNormal
from latentrnn.models.readouts import FactorReadout, LinearReadout
from latentrnn.models.transitions.transition import concatenate_channels

FAR = (
    2.0**30
)  # states at which the slope of an affine mean is read off: its level, however large, costs no digits there


def reason_against(head: Observation) -> str | None:
    """Return why a head is not Gaussian and affine in the present state; None where it is."""
    if not isinstance(head, Gaussian):
        return (
            f"is {type(head).__name__}, of which no Gaussian is left; expected Gaussian, or MarkovNormal as the latent"
        )
    if not head.link_is_identity:
        return f"bends its mean by the link {head.link!r}; expected the identity"
    if not head.head.per_step:
        return "has one value for the whole sequence; expected a per-step head"
    if not isinstance(head.readout, LinearReadout | FactorReadout):
        return f"reads its states through {type(head.readout).__name__}; expected LinearReadout or FactorReadout"
    if head.feedback is not None:
        return "feeds back, and would have to be drawn together with the states; give its past as a covariate"
    if head.gain is not None and head.gain.gated:
        return "has a gain that the state gates; expected none, or StimulusGain(gated=False)"
    return None


class Known(NamedTuple):
    """Values of a head that inform.

    Attributes:
        name: of the head.
        value: (..., sequence, frame, channel).
        mask: True = informs, (sequence, frame, channel); None for all.
    """

    name: str
    value: Tensor
    mask: Tensor | None

    @classmethod
    def recorded(cls, data: SequenceData, name: str) -> Known:
        """All that was recorded of a head, the context included."""
        return cls(name, data.observations[name], None if data.complete(name) else data.masks[name])


class Slope(NamedTuple):
    """C, (..., channel, state), and the leading axes of the head's distribution but for what its covariates have."""

    loading: Tensor
    batch_shape: torch.Size


class GaussianHeads:
    """The heads of a rollout as y_t ~ Normal(C z_t + d_t, R), in double precision where the device has it.

    C is the slope of a head's mean, d_t its mean at zero, so that whatever a head's mean is made of (covariates, a
    gain, units, draws of parameters) is in them.
    """

    def __init__(self, rollout: RolloutProtocol, state_size: int) -> None:
        self.observations, self.data, self.inputs = rollout.observations, rollout.data, rollout.inputs
        self.heads = rollout.doubled_heads()
        self._slopes: dict[str, Slope] = {}
        self.zero = rollout.doubled(rollout.transition_inputs.new_zeros(rollout.data.num_steps, state_size))

    def given(self, name: str, states: Tensor, mask: Tensor | None) -> Any:
        """Return a head's distribution given states of all base steps, (..., time, state)."""
        head, frames = self.observations[name], self.data.observations[name].shape[1]
        return self.heads[name](head.at_clock(states, frames), self.inputs[name]._replace(mask=mask), None)

    def log_prob(self, known: Sequence[Known], states: Tensor) -> Tensor:
        """Return the log-density of what is known given the states, nats, (..., sequence)."""
        total = states.new_zeros(states.shape[:-2])
        for name, value, mask in known:
            entries = self.observations[name].entry_log_prob(self.given(name, states, mask), value.to(states))
            total = total + entries.sum((-2, -1))
        return total

    def information(self, name: str, value: Tensor, mask: Tensor | None) -> Information:
        """Return what a head says of the states of all base steps."""
        distribution = self.given(name, self.zero, mask)
        residual = value.to(self.zero) - distribution.mean
        if mask is not None:
            residual = torch.where(mask, residual, 0.0)
        found = _information(distribution, self.slope(name).loading, residual, mask)
        return self._at_base_steps(name, found)

    def predictive(self, name: str, loc: Tensor, root: Tensor, mask: Tensor | None) -> Any:
        """Return a head's distribution where z_t ~ Normal(loc_t, N_t N_t'), each step by itself.

        Args:
            name: of the head.
            loc: (..., time, state).
            root: N, (..., time, state, state).
            mask: as of `given`.
        """
        head, frames = self.observations[name], self.data.observations[name].shape[1]
        roots = head.at_clock(root.flatten(-2), frames).unflatten(-1, root.shape[-2:])
        return _widened(self.given(name, loc, mask), self.slope(name).loading.unsqueeze(-3) @ roots, mask)

    def predicted_last(self, name: str, filtered: Filtered) -> Any:
        """Return a head's distribution at the last step of all alone, before that is seen.

        Args:
            name: of a head on the base clock.
            filtered: of the last step.
        """
        inputs = self.inputs[name]._replace(mask=None).at(self.data.num_steps - 1)
        given = self.heads[name](filtered.predicted_loc, inputs, None)
        return _widened(given, self.slope(name).loading.unsqueeze(-3) @ filtered.predicted_tril, None)

    def slope(self, name: str) -> Slope:
        """Return how a head's mean follows the state; it is found once."""
        if name not in self._slopes:
            size = self.zero.shape[-1]
            directions = torch.cat([FAR * identity_like(self.zero), self.zero.new_zeros(1, size)])
            inputs = _first_frame(self.inputs[name], len(directions))
            distribution = self.heads[name](directions.unsqueeze(0), inputs, None)
            mean = distribution.mean
            loading = (mean[..., :-1, :] - mean[..., -1:, :]).mT / FAR
            self._slopes[name] = Slope(loading, distribution.batch_shape)
        return self._slopes[name]

    def _at_base_steps(self, name: str, found: Information) -> Information:
        """Move what each frame says to its last base step, which knows all of it."""
        clock, steps = self.observations[name].head.clock, self.data.num_steps
        if clock == 1:
            return found
        frames = found.vector.shape[-2]
        precision = found.precision.expand(*found.precision.shape[:-3], frames, *found.precision.shape[-2:])
        spread = precision.new_zeros(*precision.shape[:-3], steps, *precision.shape[-2:])
        spread[..., clock - 1 :: clock, :, :][..., :frames, :, :] = precision
        vector = found.vector.new_zeros(*found.vector.shape[:-2], steps, found.vector.shape[-1])
        vector[..., clock - 1 :: clock, :][..., :frames, :] = found.vector
        return Information(spread, vector)


def _first_frame(inputs: HeadInputs, frames: int) -> HeadInputs:
    """Return the inputs of the first sequence's first frame, that many times."""
    first = inputs._replace(mask=None).at(0)
    along: dict[str, Any] = {}
    for name, axis in ALONG_TIME.items():
        if (value := getattr(first, name)) is not None:
            value = value.flatten(0, axis - 1)[:1]  # of the first draw, too: what it adds to the mean has no slope
            if value.shape[1] == 0:  # a slow head may have no frame yet
                value = value.new_zeros(1, 1, *value.shape[2:])
            along[name] = value.expand(1, frames, *value.shape[2:])
    return first._replace(**along)


def _information(distribution: Any, loading: Tensor, residual: Tensor, mask: Tensor | None) -> Information:
    """Return C' R^-1 C and C' R^-1 (y - d) of the observed entries of every frame.

    Args:
        distribution: the head at zero states.
        loading: C, (..., channel, state).
        residual: y - d, (..., frame, channel), zero where nothing was observed.
        mask: True = observed.
    """
    if isinstance(distribution, StepwiseMultivariateNormal):
        return _of_full(distribution, loading, residual, mask)
    if isinstance(distribution, StepwiseLowRankNormal):
        return _of_low_rank(distribution, loading, residual, mask)
    return Information(*_weighed(unmasked_entries(distribution).scale, loading, residual, mask))


def _weighed(scale: Tensor, loading: Tensor, residual: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return C' D C and C' D r of every frame, D the inverse of independent noise, zero where nothing was observed."""
    weight = _without_copies(scale) ** -2
    weight = weight if mask is None else torch.where(mask, weight, 0.0)
    products = (loading.unsqueeze(-1) * loading.unsqueeze(-2)).flatten(-2)  # (..., channel, state * state)
    precision = (weight @ products).unflatten(-1, (loading.shape[-1],) * 2)
    return precision, (weight * residual) @ loading


def _of_low_rank(
    distribution: StepwiseLowRankNormal, loading: Tensor, residual: Tensor, mask: Tensor | None
) -> Information:
    # the shared noise is a further state without a past, which is summed out of both
    shared, size = distribution.factor, loading.shape[-1]
    if shared.dim() > 2:
        shared = shared.squeeze(-3)  # draws leave room for time
    both = concatenate_channels(loading, shared)
    own = distribution.scale.expand(torch.broadcast_shapes(distribution.scale.shape, residual.shape[-2:]))
    precision, vector = _weighed(own, both, residual, mask)
    across = precision[..., size:, :size]
    tril = torch.linalg.cholesky(precision[..., size:, size:] + identity_like(shared))
    explained = torch.cholesky_solve(across, tril)
    left = vector[..., :size] - times(explained.mT, vector[..., size:])
    return Information(precision[..., :size, :size] - across.mT @ explained, left)


def _of_full(
    distribution: StepwiseMultivariateNormal, loading: Tensor, residual: Tensor, mask: Tensor | None
) -> Information:
    tril, loading = distribution.scale_tril, loading.unsqueeze(-3)  # draws of the former leave room for time, too
    together = mask is None or not distribution.partial
    if mask is not None and not together:
        both = mask.unsqueeze(-1) & mask.unsqueeze(-2)
        tril = torch.linalg.cholesky(torch.where(both, tril @ tril.mT, identity_like(tril)))
        loading = loading * mask.unsqueeze(-1)
    standard = torch.linalg.solve_triangular(tril, residual.unsqueeze(-1), upper=False)
    whitened = torch.linalg.solve_triangular(tril, loading, upper=False)
    precision = whitened.mT @ whitened
    if mask is not None and together:
        precision = precision * mask[..., :1, None]
    return Information(precision, (whitened.mT @ standard).squeeze(-1))


def _widened(distribution: Any, spread: Tensor, mask: Tensor | None) -> Any:
    """Return the head's distribution with a further covariance S_t S_t', S (..., frame, channel, size)."""
    if isinstance(distribution, StepwiseMultivariateNormal):
        own = distribution.scale_tril @ distribution.scale_tril.mT
        tril = torch.linalg.cholesky(own + spread @ spread.mT)
        seen = torch.ones_like(distribution.loc, dtype=torch.bool) if mask is None else mask
        return StepwiseMultivariateNormal(distribution.loc, tril, seen, True)
    if isinstance(distribution, StepwiseLowRankNormal):
        factor = distribution.factor
        factor = torch.cat([factor.expand(*spread.shape[:-1], factor.shape[-1]), spread], -1)
        return StepwiseLowRankNormal(distribution.loc, factor, distribution.scale, mask, distribution.partial)
    entries = unmasked_entries(distribution)
    scale = (entries.scale**2 + spread.square().sum(-1)).sqrt()
    wide = dist.Normal(entries.loc, scale, validate_args=False)
    return (wide if mask is None else wide.mask(mask)).to_event(2)


def _without_copies(value: Tensor) -> Tensor:
    """Return (..., frame, channel) with one frame, and one sequence, where all are the same by construction."""
    for dim in range(-2, -value.dim() - 1, -1):
        if value.stride(dim) == 0 and value.shape[dim] > 0:
            value = value.narrow(dim, 0, 1)
    return value
