"""What a mixture of fits believes about given sequences."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from latentrnn.data import SequenceKey
from latentrnn.inference.evidence.evidence import AIS, SMC, Evidence
from latentrnn.inference.filters.one_step_ahead import OneStepAhead
from latentrnn.inference.posterior.coupling_report import CouplingReport
from latentrnn.inference.posterior.draws.predictions import Chunk
from latentrnn.inference.posterior.forecast import Forecast
from latentrnn.inference.posterior.gain import GainSamples
from latentrnn.inference.posterior.interventions.counterfactual import Counterfactual
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_kind_of, check_list, check_size
from latentrnn.support.isolation import isolated
from latentrnn.support.notebooks import ShownInNotebooks
from latentrnn.support.shortcuts import shortcut

if TYPE_CHECKING:
    import pandas
    import xarray

TOLD_BY = 0.01  # a member with less of a sequence's density does not decide how far to trust it


class Experienced(Protocol):
    """What the members have seen together: an `Ensemble`."""

    @property
    def used(self) -> frozenset[SequenceKey]:
        """Identity of every sequence that was fitted, decided when to stop, or decided the weights."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What members that come from fits have seen together.

    Attributes:
        used: identity of every sequence that a member was fitted to, or that decided when to stop.
    """

    used: frozenset[SequenceKey]


class EnsemblePosterior(ShownInNotebooks):
    """What a mixture of fits believes about sequences, p(y) = sum_k w_k p_k(y).

    It has the methods of a `Posterior`. Members are weighed as given, whatever a sequence says of them, with one
    exception that follows from the formula: one step ahead, what a sequence said so far weighs them anew. Draws are
    pooled, of each member as many as its weight says (the counts nearest to `num_samples * weights` that add up).
    Latents of different members have coordinates of their own and cannot be mixed: `posteriors[k].latents()` has them,
    and so with whatever else is asked of a member alone.

    Args:
        posteriors: one per member, of the same sequences.
        weights: (member,).
        result: the ensemble that they come from; by default the members' results say what they have seen.

    Attributes:
        model: the first member's, for what members share: heads, spec, shapes.

    Raises:
        ValueError: no member, another number of weights, or members of different sequences.
        TypeError: members that are no posteriors, or weights that are no tensor.
    """

    chains = None

    def __init__(self, posteriors: Sequence[Posterior], weights: Tensor, result: Experienced | None = None) -> None:
        self.posteriors = tuple(check_list("EnsemblePosterior", "posteriors", posteriors, "posteriors"))
        for posterior in self.posteriors:
            check_kind_of("EnsemblePosterior", "each of posteriors", posterior, Posterior)
        self.weights: Tensor = check_kind_of("EnsemblePosterior", "weights", weights, Tensor)
        if not self.posteriors or weights.shape != (len(self.posteriors),):
            raise ValueError(
                f"EnsemblePosterior: expected one weight for each of {len(self.posteriors)} members, at least one; "
                f"found weights of shape {tuple(weights.shape)}"
            )
        self.data = self.posteriors[0].data
        if any(posterior.data.keys != self.data.keys for posterior in self.posteriors):
            raise ValueError("EnsemblePosterior: members are of different sequences")
        used = [posterior.result.used for posterior in self.posteriors if posterior.result is not None]
        if result is None and len(used) == len(self.posteriors):
            result = Seen(frozenset().union(*used))
        self.result = result

    @property
    def model(self) -> LatentRNN:
        return self.posteriors[0].model

    @property
    def conditional_on(self) -> str | None:
        """What the draws of each member take as known, in words; see `Posterior.conditional_on`."""
        given = self.posteriors[0].conditional_on
        return given and f"each member's {given}"

    @property
    def seed(self) -> int:
        """The seed from which the first member's methods start."""
        return self.posteriors[0].seed

    def reseeded(self, seed: int) -> EnsemblePosterior:
        """Return the same mixture with another seed."""
        return self._of(lambda posterior: posterior.reseeded(seed))

    def restricted(self, count: int) -> EnsemblePosterior:
        """Return the mixture of the first sequences alone."""
        return self._of(lambda posterior: posterior.restricted(count))

    def refined(self, steps: int = 100, **settings: Any) -> EnsemblePosterior:
        """Return the mixture with every member's guide optimised for these sequences; see `Posterior.refined`."""
        return self._of(lambda posterior: posterior.refined(steps, **settings))

    # -- draws -----------------------------------------------------------------------------------------------------

    @isolated
    def mean(self, head: str, num_samples: int = 100) -> Tensor:
        """Return sum_k w_k E_k[y | data], (sequence, time, channel), `num_samples` draws per member; padding is NaN."""
        parts = [posterior.mean(head, num_samples) for posterior in self.posteriors]
        return sum((w * part for w, part in zip(self.weights.to(parts[0]), parts, strict=True)), torch.zeros(()))

    def rates(self, head: str, num_samples: int = 100) -> Tensor:
        """Return pooled draws of E[y | latents, parameters], (sample, sequence, time, channel)."""
        return torch.cat([p.rates(head, n) for p, n in self._shared(num_samples)])

    def parameters(self, num_samples: int = 100) -> dict[str, Tensor]:
        """Return pooled draws of the parameters that have priors: site name to (sample, *shape)."""
        return self._pooled(num_samples, lambda p, n: p.parameters(n))

    def predictive(self, num_samples: int = 100, **settings: Any) -> dict[str, Tensor]:
        """Return pooled replicated data; settings as of `Posterior.predictive`."""
        return self._pooled(num_samples, lambda p, n: p.predictive(n, **settings))

    def prior_predictive(self, num_samples: int = 100, *, heads: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return data drawn from the members' models alone, pooled; see `Posterior.prior_predictive`."""
        return self._pooled(num_samples, lambda p, n: p.prior_predictive(n, heads=heads))

    def gain(self, head: str, num_samples: int = 100) -> GainSamples:
        """Return pooled draws of a head's stimulus gain and gate; see `Posterior.gain`."""
        parts = [p.gain(head, n) for p, n in self._shared(num_samples)]
        pooled = GainSamples(torch.cat([part.beta for part in parts]), torch.cat([part.gate for part in parts]))
        return pooled.given(self.conditional_on)

    def impute(self, head: str, num_samples: int = 100) -> Tensor:
        """Return pooled draws of a head's missing entries; see `Posterior.impute`."""
        return torch.cat([p.impute(head, n) for p, n in self._shared(num_samples)])

    def forecast(
        self,
        horizon: int,
        covariates: Mapping[str, Any] | None = None,
        *,
        num_samples: int = 200,
        **settings: Any,
    ) -> Forecast:
        """Return pooled paths after every sequence's end, whose log score is that of the mixture of the members' own.

        Arguments as of `Posterior.forecast`.
        """
        shared = self._shared(num_samples)
        parts = [p.forecast(horizon, covariates, num_samples=n, **settings) for p, n in shared]
        shares = tuple(n / num_samples for _, n in shared)
        density = _MixtureDensity(tuple(_density(part) for part in parts), shares)
        samples = {name: torch.cat([part.samples[name] for part in parts]) for name in parts[0].samples}
        return dataclasses.replace(parts[0], samples=samples, density=density)

    def counterfactual(
        self,
        covariates: Mapping[str, Any] | None = None,
        clamp: Mapping[str, Any] | None = None,
        *,
        num_samples: int = 100,
        **settings: Any,
    ) -> Counterfactual:
        """Return pooled rollouts under an intervention, those of `rates` where nothing is changed.

        Arguments as of `Posterior.counterfactual`. `states` are in each member's own coordinates, of which the pooled
        draws know the member (`members_of_draws`); a gate is held in every member alike.

        Raises:
            ValueError: members whose states have different sizes, and what `Posterior.counterfactual` refuses.
        """
        sizes = {p.model.transition.hidden_size for p in self.posteriors}
        if len(sizes) > 1:
            raise ValueError(
                f"counterfactual: members have states of {sorted(sizes)} units, which cannot be held or lesioned alike;"
                " ask the members, posteriors[k].counterfactual"
            )
        parts = [p.counterfactual(covariates, clamp, num_samples=n, **settings) for p, n in self._shared(num_samples)]
        rates = {name: torch.cat([part.rates[name] for part in parts]) for name in parts[0].rates}
        states = torch.cat([part.states for part in parts])
        return dataclasses.replace(parts[0], rates=rates, states=states)

    def couplings(self, num_samples: int = 100) -> dict[str, CouplingReport]:
        """Return E[penalty] of every coupling under the mixture, `num_samples` draws of each member.

        See `Posterior.couplings`.
        """
        members = [posterior.couplings(num_samples) for posterior in self.posteriors]
        found, weights = {}, self.weights.double()
        for name, first in members[0].items():
            parts = [member[name] for member in members]
            values = torch.stack([part.values.double() for part in parts])
            errors = torch.stack([part.standard_error.double() for part in parts])
            together = torch.tensor([part.mean_standard_error for part in parts], dtype=torch.float64)
            found[name] = dataclasses.replace(
                first,
                values=(weights @ values).to(first.values),
                standard_error=(weights**2 @ errors**2).sqrt().to(first.values),
                mean=float(weights @ values.mean(1)),
                mean_standard_error=float((weights**2 @ together**2).sqrt()),
                num_samples=num_samples * len(parts),
            )
        return found

    # -- densities -------------------------------------------------------------------------------------------------

    def evidence(self, kind: str | SMC | AIS = "iwae", num_particles: int = 64) -> Evidence:
        """Return log sum_k w_k p_k(y_n) of every sequence; of kind "elbo", the bound that the members' bounds imply.

        Effective sample size and k-hat are the worst of the members that matter to a sequence.
        """
        found = [posterior.evidence(kind, num_particles) for posterior in self.posteriors]
        values = torch.stack([part.values for part in found])
        joint = values + self.weights.log().unsqueeze(-1).to(values)
        share = torch.softmax(joint, 0)
        errors = torch.stack([part.standard_error for part in found])
        # a member without weight has no share, whatever its error
        error = torch.where(share > 0, share * errors, 0.0).square().sum(0).sqrt()
        sizes = [part.effective_sample_size for part in found]
        tails = [part.pareto_k for part in found]
        doubtful = torch.stack([part.doubtful for part in found])
        matters = ~(share <= TOLD_BY).cpu()
        # members may have come to their values by different ways
        ways = list(dict.fromkeys((part.kind, part.proposal, part.num_particles) for part in found))
        spreads = [part.spread for part in found]
        if any(spread is not None for spread in spreads):
            spreads = [torch.zeros_like(values[0]) if spread is None else spread for spread in spreads]
        return dataclasses.replace(
            found[0],
            kind=" and ".join(dict.fromkeys(kind for kind, _, _ in ways)),
            proposal=found[0].proposal if len(ways) == 1 else None,
            num_particles=min(number for _, _, number in ways),
            doubt=(doubtful & matters).any(0),
            values=torch.logsumexp(joint, 0),
            standard_error=error,
            effective_sample_size=_worst(sizes, share, least=True),
            pareto_k=_worst(tails, share, least=False),
            spread=_worst(spreads, share, least=False),
        )

    def log_likelihood(self, num_particles: int = 64, num_draws: int = 50) -> Tensor:
        """Return log p_k(y_n | theta), (draw, sequence), of pooled draws; of members without priors one row as often.

        See `Posterior.log_likelihood`; the draws are those of `parameters(num_draws)`.
        """
        rows = [(p.log_likelihood(num_particles, n), n) for p, n in self._shared(num_draws)]
        return torch.cat([row if len(row) == n else row.expand(n, -1) for row, n in rows])

    def log_likelihood_one_step_ahead(self, head: str, num_particles: int = 64, num_draws: int = 50) -> Tensor:
        """Return log p_k(y_t | y_{<t}, theta) of every entry, pooled as in `log_likelihood`, (draw, sequence, ...)."""
        rows = [(p.log_likelihood_one_step_ahead(head, num_particles, n), n) for p, n in self._shared(num_draws)]
        return torch.cat([row if len(row) == n else row.expand(n, *row.shape[1:]) for row, n in rows])

    def log_likelihood_of_draws(self, num_draws: int = 50) -> Tensor:
        """Return log p_k(y_n | z_n, theta) of pooled draws of parameters and latents, (draw, sequence), nats."""
        return torch.cat([p.log_likelihood_of_draws(n) for p, n in self._shared(num_draws)])

    def log_prior(self, num_draws: int = 50) -> dict[str, Tensor]:
        """Return log p(theta) of the pooled draws of `parameters(num_draws)`: site to (draw,), nats."""
        return self._pooled(num_draws, lambda p, n: p.log_prior(n))

    def reason_against_loo(self, *, fully_known: bool = False) -> str:
        """Return why PSIS-LOO of the pooled draws would mean nothing: see `Posterior.reason_against_loo`."""
        return "a mixture of fits, whose members and weights are no draws of one posterior"

    def one_step_ahead(self, head: str, **settings: Any) -> OneStepAhead:
        """Return log p(y_t | y_{<t}) and E[y_t | y_{<t}] of the mixture, for settings see `Posterior.one_step_ahead`.

            p(y_t | y_{<t}) = sum_k w_{k,t} p_k(y_t | y_{<t}),   w_{k,t} = w_k prod_{s<t} p_k(y_s | y_{<s}) / const

        so that for one channel the sum over a sequence's steps is its `evidence`. All per-step heads count for w, their
        channels as independent given the past, as in the sums of `OneStepAhead`; steps that are not scored do not.
        """
        own = [p.one_step_ahead(head, **settings) for p in self.posteriors]  # which looks at the name
        weights, before, noisy = self._weights_ahead(head, own, settings)
        first = own[0]
        value, error = _of_mixture(weights, [p.log_prob for p in own], [p.standard_error for p in own], before, noisy)
        means = torch.stack([part.mean for part in own])
        found = dataclasses.replace(
            first,
            log_prob=torch.where(first.scored, value, 0.0).to(first.log_prob),
            mean=(weights.to(means) * means).sum(0),
            standard_error=None if error is None else torch.where(first.scored, error, 0.0).to(first.log_prob),
            used=None if self.result is None else self.result.used,
        )
        zeros = [part.log_prob_zero for part in own if part.log_prob_zero is not None]
        if not zeros:
            return dataclasses.replace(found, log_prob_zero=None, standard_error_zero=None)
        zero, missed = _of_mixture(weights, zeros, [part.standard_error_zero for part in own], before, noisy)
        return dataclasses.replace(
            found,
            log_prob_zero=torch.where(first.scored, zero, 0.0).to(first.log_prob),
            standard_error_zero=None if missed is None else missed.to(zeros[0]),
        )

    def _weights_ahead(
        self, head: str, own: list[OneStepAhead], settings: dict[str, Any]
    ) -> tuple[Tensor, Tensor, bool]:
        """Return w_{k,t} of a head's frames, (member, sequence, frame, 1), their variance, and whether there is any."""
        heads = [name for name, part in self.model.observations.items() if part.head.per_step]
        others = [name for name in heads if name != head]
        ahead = {head: own} | {name: [p.one_step_ahead(name, **settings) for p in self.posteriors] for name in others}
        by_member = [{name: parts[k] for name, parts in ahead.items()} for k in range(len(self.posteriors))]
        told = torch.stack([_told(parts, self.data) for parts in by_member])
        noise = torch.stack([_told(parts, self.data, error=True) for parts in by_member])
        clock = self.data.spec.heads[head].clock
        steps = slice(clock - 1, None, clock)  # a frame is seen at its last step; before it counts what came earlier
        given = self.weights.double().log()[:, None, None]
        prior = given + _until(told)[..., steps]
        prior = torch.where(prior.isneginf().all(0), given, prior)  # of what no member thought possible none can tell
        return torch.softmax(prior, 0).unsqueeze(-1), _until(noise)[..., steps].unsqueeze(-1), bool(noise.any())

    # -- out -------------------------------------------------------------------------------------------------------

    def summary(self, **settings: Any) -> pandas.DataFrame:
        """Return mean, spread and interval of every parameter of the mixture; see `latentrnn.summary`."""
        found: pandas.DataFrame = shortcut("summary")(self, **settings)
        return found

    def to_xarray(self, **settings: Any) -> xarray.Dataset:
        """Return pooled draws of parameters and rates with named axes; see `latentrnn.export.posterior_to_xarray`."""
        found: xarray.Dataset = shortcut("posterior_to_xarray")(self, **settings)
        return found

    def factors(self, num_samples: int = 100) -> Any:
        """Return pooled draws of factors, each member's in its own coordinates; see `latentrnn.interpret.factors`."""
        return shortcut("factors")(self, num_samples)

    def to_arviz(self, **settings: Any) -> Any:
        """Return pooled draws as ArviZ groups, without latents; see `latentrnn.export.to_arviz`."""
        return shortcut("to_arviz")(self, **settings)

    def to_netcdf(self, path: str | os.PathLike[str], **settings: Any) -> Path:
        """Write the groups of `to_arviz` to a file."""
        found: Path = shortcut("to_netcdf")(self, path, **settings)
        return found

    def replicate_parts(self, num_samples: int = 100, *, prior: bool = False) -> Iterator[Chunk]:
        """Draw the replicates of `predictive`, or of `prior_predictive`, part by part; see `Posterior.latent_parts`."""
        first = 0
        for posterior, count in self._shared(num_samples):
            for chunk in posterior.replicate_parts(count, prior=prior):
                samples = slice(first + chunk.indices.samples.start, first + chunk.indices.samples.stop)
                yield chunk._replace(indices=chunk.indices._replace(samples=samples))
            first += count

    def members_of_draws(self, num_samples: int) -> Tensor:
        """Return which member each of so many pooled draws is of, (sample,)."""
        counts = [n for _, n in self._shared(num_samples, empty=True)]
        return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))

    def _of(self, change: Callable[[Posterior], Posterior]) -> EnsemblePosterior:
        return EnsemblePosterior([change(p) for p in self.posteriors], self.weights, self.result)

    def _pooled(self, num_samples: int, draw: Callable[[Posterior, int], dict[str, Tensor]]) -> dict[str, Tensor]:
        parts = [draw(p, n) for p, n in self._shared(num_samples)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _shared(self, num_samples: int, *, empty: bool = False) -> list[tuple[Posterior, int]]:
        check_size("EnsemblePosterior", "number of draws", num_samples)
        exact = self.weights.double() * num_samples
        counts = exact.floor().long()
        rest = (exact - counts).argsort(descending=True, stable=True)[: num_samples - int(counts.sum())]
        counts[rest] += 1
        return [(p, n) for p, n in zip(self.posteriors, counts.tolist(), strict=True) if n or empty]

    def __getattr__(self, name: str) -> NoReturn:
        of_members = not name.startswith("_") and hasattr(Posterior, name)
        hint = f"; members have it: posteriors[k].{name}" if of_members else ""
        raise AttributeError(f"EnsemblePosterior has no {name!r}{hint}")

    def __repr__(self) -> str:
        return f"EnsemblePosterior of {len(self.posteriors)} members and {self.data!r}"


def _density(part: Forecast) -> Callable[[str, Tensor, Tensor], Tensor]:
    assert part.density is not None
    return part.density


@dataclasses.dataclass(frozen=True)
class _MixtureDensity:
    """log sum_k share_k p_k of values of a head, of a forecast's parts."""

    parts: tuple[Callable[..., Tensor], ...]
    shares: tuple[float, ...]

    def __call__(self, head: str, values: Tensor, mask: Tensor) -> Tensor:
        found = torch.stack([part(head, values, mask) for part in self.parts])
        return torch.logsumexp(found + found.new_tensor(self.shares).log().reshape(-1, *[1] * (found.dim() - 1)), 0)


def _until(told: Tensor) -> Tensor:
    """Return sums over the steps before each, (..., step); differences of sums would be NaN after an infinite one."""
    return nn.functional.pad(told[..., :-1].cumsum(-1), (1, 0))


def _of_mixture(
    weights: Tensor, parts: Sequence[Tensor], errors: Sequence[Tensor | None], before: Tensor, noisy: bool
) -> tuple[Tensor, Tensor | None]:
    """Return log sum_k w_k p_k of the members' log p_k, and its error; None where all is exact.

    Args:
        weights: w_k.
        parts, errors: log p_k and their errors.
        before: variance of the logarithm of what w_k is proportional to.
        noisy: whether the weights have errors at all.
    """
    joint = weights.log() + torch.stack(list(parts)).double()
    value = torch.logsumexp(joint, 0)
    if not noisy and all(error is None for error in errors):
        return value, None
    stacked = torch.stack([torch.zeros_like(parts[0]) if error is None else error for error in errors]).double()
    return value, _error_of_mixture(torch.softmax(joint, 0), weights, stacked, before)


def _error_of_mixture(share: Tensor, weights: Tensor, errors: Tensor, before: Tensor) -> Tensor:
    """Return the error of log sum_k w_k p_k, to first order, from those of log p_k and of what made the weights.

    Args:
        share: w_k p_k of the sum, (member, ...).
        weights: w_k.
        errors: of log p_k.
        before: variance of the logarithm of what w_k is proportional to.
    """
    own = torch.where(share > 0, share * errors, 0.0).square()
    weighed = torch.where(share == weights, 0.0, (share - weights).square() * before)
    return (own + weighed).sum(0).sqrt()


def _worst(found: Sequence[Tensor | None], share: Tensor, *, least: bool) -> Tensor | None:
    """Return the smallest (or largest) of the members' numbers of each sequence that has a share in; NaN counts."""
    known = [value for value in found if value is not None]
    if len(known) < len(found):
        return None
    values = torch.stack(known)
    aside = values.new_tensor(torch.inf if least else -torch.inf)
    kept = torch.where(share > TOLD_BY, values, aside)
    return kept.amin(0) if least else kept.amax(0)


def _error(part: OneStepAhead) -> Tensor:
    return (torch.zeros_like(part.log_prob) if part.standard_error is None else part.standard_error).double()


def _told(ahead: Mapping[str, OneStepAhead], data: Any, *, error: bool = False) -> Tensor:
    """Return what all heads say at each base step, summed, or the variance of its error, (sequence, time)."""
    told = torch.zeros(len(data), data.num_steps, dtype=torch.float64)
    for name, part in ahead.items():
        clock = data.spec.heads[name].clock
        values = _error(part).square() if error else part.log_prob.double()
        values = values.masked_fill(~part.scored, 0.0).sum(-1)
        told[:, clock - 1 :: clock][:, : values.shape[1]] += values
    return told
