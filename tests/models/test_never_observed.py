"""Channels that training data never show: finite starting values, and finite densities where they do show up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr

RNG = np.random.default_rng(0)
POSITIVE = RNG.gamma(2.0, 3.0, (4, 8, 3))
COUNTS, CODES = RNG.poisson(5.0, (4, 8, 3)).astype(float), RNG.integers(0, 2, (4, 8, 3)).astype(float)
FAMILIES: dict[str, tuple[lr.Observation, Any]] = {
    "Bernoulli": (lr.Bernoulli(), CODES),
    "BetaBinomial": (lr.BetaBinomial(30), COUNTS),
    "Binomial": (lr.Binomial(30), COUNTS),
    "Calcium": (lr.Calcium(0.5), POSITIVE),
    "Categorical": (lr.Categorical(3), CODES),
    "DirichletMultinomial": (lr.DirichletMultinomial(), COUNTS),
    "Gamma": (lr.Gamma(), POSITIVE),
    "Gamma, softplus": (lr.Gamma("softplus"), POSITIVE),
    "Gaussian": (lr.Gaussian(), POSITIVE),
    "Gaussian, full": (lr.Gaussian(covariance="full"), POSITIVE),
    "LogNormal": (lr.LogNormal(), POSITIVE),
    "Multinomial": (lr.Multinomial(), COUNTS),
    "NegativeBinomial": (lr.NegativeBinomial(), COUNTS),
    "OrderedLogistic": (lr.OrderedLogistic(3), CODES),
    "Poisson": (lr.Poisson(), COUNTS),
    "StudentT": (lr.StudentT(), POSITIVE),
    "Volatility": (lr.Volatility(), POSITIVE),
    "ZeroInflatedGamma": (lr.ZeroInflatedGamma(), POSITIVE),
    "ZeroInflatedPoisson, state": (lr.ZeroInflatedPoisson(zeros="state"), COUNTS),
}


@pytest.mark.parametrize("unseen", [[1], [0, 1, 2]], ids=["a channel", "a head"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_training_data_never_show_starts_finite_and_is_scored(family: str, unseen: list[int]) -> None:
    observation, values = FAMILIES[family]
    hidden = values.copy()
    hidden[..., unseen] = np.nan
    trained = lr.SequenceData.from_arrays({"y": hidden, "z": POSITIVE[..., :1]}, dt=0.02)
    model = lr.LatentRNN(
        trained.spec,
        transition=lr.GRU(2),
        latent=lr.Deterministic(),
        observations={"y": observation, "z": lr.Gaussian()},
    )
    fitted = lr.fit(model, lr.Guide(model), trained, steps=3, seed=0, reporting=lr.Reporting(progress=False))
    assert np.isfinite(fitted.history["elbo"]).all()
    assert not fitted.events
    for name, parameter in fitted.model.named_parameters():
        assert bool(parameter.isfinite().all()), name
        assert float(parameter.detach().abs().max()) < 60.0, name
    assert torch.isfinite(fitted.posterior(trained).evidence().values).all()
    held_out = lr.SequenceData.from_arrays({"y": values, "z": POSITIVE[..., :1]}, dt=0.02)
    found = fitted.posterior(held_out).evidence().values
    assert torch.isfinite(found).all()
    assert float(found.min()) > -8 * 4 * 100  # of 32 values, none of which is a surprise of 100 nats
