"""Dynamics: fixed points, fields in a plane, trajectories, Lyapunov spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latentrnn.plotting.axes import axes_or_new
from latentrnn.plotting.dimensions import leading_directions, name_dimensions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

STABLE, SADDLE, SLOW, PATH = "#0072b2", "#d55e00", "#009e73", "0.6"  # of Okabe and Ito, and a grey


def fixed_points(
    states: ArrayLike,
    unstable: ArrayLike,
    fixed: ArrayLike,
    *,
    directions: ArrayLike | None = None,
    centre: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw points on two dimensions: stable ones filled, saddles and repellers open, slow ones small.

    Args:
        states: (point, size).
        unstable: how many modes of each grow, (point,).
        fixed: which do not move, (point,); the others are slow.
        directions: of the two axes, (2, size); the principal components of the points by default.
        centre: what is subtracted first, (size,); the points' mean by default.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that do not go together.
    """
    points, grow, still = _matrix("states", states), np.asarray(unstable, float), np.asarray(fixed, bool)
    if grow.shape != points.shape[:1] or still.shape != points.shape[:1]:
        raise ValueError(
            f"unstable, fixed: expected one number for each of {len(points)} states; found {grow.shape}, {still.shape}"
        )
    ax = axes_or_new(ax)
    middle = points.mean(0) if centre is None else np.asarray(centre, float)
    axes = leading_directions(points - middle) if directions is None else _matrix("directions", directions)
    x, y = _padded((points - middle) @ axes.T)
    kinds = (
        ("slow", ~still, 8, SLOW, SLOW),
        ("saddle", still & (grow > 0), 36, "none", SADDLE),
        ("stable", still & (grow == 0), 36, STABLE, STABLE),
    )
    for label, mask, size, inside, edge in kinds:
        if mask.any():
            ax.scatter(x[mask], y[mask], size, label=label, zorder=3, facecolors=inside, edgecolors=edge)
    name_dimensions(ax)
    if len(points):
        ax.legend(fontsize="small", frameon=False, loc="upper right")
    return ax


def phase_portrait(
    x: ArrayLike, y: ArrayLike, velocity_x: ArrayLike, velocity_y: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw stream lines of a field in a plane, the darker the faster.

    Args:
        x, y: coordinates of an even grid, (x,) and (y,).
        velocity_x, velocity_y: (y, x).
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that do not go together.
    """
    across, up = np.asarray(x, float), np.asarray(y, float)
    u, v = np.asarray(velocity_x, float), np.asarray(velocity_y, float)
    if u.shape != (len(up), len(across)) or v.shape != u.shape:
        raise ValueError(f"velocity_x, velocity_y: expected {(len(up), len(across))}; found {u.shape}, {v.shape}")
    ax = axes_or_new(ax)
    speed = np.hypot(u, v)
    across = np.linspace(across[0], across[-1], len(across))  # even to the last digit, as stream lines need it
    up = np.linspace(up[0], up[-1], len(up))
    ax.streamplot(
        across, up, u, v, color=np.log10(speed + 1e-3 * speed.max() + 1e-12), cmap="Greys", density=1.1, linewidth=0.8,
        arrowsize=0.7,
    )  # fmt: skip
    name_dimensions(ax)
    return ax


def trajectories(paths: ArrayLike, *, color: Any = PATH, label: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw paths in two dimensions, or in three, their starts as dots.

    Args:
        paths: (sequence, time, 2 or 3); NaN ends a path.
        color: of all paths.
        label: for the legend.
        ax: where to draw, with `projection="3d"` for three dimensions; default a new figure.

    Raises:
        ValueError: paths of another shape.
    """
    found = np.asarray(paths, float)
    if found.ndim != 3 or found.shape[-1] not in (2, 3):
        raise ValueError(f"paths: expected (sequence, time, 2 or 3); found {found.shape}")
    if ax is None and found.shape[-1] == 3:
        from matplotlib import pyplot

        ax = pyplot.figure(layout="constrained").add_subplot(projection="3d")
    ax = axes_or_new(ax)
    for number, path in enumerate(found):
        ax.plot(*path.T, color=color, linewidth=0.7, label=None if number else label)
        ax.plot(*path[:1].T, ".", color=color, markersize=3)
    name_dimensions(ax)
    return ax


def lyapunov(
    exponents: ArrayLike, errors: ArrayLike, *, per: str = "1/s", label: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a Lyapunov spectrum with its errors.

    Args:
        exponents, errors: (exponent,).
        per: their unit.
        label: for the legend.
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that differ.
    """
    values, spread = np.asarray(exponents, float), np.asarray(errors, float)
    if values.ndim != 1 or values.shape != spread.shape:
        raise ValueError(f"exponents, errors: expected (exponent,) each; found {values.shape}, {spread.shape}")
    ax = axes_or_new(ax)
    number = np.arange(1, len(values) + 1)
    ax.axhline(0.0, color="0.7", linewidth=0.8)
    ax.errorbar(number, values, spread, fmt="o", markersize=4, capsize=2, label=label)
    ax.set_xticks(number if len(number) <= 12 else number[:: -(-len(number) // 12)])
    ax.set_xlabel("exponent")
    ax.set_ylabel(f"Lyapunov exponent ({per})")
    return ax


def explained_variance(alone: ArrayLike, lost: ArrayLike, leading: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw what each unit explains, alone and beside the others, and what the leading dimensions explain together.

    Args:
        alone, lost: (sample, unit).
        leading: (sample, component).
        ax: where to draw; default a new figure.

    Raises:
        ValueError: shapes that do not go together.
    """
    shares = [_matrix(name, value) for name, value in (("alone", alone), ("lost", lost), ("leading", leading))]
    if shares[0].shape != shares[1].shape:
        raise ValueError(f"alone, lost: expected (sample, unit) each; found {shares[0].shape}, {shares[1].shape}")
    ax = axes_or_new(ax)
    styles = (("unit alone", "o", STABLE), ("lost without it", "s", SADDLE), ("leading dimensions", "-", "0.5"))
    for values, (label, style, color) in zip(shares, styles, strict=True):
        ax.plot(np.arange(1, values.shape[1] + 1), values.mean(0), style, color=color, markersize=4, label=label)
    ax.set_xlabel("unit, or dimensions")
    ax.set_ylabel("share of the head's variance")
    ax.legend(fontsize="small", frameon=False)
    return ax


def _matrix(name: str, value: ArrayLike) -> Array:
    found = np.asarray(value, float)
    if found.ndim != 2:
        raise ValueError(f"{name}: expected two axes; found {found.shape}")
    return found


def _padded(projected: Array) -> Array:
    """Return the two coordinates, zero where there are fewer dimensions."""
    found = np.zeros((2, len(projected)))
    found[: projected.shape[1]] = projected.T
    return found
