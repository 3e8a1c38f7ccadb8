"""What `fit` takes, from plain values: as a TOML file or a command line says it, `optimizer.learning_rate = 0.01`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from latentrnn.inference.fitting.settings.compute import Compute
from latentrnn.inference.fitting.settings.optimizers import Adam, AdamW, Constant, Cosine, Plateau, Staircase
from latentrnn.inference.fitting.settings.reporting import Reporting
from latentrnn.inference.fitting.settings.rollback import Rollback
from latentrnn.inference.fitting.settings.stopping import EarlyStopping
from latentrnn.inference.guides.windows import Window
from latentrnn.inference.objectives.elbo import ELBO
from latentrnn.inference.objectives.fivo import FIVO
from latentrnn.inference.objectives.iwae import IWAE
from latentrnn.inference.objectives.objective import KLWarmUp
from latentrnn.inference.objectives.renyi import Renyi
from latentrnn.support.shown import shown

PLAIN = ("steps", "batch_size")
PARTS: dict[str, Any] = {
    "objective": ELBO(),
    "optimizer": AdamW(),
    "stopping": EarlyStopping(),
    "compute": Compute(),
    "reporting": Reporting(progress=False),
}
CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        ELBO, IWAE, Renyi, FIVO, KLWarmUp, AdamW, Adam, Constant, Cosine, Plateau, Staircase, Rollback, EarlyStopping,
        Compute, Window, Reporting,
    )
}  # fmt: skip


def is_fit_setting(name: str) -> bool:
    """Return whether a name is that of an argument of `fit`, or of a field of one: `optimizer.learning_rate`."""
    return name in PLAIN or name.partition(".")[0] in PARTS


def fit_arguments(owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit` that plain values stand for.

    Args:
        owner: who asks, for messages.
        given: by name: `steps`, `batch_size`, or the parts `objective`, `optimizer`, `stopping`, `compute`,
            `reporting`: as objects; as dicts of their fields, with the name of their class under "class" where it is
            not the default one; or field by field, `"optimizer.learning_rate"`.

    Raises:
        ValueError: an unknown name, class or field.
        TypeError: a part that is neither.

    Example:
        >>> fit_arguments("fit", {"steps": 10, "optimizer.learning_rate": 0.01})["optimizer"].learning_rate
        0.01
    """
    if not all(isinstance(name, str) for name in given):
        raise TypeError(f"{owner}: settings of the fit go by names; found {shown(list(given))}")
    found: dict[str, Any] = {}
    # whole parts come before their fields, in whatever order they were given
    for name, value in sorted(given.items(), key=lambda item: item[0].count(".")):
        head, _, field = name.partition(".")
        if not is_fit_setting(name):
            known = [*PLAIN, *PARTS]
            raise ValueError(f"{owner}: unknown setting {name!r} of the fit; expected one of {known}, or {_EXAMPLE}")
        if head in PLAIN:
            found[head] = value
        else:
            found[head] = _with(f"{owner}: {head}", found.get(head, PARTS[head]), field, value)
    return found


_EXAMPLE = "a field of theirs, as 'optimizer.learning_rate'"


def _with(where: str, part: Any, field: str, value: Any) -> Any:
    """Return a part with a field at a dotted path replaced, or with those of a dict."""
    if field:
        name, _, rest = field.partition(".")
        _check_field(where, part, name)
        return dataclasses.replace(part, **{name: _with(f"{where}.{name}", getattr(part, name), rest, value)})
    if not isinstance(value, Mapping) or (part is not None and not dataclasses.is_dataclass(part)):
        return value
    fields = dict(value)
    if "class" in fields:
        kind = CLASSES.get(fields["class"]) if isinstance(fields["class"], str) else None
        if kind is None:
            raise ValueError(f"{where}: expected a class of {sorted(CLASSES)}; found {shown(fields['class'])}")
        del fields["class"]
        return kind(**_made(where, kind, fields))
    if part is None:
        raise ValueError(f'{where}: expected the name of a class, as class = "Cosine"; found {shown(value)}')
    for name, item in fields.items():
        part = _with(where, part, str(name), item)
    return part


def _made(where: str, kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a class, those that are dicts with a class made too."""
    found = {}
    for name, value in fields.items():
        _check_field(where, kind, name)
        known = {field.name: field for field in dataclasses.fields(kind)}[name]
        default = None if known.default is dataclasses.MISSING else known.default
        if known.default_factory is not dataclasses.MISSING:
            default = known.default_factory()
        found[name] = _with(f"{where}.{name}", default, "", value)
    return found


def _check_field(where: str, part: Any, name: Any) -> None:
    known = [field.name for field in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
    if name not in known:
        kind = part.__name__ if isinstance(part, type) else type(part).__name__
        raise ValueError(f"{where}: {kind} has no field {shown(name)}; expected one of {known}")
