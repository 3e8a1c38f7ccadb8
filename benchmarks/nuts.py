"""Effective draws per second of NUTS: ours, Pyro's own, and a compiled sampler, on the same densities.

`python benchmarks/nuts.py` writes `benchmarks/results/nuts.md`. The densities are two posteriors of public data sets
(posteriordb's arK: 7 parameters, 195 points; the Inference Gym's stochastic volatility of 100 returns: 103 dimensions),
as plain Pyro programs. `--data` names the folder of their files, by default reference_posteriors/ in the folder
LATENTRNN_SHARED or ../shared. With `--numpyro PYTHON`, an interpreter that has NumPyro, the same programs in NumPyro
are sampled too (`rivals/nuts_numpyro.py`).

Effective draws are those of the bulk (Vehtari, Gelman, Simpson, Carpenter, Buerkner, 2021), the smallest of all
parameters. Seconds are the processor's, warm-up, recording and compilation included.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS

from latentrnn.inference.sampling.hamiltonian.density import FlatDensity
from latentrnn.inference.sampling.hamiltonian.sampler import run

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "reference_posteriors"
FILES = ("arK", "stochastic_volatility_sp500_small")
CHAINS = 4


@dataclass(frozen=True)
class Row:
    """What one sampler reached on one density."""

    name: str
    sampler: str
    chains: int
    draws: int  # of each chain, after as many of warm-up
    gradients: int | None
    ess: float
    r_hat: float | None  # of several chains
    seconds: float

    @property
    def rate(self) -> float:
        """Effective draws per second."""
        return self.ess / self.seconds


def autoregression(data: Mapping[str, Any]) -> Callable[[], None]:
    """y_t ~ Normal(alpha + sum_k beta_k y_{t-k}, sigma)."""
    y, order = torch.tensor(data["y"], dtype=torch.float64), data["K"]
    lagged = torch.stack([y[order - k - 1 : len(y) - k - 1] for k in range(order)], -1)
    zero = torch.zeros((), dtype=torch.float64)

    def program() -> None:
        alpha = pyro.sample("alpha", dist.Normal(zero, 10.0))
        beta = pyro.sample("beta", dist.Normal(zero.expand(order), 10.0).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfCauchy(zero + 2.5))
        pyro.sample("y", dist.Normal(alpha + lagged @ beta, sigma).to_event(1), obs=y[order:])

    return program


def volatility(data: Mapping[str, Any]) -> Callable[[], None]:
    """y_t ~ Normal(0, exp(x_t / 2)) with x an AR(1), driven by standard Normal shocks."""
    y = torch.tensor(data["centered_returns"], dtype=torch.float64)
    zero, eye = torch.zeros((), dtype=torch.float64), torch.eye(len(y), dtype=torch.float64)
    before = torch.diag(torch.ones(len(y) - 1, dtype=torch.float64), -1)

    def program() -> None:
        persistence = 2 * pyro.sample("b", dist.Beta(zero + 20.0, zero + 1.5)) - 1
        mean = pyro.sample("mean_log_volatility", dist.Cauchy(zero, 5.0))
        scale = pyro.sample("white_noise_shock_scale", dist.HalfCauchy(zero + 2.0))
        shocks = pyro.sample("shocks", dist.Normal(zero.expand(len(y)), 1.0).to_event(1))
        first = (1 - persistence**2).rsqrt()
        driven = torch.cat([(first * shocks[0])[None], shocks[1:]]).unsqueeze(-1)
        path = torch.linalg.solve_triangular(eye - persistence * before, driven, upper=False, unitriangular=True)
        volatility = ((mean + scale * path.squeeze(-1)) / 2).exp()
        pyro.sample("y", dist.Normal(zero, volatility).to_event(1), obs=y)

    return program


PROGRAMS = dict(zip(FILES, (autoregression, volatility), strict=True))


def judged(name: str, sampler: str, values: Mapping[str, np.ndarray], seconds: float, gradients: int | None) -> Row:
    """Summarise draws, (chain, draw, *shape) by parameter."""
    dataset = arviz.convert_to_dataset(dict(values))
    ess = min(float(value.min()) for value in arviz.ess(dataset, method="bulk").values())
    chains, draws = next(iter(values.values())).shape[:2]
    r_hat = max(float(value.max()) for value in arviz.rhat(dataset).values()) if chains > 1 else None
    return Row(name, sampler, chains, draws, gradients, ess, r_hat, seconds)


def ours(name: str, program: Callable[[], None], draws: int) -> Row:
    """Sample by `lr.sample`'s loop."""
    start = time.process_time()
    density, gradients = FlatDensity(program), 0
    evaluator = density.evaluator

    def counted(starts: np.ndarray) -> Callable[[np.ndarray], Any]:
        evaluate = evaluator(starts)

        def evaluated(flat: np.ndarray) -> Any:
            nonlocal gradients
            gradients += len(flat)
            return evaluate(flat)

        return evaluated

    density.evaluator = counted  # type: ignore[method-assign]
    starts = [functools.partial(np.random.default_rng(k).uniform, -2, 2, density.dim) for k in range(CHAINS)]
    limits = {"target_acceptance": 0.8, "max_tree_depth": 10}
    found = run(density, starts, num_samples=draws, warmup=draws, seed=0, progress=False, **limits)
    seconds = time.process_time() - start
    return judged(name, "latentrnn", {k: v.numpy() for k, v in found.values.items()}, seconds, gradients)


