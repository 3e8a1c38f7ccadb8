"""The example's figure: arrays in, a file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from examples.simulate import Array


def draw(
    path: Path,
    chains: Mapping[int, tuple[int, float]],
    networks: Mapping[str, Mapping[int, tuple[int, float]]],
    memory: tuple[Sequence[int], Array, Array],
) -> None:
    """Draw bits per click against parameters, and against how many clicks are remembered.

    Args:
        path: of the picture.
        chains: by order, parameters and bits per click.
        networks: by kind, and by number of units, the same.
        memory: numbers of past clicks that a network sees, its bits per click then and, last, with all of the past,
            and the errors of what the former are above the latter.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), sharey=True, layout="constrained")
    orders = sorted(chains)
    left.plot(*zip(*(chains[order] for order in orders), strict=True), "ks-", label="Markov chain, by order")
    for order in orders:
        left.annotate(str(order), chains[order], textcoords="offset points", xytext=(5, 5))
    for index, (name, sizes) in enumerate(networks.items()):
        units = sorted(sizes)
        line = "o-" if len(units) > 1 else "o"
        places = list(zip(*(sizes[size] for size in units), strict=True))
        left.plot(*places, line, color=f"C{index}", label=f"{name}, by units")
        for size in units:
            left.annotate(str(size), sizes[size], textcoords="offset points", xytext=(5, 5), color=f"C{index}")
    left.set(xscale="log", xlabel="parameters", ylabel="bits per click, held-out visitors")
    left.legend(fontsize=8)
    seen, needed, error = memory
    right.plot(orders, [chains[order][1] for order in orders], "ks-", label="Markov chain")
    places = [*seen, 2 * seen[-1]]
    right.errorbar(places, needed, error, fmt="o-", color="C0", label="network that sees so many clicks")
    right.axhline(needed[-1], color="C0", linestyle=":", linewidth=1)
    right.set(xlabel="clicks that are remembered")
    right.set_xscale("log")
    right.set_xticks(places, [*map(str, seen), "all"], minor=False)
    right.minorticks_off()
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)
