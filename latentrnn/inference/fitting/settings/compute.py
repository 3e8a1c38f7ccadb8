"""What a fit computes with: device, processes, precision, windows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latentrnn.inference.guides.windows import Window
from latentrnn.support.arguments import check_kind_of

PRECISIONS = ("highest", "high", "medium")
PROCESSES = ("auto", "alone")


@dataclass(frozen=True)
class Compute:
    """What a fit computes with.

    Args:
        device: "auto" takes CUDA where there is one.
        processes: "auto": started by `torchrun`, all processes fit together, each with its share of every batch, and
            end with the result that one process would have, up to rounding; one of them writes checkpoints and shows
            progress. "alone": this process by itself, whatever started it.
        matmul_precision: digits of float32 matrix products within the fit: "highest", "high" (TF32 on CUDA) or "medium"
            (bfloat16 where the processor has it); None leaves torch's setting. Sums, densities and weights keep single
            precision. docs/performance.md says what it changes.
        window: `Window(steps)` for sequences too long to hold a whole pass of: they are gone through in windows that
            hand on their state, each a step of the optimizer, by truncated backpropagation.

    Raises:
        ValueError: an unknown word.
        TypeError: a window of another kind.

    Example:
        >>> Compute(window=Window(500)).device
        'auto'
    """

    device: str | torch.device = "auto"
    processes: str = "auto"
    matmul_precision: str | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.processes, str) or self.processes not in PROCESSES:
            raise ValueError(f"Compute: processes must be 'auto' or 'alone'; found {self.processes!r}")
        precision = self.matmul_precision
        if precision is not None and (not isinstance(precision, str) or precision not in PRECISIONS):
            raise ValueError(
                f"Compute: matmul_precision must be None or one of {list(PRECISIONS)}; found {precision!r}"
            )
        if self.window is not None:
            check_kind_of("Compute", "window", self.window, Window)
