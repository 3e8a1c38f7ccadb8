"""ArviZ export: every group's dims, coordinates and values, the functions of both ArviZ lines, and netCDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import arviz_base
import arviz_plots
import arviz_stats
import numpy as np
import pytest
import torch
import xarray as xr

from latentrnn.data import SequenceData
from latentrnn.export.arviz import to_arviz
from latentrnn.support import arviz_generations
from tests.export.fakes import FakePosterior, fake_data
from tests.generations import CONTAINERS, NEEDS_ZERO, install_arviz

DRAWS = 20
GROUPS = {
    "posterior",
    "latents",
    "posterior_predictive",
    "prior_predictive",
    "log_prior",
    "log_likelihood",
    "observed_data",
    "constant_data",
}
ENGINES = ["h5netcdf", "netcdf4"]


@pytest.fixture
def az() -> Any:
    if arviz_generations.generation() != 0:
        pytest.skip("needs ArviZ 0.x; another generation is installed")
    return arviz_generations.library()


def datasets(exported: Any) -> dict[str, xr.Dataset]:
    """The groups of either container as plain datasets."""
    if isinstance(exported, xr.DataTree):
        return {name: node.to_dataset() for name, node in exported.children.items()}
    return {name: exported[name] for name in exported.groups()}


def groups_of(posterior: FakePosterior, container: Any = "datatree", **options: Any) -> dict[str, xr.Dataset]:
    return datasets(to_arviz(posterior, num_samples=DRAWS, container=container, **options))


@pytest.mark.parametrize("container", CONTAINERS)
def test_dims_of_every_variable(container: str) -> None:
    groups = groups_of(FakePosterior(fake_data()), container)
    sampled = ("chain", "draw", "sequence")
    heads = {
        "spikes": (*sampled, "time", "spikes_channel"),
        "field": (*sampled, "field_time", "field_channel"),
        "label": (*sampled, "label_channel"),
    }
    expected = {
        "posterior": {
            "spikes.gain.beta": ("chain", "draw", "spikes_channel", "spikes_stimulus"),
        },
        "latents": {
            "states": (*sampled, "time", "states_dim"),
            "innovations": (*sampled, "time", "innovations_dim"),
            "initial": (*sampled, "initial_dim"),
        },
        "posterior_predictive": heads,
        "prior_predictive": heads,
        "log_prior": {"spikes.gain.beta": ("chain", "draw")},
        "log_likelihood": {"log_likelihood": sampled},
        "observed_data": {name: dims[2:] for name, dims in heads.items()},
        "constant_data": {
            "stimulus": ("sequence", "time", "stimulus_feature"),
            "num_steps": ("sequence",),
            "context_steps": ("sequence",),
            "dt": (),
            **{f"{name}_mask": dims[2:] for name, dims in heads.items()},
        },
    }
    assert {g: {v: d.dims for v, d in dataset.data_vars.items()} for g, dataset in groups.items()} == expected
    for dataset in groups.values():
        assert set(dataset.dims) == set(dataset.indexes), "every dim has a coordinate"


@pytest.mark.parametrize(("dt", "unit", "step"), [(0.5, "s", 0.5), (None, "step", 1.0)])
def test_coordinates_name_sequences_channels_and_time(dt: float | None, unit: str, step: float) -> None:
    for name in ("observed_data", "posterior_predictive", "prior_predictive"):
        dataset = groups_of(FakePosterior(fake_data(dt=dt)))[name]
        assert dataset["sequence"].values.tolist() == ["a", "b", "c"]
        assert dataset["spikes_channel"].values.tolist() == ["left", "right"]
        np.testing.assert_allclose(dataset["time"], np.arange(6) * step)
        np.testing.assert_allclose(dataset["field_time"], np.arange(3) * 2 * step)
        assert dataset["time"].attrs["units"] == dataset["field_time"].attrs["units"] == unit


def test_values_are_the_posteriors_and_nan_where_there_is_nothing() -> None:
    posterior = FakePosterior(fake_data())
    groups = groups_of(posterior)
    spikes = groups["posterior_predictive"]["spikes"].values[0]
    mask = posterior.data.masks["spikes"].numpy()
    np.testing.assert_array_equal(np.isnan(spikes), np.broadcast_to(~mask, spikes.shape))
    np.testing.assert_array_equal(spikes[:, mask], posterior.predictive(DRAWS)["spikes"].numpy()[:, mask])
    observed = groups["observed_data"]["spikes"].values
    np.testing.assert_array_equal(observed[mask], posterior.data.observations["spikes"].numpy()[mask])
    assert np.isnan(observed[~mask]).all()
    assert np.isnan(groups["observed_data"]["field"].sel(sequence="a").values).tolist() == [[False], [True], [False]]
    states = groups["latents"]["states"].sel(sequence="c")
    assert bool(states.isel(time=slice(4, None)).isnull().all()), "there is no state beyond the sequence's end"
    assert bool(states.isel(time=slice(4)).notnull().all())
    beta = posterior.parameters(DRAWS)["spikes.gain.beta"]
    np.testing.assert_array_equal(groups["posterior"]["spikes.gain.beta"][0], beta)
    np.testing.assert_array_equal(groups["log_likelihood"]["log_likelihood"][0], posterior.log_likelihood(64, DRAWS))
    np.testing.assert_array_equal(
        groups["log_prior"]["spikes.gain.beta"][0], posterior.log_prior(DRAWS)["spikes.gain.beta"]
    )


def test_whole_numbers_are_integers_only_where_nothing_is_missing() -> None:
    """ArviZ draws integers as counts, but an integer cannot be NaN."""
    kinds = {
        ragged: {
            (group, head): groups[group][head].dtype.kind
            for group in ("observed_data", "posterior_predictive", "prior_predictive")
            for head in ("spikes", "field", "label")
        }
        for ragged in (False, True)
        if (groups := groups_of(FakePosterior(fake_data(ragged=ragged))))
    }
    for (_, head), kind in kinds[False].items():
        assert kind == {"spikes": "i", "field": "f", "label": "i"}[head]
    for (_, head), kind in kinds[True].items():
        assert kind == {"spikes": "f", "field": "f", "label": "i"}[head]


def test_totals_irregular_times_and_context_are_constant_data() -> None:
    counts = torch.tensor([[[1.0, 2.0], [0.0, 3.0], [4.0, 0.0]]])
    data = SequenceData.from_arrays(
        {"choice": counts}, totals={"choice": counts.sum(-1)}, times=np.array([[0.0, 0.1, 0.5]])
    )
    constants = groups_of(FakePosterior(data, sites=False), latents=False)["constant_data"]
    assert constants["choice_total"].values.tolist() == [[3.0, 3.0, 4.0]]
    np.testing.assert_allclose(constants["seconds"], [[0.0, 0.1, 0.5]])
    assert "dt" not in constants


def test_parts_that_can_be_left_out() -> None:
    data = fake_data()
    assert set(groups_of(FakePosterior(data))) == GROUPS
    assert set(groups_of(FakePosterior(data), prior_predictive=False)) == GROUPS - {"prior_predictive"}
    assert set(groups_of(FakePosterior(data))["posterior"]) == {"spikes.gain.beta"}
    assert set(groups_of(FakePosterior(data), latents=False)) == GROUPS - {"latents"}
    # with nothing drawn there is no posterior to show, and ArviZ is told so by its absence
    assert set(groups_of(FakePosterior(data, sites=False), latents=False)) == GROUPS - {
        "posterior",
        "latents",
        "log_prior",
        "log_likelihood",
    } | {"log_evidence"}


def test_heads_that_the_model_leaves_out_are_not_observed_by_it() -> None:
    """`az.plot_ppc` looks for replicates of everything in observed_data."""
    groups = groups_of(FakePosterior(fake_data(), heads=("spikes",)))
    for name in ("observed_data", "posterior_predictive", "prior_predictive"):
        assert set(groups[name]) == {"spikes"}
    assert "field_mask" not in groups["constant_data"]


class WildPrior(FakePosterior):
    """A prior under which counts leave all integers, as with an exponential link."""

    def prior_predictive(self, num_samples: int = 100) -> dict[str, torch.Tensor]:
        found = super().prior_predictive(num_samples)
        found["spikes"][0] = 1e30
        return found


def test_counts_stay_counts_where_the_prior_goes_beyond_them() -> None:
    groups = groups_of(WildPrior(fake_data(ragged=False)))
    assert groups["observed_data"]["spikes"].dtype == groups["posterior_predictive"]["spikes"].dtype == np.int64
    assert groups["prior_predictive"]["spikes"].dtype.kind == "f"
    assert float(groups["prior_predictive"]["spikes"].max()) == pytest.approx(1e30)


def test_arviz_draws_counts_in_bins_of_whole_numbers(az: Any) -> None:
    exported = to_arviz(WildPrior(fake_data(ragged=False)), num_samples=DRAWS, container="inferencedata")
    ax = az.plot_ppc(exported, var_names=["spikes"], num_pp_samples=3, mean=False)
    drawn = [line.get_xdata() for line in ax.lines if len(line.get_xdata())]
    assert len(drawn) == 4  # three replicates and the observation
    for edges in drawn:
        assert np.array_equal(edges, np.round(edges))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("sites", [False, True])
def test_where_leaving_out_means_nothing_arviz_finds_no_likelihood(container: Any, sites: bool) -> None:
    posterior = FakePosterior(fake_data(), sites=sites, against_loo="the weights are point estimates")
    exported = to_arviz(posterior, num_samples=DRAWS, container=container)
    groups = datasets(exported)
    assert "log_likelihood" not in groups
    found = groups["log_evidence"]
    by_draw = posterior.log_likelihood(64, DRAWS).double().numpy()
    np.testing.assert_allclose(found["log_evidence"], np.log(np.exp(by_draw).mean(0)), rtol=1e-6)
    assert found["log_evidence"].dims == ("sequence",)
    assert found["sequence"].values.tolist() == ["a", "b", "c"]
    assert ("log_evidence_by_draw" in found) == ("standard_error" in found) == sites
    if sites:
        np.testing.assert_array_equal(found["log_evidence_by_draw"][0], posterior.log_likelihood(64, DRAWS))
    assert "point estimates" in found.attrs["not_for"]
    assert "latentrnn.elpd_data" in found.attrs["good_for"]
    library = arviz_generations.library() if container == "inferencedata" else arviz_stats
    for refused in (lambda: library.loo(exported), lambda: library.compare({"a": exported, "b": exported})):
        with pytest.raises(Exception, match=r"log.likelihood|ELPD"):
            refused()


def test_particles_and_seed_reach_the_posterior() -> None:
    posterior = FakePosterior(fake_data())
    first, again, other = (groups_of(posterior, num_particles=7, seed=seed) for seed in (3, 3, 4))
    assert posterior.asked == {"num_particles": 7}
    assert posterior.seed == 0, "the posterior itself is left as it was"
    for name, dataset in first.items():
        xr.testing.assert_identical(dataset, again[name])
    assert not first["posterior_predictive"].equals(other["posterior_predictive"])


@pytest.mark.parametrize("ragged", [False, True])
def test_arviz_zero_draws_it(az: Any, ragged: bool) -> None:
    exported = to_arviz(FakePosterior(fake_data(ragged=ragged)), num_samples=DRAWS, container="inferencedata")
    az.plot_ppc(exported)
    az.plot_ppc(exported, group="prior", kind="cumulative")
    az.plot_trace(exported, var_names=["spikes.gain.beta"])
    az.plot_posterior(exported, var_names=["spikes.gain.beta"])
    az.plot_forest(exported, var_names=["spikes.gain.beta"])
    rows = az.summary(exported, var_names=["spikes.gain.beta"]).index
    assert list(rows) == ["spikes.gain.beta[left, 0]", "spikes.gain.beta[right, 0]"]


def test_arviz_one_reads_it() -> None:
    exported = to_arviz(FakePosterior(fake_data()), num_samples=DRAWS, container="datatree")
    assert arviz_base.convert_to_datatree(exported) is exported
    assert arviz_base.extract(exported, var_names="spikes.gain.beta").sizes["sample"] == DRAWS
    assert (
        arviz_base.dataset_to_dataarray(arviz_base.convert_to_dataset(exported, group="log_likelihood")).sizes["label"]
        == 3
    )


def test_arviz_one_summarises_and_draws_it() -> None:
    exported = to_arviz(FakePosterior(fake_data(ragged=False)), num_samples=DRAWS, container="datatree")
    assert len(arviz_stats.summary(exported, var_names=["spikes.gain.beta"])) == 2
    arviz_plots.plot_ppc_dist(exported, var_names=["field"], num_samples=5, backend="none")
    with pytest.warns(UserWarning, match="discrete"):  # ArviZ has seen that these are counts
        arviz_plots.plot_ppc_dist(exported, var_names=["spikes"], num_samples=5, backend="none")
    arviz_plots.plot_trace(exported, var_names=["spikes.gain.beta"], backend="none")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_netcdf_round_trip(tmp_path: Path, container: str, engine: str) -> None:
    exported = to_arviz(FakePosterior(fake_data()), num_samples=DRAWS, container=container)
    exported.to_netcdf(tmp_path / "fit.nc", engine=engine)
    with xr.open_datatree(tmp_path / "fit.nc", engine=engine) as stored:
        for name, dataset in datasets(exported).items():
            xr.testing.assert_identical(stored[name].to_dataset().load(), dataset)


def test_arviz_zero_reads_its_netcdf(az: Any, tmp_path: Path) -> None:
    exported = to_arviz(FakePosterior(fake_data()), num_samples=DRAWS, container="inferencedata")
    stored = az.from_netcdf(exported.to_netcdf(str(tmp_path / "fit.nc")))
    assert set(stored.groups()) == GROUPS
    xr.testing.assert_equal(stored.posterior_predictive, exported.posterior_predictive)


@pytest.mark.parametrize(
    ("installed", "expected"),
    [pytest.param("0.23.4", "InferenceData", marks=NEEDS_ZERO), ("1.3.0", "DataTree"), (None, "DataTree")],
)
def test_the_container_follows_the_installed_arviz(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, expected: str
) -> None:
    install_arviz(monkeypatch, installed)
    assert type(to_arviz(FakePosterior(fake_data()), num_samples=2)).__name__ == expected


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = FakePosterior(fake_data())
    with pytest.raises(ValueError, match="num_samples must be a positive integer; found 0"):
        to_arviz(posterior, num_samples=0)
    with pytest.raises(ValueError, match="num_particles must be a positive integer; found -1"):
        to_arviz(posterior, num_particles=-1)
    with pytest.raises(ValueError, match="container must be one of 'auto', 'inferencedata', 'datatree'; found 'zarr'"):
        to_arviz(posterior, container="zarr")
    install_arviz(monkeypatch, "1.3.0")
    with pytest.raises(ValueError, match=r'"inferencedata" needs arviz below 1.0; found 1.3.0'):
        to_arviz(posterior, container="inferencedata")
