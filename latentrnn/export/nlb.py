"""Submissions to the Neural Latents Benchmark."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from latentrnn.export.hdf5 import check_target, write_arrays
from latentrnn.inference.guides.families import PerSequence
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior
from latentrnn.support.arguments import check_choice, check_integer, check_kind_of, check_size, check_text

RECORDINGS = ("mc_maze", "mc_rtt", "area2_bump", "dmfc_rsg", "mc_maze_large", "mc_maze_medium", "mc_maze_small")
BINS = {"": 0.005, "_20": 0.020}  # seconds, by what ends the name of a dataset
DATASETS = tuple(name + ending for name in RECORDINGS for ending in BINS)


def to_nlb(
    path: str | os.PathLike[str],
    dataset: str,
    *,
    train: Posterior | EnsemblePosterior,
    evaluation: Posterior | EnsemblePosterior,
    heldin: str = "heldin",
    heldout: str = "heldout",
    forward_steps: int = 0,
    num_samples: int = 50,
) -> Path:
    """Write expected counts per bin as the benchmark's evaluation reads them.

    The file has a group named as the dataset, with `train_rates_heldin`, `train_rates_heldout`, `eval_rates_heldin` and
    `eval_rates_heldout`, (trial, bin, neuron), and with `forward_steps` each also with the ending `_forward`, the last
    bins of every trial. Other datasets in the file stay, so that a submission is put together call by call. Padding of
    shorter trials is NaN, which the evaluation takes where nothing was recorded.

    For co-smoothing an encoder reads the held-in neurons alone (`observes=[heldin]`), and for forward prediction the
    last bins are given as missing: else the rates would have seen what they are judged by, which the latter refuses.

    Args:
        path: of the file.
        dataset: as the benchmark names it, e.g. "mc_maze" for bins of 5 ms, "mc_maze_20" for 20 ms.
        train, evaluation: the posteriors of the training and the evaluation trials.
        heldin, heldout: the heads of counts whose neurons are seen, and not seen, at evaluation.
        forward_steps: bins at the end of the trials that are predicted.
        num_samples: draws that the rates are averaged over.

    Returns:
        The path.

    Raises:
        ValueError: an unknown dataset, bins of another width, a head that is unknown or no counts along time, an
            encoder that reads the held-out neurons, or bins to predict that were observed.
        FileNotFoundError: there is no such folder.
        TypeError: an argument of another kind.

    References:
        Pei, Ye, Zoltowski, Wu, Chowdhury, ... Pandarinath. Neural Latents Benchmark '21: evaluating latent variable
        models of neural population activity. 2021. The names are those that `evaluate` of the package nlb_tools reads
        (`nlb_tools/evaluation.py` of the public repository neurallatents/nlb_tools).
    """
    target = check_target("to_nlb", path)
    dataset = check_choice("to_nlb", "dataset", dataset, DATASETS)
    forward = check_integer("to_nlb", "forward_steps", forward_steps)
    count = check_size("to_nlb", "num_samples", num_samples)
    heads = {part: check_text("to_nlb", part, name) for part, name in (("heldin", heldin), ("heldout", heldout))}
    posteriors = {"train": train, "eval": evaluation}
    for part, posterior in posteriors.items():
        name = {"eval": "evaluation"}.get(part, part)
        check_kind_of("to_nlb", name, posterior, Posterior, EnsemblePosterior)
        _check(name, posterior, dataset, heads, forward)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for part, posterior in posteriors.items():
        for kind, head in heads.items():
            rates = posterior.mean(head, count).double().numpy()
            seen = rates.shape[1] - forward
            arrays[f"{part}_rates_{kind}"] = rates[:, :seen]
            if forward:
                arrays[f"{part}_rates_{kind}_forward"] = rates[:, seen:]
    write_arrays(target, dataset, arrays)
    return target


def _check(
    name: str, posterior: Posterior | EnsemblePosterior, dataset: str, heads: dict[str, str], forward: int
) -> None:
    """Raise a ValueError unless a posterior predicts what the benchmark asks for, of bins of the dataset's width."""
    data = posterior.data
    width = BINS["_20" if dataset.endswith("_20") else ""]
    if data.spec.dt is not None and not math.isclose(data.spec.dt, width, rel_tol=1e-6):
        raise ValueError(f"to_nlb: {dataset!r} has bins of {width:g} s; {name} has dt={data.spec.dt:g}")
    for head in heads.values():
        if head not in posterior.model.observations:
            raise ValueError(f"to_nlb: unknown head {head!r}; the model has {sorted(posterior.model.observations)}")
        observation = posterior.model.observations[head]
        if not observation.discrete or not observation.head.per_step or observation.head.clock != 1:
            raise ValueError(f"to_nlb: {head!r} must be counts of every step; found {observation!r}")
        if forward >= data.num_steps:
            raise ValueError(
                f"to_nlb: forward_steps must be below the {data.num_steps} steps of {name}; found {forward}"
            )
        if name == "evaluation" and forward and bool(data.masks[head][:, data.num_steps - forward :].any()):
            raise ValueError(
                f"to_nlb: the last {forward} steps of {head!r} are predicted, and must be missing (NaN) in the data of "
                "evaluation; they are observed"
            )
    if name != "evaluation" or not bool(data.masks[heads["heldout"]].any()):
        return
    for one in posterior.posteriors if isinstance(posterior, EnsemblePosterior) else (posterior,):
        guide = one.guide
        encoder = guide.encoder if isinstance(guide, Guide) and not isinstance(guide.local, PerSequence) else None
        if encoder is None or heads["heldout"] in encoder.visible:
            raise ValueError(
                f"to_nlb: {heads['heldout']!r} is observed in the data of evaluation, and the guide sees it: expected "
                f"an encoder with observes={[heads['heldin']]!r}, or data in which it is missing; found {encoder!r}"
            )
