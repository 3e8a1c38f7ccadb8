"""From a recording to a compared, checked and saved model: `python examples/grasshopper/demo.py --out demo`.

Two recordings of a grasshopper's auditory receptor, 10 s each in 1 ms bins. Regressions and GRU state-space models are
fitted to the first 80% (the models stop by its last fifth), and scored one step ahead on the last 20%, which nothing
else looks at. The models and every setting were chosen on recording 1; recording 2 is run with all of it frozen.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from baselines import BLOCK, grasshopper_baselines
from data import TEST, TRAIN, VALIDATION, Recording, load_recordings, stretches
from figure import draw
from models import CONTEXT, VARIANTS, Variant, as_sequences, fit
from scores import as_one_step_ahead, format_scores

import latentrnn as lr

CHECKED = "GRU, gain, spike history"  # its check finds bins with two spikes, which a receptor cannot fire
SHOWN = "GRU, gain, spike history, Bernoulli"  # what that led to: checked, drawn and exported


FULLEST = {"most spikes in a bin": lambda values, mask: values.masked_fill(~mask, 0).amax((-3, -2))}


def main() -> None:
    """Fit, score, compare, check, draw and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the results")
    parser.add_argument("--smoke", action="store_true", help="a few steps only: does it run at all?")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # thousands of small steps: a second thread only waits for the first
    start = time.perf_counter()

    steps = 20 if options.smoke else 1200
    tasks = [(number, variant, options.seed, steps, options.out) for number in (1, 2) for variant in VARIANTS]
    # one thread each: the steps are small, and two fits side by side are faster than one on two threads
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for line in pool.map(fit_and_save, tasks):
            print(line, flush=True)
    report = [analyse(number, recording, options.out) for number, recording in enumerate(load_recordings(), 1)]
    text = "\n\n".join(report)
    (options.out / "table.txt").write_text(text + "\n")
    print(f"\n{text}\n\n{time.perf_counter() - start:.0f} s; everything is in {options.out}/")


def fit_and_save(task: tuple[int, Variant, int, int, Path]) -> str:
    """Fit one model to one recording and save it; return a line that says so."""
    number, variant, seed, steps, out = task
    torch.set_num_threads(1)
    start = time.perf_counter()
    train, validation, _ = split(load_recordings()[number - 1])
    result = fit(variant, train, validation, seed=seed, steps=steps)
    result.save(folder(out, number, variant))
    return f"recording {number}, {variant.name}: {time.perf_counter() - start:.0f} s, {result.stop_reason}"


def folder(out: Path, number: int, variant: Variant) -> Path:
    """Where a fitted model is saved."""
    return out / "models" / f"recording-{number}" / variant.name.replace(", ", "-").replace(" ", "-").lower()


def split(recording: Recording) -> tuple[lr.SequenceData, lr.SequenceData, lr.SequenceData]:
    """Training, validation and test stretches."""
    data = as_sequences(recording.counts, recording.stimulus, recording.dt, stretches(len(recording.counts)).train)
    return data.split(TRAIN, VALIDATION, TEST, along="time", context=CONTEXT)


def analyse(number: int, recording: Recording, out: Path) -> str:
    """Return the table of one recording; the first also gets the comparison, the check, the figure and the files."""
    parts = stretches(len(recording.counts))
    test = split(recording)[2]
    ahead = {}
    baselines = grasshopper_baselines(
        recording.counts, recording.stimulus, train=parts.train, validation=parts.validation, test=parts.test
    )
    results = {}
    for variant in VARIANTS:
        results[variant.name] = lr.load(folder(out, number, variant))
        ahead[variant.name] = results[variant.name].posterior(test).one_step_ahead("spikes")
    ahead = {b.name: as_one_step_ahead(b, ahead[SHOWN]) for b in baselines} | ahead

    table = format_scores(recording.name, ahead)
    if number > 1:
        return table
    posterior = results[SHOWN].posterior(test)
    comparison = lr.compare(ahead, block_length=BLOCK)
    first = lr.posterior_predictive_check(results[CHECKED].posterior(test), num_samples=200, statistics=FULLEST)
    check = lr.posterior_predictive_check(posterior, num_samples=200)
    rescaling = lr.time_rescaling(ahead[SHOWN])
    draw(recording, posterior, ahead[SHOWN], check, rescaling, out / "grasshopper.png")
    posterior.to_arviz(num_samples=100).to_netcdf(str(out / "posterior.nc"))
    total = "elpd_loo" if "elpd_loo" in comparison else "elpd"  # as ArviZ 0.x or 1.x calls it
    columns = ["rank", total, "elpd_diff", "dse", "weight"]
    return "\n\n".join(
        [
            table,
            f"{recording.name}, az.compare on blocks of {BLOCK} bins of the same densities (nats)\n"
            + comparison[columns].to_string(float_format=lambda x: f"{x:.2f}"),
            f"{recording.name}, {CHECKED}: {first}",
            f"{recording.name}, {SHOWN}: {check}",
            str(rescaling),
        ]
    )


if __name__ == "__main__":
    main()
