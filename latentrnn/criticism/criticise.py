"""All checks that apply to a posterior, in one table and in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from latentrnn.criticism.calibration import TimeRescaling, time_rescaling
from latentrnn.criticism.checks import PredictiveCheck, posterior_predictive_check
from latentrnn.criticism.held_out import check_posterior
from latentrnn.criticism.pit import PIT, predictive_pit
from latentrnn.inference.posterior.diagnosis import Diagnosis
from latentrnn.models import DirichletMultinomial, Multinomial
from latentrnn.plotting.axes import grid_of_axes
from latentrnn.support.arguments import check_integer, check_number, check_selection
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

T = TypeVar("T")

INSIDE = (0.05, 0.95)  # of a 90% interval
SHOWN = 3  # rows of a check that are put into words; the table has them all


@dataclass(frozen=True)
class Criticism(ShownInNotebooks):
    """What `criticise` found; `print` shows the words, `to_dataframe` has every number, `plot` the pictures.

    Attributes:
        reconstruction: check of replicates whose latents have seen the data; None where it was skipped.
        rollouts: check of replicates that run free from the prior of the latents, given the covariates alone.
        calibration: per head the probability integral transform of sequences of which only covariates are known.
        time_rescaling: per head that counts events the intervals between these, one step ahead.
        diagnosis: of the posterior itself.
        skipped: what does not apply, and why.
        level: at which something is found.
    """

    reconstruction: PredictiveCheck | None
    rollouts: PredictiveCheck | None
    calibration: dict[str, PIT]
    time_rescaling: dict[str, TimeRescaling]
    diagnosis: Diagnosis | None
    skipped: dict[str, str]
    level: float

    @property
    def findings(self) -> list[str]:
        """What the model gets wrong, a sentence each; empty where nothing was found."""
        found = []
        for name, check in (("reconstructions", self.reconstruction), ("free-running replicates", self.rollouts)):
            found += [] if check is None else _in_words(name, check)
        for head, pit in self.calibration.items():
            wrong = [c for c, p in enumerate(pit.p_value.tolist()) if p < self._corrected(len(pit.p_value))]
            if wrong:
                share = _share_inside(pit)
                found.append(
                    f"{head}: predictive distributions of new sequences are not calibrated ({_channels(wrong)}); 90% "
                    f"intervals hold {share:.0%} of what was observed"
                )
        for head, result in self.time_rescaling.items():
            wrong = [c for c, p in enumerate(result.p_value.tolist()) if p < self._corrected(len(result.p_value))]
            if wrong:
                found.append(f"{head}: intervals between events are not those of its rates, {_channels(wrong)}")
        if self.diagnosis is not None and self.diagnosis.findings != ("good",):
            found.append(f"the posterior itself: {self.diagnosis.verdict}")
        return found

    def to_dataframe(self) -> pandas.DataFrame:
        """Every number of every check, and whether it is flagged, at a level that is that of the whole check.

        Columns: `check`, `head`, `statistic`, `entry`, `observed`, `replicate_mean`, `lower`, `upper`, `p_value`,
        `flagged`.
        """
        import pandas

        rows: list[dict[str, Any]] = []
        for name, check in (("reconstruction", self.reconstruction), ("rollouts", self.rollouts)):
            rows += [] if check is None else [{"check": name, **row} for row in check.table]
        for head, pit in self.calibration.items():
            for channel, p in enumerate(pit.p_value.tolist()):
                seen = pit.values[..., channel][~pit.values[..., channel].isnan()]
                inside = float(((seen > INSIDE[0]) & (seen < INSIDE[1])).double().mean()) if len(seen) else float("nan")
                rows.append({
                    "check": "calibration", "head": head, "statistic": "share in 90% intervals", "entry": str(channel),
                    "observed": inside, "replicate_mean": 0.9, "p_value": p,
                    "flagged": p < self._corrected(len(pit.p_value)),
                })  # fmt: skip
        for head, result in self.time_rescaling.items():
            for channel, p in enumerate(result.p_value.tolist()):
                rows.append({
                    "check": "time rescaling", "head": head, "statistic": "Kolmogorov-Smirnov distance",
                    "entry": str(channel), "observed": float(result.statistic[channel]),
                    "upper": float(result.bound_95[channel]), "p_value": p,
                    "flagged": p < self._corrected(len(result.p_value)),
                })  # fmt: skip
        return pandas.DataFrame(rows)

    def plot(self) -> list[Axes]:
        """Draw the free-running check, calibration and rescaled time, a panel each, in one new figure."""
        panels: list[tuple[Callable[..., Any], dict[str, Any]]] = []
        check = self.rollouts or self.reconstruction
        count = 0 if check is None else len(check.discrepancies)
        panels += [(pit.plot, {}) for pit in self.calibration.values()]
        panels += [(result.plot, {}) for result in self.time_rescaling.values()]
        axes = grid_of_axes(max(count + len(panels), 1))
        if check is not None:
            check.plot(axes=axes[:count])
        for (draw, options), ax in zip(panels, axes[count:], strict=False):
            draw(ax=ax, **options)
        return axes

    def __repr__(self) -> str:
        number = len(self.findings)
        return f"Criticism({', '.join(self._done)}: {number} finding{'s' * (number != 1)})"

    def __str__(self) -> str:
        lines = ["What was found:", *(f"  - {text}" for text in self.findings)]
        if len(lines) == 1:
            lines = [f"Nothing was found at level {self.level:g} by what applies:"]
            lines += [f"  - {name}" for name in self._done]
        if self.skipped:
            lines += ["Not looked at:", *(f"  - {name}: {reason}" for name, reason in self.skipped.items())]
        return "\n".join(lines)

    @property
    def _done(self) -> list[str]:
        names = ("reconstruction", "rollouts", "calibration", "time_rescaling", "diagnosis")
        return [name.replace("_", " ") for name in names if getattr(self, name)]

    def _corrected(self, number: int) -> float:
        """The level of each of several channels, of which none may be found by chance (Bonferroni)."""
        return self.level / max(number, 1)


def criticise(
    posterior: Any, *, heads: Sequence[str] | None = None, num_samples: int = 200, level: float = 0.01
) -> Criticism:
    """Run every check that applies to a posterior, and say in words what was found.

    Can the model make the data it has seen (reconstruction), data like these when it runs free (rollouts), are its
    predictive distributions of new sequences calibrated, do events come when its rates say, and is the posterior
    to be believed at all? What does not apply is named with its reason, and nothing is dropped in silence.

    Args:
        posterior: a `Posterior`, best of sequences that were not fitted, or what answers as one (an ensemble's).
        heads: to look at; default all.
        num_samples: replicates of each check, at least 200 for level 0.01.
        level: probability with which a check finds something where nothing is wrong, corrected for how many statistics
            and channels it looks at.

    Raises:
        TypeError: something else than a posterior.
        ValueError: an unknown head, or a number out of range.

    References:
        J. Gabry, D. Simpson, A. Vehtari, M. Betancourt, A. Gelman (2019), Visualization in Bayesian workflow, Journal
        of the Royal Statistical Society A. A. Gelman et al. (2020), Bayesian workflow.
    """
    check_posterior("criticise", "posterior", posterior)
    modelled = list(posterior.model.observations)
    names = modelled if heads is None else check_selection("criticise", "heads", heads, modelled, "head")
    num_samples = check_integer("criticise", "num_samples", num_samples, least=2)
    level = check_number("criticise", "level", level, above=0, below=1)
    skipped: dict[str, str] = {}

    def tried(what: str, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except ValueError as error:
            skipped[what] = str(error)
            return None

    def check(latents: Any) -> PredictiveCheck:
        return posterior_predictive_check(posterior, heads=names, num_samples=num_samples, latents=latents, level=level)

    reconstruction = tried("reconstruction", lambda: check("posterior"))
    rollouts = tried("free-running replicates", lambda: check("prior"))
    calibration: dict[str, PIT] = {}
    rescaled: dict[str, TimeRescaling] = {}
    for name in names:
        pit = tried(f"calibration of {name}", partial(predictive_pit, posterior, name, num_samples=num_samples))
        if pit is not None:
            calibration[name] = pit
        head = posterior.model.observations[name]
        if isinstance(head, Multinomial | DirichletMultinomial):
            skipped[f"totals of {name}"] = "replicates share them with the data; how many there are needs another head"
        if not head.head.per_step or not head.counts_events:
            continue
        times = tried(f"time rescaling of {name}", partial(_rescaled, posterior, name))
        if times is not None:
            rescaled[name] = times
    diagnosis = tried("diagnosis", posterior.diagnose) if hasattr(posterior, "diagnose") else None
    return Criticism(reconstruction, rollouts, calibration, rescaled, diagnosis, skipped, level)


def _rescaled(posterior: Any, head: str) -> TimeRescaling:
    return time_rescaling(posterior.one_step_ahead(head))


def _in_words(name: str, check: PredictiveCheck) -> list[str]:
    worst = sorted(check.flagged, key=lambda row: float(row["p_value"]))
    sentences = [
        f"{row['head']}, {row['statistic']} of {row['entry']}: {row['observed']:.4g} in the data, "
        f"{row['replicate_mean']:.4g} ({row['lower']:.4g} to {row['upper']:.4g}) in {name}"
        for row in worst[:SHOWN]
    ]
    left = len(worst) - len(sentences)
    return [*sentences, f"{left} more statistics are off in {name}"] if left > 0 else sentences


def _share_inside(pit: PIT) -> float:
    seen = pit.values[~pit.values.isnan()]
    return float(((seen > INSIDE[0]) & (seen < INSIDE[1])).to(torch.float64).mean())


def _channels(numbers: list[int]) -> str:
    several = "channels" if len(numbers) > 1 else "channel"
    shown = ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
    return f"{several} {shown}"
