"""What an online filter says after a step: of one sequence, or of many streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentrnn.inference.online.prediction import Prediction
from latentrnn.support.arguments import is_integer
from latentrnn.support.shown import shown


class Expected:
    """What was expected of a step before it was seen, by head; of one sequence, or of every stream."""

    predictions: Mapping[str, Prediction] | None

    def log_density(self, head: str) -> Tensor:
        """Return log p(y_t^c | y_{<t}) of every channel by itself, nats, NaN where missing.

        Of a family that joins channels and has no marginals in closed form (`Multinomial`, `DirichletMultinomial`,
        `AutoregressiveBernoulli`) of the observed ones together, one number.

        Args:
            head: the head's name.

        Returns:
            (channel,) or (1,); of many streams (stream, ...).

        Raises:
            ValueError: an unknown head, one without a frame at this step, or the guide alone, which has no densities.
        """
        return self._one(self._prediction(head).log_density())

    def pit(self, head: str) -> Tensor:
        """Return the probability integral transform of every channel, P(Y < y_t) + U P(Y = y_t), NaN where missing.

        Under the right model uniform, and independent from step to step, so that what is near 0 or 1 is unexpected: U
        is uniform on (0, 1), from the filter's seed, and of no account where Y has a density.

        Args, Returns, Raises: see `log_density`; always one number for each channel.

        References:
            Diebold, Gunther, Tay. Evaluating density forecasts. 1998.
            Czado, Gneiting, Held. Predictive model assessment for count data. 2009.
        """
        return self._one(self._prediction(head).pit())

    def quantiles(self, head: str, probabilities: float | Sequence[float] = (0.05, 0.5, 0.95)) -> Tensor:
        """Return quantiles of y_t given y_{<t}, (quantile, channel); of many streams (quantile, stream, channel).

        Args:
            head: the head's name.
            probabilities: one or several, between 0 and 1.

        Raises:
            ValueError: see `log_density`; a probability out of range.
        """
        found = self._prediction(head).quantiles(probabilities)
        return torch.stack([self._one(each) for each in found])

    def variance(self, head: str) -> Tensor:
        """Return the variance of y_t given y_{<t}, (channel,); of many streams (stream, channel).

        Args:
            head: the head's name.

        Raises:
            ValueError: see `log_density`; a head of codes.
        """
        return self._one(self._prediction(head).variance())

    def _one(self, value: Tensor) -> Tensor:
        return value

    def _prediction(self, head: str) -> Prediction:
        if self.predictions is None:
            raise ValueError("the guide alone has no densities of a step; make the OnlineFilter with num_particles")
        if not isinstance(head, str) or head not in self.predictions:
            raise ValueError(f"head {head!r} has no frame at this step; expected one of {sorted(self.predictions)}")
        return self.predictions[head]


@dataclass(frozen=True, eq=False)
class FilteredState(Expected):
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
        name: of the stream; None where there is one without a name.
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
    name: str | None = None
    predictions: Mapping[str, Prediction] | None = field(default=None, repr=False)
    place: int = field(default=0, repr=False)  # of the stream in the predictions

    def __repr__(self) -> str:
        particles = "no particles"
        if self.log_prob is not None:
            particles = f"log p(y_t | y_<t) {self.log_prob:.3g} nats"
        if self.effective_sample_size is not None:
            particles += f", effective sample size {self.effective_sample_size:.1f} of {len(self.weights)}"
        if self.draw_weights is not None and self.effective_draws is not None:
            particles += f", {self.effective_draws:.1f} of {len(self.draw_weights)} draws of the parameters"
        stream = "" if self.name is None else f"stream {self.name!r}, "
        return f"FilteredState({stream}step {self.step}, {particles}, rates of {list(self.rates)})"

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

    def _one(self, value: Tensor) -> Tensor:
        return value[self.place]


@dataclass(frozen=True, eq=False)
class FilteredStates(Expected):
    """What is known of many streams after a step: the fields of `FilteredState`, with the streams as their first axis.

    `states["a"]` (or `states[0]`) is the `FilteredState` of one of them; iteration goes over all.

    Attributes:
        step: the step, counted from zero; streams go on together.
        names: of the streams.
        values, states: (stream, particle, dim).
        weights: (stream, particle).
        rates, predicted: head to (stream, channel).
        log_prob: nats, (stream,); None of the guide alone.
        effective_sample_size: (stream,); None without particles.
        spread: (stream, dim, dim); None with particles.
        draw_weights: (stream, draw): every stream weighs the draws of the parameters by itself; None without draws.

    Example:
        >>> import latentrnn as lr, numpy as np
        >>> data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(2, 5, 3))})
        >>> model = lr.LatentRNN(
        ...     data.spec, transition=lr.GRU(4), latent=lr.Innovations(2), observations={"y": lr.Gaussian()}
        ... )
        >>> guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
        >>> online = lr.OnlineFilter(lr.Posterior(model, guide, data), streams=["left", "right"])
        >>> found = online.update(np.zeros((2, 3)))
        >>> found.rates["y"].shape, found["right"].pit("y").shape
        (torch.Size([2, 3]), torch.Size([3]))
    """

    step: int
    names: tuple[str, ...]
    values: Tensor | None
    states: Tensor
    weights: Tensor
    rates: dict[str, Tensor]
    predicted: dict[str, Tensor]
    log_prob: Tensor | None
    effective_sample_size: Tensor | None
    spread: Tensor | None = None
    draw_weights: Tensor | None = None
    predictions: Mapping[str, Prediction] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        told = "" if self.log_prob is None else f", log p(y_t | y_<t) {float(self.log_prob.sum()):.3g} nats in all"
        return f"FilteredStates(step {self.step}, {len(self)} streams{told}, rates of {list(self.rates)})"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[FilteredState]:
        return (self._of(place, name) for place, name in enumerate(self.names))

    def __getitem__(self, stream: str | int) -> FilteredState:
        if isinstance(stream, str) and stream in self.names:
            return self._of(self.names.index(stream), stream)
        if is_integer(stream) and -len(self) <= int(stream) < len(self):
            place = int(stream) % len(self)
            return self._of(place, self.names[place])
        known = shown(list(self.names), 200)
        raise ValueError(f"unknown stream {stream!r}; expected one of {known}, or a place below {len(self)}")

    @property
    def mean(self) -> Tensor:
        """E of what was drawn at this step (of what readouts see, where nothing was), (stream, dim)."""
        return torch.stack([each.mean for each in self])

    @property
    def covariance(self) -> Tensor:
        """Covariance of the same, (stream, dim, dim)."""
        return torch.stack([each.covariance for each in self])

    def only(self) -> FilteredState:
        """Return what is known of the one stream that has no name."""
        return self._of(0, None)

    def _of(self, place: int, name: str | None) -> FilteredState:
        def here(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[place]

        def number(value: Tensor | None) -> float | None:
            return None if value is None else float(value[place])

        return FilteredState(
            self.step,
            here(self.values),
            self.states[place],
            self.weights[place],
            {head: rate[place] for head, rate in self.rates.items()},
            {head: mean[place] for head, mean in self.predicted.items()},
            number(self.log_prob),
            number(self.effective_sample_size),
            here(self.spread),
            here(self.draw_weights),
            name,
            self.predictions,
            place,
        )
