"""How a step answers to the state before it and to its input, with gates free and with gates held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.derivatives.derivatives import jacobian_blocks, part_names, part_of_state, state_names
from latentrnn.interpret.results.labelled import AnyPosterior, in_rows, labelled, pooled, without_padding
from latentrnn.interpret.results.names import input_names
from latentrnn.support.arguments import check_choice
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

BY, PATHS = ("state", "input"), ("total", "direct")


@isolated
def jacobians(
    posterior: AnyPosterior, of: str = "state", by: str = "state", *, path: str = "both", num_samples: int = 10
) -> xarray.Dataset:
    """Return the derivatives of every step at the states and inputs of the posterior.

        total_t = d of(s_t) / d by_t,   s_t = step(s_{t-1}, a_t);   direct_t: the same, gates held where they were

    A gate that reads what it gates makes the two differ: of an LSTM, d c_t / d a_t is diag(i_t (1 - g_t^2)) W_g with
    gates held, and only there are inputs let in in proportion to the input gate; on the total path gates open and
    close as well. What is let in ("candidate"; `contents` of a transition of one's own) is free on both.

    Args:
        posterior: of any model, or of an ensemble.
        of: part of the new state: "state", all of it; "output", h_t; or a part by its name in `trace`, e.g. "cell".
        by: "state", s_{t-1}, or "input", a_t, which the data and the latent give.
        path: "total", "direct", or "both".
        num_samples: number of draws, those of `trace`.

    Returns:
        "total" and "direct", (sample, sequence, time, of, by), per unit of what the transition computes with
        (covariates in the units that the fit took); entries are named "cell[3]", inputs as in `trace`. Padding is NaN.
        Where the latent draws states (`MarkovNormal`), of what the step makes of the state before.

    Raises:
        TypeError: something that is no posterior.
        ValueError: an unknown part, `by` or path; no draws.

    References:
        Krishnamurthy, Can, Schwab. Theory of gating in recurrent neural networks. 2022.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, {"x": np.ones((2, 5, 1))}, dt=0.01)
        >>> heads = {"v": lr.Gaussian()}
        >>> model = lr.LatentRNN(data.spec, transition=lr.LSTM(3), latent=lr.Deterministic(), observations=heads)
        >>> posterior = lr.Posterior(model, lr.Guide(model), data)
        >>> dict(lr.interpret.jacobians(posterior, "cell", "input", num_samples=1).direct.sizes)
        {'sample': 1, 'sequence': 2, 'time': 5, 'of': 3, 'by': 1}
    """
    check_choice("jacobians", "by", by, BY)
    check_choice("jacobians", "path", path, (*PATHS, "both"))
    paths = PATHS if path == "both" else (path,)
    return pooled("jacobians", posterior, num_samples, lambda one, count: _of_one(one, of, by, paths, count))


def _of_one(posterior: Posterior, of: str, by: str, paths: tuple[str, ...], num_samples: int) -> xarray.Dataset:
    transition = posterior.model.transition
    part, parts = part_of_state("jacobians", transition, of), []
    for run in posterior.transition_runs(num_samples):
        whole = {path: torch.cat([found for _, found in jacobian_blocks(run, part, by, path)], 2) for path in paths}
        parts.append({path: without_padding(value, run.rollout.data) for path, value in whole.items()})
    arrays = in_rows(parts)
    coords = {
        "of": part_names(transition, of, arrays[paths[0]].shape[-2]),
        "by": state_names(transition) if by == "state" else input_names(posterior.model),
    }
    variables = {path: (("sample", "sequence", "time", "of", "by"), value) for path, value in arrays.items()}
    return labelled(posterior.data, variables, coords=coords, attributes={"of": of, "by": by})
