"""Models that can be filtered step by step, one recording of each, and what an online filter is told of it."""

from __future__ import annotations

from typing import Any

import torch

import latentrnn as lr
from tests.registry import OBSERVATIONS, default_transition, make_data, make_model, shake

LENGTH = 7
STREAMED = [
    name
    for name in OBSERVATIONS
    if name
    not in (
        "calcium",
        "calcium and spikes",
        "hazard, missing",
        "features",
        "source attention",
        "readouts",
        "cross attention",
    )
    and "attention, fed back" not in name
    and "per sequence" not in name
]


def setting(
    observation: str, latent: str, transition: str | None = None, family: lr.Family | None = None, steps: int = LENGTH
) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    data = make_data(OBSERVATIONS[observation], (steps,))
    transition = default_transition(observation) if transition is None else transition
    model, _ = make_model(transition, latent, observation, data)
    encoder = lr.RNNEncoder(4, direction="causal", mask_input=True)
    guide = lr.Guide(model, encoder=encoder, family=lr.MeanField() if family is None else family).double()
    guide.initialise(model, data)
    shake(guide)
    return model, guide, data


def steps_of(data: lr.SequenceData) -> list[dict[str, Any]]:
    """What an online filter is told, step by step."""
    told = []
    for t in range(data.num_steps):
        observation = {}
        for name, head in data.spec.heads.items():
            if head.per_step and (t + 1) % head.clock == 0:
                frame = (t + 1) // head.clock - 1
                values, mask = data.observations[name][0, frame], data.masks[name][0, frame]
                observation[name] = torch.where(mask, values, torch.nan).numpy()
        arguments: dict[str, Any] = {"observation": observation}
        arguments["covariates"] = {name: values[0, t] for name, values in data.covariates.items()}
        if data.times is not None:
            arguments["time"] = float(data.times[0, t])
        if data.totals:
            frames = {name: ((t + 1) // data.spec.heads[name].clock, values) for name, values in data.totals.items()}
            due = {name for name in frames if (t + 1) % data.spec.heads[name].clock == 0}
            arguments["totals"] = {name: frames[name][1][0, frames[name][0] - 1] for name in due}
        told.append(arguments)
    return told
