"""Files as their owners have them, read by what they are: tables, labelled arrays, data sets of lfads-torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentrnn.data import SequenceData
from latentrnn.datasets.lfads import lfads_file
from latentrnn.support.arguments import check_path, check_size
from latentrnn.support.shown import shown

if TYPE_CHECKING:
    import pandas

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".xlsx", ".xls", ".ods")
HDF5 = (".h5", ".hdf5")
NETCDF = (".nc", ".nc4")


def data_file(
    path: str | os.PathLike[str],
    observations: Any = None,
    covariates: Any = None,
    *,
    windows: int | None = None,
    context: int = 0,
    sheet: str | None = None,
    **options: Any,
) -> SequenceData:
    """Read data from a file: a table, labelled arrays, or what lfads-torch reads.

    | suffix | what it holds | read by |
    |---|---|---|
    | .csv, .tsv, .txt, .parquet, .xlsx, .xls, .ods | a table, a row for each step or for each value | `SequenceData.from_dataframe` |
    | .nc, .nc4 | variables with named axes, as `data.to_xarray().to_netcdf(path)` writes them | `SequenceData.from_xarray` |
    | .h5, .hdf5 | arrays of lfads-torch | `latentrnn.datasets.lfads_file`, which needs `dt` |

    Args:
        path: of the file.
        observations, covariates: columns or variables, as of the reader; none for what lfads-torch reads.
        windows: steps; long sequences are cut into windows of that many (`data.windows`).
        context: with `windows`, steps before each that it sees and does not score.
        sheet: of a spreadsheet; the first by default.
        options: others of the reader: `time`, `group`, `metadata`, `dt`, `missing_covariates`, ...

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: what reads files of its kind is not installed.
        ValueError: a file of another kind, columns that it does not have, or as of the reader.
        TypeError: an option that the reader does not have, or as of the reader.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "sales.csv"
        >>> _ = path.write_text("day,sales\\n2024-01-01,3\\n2024-01-02,1\\n2024-01-03,2\\n")
        >>> data_file(path, ["sales"], time="day")
        SequenceData: 1 sequence of 3 steps, dt = 86400 s
          observations: sales (1 channel)
          dates: from 2024-01-01
        >>> folder.cleanup()
    """  # noqa: E501 - a row of a table
    where = check_path("data_file", path)
    if where.suffix.lower() not in (*TABLES, *HDF5, *NETCDF):
        known = [*TABLES, *NETCDF, *HDF5]
        raise ValueError(f"data_file: expected a file ending in one of {known}; found {shown(where.name)}")
    if not where.is_file():
        raise FileNotFoundError(f"data_file: no file {where}")
    data = _read(where, observations, covariates, sheet, options)
    if windows is None:
        if context:
            raise ValueError(f"data_file: context={context} is of windows; found none, windows=100")
        return data
    return data.windows(check_size("data_file", "windows", windows), context=context)


def _read(path: Path, observations: Any, covariates: Any, sheet: Any, options: Mapping[str, Any]) -> SequenceData:
    suffix = path.suffix.lower()
    if suffix in HDF5:
        if observations is not None or covariates is not None or "dt" not in options:
            raise ValueError(f"data_file: {path.name} says itself what is observed; it needs dt alone, seconds per bin")
        return lfads_file(path, **options)
    if suffix in NETCDF:
        import xarray

        with xarray.open_dataset(path) as dataset:
            names = list(map(str, dataset.data_vars))
            _check_observed(path, observations, names)
            return SequenceData.from_xarray(dataset.load(), observations, covariates, **options)
    frame = _table(path, sheet)
    _check_observed(path, observations, list(map(str, frame.columns)))
    return SequenceData.from_dataframe(frame, observations, covariates, **options)


def _check_observed(path: Path, observations: Any, there: list[str]) -> None:
    if not observations:
        raise ValueError(f"data_file: say which of {path.name} is observed; it has {shown(there, 300)}")


def columns_of(path: Path) -> pandas.DataFrame:
    """Return the columns of a table in a file: what kind each is, how many values it has, and the first of them.

    Raises:
        ValueError, ModuleNotFoundError: as of `data_file`.
    """
    import pandas

    frame = _table(path, None)
    columns = {str(name): frame[name] for name in frame.columns}
    rows = {
        name: {"kind": str(each.dtype), "values": int(each.notna().sum()), "first": each.iloc[0]}
        for name, each in columns.items()
    }
    return pandas.DataFrame.from_dict(rows, orient="index", columns=["kind", "values", "first"]).rename_axis("column")


def _table(path: Path, sheet: Any) -> pandas.DataFrame:
    import pandas

    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return pandas.read_parquet(path)
        if suffix in (".xlsx", ".xls", ".ods"):
            return pandas.read_excel(path, sheet_name=0 if sheet is None else sheet)
        if suffix == ".txt":
            return pandas.read_csv(path, sep=None, engine="python")  # whatever separates its columns
        # to the last digit, so that sequences are known again as those of the table that was written
        return pandas.read_csv(path, sep="," if suffix == ".csv" else "\t", float_precision="round_trip")
    except ImportError as error:
        raise ModuleNotFoundError(
            f"data_file: what reads {suffix} files is not installed: pip install 'latentrnn[tables]'", name=error.name
        ) from None
    except (pandas.errors.EmptyDataError, pandas.errors.ParserError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"data_file: {path.name} is no table that can be read: {said}") from None
