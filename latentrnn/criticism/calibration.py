"""Calibration of spike trains: the time-rescaling test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentrnn.criticism.spikes import EventFamily, check_events, event_family

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class TimeRescaling:
    """Outcome of the time-rescaling test; one entry per channel.

    Attributes:
        head: name of the head.
        rescaled: per channel, z of its intervals in order of time; uniform on (0, 1) if the rates are right.
        statistic: Kolmogorov-Smirnov distance between z and the uniform, (channel,); NaN without intervals.
        p_value: its exact p-value, (channel,); NaN without intervals.
        bound_95: critical value at 95%, (channel,).
        bound_99: critical value at 99%, (channel,).
        serial_correlation: lag-one correlation of the normal scores of z, (channel,); about
            Normal(0, 1 / intervals) if the rates are right, NaN with fewer than three intervals.
        num_intervals: (channel,).
        num_merged: spikes beyond the first of their bin, which the test cannot see, (channel,).
        seed: seed of the randomisation within bins.
    """

    head: str
    rescaled: tuple[Tensor, ...]
    statistic: Tensor
    p_value: Tensor
    bound_95: Tensor
    bound_99: Tensor
    serial_correlation: Tensor
    num_intervals: Tensor
    num_merged: Tensor
    seed: int

    @property
    def within_95(self) -> Tensor:
        """Channels whose distance is within the 95% bound (False without intervals)."""
        return self.statistic <= self.bound_95

    @property
    def within_99(self) -> Tensor:
        """Channels whose distance is within the 99% bound (False without intervals)."""
        return self.statistic <= self.bound_99

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the Kolmogorov-Smirnov plot, see `latentrnn.plotting.time_rescaling`."""
        from latentrnn.plotting import time_rescaling as draw

        return draw(self, ax=ax)

    def __str__(self) -> str:
        lines = [
            f"time rescaling of {self.head!r} (one step ahead, discrete-time correction)",
            f"{'channel':>7} {'intervals':>9} {'KS':>7} {'95%':>7} {'99%':>7} {'p':>9} {'serial':>7}",
        ]
        for index in range(len(self.rescaled)):
            lines.append(
                f"{index:>7} {int(self.num_intervals[index]):>9} {self.statistic[index]:>7.3f} "
                f"{self.bound_95[index]:>7.3f} {self.bound_99[index]:>7.3f} {self.p_value[index]:>9.2g} "
                f"{self.serial_correlation[index]:>7.3f}"
            )
        if merged := int(self.num_merged.sum()):
            lines.append(f"{merged} spikes shared a bin with an earlier one and were not seen: use smaller bins")
        return "\n".join(lines)


