"""What is found of pairs of draw and sequence, row by row, put together as labelled arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from latentrnn.inference.posterior.interventions.replays import Replay
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.results.labelled import Variable, labelled, without_padding

if TYPE_CHECKING:
    import xarray


STEP = "step"  # some of the steps, before they are called time


class Found(NamedTuple):
    """What is found of some rows.

    Attributes:
        variables: name to the dims behind that of rows, "time" first where there is one, and values, (row, *dims).
        outputs: names along "output".
    """

    variables: Mapping[str, tuple[Sequence[str], Tensor]]
    outputs: Sequence[Any]


def of_rows(
    posterior: Posterior,
    num_samples: int,
    find: Callable[[Replay], Found],
    coords: Mapping[str, Any],
    attributes: Mapping[str, Any],
    *,
    steps: Sequence[int] | None = None,
    output: bool = True,
) -> xarray.Dataset:
    """Return what is found of all pairs of draw and sequence, (sample, sequence, ...), NaN in padding.

    Args:
        posterior: of which draws are taken.
        num_samples: number of draws.
        find: of some of the rows.
        coords: of the dims, which are as long as these say.
        attributes: of the dataset.
        steps: base steps that "time" has; all by default.
        output: whether "output" is one of the dims.
    """
    data, draws = posterior.data, num_samples
    arrays: dict[str, Tensor] = {}
    dims: dict[str, Sequence[str]] = {}
    outputs: Sequence[Any] = ()
    long = {"time": data.num_steps if steps is None else len(steps), **{dim: len(own) for dim, own in coords.items()}}
    for replay in posterior.replays(num_samples):
        found = find(replay)
        draws, outputs = replay.draws, found.outputs
        for name, (names, value) in found.variables.items():
            value = value.detach().cpu()
            if name not in arrays:
                shape = [long.get(dim, size) for dim, size in zip(names, value.shape[1:], strict=True)]
                arrays[name], dims[name] = value.new_full((draws, len(data), *shape), torch.nan), names
            into = arrays[name]
            for axis, size in enumerate(value.shape[1:], 2):  # some sequences may all be shorter
                into = into.narrow(axis, 0, size)
            into[replay.samples, replay.sequences] = value
    variables: dict[str, Variable] = {}
    for name, value in arrays.items():
        if dims[name][0] == "time" and steps is None:
            value = without_padding(value, data)
        value = value.expand(num_samples, *value.shape[1:])  # one, where all draws are the same
        variables[name] = (("sample", "sequence", *dims[name]), value)
    if output:
        coords = {**coords, "output": list(outputs)}
    if steps is None:
        return labelled(data, variables, coords=coords, attributes=attributes)
    named = {name: ([STEP if dim == "time" else dim for dim in own], value) for name, (own, value) in variables.items()}
    time = data.to("cpu").to_xarray()["time"].values[list(steps)]
    return labelled(data, named, coords={**coords, STEP: time}, attributes=attributes).rename({STEP: "time"})
