"""What `fit` was told by separate arguments goes on working, and a fit that was begun by them can be gone on with."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr

COUNTS = [np.arange(2.0 * n).reshape(n, 2) * (3 + k) % 5 for k, n in enumerate((4, 6, 5, 4, 6, 5, 4, 6))]
DATA = lr.SequenceData.from_arrays({"y": COUNTS}, dt=0.01)
BEGUN = Path(__file__).parent / "begun_by_0_1"  # written by version 0.1.0 before its step 7

FORMER: dict[str, Any] = {
    "num_particles": 2,
    "optimiser": lr.AdamW(0.01, weight_decay=0.01, averaging=0.9),
    "learning_rate_schedule": lr.Plateau(1),
    "kl": lr.KLWarmUp(0.3),
    "coordinated_dropout": 0.2,
    "head_weights": {"y": 1.5},
    "device": "cpu",
    "progress": False,
    "report_every": 2,
}
PRESENT: dict[str, Any] = {
    "objective": lr.ELBO(num_particles=2, kl=lr.KLWarmUp(0.3), coordinated_dropout=0.2, head_weights={"y": 1.5}),
    "optimizer": lr.AdamW(0.01, weight_decay=0.01, averaging=0.9, schedule=lr.Plateau(1)),
    "compute": lr.Compute("cpu"),
    "reporting": lr.Reporting(progress=False, every=2),
}
SHARED: dict[str, Any] = {"steps": 12, "batch_size": 2, "stopping": lr.EarlyStopping(every=2)}


def parts() -> tuple[Any, ...]:
    model = lr.LatentRNN(DATA.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()})
    return model, lr.Guide(model, encoder=lr.RNNEncoder(2)), DATA[:6], DATA[6:]


def assert_same(found: lr.FitResult, expected: lr.FitResult) -> None:
    for one, other in ((found.model, expected.model), (found.guide, expected.guide)):
        for name, value in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], value), name
    assert (found.history, found.settings, found.best_step) == (expected.history, expected.settings, expected.best_step)


def test_former_arguments_are_the_present_ones(tmp_path: Path) -> None:
    present = lr.fit(*parts(), **SHARED, **PRESENT)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        former = lr.fit(*parts(), **SHARED, **FORMER, checkpoint=tmp_path, checkpoint_every=0.0, resume=True)
    assert_same(former, present)
    said = [str(item.message) for item in seen if item.category is DeprecationWarning]
    for name in (*FORMER, "checkpoint", "checkpoint_every", "resume"):
        assert any(text.startswith(f"fit: {name}= is a former name") for text in said), name
    assert len(list(tmp_path.glob("fit-*.safetensors"))) == 2


@pytest.mark.filterwarnings("ignore:fit.*is a former name:DeprecationWarning")
def test_former_arguments_of_no_use_are_refused() -> None:
    with pytest.raises(ValueError, match="resume=True needs a folder"):
        lr.fit(*parts(), resume=True)
    with pytest.raises(ValueError, match=r"objective=IWAE.* has no head_weights"):
        lr.fit(*parts(), objective=lr.IWAE(), head_weights={"y": 2.0})


def test_an_ensemble_takes_former_arguments_too() -> None:
    *given, _ = parts()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        former = lr.fit_ensemble(*given, seeds=[3], together=False, **SHARED, **FORMER)
    assert any("together= is a former name" in str(item.message) for item in seen)
    assert_same(former.members[0], lr.fit(*given, seed=3, **SHARED, **PRESENT))


def test_a_fit_that_was_begun_by_former_arguments_is_gone_on_with(tmp_path: Path) -> None:
    shutil.copytree(BEGUN, tmp_path / "fit")
    found = lr.fit(*parts(), **SHARED, **PRESENT, checkpointing=lr.Checkpointing(tmp_path / "fit", resume=True))
    expected = lr.fit(*parts(), **SHARED, **PRESENT)
    assert found.events[0].startswith("step 7: resumed")
    assert found.history["step"] == expected.history["step"]
    assert found.settings == expected.settings
    for name, value in expected.model.state_dict().items():  # of another machine, up to rounding
        torch.testing.assert_close(found.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is a former name:DeprecationWarning")
@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize("name", ["optimisers", "optimizers"])
def test_former_fields_go_to_each_of_several_optimizers(vectorised: bool, name: str) -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((4, 5, 2))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()})
    given = model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data
    shared = {"seeds": (0, 1), "steps": 3, "vectorised": vectorised, "reporting": lr.Reporting(progress=False, every=1)}
    rates = (0.01, 0.02)
    schedule, rollback = lr.Constant(), lr.Rollback(1)
    former = lr.fit_ensemble(
        *given,
        **shared,
        **{name: [lr.AdamW(rate) for rate in rates]},
        learning_rate_schedule=schedule,
        rollback=rollback,
    )
    present = lr.fit_ensemble(
        *given, **shared, optimizers=[lr.AdamW(rate, schedule=schedule, rollback=rollback) for rate in rates]
    )
    for one, other in zip(former.members, present.members, strict=True):
        assert_same(one, other)
    assert [member.history["learning_rate"][-1] for member in former.members] == list(rates)


@pytest.mark.filterwarnings("ignore:.*is a former name:DeprecationWarning")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimiser": None, "rollback": lr.Rollback(1)}, "optimizer must be AdamW; found NoneType"),
        ({"objective": None, "num_particles": 2}, "objective must be Objective; found NoneType"),
        ({"reporting": None, "progress": False}, "reporting must be Reporting; found NoneType"),
    ],
)
def test_nothing_in_the_place_of_an_object_is_refused_by_name(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"fit: {message}"):
        lr.fit(*parts(), **arguments)


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "elbo"}, "objective must be Objective; found str"),
        ({"compute": None}, "compute must be Compute; found NoneType"),
    ],
)
def test_an_ensemble_refuses_settings_of_a_wrong_kind_by_name(vectorised: bool, arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        lr.fit_ensemble(*parts()[:3], seeds=(0, 1), vectorised=vectorised, **arguments)
