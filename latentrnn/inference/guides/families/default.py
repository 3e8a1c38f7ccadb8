"""Which family a guide has where none is named."""

from __future__ import annotations

from collections.abc import Iterable

from latentrnn.inference.guides.families.family import Family
from latentrnn.inference.guides.families.markov import Markov
from latentrnn.inference.guides.families.mean_field import MeanField
from latentrnn.models import sites
from latentrnn.models.latents import LatentSite


def default_family(latent_sites: Iterable[LatentSite]) -> Family:
    """Return the family that fits a model's latents.

    A state that is drawn at every step hangs together along time by its own dynamics. Independent factors then say less
    of it than the data do, and the dynamics that are learned beneath them forget too fast (Turner and Sahani, Two
    problems with variational expectation maximisation for time-series models, 2011). Innovations are independent of
    each other by their prior, and mostly stay so.
    """
    return Markov() if any(site.name == sites.STATES for site in latent_sites) else MeanField()
