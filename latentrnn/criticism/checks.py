"""Predictive checks: does the model, left to itself, produce data like the data?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from latentrnn.criticism.discrepancies import Discrepancy, Row, discrepancy, global_p_value, rows
from latentrnn.criticism.statistics import (
    CELLS,
    KINDS,
    Kind,
    Statistic,
    StatisticFunction,
    default_statistics,
    response,
    response_cells,
)
from latentrnn.inference.posterior.priors.predictive import PriorPredictive
from latentrnn.plotting.checks import predictive_check as draw_predictive_check
from latentrnn.support.arguments import check_choice, check_integer, check_kind_of, check_number, check_selection
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

MOST_FEATURES = 4  # of covariates together, by each of which means are compared


@dataclass(frozen=True)
class PredictiveCheck(ShownInNotebooks):
    """Outcome of a predictive check; `print(check)` shows the table.

    Attributes:
        discrepancies: one per head and statistic, with all replicate values.
        global_p_value: probability, were the model right, of a table at least this surprising.
        level: level of `flagged`.
        num_samples: replicates.
        replicates: how they were drawn, in words.
        non_finite: per head, the share of replicates with a value that is not a number or infinite.
    """

    discrepancies: tuple[Discrepancy, ...]
    global_p_value: float
    level: float
    num_samples: int
    replicates: str
    non_finite: Mapping[str, float] = field(default_factory=dict)

    @property
    def p_values(self) -> dict[str, dict[str, Tensor]]:
        """Two-sided predictive p-values, `p_values[head][statistic]` with one entry per channel (or label)."""
        nested: dict[str, dict[str, Tensor]] = {}
        for item in self.discrepancies:
            nested.setdefault(item.head, {})[item.statistic] = item.p_value
        return nested

    @property
    def table(self) -> list[Row]:
        """One row per head, statistic and entry: observed, replicate mean, 90% interval, p-value, flagged."""
        return [row for item in self.discrepancies for row in rows(item, self._improbable, self.level)]

    @property
    def flagged(self) -> list[Row]:
        """The rows that the model fails to reproduce.

        A row is flagged when its own p-value is below `level` and the table as a whole is improbable
        (`global_p_value` below `level`). If the model is right, the probability that anything at all
        is flagged is therefore at most `level`, however many statistics and channels there are. Once a model is
        found wrong somewhere, each of its right rows has that probability of being flagged along.
        """
        return [row for row in self.table if row["flagged"]]

    @property
    def can_flag(self) -> bool:
        """Whether there are enough replicates for a p-value below `level` to be possible."""
        return 2 / (self.num_samples + 1) < self.level

    @property
    def _improbable(self) -> bool:
        return self.global_p_value < self.level

    def to_dataframe(self) -> pandas.DataFrame:
        """The table as a pandas frame."""
        import pandas

        return pandas.DataFrame(self.table)

    def plot(self, *, head: str | None = None, axes: Sequence[Axes] | None = None) -> list[Axes]:
        """Draw replicates against observation, see `latentrnn.plotting.predictive_check`."""
        return draw_predictive_check(self, head=head, axes=axes)

    def __repr__(self) -> str:
        heads = ", ".join(map(repr, self.p_values))
        found = f"{len(self.flagged)} flagged" if self.can_flag else "too few to flag anything"
        return (
            f"PredictiveCheck({len(self.discrepancies)} statistics of {heads}; {self.num_samples} replicates, "
            f"global p-value {self.global_p_value:.3g}, {found} at {self.level:g})"
        )

    def __str__(self) -> str:
        lines = [
            f"predictive check, {self.num_samples} replicates, {self.replicates}",
            f"{'head':<12} {'statistic':<26} {'entry':<12} {'observed':>10} {'replicates':>10} "
            f"{'90% interval':>23} {'p':>7}",
        ]
        for item in self.discrepancies:
            entries = rows(item, self._improbable, self.level)
            if not entries:
                continue
            row = min(entries, key=lambda row: row["p_value"])
            failing = sum(row["flagged"] for row in entries)
            more = f"  ({failing} of {len(entries)} flagged)" if failing else ""
            interval = f"{row['lower']:.4g} to {row['upper']:.4g}"
            lines.append(
                f"{item.head[:12]:<12} {item.statistic[:26]:<26} {row['entry'][:12]:<12} {row['observed']:>10.4g} "
                f"{row['replicate_mean']:>10.4g} {interval:>23} {row['p_value']:>7.3f}{more}"
            )
        lines.append("each line shows the entry with the smallest p-value")
        lines += [
            f"{head}: {share:.0%} of the replicates left the range of numbers"
            for head, share in self.non_finite.items()
            if share
        ]
        if self.can_flag:
            lines.append(f"whole table: p = {self.global_p_value:.3f}; flagged at {self.level:g}: {len(self.flagged)}")
        else:
            needed = math.ceil(2 / self.level)
            lines.append(f"flagged at {self.level:g}: cannot tell with fewer than num_samples={needed} replicates")
        return "\n".join(lines)


def posterior_predictive_check(
    posterior: Any,
    *,
    heads: Sequence[str] | None = None,
    statistics: Mapping[str, StatisticFunction] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    num_samples: int = 200,
    latents: Literal["posterior", "prior"] = "posterior",
    level: float = 0.01,
) -> PredictiveCheck:
    """Compare statistics of the data with those of free-running replicates.

    Replicates y_rep ~ p(y_rep | data) have the shape of the data and its mask, so that padding, missing
    and unscored entries count in neither. Heads with feedback are fed their own replicated past. For a
    discrepancy T the two-sided p-value, with n replicates and ties on both sides, is

        p = min(1, 2 min(1 + #{T_rep <= T_obs}, 1 + #{T_rep >= T_obs}) / (n + 1))

    An undefined T (say, the intervals of a silent channel) ranks above every number, in the data as in the
    replicates; replicates that explode count as 1e30. p is therefore always a number. With
    `latents="posterior"` the latents have seen these very data, which makes p conservative;
    `latents="prior"` replicates new sequences with the same covariates.

    Args:
        posterior: a `Posterior`; its seed decides the draws.
        heads: names of the heads to check; default all that the model has.
        statistics: `{"name": function}` with `function(values, mask)` from
            `(*sample, sequence, time, channel)` to `(*sample, ...)`; default by kind of head, and, where the data have
            four features of covariates or fewer, the head's mean by thirds of each and of its last ten steps.
        kinds: `{"head": "count" | "continuous" | "categorical"}` where the values do not say it.
        num_samples: replicates; 200 is the least that can flag anything at level 0.01.
        latents: from their posterior, or afresh from the prior.
        level: level at which rows are flagged, see `PredictiveCheck.flagged`.

    Returns:
        A `PredictiveCheck`.

    Raises:
        ValueError: for an unknown head, or a statistic that returns the wrong shape.

    References:
        A. Gelman, X.-L. Meng, H. Stern (1996), Posterior predictive assessment of model fitness via
        realized discrepancies, Statistica Sinica.
    """
    words = f"free-running, latents from the {latents}"
    return _check(posterior, heads, statistics, kinds, num_samples, level, words, {"latents": latents})


def teacher_forced_check(
    posterior: Any,
    *,
    heads: Sequence[str] | None = None,
    statistics: Mapping[str, StatisticFunction] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    num_samples: int = 200,
    level: float = 0.01,
) -> PredictiveCheck:
    """Like `posterior_predictive_check`, but heads with feedback are fed the recorded past.

    Use it to look at one step at a time. It cannot show an unstable feedback: a model that explodes when
    left to itself looks fine here, because the recording keeps pulling it back. Arguments as there.
    """
    words = "teacher-forced: fed the recorded past, says nothing about stability"
    return _check(posterior, heads, statistics, kinds, num_samples, level, words, {"feedback": "recorded"})


def prior_predictive_check(
    prior: PriorPredictive,
    *,
    heads: Sequence[str] | None = None,
    statistics: Mapping[str, StatisticFunction] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    level: float = 0.01,
) -> PredictiveCheck:
    """Compare statistics of the data with those of what the model says before it has seen them.

    A prior should make data like the observed ones and much else: a small p-value says that it makes none like them,
    and a p-value near one that it makes little else. Nothing was fitted, so that p-values are calibrated where priors
    are what one believes; what has no prior is as `prior.conditional_on` says. `lr.check_priors` looks for errors of
    orders of magnitude alone.

    Args:
        prior: what `model.prior_predictive(data, num_samples)` returned, all of whose draws are compared.
        heads, statistics, kinds, level: see `posterior_predictive_check`.

    Returns:
        A `PredictiveCheck`.

    Raises:
        ValueError: for an unknown head, or a statistic that returns the wrong shape.
        TypeError: for something else than such draws.

    References:
        Box. Sampling and Bayes' inference in scientific modelling and robustness. 1980.
        Gabry, Simpson, Vehtari, Betancourt, Gelman. Visualization in Bayesian workflow. 2019.
    """
    check_kind_of("prior_predictive_check", "prior", prior, PriorPredictive)
    words = "free-running, parameters and latents from the prior"
    return _check(prior, heads, statistics, kinds, prior.num_samples, level, words, {})


def _check(
    posterior: Any,
    heads: Sequence[str] | None,
    statistics: Mapping[str, StatisticFunction] | None,
    kinds: Mapping[str, Kind] | None,
    num_samples: int,
    level: float,
    words: str,
    options: Mapping[str, Any],
) -> PredictiveCheck:
    if not hasattr(posterior, "predictive") or not hasattr(posterior, "data"):
        raise TypeError(f"check: posterior must be a Posterior; found {type(posterior).__name__}")
    data = posterior.data
    modelled = [name for name in data.observations if name in posterior.model.observations]
    names = modelled if heads is None else check_selection("check", "heads", heads, modelled, "head")
    kinds = _checked_kinds(kinds, modelled)
    _check_statistics(statistics)
    num_samples = check_integer("check", "num_samples", num_samples, least=2)
    level = check_number("check", "level", level, above=0, below=1)
    replicates = posterior.predictive(num_samples, heads=names, **options)
    discrepancies: list[Discrepancy] = []
    non_finite: dict[str, float] = {}
    for name in names:
        observed, mask, replicated = data.observations[name], data.scored(name), replicates[name]
        if observed.dim() == 2:  # one value per sequence: a single step
            observed, mask, replicated = observed[:, None], mask[:, None], replicated[:, :, None]
        if not mask.any():
            continue
        labels = tuple(data.spec.heads[name].channel_names)
        chosen = (
            (
                *default_statistics(observed, mask, kind=kinds.get(name), dt=_seconds_per_frame(data.spec, name)),
                *_responses(data, name, kinds.get(name)),
            )
            if statistics is None
            else tuple(Statistic(label, function) for label, function in statistics.items())
        )
        exploded = ~(torch.isfinite(replicated) | ~mask).flatten(1).all(1)
        non_finite[name] = float(exploded.to(torch.float64).mean())
        discrepancies += [discrepancy(name, item, observed, replicated, mask, labels) for item in chosen]
    if not discrepancies:
        raise ValueError(f"heads: nothing to check, no scored entry in {names}")
    return PredictiveCheck(tuple(discrepancies), global_p_value(discrepancies), level, num_samples, words, non_finite)


def _responses(data: Any, head: str, kind: Kind | None) -> tuple[Statistic, ...]:
    """How a head answers to each covariate, where these are few, and along the steps at which it is recorded."""
    per_step = [name for name, values in data.covariates.items() if values.dim() == 3]
    features = [(name, k) for name in per_step for k in range(data.covariates[name].shape[-1])]
    if kind == "categorical" or len(features) > MOST_FEATURES or data.observations[head].dim() == 2:
        return ()
    if data.spec.heads[head].clock != 1:
        return ()
    found = []
    for name, feature in features:
        cells = response_cells(data.covariates[name][..., feature], data.valid)
        label = name if data.covariates[name].shape[-1] == 1 else data.spec.covariates[name].feature_names[feature]
        found.append(Statistic(f"mean by {label}", partial(response, cells=cells), labels=CELLS))
    return tuple(found)


def _checked_kinds(kinds: Any, modelled: Sequence[str]) -> Mapping[str, Kind]:
    if kinds is None:
        return {}
    if not isinstance(kinds, Mapping):
        raise TypeError(f"check: kinds must be a dict of head to kind; found {type(kinds).__name__}")
    check_selection("check", "kinds", kinds, modelled, "head")
    for name, kind in kinds.items():
        check_choice("check", f"kinds[{name!r}]", kind, KINDS)
    return kinds


def _check_statistics(statistics: Any) -> None:
    if statistics is None:
        return
    if not isinstance(statistics, Mapping) or not all(callable(function) for function in statistics.values()):
        raise TypeError(f"check: statistics must be a dict of name to function; found {statistics!r:.80}")


def _seconds_per_frame(spec: Any, head: str) -> float | None:
    return None if spec.dt is None else spec.dt * spec.heads[head].clock
