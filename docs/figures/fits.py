"""Fits that figures of docs/interpret.md share, kept in `build/figures` so that another figure finds them there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `latentrnn`, `examples` and `benchmarks` are

import numpy as np
import torch
import xarray

import latentrnn as lr
from benchmarks import adaptation, lorenz
from benchmarks.network_priors import locust_counts
from examples.monkey_reach.data import recorded
from examples.monkey_reach.demo import TUNED, as_sequences
from examples.simulate import Reaches
from examples.splice_junctions.data import as_sequences as junction_sequences
from examples.splice_junctions.data import recorded as junctions_recorded
from examples.splice_junctions.demo import reader

ROOT = Path(__file__).resolve().parents[2]

RECORDINGS = Path(os.environ.get("LATENTRNN_SHARED", ROOT.parent / "shared")) / "data"
KEPT = ROOT / "build" / "figures"


class Saved(Protocol):
    """What can be written to a folder."""

    def save(self, path: str) -> None: ...


Fit = TypeVar("Fit", bound=Saved)


def kept(name: str, load: Callable[[str], Fit], fit: Callable[[], Fit]) -> Fit:
    """Return the fit of that name from an earlier run, or make it and keep it; `rm -r build/figures` forgets all."""
    folder = KEPT / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fit().save(str(folder))
    return load(str(folder))


def reaches() -> Reaches:
    """Reaches of a monkey with 98 units of its motor cortex, in bins of 20 ms."""
    return recorded(RECORDINGS / "monkey_reach_bmi")


def reaching(seed: int) -> tuple[lr.FitResult, xarray.Dataset]:
    """An LSTM whose factors drive the reaches' shown and hidden units, fitted; its heads' gradients along the fit."""
    train, validation, _ = as_sequences(reaches())
    noted = KEPT / f"reaching-{seed}.nc"

    def fit() -> lr.FitResult:
        heads = {
            "shown": lr.Poisson(readout=lr.FactorReadout(8)),
            "hidden": lr.Poisson(readout=lr.FactorReadout(8, of="shown")),
        }
        latent = lr.Innovations(4, initial=16, prior="ar1")
        model = lr.LatentRNN(train.spec, transition=lr.LSTM(32), latent=latent, observations=heads)
        guide = lr.Guide(model, encoder=lr.RNNEncoder(64, observes="shown"))
        looks = lr.interpret.HeadGradients(train[:64], every=50)
        quiet = lr.Reporting(every=50, progress=False, callbacks=[looks])
        result = lr.fit(model, guide, train, validation, seed=seed, steps=1000, reporting=quiet, **TUNED)
        looks.to_xarray().to_netcdf(noted)
        return result

    return kept(f"reaching-{seed}", lr.load, fit), xarray.load_dataset(noted)


def adapting(system: str, readout: str, seeds: int) -> lr.Ensemble:
    """Fits of `benchmarks/adaptation.py` to the "grasshopper" or the "locust", one after the other, pooled."""
    counts, _ = locust_counts()

    def fit(seed: int) -> lr.Ensemble:
        only = range(seed, seed + 1)
        if system == "grasshopper":
            return adaptation.fit_grasshopper(only, readout)
        return adaptation.fit_locust(counts, only, readout)

    names = [f"adaptation-{system}-{readout}-{seed}".replace(" ", "-") for seed in range(seeds)]
    found = [kept(name, lr.Ensemble.load, partial(fit, seed)) for seed, name in enumerate(names)]
    weights = torch.full((seeds,), 1 / seeds, dtype=torch.float64)
    used = frozenset().union(*(each.used for each in found))
    return lr.Ensemble(tuple(each.members[0] for each in found), weights, None, used)


def odours() -> lr.Posterior:
    """The first of these fits to the locust with a free readout, at its test trials."""
    counts, _ = locust_counts()
    data = adaptation.trials_of(counts)[adaptation.folds(len(counts))[2].tolist()]
    return adapting("locust", "free", 1).members[0].posterior(data)


def junctions() -> lr.Posterior:
    """A convolution, a GRU and attention over splice junctions, as in its example, at test windows."""
    data = junction_sequences(junctions_recorded(RECORDINGS))
    order = np.random.default_rng(0).permutation(len(data))
    train, validation, test = (data[part] for part in np.split(order, [3 * len(data) // 5, 4 * len(data) // 5]))

    def fit() -> lr.FitResult:
        model = reader(data)
        optimizer, stopping = (
            lr.AdamW(1e-2, weight_decay=0.1, averaging=0.99),
            lr.EarlyStopping(every=50, patience=None),
        )
        settings = {"optimizer": optimizer, "stopping": stopping, "reporting": lr.Reporting(progress=False)}
        return lr.fit(model, lr.Guide(model), train, validation, steps=400, seed=0, **settings)

    return kept("junctions", lr.load, fit).posterior(test)


def lorenz_spikes(dim: int, seed: int) -> lr.Posterior:
    """The model of `benchmarks/lorenz.py` with so many dimensions, at a fifth of its test trials."""
    protocol = lorenz.simulate(0)

    def fit() -> lr.FitResult:
        folder = KEPT / f"lorenz-{dim}-{seed}-checkpoints"  # minutes: what is cut short goes on
        return lorenz.fit_briefly(protocol, dim, seed, checkpointing=lr.Checkpointing(folder, every=20, resume=True))

    result = kept(f"lorenz-{dim}-{seed}", lr.load, fit)
    return result.posterior(lorenz.as_sequences(protocol.repeated)[::5])
