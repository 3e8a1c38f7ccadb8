"""The variational posterior: an encoder, a family over local latents, a family over parameters with priors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.distributions.transforms import identity_transform
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.inference.encoders import Encoder
from latentrnn.models.component import from_config
from latentrnn.models.latents import LatentSite
from latentrnn.models.latents.latent import where_valid
from latentrnn.models.state_space import LatentRNN, refuse_param_store, sequence_plate

GLOBAL_FAMILIES = ("normal", "multivariate")
JOINT = "parameters"  # the auxiliary site of the multivariate family


class Guide(nn.Module):
    """q(parameters) q(latents | data), as a Pyro program with the model's sites and plate.

    Local latents are mean-field: Normal with location and scale from the encoder, amortised over sequences; in
    padding they equal the prior. Parameters with a prior are Normal or jointly multivariate Normal in unconstrained
    space. A guide keeps no reference to its model.

    Args:
        model: the model whose sites it covers; read once, for their shapes.
        encoder: summarises the data for local latents; it may be left out where the model has none.
        global_family: "normal" (independent) or "multivariate".

    Raises:
        ValueError: the model has local latents but no encoder is given; an unknown family; a head that feeds back
            while the encoder observes only others.
        TypeError: something that is not an encoder or a model.

    References:
        Kingma, Welling. Auto-encoding variational Bayes. 2014.
        Kucukelbir, Tran, Ranganath, Gelman, Blei. Automatic differentiation variational inference. 2017.
    """

    parameter_sites: NormalParameters | MultivariateParameters | None

    def __init__(self, model: LatentRNN, *, encoder: Encoder | None = None, global_family: str = "normal") -> None:
        super().__init__()
        if not isinstance(model, LatentRNN):
            raise TypeError(f"Guide: model must be a LatentRNN; found {type(model).__name__}")
        if encoder is not None and not isinstance(encoder, Encoder):
            raise TypeError(f"Guide: encoder must be an Encoder; found {type(encoder).__name__}")
        if global_family not in GLOBAL_FAMILIES:
            raise ValueError(f"Guide: global_family must be one of {list(GLOBAL_FAMILIES)}; found {global_family!r}")
        self._description = {"encoder": None if encoder is None else encoder.config(), "global_family": global_family}
        self.spec, self.sites = model.spec, model.latent_sites()
        self.encoder: Encoder | None = None
        self.local = nn.ModuleDict()
        if self.sites:
            if encoder is None:
                names = [site.name for site in self.sites]
                raise ValueError(f"Guide: the model's latent sites {names} need an encoder, e.g. RNNEncoder(64)")
            self.encoder = encoder.fresh()
            self.encoder.build(model.spec, {name: head.view for name, head in model.observations.items()})
            _refuse_leaks(model, self.encoder)
            for site in self.sites:
                size = self.encoder.step_size if site.along_time else self.encoder.summary_size
                self.local[site.name] = NormalHead(size, site.dim)
        parameters = model.parameter_sites()
        family = MultivariateParameters if global_family == "multivariate" else NormalParameters
        self.parameter_sites = family(parameters) if parameters else None

    def forward(self, data: SequenceData) -> dict[str, Tensor]:
        """Run the Pyro program on a batch and return the value of every site."""
        refuse_param_store(type(self).__name__)
        values = {} if self.parameter_sites is None else self.parameter_sites()
        if self.encoder is None:
            return values
        encoding = self.encoder(data)
        with sequence_plate(data):
            for site in self.sites:
                values[site.name] = pyro.sample(site.name, self._local(site, encoding, data))
        return values

    def _local(self, site: LatentSite, encoding: Any, data: SequenceData) -> dist.Distribution:
        loc, scale = self.local[site.name](encoding.steps if site.along_time else encoding.summary)
        if not site.along_time:
            return dist.Normal(loc, scale, validate_args=False).to_event(1)
        loc, scale = where_valid(loc, data, 0.0), where_valid(scale, data, 1.0)
        return dist.Normal(loc, scale, validate_args=False).to_event(2)

    def initialise(self, model: LatentRNN, data: SequenceData) -> None:
        """Start from the model's starting values and the training data's scales."""
        if self.encoder is not None:
            self.encoder.initialise(data)
        if self.parameter_sites is not None:
            self.parameter_sites.start_at({name: start for name, (_, start) in model.parameter_sites().items()})

    def config(self) -> dict[str, Any]:
        """Return the JSON form: all hyper-parameters, without the weights."""
        return self._description

    @classmethod
    def from_config(cls, config: Mapping[str, Any], model: LatentRNN) -> Guide:
        """Return an untrained guide for `model` from its JSON form."""
        encoder = None if config["encoder"] is None else from_config(config["encoder"])
        return cls(model, encoder=encoder, global_family=config["global_family"])

    def __repr__(self) -> str:
        return f"Guide(sites={[site.name for site in self.sites]}, encoder={self.encoder!r})"


def _refuse_leaks(model: LatentRNN, encoder: Encoder) -> None:
    for name, head in model.observations.items():
        if head.feedback is not None and head.head.per_step and name not in encoder.visible:
            raise ValueError(
                f"observations[{name!r}] feeds back into the state but is held out from the encoder: what is held out "
                "for co-smoothing must not reach the state by another way; drop its feedback, or let the encoder see it"
            )


class NormalHead(nn.Module):
    """Location and scale of a Normal from encoder features."""

    start_scale = 0.3

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(size, 2 * dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start near zero with a moderate scale: neither the prior's noise nor certainty."""
        with torch.no_grad():
            self.map.weight.normal_(0.0, 0.1 / self.map.in_features**0.5)
            self.map.bias.zero_()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale, (..., dim) each."""
        loc, raw = self.map(features).chunk(2, -1)
        return loc, F.softplus(raw + math.log(math.expm1(self.start_scale))) + 1e-5


class _Parameters(nn.Module):
    """What both families over parameters share: the sites' supports and shapes."""

    def __init__(self, parameters: Mapping[str, tuple[dist.Distribution, Tensor]]) -> None:
        super().__init__()
        self.shapes = {name: start.shape for name, (_, start) in parameters.items()}
        self.transforms = {name: biject_to(prior.support) for name, (prior, _) in parameters.items()}

    def _unconstrained(self, name: str, start: Tensor) -> Tensor:
        free = self.transforms[name].inv(start)
        return torch.where(torch.isfinite(free), free, 0.0)  # a start outside the support begins in its middle


