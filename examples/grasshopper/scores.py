"""Regressions and state-space models scored by one code, and their table."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from baselines import BLOCK, Baseline

import latentrnn as lr


def as_one_step_ahead(baseline: Baseline, like: lr.OneStepAhead) -> lr.OneStepAhead:
    """A regression's densities on the test stretch, laid out like a model's, so that both are scored by one code."""
    context = like.log_prob.shape[1] - len(baseline.log_prob)

    def padded(values: np.ndarray) -> torch.Tensor:
        whole = torch.zeros(like.log_prob.shape, dtype=torch.float64)
        whole[0, context:, 0] = torch.as_tensor(values)
        return whole

    return dataclasses.replace(like, log_prob=padded(baseline.log_prob), mean=padded(baseline.rate))


def format_scores(name: str, ahead: dict[str, lr.OneStepAhead]) -> str:
    """One row per model: bits per spike, its block standard error, and the paired difference to the best regression."""
    scores = {n: lr.one_step_ahead_bits_per_spike(a, block_length=BLOCK) for n, a in ahead.items()}
    best = max((n for n in scores if n.startswith("GLM")), key=lambda n: scores[n].value)
    lines = [
        f"{name}: bits per spike of the last 20%, one step ahead (standard errors over blocks of {BLOCK} ms)",
        f"{'model':<60} bits/spike  (s.e.)   less the best GLM (s.e.)",
    ]
    for n, score in scores.items():
        difference = lr.paired_difference(score, scores[best])
        gap = "" if n == best else f"{difference.value:+17.3f}  ({difference.standard_error:.3f})"
        lines.append(f"{n:<60} {score.value:10.3f}  ({score.standard_error:.3f}) {gap}".rstrip())
    return "\n".join(lines)
