"""Digits of matrix products: set within a fit, as they were after it, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import latentrnn as lr


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


class Noting(lr.Deterministic):
    """A latent that notes what the products' precision is while a model runs."""

    seen: set[str] = set()  # noqa: RUF012 - shared on purpose

    def sample(self, *arguments: object) -> object:
        self.seen.add(torch.get_float32_matmul_precision())
        return super().sample(*arguments)


def setting(latent: lr.Latent | None = None) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).poisson(1.0, (6, 8, 3))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=latent or Noting(), observations={"y": lr.Poisson()})
    return model, lr.Guide(model), data


@pytest.mark.parametrize("asked", [None, "highest", "high", "medium"])
def test_products_have_the_precision_that_was_asked_for(asked: str | None, precision: None) -> None:
    torch.set_float32_matmul_precision("high")
    Noting.seen.clear()
    model, guide, data = setting()
    result = lr.fit(
        model,
        guide,
        data,
        steps=2,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu", matmul_precision=asked),
    )
    assert Noting.seen == {asked or "high"}
    assert torch.get_float32_matmul_precision() == "high"
    assert result.settings.get("matmul_precision") == asked
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}


class Failing(Noting):
    """A latent that fails when it is sampled."""

    def sample(self, *arguments: object) -> object:
        super().sample(*arguments)
        raise ZeroDivisionError


def test_a_failed_fit_puts_it_back(precision: None) -> None:
    torch.set_float32_matmul_precision("highest")
    Noting.seen.clear()
    model, guide, data = setting(Failing())
    with pytest.raises(ZeroDivisionError):
        lr.fit(
            model,
            guide,
            data,
            steps=2,
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(device="cpu", matmul_precision="medium"),
        )
    assert Noting.seen == {"medium"}
    assert torch.get_float32_matmul_precision() == "highest"


def test_fewer_digits_hardly_move_the_elbo(precision: None) -> None:
    """At most a thousandth of the ELBO, where the processor has such products at all."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.poisson(1.0, (32, 20, 10))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(16), latent=lr.Innovations(2), observations={"y": lr.Poisson()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(16))
    bounds = [
        lr.fit(
            model,
            guide,
            data,
            steps=30,
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(device="cpu", matmul_precision=p),
        ).history["elbo"][-1]
        for p in ("highest", "medium")
    ]
    assert bounds[1] == pytest.approx(bounds[0], rel=1e-3)


@pytest.mark.parametrize("precision_", ["tf32", "low", 16])
def test_unknown_precisions_are_refused(precision_: object) -> None:
    model, guide, data = setting()
    with pytest.raises(ValueError, match=r"matmul_precision must be None or one of \['highest', 'high', 'medium'\]"):
        lr.fit(
            model,
            guide,
            data,
            steps=1,
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(matmul_precision=precision_),
        )


@pytest.mark.parametrize(("begun", "resumed"), [("medium", None), (None, "medium"), ("medium", "high")])
def test_a_fit_is_not_resumed_with_other_digits(begun: str | None, resumed: str | None, tmp_path: Path) -> None:
    model, guide, data = setting()
    fixed: dict[str, object] = {
        "steps": 2,
        "reporting": lr.Reporting(progress=False),
        "checkpointing": lr.Checkpointing(tmp_path / "fit", resume=True),
    }
    first, other = (lr.Compute("cpu", matmul_precision=precision) for precision in (begun, resumed))
    lr.fit(model, guide, data, compute=first, **fixed)
    assert lr.fit(model, guide, data, compute=first, **fixed).history
    with pytest.raises(ValueError, match=f"holds a fit with matmul_precision {begun!r}; found {resumed!r}"):
        lr.fit(model, guide, data, compute=other, **fixed)
