"""Numbers of its own for every sequence, on top of an encoder's: what amortisation has lost, won back."""

from __future__ import annotations

import copy

import torch

from latentrnn.data import SequenceData
from latentrnn.inference.guides.families import PerSequence
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.elbo import ELBO
from latentrnn.inference.objectives.objective import Evaluation
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_learning_rate, check_size


def refined(
    sampler: PosteriorSampler, steps: int = 100, *, learning_rate: float = 0.05, num_particles: int = 4
) -> PosteriorSampler:
    """Return a sampler from a guide that was refined for the sampler's sequences; see `Posterior.refined`."""
    sampler.refuse_windows()
    with sampler.seeded():
        guide = refine(
            sampler.model, sampler.guide, sampler.data,
            steps=steps, learning_rate=learning_rate, num_particles=num_particles,
        )  # fmt: skip
    return sampler.with_guide(guide)


def refine(
    model: LatentRNN,
    guide: Guide,
    data: SequenceData,
    *,
    steps: int,
    learning_rate: float,
    num_particles: int,
    batch_size: int = 256,
) -> Guide:
    """Return a copy of the guide whose numbers for the sequences of `data` were optimised one by one.

    Everything that sequences share (encoder, family, parameters with priors, the model) stays as it is, so that no
    sequence learns from another. Adam with a falling step climbs the ELBO by gradients that stick the landing.

    Args:
        model, guide: fitted, on the data's device.
        data: the sequences.
        steps: gradient steps for each sequence; none leaves the encoder's answer.
        learning_rate: of the first step, in the units of the numbers.
        num_particles: draws per step and sequence.
        batch_size: sequences that are optimised side by side.

    Raises:
        ValueError: a guide without local latents, or a setting out of range.
    """
    steps, num_particles = check_size("refined", "steps", steps), check_size("refined", "num_particles", num_particles)
    learning_rate = check_learning_rate("refined", learning_rate)
    if not guide.sites:
        raise ValueError("refined: the model has no latents of single sequences, so there is nothing to refine")
    guide = copy.deepcopy(guide)
    sizes = (1, 1) if guide.encoder is None else (guide.encoder.step_size, guide.encoder.summary_size)
    guide.local = PerSequence.around(guide.local, data, sizes)
    frozen = [p for module in (model, guide) for p in module.parameters() if p.requires_grad]
    table = list(guide.local.table.parameters())
    own = {id(p) for p in table}
    try:
        for parameter in frozen:
            parameter.requires_grad_(id(parameter) in own)
        # fused kernels of CUDA have no backward pass in evaluation mode
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            for start in range(0, len(data), batch_size):
                _climb(model, guide, data[start : start + batch_size], table, steps, learning_rate, num_particles)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return guide


def _climb(
    model: LatentRNN,
    guide: Guide,
    data: SequenceData,
    table: list[torch.nn.Parameter],
    steps: int,
    learning_rate: float,
    num_particles: int,
) -> None:
    optimizer = torch.optim.Adam(table, lr=learning_rate, betas=(0.9, 0.99))
    objective = ELBO(sticking_the_landing=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / steps)
        optimizer.zero_grad(set_to_none=True)
        (-objective.step(Evaluation(model, guide, data, num_particles)).surrogate / len(data)).backward()
        optimizer.step()
