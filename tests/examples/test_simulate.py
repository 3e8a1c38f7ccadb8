"""The simulators of the gallery do what their equations say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import expit

from examples.simulate import (
    angle_memory,
    attention,
    attractor,
    autoregression,
    battery,
    chaos,
    clicks,
    delayed,
    depression,
    enhancers,
    flip_flop,
    forgetting,
    gait,
    leaky,
    lorenz,
    market,
    methylation,
    reaches,
    reactor,
    restarts,
    stays,
    trains,
    valve,
)


def recursion(inputs: np.ndarray, retention: float, start: float = 0.0) -> np.ndarray:
    """h_t = retention h_{t-1} + inputs_t by SciPy's filter."""
    begin = np.full((len(inputs), 1), retention * start)
    return lfilter([1.0], [1.0, -retention], inputs, zi=begin)[0]


def test_a_leak_is_a_filter_of_first_order() -> None:
    inputs = np.random.default_rng(0).normal(size=(3, 40))
    np.testing.assert_allclose(leaky(inputs, 0.7, 2.0), recursion(inputs, 0.7, 2.0), atol=1e-12)


def test_trains_have_eight_pulses_and_a_probe_after_delays_that_take_turns() -> None:
    found = depression(0, trains(5, delays=(10, 20)))
    assert found.pulses.shape == (5, 35, 1)
    assert found.pulses.sum((1, 2)).tolist() == [9.0] * 5
    np.testing.assert_allclose(found.delay, [0.1, 0.2, 0.1, 0.2, 0.1])
    assert found.probe.tolist() == [24, 34, 24, 34, 24]
    np.testing.assert_array_equal(np.isnan(found.spikes), found.pulses == 0)


def test_spikes_of_a_synapse_have_the_mean_that_the_equation_gives() -> None:
    found = depression(1, trains(20_000, delays=(10, 40)), tau=0.195, strength=0.5, rest=1.5)
    expected = 1.5 * np.exp(-0.5 * (recursion(found.pulses[:2, :, 0], np.exp(-0.01 / 0.195)) - 1.0))
    for kind in range(2):
        there = found.pulses[kind, :, 0] > 0
        error = np.sqrt(expected[kind, there] / 10_000)
        assert (np.abs(found.spikes[kind::2, there, 0].mean(0) - expected[kind, there]) < 5 * error).all()


def test_a_stimulus_gets_in_where_a_cue_opens_the_gate() -> None:
    found = attention(0, 400, own=2.0, noise=0.1)
    np.testing.assert_allclose(found.gate, expit(4 * found.cue + 2 * found.stimulus))
    assert abs(found.cue.std() - 1) < 0.05
    left = found.response[..., 0] - recursion((found.gate * found.stimulus)[..., 0], np.exp(-0.1))
    assert abs(left.std() - 0.1) < 0.005
    assert float(np.abs(attention(0, 9, sharp=0.0).gate - 0.5).max()) == 0.0


def test_counts_follow_a_memory_as_far_as_the_valve_is_open() -> None:
    found = valve(0, 2000, weight=1.2)
    np.testing.assert_allclose(found.memory[..., 0], recursion(found.stimulus[..., 0] / 2, np.exp(-0.1)), atol=1e-12)
    np.testing.assert_allclose(found.gate, expit(4 * found.cue))
    rate = np.exp(1.2 * found.gate * np.tanh(found.memory))
    for some in (found.gate > 0.9, found.gate < 0.1, found.memory > 1):
        assert abs(found.counts[some].mean() - rate[some].mean()) < 5 * np.sqrt(rate[some].mean() / some.sum())


def test_the_first_input_is_asked_for() -> None:
    found = delayed(0, 4000, delay=5, distraction=0.3, noise=0.1)
    assert found.inputs.shape == (4000, 6, 1)
    np.testing.assert_allclose(found.inputs.std((0, 2)), [1.0, 0.3, 0.3, 0.3, 0.3, 0.3], rtol=0.05)
    assert abs((found.answer - found.inputs[:, 0]).std() - 0.1) < 0.01


def test_recall_follows_rehearsals() -> None:
    found = forgetting(0, 4000, decay=30.0, gain=3.0, guess=-2.0)
    asked = np.isfinite(found.recalled[..., 0])
    assert np.flatnonzero(asked.any(0)).tolist() == list(range(3, 120, 4))
    probability = expit(-2.0 + 3.0 * recursion(found.rehearsed[..., 0], np.exp(-1 / 30)))
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.9), (0.9, 1.0)):
        chosen = asked & (probability >= low) & (probability < high)
        expected = probability[chosen]
        error = np.sqrt((expected * (1 - expected)).sum()) / chosen.sum()
        assert abs(found.recalled[..., 0][chosen].mean() - expected.mean()) < 5 * error


