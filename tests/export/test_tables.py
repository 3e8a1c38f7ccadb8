"""What goes out as tables and labelled arrays: the numbers of the methods that they come from, where labels say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr

DRAWS = 10


def make_data() -> lr.SequenceData:
    rng = np.random.default_rng(0)
    lengths = [8, 8, 5, 8, 6, 8]
    return lr.SequenceData.from_arrays(
        {
            "spikes": [rng.poisson(1.0, (length, 2)).astype(float) for length in lengths],
            "field": [rng.normal(size=(length // 2, 1)) for length in lengths],
            "choice": rng.integers(0, 2, (len(lengths), 1)),
        },
        {"stimulus": [rng.normal(size=(length, 1)) for length in lengths]},
        dt=0.02,
        clocks={"field": 2},
        per_sequence=("choice",),
        channel_names={"spikes": ["left", "right"]},
        sequence_names=list("abcdef"),
    )


def fit(seed: int = 0) -> lr.FitResult:
    data = make_data()
    heads = {
        "spikes": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)}),
        "field": lr.Gaussian(),
        "choice": lr.Bernoulli(),
    }
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2, initial=3), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    reporting = lr.Reporting(progress=False, every=1)
    compute = lr.Compute(device="cpu")
    return lr.fit(model, guide, data[:4], data[4:], seed=seed, steps=4, reporting=reporting, compute=compute)


@pytest.fixture(scope="module")
def result() -> lr.FitResult:
    return fit()


@pytest.fixture(scope="module")
def posterior(result: lr.FitResult) -> lr.Posterior:
    return result.posterior(make_data(), device="cpu")


def test_draws_are_those_of_the_methods_with_names_on(posterior: lr.Posterior) -> None:
    found = posterior.to_xarray(num_samples=DRAWS)
    assert dict(found["spikes_rate"].sizes) == {"sample": DRAWS, "sequence": 6, "time": 8, "spikes_channel": 2}
    assert found["field_rate"].dims == ("sample", "sequence", "field_time", "field_channel")
    assert found["choice_rate"].dims == ("sample", "sequence", "choice_channel")
    for head in posterior.model.observations:
        np.testing.assert_array_equal(found[f"{head}_rate"], posterior.rates(head, DRAWS).numpy())
    for name, value in posterior.latents(DRAWS).items():
        np.testing.assert_array_equal(found[name], value.numpy())
    for name, value in posterior.parameters(DRAWS).items():
        np.testing.assert_array_equal(found[name], value.numpy())
    right = found["spikes_rate"].sel(sequence="c", spikes_channel="right")
    np.testing.assert_array_equal(right, posterior.rates("spikes", DRAWS)[:, 2, :, 1].numpy())
    np.testing.assert_allclose(found["time"], 0.02 * np.arange(8))
    assert found["spikes.readout.baseline"].dims == ("sample", "spikes_channel")
    assert "transition" in found.attrs["conditional_on"]


def test_averages_are_those_of_the_draws(posterior: lr.Posterior) -> None:
    found, draws = posterior.to_xarray(num_samples=DRAWS, average=True), posterior.to_xarray(num_samples=DRAWS)
    assert set(found.data_vars) == set(draws.data_vars)
    for name, value in found.items():
        assert value.dims == draws[name].dims[1:]
        np.testing.assert_allclose(value, draws[name].mean("sample", skipna=False), rtol=1e-4, atol=1e-6)


def test_averages_do_not_depend_on_the_parts(result: lr.FitResult) -> None:
    whole = result.posterior(make_data(), device="cpu").to_xarray(num_samples=DRAWS, average=True)
    parts = result.posterior(make_data(), device="cpu", max_elements=60).to_xarray(num_samples=DRAWS, average=True)
    for name in ("states", "innovations", "initial", "spikes_rate"):
        assert np.array_equal(np.isnan(whole[name]), np.isnan(parts[name]))
        assert whole[name].shape == parts[name].shape


def test_averages_in_windows_are_those_of_the_draws(result: lr.FitResult) -> None:
    for most in (None, 60):
        windowed = result.posterior(make_data(), device="cpu", window=lr.Window(4, overlap=2), max_elements=most)
        found, draws = windowed.to_xarray(num_samples=DRAWS, average=True), windowed.to_xarray(num_samples=DRAWS)
        for name, value in found.items():
            np.testing.assert_allclose(value, draws[name].mean("sample", skipna=False), rtol=1e-4, atol=1e-6)


def test_parts_can_be_left_out(posterior: lr.Posterior) -> None:
    found = posterior.to_xarray(num_samples=2, heads=["choice"], latents=False)
    assert set(found.data_vars) == {"choice_rate", "spikes.readout.baseline"}
    with pytest.raises(ValueError, match="unknown"):
        posterior.to_xarray(heads=["no such head"])


def test_it_goes_together_with_the_data(posterior: lr.Posterior) -> None:
    import xarray

    together = xarray.merge([posterior.data.to_xarray(), posterior.to_xarray(num_samples=2)], join="exact")
    residual = together["spikes"] - together["spikes_rate"].mean("sample")
    assert residual.dims == ("sequence", "time", "spikes_channel")


def test_an_ensemble_says_whose_draws_are_whose() -> None:
    data = make_data()
    mixture = lr.EnsemblePosterior(
        [fit(seed).posterior(data, device="cpu") for seed in range(2)], torch.tensor([0.25, 0.75])
    )
    found = mixture.to_xarray(num_samples=8)
    assert found["member"].values.tolist() == [0, 0, *[1] * 6]
    assert "states" not in found
    np.testing.assert_array_equal(found["spikes_rate"], mixture.rates("spikes", 8).numpy())


def test_a_history_goes_by_step(result: lr.FitResult) -> None:
    found = result.to_dataframe()
    assert found.index.name == "step"
    for name, values in result.history.items():
        if name not in ("step", "validation_step"):
            clock = "validation_step" if name.startswith("validation_") else "step"
            at = found.loc[[int(step) for step in result.history[clock]], name]
            np.testing.assert_array_equal(at, values)
            assert at.size == found[name].notna().sum()


def test_evidence_has_a_row_for_each_sequence(posterior: lr.Posterior) -> None:
    evidence = posterior.evidence("iwae", 30)
    found = evidence.to_dataframe()
    assert found.index.tolist() == list("abcdef")
    assert found.index.name == "sequence"
    np.testing.assert_array_equal(found["log_evidence"], evidence.values.numpy())
    np.testing.assert_array_equal(found["pareto_k"], evidence.pareto_k.numpy())  # type: ignore[union-attr]
    assert found["doubtful"].dtype == bool
    assert "elbo" in posterior.evidence("elbo", 2).to_dataframe()


def test_a_forecast_has_a_row_for_each_entry(posterior: lr.Posterior) -> None:
    forecast = posterior.forecast(4, {"stimulus": np.zeros((6, 4, 1))}, num_samples=50)
    found = forecast.to_dataframe(prob=0.8)
    assert found.columns.tolist() == ["head", "sequence", "frame", "time", "channel", "mean", "sd", "10%", "90%"]
    assert found.attrs["time_unit"] == "s"
    assert len(found[found["head"] == "spikes"]) == 6 * 4 * 2
    row = found.query("head == 'spikes' and sequence == 'c' and frame == 3 and channel == 'right'").iloc[0]
    assert row["time"] == pytest.approx(0.02 * 7)  # five steps were recorded: the third after them is the eighth
    assert row["mean"] == pytest.approx(float(forecast.mean("spikes")[2, 2, 1]), rel=1e-6)
    assert row["90%"] == pytest.approx(float(forecast.quantiles("spikes", 0.9)[0, 2, 2, 1]), rel=1e-6)
    slow = found.query("head == 'field' and sequence == 'c'")  # frames of two steps: 2 were complete at step 5, 4 at 9
    assert slow["time"].tolist() == pytest.approx([0.02 * 4, 0.02 * 6])


def test_baselines_stand_in_the_same_table() -> None:
    data = make_data()
    found = lr.persistence(data, 3).to_dataframe()
    last = found.query("head == 'spikes' and sequence == 'a' and channel == 'left'")
    assert last["mean"].tolist() == [float(data.observations["spikes"][0, 7, 0])] * 3
    assert last["time"].tolist() == pytest.approx([0.16, 0.18, 0.20])
    assert last["sd"].isna().all()


def test_irregular_times_go_on_in_seconds() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.5, 1.5, (3, 6)), 1)
    data = lr.SequenceData.from_arrays({"y": rng.normal(size=(3, 6, 1))}, times=times)
    model = lr.LatentRNN(
        data.spec, transition=lr.Decay(lr.GRU(2)), latent=lr.InitialState(1), observations={"y": lr.Gaussian()}
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
    posterior = lr.Posterior(model, guide, data, device="cpu")
    later = times[:, -1:] + np.array([[1.0, 3.0]])
    found = posterior.forecast(2, times=later, num_samples=3).to_dataframe()
    begin = data.times[:, 0].numpy()  # type: ignore[index]
    np.testing.assert_allclose(found["time"], (later - (times[:, :1] - begin[:, None])).flatten(), rtol=1e-5)
    assert found.attrs["time_unit"] == "s"


@pytest.mark.parametrize(("frequency", "zone"), [("MS", None), ("D", "Europe/Berlin")])
def test_dates_go_on_by_their_calendar(frequency: str, zone: str | None) -> None:
    dates = pd.date_range("2024-01-01", periods=12, freq=frequency, tz=zone)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"date": dates, "y": rng.normal(size=12)})
    data = lr.SequenceData.from_dataframe(frame, {"y": ["y"]}, time="date")
    found = lr.climatology(data, 3).to_dataframe()
    assert found["date"].tolist() == pd.date_range(dates[-1], periods=4, freq=frequency)[1:].tolist()
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.InitialState(1), observations={"y": lr.Gaussian()})
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data, device="cpu")
    assert posterior.forecast(3, num_samples=3).to_dataframe()["date"].tolist() == found["date"].tolist()
    assert "date" in posterior.to_xarray(num_samples=2).coords


def test_tables_of_checks(posterior: lr.Posterior) -> None:
    ranks = torch.randint(0, 20, (50, 2), generator=torch.Generator().manual_seed(0))
    coverage = lr.Calibration(("a", "b"), ranks, 19).coverage()
    found = coverage.to_dataframe()
    assert len(found) == 2 * len(coverage.level)
    at = found[found["quantity"] == "b"]
    np.testing.assert_array_equal(at["rate"], coverage.rate[:, 1].numpy())
    np.testing.assert_array_equal(at["within"], coverage.within[:, 1].numpy())
    rescaled = lr.time_rescaling(posterior.one_step_ahead("spikes", 8, 2, 2))
    table = rescaled.to_dataframe()
    np.testing.assert_array_equal(table["statistic"], rescaled.statistic.numpy())
    assert isinstance(table, pd.DataFrame)
    assert table.index.name == "channel"
