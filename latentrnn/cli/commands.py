"""The commands: each reads its options, calls what Python users call, and says what came of it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentrnn.cli.answers import Answer, shown_table
from latentrnn.cli.demo import run_demo
from latentrnn.cli.records import RECORD, Record, Source, load_fit, read_record, source_of
from latentrnn.criticism.compare import compare
from latentrnn.datasets.data_file import HDF5, NETCDF, columns_of
from latentrnn.inference.fitting.fit import fit
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.settings.checkpointing import Checkpointing
from latentrnn.inference.fitting.settings.reporting import Reporting
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.pages import report
from latentrnn.plotting.comparison import comparison
from latentrnn.study.fit_settings import fit_arguments
from latentrnn.study.model_files import ModelFile, settings_given
from latentrnn.study.model_functions import declared
from latentrnn.study.parts import parts
from latentrnn.study.runs import DESCRIPTION, bound_of
from latentrnn.study.study import RUNS, Study
from latentrnn.study.toml_models import read_toml
from latentrnn.support.strict_json import loads

if TYPE_CHECKING:
    import pandas

INTERRUPTED, FAILED = 130, 1
DIVERGED = " loss at step "  # in the stop reason of a fit that was given up
PACKAGES = ("latentrnn", "torch", "pyro-ppl", "numpy", "arviz", "optuna")


def fit_command(options: Any) -> Answer:
    """Fit a model of a file to data of a file; go on where it was stopped."""
    file = ModelFile(options.model)
    settings = settings_given(dict(options.set))
    source = source_of(options)
    name = file.path.stem if file.function == "model" else file.function
    folder = Path("runs") / name if options.out is None else Path(options.out)
    record = Record(str(file.path.absolute()) + f":{file.function}", settings, source)
    given: dict[str, Any] = {"reporting": Reporting(progress=not options.quiet), **settings_given(dict(options.fit))}
    if options.steps is not None:
        given["steps"] = options.steps
    arguments = fit_arguments("--fit", given)
    data = source.read()
    train, valid, test = parts(data, **source.split)
    model, guide = declared("--set", str(options.model), file, train, settings)
    record.write(folder)
    checkpointing = Checkpointing(folder, options.checkpoint_every, resume=True)
    result = fit(model, guide, train, valid, seed=options.seed, checkpointing=checkpointing, **arguments)
    result.save(folder)
    bound, step = bound_of(result.history)
    code = FAILED if DIVERGED in result.stop_reason else 0
    code = INTERRUPTED if result.stop_reason.startswith("interrupted") else code
    sizes = {"train": len(train), "valid": len(valid or ()), "test": len(test or ())}
    what = "validation" if valid is not None else "training"
    lines = [
        repr(data),
        "parts: " + ", ".join(f"{count} {part}" for part, count in sizes.items()),
        *model.equations(),
        f"best {what} bound: {bound:.5g} nats per sequence, at step {step}",
        result.stop_reason,
        *result.events,
        f"saved to {folder}; next: latentrnn report {folder}",
    ]
    values = {
        "command": "fit", "run": str(folder), "bound": bound, "step": step, "stop_reason": result.stop_reason,
        "events": result.events, "seed": result.seed, "parts": sizes,
    }  # fmt: skip
    return Answer("\n".join(lines), values, code)


def compare_command(options: Any) -> Answer:
    """Rank fits by held-out evidence."""
    names = _names([Path(run) for run in options.runs])
    models: dict[str, Any] = {}
    for name, run in names.items():
        posterior = _posterior(run, options.model, "test")
        models[name] = posterior if options.ahead is None else posterior.one_step_ahead(options.ahead)
    how: dict[str, Any] = {"block_length": options.block_length}
    if options.ahead is None:
        how |= {"kind": options.kind, "num_particles": options.particles}
    frame = compare(models, **how).rename_axis("run")
    if options.plot is not None:
        _plot_comparison(frame, Path(options.plot))
    unit = f"{frame.attrs['num_units']} held-out units, each a {frame.attrs['unit']}; log densities in nats"
    return Answer(f"{shown_table(frame)}\n{unit}", {"command": "compare", "unit": frame.attrs["unit"], "table": frame})


def study_command(options: Any) -> Answer:
    """Do the runs of a study that are left, and compare."""
    path = Path(options.study)
    folder = None if options.out is None else Path(options.out)
    study = Study.from_toml(path, folder=folder, fit=settings_given(dict(options.fit)))
    if not options.status:
        study.run(workers=options.workers, retry=options.retry, timeout=options.timeout, progress=not options.quiet)
    runs = study.to_dataframe()
    _record_runs(path, study, runs)
    counts = {str(status): int(count) for status, count in runs["status"].value_counts().items()}
    lines = [repr(study), ", ".join(f"{count} {status}" for status, count in counts.items()) or "no run was begun"]
    values = {"command": "study", "folder": str(study.folder), "status": counts, "runs": runs}
    try:
        table = study.table()
        values["table"] = table
        lines.append(shown_table(table))
    except ValueError as error:
        lines.append(f"no comparison: {error}")
    if options.runs or options.status:
        lines.append(shown_table(runs.drop(columns="stop_reason")))
    return Answer("\n".join(lines), values, FAILED if "failed" in counts else 0)


def report_command(options: Any) -> Answer:
    """Write a page about a fit."""
    run = Path(options.run)
    posterior = _posterior(run, options.model, options.part)
    target = run / "report.html" if options.out is None else Path(options.out)
    title = run.absolute().name if options.title is None else options.title
    path = report(posterior, target, title=title, num_samples=options.samples)
    return Answer(f"wrote {path}", {"command": "report", "path": str(path)})


def forecast_command(options: Any) -> Answer:
    """Say what comes after the end of every sequence."""
    run = Path(options.run)
    source = read_record(run).source
    posterior = _posterior(run, options.model, options.part, seed=options.seed)
    future = None if options.future is None else _future(posterior, source, Path(options.future), options.horizon)
    frame = posterior.forecast(options.horizon, future, num_samples=options.samples).to_dataframe(prob=options.prob)
    if options.out is None:
        return Answer(frame.to_string(index=False, float_format=lambda value: f"{value:.5g}"), _forecasts(frame))
    target = Path(options.out)
    target.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(target, index=False)
    return Answer(f"wrote {target}: {len(frame)} rows", _forecasts(frame) | {"path": str(target)})


def info_command(options: Any) -> Answer:
    """Say what a path holds, or what is installed."""
    if options.path is None:
        versions = {name: _version(name) for name in PACKAGES}
        devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        lines = [f"{name} {number}" for name, number in versions.items()]
        lines += [f"Python {platform.python_version()}, {torch.get_num_threads()} threads", *devices]
        values = {"versions": versions, "python": platform.python_version(), "devices": devices}
        return Answer("\n".join(lines), {"command": "info"} | values)
    path = Path(options.path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}")
    if path.is_dir():
        return _about_fit(path, load_fit(path, options.model))
    if path.suffix.lower() in (*HDF5, *NETCDF):
        raise ValueError(f"{path}: holds arrays, not columns; latentrnn fit reads it")
    frame = columns_of(path)
    return Answer(shown_table(frame), {"command": "info", "columns": frame})


def _about_fit(path: Path, result: FitResult) -> Answer:
    bound, step = bound_of(result.history) if result.history else (float("nan"), result.best_step)
    record = read_record(path) if (path / RECORD).is_file() else None
    made = [] if record is None else [f"model {record.model}", f"data {record.source.file}"]
    table = result.model.parameters_table()
    lines = [
        *made,
        *result.model.equations(),
        repr(result.guide),
        f"best bound: {bound:.5g} nats per sequence, at step {step}",
        result.stop_reason,
        shown_table(table),
    ]
    values = {
        "command": "info", "bound": bound, "step": step, "seed": result.seed, "stop_reason": result.stop_reason,
        "events": result.events, "equations": result.model.equations(), "settings": result.settings,
        "parameters": table.astype(str),
        "model": None if record is None else record.model, "data": None if record is None else record.source.file,
    }  # fmt: skip
    return Answer("\n".join(lines), values)


def demo_command(options: Any) -> Answer:
    """Write a data set and models, and go through all commands."""
    return run_demo(Path(options.out), options.steps, COMMANDS, quiet=options.quiet)


COMMANDS: dict[str, Callable[[Any], Answer]] = {
    "fit": fit_command,
    "compare": compare_command,
    "study": study_command,
    "report": report_command,
    "forecast": forecast_command,
    "info": info_command,
    "demo": demo_command,
}


def _posterior(run: Path, own: list[str], part: str, seed: int = 0) -> Posterior:
    source = read_record(run).source
    return load_fit(run, own).posterior(source.part(part), seed=seed)


def _names(runs: list[Path]) -> dict[str, Path]:
    """Folders by the shortest ends of their paths that tell them apart."""
    whole = [run.absolute().parts for run in runs]
    for depth in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            return dict(zip(names, runs, strict=True))
    raise ValueError(f"expected every run once; found {[str(run) for run in runs]}")


def _plot_comparison(frame: pandas.DataFrame, path: Path) -> None:
    figure = comparison(frame).get_figure(root=True)
    assert figure is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")


def _record_runs(path: Path, study: Study, runs: pandas.DataFrame) -> None:
    """Write beside every finished run what it was made of, so that the other commands take it too."""
    tables = read_toml(path)
    options = dict(tables["data"])
    file, split = str((path.parent / options.pop("file")).absolute()), options.pop("split", {})
    for key in runs.index[runs["status"].isin(["complete", "pruned"])]:
        folder = study.folder / RUNS / str(key)
        model = (path.parent / tables["models"][runs.loc[key, "model"]]).absolute()
        settings = loads((folder / DESCRIPTION).read_text())["settings"]
        Record(str(model), settings, Source(file, options, split)).write(folder)


def _future(posterior: Posterior, source: Source, path: Path, horizon: int) -> dict[str, torch.Tensor]:
    """Covariates of the steps to come, in the order of the posterior's sequences."""
    columns = source.options.get("covariates")
    if not columns:
        raise ValueError("--future: the data of this fit have no covariates")
    kept = ("time", "group", "dt", "sampling", "sheet")
    options = {name: value for name, value in source.options.items() if name in kept}
    data = Source(str(path), {"observations": columns, **options}, {}).read()
    places = {name: at for at, name in enumerate(data.names)}
    if missing := [name for name in posterior.data.names if name not in places]:
        raise ValueError(f"--future: {path}: nothing of sequence {missing[0]!r}; it has {list(data.names)[:10]}")
    rows = [places[name] for name in posterior.data.names]
    found = {}
    for name, values in data.observations.items():
        described = posterior.data.spec.covariates[name]
        if described.feature_names[: values.shape[-1]] != data.spec.heads[name].channel_names:
            raise ValueError(f"--future: takes columns of numbers; {name!r} has the features {described.feature_names}")
        known = data.masks[name][rows]
        if values.shape[1] < horizon or not bool(known[:, :horizon].all()):
            raise ValueError(f"--future: {path}: expected {horizon} steps of {name!r} of every sequence, none missing")
        given = values[rows][:, :horizon]
        extra = described.features - given.shape[-1]
        # of what may be missing the data have a feature more that says so: nothing is
        found[name] = torch.cat([given, given.new_zeros(*given.shape[:2], extra)], -1)
    return found


def _forecasts(frame: pandas.DataFrame) -> dict[str, Any]:
    return {"command": "forecast", "time_unit": frame.attrs.get("time_unit"), "forecast": frame}


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"
