"""What workflows say of their own length is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "examples" / "workflows").glob("*/demo.py"))


@pytest.mark.parametrize("script", WORKFLOWS, ids=lambda script: script.parent.name)
def test_a_workflow_has_as_many_lines_as_it_says_and_fewer_than_its_rival(script: Path) -> None:
    text = script.read_text()
    counted = text.split("# %% counted from here\n")[1].split("# %% to here\n")[0].splitlines()
    lines = [line for line in counted if line.strip() and not line.lstrip().startswith("#")]
    said = re.search(r"# (\d+) lines of code between the marks\. .* needs about (\d+) for the same", text)
    assert said is not None
    assert len(lines) == int(said[1]) < int(said[2])


def test_there_is_a_workflow_for_each_kind_of_user() -> None:
    assert [script.parent.name for script in WORKFLOWS] == ["bayesian", "engineer", "neuroscientist"]
