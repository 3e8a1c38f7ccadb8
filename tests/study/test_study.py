"""Comparison runs: nothing finished is lost or done twice, pruned runs stop, and differences are paired."""

from __future__ import annotations

import json
import math
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import latentrnn as lr
from latentrnn.study.runs import Pruner
from latentrnn.study.table import compared
from tests.study.sweeps import DIES_AT, STEPS, linear, rnn, study, walks

optuna = pytest.importorskip("optuna")
ROOT = Path(__file__).resolve().parents[2]
SLOW_START = 200  # seconds, for processes that import torch side by side


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.study.sweeps", str(folder), *words], cwd=ROOT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> lr.Study:
    return study(tmp_path_factory.mktemp("study") / "walks").run(progress=False)


def test_every_run_is_a_folder(finished: lr.Study) -> None:
    frame = finished.to_dataframe()
    assert set(frame.index) == {
        "rnn-hidden=2-seed=0", "rnn-hidden=2-seed=1", "rnn-hidden=3-seed=0", "rnn-hidden=3-seed=1", "linear-seed=0",
        "linear-seed=1",
    }  # fmt: skip
    assert set(frame["status"]) == {"complete"}
    folder = finished.folder / "runs" / "rnn-hidden=3-seed=1"
    assert {"run.json", "scores.json", "metrics.csv", "latentrnn.json"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "run.json").read_text()) == {"model": "rnn", "seed": 1, "settings": {"hidden": 3}}
    result = finished.load("rnn-hidden=3-seed=1")
    assert result.model.transition.hidden_size == 3
    assert result.seed == 1
    # the objective is the best bound of the validation sequences
    assert frame.loc["rnn-hidden=3-seed=1", "objective"] == max(result.history["validation_elbo"])
    assert finished.best().seed == frame.loc[frame["objective"].idxmax(), "seed"]


def test_differences_are_paired_as_by_hand(finished: lr.Study) -> None:
    """From the fits themselves: mean over seeds of each sequence's evidence, differences sequence by sequence."""
    test = walks()[2]
    runs = {
        "linear": ["linear-seed=0", "linear-seed=1"],
        "rnn, hidden=2": ["rnn-hidden=2-seed=0", "rnn-hidden=2-seed=1"],
        "rnn, hidden=3": ["rnn-hidden=3-seed=0", "rnn-hidden=3-seed=1"],
    }
    values = {
        name: torch.stack([finished.load(key).posterior(test).evidence("exact").values.double() for key in keys])
        for name, keys in runs.items()
    }
    table = finished.table()
    order = sorted(values, key=lambda name: -float(values[name].mean(0).sum()))
    assert list(table.index) == order
    best = values[order[0]]
    for name in order:
        difference = best.mean(0) - values[name].mean(0)
        assert table.loc[name, "elpd_diff"] == pytest.approx(float(difference.sum()), abs=1e-6)
        spread = math.sqrt(len(test)) * float(difference.std(correction=0))
        assert table.loc[name, "dse"] == pytest.approx(spread, abs=1e-6)
        if name != order[0]:
            over_seeds = sum(float(each.sum(1).var()) / 2 for each in (best, values[name]))
            assert table.loc[name, "seed_se"] == pytest.approx(math.sqrt(over_seeds), rel=1e-6)
    assert list(table["runs"]) == [2, 2, 2]
    assert list(table["pruned"]) == [0, 0, 0]
    model = finished.load("rnn-hidden=3-seed=0").model
    assert table.loc["rnn, hidden=3", "parameters"] == sum(p.numel() for p in model.parameters())
    assert (table["seconds"] > 0).all()


def test_it_shows_what_came(finished: lr.Study) -> None:
    assert repr(finished).endswith("6 runs of 2 models, 2 seeds, hidden in [2, 3])")
    html = finished._repr_html_()
    assert "6 complete" in html
    assert "rnn, hidden=3" in html
    ax = finished.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == list(finished.table().index[::-1])


def test_nothing_is_done_twice(finished: lr.Study) -> None:
    before = len(finished.optuna().trials)
    files = {path: path.stat().st_mtime_ns for path in finished.folder.glob("runs/*/scores.json")}
    again = study(finished.folder).run(progress=False)
    assert len(again.optuna().trials) == before == 6
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())


