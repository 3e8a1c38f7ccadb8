"""Evidence on sequences that neither the fit nor its stopping rule has seen, and the door that insists on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from latentrnn.criticism.scores import Score, jackknife


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


def held_out_log_likelihood(posterior: Any, *, num_particles: int = 64, held_out: bool = False) -> Score:
    """Mean log evidence per sequence (nats) of sequences that the fit has not seen.

        log p(y_n) >= E[log (1/K) sum_k p(y_n, z_k) / q(z_k | y_n)],   z_k ~ q,   K particles

    All heads jointly, local latents integrated out. The encoder proposes latents from y_n itself: this is importance
    sampling of an integral, so it scores the model, not the reconstruction. The standard error is over sequences.

    Args:
        posterior: a `Posterior` of held-out sequences.
        num_particles: K; the bound tightens as it grows.
        held_out: your word that the data are held out, needed where the posterior does not come from a fit.

    Raises:
        ValueError: for sequences used in the fit or its stopping, or fewer than two sequences.

    References:
        Y. Burda, R. Grosse, R. Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
    """
    used = None if posterior.result is None else posterior.result.used
    check_held_out("posterior", posterior.data.keys, used, held_out=held_out)
    values = posterior.evidence("iwae", num_particles=num_particles).values.to(torch.float64)
    if values.numel() < 2:
        raise ValueError(
            f"posterior: {values.numel()} sequence gives no standard error; for one long recording use "
            "one_step_ahead_log_likelihood with block_length="
        )
    value, error = jackknife(values, torch.ones_like(values), "nats/sequence")
    blocks = tuple((key, key.start) for key in posterior.data.keys)
    return Score(value, error, "nats/sequence", 0, values.numel(), values, torch.ones_like(values), blocks)
