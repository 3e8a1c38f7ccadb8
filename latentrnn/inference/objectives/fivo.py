"""The filtering variational objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pyro import poutine
from pyro.poutine.trace_struct import Trace

from latentrnn.inference.filters.particle_filter import ParticleFilter
from latentrnn.inference.objectives.objective import Evaluation, Objective, Step
from latentrnn.inference.objectives.terms import PARAMETERS, elbo_terms
from latentrnn.inference.objectives.weighted_draws import parameter_kl
from latentrnn.support.arguments import check_number, settle


@dataclass(frozen=True)
class FIVO(Objective):
    """log Z of a particle filter with the guide as proposal, per sequence, with K = `num_particles` particles.

    A filtering variational objective. E[Z] = p(y), so that it is a bound; particles are resampled on the way, so that
    it stays tight on sequences over which importance weights of whole paths collapse. A guide that filters (a causal
    encoder) suits it best: weights of the first steps know nothing of what is still to come. The gradient goes through
    draws and weights; how resampling depends on the weights is left out of it, a small bias for much less variance.
    The terms in the history are those of the ELBO, for one other draw.

    Args:
        resample_below: effective share of the particles below which they are resampled; 0 is IWAE, step by step.
        num_particles, kl, coordinated_dropout: see `Objective`.

    Raises:
        ValueError: a share outside [0, 1]; while fitting, a guide whose family cannot be drawn step by step.

    References:
        Maddison, Lawson, Tucker, Heess, Norouzi, Mnih, Doucet, Teh. Filtering variational objectives. 2017.
        Naesseth, Linderman, Ranganath, Blei. Variational sequential Monte Carlo. 2018.
        Le, Igl, Rainforth, Jin, Wood. Auto-encoding sequential Monte Carlo. 2018.
    """

    resample_below: float = 0.5
    num_particles: int = field(default=8, kw_only=True)
    fewest_particles = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, resample_below=check_number("FIVO", "resample_below", self.resample_below, least=0, most=1))

    def step(self, at: Evaluation) -> Step:
        shown = at.data if at.guide_data is None else at.guide_data
        guide: Any = at.guide
        fixed = Trace() if guide.parameter_sites is None else poutine.trace(guide.parameter_sites).get_trace()
        with poutine.trace() as recorder, poutine.replay(trace=fixed):
            rollout = at.model.unroll(at.data)  # type: ignore[attr-defined]
        run = ParticleFilter(
            rollout,
            at.num_particles,
            proposals=guide.local.proposals(guide.variational_parameters(shown), at.data) if guide.sites else None,
            resample_below=self.resample_below,
            prior_weight=at.kl_weight,
            head_weights=at.weights,
        ).run()
        scale = at.data.total / at.data.num_sequences
        kl = parameter_kl(fixed, recorder.trace, at.data)
        bound = scale * run.log_evidence.sum() - at.kl_weight * kl
        terms = elbo_terms(at.model, at.guide, at.data, guide_data=at.guide_data, by_sequence=at.by_sequence)
        if guide.parameter_sites is not None:
            terms = terms._replace(kl=terms.kl | {PARAMETERS: kl.detach()})
        terms = terms.reweighted(at.weights) if at.weights else terms
        return Step(bound, bound.detach(), terms._replace(by_sequence=run.log_evidence.detach().sum(0)))
