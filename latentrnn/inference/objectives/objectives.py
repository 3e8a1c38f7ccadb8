"""What a fit maximises: bounds on the log evidence, and estimators of their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.filters.particle_filter import ParticleFilter
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.inference.objectives.elbo import PARAMETERS, Terms, elbo_terms
from latentrnn.inference.objectives.kl import KLWarmUp
from latentrnn.inference.objectives.log_weights import sampled_sites, trace_log_weights
from latentrnn.models.sites import LATENTS
from latentrnn.support.arguments import check_flag, check_kind_of, check_number, check_size, is_number, settle

Program = Callable[[SequenceData], Any]


class Step(NamedTuple):
    """What one evaluation of an objective gives.

    Attributes:
        surrogate: its gradient is the estimate; as a number it may mean nothing. Nats, for the whole plate.
        bound: the value of the bound, detached; nats, for the whole plate.
        terms: the terms of the ELBO for the same draws, with true weights.
    """

    surrogate: Tensor
    bound: Tensor
    terms: Terms


@dataclass(frozen=True)
class Evaluation:
    """One step's circumstances.

    Attributes:
        model, guide: Pyro programs over a batch.
        data: the batch.
        num_particles: draws of the guide.
        guide_data: what the guide is shown instead of `data`.
        kl_weight: of the KL terms, one for the true bound.
        weights: of the log-likelihoods of the named heads.
    """

    model: Program
    guide: nn.Module
    data: SequenceData
    num_particles: int = 1
    guide_data: SequenceData | None = None
    kl_weight: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """A bound on the log evidence with an estimator of its gradient. A plain description, without state.

    Args:
        num_particles: draws of the guide per step.
        kl: `KLWarmUp`, the weight of the KL term during the fit.
        coordinated_dropout: probability with which an observed entry is hidden from the encoder; only hidden
            entries are then scored in training, so that the encoder cannot copy its input. The reported training
            bound is then an estimate under dropout; the validation bound is the true one.

    Raises:
        ValueError: a value out of range, or fewer particles than the bound needs.
        TypeError: a `kl` of another kind.

    References:
        Keshtkaran, Pandarinath. Enabling hyperparameter optimization in sequential autoencoders for spiking neural
        data (coordinated dropout). 2019.
    """

    num_particles: int = field(default=1, kw_only=True)
    kl: KLWarmUp = field(default=KLWarmUp(), kw_only=True)
    coordinated_dropout: float = field(default=0.0, kw_only=True)

    fewest_particles = 1  # two where the bound depends on how many there are

    def __post_init__(self) -> None:
        owner = type(self).__name__
        settle(
            self,
            num_particles=check_size(owner, "num_particles", self.num_particles),
            kl=check_kind_of(owner, "kl", self.kl, KLWarmUp),
            coordinated_dropout=check_number(owner, "coordinated_dropout", self.coordinated_dropout, least=0, below=1),
        )
        if self.num_particles < self.fewest_particles:
            raise ValueError(
                f"{owner}: num_particles must be at least {self.fewest_particles}; found {self.num_particles}"
            )

    @property
    def likelihood_weights(self) -> Mapping[str, float]:
        """Factors of the log-likelihoods of the named heads in the training loss; one where a head is not named."""
        return {}

    @property
    def name(self) -> str:
        """What the bound is called in a fit's history: "elbo", "iwae", ..."""
        return type(self).__name__.lower()

    @property
    def adds_over_windows(self) -> bool:
        """Whether the bound of a sequence is the sum of those of its windows."""
        return False

    def step(self, at: Evaluation) -> Step:
        """Evaluate the bound on a batch."""
        raise NotImplementedError


