"""The parameters of a model that have priors, as Pyro sites in the units of the data, and those that are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from latentrnn.data import DataSpec
from latentrnn.models.component import Component, InOwnUnits, tensor_at
from latentrnn.models.parameters.distributions import check_distribution, described, without_event
from latentrnn.models.parameters.drawn import with_values
from latentrnn.models.parameters.network_prior import WEIGHTS, NetworkGroup, WeightPrior
from latentrnn.models.parameters.networks import spread_over_networks, starting_scales
from latentrnn.models.parameters.ordered import OrderedNormal
from latentrnn.models.parameters.parameter import Parameter, Sampled
from latentrnn.models.parameters.parameter_spec import TIMES, ParameterSpec, in_words, within
from latentrnn.models.parameters.priors import Population, Prior
from latentrnn.models.sites import parameter_site
from latentrnn.support.private_symbols import modes_active, transforms_active

# populations by name, with their members
Populations = dict[str, tuple[Population, list[Parameter]]]


class GivenParameters:
    """What is said of the parameters of a model's parts by priors and known values.

    Args:
        parts: the parts by the names of owners, built. What has a prior or is known becomes a buffer.

    Raises:
        ValueError: a prior or a value of a parameter that a component does not have, of another support or shape, two
            for one parameter, two parameters of one name, or one population described in two ways.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        self.parts: dict[str, Any] = dict(parts)
        self.sampled: list[Sampled] = []
        self.known: list[tuple[Parameter, Any]] = []
        self.networks: dict[str, NetworkGroup] = {}
        for owner, component, part in _components(self.parts):
            self.networks |= spread_over_networks(Parameter(owner, self.parts[owner], component, part, WEIGHTS))
            specs, taken = part.parameter_specs(), dict[str, str]()
            for name, given in (part.own_priors() | part.own_fixed()).items():
                parameter = Parameter(owner, self.parts[owner], component, part, name)
                _check_name(parameter, specs)
                if (other := taken.setdefault(specs[name].raw, name)) != name:
                    raise ValueError(f"{parameter.said}: {other!r} and {name!r} are one parameter; give one of them")
                if name in part.own_fixed():
                    _check_value(parameter, given)
                    self.known.append((parameter, given))
                else:
                    _check_prior(parameter, given)
                    self.sampled.append(Sampled(parameter, given))
        for parameter in [*(each.parameter for each in self.sampled), *(each for each, _ in self.known)]:
            parameter.of.settle(parameter.spec.raw)
        self.populations = _populations(self.sampled, self.parts)
        names = [each.parameter.site for each in self.sampled]
        names += [group.site_of(scales) for group in self.networks.values() for scales in group.learned()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"observations: {sorted(twice)} would be sites of a head and of another part; rename it")
        self._shapes = {each.parameter.site: each.parameter.value().shape for each in self.sampled}
        # those that depend on no draw, by site, in the type and on the device in which they were last asked for
        self._priors: dict[str, tuple[tuple[torch.dtype, torch.device], dist.Distribution]] = {}
        self.set_known()

    def set_known(self) -> None:
        """Put known values in their places; again whenever the units of the data were taken."""
        for parameter, given in sorted(self.known, key=lambda each: bool(each[0].spec.follows)):
            like = parameter.value()
            parameter.set(torch.as_tensor(given, dtype=like.dtype, device=like.device).expand(like.shape))

    def in_data_units(self, *owners: str) -> bool:
        """Whether priors or known values of parts say something of their inputs, so that these must be as the data are.

        All may, but for times and frequencies, and priors that are meant in a network's own units.
        """
        sampled = [each.parameter for each in self.sampled if not isinstance(each.prior, InOwnUnits)]
        given = [*sampled, *(each for each, _ in self.known)]
        return any(each.spec.unit not in TIMES for each in given if each.owner in owners)

    def sites(self) -> dict[str, tuple[dist.Distribution, Tensor]]:
        """Return prior and starting value of every site, by its name."""
        if not self.sampled:
            return {}
        found: dict[str, tuple[dist.Distribution, Tensor]] = {}
        shared = {}
        for name, (population, members) in self.populations.items():
            units = torch.cat([member.unit().flatten() for member in members])
            shared[name] = population.start([member.unconstrained() for member in members], units.mean())
            for part, prior in population.priors_of(shared[name]["location"]).items():
                found[parameter_site(name, part)] = (prior, shared[name][part])
        scales, priors = starting_scales(self.networks, self.sampled)
        shared |= scales
        found |= priors
        for each in self.sampled:
            start = each.parameter.value()
            density = each.distribution(start, shared)
            found[each.parameter.site] = (density, _start_in_order(density, start))
        return found

    def units(self) -> dict[str, Tensor]:
        """Return how large every site is by the units of its data, by site name."""
        found: dict[str, Tensor] = {}
        for name, (_, members) in self.populations.items():
            unit = torch.cat([member.unit().flatten() for member in members]).mean()
            found |= {parameter_site(name, part): unit for part in ("location", "scale")}
        return found | {parameter.site: parameter.unit() for parameter, _ in self.sampled}

    def weights(self) -> dict[str, WeightPrior]:
        """Return the priors of the tensors of networks, by site."""
        priors = {each.parameter.site: each.prior for each in self.sampled}
        return {site: prior for site, prior in priors.items() if isinstance(prior, WeightPrior)}

    def axes(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the owner of every parameter with a prior and what its axes stand for, () where nothing says it."""
        return {each.parameter.site: (each.parameter.owner, each.dims) for each in self.sampled}

    def with_learned_priors(self) -> list[str]:
        """Return the sites of parameters whose priors have numbers that are inferred with them."""
        members = {parameter.site for _, of in self.populations.values() for parameter in of}
        learned = {site for site, prior in self.weights().items() if prior.network.of_scale(prior.part) is not None}
        return [each.parameter.site for each in self.sampled if each.parameter.site in members | learned]

    def learned_scales(self) -> list[str]:
        """Return the sites of scales of networks that are inferred together with the weights."""
        return [group.site_of(part) for group in self.networks.values() for part in group.learned()]

    def table(self, clock: DataSpec) -> Any:
        """Return every parameter of the parts as a data frame, times on a clock; see `LatentRNN.parameters_table`."""
        from latentrnn.support.whole_table import WholeTable

        rows: dict[str, dict[str, Any]] = {}
        for owner, component, part in _components(self.parts):
            given = part.own_priors() | part.own_fixed()
            specs = part.parameter_specs()
            shown: dict[str, str] = {}  # tensor to the name under which it is listed
            for name, spec in specs.items():
                if name in given or spec.raw not in shown:
                    shown[spec.raw] = name
            for name in shown.values():
                parameter = Parameter(owner, self.parts[owner], component, part, name)
                prior = given.get(name)
                dims = prior.dims if isinstance(prior, WeightPrior) else specs[name].dims
                rows[parameter.site] = {
                    "shape": tuple(parameter.value().shape),
                    "dims": ", ".join(dims),
                    "unit": specs[name].unit_on(clock),
                    "support": in_words(specs[name].support),
                    "given": _given_in_words(parameter),
                }
            for group in {prior.group: prior for prior in given.values() if isinstance(prior, WeightPrior)}:
                rows |= self.networks[group].rows()
        columns = ["shape", "dims", "unit", "support", "given"]
        return WholeTable(list(rows.values()), index=list(rows), columns=columns)

    def sample(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Sample every site (Pyro statements), and return the parts with the draws in the place of their parameters.

        Args:
            parts: as they are now: copies of those that were given, perhaps.
        """
        if not self.sampled:
            return parts
        shared = {name: population.sample(self._like(of[0])) for name, (population, of) in self.populations.items()}
        values: list[tuple[Parameter, int, Tensor]] = []
        for each in self.sampled:
            parameter, like = each.parameter, self._like(each.parameter)
            if isinstance(each.prior, WeightPrior) and each.prior.group not in shared:
                shared[each.prior.group] = self.networks[each.prior.group].sample(like)
            value = pyro.sample(parameter.site, self._prior(each, like, shared))
            # pyro's Predictive(parallel=True) drops the axis of the plate where a guide has no local latents
            value = value.unsqueeze(1) if value.dim() == like.dim() + 1 else value
            values.append((parameter, like.dim(), value))
        values.sort(key=lambda each: bool(each[0].spec.follows))  # what follows from others comes after them
        tensors: dict[str, dict[str, Tensor]] = {}
        leading: dict[str, torch.Size] = {}
        for parameter, own, value in values:
            tensor = parameter.tensor(value, tensors.get(parameter.owner, {}))
            if tensor.dim() > own and parameter.of_family:
                shape = tensor.shape[: tensor.dim() - own]
                leading[parameter.owner] = torch.broadcast_shapes(leading.get(parameter.owner, shape), shape)
                if parameter.part.head.per_step:
                    tensor = tensor.unsqueeze(len(shape))  # room for time
            tensors.setdefault(parameter.owner, {})[parameter.tensor_path] = tensor
        found = {owner: with_values(part, tensors.get(owner, {})) for owner, part in parts.items()}
        for owner, shape in leading.items():
            found[owner].draws_shape = shape  # a copy's own
        return found

    def _like(self, parameter: Parameter) -> Tensor:
        """Return a tensor of a parameter's shape and type, whose values say nothing."""
        raw, shape = tensor_at(parameter.of, parameter.spec.raw), self._shapes[parameter.site]
        return raw if raw.shape == shape else raw.new_empty(shape)

    def _prior(self, each: Sampled, like: Tensor, shared: Mapping[str, Mapping[str, Tensor]]) -> dist.Distribution:
        """Return a prior, at every step of a fit the same where it depends on no draw."""
        if isinstance(each.prior, Population | WeightPrior) or transforms_active() or modes_active():
            return each.distribution(like, shared)
        kind, known = (like.dtype, like.device), self._priors.get(each.parameter.site)
        if known is None or known[0] != kind:
            with torch.inference_mode(False):
                known = self._priors[each.parameter.site] = (kind, each.distribution(like, shared))
        return known[1]


def _start_in_order(prior: dist.Distribution, start: Tensor) -> Tensor:
    """Return a starting value, or one that is typical of the prior where that wants order and there is none yet."""
    entries = without_event(prior)
    if not isinstance(entries, OrderedNormal) or bool(entries.support.check(start).all()):
        return start
    return entries.middle.expand_as(start).clone()


def _components(parts: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, Component]]:
    """Yield owner, path and component, for every component of the parts."""
    for owner, part in parts.items():
        for path, module in part.named_modules():
            if isinstance(module, Component):
                yield owner, path, module


