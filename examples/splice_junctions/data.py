"""The recorded splice junctions of primates, and windows as sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import latentrnn as lr
from examples.simulate import Array, Junctions

BASES, KINDS = "ACGT", ("EI", "IE", "N")  # donor (exon to intron), acceptor (intron to exon), neither

NEAR = range(10, 42)  # positions around the junction, which is between 29 and 30
MIDDLE = slice(25, 35)  # within five bases of it
CENTRES = np.array([-25, -18, -12, -8, -5, -3, -1.5, 0, 1.5, 3, 5, 8, 12, 20])  # of bumps that tell the place, in bases


def recorded(folder: Path) -> Junctions:
    """Return what `splice_junctions/splice.csv` holds, each window once, those with unknown bases left out.

    Source: UCI repository, Molecular Biology (Splice-junction Gene Sequences); Noordewier, Towell, Shavlik. Training
    knowledge-based neural networks to recognize genes in DNA sequences. 1991.
    """
    rows = [line.split(",") for line in (folder / "splice_junctions" / "splice.csv").read_text().splitlines()[1:]]
    kinds = {window.strip(): kind.strip() for kind, _, window in rows if set(window.strip()) <= set(BASES)}
    bases = np.array([[BASES.index(base) for base in window] for window in kinds])
    return Junctions(bases, np.array([KINDS.index(kind) for kind in kinds.values()]), 1.0)


def as_sequences(found: Junctions, shuffled: np.random.Generator | None = None) -> lr.SequenceData:
    """Windows with the place of each base, as bumps that are the narrower the nearer the junction, and labels."""
    kind = found.kind if shuffled is None else shuffled.permutation(found.kind)
    away = (np.arange(60)[:, None] - 29.5 - CENTRES) / np.maximum(np.gradient(CENTRES), 1.0)
    place = np.broadcast_to(np.exp(-0.5 * away**2), (len(kind), *away.shape))
    covariates = {"base": found.bases[..., None], "place": place}
    return lr.SequenceData.from_arrays({"kind": kind[:, None]}, covariates, per_sequence=["kind"])


def sites(change: Array) -> dict[str, str]:
    """The two positions in a row where another base does most harm, and the bases that are best there, by kind."""
    harm = change.min(-1)
    starts = (harm[:, 1:] + harm[:, :-1]).argmin(1)
    return {
        kind: f"{''.join('ACGT'[b] for b in change[k, s : s + 2].argmax(-1))} at {NEAR[s] - 30:+d}"
        for k, (kind, s) in enumerate(zip(("donor", "acceptor"), starts.tolist(), strict=True))
    }
