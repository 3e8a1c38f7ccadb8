"""Which tests need which generation of ArviZ: 0.x is in `constraints.txt`, 1.x is what Python 3.12 and newer get."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace
from typing import Any

import pytest

from latentrnn.support.arviz_generations import generation

NEEDS_ZERO = pytest.mark.skipif(generation() != 0, reason="needs ArviZ 0.x; another generation is installed")
CONTAINERS = [pytest.param("inferencedata", marks=NEEDS_ZERO), "datatree"]
GENERATIONS = [pytest.param(0, marks=NEEDS_ZERO), 1]  # the 1.x stack stands beside ArviZ 0.x under names of its own


def install_arviz(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Let another version of the package `arviz` be installed, or none, as far as its metadata say."""
    distribution = importlib.metadata.distribution

    def found(name: str) -> Any:
        if name != "arviz":
            return distribution(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return SimpleNamespace(version=version)

    monkeypatch.setattr(importlib.metadata, "distribution", found)
