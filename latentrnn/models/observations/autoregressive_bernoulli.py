"""Binary channels that depend on each other within a step."""

from __future__ import annotations

from functools import cache, reduce
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.data import DataSpec, HeadSpec
from latentrnn.models.features.units import channel_means
from latentrnn.models.observations.head_inputs import HeadInputs
from latentrnn.models.observations.observation import Observation, refuse_outside
from latentrnn.models.readouts.linear import per_entry
from latentrnn.support.arguments import check_flag, check_size
from latentrnn.support.shown import first_entry

POINTS = 16  # over which a mean is taken


class AutoregressiveBernoulli(Observation):
    """Binary channels, each given the state and the channels before it at the same step.

        logit p(y_tc = 1 | h_t, y_t1, ..., y_t,c-1) = eta_tc + sum_{d<c} W_cd y'_td + sum_u B_cu relu(a_u + (A y'_t)_u)

    where y' = y - its mean in the training data, and unit u sees the first channels alone and acts on later ones alone.
    With `driven_units` the state moves the units too, a_tu = a_u + (C h_t)_u, so that what channels do to each other
    depends on the state, as the notes of a chord do on the harmony.
    What channels do together at one step (the notes of a chord, the spikes of a word) then needs no latent variable,
    and the density of a step stays exact; a mean is taken over draws. The order of channels is part of the model.
    Without units the pairwise terms remain, a fully visible sigmoid belief network.

    Args:
        units: size of the masked network, or None for pairwise terms alone.
        driven_units: whether the state moves the units, each by a weight for every hidden unit.
        **shared: see `Observation`. The head must be per step, of two channels or more.

    Raises:
        ValueError: `units` below one; a per-sequence head or a single channel; data some of whose steps have observed
            and missing channels (a step is observed as a whole or not at all: what is missing cannot be summed out);
            `driven_units` without units.

    References:
        Neal. Connectionist learning of belief networks. 1992.
        Frey. Graphical models for machine learning and digital communication. 1998.
        Germain, Gregor, Murray, Larochelle. MADE: masked autoencoder for distribution estimation. 2015.
        Boulanger-Lewandowski, Bengio, Vincent. Modeling temporal dependencies in high-dimensional sequences. 2012
        (RNN-NADE, whose units the state moves).
    """

    discrete = True
    joint = True
    arguments_added_later: ClassVar = MappingProxyType({"driven_units": False})
    network_weights = ("pairwise", "unit_weight", "unit_effect", "unit_drive")
    sees: Tensor  # which channels a unit sees, (unit, channel)

    def __init__(self, units: int | None = None, *, driven_units: bool = False, **shared: Any) -> None:
        super().__init__(**shared)
        self.units = None if units is None else check_size("AutoregressiveBernoulli", "units", units)
        self.driven_units = check_flag("AutoregressiveBernoulli", "driven_units", driven_units)
        if self.driven_units and self.units is None:
            raise ValueError("AutoregressiveBernoulli: driven_units needs units; found units=None")

    def arguments(self) -> dict[str, Any]:
        found = super().arguments()
        if not self.driven_units:
            del found["driven_units"]  # described as before there was one, so that what was begun then goes on
        return found

    def build(self, head: HeadSpec, spec: DataSpec, hidden_size: int) -> None:
        self.hidden_size = hidden_size
        super().build(head, spec, hidden_size)

    @property
    def width(self) -> int:
        return self.outputs + (self.units if self.units is not None and self.driven_units else 0)

    def build_family(self, head: HeadSpec) -> None:
        owner, channels = f"observations[{head.name!r}]", head.channels
        if not head.per_step:
            raise ValueError(f"{owner}: AutoregressiveBernoulli needs a per-step head")
        if channels < 2:
            raise ValueError(f"{owner}: AutoregressiveBernoulli needs at least 2 channels; found {channels}")
        self.pairwise = nn.Parameter(torch.empty(channels, channels))
        if self.units is not None:
            self.unit_weight = nn.Parameter(torch.empty(self.units, channels))
            self.unit_bias = nn.Parameter(torch.empty(self.units))
            self.unit_effect = nn.Parameter(torch.empty(channels, self.units))
            if self.driven_units:
                self.unit_drive = nn.Parameter(torch.empty(self.units, self.hidden_size))
            last = torch.arange(self.units) * (channels - 1) // self.units  # channel that a unit sees last
            sees = torch.arange(channels) <= last[:, None]
            self.register_buffer("sees", sees, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to channels that hardly depend on each other; draw the units from torch's global generator."""
        super().reset_parameters()
        with torch.no_grad():
            self.pairwise.zero_()
            if self.units is not None:
                self.unit_weight.normal_(0.0, self.head.channels**-0.5)
                self.unit_bias.zero_()
                self.unit_effect.normal_(0.0, 0.01)
                if self.driven_units:
                    self.unit_drive.normal_(0.0, 0.5 / self.hidden_size**0.5)

    @property
    def pairwise_weight(self) -> Tensor:
        """W in log-odds, (channel, channel), strictly lower triangular: row c from column d."""
        return self.pairwise.tril(-1)

    def family(self, eta: Tensor) -> dist.Distribution:
        raise TypeError("AutoregressiveBernoulli joins the channels of a step; use distribution(eta, inputs)")

    def forward(self, states: Tensor, inputs: HeadInputs, history: Tensor | None = None) -> dist.Distribution:
        words = super().forward(states, inputs, history)
        return words.driven(per_entry(states, self.unit_drive)) if self.driven_units else words

    def distribution(self, eta: Tensor, inputs: HeadInputs) -> dist.Distribution:
        units = None
        if self.units is not None:
            units = Units(self.unit_weight * self.sees, self.unit_bias, self.unit_effect * ~self.sees.mT)
        return BinaryWords(eta, Within(self.history_centre, self.pairwise_weight, units), inputs.mask)

    def entry_log_prob(self, distribution: dist.Distribution, value: Tensor) -> Tensor:
        return distribution.step_log_prob(value).unsqueeze(-1)

    def check(self, name: str, values: Tensor, mask: Tensor) -> None:
        refuse_outside(name, type(self).__name__, "zeros and ones", mask & (values != 0) & (values != 1), values)
        holes = mask.any(-1, keepdim=True) & ~mask
        if holes.any():
            index, place = first_entry(holes, ("sequence", "step"))
            raise ValueError(
                f"observations[{name!r}]: AutoregressiveBernoulli needs all channels of a step or none; found channel "
                f"{index[-1]} missing at {place}, where others are observed"
            )

    def starting_baseline(self, values: Tensor, mask: Tensor) -> Tensor:
        return torch.logit(channel_means(values, mask).clamp(1e-3, 1 - 1e-3))


class Units(NamedTuple):
    """The masked network: its input weights (unit, channel), bias (..., unit) and output weights (channel, unit)."""

    weight: Tensor
    bias: Tensor
    effect: Tensor


class Within(NamedTuple):
    """How channels act on later ones of their step.

    Attributes:
        centre: values at which nothing acts, (channel,).
        pairwise: strictly lower triangular, (channel, channel).
        units: the masked network, or None.
    """

    centre: Tensor
    pairwise: Tensor
    units: Units | None

    def effects(self, value: Tensor) -> Tensor:
        """Return what is added to every channel's log-odds, like the value (..., channel)."""
        value = value - self.centre
        effects = per_entry(value, self.pairwise)
        if self.units is None:
            return effects
        seen = per_entry(value, self.units.weight) + self.units.bias
        return effects + per_entry(seen.relu(), self.units.effect)

    @torch.no_grad()
    def draw(self, eta: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Return a draw, (..., channel), and the log-odds that each of its channels was drawn with.

        All channels are drawn at once and again, given what the last round gave those before them: the first is right
        after one round, each further one at most a round later, and once a round changes nothing all are. That takes a
        few rounds, where one channel after the other would take as many as there are channels.

        Args:
            eta: log-odds of each channel where nothing before it acts, (..., channel).
            levels: uniform numbers that broadcast with it: a channel is one where its own lies below its probability.

        References:
            Wiggers, Hoogeboom. Predictive sampling with forecasting autoregressive models. 2020.
            Song, Meng, Liao, Ermon. Accelerating feedforward computation via parallel nonlinear equation solving. 2021.
        """
        log_odds = eta
        drawn = (levels < log_odds.sigmoid()).to(eta.dtype)
        for _ in range(eta.shape[-1]):
            log_odds = eta + self.effects(drawn)
            again = (levels < log_odds.sigmoid()).to(eta.dtype)
            if torch.equal(again, drawn):
                break
            drawn = again
        return drawn, log_odds


@cache
def spread_points(channels: int) -> Tensor:
    """Return points that fill the unit cube evenly, (point, channel), the same at every call."""
    return torch.quasirandom.SobolEngine(channels, scramble=True, seed=0).draw(POINTS, dtype=torch.float64)


class BinaryWords(TorchDistribution):
    """Binary channels at every step, each given those before it.

    Args:
        eta: log-odds of each channel where nothing before it acts, (..., time, channel).
        within: how channels act on later ones.
        mask: True = observed, (sequence, time, channel), a step as a whole; or None.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.boolean, 2)

    def __init__(self, eta: Tensor, within: Within, mask: Tensor | None) -> None:
        self.eta, self.within, self.mask = eta, within, mask
        super().__init__(eta.shape[:-2], eta.shape[-2:], validate_args=False)

    def driven(self, drive: Tensor) -> BinaryWords:
        """Return the same with something added to the biases of the units, (..., time, unit)."""
        assert self.within.units is not None
        units = self.within.units._replace(bias=self.within.units.bias + drive)
        return BinaryWords(self.eta, self.within._replace(units=units), self.mask)

    @property
    def mean(self) -> Tensor:
        """E[y], (..., time, channel): each channel's probability, averaged over evenly spread draws of those before it.

        A sum over all words has no closed form. The draws are the same at every call, so that this is a function of the
        parameters alone, off by 0.01 to 0.02 (less where it is averaged further); it has no gradient.
        """
        points = spread_points(self.event_shape[-1]).to(self.eta)
        return reduce(torch.add, (self.within.draw(self.eta, point)[1].sigmoid() for point in points)) / len(points)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> BinaryWords:
        return BinaryWords(self.eta.expand(torch.Size(batch_shape) + self.event_shape), self.within, self.mask)

    def step_log_prob(self, value: Tensor) -> Tensor:
        """Return log-probabilities per step, nats, (..., time), zero where nothing is observed."""
        if self.mask is not None:
            value = torch.where(self.mask, value, 0.0)
        log_odds = self.eta + self.within.effects(value)
        log_prob = value * log_odds - F.softplus(log_odds)
        return (log_prob if self.mask is None else torch.where(self.mask, log_prob, 0.0)).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.step_log_prob(value).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        eta = self.eta.expand(torch.Size(sample_shape) + self.eta.shape)
        return self.within.draw(eta, torch.rand_like(eta))[0]
