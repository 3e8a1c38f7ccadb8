"""A fit that diverges goes back, and on in smaller steps, a bounded number of times."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.fitting.divergence import PAST, WINDOW, DivergenceMonitor
from latentrnn.inference.fitting.trainer import Trainer
from tests.inference.fitting.driven_counts import assert_same
from tests.inference.fitting.mishaps import Spoiled, Struck, Watched, before_steps, copies
from tests.inference.fitting.test_resume import DATA, VALIDATION, fit, kill

# -- going back ----------------------------------------------------------------------------------------------------


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the KL of the innovations NaN at some steps, and the gradients with it."""
    return lambda *steps: monkeypatch.setattr(Spoiled, "steps", steps)


@pytest.fixture
def at_start(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, torch.Tensor]]:
    """Weights and moments at the start of every step of the last fit, as its user's own optimizer knows them."""
    found: dict[int, dict[str, torch.Tensor]] = {}
    before_steps(monkeypatch, lambda step: found.update({step: Watched.everything()}))
    return found


def seen_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the loss every ten steps, as on a GPU."""
    original = Trainer.__init__

    def patched(self: Trainer, *arguments: Any) -> None:
        original(self, *arguments)
        self.check_every = self.settings.reporting.every

    monkeypatch.setattr(Trainer, "__init__", patched)


def steady(**settings: Any) -> dict[str, Any]:
    """Settings under which steps do not depend on how many there are."""
    fixed: dict[str, Any] = {
        "objective": Spoiled(kl=lr.KLWarmUp(0.0)),
        "optimizer": Watched(averaging=0.9, schedule=lr.Constant(), rollback=settings.pop("rollback", lr.Rollback())),
        "reporting": lr.Reporting(progress=False, every=10),
        "validation": None,
    }
    return fixed | settings


def test_a_non_finite_loss_is_rolled_back(spoil: Any) -> None:
    spoil(25)
    result = fit(**steady(steps=60, reporting=lr.Reporting(progress=False, every=1)))
    assert result.stop_reason.startswith("steps")
    assert result.events == [
        "step 25: non-finite kl/innovations, gradient",
        "step 25: rolled back to the weights of step 9, with 0.5 times the learning rate from here on (1 of 3)",
    ]
    rates = np.array(result.history["learning_rate"])
    steps = np.array(result.history["step"])
    assert steps.tolist() == [step for step in range(60) if step != 25]
    np.testing.assert_allclose(rates, np.where(steps < 25, 3e-3, 1.5e-3))
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())


@pytest.mark.parametrize("late", [False, True])
def test_weights_moments_and_average_go_back(
    late: bool, spoil: Any, at_start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen late, the NaN has reached weights and moments by then; none of it may stay."""
    undisturbed = fit(**steady(steps=9))
    averages = copies([*undisturbed.model.parameters(), *undisturbed.guide.parameters()])
    fit(**steady(steps=10))
    expected = at_start[9]
    if late:
        seen_late(monkeypatch)
    spoil(25)
    back = 30 if late else 26  # the first step after the rollback, and the last one
    result = fit(**steady(steps=back + 1))
    assert result.events[0] == "step 25: non-finite kl/innovations, gradient"
    assert result.events[1].startswith(f"step {back - 1}: rolled back to the weights of step 9")
    assert sum("exp_avg" in name for name in expected) == 2 * len(averages)
    assert at_start[back].keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(at_start[back][name], value), name
    # what is kept is the average of nine steps and this one, in which young averages forget faster
    decay = (1 + back) / (10 + back)
    kept = [*result.model.parameters(), *result.guide.parameters()]
    for average, weight, found in zip(averages, Watched.stepped, kept, strict=True):
        torch.testing.assert_close(found.detach(), average.lerp(weight, 1 - decay), rtol=1e-6, atol=1e-7)
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())


@pytest.mark.parametrize("late", [False, True])
def test_rollbacks_are_bounded(late: bool, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if late:
        seen_late(monkeypatch)
    spoil(25, 45, 65)
    result = fit(**steady(steps=200, rollback=lr.Rollback(times=2, factor=0.1)))
    assert result.stop_reason.startswith("non-finite loss at step 65, at site 'innovations', after 2 rollbacks")
    assert [event.partition(":")[2][:12] for event in result.events] == [" non-finite ", " rolled back"] * 2 + [
        " non-finite "
    ]
    assert "0.01 times the learning rate from here on (2 of 2)" in result.events[3]
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())
    stopped = fit(**steady(steps=200, rollback=lr.Rollback(times=0)))
    assert stopped.stop_reason.startswith("non-finite loss at step 25")
    assert len(stopped.events) == 1


