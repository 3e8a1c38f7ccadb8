"""The job of other versions goes on where there is no interpreter to try, and fails whatever else does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "versions"
pytestmark = [
    pytest.mark.skipif(not SCRIPT.is_file(), reason="continuous integration is not part of this copy"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
]

# what stands in for an interpreter, and is copied into new environments
INTERPRETER = """#!/bin/bash
case "$*" in
  *version_info*) exit {there} ;;
  *python_version*) echo 3.0.0 ;;
  *tomllib*) {dependencies} ;;
  "-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"pip install"*) exit {install} ;;
  *"pip freeze"*) echo torch==0 ;;
  "-m pytest"*) exit {tests} ;;
  *demo.py*) exit {demo} ;;
  *) exit 0 ;;
esac
"""
GOOD = {"there": 0, "dependencies": "echo torch", "install": 0, "tests": 0, "demo": 0}
SKIPPED, FAILED = "!!! versions, {}: SKIPPED, nothing was tested", "!!! versions, {}: FAILED, nothing was tested"
CASES: dict[str, tuple[dict[str, object], int, str]] = {
    "all is well": ({}, 0, "versions, {}: "),
    "no interpreter": ({"there": 1}, 0, SKIPPED),
    "packages that cannot be installed": ({"install": 1}, 1, FAILED),
    "packages that come too late": ({"install": 124}, 1, FAILED),
    "dependencies that cannot be read": ({"dependencies": "exit 1"}, 1, FAILED),
    "tests that fail": ({"tests": 1}, 1, "versions, {}: FAILED with status 1"),
    "no tests": ({"tests": 5}, 5, "versions, {}: FAILED with status 5"),
    "tests that hang": ({"tests": 124}, 124, "versions, {}: FAILED with status 124"),
}


@pytest.mark.parametrize("which", ["newest", "oldest", "installed", "all"])
@pytest.mark.parametrize("case", CASES)
def test_only_a_missing_interpreter_is_passed_over(case: str, which: str, tmp_path: Path) -> None:
    behaviour, status, said = CASES[case]
    done = run(tmp_path, which, behaviour)
    assert done.returncode == status, done.stdout + done.stderr
    for name in ("newest", "oldest", "installed") if which == "all" else (which,):
        assert said.format(name) in done.stdout
        assert ("!!!" in done.stdout) == said.startswith("!!!")
    if which == "all" and said.startswith("!!!"):
        assert done.stdout.strip().splitlines()[-1].startswith("!!!")  # the last thing that is read


def test_a_demo_that_fails_fails_the_newest(tmp_path: Path) -> None:
    assert run(tmp_path, "newest", {"demo": 3}).returncode == 3
    assert run(tmp_path, "oldest", {"demo": 3}).returncode == 0  # which has none


def test_every_python_that_is_asked_for_is_tried(tmp_path: Path) -> None:
    done = run(tmp_path, "installed", {}, missing=("3.12",), pythons="3.11 3.12 3.13")
    assert done.returncode == 0
    assert done.stdout.count("versions, installed: ") == 3
    assert "no Python 3.12 that runs was found" in done.stdout


def test_one_of_them_is_enough_to_fail(tmp_path: Path) -> None:
    """No interpreter for the one, and tests that fail for the other."""
    done = run(tmp_path, "all", {"tests": 1}, missing=("3.12", "3.13"))
    assert done.returncode == 1
    assert SKIPPED.format("newest") in done.stdout
    assert "versions, oldest: FAILED with status 1" in done.stdout


def run(
    folder: Path, which: str, behaviour: dict[str, object], missing: tuple[str, ...] = (), pythons: str = "3.11"
) -> subprocess.CompletedProcess[str]:
    """Run the script with interpreters that behave so; none but these are to be found."""
    stand_ins = folder / "bin"
    stand_ins.mkdir(exist_ok=True)
    for version in ("3.11", "3.12", "3.13"):
        file = stand_ins / f"python{version}"
        file.write_text(INTERPRETER.format(**GOOD | behaviour | ({"there": 1} if version in missing else {})))
        file.chmod(0o755)
    environment = {"PATH": f"{stand_ins}:/usr/bin:/bin", "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    environment["PYTHONS"] = pythons
    return subprocess.run(
        ["bash", str(SCRIPT), which], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
