"""Dates of the steps: kept from a table that had them, for the way out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

NANOSECONDS = 1e9


@dataclass(frozen=True, eq=False)
class Calendar:
    """When the steps of sequences were.

    Args:
        origins: the date of the first step that was read of each sequence, (sequence,), in UTC where dates have a time
            zone.
        first: at which step from there these data begin, (sequence,).
        frequency: how pandas calls the steps where they are those of a calendar ("MS", months; "B", business days)
            and not of one duration; else None.
        timezone: in which dates are shown; None for dates that have none.
        stamps: the date of every step that was read, one array per sequence, where dates follow no rule; else None.
    """

    origins: NDArray[np.datetime64]
    first: NDArray[np.int64]
    frequency: str | None = None
    timezone: str | None = None
    stamps: tuple[NDArray[np.datetime64], ...] | None = None

    def described(self) -> str:
        """The first date, and what is known of the others."""
        first = str(self.origins.min()).replace("T", " ").removesuffix(".000000000").removesuffix(" 00:00:00")
        zone = "" if self.timezone is None else f" UTC, time zone {self.timezone}"
        return f"from {first}{zone}" + ("" if self.frequency is None else f", steps of {self.frequency!r}")

    def take(self, rows: NDArray[np.int64]) -> Calendar:
        """The calendar of the sequences at `rows`."""
        stamps = None if self.stamps is None else tuple(self.stamps[row] for row in rows.tolist())
        return dataclasses.replace(self, origins=self.origins[rows], first=self.first[rows], stamps=stamps)

    def later(self, steps: int | NDArray[np.int64]) -> Calendar:
        """The calendar of the same sequences without their first steps."""
        return dataclasses.replace(self, first=self.first + steps)

    def at(self, row: int, steps: NDArray[np.int64], dt: float | None) -> NDArray[np.datetime64]:
        """Dates of some steps of a sequence, (step,); NaT where dates follow no rule and the step was not read.

        Args:
            row: the sequence.
            steps: counted from the first step of these data; beyond the last one dates go on.
            dt: seconds per step, where steps have one duration.
        """
        from_origin = np.asarray(steps, np.int64) + self.first[row]
        if self.stamps is not None:
            known = self.stamps[row]
            inside = from_origin < len(known)
            return np.where(inside, known[np.where(inside, from_origin, 0)], np.datetime64("NaT", "ns"))
        if self.frequency is None:
            return self.after(row, from_origin * (1.0 if dt is None else dt))
        import pandas

        start = pandas.Timestamp(self.origins[row])
        start = start if self.timezone is None else start.tz_localize("UTC").tz_convert(self.timezone)
        every = pandas.date_range(start, periods=int(from_origin.max(initial=0)) + 1, freq=self.frequency)
        every = every if self.timezone is None else every.tz_convert(None)
        return every.to_numpy().astype("datetime64[ns]")[from_origin]

    def after(self, row: int, seconds: NDArray[np.float64]) -> NDArray[np.datetime64]:
        """Dates so many seconds after the origin of a sequence."""
        return np.asarray(self.origins[row] + np.rint(seconds * NANOSECONDS).astype("timedelta64[ns]"))

    def index(self, dates: NDArray[np.datetime64]) -> pandas.DatetimeIndex:
        """Dates as pandas shows them, in their time zone."""
        import pandas

        found = pandas.DatetimeIndex(dates)
        return found if self.timezone is None else found.tz_localize("UTC").tz_convert(self.timezone)


def joined(parts: Mapping[str, Calendar | None]) -> Calendar | None:
    """The calendar of the sequences of several sessions, one after another.

    Raises:
        ValueError: some sessions have dates and some have none, or in another time zone or frequency.
    """
    first_session, first = next(iter(parts.items()))
    there: list[Calendar] = []
    for session, part in parts.items():
        if part is not None:
            there.append(part)
        found, expected = _rule(part), _rule(first)
        if found != expected:
            raise ValueError(f"sessions[{session!r}]: expected {expected}, as in {first_session!r}, found {found}")
    if first is None:
        return None
    stamps = None if first.stamps is None else tuple(dates for part in there for dates in part.stamps or ())
    origins, steps = ([getattr(part, name) for part in there] for name in ("origins", "first"))
    return Calendar(np.concatenate(origins), np.concatenate(steps), first.frequency, first.timezone, stamps)


def _rule(calendar: Calendar | None) -> Any:
    if calendar is None:
        return "no dates"
    steps = "dates of every step" if calendar.stamps is not None else f"frequency {calendar.frequency}"
    return f"dates in time zone {calendar.timezone}, {steps}"
