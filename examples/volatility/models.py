"""Models of daily returns that remember how large they have been, and how they are fitted."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import pyro.distributions as dist
import torch

import latentrnn as lr
from examples.simulate import Array
from examples.volatility.cells import SIZE, AdaptiveMemories

CONTEXT, WINDOW = 200, 100  # days that set the state, and that a training window scores after them
SPREAD = 0.5  # of the priors


class Attempt(NamedTuple):
    """What a model remembers, and what its gates read."""

    memories: int
    adaptive: bool = True
    leverage: bool = False
    course: bool = False


ATTEMPTS = {
    "one memory": Attempt(1, adaptive=False),
    "one memory, adaptive, leverage": Attempt(1, leverage=True),
    "three, adaptive": Attempt(3),
    "three, adaptive, leverage": Attempt(3, leverage=True),
    "three, adaptive, leverage, course": Attempt(3, leverage=True, course=True),
}


def as_sequence(returns: Array, **covariates: Array) -> lr.SequenceData:
    """Return all days as one sequence, with covariates "before", the return of the day before, and "size" of it."""
    before = np.concatenate([[0.0], returns[:-1]])
    known = {"before": before, "size": np.abs(before)} | covariates
    known = {name: values[None, :, None] for name, values in known.items()}
    return lr.SequenceData.from_arrays({"returns": returns[None, :, None]}, known, dtype=torch.float64)


def fifths(data: lr.SequenceData) -> tuple[lr.SequenceData, ...]:
    """Return the first three fifths of the days, the fourth, the last, and the first four, each after a context."""
    train, validation, test = data.split(0.6, 0.2, 0.2, along="time", context=CONTEXT)
    return train, validation, test, data.split(0.8, 0.1, 0.1, along="time", context=CONTEXT)[0]


def remembering(data: lr.SequenceData, attempt: Attempt, tails: str, covariates: tuple[str, ...] = ()) -> lr.LatentRNN:
    """Return the model of the demo, with priors about averages over days to months and gates that stand still."""
    number = attempt.memories
    rest = torch.linspace(1.0, 4.5, number) if number > 1 else torch.tensor([2.5])
    reads = {"shock": attempt.adaptive, "leverage": attempt.leverage}
    priors = {name: dist.Normal(0.0, SPREAD) for name, there in reads.items() if there}
    weight = dist.Normal(
        torch.tensor([[0.9 / number] * number + [0.0] * number]).double(),
        torch.tensor([[SPREAD] * number + [SPREAD if attempt.course else 1e-3] * number]).double(),
    )
    returns = lr.Volatility(
        tails, covariates=covariates, priors={"weight": weight, "baseline": dist.Normal(0.0, SPREAD)}
    )
    return lr.LatentRNN(
        data.spec,
        transition=AdaptiveMemories(
            number,
            priors={"rest": dist.Normal(rest.double(), SPREAD)} | priors,
            fixed={name: 0.0 for name, there in reads.items() if not there},
        ),
        latent=lr.Deterministic(fixed={"initial_state": [SIZE] * number + [0.0] * number}),
        observations={"returns": returns},
        inputs=["before"],
    )


def fitted(model: lr.LatentRNN, days: lr.SequenceData, steps: int) -> lr.FitResult:
    """Return the mode of the posterior, from windows of days: no memory here is longer than their context."""
    guide = lr.Guide(model, global_family="point")
    settings = {"optimizer": lr.AdamW(0.05, weight_decay=0.0), "reporting": lr.Reporting(progress=False)}
    return lr.fit(model, guide, days.windows(WINDOW, context=CONTEXT), steps=steps, **settings)


def free(days: lr.SequenceData, choose: lr.SequenceData, tails: str) -> lr.FitResult:
    """Return a free LSTM with coupled gates that reads return and size, fitted with all settings left as they are."""
    model = lr.LatentRNN(
        days.spec,
        transition=lr.CoupledGateLSTM(8),
        latent=lr.Deterministic(),
        observations={"returns": lr.Volatility(tails)},
        inputs=["before", "size"],
    )
    cut = [each.windows(WINDOW, context=CONTEXT) for each in (days, choose)]
    return lr.fit(model, lr.Guide(model), *cut, reporting=lr.Reporting(progress=False))


def gates(result: lr.FitResult, days: lr.SequenceData) -> Array:
    """Return the forget gates, (day, memory or unit)."""
    model = copy.deepcopy(result.model)
    with torch.no_grad():
        for name, value in result.posterior(days).parameters(1).items():
            if name.startswith("transition."):
                getattr(model.transition, name.removeprefix("transition.")).copy_(value[0])
        run = model.transition.record(model.transition_inputs(days), model.latent.initial_state)
    return run.gates["forget"][0].numpy()


def about_shocks(forget: Array, returns: Array) -> tuple[Array, Array, Array]:
    """Return days from a shock, and the forget gates' mean over memories and shocks, with its error.

    Shocks are the 2% of the days with the largest returns, up or down, in units of the mean size of the 20 days before.
    The gate of day 1 is the first that can read them.
    """
    size = np.abs(returns)
    usual = np.convolve(size, np.full(20, 1 / 20))[19 : len(size) - 1]  # of the 20 days before day 20, 21, ...
    relative = np.concatenate([np.zeros(20), size[20:] / usual])
    lags = np.arange(-10, 16)
    shocks = np.flatnonzero(relative > np.quantile(relative, 0.98))
    shocks = shocks[shocks < len(size) - lags[-1]]
    around = forget.mean(-1)[shocks[:, None] + lags]
    return lags, around.mean(0), around.std(0) / np.sqrt(len(shocks))
