"""What is drawn of trials by condition, of many channels and of forecasts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentrnn import plotting


def axes():
    from matplotlib import pyplot

    return pyplot.subplots()[1]


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    conditions = np.array(["left", "right"] * 15)
    rate = np.where(conditions[:, None] == "left", 0.2, 1.0) * np.ones(20)
    return rng.poisson(rate).astype(float), conditions, rate


def test_a_psth_is_the_mean_of_each_condition_in_hertz(trials):
    counts, conditions, rate = trials
    counts[0, 3] = np.nan
    mine = axes()
    assert plotting.psth(counts, conditions, rates=rate, dt=0.02, start=-0.1, ax=mine) is mine
    solid, dashed = mine.lines[0], mine.lines[1]
    np.testing.assert_allclose(solid.get_ydata(), np.nanmean(counts[conditions == "left"], 0) / 0.02)
    np.testing.assert_allclose(solid.get_xdata(), -0.1 + 0.02 * np.arange(20))
    np.testing.assert_allclose(dashed.get_ydata(), 10.0)
    assert [text.get_text() for text in mine.get_legend().get_texts()] == ["left", "right"]
    smooth = plotting.psth(counts[1:], smooth=3)
    np.testing.assert_allclose(smooth.lines[0].get_ydata()[1], counts[1:, :3].mean())


def test_a_raster_has_a_row_for_each_trial_conditions_together(trials):
    counts, conditions, _ = trials
    ax = plotting.trial_raster(counts, conditions, dt=0.02)
    ticks = [row.get_positions() for row in ax.collections]
    assert len(ticks) == 30
    ordered = np.concatenate([counts[conditions == "left"], counts[conditions == "right"]])
    assert [len(row) for row in ticks] == (ordered > 0).sum(1).tolist()
    assert [text.get_text() for text in ax.texts] == ["left", "right"]


def test_trajectories_are_means_of_conditions_and_end_in_a_dot():
    time = np.linspace(0, np.pi, 12)
    paths = np.stack([np.stack([np.cos(time), sign * np.sin(time), 0 * time], -1) for sign in (1, -1, 1, -1)])
    paths[0, -2:] = np.nan
    ax = plotting.condition_trajectories(paths, [0, 1, 0, 1], directions=np.eye(2, 3), single=False)
    mean = np.nanmean(paths[[0, 2]], 0)
    centre = np.concatenate([mean, paths[1]]).mean(0)
    np.testing.assert_allclose(np.stack(ax.lines[0].get_data(), 1), (mean - centre)[:, :2], atol=1e-12)
    np.testing.assert_allclose(np.stack(ax.lines[2].get_data(), 1)[0], (mean - centre)[-1, :2], atol=1e-12)
    plotting.condition_trajectories(paths[..., :1]).figure.canvas.draw()
    plotting.condition_trajectories(paths, [0, 1, 0, 1]).figure.canvas.draw()


def test_inferred_inputs_are_averaged_over_draws_and_trials():
    draws = np.random.default_rng(1).normal(size=(5, 6, 9, 2))
    ax = plotting.inferred_inputs(draws, list("aabbab"), dim=1, dt=0.1)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), draws[:, [0, 1, 4], :, 1].mean((0, 1)))


def test_a_map_has_a_row_for_each_channel_in_order_of_its_peak():
    rates = torch.eye(4)[[2, 0, 3, 1]] + 0.1
    ax = plotting.rate_map(rates, names=list("abcd"), dt=0.5, sort=True)
    image = ax.images[0]
    np.testing.assert_allclose(np.asarray(image.get_array()), (0.1 + np.eye(4)) / 0.5, rtol=1e-6)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "a", "d", "b"]
    assert tuple(image.get_extent()) == (0.0, 2.0, 3.5, -0.5)


def test_a_fan_is_made_of_quantiles_over_dates():
    from matplotlib.dates import num2date

    draws = np.arange(101.0)[:, None] * np.ones(3)
    days = np.arange("2024-02-28", "2024-03-02", dtype="datetime64[D]")
    ax = plotting.forecast_fan(
        draws, days, past=[1.0, 2.0], past_times=days[:2] - np.timedelta64(2, "D"), later=[1.0, 2.0, 3.0]
    )
    median = ax.lines[1]
    np.testing.assert_allclose(median.get_ydata(), 50.0)
    assert median.get_xdata()[1] == np.datetime64("2024-02-29")
    wide = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([wide[:, 1].min(), wide[:, 1].max()], [5.0, 95.0])
    ax.figure.canvas.draw()
    assert num2date(ax.get_xlim()[1]).month == 3


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (lambda: plotting.psth(np.zeros(3)), "counts: expected 2 axes"),
        (lambda: plotting.psth(np.zeros((3, 4)), ["a"]), "conditions: expected one for each of 3 trials"),
        (lambda: plotting.psth(np.zeros((3, 4)), smooth=2), "smooth: expected an odd number"),
        (lambda: plotting.psth(np.zeros((3, 4)), rates=np.zeros((3, 5))), "rates: expected the shape of counts"),
        (lambda: plotting.trial_raster(np.zeros((0, 4))), "counts: expected 2 axes, none of them empty"),
        (lambda: plotting.condition_trajectories(np.zeros((3, 4, 5)), directions=np.eye(3)), r"expected \(2, 5\)"),
        (lambda: plotting.inferred_inputs(np.zeros((2, 3, 4, 5)), dim=5), "dim: expected 0 to 4"),
        (lambda: plotting.rate_map(torch.zeros(3)), r"rates: expected \(time, channel\)"),
        (lambda: plotting.rate_map(torch.zeros(3, 2), names=["a"]), "names: expected one for each of 2"),
        (lambda: plotting.forecast_fan(np.zeros((4, 3)), np.zeros(2)), "samples, times"),
        (lambda: plotting.forecast_fan(np.zeros((4, 3)), np.zeros(3), levels=[2]), "levels"),
        (lambda: plotting.forecast_fan(np.zeros((4, 3)), np.zeros(3), past=[1]), "both or neither"),
        (lambda: plotting.forecast_fan(np.zeros((4, 3)), np.zeros(3), later=[1]), "later"),
    ],
)
def test_mistakes_are_named(draw, match):
    with pytest.raises(ValueError, match=match):
        draw()
