"""The script that infers a Lorenz system from spikes, at tiny sizes; its bounds are held against what they must be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import latentrnn as lr
from benchmarks import lorenz


@pytest.fixture(scope="module")
def protocol() -> lorenz.Protocol:
    return lorenz.simulate(0, conditions=4, steps=30, unseen=12)


def test_the_system_is_lorenzs() -> None:
    start = np.array([[1.0, -2.0, 20.0], [-8.0, -7.0, 27.0]])
    path = lorenz.lorenz(start, 20)

    def slope(_: float, z: np.ndarray) -> list[float]:
        return [10 * (z[1] - z[0]), z[0] * (28 - z[2]) - z[1], z[0] * z[1] - 8 / 3 * z[2]]

    times = lorenz.SPEED * lorenz.BIN * np.arange(20)
    for own, first in zip(path, start, strict=True):
        solved = solve_ivp(slope, (0, times[-1]), first, t_eval=times, rtol=1e-10, atol=1e-10).y.T
        np.testing.assert_allclose(own, solved, atol=2e-3)


def test_trials_keep_the_protocol(protocol: lorenz.Protocol) -> None:
    full = lorenz.attractor(np.random.default_rng(1), 20, 2000)
    rates = np.exp(protocol.world.log_rates(protocol.world.standard(full))).mean((0, 1)) / lorenz.BIN
    assert rates.min() > 4.5
    assert rates.max() < 26
    assert [len(s) for s in (protocol.train, protocol.validation, protocol.repeated, protocol.new)] == [56, 8, 16, 12]
    assert {tuple(z) for z in protocol.repeated.latents[:, 0]} == {tuple(z) for z in protocol.train.latents[:, 0]}
    assert not {tuple(z) for z in protocol.new.latents[:, 0]} & {tuple(z) for z in protocol.train.latents[:, 0]}


def test_the_particle_smoother_is_calibrated_and_ahead_of_smoothed_counts(protocol: lorenz.Protocol) -> None:
    found = lorenz.smooth(protocol.world, protocol.new.counts, starts=40_000)
    row = lorenz.bound("smoother", protocol.world, protocol.new, found)
    rival = lorenz.kernel_smoothing(protocol)[1]
    assert row.rates > rival.rates + 0.2
    assert row.latents > rival.latents + 0.05
    assert row.coverage is not None
    assert 0.75 < row.coverage < 0.99
    others = lorenz.Trials(protocol.new.counts, np.roll(protocol.new.rates, 1, 0), np.roll(protocol.new.latents, 1, 0))
    wrong = lorenz.bound("control", protocol.world, others, found)
    assert wrong.coverage is not None
    assert wrong.coverage < 0.5
    assert wrong.rates < 0.5


def test_known_starts_are_told_apart(protocol: lorenz.Protocol) -> None:
    found = lorenz.known_starts(protocol, protocol.repeated.counts)
    assert lorenz.bound("known", protocol.world, protocol.repeated, found).rates > 0.97


def test_poisson_regression_finds_the_read_out(protocol: lorenz.Protocol) -> None:
    rates = lorenz.poisson_regression(protocol.train.latents, protocol.train.counts)
    assert lorenz.r2(rates(protocol.new.latents), protocol.new.rates) > 0.9


def test_coverage_counts_what_is_inside() -> None:
    rng = np.random.default_rng(0)
    draws, rates = rng.normal(size=(2000, 3, 40, 5)), rng.normal(size=(3, 40, 5))
    assert lorenz.coverage(draws, rates) == pytest.approx(0.9, abs=0.07)
    assert lorenz.coverage(draws, rates + 5) < 0.01


def test_from_fits_to_the_table(protocol: lorenz.Protocol, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lorenz, "simulate", lambda seed: protocol)
    monkeypatch.setattr(lorenz, "STARTS", 4000)
    monkeypatch.setattr(lorenz, "DRAWS", 20)
    monkeypatch.setattr(lorenz.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(lorenz, "ProcessPoolExecutor", lambda *settings: ThreadPoolExecutor(1))
    out = tmp_path / "lorenz.md"
    monkeypatch.setattr("sys.argv", ["lorenz.py", "--seeds", "2", "--steps", "3", "--out", str(out)])
    lorenz.main()
    table = out.read_text()
    for method in ("particle smoother", "model, seed 0", "model, seed 1", "model, 2 seeds pooled", "smoothed counts"):
        assert sum(line.startswith(f"| {method} |") for line in table.splitlines()) == 2
    assert lr.__version__ in table
