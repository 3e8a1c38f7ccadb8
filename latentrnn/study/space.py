"""What a study varies: models, seeds, and settings, as a grid of runs or as a space that Optuna draws from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentrnn.study.fit_settings import is_fit_setting
from latentrnn.study.model_functions import settings_of
from latentrnn.support.arguments import check_flag, check_number
from latentrnn.support.shown import shown

RESERVED = ("model", "seed")
RANGE = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Range:
    """A setting that is drawn: a number between two, whole where both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Choices:
    """A setting that takes values of a list.

    Attributes:
        values: by the label that stands for each in names, tables and the storage: itself, where it is plain.
    """

    values: dict[Any, Any]


Setting = Range | Choices


@dataclass(frozen=True)
class Run:
    """One fit of a study.

    Attributes:
        key: its name, and that of its folder.
        model: name of the model.
        seed: of the fit.
        settings: label of the value by name of the setting.
    """

    key: str
    model: str
    seed: int
    settings: dict[str, Any]

    @property
    def configuration(self) -> tuple[Any, ...]:
        """What runs that differ in the seed alone share."""
        return self.model, *self.settings.items()


def read_settings(owner: str, given: Any) -> dict[str, Setting]:
    """Return the settings that a study varies.

    Args:
        owner: who asks, for messages.
        given: by name a list of plain values; a dict of label to value, whatever the value; or a range: a dict with
            `low`, `high`, and `log=True` or `step` if wished, or a distribution of Optuna.

    Raises:
        TypeError: something else.
        ValueError: no value, a value twice, or a range that is none.
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"{owner}: settings must be a dict of name to values; found {shown(given)}")
    if wrong := [name for name in RESERVED if name in given]:
        raise ValueError(f"{owner}: settings: {wrong[0]!r} has an argument of its own, {wrong[0]}s=")
    return {name: _setting(f"{owner}: settings[{name!r}]", value) for name, value in given.items()}


def _setting(where: str, given: Any) -> Setting:
    if _is_distribution(given):
        if hasattr(given, "choices"):
            return _setting(where, list(given.choices))
        return _setting(where, {k: v for k in RANGE if (v := getattr(given, k, None)) is not None})
    if isinstance(given, Mapping) and given and set(given) <= RANGE:
        if not {"low", "high"} <= set(given):
            raise ValueError(f"{where}: a range needs low and high; found {shown(dict(given))}")
        low, high = (check_number(where, name, given[name]) for name in ("low", "high"))
        log = check_flag(where, "log", given.get("log", False))
        step = given.get("step")
        step = None if step is None else check_number(where, "step", step, above=0)
        if not low < high or (log and (low <= 0 or step not in (None, 1))):
            raise ValueError(f"{where}: expected low < high, log without a step above 0; found {shown(dict(given))}")
        whole = all(isinstance(given[name], int) for name in ("low", "high")) and float(step or 1).is_integer()
        return Range(int(low), int(high), log, int(step or 1)) if whole else Range(low, high, log, step)
    if isinstance(given, Mapping):
        values = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        if wrong := [value for value in given if not isinstance(value, str | bool | int | float | None)]:
            raise TypeError(
                f"{where}: expected plain values; found {shown(wrong[0])}; give such a value a label, as in "
                "{'slow': lr.AdamW(1e-3)}"
            )
        values = {value: value for value in given}
        if len(values) < len(given):
            raise ValueError(f"{where}: expected every value once; found {shown(list(given))}")
    else:
        raise TypeError(
            f"{where}: expected a list of values, a dict of label to value, or a range; found {shown(given)}"
        )
    if not values:
        raise ValueError(f"{where}: expected at least one value; found none")
    return Choices(values)


def _is_distribution(value: Any) -> bool:
    return type(value).__module__ == "optuna.distributions"


def settings_by_model(
    owner: str, models: Mapping[str, Any], settings: Mapping[str, Setting]
) -> dict[str, dict[str, Setting]]:
    """Return the settings that matter to each model: those of the fit, and those that its function names.

    Raises:
        ValueError: a setting matters to none.
    """
    found: dict[str, dict[str, Setting]] = {}
    for name, function in models.items():
        taken = settings_of(function)
        found[name] = {
            each: values for each, values in settings.items()
            if (each in taken if taken is not None else False) or is_fit_setting(each) or taken is None
        }  # fmt: skip
    if idle := [each for each in settings if not any(each in own for own in found.values())]:
        raise ValueError(
            f"{owner}: settings: {idle[0]!r} is no argument of a model's function, nor of the fit (steps, batch_size, "
            "'optimizer.learning_rate')"
        )
    return found


def grid(by_model: Mapping[str, Mapping[str, Setting]], seeds: Sequence[int]) -> dict[str, Run]:
    """Return every run of a grid by its key: of a model with every combination of its settings and every seed."""
    runs: dict[str, Run] = {}
    for model, own in by_model.items():
        choices = {name: list(item.values) for name, item in own.items() if isinstance(item, Choices)}
        for values in itertools.product(*choices.values()):
            for seed in seeds:
                labels = dict(zip(choices, values, strict=True))
                key = key_of(model, {**labels, "seed": seed})
                while key in runs:  # labels that differ in what no name of a folder may hold
                    key += "_"
                runs[key] = Run(key, model, seed, labels)
    return runs


def key_of(model: str, labels: Mapping[str, Any]) -> str:
    """The name of a run, which every file system takes.

    >>> key_of("gru", {"hidden": 16, "seed": 0})
    'gru-hidden=16-seed=0'
    """
    text = "-".join([model, *(f"{name}={value}" for name, value in labels.items())])
    return re.sub(r"[^\w.=+-]", "_", text)
