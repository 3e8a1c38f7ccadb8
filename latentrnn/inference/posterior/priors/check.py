"""Whether priors can have made data of this scale at all: errors of unit and magnitude, before anything is fitted."""

from __future__ import annotations

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.posterior.draws.predictions import draws_from_prior
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler, samples_of
from latentrnn.inference.posterior.priors.predictive import prior_sampler
from latentrnn.inference.posterior.priors.statistics import Reach, reaches
from latentrnn.models.parameters.distributions import described
from latentrnn.models.parameters.network_prior import WeightPrior
from latentrnn.models.parameters.priors import Population
from latentrnn.models.sites import parameter_site
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_flag, check_kind_of, check_seed, check_size
from latentrnn.support.isolation import isolated
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas

DRAWS = 40  # of data from the priors
STARTS = 8  # of data from the parameters' starting values
SEQUENCES, STEPS, FEWEST = 16, 100, 10  # at most of the data, and steps at least
NUMBERS, WEIGHTS = 2**20, 3 * 2**20  # and what draws of a state or of heads, and of parameters, may hold
LEAST_DRAWS = 10  # for their extremes to say something
SHOWN = 6  # priors that a message names
LOOKED_AT = 16  # and that are looked at one by one
CLOSER = 0.5  # what is at most this much of a distance is closer
OFF = "check_priors=False leaves this check out (of fit, Reporting(check_priors=False))"


@dataclass(frozen=True)
class PriorCheck(ShownInNotebooks):
    """Simple statistics of data beside those of draws from the priors; `print(check)` shows the table.

    Attributes:
        table: a row per head and statistic: "head", "statistic", "observed", "lowest" and "highest" of the draws, and
            whether the data lie beyond all of them by orders of magnitude, "flagged".
        priors: for every head with a flagged row, the priors that are behind it, as written.
        num_samples: draws of data.
    """

    table: tuple[dict[str, Any], ...]
    priors: Mapping[str, tuple[str, ...]]
    num_samples: int

    @property
    def flagged(self) -> list[dict[str, Any]]:
        """The rows of what the priors cannot have made."""
        return [row for row in self.table if row["flagged"]]

    def to_dataframe(self) -> pandas.DataFrame:
        """The table as a pandas frame."""
        from latentrnn.support.whole_table import WholeTable

        return WholeTable(self.table)

    def messages(self) -> list[str]:
        """What there is to say, one sentence for every head with a flagged row."""
        return [self._message(head) for head in self.priors]

    def _message(self, head: str) -> str:
        rows = [row for row in self.flagged if row["head"] == head]
        found = "; ".join(
            f"{row['statistic']} {row['observed']:.3g}, in draws {row['lowest']:.3g} to {row['highest']:.3g}"
            for row in rows
        )
        named = self.priors[head]
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        return (
            f"the priors cannot have made the scale of observations[{head!r}] in {self.num_samples} draws: {found}. "
            f"Priors behind it: {', '.join(named[:SHOWN])}{more}; widen or move them, or give the data in the units "
            "they are meant for"
        )

    def __repr__(self) -> str:
        heads = list(dict.fromkeys(row["head"] for row in self.table))
        return f"PriorCheck(heads {heads}, {self.num_samples} draws, {len(self.flagged)} flagged)"

    def __str__(self) -> str:
        lines = [f"data beside {self.num_samples} draws of data from the priors"]
        lines += [f"{'head':<12} {'statistic':<24} {'observed':>10} {'lowest':>10} {'highest':>10}"]
        for row in self.table:
            numbers = " ".join(f"{row[name]:>10.4g}" for name in ("observed", "lowest", "highest"))
            lines.append(f"{row['head'][:12]:<12} {row['statistic']:<24} {numbers}" + "  flagged" * row["flagged"])
        return "\n".join([*lines, *self.messages()])


