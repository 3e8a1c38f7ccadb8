"""Sequences that stay in files and are read batch by batch: data sets larger than memory."""

from __future__ import annotations

import dataclasses
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
from latentrnn.data.door import read_stretch
from latentrnn.data.keys import overlapping
from latentrnn.data.names import read_labels
from latentrnn.data.padding import continued, first_observed
from latentrnn.data.sequence_data import SequenceData
from latentrnn.data.spec import DataSpec, SequenceKey
from latentrnn.data.summary import describe

CPU = torch.device("cpu")
READ_AT_ONCE = 2**24  # numbers that the door reads at once, or one sequence where that is longer
STARTING_VALUES = 2**26  # numbers from which a fit takes its starting baselines and scales


@dataclasses.dataclass(frozen=True)
class _Source:
    """An array (sequence, ...) in a file, or a list of arrays, one per sequence, of which stretches are read."""

    value: Any

    def __len__(self) -> int:
        return len(self.value)

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
    sequences at a time. Given to `fit` it gives the weights that the same data in memory give, bit for bit, where
    these have at most 2^26 numbers; of more, starting baselines and scales are those of evenly spaced sequences.
    Everything else takes what fits in memory: `stored[:100].load()`.

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
        count = len(next(iter(sources["observations"].values())))
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

    def for_start(self) -> SequenceData:
        """Return what starting values come from: all, or evenly spaced sequences of at most 2^26 numbers."""
        width = sum(head.channels for head in self.spec.heads.values())
        width += sum(item.features for item in self.spec.covariates.values())
        count = STARTING_VALUES // (self.num_steps * width)
        if count >= len(self):
            return self.load()
        chosen = self[np.linspace(0, len(self) - 1, max(count, 1)).astype(np.int64)]
        if count:
            return chosen.load()
        steps = max(STARTING_VALUES // width // self.spec.slowest, 1) * self.spec.slowest
        return dataclasses.replace(chosen.time_slice(0, steps), total=1, indices=None)

    def through(self, numbers: int = READ_AT_ONCE) -> Iterator[SequenceData]:
        """Read everything, some sequences at a time."""
        for rows in _groups(self.host_lengths, self.spec, numbers):
            yield self[rows].load()

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
        """Return a stretch that was read ahead, or read it now; what else was expected will not be asked for."""
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


def _groups(lengths: NDArray[np.int64], spec: DataSpec, numbers: int) -> Iterator[NDArray[np.int64]]:
    """Return consecutive sequences that hold so many numbers together, or one that holds more."""
    width = sum(head.channels for head in spec.heads.values()) + sum(i.features for i in spec.covariates.values())
    held: list[int] = []
    for row, length in enumerate(lengths.tolist()):
        if held and (len(held) + 1) * max(length, *(int(lengths[i]) for i in held)) * width > numbers:
            yield np.array(held)
            held = []
        held.append(row)
    yield np.array(held)


def _look_through(
    sources: dict[str, dict[str, _Source]], count: int, settings: dict[str, Any]
) -> tuple[DataSpec, NDArray[np.int64], tuple[SequenceKey, ...], dict[str, Tensor]]:
    """Return the spec of all sequences, their lengths and keys, and what fills the gaps of each head."""
    spec: DataSpec | None = None
    lengths, keys, seen, missing = [], [], Counter[str](), Counter[str]()
    fillers: dict[str, Tensor] = {}
    first = 0
    while first < count:
        # as many as one group may hold if all are as long as the first of it
        stop = min(count, first + _fit_in(sources, first))
        part = _door(sources, range(first, stop), settings)
        if spec is None:
            spec = part.spec
        else:
            spec.check_compatible(part.spec)
        lengths += part.host_lengths.tolist()
        for key in part.keys:
            content = key.key.partition("#")[0]
            seen[content] += 1
            keys.append(key._replace(key=content if seen[content] == 1 else f"{content}#{seen[content]}"))
        for name, head in part.spec.heads.items():
            missing[name] += head.missing
            found, there = first_observed(part.observations[name], part.masks[name])
            before = fillers.get(name, torch.full_like(found, torch.nan))
            fillers[name] = torch.where(before.isnan() & there, found, before)
        first = stop
    assert spec is not None
    heads = {name: dataclasses.replace(head, missing=missing[name] > 0) for name, head in spec.heads.items()}
    spec = dataclasses.replace(spec, heads=heads)
    return spec, np.array(lengths, np.int64), tuple(keys), {n: v.nan_to_num(1.0) for n, v in fillers.items()}


def _fit_in(sources: dict[str, dict[str, _Source]], sequence: int) -> int:
    numbers = 0
    for kind in ("observations", "covariates"):
        for source in sources[kind].values():
            item = source.value[sequence] if isinstance(source.value, list | tuple) else None
            shape = getattr(source.value, "shape", None)
            size = np.size(item) if item is not None else int(np.prod(shape[1:])) if shape else READ_AT_ONCE
            numbers += size
    return max(1, READ_AT_ONCE // max(numbers, 1))


def _door(sources: dict[str, dict[str, _Source]], rows: range, settings: dict[str, Any]) -> SequenceData:
    """Send some sequences through the door of `SequenceData`."""

    def read(kind: str, name: str, source: _Source) -> Any:
        found = [source.read(row) for row in rows]
        return np.stack(found) if kind != "covariates" and name in settings["per_sequence"] else found

    arrays = {kind: {n: read(kind, n, s) for n, s in named.items()} for kind, named in sources.items()}
    times = arrays.pop("times").get("times")
    try:
        return SequenceData.from_arrays(
            arrays["observations"], arrays["covariates"], times=times, masks=arrays["masks"] or None,
            totals=arrays["totals"] or None, **settings,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        if rows.start == 0:
            raise
        raise type(error)(f"{error} (sequences counted from sequence {rows.start})") from None
