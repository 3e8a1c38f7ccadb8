"""Uncertainty of anything that follows from what was learned, without a prior."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.data.identity import overlapping
from latentrnn.inference.fitting.fit import fit
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.posterior.draws.stored_draws import StoredDraws
from latentrnn.inference.sampling.ensemble import Ensemble
from latentrnn.inference.sampling.uncertainty.observed_information import Settings, by_curvature
from latentrnn.inference.sampling.uncertainty.quantities import AUTO, OWNER, Quantity
from latentrnn.inference.sampling.uncertainty.refits import Refits, by_members, by_resampling, other_seeds
from latentrnn.inference.sampling.uncertainty.result import Uncertainty
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import (
    LARGEST_COUNT,
    check_choice,
    check_flag,
    check_integer,
    check_kind_of,
    check_seed,
)
from latentrnn.support.devices import resolve_device
from latentrnn.support.isolation import isolated

METHODS = ("laplace", "bootstrap", "ensemble")
REFITS = {"laplace": 0, "bootstrap": 200, "ensemble": 5}  # by default
FEWEST_PARTICLES = 32  # from which parts of them tell the error of all
OWN = ("model", "guide", "train", "validation", "seed", "start_from", "checkpointing")  # of each refit

QuantityFunction = Callable[[LatentRNN], Tensor | Mapping[str, Tensor]]


@isolated
def uncertainty(
    result: FitResult | Ensemble,
    data: SequenceData,
    quantity: QuantityFunction | str | Sequence[str],
    *,
    how: Literal["laplace", "bootstrap", "ensemble"] = "laplace",
    transform: str | Mapping[str, str] = AUTO,
    polish: int = 100,
    num_particles: int = 256,
    max_dense: int = 1000,
    refits: int | None = None,
    device: str | torch.device = "auto",
    seed: int | None = 0,
    progress: bool = True,
    **settings: Any,
) -> Uncertainty:
    """Return how uncertain a function of what was learned is, everything that was learned being uncertain together.

    With a quantity f(w) of all weights w (networks, heads, numbers of latents, and parameters with priors):

        laplace:    Cov[f] = J H^+ J^T,   J = df/dw,   H = -d^2 log p(y, w) / dw^2,   at the mode
        bootstrap:  the spread of f over refits to sequences drawn with replacement
        ensemble:   the spread of f over fits from other seeds

    so that the interval of a gain includes what is not known of the dynamics. No prior is needed; those that there are
    count in the density, in unconstrained space as of `laplace`.

    "laplace" is in double precision. Random latents that the model does not sum out itself (as `Deterministic`,
    `Discrete` and `LinearGaussian` leave none) are integrated out by importance sampling from the fit's guide, with
    draws made once (see `Marginal`). A fit stops before the mode, so that Newton steps come first. H^+ inverts what
    exceeds 1e-10 of the largest curvature, each weight in the unit in which its own is one; directions below are flat
    (of two factors whose product alone matters, one may grow as the other shrinks), and are named. A quantity that
    moves along one is not determined by the data: its sd is infinite. Where the point is no mode, weak and negative
    curvature is measured at the distance at which the quantity has moved by two standard deviations. Above `max_dense`
    weights H is known by its products with vectors alone: the cost is some hundred gradients for each entry of the
    quantity, and flat directions are found where the quantity moves along them. Importance samples blur the curvature:
    parts of them tell how much, and what is not three times as large counts as open, too. That is soon the case where
    latents have a unit or a zero of their own, which the data do not tell: fix them.

    "bootstrap" holds where the likelihood is not the truth but sequences are independent. Refits begin at one point,
    from which nothing moves them along a flat direction; so the curvature tells which entries move along one, but for
    models with random latents, or refits by `fit` above `max_dense` weights. "ensemble" says nothing of other data, but
    of what the fit leaves to chance. Neither knows which of a network's units correspond in two fits: ask for a
    quantity that does not depend on their order.

    Args:
        result: the fit; for "ensemble" also an `Ensemble`, whose weights then count.
        data: the sequences that it was fitted to.
        quantity: a function of the model in double precision, evaluated with other weights, that returns a tensor or a
            dict of tensors; written in torch throughout for "laplace" (`detach` is ignored within it). Or a name of
            `model.parameters_table()`, or several.
        how: "laplace", "bootstrap" or "ensemble".
        transform: on which scale intervals of "laplace" and "ensemble" are symmetric: "identity", "log", "logit", or
            "auto": what the support of a parameter of the model asks for, where the quantity is one, and "identity"
            elsewhere. A dict gives it by name of the quantity's parts.
        polish: Newton steps to the mode, at most; 0 takes the curvature where the fit stopped.
        num_particles: importance samples of random latents, for "laplace".
        max_dense: weights up to which H is a matrix.
        refits: fits of "bootstrap" (200) and of "ensemble" (5).
        device: "auto" takes CUDA where there is one; that of refits is in `compute`.
        seed: of importance samples, resampling and refits, None for a fresh one, which the result tells.
        progress: whether refits show a progress bar.
        **settings: of `fit`, for refits by it; steps and batch size are those of the first fit otherwise, all else the
            defaults, and there is no validation. "bootstrap" refits by `fit`, from the fitted weights on, where there
            are settings or random latents; elsewhere it takes Newton steps to the mode of every resampled density.
            "ensemble" always fits.

    Returns:
        Values, standard deviations and intervals in the quantity's own units; see `Uncertainty`.

    Raises:
        ValueError: data that do not fit, a quantity that is not finite, depends on nothing learned, or whose derivative
            is not what differences say, a value outside of its transform, fewer than ten sequences (of a session) to
            resample, refits of which more than one in ten came to nothing, or a setting out of range.
        TypeError: an argument of the wrong kind, or one that `fit` does not have.

    Warns:
        UserWarning: the data do not determine the quantity, with the names of the weights of the flat direction; the
            point is no mode; importance weights with a heavy tail; refits that had not come to rest; sequences that the
            fit has not seen.

    References:
        Efron, Hinkley. Assessing the accuracy of the maximum likelihood estimator: observed versus expected Fisher
        information. 1978.
        Louis. Finding the observed information matrix when using the EM algorithm. 1982.
        Efron, Tibshirani. An introduction to the bootstrap. 1993.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> y = np.random.default_rng(0).normal(3.0, 2.0, (20, 5, 1))
        >>> data = lr.SequenceData.from_arrays({"y": y}, {"x": np.ones_like(y)}, dt=0.1)
        >>> memory = lr.LeakyIntegrator(1, fixed={"time_constant": 0.2, "input_weight": 0.0})
        >>> constant = lr.Deterministic(fixed={"initial_state": 0.0})
        >>> model = lr.LatentRNN(
        ...     data.spec, transition=memory, latent=constant, observations={"y": lr.Gaussian()}, inputs="x"
        ... )
        >>> quiet = lr.Reporting(progress=False)
        >>> result = lr.fit(model, lr.Guide(model), data, steps=5, reporting=quiet)
        >>> found = lr.uncertainty(result, data, "y.readout.baseline")
        >>> bool(abs(found.mean - y.mean()) < 1e-6), bool(abs(found.sd - y.std() / 10) < 1e-6)
        (True, True)
        >>> [str(each) for each in found.flat_directions]
        ['y.readout.weight, which plays no part']
    """
    chosen = check_choice(OWNER, "how", how, METHODS)
    kinds = (FitResult, Ensemble) if chosen == "ensemble" else (FitResult,)
    check_kind_of(OWNER, "result", result, *kinds)
    check_kind_of(OWNER, "data", data, SequenceData)
    if data.indices is not None:
        raise ValueError(f"{OWNER}: needs all of the data at once, not a batch of a larger plate")
    asked = Quantity(quantity)
    given = Settings(
        transform,
        check_integer(OWNER, "polish", polish),
        check_integer(OWNER, "num_particles", num_particles, least=FEWEST_PARTICLES),
        check_integer(OWNER, "max_dense", max_dense),
        resolve_device(device),
        check_seed(OWNER, seed),
    )
    plan = _refits(chosen, result, refits, progress, settings, given)
    if isinstance(result, Ensemble):
        return by_members(result, data, asked, given)
    if isinstance(result.guide, StoredDraws):
        raise TypeError(f"{OWNER}: the result holds draws of its parameters, which tell; see Posterior.parameters")
    if result.used and not result.learned_from and any(True for _ in result.model.parameters()):
        raise ValueError(
            f"{OWNER}: the result is of laplace, which took the weights without priors as they were, so that they were "
            "not learned; fit them, and give that result"
        )
    result.model.check(data)
    _check_data(result, data)
    if chosen == "laplace":
        return by_curvature(result, data, asked, given)
    if chosen == "bootstrap":
        return by_resampling(result, data, asked, given, plan)
    return by_members(other_seeds(result, data, given, plan), data, asked, given)


def _refits(
    how: str, result: FitResult | Ensemble, refits: Any, progress: Any, settings: Mapping[str, Any], given: Settings
) -> Refits:
    """Return how refits are made.

    Raises:
        ValueError: a number out of range, or something for refits where none are made.
        TypeError: an argument that `fit` does not have.
    """
    known = [name for name in inspect.signature(fit).parameters if name not in OWN]
    known += ["vectorised"] if how == "ensemble" else []
    for name in settings:
        if name not in known:
            raise TypeError(f"{OWNER}: {name!r} is no setting of fit that refits share; there are {known}")
    none_made = how == "laplace" or isinstance(result, Ensemble)
    if none_made and (settings or refits is not None):
        raise ValueError(
            f"{OWNER}: {next(iter(settings), 'refits')!r} is for refits, of which how={how!r} of "
            f"{'an' if isinstance(result, Ensemble) else 'a'} {type(result).__name__} makes none"
        )
    number = REFITS[how] if refits is None else check_integer(OWNER, "refits", refits, least=2)
    if how == "bootstrap" and not given.polish:
        raise ValueError(f"{OWNER}: polish must be positive for the bootstrap, whose refits take these steps; found 0")
    if given.seed > LARGEST_COUNT - 2 * number - 1:
        raise ValueError(f"{OWNER}: seed must leave room for those of refits, which follow it; found {given.seed}")
    return Refits(number, dict(settings), check_flag(OWNER, "progress", progress))


def _check_data(result: FitResult, data: SequenceData) -> None:
    """Warn where the sequences are not those of the fit."""
    import warnings

    unknown = int((~overlapping(data.keys, result.used)).sum())
    if unknown:
        warnings.warn(
            f"{OWNER}: {unknown} of {len(data)} sequences took no part in the fit; what is found is the uncertainty of "
            "a fit to these data",
            UserWarning,
            stacklevel=4,
        )
    if len(result.model.couplings):
        warnings.warn(f"{OWNER}: couplings are no part of the density, and are left out", UserWarning, stacklevel=4)
