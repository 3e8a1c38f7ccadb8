"""Whatever holds real numbers, as a plain numpy array; what it says beside the numbers is not dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
DIMENSIONLESS = ("", "1", "dimensionless")


def to_numpy(where: str, value: Any) -> Array:
    """A numpy array of booleans, integers or floats.

    Taken are arrays of numpy and torch (of any layout and device, quantised or not), masked arrays, pandas with its
    nullable types, xarray, scipy's sparse matrices, and lists of these; NaN stands for what they mark as missing or
    masked.

    Raises:
        TypeError: numbers with a unit, dates, durations, complex numbers, strings, or no numbers at all.
        ValueError: rows of different lengths.
    """
    array = _array(where, value)
    if array.dtype == object:
        array = _from_objects(array)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{where}: expected real numbers, found {_kind(array, value)}")
    return array


def to_tensor(where: str, value: Any) -> torch.Tensor:
    """The same as a tensor on the CPU, which shares memory with none but a tensor.

    Raises:
        TypeError, ValueError: as `to_numpy`.
    """
    if isinstance(value, torch.Tensor) and _is_plain(value):
        return value.detach().cpu()
    # a copy: torch takes no reversed strides and warns of read-only memory
    return torch.as_tensor(np.array(to_numpy(where, value)))


def is_simple(values: Iterable[Any]) -> bool:
    """Whether a list, however nested, holds plain numbers and numpy arrays alone, so that numpy can read all of it."""
    kinds = set(map(type, values))
    if kinds and kinds <= {list, tuple}:
        return is_simple(list(chain.from_iterable(values)))
    return all(kind in (bool, int, float, np.ndarray) or issubclass(kind, np.generic) for kind in kinds)


def is_frame(value: Any) -> bool:
    """Whether it is a table with named columns (pandas, polars, pynapple)."""
    return hasattr(value, "columns") and hasattr(value, "shape") and not isinstance(value, torch.Tensor | np.ndarray)


def is_labelled(value: Any) -> bool:
    """Whether it is an array whose axes have names and labels: xarray's `DataArray` or what is made like one.

    Axes of any number and order; no value is read, so that what lies on disk stays there.
    """
    return hasattr(value, "dims") and hasattr(value, "coords") and hasattr(value, "data")


def is_quantity(value: Any) -> bool:
    """Whether numbers carry a unit, as those of quantities, neo, pint, astropy, unyt and brian2 do."""
    if type(value).__module__.partition(".")[0] in ("pandas", "polars", "xarray"):
        return False
    pint = hasattr(value, "magnitude") and hasattr(value, "dimensionality")
    return pint or any(hasattr(value, name) for name in ("rescale", "to_value", "has_same_dimensions"))


def unit_of(value: Any) -> str:
    """The unit of numbers that carry one (see `is_quantity`), as their library writes it, e.g. "ms"; for messages.

    The name of their type where they name no unit.
    """
    for name in ("dimensionality", "units", "unit", "dimensions"):
        # pint calls units what others call dimensionality
        name = "units" if name == "dimensionality" and hasattr(value, "magnitude") and hasattr(value, "to") else name
        found = getattr(value, name, None)
        if found is not None:
            return str(found)
    return type(value).__name__


def unitless(where: str, value: Any) -> Array:
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


def _array(where: str, value: Any) -> Array:
    if type(value) is np.ndarray:
        return value
    if isinstance(value, torch.Tensor):
        return _from_torch(where, value)
    if isinstance(value, np.ma.MaskedArray):
        return _from_masked(value)
    if is_labelled(value):
        return _array(where, value.data)
    if is_frame(value) and hasattr(value, "dtypes") and hasattr(value, "iloc"):
        names = [f"{where}, column {str(name)!r}" for name in value.columns]
        columns = [to_numpy(name, value.iloc[:, number]) for number, name in enumerate(names)]
        return np.column_stack(columns) if columns else np.empty(value.shape)
    if hasattr(value, "isna") and hasattr(value, "to_numpy"):
        return _from_pandas(value)
    if is_quantity(value):
        return unitless(where, value)
    for dense in ("toarray", "todense"):  # scipy's sparse matrices, and arrays of the package `sparse`
        if hasattr(value, dense):
            return np.asarray(getattr(value, dense)())
    if isinstance(value, list | tuple) and not is_simple(value):
        return _stacked(where, [_array(where, item) for item in value])
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{where}: expected a rectangular array, found rows of different lengths") from error


def _stacked(where: str, arrays: list[Array]) -> Array:
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"{where}: expected a rectangular array, found rows of different lengths")
    if any(array.dtype == object for array in arrays):
        arrays = [_from_objects(array) for array in arrays]
    return np.stack(arrays)


def _is_plain(tensor: torch.Tensor) -> bool:
    special = tensor.is_meta or tensor.is_nested or tensor.is_quantized or tensor.is_complex()
    return tensor.layout == torch.strided and not special


def _from_torch(where: str, tensor: torch.Tensor) -> Array:
    tensor = tensor.detach()
    if tensor.is_meta:
        raise TypeError(f"{where}: expected numbers, found a tensor on the device 'meta', which holds none")
    if tensor.is_nested:
        raise TypeError(f"{where}: expected a dense tensor, found a nested one; write list(x.unbind())")
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()  # numpy has no bfloat16 and no float8, and float32 holds them exactly
    return np.asarray(tensor.cpu().resolve_conj().resolve_neg().numpy())


def _from_masked(value: np.ma.MaskedArray[Any, Any]) -> Array:
    if value.dtype.kind not in "biuf" or not np.ma.is_masked(value):
        return np.asarray(value.data)
    return np.asarray(np.ma.filled(value.astype(np.float64), np.nan))


def _from_pandas(values: Any) -> Array:
    """A column or index of pandas; NaN where its nullable types hold pd.NA."""
    kind = getattr(values.dtype, "kind", "O")
    if isinstance(values.dtype, np.dtype) or kind not in "biuf":
        return np.asarray(values)
    if kind != "f" and not values.isna().any():
        return np.asarray(values.to_numpy(dtype={"b": np.bool_, "i": np.int64, "u": np.uint64}[kind]))
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def _from_objects(array: Array) -> Array:
    """Python numbers in an array of objects; NaN for pd.NA. As it is, where there is anything else."""
    items = [np.nan if type(item).__name__ == "NAType" else item for item in array.ravel().tolist()]
    if not items or not all(isinstance(item, Real | np.bool_) for item in items):
        return array
    return np.array(items).reshape(array.shape)


def _kind(array: Array, value: Any) -> str:
    if array.dtype == object:
        kinds = sorted({type(item).__name__ for item in array.ravel()[:1000]})
        hint = "; pass sequences of different lengths as a list of arrays"
        if "NoneType" in kinds:
            hint = "; write NaN where nothing was observed"
        elif kinds == ["dict"]:
            hint = ""
        return f"Python objects ({', '.join(kinds[:3])}){hint}"
    return {
        "c": "complex numbers",
        "U": "strings",
        "T": "strings",
        "S": "bytes",
        "M": "dates; write (x - x[0]) / np.timedelta64(1, 's') for seconds since the first",
        "m": "durations; write x / np.timedelta64(1, 's') for seconds",
    }.get(array.dtype.kind, f"dtype {array.dtype} of {type(value).__name__}")


def _advice(value: Any, unit: str) -> str:
    if hasattr(value, "rescale"):
        return f"x.rescale({unit.rpartition(' ')[2]!r}).magnitude"
    if hasattr(value, "magnitude"):
        return f"x.to({unit!r}).magnitude"
    return f"x.to_value({unit!r})" if hasattr(value, "to_value") else "x / unit"
