"""What was expected of a step before it was seen: the distribution of one head, and how what came compares with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.inference.online.followed import Followed, in_double
from latentrnn.models.observations import HeadInputs, Observation
from latentrnn.models.observations.categorical import Categorical
from latentrnn.models.observations.cumulative import cumulative, has_cdf, mass
from latentrnn.models.readouts.readout import Surroundings
from latentrnn.support.isolation import isolated, random_state

DRAWS = 2000  # of a family that has no distribution function
HALVINGS = 60  # of the interval that a quantile is looked for in


@dataclass(frozen=True, eq=False)
class Prediction:
    """p(y_t | y_{<t}) of one head at one step, for every stream: a mixture over particles and draws of the parameters.

    Attributes:
        name: of the head.
        head: the head, in double precision.
        marginals: of every entry given a particle, (draw, particle, stream, 1, channel); None where there are none.
        whole: the head's distribution given a particle, where `marginals` is None.
        log_weights: of the particles before the step was seen, (draw, particle, stream), with a mass of one.
        observed: what came, (stream, channel), in the data's units.
        mask: True = observed, (stream, channel).
        seed: of ties and draws.
    """

    name: str
    head: Observation
    marginals: Any
    whole: Any
    log_weights: Tensor
    observed: Tensor
    mask: Tensor
    seed: tuple[int, ...]

    @isolated
    @torch.no_grad()
    def log_density(self) -> Tensor:
        """Return log p(y_t^c | y_{<t}), nats, (stream, channel), NaN where missing.

        Of a family that joins channels and has no marginals in closed form, of all observed ones together, (stream, 1).
        """
        value, mask = self.observed.unsqueeze(-2), self.mask
        if self.marginals is None:
            entries, mask = self.head.entry_log_prob(self.whole, value), mask.any(-1, keepdim=True)
        else:
            entries = self.marginals.log_prob(value)
        joint = self.log_weights.unsqueeze(-1) + entries.squeeze(-2)
        # a particle without weight may have grown beyond what numbers hold
        joint = torch.where(self.log_weights.unsqueeze(-1).isneginf(), -math.inf, joint)
        return torch.logsumexp(joint, (0, 1)).masked_fill(~mask, torch.nan)

    @isolated
    @torch.no_grad()
    def pit(self) -> Tensor:
        """Return P(Y < y_t) + U P(Y = y_t), (stream, channel), U uniform and NaN where missing.

        Uniform, and independent from step to step, if the model is right. By draws for a family without a distribution
        function that can be computed.
        """
        value = self.observed.unsqueeze(-2)
        lots = torch.rand(self.observed.shape, generator=self._generator(0), dtype=torch.float64)
        below = None
        if self.marginals is not None:
            below = cumulative(self.marginals, value, discrete=self.head.discrete)
        if below is not None:
            ties = self._mixed(mass(self.marginals, value, discrete=self.head.discrete))
            found = self._mixed(below) - (1 - lots) * ties
        else:
            drawn, weights = self._drawn()
            weights = weights.unsqueeze(-1)
            share = len(drawn) / (len(drawn) + 1)  # what was observed counts as one more draw
            ties = (weights * (drawn == self.observed)).sum(0) * share + 1 - share
            found = (weights * (drawn < self.observed)).sum(0) * share + lots * ties
        return found.clamp(0.0, 1.0).masked_fill(~self.mask, torch.nan)

    @isolated
    @torch.no_grad()
    def quantiles(self, probabilities: float | Sequence[float]) -> Tensor:
        """Return the smallest values that hold these probabilities at or below them, (quantile, stream, channel).

        By `DRAWS` draws for a family whose distribution function has no closed form.

        Raises:
            ValueError: a probability that is not between 0 and 1.
        """
        wanted = _probabilities(probabilities)
        if self.marginals is None or not has_cdf(self.marginals):
            return self._drawn_quantiles(wanted)

        def held(value: Tensor) -> Tensor:
            below = cumulative(self.marginals, value.unsqueeze(-2), discrete=self.head.discrete)
            assert below is not None
            return self._mixed(below)

        target = wanted.reshape(-1, 1, 1).expand(-1, *self.observed.shape)
        return torch.stack([_inverse(held, each, self._start(), discrete=self.head.discrete) for each in target])

    @torch.no_grad()
    def mean(self) -> Tensor:
        """Return E[y_t | y_{<t}], (stream, channel)."""
        distribution = self.whole if self.marginals is None else self.marginals
        self._refuse_codes("mean")
        return self._mixed(distribution.mean)

    @isolated
    @torch.no_grad()
    def variance(self) -> Tensor:
        """Return the variance of y_t given y_{<t}, (stream, channel); by draws where no closed form is there.

        Raises:
            ValueError: of codes that stand for classes.
        """
        self._refuse_codes("variance")
        if self.marginals is None:
            drawn, weights = self._drawn()
            weights = weights.unsqueeze(-1)
            return (weights * (drawn - (weights * drawn).sum(0)).square()).sum(0)
        mean = self._mixed(self.marginals.mean)
        return self._mixed(self.marginals.variance + (self.marginals.mean - mean.unsqueeze(-2)).square())

    def _refuse_codes(self, what: str) -> None:
        if isinstance(self.head, Categorical):
            raise ValueError(f"{what}: {self.name!r} has codes of classes, which have no {what}; use `predicted`")

    def _mixed(self, values: Tensor) -> Tensor:
        """Return the average, (stream, channel), of values of the particles, (draw, particle, stream, 1, channel)."""
        weights = self.log_weights.exp().unsqueeze(-1)
        values = values.squeeze(-2).expand(*self.log_weights.shape, -1)
        return (weights * torch.where(weights > 0, values, 0.0)).sum((0, 1))

    def _start(self) -> tuple[Tensor, Tensor]:
        """Return a value and a distance from which quantiles are looked for, (stream, channel)."""
        centre = self._mixed(self.marginals.mean)
        spread = self._mixed(self.marginals.variance + (self.marginals.mean - centre.unsqueeze(-2)).square()).sqrt()
        centre = torch.where(centre.isfinite(), centre, 0.0)
        return centre, torch.where(spread.isfinite() & (spread > 0), spread, 1.0)

    def _drawn(self) -> tuple[Tensor, Tensor]:
        """Return draws, (sample, stream, channel), and their weights, (sample, stream), which add up to one."""
        components = self.log_weights.shape[0] * self.log_weights.shape[1]
        repeats = math.ceil(DRAWS / components)
        distribution = self.whole if self.marginals is None else self.marginals
        with random_state(self._integer(1)):
            drawn = distribution.expand((*self.log_weights.shape, *distribution.batch_shape[3:])).sample((repeats,))
        weights = self.log_weights.exp().expand(repeats, *self.log_weights.shape) / repeats
        return drawn.squeeze(-2).flatten(0, 2), weights.flatten(0, 2)

    def _drawn_quantiles(self, wanted: Tensor) -> Tensor:
        drawn, weights = self._drawn()
        ordered, places = drawn.sort(0)
        held = weights.unsqueeze(-1).expand_as(drawn).gather(0, places).cumsum(0)
        first = (held.unsqueeze(0) < (wanted.reshape(-1, 1, 1, 1) - 1e-12)).sum(1).clamp(max=len(drawn) - 1)
        return ordered.gather(0, first)

    def _integer(self, purpose: int) -> int:
        return int(np.random.SeedSequence((*self.seed, purpose)).generate_state(1)[0])

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._integer(purpose))


class Kept(NamedTuple):
    """What is kept of a step by particles, of which a prediction is made when it is asked for.

    Attributes:
        head: in double precision.
        hidden: what readouts saw, (draw, particle, stream, hidden_size).
        inputs: what else the head needed, as `copied` returned it.
        history: what it fed back to itself.
        observed, mask, log_weights, seed: see `Prediction`.
    """

    head: Observation
    hidden: Tensor
    inputs: tuple[tuple[Any, ...], tuple[Any, ...]]
    history: Tensor | None
    observed: Tensor
    mask: Tensor
    log_weights: Tensor
    seed: tuple[int, ...]


class LatePredictions(Mapping[str, Prediction]):
    """Predictions by head that are made when they are first asked for."""

    def __init__(self, kept: Mapping[str, Kept]) -> None:
        self._kept = kept
        self._made: dict[str, Prediction] = {}

    @isolated
    @torch.no_grad()
    def __getitem__(self, name: str) -> Prediction:
        if name not in self._made:
            head, hidden, (inputs, surroundings), history, observed, mask, log_weights, seed = self._kept[name]
            told = HeadInputs(*inputs)._replace(surroundings=Surroundings(*surroundings))
            distribution = in_double(head, hidden, told, history)
            marginals = head.marginals(distribution)
            whole = distribution if marginals is None else None
            self._made[name] = Prediction(name, head, marginals, whole, log_weights, observed, mask, seed)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: object) -> bool:
        return name in self._kept


def copied(inputs: HeadInputs) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return inputs, and their surroundings, that do not lie in the buffers that the next step writes into."""

    def own(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) else value

    # without names, which a step that is repeated would not know
    around = tuple(map(own, inputs.surroundings))
    return tuple(None if value is inputs.surroundings else own(value) for value in inputs), around


