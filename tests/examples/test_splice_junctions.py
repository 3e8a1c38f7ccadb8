"""The example of splice junctions: what it reads and says, and its claim on the recordings, where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from examples.gallery import SHARED
from examples.simulate import junctions
from examples.splice_junctions.data import MIDDLE, NEAR, as_sequences, recorded, sites
from examples.splice_junctions.demo import outcome
from examples.splice_junctions.mutations import REGION, places


def test_windows_are_read_once_and_without_unknown_bases(tmp_path: Path) -> None:
    rows = ["label,instance_name,sequence"]
    rows += [f"{kind},   X,   {base * 60}" for kind, base in (("EI", "A"), ("N", "G"), ("EI", "A"), ("IE", "N"))]
    (tmp_path / "splice_junctions").mkdir()
    (tmp_path / "splice_junctions" / "splice.csv").write_text("\n".join(rows))
    found = recorded(tmp_path)
    assert found.bases.shape == (2, 60)
    assert found.bases[:, 0].tolist() == [0, 2]
    assert found.kind.tolist() == [0, 2]


def test_sites_are_where_another_base_does_most_harm() -> None:
    change = np.zeros((2, len(NEAR), 4))
    change[0, 20:22] = [[-3.0, -3.0, 0.0, -3.0], [-3.0, -3.0, -3.0, 0.0]]
    change[1, 18:20] = [[0.0, -2.0, -2.0, -2.0], [-2.0, -2.0, 0.0, -2.0]]
    assert sites(change) == {"donor": "GT at +0", "acceptor": "AG at -2"}


def test_branch_points_are_where_the_consensus_is() -> None:
    window = np.full((3, 60), 2)
    window[0, 5:10] = [1, 3, 2, 0, 1]  # CTGAC
    window[1, 5:10] = [1, 2, 3, 0, 1]  # the same bases in another order
    window[2, 30:35] = [1, 3, 2, 0, 1]  # outside of the region
    assert np.argwhere(places(window)).tolist() == [[0, 8 - REGION[0]]]
    assert np.argwhere(places(window, scrambled=True)).tolist() == [[1, 8 - REGION[0]]]
    plain, branched = junctions(0, 2000), junctions(0, 2000, branch=0.9)
    np.testing.assert_array_equal(plain.kind, branched.kind)
    assert places(plain.bases)[plain.kind == 1].any(1).mean() < 0.25
    assert places(branched.bases)[plain.kind == 1].any(1).mean() > 0.85
    others = plain.kind == 0
    np.testing.assert_array_equal(plain.bases[others], branched.bases[others])


@pytest.mark.slow
def test_half_of_the_saliency_lies_within_five_bases_of_recorded_junctions() -> None:
    if not (SHARED / "splice_junctions").is_dir():
        pytest.skip(f"no recordings of splice junctions in {SHARED}")
    found = recorded(SHARED)
    seen = outcome(as_sequences(found), 0, 800)
    shuffled = outcome(as_sequences(found, np.random.default_rng(0)), 0, 200)
    shares = [each.saliency[MIDDLE].sum() / each.saliency.sum() for each in (seen, shuffled)]
    assert seen.accuracy > 0.9
    assert shares[0] >= 0.5
    assert shares[1] < 0.35  # there is nothing to find


def test_a_factor_that_nobody_observed_silences_three_in_ten_sites() -> None:
    found = junctions(0, 8000)
    donors = (found.bases[:, 27:36] == [1, 0, 2, 2, 3, 0, 0, 2, 3]).sum(1) >= 8
    assert 0.62 < np.mean(found.kind[donors] == 0) < 0.78
    acceptors = found.kind == 1
    assert (found.bases[acceptors, 28:30] == [0, 2]).all()
    assert np.mean(np.isin(found.bases[acceptors, 14:27], [1, 3])) > 0.85
    assert found.ceiling == 0.85
    assert 0.32 < np.mean(found.kind < 2) < 0.38
