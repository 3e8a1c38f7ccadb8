"""How many digits the matrix products of a fit have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matrix_products(precision: str | None) -> Iterator[None]:
    """Give float32 matrix products within the block torch's matmul precision; None leaves it as it is."""
    if precision is None:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
