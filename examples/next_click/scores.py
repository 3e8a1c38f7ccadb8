"""Densities of the next click, of whatever they come from, in one layout, so that one code scores them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

import latentrnn as lr
from examples.next_click.baselines import MarkovChain
from examples.next_click.data import Clicks


def by_networks(results: Sequence[lr.FitResult], test: lr.SequenceData) -> lr.OneStepAhead:
    """Return log-densities of test clicks, averaged over fits."""
    found = [result.posterior(test).one_step_ahead("click") for result in results]
    return dataclasses.replace(found[0], log_prob=torch.stack([each.log_prob.double() for each in found]).mean(0))


def by_chain(chain: MarkovChain, sequences: Clicks, like: lr.OneStepAhead) -> lr.OneStepAhead:
    """Return those of a chain."""
    found = np.concatenate([chain.log_prob(sequence) for sequence in sequences])
    return _laid_out(torch.from_numpy(found), like)


def by_memory(result: lr.FitResult, test: lr.SequenceData, seen: int, like: lr.OneStepAhead) -> lr.OneStepAhead:
    """Return those of a network that begins anew so many clicks before every one."""
    found = result.posterior(test.windows(1, context=seen)).one_step_ahead("click")
    return _laid_out(found.log_prob[found.scored], like)


def _laid_out(values: torch.Tensor, like: lr.OneStepAhead) -> lr.OneStepAhead:
    log_prob = torch.zeros_like(like.log_prob, dtype=torch.float64)
    log_prob[like.scored] = values.double()  # sequence after sequence, step after step
    return dataclasses.replace(like, log_prob=log_prob)


def bits(found: lr.OneStepAhead) -> float:
    """Return bits per click."""
    return -float(lr.one_step_ahead_log_likelihood(found)) / np.log(2)


def saved(one: lr.OneStepAhead, other: lr.OneStepAhead) -> tuple[float, float]:
    """Return how many bits per click `one` needs fewer than `other`, and the standard error of that over visitors."""
    found = lr.paired_difference(*(lr.one_step_ahead_log_likelihood(each) for each in (one, other)))
    return found.value / np.log(2), found.standard_error / np.log(2)


def learned(result: lr.FitResult) -> int:
    """Return how many numbers a fit has learned."""
    return sum(each.numel() for each in result.model.parameters())
