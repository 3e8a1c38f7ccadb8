"""The settings that exports share, checked before anything is drawn."""

from __future__ import annotations

from typing import Any, TypedDict

from latentrnn.support.arguments import check_choice, check_flag, check_seed, check_size

POINTWISE = ("one_step_ahead",)


class Settings(TypedDict):
    """What `to_arviz` and `to_netcdf` take, and hand on; None for what depends on the posterior (100, its own seed)."""

    num_samples: int | None
    num_particles: int
    prior_predictive: bool
    latents: bool
    weights: bool
    pointwise: str | None
    seed: int | None


def check_posterior(owner: str, posterior: Any) -> None:
    """Raise a TypeError unless something draws replicates of data as posteriors and their mixtures do."""
    if not all(hasattr(posterior, name) for name in ("data", "predictive", "chains")):
        found = type(posterior).__name__
        hint = "; result.posterior(data) is one" if hasattr(posterior, "posterior") else ""
        raise TypeError(f"{owner}: posterior must be a Posterior or EnsemblePosterior; found {found}{hint}")


def checked(
    owner: str,
    num_samples: int | None,
    num_particles: int,
    prior_predictive: bool,
    latents: bool,
    weights: bool,
    pointwise: str | None,
    seed: int | None,
) -> Settings:
    """Return the settings of an export.

    Raises:
        ValueError: a count below one.
        TypeError: a flag or a seed of another kind.
    """
    return {
        "num_samples": None if num_samples is None else check_size(owner, "num_samples", num_samples),
        "num_particles": check_size(owner, "num_particles", num_particles),
        "prior_predictive": check_flag(owner, "prior_predictive", prior_predictive),
        "latents": check_flag(owner, "latents", latents),
        "weights": check_flag(owner, "weights", weights),
        "pointwise": None if pointwise is None else check_choice(owner, "pointwise", pointwise, POINTWISE),
        "seed": None if seed is None else check_seed(owner, seed),
    }
