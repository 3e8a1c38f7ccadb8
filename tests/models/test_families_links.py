"""Links by name and by object: values, inverses, stability, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats

import latentrnn as lr
from latentrnn.models.component import from_config
from latentrnn.models.observations.links import PositiveLink, UnitLink, as_link

ETA = np.linspace(-4.0, 4.0, 17)
LINKS = {
    "identity": lambda eta: eta,
    "arcsinh": np.arcsinh,
    "exp": np.exp,
    "softplus": lambda eta: np.logaddexp(0.0, eta),
    "sigmoid": special.expit,
    "probit": stats.norm.cdf,
    "cloglog": lambda eta: 1 - np.exp(-np.exp(eta)),
}


class SquareLink(PositiveLink):
    """A link of a user's own."""

    def forward(self, eta):
        return (1 + eta) ** 2

    def inverse(self, value):
        return value.sqrt() - 1


@pytest.mark.parametrize("name", LINKS)
def test_a_named_link_is_its_formula(name: str) -> None:
    link, eta = as_link(name), torch.as_tensor(ETA)
    np.testing.assert_allclose(link(eta), LINKS[name](ETA), rtol=1e-13)
    small = eta[eta < 2]  # where 1 - p has digits left
    torch.testing.assert_close(link.inverse(link(small)), small, rtol=1e-9, atol=1e-9)
    if isinstance(link, PositiveLink):
        np.testing.assert_allclose(link.log(eta), np.log(LINKS[name](ETA)), rtol=1e-12)
    if isinstance(link, UnitLink):
        np.testing.assert_allclose(link.logit(small), special.logit(LINKS[name](small.numpy())), rtol=1e-9)


@pytest.mark.parametrize("name", ["exp", "softplus", "sigmoid", "probit", "cloglog"])
def test_extreme_predictors_stay_finite(name: str) -> None:
    eta = torch.tensor([-60.0, -30.0, 30.0, 45.0], requires_grad=True)
    link = as_link(name)
    value = link.log(eta) if isinstance(link, PositiveLink) else link.logit(eta)
    (gradient,) = torch.autograd.grad(value.sum(), eta)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()


def test_a_link_of_ones_own_goes_wherever_a_name_goes() -> None:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).poisson(4.0, (3, 5, 2)).astype(float)})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(2),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(link=SquareLink())},
    )
    head = model.observations["y"]
    assert repr(head) == "Poisson(link=SquareLink())"
    assert repr(from_config(head.config())) == repr(head)
    baseline = head.starting_baseline(data.observations["y"], data.masks["y"])
    expected = data.observations["y"].mean((0, 1))
    torch.testing.assert_close(
        head.mean(head.distribution(baseline.expand(3, 5, 2), head.inputs(data)))[0, 0], expected
    )


REFUSED = {
    "unknown": (lambda: lr.Bernoulli(link="logit"), ValueError, "Bernoulli: link must be 'sigmoid' or 'probit' or"),
    "wrong codomain by name": (lambda: lr.Poisson(link="sigmoid"), ValueError, "Poisson: link must be 'exp' or"),
    "wrong codomain": (
        lambda: lr.Bernoulli(link=SquareLink()),
        ValueError,
        r"Bernoulli: link must map onto \(0, 1\); SquareLink\(\) maps onto the positive numbers",
    ),
    "no link": (lambda: lr.Poisson(link=torch.exp), TypeError, "Poisson: link must be a name or a Link; found builtin"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_link_for_a_family_is_refused(case: str) -> None:
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        make()
