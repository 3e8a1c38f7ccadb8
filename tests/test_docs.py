"""What pages of docs show works: their blocks run in order, in an empty directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_readme import python_blocks, run, short_fits

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "extending.md"
CHOOSING = DOCS / "choosing.md"
INTERPRET = DOCS / "interpret.md"
SHORT = sorted({page for page in DOCS.rglob("*.md") if python_blocks(page.read_text())} - {PAGE, CHOOSING, INTERPRET})

__all__ = ["short_fits"]  # a fixture


@pytest.mark.usefixtures("short_fits")
@pytest.mark.parametrize("page", SHORT, ids=[page.relative_to(DOCS).as_posix() for page in SHORT])
def test_tours_and_how_tos_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(python_blocks(page.read_text()), str(page))


def test_the_page_on_extending_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = run(python_blocks(PAGE.read_text()), str(PAGE))
    assert {"HighwayCell", "Geometric"} <= namespace.keys()


def test_the_page_on_choosing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = run(python_blocks(CHOOSING.read_text()), str(CHOOSING))
    assert not namespace["check"].flagged  # type: ignore[attr-defined]
    assert namespace["scaling"].num_samples == 1000  # type: ignore[attr-defined]


def test_the_page_on_opening_a_model_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = run(python_blocks(INTERPRET.read_text()), str(INTERPRET))
    assert namespace["short"].dims == ("statistic", "time", "unit")  # type: ignore[attr-defined]
    assert float(abs(namespace["effect"].spikes[:, :, :10]).max()) == 0.0  # type: ignore[attr-defined]
