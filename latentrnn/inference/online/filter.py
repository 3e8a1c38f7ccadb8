"""Sequences as they come in, step by step, with a memory that does not grow."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentrnn.data import SequenceData, SequenceKey
from latentrnn.inference.guides.fitted import Fitted, Provenance
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.online.by_guide import ByGuide
from latentrnn.inference.online.by_particles import ByParticles
from latentrnn.inference.online.exact_step import Exactly, is_summed_out
from latentrnn.inference.online.filtered_state import FilteredState, FilteredStates
from latentrnn.inference.online.followed import Followed
from latentrnn.inference.online.forecast import Standing, forecast
from latentrnn.inference.online.memory import Memory
from latentrnn.inference.online.parameter_draws import draw_parameters
from latentrnn.inference.online.recorded import steps_of
from latentrnn.inference.online.saved import refuse_another, remembered, to_tensors
from latentrnn.inference.online.stream import Read, Stream
from latentrnn.inference.online.streamable import (
    check_guide,
    check_sessions,
    check_streams,
    fix_parameters,
    parts_with_checks,
    steps_to_remember,
)
from latentrnn.inference.posterior.forecast import Forecast
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.models.component import floating_type
from latentrnn.models.observations.multinomial import SharedTotal
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_choice, check_flag, check_seed, check_size
from latentrnn.support.isolation import isolated, random_state


class Fit(NamedTuple):
    """What is kept of a filter's source, so that another can be made."""

    model: LatentRNN
    guide: Guide
    used: frozenset[SequenceKey]  # sequences that were fitted, or decided when to stop; those that are known


