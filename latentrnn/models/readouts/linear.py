"""The linear readout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.data import DataSpec
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.readouts.readout import Readout, Surroundings


class LinearReadout(Readout):
    """eta_t = W h_t + b.

    Args:
        priors, fixed: of `weight` and `baseline`; see `Component`.
    """

    declared: ClassVar = {
        "weight": ParameterSpec("weight", unit="of eta per unit of state", dims=("output", "unit")),
        "baseline": ParameterSpec("baseline", unit="of eta", dims=("output",)),
    }
    writes_priors = True
    broadcasts = True
    per_output = ("weight",)
    network_weights = ("weight",)
    weight: Tensor
    baseline: Tensor

    def __init__(self, priors: Mapping[str, Any] | None = None, **shared: Any) -> None:
        super().__init__(priors=priors, **shared)

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        """Create `weight` (outputs, hidden_size) and `baseline` (outputs,)."""
        self.weight = nn.Parameter(torch.zeros(outputs, hidden_size))
        self.baseline = nn.Parameter(torch.zeros(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw small weights from torch's global generator, so that states start near silent."""
        with torch.no_grad():
            self.weight.normal_(0.0, 0.5 / self.weight.shape[-1] ** 0.5)
            self.baseline.zero_()

    def forward(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        """Return eta, (..., time, outputs), of states (..., time, hidden_size)."""
        return linear(states, self.weight, self.baseline)


def per_entry(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return W x + b, (..., time, outputs), where W and b may be draws with an axis for time, (*sample, 1, 1, ...)."""
    if weight.dim() == 2 and (bias is None or bias.dim() == 1):
        return F.linear(inputs, weight, bias)
    outputs = (weight @ inputs.unsqueeze(-1)).squeeze(-1)
    return outputs if bias is None else outputs + bias


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return W x + b, where W and b may carry leading sample axes (*sample, 1, ...) of a global site's draws."""
    if weight.dim() == 2 and (bias is None or bias.dim() == 1):
        return F.linear(inputs, weight, bias)
    outputs = inputs @ weight.mT
    if bias is None:
        return outputs
    return outputs + (bias if bias.dim() == 1 else bias.unsqueeze(-2))
