"""From named covariates to the channels that a transition, a gain or an encoder takes in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentrnn.data import CovariateSpec, DataSpec, HeadSpec, SequenceData
from latentrnn.models.component import Component
from latentrnn.models.transitions.transition import check_size


class Lags(Component):
    """A covariate together with its own past: [s_t, s_{t-1}, ..., s_{t-steps+1}], zero (standardised) before the start.

    Args:
        covariate: the covariate's name.
        steps: number of steps in the window, the present one included.

    Raises:
        ValueError: fewer than one step.
    """

    def __init__(self, covariate: str, steps: int) -> None:
        super().__init__()
        self.covariate, self.steps = covariate, check_size("Lags", "steps", steps)


class CovariateReader(nn.Module):
    """Reads named covariates from a batch, standardised as the data's door recorded it, side by side.

    Args:
        owner: who reads, for error messages.
        items: covariate names, or `Lags` of them.
        spec: the data's spec.

    Raises:
        ValueError: a covariate that the data do not have.
        TypeError: an item that is neither a name nor `Lags`.
    """

    def __init__(self, owner: str, items: Sequence[str | Lags], spec: DataSpec) -> None:
        super().__init__()
        self._columns: list[tuple[str, int]] = []
        for item in items:
            if not isinstance(item, str | Lags):
                raise TypeError(f"{owner}: expected covariate names or Lags; found {type(item).__name__}")
            name, steps = (item.covariate, item.steps) if isinstance(item, Lags) else (item, 1)
            if name not in spec.covariates:
                raise ValueError(f"{owner}: unknown covariate {name!r}; the data have {sorted(spec.covariates)}")
            self._columns.append((name, steps))
            location, scale = standardisation(spec.covariates[name], spec.covariates[name].features)
            self.register_buffer(f"{name}_location", location, persistent=False)
            self.register_buffer(f"{name}_scale", scale, persistent=False)
        self.size = sum(spec.covariates[name].features * steps for name, steps in self._columns)

    def forward(self, data: SequenceData) -> Tensor:
        """Return (sequence, time, size)."""
        if not self._columns:
            return torch.zeros(data.num_sequences, data.num_steps, 0, dtype=data.dtype, device=data.device)
        parts = []
        for name, steps in self._columns:
            values = (data.covariates[name] - getattr(self, f"{name}_location")) / getattr(self, f"{name}_scale")
            parts.append(values if steps == 1 else lagged(values, steps))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def lagged(values: Tensor, steps: int) -> Tensor:
    """Return [x_t, ..., x_{t-steps+1}], (..., time, channel * steps), lag by lag, from (..., time, channel)."""
    time = values.shape[-2]
    padded = torch.nn.functional.pad(values, (0, 0, steps - 1, 0))
    return torch.cat([padded[..., steps - 1 - lag : steps - 1 - lag + time, :] for lag in range(steps)], -1)


def standardisation(spec: CovariateSpec | HeadSpec, size: int) -> tuple[Tensor, Tensor]:
    """Return location and scale, (size,), of a covariate or head; zero and one where the data are as they came."""
    if spec.location is None:
        return torch.zeros(size), torch.ones(size)
    return torch.tensor(spec.location), torch.tensor(spec.scale)
