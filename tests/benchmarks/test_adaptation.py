"""Gain and adaptation of two recordings: estimates on responses that are known, and fits beside averages of trials."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("nitime", reason="the grasshopper's recordings come with nitime (the examples extra)")
pytest.importorskip("sklearn", reason="the regression is scikit-learn's")

from benchmarks import adaptation
from benchmarks.network_priors import folder, locust_counts

locust = pytest.mark.skipif(
    not (folder() / "locust_odour").is_dir(), reason="the locust's recordings are not beside the repository"
)


def test_time_constants_of_exponentials_are_found() -> None:
    time = 0.05 * np.arange(40)
    taus = np.array([0.15, 0.3])
    found = adaptation.found_of("locust", -0.2 + 0.5 * np.exp(-time / taus[:, None]), 0.05)
    said = adaptation.numbers("locust", found)
    np.testing.assert_allclose(said["tau of an exponential"], 1e3 * taus, rtol=0.02)
    np.testing.assert_allclose(said["tau"], 50 / (1 - np.exp(-0.05 / taus)), rtol=0.02)  # the sum over bins
    np.testing.assert_allclose(said["lost"], 5 / 3, rtol=0.02)
    assert "gain" not in said
    table = adaptation.report({"locust": {"planted": found}}, 1)
    assert "| locust | planted |  | 1.66 (1.66 to 1.67) |" in table


def test_units_that_the_odour_excites_are_picked() -> None:
    rates = np.full((500, 70, 4), 0.4)
    rates[:, adaptation.ODOUR.start + 2 : adaptation.ODOUR.start + 8, 1] = 0.7
    rates[:, adaptation.ODOUR, 2] = 0.2
    counts = np.random.default_rng(0).poisson(rates).astype(float)
    assert adaptation.excited(counts).tolist() == [1]
    parts = adaptation.folds(500)
    assert sorted(np.concatenate(parts)) == list(range(500))
    # what is averaged is the planted rise, which is gone by the end
    found = adaptation.averaged(counts, resamples=50)
    # (the peak itself is the largest of noisy averages, and too large)
    assert abs(float(found.response[:, 2:8].mean()) - 0.3) < 0.05
    assert abs(float(found.speed.plateau.median())) < 0.05


def test_the_level_rises_by_six_decibels_in_the_second_part_of_each_stretch() -> None:
    noise, louder = adaptation.stretches_of_noise(adaptation.receptor.load_recording(1).stimulus)
    assert noise.shape == (196, adaptation.STRETCH, 2)
    np.testing.assert_array_equal(noise[:, : adaptation.STEP], louder[:, : adaptation.STEP])
    np.testing.assert_allclose(20 * np.log10(louder[..., 0] / noise[..., 0])[:, adaptation.STEP :], 6.0)
    np.testing.assert_allclose(np.diff([noise, louder], axis=0)[0, :, adaptation.STEP :, 1], np.log(10) * 6 / 20)


@locust
@pytest.mark.slow
def test_the_antennal_lobe_adapts_as_its_averages_do_and_the_readout_leaves_little_to_the_gain() -> None:
    torch.manual_seed(0)
    counts, _ = locust_counts()
    units = adaptation.excited(counts)
    assert units.tolist() == [6]
    fits = adaptation.fit_locust(counts, range(1), "free")
    model, trials = adaptation.ask_locust(fits, counts, 20), adaptation.averaged(counts)
    own, other = (adaptation.numbers("locust", found) for found in (model, trials))
    spans = [adaptation.interval(said["tau"]) for said in (own, other)]
    assert spans[0][1] < spans[1][2]  # the intervals overlap
    assert spans[1][1] < spans[0][2]
    assert all(100 < low < high < 400 for _, low, high in spans)  # ms
    assert min(adaptation.interval(said["lost"])[1] for said in (own, other)) > 1  # it ends below its level before
    assert abs(adaptation.interval(own["gain"])[0]) < 0.1
    # control: trials whose bins change places have no unit that odour excites
    rng = np.random.default_rng(0)
    assert adaptation.excited(rng.permuted(counts, axis=1)).tolist() == []


@pytest.mark.slow
def test_the_receptor_adapts_within_milliseconds() -> None:
    fits = adaptation.fit_grasshopper(range(1), "free")
    model, other = adaptation.ask_grasshopper(fits, 20), adaptation.regression(12)
    own, rival = (adaptation.numbers("grasshopper", found) for found in (model, other))
    for said in (own, rival):
        _, low, high = adaptation.interval(said["tau"])
        assert 0.5 < low <= high < 10  # ms
        assert adaptation.interval(said["lost"])[1] > 0.4
    peak = [1e3 * found.speed.peak_time.values for found in (model, other)]
    assert all(4 <= time.min() <= time.max() <= 10 for time in peak)  # ms, the latency of receptor and nerve
    assert abs(adaptation.interval(own["gain"])[0]) < 0.05
