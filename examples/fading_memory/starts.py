"""Starting weights that plant how much of a gradient is left."""

from __future__ import annotations

import numpy as np
import torch

import latentrnn as lr

UNITS = 12
STARTS: dict[str, tuple[type[lr.LSTM | lr.GRU | lr.VanillaRNN], float]] = {  # by name: radius, or share that is kept
    **{f"vanilla {radius}": (lr.VanillaRNN, radius) for radius in (0.5, 0.95, 1.2)},
    **{f"LSTM {kept}": (lr.LSTM, kept) for kept in (0.5, 0.962)},
    **{f"GRU {kept}": (lr.GRU, kept) for kept in (0.5, 0.962)},
}


def plant(kernel: torch.nn.RNNBase, kept: float) -> None:
    """Put in starting weights, from torch's global generator; gates read the inputs alone."""
    with torch.no_grad():
        for name, weight in kernel.named_parameters():
            if "_ih" not in name or "bias" in name:
                weight.zero_()
        if isinstance(kernel, torch.nn.RNN):
            kernel.weight_hh_l0.copy_(kept * torch.linalg.qr(torch.randn(UNITS, UNITS))[0])
        else:  # the second block of torch's LSTM is the forget gate, that of its GRU what is kept
            kernel.bias_ih_l0[UNITS : 2 * UNITS] = float(np.log(kept / (1 - kept)))
        if isinstance(kernel, torch.nn.LSTM):  # input and output gates begin open
            kernel.bias_ih_l0[:UNITS] = kernel.bias_ih_l0[-UNITS:] = 2.0