class NormalParameters(_Parameters):
    """q(theta) = prod Normal(m, s^2) over every entry of every site, in unconstrained space."""

    def __init__(self, parameters: Mapping[str, tuple[dist.Distribution, Tensor]]) -> None:
        super().__init__(parameters)
        keys = {name: name.replace(".", "_") for name in self.shapes}
        self._keys = keys
        self.loc = nn.ParameterDict({keys[name]: torch.zeros(shape) for name, shape in self.shapes.items()})
        self.log_scale = nn.ParameterDict({keys[name]: torch.zeros(shape) for name, shape in self.shapes.items()})
        self.start_at({name: start for name, (_, start) in parameters.items()})

    def start_at(self, starts: Mapping[str, Tensor]) -> None:
        """Put the location at `starts` and the scale at 0.05."""
        with torch.no_grad():
            for name, start in starts.items():
                self.loc[self._keys[name]].copy_(self._unconstrained(name, start))
                self.log_scale[self._keys[name]].fill_(math.log(0.05))

    def forward(self) -> dict[str, Tensor]:
        """Sample every site."""
        values = {}
        for name, shape in self.shapes.items():
            loc, scale = self.loc[self._keys[name]], self.log_scale[self._keys[name]].exp()
            base = dist.Normal(loc, scale, validate_args=False).to_event(len(shape))
            transform = self.transforms[name]
            # a plain Normal where the support is the real line, so that its divergence has a closed form
            free = getattr(transform, "base_transform", transform) == identity_transform
            values[name] = pyro.sample(name, base if free else dist.TransformedDistribution(base, [transform]))
        return values


class MultivariateParameters(_Parameters):
    """q(theta) = Normal(m, L L^T) over all sites jointly, in unconstrained space."""

    def __init__(self, parameters: Mapping[str, tuple[dist.Distribution, Tensor]]) -> None:
        super().__init__(parameters)
        size = sum(shape.numel() for shape in self.shapes.values())
        self.loc = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))
        self.mixing = nn.Parameter(torch.zeros(size, size))
        self.start_at({name: start for name, (_, start) in parameters.items()})

    def start_at(self, starts: Mapping[str, Tensor]) -> None:
        """Put the location at `starts` and the covariance at 0.05^2 times the identity."""
        with torch.no_grad():
            flat = [self._unconstrained(name, starts[name]).flatten() for name in self.shapes]
            self.loc.copy_(torch.cat(flat))
            self.log_scale.fill_(math.log(0.05))
            self.mixing.zero_()

    def forward(self) -> dict[str, Tensor]:
        """Sample all sites at once, at an auxiliary site, and hand out its parts."""
        scale = self.log_scale.exp()
        tril = scale.unsqueeze(-1) * (torch.tril(self.mixing, -1) + torch.eye(len(scale)).to(scale))
        joint = dist.MultivariateNormal(self.loc, scale_tril=tril, validate_args=False)
        flat = pyro.sample(JOINT, joint, infer={"is_auxiliary": True})
        values, start = {}, 0
        for name, shape in self.shapes.items():
            part = flat[..., start : start + shape.numel()].reshape(*flat.shape[:-1], *shape)
            start += shape.numel()
            value = self.transforms[name](part)
            log_jacobian = self.transforms[name].log_abs_det_jacobian(part, value)
            log_jacobian = log_jacobian.reshape(*flat.shape[:-1], -1).sum(-1)
            delta = dist.Delta(value, log_density=-log_jacobian, event_dim=len(shape))
            values[name] = pyro.sample(name, delta)
        return values
