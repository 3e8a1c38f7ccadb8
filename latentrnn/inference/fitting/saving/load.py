"""Loading a fit that was saved, checking everything that can be wrong with its files."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from latentrnn.data import DataSpec, SequenceKey
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.saving.bounded import Bounded
from latentrnn.inference.fitting.saving.manifest import MANIFEST, read_manifest, rebuilt
from latentrnn.inference.fitting.saving.weights import open_weights, read_weights
from latentrnn.inference.guides.guide import Guide
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_kind_of, check_path
from latentrnn.support.isolation import isolated

T = TypeVar("T")


@isolated
def load(path: str | os.PathLike[str], *, spec: DataSpec | None = None) -> FitResult:
    """Load a fit that `save` wrote, on CPU, checking everything that can be wrong with the files.

    Files are not trusted: nothing in them names code other than the package's components, classes of your own that are
    known already, distributions of a list, and functions that were registered (`PhysicalPenalty.register`). The JSON
    file and the weights are held against their checksums, and nothing larger than the weights is built.

    Args:
        path: the directory given to `save`.
        spec: the spec of the data that the model is meant for, `data.spec`; it is compared with the saved one.

    Returns:
        The fit: configuration, weights and history equal those of the saved one bit for bit.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: `path` is not a checkpoint, or was written by a newer version, or a file is missing, truncated or
            changed, or a tensor is not what the configuration describes, or a component class is not known yet, or
            `spec` differs from the saved one. The message names the file and what is wrong.
    """
    directory = check_path("load", path)
    if spec is not None:
        check_kind_of("load", "spec", spec, DataSpec)
    manifest = read_manifest(directory)
    where = directory / MANIFEST
    weights = {part: open_weights(directory, manifest["weights"][part]) for part in ("model", "guide")}
    saved_spec = rebuilt(where, "spec", lambda: DataSpec.from_json(manifest["spec"]))
    if spec is not None:
        try:
            saved_spec.check_compatible(spec)
        except ValueError as error:
            raise ValueError(f"{directory}: the saved model does not fit this data: {error}") from error

    def built(part: str, build: Callable[[], T]) -> T:
        # building draws weights; loading leaves the user's generator alone, which no other thread may use meanwhile
        file = weights[part]
        bound = Bounded(file.numbers, len(file.shapes))
        with torch.random.fork_rng(devices=[]), bound:
            return rebuilt(where, part, build, manifest)

    model = built("model", lambda: LatentRNN.from_config(manifest["model"], saved_spec))
    guide = built("guide", lambda: Guide.from_config(manifest["guide"], model))
    for part, module in (("model", model), ("guide", guide)):
        rebuilt(where, part, partial(read_weights, module, weights[part]), manifest)
    return FitResult(
        model=model,
        guide=guide,
        history=manifest["history"],
        stop_reason=manifest["stop_reason"],
        best_step=manifest["best_step"],
        seed=manifest["seed"],
        used=frozenset(SequenceKey(*key) for key in manifest["used"]),
        settings=manifest["settings"],
        events=manifest["events"],
    )
