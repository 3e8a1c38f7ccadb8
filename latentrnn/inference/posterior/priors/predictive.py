"""What a model says before it has seen anything: parameters, latents and data, drawn from the model alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.posterior.conditioning import point_estimates
from latentrnn.inference.posterior.draws.predictions import draws_from_prior
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_flag, check_kind_of, check_seed, check_selection, check_size
from latentrnn.support.isolation import isolated
from latentrnn.support.notebooks import ShownInNotebooks
from latentrnn.support.shortcuts import provides_shortcut, shortcut
from latentrnn.support.shown import shapes


class NoGuide(nn.Module):
    """What stands in the place of a guide where everything is drawn from the model."""

    parameter_sites = None
    encoder = None


def prior_sampler(
    model: LatentRNN, data: SequenceData, device: str | torch.device, seed: int, max_elements: int | None = None
) -> PosteriorSampler:
    """Return a sampler of the model alone, on the layout of the data."""
    return PosteriorSampler(model, cast(Guide, NoGuide()), data, device, seed, max_elements=max_elements)


@dataclass(frozen=True, eq=False, repr=False)
class PriorPredictive(Mapping[str, Tensor], ShownInNotebooks):
    """Draws from a model alone: by head, as `Posterior.predictive` returns them, with what they were made from.

    Equal positions on the sample axis belong together. Units are those of the data, times as in the parameters'
    declarations; all is on the CPU, and NaN in padding.

    Attributes:
        observations: head to (sample, sequence, time, channel), or (sample, sequence, channel).
        parameters: site of every parameter with a prior to (sample, *shape).
        latents: "states" (what readouts see) and every latent site, (sample, sequence, time, dim) or (sample,
            sequence, dim); empty where they were not kept.
        model: a copy of the model.
        data: the sequences whose layout it is.
        seed: of the draws.
    """

    observations: dict[str, Tensor]
    parameters: dict[str, Tensor]
    latents: dict[str, Tensor]
    model: LatentRNN
    data: SequenceData
    seed: int

    def __getitem__(self, head: str) -> Tensor:
        return self.observations[head]

    def __iter__(self) -> Iterator[str]:
        return iter(self.observations)

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def num_samples(self) -> int:
        """Number of draws."""
        return len(next(iter(self.observations.values())))

    @property
    def conditional_on(self) -> str | None:
        """What has no prior, and so is the same in all draws, in words; None where everything was drawn or is known.

        Before a fit these are starting weights. A fit draws them anew and takes the first baselines, scales and units
        from its data, as `model.initialise(data)` does.
        """
        found = point_estimates(self.model, cast(Guide, NoGuide()))
        return f"weights as they are, without a prior, of {', '.join(found)}" if found else None

    def predictive(self, num_samples: int | None = None, *, heads: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the first draws of some heads; what a check asks for.

        Args:
            num_samples: how many; all by default.
            heads: which; all by default.

        Raises:
            ValueError: more draws than there are, or an unknown head.
        """
        known = list(self.observations)
        names = known if heads is None else check_selection("predictive", "heads", heads, known, "head")
        most = self.num_samples
        count = most if num_samples is None else check_size("predictive", "num_samples", num_samples)
        if count > most:
            raise ValueError(f"predictive: there are {most} draws; found num_samples={count}")
        return {name: self.observations[name][:count] for name in names}

    def to_arviz(self, *, container: str = "auto") -> Any:
        """Return the draws as ArviZ groups `prior` and `prior_predictive`; see `latentrnn.export.prior_to_arviz`."""
        return shortcut("prior_to_arviz")(self, container=container)

    def __repr__(self) -> str:
        heads = self.observations
        whole = {name: heads[name] for name in heads if not self.data.spec.heads[name].per_step}
        along = {name: heads[name] for name in heads if name not in whole}
        parts = [
            shapes(along, ("samples", "sequences", "steps", "channels")),
            shapes(whole, ("samples", "sequences", "channels")),
        ]
        given = self.conditional_on
        return f"PriorPredictive({', '.join(filter(None, parts))}" + (f"; {given})" if given else ")")


@provides_shortcut
@isolated
def prior_predictive(
    model: LatentRNN,
    data: SequenceData,
    num_samples: int = 100,
    *,
    seed: int | None = 0,
    latents: bool = True,
    device: str | torch.device = "auto",
    max_elements: int | None = None,
) -> PriorPredictive:
    """Draw parameters, latents and data from a model alone; see `LatentRNN.prior_predictive`."""
    check_kind_of("prior_predictive", "data", data, SequenceData)
    number, seed = check_size("prior_predictive", "num_samples", num_samples), check_seed("prior_predictive", seed)
    latents = check_flag("prior_predictive", "latents", latents)
    model.spec.check_compatible(data.spec)
    data.check_gapless()
    model.check_covariates(data)
    sampler = prior_sampler(model, data, device, seed, max_elements)
    with sampler.drawing():
        drawn = draws_from_prior(sampler, number, latents=latents)
    return PriorPredictive(drawn.observations, drawn.parameters, drawn.latents, sampler.model, data, sampler.seed)
