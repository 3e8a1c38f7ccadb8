"""The runs of a study as trials in Optuna's storage, which several processes share."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from latentrnn.study.space import Choices, Range, Run, Setting, key_of
from latentrnn.support.strict_json import dumps

LIVES = 10  # of a run whose processes die: more often it is its own doing, as of one that runs out of memory
DATABASE = "study.db"


class Surplus(Exception):
    """A trial that no run is left for: another process was faster."""


class Space(NamedTuple):
    """What is to be run.

    Attributes:
        grid: every run by its key; where runs are drawn, none.
        by_model: settings that matter to each model.
        seeds: of the fits; drawn runs take them in turn.
        trials: how many runs are drawn; None of a grid.
    """

    grid: Mapping[str, Run]
    by_model: Mapping[str, Mapping[str, Setting]]
    seeds: tuple[int, ...]
    trials: int | None


def optuna() -> Any:
    """Import Optuna, or say how to get it.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return import_module("optuna")
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ModuleNotFoundError(
            "Study keeps its runs with Optuna, which is not installed: pip install 'latentrnn[study]'", name="optuna"
        ) from None


@contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's log of every trial, and its notes of what it calls experimental."""
    package = optuna()
    before = package.logging.get_verbosity()
    package.logging.set_verbosity(package.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", package.exceptions.ExperimentalWarning)
            yield
    finally:
        package.logging.set_verbosity(before)


class Trials:
    """The trials of one study.

    A run that dies with its process is found by its missing heartbeat, and put into the queue again, to go on from its
    checkpoint. A run is of the first trial that carries its key; a later one, which two processes that queue at
    the same time may leave, ends as a failure without having run.

    Args:
        folder: of the study.
        name: of the study in the storage.
        storage: URL of a database as Optuna takes it; None for a SQLite file in the folder.
        sampler, pruner: of Optuna.
        heartbeat: seconds between signs of life; three of them without one, and a run counts as dead.
    """

    def __init__(
        self, folder: Path, name: str, storage: str | None, *, sampler: Any, pruner: Any, heartbeat: int
    ) -> None:
        package = optuna()
        self.folder, self.heartbeat = folder, heartbeat
        local = storage is None
        if local:
            folder.mkdir(parents=True, exist_ok=True)
        with self._lock():  # tables are made by one process
            backend = package.storages.RDBStorage(
                f"sqlite:///{folder.absolute() / DATABASE}" if local else storage,
                # processes wait for each other's writes
                engine_kwargs={"connect_args": {"timeout": 60}} if local else {"pool_pre_ping": True},
                heartbeat_interval=heartbeat,
                grace_period=3 * heartbeat,
                heartbeat_stale_trial_callback=package.storages.RetryHeartbeatStaleTrialCallback(max_retry=LIVES),
            )
            self.study = package.create_study(
                storage=backend,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                sampler=sampler,
                # without a pruner nothing is pruned, where Optuna would take its own default
                pruner=package.pruners.NopPruner() if pruner is None else pruner,
            )
        self.states = package.trial.TrialState
        self.retried = package.storages.RetryHeartbeatStaleTrialCallback.retried_trial_number

    def _lock(self) -> Any:
        from filelock import FileLock  # torch brings it

        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")

    def settle(self, definition: Mapping[str, str]) -> None:
        """Write down what all runs share, or check that it is what it was.

        Raises:
            ValueError: a study of this name was begun with something else.
        """
        with self._lock():
            begun = self.study.user_attrs.get("definition", {})
            for name, here in definition.items():
                if begun.get(name, here) != here:
                    raise ValueError(
                        f"Study: {self.folder} was begun with {name} {begun[name]!r:.300}; found {here!r:.300}; runs "
                        "of both could not be compared: give what it was begun with, or another folder"
                    )
            if begun != (whole := {**begun, **definition}):
                self.study.set_user_attr("definition", whole)

    def all(self) -> list[Any]:
        """Every trial, by number."""
        return sorted(self.study.get_trials(deepcopy=False), key=lambda trial: trial.number)

    def by_key(self) -> dict[str, Any]:
        """By key of a run the trial that says how it stands: the one that ended well, or else the last."""
        found: dict[str, Any] = {}
        done = (self.states.COMPLETE, self.states.PRUNED)
        for trial in self.all():
            key = trial.user_attrs.get("run")
            if key is not None and not trial.user_attrs.get("surplus") and (
                key not in found or found[key].state not in done
            ):  # fmt: skip
                found[key] = trial
        return found

    def status(self, trial: Any) -> str:
        """How a trial stands: waiting, running, complete, pruned, failed; or died, where its process is gone."""
        if trial.state == self.states.FAIL:
            return "failed" if "error" in trial.user_attrs else "died"
        return str(trial.state.name).lower()

    def work(
        self,
        space: Space,
        perform: Callable[[Run, Any], float],
        *,
        retry: bool = False,
        timeout: float | None = None,
        advanced: Callable[[], None] = lambda: None,
    ) -> None:
        """Do runs until none is left that nobody does.

        While others are under way it waits as long as a sign of life may take, and takes over those that give none.

        Args:
            space: what is to be run.
            perform: does a run, given its trial, and returns its objective.
            retry: whether runs that failed are done again.
            timeout: seconds after which no run is begun.
            advanced: called after every run.
        """
        begun, waiting_since = time.monotonic(), None
        while timeout is None or time.monotonic() - begun < timeout:
            optuna().storages.fail_stale_trials(self.study)
            self._queue(space, retry=retry)
            retry = False
            trials = self.all()
            if self._is_left(space, trials):
                waiting_since = None
                self.study.optimize(lambda trial: self._perform(space, trial, perform), n_trials=1, catch=(Exception,))
                advanced()
                continue
            if not any(trial.state == self.states.RUNNING for trial in trials):
                return
            waiting_since = time.monotonic() if waiting_since is None else waiting_since
            if time.monotonic() - waiting_since > 4 * self.heartbeat:
                return  # they are alive
            time.sleep(min(1.0, self.heartbeat / 2))

    def _queue(self, space: Space, *, retry: bool) -> None:
        """Queue the runs of a grid that no trial stands for, and those that ended before their time."""
        again = optuna().storages.RetryHeartbeatStaleTrialCallback(max_retry=None if retry else LIVES)
        with self._lock():
            stand = self.by_key()
            for key, run in space.grid.items():
                if key not in stand:
                    labels = {"run": key, "model": run.model, "seed": run.seed, "settings": _plain(run.settings)}
                    self.study.enqueue_trial({}, user_attrs=labels)
            for trial in map(copy.deepcopy, stand.values()):
                status = self.status(trial)
                if status == "died" or (retry and status == "failed"):
                    trial.user_attrs.pop("error", None)
                    again(self.study, trial)

    def _is_left(self, space: Space, trials: list[Any]) -> bool:
        if any(trial.state == self.states.WAITING for trial in trials):
            return True
        return space.trials is not None and sum(map(self._is_draw, trials)) < space.trials

    def _is_draw(self, trial: Any) -> bool:
        return self.retried(trial) is None and not trial.user_attrs.get("surplus")

    def _perform(self, space: Space, trial: Any, perform: Callable[[Run, Any], float]) -> float:
        run = self._claimed(space, trial)
        if run is None:
            trial.set_user_attr("surplus", True)
            raise Surplus
        try:
            return perform(run, trial)
        except optuna().TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:2000])
            raise

    def _claimed(self, space: Space, trial: Any) -> Run | None:
        """The run that a trial is to do; None where another does it, or has."""
        earlier = [other for other in self.all() if other.number < trial.number]
        key = trial.user_attrs.get("run")
        if key is None and space.trials is not None:
            return self._drawn(space, trial, earlier)
        done = (self.states.WAITING, self.states.RUNNING, self.states.COMPLETE, self.states.PRUNED)
        if key is None or any(each.user_attrs.get("run") == key and each.state in done for each in earlier):
            return None
        if space.trials is None:
            return space.grid.get(key)
        return Run(key, trial.user_attrs["model"], trial.user_attrs["seed"], trial.user_attrs["settings"])

    def _drawn(self, space: Space, trial: Any, earlier: list[Any]) -> Run | None:
        """A new run, with values that the sampler draws."""
        rank = sum(map(self._is_draw, earlier))
        if rank >= (space.trials or 0) and self.retried(trial) is None:
            return None
        models = list(space.by_model)
        model = models[0] if len(models) == 1 else trial.suggest_categorical("model", models)
        settings = {name: suggested(trial, name, item) for name, item in space.by_model[model].items()}
        # in turn, so that no sampler goes after a lucky seed
        seed = space.seeds[rank % len(space.seeds)]
        run = Run(key_of(f"{trial.number:05d}", {"model": model}), model, seed, settings)
        for name, value in {"model": model, "seed": seed, "settings": _plain(settings), "run": run.key}.items():
            trial.set_user_attr(name, value)
        return run


def suggested(trial: Any, name: str, setting: Setting) -> Any:
    """Return a value that the sampler of a trial draws."""
    if isinstance(setting, Choices):
        return trial.suggest_categorical(name, list(setting.values))
    return _number(trial, name, setting)


def _number(trial: Any, name: str, setting: Range) -> int | float:
    draw = trial.suggest_int if isinstance(setting.low, int) else trial.suggest_float
    step = {} if setting.step is None or setting.log else {"step": setting.step}
    found: int | float = draw(name, setting.low, setting.high, log=setting.log, **step)
    return found


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    dumps(dict(settings), "settings")
    return dict(settings)
