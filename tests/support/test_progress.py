"""What a fit prints where nobody looks."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from latentrnn.support import progress


def printed(monkeypatch: pytest.MonkeyPatch, seconds: float, **named: object) -> list[str]:
    """What a bar of ten steps of ten milliseconds prints to a file."""
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(progress, "SECONDS", seconds)
    with progress.progress_bar(desc="fit", unit="step", **named) as bar:
        for step in range(10):
            time.sleep(0.01)
            bar.set_postfix({"elbo/step": f"{-step:.1f}"}, refresh=False)
            bar.update()
    return file.getvalue().splitlines()


def test_a_log_gets_whole_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 60.0, total=10)
    assert len(lines) == 1  # none is due before the end
    assert re.fullmatch(r"fit: 10 of 10 steps in 00:00, 00:00 left, .*step/s, elbo/step=-9\.0", lines[0])
    often = printed(monkeypatch, 1e-3, total=10)
    assert len(often) == 10
    assert not any("\r" in line or not line for line in often)


def test_a_fit_without_a_number_of_steps_has_none_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = printed(monkeypatch, 60.0, total=None)
    assert re.fullmatch(r"fit: 10 steps in 00:00, .*", line)


def test_nothing_is_printed_where_nothing_is_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, 1e-3, total=10, disable=True) == []
