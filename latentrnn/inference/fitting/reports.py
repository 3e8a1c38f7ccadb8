"""What a fit tells of its steps: history, progress bar, callbacks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from latentrnn.inference.fitting.convergence import remaining
from latentrnn.inference.fitting.settings.reporting import Callback, Progress
from latentrnn.inference.fitting.state import TrainingState
from latentrnn.models.state_space import LatentRNN


class Report(NamedTuple):
    """What there is to say about one step.

    Attributes:
        step: from 0.
        kl_weight, learning_rate: that it was taken with.
        terms: by name log-likelihoods and KL, nats for the whole plate, and the gradient's norm, scalars.
    """

    step: int
    kl_weight: float
    learning_rate: float
    terms: dict[str, Tensor]


def write_report(report: Report, history: dict[str, list[float]], sequences: int) -> dict[str, float]:
    """Write a report into the history, and return what was written: nats per sequence."""
    row = row_of(report, sequences)
    write_row(row, history)
    return row


def row_of(report: Report, sequences: int) -> dict[str, float]:
    """Return what a history has of a report: by name numbers, nats per sequence of `sequences` in the plate."""
    values = {k: float(v) / sequences for k, v in report.terms.items() if k != "gradient"}
    likelihood = sum(v for k, v in values.items() if k.startswith("log_likelihood/"))
    elbo = likelihood - sum(v for k, v in values.items() if k.startswith("kl/"))
    row = {"step": report.step, "elbo": elbo, **values}
    return row | {"kl_weight": report.kl_weight, "learning_rate": report.learning_rate}


def write_row(row: Mapping[str, float], history: dict[str, list[float]]) -> None:
    """Write what `row_of` returned into the history: every number at the end of its name's list.

    A term that a window of long sequences does not have, as only the first has that of the initial state, adds nothing
    to its bound: it is zero there, so that all lists go by the same steps.

    Args:
        row: numbers by name, nats per sequence.
        history: of the fit, added to in place; a name that is new begins a list.
    """
    before = len(history.get("step", []))
    for name, value in row.items():
        history.setdefault(name, [0.0] * before).append(value)
    for name, values in history.items():
        if name not in row and not name.startswith("validation_") and len(values) == before:
            values.append(0.0)


def shown_in_bar(row: Mapping[str, float], sequences: int, steps: int) -> dict[str, str]:
    """Return what the progress bar shows of a report: nats per scored step."""
    per_step = sequences / steps
    shown = {"elbo/step": row["elbo"] * per_step}
    rest = {name: value for name, value in row.items() if name not in ("step", "elbo", "kl_weight", "learning_rate")}
    shown |= {name.partition("/")[2]: value * per_step for name, value in rest.items()}
    return {name: f"{value:.4f}" for name, value in shown.items()}


class Ending(NamedTuple):
    """How a callback ended a fit.

    Attributes:
        said: by which callback, and how, in words.
        failed: whether by an error.
    """

    said: str
    failed: bool


def call_back(
    callbacks: tuple[Callback, ...],
    kind: Literal["report", "evaluation"],
    state: TrainingState,
    device: torch.device,
    model: LatentRNN,
    guide: nn.Module,
) -> Ending | None:
    """Tell callbacks of the last report or evaluation; return how one ended the fit, if one did.

    Errors in them end the fit too, so that what was fitted is kept. Torch's generators are left as they were.
    """
    name = "step" if kind == "report" else "validation_step"
    step = int(state.history[name][-1])
    new = {k: v[-1] for k, v in state.history.items() if k.startswith("validation_") == (kind == "evaluation")}
    terms = {k: value for k, value in new.items() if k not in ("step", "validation_step")}
    history = MappingProxyType({name: tuple(values) for name, values in state.history.items()})
    progress = Progress(kind, step, MappingProxyType(terms), history, state.best_bound, state.best_step, model, guide)
    for callback in callbacks:
        label = f"callback {getattr(callback, '__name__', type(callback).__name__)}"
        try:
            with _generators_left_alone(device):
                ends = _is_true(label, callback(progress))
        except Exception as error:
            said = f"{label} raised {type(error).__name__}: {error}"
            warnings.warn(f"fit: {said}", RuntimeWarning, stacklevel=2)
            return Ending(said, True)
        if ends:
            return Ending(f"{label}: it ended the fit", False)
    return None


def _is_true(label: str, answer: Any) -> bool:
    """Return whether a callback's answer, of NumPy or torch too, ends the fit; None does not.

    Warns:
        RuntimeWarning: an answer of another kind, which does not either.
    """
    if isinstance(answer, bool | np.bool_) or (isinstance(answer, Tensor) and answer.dtype == torch.bool):
        return bool(answer)
    if answer is not None:
        found = type(answer).__name__
        warnings.warn(f"fit: {label} must return True, False or None; found {found}", RuntimeWarning, stacklevel=2)
    return False


@contextmanager
def _generators_left_alone(device: torch.device) -> Iterator[None]:
    state = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)


def left_in_bar(state: TrainingState, sequences: int, steps: int) -> dict[str, str]:
    """Return what the progress bar shows of what the present learning rate will still bring: nats per scored step."""
    left = remaining(state.improvement.trace)
    return {} if left is None else {"to gain": f"{left.value * sequences / steps:.4f}"}


def best_in_bar(state: TrainingState, sequences: int, steps: int) -> dict[str, str]:
    """Return what the progress bar shows of the best evaluation: nats per scored step."""
    if not math.isfinite(state.best_bound):
        return {}
    return {"best valid": f"{state.best_bound * sequences / steps:.4f}"}
