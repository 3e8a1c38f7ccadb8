"""The average of weights along a fit is the exponential one that its formula says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import latentrnn as lr
from latentrnn.inference.fitting.snapshots import Average


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_is_exponential_and_forgets_faster_at_the_start(decay: float) -> None:
    rng = np.random.default_rng(0)
    path = rng.normal(size=(60, 3))
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    average, expected = Average([weight], decay), np.zeros(3)
    for step, value in enumerate(path):
        with torch.no_grad():
            weight.copy_(torch.as_tensor(value))
        average.update(step)
        share = min(decay, (1 + step) / (10 + step))
        expected = share * expected + (1 - share) * value
    average.swap()
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)
    average.swap()
    np.testing.assert_array_equal(weight.detach().numpy(), path[-1])


def test_a_fit_keeps_the_average() -> None:
    """With a rate that throws weights to and fro, the average lies between what the last steps left."""
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(8, 6, 2))}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Gaussian()}
    ).double()
    settings = {"reporting": lr.Reporting(progress=False), "compute": lr.Compute("cpu")}
    kept = []
    for steps in (9, 10):  # the first leaves the weights that the last step of the second starts at
        optimizer = lr.Adam(0.2, averaging=0.8, schedule=lr.Constant())
        plain = lr.fit(
            model, lr.Guide(model), data, steps=steps, optimizer=lr.Adam(0.2, schedule=lr.Constant()), **settings
        )
        averaged = lr.fit(model, lr.Guide(model), data, steps=steps, optimizer=optimizer, **settings)
        kept.append((plain.model.state_dict(), averaged.model.state_dict()))
    (_, before), (last, after) = kept
    share = 10 / 19  # below 0.8 still
    for name, value in after.items():
        if name in dict(model.named_parameters()):
            torch.testing.assert_close(value, share * before[name] + (1 - share) * last[name], rtol=1e-9, atol=1e-12)
