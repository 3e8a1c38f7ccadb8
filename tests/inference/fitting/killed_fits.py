"""A program: fits in child processes, killed with SIGKILL at random moments and taken up again, compared to the bit.

Children are forked from one process that has imported everything and computed nothing, so that each costs little. When
to kill is drawn in steps of the fit, not in seconds, so that it means the same on every machine; a fraction of a step
is then waited, so that the kill can strike anywhere, in the middle of a write too.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

import latentrnn as lr
from latentrnn.inference.fitting.checkpoints.unfinished import unfinished_files

KILLS, STEPS = 20, 120


def fit_here(folder: Path | None, out: Path) -> None:
    """Fit, and write a hash of the weights and the history when done."""
    rng = np.random.default_rng(0)
    counts = [rng.poisson(1.0, (n, 3)) for n in rng.integers(5, 12, 18)]
    data = lr.SequenceData.from_arrays({"y": counts}, dt=0.01)
    train, validation = data[:13], data[13:]
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(6, zoneout=0.1), latent=lr.Innovations(2), observations={"y": lr.Poisson()}
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    checkpoints = {} if folder is None else {"checkpointing": lr.Checkpointing(folder, every=0, resume=True)}
    result = lr.fit(
        model,
        guide,
        train,
        validation,
        steps=STEPS,
        batch_size=4,
        stopping=lr.EarlyStopping(every=7, patience=None),
        objective=lr.ELBO(coordinated_dropout=0.2),
        compute=lr.Compute(device="cpu"),
        optimizer=lr.AdamW(averaging=0.9, schedule=lr.Plateau()),
        reporting=lr.Reporting(progress=False),
        **checkpoints,
    )
    digest = hashlib.sha256(repr((result.best_step, result.history)).encode())
    for module in (result.model, result.guide):
        for name, value in module.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
    out.write_text(digest.hexdigest())


def child(folder: Path | None, out: Path) -> int:
    """Fork a child that fits; return its process id."""
    if process := os.fork():
        return process
    code = 1
    try:
        fit_here(folder, out)
        code = 0
    finally:
        os._exit(code)


def main(root: Path) -> None:
    """Kill often, compare at every end."""
    torch.set_num_threads(1)
    chance = random.Random(0)
    assert os.waitpid(child(None, root / "undisturbed"), 0)[1] == 0
    expected = (root / "undisturbed").read_text()
    kills, ends, in_a_write = 0, 0, 0
    while kills < KILLS or ends == 0:
        folder, out = root / f"run{ends}", root / f"end{ends}"
        process, ended = child(folder, out), False
        if kills < KILLS:
            goal = number(folder) + chance.randrange(2 * STEPS // KILLS)
            while number(folder) < goal and not ended:
                time.sleep(0.0005)
                ended = os.waitpid(process, os.WNOHANG)[0] != 0
            time.sleep(chance.uniform(0, 0.02))
            if not ended:
                os.kill(process, signal.SIGKILL)
        if not ended:
            _, status = os.waitpid(process, 0)
            if os.WIFSIGNALED(status):
                kills += 1
                in_a_write += any(folder.glob(f".fit-*.{process}.tmp"))
                continue
            assert status == 0, "a child failed"
        assert out.read_text() == expected, f"after {kills} kills the fit ended elsewhere"
        ends += 1
    print(f"{kills} kills, {in_a_write} of them in the middle of a write; {ends} fits ended on the same bits")


def number(folder: Path) -> int:
    """The number of the newest checkpoint."""
    files = unfinished_files(folder)
    return int(files[-1].name.split("-")[1]) if files else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
