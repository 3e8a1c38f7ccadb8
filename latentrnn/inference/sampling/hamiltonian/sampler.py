"""Several chains of one density, evaluated together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentrnn.inference.sampling.hamiltonian.chain import Chain
from latentrnn.inference.sampling.hamiltonian.density import Evaluator, FlatDensity
from latentrnn.inference.sampling.hamiltonian.trajectory import Statistics, is_finite
from latentrnn.support.progress import progress_bar

ATTEMPTS = 100  # to find a start where the density is finite
FAR = 1e6  # times the size of the best log density of all starts: so far below it none begins


class Sampled(NamedTuple):
    """Draws of several chains.

    Attributes:
        values: by site, (chain, draw, *shape).
        statistics: of each draw, (chain, draw), by the names that ArviZ gives them: see `Chains`.
    """

    values: dict[str, Tensor]
    statistics: dict[str, Tensor]


class NotFinite(Exception):
    """Raised where a chain cannot start.

    Attributes:
        start: where the density is not finite, (dim,).
    """

    def __init__(self, start: np.ndarray) -> None:
        super().__init__("the log density or its gradient is not finite at the start")
        self.start = start


def run(
    density: FlatDensity,
    starts: Sequence[Callable[[], np.ndarray]],
    *,
    num_samples: int,
    warmup: int,
    target_acceptance: float,
    max_tree_depth: int,
    seed: int,
    progress: bool,
) -> Sampled:
    """Draw from a density by the no-U-turn sampler.

    A chain takes the steps that it would take alone: only its evaluations of the density are made together with those
    of the others.

    Args:
        density: to be drawn from.
        starts: one for each chain, which returns another start, (dim,), each time.
        num_samples, warmup, target_acceptance, max_tree_depth: of each chain; see `Chain`.
        seed: of the chains.
        progress: whether to show a progress bar.

    Raises:
        NotFinite: no start was found at which log density and gradient are finite.
    """
    found = np.stack([start() for start in starts])
    evaluate = density.evaluator(found)
    chains = [
        Chain(
            start,
            num_samples=num_samples,
            warmup=warmup,
            target_acceptance=target_acceptance,
            max_tree_depth=max_tree_depth,
            random=np.random.default_rng([seed % 2**64, number]),  # torch takes seeds below zero, NumPy none
        )
        for number, start in enumerate(_finite(evaluate, found, starts))
    ]
    with np.errstate(over="ignore", invalid="ignore"):  # where a density ends energies overflow, and steps are refused
        _advance(evaluate, chains, progress)
    positions = density.tensor(np.stack([chain.positions for chain in chains]))
    values = {name: value.cpu() for name, value in density.values(positions).items()}
    statistics = {
        name: torch.from_numpy(np.array([[getattr(draw, name) for draw in chain.statistics] for chain in chains]))
        for name in Statistics._fields
    }
    return Sampled(values, statistics)


def _finite(evaluate: Evaluator, found: np.ndarray, starts: Sequence[Callable[[], np.ndarray]]) -> np.ndarray:
    """Return starts where the density is finite, and not absurdly below that of other starts: these are drawn again.

    Where a recursion explodes, the density may be finite and so steep that a chain never leaves the place. Starts that
    cannot be had closer are taken as they are.
    """
    for attempt in range(ATTEMPTS):
        log_densities, gradients = evaluate(found)
        bad = [row for row, of in enumerate(zip(log_densities, gradients, strict=True)) if not is_finite(*of)]
        if not bad:
            best = float(np.max(log_densities))
            bad = np.flatnonzero(log_densities < best - FAR * max(abs(best), 1.0)).tolist()
            if not bad or attempt + 1 == ATTEMPTS:
                return found
        failed = found[bad[0]].copy()
        for row in bad:
            found[row] = starts[row]()
    raise NotFinite(failed)


def _advance(evaluate: Evaluator, chains: Sequence[Chain], progress: bool) -> None:
    """Run chains to their ends."""
    running = [chain.run() for chain in chains]
    positions = np.stack([next(chain) for chain in running])
    going = list(range(len(chains)))
    total = sum(chain.warmup + chain.num_samples for chain in chains)
    with progress_bar(total=total, disable=not progress, desc="sample", unit="draw") as bar:
        while going:
            log_densities, gradients = evaluate(positions)
            for number in tuple(going):
                try:
                    # a copy, as the chain keeps what it is sent
                    positions[number] = running[number].send((float(log_densities[number]), gradients[number].copy()))
                except StopIteration:
                    going.remove(number)
            bar.update(sum(chain.count for chain in chains) - bar.n)
