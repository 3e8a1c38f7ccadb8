"""What a family over local latents is, and the Normal heads that families are made of."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.data import SequenceData
from latentrnn.inference.guides.encoders import Encoding
from latentrnn.models.component import Component
from latentrnn.models.latents import LatentSite

START_SCALE = 0.3  # neither the prior's noise nor certainty
SMALLEST_SCALE = 1e-5

Draw = Callable[[str, Any], Tensor]  # what turns a site's name and distribution into a value


def sample_site(name: str, distribution: Any) -> Tensor:
    """Draw a site with `pyro.sample`."""
    return pyro.sample(name, distribution)


class Family(Component):
    """q(latents | data) of a batch, up to the parameters that each sequence brings.

    A family works in two stages, so that these parameters can come from an encoder or be optimised sequence by
    sequence: `variational_parameters` maps an encoding to tensors that belong to one sequence each, `sample` turns them
    into Pyro sites. In padding every trajectory is standard normal, as in the model.
    """

    amortised = True  # whether the parameters come from an encoder alone
    stepwise = False  # whether a step given the one before needs the parameters of that step alone
    continues = False  # whether `sample` goes on from the window before, where the data are one of longer sequences

    def build(self, sites: Sequence[LatentSite], step_size: int, summary_size: int) -> None:
        """Create the parameters for these sites and for an encoder's features of steps and of sequences."""
        self.sites = list(sites)
        self.trajectories = [site for site in sites if site.along_time]
        self.starts = [site for site in sites if not site.along_time]
        self._build(step_size, summary_size)

    @abstractmethod
    def _build(self, step_size: int, summary_size: int) -> None:
        """Create the parameters; the sites are known by now."""

    def initialise(self, data: SequenceData) -> None:
        """Take what it needs from the training data."""

    @abstractmethod
    def variational_parameters(self, encoding: Encoding, data: SequenceData | None) -> dict[str, Tensor]:
        """Return by site (sequence, time, n) or (sequence, n): all that `sample` knows of the sequences."""

    @abstractmethod
    def sample(self, parameters: dict[str, Tensor], data: SequenceData, draw: Draw = sample_site) -> dict[str, Tensor]:
        """Draw every site; call inside the plate.

        Where `data.carry_in` is not None, they are a window that goes on from there: the sites before the first step
        are not drawn.
        """

    def proposals(self, parameters: dict[str, Tensor], data: SequenceData) -> Proposals:
        """Return the same distribution step by step, in the order of time.

        Raises:
            ValueError: this family has no such form.
        """
        raise ValueError(f"{type(self).__name__} cannot be drawn step by step; use MeanField, Markov or GaussianChain")

    def filtered(self, parameters: dict[str, Tensor], memory: Tensor | None) -> Filtered:
        """Return the moments of the last step of a sequence that ends here, from its own parameters and a memory.

        Args:
            parameters: of this step, (sequence, 1, n), and of the starts.
            memory: what the step before returned, None at the first.

        Raises:
            ValueError: this family has no such moments.
        """
        raise ValueError(
            f"{type(self).__name__} has no moments of a step in closed form; give OnlineFilter a number of particles, "
            "or use MeanField or GaussianChain"
        )


class Filtered(NamedTuple):
    """What a family says of the present step when no later one is known.

    Attributes:
        mean: of the trajectory's value, (sequence, dim).
        covariance: (sequence, dim, dim).
        starts: means of the sites before the first step, by site; of account at the first step alone.
        memory: what the next step needs.
    """

    mean: Tensor
    covariance: Tensor
    starts: dict[str, Tensor]
    memory: Tensor | None


class Start(NamedTuple):
    """What was drawn before a filter's first step.

    Attributes:
        values: of the sites that lie before the first step.
        first: the trajectory's first value, (*shape, dim), where it had to be drawn first; None otherwise.
        log_density: of all that was drawn, (*shape).
    """

    values: dict[str, Tensor]
    first: Tensor | None
    log_density: Tensor


