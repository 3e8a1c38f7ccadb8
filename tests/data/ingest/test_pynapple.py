"""Recordings as pynapple holds them, against bins counted and averaged one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import latentrnn as lr

nap = pytest.importorskip("pynapple", reason="pynapple is not installed")
DT = 0.1
read = lr.SequenceData.from_pynapple


@pytest.fixture(scope="module")
def recording() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    times = {3: np.sort(rng.uniform(0, 60, 900)), 8: np.sort(rng.uniform(0, 60, 200))}
    clock = np.sort(rng.uniform(0, 60, 1500))
    return {
        "times": times,
        "units": nap.TsGroup({name: nap.Ts(t) for name, t in times.items()}),
        "hand": nap.TsdFrame(t=clock, d=np.stack([np.sin(clock), clock], 1), columns=["x", "y"]),
        "trials": nap.IntervalSet(start=[1.0, 10.03, 40.0], end=[3.0, 11.5, 40.95], metadata={"cue": ["a", "b", "a"]}),
    }


def test_trials_are_cut_and_binned(recording: dict[str, Any]) -> None:
    data = read({"spikes": recording["units"], "hand": recording["hand"]}, dt=DT, trials=recording["trials"])
    assert data.host_lengths.tolist() == [20, 14, 9]
    assert data.metadata["cue"].tolist() == ["a", "b", "a"]
    assert data.metadata["start"].tolist() == [1.0, 10.03, 40.0]
    assert data.spec.heads["spikes"].channel_names == ("3", "8")
    assert data.spec.heads["hand"].channel_names == ("x", "y")
    clock, values = np.asarray(recording["hand"].t), np.asarray(recording["hand"].d)
    for trial, start in enumerate((1.0, 10.03, 40.0)):
        for step in range(int(data.host_lengths[trial])):
            low, high = start + step * DT, start + (step + 1) * DT
            for channel, times in enumerate(recording["times"].values()):
                assert data.observations["spikes"][trial, step, channel] == ((times >= low) & (times < high)).sum()
            inside = (clock >= low) & (clock < high)
            assert bool(data.masks["hand"][trial, step, 0]) == inside.any()
            if inside.any():
                np.testing.assert_allclose(data.observations["hand"][trial, step], values[inside].mean(0), rtol=1e-5)


def test_a_covariate_has_a_value_in_every_bin(recording: dict[str, Any]) -> None:
    clock = np.arange(0, 60, 0.25)  # slower than the bins
    slow = nap.Tsd(t=clock, d=2 * clock)
    data = read({"spikes": recording["units"]}, {"speed": slow}, dt=DT, trials=recording["trials"])
    centres = 1.0 + (np.arange(20) + 0.5) * DT
    found = data.covariates["speed"][0, :, 0].numpy()
    sampled = np.isin(np.arange(20), np.floor((clock[(clock >= 1) & (clock < 3)] - 1) / DT + 1e-6))
    np.testing.assert_allclose(found[~sampled], 2 * centres[~sampled], rtol=1e-5)
    assert sampled.sum() == 8
    short = nap.Tsd(t=clock[:20], d=clock[:20])
    with pytest.raises(ValueError, match=r"covariates\['speed'\]: expected samples all through the trial"):
        read({"spikes": recording["units"]}, {"speed": short}, dt=DT, trials=recording["trials"])


def test_without_trials_each_epoch_of_the_recording_is_a_sequence(recording: dict[str, Any]) -> None:
    epochs = nap.IntervalSet(start=[0.0, 30.0], end=[5.0, 32.0])
    data = read({"spikes": recording["units"].restrict(epochs)}, dt=DT)
    assert data.host_lengths.tolist() == [50, 20]
    assert float(data.observations["spikes"][data.masks["spikes"]].sum()) == sum(
        ((t >= low) & (t < high)).sum() for t in recording["times"].values() for low, high in ((0, 5), (30, 32))
    )


def test_mistakes_are_named(recording: dict[str, Any]) -> None:
    units = recording["units"]
    with pytest.raises(TypeError, match="observations: expected a dict of name to time series"):
        read(units, dt=DT)
    with pytest.raises(TypeError, match=r"observations\['y'\]: expected a time series of pynapple"):
        read({"y": np.ones(3)}, dt=DT)
    with pytest.raises(TypeError, match=r"covariates\['x'\]: expected values in time"):
        read({"y": units}, {"x": units}, dt=DT)
    with pytest.raises(TypeError, match="trials: expected intervals of pynapple"):
        read({"y": units}, dt=DT, trials=[(0, 1)])
    with pytest.raises(ValueError, match=r"at least one bin of 0\.1 s in each, found 0\.05 s at 1"):
        read({"y": units}, dt=DT, trials=nap.IntervalSet([0, 2.0], [1.0, 2.05]))
    with pytest.raises(ValueError, match="at least one head"):
        read({}, dt=DT)
