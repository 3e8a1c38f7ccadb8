"""What every observation head shares: readout, gain, covariates, history, masks; a family adds its distribution."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from latentrnn.data import DataSpec, HeadSpec, SequenceData
from latentrnn.models.component import overrides_after
from latentrnn.models.features import CovariateReader, Feature, listed, standardisation
from latentrnn.models.features.feature import find
from latentrnn.models.features.units import like_the_others, units_of_all
from latentrnn.models.feedback import History
from latentrnn.models.gain import StimulusGain
from latentrnn.models.observations.encoder_input import EncoderInput
from latentrnn.models.observations.entries import unmasked_entries
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.head_units import HeadUnits
from latentrnn.models.parameters.drawn import with_values
from latentrnn.models.parameters.network_prior import WEIGHTS
from latentrnn.models.parameters.parameter_spec import ParameterSpec, in_words
from latentrnn.models.parameters.priors import Prior
from latentrnn.models.pooling import POOLINGS, Pooling
from latentrnn.models.readouts import FactorReadout, LinearReadout, Readout, linear
from latentrnn.support.shown import first_entry

_OF_READOUT = (*LinearReadout.declared, WEIGHTS)  # what a head hands on to its default readout


class Observation(HeadUnits):
    """One head: eta_t = readout(h_t) + gain(stimulus_t, h_t) + D x_t + history_t;  y_t ~ family(link(eta_t)).

    A per-channel family is one short class: `outputs_per_channel`, and `family(eta)`. Families that join channels
    override `distribution`. The arguments are those of every family, keyword-only.

    Args:
        gain: a `StimulusGain`, or None.
        feedback: a `History` of the head's own past, or None.
        covariates: covariates (names or features) that act on the head directly, eta += D x_t.
        readout: a `Readout`; by default `LinearReadout(priors)`.
        priors, fixed: of the family's own parameters, and of the linear readout's `weight` and `baseline` (both are its
            "weights", see `NetworkPrior`): what has a prior becomes a Pyro site with a posterior, what is fixed is
            known; everything else is a point estimate. Another readout takes those of its own. A family's parameter may
            be known entry by entry, under the name of a covariate: `fixed={"scale": "standard_error"}`.
        pooling: for a per-sequence head, which state it reads: "last" (the sequence's last step), "mean",
            "attention" (learned), or a `Pooling`.
    """

    declared: ClassVar[dict[str, ParameterSpec]] = {
        "covariate_weight": ParameterSpec(
            "covariate_weight", unit="of eta per unit of covariate", dims=("output", "feature")
        )
    }

    writes_priors = True
    outputs_per_channel = 1
    joint = False  # True where the channels of one step share one density
    discrete = False
    counts_events = False  # True where an entry is a number of events, zero being none
    instantaneous = True  # False where a step's density depends on the states of earlier steps
    # False where what an entry says depends on those of other steps too: set where `observed` is overridden
    mask_by_step = True
    reads: str | None = None  # name of another head, whose mean takes the place of the states
    added_later: tuple[str, ...] = ("location", "scale")

    draws_shape = torch.Size()  # leading axes of draws in the place of the family's own parameters
    feedback: Any  # History | None: only heads for which it is not None ever use it
    pooling: Pooling
    history_centre: Tensor
    history_scale: Tensor

    def __init__(
        self,
        *,
        gain: StimulusGain | None = None,
        feedback: History | None = None,
        covariates: Sequence[str | Feature] = (),
        readout: Readout | None = None,
        priors: Mapping[str, Prior] | None = None,
        fixed: Mapping[str, Any] | None = None,
        pooling: str | Pooling = "last",
    ) -> None:
        super().__init__(priors=priors, fixed=fixed)
        name = type(self).__name__
        kinds = ((gain, StimulusGain, "gain"), (feedback, History, "feedback"), (readout, Readout, "readout"))
        for value, kind, argument in kinds:
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name}: {argument} must be a {kind.__name__}; found {type(value).__name__}")
        if not isinstance(pooling, Pooling) and not (isinstance(pooling, str) and pooling in POOLINGS):
            raise ValueError(f"{name}: pooling must be one of {list(POOLINGS)} or a Pooling; found {pooling!r}")
        given = {"priors": _of_readout(self.priors), "fixed": _of_readout(self.fixed)}
        if any(given.values()) and readout is not None:
            what = "priors" if given["priors"] else "known values"
            raise ValueError(f"{name}: {what} belong to the default readout; give {type(readout).__name__} its own")
        self.gain, self.feedback = gain, feedback
        self.covariates = listed(name, "covariates", covariates, least=0)
        self._given = {"readout": readout, "pooling": pooling}  # as described; a dict, so that it is no sub-module
        self.readout = LinearReadout(**given) if readout is None else readout.fresh()
        self.pooling = pooling.fresh() if isinstance(pooling, Pooling) else POOLINGS[pooling]()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if overrides_after(cls, "observed", "mask_by_step"):
            cls.mask_by_step = False

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | self._given

    def own_priors(self) -> dict[str, Any]:
        return _without_readout(super().own_priors())

    def own_fixed(self) -> dict[str, Any]:
        given = _without_readout(super().own_fixed())
        return {name: value for name, value in given.items() if not isinstance(value, str)}

    @property
    def known_by_covariate(self) -> dict[str, str]:
        """Own parameters that are known entry by entry, with the covariate that tells them."""
        return {name: value for name, value in (self.fixed or {}).items() if isinstance(value, str)}

    def build(self, head: HeadSpec, spec: DataSpec, hidden_size: int) -> None:
        """Create the parameters of this head.

        Raises:
            ValueError: an unknown covariate or stimulus, or feedback from a head that cannot feed back.
        """
        self.head = head
        self.outputs = head.channels * self.outputs_per_channel
        owner = f"observations[{head.name!r}]"
        self.readout.build(hidden_size, self.outputs, spec)
        if self.gain is not None:
            self.gain.build(head.name, spec, hidden_size, self.outputs)
        if self.covariates:
            self.reader = CovariateReader(owner, self.covariates, spec)
            self.covariate_weight = nn.Parameter(torch.zeros(self.outputs, self.reader.size))
        if not head.per_step and (self.gain is not None or self.covariates or self.feedback is not None):
            raise ValueError(f"{owner}: a per-sequence head has no time axis for gain, covariates or feedback")
        if not head.per_step:
            if self.readout.along_time or self.readout.memory != 0:
                raise ValueError(
                    f"{owner}: {type(self.readout).__name__} reads states along time, but a per-sequence head has one "
                    "state for the whole sequence; use pooling='attention' to attend over its steps, with a readout "
                    "that takes one state"
                )
            self.pooling.build(hidden_size)
        elif self._given["pooling"] != "last":
            raise ValueError(f"{owner}: a per-step head reads every state; pooling is for per-sequence heads")
        if self.feedback is not None:
            if head.clock != 1:
                raise ValueError(f"{owner}: feedback needs a head on the base clock; this one's clock is {head.clock}")
            self.feedback.build(head.channels, self.history_channels, self.outputs)
        self._register("location", "scale", standardisation(head, head.channels))
        self._register("history_centre", "history_scale", (torch.zeros(head.channels), torch.ones(head.channels)))
        self.build_family(head)
        for name, covariate in self.known_by_covariate.items():
            self._know(owner, name, covariate, spec)

    def _know(self, owner: str, name: str, covariate: str, spec: DataSpec) -> None:
        """Let a covariate tell an own parameter, entry by entry.

        Raises:
            ValueError: the head has no such parameter, or not one for each entry; an unknown covariate, or one of
                another size.
        """
        specs = self.parameter_specs()
        where = f"{owner}: {type(self).__name__}: fixed[{name!r}]"
        by_entry = self.head.per_step and not self.joint and self.instantaneous
        possible = [key for key, one in specs.items() if by_entry and one.dims == ("channel",)]
        if name not in possible:
            raise ValueError(
                f"{where}: a covariate can tell what belongs to an entry, here {possible}; found {covariate!r}"
            )
        features = find(where, covariate, spec).features
        if features not in (1, self.head.channels):
            raise ValueError(
                f"{where}: covariate {covariate!r} must have one feature, or one per channel ({self.head.channels}); "
                f"it has {features}"
            )
        self.settle(specs[name].raw)

    def build_family(self, head: HeadSpec) -> None:
        """Create the parameters that the family itself has (noise scales and the like)."""

    def connect(self, source: Observation) -> None:
        """Check the head that this one reads; called once, when all heads are built."""

    def _register(self, first: str, second: str, values: tuple[Tensor, Tensor]) -> None:
        self.register_buffer(first, values[0])
        self.register_buffer(second, values[1])

    def reset_parameters(self) -> None:
        """Return what this class itself owns to its start; sub-modules do so themselves."""
        if self.covariates:
            with torch.no_grad():
                self.covariate_weight.zero_()

    # -- the family ----------------------------------------------------------------------------------------------

    @abstractmethod
    def family(self, eta: Tensor) -> dist.Distribution:
        """Return independent distributions of every entry.

        Args:
            eta: linear predictor, (..., channel), or (..., channel, outputs_per_channel) where there are several.

        Returns:
            A univariate distribution with batch shape (..., channel).
        """

    def entries(self, eta: Tensor, inputs: HeadInputs) -> Any:
        """Return independent distributions of every entry, no mask applied, of eta (..., outputs)."""
        if self.outputs_per_channel > 1:
            eta = eta.unflatten(-1, (self.head.channels, self.outputs_per_channel))
        if inputs.known is None:
            return self.family(eta)
        raw = [self.parameter_spec(name).raw for name in self.known_by_covariate]
        return with_values(self, dict(zip(raw, inputs.known.unbind(-2), strict=True))).family(eta)

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        """Return the head's distribution, event (time, channel) (per sequence: (channel,)), the mask applied inside."""
        entries = self.entries(eta, inputs)
        if inputs.mask is not None:
            entries = entries.mask(inputs.mask)
        return entries.to_event(2 if self.head.per_step else 1)

    def entry_log_prob(self, distribution: dist.Distribution, value: Tensor) -> Tensor:
        """Return log-probabilities, nats, entry by entry, (..., time, channel), zero where masked.

        A family that joins channels has one density per step: (..., time, 1).
        """
        return distribution.base_dist.log_prob(value)

    def marginals(self, distribution: dist.Distribution) -> Any:
        """Return the distribution of every entry by itself, batch shape (..., time, channel), no mask applied.

        None for a family that joins channels and whose entries have none in closed form.
        """
        return None if self.joint else unmasked_entries(distribution)

    def mean(self, distribution: dist.Distribution) -> Tensor:
        """Return E[y], (..., time, channel), in the data's own units."""
        return distribution.mean

    def sample_missing(self, distribution: dist.Distribution, values: Tensor, mask: Tensor) -> Tensor:
        """Return one draw of every entry given those that are observed, which stay as they are.

        A family whose entries depend on each other given the states conditions on what was observed of them.

        Args:
            distribution: of this head, without a mask.
            values: (..., time, channel).
            mask: True = observed, like `values`.
        """
        return torch.where(mask, values, distribution.sample())

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Raise a ValueError that names the first observed entry outside the family's support."""

    def check_totals(self, name: str, totals: Tensor | None) -> None:
        """Raise a ValueError where a total, (sequence, time), cannot be; families that share none take any."""

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return a baseline, (outputs,), that matches each channel's mean in the training data."""
        return torch.zeros(self.outputs)

    # -- what surrounds it ---------------------------------------------------------------------------------------

    @property
    def claims(self) -> list[str]:
        """Covariates that are the head's own, and do not drive the transition unless they are listed there too."""
        return [*([] if self.gain is None else [self.gain.stimulus]), *self.known_by_covariate.values()]

    @property
    def width(self) -> int:
        """Numbers that a draw of the state makes of a step, by which memory is bounded."""
        return self.outputs

    @property
    def by_step(self) -> bool:
        """Whether the density of each step is that of its own state alone, so that steps can be taken in parts."""
        return self.stepwise and self.head.per_step and self.readout.memory == 0

    @property
    def stepwise(self) -> bool:
        """Whether a step's density needs no entries of other steps, nor their states but through the readout."""
        return self.instantaneous and self.reads is None and self.mask_by_step

    @property
    def encoder_input(self) -> EncoderInput:
        """How an encoder is shown this head."""
        return EncoderInput(self.head.channels)

    @property
    def history_channels(self) -> int:
        """Channels of the head's encoded past."""
        return self.head.channels

    def encode_history(self, values: Tensor, mask: Tensor | None) -> Tensor:
        """Return y~, (..., time, history_channels): standard units, zero (the average) where nothing was observed."""
        encoded = (values - self.history_centre) / self.history_scale
        return encoded if mask is None else torch.where(mask, encoded, torch.zeros_like(encoded))

    def initialise(self, values: Tensor, mask: Tensor) -> None:
        """Set units, baseline and scales from the training data, (sequence, [time,] channel) with their mask."""
        centre, spread = units_of_all(values, mask)
        linear_in_h = self.link_is_identity and isinstance(self.readout, LinearReadout | FactorReadout)
        with torch.no_grad():
            self.history_centre.copy_(centre)
            self.history_scale.copy_(spread)
            if self.in_units and self.head.location is None and (linear_in_h or not self.settled()):
                self.location.copy_(centre)
                self.scale.copy_(spread)
            start = like_the_others(self.starting_baseline(values, mask), mask)
            self.readout.baseline.copy_(torch.where(start.isfinite(), start, 0.0))  # no link starts out of reach

    def start_from(self, data: SequenceData) -> None:
        """Set from the training data all that `initialise` sets."""
        self.initialise(data.observations[self.head.name], data.masks[self.head.name])

    def take_units(self, data: SequenceData) -> None:
        """Take the units of what drives the head from the training data.

        A gain's stimulus keeps its zero, at which there is no gain. So do covariates beside a baseline with a prior,
        which would otherwise be one on the level at their mean.
        """
        if self.gain is not None:
            self.gain.reader.take_units(data, "scaled")
        if self.covariates:
            if "covariate_weight" in self.settled():
                self.reader.take_units_of_slopes(data)
            else:
                self.reader.take_units(data, "scaled" if "baseline" in self.readout.settled() else "standard")
        for part in self.readout.modules():
            if isinstance(part, CovariateReader):
                part.take_units(data, "standard")

    def prepare(self, data: SequenceData) -> SequenceData:
        """Return a whole data set with what the head's density can know of it once, which its batches inherit."""
        return data

    def inputs(self, data: SequenceData) -> HeadInputs:
        """Return what the head needs of a batch besides the state, at the head's own clock."""
        name = self.head.name
        frames = data.observations[name].shape[1]
        stimulus = None if self.gain is None else self.at_clock(self.gain.reader(data), frames)
        covariates = self.at_clock(self.reader(data), frames) if self.covariates else None
        surroundings = self.readout.surroundings(data)
        if surroundings.context is not None:
            surroundings = surroundings._replace(context=self.at_clock(surroundings.context, frames))
        missing = data.spec.heads[name].missing
        mask = None if data.complete(name) else data.scored(name)
        known = self._known(data, frames) if self.known_by_covariate else None
        return HeadInputs(mask, missing, stimulus, covariates, surroundings=surroundings, known=known)

    def check_known(self, data: SequenceData) -> None:
        """Raise a ValueError that names the first value of a covariate that a parameter cannot have."""
        for name, covariate in self.known_by_covariate.items():
            values, support = data.covariates[covariate], self.parameter_spec(name).support
            bad = data.valid.unsqueeze(-1) & ~(support.check(values) & values.isfinite())
            if bool(bad.any()):
                index, place = first_entry(bad, ("sequence", "step", "feature"))
                raise ValueError(
                    f"covariates[{covariate!r}] tells {name!r} of observations[{self.head.name!r}], which must be "
                    f"{in_words(support)}; found {float(values[index])} at {place}"
                )

    def _known(self, data: SequenceData, frames: int) -> Tensor:
        """Return the tensors of what covariates tell, (sequence, frame, parameter, channel)."""
        found = []
        for name, covariate in self.known_by_covariate.items():
            spec, values = self.parameter_spec(name), self.at_clock(data.covariates[covariate], frames)
            inside = biject_to(spec.support)(values.new_zeros(()))  # what cannot be is in padding, see `check_known`
            values = torch.where(spec.support.check(values), values, inside)
            found.append(spec.tensor(self, values.expand(*values.shape[:-1], self.head.channels)))
        return torch.stack(found, -2)

    def observed(self, data: SequenceData) -> Tensor:
        """Return which entries say something of their own step's state, the context included: a filter's mask."""
        return data.masks[self.head.name]

    def at_clock(self, values: Tensor, frames: int) -> Tensor:
        """Return (..., frame, channel) of (..., time, channel): each frame's last base step, which knows all of it."""
        return (
            values if self.head.clock == 1 else values[..., self.head.clock - 1 :: self.head.clock, :][..., :frames, :]
        )

    def pool(self, states: Tensor, data: SequenceData) -> Tensor:
        """Return the state that a per-sequence head reads, (..., sequence, hidden_size)."""
        return self.pooling(states, data)

    def predictor(self, states: Tensor, inputs: HeadInputs, history: Tensor | None) -> Tensor:
        """Return eta, (..., time, outputs), of states at this head's frames, (..., time, hidden_size).

        A per-sequence head has no time axis, neither in its states nor in eta.
        """
        if not self.head.per_step:
            # draws of weights leave room for a time axis, (*sample, 1, outputs, hidden_size)
            return self.readout(states.unsqueeze(-2), inputs.surroundings).squeeze(-2)
        eta = self.readout(states, inputs.surroundings)
        if self.gain is not None:
            eta = eta + self.gain(states, inputs.stimulus)
        if self.covariates:
            eta = eta + linear(inputs.covariates, self.covariate_weight)
        if history is not None and "readout" in self.feedback.into:
            eta = eta + self.feedback.to_predictor(history)
        return eta

    def forward(self, states: Tensor, inputs: HeadInputs, history: Tensor | None = None) -> dist.Distribution:
        """Return the distribution of this head given its states and the features of its own past."""
        eta = self.predictor(states, inputs, history)
        if self.draws_shape:  # of parameters of the family alone: the states may be the same for all of them
            batch = eta.shape[: -2 if self.head.per_step else -1]
            eta = eta.expand(torch.broadcast_shapes(batch, self.draws_shape) + eta.shape[len(batch) :])
        return self.distribution(eta, inputs)


def scale_in_units(raw: str) -> ParameterSpec:
    """Return the spec of a noise scale in the data's units, kept as the logarithm of what it is in the head's own."""
    return ParameterSpec(
        raw,
        value=lambda head, kept: head.scale * kept.exp(),
        tensor=lambda head, value: (value / head.scale).log(),
        support=constraints.positive,
        unit="of the data",
        dims=("channel",),
    )


def rows_in_units(raw: str, dims: tuple[str, ...]) -> ParameterSpec:
    """Return the spec of real numbers in the data's units, a row for each channel, kept in the head's own."""
    return ParameterSpec(
        raw,
        value=lambda head, kept: head.scale.unsqueeze(-1) * kept,
        tensor=lambda head, value: value / head.scale.unsqueeze(-1),
        unit="of the data",
        dims=dims,
    )


def _of_readout(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a head passes on to its default readout, of what it was given by name of parameter."""
    return {name: value for name, value in (given or {}).items() if name in _OF_READOUT}


def _without_readout(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in _OF_READOUT}


def refuse_outside(name: str, family: str, expected: str, bad: Tensor, values: Tensor) -> None:
    """Raise a ValueError that names the first entry where `bad` is True."""
    if not bool(bad.any()):
        return
    index, place = first_entry(bad, ("sequence", "step", "channel") if bad.dim() == 3 else ("sequence", "channel"))
    raise ValueError(f"observations[{name!r}]: {family} needs {expected}; found {float(values[index])} at {place}")
