"""A head's own past, through a short learned filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.component import Component
from latentrnn.support.arguments import check_names, check_size


class History(Component):
    """Learned filters over the last steps of a head: f_t = sum_l w_l y~_{t-l}, l = 1..steps.

    y~ is the head's past in standard units of the training data; what was not observed counts as average. The
    filters of each channel start as bumps spaced evenly in log lag, and are learned.

    Args:
        steps: length of the filters.
        filters: number of filters per channel.
        into: where they enter: "transition" (the state can remember them), "readout" (each channel's own
            filters join its linear predictor, as in a point-process GLM), or both.

    Raises:
        ValueError: a size below one or an unknown destination.

    References:
        Pillow, Shlens, Paninski, Sher, Litke, Chichilnisky, Simoncelli. Spatio-temporal correlations and visual
        signalling in a complete neuronal population. 2008.
    """

    def __init__(self, steps: int = 20, filters: int = 4, into: Sequence[str] = ("transition",), **shared: Any) -> None:
        super().__init__(**shared)
        self.steps = check_size("History", "steps", steps)
        self.filters = check_size("History", "filters", filters)
        self.into = tuple(check_names("History", "into", into))
        unknown = set(self.into) - {"transition", "readout"}
        if unknown or not self.into:
            raise ValueError(f"History: into must name 'transition', 'readout' or both; found {list(self.into)}")

    def build(self, head_channels: int, history_channels: int, outputs: int) -> None:
        """Create the filters.

        Args:
            head_channels: channels of the head.
            history_channels: channels of its encoded past, a multiple of `head_channels`.
            outputs: raw outputs of the head, a multiple of `head_channels`.
        """
        self.channels, self.head_channels = history_channels, head_channels
        self.size = history_channels * self.filters
        self.weight = nn.Parameter(torch.empty(history_channels, self.filters, self.steps))  # oldest lag first
        if "readout" in self.into:
            self.own = nn.Parameter(torch.empty(head_channels, outputs // head_channels, self.size // head_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return the filters to bumps in log lag; draw small readout weights from torch's global generator."""
        lag = torch.arange(self.steps, 0, -1, dtype=self.weight.dtype).log1p()
        centres = torch.linspace(float(lag.min()), float(lag.max()), self.filters, dtype=lag.dtype)[:, None]
        width = (lag.max() - lag.min()).clamp_min(1.0) / max(self.filters - 1, 1)
        bumps = 0.5 * (1 + torch.cos(((lag - centres) / width).clamp(-1, 1) * torch.pi))
        with torch.no_grad():
            self.weight.copy_(bumps / bumps.norm(dim=-1, keepdim=True).clamp_min(1e-6))
            if "readout" in self.into:
                self.own.normal_(0.0, 0.01)

    def forward(self, past: Tensor) -> Tensor:
        """Return the features of every step.

        Args:
            past: encoded observations y~, (..., time, history_channels); step t uses t-1, ..., t-steps.

        Returns:
            (..., time, history_channels * filters).
        """
        batch, time = past.shape[:-2], past.shape[-2]
        flat = past.reshape(-1, time, self.channels).mT
        padded = F.pad(flat, (self.steps, 0))[..., :-1]
        features = F.conv1d(padded, self.weight.reshape(self.size, 1, self.steps), groups=self.channels)
        return features.mT.reshape(*batch, time, self.size)

    def at(self, window: Tensor) -> Tensor:
        """Return the features of one step, (..., size), of the window (..., steps, history_channels) before it."""
        return torch.einsum("...lc,cfl->...cf", window, self.weight).flatten(-2)

    def to_predictor(self, features: Tensor) -> Tensor:
        """Return each channel's own filtered past as a term of eta, (..., time, outputs)."""
        own = features.unflatten(-1, (self.head_channels, -1))
        return torch.einsum("...cm,crm->...cr", own, self.own).flatten(-2)
