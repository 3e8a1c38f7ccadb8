"""Former public names, which keep working for one release with a warning that says what to write instead."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial, wraps
from operator import attrgetter
from types import MappingProxyType
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
    "EncoderInput": {"show": "encode", "spread": "expand_mask", "scales": "centre_and_scale"},
    "Family": {"numbers": "variational_parameters"},
    "Guide": {"numbers": "variational_parameters"},
    "Latent": {"complete": "sample_marginalised"},
    "LatentRNN": {"drive": "transition_inputs", "follow": "trace", "unfold": "unroll"},
    "ProjectedInputTransition": {"drive": "project_inputs"},
    "Rollout": {
        "be_precise": "use_double_precision",
        "complete": "sample_marginalised",
        "drive": "transition_inputs",
        "drives": "feeds_transition",
        "fed_back": "feedback_distribution",
        "feeding": "feedback_heads",
        "precise": "is_double",
        "precisely": "double_precision",
    },
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


class FormerName(property):
    """A former name of an attribute or a method: what is read from it or written to it is the present one's."""

    def __init__(self, owner: str, former: str, present: str, read: Callable[[Any], Any]) -> None:
        def get(self: Any) -> Any:
            _warn(f"{owner}.{former}", f"{owner}.{present}", stacklevel=3)
            return read(self)

        def put(self: Any, value: Any) -> None:
            _warn(f"{owner}.{former}", f"{owner}.{present}", stacklevel=3)
            setattr(self, present, value)

        super().__init__(get, put, doc=f"Former name of `{present}`.")


def former_attributes(kind: C) -> C:
    """Give a class its former attributes, which hand on to the present ones and warn."""
    for former, present in FORMER.get(kind.__name__, {}).items():
        setattr(kind, former, FormerName(kind.__name__, former, present, attrgetter(present)))
    return kind


def former_methods(kind: C) -> C:
    """Give a class the former names of the methods that it defines, and take those that it defines by a former name.

    For bases that users derive from, and their subclasses: an override by its former name, in a class or in what is
    mixed into it, takes the place of the present method, and `super()` finds the method of the class above by either
    name.
    """
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != __name__.partition(".")[0]:
            continue  # a user's class that happens to be called as one of the package's
        for former, present in FORMER.get(base.__name__, {}).items():
            override = _override(kind, former, present)
            if override is not None:
                _warn(f"{kind.__name__}.{former}", f"{kind.__name__}.{present}", stacklevel=4)
                setattr(kind, present, override)
            if present in vars(kind):
                method = vars(kind)[present]
                read = partial(_bound, method)
                setattr(kind, former, FormerName(kind.__name__, former, present, read))
    return kind


def _override(kind: type, former: str, present: str) -> Any:
    """Return what a class has by a former name, in front of whatever has the present one; None where nothing is."""
    for each in kind.__mro__:
        if present in vars(each):
            return None
        if former in vars(each) and not isinstance(vars(each)[former], FormerName):
            return vars(each)[former]
    return None


def _bound(method: Any, owner: Any) -> Any:
    return method.__get__(owner, type(owner))


def former_arguments(
    owner: str,
    *,
    hands_on_to: Callable[..., Any] | None = None,
    each: Mapping[str, str] = MappingProxyType({}),
    **makers: Callable[..., Any],
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take its former keyword arguments, each with a warning.

    Args:
        owner: its name without brackets, e.g. "fit" or "Posterior.mean"; "fit()" is the row of `FORMER`.
        hands_on_to: the function that takes its `**settings`, whose defaults count for them.
        each: argument to the one that gives a list in its stead: former fields of the one go to each of the list.
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
                kwargs.update(present_arguments(owner, given, kwargs, defaults, makers, each))
            return function(*args, **kwargs)

        return translated

    return decorate


def present_arguments(
    owner: str,
    former: dict[str, Any],
    present: dict[str, Any],
    defaults: dict[str, Any],
    makers: dict[str, Callable[..., Any]],
    each: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the present arguments that former ones stand for, by name.

    Args:
        owner: the function's name without brackets.
        former: what was given by former names.
        present: what was given by present names.
        defaults: of present arguments.
        makers, each: see `former_arguments`.

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
        several = each.get(new, new)
        wholes = found.get(several, present.get(several))
        if several != new and isinstance(wholes, list | tuple):
            found[several] = [_with_fields(owner, new, whole, values) for whole in wholes]
            continue
        whole = found.get(new, present.get(new, defaults.get(new)))
        if whole is not None:
            found[new] = _with_fields(owner, new, whole, values)
        else:  # where nothing makes the object, the function itself says what it expected
            found[new] = makers[new](**values) if new in makers else None
    return found


def _with_fields(owner: str, argument: str, whole: Any, values: dict[str, Any]) -> Any:
    """Return an object with fields that were given apart from it."""
    if not dataclasses.is_dataclass(whole) or isinstance(whole, type):
        return whole  # of a wrong kind, which the function itself says
    own = {field.name: field for field in dataclasses.fields(whole)}
    for name, value in values.items():
        if name not in own and value:
            raise ValueError(f"{owner}: {argument}={type(whole).__name__}(...) has no {name}; found {value!r:.80}")
        if name in own and getattr(whole, name) != own[name].default:
            raise TypeError(
                f"{owner}: {name} is given twice, by its former name and as {argument}={whole!r:.200}; leave out the "
                "former one"
            )
    return dataclasses.replace(whole, **{name: value for name, value in values.items() if name in own})


def _warn(former: str, present: str, *, stacklevel: int) -> None:
    message = f"{former} is a former name, which goes with the next release; use {present}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)
