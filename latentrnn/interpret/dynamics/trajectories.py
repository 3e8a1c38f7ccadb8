"""States on their leading dimensions: trajectories, and the field that moves them in a plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.dynamics.held import Held, held_maps, visited
from latentrnn.interpret.results.labelled import AnyPosterior, labelled, pooled
from latentrnn.support.arguments import check_list, check_number, check_size, is_integer
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray


@isolated
def trajectories(posterior: AnyPosterior, dims: int = 2, *, num_samples: int = 20) -> xarray.Dataset:
    """Return the states that readouts see on their leading dimensions, their principal components over all data.

        h_t = m + W p_t + rest,   W the first eigenvectors of the covariance of h over draws, sequences and steps

    Args:
        posterior: of any model; of an ensemble, every member has components of its own (`align` compares members).
        dims: how many, at most the number of units.
        num_samples: number of draws.

    Returns:
        A dataset: "trajectory" (sample, sequence, time, component), NaN in padding; "direction" (sample, component,
        unit), of length one, its largest entry positive; "centre" (sample, unit); "share" (sample, component) of the
        variance. Components are those of all draws of a model together.

    Raises:
        ValueError: more dimensions than units, or no draws.
        TypeError: something that is no posterior.
    """

    def of_one(posterior: Posterior, count: int) -> xarray.Dataset:
        states = posterior.latents(count)["states"].double()
        check_size("trajectories", "dims", dims, most=states.shape[-1])
        flat = states.reshape(-1, states.shape[-1])
        centre, directions, share = principal(flat[~flat.isnan().any(-1)])
        directions, share = directions[:dims], share[:dims]
        variables = {
            "trajectory": (("sample", "sequence", "time", "component"), (states - centre) @ directions.T),
            "direction": (("sample", "component", "unit"), directions.expand(count, -1, -1)),
            "centre": (("sample", "unit"), centre.expand(count, -1)),
            "share": (("sample", "component"), share.expand(count, -1)),
        }
        return labelled(posterior.data, variables)

    return pooled("trajectories", posterior, num_samples, of_one)


@isolated
def phase_portrait(
    posterior: AnyPosterior,
    covariates: Mapping[str, Any] | None = None,
    *,
    plane: tuple[int, int] = (0, 1),
    past: str | Mapping[str, Any] = "mean",
    regime: int | None = None,
    gap: float | None = None,
    num_points: int = 25,
    margin: float = 0.2,
    num_samples: int = 1,
) -> xarray.Dataset:
    """Return how F moves states on a plane of two of the leading dimensions, at a constant input.

        v(p) = W' (F(m + W p; a) - m - W p) / dt,   W two principal components of the visited whole states, m their mean

    Args:
        posterior: of any model; of an ensemble, every member has a plane of its own.
        covariates, past, regime, gap: what is held constant; as of `fixed_points`.
        plane: which two principal components.
        num_points: points of the grid along each.
        margin: how far it goes beyond the visited states, as a share of their range.
        num_samples: draws of the parameters; where no prior is on what F is made of, one is all there is.

    Returns:
        A dataset: "position_x" and "position_y" (sample, x or y), of the grid; "velocity_x" and "velocity_y" (sample,
        y, x), per second; "out" (sample, y, x), how fast states leave the plane; "direction" (sample, axis,
        state_unit) and "centre" (sample, state_unit).

    Raises:
        ValueError: something that drives the transition is not told, or cannot be constant, by name; components that
            there are not; a number out of range.
        TypeError: something that is no posterior.
    """
    owner = "phase_portrait"
    held = Held(covariates, past, regime, gap)
    points = check_size(owner, "num_points", num_points)
    margin = check_number(owner, "margin", margin, least=0.0)
    axes = check_list(owner, "plane", plane, "two components")

    def of_one(posterior: Posterior, count: int) -> xarray.Dataset:
        size = posterior.model.transition.state_size
        if len(axes) != 2 or not all(is_integer(axis) and 0 <= axis < size for axis in axes) or axes[0] == axes[1]:
            raise ValueError(f"{owner}: plane must be two different components of 0 to {size - 1}; found {plane}")
        maps = held_maps(owner, posterior, count, held)
        states = visited(posterior, len(maps)).flatten(0, 1)
        centre, directions, _ = principal(states)
        directions = directions[axes]
        low, high = ((states - centre) @ directions.T).aminmax(dim=0)
        wider = margin * (high - low).clamp_min(1e-9)
        x, y = (
            torch.linspace(*ends, points, dtype=states.dtype) for ends in zip(low - wider, high + wider, strict=True)
        )
        there = torch.cartesian_prod(y, x).flip(-1)  # (y, x) in rows, as (x, y)
        start = centre + there @ directions
        speed = []
        with torch.no_grad():
            for each in maps:
                s = start.to(each.inputs)
                speed.append(((each(s) - s) / each.seconds).cpu())
        moved = torch.stack(speed)
        inside = moved @ directions.T
        out = (moved - inside @ directions).norm(dim=-1)
        grid = ("sample", "y", "x")
        count = len(maps)
        variables = {
            "position_x": (("sample", "x"), x.expand(count, -1)),
            "position_y": (("sample", "y"), y.expand(count, -1)),
            "velocity_x": (grid, inside[..., 0].unflatten(1, (points, points))),
            "velocity_y": (grid, inside[..., 1].unflatten(1, (points, points))),
            "out": (grid, out.unflatten(1, (points, points))),
            "direction": (("sample", "axis", "state_unit"), directions.expand(count, -1, -1)),
            "centre": (("sample", "state_unit"), centre.expand(count, -1)),
        }
        return labelled(posterior.data, variables)

    return pooled(owner, posterior, num_samples, of_one)


def principal(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (size,), principal directions (component, size) and their shares of the variance, of (row, size)."""
    centre = states.mean(0)
    covariance = torch.cov(states.T, correction=0).reshape(states.shape[-1], -1)
    values, vectors = np.linalg.eigh(covariance.numpy())
    variance, directions = torch.from_numpy(values).flip(0).clamp_min(0.0), torch.from_numpy(vectors).T.flip(0)
    largest = directions.abs().argmax(-1, keepdim=True)
    directions = directions * directions.gather(-1, largest).sign()
    return centre, directions, variance / variance.sum().clamp_min(1e-300)
