"""Draw `interpret_saliency.png`: where the saliency of a planted site lies, and what each symbol would do."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray

import latentrnn as lr

SITE, STEPS, SEEDS = 20, 40, 3
MOTIF = 0, 2, 2, 3, 0, 2  # AGGTAG, around the site


def sites(seed: int, *, shuffled: bool = False) -> lr.SequenceData:
    """Sequences of four symbols, half of which have AGGTAG around step 20; labels say which."""
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, 4, (300, STEPS, 1))
    label = rng.random(300) < 0.5
    bases[label, SITE - 3 : SITE + 3, 0] = MOTIF
    label = rng.permutation(label) if shuffled else label
    heads = {"site": label[:, None].astype(float)}
    return lr.SequenceData.from_arrays(heads, {"base": bases}, per_sequence=["site"])


def fitted(data: lr.SequenceData, seed: int) -> lr.Posterior:
    """The posterior of a convolution in front of a GRU."""
    reader = lr.Convolution(lr.OneHot("base", 4), 8, widths=7, causal=False)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(8),
        latent=lr.Deterministic(),
        observations={"site": lr.Bernoulli(pooling="attention")},
        inputs=[reader],
    )
    quiet = lr.Reporting(progress=False)
    result = lr.fit(model, lr.Guide(model), data, steps=200, seed=seed, optimizer=lr.AdamW(1e-2), reporting=quiet)
    return result.posterior(data)


def norms(posterior: lr.Posterior) -> NDArray[np.float64]:
    """Mean norm of the gradient over sequences, (time,)."""
    found = lr.interpret.saliency(posterior, "site", "base", num_samples=1)
    return found.norm.isel(sample=0, output=0).mean("sequence").values


def main() -> None:
    """Fit to simulations, and to their labels shuffled, and draw."""
    matplotlib.use("Agg")
    torch.set_num_threads(1)
    from matplotlib import pyplot

    planted = [fitted(sites(seed), seed) for seed in range(SEEDS)]
    found = np.stack([norms(each) for each in planted])
    shuffled = np.stack([norms(fitted(sites(seed, shuffled=True), seed)) for seed in range(SEEDS)])
    change = lr.interpret.mutagenesis(planted[0], "site", "base", num_samples=1, positions=range(10, 30)).change

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(6.0, 4.2), layout="constrained")
    lr.plotting.saliency(found, label="labels as they are", ax=above)
    lr.plotting.saliency(shuffled, label="labels shuffled", color="0.5", ax=above)
    above.legend(frameon=False, fontsize="small")
    mean = change.isel(sample=0, feature=0, output=0).mean("sequence")
    lr.plotting.mutagenesis(mean.values, symbols="ACGT", time=mean.time.values, ax=below)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)
    inside = [rows[:, SITE - 5 : SITE + 5].sum(1) / rows.sum(1) for rows in (found, shuffled)]
    print("share within five bases:", *(np.round(each, 2).tolist() for each in inside))


if __name__ == "__main__":
    main()
