"""What is known about the data without looking at a value: heads, covariates, clock and units."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

from latentrnn.support.arguments import is_integer, is_number
from latentrnn.support.shown import shown


class SequenceKey(NamedTuple):
    """Identity of a sequence by content, so that what was fitted and what is scored can be told apart.

    Args:
        key: hash of the sequence's content as it was ingested.
        start: first scored base step, counted in the sequence as it was ingested.
        stop: one past the last scored base step, counted likewise.
    """

    key: str
    start: int
    stop: int

    def overlaps(self, other: SequenceKey) -> bool:
        """Whether both score at least one common step of the same sequence."""
        return self.key == other.key and max(self.start, other.start) < min(self.stop, other.stop)


@dataclass(frozen=True)
class HeadSpec:
    """One observation head.

    Args:
        name: name of the head, and of its Pyro site.
        channels: number of channels.
        channel_names: one name per channel.
        per_step: False for one value per sequence, a tensor (sequence, channel).
        clock: base steps per frame; frame k summarises base steps `k * clock` to `(k + 1) * clock - 1`.
        missing: whether entries are unobserved inside sequences (padding is not missing, and neither are the sequences
            of other sessions).
        location: subtracted by the model, per channel, user units; None when not standardised.
        scale: divides after `location`, per channel, user units; None when not standardised.
        session: the session whose own head it is, in joined data, nothing of which is observed in the sequences of
            other sessions; None where it is there in every sequence.
        levels: per channel what its values 0, 1, ... stand for, empty where they are numbers; None where all are.
    """

    name: str
    channels: int
    channel_names: tuple[str, ...]
    per_step: bool = True
    clock: int = 1
    missing: bool = False
    location: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    session: str | None = None
    levels: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True)
class CovariateSpec:
    """One covariate, known at every base step.

    Args:
        name: name of the covariate.
        features: number of features.
        feature_names: one name per feature.
        location: subtracted by the model, per feature, user units; None when not standardised.
        scale: divides after `location`, per feature, user units; None when not standardised.
    """

    name: str
    features: int
    feature_names: tuple[str, ...]
    location: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DataSpec:
    """Everything a model needs to know about the data before it sees any.

    Args:
        heads: observation heads by name.
        covariates: covariates by name.
        dt: seconds per base step; None for unit steps.
        irregular: whether every step has its own time.
    """

    heads: dict[str, HeadSpec]
    covariates: dict[str, CovariateSpec]
    dt: float | None = None
    irregular: bool = False

    @property
    def slowest(self) -> int:
        """Base steps of the longest frame, below which a tensor would have no frame of some head."""
        return max((head.clock for head in self.heads.values()), default=1)

    def session_heads(self, head: str) -> dict[str, str]:
        """Session name to the name of that session's own head, of data joined with `SequenceData.join`.

        Args:
            head: the head's name before joining, e.g. "spikes".

        Raises:
            ValueError: when no session has such a head of its own.
        """
        own = [item for item in self.heads.values() if item.session is not None]
        found = {str(item.session): item.name for item in own if item.name == f"{head}_{item.session}"}
        if not found:
            names = [item.name for item in own]
            raise ValueError(f"session_heads: expected a head that sessions have of their own, found {head!r}; {names}")
        return found

    def to_json(self) -> dict[str, Any]:
        """The spec as a dict of JSON types.

        >>> spec = DataSpec({"spikes": HeadSpec("spikes", 1, ("a",))}, {}, dt=0.001)
        >>> DataSpec.from_json(spec.to_json()) == spec
        True
        """
        return {
            "heads": [_to_json(head) for head in self.heads.values()],
            "covariates": [_to_json(covariate) for covariate in self.covariates.values()],
            "dt": self.dt,
            "irregular": self.irregular,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> DataSpec:
        """The spec that `to_json` wrote.

        Raises:
            ValueError: when a field is missing, unknown or of the wrong kind.
        """
        try:
            heads = [HeadSpec(**_from_json(head)) for head in content["heads"]]
            covariates = [CovariateSpec(**_from_json(covariate)) for covariate in content["covariates"]]
            dt, irregular = content["dt"], content["irregular"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"data spec: expected what DataSpec.to_json writes, found {error!r}") from error
        for head in heads:
            _check_head(head)
        for covariate in covariates:
            _check_channels("covariates", covariate.name, covariate.features, covariate.feature_names, covariate)
        for kind, names in (("heads", [head.name for head in heads]), ("covariates", [c.name for c in covariates])):
            _check_field(f"data spec: {kind}", names, len(set(names)) == len(names), "every name once")
        _check_field("data spec: dt", dt, dt is None or (_is_finite(dt) and dt > 0), "seconds, or None")
        _check_field("data spec: irregular", irregular, isinstance(irregular, bool), "true or false")
        return cls({head.name: head for head in heads}, {item.name: item for item in covariates}, dt, irregular)

    def check_compatible(self, other: DataSpec) -> None:
        """Raise unless data of spec `other` can stand in for data of this spec.

        Missing entries and standardisation may differ: the values are in user units, and a model applies its own.

        Raises:
            ValueError: naming the first difference, what was expected and what came.
        """
        _same_names("observations", list(self.heads), list(other.heads))
        _same_names("covariates", list(self.covariates), list(other.covariates))
        for name, head in self.heads.items():
            for field in ("channels", "channel_names", "per_step", "clock"):
                _same(f"observations[{name!r}].{field}", getattr(head, field), getattr(other.heads[name], field))
            if None not in (head.levels, other.heads[name].levels):  # arrays have codes alone, of which nothing is told
                _same(f"observations[{name!r}].levels", head.levels, other.heads[name].levels)
        for name, covariate in self.covariates.items():
            for field in ("features", "feature_names"):
                found = getattr(other.covariates[name], field)
                _same(f"covariates[{name!r}].{field}", getattr(covariate, field), found)
        if self.dt is None or other.dt is None or not math.isclose(self.dt, other.dt, rel_tol=1e-9):
            _same("dt", self.dt, other.dt)
        _same("irregular", self.irregular, other.irregular)


def _to_json(item: HeadSpec | CovariateSpec) -> dict[str, Any]:
    found = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(item).items()}
    if found.get("levels", ()) is None:  # unknown to earlier versions, whose fits go on only as what they began as
        del found["levels"]
    return found


def _from_json(content: dict[str, Any]) -> dict[str, Any]:
    return {key: _tuples(value) for key, value in content.items()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check_head(head: HeadSpec) -> None:
    _check_channels("heads", head.name, head.channels, head.channel_names, head)
    where = f"data spec, heads[{head.name!r}]"
    for field in ("per_step", "missing"):
        value = getattr(head, field)
        _check_field(f"{where}: {field}", value, isinstance(value, bool), "true or false")
    _check_field(f"{where}: clock", head.clock, is_integer(head.clock) and head.clock >= 1, "a positive integer")
    named = head.session is None or isinstance(head.session, str)
    _check_field(f"{where}: session", head.session, named, "a name, or None")
    if head.levels is not None:
        right = isinstance(head.levels, tuple) and len(head.levels) == head.channels
        right = right and all(isinstance(names, tuple) for names in head.levels)
        right = right and all(isinstance(name, str) for names in head.levels for name in names)
        _check_field(f"{where}: levels", head.levels, right, "names of the values of each channel, or None")


def _check_channels(kind: str, name: Any, size: Any, names: Any, item: HeadSpec | CovariateSpec) -> None:
    _check_field(f"data spec: {kind}", name, isinstance(name, str) and name != "", "a name for each")
    where = f"data spec, {kind}[{name!r}]"
    right = is_integer(size) and isinstance(names, tuple) and len(names) == size
    right = right and all(isinstance(label, str) for label in names)
    _check_field(where, (size, names), right, "one name per channel or feature")
    location, scale = item.location, item.scale
    if location is None and scale is None:
        return
    for field, values in (("location", location), ("scale", scale)):
        right = isinstance(values, tuple) and len(values) == size and all(map(_is_finite, values))
        _check_field(f"{where}: {field}", values, right, "one number per channel or feature")
    _check_field(f"{where}: scale", scale, all(value > 0 for value in scale or ()), "positive numbers")


def _check_field(where: str, found: Any, right: bool, expected: str) -> None:
    if not right:
        raise ValueError(f"{where}: expected {expected}; found {shown(found, 200)}")


def _is_finite(value: Any) -> bool:
    return is_number(value) and abs(value) <= sys.float_info.max


def _same_names(where: str, expected: list[str], found: list[str]) -> None:
    for name in expected:
        if name not in found:
            raise ValueError(f"{where}[{name!r}]: expected by the model, but the data has only {found}")
    for name in found:
        if name not in expected:
            raise ValueError(f"{where}[{name!r}]: unknown to the model, which has {expected}; drop it with data.select")


def _same(where: str, expected: Any, found: Any) -> None:
    if expected != found:
        raise ValueError(f"{where}: expected {expected!r}, found {found!r}")