class OnlineFilter:
    """Follows a sequence, or many at once: `update` takes one step in and returns what is known of the state.

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

    Streams that are followed together take one call for a step of all; each has particles of its own, and weighs the
    draws of the parameters by itself. A stream for which nothing came shows NaN.

    Before a step is taken in there is a distribution of it: of what came, `FilteredState` has the log-density, the
    probability integral transform, quantiles and the variance by channel, and `Alarm` says what is out of the ordinary.
    `forecast` goes on from where the filter is.

    Args:
        source: a fit, or a posterior (its data are not used).
        streams: names of sequences that go on together, or how many ("0", "1", ...); None for one sequence, without an
            axis of streams in what comes in and what is returned.
        num_particles: particles, of each draw of the parameters; None for the guide alone. Not used where a state is
            followed exactly.
        proposal: "prior", or "guide".
        num_draws: draws of the parameters with priors, those of chains where the source has any; None for their means.
            Where no parameter has a prior, they are not needed.
        seed: of every random number.
        check: whether observations are checked against their family's support.
        session: that the sequence belongs to, where an encoder reads in the heads of several; of many streams one name
            for all, or one each.

    Raises:
        TypeError: a source that is neither.
        ValueError: a model that looks ahead or remembers without bound (`BidirectionalRNN`, `CausalAttention`), a head
            that depends on the states of earlier steps, an encoder that is not causal, a family without steps, names of
            streams that are not distinct, or an unknown session.

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
        >>> found.pit("spikes").shape, found.quantiles("spikes", [0.05, 0.95]).shape
        (torch.Size([3]), torch.Size([2, 3]))
        >>> online.forecast(4, num_samples=100)
        Forecast(spikes: 100 samples x 1 sequences x 4 frames x 3 channels)
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
        session: str | Sequence[str] | None = None,
        num_draws: int | None = None,
        streams: int | Sequence[str] | None = None,
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
        self.num_particles, self.proposal, self.check, self.seed = num_particles, proposal, check, seed
        if num_draws is not None:
            num_draws = check_size("OnlineFilter", "num_draws", num_draws)
        self.streams = check_streams(streams)
        self._fit = Fit(source.model, source.guide, _used(source))
        self._session, self._num_draws = session, num_draws
        model = copy.deepcopy(source.model).cpu().eval()
        self.guide = copy.deepcopy(source.guide).cpu().eval()
        if num_draws is None:
            fix_parameters(model, self.guide, seed)
        with random_state(seed):
            # by site, (draw, *shape); particles take the random numbers that come after
            self.draws = {} if num_draws is None else draw_parameters(model, self.guide, num_draws)
            generator = torch.get_rng_state()
        site = next((site.name for site in model.latent_sites() if site.along_time), None)
        random = bool(model.latent_sites())
        count = 1 if num_particles is None or not random else check_size("OnlineFilter", "num_particles", num_particles)
        num_streams = 1 if self.streams is None else len(self.streams)
        self.shape = (num_draws if num_draws is not None and self.draws else 1, count, num_streams)
        # where the guide has nothing to say it is not asked: the prior it is
        guided = proposal == "guide" and site is not None
        if guided:
            check_guide(self.guide, particles=num_particles is not None)
        self.checked_parts = parts_with_checks(model)
        memory = steps_to_remember(model, self.guide if guided else None)
        self.followed = Followed(model, self.guide, self.draws, self.shape, guided)
        self.model, self.heads = self.followed.model, self.followed.heads
        dtype = floating_type(self.model, torch.get_default_dtype())
        missing = dict.fromkeys(self.heads, True)
        if guided and self.guide.encoder is not None:
            missing |= self.guide.encoder.start_streaming()
        sessions = check_sessions(self.model, session, num_streams)
        counted = [name for name, head in self.heads.items() if isinstance(head, SharedTotal)]
        self.stream = Stream(self.model.spec, missing, memory, dtype, sessions, counted, self.streams)
        self.memory = Memory(
            carry=None,
            value=None,
            log_weights=torch.full(self.shape, -math.log(count), dtype=torch.float64),
            readout_memory=dict.fromkeys(self.heads),
            histories={
                name: torch.zeros(num_streams, head.feedback.steps, head.history_channels, dtype=dtype)
                for name, head in self.heads.items()
                if head.feedback is not None
            },
            encoded=None,
            chain=None,
            generator=generator,
            log_draw_weights=self._equal_draw_weights(),
            moments=None,
        )
        self.way: ByGuide | ByParticles | Exactly
        if self.exact:
            self.way = Exactly(self.followed, seed)
        elif num_particles is None:
            self.way = ByGuide(self.followed)
        else:
            self.way = ByParticles(self.followed, seed)
        self._names_before, self._shapes_after = self._rehearse()

    def _equal_draw_weights(self) -> Tensor | None:
        if not self.draws:
            return None
        number = self.shape[0]
        return torch.full((number, 1, self.shape[2]), -math.log(number), dtype=torch.float64)

    def _rehearse(self) -> tuple[set[str], dict[str, torch.Size]]:
        """Go through a step with nothing observed and back, so that what cannot be done is refused at once.

        Returns:
            The names in the state before a first step, and the shapes after one; but for what readouts remember.
        """
        before, undo = self.memory, self.stream.undo_point()
        names = {name for name in self.state_dict() if not name.startswith("pasts.")}
        try:
            with torch.inference_mode():
                self._update(self.stream.nothing())
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
        self, observation: Any = None, covariates: Any = None, *, time: Any = None, totals: Any = None
    ) -> FilteredState | FilteredStates:
        """Take in one step, of every stream where there are many.

        Args:
            observation: head to (channel,) values, in the data's units; None or left out where a head shows nothing,
                NaN where a channel is missing. With one head its values alone will do. Of many streams (stream,
                channel). A row of a table (`pandas`), or a dict by the names of channels, is taken by these names,
                those of all heads and covariates together; of many streams a table, whose index names them, and whose
                absent streams show nothing.
            covariates: covariate to (feature,) values; with one covariate its values alone will do. Of many streams
                (stream, feature). None where they are in the row.
            time: seconds, where steps are irregular; of many streams one number, or one each.
            totals: head to the sum over all its channels, the missing ones included, where they share one
                (`Multinomial`, `DirichletMultinomial`); None or NaN where it is not known. Of many streams (stream,).

        A step that is refused leaves the filter as it was, so that it can be given again, mended.

        Returns:
            What is known after the step: a `FilteredState`, or of many streams `FilteredStates`.

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
                found = self._update(step, check=self.check)
            except BaseException:
                self.memory = before
                undo()
                raise
        return found.only() if self.streams is None else found

    def follow(self, data: SequenceData) -> Iterator[FilteredState | FilteredStates]:
        """Take in a recording step by step, and yield what is known after each; its sequences are the streams.

        A sequence that has ended shows nothing from there on.

        Args:
            data: as many sequences as there are streams, and heads, covariates and clock as those of the fit.

        Raises:
            TypeError: not `SequenceData`.
            ValueError: data of another kind, or another number of sequences.
        """
        if not isinstance(data, SequenceData):
            raise TypeError(f"follow: data must be SequenceData; found {type(data).__name__}")
        self._fit.model.spec.check_compatible(data.spec)
        if len(data) != self.shape[2]:
            raise ValueError(f"follow: expected {self.shape[2]} sequences, one for each stream; found {len(data)}")
        for told in steps_of(data, list(self.heads), many=self.streams is not None):
            yield self.update(**told)

    def fresh(self, *, streams: int | Sequence[str] | None = None, seed: int | None = None) -> OnlineFilter:
        """Return a filter like this one, of the same fit, that has seen nothing yet.

        Args:
            streams: of the new filter, see `OnlineFilter`.
            seed: of its random numbers; by default this one's.
        """
        return OnlineFilter(
            self._fit,
            num_particles=self.num_particles,
            proposal=self.proposal,
            seed=self.seed if seed is None else seed,
            check=self.check,
            streams=streams,
            session=self._session,
            num_draws=self._num_draws,
        )

    @property
    def used(self) -> frozenset[SequenceKey]:
        """Sequences that the fit was made of, those that are known: what an `Alarm` must not be calibrated on."""
        return self._fit.used

    @isolated
    def forecast(
        self,
        horizon: int,
        *,
        covariates: Mapping[str, Any] | None = None,
        times: Any = None,
        totals: Mapping[str, Any] | None = None,
        num_samples: int = 1000,
    ) -> Forecast:
        """Return sample paths of the steps to come, given all that was taken in so far; the filter stays as it is.

        Paths start at the filter's particles by their weights (or at draws of a state that is followed exactly) and go
        on by the model's own steps: y_{t+1:t+h} ~ p(y_{t+1:t+h} | y_{<=t}, covariates).

        Args:
            horizon: base steps.
            covariates: per covariate (stream, step, feature), or (step, feature) without streams; those that the model
                is driven by must be given.
            times: seconds of the new steps, (step,), or (stream, step), where steps are irregular.
            totals: per head (stream, frame), or (frame,), where channels share a total.
            num_samples: paths.

        Returns:
            A `Forecast`, as that of `Posterior.forecast`, whose sequences are the streams.

        Raises:
            ValueError: before the first step, of the guide alone, covariates or totals that are missing, wrong sizes.
        """
        if isinstance(self.way, ByGuide):
            raise ValueError(
                "forecast: the guide alone has no distribution of the state; use an OnlineFilter of particles"
            )
        standing = Standing(self.followed, self.memory, self.stream, self.streams, self.seed)
        return forecast(standing, horizon, covariates, times, totals, num_samples)

    def _check_support(self, step: Read) -> None:
        """Raise unless what was observed is in its family's support; the error says which step of the stream it was."""
        for name, head in self.heads.items():
            pair = step.seen.get(name)
            if pair is None:
                continue
            values, mask, _ = pair
            try:
                head.check(name, values[:, None], mask[:, None])
            except ValueError as error:
                # a head is shown this step alone, and counts from there
                raise ValueError(self._placed(str(error), 0, self.stream.steps)) from None

    def _check_covariates(self, data: SequenceData, step: int) -> None:
        """Raise where a feature or readout cannot take in the present step's covariates."""
        for part in self.checked_parts:
            try:
                part.check(data)
            except ValueError as error:
                # a part is shown the last few steps alone, and counts from there
                raise ValueError(self._placed(str(error), data.num_steps - 1, step)) from None

    def _placed(self, message: str, shown: int, step: int) -> str:
        """Return an error's words with the streams and steps that the filter counts, not those that it showed."""
        if self.streams is None:
            return message.replace(f"sequence 0, step {shown}", f"step {step}")
        for place, name in reversed(list(enumerate(self.streams))):
            message = message.replace(f"sequence {place}, step {shown}", f"stream {name!r}, step {step}")
        return message

    def _update(self, given: Read, check: bool = False) -> FilteredStates:
        step, data = self.stream.steps, self.stream.put(given)
        if check:
            self._check_covariates(data, step)
        self.memory, found = self.way.step(step, data, self.memory, self.streams or ("",))
        return found

    # -- on and off ----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if self.exact:
            how = "exact"
        elif self.num_particles is None:
            how = "no particles, by the guide"
        else:
            how = f"{self.num_particles} particles from the {self.proposal}"
        how += "" if self.streams is None else f", {len(self.streams)} streams"
        return f"OnlineFilter(heads {list(self.heads)}, {how}{f', {self.shape[0]} draws' if self.draws else ''})"

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that the next update needs besides the weights of model and guide, as tensors by name.

        Draws of the parameters are among it, so that a filter with others can refuse it.
        """
        return to_tensors(self.stream, self.memory, self.draws)

    @isolated
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` returned, of a filter made with the same arguments.

        Raises:
            ValueError: a state of another filter, or one that was reached with other draws of the parameters.
        """
        refuse_another(state, self.shape, self.draws, self._names_before, self._shapes_after, list(self.heads))
        state = {name: value.clone() for name, value in state.items()}
        self.stream.load_state_dict({k.removeprefix("stream."): v for k, v in state.items() if k.startswith("stream.")})
        self.memory = remembered(state, list(self.heads), self.followed.feedback_heads, bool(self.draws))

    def save(self, path: str | Path) -> None:
        """Write `state_dict` to a safetensors file."""
        save_file(self.state_dict(), path)

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote."""
        self.load_state_dict(load_file(path))


def _used(source: Fitted | Fit) -> frozenset[SequenceKey]:
    if isinstance(source, Posterior):
        return frozenset() if source.result is None else source.result.used
    return source.used if isinstance(source, Provenance | Fit) else frozenset()