@pytest.mark.parametrize("late", [False, True])
def test_going_back_to_the_same_weights_is_not_tried(late: bool, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if late:
        seen_late(monkeypatch)
    spoil(0)
    with pytest.raises(ValueError, match="fit: non-finite loss at step 0, at site 'innovations', before anything"):
        fit(**steady(steps=20))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("rollback", [lr.Rollback(), lr.Rollback(times=0), lr.Rollback(times=1)])
def test_a_fit_that_ends_where_it_began_raises(
    rollback: lr.Rollback, late: bool, spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps were taken, and rollbacks undid them all: what would come back are the starting weights."""
    if late:
        seen_late(monkeypatch)
    spoil(*range(2 if rollback.times else 0, 60))
    with pytest.raises(ValueError, match=r"fit: non-finite loss at step.*before anything was learnt"):
        fit(**steady(steps=60, rollback=rollback))


def test_a_fit_that_fails_before_its_first_report_tells_what_it_learnt(spoil: Any) -> None:
    spoil(*range(25, 60))
    result = fit(**steady(steps=60, reporting=lr.Reporting(progress=False, every=50)))
    assert result.history["step"] == [24.0]
    assert result.best_step == 9


def test_weights_that_an_evaluation_kept_outlive_rollbacks_to_the_start(spoil: Any) -> None:
    spoil(*range(3, 60))
    with_validation = steady(steps=60, validation=VALIDATION, stopping=lr.EarlyStopping(every=1))
    result = fit(**with_validation)
    assert result.history["step"] == [2.0]
    assert result.stop_reason.startswith("non-finite loss at step 4, at site 'innovations', after 1 rollback")
    assert 0 <= result.best_step < 3
    assert "nan" not in repr(result)


@pytest.mark.parametrize("late", [False, True])
def test_the_last_steps_are_looked_at_too(late: bool, spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if late:
        seen_late(monkeypatch)
    spoil(23)
    result = fit(**steady(steps=25))
    assert result.events[0] == "step 23: non-finite kl/innovations, gradient"
    assert all(torch.isfinite(value).all() for value in result.model.state_dict().values())


def test_at_the_last_step_there_is_nothing_to_go_on_with(spoil: Any) -> None:
    """The fit ends and says so, instead of claiming the last step for weights that are older."""
    spoil(24)
    result = fit(**steady(steps=25))
    assert result.stop_reason.startswith("non-finite loss at step 24")
    assert not any("rolled back" in event for event in result.events)
    assert result.history["step"][-1] < 24


def test_soon_after_one_rollback_the_next_goes_to_the_same_weights(spoil: Any, at_start: Any) -> None:
    spoil(25, 31)
    result = fit(**steady(steps=40))
    assert [event.partition("weights of ")[2][:6] for event in result.events[1::2]] == ["step 9", "step 9"]
    first, second = at_start[26], at_start[32]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], at_start[31][name]) for name in first)


@pytest.mark.parametrize("late", [False, True])
def test_divergence_right_after_a_rollback_stops_the_fit(
    late: bool, spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if late:
        seen_late(monkeypatch)
    spoil(25, 30 if late else 26)
    result = fit(**steady(steps=60))
    assert result.stop_reason.startswith(
        f"non-finite loss at step {30 if late else 26}, at site 'innovations', after 1"
    )
    assert result.best_step == 9


@pytest.mark.parametrize("late", [False, True])
def test_a_fit_that_went_back_resumes_bit_for_bit(
    late: bool, tmp_path: Path, spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if late:
        seen_late(monkeypatch)
    spoil(15, 33)
    settings: dict[str, Any] = {"steps": 40, "validation": None, "objective": Spoiled()}
    settings["reporting"] = lr.Reporting(progress=False, every=5)
    expected = fit(**settings)
    assert len(expected.events) == 4
    for at in (12, 20, 36):  # before, between and after
        kill(monkeypatch, at, checkpointing=lr.Checkpointing(tmp_path, every=0, resume=True), **settings)
    result = fit(checkpointing=lr.Checkpointing(tmp_path, resume=True), **settings)
    assert_same(result, expected)
    assert [event for event in result.events if not event.endswith("resumed")] == expected.events
    result.save(tmp_path / "result")
    assert lr.load(tmp_path / "result").events == result.events


def test_an_explosion_is_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blow to the weights in mid-fit; with the negative control that does not look for it."""
    struck: dict[str, Any] = {"head": lr.Poisson(readout=Struck())}
    with monkeypatch.context() as patch:
        patch.setattr(Struck, "blow", staticmethod(lambda step, baseline: baseline + 6.0 * (step == 60)))
        result = fit(**steady(steps=100), **struck)
        blind = fit(**steady(steps=100, rollback=lr.Rollback(tolerance=math.inf)), **struck)
    calm = fit(**steady(steps=100))
    assert calm.events == blind.events == []
    exploded, back = result.events
    assert exploded.startswith("step 69: exploding loss, ")
    assert exploded.endswith("most of it log_likelihood/y")
    assert back.startswith("step 69: rolled back to the weights of step 49, with 0.5 times")
    last = [np.mean(each.history["elbo"][-3:]) for each in (calm, result, blind)]
    assert last[1] > last[0] - 5
    assert last[2] < last[0] - 100


def test_an_explosion_that_does_not_end_stops_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Struck, "blow", staticmethod(lambda step, b: torch.full_like(b, 7.0) if step >= 60 else b))
        result = fit(**steady(steps=400), head=lr.Poisson(readout=Struck()))
    assert result.stop_reason.startswith("exploding loss at step 99, at site 'y', after 3 rollbacks")
    assert len(result.events) == 7
    assert result.best_step < 99
    # what is kept is from before
    start = fit(**steady(steps=50))
    reached = [each.posterior(DATA, device="cpu").evidence("elbo").total for each in (result, start)]
    assert reached[0] > reached[1] - 20


def test_rollback_refuses_what_makes_no_sense() -> None:
    for settings, message in (
        ({"times": -1}, "times must be a whole number, at least 0; found -1"),
        ({"times": True}, "times must be a whole number"),
        ({"factor": 1.0}, "factor must be between 0 and 1; found 1.0"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
    ):
        with pytest.raises(ValueError, match=f"Rollback: {message}"):
            lr.Rollback(**settings)
    with pytest.raises(TypeError, match="AdamW: rollback must be a Rollback; found 3"):
        lr.AdamW(rollback=3)  # type: ignore[arg-type]


# -- what counts as an explosion -----------------------------------------------------------------------------------


def watched(losses: Any, kl: Any = None, weights: Any = None, tolerance: float = 20.0) -> list[Any]:
    """What a monitor says of log-likelihoods of minus `losses`, step by step, going back where it says something."""
    monitor = DivergenceMonitor(tolerance, scored_steps=1)
    kl = np.zeros(len(losses)) if kl is None else kl
    weights = np.ones(len(losses)) if weights is None else weights
    found = []
    for step, (loss, divergence, weight) in enumerate(zip(losses, kl, weights, strict=True)):
        names = ["log_likelihood/y", "kl/z", "gradient"]
        divergence = monitor.check([step], names, [[-loss, divergence, 1e9]], weight)
        if divergence is not None:
            found.append(divergence)
            monitor.forget()
    return found


def test_ordinary_losses_do_not_explode() -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(2000)
    warm = np.minimum(0.01 + steps / 400, 1.0)
    ordinary: dict[str, tuple[Any, ...]] = {
        "noise": (5 + rng.normal(0, 3, 2000),),
        "heavy tails": (5 + rng.standard_cauchy(2000),),
        "one batch in five is another kind": (5 + 500 * (rng.uniform(size=2000) < 0.2),),
        "falling": (100 * np.exp(-steps / 100) + rng.normal(0, 0.01, 2000),),
        "rising slowly": (5 + steps * 0.5,),
        "a flat one with ripples": (5 + 0.3 * (steps % 400 > 380),),
        "the warm-up of a great divergence": (5 + 0 * steps, 500 * np.exp(-steps / 300), warm),
    }
    for name, arguments in ordinary.items():
        assert watched(*arguments) == [], name


def test_explosions_are_seen_at_their_term() -> None:
    rng = np.random.default_rng(0)
    steps, noise = np.arange(400), rng.normal(0, 0.3, 400)
    late = steps >= 300
    for sign in (1, 2):
        (divergence, *_) = watched(5 + noise + 50 * sign * late)
        assert divergence.kind == "exploding"
        assert divergence.sites == ["log_likelihood/y"]
        assert 300 <= divergence.step < 300 + 2 * WINDOW
    (divergence, *_) = watched(5 + noise, 1.0 + 50 * late)
    assert divergence.sites == ["kl/z"]
    assert watched(5 + noise, 1.0 + 50 * late, weights=np.full(400, 0.001)) == []  # it hardly weighs
    assert watched(5 + noise + 50 * late, tolerance=math.inf) == []
    # one step is not ten
    assert watched(5 + noise + 1e6 * (steps == 300)) == []
    # what exploded is no reference afterwards
    assert len(watched(5 + noise + 50 * late)) == (400 - 300) // WINDOW


def test_another_bound_is_the_loss_where_there_is_one() -> None:
    names, late = ["log_likelihood/y", "kl/z", "iwae", "gradient"], 100

    def seen(rises: str) -> bool:
        monitor = DivergenceMonitor(20.0, 1)
        rows = [
            [0.0, 1.0 + 1e3 * (rises == "kl" and t >= late), -1e3 * (rises == "iwae" and t >= late), 1.0]
            for t in range(120)
        ]
        return any(monitor.check([t], names, [row], 1.0) is not None for t, row in enumerate(rows))

    assert seen("iwae")
    assert not seen("kl")


def test_a_head_that_does_not_count_does_not_explode() -> None:
    for weight in (0.0, 1.0):
        monitor = DivergenceMonitor(20.0, 1, {"y": weight})
        losses = [-1e3 * (t >= 100) for t in range(120)]
        found = [monitor.check([t], ["log_likelihood/y"], [[loss]], 1.0) for t, loss in enumerate(losses)]
        assert any(found) == (weight > 0)


def test_a_monitor_is_restored() -> None:
    rng = np.random.default_rng(0)
    first, second = DivergenceMonitor(20.0, 3), DivergenceMonitor(20.0, 3)
    for step in range(PAST + 37):
        first.check([step], ["log_likelihood/y"], [[float(rng.normal())]], 1.0)
    second.restore(first.state())
    assert second.state() == first.state()
    for monitor in (first, second):
        assert monitor.check(list(range(9)), ["log_likelihood/y"], [[-1e3]] * 9, 1.0) is not None
