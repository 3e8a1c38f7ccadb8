"""Which units and dimensions of a fit other fits show too, and which do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.agreement.alignment import (
    explained,
    fold_of_sequences,
    least_squares,
    mean_states,
    r2_of_units,
    split,
)
from latentrnn.interpret.agreement.explained_variance import explained_variance
from latentrnn.interpret.dynamics.trajectories import principal
from latentrnn.support.arguments import check_list, check_number
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

Array = NDArray[np.float64]


@isolated
def replication(
    posteriors: Sequence[Posterior],
    *,
    num_samples: int = 20,
    folds: int = 5,
    least_r2: float = 0.8,
    least_effect: float = 0.005,
) -> xarray.Dataset:
    """Say which units, and which leading dimensions, of each of several fits replicate in the others.

        r2_i = signal_i R2_i,   signal_i = Var(E[h_i]) / (Var(E[h_i]) + E[Var(h_i)])

    R2_i is the share of the posterior mean of unit i that a linear map of another fit's states explains, of held-out
    sequences, averaged over the other fits; what the posterior leaves open of a unit (all of it, of a unit that the
    data say nothing of) no other fit can tell. A unit is idle where no head loses as much as `least_effect` of its
    variance without it. What is idle does not replicate, however well it is predicted: nothing depends on it.

    Args:
        posteriors: two or more of the same sequences, such as those of fits with different seeds, or the `posteriors`
            of an ensemble.
        num_samples: draws of each.
        folds: parts of the sequences, each of which is held out once.
        least_r2: from which a unit that is not idle replicates.
        least_effect: share of a head's variance below which a unit is idle.

    Returns:
        A dataset by fit and unit (NaN where a fit has fewer than others): "r2", "signal", "effect" (the largest share
        of a head's variance that is lost without it), "idle" and "replicates"; by fit and component, the principal
        components of its mean states, "component_r2", "component_share" (of the variance of the states),
        "component_effect" (what a head's leading dimensions explain more with it) and "component_replicates"; and
        "agreement" (fit, other), how much of a fit's states, pooled, the other's explain. The diagonal is NaN.

    Raises:
        ValueError: fewer than two posteriors, of other sequences, or a setting out of range.
        TypeError: something that is no `Posterior`.
    """
    import xarray

    owner = "replication"
    members = check_list(owner, "posteriors", posteriors, "posteriors")
    if len(members) < 2:
        raise ValueError(f"{owner}: expected two posteriors or more; found {len(members)}")
    least_r2 = check_number(owner, "least_r2", least_r2, least=0.0, most=1.0)
    least_effect = check_number(owner, "least_effect", least_effect, least=0.0, most=1.0)
    states = mean_states(owner, members, num_samples)
    parts = fold_of_sequences(owner, len(members[0].data), folds)
    width = max(rows[0].shape[1] for rows, _ in states)
    fits = len(members)
    names = ("r2", "signal", "effect", "component_r2", "component_share", "component_effect")
    found: dict[str, Array] = {name: np.full((fits, width), np.nan) for name in names}
    agreement = np.full((fits, fits), np.nan)
    for fit, (rows, noise) in enumerate(states):
        size = rows[0].shape[1]
        flat = np.concatenate(rows)
        centre, directions, share = (part.numpy() for part in principal(torch.from_numpy(flat)))
        along = [(each - centre) @ directions.T for each in rows]
        others = [other for other in range(fits) if other != fit]
        signal = flat.var(0) / np.maximum(flat.var(0) + noise, 1e-300)
        of_units = np.mean([r2_of_units(states[other][0], rows, parts) for other in others], 0)
        found["signal"][fit, :size] = signal
        found["r2"][fit, :size] = signal * of_units
        found["component_r2"][fit, :size] = np.mean(
            [r2_of_units(states[other][0], along, parts) for other in others], 0
        )
        found["component_share"][fit, :size] = share
        found["effect"][fit, :size], found["component_effect"][fit, :size] = _effects(members[fit], num_samples)
        for other in others:
            agreement[fit, other] = _pooled(states[other][0], rows, parts)
    there = ~np.isnan(found["r2"])
    idle = there & (found["effect"] < least_effect)
    variables: dict[str, Any] = {
        name: (("fit", "component" if name.startswith("component") else "unit"), value) for name, value in found.items()
    }
    variables["idle"] = (("fit", "unit"), idle)
    variables["replicates"] = (("fit", "unit"), there & ~idle & (found["r2"] >= least_r2))
    kept = (found["component_effect"] >= least_effect) & (found["component_r2"] >= least_r2)
    variables["component_replicates"] = (("fit", "component"), kept)
    variables["agreement"] = (("fit", "other"), agreement)
    return xarray.Dataset(variables, attrs={"least_r2": least_r2, "least_effect": least_effect})


def _effects(posterior: Posterior, num_samples: int) -> tuple[Array, Array]:
    """Return what heads lose without each unit, and gain by each leading dimension: of the head that has most of it."""
    lost, gained = [], []
    for head in posterior.model.observations:
        shares = explained_variance(posterior, head, num_samples=num_samples)
        lost.append(shares.lost.mean("sample").values)
        gained.append(np.diff(shares.leading.mean("sample").values, prepend=0.0))
    return np.max(lost, 0), np.max(gained, 0)


def _pooled(x: list[Array], y: list[Array], parts: NDArray[np.int_]) -> float:
    """Return the mean over folds of the held-out share of y that x explains linearly, all units pooled."""
    scores = []
    for fold in range(parts.max() + 1):
        (train_x, test_x), (train_y, test_y) = split(x, parts, fold), split(y, parts, fold)
        scores.append(explained(least_squares(train_x, train_y)(test_x), test_y))
    return float(np.mean(scores))
