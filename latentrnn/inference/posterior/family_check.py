"""Whether a guide's family was chosen against the evidence: a cheap look at the end of a fit."""

from __future__ import annotations

import math

import torch

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.evidence.evidence import summarise
from latentrnn.inference.guides.families.default import default_family
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.terms import log_weights
from latentrnn.inference.posterior.priors.check import some_of
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.isolation import random_state

SEQUENCES, DRAWS = 4, 64
WORTH = 1.0  # nats per sequence that are worth a remark


def family_remark(model: LatentRNN, guide: Guide, data: SequenceData | StoredSequences, seed: int) -> str:
    """Return what there is to say of a family that is not the default one for the model's latents; "" for nothing.

    The distance from the ELBO to a bound with many draws, on a few sequences, is what the family leaves at least. It
    costs as much as a few steps of a fit, and nothing where the family is the default one.

    Args:
        model, guide: fitted.
        data: that they were fitted to.
        seed: of the draws.
    """
    sites = guide.sites
    if not sites or not any(site.along_time for site in sites) or not guide.local.amortised:
        return ""
    default = default_family(sites)
    if isinstance(guide.local, type(default)):
        return ""
    few = some_of(model, data, DRAWS)[:SEQUENCES]
    training = model.training, guide.training
    model.eval(), guide.eval()
    try:
        with random_state(seed, few.device), torch.no_grad():
            weights = log_weights(model, guide, few, DRAWS)
    finally:
        model.train(training[0]), guide.train(training[1])
    bounds = {kind: summarise(kind, weights) for kind in ("elbo", "iwae")}
    gap = bounds["iwae"].total - bounds["elbo"].total
    error = math.hypot(*(bound.total_standard_error for bound in bounds.values()))
    if gap <= WORTH * len(few) or gap <= 3 * error:
        return ""
    return (
        f"the guide's family {guide.local!r} leaves at least {gap / len(few):.1f} +- {error / len(few):.1f} nats per "
        f"sequence between the ELBO and the log evidence ({len(few)} sequences); {default!r} is the default for "
        f"{type(model.latent).__name__}"
    )
