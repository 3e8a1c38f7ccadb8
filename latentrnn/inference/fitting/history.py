"""The history of a fit by step: reports and evaluations go by clocks of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CLOCKS = ("step", "validation_step")  # of reports and of evaluations


def by_step(history: Mapping[str, Sequence[float]]) -> tuple[list[str], dict[int, dict[str, float]]]:
    """Return the names of a history, and by step, in order, what was noted at it; of a step taken again the last.

    What an earlier version noted at some of its reports alone, and so of unknown steps, is left out.

    Example:
        >>> by_step({"step": [0, 2], "elbo": [-3.0, -2.0], "validation_step": [2], "validation_elbo": [-2.5]})
        (['elbo', 'validation_elbo'], {0: {'elbo': -3.0}, 2: {'elbo': -2.0, 'validation_elbo': -2.5}})
    """
    names: list[str] = []
    rows: dict[int, dict[str, float]] = {}
    for name, values in history.items():
        steps = history.get("validation_step" if name.startswith("validation_") else "step", ())
        if name in CLOCKS or len(values) != len(steps):
            continue
        names.append(name)
        for step, value in zip(steps, values, strict=True):
            rows.setdefault(int(step), {})[name] = value
    return names, {step: rows[step] for step in sorted(rows)}
