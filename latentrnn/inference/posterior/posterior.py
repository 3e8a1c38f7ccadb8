"""What a fitted model believes about given sequences."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.evidence.evidence import AIS, SMC, Evidence
from latentrnn.inference.filters.one_step_ahead import OneStepAhead
from latentrnn.inference.guides.fitted import Provenance
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.windows import Window
from latentrnn.inference.posterior import densities
from latentrnn.inference.posterior.conditioning import conditional_on, remark
from latentrnn.inference.posterior.coupling_report import CouplingReport, coupling_reports
from latentrnn.inference.posterior.diagnosis import Diagnosis, diagnose
from latentrnn.inference.posterior.draws import predictions
from latentrnn.inference.posterior.draws.precision import warn_of_losses
from latentrnn.inference.posterior.draws.predictions import Chunk, collected
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.inference.posterior.draws.stored_draws import Chains
from latentrnn.inference.posterior.draws.transition_runs import TransitionRun, transition_runs
from latentrnn.inference.posterior.forecast import Forecast, forecast
from latentrnn.inference.posterior.gain import GainSamples, gain_samples
from latentrnn.inference.posterior.imputation import impute
from latentrnn.inference.posterior.interventions.clamps import Clamp, Hold
from latentrnn.inference.posterior.interventions.counterfactual import Counterfactual, counterfactual
from latentrnn.inference.posterior.interventions.places import Steps
from latentrnn.inference.posterior.interventions.replays import Replay, replays
from latentrnn.inference.posterior.leaving_out import reason_against_loo
from latentrnn.inference.posterior.one_step_ahead import by_draw, one_step_ahead
from latentrnn.inference.posterior.refinement import refined
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_choice, check_kind_of, check_seed, check_size
from latentrnn.support.isolation import isolated
from latentrnn.support.notebooks import ShownInNotebooks
from latentrnn.support.shortcuts import shortcut

if TYPE_CHECKING:
    import pandas
    import xarray


class Posterior(ShownInNotebooks):
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
        warn_of_losses(data, model, stacklevel=4)
        self._sampler = PosteriorSampler(model, guide, data, device, seed, window, max_elements)
        self.model, self.guide = self._sampler.model, self._sampler.guide

    @property
    def seed(self) -> int:
        """The seed from which every method starts."""
        return self._sampler.seed

    @property
    def conditional_on(self) -> str | None:
        """What draws, and so their intervals, take as known, in words: all that was learned without a prior, if any."""
        return conditional_on(self.model, self.guide)

    @property
    def device(self) -> torch.device:
        """Where the posterior computes; its results are on the CPU."""
        return self._sampler.device

    def reseeded(self, seed: int | None) -> Posterior:
        """Return the same posterior with another seed."""
        return self._of(self._sampler.reseeded(check_seed("reseeded", seed)))

    @isolated
    def restricted(self, count: int) -> Posterior:
        """Return the posterior of the first sequences alone.

        Raises:
            ValueError: a count that is not positive.
        """
        count = check_size("restricted", "count", count)
        return self._of(self._sampler.restricted(count), self.data[:count])

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
        return self._of(refined(self._sampler, steps, learning_rate=learning_rate, num_particles=num_particles))

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
            `RelaxedDiscrete` one its weights; and of `LinearGaussian` "smoothed_mean" and "smoothed_sd", the moments
            of the states, (sample, sequence, time, dim). Padding is NaN.
        """
        with self._sampler.drawing():
            return collected(predictions.latent_chunks(self._sampler, num_samples), num_samples, self.data)

    def latent_parts(self, num_samples: int = 100) -> Iterator[Chunk]:
        """Draw the same latents chunk by chunk: name, values, their index, and base steps per step of the time axis.

        Between chunks torch's generators and modes are the caller's; iterators may be read in turns.
        """
        return self._sampler.in_parts(lambda: predictions.latent_chunks(self._sampler, num_samples))

    def transition_runs(self, num_samples: int = 100) -> Iterator[TransitionRun]:
        """Draw how the transition went through the data: inputs, and whole states before and after every step.

        Draw s has the latents and parameters of draw s of `latents(num_samples)`; `latentrnn.interpret` stands on it.
        Between runs torch's generators and modes are the caller's.

        Args:
            num_samples: number of draws.
        """
        return self._sampler.in_parts(lambda: transition_runs(self._sampler, num_samples))

    def replays(self, num_samples: int = 100) -> Iterator[Replay]:
        """Draw latents and parameters, and yield draws and sequences as rows that run again under other covariates.

        Saliency and mutagenesis of `latentrnn.interpret` stand on it; see `Replay`. Where nothing is random, all draws
        are the same, and there is one of each sequence.

        Args:
            num_samples: number of draws.
        """
        return self._sampler.in_parts(lambda: replays(self._sampler, num_samples))

    @isolated
    def parameters(self, num_samples: int = 100) -> dict[str, Tensor]:
        """Draw the parameters that have priors: site name to (sample, *shape); empty if all are point estimates.

        The draws are conditional on whatever else was learned, which `conditional_on` lists: with a prior on a head's
        parameters and point estimates of the transition, their intervals are too short, for they leave out what is
        not known of the dynamics. An ensemble over seeds says how far other fits of these would lie.
        """
        return predictions.parameters(self._sampler, num_samples)

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
        self._head(head)
        return predictions.rates(self._sampler, head, num_samples, keep_samples=True)

    @isolated
    def mean(self, head: str, num_samples: int = 100) -> Tensor:
        """Return E[y | data], (sequence, time, channel), the average of `rates` over draws; padding is NaN."""
        self._head(head)
        return predictions.rates(self._sampler, head, num_samples, keep_samples=False)

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
        chunks = predictions.replicate_chunks(
            self._sampler, num_samples, heads, latents=latents, parameters="posterior", fed=feedback == "recorded"
        )
        with self._sampler.drawing():
            return collected(chunks, num_samples, self.data)

    @isolated
    def prior_predictive(self, num_samples: int = 100, *, heads: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Draw data from the model alone: latents and parameters with priors from their priors. See `predictive`."""
        chunks = predictions.replicate_chunks(self._sampler, num_samples, heads, latents="prior", parameters="prior")
        with self._sampler.drawing():
            return collected(chunks, num_samples, self.data)

    def replicate_parts(self, num_samples: int = 100, *, prior: bool = False) -> Iterator[Chunk]:
        """Draw the replicates of `predictive`, or of `prior_predictive`, chunk by chunk; see `latent_parts`."""
        source = "prior" if prior else "posterior"
        return self._sampler.in_parts(
            lambda: predictions.replicate_chunks(self._sampler, num_samples, latents=source, parameters=source)
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
        with self._sampler.drawing():
            return gain_samples(self._sampler, observation, num_samples)

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
        with self._sampler.drawing():
            return coupling_reports(self._sampler, num_samples)

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
        with self._sampler.drawing():
            return forecast(self._sampler, horizon, covariates, times, totals, num_samples, heads)

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
        with self._sampler.drawing():
            return impute(self._sampler, head, num_samples)

    @isolated
    def counterfactual(
        self,
        covariates: Mapping[str, Any] | None = None,
        clamp: Mapping[str, Hold | Sequence[Clamp]] | None = None,
        *,
        from_step: int = 0,
        feedback: str = "recorded",
        num_samples: int = 100,
        lesion: Sequence[int] | None = None,
        lesion_at: Steps = None,
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
                unit) or (sample, sequence, time, unit); a function of the gate's value, (sample, sequence, unit),
                called once for each step and layer, which is told where it is (`GatePlace`: step, gate, layer, stream)
                if it must be given a second argument; or `Clamp(value, dims=..., at=..., units=...)`, which names the
                axes and says at which steps and for which units; or a list of several of these. Where parameters of
                the transition have priors, every draw has gates of its own, and is run by itself: sample is one.
            from_step: the first step that is touched.
            feedback: what heads that feed back do: "recorded", what was observed goes in; "free", from `from_step` on
                their own samples do, with fresh noise.
            num_samples: number of draws.
            lesion: units of h_t that send nothing, to readouts and to the next step.
            lesion_at: base steps at which they are silent (one, a slice, a list); None for all from `from_step` on.

        Raises:
            ValueError: an unknown covariate, gate or unit, a shape that differs or could mean two things, or a
                `Discrete` latent.

        References:
            Pearl. Causality: models, reasoning, and inference. 2009.
        """
        with self._sampler.drawing():
            return counterfactual(self._sampler, covariates, clamp, from_step, feedback, num_samples, lesion, lesion_at)

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
        log predictive density. Without local latents and priors it is exact, and computed in double precision; without
        local latents all kinds but "elbo" are the same. "exact" says that nothing else will do.

        Args:
            kind: "elbo", "iwae", "smc", "ais", "exact" or "auto".
            num_particles: draws; the error falls with their square root. For "smc" particles of each filter.

        Raises:
            ValueError: an unknown kind, for "smc" a guide whose family cannot be drawn step by step, or for "exact"
                something that is left to integrate: latents that are drawn, or parameters with priors.
        """
        return replace(densities.evidence(self._sampler, kind, num_particles), names=self.data.names)

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
            self._sampler, num_particles=num_particles, num_sequences=num_sequences, annealing=annealing,
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
        return densities.log_likelihood(self._sampler, num_particles, num_draws)

    @isolated
    def log_likelihood_one_step_ahead(self, head: str, num_particles: int = 64, num_draws: int = 50) -> Tensor:
        """Return log p(y_t | y_{<t}, theta) of every entry of a head, under each draw of the parameters.

        `one_step_ahead` averages over them, weighed by what each expected of the past.

        Args:
            head: the head's name.
            num_particles: particles of the filter that integrates local latents out.
            num_draws: draws of the parameters with priors, those of `parameters(num_draws)`; without any, one row.

        Returns:
            (draw, sequence, time, channel), nats, or (..., 1) for a family that joins channels; zero where nothing is
            scored.

        Raises:
            ValueError: an unknown head, or one that `one_step_ahead` refuses.
        """
        self._head(head)
        return by_draw(self._sampler, self.data, head, num_particles, num_draws)

    @isolated
    def log_prior(self, num_draws: int = 50) -> dict[str, Tensor]:
        """Return log p(theta) of the parameters that have priors: site name to (draw,), nats.

        Of the draws of `parameters(num_draws)`, in the units in which the priors are stated. The density of a member of
        a `Population` is that given the population's own draws.

        Args:
            num_draws: number of draws.
        """
        return densities.log_prior(self._sampler, num_draws)

    @isolated
    def log_likelihood_of_draws(self, num_draws: int = 50) -> Tensor:
        """Return log p(y_n | z_n, theta) of draws of parameters and local latents together, (draw, sequence), nats.

        The likelihood given the latents, of the draws of `parameters(num_draws)` and `latents(num_draws)`;
        `log_likelihood` integrates them out.

        Args:
            num_draws: number of draws.
        """
        return densities.log_likelihood_of_draws(self._sampler, check_size("log_likelihood", "num_draws", num_draws))

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
        and over draws of q(theta) where parameters have priors, each weighed by what it expected of the steps before:

            p(y_t | y_{<t}) = sum_k w_{k,t} p(y_t | y_{<t}, theta_k),   w_{k,t} = p(y_{<t} | theta_k) / const

        so that the sum over the steps of a sequence that was not fitted is its log predictive density.

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
        self._head(head)
        used = None if self.result is None else self.result.used
        return one_step_ahead(self._sampler, self.data, head, num_particles, num_filters, num_draws, used)

    @isolated
    def summary(self, **settings: Any) -> pandas.DataFrame:
        """Return mean, spread and interval of every parameter, for chains with R-hat; see `latentrnn.summary`."""
        return shortcut("summary")(self, **settings)

    @isolated
    def to_xarray(self, **settings: Any) -> xarray.Dataset:
        """Return draws of parameters, latents and rates with named axes; see `latentrnn.export.posterior_to_xarray`."""
        return shortcut("posterior_to_xarray")(self, **settings)

    @isolated
    def power_scaling(self, **settings: Any) -> Any:
        """Return how sensitive the parameters are to prior and likelihood; see `latentrnn.power_scaling`."""
        return shortcut("power_scaling")(self, **settings)

    @isolated
    def factors(self, num_samples: int = 100) -> Any:
        """Return draws of the factors of heads with a `FactorReadout`; see `latentrnn.interpret.factors`."""
        return shortcut("factors")(self, num_samples)

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

    def _of(self, sampler: PosteriorSampler, data: SequenceData | None = None) -> Posterior:
        """Return the posterior that a changed sampler samples."""
        other = copy.copy(self)
        other.data = self.data if data is None else data
        other._sampler, other.model, other.guide = sampler, sampler.model, sampler.guide
        return other

    def _head(self, name: str) -> Any:
        if not isinstance(name, str) or name not in self.model.observations:
            raise ValueError(f"unknown head {name!r}; the model has {sorted(self.model.observations)}")
        return self.model.observations[name]
