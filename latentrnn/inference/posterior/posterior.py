"""What a fitted model believes about given sequences."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.data.ingest.narrowing import losses
from latentrnn.inference.evidence import evidence as evidence_of
from latentrnn.inference.evidence import rungs
from latentrnn.inference.evidence.evidence import AIS, SMC, Evidence
from latentrnn.inference.filters import one_step_ahead as filtering
from latentrnn.inference.filters.one_step_ahead import OneStepAhead
from latentrnn.inference.guides.fitted import Provenance
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.inference.guides.windows import Window
from latentrnn.inference.posterior.clamps import Hold
from latentrnn.inference.posterior.conditioning import conditional_on, remark
from latentrnn.inference.posterior.counterfactual import Counterfactual, counterfactual
from latentrnn.inference.posterior.coupling_report import CouplingReport, coupling_reports
from latentrnn.inference.posterior.diagnosis import Diagnosis, diagnose
from latentrnn.inference.posterior.forecast import Forecast, forecast
from latentrnn.inference.posterior.gain import GainSamples, gain_samples
from latentrnn.inference.posterior.imputation import impute
from latentrnn.inference.posterior.leaving_out import reason_against_loo
from latentrnn.inference.posterior.refinement import refine
from latentrnn.inference.posterior.sampler import Assembly, Draw, Draws, Place, computed_in, expanded, padding_to_nan
from latentrnn.inference.posterior.stored_draws import Chains
from latentrnn.models import sites
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import (
    check_choice,
    check_integer,
    check_kind_of,
    check_seed,
    check_selection,
    check_size,
)
from latentrnn.support.isolation import isolated
from latentrnn.support.shortcuts import shortcut


class Posterior:
    """q(latents | data) and q(parameters) of a model, with everything that follows from them.

    All results are on the CPU, in the data's own units, log-probabilities in nats. Calling a method twice gives the
    same numbers: each starts from `seed`.

    Args:
        model, guide: fitted.
        data: the sequences, which are computed with in the model's own floating type.
        result: the fit that they came from, if any; it knows which sequences were used (`Provenance`).
        device: "auto" takes CUDA where there is one.
        seed: of every random number.
        chains: how the chains went, where the guide replays draws of `latentrnn.sample`.
        window: go through long sequences in windows that hand on their state, so that memory does not grow with them:
            draws, rates, replicates, evidence ("elbo" and "iwae") and log-likelihoods. See `Window` for what an
            encoder then sees. Anything else is refused.
        max_elements: numbers that one state or head may hold at once, for as many draws and sequences at a time as
            that allows.

    Raises:
        ValueError: the data do not fit the model, or a part of it cannot be gone through in windows.
    """

    model: LatentRNN
    guide: Guide

    @isolated
    def __init__(
        self,
        model: LatentRNN,
        guide: Guide,
        data: SequenceData,
        *,
        result: Provenance | None = None,
        device: str | torch.device = "auto",
        seed: int = 0,
        chains: Chains | None = None,
        window: Window | None = None,
        max_elements: int | None = None,
    ) -> None:
        for name, value, kind in (("model", model, LatentRNN), ("data", data, SequenceData)):
            if not isinstance(value, kind):
                raise TypeError(f"Posterior: {name} must be a {kind.__name__}; found {type(value).__name__}")
        if not isinstance(guide, nn.Module):  # guides of one's own are modules that do what a `Guide` does
            raise TypeError(f"Posterior: guide must be a Guide; found {type(guide).__name__}")
        if result is not None and not isinstance(result, Provenance):
            raise TypeError(f"Posterior: result must be a FitResult; found {type(result).__name__}")
        for argument, given, expected in (("chains", chains, Chains), ("window", window, Window)):
            if given is not None:
                check_kind_of("Posterior", argument, given, expected)
        model.check(data)
        self.data, self.result, self.chains = data, result, chains
        _warn_of_losses(data, model)
        self._draws = Draws(model, guide, data, device, seed, window, max_elements)
        self.model, self.guide = self._draws.model, self._draws.guide

    @property
    def seed(self) -> int:
        """The seed from which every method starts."""
        return self._draws.seed

    @property
    def conditional_on(self) -> str | None:
        """What draws, and so their intervals, take as known, in words: all that was learned without a prior, if any."""
        return conditional_on(self.model, self.guide)

    @property
    def device(self) -> torch.device:
        """Where the posterior computes; its results are on the CPU."""
        return self._draws.device

    def reseeded(self, seed: int | None) -> Posterior:
        """Return the same posterior with another seed."""
        seed = check_seed("reseeded", seed)
        other = copy.copy(self)
        other._draws = copy.copy(self._draws)
        other._draws.seed = seed
        return other

    @isolated
    def restricted(self, count: int) -> Posterior:
        """Return the posterior of the first sequences alone.

        Raises:
            ValueError: a count that is not positive.
        """
        count = check_size("restricted", "count", count)
        draws = self._draws
        return Posterior(
            draws.model, draws.guide, self._narrowed[:count], result=self.result, device=draws.device, seed=self.seed,
            chains=self.chains, window=draws.window, max_elements=draws.max_elements,
        )  # fmt: skip

    @isolated
    def refined(self, steps: int = 100, *, learning_rate: float = 0.05, num_particles: int = 4) -> Posterior:
        """Return a posterior whose local latents were optimised for each sequence, starting from the encoder's answer.

        How much its ELBO gains is the amortisation gap. A guide with numbers `PerSequence` needs this for sequences
        that it was not fitted to. What the sequences share is not touched.

        Args:
            steps: gradient steps for each sequence.
            learning_rate: of the first step.
            num_particles: draws per step.

        Raises:
            ValueError: a setting out of range, a model without local latents, or draws of `latentrnn.sample`.

        References:
            Kim, Wiseman, Miller, Sontag, Rush. Semi-amortized variational autoencoders. 2018.
            Cremer, Li, Duvenaud. Inference suboptimality in variational autoencoders. 2018.
        """
        if self.chains is not None:
            raise ValueError("refined: draws of NUTS are those of the posterior itself; there is nothing to refine")
        draws = self._draws
        draws.chunks(num_particles)
        with draws.seeded():
            guide = refine(
                draws.model, draws.guide, draws.data,
                steps=steps, learning_rate=learning_rate, num_particles=num_particles,
            )  # fmt: skip
        return Posterior(
            draws.model, guide, self._narrowed, result=self.result, device=draws.device, seed=self.seed,
            max_elements=draws.max_elements,
        )  # fmt: skip

    # -- draws -----------------------------------------------------------------------------------------------------

    @isolated
    def latents(self, num_samples: int = 100) -> dict[str, Tensor]:
        """Draw latents from the guide.

        Args:
            num_samples: number of draws.

        Returns:
            "states", the h_t that readouts see (the z_t where those are drawn), (sample, sequence, time, dim), and
            every latent site, e.g. "innovations" (sample, sequence, time, dim) and "initial" (sample, sequence, dim).
            Also "switch", (sample, sequence, time, state): of a `Discrete` latent p(c_t | y), of a
            `RelaxedDiscrete` one its weights. Padding is NaN.
        """
        whole = Assembly(num_samples, self.data)
        with self._draws.drawing():
            for name, value, place, clock in self._latent_parts(num_samples):
                whole.put(name, value, place, clock=clock)
        return whole.found

    def latent_parts(self, num_samples: int = 100) -> Iterator[tuple[str, Tensor, Place, int | None]]:
        """Draw the same latents part by part: name, values, their place, and base steps per step of the time axis.

        Between parts torch's generators and modes are the caller's; iterators may be read in turns.
        """
        return self._draws.in_parts(lambda: self._latent_parts(num_samples))

    def _latent_parts(self, num_samples: int) -> Iterator[tuple[str, Tensor, Place, int | None]]:
        for draw in self._draws.rollouts(num_samples, parts=True):
            found = {sites.STATES: expanded(draw.rollout.states(), draw.number)}
            found |= draw.latents
            found |= {k: expanded(v, draw.number) for k, v in draw.rollout.latent.report(draw.rollout).items()}
            for name, value in found.items():
                if value.dim() == 4:
                    value = torch.where(draw.rollout.data.valid.unsqueeze(-1), value, torch.nan)
                yield name, value, draw.place, 1 if value.dim() == 4 else None

    @isolated
    def parameters(self, num_samples: int = 100) -> dict[str, Tensor]:
        """Draw the parameters that have priors: site name to (sample, *shape); empty if all are point estimates.

        The draws are conditional on whatever else was learned, which `conditional_on` lists: with a prior on a head's
        parameters and point estimates of the transition, their intervals are too short, for they leave out what is
        not known of the dynamics. An ensemble over seeds says how far other fits of these would lie.
        """
        with self._draws.drawing():
            trace = self._draws.parameter_trace(num_samples)
        values = {name: site["value"] for name, site in trace.nodes.items() if name != JOINT}
        return {name: value.detach().squeeze(1).cpu() for name, value in values.items()}

    @isolated
    def rates(self, head: str, num_samples: int = 100) -> Tensor:
        """Return E[y | latents, parameters] for each draw of the posterior.

        Given the recorded past where the head feeds back (teacher-forced); see `predictive` for free runs.

        Args:
            head: the head's name.
            num_samples: number of draws.

        Returns:
            (sample, sequence, time, channel), in the data's units (expected count per bin for counts); padding NaN.

        Raises:
            ValueError: an unknown head.
        """
        return self._rates(head, num_samples, keep_samples=True)

    @isolated
    def mean(self, head: str, num_samples: int = 100) -> Tensor:
        """Return E[y | data], (sequence, time, channel), the average of `rates` over draws; padding is NaN."""
        return self._rates(head, num_samples, keep_samples=False)

    @isolated
    def predictive(
        self,
        num_samples: int = 100,
        *,
        heads: Sequence[str] | None = None,
        latents: str = "posterior",
        feedback: str = "free",
    ) -> dict[str, Tensor]:
        """Draw replicated data. Heads that feed back run free: their own samples go in, not the recording.

        Args:
            num_samples: number of draws.
            heads: which heads to return; all by default.
            latents: "posterior" draws latents from the guide given the data, "prior" from the model. Parameters
                with priors come from the guide either way.
            feedback: "free", or "recorded" for teacher-forced replicates, in which the recorded past goes in.

        Returns:
            Head to replicates, (sample, sequence, time, channel) or (sample, sequence, channel); padding is NaN.

        Raises:
            ValueError: an unknown head, or `latents` or `feedback` that is neither.
        """
        check_choice("predictive", "feedback", feedback, ("free", "recorded"))
        check_choice("predictive", "latents", latents, ("posterior", "prior"))
        return self._replicates(num_samples, heads, latents=latents, parameters="posterior", fed=feedback == "recorded")

    @isolated
    def prior_predictive(self, num_samples: int = 100, *, heads: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Draw data from the model alone: latents and parameters with priors from their priors. See `predictive`."""
        return self._replicates(num_samples, heads, latents="prior", parameters="prior", fed=False)

    def replicate_parts(
        self, num_samples: int = 100, *, prior: bool = False
    ) -> Iterator[tuple[str, Tensor, Place, int | None]]:
        """Draw the replicates of `predictive`, or of `prior_predictive`, part by part; see `latent_parts`."""
        source = "prior" if prior else "posterior"
        return self._draws.in_parts(
            lambda: self._replicate_parts(num_samples, None, latents=source, parameters=source, fed=False)
        )

    @isolated
    def gain(self, head: str, num_samples: int = 100) -> GainSamples:
        """Draw a head's stimulus gain and gate.

        Args:
            head: a head with a `StimulusGain`.
            num_samples: number of draws.

        Returns:
            `beta` and `gate`, scaled so that the largest gate over the data's scored steps is one in every draw.

        Raises:
            ValueError: an unknown head, or one without a gain.
        """
        observation = self._head(head)
        if observation.gain is None:
            raise ValueError(f"gain: head {head!r} has no StimulusGain")
        with self._draws.drawing():
            return gain_samples(self._draws, observation, num_samples)

    @isolated
    def couplings(self, num_samples: int = 100) -> dict[str, CouplingReport]:
        """Return E_q[penalty] of each of the model's couplings on these data, by name; {} without any.

        It is no part of any density: `evidence`, `log_likelihood` and comparisons leave couplings out.

        Args:
            num_samples: number of draws, at least 2 for the Monte Carlo error.

        Raises:
            ValueError: fewer than two draws.
        """
        if check_size("couplings", "num_samples", num_samples) < 2:
            raise ValueError(f"couplings: num_samples must be at least 2, for the error; found {num_samples}")
        with self._draws.drawing():
            return coupling_reports(self._draws, num_samples)

    # -- what is not there -----------------------------------------------------------------------------------------

    @isolated
    def forecast(
        self,
        horizon: int,
        covariates: Mapping[str, Any] | None = None,
        *,
        times: Any = None,
        totals: Mapping[str, Any] | None = None,
        num_samples: int = 200,
        heads: Sequence[str] | None = None,
    ) -> Forecast:
        """Sample paths that go on after every sequence's own end, by the model's own steps (iterated forecasts).

        They start from draws of the guide given the whole recording, which at the last step is all that there is to
        know, and from draws of q(theta) where parameters have priors. Heads that feed back run free on their samples.

        Args:
            horizon: base steps.
            covariates: covariate to its future, (sequence, horizon, feature); of all that the model uses.
            times: seconds of the future's steps, (sequence, horizon), where the data's steps are irregular.
            totals: of heads whose channels share a total, (sequence, frame).
            num_samples: number of paths.
            heads: per-step heads; all by default.

        Raises:
            ValueError: something that is needed of the future is not given, naming it with its shape; a latent that
                cannot be drawn step by step (a squared-exponential process).
        """
        with self._draws.drawing():
            return forecast(self._draws, horizon, covariates, times, totals, num_samples, heads)

    @isolated
    def impute(self, head: str, num_samples: int = 100) -> Tensor:
        """Draw the missing entries of a head given what was observed; observed entries stay as they are.

        Entries that depend on each other given the states (full covariances, shared totals, drifts) are drawn given
        those that were observed beside them. What feeds back is the recorded past, holes included, as in the model.

        Args:
            head: the head's name.
            num_samples: number of draws.

        Returns:
            (sample, sequence, time, channel) or (sample, sequence, channel); padding is NaN.

        Raises:
            ValueError: an unknown head, or one whose totals are not known where channels are missing.
        """
        self._head(head)
        with self._draws.drawing():
            return impute(self._draws, head, num_samples)

    @isolated
    def counterfactual(
        self,
        covariates: Mapping[str, Any] | None = None,
        clamp: Mapping[str, Hold] | None = None,
        *,
        from_step: int = 0,
        feedback: str = "recorded",
        num_samples: int = 100,
    ) -> Counterfactual:
        """Run the recorded sequences again, with the randomness inferred from them, under an intervention.

        Abduction, action, prediction: what was random (initial state, innovations, or what each drawn state adds to
        what its past says) stays as the posterior has it; covariates are replaced or gates held; the model runs.
        Nothing changed gives `rates`, to the last digit.

        Args:
            covariates: covariate to one number or (sequence, time, feature), taken from `from_step` on.
            clamp: gate, as in `Transition.record`, to what it is held at. "forget" is that of all layers,
                "layer0.forget" of the first alone (and goes before it); "audio.forget" and "audio.layer0.forget" are
                those of a stream. The value is one number; numbers with axes (unit,), (time, unit), (sequence, time,
                unit) or (sample, sequence, time, unit); `Clamp(value, dims=...)`, which names the axes; or a function
                of the gate's value, (sample, sequence, unit), called once for each step and layer, which is told where
                it is (`GatePlace`: step, gate, layer, stream) if it must be given a second argument.
            from_step: the first step that is touched.
            feedback: what heads that feed back do: "recorded", what was observed goes in; "free", from `from_step` on
                their own samples do, with fresh noise.
            num_samples: number of draws.

        Raises:
            ValueError: an unknown covariate or gate, a shape that differs or could mean two things, or a `Discrete`
                latent.

        References:
            Pearl. Causality: models, reasoning, and inference. 2009.
        """
        with self._draws.drawing():
            return counterfactual(self._draws, covariates, clamp, from_step, feedback, num_samples)

    # -- densities -------------------------------------------------------------------------------------------------

    @isolated
    def evidence(self, kind: str | SMC | AIS = "iwae", num_particles: int = 64) -> Evidence:
        """Estimate each sequence's log evidence: all heads jointly, local latents integrated out.

        The kinds are rungs of a ladder: each is below the log evidence on average, "elbo" the furthest. "iwae" weighs
        draws of whole paths, which gives out as sequences get long; "smc" resamples them on the way (`SMC`); "ais"
        anneals every draw into the posterior by Hamiltonian transitions (`AIS`), at many times the cost, and is the
        one to judge the others by. Give `SMC(...)` or `AIS(...)` itself to change how. "auto" takes the first rung
        that its own diagnosis lets pass (`latentrnn.inference.evidence.rungs` has the rule); printed, the result says
        what that diagnosis is (k-hat, effective sample size, how far filters are apart).

        Parameters with priors are integrated over the guide's q(theta), so that on held-out sequences this is the
        log predictive density. Without local latents and priors it is exact; without local latents all kinds but
        "elbo" are the same.

        Args:
            kind: "elbo", "iwae", "smc", "ais" or "auto".
            num_particles: draws; the error falls with their square root. For "smc" particles of each filter.

        Raises:
            ValueError: an unknown kind, or for "smc" a guide whose family cannot be drawn step by step.
        """
        name = "smc" if isinstance(kind, SMC) else "ais" if isinstance(kind, AIS) else kind
        evidence_of.check_kind(name)
        num_particles = check_size("evidence", "num_particles", num_particles)
        if name == evidence_of.AUTO:
            along = any(site.along_time for site in self.model.latent_sites())
            return rungs.best(self.evidence, num_particles, num_steps=self.data.num_steps, along_time=along)
        random = bool(self.model.latent_sites())
        if random and name == "smc":
            smc = kind if isinstance(kind, SMC) else SMC()
            found = self._draws.filters(num_particles, smc)
            return evidence_of.from_filters(*found, num_particles, smc.proposal)
        if random and name == "ais":
            ais = kind if isinstance(kind, AIS) else AIS()
            return evidence_of.summarise(name, self._draws.annealed(num_particles, ais))
        weighed = evidence_of.summarise(name, self._draws.log_weights(num_particles))
        if random or self.guide.parameter_sites is not None:
            return weighed
        exact = torch.zeros_like(weighed.values)
        return dataclasses.replace(weighed, standard_error=exact, effective_sample_size=None, pareto_k=None)

    @isolated
    def diagnose(
        self,
        num_particles: int = 256,
        *,
        num_sequences: int = 4,
        annealing: AIS = AIS(temperatures=32, leapfrog=6),  # noqa: B008 - frozen
        refinement_steps: int = 60,
    ) -> Diagnosis:
        """Say how good this posterior is, and what to try next: `print(posterior.diagnose())`.

        Looks at the tails of importance weights (k-hat), at what each latent dimension says (collapse, active
        units), at the rungs of the evidence, at what the encoder loses against numbers optimised for each sequence,
        and at the signal in the gradient. All sequences count for the first two; annealing and optimising, which
        cost most, look at the first few.

        Args:
            num_particles: draws of the guide for each sequence, at least 25.
            num_sequences: sequences looked at closely.
            annealing: how the best rung is found.
            refinement_steps: gradient steps for each of them.

        Raises:
            ValueError: a model without local latents, or too few particles.

        References:
            Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. 2016.
            Cremer, Li, Duvenaud. Inference suboptimality in variational autoencoders. 2018.
            Rainforth, Kosiorek, Le, Maddison, Igl, Wood, Teh. Tighter variational bounds are not necessarily better.
            2018.
            Yao, Vehtari, Simpson, Gelman. Yes, but did it work? Evaluating variational inference. 2018.
        """
        return diagnose(
            self, num_particles=num_particles, num_sequences=num_sequences, annealing=annealing,
            refinement_steps=refinement_steps,
        )  # fmt: skip

    @isolated
    def log_likelihood(self, num_particles: int = 64, num_draws: int = 50) -> Tensor:
        """Return log p(y_n | theta) of every sequence, local latents integrated out by importance sampling.

        Args:
            num_particles: draws of the local latents.
            num_draws: draws of the parameters with priors, those of `parameters(num_draws)`; without any, one row.

        Returns:
            (draw, sequence), nats.
        """
        with self._draws.drawing():
            num_particles = check_size("log_likelihood", "num_particles", num_particles)
            num_draws = check_size("log_likelihood", "num_draws", num_draws)
            if self.guide.parameter_sites is None:
                return evidence_of.summarise("iwae", self._draws.log_weights(num_particles)).values[None]
            # drawn first and together, so that they are the draws of `parameters(num_draws)`
            parameters = self._draws.parameter_trace(num_draws)
            rows = []
            for draw in range(num_draws):
                trace = Trace()
                for name, site in parameters.nodes.items():
                    trace.add_node(name, **{**site, "value": site["value"][draw : draw + 1]})
                rows.append(evidence_of.summarise("iwae", self._draws.log_weights(num_particles, trace)).values)
            return torch.stack(rows)

    def reason_against_loo(self, *, fully_known: bool = False) -> str | None:
        """Return why PSIS-LOO of these draws would mean nothing; None where it is sound.

        It is where everything that was learned from these sequences has a posterior, and it was conditioned on them.

        Args:
            fully_known: your word for that, taken only where the posterior does not come from a fit.
        """
        return reason_against_loo(self.model, self.guide, self.data, self.result, fully_known=fully_known)

    @isolated
    def one_step_ahead(
        self, head: str, num_particles: int = 256, num_filters: int = 4, num_draws: int = 16
    ) -> OneStepAhead:
        """Return log p(y_t | y_{<t}, covariates_{<=t}) and E[y_t | y_{<t}] of one head.

        Features that look ahead (`Lags(future=...)`) condition on as many later covariates; see `LatentRNN.latency`.
        Exact where no local latent is random and no parameter has a prior. Otherwise with its Monte Carlo error: by
        a bootstrap particle filter on the generative model (the guide, which smooths, is never used for latents),
        and averaged at each step over draws of q(theta) where parameters have priors.

        Args:
            head: a per-step head.
            num_particles: particles per filter.
            num_filters: independent filters, whose spread is the error (with priors, the spread over draws of
                parameters is, which holds that of the filters).
            num_draws: draws of the parameters with priors; where none has one, they are not needed.

        Raises:
            ValueError: an unknown or a per-sequence head, a model that sees the whole sequence of covariates
                (`BidirectionalRNN`, `SourceAttention`), or fewer than two filters or draws.
        """
        if not self._head(head).head.per_step:
            raise ValueError(f"one_step_ahead: {head!r} is a per-sequence head")
        if math.isinf(self.model.lookahead):
            raise ValueError(
                "one_step_ahead: the model sees the covariates of the whole sequence at every step, as with "
                "BidirectionalRNN or SourceAttention, and so cannot predict as time goes on; use causal features "
                "(Lags, Convolution) and readouts"
            )
        num_particles = check_size("one_step_ahead", "num_particles", num_particles)
        num_filters = check_integer("one_step_ahead", "num_filters", num_filters, least=2)  # for the error
        num_draws = check_integer("one_step_ahead", "num_draws", num_draws, least=2)
        draws = 1 if self.guide.parameter_sites is None else num_draws
        with self._draws.drawing():
            rollouts = (self._draws.rollout(self._draws.parameter_trace(1)) for _ in range(draws))
            value, mean, spread = filtering.averaged(rollouts, head, num_particles, num_filters)
        counts = self._head(head).counts_events
        value, zero = value.cpu().chunk(2, -1) if counts else (value.cpu(), None)
        error: Tensor | None = None if spread is None else spread.cpu()
        zero_error: Tensor | None = None
        if counts and error is not None:
            error, zero_error = error.tensor_split(2, -1)
        scored = self.data.scored(head)
        scored = scored.any(-1, keepdim=True) if value.shape[-1] != scored.shape[-1] else scored
        return OneStepAhead(
            head, torch.where(scored, value, 0.0), mean.cpu(), self.data.observations[head], scored, error,
            self.data.spec.dt, self.data.keys, self.data.names, None if self.result is None else self.result.used,
            None if zero is None else torch.where(scored, zero, 0.0), zero_error, type(self._head(head)).__name__,
        )  # fmt: skip

    @isolated
    def to_arviz(self, **settings: Any) -> Any:
        """Return the posterior as ArviZ's InferenceData (or DataTree); see `latentrnn.export.to_arviz`."""
        return shortcut("to_arviz")(self, **settings)

    @isolated
    def to_netcdf(self, path: str | os.PathLike[str], **settings: Any) -> Path:
        """Write the same groups to a file, draws part by part; see `latentrnn.export.to_netcdf`."""
        found: Path = shortcut("to_netcdf")(self, path, **settings)
        return found

    def __repr__(self) -> str:
        given = remark(self.model, self.guide)
        return f"Posterior of {self.data!r}" + (f"; {given}" if given else "")

    # -- how -------------------------------------------------------------------------------------------------------

    @property
    def _narrowed(self) -> SequenceData:
        """The data as they are computed with, of which nobody needs to be warned again."""
        return self.data.to(dtype=self._draws.data.dtype)

    def _head(self, name: str) -> Any:
        if not isinstance(name, str) or name not in self.model.observations:
            raise ValueError(f"unknown head {name!r}; the model has {sorted(self.model.observations)}")
        return self.model.observations[name]

    def _rates(self, head: str, num_samples: int, *, keep_samples: bool) -> Tensor:
        observation = self._head(head)
        whole = Assembly(num_samples if keep_samples else 1, self.data)
        with self._draws.drawing():
            for draw in self._draws.rollouts(num_samples, parts=True):
                data, place = draw.rollout.data, draw.place
                mean = observation.mean(draw.rollout.distribution(head).expand((draw.number, data.num_sequences)))
                mean = padding_to_nan(mean, data, head)
                add = False
                if not keep_samples:
                    add, mean = place.samples.start > 0, mean.mean(0, keepdim=True) * (draw.number / num_samples)
                    place = place._replace(samples=slice(0, 1))
                for value, there, clock in _of_head(head, mean, draw, place):
                    whole.put(head, value, there, clock=clock, add=add)
        return whole.found[head] if keep_samples else whole.found[head][0]

    def _replicates(
        self, num_samples: int, heads: Sequence[str] | None, *, latents: str, parameters: str, fed: bool
    ) -> dict[str, Tensor]:
        whole = Assembly(num_samples, self.data)
        with self._draws.drawing():
            for name, value, place, clock in self._replicate_parts(
                num_samples, heads, latents=latents, parameters=parameters, fed=fed
            ):
                whole.put(name, value, place, clock=clock)
        return whole.found

    def _replicate_parts(
        self, num_samples: int, heads: Sequence[str] | None, *, latents: str, parameters: str, fed: bool
    ) -> Iterator[tuple[str, Tensor, Place, int | None]]:
        known = list(self.model.observations)
        names = known if heads is None else check_selection("predictive", "heads", heads, known, "head")
        for draw in self._draws.rollouts(num_samples, latents=latents, parameters=parameters, fed=fed, parts=True):
            rollout = draw.rollout
            shape = torch.Size((draw.number, rollout.data.num_sequences))
            values = (
                {}
                if fed
                else {n: rollout.feedback_distribution(n).expand(shape).sample() for n in rollout.feedback_heads}
            )
            rollout.values = rollout.values | values
            values |= {n: rollout.distribution(n).expand(shape).sample() for n in names if n not in values}
            for name in names:
                for part in _of_head(name, padding_to_nan(values[name], rollout.data, name), draw, draw.place):
                    yield name, *part