def time_rescaling(one_step_ahead: Any, *, family: EventFamily | None = None, seed: int = 0) -> TimeRescaling:
    """Test one-step-ahead spike rates by rescaling time, with the correction for discrete time.

    With p_k the probability of a spike in bin k given the past and q_k = -log(1 - p_k), the interval
    between a spike and the next one in bin k + L becomes

        xi = q_{k+1} + ... + q_{k+L-1} + delta,   delta = -log(1 - r (1 - exp(-q_{k+L}))),   r ~ Uniform(0, 1)
        z = 1 - exp(-xi)  ~  Uniform(0, 1)   if the p_k are right, whatever the bin width.

    For a Poisson head with expected count m, q = m; for a Bernoulli head with probability m, q = -log(1 - m);
    in empty bins q is the negative log-probability itself, which is exact for a particle filter too.
    A bin with several spikes is one event (`num_merged` counts the others): a bin holds the event "at
    least one spike", and nothing within it is tested. Bins that are not scored are skipped, and sequences
    are joined end to end, which keeps the intervals exponential and avoids the bias of dropping, in each short
    sequence, the interval that its end cuts; only the stretch after a channel's last spike is left out.

    Args:
        one_step_ahead: a `OneStepAhead` of a Poisson or Bernoulli head: `log_prob`, `mean` (expected
            count per bin), `observed` and `scored`, all `(sequence, time, channel)`.
        family: "poisson" or "bernoulli"; default: read off the empty bins.
        seed: of the randomisation within bins (a generator of its own).

    Raises:
        ValueError: for a head that does not hold counts, or with a density joint over channels.

    References:
        R. Haslinger, G. Pipa, E. Brown (2010), Discrete time rescaling theorem: determining goodness of fit
        for discrete time statistical models of neural spiking, Neural Computation.
        E. Brown, R. Barbieri, V. Ventura, R. Kass, L. Frank (2002), The time-rescaling theorem and its
        application to neural spike train data analysis, Neural Computation.
    """
    check_events(one_step_ahead)
    if family is None:
        family = event_family(one_step_ahead)
    elif family not in ("poisson", "bernoulli"):
        raise ValueError(f"family: expected 'poisson' or 'bernoulli', got {family!r}")
    scored, observed = one_step_ahead.scored, one_step_ahead.observed
    event = observed > 0
    average = one_step_ahead.mean.to(torch.float64)
    if family == "bernoulli" and bool((average[scored] > 1).any()):
        raise ValueError(f"family: 'bernoulli' needs probabilities, found {float(average[scored].max()):.3g}")
    at_event = average if family == "poisson" else -torch.log1p(-average.clamp(max=1.0))
    hazard = torch.where(event, at_event, -one_step_ahead.log_prob.to(torch.float64))
    hazard = hazard.clamp(0.0, 50.0)  # exp(-50) is nothing; infinity would be subtracted from itself
    generator = torch.Generator().manual_seed(seed)
    rescaled = tuple(
        rescaled_intervals(hazard[..., c][scored[..., c]], event[..., c][scored[..., c]], generator)
        for c in range(observed.shape[-1])
    )
    merged = (observed - 1).clamp(min=0).masked_fill(~scored, 0).sum((0, 1)).to(torch.long)
    return _summary(one_step_ahead.head, rescaled, merged, seed)


def rescaled_intervals(hazard: Tensor, event: Tensor, generator: torch.Generator) -> Tensor:
    """Rescale the intervals of one spike train; see `time_rescaling`.

    Args:
        hazard: q_k = -log p(no spike in bin k | past), (bin,).
        event: bins with a spike, boolean (bin,).
        generator: of the uniform draws within bins.

    Returns:
        z, (event,): the first interval starts with the first bin.
    """
    hazard = hazard.to(torch.float64)
    position = event.nonzero()[:, 0]
    through = hazard.cumsum(0)[position]
    before = through - hazard[position]  # q summed up to, without, the bin of the event
    since = torch.cat([before[:1], before[1:] - through[:-1]]).clamp(min=0.0)
    uniform = torch.rand(position.numel(), generator=generator, dtype=torch.float64)
    delta = -torch.log1p(uniform * torch.expm1(-hazard[position]))
    return -torch.expm1(-(since + delta))


def _summary(head: str, rescaled: tuple[Tensor, ...], merged: Tensor, seed: int) -> TimeRescaling:
    from scipy.stats import kstwo

    rows = []
    for z in rescaled:
        number = z.numel()
        if number == 0:
            rows.append([float("nan")] * 5)
            continue
        ordered = z.sort().values
        grid = torch.arange(number + 1, dtype=torch.float64) / number
        distance = float(torch.maximum(grid[1:] - ordered, ordered - grid[:-1]).max())
        bounds = [float(kstwo.ppf(level, number)) for level in (0.95, 0.99)]
        rows.append([distance, float(kstwo.sf(distance, number)), *bounds, _serial_correlation(z)])
    distances, p_values, bound_95, bound_99, serial = torch.tensor(rows, dtype=torch.float64).unbind(-1)
    return TimeRescaling(
        head=head,
        rescaled=rescaled,
        statistic=distances,
        p_value=p_values,
        bound_95=bound_95,
        bound_99=bound_99,
        serial_correlation=serial,
        num_intervals=torch.tensor([z.numel() for z in rescaled]),
        num_merged=merged,
        seed=seed,
    )


def _serial_correlation(z: Tensor) -> float:
    if z.numel() < 3:
        return float("nan")
    scores = torch.special.ndtri(z.clamp(1e-12, 1 - 1e-12))
    centred = scores - scores.mean()
    power = float(centred.square().sum())
    return float((centred[:-1] * centred[1:]).sum()) / power if power > 0 else float("nan")
