"""Fits that older versions saved come back as they were: `format_1` was written before classes carried modules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pyro import poutine

import latentrnn as lr
from latentrnn.inference.fitting.saving.manifest import MANIFEST
from tests.export import own_parts

FORMAT_1 = Path(__file__).parent / "format_1"
LOG_DENSITY = -122.61915588378906  # of data and values below, from the version that wrote the files


def data() -> lr.SequenceData:
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, (4, 6, 2)).astype(float)
    return lr.SequenceData.from_arrays({"y": counts}, {"x": rng.normal(size=(4, 6, 1))}, dt=0.01)


def test_format_1_comes_back_with_the_same_density() -> None:
    result = lr.load(FORMAT_1, spec=data().spec)
    assert type(result.model.observations["y"]) is own_parts.Poisson
    assert result.best_step == 19
    # the order of sites is that of the numbers in the guide's matrix
    sites = ["base.location", "base.scale", "y.gain.beta", "y.readout.baseline", "y.readout.weight"]
    assert sorted(result.model.parameter_sites()) == sites
    values = {
        "innovations": torch.full((4, 6, 1), 0.5),
        "base.location": torch.tensor(0.3),
        "base.scale": torch.tensor(0.2),
        "y.gain.beta": torch.full((2, 1), 0.1),
        "y.readout.baseline": torch.tensor([0.6, 0.8]),
        "y.readout.weight": torch.full((2, 2), -0.4),
    }
    with torch.no_grad():
        trace = poutine.trace(poutine.condition(result.model, values)).get_trace(data())
        assert [name for name in trace.nodes if name in values and name != "innovations"] == sites
        assert float(trace.log_prob_sum()) == pytest.approx(LOG_DENSITY, abs=1e-3)


def test_an_older_file_is_read_in_the_older_way_alone(tmp_path: Path) -> None:
    """A checksum that is there counts, whatever the number of the format says."""
    shutil.copytree(FORMAT_1, tmp_path / "fit")
    manifest = json.loads((tmp_path / "fit" / MANIFEST).read_text())
    for change, message in (
        ({"checksum": "0" * 64}, "checksum: expected"),
        ({"format_version": 2}, "checksum: expect"),
    ):
        (tmp_path / "fit" / MANIFEST).write_text(json.dumps(manifest | change))
        with pytest.raises(ValueError, match=message):
            lr.load(tmp_path / "fit")
