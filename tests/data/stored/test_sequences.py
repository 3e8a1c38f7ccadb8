"""Sequences in files: what is read is what the same arrays in memory give, and so is what is fitted."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr

import latentrnn as lr
from latentrnn.data.stored import arrays as stored_arrays
from latentrnn.data.stored import subsample
from latentrnn.inference.fitting import fit as svi

LENGTHS = (9, 4, 12, 7, 12)


def arrays(seed: int = 0) -> dict[str, Any]:
    """Ragged data with everything that `from_arrays` takes."""
    rng = np.random.default_rng(seed)
    counts = [rng.poisson(1.5, (n, 3)).astype(np.float32) for n in LENGTHS]
    for values in counts:
        values[rng.random(values.shape) < 0.2] = np.nan
    counts[0][:, 1] = np.nan
    slow = [rng.normal(size=(n // 2, 2)) for n in LENGTHS]
    shares = [rng.integers(0, 4, (n, 2)) for n in LENGTHS]
    return {
        "observations": {"y": counts, "slow": slow, "shares": shares, "label": rng.integers(0, 2, (5, 1))},
        "covariates": {"drive": [rng.normal(size=(n, 1)) for n in LENGTHS]},
        "masks": {"slow": [rng.random((n // 2, 2)) < 0.8 for n in LENGTHS]},
        "totals": {"shares": [values.sum(1) for values in shares]},
        "clocks": {"slow": 2},
        "per_sequence": ["label"],
        "times": [np.cumsum(rng.uniform(0.01, 0.3, n)) for n in LENGTHS],
        "channel_names": {"y": ["a", "b", "c"]},
        "standardise": {"slow": (0.5, 2.0)},
    }


def on_disk(given: Any, folder: Path, name: str = "array") -> Any:
    """The same, every array a file that is mapped into memory."""
    if isinstance(given, dict):
        return {key: on_disk(value, folder, f"{name}-{key}") for key, value in given.items()}
    if isinstance(given, list) and isinstance(given[0], np.ndarray):
        return [on_disk(value, folder, f"{name}-{i}") for i, value in enumerate(given)]
    if isinstance(given, np.ndarray):
        np.save(folder / f"{name}.npy", given)
        return np.load(folder / f"{name}.npy", mmap_mode="r")
    return given


def both(folder: Path) -> tuple[lr.SequenceData, lr.StoredSequences]:
    given = arrays()
    files = {k: v if k in ("clocks", "standardise") else on_disk(v, folder, k) for k, v in given.items()}
    return lr.SequenceData.from_arrays(**given), lr.StoredSequences.from_arrays(**files)


def assert_same(first: lr.SequenceData, second: lr.SequenceData) -> None:
    assert all(first.complete(name) == second.complete(name) for name in first.masks)
    for field in dataclasses.fields(first):
        if field.name in ("gapless", "constants"):  # what is known of the very tensors of each
            continue
        here, there = getattr(first, field.name), getattr(second, field.name)
        if isinstance(here, dict):
            assert here.keys() == there.keys()
            assert all(torch.equal(here[name], there[name]) for name in here), field.name
        elif isinstance(here, torch.Tensor):
            assert torch.equal(here, there), field.name
        elif isinstance(here, np.ndarray):
            assert np.array_equal(here, there), field.name
        else:
            assert here == there, field.name


@pytest.mark.parametrize("numbers", [1, 40, 2**24])
def test_what_is_read_is_what_the_arrays_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    monkeypatch.setattr(stored_arrays, "READ_AT_ONCE", numbers)  # how the scan is cut changes nothing
    data, stored = both(tmp_path)
    assert_same(data, stored.load())
    indices = torch.tensor([3, 1])
    assert_same(data.batch(indices), stored.batch(indices))
    assert_same(data.batch(indices, padded_as=torch.arange(5)), stored.batch(indices, padded_as=torch.arange(5)))
    assert_same(data[[0, 3]], stored[[0, 3]].load())
    assert_same(data.batch(indices).time_slice(2, 6), stored.in_windows().batch(indices).time_slice(2, 6))
    assert_same(data.time_slice(8, 12), stored.time_slice(8, 12))
    assert (stored.padded, stored.num_steps, len(stored)) == (True, 12, 5)
    assert repr(stored) == repr(data).replace("SequenceData", "StoredSequences")


@pytest.mark.parametrize("numbers", [1, 8, 2**20])
@pytest.mark.parametrize("lengths", [(8, 2), (2, 8), (3, 1, 9, 2)])
def test_a_slow_head_may_have_no_frame_in_some_sequences(
    monkeypatch: pytest.MonkeyPatch, numbers: int, lengths: tuple[int, ...]
) -> None:
    monkeypatch.setattr(stored_arrays, "READ_AT_ONCE", numbers)
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {
        "observations": {
            "y": [rng.normal(size=(n, 1)) for n in lengths],
            "s": [rng.normal(size=(n // 4, 1)) for n in lengths],
        },
        "clocks": {"s": 4},
    }
    data, stored = lr.SequenceData.from_arrays(**given), lr.StoredSequences.from_arrays(**given)
    assert stored.host_lengths.tolist() == list(lengths)
    assert_same(data, stored.load())


def test_equal_sequences_have_different_keys_wherever_the_pass_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_arrays, "READ_AT_ONCE", 1)
    counts = np.ones((4, 5, 2))
    data, stored = lr.SequenceData.from_arrays({"y": counts}), lr.StoredSequences.from_arrays({"y": counts})
    assert stored.keys == data.keys
    assert stored[:2].overlaps(data[1:]) == 1


def test_parts_of_a_split_are_not_read_yet() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (20, 5, 2))
    parts = lr.StoredSequences.from_arrays({"y": counts}).split(0.6, 0.2, 0.2, seed=3)
    for part, expected in zip(
        parts, lr.SequenceData.from_arrays({"y": counts}).split(0.6, 0.2, 0.2, seed=3), strict=True
    ):
        assert isinstance(part, lr.StoredSequences)
        assert_same(expected, part.load())


class Watched:
    """An array that counts how many numbers are taken out of it at once, and how often."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values, self.shape, self.largest, self.reads = values, values.shape, 0, 0
        self.sizes: list[int] = []

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, item: Any) -> Any:
        found = self.values[item]
        self.largest, self.reads = max(self.largest, found.size), self.reads + 1
        self.sizes.append(found.size)
        return found


