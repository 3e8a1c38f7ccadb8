# %% [markdown]
# # What does a protein model know of charge and hydropathy?
#
# A network reads residues and says what structure each is part of (coil, helix, strand); nobody tells it of chemistry.
#
#     h_t = GRU(h_{t-1}, residue_t),   structure_t ~ softmax(A h_t),   and beside it   residue_{t+1} ~ softmax(B h_t)
#
# Linear probes of h_t are asked for net charge and hydropathy, each summed over the last nine residues. Two controls
# say what a score is worth: the same sums of other proteins, of which h_t can know nothing, and of arbitrary scales,
# charges or hydropathies dealt out to residues at random, which any state that remembers residues would know:
# `python examples/protein_probes/demo.py --data ../shared/data --out build/protein_probes`.

# %%
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
import torch

import latentrnn as lr
from examples.gallery import Result, options, ranged
from examples.protein_probes.data import CHARGE, HYDROPATHY, Proteins, recorded, simulated, windowed
from examples.protein_probes.figure import draw
from examples.simulate import Array

WINDOW, ARBITRARY, CONTROLS = 9, 10, 9
MODELS = ("not trained", "structure alone", "with next residue")


# %%
def as_sequences(found: Proteins) -> lr.SequenceData:
    """Residues, their structure, and the residue that comes next, which the last one does not have."""
    following = [np.append(each[1:], np.nan)[:, None] for each in found.residues]
    heads = {"structure": [each[:, None] for each in found.structure], "next": following}
    return lr.SequenceData.from_arrays(heads, {"residue": [each[:, None] for each in found.residues]})


def reader(data: lr.SequenceData, *, auxiliary: bool) -> lr.LatentRNN:
    """The equation above, with one head or two."""
    heads = {"structure": lr.Categorical(3)} | ({"next": lr.Categorical(20)} if auxiliary else {})
    return lr.LatentRNN(
        data.spec,
        transition=lr.GRU(24),
        latent=lr.Deterministic(),
        observations=heads,
        inputs=[lr.OneHot("residue", 20)],
    )


def targets(found: Proteins) -> list[Array]:
    """Charge, hydropathy, then arbitrary scales of the numbers of either, summed over the window."""
    rng = np.random.default_rng(0)
    arbitrary = [rng.permutation(scale) for scale in (CHARGE, HYDROPATHY) for _ in range(ARBITRARY)]
    scales = np.stack([CHARGE, HYDROPATHY, *arbitrary])
    return [windowed(each, scales, WINDOW) for each in found.residues]


def trained(data: lr.SequenceData, seed: int, steps: int, name: str) -> lr.LatentRNN:
    model, quiet = reader(data, auxiliary=name == MODELS[2]), lr.Reporting(progress=False)
    if name == MODELS[0]:
        return model
    settings = {"optimizer": lr.AdamW(1e-2), "batch_size": 32, "reporting": quiet}
    return lr.fit(model, lr.Guide(model), data, steps=steps, seed=seed, **settings).model


def scores(found: Proteins, seed: int, steps: int) -> tuple[Array, Array]:
    """R2 by model, (model, variable), and the best of the controls of other proteins, of proteins that no fit saw."""
    order = np.random.default_rng(seed).permutation(len(found.residues))
    data, half, sums = as_sequences(found), len(order) // 2, targets(found)
    read, controls = [], []
    for name in MODELS:
        torch.manual_seed(seed)
        model = trained(data[order[:half]], seed, steps, name)
        posterior = lr.Posterior(model, lr.Guide(model), data[order[half:]])
        told = lr.interpret.probe(posterior, [sums[i] for i in order[half:]], controls=CONTROLS, folds=4)
        read.append(told.score.mean("fold").values)
        controls.append(told.control_score.max("control").values)
    return np.array(read), np.array(controls)


def main() -> None:
    """Train, probe, check the claim, and draw."""
    given = options(__file__)
    seeds, steps = (1, 60) if given.smoke else (3, 300)
    found = simulated(0, 60, 60) if given.smoke else recorded(given.data, 160)
    each = [scores(found, seed, steps) for seed in range(seeds)]
    read, controls = (np.array(part) for part in zip(*each, strict=True))  # (seed, model, variable)
    chance = read[..., 2:].reshape(seeds, len(MODELS), 2, ARBITRARY)  # of arbitrary scales
    parts = [
        f"{name}: charge {ranged(read[:, m, 0])}, arbitrary {ranged(chance[:, m, 0].mean(-1))}; hydropathy "
        f"{ranged(read[:, m, 1])}, arbitrary {ranged(chance[:, m, 1].mean(-1))}"
        for m, name in enumerate(MODELS)
    ]
    print(*parts, sep="\n")

    assert (read[..., :2] > controls[..., :2]).all(), "both should be read better than sums of other proteins"
    more = read[:, 1:, 1] - chance[:, 1:, 1].mean(-1)
    assert given.smoke or (more > 0).all(), "hydropathy should be read better than arbitrary scales, once trained"
    better = read[:, 2, :2] - read[:, 1, :2]
    assert given.smoke or (better > 0).all(), "and both better with the auxiliary head"
    draw(given.out / "protein_probes.png", read[..., :2], chance, controls[..., :2], MODELS)
    Result(
        claim="net charge and hydropathy of the last nine residues are read off a protein model's state, better than "
        "those of other proteins, hydropathy better than arbitrary scales; an auxiliary head improves both",
        found="R² " + "; ".join(parts) + f"; gained by the auxiliary head {ranged(better[:, 0])} and "
        f"{ranged(better[:, 1])} (mean and range of {seeds} seeds)",
        baseline=f"sums of other proteins, the best of {CONTROLS}: {controls[..., :2].max():.3f} at most",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# A state that was not trained remembers residues of any kind best; training keeps hydropathy, which structure follows,
# and lets charge go. What to try next: other windows, `of="update"`, a state of more units, `kind="logistic"`.
