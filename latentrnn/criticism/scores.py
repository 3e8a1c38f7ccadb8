"""Scores of predictions. None of them lets the guide see what is scored; each docstring says what it saw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from latentrnn.criticism.entries import ArrayLike, aligned
from latentrnn.criticism.spikes import (
    block_sums,
    check_block_length,
    check_events,
    check_one_step_ahead,
    event_family,
    null_log_prob,
    poisson_log_prob,
)
from latentrnn.inference.evidence.evidence import Evidence
from latentrnn.support.arguments import check_kind_of
from latentrnn.support.notebooks import ShownInNotebooks

Unit = Literal["bits/spike", "bits/symbol", "nats/step", "nats/sequence", "AUROC", "Brier", "concordance"]

# as in the benchmark's own code: a rate of exactly zero is scored as this many events per bin
LEAST_RATE = 1e-9


@dataclass(frozen=True)
class Score(ShownInNotebooks):
    """A score with the standard error over its blocks; `float(score)` is its value.

    Attributes:
        value: in `unit`.
        standard_error: over blocks (delete-one-block jackknife), in `unit`.
        unit: "bits/spike", "bits/symbol", "nats/step", "nats/sequence", "AUROC", "Brier" or "concordance".
        num_spikes: events scored (0 where the unit is not per spike).
        num_blocks: blocks with something to score.
        gains: what is averaged, per block, nats (block,).
        amounts: spikes, scored steps or sequences per block (block,).
        blocks: of each block the sequence (its key, or its position where there are no keys) and the first step.
        evidence: that the score is the mean of, with its Monte Carlo error; None where there is none.
    """

    value: float
    standard_error: float
    unit: Unit
    num_spikes: int
    num_blocks: int
    gains: Tensor
    amounts: Tensor
    blocks: tuple[tuple[Any, int], ...]
    evidence: Evidence | None = None

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        text = f"{self.value:.3f} +- {self.standard_error:.3f} {self.unit} ({self.num_blocks} blocks)"
        if self.evidence is None or not (diagnosis := self.evidence.diagnosis()):
            return text
        error = self.evidence.total_standard_error / max(len(self.evidence.values), 1)
        return f"{text}; {self.evidence.kind} with a Monte Carlo error of {error:.3f}, {diagnosis}"

    def __repr__(self) -> str:
        return f"Score({self})"


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two scores of the same events, with the standard error of the difference over blocks."""

    value: float
    standard_error: float
    unit: str
    num_blocks: int

    @property
    def in_standard_errors(self) -> float:
        """The difference divided by its standard error."""
        return self.value / self.standard_error if self.standard_error > 0 else math.copysign(math.inf, self.value)

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:+.3f} +- {self.standard_error:.3f} {self.unit} ({self.num_blocks} blocks, paired)"


@dataclass(frozen=True)
class RSquared:
    """Coefficients of determination: `per_channel` (channel,) and `pooled`; `float(r2)` is the pooled one."""

    per_channel: Tensor
    pooled: float

    def __float__(self) -> float:
        return self.pooled


