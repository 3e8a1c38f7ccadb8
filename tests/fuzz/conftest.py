"""How many random cases there are, and what is said of them.

Few and always the same where nothing is said; `make fuzz` sets the environment's `FUZZ`, the factor by which there are
more of them, and gives pytest a `--hypothesis-seed`, which makes them others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests.fuzz.rule import TALLY

FACTOR = int(os.environ.get("FUZZ", "1"))

LONG = "FUZZ" in os.environ


def number(cases: int, *, few: int | None = None) -> int:
    """Return how many cases a test has: `few` of them, where that is given, unless `make fuzz` asks for all."""
    return cases * FACTOR if LONG or few is None else few


settings.register_profile(
    "fuzz",
    derandomize=not LONG,
    database=None,
    deadline=None,
    print_blob=True,
    # a case that fails among the few is shrunk by `make fuzz`: it takes minutes where calls fit models
    phases=tuple(Phase) if LONG else (Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many cases there were."""
    if TALLY:
        found = ", ".join(f"{count} {what}" for what, count in sorted(TALLY.items()))
        terminalreporter.write_line(f"fuzz: {found}")
