"""Independent Normals."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.guides.encoders import Encoding
from latentrnn.inference.guides.families.family import (
    Draw,
    Family,
    Filtered,
    NormalHead,
    Proposals,
    loc_and_scale,
    sample_site,
)
from latentrnn.models.latents.latent import where_valid


class MeanField(Family):
    """q(z) = prod_t Normal(m_t, diag(s_t^2)), location and scale affine in the encoder's features.

    The fastest family: one call for all steps, and against a Gaussian prior its divergence has a closed form. It
    knows no correlation between steps, and so understates how uncertain slow trajectories are.

    References:
        Kingma, Welling. Auto-encoding variational Bayes. 2014.
    """

    stepwise = True
    continues = True

    def _build(self, step_size: int, summary_size: int) -> None:
        self.heads = nn.ModuleDict(
            {site.name: NormalHead(step_size if site.along_time else summary_size, site.dim) for site in self.sites}
        )

    def variational_parameters(self, encoding: Encoding, data: SequenceData | None) -> dict[str, Tensor]:
        return {
            site.name: self.heads[site.name](encoding.steps if site.along_time else encoding.summary)
            for site in self.sites
        }

    def sample(self, parameters: dict[str, Tensor], data: SequenceData, draw: Draw = sample_site) -> dict[str, Tensor]:
        found = {}
        for site in self.sites if data.carry_in is None else self.trajectories:
            loc, scale = loc_and_scale(parameters[site.name])
            if site.along_time:
                loc, scale = where_valid(loc, data, 0.0), where_valid(scale, data, 1.0)
            normal = dist.Normal(loc, scale, validate_args=False).to_event(2 if site.along_time else 1)
            found[site.name] = draw(site.name, normal)
        return found

    def filtered(self, parameters: dict[str, Tensor], memory: Tensor | None) -> Filtered:
        starts = {site.name: loc_and_scale(parameters[site.name])[0] for site in self.starts}
        (site,) = self.trajectories
        loc, scale = loc_and_scale(parameters[site.name][:, 0])
        return Filtered(loc, torch.diag_embed(scale**2), starts, None)

    def proposals(self, parameters: dict[str, Tensor], data: SequenceData) -> Proposals:
        return _Independent(self, parameters)


class _Independent(Proposals):
    def __init__(self, family: MeanField, parameters: dict[str, Tensor]) -> None:
        self.starts = {site.name: loc_and_scale(parameters[site.name]) for site in family.starts}
        steps = [loc_and_scale(parameters[site.name]) for site in family.trajectories]
        self.steps = [tuple(part.unbind(-2) for part in pair) for pair in steps]

    def start(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        return {
            name: dist.Normal(loc, scale, validate_args=False).to_event(1).expand(shape)
            for name, (loc, scale) in self.starts.items()
        }

    def step(self, t: int, before: Tensor | None, starts: dict[str, Tensor]) -> dist.Distribution:
        (loc, scale) = self.steps[0]
        return dist.Normal(loc[t], scale[t], validate_args=False).to_event(1)
