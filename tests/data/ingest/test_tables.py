"""Tables as people have them, against what a loop over their rows finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import latentrnn as lr

read = lr.SequenceData.from_dataframe


def pumps(seed: int = 0) -> pd.DataFrame:
    """Hourly rows of three pumps with gaps, in no order."""
    rng, rows = np.random.default_rng(seed), []
    for pump, hours in (("north", 6), ("south", 9), ("east", 4)):
        begin = pd.Timestamp("2024-02-28 20:00") + pd.Timedelta(days=hours)
        for hour in range(hours):
            gone = 0 < hour < hours - 1 and rng.random() < 0.2
            if not gone:
                rows.append(
                    {
                        "pump": pump,
                        "when": begin + pd.Timedelta(hours=hour),
                        "heat": rng.normal(),
                        "flow": rng.normal() if rng.random() > 0.3 else np.nan,
                        "state": str(rng.choice(["idle", "run", "stop"])),
                        "site": "A" if pump == "north" else "B",
                        "broke": int(pump == "south"),
                    }
                )
    return pd.DataFrame(rows).sample(frac=1, random_state=seed).reset_index(drop=True)


@pytest.mark.parametrize("seed", range(5))
def test_rows_find_their_sequence_and_step(seed: int) -> None:
    frame = pumps(seed)
    heads = {"motor": ["heat", "flow"], "state": "state", "broke": "broke"}
    data = read(frame, heads, time="when", group="pump", dt="1h", per_sequence=["broke"], metadata=["site"])
    assert data.names == tuple(dict.fromkeys(frame.pump))
    assert data.spec.dt == 3600
    seen = torch.zeros_like(data.masks["motor"])
    for row in frame.to_dict("records"):
        at = data.names.index(row["pump"])
        begin = frame[frame.pump == row["pump"]].when.min()
        step = int((row["when"] - begin) / pd.Timedelta(hours=1))
        assert data.dates[at, step] == np.datetime64(row["when"])
        for channel, name in enumerate(("heat", "flow")):
            seen[at, step, channel] = not np.isnan(row[name])
            if not np.isnan(row[name]):
                assert data.observations["motor"][at, step, channel] == np.float32(row[name])
        level = int(data.observations["state"][at, step, 0])
        assert data.spec.heads["state"].levels[0][level] == row["state"]  # type: ignore[index]
        assert data.observations["broke"][at, 0] == row["broke"]
        assert data.metadata["site"][at] == row["site"]
    assert torch.equal(seen, data.masks["motor"])
    assert data.spec.heads["motor"].channel_names == ("heat", "flow")


def test_one_value_a_row_is_the_same_data() -> None:
    frame = pumps().drop(columns="state")
    wide = read(frame, {"motor": ["heat", "flow"]}, time="when", group="pump", dt="1h", metadata=["site"])
    long = frame.melt(["pump", "when", "site"], ["heat", "flow"], "what", "number").dropna()
    long = long.sort_values("pump", key=lambda column: [list(wide.names).index(name) for name in column], kind="stable")
    data = read(
        long, {"motor": ["heat", "flow"]}, time="when", group="pump", variable="what", value="number", dt="1h",
        metadata=["site"],
    )  # fmt: skip
    assert data.names == wide.names
    assert data.metadata["site"].tolist() == wide.metadata["site"].tolist()
    assert torch.equal(data.observations["motor"], wide.observations["motor"])
    assert torch.equal(data.masks["motor"], wide.masks["motor"])


def test_covariates_of_names_are_indicators_and_what_is_missing_is_told() -> None:
    frame = pd.DataFrame({"y": [1.0, 2, 3], "odour": ["b", "a", None], "speed": [0.5, None, 2]})
    with pytest.raises(
        ValueError, match="expected a value of 'speed' at every step, found none at sequence '0', step 1"
    ):
        read(frame, ["y"], {"x": ["odour", "speed"]})
    data = read(frame, ["y"], {"x": ["odour", "speed"]}, missing_covariates="indicator")
    assert data.spec.covariates["x"].feature_names == (
        "odour=a", "odour=b", "speed", "odour missing", "speed missing",
    )  # fmt: skip
    assert data.covariates["x"][0].tolist() == [[0, 1, 0.5, 0, 0], [1, 0, 0, 0, 1], [0, 0, 2, 1, 0]]
    filled = read(frame.assign(odour="a"), ["y"], {"x": ["odour", "speed"]}, missing_covariates={"speed": -1.0})
    assert filled.covariates["x"][0].tolist() == [[1, 0.5, 0], [1, -1, 1], [1, 2, 0]]


def test_levels_are_those_that_the_user_names() -> None:
    frame = pd.DataFrame({"state": ["run", "idle"], "odour": pd.Categorical(["b", "b"], ["c", "b"])})
    data = read(frame, ["state"], ["odour"], levels={"state": ["stop", "run", "idle"]})
    assert data.observations["state"].flatten().tolist() == [1, 2]
    assert data.spec.heads["state"].levels == (("stop", "run", "idle"),)
    assert data.spec.covariates["odour"].feature_names == ("odour=c", "odour=b")
    assert lr.DataSpec.from_json(data.spec.to_json()) == data.spec
    other = read(frame, ["state"], ["odour"], levels={"state": ["idle", "run"]})
    with pytest.raises(ValueError, match=r"observations\['state'\].levels: expected"):
        data.spec.check_compatible(other.spec)
    with pytest.raises(ValueError, match="expected a level among"):
        read(frame, ["state"], levels={"state": ["run"]})


CLOCKS: dict[str, tuple[Any, dict[str, Any], float | None, list[int] | None]] = {
    "seconds": ([0.0, 0.25, 0.5], {}, 0.25, [0, 1, 2]),
    "rounded": ([0.0, 0.3333, 0.6667, 1.0], {}, 0.333333333, [0, 1, 2, 3]),
    "missing rows": ([0.0, 0.1, 0.4], {"dt": 0.1}, 0.1, [0, 1, 4]),
    "durations": (pd.to_timedelta([0, 5, 10], unit="min"), {}, 300.0, [0, 1, 2]),
    "dates": (pd.to_datetime(["2024-02-28", "2024-02-29", "2024-03-01"]), {}, 86400.0, [0, 1, 2]),
    "dates in text": (["2024-02-28", "2024-02-29", "2024-03-01"], {}, 86400.0, [0, 1, 2]),
    "months": (pd.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01"]), {}, None, [0, 1, 2]),
    "months with a gap": (pd.to_datetime(["2024-01-01", "2024-02-01", "2024-04-01"]), {"dt": "MS"}, None, [0, 1, 3]),
    "days over summer time": (pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin"), {}, None, [0, 1, 2]),
    "trading days": (pd.to_datetime(["2024-03-28", "2024-04-02", "2024-04-03"]), {"sampling": "rows"}, None, [0, 1, 2]),
    "own times": ([0.0, 0.1, 0.7], {"sampling": "irregular"}, None, None),
}


@pytest.mark.parametrize("case", CLOCKS)
def test_clocks(case: str) -> None:
    times, options, dt, places = CLOCKS[case]
    frame = pd.DataFrame({"t": times, "y": np.arange(len(times))}).sample(frac=1, random_state=1)
    data = read(frame, ["y"], time="t", **options)
    assert data.spec.dt == (None if dt is None else pytest.approx(dt, rel=1e-8))
    if places is None:
        assert data.times is not None
        assert data.times[0].tolist() == pytest.approx(times)
        return
    assert data.num_steps == places[-1] + 1
    there = data.masks["y"][0, :, 0]
    assert there.nonzero().flatten().tolist() == places
    assert data.observations["y"][0, there, 0].tolist() == list(range(len(places)))
    if data.calendar is not None:
        dates = data.calendar.index(data.dates[0][there.numpy()])
        expected = pd.to_datetime(pd.Series(times)) if case == "dates in text" else times
        assert list(dates) == list(expected)


def test_dates_go_with_their_steps_and_go_on_after_them() -> None:
    days = pd.date_range("2024-01-01", periods=10, freq="D")
    data = read(pd.DataFrame({"y": range(10)}, index=days), ["y"])
    assert (data.time_slice(4, 7).dates[0] == days[4:7].to_numpy()).all()
    assert (data.windows(5).dates == days.to_numpy().reshape(2, 5)).all()
    last = data.split(0.5, 0.2, 0.3, along="time", context=2)[2]
    assert (last.dates[0] == days[5:].to_numpy()).all()
    assert last.calendar is not None
    assert last.calendar.at(0, np.arange(5, 7), data.spec.dt).tolist() == [
        pd.Timestamp("2024-01-11").value, pd.Timestamp("2024-01-12").value,
    ]  # fmt: skip
    months = read(pd.DataFrame({"y": range(4)}, index=pd.date_range("2024-01-31", periods=4, freq="ME")), ["y"])
    assert months.calendar is not None
    assert months.calendar.at(0, np.array([4, 13]), None).tolist() == [
        pd.Timestamp("2024-05-31").value, pd.Timestamp("2025-02-28").value,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="dates: expected data that came with dates"):
        lr.SequenceData.from_arrays({"y": np.ones((1, 3, 1))}).dates  # noqa: B018


def test_sessions_keep_their_dates() -> None:
    def days(begin: str) -> lr.SequenceData:
        return read(pd.DataFrame({"y": range(3)}, index=pd.date_range(begin, periods=3)), ["y"])

    joined = lr.SequenceData.join({"a": days("2024-01-01"), "b": days("2023-05-05")})
    assert joined.dates[:, 2].tolist() == [pd.Timestamp("2024-01-03").value, pd.Timestamp("2023-05-07").value]
    with pytest.raises(ValueError, match=r"sessions\['b'\]: expected dates in time zone None"):
        lr.SequenceData.join({"a": days("2024-01-01"), "b": read(pd.DataFrame({"y": [1, 2]}), ["y"], dt=86400)})


def test_levels_of_an_index_are_columns() -> None:
    frame = pumps().set_index(["pump", "when"])[["heat"]]
    data = read(frame, ["heat"], time="when", group="pump", dt="1h")
    assert torch.equal(
        data.observations["heat"], read(pumps(), ["heat"], time="when", group="pump", dt="1h").observations["heat"]
    )


def test_several_columns_tell_sequences_apart() -> None:
    frame = pd.DataFrame({"who": ["a", "a", "b", "b"], "trial": [1, 2, 1, 1], "y": [1, 2, 3, 4]})
    data = read(frame, ["y"], group=["who", "trial"])
    assert data.names == ("a/1", "a/2", "b/1")
    assert data.metadata["who"].tolist() == ["a", "a", "b"]
    assert data.metadata["trial"].tolist() == [1, 2, 1]


def frame(**changed: Any) -> pd.DataFrame:
    return pd.DataFrame({"g": ["a", "a", "b"], "t": [0.0, 1.0, 0.0], "y": [1.0, 2.0, 3.0], "x": [1, 1, 2]} | changed)


WRONG: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no table": ([1, 2], {}, TypeError, "expected a table"),
    "no rows": (frame().iloc[:0], {}, ValueError, "expected at least one row"),
    "no such column": (frame(), {"observations": ["z"]}, ValueError, "observations: expected a column among"),
    "column twice": (frame(), {"observations": {"p": "y", "q": "y"}}, ValueError, "expected every column once"),
    "no such time": (frame(), {"time": "when"}, ValueError, "time: expected a column among"),
    "no such group": (frame(), {"group": "h"}, ValueError, "group: expected a column among"),
    "two rows at one time": (frame(t=[0, 0, 1]), {}, ValueError, "several at 0 in sequence 'a'"),
    "no group named": (frame(), {"group": None}, ValueError, "tells sequences apart by group="),
    "a missing time": (frame(t=[0, None, 1]), {}, ValueError, "expected a time in every row"),
    "a missing group": (frame(g=["a", None, "b"]), {}, ValueError, "group: expected a value of 'g' in every row"),
    "unequal steps": (
        pd.DataFrame({"g": ["a"] * 3, "t": [0, 1, 3.5], "y": [1, 2, 3]}), {}, ValueError, "rows at equal distances",
    ),
    "off the grid": (
        pd.DataFrame({"g": ["a"] * 3, "t": [0, 1, 3.5], "y": [1, 2, 3]}), {"dt": 1.0}, ValueError,
        "expected rows every 1 s",
    ),
    "grid too coarse": (
        pd.DataFrame({"g": ["a"] * 2, "t": [0, 1e-9], "y": [1, 2]}), {"dt": 1.0}, ValueError,
        "at most one row every 1 s",
    ),
    "dates nobody can read": (frame(t=["1/2/2024", "2/2/2024", "3/2/2024"]), {}, TypeError, "as ISO 8601 writes them"),
    "dates unnamed": (
        frame(t=pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01"])), {"time": None}, ValueError,
        "write time='t'",
    ),
    "no duration": (frame(), {"dt": "soon"}, ValueError, "dt: expected seconds, a duration"),
    "months of seconds": (frame(), {"dt": "MS"}, ValueError, "dt: expected a duration, since times are no dates"),
    "sampling": (frame(), {"sampling": "hourly"}, ValueError, "sampling: expected one of"),
    "changes in a sequence": (frame(x=[1, 2, 2]), {"metadata": ["x"]}, ValueError, "one value of 'x' per sequence"),
    "outcome changes": (
        frame(x=[1, 2, 2]), {"observations": {"y": "y", "x": "x"}, "per_sequence": ["x"]}, ValueError,
        "expected one value of 'x' per sequence, found 1 and 2 in sequence 'a'",
    ),
    "lists": (frame(y=[[1], [2], [3]]), {}, TypeError, "expected numbers or names"),
    "fill of a stranger": (frame(), {"missing_covariates": {"y": 0.0}}, ValueError, "expected a covariate's column"),
    "fill": (frame(), {"missing_covariates": "zero"}, TypeError, "missing_covariates: expected"),
    "levels of a stranger": (frame(), {"levels": {"z": ["a"]}}, ValueError, "levels: expected a column among"),
    "levels twice": (frame(), {"levels": {"y": ["a", "a"]}}, ValueError, "expected every name once"),
    "half long": (frame(), {"variable": "g"}, TypeError, "value: expected a column"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(case: str) -> None:
    given, options, error, match = WRONG[case]
    with pytest.raises(error, match=match):
        read(given, **({"observations": ["y"], "time": "t", "group": "g"} | options))


def test_xarray_comes_back_as_it_went() -> None:
    rng = np.random.default_rng(0)
    lengths = (5, 6)
    spikes = [rng.poisson(1.0, (n, 2)).astype(float) for n in lengths]
    spikes[0][2, 1] = np.nan
    data = lr.SequenceData.from_arrays(
        {"spikes": spikes, "died": [[0.0], [1.0]], "slow": [rng.normal(size=(n // 2, 1)) for n in lengths]},
        {"light": [rng.normal(size=(n, 1)) for n in lengths]},
        dt=0.05, clocks={"slow": 2}, per_sequence=["died"], metadata={"site": ["a", "b"]},
        channel_names={"spikes": ["p", "q"]}, sequence_names=["one", "two"],
    )  # fmt: skip
    again = lr.SequenceData.from_xarray(data.to_xarray(), ["spikes", "died", "slow"], "light")
    assert again.spec == data.spec
    assert again.names == data.names
    assert again.metadata["site"].tolist() == ["a", "b"]
    for name, values in data.observations.items():
        assert torch.equal(values, again.observations[name])
        assert torch.equal(data.masks[name], again.masks[name])
    assert torch.equal(data.covariates["light"], again.covariates["light"])
    for frame in (
        pd.DataFrame({"y": list("abac")}, index=pd.date_range("2024-01-01", periods=4, freq="MS")),
        pd.DataFrame({"y": [1, 2, 3]}, index=pd.date_range("2024-01-01", periods=3, freq="h")),
    ):
        dated = read(frame, ["y"])
        back = lr.SequenceData.from_xarray(dated.to_xarray(), "y")
        assert back.spec == dated.spec
        assert (back.dates == dated.dates).all()
    own = lr.SequenceData.from_arrays({"y": np.ones((2, 3, 1))}, times=[[0, 0.1, 0.4], [1, 2, 4.0]])
    back = lr.SequenceData.from_xarray(own.to_xarray(), "y")
    assert back.times is not None
    assert own.times is not None
    assert torch.equal(own.times, back.times)


def test_axes_are_found_by_name() -> None:
    import xarray

    values = np.random.default_rng(0).normal(size=(4, 2, 5))
    array = xarray.DataArray(
        values, dims=("time", "unit", "trial"), coords={"time": [0, 20, 40, 60], "cue": ("trial", list("lrlrl"))}
    )
    array.time.attrs["units"] = "ms"
    data = lr.SequenceData.from_xarray(
        xarray.Dataset({"rates": array, "age": ("trial", np.arange(5.0))}), {"y": "rates", "age": "age"}
    )
    assert data.spec.dt == 0.02
    assert data.metadata["cue"].tolist() == list("lrlrl")
    np.testing.assert_array_equal(data.observations["y"], values.transpose(2, 0, 1).astype(np.float32))
    assert not data.spec.heads["age"].per_step
    with pytest.raises(ValueError, match="expected a variable among"):
        lr.SequenceData.from_xarray(xarray.Dataset({"rates": array}), "spikes")
    with pytest.raises(TypeError, match="expected an xarray"):
        lr.SequenceData.from_xarray(array, "rates")
    with pytest.raises(ValueError, match="by name"):
        lr.SequenceData.from_xarray(xarray.Dataset({"rates": array.rename(unit="thing")}), "rates")
    with pytest.raises(ValueError, match="rows at equal distances"):
        lr.SequenceData.from_xarray(xarray.Dataset({"rates": array.assign_coords(time=[0, 20, 40, 90])}), "rates")
