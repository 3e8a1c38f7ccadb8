"""Damaged and forged folders of fits and ensembles: they load as what they were, or are refused."""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

import latentrnn as lr
from tests.fuzz.conftest import number
from tests.fuzz.rule import TALLY, Refused, attempt, expect_same, repeat
from tests.inference.fitting.saving.test_damaged_checkpoints import sign

JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, 1e308, 10**12, 10**30, "", "a", "../../a", "GRU", "enable_validation", [],
    [1], [[1]], {}, {"class": "GRU"}, {"class": "GRU", "arguments": {}}, {"class": "LSTM", "arguments":
    {"hidden_size": 10**12}}, {"distribution": "enable_validation", "arguments": {}}, {"distribution": "Normal",
    "arguments": {"loc": 0.0}}, [None] * 3,
)  # fmt: skip


@cache
def parts() -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    """A small model, a guide and data."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.poisson(1.0, (3, 4, 2))}, {"x": rng.normal(size=(3, 4, 1))}, dt=0.1)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson(covariates=["x"])}
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data


@cache
def saved() -> tuple[dict[str, bytes], lr.FitResult, lr.SequenceData]:
    """The files of a small fit, the fit and its data."""
    result = lr.fit(*parts(), steps=2, reporting=lr.Reporting(progress=False))
    return written(result), result, parts()[2]


@cache
def saved_ensemble() -> tuple[dict[str, bytes], lr.Ensemble, lr.SequenceData]:
    """The files of a small ensemble, the ensemble and its data."""
    found = lr.fit_ensemble(*parts(), seeds=(0, 1), steps=2, reporting=lr.Reporting(progress=False))
    return written(found), found, parts()[2]


def written(result: lr.FitResult | lr.Ensemble) -> dict[str, bytes]:
    """Return the files that saving writes, by path."""
    with tempfile.TemporaryDirectory() as folder:
        result.save(folder)
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def with_one_damaged(random: st.DataObject, files: dict[str, bytes], folder: Path) -> None:
    """Write files into a folder, one of them damaged."""
    name = random.draw(st.sampled_from(sorted(files)))
    for other, content in files.items():
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_bytes(damaged(random, name, content) if other == name else content)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything in a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        found += paths_of(part, (*path, key))
    return found


def damaged(random: st.DataObject, name: str, content: bytes) -> bytes:
    """Return a file's content with a bit flipped, a part cut off, moved or doubled, or, of JSON, one value replaced."""
    ways = ["flip", "cut", "swap", "double", "empty"] + (["value", "value", "drop"] if name.endswith(".json") else [])
    way = random.draw(st.sampled_from(ways))
    place = random.draw(st.integers(0, len(content) - 1))
    note((name, way, place))
    if way == "flip":
        flipped = bytearray(content)
        flipped[place] ^= 1 << random.draw(st.integers(0, 7))
        return bytes(flipped)
    if way == "cut":
        return content[:place]
    if way == "swap":
        return content[place:] + content[:place]
    if way == "double":
        return content + content[place:]
    if way == "empty":
        return b""
    described = json.loads(content)
    edit(random, described, way)
    return json.dumps(described).encode()


def edit(random: st.DataObject, described: Any, way: str) -> None:
    """Drop one entry of a JSON value, or give it another value."""
    path = random.draw(st.sampled_from(paths_of(described)))
    part = described
    for key in path[:-1]:
        part = part[key]
    if way == "drop":
        del part[path[-1]]
        note(("drop", path))
    else:
        part[path[-1]] = copy.deepcopy(random.draw(st.sampled_from(JUNK)))
        note((path, part[path[-1]]))


def loaded_as_it_was(random: st.DataObject, files: Any, load: Callable[[str], Any], saved: Any, data: Any) -> Any:
    """Damage one of the files; return what loads, which must be what was saved, or None where it is refused."""
    TALLY["cases"] += 1
    with tempfile.TemporaryDirectory() as folder:
        with_one_damaged(random, files, Path(folder))
        loaded = attempt("load", lambda: load(folder))
    if isinstance(loaded, Refused):
        return None
    asked = attempt("posterior", lambda: loaded.posterior(data).mean("y", 2))
    assert not isinstance(asked, Refused), asked
    expect_same("what was damaged", asked, saved.posterior(data).mean("y", 2))
    assert loaded.used == saved.used, "the guard of held-out data was changed"
    return loaded


