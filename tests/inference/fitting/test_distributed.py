"""Fits in two processes end where one process would, and none of them is lost without a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import latentrnn as lr
from latentrnn.inference.fitting.distributed.processes import launched_processes
from latentrnn.inference.fitting.distributed.random_numbers import Share, drawn_for_all
from tests.inference.fitting.distributed_fits import KINDS, fit_here, written

QUICK = ["defaults", "parameters", "markov", "one batch"]
SLOWER = [kind for kind in KINDS if kind not in QUICK]
ROOT = Path(__file__).resolve().parents[3]


def launch(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Start fits of these names in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.inference.fitting.distributed_fits", str(folder), *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """What both processes say came out, to the bit the same."""
    first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1))
    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), (name, key)
    assert repr(first["history"]) == repr(second["history"])
    assert [first[k] for k in ("events", "best_step", "stop_reason")] == [
        second[k] for k in ("events", "best_step", "stop_reason")
    ]
    return first


def farthest(found: dict[str, Any], expected: dict[str, Any]) -> float:
    assert found["weights"].keys() == expected["weights"].keys()
    return max(float((value - expected["weights"][key]).abs().max()) for key, value in found["weights"].items())


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert farthest(found, expected) < 1e-5
    assert found["history"].keys() == expected["history"].keys()
    for name, values in expected["history"].items():
        assert found["history"][name] == pytest.approx(values, rel=2e-5, abs=1e-4), name
    for name in ("events", "best_step", "stop_reason"):
        assert found[name] == expected[name]


# -- the same fit --------------------------------------------------------------------------------------------------


def assert_two_are_as_one(folder: Path, names: list[str]) -> None:
    for name in names:
        found, expected = outcome(folder, name), written(fit_here(**KINDS[name]()))
        if name == "unreachable":  # numbers drawn inside a kernel: another fit, in which the processes still agree
            assert farthest(found, expected) > 1e-3
            continue
        assert_same(found, expected)


def test_two_processes_give_the_parameters_of_one(tmp_path: Path) -> None:
    done = launch(tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr
    assert_two_are_as_one(tmp_path, QUICK)
    start = written(fit_here(steps=1))
    assert farthest(start, written(fit_here())) > 1e-3  # the steps do something


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOWER)
def test_two_processes_give_the_parameters_of_one_in_every_kind(name: str, forked: Path) -> None:
    assert ended(forked / "kinds") == ([0, 0], "")
    assert_two_are_as_one(forked / "kinds", [name])


def test_draws_are_those_of_the_whole_batch() -> None:
    whole, particles = 7, 2

    def draws(held: int, value: torch.Tensor) -> list[torch.Tensor]:
        torch.manual_seed(3)
        return [
            torch.randn(held, 3),
            torch.rand((held, 5)),
            torch.randn(size=(1, particles, held, 5)),
            torch.randn(particles * held, 5),
            torch.randn_like(value),
            torch.bernoulli(value.sigmoid()),
            torch.normal(value, value.exp()),
            torch.empty(held, 5).exponential_(),
            F.dropout(value + 9, 0.3),
            torch.distributions.Laplace(value, 1.0).rsample(),
            torch.randn(particles, held, 5),
        ]

    value = torch.linspace(-1, 1, whole * 11).reshape(whole, 11)
    expected = draws(whole, value)
    for start, stop in ((0, 4), (4, 7), (6, 7)):
        with drawn_for_all(Share(start, stop, whole, 0.5), particles):
            found = draws(stop - start, value[start:stop])
            left = torch.rand(())
        for number, (part, of) in enumerate(zip(found, expected, strict=True)):
            of = of.unflatten(0, (particles, whole)).narrow(1, start, stop - start) if number == 3 else of
            axis = {2: 2, 10: 1}.get(number, 0)
            of = of.flatten(0, 1) if number == 3 else of.narrow(axis, start, stop - start)
            torch.testing.assert_close(part, of, msg=lambda text, number=number: f"draw {number}: {text}")
        draws(whole, value)
        assert torch.equal(left, torch.rand(()))  # nothing more and nothing less was drawn


def test_alone_where_nothing_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert launched_processes(cpu, "auto").size == 1
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launched_processes(cpu, "alone").size == 1
    assert fit_here(steps=1, compute=lr.Compute(device="cpu", processes="alone")).best_step == 0
    with pytest.raises(ValueError, match="processes must be 'auto' or 'alone'; found 'all'"):
        fit_here(compute=lr.Compute(device="cpu", processes="all"))


# -- what can happen -----------------------------------------------------------------------------------------------

KILLED = {"second killed": 11, "first killed": 11, "killed in validation": 12}  # and the step of the checkpoint


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of launches by one program, which forks the processes: a folder each, named after what happens in it."""
    root = tmp_path_factory.mktemp("forked")
    launches: list[list[str]] = [["kinds", *SLOWER]]
    for name in KILLED:
        launches += [[name, name], [name, "resumed"]]
    launches += [[name, name] for name in ("killed without checkpoint", "interrupted", "terminated", "other data")]
    lines = [json.dumps([str(root / folder), *names]) for folder, *names in launches]
    command = [sys.executable, "-m", "tests.inference.fitting.distributed_fits"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    said = "\n".join(lines)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, input=said, capture_output=True, text=True, timeout=600, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root


def ended(folder: Path) -> tuple[list[int], str]:
    """The codes with which both processes of the last launch of a folder ended, and what all of its launches said."""
    return [int(code) for code in (folder / "codes").read_text().split()], (folder / "stderr").read_text()


def assert_gone_on_with(folder: Path, step: int) -> None:
    """A fit that lost a process at this step and went on in two, or was only read by one, ends as if undisturbed."""
    found, expected = outcome(folder, "resumed"), written(fit_here())
    assert found["events"] == [f"step {step}: resumed"]
    assert_same(found | {"events": []}, expected)
    # and the finished fit can be had in one process
    again = fit_here(checkpointing=lr.Checkpointing(folder / "checkpoint", every=0, resume=True))
    assert_same(written(again) | {"events": []}, expected)


def loss(folder: Path, victim: int, step: int) -> list[str]:
    """What is said of a lost process where there are checkpoints."""
    return [
        f"fit: process {victim} of 2 is gone",
        f"at step {step}; {folder / 'checkpoint'} holds a checkpoint of it",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_process_ends_the_fit_with_a_checkpoint(name: str, forked: Path) -> None:
    victim = 0 if name == "first killed" else 1
    codes, said = ended(forked / name)
    assert all(each in said for each in loss(forked / name, victim, KILLED[name])), said
    assert codes == [0, 0], said  # of the two that resumed
    assert_gone_on_with(forked / name, KILLED[name])


@pytest.mark.slow
def test_a_process_that_is_killed_under_a_launcher_ends_the_fit_with_a_checkpoint(tmp_path: Path) -> None:
    """A launcher asks the other process to end as soon as it sees the first one gone."""
    done = launch(tmp_path, "second killed")
    assert done.returncode != 0
    assert all(each in done.stderr for each in loss(tmp_path, 1, 11)), done.stderr
    resumed = fit_here(checkpointing=lr.Checkpointing(tmp_path / "checkpoint", every=0, resume=True))
    assert "processes 1, not 2" in resumed.events[0]
    assert_same(written(resumed) | {"events": []}, written(fit_here()))


@pytest.mark.slow
def test_without_a_checkpoint_the_loss_is_told(forked: Path) -> None:
    codes, said = ended(forked / "killed without checkpoint")
    assert codes == [1, -signal.SIGKILL]
    assert "process 1 of 2 is gone" in said
    assert "at step 11; no checkpointing= was given, so that what was learnt is lost" in said


@pytest.mark.slow
def test_signals_to_one_process_end_all_at_the_same_step(forked: Path) -> None:
    codes, said = ended(forked / "interrupted")
    assert codes == [0, 0], said
    found = outcome(forked / "interrupted", "interrupted")
    assert found["events"] == ["step 12: interrupted"]
    assert found["history"]["step"] == [3, 7, 11]
    other = forked / "terminated"
    codes, said = ended(other)
    assert codes == [1, 1]
    assert said.count(f"fit: terminated at step 12; {other / 'checkpoint'} holds a checkpoint of it") == 2
    alone = fit_here(checkpointing=lr.Checkpointing(other / "checkpoint", every=0, resume=True))
    (event,) = alone.events
    assert event.startswith("step 12: resumed under ")
    assert "processes 1, not 2" in event
    assert_same(written(alone) | {"events": []}, written(fit_here()))


@pytest.mark.slow
def test_other_data_in_another_process_are_refused(forked: Path) -> None:
    codes, said = ended(forked / "other data")
    assert codes == [1, 1]
    assert "process 1 of 2 and process 0 were given another validation; give every process the same" in said
