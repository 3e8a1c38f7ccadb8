"""How a state answers to inputs and states of many steps before: products of Jacobians along the recorded path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.transition_runs import TransitionRun
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.derivatives.derivatives import (
    StepOutput,
    jacobian_blocks,
    part_names,
    part_of_state,
    state_names,
    whole_state,
)
from latentrnn.interpret.derivatives.jacobians import BY, PATHS
from latentrnn.interpret.results.labelled import AnyPosterior, Variable, in_rows, labelled, pooled
from latentrnn.interpret.results.names import input_names
from latentrnn.support.arguments import check_choice, check_integer, check_size
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

OWNER = "sensitivity"


@isolated
def sensitivity(
    posterior: AnyPosterior,
    at: int,
    span: int,
    of: str = "output",
    by: str = "input",
    *,
    path: str = "total",
    num_samples: int = 10,
) -> xarray.Dataset:
    """Return how the state at one step answers to the inputs, or states, of the steps up to it.

        d of(s_t) / d s_{t-k} = J^of_t J_{t-1} ... J_{t-k+1},   d of(s_t) / d a_{t-k} = d of(s_t) / d s_{t-k} B_{t-k}

    with J = d s_t / d s_{t-1} and B = d s_t / d a_t. Inputs are each taken to be changed alone: what a head feeds back
    is as it was recorded, and what the latent draws as it was drawn.

    Args:
        posterior: of any model, or of an ensemble.
        at: the step t, from zero; negative ones count from the end of each sequence.
        span: how many steps before it to go back to.
        of: part of the state: "output" h_t, "state", or a part by its name in `trace`.
        by: "input", a_{t-k}, k = 0 ... span, or "state", s_{t-k}, k = 1 ... span.
        path: "total", or "direct" with gates held as recorded.
        num_samples: number of draws, those of `trace`.

    Returns:
        "sensitivity", (sample, sequence, lag, of, by); its "singular_value"s, (sample, sequence, lag, mode), the
        largest first; of the whole state by the state also the "spectral_radius", (sample, sequence, lag). Lags are in
        steps; NaN before a sequence begins, and where it has no such step.

    Raises:
        TypeError: something that is no posterior.
        ValueError: a step that no sequence has, an unknown part, `by` or path; no draws.

    References:
        Pascanu, Mikolov, Bengio. On the difficulty of training recurrent neural networks. 2013.
        Maheswaranathan, Williams, Golub, Ganguli, Sussillo. Reverse engineering recurrent networks for sentiment
        classification reveals line attractor dynamics. 2019.
    """
    check_choice(OWNER, "by", by, BY)
    check_choice(OWNER, "path", path, PATHS)
    span = check_size(OWNER, "span", span)
    return pooled(OWNER, posterior, num_samples, lambda one, count: _of_one(one, at, span, of, by, path, count))


def _of_one(posterior: Posterior, at: int, span: int, of: str, by: str, path: str, num_samples: int) -> xarray.Dataset:
    lengths = posterior.data.lengths.cpu()
    longest = int(lengths.max())
    at = check_integer(OWNER, "at", at, least=-longest, most=longest - 1)
    step = torch.where(lengths > at, at, -1) if at >= 0 else lengths + at
    model, parts = posterior.model, []
    part = part_of_state(OWNER, model.transition, of)
    lags = torch.arange(span + 1) if by == "input" else torch.arange(1, span + 1)
    for run in posterior.transition_runs(num_samples):
        found = _spanned(run, step[run.rows], span, part, by, path)
        parts.append({"sensitivity": found[:, :, lags]})
    arrays, axes = in_rows(parts), ("sample", "sequence", "lag")
    product = arrays["sensitivity"]
    variables: dict[str, Variable] = {
        "sensitivity": ((*axes, "of", "by"), product),
        "singular_value": ((*axes, "mode"), _where_finite(torch.linalg.svdvals, product, min(product.shape[-2:]))),
    }
    if by == of == "state":
        radius = _where_finite(lambda each: torch.linalg.eigvals(each).abs().amax(-1, keepdim=True), product, 1)
        variables["spectral_radius"] = (axes, radius[..., 0])
    names = state_names(model.transition) if by == "state" else input_names(model)
    coords = {"lag": lags.numpy(), "of": part_names(model.transition, of, product.shape[-2]), "by": names}
    return labelled(posterior.data, variables, coords=coords, attributes={"of": of, "by": by, "path": path, "at": at})


def _spanned(run: TransitionRun, step: Tensor, span: int, part: StepOutput, by: str, path: str) -> Tensor:
    """Return d of(s_t) / d of lags 0 ... span, (sample, sequence, lag, of, by); lag 0 of states is left empty."""
    steps = step[:, None] - torch.arange(span + 1)
    there, steps = (steps >= 0).to(run.before.device), steps.clamp_min(0)
    # the step itself answers by the part that is asked for, those before it by whole states
    first = {
        way: next(jacobian_blocks(run, part, way, path, steps[:, :1]))[1][:, :, 0].double() for way in ("state", by)
    }
    found = [first[by] if by == "input" else torch.full_like(first["state"], torch.nan)]
    onto = first["state"]  # d of(s_t) / d s_{t-lag}, from lag one on
    if by == "state":
        found.append(onto)
    by_states, by_inputs = (jacobian_blocks(run, whole_state, way, path, steps[:, 1:]) for way in BY)
    for _, before in by_states:
        given = next(by_inputs)[1] if by == "input" else None
        for lag in range(before.shape[2]):
            if given is not None:
                found.append(onto @ given[:, :, lag].double())
            onto = onto @ before[:, :, lag].double()
            if given is None:
                found.append(onto)
    stacked = torch.stack(found[: span + 1], 2)
    # s_{t-lag} is there where step t - lag + 1 is
    seen = there if by == "input" else torch.cat([there[:, :1], there[:, :-1]], 1)
    return torch.where(seen[None, :, :, None, None], stacked, torch.nan)


def _where_finite(function: Callable[[Tensor], Tensor], matrices: Tensor, size: int) -> Tensor:
    """Return a function of matrices, (..., size), with NaN where they are not there."""
    there = matrices.isfinite().all(-1).all(-1)
    found = matrices.new_full((*matrices.shape[:-2], size), torch.nan)
    found[there] = function(matrices[there])
    return found
