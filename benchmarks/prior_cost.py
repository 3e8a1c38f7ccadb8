"""What do priors on scalars cost a fit? A step with them beside a step without, in turn, in one process.

`python -m benchmarks.prior_cost` writes `benchmarks/results/prior_cost.md`. The same model twice: numbers of the
latent, the noise of the head and the time constant of a memory are points, or have priors and so posteriors. What is
timed is a step of `lr.fit`: batch, gradient, clipping, optimizer; times are the processor's.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np
import pyro.distributions as dist
import torch

import latentrnn as lr
from benchmarks.scaling import step_of, timed

OUT = Path(__file__).parent / "results" / "prior_cost.md"
POSITIVE = dist.LogNormal(0.0, 1.0)


def data_of(sequences: int, steps: int, channels: int, counts: bool) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    shape = (sequences, steps, channels)
    values = rng.poisson(0.3, shape).astype(float) if counts else rng.normal(size=shape)
    return lr.SequenceData.from_arrays({"y": values}, {"x": rng.normal(size=(sequences, steps, 2))}, dt=0.01)


def parts(priors: bool, counts: bool, transition: str) -> dict[str, object]:
    given = {"time_constant": POSITIVE, "scale": POSITIVE} if priors else None
    noise = {"scale": POSITIVE} if priors else None
    dispersion = {"dispersion": POSITIVE} if priors else None
    head = lr.NegativeBinomial(priors=dispersion) if counts else lr.Gaussian(priors=noise)
    if transition == "GRU 64":
        return {
            "transition": lr.GRU(64),
            "latent": lr.Innovations(4, prior="ar1", priors=given),
            "observations": {"y": head},
        }
    memory = lr.LeakyIntegrator(8, priors={"time_constant": POSITIVE} if priors else None)
    return {"transition": memory, "latent": lr.Innovations(4, priors={"scale": POSITIVE} if priors else None),
            "observations": {"y": head}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, size, counts in (
        ("GRU 64", (64, 100, 50), False),
        ("GRU 64", (64, 100, 50), True),
        ("leaky integrator 8", (64, 100, 50), False),
        ("GRU 64", (16, 30, 10), False),
    ):
        data = data_of(*size, counts)
        steps = {}
        for label in ("points", "priors"):
            model = lr.LatentRNN(data.spec, **parts(label == "priors", counts, name))
            guide = lr.Guide(model, encoder=lr.RNNEncoder(64))
            steps[label] = step_of(model, guide, data, batch=size[0])
        seconds = timed(steps, arguments.turns)
        ratio = seconds["priors"] / seconds["points"]
        rng = np.random.default_rng(0)
        medians = [np.median(rng.choice(ratio, ratio.size)) for _ in range(1000)]
        low, high = np.quantile(medians, [0.025, 0.975])
        sites = len(model.parameter_sites())
        family = "negative binomial" if counts else "Gaussian"
        rows.append(
            f"| {' x '.join(map(str, size))} | {name}, {family} | {sites} | {1e3 * np.median(seconds['points']):.1f} | "
            f"{1e3 * np.median(seconds['priors']):.1f} | {np.median(ratio):.3f} ({low:.3f}, {high:.3f}) |"
        )
        print(rows[-1], flush=True)
    page = [
        "# Priors on scalars: what a step costs with and without",
        "",
        f"`python -m benchmarks.prior_cost --turns {arguments.turns}`; one thread, float32, torch {torch.__version__}, "
        f"{platform.machine()}. Milliseconds of the processor; ratios of neighbouring steps: median and 95% interval.",
        "",
        "| sequences x steps x channels | model | sites | points | priors | priors / points |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    arguments.out.write_text("\n".join(page))


if __name__ == "__main__":
    main()
