"""Heads, masks and covariates as the inputs of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from latentrnn.data import DataSpec, HeadSpec, SequenceData
from latentrnn.inference.guides.encoders.encoder import Encoder
from latentrnn.inference.guides.read_in import ReadIn
from latentrnn.models.features import CovariateReader, Gap
from latentrnn.models.observations import EncoderInput
from latentrnn.support.arguments import check_flag, check_names, check_size


class ReadingEncoder(Encoder):
    """What encoders share that read heads, masks and covariates step by step.

    Where entries can be missing, the encoder is told which, by the mask as further input. Numbers are shown in
    standard units, missing ones as average; symbols (`Categorical`) as one indicator each, a missing one as none. A
    slow head's frame is seen at its last base step, where it is first known. Where steps have times of their own, the
    time since the step before is a further input, as `Gap` has it.
    """

    arguments_added_later = MappingProxyType({"gap_input": False})
    mask_input: bool | None
    gap_input: bool | None
    read_in: int | None

    def _set(
        self,
        observes: Sequence[str] | None,
        mask_input: bool | None,
        read_in: int | None,
        gap_input: bool | None = None,
    ) -> None:
        owner = type(self).__name__
        self.read_in = None if read_in is None else check_size(owner, "read_in", read_in)
        self.mask_input = None if mask_input is None else check_flag(owner, "mask_input", mask_input)
        self.gap_input = None if gap_input is None else check_flag(owner, "gap_input", gap_input)
        self.observes = None if observes is None else check_names(owner, "observes", observes)

    def _read(self, spec: DataSpec, heads: Mapping[str, EncoderInput]) -> int:
        """Create what reading needs, and return the number of inputs per step."""
        owner = type(self).__name__
        self.visible = self._choose(spec, heads)
        self._clocks = {name: spec.heads[name].clock for name in self.visible}
        # a slow head's frames are absent between its clock ticks, which is one kind of missing
        self._masked = {
            name: self.mask_input is True
            or spec.heads[name].clock > 1
            or (self.mask_input is None and self._unseen(spec.heads[name]))
            for name in self.visible
        }
        timed = spec.irregular if self.gap_input is None else self.gap_input
        self.covariates = CovariateReader(owner, [*spec.covariates, *([Gap()] if timed else [])], spec)
        self._encoder_inputs = {name: heads[name] for name in self.visible}
        widths = {}
        for name, encoded in self._encoder_inputs.items():
            widths[name] = encoded.size + (encoded.channels if self._masked[name] else 0)
            self.register_buffer(f"{name}_centre", torch.zeros(encoded.size))
            self.register_buffer(f"{name}_scale", torch.ones(encoded.size))
        self.reader = None if self.read_in is None or not widths else ReadIn(widths, self.read_in)
        size = self.covariates.size + (sum(widths.values()) if self.reader is None else self.reader.size)
        if size == 0:
            raise ValueError(f"{owner}: nothing to see: no covariate, and no per-step head among those it observes")
        return size

    def start_streaming(self) -> dict[str, bool]:
        self._clocks = dict.fromkeys(self._clocks, 1)
        return dict(self._masked)

    def _choose(self, spec: DataSpec, heads: Mapping[str, EncoderInput]) -> list[str]:
        if self.observes is None:
            return [name for name in heads if spec.heads[name].per_step]
        for name in self.observes:
            if name not in heads:
                raise ValueError(
                    f"{type(self).__name__}: observes unknown head {name!r}; the model has {sorted(heads)}"
                )
            if not spec.heads[name].per_step:
                raise ValueError(
                    f"{type(self).__name__}: {name!r} is a per-sequence head: showing it would leak the label"
                )
        return self.observes

    def _unseen(self, head: HeadSpec) -> bool:
        """Whether entries may be missing of which nothing but the mask can tell; a read-in leaves out whole sessions.

        A mask that is one in all of a session is no harmless constant: it adds to the session's offset once for each
        channel, which then learns as many times as fast. In simulated sessions it cost 0.05 to 0.07 bits per spike.
        """
        return head.missing or (head.session is not None and self.read_in is None)

    def initialise(self, data: SequenceData) -> None:
        """Take centre and scale of every visible head, and of the covariates, from the training data."""
        self.covariates.take_units(data, "standard")
        for name, encoded in self._encoder_inputs.items():
            centre, scale = encoded.centre_and_scale(data.observations[name], data.masks[name])
            self.get_buffer(f"{name}_centre").copy_(centre)
            self.get_buffer(f"{name}_scale").copy_(scale)

    def inputs(self, data: SequenceData) -> Tensor:
        """Return all that is seen, (sequence, time, input)."""
        if self.reader is None:
            heads = [_joined(self._head(name, data)) for name in self.visible]
        else:
            heads = [self._read_in(data)]
        return _joined([*([self.covariates(data)] if self.covariates.size else []), *heads])

    def _read_in(self, data: SequenceData) -> Tensor:
        """Return what the read-in makes of all heads, in chunks of time where they are too wide to lay side by side."""
        present = {name: data.has(name) for name in self.visible}
        width = sum(encoded.size for encoded in self._encoder_inputs.values())
        steps = data.num_steps
        if self.max_elements is not None:
            unit = math.lcm(*self._clocks.values())
            steps = max(1, self.max_elements // (data.num_sequences * width * unit)) * unit
        if steps >= data.num_steps:
            return self._read_part(data, present)
        found = []
        for start in range(0, data.num_steps, steps):
            part = data.time_slice(start, start + steps)
            if torch.is_grad_enabled():  # what was laid side by side is laid again for the gradient
                again: Any = checkpoint
                found.append(again(self._read_part, part, present, use_reentrant=False, preserve_rng_state=False))
            else:
                found.append(self._read_part(part, present))
        return torch.cat(found, 1)

    def _read_part(self, data: SequenceData, present: dict[str, Tensor | None]) -> Tensor:
        assert self.reader is not None
        return self.reader({name: _joined(self._head(name, data)) for name in self.visible}, present)

    def _head(self, name: str, data: SequenceData) -> list[Tensor]:
        encoded, mask = self._encoder_inputs[name], data.masks[name]
        scale = self.get_buffer(f"{name}_scale").reciprocal()
        values = torch.addcmul(
            -self.get_buffer(f"{name}_centre") * scale, encoded.encode(data.observations[name]), scale
        )
        if not data.complete(name):
            values = torch.where(encoded.expand_mask(mask), values, 0.0)
        if self._clocks[name] > 1:
            values, mask = (self._spread(part, self._clocks[name], data.num_steps) for part in (values, mask))
        elif not self._masked[name]:
            if self._unseen(data.spec.heads[name]):
                raise ValueError(
                    f"observations[{name!r}]: entries are missing, but the encoder was built from data without missing "
                    f"entries and has no input to be told by; use {type(self).__name__}(..., mask_input=True)"
                )
            return [values]
        return [values, mask.to(values.dtype)]

    @staticmethod
    def _spread(frames: Tensor, clock: int, steps: int) -> Tensor:
        """Put each frame at its last base step, where it is first known; zero elsewhere."""
        spread = frames.new_zeros(len(frames), steps, frames.shape[-1])
        spread[:, clock - 1 :: clock][:, : frames.shape[1]] = frames
        return spread


def _joined(parts: list[Tensor]) -> Tensor:
    """Return the parts side by side; a single one as it is, for even of one `cat` would make a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
