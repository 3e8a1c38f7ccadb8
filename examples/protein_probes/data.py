"""Recorded proteins with their secondary structure, and scales of their residues."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.simulate import Array

RESIDUES, STRUCTURES = "ACDEFGHIKLMNPQRSTVWY", "CHE"
CHARGE = np.array([{"D": -1.0, "E": -1.0, "K": 1.0, "R": 1.0}.get(residue, 0.0) for residue in RESIDUES])
# Kyte, Doolittle. A simple method for displaying the hydropathic character of a protein. 1982.
HYDROPATHY = np.array(
    [1.8, 2.5, -3.5, -3.5, 2.8, -0.4, -3.2, 4.5, -3.9, 3.8, 1.9, -3.5, -1.6, -3.5, -4.5, -0.8, -0.7, 4.2, -0.9, -1.3]
)


class Proteins(NamedTuple):
    """Residues of proteins, and the structure that each is part of: coil, helix or strand."""

    residues: list[NDArray[np.int_]]  # codes of RESIDUES
    structure: list[NDArray[np.int_]]  # codes of STRUCTURES


def recorded(folder: Path, longest: int) -> Proteins:
    """Return the proteins of CB513 of known residues that are not longer than this.

    Source: Cuff, Barton. Evaluation and improvement of multiple sequence methods for protein secondary structure
    prediction. 1999; in the form of NetSurfP-2.0.
    """
    with (folder / "protein_cb513" / "CB513.csv").open() as file:
        rows = [(row["input"], row["dssp3"]) for row in csv.DictReader(file)]
    kept = [(r, s) for r, s in rows if len(r) <= longest and set(r) <= set(RESIDUES) and set(s) <= set(STRUCTURES)]
    return Proteins(
        [np.array([RESIDUES.index(each) for each in residues]) for residues, _ in kept],
        [np.array([STRUCTURES.index(each) for each in structure]) for _, structure in kept],
    )


def simulated(seed: int, number: int, steps: int) -> Proteins:
    """Return proteins whose structures last for some ten residues and have residues of their own.

    The hydropathy of residues is higher in strands than in helices, and lowest in coils.
    """
    rng = np.random.default_rng(seed)
    structure = np.repeat(rng.integers(0, 3, (number, -(-steps // 10))), 10, axis=1)[:, :steps]
    weight = np.exp(np.array([-0.3, 0.0, 0.3])[:, None] * HYDROPATHY)
    residues = np.empty_like(structure)
    for kind in range(3):
        chosen = structure == kind
        residues[chosen] = rng.choice(20, int(chosen.sum()), p=weight[kind] / weight[kind].sum())
    return Proteins(list(residues), list(structure))


def windowed(residues: NDArray[np.int_], scales: Array, window: int) -> Array:
    """Return sums of scales, (scale, residue), over the last residues of a window, (step, scale), NaN before it."""
    found = np.full((len(residues), len(scales)), np.nan)
    sums = np.cumsum(np.concatenate([np.zeros((1, len(scales))), scales[:, residues].T]), 0)
    found[window - 1 :] = sums[window:] - sums[:-window]
    return found