@isolated
def check_priors(
    model: LatentRNN,
    data: SequenceData | StoredSequences,
    *,
    initialise: bool = True,
    num_samples: int = DRAWS,
    seed: int | None = 0,
) -> PriorCheck:
    """Ask whether the priors can have made data of this scale, and warn where they cannot.

    Mean, standard deviation (within channels), largest absolute value and share of zeros of every head are compared
    with those of data drawn from the priors, in the layout of some sequences and steps of `data`. A statistic is
    flagged where the data lie beyond all draws by a factor of a hundred and more than the draws span (a mean of either
    sign: ten times what they span, and three standard deviations), and at most half as far from data drawn at the
    parameters' starting values, which come from the data: what no prior brought about is not blamed on one. This sees
    errors of units and magnitude; for anything finer look at `prior_predictive_check`. `fit`, `sample` and `laplace` do
    it first, unless they are told not to.

    Args:
        model: the model, of which parameters have priors.
        data: what it is for.
        initialise: whether what has no prior first takes starting values, scales and units from the data, as in a fit;
            False takes the model as it is: as `sample` and `laplace` do, or fitted.
        num_samples: draws, at least 10.
        seed: of the draws, None for a fresh one.

    Returns:
        The table, and the priors behind what is flagged.

    Raises:
        ValueError: no parameter has a prior, data that do not fit the model, or fewer than ten draws.
        TypeError: an argument of the wrong kind.

    Warns:
        UserWarning: a head that the priors cannot have made, with statistic, value, range and priors.

    References:
        Gabry, Simpson, Vehtari, Betancourt, Gelman. Visualization in Bayesian workflow. 2019.
    """
    check_kind_of("check_priors", "model", model, LatentRNN)
    check_kind_of("check_priors", "data", data, SequenceData, StoredSequences)
    if check_size("check_priors", "num_samples", num_samples) < LEAST_DRAWS:
        raise ValueError(f"check_priors: num_samples must be at least {LEAST_DRAWS}; found {num_samples}")
    initialise, seed = check_flag("check_priors", "initialise", initialise), check_seed("check_priors", seed)
    if not model.parameter_sites():
        raise ValueError("check_priors: no parameter has a prior, so that there is none to check")
    small = some_of(model, data, num_samples)
    model.check(small)
    if initialise:
        model = copy.deepcopy(model)
        model.initialise(small)
    check = compared(model, small, num_samples, seed)
    for message in check.messages():
        warnings.warn(f"check_priors: {message}", UserWarning, stacklevel=3)
    return check


def warn_of_priors(owner: str, model: LatentRNN, data: SequenceData | StoredSequences, *, stacklevel: int) -> None:
    """Warn where the priors of a model, as it is, cannot have made the data; `stacklevel` counts from here.

    Models without priors cost nothing, others one look at a few dozen draws, at fewer where networks with priors are
    large; at more than 170,000 weights there is none.
    """
    count = _affordable(model)
    if not count:
        return
    try:
        check = compared(model, some_of(model, data, count), count, 0)
    except NotImplementedError:  # a family of the user's that has a density and cannot be drawn
        return
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        message = f"data could not be drawn from the priors, to see whether they are of the data's scale ({reason})"
        warnings.warn(f"{owner}: {message}; {OFF}", UserWarning, stacklevel=stacklevel)
        return
    for message in check.messages():
        warnings.warn(f"{owner}: {message}; {OFF}", UserWarning, stacklevel=stacklevel)


