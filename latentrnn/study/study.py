"""Comparison runs: models, seeds and settings, each a fit in a folder, shared by as many processes as there are."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from latentrnn.criticism.compare import METHODS
from latentrnn.criticism.held_out import check_no_bound
from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.evidence.evidence import AIS, SMC
from latentrnn.inference.fitting.checkpoints.manager import identity_of
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.saving.load import load
from latentrnn.plotting.comparison import comparison
from latentrnn.study.fit_settings import fit_arguments
from latentrnn.study.model_functions import check_model
from latentrnn.study.runs import Runner, is_orphan, read_scores
from latentrnn.study.space import Choices, Range, Run, grid, read_settings, settings_by_model
from latentrnn.study.storage import Space, Trials, quietly
from latentrnn.study.table import Outcome, compared
from latentrnn.study.toml_studies import study_arguments
from latentrnn.support.arguments import (
    check_choice,
    check_flag,
    check_kind_of,
    check_list,
    check_number,
    check_path,
    check_seed,
    check_size,
    check_text,
)
from latentrnn.support.notebooks import ShownInNotebooks
from latentrnn.support.progress import progress_bar
from latentrnn.support.shown import shown

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

RUNS = "runs"  # the folder of their folders


class Study(ShownInNotebooks):
    """Fits of several models under several seeds and settings to the same data, and what came of each.

    Every run is a folder: what it is (`run.json`), the checkpoint from which it goes on when its process is killed,
    `metrics.csv`, the fit (`latentrnn.load` reads it) and its scores (`scores.json`). Which run is done, under way or
    still to do stands in Optuna's storage, so that any number of processes, on any number of machines that see the
    folder, share the work: start the same script again, wherever and as often as you like. A run whose process dies is
    taken over by another, or by the next start; nothing that was finished is done twice.

    Without `trials` every model runs under every seed with every combination of the settings that matter to it. With
    `trials` that many runs are drawn by Optuna's sampler, which learns from the bound that the earlier ones reached.

    Args:
        folder: of the study; it is made.
        models: by name what declares each: a function of the training data and of settings, by their names, that
            returns a `LatentRNN` or one with its `Guide`; or what such a function would return.
        train, validation, test: sequences to fit, to decide when to stop, and to compare on. Without `validation` runs
            are pruned by the bound of training batches; without `test` there is no table.
        seeds: of the fits; of drawn runs, which take them in turn.
        settings: what is varied, by name: an argument of models' functions, or a setting of the fit (`"steps"`,
            `"batch_size"`, `"optimizer.learning_rate"`). A list of plain values, or a dict of label to any value; with
            `trials` also a range, `{"low": 1e-4, "high": 1e-2, "log": True}`, or a distribution of Optuna. A model
            whose function does not name a setting is not run again for it.
        trials: runs to draw; None for the grid.
        fit: settings of every fit, as of `latentrnn.fit`: by name, whole (`lr.AdamW(1e-3)`) or field by field.
        storage: URL of a database that Optuna takes, e.g. "postgresql://..." for many machines; by default a SQLite
            file in the folder.
        name: of the study in the storage; by default that of the folder.
        sampler: of Optuna, for `trials`; by default its own.
        pruner: of Optuna, e.g. `optuna.pruners.MedianPruner()`, which is told of every evaluation and may end a run;
            None ends none.
        kind, num_particles: of the evidence of `test`, as for `latentrnn.compare`.
        checkpoint_every: seconds between checkpoints.
        heartbeat: seconds between signs of life of a run, whole; it counts as dead after three without one.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: no model or seed, a setting that nothing takes, a range without `trials`, or data that overlap.

    References:
        Akiba, Sano, Yanase, Ohta, Koyama. Optuna: a next-generation hyperparameter optimization framework. 2019.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(20, 5, 1))})
        >>> train, valid, test = data.split(0.5, 0.2, 0.3, seed=0)
        >>> def rnn(data, hidden):
        ...     return lr.LatentRNN(
        ...         data.spec, transition=lr.GRU(hidden), latent=lr.Deterministic(), observations={"y": lr.Gaussian()}
        ...     )
        >>> Study("sweep", {"rnn": rnn}, train, valid, test, seeds=[0, 1], settings={"hidden": [2, 4]})
        Study('sweep': 4 runs of 1 model, 2 seeds, hidden in [2, 4])
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        models: Mapping[str, Any],
        train: SequenceData | StoredSequences,
        validation: SequenceData | StoredSequences | None = None,
        test: SequenceData | None = None,
        *,
        seeds: Iterable[int] = (0,),
        settings: Mapping[str, Any] | None = None,
        trials: int | None = None,
        fit: Mapping[str, Any] | None = None,
        storage: str | None = None,
        name: str | None = None,
        sampler: Any = None,
        pruner: Any = None,
        kind: str | SMC | AIS = "auto",
        num_particles: int = 64,
        checkpoint_every: float = 60.0,
        heartbeat: int = 10,
    ) -> None:
        self.folder = check_path("Study", folder, name="folder")
        if not isinstance(models, Mapping) or not models or not all(isinstance(key, str) and key for key in models):
            raise TypeError(f"Study: models must be a dict of name to a function of the data; found {shown(models)}")
        for key, value in models.items():
            check_model("Study", f"models[{key!r}]", value)
        self.models = dict(models)
        check_kind_of("Study", "train", train, SequenceData, StoredSequences)
        if validation is not None:
            check_kind_of("Study", "validation", validation, SequenceData, StoredSequences)
        if test is not None:
            check_kind_of("Study", "test", test, SequenceData)
            for part, data in (("train", train), ("validation", validation)):
                if data is not None and (shared := data.overlaps(test)):
                    raise ValueError(
                        f"Study: {shared} test sequences are {part} sequences too; give test.without({part})"
                    )
        self.train, self.validation, self.test = train, validation, test
        self.seeds = tuple(
            check_seed("Study", seed, name="seeds") for seed in check_list("Study", "seeds", seeds, "seeds")
        )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"Study: seeds must be at least one, each once; found {list(self.seeds)}")
        self.settings = read_settings("Study", {} if settings is None else settings)
        self.trials = None if trials is None else check_size("Study", "trials", trials)
        ranges = [key for key, value in self.settings.items() if isinstance(value, Range)]
        if ranges and trials is None:
            raise ValueError(
                f"Study: settings[{ranges[0]!r}] is a range, which is drawn from; say how many runs, trials=50, or "
                "give its values as a list"
            )
        by_model = settings_by_model("Study", self.models, self.settings)
        if fit is not None and not isinstance(fit, Mapping):
            raise TypeError(f"Study: fit must be a dict of settings; found {type(fit).__name__}")
        self.fit = dict(fit or {})
        arguments = fit_arguments("Study", self.fit)
        # what a fit tells, and what it computes with, may be another in every process
        self._described = {
            n: repr(value) for n, value in sorted(arguments.items()) if n not in ("reporting", "compute")
        }
        self.storage = None if storage is None else check_text("Study", "storage", storage)
        self.name = self.folder.absolute().name if name is None else check_text("Study", "name", name)
        self.sampler, self.pruner = sampler, pruner
        check_no_bound("Study", kind)
        self.kind, self.num_particles = kind, check_size("Study", "num_particles", num_particles)
        every = check_number("Study", "checkpoint_every", checkpoint_every, least=0)
        self.heartbeat = check_size("Study", "heartbeat", heartbeat)
        planned = grid(by_model, self.seeds) if self.trials is None else {}
        self.space = Space(planned, by_model, self.seeds, self.trials)
        self._runner = Runner(
            self.folder / RUNS, self.models, by_model, train, validation, test, self.fit, every, kind,
            self.num_particles,
        )  # fmt: skip

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        *,
        folder: str | os.PathLike[str] | None = None,
        fit: Mapping[str, Any] | None = None,
    ) -> Study:
        """Read a study from a TOML file, in which paths are relative to it.

            folder = "sweep"
            seeds = [0, 1]
            trials = 40                                                 # drawn; without it every combination
            pruner = { class = "MedianPruner", n_warmup_steps = 50 }    # of Optuna; sampler likewise

            [data]                                                      # as `latentrnn.datasets.data_file` has it
            file = "trials.csv"
            observations = { spikes = ["n1", "n2"] }
            time = "t"
            group = "trial"
            split = { valid = 0.15, test = 0.15, seed = 0 }

            [models]                                                    # functions of Python files, or TOML files
            gru = "models.py:gru"
            linear = "linear.toml"

            [settings]
            hidden = [8, 16]
            "optimizer.learning_rate" = { low = 1e-4, high = 1e-2, log = true }

            [fit]
            steps = 400

        `trials`, `storage`, `name`, `kind`, `num_particles`, `checkpoint_every` and `heartbeat` are as of the class.

        Args:
            path: of the file.
            folder: of the study, in the place of the file's.
            fit: settings of the fit that stand in the place of the file's, by name.

        Raises:
            FileNotFoundError: there is no such file, or one that it names.
            ValueError, TypeError: something in it is unknown, missing, or of the wrong kind.
        """
        arguments = study_arguments(check_path("Study.from_toml", path))
        if fit is not None:
            check_kind_of("Study.from_toml", "fit", fit, dict)
            arguments["fit"] = {**arguments.get("fit", {}), **fit}
        return cls(**arguments | ({} if folder is None else {"folder": folder}))

    # -- running -------------------------------------------------------------------------------------------------------

    def run(
        self, *, workers: int = 1, retry: bool = False, timeout: float | None = None, progress: bool = True
    ) -> Study:
        """Do the runs that nobody has done, or does; those whose processes have died go on from their checkpoints.

        It returns when nothing is left to begin, having waited for other processes as long as their signs of life may
        take. An error of one run is kept with it, and the others go on.

        Args:
            workers: processes of this machine that share the work. Models' functions must then be importable, and a
                script keep what it starts under `if __name__ == "__main__":`. Several machines, or the jobs of a
                scheduler, each call `run()` themselves.
            retry: whether runs that failed, or died ten times, are done again.
            timeout: seconds after which no run is begun.
            progress: whether to show how many runs are done.

        Returns:
            The study itself.

        Raises:
            ModuleNotFoundError: Optuna is not installed.
            ValueError: the folder's study was begun with other data or another fit.
            RuntimeError: every run failed.

        Warns:
            RuntimeWarning: some runs failed.
        """
        workers = check_size("Study.run", "workers", workers)
        retry, progress = check_flag("Study.run", "retry", retry), check_flag("Study.run", "progress", progress)
        if timeout is not None:
            timeout = check_number("Study.run", "timeout", timeout, above=0)
        with quietly():
            trials = self._trials()
            trials.settle(self._definition())
            if workers > 1:
                del trials
                threads = max(1, torch.get_num_threads() // workers)
                context = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(workers, context, torch.set_num_threads, (threads,)) as pool:
                    # one of them tries again what failed, and queues it for all
                    futures = [
                        pool.submit(
                            _work, self, retry=retry and not number, timeout=timeout, progress=progress and not number
                        )
                        for number in range(workers)
                    ]
                    for future in futures:
                        future.result()
            else:
                self._work(trials, retry=retry, timeout=timeout, progress=progress)
        self._complain()
        return self

    def _work(self, trials: Trials, *, retry: bool, timeout: float | None, progress: bool) -> None:
        with progress_bar(total=self._planned(), desc=self.name, unit="run", disable=not progress) as bar:

            def advanced() -> None:
                ended = sum(trials.status(trial) not in ("waiting", "running") for trial in trials.by_key().values())
                bar.update(max(ended - bar.n, 0))

            advanced()
            trials.work(self.space, self._runner, retry=retry, timeout=timeout, advanced=advanced)

    def _trials(self) -> Trials:
        return Trials(
            self.folder, self.name, self.storage, sampler=self.sampler, pruner=self.pruner, heartbeat=self.heartbeat
        )

    def _definition(self) -> dict[str, str]:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            **{name: str(identity_of(data)) for name, data in parts.items()},
            "fit": repr(self._described),
            "evidence": repr((self.kind, self.num_particles)),
            "trials": "drawn" if self.trials is not None else "a grid",
            **self._meanings(),
        }

    def _meanings(self) -> dict[str, str]:
        """What labels of settings stand for, where that can be told again in another process."""
        told = {
            f"{name}={label}": repr(value)
            for name, item in self.settings.items()
            if isinstance(item, Choices)
            for label, value in item.values.items()
            if value is not label
        }
        return {name: text for name, text in told.items() if " at 0x" not in text}

    def _planned(self) -> int:
        return len(self.space.grid) if self.trials is None else self.trials

    def _complain(self) -> None:
        frame = self.to_dataframe()
        failed = frame[frame["status"] == "failed"]
        if not len(failed):
            return
        said = (
            f"Study: {len(failed)} of {len(frame)} runs failed, the first, {failed.index[0]}: {failed['error'].iloc[0]}"
        )
        if len(failed) == len(frame):
            raise RuntimeError(said)
        warnings.warn(f"{said}; to_dataframe() has all, run(retry=True) tries them again", RuntimeWarning, stacklevel=3)

    # -- what came of it -----------------------------------------------------------------------------------------------

    def to_dataframe(self) -> pandas.DataFrame:
        """Every run that has been begun or queued, a row each.

        Returns:
            By key of the run: `status` ("waiting", "running", "complete", "pruned", "failed", or "died", whose process
            is gone), `model`, `seed`, a column for each setting, `objective` (the best validation bound, nats per
            sequence), `elpd` (log evidence of the test sequences, nats), `mc_se` (its Monte Carlo error), `doubtful`
            (sequences whose evidence is not to be believed), `parameters` (learned numbers), `seconds` (that steps
            took), `stop_reason` and `error`.
        """
        import pandas

        rows = {}
        with quietly():
            trials = self._trials()
            for key, trial in trials.by_key().items():
                about = trial.user_attrs
                row = {"status": trials.status(trial), "model": about["model"], "seed": about["seed"]}
                row |= {name: about["settings"].get(name) for name in self.settings}
                row |= {"error": about.get("error", "")}
                if row["status"] == "complete":
                    outcome = Outcome(self._run_of(trial), read_scores(self.folder / RUNS / key))
                    row |= outcome.numbers()
                rows[key] = row
        columns = ["status", "model", "seed", *self.settings, *NUMBERS, "error"]
        return pandas.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("run")

    def table(self, *, method: str = "stacking") -> pandas.DataFrame:
        """Configurations ranked by the log evidence of the test sequences, with paired differences to the best.

        A configuration is a model with its settings. Its log density of a sequence is the mean over the runs that
        differ in the seed alone: what one fit of it is worth, not the best of several. Differences are paired, sequence
        by sequence; what a fit depends on its seed is told apart, by the spread over runs.

        Args:
            method: of the weights, as of `latentrnn.compare`.

        Returns:
            The columns of `latentrnn.compare`, with `dse` the error of a difference over sequences, and beside them
            `seed_se` (its standard error over seeds; NaN where a configuration has one run), `runs`, `pruned` (runs
            that were ended early, without which the mean of those left is too good), `doubtful`, `parameters` (learned
            numbers) and `seconds` (of a fit, on average).

        Raises:
            ValueError: there is no test data, no two configurations have a finished run, or fewer than five sequences.
        """
        check_choice("Study.table", "method", method, METHODS)
        if self.test is None:
            raise ValueError("Study.table: no sequences to compare on; give Study(test=...) some that no fit has seen")
        return compared(self._outcomes(), [self._run_of(trial) for trial in self._with_status("pruned")], method)

    def best(self) -> FitResult:
        """Load the run with the best objective (the bound of the validation sequences).

        Raises:
            ValueError: no run is finished.
        """
        outcomes = self._outcomes()
        if not outcomes:
            raise ValueError(f"Study.best: no run of {self.folder} is finished; study.run()")
        return self.load(max(outcomes, key=lambda outcome: outcome.scores["objective"]).run.key)

    def load(self, run: str) -> FitResult:
        """Load the fit of a run.

        Args:
            run: its key, the index of `to_dataframe()`.

        Raises:
            ValueError: there is no such run, or it is not finished.
        """
        folder = self.folder / RUNS / check_text("Study.load", "run", run)
        try:
            return load(folder)
        except FileNotFoundError:
            known = sorted(path.name for path in (self.folder / RUNS).glob("*"))
            raise ValueError(f"Study.load: no run {run!r}; there are {shown(known, 300)}") from None

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the differences of `table` to the best, with two standard errors over sequences.

        Args:
            ax: Axes to draw into.

        Raises:
            ValueError: as of `table`.
        """
        return comparison(self.table(), ax=ax)

    def optuna(self) -> Any:
        """Return Optuna's own study, for its plots, importances and dashboard.

        Raises:
            ModuleNotFoundError: Optuna is not installed.
        """
        with quietly():
            return self._trials().study

    def _outcomes(self) -> list[Outcome]:
        done = self._with_status("complete")
        return [Outcome(self._run_of(each), read_scores(self.folder / RUNS / each.user_attrs["run"])) for each in done]

    def _with_status(self, status: str) -> list[Any]:
        with quietly():
            trials = self._trials()
            return [trial for trial in trials.by_key().values() if trials.status(trial) == status]

    @staticmethod
    def _run_of(trial: Any) -> Run:
        about = trial.user_attrs
        return Run(about["run"], about["model"], about["seed"], about["settings"])

    def _shown(self) -> tuple[list[str], list[Any]]:
        if not (self.folder / RUNS).is_dir():
            return [repr(self)], []
        frame = self.to_dataframe()
        counts = ", ".join(f"{count} {status}" for status, count in frame["status"].value_counts().items())
        try:
            return [repr(self), counts], [self.table()]
        except ValueError as error:
            return [repr(self), counts, str(error)], [frame]

    def __repr__(self) -> str:
        def counted(number: int, noun: str) -> str:
            return f"{number} {noun}{'' if number == 1 else 's'}"

        varied = "".join(f", {name} {_words(item)}" for name, item in self.settings.items())
        drawn = "" if self.trials is None else " drawn"
        runs = f"{counted(self._planned(), 'run')}{drawn} of {counted(len(self.models), 'model')}"
        return f"Study({str(self.folder)!r}: {runs}, {counted(len(self.seeds), 'seed')}{varied})"


NUMBERS = ("objective", "elpd", "mc_se", "doubtful", "parameters", "seconds", "stop_reason")


def _work(study: Study, **how: Any) -> None:
    try:
        with quietly():
            study._work(study._trials(), **how)
    finally:
        if is_orphan():  # the pool would wait for work from a process that is gone
            os._exit(1)


def _words(setting: Any) -> str:
    if isinstance(setting, Range):
        return f"from {setting.low:g} to {setting.high:g}"
    return f"in {shown(list(setting.values), 60)}"
