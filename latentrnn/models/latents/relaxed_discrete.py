"""A hidden switch that the transition sees: soft weights that move along time, one continuous site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.models import sites
from latentrnn.models.latents.initial_state import NormalStart
from latentrnn.models.latents.latent import DRAWN, STATE, Latent, learned_vector
from latentrnn.models.latents.path import Carry, LatentSite, Path, Step
from latentrnn.models.latents.rollout_protocol import RolloutProtocol
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.arguments import check_number, check_size


class RelaxedDiscrete(Latent):
    """A sticky switch w_t, nearly one-hot, that drives the transition: h_t = transition(s_{t-1}, [a_t, w_t]).

        w_1 ~ Concrete(pi, temperature);  w_t ~ Concrete(w_{t-1} P, temperature),  P the moves from state to state
        x_t^k = temperature (log w_t^k - log w_t^0),  k = 1..K-1:  the site `switch_logits`, any real path

    Where `Discrete` is summed out, because the transition does not see it, this switch is a sampled continuous path,
    so that any transition may consume it: `SwitchingLinear(switch="given")` mixes its regimes by w_t, every other
    transition has w_t as input. At any temperature the largest weight of w_t is state k with probability
    (w_{t-1} P)_k; as the temperature falls, w_t becomes one-hot and the path the Markov chain of `Discrete`, with
    dwell times that P's diagonal sets. Everything else in the state is without noise. `Posterior.latents` holds the
    weights as "switch". Which state is called first is for the data to say: compare up to a permutation. P is per
    step, whatever the time between steps.

    Args:
        num_states: K.
        temperature: of the Concrete distribution: below 1 weights gather at the corners. Low temperatures are closer
            to a switch and harder to optimise.
        initial: dimension of a Normal latent mapped to s_0; None for a learned constant s_0.

    Raises:
        ValueError: fewer than two states, a temperature that is not positive, a dimension below one; when the model
            is put together, a transition that mixes another number of regimes.

    References:
        Maddison, Mnih, Teh. The Concrete distribution: a continuous relaxation of discrete random variables. 2017.
        Jang, Gu, Poole. Categorical reparameterization with Gumbel-softmax. 2017.
        Ghahramani, Hinton. Variational learning for switching state-space models. 2000.
    """

    declared: ClassVar = {
        "transition": ParameterSpec.simplex("switch_logits", unit="per step", dims=("from", "to")),
        "initial": ParameterSpec.simplex("initial_logits", dims=("regime",)),
        "initial_state": ParameterSpec("initial_state", dims=("state",)),
    }

    continues = True

    def __init__(self, num_states: int, temperature: float = 0.5, initial: int | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.num_states = self.input_size = self.switch_size = check_size("RelaxedDiscrete", "num_states", num_states)
        if num_states < 2:
            raise ValueError(f"RelaxedDiscrete: num_states must be at least 2; found {num_states}")
        self.temperature = check_number("RelaxedDiscrete", "temperature", temperature, above=0)
        self.initial = None if initial is None else check_size("RelaxedDiscrete", "initial", initial)

    def build(self, transition: Transition, dt: float | None) -> None:
        self.initial_logits = learned_vector(self.num_states)
        self.switch_logits = nn.Parameter(torch.empty(self.num_states, self.num_states))  # row: from, column: to
        if self.initial is None:
            self.initial_state = learned_vector(transition.state_size)
        else:
            self.start = NormalStart(self.initial, transition.state_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to equal first probabilities and a state that stays with probability 0.9."""
        with torch.no_grad():
            self.initial_logits.zero_()
            self.switch_logits.copy_(torch.eye(self.num_states) * math.log(9.0 * (self.num_states - 1)))
            if self.initial is None:
                self.initial_state.zero_()

    @property
    def moves(self) -> Tensor:
        """P, (from, to): probabilities of the state after each state."""
        return self.switch_logits.softmax(-1)

    def sites(self) -> list[LatentSite]:
        initial = [] if self.initial is None else [LatentSite(sites.INITIAL, self.initial, along_time=False)]
        return [*initial, LatentSite(sites.SWITCH, self.num_states - 1, along_time=True)]

    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        first: Tensor = self.initial_logits
        if data.carry_in is not None:
            start, first = data.carry_in[STATE], moved_by(data.carry_in[DRAWN], self.moves).log()
        else:
            start = self.initial_state if self.initial is None else self.start.sample(data.num_sequences)
        path = ConcretePath(
            first,
            self.switch_logits,
            self.temperature,
            (data.num_sequences, data.num_steps),
            data.valid if data.padded else None,
        )
        x = pyro.sample(sites.SWITCH, path)
        return Path(start, innovations=log_weights(x, self.temperature).exp())

    def report(self, rollout: RolloutProtocol) -> dict[str, Tensor]:
        assert rollout.path.innovations is not None
        return {"switch": rollout.path.innovations}

    def start_prior(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        return {} if self.initial is None else {sites.INITIAL: self.start.prior(shape)}

    def begin_with(self, shape: tuple[int, ...], values: Mapping[str, Tensor]) -> Carry:
        if self.initial is None:
            return Carry(self.initial_state.expand(*shape, -1))
        return Carry(self.start.map.at_step(values[sites.INITIAL]))

    def step(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Step:
        log_odds = self.initial_logits.log_softmax(-1)
        if carry.innovation is not None:
            log_odds = moved_by(carry.innovation, self.moves).log()

        def move(x_t: Tensor | None) -> Carry:
            assert x_t is not None
            w_t = log_weights(x_t, self.temperature).exp()
            return Carry(transition.step(carry.state, concatenate_channels(a_t, w_t)), w_t)

        return Step(Concrete(log_odds.expand(*carry.state.shape[:-1], -1)), move)


class Concrete(TorchDistribution):
    """A Concrete variable in coordinates x that are any real numbers; see `ConcretePath`.

    Args:
        log_odds: log alpha, (..., state), their exponentials adding up to one.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, log_odds: Tensor) -> None:
        self.log_odds = log_odds
        super().__init__(log_odds.shape[:-1], torch.Size((log_odds.shape[-1] - 1,)), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> Concrete:
        return Concrete(self.log_odds.expand(*batch_shape, -1))

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return draw(self.log_odds.expand(*sample_shape, *self.log_odds.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return log_density(self.log_odds, value)


class ConcretePath(TorchDistribution):
    """A Markov path of Concrete variables in coordinates x that are any real numbers; standard normal in padding.

        p(x_t | w_{t-1}) = (K-1)! prod_k alpha_k e^{-x_k} / (sum_k alpha_k e^{-x_k})^K,  x_0 = 0,  k = 0..K-1
        alpha = w_{t-1} P,  at the first step softmax(first);  w = softmax(x / temperature)

    x_k is a difference of Gumbel variables around log alpha_k / alpha_0: for two states, logistic.

    Args:
        first: logits of the first step, (state,), or of every sequence's, (..., sequence, state).
        moves: logits of the rows of P, (state, state), or draws of them, (*sample, 1, state, state).
        temperature: of w.
        shape: (sequence, time).
        valid: (sequence, time), True where the process runs; None where there is no padding.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self, first: Tensor, moves: Tensor, temperature: float, shape: tuple[int, int], valid: Tensor | None
    ) -> None:
        self.first, self.log_moves = first.log_softmax(-1), moves.log_softmax(-1)
        self.temperature, self.valid = temperature, valid
        event = torch.Size((shape[1], first.shape[-1] - 1))
        batch = torch.broadcast_shapes(shape[:1], first.shape[:-1], moves.shape[:-2])
        super().__init__(batch, event, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> ConcretePath:
        new = ConcretePath.__new__(ConcretePath)
        new.first, new.log_moves = self.first, self.log_moves
        new.temperature, new.valid = self.temperature, self.valid
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        batch = torch.Size(sample_shape) + self.batch_shape
        log_odds, path = self.first.expand(*batch, -1), []
        for _ in range(self.event_shape[0]):
            path.append(draw(log_odds))
            log_odds = moved_by(log_weights(path[-1], self.temperature).exp(), self.log_moves.exp()).log()
        x = torch.stack(path, -2)
        return x if self.valid is None else torch.where(self.valid.unsqueeze(-1), x, torch.randn_like(x))

    def log_prob(self, value: Tensor) -> Tensor:
        before = log_weights(value[..., :-1, :], self.temperature)
        moved = torch.logsumexp(before.unsqueeze(-1) + over_time(self.log_moves), -2)
        batch = torch.broadcast_shapes(self.first.shape[:-1], moved.shape[:-2])
        first = self.first.unsqueeze(-2).expand(*batch, 1, -1)
        log_odds = torch.cat([first, moved.expand(*batch, *moved.shape[-2:])], -2)
        steps = log_density(log_odds, value)
        if self.valid is not None:
            standard = (-0.5 * value**2 - 0.5 * math.log(2 * math.pi)).sum(-1)
            steps = torch.where(self.valid, steps, standard)
        return steps.sum(-1)


def moved_by(weights: Tensor, moves: Tensor) -> Tensor:
    """Return w P, (..., state), of weights (..., state) and P, (state, state) or draws of it."""
    return weights @ moves if moves.dim() == 2 else (weights.unsqueeze(-2) @ moves).squeeze(-2)


def over_time(moves: Tensor) -> Tensor:
    """Return P as it is, and draws of it, (*sample, 1, state, state), with an axis for time."""
    return moves if moves.dim() == 2 else moves.unsqueeze(-3)


def log_weights(x: Tensor, temperature: float) -> Tensor:
    """Return log w, (..., state), of the coordinates x, (..., state - 1)."""
    return (F.pad(x, (1, 0)) / temperature).log_softmax(-1)


def log_density(log_odds: Tensor, x: Tensor) -> Tensor:
    """Return the log-density, (...), of a Concrete variable with log-probabilities (..., state) at x."""
    states = log_odds.shape[-1]
    terms = log_odds - F.pad(x, (1, 0))
    return math.lgamma(states) + terms.sum(-1) - states * torch.logsumexp(terms, -1)


def draw(log_odds: Tensor) -> Tensor:
    """Return x, (..., state - 1), of a Concrete variable with log-probabilities (..., state)."""
    # the smallest positive number keeps the double logarithm finite
    uniform = torch.rand_like(log_odds).clamp_min(torch.finfo(log_odds.dtype).tiny)
    perturbed = log_odds - torch.log(-torch.log(uniform))
    return perturbed[..., 1:] - perturbed[..., :1]
