"""Times with units become seconds, and nothing loses its unit without a word."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import latentrnn as lr

COUNTS = np.random.default_rng(0).poisson(0.5, (2, 5, 1)).astype(float)
MILLISECONDS = np.array([0.0, 10.0, 20.0, 30.0, 50.0])
DAY = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


class Quantity(np.ndarray):
    """An array with a unit, in the words of quantities (and so of neo), of which numpy strips the unit in silence."""

    dimensionality: str = ""

    def rescale(self, unit: str) -> Quantity:
        factors = {("ms", "s"): 1e-3, ("s", "s"): 1.0, ("dimensionless", "dimensionless"): 1.0}
        if (self.dimensionality, unit) not in factors:
            raise ValueError(f"Unable to convert between units of {self.dimensionality} and {unit}")
        return quantity(np.asarray(self) * factors[self.dimensionality, unit], unit)

    def __array_finalize__(self, whole: Any) -> None:
        self.dimensionality = getattr(whole, "dimensionality", "")

    @property
    def magnitude(self) -> np.ndarray:
        return np.asarray(self)


def quantity(values: Any, unit: str) -> Quantity:
    made = np.asarray(values).view(Quantity)
    made.dimensionality = unit
    return made


class Pint:
    """An array with a unit, in the words of pint."""

    dimensionality = "[time]"

    def __init__(self, magnitude: Any, units: str) -> None:
        self.magnitude, self.units, self.dtype = np.asarray(magnitude), units, np.dtype("f8")

        self.shape = self.magnitude.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.magnitude

    def __getitem__(self, item: Any) -> Pint:
        return Pint(self.magnitude[item], self.units)

    def to(self, unit: str) -> Pint:
        if (self.units, unit) != ("millisecond", "s"):
            raise TypeError(f"Cannot convert from '{self.units}' to '{unit}'")
        return Pint(self.magnitude * 1e-3, unit)


class Astropy(np.ndarray):
    """An array with a unit, in the words of astropy and unyt."""

    unit: str = "ms"

    def to_value(self, unit: str) -> np.ndarray:
        if (self.unit, unit) != ("ms", "s"):
            raise TypeError(f"'{self.unit}' and '{unit}' are not convertible")
        return np.asarray(self) * 1e-3


TIMES: dict[str, Any] = {
    "seconds": MILLISECONDS * 1e-3,
    "quantities": quantity(MILLISECONDS, "ms"),
    "scalars with a unit": [quantity(value, "ms") for value in MILLISECONDS],
    "pint": Pint(MILLISECONDS, "millisecond"),
    "astropy": MILLISECONDS.view(Astropy),
    "timedelta64": MILLISECONDS.astype("timedelta64[ms]"),
    "TimedeltaIndex": pd.to_timedelta(MILLISECONDS, unit="ms"),
    "column of durations": pd.Series(pd.to_timedelta(MILLISECONDS, unit="ms")),
    "objects": np.array([pd.Timedelta(value, "ms") for value in MILLISECONDS], dtype=object),
    "datetime.timedelta": [datetime.timedelta(milliseconds=value) for value in MILLISECONDS],
    "datetime64": np.datetime64("2026-01-02") + MILLISECONDS.astype("timedelta64[ms]"),
    "DatetimeIndex": pd.DatetimeIndex([DAY + datetime.timedelta(milliseconds=value) for value in MILLISECONDS]),
    "in another zone": pd.DatetimeIndex(
        [DAY + datetime.timedelta(milliseconds=value) for value in MILLISECONDS]
    ).tz_convert("Asia/Tokyo"),
    "datetime": [DAY + datetime.timedelta(milliseconds=value) for value in MILLISECONDS],
    "xarray": xr.DataArray(MILLISECONDS, dims="time", attrs={"units": "ms"}),
    "torch": torch.tensor(MILLISECONDS * 1e-3),
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_are_seconds(kind: str) -> None:
    data = lr.SequenceData.from_arrays({"y": COUNTS}, times=[TIMES[kind]] * 2)
    assert data.times is not None
    dated = kind in ("datetime64", "DatetimeIndex", "in another zone", "datetime")
    first = DAY.timestamp() if dated else 0.0
    np.testing.assert_allclose(data.times[1] - first, MILLISECONDS * 1e-3, rtol=0, atol=3e-7 if dated else 1e-15)
    stored = lr.StoredSequences.from_arrays({"y": COUNTS}, times=[TIMES[kind]] * 2).load()
    assert stored.times is not None
    assert torch.equal(stored.times, data.times)


@pytest.mark.parametrize(
    "dt",
    [
        pd.Timedelta("10ms"),
        datetime.timedelta(milliseconds=10),
        np.timedelta64(10, "ms"),
        quantity(10.0, "ms"),
        Pint(10.0, "millisecond"),
        np.float32(0.01),
        np.array(0.01),
        torch.tensor(0.01),
    ],
    ids=lambda dt: type(dt).__name__,
)
def test_a_step_is_seconds(dt: Any) -> None:
    assert lr.SequenceData.from_arrays({"y": COUNTS}, dt=dt).spec.dt == pytest.approx(0.01, rel=1e-15)


@pytest.mark.parametrize("kind", [name for name in TIMES if name != "xarray"])
def test_spike_times_are_seconds(kind: str) -> None:
    start = DAY if kind in ("datetime64", "DatetimeIndex", "in another zone", "datetime") else 0.0
    data = lr.SequenceData.from_spike_times(
        [[TIMES[kind]]], dt=quantity(10.0, "ms"), duration=pd.Timedelta("100ms"), start=start
    )
    assert data.observations["spikes"][0, :, 0].tolist() == [1, 1, 1, 1, 0, 1, 0, 0, 0, 0]


WITH_UNITS: dict[str, tuple[Any, str]] = {
    "quantities": (quantity(COUNTS, "mV"), r"Quantity in mV; .* x.rescale\('mV'\).magnitude"),
    "list of quantities": (
        [quantity(x, "mV") for x in COUNTS],
        r"sequence 0: expected plain numbers, found Quantity in mV",
    ),
    "scalars with a unit": ([[[quantity(1.0, "mV")]]], "expected plain numbers, found Quantity in mV"),
    "pint": (Pint(COUNTS, "millivolt"), r"Pint in millivolt; .* x.to\('millivolt'\).magnitude"),
    "dates": (COUNTS.astype("datetime64[s]"), "found dates; write .* for seconds since the first"),
    "durations": (COUNTS.astype("timedelta64[s]"), "found durations; write .* for seconds"),
}


@pytest.mark.parametrize("kind", WITH_UNITS)
def test_values_keep_their_unit_or_are_refused(kind: str) -> None:
    given, message = WITH_UNITS[kind]
    for from_arrays in (lr.SequenceData.from_arrays, lr.StoredSequences.from_arrays):
        with pytest.raises(TypeError, match=message):
            from_arrays({"y": given}).load() if from_arrays == lr.StoredSequences.from_arrays else from_arrays(
                {"y": given}
            )
        with pytest.raises(TypeError, match=message):
            lr.SequenceData.from_arrays(
                {"y": COUNTS[: len(given)] if hasattr(given, "__len__") else COUNTS}, {"x": given}
            )


def test_numbers_without_dimension_are_numbers() -> None:
    data = lr.SequenceData.from_arrays({"y": quantity(COUNTS, "dimensionless")})
    np.testing.assert_array_equal(data.observations["y"], COUNTS)


def test_sequences_in_different_units_are_refused() -> None:
    arrays = [xr.DataArray(COUNTS[0], dims=("time", "channel"), attrs={"units": unit}) for unit in ("mV", "V")]
    with pytest.raises(ValueError, match=r"expected all sequences in the same unit, found \['V', 'mV'\]"):
        lr.SequenceData.from_arrays({"y": arrays})


NO_TIMES: dict[str, tuple[dict[str, Any], str]] = {
    "volts": (
        {"times": [quantity(MILLISECONDS, "mV")] * 2},
        "expected seconds or another unit of time, found Quantity in mV",
    ),
    "unknown unit": (
        {"times": xr.DataArray([MILLISECONDS] * 2, dims=("sequence", "time"), attrs={"units": "samples"})},
        "whose attribute 'units' is 'samples'",
    ),
    "a rate": ({"dt": quantity(100.0, "Hz")}, "dt: expected seconds or another unit of time, found Quantity in Hz"),
    "a date as a step": ({"dt": DAY}, "dt: expected a number of seconds, found a date"),
    "months": ({"dt": np.timedelta64(1, "M")}, "dt: expected durations in seconds or another fixed unit"),
    "dates and durations": (
        {"times": [[DAY, datetime.timedelta(seconds=1)]] * 2},
        "expected dates alone or durations alone, found both",
    ),
}


@pytest.mark.parametrize("name", NO_TIMES)
def test_what_is_no_time_is_refused(name: str) -> None:
    given, message = NO_TIMES[name]
    with pytest.raises(TypeError, match=message):
        lr.SequenceData.from_arrays({"y": COUNTS}, **given)


def test_dates_need_a_start() -> None:
    with pytest.raises(
        TypeError, match="start: expected a date, since the spike times at sequence 0, channel 0 are dates"
    ):
        lr.SequenceData.from_spike_times([[[DAY]]], dt=0.1, duration=1.0)
    with pytest.raises(TypeError, match="duration: expected seconds, found dates"):
        lr.SequenceData.from_spike_times([[[DAY]]], dt=0.1, duration=DAY, start=DAY)


@pytest.mark.parametrize("package", ["quantities", "pint", "astropy.units"])
def test_the_packages_themselves(package: str) -> None:
    units = pytest.importorskip(package)
    milliseconds = units.UnitRegistry().ms if package == "pint" else units.ms
    data = lr.SequenceData.from_spike_times(
        [[MILLISECONDS * milliseconds]], dt=10 * milliseconds, duration=100.0 * milliseconds
    )
    assert data.spec.dt == pytest.approx(0.01)
    assert data.observations["spikes"][0, :, 0].tolist() == [1, 1, 1, 1, 0, 1, 0, 0, 0, 0]
    with pytest.raises(TypeError, match="expected plain numbers"):
        lr.SequenceData.from_arrays({"y": COUNTS * milliseconds})


def test_a_scale_with_a_unit_is_refused() -> None:
    with pytest.raises(TypeError, match=r"standardise\['y'\], scale: expected plain numbers, found Quantity in mV"):
        lr.SequenceData.from_arrays({"y": COUNTS}, standardise={"y": (0.0, quantity([1.0], "mV"))})
