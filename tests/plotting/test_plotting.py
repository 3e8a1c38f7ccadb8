"""Plots draw what they are given, into the Axes that they are given."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from latentrnn import plotting
from latentrnn.criticism import posterior_predictive_check, time_rescaling
from latentrnn.criticism.checks import PredictiveCheck
from latentrnn.criticism.discrepancies import Discrepancy
from latentrnn.data import SequenceData
from tests.criticism.fakes import FakePosterior, poisson_one_step_ahead


def axes(number=1):
    from matplotlib import pyplot

    return list(pyplot.subplots(1, number, squeeze=False)[1].flat)


@pytest.fixture
def check():
    generator = torch.Generator().manual_seed(0)
    rates = torch.full((200, 3, 40, 2), 0.4)
    data = SequenceData.from_arrays(
        {"spikes": torch.poisson(rates[0], generator=generator), "field": torch.randn(3, 40, 1, generator=generator)}
    )
    replicates = {
        "spikes": torch.poisson(rates, generator=generator),
        "field": torch.randn(200, 3, 40, 1, generator=generator),
    }
    return posterior_predictive_check(FakePosterior(data, replicates=replicates))


def test_predictive_check_has_one_panel_per_statistic(check):
    panels = check.plot()
    assert len(panels) == len(check.discrepancies)
    panels[0].figure.canvas.draw()
    mine = axes(len(check.p_values["field"]))
    assert plotting.predictive_check(check, head="field", axes=mine) == mine
    observed = next(item for item in check.discrepancies if item.head == "field").observed
    assert any(line.get_xdata()[0] == pytest.approx(float(observed)) for line in mine[0].lines)


def test_predictive_check_survives_undefined_statistics():
    data = SequenceData.from_arrays({"spikes": torch.zeros(2, 30, 2)})
    replicates = torch.zeros(200, 2, 30, 2)
    replicates[:100, :, ::3] = 1.0
    panels = posterior_predictive_check(FakePosterior(data, replicates={"spikes": replicates})).plot()
    panels[0].figure.canvas.draw()


def test_time_rescaling_draws_each_channel_within_its_bound():
    rates = torch.full((1, 4000, 2), 0.1, dtype=torch.float64)
    counts = torch.poisson(rates, generator=torch.Generator().manual_seed(0))
    counts = torch.cat([counts, torch.zeros(1, 4000, 1)], -1)
    rates = torch.cat([rates, rates[..., :1]], -1)
    result = time_rescaling(poisson_one_step_ahead(rates, counts))
    (ax,) = axes()
    assert result.plot(ax=ax) is ax
    curves = [line for line in ax.lines if len(line.get_xdata()) > 2]
    assert len(curves) == 2  # the third channel is silent
    for channel, line in enumerate(curves):
        furthest = max(abs(y) for y in line.get_ydata())
        assert furthest == pytest.approx(float(result.statistic[channel] / result.bound_95[channel]))
    ax.figure.canvas.draw()


def test_raster_of_a_single_channel_lies_inside_its_axis():
    counts = torch.tensor([[0.0], [1.0], [0.0]])
    ax = plotting.raster(counts)
    (row,) = ax.collections
    low, high = ax.get_ylim()
    assert low < row.get_lineoffset() < high


def test_raster_ticks_are_events_in_seconds():
    counts = torch.zeros(10, 3)
    counts[[2, 5], 1] = 1.0
    (ax,) = axes()
    assert plotting.raster(counts, dt=0.5, start=1.0, ax=ax) is ax
    assert ax.collections[1].get_positions() == [2.0, 3.5]
    assert ax.collections[0].get_positions() == []
    assert ax.get_xlabel() == "time (s)"


def test_rates_are_shown_per_second_with_their_mean():
    samples = torch.rand(50, 20, 2, generator=torch.Generator().manual_seed(0))
    (ax,) = axes()
    assert plotting.rates(samples, channel=1, dt=0.01, ax=ax) is ax
    assert ax.lines[0].get_ydata() == pytest.approx((samples[..., 1].double().mean(0) / 0.01).tolist())
    assert ax.get_ylabel() == "rate (Hz)"


def test_history_draws_what_was_recorded():
    records = {
        "step": [0, 10, 20],
        "elbo": [-3.0, -2.0, -1.5],
        "kl_weight": [0, 1, 1],
        "validation_step": [10, 20],
        "validation_elbo": [-2.5, -2.2],
    }
    (ax,) = axes()
    assert plotting.history(records, ax=ax) is ax
    assert [line.get_label() for line in ax.lines] == ["elbo", "validation_elbo"]
    assert list(ax.lines[1].get_xdata()) == [10, 20]


ERRORS = {
    "head": (lambda check: check.plot(head="spiks"), "head: no head 'spiks'"),
    "axes": (lambda check: check.plot(axes=axes(2)), "axes: expected"),
    "raster": (lambda check: plotting.raster(torch.zeros(1, 2, 3)), r"counts: expected \(time, channel\)"),
    "rates": (lambda check: plotting.rates(torch.zeros(2, 3)), r"samples: expected \(sample, time, channel\)"),
    "level": (lambda check: plotting.rates(torch.zeros(2, 3, 1), level=2.0), "level: expected between 0 and 1"),
    "history": (lambda check: plotting.history({"step": [1]}, names=["elbow"]), "names: 'elbow' was not recorded"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case, check):
    call, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        call(check)


def test_importing_the_package_and_its_rooms_imports_no_plotting_library():
    """And plotting is an attribute of the package alone, before any other room has been asked for."""
    light = "assert not {'matplotlib', 'arviz', 'pandas', 'scipy'} & set(sys.modules), sorted(sys.modules);"
    code = (
        f"import sys, latentrnn as lr; assert callable(lr.plotting.raster); {light}"
        f"import latentrnn.plotting, latentrnn.criticism.checks, latentrnn.criticism.compare; {light}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_replicates_that_rounding_alone_tells_apart_are_drawn():
    close = 1e6 + 1e-10 * torch.arange(40, dtype=torch.float64)
    for samples in (close, torch.full((40,), 1e30, dtype=torch.float64), torch.zeros(40, dtype=torch.float64)):
        item = Discrepancy("y", "mean", ("all",), samples[0], samples, torch.tensor(1.0))
        ax = PredictiveCheck((item,), 1.0, 0.01, 40, "").plot()[0]
        assert sum(bar.get_height() for bar in ax.patches) == 40


def test_intervals_of_a_check_are_those_of_its_table():
    samples = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples[3, 1] = torch.nan
    item = Discrepancy("y", "mean", ("a", "b"), torch.tensor([-1.0, 1.0]), samples, torch.ones(2))
    check = PredictiveCheck((item,), 1.0, 0.01, 40, "")
    drawn = check.plot()[0].collections[0].get_segments()
    assert [segment[:, 1].tolist() for segment in drawn] == [[row["lower"], row["upper"]] for row in check.table]


def test_a_map_of_gates_has_a_row_per_unit_sorted_by_average() -> None:
    values = np.stack([np.full(5, 0.9), np.full(5, 0.1), np.full(5, 0.5)], -1)
    ax = plotting.gate_map(values, 0.01 * np.arange(5))
    shown = ax.images[0].get_array()
    assert shown is not None
    np.testing.assert_allclose(shown[:, 0], [0.1, 0.5, 0.9])
    np.testing.assert_allclose(ax.images[0].get_extent(), [-0.005, 0.045, -0.5, 2.5])
    with pytest.raises(ValueError, match="a time per step"):
        plotting.gate_map(values, np.arange(4))


def test_a_band_is_between_its_bounds() -> None:
    ax = plotting.band([0, 1, 2], [1, 2, 3], [0, 1, 2], [2, 3, 4], zero=True, label="effect")
    assert ax.get_xlabel() == "time (s)"
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1, 2, 3])
    assert ax.collections[0].get_paths()[0].vertices.max() == 4
    with pytest.raises(ValueError, match="alike"):
        plotting.band([0, 1], [1, 2, 3], [0, 1, 2], [2, 3, 4])


def test_saliency_is_drawn_as_shares():
    norm = torch.tensor([[1.0, 3.0, 0.0], [2.0, 2.0, 4.0]]).numpy()
    (ax,) = axes()
    assert plotting.saliency(norm, time=[0.0, 0.5, 1.0], unit="s", ax=ax) is ax
    assert ax.lines[0].get_ydata().tolist() == [0.25, 0.5, 0.25]
    assert ax.get_xlabel() == "time (s)"
    with pytest.raises(ValueError, match="norm"):
        plotting.saliency(-norm, ax=ax)
    with pytest.raises(ValueError, match="level"):
        plotting.saliency(norm, level=1.0, ax=ax)


def test_changes_and_weights_are_drawn_as_maps():
    (left, right) = axes(2)
    change = torch.tensor([[0.0, -2.0], [1.0, 0.0], [0.5, 0.0]]).numpy()
    plotting.mutagenesis(change, symbols="AC", ax=left)
    assert left.collections[0].get_clim() == (-2.0, 2.0)
    assert [label.get_text() for label in left.get_yticklabels()] == ["A", "C"]
    plotting.attention(change.clip(0), time=[3.0, 4.0, 5.0], ax=right)
    assert right.get_ylim() == (5.5, 2.5)
    with pytest.raises(ValueError, match="symbols"):
        plotting.mutagenesis(change, symbols="ACG", ax=left)
    with pytest.raises(ValueError, match="weight"):
        plotting.attention(change[0], ax=right)


def test_probes_are_drawn_beside_their_controls():
    (ax,) = axes()
    score, control = torch.rand(5, 2).numpy(), torch.rand(9, 2).numpy() - 1
    assert plotting.probe(score, control, names=["charge", "hydropathy"], metric="R2", ax=ax) is ax
    assert [label.get_text() for label in ax.get_xticklabels()] == ["charge", "hydropathy"]
    drawn = ax.collections[0].get_offsets()
    assert len(drawn) == 18
    assert drawn[:, 1].max() <= 0
    with pytest.raises(ValueError, match="variable"):
        plotting.probe(score, control[:, :1], ax=ax)
