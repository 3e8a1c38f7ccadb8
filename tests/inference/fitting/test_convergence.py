"""When a fit of no given number of steps ends: the rule on traces that are written down, and fits that follow it."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.fitting.convergence import (
    GROUPS,
    LONGEST,
    STATIONARY,
    Gain,
    Improvement,
    drift,
    effective_size,
    grouped,
    jitter,
    paired_gain,
    remaining,
    split_r_hat,
)
from latentrnn.inference.fitting.ending import all_steps
from latentrnn.inference.fitting.evaluation import bounds_by_sequence, validation_bound
from latentrnn.inference.fitting.reports import left_in_bar
from latentrnn.inference.fitting.state import TrainingState
from latentrnn.inference.guides.windows import window_plan
from latentrnn.support.isolation import random_state
from tests.inference.fitting.driven_counts import assert_same, make_data
from tests.inference.fitting.mishaps import Killed, WarmUp, before_steps, dying, interrupting, never

QUIET = {"reporting": lr.Reporting(progress=False), "compute": lr.Compute("cpu")}


# -- what is computed from a trace -----------------------------------------------------------------------------------


def noise(count: int, seed: int = 0, correlation: float = 0.0) -> np.ndarray:
    """A stationary first-order autoregression of variance one."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=count)
    for t in range(1, count):
        values[t] = correlation * values[t - 1] + (1 - correlation**2) ** 0.5 * values[t]
    return values


def test_what_all_evaluations_share_drops_out_of_a_paired_error() -> None:
    sequences = 100 * noise(50)
    shift = 0.3 + 0.1 * noise(50, 1)
    gain = paired_gain((sequences + shift).tolist(), sequences.tolist())
    assert gain.value == pytest.approx(shift.mean())
    assert gain.error == pytest.approx(shift.std(ddof=1) / 50**0.5)
    assert paired_gain([1.0], [0.5]) == Gain(0.5, 0.0)


def test_groups_are_averages_of_neighbours() -> None:
    assert grouped([1.0, 2.0, 4.0]) == [1.0, 2.0, 4.0]
    groups = grouped(np.arange(2.5 * GROUPS))
    assert len(groups) == GROUPS
    assert groups[:2] == [1.0, 4.0]
    assert groups[-2:] == [2.5 * GROUPS - 3.5, 2.5 * GROUPS - 1.5]


def test_jitter_is_that_around_a_line() -> None:
    line = 3.0 * np.arange(400.0)
    assert jitter(line.tolist()) == pytest.approx(0.0, abs=1e-9)
    assert jitter((line + 2 * noise(400)).tolist()) == pytest.approx(2.0, rel=0.2)
    assert jitter([1.0, 5.0]) == 0.0


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_effective_size_is_that_of_an_autoregression(correlation: float) -> None:
    sizes = [effective_size(noise(400, seed, correlation).tolist()) for seed in range(20)]
    expected = 400 * (1 - correlation) / (1 + correlation)
    assert np.median(sizes) == pytest.approx(expected, rel=0.35)
    assert effective_size([2.0] * 9) == 9.0


def test_r_hat_tells_rest_from_drift() -> None:
    assert np.mean([split_r_hat(noise(40, seed).tolist()) < STATIONARY for seed in range(50)]) > 0.9
    rising = np.arange(40) / 8
    assert all(split_r_hat((noise(40, seed) + rising).tolist()) > STATIONARY for seed in range(50))
    assert split_r_hat([1.0] * 8) == 1.0
    assert split_r_hat([0.0] * 4 + [1.0] * 4) == math.inf


def test_a_drift_is_the_difference_of_halves_with_an_error_that_holds() -> None:
    line = 0.5 * np.arange(40.0)
    found = [drift((line + noise(40, seed)).tolist()) for seed in range(200)]
    assert np.mean([gain.value for gain in found]) == pytest.approx(10.0, abs=0.1)
    scores = [(gain.value - 10.0) / gain.error for gain in found]
    assert 0.7 < np.std(scores) < 1.5


def test_what_remains_of_a_geometric_rise() -> None:
    steps = np.arange(24)
    trace = 10.0 - 4.0 * 0.95**steps
    left = remaining(trace.tolist())
    assert left is not None
    # what the average of the last third is short of the limit
    assert left.value == pytest.approx(float((4.0 * 0.95 ** steps[-8:]).mean()), rel=1e-6)
    falling = remaining((-trace).tolist())
    assert falling is not None
    assert falling.value == 0.0
    straight = remaining(steps.astype(float).tolist())
    assert straight is not None
    assert straight.value == pytest.approx(9 * 8.0)  # at most nine times the last gain is promised
    assert straight.error >= straight.value  # and it may as well be nothing
    assert remaining([1.0, 2.0]) is None


