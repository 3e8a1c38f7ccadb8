"""Sequences left out one at a time and futures left out step by step, against closed forms of a Normal level."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import latentrnn as lr

SCALE, PRIOR = 0.7, 3.0
FIXED = dict.fromkeys(("weight", "input_weight", "bias"), 0.0)


def level(spec: lr.DataSpec, spread: float = PRIOR, scale: float = SCALE) -> lr.LatentRNN:
    """y ~ Normal(level, scale), whose level alone is unknown: Laplace's approximation of it is exact."""
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, spread)}, fixed={"weight": 0.0, "scale": scale})
    latent = lr.Deterministic(fixed={"initial_state": 0.0})
    parts = {"transition": lr.Linear(1, fixed=FIXED), "latent": latent, "observations": {"y": head}}
    return lr.LatentRNN(spec, **parts).double()


@functools.cache
def sequences() -> lr.SequenceData:
    values = 1.5 + SCALE * np.random.default_rng(1).normal(size=(9, 4, 1))
    return lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64)


def exact(data: lr.SequenceData, spread: float = PRIOR, scale: float = SCALE) -> lr.Posterior:
    return lr.laplace(level(data.spec, spread, scale), data, device="cpu").posterior(data, device="cpu")


def left_out(values: np.ndarray, spread: float, scale: float) -> np.ndarray:
    """log p(y_n | the others)."""
    found = []
    for n, own in enumerate(values[..., 0]):
        rest = np.delete(values[..., 0], n, 0)
        precision = spread**-2 + rest.size / scale**2
        covariance = scale**2 * np.eye(len(own)) + 1 / precision
        found.append(
            stats.multivariate_normal.logpdf(own, np.full(len(own), rest.sum() / scale**2 / precision), covariance)
        )
    return np.array(found)


def test_sequences_are_left_out_as_by_refitting() -> None:
    data = sequences()
    models = {"right": exact(data), "blunt": exact(data, scale=2.0), "same": exact(data).reseeded(1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        frame = lr.compare(models, leave_out="sequence", num_particles=1)
    values = data.observations["y"].numpy()
    right, blunt = left_out(values, PRIOR, SCALE).sum(), left_out(values, PRIOR, 2.0).sum()
    total = next(column for column in ("elpd_loo", "elpd") if column in frame)
    assert frame.loc["right", total] == pytest.approx(right, abs=0.2)
    assert frame.loc["blunt", total] == pytest.approx(blunt, abs=0.2)
    assert frame.index[-1] == "blunt"
    assert set(frame["kind"]) == {"loo"}
    assert frame.attrs["held_out"] is False
    assert frame["parameters"].tolist() == [1.0, 1.0, 1.0]
    # models that are the same differ by what their draws do, and that is said
    second = frame.iloc[1]
    assert second["elpd_diff"] < 4 * second["mc_se"] + 1e-9


def test_models_that_are_identical_have_no_difference() -> None:
    data = sequences()
    posterior = exact(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        frame = lr.compare({"one": posterior, "other": posterior}, leave_out="sequence", num_particles=1)
    assert frame["elpd_diff"].tolist() == [0.0, 0.0]
    assert frame["dse"].tolist() == [0.0, 0.0]


def test_what_weights_cannot_leave_out_is_refused() -> None:
    data = sequences()
    one = exact(data[:8])
    new = one.result.posterior(data[8:], device="cpu")
    for models, kind, match in (
        ({"a": one, "b": new}, ValueError, "b: leaving a sequence out by weights means nothing: 1 of 1 sequences were"),
        ({"a": one, "b": object()}, TypeError, "must be a Posterior"),
    ):
        with pytest.raises(kind, match=match):
            lr.compare(models, leave_out="sequence")
    with pytest.raises(ValueError, match="leave_out must be one of 'sequence'"):
        lr.compare({"a": one, "b": one}, leave_out="entry")
    with pytest.raises(ValueError, match="leave_out='sequence' leaves out sequences"):
        lr.compare({"a": one, "b": one}, leave_out="sequence", block_length=3)


def test_fits_are_compared_on_data_that_are_handed_in() -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.poisson(2.0, (12, 6, 1)).astype(float)})
    quiet, cpu = lr.Reporting(progress=False), lr.Compute(device="cpu")
    fits = {}
    for name, size in (("small", 1), ("large", 3)):
        parts = {"latent": lr.Deterministic(), "observations": {"y": lr.Poisson()}}
        model = lr.LatentRNN(data.spec, transition=lr.GRU(size), **parts)
        fits[name] = lr.fit(model, lr.Guide(model), data[:6], steps=3, reporting=quiet, compute=cpu)
    frame = lr.compare(fits, data[6:])
    expected = lr.compare({name: fit.posterior(data[6:]) for name, fit in fits.items()})
    assert frame.equals(expected)
    sizes = {name: sum(value.numel() for value in fit.model.parameters()) for name, fit in fits.items()}
    assert frame["parameters"].to_dict() == sizes
    with pytest.raises(TypeError, match=r"data= goes with fits; expected a FitResult or an Ensemble under 'small'"):
        lr.compare({name: fit.posterior(data[6:]) for name, fit in fits.items()}, data[6:])


# -- the future ----------------------------------------------------------------------------------------------------


@functools.cache
def series() -> lr.SequenceData:
    values = 1.5 + SCALE * np.random.default_rng(2).normal(size=(1, 40, 1))
    return lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64)