def test_a_study_grows_but_does_not_change_its_data_or_its_fit(tmp_path: Path) -> None:
    small = {"settings": {"hidden": [2]}, "seeds": [0]}
    study(tmp_path, **small).run(progress=False)
    frame = study(tmp_path, **{**small, "seeds": [0, 5]}).run(progress=False).to_dataframe()
    assert list(frame["seed"]) == [0, 0, 5, 5]
    with pytest.raises(ValueError, match="was begun with fit"):
        study(tmp_path, **small, fit={"steps": 3}).run(progress=False)
    train, valid, test = walks()
    with pytest.raises(ValueError, match="was begun with test"):
        lr.Study(tmp_path, {"rnn": rnn}, train, valid, test[:6], fit=study(tmp_path).fit).run(progress=False)


@pytest.mark.slow
def test_killed_and_resumed_loses_nothing(tmp_path: Path) -> None:
    killed = start(tmp_path, "die")
    assert killed.wait(SLOW_START) == -signal.SIGKILL
    [done] = tmp_path.glob("runs/*/scores.json")
    time = done.stat().st_mtime_ns
    left = study(tmp_path)
    statuses = left.to_dataframe()["status"]
    assert sorted(statuses) == ["complete", "running", "waiting", "waiting", "waiting", "waiting"]
    interrupted = statuses.index[statuses == "running"][0]
    frame = left.run(progress=False).to_dataframe()
    assert set(frame["status"]) == {"complete"}
    assert len(frame) == 6
    assert done.stat().st_mtime_ns == time
    # it went on, rather than beginning again, and ended where an undisturbed one ends
    assert any("resumed" in event for event in left.load(interrupted).events)
    steps = left.load(interrupted).history["step"]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS - 1 > DIES_AT
    states = [trial.state.name for trial in left.optuna().trials]
    assert states.count("COMPLETE") == 6
    assert states.count("FAIL") == 1


@pytest.mark.slow
def test_processes_share_the_runs(tmp_path: Path) -> None:
    workers = [start(tmp_path), start(tmp_path)]
    assert [worker.wait(SLOW_START) for worker in workers] == [0, 0]
    shared = study(tmp_path)
    keys = [trial.user_attrs["run"] for trial in shared.optuna().trials if trial.state.name == "COMPLETE"]
    assert sorted(keys) == sorted(shared.space.grid)
    # those that found their run taken ended without having run
    rest = [trial for trial in shared.optuna().trials if trial.state.name != "COMPLETE"]
    assert all(trial.user_attrs.get("surplus") for trial in rest)
    assert len(rest) <= 1


def test_studies_share_a_database(tmp_path: Path) -> None:
    """One of any URL that Optuna takes, where folders tell studies apart."""
    given: dict[str, Any] = {"storage": f"sqlite:///{tmp_path}/all.db", "settings": {}, "seeds": [0]}
    one = study(tmp_path / "one", **given).run(progress=False)
    two = study(tmp_path / "two", **given, name="another").run(progress=False)
    assert set(optuna.get_all_study_names(given["storage"])) == {"another", "one"}
    assert len(one.to_dataframe()) == len(two.to_dataframe()) == 2
    assert not (tmp_path / "one" / "study.db").exists()


def test_a_study_goes_to_other_processes(tmp_path: Path) -> None:
    copy = pickle.loads(pickle.dumps(study(tmp_path, pruner=optuna.pruners.MedianPruner())))
    assert repr(copy) == repr(study(tmp_path))


@pytest.mark.slow
def test_workers_of_one_call(tmp_path: Path) -> None:
    frame = study(tmp_path).run(workers=2, progress=False).to_dataframe()
    assert list(frame["status"]) == ["complete"] * 6


class EndsTheSecond(optuna.pruners.BasePruner):  # type: ignore[misc]
    """Ends every run but the first, at its first evaluation after step 5."""

    def prune(self, study: Any, trial: Any) -> bool:
        return bool(trial.number > 0 and trial.last_step is not None and trial.last_step > 5)


def test_a_pruned_run_stops_early(tmp_path: Path) -> None:
    given = {"settings": {}, "seeds": [0, 1], "pruner": EndsTheSecond()}
    pruned = study(tmp_path, **given).run(progress=False)
    frame = pruned.to_dataframe()
    assert list(frame["status"]) == ["complete", "pruned", "pruned", "pruned"]
    steps = [int(trial.last_step) for trial in pruned.optuna().trials]
    assert steps[0] == STEPS - 1
    assert steps[1:] == [7, 7, 7]
    result = pruned.load(frame.index[1])
    assert result.history["step"][-1] < STEPS - 1
    # it is not compared, but counted
    outcomes = [*pruned._outcomes(), *pruned._outcomes()]
    outcomes[1] = replace(outcomes[1], run=replace(outcomes[1].run, model="another"))
    runs = [pruned._run_of(trial) for trial in pruned._with_status("pruned")]
    assert compared(outcomes, runs, "stacking")["pruned"].to_dict() == {"rnn": 1, "another": 0}
    assert "rnn" in frame.index[0]
    with pytest.raises(ValueError, match="at least 2 configurations with a finished run; found \\['rnn'\\]"):
        pruned.table()


