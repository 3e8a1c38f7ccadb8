"""Leading dimensions as axes: their directions, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def leading_directions(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first two principal directions of rows whose mean is zero, (2 or fewer, size)."""
    found: NDArray[np.float64] = np.linalg.svd(centred, full_matrices=False)[2][:2]
    return found


def name_dimensions(ax: Axes, *, legend: bool = False) -> None:
    """Write the names of two or three dimensions on their axes, and a small legend if asked to."""
    for number, axis in enumerate("xyz"[: 3 if ax.name == "3d" else 2], 1):
        getattr(ax, f"set_{axis}label")(f"dimension {number}")
    if legend:
        ax.legend(fontsize="small", frameon=False)
