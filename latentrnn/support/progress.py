"""How far something has come: a bar where somebody looks, plain lines now and then where a file is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

import tqdm.auto
import tqdm.std

SECONDS = 10.0  # between lines


class Lines(tqdm.std.tqdm):  # type: ignore[type-arg]
    """A progress bar of lines of their own, for a log: no bar, no carriage returns, one every ten seconds at most."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        form = "{desc}: {n_fmt} of {total_fmt} {unit}s in {elapsed}, {remaining} left, {rate_fmt}{postfix}"
        if not kwargs.get("total"):
            form = "{desc}: {n_fmt} {unit}s in {elapsed}, {rate_fmt}{postfix}"
        super().__init__(*args, **kwargs, mininterval=SECONDS, maxinterval=SECONDS, bar_format=form, delay=1e-9)

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """Return what prints a line."""

        def print_line(text: str) -> None:
            if text.strip():
                file.write(f"{text.strip()}\n")
                file.flush()

        return print_line

    def close(self) -> None:
        """Print the last line, unless it was the last that was printed."""
        if self.disable:
            return
        if self.n != self.last_print_n:
            self.display()
        self.disable: bool = True  # all that is left of a bar to take back
        self._decr_instances(self)


def progress_bar(*args: Any, **kwargs: Any) -> Any:
    """Return a bar of tqdm, of a notebook's kind in one; where standard error is no terminal one of plain lines.

    Args:
        args, kwargs: of `tqdm.tqdm`.
    """
    looked_at = "ipykernel" in sys.modules or sys.stderr.isatty()
    return (tqdm.auto.tqdm if looked_at else Lines)(*args, **kwargs)
