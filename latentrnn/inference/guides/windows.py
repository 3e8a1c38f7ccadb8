"""Long sequences in windows, each going on from where the one before ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from latentrnn.data import SequenceData, Sequences
from latentrnn.data.views.windows import Sliced, bounds, window
from latentrnn.inference.guides.guide import Guide
from latentrnn.models.features import Feature
from latentrnn.models.observations import Observation
from latentrnn.models.pooling import LastState
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import LARGEST_SIZE, is_integer, settle


@dataclass(frozen=True)
class Window:
    """Go through long sequences in windows that hand their state on: memory is that of a window.

    The state of the transition, the latent's last value, the features that look back, fed-back observations, what a
    windowed readout remembers and the forward half of an encoder go from one window to the next as they are, so that
    the terms of a sequence's windows add up to its ELBO; those before the first step count once. In `fit` every window
    is an optimizer step of its own, and no gradient flows from one window into another: truncated backpropagation
    through time, whose gradient leaves out what an input does beyond its window. What the state carries was drawn with
    the weights of the step before.

    The backward half of an encoder sees the window and the `overlap` steps after it, and nothing later. It thus differs
    from that of the whole sequence near the end of each window, the less the longer the overlap; a causal encoder does
    not differ at all. The latent before the first step is inferred from the first window.

    Args:
        steps: base steps of a window.
        overlap: base steps after a window that a backward encoder sees too.

    Raises:
        ValueError: a number of steps out of range.

    References:
        Williams, Peng. An efficient gradient-based algorithm for on-line training of recurrent network trajectories.
        1990.
        Tallec, Ollivier. Unbiasing truncated backpropagation through time. 2017.
    """

    steps: int = 1000
    overlap: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("overlap", 0)):
            value = getattr(self, name)
            if not is_integer(value) or not least <= value <= LARGEST_SIZE:
                raise ValueError(
                    f"Window: {name} must be a whole number of base steps, {least} to {LARGEST_SIZE}; found {value!r}"
                )
            settle(self, **{name: int(value)})


class WindowPlan(NamedTuple):
    """How windows are cut for a model and its guide, in base steps: `steps` each, with `before` and `after` around."""

    steps: int
    before: int
    after: int
    shortest: int

    def windows(self, num_steps: int) -> list[tuple[int, int]]:
        """Return where the windows of sequences of `num_steps` begin and stop."""
        return bounds(num_steps, self.steps, self.shortest)

    def cut(
        self, sequences: Sliced, place: tuple[int, int], carry_in: Mapping[str, Tensor] | None, total: int
    ) -> SequenceData:
        """Return one window, which stands for `total` sequences."""
        return window(sequences, *place, before=self.before, after=self.after, carry_in=carry_in, total=total)

    def expect(self, sequences: Sequences, place: tuple[int, int]) -> None:
        """Say which window will be asked for next, so that it can be read ahead."""
        start, stop = place
        sequences.expect(None, max(start - self.before, 0), stop + self.after)

    def through(self, sequences: Sequences, *, enlarged: bool = False) -> Iterator[SequenceData]:
        """Go through sequences window by window; the caller runs model and guide on each before the next.

        Args:
            sequences: a batch; one that a window holds comes as it is.
            enlarged: whether a window stands for all windows of its sequences, so that their average is the whole's.
        """
        places = self.windows(sequences.num_steps)
        if len(places) == 1:
            yield sequences.load_batch()
            return
        carry_in: Mapping[str, Tensor] | None = None
        for place in places:
            part = self.cut(sequences, place, carry_in, sequences.total * (len(places) if enlarged else 1))
            yield part
            assert part.around is not None
            carry_in = part.around.carry_out


def window_plan(owner: str, windows: Any, model: LatentRNN, guide: Guide, objective: Any = None) -> WindowPlan:
    """Return how windows are cut for these parts.

    Raises:
        TypeError: `windows` is no `Window`.
        ValueError: a part that cannot go on from the window before, naming it and the reason.
    """
    if not isinstance(windows, Window):
        raise TypeError(f"{owner}: window must be a Window, e.g. Window(1000); found {type(windows).__name__}")
    for name, problem in _problems(model, guide, objective):
        raise ValueError(f"{owner}: window: {name} {problem}")
    unit = math.lcm(*(head.clock for head in model.spec.heads.values()))
    for name in ("steps", "overlap"):
        if getattr(windows, name) % unit:
            raise ValueError(
                f"{owner}: window: {name} must be a multiple of {unit}, at which all clocks tick; found {windows}"
            )
    encoder = [] if guide.encoder is None else [guide.encoder]
    features = [part for module in (model, *encoder) for part in module.modules() if isinstance(part, Feature)]
    feedback = [head.feedback.steps for head in model.observations.values() if head.feedback is not None]
    before = max([0, int(model.spec.irregular), *(part.memory for part in features), *feedback])
    ahead = [int(part.lookahead) for part in features]
    after = max([0, windows.overlap, *ahead, *(part.lookahead for part in encoder)])
    return WindowPlan(windows.steps, _up(before, unit), _up(after, unit), model.spec.slowest)


def _problems(model: LatentRNN, guide: Guide, objective: Any) -> Iterator[tuple[str, str]]:
    if not model.latent.continues:
        yield repr(model.latent), "needs the whole path at once, or remembers more of it than its last value"
    for name, head in model.observations.items():
        yield from _problems_of_head(f"observations[{name!r}]", head)
    for part in (*model.modules(), *guide.modules()):
        if isinstance(part, Feature) and math.isinf(part.lookahead):
            yield repr(part), "sees the covariates of the whole sequence at every step"
    if len(model.couplings):
        yield repr(model.couplings[0]), "is a penalty of whole sequences"
    if model.latent_sites():
        if not guide.local.amortised:
            yield repr(guide.local), "holds numbers for every step of every sequence, which no window bounds"
        elif not guide.local.continues:
            yield (
                repr(guide.local),
                "is a distribution of the whole path, whose first steps lean on its last; use Markov or MeanField",
            )
        if guide.encoder is not None and not guide.encoder.continues:
            yield repr(guide.encoder), "does not go on from the window before"
    if objective is not None and not objective.adds_over_windows:
        yield repr(objective), "is no sum over the windows of a sequence; use ELBO() without free_bits"


def _problems_of_head(name: str, head: Observation) -> Iterator[tuple[str, str]]:
    kind = type(head).__name__
    if head.head.per_step:
        if not head.stepwise:
            yield name, f"({kind}) depends on more than the present state and step"
        if head.readout.memory is None or math.isinf(head.readout.lookahead):
            yield name, f"reads all states or covariates ({type(head.readout).__name__}); use WindowedAttention"
    elif not isinstance(head.pooling, LastState):
        yield name, f"pools the states of the whole sequence ({type(head.pooling).__name__}); use pooling='last'"


def _up(steps: int, unit: int) -> int:
    return -(-steps // unit) * unit
