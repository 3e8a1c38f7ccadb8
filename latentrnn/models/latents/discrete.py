"""A hidden switch between a few regimes of the heads, summed out exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from latentrnn.data import SequenceData
from latentrnn.models.latents.latent import Latent, learned_vector
from latentrnn.models.latents.path import Carry, LatentSite, Path, Step
from latentrnn.models.latents.rollout_protocol import RolloutProtocol
from latentrnn.models.observations import Observation
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.transitions import Transition
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.arguments import check_choice, check_flag, check_names, check_size

MOST_IN_PAIRS = 4096  # numbers of one step's product, up to which fewer operations are worth K times the work


class Discrete(Latent):
    """A switch c_t in 1..K that the heads read beside the state: a hidden Markov model on top of the network.

        c_1 ~ Categorical(pi);  c_t ~ Categorical(softmax(B[c_{t-1}] + W h_t)),  W = 0 unless the switch is driven
        h_t = transition(h_{t-1}, a_t) without noise;  y_t ~ family(readout(h_t, c_t))

    The transition does not see c_t, so that all paths are summed exactly by a forward pass: no latent site, no guide,
    exact evidence. The heads share one switch. The site of the first head is p(y^1), that of the second p(y^2 | y^1),
    and so on; their product is the joint density, whatever the order. Drawn heads share a path in the same way.
    `Posterior` draws paths exactly given the observed heads; its `latents` hold p(c_t | y) as "switch". For a switch
    that the transition does see, use `RelaxedDiscrete`.

    Args:
        num_states: K.
        weights: "shared": readouts see [h_t, one-hot c_t], a baseline for each regime; "separate": each regime has
            its own weights on h_t too; "none": they see one-hot c_t alone, which makes a plain hidden Markov model.
        driven: whether h_t moves the switch.
        observes: heads that `Posterior` may draw the switch from, all by default; for co-smoothing leave out what is
            held out, as with an encoder.

    Raises:
        ValueError: fewer than two states, unknown `weights`; when the model is put together, a head through which
            the paths cannot be summed: feedback, one value per sequence, or memory of earlier states.

    References:
        Rabiner. A tutorial on hidden Markov models and selected applications in speech recognition. 1989.
        Bengio, Frasconi. Input-output HMMs for sequence processing. 1996.
    """

    declared: ClassVar = {
        "transition": ParameterSpec.simplex("switch_logits", unit="per step", dims=("from", "to")),
        "initial": ParameterSpec.simplex("initial_logits", dims=("regime",)),
        "initial_state": ParameterSpec("initial_state", dims=("state",)),
    }

    consumes_feedback = False

    def __init__(
        self,
        num_states: int,
        *,
        weights: str = "shared",
        driven: bool = False,
        observes: Sequence[str] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.num_states = check_size("Discrete", "num_states", num_states)
        if num_states < 2:
            raise ValueError(f"Discrete: num_states must be at least 2; found {num_states}")
        self.weights = check_choice("Discrete", "weights", weights, ("shared", "separate", "none"))
        self.driven = check_flag("Discrete", "driven", driven)
        self.observes = None if observes is None else check_names("Discrete", "observes", observes)

    def build(self, transition: Transition, dt: float | None) -> None:
        self.initial_state = learned_vector(transition.state_size)
        self.initial_logits = learned_vector(self.num_states)
        self.switch_logits = nn.Parameter(torch.empty(self.num_states, self.num_states))  # row: from, column: to
        if self.driven:
            self.switch_weight = nn.Parameter(torch.empty(self.num_states, transition.hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Return to equal first probabilities, a regime that stays with probability 0.9, and an undriven switch."""
        with torch.no_grad():
            self.initial_state.zero_()
            self.initial_logits.zero_()
            self.switch_logits.copy_(torch.eye(self.num_states) * math.log(9.0 * (self.num_states - 1)))
            if self.driven:
                self.switch_weight.zero_()

    def check_heads(self, heads: Mapping[str, Observation]) -> None:
        for name, head in heads.items():
            reason = None
            if head.feedback is not None:
                reason = "feeds back, and would have to be drawn together with the switch; give its past as a covariate"
            elif not head.head.per_step:
                reason = "has one value for the whole sequence, which depends on all of the path"
            elif not head.instantaneous or head.reads is not None or head.readout.memory != 0:
                reason = "depends on more than the present state, so that the paths do not sum step by step"
            if reason is not None:
                raise ValueError(f"observations[{name!r}]: Discrete sums over its switch, but the head {reason}")
        for name in self.observes or []:
            if name not in heads:
                raise ValueError(f"Discrete: observes unknown head {name!r}; the model has {sorted(heads)}")

    def check_couplings(self, couplings: Sequence[Any]) -> None:
        if couplings:
            raise ValueError(
                f"Discrete sums its switch out of every head's density, so that no rollout of the heads is left for "
                f"the couplings {[coupling.label for coupling in couplings]} to look at"
            )

    def readout_size(self, transition: Transition) -> int:
        copies = {"none": 0, "shared": 1, "separate": self.num_states}[self.weights]
        return self.num_states + copies * transition.hidden_size

    def parts(self, transition: Transition) -> dict[str, slice]:
        return transition.parts if self.weights == "shared" else {}

    def sites(self) -> list[LatentSite]:
        return []

    def sample(self, transition: Transition, inputs: Tensor, data: SequenceData) -> Path:
        return Path(self.initial_state)

    def states(self, transition: Transition, inputs: Tensor, path: Path) -> Tensor:
        """Return what readouts see where a path was drawn; where paths are summed, h_{1:T}."""
        return super().states(transition, inputs, path) if path.states is None else path.states

    def begin_with(self, shape: tuple[int, ...], values: Mapping[str, Tensor]) -> Carry:
        return Carry(self.initial_state.expand(*shape, -1))

    def step(self, transition: Transition, carry: Carry, a_t: Tensor, gap: Tensor | None) -> Step:
        raise ValueError(
            "Discrete sums its switch out exactly: there is nothing to draw step by step; ask for one_step_ahead or "
            "latents of the posterior of the sequence so far, or use RelaxedDiscrete"
        )

    # -- densities -------------------------------------------------------------------------------------------------

    def distribution(self, rollout: RolloutProtocol, name: str) -> dist.Distribution:
        if rollout.path.states is not None:
            return super().distribution(rollout, name)
        h = self._hidden(rollout)
        return SummedHead(self, rollout, name, h, self._before(rollout, name, h))

    def ahead(self, rollout: RolloutProtocol, name: str) -> list[tuple[Tensor, dist.Distribution]]:
        h = self._hidden(rollout)
        chain, seen = self._chain(h), self._evidence(rollout, h, list(rollout.observations))
        predicted = torch.stack(torch.broadcast_tensors(*chain.predict(seen)), -2)  # (..., time, state)
        frames = rollout.data.observations[name].shape[1]
        predicted = rollout.observations[name].at_clock(predicted, frames)
        return list(zip(predicted.unbind(-1), self._regimes(rollout, name, h), strict=True))

    def sample_marginalised(self, rollout: RolloutProtocol, batch: torch.Size, *, given_data: bool) -> Path:
        h = self._hidden(rollout)
        names = (list(rollout.observations) if self.observes is None else self.observes) if given_data else []
        path = self._chain(h).draw(self._evidence(rollout, h, names), batch)
        return rollout.path._replace(states=self._seen(h, nn.functional.one_hot(path, self.num_states).to(h)))

    def intervened(self, drawn: RolloutProtocol, changed: RolloutProtocol) -> Path:
        raise ValueError(
            "counterfactual: Discrete sums its switch out, so that no path of it can be kept; use RelaxedDiscrete"
        )

    def report(self, rollout: RolloutProtocol) -> dict[str, Tensor]:
        h = self._hidden(rollout)
        names = list(rollout.observations) if self.observes is None else self.observes
        return {"switch": self._chain(h).smooth(self._evidence(rollout, h, names))}

    def _hidden(self, rollout: RolloutProtocol) -> Tensor:
        return rollout.transition.scan(rollout.transition_inputs, rollout.path.initial_state)[0]

    def _seen(self, h: Tensor, regime: Tensor) -> Tensor:
        """Return what readouts see of h_t and a one-hot c_t."""
        if self.weights == "none":
            return regime
        if self.weights == "shared":
            return concatenate_channels(h, regime)
        return concatenate_channels(regime, (regime.unsqueeze(-1) * h.unsqueeze(-2)).flatten(-2))

    def _chain(self, h: Tensor) -> Chain:
        logits: Tensor = self.switch_logits
        if self.driven:
            logits = logits + nn.functional.linear(h, self.switch_weight).unsqueeze(-2)  # (..., time, from, to)
        moves = logits.log_softmax(-1)
        return Chain(self.initial_logits.log_softmax(-1), moves if self.driven else moves.unsqueeze(-3))

    def _regimes(self, rollout: RolloutProtocol, name: str, h: Tensor) -> list[dist.Distribution]:
        """Return a head's distribution under each regime."""
        regimes = torch.eye(self.num_states, dtype=h.dtype, device=h.device)
        return [self._given(rollout, name, h, c.expand(*h.shape[:-1], -1)) for c in regimes]

    def _given(self, rollout: RolloutProtocol, name: str, h: Tensor, regime: Tensor) -> dist.Distribution:
        """Return a head's distribution given h_t and a one-hot c_t, everything observed counted, the context too."""
        head, frames = rollout.observations[name], rollout.data.observations[name].shape[1]
        inputs = rollout.inputs[name]._replace(mask=rollout.data.masks[name])
        return rollout.heads[name](head.at_clock(self._seen(h, regime), frames), inputs, None)

    def _evidence(self, rollout: RolloutProtocol, h: Tensor, names: Sequence[str]) -> Tensor:
        """Return log p(y_t | c_t) of the recorded values of some heads, (..., sequence, time, state)."""
        total = h.new_zeros(*h.shape[:-1], self.num_states)
        for name in names:
            total = total + emissions(rollout, name, self._regimes(rollout, name, h), rollout.data.observations[name])
        return total

    def _before(self, rollout: RolloutProtocol, name: str, h: Tensor) -> Tensor | None:
        """Return what is known when a head's turn comes: the heads before it, and the context of all."""
        known, data, turn = None, rollout.data, False
        for other in rollout.observations:
            turn = turn or other == name
            if turn and not data.host_context.any():
                break
            value = data.observations[other] if turn else rollout.outcomes.get(other, data.observations[other])
            found = emissions(rollout, other, self._regimes(rollout, other, h), value)
            if data.host_context.any():
                inside = self._context(rollout, other)
                recorded = emissions(rollout, other, self._regimes(rollout, other, h), data.observations[other])
                found = torch.where(inside, recorded, torch.zeros_like(found) if turn else found)
            known = found if known is None else known + found
        return known

    @staticmethod
    def _context(rollout: RolloutProtocol, name: str) -> Tensor:
        """Return which base steps hold a frame of the head's context, (sequence, time, 1)."""
        clock = rollout.observations[name].head.clock
        first = torch.arange(rollout.data.num_steps, device=rollout.data.device) - (clock - 1)
        return (first < rollout.data.context[:, None]).unsqueeze(-1)


