"""Functions that declare a model: `def model(data, hidden=16)`, what they may return, and which settings they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from latentrnn.inference.guides.encoders.rnn import RNNEncoder
from latentrnn.inference.guides.guide import Guide
from latentrnn.models.state_space import LatentRNN

HIDDEN = 64  # units of the encoder of a guide that was not given
ModelFunction = Callable[..., Any]


def check_model(owner: str, name: str, value: Any) -> None:
    """Check that something declares a model.

    Raises:
        TypeError: it is neither a function of the data, nor a model, nor a model with its guide.
    """
    pair = isinstance(value, tuple) and len(value) == 2
    whole = isinstance(value[0], LatentRNN) and isinstance(value[1], Guide) if pair else isinstance(value, LatentRNN)
    if not whole and (isinstance(value, type) or not callable(value)):
        raise TypeError(
            f"{owner}: {name} must be a function of the data, a LatentRNN, or a LatentRNN with its Guide; found "
            f"{type(value).__name__}"
        )


def settings_of(function: Any) -> set[str] | None:
    """Return the names of the settings that a declaration of a model takes; None where it takes any."""
    if isinstance(function, LatentRNN | tuple):
        return set()
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def declared(owner: str, name: str, function: Any, data: Any, settings: Mapping[str, Any]) -> tuple[LatentRNN, Guide]:
    """Return the model and the guide that a declaration makes for data.

    A model without a guide gets one with an encoder that reads every head both ways.

    Args:
        owner, name: who asks, and of which model, for messages.
        function: of the data and settings, returning a `LatentRNN`, or one with its `Guide`; or what it would return.
        data: the training sequences; most functions need `data.spec` alone.
        settings: by name.

    Raises:
        TypeError: it returns something else, or does not take a setting.
    """
    check_model(owner, name, function)
    taken = settings_of(function)
    if taken is not None and (unknown := sorted(set(settings) - taken)):
        raise TypeError(f"{owner}: {name} takes no setting {unknown}; its function names {sorted(taken)}")
    found = function if isinstance(function, LatentRNN | tuple) else function(data, **settings)
    if isinstance(found, LatentRNN):
        return found, default_guide(found)
    if isinstance(found, tuple) and list(map(type, found)) == [LatentRNN, Guide]:
        return found
    raise TypeError(f"{owner}: {name} must return a LatentRNN, or (LatentRNN, Guide); found {_kind(found)}")


def default_guide(model: LatentRNN) -> Guide:
    """Return the guide of a model that came without one: an encoder over both directions where anything is inferred."""
    if not model.latent_sites():
        return Guide(model)
    return Guide(model, encoder=RNNEncoder(HIDDEN, direction="bidirectional"))


def _kind(found: Any) -> str:
    if isinstance(found, tuple):
        return f"({', '.join(type(item).__name__ for item in found)})"
    return type(found).__name__
