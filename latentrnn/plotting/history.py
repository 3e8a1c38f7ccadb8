"""The history of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from latentrnn.plotting.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def history(
    records: Mapping[str, Sequence[float]], *, names: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw traces of a fit, such as the ELBO, over its steps.

    Args:
        records: `result.history`: lists of numbers, with `step` for those of the training batches and
            `validation_step` for those whose name starts with "validation_".
        names: which to draw; default the ELBO and the bound of the validation sequences.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: for a name that was not recorded.
    """
    if names is None:
        names = [n for n in records if n == "elbo" or (n.startswith("validation_") and n != "validation_step")]
    chosen = list(names)
    for name in chosen:
        if name not in records:
            raise ValueError(f"names: {name!r} was not recorded; there are {sorted(records)}")
    ax = axes_or_new(ax)
    for name in chosen:
        steps = records["validation_step" if name.startswith("validation_") else "step"]
        ax.plot(list(steps), list(records[name]), label=name)
    ax.set_xlabel("step")
    ax.set_ylabel("nats per sequence")
    if chosen:
        ax.legend(fontsize="small", frameon=False)
    return ax
