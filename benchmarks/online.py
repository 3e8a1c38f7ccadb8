"""Online updates: time per step and memory over a million of them, 64 hidden units and 100 channels on one core.

`python benchmarks/online.py` writes `benchmarks/results/online.md`; `--updates 1000000` is the size of the table.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import latentrnn as lr
from latentrnn.inference.online.memory import Now

HIDDEN, CHANNELS, LATENT = 64, 100, 4


def make_filter(particles: int | None, proposal: str, check: bool = True) -> lr.OnlineFilter:
    """An untrained model with a causal encoder: the time of a step does not depend on the weights."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"spikes": rng.poisson(0.3, (4, 20, CHANNELS))}, dt=0.01)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(HIDDEN),
        latent=lr.Innovations(LATENT),
        observations={"spikes": lr.Poisson()},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(HIDDEN, direction="causal"))
    posterior = lr.Posterior(model, guide, data, device="cpu")
    return lr.OnlineFilter(posterior, num_particles=particles, proposal=proposal, check=check)


def timed(online: lr.OnlineFilter, updates: int) -> tuple[float, float, float, float]:
    """Medians of an update's time and processor time, its 99th percentile, in ms, and growth of the process, in MB."""
    rng = np.random.default_rng(1)
    recording = rng.poisson(0.3, (1000, CHANNELS)).astype(np.float32)
    for row in recording:
        online.update(row)
    times = np.ones((2, updates))  # ones, so that its pages are there before the process is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for t in range(updates):
        start, busy = time.perf_counter(), time.thread_time()
        online.update(recording[t % 1000])
        times[:, t] = time.perf_counter() - start, time.thread_time() - busy
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    wall, processor = 1e3 * np.median(times, 1)
    return float(wall), float(processor), 1e3 * float(np.quantile(times[0], 0.99)), grown


@torch.inference_mode()
def parts(online: lr.OnlineFilter) -> list[tuple[str, float]]:
    """Where the time of an update of the guide alone goes: medians in ms, each part by itself."""
    rng = np.random.default_rng(1)
    row = rng.poisson(0.3, CHANNELS).astype(np.float32)
    model, guide = online.model, online.guide
    data = online.stream.put(online.stream.read(row, None, None))
    head = model.observations["spikes"]
    encoded = online.memory.encoded
    numbers, _ = online.followed.variational_parameters(data, encoded)
    assert online.memory.carry is not None
    a_t, carry = model.transition_inputs(data)[:, -1].expand(1, 1, 1, -1), online.memory.carry
    now = Now(data, a_t, None, {})
    mean = guide.local.filtered(numbers, None).mean.expand(1, 1, 1, -1)
    h_t = model.latent.output(model.transition, carry)
    distribution = online.followed.distribution("spikes", now, h_t, None)

    def median(call: Callable[[], object]) -> float:
        found = []
        for _ in range(2000):
            start = time.thread_time()
            call()
            found.append(time.thread_time() - start)
        return 1e3 * statistics.median(found)

    return [
        ("reading the step into the buffers", median(lambda: online.stream.put(online.stream.read(row, None, None)))),
        (
            "checking the support",
            median(lambda: head.check("spikes", data.observations["spikes"], data.masks["spikes"])),
        ),
        ("encoder and the family's numbers", median(lambda: online.followed.variational_parameters(data, encoded))),
        ("moments of the family", median(lambda: guide.local.filtered(numbers, None))),
        ("transition inputs", median(lambda: model.transition_inputs(data))),
        (
            "transition and the prior of its step",
            median(lambda: model.latent.step(model.transition, carry, a_t, None).move(mean)),
        ),
        ("head", median(lambda: online.followed.distribution("spikes", now, h_t, None))),
        ("rates", median(lambda: head.mean(distribution))),
    ]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=1_000_000)
    parser.add_argument("--particle-updates", type=int, default=20_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for particles, proposal, check, updates in (
        (None, "guide", True, arguments.updates),
        (None, "guide", False, arguments.particle_updates),
        (100, "prior", True, arguments.particle_updates),
        (100, "guide", True, arguments.particle_updates),
        (1000, "prior", True, arguments.particle_updates),
    ):
        median, processor, slow, grown = timed(make_filter(particles, proposal, check), updates)
        name = "guide alone" if particles is None else f"{particles} particles from the {proposal}"
        name += "" if check else ", unchecked"
        rows.append(f"| {name} | {updates:,} | {median:.3f} | {processor:.3f} | {slow:.3f} | {grown:.1f} |")
        print(rows[-1], flush=True)
    online = make_filter(None, "guide")
    online.update(np.zeros(CHANNELS, dtype=np.float32))
    share = [f"| {name} | {value:.3f} |" for name, value in parts(online)]
    page = [
        "# Online updates",
        "",
        f"`python benchmarks/online.py`: GRU({HIDDEN}), Innovations({LATENT}), Poisson counts of {CHANNELS} channels, "
        f"a causal RNNEncoder({HIDDEN}), mean-field; one thread, float32, torch {torch.__version__}, "
        f"{platform.machine()}.",
        "Growth is that of the process's largest resident size after 1,000 updates of warm-up. The machine was shared "
        "with other work: the processor's time is the steadier figure.",
        "",
        "| filter | updates | median ms | of the processor | 99% ms | growth MB |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "Where its time would go if the Python were run (each part by itself; an update repeats the operations alone):",
        "",
        "| part | median ms |",
        "|---|---|",
        *share,
        "",
    ]
    (Path(__file__).parent / "results" / "online.md").write_text("\n".join(page))


if __name__ == "__main__":
    main()