def test_the_error_of_what_remains_is_that_of_the_extrapolation() -> None:
    """As far as noise of the trace moves the formula's result, over draws of it."""
    rng, steps = np.random.default_rng(0), np.arange(60)
    rise = 10.0 - 4.0 * 0.97**steps
    found = [remaining((rise + 0.02 * rng.normal(size=60)).tolist()) for _ in range(200)]
    values, errors = (np.array([getattr(each, name) for each in found]) for name in Gain._fields)
    assert 1.0 < np.median(errors) / values.std() < 2.5  # a curve is taken for noise, too
    truth = remaining(rise.tolist())
    assert truth is not None
    assert np.mean(np.abs(values - truth.value) < 2 * errors) > 0.9


def test_a_gain_is_shown_to_the_digits_that_its_error_leaves() -> None:
    assert str(Gain(1.23456, 0.0312)) == "1.235 +- 0.031"
    assert str(Gain(123.456, 12.3)) == "123 +- 12"
    assert str(Gain(0.0, 0.0)) == "0.00 +- 0.00"


# -- the rule --------------------------------------------------------------------------------------------------------


def run(trace: np.ndarray, patience: int = 12, worth: float = 0.05, spread: float = 0.0) -> tuple[int, Improvement]:
    """Return how many evaluations of a trace are seen before its level is exhausted (all where it is not)."""
    rng, found = np.random.default_rng(5), Improvement()
    sequences = 10 * rng.normal(size=20)
    for count, value in enumerate(trace, 1):
        found.see((value + sequences + spread * rng.normal(size=20)).tolist(), worth)
        if found.exhausted(patience, worth):
            return count, found
    return len(trace), found


def test_a_level_ends_after_the_patience() -> None:
    rise = np.concatenate([np.arange(10.0), np.full(100, 9.0)])
    assert run(rise, patience=12)[0] == 10 + 12
    assert run(rise, patience=5)[0] == 10 + 5


def test_gains_within_their_paired_error_do_not_count() -> None:
    """Sequences that gain and lose at random: on average 0.2, of an error of 2 / sqrt(20) times sqrt(2)."""
    trace = np.concatenate([np.arange(10.0), np.full(60, 9.2)])
    ended, found = run(trace, spread=2.0)
    assert ended < 70
    assert found.waited >= 12
    # each gain of the same size counts where all sequences gain alike
    steady = np.concatenate([np.arange(10.0), 9 + 0.2 * np.arange(60)])
    assert run(steady)[0] == 70


def test_gains_that_are_not_worth_it_do_not_count_until_they_have_added_up() -> None:
    slow = np.concatenate([np.arange(10.0), 9 + 0.003 * np.arange(100)])
    assert run(slow, worth=0.05)[0] < 40
    assert run(slow, worth=0.02)[0] == 110


def test_patience_grows_with_noise() -> None:
    rest = np.concatenate([np.arange(10.0), np.full(200, 9.0)])
    ends = [run(rest + scale * noise(210, 3), worth=0.05)[0] for scale in (0.0, 0.05, 1.0)]
    assert ends[0] == 22
    assert ends[0] < ends[1] < ends[2] <= 210
    found = Improvement(reference=[0.0], trace=noise(30).tolist())
    assert found.patience(12, 0.01) == math.ceil(12 * LONGEST)
    assert Improvement(reference=[1.0], trace=[1.0] * 9).patience(12, 0.05) == 12


def test_patience_does_not_grow_where_the_bound_falls() -> None:
    """As where a model learns its training sequences by heart, however much evaluations scatter then."""
    falling = np.concatenate([np.arange(10.0), 9 - 3 * np.arange(100.0) + noise(100)])
    assert run(falling)[0] <= 25


def test_a_steady_rise_below_the_noise_is_waited_for() -> None:
    """One that single evaluations do not show, and halves of the window do."""
    rise = 0.02 * np.arange(100.0)
    flat, rising = (run(part + 0.15 * noise(100, 7), worth=0.02)[0] for part in (np.zeros(100), rise))
    assert flat < rising


