"""The one data object: models, guides and scores take a `SequenceData` and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.data.identity import check_data, overlapping
from latentrnn.data.in_memory import InMemory
from latentrnn.data.ingest.arrays import check_dtype
from latentrnn.data.ingest.ingest import FromArrays, ingest
from latentrnn.data.ingest.spikes import count_spikes
from latentrnn.data.metadata import matching
from latentrnn.data.record import Fact, SequenceRecord, WindowContext
from latentrnn.data.summary import describe
from latentrnn.data.views import batches, selection, splits, time_slices
from latentrnn.data.views.labelled import to_xarray
from latentrnn.data.views.sessions import join
from latentrnn.support.arguments import is_integer
from latentrnn.support.deprecations import former_attributes
from latentrnn.support.devices import read_device
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import xarray

    from latentrnn.data.ingest.tables import FromTable


@former_attributes
@dataclass(frozen=True, eq=False, repr=False)
class SequenceData(FromArrays, InMemory, SequenceRecord, ShownInNotebooks):
    """Sequences of observations and covariates, padded to one length, in the user's units.

    Made by `from_arrays` or `from_spike_times`, which check everything, and never by the constructor. Treat it
    as immutable: every method returns a new object, and tensors may be shared between objects. Its fields are
    those of a `SequenceRecord`.
    """

    around: WindowContext[SequenceData] | None = None

    _ingest = staticmethod(ingest)

    @classmethod
    def from_spike_times(
        cls,
        spike_times: Any,
        *,
        dt: float,
        duration: float | Sequence[float],
        start: float | Sequence[float] = 0.0,
        covariates: Mapping[str, Any] | None = None,
        name: str = "spikes",
        channel_names: Sequence[str] | None = None,
        feature_names: Mapping[str, Sequence[str]] | None = None,
        sequence_names: Sequence[str] | None = None,
        metadata: Any = None,
        standardise: Sequence[str] | Mapping[str, tuple[Any, Any]] = (),
        dtype: torch.dtype = torch.float32,
    ) -> SequenceData:
        """Count spikes in bins of `dt`.

        Bin t counts the spikes in [start + t dt, start + (t + 1) dt); a spike that misses an edge by less than its time
        is rounded counts as at the edge. All times may have any unit of time.

        Args:
            spike_times: seconds, as a list over sequences of lists over channels of 1-D arrays; or by channel name,
                as a list over sequences of dicts, or a dict of lists over sequences.
            dt: seconds per bin.
            duration: seconds, for all or one per sequence; a whole number of bins.
            start: seconds at which the first bin begins, for all or one per sequence.
            covariates: as for `from_arrays`, with the number of bins as time.
            name: name of the head that gets the counts (sequence, time, channel).
            channel_names: one name per channel, unless spike times come by name.
            feature_names: as for `from_arrays`.
            sequence_names: as for `from_arrays`.
            metadata: as for `from_arrays`.
            standardise: as for `from_arrays`.
            dtype: as for `from_arrays`.

        Raises:
            TypeError: when the nesting is not sequences of channels of times.
            ValueError: when spikes lie outside the sequence, or something is inconsistent.

        >>> data = SequenceData.from_spike_times([[[0.001, 0.0012, 0.003]]], dt=0.001, duration=0.005)
        >>> data.observations["spikes"][0, :, 0].tolist()
        [0.0, 2.0, 0.0, 1.0, 0.0]
        """
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, found {name!r:.80}")
        counts, names = count_spikes(spike_times, dt=dt, duration=duration, start=start, channel_names=channel_names)
        return cls.from_arrays(
            {name: counts},
            covariates,
            dt=dt,
            channel_names=None if names is None else {name: names},
            feature_names=feature_names,
            sequence_names=sequence_names,
            metadata=metadata,
            standardise=standardise,
            dtype=dtype,
        )

    @classmethod
    def from_dataframe(
        cls,
        frame: Any,
        observations: Any,
        covariates: Any = None,
        *,
        time: str | None = None,
        group: str | Sequence[str] | None = None,
        variable: str | None = None,
        value: str | None = None,
        per_sequence: Sequence[str] = (),
        metadata: Sequence[str] = (),
        dt: Any = None,
        sampling: str = "regular",
        missing_covariates: Any = "refuse",
        levels: Mapping[str, Sequence[Any]] | None = None,
        standardise: Sequence[str] | Mapping[str, tuple[Any, Any]] = (),
        dtype: torch.dtype = torch.float32,
    ) -> SequenceData:
        """Read a table with a row for each step, or for each value, as CSV files and spreadsheets hold them.

        Rows may come in any order; sequences are in the order in which they come first. Observed columns may have
        gaps. Columns of names (text, categories) become codes 0, 1, ... as observations, whose names the data keep
        (`data.spec.heads[name].levels`), and one indicator for each name as covariates, `"odour=citral"`. Dates are
        kept: `data.dates`, and in what is exported.

        Args:
            frame: a table of pandas, or one that becomes it (polars). Levels of its index count as columns.
            observations: a dict of head to its column or columns, which become its channels; or columns that are a head
                each.
            covariates: likewise.
            time: the column of times: numbers (seconds), durations or dates; by default an index of dates or
                durations, else rows are steps in their order.
            group: the column, or columns, that tell sequences apart; by default all rows are one sequence.
            variable, value: where every row is one value, the columns that say of what and which; heads and covariates
                are then made of the names in `variable`.
            per_sequence: heads and covariates with one value per sequence, the same in all of its rows.
            metadata: columns that say what else is known of each sequence, the same in all of its rows. Several
                columns of `group` are metadata by themselves.
            dt: time between steps, seconds or a duration ("15min") or steps of a calendar ("MS", as pandas calls
                them); rows that are missing then leave a gap. It is found where rows are at equal distances.
            sampling: "regular"; "irregular", each row at a time of its own; or "rows", each row a step whatever its
                time (trading days).
            missing_covariates: "refuse"; "indicator", zero where a covariate is missing and a feature more that says
                so, for every column; or a dict of the columns that may be missing to the number that stands there.
            levels: column to the names of its values in order, for tables that do not have all of them.
            standardise: as for `from_arrays`.
            dtype: as for `from_arrays`.

        Raises:
            TypeError: when something is of the wrong type.
            ValueError: when a column is not there, rows are not at equal distances, two rows have the same time, or
                something is inconsistent, naming what, what was expected and what came.

        >>> import pandas as pd
        >>> frame = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=4), "sales": [3, 1, None, 2]})
        >>> data = SequenceData.from_dataframe(frame, ["sales"], time="day")
        >>> data
        SequenceData: 1 sequence of 4 steps, dt = 86400 s
          observations: sales (1 channel, some missing)
          dates: from 2024-01-01
        >>> data.dates[0, -1]
        np.datetime64('2024-01-04T00:00:00.000000000')
        """
        # pandas takes half a second to import, which only those who read tables should wait for
        from latentrnn.data.ingest.tables import read_table

        table = read_table(
            frame,
            observations,
            covariates,
            time=time,
            group=group,
            variable=variable,
            value=value,
            per_sequence=per_sequence,
            metadata=metadata,
            dt=dt,
            sampling=sampling,
            missing_covariates=missing_covariates,
            levels=levels,
        )
        return cls._from_table(table, standardise, dtype)

    @classmethod
    def from_xarray(
        cls,
        dataset: xarray.Dataset,
        observations: Any,
        covariates: Any = None,
        *,
        dt: Any = None,
        sampling: str = "regular",
        standardise: Sequence[str] | Mapping[str, tuple[Any, Any]] = (),
        dtype: torch.dtype = torch.float32,
    ) -> SequenceData:
        """Read variables of a dataset whose axes have names, which are matched by them, never by position.

        Axes are called sequence (trial, episode, ...), time (step, bin, ...) and channel (unit, neuron, feature, ...),
        in any order; a variable without an axis of sequences or channels has one of it, and one without time has one
        value per sequence. Coordinates are the names of sequences and channels; those of time, numbers (seconds, or
        what their attribute "units" says), durations or dates, say how long a step is; others along the sequences are
        metadata. What `to_xarray` wrote is read as it was.

        Args:
            dataset: an `xarray.Dataset`.
            observations: names of variables, or a dict of head to variable.
            covariates: likewise.
            dt, sampling: as for `from_dataframe`.
            standardise, dtype: as for `from_arrays`.

        Raises:
            TypeError: when it is no dataset.
            ValueError: when a variable is not there or has an axis of another name, or steps are not equally long.

        >>> import numpy as np, xarray
        >>> time = {"time": np.arange(4) / 100}
        >>> counts = xarray.DataArray(np.ones((4, 2, 5)), time, dims=("time", "unit", "trial"))
        >>> SequenceData.from_xarray(xarray.Dataset({"spikes": counts}), "spikes")
        SequenceData: 5 sequences of 4 steps, dt = 0.01 s
          observations: spikes (2 channels)
        """
        from latentrnn.data.ingest.tables import read_dataset

        table = read_dataset(dataset, observations, covariates, dt=dt, sampling=sampling)
        return cls._from_table(table, standardise, dtype)

    @classmethod
    def from_pynapple(
        cls,
        observations: Mapping[str, Any],
        covariates: Mapping[str, Any] | None = None,
        *,
        dt: float,
        trials: Any = None,
        standardise: Sequence[str] | Mapping[str, tuple[Any, Any]] = (),
        dtype: torch.dtype = torch.float32,
    ) -> SequenceData:
        """Bin time series of pynapple in trials; with it, what NWB files hold: `pynapple.load_file("session.nwb")`.

        A trial has as many whole bins as it lasts. Units (`TsGroup`, `Ts`) are counted, as in `from_spike_times`;
        values in time (`Tsd`, `TsdFrame`) are averaged in each bin, unobserved where a bin has no sample. A covariate
        is then in between its neighbouring samples. Names of units and columns are kept, and what the intervals know of
        themselves, with their starts in seconds, is metadata.

        Args:
            observations: head to a time series.
            covariates: covariate to a `Tsd` or `TsdFrame`.
            dt: seconds per bin.
            trials: intervals (`IntervalSet`), a sequence each; by default those in which the first head was recorded.
            standardise, dtype: as for `from_arrays`.

        Raises:
            TypeError: when something is no object of pynapple.
            ValueError: when a trial is shorter than a bin, or a covariate does not last as long.
        """
        from latentrnn.data.ingest.tables import read_recording

        table = read_recording(observations, covariates, trials=trials, dt=dt)
        return cls._from_table(table, standardise, dtype)

    @classmethod
    def _from_table(cls, table: FromTable, standardise: Any, dtype: torch.dtype) -> SequenceData:
        data = cls.from_arrays(**table.arrays, standardise=standardise, dtype=dtype)
        heads = {
            name: dataclasses.replace(head, levels=table.levels.get(name)) for name, head in data.spec.heads.items()
        }
        return dataclasses.replace(data, spec=dataclasses.replace(data.spec, heads=heads), calendar=table.calendar)

    @classmethod
    def join(cls, sessions: Mapping[str, SequenceData], *, shared: Sequence[str] = ()) -> SequenceData:
        """Several sessions, whose channels differ, as one plate of sequences.

        The head `spikes` of session `a` becomes the head `spikes_a`, which is fully masked in the sequences of other
        sessions: the likelihood of every sequence is that of its own session's channels. Split each session before,
        or the joined data with `split(..., stratify=data.sessions)`. Declare a head for every session with
        `latentrnn.per_session`, and give the encoder a `read_in`.

        A session's head spans all sequences, so that memory and the cost of the heads are those of (sequences of all
        sessions) times (channels of all sessions): for S alike sessions S times what they take apart. The
        transition and the encoder's recurrence, which cost most, see every sequence once.

        Args:
            sessions: session name to its data; all with the same `dt`, covariates, floating type and device.
            shared: heads that are the same channels in every session (behaviour, say): they keep their name, and one
                readout serves all sessions.

        Raises:
            TypeError: when something is no `SequenceData`.
            ValueError: when sessions do not go together, naming what, what was expected and what came.

        >>> import numpy as np
        >>> few = SequenceData.from_arrays({"spikes": np.ones((2, 5, 3))}, dt=0.01)
        >>> many = SequenceData.from_arrays({"spikes": np.ones((4, 5, 30))}, dt=0.01)
        >>> SequenceData.join({"a": few, "b": many})
        SequenceData: 6 sequences of 5 steps, dt = 0.01 s
          observations: spikes_a (3 channels, in session a), spikes_b (30 channels, in session b)
        """
        return cls(**join(sessions, shared))

    def session(self, name: str) -> SequenceData:
        """The sequences of one session of joined data: a plate of their own, with the heads of all sessions.

        Raises:
            ValueError: when the data are not joined or have no such session.
        """
        if self.sessions is None or name not in self.sessions:
            known = sorted(set(self.sessions or ()))
            raise ValueError(f"session: expected a session among {known}, found {name!r}")
        return self[np.array([session == name for session in self.sessions])]

    def has(self, name: str) -> Tensor | None:
        """Which sequences have a head: those of its session, (sequence,); None where it belongs to all sessions.

        Where nobody knows the sequences' sessions, those in which something of it is seen.
        """
        session = self._head("has", name).session
        if session is None:
            return None
        if self.sessions is None:
            return self.masks[name].flatten(1).any(1)
        return torch.from_numpy(np.array([own == session for own in self.sessions])).to(self.device, non_blocking=True)

    def scored(self, name: str) -> Tensor:
        """Booleans in the shape of head `name`, True where observed and beyond the context.

        Frame k of a head with a clock counts as beyond the context when its first base step is; the value of a
        per-sequence head always counts.
        """
        head = self._head("scored", name)
        mask = self.masks[name]
        if not head.per_step or not self.host_context.any():
            return mask
        first_step = torch.arange(mask.shape[1], device=self.device) * head.clock
        return mask & (first_step >= self.context[:, None])[..., None]

    def __getitem__(self, item: Any) -> SequenceData:
        """Sequences chosen by an integer, a slice, integers or booleans: a plate of their own.

        Raises:
            IndexError: when an index is out of range.
            TypeError: when the index is not made of integers or booleans.
            ValueError: when booleans do not match the sequences, or nothing is chosen.
        """
        chosen = batches.read_index(item, len(self))
        return dataclasses.replace(batches.take(self, torch.from_numpy(chosen)), total=len(chosen), indices=None)

    def where(self, **metadata: Any) -> SequenceData:
        """The sequences of which this is known: `data.where(condition="left", subject=["a", "b"])`.

        Args:
            metadata: by name a value, or a list of values of which a sequence has one.

        Raises:
            ValueError: when nothing of such a name is known, or no sequence has a value, or all of them.

        >>> import numpy as np
        >>> sides = {"side": ["left", "right", "left"]}
        >>> data = SequenceData.from_arrays({"y": np.ones((3, 5, 1))}, metadata=sides)
        >>> data.where(side="left").names
        ('0', '2')
        """
        return self[matching(self.metadata, metadata)]

    def batch(self, indices: Tensor, *, padded_as: Tensor | None = None, total: int | None = None) -> SequenceData:
        """A sub-sample of the plate, padded no further than its longest sequence.

        Args:
            indices: sequences by position, best as a LongTensor in the host's memory.
            padded_as: pad as far as a batch of these sequences would be, of which `indices` are a part.
            total: how many sequences the batch stands for, by default all of the plate. Over a pass in batches of
                several sizes the number of batches times the batch's size lets every sequence count the same.

        Raises:
            IndexError, TypeError, ValueError: as for `data[indices]`, where they are not such a tensor.
        """
        if not isinstance(indices, Tensor) or indices.dtype != torch.int64 or indices.dim() != 1 or indices.is_cuda:
            indices = torch.from_numpy(batches.read_index(indices, len(self)))
        return batches.take(self, indices, padded_as, total)

    def batches(self, batch_size: int, *, generator: torch.Generator | None = None) -> Iterator[SequenceData]:
        """Batches that visit every sequence once, sequences of similar length together.

        Each is a sub-sample of the plate, and all of them weigh its sequences alike: the average over the batches of an
        ELBO, or of its gradient, is that of all sequences.

        Args:
            batch_size: sequences per batch at most; sizes differ by one at most.
            generator: source of the shuffling; None to go through the sequences in order.

        Raises:
            ValueError: when `batch_size` is not a positive whole number.
        """
        order = batches.batch_order(self.host_lengths, batch_size, self.padded, generator)
        return (self.batch(at, total=len(order) * len(at) * self.total // len(self)) for at in order)

    def split(
        self,
        train: float,
        valid: float,
        test: float,
        *,
        seed: int | None = None,
        stratify: Any = None,
        along: str = "sequence",
        context: int = 0,
    ) -> tuple[SequenceData, SequenceData, SequenceData]:
        """Training, validation and test data.

        Args:
            train: fraction for training.
            valid: fraction for validation.
            test: fraction for testing; the three add up to 1.
            seed: of the random assignment of sequences; None for a different one each time.
            stratify: one label per sequence, or the name of metadata, or of a per-sequence head with one channel;
                labels are then spread over the parts in proportion.
            along: "sequence" to give each sequence to one part, at random; "time" to cut every sequence in three
                contiguous stretches, in this order.
            context: with `along="time"`, base steps of the part before that later parts see but do not score.

        Returns:
            The three parts, each a plate of its own.

        Raises:
            ValueError: when fractions do not add up to 1 or a part would be empty.
        """
        fractions = splits.read_fractions(train, valid, test)
        if not isinstance(along, str) or along not in ("sequence", "time"):
            raise ValueError(f'along: expected "sequence" or "time", found {along!r:.80}')
        if along == "sequence":
            if not is_integer(context) or context:
                raise ValueError(f'context: expected 0 with along="sequence", found {context}')
            labels = None if stratify is None else splits.read_strata(self, stratify)
            first, second, third = splits.assign(len(self), fractions, seed, labels)
            return self[first], self[second], self[third]
        if stratify is not None:
            raise ValueError('stratify: expected None with along="time", which cuts every sequence')
        return time_slices.stretches(self, fractions, context)

    def windows(self, length: int, *, context: int = 0) -> SequenceData:
        """Every sequence cut in consecutive windows, which together score each of its steps once.

        Args:
            length: scored base steps of a window; the last of a sequence may be shorter.
            context: base steps before the window that it sees but does not score, where there are any.

        Returns:
            A plate of windows.

        Raises:
            ValueError: when there is a per-sequence head, or `length` or `context` is no multiple of every clock.
        """
        return time_slices.windows(self, length, context)

    def time_slice(self, start: int, stop: int) -> SequenceData:
        """Base steps `start` to `stop - 1` of every sequence; those that ended before have length 0.

        Args:
            start: first base step, a multiple of every clock.
            stop: one past the last base step; clipped to `num_steps`.

        Raises:
            TypeError: when `start` or `stop` is no whole number.
            ValueError: when one is negative, nothing is left, or `start` is no multiple of a clock.
        """
        return time_slices.time_slice(self, *time_slices.check_stretch(start, stop, self.num_steps))

    def with_observations(self, observations: dict[str, Tensor]) -> SequenceData:
        """The same data with the values of the named heads replaced, for replicates: masks stay, no value is checked.

        Args:
            observations: per head a tensor in the shape of its observations.

        Raises:
            TypeError: when it is no dict.
            ValueError: when the data have no such head.
        """
        if not isinstance(observations, Mapping):
            raise TypeError(
                f"with_observations: expected a dict of head to tensor, found {type(observations).__name__}"
            )
        for name in observations:
            self._head("with_observations", name)
        return dataclasses.replace(self, observations={**self.observations, **observations})

    def mask_entries(self, name: str, hide: Tensor) -> SequenceData:
        """The same data with more entries of a head unobserved; their values are dropped.

        Args:
            name: the head.
            hide: booleans in the shape of the head's observations, True where to hide.

        Raises:
            TypeError: when `hide` is not a tensor of booleans.
            ValueError: when the head is unknown or the shape differs.
        """
        return selection.mask_entries(self, name, hide)

    def select(self, *, heads: Sequence[str] | None = None, covariates: Sequence[str] | None = None) -> SequenceData:
        """The same sequences with the named heads and covariates only; None keeps all.

        Raises:
            ValueError: when a name is unknown or no head is left.
        """
        return selection.select(self, heads, covariates)

    def overlaps(self, other: SequenceData) -> int:
        """How many sequences score a step that `other` scores too, in the same sequence by content.

        Raises:
            TypeError: when `other` is no data.
        """
        check_data("overlaps", other)
        return int(overlapping(self.keys, other.keys).sum())

    def without(self, other: SequenceData) -> SequenceData:
        """The sequences that do not score a step that `other` scores.

        Raises:
            TypeError: when `other` is no data.
            ValueError: when no sequence is left.
        """
        check_data("without", other)
        keep = ~overlapping(self.keys, other.keys)
        if not keep.any():
            raise ValueError(f"without: expected sequences that are not in the other data, found all {len(self)} there")
        return self[keep]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> SequenceData:
        """The same data on another device or in another floating type; times stay float64.

        Raises:
            TypeError: when `dtype` is no type of torch.
            ValueError: when there is no such device, or `dtype` is neither torch.float32 nor torch.float64.
        """
        if isinstance(device, torch.device) and device == self.device:
            device = None  # where the data lie there is such a device
        device = None if device is None else read_device("to", device)
        if dtype is not None:
            check_dtype(dtype)

        # a copy to the host that does not block would be read before it is there
        background = device is not None and device.type != "cpu"

        def place(tensor: Tensor | None, dtype: torch.dtype | None = None) -> Any:
            if tensor is None:
                return None
            # what was made in inference mode takes part in no gradient; a copy of it does
            fresh = tensor.is_inference() and not torch.is_inference_mode_enabled()
            return tensor.to(device=device, dtype=dtype, non_blocking=background, copy=fresh)

        def move(tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
            return {name: place(tensor, dtype) for name, tensor in tensors.items()}

        masks = move(self.masks)
        known = self.inherited(masks)
        known |= {n: Fact.of(True, mask) for n, mask in masks.items() if n not in known and self.complete(n)}
        return dataclasses.replace(
            self,
            observations=move(self.observations, dtype),
            masks=masks,
            gapless=known,
            covariates=move(self.covariates, dtype),
            totals=move(self.totals, dtype),
            lengths=place(self.lengths),
            context=place(self.context),
            times=place(self.times),
            indices=place(self.indices),
        )

    def to_xarray(self) -> xarray.Dataset:
        """The data as a labelled dataset with axes sequence, time (seconds, or steps without `dt`) and channel.

        Unobserved entries and padding are NaN; `num_steps` and `context_steps` tell them apart. A head `x` has the
        axis `x_channel`, a covariate `x` the axis `x_feature`, a head with a clock its own `x_time`.
        """
        return to_xarray(self)

    def __repr__(self) -> str:
        plate = None if self.indices is None else self.total
        return describe(self.spec, self.host_lengths, self.host_context, plate, self.metadata, self.calendar)
