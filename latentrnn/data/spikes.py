"""Spike times in seconds, counted per bin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentrnn.data.arrays import Array, read_dt, to_numpy

# Bins. Timestamps are decimal, so 0.003 / 0.001 falls short of 3 in floating point and would land one bin early.
ROUNDING = 1e-6


def count_spikes(
    spike_times: Any, *, dt: float, duration: Any, start: Any, channel_names: Sequence[str] | None
) -> tuple[list[Array], Sequence[str] | None]:
    """Counts (time, channel) per sequence, and the channel names when spike times came by name.

    Bin t of a sequence counts the spikes in [start + t dt, start + (t + 1) dt).

    Raises:
        TypeError: when the nesting is not sequences of channels of times.
        ValueError: when spikes lie outside the sequence, or `duration` is no whole number of bins.
    """
    width = read_dt(dt)
    if width is None:
        raise TypeError("dt: expected a number of seconds per bin, found None")
    sequences, names = _by_sequence(spike_times)
    if names is not None:
        if channel_names is not None and list(channel_names) != names:
            raise ValueError(f"channel_names: expected the names in spike_times, {names}, found {list(channel_names)}")
        channel_names = names
    if not sequences:
        raise ValueError("spike_times: expected at least one sequence, found none")
    durations, starts = (
        _per_sequence("duration", duration, len(sequences)),
        _per_sequence("start", start, len(sequences)),
    )
    counts = []
    for index, channels in enumerate(sequences):
        if len(channels) != len(sequences[0]):
            raise ValueError(
                f"spike_times: expected {len(sequences[0])} channels as at sequence 0, found {len(channels)} at "
                f"sequence {index}"
            )
        num_bins = _num_bins(float(durations[index]), width, index)
        count = np.zeros((num_bins, len(channels)), dtype=np.int64)
        for channel, times in enumerate(channels):
            place = f"sequence {index}, channel {channel}"
            seconds = _read_times(times, place)
            with np.errstate(over="ignore"):
                bins = np.floor((seconds - starts[index]) / width + ROUNDING)
            outside = (bins < 0) | (bins >= num_bins)
            if outside.any():
                first, last = starts[index], starts[index] + durations[index]
                raise ValueError(
                    f"spike_times: expected seconds in [{first:g}, {last:g}), found {int(outside.sum())} of "
                    f"{len(seconds)} spikes outside at {place}, such as {seconds[outside][0]:g}"
                )
            count[:, channel] = np.bincount(bins.astype(np.int64), minlength=num_bins)
        counts.append(count)
    return counts, channel_names


def _by_sequence(spike_times: Any) -> tuple[list[list[Any]], list[str] | None]:
    """Spike times as sequences of channels, from lists or from dicts by channel name at either level."""
    if isinstance(spike_times, Mapping):
        names = [str(name) for name in spike_times]
        channels = list(spike_times.values())
        for name, channel in zip(names, channels, strict=True):
            if not isinstance(channel, list | tuple):
                raise TypeError(
                    f"spike_times[{name!r}]: expected a list with one array per sequence, found "
                    f"{type(channel).__name__}; write [x] for one sequence"
                )
            if len(channel) != len(channels[0]):
                expected = f"{len(channels[0])} sequences as for {names[0]!r}"
                raise ValueError(f"spike_times[{name!r}]: expected {expected}, found {len(channel)}")
        return [list(sequence) for sequence in zip(*channels, strict=True)], names
    if not isinstance(spike_times, list | tuple):
        raise TypeError(
            f"spike_times: expected a list over sequences of lists over channels, found {type(spike_times).__name__}"
        )
    by_name = spike_times and isinstance(spike_times[0], Mapping)
    labels = [str(name) for name in spike_times[0]] if by_name else None
    sequences = []
    for index, sequence in enumerate(spike_times):
        if labels is not None:
            if not isinstance(sequence, Mapping) or {str(name) for name in sequence} != set(labels):
                found = list(sequence) if isinstance(sequence, Mapping) else type(sequence).__name__
                raise ValueError(f"spike_times: expected channels {labels} at sequence {index}, found {found}")
            by_string = {str(name): times for name, times in sequence.items()}
            sequences.append([by_string[name] for name in labels])
            continue
        if not isinstance(sequence, list | tuple):
            raise TypeError(
                f"spike_times: expected a list over channels at sequence {index}, found {type(sequence).__name__}; "
                "write [[x]] for one channel of one sequence"
            )
        sequences.append(list(sequence))
    return sequences, labels


def _read_times(times: Any, place: str) -> Array:
    array = to_numpy(f"spike_times at {place}", times).astype(np.float64)
    if array.ndim != 1:
        raise ValueError(f"spike_times: expected an array of times at {place}, found shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"spike_times: expected finite seconds, found {array[~np.isfinite(array)][0]} at {place}")
    return array


def _per_sequence(name: str, value: Any, count: int) -> Array:
    array = to_numpy(name, value).astype(np.float64)
    if array.shape not in ((), (count,)) or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected a number of seconds, or one for each of {count} sequences, found {value!r}")
    return np.broadcast_to(array, (count,))


def _num_bins(duration: float, dt: float, index: int) -> int:
    bins = round(duration / dt)
    if bins < 1 or abs(bins - duration / dt) > ROUNDING * max(bins, 1):
        raise ValueError(
            f"duration: expected a whole number of bins of {dt:g} s, found {duration:g} s at sequence {index}"
        )
    return bins
