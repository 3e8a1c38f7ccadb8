"""Shared fixtures: every test starts from the same seed and leaves no global state behind."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

# Before anything imports pyplot: tests draw on machines without a display.
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pyro
import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


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
