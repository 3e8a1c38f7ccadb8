"""Several linear regimes, mixed by the state and the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.models.transitions.driven import DrivenTransition
from latentrnn.models.transitions.transition import check_size

SWITCHES = ("state", "input", "both")


class SwitchingLinear(DrivenTransition):
    """h_t = sum_k w_k(h_{t-1}, a_t) (A_k h_{t-1} + B_k a_t + b_k).

        softmax: w = softmax([0, l_2, ..., l_K]), the first regime is the reference;  sigmoid: w_k = sigmoid(l_k)
        l = V h_{t-1} + U a_t + c

    One regime with softmax weights is `Linear`. Recorded gate: "regime" w, (..., regimes).

    Args:
        hidden_size: dimension of the state.
        regimes: number of regimes.
        weights: "softmax", regimes that share one unit of weight, or "sigmoid", each on or off by itself.
        switch: what the weights look at: "state", "input" or "both".

    Raises:
        ValueError: a size below one, or unknown weights or switch.

    References:
        Linderman, Johnson, Miller, Adams, Blei, Paninski. Bayesian learning and inference in recurrent switching
        linear dynamical systems. 2017.
    """

    def __init__(self, hidden_size: int, regimes: int, weights: str = "softmax", switch: str = "both") -> None:
        super().__init__()
        self.hidden_size = self.state_size = check_size("SwitchingLinear", "hidden_size", hidden_size)
        self.regimes = check_size("SwitchingLinear", "regimes", regimes)
        if weights not in ("softmax", "sigmoid"):
            raise ValueError(f"SwitchingLinear: weights must be 'softmax' or 'sigmoid'; found {weights!r}")
        if switch not in SWITCHES:
            raise ValueError(f"SwitchingLinear: switch must be one of {list(SWITCHES)}; found {switch!r}")
        self.weights, self.switch = weights, switch

    def build(self, input_size: int) -> None:
        logits = self.regimes - (self.weights == "softmax")
        self.recurrent_weight = nn.Parameter(torch.empty(self.regimes, self.hidden_size, self.hidden_size))
        self.input_weight = nn.Parameter(torch.empty(self.regimes, self.hidden_size, input_size))
        self.bias = nn.Parameter(torch.empty(self.regimes, self.hidden_size))
        self.switch_bias = nn.Parameter(torch.empty(logits))
        if self.switch != "input":
            self.switch_state_weight = nn.Parameter(torch.empty(logits, self.hidden_size))
        if self.switch != "state":
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
            self.switch_bias.zero_()
            if self.switch != "input":
                self.switch_state_weight.normal_(0.0, self.hidden_size**-0.5)
            if self.switch != "state":
                self.switch_input_weight.normal_(0.0, inputs**-0.5)

    def drive(self, inputs: Tensor) -> Tensor:
        driven = F.linear(inputs, self.input_weight.flatten(0, 1), self.bias.flatten())
        logits = self.switch_bias.expand(*inputs.shape[:-1], -1)
        if self.switch != "state":
            logits = logits + F.linear(inputs, self.switch_input_weight)
        return torch.cat([driven, logits], -1)

    def advance(self, state: Tensor, driven: Tensor) -> Tensor:
        size = self.regimes * self.hidden_size
        logits = driven[..., size:]
        if self.switch != "input":
            logits = logits + F.linear(state, self.switch_state_weight)
        if self.weights == "softmax":
            weights = torch.softmax(F.pad(logits, (1, 0)), -1)
        else:
            weights = torch.sigmoid(logits)
        weights = self.gate("regime", weights)
        moved = F.linear(state, self.recurrent_weight.flatten(0, 1)) + driven[..., :size]
        return (weights.unsqueeze(-1) * moved.unflatten(-1, (self.regimes, self.hidden_size))).sum(-2)
