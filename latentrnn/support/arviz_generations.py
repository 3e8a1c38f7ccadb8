"""The one file that knows ArviZ 0.x (`InferenceData`, one package) from 1.x (xarray `DataTree`, several packages).

ArviZ is imported only when it is asked for something, since that takes a second and more.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas
    import xarray

Array = NDArray[np.float64]

DIAGNOSTICS = ["mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]
CONTAINERS = ("auto", "inferencedata", "datatree")


def installed_version() -> str | None:
    """Return the version of the package `arviz`; None where the 1.x stack was installed without it."""
    try:
        return version("arviz")
    except PackageNotFoundError:
        return None


def generation() -> int:
    """Return 0 or 1: the generation of the installed ArviZ."""
    installed = installed_version()
    return 0 if installed is not None and installed.split(".")[0] == "0" else 1


def library() -> Any:
    """Import and return the package `arviz`, of either generation, without what 0.23 announces once a day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return import_module("arviz")


def container(kind: str = "auto") -> Callable[[dict[str, Any]], Any]:
    """Return the function from {group: Dataset} to what the installed ArviZ takes, or to the container named.

    Raises:
        ValueError: neither "auto", "inferencedata" nor "datatree", or "inferencedata" without ArviZ 0.x.
    """
    if kind not in CONTAINERS:
        raise ValueError(f'container: expected "auto", "inferencedata" or "datatree"; found {kind!r}')
    if kind == "inferencedata" and generation() != 0:
        raise ValueError(f'container: "inferencedata" needs arviz below 1.0; found {installed_version() or "no arviz"}')
    if kind == "datatree" or generation() != 0:
        from xarray import DataTree

        return DataTree.from_dict
    return lambda groups: library().InferenceData(**groups)


def elpd(pointwise: Array, dim: str) -> Any:
    """Return `ELPDData` of log densities, (unit,), nats, called "loo" since ArviZ knows no name for held-out data."""
    import xarray

    number = pointwise.size
    total, error = float(pointwise.sum()), float(np.sqrt(number * pointwise.var()))
    array = xarray.DataArray(pointwise, dims=dim)
    if generation() == 0:
        names = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "scale"]
        return library().ELPDData([total, error, float("nan"), 1, number, False, array, "log"], index=names)
    kinds = import_module("arviz_stats.utils")
    settings = {
        "elpd": total, "se": error, "p": float("nan"), "n_samples": 1, "n_data_points": number, "scale": "log",
        "warning": False, "good_k": float("nan"), "elpd_i": array,
    }  # fmt: skip
    if any(field.name == "kind" for field in fields(kinds.ELPDData)):
        return kinds.ELPDData(kind="loo", **settings)
    return kinds.ELPDDataLOO(**settings)  # since 1.2 the class says the kind


def compare(elpds: Mapping[str, Any], method: str) -> pandas.DataFrame:
    """Call `az.compare` on log-scale `ELPDData`."""
    if generation() == 0:
        with warnings.catch_warnings():
            # what this ArviZ does to its table is deprecated since pandas 3.1
            warnings.filterwarnings("ignore", message="The inplace keyword in DataFrame")
            return library().compare(dict(elpds), ic="loo", method=method, scale="log", seed=0)
    of_stats = import_module("arviz_stats").compare
    exactly = {"round_to": "none"} if "round_to" in signature(of_stats).parameters else {}
    return of_stats(dict(elpds), method=method, **exactly)


def power_scaling(groups: Mapping[str, xarray.Dataset], component: str) -> xarray.Dataset:
    """Return by how much each posterior variable moves as a component is raised to powers near one.

    Args:
        groups: "posterior", and "log_prior" or "log_likelihood".
        component: "prior" or "likelihood".
    """
    found: xarray.Dataset
    if generation() == 0:
        found = library().psens(container("inferencedata")(dict(groups)), component=component)
    else:
        found = import_module("arviz_stats").psense(container("datatree")(dict(groups)), group=component)
    return found


def summary(draws: xarray.Dataset, prob: float, *, diagnostics: bool) -> pandas.DataFrame:
    """Return mean, standard deviation and central interval of all variables, a row for each entry.

    Args:
        draws: (chain, draw, ...).
        prob: of the interval.
        diagnostics: whether to add effective sample sizes, R-hat and the standard errors of mean and deviation.
    """
    exactly: dict[str, Any] = {"round_to": "none"}
    if generation() == 0:
        of = library().summary
        stats = of(draws, kind="stats", **exactly)
        ends = of(draws, kind="stats", stat_focus="median", hdi_prob=prob, **exactly).iloc[:, -2:]
    else:
        of = import_module("arviz_stats").summary
        stats = of(draws, kind="stats", ci_kind="eti", ci_prob=prob, **exactly)
        ends = stats.drop(columns=["mean", "sd"])
    found = stats[["mean", "sd"]].join(ends.set_axis([f"{50 * (1 - prob):g}%", f"{50 * (1 + prob):g}%"], axis=1))
    if diagnostics:
        known = of(draws, kind="diagnostics", **exactly).rename(
            columns={"R\u0302": "r_hat"}
        )  # as some versions write it
        found = found.join(known[DIAGNOSTICS])
    return found


def smoothed(log_ratios: Array) -> tuple[Array, Array]:
    """Return Pareto-smoothed log-weights, (unit, draw), and k-hat, (unit,), of log importance ratios (unit, draw)."""
    if generation() == 0:
        return library().psislw(log_ratios)
    # this generation takes log-likelihoods, whose negatives are the ratios
    return import_module("arviz_stats.base").array_stats.psislw(-log_ratios, axis=-1)