def _populations(sampled: list[Sampled], parts: Mapping[str, nn.Module]) -> Populations:
    found: Populations = {}
    for parameter, prior in sampled:
        if not isinstance(prior, Population):
            continue
        population, members = found.setdefault(prior.name, (prior, []))
        if population.config() != prior.config():
            raise ValueError(
                f"{parameter.where}: expected Population {prior.name!r} as described for {members[0].owner!r}, "
                f"{population!r}; found {prior!r}"
            )
        members.append(parameter)
    for name in found:
        if name in parts:
            raise ValueError(f"Population: {name!r} is the name of a head or part; choose another")
    return found


def _given_in_words(parameter: Parameter) -> str:
    """Return whether a parameter is known, learned or has which prior."""
    prior = parameter.of.own_priors().get(parameter.name)
    if prior is not None:
        return repr(prior) if isinstance(prior, Population | WeightPrior) else described(prior)
    learned = isinstance(tensor_at(parameter.of, parameter.spec.raw), nn.Parameter)
    return "point estimate" if learned else "fixed"


def _check_name(parameter: Parameter, specs: Mapping[str, ParameterSpec]) -> None:
    if parameter.name in specs:
        return
    known = f"one of {list(specs)}" if specs else "none: it has no parameters of its own"
    what = "no prior can be put on" if parameter.name in parameter.of.own_priors() else "no value can be fixed of"
    raise ValueError(f"{parameter.said}: {what} {parameter.name!r}; expected {known}")


