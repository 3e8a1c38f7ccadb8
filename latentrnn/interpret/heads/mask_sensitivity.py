"""What a prediction owes to what was observed: entries hidden, and all inferred again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.results.labelled import AnyPosterior, Variable, labelled, pooled
from latentrnn.support.arguments import check_selection
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray


@isolated
def mask_sensitivity(
    posterior: AnyPosterior, head: str, hidden: str, channels: Sequence[str] | None = None, num_samples: int = 50
) -> xarray.Dataset:
    """Return how a head's prediction changes where a channel of a head is hidden, one after the other.

    A hidden channel is missing throughout: encoders that are told what is missing are told so, and latents are inferred
    again. What changes is what the prediction owes to that channel's values and to when it was observed.

    Args:
        posterior: of a model, or of an ensemble.
        head: whose mean is looked at.
        hidden: the per-step head whose channels are hidden.
        channels: which of them, by name; all by default.
        num_samples: number of draws; hidden or not, they start from the same seed.

    Returns:
        "change", hidden less observed, of the head's mean averaged over draws, (hidden_channel, sequence, time,
        <head>_channel), or without time of a head that has one value per sequence; "size", the root mean square over
        all else, (hidden_channel); and "observed", the share of entries that the channel has, (hidden_channel).

    Raises:
        ValueError: an unknown head or channel, or a hidden head that has one value per sequence.
        TypeError: something that is no posterior.
    """
    found = pooled("mask_sensitivity", posterior, num_samples, lambda one, n: _of_one(one, head, hidden, channels, n))
    return found.mean("sample", keep_attrs=True)


def _of_one(
    posterior: Posterior, head: str, hidden: str, channels: Sequence[str] | None, num_samples: int
) -> xarray.Dataset:
    data, heads = posterior.data, posterior.data.spec.heads
    for argument, name in (("head", head), ("hidden", hidden)):
        if name not in posterior.model.observations:
            known = sorted(posterior.model.observations)
            raise ValueError(f"mask_sensitivity: {argument}: unknown head {name!r}; the model has {known}")
    if not heads[hidden].per_step:
        raise ValueError(f"mask_sensitivity: {hidden!r} has one value per sequence; expected a per-step head")
    names = list(heads[hidden].channel_names)
    chosen = names if channels is None else check_selection("mask_sensitivity", "channels", channels, names)
    before = posterior.mean(head, num_samples)
    changes = [_hidden(posterior, hidden, names.index(name)).mean(head, num_samples) - before for name in chosen]
    change = torch.stack(changes)
    time = ("time" if heads[head].clock == 1 else f"{head}_time",) if heads[head].per_step else ()
    sizes = torch.stack([_root_mean_square(each) for each in change])
    places = [names.index(name) for name in chosen]
    shares = np.array([float(_inside(data, hidden)[..., place].double().mean()) for place in places])
    variables: dict[str, Variable] = {
        "change": (("sample", "hidden_channel", "sequence", *time, f"{head}_channel"), change[None]),
        "size": (("sample", "hidden_channel"), sizes[None]),
        "observed": (("hidden_channel",), shares),
    }
    return labelled(data, variables, coords={"hidden_channel": chosen})


def _hidden(posterior: Posterior, head: str, channel: int) -> Posterior:
    data = posterior.data
    mask = data.masks[head].clone()
    mask[..., channel] = False
    # what is known of the data no longer holds
    other = replace(data, masks={**data.masks, head: mask}, gapless={}, constants={})
    settings = {"result": posterior.result, "device": posterior.device, "seed": posterior.seed}
    return Posterior(posterior.model, posterior.guide, other, chains=posterior.chains, **settings)  # type: ignore[arg-type]


def _inside(data: SequenceData, head: str) -> Tensor:
    """Return the mask's rows inside the sequences, (entry, channel)."""
    mask = data.masks[head]
    steps = torch.arange(mask.shape[1], device=mask.device)
    return mask[steps < (data.lengths // data.spec.heads[head].clock)[:, None]]


def _root_mean_square(value: Tensor) -> Tensor:
    return value[value.isfinite()].square().mean().sqrt()
