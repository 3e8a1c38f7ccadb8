"""Optimizers, described: step size, decay, clipping, averaging, schedule, and what to do when the loss diverges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from latentrnn.inference.fitting.settings.rollback import Rollback
from latentrnn.inference.guides.guide import Guide
from latentrnn.models.component import Component
from latentrnn.models.readouts import FactorReadout, LinearReadout
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_integer, check_kind_of, check_learning_rate, check_number, settle
from latentrnn.support.deprecations import former_arguments

LAYERS = (nn.Linear, nn.RNNBase, nn.modules.conv._ConvNd)  # of torch, whose weight matrices decay
LEARNING_RATE, LEARNING_RATE_OF_STEPS = 5e-3, 3e-3  # until a fit has converged, and for a number of steps
AVERAGING = 0.99  # of weights, per step, in a fit that goes on until it has converged


@dataclass(frozen=True)
class Constant:
    """A learning rate that stays: lr_s = lr at every step s, whatever the number of steps and evaluations."""

    @former_arguments("Constant.factor")
    def factor(self, step: int, steps: int, evaluations_without_improvement: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`."""
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

    @former_arguments("Cosine.factor")
    def factor(self, step: int, steps: int, evaluations_without_improvement: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`."""
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

    @former_arguments("Plateau.factor")
    def factor(self, step: int, steps: int, evaluations_without_improvement: int) -> float:
        """Return the multiple of the largest learning rate at `step` of `steps`."""
        return self.factor_per_fall ** (evaluations_without_improvement // self.patience)


@dataclass(frozen=True)
class Staircase:
    """A learning rate that rises linearly, holds, and falls whenever the bound has stopped improving at it.

    It needs no number of steps: a fit ends when a fall brought nothing, or after the last one (`fit(steps=None)`).

    Args:
        rise: steps of linear rise.
        factor_per_fall: of the learning rate, in (0, 1).
        falls: at most.

    Raises:
        ValueError: a value out of range.

    References:
        Welandawe, Andersen, Vehtari, Huggins. A framework for improving the reliability of black-box variational
        inference. 2022 (steps that shrink when iterates are stationary, until that brings nothing).
    """

    rise: int = 20
    factor_per_fall: float = 0.25
    falls: int = 4

    def __post_init__(self) -> None:
        settle(
            self,
            rise=check_integer("Staircase", "rise", self.rise),
            factor_per_fall=check_number("Staircase", "factor_per_fall", self.factor_per_fall, above=0, below=1),
            falls=check_integer("Staircase", "falls", self.falls),
        )

    def factor(self, step: int, steps: int, evaluations_without_improvement: int) -> float:
        """Return the multiple of the largest learning rate at `step`, falls apart, which the fit decides about."""
        return min((step + 1) / self.rise, 1.0) if self.rise else 1.0


Schedule = Constant | Cosine | Plateau | Staircase
COSINE, STAIRCASE = Cosine(), Staircase()  # where no schedule is given


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay on the weight matrices of networks.

    Nothing else decays: no bias, scale, gain, filter or embedding, no posterior's parameter, and nothing of a
    transition whose numbers mean something by themselves (`Linear`, `SwitchingLinear`, `DiagonalLinear`,
    `LeakyIntegrator`, `ThermodynamicCell`), nor the loadings that its states have. A component of your own names those
    of its tensors that are to decay in `network_weights`, besides the matrices of torch's layers.

    Args:
        learning_rate: the largest step size. None: 5e-3 in a fit that goes on until it has converged, whose averaged
            weights can do with larger steps, and 3e-3 in one of a given number of steps.
        weight_decay: decay per unit of learning rate; 0 is plain Adam.
        clip_norm: largest norm of the gradient of the ELBO per scored step; where batches have K windows on average,
            K times as much for the step of each, of which the average counts. Infinity never clips.
        betas: decay rates of the moments, two numbers in [0, 1).
        averaging: decay per step of an exponential moving average of the weights, which is then what is evaluated
            and kept, e.g. 0.99; 0 keeps the weights themselves. None: 0.99 in a fit that goes on until it has
            converged, and 0 in one of a given number of steps.
        schedule: of the learning rate: `Constant`, `Cosine`, `Plateau` or `Staircase`. None: `Staircase()` in a fit
            that goes on until it has converged, and `Cosine()` in one of a given number of steps.
        rollback: `Rollback`, what to do about a loss that is non-finite or explodes.

    Raises:
        ValueError: a value out of range.
        TypeError: a schedule or rollback of another kind.

    References:
        Loshchilov, Hutter. Decoupled weight decay regularization. 2019.
        Polyak, Juditsky. Acceleration of stochastic approximation by averaging. 1992.
    """

    learning_rate: float | None = None
    weight_decay: float = 0.3
    clip_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)
    averaging: float | None = None
    schedule: Schedule | None = None
    rollback: Rollback = Rollback()  # noqa: RUF009

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if self.schedule is not None:
            check_kind_of(owner, "schedule", self.schedule, Constant, Cosine, Plateau, Staircase)
        if self.averaging is not None:
            settle(self, averaging=check_number(owner, "averaging", self.averaging, least=0, below=1))
        check_kind_of(owner, "rollback", self.rollback, Rollback)
        settle(
            self,
            learning_rate=None if self.learning_rate is None else check_learning_rate(owner, self.learning_rate),
            weight_decay=check_number(owner, "weight_decay", self.weight_decay, least=0),
            clip_norm=check_number(owner, "clip_norm", self.clip_norm, above=0, finite=False),
            betas=_two_rates(owner, self.betas),
        )

    def resolved(self, steps: int | None) -> Self:
        """Return the same with schedule, averaging and learning rate for a fit of so many steps, or of any number.

        Raises:
            ValueError: a schedule that needs a number of steps and has none, or the other way round.
        """
        if steps is None and isinstance(self.schedule, Cosine):
            raise ValueError(
                f"fit: {self.schedule!r} falls along a known number of steps; give steps=, or leave the schedule out, "
                "which then falls when the bound has stopped improving"
            )
        if steps is not None and isinstance(self.schedule, Staircase):
            raise ValueError(
                f"fit: {self.schedule!r} is for fits that end when they have converged; give "
                f"stopping=EarlyStopping(max_steps={steps}) instead of steps={steps}, or another schedule"
            )
        chosen: dict[str, Any] = {}
        if self.schedule is None:
            chosen["schedule"] = STAIRCASE if steps is None else COSINE
        if self.averaging is None:
            chosen["averaging"] = AVERAGING if steps is None else 0.0
        if self.learning_rate is None:
            chosen["learning_rate"] = LEARNING_RATE if steps is None else LEARNING_RATE_OF_STEPS
        if not chosen:
            return self
        found = copy(self)  # of what was checked, nothing is checked again
        settle(found, **chosen)
        return found

    def build_for(self, model: LatentRNN, guide: Guide) -> torch.optim.Optimizer:
        """Return the torch optimizer over the weights of both.

        In its groups "numbers" say how snapshots call their moments: matrices come first, then vectors and what belongs
        to posteriors of parameters, whatever decays.
        """
        weights = [*model.parameters(), *guide.parameters()]
        sites = guide.parameter_sites
        posteriors = set[int]() if sites is None else {id(p) for p in sites.parameters()}
        ordered = sorted(weights, key=lambda p: p.dim() <= 1 or id(p) in posteriors)
        places = {id(p): place for place, p in enumerate(ordered)}
        found = self.build(weights, network_weights(model, guide))
        for group in found.param_groups:
            group["numbers"] = [places[id(p)] for p in group["params"]]
        return found

    def build(self, weights: Sequence[nn.Parameter], decaying: Sequence[nn.Parameter] = ()) -> torch.optim.Optimizer:
        """Return the torch optimizer over `weights`, of which those in `decaying` decay."""
        decay = {id(p) for p in decaying}
        groups = [
            {"params": [p for p in weights if id(p) in decay], "weight_decay": self.weight_decay},
            {"params": [p for p in weights if id(p) not in decay], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        assert self.learning_rate is not None  # resolved
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, eps=1e-8, fused=True)


@dataclass(frozen=True)
class Adam(AdamW):
    """Adam without weight decay. Arguments: see `AdamW`.

    References:
        Kingma, Ba. Adam: a method for stochastic optimization. 2015.
    """

    weight_decay: float = 0.0


def network_weights(model: LatentRNN, guide: Guide) -> list[nn.Parameter]:
    """Return the weight matrices of the networks of a model and its guide, in order: what decays.

    These are those of torch's layers and those that a component names (`Component.network_weights`). Under a transition
    that is no network, the loadings that states have in linear readouts, and the map that they start by, are none
    either.
    """
    spared: set[int] = set()
    if not model.transition.is_network:
        loadings = [part for part in model.modules() if isinstance(part, LinearReadout | FactorReadout)]
        spared = {id(p) for part in (model.latent, *loadings) for p in part.parameters()}
    return [weight for weight in (*_matrices(model), *_matrices(guide)) if id(weight) not in spared]


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    if isinstance(module, Component) and not module.is_network:
        return []
    own = list(module.named_parameters(recurse=False))
    if isinstance(module, LAYERS):
        found = [tensor for name, tensor in own if name.startswith("weight") and tensor.dim() > 1]
    else:
        names = module.network_weights if isinstance(module, Component) else ()
        found = [tensor for name, tensor in own if name in names]
    return found + [weight for child in module.children() for weight in _matrices(child)]


def _two_rates(owner: str, betas: Any) -> tuple[float, float]:
    listed = isinstance(betas, Sequence | np.ndarray) and not isinstance(betas, str) and getattr(betas, "ndim", 1) == 1
    if not listed or len(betas) != 2:
        raise ValueError(f"{owner}: betas must be two numbers in [0, 1); found {betas!r}")
    first, second = (check_number(owner, f"betas[{i}]", value, least=0, below=1) for i, value in enumerate(betas))
    return first, second
