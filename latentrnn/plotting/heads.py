"""What heads ask of the weights that they share, along a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from latentrnn.plotting.axes import COLOURS, grid_of_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def head_gradients(
    step: ArrayLike, norm: ArrayLike, cosine: ArrayLike, heads: Sequence[str], *, axes: Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw how hard each head pulls at shared weights along a fit, and whether every two pull the same way.

    Args:
        step: of the fit, (step,).
        norm: of gradients, (step, head), nats per sequence, as `interpret.HeadGradients(...).to_xarray().norm`.
        cosine: of every two, (step, head, head).
        heads: their names.
        axes: two; default a new figure.

    Raises:
        ValueError: shapes that do not go together, or the wrong number of axes.
    """
    steps, norms, cosines = (np.asarray(each, float) for each in (step, norm, cosine))
    size = len(heads)
    if norms.shape != (*steps.shape, size) or cosines.shape != (*steps.shape, size, size) or steps.ndim != 1:
        raise ValueError(
            f"norm, cosine: expected (step, head) and (step, head, head) of {len(steps)} steps and {size} heads; found "
            f"{norms.shape}, {cosines.shape}"
        )
    panels = grid_of_axes(2) if axes is None else list(axes)
    if len(panels) != 2:
        raise ValueError(f"axes: expected 2, got {len(panels)}")
    pull, way = panels
    for place, name in enumerate(heads):
        pull.plot(steps, norms[:, place], color=COLOURS[place % len(COLOURS)], label=str(name))
    pull.set_yscale("log")
    pull.set_ylabel("norm of the gradient (nats)")
    pairs = [(a, b) for a in range(size) for b in range(a + 1, size)]
    for place, (a, b) in enumerate(pairs):
        way.plot(steps, cosines[:, a, b], color=COLOURS[place % len(COLOURS)], label=f"{heads[a]}, {heads[b]}")
    way.axhline(0.0, color="0.7", linewidth=0.8)
    way.set_ylim(-1.05, 1.05)
    way.set_ylabel("cosine of gradients")
    for ax in panels:
        ax.set_xlabel("step of the fit")
        ax.legend(fontsize="small", frameon=False)
    return panels
