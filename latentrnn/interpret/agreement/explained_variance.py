"""How much of what a head expects each unit, and each leading dimension, of the state accounts for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.predictions import padding_to_nan
from latentrnn.inference.posterior.draws.transition_runs import TransitionRun
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.dynamics.trajectories import principal
from latentrnn.interpret.results.labelled import AnyPosterior, labelled, pooled
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray


@isolated
def explained_variance(posterior: AnyPosterior, head: str, *, num_samples: int = 10) -> xarray.Dataset:
    """Return the share of the variance of E[y | h] that each unit, and the leading dimensions, of h account for.

        alone_j = 1 - S(E[y | h_j, others at their mean]) / S(mean of E[y | h]),   lost_j = S(E[y | h with h_j at its
        mean]) / S(mean of E[y | h]),   S(g) = sum over sequences, steps and channels of (E[y | h] - g)^2

    "alone" is what the unit explains by itself, "lost" what is missing without it; where units overlap the first is
    larger, where they act together the second. Units whose "lost" is nothing are idle. Any readout will do, and a head
    with one value per sequence. "leading" is what the first principal components of h explain, others at their mean.

    Args:
        posterior: of any model, or of an ensemble (whose members have units of their own).
        head: the head's name.
        num_samples: number of draws.

    Returns:
        A dataset: "alone" and "lost" (sample, unit), "leading" (sample, component) and "share" (sample, component),
        of the variance of h along the same components.

    Raises:
        ValueError: an unknown head, or no draws.
        TypeError: something that is no posterior.
    """

    def of_one(posterior: Posterior, count: int) -> xarray.Dataset:
        if not isinstance(head, str) or head not in posterior.model.observations:
            raise ValueError(
                f"explained_variance: unknown head {head!r}; the model has {sorted(posterior.model.observations)}"
            )
        states = posterior.latents(count)["states"].double()
        flat = states.reshape(-1, states.shape[-1])
        centre, directions, share = principal(flat[~flat.isnan().any(-1)])
        size = len(centre)
        sums = _Sums(count, size)
        with torch.no_grad():
            for run in posterior.transition_runs(count):
                _add(sums, run, head, centre, directions, count)
        total = sums.total().clamp_min(1e-300)
        unit, component = ("sample", "unit"), ("sample", "component")
        variables = {
            "alone": (unit, 1 - sums.alone / total),
            "lost": (unit, sums.lost / total),
            "leading": (component, 1 - sums.leading / total),
            "share": (component, share.expand(count, -1)),
        }
        return labelled(posterior.data, variables, attributes={"head": head})

    return pooled("explained_variance", posterior, num_samples, of_one)


class _Sums:
    """Sums of squares over chunks of the sequences: of what was expected, and of what changed states leave of it."""

    def __init__(self, samples: int, size: int) -> None:
        self.alone, self.lost, self.leading = (torch.zeros(samples, size, dtype=torch.float64) for _ in range(3))
        self.expected: list[Tensor] = []

    def total(self) -> Tensor:
        """Return the sum of squares around each channel's mean, (sample, 1)."""
        expected = torch.cat(self.expected, 1)
        return (expected - expected.nanmean(1, keepdim=True)).square().nansum((1, 2)).unsqueeze(-1)


def _add(sums: _Sums, run: TransitionRun, head: str, centre: Tensor, directions: Tensor, count: int) -> None:
    """Add what a chunk of the sequences has to say."""
    rollout = run.rollout
    states = rollout.states().expand(count, rollout.data.num_sequences, -1, -1)
    centre, directions = centre.to(states), directions.to(states)

    def expected(states: Tensor) -> Tensor:
        """Return E[y | h], (sample, row, channel), NaN in padding."""
        shape = torch.Size((count, rollout.data.num_sequences))
        mean = rollout.observations[head].mean(rollout.given(head, states).expand(shape))
        return padding_to_nan(mean, rollout.data, head).reshape(count, -1, mean.shape[-1]).double().cpu()

    whole = expected(states)
    sums.expected.append(whole)

    def left(states: Tensor) -> Tensor:
        return (expected(states) - whole).square().nansum((1, 2))

    mean = centre.expand_as(states)
    for unit in range(len(centre)):
        own = torch.zeros_like(centre, dtype=torch.bool)
        own[unit] = True
        sums.alone[:, unit] += left(torch.where(own, states, mean))
        sums.lost[:, unit] += left(torch.where(own, mean, states))
        kept = directions[: unit + 1]
        sums.leading[:, unit] += left(mean + (states - mean) @ kept.T @ kept)
