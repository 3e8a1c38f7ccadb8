"""All systems of the gallery in full, in one table: `python examples/gallery.py` writes `examples/results/gallery.md`.

Every example asserts its claim, about a system whose numbers are planted or about recordings in the folder `--data`.
Results are kept in `--work`, so that a run that was stopped goes on where it was; an example is run again when it, or a
simulator, has changed. An example whose claim does not hold is said to have failed, and so has the run. `--only` runs
some of them; the rows of the others stay as they are on the page, as do those whose recordings are not there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

EXAMPLES = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LATENTRNN_SHARED", EXAMPLES.parents[1] / "shared")) / "data"
SYSTEMS = {  # by row of the gallery
    1: "monkey_reach",
    3: "stimulus_gain",
    6: "input_attention",
    7: "readout_valve",
    8: "synaptic_depression",
    10: "gait",
    16: "fading_memory",
    17: "dynamical_systems",
    22: "forgetting_curve",
    24: "protein_probes",
    25: "methylation_memory",
    26: "volatility",
    37: "clinical_gaps",
    39: "forecast_horizons",
    43: "batch_reactor",
    45: "enhancer_decay",
    47: "next_click",
    50: "splice_junctions",
}
FAILED = "its claim did not hold"
RECORDINGS = {  # by system: the folder of `--data` without which it cannot be run in full
    "batch_reactor": "batch_process",
    "battery": "battery_leaf_cell",
    "clinical_gaps": "icu_physionet2012",
    "gait": "gait_fda",
    "monkey_reach": "monkey_reach_bmi",
    "next_click": "clicks_msnbc323",
    "stimulus_gain": "locust_odour",
    "protein_probes": "protein_cb513",
    "splice_junctions": "splice_junctions",
    "volatility": "bitcoin_daily",
}


@dataclass(frozen=True)
class Result:
    """What an example says of itself.

    Attributes:
        claim: what it asserts, in words.
        found: the figure, with its uncertainty.
        baseline: the same from an analysis without this package, on the same data.
    """

    claim: str
    found: str
    baseline: str

    def write(self, out: Path) -> None:
        """Keep it beside the example's figure."""
        (out / "result.json").write_text(json.dumps(asdict(self), indent=2) + "\n")


def options(file: str) -> argparse.Namespace:
    """Return what the command line says to the example in `file`.

    Of it: `out`, a folder that is there; `data`; `smoke`; and `seeds`, which gives the range of so many seeds, from
    `--first-seed` on: a claim whose bounds were set when its first seeds had been seen is put to others by it.
    """
    name = Path(file).resolve().parent.name
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("build") / name, help="folder for the results")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of recordings, where an example needs one")
    parser.add_argument("--smoke", action="store_true", help="fewer data and draws: the claim in a weaker form")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of the seeds")
    found = parser.parse_args()
    found.seeds = lambda number: range(found.first_seed, found.first_seed + number)
    if not found.smoke and name in RECORDINGS and not (found.data / RECORDINGS[name]).is_dir():
        parser.error(f"no recordings in {found.data / RECORDINGS[name]}: give --data, or --smoke for simulated ones")
    found.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # many small steps: a second thread only waits for the first
    return found


def quantiles(draws: torch.Tensor, level: float = 0.9) -> NDArray[np.float64]:
    """Return lower end, median and upper end of the central interval of draws of one number, in any shape."""
    return np.quantile(draws.detach().numpy(), [(1 - level) / 2, 0.5, (1 + level) / 2])


def shown(values: Any, form: str = ".3g") -> str:
    """Return estimate and interval, (low, middle, high), in words."""
    low, middle, high = (format(float(value), form) for value in values)
    return f"{middle} [{low}, {high}]"


def ranged(values: Iterable[float], form: str = ".3f") -> str:
    """Return mean and range of what several seeds gave, in words."""
    listed = list(values)
    return f"{np.mean(listed):{form}} ({min(listed):{form}} to {max(listed):{form}})"


def held(intervals: Sequence[NDArray[np.float64]], planted: float) -> str:
    """Return in how many of the simulations an interval, (low, middle, high), holds what was planted, in words."""
    return f"{_count(intervals, planted)} of {len(intervals)}"


def enough(intervals: Sequence[NDArray[np.float64]], planted: float, level: float = 0.9) -> bool:
    """Return whether these are at least as many as of intervals that hold with this probability, but for 1 in 1000."""
    return bool(_count(intervals, planted) >= binom.ppf(1e-3, len(intervals), level))


