"""A command from its options to its exit code: results on standard output, one line for what went wrong."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentrnn.cli.answers import Answer
from latentrnn.cli.commands import COMMANDS

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
MISTAKES = (ValueError, TypeError, OSError, ModuleNotFoundError)
NEVER_BEGAN = "before anything was learnt"  # of a fit whose loss was no finite number from the start


def perform(options: Any) -> int:
    """Run a command, print what came of it, and return the exit code.

    Args:
        options: that the parser has read.
    """
    name = f"latentrnn {options.command}"
    with _plain_warnings(name):
        try:
            answer = COMMANDS[options.command](options)
            _print(answer, as_json=options.json)
        except KeyboardInterrupt:
            print(f"{name}: interrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:  # `latentrnn ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        except Exception as error:
            if options.traceback:
                traceback.print_exc()
            print(f"{name}: error: {_line(error)}", file=sys.stderr)
            if options.json:
                print(json.dumps({"command": options.command, "error": _line(error)}))
            failed = isinstance(error, RuntimeError) or NEVER_BEGAN in str(error)
            return FAILED if failed else WRONG_USE
    return answer.code


def _line(error: Exception) -> str:
    """What went wrong on one line; of a file of the user's also where."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MISTAKES) and not isinstance(error, UnicodeError):
        place = _place_of_users(error)
        return f"{said} ({place})" if place else said
    place = _place_of_users(error)
    return f"{type(error).__name__}: {said}" + (f" ({place})" if place else "; --traceback shows where")


def _place_of_users(error: Exception) -> str | None:
    """The last line of a file that is neither ours nor of a library, if an error was raised there."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    own = Path(__file__).parents[1]
    for frame in reversed(frames):
        path = Path(frame.filename)
        if "site-packages" in path.parts or "lib" in path.parts or not path.is_file():
            continue
        if own in path.parents or path.name == "latentrnn_shell.py":
            continue
        return f"{frame.filename}, line {frame.lineno}"
    return None


@contextmanager
def _plain_warnings(name: str) -> Iterator[None]:
    """Show warnings as a line each on standard error, without lines of code."""

    def show(message: Warning | str, *rest: Any, **more: Any) -> None:
        print(f"{name}: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is for programmers
        for kind in (UserWarning, RuntimeWarning):
            warnings.simplefilter("default", kind)
        warnings.showwarning = show
        yield


def _print(answer: Answer, *, as_json: bool) -> None:
    text = json.dumps(_json(answer.values), indent=1) if as_json else answer.text
    print(text, flush=True)


def _json(value: Any) -> Any:
    """Values as JSON has them: tables are lists of rows, and what is no number is null."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        return _json(value.reset_index().to_dict("records"))
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


Command = Callable[[Any], Answer]
