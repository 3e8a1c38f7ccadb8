"""Scores of what comes of a whole sequence: discrimination, calibration, order of events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentrnn.criticism.scores import Score, Unit, jackknife, one_step_ahead_log_likelihood
from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.plotting.calibration import reliability as draw_reliability
from latentrnn.support.arguments import check_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 1024  # of pairs of sequences, compared at once


def auroc(probability: Any, outcome: Any, mask: Any = None) -> Score:
    """Area under the receiver operating characteristic: how often, of a pair, the one it happened to had more risk.

        A = mean over pairs (i, j), y_i = 1, y_j = 0, of 1[p_i > p_j] + 1[p_i = p_j] / 2

    The standard error leaves out one sequence at a time. `paired_difference` of two models on the same sequences has
    that of the difference, which is smaller than those of the areas.

    Args:
        probability: of the outcome, or any score that is larger where it is more likely, (sequence,) or (sequence, 1).
        outcome: 0 or 1, likewise; NaN is not scored.
        mask: booleans, likewise, True where scored.

    Raises:
        ValueError: shapes that differ, outcomes other than 0 and 1, or fewer than two of either.

    References:
        J. Hanley, B. McNeil (1982), The meaning and use of the area under a receiver operating characteristic (ROC)
        curve, Radiology. E. DeLong, D. DeLong, D. Clarke-Pearson (1988), Comparing the areas under two or more
        correlated receiver operating characteristic curves: a nonparametric approach, Biometrics.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).value
    0.75
    """
    risk, happened, rows = _read("probability", probability, outcome, mask)
    positive, negative = risk[happened], risk[~happened]
    numbers = len(positive), len(negative)
    if min(numbers) < 2:
        raise ValueError(f"outcome: expected at least two of 0 and of 1, found {numbers[1]} and {numbers[0]}")
    won_by, lost_to = _share_below(positive, negative), 1.0 - _share_below(negative, positive)
    area = float(won_by.mean())
    without = torch.empty_like(risk)
    without[happened] = (numbers[0] * area - won_by) / (numbers[0] - 1)
    without[~happened] = (numbers[1] * area - lost_to) / (numbers[1] - 1)
    return _left_out(area, without, "AUROC", rows)


def brier_score(probability: Any, outcome: Any, mask: Any = None) -> Score:
    """Mean squared distance of stated probabilities and outcomes; smaller is better.

        B = mean (p - y)^2

    Args:
        probability: of the outcome, from 0 to 1, (sequence,) or (sequence, 1).
        outcome, mask: as in `auroc`.

    Raises:
        ValueError: shapes that differ, probabilities out of range, or outcomes other than 0 and 1.

    References:
        G. Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather Review.

    >>> brier_score([0.5, 1.0], [0, 1]).value
    0.125
    """
    stated, happened, rows = _read("probability", probability, outcome, mask)
    _refuse_improper(stated)
    gains = (stated - happened.to(stated)).square()
    value, error = jackknife(gains, torch.ones_like(gains), "Brier")
    return Score(value, error, "Brier", 0, len(gains), gains, torch.ones_like(gains), rows)


def concordance(risk: Any, time: Any, observed: Any) -> Score:
    """Harrell's C of times to an event, some of which are censored: how often who had more risk came first.

    Of two sequences it is known who came first where the earlier time is that of an event; equal risks count half.

    Args:
        risk: larger where the event comes sooner, (sequence,) or (sequence, 1).
        time: of the event, or of the end of observation, likewise.
        observed: whether the event was seen, likewise.

    Raises:
        ValueError: shapes that differ, times that are not finite, or no pair of which it is known who came first.

    References:
        F. Harrell, R. Califf, D. Pryor, K. Lee, R. Rosati (1982), Evaluating the yield of medical tests, JAMA.

    >>> concordance([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1, 1, 0]).value
    1.0
    """
    scores, events, rows = _read("risk", risk, observed, None)
    times = _flat("time", time)
    if times.shape != scores.shape or not bool(times.isfinite().all()):
        raise ValueError(f"time: expected {len(scores)} finite numbers, found shape {tuple(times.shape)}")
    right, known = torch.zeros_like(scores), torch.zeros_like(scores)  # of the pairs of each sequence
    for start in range(0, len(scores), ROWS):
        chosen = slice(start, start + ROWS)
        first = events[chosen, None] & (times[chosen, None] < times)
        ahead = (scores[chosen, None] > scores).to(scores) + 0.5 * (scores[chosen, None] == scores)
        won, told = ahead * first, first.to(scores)
        right[chosen] += won.sum(1)
        known[chosen] += told.sum(1)
        right += won.sum(0)
        known += told.sum(0)
    pairs = float(known.sum() / 2)
    if not pairs:
        raise ValueError("observed: expected an event before the end of another sequence, found none")
    without = (right.sum() / 2 - right) / (pairs - known)
    return _left_out(float(right.sum() / 2) / pairs, without, "concordance", rows)


@dataclass(frozen=True)
class Reliability:
    """Stated probabilities against how often it happened, in bins of as many sequences each.

    Attributes:
        stated: mean probability of each bin, (bin,).
        happened: share to which it happened, (bin,).
        low, high: 90% interval of that share, (bin,), by Jeffreys' prior.
        counts: sequences of each bin, (bin,).
        error: mean distance of `stated` and `happened`, weighted by `counts`.
    """

    stated: Tensor
    happened: Tensor
    low: Tensor
    high: Tensor
    counts: Tensor
    error: float

    def __repr__(self) -> str:
        sizes = f"{int(self.counts.sum())} sequences in {len(self.counts)} bins"
        return f"Reliability({sizes}, mean distance {self.error:.3f})"

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the shares with their intervals against the diagonal; see `latentrnn.plotting.reliability`."""
        return draw_reliability(self, ax=ax)


