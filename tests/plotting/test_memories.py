"""Plots of memories show the numbers that they are given."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot

from latentrnn import plotting


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def test_time_constants_have_medians_and_intervals():
    drawn = np.linspace(0.1, 0.3, 101)[:, None] * np.array([1.0, 2.0])
    ax = plotting.time_constants(drawn, jacobian=drawn[:, 0], plausible=(0.1, 0.4), names=["a", "b"])
    bars, dots = ax.lines[::2], ax.lines[1::2]
    np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], [0.2, 0.4, 0.2])
    np.testing.assert_allclose(bars[1].get_xdata(), [0.22, 0.58])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "Jacobian"]
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "time constant (s)"


def test_a_spectrum_has_what_falls_and_what_grows():
    ax = plotting.spectrum([0.0, 5.0, 2.0, np.nan], [0.2, 0.1, -0.3, np.nan], time_unit="step")
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.0, 0.2], [5.0, 0.1]])
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [2.0])
    assert ax.get_ylabel() == "time constant (steps)"


def test_gradient_flow_has_a_line_per_model():
    lags, drawn = np.array([1, 10]), np.array([[0.9, 0.3], [0.9, 0.1], [0.9, 0.2]])
    ax = plotting.gradient_flow(lags, {"a": drawn, "b": drawn * 2})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.9, 0.2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_sensitivity_has_a_line_per_input():
    values = np.zeros((4, 3, 2, 2))
    values[:, :, 0, 0], values[:, :, 1, 0] = 3.0, 4.0
    ax = plotting.sensitivity([0, 1, 2], values, ["x", "z"])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 5.0)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 0.0)


def test_gates_and_what_they_let_in():
    gate = np.exp(np.linspace(-3, 0, 50))
    axes = plotting.gate_sensitivity(gate, {"held": -2 * gate, "free": gate**2}, name="input gate")
    assert axes[0].get_title() == "held: r = 1.000, slope 1.00"
    assert axes[1].get_title() == "free: r = 1.000, slope 2.00"
    np.testing.assert_allclose(axes[0].lines[1].get_ydata(), 2 * gate[[0, -1]])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="taus: expected"):
        plotting.time_constants(np.zeros(3))
    with pytest.raises(ValueError, match="names: expected 2"):
        plotting.time_constants(np.ones((3, 2)), names=["a"])
    with pytest.raises(ValueError, match="frequency"):
        plotting.spectrum(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"norms\['a'\]"):
        plotting.gradient_flow([1], {"a": np.zeros(1)})
    with pytest.raises(ValueError, match="values"):
        plotting.sensitivity([1], np.zeros((2, 1)), ["x"])
    with pytest.raises(ValueError, match=r"paths\['held'\]"):
        plotting.gate_sensitivity(np.ones(3), {"held": np.ones(2)})
    with pytest.raises(ValueError, match="axes: expected 1"):
        plotting.gate_sensitivity(np.ones(3), {"held": np.ones(3)}, axes=[])
