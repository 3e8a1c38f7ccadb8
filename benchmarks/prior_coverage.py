"""How often do guides' intervals hold a parameter that was drawn from its prior, for every kind of component?

`python -m benchmarks.prior_coverage` writes `benchmarks/results/prior_coverage.md`. For each component of the tests'
registry one parameter, of a support of its own where it has one, has a prior; all else is known. A value is drawn from
the prior, data of four short sequences from the model given it, and guides learn it again: independent Normals (on the
unconstrained line) and a multivariate one. The interval is that of one entry, another in each simulation. With a
posterior that is right, 90% intervals hold 90% of what was planted, whatever the prior (Cook, Gelman, Rubin. Validation
of software for Bayesian models using posterior quantiles. 2006).

`--nuts` takes the same simulations by NUTS, for the parameters that are named by `--only`, and beside it what the best
of all independent Normals would hold were the posterior a Normal: they have its means, and the standard deviation of an
entry given all others, (P_ii)^(-1/2) of its precision P, in the place of that of the entry (C^-1 = P, (C_ii)^(1/2)),
which is larger wherever entries are correlated.

References:
    Bishop. Pattern recognition and machine learning. 2006 (section 10.1.2: independent factors of a Normal).
    Wang, Titterington. Inadequacy of interval estimates corresponding to variational Bayesian approximations. 2005.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor
from torch.distributions import biject_to

import latentrnn as lr
from tests.models.learned_parameters import Case, cases, covered, entry_of, holds, planted, stream

OUT = Path(__file__).parent / "results" / "prior_coverage.md"
FAMILIES = ("normal", "multivariate")
CHAINS = {"num_samples": 200, "warmup": 150, "chains": 2, "progress": False}
QUIET = {"check_priors": False, "device": "cpu"}
HEADING = "| parameter | transition, latent, heads | independent Normals | multivariate |"
BY_NUTS = "| parameter | simulations | NUTS | best independent Normals | width, of NUTS |"
PROBABILITIES = {"a thousandth": 1e-3, "the tests' failure budget, 2e-5": 2e-5}  # of falling below, if all is right


def by_guides(case: Case, count: int, before: str = "") -> str:
    """The line of one parameter: how many intervals hold it, by each family.

    Args:
        case: the parameter and its model.
        count: of simulations. Each depends on its number alone, so that those of `before` need not run again.
        before: this line as it stood, with fewer simulations.
    """
    counts = [(int(held), int(number)) for held, number in re.findall(r"(\d+) of (\d+)", before)]
    counts = counts or [(0, 0)] * len(FAMILIES)
    held = zip(*(covered(case, FAMILIES, seed) for seed in range(counts[0][1], count)), strict=True)
    cells = [f"{former + sum(each)} of {count}" for (former, _), each in zip(counts, held, strict=True)]
    return f"| {case.name} | {', '.join(case.parts)} | {' | '.join(cells)} |"


def by_chains(case: Case, count: int) -> str:
    """The line of one parameter by NUTS and by the best of independent Normals."""
    right, best, widths = zip(*(chained(case, seed) for seed in range(count)), strict=True)
    share = torch.tensor(widths).median()
    return f"| {case.name} | {count} | {sum(right)} of {count} | {sum(best)} of {count} | {share:.2f} |"


def chained(case: Case, seed: int) -> tuple[bool, bool, float]:
    """Whether one simulation's intervals hold, by NUTS and by independent Normals, and the share of the widths."""
    model, data, site, value = planted(case, seed)
    start = lr.laplace(model, data, **QUIET)  # chains that begin far off take ten times as long
    posterior = lr.sample(model, data, given=start, seed=stream(case, seed, 3) % 2**31, **CHAINS, **QUIET)
    draws = posterior.parameters(CHAINS["num_samples"] * CHAINS["chains"])[site].double()
    prior, _ = model.parameter_sites()[site]
    apart, share = independent(draws, prior.support)
    return holds(*entry_of(draws, value, seed)), holds(*entry_of(apart, value, seed)), share


