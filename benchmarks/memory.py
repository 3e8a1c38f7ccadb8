"""How much memory a fit takes, each size in a process of its own.

`python benchmarks/memory.py` writes `benchmarks/results/memory.md`. Memory is what the process has allocated (RssAnon
of /proc/self/status, so Linux only), read every two milliseconds: pages of files that are mapped into memory do not
count, which the system takes back when it needs them. "data" is what the arrays in memory hold, "peak" the most that
was allocated between the imports and the end of the fit or of what follows it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latentrnn as lr
from benchmarks.scaling import make_parts

STEPS = 4  # of a fit; memory does not grow after the second
LONG = (100, 1_000, 3_000, 10_000, 30_000, 100_000)
CHANNELS = (100, 300, 1_000, 3_000, 10_000)
SETS = (100, 1_000, 10_000)
DRAWS = (10, 100, 300)


def allocated() -> float:
    """MB that the process has allocated."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


class Peak:
    """The most memory that was allocated within the block, MB."""

    def __enter__(self) -> Peak:
        self.most = allocated()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.002):
            self.most = max(self.most, allocated())

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()


def make_data(counts: np.ndarray, stored: bool) -> tuple[Any, float]:
    """Return data, and the MB that they hold; what reading an array needed besides has been given back."""
    if stored:
        return lr.StoredSequences.from_arrays({"spikes": counts}, dt=0.01), 0.0
    data = lr.SequenceData.from_arrays({"spikes": counts}, dt=0.01)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return data, 5 * counts.size / 2**20  # values and masks


def in_a_file(sequences: int, steps: int, channels: int, folder: str) -> np.ndarray:
    """Counts in a file, written some sequences at a time, mapped into memory."""
    path = Path(folder) / "counts.npy"
    counts = np.lib.format.open_memmap(path, "w+", np.float32, (sequences, steps, channels))
    rng = np.random.default_rng(0)
    for row in range(sequences):
        for start in range(0, steps, 10_000):
            counts[row, start : start + 10_000] = rng.poisson(0.5, counts[row, start : start + 10_000].shape)
    counts.flush()
    return np.load(path, mmap_mode="r")


def measure(what: dict[str, Any]) -> dict[str, float]:
    """Fit once, in this process, and return data and peak in MB and the seconds that it took."""
    sequences, steps, channels = what["sequences"], what["steps"], what["channels"]
    window = None if what.get("window") is None else lr.Window(what["window"], what["window"] // 4)
    with tempfile.TemporaryDirectory() as folder:
        counts = in_a_file(sequences, steps, channels, folder)
        began, start = time.perf_counter(), allocated()
        data, held = make_data(counts, what["stored"])
        with Peak() as peak:
            if what["stored"]:  # whose ingestion is to be bounded too
                data, held = make_data(counts, True)
            model, guide = make_parts(data.spec, what.get("max_elements"))
            settings = {
                "steps": STEPS,
                "batch_size": what["batch"],
                "reporting": lr.Reporting(progress=False),
                "compute": lr.Compute(device="cpu", window=window),
            }
            result = lr.fit(model, guide, data, **settings)
            if draws := what.get("draws"):
                held_in = data.load() if what["stored"] else data
                posterior = result.posterior(held_in, device="cpu", window=window)
                posterior.mean("spikes", draws)
                posterior.evidence("elbo", draws)
        return {"data": held, "peak": peak.most - start, "seconds": time.perf_counter() - began}


def apart(**what: Any) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, "--one", json.dumps(what)]
    # what is freed goes back to the system at once, and is not kept for the next request
    settings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(head: str, rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return the rows of a table, one process each."""
    lines = [f"| {head} | data MB | peak MB | peak less data MB |", "|---|---|---|---|"]
    for name, what in rows:
        found = apart(**what)
        data, peak = found["data"], found["peak"]
        lines.append(f"| {name} | {data:.0f} | {peak:.0f} | {peak - data:.0f} |")
        print(lines[-1], f"{found['seconds']:.0f} s", flush=True)
    return lines


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", help="measure this, in this process, and print it")
    parser.add_argument("--largest", type=int, default=100_000, help="leave out larger sizes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory.md")
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        print(json.dumps(measure(json.loads(arguments.one))))
        return
    largest = arguments.largest
    page = [
        "# Memory",
        "",
        "`python benchmarks/memory.py`: the model of `benchmarks/scaling.py`; every row a process of its own, one "
        f"thread, float32, torch {torch.__version__}, {platform.machine()}. MB allocated above what the imports take; "
        f"a file that is mapped into memory does not count. {STEPS} optimiser steps.",
    ]
    base = {"sequences": 4, "channels": 50, "batch": 4}
    rows = []
    for t in LONG:
        if t <= min(largest, 10_000):
            rows.append((f"{t:,}, whole", base | {"steps": t, "stored": False}))
        if t <= largest:
            rows.append((f"{t:,}, in memory, windows of 1,000", base | {"steps": t, "stored": False, "window": 1000}))
            rows.append((f"{t:,}, in a file, windows of 1,000", base | {"steps": t, "stored": True, "window": 1000}))
    page += ["", "## Steps of a sequence", "", "4 sequences of 50 channels.", "", *table("T", rows)]
    rows = []
    for c in CHANNELS:
        if c <= largest:
            wide = {"sequences": 16, "steps": 400, "channels": c, "batch": 16, "stored": False}
            rows += [(f"{c:,}, whole", wide), (f"{c:,}, in chunks of 2^20", wide | {"max_elements": 2**20})]
    page += ["", "## Channels", "", "16 sequences of 400 steps.", "", *table("channels", rows)]
    rows = []
    for n in SETS:
        if n <= largest:
            many = {"sequences": n, "steps": 100, "channels": 50, "batch": 64}
            rows += [(f"{n:,}, in memory", many | {"stored": False}), (f"{n:,}, in a file", many | {"stored": True})]
    page += ["", "## Sequences", "", "Of 100 steps and 50 channels, in batches of 64.", "", *table("sequences", rows)]
    rows = []
    for draws in DRAWS:
        if draws <= largest:
            one = {"sequences": 4, "steps": 3000, "channels": 50, "batch": 4, "stored": False, "draws": draws}
            rows.append((f"{draws:,}", one | {"window": 1000}))
    page += [
        "",
        "## Draws",
        "",
        "A fit, then means and evidence of 4 sequences of 3,000 steps, in windows of 1,000.",
        "",
    ]
    page += table("draws", rows)
    arguments.out.write_text("\n".join([*page, ""]))


if __name__ == "__main__":
    main()
