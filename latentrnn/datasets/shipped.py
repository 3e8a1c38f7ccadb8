"""Packages that ship recordings, and what to say where one is not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def shipped_by(package: str, module: str, what: str) -> Any:
    """Import the module of a package that ships a recording.

    Args:
        package: as PyPI calls it.
        module: to import.
        what: the recording, for the message.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"{what} comes with the package {package}, which is not installed: pip install {package}", name=package
        ) from None
