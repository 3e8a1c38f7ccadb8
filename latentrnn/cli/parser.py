"""The options of the command line. Only the standard library is imported, so that help and mistakes come at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")
FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # how shells complete a path, for shtab
ABOUT = "Probabilistic state-space models with recurrent transitions: fit, compare, check and forecast from a shell."
CODES = """exit codes:
  0    done
  1    a fit diverged, or runs of a study failed
  2    wrong use: an option, a file, a model or data that do not fit each other; one line says which
  130  interrupted (Ctrl-C); the same command goes on from the checkpoint

Every command has an example: latentrnn fit --help. Options are those of the Python functions of the same names."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        "latentrnn", description=ABOUT, epilog=CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"latentrnn {_version()}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _fit(commands)
    _compare(commands)
    _study(commands)
    _report(commands)
    _forecast(commands)
    _info(commands)
    _demo(commands)
    _completion(commands)
    return top


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read a command line; help and mistakes end the program (SystemExit, 0 and 2)."""
    return parser().parse_args(list(arguments))


def completion(shell: str) -> int:
    """Print a script that completes the command line in a shell, and return the exit code."""
    try:
        shtab = import_module("shtab")
    except ModuleNotFoundError:
        print("latentrnn completion: shtab is not installed: pip install 'latentrnn[shell]'", file=sys.stderr)
        return 2
    print(shtab.complete(parser(), shell))
    return 0


def _version() -> str:
    try:
        return version("latentrnn")
    except PackageNotFoundError:
        return "(not installed)"


def _command(commands: Any, name: str, what: str, example: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--json", action="store_true", help="print results as JSON, for programs")
    found.add_argument("--quiet", action="store_true", help="no progress on standard error")
    found.add_argument("--traceback", action="store_true", help="show where in the program an error was raised")
    return found


def _path(parser: Any, *names: str, **about: Any) -> None:
    parser.add_argument(*names, **about).complete = FILES


def _fit(commands: Any) -> None:
    one = _command(
        commands,
        "fit",
        "fit a model of a file to data of a file",
        "  latentrnn fit model.py trials.csv --time t --group trial --observe spikes=n1,n2 --out runs/gru\n"
        "  latentrnn fit model.toml sales.csv --time day --observe sales --set transition.hidden_size=32",
    )
    _path(
        one, "model", metavar="MODEL",
        help="model.py with a function model(data), model.py:another, or model.toml",
    )  # fmt: skip
    _data_options(one)
    _path(one, "--out", metavar="DIR", help="folder of the fit (default: runs/ and the model's name)")
    one.add_argument("--seed", type=int, default=0, help="of weights, batches and draws (default: 0)")
    one.add_argument("--steps", type=int, help="optimizer steps (default: until the bound has stopped improving)")
    _pairs(one, "--set", "a setting of the model: an argument of its function, or a dotted path of a TOML file")
    _pairs(one, "--fit", "a setting of the fit, e.g. optimizer.learning_rate=0.01, stopping.max_time=600")
    one.add_argument("--checkpoint-every", type=float, default=60.0, metavar="SECONDS", help="(default: 60)")


def _compare(commands: Any) -> None:
    one = _command(
        commands,
        "compare",
        "rank fits by the log evidence of the sequences that they kept for testing",
        "  latentrnn compare runs/gru runs/linear\n"
        "  latentrnn compare runs/gru runs/linear --ahead spikes --block-length 100    # one long recording",
    )
    _path(one, "runs", nargs="+", metavar="RUN", help="folders of fits")
    one.add_argument("--ahead", metavar="HEAD", help="compare densities of this head one step ahead instead")
    one.add_argument("--block-length", type=int, help="steps of a block, with --ahead")
    one.add_argument("--kind", default="auto", help="of the evidence: auto, iwae, smc, ais or exact (default: auto)")
    one.add_argument("--particles", type=int, default=64, help="per sequence (default: 64)")
    _path(one, "--plot", metavar="FILE", help="draw the comparison, too")
    _own_classes(one)


def _study(commands: Any) -> None:
    one = _command(
        commands,
        "study",
        "run models x seeds x settings of a file, or go on with them, and print the table",
        "  latentrnn study study.toml --workers 4     # again, after a kill; or on another machine at the same time\n"
        "  latentrnn study study.toml --status",
    )
    _path(one, "study", metavar="FILE", help="TOML, as Study.from_toml reads it")
    one.add_argument("--workers", type=int, default=1, help="processes that share the runs (default: 1)")
    _path(one, "--out", metavar="DIR", help="folder of the study (default: the file's)")
    _pairs(one, "--fit", "a setting of the fit in the place of the file's, e.g. steps=100")
    one.add_argument("--timeout", type=float, metavar="SECONDS", help="begin no run after this time")
    one.add_argument("--retry", action="store_true", help="do runs again that failed")
    one.add_argument("--status", action="store_true", help="say how the runs stand, and run nothing")
    one.add_argument("--runs", action="store_true", help="print every run, not the comparison alone")


def _report(commands: Any) -> None:
    one = _command(
        commands,
        "report",
        "write a page about a fit: data, model, fit, parameters, predictions, checks",
        "  latentrnn report runs/gru --out gru.html",
    )
    _path(one, "run", metavar="RUN", help="folder of a fit")
    _path(one, "--out", metavar="FILE", help="the page (default: report.html in the folder)")
    one.add_argument("--title", help="of the page (default: the folder's name)")
    one.add_argument("--samples", type=int, default=200, help="draws for checks and predictions (default: 200)")
    _part(one)
    _own_classes(one)


def _forecast(commands: Any) -> None:
    one = _command(
        commands,
        "forecast",
        "say what comes after the end of every sequence: mean and interval of each step",
        "  latentrnn forecast runs/sales --horizon 14 --out next.csv",
    )
    _path(one, "run", metavar="RUN", help="folder of a fit")
    one.add_argument("--horizon", type=int, required=True, help="steps")
    one.add_argument("--prob", type=float, default=0.9, help="of the interval (default: 0.9)")
    one.add_argument("--samples", type=int, default=200, help="paths (default: 200)")
    one.add_argument("--seed", type=int, default=0, help="of the paths (default: 0)")
    _path(one, "--future", metavar="FILE", help="covariates of the steps to come, in the columns of the data's file")
    _path(one, "--out", metavar="FILE", help="CSV to write (default: print)")
    _part(one, default="all")
    _own_classes(one)


def _info(commands: Any) -> None:
    one = _command(
        commands,
        "info",
        "say what is in a folder of a fit or a file of data, or which versions are installed",
        "  latentrnn info\n  latentrnn info runs/gru\n  latentrnn info trials.csv",
    )
    _path(one, "path", nargs="?", metavar="PATH", help="folder of a fit, or a file of data")
    _own_classes(one)


def _demo(commands: Any) -> None:
    one = _command(
        commands,
        "demo",
        "write a small data set and two models, then fit, compare, report and forecast, showing every command",
        "  latentrnn demo --out demo",
    )
    _path(one, "--out", metavar="DIR", default="latentrnn-demo", help="(default: latentrnn-demo)")
    one.add_argument("--steps", type=int, default=300, help="of each fit (default: 300)")


def _completion(commands: Any) -> None:
    one = commands.add_parser(
        "completion",
        help="print a script that completes this command line in a shell",
        description="Print a script that completes this command line in a shell.",
        epilog='example:\n  eval "$(latentrnn completion bash)"    # in ~/.bashrc',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("shell", choices=SHELLS)


def _data_options(parser: argparse.ArgumentParser) -> None:
    _path(parser, "data", metavar="DATA", help=".csv, .tsv, .txt, .parquet, .xlsx, .nc or .h5 (of lfads-torch)")
    group = parser.add_argument_group("data", "as SequenceData.from_dataframe has them")
    columns = "[NAME=]COLUMN[,COLUMN...]"
    group.add_argument(
        "--observe", action="append", default=[], metavar=columns, help="a head and its columns; again for another head"
    )
    group.add_argument("--covariate", action="append", default=[], metavar=columns, help="likewise of what is given")
    group.add_argument("--time", metavar="COLUMN", help="of times: seconds, durations or dates")
    group.add_argument("--group", metavar="COLUMN[,...]", type=_names, help="that tell sequences apart")
    group.add_argument("--variable", metavar="COLUMN", help="of names, where every row is one value")
    group.add_argument("--value", metavar="COLUMN", help="of values, likewise")
    group.add_argument("--per-sequence", metavar="NAME[,...]", type=_names, help="heads with one value per sequence")
    group.add_argument("--metadata", metavar="COLUMN[,...]", type=_names, help="what else is known of each sequence")
    group.add_argument("--dt", type=_number, help='time between steps: seconds, or "15min", "MS"')
    group.add_argument("--sampling", choices=("regular", "irregular", "rows"), help="(default: regular)")
    group.add_argument("--missing-covariates", choices=("refuse", "indicator"), help="(default: refuse)")
    group.add_argument("--standardise", metavar="NAME[,...]", type=_names, help="heads and covariates")
    group.add_argument("--windows", type=int, metavar="STEPS", help="cut long sequences into windows")
    group.add_argument("--context", type=int, metavar="STEPS", help="before each window, seen and not scored")
    group.add_argument("--sheet", help="of a spreadsheet (default: the first)")
    group.add_argument("--valid", type=float, metavar="FRACTION", help="for stopping (default: 0.15)")
    group.add_argument("--test", type=float, metavar="FRACTION", help="for comparison and checks (default: 0.15)")
    group.add_argument("--split-seed", type=int, metavar="SEED", help="of the parts (default: 0)")


def _pairs(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    parser.add_argument(name, action="append", default=[], type=_pair, metavar="NAME=VALUE", help=what)


def _part(parser: argparse.ArgumentParser, default: str = "test") -> None:
    parser.add_argument(
        "--part",
        choices=("train", "valid", "test", "all"),
        default=default,
        help=f"which sequences (default: {default})",
    )


def _own_classes(parser: argparse.ArgumentParser) -> None:
    _path(parser, "--model", action="append", default=[], metavar="FILE", help="Python file with classes of your own")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE; found {text!r}")
    return name, value


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
