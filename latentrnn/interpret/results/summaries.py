"""Means and intervals over draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentrnn.support.arguments import check_number

if TYPE_CHECKING:
    import xarray


def summarise(dataset: xarray.Dataset, probability: float = 0.9) -> xarray.Dataset:
    """Return mean and interval over draws of everything in a dataset.

    Args:
        dataset: of this room, with the dim "sample".
        probability: of the interval, which has the same share of draws on either side.

    Returns:
        The dataset with "statistic" ("mean", "lower", "upper") in the place of "sample"; what has none is as it was.

    Raises:
        ValueError: nothing in it has draws, or a probability outside (0, 1).
        TypeError: no dataset.

    Example:
        >>> import numpy as np, xarray
        >>> drawn = xarray.Dataset({"tau": (("sample", "unit"), np.arange(101.0)[:, None] * np.ones(2))})
        >>> summarise(drawn, 0.8).tau.sel(unit=0).values.tolist()
        [50.0, 10.0, 90.0]
    """
    import xarray

    if not isinstance(dataset, xarray.Dataset):
        raise TypeError(f"summarise: expected an xarray.Dataset; found {type(dataset).__name__}")
    check_number("summarise", "probability", probability, above=0.0, below=1.0)
    if "sample" not in dataset.dims:
        raise ValueError(f"summarise: expected the dim 'sample'; found {sorted(map(str, dataset.dims))}")
    drawn = dataset[[name for name, value in dataset.data_vars.items() if "sample" in value.dims]]
    drawn = drawn.drop_vars([name for name, value in drawn.coords.items() if "sample" in value.dims])
    drawn = drawn.map(lambda value: value.astype(float) if value.dtype == bool else value)  # shares of draws
    tail = (1 - probability) / 2
    bounds = [drawn.quantile(q, "sample", skipna=False).drop_vars("quantile") for q in (tail, 1 - tail)]
    parts = [drawn.mean("sample", skipna=False), *bounds]
    found = xarray.concat(parts, xarray.Variable("statistic", ["mean", "lower", "upper"]))
    rest = dataset[[name for name, value in dataset.data_vars.items() if "sample" not in value.dims]]
    return found.merge(rest.drop_vars([name for name in rest.coords if name not in found.coords])).assign_attrs(
        {**dataset.attrs, "probability": probability}
    )
