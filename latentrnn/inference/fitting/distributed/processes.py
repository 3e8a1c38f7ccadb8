"""Several processes that share every batch of one fit, and one that does not."""

from __future__ import annotations

import atexit
import hashlib
import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, distributed, nn

from latentrnn.data import SequenceData
from latentrnn.inference.fitting.distributed.random_numbers import Share, drawn_for_all

T = TypeVar("T")

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun puts into the environment


class ProcessLost(RuntimeError):
    """Another process of the fit is gone, so that gradients can no longer be added up.

    `fit` raises it in all processes that are left, after it has written the state that all had reached, where it has
    `checkpointing`; with `Checkpointing(folder, resume=True)` the same fit goes on from there.
    """


class Terminated(BaseException):
    """A process of the fit was asked to end (SIGTERM); all of them know."""


class SingleProcess:
    """The one process of a fit: every method is that of a process among several, where nothing is to be shared.

    Attributes:
        rank: number of the process, from zero.
        size: how many there are.
    """

    rank, size = 0, 1
    terminated = False  # whether this process was asked to end, which it does after the step that it is in

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def place(self, device: torch.device) -> torch.device:
        """Return the device of this process."""
        return device

    def share(self, data: SequenceData, positions: Tensor | None, total: int | None = None) -> SequenceData:
        """Return this process's part of the sequences at `positions`; None stands for all, as they are.

        Args:
            data: the sequences.
            positions: which of them are the batch.
            total: how many sequences the batch stands for, and with it every process's part; by default all.
        """
        return data if positions is None else data.batch(positions, total=total)

    def share_of(self, batch: SequenceData) -> Share:
        """Return what part of the whole a batch that `share` returned is."""
        return Share(0, batch.num_sequences, batch.num_sequences, 1.0)

    def draws(self, batch: SequenceData, num_particles: int) -> AbstractContextManager[None]:
        """Within the block, random numbers are those of the whole batch."""
        return nullcontext()

    def reduce(self, parameters: Sequence[nn.Parameter], terms: dict[str, Tensor], batch: SequenceData) -> Any:
        """Put the gradients of the whole batch in place, and return its terms, given those of this process's part."""
        return terms

    def add(self, value: Tensor) -> Tensor:
        """Return the sum over processes."""
        return value

    def from_first(self, function: Callable[[], T]) -> T:
        """Return what `function` returns, or raise what it raises, in the first process."""
        return function()

    def check_same(self, facts: Mapping[str, str]) -> None:
        """Check that all processes were told the same.

        Raises:
            ValueError: naming what differs.
        """

    def broadcast(self, *modules: nn.Module) -> None:
        """Give all processes the weights of the first."""

    def raise_pending_signals(self) -> None:
        """Between two steps: raise `KeyboardInterrupt` or `Terminated` where any process was asked to stop."""
        if self.terminated:
            self.terminated = False
            raise Terminated

    @contextmanager
    def defer_signals(self) -> Iterator[None]:
        """Within the block, signals wait until `raise_pending_signals`.

        Of one process SIGTERM alone, with which schedulers give notice, and unless the program has its own way with it.
        """
        mine = threading.current_thread() is threading.main_thread()
        if not mine or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            yield
            return
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "terminated", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if self.terminated:  # too late for a step to end with it
                self.terminated = False
                signal.raise_signal(signal.SIGTERM)


