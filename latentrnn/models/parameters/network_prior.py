"""Priors over the weights of a network: Normal by fan-in, with scales that are inferred as well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, biject_to

from latentrnn.models.component import Component, InOwnUnits
from latentrnn.models.parameters.distributions import check_distribution, described, expanded
from latentrnn.models.parameters.parameter_spec import TIMES, ParameterSpec, in_words
from latentrnn.models.sites import parameter_site
from latentrnn.support.arguments import check_flag, check_number, is_number

WEIGHTS = "weights"  # the name by which a prior is put on all weights of a part at once
MATRICES, BIASES = "scale", "bias_scale"  # what the scales of a network are called, as arguments and as sites
LEAST_START = 0.1  # of a scale, where weights start at zero
_BIASES = ("bias", "baseline")


class NetworkPrior(Component):
    """A prior over the weights of a transition or a readout: Normal by fan-in, with scales that are inferred as well.

        s_k ~ HalfNormal(scale),       W_k ~ Normal(0, s_k^2 / fan_in) for every entry of the weight matrix k
        r_j ~ HalfNormal(bias_scale),  b_j ~ Normal(0, r_j^2)          for every entry of the bias j

    so that a unit's input has the same spread whatever the number of units it comes from, and each matrix learns how
    large its weights are. Given by the name "weights", it is put on every tensor of the part that no other prior and
    no fixed value names, time constants and what else has a support of its own left out:
    `lr.GRU(32, priors={"weights": lr.NetworkPrior()})`; beside it `"kernel.bias_hh_l0"` may have a prior of its own.
    Given by the name of one tensor, it is a prior of that tensor. `lr.Poisson(priors={"weights": ...})` is a prior on
    the linear readout alone, the last layer.

    Each tensor is a Pyro site by its own name, and the scales are the sites `transition.weights.scale` and
    `transition.weights.bias_scale` (`spikes.readout.weights.scale` of a readout), one number for each tensor in the
    order of `model.parameters_table()`. fan_in is the length of a tensor's last axis; biases are tensors of one axis
    and those that are called so, baselines too. All is said in the network's own units, in which what drives it and
    what it predicts is standardised, so that the prior is the same whatever the units of the data. It is centred on
    zero (a layer norm's gains on one), also where weights start elsewhere, at an identity for instance: a baseline
    that must be far from zero, the logarithm of a low rate, is better given a prior of its own.

    A guide draws all of them at once. `Guide(global_family="normal")` has two numbers for each weight and
    `"low_rank"` a few more; `"multivariate"`, `"flow"` and `laplace` are for a last layer, and refuse networks that are
    too large. A posterior over weights averages over predictions; no weight by itself means anything.

    Args:
        scale: of the prior of s_k; or a scalar distribution over positive numbers, the prior itself.
        bias_scale: the same of r_j.
        learned: whether scales that are given as numbers are inferred; else s_k = scale and r_j = bias_scale, known.
        shared: whether all matrices of the part have one scale, and all biases one.

    Raises:
        ValueError: a scale that is not positive, or a distribution that is not scalar or not over positive numbers.
        TypeError: a scale that is neither a number nor a distribution, or a flag that is none.

    References:
        Neal. Bayesian learning for neural networks. 1996.
        MacKay. A practical Bayesian framework for backpropagation networks. 1992.
        Gelman. Prior distributions for variance parameters in hierarchical models. 2006.

    Example:
        >>> import latentrnn as lr
        >>> lr.GRU(32, priors={"weights": lr.NetworkPrior(scale=0.5, learned=False)})
        GRU(hidden_size=32, priors={'weights': NetworkPrior(scale=0.5, learned=False)})
    """

    def __init__(
        self,
        *,
        scale: float | Distribution = 1.0,
        bias_scale: float | Distribution = 1.0,
        learned: bool = True,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.scale, self.bias_scale = _checked(MATRICES, scale), _checked(BIASES, bias_scale)
        self.learned = check_flag("NetworkPrior", "learned", learned)
        self.shared = check_flag("NetworkPrior", "shared", shared)

    def of_scale(self, part: str) -> Distribution | None:
        """Return the prior of the scales of matrices ("scale") or biases ("bias_scale"); None where they are known."""
        given = getattr(self, part)
        if isinstance(given, Distribution):
            return given
        return dist.HalfNormal(torch.tensor(given, dtype=torch.float64)) if self.learned else None


@dataclass(frozen=True)
class WeightPrior(InOwnUnits):
    """The prior of one tensor of a network: Normal(around, scale^2 / fan_in).

    Args:
        network: of which it is a part.
        group: the site whose parts are the scales of the network.
        part: "scale" for a matrix, "bias_scale" for a bias.
        place: of its scale among those of the group; None where they share one.
        fan_in: how many inputs are added up; 1 for a bias.
        around: where it is centred.
        dims: what its axes stand for.
    """

    network: NetworkPrior
    group: str
    part: str
    place: int | None
    fan_in: int
    around: float
    dims: tuple[str, ...]

    def distribution(
        self, like: Tensor, centre: Tensor, unit: Tensor, scales: Mapping[str, Tensor]
    ) -> dist.Distribution:
        """Return the distribution of the tensor, all entries in the event.

        Args:
            like: a tensor of its shape.
            centre, unit: where it is centred, and how large one of the network's own units is, in the units of its
                site; both broadcast to its shape.
            scales: of the group, by part: (*sample, 1, tensor), (*sample, 1) where one is shared, or without the
                leading axes.
        """
        scale = scales[self.part] if self.place is None else scales[self.part][..., self.place]
        scale = scale.reshape(*scale.shape, *[1] * like.dim())
        entries = dist.Normal(centre, unit * scale * self.fan_in**-0.5, validate_args=False)
        return entries.expand(scale.shape[: scale.dim() - like.dim()] + like.shape).to_event(like.dim())

    def standard(self, value: Tensor, centre: Tensor, unit: Tensor) -> Tensor:
        """Return a value in units in which its prior's standard deviation is the scale."""
        return (value - centre) / unit * self.fan_in**0.5

    def __repr__(self) -> str:
        given = self.network.of_scale(self.part)
        scale = "learned" if given is not None else f"{getattr(self.network, self.part):g}"
        return f"NetworkPrior, {f'fan-in {self.fan_in}' if self.part == MATRICES else 'bias'}, scale {scale}"


class NetworkGroup:
    """The tensors that share a `NetworkPrior`, and the sites of their scales.

    Args:
        site: by which the group goes, e.g. "transition.weights".
        prior: that they share.
        tensors: spec and tensor of each, by name of parameter.
    """

    parts: ClassVar = (MATRICES, BIASES)

    def __init__(self, site: str, prior: NetworkPrior, tensors: Mapping[str, tuple[ParameterSpec, Tensor]]) -> None:
        self.site, self.prior = site, prior
        self.names: dict[str, list[str]] = {part: [] for part in self.parts}
        self.members: dict[str, WeightPrior] = {}
        for name, (spec, tensor) in tensors.items():
            matrix = _is_matrix(spec, tensor)
            part = MATRICES if matrix else BIASES
            place = None if prior.shared else len(self.names[part])
            fan_in = max(tensor.shape[-1], 1) if matrix else 1
            around = 0.0 if spec.around is None else spec.around
            self.members[name] = WeightPrior(prior, site, part, place, fan_in, around, _dims(spec, tensor))
            self.names[part].append(name)

    def site_of(self, part: str) -> str:
        """Return what the scales of matrices or of biases are called in the whole model."""
        return parameter_site(self.site, part)

    def learned(self) -> dict[str, Distribution]:
        """Return the priors of the scales that are inferred, by part, each of one number."""
        priors = {part: self.prior.of_scale(part) for part, names in self.names.items() if names}
        return {part: prior for part, prior in priors.items() if prior is not None}

    def priors(self, like: Tensor) -> dict[str, dist.Distribution]:
        """Return the priors of the scales that are inferred, by part, in the type and on the device of `like`."""
        return {part: expanded(prior, self._empty(part, like)) for part, prior in self.learned().items()}

    def known(self, like: Tensor) -> dict[str, Tensor]:
        """Return the scales that are known, by part."""
        unknown = self.learned()
        return {
            part: torch.full_like(self._empty(part, like), getattr(self.prior, part))
            for part, names in self.names.items()
            if names and part not in unknown
        }

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """Sample the scales that are inferred (Pyro statements), and return all of them by part."""
        found = self.known(like)
        for part, prior in self.priors(like).items():
            value = pyro.sample(self.site_of(part), prior)
            # pyro's Predictive(parallel=True) drops the axis of the plate where a guide has no local latents
            found[part] = value.unsqueeze(1) if value.dim() == len(prior.event_shape) + 1 else value
        return found

    def start(self, standard: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the scales of the members' starting values, by part, known ones as they are.

        Args:
            standard: these values in units in which a scale is their standard deviation, by name.
        """
        like = next(iter(standard.values()))
        found = self.known(like)
        for part in self.learned():
            sizes = torch.stack([standard[name].square().mean().sqrt() for name in self.names[part]])
            sizes = sizes.square().mean().sqrt() if self.prior.shared else sizes
            found[part] = sizes.clamp_min(LEAST_START)
        return found

    def _empty(self, part: str, like: Tensor) -> Tensor:
        return like.new_zeros(() if self.prior.shared else (len(self.names[part]),))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of the scales in a table of parameters, by site."""
        return {
            self.site_of(part): {
                "shape": () if self.prior.shared else (len(self.names[part]),),
                "dims": "" if self.prior.shared else "tensor",
                "unit": "",
                "support": in_words(prior.support),
                "given": described(prior),
            }
            for part, prior in self.learned().items()
        }


def weights_of(specs: Mapping[str, ParameterSpec], spoken_for: set[str]) -> list[str]:
    """Return the names of a part's weights and biases, those left out that something else is said of.

    Args:
        specs: of the part's parameters, by name.
        spoken_for: tensors that have priors or known values of their own.
    """
    no_weights = spoken_for | {spec.raw for spec in specs.values() if not _is_weight(spec)}
    first: dict[str, str] = {}  # of several names of one tensor
    for name, spec in specs.items():
        first.setdefault(spec.raw, name)
    return [name for raw, name in first.items() if raw not in no_weights]


def _is_weight(spec: ParameterSpec) -> bool:
    """Return whether a parameter is a network's weight or bias: any real number that is no rate in time."""
    return in_words(spec.support) == "real" and spec.unit not in TIMES


def _is_matrix(spec: ParameterSpec, tensor: Tensor) -> bool:
    last = spec.raw.rpartition(".")[2]
    return tensor.dim() > 1 and spec.around is None and not any(word in last for word in _BIASES)


def _dims(spec: ParameterSpec, tensor: Tensor) -> tuple[str, ...]:
    """Return what the axes of a tensor stand for, as its component says or as it is in every network."""
    if len(spec.dims) == tensor.dim():
        return spec.dims
    last = ("output", "input") if _is_matrix(spec, tensor) else ("unit",)
    return (*(f"axis {axis}" for axis in range(tensor.dim() - len(last))), *last)[-tensor.dim() :]


def _checked(name: str, given: Any) -> float | Distribution:
    """Return a scale, or the prior of one.

    Raises:
        ValueError: it is not positive.
        TypeError: it is neither a number nor a distribution.
    """
    if is_number(given):
        return check_number("NetworkPrior", name, given, above=0)
    if not isinstance(given, Distribution):
        raise TypeError(
            f"NetworkPrior: {name} must be a positive number or a distribution; found {type(given).__name__}"
        )
    check_distribution("NetworkPrior", name, given)
    shape = given.batch_shape + given.event_shape
    if shape or not math.isfinite(low := float(biject_to(given.support)(torch.tensor(-20.0)))) or low < 0:
        raise ValueError(
            f"NetworkPrior: {name} needs a prior of one positive number, such as HalfNormal or HalfCauchy; found "
            f"{given!r}" + (f" of shape {tuple(shape)}" if shape else "")
        )
    return given
