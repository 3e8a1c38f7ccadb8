"""Calibration of spike trains: the time-rescaling test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentrnn.criticism.spikes import EventFamily, check_events, poisson_log_prob
from latentrnn.plotting.calibration import time_rescaling as draw_time_rescaling
from latentrnn.support.arguments import check_choice, check_seed
from latentrnn.support.isolation import generator as generator_of
from latentrnn.support.isolation import isolated
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

SAME = 1e-6  # relative difference of means, or of log-probabilities, that are taken as one


@dataclass(frozen=True)
class TimeRescaling(ShownInNotebooks):
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
        monte_carlo_error: by how much one Monte Carlo error of the rates moves z, averaged over a channel's intervals,
            (channel,); to be held against `bound_95`. None where the rates are exact.
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
    monte_carlo_error: Tensor | None = None

    @property
    def within_95(self) -> Tensor:
        """Channels whose distance is within the 95% bound (False without intervals)."""
        return self.statistic <= self.bound_95

    @property
    def within_99(self) -> Tensor:
        """Channels whose distance is within the 99% bound (False without intervals)."""
        return self.statistic <= self.bound_99

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each channel: intervals, distance, its bounds and p-value, serial correlation, merged spikes."""
        import pandas

        names = ("num_intervals", "statistic", "bound_95", "bound_99", "p_value", "serial_correlation", "num_merged")
        return pandas.DataFrame({name: getattr(self, name).cpu().numpy() for name in names}).rename_axis("channel")

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the Kolmogorov-Smirnov plot, see `latentrnn.plotting.time_rescaling`."""
        return draw_time_rescaling(self, ax=ax)

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
        if self.monte_carlo_error is not None:
            largest = float(self.monte_carlo_error.nan_to_num(0.0).max())
            lines.append(f"Monte Carlo error of the rates: it moves z by {largest:.2g} on average at most")
            if bool((self.monte_carlo_error > self.bound_95 / 2).any()):
                lines.append("which may decide the test: use one_step_ahead with more particles")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"TimeRescaling({self.head!r}, {int(self.num_intervals.sum())} intervals of {len(self.rescaled)} channels)"
        )


@isolated
def time_rescaling(one_step_ahead: Any, *, family: EventFamily | None = None, seed: int = 0) -> TimeRescaling:
    """Test one-step-ahead rates of events by rescaling time, with the correction for discrete time.

    With p_k the probability of any event in bin k given the past and q_k = -log(1 - p_k), the interval
    between an event and the next one in bin k + L becomes

        xi = q_{k+1} + ... + q_{k+L-1} + delta,   delta = -log(1 - r (1 - exp(-q_{k+L}))),   r ~ Uniform(0, 1)
        z = 1 - exp(-xi)  ~  Uniform(0, 1)   if the p_k are right, whatever the bin width.

    q is -log p(y = 0 | past), whatever the family: not the expected count, which it falls short of where rates are
    random or counts over-dispersed. `Posterior.one_step_ahead` has it (`log_prob_zero`), from particles with its Monte
    Carlo error. A bin with several events is one (`num_merged` counts the others): a bin holds "at least one event",
    and nothing within it is tested. Bins that are not scored are skipped, and sequences are joined end to end, which
    keeps the intervals exponential and avoids the bias of dropping, in each short sequence, the interval that its end
    cuts; only the stretch after a channel's last event is left out.

    A result without `log_prob_zero` says it itself in empty bins. In the others it follows where every bin's density is
    that of a Poisson or Bernoulli variable with this mean, or else from empty bins of the same channel with the same
    mean, if these agree on it; otherwise the result is refused.

    Args:
        one_step_ahead: a `OneStepAhead` of a head that counts events: `log_prob`, `mean` (expected count per bin),
            `observed` and `scored`, all `(sequence, time, channel)`.
        family: "poisson" or "bernoulli": bins with events take q from the mean by this family; default: see above.
        seed: of the randomisation within bins (a generator of its own).

    Raises:
        TypeError: something else.
        ValueError: for a head that does not count events, a density joint over channels, or a result that does not
            tell how probable it was that nothing happens.

    References:
        R. Haslinger, G. Pipa, E. Brown (2010), Discrete time rescaling theorem: determining goodness of fit
        for discrete time statistical models of neural spiking, Neural Computation.
        E. Brown, R. Barbieri, V. Ventura, R. Kass, L. Frank (2002), The time-rescaling theorem and its
        application to neural spike train data analysis, Neural Computation.
    """
    check_events(one_step_ahead)
    seed = check_seed("time_rescaling", seed)
    if family is not None:
        check_choice("time_rescaling", "family", family, ("poisson", "bernoulli"))
    scored, observed = one_step_ahead.scored, one_step_ahead.observed
    event = observed > 0
    log_zero = torch.where(event, _log_zero(one_step_ahead, family), one_step_ahead.log_prob.to(torch.float64))
    hazard = (-log_zero).clamp(0.0, 50.0)  # exp(-50) is nothing; infinity would be subtracted from itself
    noise = _noise(one_step_ahead, event)
    generator = generator_of(seed)
    rescaled = tuple(
        rescaled_intervals(hazard[..., c][scored[..., c]], event[..., c][scored[..., c]], generator)
        for c in range(observed.shape[-1])
    )
    merged = (observed - 1).clamp(min=0).masked_fill(~scored, 0).sum((0, 1)).to(torch.long)
    moved = None if noise is None else torch.tensor(
        [_moved(hazard[..., c][scored[..., c]], event[..., c][scored[..., c]], noise[..., c][scored[..., c]])
         for c in range(observed.shape[-1])], dtype=torch.float64
    )  # fmt: skip
    return _summary(one_step_ahead.head, rescaled, merged, seed, moved)


def _log_zero(item: Any, family: EventFamily | None) -> Tensor:
    """Return log p(y = 0 | past), nats, where events were observed; elsewhere it is of no account."""
    average = item.mean.to(torch.float64)
    event = item.scored & (item.observed > 0)
    if family == "bernoulli" and bool((average[item.scored] > 1).any()):
        raise ValueError(f"family: 'bernoulli' needs probabilities, found {float(average[item.scored].max()):.3g}")
    given = getattr(item, "log_prob_zero", None)
    if family is None and given is not None:
        return given.to(torch.float64)
    if family is None:
        family = _family_of(item, average)
    if family is not None:
        return -average if family == "poisson" else torch.log1p(-average.clamp(max=1.0))
    found = torch.zeros_like(average)
    for channel in range(average.shape[-1]):
        mean, log_prob = average[..., channel], item.log_prob[..., channel].to(torch.float64)
        empty = (item.scored & (item.observed == 0))[..., channel]
        wanted = mean[event[..., channel]]
        if not wanted.numel():
            continue
        known, order = mean[empty].sort()
        values = log_prob[empty][order]
        low = torch.searchsorted(known, wanted * (1 - SAME)) if len(known) else torch.zeros_like(wanted).long()
        high = torch.searchsorted(known, wanted * (1 + SAME), right=True)
        found_here = torch.full_like(wanted, torch.nan)
        for index, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            same = values[first:last]
            if len(same) and float(same.max() - same.min()) <= SAME * (1 + float(same.abs().max())):
                found_here[index] = same[0]
        if bool(found_here.isnan().any()):
            raise ValueError(
                f"one_step_ahead of {item.head!r}: expected log_prob_zero, the log-probability of no event, which "
                "neither the mean nor empty bins tell here; use Posterior.one_step_ahead, or give it"
            )
        here = found[..., channel]
        here[event[..., channel]] = found_here
    return found


def _family_of(item: Any, average: Tensor) -> EventFamily | None:
    """Return the family with one number per bin whose density every scored bin has, if any."""
    counts, log_prob = item.observed.to(torch.float64), item.log_prob.to(torch.float64)
    poisson = poisson_log_prob(average.clamp(min=0), counts)
    bernoulli = torch.xlogy(counts, average) + torch.special.xlog1py(1 - counts, -average.clamp(max=1.0))
    families: tuple[tuple[EventFamily, Tensor], ...] = (("poisson", poisson), ("bernoulli", bernoulli))
    for name, expected in families:
        if name == "bernoulli" and bool((counts[item.scored] > 1).any()):
            continue
        close = torch.isclose(log_prob, expected, rtol=1e-4, atol=1e-5)  # float32 log-probabilities
        if bool(close[item.scored].all()):
            return name
    return None


def _noise(item: Any, event: Tensor) -> Tensor | None:
    """Return the Monte Carlo error of q in every bin, nats; None where there is none."""
    error, at_event = item.standard_error, getattr(item, "standard_error_zero", None)
    if error is None:
        return None
    return torch.where(event, error if at_event is None else at_event, error).to(torch.float64)


def _moved(hazard: Tensor, event: Tensor, noise: Tensor) -> float:
    """Return by how much one Monte Carlo error moves z, averaged over intervals; errors within one add up."""
    position = event.nonzero()[:, 0]
    if not position.numel():
        return float("nan")
    through, errors = hazard.cumsum(0)[position], noise.cumsum(0)[position]
    before = torch.zeros(1, dtype=torch.float64)
    surprise, error = through.diff(prepend=before), errors.diff(prepend=before)
    return float(((-surprise).exp() * error).mean())


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


def _summary(head: str, rescaled: tuple[Tensor, ...], merged: Tensor, seed: int, moved: Tensor | None) -> TimeRescaling:
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
        monte_carlo_error=moved,
    )


def _serial_correlation(z: Tensor) -> float:
    if z.numel() < 3:
        return float("nan")
    scores = torch.special.ndtri(z.clamp(1e-12, 1 - 1e-12))
    centred = scores - scores.mean()
    power = float(centred.square().sum())
    return float((centred[:-1] * centred[1:]).sum()) / power if power > 0 else float("nan")