class ProcessGroup(SingleProcess):
    """All processes that a launcher started, each with its share of every batch.

    A step makes one collective call, over one flat buffer: gradients and terms, weighted by the share of the batch
    that they stand for (so that what belongs to no sequence, like the KL of parameters with priors, counts once), and
    what has to be agreed about (signals, random numbers).

    Args:
        device: where the fit runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.device = device
        self.received: set[int] = set()  # signals that this process has received and not raised yet
        self._pending = torch.zeros(len(SIGNALS))  # those that any process had received when gradients last met
        self._shares: WeakKeyDictionary[SequenceData, Share] = WeakKeyDictionary()
        self._with_gradient: list[bool] | None = None
        self.peers: list[tuple[str, int]] = []  # host and process id, by rank
        self.peers = self._gathered((socket.gethostname(), os.getpid()))

    def place(self, device: torch.device) -> torch.device:
        return self.device

    def share(self, data: SequenceData, positions: Tensor | None, total: int | None = None) -> SequenceData:
        whole = torch.arange(len(data)) if positions is None else positions
        base, rest = divmod(len(whole), self.size)
        start = self.rank * base + min(self.rank, rest)
        stop = start + base + int(self.rank < rest)
        share = Share(start, stop, len(whole), (stop - start) / len(whole))
        if start == stop:  # fewer sequences than processes: one that somebody else has too, and no weight
            share = Share(len(whole) - 1, len(whole), len(whole), 0.0)
        batch = data.batch(whole[share.start : share.stop], padded_as=whole, total=total)
        self._shares[batch] = share
        return batch

    def share_of(self, batch: SequenceData) -> Share:
        return self._shares[batch]

    def draws(self, batch: SequenceData, num_particles: int) -> AbstractContextManager[None]:
        return drawn_for_all(self.share_of(batch), num_particles)

    def reduce(self, parameters: Sequence[nn.Parameter], terms: dict[str, Tensor], batch: SequenceData) -> Any:
        weight = self.share_of(batch).weight
        if self._with_gradient is None:
            patterns = self._gathered([p.grad is not None for p in parameters])
            self._with_gradient = [any(each) for each in zip(*patterns, strict=True)]
        trained = [p for p, has in zip(parameters, self._with_gradient, strict=True) if has]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        like = parts[0]
        parts.append(torch.stack([value.to(like) for value in terms.values()]))
        flat = torch.cat([part.reshape(-1) for part in parts])
        # zero whatever the gradient, even where it is no number
        flat = flat * weight if weight else torch.zeros_like(flat)
        mine = [float(number in self.received) for number in SIGNALS] + self._random_mark()
        flat = torch.cat([flat, torch.tensor(mine, dtype=flat.dtype).to(flat.device, non_blocking=True)])
        with self._collective():
            distributed.all_reduce(flat)
        *gradients, values, self._pending = flat.split([part.numel() for part in parts] + [len(mine)])
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return dict(zip(terms, values.unbind(), strict=True))

    def add(self, value: Tensor) -> Tensor:
        total = value.to(self.device, torch.float64, copy=True)
        with self._collective():
            distributed.all_reduce(total)
        return total

    def from_first(self, function: Callable[[], T]) -> T:
        found: list[Any] = [None, None]
        if self.first:
            try:
                found[0] = function()
            except Exception as error:
                found[1] = error
        with self._collective():
            distributed.broadcast_object_list(found)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def check_same(self, facts: Mapping[str, str]) -> None:
        digests = {name: hashlib.sha256(fact.encode()).hexdigest() for name, fact in facts.items()}
        found = self._gathered(digests)
        for name, digest in digests.items():
            others = [rank for rank, there in enumerate(found) if there[name] != digest]
            if others:
                raise ValueError(
                    f"fit: process {self.rank} of {self.size} and process {others[0]} were given another {name}; give "
                    "every process the same (a random split needs a seed), each takes its share of every batch"
                )

    @torch.no_grad()
    def broadcast(self, *modules: nn.Module) -> None:
        for module in modules:
            for value in module.state_dict().values():
                sent = value.detach().contiguous()
                with self._collective():
                    distributed.broadcast(sent, 0)
                value.copy_(sent)

    def raise_pending_signals(self) -> None:
        *asked, mark, square = self._pending.tolist()
        if mark**2 != square * self.size:  # not all of them equal
            state = self.from_first(self._random_states)
            torch.set_rng_state(state[0])
            if len(state) > 1:
                torch.cuda.set_rng_state(state[1], self.device)
        for number, count in zip(SIGNALS, asked, strict=True):
            if count:
                self.received.discard(number)
                raise SIGNALS[number]

    @contextmanager
    def defer_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in self.received:  # somebody who does not want to wait
            raise KeyboardInterrupt
        self.received.add(number)

    def _random_states(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else states

    def _random_mark(self) -> list[float]:
        """Return a number below 256 that tells the states of generators apart, and its square: exact when added."""
        mark = zlib.crc32(b"".join(state.numpy().tobytes() for state in self._random_states())) % 256
        return [float(mark), float(mark**2)]

    def _gathered(self, mine: T) -> list[T]:
        """Return what every process has, by rank."""
        found: list[Any] = [None] * self.size
        with self._collective():
            distributed.all_gather_object(found, mine)
        return found

    @contextmanager
    def _collective(self) -> Iterator[None]:
        """A collective call: say who is gone where it fails."""
        try:
            yield
        except RuntimeError as error:
            first_line = str(error).strip().partition("\n")[0]
            raise ProcessLost(f"{self._lost()} ({first_line})") from error

    def _lost(self) -> str:
        """Say which process is gone, as far as can be told from here."""
        here = socket.gethostname()
        others = [rank for rank in range(self.size) if rank != self.rank]
        neighbours = {rank: process for rank, (host, process) in enumerate(self.peers) if host == here}
        dead: list[int] = []
        for _ in range(20):  # a dying process closes its connections a little before it is dead
            dead = [rank for rank in others if rank in neighbours and _dead(neighbours[rank])]
            if dead:
                return f"process {' and '.join(map(str, dead))} of {self.size} is gone"
            time.sleep(0.1)
        who = f"process {others[0]}" if len(others) == 1 else f"one of the processes {others}"
        return f"{who} of {self.size} does not answer"


SIGNALS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


def launched_processes(device: torch.device, processes: str) -> SingleProcess:
    """Return the processes of a fit: those that `torchrun` (or another launcher) started, or this one alone.

    Args:
        device: where the fit is to run.
        processes: "auto", or "alone" for a fit by this process whatever started it.

    Raises:
        ValueError: an unknown word, or fewer GPUs than processes on this machine.
    """
    if not isinstance(processes, str) or processes not in ("auto", "alone"):
        raise ValueError(f"fit: processes must be 'auto' or 'alone'; found {processes!r}")
    if processes == "alone" or not distributed.is_available():
        return SingleProcess()
    if not distributed.is_initialized():
        launched = all(name in os.environ for name in LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1
        if not launched:
            return SingleProcess()
        device = local_device(device)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    if distributed.get_world_size() == 1:
        return SingleProcess()
    return ProcessGroup(local_device(device))


def local_device(device: torch.device) -> torch.device:
    """Return the GPU that belongs to this process among those of its machine, or the CPU.

    Raises:
        ValueError: there are fewer GPUs than processes.
    """
    if device.type != "cuda" or device.index is not None:
        return device
    index = int(os.environ.get("LOCAL_RANK", 0))
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"fit: process {index} of this machine has no GPU to itself, there are {torch.cuda.device_count()}; start "
            'one process per GPU, or give compute=Compute(device="cpu")'
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _leave() -> None:
    """Leave the group at the end of the script, together where the others are there too."""
    if distributed.is_initialized():
        with suppress(RuntimeError):
            distributed.monitored_barrier(timeout=timedelta(seconds=10))
        distributed.destroy_process_group()


def _dead(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        if status.parent.parent.is_dir() and status.parent.exists():
            return status.read_text().rpartition(")")[2].split()[0] in "ZX"  # dead, but nobody has looked yet
        os.kill(process, 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    except PermissionError:
        return False
    return False
