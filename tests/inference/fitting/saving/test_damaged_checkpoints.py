"""Every damaged or foreign checkpoint is a clear error: each case damages a good one in one way."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from latentrnn.inference.fitting.saving.load import load
from latentrnn.inference.fitting.saving.manifest import MANIFEST
from latentrnn.inference.fitting.saving.save import save
from tests.inference.fitting.saving.fits import make_data, make_result


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the JSON file, and its checksum to match, as a well-meaning script would."""

    def damage(path: Path) -> None:
        manifest = json.loads((path / MANIFEST).read_text())
        change(manifest)
        sign(manifest)
        (path / MANIFEST).write_text(json.dumps(manifest))

    return damage


def spec(**entries: Any) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest["spec"].update(entries))


def head(**entries: Any) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest["spec"]["heads"][0].update(entries))


def sign(manifest: dict[str, Any]) -> None:
    manifest.pop("checksum", None)
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()


def tensors(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    """Change the model's tensors and forge the JSON entry to match, as a well-meaning script would."""

    def damage(path: Path) -> None:
        file = next(path.glob("model-*"))
        state = safetensors.torch.load_file(file)
        change(state)
        forge(path, safetensors.torch.save(state))

    return damage


def forge(path: Path, content: bytes) -> None:
    next(path.glob("model-*")).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(lambda manifest: manifest["weights"]["model"].update(entry))(path)


def model_file(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = next(path.glob("model-*"))
        file.write_bytes(change(file.read_bytes()))

    return damage


def write(text: str | bytes) -> Callable[[Path], Any]:
    return lambda path: (path / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())


def first(state: dict[str, Tensor]) -> str:
    return next(name for name in sorted(state) if state[name].dim() == 2)


def poison(state: dict[str, Tensor]) -> None:
    name = next(name for name in sorted(state) if name.startswith("transition."))
    state[name].view(-1)[0] = math.inf


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (
        lambda path: (path / MANIFEST).unlink(),
        r"gru: not a latentrnn checkpoint; expected a directory with a latentrnn.json",
    ),
    "truncated JSON": (
        lambda path: write((path / MANIFEST).read_bytes()[:200])(path),
        r"latentrnn.json: damaged or truncated; not valid JSON",
    ),
    "empty JSON": (write(""), r"latentrnn.json: damaged or truncated; not valid JSON"),
    "binary manifest": (write(b"\x80\x04\x95\xff"), r"latentrnn.json: damaged or truncated; not valid JSON"),
    "bare NaN": (write('{"format": NaN}'), r"latentrnn.json: damaged or truncated; not valid JSON \(NaN is not JSON\)"),
    "foreign JSON": (write('{"model_type": "gpt2"}'), r'not a latentrnn checkpoint; expected "format"'),
    "a list": (write("[1, 2]"), r'not a latentrnn checkpoint; expected "format"'),
    "newer format": (
        edit(lambda m: m.update(format_version=99, versions={"latentrnn": "9.9.0"})),
        r"format_version 99, written by latentrnn 9.9.0, is newer than this version reads \(up to 2\); upgrade",
    ),
    "no format version": (edit(lambda m: m.pop("format_version")), r"format_version: expected a positive integer"),
    "format version of another type": (
        edit(lambda m: m.update(format_version="1")),
        r"format_version: expected a positive integer; found '1'",
    ),
    "missing entry": (edit(lambda m: m.pop("history")), r"latentrnn.json: history is missing"),
    "number of another type": (
        edit(lambda m: m.update(best_step="2")),
        r"latentrnn.json: best_step: expected int; found str",
    ),
    "entry of another type": (edit(lambda m: m.update(used={})), r"latentrnn.json: used: expected list; found dict"),
    "missing weights entry": (edit(lambda m: m["weights"].pop("guide")), r"latentrnn.json: weights.guide is missing"),
    "missing checksum": (edit(lambda m: m["weights"]["model"].pop("sha256")), r"weights.model.sha256 is missing"),
    "weights outside the directory": (
        edit(lambda m: m["weights"]["model"].update(file="../secret.safetensors")),
        r"weights.model.file: expected model-<hash>.safetensors; found '../secret.safetensors'",
    ),
    "unknown dtype": (
        edit(lambda m: m["weights"]["model"].update(dtype="float31")),
        r"model-\w+.safetensors: expected the name of a torch dtype; found 'float31'",
    ),
    "weights missing": (
        lambda path: next(path.glob("guide-*")).unlink(),
        r"guide-\w+.safetensors: the weights are missing",
    ),
    "weights truncated": (
        model_file(lambda content: content[:-5]),
        r"model-\w+.safetensors: truncated or replaced; expected \d+ bytes, found \d+",
    ),
    "weights empty": (model_file(lambda content: b""), r"model-\w+.safetensors: truncated .* found 0"),
    "one flipped bit": (
        model_file(lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        r"model-\w+.safetensors: damaged or replaced; expected SHA-256 \w+..., found \w+...",
    ),
    "a pickle": (lambda path: forge(path, b"\x80\x02}q\x00."), r"model-\w+.safetensors: not a safetensors file"),
    "tensor missing": (tensors(lambda s: s.pop(first(s))), r"model-\w+.safetensors: tensor '[\w.]+' is missing"),
    "tensor too many": (
        tensors(lambda s: s.update(extra=torch.zeros(2))),
        r"tensor 'extra' is not described by the saved configuration",
    ),
    "tensor of another shape": (
        tensors(lambda s: s.update({first(s): torch.zeros(9, 9)})),
        r"tensor '[\w.]+': expected shape \(\d+, \d+\), found \(9, 9\)",
    ),
    "tensor of another dtype": (
        tensors(lambda s: s.update({first(s): s[first(s)].double()})),
        r"tensor '[\w.]+': expected dtype float32, found float64",
    ),
    "weights that are not finite": (tensors(poison), r"tensor '[\w.]+': expected finite numbers; 1 of \d+ are NaN"),
    "another configuration": (
        edit(lambda m: m["model"]["transition"]["arguments"].update(hidden_size=5)),
        r"model-\w+.safetensors: tensor '[\w.]+': expected shape",
    ),
    "unknown argument": (
        edit(lambda m: m["model"]["transition"]["arguments"].update(units=5)),
        r"latentrnn.json: cannot rebuild the model it describes: TypeError: .*units",
    ),
    "unknown class": (
        edit(lambda m: m["model"]["transition"].update({"class": "Transformer"})),
        r"latentrnn.json: cannot rebuild the model it describes: unknown component class 'Transformer'",
    ),
    "own class not imported": (
        edit(
            lambda m: (
                m["model"]["transition"].update({"class": "MyCell"}),
                m.update(own_classes={"MyCell": "my_project.cells"}),
            )
        ),
        r"unknown component class 'MyCell'.* MyCell: import my_project.cells, which defines it, before loading",
    ),
    "own class of a script": (
        edit(
            lambda m: (
                m["model"]["transition"].update({"class": "MyCell"}),
                m.update(own_classes={"MyCell": "__main__"}),
            )
        ),
        r"unknown component class 'MyCell'.* MyCell: define it before loading",
    ),
    "impossible size": (
        edit(lambda m: m["model"]["transition"]["arguments"].update(hidden_size=-5)),
        r"latentrnn.json: cannot rebuild the model it describes: ",
    ),
    "spec without heads": (edit(lambda m: m["spec"].pop("heads")), r"cannot rebuild the spec it describes: .*heads"),
    "step of another type": (spec(dt=[1]), r"spec it describes: data spec: dt: expected seconds, or None; found \[1\]"),
    "step that is a truth value": (spec(dt=False), r"data spec: dt: expected seconds, or None; found False"),
    "step of zero": (spec(dt=0), r"data spec: dt: expected seconds, or None; found 0"),
    "irregular in words": (spec(irregular="no"), r"data spec: irregular: expected true or false; found 'no'"),
    "irregular as a number": (spec(irregular=0), r"data spec: irregular: expected true or false; found 0"),
    "clock of zero": (head(clock=0), r"heads\['spikes'\]: clock: expected a positive integer; found 0"),
    "clock that is a truth value": (
        head(clock=True),
        r"heads\['spikes'\]: clock: expected a positive integer; found True",
    ),
    "clock of half a step": (head(clock=0.5), r"heads\['spikes'\]: clock: expected a positive integer; found 0.5"),
    "per step in words": (head(per_step="no"), r"heads\['spikes'\]: per_step: expected true or false; found 'no'"),
    "scale of zero": (
        head(location=[0, 0], scale=[0, 0]),
        r"heads\['spikes'\]: scale: expected positive numbers; found \(0, 0\)",
    ),
    "scale of a covariate": (
        edit(lambda m: m["spec"]["covariates"][0].update(scale=[0])),
        r"covariates\['stimulus'\]: scale: expected positive numbers; found \(0,\)",
    ),
    "scale without location": (
        head(scale=[1, 1]),
        r"heads\['spikes'\]: location: expected one number per channel or feature; found None",
    ),
    "scale that is no number": (
        head(location=[0, 0], scale=[1, {"$float": "nan"}]),
        r"heads\['spikes'\]: scale: expected one number per channel or feature; found \(1, nan\)",
    ),
    "model without transition": (
        edit(lambda m: m["model"].pop("transition")),
        r"cannot rebuild the model it describes: KeyError: 'transition'",
    ),
    "keys of another form": (
        edit(lambda m: m.update(used=[["abc"]])),
        r"latentrnn.json: used\[0\]: expected the key of a sequence, its start and its stop; found \['abc'\]",
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good")
    save(make_result(), path)
    return path


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_and_foreign_files(good: Path, tmp_path: Path, case: str) -> None:
    path = tmp_path / "gru"
    path.mkdir()
    for file in good.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    load(path)  # the control: before the damage it loads
    damage, message = DAMAGE[case]
    damage(path)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_nothing_there_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such directory; expected one that FitResult.save wrote"):
        load(tmp_path / "nowhere")


def test_a_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ValueError, match=r"model.pt: not a latentrnn checkpoint; expected a directory"):
        load(tmp_path / "model.pt")


def test_data_of_another_spec_are_refused_at_load(good: Path) -> None:
    load(good, spec=make_data().spec)
    with pytest.raises(ValueError, match=r"the saved model does not fit this data: observations\['spikes'\].channels"):
        load(good, spec=make_data(channels=3).spec)
