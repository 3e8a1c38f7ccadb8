"""The generative model: a Pyro program put together from a transition, a latent and observation heads."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models import sites
from latentrnn.models.component import from_config
from latentrnn.models.couplings import Coupling
from latentrnn.models.features import CovariateReader, Feature, Gap
from latentrnn.models.features.gap import elapsed
from latentrnn.models.latents import Latent, LatentSite
from latentrnn.models.module_dict import NamedModules
from latentrnn.models.observations import Observation
from latentrnn.models.priors import Population, expanded_prior, populations, refuse_ignored_priors
from latentrnn.models.readouts import Readout
from latentrnn.models.rollout import Head, Rollout
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_list, check_size
from latentrnn.support.clock import step_length
from latentrnn.support.deprecations import former_attributes
from latentrnn.support.private_symbols import handlers

CHECKED_AT_ONCE = 2**22  # entries of a head


@former_attributes
class LatentRNN(nn.Module):
    """A state-space model whose transition is a recurrent network.

        s_0 ~ p(s_0),  u_t ~ p(u_t | u_{t-1}),  h_t = transition(s_{t-1}, [inputs_t, feedback(y_{<t}), u_t]),
        y^k_t ~ family_k(link_k(readout_k(h_t) + gain_k(stimulus_t, h_t)))  for every head k

    `model(data)` is a Pyro program over one batch: one site per latent trajectory, one per head, one plate over
    sequences at dim -1 (sub-sampled where the batch is), and one site for every parameter that has a prior. What
    Pyro can do with a model works with it, except `pyro.infer.SVI` with `pyro.optim`, which cannot see plain
    parameters: use `latentrnn.fit`.

    Args:
        spec: `data.spec`.
        transition: the learned transition.
        latent: where randomness enters the state.
        observations: head name to `Observation`; heads of the data that are not listed are not modelled.
        inputs: covariates (names, or features such as `Lags`, `OneHot`, `Convolution`) that drive the transition. By
            default every covariate that no gain claims, or nothing more where the transition names its own (`Streams`).
        couplings: penalties that tie heads to each other while fitting; see `Coupling`.
        max_elements: for wide heads (thousands of channels), how many numbers of a head's raw output its density may
            hold at once: it is then evaluated in chunks of time, and again for the gradient, with the same result.
            None holds everything. Heads whose steps depend on each other given the states are not cut. The guide's
            encoder keeps to it too where it has a `read_in`.

    Raises:
        ValueError: an unknown head or covariate, no head at all, or parts that do not go together.
        TypeError: something that is not the component its argument calls for.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"spikes": np.ones((2, 5, 3))}, dt=0.01)
        >>> heads = {"spikes": lr.Poisson()}
        >>> lr.LatentRNN(data.spec, transition=lr.GRU(8), latent=lr.InitialState(2), observations=heads).latent
        InitialState(dim=2)
    """

    transition: Transition
    latent: Latent
    features: CovariateReader
    observations: Mapping[str, Observation]  # a `NamedModules`
    populations: dict[str, tuple[Population, list[tuple[str, str]]]]  # by name, with head and path of every member

    def __init__(
        self,
        spec: DataSpec,
        *,
        transition: Transition,
        latent: Latent,
        observations: Mapping[str, Observation],
        inputs: str | Feature | Sequence[str | Feature] | None = None,
        couplings: Sequence[Coupling] = (),
        max_elements: int | None = None,
    ) -> None:
        super().__init__()
        self.max_elements = None if max_elements is None else check_size("LatentRNN", "max_elements", max_elements)
        _check_parts(spec, transition, latent, observations)
        self.spec = spec
        heads = {name: observation.fresh() for name, observation in observations.items()}
        claimed = {covariate for head in heads.values() for covariate in head.claims}
        self.transition, self.latent = transition.fresh(), latent.fresh()
        own = self.transition.own_inputs
        if inputs is None:
            inputs = [] if own else [name for name in spec.covariates if name not in claimed]
        if not isinstance(inputs, str | Feature | Iterable) or getattr(inputs, "ndim", 1) == 0:
            raise TypeError(f"LatentRNN: inputs must be covariate names or features; found {inputs!r}")
        self.inputs = [inputs] if isinstance(inputs, str | Feature) else list(inputs)
        self.features = CovariateReader("inputs", [*own, *self.inputs], spec)
        self.transition.own_sizes = self.features.sizes[: len(own)]
        self.observations = NamedModules(heads)  # type: ignore[assignment]
        self._build()
        self._warn_where_time_is_ignored()
        self.couplings = _checked_couplings(couplings, self.observations)
        self._refuse_couplings_beside_marginalised_states()
        self._refuse_ignored_priors()
        self._checked: DataSpec | None = None

    def _build(self) -> None:
        for name, head in self.observations.items():
            head.readout.parts = self.latent.parts(self.transition)
            head.build(self.spec.heads[name], self.spec, self.latent.readout_size(self.transition))
        for name, head in self.observations.items():
            if head.reads is not None:
                if head.reads not in self.observations:
                    raise ValueError(
                        f"observations[{name!r}]: it reads {head.reads!r}, which the model does not have; it has "
                        f"{sorted(self.observations)}"
                    )
                head.connect(self.observations[head.reads])
        fed_back = 0
        shares = {"the time since the last step": int(self.transition.timed), "covariates": self.features.size}
        for name, head in self.observations.items():
            if head.feedback is not None and "transition" in head.feedback.into:
                fed_back += head.feedback.size
                shares[f"the past of {name!r}"] = head.feedback.size
                if head.head.session is not None:
                    raise ValueError(
                        f"observations[{name!r}] belongs to session {head.head.session!r} alone: in the sequences of "
                        "other sessions there is no past of it to feed into the transition; use History(into='readout')"
                    )
                if not self.latent.consumes_feedback:
                    raise ValueError(
                        f"observations[{name!r}]: {type(self.latent).__name__} draws its states before any "
                        "observation, so feedback into the transition has nowhere to go; use History(into='readout'), "
                        "or Innovations"
                    )
        # a transition that nothing drives gets a constant, so that library kernels have an input at all
        self._constant = self.features.size + fed_back + self.latent.input_size == 0
        shares |= {"a constant": int(self._constant), f"what {self.latent!r} draws": self.latent.input_size}
        self.transition.input_shares = {name: size for name, size in shares.items() if size}
        if self.transition.given_weights not in (0, self.latent.switch_size):
            raise ValueError(
                f"{self.transition!r} is given the weights of {self.transition.given_weights} regimes, which must be "
                f"the states of a switch that it sees, as in RelaxedDiscrete({self.transition.given_weights}); "
                f"{self.latent!r} "
                + (f"has {self.latent.switch_size}" if self.latent.switch_size else "hands no switch to the transition")
            )
        self.transition.dt = self.spec.dt
        self.transition.build(
            max(self.features.size + fed_back + self.latent.input_size, 1) + int(self.transition.timed)
        )
        self.latent.build(self.transition, self.spec.dt)
        drawn = self.latent.drawn_size(self.transition)
        for head in self.observations.values():
            names = [item if isinstance(item, str) else "" for item in [*self.transition.own_inputs, *self.inputs]]
            head.readout.attach(self.transition, self.features, names, fed_back + drawn)
        self.latent.check_heads(self.observations)
        self.populations = populations(self.observations)

    def _refuse_couplings_beside_marginalised_states(self) -> None:
        if self.couplings and self.latent.marginalises:
            raise ValueError(
                f"{type(self.latent).__name__} sums its switch out of every head's density, so that no rollout of the "
                f"heads is left for the couplings {[coupling.label for coupling in self.couplings]} to look at"
            )

    def _refuse_ignored_priors(self) -> None:
        parts = {"transition": self.transition, "latent": self.latent, "inputs": self.features}
        parts |= {f"couplings[{index}]": coupling for index, coupling in enumerate(self.couplings)}
        for argument, part in parts.items():
            refuse_ignored_priors(f"LatentRNN: {argument}", part)
        for name, head in self.observations.items():
            refuse_ignored_priors(f"observations[{name!r}]", head, readout=head.readout)

    def _warn_where_time_is_ignored(self) -> None:
        knows = self.transition.timed or self.latent.timed or any(isinstance(part, Gap) for part in self.modules())
        if self.spec.irregular and not knows:
            warnings.warn(
                f"LatentRNN: the data have irregular times, but {self.transition!r} counts steps, whatever time lies "
                "between them; tell it with inputs=[..., lr.Gap()], let its state fade with lr.Decay(transition), or "
                "use a transition in continuous time (LeakyIntegrator, NeuralODE)",
                UserWarning,
                stacklevel=3,
            )

    def forward(self, data: SequenceData) -> dict[str, Tensor]:
        """Run the Pyro program on a batch.

        Args:
            data: the batch; its `total` and `indices` tell the plate what it is a sub-sample of.

        Returns:
            The value of every head: observed, or sampled where a handler frees it.

        Raises:
            ValueError: the batch does not fit the model's spec.
            RuntimeError: called by `pyro.infer.SVI`, which would train nothing.
        """
        return self.trace(data)[0]

    def trace(self, data: SequenceData) -> tuple[dict[str, Tensor], Rollout]:
        """Run the Pyro program on a batch, and return the heads' values and the rollout that they came from."""
        rollout, plate = self._begin(data)
        with plate:
            for name in rollout.feedback_heads:
                value = pyro.sample(name, rollout.feedback_distribution(name), obs=data.observations[name])
                rollout.record(name, value)
            others = [name for name in self.observations if name not in rollout.values]
            for name in others:
                rollout.outcomes[name] = pyro.sample(name, rollout.scored(name), obs=data.observations[name])
        return rollout.values | rollout.outcomes, rollout

    def unroll(self, data: SequenceData) -> Rollout:
        """Sample parameters and latents (Pyro statements), and return the rollout of the batch before any head.

        With `poutine.replay` this is how a guide's draws become states and distributions of heads. Shapes and
        errors are those of `forward`.
        """
        return self._begin(data)[0]

    def _begin(self, data: SequenceData) -> tuple[Rollout, pyro.plate]:
        refuse_param_store(self)
        self._check_spec(data)
        heads = self._sample_parameters()
        plate = sequence_plate(data)
        with plate:
            inputs = self.transition_inputs(data)
            path = self.latent.sample(self.transition, inputs, data)
        parts = self.transition, self.latent, self.observations
        return Rollout(*parts, heads, data, inputs, path, self.max_elements), plate

    def transition_inputs(self, data: SequenceData) -> Tensor:
        """Return the transition's inputs from covariates alone, (sequence, time, channel), whatever the latents.

        For a timed transition the time since the last step comes first.
        """
        features = self.features(data)
        if self._constant:
            features = features.new_ones(*features.shape[:-1], 1)
        return torch.cat([elapsed(data).unsqueeze(-1), features], -1) if self.transition.timed else features

    @property
    def lookahead(self) -> float:
        """Steps of covariates after t that the model uses at t; infinite where it sees the whole sequence."""
        parts = [part for part in self.modules() if isinstance(part, Feature | Readout)]
        return max((part.lookahead for part in parts), default=0)

    @property
    def latency(self) -> float:
        """How long after step t the model can first be evaluated there: seconds, or steps where `dt` is unknown."""
        return self.lookahead * step_length(self.spec.dt)

    def latent_sites(self) -> list[LatentSite]:
        """Return the local latent sites, in the order in which they are sampled."""
        return self.latent.sites()

    def parameter_sites(self) -> dict[str, tuple[dist.Distribution, Tensor]]:
        """Return prior and starting value of every parameter that is a Pyro site, by site name.

        The prior of a population's member is that of the population's own starting values.
        """
        found, shared = {}, {}
        for name, (population, members) in self.populations.items():
            starts, units = zip(*((self._start(*member), self._unit(*member)) for member in members), strict=True)
            shared[name] = population.start(starts, torch.cat([unit.flatten() for unit in units]).mean())
            for part, prior in population.priors_of(shared[name]["location"]).items():
                found[sites.parameter_site(name, part)] = (prior, shared[name][part])
        for name, head in self.observations.items():
            for path, prior in head.prior_sites().items():
                start = self._start(name, path)
                found[sites.parameter_site(name, path)] = (expanded_prior(prior, start, shared), start)
        return found

    def parameter_units(self) -> dict[str, Tensor]:
        """Return, for every parameter that is a Pyro site, how large it is by the units of its data, by site name.

        One for what has no units, such as log-rates; positive for all others: what scales with the data.
        """
        found: dict[str, Tensor] = {}
        for name, (_, members) in self.populations.items():
            unit = torch.cat([self._unit(*member).flatten() for member in members]).mean()
            found |= {sites.parameter_site(name, part): unit for part in ("location", "scale")}
        for name, head in self.observations.items():
            found |= {sites.parameter_site(name, path): self._unit(name, path) for path in head.prior_sites()}
        return found

    def _unit(self, head: str, path: str) -> Tensor:
        return self.observations[head].unit_of(path, self.observations[head].get_buffer(path))

    def initialise(self, data: SequenceData) -> None:
        """Take from the training data what does not come from a generator: units, clocks, baselines, scales."""
        self.features.take_units(data, self.transition.input_units)
        for part in self.transition.modules():
            if isinstance(part, Transition):
                part.initialise(data)
        self.latent.initialise(data)
        for head in self.observations.values():
            head.take_units(data)
            head.start_from(data)

    def _sample_parameters(self) -> dict[str, Head]:
        shared = {name: population.sample(self._start(*of[0])) for name, (population, of) in self.populations.items()}
        heads: dict[str, Head] = {}
        for name, head in self.observations.items():
            values = {}
            for path, prior in head.prior_sites().items():
                start = self._start(name, path)
                value = pyro.sample(sites.parameter_site(name, path), expanded_prior(prior, start, shared))
                # pyro's Predictive(parallel=True) drops the axis of the plate where a guide has no local latents
                value = value.unsqueeze(1) if value.dim() == start.dim() + 1 else value
                values[path] = head.to_units(path, value)
            heads[name] = partial(_call_with, head, values) if values else head
        return heads

    def _start(self, head: str, path: str) -> Tensor:
        return self.observations[head].from_units(path, self.observations[head].get_buffer(path))

    def check(self, data: SequenceData) -> None:
        """Check a data set against this model: its spec, and every observed entry against its family's support.

        Raises:
            ValueError: naming the head, what was expected and what came.
        """
        self._check_spec(data)
        self.check_covariates(data)
        for name, head in self.observations.items():
            values, mask = data.observations[name], data.masks[name]
            rows = max(1, CHECKED_AT_ONCE * len(values) // max(values.numel(), 1))
            try:
                for some, seen in zip(values.split(rows), mask.split(rows), strict=True):
                    head.check(name, some, seen)
            except ValueError:
                head.check(name, values, mask)  # which knows where in all of the data it is
                raise
            head.check_totals(name, data.totals.get(name))

    def check_covariates(self, data: SequenceData) -> None:
        """Raise a ValueError that names the first value that a feature or readout cannot take in."""
        for part in self.modules():
            if isinstance(part, Feature | Readout):
                part.check(data)

    def _check_spec(self, data: SequenceData) -> None:
        if not isinstance(data, SequenceData):
            raise TypeError(f"expected SequenceData; found {type(data).__name__}")
        if data.spec is not self._checked:
            self.spec.check_compatible(data.spec)
            self._checked = data.spec

    def config(self) -> dict[str, Any]:
        """Return the JSON form: all hyper-parameters, without the spec and the weights."""
        return {
            "transition": self.transition.config(),
            "latent": self.latent.config(),
            "observations": {name: head.config() for name, head in self.observations.items()},
            "couplings": [coupling.config() for coupling in self.couplings],
            "inputs": [item.config() if isinstance(item, Feature) else item for item in self.inputs],
            **({} if self.max_elements is None else {"max_elements": self.max_elements}),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], spec: DataSpec) -> LatentRNN:
        """Return an untrained model from its JSON form."""
        return cls(
            spec,
            transition=from_config(config["transition"]),
            latent=from_config(config["latent"]),
            observations={name: from_config(head) for name, head in config["observations"].items()},
            couplings=[from_config(coupling) for coupling in config.get("couplings", [])],
            inputs=[item if isinstance(item, str) else from_config(item) for item in config["inputs"]],
            max_elements=config.get("max_elements"),
        )

    def __repr__(self) -> str:
        couplings = f", couplings={list(self.couplings)!r}" if len(self.couplings) else ""
        couplings += "" if self.max_elements is None else f", max_elements={self.max_elements}"
        return (
            f"LatentRNN(transition={self.transition!r}, latent={self.latent!r}, "
            f"observations={dict(self.observations.items())!r}, inputs={self.inputs!r}{couplings})"
        )


