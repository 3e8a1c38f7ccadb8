"""The benchmark of loops over time compares the same function, written three times."""

from __future__ import annotations

import pytest
import torch

from benchmarks.scans import GUIDES, Shape, guides, measure, modules, row


@pytest.mark.parametrize(
    "shape",
    [
        *(Shape(cell, 3, 5, 2, 4, both) for cell in ("gru", "lstm", "tanh", "relu") for both in (False, True)),
        *(Shape(cell, 3, 5, 2, 4, both=True, shortest=2) for cell in ("gru", "tanh", "relu")),
    ],
    ids=str,
)
def test_contestants_agree(shape: Shape) -> None:
    torch.manual_seed(0)
    calls, wanted = modules(shape)
    outputs = [call() for call in calls.values()]
    gradients = [torch.autograd.grad(h.square().sum(), wanted) for h in outputs]
    for h, found in zip(outputs[1:], gradients[1:], strict=True):
        torch.testing.assert_close(h, outputs[0])
        torch.testing.assert_close(found, gradients[0])
    line = row("a size", 1, measure(calls, wanted, 3))
    assert line.startswith("| a size | 1 | ")
    assert line.count("(") == 2


@pytest.mark.slow  # at full size: a few steps of it take as long as many small tests
@pytest.mark.parametrize("name", GUIDES)
def test_guides_agree(name: str) -> None:
    torch.manual_seed(0)
    calls, wanted = guides(name)
    (ours, loop) = (call() for call in calls.values())
    torch.testing.assert_close(ours, loop, rtol=1e-3, atol=1e-4)
    for one, other in zip(
        torch.autograd.grad(ours.sum(), wanted), torch.autograd.grad(loop.sum(), wanted), strict=True
    ):
        assert (one - other).norm() < 1e-3 * other.norm()
