"""Whether leaving out one sequence by importance weights (PSIS-LOO) means anything for a posterior."""

from __future__ import annotations

from collections.abc import Iterable

from latentrnn.data import SequenceData, SequenceKey
from latentrnn.inference.guides.fitted import Provenance
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.parameters import PointParameters
from latentrnn.inference.posterior.draws.stored_draws import StoredDraws
from latentrnn.models.state_space import LatentRNN


def reason_against_loo(
    model: LatentRNN, guide: Guide, data: SequenceData, provenance: Provenance | None, *, fully_known: bool = False
) -> str | None:
    """Return why importance weights cannot leave a sequence out of a posterior; None where they can.

    The weights 1 / p(y_n | theta_s) take y_n out of draws theta_s of p(theta | y). So y must be what the draws were
    conditioned on, and all that was learned from y must be among theta: what is a point estimate keeps what it learned
    from y_n whatever the weights, and the estimate says how well y_n was remembered.

    Args:
        model, guide: of the posterior.
        data: the sequences to leave out.
        provenance: what model and guide were learned from; None where it is not known.
        fully_known: the user's word that both hold, taken only where it is not known.

    References:
        Vehtari, Gelman, Gabry. Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC. 2017.
    """
    if guide.parameter_sites is None or (isinstance(guide, StoredDraws) and not guide.parameter_sites.names):
        return "no parameter has a posterior: all are point estimates or known"
    if isinstance(guide.parameter_sites, PointParameters):
        return 'the parameters with priors are at one point (global_family="point"), which is no posterior'
    conditioned: Iterable[SequenceKey] | None
    if isinstance(guide, StoredDraws):
        conditioned = guide.conditioned_on
        learned = any(key.overlaps(other) for key in data.keys for other in guide.learned_from)
    elif provenance is None:
        return None if fully_known else "it does not come from a fit, so that what it has seen is not known"
    else:
        conditioned, learned = provenance.conditioned_on, bool(provenance.learned_from)
    if conditioned is None:
        return "sequences that were fitted are not told from those that decided when to stop; fit without validation"
    if unseen := len(set(data.keys) - set(conditioned)):
        return f"{unseen} of {len(data)} sequences were never in the posterior: there is nothing to leave out"
    if learned and (names := [name for name, value in model.named_parameters() if value.numel()]):
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"{shown} are point estimates learned from the same sequences, which no weights can undo"
    if len(model.couplings) and not isinstance(guide, StoredDraws):
        return "the fit had couplings, which are no part of any sequence's density"
    return None
