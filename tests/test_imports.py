"""Importing the package imports what its users wait for anyway (torch, Pyro), and nothing heavy that few calls need."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "torch._dynamo", "torch._inductor", "sympy", "arviz", "xarray", "pandas", "matplotlib", "scipy", "sklearn", "h5py",
    "netCDF4", "graphviz", "IPython", "optuna", "torchdiffeq",
)  # fmt: skip


def imported(program: str) -> set[str]:
    """Return which heavy packages a fresh interpreter has after a program."""
    ask = f"import sys\n{program}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_nothing_heavy_comes_with_the_package() -> None:
    assert imported("import latentrnn") == set()


def test_the_check_sees_what_is_imported() -> None:
    assert "pandas" in imported("import pandas")
