"""Clicks of 323 visitors of msnbc.com, by category of page.

From the R package ClickClust 1.1.6 (Melnykov), `msnbc323`; the raw log is "MSNBC.com anonymous web data" (Heckerman) of
the UCI machine learning repository.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import latentrnn as lr

FOLDER, PAGES = "clicks_msnbc323", 17  # categories: front page, news, tech, local, ...

Clicks = list[NDArray[np.int_]]  # of each visitor (click,), codes from 0


def load(data: Path) -> Clicks:
    """Return the clicks of every visitor, (click,), codes 0 to 16.

    Raises:
        SystemExit: rdata, which reads files of R, is not installed.
    """
    try:
        import rdata
    except ImportError:
        raise SystemExit("next_click: the recordings are a file of R; pip install rdata") from None
    found = rdata.read_rda(data / FOLDER / "msnbc323.RData")["msnbc323"]
    return [np.asarray(visitor).astype(int) - 1 for visitor in found]


def split(clicks: Clicks, seed: int = 0) -> tuple[Clicks, Clicks, Clicks]:
    """Return the visitors that are learned from, that choose settings, and that are scored: 60, 15 and 25%."""
    order = np.random.default_rng(seed).permutation(len(clicks))
    parts = np.split(order, [round(0.6 * len(order)), round(0.75 * len(order))])
    first, second, third = ([clicks[visitor] for visitor in part] for part in parts)
    return first, second, third


def as_sequences(clicks: Clicks) -> lr.SequenceData:
    """Return a sequence for every visitor, a step for every click."""
    return lr.SequenceData.from_arrays({"click": [visitor[:, None].astype(float) for visitor in clicks]})
