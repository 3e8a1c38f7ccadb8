"""Files of arrays by name, as programs of the field exchange them (HDF5)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from latentrnn.support.arguments import check_path


def check_target(owner: str, path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to write, before anything is computed for it.

    Raises:
        FileNotFoundError: there is no such folder.
        IsADirectoryError: the path is a folder.
        TypeError: no path.
    """
    target = check_path(owner, path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{owner}: {target}: there is no folder {target.parent} to write to; make it first")
    if target.is_dir():
        raise IsADirectoryError(f"{owner}: {target}: expected a file to write; found a folder")
    return target


def write_arrays(path: Path, group: str | None, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays by name into a group of a file, which it replaces, or into a file of their own (None)."""
    import h5py  # for those who write such a file

    with h5py.File(path, "w" if group is None else "a") as file:
        if group is not None and group in file:
            del file[group]
        target = file if group is None else file.create_group(group)
        for name, values in arrays.items():
            target.create_dataset(name, data=values)
