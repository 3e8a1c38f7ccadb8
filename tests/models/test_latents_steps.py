"""Latents step by step: their densities multiply to those of the sites, their states are those of the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from pyro import poutine
from torch import Tensor

import latentrnn as lr
from latentrnn.models import sites
from latentrnn.models.features.gap import gaps
from tests.registry import LATENTS, OBSERVATIONS, Fixed, fixed_latents, make_data, make_model


def stepwise(
    model: lr.LatentRNN, data: lr.SequenceData, values: Mapping[str, Tensor], *, delay: int = 0
) -> tuple[Tensor, Tensor]:
    """log p of the given values, summed over sites and steps, (sequence,), and what readouts see, step by step.

    With a delay each step is scored with the value of an earlier one, which is wrong.
    """
    latent, transition, shape = model.latent, model.transition, (len(data),)
    starts = latent.start_prior(shape)
    total = sum((prior.log_prob(values[name]) for name, prior in starts.items()), torch.zeros(len(data)).double())
    carry, gap, seen = latent.begin_with(shape, values), gaps(data), []
    names = [site.name for site in model.latent_sites() if site.along_time]
    for t, a_t in enumerate(model.transition_inputs(data).unbind(-2)):
        step = latent.step(transition, carry, a_t, None if gap is None else gap[:, t])
        value = None
        if step.prior is not None:
            value = values[names[0]][:, t]
            assert step.prior.batch_shape == shape
            scored = values[names[0]][:, max(t - delay, 0)]
            padding = (-0.5 * scored**2 - 0.5 * math.log(2 * math.pi)).sum(-1)
            total = total + torch.where(data.valid[:, t], step.prior.log_prob(scored), padding)
        carry = step.move(value)
        seen.append(latent.output(transition, carry))
    return total, torch.stack(seen, -2)


@pytest.mark.parametrize("clock", ["gaussian", "gaussian irregular"])
@pytest.mark.parametrize("latent", LATENTS)
def test_densities_of_steps_multiply_to_that_of_the_path(latent: str, clock: str) -> None:
    data = make_data(OBSERVATIONS[clock])
    model, _ = make_model("gru", latent, clock, data)
    values = fixed_latents(model, data)
    with torch.no_grad():
        with poutine.trace() as recorder, Fixed(values):
            rollout = model.unroll(data)
        found = [node for name, node in recorder.trace.nodes.items() if name in sites.LATENTS]
        expected = sum((node["fn"].log_prob(node["value"]) for node in found), torch.zeros(len(data)).double())
        total, seen = stepwise(model, data, values)
        torch.testing.assert_close(total, expected, rtol=0, atol=1e-9)
        whole = rollout.states().expand_as(seen)
        torch.testing.assert_close(seen[data.valid], whole[data.valid], rtol=0, atol=1e-9)
        if any(site.along_time for site in model.latent_sites()):  # negative control
            assert ((stepwise(model, data, values, delay=1)[0] - expected).abs() > 1e-3).all()


def test_a_smooth_process_is_stepped_in_single_precision() -> None:
    """A length scale of many steps leaves nearly equal numbers: the white share alone keeps them apart."""
    data = make_data(OBSERVATIONS["gaussian"], (200,), dtype=torch.float64)
    model, _ = make_model("gru", "innovations matern", "gaussian", data)
    with torch.no_grad():
        model.latent.log_time_constant.fill_(math.log(100 * 0.02))
        values = {name: 0.1 * value for name, value in fixed_latents(model, data).items()}
        expected = stepwise(model, data, values)[0]
        found = stepwise(model.float(), data.to(dtype=torch.float32), {k: v.float() for k, v in values.items()})[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("latent", "match"),
    [
        (lr.Innovations(2, prior="squared_exponential"), "cannot be filtered step by step"),
        (lr.Discrete(2), "sums its switch out exactly"),
    ],
    ids=["squared exponential", "discrete"],
)
def test_what_has_no_steps_says_so(latent: lr.Latent, match: str) -> None:
    data = make_data(OBSERVATIONS["gaussian"])
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=latent, observations={"y": lr.Gaussian()}).double()
    carry = model.latent.begin((len(data),))
    with pytest.raises(ValueError, match=match):
        model.latent.advance(model.transition, carry, model.transition_inputs(data)[:, 0], None)
