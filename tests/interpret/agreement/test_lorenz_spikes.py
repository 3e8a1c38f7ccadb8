"""Fits to the spikes of the Lorenz benchmark: two seeds agree, and dimensions that are too many do not replicate."""

from __future__ import annotations

import pytest
import torch

import latentrnn as lr
from benchmarks import lorenz

pytestmark = pytest.mark.slow


def test_two_seeds_agree_and_dimensions_that_are_too_many_do_not_replicate() -> None:
    protocol = lorenz.simulate(0)
    test = lorenz.as_sequences(protocol.repeated)[::5]
    three, five = (lorenz.fit_briefly(protocol, dim, seed).posterior(test) for seed, dim in enumerate((3, 5)))
    found = lr.interpret.align(three, five)
    assert found.r2("linear", "a from b") > 0.95
    across = lr.interpret.replication([three, five])
    # of five dimensions the least of the three may lie in two components, half in each; the fifth is idle
    assert across.component_replicates[0, :3].all()
    assert across.component_replicates[1].values.tolist()[:2] == [True, True]
    assert not across.component_replicates[1, 3:].any()
    assert float(across.component_r2[1, 4]) < 0.2
    assert float(across.component_effect[1, 4]) < 0.01
    # control: the same states of trials in another order have nothing in common
    states = [fit.latents(20)["states"].mean(0).flatten(0, 1).double() for fit in (three, five)]
    design = torch.cat([states[0].roll(7 * test.num_steps, 0), torch.ones(len(states[0]), 1)], 1)
    left = states[1] - design @ torch.linalg.lstsq(design, states[1]).solution
    assert 1 - float(left.var(0).sum() / states[1].var(0).sum()) < 0.2
