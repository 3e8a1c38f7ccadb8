"""How many digits the matrix products of a fit have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("highest", "high", "medium")


@contextmanager
def matrix_products(precision: str | None) -> Iterator[None]:
    """Give single-precision matrix products within the block torch's float32 matmul precision; None leaves it as it is.

    Raises:
        ValueError: an unknown precision.
    """
    if precision is None:
        yield
        return
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"fit: matmul_precision must be None or one of {list(PRECISIONS)}; found {precision!r}")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
