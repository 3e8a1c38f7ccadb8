"""Sequences that stay in files and are read batch by batch: data sets larger than memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.data.identity import check_data, overlapping
from latentrnn.data.ingest.agreement import same_sequences, same_times
from latentrnn.data.ingest.arrays import Array, Arrays
from latentrnn.data.ingest.axes import check_same
from latentrnn.data.ingest.ingest import FromArrays, ingest_again
from latentrnn.data.ingest.names import check_known, read_labels
from latentrnn.data.ingest.padding import continued
from latentrnn.data.metadata import Metadata, find, matching, taken
from latentrnn.data.record import Fact
from latentrnn.data.sequence_data import SequenceData
from latentrnn.data.spec import DataSpec, SequenceKey
from latentrnn.data.stored import arrays as stored_arrays
from latentrnn.data.stored import subsample
from latentrnn.data.stored.arrays import Source
from latentrnn.data.stored.scan import scan
from latentrnn.data.summary import describe
from latentrnn.data.views import batches as batching
from latentrnn.data.views import splits as splitting
from latentrnn.data.views.selection import select_spec
from latentrnn.data.views.time_slices import check_clocks, check_stretch
from latentrnn.support.devices import read_device
from latentrnn.support.notebooks import ShownInNotebooks

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StoredSequences(FromArrays, ShownInNotebooks):
    """Sequences in files, which `fit` reads batch by batch, the next one while the present one is fitted.

    Made by `from_arrays` from whatever is cut like an array: `np.load(path, mmap_mode="r")`, `np.memmap`, an h5py
    dataset, a zarr array, or lists of these, one for each sequence. All of it is read once and checked, some sequences
    at a time, long ones stretch by stretch, and none of it is kept. `standardise` takes numbers, for there is no second
    pass to find them, and an error counts sequences from the first that was read with the one at fault.

    Given to `fit` they give the weights that the same data in memory give, bit for bit, where training data, and 256
    sequences of validation data, have at most four million numbers. Of more, starting baselines and scales are those of
    evenly spaced sequences, or stretches of long ones, and validation goes by the batch size of the fit, with other
    random numbers. Everything else takes what fits in memory: `stored[:100].load()`.

    Args:
        sources: arrays by kind and name.
        spec: heads, covariates, units.
        rows: which sequences of the files these are.
        host_lengths: base steps of each.
        keys: identity of each by content.
        names: name of each.
        metadata: what else is known of each, (sequence,) by name.
        fillers: per head (channel,), what stands where nothing was observed.
        dtype: floating type in which they are read.
        total: sequences that these stand for, all of the plate.
        positions: which sequences of the plate these are, where they are a batch of it.
        device: where batches go.

    Example:
        >>> import numpy as np, tempfile, latentrnn as lr
        >>> path = tempfile.mkdtemp() + "/counts.npy"
        >>> np.save(path, np.ones((6, 50, 3)))
        >>> stored = lr.StoredSequences.from_arrays({"spikes": np.load(path, mmap_mode="r")}, dt=0.01)
        >>> stored[:2].load()
        SequenceData: 2 sequences of 50 steps, dt = 0.01 s
          observations: spikes (3 channels)
    """

    sources: dict[str, dict[str, Source]]
    spec: DataSpec
    rows: NDArray[np.int64]
    host_lengths: NDArray[np.int64]
    keys: tuple[SequenceKey, ...]
    names: tuple[str, ...]
    fillers: dict[str, Tensor]
    dtype: torch.dtype
    total: int
    metadata: Metadata = dataclasses.field(default_factory=dict)
    positions: NDArray[np.int64] | None = None
    device: torch.device = CPU
    unread: bool = False  # whether batches are stored sequences too, of which windows are read
    _coming: dict[Any, Future[SequenceData]] = dataclasses.field(default_factory=dict)
    _reader: list[ThreadPoolExecutor] = dataclasses.field(default_factory=list)

    @staticmethod
    def _ingest(given: Arrays) -> dict[str, Any]:
        if not isinstance(given.standardise, Mapping) and len(given.standardise):
            raise TypeError(
                f"standardise: stored data need numbers, {{name: (location, scale)}}, e.g. those of some sequences; "
                f"found {given.standardise!r}"
            )
        what = "an observation head, since stored covariates have a value per step,"
        check_known("per_sequence", given.per_sequence, given.observations, what)
        sources = _sources(given)
        count = _count(sources)
        labels = _agreed_names(sources, given.clocks) if given.sequence_names is None else given.sequence_names
        names = read_labels("sequence_names", labels, count)
        given = dataclasses.replace(
            given,
            channel_names={**_channel_names(sources["observations"]), **given.channel_names},
            feature_names={**_channel_names(sources["covariates"]), **given.feature_names},
        )
        spec, lengths, keys, fillers = scan(sources, count, given)
        return {
            "sources": sources,
            "spec": spec,
            "rows": np.arange(count),
            "host_lengths": lengths,
            "keys": keys,
            "names": names,
            "fillers": fillers,
            "dtype": given.dtype,
            "total": count,
            "metadata": {} if given.metadata is None else given.read_metadata(names, labels is not None),
        }

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: what can be read, and nothing that is being read."""
        state = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return state | {"_coming": {}, "_reader": []}

    # -- the protocol `Sequences` --------------------------------------------------------------------------------------

    @property
    def in_memory(self) -> bool:
        """Whether all tensors are there: no, they are read batch by batch."""
        return False

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
        return torch.from_numpy(self.host_lengths).to(self.device)

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

    def where(self, **metadata: Any) -> StoredSequences:
        """The sequences of which this is known; see `SequenceData.where`."""
        return self[matching(self.metadata, metadata)]

    def batch(self, indices: Tensor, *, padded_as: Tensor | None = None, total: int | None = None) -> Any:
        """A sub-sample of the plate, read (or not, where windows of it are read later); see `SequenceData.batch`."""
        part = self._taken(batching.read_index(indices, len(self)), total)
        if self.unread:
            return part
        steps = part.num_steps
        if padded_as is not None:
            steps = max(int(self.host_lengths[padded_as.numpy()].max()), self.spec.slowest)
        return self._fetch(part, 0, steps)

    def time_slice(self, start: int, stop: int) -> SequenceData:
        """Read base steps `start` to `stop - 1` of every sequence; those that ended before have length 0.

        Raises:
            TypeError: when `start` or `stop` is no whole number.
            ValueError: when one is negative, nothing is left, or `start` is no multiple of a clock.
        """
        start, stop = check_stretch(start, stop, self.num_steps)
        check_clocks(self.spec, start)
        return self._fetch(self, start, min(stop, self.num_steps))

    def read_stretch(self, start: int, stop: int) -> SequenceData:
        """Read a stretch that may have no steps (for per-sequence heads alone) or go on beyond the longest sequence."""
        return self._fetch(self, start, stop)

    def expect(
        self,
        indices: Tensor | None = None,
        start: int = 0,
        stop: int | None = None,
        *,
        total: int | None = None,
    ) -> None:
        """Read ahead, in the background, what will be asked for next: a batch, or a stretch of all."""
        if self.unread and indices is not None:
            return  # a batch is not read before its windows are asked for
        part = self if indices is None else self._taken(indices.numpy(), total)
        stop = part.num_steps if stop is None else min(stop, part.num_steps)
        key = (tuple(part.rows.tolist()), start, stop, part.total)
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
        return min(count, len(self)) * self.numbers <= subsample.STARTING_VALUES

    def for_start(self) -> SequenceData:
        """Return what starting values come from: all, or evenly spaced parts of at most four million numbers.

        Parts are sequences, or stretches of these where they are long. Per-sequence heads then have rows of their own:
        those of all sequences, or of as many as have four million numbers.
        """
        return subsample.from_everywhere(self)

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
            count = max(1, stored_arrays.READ_AT_ONCE // (int(self.host_lengths[first]) * width))
            part = self[first : first + count]
            steps = part.num_steps if count > 1 or whole else max(stored_arrays.READ_AT_ONCE // width // unit, 1) * unit
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
            stratify: one label per sequence, or the name of metadata.

        Raises:
            ValueError: when fractions do not add up to 1 or a part would be empty.
        """
        labels = find(self.metadata, stratify, "stratify") if isinstance(stratify, str) else stratify
        labels = None if labels is None else splitting.strata_of(labels, len(self))
        parts = splitting.assign(len(self), splitting.read_fractions(train, valid, test), seed, labels)
        return self[parts[0]], self[parts[1]], self[parts[2]]

    def select(self, *, heads: Sequence[str] | None = None, covariates: Sequence[str] | None = None) -> StoredSequences:
        """The same sequences with the named heads and covariates only; None keeps all.

        Raises:
            ValueError: when a name is unknown or no head is left.
        """
        spec = select_spec(self.spec, heads, covariates)
        kept = {**spec.heads, **spec.covariates}
        sources = {
            kind: {name: source for name, source in named.items() if kind == "times" or name in kept}
            for kind, named in self.sources.items()
        }
        return dataclasses.replace(self, sources=sources, spec=spec, _coming={}, _reader=[])

    def overlaps(self, other: SequenceData | StoredSequences) -> int:
        """How many sequences score a step that `other` scores too, in the same sequence by content.

        Raises:
            TypeError: when `other` is no data.
        """
        check_data("overlaps", other)
        return int(overlapping(self.keys, other.keys).sum())

    def to(self, device: torch.device | str) -> StoredSequences:
        """The same sequences, whose batches go to another device.

        Raises:
            ValueError: when there is no such device.
        """
        return dataclasses.replace(self, device=read_device("to", device), _coming={}, _reader=[])

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
        text = describe(self.spec, self.host_lengths, self.host_context, plate, self.metadata)
        return text.replace("SequenceData", "StoredSequences", 1)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _taken(self, chosen: NDArray[np.int64], total: int | None = None) -> StoredSequences:
        return dataclasses.replace(
            self,
            total=self.total if total is None else total,
            rows=self.rows[chosen],
            host_lengths=self.host_lengths[chosen],
            keys=tuple(self.keys[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
            metadata=taken(self.metadata, chosen) if self.metadata else {},
            positions=chosen if self.positions is None else self.positions[chosen],
        )

    def _fetch(self, part: StoredSequences, start: int, stop: int) -> SequenceData:
        """Return a stretch that was read ahead, or read it now."""
        coming = self._coming.pop((tuple(part.rows.tolist()), start, stop, part.total), None)
        found = part._read(start, stop) if coming is None else coming.result()
        return found if self.device.type == "cpu" else found.to(self.device)

    def _read(self, start: int, stop: int) -> SequenceData:
        lengths = (self.host_lengths - start).clip(0, stop - start)
        fields = ingest_again(self.spec, self._arrays(start, stop), stop - start, self.dtype, self.fillers)
        positions = self.positions
        times = None
        if self.sources["times"] and stop > start:
            stamps = [self.sources["times"]["times"].read(row) for row in self.rows]
            seconds = continued([np.asarray(stamp, np.float64) for stamp in stamps], max(self.num_steps, stop))
            times = torch.from_numpy(seconds)[:, start:stop]
        return SequenceData(
            **fields,
            lengths=torch.from_numpy(lengths),  # on the host, whatever torch's default device
            context=torch.zeros(len(self), dtype=torch.long, device="cpu"),
            times=times,
            keys=tuple(SequenceKey(key.key, start, max(start, min(key.stop, stop))) for key in self.keys),
            names=self.names,
            spec=self.spec,
            total=self.total,
            indices=None if positions is None else torch.from_numpy(positions),
            num_steps=stop - start,
            host_lengths=lengths,
            host_context=self.host_context,
            metadata=self.metadata,
            gapless={n: Fact.of(not self.spec.heads[n].missing, mask) for n, mask in fields["masks"].items()},
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


def _sources(given: Arrays) -> dict[str, dict[str, Source]]:
    """The sources of all arguments by kind and name."""
    arrays = {"observations": given.observations, "covariates": given.covariates, "masks": given.masks}
    times = {} if given.times is None else {"times": given.times}
    steps, rows = ("sequence", "time", "channel"), ("sequence", "channel")
    found = {
        kind: {n: Source.of(kind, n, value, rows if n in given.per_sequence else steps) for n, value in named.items()}
        for kind, named in arrays.items()
    }
    for kind, named in (("totals", given.totals), ("times", times)):
        found[kind] = {name: Source.of(kind, name, value, ("sequence", "time")) for name, value in named.items()}
    return found


def _count(sources: Mapping[str, Mapping[str, Source]]) -> int:
    """The number of sequences, on which all arrays agree."""
    leader, first = next(iter(sources["observations"].items()))
    if not len(first):
        raise ValueError(f"observations[{leader!r}]: expected at least one sequence, found none")
    for kind, named in sources.items():
        for name, source in named.items():
            if len(source) != len(first):
                raise ValueError(f"{kind}[{name!r}]: expected {len(first)} sequences, found {len(source)}")
    return len(first)


def _agreed_names(sources: Mapping[str, Mapping[str, Source]], clocks: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return what the arrays call the sequences, on which they must agree, as they must on steps and channels."""
    heads, covariates = sources["observations"], sources["covariates"]
    for kind in ("masks", "totals"):
        for name, source in sources[kind].items():
            check_same(source.where, source.named, heads[name].where, heads[name].named)
    at_base = [source for name, source in heads.items() if clocks.get(name, 1) == 1]
    same_times([(source.where, source.named) for source in [*at_base, *covariates.values()]])
    return same_sequences([(source.where, source.named) for source in [*heads.values(), *covariates.values()]])


def _channel_names(sources: Mapping[str, Source]) -> dict[str, Sequence[str]]:
    """Return what arrays call their channels or features, where they say it."""
    return {name: source.named.channels for name, source in sources.items() if source.named.channels is not None}
