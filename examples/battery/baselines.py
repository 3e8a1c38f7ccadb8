"""Equivalent circuits by least squares: a table of the open-circuit voltage, resistances by charge, branches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from examples.simulate import Array

START = {1: [300.0], 2: [60.0, 900.0]}  # time constants, s


def by_circuit(learn: pd.DataFrame, choose: pd.DataFrame, judge: pd.DataFrame) -> Array:
    """Return the voltage of every row of `judge` by a Thevenin circuit, of all that were tried the best on `choose`.

        V = U(q) + R_0(q) i + sum_k R_k(q) r^k + M(q) h

    r^k and h as in `cells.Circuit`; U, R and M are piecewise linear in the charge q. Time constants and the rate of the
    hysteresis by Nelder-Mead, all else by ridge regression; tried are one and two branches, with and without
    hysteresis, numbers of knots and penalties.
    """
    best, found = np.inf, np.array([])
    ends = learn["charge"].min(), learn["charge"].max()
    for branches, loop in itertools.product((1, 2), (False, True)):
        start = np.log([*START[branches], *([1.0] if loop else [])])

        def fitted(parts: Sequence[Array], knots: tuple[int, int], penalty: float) -> Array:
            x, y = _columns(parts[0], ends, knots), learn["voltage"].to_numpy()
            size = np.sqrt(penalty) * np.eye(x.shape[1])
            return np.linalg.lstsq(np.vstack([x, size]), np.append(y, np.zeros(len(size))), rcond=None)[0]

        def lost(logs: Array, branches: int = branches) -> float:
            parts = [_driven(learn, logs, branches)]
            weights = fitted(parts, (12, 4), 1e-3)
            return float(np.mean((_columns(parts[0], ends, (12, 4)) @ weights - learn["voltage"]) ** 2))

        logs = minimize(lost, start, method="Nelder-Mead", options={"maxfev": 60}).x
        parts = [_driven(each, logs, branches) for each in (learn, choose, judge)]
        for knots, penalty in itertools.product(((8, 2), (12, 4), (24, 4), (24, 8), (40, 8)), (1e-4, 1e-2, 1.0)):
            weights = fitted(parts, knots, penalty)
            error = float(np.mean((_columns(parts[1], ends, knots) @ weights - choose["voltage"]) ** 2))
            if error < best:
                best, found = error, _columns(parts[2], ends, knots) @ weights
                chosen = f"{branches} branches, {'with' if loop else 'no'} hysteresis, knots {knots}"
    print(f"equivalent circuit: {chosen}, {1e3 * np.sqrt(best):.1f} mV on validation cycles")
    return found


def _driven(rows: pd.DataFrame, logs: Array, branches: int) -> Array:
    """Return charge, current, branches and hysteresis, (row, 2 + branches + loop)."""
    columns = [rows["charge"].to_numpy(), rows["current"].to_numpy()]
    first = ~rows.duplicated(["test", "cycle"]).to_numpy()
    gap = np.maximum(np.diff(rows["time"].to_numpy(), prepend=0.0), 0.0)
    kept = [np.exp(-gap / np.exp(log)) for log in logs[:branches]]
    towards = [rows["current"].to_numpy()] * branches
    if len(logs) > branches:
        moved = rows["moved"].to_numpy()
        kept, towards = [*kept, np.exp(-np.exp(logs[-1]) * np.abs(moved))], [*towards, np.sign(moved)]
    for share, target in zip(kept, towards, strict=True):
        state, path = 0.0, np.empty(len(rows))
        for row, (begins, keep, goal) in enumerate(zip(first, share, target, strict=True)):
            state = 0.0 if begins else keep * state + (1 - keep) * goal
            path[row] = state
        columns.append(path)
    return np.stack(columns, 1)


def _columns(driven: Array, ends: tuple[float, float], knots: tuple[int, int]) -> Array:
    """Return what voltage is linear in: hats of the charge, and these times current, branches and hysteresis."""
    open_circuit, resistance = (_hats(driven[:, 0], np.linspace(*ends, number)) for number in knots)
    return np.hstack([open_circuit, *(resistance * drive[:, None] for drive in driven.T[1:])])


def _hats(values: Array, knots: Array) -> Array:
    return np.stack([np.interp(values, knots, row) for row in np.eye(len(knots))], 1)
