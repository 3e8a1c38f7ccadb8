"""The information on which the table of a memory's intervals bases its bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import memory_coverage as study


@pytest.mark.parametrize("protocol", ["trains", "at random"])
def test_information_is_the_expected_curvature(protocol: str) -> None:
    """Expected minus log density of Poisson spikes has its Hessian at the planted numbers, by automatic derivatives."""
    found = study.simulated(protocol, 3, 0)
    pulses = torch.as_tensor(found.pulses[..., 0])

    def log_rates(numbers: Tensor) -> Tensor:
        log_tau, weight, baseline = numbers
        retention = torch.exp(-found.dt * torch.exp(-log_tau))
        state, seen = torch.zeros(len(pulses), dtype=torch.float64), []
        for t in range(pulses.shape[1]):
            state = retention * state + pulses[:, t]
            seen.append((baseline + weight * state)[pulses[:, t] > 0])
        return torch.cat(seen)

    log_tau = np.log(study.PLANTED / 1e3)
    planted = torch.tensor([log_tau, study.OTHERS["weight"], study.OTHERS["baseline"]], dtype=torch.float64)
    expected = log_rates(planted).exp()

    def loss(numbers: Tensor) -> Tensor:
        return (log_rates(numbers).exp() - expected * log_rates(numbers)).sum()

    hessian = torch.autograd.functional.hessian(loss, planted)
    assert study.information(found) == pytest.approx(hessian.numpy(), rel=1e-9)


def test_pulses_at_random_leave_more_open_than_trains() -> None:
    (_, _, trains), (_, _, random) = (study.least_widths(protocol, 120, 2) for protocol in ("trains", "at random"))
    assert 1.4 < trains < 1.6 < 2 < random
