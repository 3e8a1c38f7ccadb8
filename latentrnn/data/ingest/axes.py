"""Arrays whose axes have names (xarray, tables with named columns): matched by name, never by position."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from latentrnn.data.ingest.plain_numbers import is_frame, is_labelled
from latentrnn.support.shown import shown

# What the axes may be called, in singular or plural, besides what `SequenceData.to_xarray` calls them.
NAMES = {
    "sequence": ("sequence", "trial", "episode", "epoch", "segment"),
    "time": ("time", "t", "step", "bin", "frame", "timestep", "time_bin"),
    "channel": ("channel", "feature", "unit", "neuron", "cell", "electrode", "roi", "variable"),
}


class Named(NamedTuple):
    """What a user gave for a head or covariate, in the order (sequence, time, channel), and what it calls these.

    Attributes:
        values: an array, or a list of one per sequence.
        channels: name of each channel or feature; None where it does not say.
        sequences: name of each sequence; None where it does not say.
        times: coordinates of its steps, for all sequences; None where it does not say.
    """

    values: Any
    channels: tuple[str, ...] | None = None
    sequences: tuple[str, ...] | None = None
    times: Any = None


def by_name(where: str, name: str, value: Any, axes: tuple[str, ...]) -> Named:
    """Match axes by name where they have names; whatever has none stays as it is.

    Args:
        where: what it is, for the error.
        name: of the head or covariate.
        value: an array of these axes, or a list over sequences of arrays of the others.
        axes: of "sequence", "time" and "channel", in this order.

    Raises:
        ValueError: an axis whose name is not known, an axis too few or too many, or sequences whose channels differ.
    """
    if is_labelled(value):
        ordered = _ordered(where, name, value, axes)
        names = _labels(where, ordered, axes, "channel"), _labels(where, ordered, axes, "sequence")
        return Named(ordered, *names, _times(ordered, axes))
    if not isinstance(value, list | tuple) or not any(is_labelled(item) or is_frame(item) for item in value):
        return Named(value)
    return _listed(where, name, value, tuple(axis for axis in axes if axis != "sequence"))


def _listed(where: str, name: str, value: Any, axes: tuple[str, ...]) -> Named:
    arrays, channels, units = [], [], set()
    for index, item in enumerate(value):
        if is_labelled(item):
            item = _ordered(f"{where}, sequence {index}", name, item, axes)
            channels.append(_labels(where, item, axes, "channel"))
            units.add(item.attrs.get("units"))
        elif is_frame(item) and "channel" in axes:
            # those of a table without names are numbers, as ours are
            channels.append(tuple(str(column) for column in item.columns))
        else:
            channels.append(None)
        arrays.append(item)
    if len(units) > 1:
        raise ValueError(f"{where}: expected all sequences in the same unit, found {sorted(map(str, units))}")
    first = next((labels for labels in channels if labels is not None), None)
    for index, labels in enumerate(channels):
        if labels is None or labels == first or first is None:
            continue
        if sorted(labels) != sorted(first) or len(set(first)) < len(first):
            raise ValueError(
                f"{where}: expected the channels or features {shown(list(first))} as in the first sequence with names, "
                f"found {shown(list(labels))} at sequence {index}"
            )
        arrays[index] = _columns(arrays[index], [labels.index(label) for label in first], axes)
    return Named(arrays, first)


def _columns(array: Any, order: list[int], axes: tuple[str, ...]) -> Any:
    if is_labelled(array):
        return array.isel({array.dims[axes.index("channel")]: order})
    return array.iloc[:, order] if hasattr(array, "iloc") else np.asarray(array)[:, order]


def _ordered(where: str, name: str, array: Any, axes: tuple[str, ...]) -> Any:
    """An array of xarray with its axes in order, found by their names."""
    last = "feature" if where.startswith("covariates") else "channel"
    found = {}
    for dim in array.dims:
        axis = axis_of(str(dim), name)
        if axis is None or axis not in axes or axis in found:
            known = "; ".join(f"{a}: {', '.join(NAMES[a])}" for a in axes)
            what = "two axes" if axis in found else "an axis"
            raise ValueError(
                f"{where}: expected the axes {_worded(axes, last)} by name ({known}), found {what} of another name in "
                f"{tuple(array.dims)}; write x.rename({{{str(dim)!r}: ...}})"
            )
        found[axis] = dim
    absent = [axis for axis in axes if axis not in found]
    if absent:
        if absent == ["sequence"]:
            hint = f"; write x.expand_dims({'sequence'!r}) or [x] for one sequence"
        else:
            hint = f"; write x.expand_dims({(last if absent == ['channel'] else absent[0])!r}) for one {absent[0]}"
        raise ValueError(f"{where}: expected the axes {_worded(axes, last)}, found {tuple(array.dims)}{hint}")
    return array.transpose(*(found[axis] for axis in axes))


def axis_of(dim: str, name: str) -> str | None:
    """Which of our axes an axis of this name is, of the head or covariate `name`; None where it is none."""
    own = {f"{name}_channel": "channel", f"{name}_feature": "channel", f"{name}_time": "time"}
    if dim in own:
        return own[dim]
    plain = dim.lower()
    return next((axis for axis, names in NAMES.items() if plain in names or plain.removesuffix("s") in names), None)


def _labels(where: str, array: Any, axes: tuple[str, ...], axis: str) -> tuple[str, ...] | None:
    """The coordinates along an axis, which are its names."""
    if axis not in axes or (dim := array.dims[axes.index(axis)]) not in array.coords:
        return None
    labels = tuple(str(label) for label in np.asarray(array.coords[dim]).tolist())
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        option = "sequence_names" if axis == "sequence" else "channel_names or feature_names"
        raise ValueError(
            f"{where}: expected every coordinate of {dim!r} once, found {twice!r} twice; drop it with "
            f"x.drop_vars({dim!r}) and name them by {option}"
        )
    return labels


def _times(array: Any, axes: tuple[str, ...]) -> Any:
    if "time" not in axes or (dim := array.dims[axes.index("time")]) not in array.coords:
        return None
    return np.asarray(array.coords[dim])


def check_same(where: str, named: Named, leader: str, others: Named) -> None:
    """Raise a ValueError where what belongs to a head names its sequences or channels otherwise."""
    for what in ("sequences", "channels"):
        found, expected = getattr(named, what), getattr(others, what)
        if found is not None and expected is not None:
            check_equal(where, what, found, leader, expected)


def check_equal(where: str, what: str, found: Any, leader: str, expected: Any) -> None:
    """Check that names along an axis are those of what was read first, in the same order.

    Args:
        where, leader: what is checked and what came first, as messages call them.
        what: of what these are names, e.g. "sequences".
        found, expected: the names of either.

    Raises:
        ValueError: they differ.
    """
    if found != expected:
        raise ValueError(
            f"{where}: expected the {what} {shown(list(expected))} as in {leader}, found {shown(list(found))}; select "
            "the same ones in the same order"
        )


def _worded(axes: tuple[str, ...], last: str) -> str:
    return f"({', '.join(last if axis == 'channel' else axis for axis in axes)})"
