"""How often do guides' intervals hold a parameter that was drawn from its prior, for every kind of component?

`python -m benchmarks.prior_coverage` writes `benchmarks/results/prior_coverage.md`. For each component of the tests'
registry one parameter, of a support of its own where it has one, has a prior; all else is known. A value is drawn from
the prior, data of four short sequences from the model given it, and a guide learns it again: half of the simulations
by independent Normals (on the unconstrained line), half by a multivariate one. The interval is that of one entry,
another in each simulation. With a posterior that is right, 90% intervals hold 90% of what was planted, whatever the
prior (Cook, Gelman, Rubin. Validation of software for Bayesian models using posterior quantiles. 2006).
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from pathlib import Path

import torch
from scipy import stats

from tests.models.learned_parameters import cases, covered

OUT = Path(__file__).parent / "results" / "prior_coverage.md"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=40)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    count = arguments.simulations
    lines = [
        "# Coverage of parameters with priors, component by component",
        "",
        f"`python -m benchmarks.prior_coverage --simulations {count}`: 90% intervals that hold what was planted; "
        f"{platform.machine()}, torch {torch.__version__}.",
        "",
        "| parameter | transition, latent, heads | independent Normals | multivariate |",
        "|---|---|---|---|",
    ]
    started, totals = time.process_time(), [0, 0]
    numbers = [0, 0]
    for case in cases():
        found: list[list[bool]] = [[], []]
        for seed in range(count):
            found[seed % 2].append(covered(case, ("normal", "multivariate")[seed % 2], seed))
        cells = " | ".join(f"{sum(each)} of {len(each)}" for each in found)
        lines.append(f"| {case.name} | {', '.join(case.parts)} | {cells} |")
        print(lines[-1], flush=True)
        for k, each in enumerate(found):
            totals[k] += sum(each)
            numbers[k] += len(each)
        pairs = list(zip(totals, numbers, strict=True))
        shares = " | ".join(f"{held} of {number} ({100 * held / number:.1f}%)" for held, number in pairs)
        least = [int(stats.binom.ppf(1e-3, number, 0.9)) for number in numbers]
        lowest = int(stats.binom.ppf(1e-3 / 88, count // 2, 0.9))
        rows = [
            f"| all | | {shares} |",
            "",
            f"At a rate of 90%, fewer than {least[0]} and {least[1]} of all have a probability of a "
            f"thousandth; so has fewer than {lowest} of {count // 2} in any of 88 cells.",
            f"{time.process_time() - started:.0f} s of one core.",
        ]
        arguments.out.write_text("\n".join([*lines, *rows, ""]))


if __name__ == "__main__":
    main()