@dataclass(frozen=True)
class ELBO(Objective):
    """E_q[log p(y, z) - log q(z)], the mean log-weight.

    Args:
        sticking_the_landing: leave out the part of the gradient whose mean is zero, that of log q with respect to
            its own parameters. Its variance vanishes where the guide is exact, so that rich families converge to the
            posterior instead of wandering around it; it uses no closed forms, and runs the guide twice.
        free_bits: KL of a sequence and latent site, in nats, below which the optimiser gains nothing by lowering it.
            It is compared sequence by sequence, so that it does not matter which sequences share a batch. What is then
            maximised is no bound any more; the history and the validation show the true ELBO all the same.
        head_weights: factors of heads' log-likelihoods in the training loss; one where a head is not named. For a
            head that says little per step beside one that says much, and that the encoder does not see, e.g. known
            spikes beside fluorescence. Everything that is reported, the training ELBO too, has weights of one.
        num_particles, kl, coordinated_dropout: see `Objective`.

    Raises:
        ValueError: a value out of range, or options that exclude each other.
        TypeError: an argument of the wrong kind.

    References:
        Roeder, Wu, Duvenaud. Sticking the landing: simple, lower-variance gradient estimators for variational
        inference. 2017.
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling. Improved variational inference with inverse
        autoregressive flow (free bits). 2016.
        Kingma, Rezende, Mohamed, Welling. Semi-supervised learning with deep generative models (a weight for what is
        known of some). 2014.
    """

    sticking_the_landing: bool = False
    free_bits: float = 0.0
    head_weights: Mapping[str, float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(
            self,
            sticking_the_landing=check_flag("ELBO", "sticking_the_landing", self.sticking_the_landing),
            free_bits=check_number("ELBO", "free_bits", self.free_bits, least=0),
        )
        if self.free_bits and self.sticking_the_landing:
            raise ValueError("ELBO: free_bits needs the KL of each site, which sticking_the_landing never forms")
        if self.head_weights is not None:
            settle(self, head_weights=_head_weights(self.head_weights))
            if self.head_weights and self.sticking_the_landing:
                raise ValueError("ELBO: head_weights multiply terms of heads, which sticking_the_landing never forms")

    @property
    def likelihood_weights(self) -> Mapping[str, float]:
        return self.head_weights or {}

    @property
    def adds_over_windows(self) -> bool:
        return not self.free_bits

    def step(self, at: Evaluation) -> Step:
        if self.sticking_the_landing:
            draws = WeightedDraws(at, detached=True)
            return Step(draws.total(draws.log_weights().mean(0)), draws.terms.elbo(), draws.terms)
        terms = elbo_terms(
            at.model, at.guide, at.data,
            num_particles=at.num_particles, guide_data=at.guide_data, free_bits=self.free_bits,
        )  # fmt: skip
        terms = terms.reweighted(at.weights) if at.weights else terms
        floored = terms if terms.floored is None else Terms(terms.log_likelihood, terms.floored)
        return Step(floored.elbo(at.kl_weight), terms.elbo().detach(), terms)


@dataclass(frozen=True)
class IWAE(Objective):
    """log (1/K) sum_k w_k per sequence, K = `num_particles`: tighter than the ELBO, the more so the larger K.

    Args:
        doubly_reparameterised: an estimator of the guide's gradient whose signal does not fade as K grows; else the
            plain one.
        num_particles, kl, coordinated_dropout: see `Objective`.

    References:
        Burda, Grosse, Salakhutdinov. Importance weighted autoencoders. 2016.
        Tucker, Lawson, Gu, Maddison. Doubly reparameterized gradient estimators for Monte Carlo objectives. 2019.
    """

    doubly_reparameterised: bool = True
    num_particles: int = field(default=8, kw_only=True)
    fewest_particles = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, doubly_reparameterised=check_flag("IWAE", "doubly_reparameterised", self.doubly_reparameterised))

    def step(self, at: Evaluation) -> Step:
        draws = WeightedDraws(at, detached=self.doubly_reparameterised)
        log_weights = draws.log_weights()
        bound = torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
        if not self.doubly_reparameterised:
            return Step(draws.total(bound), draws.total(bound).detach(), draws.terms)
        share = log_weights.detach().softmax(0)
        draws.scale_gradients(share)
        return Step(draws.total((share * log_weights).sum(0)), draws.total(bound).detach(), draws.terms)


