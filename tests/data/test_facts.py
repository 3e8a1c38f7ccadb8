"""What a data set finds out about its own tensors once must hold for batches, never for tensors that changed."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.oracles import poisson_log_prob

RAGGED = [np.ones((5, 2)), np.ones((3, 2))]
HOLED = np.ones((3, 4, 2))
HOLED[1, 2, 0] = np.nan


@pytest.mark.parametrize(
    ("observations", "expected"), [(np.ones((3, 4, 2)), True), (RAGGED, False), (HOLED, False)], ids=str
)
def test_completeness(observations: object, expected: bool) -> None:
    data = lr.SequenceData.from_arrays({"y": observations})
    assert data.complete("y") is expected
    # rows by themselves are as complete as their masks say, whether or not the whole is
    for row in range(len(data)):
        part = data[row]
        assert part.complete("y") is bool(part.masks["y"].all()) or part.spec.heads["y"].missing
        assert not part.complete("y") or bool(part.scored("y").all())


def test_completeness_is_forgotten_with_the_mask() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((3, 4, 2))})
    assert data.complete("y")
    assert data.batch(torch.tensor([2, 0])).complete("y")
    hide = torch.zeros(3, 4, 2, dtype=torch.bool)
    hide[1, 1, 1] = True
    assert not data.mask_entries("y", hide).complete("y")
    assert not dataclasses.replace(data, masks={"y": ~hide}).complete("y")
    assert not data.windows(2, context=1).complete("y")  # the context is not scored
    assert data.to(dtype=torch.float64).complete("y")


def test_joined_sessions_are_incomplete() -> None:
    one = lr.SequenceData.from_arrays({"y": np.ones((2, 4, 2))}, dt=0.01)
    joined = lr.SequenceData.join({"a": one, "b": lr.SequenceData.from_arrays({"y": np.zeros((1, 4, 3))}, dt=0.01)})
    assert not any(joined.complete(name) for name in joined.observations)


@pytest.mark.parametrize("masked", [False, True])
def test_constants_of_batches_are_those_of_their_rows(masked: bool) -> None:
    """Log-factorials are summed once for all rows; batches, replaced values and copies score as SciPy does."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (6, 4, 2)).astype(float)
    if masked:
        counts[rng.uniform(size=counts.shape) < 0.3] = np.nan
    data = lr.SequenceData.from_arrays({"y": counts}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.InitialState(2), observations={"y": lr.Poisson()}
    ).double()
    head = model.observations["y"]
    data = head.prepare(data)  # the constants of all rows are known from here on
    assert head.inputs(data.batch(torch.tensor([1]))).constant is not None
    rows = torch.tensor([4, 1, 5])
    states = torch.as_tensor(rng.normal(size=(3, 4, 3)))
    other = data.with_observations({"y": data.observations["y"] + 1})
    for whole in (data, other):
        batch = whole.batch(rows)
        law = head(states, head.inputs(batch))
        eta = head.predictor(states, head.inputs(batch), None).detach().numpy()
        y, missing = batch.observations["y"].numpy(), ~batch.masks["y"].numpy()
        expected = [poisson_log_prob(y[n], np.exp(eta[n]), missing[n]) for n in range(3)]
        for value in (batch.observations["y"], batch.observations["y"].clone()):
            assert law.log_prob(value).tolist() == pytest.approx(expected, abs=1e-10)


def test_data_that_are_written_into_all_the_same_are_looked_at_anew() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (4, 5, 2)).astype(float)

    def log_prob(data: lr.SequenceData) -> list[float]:
        law = head(torch.zeros(len(data), 5, 3, dtype=torch.float64), head.inputs(data))
        return law.log_prob(data.observations["y"]).tolist()

    data = lr.SequenceData.from_arrays({"y": counts}, dtype=torch.float64)
    parts = {"transition": lr.GRU(3), "latent": lr.InitialState(2), "observations": {"y": lr.Poisson()}}
    model = lr.LatentRNN(data.spec, **parts).double()
    head = model.observations["y"]
    data = head.prepare(data)
    log_prob(data)
    assert data.complete("y")
    data.observations["y"] = data.observations["y"] * 3  # another tensor
    expected = log_prob(lr.SequenceData.from_arrays({"y": 3 * counts}, dtype=torch.float64))
    assert log_prob(data) == expected
    assert log_prob(data.batch(torch.tensor([2, 0]))) == [expected[2], expected[0]]
    data = head.prepare(data)
    data.observations["y"] += 1  # the same, with other values
    expected = log_prob(lr.SequenceData.from_arrays({"y": 3 * counts + 1}, dtype=torch.float64))
    assert log_prob(data.batch(torch.tensor([1]))) == [expected[1]]
    assert log_prob(data) == expected
    data.masks["y"][0, 1, 1] = False
    assert not data.complete("y")
    assert not data.batch(torch.tensor([0])).complete("y")
    assert log_prob(data)[0] > expected[0]
    assert log_prob(data)[1:] == expected[1:]


