"""The evidence lower bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentrnn.inference.objectives.objective import Evaluation, Objective, Step
from latentrnn.inference.objectives.terms import Terms, elbo_terms
from latentrnn.inference.objectives.weighted_draws import WeightedDraws
from latentrnn.support.arguments import check_flag, check_number, is_number, settle


@dataclass(frozen=True)
class ELBO(Objective):
    """E_q[log p(y, z) - log q(z)], the mean log-weight.

    Args:
        sticking_the_landing: leave out the part of the gradient whose mean is zero, that of log q with respect to
            its own parameters. Its variance vanishes where the guide is exact, so that rich families converge to the
            posterior instead of wandering around it; it uses no closed forms, and runs the guide twice.
        free_bits: KL of a sequence and latent site, in nats, below which the optimizer gains nothing by lowering it.
            It is compared sequence by sequence, so that it does not matter which sequences share a batch. What is then
            maximised is no bound any more; the history and the validation show the true ELBO all the same.
        head_weights: factors of heads' log-likelihoods in the training loss; one where a head is not named. For a
            head that says little per step beside one that says much, and that the encoder does not see, e.g. known
            spikes beside fluorescence. Everything that is reported, the training ELBO too, has weights of one.
        num_particles, kl, coordinated_dropout: see `Objective`.

    Raises:
        ValueError: a value out of range, or options that exclude each other.
        TypeError: an argument of the wrong kind.

    References:
        Roeder, Wu, Duvenaud. Sticking the landing: simple, lower-variance gradient estimators for variational
        inference. 2017.
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling. Improved variational inference with inverse
        autoregressive flow (free bits). 2016.
        Kingma, Rezende, Mohamed, Welling. Semi-supervised learning with deep generative models (a weight for what is
        known of some). 2014.
    """

    sticking_the_landing: bool = False
    free_bits: float = 0.0
    head_weights: Mapping[str, float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(
            self,
            sticking_the_landing=check_flag("ELBO", "sticking_the_landing", self.sticking_the_landing),
            free_bits=check_number("ELBO", "free_bits", self.free_bits, least=0),
        )
        if self.free_bits and self.sticking_the_landing:
            raise ValueError("ELBO: free_bits needs the KL of each site, which sticking_the_landing never forms")
        if self.head_weights is not None:
            settle(self, head_weights=_head_weights(self.head_weights))
            if self.head_weights and self.sticking_the_landing:
                raise ValueError("ELBO: head_weights multiply terms of heads, which sticking_the_landing never forms")

    @property
    def likelihood_weights(self) -> Mapping[str, float]:
        return self.head_weights or {}

    @property
    def adds_over_windows(self) -> bool:
        return not self.free_bits

    def step(self, at: Evaluation) -> Step:
        if self.sticking_the_landing:
            draws = WeightedDraws(at, detached=True)
            log_weights = draws.log_weights().mean(0)
            terms = draws.terms._replace(by_sequence=log_weights.detach())
            return Step(draws.total(log_weights), terms.elbo(), terms)
        terms = elbo_terms(
            at.model, at.guide, at.data,
            num_particles=at.num_particles, guide_data=at.guide_data, free_bits=self.free_bits,
            by_sequence=at.by_sequence,
        )  # fmt: skip
        terms = terms.reweighted(at.weights) if at.weights else terms
        floored = terms if terms.floored is None else Terms(terms.log_likelihood, terms.floored)
        surrogate = floored.elbo(at.kl_weight)
        bound = surrogate if at.kl_weight == 1 and floored is terms else terms.elbo()
        return Step(surrogate, bound.detach(), terms)


def _head_weights(weights: Any) -> dict[str, float]:
    """Return the weights of heads.

    Raises:
        TypeError: they name no heads.
        ValueError: one is negative or not finite.
    """
    if not isinstance(weights, Mapping):
        raise TypeError(f'ELBO: head_weights must name heads, e.g. {{"spikes": 2.0}}; found {weights!r:.80}')
    for name, value in weights.items():
        if not is_number(value) or not 0 <= value < math.inf:
            raise ValueError(f"ELBO: head_weights must be finite and not negative; found {value!r} for {name!r}")
    return {name: float(value) for name, value in weights.items()}