@dataclass(frozen=True)
class Renyi(Objective):
    """log((1/K) sum_k w_k^(1 - alpha)) / (1 - alpha) per sequence: between the IWAE bound (0) and the ELBO (towards 1).

    Args:
        alpha: order of the divergence, not 1. Below 0 it is no lower bound.
        num_particles, kl, coordinated_dropout: see `Objective`.

    Raises:
        ValueError: alpha is 1 (that is the ELBO), or no finite number.

    References:
        Li, Turner. Rényi divergence variational inference. 2016.
    """

    alpha: float = 0.5
    num_particles: int = field(default=8, kw_only=True)
    fewest_particles = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, alpha=check_number("Renyi", "alpha", self.alpha))
        if self.alpha == 1:
            raise ValueError("Renyi: alpha=1 is the ELBO; use ELBO()")

    def step(self, at: Evaluation) -> Step:
        draws = WeightedDraws(at, detached=False)
        log_weights = (1 - self.alpha) * draws.log_weights()
        bound = (torch.logsumexp(log_weights, 0) - math.log(len(log_weights))) / (1 - self.alpha)
        return Step(draws.total(bound), draws.total(bound).detach(), draws.terms)


@dataclass(frozen=True)
class FIVO(Objective):
    """log Z of a particle filter with the guide as proposal, per sequence, with K = `num_particles` particles.

    A filtering variational objective. E[Z] = p(y), so that it is a bound; particles are resampled on the way, so that
    it stays tight on sequences over which importance weights of whole paths collapse. A guide that filters (a causal
    encoder) suits it best: weights of the first steps know nothing of what is still to come. The gradient goes through
    draws and weights; how resampling depends on the weights is left out of it, a small bias for much less variance.
    The terms in the history are those of the ELBO, for one other draw.

    Args:
        resample_below: effective share of the particles below which they are resampled; 0 is IWAE, step by step.
        num_particles, kl, coordinated_dropout: see `Objective`.

    Raises:
        ValueError: a share outside [0, 1]; while fitting, a guide whose family cannot be drawn step by step.

    References:
        Maddison, Lawson, Tucker, Heess, Norouzi, Mnih, Doucet, Teh. Filtering variational objectives. 2017.
        Naesseth, Linderman, Ranganath, Blei. Variational sequential Monte Carlo. 2018.
        Le, Igl, Rainforth, Jin, Wood. Auto-encoding sequential Monte Carlo. 2018.
    """

    resample_below: float = 0.5
    num_particles: int = field(default=8, kw_only=True)
    fewest_particles = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, resample_below=check_number("FIVO", "resample_below", self.resample_below, least=0, most=1))

    def step(self, at: Evaluation) -> Step:
        shown = at.data if at.guide_data is None else at.guide_data
        guide: Any = at.guide
        fixed = Trace() if guide.parameter_sites is None else poutine.trace(guide.parameter_sites).get_trace()
        with poutine.trace() as recorder, poutine.replay(trace=fixed):
            rollout = at.model.unroll(at.data)  # type: ignore[attr-defined]
        run = ParticleFilter(
            rollout,
            at.num_particles,
            proposals=guide.local.proposals(guide.variational_parameters(shown), at.data) if guide.sites else None,
            resample_below=self.resample_below,
            prior_weight=at.kl_weight,
            head_weights=at.weights,
        ).run()
        scale = at.data.total / at.data.num_sequences
        bound = scale * run.log_evidence.sum() - at.kl_weight * parameter_kl(fixed, recorder.trace, at.data)
        terms = elbo_terms(at.model, at.guide, at.data, guide_data=at.guide_data)
        return Step(bound, bound.detach(), terms.reweighted(at.weights) if at.weights else terms)


