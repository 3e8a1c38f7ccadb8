"""`from_arrays` and what can be done with data once they are in: every view keeps what it should and nothing else."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st

import latentrnn as lr
from tests.fuzz.cases import arrays
from tests.fuzz.conftest import number
from tests.fuzz.rule import TALLY, Refused, attempt, expect


def check(data: Any, shortest: int = 1) -> None:
    """Look at a data set as a whole, whose sequences have at least so many steps."""
    if isinstance(data, Refused):
        return
    assert len(data) >= 1
    assert data.num_steps >= 1
    assert int(data.lengths.max()) <= max(data.num_steps, 1)
    assert (data.lengths >= shortest).all()
    assert (data.context <= data.lengths).all()
    assert len(data.keys) == len(data.names) == len(data)
    for name, spec in data.spec.heads.items():
        steps = (data.num_steps // spec.clock,) if spec.per_step else ()
        expect(name, data.observations[name], (len(data), *steps, spec.channels))
        assert data.masks[name].shape == data.observations[name].shape
        if spec.per_step:
            inside = torch.arange(steps[0]) < (data.lengths // spec.clock)[:, None]
            assert not bool(data.masks[name][~inside].any()), "something is observed in padding"
        assert not bool((data.scored(name) & ~data.masks[name]).any())
    for name, spec in data.spec.covariates.items():
        expect(name, data.covariates[name], (len(data), data.num_steps, spec.features))
        assert not bool(data.covariates[name][~data.valid].any()), "a covariate holds something in padding"
    if data.times is not None:
        assert data.times.dtype == torch.float64
        gaps = data.times.diff(dim=1)[data.valid[:, 1:]]
        assert bool((gaps > 0).all()), "times do not increase"
    assert repr(data)


def sum_of(data: lr.SequenceData) -> dict[str, float]:
    """Return the sum of all observed entries by head, which no reordering changes."""
    return {name: float(value[data.masks[name]].double().sum()) for name, value in data.observations.items()}


def same_sums(parts: list[lr.SequenceData], whole: lr.SequenceData) -> None:
    sums, expected = [sum_of(part) for part in parts], sum_of(whole)
    for name, total in expected.items():
        found = sum(part[name] for part in sums)
        assert np.isclose(found, total, rtol=1e-5, atol=1e-6 * max(1.0, abs(total))), (name, found, total)


def batches(data: lr.SequenceData, random: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(0) if random.draw(st.booleans()) else None
    size = random.draw(st.integers(1, 6))
    found = attempt("batches", lambda: list(data.batches(size, generator=generator)))
    for batch in found:
        check(batch)
    same_sums(found, data)


def time_slice(data: lr.SequenceData, random: st.DataObject) -> None:
    start, stop = random.draw(st.integers(-9, 9)), random.draw(st.integers(-9, 9))
    found = attempt(f"time_slice({start}, {stop})", lambda: data.time_slice(start, stop))
    check(found, shortest=0)  # of those that ended before nothing is left, and they stay in their place
    if not isinstance(found, Refused):
        stop = min(stop, data.num_steps)
        assert found.num_steps == stop - start
        assert found.lengths.tolist() == [min(max(length - start, 0), stop - start) for length in data.lengths.tolist()]
        for name, spec in data.spec.heads.items():
            frames = slice(start // spec.clock, stop // spec.clock) if spec.per_step else slice(None)
            assert torch.equal(found.masks[name], data.masks[name][:, frames]), name
            assert torch.equal(found.observations[name], data.observations[name][:, frames]), name


def split(data: lr.SequenceData, random: st.DataObject) -> None:
    parts = random.draw(st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.3, 0.3, 0.3)]))
    along, context = random.draw(st.sampled_from(["sequence", "time"])), random.draw(st.integers(0, 3))
    found = attempt(
        "split", lambda: data.split(*parts, seed=random.draw(st.integers(0, 9)), along=along, context=context)
    )
    for part in () if isinstance(found, Refused) else found:
        if part is not None:
            check(part)


def windows(data: lr.SequenceData, random: st.DataObject) -> None:
    length, context = random.draw(st.integers(1, 8)), random.draw(st.integers(0, 3))
    check(attempt("windows", lambda: data.windows(length, context=context)))


def index(data: lr.SequenceData, random: st.DataObject) -> None:
    item = random.draw(
        st.one_of(
            st.integers(-6, 6),
            st.slices(6),
            st.lists(st.integers(-6, 6), max_size=4),
            st.lists(st.booleans(), max_size=6),
        )
    )
    check(attempt(f"index {item!r}", lambda: data[item]))


def select(data: lr.SequenceData, random: st.DataObject) -> None:
    names = [*data.spec.heads, "typo"]
    check(attempt("select", lambda: data.select(heads=random.draw(st.lists(st.sampled_from(names), max_size=2)))))


def travel(data: lr.SequenceData, random: st.DataObject) -> None:
    for name in data.spec.heads:
        data.complete(name)
    for other in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        check(other)
        same_sums([other], data)
        assert other.keys == data.keys


def convert(data: lr.SequenceData, random: st.DataObject) -> None:
    check(attempt("to", lambda: data.to(dtype=random.draw(st.sampled_from([torch.float32, torch.float64])))))


def xarray(data: lr.SequenceData, random: st.DataObject) -> None:
    """What is labelled is what there is, and NaN elsewhere."""
    found = attempt("to_xarray", data.to_xarray)
    assert not isinstance(found, Refused), found
    labelled = {name: torch.where(data.masks[name], value, torch.nan) for name, value in data.observations.items()} | {
        name: torch.where(data.valid[..., None], value, torch.nan) for name, value in data.covariates.items()
    }
    for name, head in data.spec.heads.items():
        if name in data.totals:
            frames = torch.arange(data.totals[name].shape[1]) < (data.lengths // head.clock)[:, None]
            labelled[f"{name}_total"] = torch.where(frames, data.totals[name], torch.nan)
    if data.times is not None:
        np.testing.assert_array_equal(found["seconds"], torch.where(data.valid, data.times, torch.nan))
    assert set(found.data_vars) == set(labelled)
    for name, value in labelled.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for name, head in data.spec.heads.items():
        assert found[name].dims[0] == "sequence"
        assert found[name].dims[-1] == f"{name}_channel"
        assert found[f"{name}_channel"].values.tolist() == list(head.channel_names)
        if head.per_step:
            steps = found[found[name].dims[1]].values
            np.testing.assert_allclose(steps, np.arange(len(steps)) * head.clock * (data.spec.dt or 1.0), rtol=1e-12)
    assert found["sequence"].values.tolist() == list(data.names)
    assert found["num_steps"].values.tolist() == data.lengths.tolist()
    assert found["context_steps"].values.tolist() == data.context.tolist()


def again(data: lr.SequenceData, random: st.DataObject) -> None:
    assert data.overlaps(data) == len(data) or bool((data.context > 0).any())
    check(attempt("without", lambda: data.without(data)))


def hide(data: lr.SequenceData, random: st.DataObject) -> None:
    name = next(iter(data.spec.heads))
    hidden = torch.rand(data.masks[name].shape, generator=torch.Generator().manual_seed(1)) < 0.5
    found = attempt("mask_entries", lambda: data.mask_entries(name, hidden))
    check(found)
    if not isinstance(found, Refused):
        assert not bool((found.masks[name] & hidden).any())


VIEWS: list[Callable[[lr.SequenceData, st.DataObject], None]] = [
    batches, time_slice, split, windows, index, select, travel, convert, xarray, again, hide,
]  # fmt: skip


@settings(settings.get_profile("fuzz"), max_examples=number(150))
@given(st.data())
def test_every_view_of_data_is_sane_or_refused(random: st.DataObject) -> None:
    TALLY["cases"] += 1
    options, _, said = random.draw(arrays())
    note(said)
    data = attempt("from_arrays", lambda: lr.SequenceData.from_arrays(**options))
    if isinstance(data, Refused):
        return
    check(data)
    for view in random.draw(st.lists(st.sampled_from(VIEWS), min_size=2, max_size=5)):
        view(data, random)


@settings(settings.get_profile("fuzz"), max_examples=number(60))
@given(st.data())
def test_stored_data_are_those_in_memory(random: st.DataObject) -> None:
    TALLY["cases"] += 1
    options, _, said = random.draw(arrays())
    note(said)
    options.pop("standardise", None)
    here = attempt("from_arrays", lambda: lr.SequenceData.from_arrays(**options))
    there = attempt("stored", lambda: lr.StoredSequences.from_arrays(**options))
    if isinstance(here, Refused) or isinstance(there, Refused):
        return
    assert repr(there)
    same(here, attempt("load", there.load))
    chosen = random.draw(st.lists(st.integers(-1, len(here) - 1), min_size=1, max_size=4))
    start, stop = random.draw(st.integers(0, 5)), random.draw(st.integers(0, 9))
    seed = random.draw(st.integers(0, 9))
    asked: dict[str, Callable[[Any], list[Any]]] = {
        f"index {chosen}": lambda data: [data[chosen]],
        f"time_slice({start}, {stop})": lambda data: [data.time_slice(start, stop)],
        f"batch {chosen}": lambda data: [data.batch(torch.tensor(chosen) % len(data))],
        f"split by {seed}": lambda data: list(data.split(0.6, 0.2, 0.2, seed=seed)),
        "select": lambda data: [data.select(heads=["y"])],
    }
    for what, ask in asked.items():
        of_memory, of_files = (attempt(what, lambda ask=ask, data=data: ask(data)) for data in (here, there))
        assert isinstance(of_memory, Refused) == isinstance(of_files, Refused), (what, of_memory, of_files)
        for one, other in () if isinstance(of_memory, Refused) else zip(of_memory, of_files, strict=True):
            same(one, other.load() if isinstance(other, lr.StoredSequences) else other)
    there.close()


def same(one: lr.SequenceData, other: lr.SequenceData) -> None:
    """Look at data that were read, which must be those in memory to the bit."""
    check(other, shortest=0)
    assert one.spec == other.spec
    assert (one.keys, one.names, one.total, one.num_steps) == (other.keys, other.names, other.total, other.num_steps)
    for part in ("observations", "masks", "covariates", "totals"):
        found, expected = getattr(other, part), getattr(one, part)
        assert found.keys() == expected.keys(), part
        for name, value in expected.items():
            assert found[name].dtype == value.dtype, (part, name)
            assert torch.equal(found[name], value), (part, name)
    for part in ("lengths", "context", "times", "indices"):
        found, expected = getattr(other, part), getattr(one, part)
        assert (found is None) == (expected is None), part
        assert expected is None or torch.equal(found, expected), part


@settings(settings.get_profile("fuzz"), max_examples=number(80))
@given(st.data())
def test_no_spike_is_lost(random: st.DataObject) -> None:
    TALLY["cases"] += 1
    rng = np.random.default_rng(random.draw(st.integers(0, 2**16)))
    dt = random.draw(st.sampled_from([0.001, 0.01, 1.0, 1e-4, 1 / 30]))
    steps, start = random.draw(st.integers(1, 200)), random.draw(st.sampled_from([0.0, -1.5, 1e4, 1.7e9]))
    kind = random.draw(st.sampled_from(["grid", "anywhere"]))
    places = np.sort(rng.integers(0, steps, 30))
    if kind == "grid":
        times = start + places * dt
    else:
        times = start + (places + rng.uniform(0.2, 0.8, 30)) * dt
    note({"dt": dt, "steps": steps, "start": start, "kind": kind})
    data = attempt(
        "from_spike_times",
        lambda: lr.SequenceData.from_spike_times([[times]], dt=dt, duration=steps * dt, start=start),
    )
    if isinstance(data, Refused):
        assert start == 1.7e9, data  # only there can a bin be finer than the clock's digits
        return
    expected = np.bincount(places, minlength=steps)
    found = data.observations["spikes"][0, :, 0].numpy()
    assert found.sum() == 30
    if start < 1e9 or dt >= 1e-3:
        assert (found == expected).all(), (found, expected)


def _noise(rng: np.random.Generator, choice: str) -> Any:
    return {
        "list of lists": [[[1.0, 2.0], [3.0, 4.0]]],
        "no sequences": np.zeros((0, 3, 1)),
        "no steps": np.zeros((2, 0, 1)),
        "no channels": np.zeros((2, 3, 0)),
        "two axes": np.zeros((4, 3)),
        "four axes": np.zeros((2, 3, 1, 1)),
        "complex": np.zeros((2, 3, 1), complex),
        "objects": np.array([[[None]]]),
        "strings": [[["a"]]],
        "infinite": np.full((2, 3, 1), np.inf),
        "all missing": np.full((2, 3, 1), np.nan),
        "huge": np.full((2, 3, 1), 1e300),
        "booleans": np.ones((2, 3, 1), bool),
        "bytes": np.ones((2, 3, 1), np.uint8),
        "half": torch.ones(2, 3, 1, dtype=torch.bfloat16),
        "with grad": torch.ones(2, 3, 1, requires_grad=True),
        "sparse": torch.ones(2, 3, 1).to_sparse(),
        "meta": torch.ones(2, 3, 1, device="meta"),
        "masked": np.ma.masked_greater(rng.normal(size=(2, 3, 1)), 0.5),
        "none": None,
        "number": 3.0,
        "text": "spikes",
        "dict": {"a": 1},
        "ragged channels": [np.zeros((3, 1)), np.zeros((3, 2))],
        "fortran": np.asfortranarray(rng.normal(size=(2, 3, 2))),
        "negative stride": rng.normal(size=(2, 6, 1))[:, ::-2],
        "big endian": rng.normal(size=(2, 3, 1)).astype(">f8"),
        "dates": np.zeros((2, 3, 1), "datetime64[s]"),
        "good": rng.normal(size=(2, 3, 1)),
    }[choice]


STRANGE = (
    "list of lists", "no sequences", "no steps", "no channels", "two axes", "four axes", "complex", "objects",
    "strings", "infinite", "all missing", "huge", "booleans", "bytes", "half", "with grad", "sparse", "meta",
    "masked", "none", "number", "text", "dict", "ragged channels", "fortran", "negative stride", "big endian",
    "dates", "good",
)  # fmt: skip


@settings(settings.get_profile("fuzz"), max_examples=number(150))
@given(st.data())
def test_strange_arrays_are_taken_or_refused(random: st.DataObject) -> None:
    TALLY["cases"] += 1
    rng = np.random.default_rng(random.draw(st.integers(0, 2**16)))
    first, second = random.draw(st.sampled_from(STRANGE)), random.draw(st.sampled_from(STRANGE))
    options: dict[str, Any] = {"observations": {"y": _noise(rng, first)}}
    place = random.draw(st.sampled_from(["covariate", "mask", "times", "totals", "second head", "nothing"]))
    note((first, place, second))
    if place == "covariate":
        options["covariates"] = {"x": _noise(rng, second)}
    elif place == "mask":
        options["masks"] = {"y": _noise(rng, second)}
    elif place in ("times", "totals"):
        value = _noise(rng, second)
        value = value[..., 0] if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[-1] else value
        options[place] = value if place == "times" else {"y": value}
    elif place == "second head":
        options["observations"]["z"] = _noise(rng, second)
    for make in (lr.SequenceData.from_arrays, lr.StoredSequences.from_arrays):
        found = attempt(make.__qualname__, lambda make=make: make(**options))
        if isinstance(found, lr.StoredSequences):
            found = attempt("load", found.load)
            assert not isinstance(found, Refused), found
        check(found)