def predictions(
    followed: Followed,
    seed: int,
    number: int,
    expected: Mapping[str, tuple[Any, Any]],
    data: SequenceData,
    log_weights: Tensor,
) -> dict[str, Prediction]:
    """Return what was expected of a step, by head, with what came.

    Args:
        followed: model and guide.
        seed: of the filter.
        number: the step.
        expected: by head its marginals, or else its whole distribution, given each particle.
        data: the last few steps.
        log_weights: of the particles before the step was seen, (draw, particle, stream), with a mass of one.
    """
    found, order = {}, list(followed.heads)
    for name, (marginals, whole) in expected.items():
        observed, mask = data.observations[name][:, -1].double(), data.masks[name][:, -1]
        own = seed, number, order.index(name)
        head = followed.double_heads[name]
        # the buffers are written over by the next step
        found[name] = Prediction(name, head, marginals, whole, log_weights, observed.clone(), mask.clone(), own)
    return found


def average(weights: Tensor, means: Tensor) -> Tensor:
    """Return the weighted average, (stream, ...), of means (stream, particle, ...).

    Those without weight are left out whatever they are: under draws that are ruled out states may have grown beyond
    what numbers hold.
    """
    weights = weights.reshape(*weights.shape, *[1] * (means.dim() - 2))
    return (weights * torch.where(weights > 0, means, 0.0)).sum(1)


