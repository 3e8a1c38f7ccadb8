"""The linear readout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from latentrnn.data import DataSpec
from latentrnn.models.priors import Prior, check_priors
from latentrnn.models.readouts.readout import Readout, Surroundings


class LinearReadout(Readout):
    """eta_t = W h_t + b.

    Args:
        priors: scalar priors on `weight` or `baseline`, each shared by the entries; without one a point estimate.

    Raises:
        ValueError, TypeError: a prior on anything else, or one that is not a scalar distribution.
    """

    interpretable = ("weight", "baseline")
    per_output = ("weight",)
    weight: Tensor
    baseline: Tensor

    def __init__(self, priors: dict[str, Prior] | None = None) -> None:
        super().__init__()
        self.priors = check_priors("LinearReadout", priors, self.interpretable)

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        """Create `weight` (outputs, hidden_size) and `baseline` (outputs,)."""
        self.add_parameter("weight", torch.zeros(outputs, hidden_size), self.priors)
        self.add_parameter("baseline", torch.zeros(outputs), self.priors)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw small weights from torch's global generator, so that states start near silent."""
        with torch.no_grad():
            self.weight.normal_(0.0, 0.5 / self.weight.shape[-1] ** 0.5)
            self.baseline.zero_()

    def forward(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        """Return eta, (..., time, outputs), of states (..., time, hidden_size)."""
        return linear(states, self.weight, self.baseline)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return W x + b, where W and b may carry leading sample axes (*sample, 1, ...) of a global site's draws."""
    if weight.dim() == 2 and (bias is None or bias.dim() == 1):
        return F.linear(inputs, weight, bias)
    outputs = inputs @ weight.mT
    if bias is None:
        return outputs
    return outputs + (bias if bias.dim() == 1 else bias.unsqueeze(-2))
