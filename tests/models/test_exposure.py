"""Counts in proportion to a known exposure, against SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import latentrnn as lr
from latentrnn.inference import elbo_terms
from tests.oracles import Array

LENGTHS = [6, 4]
AREA = [np.exp(np.random.default_rng(1).normal(size=(n, 2))) for n in LENGTHS]


def counts(features: int = 2, area: list[Array] = AREA, **changes: Any) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    y = [rng.poisson(3.0 * a).astype(float) for a in AREA]
    y[0][1, 0] = np.nan
    covariates = {"area": [a[:, :features] for a in area]}
    return lr.SequenceData.from_arrays({"y": y}, covariates, dtype=torch.float64, **changes)


def built(head: lr.Observation, data: lr.SequenceData) -> tuple[lr.LatentRNN, lr.Guide]:
    model = lr.LatentRNN(data.spec, transition=lr.VanillaRNN(3), latent=lr.Deterministic(), observations={"y": head})
    model.double().initialise(data)
    return model, lr.Guide(model).double()


def density(family: str, mean: Array, head: Any, y: Array) -> Array:
    if family == "Poisson":
        return stats.poisson(mean).logpmf(y)
    if family == "NegativeBinomial":
        r = 1 / head.dispersion.detach().numpy()
        return stats.nbinom(r, r / (r + mean)).logpmf(y)
    pi = head.zero_probability.detach().numpy()
    return np.log(np.where(y == 0, pi, 0) + (1 - pi) * stats.poisson(mean).pmf(y))


@pytest.mark.parametrize("link", ["exp", "softplus"])
@pytest.mark.parametrize("features", [1, 2])
@pytest.mark.parametrize("family", ["Poisson", "NegativeBinomial", "ZeroInflatedPoisson"])
def test_the_mean_is_exposure_times_the_link(family: str, features: int, link: str) -> None:
    data = counts(features)
    model, guide = built(getattr(lr, family)(link=link, exposure="area"), data)
    head = model.observations["y"]
    with torch.no_grad():
        found = elbo_terms(model, guide, data).log_likelihood["y"].item()
        states = model.unroll(data).states().numpy()
        posterior = lr.Posterior(model, guide, data, device="cpu")
    eta = states @ head.readout.weight.detach().numpy().T + head.readout.baseline.detach().numpy()
    mean = (np.exp(eta) if link == "exp" else np.log1p(np.exp(eta))) * data.covariates["area"].numpy()
    mask, y = data.masks["y"].numpy(), data.observations["y"].numpy()
    mean = np.where(mask, mean, 1.0)
    assert found == pytest.approx(np.where(mask, density(family, mean, head, np.where(mask, y, 0)), 0).sum(), abs=1e-8)
    if family == "Poisson":
        np.testing.assert_allclose(posterior.mean("y", 2).numpy()[mask], mean[mask], rtol=1e-10)
        ahead = posterior.one_step_ahead("y", num_particles=2)
        np.testing.assert_allclose(ahead.mean.numpy()[mask], mean[mask], rtol=1e-10)


def test_baselines_start_at_the_rate_per_unit_of_exposure() -> None:
    data = counts()
    mask = data.masks["y"].numpy()
    for scale in (1.0, 1e-6, 1e6):
        scaled = counts(area=[a * scale for a in AREA])
        head = built(lr.Poisson(exposure="area"), scaled)[0].observations["y"]
        y, area = (
            np.where(mask, part.numpy(), 0).sum((0, 1)) for part in (data.observations["y"], data.covariates["area"])
        )
        np.testing.assert_allclose(head.readout.baseline.detach().numpy(), np.log(y / area / scale), rtol=1e-8)


def test_it_drives_no_transition_and_comes_back_from_its_config() -> None:
    head = lr.NegativeBinomial(exposure="area")
    model, _ = built(head, counts())
    assert model.features.size == 0
    assert repr(head) == "NegativeBinomial(exposure='area')"
    assert repr(lr.LatentRNN.from_config(model.config(), model.spec)) == repr(model)


def test_later_exposure_is_asked_for_and_what_if_takes_one() -> None:
    data = counts()
    posterior = lr.Posterior(*built(lr.Poisson(exposure="area"), data), data, device="cpu")
    with pytest.raises(ValueError, match="the model is driven by"):
        posterior.forecast(2, num_samples=2)
    assert posterior.forecast(2, num_samples=2, covariates={"area": np.ones((2, 2, 2))}) is not None
    with pytest.raises(ValueError, match="an exposure must be positive"):
        posterior.forecast(2, num_samples=2, covariates={"area": np.zeros((2, 2, 2))})
    with pytest.raises(ValueError, match="an exposure must be positive"):
        posterior.counterfactual({"area": -1.0}, num_samples=2)


def test_a_filter_follows_it() -> None:
    data = counts(features=1)
    posterior = lr.Posterior(*built(lr.Poisson(exposure="area", feedback=lr.History(2)), data), data, device="cpu")
    online = lr.OnlineFilter(posterior)
    values = torch.where(data.masks["y"], data.observations["y"], torch.nan)[0].numpy()
    expected = posterior.rates("y", 1)[0, 0]
    for t in range(LENGTHS[0]):
        found = online.update({"y": values[t]}, {"area": AREA[0][t, :1]})
        torch.testing.assert_close(found.rates["y"], expected[t], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("head", "data", "message"),
    [
        (lambda: lr.Poisson(exposure="time"), counts, "unknown covariate 'time'"),
        (lambda: lr.Poisson(exposure="area"), lambda: counts(area=[a - 10 for a in AREA]), "must be positive; found"),
    ],
)
def test_refusals(head: Any, data: Any, message: str) -> None:
    given = data()
    with pytest.raises(ValueError, match=message):
        lr.Posterior(*built(head(), given), given, device="cpu")


def test_a_per_sequence_head_has_no_exposure() -> None:
    data = lr.SequenceData.from_arrays(
        {"y": np.ones((2, 2)), "x": np.ones((2, 3, 1))}, {"area": np.ones((2, 3, 1))}, per_sequence=["y"]
    )
    with pytest.raises(ValueError, match="no time axis for an exposure"):
        built(lr.Poisson(exposure="area"), data)
