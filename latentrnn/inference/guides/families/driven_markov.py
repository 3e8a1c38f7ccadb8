"""Innovations drawn step by step, each given the state that those before it have driven."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.inference.guides.families.family import Family, MixedNormal, Proposals
from latentrnn.inference.guides.families.markov import Markov, MarkovPath, MarkovStep
from latentrnn.models.latents import LatentSite

START_MEMORY = 0.9  # as of `Linear`


class DrivenMarkov(Markov):
    """q(u_{1:T}) that is Markov in a state that the draws drive, not in the draws themselves.

        c_t = F c_{t-1} + u_t,   q(u_t | u_{<t}) = q(c_t | c_{t-1}), as of `Markov`

    F is learned. What the data say of an innovation depends on where earlier ones have led: what is not put down to an
    input at one step has to be put down to one beside it. Under a linear transition of the innovations' dimension the
    posterior has this form, F being its matrix; another transition's memory is approximated. Draws lean on all
    earlier ones, so that no particles come from this family.

    Args:
        hidden_size, mixing: see `Markov`.

    Raises:
        ValueError: a size below one, an unknown mixing.

    References:
        Krishnan, Shalit, Sontag. Structured inference networks for nonlinear state space models. 2017.
        Pandarinath et al. Inferring single-trial neural population dynamics using sequential auto-encoders. 2018 (a
        controller that infers inputs from the state that they have led to).
    """

    stepwise = False

    def _make_step(self, site: LatentSite, start: LatentSite | None, step_size: int) -> MarkovStep:
        noise = MixedNormal(site.dim) if self.mixing == "shared" else None
        return _DrivenStep(site, start, self.hidden_size, step_size, noise)

    def _path(
        self, step: MarkovStep, parameters: Tensor, start: Tensor | None, valid: Tensor | None, last: Tensor | None
    ) -> DrivenPath:
        assert isinstance(step, _DrivenStep)
        return DrivenPath(MarkovPath(step, parameters, start, valid, last), step.memory.weight)

    def proposals(self, parameters: dict[str, Tensor], data: SequenceData) -> Proposals:
        return Family.proposals(self, parameters, data)


class _Memory(nn.Module):
    """F, (dim, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with a state that fades slowly."""
        with torch.no_grad():
            self.weight.zero_()
            self.weight.fill_diagonal_(START_MEMORY)


class _DrivenStep(MarkovStep):
    """One step of one site, in the state that its draws drive."""

    def __init__(
        self, site: LatentSite, start: LatentSite | None, hidden_size: int, step_size: int, noise: MixedNormal | None
    ) -> None:
        super().__init__(site, start, hidden_size, step_size, noise)
        self.memory = _Memory(site.dim)


class DrivenPath(TorchDistribution):
    """The distribution of u_{1:T}, where c_{1:T} has a given one; u_t = c_t in padding. Its Jacobian is one.

    Args:
        states: the distribution of c_{1:T}.
        memory: F, (dim, dim).
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, states: MarkovPath, memory: Tensor) -> None:
        self.states, self.memory = states, memory
        self._drawn: list[tuple[Tensor, Tensor]] = []  # the last draw and its c_{1:T}, shared as those of `MarkovPath`
        super().__init__(states.batch_shape, states.event_shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> DrivenPath:
        new = DrivenPath.__new__(DrivenPath)
        new.states, new.memory, new._drawn = self.states.expand(batch_shape), self.memory, self._drawn
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        c = self.states.rsample(sample_shape)
        start = self.states.start.unsqueeze(-2).expand(*c.shape[:-2], 1, -1)
        u = c - F.linear(torch.cat([start, c[..., :-1, :]], -2), self.memory)
        if self.states.valid is not None:
            u = torch.where(self.states.valid.unsqueeze(-1), u, c)
        self._drawn[:] = [(u, c)]
        return u

    def log_prob(self, value: Tensor) -> Tensor:
        return self.states.log_prob(self.driven(value))

    def last(self, value: Tensor) -> Tensor:
        """Return c_T of a path, (..., dim), from which a window goes on."""
        return self.driven(value)[..., -1, :]

    def driven(self, value: Tensor) -> Tensor:
        """Return c_{1:T} of a path u_{1:T}, (..., time, dim) each."""
        if self._drawn and self._drawn[0][0] is value:
            return self._drawn[0][1]
        c, found = self.states.start.expand(*value.shape[:-2], -1), []
        inside = [None] * value.shape[-2] if self.states.valid is None else self.states.valid.unsqueeze(-1).unbind(-2)
        for u_t, inside_t in zip(value.unbind(-2), inside, strict=True):
            moved = F.linear(c, self.memory) + u_t
            c = moved if inside_t is None else torch.where(inside_t, moved, u_t)
            found.append(c)
        return torch.stack(found, -2)
