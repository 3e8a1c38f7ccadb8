"""Plots of dynamics draw what they are given, into the Axes that they are given."""

from __future__ import annotations

import numpy as np
import pytest

from latentrnn import plotting


def new_axes(**options: object):
    from matplotlib import pyplot

    return pyplot.figure().add_subplot(**options)


def test_points_are_drawn_by_their_kind() -> None:
    states = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    ax = new_axes()
    assert plotting.fixed_points(states, [1, 0, 0, 0], [True, True, True, False], ax=ax) is ax
    drawn = {each.get_label(): each.get_offsets() for each in ax.collections}
    assert {label: len(places) for label, places in drawn.items()} == {"slow": 1, "saddle": 1, "stable": 2}
    plane = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    ax = plotting.fixed_points(states[:1], [0], [True], directions=plane, centre=[1.0, 1.0, 0.0], ax=new_axes())
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[-1.0, -1.0]])
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match="one number for each of 4 states"):
        plotting.fixed_points(states, [0], [True])


def test_a_field_has_stream_lines() -> None:
    x, y = np.linspace(-1, 1, 6), np.linspace(-2, 2, 5)
    grid = np.meshgrid(x, y)
    ax = plotting.phase_portrait(x, y, -grid[0], -grid[1], ax=new_axes())
    assert len(ax.collections[0].get_segments()) > 5
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match="expected \\(5, 6\\)"):
        plotting.phase_portrait(x, y, grid[0].T, grid[1].T)


def test_paths_are_drawn_in_two_or_three_dimensions() -> None:
    paths = np.random.default_rng(0).normal(size=(2, 5, 3))
    ax = plotting.trajectories(paths, ax=new_axes(projection="3d"))
    assert len(ax.lines) == 4
    ax = plotting.trajectories(paths[..., :2], label="mine", ax=new_axes())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), paths[0, :, 1])
    with pytest.raises(ValueError, match="2 or 3"):
        plotting.trajectories(paths[..., :1])


def test_a_spectrum_and_shares_are_drawn() -> None:
    ax = plotting.lyapunov([0.9, 0.0, -14.6], [0.1, 0.01, 0.1], ax=new_axes())
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.9, 0.0, -14.6])
    with pytest.raises(ValueError, match="exponents, errors"):
        plotting.lyapunov([0.9], [0.1, 0.2])
    shares = np.random.default_rng(0).random((4, 3))
    ax = plotting.explained_variance(shares, shares, shares, ax=new_axes())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), shares.mean(0))
    ax.figure.canvas.draw()


def test_fits_are_drawn_beside_each_other() -> None:
    r2, effect = np.array([[0.9, 0.8, np.nan], [0.9, 0.7, 0.0]]), np.array([[0.5, 0.1, np.nan], [0.4, 0.2, 0.0]])
    ax = plotting.replication(r2, effect, least_effect=0.01, ax=new_axes())
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.4, 0.2, 1e-4])
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match="r2, effect"):
        plotting.replication(r2, effect[:1])
    paths = np.random.default_rng(0).normal(size=(2, 6, 3))
    paths[1, 4:] = np.nan
    ax = plotting.alignment(paths, paths, ax=new_axes())
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), ax.lines[2].get_xdata())
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match="paths, others"):
        plotting.alignment(paths, paths[:1])


def test_gradients_of_heads_are_drawn_along_a_fit() -> None:
    cosine = np.stack([np.eye(3) + 0.1 * k for k in range(4)])
    norm = 10.0 ** np.arange(12).reshape(4, 3)
    pull, way = plotting.head_gradients(range(4), norm, cosine, ["a", "b", "c"], axes=[new_axes(), new_axes()])
    np.testing.assert_allclose([line.get_ydata() for line in pull.get_lines()], norm.T)
    drawn = {line.get_label(): line.get_ydata() for line in way.get_lines()[:3]}
    assert set(drawn) == {"a, b", "a, c", "b, c"}
    np.testing.assert_allclose(drawn["a, c"], [0.0, 0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="4 steps and 2 heads"):
        plotting.head_gradients(range(4), norm, cosine, ["a", "b"])
    with pytest.raises(ValueError, match="expected 2, got 1"):
        plotting.head_gradients(range(4), norm, cosine, ["a", "b", "c"], axes=[new_axes()])
