"""Local latents by the noise that they are made of, and baselines by levels, for samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import identity_transform

from latentrnn.data import SequenceData
from latentrnn.models.latents.from_noise import from_noise, is_from_noise, noise_of
from latentrnn.models.latents.latent import where_valid
from latentrnn.models.parameters.drawn import with_values
from latentrnn.models.readouts import LinearReadout, linear
from latentrnn.models.rollout import Rollout
from latentrnn.models.sites import LATENTS, parameter_site
from latentrnn.models.state_space import LatentRNN

BASELINE = "readout.baseline"
AT_ONCE = 2**20  # numbers of latents that are made of their noise at a time

Values = Mapping[str, Tensor]


class NonCentred:
    """The program of a model whose local latents x = f(e) are drawn by their noise e ~ Normal(0, I).

        p(theta) Normal(e; 0, I) p(y | f(e, theta), theta)

    which is the density of the model itself in other coordinates, and the better ones where data say little of x: e
    does not depend on parameters a priori, while the spread of x does. A baseline b with a prior, of a linear readout,
    is drawn by its level, b + W h averaged over sequences and steps, which is what data tell of: where h moves slowly,
    b and the mean of h are only known together, and the more loosely the slower it moves. A shift has no volume.

    Args:
        model, data: as of `latentrnn.sample`.

    Raises:
        ValueError: no local latent, or one that is no location and scale of normal noise at every step.

    References:
        Papaspiliopoulos, Roberts, Sköld. A general framework for the parametrization of hierarchical models. 2007.
        Betancourt, Girolami. Hamiltonian Monte Carlo for hierarchical models. 2015.
    """

    def __init__(self, model: LatentRNN, data: SequenceData) -> None:
        names = [site.name for site in model.latent_sites()]
        if not names:
            raise ValueError(
                f"sample: parametrisation='noncentred' is one of local latents, and {model.latent!r} draws none"
            )
        self.model, self.data = model, data
        with torch.no_grad(), pyro.validation_enabled(False):
            trace = poutine.trace(model.unroll).get_trace(data)
        for name in names:
            if not is_from_noise(trace.nodes[name]["fn"]):
                raise ValueError(
                    f"sample: parametrisation='noncentred' takes latents that are location + scale * normal noise at "
                    f"every step; the latent {name!r} of {model.latent!r} is another; expected 'centred'"
                )
        self.noises = {name: f"{name}_noise" for name in names}
        self.heads = {
            parameter_site(name, BASELINE): name
            for name, head in model.observations.items()
            if head.head.per_step and head.reads is None and isinstance(head.readout, LinearReadout)
        }
        self.levels = {
            site: f"{site}_level"
            for site, (prior, _) in model.parameter_sites().items()
            if site in self.heads and _on_the_line(prior)
        }

    def __call__(self, data: SequenceData) -> Any:
        rollout, plate, priors = self._begin(data)
        for site, baseline in self._baselines(rollout, -1).items():
            pyro.factor(f"{site}_prior", priors[site].log_prob(baseline).sum())
            head = self.heads[site]
            raw = rollout.observations[head].to_units(BASELINE, baseline)
            moved = with_values(rollout.observations[head], {BASELINE: raw})
            rollout.observations = {**rollout.observations, head: moved}
            rollout.heads = {**rollout.heads, head: moved}
        return self.model.observe(rollout, plate)

    def noise(self, values: Values) -> dict[str, Tensor]:
        """Return values of all sites by what is drawn in their place: noise, levels, and all others as they are."""
        with torch.no_grad(), pyro.validation_enabled(False):
            recorder = poutine.trace(poutine.condition(self.model.unroll, data=dict(values)))
            trace = recorder.get_trace(self.data)
            rollout = trace.nodes["_RETURN"]["value"]
            levels = self._baselines(rollout, 1)
        found = {noise: noise_of(trace.nodes[name]["fn"], values[name]) for name, noise in self.noises.items()}
        found |= {self.levels[site]: level for site, level in levels.items()}
        return {name: value for name, value in values.items() if name not in (*LATENTS, *levels)} | found

    def values(self, drawn: Values) -> dict[str, Tensor]:
        """Return draws, (chain, draw, *shape) by site, of the model's own sites."""
        chains = next(iter(drawn.values())).shape[:2]
        flat = {name: value.flatten(0, 1) for name, value in drawn.items()}
        largest = max(flat[noise][0].numel() for noise in self.noises.values())
        pieces = zip(*(value.split(max(1, AT_ONCE // largest)) for value in flat.values()), strict=True)
        parts = [self._values(dict(zip(flat, piece, strict=True))) for piece in pieces]
        made = {name: torch.cat([part[name] for part in parts]).unflatten(0, chains) for name in parts[0]}
        own = {name: site for site, name in {**self.levels, **self.noises}.items()}
        return {own.get(name, name): made.get(own.get(name, name), value) for name, value in drawn.items()}

    def _values(self, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return latents and baselines, (draw, *shape), of draws, (draw, *shape) by what is drawn."""
        noises, device = set(self.noises.values()), self.data.device
        given = {name: (value if name in noises else value.unsqueeze(1)).to(device) for name, value in drawn.items()}
        with torch.no_grad(), pyro.validation_enabled(False):
            trace = poutine.trace(poutine.condition(self._begin, data=given)).get_trace(self.data)
            baselines = self._baselines(trace.nodes["_RETURN"]["value"][0], -1)
        found = {name: trace.nodes[name]["value"].expand(drawn[noise].shape) for name, noise in self.noises.items()}
        found |= {site: value.reshape(drawn[self.levels[site]].shape) for site, value in baselines.items()}
        return {name: value.cpu() for name, value in found.items()}

    def _begin(self, data: SequenceData) -> tuple[Rollout, pyro.plate, dict[str, dist.Distribution]]:
        """Draw noise and levels, and return rollout, plate, and the priors of baselines, whose place levels take."""
        priors: dict[str, dist.Distribution] = {}
        by_noise: dict[str, Reparam] = {name: _ByNoise(data) for name in self.noises}
        by_level: dict[str, Reparam] = {name: _ByLevel(priors) for name in self.levels}
        with poutine.reparam(config={**by_noise, **by_level}):
            rollout, plate = self.model.begin(data)
        return rollout, plate, priors

    def _baselines(self, rollout: Rollout, sign: int) -> dict[str, Tensor]:
        """Return what is in the place of baselines plus or minus the mean of W h, in the units of sites, by site."""
        if not self.levels:
            return {}
        data, found = rollout.data, {}
        steps = where_valid(rollout.states(), data, 0.0).sum((-3, -2), keepdim=True) / data.valid.sum()
        for site in self.levels:
            head = rollout.observations[self.heads[site]]
            weight = cast(LinearReadout, head.readout).weight
            mean = linear(steps, weight).squeeze(-2)
            mean = mean.squeeze(0) if steps.dim() == 3 else mean  # a single draw has no plate's axis
            found[site] = head.from_units(BASELINE, head.readout.baseline + sign * mean)
        return found


def _on_the_line(prior: dist.Distribution) -> bool:
    transform = biject_to(prior.support)
    return getattr(transform, "base_transform", transform) == identity_transform


class _ByNoise(Reparam):
    """x at a site in the place of x ~ p: e ~ Normal(0, I) at the site's name and "_noise", and x = f(e)."""

    def __init__(self, data: SequenceData) -> None:
        super().__init__()
        self.data = data

    def apply(self, msg: Any) -> Any:
        shape, events = msg["fn"].batch_shape + msg["fn"].event_shape, len(msg["fn"].event_shape)
        zero = torch.zeros(shape, dtype=self.data.dtype, device=self.data.device)
        noise = pyro.sample(f"{msg['name']}_noise", dist.Normal(zero, 1.0, validate_args=False).to_event(events))
        return _instead(from_noise(msg["fn"], noise), events)


class _ByLevel(Reparam):
    """A level in the place of b ~ p, without a density of its own, at the site's name and "_level"; p is noted."""

    def __init__(self, priors: dict[str, dist.Distribution]) -> None:
        super().__init__()
        self.priors = priors

    def apply(self, msg: Any) -> Any:
        self.priors[msg["name"]] = msg["fn"]
        level = pyro.sample(f"{msg['name']}_level", msg["fn"].mask(False))
        return _instead(level, len(msg["fn"].event_shape))


def _instead(value: Tensor, events: int) -> dict[str, Any]:
    return {"fn": dist.Delta(value, event_dim=events).mask(False), "value": value, "is_observed": True}
