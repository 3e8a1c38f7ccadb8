"""Which estimate of the evidence to take: the rule behind `evidence("auto")`, comparisons and held-out scores.

1. Where nothing is random the evidence is exact, and there is nothing to choose.
2. Sequences of up to 100 steps, and latents that do not go along time: importance weights of whole paths ("iwae"),
   taken if k-hat is at most 0.7 for every sequence; else once more with sixteen times as many draws, which are cheap,
   and of which k-hat is better known.
3. Otherwise particle filters with as many particles: from a mixture of guide and prior, or from the prior alone where
   the guide's family cannot be drawn step by step. Taken if no step is carried by fewer than two particles (or by
   fewer than a tenth of them with k-hat above 0.7), and independent filters lie within one nat of each other
   (standard deviation).
4. Otherwise filters from the prior alone, and then the better of the two with four times as many particles.
5. If none of them passes, the filters that lie closest together are returned, and say that they are doubtful; whoever
   rests a comparison on them warns. Annealing (`AIS`), at many times the cost, is never chosen, but advised.

Models that filters cannot go through (heads that feed back and depend on earlier states, a squared-exponential prior, a
posterior in windows) end with importance weights, sound or not. What decides is the diagnosis, never the value.
"""

from __future__ import annotations

from collections.abc import Callable

from latentrnn.inference.evidence.evidence import AIS, SMC, Evidence

Estimate = Callable[[str | SMC | AIS, int], Evidence]  # of a kind, with so many particles

SHORT = 100  # steps up to which importance weights of whole paths are tried
MORE = 4  # times as many particles of filters in a second attempt
MORE_DRAWS = 16  # the same of importance weights


def best(estimate: Estimate, num_particles: int, *, num_steps: int, along_time: bool) -> Evidence:
    """Return the evidence by the first rung that its own diagnosis lets pass, see above.

    Args:
        estimate: what returns the evidence of a kind.
        num_particles: importance draws, and particles per filter.
        num_steps: of the sequences.
        along_time: whether latents go along time.
    """
    weighed = None
    if not along_time or num_steps <= SHORT:
        weighed = estimate("iwae", num_particles)
        if bool(weighed.doubtful.any()):
            weighed = estimate("iwae", MORE_DRAWS * num_particles)
        if not along_time or not bool(weighed.doubtful.any()):
            return weighed
    filtered = _filtered(estimate, num_particles)
    if filtered is not None:
        return filtered
    return estimate("iwae", num_particles) if weighed is None else weighed


def _filtered(estimate: Estimate, num_particles: int) -> Evidence | None:
    """Return the evidence by filters; None where there cannot be any."""
    tried = []
    for proposal in ("mixture", "prior"):
        found = _filters(estimate, proposal, num_particles)
        if found is not None and not bool(found.doubtful.any()):
            return found
        tried += [] if found is None else [found]
    if not tried:
        return None
    closest = min(tried, key=_distance)
    assert closest.proposal is not None
    more = _filters(estimate, closest.proposal, MORE * num_particles)
    if more is None:
        return closest
    # those that pass are taken, even where the doubtful ones before happened to lie closer together
    return min(closest, more, key=_distance) if bool(more.doubtful.any()) else more


def _filters(estimate: Estimate, proposal: str, num_particles: int) -> Evidence | None:
    try:
        return estimate(SMC(proposal=proposal), num_particles)
    except ValueError:  # a model, or for the mixture a family, without steps; what else is wrong shows in any rung
        return None


def _distance(found: Evidence) -> float:
    """Return how far filters lie apart on average, infinite where that is not known."""
    assert found.spread is not None
    return float(found.spread.nan_to_num(float("inf")).mean())
