"""What a state says of the world: linear probes of it, beside control tasks, and decoding of behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from latentrnn.data import SequenceData
from latentrnn.inference.posterior.interventions.replays import all_alike
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.inference.sampling.ensemble_posterior import EnsemblePosterior
from latentrnn.interpret.probes.probe_targets import Array, ProbeTarget, all_known, by_type, exchanged, probe_target
from latentrnn.interpret.probes.regressions import INNER, read, require_sklearn
from latentrnn.interpret.results.labelled import AnyPosterior, labelled
from latentrnn.interpret.results.names import by_layer, states_by_name
from latentrnn.support.arguments import check_choice, check_integer, check_list, check_names, check_seed, check_size
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray


class _Settings(NamedTuple):
    of: list[str]
    kind: str
    metric: str | None
    lags: list[int]
    pooling: str
    folds: int
    controls: int
    seed: int


METRICS = {"ridge": ("r2",), "logistic": ("accuracy", "auroc")}


@isolated
def probe(
    posterior: AnyPosterior,
    target: Any,
    *,
    of: str | Sequence[str] = "hidden",
    kind: str = "ridge",
    metric: str | None = None,
    lags: Sequence[int] = (0,),
    pooling: str = "last",
    folds: int = 5,
    controls: int = 20,
    types: Any = None,
    num_samples: int = 20,
    seed: int = 0,
) -> xarray.Dataset:
    """Return how well variables outside a model are read off its state by linear regression, beside control tasks.

        ridge:     target_t ~ w . s_t + b            logistic:  P(target_t = k) ~ exp(w_k . s_t + b_k)

    s_t is the posterior mean of what `of` names. Readers are scored on whole sequences that they were not fitted to;
    the penalty is chosen within each fold, by sequence too. A control task has the target's structure and nothing of
    it that the state could know: whole sequences of the target change places, or, where `types` are given, every type
    of entry gets the target of an entry drawn at random, so that a reader which learns the types by heart does as well.
    A target that is read better than its controls is in the state; the difference is the probe's selectivity.

    Args:
        posterior: of any model; of an ensemble, whose members' states differ, each member is probed.
        target: name of a covariate or head of the data; numbers (sequence,), (sequence, time) or (sequence, time,
            variable), or a list of (step, [variable]) by sequence; NaN where not known. For "logistic" classes.
        of: as in `trace`: "hidden", "cell", "forget", "layer0.hidden", "inputs", ..., or several, side by side.
        kind: "ridge" or "logistic".
        metric: "r2" (ridge), "accuracy" or "auroc" (of two classes). By default R2, AUROC where all variables have two
            classes, accuracy otherwise.
        lags: steps by which the state that is read is earlier than the target, later where negative; several stand side
            by side. Steps without such a state are left out.
        pooling: of one number per sequence, which state is read: "last" or "mean".
        folds: number of folds, of whole sequences.
        controls: number of control tasks; zero for none.
        types: for controls by type, the type of each entry: name of a covariate or head, or integer codes (sequence,
            time) or (sequence,).
        num_samples: number of draws that the state is averaged over.
        seed: of folds and control tasks.

    Returns:
        A dataset: "score" and "penalty", (fold, variable); "control_score", (control, variable), the mean over folds;
        "selectivity", mean score less mean control score, and "p_value", (1 + controls that are not worse) / (1 +
        controls), (variable,); "prediction", (sequence, [time,] variable), by readers that were not fitted to it. Of an
        ensemble with the dim "member" besides.

    Raises:
        TypeError: something that is no posterior.
        ValueError: an unknown name or setting, a target of another shape, or too few sequences for the folds.
        ImportError: scikit-learn is not there.

    References:
        Alain, Bengio. Understanding intermediate layers using linear classifier probes. 2017.
        Hewitt, Liang. Designing and interpreting probes with control tasks. 2019.
        Harris. Nonsense correlations in neuroscience. 2020.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> x = np.random.default_rng(0).normal(size=(12, 20, 1))
        >>> data = lr.SequenceData.from_arrays({"v": x}, {"x": x})
        >>> parts = {"transition": lr.GRU(8), "latent": lr.Deterministic(), "observations": {"v": lr.Gaussian()}}
        >>> model = lr.LatentRNN(data.spec, **parts)
        >>> found = lr.interpret.probe(lr.Posterior(model, lr.Guide(model), data), "x", controls=9)
        >>> bool(found.score.mean() > 0.5), bool(found.control_score.max() < 0.1), float(found.p_value[0])
        (True, True, 0.1)
    """
    require_sklearn("probe")
    check_choice("probe", "kind", kind, METRICS)
    check_choice("probe", "pooling", pooling, ("last", "mean"))
    check_integer("probe", "controls", controls)
    seed = check_seed("probe", seed) % 2**32  # what scikit-learn takes
    if metric is not None:
        check_choice("probe", f"metric of a {kind} probe", metric, METRICS[kind])
    settings = _Settings(
        [of] if isinstance(of, str) else check_names("probe", "of", of),
        kind,
        metric,
        [check_integer("probe", "lags", lag, least=-(2**31)) for lag in check_list("probe", "lags", lags, "steps")],
        pooling,
        check_size("probe", "folds", folds),
        controls,
        seed,
    )
    check_size("probe", "num_samples", num_samples)
    if isinstance(posterior, EnsemblePosterior):
        import xarray

        each = [_of_one(member, target, types, settings, num_samples) for member in posterior.posteriors]
        return xarray.concat(each, "member", join="exact", combine_attrs="override", data_vars="all")
    if not isinstance(posterior, Posterior):
        raise TypeError(f"probe: expected a posterior; found {type(posterior).__name__}")
    return _of_one(posterior, target, types, settings, num_samples)


@isolated
def decode(
    posterior: AnyPosterior,
    behaviour: Any,
    *,
    lags: Sequence[int] = (0,),
    of: str | Sequence[str] = "hidden",
    **settings: Any,
) -> xarray.Dataset:
    """Return how well behaviour is decoded from the state by ridge regression: `probe` of it, with lags.

    Args:
        posterior: of any model, or of an ensemble.
        behaviour: velocities or the like: numbers (sequence, time, variable) or the name of a covariate or head.
        lags: steps by which the state that is read is earlier than the behaviour, as in `probe`.
        of: what is read, as in `trace`.
        **settings: the others of `probe`.

    Returns:
        As `probe`: R2 by fold and variable, with that of control tasks, and predictions.

    Raises:
        ValueError, TypeError, ImportError: as `probe`.

    References:
        Glaser, Benjamin, Chowdhury, Perich, Miller, Kording. Machine learning for neural decoding. 2020.
    """
    found: xarray.Dataset = probe(posterior, behaviour, kind="ridge", lags=lags, of=of, **settings)
    return found


def _of_one(posterior: Posterior, target: Any, types: Any, settings: _Settings, num_samples: int) -> xarray.Dataset:
    data, wanted = posterior.data, probe_target("probe", posterior.data, target)
    codes = None if types is None else _types(data, wanted, types)
    states = _lagged(_average(posterior, settings.of, num_samples), settings.lags)
    if not wanted.per_step:
        states = _pooled(states, data, settings.pooling)
    known = all_known(wanted.values) & all_known(states)
    rows = np.nonzero(known)
    if (count := len(np.unique(rows[0]))) < max(2, settings.folds) or count - -(-count // settings.folds) < INNER:
        raise ValueError(f"probe: {settings.folds} folds need more sequences than {count} whose target is known")
    metric = _metric(settings, wanted.values[known])
    values = np.where(known[..., None], wanted.values, np.nan)
    rng = np.random.default_rng(settings.seed)
    tasks = [values[known]]
    for _ in range(settings.controls):
        tasks.append((exchanged(values, rng) if codes is None else by_type(values, codes, rng))[known])
    together = np.concatenate(tasks, 1)  # (row, variable of task)
    found = read(settings.kind, metric, states[known], together, rows[0], settings.folds, settings.seed)
    return _labelled(posterior, wanted, settings, metric, known, found)


def _labelled(
    posterior: Posterior, wanted: ProbeTarget, settings: _Settings, metric: str, known: NDArray[np.bool_], found: Any
) -> xarray.Dataset:
    size = len(wanted.names)
    own = found.score[:, :size]
    control = found.score[:, size:].reshape(settings.folds, settings.controls, size)
    mean, controls = _mean(own, 0), _mean(control, 0)
    prediction = np.full(wanted.values.shape, np.nan)
    prediction[known] = found.prediction[:, :size]
    where = ("sequence", "time") if wanted.per_step else ("sequence",)
    variables: dict[str, Any] = {
        "score": (("fold", "variable"), own),
        "penalty": (("fold", "variable"), found.penalty[:, :size]),
        "prediction": ((*where, "variable"), prediction),
    }
    if settings.controls:
        variables["control_score"] = (("control", "variable"), controls)
        variables["selectivity"] = (("variable",), mean - _mean(controls, 0))
        as_good = (controls >= mean).sum(0)
        variables["p_value"] = (("variable",), (1 + as_good) / (1 + settings.controls))
    attributes = {"kind": settings.kind, "metric": metric, "of": ", ".join(settings.of), "lags": settings.lags}
    return labelled(posterior.data, variables, coords={"variable": list(wanted.names)}, attributes=attributes)


def _mean(values: Array, axis: int) -> Array:
    """Return means without NaN; NaN where there is nothing else."""
    there = ~np.isnan(values)
    count = there.sum(axis)
    return np.where(count > 0, np.where(there, values, 0.0).sum(axis) / np.maximum(count, 1), np.nan)


def _metric(settings: _Settings, values: Array) -> str:
    """Return the metric that was asked for, or the one for these targets; refuse classes that are none."""
    if settings.kind == "logistic" and not (values == np.floor(values)).all():
        raise ValueError("probe: logistic probes read classes, whole numbers; found others in the target")
    two = all(len(np.unique(column)) == 2 for column in values.T)
    possible = METRICS[settings.kind]
    metric = settings.metric or ("auroc" if two and settings.kind == "logistic" else possible[0])
    check_choice("probe", f"metric of a {settings.kind} probe", metric, possible)
    if metric == "auroc" and not two:
        raise ValueError("probe: metric 'auroc' needs two classes in every variable")
    return metric


def _types(data: SequenceData, wanted: ProbeTarget, types: Any) -> Array:
    codes = probe_target("probe: types", data, types)
    if codes.per_step != wanted.per_step or len(codes.names) != 1:
        raise ValueError(f"probe: types must be one code for each entry of the target; found {codes.values.shape}")
    return codes.values[..., 0]


def _average(posterior: Posterior, of: list[str], num_samples: int) -> Array:
    """Return posterior means of parts of the state, gates or inputs side by side, (sequence, time, unit)."""
    data, found = posterior.data, None
    for run in posterior.transition_runs(1 if all_alike(posterior.model) else num_samples):
        with torch.no_grad():
            known = {**states_by_name(run.transition, run.states), "inputs": run.inputs}
            if not set(of) <= known.keys():
                gates = by_layer(posterior.model.transition, run.gates())
                known = {**{f"gate.{name}" if name in known else name: gate for name, gate in gates.items()}, **known}
        if unknown := sorted(set(of) - known.keys()):
            raise ValueError(f"probe: of names unknown {unknown}; there are {sorted(known)}")
        part = torch.cat([known[name].mean(0) for name in of], -1).cpu().double().numpy()
        if found is None:
            found = np.full((len(data), data.num_steps, part.shape[-1]), np.nan)
        found[run.rows, : part.shape[1]] = part
    assert found is not None
    return np.where(data.valid.cpu().numpy()[..., None], found, np.nan)


def _lagged(states: Array, lags: list[int]) -> Array:
    """Return states of other steps side by side, (sequence, time, unit of lag), NaN where there is no such step."""
    parts = []
    for lag in lags:
        part = np.full_like(states, np.nan)
        steps = states.shape[1] - abs(lag)
        if steps > 0:
            part[:, max(lag, 0) : max(lag, 0) + steps] = states[:, max(-lag, 0) : max(-lag, 0) + steps]
        parts.append(part)
    return np.concatenate(parts, -1)


def _pooled(states: Array, data: SequenceData, pooling: str) -> Array:
    """Return one state for each sequence, (sequence, unit)."""
    if pooling == "mean":
        return _mean(states, 1)
    found: Array = states[np.arange(len(states)), np.maximum(data.host_lengths - 1, 0)]
    return found
