"""Spike times in seconds, counted per bin."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentrnn.data.ingest.arrays import Array
from latentrnn.data.ingest.seconds import EXACT, Seconds, read_dt, to_seconds

# Bins. Timestamps are decimal, so 0.003 / 0.001 falls short of 3 in floating point and would land one bin early.
ROUNDING = 1e-6
COARSE = 0.25  # bins by which times may be rounded; beyond it nobody knows in which bin a spike is


def count_spikes(
    spike_times: Any, *, dt: float, duration: Any, start: Any, channel_names: Sequence[str] | None
) -> tuple[list[Array], Sequence[str] | None]:
    """Counts (time, channel) per sequence, and the channel names when spike times came by name.

    Bin t of a sequence counts the spikes in [start + t dt, start + (t + 1) dt), in which a spike that misses an edge
    by less than its time is rounded, in the type in which it came, counts as at the edge.

    Raises:
        TypeError: when the nesting is not sequences of channels of times.
        ValueError: when spikes lie outside the sequence, `duration` is no whole number of bins, bins are more than
            memory holds, or times are too coarse to tell them apart.
    """
    if dt is None:
        raise TypeError("dt: expected a number of seconds per bin, found None")
    width = read_dt(dt)
    sequences, names = _by_sequence(spike_times)
    if names is not None:
        if channel_names is not None and list(channel_names) != names:
            raise ValueError(f"channel_names: expected the names in spike_times, {names}, found {list(channel_names)}")
        channel_names = names
    if not sequences:
        raise ValueError("spike_times: expected at least one sequence, found none")
    durations = _per_sequence("duration", duration, len(sequences))
    starts = _per_sequence("start", start, len(sequences))
    bins = [_num_bins(float(seconds), width, index) for index, seconds in enumerate(durations.values)]
    _check_memory(sum(bins) * len(sequences[0]), width, float(durations.values.max()))
    counts = []
    for index, channels in enumerate(sequences):
        if len(channels) != len(sequences[0]):
            raise ValueError(
                f"spike_times: expected {len(sequences[0])} channels as at sequence 0, found {len(channels)} at "
                f"sequence {index}"
            )
        begin = starts._replace(values=starts.values[index])
        count = np.zeros((bins[index], len(channels)), dtype=np.int64)
        for channel, times in enumerate(channels):
            chosen = _bins_of(times, begin, width, bins[index], f"sequence {index}, channel {channel}")
            count[:, channel] = np.bincount(chosen, minlength=bins[index])
        counts.append(count)
    return counts, channel_names


def _bins_of(times: Any, begin: Seconds, width: float, num_bins: int, place: str) -> Array:
    """The bin of every spike of one channel."""
    found = _read_times(times, place)
    seconds = found.values
    if found.dates and not begin.dates and len(seconds):
        raise TypeError(f"start: expected a date, since the spike times at {place} are dates; found {begin.values:g}")
    # the last digit of the times and of the start, in bins
    rounding = (np.abs(seconds) * found.rounding + abs(begin.values) * begin.rounding) / width
    if (rounding > COARSE).any():
        worst = float(rounding.max()) * width
        raise ValueError(
            f"spike_times: expected times exact to a part of a bin of {width:g} s, found times that are rounded to "
            f"{worst:.2g} s at {place}; give them in float64, or counted from a later start"
        )
    with np.errstate(over="ignore"):
        position = (seconds - begin.values) / width
        bins = np.floor(position + np.maximum(rounding, ROUNDING))
    bins = np.where((bins == num_bins) & (position < num_bins), num_bins - 1, bins)
    outside = (bins < 0) | (bins >= num_bins)
    if outside.any():
        first, last = float(begin.values), float(begin.values) + num_bins * width
        raise ValueError(
            f"spike_times: expected seconds in [{first:g}, {last:g}), found {int(outside.sum())} of "
            f"{len(seconds)} spikes outside at {place}, such as {seconds[outside][0]:g}"
        )
    return np.asarray(bins, dtype=np.int64)


def _check_memory(numbers: int, width: float, duration: float) -> None:
    """Refuse counts that this machine cannot hold before they are asked for."""
    needed = numbers * 8
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not every system tells
        there = 2**40
    if needed > there:
        raise ValueError(
            f"dt: bins of {width:g} s in {duration:g} s make counts of {needed / 2**30:.0f} GiB, and this machine has "
            f"{there / 2**30:.0f}; are dt, duration and start all in seconds?"
        )


def _by_sequence(spike_times: Any) -> tuple[list[list[Any]], list[str] | None]:
    """Spike times as sequences of channels, from lists or from dicts by channel name at either level."""
    if isinstance(spike_times, Mapping):
        if hasattr(spike_times, "time_support"):  # the units of one recording, in pynapple
            kind = type(spike_times).__name__
            raise TypeError(f"spike_times: expected a list over sequences, found one {kind}; write [x]")
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
        if not _is_list(sequence):
            raise TypeError(
                f"spike_times: expected a list over channels at sequence {index}, found {type(sequence).__name__}; "
                "write [[x]] for one channel of one sequence"
            )
        sequences.append(list(sequence))
    return sequences, labels


def _is_list(value: Any) -> bool:
    """Whether it is a list of channels, neo's own kind of list included, and no array of times."""
    if isinstance(value, list | tuple):
        return True
    array = hasattr(value, "dtype") or isinstance(value, str | bytes | Mapping)
    return hasattr(value, "__getitem__") and not array


def _read_times(times: Any, place: str) -> Seconds:
    found = to_seconds(f"spike_times at {place}", times)
    if found.values.ndim != 1:
        raise ValueError(f"spike_times: expected an array of times at {place}, found shape {found.values.shape}")
    if not np.isfinite(found.values).all():
        bad = found.values[~np.isfinite(found.values)][0]
        raise ValueError(f"spike_times: expected finite seconds, found {bad} at {place}")
    return found


def _per_sequence(name: str, value: Any, count: int) -> Seconds:
    found = to_seconds(name, value)
    if found.values.shape not in ((), (count,)) or not np.isfinite(found.values).all():
        raise ValueError(f"{name}: expected a number of seconds, or one for each of {count} sequences, found {value!r}")
    if found.dates and name == "duration":
        raise TypeError(f"duration: expected seconds, found dates: {value!r}")
    # a decimal in single precision is that decimal
    exact = found.values if found.rounding == EXACT else np.asarray(np.float32(found.values).astype(str), np.float64)
    return found._replace(values=np.broadcast_to(exact, (count,)))


def _num_bins(duration: float, dt: float, index: int) -> int:
    bins = round(duration / dt)
    if bins < 1 or abs(bins - duration / dt) > ROUNDING * max(bins, 1):
        raise ValueError(
            f"duration: expected a whole number of bins of {dt:g} s, found {duration:g} s at sequence {index}"
        )
    return bins
