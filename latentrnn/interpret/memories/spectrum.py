"""The spectrum of the linearised transition, in seconds and hertz."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.derivatives.derivatives import jacobian_blocks, whole_state
from latentrnn.interpret.derivatives.jacobians import PATHS
from latentrnn.interpret.results.labelled import AnyPosterior, in_rows, labelled, pooled, without_padding
from latentrnn.models.features.gap import elapsed
from latentrnn.support.arguments import check_choice
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray


@isolated
def spectrum(posterior: AnyPosterior, *, path: str = "total", num_samples: int = 10) -> xarray.Dataset:
    """Return the eigenvalues of every step's Jacobian as time constants and frequencies.

        d s_t / d s_{t-1} v = lambda v,   tau = -dt_t / ln|lambda|,   frequency = |arg lambda| / (2 pi dt_t)

    dt_t is the time since the step before; where data have times of their own, the first step took none, and has NaN.
    A mode with |lambda| > 1 grows, and its tau, negative, is the time in which it grows e-fold.

    Args:
        posterior: of any model, or of an ensemble.
        path: "total", or "direct" with gates held as recorded.
        num_samples: number of draws, those of `trace`.

    Returns:
        "time_constant", seconds (steps where the data have no clock), "frequency", hertz (per step), and "modulus",
        |lambda|, (sample, sequence, time, mode), those of largest modulus first. Padding is NaN.

    Raises:
        TypeError: something that is no posterior.
        ValueError: an unknown path; no draws.

    References:
        Sussillo, Barak. Opening the black box: low-dimensional dynamics in high-dimensional recurrent neural networks.
        2013.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, {"x": np.ones((2, 5, 1))}, dt=0.01)
        >>> heads, memory = {"v": lr.Gaussian()}, lr.LeakyIntegrator(2, tau=[0.1, 0.3], learned=False)
        >>> model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads)
        >>> found = lr.interpret.spectrum(lr.Posterior(model, lr.Guide(model), data), num_samples=1)
        >>> found.time_constant[0, 0, 0].values.round(3).tolist()
        [0.3, 0.1]
    """
    check_choice("spectrum", "path", path, PATHS)
    return pooled("spectrum", posterior, num_samples, lambda one, count: _of_one(one, path, count))


def _of_one(posterior: Posterior, path: str, num_samples: int) -> xarray.Dataset:
    parts = []
    for run in posterior.transition_runs(num_samples):
        data, found = run.rollout.data, []
        for _, each in jacobian_blocks(run, whole_state, "state", path):
            # on the CPU, where small matrices go fastest; what is no number stands in padding
            values = torch.linalg.eigvals(each.double().nan_to_num().cpu())
            found.append(values.gather(-1, values.abs().argsort(-1, descending=True)))
        values = torch.cat(found, 2)
        gap = elapsed(data).double().cpu()[None, :, :, None]
        named = {
            "time_constant": time_constant(values.abs().log(), gap),
            "frequency": torch.where(gap > 0, values.angle().abs() / (2 * math.pi * gap), torch.nan),
            "modulus": values.abs(),
        }
        parts.append({name: without_padding(value, data) for name, value in named.items()})
    axes = ("sample", "sequence", "time", "mode")
    variables = {name: (axes, value) for name, value in in_rows(parts).items()}
    return labelled(posterior.data, variables, attributes={"path": path})


def time_constant(log_kept: Tensor, elapsed: Tensor) -> Tensor:
    """Return -elapsed / ln(kept share): inf where all is kept, negative where it grows, NaN where no time passed."""
    found = torch.where(log_kept == 0, torch.inf, -elapsed / log_kept)
    return torch.where(elapsed > 0, found, torch.nan)
