"""When a fit ends early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from latentrnn.support.arguments import LARGEST_COUNT, check_names, check_number, check_size, is_integer, settle


@dataclass(frozen=True)
class EarlyStopping:
    """Stop once the validation ELBO has not improved for `patience` evaluations in a row; keep the best weights.

    In a fit of no given number of steps an improvement counts where it exceeds the error of the difference, taken over
    sequences with the same draws, and is worth waiting for: 2% of the standard error that the score has anyway.
    Patience grows up to fourfold with the scatter of evaluations. When it is over, the learning rate falls and the fit
    goes on from the best weights; it ends when that brought nothing. Without validation sequences the bound of up to
    256 training sequences is judged, at averaged weights: it must have come to rest (split R-hat, drift), and gains
    count down to 0.05 nats of the whole data for each number that is learned.

    Args:
        every: steps between evaluations.
        patience: evaluations; None never stops early (the best weights are kept all the same).
        num_particles: draws per evaluation.
        max_steps: a limit of a fit of no given number of steps, by default 50,000.
        max_time: a limit of any fit, seconds, those before a resume with them; with it alone, steps have none.
        monitor: names of heads whose log-likelihood on validation sequences, E_q[log p(y | z)], decides in the place of
            the ELBO when to stop and which weights to keep: of one outcome beside hundreds of measurements, which weigh
            more in the sum. The encoder must not see them. The history has the ELBO all the same.

    Raises:
        ValueError: a value below one, or no time at all.
        TypeError: a `monitor` that is no list of names.

    References:
        Dhaka, Catalina, Andersen, Magnusson, Huggins, Vehtari. Robust, accurate stochastic optimization for variational
        inference. 2020.
        Welandawe, Andersen, Vehtari, Huggins. A framework for improving the reliability of black-box variational
        inference. 2022.
    """

    every: int = 25
    patience: int | None = 12
    num_particles: int = 4
    max_steps: int | None = None
    max_time: float | None = None
    monitor: Sequence[str] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.patience is not None and (not is_integer(self.patience) or self.patience < 1):
            raise ValueError(f"EarlyStopping: patience must be at least 1 or None, and whole; found {self.patience!r}")
        if self.max_steps is not None:
            settle(self, max_steps=check_size("EarlyStopping", "max_steps", self.max_steps, most=LARGEST_COUNT))
        if self.max_time is not None:
            settle(self, max_time=check_number("EarlyStopping", "max_time", self.max_time, above=0, finite=False))
        settle(
            self,
            every=_count("EarlyStopping", "every", self.every),
            patience=None if self.patience is None else int(self.patience),
            num_particles=_count("EarlyStopping", "num_particles", self.num_particles),
            monitor=tuple(check_names("EarlyStopping", "monitor", self.monitor)),
        )


def _count(owner: str, name: str, value: Any) -> int:
    check_number(owner, name, value, above=0)
    return check_size(owner, name, value)