def sequence_plate(data: SequenceData) -> pyro.plate:
    """Return the plate over sequences of a batch: the same for model and guide."""
    if data.indices is None:
        return pyro.plate(sites.PLATE, data.num_sequences, dim=-1)
    return pyro.plate(sites.PLATE, data.total, subsample=data.indices, dim=-1)


def refuse_param_store(module: nn.Module) -> None:
    """Raise where `pyro.infer.SVI` looks for parameters in the param store, in which ours do not live.

    A program that registers them itself (`pyro.module`) is left alone, and so is a module of which nothing is to be
    trained beside an autoguide, whose parameters do live there.

    Raises:
        RuntimeError: naming what to use instead.
    """
    parameters = list(module.parameters())
    for handler in handlers():
        if not (isinstance(handler, TraceMessenger) and handler.param_only):
            continue
        seen = {id(node["value"].unconstrained()) for node in handler.trace.nodes.values() if node["type"] == "param"}
        # a guide without parameters goes with a model that has some, which the guide is the first to know of
        if any(p.requires_grad and id(p) not in seen for p in parameters) or not (parameters or seen):
            raise RuntimeError(
                f"{type(module).__name__} keeps its parameters in the module, where pyro.infer.SVI with pyro.optim "
                "cannot see them: it would not train them, whatever the guide. Use latentrnn.fit (lr.fit), or "
                "Trace_ELBO()(model, guide) with torch.optim"
            )


