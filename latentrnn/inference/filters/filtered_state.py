"""What an online filter says after a step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FilteredState:
    """What is known after a step, in the data's units and nats.

    Attributes:
        step: the step, counted from zero.
        values: what was drawn at it (u_t or z_t), (particle, dim), or the guide's mean; None where nothing is.
        states: what readouts see, (particle, dim); without particles the rollout of the guide's means.
        weights: of the particles given everything up to and with this step, (particle,).
        rates: head to E[y_t | y_{<=t}], (channel,).
        predicted: head to E[y_t | y_{<t}]; {} without particles.
        log_prob: log p(y_t | y_{<t}), all heads jointly; None without particles.
        effective_sample_size: None without particles.
        spread: covariance of `values` as the guide says, (dim, dim); None with particles.
    """

    step: int
    values: Tensor | None
    states: Tensor
    weights: Tensor
    rates: dict[str, Tensor]
    predicted: dict[str, Tensor]
    log_prob: float | None
    effective_sample_size: float | None
    spread: Tensor | None = None

    def __repr__(self) -> str:
        particles = "no particles"
        if self.log_prob is not None and self.effective_sample_size is not None:
            size = f"effective sample size {self.effective_sample_size:.1f} of {len(self.weights)}"
            particles = f"log p(y_t | y_<t) {self.log_prob:.3g} nats, {size}"
        return f"FilteredState(step {self.step}, {particles}, rates of {list(self.rates)})"

    @property
    def mean(self) -> Tensor:
        """E of what was drawn at this step (of what readouts see, where nothing was), (dim,)."""
        drawn = self.states if self.values is None else self.values
        return self.weights @ drawn

    @property
    def covariance(self) -> Tensor:
        """Covariance of the same, (dim, dim)."""
        if self.spread is not None:
            return self.spread
        drawn = self.states if self.values is None else self.values
        centred = drawn - self.mean
        return (self.weights.unsqueeze(-1) * centred).mT @ centred
