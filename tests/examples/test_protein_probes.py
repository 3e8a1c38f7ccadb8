"""The example of protein probes: what it reads, and the sums that it asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from examples.protein_probes.data import CHARGE, HYDROPATHY, RESIDUES, recorded, simulated, windowed
from examples.protein_probes.demo import scores


def test_sums_are_those_of_the_last_residues() -> None:
    residues = np.random.default_rng(0).integers(0, 20, 30)
    found = windowed(residues, np.stack([CHARGE, HYDROPATHY]), 9)
    assert np.isnan(found[:8]).all()
    for column, scale in enumerate((CHARGE, HYDROPATHY)):
        np.testing.assert_allclose(found[8:, column], np.convolve(scale[residues], np.ones(9), "valid"))


def test_scales_are_those_of_their_residues() -> None:
    assert {r: CHARGE[RESIDUES.index(r)] for r in "KRDEA"} == {"K": 1, "R": 1, "D": -1, "E": -1, "A": 0}
    assert HYDROPATHY[RESIDUES.index("I")] == HYDROPATHY.max() == 4.5
    assert HYDROPATHY[RESIDUES.index("R")] == HYDROPATHY.min() == -4.5


def test_proteins_of_unknown_residues_or_too_long_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "protein_cb513").mkdir()
    rows = ["input,dssp3,dssp8,disorder,cb513_mask", "ACD,CHE,,,", "AXD,CHE,,,", "ACDE,CHEE,,,"]
    (tmp_path / "protein_cb513" / "CB513.csv").write_text("\n".join(rows))
    found = recorded(tmp_path, 3)
    assert [each.tolist() for each in found.residues] == [[0, 1, 2]]
    assert [each.tolist() for each in found.structure] == [[0, 1, 2]]


def test_simulated_strands_are_more_hydropathic_than_coils() -> None:
    found = simulated(0, 50, 40)
    residues, structure = np.concatenate(found.residues), np.concatenate(found.structure)
    coil, helix, strand = (HYDROPATHY[residues[structure == kind]].mean() for kind in range(3))
    assert coil + 1 < helix < strand - 1


@pytest.mark.slow
def test_sums_are_read_off_the_state_and_those_of_other_proteins_are_not() -> None:
    read, controls = scores(simulated(0, 40, 50), 0, 30)
    assert (read[:, :2] > controls[:, :2] + 0.05).all()
