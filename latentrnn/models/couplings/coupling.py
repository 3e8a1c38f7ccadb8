"""Factors that tie heads to each other: penalties of a fit, reported apart, and no part of any density."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from latentrnn.models.component import Component
from latentrnn.models.observations import Observation
from latentrnn.models.rollout import Rollout
from latentrnn.support.arguments import check_number, check_text


class Coupling(Component):
    """weight * penalty(rollout), in nats, subtracted from the ELBO while fitting.

    A coupling un-normalises the model, so it enters the loss of `fit` alone. The reported ELBO, validation, evidence,
    log-likelihoods, comparison, and whatever Pyro does with the model leave it out; `fit` reports the penalty itself,
    unweighted, as `coupling/<name>` in `FitResult.history` (nats per sequence), and `Posterior.couplings` on any data.
    A new one writes `penalty`.

    Args:
        weight: how much a nat of penalty counts against a nat of ELBO.
        name: what it is called in reports, by default its class; couplings of one class need different names.

    Raises:
        ValueError: a weight that is not positive, or an empty name.

    References:
        Ganchev, Graça, Gillenwater, Taskar. Posterior regularization for structured latent variable models. 2010.
    """

    def __init__(self, weight: float = 1.0, *, name: str | None = None) -> None:
        super().__init__()
        self.name = None if name is None else check_text(type(self).__name__, "name", name)
        self.weight = check_number(type(self).__name__, "weight", weight, above=0)

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.name or type(self).__name__

    def check(self, observations: Mapping[str, Observation]) -> None:
        """Raise a ValueError where the model's heads are not those that the coupling needs."""

    @abstractmethod
    def penalty(self, rollout: Rollout) -> Tensor:
        """Return a penalty of each sequence, nats, (*sample, sequence), given one draw of the latents."""
