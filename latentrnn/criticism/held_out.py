"""Evidence on sequences that neither the fit nor its stopping rule has seen, and the checks that insist on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from latentrnn.criticism.scores import Score, jackknife
from latentrnn.inference.evidence.evidence import AIS, AUTO, KINDS, SMC
from latentrnn.inference.fitting.result import FitResult
from latentrnn.support.arguments import check_choice, check_flag


def check_held_out(name: str, keys: Iterable[Any], used: Iterable[Any] | None, *, held_out: bool) -> None:
    """Raise unless the scored stretches are disjoint from what was used to fit or to stop.

    Args:
        name: what to call the model in the message.
        keys: `SequenceKey` of what is scored.
        used: `SequenceKey` of the training and stopping data; None when not known.
        held_out: the user's word that the data are held out, taken only where nothing is known.

    Raises:
        ValueError: with the number of sequences that overlap, or when it cannot be told.
    """
    if used is None:
        if not held_out:
            raise ValueError(
                f"{name}: cannot tell what it was fitted on (it does not come from a fit); in-sample evidence favours "
                "over-fitted models. If the data are held out, say held_out=True"
            )
        return
    stretches: dict[str, list[tuple[int, int]]] = {}
    for key in used:
        stretches.setdefault(key.key, []).append((key.start, key.stop))
    keys = tuple(keys)
    seen = sum(any(k.start < stop and start < k.stop for start, stop in stretches.get(k.key, ())) for k in keys)
    if seen:
        raise ValueError(
            f"{name}: {seen} of {len(keys)} sequences were used to fit it or to stop the fit, and in-sample evidence "
            "of point-estimated weights favours over-fitted models. Use result.posterior(held-out data); if every "
            "parameter has a posterior, az.loo(posterior.to_arviz()) is the in-sample alternative"
        )


def held_out_log_likelihood(
    posterior: Any, *, kind: str | SMC | AIS = "auto", num_particles: int = 64, held_out: bool = False
) -> Score:
    """Mean log evidence per sequence (nats) of sequences that the fit has not seen.

        log p(y_n) = log of the integral of p(y_n, z) over z

    All heads jointly, local latents integrated out. The encoder proposes latents from y_n itself: this is importance
    sampling of an integral, so it scores the model, not the reconstruction. The standard error is over sequences;
    `Score.evidence` has the Monte Carlo error, effective sample sizes and k-hat, which the score prints along.

    Args:
        posterior: a `Posterior` of held-out sequences.
        kind: of the evidence: "auto" (the rule of `latentrnn.inference.evidence.rungs`), "iwae", "smc", "ais",
            "exact", or `SMC(...)` or `AIS(...)`.
        num_particles: importance samples per sequence, or particles per filter; the estimate tightens as it grows.
        held_out: your word that the data are held out, needed where the posterior does not come from a fit.

    Raises:
        TypeError: something else than a posterior.
        ValueError: for sequences used in the fit or its stopping, fewer than two sequences, or the kind "elbo".

    Warns:
        UserWarning: where k-hat exceeds 0.7 or filters disagree, so that the number is not to be believed.

    References:
        Y. Burda, R. Grosse, R. Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
    """
    check_posterior("held_out_log_likelihood", "posterior", posterior)
    check_no_bound("held_out_log_likelihood", kind)
    held_out = check_flag("held_out_log_likelihood", "held_out", held_out)
    used = None if posterior.result is None else posterior.result.used
    check_held_out("posterior", posterior.data.keys, used, held_out=held_out)
    if len(posterior.data) < 2:
        raise ValueError(
            f"posterior: {len(posterior.data)} sequence gives no standard error; for one long recording use "
            "one_step_ahead_log_likelihood with block_length="
        )
    evidence = posterior.evidence(kind, num_particles=num_particles)
    evidence.warn("held_out_log_likelihood", "posterior")
    values = evidence.values.to(torch.float64)
    value, error = jackknife(values, torch.ones_like(values), "nats/sequence")
    blocks = tuple((key, key.start) for key in posterior.data.keys)
    return Score(value, error, "nats/sequence", 0, values.numel(), values, torch.ones_like(values), blocks, evidence)


def check_posterior(owner: str, name: str, value: Any) -> None:
    """Raise a TypeError for what has no evidence, a fit above all."""
    if isinstance(value, FitResult):
        raise TypeError(f"{owner}: {name} must be a posterior; found a FitResult, use result.posterior(held-out data)")
    if not hasattr(value, "evidence") or not hasattr(value, "data"):
        raise TypeError(f"{owner}: {name} must be a Posterior; found {type(value).__name__}")


def check_no_bound(owner: str, kind: Any) -> None:
    """Raise unless the kind of evidence comes as close to it as one likes: how far the ELBO is off is the guide's."""
    if isinstance(kind, SMC | AIS):
        return
    check_choice(owner, "kind", kind, [AUTO, *(known for known in KINDS if known != "elbo")])