class Knowing(lr.Poisson):
    """Counts whether log-factorials were known at each evaluation."""

    known: list[bool] = []  # noqa: RUF012

    def inputs(self, data: lr.SequenceData) -> Any:
        found = super().inputs(data)
        self.known.append(found.constant is not None)
        return found


@pytest.mark.parametrize("fit", ["alone", "vectorised", "start_from"])
@pytest.mark.parametrize("batch_size", [2, 6])
def test_training_batches_know_what_was_found_once(fit: str, batch_size: int) -> None:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).poisson(3.0, (6, 4, 2)).astype(float)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": Knowing()})
    settings = {"steps": 3, "batch_size": batch_size, "reporting": lr.Reporting(progress=False)}
    guide = lr.Guide(model)
    first = lr.fit(model, guide, data, **settings) if fit == "start_from" else None
    Knowing.known.clear()
    if fit == "vectorised":
        lr.fit_ensemble(model, guide, data, seeds=(0, 1), vectorised=True, **settings)
    else:
        lr.fit(model, guide, data, start_from=first, **settings)
    assert Knowing.known
    assert all(Knowing.known)


def test_a_head_that_prepares_the_data_itself_can_be_fitted() -> None:
    class Former(lr.Poisson):
        def prepare(self, data: lr.SequenceData) -> None:  # type: ignore[override]
            """As heads did in the first release."""

    data = lr.SequenceData.from_arrays({"y": np.ones((3, 4, 2))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": Former()})
    assert lr.fit(model, lr.Guide(model), data, steps=2, reporting=lr.Reporting(progress=False)).history["step"]


def through_numpy(mask: torch.Tensor) -> None:
    mask.numpy()[0, ..., 0] = False


def through_data(mask: torch.Tensor) -> None:
    mask.data[0, ..., 0] = False


@pytest.mark.parametrize("write", [through_numpy, through_data])
@pytest.mark.parametrize("kind", ["whole", "ragged", "slower clock", "per sequence"])
def test_masks_written_into_past_torchs_notice_are_refused(write: Any, kind: str) -> None:
    """Else entries that somebody hid would be scored."""
    shapes = {"whole": [(4, 2)] * 3, "ragged": [(4, 2), (2, 2), (3, 2)], "slower clock": [(2, 2), (2, 2), (1, 2)]}
    rows = [np.ones(shape) for shape in shapes.get(kind, [(2,)] * 3)]
    base = [np.ones((len(row) * 2, 1)) for row in rows] if kind == "slower clock" else None
    observations: dict[str, Any] = {"y": rows}
    if kind == "slower clock":
        observations["base"] = base
    if kind == "per sequence":
        observations["base"] = [np.ones((3, 1))] * 3
    data = lr.SequenceData.from_arrays(
        observations,
        clocks={"y": 2} if kind == "slower clock" else None,
        per_sequence=["y"] if kind == "per sequence" else (),
    )
    heads = {name: lr.Poisson() for name in observations}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    model.check(data)  # as they were made
    model.check(data[1:])
    write(data.masks["y"])
    with pytest.raises(ValueError, match=r"masks\['y'\]: it was written into .* use data.mask_entries\('y', hide\)"):
        model.check(data)


def test_what_is_known_of_tensors_does_not_keep_them() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((3, 4, 2))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    data = model.observations["y"].prepare(data)
    assert data.constant("y") is not None
    values, mask = weakref.ref(data.observations["y"]), weakref.ref(data.masks["y"])
    other = data.to(dtype=torch.float64).mask_entries("y", torch.zeros(3, 4, 2, dtype=torch.bool))
    del data
    gc.collect()
    assert values() is None
    assert mask() is None
    assert other.constant("y") is None


def test_data_that_an_earlier_version_pickled_can_be_used() -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((3, 4, 2))})
    state = {name: value for name, value in data.__getstate__().items() if name not in ("gapless", "constants")}
    earlier = object.__new__(lr.SequenceData)
    earlier.__setstate__(state)
    assert len(earlier[:2]) == 2
    assert earlier.complete("y")
