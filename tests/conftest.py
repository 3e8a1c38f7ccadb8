"""Shared fixtures: every test starts from the same seed and leaves no global state behind."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

# Before anything imports pyplot: tests draw on machines without a display.
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pyro
import pytest
import torch

TESTS = Path(__file__).parent

# Files of many seconds, the longest first. A file stays in one process, so that the others would wait for one of these
# if it came last.
LONGEST = (
    "inference/sampling/test_nuts.py", "models/test_battery.py", "recovery/test_sessions.py",
    "recovery/test_transitions.py", "inference/fitting/test_distributed.py", "fuzz/test_misuse.py", "test_readme.py",
    "inference/objectives/test_objectives.py", "recovery/test_planted_switch.py", "models/test_families_recovery.py",
    "recovery/test_planted_gain.py", "recovery/test_compare.py", "inference/evidence/test_ais.py",
    "inference/fitting/test_resume.py", "inference/objectives/test_fivo.py", "models/test_invariances.py",
    "inference/filters/test_online.py", "inference/fitting/test_compile.py", "benchmarks/test_inference.py",
    "export/test_streaming.py", "criticism/test_simulation_based.py",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, and skip tests marked ``gpu`` where there is no CUDA device."""
    ranks = {TESTS / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Leave out what was imported and collected wherever garbage is looked for: a million objects, again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    """Seed every generator, then check that the package changed no global switch (a contract of the design)."""
    _seed()
    pyro.clear_param_store()
    before = _switches()
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    assert _switches() == before, "a test left a global switch changed"


def _seed() -> None:
    """`pyro.set_rng_seed(0)`, in a quarter of the time where there is no CUDA device, which adds up over the tests.

    For every kind of accelerator that is absent, `torch.manual_seed` keeps a call to be made later and the trace of
    the stack.
    """
    if torch.cuda.is_available():
        pyro.set_rng_seed(0)
        return
    torch.default_generator.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what pyro seeds


def _switches() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "validation": torch.distributions.Distribution._validate_args,
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
    }
