"""Where randomness enters the state: the contract that every latent fulfils."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.models.component import Component, overrides_after
from latentrnn.models.latents.path import Carry, LatentSite, Path, Step
from latentrnn.models.latents.rollout_protocol import RolloutProtocol
from latentrnn.models.observations import Observation
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import concatenate_channels

# what a window carries out, by name: the state, and what was drawn at the last step
STATE, DRAWN = "state", "drawn"


class Latent(Component):
    """A prior over the state's randomness, as Pyro statements and as a simulator of single steps.

    In padding every latent trajectory is standard normal, in the prior here and in the guide: nothing there matters,
    the two cancel exactly, and no site is ever masked.
    """

    input_size = 0  # channels of u_t, appended to the transition's input
    switch_size = 0  # how many of them, the last ones, are weights of a switch, which add up to one
    timed = False  # whether what is drawn depends on the time between steps
    consumes_feedback = True  # False where z_{1:T} is drawn before any observation could be fed back
    continues = False  # whether `sample` goes on from the window before, where the data are one of longer sequences
    draws_states = False  # whether `Path.states` are the s_t themselves, so that the transition makes their means
    marginalises = False  # whether some of the state is summed out of densities: set where `distribution` is overridden

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if overrides_after(cls, "distribution", "marginalises"):
            cls.marginalises = True

    @abstractmethod
    def build(self, transition: Transition, dt: float | None) -> None:
        """Create the parameters for this transition; `dt` is in seconds, None for unit steps."""

    def initialise(self, data: SequenceData) -> None:
        """Take what start there is to take from the training data; `fit` calls it after `reset_parameters`."""

    def check_heads(self, heads: Mapping[str, Observation]) -> None:
        """Raise a ValueError where a head cannot go with this latent."""

    def check_couplings(self, couplings: Sequence[Any]) -> None:
        """Check that the couplings of a model can go with this latent; most go with any.

        Raises:
            ValueError: one cannot.
        """

    def readout_size(self, transition: Transition) -> int:
        """Return how many channels readouts see."""
        return transition.hidden_size

    def drawn_size(self, transition: Transition) -> int:
        """Return how many channels of what readouts see, or of what drives the transition, are random at every step."""
        beside = self.readout_size(transition) - transition.hidden_size
        return max(self.input_size, abs(beside), sum(site.dim for site in self.sites() if site.along_time))

    def parts(self, transition: Transition) -> dict[str, slice]:
        """Return which of the channels that readouts see have a name of their own."""
        return transition.parts

    @abstractmethod
    def sites(self) -> list[LatentSite]:
        """Return the latent sites, in the order in which they are sampled."""

    @abstractmethod
    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        """Draw a path with `pyro.sample`; call inside the plate. `inputs` is a_{1:T} without u.

        Where `data.carry_in` is not None, they are a window that goes on from there, and nothing is drawn before its
        first step.
        """

    def states(self, transition: Transition, inputs: Tensor, path: Path) -> Tensor:
        """Return what readouts see, (*sample, sequence, time, readout_size), for a path and a_{1:T} without u."""
        return self.run(transition, inputs, path)[0]

    def whole_inputs(self, inputs: Tensor, path: Path) -> Tensor:
        """Return a_{1:T} whole, (..., time, channel): a_{1:T} without what is drawn, and u_{1:T} where there is one."""
        return inputs if path.innovations is None else concatenate_channels(inputs, path.innovations)

    def run(self, transition: Transition, inputs: Tensor, path: Path) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the same states, and what the next window of the same sequences needs, by name."""
        carry_out = {} if path.innovations is None else {DRAWN: path.innovations[..., -1, :]}
        states, last = transition.scan(self.whole_inputs(inputs, path), path.initial_state)
        return states, carry_out | {STATE: last}

    # where some of the state is summed out of densities instead of drawn, the five methods below say how

    def distribution(self, rollout: RolloutProtocol, name: str) -> dist.Distribution:
        """Return a head's distribution given the rollout's path, and given the heads before it where these matter."""
        return rollout.given(name, rollout.states())

    def ahead(self, rollout: RolloutProtocol, name: str) -> list[tuple[Tensor, dist.Distribution]]:
        """Return p(y_t | y_{<t}) of a head as a mixture: log-weights (..., time), and distributions."""
        return [(rollout.transition_inputs.new_zeros(()), rollout.distribution(name))]

    def sample_marginalised(self, rollout: RolloutProtocol, batch: torch.Size, *, given_data: bool) -> Path:
        """Return the path with what is summed out drawn too, from its prior or given the data."""
        return rollout.path

    def intervened(self, drawn: RolloutProtocol, changed: RolloutProtocol) -> Path:
        """Return the path of `drawn`, what is summed out drawn too, as its noise takes it in a changed rollout.

        Raises:
            ValueError: noise and path cannot be told apart.
        """
        raise ValueError(f"counterfactual: {type(self).__name__} is summed out, so that no path of it can be kept")

    def report(self, rollout: RolloutProtocol) -> dict[str, Tensor]:
        """Return what is known exactly of what is summed out, (..., sequence, time, size) by name."""
        return {}

    # the prior one step after the other; densities of steps multiply to those of the sites

    def start_prior(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        """Return the priors of the sites before the first step, batch shape `shape`."""
        return {}

    @abstractmethod
    def begin_with(self, shape: tuple[int, ...], values: Mapping[str, Tensor]) -> Carry:
        """Return s_0 with leading axes `shape`, given the values of the sites before the first step."""

    def step(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Step:
        """Return what is drawn at step t, and how the state goes on from it.

        Args:
            transition: the transition.
            carry: of the step before.
            a_t: (..., channel) without u.
            gap: the time since the last step, (sequence,); None on a regular clock.
        """
        return Step(None, lambda value: Carry(transition.step(carry.state, a_t)))

    def begin(self, shape: tuple[int, ...]) -> Carry:
        """Draw s_0 from the prior with leading axes `shape`."""
        return self.begin_with(shape, {name: prior.sample() for name, prior in self.start_prior(shape).items()})

    def advance(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Carry:
        """Draw s_t from the prior given s_{t-1}; arguments as of `step`."""
        step = self.step(transition, carry, a_t, gap)
        return step.move(None if step.prior is None else step.prior.sample())

    def output(self, transition: Transition, carry: Carry) -> Tensor:
        """Return what readouts see of one step, (..., readout_size)."""
        return transition.output(carry.state)


def learned_vector(size: int) -> nn.Parameter:
    """Return a zero vector to learn."""
    return nn.Parameter(torch.zeros(size))


def along_time(value: Tensor) -> Tensor:
    """Return a parameter (dim,) as it is, and draws of it, (*sample, 1, dim), with an axis for time."""
    return value if value.dim() == 1 else value.unsqueeze(-2)


def where_valid(value: Tensor, data: SequenceData, otherwise: float) -> Tensor:
    """Replace what lies in padding; `value` broadcasts to (..., sequence, time, dim)."""
    if not data.padded:
        return value
    return torch.where(data.valid.unsqueeze(-1), value, value.new_full((), otherwise))
