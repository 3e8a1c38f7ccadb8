"""What came of the runs of a study: a row each, and configurations against each other on held-out sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentrnn.criticism.compare import Pointwise, ranked
from latentrnn.study.space import Run

if TYPE_CHECKING:
    import pandas

FEWEST = 5  # sequences, below which a standard error over them says next to nothing


@dataclass(frozen=True)
class Outcome:
    """What is known of a run that has come to its end.

    Attributes:
        run: which.
        scores: what it wrote: `objective` (best bound that decided, nats per sequence), `parameters`, `seconds`,
            `stop_reason`, and `evidence` of the held-out sequences, where there are any.
    """

    run: Run
    scores: dict[str, Any]

    def evidence(self) -> tuple[Tensor, Tensor, int]:
        """Log evidence of each held-out sequence, its Monte Carlo error, nats, and how many are doubtful."""
        found = self.scores["evidence"]
        values, errors = (torch.tensor(found[name], dtype=torch.float64) for name in ("values", "standard_error"))
        return values, errors, int(found["doubtful"])

    def numbers(self) -> dict[str, Any]:
        """What a row of all runs has of it."""
        row = {name: self.scores[name] for name in ("objective", "parameters", "seconds", "stop_reason")}
        if "evidence" in self.scores:
            values, errors, doubtful = self.evidence()
            row |= {"elpd": float(values.sum()), "mc_se": float(errors.square().sum().sqrt()), "doubtful": doubtful}
        return row


def compared(outcomes: Sequence[Outcome], pruned: Sequence[Run], method: str) -> pandas.DataFrame:
    """Return the table of configurations, best first; see `Study.table`.

    Args:
        outcomes: of the runs that are complete.
        pruned: runs that were ended early.
        method: of the weights.

    Raises:
        ValueError: fewer than two configurations, or too few sequences.
    """
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.run.configuration, []).append(outcome)
    names = {configuration: _name(configuration) for configuration in groups}
    found = {names[key]: [item.evidence() for item in group] for key, group in groups.items()}
    if len(found) < 2:
        raise ValueError(
            f"Study: a comparison needs at least 2 configurations with a finished run; found {list(found)}"
        )
    units = next(iter(found.values()))[0][0].numel()
    if units < FEWEST:
        raise ValueError(
            f"Study: {units} held-out sequences are too few for a standard error of a difference, need {FEWEST}; cut "
            "long ones, data.windows(length)"
        )
    pointwise = {name: _average(members) for name, members in found.items()}
    frame = ranked(pointwise, "log", method)
    totals = {name: torch.stack([values for values, _, _ in members]).sum(1) for name, members in found.items()}
    best = totals[frame.index[0]]
    rows = [(name, groups[key]) for key, name in names.items()]
    extra = {
        name: {
            "runs": len(group),
            "pruned": sum(run.configuration == group[0].run.configuration for run in pruned),
            "seed_se": 0.0 if name == frame.index[0] else math.hypot(_error(totals[name]), _error(best)),
            "doubtful": sum(doubtful for _, _, doubtful in found[name]),
            "parameters": group[0].scores["parameters"],
            "seconds": sum(item.scores["seconds"] for item in group) / len(group),
        }
        for name, group in rows
    }
    for column in ("runs", "pruned", "seed_se", "doubtful", "parameters", "seconds"):
        frame[column] = [extra[name][column] for name in frame.index]
    frame["warning"] = frame["warning"] | (frame["doubtful"] > 0)
    frame.attrs.update(unit="sequence", num_units=units, held_out=True)
    return frame.rename_axis("configuration")


def _average(members: Sequence[tuple[Tensor, Tensor, int]]) -> Pointwise:
    """The log density of each sequence, averaged over runs that differ in the seed alone."""
    values = torch.stack([values for values, _, _ in members]).mean(0)
    errors = torch.stack([errors for _, errors, _ in members]).square().sum(0).sqrt() / len(members)
    return Pointwise(values, errors)


def _error(totals: Tensor) -> float:
    """Standard error of the mean over seeds; of a single one nobody knows."""
    return float(totals.std() / math.sqrt(len(totals))) if len(totals) > 1 else math.nan


def _name(configuration: tuple[Any, ...]) -> str:
    model, *settings = configuration
    return ", ".join([str(model), *(f"{name}={value}" for name, value in settings)])
