"""A linear-Gaussian state, summed out exactly by the Kalman filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentrnn.data import SequenceData
from latentrnn.models.latents.kalman.evidence import log_normaliser
from latentrnn.models.latents.kalman.filter import (
    Dynamics,
    Filtered,
    Information,
    Moments,
    draw,
    filter_step,
    kalman_filter,
    smooth,
)
from latentrnn.models.latents.kalman.heads import GaussianHeads, Known, reason_against
from latentrnn.models.latents.markov_normal import MarkovNormal
from latentrnn.models.latents.path import LatentSite, Path
from latentrnn.models.latents.rollout_protocol import RolloutProtocol
from latentrnn.models.observations import Observation
from latentrnn.models.readouts.linear import linear
from latentrnn.models.transitions import Linear, Transition
from latentrnn.support.arguments import check_names


class LinearGaussian(MarkovNormal):
    """The state of `MarkovNormal` under `Linear` and Gaussian heads, which need not be drawn: it is summed out exactly.

        z_0 ~ Normal(m, diag(s^2));  z_t ~ Normal(A z_{t-1} + B a_t + b, diag(scale^2));  y_t ~ Normal(C z_t + d_t, R)

    The same model with the same parameters as `MarkovNormal`, so that weights go from one to the other; but there is
    no latent site and no guide, evidence and one-step-ahead densities are exact, and NUTS and Laplace's approximation
    see parameters alone. Heads may be several, on clocks of their own, with any covariance, covariates, and any
    entries missing. The site of the first head is p(y^1), that of the second p(y^2 | y^1), and so on; their product is
    the joint density, whatever the order. `Posterior` draws paths exactly given the observed heads; its `latents` hold
    the smoother's moments as "smoothed_mean" and "smoothed_sd". The filter computes in double precision, whatever the
    model's, in time linear in steps and channels.

    The first state that is observed is z_1, a step after z_0: for z_1 ~ Normal(a, P) in a random walk z_0 has the
    variance P less that of a step.

    Args:
        observes: heads that `Posterior` may draw the states from, all by default; for co-smoothing leave out what is
            held out, as with an encoder.
        **shared: see `MarkovNormal`.

    Raises:
        ValueError: a scale that depends on the state; when the model is put together, a transition that is not
            `Linear`, or a head that is not Gaussian and affine in the state: another family, a link, a gated gain,
            feedback, a readout other than `LinearReadout` and `FactorReadout`, one value per sequence.

    References:
        Kalman. A new approach to linear filtering and prediction problems. 1960.
        Durbin, Koopman. Time series analysis by state space methods. 2012.
    """

    continues = False

    def __init__(self, *, observes: Sequence[str] | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        if self.scale == "state":
            raise ValueError("LinearGaussian: a scale that depends on the state leaves no Gaussian; use MarkovNormal")
        self.observes = None if observes is None else check_names("LinearGaussian", "observes", observes)

    def build(self, transition: Transition, dt: float | None) -> None:
        if not isinstance(transition, Linear):
            raise ValueError(
                "LinearGaussian sums its states out, which takes a linear transition; expected Linear, or MarkovNormal "
                f"as the latent; found {transition!r}"
            )
        super().build(transition, dt)

    def check_heads(self, heads: Mapping[str, Observation]) -> None:
        for name, head in heads.items():
            if (reason := reason_against(head)) is not None:
                raise ValueError(f"observations[{name!r}]: LinearGaussian sums its states out, but the head {reason}")
        for name in self.observes or []:
            if name not in heads:
                raise ValueError(f"LinearGaussian: observes unknown head {name!r}; the model has {sorted(heads)}")

    def check_couplings(self, couplings: Sequence[Any]) -> None:
        if couplings:
            raise ValueError(
                f"LinearGaussian sums its states out of every head's density, so that no rollout of the heads is left "
                f"for the couplings {[coupling.label for coupling in couplings]} to look at"
            )

    def drawn_size(self, transition: Transition) -> int:
        return transition.hidden_size

    def sites(self) -> list[LatentSite]:
        return []

    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        return Path(self.initial_loc)

    def run(self, transition: Transition, inputs: Tensor, path: Path) -> tuple[Tensor, dict[str, Tensor]]:
        if path.states is None:
            raise ValueError("LinearGaussian sums its states out; they are there once `sample_marginalised` drew them")
        return super().run(transition, inputs, path)

    def distribution(self, rollout: RolloutProtocol, name: str) -> dist.Distribution:
        if rollout.path.states is not None:
            return super().distribution(rollout, name)
        return MarginalHead(ExactStates(self, rollout), name, self._before(rollout, name))

    def ahead(self, rollout: RolloutProtocol, name: str) -> list[tuple[Tensor, dist.Distribution]]:
        states = ExactStates(self, rollout)
        filtered = states.filtered([Known.recorded(rollout.data, other) for other in rollout.observations])
        mask = Known.recorded(rollout.data, name).mask
        predicted = states.heads.predictive(name, filtered.predicted_loc, filtered.predicted_tril, mask)
        return [(filtered.loc.new_zeros(()), predicted)]

    def sample_marginalised(self, rollout: RolloutProtocol, batch: torch.Size, *, given_data: bool) -> Path:
        filtered = ExactStates(self, rollout).filtered(self._observed(rollout) if given_data else [])
        return rollout.path._replace(states=draw(filtered, batch).to(rollout.transition_inputs))

    def intervened(self, drawn: RolloutProtocol, changed: RolloutProtocol) -> Path:
        # the noise of every step stays, and what other inputs add is added
        states = drawn.path.states
        assert states is not None
        before, after = (
            each.transition.scan(each.transition_inputs, states.new_zeros(self.dim))[0] for each in (drawn, changed)
        )
        return changed.path._replace(states=states + (after - before))

    def report(self, rollout: RolloutProtocol) -> dict[str, Tensor]:
        smoothed = smooth(ExactStates(self, rollout).filtered(self._observed(rollout)))
        loc = smoothed.loc.to(rollout.transition_inputs)
        return {"smoothed_mean": loc, "smoothed_sd": smoothed.scale.to(loc).expand_as(loc)}

    def dynamics(self, rollout: RolloutProtocol) -> Dynamics:
        """Return the chain of the states under a rollout's inputs, in double precision where the device has it."""
        transition, doubled = cast(Linear, rollout.transition), rollout.doubled  # or draws of one
        weight, inputs = doubled(transition.recurrent_weight), doubled(rollout.transition_inputs)
        offset = linear(inputs, doubled(transition.input_weight), doubled(transition.bias))
        scale, start = doubled(self.log_scale).exp(), doubled(self.initial_log_scale).exp()
        valid = rollout.data.valid if rollout.data.padded else None
        return Dynamics(weight, offset, scale, doubled(self.initial_loc), start, valid)

    def _observed(self, rollout: RolloutProtocol) -> list[Known]:
        names = rollout.observations if self.observes is None else self.observes
        return [Known.recorded(rollout.data, name) for name in names]

    @staticmethod
    def _before(rollout: RolloutProtocol, name: str) -> list[Known]:
        """Return what is known when a head's turn comes: the heads before it, and the context of all."""
        data, names = rollout.data, list(rollout.observations)
        turn, found = names.index(name), []
        for other in names[:turn]:
            known = Known.recorded(data, other)
            found.append(known._replace(value=with_context(data, other, rollout.outcomes.get(other, known.value))))
        if data.host_context.any():
            for other in names[turn:]:
                context = data.masks[other] & ~data.scored(other)
                found.append(Known(other, data.observations[other], context))
        return found


