"""One run of a study: fitted with checkpoints, scored on held-out sequences, written to its folder."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentrnn.criticism.held_out import check_held_out
from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.evidence.evidence import AIS, SMC
from latentrnn.inference.fitting.checkpoints.unfinished import read_unfinished, unfinished_files
from latentrnn.inference.fitting.fit import fit
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.saving.weights import write_atomically
from latentrnn.inference.fitting.settings.checkpointing import Checkpointing
from latentrnn.inference.fitting.settings.reporting import Progress, Reporting
from latentrnn.study.fit_settings import fit_arguments, is_fit_setting
from latentrnn.study.model_functions import declared
from latentrnn.study.space import Choices, Run, Setting
from latentrnn.study.storage import optuna
from latentrnn.support.strict_json import dumps, loads

DESCRIPTION, SCORES = "run.json", "scores.json"
PRUNED = "callback pruner"  # how the fit's stop reason begins


@dataclass(frozen=True)
class Runner:
    """Does runs.

    Attributes:
        folder: in which every run has one of its own.
        models: what declares each, by name.
        settings: that the runs vary, by model and name.
        train, validation, test: sequences.
        fit: settings of every fit.
        every: seconds between checkpoints.
        kind, num_particles: of the evidence of the held-out sequences.
    """

    folder: Path
    models: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Setting]]
    train: SequenceData | StoredSequences
    validation: SequenceData | StoredSequences | None
    test: SequenceData | None
    fit: Mapping[str, Any]
    every: float
    kind: str | SMC | AIS
    num_particles: int

    def __call__(self, run: Run, trial: Any) -> float:
        """Do a run, or what is left of it, and return its objective.

        Raises:
            TrialPruned: the pruner has ended it.
            ValueError: its folder holds another run.
        """
        folder = self.folder / run.key
        folder.mkdir(parents=True, exist_ok=True)
        self._describe(run, folder)
        if not (folder / SCORES).is_file():
            result = self._fit(run, folder, Pruner(trial))
            if result.stop_reason.startswith(PRUNED):
                result.save(folder)
                raise optuna().TrialPruned(result.stop_reason)
            if result.stop_reason.startswith("interrupted"):
                raise KeyboardInterrupt
            scores = self._score(run, result, folder)
            result.save(folder)
            write_atomically(folder / SCORES, dumps(scores, "scores").encode())
        objective = float(read_scores(folder)["objective"])
        if not math.isfinite(objective):
            raise ValueError(f"{run.key}: the bound is {objective}, no number to compare by")
        return objective

    def _describe(self, run: Run, folder: Path) -> None:
        """Write what the run is, or check that it is what it was."""
        here = {"model": run.model, "seed": run.seed, "settings": run.settings}
        text = dumps(here, run.key)
        path = folder / DESCRIPTION
        if not path.is_file():
            write_atomically(path, text.encode())
        elif (found := loads(path.read_text())) != loads(text):
            raise ValueError(f"{folder}: holds another run, {found}; expected {here}")

    def values(self, run: Run) -> dict[str, Any]:
        """The values that the labels of a run stand for."""
        of_model = self.settings[run.model]
        found = {}
        for name, label in run.settings.items():
            item = of_model[name]
            found[name] = item.values[label] if isinstance(item, Choices) else label
        return found

    def _fit(self, run: Run, folder: Path, pruner: Pruner) -> FitResult:
        values = self.values(run)
        of_fit = {name: value for name, value in values.items() if is_fit_setting(name)}
        rest = {name: value for name, value in values.items() if name not in of_fit}
        arguments = fit_arguments("Study", {"reporting": Reporting(progress=False), **self.fit, **of_fit})
        reporting = arguments["reporting"]
        arguments["reporting"] = dataclasses.replace(reporting, callbacks=(*reporting.callbacks, pruner))
        model, guide = declared("Study", f"models[{run.model!r}]", self.models[run.model], self.train, rest)
        result = fit(
            model,
            guide,
            self.train,
            self.validation,
            seed=run.seed,
            checkpointing=Checkpointing(folder, self.every, resume=True),
            **arguments,
        )
        if pruner.error is not None:
            raise pruner.error
        return result

    def _score(self, run: Run, result: FitResult, folder: Path) -> dict[str, Any]:
        objective, _ = bound_of(result.history)
        seconds = read_unfinished(unfinished_files(folder)[-1]).values["seconds"]
        scores: dict[str, Any] = {
            "objective": objective,
            "parameters": sum(p.numel() for p in result.model.parameters() if p.requires_grad),
            "seconds": seconds,
            "stop_reason": result.stop_reason,
        }
        if self.test is None:
            return scores
        check_held_out(run.key, self.test.keys, result.used, held_out=False)
        evidence = result.posterior(self.test).evidence(self.kind, num_particles=self.num_particles)
        return scores | {
            "evidence": {
                "kind": evidence.kind,
                "values": evidence.values,
                "standard_error": evidence.standard_error,
                "doubtful": int(evidence.doubtful.sum()),
                "said": repr(evidence),
            },
            "sequences": list(self.test.names),
        }


class Pruner:
    """Tells Optuna of every evaluation of a fit, and ends the fit where its pruner says so."""

    __name__ = "pruner"

    def __init__(self, trial: Any) -> None:
        self.trial = trial
        self.told = -1
        self.error: Exception | None = None

    def __call__(self, progress: Progress, /) -> bool:
        """Report what has not been reported, and return whether to end.

        Raises:
            SystemExit: the process that started this one is gone, as when a study is killed.
        """
        if is_orphan():
            raise SystemExit(1)
        try:
            return self._ends(progress)
        except Exception as error:  # of the storage; the run is no result
            self.error = error
            raise

    def _ends(self, progress: Progress) -> bool:
        clock, name = bound_names(progress.history)
        if progress.kind != ("evaluation" if name.startswith("validation_") else "report"):
            return False
        # a fit that goes on where it was killed has a past that this trial was not told
        for step, value in zip(progress.history[clock], progress.history[name], strict=True):
            if step > self.told and math.isfinite(value):
                self.trial.report(value, int(step))
                self.told = int(step)
        return bool(self.trial.should_prune())


def is_orphan() -> bool:
    """Return whether the process that started this one is gone."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def bound_names(history: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names under which a history has the bound that decides, and its steps."""
    judged = [name for name in history if name.startswith("validation_") and name != "validation_step"]
    if judged and history["validation_step"]:
        return "validation_step", max(judged, key=lambda name: "/" in name)  # of monitored heads, where there are any
    return "step", "elbo" if "elbo" in history else next(name for name in history if name != "step")


def bound_of(history: Mapping[str, Any]) -> tuple[float, int]:
    """Return the best bound that decided, nats per sequence, and its step.

    Without validation sequences it is the mean of the last tenth of training batches, which differ.
    """
    clock, name = bound_names(history)
    values = list(history[name])
    if clock == "step":
        last = values[-max(1, len(values) // 10) :]
        return sum(last) / len(last), int(history[clock][-1])
    best = max(range(len(values)), key=lambda at: values[at] if math.isfinite(values[at]) else -math.inf)
    return values[best], int(history[clock][best])


def read_scores(folder: Path) -> dict[str, Any]:
    """Return what a finished run has written about itself."""
    scores: dict[str, Any] = loads((folder / SCORES).read_text())
    return scores