def test_a_fall_is_judged_by_what_it_brings() -> None:
    _, found = run(np.full(40, 3.0))
    assert found.level_gained(0.05)  # the first level has nothing to be compared with
    found.fall(found.best)
    assert (found.falls, found.waited, found.trace) == (1, 0, [])
    assert not found.level_gained(0.05)
    found.see([value + 0.04 for value in found.best], 0.05)
    assert not found.level_gained(0.05)
    found.see([value + 0.2 for value in found.best], 0.05)
    assert found.level_gained(0.05)


def test_the_record_survives_json() -> None:
    _, found = run(noise(30))
    found.fall(found.best)
    assert Improvement.from_json(found.to_json()) == found


# -- bounds of single sequences --------------------------------------------------------------------------------------


def make_parts(data: lr.SequenceData, head: Any = None) -> tuple[lr.LatentRNN, lr.Guide]:
    observed = {"y": head or lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(2, initial=1), observations=observed)
    return model, lr.Guide(model, encoder=lr.RNNEncoder(3))


OBJECTIVES = {
    "elbo": lr.ELBO(),
    "sticking": lr.ELBO(sticking_the_landing=True),
    "iwae": lr.IWAE(num_particles=4),
    "renyi": lr.Renyi(num_particles=4),
    "fivo": lr.FIVO(num_particles=4),
}


