"""Model comparison on held-out data, through ArviZ. What would mislead is refused, with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from latentrnn.criticism.elpd import arviz_compare, elpd_data
from latentrnn.criticism.held_out import check_held_out, check_no_bound, check_posterior
from latentrnn.criticism.left_out import leave_one_out
from latentrnn.criticism.outside import OutsideEvidence
from latentrnn.criticism.spikes import block_sums, check_block_length, is_one_step_ahead
from latentrnn.data import SequenceData
from latentrnn.inference.evidence.evidence import AIS, SMC, Evidence
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.inference.sampling.ensemble import Ensemble
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_choice, check_flag

if TYPE_CHECKING:
    import pandas

# below this many paired differences their standard error says next to nothing
MINIMUM_UNITS = 5
# beyond this many nats below the best model of a sequence, a model's share in a mixture is nil there
NEGLIGIBLE = 50.0

METHODS = ("stacking", "BB-pseudo-BMA", "pseudo-BMA")
_SCALES = {"log": 1.0, "negative_log": -1.0, "deviance": -2.0}


@dataclass(frozen=True)
class Pointwise:
    """Log densities of held-out units under one model.

    Attributes:
        values: log density per unit, nats (unit,).
        monte_carlo: its Monte Carlo standard error (unit,).
        evidence: where it comes from; None where it is none of this package.
    """

    values: Tensor
    monte_carlo: Tensor
    evidence: Evidence | None = None


def compare(
    models: Mapping[str, Any],
    data: SequenceData | None = None,
    *,
    leave_out: Literal["sequence"] | None = None,
    block_length: int | None = None,
    scale: Literal["log", "negative_log", "deviance"] = "log",
    method: Literal["stacking", "BB-pseudo-BMA", "pseudo-BMA"] = "stacking",
    kind: str | SMC | AIS = "auto",
    num_particles: int = 64,
    held_out: bool = False,
) -> pandas.DataFrame:
    """Rank models by their log density of held-out data, paired, with `az.compare`.

    For posteriors the unit is the sequence, and its log density the evidence, all heads jointly, local latents
    integrated out: by importance weights where these are good, else by particle filters, as
    `latentrnn.inference.evidence.rungs` has it, so that the order is the models' and not that of their guides. For
    `OneStepAhead` results, the way for one long recording, the unit is a block of
    steps and its log density the sum of log p(y_t | y_<t). The guide never sees what is scored in the latter; in the
    former it only proposes importance samples. The standard error of a difference, over n units, is

        dse = sqrt(n Var_n[log p_best(y_n) - log p_model(y_n)])

    With `leave_out="sequence"` the sequences are those that the posteriors were conditioned on, each left out in turn:
    log p(y_n | y_{-n}) by importance weights over the draws of the parameters (PSIS). That means something only where
    everything that was learned from them has a posterior (`Posterior.reason_against_loo`); anything else is refused.
    For one long series whose future is left out see `leave_future_out`, whose results are compared here.

    `az.compare` takes exponentials of the log densities, which underflow below -745 nats; here each unit is first
    shifted by its best model, which changes neither differences nor weights.

    Args:
        models: `{"name": posterior}` or `{"name": one_step_ahead}`, at least two, all of the same held-out data; what
            another package says of these data joins them by `latentrnn.score_of`.
        data: held-out sequences, of which `models` are fits (`FitResult`, `Ensemble`); None where they are posteriors.
        leave_out: "sequence", or None for held-out data.
        block_length: steps per block, for `OneStepAhead`; longer than the correlations in the recording. None
            takes each sequence as a unit.
        scale: "log", "negative_log" or "deviance", as in ArviZ.
        method: of the model weights, as in ArviZ.
        kind: of the evidence, for posteriors: "auto", or one for all: "iwae", "smc", "ais", "exact", `SMC(...)`,
            `AIS(...)`.
        num_particles: importance samples per sequence, or particles per filter, for posteriors.
        held_out: your word that the data are held out, needed where a model does not know what it was fitted on.

    Returns:
        ArviZ's frame, best model first, which `az.plot_compare` draws: `rank`, `elpd_loo` (`elpd` in ArviZ 1.x;
        ArviZ's name, here of new data), `p_loo` (NaN: does not apply), `elpd_diff`, `weight`, `se`, `dse`, `warning`,
        `scale`, and `mc_se`, the Monte Carlo standard error of the total; of posteriors also `kind`, `ess` (the
        smallest effective sample size of a sequence, NaN where exact), `pareto_k` (the largest k-hat, NaN where exact)
        and `doubtful` (sequences whose evidence is not to be believed, see `Evidence.doubtful`), and `parameters`, how
        many numbers the model has learned or drawn (of an ensemble's members together). `warning` is True
        where a number is doubtful, and where Monte Carlo error may decide the order: that of the difference to the
        best model exceeds both `dse` and half of the difference; use more particles. `frame.attrs` says what the unit
        is.

    Raises:
        ValueError: for fewer than two models, different data, different scored heads or entries, data used in a
            fit or its stopping, fewer than five units, or a density that is not finite.
        TypeError: for a mixture of posteriors and one-step-ahead results, or something else.

    Warns:
        UserWarning: for every model whose evidence is not to be believed, with the number of sequences and a remedy.

    References:
        A. Vehtari, A. Gelman, J. Gabry (2017), Practical Bayesian model evaluation using leave-one-out
        cross-validation and WAIC, Statistics and Computing.
        Y. Yao, A. Vehtari, D. Simpson, A. Gelman (2018), Using stacking to average Bayesian predictive
        distributions, Bayesian Analysis.
    """
    if not isinstance(models, Mapping):
        raise TypeError(f"models: expected a dict of name to posterior; found {type(models).__name__}")
    if len(models) < 2:
        raise ValueError(f"models: a comparison needs at least 2, got {list(models)}")
    check_choice("compare", "scale", scale, _SCALES)
    check_choice("compare", "method", method, METHODS)
    held_out, block_length = check_flag("compare", "held_out", held_out), check_block_length(block_length)
    if leave_out is not None:
        check_choice("compare", "leave_out", leave_out, ("sequence",))
    models = models if data is None else _posteriors(models, data)
    one_step = {name: is_one_step_ahead(model) for name, model in models.items()}
    for name, flag in one_step.items():
        if not flag and not isinstance(models[name], OutsideEvidence):
            check_posterior("compare", str(name), models[name])
    check_no_bound("compare", kind)
    if len(set(one_step.values())) > 1:
        raise TypeError(
            "models: a one-step-ahead density and an evidence are different quantities; got both, "
            f"one-step-ahead results being {[name for name, flag in one_step.items() if flag]}"
        )
    if leave_out is not None:
        if any(one_step.values()) or any(isinstance(model, OutsideEvidence) for model in models.values()):
            raise TypeError("leave_out='sequence' is of posteriors; found other results among the models")
        if block_length is not None:
            raise ValueError("block_length: only for one-step-ahead results; leave_out='sequence' leaves out sequences")
        pointwise, unit = _left_out(models, num_particles), "sequence, left out"
    elif any(one_step.values()):
        pointwise, unit = _one_step_ahead(models, block_length, held_out), _block_words(block_length)
    elif block_length is not None:
        raise ValueError("block_length: only for one-step-ahead results; evidence is per sequence")
    else:
        pointwise, unit = _evidence(models, kind, num_particles, held_out), "sequence"
    for name, item in pointwise.items():
        if not bool(torch.isfinite(item.values).all()):
            where = int((~torch.isfinite(item.values)).nonzero()[0, 0])
            raise ValueError(f"{name}: log density {float(item.values[where])} of unit {where} is not finite")
    number = next(iter(pointwise.values())).values.numel()
    if number < MINIMUM_UNITS:
        raise ValueError(
            f"models: {number} units (each a {unit}) are too few for a standard error of their difference, need "
            f"{MINIMUM_UNITS}; compare one_step_ahead results with a block_length="
        )
    frame = ranked(pointwise, scale, method)
    frame.attrs.update(unit=unit, num_units=number, held_out=leave_out is None)
    if not any(one_step.values()):
        frame["parameters"] = [_size(models[name]) for name in frame.index]
    return frame


def _posteriors(models: Mapping[str, Any], data: SequenceData) -> dict[str, Any]:
    """Return the posterior of some data under every fit; what an outside model says of them stays as it is."""
    if not isinstance(data, SequenceData):
        raise TypeError(f"compare: data must be SequenceData; found {type(data).__name__}")
    found: dict[str, Any] = {}
    for name, model in models.items():
        if isinstance(model, OutsideEvidence):
            found[name] = model
        elif isinstance(model, FitResult | Ensemble):
            found[name] = model.posterior(data)
        else:
            raise TypeError(
                f"compare: data= goes with fits; expected a FitResult or an Ensemble under {name!r}, found "
                f"{type(model).__name__}"
            )
    return found


def _left_out(models: Mapping[str, Any], num_particles: int) -> dict[str, Pointwise]:
    _, reference = next(iter(models.items()))
    for name, posterior in models.items():  # every refusal before the first expensive evaluation
        if not isinstance(posterior, Posterior):
            raise TypeError(
                f"compare: leave_out='sequence' weighs draws of one posterior; found {type(posterior).__name__} "
                f"under {name!r}"
            )
        if (reason := posterior.reason_against_loo()) is not None:
            raise ValueError(f"{name}: leaving a sequence out by weights means nothing: {reason}. Use held-out data")
    orders = _same_data(models, reference)
    pointwise = {}
    for name, posterior in models.items():
        evidence = leave_one_out(posterior, num_particles)
        evidence.warn("compare", repr(name), stacklevel=4)
        values, errors = evidence.values[orders[name]], evidence.standard_error[orders[name]]
        pointwise[name] = Pointwise(values, errors, evidence)
    return pointwise


def _size(model: Any) -> float:
    """Return how many numbers a model has learned, or drawn; NaN of an outside one."""
    if isinstance(model, OutsideEvidence):
        return math.nan
    members = [each.model for each in getattr(model, "posteriors", [])] or [getattr(model, "model", None)]
    if not all(isinstance(member, LatentRNN) for member in members):
        return math.nan
    learned = sum(value.numel() for member in members for value in member.parameters())
    return float(learned + sum(value.numel() for member in members for _, value in member.parameter_sites().values()))


def _same_data(models: Mapping[str, Any], reference: Any) -> dict[str, list[int]]:
    """Return what brings every posterior's sequences into the order of one, of the same data and heads."""
    reference_name, orders = next(iter(models)), {}
    for name, posterior in models.items():
        orders[name] = _pair(name, posterior.data.keys, reference_name, reference.data.keys)
        _check_heads(name, posterior, reference_name, reference, orders[name])
    return orders


def _check_heads(name: str, posterior: Any, reference_name: str, reference: Any, order: list[int]) -> None:
    heads, expected = (sorted(p.model.observations) for p in (posterior, reference))
    if heads != expected:
        raise ValueError(
            f"{name}: scores heads {heads}, {reference_name!r} scores {expected}; joint densities of different "
            "heads cannot be compared, compare one_step_ahead results of one head"
        )
    for head in heads:
        entries = posterior.data.scored(head)[order], reference.data.scored(head)
        values = posterior.data.observations[head][order], reference.data.observations[head]
        _check_same(name, reference_name, head, entries, values)


def _evidence(
    models: Mapping[str, Any], kind: str | SMC | AIS, num_particles: int, held_out: bool
) -> dict[str, Pointwise]:
    reference_name, reference = next(iter(models.items()))
    outside = {name: model for name, model in models.items() if isinstance(model, OutsideEvidence)}
    own = {name: model for name, model in models.items() if name not in outside}
    if own:
        reference_name, reference = next(iter(own.items()))
    orders = {name: _pair(name, item.keys, reference_name, _keys(reference)) for name, item in outside.items()}
    for name, posterior in own.items():  # every refusal before the first expensive evaluation
        used = None if posterior.result is None else posterior.result.used
        orders[name] = _pair(name, posterior.data.keys, reference_name, reference.data.keys)
        _check_heads(name, posterior, reference_name, reference, orders[name])
        check_held_out(name, posterior.data.keys, used, held_out=held_out)
    pointwise = {}
    for name, posterior in models.items():
        if name in outside:
            values = posterior.log_prob[orders[name]]
            pointwise[name] = Pointwise(values, torch.zeros_like(values))
            continue
        evidence = posterior.evidence(kind, num_particles=num_particles)
        evidence.warn("compare", repr(name), stacklevel=4)
        values, errors = (part.to(torch.float64)[orders[name]] for part in (evidence.values, evidence.standard_error))
        pointwise[name] = Pointwise(values, errors, evidence)
    return pointwise


def _one_step_ahead(models: Mapping[str, Any], block_length: int | None, held_out: bool) -> dict[str, Pointwise]:
    reference_name, reference = next(iter(models.items()))
    kept = block_sums(reference.scored.to(torch.float64), block_length) > 0
    pointwise = {}
    for name, item in models.items():
        order = _pair(name, item.keys, reference_name, reference.keys)
        if item.head != reference.head:
            raise ValueError(f"{name}: scores head {item.head!r}, {reference_name!r} scores {reference.head!r}")
        # a density joint over channels has one entry per step, so that entries are compared as steps
        joint = item.scored.shape != reference.scored.shape
        entries = tuple(s.any(-1, keepdim=True) if joint else s for s in (item.scored[order], reference.scored))
        _check_same(name, reference_name, item.head, entries, (item.observed[order], reference.observed))
        check_held_out(name, item.keys, getattr(item, "used", None), held_out=held_out)
        values = item.log_prob.to(torch.float64).masked_fill(~item.scored, 0.0)[order]
        error = torch.zeros_like(values) if item.standard_error is None else item.standard_error.to(values)[order]
        error = error.masked_fill(~item.scored[order], 0.0)
        pointwise[name] = Pointwise(
            block_sums(values, block_length)[kept], block_sums(error.square(), block_length)[kept].sqrt()
        )
    return pointwise


def _pair(name: str, keys: tuple[Any, ...], reference_name: str, reference: tuple[Any, ...]) -> list[int]:
    """Positions that bring one model's sequences into the order of the reference's."""
    if set(keys) != set(reference) or len(keys) != len(reference):
        shared = len(set(keys) & set(reference))
        raise ValueError(
            f"{name}: its data are not those of {reference_name!r} ({shared} sequences shared, of {len(keys)} and "
            f"{len(reference)}); evidence on different data cannot be compared"
        )
    position = {key: index for index, key in enumerate(keys)}
    return [position[key] for key in reference]


def _check_same(name: str, other: str, head: str, entries: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> None:
    if entries[0].shape != entries[1].shape or not torch.equal(entries[0], entries[1]):
        raise ValueError(f"{name}: scores other entries of head {head!r} than {other!r} (masks or contexts differ)")
    one, two = (v.masked_fill(~e.expand_as(v), 0).to(torch.float64) for v, e in zip(values, entries, strict=True))
    if not torch.equal(one, two):
        raise ValueError(f"{name}: observations of head {head!r} differ from those of {other!r}")


def ranked(pointwise: Mapping[str, Pointwise], scale: str, method: str) -> pandas.DataFrame:
    """Return the table of `compare`: a row per model, best first, with paired differences to the best.

    Args:
        pointwise: model name to log densities of the same units in the same order, finite.
        scale, method: as of `compare`.
    """
    best = torch.stack([item.values for item in pointwise.values()]).amax(0)
    shifted = {name: elpd_data((item.values - best).clamp(min=-NEGLIGIBLE)) for name, item in pointwise.items()}
    frame = arviz_compare(shifted, method)
    # ArviZ ranked and weighted the shifted values; the rest is put back to the true ones
    total = next(column for column in ("elpd_loo", "elpd") if column in frame)
    values = {name: item.values for name, item in pointwise.items()}
    frame = frame.loc[sorted(frame.index, key=lambda name: -float(values[name].sum()))]
    first = values[frame.index[0]]
    factor, number = _SCALES[scale], first.numel()
    columns: dict[str, list[Any]] = {"elpd": [], "elpd_diff": [], "se": [], "dse": [], "mc_se": [], "warning": []}
    by_evidence = any(item.evidence is not None for item in pointwise.values())
    if by_evidence:
        columns |= {"kind": [], "ess": [], "pareto_k": [], "doubtful": []}
    error_of_best = pointwise[frame.index[0]].monte_carlo.square().sum()
    for name in frame.index:
        difference = first - values[name]
        spread = float((number * difference.var(correction=0)).sqrt())
        monte_carlo = pointwise[name].monte_carlo.square().sum()
        error = float((monte_carlo + error_of_best).sqrt())
        columns["elpd"].append(factor * float(values[name].sum()))
        columns["elpd_diff"].append(abs(factor) * float(difference.sum()))
        columns["se"].append(abs(factor) * float((number * values[name].var(correction=0)).sqrt()))
        columns["dse"].append(abs(factor) * spread)
        columns["mc_se"].append(abs(factor) * float(monte_carlo.sqrt()))
        # the best model's own row has no difference to be unsure of
        unsure = name != frame.index[0] and error > max(spread, float(difference.sum()) / 2)
        evidence = pointwise[name].evidence
        columns["warning"].append(unsure or (evidence is not None and bool(evidence.doubtful.any())))
        if by_evidence:
            columns["kind"].append("outside" if evidence is None else evidence.kind)
            columns["ess"].append(_extreme(None if evidence is None else evidence.effective_sample_size, torch.amin))
            columns["pareto_k"].append(_extreme(None if evidence is None else evidence.pareto_k, torch.amax))
            columns["doubtful"].append(0 if evidence is None else int(evidence.doubtful.sum()))
    return frame.assign(**{total if key == "elpd" else key: value for key, value in columns.items()}).assign(
        rank=range(len(frame)), scale=scale
    )


def _keys(model: Any) -> tuple[Any, ...]:
    return tuple(model.keys if isinstance(model, OutsideEvidence) else model.data.keys)


def _extreme(values: Tensor | None, pick: Callable[[Tensor], Tensor]) -> float:
    return float("nan") if values is None or not values.numel() else float(pick(values))


def _block_words(block_length: int | None) -> str:
    return "sequence, one step ahead" if block_length is None else f"block of {block_length} steps, one step ahead"
