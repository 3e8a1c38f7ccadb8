"""Numbers that carry a unit, in the words of the packages that make them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSIONLESS = ("", "1", "dimensionless")


def is_quantity(value: Any) -> bool:
    """Whether numbers carry a unit, as those of quantities, neo, pint, astropy, unyt and brian2 do."""
    if type(value).__module__.partition(".")[0] in ("pandas", "polars", "xarray"):
        return False
    pint = hasattr(value, "magnitude") and hasattr(value, "dimensionality")
    return pint or any(hasattr(value, name) for name in ("rescale", "to_value", "has_same_dimensions"))


def unit_of(value: Any) -> str:
    """The unit of numbers that carry one, as it is written."""
    for name in ("dimensionality", "units", "unit", "dimensions"):
        # pint calls units what others call dimensionality
        name = "units" if name == "dimensionality" and hasattr(value, "magnitude") and hasattr(value, "to") else name
        found = getattr(value, name, None)
        if found is not None:
            return str(found)
    return type(value).__name__


def unitless(where: str, value: Any) -> NDArray[Any]:
    """Numbers without dimension, such as a ratio of two times, as what they are.

    Raises:
        TypeError: numbers with a dimension.
    """
    try:
        return np.asarray(magnitude(value, "dimensionless"))
    except Exception:  # each package raises its own
        unit = unit_of(value)
        raise TypeError(
            f"{where}: expected plain numbers, found {type(value).__name__} in {unit}; choose the unit and give the "
            f"numbers alone, e.g. {_advice(value, unit)}"
        ) from None


def magnitude(value: Any, unit: str) -> Any:
    """The numbers of a quantity in "s", or "dimensionless"; raises what its package raises where that cannot be."""
    if hasattr(value, "rescale"):  # quantities, neo
        return value.rescale(unit).magnitude
    if hasattr(value, "magnitude"):  # pint
        return value.to(unit).magnitude
    if hasattr(value, "to_value"):  # astropy, unyt
        return value.to_value("" if unit == "dimensionless" and hasattr(value, "unit") else unit)
    if str(value.dim) not in (DIMENSIONLESS if unit == "dimensionless" else (unit, "second")):  # brian2, in base units
        raise TypeError(unit)
    return np.asarray(value)


def _advice(value: Any, unit: str) -> str:
    if hasattr(value, "rescale"):
        return f"x.rescale({unit.rpartition(' ')[2]!r}).magnitude"
    if hasattr(value, "magnitude"):
        return f"x.to({unit!r}).magnitude"
    return f"x.to_value({unit!r})" if hasattr(value, "to_value") else "x / unit"
