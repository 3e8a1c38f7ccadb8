"""The metric of momenta: how large and how correlated the parameters are, learnt from draws and gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST, LARGEST = 1e-10, 1e10  # scales
STEEPEST = 1e8  # slope that is not told from a steeper one
NOTEWORTHY = 2.0  # a direction is told apart whose variance is beyond this factor of what the scales say


@dataclass(frozen=True)
class Metric:
    """Coordinates x = F z in which the posterior is about as wide in every direction, F = S (I + U (D - I) U').

    Attributes:
        scales: the diagonal of S, (dim,).
        directions: U, orthonormal, (dim, rank).
        stretches: the diagonal of D: spreads along U relative to S, (rank,).

    References:
        Seyboldt, Carlson, Carpenter. Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence. 2026.
    """

    scales: np.ndarray
    directions: np.ndarray
    stretches: np.ndarray

    @classmethod
    def diagonal(cls, scales: np.ndarray) -> Metric:
        """Return a metric without correlations, of scales (dim,)."""
        return cls(scales, np.zeros((len(scales), 0)), np.zeros(0))

    @classmethod
    def estimated(cls, positions: np.ndarray, gradients: np.ndarray) -> Metric:
        """Return the metric under which draws and gradients look most like those of a standard Normal.

        It minimises the Fisher divergence: for a Normal, positions have the covariance C and gradients C^{-1}, so that
        both tell of it. Scales are (var x / var g)^{1/4}; in the space that draws and gradients span, the covariance is
        the geometric mean of that of positions and the inverse of that of gradients, both drawn towards the scales
        by one over the number of draws; and directions are those in which it is far from them.

        Args:
            positions, gradients: of draws, (draw, dim).
        """
        count, dim = positions.shape
        # where a density falls off a cliff, on the way from a poor start, slopes are of any size and tell nothing more
        gradients = np.nan_to_num(gradients).clip(-STEEPEST, STEEPEST)
        x, g = positions - positions.mean(0), gradients - gradients.mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            scales = (x.var(0) / g.var(0)) ** 0.25
        scales = np.where(np.isfinite(scales), scales, 1.0).clip(SMALLEST, LARGEST)
        x, g = x / scales, g * scales
        basis = np.eye(dim) if count >= dim else np.linalg.qr(np.concatenate([_span(x), _span(g)]).T)[0]
        x, g = x @ basis, g @ basis
        prior = np.eye(len(basis.T))
        variances, directions = np.linalg.eigh(
            _geometric_mean((x.T @ x + prior) / (count + 1), (g.T @ g + prior) / (count + 1))
        )
        told = np.abs(np.log(variances)) > np.log(NOTEWORTHY)
        return cls(scales, basis @ directions[:, told], np.sqrt(variances[told]))

    def velocity(self, momentum: np.ndarray) -> np.ndarray:
        """Return F p, how positions move under a momentum in these coordinates."""
        if self.stretches.size:
            momentum = momentum + self.directions @ ((self.stretches - 1) * (momentum @ self.directions))
        return self.scales * momentum

    def slope(self, gradient: np.ndarray) -> np.ndarray:
        """Return F' g, the gradient in these coordinates."""
        slope = self.scales * gradient
        if self.stretches.size:
            slope = slope + self.directions @ ((self.stretches - 1) * (slope @ self.directions))
        return slope


def _span(rows: np.ndarray) -> np.ndarray:
    """Return orthonormal rows that span the given ones, (at most row, dim)."""
    return np.linalg.svd(rows, full_matrices=False)[2]


def _geometric_mean(covariance: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return the symmetric M with M precision M = covariance: half way between covariance and inverse precision."""
    variances, directions = np.linalg.eigh(precision)
    root = (directions * np.sqrt(variances)) @ directions.T
    inverse_root = (directions / np.sqrt(variances)) @ directions.T
    variances, directions = np.linalg.eigh(root @ covariance @ root)
    middle = (directions * np.sqrt(np.clip(variances, 0, None))) @ directions.T
    return inverse_root @ middle @ inverse_root
