"""What an online filter says after a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FilteredState:
    """What is known after a step, in the data's units and nats.

    Where a filter carries draws of the parameters along, each has particles of its own, which follow those of the
    draw before it on the axis of particles; without particles there is one row for each draw. The states of
    `LinearGaussian` are followed exactly, without particles.

    Attributes:
        step: the step, counted from zero.
        values: what was drawn at it (u_t or z_t), (particle, dim), or the mean of the guide, or of a state that is
            followed exactly; None where nothing is.
        states: what readouts see, (particle, dim); of the guide alone the rollout of its means.
        weights: of the particles given everything up to and with this step, (particle,), those of their draws included.
        rates: head to E[y_t | y_{<=t}], (channel,).
        predicted: head to E[y_t | y_{<t}]; {} of the guide alone.
        log_prob: log p(y_t | y_{<t}), all heads jointly; None of the guide alone.
        effective_sample_size: None without particles.
        spread: covariance of what `values` are the mean of, (dim, dim); None with particles.
        draw_weights: p(theta_k | y_{<=t}) of the draws of the parameters, (draw,), which add up to one; as they were
            drawn, equal, of the guide alone; None where none are carried along.
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
    draw_weights: Tensor | None = None

    def __repr__(self) -> str:
        particles = "no particles"
        if self.log_prob is not None:
            particles = f"log p(y_t | y_<t) {self.log_prob:.3g} nats"
        if self.effective_sample_size is not None:
            particles += f", effective sample size {self.effective_sample_size:.1f} of {len(self.weights)}"
        if self.draw_weights is not None and self.effective_draws is not None:
            particles += f", {self.effective_draws:.1f} of {len(self.draw_weights)} draws of the parameters"
        return f"FilteredState(step {self.step}, {particles}, rates of {list(self.rates)})"

    @property
    def mean(self) -> Tensor:
        """E of what was drawn at this step (of what readouts see, where nothing was), (dim,)."""
        return self.weights @ self._drawn()

    @property
    def covariance(self) -> Tensor:
        """Covariance of the same, (dim, dim)."""
        if self.spread is not None:
            return self.spread
        centred = self._drawn() - self.mean
        return (self.weights.unsqueeze(-1) * centred).mT @ centred

    @property
    def effective_draws(self) -> float | None:
        """How many draws of the parameters of equal weight these are worth; None where none are carried along.

        Draws are never renewed, so that a long sequence that says much of the parameters leaves few of them: start with
        more, or fit again.
        """
        return None if self.draw_weights is None else float(1 / self.draw_weights.square().sum())

    def _drawn(self) -> Tensor:
        drawn = self.states if self.values is None else self.values
        if self.draw_weights is None:
            return drawn
        # under draws that are ruled out states may have grown beyond what numbers hold
        return torch.where(self.weights.unsqueeze(-1) > 0, drawn, 0.0)
