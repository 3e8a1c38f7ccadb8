"""The present step of one sequence or many as a batch, in buffers that are written over: what a filter reads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import DataSpec, SequenceData
from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.data.record import Fact
from latentrnn.data.spec import SequenceKey
from latentrnn.inference.online.rows import Row, by_name, is_row
from latentrnn.support.arguments import is_number
from latentrnn.support.shown import shown

Seen = dict[str, tuple[Tensor, Tensor, bool] | None]
FILLER = 1.0  # what stands where nothing was observed: in the support of every family


class Read(NamedTuple):
    """One step that was looked at.

    Attributes:
        seen: by head values and mask, (stream, channel), and whether all is there; None where it shows nothing.
        known: by covariate its values, (stream, feature).
        time: seconds, (stream,), where steps are irregular.
        totals: by head that shares a total its sum over all channels, (stream,); NaN where it is not known.
    """

    seen: Seen
    known: dict[str, Tensor]
    time: Tensor | None
    totals: dict[str, Tensor]


class Stream:
    """The last few steps of sequences that go on together, as far back as features of covariates look.

    Heads are on the base clock here: a slow head has a frame now and then, and is missing otherwise.

    Args:
        spec: of the data that the model was built for.
        missing: heads of which entries may be missing.
        memory: steps before the present one that are kept.
        dtype: of observations and covariates.
        sessions: that the sequences belong to, where there are several and they are known.
        counted: heads whose channels share a total, which may be given.
        names: of the streams, which are an axis of all that comes in; None for one sequence, without that axis.
    """

    def __init__(
        self,
        spec: DataSpec,
        missing: Mapping[str, bool],
        memory: int,
        dtype: torch.dtype,
        sessions: tuple[str, ...] | None = None,
        counted: Collection[str] = (),
        names: tuple[str, ...] | None = None,
    ) -> None:
        self.spec, self.size, self.dtype, self.sessions, self.names = spec, memory + 1, dtype, sessions, names
        self.count = 1 if names is None else len(names)
        self.heads = {name: head for name, head in spec.heads.items() if name in missing}
        self.counted = list(counted)
        heads = {n: dataclasses.replace(h, clock=1, missing=missing[n]) for n, h in self.heads.items()}
        self._spec = dataclasses.replace(spec, heads=heads)
        sizes = {n: (self.count, self.size, c.features) for n, c in spec.covariates.items()}
        self.covariates = {n: torch.zeros(size, dtype=dtype) for n, size in sizes.items()}
        self.times = torch.zeros(self.count, self.size, dtype=torch.float64)
        self._windows: dict[tuple[int, frozenset[str]], SequenceData] = {}  # by steps, and heads without gaps
        self.steps = 0

    def read(self, observation: Any, covariates: Any, time: Any, totals: Any = None) -> Read:
        """Return one step as it was given, checked; nothing is taken in yet.

        Raises:
            TypeError: values that are no numbers.
            ValueError: an unknown or missing name, a wrong size, a frame at a step at which none is complete, a total
                that is not the sum of what it counts.
        """
        if is_row(observation, self.heads):
            row = Row(self.spec, list(self.heads), self.names, observation)
            observation, told = row.observation(), row.covariates()
            if told and covariates is not None:
                raise ValueError(f"covariates: expected None, since {list(told)} are in the row; found both")
            covariates = told or covariates
            time = row.time() if time is None else time
        given = self._named("observation", observation, self.heads)
        inputs = self._named("covariates", covariates, self.covariates)
        seen, known = self._observed(given), {}
        for name, buffer in self.covariates.items():
            if name not in inputs:
                raise ValueError(f"covariates: expected {list(self.covariates)} at every step; {name!r} is not there")
            labels = self.spec.covariates[name].feature_names
            known[name] = self._read(f"covariates[{name!r}]", inputs[name], buffer.shape[-1], "features", labels)
            if not bool(known[name].isfinite().all()):
                raise ValueError(
                    f"covariates[{name!r}]: expected numbers, found NaN or infinity at "
                    f"{self._place(~known[name].isfinite())}"
                )
        times = self._time(time) if self.spec.irregular else None
        return Read(seen, known, times, self._totals(totals, seen))

    def put(self, step: Read) -> SequenceData:
        """Take in a step that `read` returned, and return it with those before it."""
        seen, known, time, totals = step
        place = min(self.steps, self.size - 1)
        whole = frozenset(name for name, pair in seen.items() if place == 0 and pair is not None and pair[2])
        data = self._windows.get((place + 1, whole)) or self._window(place + 1, whole)
        rolled = self.steps >= self.size and self.size > 1
        for name, pair in seen.items():
            if pair is not None:
                data.observations[name][:, -1].copy_(pair[0])
            if name not in whole:
                mask = data.masks[name][:, -1]
                mask.copy_(pair[1]) if pair is not None else mask.zero_()
        for name, total in totals.items():
            data.totals[name][:, -1] = total
        for name, new in known.items():
            buffer = self.covariates[name]
            if rolled:
                buffer[:, :-1] = buffer[:, 1:].clone()
            buffer[:, place] = new
        if self.spec.irregular:
            if rolled:
                self.times[:, :-1] = self.times[:, 1:].clone()
            assert time is not None
            self.times[:, place] = time
        self.steps += 1
        return data

    def nothing(self, known: Mapping[str, Tensor] | None = None, time: Tensor | None = None) -> Read:
        """Return a step at which nothing is observed; covariates are zero where they are not given."""
        covariates = {name: torch.zeros_like(buffer[:, 0]) for name, buffer in self.covariates.items()}
        if time is None and self.spec.irregular:
            time = torch.zeros(self.count, dtype=torch.float64)
        totals = {name: torch.full((self.count,), math.nan, dtype=torch.float64) for name in self.counted}
        return Read(dict.fromkeys(self.heads), covariates | dict(known or {}), time, totals)

    def _place(self, bad: Tensor) -> str:
        """Return in words where the first of the entries (stream, ...) that are bad is."""
        if self.names is None:
            return f"step {self.steps}"
        stream = int(bad.reshape(self.count, -1).any(-1).nonzero()[0])
        return f"stream {self.names[stream]!r}, step {self.steps}"

    def _observed(self, given: Mapping[str, Any]) -> Seen:
        """Return values, mask, and whether all is there, of every head; None where it shows nothing at this step."""
        found: Seen = {}
        for name, head in self.heads.items():
            found[name] = None
            if given.get(name) is None:
                continue
            if (self.steps + 1) % head.clock:
                raise ValueError(
                    f"observation[{name!r}]: a frame is complete every {head.clock} steps, not at step {self.steps}; "
                    "expected None"
                )
            where = f"observation[{name!r}]"
            new = self._read(where, given[name], head.channels, "channels", head.channel_names)
            mask = new.isfinite()
            whole = bool(mask.all())
            if not whole:
                if bool(new.isinf().any()):
                    raise ValueError(f"observation[{name!r}]: expected numbers or NaN, found infinity")
                new = torch.where(mask, new, FILLER)
            found[name] = new, mask, whole
        return found

    def _totals(self, given: Any, seen: Seen) -> dict[str, Tensor]:
        """Return the total of every head that has one, NaN where it is not known; see `SharedTotal`."""
        named = self._named("totals", given, dict.fromkeys(self.counted))
        found = {name: torch.full((self.count,), math.nan, dtype=torch.float64) for name in self.counted}
        for name, value in named.items():
            if value is None:
                continue
            where = f"totals[{name!r}]"
            if (self.steps + 1) % self.heads[name].clock:
                raise ValueError(f"{where}: no frame is complete at step {self.steps}; expected None")
            given_totals = to_tensor(where, value).double()
            if given_totals.numel() != self.count:
                number = "one number" if self.names is None else f"{self.count} numbers, one for each stream"
                raise ValueError(f"{where}: expected {number}; found shape {tuple(given_totals.shape)}")
            for stream, total in enumerate(given_totals.flatten().tolist()):
                found[name][stream] = self._total(where, stream, total, seen[name])
        return found

    def _total(self, where: str, stream: int, total: float, pair: tuple[Tensor, Tensor, bool] | None) -> float:
        """Return the total of one stream, checked."""
        least, whole = 0.0, False
        if pair is not None:
            least = float(pair[0][stream].double()[pair[1][stream]].sum())
            whole = bool(pair[1][stream].all())
        if math.isnan(total) and not whole:
            return total
        place = f"step {self.steps}" if self.names is None else f"stream {self.names[stream]!r}, step {self.steps}"
        close = math.isclose(total, least, rel_tol=1e-6, abs_tol=1e-6)
        if not (close or (not whole and least < total < math.inf)):
            expected = f"{least:g}, the sum over channels" if whole else f"at least {least:g}"
            raise ValueError(f"{where}: expected {expected}, found {total:g} at {place}")
        if total != round(total):
            raise ValueError(f"{where}: expected a whole number, found {total:g} at {place}")
        return total

    def _time(self, time: Any) -> Tensor:
        """Return the seconds of a step, (stream,), one number for all streams, or one each."""
        if self.names is None or time is None or is_number(time):
            if time is None or not is_number(time) or not math.isfinite(time):
                raise ValueError(f"time: the steps are irregular; expected seconds at every step, found {time!r}")
            found = torch.full((self.count,), float(time), dtype=torch.float64)
        else:
            found = to_tensor("time", time).double()
            if found.shape != (self.count,) or not bool(found.isfinite().all()):
                raise ValueError(
                    f"time: expected seconds, one number or {self.count}, one for each stream; found {shown(time)}"
                )
        if self.steps:
            last = self.times[:, min(self.steps, self.size) - 1]
            early = found <= last
            if bool(early.any()):
                stream = int(early.nonzero()[0])
                which = "" if self.names is None else f" of stream {self.names[stream]!r}"
                came = float(found[stream])
                raise ValueError(f"time: expected more than the last step's {float(last[stream])}{which}, found {came}")
        return found

    def _named(self, where: str, given: Any, known: Mapping[str, Any]) -> Mapping[str, Any]:
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            if len(known) != 1:
                raise TypeError(f"{where}: expected a dict of name to values, of {list(known)}; found {type(given)}")
            return {next(iter(known)): given}
        if not given.keys() <= known.keys():
            raise ValueError(
                f"{where}: unknown {[name for name in given if name not in known]}; expected {list(known)}"
            )
        return given

    def _read(self, where: str, value: Any, size: int, what: str, labels: Sequence[str]) -> Tensor:
        new = to_tensor(where, by_name(where, value, labels, self.names)).to(self.dtype)
        if self.names is None:
            if new.shape != (size,):
                raise ValueError(f"{where}: expected {size} {what}, one number each; found shape {tuple(new.shape)}")
            return new.unsqueeze(0)
        if new.shape != (self.count, size):
            raise ValueError(
                f"{where}: expected (stream, {what[:-1]}) of shape {(self.count, size)}; found shape {tuple(new.shape)}"
            )
        return new

    @torch.inference_mode(False)  # buffers are written over in and out of that mode
    def _window(self, steps: int, whole: frozenset[str]) -> SequenceData:
        """Return the batch of this many steps; its covariates and times are views of the buffers.

        Batches of the same steps share all tensors but the masks of the heads that are known to have no gaps.
        """
        if whole:
            base = self._windows.get((steps, frozenset())) or self._window(steps, frozenset())
            full = {name: torch.ones_like(base.masks[name]) for name in whole}
            known = {name: Fact.of(True, mask) for name, mask in full.items()}
            self._windows[steps, whole] = dataclasses.replace(base, masks=base.masks | full, gapless=known)
            return self._windows[steps, whole]
        lengths = np.full(self.count, steps, dtype=np.int64)
        sizes = {name: (self.count, steps, head.channels) for name, head in self.heads.items()}
        self._windows[steps, whole] = SequenceData(
            observations={n: torch.full(s, FILLER, dtype=self.dtype) for n, s in sizes.items()},
            masks={n: torch.zeros(s, dtype=torch.bool) for n, s in sizes.items()},
            covariates={n: buffer[:, :steps] for n, buffer in self.covariates.items()},
            totals={n: torch.full((self.count, steps), math.nan, dtype=self.dtype) for n in self.counted},
            lengths=torch.full((self.count,), steps),
            context=torch.zeros(self.count, dtype=torch.int64),
            times=self.times[:, :steps] if self.spec.irregular else None,
            keys=tuple(SequenceKey(str(stream), 0, steps) for stream in range(self.count)),
            names=("stream",) if self.names is None else self.names,
            spec=self._spec,
            total=self.count,
            indices=None,
            num_steps=steps,
            host_lengths=lengths,
            host_context=np.zeros(self.count, dtype=np.int64),
            sessions=self.sessions,
        )
        return self._windows[steps, whole]

    def undo_point(self) -> Callable[[], None]:
        """Return a function that takes back all that is put in from now on."""
        steps = self.steps
        buffers = [*self.covariates.values(), *([self.times] if self.spec.irregular else [])]
        copies = [buffer.clone() for buffer in buffers]

        def undo() -> None:
            self.steps = steps
            for buffer, copy in zip(buffers, copies, strict=True):
                buffer.copy_(copy)

        return undo

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is remembered."""
        found = {f"covariates.{name}": buffer for name, buffer in self.covariates.items()} | {"times": self.times}
        if self.names is None:
            found = {name: buffer.squeeze(0) for name, buffer in found.items()}
        return {name: buffer.clone() for name, buffer in found.items()} | {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned."""
        for name, buffer in self.covariates.items():
            buffer.copy_(state[f"covariates.{name}"])
        self.times.copy_(state["times"])
        self.steps = int(state["steps"])
