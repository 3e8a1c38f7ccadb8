"""Two fits' states laid on each other: which of what they show is the same but for the coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.support.arguments import check_integer, check_kind_of
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

Array = NDArray[np.float64]

RIDGE = 1e-8  # of least squares, in units of the largest variance
TRANSFORMATIONS = ("procrustes", "linear")
DIRECTIONS = ("b from a", "a from b")


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the states of one fit follow from those of another.

    Attributes:
        dataset: "r2" (transformation, direction, fold), share of the variance of held-out sequences that is explained,
            all units pooled, by "procrustes" (rotation, reflection and one scale) and "linear"; "r2_of_a" (unit_a) and
            "r2_of_b" (unit_b), that of each unit by the linear map; "canonical" (component, fold), correlations of
            held-out sequences; and of the map of all sequences "rotation" (unit_a, unit_b), "scale", "centre_a",
            "centre_b".
    """

    dataset: xarray.Dataset

    def r2(self, transformation: str = "procrustes", direction: str = DIRECTIONS[0]) -> float:
        """Return the mean over folds of the held-out share of variance."""
        return float(self.dataset.r2.sel(transformation=transformation, direction=direction).mean())

    def apply(self, states: ArrayLike) -> Array:
        """Return states of a, (..., unit_a), in the coordinates of b, by rotation and scale."""
        found = self.dataset
        moved = (np.asarray(states, float) - found.centre_a.values) @ found.rotation.values
        return moved * float(found.scale) + found.centre_b.values

    def __repr__(self) -> str:
        told = [f"{name} {self.r2(name):.3f} / {self.r2(name, DIRECTIONS[1]):.3f}" for name in TRANSFORMATIONS]
        canonical = ", ".join(f"{value:.3f}" for value in self.dataset.canonical.mean("fold").values[:8])
        return (
            f"Alignment(held-out R2, b from a / a from b: {'; '.join(told)}; canonical correlations {canonical}; "
            f"{self.dataset.sizes['fold']} folds of sequences)"
        )


@isolated
def align(a: Posterior, b: Posterior, *, num_samples: int = 20, folds: int = 5) -> Alignment:
    """Lay the states that two fits infer of the same sequences on each other.

        procrustes: min |s (X - x) Q + y - Y|^2 over s > 0 and Q'Q = I;   linear: the same over all matrices

    X and Y are the posterior means of what readouts see. Latent coordinates are free, so that two fits that say the
    same may look different: what a rotation and a scale bring together is one answer, what only a linear map does is
    one up to how dimensions are weighed. Every figure is of sequences that had no part in the map.

    Args:
        a, b: posteriors of the same sequences, of any two models.
        num_samples: draws of each that the mean is of.
        folds: parts of the sequences, each of which is held out once.

    Raises:
        ValueError: other sequences, fewer than two folds, or more of them than sequences.
        TypeError: something that is no `Posterior`; of an ensemble, take two of its `posteriors`.

    References:
        Schönemann. A generalized solution of the orthogonal Procrustes problem. 1966.
        Hotelling. Relations between two sets of variates. 1936.
        Raghu, Gilmer, Yosinski, Sohl-Dickstein. SVCCA: singular vector canonical correlation analysis for deep learning
        dynamics and interpretability. 2017.
    """
    import xarray

    x, y = (rows for rows, _ in mean_states("align", [a, b], num_samples))
    parts = fold_of_sequences("align", len(a.data), folds)
    width = min(x[0].shape[1], y[0].shape[1])
    r2 = np.zeros((len(TRANSFORMATIONS), 2, folds))
    canonical = np.zeros((width, folds))
    for fold in range(folds):
        train_x, test_x = split(x, parts, fold)
        train_y, test_y = split(y, parts, fold)
        for side, (given, wanted) in enumerate(
            (((train_x, test_x), (train_y, test_y)), ((train_y, test_y), (train_x, test_x)))
        ):
            r2[0, side, fold] = explained(procrustes(given[0], wanted[0])(given[1]), wanted[1])
            r2[1, side, fold] = explained(least_squares(given[0], wanted[0])(given[1]), wanted[1])
        canonical[:, fold] = _canonical(train_x, train_y, test_x, test_y)
    whole_x, whole_y = np.concatenate(x), np.concatenate(y)
    rotation, scale = _rotation(whole_x - whole_x.mean(0), whole_y - whole_y.mean(0))
    variables: dict[str, Any] = {
        "r2": (("transformation", "direction", "fold"), r2),
        "r2_of_a": (("unit_a",), r2_of_units(y, x, parts)),
        "r2_of_b": (("unit_b",), r2_of_units(x, y, parts)),
        "canonical": (("component", "fold"), canonical),
        "rotation": (("unit_a", "unit_b"), rotation),
        "scale": ((), scale),
        "centre_a": (("unit_a",), whole_x.mean(0)),
        "centre_b": (("unit_b",), whole_y.mean(0)),
    }
    return Alignment(
        xarray.Dataset(variables, {"transformation": list(TRANSFORMATIONS), "direction": list(DIRECTIONS)})
    )