class WeightedDraws:
    """Draws of the guide for one batch, with log p(y, z) - log q(z) of each draw and sequence.

    Parameters with a posterior are drawn once for all particles: the bounds average over latents given parameters.

    Args:
        at: the circumstances.
        detached: whether log q is that of a guide whose parameters are constants, so that gradients reach these
            through the draws alone.
    """

    def __init__(self, at: Evaluation, *, detached: bool) -> None:
        self.at = at
        self._share = _Share()
        shown = at.data if at.guide_data is None else at.guide_data
        parameter_sites = at.guide.parameter_sites
        fixed = Trace() if parameter_sites is None else poutine.trace(parameter_sites).get_trace()
        with pyro.plate("particles", at.num_particles, dim=-2):
            drawn = poutine.trace(poutine.replay(at.guide, trace=fixed)).get_trace(shown)
            used = self._shared(drawn) if detached else drawn
            self.model_trace = poutine.trace(poutine.replay(at.model, trace=used)).get_trace(at.data)
            self.guide_trace = used
            if detached:
                constants = {name: p.detach() for name, p in at.guide.named_parameters()}

                def constant(data: SequenceData) -> Any:
                    return torch.func.functional_call(at.guide, constants, (data,))

                self.guide_trace = poutine.trace(poutine.replay(constant, trace=used)).get_trace(shown)
        self.parameter_kl = parameter_kl(fixed, self.model_trace, at.data)
        self.terms = self._terms()

    def _shared(self, drawn: Trace) -> Trace:
        """Return the trace with every latent as a copy, whose gradient `scale_gradients` can scale on its way back."""
        copied = drawn.copy()
        for name, site in list(copied.nodes.items()):
            if name in LATENTS:
                value = site["value"].clone()
                if value.requires_grad:
                    value.register_hook(self._share)
                copied.nodes[name] = {**site, "value": value}
        return copied

    def scale_gradients(self, share: Tensor) -> None:
        """Multiply what flows back into each draw, (particle, sequence), by `share`."""
        self._share.value = share

    def _terms(self) -> Terms:
        log_likelihood, kl = {}, {}
        scale = self.at.data.total / self.at.data.num_sequences
        with torch.no_grad():
            for name, site in sampled_sites(self.model_trace):
                if site["is_observed"]:
                    value = site["fn"].log_prob(site["value"])
                    log_likelihood[name] = self.at.weights.get(name, 1.0) * scale * value.mean(0).sum()
                elif name in LATENTS:
                    other = self.guide_trace.nodes[name]
                    loss = other["fn"].log_prob(other["value"]) - site["fn"].log_prob(site["value"])
                    kl[name] = scale * loss.mean(0).sum()
            if self.at.guide.parameter_sites is not None:
                kl[PARAMETERS] = self.parameter_kl.detach()
        return Terms(log_likelihood, kl)

    def total(self, values: Tensor) -> Tensor:
        """Return what values of each sequence, (sequence,), amount to for the whole plate, less the parameters' KL."""
        scale = self.at.data.total / self.at.data.num_sequences
        return scale * values.sum() - self.at.kl_weight * self.parameter_kl

    def log_weights(self) -> Tensor:
        """Return log-weights, (particle, sequence), nats, with the KL part weighted as it is."""
        at = self.at
        return trace_log_weights(
            self.guide_trace, self.model_trace, at.data, at.num_particles,
            kl_weight=at.kl_weight, head_weights=at.weights,
        )  # fmt: skip


class _Share:
    """What the gradients of draws are multiplied by.

    Hooks live as long as the graph and the graph as long as its hooks, where no collector can see it: so the hook knows
    the share alone, and nothing that leads back to the draws.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        if self.value is None:
            return gradient
        return gradient * self.value.reshape(*self.value.shape, *[1] * (gradient.dim() - self.value.dim()))


def _head_weights(weights: Any) -> dict[str, float]:
    """Return the weights of heads.

    Raises:
        TypeError: they name no heads.
        ValueError: one is negative or not finite.
    """
    if not isinstance(weights, Mapping):
        raise TypeError(f'ELBO: head_weights must name heads, e.g. {{"spikes": 2.0}}; found {weights!r:.80}')
    for name, value in weights.items():
        if not is_number(value) or not 0 <= value < math.inf:
            raise ValueError(f"ELBO: head_weights must be finite and not negative; found {value!r} for {name!r}")
    return {name: float(value) for name, value in weights.items()}


def parameter_kl(fixed: Trace, model_trace: Trace, data: SequenceData) -> Tensor:
    """Return log q(theta) - log p(theta) of the one draw of the parameters with priors, zero where there are none."""
    total = torch.zeros((), dtype=data.dtype, device=data.device)
    for name, site in sampled_sites(fixed):
        total = total + site["fn"].log_prob(site["value"]).sum()
        if name != JOINT:
            prior = model_trace.nodes[name]["fn"].log_prob(site["value"])
            total = total - prior.mean()  # the same for every particle
    return total
