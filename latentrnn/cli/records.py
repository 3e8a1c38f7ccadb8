"""What a fit from the command line was made of, kept beside it: the model's file, its settings, the data's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentrnn.data import SequenceData
from latentrnn.datasets import data_file
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.saving.load import load
from latentrnn.inference.fitting.saving.weights import write_atomically
from latentrnn.study.model_files import load_python
from latentrnn.study.parts import parts
from latentrnn.support.strict_json import dumps, loads

RECORD = "command.json"
OPTIONS = (
    "time", "group", "variable", "value", "metadata", "per_sequence", "dt", "sampling", "missing_covariates",
    "standardise", "windows", "context", "sheet",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Data of a file.

    Attributes:
        file: path.
        options: of `latentrnn.datasets.data_file`.
        split: fractions `valid` and `test`, and `seed`.
    """

    file: str
    options: Mapping[str, Any]
    split: Mapping[str, Any]

    def read(self) -> SequenceData:
        """Return all sequences.

        Raises:
            ValueError, TypeError, FileNotFoundError: as of `latentrnn.datasets.data_file`.
        """
        return data_file(self.file, **self.options)

    def part(self, name: str) -> SequenceData:
        """Return the training, validation or test sequences ("train", "valid", "test"), or all.

        Raises:
            ValueError: there are none; or as of `read`.
        """
        data = self.read()
        if name == "all":
            return data
        found = dict(zip(("train", "valid", "test"), parts(data, **self.split), strict=True))[name]
        if found is None:
            raise ValueError(f"{self.file}: no sequences were kept as {name}; give --part all, or fit with such a part")
        return found


def source_of(options: Any) -> Source:
    """Return the data that options of the command line name."""
    given: dict[str, Any] = {}
    for name, texts in (("observations", options.observe), ("covariates", options.covariate)):
        if texts:
            given[name] = columns_of_texts(texts)
    given |= {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    if len(given.get("group", ())) == 1:
        given["group"] = given["group"][0]
    split = {"valid": options.valid, "test": options.test, "seed": options.split_seed}
    # a path of its own, as the fit may be asked about from elsewhere
    return Source(
        str(Path(options.data).absolute()), given, {name: value for name, value in split.items() if value is not None}
    )


def columns_of_texts(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return columns by name of the head, from `spikes=n1,n2` or `n1`.

    Raises:
        ValueError: a name twice, or none.

    Example:
        >>> columns_of_texts(["spikes=n1,n2", "lfp"])
        {'spikes': ['n1', 'n2'], 'lfp': ['lfp']}
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, columns = text.partition("=")
        listed = [column for column in (columns or name).split(",") if column]
        for head in [name] if columns else listed:
            if not head or head in found:
                raise ValueError(f"--observe, --covariate: expected every name once; found {text!r}")
            found[head] = listed if columns else [head]
    return found


@dataclass(frozen=True)
class Record:
    """What a fit was made of.

    Attributes:
        model: path of the model's file, with the function's name.
        settings: of the model.
        source: of the data.
    """

    model: str
    settings: Mapping[str, Any]
    source: Source

    def write(self, folder: Path) -> None:
        """Write it to the fit's folder, or check that it is what stands there.

        Raises:
            ValueError: the folder holds a fit of something else.
        """
        source = self.source
        text = dumps(
            {
                "model": self.model,
                "settings": dict(self.settings),
                "data": {"file": source.file, "options": dict(source.options), "split": dict(source.split)},
            },
            "command",
        )
        path = folder / RECORD
        if path.is_file() and loads(path.read_text()) != loads(text):
            raise ValueError(f"{folder} holds a fit of another model or other data; give another folder, --out DIR")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())


def read_record(folder: Path) -> Record:
    """Return what a fit in a folder was made of.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it was not made by this command line.
    """
    path = folder / RECORD
    if not folder.exists():
        raise FileNotFoundError(f"no folder {folder}")
    if not path.is_file():
        raise ValueError(f"{folder}: no fit of `latentrnn fit`, which writes {RECORD} there")
    try:
        found = loads(path.read_text())
        data = found["data"]
        return Record(found["model"], found["settings"], Source(data["file"], data["options"], data["split"]))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: damaged, or edited") from None


def load_fit(folder: Path, own: Sequence[str]) -> FitResult:
    """Load a fit, having run the Python files that hold classes of its model, if any.

    Raises:
        FileNotFoundError, ValueError: as of `latentrnn.load`.
    """
    for path in own:
        load_python(Path(path))
    try:
        return load(folder)
    except ValueError as error:
        if "class of your own" in str(error) and not own:
            raise ValueError(f"{error}; give the file that defines it, --model FILE") from None
        raise
