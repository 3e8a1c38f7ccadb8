"""How many of the package's files a reader goes through who follows an array, a gradient step or a mean.

`docs/architecture.md` describes these walks. The bounds are what they took before the rooms were laid out; a part that
is built twice, checked twice or asked for what nobody needs shows here first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

import latentrnn as lr

ROOT = str(Path(lr.__file__).parent)


class Walk(NamedTuple):
    """Files that were entered, pairs of files of which one called the other, and how often one did."""

    files: int
    pairs: int
    calls: int


def walk(function: Callable[[], Any]) -> tuple[Any, Walk]:
    files: set[str] = set()
    calls: list[tuple[str, str]] = []

    def see(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(ROOT) or frame.f_code.co_name == "<module>":
            return
        files.add(name)
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(ROOT):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != name:
            calls.append((caller.f_code.co_filename, name))

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        found = function()
    finally:
        sys.setprofile(before)
    return found, Walk(len(files), len(set(calls)), len(calls))


def test_walks_are_no_longer_than_they_were() -> None:
    rng = np.random.default_rng(0)
    counts, stimulus = rng.poisson(1.0, (8, 20, 3)).astype(np.float32), rng.normal(size=(8, 20, 2)).astype(np.float32)

    def read() -> lr.SequenceData:
        return lr.SequenceData.from_arrays({"spikes": counts}, {"x": stimulus}, dt=0.01)

    data = read()
    heads = {"spikes": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(8), latent=lr.Innovations(2), observations=heads, inputs="x")
    guide = lr.Guide(model, encoder=lr.RNNEncoder(8))
    silent = lr.Reporting(progress=False)  # a bar, of tqdm on a terminal, is no part of a step either
    lr.fit(model, guide, data, steps=1, reporting=silent)  # what is imported and cached once is no part of a step
    _, ingested = walk(read)
    result, step = walk(lambda: lr.fit(model, guide, data, steps=1, reporting=silent))
    result.posterior(data).mean("spikes")
    posterior = result.posterior(data)
    _, mean = walk(lambda: posterior.mean("spikes"))
    for found, most in ((ingested, Walk(14, 16, 62)), (step, Walk(51, 102, 429)), (mean, Walk(37, 64, 224))):
        assert all(own < bound for own, bound in zip(found, most, strict=True)), (found, most)
