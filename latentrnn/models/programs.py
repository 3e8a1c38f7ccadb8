"""What the Pyro programs of models and guides share: the plate, and where their parameters live."""

from __future__ import annotations

import pyro
from pyro.poutine.trace_messenger import TraceMessenger
from torch import nn

from latentrnn.data import SequenceData
from latentrnn.models import sites
from latentrnn.support.private_symbols import handlers


def sequence_plate(data: SequenceData) -> pyro.plate:
    """Return the plate over sequences of a batch: the same for model and guide."""
    if data.indices is None:
        return pyro.plate(sites.PLATE, data.num_sequences, dim=-1)
    return pyro.plate(sites.PLATE, data.total, subsample=data.indices, dim=-1)


def refuse_param_store(module: nn.Module) -> None:
    """Raise where `pyro.infer.SVI` looks for parameters in the param store, in which ours do not live.

    A program that registers them itself (`pyro.module`) is left alone, and so is a module of which nothing is to be
    trained beside an autoguide, whose parameters do live there.

    Raises:
        RuntimeError: naming what to use instead.
    """
    parameters = list(module.parameters())
    for handler in handlers():
        if not (isinstance(handler, TraceMessenger) and handler.param_only):
            continue
        seen = {id(node["value"].unconstrained()) for node in handler.trace.nodes.values() if node["type"] == "param"}
        # a guide without parameters goes with a model that has some, which the guide is the first to know of
        if any(p.requires_grad and id(p) not in seen for p in parameters) or not (parameters or seen):
            raise RuntimeError(
                f"{type(module).__name__} keeps its parameters in the module, where pyro.infer.SVI with pyro.optim "
                "cannot see them: it would not train them, whatever the guide. Use latentrnn.fit (lr.fit), or "
                "Trace_ELBO()(model, guide) with torch.optim"
            )