def _probabilities(given: Any) -> Tensor:
    found = to_tensor("quantiles: probabilities", given).double().reshape(-1)
    if not bool(((found > 0) & (found < 1)).all()) or not found.numel():
        raise ValueError(f"quantiles: probabilities must lie between 0 and 1; found {found.tolist()}")
    return found


def _inverse(
    held: Callable[[Tensor], Tensor], wanted: Tensor, start: tuple[Tensor, Tensor], *, discrete: bool
) -> Tensor:
    """Return the smallest values whose distribution function is at least what is wanted."""
    centre, step = start
    low, high = centre - step, centre + step
    if discrete:
        low, high = torch.full_like(centre, -1.0), high.ceil().clamp_min(0)
    for _ in range(HALVINGS):  # until the interval holds it
        above, below = held(high) < wanted, held(low) >= wanted
        if not bool(above.any() | below.any()):
            break
        step = 2 * step
        high = torch.where(above, (high + step).ceil() if discrete else high + step, high)
        low = torch.where(below, low - step, low)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        middle = middle.floor() if discrete else middle
        enough = held(middle) >= wanted
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        if discrete and bool((high - low <= 1).all()):
            break
    # a point mass at zero is come near to, and never met, by halving
    zero = torch.zeros_like(high)
    return torch.where((high > 0) & (held(zero) >= wanted), zero, high)
