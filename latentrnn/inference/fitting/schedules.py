"""How a fit moves: optimiser, learning rate, weight of the KL term, when to stop. Plain descriptions, no state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from latentrnn.support.arguments import (
    check_integer,
    check_learning_rate,
    check_number,
    check_size,
    is_integer,
    is_number,
    settle,
)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay on weight matrices (never on biases, scales or priors' parameters).

    Args:
        learning_rate: the largest step size.
        weight_decay: decay per unit of learning rate; 0 is plain Adam.
        clip_norm: largest norm of the gradient of the ELBO per scored step; where batches have K windows on average,
            K times as much for the step of each, of which the average counts. Infinity never clips.
        betas: decay rates of the moments, two numbers in [0, 1).
        averaging: decay per step of an exponential moving average of the weights, which is then what is evaluated
            and kept, e.g. 0.99; 0 keeps the weights themselves.

    Raises:
        ValueError: a value out of range.

    References:
        Loshchilov, Hutter. Decoupled weight decay regularization. 2019.
        Polyak, Juditsky. Acceleration of stochastic approximation by averaging. 1992.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    averaging: float = 0.0

    def __post_init__(self) -> None:
        owner = type(self).__name__
        settle(
            self,
            learning_rate=check_learning_rate(owner, self.learning_rate),
            weight_decay=check_number(owner, "weight_decay", self.weight_decay, least=0),
            clip_norm=check_number(owner, "clip_norm", self.clip_norm, above=0, finite=False),
            betas=_two_rates(owner, self.betas),
            averaging=check_number(owner, "averaging", self.averaging, least=0, below=1),
        )

    def build(self, weights: Sequence[nn.Parameter], exempt: Sequence[nn.Parameter] = ()) -> torch.optim.Optimizer:
        """Return the torch optimiser over `weights`, of which those in `exempt` never decay."""
        spared = {id(p) for p in exempt} | {id(p) for p in weights if p.dim() <= 1}
        groups = [
            {"params": [p for p in weights if id(p) not in spared], "weight_decay": self.weight_decay},
            {"params": [p for p in weights if id(p) in spared], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, eps=1e-8, fused=True)


@dataclass(frozen=True)
class Adam(AdamW):
    """Adam without weight decay. Arguments: see `AdamW`.

    References:
        Kingma, Ba. Adam: a method for stochastic optimization. 2015.
    """

    weight_decay: float = 0.0


@dataclass(frozen=True)
class Constant:
    """A learning rate that stays."""

    def factor(self, step: int, steps: int, stale: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`; `stale` counts bad evaluations."""
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """A learning rate that rises linearly and then falls along half a cosine.

    Args:
        rise: steps of linear rise.
        final: fraction of the largest rate at the end, in [0, 1].

    Raises:
        ValueError: a value out of range.
    """

    rise: int = 20
    final: float = 0.02

    def __post_init__(self) -> None:
        settle(
            self,
            rise=check_integer("Cosine", "rise", self.rise),
            final=check_number("Cosine", "final", self.final, least=0, most=1),
        )

    def factor(self, step: int, steps: int, stale: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`; `stale` counts bad evaluations."""
        if step < self.rise:
            return (step + 1) / self.rise
        progress = (step - self.rise) / max(steps - self.rise, 1)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True)
class Plateau:
    """A learning rate that falls by `factor_per_fall` after `patience` evaluations without a better validation ELBO.

    Args:
        patience: evaluations.
        factor_per_fall: of the learning rate, in (0, 1).

    Raises:
        ValueError: a value out of range.
    """

    patience: int = 4
    factor_per_fall: float = 0.5

    def __post_init__(self) -> None:
        settle(
            self,
            patience=check_integer("Plateau", "patience", self.patience, least=1),
            factor_per_fall=check_number("Plateau", "factor_per_fall", self.factor_per_fall, above=0, below=1),
        )

    def factor(self, step: int, steps: int, stale: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`; `stale` counts bad evaluations."""
        return self.factor_per_fall ** (stale // self.patience)


@dataclass(frozen=True)
class KLWarmUp:
    """Weight of the KL term: linear from `start` to one over the first `fraction` of the steps, and one from then on.

    Args:
        fraction: part of the steps, in [0, 1); 0 switches the warm-up off.
        start: weight at step 0, in [0, 1].

    Raises:
        ValueError: a fraction that would leave no step at the true ELBO, or a weight out of range.

    References:
        Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio. Generating sentences from a continuous space. 2016.
    """

    fraction: float = 0.2
    start: float = 0.01

    def __post_init__(self) -> None:
        if not is_number(self.fraction) or not 0 <= self.fraction < 1:
            raise ValueError(
                f"KLWarmUp: fraction must be in [0, 1), so that the fit ends at the ELBO; found {self.fraction!r}"
            )
        settle(
            self,
            fraction=float(self.fraction),
            start=check_number("KLWarmUp", "start", self.start, least=0, most=1),
        )

    def weight(self, step: int, steps: int) -> float:
        """Return the weight at `step` of `steps`."""
        last = self.fraction * steps
        return 1.0 if step >= last else self.start + (1 - self.start) * step / last


@dataclass(frozen=True)
class EarlyStopping:
    """Stop once the validation ELBO has not improved for `patience` evaluations in a row; keep the best weights.

    Args:
        every: steps between evaluations.
        patience: evaluations; None never stops early (the best weights are kept all the same).
        num_particles: draws per evaluation.

    Raises:
        ValueError: a value below one.
    """

    every: int = 25
    patience: int | None = 12
    num_particles: int = 4

    def __post_init__(self) -> None:
        if self.patience is not None and (not is_integer(self.patience) or self.patience < 1):
            raise ValueError(f"EarlyStopping: patience must be at least 1 or None, and whole; found {self.patience!r}")
        settle(
            self,
            every=_count("EarlyStopping", "every", self.every),
            patience=None if self.patience is None else int(self.patience),
            num_particles=_count("EarlyStopping", "num_particles", self.num_particles),
        )


@dataclass(frozen=True)
class Rollback:
    """What a fit does when its loss is no longer a number, or explodes: go back, and on with smaller steps.

    Weights, the optimiser's moments and the average go back by at least ten steps; batches, random numbers and
    schedules go on, so that the number of steps is what it was. Every time is in `FitResult.events`.

    Args:
        times: how often in one fit; after that it stops, and keeps what was learnt. 0 stops at the first sight.
        factor: of the learning rate, from then on.
        tolerance: the loss explodes when the median of ten steps exceeds the 95% quantile of the 200 steps before by
            this many times their spread (the scaled median absolute deviation, at least 0.1 nats per scored step);
            infinity looks for non-finite losses alone.

    Raises:
        ValueError: a value out of range.
    """

    times: int = 3
    factor: float = 0.5
    tolerance: float = 20.0

    def __post_init__(self) -> None:
        if not is_integer(self.times) or self.times < 0:
            raise ValueError(f"Rollback: times must be a whole number, at least 0; found {self.times!r}")
        if not is_number(self.factor) or not 0 < self.factor < 1:
            raise ValueError(f"Rollback: factor must be between 0 and 1; found {self.factor!r}")
        settle(
            self,
            times=int(self.times),
            factor=float(self.factor),
            tolerance=check_number("Rollback", "tolerance", self.tolerance, above=0, finite=False),
        )


def _count(owner: str, name: str, value: Any) -> int:
    check_number(owner, name, value, above=0)
    return check_size(owner, name, value)


def _two_rates(owner: str, betas: Any) -> tuple[float, float]:
    listed = isinstance(betas, Sequence | np.ndarray) and not isinstance(betas, str) and getattr(betas, "ndim", 1) == 1
    if not listed or len(betas) != 2:
        raise ValueError(f"{owner}: betas must be two numbers in [0, 1); found {betas!r}")
    first, second = (check_number(owner, f"betas[{i}]", value, least=0, below=1) for i, value in enumerate(betas))
    return first, second
