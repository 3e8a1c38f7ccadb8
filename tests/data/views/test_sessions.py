"""Sessions with channels of their own as one data set: nothing is lost, and nothing is made up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from latentrnn.data import DataSpec, SequenceData
from tests.data.examples import CLOCK, LENGTHS, ragged


def session(channels: int, lengths: tuple[int, ...], *, seed: int = 0, **options: object) -> SequenceData:
    random = np.random.default_rng(seed)
    return SequenceData.from_arrays(
        {
            "counts": [random.poisson(2.0, (length, channels)) for length in lengths],
            "slow": [random.normal(size=(length // CLOCK, 2)) for length in lengths],
            "label": random.integers(0, 2, (len(lengths), 1)),
        },
        {"stimulus": [random.normal(size=(length, 2)) for length in lengths]},
        clocks={"slow": CLOCK},
        per_sequence=["label"],
        **{"dt": 0.01, **options},
    )


def joined(**options: object) -> SequenceData:
    return SequenceData.join({"a": ragged(), "b": session(5, (15, 4), seed=1)}, **options)


def test_every_session_comes_back_as_it_was() -> None:
    parts = {"a": ragged(), "b": session(5, (15, 4), seed=1)}
    data = SequenceData.join(parts)
    assert data.sessions == ("a",) * 8 + ("b",) * 2
    assert data.names == tuple(f"a/{i}" for i in range(8)) + ("b/0", "b/1")
    assert (data.total, data.num_steps, data.host_lengths.tolist()) == (10, 15, [*LENGTHS, 15, 4])
    for name, part in parts.items():
        found = data.session(name)
        assert found.keys == part.keys
        assert torch.equal(found.valid, part.valid)
        assert torch.equal(found.covariates["stimulus"][part.valid], part.covariates["stimulus"][part.valid])
        for head, mask in part.masks.items():
            assert torch.equal(found.masks[f"{head}_{name}"], mask)
            assert torch.equal(found.observations[f"{head}_{name}"][mask], part.observations[head][mask])
    totals, valid = data.session("a").totals["counts_a"], parts["a"].valid
    assert torch.equal(totals[valid], parts["a"].totals["counts"][valid])
    assert data.overlaps(parts["a"]) == 8


def test_nothing_of_a_session_is_observed_in_the_others() -> None:
    data = joined()
    for head in ("counts", "slow", "label"):
        assert not data.session("a").masks[f"{head}_b"].any()
        assert not data.session("b").masks[f"{head}_a"].any()
        # and that is nothing missing: what counts is what a session misses of its own channels
        assert data.spec.heads[f"{head}_a"].missing == ragged().spec.heads[head].missing
        assert not data.spec.heads[f"{head}_b"].missing
        # what stands in for it is a value that the head did take
        filled = data.session("b").observations[f"{head}_a"].unique().tolist()
        assert set(filled) <= set(data.observations[f"{head}_a"][data.masks[f"{head}_a"]].tolist())
    assert data.spec.session_heads("counts") == {"a": "counts_a", "b": "counts_b"}
    assert DataSpec.from_json(data.spec.to_json()) == data.spec


def test_one_session_keeps_what_it_misses() -> None:
    data = SequenceData.join({"a": ragged()})
    assert data.spec.heads["counts_a"].missing
    assert not data.masks["counts_a"][data.valid].all()


def test_shared_heads_keep_their_name_and_stay_complete() -> None:
    data = joined(shared=["slow"])
    assert list(data.observations) == ["slow", "counts_a", "label_a", "counts_b", "label_b"]
    assert not data.spec.heads["slow"].missing
    assert data.spec.heads["slow"].session is None
    part, found = session(5, (15, 4), seed=1), data.session("b")
    mask = part.masks["slow"]
    assert torch.equal(found.masks["slow"], mask)
    assert torch.equal(found.observations["slow"][mask], part.observations["slow"][mask])


def test_sessions_travel_with_their_sequences() -> None:
    data = joined()
    assert data[[9, 0]].sessions == ("b", "a")
    assert data.batch(torch.tensor([8, 1])).sessions == ("b", "a")
    parts = data.split(0.5, 0.3, 0.2, seed=0, stratify=data.sessions)
    assert {name for part in parts for name in part.names} == set(data.names)
    windows = data.select(heads=["counts_a", "counts_b"]).windows(5)
    assert windows.sessions == tuple(name.partition("/")[0] for name in windows.names)
    assert data.to(dtype=torch.float64).sessions == data.sessions
    assert ragged().sessions is None


def test_times_of_their_own_go_on() -> None:
    short, long = ragged(irregular=True), ragged(irregular=True, seed=1)[2:3]
    data = SequenceData.join({"a": short.time_slice(0, 6), "b": long})
    assert data.times is not None
    assert (data.times.diff(dim=1) > 0).all()
    assert torch.equal(data.times[:8, :6], short.times[:, :6])
    assert torch.equal(data.times[8], long.times[0])


def test_equal_sequences_of_two_sessions_are_two() -> None:
    silent = SequenceData.from_arrays({"counts": np.zeros((2, 5, 3))})
    assert len({key.key for key in SequenceData.join({"a": silent, "b": silent}).keys}) == 4


def small(**options: object) -> SequenceData:
    observations = {"y": np.arange(12.0).reshape(1, 6, 2) + 1}
    return SequenceData.from_arrays(observations, {"x": np.arange(6.0).reshape(1, 6, 1)}, **options)


def join(other: SequenceData, **options: object) -> Callable[[], object]:
    return lambda: SequenceData.join({"a": small(), "b": other}, **options)


WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a list": (lambda: SequenceData.join([small()]), TypeError, "expected a dict of session name"),  # type: ignore[arg-type]
    "nothing": (lambda: SequenceData.join({}), ValueError, "at least one session"),
    "arrays": (lambda: SequenceData.join({"a": np.ones(3)}), TypeError, r"sessions\['a'\]: expected SequenceData"),  # type: ignore[dict-item]
    "a number as name": (lambda: SequenceData.join({1: small()}), TypeError, "strings as session names"),  # type: ignore[dict-item]
    "a blank in a name": (lambda: SequenceData.join({"my b": small()}), ValueError, "letters, digits"),
    "other steps": (join(small(dt=0.1)), ValueError, r"sessions\['b'\]: expected dt None .* found 0.1"),
    "other type": (join(small(dtype=torch.float64)), ValueError, "expected dtype torch.float32"),
    "other covariates": (join(small().select(covariates=[])), ValueError, r"expected covariates \['x'\]"),
    "other units": (join(small(standardise=["x"])), ValueError, r"covariates\['x'\].location: .*standardise all"),
    "a batch": (join(small().batch(torch.tensor([0]))), ValueError, "found a batch"),
    "joined twice": (join(SequenceData.join({"c": small()})), ValueError, "joined already"),
    "nothing to share": (join(small(), shared=["z"]), ValueError, "shared: expected an observation head"),
    "no such session": (lambda: SequenceData.join({"a": small()}).session("b"), ValueError, "found 'b'"),
    "not joined": (lambda: small().session("a"), ValueError, "expected a session"),
    "no head of their own": (lambda: small().spec.session_heads("y"), ValueError, "expected a head"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together_is_refused(case: str) -> None:
    act, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        act()


def test_two_heads_of_one_name_are_refused() -> None:
    one = SequenceData.from_arrays({"y_c": np.ones((1, 5, 1))})
    other = SequenceData.from_arrays({"y": np.ones((1, 5, 1))})
    with pytest.raises(ValueError, match="second head 'y_c_b'"):
        SequenceData.join({"b": one, "c_b": other})
    with pytest.raises(ValueError, match=r"shared: expected 'y' in every session, found none in \['b'\]"):
        SequenceData.join({"b": one, "c": other}, shared=["y"])
