"""Heads whose own past acts on what comes next: scored in parallel, sampled one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from latentrnn.data import SequenceData
from latentrnn.data.record import WindowContext
from latentrnn.models.latents import Latent, Path
from latentrnn.models.observations import HeadInputs, Observation
from latentrnn.models.readouts.readout import with_past
from latentrnn.models.rollout.chunked_density import ChunkedDensity
from latentrnn.models.rollout.double_precision import (
    DoublePrecision,
    has_double_precision,
    head_in_double,
    to_double,
)
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.deprecations import former_attributes

Head = Callable[..., dist.Distribution]  # an observation, its global sites filled in


@former_attributes
class Rollout:
    """One batch given one draw of the latents: states and heads, with what is fed back.

    Args:
        transition, latent, observations: the model's parts.
        heads: the observations as callables `(states, inputs, history) -> distribution`.
        data: the batch.
        transition_inputs: features of the covariates, (sequence, time, channel).
        path: a draw of the latents.
        max_elements: numbers of a head's raw output that its density may hold at once; None for all.
        inputs_of: `data -> transition_inputs`, under the same parameters.
    """

    def __init__(
        self,
        transition: Transition,
        latent: Latent,
        observations: Mapping[str, Observation],
        heads: Mapping[str, Head],
        data: SequenceData,
        transition_inputs: Tensor,
        path: Path,
        max_elements: int | None = None,
        inputs_of: Callable[[SequenceData], Tensor] | None = None,
    ) -> None:
        self.transition, self.latent, self.observations, self.heads = transition, latent, observations, heads
        self.data, self.transition_inputs, self.path, self.max_elements = data, transition_inputs, path, max_elements
        self.inputs_of = inputs_of  # what the transition is given of other covariates, under the same parameters
        self.is_double = False  # whether the heads' distributions are in double precision
        self.inputs: dict[str, HeadInputs] = {name: head.inputs(data) for name, head in observations.items()}
        self.feedback_heads = [name for name, head in observations.items() if head.feedback is not None]
        self.values: dict[str, Tensor] = {}  # what the feeding heads turned out to be, as the program went on
        self.outcomes: dict[str, Tensor] = {}  # the same of the other heads
        self._drawn: dict[str, Tensor] = {}
        self._handed_out: set[str] = set()  # heads that were sampled, as opposed to observed
        self._states: Tensor | None = None
        self._history: dict[str, Tensor] = {}

    # -- given the past, for all steps at once -------------------------------------------------------------------

    def states(self) -> Tensor:
        """Return what readouts see, (*sample, sequence, time, hidden_size), given the observed or drawn past."""
        if self._states is None:
            self._states = self._run(self.values)
        return self._states

    def distribution(self, name: str) -> dist.Distribution:
        """Return a head's distribution given states and the past of every feeding head."""
        return self.latent.distribution(self, name)

    def scored(self, name: str) -> dist.Distribution:
        """Return the same distribution, to be asked for densities: in chunks of time where it is too wide.

        Where no gradient is wanted they are in double precision: with large counts, or many entries, a sum over time
        and channels would be off by nats.
        """
        if self.is_double or not self._double_precision_helps:
            return self._scored(name)
        with self.double_precision():
            twin = self._scored(name)
        return DoublePrecision(twin, lambda: self.distribution(name))

    def _scored(self, name: str) -> dist.Distribution:
        head = self.observations[name]
        if self.max_elements is None or not head.by_step or self.latent.marginalises:
            return self.distribution(name)
        event = self.data.observations[name].shape[1:]
        states, inputs = head.at_clock(self.states(), event[0]), self.inputs[name]
        largest = self.max_elements // (2 if self.is_double else 1)  # in double precision half as many fit
        steps = max(1, largest // (states.shape[:-2].numel() * head.width))
        if steps >= event[0]:
            return self.distribution(name)
        return ChunkedDensity(self.heads[name], states, inputs, self._history.get(name), steps, event)

    @contextmanager
    def double_precision(self) -> Iterator[None]:
        """Give distributions in double precision within the block; states and samples stay as they are."""
        before = self.heads, self.is_double
        self.use_double_precision()
        try:
            yield
        finally:
            self.heads, self.is_double = before

    def use_double_precision(self) -> None:
        """Give distributions in double precision from now on, where that helps."""
        if not self.is_double and self._double_precision_helps:
            self.heads, self.is_double = {name: head_in_double(head) for name, head in self.heads.items()}, True

    def doubled(self, value: Tensor) -> Tensor:
        """Return a tensor in double precision where the device has it, gradients or not: for sums along time."""
        found: Tensor = to_double(value) if has_double_precision(value) else value
        return found

    def doubled_heads(self) -> Mapping[str, Head]:
        """Return the heads likewise."""
        if self.is_double or not has_double_precision(self.transition_inputs):
            return self.heads
        return {name: head_in_double(head) for name, head in self.heads.items()}

    @property
    def _double_precision_helps(self) -> bool:
        """Whether densities should be evaluated in double: of single precision, and not on the way to a gradient.

        A training step needs gradients, which single precision gives as well. Some devices have no double precision.
        """
        like = self.transition_inputs
        return like.dtype == torch.float32 and not torch.is_grad_enabled() and has_double_precision(like)

    def recorded(self, name: str) -> Tensor:
        """Return the data's values of a head, in the precision of its distributions."""
        value = self.data.observations[name]
        return value.double() if self.is_double else value

    def sample_marginalised(self, batch: torch.Size, *, given_data: bool) -> None:
        """Draw what the latent sums out of densities, if anything, from its prior or given the data."""
        self.path, self._states = self.latent.sample_marginalised(self, batch, given_data=given_data), None

    def whole_inputs(self) -> Tensor:
        """Return a_{1:T} whole, (*sample, sequence, time, channel), given the observed or drawn past.

        Covariates come first, then the past of heads that feed back, then what the latent draws.
        """
        self.states()  # which reads the past
        return self.latent.whole_inputs(self._fed(self._history), self.path)

    def _fed(self, history: Mapping[str, Tensor]) -> Tensor:
        past = [history[name] for name in self.feedback_heads if self.feeds_transition(name)]
        return concatenate_channels(self.transition_inputs, *past) if past else self.transition_inputs

    def _run(self, values: Mapping[str, Tensor]) -> Tensor:
        self._history = {name: self.history_features(name, values[name]) for name in self.feedback_heads}
        transition_inputs = self._fed(self._history)
        if self.data.around is None:
            return self.latent.states(self.transition, transition_inputs, self.path)
        states, carry_out = self.latent.run(self.transition, transition_inputs, self.path)
        self._carry_out(states, carry_out)
        return states

    def _carry_out(self, states: Tensor, carry_out: Mapping[str, Tensor]) -> None:
        """Note what the next window of the same sequences needs: the state, and earlier states that readouts read."""
        for name, value in carry_out.items():
            self.data.carry_out(name, value)
        for name, head in self.observations.items():
            if head.readout.memory:
                frames = self.data.observations[name].shape[1]
                longer = with_past(head.at_clock(states, frames), self._past(name))
                self.data.carry_out(f"past/{name}", longer[..., -head.readout.memory :, :])

    def _past(self, name: str) -> Tensor | None:
        """Return the states before a window that a head's readout reads; None where a sequence begins."""
        return None if self.data.carry_in is None else self.data.carry_in.get(f"past/{name}")

    def given(self, name: str, states: Tensor) -> dist.Distribution:
        """Return a head's distribution given what readouts see, (..., time, readout_size)."""
        head, inputs = self.observations[name], self.inputs[name]
        if head.reads is not None:
            states = self.observations[head.reads].mean(self.given(head.reads, states))
        if not head.head.per_step:
            return self.heads[name](head.pool(states, self.data), inputs)
        frames = self.data.observations[name].shape[1]
        if (past := self._past(name)) is not None:
            inputs = inputs._replace(surroundings=inputs.surroundings._replace(past=past))
        return self.heads[name](head.at_clock(states, frames), inputs, self._history.get(name))

    def predictor(self, name: str, states: Tensor) -> Tensor:
        """Return a per-step head's linear predictor, (..., frame, outputs), of h_{1:T}, (..., time, hidden_size).

        The head must read states, not another head's mean; the past that feeds back is the one of `states()`.
        """
        self.states()  # which reads the past
        head = self.observations[name]
        frames = self.data.observations[name].shape[1]
        return head.predictor(head.at_clock(states, frames), self.inputs[name], self._history.get(name))

    def history_features(self, name: str, values: Tensor) -> Tensor:
        """Return the features of a feeding head's past, (..., time, feature), given its values."""
        head, around = self.observations[name], self.data.around
        if around is not None:
            return self._history_in_window(name, values, around)
        # the data's own values may have holes; anything else that stands in for them is complete
        mask = self.data.masks[name] if values is self.data.observations[name] else None
        if mask is None and values is self._drawn.get(name) and self.data.host_context.any():
            mask = (
                self.data.masks[name] | ~self._inside_context()
            )  # drawn after the context, which has the data's holes
        return head.feedback(head.encode_history(values, mask))

    def _history_in_window(self, name: str, values: Tensor, around: WindowContext[SequenceData]) -> Tensor:
        head, whole = self.observations[name], around.whole
        if values is not self.data.observations[name]:
            raise ValueError(f"head {name!r} feeds back and is sampled; its own samples do not reach the next window")
        features = head.feedback(head.encode_history(whole.observations[name], whole.masks[name]))
        return features[..., around.before : around.before + self.data.num_steps, :]

    def _inside_context(self) -> Tensor:
        """Return which base steps were given, (sequence, time, 1)."""
        return (torch.arange(self.data.num_steps, device=self.data.device) < self.data.context[:, None]).unsqueeze(-1)

    def feeds_transition(self, name: str) -> bool:
        """Return whether a feeding head's past enters the transition."""
        return "transition" in self.observations[name].feedback.into

    # -- free running ----------------------------------------------------------------------------------------------

    def feedback_distribution(self, name: str) -> AncestralHead:
        """Return the distribution of a feeding head, to be sampled or observed; record the outcome in `values`."""
        batch = [self.transition_inputs.shape[:-2], self.path.initial_state.shape[:-1]]
        batch += [part.shape[:-2] for part in (self.path.innovations, self.path.states) if part is not None]
        event = self.data.observations[name].shape[1:]
        return AncestralHead(self, name, torch.broadcast_shapes(*batch), event)

    def record(self, name: str, value: Tensor) -> None:
        """Take note of what a feeding head turned out to be.

        Raises:
            ValueError: it was observed after another was drawn, in whose free run it took part; see `draw`.
        """
        if self._drawn and name not in self._handed_out:
            raise _half_observed(min(self._handed_out), [name])
        self.values[name] = value

    def score(self, name: str, value: Tensor) -> dist.Distribution:
        """Return the distribution of a feeding head at every step given its own value, and the others', before it."""
        if value is self.values.get(name):
            return self.distribution(name)
        history = self._history
        distribution = self.given(name, self._run({**self.values, name: value}))
        self._history = history
        return distribution

    def draw(self, name: str, batch: torch.Size) -> Tensor:
        """Return one free-running sample of a feeding head; all of them are drawn together, step by step.

        Raises:
            ValueError: another feeding head was observed: its recorded past and this one's sampled past would be
                two different histories.
        """
        if name not in self._drawn:
            if self.values:
                raise _half_observed(name, sorted(self.values))
            self._drawn = self._simulate(batch)
        self._handed_out.add(name)
        return self._drawn[name]

    @torch.no_grad()
    def _simulate(self, batch: torch.Size) -> dict[str, Tensor]:
        data, heads = self.data, {name: self.observations[name] for name in self.feedback_heads}
        state = self.path.initial_state.expand(*batch, -1)
        innovations = None if self.path.innovations is None else self.path.innovations.unbind(-2)
        given = None if self.path.states is None else self.path.states.unbind(-2)
        windows = {
            name: self.transition_inputs.new_zeros(*batch, head.feedback.steps, head.history_channels)
            for name, head in heads.items()
        }
        drawn: dict[str, list[Tensor]] = {name: [] for name in heads}
        pasts: dict[str, Tensor | None] = dict.fromkeys(heads)  # earlier states that readouts remember
        unmasked = {name: self.inputs[name]._replace(mask=None) for name in heads}
        warm_up = int(np.max(data.host_context, initial=0))
        for t, a_t in enumerate(self.transition_inputs.unbind(-2)):
            features = {name: head.feedback.at(windows[name]) for name, head in heads.items()}
            if given is None:
                parts = [features[name] for name in heads if self.feeds_transition(name)]
                parts += [innovations[t]] if innovations is not None else []
                state = self.transition.step(state, concatenate_channels(a_t.expand(*batch, -1), *parts))
            h_t = self.transition.output(state) if given is None else given[t]
            for name, head in heads.items():
                inputs = unmasked[name].at(t, pasts[name])
                pasts[name] = head.readout.remember(pasts[name], h_t)
                y_t = self.heads[name](h_t.unsqueeze(-2), inputs, features[name].unsqueeze(-2)).sample()
                encoded = head.encode_history(y_t, None)
                if t < warm_up:  # the context is given, not sampled
                    recorded, mask = data.observations[name][:, t : t + 1], data.masks[name][:, t : t + 1]
                    inside = (t < data.context)[:, None, None]
                    y_t = torch.where(inside, recorded, y_t)
                    encoded = torch.where(inside, head.encode_history(recorded, mask), encoded)
                drawn[name].append(y_t.squeeze(-2))
                windows[name] = torch.cat([windows[name][..., 1:, :], encoded], -2)
        return {name: torch.stack(values, -2) for name, values in drawn.items()}


class AncestralHead(TorchDistribution):
    """A head that feeds back: `log_prob` for all steps at once, `sample` step by step on its own past samples."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)

    def __init__(self, rollout: Rollout, name: str, batch_shape: torch.Size, event_shape: torch.Size) -> None:
        self.rollout, self.name = rollout, name
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> AncestralHead:
        return AncestralHead(self.rollout, self.name, batch_shape, self.event_shape)

    def given(self, value: Tensor) -> dist.Distribution:
        """Return the head's distribution at every step given `value` before that step (teacher-forced)."""
        return self.rollout.score(self.name, value)

    def log_prob(self, value: Tensor) -> Tensor:
        rollout = self.rollout
        recorded = value is rollout.values.get(self.name)
        log_prob = (rollout.scored(self.name) if recorded else self.given(value)).log_prob(value)
        # where nothing but the plate distinguishes the particles, one density stands for each of them
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.rollout.draw(self.name, torch.Size(sample_shape) + self.batch_shape)


def _half_observed(sampled: str, observed: list[str]) -> ValueError:
    return ValueError(
        f"head {sampled!r} is to be sampled while {observed} are observed, but all of them feed back into one "
        "state; sample all heads with feedback, or observe all of them"
    )
