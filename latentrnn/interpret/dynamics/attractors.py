"""What slow points make up: single points, a line, a ring or a plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentrnn.interpret.dynamics.fixed_points import FixedPoints
from latentrnn.support.arguments import check_kind_of, check_number
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

Array = NDArray[np.float64]

LEAST = 6  # points of a curve, from which on it can be told to be closed
EXTENT = 0.05  # spreads: a manifold is at least so wide
CLOSED = 0.25, 3.0  # of a ring: its ends are nearer than this share of its length, and this many of its largest steps


@isolated
def attractor(points: FixedPoints, *, horizon: float | None = None) -> xarray.Dataset:
    """Say what the fixed and slow points of a fit make up: single points, a line, a ring, a plane.

    A mode is neutral where it changes by less than a factor e within the horizon, |ln |eigenvalue|| T < dt. On a
    manifold of points that hold what they are given, as many modes are neutral as it has dimensions. Points with a mode
    that grows faster are no part of it. With one neutral mode the points lie on a curve: their minimum spanning tree is
    a path along it, and it is a ring where the path's ends meet, a line where they do not.

    Args:
        points: of `fixed_points`; several dozen starts tell more than a few.
        horizon: T, seconds (steps where the data have no clock) over which something is held; by default the longest
            sequence.

    Returns:
        A dataset by sample: "kind" ("none", "point", "points", "line", "ring", "plane", "manifold" of more dimensions),
        "dimension" (neutral modes, the median over the points), "number" of points that count, "extent" (root mean
        square around their mean, in spreads of visited states), "share" (sample, component) of their variance along
        their principal components, "gap" (distance of the ends of the curve over its length, 1 of a straight line).

    Raises:
        TypeError: no `FixedPoints`.
        ValueError: a horizon that is not positive.

    References:
        Seung. How the brain keeps the eyes still. 1996.
        Maheswaranathan, Williams, Golub, Ganguli, Sussillo. Reverse engineering recurrent networks for sentiment
        classification reveals line attractor dynamics. 2019.
    """
    import xarray

    check_kind_of("attractor", "points", points, FixedPoints)
    found = points.dataset
    step, spread = float(found.attrs["step"]), float(found.attrs["spread"])
    span = step * float(found.attrs["steps"])
    horizon = span if horizon is None else check_number("attractor", "horizon", horizon, above=0.0)
    size = found.sizes["state_unit"]
    told = []
    for sample in range(found.sizes["sample"]):
        here = found.isel(sample=sample)
        there = here.speed.notnull().values
        modes = np.log(np.abs(here.eigenvalue.values[there]).clip(1e-300)) * horizon / step
        held = ~(modes > 1).any(-1)
        told.append(_told(here.state.values[there][held], (np.abs(modes[held]) < 1).sum(-1), spread, size))
    dims = ("sample",)
    variables: dict[str, Any] = {
        name: (dims, np.array([getattr(each, name) for each in told]))
        for name in ("kind", "dimension", "number", "extent", "gap")
    }
    variables["share"] = (("sample", "component"), np.stack([each.share for each in told]))
    coords = {name: value for name, value in found.coords.items() if value.dims == dims}
    return xarray.Dataset(variables, coords, {"horizon": horizon, "time_unit": found.attrs["time_unit"]})


class _Told(NamedTuple):
    kind: str
    dimension: float
    number: int
    extent: float
    gap: float
    share: Array


def _told(states: Array, neutral: NDArray[np.int_], spread: float, size: int) -> _Told:
    """Say it of points (point, size) with so many neutral modes each."""
    number = len(states)
    share = np.full(size, np.nan)
    if number == 0:
        return _Told("none", np.nan, 0, np.nan, np.nan, share)
    centred = states - states.mean(0)
    variance = np.linalg.svd(centred, compute_uv=False) ** 2
    total = float(variance.sum())
    extent = float(np.sqrt(total / number)) / spread
    if total > 0:
        share = np.zeros(size)
        share[: len(variance)] = variance / total
    dimension = float(np.median(neutral))
    if round(dimension) == 0 or number < LEAST or extent < EXTENT:
        return _Told("point" if number == 1 else "points", dimension, number, extent, np.nan, share)
    if dimension > 1.5:
        return _Told("plane" if dimension < 2.5 else "manifold", dimension, number, extent, np.nan, share)
    gap, closed = _ends(states)
    return _Told("ring" if closed else "line", dimension, number, extent, gap, share)


def _ends(states: Array) -> tuple[float, bool]:
    """Return how far the ends of a curve through points are apart, over its length, and whether they meet."""
    from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree  # scipy is for those who ask
    from scipy.spatial.distance import pdist, squareform

    distance = squareform(pdist(states))
    tree = minimum_spanning_tree(distance)
    along = dijkstra(tree, directed=False)
    first = int(np.argmax(along[0]))
    last = int(np.argmax(along[first]))
    length, apart = along[first, last], distance[first, last]
    return float(apart / length), bool(apart < CLOSED[0] * length and apart <= CLOSED[1] * tree.data.max())
