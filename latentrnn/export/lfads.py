"""Factors, rates and inferred inputs in a file as LFADS writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.export.hdf5 import check_target, write_arrays
from latentrnn.inference.posterior.draws.predictions import Chunk, averaged
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.models import sites
from latentrnn.models.readouts import FactorReadout
from latentrnn.support.arguments import check_kind_of, check_selection, check_size, check_text

# a latent's moments by the names of LFADS: of the initial condition, and of what the controller puts out
_MOMENTS = {sites.INITIAL: ("ic_mean", "ic_std"), sites.INNOVATIONS: ("co_means", "co_stds")}


def to_lfads(
    path: str | os.PathLike[str],
    posteriors: Mapping[str, Posterior],
    heads: Sequence[str] | None = None,
    *,
    num_samples: int = 50,
) -> Path:
    """Write posterior means by the names under which lfads-torch writes them, for scripts that read its output.

    Of each part of the data, with its name before it (`train_factors`, `valid_factors`), all (sequence, time, ...):

    - output_params: expected counts per bin of the heads, side by side
    - factors: of the first head with a `FactorReadout`
    - gen_states: the states that readouts see
    - gen_inputs: the innovations, with the features of covariates that drive the transition after them
    - co_means, co_stds: mean and standard deviation of the innovations
    - ic_mean, ic_std: of the latent that sets the initial state, (sequence, dim)
    - recon_data: what was recorded of the heads, NaN where nothing was; ext_input: the covariates, side by side
    - names: of the sequences

    What a model does not have is left out. Standard deviations are those of the draws, which is what an LFADS's are on
    average where its controller does not depend on earlier draws. There is no controller whose states could be written.

    Args:
        path: of the file, which is written over.
        posteriors: of the parts of the data by name, {"train": ..., "valid": ...}.
        heads: per-step heads; all by default.
        num_samples: draws that means are taken over, as LFADS's posterior sampling does; at least two.

    Returns:
        The path.

    Raises:
        ValueError: no posterior, an unknown head or one without time, or fewer than two draws.
        FileNotFoundError: there is no such folder.
        TypeError: an argument of another kind.

    References:
        Pandarinath, O'Shea, Collins, Jozefowicz, Stavisky, ... Sussillo. Inferring single-trial neural population
        dynamics using sequential auto-encoders. 2018.
        Sedler, Pandarinath. lfads-torch: a modular and extensible implementation of latent factor analysis via
        dynamical systems. 2023. The names are those of `SessionOutput` and `SessionBatch` (`lfads_torch/tuples.py`
        of the public repository arsedler9/lfads-torch).
    """
    target = check_target("to_lfads", path)
    count = check_size("to_lfads", "num_samples", num_samples)
    if count < 2:
        raise ValueError("to_lfads: num_samples must be 2 or more, for standard deviations; found 1")
    check_kind_of("to_lfads", "posteriors", posteriors, Mapping)
    if not posteriors:
        raise ValueError("to_lfads: posteriors must hold one at least, by the name of its part of the data")
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for part, posterior in posteriors.items():
        check_text("to_lfads", "names of posteriors", part)
        check_kind_of("to_lfads", f"posteriors[{part!r}]", posterior, Posterior)
        arrays |= {f"{part}_{name}": value for name, value in _of_part(posterior, heads, count).items()}
    write_arrays(target, None, arrays)
    return target


def _of_part(posterior: Posterior, heads: Sequence[str] | None, count: int) -> dict[str, np.ndarray[Any, Any]]:
    model, data = posterior.model, posterior.data.to("cpu")
    along_time = [name for name, head in model.observations.items() if head.head.per_step and head.head.clock == 1]
    chosen = along_time if heads is None else check_selection("to_lfads", "heads", heads, along_time, "per-step head")
    if not chosen:
        raise ValueError("to_lfads: expected one per-step head at least, found none")
    found = {"output_params": torch.cat([posterior.mean(name, count) for name in chosen], -1)}
    with_factors = [name for name in chosen if isinstance(model.observations[name].readout, FactorReadout)]
    if with_factors:
        draws = posterior.factors(count)[with_factors[0]]
        found["factors"] = torch.from_numpy(draws.mean("sample").values)
    mean = averaged(posterior.latent_parts(count), count, data)
    square = averaged(_squares(posterior.latent_parts(count)), count, data)
    found["gen_states"] = mean[sites.STATES]
    for site, (of_mean, of_spread) in _MOMENTS.items():
        if site in mean:
            variance = (square[site] - mean[site].double().square()).clamp_min(0.0) * (count / (count - 1))
            found |= {of_mean: mean[site], of_spread: variance.sqrt()}
    with torch.no_grad():
        driving = model.features(posterior.data.to(posterior.device)).cpu()
    inputs = [*([mean[sites.INNOVATIONS]] if sites.INNOVATIONS in mean else []), _inside(driving, data)]
    found["gen_inputs"] = torch.cat(inputs, -1)
    recorded = [torch.where(data.masks[name], data.observations[name], torch.nan) for name in chosen]
    found["recon_data"] = torch.cat(recorded, -1)
    if data.covariates:
        found["ext_input"] = _inside(torch.cat(list(data.covariates.values()), -1), data)
    names = np.array([name.encode() for name in data.names])
    return {name: value.float().numpy() for name, value in found.items()} | {"names": names}


def _inside(value: Tensor, data: SequenceData) -> Tensor:
    """Return (sequence, time, ...) with NaN in padding."""
    return torch.where(data.valid.unsqueeze(-1), value, torch.nan)


def _squares(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the squares of values, in double precision: variances are differences of large numbers."""
    for chunk in chunks:
        yield chunk._replace(values=chunk.values.double().square())
