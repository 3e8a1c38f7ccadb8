"""The generative model: a Pyro program put together from a transition, a latent and observation heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models import sites
from latentrnn.models.assembly import (
    build_heads,
    build_states,
    check_parts,
    checked_couplings,
    listed_inputs,
    warn_where_time_is_ignored,
)
from latentrnn.models.component import from_config
from latentrnn.models.couplings import Coupling
from latentrnn.models.equations import equations
from latentrnn.models.features import CovariateReader, Feature
from latentrnn.models.features.gap import elapsed
from latentrnn.models.graph import ModelGraph, graph
from latentrnn.models.latents import Latent, LatentSite
from latentrnn.models.module_dict import NamedModules
from latentrnn.models.observations import Observation
from latentrnn.models.parameters.network_prior import NetworkGroup, WeightPrior
from latentrnn.models.parameters.parameter_sites import GivenParameters, Populations
from latentrnn.models.parameters.priors import refuse_ignored_priors
from latentrnn.models.readouts import Readout
from latentrnn.models.rollout import Rollout
from latentrnn.models.starting_weights import draw_weights
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.arguments import check_size
from latentrnn.support.clock import step_length
from latentrnn.support.deprecations import former_methods
from latentrnn.support.notebooks import ShownInNotebooks
from latentrnn.support.private_symbols import handlers, replace_child
from latentrnn.support.shortcuts import shortcut

if TYPE_CHECKING:
    import pandas

CHECKED_AT_ONCE = 2**22  # entries of a head


@former_methods
class LatentRNN(nn.Module, ShownInNotebooks):
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
    inputs: list[str | Feature]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        former_methods(cls)

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
        check_parts(spec, transition, latent, observations)
        self.spec = spec
        heads = {name: observation.fresh() for name, observation in observations.items()}
        self.transition, self.latent = transition.fresh(), latent.fresh()
        self.inputs = listed_inputs(inputs, self.transition, heads, spec)
        own = self.transition.own_inputs
        self.features = CovariateReader("inputs", [*own, *self.inputs], spec)
        self.transition.own_sizes = self.features.sizes[: len(own)]
        self.observations = NamedModules(heads)  # type: ignore[assignment]
        build_heads(self.observations, self.transition, self.latent, spec)
        states = self.transition, self.latent, self.features, self.observations, self.inputs
        self._constant = build_states(*states, spec)
        warn_where_time_is_ignored(self.transition, self.latent, self.modules(), spec)
        self.couplings = checked_couplings(couplings, self.observations, self.latent)
        for index, coupling in enumerate(self.couplings):
            refuse_ignored_priors(f"LatentRNN: couplings[{index}]", coupling)
        self.given = GivenParameters(self._parts())
        self._checked: DataSpec | None = None

    def _apply(self, *arguments: Any, **named: Any) -> LatentRNN:
        """Go to another device or type as every module does, known values as precisely as they were given."""
        super()._apply(*arguments, **named)
        if self.given.known:
            self.given.set_known()
        return self

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
        rollout, plate = self.begin(data)
        return self.observe(rollout, plate), rollout

    def observe(self, rollout: Rollout, plate: pyro.plate) -> dict[str, Tensor]:
        """Sample every head of a rollout that `begin` gave (Pyro statements), and return their values."""
        data = rollout.data
        with plate:
            for name in rollout.feedback_heads:
                value = pyro.sample(name, rollout.feedback_distribution(name), obs=data.observations[name])
                rollout.record(name, value)
            others = [name for name in self.observations if name not in rollout.values]
            for name in others:
                rollout.outcomes[name] = pyro.sample(name, rollout.scored(name), obs=data.observations[name])
        return rollout.values | rollout.outcomes

    def unroll(self, data: SequenceData) -> Rollout:
        """Sample parameters and latents (Pyro statements), and return the rollout of the batch before any head.

        With `poutine.replay` this is how a guide's draws become states and distributions of heads. Shapes and
        errors are those of `forward`.
        """
        return self.begin(data)[0]

    def begin(self, data: SequenceData) -> tuple[Rollout, pyro.plate]:
        """Do as `unroll`, and return the plate besides."""
        refuse_param_store(self)
        self._check_spec(data)
        parts = self.draw_parts()
        heads = {name: parts[name] for name in self.observations}
        transition, latent = parts["transition"], parts["latent"]
        drawn = parts["inputs"] is not self.features
        inputs_of = partial(self._transition_inputs, reader=parts["inputs"]) if drawn else self.transition_inputs
        plate = sequence_plate(data)
        with plate:
            inputs = inputs_of(data)
            path = latent.sample(transition, inputs, data)
        rollout = Rollout(transition, latent, heads, heads, data, inputs, path, self.max_elements, inputs_of)
        return rollout, plate

    def draw_parts(self) -> dict[str, Any]:
        """Sample the parameters with priors (Pyro statements), and return the parts with the draws in their place."""
        return self.given.sample(self._parts())

    def with_parameters(self, values: Mapping[str, Tensor]) -> LatentRNN:
        """Return this model with values in the place of its parameters with priors, all else being shared.

        Args:
            values: of every such parameter, by site: (*shape), or draws, (*sample, 1, *shape).
        """
        with poutine.block(), poutine.condition(data=values):
            parts = self.draw_parts()
        found = copy.copy(self)
        own = {"transition": parts["transition"], "latent": parts["latent"], "features": parts["inputs"]}
        heads = NamedModules({name: parts[name] for name in self.observations})
        for name, part in {**own, "observations": heads}.items():
            replace_child(found, name, part)
        return found

    def _parts(self) -> dict[str, Any]:
        """Return the parts by the names under which their parameters go."""
        own = {"transition": self.transition, "latent": self.latent, "inputs": self.features}
        return {**own, **dict(self.observations.items())}

    def transition_inputs(self, data: SequenceData) -> Tensor:
        """Return the transition's inputs from covariates alone, (sequence, time, channel), whatever the latents.

        For a timed transition the time since the last step comes first.
        """
        return self._transition_inputs(data, self.features)

    def _transition_inputs(self, data: SequenceData, reader: CovariateReader) -> Tensor:
        features = reader(data)
        if self._constant:
            features = features.new_ones(*features.shape[:-1], 1)
        return concatenate_channels(elapsed(data).unsqueeze(-1), features) if self.transition.timed else features

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
        return self.given.sites()

    def parameter_units(self) -> dict[str, Tensor]:
        """Return, for every parameter that is a Pyro site, how large it is by the units of its data, by site name.

        One for what has no units, such as log-rates; positive for all others: what scales with the data.
        """
        return self.given.units()

    def network_weights(self) -> dict[str, WeightPrior]:
        """Return the priors of the tensors that have a `NetworkPrior`, by site, with their fan-in and axes."""
        return self.given.weights()

    def parameter_axes(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the owner of every parameter with a prior (a head, "transition", "latent", "inputs"), and its axes.

        Axes as components declare them (`ParameterSpec.dims`), () where they do not; by site.
        """
        return self.given.axes()

    def with_learned_priors(self) -> list[str]:
        """Return the sites of parameters whose priors are learned: members of a `Population`, weights of networks."""
        return self.given.with_learned_priors()

    def parameters_table(self) -> pandas.DataFrame:
        """Return every parameter of the model, a row each, by the name of its site: what it is, and what is said of it.

        Returns:
            A data frame with the columns "shape", "dims" (what the axes are), "unit" (times in seconds where the data
            have a `dt` or times, else in steps), "support" and "given": "point estimate", "fixed" or the prior.

        Example:
            >>> import numpy as np, latentrnn as lr, pyro.distributions as dist
            >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, dt=0.01)
            >>> memory = lr.LeakyIntegrator(1, priors={"time_constant": dist.LogNormal(-2.0, 1.0)})
            >>> heads = {"v": lr.Gaussian(fixed={"scale": 0.1})}
            >>> model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Deterministic(), observations=heads)
            >>> model.parameters_table()["given"].to_dict()
            {'transition.time_constant': 'LogNormal(loc=-2, scale=1)', 'transition.input_weight': 'point estimate',
            'latent.initial_state': 'point estimate', 'v.scale': 'fixed', 'v.readout.weight': 'point estimate',
            'v.readout.baseline': 'point estimate'}
        """
        return self.given.table(self.spec)

    @property
    def networks(self) -> dict[str, NetworkGroup]:
        """The networks whose weights have a `NetworkPrior`, by the site under which their scales go."""
        return self.given.networks

    @property
    def populations(self) -> Populations:
        """The populations that priors name, each with the parameters that are its members."""
        return self.given.populations

    def prior_predictive(
        self,
        data: SequenceData,
        num_samples: int = 100,
        *,
        seed: int | None = 0,
        latents: bool = True,
        device: str | torch.device = "auto",
        max_elements: int | None = None,
    ) -> Any:
        """Draw parameters, latents and observations from the model alone, before or after any fit.

            theta ~ p(theta),   z ~ p(z | theta, x),   y ~ p(y | z, theta, x)

        in the layout of `data`: its covariates, lengths, times, sessions and totals. Its observed values are not used:
        heads that feed back run free on their own draws. Context steps alone, which are given, feed back as they were
        recorded. What has no prior is the same in all draws and as it is now, before a fit at its starting weights;
        `conditional_on` of what comes back lists it. A fit takes first baselines, scales and units from its data, as
        `model.initialise(data)` does.

        Args:
            data: the sequences whose layout is drawn.
            num_samples: number of draws.
            seed: of every random number, None for a fresh one, which the result tells.
            latents: whether to keep the draws of the latents.
            device: "auto" takes CUDA where there is one.
            max_elements: numbers that one state or head may hold at once; see `Posterior`.

        Returns:
            A `PriorPredictive`: head to (sample, sequence, time, channel), with `parameters` and `latents`; for
            `lr.prior_predictive_check`, and `to_arviz`.

        Raises:
            ValueError: data of another spec, or a covariate that the model cannot take in.
            TypeError: an argument of the wrong kind.

        References:
            Gabry, Simpson, Vehtari, Betancourt, Gelman. Visualization in Bayesian workflow. 2019.

        Example:
            >>> import numpy as np, latentrnn as lr, pyro.distributions as dist
            >>> data = lr.SequenceData.from_arrays({"v": np.zeros((2, 5, 1))})
            >>> heads = {"v": lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)}, fixed={"scale": 0.1})}
            >>> model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(1), observations=heads)
            >>> drawn = model.prior_predictive(data, 20)
            >>> drawn["v"].shape, drawn.parameters["v.readout.baseline"].shape, drawn.latents["innovations"].shape
            (torch.Size([20, 2, 5, 1]), torch.Size([20, 1]), torch.Size([20, 2, 5, 1]))
        """
        return shortcut("prior_predictive")(
            self, data, num_samples, seed=seed, latents=latents, device=device, max_elements=max_elements
        )

    def initialise(self, data: SequenceData) -> None:
        """Take from the training data what does not come from a generator: units, clocks, baselines, scales."""
        self.features.take_units(
            data, "data" if self.given.in_data_units("transition", "inputs") else self.transition.input_units
        )
        for part in self.transition.modules():
            if isinstance(part, Transition):
                part.initialise(data)
        self.latent.initialise(data)
        for head in self.observations.values():
            head.take_units(data)
            head.start_from(data)
        self.given.set_known()

    def draw_weights(self) -> None:
        """Draw the weights of all parts anew from torch's generators, children before parents."""
        draw_weights(self)
        self.given.set_known()

    def prepare(self, data: SequenceData) -> SequenceData:
        """Return data with what heads can know of their density once, which batches inherit.

        Once for all fits to the same data: members that share a batch know it by being the very same.
        """
        for head in self.observations.values():
            found = head.prepare(data)
            data = data if found is None else found  # a head of an earlier version returns nothing
        return data

    def check(self, data: SequenceData) -> None:
        """Check a data set against this model: its spec, and every observed entry against its family's support.

        Raises:
            ValueError: naming the head, what was expected and what came.
        """
        self._check_spec(data)
        data.check_gapless()
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
        for head in self.observations.values():
            head.check_known(data)

    def _check_spec(self, data: SequenceData) -> None:
        if not isinstance(data, SequenceData):
            raise TypeError(f"expected SequenceData; found {type(data).__name__}")
        if data.spec is self._checked:
            return
        if data.spec != self._checked:  # a copy of the model has a copy of what was checked
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

    def equations(self) -> list[str]:
        """Return how the model makes data, a line each: what is drawn, the step of the state, and every head."""
        return equations(self)

    def graph(self) -> ModelGraph:
        """Return the declared parts and what goes into what: drawn in a notebook, `to_mermaid()`, `to_dot()`.

        `pyro.render_model(model, (data,))` draws the sites that Pyro sees instead.
        """
        return graph(self)

    def _shown(self) -> tuple[list[str], list[Any]]:
        parts = {"transition": self.transition, "latent": self.latent, "inputs": self.inputs}
        parts |= {f"observations[{name!r}]": head for name, head in self.observations.items()}
        named = [f"{name}: {part!r}" for name, part in parts.items()]
        return [*self.equations(), "", *named, *map(repr, self.couplings)], [self.parameters_table()]

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
    for handler in handlers():
        if not (isinstance(handler, TraceMessenger) and handler.param_only):
            continue
        parameters = list(module.parameters())
        seen = {id(node["value"].unconstrained()) for node in handler.trace.nodes.values() if node["type"] == "param"}
        # a guide without parameters goes with a model that has some, which the guide is the first to know of
        if any(p.requires_grad and id(p) not in seen for p in parameters) or not (parameters or seen):
            raise RuntimeError(
                f"{type(module).__name__} keeps its parameters in the module, where pyro.infer.SVI with pyro.optim "
                "cannot see them: it would not train them, whatever the guide. Use latentrnn.fit (lr.fit), or "
                "Trace_ELBO()(model, guide) with torch.optim"
            )