def test_a_methylated_share_averages_its_exposure() -> None:
    found = methylation(0, 400, rate=0.08, start=0.2, depth=20)
    level = recursion(0.08 * found.exposure[..., 0], 0.92, 0.2)
    np.testing.assert_allclose(found.level[..., 0], level, atol=1e-12)
    assert 0 <= found.exposure.min() <= found.exposure.max() <= 1
    there = np.isfinite(found.reads[..., 0])
    assert np.flatnonzero(there.any(0)).tolist() == list(range(2, 90, 3))
    error = np.sqrt((level * (1 - level) / 20)[there].mean() / there.sum())
    assert abs((found.reads[..., 0] / 20 - level)[there].mean()) < 5 * error


def test_a_promoter_below_one_enhancer_is_active_within_the_window() -> None:
    found = enhancers(0, 400)
    np.testing.assert_allclose(found.signal[..., 0], recursion(found.enhancer[..., 0], 0.95), atol=1e-12)
    assert 0.95 ** np.floor(found.window) > 0.35 > 0.95 ** np.ceil(found.window)
    active, signal = found.active[..., 0], found.signal[..., 0]
    for low, high in ((0.0, 0.1), (0.1, 0.35), (0.35, 0.7), (0.7, 9.0)):
        chosen = np.isfinite(active) & (signal >= low) & (signal < high)
        expected = expit(15.0 * (signal[chosen] - 0.35))
        error = np.sqrt((expected * (1 - expected)).sum()) / chosen.sum()
        assert abs(active[chosen].mean() - expected.mean()) < 5 * error


def test_visitors_stay_follow_links_or_go_after_interests() -> None:
    visits = clicks(0, 4000, pages=5, interest=1.0)
    lengths = np.array([len(visit) for visit in visits])
    assert lengths.min() == 40
    assert lengths.mean() == pytest.approx(49.0, abs=5 * np.sqrt(90 / 4000))  # geometric above, of variance 90
    late = np.array([np.mean(visit[20:] == visit[19:-1]) for visit in visits])
    square = 5 * 0.1 * 1.1 / (0.5 * 1.5)  # expected sum of squares of Dirichlet(0.1), at which pages are then visited
    assert late.mean() == pytest.approx(0.3 + 0.7 * square, abs=5 * late.std() / np.sqrt(4000))
    plain = clicks(0, 2000, pages=3, interest=0.0)
    triples = np.concatenate([np.stack([v[:-2], v[1:-1], v[2:]], 1) for v in plain])
    for middle in range(3):  # of the first order: given the page, what was before says nothing
        table = np.array([
            [np.sum((triples == (first, middle, last)).all(1)) for last in range(3)] for first in range(3)
        ], float)  # fmt: skip
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        assert ((table - expected) ** 2 / np.maximum(expected, 1e-9)).sum() < 40.0  # chi-squared of 4 degrees: 4e-8


def test_the_sicker_are_charted_more_often_and_die() -> None:
    found = stays(0, 6000, channels=4)
    charted = np.isfinite(found.charts)
    often = charted.mean((1, 2))
    died = found.died[:, 0] > 0
    assert often[died].mean() > often[~died].mean() + 0.1
    deviation = np.where(charted, found.charts * (-1.0) ** np.arange(4), 0).sum((1, 2)) / np.maximum(
        charted.sum((1, 2)), 1
    )
    assert deviation[died].mean() > deviation[~died].mean() + 0.1
    plain = stays(0, 6000, channels=4, informative=0.0)
    share = np.isfinite(plain.charts).mean((1, 2))
    chance = 1 / (1 + np.exp(2.0))
    assert share.mean() == pytest.approx(chance, abs=5 * np.sqrt(chance * (1 - chance) / (6000 * 48 * 4)))
    dead = plain.died[:, 0] > 0
    error = share.std() * np.sqrt(1 / dead.sum() + 1 / (~dead).sum())
    assert abs(share[dead].mean() - share[~dead].mean()) < 5 * error


