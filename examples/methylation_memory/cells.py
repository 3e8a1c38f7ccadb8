"""The same memory in the library's other cells with tied gates, whose weights are set by hand."""

from __future__ import annotations

import numpy as np
import torch

import latentrnn as lr
from examples.simulate import Array, Methylation


def other_cells(found: Methylation, rate: float, start: float) -> dict[str, Array]:
    """Return the states of `CoupledGateLSTM` and `MinGRU`, (culture, day, 1), that follow the exposure at this rate."""
    exposure, kept = torch.as_tensor(found.exposure), float(np.log(1 / rate - 1))  # log-odds of 1 - rate
    coupled, minimal = lr.CoupledGateLSTM(1), lr.MinGRU(1)
    for cell in (coupled, minimal):
        cell.build(1)
        cell.double().requires_grad_(False)
        for weight in cell.parameters():
            weight.zero_()
    coupled.input_map.weight[1], coupled.input_map.bias[0] = 1.0, kept  # g = sigmoid(logit x), f = 1 - rate
    minimal.map.weight[1], minimal.map.bias[0] = 1.0, -kept  # n = x, u = rate
    begin = torch.tensor([0.0, float(np.log(start / (1 - start)))], dtype=torch.float64)  # h, and the log-odds of c
    half, _ = coupled.scan(torch.logit(exposure), begin)  # its output gate is half open
    whole, _ = minimal.scan(exposure, torch.tensor([start], dtype=torch.float64))
    return {"CoupledGateLSTM": 2 * half.numpy(), "MinGRU": whole.numpy()}
