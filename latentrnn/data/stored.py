"""Sequences that stay in files and are read batch by batch: data sets larger than memory."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.data import batching, splitting
from latentrnn.data.arrays import Array
from latentrnn.data.door import read_arrays, read_stretch, read_times, refuse_without_frames
from latentrnn.data.keys import ContentDigest, overlapping
from latentrnn.data.names import read_labels
from latentrnn.data.padding import continued, first_observed
from latentrnn.data.sequence_data import SequenceData
from latentrnn.data.spec import DataSpec, SequenceKey
from latentrnn.data.summary import describe
from latentrnn.data.windowing import bounds

CPU = torch.device("cpu")
READ_AT_ONCE = 2**20  # numbers that are read at once to look through everything
STARTING_VALUES = 2**22  # numbers from which a fit takes its starting baselines and scales
STRETCHES = 16  # parts of long sequences among which these are spread
GOLDEN = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True)
class _Source:
    """An array (sequence, ...) in a file, or a list of arrays, one per sequence, of which stretches are read."""

    value: Any

    def __len__(self) -> int:
        return len(self.value)

    def shape(self, sequence: int) -> tuple[int, ...]:
        """Return the shape of a sequence's array, which is not read."""
        if isinstance(self.value, list | tuple):
            return tuple(np.shape(self.value[sequence]))
        return tuple(np.shape(self.value)[1:])

    def read(self, sequence: int, start: int | None = None, stop: int | None = None) -> Array:
        """Return steps `start` to `stop - 1` of a sequence; without them all that there is of it."""
        item = self.value[sequence] if isinstance(self.value, list | tuple) or start is None else None
        if item is not None:
            return np.asarray(item if start is None else item[start:stop])
        return np.asarray(self.value[sequence, start:stop])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StoredSequences:
    """Sequences in files, which `fit` reads batch by batch, the next one while the present one is fitted.

    Made by `from_arrays` from whatever is cut like an array: `np.load(path, mmap_mode="r")`, `np.memmap`, an h5py
    dataset, a zarr array, or lists of these, one for each sequence. The door's checks run over all of it once, some
    sequences at a time, long ones stretch by stretch. Given to `fit` it gives the weights that the same data in memory
    give, bit for bit, where training data, and 256 sequences of validation data, have at most four million numbers. Of
    more, starting baselines and scales are those of evenly spaced sequences, or stretches of long ones, and validation
    goes by the batch size of the fit, with other random numbers. Everything else takes what fits in memory:
    `stored[:100].load()`.

    Args:
        sources: arrays by kind and name.
        spec: heads, covariates, units.
        rows: which sequences of the files these are.
        host_lengths: base steps of each.
        keys: identity of each by content.
        names: name of each.
        fillers: per head (channel,), what stands where nothing was observed.
        dtype: floating type in which they are read.
        total: sequences in the plate.
        positions: which sequences of the plate these are, where they are a batch of it.
        device: where batches go.
    """

    sources: dict[str, dict[str, _Source]]
    spec: DataSpec
    rows: NDArray[np.int64]
    host_lengths: NDArray[np.int64]
    keys: tuple[SequenceKey, ...]
    names: tuple[str, ...]
    fillers: dict[str, Tensor]
    dtype: torch.dtype
    total: int
    positions: NDArray[np.int64] | None = None
    device: torch.device = CPU
    unread: bool = False  # whether batches are stored sequences too, of which windows are read
    _coming: dict[Any, Future[SequenceData]] = dataclasses.field(default_factory=dict)
    _reader: list[ThreadPoolExecutor] = dataclasses.field(default_factory=list)

    @classmethod
    def from_arrays(
        cls,
        observations: Mapping[str, Any],
        covariates: Mapping[str, Any] | None = None,
        *,
        dt: float | None = None,
        times: Any = None,
        masks: Mapping[str, Any] | None = None,
        totals: Mapping[str, Any] | None = None,
        clocks: Mapping[str, int] | None = None,
        per_sequence: Sequence[str] = (),
        channel_names: Mapping[str, Sequence[str]] | None = None,
        feature_names: Mapping[str, Sequence[str]] | None = None,
        sequence_names: Sequence[str] | None = None,
        standardise: Mapping[str, tuple[Any, Any]] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> StoredSequences:
        """Read through everything once, checking it as `SequenceData.from_arrays` does, and keep none of it.

        Args:
            observations, covariates, dt, times, masks, totals, clocks, per_sequence, channel_names, feature_names,
                sequence_names, dtype: as for `SequenceData.from_arrays`, arrays being anything that is cut like one.
            standardise: head or covariate to (location, scale); there is no second pass to find them.

        Raises:
            TypeError: something of the wrong type, or `standardise` without numbers.
            ValueError: something impossible or inconsistent; sequences are counted from the first that was read with
                the one at fault.

        Example:
            >>> import numpy as np, tempfile, latentrnn as lr
            >>> path = tempfile.mkdtemp() + "/counts.npy"
            >>> np.save(path, np.ones((6, 50, 3)))
            >>> stored = lr.StoredSequences.from_arrays({"spikes": np.load(path, mmap_mode="r")}, dt=0.01)
            >>> stored[:2].load()
            SequenceData: 2 sequences of 50 steps, dt = 0.01 s
              observations: spikes (3 channels)
        """
        if standardise is not None and not isinstance(standardise, Mapping):
            raise TypeError(
                f"standardise: stored data need numbers, {{name: (location, scale)}}, e.g. those of some sequences; "
                f"found {standardise!r}"
            )
        given = {"observations": observations, "covariates": covariates, "masks": masks, "totals": totals}
        given["times"] = None if times is None else {"times": times}
        sources = {kind: {n: _Source(v) for n, v in (named or {}).items()} for kind, named in given.items()}
        if not sources["observations"]:
            raise ValueError("observations: expected at least one head, found none")
        leader, first = next(iter(sources["observations"].items()))
        count = len(first)
        if not count:
            raise ValueError(f"observations[{leader!r}]: expected at least one sequence, found none")
        for kind, named in sources.items():
            for name, source in named.items():
                if len(source) != count:
                    raise ValueError(f"{kind}[{name!r}]: expected {count} sequences, found {len(source)}")
        names = read_labels("sequence_names", sequence_names, count)
        settings = {
            "dt": dt, "clocks": clocks, "per_sequence": per_sequence, "channel_names": channel_names,
            "feature_names": feature_names, "standardise": standardise or {}, "dtype": dtype,
        }  # fmt: skip
        spec, lengths, keys, fillers = _look_through(sources, count, settings)
        return cls(sources, spec, np.arange(count), lengths, keys, names, fillers, dtype, count)

    # -- what a fit asks of data ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_sequences(self) -> int:
        """Sequences held here."""
        return len(self.rows)

    @property
    def num_steps(self) -> int:
        """Base steps of the longest sequence, at least those of the slowest head's frame."""
        return max(int(self.host_lengths.max()), self.spec.slowest)

    @property
    def lengths(self) -> Tensor:
        """Base steps of each sequence."""
        return torch.as_tensor(self.host_lengths).to(self.device)

    @property
    def host_context(self) -> NDArray[np.int64]:
        """Leading base steps that are not scored: none."""
        return np.zeros(len(self), dtype=np.int64)

    @property
    def padded(self) -> bool:
        """Whether any sequence is shorter than `num_steps`."""
        return bool((self.host_lengths < self.num_steps).any())

    def __getitem__(self, item: Any) -> StoredSequences:
        """Sequences chosen by an integer, a slice, integers or booleans: a plate of their own, not read yet."""
        chosen = batching.read_index(item, len(self))
        return dataclasses.replace(self._taken(chosen), total=len(chosen), positions=None)

    def batch(self, indices: Tensor, *, padded_as: Tensor | None = None) -> Any:
        """A sub-sample of the plate, read (or not, where windows of it are read later); see `SequenceData.batch`."""
        part = self._taken(indices.numpy())
        if self.unread:
            return part
        steps = part.num_steps
        if padded_as is not None:
            steps = max(int(self.host_lengths[padded_as.numpy()].max()), self.spec.slowest)
        return self._fetch(part, 0, steps)

    def time_slice(self, start: int, stop: int) -> SequenceData:
        """Read base steps `start` to `stop - 1` of every sequence; those that ended before have length 0."""
        return self._fetch(self, start, stop)

    def expect(self, indices: Tensor | None = None, start: int = 0, stop: int | None = None) -> None:
        """Read ahead, in the background, what will be asked for next: a batch, or a stretch of all."""
        part = self if indices is None else self._taken(indices.numpy())
        stop = part.num_steps if stop is None else min(stop, part.num_steps)
        key = (tuple(part.rows.tolist()), start, stop)
        if key in self._coming or start >= stop:
            return
        if not self._reader:
            self._reader.append(ThreadPoolExecutor(1, "latentrnn-reader"))
        self._coming[key] = self._reader[0].submit(part._read, start, stop)

    def load(self) -> SequenceData:
        """Read all of these sequences into memory."""
        found = self._read(0, self.num_steps)
        return dataclasses.replace(found, total=len(self), indices=None).to(self.device)

    def load_batch(self) -> SequenceData:
        """Read these sequences, of the plate that they are a batch of."""
        return self.time_slice(0, self.num_steps)

    @property
    def numbers(self) -> int:
        """Numbers of a sequence as long as the longest, in all heads and covariates."""
        steps = self.num_steps
        frames = {name: steps // head.clock if head.per_step else 1 for name, head in self.spec.heads.items()}
        numbers = sum(head.channels * frames[name] for name, head in self.spec.heads.items())
        return numbers + steps * sum(item.features for item in self.spec.covariates.values())

    def small(self, count: int) -> bool:
        """Whether so many sequences, or all where there are fewer, have at most four million numbers."""
        return min(count, len(self)) * self.numbers <= STARTING_VALUES

    def for_start(self) -> SequenceData:
        """Return what starting values come from: all, or evenly spaced parts of at most four million numbers.

        Parts are sequences, or stretches of these where they are long. Per-sequence heads then have rows of their own:
        those of all sequences, or of as many as have four million numbers.
        """
        if self.small(len(self)):
            return self.load()
        count = STARTING_VALUES // self.numbers
        if count >= STRETCHES:
            found = self[np.linspace(0, len(self) - 1, count).astype(np.int64)].load()
        else:
            found = _joined([self[row].time_slice(start, stop) for row, start, stop in self._spread()])
        if all(head.per_step for head in self.spec.heads.values()):
            return found
        rows = self._per_sequence()
        return dataclasses.replace(
            found, observations=found.observations | rows.observations, masks=found.masks | rows.masks
        )

    def _spread(self) -> list[tuple[int, int, int]]:
        """Return stretches as (sequence, start, stop), one in each of as many equal parts of all that there is."""
        unit = math.lcm(*(head.clock for head in self.spec.heads.values()))
        steps = max(STARTING_VALUES * self.num_steps // (self.numbers * STRETCHES * unit), 1) * unit
        ends = np.cumsum(self.host_lengths)
        part = float(ends[-1]) / STRETCHES
        found = set()
        for index in range(STRETCHES):
            # each at another place of its part, lest all lie at the same time of sequences that are equally long
            place = int(index * part + index * GOLDEN % 1 * max(part - steps, 0.0))
            row = int(np.searchsorted(ends, place, side="right"))
            length = int(self.host_lengths[row])
            start = max(min(place - int(ends[row]) + length, length - steps), 0) // unit * unit
            found.add((row, start, start + steps))
        return sorted(found)

    def _per_sequence(self) -> SequenceData:
        """Read the per-sequence heads alone, of all sequences or of as many as starting values may come from."""
        heads = {name: head for name, head in self.spec.heads.items() if not head.per_step}
        count = max(STARTING_VALUES // sum(head.channels for head in heads.values()), 1)
        part = self[np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64)]
        sources: dict[str, dict[str, _Source]] = {kind: {} for kind in self.sources}
        for kind in ("observations", "masks"):
            sources[kind] = {name: source for name, source in self.sources[kind].items() if name in heads}
        spec = dataclasses.replace(self.spec, heads=heads, covariates={})
        return dataclasses.replace(part, sources=sources, spec=spec).time_slice(0, 0)

    def through(self, *, whole: bool = False) -> Iterator[tuple[SequenceData, int, int]]:
        """Read everything, some sequences at a time, long ones stretch by stretch unless `whole`.

        Returns:
            What was read, the first of these sequences, and its first base step.
        """
        unit = math.lcm(*(head.clock for head in self.spec.heads.values()))
        width = sum(head.channels for head in self.spec.heads.values())
        width += sum(item.features for item in self.spec.covariates.values())
        first = 0
        while first < len(self):
            count = max(1, READ_AT_ONCE // (int(self.host_lengths[first]) * width))
            part = self[first : first + count]
            steps = part.num_steps if count > 1 or whole else max(READ_AT_ONCE // width // unit, 1) * unit
            for start in range(0, part.num_steps, steps):
                stop = min(start + steps, part.num_steps)
                yield dataclasses.replace(part.time_slice(start, stop), total=len(part), indices=None), first, start
            first += count

    def split(
        self, train: float, valid: float, test: float, *, seed: int | None = None, stratify: Any = None
    ) -> tuple[StoredSequences, StoredSequences, StoredSequences]:
        """Training, validation and test sequences, none of them read yet.

        Args:
            train, valid, test: fractions that add up to 1.
            seed: of the random assignment; None for a different one each time.
            stratify: one label per sequence.

        Raises:
            ValueError: when fractions do not add up to 1 or a part would be empty.
        """
        labels = None if stratify is None else np.unique(np.asarray(stratify), return_inverse=True)[1]
        parts = splitting.assign(len(self), splitting.read_fractions(train, valid, test), seed, labels)
        return self[parts[0]], self[parts[1]], self[parts[2]]

    def overlaps(self, other: SequenceData | StoredSequences) -> int:
        """How many sequences score a step that `other` scores too, in the same sequence by content."""
        return int(overlapping(self.keys, other.keys).sum())

    def to(self, device: torch.device | str) -> StoredSequences:
        """The same sequences, whose batches go to another device."""
        return dataclasses.replace(self, device=torch.device(device), _coming={}, _reader=[])

    def in_windows(self) -> StoredSequences:
        """The same sequences, whose batches are read window by window."""
        return dataclasses.replace(self, unread=True)

    def close(self) -> None:
        """End the thread that reads ahead; it starts again when it is needed."""
        while self._reader:
            self._reader.pop().shutdown(cancel_futures=True)
        self._coming.clear()

    def __repr__(self) -> str:
        plate = None if self.positions is None else self.total
        text = describe(self.spec, self.host_lengths, self.host_context, plate)
        return text.replace("SequenceData", "StoredSequences", 1)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _taken(self, chosen: NDArray[np.int64]) -> StoredSequences:
        return dataclasses.replace(
            self,
            rows=self.rows[chosen],
            host_lengths=self.host_lengths[chosen],
            keys=tuple(self.keys[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
            positions=chosen if self.positions is None else self.positions[chosen],
        )

    def _fetch(self, part: StoredSequences, start: int, stop: int) -> SequenceData:
        """Return a stretch that was read ahead, or read it now."""
        coming = self._coming.pop((tuple(part.rows.tolist()), start, stop), None)
        found = part._read(start, stop) if coming is None else coming.result()
        return found if self.device.type == "cpu" else found.to(self.device)

    def _read(self, start: int, stop: int) -> SequenceData:
        lengths = (self.host_lengths - start).clip(0, stop - start)
        fields = read_stretch(self.spec, self._arrays(start, stop), stop - start, self.dtype, self.fillers)
        positions = self.positions
        stamps = [self.sources["times"]["times"].read(row) for row in self.rows] if self.sources["times"] else None
        times = None
        if stamps is not None:
            seconds = continued([np.asarray(stamp, np.float64) for stamp in stamps], max(self.num_steps, stop))
            times = torch.as_tensor(seconds)[:, start:stop]
        return SequenceData(
            **fields,
            lengths=torch.as_tensor(lengths),
            context=torch.zeros(len(self), dtype=torch.long),
            times=times,
            keys=tuple(SequenceKey(key.key, start, max(start, min(key.stop, stop))) for key in self.keys),
            names=self.names,
            spec=self.spec,
            total=self.total,
            indices=None if positions is None else torch.as_tensor(positions),
            num_steps=stop - start,
            host_lengths=lengths,
            host_context=self.host_context,
        )

    def _arrays(self, start: int, stop: int) -> dict[str, dict[str, list[Array]]]:
        """Return a stretch of every array of every sequence, each at its own clock."""

        def stretches(kind: str) -> dict[str, list[Array]]:
            found = {}
            for name, source in self.sources[kind].items():
                head = self.spec.heads.get(name) if kind != "covariates" else None
                if head is not None and not head.per_step:
                    found[name] = [source.read(row)[None] for row in self.rows]
                    continue
                clock = 1 if head is None else head.clock
                found[name] = [source.read(row, start // clock, stop // clock) for row in self.rows]
            return found

        return {kind: stretches(kind) for kind in ("observations", "masks", "covariates", "totals")}


def _joined(parts: list[SequenceData]) -> SequenceData:
    """Return sequences of as many steps each as one plate."""

    def rows(kind: str) -> dict[str, Tensor]:
        named = [getattr(part, kind) for part in parts]
        return {name: torch.cat([tensors[name] for tensors in named]) for name in named[0]}

    times = [part.times for part in parts if part.times is not None]
    return dataclasses.replace(
        parts[0],
        observations=rows("observations"),
        masks=rows("masks"),
        covariates=rows("covariates"),
        totals=rows("totals"),
        lengths=torch.cat([part.lengths for part in parts]),
        context=torch.cat([part.context for part in parts]),
        times=torch.cat(times) if times else None,
        keys=tuple(key for part in parts for key in part.keys),
        names=tuple(name for part in parts for name in part.names),
        total=len(parts),
        indices=None,
        host_lengths=np.concatenate([part.host_lengths for part in parts]),
        host_context=np.concatenate([part.host_context for part in parts]),
    )


def _look_through(
    sources: dict[str, dict[str, _Source]], count: int, settings: dict[str, Any]
) -> tuple[DataSpec, NDArray[np.int64], tuple[SequenceKey, ...], dict[str, Tensor]]:
    """Return the spec of all sequences, their lengths and keys, and what fills the gaps of each head."""
    spec: DataSpec | None = None
    lengths, keys, seen, missing = [], [], Counter[str](), Counter[str]()
    fillers: dict[str, Tensor] = {}
    first = 0
    while first < count:
        shapes = [s.shape(first) for kind in ("observations", "covariates") for s in sources[kind].values()]
        numbers = sum(math.prod(shape) for shape in shapes)
        # as many as may be read at once if all are as long as the first of them
        stop = min(count, first + max(1, READ_AT_ONCE // max(numbers, 1)))
        length, found = 0, []
        for place in _stretches(sources, first, settings) if stop - first == 1 else [None]:
            part = _door(sources, range(first, stop), place, settings)
            length += int(part.host_lengths[0])  # without padding to the slowest head's frame
            found = [(key.key.partition("#")[0], key.stop) for key in part.keys]
            if spec is None:
                spec = part.spec
            else:
                spec.check_compatible(part.spec)
            for name, head in part.spec.heads.items():
                missing[name] += head.missing
                values, there = first_observed(part.observations[name], part.masks[name])
                before = fillers.get(name, torch.full_like(values, torch.nan))
                fillers[name] = torch.where(before.isnan() & there, values, before)
        if stop - first == 1:
            found = [(_content(sources, first, settings), length)]
        for content, steps in found:
            seen[content] += 1
            keys.append(SequenceKey(content if seen[content] == 1 else f"{content}#{seen[content]}", 0, steps))
            lengths.append(steps)
        first = stop
    assert spec is not None
    refuse_without_frames({name: head.clock for name, head in spec.heads.items()}, max(lengths))
    heads = {name: dataclasses.replace(head, missing=missing[name] > 0) for name, head in spec.heads.items()}
    spec = dataclasses.replace(spec, heads=heads)
    return spec, np.array(lengths, np.int64), tuple(keys), {n: v.nan_to_num(1.0) for n, v in fillers.items()}


def _stretches(
    sources: dict[str, dict[str, _Source]], row: int, settings: dict[str, Any]
) -> list[tuple[int, int] | None]:
    """Return the stretches of one sequence that may be read at once; None, all of it, where its arrays do not agree."""
    clocks, per_sequence = settings["clocks"] or {}, settings["per_sequence"]
    counts, width = [], 0  # frames and clock of every array along time
    for kind in ("observations", "masks", "totals", "covariates", "times"):
        for name, source in sources[kind].items():
            if kind != "covariates" and name in per_sequence:
                continue
            shape, clock = source.shape(row), 1 if kind in ("covariates", "times") else clocks.get(name, 1)
            if not shape or not isinstance(clock, int) or clock < 1:
                return [None]
            counts.append((shape[0], clock))
            width += math.prod(shape[1:]) if kind in ("observations", "covariates") else 0
    length = max((frames * clock for frames, clock in counts if clock == 1), default=0)
    length = length or max((frames * clock for frames, clock in counts), default=0)
    if not length or any(frames != length // clock for frames, clock in counts):
        return [None]
    if sources["times"]:
        read_times([sources["times"]["times"].read(row)])  # do they increase from stretch to stretch?
    unit = math.lcm(*(clock for _, clock in counts))
    at_once = max(READ_AT_ONCE // max(width, 1) // unit, 1) * unit
    return list(bounds(length, at_once, unit))


def _content(sources: dict[str, dict[str, _Source]], row: int, settings: dict[str, Any]) -> str:
    """Return a sequence's identity by content as the door finds it, reading some steps at a time."""

    def stretches(source: _Source) -> Iterator[Array]:
        shape = source.shape(row)
        at_once = max(1, READ_AT_ONCE // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], at_once):
            yield source.read(row, start, min(start + at_once, shape[0]))

    def masks(name: str) -> Iterator[Array]:
        given = sources["masks"].get(name)
        seen = (_observed(values) for values in stretches(sources["observations"][name]))
        if given is None:
            return seen
        return (here & there.astype(bool) for here, there in zip(seen, stretches(given), strict=False))

    digest = ContentDigest()
    for name in sorted(sources["observations"]):
        source = sources["observations"][name]
        if name in settings["per_sequence"]:
            values = source.read(row)[None]
            seen = _observed(values)
            if name in sources["masks"]:
                seen = seen & sources["masks"][name].read(row)[None]
            digest.add(f"observations {name}", values.shape, [np.where(seen, values, 0)])
            digest.add(f"masks {name}", values.shape, [seen])
            continue
        shape = source.shape(row)
        unmasked = zip(stretches(source), masks(name), strict=True)
        digest.add(f"observations {name}", shape, (np.where(seen, values, 0) for values, seen in unmasked))
        digest.add(f"masks {name}", shape, masks(name))
    for name in sorted(sources["covariates"]):
        source = sources["covariates"][name]
        digest.add(f"covariates {name}", source.shape(row), stretches(source))
    if sources["times"]:
        stamps = sources["times"]["times"].read(row)
        digest.add("times", stamps.shape, [stamps])
    return digest.key


def _observed(values: Array) -> Array:
    return ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)


def _door(
    sources: dict[str, dict[str, _Source]], rows: range, place: tuple[int, int] | None, settings: dict[str, Any]
) -> SequenceData:
    """Send some sequences, or a stretch of one, through the door of `SequenceData`."""
    clocks = settings["clocks"] or {}

    def read(kind: str, name: str, source: _Source) -> Any:
        if kind != "covariates" and name in settings["per_sequence"]:
            return np.stack([source.read(row) for row in rows])
        clock = 1 if kind in ("covariates", "times") else clocks.get(name, 1)
        span = (None, None) if place is None else (place[0] // clock, place[1] // clock)
        return [source.read(row, *span) for row in rows]

    arrays = {kind: {n: read(kind, n, s) for n, s in named.items()} for kind, named in sources.items()}
    times = arrays.pop("times").get("times")
    try:
        return SequenceData(**read_arrays(
            arrays["observations"], arrays["covariates"], times=times, masks=arrays["masks"] or None,
            totals=arrays["totals"] or None, sequence_names=None, part=True, **settings,
        ))  # fmt: skip
    except (TypeError, ValueError) as error:
        start = 0 if place is None else place[0]
        if rows.start == 0 and start == 0:
            raise
        steps = f", steps from step {start}" if start else ""
        raise type(error)(f"{error} (sequences counted from sequence {rows.start}{steps})") from None