def mean_states(owner: str, posteriors: list[Any], num_samples: int) -> list[tuple[list[Array], Array]]:
    """Return of each fit its mean states of every sequence, (time, unit), and how each unit varies about them, (unit,).

    Raises:
        ValueError: fits to different sequences.
        TypeError: something that is no `Posterior`.
    """
    found = []
    for number, posterior in enumerate(posteriors):
        check_kind_of(owner, f"posterior {number}", posterior, Posterior)
        if posterior.data.keys != posteriors[0].data.keys:
            raise ValueError(f"{owner}: posterior {number} is of other sequences than the first")
        states = posterior.latents(num_samples)["states"].double()
        inside = posterior.data.valid.cpu()
        mean = states.mean(0)
        rows = [each[there].numpy() for each, there in zip(mean, inside, strict=True)]
        noise = states[:, inside].var(0, correction=int(num_samples > 1)).mean(0).numpy()
        found.append((rows, noise))
    return found


def fold_of_sequences(owner: str, sequences: int, folds: int) -> NDArray[np.int_]:
    """Return which fold each sequence is held out in."""
    check_integer(owner, "folds", folds, least=2)
    if folds > sequences:
        raise ValueError(f"{owner}: folds must be at most the {sequences} sequences; found {folds}")
    order = torch.randperm(sequences, generator=torch.Generator().manual_seed(0)).numpy()
    found = np.empty(sequences, dtype=int)
    found[order] = np.arange(sequences) % folds
    return found


def split(rows: list[Array], parts: NDArray[np.int_], fold: int) -> tuple[Array, Array]:
    """Return the rows of all sequences but those of a fold, and theirs."""
    train = [each for each, part in zip(rows, parts, strict=True) if part != fold]
    test = [each for each, part in zip(rows, parts, strict=True) if part == fold]
    return np.concatenate(train), np.concatenate(test)


def procrustes(x: Array, y: Array) -> Any:
    """Return the map from x to y, (row, unit) both, by rotation, reflection and scale."""
    from_, to = x.mean(0), y.mean(0)
    rotation, scale = _rotation(x - from_, y - to)
    return lambda other: scale * (other - from_) @ rotation + to


def least_squares(x: Array, y: Array) -> Any:
    """Return the map from x to y, (row, unit) both, by least squares."""
    from_, to = x.mean(0), y.mean(0)
    centred = x - from_
    gram = centred.T @ centred
    weights = np.linalg.solve(
        gram + RIDGE * max(gram.diagonal().max(), 1e-300) * np.eye(len(gram)), centred.T @ (y - to)
    )
    return lambda other: (other - from_) @ weights + to


def explained(guess: Array, truth: Array) -> float:
    """Return the share of the variance of the truth that a guess explains, all units pooled."""
    total = ((truth - truth.mean(0)) ** 2).sum()
    return float(1 - ((guess - truth) ** 2).sum() / max(total, 1e-300))


def r2_of_units(x: list[Array], y: list[Array], parts: NDArray[np.int_]) -> Array:
    """Return the share of each unit of y that x explains linearly, of sequences held out in turn, (unit,)."""
    left, total = 0.0, 0.0
    for fold in range(parts.max() + 1):
        (train_x, test_x), (train_y, test_y) = split(x, parts, fold), split(y, parts, fold)
        left = left + ((least_squares(train_x, train_y)(test_x) - test_y) ** 2).sum(0)
        total = total + ((test_y - train_y.mean(0)) ** 2).sum(0)
    return np.asarray(1 - left / np.maximum(total, 1e-300))


def _rotation(x: Array, y: Array) -> tuple[Array, float]:
    """Return Q, (unit_x, unit_y), and the scale, of centred rows."""
    left, singular, right = np.linalg.svd(x.T @ y, full_matrices=False)
    rotation = left @ right
    return rotation, float(singular.sum() / max(((x @ rotation) ** 2).sum(), 1e-300))


def _canonical(x: Array, y: Array, test_x: Array, test_y: Array) -> Array:
    """Return the correlations of held-out rows along the canonical directions of others, (component,)."""
    (white_x, back_x), (white_y, back_y) = _whitened(x), _whitened(y)
    left, _, right = np.linalg.svd(white_x.T @ white_y, full_matrices=False)
    u, v = back_x(test_x) @ left, back_y(test_y) @ right.T
    u, v = u - u.mean(0), v - v.mean(0)
    return np.asarray((u * v).sum(0) / np.maximum(np.sqrt((u**2).sum(0) * (v**2).sum(0)), 1e-300))


def _whitened(x: Array) -> tuple[Array, Any]:
    """Return rows without correlations, and what makes others so; directions without variance stay small."""
    centre = x.mean(0)
    _, singular, right = np.linalg.svd(x - centre, full_matrices=False)
    scale = np.maximum(singular, RIDGE**0.5 * singular.max() + 1e-300)
    return ((x - centre) @ right.T) / scale, lambda other: ((other - centre) @ right.T) / scale
