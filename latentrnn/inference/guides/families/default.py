"""Which family a guide has where none is named."""

from __future__ import annotations

from collections.abc import Iterable

from latentrnn.inference.guides.families.driven_markov import DrivenMarkov
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
    each other by their prior, and mostly stay so. Where they are rare and large they do not: when one came, and how
    large it was, is told by where it has led, and independent factors spread it over the steps around.
    """
    latent_sites = list(latent_sites)
    if any(site.name == sites.STATES for site in latent_sites):
        return Markov()
    return DrivenMarkov() if any(site.heavy_tailed for site in latent_sites) else MeanField()