class Proposals:
    """A family's distribution of a batch, drawn in the order of time; leading sample axes are free."""

    def begin(self, shape: tuple[int, ...]) -> Start:
        """Draw what lies before the first step, leading axes `shape`."""
        distributions = self.start(shape)
        values = {name: distribution.rsample() for name, distribution in distributions.items()}
        log_density = sum(
            (distribution.log_prob(values[name]) for name, distribution in distributions.items()), torch.zeros(())
        )
        return Start(values, None, log_density)

    def density(self, values: dict[str, Tensor], first: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        """Return the log-density of given values of what `begin` draws, leading axes `shape`."""
        distributions = self.start(shape)
        return sum(
            (distribution.log_prob(values[name]) for name, distribution in distributions.items()), torch.zeros(())
        )

    def start(self, shape: tuple[int, ...]) -> dict[str, dist.Distribution]:
        """Return the distributions of the sites that lie before the first step, batch shape `shape`."""
        raise NotImplementedError

    def step(self, t: int, before: Tensor | None, starts: dict[str, Tensor]) -> dist.Distribution:
        """Return that of step t, event (dim,), given the value of the step before (None at the first)."""
        raise NotImplementedError


class NormalHead(nn.Module):
    """Location and scale of a Normal from encoder features."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(size, 2 * dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start near zero with a moderate scale."""
        start_small(self.map)

    def forward(self, features: Tensor) -> Tensor:
        """Return the parameters of a Normal, (..., 2 dim)."""
        return self.map(features)


def start_small(layer: nn.Linear) -> None:
    """Draw small weights from torch's global generator; a bias is zero."""
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.1 / layer.in_features**0.5)
        if layer.bias is not None:
            layer.bias.zero_()


def loc_and_scale(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Return loc and scale, (..., dim) each, of the parameters of a Normal, (..., 2 dim)."""
    loc, raw = parameters.chunk(2, -1)
    return loc, positive(raw, START_SCALE)


def positive(raw: Tensor, start: float) -> Tensor:
    """Return softplus of `raw`, shifted so that zero becomes `start`."""
    return F.softplus(raw + math.log(math.expm1(start))) + SMALLEST_SCALE


class MixedNormal(nn.Module):
    """Normal(loc, (M diag(scale)) (M diag(scale))^T) with a learned unit lower triangular M: noise that correlates."""

    identity: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.zeros(dim, dim))
        self.register_buffer("identity", torch.eye(dim), persistent=False)

    def reset_parameters(self) -> None:
        """Start without correlations."""
        with torch.no_grad():
            self.mixing.zero_()

    def matrix(self) -> Tensor:
        """Return M, (dim, dim)."""
        return torch.tril(self.mixing, -1) + self.identity

    def forward(self, loc: Tensor, scale: Tensor) -> dist.Distribution:
        """Return the distribution, event (dim,)."""
        return dist.MultivariateNormal(loc, scale_tril=self.matrix() * scale.unsqueeze(-2), validate_args=False)


class StartHead(nn.Module):
    """q(g | summary, z_1) of a latent before the first step: a correlated Normal, shifted by B z_1 where there is one.

    In a linear-Gaussian chain p(g | z_1, y_{1:T}) = p(g | z_1) has just this form.
    """

    def __init__(self, site: LatentSite, size: int, first: int | None) -> None:
        super().__init__()
        self.name = site.name
        self.head = NormalHead(size, site.dim)
        self.noise = MixedNormal(site.dim)
        self.first = None if first is None else nn.Parameter(torch.zeros(site.dim, first))

    def reset_parameters(self) -> None:
        """Start without a pull of the first step."""
        if self.first is not None:
            with torch.no_grad():
                self.first.zero_()

    def distribution(self, parameters: Tensor, first: Tensor | None) -> dist.Distribution:
        """Return q(g) given its parameters and, where it is tied to it, the trajectory's first value."""
        loc, scale = loc_and_scale(parameters)
        if self.first is not None:
            assert first is not None
            loc = loc + F.linear(first, self.first)
            scale = scale.expand_as(loc)
        return self.noise(loc, scale)
