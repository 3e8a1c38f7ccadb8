"""Former public names, which keep working for one release with a warning that says what to write instead."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_OF_FIT = {
    "optimiser": "optimizer",
    "learning_rate_schedule": "optimizer=AdamW.schedule",
    "rollback": "optimizer=AdamW.rollback",
    "num_particles": "objective=ELBO.num_particles",
    "kl": "objective=ELBO.kl",
    "coordinated_dropout": "objective=ELBO.coordinated_dropout",
    "head_weights": "objective=ELBO.head_weights",
    "checkpoint": "checkpointing=Checkpointing.directory",
    "checkpoint_every": "checkpointing=Checkpointing.every",
    "resume": "checkpointing=Checkpointing.resume",
    "device": "compute=Compute.device",
    "processes": "compute=Compute.processes",
    "matmul_precision": "compute=Compute.matmul_precision",
    "window": "compute=Compute.window",
    "progress": "reporting=Reporting.progress",
    "report_every": "reporting=Reporting.every",
}

# By whose they are, {former: present}. "latentrnn": names of the package; "Class": attributes and methods of a class;
# "function()" and "Class.method()": keyword arguments. "objective=ELBO.num_particles" says that the former argument is
# now a field of the object that is given as `objective`, an ELBO by default.
FORMER: dict[str, dict[str, str]] = {
    "latentrnn": {},
    "Encoder": {"follow": "start_streaming"},
    "Family": {"numbers": "variational_parameters"},
    "Guide": {"numbers": "variational_parameters"},
    "Latent": {"complete": "sample_marginalised"},
    "LatentRNN": {"drive": "transition_inputs", "follow": "trace", "unfold": "unroll"},
    "Observation": {"complete": "sample_missing", "view": "encoder_input"},
    "SequenceData": {"remember": "carry_out", "remembered": "carry_in"},
    "fit()": _OF_FIT,
    "Constant.factor()": {"stale": "evaluations_without_improvement"},
    "Cosine.factor()": {"stale": "evaluations_without_improvement"},
    "Plateau.factor()": {"stale": "evaluations_without_improvement"},
    "fit_ensemble()": _OF_FIT | {"together": "vectorised", "optimisers": "optimizers"},
}


def former_name(owner: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module: a former name gives what has the present one, and warns.

    Args:
        owner: the module's name, a row of `FORMER`; its present names may be dotted paths below the module.

    Raises:
        AttributeError: the module never had such a name.
    """

    def find(name: str) -> Any:
        present = FORMER.get(owner, {}).get(name)
        if present is None:
            raise AttributeError(f"module {owner!r} has no attribute {name!r}")
        _warn(f"{owner}.{name}", f"{owner}.{present}", stacklevel=3)
        found: Any = sys.modules[owner]
        for part in present.split("."):
            found = getattr(found, part)
        return found

    return find


def former_attributes(kind: C) -> C:
    """Give a class its former attributes and methods, which hand on to the present ones and warn."""
    for former, present in FORMER.get(kind.__name__, {}).items():
        setattr(kind, former, property(_handed_on(kind.__name__, former, present)))
    return kind


def former_methods(kind: type) -> None:
    """Give a class the former names of the methods that it defines, and take those that it defines by a former name.

    For bases that users derive from: an override by its former name takes the place of the present method, and
    `super()` finds the method of the class above by either name.
    """
    for base in kind.__mro__:
        for former, present in FORMER.get(base.__name__, {}).items():
            if former in vars(kind) and present not in vars(kind):
                _warn(f"{kind.__name__}.{former}", f"{kind.__name__}.{present}", stacklevel=4)
                setattr(kind, present, vars(kind)[former])
            if present in vars(kind):
                setattr(kind, former, property(_own(kind, former, present)))


def _own(kind: type, former: str, present: str) -> Callable[[Any], Any]:
    method = vars(kind)[present]

    def get(self: Any) -> Any:
        _warn(f"{kind.__name__}.{former}", f"{kind.__name__}.{present}", stacklevel=3)
        return method.__get__(self, type(self))

    get.__doc__ = f"Former name of `{present}`."
    return get


