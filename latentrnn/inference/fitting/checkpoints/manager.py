"""Checkpoints of a fit that is under way, from which it goes on bit for bit."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.checkpoints.metrics import METRICS, metrics_table
from latentrnn.inference.fitting.checkpoints.unfinished import (
    Unfinished,
    read_unfinished,
    remove_remnants,
    unfinished_files,
    write_unfinished,
)
from latentrnn.inference.fitting.saving.weights import write_atomically
from latentrnn.inference.fitting.settings.checkpointing import Checkpointing
from latentrnn.support.strict_json import dumps, loads


class CheckpointManager:
    """Writes the state of a fit to a folder every now and then, and reads it again; its history as plain text, too.

    Args:
        settings: the folder, how often, and whether to go on from what the folder holds.
        identity: what the fit is (model, data, settings), in JSON form; a fit goes on only as what it began as.

    Raises:
        ValueError: the folder is a file, or it holds a fit and is not to be gone on from.
        TypeError: something in `identity` has no JSON form.
    """

    def __init__(self, settings: Checkpointing, identity: dict[str, Any]) -> None:
        self.directory, self.every = Path(settings.directory).expanduser(), settings.every
        self.identity = loads(dumps(identity, "fit"))  # as a file gives it back: tuples are lists
        if self.directory.exists() and not self.directory.is_dir():
            raise ValueError(f"fit: checkpointing: expected a directory; {self.directory} is a file")
        files = unfinished_files(self.directory)
        if files and not settings.resume:
            raise ValueError(
                f"fit: {self.directory} holds the checkpoint of a fit, {files[-1].name}; go on with resume=True, or "
                "remove it or choose another folder to begin again"
            )
        remove_remnants(self.directory)
        self.newest = files[-1] if files else None
        self.last = -math.inf  # the first one is written at once, so that a folder that cannot be written to is known

    def is_due(self) -> bool:
        """Return whether it is time for the next checkpoint."""
        return time.monotonic() - self.last >= self.every

    def write(self, found: Unfinished, step: int) -> str | None:
        """Write a checkpoint of a step; return what was in the way, if anything was.

        Raises:
            OSError: the first one cannot be written.
        """
        values = found.values | {"identity": self.identity}
        problem = None
        try:
            write_unfinished(Unfinished(found.tensors, values), self.directory)
            write_atomically(self.directory / METRICS, metrics_table(values["history"]).encode())
        except OSError as error:
            if self.last == -math.inf:
                raise
            problem = str(error)
            warnings.warn(f"fit: no checkpoint was written at step {step}: {error}", RuntimeWarning, stacklevel=2)
        self.last = time.monotonic()
        return problem

    def read(self) -> Unfinished | None:
        """Read the newest checkpoint, None where there is none yet.

        Raises:
            ValueError: the file is damaged.
        """
        return None if self.newest is None else read_unfinished(self.newest)

    def check_identity(self, begun: Any) -> None:
        """Check that the fit which a checkpoint is of was begun as this one.

        Raises:
            ValueError: naming what differs.
        """
        remedy = "give what it was begun with, or begin again in another folder"
        for name, here in self.identity.items():  # lengthy things, which are not shown
            if name != "settings" and here != begun.get(name):
                raise ValueError(f"fit: {self.directory} holds a fit with another {name}; {remedy}")
        own, its = self.identity["settings"], begun["settings"]
        for name in {**its, **own}:  # a setting that is left out is another one, too
            here, there = own.get(name), its.get(name)
            if here != there:
                raise ValueError(f"fit: {self.directory} holds a fit with {name} {there!r}; found {here!r}; {remedy}")


def seed_begun_with(settings: Checkpointing | None, otherwise: int) -> int:
    """Return the seed of the fit that is to be gone on with, or another where there is none."""
    if settings is None or not settings.resume:
        return otherwise
    files = unfinished_files(Path(settings.directory).expanduser())
    return int(read_unfinished(files[-1]).values["identity"]["settings"]["seed"]) if files else otherwise


def identity_of(data: SequenceData | StoredSequences | None) -> str | None:
    """Return a hash that is the same for the same sequences in the same order, stored alike."""
    if data is None:
        return None
    layout = [data.host_lengths.tolist(), data.host_context.tolist(), data.total, str(data.dtype)]
    return hashlib.sha256(json.dumps([list(data.keys), layout]).encode()).hexdigest()
