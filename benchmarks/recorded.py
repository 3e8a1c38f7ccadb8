"""Recordings of five kinds with the model that is fitted to each, for comparisons of settings.

Parts are for training, validation and test. The recordings are in the folder LATENTRNN_SHARED or ../shared, data/;
those of the grasshopper come with nitime, and files of R are read by rdata (`pip install nitime rdata`).
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import numpy as np

import latentrnn as lr
from benchmarks.convergence import Case, Pair, Parts, gru
from examples.clinical_gaps import data as charts_data
from examples.clinical_gaps.demo import ward
from examples.grasshopper import models as grasshopper_models
from examples.grasshopper.data import load_recording, stretches
from examples.next_click import data as clicks_data
from examples.next_click.demo import recurrent

SHARED = Path(os.environ.get("LATENTRNN_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
YEAR = 52.18  # weeks
TEMPERATURES = {"10c": 10.0, "25c-2": 25.0, "40c-1": 40.0}  # files of the battery, degrees Celsius
SECONDS, STRETCH = 10, 60  # of a step, and steps of a sequence


def needs(package: str) -> None:
    """Raise FileNotFoundError where a package that has or reads the recordings is absent."""
    if importlib.util.find_spec(package) is None:
        raise FileNotFoundError(f"pip install {package}")


def shuffled(data: lr.SequenceData, numbers: tuple[int, int, int]) -> Parts:
    """So many sequences each, at random."""
    order = np.random.default_rng(0).permutation(len(data))
    first, second, third = np.split(order[: sum(numbers)], np.cumsum(numbers[:2]))
    return data[sorted(first)], data[sorted(second)], data[sorted(third)]


def grasshopper() -> Parts:
    """Spikes of an auditory receptor and the sound: windows of 100 ms of the first 6.4 s, and of the rest."""
    needs("nitime")
    recording = load_recording(1)
    train = stretches(len(recording.counts)).train
    data = grasshopper_models.as_sequences(recording.counts, recording.stimulus, recording.dt, train)
    parts = data.split(0.64, 0.16, 0.2, along="time", context=grasshopper_models.CONTEXT)
    first, second, third = (
        part.windows(grasshopper_models.WINDOW, context=grasshopper_models.WARM_UP) for part in parts
    )
    return first, second, third


def receptor(data: lr.SequenceData) -> Pair:
    """A GRU between sound and spikes, into which the last bin's spike feeds back."""
    return grasshopper_models.build(grasshopper_models.VARIANTS[2], data.spec)


def charts() -> Parts:
    """Hourly charts of 600 patients in intensive care to learn from, 200 for validation, 600 for the test."""
    stays = charts_data.split(charts_data.load(SHARED))
    numbers = (600, 200, 600)
    first, second, third = (
        charts_data.as_sequences(charts_data.chosen(part, np.arange(number)))
        for part, number in zip(stays, numbers, strict=True)
    )
    return first, second, third


def patient(data: lr.SequenceData) -> Pair:
    """A GRU that reads values and what was charted, with heads of the next chart and of death."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LatentRNN: the data have irregular times")
        model = ward(data)
    return model, lr.Guide(model)


def clicks() -> Parts:
    """Clicks of 194, 48 and 81 visitors."""
    needs("rdata")
    first, second, third = (clicks_data.as_sequences(part) for part in clicks_data.split(clicks_data.load(SHARED)))
    return first, second, third


def visitor(data: lr.SequenceData) -> Pair:
    """A GRU that reads the click before."""
    model = recurrent(data, 32, clicks_data.PAGES)
    return model, lr.Guide(model)


def influenza() -> Parts:
    """Weekly cases of influenza in districts of southern Germany, 2007 and 2008, and the time of the year."""
    needs("rdata")
    import rdata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # R classes that rdata does not know are not needed
        found = rdata.read_rda(SHARED / "counts_surveillance" / "fluBYBW.RData")["fluBYBW"]
    cases = np.asarray(found.observed, float)[-104:].T[..., None]
    phase = 2 * np.pi * np.arange(cases.shape[1]) / YEAR
    season = np.broadcast_to(np.stack([np.sin(phase), np.cos(phase)], -1), (*cases.shape[:2], 2))
    return shuffled(lr.SequenceData.from_arrays({"cases": cases}, {"season": season}), (40, 20, 80))


def battery() -> Parts:
    """Voltage of a lithium-ion cell by current, charge and temperature: pulses and rests, stretches of 10 minutes."""
    voltages, known = [], []
    for name, degrees in TEMPERATURES.items():
        file = SHARED / "battery_leaf_cell" / f"cell-low-current-hppc-{name}.csv"
        header = int(file.read_text().startswith("Exclude"))
        time, current, voltage = np.loadtxt(file, delimiter=",", skiprows=header, usecols=(1, 8, 9)).T
        charge = np.cumsum(current * np.gradient(time)) / 3600  # ampere hours since the file began
        length = SECONDS * (len(time) // SECONDS)
        columns = np.stack([voltage, current, charge, np.full_like(time, (degrees - 25) / 15)], -1)[:length]
        steps = columns.reshape(-1, SECONDS, 4).mean(1)
        steps = steps[: STRETCH * (len(steps) // STRETCH)].reshape(-1, STRETCH, 4)
        voltages.append(steps[..., :1]), known.append(steps[..., 1:] / [10.0, 10.0, 1.0])
    data = lr.SequenceData.from_arrays({"voltage": np.concatenate(voltages)}, {"known": np.concatenate(known)})
    return shuffled(data, (36, 12, 18))


CASES = {
    "grasshopper": Case(False, grasshopper, receptor),
    "charts": Case(False, charts, patient),
    "clicks": Case(False, clicks, visitor),
    "influenza, weekly": Case(False, influenza, lambda d: gru(d, 16, 1, "cases", lr.NegativeBinomial())),
    "battery": Case(False, battery, lambda d: gru(d, 16, 1, "voltage", lr.Gaussian())),
}
