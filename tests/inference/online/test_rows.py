"""Rows of tables, and dicts by the names of channels, are taken by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyro
import pytest
import torch

import latentrnn as lr
from tests.registry import shake


def make(streams: Any = None, **options: Any) -> tuple[lr.OnlineFilter, pd.DataFrame]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "id": np.repeat(["a", "b"], 6),
            "t": np.tile(np.arange(6.0), 2),
            "flow": rng.normal(size=12),
            "heat": rng.normal(size=12),
            "events": rng.poisson(1.0, 12),
            "load": rng.normal(size=12),
        }
    )
    data = lr.SequenceData.from_dataframe(
        table, group="id", time="t", observations={"y": ["flow", "heat"], "n": ["events"]}, covariates={"x": ["load"]}
    )
    pyro.set_rng_seed(0)
    heads = {"y": lr.Gaussian(), "n": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads)
    shake(model)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    posterior = lr.Posterior(model, guide, data, device="cpu")
    return lr.OnlineFilter(posterior, num_particles=20, streams=streams, **options), table


def same(one: Any, other: Any) -> None:
    for name in ("weights", "states", "values"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_a_row_a_dict_and_arrays_say_the_same() -> None:
    (by_row, table), (by_dict, _), (plain, _), (labelled, _) = make(), make(), make(), make()
    columns = ["load", "events", "heat", "flow"]  # in another order
    for _, row in table.iloc[:6].iterrows():
        given = row[columns].astype(float)
        expected = plain.update({"y": [row["flow"], row["heat"]], "n": [row["events"]]}, [row["load"]])
        same(by_row.update(given), expected)
        same(by_dict.update(given.to_dict()), expected)
        heads = {"y": given[["heat", "flow"]], "n": given[["events"]]}
        same(labelled.update(heads, {"x": given[["load"]]}), expected)


def test_a_table_is_a_step_of_many_streams_by_their_names() -> None:
    (by_table, table), (plain, _) = make(["a", "b", "c"]), make(["a", "b", "c"])
    for t in range(3):
        rows = table[table["t"] == t].set_index("id").loc[["b", "a"], ["heat", "flow", "events", "load"]]
        rows.loc["c"] = [np.nan, np.nan, np.nan, 0.0]
        y = rows.loc[["a", "b", "c"], ["flow", "heat"]].to_numpy()
        n = rows.loc[["a", "b", "c"], ["events"]].to_numpy()
        expected = plain.update({"y": y, "n": n}, {"x": rows.loc[["a", "b", "c"], ["load"]].to_numpy()})
        same(by_table.update(rows), expected)
    assert float(expected["c"].log_prob) == pytest.approx(0.0, abs=1e-9)


def test_a_stream_without_a_row_shows_nothing() -> None:
    online, table = make(["a", "b"])
    row = table[table["t"] == 0].set_index("id").loc[["b"], ["flow", "heat", "events"]]
    found = online.update(row, {"x": np.zeros((2, 1))})
    assert float(found["a"].log_prob) == pytest.approx(0.0, abs=1e-9)
    assert float(found["b"].log_prob) < 0


REFUSED = {
    "unknown": ({"flow": 1.0, "heat": 1.0, "events": 1.0, "lod": 0.0}, r"unknown \['lod'\]; expected a dict of head"),
    "half a head": ({"flow": 1.0, "events": 1.0, "load": 0.0}, r"observation\['y'\]: expected NaN where it is missing"),
    "no covariate": ({"flow": 1.0, "heat": 1.0, "events": 1.0}, "'x' is not there"),
    "several": ({"flow": [1.0, 2.0], "heat": [1.0, 2.0]}, "expected a number under each name; found several"),
    "twice": (pd.Series([1.0, 2.0], index=["flow", "flow"]), "found 'flow' twice"),
    "no labels of the head": ({"y": pd.Series([1.0, 2.0], index=["flow", "cold"])}, "expected labels"),
    "a table": (pd.DataFrame({"flow": [1.0, 2.0], "heat": [0.0, 0.0]}), "expected one row, found a table of 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_that_does_not_fit_is_refused_and_changes_nothing(case: str) -> None:
    given, match = REFUSED[case]
    online, _ = make()
    before = online.state_dict()
    with pytest.raises(ValueError, match=match):
        online.update(given, {"x": [0.0]} if "y" in given else None)
    after = online.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_rows_that_are_no_streams_are_refused() -> None:
    online, table = make(["a", "b"])
    rows = table[table["t"] == 0][["flow", "heat", "events", "load"]]
    with pytest.raises(ValueError, match=r"expected rows that are streams, of .*; found unknown"):
        online.update(rows)
    with pytest.raises(TypeError, match="expected a number under 'flow', found 'warm'"):
        make()[0].update({"flow": "warm", "heat": 0.0, "events": 1.0, "load": 0.0})
    with pytest.raises(ValueError, match=r"expected None, since \['x'\] are in the row"):
        make()[0].update({"flow": 0.0, "heat": 0.0, "events": 1.0, "load": 0.0}, {"x": [0.0]})
