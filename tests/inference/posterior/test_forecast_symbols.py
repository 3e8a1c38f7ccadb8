"""Forecasts of heads whose codes stand for names say the names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import latentrnn as lr


@pytest.fixture(scope="module")
def forecast() -> lr.Forecast:
    rng = np.random.default_rng(0)
    day = pd.date_range("2024-03-01", periods=30)
    sky = rng.choice(["rain", "sun", "cloud"], 30, p=[0.2, 0.7, 0.1])
    frame = pd.DataFrame({"day": day, "sky": sky, "heat": rng.normal(size=30)})
    data = lr.SequenceData.from_dataframe(frame, ["sky", "heat"], time="day")
    heads = {"sky": lr.Categorical(3), "heat": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    return lr.Posterior(model, lr.Guide(model), data).forecast(4, num_samples=50)


def test_samples_are_names(forecast: lr.Forecast) -> None:
    names = forecast.symbols("sky")
    assert names.shape == (50, 1, 4, 1)
    levels = ["cloud", "rain", "sun"]
    assert [levels.index(name) for name in names.ravel()] == forecast.samples["sky"].flatten().tolist()


def test_the_table_has_the_probability_of_each_name_and_values_of_the_others(forecast: lr.Forecast) -> None:
    table = forecast.to_dataframe()
    sky = table[table["head"] == "sky"]
    assert sky.level.tolist() == ["cloud", "rain", "sun"] * 4
    np.testing.assert_allclose(sky.groupby("frame")["mean"].sum(), 1.0)
    shares = (forecast.symbols("sky")[:, 0, 0, 0] == "sun").mean()
    assert sky["mean"].iloc[2] == pytest.approx(shares)
    assert sky[["sd", "5%", "95%"]].isna().all(axis=None)
    assert sky["date"].iloc[0] == pd.Timestamp("2024-03-31")
    heat = table[table["head"] == "heat"]
    assert heat.level.tolist() == [""] * 4
    assert heat["5%"].lt(heat["mean"]).all()


def test_numbers_have_no_names(forecast: lr.Forecast) -> None:
    with pytest.raises(ValueError, match="'heat' has values that are numbers"):
        forecast.symbols("heat")
    with pytest.raises(ValueError, match="unknown head 'wind'"):
        forecast.symbols("wind")
