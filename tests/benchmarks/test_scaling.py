"""The scripts that measure time and memory against size, at tiny sizes."""

from __future__ import annotations

import sys

import pytest

from benchmarks import memory, scaling


def test_every_size_of_a_table_takes_its_turns(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {
        "whole": scaling.Size(3, 20, 2, 2),
        "windows": scaling.Size(3, 20, 2, 2, window=5),
        "chunks": scaling.Size(3, 20, 60, 2, max_elements=2 * 60 * 3),
        "file": scaling.Size(3, 20, 2, 2, stored=True),
        "particles": scaling.Size(3, 20, 2, 2, particles=2),
    }
    rows = scaling.table("size", sizes, 3, "step", lambda size: size.entries)
    assert [row.split("|")[1].strip() for row in rows[2:]] == list(sizes)
    assert all(float(row.split("|")[3]) > 0 for row in rows[2:])
    assert [size.entries for size in sizes.values()] == [40, 10, 40, 40, 80]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("stored", [True, False])
def test_a_peak_is_at_least_what_the_data_hold(stored: bool) -> None:
    what = {"sequences": 3, "steps": 40, "channels": 2, "batch": 2, "window": 10, "stored": stored, "draws": 3}
    found = memory.measure(what)
    assert found.keys() == {"data", "peak", "seconds"}
    assert found["data"] == pytest.approx(0.0 if stored else 5 * 3 * 40 * 2 / 2**20)
    with memory.Peak() as peak:
        before = peak.most
        kept = bytearray(2**26)
        kept[:: 2**12] = b"x" * len(kept[:: 2**12])
    assert peak.most - before > 50
