"""Pointwise predictive densities as ArviZ takes them: `ELPDData` of ArviZ 0.x or of arviz-stats 1.x."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas


def elpd_data(values: Tensor, *, dim: str = "sequence") -> Any:
    """Wrap held-out log densities (nats, one per sequence or block) as `ELPDData` for `az.compare`.

    ArviZ knows only the kinds "loo" and "waic", so the total carries its name for leave-one-out although nothing is
    left out here: the data are new. There is no effective number of parameters, so `p` is NaN.

    Args:
        values: log density of each held-out sequence or block, (unit,).
        dim: name of the axis.
    """
    import xarray

    pointwise = values.detach().cpu().double().numpy()
    number = pointwise.size
    total, error = float(pointwise.sum()), float(numpy.sqrt(number * pointwise.var()))
    array = xarray.DataArray(pointwise, dims=dim)
    library, major = _arviz()
    if major == 0:
        names = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "scale"]
        return library.ELPDData([total, error, float("nan"), 1, number, False, array, "log"], index=names)
    return library.ELPDData(
        kind="loo",
        elpd=total,
        se=error,
        p=float("nan"),
        n_samples=1,
        n_data_points=number,
        scale="log",
        warning=False,
        good_k=float("nan"),
        elpd_i=array,
    )


def arviz_compare(elpds: Mapping[str, Any], method: str) -> pandas.DataFrame:
    """Call the installed `az.compare` on log-scale `ELPDData`."""
    library, major = _arviz()
    if major == 0:
        return library.compare(dict(elpds), ic="loo", method=method, scale="log", seed=0)
    return library.compare(dict(elpds), method=method)


def psis_weights(log_ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Return normalised Pareto-smoothed weights, (draw, unit), and k-hat, (unit,), of log importance ratios.

    Args:
        log_ratios: (draw, unit), nats.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry. Pareto smoothed importance sampling. 2024.
    """
    library, major = _arviz()
    ratios = log_ratios.T.detach().cpu().double().numpy()
    if major == 0:
        log_weights, shape = library.psislw(ratios)
    else:
        # this generation takes log-likelihoods, whose negatives are the ratios
        log_weights, shape = import_module("arviz_stats.base").array_stats.psislw(-ratios, axis=-1)
    smoothed = torch.softmax(torch.as_tensor(numpy.asarray(log_weights)), -1)
    return smoothed.T, torch.as_tensor(numpy.atleast_1d(shape))


def _arviz() -> tuple[Any, int]:
    """The module with `ELPDData` and `compare`, and 0 or 1 for which of the two ArviZ generations it is."""
    try:
        major = min(int(version("arviz").split(".")[0]), 1)
    except PackageNotFoundError:  # the 1.x stack can be installed without the package that gathers it
        major = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # 0.23 announces 1.x when it is imported, once a day
        return import_module("arviz" if major == 0 else "arviz_stats"), major
