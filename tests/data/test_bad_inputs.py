"""Every mistake in what `from_arrays` is given is named: what, what was expected, what came, and where."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from latentrnn.data import DataSpec, HeadSpec, SequenceData, StoredSequences

COUNTS = np.arange(24.0).reshape(2, 4, 3)
STIMULUS = np.linspace(0, 1, 8).reshape(2, 4, 1)


def spoiled(value: float, at: tuple[int, ...] = (1, 2, 0), array: np.ndarray = COUNTS) -> np.ndarray:
    out = array.copy()
    out[at] = value
    return out


def read(observations: Any = None, covariates: Any = None, **options: Any) -> Callable[[], Any]:
    return lambda: SequenceData.from_arrays(
        {"y": COUNTS} if observations is None else observations, covariates, **options
    )


def spikes(times: Any, **options: Any) -> Callable[[], Any]:
    return lambda: SequenceData.from_spike_times(times, **{"dt": 0.001, "duration": 0.01, **options})


# name: (what the user does, error, the message in full or its telling part)
ARRAYS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "observations are no dict": (
        read(COUNTS),
        TypeError,
        "observations: expected a dict of name to array, found ndarray",
    ),
    "no head": (read({}), ValueError, "observations: expected at least one head, found none"),
    "covariates are no dict": (read(None, STIMULUS), TypeError, "covariates: expected a dict of name to array"),
    "name is no string": (read({1: COUNTS}), TypeError, "observations[1]: expected a string as name, found int"),
    "name is no identifier": (read({"my y": COUNTS}), ValueError, "like a Python identifier, found 'my y'"),
    "name of a latent site": (read({"states": COUNTS}), ValueError, "observations['states']: expected another name"),
    "name of an axis": (read(None, {"time": STIMULUS}), ValueError, "covariates['time']: expected another name"),
    "name of a coordinate": (
        read(None, {"y_channel": STIMULUS}),
        ValueError,
        "covariates['y_channel']: expected another name, since exports of 'y' use it",
    ),
    "name used twice": (read(None, {"y": STIMULUS}), ValueError, "found the name of an observation head"),
    "strings": (
        read({"y": COUNTS.astype(str)}),
        TypeError,
        "observations['y']: expected real numbers, found strings",
    ),
    "complex": (
        read({"y": COUNTS + 1j}),
        TypeError,
        "observations['y']: expected real numbers, found complex numbers",
    ),
    "objects": (read({"y": None}), TypeError, "observations['y']: expected real numbers, found Python objects"),
    "ragged rows": (
        read({"y": [[[1.0, 2.0], [3.0]]]}),
        ValueError,
        "observations['y'], sequence 0: expected a rectangular array, found rows of different lengths",
    ),
    "two axes": (
        read({"y": COUNTS[0]}),
        ValueError,
        "observations['y']: expected an array (sequence, time, channel) or a list of (time, channel), "
        "found shape (4, 3)",
    ),
    "one axis in a list": (
        read({"y": [COUNTS[0], COUNTS[0, :, 0]]}),
        ValueError,
        "found shape (4,) at sequence 1; write x[:, None] for one channel",
    ),
    "channels differ": (
        read({"y": [COUNTS[0], COUNTS[0, :, :2]]}),
        ValueError,
        "observations['y']: expected 3 channels as at sequence 0, found 2 at sequence 1",
    ),
    "zero channels": (read({"y": COUNTS[..., :0]}), ValueError, "observations['y']: expected at least one channel"),
    "zero features": (
        read(None, {"x": STIMULUS[..., :0]}),
        ValueError,
        "covariates['x']: expected at least one feature",
    ),
    "zero sequences": (
        read({"y": COUNTS[:0]}),
        ValueError,
        "observations['y']: expected at least one sequence, found none",
    ),
    "zero sequences in a list": (read({"y": []}), ValueError, "expected at least one sequence, found none"),
    "T = 0": (
        read({"y": COUNTS[:, :0]}),
        ValueError,
        "observations['y']: expected at least one step, found 0 at sequence 0",
    ),
    "T = 0 once": (
        read({"y": [COUNTS[0], COUNTS[1, :0]]}),
        ValueError,
        "observations['y']: expected at least one step, found 0 at sequence 1",
    ),
    "infinite": (
        read({"y": spoiled(np.inf)}),
        ValueError,
        "observations['y']: expected finite values, found inf at sequence 1, step 2, channel 0",
    ),
    "infinite covariate": (
        read(None, {"x": spoiled(-np.inf, array=STIMULUS)}),
        ValueError,
        "covariates['x']: expected finite values, found -inf at sequence 1, step 2, channel 0",
    ),
    "NaN in a covariate": (
        read(None, {"x": spoiled(np.nan, array=STIMULUS)}),
        ValueError,
        "covariates['x']: expected a value at every step, since covariates cannot be missing, "
        "found nan at sequence 1, step 2",
    ),
    "too large for float32": (
        read({"y": spoiled(1e300)}),
        ValueError,
        "observations['y']: expected values within the range of torch.float32, found 1e+300 at sequence 1, step 2",
    ),
    "integers beyond float32": (
        read({"y": spoiled(2**24 + 1).astype(np.int64)}),
        ValueError,
        "expected whole numbers up to 16777216, beyond which torch.float32 is not exact, found 16777217 at sequence 1",
    ),
    "sequences differ": (
        read(None, {"x": STIMULUS[:1]}),
        ValueError,
        "covariates['x']: expected 2 sequences as in observations['y'], found 1",
    ),
    "lengths differ": (
        read(None, {"x": [STIMULUS[0], STIMULUS[1, :3]]}),
        ValueError,
        "covariates['x']: expected 4 steps as in observations['y'], found 3 at sequence 1",
    ),
    "lengths of heads differ": (
        read({"a": [COUNTS[0], COUNTS[1]], "b": [COUNTS[0, :2], COUNTS[1]]}),
        ValueError,
        "observations['b']: expected 4 steps as in observations['a'], found 2 at sequence 0",
    ),
    "per_sequence is unknown": (
        read(per_sequence=["label"]),
        ValueError,
        "per_sequence: expected a head or covariate among ['y'], found 'label'",
    ),
    "per_sequence is a string": (read(per_sequence="y"), TypeError, "per_sequence: expected names, found 'y'"),
    "per_sequence twice": (
        read({"y": COUNTS, "z": COUNTS[:, 0]}, per_sequence=["z", "z"]),
        ValueError,
        "per_sequence: expected every name once, found 'z' twice",
    ),
    "per_sequence with time": (
        read(per_sequence=["y"]),
        ValueError,
        "observations['y']: expected an array (sequence, channel), found shape (2, 4, 3)",
    ),
    "per_sequence with one axis": (
        read({"y": COUNTS, "z": np.ones(2)}, per_sequence=["z"]),
        ValueError,
        "found shape (2,); write x[:, None] for one channel",
    ),
    "per_sequence only": (
        read({"z": np.ones((2, 1))}, per_sequence=["z"]),
        ValueError,
        "observations: expected a head or covariate with one value per step, found per_sequence only",
    ),
    "masks unknown": (
        read(masks={"z": COUNTS > 0}),
        ValueError,
        "masks: expected an observation head among ['y'], found 'z'",
    ),
    "masks are no dict": (
        read(masks=COUNTS > 0),
        TypeError,
        "masks: expected a dict of name to value, found ndarray",
    ),
    "mask of numbers": (
        read(masks={"y": COUNTS}),
        TypeError,
        "masks['y']: expected booleans, True where observed, found dtype float64",
    ),
    "mask of another shape": (
        read(masks={"y": COUNTS[..., :2] > 0}),
        ValueError,
        "masks['y']: expected shape (4, 3) at sequence 0, found (4, 2)",
    ),
    "mask of fewer sequences": (
        read(masks={"y": COUNTS[:1] > 0}),
        ValueError,
        "masks['y']: expected 2 sequences, found 1",
    ),
    "clock unknown": (
        read(clocks={"z": 2}),
        ValueError,
        "clocks: expected an observation head among ['y'], found 'z'",
    ),
    "clock zero": (read(clocks={"y": 0}), ValueError, "clocks['y']: expected at least 1, found 0"),
    "clock is no whole number": (read(clocks={"y": 1.5}), TypeError, "clocks['y']: expected a whole number"),
    "clock of a per-sequence head": (
        read({"y": COUNTS, "z": COUNTS[:, 0]}, per_sequence=["z"], clocks={"z": 2}),
        ValueError,
        "clocks['z']: expected no clock, since the head is named in per_sequence, found 2",
    ),
    "frames do not fit the clock": (
        read({"y": COUNTS, "slow": COUNTS[:, :3]}, clocks={"slow": 2}),
        ValueError,
        "observations['slow']: expected 2 frames, one every 2 of the 4 steps in observations['y'], "
        "found 3 at sequence 0",
    ),
    "clock too slow": (
        read({"y": COUNTS, "slow": COUNTS[:, :0]}, clocks={"slow": 9}),
        ValueError,
        "observations['slow']: expected at least one frame, found none in any sequence",
    ),
    "times and dt": (read(times=np.ones((2, 4)), dt=0.1), ValueError, "dt: expected either dt or times, found both"),
    "times of another length": (
        read(times=[np.arange(4), np.arange(3)]),
        ValueError,
        "times: expected 4 steps as in observations['y'], found 3 at sequence 1",
    ),
    "times of another shape": (read(times=np.arange(4)), ValueError, "times: expected an array (sequence, time)"),
    "times stand still": (
        read(times=np.array([[0, 1, 2, 3], [0, 1, 1, 2]])),
        ValueError,
        "times: expected times that increase within a sequence, found 1.0 at sequence 1, step 2",
    ),
    "times not finite": (
        read(times=np.array([[0, 1, 2, 3], [0, 1, np.nan, 2]])),
        ValueError,
        "times: expected finite seconds, found nan at sequence 1, step 2",
    ),
    "dt zero": (read(dt=0), ValueError, "dt: expected a positive, finite number of seconds, found 0"),
    "dt negative": (read(dt=-0.1), ValueError, "dt: expected a positive, finite number of seconds, found -0.1"),
    "dt is a string": (read(dt="1 ms"), TypeError, "dt: expected a number of seconds, found '1 ms'"),
    "totals do not add up": (
        read(totals={"y": spoiled(0, (1, 2), COUNTS.sum(-1))}),
        ValueError,
        "totals['y']: expected 57, the sum over channels, found 0 at sequence 1, step 2",
    ),
    "totals below what was seen": (
        read({"y": spoiled(np.nan)}, totals={"y": spoiled(1, (1, 2), COUNTS.sum(-1))}),
        ValueError,
        "totals['y']: expected at least 39, found 1 at sequence 1, step 2",
    ),
    "totals of another length": (
        read(totals={"y": COUNTS.sum(-1)[:, :3]}),
        ValueError,
        "totals['y']: expected 4 steps as in observations['y'], found 3 at sequence 0",
    ),
    "totals with channels": (
        read(totals={"y": COUNTS}),
        ValueError,
        "totals['y']: expected an array (sequence, time)",
    ),
    "channel names too few": (
        read(channel_names={"y": ["a", "b"]}),
        ValueError,
        "channel_names['y']: expected 3 names, found 2",
    ),
    "channel names twice": (
        read(channel_names={"y": ["a", "b", "a"]}),
        ValueError,
        "channel_names['y']: expected every name once, found 'a' twice",
    ),
    "channel names as one string": (read(channel_names={"y": "abc"}), TypeError, "expected a list of 3 names"),
    "feature names unknown": (
        read(feature_names={"x": ["a"]}),
        ValueError,
        "feature_names: expected a covariate among []",
    ),
    "sequence names twice": (
        read(sequence_names=["a", "a"]),
        ValueError,
        "sequence_names: expected every name once",
    ),
    "standardise unknown": (
        read(standardise=["z"]),
        ValueError,
        "standardise: expected a head or covariate among ['y'], found 'z'",
    ),
    "constant channel": (
        read({"y": np.concatenate([COUNTS, np.full((2, 4, 1), 7.0)], -1)}, standardise=["y"]),
        ValueError,
        "standardise: expected values that vary in observations['y'], channel '3', found only 7",
    ),
    "channel never observed": (
        read({"y": np.where(np.arange(3) == 1, np.nan, COUNTS)}, standardise=["y"]),
        ValueError,
        "standardise: expected observed values in observations['y'], channel '1', found none",
    ),
    "scale zero": (
        read(standardise={"y": (0.0, [1.0, 0.0, 1.0])}),
        ValueError,
        "standardise['y']: expected scale to be positive and finite",
    ),
    "location of another size": (
        read(standardise={"y": ([0.0, 0.0], 1.0)}),
        ValueError,
        "standardise['y']: expected a location or one for each of 3 channels",
    ),
    "standardise without a pair": (read(standardise={"y": 1.0}), TypeError, "expected (location, scale), found 1.0"),
    "half precision": (read(dtype=torch.float16), ValueError, "dtype: expected torch.float32 or torch.float64"),
    "spike outside": (
        spikes([[[0.001, 17.0, 18.0]]]),
        ValueError,
        "spike_times: expected seconds in [0, 0.01), found 2 of 3 spikes outside at sequence 0, channel 0, such as 17",
    ),
    "spike at the end": (spikes([[[0.01]]]), ValueError, "found 1 of 1 spikes outside"),
    "spike NaN": (spikes([[[np.nan]]]), ValueError, "spike_times: expected finite seconds, found nan at sequence 0"),
    "spikes without channels": (spikes([np.array([0.001])]), TypeError, "write [[x]] for one channel of one sequence"),
    "spikes as an array": (
        spikes(np.zeros((2, 3))),
        TypeError,
        "expected a list over sequences of lists over channels",
    ),
    "spikes nested too deep": (
        spikes([[[[0.001]]]]),
        ValueError,
        "expected an array of times at sequence 0, channel 0",
    ),
    "spikes with fewer channels": (
        spikes([[[0.001], [0.002]], [[0.001]]]),
        ValueError,
        "spike_times: expected 2 channels as at sequence 0, found 1 at sequence 1",
    ),
    "spikes with other names": (
        spikes([{"a": [0.001]}, {"b": [0.001]}]),
        ValueError,
        "spike_times: expected channels ['a'] at sequence 1, found ['b']",
    ),
    "no spike sequence": (spikes([]), ValueError, "spike_times: expected at least one sequence, found none"),
    "spikes without channel": (spikes([[]]), ValueError, "observations['spikes']: expected at least one channel"),
    "part of a bin": (
        spikes([[[0.001]]], duration=0.0105),
        ValueError,
        "duration: expected a whole number of bins of 0.001 s, found 0.0105 s at sequence 0",
    ),
    "durations too many": (spikes([[[0.001]]], duration=[1.0, 1.0]), ValueError, "or one for each of 1 sequences"),
    "spikes with dt zero": (spikes([[[0.001]]], dt=0.0), ValueError, "dt: expected a positive, finite number"),
}

DATA = SequenceData.from_arrays({"y": np.arange(40.0).reshape(5, 4, 2), "label": np.eye(5, 2)}, per_sequence=["label"])
STEPS = DATA.select(heads=["y"])
SLOW = SequenceData.from_arrays({"slow": np.ones((5, 4, 1))}, clocks={"slow": 3})

METHODS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "fractions above 1": (lambda: DATA.split(0.7, 0.2, 0.2), ValueError, "split: expected fractions that add up to 1"),
    "fraction zero": (lambda: DATA.split(0.8, 0.0, 0.2), ValueError, "valid: expected a fraction above 0"),
    "fraction is no number": (
        lambda: DATA.split("0.8", 0.1, 0.1),
        TypeError,
        "train: expected a fraction, found '0.8'",
    ),
    "seed negative": (
        lambda: DATA.split(0.6, 0.2, 0.2, seed=-1),
        ValueError,
        "seed: expected a whole number from 0 up",
    ),
    "seed is no whole number": (
        lambda: DATA.split(0.6, 0.2, 0.2, seed=0.5),
        ValueError,
        "seed: expected a whole number",
    ),
    "too few sequences": (
        lambda: DATA[:2].split(0.6, 0.2, 0.2),
        ValueError,
        "split: expected at least 3 sequences, found 2",
    ),
    "along what": (
        lambda: DATA.split(0.6, 0.2, 0.2, along="channel"),
        ValueError,
        'along: expected "sequence" or "time"',
    ),
    "along an array": (
        lambda: DATA.split(0.6, 0.2, 0.2, along=np.array(["time", "time"])),
        ValueError,
        'along: expected "sequence" or "time"',
    ),
    "context of arrays": (
        lambda: DATA.split(0.6, 0.2, 0.2, context=np.ones(2)),
        ValueError,
        'context: expected 0 with along="sequence", found [1. 1.]',
    ),
    "labels without numbers": (
        lambda: DATA.split(0.6, 0.2, 0.2, stratify=torch.zeros(5, device="meta")),
        TypeError,
        "stratify: expected 5 labels, one per sequence, found tensor(...",
    ),
    "context along sequences": (lambda: DATA.split(0.6, 0.2, 0.2, context=2), ValueError, "context: expected 0"),
    "labels too few": (lambda: DATA.split(0.6, 0.2, 0.2, stratify=[0, 1]), ValueError, "stratify: expected 5 labels"),
    "labels unknown": (
        lambda: DATA.split(0.6, 0.2, 0.2, stratify="z"),
        ValueError,
        "stratify: expected an observation head",
    ),
    "labels of two channels": (
        lambda: DATA.split(0.6, 0.2, 0.2, stratify="label"),
        ValueError,
        "stratify: expected a per-sequence head with one channel, found 'label' (2 channels)",
    ),
    "labels along time": (
        lambda: STEPS.split(0.6, 0.2, 0.2, stratify=[0] * 5, along="time"),
        ValueError,
        'stratify: expected None with along="time"',
    ),
    "stretch without steps": (
        lambda: STEPS.split(0.8, 0.1, 0.1, along="time"),
        ValueError,
        "valid: expected at least 1 step of every sequence, found 0 of the 4 scored steps of sequence 0 ('0')",
    ),
    "stretch without a frame": (
        lambda: SLOW.split(0.5, 0.2, 0.3, along="time"),
        ValueError,
        "valid: expected at least 3 steps of every sequence, found 0 of the 12",
    ),
    "cutting a label": (
        lambda: DATA.windows(2),
        ValueError,
        "observations['label']: expected a value per step, found one value per sequence, which cannot be cut in time",
    ),
    "window of zero steps": (lambda: STEPS.windows(0), ValueError, "length: expected at least 1, found 0"),
    "window of half a step": (lambda: STEPS.windows(1.5), TypeError, "length: expected a whole number of base steps"),
    "negative context": (lambda: STEPS.windows(2, context=-1), ValueError, "context: expected at least 0, found -1"),
    "window across a frame": (
        lambda: SLOW.windows(4),
        ValueError,
        "length: expected at least 1 and a multiple of 3, at which all clocks tick, found 4",
    ),
    "slice across a frame": (
        lambda: SLOW.time_slice(1, 6),
        ValueError,
        "start: expected a multiple of 3, the clock of 'slow', found 1",
    ),
    "index out of range": (lambda: DATA[5], IndexError, "index: expected sequences from 0 to 4, found [5]"),
    "index by float": (lambda: DATA[1.0], TypeError, "index: expected an integer, a slice, integers or booleans"),
    "index without numbers": (
        lambda: DATA[torch.zeros(2, dtype=torch.int64, device="meta")],
        TypeError,
        "index: expected an integer, a slice, integers or booleans",
    ),
    "batch without numbers": (
        lambda: DATA.batch(torch.zeros(2, device="meta")),
        TypeError,
        "index: expected an integer, a slice, integers or booleans",
    ),
    "device beyond all numbers": (
        lambda: DATA.to(10**30),
        ValueError,
        "to: expected a device of this machine, found '1000000000000000000000000000000'",
    ),
    "spikes under no name": (
        lambda: SequenceData.from_spike_times([[[0.1]]], dt=0.1, duration=0.5, name=["spikes"]),
        TypeError,
        "name: expected a string, found ['spikes']",
    ),
    "too few booleans": (lambda: DATA[[True, False]], ValueError, "index: expected 5 booleans, one per sequence"),
    "nothing chosen": (lambda: DATA[[]], ValueError, "index: expected at least one sequence, found none"),
    "select unknown": (lambda: DATA.select(heads=["z"]), ValueError, "heads: expected an observation head among"),
    "select by a string": (lambda: DATA.select(heads="y"), TypeError, "heads: expected names, found 'y'"),
    "select by an empty array": (
        lambda: DATA.select(heads=np.array([])),
        ValueError,
        "heads: expected at least one head, found none",
    ),
    "select by a tensor": (
        lambda: DATA.select(heads=torch.tensor([])),
        TypeError,
        "heads: expected a list of names, found tensor([])",
    ),
    "per sequence by a generator": (
        lambda: SequenceData.from_arrays({"y": np.ones((2, 1))}, per_sequence=(name for name in ["y"])),
        TypeError,
        "per_sequence: expected a list of names, found <generator object",
    ),
    "select nothing": (lambda: DATA.select(heads=[]), ValueError, "heads: expected at least one head, found none"),
    "select unknown covariate": (
        lambda: DATA.select(covariates=["x"]),
        ValueError,
        "covariates: expected a covariate among",
    ),
    "hide in an unknown head": (
        lambda: DATA.mask_entries("z", DATA.masks["y"]),
        ValueError,
        "mask_entries: expected an observation head among ['y', 'label'], found 'z'",
    ),
    "hide with numbers": (
        lambda: DATA.mask_entries("y", DATA.observations["y"]),
        TypeError,
        "mask_entries['y']: expected a tensor of booleans, found torch.float32",
    ),
    "hide in another shape": (
        lambda: DATA.mask_entries("y", DATA.masks["label"]),
        ValueError,
        "mask_entries['y']: expected shape (5, 4, 2), found (5, 2)",
    ),
    "nothing left": (
        lambda: DATA.without(DATA),
        ValueError,
        "without: expected sequences that are not in the other data",
    ),
    "batches, generator": (
        lambda: DATA.batches(2, generator=np.random.default_rng(0)),
        TypeError,
        "generator: expected a torch.Generator or None, found Generator",
    ),
    "batches of zero": (lambda: DATA.batches(0), ValueError, "batch_size: expected a positive whole number, found 0"),
}

SLICES: dict[str, tuple[tuple[Any, Any], type[Exception], str]] = {
    "negative start": ((-2, 5), ValueError, "time_slice: expected start of at least 0, found -2: sequences end"),
    "negative stop": ((0, -1), ValueError, "time_slice: expected stop of at least 0, found -1"),
    "backwards": ((3, 1), ValueError, "time_slice: expected start < stop, and start < 4, the steps of the longest"),
    "empty": ((2, 2), ValueError, "time_slice: expected start < stop"),
    "behind the end": ((4, 6), ValueError, "time_slice: expected start < stop, and start < 4"),
    "by a word": (("a", 2), TypeError, "time_slice: expected a whole number of base steps as start, found 'a'"),
    "by a float": ((0, 2.5), TypeError, "time_slice: expected a whole number of base steps as stop, found 2.5"),
    "by a flag": ((False, True), TypeError, "time_slice: expected a whole number of base steps as start, found False"),
}
STORED = StoredSequences.from_arrays({"y": np.arange(40.0).reshape(5, 4, 2)})
METHODS |= {
    f"time slice, {kind}: {name}": (partial(data.time_slice, *ends), error, message)
    for name, (ends, error, message) in SLICES.items()
    for kind, data in (("in memory", STEPS), ("stored", STORED))
}
LABELS: dict[str, tuple[Any, type[Exception], str]] = {
    "ragged": ([[1], [1, 2], [3], [4], [5]], ValueError, "stratify: expected 5 labels, one per sequence, found lists"),
    "too many axes": (np.ones((5, 2)), ValueError, "stratify: expected 5 labels, one per sequence, found shape (5, 2)"),
    "dicts": ([{}] * 5, TypeError, "stratify: expected numbers or strings as labels, found [{}"),
}
METHODS |= {
    f"labels, {kind}: {name}": (partial(data.split, 0.6, 0.2, 0.2, stratify=labels), error, message)
    for name, (labels, error, message) in LABELS.items()
    for kind, data in (("in memory", STEPS), ("stored", STORED))
}
METHODS |= {
    "complete of an unknown head": (lambda: DATA.complete("z"), ValueError, "complete: expected an observation head"),
    "has of an unknown head": (
        lambda: DATA.has("z"),
        ValueError,
        "has: expected an observation head among ['y', 'label']",
    ),
    "scored of an unknown head": (lambda: DATA.scored("z"), ValueError, "scored: expected an observation head among"),
    "scored of no name": (lambda: DATA.scored(["y"]), ValueError, "scored: expected an observation head among"),  # type: ignore[arg-type]
    "replacing nothing": (lambda: DATA.with_observations(None), TypeError, "with_observations: expected a dict"),  # type: ignore[arg-type]
    "replacing an unknown head": (
        lambda: DATA.with_observations({"z": DATA.observations["y"]}),
        ValueError,
        "with_observations: expected an observation head among ['y', 'label'], found 'z'",
    ),
    "overlap with None": (lambda: DATA.overlaps(None), TypeError, "overlaps: expected SequenceData or Stored"),  # type: ignore[arg-type]
    "overlap with a dict": (lambda: DATA.overlaps({}), TypeError, "overlaps: expected SequenceData or Stored"),  # type: ignore[arg-type]
    "overlap of stored": (lambda: STORED.overlaps(None), TypeError, "overlaps: expected SequenceData"),  # type: ignore[arg-type]
    "without None": (lambda: DATA.without(None), TypeError, "without: expected SequenceData or Stored"),  # type: ignore[arg-type]
    "unknown device": (lambda: DATA.to("gpu"), ValueError, "to: expected a device of this machine, found 'gpu'"),
    "no device": (lambda: DATA.to(1.5), TypeError, "to: expected a device or its name, such as 'cpu'"),  # type: ignore[arg-type]
    "unknown device of stored": (lambda: STORED.to("gpu"), ValueError, "to: expected a device of this machine"),
    "dtype by name": (lambda: DATA.to(dtype="float32"), TypeError, "dtype: expected torch.float32 or torch.float64"),  # type: ignore[arg-type]
    "dtype of whole numbers": (lambda: DATA.to(dtype=torch.int64), ValueError, "dtype: expected torch.float32 or"),
    "slice by floats": (lambda: DATA[0.5:2], TypeError, "index: expected whole numbers in a slice"),  # type: ignore[misc]
    "ragged index": (lambda: DATA[[[1], [1, 2]]], TypeError, "index: expected an integer, a slice"),
    "batch out of range": (lambda: DATA.batch([7]), IndexError, "index: expected sequences from 0 to 4, found [7]"),  # type: ignore[arg-type]
    "select by an array without axes": (lambda: DATA.select(heads=np.array("y")), TypeError, "heads: expected names"),
    "select by numbers": (lambda: DATA.select(heads=[1]), ValueError, "heads: expected an observation head among"),  # type: ignore[list-item]
}


HEAD = HeadSpec("y", 2, ("a", "b"))
SPEC = DataSpec({"y": HEAD}, {}, dt=0.001)
SPECS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "head is missing": (
        lambda: SPEC.check_compatible(DataSpec({"z": HeadSpec("z", 2, ("a", "b"))}, {}, 0.001)),
        ValueError,
        "observations['y']: expected by the model, but the data has only ['z']",
    ),
    "head is unknown": (
        lambda: SPEC.check_compatible(DataSpec({"y": HEAD, "z": HeadSpec("z", 1, ("a",))}, {}, 0.001)),
        ValueError,
        "observations['z']: unknown to the model, which has ['y']; drop it with data.select",
    ),
    "channels": (
        lambda: SPEC.check_compatible(DataSpec({"y": HeadSpec("y", 1, ("a",))}, {}, 0.001)),
        ValueError,
        "observations['y'].channels: expected 2, found 1",
    ),
    "channel order": (
        lambda: SPEC.check_compatible(DataSpec({"y": HeadSpec("y", 2, ("b", "a"))}, {}, 0.001)),
        ValueError,
        "observations['y'].channel_names: expected ('a', 'b'), found ('b', 'a')",
    ),
    "dt": (
        lambda: SPEC.check_compatible(DataSpec({"y": HEAD}, {}, 0.002)),
        ValueError,
        "dt: expected 0.001, found 0.002",
    ),
    "irregular": (
        lambda: DataSpec({"y": HEAD}, {}).check_compatible(DataSpec({"y": HEAD}, {}, irregular=True)),
        ValueError,
        "irregular: expected False, found True",
    ),
    "damaged: field lost": (lambda: DataSpec.from_json({"heads": []}), ValueError, "data spec: expected what"),
    "damaged: no dict": (lambda: DataSpec.from_json(None), ValueError, "data spec: expected what"),  # type: ignore[arg-type]
    "damaged: foreign field": (
        lambda: DataSpec.from_json({**SPEC.to_json(), "heads": [{"colour": "red"}]}),
        ValueError,
        "data spec: expected what DataSpec.to_json writes",
    ),
    "damaged: sizes disagree": (
        lambda: DataSpec.from_json({**SPEC.to_json(), "heads": [{"name": "y", "channels": 3, "channel_names": ["a"]}]}),
        ValueError,
        "data spec, heads['y']: expected one name per channel",
    ),
}

CASES = {
    f"{room}: {name}": case
    for room, cases in (("arrays", ARRAYS), ("methods", METHODS), ("spec", SPECS))
    for name, case in cases.items()
}


def test_numbers_of_numpy_are_numbers() -> None:
    parts = DATA.split(np.float32(0.6), np.float64(0.2), np.float32(0.2), seed=np.int64(3))
    assert [len(part) for part in parts] == [len(part) for part in DATA.split(0.6, 0.2, 0.2, seed=3)]
    assert STEPS.time_slice(np.int64(1), np.uint8(3)).num_steps == 2
    assert STEPS.windows(np.int32(2), context=np.int64(1)).num_sequences == 10
    assert [len(batch) for batch in DATA.batches(np.int64(2))] == [2, 2, 1]
    assert [len(batch) for batch in DATA.batches(10**20)] == [5]
    assert DATA.batch([1, 3]).names == DATA.batch(torch.tensor([1, 3])).names == ("1", "3")
    clocked = SequenceData.from_arrays({"y": np.ones((1, 2, 1))}, dt=np.float64(0.1), clocks={"y": np.int64(2)})
    assert clocked.spec.heads["y"].clock == 2


def test_labels_of_any_kind() -> None:
    data = SequenceData.from_arrays({"y": np.ones((10, 3, 1))})
    for labels in (["a", None] * 5, [1, np.nan] * 5, pd.Series([1, 2] * 5), pd.array([1, None] * 5), [1, "a"] * 5):
        for part in data.split(0.4, 0.4, 0.2, seed=0, stratify=labels):
            first = sum(int(name) % 2 == 0 for name in part.names)
            assert first == len(part) - first


@pytest.mark.parametrize("name", CASES)
def test_mistakes_are_named(name: str) -> None:
    mistake, error, message = CASES[name]
    with pytest.raises(error, match=re.escape(message)):
        mistake()