def test_a_pruner_of_optuna_ends_what_is_worse_than_the_others(tmp_path: Path) -> None:
    """Learning rates that learn nothing fall below the median of those that do."""
    given = {
        "settings": {"optimizer.learning_rate": [0.05, 0.04, 0.06, 1e-6]}, "seeds": [0],
        "pruner": optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=3),
    }  # fmt: skip
    train, valid, test = walks()
    fit = {"steps": 30, "batch_size": 8, "stopping.every": 10}
    found = lr.Study(tmp_path, {"linear": linear}, train, valid, test, fit=fit, heartbeat=1, **given).run(
        progress=False
    )
    frame = found.to_dataframe()
    assert frame.loc["linear-optimizer.learning_rate=1e-06-seed=0", "status"] == "pruned"
    assert set(found.table()["pruned"]) == {0}  # of configurations with a run that was left
    assert (frame["status"] == "complete").sum() >= 1


def test_settings_are_drawn(tmp_path: Path) -> None:
    settings = {
        "hidden": optuna.distributions.IntDistribution(2, 4),
        "optimizer.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
        "optimizer": {"decayed": lr.AdamW(), "plain": lr.Adam()},
    }
    given = {"settings": settings, "trials": 5, "sampler": optuna.samplers.RandomSampler(seed=1)}
    drawn = study(tmp_path, **given).run(progress=False)
    frame = drawn.to_dataframe()
    assert list(frame["status"]) == ["complete"] * 5
    assert list(frame["seed"]) == [0, 1, 0, 1, 0]
    assert frame["optimizer.learning_rate"].between(1e-3, 1e-1).all()
    assert frame["optimizer.learning_rate"].nunique() == 5
    assert set(frame["optimizer"]) <= {"decayed", "plain"}
    # what does not matter to a model is not drawn for it
    assert frame.loc[frame["model"] == "linear", "hidden"].isna().all()
    assert frame.loc[frame["model"] == "rnn", "hidden"].between(2, 4).all()
    rates = {key: drawn.load(key).settings["optimiser"]["learning_rate"] for key in frame.index}
    assert rates == frame["optimizer.learning_rate"].to_dict()
    more = study(tmp_path, **{**given, "trials": 7}).run(progress=False).to_dataframe()
    assert len(more) == 7


class InterruptsOnce:
    """As Ctrl-C in the middle of the third fit."""

    def __init__(self) -> None:
        self.fits = 0

    def __call__(self, progress: lr.Progress, /) -> None:
        self.fits += progress.kind == "report" and progress.step < 2
        if self.fits == 3 and progress.step >= DIES_AT:
            self.fits += 1
            raise KeyboardInterrupt


@pytest.mark.parametrize("trials", [None, 4])
def test_an_interrupted_run_goes_on(tmp_path: Path, trials: int | None) -> None:
    reporting = lr.Reporting(progress=False, every=2, callbacks=[InterruptsOnce()])
    fit = {"steps": STEPS, "batch_size": 8, "stopping.every": 4, "reporting": reporting}
    given: dict[str, Any] = {"fit": fit, "trials": trials, "seeds": [0, 1]}
    if trials is not None:
        given["settings"] = {"hidden": {"low": 2, "high": 5}}
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, **given).run(progress=False)
    before = study(tmp_path, **given).to_dataframe()
    assert list(before["status"][:3]) == ["complete", "complete", "died"]
    frame = study(tmp_path, **given).run(progress=False).to_dataframe()
    assert set(frame["status"]) == {"complete"}
    assert len(frame) == (4 if trials else 6)
    assert frame.index[2] == before.index[2]
    assert any("resumed" in event for event in study(tmp_path, **given).load(frame.index[2]).events)


def test_a_label_means_what_it_meant(tmp_path: Path) -> None:
    def labelled(**optimizers: lr.AdamW) -> lr.Study:
        return study(tmp_path, settings={"optimizer": optimizers}, seeds=[0], fit={"steps": 2, "batch_size": 8})

    labelled(slow=lr.AdamW(1e-3)).run(progress=False)
    labelled(slow=lr.AdamW(1e-3), fast=lr.AdamW(1e-2)).run(progress=False)
    with pytest.raises(ValueError, match="was begun with optimizer=slow"):
        labelled(slow=lr.AdamW(1e-4)).run(progress=False)


