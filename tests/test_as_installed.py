"""What a reader does first, with nothing but what `pip install` brought: whichever ArviZ, matplotlib and h5py that is.

`.ci/versions installed` runs this file in environments that no constraint has touched.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyro.distributions as dist
import pytest

import latentrnn as lr
from latentrnn.support.arviz_generations import library


@pytest.fixture(scope="module")
def posteriors() -> dict[str, lr.Posterior]:
    mpl.use("Agg")
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.poisson(2.0, (12, 8, 2)).astype(float)}, dt=0.1)
    found = {}
    for name, size in (("small", 2), ("large", 4)):
        head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})
        model = lr.LatentRNN(data.spec, transition=lr.GRU(size), latent=lr.Innovations(2), observations={"y": head})
        guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
        quiet, cpu = lr.Reporting(progress=False), lr.Compute(device="cpu")
        result = lr.fit(model, guide, data[:6], steps=5, seed=0, reporting=quiet, compute=cpu)
        found[name] = result.posterior(data[6:], device="cpu")
    return found


def test_the_export_is_summarised_and_drawn(posteriors: dict[str, lr.Posterior]) -> None:
    az: Any = library()
    exported = posteriors["small"].to_arviz(num_samples=20, num_particles=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ's own, about few draws
        assert len(az.summary(exported)) == 2
        az.plot_trace(exported)
        az.plot_forest(exported)
        if hasattr(az, "plot_ppc"):
            az.plot_ppc(exported, num_pp_samples=5)
        else:
            az.plot_ppc_dist(exported, num_samples=5)


def test_models_are_compared(posteriors: dict[str, lr.Posterior]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # so few particles
        table = lr.compare(posteriors, num_particles=16)
    assert set(table.index) == {"small", "large"}
    assert table["rank"].tolist() == [0, 1]


def test_it_is_written_and_read(posteriors: dict[str, lr.Posterior], tmp_path: Path) -> None:
    path = posteriors["small"].to_netcdf(tmp_path / "posterior.nc", num_samples=5, num_particles=2)
    assert path.stat().st_size > 0
    assert set(posteriors["small"].summary(num_samples=20).columns) >= {"mean", "sd"}


def test_figures_are_drawn(posteriors: dict[str, lr.Posterior]) -> None:
    check = lr.posterior_predictive_check(posteriors["small"], num_samples=10)
    assert check.plot() is not None
