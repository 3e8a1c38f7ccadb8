"""Checkpoints of a fit that is under way, from which it goes on bit for bit."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.checkpoints.checks import check_tensors, check_values
from latentrnn.inference.fitting.checkpoints.unfinished import (
    Unfinished,
    read_unfinished,
    remove_remnants,
    unfinished_files,
    write_unfinished,
)
from latentrnn.inference.fitting.settings.checkpointing import Checkpointing
from latentrnn.inference.fitting.snapshots import Snapshot, part
from latentrnn.inference.fitting.windows import WindowedBatches
from latentrnn.support.strict_json import dumps, loads

if TYPE_CHECKING:
    from latentrnn.inference.fitting.trainer import Run


class Keeper:
    """Writes the state of a run to a folder every now and then, and takes it up again.

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

    def write(self, run: Run, *, finished: bool = False) -> None:
        """Write a checkpoint if it is time, or the fit is finished; the run must be between two steps."""
        # of several processes, which all have the same to write, one does
        if run.processes.first and (finished or time.monotonic() - self.last >= self.every):
            self.write_now(run, finished=finished)

    def write_now(self, run: Run, *, finished: bool = False) -> None:
        """Write a checkpoint; the run must be between two steps."""
        tensors, values = _state(run)
        values |= {"identity": self.identity, "finished": finished, "surroundings": _surroundings(run)}
        try:
            write_unfinished(Unfinished(tensors, values), self.directory)
        except OSError as error:
            if self.last == -math.inf:
                raise
            run.events.append(f"step {run.step}: no checkpoint was written ({error})")
            warnings.warn(f"fit: no checkpoint was written at step {run.step}: {error}", RuntimeWarning, stacklevel=2)
        self.last = time.monotonic()

    def take_up(self, run: Run) -> None:
        """Bring a run that was just begun to where the newest checkpoint left it, if there is one.

        Raises:
            ValueError: the file is damaged, or no state of this fit, or the fit was begun as another one.
        """
        newest = self.newest
        found = run.processes.from_first(lambda: None if newest is None else read_unfinished(newest))
        if found is None:
            return
        tensors, values = found
        values = check_values(str(newest), values)
        self._check(values["identity"])
        check_tensors(str(newest), run, tensors, values)
        try:
            _restore(run, tensors, values)
        except Exception as error:  # whatever a file that was not written by a fit may still bring about
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{newest}: not the state of this fit ({reason})") from error
        if run.finished:
            return
        event = f"step {run.step}: resumed"
        then, now = values["surroundings"], _surroundings(run)
        if changed := [f"{name} {now[name]}, not {then.get(name)}" for name in now if now[name] != then.get(name)]:
            event += f" under {', '.join(changed)}, so that the last digits can differ"
        run.events.append(event)

    def _check(self, begun: dict[str, Any]) -> None:
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


def _surroundings(run: Run) -> dict[str, Any]:
    device = run.train.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads, processes = torch.get_num_threads(), run.processes.size
    return {"torch": str(torch.__version__), "threads": threads, "processes": processes, "device": name}


def _state(run: Run) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    device = run.train.device
    tensors = {f"now/{name}": value for name, value in run.snapshot().tensors.items()}
    for index, good in enumerate(run.good):
        tensors |= {f"good{index}/{name}": value for name, value in good.tensors.items()}
    for module, weights in zip(("model", "guide"), run.best, strict=True):
        tensors |= {f"best/{module}/{name}": value for name, value in weights.items()}
    tensors |= {"random/cpu": torch.random.get_rng_state(), "random/order": run.batches.start}
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    windows = run.batches if isinstance(run.batches, WindowedBatches) else None
    if windows is not None:
        tensors |= {f"window/{name}": value for name, value in windows.left.items()}
    values = {name: getattr(run, name) for name in _PLAIN}
    return tensors, values | {
        "unjudged": run.unjudged,
        "good": [good.step for good in run.good],
        "position": run.batches.position,
        "watch": run.watch.state(),
        "window": windows.index if windows is not None else 0,
        "passes": PASSES,
    }


# how a pass is cut into batches: 2 is in sizes that differ by one at most; files without it left a small batch over
PASSES = 2

# the attributes of a run that have a JSON form
_PLAIN = (
    *("step", "stale", "rollbacks", "shrink", "restart"),
    *("history", "events", "stop_reason", "best_step", "best_bound"),
)


def _restore(run: Run, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    device = run.train.device
    for name in _PLAIN:
        setattr(run, name, values[name])
    run.unjudged = values["unjudged"]
    run.finished = values["finished"]
    # each to memory of its own, for kernels may add up in another order where it is not aligned; Adam counts its steps
    # in the host's memory
    placed = {
        name: value.clone() if name.endswith("/step") else value.to(device, copy=True)
        for name, value in tensors.items()
        if not name.startswith("random/")
    }
    run.go_to(Snapshot(run.step, part(placed, "now")))
    run.good = [Snapshot(step, part(placed, f"good{index}")) for index, step in enumerate(values["good"])]
    run.best = part(placed, "best/model"), part(placed, "best/guide")
    run.watch.restore(values["watch"])
    place = (tensors["random/order"].clone(), values["position"])
    if values.get("passes") != PASSES:
        run.batches.begin_anew(*place)
        run.events.append(f"step {run.step}: the checkpoint is of an older version, so that a new pass begins here")
    elif isinstance(run.batches, WindowedBatches):
        run.batches.go_to(*place, values["window"], part(placed, "window"))
    else:
        run.batches.go_to(*place)
    passes = run.batches.batches if isinstance(run.batches, WindowedBatches) else run.batches
    if passes.position > len(passes.order):
        raise ValueError(f"position {passes.position} in a pass of {len(passes.order)} batches")
    torch.random.set_rng_state(tensors["random/cpu"].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"].clone(), device)