def emissions(rollout: RolloutProtocol, name: str, regimes: Sequence[dist.Distribution], value: Tensor) -> Tensor:
    """Return log p(value_t | c_t) at the base steps at which frames are complete, (..., sequence, time, state)."""
    head = rollout.observations[name]
    value = value.double() if rollout.is_double else value
    found = torch.stack([head.entry_log_prob(regime, value).sum(-1) for regime in regimes], -1)
    clock = head.head.clock
    if clock == 1:
        return found
    spread = found.new_zeros(*found.shape[:-2], rollout.data.num_steps, found.shape[-1])
    spread[..., clock - 1 :: clock, :][..., : found.shape[-2], :] = found
    return spread


class Chain(NamedTuple):
    """log pi, (..., state), and log P, (..., time, from, to): one step where all are alike; the first is not used."""

    first: Tensor
    moves: Tensor

    def move(self, t: int) -> Tensor:
        """Return log P into step t, (..., from, to)."""
        return self.moves[..., t if self.moves.shape[-3] > 1 else 0, :, :]

    def predict(self, evidence: Tensor) -> list[Tensor]:
        """Return log p(c_t | y_{<t}) for every t, (..., state)."""
        out = [self.first.expand(evidence.shape[:-2] + self.first.shape[-1:])]
        for t, seen in enumerate(evidence.unbind(-2)[:-1]):
            now = (out[-1] + seen).log_softmax(-1)
            out.append(torch.logsumexp(now.unsqueeze(-1) + self.move(t + 1), -2))
        return out

    def forward(self, evidence: Tensor) -> list[Tensor]:
        """Return log p(c_t, y_{<=t}) for every t, (..., state)."""
        steps = evidence.unbind(-2)
        out = [self.first + steps[0]]
        for t, seen in enumerate(steps[1:], start=1):
            out.append(torch.logsumexp(out[-1].unsqueeze(-1) + self.move(t), -2) + seen)
        return out

    def total(self, evidence: Tensor) -> Tensor:
        """Return log p(y), (...).

        Where that is little work, the steps are multiplied in pairs, pairs of pairs, and so on: K times the sums of a
        forward pass, in log T operations instead of T.

        References:
            Särkkä, García-Fernández. Temporal parallelization of Bayesian smoothers. 2021.
        """
        sequences, states = evidence.shape[:-2].numel(), evidence.shape[-1]
        if sequences * states**3 > MOST_IN_PAIRS or evidence.shape[-2] == 1:
            return torch.logsumexp(self.forward(evidence)[-1], -1)
        moves = self.moves[..., 1:, :, :] if self.moves.shape[-3] > 1 else self.moves
        products = moves + evidence[..., 1:, :].unsqueeze(-2)  # (..., time, from, to)
        while (steps := products.shape[-3]) > 1:
            left, right = products[..., : steps - 1 : 2, :, :], products[..., 1::2, :, :]
            joined = torch.logsumexp(left.unsqueeze(-1) + right.unsqueeze(-3), -2)
            products = torch.cat([joined, products[..., steps - 1 :, :, :]], -3) if steps % 2 else joined
        start = self.first + evidence[..., 0, :]
        return torch.logsumexp(start.unsqueeze(-1) + products[..., 0, :, :], (-2, -1))

    def smooth(self, evidence: Tensor) -> Tensor:
        """Return p(c_t | y), (..., time, state)."""
        ahead, steps = self.forward(evidence), evidence.unbind(-2)
        behind = [torch.zeros_like(ahead[-1])]
        for t in range(len(steps) - 1, 0, -1):
            behind.append(torch.logsumexp(self.move(t) + (steps[t] + behind[-1]).unsqueeze(-2), -1))
        return torch.stack([(a + b).softmax(-1) for a, b in zip(ahead, behind[::-1], strict=True)], -2)

    @torch.no_grad()
    def draw(self, evidence: Tensor, batch: torch.Size) -> Tensor:
        """Return paths from p(c | y), integers (*batch, time), filtering ahead and sampling back."""
        ahead = [step.expand(*batch, -1) for step in self.forward(evidence)]
        path = [torch.distributions.Categorical(logits=ahead[-1], validate_args=False).sample()]
        states = ahead[0].shape[-1]
        for t in range(len(ahead) - 2, -1, -1):
            move = self.move(t + 1).expand(*batch, states, states)
            into = move.gather(-1, path[-1][..., None, None].expand(*batch, states, 1)).squeeze(-1)
            path.append(torch.distributions.Categorical(logits=ahead[t] + into, validate_args=False).sample())
        return torch.stack(path[::-1], -1)


