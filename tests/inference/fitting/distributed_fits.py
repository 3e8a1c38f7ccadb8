"""A program: fits that a launcher starts in several processes, or one alone, and writes what came out.

torchrun --standalone --nproc-per-node 2 -m tests.inference.fitting.distributed_fits FOLDER KIND ...

Without a launcher it starts the two processes itself, for one launch after another: by forks of one process that has
imported everything and computed nothing, so that each launch costs little.

python -m tests.inference.fitting.distributed_fits < LAUNCHES, each a line of JSON: [FOLDER, KIND, ...]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch.distributed import TCPStore

import latentrnn as lr
from latentrnn.inference.fitting.evaluation import Validation
from latentrnn.inference.fitting.trainer import Trainer

STEPS = 20


def make_data(sequences: int, *, seed: int, ragged: bool = True) -> lr.SequenceData:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 9, sequences) if ragged else np.full(sequences, 6)
    drive = [rng.normal(size=(n, 1)) for n in lengths]
    spikes = [rng.poisson(np.exp(0.5 + x @ np.ones((1, 2)))) for x in drive]
    return lr.SequenceData.from_arrays({"y": spikes}, {"drive": drive}, dt=0.01)


# what differs from the defaults of `fit_here`; batches of 5 are shared 3 to 2, of 4, the last of a pass, 2 to 2, and of
# 1 one to none
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "defaults": dict,
    "one by one": lambda: {"batch_size": 1},
    "parameters": lambda: {"head": lr.Poisson(priors={"weight": dist.Normal(0.0, 1.0)})},
    "markov": lambda: {
        "transition": lr.VanillaRNN(4),
        "latent": lr.MarkovNormal(),
        "guide": {"family": lr.Markov(3)},
        "objective": lr.ELBO(num_particles=3, coordinated_dropout=0.3),
    },
    "one batch": lambda: {
        "batch_size": 64,
        "stopping": lr.EarlyStopping(every=2, patience=3),
        "optimizer": lr.AdamW(0.05),
    },
    "iwae": lambda: {"objective": lr.IWAE(num_particles=3), "transition": lr.GRU(4, zoneout=0.2)},
    "fivo": lambda: {"objective": lr.FIVO(num_particles=3)},
    "per sequence": lambda: {"guide": {"family": lr.PerSequence(lr.MeanField())}, "validation": None},
    "stored": lambda: {"stored": True},
    "divergence": lambda: {
        "optimizer": lr.AdamW(1e4, rollback=lr.Rollback(factor=1e-6)),
        "objective": lr.ELBO(kl=lr.KLWarmUp(0.0)),
    },
    "converging": lambda: {
        "steps": None,
        "stopping": lr.EarlyStopping(every=3, patience=2, max_steps=60, max_time=600.0),
        "optimizer": lr.AdamW(0.05),
        "objective": lr.ELBO(kl=lr.KLWarmUp(0.01)),
    },
    "at rest": lambda: KINDS["converging"]() | {"validation": None},
    "unreachable": lambda: {"transition": lr.GRU(4, layers=2, dropout=0.5)},
}

# signal, which process it meets, and whether there is a folder for checkpoints
EVENTS = {
    "second killed": (signal.SIGKILL, 1, True),
    "first killed": (signal.SIGKILL, 0, True),
    "killed in validation": (signal.SIGKILL, 1, True),
    "killed without checkpoint": (signal.SIGKILL, 1, False),
    "interrupted": (signal.SIGINT, 1, True),
    "terminated": (signal.SIGTERM, 1, True),
}


def fit_here(**settings: Any) -> lr.FitResult:
    data: Any = make_data(14, seed=0)
    if settings.pop("stored", False):
        data = lr.StoredSequences.from_arrays(
            {"y": _ragged(data, data.observations["y"])}, {"drive": _ragged(data, data.covariates["drive"])}, dt=0.01
        )
    parts = {"transition": lr.GRU(4), "latent": lr.Innovations(2), "head": lr.Poisson(), "guide": {}}
    parts |= {name: settings.pop(name) for name in list(settings) if name in parts}
    validation = settings.pop("validation", make_data(5, seed=1))
    model = lr.LatentRNN(
        data.spec, transition=parts["transition"], latent=parts["latent"], observations={"y": parts["head"]}
    )
    guide = lr.Guide(model, **({"encoder": lr.RNNEncoder(3)} | parts["guide"]))
    defaults = {
        "steps": STEPS,
        "batch_size": 5,
        "stopping": lr.EarlyStopping(every=6),
        "reporting": lr.Reporting(progress=False, every=4),
        "compute": lr.Compute(device="cpu"),
    }
    return lr.fit(model, guide, data, validation, **(defaults | settings))


def _ragged(data: lr.SequenceData, values: torch.Tensor) -> list[np.ndarray]:
    return [value[:length].numpy() for value, length in zip(values, data.host_lengths, strict=True)]


def written(result: lr.FitResult) -> dict[str, Any]:
    """What there is to compare of a fit."""
    weights = {f"model/{k}": v for k, v in result.model.state_dict().items()}
    weights |= {f"guide/{k}": v for k, v in result.guide.state_dict().items()}
    return {
        "weights": weights, "history": result.history, "stop_reason": result.stop_reason, "events": result.events,
        "best_step": result.best_step,
    }  # fmt: skip


def at_step(number: int, action: Callable[[], None]) -> None:
    """Do something when this process begins a step."""
    original = Trainer.gradient

    def acts(self: Trainer, batch: Any) -> Any:
        if self.state.step == number:
            action()
        return original(self, batch)

    Trainer.gradient = acts  # type: ignore[method-assign]


def at_evaluation(number: int, action: Callable[[], None]) -> None:
    """Do something when this process begins to evaluate the weights of a step."""
    original, evaluations = Validation.bound, count()

    def acts(self: Validation, *of: Any) -> float:
        if next(evaluations) == number // 6:
            action()
        return original(self, *of)

    Validation.bound = acts  # type: ignore[method-assign]


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", 0))
    for name in names:
        settings: dict[str, Any] = {}
        if name in KINDS:
            settings = KINDS[name]()
        elif name == "other data":
            settings = {"validation": make_data(5, seed=2 + rank)}
        elif name == "resumed":
            settings = {"checkpointing": lr.Checkpointing(folder / "checkpoint", every=0, resume=True)}
        else:  # something happens to one process at step 11, or in the evaluation after it
            number, hit, kept = EVENTS[name]
            settings = {"checkpointing": lr.Checkpointing(folder / "checkpoint")} if kept else {}
            if rank == hit:
                happens = at_evaluation if name == "killed in validation" else at_step
                happens(11, lambda number=number: os.kill(os.getpid(), number))
        torch.save(written(fit_here(**settings)), folder / f"{name}-{rank}.pt")


def launch(folder: Path, names: list[str]) -> None:
    """Start the fits in two forked processes, as a launcher does, and write with which codes they ended.

    The store by which they meet is this process's, so that it outlives them. What they say goes to `folder / stderr`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    members = [fork.Process(target=member, args=(folder, names, rank, port)) for rank in (0, 1)]
    for process in members:
        process.start()
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    for process in members:
        process.join()
    del store
    (folder / "codes").write_text(" ".join(str(process.exitcode) for process in members))


def member(folder: Path, names: list[str], rank: int, port: int) -> None:
    """Fit as the process of this rank."""
    os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    main(folder, names)


if __name__ == "__main__":
    if "RANK" in os.environ:
        main(Path(sys.argv[1]), sys.argv[2:])
    else:
        for line in sys.stdin:
            launch(Path((words := json.loads(line))[0]), words[1:])