def independent(draws: Tensor, support: object) -> tuple[Tensor, float]:
    """Return draws of the best independent Normals, and the median share of the entries' widths that these have.

    Args:
        draws: of the posterior, (draw, *shape), which on the unconstrained line are taken for a Normal's.
        support: of the prior.
    """
    transform = biject_to(support)
    free = transform.inv(draws)
    flat = free.flatten(1)
    covariance = torch.cov(flat.mT).reshape(flat.shape[1], -1)
    apart = torch.linalg.inv(covariance).diagonal().rsqrt()
    noise = torch.randn(4000, flat.shape[1], dtype=flat.dtype, generator=torch.Generator().manual_seed(0))
    normal = flat.mean(0) + apart * noise
    return transform(normal.reshape(-1, *free.shape[1:])), float((apart / covariance.diagonal().sqrt()).median())


def totals(rows: Iterable[str]) -> list[str]:
    """The table's last line and what belongs to it."""
    found = [[(int(a), int(b)) for a, b in re.findall(r"(\d+) of (\d+)", row)] for row in rows]
    columns = list(zip(*found, strict=True))
    sums = [(sum(held for held, _ in column), sum(number for _, number in column)) for column in columns]
    shares = " | ".join(f"{held} of {number} ({100 * held / number:.1f}%)" for held, number in sums)
    number, each = sums[0][1], found[0][0][1]
    cells = sum(map(len, found))
    bounds = [
        f"with a probability of {name} fewer than {stats.binom.ppf(chance, number, 0.9):.0f} of {number} do, and fewer "
        f"than {stats.binom.ppf(chance / cells, each, 0.9):.0f} of {each} in any of the {cells} cells"
        for name, chance in PROBABILITIES.items()
    ]
    return [
        f"| all | | {shares} |",
        "",
        f"Where 90 of 100 hold, {'; '.join(bounds)}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=40)
    parser.add_argument("--only", nargs="*", help="names of parameters, as in the table; other rows stay")
    parser.add_argument("--go-on", action="store_true", help="add to the simulations that the table has")
    parser.add_argument("--nuts", action="store_true", help="the same simulations by NUTS, in a table of their own")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    every = list(cases())
    chosen = [case for case in every if options.only is None or case.name in options.only]
    for case in chosen:
        started = time.process_time()
        before = line_of(options.out, case.name) if options.go_on else ""
        if options.nuts:
            row = by_chains(case, options.simulations)
        elif f"of {options.simulations} |" in before:
            continue
        else:
            row = by_guides(case, options.simulations, before)
        print(row, f"{time.process_time() - started:.0f} s", flush=True)
        options.out.write_text(page(options.out, [each.name for each in every], row, nuts=options.nuts))


def line_of(out: Path, name: str) -> str:
    """The line of one parameter in the table of guides, empty where it has none."""
    table = out.read_text().split(BY_NUTS)[0].splitlines() if out.exists() else []
    return next((line for line in table if line.startswith(f"| {name} |")), "")


def page(out: Path, names: list[str], row: str, *, nuts: bool) -> str:
    """The file with one of its rows made anew."""
    before = out.read_text().split(BY_NUTS) if out.exists() else [""]
    tables = [
        {name: line for name in names for line in part.splitlines() if line.startswith(f"| {name} |")}
        for part in [*before, ""][:2]
    ]
    tables[nuts][row.split(" | ")[0].removeprefix("| ")] = row
    guides, chains = ([table[name] for name in names if name in table] for table in tables)
    simulations = "".join(f" --simulations {each}" for each in re.findall(r"of (\d+) \|$", "".join(guides[:1])))
    lines = [
        "# Coverage of parameters with priors, component by component",
        "",
        f"`python -m benchmarks.prior_coverage{simulations}`: 90% intervals that hold what was planted; "
        f"{platform.machine()}, torch {torch.__version__}. Of {len(names)} kinds of parameters {len(guides)} have been "
        "taken; where fewer than all, the others are still to be run.",
        "",
        HEADING,
        "|---|---|---|---|",
        *(guides + totals(guides) if guides else []),
        "",
        "The same simulations by NUTS; by the best independent Normals, those with its means and each entry's standard "
        "deviation given all others; and the median share of the entries' widths that these have.",
        "",
        BY_NUTS,
        "|---|---|---|---|---|",
        *chains,
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