def forged(random: st.DataObject, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return files of which one manifest was edited and signed again, and so were those that vouch for it."""
    name = random.draw(st.sampled_from(sorted(name for name in files if name.endswith(".json"))))
    described = json.loads(files[name])
    for _ in range(random.draw(st.sampled_from([1, 1, 1, 2, 3]))):
        edit(random, described, random.draw(st.sampled_from(["value", "value", "drop"])))
    sign(described)
    found = files | {name: json.dumps(described).encode()}
    if name != "ensemble.json" and "ensemble.json" in files:
        whole = json.loads(files["ensemble.json"])
        whole["checksums"][whole["members"].index(Path(name).parent.name)] = described["checksum"]
        sign(whole)
        found["ensemble.json"] = json.dumps(whole).encode()
    return found


def usable(loaded: Any, data: lr.SequenceData) -> None:
    """Ask what was loaded, which may be another model by now: it answers as any would, or refuses."""
    assert isinstance(loaded, lr.FitResult | lr.Ensemble)
    assert repr(loaded)
    assert all(isinstance(key, lr.data.SequenceKey) and 0 <= key.start <= key.stop for key in loaded.used)
    for fit in loaded.members if isinstance(loaded, lr.Ensemble) else (loaded,):
        assert all(type(value) is int for value in (fit.best_step, fit.seed))
        assert all(isinstance(values, list) for values in fit.history.values())
        assert all(isinstance(event, str) for event in (*fit.events, fit.stop_reason))
        assert repr(fit.model)
        assert repr(fit.guide)
    mean = repeat("mean", lambda: loaded.posterior(data).mean("y", 2))
    if not isinstance(mean, Refused):
        assert mean.shape == data.observations["y"].shape
    evidence = repeat("evidence", lambda: loaded.posterior(data).evidence("elbo", 2).values)
    assert isinstance(evidence, Refused) or evidence.shape == (len(data),)
    with tempfile.TemporaryDirectory() as folder:
        attempt("save", lambda: loaded.save(folder))


@pytest.mark.parametrize(("kind", "cases"), [("fit", 40), ("ensemble", 8)])
def test_what_was_edited_and_signed_again_is_usable_or_refused(kind: str, cases: int) -> None:
    files, _, data = saved() if kind == "fit" else saved_ensemble()
    load = lr.load if kind == "fit" else lr.Ensemble.load
    came: Counter[str] = Counter()

    @settings(settings.get_profile("fuzz"), max_examples=number(cases))
    @given(st.data())
    def forge(random: st.DataObject) -> None:
        TALLY["cases"] += 1
        with tempfile.TemporaryDirectory() as folder:
            for name, content in forged(random, files).items():
                (Path(folder) / name).parent.mkdir(exist_ok=True)
                (Path(folder) / name).write_bytes(content)
            loaded = attempt("load", lambda: load(folder))
        came["refused" if isinstance(loaded, Refused) else "loaded"] += 1
        if isinstance(loaded, Refused):
            # not for the checksum: what the entries say was read
            assert "edited after it was saved" not in str(loaded.error)
            assert folder in str(loaded.error)
        else:
            usable(loaded, data)

    forge()
    assert came["refused"] > cases / 4
    assert came["loaded"] > cases / 20


@settings(settings.get_profile("fuzz"), max_examples=number(100))
@given(st.data())
def test_a_damaged_fit_loads_as_it_was_or_is_refused(random: st.DataObject) -> None:
    files, result, data = saved()
    loaded = loaded_as_it_was(random, files, lr.load, result, data)
    assert loaded is None or loaded.history == result.history


@settings(settings.get_profile("fuzz"), max_examples=number(30))
@given(st.data())
def test_a_damaged_ensemble_loads_as_it_was_or_is_refused(random: st.DataObject) -> None:
    files, ensemble, data = saved_ensemble()
    loaded_as_it_was(random, files, lr.Ensemble.load, ensemble, data)