def test_a_worker_ends_with_whoever_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        @staticmethod
        def is_alive() -> bool:
            return False

    monkeypatch.setattr("multiprocessing.parent_process", Gone)
    with pytest.raises(SystemExit):
        Pruner(None)(lr.Progress("report", 0, {}, {}, 0.0, 0))


def broken(data: Any, hidden: int = 2) -> lr.LatentRNN:
    if hidden == 3:
        raise ValueError("no model of 3")
    return rnn(data, hidden)


def test_a_run_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    train, valid, test = walks()
    fit = {"steps": 3, "batch_size": 8}
    given: dict[str, Any] = {"settings": {"hidden": [3, 2]}, "fit": fit, "heartbeat": 1}
    half = lr.Study(tmp_path / "half", {"rnn": broken}, train, valid, test, **given)
    with pytest.warns(RuntimeWarning, match="1 of 2 runs failed, the first, rnn-hidden=3-seed=0: ValueError: no model"):
        frame = half.run(progress=False).to_dataframe()
    assert list(frame["status"]) == ["failed", "complete"]
    with pytest.warns(RuntimeWarning, match="1 of 2"):  # not done again, unless that is asked for
        half.run(progress=False)
    assert len(half.optuna().trials) == 2
    with pytest.warns(RuntimeWarning, match="1 of 2"):
        half.run(progress=False, retry=True)
    assert len(half.optuna().trials) == 3
    whole = lr.Study(tmp_path / "whole", {"rnn": broken}, train, valid, test, **(given | {"settings": {"hidden": [3]}}))
    with pytest.raises(RuntimeError, match="1 of 1 runs failed"):
        whole.run(progress=False)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"settings": {"hidden": {"low": 2, "high": 4}}}, ValueError, "is a range, which is drawn from; say how many"),
        ({"settings": {"size": [2]}}, ValueError, "'size' is no argument of a model's function, nor of the fit"),
        ({"settings": {"seed": [2]}}, ValueError, "'seed' has an argument of its own, seeds="),
        ({"settings": {"hidden": [lr.GRU(2)]}}, TypeError, "give such a value a label"),
        ({"settings": {"hidden": []}}, ValueError, "at least one value"),
        ({"settings": {"hidden": [2, 2]}}, ValueError, "every value once"),
        ({"settings": {"hidden": {"low": 3, "high": 2}}, "trials": 2}, ValueError, "low < high"),
        ({"settings": [2]}, TypeError, "settings must be a dict"),
        ({"seeds": [1, 1]}, ValueError, "each once"),
        ({"fit": {"stepz": 2}}, ValueError, "unknown setting 'stepz' of the fit"),
        ({"fit": {"optimizer.rate": 2}}, ValueError, "AdamW has no field 'rate'"),
        ({"fit": {"objective": {"class": "Elbo"}}}, ValueError, "expected a class of"),
        ({"fit": {"seed": 2}}, ValueError, "unknown setting 'seed'"),
        ({"kind": "elbo"}, ValueError, "kind"),
        ({"trials": 0}, ValueError, "trials"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        study(tmp_path, **changes)


def test_test_sequences_are_of_no_fit(tmp_path: Path) -> None:
    train, valid, test = walks()
    with pytest.raises(ValueError, match="5 test sequences are train sequences too"):
        lr.Study(tmp_path, {"rnn": rnn}, train, valid, train[:5])
    with pytest.raises(TypeError, match="models\\['rnn'\\] must be a function of the data, a LatentRNN"):
        lr.Study(tmp_path, {"rnn": lr.GRU}, train, valid, test)
    with pytest.raises(ValueError, match="no sequences to compare on"):
        lr.Study(tmp_path, {"rnn": rnn}, train, valid).table()


def test_parts_of_a_fit_from_plain_values(tmp_path: Path) -> None:
    fit = {"objective": {"class": "IWAE", "num_particles": 3}, "optimizer": {"schedule": {"class": "Constant"}}}
    one = study(tmp_path, fit={**fit, "steps": 4, "objective.num_particles": 5}, settings={}, seeds=[0])
    settings = one.run(progress=False).best().settings
    assert settings["objective"]["class"] == "IWAE"
    assert settings["num_particles"] == 5
    assert settings["learning_rate_schedule"]["class"] == "Constant"


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError, match="latentrnn\\[study\\]"):
        study(tmp_path).run(progress=False)
