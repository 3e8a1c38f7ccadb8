"""The density of data and parameters with priors, local latents integrated out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.guides.fitted import Fit
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.terms import local_log_prob, sampled_sites
from latentrnn.models.sites import LATENTS
from latentrnn.models.state_space import LatentRNN


class Marginal:
    """p(theta) prod_n p(y_n | theta) as a Pyro program whose only sites are the parameters.

    Without random latents it is exact. Otherwise

        p(y_n | theta) ~ 1/K sum_k p(y_n, z_nk | theta) / q(z_nk | y_n),   z_nk ~ q(z | y_n), drawn once

    so that the density is a smooth function of theta, the same at every evaluation, as gradients, Hessians and NUTS
    need it. It falls short of the true one by about half the relative variance of the weights over K.

    Args:
        model: on the data's device.
        guide: of the local latents; None where there are none.
        data: all of the sequences.
        num_particles: K.

    References:
        Geyer. On the convergence of Monte Carlo maximum likelihood calculations. 1994.
        Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. 2016.
    """

    def __init__(self, model: LatentRNN, guide: Guide | None, data: SequenceData, num_particles: int) -> None:
        self.model, self.data, self.num_particles = model, data, num_particles
        self.names = frozenset(model.parameter_sites())
        self.latents: dict[str, Tensor] = {}
        self.log_q = torch.zeros((), dtype=data.dtype, device=data.device)
        if guide is not None and model.latent_sites():
            with torch.no_grad(), pyro.plate("particles", num_particles, dim=-2):
                trace = poutine.trace(guide).get_trace(data)
            self.latents = {name: site["value"] for name, site in sampled_sites(trace) if name in LATENTS}
            self.log_q = local_log_prob(trace, self.log_q, observed=False)

    def __call__(self) -> None:
        total = self._log_weights()
        if self.latents:
            total = torch.logsumexp(total, 0) - math.log(self.num_particles)
        pyro.factor("log_evidence", total.sum())

    def _log_weights(self) -> Tensor:
        """Run the model, of which only the parameters are seen from outside, and return log p(y, z) - log q(z)."""

        def hidden(site: dict[str, Any]) -> bool:
            return site["name"] not in self.names

        with poutine.block(hide_fn=hidden), poutine.trace() as recorder, poutine.condition(data=self.latents):
            self.model(self.data)
        return local_log_prob(recorder.trace, -self.log_q, observed=True)

    def parts(self, count: int) -> list[Marginal]:
        """Return the densities by equal parts of the draws, which differ by what the draws leave to chance."""
        found = []
        for rows in torch.arange(self.num_particles).split(self.num_particles // count)[:count]:
            part = copy.copy(self)
            part.num_particles = len(rows)
            part.latents = {name: value[rows] for name, value in self.latents.items()}
            part.log_q = self.log_q[rows]
            found.append(part)
        return found

    def log_weights(self, values: dict[str, Tensor]) -> Tensor:
        """Return log p(y, z | theta) - log q(z | y), nats, (particle, sequence); (sequence,) without random latents."""
        with poutine.condition(data=values):
            return self._log_weights()

    def log_density(self, values: dict[str, Tensor]) -> Tensor:
        """Return log p(theta, y) at given parameters, nats."""
        return poutine.trace(poutine.condition(self, data=values)).get_trace().log_prob_sum()


def fixed_model(
    owner: str, model: LatentRNN, data: SequenceData, given: Fit | None, *, integrate: bool
) -> tuple[LatentRNN, Guide | None]:
    """Return copies of the model whose weights are taken as they are, and of the guide of its local latents, if any.

    Raises:
        ValueError: the data do not fit, nothing has a prior, `given` is of another model, or local latents are to be
            integrated out and no guide is given.
        TypeError: something of the wrong kind.
    """
    for name, value, kind in (("model", model, LatentRNN), ("data", data, SequenceData)):
        if not isinstance(value, kind):
            raise TypeError(f"{owner}: {name} must be a {kind.__name__}; found {type(value).__name__}")
    if given is not None and not isinstance(given, Fit):
        raise TypeError(f"{owner}: given must be a FitResult; found {type(given).__name__}")
    if given is not None and given.model.config() != model.config():
        raise ValueError(f"{owner}: given holds another model: expected {model!r}; found {given.model!r}")
    if data.indices is not None:
        raise ValueError(f"{owner}: needs all of the data at once, not a batch of a larger plate")
    model.check(data)
    if integrate and not model.parameter_sites():
        raise ValueError(
            f"{owner}: no parameter has a prior, so there is none to infer; e.g. Poisson(priors={{'baseline': ...}})"
        )
    if integrate and model.latent_sites() and given is None:
        names = [site.name for site in model.latent_sites()]
        raise ValueError(
            f"{owner}: the local latents {names} can only be integrated out with a guide that follows them: fit one, "
            "and pass the result as given="
        )
    model = copy.deepcopy(model if given is None else given.model).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, None if given is None else copy.deepcopy(given.guide).eval()
