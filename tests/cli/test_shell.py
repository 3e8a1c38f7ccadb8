"""The command line: what Python users have, in a shell, with one line for every mistake."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import latentrnn as lr
from latentrnn_shell import load_parser, main
from tests.study.test_files import LINEAR, MODEL, table, written_study

ROOT = Path(__file__).resolve().parents[2]
DATA = ("--time", "t", "--group", "trial", "--observe", "y")
FIT = ("--steps", "6", "--fit", "stopping.every=3", "--valid", "0.2", "--test", "0.3", "--quiet")


def shell(*line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "latentrnn_shell", *line], cwd=cwd, env={"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fits of the same data, by the command line."""
    where = tmp_path_factory.mktemp("shell")
    table().to_csv(where / "trials.csv", index=False)
    (where / "mine.py").write_text(MODEL)
    (where / "linear.toml").write_text(LINEAR)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        assert main(["fit", "mine.py", "trials.csv", *DATA, *FIT, "--set", "hidden=4", "--out", "a"]) == 0
        assert main(["fit", "linear.toml", "trials.csv", *DATA, *FIT]) == 0
    return where


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def answered(capsys: pytest.CaptureFixture[str], *line: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*line, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_help_comes_without_torch() -> None:
    program = (
        "import sys, latentrnn_shell\n"
        "try: latentrnn_shell.main([{!r}, '--help'][-1 - {}:])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not [name for name in ('torch', 'numpy', 'latentrnn') if name in sys.modules]"
    )
    for command, words in (("", 0), ("fit", 1), ("study", 1)):
        run = subprocess.run(
            [sys.executable, "-c", program.format(command, words)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "usage: latentrnn" in run.stdout


def test_every_command_has_an_example_that_parses() -> None:
    module = load_parser()
    [commands] = [action for action in module.parser()._actions if action.choices]
    assert set(commands.choices) == {
        "fit", "compare", "study", "report", "forecast", "info", "demo", "completion",
    }  # fmt: skip
    for name, one in commands.choices.items():
        lines = [line.split("    #")[0].strip() for line in one.epilog.splitlines() if "latentrnn " in line]
        assert lines, name
        for line in lines:
            if "$(" not in line:
                assert module.parse(line.split()[1:]).command == name


@pytest.mark.parametrize("page", ["README.md", "docs/howto/shell.md", "docs/howto/studies.md"])
def test_lines_that_pages_show_parse(page: str) -> None:
    text = (ROOT / page).read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("latentrnn ")]
    for line in lines:
        load_parser().parse(shlex.split(line, comments=True)[1:])
    assert lines or page != "docs/howto/shell.md"


def test_a_shell_fits_and_says_so_as_json(folder: Path) -> None:
    line = ["fit", "mine.py:plain", "trials.csv", *DATA, *FIT, "--out", "b", "--seed", "3", "--json"]
    run = shell(*line, cwd=folder)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    result = lr.load(folder / "b")
    assert found["bound"] == max(result.history["validation_elbo"])
    assert found["parts"] == {"train": 10, "valid": 4, "test": 6}
    assert result.seed == found["seed"] == 3


def test_the_fit_is_that_of_python(here: Path) -> None:
    data = lr.SequenceData.from_dataframe(table(), ["y"], time="t", group="trial")
    train, valid, _ = data.split(0.5, 0.2, 0.3, seed=0)
    heads = {"y": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(1), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(64, direction="bidirectional"))
    expected = lr.fit(model, guide, train, valid, steps=6, stopping=lr.EarlyStopping(every=3), seed=0)
    found = lr.load(here / "a")
    assert found.history == expected.history
    assert found.used == expected.used


def test_the_same_line_goes_on_where_it_was(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = lr.load(here / "a").history
    assert main(["fit", "mine.py", "trials.csv", *DATA, *FIT, "--set", "hidden=4", "--out", "a"]) == 0
    assert lr.load(here / "a").history == before
    capsys.readouterr()
    assert main(["fit", "mine.py", "trials.csv", *DATA, *FIT, "--set", "hidden=5", "--out", "a"]) == 2
    assert "a holds a fit of another model or other data" in capsys.readouterr().err


def test_compare(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answered(capsys, "compare", "a", "runs/linear", "--kind", "iwae", "--plot", "figures/compare.png")
    assert {row["run"] for row in found["table"]} == {"a", "linear"}
    test = lr.SequenceData.from_dataframe(table(), ["y"], time="t", group="trial").split(0.5, 0.2, 0.3, seed=0)[2]
    posteriors = {"a": lr.load("a").posterior(test), "linear": lr.load("runs/linear").posterior(test)}
    with pytest.warns(UserWarning, match="not to be believed"):  # of so few steps
        expected = lr.compare(posteriors, kind="iwae")
    assert [row["run"] for row in found["table"]] == list(expected.index)
    assert [row["dse"] for row in found["table"]] == list(expected["dse"])
    assert (here / "figures" / "compare.png").stat().st_size > 1000
    ahead = answered(capsys, "compare", "a", "runs/linear", "--ahead", "y", "--block-length", "2")
    assert ahead["unit"].startswith("block")


def test_report_forecast_info(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(answered(capsys, "report", "a", "--samples", "20", "--title", "A & B")["path"])
    assert "<title>A &amp; B</title>" in page.read_text()
    told = answered(capsys, "forecast", "a", "--horizon", "3", "--samples", "20", "--out", "next.csv", "--prob", "0.8")
    frame = pd.read_csv(here / "next.csv")
    assert len(frame) == len(told["forecast"]) == 20 * 3
    assert {"mean", "10%", "90%"} <= set(frame.columns)
    assert list(frame["frame"][:3]) == [1, 2, 3]
    about = answered(capsys, "info", "a")
    assert about["equations"][1] == "h_t = GRU(h_{t-1}, u_t)"
    assert about["model"].endswith("mine.py:model")
    columns = answered(capsys, "info", "trials.csv")["columns"]
    assert [row["column"] for row in columns] == ["trial", "t", "y", "site"]
    assert answered(capsys, "info")["versions"]["latentrnn"]


def test_covariates_to_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=60)
    load = rng.normal(size=60)
    frame = pd.DataFrame({"day": days, "heat": 2 * load + 0.1 * rng.normal(size=60), "load": load})
    frame.to_csv("pump.csv", index=False)
    (tmp_path / "pump.toml").write_text(LINEAR.replace("observations.y", "observations.heat"))
    line = ["fit", "pump.toml", "pump.csv", "--time", "day", "--observe", "heat", "--covariate", "load", "--quiet"]
    found = answered(capsys, *line, "--steps", "20", "--out", "pump")
    assert found["parts"] == {"train": 1, "valid": 1, "test": 1}  # of one recording, one stretch after the other
    ahead = pd.DataFrame({"day": pd.date_range("2024-03-01", periods=4), "load": [0.0, 3.0, -3.0, 0.0]})
    ahead.to_csv("ahead.csv", index=False)
    told = answered(capsys, "forecast", "pump", "--horizon", "4", "--future", "ahead.csv", "--samples", "50")[
        "forecast"
    ]
    assert [row["date"][:10] for row in told] == ["2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04"]
    data = lr.datasets.data_file("pump.csv", {"heat": ["heat"]}, {"load": ["load"]}, time="day")
    covariates = {"load": np.array([[[0.0], [3.0], [-3.0], [0.0]]])}
    expected = lr.load("pump").posterior(data).forecast(4, covariates, num_samples=50).to_dataframe()
    assert [row["mean"] for row in told] == pytest.approx(list(expected["mean"]))
    capsys.readouterr()
    assert main(["forecast", "pump", "--horizon", "5", "--future", "ahead.csv"]) == 2
    assert "expected 5 steps of 'load' of every sequence" in capsys.readouterr().err


def test_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    path = written_study(tmp_path)
    path.write_text(path.read_text().replace('linear = "linear.toml"\n', ""))
    assert answered(capsys, "study", str(path), "--status")["status"] == {}
    found = answered(capsys, "study", str(path), "--quiet")
    assert found["status"] == {"complete": 6}
    assert {row["configuration"] for row in found["table"]} == {"gru, hidden=2", "gru, hidden=3", "plain"}
    # its runs are taken by the other commands
    runs = [str(tmp_path / "sweep" / "runs" / f"gru-hidden={size}-seed=0") for size in (2, 3)]
    names = {row["run"] for row in answered(capsys, "compare", *runs, "--kind", "iwae")["table"]}
    assert names == {"gru-hidden=2-seed=0", "gru-hidden=3-seed=0"}
    assert answered(capsys, "info", runs[0])["equations"]


def test_a_diverging_fit_ends_with_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = ("--fit", "optimizer.learning_rate=1e20", "--fit", "optimizer.schedule={class='Constant'}")
    line = ["fit", "mine.py", "trials.csv", *DATA, "--steps", "60", "--quiet", *rates, "--out", "diverged"]
    assert main(line) == 1
    said = capsys.readouterr()
    assert "loss at step" in said.out + said.err
    assert "Traceback" not in said.err


MISTAKES = {
    "no such file": (["fit", "mine.py", "trial.csv", *DATA], "no file"),
    "no such model": (["fit", "yours.py", "trials.csv", *DATA], "model file: no file yours.py"),
    "no such function": (["fit", "mine.py:gru", "trials.csv", *DATA], "expected a function gru(data)"),
    "no such column": (["fit", "mine.py", "trials.csv", "--observe", "z"], "found 'z'"),
    "nothing observed": (["fit", "mine.py", "trials.csv"], "say which of trials.csv is observed"),
    "a head twice": (["fit", "mine.py", "trials.csv", "--observe", "y", "--observe", "y=t"], "every name once"),
    "no such setting": (["fit", "mine.py", "trials.csv", *DATA, "--set", "size=3"], "takes no setting ['size']"),
    "no such part": (["fit", "linear.toml", "trials.csv", *DATA, "--set", "cell.size=3"], "there is no table 'cell'"),
    "no such field": (["fit", "mine.py", "trials.csv", *DATA, "--fit", "optimizer.lr=1"], "AdamW has no field 'lr'"),
    "a wrong value": (["fit", "mine.py", "trials.csv", *DATA, "--steps", "-3"], "steps must be"),
    "parts of nothing": (["fit", "mine.py", "trials.csv", *DATA, "--valid", ".9", "--test", ".9"], "below 1"),
    "another head": (["fit", "other.py", "trials.csv", *DATA], "'x'"),
    "a model that raises": (["fit", "raises.py", "trials.csv", *DATA], "KeyError: 'why' (" ),
    "a model that is none": (["fit", "none.py", "trials.csv", *DATA], "must return a LatentRNN"),
    "no Python": (["fit", "syntax.py", "trials.csv", *DATA], "syntax.py, line 1"),
    "no fit": (["report", "runs"], "no fit of `latentrnn fit`"),
    "no folder": (["forecast", "c", "--horizon", "2"], "no folder c"),
    "one alone": (["compare", "a"], "a comparison needs at least 2"),
    "twice the same": (["compare", "a", "a"], "expected every run once"),
    "no study": (["study", "study.toml"], "no file study.toml"),
    "no covariates": (["forecast", "a", "--horizon", "2", "--future", "trials.csv"], "have no covariates"),
    "no path": (["info", "nowhere"], "no file or folder nowhere"),
    "a horizon of nothing": (["forecast", "a", "--horizon", "0"], "horizon"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "raises.py").write_text("def model(data):\n    return {}['why']\n")
    (here / "none.py").write_text("def model(data):\n    return None\n")
    (here / "syntax.py").write_text("def model(data:\n")
    (here / "other.py").write_text(MODEL.replace('{"y"', '{"x"'))
    line, message = MISTAKES[name]
    capsys.readouterr()
    assert main(line) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith(f"latentrnn {line[0]}: error: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("line", [["fits"], ["fit", "mine.py"], ["fit", "a.py", "b.csv", "--set", "x"], []])
def test_a_wrong_option_ends_with_two(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(line)
    assert end.value.code == 2
    assert "usage: latentrnn" in capsys.readouterr().err


def test_completion(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("shtab")
    for name in ("bash", "zsh", "tcsh"):
        assert main(["completion", name]) == 0
        assert "forecast" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "latentrnn[shell]" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_shows_every_command(tmp_path: Path) -> None:
    run = shell("demo", "--out", "tour", "--steps", "20", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for command in ("info", "fit", "compare", "report", "forecast"):
        assert f"$ latentrnn {command} " in run.stdout
    assert (tmp_path / "tour" / "gru" / "report.html").is_file()
