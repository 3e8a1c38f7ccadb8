"""Every gate, state and input of a fitted model along the data, draw by draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.results.labelled import AnyPosterior, Variable, in_rows, labelled, pooled, without_padding
from latentrnn.interpret.results.names import by_layer, input_names, states_by_name
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

AXES = ("sample", "sequence", "time")


@isolated
def trace(posterior: AnyPosterior, num_samples: int = 100) -> xarray.Dataset:
    """Return every gate, every part of the state and every input of the transition, along the sequences.

    Gates are those that the transition records, at the states and inputs of each draw: "forget"; "layer0.forget" of
    stacked layers, "audio.forget" of a stream. Where a gate and a part of the state have one name, the gate is
    "gate.<name>". Parts of the state are "hidden", h_t, and what else there is: "cell" of an LSTM, "layer0.cell";
    "state", all of it, of a transition of one's own whose state is more than its output. "inputs" are a_t whole, as
    the transition is given them (covariates in the units that the fit took), with names along "input_channel": "gap"
    (seconds), covariates, "spikes[0]" of a past that feeds back, "innovation[0]" of what is drawn.

    Args:
        posterior: of any model, or of an ensemble (whose draws say of which "member" they are).
        num_samples: number of draws; draw s is that of `posterior.latents(num_samples)`.

    Returns:
        A dataset with the dims (sample, sequence, time, unit); variables of another size than most have a dim of their
        own, "<name>_unit". Padding is NaN. `interpret.summarise` makes means and intervals of it.

    Raises:
        TypeError: something that is no posterior.
        ValueError: no draws.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, dt=0.01)
        >>> heads = {"v": lr.Gaussian()}
        >>> model = lr.LatentRNN(data.spec, transition=lr.LSTM(3), latent=lr.Innovations(1), observations=heads)
        >>> guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
        >>> found = lr.interpret.trace(lr.Posterior(model, guide, data), num_samples=4)
        >>> sorted(found.data_vars), dict(found.forget.sizes)
        (['candidate', 'cell', 'forget', 'hidden', 'input', 'inputs', 'output'],
        {'sample': 4, 'sequence': 2, 'time': 5, 'unit': 3})
    """
    return pooled("trace", posterior, num_samples, _of_one)


def _of_one(posterior: Posterior, num_samples: int) -> xarray.Dataset:
    transition, parts = posterior.model.transition, []
    for run in posterior.transition_runs(num_samples):
        with torch.no_grad():
            states = states_by_name(run.transition, run.states)
            gates = by_layer(transition, run.gates())
        named = {f"gate.{name}" if name in states or name == "inputs" else name: gate for name, gate in gates.items()}
        found = {**named, **states, "inputs": run.inputs}
        parts.append({name: without_padding(value, run.rollout.data) for name, value in found.items()})
    arrays = in_rows(parts)
    inputs = arrays.pop("inputs")
    variables: dict[str, Variable] = _on_units(arrays)
    variables["inputs"] = ((*AXES, "input_channel"), inputs)
    return labelled(posterior.data, variables, coords={"input_channel": input_names(posterior.model)})


def _on_units(arrays: dict[str, Tensor]) -> dict[str, Variable]:
    """Return arrays with their dims: those of the commonest size share "unit"."""
    sizes = [value.shape[-1] for value in arrays.values()]
    most = max(set(sizes), key=lambda size: (sizes.count(size), size), default=0)
    return {
        name: ((*AXES, "unit" if value.shape[-1] == most else f"{name}_unit"), value) for name, value in arrays.items()
    }