@pytest.mark.parametrize("window", [None, 3], ids=["whole", "windows"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_bounds_of_sequences_average_to_the_bound(name: str, window: int | None) -> None:
    if window is not None and not OBJECTIVES[name].adds_over_windows:
        pytest.skip("the bound does not add up over windows")
    data = make_data(7)
    model, guide = (part.double().eval() for part in make_parts(data))
    model.initialise(data), guide.initialise(model, data)
    plan = None if window is None else window_plan("fit", lr.Window(window), model, guide, OBJECTIVES[name])
    given = OBJECTIVES[name], model, guide, data, 4
    with torch.no_grad(), random_state(1, torch.device("cpu")):
        expected = validation_bound(*given, 3, plan)
    with torch.no_grad(), random_state(1, torch.device("cpu")):
        found = bounds_by_sequence(*given, batch_size=3, windows=plan).total
    assert found.shape == (7,)
    assert float(found.mean()) == pytest.approx(expected, rel=1e-9)
    assert len(set(found.tolist())) == 7


def test_rows_and_parameters_of_training_bounds() -> None:
    data = make_data(7)
    model, guide = make_parts(data, lr.Poisson(priors={"baseline": torch.distributions.Normal(0.0, 1.0)}))
    model.double().eval(), guide.double().eval()
    model.initialise(data), guide.initialise(model, data)
    bounds = []
    for rows, parameters in ((None, False), (None, True), (torch.tensor([1, 4]), False)):
        with torch.no_grad(), random_state(1, torch.device("cpu")):
            bounds.append(bounds_by_sequence(lr.ELBO(), model, guide, data, 2, rows=rows, parameters=parameters).total)
    given, whole, some = bounds
    paid = (given - whole).numpy()
    np.testing.assert_allclose(paid, paid[0], rtol=1e-9)
    assert abs(paid[0]) > 1e-3
    assert some.shape == (2,)


class Written(lr.ELBO):
    """An objective of a user's own, which hands on the terms of another: they do not add up to its bound."""

    name = "elbo"

    def step(self, at: Any) -> Any:
        found = super().step(at)
        return found._replace(bound=torch.tensor(5.0 * at.data.total, dtype=torch.float64))


def test_terms_that_are_not_the_bounds_are_not_believed() -> None:
    data = make_data(4)
    model, guide = (part.double().eval() for part in make_parts(data))
    with torch.no_grad():
        found = bounds_by_sequence(Written(), model, guide, data, 1).total
    np.testing.assert_allclose(found.numpy(), 5.0)


# -- fits ------------------------------------------------------------------------------------------------------------

DATA, VALIDATION = make_data(), make_data(6, seed=1)
KINDS = ["validated", "unvalidated"]
QUICK = {
    "stopping": lr.EarlyStopping(every=3, patience=3, num_particles=1),
    "optimizer": lr.AdamW(0.05, schedule=lr.Staircase(falls=1)),
}


def fit(data: lr.SequenceData = DATA, validation: lr.SequenceData | None = VALIDATION, **settings: Any) -> lr.FitResult:
    """A fit that reaches its end within some hundred steps; limits are those of its stopping."""
    model, guide = make_parts(data)
    limits = {name: settings.pop(name) for name in ("max_steps", "max_time") if name in settings}
    given = QUIET | QUICK | {"objective": lr.ELBO(kl=WarmUp(0.02))} | settings
    given["stopping"] = dataclasses.replace(given.get("stopping", lr.EarlyStopping()), **limits)
    return lr.fit(model, guide, data, validation, **given)


def steps_of(result: lr.FitResult) -> int:
    return int(result.history["step"][-1])


@pytest.mark.parametrize("validation", [VALIDATION, None], ids=KINDS)
def test_a_fit_ends_when_it_has_converged(validation: lr.SequenceData | None) -> None:
    result = fit(validation=validation)
    assert result.stop_reason.startswith("converged: the ")
    assert "remain to be gained" in result.stop_reason
    assert ("validation ELBO" in result.stop_reason) == (validation is not None)
    assert result.settings["steps"] is None
    rates = np.array(result.history["learning_rate"])
    assert rates[0] == pytest.approx(0.05 / 2)  # reports every ten steps: the rise of twenty steps is half over
    assert rates.max() == pytest.approx(0.05)
    falls = [event for event in result.events if "no further improvement" in event]
    assert 1 <= len(falls) <= lr.Staircase().falls
    assert rates[-1] == pytest.approx(0.05 * 0.25 ** len(falls))
    assert ("validation_elbo" in result.history) == (validation is not None)
    if validation is not None:
        elbos = result.history["validation_elbo"]
        assert result.best_step == result.history["validation_step"][int(np.argmax(elbos))]


def test_the_limits_end_a_fit_and_say_so() -> None:
    result = fit(max_steps=31)
    assert len(result.history["validation_step"]) == 11  # ten that were due, and one of the weights that were left
    assert result.stop_reason.startswith("max_steps: 31 steps were over before the fit had converged; ")
    assert "nats per sequence remain to be gained" in result.stop_reason
    assert result.settings["max_steps"] == 31
    timed = fit(max_time=1e-9)
    assert timed.stop_reason.startswith("max_time: 1e-09 seconds were over")
    assert "too few evaluations" in timed.stop_reason
    numbered = fit(steps=400, max_time=1e-9, optimizer=lr.AdamW(0.05))
    assert numbered.stop_reason.startswith("max_time")


def test_a_gain_that_remains_is_told_with_its_error() -> None:
    result = fit(max_steps=60, optimizer=lr.AdamW(0.002))
    words = result.stop_reason.split()
    value, error = float(words[words.index("about") + 1]), float(words[words.index("+-") + 1])
    assert value > 0 <= error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"steps": 3, "max_steps": 4},
            r"steps=3 is how many are taken, EarlyStopping\(max_steps=4\) the limit.*give one of them",
        ),
        ({"max_steps": 0}, "max_steps must be a positive integer; found 0"),
        ({"max_time": 0.0}, "max_time must be positive; found 0"),
        (
            {"optimizer": lr.AdamW(schedule=lr.Cosine())},
            r"Cosine\(.*\) falls along a known number of steps; give steps=",
        ),
        (
            {"steps": 9, "optimizer": lr.AdamW(schedule=lr.Staircase())},
            r"Staircase\(.*give stopping=EarlyStopping\(max_steps=9\) instead of steps=9",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(fit|EarlyStopping): {message}"):
        fit(**settings)


ONE_AND_ANY: tuple[dict[str, int], ...] = ({"steps": 1}, {"max_steps": 1})


def test_a_number_of_steps_is_as_it_always_was() -> None:
    """The defaults of the optimizer depend on it, and are written down as they are used."""
    plain, told = (
        fit(steps=20, optimizer=optimizer)
        for optimizer in (lr.AdamW(0.05), lr.AdamW(0.05, 0.3, 1.0, (0.9, 0.99), 0.0, lr.Cosine()))
    )
    assert_same(plain, told)
    assert plain.settings["learning_rate_schedule"] == {"class": "Cosine", "rise": 20, "final": 0.02}
    assert plain.settings["optimiser"]["averaging"] == 0.0
    assert "max_steps" not in plain.settings
    assert plain.stop_reason.startswith("steps")
    open_end = fit(max_steps=3)
    assert open_end.settings["learning_rate_schedule"]["class"] == "Staircase"
    assert open_end.settings["optimiser"]["averaging"] > 0
    rates = [fit(optimizer=lr.AdamW(), **given).settings["optimiser"]["learning_rate"] for given in ONE_AND_ANY]
    assert rates == [3e-3, 5e-3]


def test_the_warm_up_is_a_share_of_a_thousand_steps() -> None:
    result = fit(objective=lr.ELBO(kl=lr.KLWarmUp(0.03)), max_steps=60)
    weights = dict(zip(result.history["step"], result.history["kl_weight"], strict=True))
    assert weights[19] == pytest.approx(0.01 + 0.99 * 19 / 30)
    assert weights[29] < 1.0
    assert weights[39] == 1.0


@pytest.mark.parametrize("schedule", [lr.Constant(), lr.Plateau(2)])
def test_a_schedule_of_its_own_course_ends_with_the_first_level(schedule: Any) -> None:
    result = fit(optimizer=lr.AdamW(0.05, schedule=schedule))
    assert result.stop_reason.startswith("converged")
    assert not result.events


def test_without_patience_the_limit_ends_a_fit() -> None:
    result = fit(stopping=lr.EarlyStopping(every=3, patience=None), max_steps=60)
    assert result.stop_reason.startswith("max_steps: 60 steps")


def test_a_fit_that_overfits_goes_back_to_its_best_weights() -> None:
    result = fit(make_data(3), optimizer=lr.AdamW(0.1, weight_decay=0.0))
    falls = [event for event in result.events if "no further improvement" in event]
    assert "on from the weights of step" in falls[0]
    assert result.history["validation_elbo"][-1] <= max(result.history["validation_elbo"])


def test_the_bar_shows_what_is_left_per_step() -> None:
    state = TrainingState(({}, {}), [])
    assert left_in_bar(state, 10, 100) == {}
    state.improvement = Improvement(trace=(10.0 - 4.0 * 0.95 ** np.arange(24)).tolist())
    left = remaining(state.improvement.trace)
    assert left is not None
    assert left_in_bar(state, 10, 100) == {"to gain": f"{left.value / 10:.4f}"}


# -- resumed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", [VALIDATION, pytest.param(None, marks=pytest.mark.slow)], ids=KINDS)
def test_a_killed_fit_goes_on_under_the_same_rule(
    validation: lr.SequenceData | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"validation": validation, "batch_size": 5}
    expected = fit(**settings)
    fell = int(next(event for event in expected.events if "no further" in event).split()[1].rstrip(":"))
    end = steps_of(expected)
    assert 10 < fell < end
    kept = partial(lr.Checkpointing, tmp_path, every=0, resume=True)
    for at in (fell - 4, fell + 1, end - 1):
        with monkeypatch.context() as patch:
            before_steps(patch, dying(at))
            with pytest.raises(Killed):
                fit(checkpointing=kept(), **settings)
    assert_same(fit(checkpointing=kept(), **settings), expected)
    before_steps(monkeypatch, never)
    assert_same(fit(checkpointing=kept(), **settings), expected)


@pytest.mark.parametrize("validation", [VALIDATION, pytest.param(None, marks=pytest.mark.slow)], ids=KINDS)
def test_a_fit_that_a_limit_ended_goes_on_as_if_it_had_not(validation: lr.SequenceData | None, tmp_path: Path) -> None:
    expected = fit(validation=validation)
    kept = lr.Checkpointing(tmp_path, resume=True)
    for limit in (31, 32):
        first = fit(validation=validation, max_steps=limit, checkpointing=kept)
        assert_same(first, fit(validation=validation, max_steps=limit))
        assert_same(fit(validation=validation, max_steps=limit, checkpointing=kept), first)
    timed = fit(validation=validation, max_time=1e-9, checkpointing=kept)
    assert timed.stop_reason.startswith("max_time")
    assert_same(fit(validation=validation, checkpointing=kept), expected)


def test_an_interrupted_fit_goes_on_under_the_same_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fit()
    with monkeypatch.context() as patch:
        before_steps(patch, interrupting(20))
        stopped = fit(checkpointing=lr.Checkpointing(tmp_path, every=0))
    assert stopped.stop_reason.startswith("interrupted")
    assert_same(fit(checkpointing=lr.Checkpointing(tmp_path, resume=True)), expected)


def test_a_saved_fit_has_no_number_of_steps(tmp_path: Path) -> None:
    result = fit(max_steps=12)
    result.save(tmp_path / "fit")
    found = lr.load(tmp_path / "fit")
    assert (found.settings["steps"], found.settings["max_steps"]) == (None, 12)
    assert found.stop_reason == result.stop_reason


# -- several at once -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("validation", [VALIDATION, None], ids=KINDS)
def test_members_of_a_vectorised_ensemble_end_each_by_itself(validation: lr.SequenceData | None) -> None:
    data = make_data(ragged=False)
    model, guide = make_parts(data)
    stopping = dataclasses.replace(QUICK["stopping"], max_steps=600)
    settings = QUIET | QUICK | {"objective": lr.ELBO(kl=lr.KLWarmUp(0.02)), "stopping": stopping}
    found = lr.fit_ensemble(model, guide, data, validation, seeds=(0, 1), vectorised=True, **settings).members
    for member in found:
        alone = lr.fit(model, guide, data, validation, seed=member.seed, **settings)
        assert member.history["step"] == alone.history["step"]
        assert member.stop_reason.split(";")[0] == alone.stop_reason.split(";")[0]
        assert [event.split(";")[0] for event in member.events] == [event.split(";")[0] for event in alone.events]
        np.testing.assert_allclose(member.history["elbo"], alone.history["elbo"], rtol=1e-4)


@pytest.mark.slow
def test_windows_follow_the_rule() -> None:
    data, validation = make_data(5, steps=14), make_data(4, seed=1, steps=14)
    for judged in (validation, None):
        result = fit(data, judged, compute=lr.Compute("cpu", window=lr.Window(5)))
        assert result.stop_reason.startswith("converged")


# -- where it stops --------------------------------------------------------------------------------------------------


def decaying(sequences: int, seed: int) -> lr.SequenceData:
    """Gaussian steps around a mean, and around how much of a drive the state keeps."""
    rng = np.random.default_rng(seed)
    drive = rng.normal(size=(sequences, 12, 1))
    state, observed = np.zeros((sequences, 1)), []
    for t in range(12):
        state = 0.8 * state + drive[:, t]
        observed.append(5.0 + 2.0 * state + rng.normal(size=(sequences, 1)))
    return lr.SequenceData.from_arrays({"y": np.stack(observed, 1)}, {"drive": drive}, dtype=torch.float64)


def leaky(data: lr.SequenceData) -> lr.LatentRNN:
    return lr.LatentRNN(
        data.spec,
        transition=lr.LeakyIntegrator(1),
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={"y": lr.Gaussian()},
        inputs=["drive"],
    )


def learned(rate: float, **settings: Any) -> tuple[lr.FitResult, lr.SequenceData]:
    data = decaying(16, 0)
    model = leaky(data)
    given = QUIET | {"optimizer": lr.AdamW(rate, weight_decay=0.0), "objective": lr.ELBO(kl=lr.KLWarmUp(0.0))}
    return lr.fit(model, lr.Guide(model), data, seed=0, **(given | settings)), data


def total(result: lr.FitResult, data: lr.SequenceData) -> float:
    return result.posterior(data, device="cpu").evidence("exact").total


@pytest.mark.slow
def test_a_fit_that_needs_more_than_a_thousand_steps_goes_on() -> None:
    result, data = learned(1.5e-3, stopping=lr.EarlyStopping(every=50, patience=3))
    assert result.stop_reason.startswith("converged")
    assert steps_of(result) > 1000
    stopped, _ = learned(1.5e-3, steps=1000)
    best, _ = learned(1e-2, steps=600)
    numbers = sum(parameter.numel() for parameter in result.model.parameters())
    assert total(result, data) > total(best, data) - 0.1 * numbers
    assert total(stopped, data) < total(best, data) - numbers  # where it would have stopped


def test_a_fit_that_converges_early_ends_early() -> None:
    result, data = learned(3e-2, stopping=lr.EarlyStopping(every=10, patience=5))
    assert result.stop_reason.startswith("converged")
    assert steps_of(result) < 600
    best, _ = learned(1e-2, steps=600)
    numbers = sum(parameter.numel() for parameter in result.model.parameters())
    assert total(result, data) > total(best, data) - 0.1 * numbers


def test_a_fit_of_given_steps_says_whether_its_bound_still_rose() -> None:
    rng = np.random.default_rng(0)
    noise, steps = rng.normal(size=80), np.arange(80)
    rising = all_steps({"elbo": list(0.1 * steps + 0.1 * noise)}, "elbo")
    assert "the training ELBO was still rising, by 1.990 +- 0.035 nats per sequence" in rising  # 20 steps of 0.1
    flat = all_steps({"validation_elbo": list(noise), "elbo": list(0.1 * steps)}, "elbo")
    assert flat == "steps: all steps were taken; the validation ELBO no longer rose beyond its noise"
    assert "too seldom" in all_steps({"validation_iwae": [1.0, 2.0], "iwae": list(noise)}, "iwae")