def parts_for(data: Any) -> tuple[lr.LatentRNN, lr.Guide]:
    heads: dict[str, lr.Observation] = {"y": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(2, initial=2), observations=heads)
    return model, lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal"))


def simple(sequences: int = 10, steps: int = 30, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(steps // 2, steps + 1, sequences)
    counts = [rng.poisson(1.0, (n, 3)).astype(np.float64) for n in lengths]
    counts[1][2, 0] = np.nan
    return {"observations": {"y": counts}, "covariates": {"drive": [rng.normal(size=(n, 1)) for n in lengths]}}


def same_weights(first: lr.FitResult, second: lr.FitResult) -> bool:
    pairs = zip((first.model, first.guide), (second.model, second.guide), strict=True)
    return all(
        torch.equal(a, b)
        for x, y in pairs
        for a, b in zip(x.state_dict().values(), y.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "settings",
    [{}, {"compute": lr.Compute("cpu", window=lr.Window(8))}, {"batch_size": 100}],
    ids=["", "windows", "one"],
)
@pytest.mark.parametrize("evaluated", [(10, 30), (300, 8)])  # in one batch, and in two
def test_a_fit_to_files_is_that_to_arrays(tmp_path: Path, settings: dict[str, Any], evaluated: tuple[int, int]) -> None:
    data = lr.SequenceData.from_arrays(**simple())
    validation = lr.SequenceData.from_arrays(**simple(*evaluated, seed=1))
    stored = lr.StoredSequences.from_arrays(**on_disk(simple(), tmp_path, "train"))
    stored_validation = lr.StoredSequences.from_arrays(**on_disk(simple(*evaluated, seed=1), tmp_path, "valid"))
    plan = {
        "batch_size": 3,
        "steps": 14,
        "reporting": lr.Reporting(progress=False),
        "compute": lr.Compute(device="cpu"),
        "objective": lr.ELBO(coordinated_dropout=0.2),
    } | settings
    plan["stopping"] = lr.EarlyStopping(every=5)
    model, guide = parts_for(data)
    first = lr.fit(model, guide, data, validation, **plan)
    second = lr.fit(model, guide, stored, stored_validation, **plan)
    assert same_weights(first, second)
    assert first.used == second.used
    for name, values in first.history.items():
        # what is reported of a step may be added up in another order
        assert second.history[name] == (values if name.startswith("valid") else pytest.approx(values, rel=1e-4)), name
    assert len(first.history["validation_elbo"]) == 3


def test_a_validation_in_files_takes_no_more_at_once_than_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    batch = lr.StoredSequences.batch

    def watched(self: lr.StoredSequences, indices: torch.Tensor, **settings: Any) -> Any:
        taken.append(len(indices))
        return batch(self, indices, **settings)

    train = lr.SequenceData.from_arrays(**simple())
    validation = lr.StoredSequences.from_arrays(**simple(sequences=8, seed=1))
    monkeypatch.setattr(lr.StoredSequences, "batch", watched)
    plan: dict[str, Any] = {
        "steps": 1,
        "batch_size": 3,
        "reporting": lr.Reporting(progress=False),
        "compute": lr.Compute(device="cpu"),
    }
    lr.fit(*parts_for(train), train, validation, **plan)
    assert taken == [8]  # few numbers: all that are evaluated together in memory
    taken.clear()
    monkeypatch.setattr(subsample, "STARTING_VALUES", 8 * validation.numbers - 1)
    lr.fit(*parts_for(train), train, validation, **plan)
    assert taken == [3, 3, 2]


def test_a_fit_reads_no_more_than_a_window_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsample, "STARTING_VALUES", 16 * 40 * 4)
    rng = np.random.default_rng(0)
    counts = Watched(rng.poisson(1.0, (6, 400, 3)))
    stored = lr.StoredSequences.from_arrays({"y": counts})
    assert counts.largest == 400 * 3  # what is short is looked at in one piece
    model, guide = parts_for(stored)
    counts.sizes.clear()
    lr.fit(
        model,
        guide,
        stored,
        steps=12,
        batch_size=2,
        compute=lr.Compute(window=lr.Window(20)),
        reporting=lr.Reporting(progress=False),
    )
    # it is looked at once more whether the model goes with all of it, as by the scan
    checked, read = counts.sizes[:6], counts.sizes[6:]
    assert checked == [400 * 3] * 6
    assert max(read) == 53 * 3  # a stretch for starting values; a window has 20
    assert 12 * 2 <= len(read) - 16 <= 14 * 2


def drifting(lengths: tuple[int, ...]) -> dict[str, Any]:
    """Sequences that differ, and change from beginning to end, with two clocks and a value for each sequence."""
    rng = np.random.default_rng(0)
    levels = np.linspace(1.0, 5.0, len(lengths))
    counts = [rng.poisson(2 * a * np.linspace(0, 1, n)[:, None], (n, 2)) for a, n in zip(levels, lengths, strict=True)]
    return {
        "observations": {
            "y": counts,
            "slow": [rng.normal(size=(n // 2, 1)) for n in lengths],
            "slower": [rng.normal(size=(n // 3, 1)) for n in lengths],
            "label": levels[:, None] * [1.0, 2.0],
        },
        "masks": {"label": np.arange(2 * len(lengths)).reshape(-1, 2) % 3 > 0},
        "times": [np.arange(n) * 0.5 for n in lengths],
        "clocks": {"slow": 2, "slower": 3},
        "per_sequence": ["label"],
    }


@pytest.mark.parametrize("lengths", [(6000,), (2000, 3000, 1001), (600,) * 20, (7, 3000, 9)], ids=str)
def test_starting_values_of_long_sequences_come_from_everywhere(
    monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...]
) -> None:
    monkeypatch.setattr(subsample, "STARTING_VALUES", 5000)
    given = drifting(lengths)
    data, stored = lr.SequenceData.from_arrays(**given), lr.StoredSequences.from_arrays(**given)
    first = stored.for_start()
    assert sum(values.numel() for values in first.observations.values()) <= 5000
    assert 10 <= len(first) <= 16
    assert len(set(first.keys)) == len(first)
    rows = {key.key: row for row, key in enumerate(data.keys)}
    for index, key in enumerate(first.keys):  # each is what it says it is
        assert key.start % 6 == 0
        there = data[rows[key.key]].time_slice(key.start, key.start + first.num_steps)
        for name in ("y", "slow", "slower"):
            for found, expected in ((first.observations, there.observations), (first.masks, there.masks)):
                frames = expected[name].shape[1]
                assert torch.equal(found[name][index, :frames], expected[name][0])
                assert not first.masks[name][index, frames:].any()
    places = np.array([key.start / lengths[rows[key.key]] for key in first.keys])
    assert places.min() < 0.2
    assert places.max() > 0.7
    assert len({rows[key.key] for key in first.keys}) >= min(len(lengths), 12) - 2 * (min(lengths) < 10)
    mean = first.observations["y"][first.masks["y"]].mean()
    assert float(mean) == pytest.approx(float(data.observations["y"][data.masks["y"]].mean()), rel=0.15)
    assert torch.equal(
        first.observations["label"][first.masks["label"]], data.observations["label"][data.masks["label"]]
    )
    assert torch.equal(first.masks["label"], data.masks["label"])  # of every sequence


def test_starting_values_of_many_sequences_come_from_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsample, "STARTING_VALUES", 18 * (60 * 2 + 30 + 20 + 2))
    given = drifting((60,) * 50)
    data, stored = lr.SequenceData.from_arrays(**given), lr.StoredSequences.from_arrays(**given)
    first = stored.for_start()
    assert first.keys == data[np.linspace(0, 49, 18).astype(int)].keys
    assert torch.equal(first.masks["label"], data.masks["label"])
    monkeypatch.setattr(subsample, "STARTING_VALUES", 50 * (60 * 2 + 30 + 20 + 2))
    assert_same(data, stored.for_start())  # all that fits


def test_a_fit_starts_from_the_whole_of_a_long_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsample, "STARTING_VALUES", 2000)
    counts = drifting((6000, 5000))["observations"]["y"]
    stored = lr.StoredSequences.from_arrays({"y": counts})
    model, _ = svi.starting_point(*parts_for(stored), stored.for_start(), None)
    start = model.observations["y"].readout.baseline.detach().exp().mean()
    assert float(start) == pytest.approx(float(np.concatenate(counts).mean()), rel=0.1)
    assert float(start) > 5 * counts[0][:333].mean()  # what the beginning alone would give


def test_the_next_batch_is_read_while_this_one_is_fitted() -> None:
    counts = Watched(np.random.default_rng(0).poisson(1.0, (6, 10, 3)))
    stored = lr.StoredSequences.from_arrays({"y": counts})
    before, counts.reads = threading.active_count(), 0
    stored.expect(torch.tensor([4, 5]))
    for _ in range(10_000):  # ten seconds at most: nobody asked for the batch yet
        if counts.reads == 2:
            break
        time.sleep(0.001)
    assert counts.reads == 2
    assert stored.batch(torch.tensor([4, 5])).num_sequences == 2
    assert counts.reads == 2
    stored.batch(torch.tensor([4, 5]))  # what was handed out is not kept
    assert counts.reads == 4
    stored.close()
    assert threading.active_count() == before


@contextmanager
def in_a_file(kind: str, counts: np.ndarray, folder: Path) -> Iterator[Any]:
    """The counts as an array of a file that another library reads."""
    if kind == "zarr":
        yield zarr.create_array(folder / "data.zarr", data=counts, chunks=(2, 4, 3))
        return
    with h5py.File(folder / "data.h5", "w") as file:
        file.create_dataset("counts", data=counts, chunks=(2, 4, 3))
    with h5py.File(folder / "data.h5") as file:
        yield file["counts"]


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_arrays_of_other_libraries_are_read_as_they_are(tmp_path: Path, kind: str) -> None:
    """Whole, in batches, in stretches, and by a fit, which ends on the same bits as one of the data in memory."""
    counts = np.random.default_rng(0).poisson(1.0, (6, 10, 3))
    data = lr.SequenceData.from_arrays({"y": counts}, dt=0.01)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
    with in_a_file(kind, counts, tmp_path) as array:
        stored = lr.StoredSequences.from_arrays({"y": array}, dt=0.01)
        assert_same(data, stored.load())
        assert_same(data.batch(torch.tensor([4, 1])), stored.batch(torch.tensor([4, 1])))
        assert_same(data.time_slice(3, 7), stored.time_slice(3, 7))
        fits = [
            lr.fit(
                model,
                guide,
                each,
                seed=0,
                steps=4,
                batch_size=3,
                compute=lr.Compute(window=window, device="cpu"),
                reporting=lr.Reporting(progress=False),
            )
            for each in (data, stored)
            for window in (None, lr.Window(4))
        ]
    for first, second in ((fits[0], fits[2]), (fits[1], fits[3])):
        assert all(map(torch.equal, first.model.state_dict().values(), second.model.state_dict().values()))
    assert not torch.equal(*(fit.guide.encoder.forwards.weight_hh_l0 for fit in fits[:2]))


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "infinite": (
        {"observations": {"y": np.where(np.arange(60).reshape(5, 6, 2) == 50, np.inf, 1.0)}},
        ValueError,
        r"found inf at sequence 0, step 0, channel 0 \(sequences counted from sequence 4, steps from step 1\)",
    ),
    "other channels": ({"observations": {"y": [np.ones((3, 2)), np.ones((3, 4))]}}, ValueError, "channels"),
    "other sequences": (
        {"observations": {"y": np.ones((3, 4, 2))}, "covariates": {"x": np.ones((2, 4, 1))}},
        ValueError,
        "expected 3 sequences, found 2",
    ),
    "times that do not increase": (
        {"observations": {"y": np.ones((2, 4, 2))}, "times": np.array([[0.0, 1.0, 0.5, 2.0]] * 2)},
        ValueError,
        "increase within a sequence",
    ),
    "other steps": (
        {"observations": {"y": np.ones((3, 4, 2))}, "covariates": {"x": np.ones((3, 5, 1))}},
        ValueError,
        "expected 4 steps",
    ),
    "mask of another shape": (
        {"observations": {"y": np.ones((3, 4, 2))}, "masks": {"y": np.ones((3, 4, 1), bool)}},
        ValueError,
        "expected shape",
    ),
    "no numbers": (
        {"observations": {"y": np.ones((3, 4, 2))}, "standardise": ["y"]},
        TypeError,
        "stored data need numbers",
    ),
    "clocks that are none": (
        {"observations": {"y": np.ones((3, 4, 2))}, "clocks": -1},
        TypeError,
        "clocks: expected a dict of name to value, found int",
    ),
    "channel names without a head": (
        {"observations": {"y": np.ones((3, 4, 2))}, "channel_names": np.array(["a", "b"])},
        TypeError,
        "channel_names: expected a dict of name to value, found ndarray",
    ),
    "feature names of nothing": (
        {"observations": {"y": np.ones((3, 4, 2))}, "feature_names": {"x": ["a"]}},
        ValueError,
        "feature_names: expected a covariate among",
    ),
    "no head": ({"observations": {}}, ValueError, "at least one head"),
    "no sequence": (
        {"observations": {"y": np.zeros((0, 5, 2))}},
        ValueError,
        r"^observations\['y'\]: expected at least one sequence, found none$",
    ),
    "no sequence in a list": ({"observations": {"y": []}}, ValueError, "expected at least one sequence, found none"),
    "no frame in any sequence": (
        {"observations": {"y": np.ones((3, 3, 1)), "s": np.ones((3, 0, 1))}, "clocks": {"s": 4}},
        ValueError,
        r"^observations\['s'\]: expected at least one frame, found none in any sequence$",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_in_files_is_found_at_the_door(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_arrays, "READ_AT_ONCE", 1)
    given, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        lr.StoredSequences.from_arrays(**given)


def test_support_is_checked_in_all_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.ones((5, 6, 2))
    stored = lr.StoredSequences.from_arrays({"y": counts})
    model, guide = parts_for(stored)
    with pytest.raises(ValueError, match="stored data have too many of"):
        lr.fit(model, lr.Guide(model, family=lr.PerSequence(lr.MeanField())), stored, steps=1)
    counts[4, 0, 0] = -1.0
    monkeypatch.setattr(stored_arrays, "READ_AT_ONCE", 1)
    with pytest.raises(ValueError, match=r"non-negative integers.*counted from sequence 4\)"):
        lr.fit(model, guide, lr.StoredSequences.from_arrays({"y": counts}), steps=1)
    with pytest.raises(TypeError, match="found StoredSequences"):
        lr.Posterior(model, guide, stored)  # type: ignore[arg-type]
