"""A fit that was killed goes on bit for bit, and never from a checkpoint that is damaged or another fit's."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.fitting.checkpoints import unfinished
from latentrnn.inference.fitting.checkpoints.unfinished import unfinished_files
from latentrnn.inference.fitting.distributed.processes import ProcessLost, SingleProcess
from tests.inference.fitting import driven_counts
from tests.inference.fitting.driven_counts import assert_same
from tests.inference.fitting.mishaps import Killed, WarmUp, before_steps, dying, interrupting, never

STEPS = 18
make_data = partial(driven_counts.make_data, 14, dtype=torch.float32)
DATA, VALIDATION = make_data(), driven_counts.make_data(5, seed=1, dtype=torch.float32)


def fit(data: lr.SequenceData = DATA, validation: lr.SequenceData | None = VALIDATION, **settings: Any) -> lr.FitResult:
    parts = {"transition": lr.GRU(4), "latent": lr.Innovations(2), "head": lr.Poisson(), "guide": {}}
    parts |= {name: settings.pop(name) for name in list(settings) if name in parts}
    model = lr.LatentRNN(
        data.spec, transition=parts["transition"], latent=parts["latent"], observations={"y": parts["head"]}
    )
    guide = lr.Guide(model, **({"encoder": lr.RNNEncoder(3)} | parts["guide"]))
    defaults = {
        "steps": STEPS,
        "batch_size": 4,
        "stopping": lr.EarlyStopping(every=3),
        "reporting": lr.Reporting(progress=False, every=2),
        "compute": lr.Compute(device="cpu"),
    }
    objective = settings.pop("objective", lr.ELBO())
    settings["objective"] = dataclasses.replace(objective, kl=WarmUp(objective.kl.fraction, objective.kl.start))
    return lr.fit(model, guide, data, validation, **(defaults | settings))


def kill(monkeypatch: pytest.MonkeyPatch, at: int, **settings: Any) -> None:
    """Run a fit that dies in step `at`."""
    with monkeypatch.context() as patch:
        before_steps(patch, dying(at))
        with pytest.raises(Killed):
            fit(**settings)


def differs(found: lr.FitResult, expected: lr.FitResult) -> bool:
    pairs = zip(found.model.state_dict().values(), expected.model.state_dict().values(), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs) or found.history != expected.history


# -- bit for bit ---------------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "defaults": dict,
    "without validation": lambda: {"validation": None, "reporting": lr.Reporting(progress=False, every=5)},
    "one batch": lambda: {"batch_size": 64},
    "cosine": lambda: {"optimizer": lr.AdamW(schedule=lr.Cosine(rise=10)), "objective": lr.ELBO(kl=lr.KLWarmUp(0.9))},
    "plateau": lambda: {
        "stopping": lr.EarlyStopping(every=1, patience=None),
        "optimizer": lr.Adam(learning_rate=0.3, schedule=lr.Plateau(patience=1)),
        "objective": lr.ELBO(kl=lr.KLWarmUp(0.0)),
    },
    "early stopping": lambda: {
        "optimizer": lr.Adam(learning_rate=0.05),
        "stopping": lr.EarlyStopping(every=1, patience=2),
        "objective": lr.ELBO(kl=lr.KLWarmUp(0.0)),
    },
    "averaging": lambda: {"optimizer": lr.AdamW(averaging=0.9)},
    "coordinated dropout": lambda: {"objective": lr.ELBO(coordinated_dropout=0.3)},
    "particles": lambda: {"objective": lr.ELBO(num_particles=3)},
    "iwae": lambda: {"objective": lr.IWAE(num_particles=3)},
    "double": lambda: {"data": make_data(dtype=torch.float64), "validation": None},
    "dropout": lambda: {"transition": lr.GRU(4, layers=2, dropout=0.3)},
    "zoneout": lambda: {"transition": lr.LSTM(4, zoneout=0.3)},
    "leaky": lambda: {"transition": lr.LeakyIntegrator(4)},
    "markov": lambda: {"transition": lr.VanillaRNN(4), "latent": lr.MarkovNormal()},
    "recurrent": lambda: {"latent": lr.RecurrentNormal(2)},
    "switch": lambda: {"latent": lr.RelaxedDiscrete(2)},
    "chain": lambda: {"guide": {"family": lr.GaussianChain()}},
    "flow": lambda: {"guide": {"family": lr.Flow(lr.MeanField(), layers=1, hidden_size=4)}},
    "per sequence": lambda: {"guide": {"encoder": None, "family": lr.PerSequence(lr.MeanField())}, "validation": None},
    "priors": lambda: {"head": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})},
    "network prior": lambda: {
        "transition": lr.LSTM(4, priors={"weights": lr.NetworkPrior()}),
        "guide": {"global_family": "low_rank", "global_rank": 3},
    },
    "feedback": lambda: {"head": lr.Poisson(feedback=lr.History(2))},
    "start": lambda: {"start_from": fit(steps=2)},
}


FAST = ("defaults", "plateau", "early stopping", "averaging", "coordinated dropout", "dropout")


@pytest.mark.parametrize(
    "kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_killed_fit_goes_on_bit_for_bit(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = KINDS[kind]()
    expected = fit(**settings)
    end = expected.history["validation_step"][-1] if kind == "early stopping" else STEPS - 1
    assert end > 10
    kept = partial(lr.Checkpointing, tmp_path / "gru", resume=True)
    # the first checkpoint alone, then one after every step; the newest is lost, as if the last write had not ended
    kill(monkeypatch, 5, checkpointing=kept(every=1e9), **settings)
    kill(monkeypatch, end - 1, checkpointing=kept(every=0), **settings)
    unfinished_files(tmp_path / "gru")[-1].unlink()
    torch.manual_seed(3)  # nothing global matters
    result = fit(checkpointing=kept(every=0), **settings)
    assert_same(result, expected)
    assert result.events == ["step 1: resumed", f"step {end - 2}: resumed"]
    # a fit that was finished is only read
    before_steps(monkeypatch, never)
    assert_same(fit(checkpointing=kept(), **settings), expected)


def test_early_stopping_is_reached() -> None:
    """What the cases above claim to cover."""
    assert fit(**KINDS["early stopping"]()).stop_reason.startswith("converged")
    rates = fit(**KINDS["plateau"]()).history["learning_rate"]
    assert rates[-1] < rates[0]


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    assert_same(fit(checkpointing=lr.Checkpointing(tmp_path, every=0)), fit())
    assert len(unfinished_files(tmp_path)) == 2


def leave_out(name: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Damage a state that is being read as a resume that forgot something would."""

    def forget(tensors: dict[str, Any], values: dict[str, Any]) -> None:
        if name == "moments":
            for key in [key for key in tensors if key.startswith("now/optimiser/")]:
                del tensors[key]
        elif name == "average":
            for key in [key for key in tensors if key.startswith("now/average/")]:
                tensors[key] = tensors[key.replace("now/", "good0/")].clone()
        elif name == "random state":
            tensors["random/cpu"] = torch.Generator().manual_seed(0).get_state()
        elif name == "order":
            tensors["random/order"] = torch.Generator().manual_seed(0).get_state()
        elif name == "stale":
            values["stale"] = 0
        else:
            values["position"] -= 1

    return forget


