"""One sequence as it comes in, step by step, with a memory that does not grow."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.filters.filtered_state import FilteredState
from latentrnn.inference.filters.particle_filter import choose, resampled, sample_size
from latentrnn.inference.filters.stream import Read, Stream
from latentrnn.inference.guides.fitted import Fitted
from latentrnn.models.features import Feature
from latentrnn.models.features.gap import gaps
from latentrnn.models.latents import Carry
from latentrnn.models.observations import HeadInputs, Observation
from latentrnn.models.observations.multinomial import SharedTotal
from latentrnn.models.readouts import Readout
from latentrnn.models.rollout.double_precision import inputs_to_double, to_double
from latentrnn.models.sites import parameter_site
from latentrnn.models.transitions.transition import concatenate_channels
from latentrnn.support.arguments import check_choice, check_flag, check_seed, check_size
from latentrnn.support.isolation import isolated
from latentrnn.support.random_numbers import random_state

PARAMETER_DRAWS = 256


class OnlineFilter:
    """Follows one sequence: `update` takes one step in and returns what is known of the state.

    With particles this is the particle filter of `Posterior.one_step_ahead` (and its random numbers), from the prior or
    from a guide that a causal encoder informs; without particles the causal guide alone, at the cost of one step of its
    encoder. A guide's word is only as good as its fit; particles are weighed by the model. Memory and time per step do
    not grow. Parameters with priors stay at their means under the guide.

    Args:
        source: a fit, or a posterior (its data are not used).
        num_particles: particles; None for the guide alone.
        proposal: "prior", or "guide".
        seed: of every random number.
        check: whether observations are checked against their family's support.
        session: that the sequence belongs to, where an encoder reads in the heads of several.

    Raises:
        ValueError: a model that looks ahead or remembers without bound (`BidirectionalRNN`, `CausalAttention`), a head
            that depends on the states of earlier steps, an encoder that is not causal, a family without steps, or an
            unknown session.

    References:
        Gordon, Salmond, Smith. Novel approach to nonlinear/non-Gaussian Bayesian state estimation. 1993.
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
    ) -> None:
        if not isinstance(source, Fitted):
            raise TypeError(f"OnlineFilter: source must be a FitResult or a Posterior; found {type(source).__name__}")
        check_choice("OnlineFilter", "proposal", proposal, ("prior", "guide"))
        check, seed = check_flag("OnlineFilter", "check", check), check_seed("OnlineFilter", seed)
        if num_particles is None and proposal == "prior":
            raise ValueError("OnlineFilter: without particles there is the guide alone; use proposal='guide'")
        self.num_particles, self.proposal, self.check = num_particles, proposal, check
        self.model = copy.deepcopy(source.model).cpu().eval()
        self.guide = copy.deepcopy(source.guide).cpu().eval()
        self._fix_parameters(seed)
        self.site = next((site.name for site in self.model.latent_sites() if site.along_time), None)
        random = bool(self.model.latent_sites())
        count = 1 if num_particles is None or not random else check_size("OnlineFilter", "num_particles", num_particles)
        self.shape = (1, count, 1)
        # where the guide has nothing to say it is not asked: the prior it is
        self.guided = proposal == "guide" and self.site is not None
        if self.guided:
            self._check_guide()
        self.clocks = {name: head.head.clock for name, head in self.model.observations.items()}
        self.heads = self._heads()
        # densities are sums over channels, of counts that may be large: single precision would be off by nats
        self.precise = {name: copy.deepcopy(head).double() for name, head in self.heads.items()}
        dtype = next(self.model.parameters()).dtype
        missing = dict.fromkeys(self.heads, True)
        if self.guided and self.guide.encoder is not None:
            missing |= self.guide.encoder.start_streaming()
        sessions = sorted({head.session for head in self.model.spec.heads.values() if head.session is not None})
        if session is not None and (not isinstance(session, str) or session not in sessions):
            raise ValueError(f"OnlineFilter: unknown session {session!r}; the model has {sessions}")
        counted = [name for name, head in self.heads.items() if isinstance(head, SharedTotal)]
        self.stream = Stream(self.model.spec, missing, self._memory(), dtype, session, counted)
        parts = [part for part in self.model.modules() if isinstance(part, Feature | Readout)]
        self.reading = [part for part in parts if type(part).check not in (Feature.check, Readout.check)]
        self.feeding = [name for name, head in self.heads.items() if head.feedback is not None]
        self.pasts: dict[str, Tensor | None] = dict.fromkeys(self.heads)
        self.histories = {
            n: torch.zeros(1, self.heads[n].feedback.steps, self.heads[n].history_channels, dtype=dtype)
            for n in self.feeding
        }
        self.carry: Carry | None = None
        self.before: Tensor | None = None
        self.log_weights = torch.full(self.shape, -math.log(count), dtype=torch.float64)
        self.encoded: Tensor | None = None
        self.chain: Tensor | None = None
        with random_state(seed):
            self.random = torch.get_rng_state()
        self._rehearse()

    # -- what is checked when a filter is made ------------------------------------------------------------------------

    def _fix_parameters(self, seed: int) -> None:
        if self.guide.parameter_sites is None:
            return
        with random_state(seed), torch.no_grad(), pyro.plate("draws", PARAMETER_DRAWS, dim=-2):
            values = self.guide.parameter_sites()
        for name, head in self.model.observations.items():
            for path in head.prior_sites():
                buffer = head.get_buffer(path)
                mean = values[parameter_site(name, path)].mean(0).reshape(buffer.shape)
                buffer.copy_(head.to_units(path, mean))

    def _rehearse(self) -> None:
        """Go through a step with nothing observed and back, so that what cannot be done is refused here."""
        known = {name: torch.zeros_like(buffer[0]) for name, buffer in self.stream.covariates.items()}
        before, windows = self._remembered(), dict(self.stream._windows)
        self._before_steps = {name for name in self.state_dict() if not name.startswith("pasts.")}
        try:
            with torch.inference_mode():
                totals = dict.fromkeys(self.stream.counted, math.nan)
                time = 0.0 if self.model.spec.irregular else None
                self._update(Read(dict.fromkeys(self.heads), known, time, totals))
            after = self.state_dict()
            self._after_a_step = {n: value.shape for n, value in after.items() if not n.startswith("pasts.")}
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"OnlineFilter: {str(error).removeprefix('OnlineFilter: ')}") from error
        finally:
            self._restore(before)
            self.stream._windows = windows

    def _check_guide(self) -> None:
        family = self.guide.local
        if not family.amortised:
            raise ValueError(f"OnlineFilter: {family!r} knows the sequences of its fit alone; it needs an encoder")
        if self.num_particles is not None and not family.stepwise:
            raise ValueError(
                f"OnlineFilter: the steps of {type(family).__name__} lean on later ones, so that particles cannot come "
                "from it; use Markov or MeanField, or the guide alone (num_particles=None)"
            )

    def _heads(self) -> dict[str, Observation]:
        found = {}
        for name, head in self.model.observations.items():
            if not head.head.per_step:
                continue
            if not head.stepwise:
                raise ValueError(
                    f"OnlineFilter: head {name!r}, {type(head).__name__}, depends on more than the present state and "
                    "step"
                )
            if head.readout.memory is None:
                raise ValueError(
                    f"OnlineFilter: {type(head.readout).__name__} of head {name!r} remembers all states, so that "
                    "memory would grow; use WindowedAttention"
                )
            head.head = dataclasses.replace(head.head, clock=1)  # a frame comes now and then
            found[name] = head
        return found

    def _memory(self) -> int:
        parts = [part for part in self.model.modules() if isinstance(part, Feature | Readout)]
        if self.guided:
            parts += [part for part in self.guide.modules() if isinstance(part, Feature)]
        if any(part.lookahead for part in parts):
            part = next(part for part in parts if part.lookahead)
            raise ValueError(f"OnlineFilter: {part!r} looks at covariates that have not come yet")
        memory = max((part.memory for part in parts if isinstance(part, Feature)), default=0)
        return max(memory, 1) if self.model.spec.irregular else memory

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
            before = self._remembered()
            try:
                return self._update(step, check=self.check)
            except BaseException:
                self._restore(before)
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

    def _remembered(self) -> dict[str, Any]:
        """Return what a step changes; only the stream's own buffers are written over, and copied here."""
        changed = ("carry", "before", "log_weights", "encoded", "chain", "random")
        kept: dict[str, Any] = {name: getattr(self, name) for name in changed}
        return kept | {
            "stream": self.stream.state_dict(), "pasts": dict(self.pasts), "histories": dict(self.histories)
        }  # fmt: skip

    def _restore(self, kept: dict[str, Any]) -> None:
        self.stream.load_state_dict(kept.pop("stream"))
        for name, value in kept.items():
            setattr(self, name, value)

    def _check_covariates(self, data: SequenceData, step: int) -> None:
        """Raise where a feature or readout cannot take in the present step's covariates."""
        for part in self.reading:
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
        observed = [name for name in self.heads if bool(data.masks[name][0, -1].any())]
        gap = None if data.times is None else gaps(data)
        since = None if gap is None else gap[:, -1]
        past = {n: self.heads[n].feedback.at(window) for n, window in self.histories.items()}
        drive = self.model.transition_inputs(data)[:, -1]
        fed = [past[n] for n in self.feeding if "transition" in self.heads[n].feedback.into]
        a_t = (concatenate_channels(drive, *fed) if fed else drive).expand(*self.shape, -1)
        with _generator(self, self.num_particles is not None):
            if self.num_particles is None:
                found = self._by_guide(step, data, a_t, since, past)
            else:
                found = self._by_particles(step, data, a_t, since, past, observed)
        for name, window in self.histories.items():
            new = self.heads[name].encode_history(data.observations[name][:, -1:], data.masks[name][:, -1:])
            self.histories[name] = torch.cat([window[:, 1:], new], 1)
        return found

    def _numbers(self, data: Any) -> dict[str, Tensor]:
        assert self.guide.encoder is not None
        encoding, self.encoded = self.guide.encoder.advance(data, self.encoded)
        return self.guide.local.variational_parameters(encoding, data)

    def _by_guide(
        self, step: int, data: Any, a_t: Tensor, since: Tensor | None, past: Mapping[str, Tensor]
    ) -> FilteredState:
        latent, transition, said = self.model.latent, self.model.transition, None
        if self.guided:
            said = self.guide.local.filtered(self._numbers(data), self.chain)
            self.chain = said.memory
        if self.carry is None:
            priors = latent.start_prior(self.shape)
            starts = said.starts if said is not None else {name: prior.mean for name, prior in priors.items()}
            self.carry = latent.begin_with(self.shape, {k: v.expand(*self.shape, -1) for k, v in starts.items()})
        mean = None if said is None else said.mean.expand(*self.shape, -1)
        self.carry = latent.step(transition, self.carry, a_t, since).move(mean)
        h_t = latent.output(transition, self.carry)
        rates = {}
        for name in self.heads:
            if (step + 1) % self.clocks[name] == 0:
                law = self._law(name, data, h_t, past)
                rates[name] = self.precise[name].mean(law)[0, 0, 0, 0].to(h_t.dtype)
        one = h_t.new_ones(1)
        if said is None:
            return FilteredState(step, None, h_t[0, :, 0], one, rates, {}, None, None)
        return FilteredState(step, said.mean, h_t[0, :, 0], one, rates, {}, None, None, said.covariance[0])

    def _by_particles(
        self,
        step: int,
        data: Any,
        a_t: Tensor,
        since: Tensor | None,
        past: Mapping[str, Tensor],
        observed: list[str],
    ) -> FilteredState:
        latent, transition, log_weights = self.model.latent, self.model.transition, self.log_weights
        proposals = self.guide.local.proposals(self._numbers(data), data) if self.guided else None
        carry, before, starts = self.carry, self.before, {}
        if carry is None:
            priors = latent.start_prior(self.shape)
            if proposals is None:
                starts = {name: prior.rsample() for name, prior in priors.items()}
            else:
                start = proposals.begin(self.shape)
                starts = start.values
                for name, prior in priors.items():
                    log_weights = log_weights + prior.log_prob(starts[name])
                log_weights = log_weights - start.log_density
            carry = latent.begin_with(self.shape, starts)
        elif self.shape[1] > 1:  # resampled now, not when the last step was done: the next may never come
            log_weights, ancestors = resampled(log_weights, 0.5)
            carry = Carry(
                choose(carry.state, ancestors),
                None if carry.innovation is None else choose(carry.innovation, ancestors),
            )
            before = None if before is None else choose(before, ancestors)
            self.pasts = {n: None if p is None else choose(p, ancestors) for n, p in self.pasts.items()}
        moving, value = latent.step(transition, carry, a_t, since), None
        if moving.prior is not None and proposals is None:
            value = moving.prior.rsample()
        elif moving.prior is not None:
            assert proposals is not None
            law = proposals.step(0, before, starts).expand(self.shape)
            value = law.rsample()
            log_weights = log_weights + moving.prior.log_prob(value) - law.log_prob(value)
        carry = moving.move(value)
        h_t = latent.output(transition, carry)
        means, increment = {}, torch.zeros_like(log_weights)
        for name, head in self.heads.items():
            if (step + 1) % self.clocks[name]:
                continue
            law = self._law(name, data, h_t, past)
            means[name] = self.precise[name].mean(law)[0, :, 0, 0].to(h_t.dtype)  # (particle, channel)
            if name in observed:
                entries = self.precise[name].entry_log_prob(law, to_double(data.observations[name][:, -1:]))
                increment = increment + entries.squeeze(-2).sum(-1)
            self.pasts[name] = head.readout.remember(self.pasts[name], h_t)
        ahead = log_weights.softmax(1)[0, :, 0].to(h_t.dtype)
        weighed = log_weights + increment
        mass = torch.logsumexp(weighed, 1, keepdim=True)
        if not bool(mass.isfinite()):
            weighed = torch.full_like(weighed, -math.log(self.shape[1]))
        else:
            weighed = weighed - mass
        self.carry, self.before, self.log_weights = carry, value, weighed
        weights = weighed.exp()[0, :, 0].to(h_t.dtype)
        return FilteredState(
            step,
            None if value is None else value[0, :, 0],
            h_t[0, :, 0],
            weights,
            {name: torch.tensordot(weights, mean, 1) for name, mean in means.items()},
            {name: torch.tensordot(ahead, mean, 1) for name, mean in means.items()},
            float(mass),
            float(sample_size(weighed)),
        )

    def _law(self, name: str, data: Any, h_t: Tensor, past: Mapping[str, Tensor]) -> dist.Distribution:
        """Return a head's distribution at the present frame, in double precision."""
        inputs: HeadInputs = self.heads[name].inputs(data).at(data.num_steps - 1, self.pasts[name])
        history = past[name].unsqueeze(1) if name in past else None
        law: dist.Distribution = self.precise[name](
            to_double(h_t.unsqueeze(-2)), inputs_to_double(inputs), to_double(history)
        )
        return law

    # -- on and off ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that the next update needs besides the weights of model and guide, as tensors by name."""
        found = {f"stream.{name}": value for name, value in self.stream.state_dict().items()}
        found |= {f"histories.{name}": value for name, value in self.histories.items()}
        found |= {f"pasts.{name}": value for name, value in self.pasts.items() if value is not None}
        loose = {"before": self.before, "encoded": self.encoded, "chain": self.chain}
        if self.carry is not None:
            loose |= {"carry.state": self.carry.state, "carry.innovation": self.carry.innovation}
        found |= {name: value for name, value in loose.items() if value is not None}
        found |= {"log_weights": self.log_weights, "random": self.random}
        return {name: value.clone().contiguous() for name, value in found.items()}

    @isolated
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned, of a filter made with the same arguments.

        Raises:
            ValueError: a state of another filter.
        """
        self._refuse_another(state)
        state = {name: value.clone() for name, value in state.items()}
        self.stream.load_state_dict({k.removeprefix("stream."): v for k, v in state.items() if k.startswith("stream.")})
        self.histories = {name: state[f"histories.{name}"] for name in self.histories}
        self.pasts = {name: state.get(f"pasts.{name}") for name in self.pasts}
        self.before, self.encoded, self.chain = (state.get(name) for name in ("before", "encoded", "chain"))
        self.carry = Carry(state["carry.state"], state.get("carry.innovation")) if "carry.state" in state else None
        self.log_weights, self.random = state["log_weights"].double(), state["random"]

    def _refuse_another(self, state: Mapping[str, Tensor]) -> None:
        """Raise unless a state has the tensors of this filter's, before a first step or after one."""
        if "log_weights" not in state or state["log_weights"].shape != self.log_weights.shape:
            raise ValueError(f"OnlineFilter: expected the state of a filter with {self.shape[1]} particles")
        # what readouts remember comes with their head's first frame, and grows to its full length
        names = {name for name in state if not name.startswith("pasts.")}
        steps = state.get("stream.steps")
        expected_names = self._before_steps if steps is None or not int(steps) else set(self._after_a_step)
        if names != expected_names:
            odd = sorted(names ^ expected_names)
            raise ValueError(f"OnlineFilter: the state is of another filter, or of another model: they differ in {odd}")
        for name, value in state.items():
            expected = self._after_a_step.get(name)
            known = name in self._after_a_step or name.removeprefix("pasts.") in self.pasts
            if not known or (expected is not None and value.shape != expected):
                found = tuple(value.shape)
                raise ValueError(
                    f"OnlineFilter: the state is of another model: {name!r} has shape {found}; "
                    f"expected {'nothing of this name' if expected is None else tuple(expected)}"
                )

    def save(self, path: str | Path) -> None:
        """Write `state_dict` to a safetensors file."""
        save_file(self.state_dict(), path)

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote."""
        self.load_state_dict(load_file(path))


class _generator:
    """The filter's own random numbers within the block; torch's generator is as before after it."""

    def __init__(self, owner: OnlineFilter, needed: bool) -> None:
        self.owner, self.needed = owner, needed

    def __enter__(self) -> None:
        if self.needed:
            self.before = torch.get_rng_state()
            torch.set_rng_state(self.owner.random)

    def __exit__(self, *error: object) -> None:
        if self.needed:
            self.owner.random = torch.get_rng_state()
            torch.set_rng_state(self.before)
