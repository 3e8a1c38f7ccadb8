"""Names of heads, covariates, channels and sequences, and the options that refer to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

# names of the model's own Pyro sites and plate
SITES = ("initial", "innovations", "switch_logits", "states", "sequences")
# nodes that every trace of Pyro has
TRACES = ("_INPUT", "_RETURN")
# names of axes and coordinates in what is exported
AXES = (
    "sequence",
    "time",
    "channel",
    "feature",
    "sample",
    "chain",
    "draw",
    "num_steps",
    "context_steps",
    "seconds",
    "date",
)
# what an export appends to a name
SUFFIXES = ("_channel", "_feature", "_time", "_total")


def check_names(observations: Any, covariates: Any) -> None:
    """Raise unless both are mappings whose names can be Pyro sites and axes of an export."""
    for where, given in (("observations", observations), ("covariates", covariates)):
        if not isinstance(given, Mapping):
            raise TypeError(f"{where}: expected a dict of name to array, found {type(given).__name__}")
        for name in given:
            if not isinstance(name, str):
                raise TypeError(f"{where}[{name!r}]: expected a string as name, found {type(name).__name__}")
            if not name.isidentifier():
                raise ValueError(f"{where}[{name!r}]: expected a name like a Python identifier, found {name!r}")
            if name in AXES or (where == "observations" and name in (*SITES, *TRACES)):
                raise ValueError(f"{where}[{name!r}]: expected another name, since {name!r} is reserved")
    if not observations:
        raise ValueError("observations: expected at least one head, found none")
    for name in covariates:
        if name in observations:
            raise ValueError(f"covariates[{name!r}]: expected another name, found the name of an observation head")
        if name == "dt" or name.removesuffix("_mask") in observations:
            raise ValueError(f"covariates[{name!r}]: expected another name, since exports have a variable {name!r}")
    names = {*observations, *covariates}
    for name in names:
        for taken in (name + suffix for suffix in SUFFIXES if name + suffix in names):
            where = "observations" if taken in observations else "covariates"
            raise ValueError(f"{where}[{taken!r}]: expected another name, since exports of {name!r} use it")


def check_known(option: str, names: Any, known: Iterable[str], what: str) -> None:
    """Raise when `names`, the value or keys of `option=`, has a name that is not in `known`."""
    if isinstance(names, str) or not isinstance(names, Iterable) or getattr(names, "ndim", 1) == 0:
        raise TypeError(f"{option}: expected names, found {names!r}; write {option}=({names!r},)")
    if isinstance(names, Iterator | torch.Tensor):  # it is gone through more than once, and a tensor holds no names
        raise TypeError(f"{option}: expected a list of names, found {names!r:.80}")
    listed = list(names)
    for name in listed:
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"{option}: expected {what} among {list(known)}, found {name!r}")
        if listed.count(name) > 1:
            raise ValueError(f"{option}: expected every name once, found {name!r} twice")


def check_mapping(option: str, value: Any, known: Iterable[str], what: str) -> dict[str, Any]:
    """`value` as a dict whose keys are all in `known`; None is the empty dict."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{option}: expected a dict of name to value, found {type(value).__name__}")
    check_known(option, value.keys(), known, what)
    return dict(value)


def read_labels(where: str, labels: Sequence[str] | None, size: int) -> tuple[str, ...]:
    """`labels` as distinct strings, one for each of `size`; by default "0", "1", ..."""
    if labels is None:
        return tuple(str(index) for index in range(size))
    if isinstance(labels, str | Mapping) or not isinstance(labels, Iterable) or getattr(labels, "ndim", 1) == 0:
        found = f"the string {labels!r}" if isinstance(labels, str) else repr(labels)
        raise TypeError(f"{where}: expected a list of {size} names, found {found}")
    read = tuple(str(label) for label in labels)
    if len(read) != size:
        raise ValueError(f"{where}: expected {size} names, found {len(read)}")
    if len(set(read)) != size:
        twice = next(label for label in read if read.count(label) > 1)
        raise ValueError(f"{where}: expected every name once, found {twice!r} twice")
    return read
