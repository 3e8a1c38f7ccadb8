"""What docs/extending.md shows works: its blocks run in order, in an empty directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_readme import python_blocks, run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def test_the_page_on_extending_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = run(python_blocks(PAGE.read_text()), str(PAGE))
    assert {"HighwayCell", "Geometric"} <= namespace.keys()