def test_units_speak_up_in_the_direction_that_they_prefer() -> None:
    found = reaches(0, 800, units=12)
    towards = np.stack([np.cos(found.direction * np.pi / 4), np.sin(found.direction * np.pi / 4)], -1)
    speed = (found.velocity * towards[:, None]).sum(-1)
    np.testing.assert_allclose(np.linalg.norm(found.velocity, axis=-1), np.abs(speed), atol=1e-9)
    assert 500 < speed.max(1).min() < speed.max() <= 1000  # mm/s; bins may miss the top of a bell
    assert np.bincount(found.direction).tolist() == [100] * 8
    still, moving = found.counts[:, 0], found.counts[:, 6:9].mean(1)  # velocity 100 ms later: before, and at its height
    rest = still.mean(0) / 0.02
    assert 1.0 < rest.min() < rest.max() < 60.0
    by_target = np.stack([moving[found.direction == each].mean(0) for each in range(8)])
    waves = np.abs(np.fft.rfft(np.log(by_target), axis=0))[1:]  # log rates are cosines of the direction
    assert (waves[0] > 3 * waves[1:].max(0)).mean() > 0.9
    idle = reaches(0, 800, units=12, tuning=0.0).counts
    means = idle.mean(0)
    errors = np.sqrt(means.mean(0) / 800)
    assert (np.abs(means - means.mean(0)) < 5 * errors).all()  # nothing changes in the course of a reach


def test_returns_follow_losses_and_sentiment() -> None:
    quiet, moved = market(0, 20_000, effect=0.0, leverage=0.0), market(0, 20_000, leverage=0.0)
    np.testing.assert_array_equal(quiet.sentiment, moved.sentiment)
    assert moved.sentiment.std() == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(np.log(moved.returns / quiet.returns), 0.25 * moved.sentiment, atol=1e-9)
    size = np.log(quiet.returns**2)
    assert abs(np.corrcoef(size, quiet.sentiment)[0, 1]) < 0.05
    falling = market(0, 20_000, effect=0.0, leverage=0.2)
    for found, least, most in (
        (quiet, -0.1, 0.1),
        (falling, 0.2, 1.0),
    ):  # log-variance after losses above that after gains
        after, lost = np.log(found.returns[1:] ** 2), found.returns[:-1] < 0
        assert least < after[lost].mean() - after[~lost].mean() < most


@pytest.mark.parametrize(
    "simulator",
    [
        lambda seed: depression(seed, trains(9)),
        lambda s: attention(s, 9),
        lambda s: valve(s, 9),
        lambda s: delayed(s, 9),
        lambda s: forgetting(s, 9),
        lambda s: methylation(s, 9),
        lambda s: enhancers(s, 9),
        lambda s: reaches(s, 9),
        lambda s: market(s, 9),
        lambda s: restarts(s, 9),
        lambda s: chaos(s, 3, neurons=4)[:2],
    ],
    ids=[
        "depression",
        "attention",
        "valve",
        "delayed",
        "forgetting",
        "methylation",
        "enhancers",
        "reaches",
        "market",
        "restarts",
        "chaos",
    ],
)
def test_a_seed_says_what_is_simulated(simulator: Callable[[int], Any]) -> None:
    first, again, other = simulator(0), simulator(0), simulator(1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(not np.array_equal(one, two, equal_nan=True) for one, two in zip(first, other, strict=True))


def test_bits_keep_the_sign_of_their_last_pulse() -> None:
    found = flip_flop(0, 50, steps=30)
    for trial, bit in ((0, 0), (7, 2)):
        pulses = found.pulses[trial, :, bit]
        last = [np.flatnonzero(pulses[: t + 1])[-1] for t in range(30)]
        np.testing.assert_array_equal(found.bits[trial, :, bit], pulses[last])
    loading = np.random.default_rng(100).normal(size=(3, 24))
    expected = np.exp(found.bits @ (loading * 0.8 / np.linalg.norm(loading, axis=0)))
    assert abs((found.spikes - expected).mean()) < 6 * np.sqrt(expected.mean() / expected.size)
    assert found.spikes.shape == (50, 30, 24)


def test_a_heading_goes_by_its_velocity_and_neurons_prefer_angles() -> None:
    found = angle_memory(0, 400)
    np.testing.assert_allclose(np.diff(found.angle, axis=1), found.velocity[:, 1:, 0], atol=1e-12)
    np.testing.assert_allclose(found.cue[:, 0], np.stack([np.cos(found.angle[:, 0]), np.sin(found.angle[:, 0])], -1))
    assert not found.cue[:, 1:].any()
    preferred = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    near = np.cos(found.angle[..., None] - preferred) > 0.95
    rate = found.spikes[near].mean()
    assert abs(rate - np.exp(1.2 * 0.983)) < 6 * np.sqrt(rate / near.sum()) + 0.02


def test_a_memory_is_emptied_at_cues_that_tell_of_a_change() -> None:
    found, through = restarts(0, 60), restarts(0, 60, informative=False)
    np.testing.assert_array_equal(found.cue, through.cue)
    cues = found.cue[..., 0] > 0
    assert 0.05 < cues.mean() < 0.08
    np.testing.assert_allclose(found.memory[cues], found.inputs[cues])  # nothing of the past
    np.testing.assert_allclose(through.memory[..., 0], recursion(through.inputs[..., 0], 0.95), atol=1e-12)
    assert (found.response - found.memory).std() == pytest.approx(0.1, rel=0.05)


def test_a_population_follows_lorenz_attractor() -> None:
    starts = attractor(np.random.default_rng(0), 5, 2)[:, -1]
    path = lorenz(starts, 2, step=1e-5)
    x, y, z = starts.T
    slope = np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)
    np.testing.assert_allclose((path[:, 1] - path[:, 0]) / 1e-5, slope, rtol=1e-2, atol=1e-2)
    found = chaos(0, 40, neurons=6)
    np.testing.assert_allclose(found.latents.std((0, 1)), 1.0)
    regressors = np.concatenate([found.latents, np.ones_like(found.latents[..., :1])], -1).reshape(-1, 4)
    weights = np.zeros((4, 6))
    for _ in range(20):  # Newton's steps of a Poisson regression
        rates, counts = np.exp(regressors @ weights), found.spikes.reshape(-1, 6)
        for k in range(6):
            curvature = regressors.T @ (rates[:, k : k + 1] * regressors)
            weights[:, k] += np.linalg.solve(curvature, regressors.T @ (counts - rates)[:, k])
    np.testing.assert_allclose(np.linalg.norm(weights[:3], axis=0), 0.8, atol=0.2)
    np.testing.assert_allclose(weights[3], 0.0, atol=0.25)


