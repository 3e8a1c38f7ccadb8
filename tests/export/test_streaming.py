"""A posterior written to a file part by part: what `to_arviz` holds, in bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import latentrnn as lr
from latentrnn.export import to_netcdf
from latentrnn.support import arviz_generations
from tests.registry import OBSERVATIONS, make_data, make_model

SETTINGS = {"num_samples": 4, "num_particles": 2}


def posterior(heads: str, **bounds: Any) -> lr.Posterior:
    data = make_data(OBSERVATIONS[heads], (11, 4, 7))
    model, guide = make_model("gru", "innovations with initial", heads, data, direction="causal")
    return lr.Posterior(model, guide, data, device="cpu", **bounds)


def read(path: Path) -> dict[str, xr.Dataset]:
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return {name: node.to_dataset().load() for name, node in tree.children.items()}


WINDOWS = {"window": lr.Window(4), "max_elements": 40}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("gaussian priors", {}),
    ("categorical, missing", {}),
    ("poisson", {"max_elements": 120}),
    ("gaussian priors", WINDOWS),
    ("clocked", WINDOWS),
    ("per sequence", WINDOWS),
]


@pytest.mark.parametrize(("heads", "bounds"), CASES, ids=repr)
def test_a_file_holds_what_the_groups_in_memory_do(tmp_path: Path, heads: str, bounds: dict[str, Any]) -> None:
    fitted = posterior(heads, **bounds)
    expected = fitted.to_arviz(container="datatree", **SETTINGS)
    found = read(fitted.to_netcdf(tmp_path / "posterior.nc", **SETTINGS))
    assert found.keys() == set(expected.children)
    for name, group in expected.children.items():
        there = group.to_dataset()
        assert set(found[name].variables) == set(there.variables), name
        for variable in there.variables:
            assert found[name][variable].dims == there[variable].dims
            np.testing.assert_array_equal(found[name][variable].values, there[variable].values, err_msg=str(variable))
        kinds = {v: there[v].dtype.kind for v in there.data_vars}
        assert {v: found[name][v].dtype.kind for v in there.data_vars} == kinds
        assert found[name].attrs["inference_library"] == "latentrnn"


def test_arviz_reads_the_file(tmp_path: Path) -> None:
    fitted = posterior("poisson")
    path = to_netcdf(fitted, tmp_path / "posterior.nc", **SETTINGS)
    idata = arviz_generations.library().from_netcdf(str(path))  # of either generation
    assert idata["latents"].sizes["draw"] == 4
    assert idata.posterior_predictive["y"].shape == (1, 4, 3, 11, 3)
    assert idata["latents"]["states"].shape[:3] == (1, 4, 3)
    small = read(to_netcdf(fitted, path, latents=False, prior_predictive=False, **SETTINGS))
    assert "latents" not in small
    assert "prior_predictive" not in small


def test_draws_of_chains_are_written_chain_by_chain(tmp_path: Path) -> None:
    data = make_data(OBSERVATIONS["gaussian priors"], (4, 3))
    model, _ = make_model("gru", "deterministic", "gaussian priors", data)
    with pytest.warns(UserWarning, match="diverged|R-hat"):  # so few steps that they are no posterior
        drawn = lr.sample(model, data, num_samples=4, warmup=2, chains=2, progress=False)
    expected = drawn.to_arviz(container="datatree", num_particles=2)
    found = read(drawn.to_netcdf(tmp_path / "posterior.nc", num_particles=2))
    assert found.keys() == set(expected.children)
    for group in ("posterior", "posterior_predictive", "sample_stats"):
        for name, values in expected[group].to_dataset().data_vars.items():
            assert values.sizes["chain"] == 2
            np.testing.assert_array_equal(found[group][name].values, values.values)


def test_counts_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_samples must be a positive integer"):
        posterior("poisson").to_netcdf(tmp_path / "x.nc", num_samples=0)


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = posterior("poisson")
    monkeypatch.setattr(type(fitted), "parameters", None)  # drawing would fail otherwise
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write to; make it first"):
        fitted.to_netcdf(tmp_path / "nowhere" / "x.nc", **SETTINGS)
    with pytest.raises(IsADirectoryError, match="expected a file to write; found a folder"):
        fitted.to_netcdf(tmp_path, **SETTINGS)


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = posterior("poisson").to_netcdf("~/x.nc", prior_predictive=False, latents=False, **SETTINGS)
    assert path == tmp_path / "x.nc"
    assert path.is_file()


def test_checkpoints_and_fits_go_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    data = make_data(OBSERVATIONS["poisson"], (4, 3))
    model, guide = make_model("gru", "deterministic", "poisson", data)
    result = lr.fit(
        model,
        guide,
        data,
        steps=2,
        checkpointing=lr.Checkpointing("~/under way"),
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    assert (tmp_path / "under way").is_dir()
    result.save("~/fit")
    assert lr.load("~/fit").seed == result.seed
    assert (tmp_path / "fit" / "latentrnn.json").is_file()
