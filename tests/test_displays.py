"""What results show of themselves where a notebook prints them: a line, never their arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr

RECORDS = {name: kind for name, kind in vars(lr).items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
WITH_ARRAYS = [
    name for name, kind in RECORDS.items()
    if any("Tensor" in str(field.type) and field.repr for field in dataclasses.fields(kind))
]  # fmt: skip


def test_there_are_records_with_arrays() -> None:
    assert {"Forecast", "Evidence", "Counterfactual", "SequenceData"} <= set(WITH_ARRAYS)


@pytest.mark.parametrize("name", WITH_ARRAYS)
def test_a_record_with_arrays_says_itself_what_it_shows(name: str) -> None:
    assert not hasattr(RECORDS[name].__repr__, "__wrapped__"), "the generated one prints every number"


def results() -> dict[str, tuple[Any, str]]:
    counts = np.random.default_rng(0).poisson(1.0, (5, 30, 2))
    data = lr.SequenceData.from_arrays({"s": counts, "label": np.zeros((5, 1))}, per_sequence=["label"])
    heads = {"s": lr.Poisson(), "label": lr.Bernoulli()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal"))
    posterior = lr.fit(
        model, guide, data, steps=2, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    ).posterior(data, device="cpu")
    ranks = torch.randint(0, 20, (50, 2))
    calibration = lr.Calibration(("a", "b"), ranks, 19)
    diagnosis = posterior.diagnose(
        25, num_sequences=2, annealing=lr.AIS(temperatures=2, leapfrog=1), refinement_steps=1
    )
    filtered = lr.OnlineFilter(posterior, num_particles=8)
    alone = lr.OnlineFilter(posterior, num_particles=None, proposal="guide")
    return {
        "forecast": (posterior.forecast(4, num_samples=3), "s: 3 samples x 5 sequences x 4 frames x 2 channels"),
        "counterfactual": (
            posterior.counterfactual(num_samples=3, from_step=2),
            "x 30 steps x 2 channels, label: 3 samples x 5 sequences x 1 channels, from step 2",
        ),
        "filtered": (filtered.update({"s": [0, 1]}), "effective sample size"),
        "filtered by the guide": (alone.update({"s": [0, 1]}), "step 0, no particles, rates of ['s']"),
        "calibration": (calibration, "50 simulations, 2 quantities, 19 draws each"),
        "coverage": (calibration.coverage(), "levels of 2 quantities, 50 intervals"),
        "diagnosis": (diagnosis, "nats per sequence from the ELBO to the last rung"),
    }


def test_a_line_says_what_came() -> None:
    for name, (found, part) in results().items():
        assert part in repr(found), name
        assert "tensor(" not in repr(found), name
        assert len(repr(found)) < 200, name
        assert "\n" not in repr(found), name
