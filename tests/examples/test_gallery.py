"""The gallery goes on where it stopped, tells a claim that did not hold, and its examples can fail."""

from __future__ import annotations

import importlib
import json
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from examples import gallery, simulate

ROOT = Path(__file__).resolve().parents[2]
DEMO = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
count = out / "count"
count.write_text(str(1 + int(count.read_text() if count.exists() else 0)))
assert {holds}, "it does not hold"
told = {{"claim": "it holds", "found": "1 [0, 2]", "baseline": "3"}}
(out / "result.json").write_text(json.dumps(told))
"""


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    for name, holds in (("right", "True"), ("wrong", "False")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "demo.py").write_text(DEMO.format(holds=holds))
    (tmp_path / "simulate.py").write_text("")
    return tmp_path


def test_what_has_run_is_kept_until_it_changes(examples: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = gallery.run("right", work, examples)
    assert gallery.run("right", work, examples) == first
    assert (work / "right" / "count").read_text() == "1"
    (examples / "simulate.py").write_text("# another simulator")
    gallery.run("right", work, examples)
    assert (work / "right" / "count").read_text() == "2"
    (examples / "right" / "figure.py").write_text("# another file of the example")
    gallery.run("right", work, examples)
    assert (work / "right" / "count").read_text() == "3"


def test_a_claim_that_did_not_hold_is_told_and_tried_again(examples: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    runs = {row: gallery.run(name, work, examples) for row, name in ((2, "right"), (1, "wrong"))}
    assert runs[1]["result"] is None
    gallery.run("wrong", work, examples)
    assert (work / "wrong" / "count").read_text() == "2"
    lines = gallery.table(runs, {1: "wrong", 2: "right"}).splitlines()
    rows = [line for line in lines if re.match(r"\| \d", line)]
    assert rows[0].startswith("| 1 | [wrong](../wrong/demo.py) | its claim did not hold |")
    assert rows[1].startswith("| 2 | [right](../right/demo.py) | it holds | 1 [0, 2] | 3 | ")
    assert "![right](right.png)" in lines
    assert "![wrong](wrong.png)" not in lines


def test_rows_that_were_not_run_stay_as_they_are(examples: Path, tmp_path: Path) -> None:
    work, systems = tmp_path / "work", {1: "wrong", 2: "right"}
    both = gallery.table({row: gallery.run(name, work, examples) for row, name in systems.items()}, systems)
    (examples / "wrong" / "demo.py").write_text(DEMO.format(holds="True"))
    page = gallery.table({1: gallery.run("wrong", work, examples)}, systems, gallery.rows(both))
    before, after = gallery.rows(both), gallery.rows(page)
    assert list(after) == [1, 2]
    assert after[2] == before[2]
    assert after[1] != before[1]
    assert page.endswith("![wrong](wrong.png)\n\n## right\n\n![right](right.png)\n")
    assert gallery.rows(gallery.table({}, {2: "right"}, before)) == {2: before[2]}


def test_an_example_says_where_its_recordings_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "deep_sea" / "demo.py")
    monkeypatch.setitem(gallery.RECORDINGS, "deep_sea", "hydrophones")
    command = ["demo.py", "--out", str(tmp_path / "out"), "--data", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        gallery.options(file)
    assert f"no recordings in {tmp_path / 'hydrophones'}" in capsys.readouterr().err
    (tmp_path / "hydrophones").mkdir()
    assert gallery.options(file).data == tmp_path
    monkeypatch.setattr(sys, "argv", [*command, "--data", "nowhere", "--smoke"])
    assert gallery.options(file).smoke


def test_an_old_result_does_not_stand_for_a_new_failure(examples: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    gallery.run("right", work, examples)
    (examples / "right" / "demo.py").write_text(DEMO.format(holds="False"))
    assert gallery.run("right", work, examples)["result"] is None


def test_the_committed_page_has_every_system() -> None:
    page, readme = ((ROOT / "examples" / name).read_text() for name in ("results/gallery.md", "README.md"))
    for row, system in gallery.SYSTEMS.items():
        assert f"| {row} | [{system}](../{system}/demo.py) | " in page
        assert (ROOT / "examples" / "results" / f"{system}.png").stat().st_size < 150_000
        assert f"]({system})" in readme
    assert "did not hold" not in page


def test_results_say_what_was_claimed_and_found(tmp_path: Path) -> None:
    gallery.Result("a claim", "2 [1, 3]", "4").write(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "claim": "a claim", "found": "2 [1, 3]", "baseline": "4",
    }  # fmt: skip
    assert gallery.shown([0.12345, 1.0, 20.0]) == "1 [0.123, 20]"


OTHERWISE = {  # by system: the simulator, and what it plants instead of what the example claims
    "input_attention": partial(simulate.attention, noise=20.0),
    "readout_valve": partial(simulate.valve, weight=0.0),
    "fading_memory": partial(simulate.delayed, noise=20.0),
    "synaptic_depression": partial(simulate.depression, tau=0.06),
    "dynamical_systems": partial(simulate.flip_flop, kept=0.7),
    "forgetting_curve": partial(simulate.forgetting, decay=60.0),
    "methylation_memory": partial(simulate.methylation, rate=0.2),
    "enhancer_decay": partial(simulate.enhancers, r=0.9),
    "clinical_gaps": partial(simulate.stays, informative=0.0),
    "next_click": partial(simulate.clicks, interest=0.0),
    "gait": partial(simulate.gait, load=0.0),
    "battery": partial(simulate.battery, memory=0.0),
    "monkey_reach": partial(simulate.reaches, tuning=0.0),
    "volatility": partial(simulate.market, effect=0.0),
    "batch_reactor": partial(simulate.reactor, react=0.0),
    "forecast_horizons": partial(simulate.autoregression, phi=0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("system", OTHERWISE)
def test_an_example_whose_planted_number_is_another_fails(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo, simulator = importlib.import_module(f"examples.{system}.demo"), OTHERWISE[system]
    monkeypatch.setattr(sys, "argv", ["demo.py", "--smoke", "--out", str(tmp_path)])
    monkeypatch.setattr(demo, simulator.func.__name__, simulator)
    with pytest.raises(AssertionError, match=r"should (be|hold) "):
        demo.main()
    assert not (tmp_path / "result.json").exists()
