"""One sequence as it comes in, step by step, with a memory that does not grow."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.filters.particles import Moved, ParticleDynamics, Particles
from latentrnn.inference.filters.resampling import effective_sample_size
from latentrnn.inference.guides.fitted import Fitted
from latentrnn.inference.online.exact_step import exact_step, is_summed_out, joined_covariance
from latentrnn.inference.online.filtered_state import FilteredState
from latentrnn.inference.online.parameter_draws import check_draws, draw_parameters, normalised, weighed, with_draws
from latentrnn.inference.online.repeated import RepeatedStep, repeatable
from latentrnn.inference.online.stream import Read, Stream
from latentrnn.inference.online.streamable import (
    check_guide,
    check_session,
    fix_parameters,
    heads_of_steps,
    parts_with_checks,
    steps_to_remember,
)
from latentrnn.models.component import floating_type
from latentrnn.models.features.gap import gaps
from latentrnn.models.latents import Carry
from latentrnn.models.latents.kalman.filter import Moments
from latentrnn.models.observations import HeadInputs
from latentrnn.models.observations.multinomial import SharedTotal
from latentrnn.models.rollout.double_precision import inputs_to_double, to_double
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.arguments import check_choice, check_flag, check_seed, check_size
from latentrnn.support.isolation import isolated, random_state

DRAWS = "draws."  # what names of draws of the parameters begin with in a state


class Memory(NamedTuple):
    """What an online filter remembers of earlier steps, besides the stream's buffers.

    Attributes:
        carry: what the latent needs of the last step; None before the first.
        value: what was drawn at it.
        log_weights: of the particles, (draw, particle, 1), with a mass of one under each draw.
        readout_memory: by head earlier states that its readout remembers.
        histories: by head that feeds back its last observations, encoded.
        encoded: what the encoder needs of the last step.
        chain: what the family's moments need of it.
        generator: state of the random numbers.
        log_draw_weights: of the draws of the parameters, (draw, 1, 1); None where none are carried along.
        moments: of a state that is followed exactly, (draw, 1, 1, state[, state]); None before the first step.
    """

    carry: Carry | None
    value: Tensor | None
    log_weights: Tensor
    readout_memory: dict[str, Tensor | None]
    histories: dict[str, Tensor]
    encoded: Tensor | None
    chain: Tensor | None
    generator: Tensor
    log_draw_weights: Tensor | None
    moments: Moments | None


class Now(NamedTuple):
    """The present step: the last few steps as a batch, and what goes into the transition.

    Attributes:
        data: of the stream.
        inputs: of the transition, (draw, particle, 1, channel), with one draw where none are carried along.
        gap: seconds since the step before, where steps are irregular.
        fed_back: by head what it feeds back.
    """

    data: Any
    inputs: Tensor
    gap: Tensor | None
    fed_back: dict[str, Tensor]


class OnlineFilter:
    """Follows one sequence: `update` takes one step in and returns what is known of the state.

    With particles this is the particle filter of `Posterior.one_step_ahead` (and its random numbers), from the prior or
    from a guide that a causal encoder informs; without particles the causal guide alone, at the cost of one step of its
    encoder. A guide's word is only as good as its fit; particles are weighed by the model. The states of
    `LinearGaussian` take neither: the Kalman filter follows them exactly. Memory and time per step do not grow.

    Parameters with priors stay at their means under the guide, or are carried along as draws, each with particles of
    its own, and weighed by what it expected of the sequence:

        p(y_t | y_{<t}) = sum_k w_{k,t} p(y_t | y_{<t}, theta_k),   theta_k ~ q(theta),
        w_{k,t} = prod_{s<t} p(y_s | y_{<s}, theta_k) / const

    What the source knows of the parameters is what is believed of them before the first step, so that a sequence that
    it was fitted to would count twice. Draws are not renewed: see `FilteredState.effective_draws`. The guide alone does
    not weigh them, as it has no densities.

    Args:
        source: a fit, or a posterior (its data are not used).
        num_particles: particles, of each draw of the parameters; None for the guide alone. Not used where a state is
            followed exactly.
        proposal: "prior", or "guide".
        num_draws: draws of the parameters with priors, those of chains where the source has any; None for their means.
            Where no parameter has a prior, they are not needed.
        seed: of every random number.
        check: whether observations are checked against their family's support.
        session: that the sequence belongs to, where an encoder reads in the heads of several.

    Raises:
        TypeError: a source that is neither.
        ValueError: a model that looks ahead or remembers without bound (`BidirectionalRNN`, `CausalAttention`), a head
            that depends on the states of earlier steps, an encoder that is not causal, a family without steps, or an
            unknown session.

    References:
        Gordon, Salmond, Smith. Novel approach to nonlinear/non-Gaussian Bayesian state estimation. 1993.
        Chopin. A sequential particle filter method for static models. 2002.
        Chopin, Jacob, Papaspiliopoulos. SMC2: an efficient algorithm for sequential analysis of state space models.
        2013.

    Example:
        >>> import latentrnn as lr, numpy as np, pyro.distributions as dist
        >>> data = lr.SequenceData.from_arrays({"spikes": np.ones((2, 5, 3))})
        >>> heads = {"spikes": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})}
        >>> model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(2), observations=heads)
        >>> guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
        >>> online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=50, num_draws=8)
        >>> found = online.update([0, 2, 1])
        >>> found.rates["spikes"].shape, found.states.shape, found.draw_weights.shape
        (torch.Size([3]), torch.Size([400, 4]), torch.Size([8]))
    """

    @isolated
    def __init__(
        self,
        source: Fitted,
        *,
        num_particles: int | None = 256,
        proposal: str = "prior",
        seed: int = 0,
        check: bool = True,
        session: str | None = None,
        num_draws: int | None = None,
    ) -> None:
        if not isinstance(source, Fitted):
            raise TypeError(
                f"OnlineFilter: source must be a FitResult or a Posterior; found {type(source).__name__}; of an "
                "ensemble, give one member"
            )
        check_choice("OnlineFilter", "proposal", proposal, ("prior", "guide"))
        check, seed = check_flag("OnlineFilter", "check", check), check_seed("OnlineFilter", seed)
        self.exact = is_summed_out(source.model)
        if num_particles is None and proposal == "prior" and not self.exact:
            raise ValueError("OnlineFilter: without particles there is the guide alone; use proposal='guide'")
        self.num_particles, self.proposal, self.check = num_particles, proposal, check
        if num_draws is not None:
            num_draws = check_size("OnlineFilter", "num_draws", num_draws)
        self.model = copy.deepcopy(source.model).cpu().eval()
        self.guide = copy.deepcopy(source.guide).cpu().eval()
        if num_draws is None:
            fix_parameters(self.model, self.guide, seed)
        with random_state(seed):
            # by site, (draw, *shape); particles take the random numbers that come after
            self.draws = {} if num_draws is None else draw_parameters(self.model, self.guide, num_draws)
            generator = torch.get_rng_state()
        self.site = next((site.name for site in self.model.latent_sites() if site.along_time), None)
        random = bool(self.model.latent_sites())
        count = 1 if num_particles is None or not random else check_size("OnlineFilter", "num_particles", num_particles)
        self.shape = (num_draws if num_draws is not None and self.draws else 1, count, 1)
        # where the guide has nothing to say it is not asked: the prior it is
        self.guided = proposal == "guide" and self.site is not None
        if self.guided:
            check_guide(self.guide, particles=num_particles is not None)
        self.clocks = {name: head.head.clock for name, head in self.model.observations.items()}
        self.heads = heads_of_steps(self.model)
        self.checked_parts = parts_with_checks(self.model)
        memory = steps_to_remember(self.model, self.guide if self.guided else None)
        if self.draws:
            self.model = with_draws(self.model, self.draws)
            self.heads = {name: self.model.observations[name] for name in self.heads}
        # densities are sums over channels, of counts that may be large: single precision would be off by nats
        self.double_heads = {name: copy.deepcopy(head).double() for name, head in self.heads.items()}
        dtype = floating_type(self.model, torch.get_default_dtype())
        missing = dict.fromkeys(self.heads, True)
        if self.guided and self.guide.encoder is not None:
            missing |= self.guide.encoder.start_streaming()
        check_session(self.model, session)
        counted = [name for name, head in self.heads.items() if isinstance(head, SharedTotal)]
        self.stream = Stream(self.model.spec, missing, memory, dtype, session, counted)
        self.feedback_heads = [name for name, head in self.heads.items() if head.feedback is not None]
        self.memory = Memory(
            carry=None,
            value=None,
            log_weights=torch.full(self.shape, -math.log(count), dtype=torch.float64),
            readout_memory=dict.fromkeys(self.heads),
            histories={
                name: torch.zeros(1, head.feedback.steps, head.history_channels, dtype=dtype)
                for name, head in self.heads.items()
                if head.feedback is not None
            },
            encoded=None,
            chain=None,
            generator=generator,
            log_draw_weights=self._equal_draw_weights(),
            moments=None,
        )
        self.repeated = RepeatedStep(repeats=repeatable(self.model, self.guide))
        self._names_before, self._shapes_after = self._rehearse()

    def _equal_draw_weights(self) -> Tensor | None:
        if not self.draws:
            return None
        number = self.shape[0]
        return torch.full((number, 1, 1), -math.log(number), dtype=torch.float64)

    def _rehearse(self) -> tuple[set[str], dict[str, torch.Size]]:
        """Go through a step with nothing observed and back, so that what cannot be done is refused at once.

        Returns:
            The names in the state before a first step, and the shapes after one; but for what readouts remember.
        """
        known = {name: torch.zeros_like(buffer[0]) for name, buffer in self.stream.covariates.items()}
        before, undo = self.memory, self.stream.undo_point()
        names = {name for name in self.state_dict() if not name.startswith("pasts.")}
        try:
            with torch.inference_mode():
                totals = dict.fromkeys(self.stream.counted, math.nan)
                time = 0.0 if self.model.spec.irregular else None
                self._update(Read(dict.fromkeys(self.heads), known, time, totals))
            after = self.state_dict()
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"OnlineFilter: {str(error).removeprefix('OnlineFilter: ')}") from error
        finally:
            self.memory = before
            undo()
        return names, {name: value.shape for name, value in after.items() if not name.startswith("pasts.")}

    # -- one step ------------------------------------------------------------------------------------------------------

    @isolated
    def update(
        self, observation: Any = None, covariates: Any = None, *, time: float | None = None, totals: Any = None
    ) -> FilteredState:
        """Take in one step.

        Args:
            observation: head to (channel,) values, in the data's units; None or left out where a head shows nothing,
                NaN where a channel is missing. With one head its values alone will do.
            covariates: covariate to (feature,) values; with one covariate its values alone will do.
            time: seconds, where steps are irregular.
            totals: head to the sum over all its channels, the missing ones included, where they share one
                (`Multinomial`, `DirichletMultinomial`); None or NaN where it is not known.

        A step that is refused leaves the filter as it was, so that it can be given again, mended.

        Raises:
            TypeError: values that are no numbers, or a dict was needed.
            ValueError: an unknown name, a wrong size, a value outside its family's support, a covariate that a part of
                the model cannot read (an exposure that is not positive), or a total that is below what it counts.
        """
        with torch.inference_mode():
            step = self.stream.read(observation, covariates, time, totals)
            if self.check:
                self._check_support(step)
            before, undo = self.memory, self.stream.undo_point()
            try:
                return self._update(step, check=self.check)
            except BaseException:
                self.memory = before
                undo()
                raise

    def _check_support(self, step: Read) -> None:
        """Raise unless what was observed is in its family's support; the error says which step of the stream it was."""
        for name, head in self.heads.items():
            pair = step.seen.get(name)
            if pair is None:
                continue
            values, mask, _ = pair
            try:
                head.check(name, values[None, None], mask[None, None])
            except ValueError as error:
                # a head is shown this step alone, and counts from there
                raise ValueError(str(error).replace("sequence 0, step 0", f"step {self.stream.steps}")) from None

    def _check_covariates(self, data: SequenceData, step: int) -> None:
        """Raise where a feature or readout cannot take in the present step's covariates."""
        for part in self.checked_parts:
            try:
                part.check(data)
            except ValueError as error:
                # a part is shown the last few steps alone, and counts from there
                here = f"sequence 0, step {data.num_steps - 1}"
                raise ValueError(str(error).replace(here, f"step {step}")) from None

    def _update(self, given: Read, check: bool = False) -> FilteredState:
        step, data = self.stream.steps, self.stream.put(given)
        if check:
            self._check_covariates(data, step)
        if self.num_particles is None and not self.exact:
            return self._by_guide(step, data)
        now = self._now(data, self.memory.histories)
        if self.exact:
            found = self._exactly(step, now)
        else:
            with self._own_random_numbers():
                found = self._by_particles(step, now)
        if self.memory.histories:
            self.memory = self.memory._replace(histories=self._with_newest(self.memory.histories, data))
        return found

    def _now(self, data: SequenceData, histories: Mapping[str, Tensor]) -> Now:
        """Return what the present step is told, given the last observations of heads that feed back."""
        gap = None if data.times is None else gaps(data)
        fed_back = {n: self.heads[n].feedback.at(window) for n, window in histories.items()}
        into = [fed_back[n] for n in self.feedback_heads if "transition" in self.heads[n].feedback.into]
        inputs = self.model.transition_inputs(data)[..., -1, :]
        inputs = (concatenate_channels(inputs, *into) if into else inputs).expand(*self.shape, -1)
        return Now(data, inputs, None if gap is None else gap[:, -1], fed_back)

    def _with_newest(self, histories: Mapping[str, Tensor], data: SequenceData) -> dict[str, Tensor]:
        found = {}
        for name, window in histories.items():
            new = self.heads[name].encode_history(data.observations[name][:, -1:], data.masks[name][:, -1:])
            found[name] = torch.cat([window[:, 1:], new], 1)
        return found

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Draw the filter's own random numbers within the block; torch's generator is as before after it."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.memory.generator)
        try:
            yield
        finally:
            self.memory = self.memory._replace(generator=torch.get_rng_state())
            torch.set_rng_state(before)

    def variational_parameters(self, data: Any, encoded: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return those of the present step, and what the encoder remembers once it has taken that in."""
        assert self.guide.encoder is not None
        encoding, encoded = self.guide.encoder.advance(data, encoded)
        return self.guide.local.variational_parameters(encoding, data), encoded

    def _by_guide(self, step: int, data: SequenceData) -> FilteredState:
        memory, due = self.memory, self._heads_due(step)
        carry = memory.carry
        remembered = {"encoded": memory.encoded, "chain": memory.chain, **memory.histories}
        if carry is not None:
            remembered |= {"state": carry.state, "innovation": carry.innovation}
        given = {name: value for name, value in remembered.items() if value is not None}
        times = () if data.times is None else (data.times,)
        buffers = (data.observations, data.masks, data.covariates, data.totals)
        tensors = [*(value for each in buffers for value in each.values()), *times, *given.values()]

        def told(*tensors: Tensor) -> tuple[Any, ...]:
            return self._told_by_guide(data, due, dict(zip(given, tensors[len(tensors) - len(given) :], strict=True)))

        # of the stream's windows there are few, each in a place of its own
        kind = id(data), tuple(due), tuple(given)
        state, innovation, encoded, chain, histories, hidden, values, spread, weights, rates = self.repeated(
            kind, told, tensors
        )
        self.memory = memory._replace(carry=Carry(state, innovation), encoded=encoded, chain=chain, histories=histories)
        drawn = weights if self.draws else None
        return FilteredState(step, values, hidden, weights, rates, {}, None, None, spread, drawn)

    def _told_by_guide(self, data: SequenceData, due: list[str], given: dict[str, Tensor]) -> tuple[Any, ...]:
        """Return what is remembered of a step, and what the guide tells of it, given what was remembered."""
        latent, transition = self.model.latent, self.model.transition
        encoded, chain = given.get("encoded"), given.get("chain")
        histories = {name: given[name] for name in self.feedback_heads}
        carry = Carry(given["state"], given.get("innovation")) if "state" in given else None
        now, filtered = self._now(data, histories), None
        if self.guided:
            numbers, encoded = self.variational_parameters(data, encoded)
            filtered = self.guide.local.filtered(numbers, chain)
            chain = filtered.memory
        if carry is None:
            priors = latent.start_prior(self.shape)
            starts = filtered.starts if filtered else {name: prior.mean for name, prior in priors.items()}
            carry = latent.begin_with(self.shape, {k: v.expand(*self.shape, -1) for k, v in starts.items()})
        mean = None if filtered is None else filtered.mean.expand(*self.shape, -1)
        carry = latent.step(transition, carry, now.inputs, now.gap).move(mean)
        hidden = latent.output(transition, carry)
        rates = {}
        for name in due:
            expected = self.double_heads[name].mean(self.distribution(name, now, hidden, None))
            rates[name] = (expected[:, 0, 0, 0].mean(0) if self.draws else expected[0, 0, 0, 0]).to(hidden.dtype)
        values, spread = (None, None) if filtered is None else (filtered.mean, filtered.covariance[0])
        if self.draws and values is not None:
            values = values.expand(self.shape[0], -1)
        weights = hidden.new_full((self.shape[0],), 1 / self.shape[0])
        histories = self._with_newest(histories, data)
        told = hidden[:, 0, 0], values, spread, weights, rates
        return carry.state, carry.innovation, encoded, chain, histories, *told

    def _exactly(self, number: int, now: Now) -> FilteredState:
        due, dtype = self._heads_due(number), now.inputs.dtype
        step = exact_step(self.model, self.double_heads, now.data, self.memory.moments, due, self.shape)
        self.memory = self.memory._replace(moments=step.moments)
        if (before := self.memory.log_draw_weights) is None:
            before = after = torch.zeros_like(step.log_prob)
            log_prob = float(step.log_prob)
        else:
            log_prob, after = weighed(before, step.log_prob)
            self.memory = self.memory._replace(log_draw_weights=after)
        ahead, weights = (part.exp().flatten() for part in (before, after))
        loc = step.moments.loc[:, 0, 0].to(dtype)
        return FilteredState(
            number,
            loc,
            loc,
            weights.to(dtype),
            {name: _average(weights, mean).to(dtype) for name, mean in step.rates.items()},
            {name: _average(ahead, mean).to(dtype) for name, mean in step.predicted.items()},
            log_prob,
            None,
            joined_covariance(step.moments, weights).to(dtype),
            weights.to(dtype) if self.draws else None,
        )

    def _by_particles(self, number: int, now: Now) -> FilteredState:
        latent, transition = self.model.latent, self.model.transition
        proposals, encoded = None, self.memory.encoded
        if self.guided:
            numbers, encoded = self.variational_parameters(now.data, encoded)
            proposals = self.guide.local.proposals(numbers, now.data)
        dynamics = ParticleDynamics(
            latent, transition, self.shape, now.inputs, self.memory.log_weights.dtype, proposals=proposals
        )
        particles = self._particles_before(dynamics)
        moved = dynamics.step(0, particles.carry, particles.value, now.inputs, now.gap)
        log_weights, memory = _reweighted(particles.log_weights, moved), dict(particles.readout_memory)
        hidden = latent.output(transition, moved.carry)
        means, increment = {}, torch.zeros_like(log_weights)
        for name in self._heads_due(number):
            distribution = self.distribution(name, now, hidden, memory[name])
            head = self.double_heads[name]
            means[name] = head.mean(distribution)[:, :, 0, 0].flatten(0, 1).to(hidden.dtype)  # (particle, channel)
            if bool(now.data.masks[name][0, -1].any()):
                entries = head.entry_log_prob(distribution, to_double(now.data.observations[name][:, -1:]))
                increment = increment + entries.squeeze(-2).sum(-1)
            memory[name] = self.heads[name].readout.remember(memory[name], hidden)
        ahead = log_weights.softmax(1)
        log_prob, log_weights = normalised(log_weights + increment, 1)
        self.memory = self.memory._replace(
            carry=moved.carry, value=moved.value, log_weights=log_weights, readout_memory=memory, encoded=encoded
        )
        values = None if moved.value is None else moved.value.flatten(0, 2)
        states = hidden.flatten(0, 2)
        if self.draws:
            return self._mixed(number, values, states, means, ahead, log_prob)
        before, weights = (part.flatten().to(hidden.dtype) for part in (ahead, log_weights.exp()))
        return FilteredState(
            number,
            values,
            states,
            weights,
            {name: torch.tensordot(weights, mean, 1) for name, mean in means.items()},
            {name: torch.tensordot(before, mean, 1) for name, mean in means.items()},
            float(log_prob),
            float(effective_sample_size(log_weights)),
        )

    def _mixed(
        self,
        step: int,
        values: Tensor | None,
        states: Tensor,
        means: Mapping[str, Tensor],
        ahead: Tensor,
        log_prob: Tensor,
    ) -> FilteredState:
        """Weigh the draws of the parameters by what they expected of a step, and return what they say together.

        Args:
            step: the step.
            values, states, means: of the particles of all draws, (particle, ...).
            ahead: weights of the particles before the step was seen, (draw, particle, 1), adding up to one under each.
            log_prob: log p(y_t | y_{<t}) under each draw, nats, (draw, 1, 1).
        """
        before = self.memory.log_draw_weights
        assert before is not None
        together, after = weighed(before, log_prob)
        self.memory = self.memory._replace(log_draw_weights=after)
        log_weights = (self.memory.log_weights + after).reshape(1, -1, 1)
        weights_before = (ahead * before.exp()).flatten().to(states.dtype)
        weights = log_weights.exp().flatten().to(states.dtype)
        return FilteredState(
            step,
            values,
            states,
            weights,
            {name: _average(weights, mean) for name, mean in means.items()},
            {name: _average(weights_before, mean) for name, mean in means.items()},
            together,
            float(effective_sample_size(log_weights)),
            None,
            after.exp().flatten().to(states.dtype),
        )

    def _particles_before(self, dynamics: ParticleDynamics) -> Particles:
        """Return the particles that this step moves: new ones at the first, else the last step's, resampled."""
        memory = self.memory
        if memory.carry is None:
            start = dynamics.init()
            return Particles(start.carry, None, _reweighted(memory.log_weights, start), memory.readout_memory)
        particles = Particles(memory.carry, memory.value, memory.log_weights, memory.readout_memory)
        # now, not when the last step was done: the next may never come
        return particles.resampled(0.5)[0] if self.shape[1] > 1 else particles

    def _heads_due(self, step: int) -> list[str]:
        """Return the heads of which a frame is complete at a step."""
        return [name for name in self.heads if (step + 1) % self.clocks[name] == 0]

    def distribution(self, name: str, now: Now, hidden: Tensor, memory: Tensor | None) -> dist.Distribution:
        """Return a head's distribution at the present frame, in double precision."""
        inputs: HeadInputs = self.heads[name].inputs(now.data).at(now.data.num_steps - 1, memory)
        history = now.fed_back[name].unsqueeze(-2) if name in now.fed_back else None
        found: dist.Distribution = self.double_heads[name](
            to_double(hidden.unsqueeze(-2)), inputs_to_double(inputs), to_double(history)
        )
        return found

    # -- on and off ----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if self.exact:
            how = "exact"
        elif self.num_particles is None:
            how = "no particles, by the guide"
        else:
            how = f"{self.num_particles} particles from the {self.proposal}"
        return f"OnlineFilter(heads {list(self.heads)}, {how}{f', {self.shape[0]} draws' if self.draws else ''})"

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that the next update needs besides the weights of model and guide, as tensors by name.

        Draws of the parameters are among it, so that a filter with others can refuse it.
        """
        memory = self.memory
        found = {f"stream.{name}": value for name, value in self.stream.state_dict().items()}
        found |= {f"histories.{name}": value for name, value in memory.histories.items()}
        found |= {f"pasts.{name}": value for name, value in memory.readout_memory.items() if value is not None}
        loose = {"before": memory.value, "encoded": memory.encoded, "chain": memory.chain}
        if memory.carry is not None:
            loose |= {"carry.state": memory.carry.state, "carry.innovation": memory.carry.innovation}
        found |= {name: value for name, value in loose.items() if value is not None}
        found |= {"log_weights": memory.log_weights, "random": memory.generator}
        if memory.moments is not None:
            found |= {"moments.loc": memory.moments.loc, "moments.root": memory.moments.root}
        if memory.log_draw_weights is not None:
            found["log_draw_weights"] = memory.log_draw_weights
            found |= {f"{DRAWS}{name}": value for name, value in self.draws.items()}
        return {name: value.clone().contiguous() for name, value in found.items()}

    @isolated
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned, of a filter made with the same arguments.

        Raises:
            ValueError: a state of another filter, or one that was reached with other draws of the parameters.
        """
        self._refuse_another(state)
        state = {name: value.clone() for name, value in state.items()}
        self.stream.load_state_dict({k.removeprefix("stream."): v for k, v in state.items() if k.startswith("stream.")})
        self.memory = Memory(
            carry=Carry(state["carry.state"], state.get("carry.innovation")) if "carry.state" in state else None,
            value=state.get("before"),
            log_weights=state["log_weights"].double(),
            readout_memory={name: state.get(f"pasts.{name}") for name in self.heads},
            histories={name: state[f"histories.{name}"] for name in self.feedback_heads},
            encoded=state.get("encoded"),
            chain=state.get("chain"),
            generator=state["random"],
            log_draw_weights=state["log_draw_weights"].double() if self.draws else None,
            moments=Moments(state["moments.loc"], state["moments.root"]) if "moments.loc" in state else None,
        )

    def _refuse_another(self, state: Mapping[str, Tensor]) -> None:
        """Raise unless a state has the tensors of this filter's, before a first step or after one."""
        if "log_weights" not in state or state["log_weights"].shape != self.shape:
            draws = f", and {self.shape[0]} draws of the parameters" if self.draws else ""
            raise ValueError(f"OnlineFilter: expected the state of a filter with {self.shape[1]} particles{draws}")
        # what readouts remember comes with their head's first frame, and grows to its full length
        names = {name for name in state if not name.startswith("pasts.")}
        steps = state.get("stream.steps")
        expected_names = self._names_before if steps is None or not int(steps) else set(self._shapes_after)
        if names != expected_names:
            odd = sorted(names ^ expected_names)
            raise ValueError(f"OnlineFilter: the state is of another filter, or of another model: they differ in {odd}")
        for name, value in state.items():
            expected = self._shapes_after.get(name)
            known = name in self._shapes_after or name.removeprefix("pasts.") in self.heads
            if not known or (expected is not None and value.shape != expected):
                found = tuple(value.shape)
                raise ValueError(
                    f"OnlineFilter: the state is of another model: {name!r} has shape {found}; "
                    f"expected {'nothing of this name' if expected is None else tuple(expected)}"
                )
        check_draws({name: state[f"{DRAWS}{name}"] for name in self.draws}, self.draws)

    def save(self, path: str | Path) -> None:
        """Write `state_dict` to a safetensors file."""
        save_file(self.state_dict(), path)

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote."""
        self.load_state_dict(load_file(path))


def _reweighted(log_weights: Tensor, moved: Moved) -> Tensor:
    """Return log-weights that count what was drawn of another distribution than the prior."""
    if moved.log_densities is None:
        return log_weights
    log_prior, log_proposal = moved.log_densities
    return log_weights + log_prior - log_proposal


def _average(weights: Tensor, mean: Tensor) -> Tensor:
    """Return the weighted average of means (particle, ...), those without weight left out whatever they are."""
    some = (weights > 0).reshape(-1, *[1] * (mean.dim() - 1))
    return torch.tensordot(weights, torch.where(some, mean, 0.0), 1)