@pytest.mark.parametrize("name", ["moments", "average", "random state", "order", "position", "stale"])
def test_a_resume_that_forgot_something_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the tests above."""
    settings: dict[str, Any] = {
        "optimizer": lr.Adam(learning_rate=0.3, averaging=0.9, schedule=lr.Plateau(patience=1)),
        "objective": lr.ELBO(kl=lr.KLWarmUp(0.0)),
        "stopping": lr.EarlyStopping(every=1, patience=None),
    }
    expected = fit(**settings)
    elbos = expected.history["validation_elbo"]
    # killed right after an evaluation that was no better, in the middle of a pass
    at = 1 + next(i for i in range(9, STEPS) if elbos[i] < max(elbos[:i]) and (i + 1) % 4)
    kill(monkeypatch, at, checkpointing=lr.Checkpointing(tmp_path, every=0), **settings)
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert not differs(fit(checkpointing=lr.Checkpointing(tmp_path / "copy", resume=True), **settings), expected)
    forge(tmp_path, leave_out(name))
    assert differs(fit(checkpointing=lr.Checkpointing(tmp_path, resume=True), **settings), expected)


def test_an_interrupted_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fit()
    with monkeypatch.context() as patch:
        before_steps(patch, interrupting(9))
        result = fit(checkpointing=lr.Checkpointing(tmp_path, every=0))
    assert "resume=True" in result.stop_reason
    with pytest.raises(ValueError, match="holds a fit that is under way: go on with"):
        lr.load(tmp_path)
    result.save(tmp_path)  # to the same folder: neither gets in the other's way
    assert_same(fit(checkpointing=lr.Checkpointing(tmp_path, resume=True)), expected)
    assert lr.load(tmp_path).events == ["step 9: interrupted"]


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        *(("defaults", 0), ("plateau", 1), ("early stopping", -1), ("averaging", -1)),
        *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in ("defaults", "early stopping", "averaging")),
    ],
)
def test_an_evaluation_that_lost_a_process_is_made_up_for(
    kind: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = KINDS[kind]()
    expected = fit(**settings)
    evaluations = expected.history["validation_step"]
    at = range(len(evaluations))[at]
    left = iter(range(at))

    def add(self: SingleProcess, value: torch.Tensor) -> torch.Tensor:
        if next(left, None) is None:
            raise ProcessLost("process 1 of 2 is gone")
        return value

    with monkeypatch.context() as patch:
        patch.setattr(SingleProcess, "size", 2)
        patch.setattr(SingleProcess, "add", add)
        with pytest.raises(ProcessLost, match=f"at step {evaluations[at] + 1}; .* holds a checkpoint"):
            fit(checkpointing=lr.Checkpointing(tmp_path), **settings)
    assert_same(fit(checkpointing=lr.Checkpointing(tmp_path, resume=True), **settings), expected)


@pytest.mark.gpu
def test_a_killed_fit_goes_on_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {
        "optimizer": lr.AdamW(averaging=0.9),
        "compute": lr.Compute(device="cuda"),
        "objective": lr.ELBO(coordinated_dropout=0.3),
    }
    expected = fit(**settings)
    kill(monkeypatch, 13, checkpointing=lr.Checkpointing(tmp_path, every=0), **settings)
    result = fit(checkpointing=lr.Checkpointing(tmp_path, resume=True), **settings)
    assert result.events == ["step 12: resumed"]
    # kernels may add up in an order of their own, so that two undisturbed fits need not agree to the bit either
    for a, b in zip(result.model.state_dict().values(), expected.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# -- the same fit --------------------------------------------------------------------------------------------------


def test_only_what_was_begun_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(monkeypatch, 5, checkpointing=lr.Checkpointing(tmp_path, every=0))
    others: dict[str, tuple[dict[str, Any], str]] = {
        "data": ({"data": make_data(seed=2)}, "another train;"),
        "order": ({"data": DATA[[1, 0, *range(2, 14)]]}, "another train;"),
        "validation": ({"validation": driven_counts.make_data(6, seed=1, dtype=torch.float32)}, "another validation;"),
        "no validation": ({"validation": None}, "another validation;"),
        "model": ({"transition": lr.GRU(5)}, "another model;"),
        "guide": ({"guide": {"encoder": lr.RNNEncoder(4)}}, "another guide;"),
        "start": ({"start_from": fit(steps=1)}, "another start_from;"),
        "steps": ({"steps": 30}, "with steps 18; found 30; give what it was begun with"),
        "seed": ({"seed": 1}, "with seed 0; found 1;"),
        "schedule": ({"objective": lr.ELBO(kl=lr.KLWarmUp(0.3))}, "with kl .*0.2.*; found .*0.3"),
        "reports": ({"reporting": lr.Reporting(progress=False, every=3)}, "with report_every 2; found 3"),
        "precision": ({"data": make_data(dtype=torch.float64), "validation": None}, "another"),
    }
    for name, (settings, message) in others.items():
        with pytest.raises(ValueError, match=message):
            fit(checkpointing=lr.Checkpointing(tmp_path, resume=True), **settings)
        assert len(unfinished_files(tmp_path)) == 2, name
    again = fit(data=make_data(), checkpointing=lr.Checkpointing(tmp_path, resume=True))  # the same data, made again
    assert_same(again, fit())


def test_a_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    fit(steps=2, checkpointing=lr.Checkpointing(tmp_path / "a"))
    with pytest.raises(
        ValueError, match=r"holds the checkpoint of a fit, fit-000002-\w+.safetensors; go on with resume"
    ):
        fit(steps=2, checkpointing=lr.Checkpointing(tmp_path / "a"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a directory"):
        fit(checkpointing=lr.Checkpointing(tmp_path / "file"))
    for seconds in (-1, float("inf"), "often", True):
        with pytest.raises(ValueError, match="every must be a number of seconds"):
            fit(checkpointing=lr.Checkpointing(tmp_path / "b", every=seconds))
    assert not (tmp_path / "b").exists()


def test_other_surroundings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "1.0")
        kill(monkeypatch, 5, checkpointing=lr.Checkpointing(tmp_path, every=0))
    (event,) = fit(checkpointing=lr.Checkpointing(tmp_path, resume=True)).events
    assert event == f"step 5: resumed under torch {torch.__version__}, not 1.0, so that the last digits can differ"


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_kept(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(monkeypatch, 9, checkpointing=lr.Checkpointing(tmp_path, every=0))
    before, newest = unfinished_files(tmp_path)
    content = newest.read_bytes()
    spoiled = {"cut": content[:-7], "empty": b"", "flipped": content[:-1] + bytes([content[-1] ^ 1])}[damage]
    newest.write_bytes(spoiled)
    with pytest.raises(ValueError, match=f"{newest.name}: damaged or truncated; .* to go on from {before.name}"):
        fit(checkpointing=lr.Checkpointing(tmp_path, resume=True))
    newest.unlink()
    assert_same(fit(checkpointing=lr.Checkpointing(tmp_path, resume=True)), fit())


def test_a_lonely_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    fit(steps=1, checkpointing=lr.Checkpointing(tmp_path))
    for path in unfinished_files(tmp_path)[:-1]:
        path.unlink()
    (path,) = unfinished_files(tmp_path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="begin again, for there is no other"):
        fit(steps=1, checkpointing=lr.Checkpointing(tmp_path, resume=True))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="full"):  # known before hours have gone by
            fit(checkpointing=lr.Checkpointing(tmp_path, every=0))
    replace, calls = os.replace, iter(range(100))

    def once(source: Path, target: Path) -> None:
        state = Path(target).suffix == ".safetensors"  # the history is written beside it
        (full if state and next(calls) == 4 else replace)(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.warns(RuntimeWarning, match="no checkpoint was written at step 5"):
        result = fit(checkpointing=lr.Checkpointing(tmp_path, every=0))
    assert result.events == ["step 5: no checkpoint was written (full)"]
    assert_same(result, fit())


def full(source: Path, target: Path) -> None:
    raise OSError("full")


def test_remnants_of_killed_writes_are_removed(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead, alive = (tmp_path / f".fit-000001-0123456789ab.safetensors.{pid}.tmp" for pid in (child.pid, os.getpid()))
    for path in (dead, alive):
        path.write_bytes(b"half")
    fit(steps=1, checkpointing=lr.Checkpointing(tmp_path, resume=True))
    assert not dead.exists()
    assert alive.exists()


# -- killed --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    """Children that fit are killed at random moments and begun again; the last one ends where nobody was killed."""
    script = [sys.executable, "-m", "tests.inference.fitting.killed_fits", str(tmp_path)]
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(script, cwd=root, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "20 kills" in done.stdout, done.stdout


# -- forged --------------------------------------------------------------------------------------------------------


def forge(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change the newest checkpoint and name it by its new content, as if a fit had written it."""
    path = unfinished_files(folder)[-1]
    tensors, values = unfinished.read_unfinished(path)
    change(tensors, values)
    path.unlink()
    unfinished.write_unfinished(unfinished.Unfinished(tensors, values), folder)