def reliability(probability: Any, outcome: Any, mask: Any = None, *, bins: int = 10) -> Reliability:
    """Compare stated probabilities with how often it happened.

    Args:
        probability, outcome, mask: as in `brier_score`.
        bins: how many, of as many sequences each.

    Raises:
        ValueError: as of `brier_score`, or fewer sequences than bins.

    References:
        A. Murphy, R. Winkler (1977), Reliability of subjective probability forecasts of precipitation and temperature,
        Applied Statistics. L. Brown, T. Cai, A. DasGupta (2001), Interval estimation for a binomial proportion,
        Statistical Science.
    """
    stated, happened, _ = _read("probability", probability, outcome, mask)
    _refuse_improper(stated)
    bins = check_size("reliability", "bins", bins)
    if len(stated) < bins:
        raise ValueError(f"reliability: expected at least as many sequences as bins, found {len(stated)} and {bins}")
    order = stated.argsort(stable=True)
    parts = [(stated[rows], happened[rows].to(stated)) for rows in order.tensor_split(bins)]
    counts = torch.tensor([len(values) for values, _ in parts])
    mean = torch.stack([values.mean() for values, _ in parts])
    share = torch.stack([seen.mean() for _, seen in parts])
    low, high = _jeffreys(share * counts, counts)
    error = float(((mean - share).abs() * counts).sum() / counts.sum())
    return Reliability(mean, share, low, high, counts, error)


def bits_per_symbol(one_step_ahead: Any, *, block_length: int | None = None) -> Score:
    """Mean surprisal of the next symbol given those before, -log2 p(y_t | y_<t), in bits; smaller is better.

    Arguments and standard error as in `one_step_ahead_bits_per_spike`.

    References:
        C. Shannon (1951), Prediction and entropy of printed English, Bell System Technical Journal.
    """
    score = one_step_ahead_log_likelihood(one_step_ahead, block_length=block_length)
    gains = -score.gains / math.log(2)
    value, error = jackknife(gains, score.amounts, "bits/symbol")
    return Score(value, error, "bits/symbol", 0, score.num_blocks, gains, score.amounts, score.blocks)


def _left_out(value: float, without: Tensor, unit: Unit, rows: tuple[tuple[Any, int], ...]) -> Score:
    """A score from its values without each of the sequences."""
    number = len(without)
    error = float(((number - 1) / number * (without - without.mean()).square().sum()).sqrt())
    pseudo = number * value - (number - 1) * without  # whose mean is the score, and whose differences are paired
    return Score(value, error, unit, 0, number, pseudo, torch.ones_like(pseudo), rows)


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    """Which share of `others` lies below each value, equal ones counted half."""
    ordered = others.sort().values
    below, upto = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return (below + upto).to(values) / (2 * len(others))


def _jeffreys(successes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of central 90% intervals of shares."""
    from scipy.stats import beta  # which ArviZ brings

    a, b = successes.numpy() + 0.5, (counts - successes).numpy() + 0.5
    return torch.from_numpy(beta.ppf(0.05, a, b)), torch.from_numpy(beta.ppf(0.95, a, b))


def _read(name: str, values: Any, outcome: Any, mask: Any) -> tuple[Tensor, Tensor, tuple[tuple[Any, int], ...]]:
    """Numbers in float64 and booleans of the scored sequences, and which these are."""
    numbers, seen = _flat(name, values), _flat("outcome", outcome)
    if numbers.shape != seen.shape:
        raise ValueError(f"outcome: expected shape {tuple(numbers.shape)} as {name}, found {tuple(seen.shape)}")
    scored = ~seen.isnan()
    if mask is not None:
        given = to_tensor("mask", mask)
        if given.dtype != torch.bool or given.numel() != scored.numel():
            raise ValueError(f"mask: expected {scored.numel()} booleans, found shape {tuple(given.shape)}")
        scored = scored & given.flatten()
    numbers, seen = numbers[scored], seen[scored]
    if not bool(((seen == 0) | (seen == 1)).all()):
        raise ValueError(f"outcome: expected 0 or 1, found {float(seen[(seen != 0) & (seen != 1)][0]):g}")
    if not bool(numbers.isfinite().all()):
        bad = float(numbers[~numbers.isfinite()][0])
        raise ValueError(f"{name}: expected finite numbers of what is scored, found {bad:g}")
    if len(numbers) < 2:
        raise ValueError(f"outcome: expected at least two sequences, found {len(numbers)}")
    return numbers, seen == 1, tuple((row, 0) for row in scored.nonzero()[:, 0].tolist())


def _flat(name: str, values: Any) -> Tensor:
    found = to_tensor(name, values).to(torch.float64)
    if found.dim() == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.dim() != 1:
        raise ValueError(f"{name}: expected one value per sequence, (sequence,), found shape {tuple(found.shape)}")
    return found


def _refuse_improper(stated: Tensor) -> None:
    if not bool(((stated >= 0) & (stated <= 1)).all()):
        worst = stated[(stated < 0) | (stated > 1)][0]
        raise ValueError(f"probability: expected numbers from 0 to 1, found {float(worst):g}")