def with_context(data: SequenceData, name: str, value: Tensor) -> Tensor:
    """Return a head's values with what was recorded in the place of the context, which is given."""
    if not data.host_context.any():
        return value
    first = torch.arange(data.observations[name].shape[1], device=data.device) * data.spec.heads[name].clock
    return torch.where((first < data.context[:, None]).unsqueeze(-1), data.observations[name].to(value), value)


class ExactStates:
    """The states of a rollout under what is known of its heads."""

    def __init__(self, latent: LinearGaussian, rollout: RolloutProtocol) -> None:
        self.data, self.dynamics = rollout.data, latent.dynamics(rollout)
        self.heads = GaussianHeads(rollout, latent.dim)
        self.sampled = rollout.transition_inputs.dtype  # what samples and, on the way to a gradient, densities come in
        # as precise as the rollout is now: it may be asked for a density when it no longer is
        self.scored = self.dynamics.offset.dtype if rollout.is_double else self.sampled

    def information(self, known: Sequence[Known]) -> Information:
        """Return what is said of the states by what is known."""
        information = Information.none(self.dynamics)
        for each in known:
            information = information.joined(self.heads.information(*each))
        return information

    def filtered(self, known: Sequence[Known]) -> Filtered:
        """Return the filter's moments."""
        return kalman_filter(self.dynamics, self.information(known))

    def last_step(self, known: Sequence[Known], before: Moments | None) -> tuple[Filtered, Tensor]:
        """Return the last step's moments, given those of the step before it, and log p(y_t | y_{<t}), nats, (...).

        Args:
            known: what informs at the last step; nothing may at earlier ones.
            before: mean and root of the step before the last; None where the last is the first of all.
        """
        steps, said = self.dynamics.offset.shape[-2], self.information(known)
        here = Information(said.precision[..., -1:, :, :], said.vector[..., -1:, :])
        dynamics = self.dynamics._replace(offset=self.dynamics.offset[..., -1:, :])
        filtered = filter_step(dynamics, here, before)
        states = filtered.loc.expand(*filtered.loc.shape[:-2], steps, -1)
        return filtered, filtered.log_normaliser + self.heads.log_prob(known, states)

    def log_evidence(self, known: Sequence[Known], given: Sequence[Known]) -> Tensor:
        """Return the log-density of what is known less that of some of it, the states summed out, (..., sequence)."""
        information = self.information(known)
        if not given:
            rest, states = log_normaliser(self.dynamics, information)
            return rest + self.heads.log_prob(known, states)
        # two filters side by side take hardly longer than one
        both = information.beside(self.information(given), self.dynamics)
        rest, states = log_normaliser(self.dynamics, both)
        return rest[0] + self.heads.log_prob(known, states[0]) - rest[1] - self.heads.log_prob(given, states[1])


class MarginalHead(TorchDistribution):
    """One head given the heads before it, the states summed out: p(y^k | y^1, ..., y^{k-1})."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)

    def __init__(
        self, states: ExactStates, name: str, before: Sequence[Known], batch_shape: torch.Size | None = None
    ) -> None:
        self.states, self.name, self.before = states, name, before
        data, heads = states.data, states.heads
        if batch_shape is None:
            shapes = [heads.slope(name).batch_shape, states.dynamics.batch_shape]
            shapes += [known.value.shape[:-2] for known in before]
            batch_shape = torch.broadcast_shapes(*shapes, (data.num_sequences,))
        super().__init__(batch_shape, data.observations[name].shape[1:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> MarginalHead:
        return MarginalHead(self.states, self.name, self.before, torch.Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        data = self.states.data
        others = [known for known in self.before if known.name != self.name]
        own = Known.recorded(data, self.name)._replace(value=with_context(data, self.name, value))
        found = self.states.log_evidence([*others, own], self.before)
        return found.to(self.states.scored).expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        batch = torch.Size(sample_shape) + self.batch_shape
        path = draw(self.states.filtered(self.before), batch)
        found: Tensor = self.states.heads.given(self.name, path, None).sample()
        return found.to(self.states.sampled)
