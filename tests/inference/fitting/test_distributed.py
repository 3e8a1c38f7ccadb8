"""Fits in two processes end where one process would, and none of them is lost without a word."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("names", [QUICK, pytest.param([k for k in KINDS if k not in QUICK], marks=pytest.mark.slow)])
def test_two_processes_give_the_parameters_of_one(names: list[str], tmp_path: Path) -> None:
    done = launch(tmp_path, *names)
    assert done.returncode == 0, done.stderr
    for name in names:
        found, expected = outcome(tmp_path, name), written(fit_here(**KINDS[name]()))
        if name == "unreachable":  # numbers drawn inside a kernel: another fit, in which the processes still agree
            assert farthest(found, expected) > 1e-3
            continue
        assert_same(found, expected)
    start = written(fit_here(steps=1))
    assert farthest(start, written(fit_here())) > 1e-3  # the steps do something


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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "step"), [("second killed", 11), ("first killed", 11), ("killed in validation", 12)])
def test_a_killed_process_ends_the_fit_with_a_checkpoint(name: str, step: int, tmp_path: Path) -> None:
    done = launch(tmp_path, name)
    assert done.returncode != 0
    victim = 0 if name == "first killed" else 1
    assert f"fit: process {victim} of 2 is gone" in done.stderr, done.stderr
    assert f"at step {step}; {tmp_path / 'checkpoint'} holds a checkpoint of it" in done.stderr
    done = launch(tmp_path, "resumed")
    assert done.returncode == 0, done.stderr
    found, expected = outcome(tmp_path, "resumed"), written(fit_here())
    assert found["events"] == [f"step {step}: resumed"]
    assert_same(found | {"events": []}, expected)
    # and the finished fit can be had in one process
    again = fit_here(checkpointing=lr.Checkpointing(tmp_path / "checkpoint", every=0, resume=True))
    assert_same(written(again) | {"events": []}, expected)


@pytest.mark.slow
def test_without_a_checkpoint_the_loss_is_told(tmp_path: Path) -> None:
    done = launch(tmp_path, "killed without checkpoint")
    assert done.returncode != 0
    assert "process 1 of 2 is gone" in done.stderr
    assert "at step 11; no checkpointing= was given, so that what was learnt is lost" in done.stderr


@pytest.mark.slow
def test_signals_to_one_process_end_all_at_the_same_step(tmp_path: Path) -> None:
    done = launch(tmp_path, "interrupted")
    assert done.returncode == 0, done.stderr
    found = outcome(tmp_path, "interrupted")
    assert found["events"] == ["step 12: interrupted"]
    assert found["history"]["step"] == [3, 7, 11]
    other = tmp_path / "terminated"
    other.mkdir()
    done = launch(other, "terminated")
    assert done.returncode != 0
    assert f"fit: terminated at step 12; {other / 'checkpoint'} holds a checkpoint of it" in done.stderr
    alone = fit_here(checkpointing=lr.Checkpointing(other / "checkpoint", every=0, resume=True))
    (event,) = alone.events
    assert event.startswith("step 12: resumed under ")
    assert "processes 1, not 2" in event
    assert_same(written(alone) | {"events": []}, written(fit_here()))


@pytest.mark.slow
def test_other_data_in_another_process_are_refused(tmp_path: Path) -> None:
    done = launch(tmp_path, "other data")
    assert done.returncode != 0
    assert "process 1 of 2 and process 0 were given another validation; give every process the same" in done.stderr
