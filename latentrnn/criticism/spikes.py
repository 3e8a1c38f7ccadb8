"""What the scores and checks of spike trains share: which family a one-step-ahead density has, its null, its blocks."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from latentrnn.support.arguments import check_size

EventFamily = Literal["poisson", "bernoulli"]


def event_family(one_step_ahead: Any) -> EventFamily:
    """Tell a Poisson from a Bernoulli head by its empty bins.

    With predictive mean m, `-log p(0)` is m for a Poisson (less for a mixture of Poissons, by Jensen), and
    `-log(1 - m) > m` for a Bernoulli. Where the two cannot be told apart they agree to float precision.
    """
    empty = one_step_ahead.scored & (one_step_ahead.observed == 0)
    surprise = -one_step_ahead.log_prob[empty].to(torch.float64)
    average = one_step_ahead.mean[empty].to(torch.float64)
    tolerance = 1e-5 * average.sum()  # float32 log-probabilities
    return "bernoulli" if bool(surprise.sum() > average.sum() + tolerance) else "poisson"


def is_one_step_ahead(value: Any) -> bool:
    """Whether it has what scores read from a `OneStepAhead`: head, densities in nats, means, what was seen and scored.

    By these names and not by class, so that predictions of other models can be scored; shapes are not looked at.
    """
    return all(hasattr(value, name) for name in ("head", "log_prob", "mean", "observed", "scored", "keys"))


def check_one_step_ahead(value: Any) -> None:
    """Check that it has what scores read from a `OneStepAhead`.

    Raises:
        TypeError: it has not, naming its type.
    """
    if not is_one_step_ahead(value):
        raise TypeError(f"one_step_ahead: expected a OneStepAhead; found {type(value).__name__}")


def check_block_length(value: Any) -> int | None:
    """Return the number of steps of a block, a positive integer, or None for whole sequences.

    Raises:
        TypeError, ValueError: anything else.
    """
    return None if value is None else check_size("score", "block_length", value)


def check_events(one_step_ahead: Any) -> None:
    """Check that the head counts events, with one log-probability per channel.

    Raises:
        TypeError: no `OneStepAhead`.
        ValueError: another family, densities joint over channels, nothing scored, NaN, or values that are no counts.
    """
    check_one_step_ahead(one_step_ahead)
    family = getattr(one_step_ahead, "family", None)
    if family is not None and getattr(one_step_ahead, "log_prob_zero", None) is None:
        raise ValueError(
            f"one_step_ahead of {one_step_ahead.head!r}: {family} does not count events, channel by channel"
        )
    shape, head = tuple(one_step_ahead.observed.shape), one_step_ahead.head
    if tuple(one_step_ahead.log_prob.shape) != shape:
        raise ValueError(
            f"one_step_ahead of {head!r}: expected a log-probability per channel, shape {shape}, got "
            f"{tuple(one_step_ahead.log_prob.shape)}; families joint over channels have no spike score"
        )
    seen = one_step_ahead.observed[one_step_ahead.scored]
    if seen.numel() == 0:
        raise ValueError(f"one_step_ahead of {head!r}: no scored entry")
    if bool(((seen < 0) | (seen != seen.round())).any()):
        raise ValueError(f"one_step_ahead of {head!r}: expected counts (non-negative integers) in the scored entries")
    for what in (one_step_ahead.log_prob, one_step_ahead.mean):
        if bool(what[one_step_ahead.scored].isnan().any()):
            raise ValueError(f"one_step_ahead of {head!r}: NaN in a scored entry of its log_prob or mean")


def null_log_prob(counts: Tensor, mask: Tensor, family: EventFamily) -> Tensor:
    """Log-probability (nats) of each entry under its channel's mean over the scored entries; 0 where not scored.

    Args:
        counts: `(sequence, time, channel)` float64.
        mask: scored entries, same shape.
    """
    weight = mask.to(torch.float64)
    counts = counts.masked_fill(~mask, 0.0)
    average = counts.sum((0, 1)) / weight.sum((0, 1)).clamp(min=1)
    if family == "poisson":
        log_prob = poisson_log_prob(average, counts)
    else:
        log_prob = torch.xlogy(counts, average) + torch.special.xlog1py(1 - counts, -average)
    return log_prob.masked_fill(~mask, 0.0)


def poisson_log_prob(rates: Tensor, counts: Tensor) -> Tensor:
    """`y log(rate) - rate - log(y!)` in nats, with 0 log 0 = 0.

    Args:
        rates, counts: expected and observed counts per bin, of one shape, which is that of the result.
    """
    return torch.xlogy(counts, rates) - rates - torch.lgamma(counts + 1)


def block_sums(values: Tensor, block_length: int | None) -> Tensor:
    """Sum `(sequence, time, channel)` over channels and consecutive blocks of steps, `(sequence * block,)`.

    Blocks tile each sequence from its start; the last one of a sequence may be shorter. None takes
    each sequence as one block.
    """
    per_step = values.sum(-1)
    length = per_step.shape[1] if block_length is None else block_length
    padding = -per_step.shape[1] % length
    padded = torch.nn.functional.pad(per_step, (0, padding))
    return padded.reshape(per_step.shape[0], -1, length).sum(-1).flatten()
