"""The record of a data set: its plain fields, and what follows from them alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, NamedTuple, Self, TypeVar
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentrnn.data.calendar import Calendar
from latentrnn.data.metadata import Metadata
from latentrnn.data.spec import DataSpec, HeadSpec, SequenceKey
from latentrnn.support.private_symbols import version

T = TypeVar("T")
Record = TypeVar("Record", bound="SequenceRecord")


@dataclass(frozen=True, eq=False, repr=False)
class SequenceRecord:
    """Sequences of observations and covariates, padded to one length, in the user's units.

    `SequenceData` is its face, with the methods that users call; views of a data set take a record and return one of
    the same type.

    Args:
        observations: per head (sequence, time, channel), or (sequence, channel) for a per-sequence head; what is
            unobserved holds a value inside the family's support.
        masks: per head, in the shape of its observations; True where observed, False when missing or padding.
        covariates: per covariate (sequence, time, feature); 0 in padding.
        totals: per head that has them (sequence, time); NaN where a channel is missing and the total not known.
        lengths: base steps of each sequence.
        context: leading base steps of each sequence that inform (history, encoder, state) but are not scored.
        times: seconds (sequence, time) in float64 when steps are irregular, else None.
        keys: identity of each sequence by content, with its scored base steps.
        names: name of each sequence.
        spec: heads, covariates, units.
        total: sequences that these stand for: all of the plate, of which these may be a sub-sample.
        indices: which sequences of the plate these are; None for all of them.
        num_steps: base steps of the longest sequence, to which all are padded.
        host_lengths: `lengths` as numpy, so that no decision on the host waits for the device.
        host_context: `context` as numpy.
        sessions: name of the session of each sequence, in data made by `join`, else None.
        metadata: what else is known of each sequence (condition, subject, what came of it), (sequence,) by name.
        calendar: the dates of the steps, where the data came with any, else None.
        around: what lies around a window of longer sequences that `fit` or a posterior cut, else None.
        gapless: per head whether every entry inside the sequences is observed, where that is known.
        constants: per head what is known of its log-density whatever the parameters; see `constant`.
    """

    observations: dict[str, Tensor]
    masks: dict[str, Tensor]
    covariates: dict[str, Tensor]
    totals: dict[str, Tensor]
    lengths: Tensor
    context: Tensor
    times: Tensor | None
    keys: tuple[SequenceKey, ...]
    names: tuple[str, ...]
    spec: DataSpec
    total: int
    indices: Tensor | None
    num_steps: int
    host_lengths: NDArray[np.int64]
    host_context: NDArray[np.int64]
    sessions: tuple[str, ...] | None = None
    metadata: Metadata = field(default_factory=dict)
    calendar: Calendar | None = None
    around: WindowContext[Any] | None = None
    gapless: Mapping[str, Fact[bool]] = field(default_factory=dict)
    constants: Mapping[str, Fact[Tensor]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle holds: the data, and nothing that is known of these very tensors."""
        found = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return found | {"gapless": {}, "constants": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        later: dict[str, Any] = {
            "gapless": {},
            "constants": {},
            "metadata": {},
            "calendar": None,
        }  # unknown to earlier versions
        self.__dict__.update(later | state)

    @property
    def num_sequences(self) -> int:
        """Sequences held here, without waiting for the device."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.lengths.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of observations and covariates."""
        return next(iter(self.observations.values())).dtype

    @cached_property
    def padded(self) -> bool:
        """Whether any sequence is shorter than `num_steps`."""
        return bool((self.host_lengths < self.num_steps).any())

    @cached_property
    def valid(self) -> Tensor:
        """Booleans (sequence, time), True inside the sequence and False in padding."""
        return torch.arange(self.num_steps, device=self.device) < self.lengths[:, None]

    @cached_property
    def inside(self) -> Tensor | None:
        """Where among all (sequence, time) there are steps, (entry,); None where there is no padding."""
        if not self.padded:
            return None
        there = np.arange(self.num_steps) < self.host_lengths[:, None]
        return torch.from_numpy(np.flatnonzero(there)).to(self.device, non_blocking=True)

    @property
    def dates(self) -> NDArray[np.datetime64]:
        """The date of every step, (sequence, time), NaT in padding; in UTC where dates have a time zone.

        Raises:
            ValueError: the data came without dates.
        """
        if self.calendar is None:
            raise ValueError("dates: expected data that came with dates (SequenceData.from_dataframe), found none")
        found = np.full((len(self), self.num_steps), np.datetime64("NaT", "ns"))
        for row, length in enumerate(self.host_lengths.tolist()):
            if self.times is None:
                found[row, :length] = self.calendar.at(row, np.arange(length), self.spec.dt)
            else:
                found[row, :length] = self.calendar.after(row, self.times[row, :length].cpu().numpy())
        return found

    @property
    def carry_in(self) -> Mapping[str, Tensor] | None:
        """What model and guide left at the end of the window before; None where a sequence begins."""
        return None if self.around is None else self.around.carry_in

    def carry_out(self, name: str, value: Tensor) -> None:
        """Leave something, detached, for the next window of the same sequences, where these data are a window."""
        if self.around is not None:
            self.around.carry_out[name] = value.detach().clone()  # a view would keep all of the window

    def complete(self, name: str) -> bool:
        """Whether every entry of a head is known to be observed and scored, without waiting for the device."""
        head, mask, known = self._head("complete", name), self.masks[name], self.gapless.get(name)
        if head.per_step and not self._scored_throughout:
            return False
        if known is not None and known.holds(mask):
            return known.value
        # only where nothing was known of the mask, which whoever made the data says else
        partial = head.missing or head.session is not None or self.device.type != "cpu"
        return not partial and bool(mask.all())

    def check_gapless(self) -> None:
        """Check, on a CPU, that heads known to have no gaps have none: torch does not count every kind of writing.

        Raises:
            ValueError: a mask was written into past torch's notice, through NumPy's view of it, say.
        """
        for name, known in self.gapless.items():
            mask, head = self.masks[name], self.spec.heads[name]
            if not known.value or not known.holds(mask) or mask.device.type != "cpu" or bool(mask.all()):
                continue
            hidden = ~mask
            if head.per_step:  # of frames that lie inside their sequence whole
                ends = torch.arange(1, mask.shape[1] + 1) * head.clock
                hidden = hidden & (ends <= torch.from_numpy(self.host_lengths)[:, None])[..., None]
            if bool(hidden.any()):
                raise ValueError(
                    f"masks[{name!r}]: it was written into after the data were made, which torch did not notice; data "
                    f"do not change: use data.mask_entries({name!r}, hide), or make the data anew"
                )

    @cached_property
    def _scored_throughout(self) -> bool:
        return not self.padded and not self.host_context.any()

    def inherited(self, masks: Mapping[str, Tensor]) -> dict[str, Fact[bool]]:
        """What is known of `masks`, which are parts of this record's: what has no gaps has none in its parts."""
        known = {name: self.gapless[name] for name in masks if name in self.gapless}
        return {n: Fact.of(True, masks[n]) for n, fact in known.items() if fact.value and fact.holds(self.masks[n])}

    def constant(self, name: str) -> Tensor | None:
        """The known part of a head's log-density, (sequence,), that depends on its values, masks and context alone."""
        known = self.constants.get(name)
        holds = known is not None and known.holds(self.observations[name], self.masks[name], self.context)
        return known.value if known is not None and holds else None

    def with_constant(self, name: str, constant: Tensor) -> Self:
        """The same data, in which this part of a head's log-density, (sequence,), is known."""
        fact = Fact.of(constant, self.observations[name], self.masks[name], self.context)
        return dataclasses.replace(self, constants={**self.constants, name: fact})

    def _head(self, method: str, name: Any) -> HeadSpec:
        """What the spec says of a head; a ValueError names the method that was asked where there is none."""
        try:
            return self.spec.heads[name]
        except (KeyError, TypeError):
            known = list(self.spec.heads)
            raise ValueError(f"{method}: expected an observation head among {known}, found {name!r}") from None


@dataclass(frozen=True, eq=False)
class WindowContext(Generic[Record]):
    """What lies around a window of longer sequences.

    Attributes:
        whole: the window with some steps before and after it, where its sequences have them.
        before: steps of `whole` before the window.
        after: steps of `whole` after it.
        carry_in: what model and guide left at the end of the window before, detached; None at the first window.
        carry_out: what they leave at the end of this one, by name; written while they run.
        ends: which sequences end in this window, booleans (sequence,): there a value of the whole sequence counts.
    """

    whole: Record
    before: int
    after: int
    carry_in: Mapping[str, Tensor] | None
    ends: Tensor
    carry_out: dict[str, Tensor] = field(default_factory=dict)


class Fact(NamedTuple, Generic[T]):
    """Something known of some tensors.

    Data are immutable, but nothing stops anybody from writing into them, or from replacing a part of them: a fact
    holds of the tensors of which it was found alone, as they stood.

    Attributes:
        value: what is known.
        tensors: of which it is known; weak references, so that what is known of tensors does not keep them.
        versions: how often each had been written into; None where torch does not count it.
    """

    value: T
    tensors: tuple[ref[Tensor], ...]
    versions: tuple[int | None, ...]

    @classmethod
    def of(cls, value: T, *tensors: Tensor) -> Fact[T]:
        """A fact about tensors as they are now."""
        return cls(value, tuple(map(ref, tensors)), tuple(map(_writes, tensors)))

    def holds(self, *tensors: Tensor) -> bool:
        """Whether these are the tensors, and nobody has written into them."""
        pairs = zip(self.tensors, self.versions, tensors, strict=True)
        return all(known() is now and _writes(now) == count for known, count, now in pairs)


def _writes(tensor: Tensor) -> int | None:
    """How often a tensor was written into; None for one made for inference, which does not count."""
    return None if tensor.is_inference() else version(tensor)