def bits_per_spike(rates: ArrayLike, counts: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Bits per spike of Poisson rates against each channel's mean count: the co-smoothing score.

        bps = (log p(y | rates) - log p(y | mean_c)) / (log(2) * sum y)

    sums over the scored entries, `mean_c` the channel's mean count over them; the metric of the Neural Latents
    Benchmark, a rate of zero counting as 1e-9 as in its code. The score knows nothing of how the rates came
    about: it is a co-smoothing score when the encoder did not observe the scored head
    (`RNNEncoder(..., observes=[...])`), and means nothing when the guide saw these counts.

    Args:
        rates: expected count per bin, `(sequence, time, channel)`.
        counts: recorded counts, same shape; NaN entries are not scored.
        mask: entries to score, True = scored, same shape or `(sequence, time)`; pass `data.scored(head)`
            when sequences differ in length or entries are missing. Default: all.

    Returns:
        Bits per spike: 0 is no better than the means, larger is better.

    Raises:
        ValueError: for shapes that differ, negative or undefined rates, counts that are none, no spike to score.

    References:
        F. Pei et al. (2021), Neural Latents Benchmark '21: evaluating latent variable models of neural
        population activity, NeurIPS Datasets and Benchmarks.

    >>> counts = torch.tensor([[[0.], [2.], [0.], [2.]]])
    >>> bits_per_spike(torch.tensor([[[0.], [2.], [0.], [2.]]]), counts)
    1.0
    """
    gain, spikes, _ = _poisson_gain(rates, counts, mask)
    return float(gain.sum() / spikes.sum()) / math.log(2)


def bits_per_spike_by_block(
    rates: ArrayLike, counts: ArrayLike, mask: ArrayLike | None = None, *, block_length: int | None = None
) -> Score:
    """Bits per spike as in `bits_per_spike`, with its block standard error.

    For rates from anywhere, such as a GLM that saw only the past, to be compared by `paired_difference`
    with `one_step_ahead_bits_per_spike` of the same counts. Arguments as there and in `bits_per_spike`.
    """
    block_length = check_block_length(block_length)
    gain, spikes, scored = _poisson_gain(rates, counts, mask)
    return _block_score(gain, spikes, scored, block_length, tuple(range(gain.shape[0])), "bits/spike")


def one_step_ahead_bits_per_spike(one_step_ahead: Any, *, block_length: int | None = None) -> Score:
    """Bits per spike of log p(y_t | y_<t, covariates_<=t): each count is predicted from its past alone.

        bps = sum_t [log p(y_t | y_<t) - log p(y_t | mean_c)] / (log(2) * sum y)

    against each channel's mean over the scored steps, under the head's own family (Poisson or Bernoulli).
    The guide takes no part; nothing at or after t is seen. The standard error leaves out one block at a time,
    with the means held fixed; blocks should be longer than the correlations in the recording.

    Args:
        one_step_ahead: a `OneStepAhead` of a head with counts.
        block_length: steps per block; None takes each sequence as a block, and needs more than one.

    Raises:
        ValueError: for a head without counts, no spike, fewer than two blocks.

    References:
        J. Pillow et al. (2008), Spatio-temporal correlations and visual signalling in a complete neuronal
        population, Nature (information per spike against a homogeneous Poisson process).
    """
    check_events(one_step_ahead)
    block_length = check_block_length(block_length)
    scored = one_step_ahead.scored
    counts = one_step_ahead.observed.to(torch.float64).masked_fill(~scored, 0.0)
    log_prob = one_step_ahead.log_prob.to(torch.float64).masked_fill(~scored, 0.0)
    if not counts.any():
        raise ValueError(f"one_step_ahead of {one_step_ahead.head!r}: no spike in the scored entries")
    gain = log_prob - null_log_prob(counts, scored, event_family(one_step_ahead))
    return _block_score(gain, counts, scored, block_length, tuple(one_step_ahead.keys), "bits/spike")


def one_step_ahead_log_likelihood(one_step_ahead: Any, *, block_length: int | None = None) -> Score:
    """Mean log p(y_t | y_<t, covariates_<=t) in nats per scored step, any family; the guide takes no part.

    A step is scored when any of its channels is; its log-probability is the sum over channels.
    Arguments and standard error as in `one_step_ahead_bits_per_spike`.
    """
    check_one_step_ahead(one_step_ahead)
    block_length = check_block_length(block_length)
    scored = one_step_ahead.scored
    if not scored.any():
        raise ValueError(f"one_step_ahead of {one_step_ahead.head!r}: no scored entry")
    log_prob = one_step_ahead.log_prob.to(torch.float64).masked_fill(~scored, 0.0)
    steps = scored.any(-1, keepdim=True).to(torch.float64)
    return _block_score(log_prob, steps, scored, block_length, tuple(one_step_ahead.keys), "nats/step")


def paired_difference(a: Score, b: Score) -> PairedDifference:
    """Difference `a - b` of two scores over the same blocks, with its standard error.

    Blocks are hard or easy for both, so the error of the difference is far below those of the scores.

    Raises:
        TypeError: something else than two scores.
        ValueError: if the two were not scored on the same blocks, with the same events in each.
    """
    for name, score in (("a", a), ("b", b)):
        check_kind_of("paired_difference", name, score, Score)
    if a.unit != b.unit:
        raise ValueError(f"paired_difference: units differ, {a.unit!r} and {b.unit!r}")
    starts = [tuple(start for _, start in score.blocks) for score in (a, b)]
    if a.amounts.shape != b.amounts.shape or starts[0] != starts[1]:
        raise ValueError(
            f"paired_difference: blocks differ, {a.num_blocks} and {b.num_blocks}; use the same data and block_length"
        )
    if not torch.equal(a.amounts, b.amounts):
        raise ValueError("paired_difference: the scores count different events, they are not of the same data")
    value, error = jackknife(a.gains - b.gains, a.amounts, a.unit)
    return PairedDifference(value, error, a.unit, a.num_blocks)


def r2(prediction: ArrayLike, observed: ArrayLike, mask: ArrayLike | None = None) -> RSquared:
    """Coefficient of determination of a prediction, per channel and pooled.

        R2_c = 1 - sum (y - prediction)^2 / sum (y - ybar_c)^2,   pooled: both sums over channels too

    It knows nothing of how the prediction came about: predict what the guide did not see, one step
    ahead, or a held-out head or entries.

    Args:
        prediction: `(sequence, time, channel)`.
        observed: same shape; NaN entries are not scored.
        mask: as in `bits_per_spike`.

    Raises:
        ValueError: for shapes that differ, an undefined prediction, or observations without any variance.
    """
    predicted, values, scored = aligned("prediction", prediction, "observed", observed, mask)
    number = scored.sum((0, 1)).clamp(min=1)
    centred = (values - values.sum((0, 1)) / number).masked_fill(~scored, 0.0)
    residual = (values - predicted).masked_fill(~scored, 0.0).square().sum((0, 1))
    total = centred.square().sum((0, 1))
    if not bool((total > 0).any()):
        raise ValueError("observed: no variance in the scored entries, R2 is undefined")
    per_channel = 1 - residual / torch.where(total > 0, total, float("nan"))
    varying = total > 0
    return RSquared(per_channel, 1 - float(residual[varying].sum() / total[varying].sum()))


def _poisson_gain(rates: ArrayLike, counts: ArrayLike, mask: ArrayLike | None) -> tuple[Tensor, Tensor, Tensor]:
    predicted, values, scored = aligned("rates", rates, "counts", counts, mask)
    if bool((predicted < 0).any()):
        raise ValueError(f"rates: expected non-negative expected counts, found {float(predicted.min()):.4g}")
    if bool(((values < 0) | (values != values.round())).any()):
        raise ValueError("counts: expected non-negative integers in the scored entries")
    if not bool((values > 0).any()):
        raise ValueError("counts: no spike in the scored entries, bits per spike are undefined")
    log_prob = poisson_log_prob(predicted.clamp(min=LEAST_RATE), values).masked_fill(~scored, 0.0)
    return log_prob - null_log_prob(values, scored, "poisson"), values, scored


def _block_score(
    gain: Tensor,
    amount: Tensor,
    scored: Tensor,
    block_length: int | None,
    sequences: tuple[Any, ...],
    unit: Unit,
) -> Score:
    length = scored.shape[1] if block_length is None else block_length
    used = block_sums(scored.to(torch.float64), block_length) > 0
    per_sequence = used.numel() // scored.shape[0]
    blocks = tuple(
        (sequences[index // per_sequence], index % per_sequence * length) for index in used.nonzero()[:, 0].tolist()
    )
    gains, amounts = block_sums(gain, block_length)[used], block_sums(amount, block_length)[used]
    if len(blocks) < 2:
        raise ValueError(
            f"block_length: {block_length} leaves {len(blocks)} block; a standard error needs at least 2 "
            f"(the recording has {scored.shape[0]} sequences of {scored.shape[1]} steps)"
        )
    value, error = jackknife(gains, amounts, unit)
    spikes = int(amounts.sum()) if unit == "bits/spike" else 0
    return Score(value, error, unit, spikes, len(blocks), gains, amounts, blocks)


def jackknife(gains: Tensor, amounts: Tensor, unit: str) -> tuple[float, float]:
    """Ratio of sums, in `unit`, and its delete-one-block standard error (infinite if one block holds it all)."""
    scale = math.log(2) if unit == "bits/spike" else 1.0
    value = float(gains.sum() / amounts.sum()) / scale
    left = amounts.sum() - amounts
    if bool((left <= 0).any()):
        return value, math.inf
    without = (gains.sum() - gains) / left / scale
    number = gains.numel()
    variance = (number - 1) / number * (without - without.mean()).square().sum()
    return value, float(variance.sqrt())