def one_by_one(values: np.ndarray, start: int) -> np.ndarray:
    """log p(y_t | y_{<t}) in closed form, from a start on."""
    found = np.zeros(len(values))
    for t in range(start, len(values)):
        precision = PRIOR**-2 + t / SCALE**2
        spread = np.sqrt(SCALE**2 + 1 / precision)
        found[t] = stats.norm(values[:t].sum() / SCALE**2 / precision, spread).logpdf(values[t])
    return found


@pytest.mark.parametrize("refit_every", [None, 5])
def test_the_future_is_left_out_as_by_fitting_at_every_step(refit_every: int | None) -> None:
    pasts: list[int] = []

    def fit(past: lr.SequenceData) -> Any:
        pasts.append(past.num_steps)
        return lr.laplace(level(past.spec), past, device="cpu")

    data = series()
    found = lr.leave_future_out(fit, data, start=10, refit_every=refit_every, num_draws=1000, num_particles=1)
    expected = one_by_one(data.observations["y"][0, :, 0].numpy(), 10)
    np.testing.assert_allclose(found.log_prob[0, :, 0], expected, atol=0.1)
    assert found.total == pytest.approx(expected.sum(), abs=0.3)
    assert found.scored[0, :, 0].tolist() == [False] * 10 + [True] * 30
    assert pasts[0] == 10
    assert pasts == sorted(set(pasts))
    if refit_every is None:
        assert len(pasts) < 10, "weights spare most of the fits"
    else:
        assert {10, 15, 20, 25, 30, 35} <= set(pasts) or max(np.diff(pasts)) <= 5
    # negative control: what has seen the whole series
    seen = exact(data).log_likelihood_one_step_ahead("y", 1, 1000).double()
    inside = torch.logsumexp(seen, 0) - np.log(1000)
    assert float(inside[0, 10:, 0].sum()) > expected.sum() + 0.3


def test_series_are_compared_by_blocks_of_their_future() -> None:
    data = series()
    models = {}
    for name, scale in (("right", SCALE), ("blunt", 2.0)):
        fit = functools.partial(_laplace, scale)
        models[name] = lr.leave_future_out(fit, data, start=10, num_draws=200, num_particles=1)
    frame = lr.compare(models, block_length=5)
    assert list(frame.index) == ["right", "blunt"]
    assert frame.attrs["num_units"] == 6


def _laplace(scale: float, past: lr.SequenceData) -> Any:
    return lr.laplace(level(past.spec, scale=scale), past, device="cpu")


def test_point_estimates_are_fitted_again_and_the_future_is_not_seen() -> None:
    pasts: list[int] = []

    def fit(past: lr.SequenceData) -> lr.FitResult:
        pasts.append(past.num_steps)
        parts = {"latent": lr.Deterministic(), "observations": {"y": lr.Gaussian()}}
        model = lr.LatentRNN(past.spec, transition=lr.GRU(1), **parts)
        quiet, cpu = lr.Reporting(progress=False), lr.Compute(device="cpu")
        return lr.fit(model, lr.Guide(model), past, steps=2, reporting=quiet, compute=cpu)

    found = lr.leave_future_out(fit, _single(), start=20, refit_every=10)
    assert pasts == [20, 30]
    assert bool(found.log_prob[0, 20:].isfinite().all())
    with pytest.raises(ValueError, match="expected refit_every="):
        lr.leave_future_out(fit, _single(), start=20)


def _single() -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"y": series().observations["y"].float()})


REFUSED = {
    "several": ({"data": sequences}, ValueError, "one long series; found 9 sequences"),
    "start": ({"start": 40}, ValueError, "start must leave steps to predict, below 40; found 40"),
    "head": ({"head": "z"}, ValueError, r"unknown head 'z'; expected one of \['y'\]"),
    "part": ({"fit": lr.GRU(2)}, TypeError, "fit must be a function from the past to a fit; found GRU"),
    "fit": ({"fit": 3}, TypeError, "fit must be a function"),
    "result": ({"fit": lambda past: 3}, TypeError, "fit must return a FitResult"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_left_out_is_named(case: str) -> None:
    change, kind, match = REFUSED[case]
    given = {"fit": functools.partial(_laplace, SCALE), "data": series, "start": 10} | change
    with pytest.raises(kind, match=match):
        lr.leave_future_out(given.pop("fit"), given.pop("data")(), **given)