def _check_prior(parameter: Parameter, prior: Prior | WeightPrior) -> None:
    if isinstance(prior, WeightPrior):
        return
    owner, spec, shape = f"{parameter.said}: priors[{parameter.name!r}]", parameter.spec, parameter.value().shape
    if isinstance(prior, Population):
        if spec.event_dim:
            raise ValueError(
                f"{owner}: a Population is of single numbers; this parameter is a {in_words(spec.support)}"
            )
        return
    check_distribution(parameter.said, f"priors[{parameter.name!r}]", prior)
    prior = without_event(prior)
    if not within(prior, spec.support):
        raise ValueError(
            f"{owner} must be a distribution over values that are {in_words(spec.support)}; found {prior!r}, which is "
            f"over values that are {in_words(prior.support)}"
        )
    found = prior.batch_shape + prior.event_shape
    if not _fits(found, shape):
        raise ValueError(
            f"{owner} must be a distribution of one entry, for all alike, or of shape {tuple(shape)}; found shape "
            f"{tuple(found)}"
        )


def _fits(found: torch.Size, shape: torch.Size) -> bool:
    """Return whether something of a shape stands for all entries of a parameter."""
    last = shape[len(shape) - len(found) :]
    return len(found) <= len(shape) and all(size in (1, own) for size, own in zip(found, last, strict=True))


def _check_value(parameter: Parameter, given: Any) -> None:
    owner, spec, shape = f"{parameter.said}: fixed[{parameter.name!r}]", parameter.spec, parameter.value().shape
    if isinstance(given, str):
        raise ValueError(f"{owner}: a covariate can tell what belongs to an entry of a head; found {given!r}")
    value = torch.as_tensor(given, dtype=torch.float64)
    if not _fits(value.shape, shape):
        raise ValueError(f"{owner} must be one number or of shape {tuple(shape)}; found shape {tuple(value.shape)}")
    value = value.expand(shape)
    if not bool(spec.support.check(value).all()):
        raise ValueError(f"{owner} must be {in_words(spec.support)}; found {given!r}")
    if not bool(torch.isfinite(parameter.tensor(value.to(parameter.value()))).all()):
        raise ValueError(f"{owner} must be {in_words(spec.support)}, its ends left out; found {given!r}")
    if spec.follows and not set(spec.follows) & parameter.of.own_fixed().keys():
        raise ValueError(f"{owner} holds where one of {list(spec.follows)} is fixed, too, from which it follows")
