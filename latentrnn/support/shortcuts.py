"""Methods whose work a later room does: `posterior.to_arviz()` is a shortcut to the room of exports.

The earlier room asks for the function by name when the method is called, and the later room provides it when it is
imported, which importing `latentrnn` does. So neither room imports the other for the method's sake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_PROVIDED: dict[str, Callable[..., Any]] = {}


def provides_shortcut(function: F) -> F:
    """Provide a function, under its own name, for a method of an earlier room."""
    _PROVIDED[function.__name__] = function
    return function


def shortcut(name: str) -> Callable[..., Any]:
    """Return the function that a later room provides under a name.

    Example:
        >>> import latentrnn as lr
        >>> shortcut("to_arviz") is lr.to_arviz
        True
    """
    return _PROVIDED[name]