class SummedHead(TorchDistribution):
    """One head given the heads before it, the switch summed out: p(y^k | y^1, ..., y^{k-1})."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)

    def __init__(
        self,
        latent: Discrete,
        rollout: RolloutProtocol,
        name: str,
        h: Tensor,
        before: Tensor | None,
        batch_shape: torch.Size | None = None,
        regimes: Sequence[dist.Distribution] | None = None,
    ) -> None:
        self.latent, self.rollout, self.name = latent, rollout, name
        self.h, self.before = h, before
        self.chain = latent._chain(h)
        # as precise as the rollout is now: it may be asked for a density when it no longer is
        self.regimes = latent._regimes(rollout, name, h) if regimes is None else regimes
        batch = self.regimes[0].batch_shape if batch_shape is None else batch_shape
        if before is not None and batch_shape is None:
            batch = torch.broadcast_shapes(batch, before.shape[:-2])
        super().__init__(batch, rollout.data.observations[name].shape[1:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> SummedHead:
        parts = self.latent, self.rollout, self.name, self.h, self.before
        return SummedHead(*parts, torch.Size(batch_shape), self.regimes)

    def log_prob(self, value: Tensor) -> Tensor:
        own = emissions(self.rollout, self.name, self.regimes, value)
        if self.rollout.data.host_context.any():
            own = torch.where(self.latent._context(self.rollout, self.name), torch.zeros_like(own), own)
        if self.before is None:
            found = self.chain.total(own)
        else:
            with_own, without = torch.broadcast_tensors(self.before + own, self.before)
            found = self.chain.total(with_own) - self.chain.total(without)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        batch = torch.Size(sample_shape) + self.batch_shape
        before = self.before
        if before is None:
            before = self.chain.first.new_zeros(*batch, self.rollout.data.num_steps, self.latent.num_states)
        path = nn.functional.one_hot(self.chain.draw(before, batch), self.latent.num_states).to(self.h)
        return self.latent._given(self.rollout, self.name, self.h, path).sample()