def _count(intervals: Sequence[NDArray[np.float64]], planted: float) -> int:
    return sum(bool(low < planted < high) for low, _, high in intervals)


def fingerprint(system: str, examples: Path = EXAMPLES) -> str:
    """Return a hash of what a result depends on: the example's files and the simulators."""
    files = [*sorted((examples / system).glob("*.py")), examples / "simulate.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def run(system: str, work: Path, examples: Path = EXAMPLES, *, data: Path = SHARED) -> dict[str, Any]:
    """Run one example, or return what an earlier run of the same files left: its result, or none, and its seconds."""
    out = work / system
    kept, mark = out / "run.json", fingerprint(system, examples)
    if kept.exists() and (found := json.loads(kept.read_text()))["fingerprint"] == mark:
        print(f"{system}: kept from an earlier run", flush=True)
        return dict(found)
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").unlink(missing_ok=True)
    print(f"{system}: running", flush=True)
    start = _processor_seconds()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, examples / system / "demo.py", "--out", out, "--data", data]
    ended = subprocess.run(command, env=environment, check=False)
    found = {"fingerprint": mark, "seconds": _processor_seconds() - start, "result": None}
    if ended.returncode == 0:
        found["result"] = json.loads((out / "result.json").read_text())
        kept.write_text(json.dumps(found))  # a failure is not kept: the next run tries again
    return found


def _processor_seconds() -> float:
    """Return the processor's time of all processes that were run from here."""
    spent = os.times()
    return spent.children_user + spent.children_system


def rows(page: str) -> dict[int, str]:
    """Return the lines of a page's table by the number of the row."""
    return {int(row): line for line, row in re.findall(r"^(\| (\d+) \| .*)$", page, re.MULTILINE)}


def table(
    runs: Mapping[int, Mapping[str, Any]], systems: Mapping[int, str], earlier: Mapping[int, str] | None = None
) -> str:
    """Return the gallery's page, of runs by row; rows that were not run are taken from an earlier page."""
    lines = [
        "# Gallery",
        "",
        "`make gallery` writes this page: every example in full, its claim asserted. Intervals, in brackets, are of",
        "90% unless it says otherwise; baselines see the same data. Seconds are the processor's, of a whole example.",
        f"torch {torch.__version__}, {platform.machine()}, one thread.",
        "",
        "| row | system | claim | found | baseline | seconds |",
        "|---|---|---|---|---|---|",
    ]
    shown = {row: line for row, line in (earlier or {}).items() if row in systems}
    for row, found in runs.items():
        result = found["result"] or {"claim": FAILED, "found": "", "baseline": ""}
        cells = [result["claim"], result["found"], result["baseline"], f"{found['seconds']:.0f}"]
        shown[row] = f"| {row} | [{systems[row]}](../{systems[row]}/demo.py) | {' | '.join(cells)} |"
    lines += [shown[row] for row in sorted(shown)]
    for row in sorted(shown):
        if FAILED not in shown[row]:
            lines += ["", f"## {systems[row].replace('_', ' ')}", "", f"![{systems[row]}]({systems[row]}.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what has not been run, and write the page and its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/gallery"), help="where results are kept")
    parser.add_argument("--out", type=Path, default=EXAMPLES / "results", help="where the page goes")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of recordings")
    parser.add_argument("--only", nargs="+", choices=sorted(SYSTEMS.values()), metavar="SYSTEM", help="run these alone")
    parser.add_argument("--afresh", action="store_true", help="keep nothing of earlier runs")
    given = parser.parse_args()
    if given.afresh:
        shutil.rmtree(given.work, ignore_errors=True)
    given.out.mkdir(parents=True, exist_ok=True)
    page, runs = given.out / "gallery.md", {}
    earlier = rows(page.read_text()) if page.exists() else {}
    for row, system in SYSTEMS.items():
        if given.only and system not in given.only:
            continue
        if system in RECORDINGS and not (given.data / RECORDINGS[system]).is_dir():
            print(f"{system}: not run, no recordings in {given.data / RECORDINGS[system]}", flush=True)
            continue
        runs[row] = run(system, given.work, data=given.data)
        if runs[row]["result"] is not None:
            shutil.copy(given.work / system / f"{system}.png", given.out)
        page.write_text(table(runs, SYSTEMS, earlier))
    if failed := [SYSTEMS[row] for row, found in runs.items() if found["result"] is None]:
        raise SystemExit(f"claims that did not hold: {', '.join(failed)}")


if __name__ == "__main__":
    main()
