"""Alarms of an online filter: scores of what came against what was expected, and a threshold with a stated rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.online.filter import OnlineFilter
from latentrnn.inference.online.filtered_state import FilteredState, FilteredStates
from latentrnn.support.arguments import check_choice, check_number
from latentrnn.support.isolation import isolated

SCORES = ("tail", "density")
LEAST_TAIL = 1e-300  # a transform of 0 or 1 to the last digit has a finite score


@dataclass(frozen=True, eq=False)
class Alarms:
    """What an `Alarm` says of a step; of many streams the stream is the first axis, and channels are the last.

    Attributes:
        scores: how unexpected it was, larger is less expected; NaN where nothing was observed.
        p_values: share of the calibration scores, this one added, that are at least as large; NaN likewise.
        raised: booleans, whether the p-value is at or below the rate.
    """

    scores: Tensor
    p_values: Tensor
    raised: Tensor

    def __repr__(self) -> str:
        return f"Alarms({int(self.raised.sum())} of {self.raised.numel()} raised)"


@dataclass(frozen=True, eq=False)
class Alarm:
    """A threshold for what is out of the ordinary, from `calibrate_alarm`: `alarm(found)` judges a step.

    Attributes:
        rate: of false alarms, at most, of each score that is judged.
        rate_of: what the rate is of: "step", or "sequence" (any alarm within a whole one).
        score: "tail" or "density".
        by: "channel" or "step".
        head: the head that is judged; None for all heads together.
        calibration: scores in ascending order, (score,), or by channel (score, channel), NaN last.
        counts: how many there are of each channel, (channel,) or (1,).
    """

    rate: float
    rate_of: str
    score: str
    by: str
    head: str | None
    calibration: Tensor
    counts: Tensor

    def __repr__(self) -> str:
        of = "all heads" if self.head is None else repr(self.head)
        return (
            f"Alarm({self.score} of {of} by {self.by}, at most {self.rate:g} false ones per {self.rate_of}, "
            f"from {int(self.counts.min())} scores)"
        )

    @property
    def threshold(self) -> Tensor:
        """The scores above which an alarm is raised, (channel,) or a number: the ceil((n + 1) (1 - rate))-th of n."""
        flat = self.calibration.reshape(len(self.calibration), -1)
        rank = torch.ceil((self.counts + 1) * (1 - self.rate) - 1e-9).long().clamp_min(1)
        found = flat.gather(0, (rank - 1).unsqueeze(0)).squeeze(0)
        return found if self.by == "channel" else found.squeeze(0)

    @isolated
    def __call__(self, found: FilteredState | FilteredStates) -> Alarms:
        """Judge a step.

        Args:
            found: what `OnlineFilter.update` returned, of the filter that the alarm was calibrated with or a fresh one.

        Raises:
            TypeError: anything else.
            ValueError: the guide alone, or a step without a frame of the head.
        """
        if not isinstance(found, FilteredState | FilteredStates):
            raise TypeError(
                f"Alarm: expected what OnlineFilter.update returned, a FilteredState or FilteredStates; found "
                f"{type(found).__name__}"
            )
        scores = scores_of(found, self.score, self.by, self.head)
        columns = scores if self.by == "channel" else scores.unsqueeze(-1)
        flat = self.calibration.reshape(len(self.calibration), -1)
        if columns.shape[-1] != flat.shape[1]:
            raise ValueError(f"Alarm: expected {flat.shape[1]} channels, found {columns.shape[-1]}")
        at_least = (flat >= columns.unsqueeze(-2)).sum(-2)  # NaN is neither above nor below
        p_values = ((1 + at_least) / (self.counts + 1)).masked_fill(columns.isnan(), torch.nan)
        p_values = p_values if self.by == "channel" else p_values.squeeze(-1)
        return Alarms(scores, p_values, p_values <= self.rate + 1e-12)


@isolated
def calibrate_alarm(
    online: OnlineFilter,
    data: SequenceData,
    *,
    rate: float = 0.01,
    rate_of: str = "step",
    score: str = "tail",
    by: str = "channel",
    head: str | None = None,
) -> Alarm:
    """Return an alarm whose rate of false ones is at most the one that is asked for, from ordinary sequences.

    A fresh filter goes through the sequences and scores every step: how far out what came is in what was expected,
    -log(2 min(F, 1 - F)) with F the probability integral transform ("tail"; of a step the largest over its channels),
    or how improbable it was, -log p(y_t | y_{<t}) ("density"; of a step that of all heads together). An alarm is raised
    where

        (1 + number of calibration scores >= score) / (n + 1) <= rate

    which happens with a probability of at most `rate` whenever the new score and the n others are exchangeable,
    whatever their distribution (split conformal). Of steps they are so under a right model with "tail", whose
    transforms are independent; otherwise as far as steps of ordinary sequences look alike in the long run. With
    rate_of="sequence" the score of a sequence is its largest, and sequences of a kind and length are exchangeable
    whatever the model: then the rate is that of any alarm within a sequence.

    Args:
        online: the filter, whose settings are used; it stays as it is.
        data: ordinary sequences that the fit has not seen.
        rate: of false alarms, of each score that is judged: with by="channel" of every channel by itself.
        rate_of: "step" or "sequence".
        score: "tail" or "density".
        by: "channel" (each has a threshold of its own) or "step".
        head: the head that is judged; None for all with by="step", and for the only one with by="channel".

    Raises:
        TypeError: arguments of another kind.
        ValueError: the guide alone, sequences that were fitted, a density of one head by step, several heads by
            channel, or fewer scores than the rate needs, 1 / rate - 1.

    References:
        Vovk, Gammerman, Shafer. Algorithmic learning in a random world. 2005.
        Laxhammar, Falkman. Conformal prediction for distribution-independent anomaly detection in streaming vessel
        data. 2010.

    Example:
        >>> import latentrnn as lr, numpy as np
        >>> data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(8, 50, 1))})
        >>> model = lr.LatentRNN(
        ...     data.spec, transition=lr.Linear(1), latent=lr.LinearGaussian(), observations={"y": lr.Gaussian()}
        ... )
        >>> online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), data))
        >>> alarm = lr.calibrate_alarm(online, data, rate=0.01)
        >>> bool(alarm(online.update([0.0])).raised.any()), bool(alarm(online.update([40.0])).raised.any())
        (False, True)
    """
    owner = "calibrate_alarm"
    if not isinstance(online, OnlineFilter):
        raise TypeError(f"{owner}: online must be an OnlineFilter; found {type(online).__name__}")
    if not isinstance(data, SequenceData):
        raise TypeError(f"{owner}: data must be SequenceData; found {type(data).__name__}")
    rate = check_number(owner, "rate", rate, above=0, below=1)
    check_choice(owner, "rate_of", rate_of, ("step", "sequence"))
    check_choice(owner, "score", score, SCORES)
    check_choice(owner, "by", by, ("channel", "step"))
    heads = list(online.heads)
    if head is None and by == "channel":
        if len(heads) > 1:
            raise ValueError(f"{owner}: by='channel' is of one head; expected head= among {heads}")
        head = heads[0]
    if head is not None and (not isinstance(head, str) or head not in heads):
        raise ValueError(f"{owner}: unknown head {head!r}; expected one of {heads}")
    if score == "density" and by == "step" and head is not None:
        raise ValueError(f"{owner}: the density of a step is that of all heads; expected head=None, or by='channel'")
    seen = sum(any(key.key == other.key and key.overlaps(other) for other in online.used) for key in data.keys)
    if seen:
        raise ValueError(
            f"{owner}: {seen} of {len(data)} sequences took part in the fit, which they surprise less than new ones do;"
            " expected others"
        )
    clock = 1 if head is None else online.followed.clocks[head]
    found = []
    for step, state in enumerate(online.fresh(streams=len(data)).follow(data)):
        if (step + 1) % clock == 0:
            found.append(scores_of(state, score, by, head))
    scores = torch.stack(found)  # (step, stream[, channel])
    if rate_of == "sequence":
        scores = scores.nan_to_num(-math.inf).amax(0)
        scores = scores.masked_fill(scores.isneginf(), torch.nan)
    else:
        scores = scores.flatten(0, 1)
    columns = scores if by == "channel" else scores.unsqueeze(-1)
    counts = (~columns.isnan()).sum(0)
    least = math.ceil(1 / rate - 1 - 1e-9)
    if int(counts.min()) < least:
        raise ValueError(
            f"{owner}: a rate of {rate:g} per {rate_of} needs {least} scores or more; found {int(counts.min())}"
        )
    return Alarm(rate, rate_of, score, by, head, scores.sort(0).values, counts)


def scores_of(found: FilteredState | FilteredStates, score: str, by: str, head: str | None) -> Tensor:
    """Return how unexpected a step was, ([stream,] [channel]), NaN where nothing was observed."""
    if by == "channel":
        assert head is not None
        return -found.log_density(head) if score == "density" else _tail(found.pit(head))
    if found.predictions is None or found.log_prob is None:
        raise ValueError("the guide alone has no densities of a step; make the OnlineFilter with num_particles")
    heads = [head] if head is not None else list(found.predictions)
    transforms = [found.pit(name) for name in heads]
    if not transforms:
        raise ValueError("no head has a frame at this step")
    scores = _tail(torch.cat(transforms, -1))
    nothing = scores.isnan().all(-1)
    if score == "density":
        return -torch.as_tensor(found.log_prob, dtype=torch.float64).masked_fill(nothing, torch.nan)
    return scores.nan_to_num(-math.inf).amax(-1).masked_fill(nothing, torch.nan)


def _tail(transforms: Tensor) -> Tensor:
    """Return -log(2 min(F, 1 - F)), exponential with mean one under a right model."""
    return -(2 * torch.minimum(transforms, 1 - transforms)).clamp_min(LEAST_TAIL).log()
