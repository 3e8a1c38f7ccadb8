"""Probability integral transforms of what was observed: uniform if the predictive distribution is right."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.criticism.elpd import psis_weights
from latentrnn.criticism.held_out import check_posterior
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.plotting.simulation_based import pit as draw_pit
from latentrnn.support.arguments import check_flag, check_seed, check_size
from latentrnn.support.isolation import generator as generator_of
from latentrnn.support.isolation import isolated
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class PIT(ShownInNotebooks):
    """P(replicate <= observed) of every scored entry of a head, randomised within ties.

    Attributes:
        head: the head's name.
        values: (sequence, time, channel), or (sequence, channel); NaN where nothing is scored.
        num_samples: replicates behind each value.
        leave_one_out: whether each sequence was left out of what predicts it.
        pareto_k: of the weights that leave it out, (sequence,); above 0.7 its values are not to be believed.
        seed: of replicates and ties.

    References:
        Czado, Gneiting, Held. Predictive model assessment for count data. 2009.
        Gelfand, Dey, Chang. Model determination using predictive distributions with implementation via sampling-based
        methods. 1992.
    """

    head: str
    values: Tensor
    num_samples: int
    leave_one_out: bool
    pareto_k: Tensor | None
    seed: int

    @property
    def p_value(self) -> Tensor:
        """Kolmogorov-Smirnov p-value of each channel, (channel,), from one entry of every sequence.

        Entries of one sequence depend on each other, those of different sequences do not: so one is drawn from each,
        from `seed`. NaN for a channel with fewer than five sequences.
        """
        from scipy.stats import kstest

        generator = generator_of(self.seed)
        flat = self.values.reshape(len(self.values), -1, self.values.shape[-1])
        lots = torch.rand(flat.shape, generator=generator).masked_fill(flat.isnan(), -1.0)
        chosen = flat.gather(1, lots.argmax(1, keepdim=True)).squeeze(1)
        found = []
        for channel in chosen.T:
            seen = channel[~channel.isnan()]
            found.append(float(kstest(seen.double().numpy(), "uniform").pvalue) if len(seen) >= 5 else float("nan"))
        return torch.tensor(found)

    def __repr__(self) -> str:
        seen = self.values[~self.values.isnan()]
        how = "each sequence left out" if self.leave_one_out else "new sequences"
        average = f", mean {float(seen.mean()):.3f}" if seen.numel() else ""
        shape = tuple(self.values.shape)
        return f"PIT({self.head!r}: {seen.numel()} values in {shape}{average}, {self.num_samples} replicates, {how})"

    def plot(self, *, channel: int | None = None, ax: Axes | None = None) -> Axes:
        """Draw the histogram of the values, see `latentrnn.plotting.pit`."""
        return draw_pit(self, channel=channel, ax=ax)


@isolated
def predictive_pit(
    posterior: Posterior, head: str, *, num_samples: int = 500, leave_one_out: bool = False, seed: int = 0
) -> PIT:
    """Return the probability integral transform of a head's observed entries.

    The predictive distribution is that of a sequence of which nothing is known but its covariates: local latents come
    from the model, parameters with priors from their posterior, and heads that feed back run free. (Latents inferred
    from the very entries that are judged would make any model look calibrated.) So the sequences must be new to the
    posterior, or be left out one at a time: with `leave_one_out` the draws of the parameters are weighted by
    1 / p(y_n | parameters), smoothed (PSIS).

    Args:
        posterior: of the sequences to be judged.
        head: the head's name.
        num_samples: replicates, or draws of the parameters with `leave_one_out`.
        leave_one_out: for sequences that the posterior of the parameters has seen.
        seed: of replicates and ties.

    Raises:
        ValueError: an unknown head, sequences that were fitted though nothing leaves them out, or `leave_one_out`
            where what was learned from the sequences has no posterior (`Posterior.reason_against_loo`).

    References:
        Vehtari, Gelman, Gabry. Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC. 2017.
    """
    check_posterior("predictive_pit", "posterior", posterior)
    num_samples = check_size("predictive_pit", "num_samples", num_samples)
    leave_one_out, seed = (
        check_flag("predictive_pit", "leave_one_out", leave_one_out),
        check_seed("predictive_pit", seed),
    )
    if not isinstance(head, str) or head not in posterior.model.observations:
        raise ValueError(f"unknown head {head!r}; the model has {sorted(posterior.model.observations)}")
    data, used = posterior.data.to("cpu"), None if posterior.result is None else posterior.result.used
    if leave_one_out and (reason := posterior.reason_against_loo(fully_known=True)) is not None:
        raise ValueError(
            f"predictive_pit: leave_one_out weighs draws of parameters, and here that means nothing: {reason}. Use "
            "sequences that were not fitted"
        )
    if not leave_one_out and used is not None:
        seen = sum(any(key.key == other.key and key.overlaps(other) for other in used) for key in data.keys)
        if seen:
            raise ValueError(
                f"predictive_pit: {seen} of {len(data)} sequences took part in the fit; use others, or leave_one_out"
            )
    posterior = posterior.reseeded(seed)
    replicates = posterior.predictive(num_samples, heads=[head], latents="prior")[head]
    weights = torch.full((num_samples, len(data)), 1 / num_samples, dtype=torch.float64)
    pareto_k = None
    if leave_one_out:
        # the draws of the parameters are those of `predictive`, from the same seed
        weights, pareto_k = psis_weights(-posterior.log_likelihood(num_draws=num_samples))
        if (bad := int((pareto_k > 0.7).sum())) > 0:
            warnings.warn(
                f"predictive_pit: Pareto k is above 0.7 for {bad} of {len(data)} sequences, which cannot be left out "
                "by weights; fit without them instead",
                stacklevel=2,
            )
    observed = data.observations[head]
    weights = weights.reshape(num_samples, len(data), *[1] * (observed.dim() - 1))
    # what was observed counts as one more replicate, so that the value is exactly uniform for any number of them
    share = num_samples / (num_samples + 1)
    below = (weights * (replicates < observed)).sum(0) * share
    ties = (weights * (replicates == observed)).sum(0) * share + 1 / (num_samples + 1)
    generator = generator_of(seed)
    values = below + ties * torch.rand(ties.shape, generator=generator, dtype=torch.float64)
    return PIT(head, values.masked_fill(~data.scored(head), torch.nan), num_samples, leave_one_out, pareto_k, seed)