def pyros(name: str, program: Callable[[], None], draws: int, *, dense: bool) -> Row:
    """Sample by Pyro's kernel, one chain."""
    runs = 0

    def counted() -> None:
        nonlocal runs
        runs += 1  # one for each gradient
        program()

    pyro.set_rng_seed(0)
    start = time.process_time()
    chain = MCMC(NUTS(counted, full_mass=dense), num_samples=draws, warmup_steps=draws, disable_progbar=True)
    chain.run()
    seconds = time.process_time() - start
    values = {k: v.numpy() for k, v in chain.get_samples(group_by_chain=True).items()}
    return judged(name, "Pyro" + (", full mass matrix" if dense else ""), values, seconds, runs)


def numpyros(name: str, interpreter: Path, file: Path, draws: int, *, dense: bool) -> Row:
    """Sample by NumPyro, in a process of its own with another interpreter."""
    told, values = by_numpyro(name, interpreter, file, draws, dense=dense)
    sampler = f"NumPyro {told['version']}" + (", full mass matrix" if dense else "")
    return judged(name, sampler, values, told["seconds"], None)


def by_numpyro(
    name: str, interpreter: Path, file: Path, draws: int, *, dense: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run the rival's script, and return what it says of the run, and its draws."""
    script = ROOT / "benchmarks" / "rivals" / "nuts_numpyro.py"
    arguments = [interpreter, script, name, file, str(CHAINS), str(draws), str(int(dense))]
    with tempfile.TemporaryDirectory() as folder:
        said = subprocess.run([*arguments, Path(folder) / "draws.npz"], check=True, capture_output=True, text=True)
        values = dict(np.load(Path(folder) / "draws.npz"))
    return json.loads(said.stdout.splitlines()[-1]), values


def start_up(interpreter: Path | None, files: list[Path]) -> str:
    """What of NumPyro's seconds is compilation, in words."""
    if interpreter is None:
        return "NumPyro was not at hand."
    runs = [by_numpyro(name, interpreter, file, 2, dense=False) for name, file in zip(FILES, files, strict=True)]
    seconds = " and ".join(f"{told['seconds']:.0f}" for told, _ in runs)
    return f"Of NumPyro's seconds most are compilation: two draws of each chain took {seconds}."


def report(rows: list[Row], compilation: str) -> str:
    """The table."""
    lines = [
        "# Effective draws per second of NUTS",
        "",
        "The same densities, one after the other in one run, one thread. Draws: kept of each chain, after as many of",
        "warm-up. Effective draws: of the bulk, the smallest of all parameters. Seconds are the processor's, with",
        "warm-up, and with recording (ours) or compilation (NumPyro). Ratio: effective draws per second, over those of",
        "Pyro's own NUTS with its defaults.",
        compilation,
        f"torch {torch.__version__}, pyro {pyro.__version__}, numpy {np.__version__}, {platform.machine()};",
        "the machine did other work too.",
        "",
        "| density | sampler | chains | draws | gradients | effective | R-hat | seconds | effective / s | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        pyros_own = next(other for other in rows if (other.name, other.sampler) == (row.name, "Pyro"))
        gradients = "" if row.gradients is None else f"{row.gradients:,}"
        r_hat = "" if row.r_hat is None else f"{row.r_hat:.3f}"
        lines.append(
            f"| {row.name} | {row.sampler} | {row.chains} | {row.draws} | {gradients} | {row.ess:.0f} | "
            f"{r_hat} | {row.seconds:.1f} | {row.rate:.2f} | {row.rate / pyros_own.rate:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Sample every density by every sampler, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder with the files of the densities")
    parser.add_argument("--numpyro", type=Path, help="interpreter that has NumPyro")
    parser.add_argument("--draws", type=int, nargs=2, default=(300, 300), help="of each chain, for each density")
    parser.add_argument("--pyro-draws", type=int, nargs=2, default=(150, 100), help="of Pyro's chain")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "nuts.md")
    options = parser.parse_args()
    files = [options.data / f"{name}.json" for name in FILES]
    if absent := [str(file) for file in files if not file.exists()]:
        print(f"skipped: no {', '.join(absent)}; --data names their folder")
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    for name, file, draws, few in zip(FILES, files, options.draws, options.pyro_draws, strict=True):
        program = PROGRAMS[name](json.loads(file.read_text())["data"])
        takes = [
            functools.partial(ours, name, program, draws),
            functools.partial(pyros, name, program, few, dense=False),
            functools.partial(pyros, name, program, few, dense=True),
        ]
        if options.numpyro is not None:
            takes += [functools.partial(numpyros, name, options.numpyro, file, draws, dense=d) for d in (False, True)]
        for take in takes:
            rows.append(take())
            print(rows[-1], f"{rows[-1].rate:.2f} / s", flush=True)
    text = report(rows, start_up(options.numpyro, files))
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
