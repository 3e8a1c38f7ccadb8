"""What a fit tells while it lasts: progress bar, history, callbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import nn

from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import LARGEST_COUNT, check_flag, check_list, check_size, settle


@dataclass(frozen=True)
class Progress:
    """How far a fit has come, as a callback is told.

    Attributes:
        kind: "report", of the terms of a training batch, or "evaluation", of the validation sequences.
        step: the step, from 0.
        terms: what was added to the history: `elbo` and its terms, or `validation_elbo`; nats per sequence.
        history: everything so far, as in `FitResult.history`.
        best_bound: the best validation bound so far, nats per sequence; minus infinity before the first evaluation.
        best_step: the step whose weights it is of.
        model, guide: those that are being fitted, as they are at this step, to look at; what changes them changes the
            fit.
    """

    kind: Literal["report", "evaluation"]
    step: int
    terms: Mapping[str, float]
    history: Mapping[str, Sequence[float]]
    best_bound: float
    best_step: int
    model: LatentRNN | None = None
    guide: nn.Module | None = None


class Callback(Protocol):
    """What a fit calls at every report and evaluation: a logger, a sweep's pruner, a stopping rule of one's own."""

    def __call__(self, progress: Progress, /) -> bool | None:
        """Return True to end the fit, which keeps its best weights and names the callback in `stop_reason`."""


@dataclass(frozen=True)
class Reporting:
    """What a fit tells while it lasts.

    Args:
        progress: whether to show a progress bar.
        every: steps between reports (on CUDA, the only times when the host waits for the device).
        callbacks: functions of a `Progress`, called at every report and evaluation, of several processes in the first.
            One that returns True ends the fit. One that raises ends it too, with a warning: what was fitted is kept.
        check_priors: whether to warn, before the first step, of priors that cannot have made the scale of the training
            data; see `latentrnn.check_priors`. Without priors nothing is looked at.

    Raises:
        ValueError: a number of steps out of range.
        TypeError: an argument of the wrong kind.

    Example:
        >>> def enough(progress):
        ...     return progress.best_bound > -20.0
        >>> Reporting(every=50, callbacks=[enough]).every
        50
    """

    progress: bool = True
    every: int = 10
    callbacks: Sequence[Callback] = ()
    check_priors: bool = True

    def __post_init__(self) -> None:
        callbacks = tuple(check_list("Reporting", "callbacks", self.callbacks, "functions of the progress"))
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(f"Reporting: callbacks must be functions of the progress; found {callback!r:.80}")
        settle(
            self,
            progress=check_flag("Reporting", "progress", self.progress),
            every=check_size("Reporting", "every", self.every, most=LARGEST_COUNT),
            callbacks=callbacks,
            check_priors=check_flag("Reporting", "check_priors", self.check_priors),
        )