def test_a_load_stiffens_the_knee_long_after_it_showed() -> None:
    found = gait(0, 400, strides=6, load=0.6)
    showed = found.push[..., 0]
    weight = showed.max(1)
    assert ((showed > 0).sum(1) == 5).all()
    assert np.flatnonzero(showed.any(0)).max() < 25
    spread = found.knee[:, -80:, 0].std(1)
    free = np.sqrt((18**2 + 14**2) / 2)  # of a knee without load, over whole strides
    expected = np.sqrt(((1 - 0.6 * weight) * free) ** 2 + 1.5**2)
    assert np.corrcoef(spread, expected)[0, 1] > 0.98
    assert abs(np.mean(spread / expected) - 1) < 0.02
    assert abs(np.corrcoef(gait(0, 400, load=0.0).knee[:, -80:, 0].std(1), weight)[0, 1]) < 0.2


def test_a_cell_stands_higher_on_charge_and_creeps_at_rest() -> None:
    found = battery(0, 1.0, cycles=1)
    charge = np.cumsum(found.current) * 30 / 3600
    assert charge.min() == pytest.approx(-28.0, abs=0.3)
    down, up = (np.interp(14.0, *pair) for pair in (
        (-charge[found.current < 0], found.voltage[found.current < 0]),
        (-charge[found.current > 0][::-1], found.voltage[found.current > 0][::-1]),
    ))  # fmt: skip
    ohmic = 0.002 * 45
    assert up - down > ohmic + 0.03
    rest = found.voltage[60 + 112 : 60 + 112 + 60]
    assert rest[-1] - rest[0] > 0.02
    forgetful = battery(0, 1.0, cycles=1, memory=0.0).voltage[60 + 112 : 60 + 112 + 60]
    assert abs(forgetful[-1] - forgetful[0]) < 0.006


def test_a_noisy_autoregression_has_the_correlations_that_the_equation_gives() -> None:
    found = autoregression(0, 40_000, 12, phi=0.8, noise=0.5)[..., 0]
    assert found.shape == (40_000, 12)
    np.testing.assert_allclose(found.var(0), 1.25, rtol=0.04)
    for lag in (1, 4, 9):
        correlation = np.corrcoef(found[:, 0], found[:, lag])[0, 1]
        assert correlation == pytest.approx(0.8**lag / 1.25, abs=0.03)


def test_a_reactor_keeps_its_matter_and_stops_where_nothing_reacts() -> None:
    found = reactor(0, 50)
    total = found.added.sum((1, 2))
    purest = found.course[:, -1, 0]
    assert (purest <= np.minimum(found.charge, total) + 1e-9).all()  # of one A and one B one C
    assert (np.isfinite(found.product).sum(1) == 12).all()
    errors = (found.product - found.course)[np.isfinite(found.product)]
    assert errors.std() == pytest.approx(0.02, rel=0.15)
    made = purest / np.clip(found.purity, 1e-9, None)  # C and D together
    assert (made <= np.minimum(found.charge, total) * 1.05 + 0.02).all()
    assert not reactor(0, 3, react=0.0).course.any()
