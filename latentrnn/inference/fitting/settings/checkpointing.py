"""Whether a fit that is killed can go on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from latentrnn.support.arguments import check_flag, is_number, settle


@dataclass(frozen=True)
class Checkpointing:
    """Checkpoints of a fit while it is under way, from which one that was killed goes on bit for bit.

    Args:
        directory: a folder for checkpoints (weights, optimizer, schedules, history, random state, order of the data);
            the last two are kept, and for `metrics.csv`, the history up to the newest as a table. They are no results:
            `FitResult.save` writes those, to the same folder if you like. SIGTERM, a scheduler's notice, leaves one.
        every: seconds between checkpoints.
        resume: go on from the folder's newest checkpoint, or begin where it has none yet, so that the same script can
            be started again however often it is killed. Model, data and settings must be what the fit was begun with;
            a fit that was finished is returned as it was.

    Raises:
        ValueError: a number of seconds out of range.
        TypeError: an argument of the wrong kind.

    Example:
        >>> Checkpointing("runs/gru", every=600.0, resume=True).every
        600.0
    """

    directory: str | os.PathLike[str]
    every: float = 60.0
    resume: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.directory, str | os.PathLike):
            raise TypeError(f"Checkpointing: directory must be a string or a path; found {self.directory!r}")
        if not is_number(self.every) or not 0 <= self.every < math.inf:
            raise ValueError(f"Checkpointing: every must be a number of seconds, at least 0; found {self.every!r}")
        settle(self, every=float(self.every), resume=check_flag("Checkpointing", "resume", self.resume))

    @classmethod
    def of_former(
        cls, directory: str | os.PathLike[str] | None = None, every: float = 60.0, resume: bool = False
    ) -> Checkpointing | None:
        """Return the checkpointing that separate arguments of `fit` asked for, None without a folder.

        Raises:
            ValueError: as of the class, or `resume` without a folder.
        """
        if directory is not None:
            return cls(directory, every, resume)
        if check_flag("fit", "resume", resume):
            raise ValueError("fit: resume=True needs a folder to go on from, checkpointing=Checkpointing(directory)")
        return None