def _handed_on(owner: str, former: str, present: str) -> Callable[[Any], Any]:
    def get(self: Any) -> Any:
        _warn(f"{owner}.{former}", f"{owner}.{present}", stacklevel=3)
        return getattr(self, present)

    get.__doc__ = f"Former name of `{present}`."
    return get


def former_arguments(
    owner: str, *, hands_on_to: Callable[..., Any] | None = None, **makers: Callable[..., Any]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take its former keyword arguments, each with a warning.

    Args:
        owner: its name without brackets, e.g. "fit" or "Posterior.mean"; "fit()" is the row of `FORMER`.
        hands_on_to: the function that takes its `**settings`, whose defaults count for them.
        makers: what makes the object that former arguments are fields of, where the argument's default is None.

    Raises:
        TypeError: in a call, that an argument is given by both names.
    """
    table = FORMER.get(f"{owner}()", {})

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters
        handed_on = {} if hands_on_to is None else dict(inspect.signature(hands_on_to).parameters)

        @wraps(function)
        def translated(*args: P.args, **kwargs: P.kwargs) -> R:
            if former := table.keys() & kwargs.keys():
                defaults = {name: parameter.default for name, parameter in (handed_on | dict(parameters)).items()}
                given = {name: kwargs.pop(name) for name in table if name in former}
                kwargs.update(present_arguments(owner, given, kwargs, defaults, makers))
            return function(*args, **kwargs)

        return translated

    return decorate


def present_arguments(
    owner: str,
    former: dict[str, Any],
    present: dict[str, Any],
    defaults: dict[str, Any],
    makers: dict[str, Callable[..., Any]],
) -> dict[str, Any]:
    """Return the present arguments that former ones stand for, by name.

    Args:
        owner: the function's name without brackets.
        former: what was given by former names.
        present: what was given by present names.
        defaults: of present arguments.
        makers: see `former_arguments`.

    Raises:
        TypeError: an argument is given by both names.
    """
    found: dict[str, Any] = {}
    fields: dict[str, dict[str, Any]] = {}
    for old, value in former.items():
        new, _, inside = FORMER[f"{owner}()"][old].partition("=")
        if inside:
            kind, _, field = inside.partition(".")
            fields.setdefault(new, {})[field] = value
            whole = found.get(new, present.get(new, defaults.get(new)))
            kind = type(whole).__name__ if dataclasses.is_dataclass(whole) else kind
            shown = f"{new}={kind}({field}=...)"
        else:
            shown = f"{new}="
            if new in present:
                raise TypeError(f"{owner}: {old}= is the former name of {new}=, and both are given; leave out {old}=")
            found[new] = value
        _warn(f"{owner}: {old}=", shown, stacklevel=4)
    for new, values in fields.items():
        whole = found.get(new, present.get(new, defaults.get(new)))
        found[new] = makers[new](**values) if whole is None else _with_fields(owner, new, whole, values)
    return found


def _with_fields(owner: str, argument: str, whole: Any, values: dict[str, Any]) -> Any:
    """Return an object with fields that were given apart from it."""
    if not dataclasses.is_dataclass(whole) or isinstance(whole, type):
        return whole  # of a wrong kind, which the function itself says
    own = {field.name: field for field in dataclasses.fields(whole)}
    for name, value in values.items():
        if name not in own and value:
            raise TypeError(f"{owner}: {argument}={type(whole).__name__}(...) has no {name}; found {value!r:.80}")
        if name in own and getattr(whole, name) != own[name].default:
            raise TypeError(
                f"{owner}: {name} is given twice, by its former name and as {argument}={whole!r:.200}; leave out the "
                "former one"
            )
    return dataclasses.replace(whole, **{name: value for name, value in values.items() if name in own})


def _warn(former: str, present: str, *, stacklevel: int) -> None:
    message = f"{former} is a former name, which goes with the next release; use {present}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)
