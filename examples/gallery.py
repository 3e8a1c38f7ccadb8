"""All systems of the gallery in full, in one table: `python examples/gallery.py` writes `examples/results/gallery.md`.

Every example simulates a system whose numbers are planted, and asserts its claim about them. Results are kept in
`--work`, so that a run that was stopped goes on where it was; an example is run again when it, or a simulator, has
changed. An example whose claim does not hold is said to have failed, and so has the run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

EXAMPLES = Path(__file__).resolve().parent
SYSTEMS = {  # by row of the gallery
    8: "synaptic_depression",
    22: "forgetting_curve",
    25: "methylation_memory",
    45: "enhancer_decay",
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
    """Return what the command line says to the example in `file`: `out`, a folder that is there, and `smoke`."""
    name = Path(file).resolve().parent.name
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("build") / name, help="folder for the results")
    parser.add_argument("--smoke", action="store_true", help="fewer data and draws: the claim in a weaker form")
    found = parser.parse_args()
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


def run(system: str, work: Path, examples: Path = EXAMPLES) -> dict[str, Any]:
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
    ended = subprocess.run([sys.executable, examples / system / "demo.py", "--out", out], env=environment, check=False)
    found = {"fingerprint": mark, "seconds": _processor_seconds() - start, "result": None}
    if ended.returncode == 0:
        found["result"] = json.loads((out / "result.json").read_text())
        kept.write_text(json.dumps(found))  # a failure is not kept: the next run tries again
    return found


def _processor_seconds() -> float:
    """Return the processor's time of all processes that were run from here."""
    spent = os.times()
    return spent.children_user + spent.children_system


def table(runs: Mapping[int, Mapping[str, Any]], systems: Mapping[int, str]) -> str:
    """Return the gallery's page, of runs by row."""
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
    for row, found in sorted(runs.items()):
        system = systems[row]
        result = found["result"] or {"claim": "its claim did not hold", "found": "", "baseline": ""}
        cells = [result["claim"], result["found"], result["baseline"], f"{found['seconds']:.0f}"]
        lines.append(f"| {row} | [{system}](../{system}/demo.py) | {' | '.join(cells)} |")
    for row, found in sorted(runs.items()):
        if found["result"] is not None:
            lines += ["", f"## {systems[row].replace('_', ' ')}", "", f"![{systems[row]}]({systems[row]}.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what has not been run, and write the page and its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/gallery"), help="where results are kept")
    parser.add_argument("--out", type=Path, default=EXAMPLES / "results", help="where the page goes")
    parser.add_argument("--afresh", action="store_true", help="keep nothing of earlier runs")
    given = parser.parse_args()
    if given.afresh:
        shutil.rmtree(given.work, ignore_errors=True)
    given.out.mkdir(parents=True, exist_ok=True)
    runs = {}
    for row, system in SYSTEMS.items():
        runs[row] = run(system, given.work)
        if runs[row]["result"] is not None:
            shutil.copy(given.work / system / f"{system}.png", given.out)
        (given.out / "gallery.md").write_text(table(runs, SYSTEMS))
    if failed := [SYSTEMS[row] for row, found in runs.items() if found["result"] is None]:
        raise SystemExit(f"claims that did not hold: {', '.join(failed)}")


if __name__ == "__main__":
    main()