def _checked_couplings(couplings: Any, observations: Mapping[str, Observation]) -> list[Coupling]:
    couplings = check_list("LatentRNN", "couplings", couplings, "Couplings")
    for coupling in couplings:
        if not isinstance(coupling, Coupling):
            raise TypeError(f"LatentRNN: couplings must be Couplings; found {type(coupling).__name__}")
        coupling.check(observations)
    names = [coupling.label for coupling in couplings]
    if len(set(names)) < len(names):
        raise ValueError(f"LatentRNN: couplings must be of different classes, or have different names; found {names}")
    return [coupling.fresh() for coupling in couplings]


def _call_with(head: Observation, values: dict[str, Tensor], *inputs: Any) -> dist.Distribution:
    return torch.func.functional_call(head, values, inputs)


def _check_parts(spec: Any, transition: Any, latent: Any, observations: Any) -> None:
    if not isinstance(spec, DataSpec):
        raise TypeError(f"LatentRNN: spec must be a DataSpec (data.spec); found {type(spec).__name__}")
    for argument, value, kind in (("transition", transition, Transition), ("latent", latent, Latent)):
        if not isinstance(value, kind):
            raise TypeError(f"LatentRNN: {argument} must be a {kind.__name__}; found {type(value).__name__}")
    if not isinstance(observations, Mapping) or not observations:
        raise ValueError(
            f"LatentRNN: observations must name at least one head of the data, {sorted(spec.heads)}; "
            f"found {observations!r}"
        )
    for name, head in observations.items():
        if name not in spec.heads:
            raise ValueError(f"observations[{name!r}]: the data have no such head; they have {sorted(spec.heads)}")
        if not isinstance(head, Observation):
            raise TypeError(f"observations[{name!r}]: expected an Observation; found {type(head).__name__}")
        if name in sites.LATENTS + (sites.PLATE,):
            raise ValueError(f"observations[{name!r}]: the name is taken by a latent site; choose another")
