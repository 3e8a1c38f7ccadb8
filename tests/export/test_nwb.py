"""Results in NWB files, read back by pynwb and by pynapple."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pynapple
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr

pynwb = pytest.importorskip("pynwb")
DRAWS = 5


@pytest.fixture(scope="module")
def posterior() -> lr.Posterior:
    rng = np.random.default_rng(0)
    units = pynapple.TsGroup(
        {4: pynapple.Ts(np.sort(rng.uniform(0, 60, 300))), 9: pynapple.Ts(np.arange(0.0, 60, 0.5))}
    )
    trials = pynapple.IntervalSet([2.0, 10.0, 20.0], [4.0, 11.0, 22.5], metadata={"side": ["left", "right", "left"]})
    data = lr.SequenceData.from_pynapple({"spikes": units}, dt=0.1, trials=trials)
    torch.manual_seed(0)
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(2), observations={"spikes": head})
    return lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)), data, device="cpu")


@pytest.fixture(scope="module")
def written(posterior: lr.Posterior, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lr.to_nwb(tmp_path_factory.mktemp("nwb") / "results.nwb", posterior, num_samples=DRAWS)


def test_means_are_read_back_at_the_recordings_own_times(posterior: lr.Posterior, written: Path) -> None:
    valid = posterior.data.valid
    with pynwb.NWBHDF5IO(str(written), "r") as io:
        module = io.read().processing["latentrnn"]
        rates = module["rates_spikes"]
        np.testing.assert_allclose(rates.data[:], posterior.mean("spikes", DRAWS)[valid] / 0.1, rtol=1e-6)
        expected = np.concatenate([begin + 0.1 * np.arange(bins) for begin, bins in ((2, 20), (10, 10), (20, 25))])
        np.testing.assert_allclose(rates.timestamps[:], expected)
        assert (rates.unit, rates.comments) == ("Hz", "4, 9")
        latents = posterior.latents(DRAWS)
        innovations = next(values for name, values in latents.items() if "innovations" in name)
        np.testing.assert_allclose(module["inferred_inputs"].data[:], innovations.mean(0)[valid], rtol=1e-6, atol=1e-7)
        assert module["states"].data.shape == (55, 4)


def test_trials_keep_their_times_and_what_is_known_of_them(written: Path) -> None:
    with pynwb.NWBHDF5IO(str(written), "r") as io:
        trials = io.read().trials.to_dataframe()
    assert trials.side.tolist() == ["left", "right", "left"]
    np.testing.assert_allclose(trials[["start_time", "stop_time"]], [[2.0, 4.0], [10.0, 11.0], [20.0, 22.5]])


def test_parameters_are_a_table_of_their_entries(posterior: lr.Posterior, written: Path) -> None:
    with pynwb.NWBHDF5IO(str(written), "r") as io:
        table = io.read().processing["latentrnn"]["parameters"].to_dataframe()
    draws = next(iter(posterior.parameters(200).values())).reshape(200, -1).double()
    assert table.entry.tolist() == ["(0,)", "(1,)"]
    np.testing.assert_allclose(table["mean"], draws.mean(0), rtol=1e-6)
    np.testing.assert_allclose(table["upper"], draws.quantile(0.95, 0), rtol=1e-6)


def test_pynapple_reads_rates_where_the_spikes_were(written: Path) -> None:
    rates = pynapple.load_file(str(written))["rates_spikes"]
    assert rates.shape == (55, 2)
    left = rates.restrict(pynapple.IntervalSet(10.0, 10.95))
    assert len(left) == 10


def test_sequences_without_starts_follow_one_another(tmp_path: Path) -> None:
    data = lr.SequenceData.from_arrays({"y": [np.ones((4, 1)), np.ones((2, 1))]}, dt=0.5, metadata={"dose": [1.0, 2.0]})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Gaussian()})
    begun = datetime(2024, 5, 1, 12, tzinfo=UTC)
    file = lr.to_nwb(tmp_path / "a.nwb", lr.Posterior(model, lr.Guide(model), data), num_samples=1, session_start=begun)
    with pynwb.NWBHDF5IO(str(file), "r") as io:
        found = io.read()
        assert found.session_start_time == begun
        assert found.processing["latentrnn"]["rates_y"].timestamps[:].tolist() == [0.0, 0.5, 1.0, 1.5, 3.0, 3.5]
        assert found.trials["dose"][:].tolist() == [1.0, 2.0]
        assert "parameters" not in found.processing["latentrnn"].data_interfaces


def test_mistakes_are_named(posterior: lr.Posterior, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        lr.to_nwb(tmp_path / "nowhere" / "a.nwb", posterior)
    with pytest.raises(ValueError, match="time zone"):
        lr.to_nwb(tmp_path / "a.nwb", posterior, session_start=datetime(2024, 5, 1))
    with pytest.raises(ValueError, match="waves"):
        lr.to_nwb(tmp_path / "a.nwb", posterior, ["waves"])
    assert not (tmp_path / "a.nwb").exists()