def _affordable(model: LatentRNN) -> int:
    """Return how many draws of the parameters with priors take a moment; 0 where none are enough, or none has one."""
    numbers = sum(start.numel() for _, start in model.parameter_sites().values())
    count = min(DRAWS, WEIGHTS // max(numbers, 1) - STARTS) if numbers else 0
    return count if count >= LEAST_DRAWS else 0


def some_of(model: LatentRNN, data: SequenceData | StoredSequences, num_samples: int) -> SequenceData:
    """Return some sequences and their first steps, so few that draws of them take a moment."""
    if isinstance(data, StoredSequences):
        data = data.for_start()
    unit = math.lcm(*(head.clock for head in data.spec.heads.values()))
    width = max([model.transition.state_size, *(head.width for head in model.observations.values())])
    fit = NUMBERS // ((num_samples + STARTS) * width)  # steps of all sequences together
    steps = -(-max(min(STEPS, fit), FEWEST) // unit) * unit
    rows = np.linspace(0, len(data) - 1, max(1, min(SEQUENCES, len(data), fit // min(steps, data.num_steps))))
    found = data[np.unique(rows.astype(np.int64))]
    stop = steps + -(-int(found.host_context.max()) // unit) * unit
    return found if stop >= found.num_steps else found.time_slice(0, stop)


def compared(model: LatentRNN, data: SequenceData, num_samples: int, seed: int) -> PriorCheck:
    """Compare data with draws from the priors of a model as it is."""
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    sampler = prior_sampler(model, data, device, seed)
    starts = _starting_values(sampler)
    rows: list[dict[str, Any]] = []
    priors: dict[str, tuple[str, ...]] = {}
    with sampler.drawing():
        given = sampler.prior_trace(num_samples)
        beside = _joined(given, _at_starts(samples_of(given, slice(0, STARTS)), starts, set(starts)))
        for head, found in _looks(sampler, beside, num_samples + STARTS).items():
            off = {reach.statistic for reach in found if _is_off(reach, num_samples)}
            rows += [_row(head, reach, num_samples) | {"flagged": reach.statistic in off} for reach in found]
            if off:
                priors[head] = _priors_behind(sampler, given, starts, head, off)
    return PriorCheck(tuple(rows), priors, num_samples)


def _starting_values(sampler: PosteriorSampler) -> dict[str, Tensor]:
    """Return what a fit to these data would start the parameters with priors from, by site."""
    model = copy.deepcopy(sampler.model)
    model.initialise(sampler.data)
    return {name: start.detach() for name, (_, start) in model.parameter_sites().items()}


def _at_starts(trace: Trace, starts: Mapping[str, Tensor], names: set[str]) -> Trace:
    """Return draws of parameters, some sites at their starting values in all of them."""
    found = Trace()
    for name, site in trace.nodes.items():
        value = site["value"]
        found.add_node(name, **{**site, "value": starts[name].to(value).expand_as(value) if name in names else value})
    return found


def _joined(first: Trace, second: Trace) -> Trace:
    """Return draws of one trace and then of another."""
    found = Trace()
    for name, site in first.nodes.items():
        found.add_node(name, **{**site, "value": torch.cat([site["value"], second.nodes[name]["value"]])})
    return found


def _looks(sampler: PosteriorSampler, given: Trace, count: int) -> dict[str, list[Reach]]:
    """Return the statistics of every head that has something observed, of the data and of draws."""
    drawn, data = draws_from_prior(sampler, count, given, latents=False).observations, sampler.data
    found = {}
    for name, head in sampler.model.observations.items():
        mask = data.scored(name).cpu()
        if bool(mask.any()):
            found[name] = reaches(data.observations[name].cpu(), drawn[name], mask, whole=head.discrete)
    return found


def _is_off(reach: Reach, num_samples: int) -> bool:
    """Whether data lie far beyond draws from the priors, and not as far from draws at the starting values."""
    distance = reach.distance(num_samples)
    return distance > 0 and reach.from_middle(num_samples) <= CLOSER * distance


def _row(head: str, reach: Reach, num_samples: int) -> dict[str, Any]:
    drawn = reach.drawn[:num_samples]
    return {
        "head": head,
        "statistic": reach.statistic,
        "observed": reach.observed,
        "lowest": float(drawn.min()),
        "highest": float(drawn.max()),
    }


def _priors_behind(
    sampler: PosteriorSampler, given: Trace, starts: Mapping[str, Tensor], head: str, off: set[str]
) -> tuple[str, ...]:
    """Return the priors, as written, without each of which alone a head would not be off; all where there is none."""
    groups = _priors_of(sampler.model, head)
    before, behind = _distances(sampler, given, head), []
    for label, sites in groups.items() if len(groups) <= LOOKED_AT else ():
        without = _distances(sampler, _at_starts(given, starts, sites), head)
        if any(without[name] <= CLOSER * before[name] for name in off if before[name]):
            behind.append(label)
    return tuple(behind or groups)


def _distances(sampler: PosteriorSampler, given: Trace, head: str) -> dict[str, float]:
    """Return how far the data lie beyond draws under given parameters, by statistic of a head."""
    count = len(next(iter(given.nodes.values()))["value"])
    found = {reach.statistic: reach.distance() for reach in _looks(sampler, given, count)[head]}
    return defaultdict(float, found)  # zeros are counted where there are any


def _priors_of(model: LatentRNN, head: str) -> dict[str, set[str]]:
    """Return the priors that can matter to a head, as written, with their sites; learned ones with all members."""
    fed = {name for name, each in model.observations.items() if each.feedback is not None}
    apart = set(model.observations) - fed - {head, model.observations[head].reads}
    groups: dict[str, set[str]] = {}
    for parameter, prior in model.given.sampled:
        if parameter.owner in apart:
            continue
        if isinstance(prior, Population):
            label, own = repr(prior), {parameter_site(prior.name, part) for part in ("location", "scale")}
        elif isinstance(prior, WeightPrior):
            network = model.given.networks[prior.group]
            label, own = f"{prior.group} ~ {network.prior!r}", {network.site_of(part) for part in network.learned()}
        else:
            label, own = f"{parameter.site} ~ {described(prior)}", set()
        groups.setdefault(label, own).add(parameter.site)
    return groups
