"""Which part of a head's response is its stimulus gain, and which part of that the gate's doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.transition_runs import TransitionRun
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.results.labelled import AnyPosterior, in_rows, labelled, pooled
from latentrnn.models.observations import Observation
from latentrnn.support.arguments import check_choice
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

OWNER = "gain_share"


@isolated
def gain_share(posterior: AnyPosterior, head: str, num_samples: int = 100) -> xarray.Dataset:
    """Return which share of the linear predictor's variance a head's stimulus gain makes, draw by draw.

        eta_t = rest_t + c_t,  c_t = beta (g_t * s_t):   share = cov(c, eta) / var(eta),   gated = var(c - c') / var(c)

    over all scored steps of all sequences; c' is the same gain with each gate at its average over them. Shares of c and
    of the rest add up to one; where the two are at odds one is negative. `gated` is zero where a gate stands still.

    Args:
        posterior: of a model, or of an ensemble.
        head: a per-step head with a `StimulusGain`.
        num_samples: number of draws.

    Returns:
        "share" and "gated", (sample, output).

    Raises:
        ValueError: an unknown head, or one without a gain.
        TypeError: something that is no posterior.
    """
    return pooled(OWNER, posterior, num_samples, lambda one, count: _of_one(one, head, count))


def _of_one(posterior: Posterior, head: str, num_samples: int) -> xarray.Dataset:
    check_choice(OWNER, "head", head, list(posterior.model.observations))
    if posterior.model.observations[head].gain is None:
        raise ValueError(f"{OWNER}: head {head!r} has no StimulusGain")
    parts = []
    for run in posterior.transition_runs(num_samples):
        with torch.no_grad():
            parts.append(_parts(run, head, num_samples))
    found = in_rows(parts)
    scored = found["scored"][0]
    eta, gain, gate, stimulus = (found[name][:, scored].double() for name in ("eta", "gain", "gate", "stimulus"))
    beta = found["beta"][:, 0].double()
    still = torch.einsum("sof,snf,sf->sno", beta, stimulus, gate.mean(1))
    centred = eta - eta.mean(1, keepdim=True)
    share = (centred * (gain - gain.mean(1, keepdim=True))).mean(1) / centred.square().mean(1)
    gated = (gain - still).var(1, correction=0) / gain.var(1, correction=0)
    axes = ("sample", "output")
    return labelled(posterior.data, {"share": (axes, share), "gated": (axes, gated)}, attributes={"head": head})


def _parts(run: TransitionRun, head: str, num_samples: int) -> dict[str, Tensor]:
    """Return eta, what the gain adds to it, its gate and stimulus, (sample, sequence, time, ...), and beta."""
    rollout = run.rollout
    observation, data = rollout.observations[head], rollout.data
    gain = cast(Observation, rollout.heads[head]).gain  # with its draws, if any
    stimulus = rollout.inputs[head].stimulus
    assert gain is not None
    assert stimulus is not None
    states = rollout.states().expand(num_samples, data.num_sequences, -1, -1)
    at_clock = observation.at_clock(states, data.observations[head].shape[1])
    eta = rollout.predictor(head, states)
    beta = gain.beta if gain.beta.dim() > 2 else gain.beta.expand(1, *gain.beta.shape)
    shape = (num_samples, data.num_sequences)
    return {
        "eta": eta.expand(*shape, *eta.shape[-2:]),
        "gain": gain(at_clock, stimulus).expand(*shape, *eta.shape[-2:]),
        "gate": gain.gate(at_clock, stimulus).expand(*shape, *stimulus.shape[-2:]),
        "stimulus": stimulus.expand(*shape, *stimulus.shape[-2:]),
        "beta": beta.reshape(-1, *beta.shape[-2:]).expand(num_samples, *beta.shape[-2:]).unsqueeze(1),
        "scored": data.scored(head).any(-1).expand(*shape, -1),
    }
