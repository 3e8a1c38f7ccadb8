"""Parts of a user's own, through which something happens to a fit at a step of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import pytest
import torch
from torch import Tensor

import latentrnn as lr


class Killed(BaseException):
    """Ends a fit at once, as a signal would: nothing catches it."""


class WarmUp(lr.KLWarmUp):
    """The usual warm-up, which a fit asks for its weight at the beginning of every step, before anything else.

    Its class stands for what happens from outside, of which a checkpoint must know nothing.

    Attributes:
        step: where the fit is.
        before: called with the number of a step that begins.
    """

    step: ClassVar[int] = -1
    before: ClassVar[Callable[[int], Any]] = staticmethod(lambda step: None)

    def weight(self, step: int, steps: int) -> float:
        type(self).step = step
        self.before(step)
        return super().weight(step, steps)


def before_steps(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], Any]) -> None:
    """Call `act` with the number of every step that begins, in fits with a `WarmUp`."""
    monkeypatch.setattr(WarmUp, "before", staticmethod(act))


def dying(at: int) -> Callable[[int], None]:
    """Ends a fit at the beginning of a step, and of those after it."""

    def die(step: int) -> None:
        if step >= at:
            raise Killed

    return die


def interrupting(at: int) -> Callable[[int], None]:
    """Ctrl-C at the beginning of a step."""

    def interrupt(step: int) -> None:
        if step == at:
            raise KeyboardInterrupt

    return interrupt


def never(step: int) -> NoReturn:
    raise AssertionError(f"step {step} was taken")


class Spoiled(lr.ELBO):
    """The ELBO, whose KL of one site is no number at some steps. It wants a `WarmUp`, which knows them.

    Attributes:
        steps: at which it is spoiled.
        site: whose KL is.
    """

    steps: ClassVar[tuple[int, ...]] = ()
    site: ClassVar[str] = "innovations"
    name = "elbo"

    def step(self, at: Any) -> Any:
        found = super().step(at)
        if self.kl.step not in self.steps or not torch.is_grad_enabled():
            return found
        terms = found.terms._replace(kl=found.terms.kl | {self.site: found.terms.kl[self.site] * math.nan})
        return found._replace(surrogate=found.surrogate * math.nan, terms=terms)


class Watched(lr.AdamW):
    """AdamW, whose user keeps the optimizer that torch gets.

    Attributes:
        built: the newest one.
        parameters: of model and guide, in their order.
        gradient, stepped: the gradient that its last step was given, and the weights after it.
    """

    built: ClassVar[torch.optim.Optimizer]
    parameters: ClassVar[list[Tensor]]
    gradient: ClassVar[list[Tensor]]
    stepped: ClassVar[list[Tensor]]

    def build(self, weights: Any, exempt: Any = ()) -> torch.optim.Optimizer:
        optimizer = super().build(weights, exempt)
        own = type(self)
        own.built, own.parameters = optimizer, list(weights)
        optimizer.register_step_pre_hook(lambda *_: setattr(own, "gradient", [p.grad.clone() for p in weights]))
        optimizer.register_step_post_hook(lambda *_: setattr(own, "stepped", copies(weights)))
        return optimizer

    @classmethod
    def everything(cls) -> dict[str, Tensor]:
        """Copies of weights and moments."""
        moments = (cls.built.state[p] for p in cls.parameters)
        found = {f"weight {k}": value for k, value in enumerate(copies(cls.parameters))}
        return found | {f"{k} {n}": v.clone() for k, state in enumerate(moments) for n, v in state.items()}


def copies(weights: Any) -> list[Tensor]:
    return [p.detach().clone() for p in weights]


class Struck(lr.LinearReadout):
    """A linear readout whose baselines are struck at some steps of training. It wants a `WarmUp`, which knows them.

    Attributes:
        blow: what becomes of a baseline at a step.
    """

    blow: ClassVar[Callable[[int, Tensor], Tensor]] = staticmethod(lambda step, baseline: baseline)

    def forward(self, states: Tensor, surroundings: Any = None) -> Tensor:
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.baseline.copy_(self.blow(WarmUp.step, self.baseline))
        return super().forward(states, surroundings)
