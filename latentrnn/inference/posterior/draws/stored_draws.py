"""A guide that replays stored draws, so that whatever draws from a guide can draw from Markov chains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.ops.stats import effective_sample_size
from torch import Tensor, nn
from torch.distributions import constraints

from latentrnn.data import SequenceData, SequenceKey
from latentrnn.inference.guides.encoders import Encoder
from latentrnn.inference.guides.families import Family
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.parameters import JOINT
from latentrnn.inference.posterior.draws.mixing import rank_normalised_r_hat
from latentrnn.models.latents import LatentSite
from latentrnn.models.sites import LATENTS
from latentrnn.models.state_space import sequence_plate
from latentrnn.support.notebooks import ShownInNotebooks


@dataclass(frozen=True)
class Chains(ShownInNotebooks):
    """How Markov chains went.

    Attributes:
        num_chains, num_draws: chains, and draws kept of each.
        diverging: draws whose trajectory diverged, (chain, draw).
        acceptance: mean acceptance rate, (chain,).
        step_size: after adaptation, (chain,).
        r_hat: per site rank-normalised split R-hat of every entry, the larger of bulk and tails: above 1.01 chains have
            not mixed; NaN for what never moves, and with less than four draws.
        ess: per site effective number of draws for the mean of every entry; `latentrnn.summary` has those of bulk and
            tails.
        statistics: of each draw, (chain, draw), by the names that ArviZ gives them: `lp`, log density of the
            unconstrained values, and `energy`, minus that and the kinetic energy, nats; `energy_error` since the
            trajectory began, nats; `acceptance_rate`, averaged over the trajectory; `tree_depth`, how often it doubled,
            and whether it `reached_max_treedepth`; `n_steps`, gradients; `step_size`; and `diverging`.

    References:
        Vehtari, Gelman, Simpson, Carpenter, Bürkner. Rank-normalization, folding, and localization: an improved R-hat
        for assessing convergence of MCMC. 2021.
        Gelman, Carlin, Stern, Dunson, Vehtari, Rubin. Bayesian data analysis. 2013 (effective number of draws).
        Betancourt. A conceptual introduction to Hamiltonian Monte Carlo. 2017.
    """

    num_chains: int
    num_draws: int
    diverging: Tensor
    acceptance: Tensor
    step_size: Tensor
    r_hat: dict[str, Tensor]
    ess: dict[str, Tensor]
    statistics: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        values: Mapping[str, Tensor],
        diverging: Tensor,
        acceptance: Tensor,
        step_size: Tensor,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Chains:
        """Summarise draws, (chain, draw, *shape) by site."""
        count, draws = diverging.shape
        enough = draws >= 4
        unknown = {k: torch.full(v.shape[2:], torch.nan) for k, v in values.items()}
        r_hat = {k: rank_normalised_r_hat(v) for k, v in values.items()} if enough else unknown
        ess = {k: effective_sample_size(v) for k, v in values.items()} if enough else dict(unknown)
        return cls(count, draws, diverging, acceptance, step_size, r_hat, ess, dict(statistics or {}))

    @property
    def largest_r_hat(self) -> float:
        """Largest R-hat of any entry of any site."""
        return max(float(value.nan_to_num(0.0).max()) for value in self.r_hat.values())

    @property
    def smallest_ess(self) -> float:
        """Smallest effective number of draws of any entry of any site."""
        return min(float(value.nan_to_num(torch.inf).min()) for value in self.ess.values())

    def __repr__(self) -> str:
        return (
            f"Chains({self.num_chains} of {self.num_draws} draws, {int(self.diverging.sum())} diverging, R-hat up to "
            f"{self.largest_r_hat:.3f}, effective draws at least {self.smallest_ess:.0f})"
        )


class StoredDraws(nn.Module):
    """Draws of parameters, and of the local latents of known sequences or a guide for these, as a Pyro program.

    Asked for S draws, it hands out S of the stored ones, evenly spread over all chains, in order, parameters and
    latents of one draw together. It has no density: what needs one (a bound, importance weights of local latents) is
    refused.

    Args:
        sites: the model's local latent sites.
        values: per site all draws of all chains, chain after chain: (draw, *shape) for a parameter,
            (draw, sequence, time, dim) or (draw, sequence, dim) for a local latent.
        keys: of the sequences whose latents are stored.
        guide: of the local latents alone, instead.
        conditioned_on: the sequences that the draws were conditioned on.
        learned_from: the sequences from which what has no prior was learned before; none where it was taken as it is.
    """

    def __init__(
        self,
        sites: list[LatentSite],
        values: Mapping[str, Tensor],
        keys: tuple[SequenceKey, ...],
        guide: Guide | None = None,
        *,
        conditioned_on: frozenset[SequenceKey] = frozenset(),
        learned_from: frozenset[SequenceKey] = frozenset(),
    ) -> None:
        super().__init__()
        self.sites, self.keys = sites, keys
        self.conditioned_on, self.learned_from = conditioned_on, learned_from
        self.parameter_sites = _StoredParameters({k: v for k, v in values.items() if k not in LATENTS}, values)
        self.local_values = nn.ParameterDict(
            {k: nn.Parameter(v, requires_grad=False) for k, v in values.items() if k in LATENTS}
        )
        self.guide = guide
        self._rows = {key: row for row, key in enumerate(keys)}

    @property
    def encoder(self) -> Encoder | None:
        """The encoder of the guide of the local latents, if there is one."""
        return None if self.guide is None else self.guide.encoder

    @property
    def local(self) -> Family:
        """The family of the local latents.

        Raises:
            ValueError: the latents themselves were drawn.
        """
        return self._guide().local

    def variational_parameters(self, data: SequenceData) -> dict[str, Tensor]:
        """Return the variational parameters of the local latents of each sequence; see `Guide.variational_parameters`.

        Raises:
            ValueError: the latents themselves were drawn.
        """
        return self._guide().variational_parameters(data)

    def _guide(self) -> Guide:
        if self.guide is None:
            raise ValueError(
                "draws of NUTS have no family of local latents, which particle filters with their proposals, and "
                'windows, need: use sample(..., given=result, sites="parameters"), whose local latents keep the guide '
                "of the result; a filter with SMC(proposal='prior') needs none"
            )
        return self.guide

    def forward(self, data: SequenceData) -> dict[str, Tensor]:
        """Run the Pyro program on sequences that are known.

        Raises:
            ValueError: latents were stored for other sequences only.
        """
        values = self.parameter_sites()
        if self.guide is not None:
            return values | self.guide(data)
        if not self.sites:
            return values
        if unknown := [key for key in data.keys if key not in self._rows]:
            raise ValueError(
                f"sample: {len(unknown)} of {len(data)} sequences were not among those sampled, and their latents are "
                'unknown; sample(..., given=result, sites="parameters") keeps the guide of the result for latents'
            )
        rows = torch.tensor([self._rows[key] for key in data.keys], device=data.device)
        with sequence_plate(data):
            for site in self.sites:
                drawn = self.local_values[site.name][values[JOINT], rows]
                drawn = drawn[..., : data.num_steps, :] if site.along_time else drawn
                values[site.name] = pyro.sample(site.name, _Known(drawn, 2 if site.along_time else 1))
        return values

    def config(self) -> NoReturn:
        """Refuse: there are no hyper-parameters from which draws could be made again."""
        raise ValueError("draws of NUTS are no fitted guide; keep them by posterior.to_arviz().to_netcdf(path)")

    def __repr__(self) -> str:
        return f"StoredDraws({self.parameter_sites.number} draws)"


class _StoredParameters(nn.Module):
    """Draws of the parameters, and which of them are handed out: the site that all others follow."""

    def __init__(self, parameters: Mapping[str, Tensor], all_values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.number = len(next(iter(all_values.values())))
        self.names = list(parameters)
        for index, value in enumerate(parameters.values()):
            self.register_buffer(f"values_{index}", value)

    def forward(self) -> dict[str, Tensor]:
        rows = pyro.sample(JOINT, _Rows(self.number), infer={"is_auxiliary": True})
        values = {JOINT: rows}
        for index, name in enumerate(self.names):
            drawn = self.get_buffer(f"values_{index}")[rows.to(self.get_buffer(f"values_{index}").device)]
            values[name] = pyro.sample(name, dist.Delta(drawn, event_dim=drawn.dim() - rows.dim()))
        return values


class _Rows(TorchDistribution):
    """Rows of a table of `number` draws, evenly spread from a random start, in order: all where all are asked for."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.nonnegative_integer

    def __init__(self, number: int, batch_shape: torch.Size = torch.Size()) -> None:  # noqa: B008
        self.number = number
        super().__init__(batch_shape, torch.Size(), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> _Rows:
        return _Rows(self.number, torch.Size(batch_shape))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = torch.Size(sample_shape) + self.batch_shape
        places = (torch.rand((), dtype=torch.float64) + torch.arange(shape.numel())) * self.number / shape.numel()
        return places.long().clamp_max(self.number - 1).reshape(shape)

    def log_prob(self, value: Tensor) -> NoReturn:
        raise ValueError(
            "draws of NUTS have no density, which the KL divergence of parameters needs: `evidence` and "
            "`log_likelihood` average over the draws instead, and `chains` says how good they are"
        )


class _Known(TorchDistribution):
    """Values of local latents, without a density."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(self, value: Tensor, event_dim: int) -> None:
        self.value, self.dim = value, event_dim
        split = value.dim() - event_dim
        super().__init__(value.shape[:split], value.shape[split:], validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> _Known:
        return _Known(self.value.expand(torch.Size(batch_shape) + self.event_shape), self.dim)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.value.expand(torch.Size(sample_shape) + self.value.shape)

    def log_prob(self, value: Tensor) -> NoReturn:
        raise ValueError(
            "draws of NUTS have no density, which bounds and importance weights of local latents need: use "
            'sample(..., given=result, sites="parameters"), whose local latents keep the guide of the result'
        )