def _of_head(head: str, value: Tensor, draw: Draw, place: Place) -> Iterator[tuple[Tensor, Place, int | None]]:
    """Return a head's values with their place; one value per sequence is known in the window in which it ends."""
    data = draw.rollout.data
    spec = data.spec.heads[head]
    if spec.per_step:
        yield value, place, spec.clock
    elif data.around is None:
        yield value, place, None
    else:
        for row in data.around.ends.nonzero().flatten().tolist():
            first = place.rows.start + row
            yield value[:, row : row + 1], place._replace(rows=slice(first, first + 1)), None


def _warn_of_losses(data: SequenceData, model: LatentRNN) -> None:
    """Warn where the model's floating type cannot tell values of the data apart."""
    if data.dtype != torch.float64 or computed_in(model, data) != torch.float32:
        return
    parts = [
        (f"observations[{name!r}]", model.spec.heads[name].channel_names, data.observations[name], data.masks[name])
        for name in model.observations
    ]
    valid = data.valid.unsqueeze(-1)
    parts += [
        (f"covariates[{name!r}]", spec.feature_names, data.covariates[name], valid.expand_as(data.covariates[name]))
        for name, spec in model.spec.covariates.items()
    ]
    for where, names, values, there in parts:
        rows, seen = (part.detach().cpu().flatten(0, -2).numpy() for part in (values, there))
        said = losses(f"Posterior: {where}", names, [rows], [seen], instead="fit the model to data in float64")
        if said is not None:
            warnings.warn(said, UserWarning, stacklevel=4)