def first_weight(tensors: dict[str, Any]) -> str:
    return next(name for name in tensors if name.startswith("now/model/") and tensors[name].dim() == 2)


FORGED: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "no identity": (lambda t, v: v.pop("identity"), "not the state of a fit: identity is missing"),
    "an identity without settings": (lambda t, v: v.update(identity={}), "identity cannot be {}"),
    "a step in words": (lambda t, v: v.update(step="three"), "not the state of a fit: step cannot be 'three'"),
    "a negative step": (lambda t, v: v.update(step=-3), "step cannot be -3"),
    "a true step": (lambda t, v: v.update(best_step=True), "best_step cannot be True"),
    "history as a list": (lambda t, v: v.update(history=[1, 2]), r"history cannot be \[1, 2\]"),
    "finished in words": (lambda t, v: v.update(finished="no"), "finished cannot be 'no'"),
    "no good weights": (lambda t, v: v.update(good=[]), r"good cannot be \[\]"),
    "a watch without a past": (lambda t, v: v["watch"].pop("past"), "watch cannot be {"),
    "a place beyond the pass": (lambda t, v: v.update(position=99), "position 99 in a pass of"),
    "surroundings as a list": (lambda t, v: v.update(surroundings=[]), r"surroundings cannot be \[\]"),
    "a weight is missing": (lambda t, v: t.pop(first_weight(t)), "tensor 'now/model/[^']+' is missing"),
    "a weight too many": (lambda t, v: t.update({"best/guide/x": torch.ones(1)}), "tensor 'best/guide/x' is not one"),
    "a weight of another shape": (
        lambda t, v: t.update({first_weight(t): torch.ones(7, 7)}),
        r"'now/model/[^']+': expected torch.float32 of shape \(\d+, \d+\); found torch.float32 of shape \(7, 7\)",
    ),
    "a weight of another type": (
        lambda t, v: t.update({first_weight(t): t[first_weight(t)].double()}),
        "expected torch.float32 of shape .* found torch.float64",
    ),
    "moments of no parameter": (lambda t, v: t.update({"now/optimiser/999/exp_avg": torch.ones(1)}), "does not fit"),
    "moments without a number": (lambda t, v: t.update({"now/optimiser/a/b": torch.ones(1)}), "does not fit"),
    "no generator": (lambda t, v: t.pop("random/cpu"), "tensor 'random/cpu' is missing"),
    "a short generator": (lambda t, v: t.update({"random/order": torch.zeros(3, dtype=torch.uint8)}), "random/order"),
    "a generator of zeros": (lambda t, v: t.update({"random/cpu": 0 * t["random/cpu"]}), "not the state of this fit"),
    "another format": (lambda t, v: v.update(format="mine"), "not the state of a fit; expected 'format' to be"),
    "a format in words": (lambda t, v: v.update(format_version="1"), "format_version: expected a positive integer"),
    "a newer format": (lambda t, v: v.update(format_version=9), "written by a newer version of latentrnn"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        kill(patch, 5, checkpointing=lr.Checkpointing(folder, resume=True, every=0))
    return folder


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_checkpoint_is_a_clear_error(case: str, begun: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gru"
    shutil.copytree(begun, folder)
    change, message = FORGED[case]
    forge(folder, change)
    with pytest.raises(ValueError, match=message) as caught:
        fit(checkpointing=lr.Checkpointing(folder, resume=True))
    assert str(caught.value).startswith(str(folder))


def test_an_honest_copy_goes_on(begun: Path, tmp_path: Path) -> None:
    """The control for what is forged above: the same procedure without a change."""
    folder = tmp_path / "gru"
    shutil.copytree(begun, folder)
    forge(folder, lambda tensors, values: None)
    assert_same(fit(checkpointing=lr.Checkpointing(folder, resume=True)), fit())


def test_a_folder_that_is_called_like_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "gru" / "fit-000007-0123456789ab.safetensors").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"fit-000007-0123456789ab.safetensors: expected a file"):
        fit(checkpointing=lr.Checkpointing(tmp_path / "gru", resume=True))


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    folder = tmp_path / "gru"
    for content in (b"", b"\x80\x02}q\x00.", b"\x08\x00\x00\x00\x00\x00\x00\x00[[[[[[[["):
        folder.mkdir()
        name = hashlib.sha256(content).hexdigest()[:12]
        (folder / f"fit-000001-{name}.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"safetensors: not the state of a fit \("):
            fit(checkpointing=lr.Checkpointing(folder, resume=True))
        shutil.rmtree(folder)


def test_the_history_lies_beside_the_checkpoints_as_a_table(tmp_path: Path) -> None:
    result = fit(checkpointing=lr.Checkpointing(tmp_path, every=0))
    table = pd.read_csv(tmp_path / "metrics.csv", index_col="step", float_precision="round_trip")
    for name, values in result.history.items():
        if name in ("step", "validation_step"):
            continue
        clock = "validation_step" if name.startswith("validation_") else "step"
        assert table[name].dropna().index.tolist() == result.history[clock]
        assert table[name].dropna().tolist() == values


def test_notice_of_the_end_leaves_a_checkpoint(tmp_path: Path) -> None:
    def terminate(progress: lr.Progress) -> None:
        if progress.step == 7:
            signal.raise_signal(signal.SIGTERM)

    reporting = lr.Reporting(progress=False, every=2, callbacks=[terminate])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        fit(checkpointing=lr.Checkpointing(tmp_path, every=1e6), reporting=reporting)
    assert signal.getsignal(signal.SIGTERM) is before
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table.step.max() == 7  # what was reported before the notice is written down
    resumed = fit(checkpointing=lr.Checkpointing(tmp_path, resume=True))
    assert not differs(resumed, fit())


def test_a_program_that_handles_the_notice_itself_keeps_its_way(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        callback = lambda progress: signal.raise_signal(signal.SIGTERM) if progress.step == 3 else None  # noqa: E731
        fit(reporting=lr.Reporting(progress=False, every=2, callbacks=[callback]))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
