"""Pointwise predictive densities as ArviZ takes them: `ELPDData` of whichever generation is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.support import arviz_generations
from latentrnn.support.arguments import check_text

if TYPE_CHECKING:
    import pandas


def elpd_data(values: Any, *, dim: str = "sequence") -> Any:
    """Wrap held-out log densities (nats, one per sequence or block) as `ELPDData` for `az.compare`.

    ArviZ has no name for densities of held-out data, so the total carries its name for leave-one-out although nothing
    is left out here: the data are new. There is no effective number of parameters, so `p` is NaN.

    Args:
        values: log density of each held-out sequence or block, (unit,): a tensor or an array, as in `Evidence.values`
            and the exported `log_evidence`.
        dim: name of the axis.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    pointwise = to_tensor("elpd_data: values", values)
    dim = check_text("elpd_data", "dim", dim)
    if pointwise.dim() != 1 or not pointwise.numel() or not bool(pointwise.isfinite().all()):
        raise ValueError(f"elpd_data: expected finite values (unit,); found shape {tuple(pointwise.shape)}")
    return arviz_generations.elpd(pointwise.double().numpy(), dim)


def arviz_compare(elpds: Mapping[str, Any], method: str) -> pandas.DataFrame:
    """Return the table of the installed `az.compare`: a row per model, best first, columns as that version calls them.

    Args:
        elpds: model name to `ELPDData` of the same units, on the log scale, nats (see `elpd_data`).
        method: of the weights, as `az.compare` knows it, e.g. "stacking".
    """
    return arviz_generations.compare(elpds, method)


def psis_weights(log_ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Return normalised Pareto-smoothed weights, (draw, unit), and k-hat, (unit,), of log importance ratios.

    Args:
        log_ratios: (draw, unit), nats.

    References:
        Vehtari, Simpson, Gelman, Yao, Gabry. Pareto smoothed importance sampling. 2024.
    """
    log_weights, shape = arviz_generations.smoothed(log_ratios.T.detach().cpu().double().numpy())
    smoothed = torch.softmax(torch.as_tensor(numpy.asarray(log_weights)), -1)
    return smoothed.T, torch.as_tensor(numpy.atleast_1d(shape))
