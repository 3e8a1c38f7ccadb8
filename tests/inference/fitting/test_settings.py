"""What `fit` is told is checked when it is told, and NumPy's numbers are taken as Python's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr


def make_data(seed: int = 0, dtype: torch.dtype = torch.float32) -> lr.SequenceData:
    counts = np.random.default_rng(seed).poisson(1.0, (6, 5, 2))
    return lr.SequenceData.from_arrays({"y": counts}, dtype=dtype)


DATA = make_data()
MODEL = lr.LatentRNN(DATA.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()})
GUIDE = lr.Guide(MODEL, encoder=lr.RNNEncoder(2))


def fit(validation: Any = None, data: Any = DATA, guide: Any = GUIDE, **settings: Any) -> lr.FitResult:
    return lr.fit(
        MODEL,
        guide,
        data,
        validation,
        **({"steps": 2, "reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")} | settings),
    )


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a rise of half a step": (lambda: lr.Cosine(rise=0.5), "Cosine: rise must be a non-negative integer; found 0.5"),
    "a negative last rate": (lambda: lr.Cosine(final=-0.1), r"Cosine: final must be in \[0, 1\]; found -0.1"),
    "no patience": (lambda: lr.Plateau(0), "Plateau: patience must be a positive integer; found 0"),
    "a rate that rises": (lambda: lr.Plateau(factor_per_fall=2.0), r"factor_per_fall must be in \(0, 1\); found 2.0"),
    "a start of NaN": (lambda: lr.KLWarmUp(start=math.nan), r"KLWarmUp: start must be in \[0, 1\]; found nan"),
    "a fraction in words": (lambda: lr.KLWarmUp("0.2"), r"fraction must be in \[0, 1\).*found '0.2'"),
    "one beta": (lambda: lr.AdamW(betas=(0.9,)), r"AdamW: betas must be two numbers in \[0, 1\)"),
    "betas beyond one": (lambda: lr.Adam(betas=(0.9, 1.5)), r"Adam: betas\[1\] must be in \[0, 1\); found 1.5"),
    "infinite decay": (lambda: lr.AdamW(weight_decay=math.inf), "AdamW: weight_decay must be finite; found inf"),
    "a rate beyond single precision": (
        lambda: lr.AdamW(learning_rate=1e300),
        r"AdamW: learning_rate must be at most 1e\+30; found 1e\+300",
    ),
    "one beta in an array": (lambda: lr.AdamW(betas=np.array(0.9)), r"AdamW: betas must be two numbers in \[0, 1\)"),
    "an infinite rate": (lambda: lr.AdamW(learning_rate=math.inf), "AdamW: learning_rate must be finite; found inf"),
    "half an evaluation": (lambda: lr.EarlyStopping(every=0.5), "every must be a positive integer; found 0.5"),
    "patience of NaN": (lambda: lr.EarlyStopping(patience=math.nan), "patience must be at least 1 or None.*found nan"),
    "half a draw": (lambda: lr.EarlyStopping(num_particles=2.5), "num_particles must be a positive integer; found 2.5"),
    "bits of NaN": (lambda: lr.ELBO(free_bits=math.nan), "ELBO: free_bits must not be negative; found nan"),
    "an option in words": (lambda: lr.ELBO(sticking_the_landing="no"), "must be True or False; found 'no'"),
    "another in words": (lambda: lr.IWAE(doubly_reparameterised="no"), "must be True or False; found 'no'"),
    "alpha of NaN": (lambda: lr.Renyi(math.nan), "Renyi: alpha must be a number; found nan"),
    "a share of NaN": (lambda: lr.FIVO(math.nan), r"FIVO: resample_below must be in \[0, 1\]; found nan"),
    "tolerance of NaN": (lambda: lr.Rollback(tolerance=math.nan), "Rollback: tolerance must be positive; found nan"),
    "half a window": (lambda: lr.Window(0.5), "Window: steps must be a whole number"),
    "an endless window": (lambda: lr.Window(10**30), "Window: steps must be a whole number"),
    "a seed in words": (lambda: fit(seed="a"), "fit: seed must be an integer, or None for a fresh one; found 'a'"),
    "progress in words": (
        lambda: fit(reporting=lr.Reporting(progress="no")),
        "Reporting: progress must be True or False; found 'no'",
    ),
    "resume in words": (
        lambda: lr.Checkpointing("runs", resume="no"),
        "Checkpointing: resume must be True or False; found 'no'",
    ),
    "weights of nothing": (
        lambda: fit(objective=lr.ELBO(head_weights=3)),
        "ELBO: head_weights must name heads.*found 3",
    ),
    "a folder of numbers": (
        lambda: fit(checkpointing=lr.Checkpointing(3)),
        "Checkpointing: directory must be a string or a path; found 3",
    ),
    "a window of numbers": (
        lambda: fit(compute=lr.Compute(device="cpu", window=3)),
        "Compute: window must be a Window; found 3",
    ),
    "endless steps": (lambda: fit(steps=10**30), "fit: steps must be a positive integer of at most"),
    "endless draws": (
        lambda: fit(objective=lr.ELBO(num_particles=10**30)),
        "ELBO: num_particles must be a positive integer of at most",
    ),
    "dropout in words": (
        lambda: fit(objective=lr.ELBO(coordinated_dropout="a")),
        r"coordinated_dropout must be in \[0, 1\); found 'a'",
    ),
    "dropout without an encoder": (
        lambda: fit(
            guide=lr.Guide(MODEL, family=lr.PerSequence(lr.MeanField())), objective=lr.ELBO(coordinated_dropout=0.2)
        ),
        "hides entries from the encoder, but this guide has none",
    ),
    "validation of another type": (
        lambda: fit(make_data(1, torch.float64)),
        r"validation is float64, train is float32.*give validation.to\(dtype=torch.float32\)",
    ),
    "a start that would be rounded": (
        lambda: fit(start_from=fit(data=make_data(dtype=torch.float64))),
        r"start_from has weights of float64.*give train.to\(dtype=torch.float64\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_settings_that_make_no_sense_are_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_numbers_of_numpy_are_those_of_python() -> None:
    plain = {
        "seed": 3,
        "steps": 3,
        "batch_size": 4,
        "stopping": lr.EarlyStopping(2, 3),
        "optimizer": lr.AdamW(0.5, betas=(0.5, 0.75)),
        "objective": lr.ELBO(num_particles=2, head_weights={"y": 2.0}, coordinated_dropout=0.25),
    }
    numpy = {
        "seed": np.int64(3),
        "steps": np.int32(3),
        "batch_size": np.uint8(4),
        "stopping": lr.EarlyStopping(np.int64(2), np.int64(3)),
        "optimizer": lr.AdamW(np.float32(0.5), betas=np.array([0.5, 0.75])),
        "objective": lr.ELBO(
            num_particles=np.int64(2), head_weights={"y": np.float32(2)}, coordinated_dropout=np.float32(0.25)
        ),
        "reporting": lr.Reporting(progress=np.bool_(False)),
    }
    expected, found = fit(**plain), fit(**numpy)
    assert found.settings == expected.settings
    assert found.seed == expected.seed
    assert type(found.seed) is int
    for name, value in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name


def test_a_fresh_seed_is_kept() -> None:
    first, second = fit(seed=None), fit(seed=None)
    assert first.seed != second.seed
    again = fit(seed=first.seed)
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_a_fresh_seed_is_gone_on_with(tmp_path: Any) -> None:
    first = fit(seed=None, checkpointing=lr.Checkpointing(tmp_path / "fit"))
    assert fit(seed=None, checkpointing=lr.Checkpointing(tmp_path / "fit", resume=True)).seed == first.seed


def test_a_start_that_is_held_exactly_is_taken() -> None:
    result = fit(data=make_data(dtype=torch.float64), start_from=fit())
    assert {value.dtype for value in result.model.state_dict().values() if value.is_floating_point()} == {torch.float64}
