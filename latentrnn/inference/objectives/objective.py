"""What a fit maximises: a bound on the log evidence with an estimator of its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.objectives.terms import PARAMETERS, Terms
from latentrnn.support.arguments import check_kind_of, check_number, check_size, is_number, settle

Program = Callable[[SequenceData], Any]


class Step(NamedTuple):
    """What one evaluation of an objective gives.

    Attributes:
        surrogate: its gradient is the estimate; as a number it may mean nothing. Nats, for the whole plate.
        bound: the value of the bound, detached; nats, for the whole plate.
        terms: the terms of the ELBO for the same draws, with true weights; the KL of parameters is the bound's own.
    """

    surrogate: Tensor
    bound: Tensor
    terms: Terms

    @property
    def given_parameters(self) -> Tensor:
        """The bound without the KL of parameters with priors: of sequences that these were not learned from, nats.

        E_q(theta)[log p(y | theta)] and bounds on it. The KL is paid once, by the training data: with few other
        sequences it would outweigh what their density says of the parameters.
        """
        kl = self.terms.kl.get(PARAMETERS)
        return self.bound if kl is None else self.bound + kl.detach()


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
        by_sequence: whether `Terms.by_sequence` is asked for.
    """

    model: Program
    guide: nn.Module
    data: SequenceData
    num_particles: int = 1
    guide_data: SequenceData | None = None
    kl_weight: float = 1.0
    weights: Mapping[str, float] = field(default_factory=dict)
    by_sequence: bool = False


@dataclass(frozen=True)
class KLWarmUp:
    """Weight of the KL term: linear from `start` to one over the first `fraction` of the steps, and one from then on.

    Args:
        fraction: part of the steps, in [0, 1), and of 1,000 in a fit that goes on until it has converged; 0 switches
            the warm-up off.
        start: weight at step 0, in [0, 1].

    Raises:
        ValueError: a fraction that would leave no step at the true ELBO, or a weight out of range.

    References:
        Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio. Generating sentences from a continuous space. 2016.
    """

    fraction: float = 0.2
    start: float = 0.01

    def __post_init__(self) -> None:
        if not is_number(self.fraction) or not 0 <= self.fraction < 1:
            raise ValueError(
                f"KLWarmUp: fraction must be in [0, 1), so that the fit ends at the ELBO; found {self.fraction!r}"
            )
        settle(
            self,
            fraction=float(self.fraction),
            start=check_number("KLWarmUp", "start", self.start, least=0, most=1),
        )

    def weight(self, step: int, steps: int) -> float:
        """Return the weight at `step` of `steps`."""
        last = self.fraction * steps
        return 1.0 if step >= last else self.start + (1 - self.start) * step / last


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
