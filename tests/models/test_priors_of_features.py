"""Priors on features wherever one may stand, within heads above all: densities move with them, posteriors with data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import latentrnn as lr
from tests.models.priors_everywhere import names, sites_that_do_nothing, with_priors
from tests.models.test_every_parameter import DRAWS, assert_one_of, draws, log_densities
from tests.registry import OBSERVATIONS, Fixed, fixed_latents, make_data, shake

FEATURES: dict[str, Callable[[], Any]] = {
    "convolution": lambda: lr.Convolution(["drive"], 2, widths=2, activation="tanh"),
    "embedding": lambda: lr.Embedding("symbol", 3, 2),
    "within another": lambda: lr.Convolution([lr.Embedding("symbol", 3, 2), "drive"], 2, widths=2, activation="tanh"),
    "both ways": lambda: lr.BidirectionalRNN(["drive"], 2),
}
PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "head": lambda feature: {"observations": {"y": lr.Gaussian(covariates=[feature])}},
    "beside a name": lambda feature: {"observations": {"y": lr.Gaussian(covariates=["stimulus", feature])}},
    "source attention": lambda feature: {
        "observations": {"y": lr.Gaussian(readout=lr.SourceAttention([feature], 2, hidden_size=2))}
    },
    "transition": lambda feature: {"inputs": [feature]},
    "beside the time": lambda feature: {"transition": lr.NeuralODE(3, width=4, method="rk4"), "inputs": [feature]},
    "summed-out states": lambda feature: {
        "transition": lr.Linear(2),
        "latent": lr.LinearGaussian(),
        "observations": {"y": lr.Gaussian(covariates=[feature])},
        "inputs": ["drive"],
    },
    "stream": lambda feature: {"transition": lr.Streams({"a": lr.GRU(2), "b": lr.GRU(2)}, {"a": [feature]})},
}


def built(place: str, feature: str) -> tuple[lr.LatentRNN, lr.SequenceData]:
    """A model with priors on all parameters of its features and on nothing else."""
    data = make_data(OBSERVATIONS["features"])
    parts = {"transition": lr.GRU(3), "latent": lr.Innovations(1), "observations": {"y": lr.Gaussian()}}
    parts |= PLACES[place](FEATURES[feature]())
    plain = lr.LatentRNN(data.spec, **parts)
    own = (lr.Convolution, lr.Embedding, lr.BidirectionalRNN)
    described = {repr(part) for part in plain.modules() if isinstance(part, own)}
    priors = {name: given for name, given in names(plain).items() if name in described}
    model = lr.LatentRNN(data.spec, **{name: with_priors(part, priors) for name, part in parts.items()})
    shake(model.double())
    return model, data


@pytest.mark.parametrize(("place", "feature"), [
    (place, feature) for place in PLACES for feature in FEATURES
    if place == "head" or feature in ("convolution", "embedding")
])  # fmt: skip
def test_every_prior_counts_and_draws_agree(place: str, feature: str) -> None:
    model, data = built(place, feature)
    many = draws(model)
    assert len(many) == {"embedding": 1, "convolution": 2, "within another": 3, "both ways": 8}[feature]
    assert sites_that_do_nothing(model, data) == []
    values = fixed_latents(model, data)
    together = log_densities(model, data, values | many)
    for number in range(DRAWS):
        one = {name: value[number, 0] for name, value in many.items()}
        assert_one_of(together, number, log_densities(model, data, values | one))


def test_heads_that_feed_back_run_free_under_many_draws_as_under_each() -> None:
    """With hardly any noise, so that replicates are their means. Features are read step by step here."""
    data = make_data(OBSERVATIONS["features"])[:2]
    feature = lr.Convolution(["drive"], 2, widths=2, priors={"banks.0.weight": dist.Normal(0.0, 1.0)})
    head = lr.Gaussian(covariates=[feature], feedback=lr.History(2), fixed={"scale": 1e-9})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": head})
    shake(model.double())
    many = draws(model)

    def replicates(values: dict[str, torch.Tensor]) -> torch.Tensor:
        with Fixed(values), torch.no_grad():
            return poutine.uncondition(model)(data)["y"]

    with pyro.plate("draws", DRAWS, dim=-2):
        together = replicates(many)
    alone = torch.stack([replicates({name: value[number, 0] for name, value in many.items()}) for number in (0, 1, 2)])
    inside = data.masks["y"].expand_as(alone)
    torch.testing.assert_close(together[inside], alone[inside], rtol=0, atol=1e-6)
    assert (alone[0] - alone[1])[data.masks["y"]].abs().max() > 0.1


# -- a posterior in closed form --------------------------------------------------------------------------------------

TRUTH, NOISE, LEVEL = 1.61, 0.25, 0.3


def regression(feature: str) -> tuple[lr.LatentRNN, lr.SequenceData, np.ndarray, np.ndarray]:
    """y = a feature of x + noise, all but the feature known: a linear regression; its design and what it explains."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, (3, 8, 1)).astype(float)
    x = codes if feature == "embedding" else 2.0 + 3.0 * rng.normal(size=codes.shape)
    design = np.eye(2)[codes[..., 0].astype(int)].reshape(-1, 2) if feature == "embedding" else x.reshape(-1, 1)
    y = (design @ [TRUTH, -1.0][: design.shape[1]]).reshape(x.shape) + NOISE * rng.normal(size=x.shape) + LEVEL
    prior = dist.Normal(0.0, 1.0)
    made: Any = {
        "embedding": lambda: lr.Embedding("x", 2, 1, priors={"vectors.weight": prior}),
        "convolution": lambda: lr.Convolution(
            "x", 1, widths=1, activation="none", priors={"banks.0.weight": prior}, fixed={"banks.0.bias": 0.0}
        ),
    }[feature]()
    head = lr.Gaussian(
        covariates=[made], fixed={"covariate_weight": 1.0, "baseline": LEVEL, "scale": NOISE, "weight": 0.0}
    )
    data = lr.SequenceData.from_arrays({"y": y}, {"x": x}, dtype=torch.float64)
    model = lr.LatentRNN(data.spec, transition=lr.Linear(1), latent=lr.Deterministic(), observations={"y": head})
    return model, data, design, y.reshape(-1) - LEVEL


@pytest.mark.parametrize("by", ["laplace", "fit"])
@pytest.mark.parametrize("feature", ["convolution", "embedding"])
def test_the_posterior_is_that_of_the_regression_and_not_the_prior(feature: str, by: str) -> None:
    model, data, design, y = regression(feature)
    if by == "laplace":
        result = lr.laplace(model, data, device="cpu")
    else:
        result = lr.fit(
            model,
            lr.Guide(model),
            data,
            steps=120,
            optimizer=lr.Adam(0.1),
            objective=lr.ELBO(num_particles=8),
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(device="cpu"),
        )
    (drawn,) = result.posterior(data, device="cpu").parameters(4000).values()
    covariance = np.linalg.inv(np.eye(design.shape[1]) + design.T @ design / NOISE**2)
    mean, spread = covariance @ design.T @ y / NOISE**2, np.sqrt(np.diag(covariance))
    found = drawn.reshape(4000, -1).numpy()
    assert abs(found.mean(0) - mean).max() < 0.3 * spread.min()
    np.testing.assert_allclose(found.std(0), spread, rtol=0.1 if by == "laplace" else 0.25)
    assert abs(mean[0] - TRUTH) < 4 * spread[0] < 0.5  # far from the prior
