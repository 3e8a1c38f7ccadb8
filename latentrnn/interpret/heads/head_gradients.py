"""What heads ask of the weights that they share: how hard each pulls, and whether they pull the same way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.fitting.settings.reporting import Progress
from latentrnn.inference.objectives.terms import elbo_terms
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_kind_of, check_seed, check_size
from latentrnn.support.isolation import random_state

if TYPE_CHECKING:
    import xarray


def head_gradients(
    model: LatentRNN, guide: nn.Module, data: SequenceData, *, num_particles: int = 4, seed: int = 0
) -> xarray.Dataset:
    """Return how hard each head pulls at the weights that heads share, and whether they pull the same way.

        g_k = d E_q[log p(y^k | z)] / d w,   nats per sequence,   w: what at least two heads have a gradient of

    A ratio of norms far from one says that one head has the state to itself; a negative cosine, that heads are at odds.
    Weights are compared as they stand, so that the numbers are of this parameterisation.

    Args:
        model, guide: fitted, or on the way.
        data: sequences that fit the model.
        num_particles: draws of the guide.
        seed: of the draws.

    Returns:
        "norm" (head), "cosine" (head, other_head), and in the attributes "num_weights" (how many are shared) and
        "largest_ratio" of two norms.

    Raises:
        ValueError: a model with a single head, or heads that share nothing.
        TypeError: something that is no model, or no data.
    """
    check_kind_of("head_gradients", "model", model, LatentRNN)
    check_kind_of("head_gradients", "guide", guide, nn.Module)
    check_kind_of("head_gradients", "data", data, SequenceData)
    check_size("head_gradients", "num_particles", num_particles)
    seed = check_seed("head_gradients", seed)
    if type(guide).forward is nn.Module.forward:
        raise TypeError(f"head_gradients: guide must be a Guide; found {type(guide).__name__}")
    heads = list(model.observations)
    if len(heads) < 2:
        raise ValueError(f"head_gradients: expected a model of several heads; found {heads}")
    found = _gradients(model, guide, data, num_particles, seed)
    shared = [i for i in range(len(next(iter(found.values())))) if sum(found[h][i] is not None for h in heads) > 1]
    if not shared:
        raise ValueError(f"head_gradients: the heads {heads} share no weights that are learned")
    flat = torch.stack([_flat(found, head, shared) for head in heads]) / len(data)
    norms = flat.norm(dim=-1)
    cosine = flat @ flat.T / (norms[:, None] * norms).clamp_min(torch.finfo(flat.dtype).tiny)
    return _labelled(heads, norms.cpu().numpy(), cosine.cpu().numpy(), flat.shape[1])


def _flat(found: Mapping[str, tuple[Tensor | None, ...]], head: str, shared: list[int]) -> Tensor:
    """Return a head's gradient with respect to the shared weights, zero where it has none, as one vector in double."""
    parts = []
    for place in shared:
        own = found[head][place]
        like = next(other for gradients in found.values() if (other := gradients[place]) is not None)
        parts.append((torch.zeros_like(like) if own is None else own).flatten().double())
    return torch.cat(parts)


def _gradients(
    model: LatentRNN, guide: nn.Module, data: SequenceData, num_particles: int, seed: int
) -> dict[str, tuple[Tensor | None, ...]]:
    """Return each head's gradient of its expected log-likelihood, by weight of model and guide; None without one."""
    weights = list({id(p): p for part in (model, guide) for p in part.parameters() if p.requires_grad}.values())
    device = weights[0].device
    data = data.to(device, weights[0].dtype)
    with random_state(seed, device), torch.enable_grad():
        terms = elbo_terms(model, guide, data, num_particles=num_particles).log_likelihood
        return {
            head: torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            for head, term in terms.items()
        }


def _labelled(heads: list[str], norms: Any, cosine: Any, weights: int) -> xarray.Dataset:
    import xarray

    ratios = [norms[i] / max(norms[j], 1e-300) for i, j in itertools.permutations(range(len(heads)), 2)]
    return xarray.Dataset(
        {"norm": ("head", norms), "cosine": (("head", "other_head"), cosine)},
        {"head": heads, "other_head": heads},
        {"num_weights": weights, "largest_ratio": float(max(ratios)), "units": "nats per sequence"},
    )


class HeadGradients:
    """A callback of `fit` that notes `head_gradients` along a fit: `Reporting(callbacks=[HeadGradients(data)])`.

    Args:
        data: sequences to look at, the same each time; few do.
        every: steps between two looks, at the reports of the fit.
        num_particles: draws of the guide.
        seed: of the draws, the same each time.

    Raises:
        ValueError: a number out of range.
        TypeError: data of another kind.
    """

    def __init__(self, data: SequenceData, *, every: int = 50, num_particles: int = 4, seed: int = 0) -> None:
        self.data = check_kind_of("HeadGradients", "data", data, SequenceData)
        self.every = check_size("HeadGradients", "every", every)
        self.num_particles = check_size("HeadGradients", "num_particles", num_particles)
        self.seed = check_seed("HeadGradients", seed)
        self.found: dict[int, xarray.Dataset] = {}

    def __call__(self, progress: Progress) -> None:
        """Look at the fit, if it is time."""
        last = max(self.found, default=None)
        if progress.kind != "report" or (last is not None and progress.step - last < self.every):
            return
        assert progress.model is not None
        assert progress.guide is not None
        settings: Mapping[str, int] = {"num_particles": self.num_particles, "seed": self.seed}
        self.found[progress.step] = head_gradients(progress.model, progress.guide, self.data, **settings)

    def to_xarray(self) -> xarray.Dataset:
        """Return what was noted, with the dim "step".

        Raises:
            ValueError: no fit has called it yet.
        """
        if not self.found:
            raise ValueError("HeadGradients: no fit has called this yet; give it as Reporting(callbacks=[...])")
        import xarray

        parts = list(self.found.values())
        joined = xarray.concat(parts, xarray.Variable("step", np.array(list(self.found))), combine_attrs="drop")
        return joined.assign_attrs(num_weights=parts[0].attrs["num_weights"], units="nats per sequence")

    def __repr__(self) -> str:
        return f"HeadGradients({self.data!r}, every={self.every}), {len(self.found)} looks"
