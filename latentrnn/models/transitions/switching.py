"""Several linear regimes, mixed by the state and the input, or by a switch of the latent's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.transitions.projected_input import ProjectedInputTransition
from latentrnn.support.arguments import check_choice, check_size

SWITCHES = ("state", "input", "both", "given")


class SwitchingLinear(ProjectedInputTransition):
    """h_t = sum_k w_k(h_{t-1}, a_t) (A_k h_{t-1} + B_k a_t + b_k).

        softmax: w = softmax([0, l_2, ..., l_K]), the first regime is the reference;  sigmoid: w_k = sigmoid(l_k)
        l = V h_{t-1} + U a_t + c

    With `switch="given"` w_t is the path of a latent's switch (`RelaxedDiscrete(regimes)`), and a_t the rest of the
    input: a switching linear dynamical system. One regime with softmax weights is `Linear`. Recorded gate: "regime" w,
    (..., regimes).

    Args:
        hidden_size: dimension of the state.
        regimes: number of regimes.
        weights: "softmax", regimes that share one unit of weight, or "sigmoid", each on or off by itself.
        switch: what the weights look at: "state", "input" or "both"; or "given", they are the latent's.

    Raises:
        ValueError: a size below one, unknown weights or switch, or sigmoid weights where weights are given.

    References:
        Linderman, Johnson, Miller, Adams, Blei, Paninski. Bayesian learning and inference in recurrent switching
        linear dynamical systems. 2017.
    """

    is_network = False
    input_units = "standard"

    def __init__(
        self, hidden_size: int, regimes: int, weights: str = "softmax", switch: str = "both", **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = check_size("SwitchingLinear", "hidden_size", hidden_size)
        self.regimes = check_size("SwitchingLinear", "regimes", regimes)
        self.weights = check_choice("SwitchingLinear", "weights", weights, ("softmax", "sigmoid"))
        self.switch = check_choice("SwitchingLinear", "switch", switch, SWITCHES)
        if switch == "given" and weights != "softmax":
            raise ValueError(
                "SwitchingLinear: weights='sigmoid' computes weights, but with switch='given' they are given"
            )
        self.given_weights = self.regimes if switch == "given" else 0

    def build(self, input_size: int) -> None:
        input_size -= self.given_weights
        self.recurrent_weight = nn.Parameter(torch.empty(self.regimes, self.hidden_size, self.hidden_size))
        self.input_weight = nn.Parameter(torch.empty(self.regimes, self.hidden_size, input_size))
        self.bias = nn.Parameter(torch.empty(self.regimes, self.hidden_size))
        logits = self.regimes - (self.weights == "softmax")
        if self.switch != "given":
            self.switch_bias = nn.Parameter(torch.empty(logits))
        if self.switch in ("state", "both"):
            self.switch_state_weight = nn.Parameter(torch.empty(logits, self.hidden_size))
        if self.switch in ("input", "both"):
            self.switch_input_weight = nn.Parameter(torch.empty(logits, input_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw regimes around 0.9 times the identity and hyperplanes between them from torch's global generator."""
        inputs = max(self.input_weight.shape[-1], 1)
        with torch.no_grad():
            noise = torch.randn_like(self.recurrent_weight) * 0.1 / self.hidden_size**0.5
            scale = 0.9 if self.weights == "softmax" else 1.8 / self.regimes  # sigmoids start at one half
            self.recurrent_weight.copy_(scale * torch.eye(self.hidden_size) + noise)
            self.input_weight.normal_(0.0, inputs**-0.5)
            self.bias.normal_(0.0, 0.1)
            if self.switch != "given":
                self.switch_bias.zero_()
            if self.switch in ("state", "both"):
                self.switch_state_weight.normal_(0.0, self.hidden_size**-0.5)
            if self.switch in ("input", "both"):
                self.switch_input_weight.normal_(0.0, inputs**-0.5)

    def project_inputs(self, inputs: Tensor) -> Tensor:
        if self.switch == "given":
            inputs, weights = inputs[..., : -self.regimes], inputs[..., -self.regimes :]
            return torch.cat([F.linear(inputs, self.input_weight.flatten(0, 1), self.bias.flatten()), weights], -1)
        projected = F.linear(inputs, self.input_weight.flatten(0, 1), self.bias.flatten())
        logits = self.switch_bias.expand(*inputs.shape[:-1], -1)
        if self.switch != "state":
            logits = logits + F.linear(inputs, self.switch_input_weight)
        return torch.cat([projected, logits], -1)

    def advance(self, state: Tensor, projected: Tensor) -> Tensor:
        size = self.regimes * self.hidden_size
        weights = self.gate("regime", self._weights(state, projected[..., size:]))
        moved = F.linear(state, self.recurrent_weight.flatten(0, 1)) + projected[..., :size]
        return (weights.unsqueeze(-1) * moved.unflatten(-1, (self.regimes, self.hidden_size))).sum(-2)

    def _weights(self, state: Tensor, projected: Tensor) -> Tensor:
        """Return w, (..., regimes), of a state and of what the input says of it: logits, or w itself."""
        if self.switch == "given":
            return projected
        logits = projected if self.switch == "input" else projected + F.linear(state, self.switch_state_weight)
        return torch.softmax(F.pad(logits, (1, 0)), -1) if self.weights == "softmax" else torch.sigmoid(logits)
