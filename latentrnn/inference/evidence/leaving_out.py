"""Whether leaving out one sequence by importance weights (PSIS-LOO) means anything for a posterior."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from latentrnn.data import SequenceKey
from latentrnn.inference.guides.parameters import PointParameters
from latentrnn.inference.posterior.stored_draws import StoredDraws

if TYPE_CHECKING:
    from latentrnn.inference.fitting.result import FitResult
    from latentrnn.inference.posterior.posterior import Posterior


def reason_against_loo(posterior: Posterior, *, fully_known: bool = False) -> str | None:
    """Return why importance weights cannot leave a sequence out of this posterior; None where they can.

    The weights 1 / p(y_n | theta_s) take y_n out of draws theta_s of p(theta | y). So y must be what the draws were
    conditioned on, and all that was learned from y must be among theta: what is a point estimate keeps what it learned
    from y_n whatever the weights, and the estimate says how well y_n was remembered.

    Args:
        posterior: of the sequences to leave out.
        fully_known: the user's word that both hold, taken only where the posterior does not come from a fit.

    References:
        Vehtari, Gelman, Gabry. Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC. 2017.
    """
    guide = posterior.guide
    if guide.parameter_sites is None or (isinstance(guide, StoredDraws) and not guide.parameter_sites.names):
        return "no parameter has a posterior: all are point estimates or known"
    if isinstance(guide.parameter_sites, PointParameters):
        return 'the parameters with priors are at one point (global_family="point"), which is no posterior'
    if isinstance(guide, StoredDraws):
        conditioned: Iterable[SequenceKey] = guide.conditioned_on
        learned = any(key.overlaps(other) for key in posterior.data.keys for other in guide.learned_from)
    elif posterior.result is None:
        return None if fully_known else "it does not come from a fit, so that what it has seen is not known"
    elif _validated(posterior.result):
        return "sequences that were fitted are not told from those that decided when to stop; fit without validation"
    else:
        conditioned, learned = posterior.result.used, _learned(posterior.result)
    if unseen := len(set(posterior.data.keys) - set(conditioned)):
        return f"{unseen} of {len(posterior.data)} sequences were never in the posterior: there is nothing to leave out"
    if learned and (names := [name for name, value in posterior.model.named_parameters() if value.numel()]):
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"{shown} are point estimates learned from the same sequences, which no weights can undo"
    if len(posterior.model.couplings) and not isinstance(guide, StoredDraws):
        return "the fit had couplings, which are no part of any sequence's density"
    return None


def _validated(result: FitResult) -> bool:
    return any(name.startswith("validation_") and values for name, values in result.history.items())


def _learned(result: FitResult) -> bool:
    """Return whether weights without priors were learned from the result's own sequences; Laplace takes them given."""
    return result.settings.get("method") != "laplace" or bool(result.settings.get("continued"))
