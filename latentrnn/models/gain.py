"""Stimulus-gated gain: how strongly a head listens to a stimulus, opened and closed by the state."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentrnn.data import DataSpec
from latentrnn.models.component import Component
from latentrnn.models.features import CovariateReader, Lags
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.readouts import linear
from latentrnn.support.arguments import check_flag, check_size, check_text


class StimulusGain(Component):
    """A multiplicative term of a head: the state gates the stimulus before it reaches the channels.

        g_t = sigmoid(W h_t + U s_t + b),    contribution to eta:  beta (g_t * s_t)

    One `beta` per channel and stimulus feature, one gate per stimulus feature. Scale convention: the gate lies
    between 0 and 1 and `beta` is the gain of a fully open gate. Where data never open the gate fully, only the
    product is identified; `Posterior.gain` therefore reports gates whose maximum over the data is one, and `beta`
    to match. After a fit the parameter `beta` is per root mean square of the stimulus in the training data, unless the
    data's ingestion standardised it; `Posterior.gain`, sites and `coefficients()` of the head are in the data's units.
    The stimulus does not enter the transition, unless `LatentRNN(inputs=...)` lists it there too.

    Args:
        stimulus: the covariate's name.
        lags: steps of stimulus history, the present one included; each lag is a stimulus feature.
        gated: False fixes the gate at one (a plain linear stimulus term: the rival that a gate must beat).
        **shared: `priors` and `fixed`, of `beta` and of the gate's weights; see `Component`.

    Raises:
        ValueError: fewer than one lag.
    """

    writes_priors = True
    declared: ClassVar = {"beta": ParameterSpec("beta", unit="of eta per unit of stimulus", dims=("output", "feature"))}
    beta: Tensor

    def __init__(
        self,
        stimulus: str,
        *,
        lags: int = 1,
        gated: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.stimulus = check_text("StimulusGain", "stimulus", stimulus)
        self.gated = check_flag("StimulusGain", "gated", gated)
        self.lags = check_size("StimulusGain", "lags", lags)

    def build(self, head: str, spec: DataSpec, hidden_size: int, outputs: int) -> None:
        """Create the gate's weights and `beta` (outputs, features * lags)."""
        owner = f"observations[{head!r}]: StimulusGain"
        self.reader = CovariateReader(owner, [Lags(self.stimulus, self.lags)], spec)
        features = self.reader.size
        self.beta = nn.Parameter(torch.zeros(outputs, features))
        if self.gated:
            self.state_weight = nn.Parameter(torch.zeros(features, hidden_size))
            self.stimulus_weight = nn.Parameter(torch.zeros(features, features))
            self.gate_bias = nn.Parameter(torch.zeros(features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw small weights from torch's global generator: gates start half open."""
        with torch.no_grad():
            self.beta.normal_(0.0, 0.1 / self.beta.shape[-1] ** 0.5)
            if self.gated:
                self.state_weight.normal_(0.0, 1.0 / self.state_weight.shape[-1] ** 0.5)
                self.stimulus_weight.normal_(0.0, 0.1 / self.stimulus_weight.shape[-1] ** 0.5)
                self.gate_bias.zero_()

    def gate(self, states: Tensor, stimulus: Tensor) -> Tensor:
        """Return g, (..., time, feature), of states (..., time, hidden_size) and the stimulus (..., time, feature)."""
        if not self.gated:
            # the sample axes are the states', as for a gate that moves
            leading = torch.broadcast_shapes(states.shape[:-1], stimulus.shape[:-1])
            return stimulus.new_ones(*leading, stimulus.shape[-1])
        return torch.sigmoid(linear(states, self.state_weight, self.gate_bias) + linear(stimulus, self.stimulus_weight))

    def forward(self, states: Tensor, stimulus: Tensor) -> Tensor:
        """Return the contribution to eta, (..., time, outputs)."""
        gated = self.gate(states, stimulus) * stimulus if self.gated else stimulus
        return linear(gated, self.beta)
