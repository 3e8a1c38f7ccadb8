"""Whether Markov chains have mixed: R-hat of ranks, which sees heavy tails and unequal spreads too."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_normalised_r_hat(values: Tensor) -> Tensor:
    """Return R-hat of every entry: one where chains agree in location and in spread, larger where they do not.

    The larger of split R-hat of the draws, the bulk, and of their distances from the median, the tails; both are
    replaced by Normal quantiles of their ranks among all draws, z = Phi^-1((r - 3/8) / (S + 1/4)), ties at their mean
    rank. `arviz.rhat` has the same numbers where there are two chains or more; of one chain the halves are compared.

    Args:
        values: (chain, draw, *shape); four draws or more. Of an odd number the middle one is left out.

    Returns:
        (*shape), float64; NaN where nothing moves, or where a draw is NaN.

    References:
        Vehtari, Gelman, Simpson, Carpenter, Bürkner. Rank-normalization, folding, and localization: an improved R-hat
        for assessing convergence of MCMC. 2021.
    """
    half = values.shape[1] // 2
    split = torch.cat([values[:, :half], values[:, -half:]])  # (2 chain, draw / 2, *shape)
    entries = split.double().reshape(*split.shape[:2], -1).permute(2, 0, 1)  # (entry, 2 chain, draw / 2)
    folded = (entries - _median(entries)).abs()
    # folded draws of two values alone may all be the same, which says nothing against the bulk
    found = torch.fmax(_r_hat(_normal_scores(entries)), _r_hat(_normal_scores(folded)))
    return found.masked_fill(entries.isnan().flatten(1).any(1), torch.nan).reshape(split.shape[2:])


def _median(entries: Tensor) -> Tensor:
    """Return the median of all draws, (entry, 1, 1), between the two middle ones."""
    ordered = entries.flatten(1).sort(1).values
    count = ordered.shape[1]
    return ordered[:, [(count - 1) // 2, count // 2]].mean(1).reshape(-1, 1, 1)


def _normal_scores(entries: Tensor) -> Tensor:
    """Return the Normal quantiles of the ranks among all draws of an entry."""
    flat = entries.flatten(1).contiguous()
    ordered = flat.sort(1).values
    below, upto = (torch.searchsorted(ordered, flat, right=right) for right in (False, True))
    rank = (below + upto + 1).double() / 2  # the mean rank of those that tie
    return torch.special.ndtri((rank - 3 / 8) / (flat.shape[1] + 1 / 4)).reshape(entries.shape)


def _r_hat(entries: Tensor) -> Tensor:
    """Return the R-hat of chains, (entry, chain, draw); NaN where all draws are the same."""
    draws = entries.shape[2]
    within, between = entries.var(2).mean(1), draws * entries.mean(2).var(1)
    found = ((between / within + draws - 1) / draws).sqrt()
    return found.masked_fill((entries == entries[:, :1, :1]).flatten(1).all(1), torch.nan)
