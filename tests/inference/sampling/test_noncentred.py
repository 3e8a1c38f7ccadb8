"""Latents by their noise and baselines by their level: the same density, the same posterior, what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.sampling.hamiltonian.density import FlatDensity
from latentrnn.inference.sampling.noncentred import NonCentred
from tests.inference.sampling.test_laplace import baseline_of_a_chain, exact_baseline
from tests.models.priors_everywhere import built
from tests.registry import DEFAULTS, LATENTS, Combination

REFUSED = ("innovations student t", "relaxed discrete", "relaxed discrete, 3 states")
OF_NOISE = [name for name in LATENTS if name not in (*REFUSED, "deterministic")]
PARTS: list[Combination] = [
    ("gru", "innovations ar1", "gaussian irregular"),
    ("linear", "markov normal", "poisson"),
    ("linear", "recurrent normal", "poisson"),
    ("linear", "innovations matern", "poisson"),
]
MORE = [(DEFAULTS[0], name, DEFAULTS[2]) for name in OF_NOISE]


@pytest.mark.parametrize("parts", [*PARTS, *(pytest.param(of, marks=pytest.mark.slow) for of in MORE)], ids="-".join)
def test_the_density_is_that_of_the_model_in_other_coordinates(parts: Combination) -> None:
    """log p(u) = log p(x(u)) + log |det dx/du|, with the determinant of all coordinates together."""
    torch.manual_seed(0)
    model, data = built(parts)
    for weight in model.parameters():
        weight.requires_grad_(False)
    noncentred = NonCentred(model, data)
    density, plain = FlatDensity(noncentred, (data,)), FlatDensity(model, (data,))
    assert len(noncentred.noises) == len(model.latent_sites())
    assert noncentred.levels.keys() == {name for name in model.parameter_sites() if name.endswith(".baseline")}
    assert noncentred.levels
    at = 0.3 * torch.randn(2, density.dim, dtype=torch.float64)
    values, _ = density.with_gradient(at)
    drawn = {name: value.unsqueeze(0) for name, value in density.values(at).items()}  # of one chain
    one = {name: value[0, 1] for name, value in noncentred.values(drawn).items()}
    assert one.keys() == plain.sites.keys()
    flat = plain.flat(one, torch.zeros(plain.dim, dtype=torch.float64))
    expected, _ = plain.with_gradient(flat.unsqueeze(0))
    matrix = torch.autograd.functional.jacobian(lambda u: to_own(noncentred, density, plain, u), at[1])
    volume = torch.linalg.slogdet(matrix).logabsdet
    assert values[1].item() == pytest.approx((expected[0] + volume).item(), rel=1e-10, abs=1e-8)
    # and back again
    torch.testing.assert_close(density.flat(noncentred.noise(one), torch.zeros_like(flat)), at[1])


def to_own(noncentred: NonCentred, density: FlatDensity, plain: FlatDensity, u: Tensor) -> Tensor:
    """The model's own unconstrained numbers as a function of the others, by the program itself."""
    values = density.values(u)
    trace = poutine.trace(poutine.condition(noncentred._begin, data=values)).get_trace(noncentred.data)
    rollout = trace.nodes["_RETURN"]["value"][0]
    found = {name: site["value"] for name, site in trace.nodes.items() if name in plain.sites}
    return plain.flat(found | noncentred._baselines(rollout, -1), u)


def chains(parametrisation: Any, num_samples: int, warmup: int, **settings: Any) -> lr.Posterior:
    fit, data, _ = baseline_of_a_chain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return lr.sample(
            fit.model, data, parametrisation=parametrisation, num_samples=num_samples, warmup=warmup, chains=2,
            progress=False, device="cpu", **settings,
        )  # fmt: skip


@pytest.mark.slow
def test_the_posterior_is_the_exact_one_and_that_of_the_other_parametrisation() -> None:
    mean, sd = exact_baseline(baseline_of_a_chain()[2])
    found = {name: chains(name, 250, 100) for name in ("centred", "noncentred")}
    for posterior in found.values():
        drawn, ess = posterior.parameters(500)["y.readout.baseline"], posterior.chains.smallest_ess
        assert ess > 60
        assert abs(float(drawn.mean()) - mean) < 6 * sd / ess**0.5
        assert abs(np.log(float(drawn.std()) / sd)) < 5 / (2 * ess) ** 0.5
    one, other = (posterior.latents(500)["states"] for posterior in found.values())
    error = one.std(0) * sum(1 / posterior.chains.smallest_ess for posterior in found.values()) ** 0.5
    apart = ((one.mean(0) - other.mean(0)) / error).abs()
    assert float(apart[~apart.isnan()].max()) < 6  # NaN in padding
    # the wrong baseline is told from it
    assert abs(float(drawn.mean()) - (mean + sd)) > 6 * sd / ess**0.5


def test_draws_are_of_the_model_s_own_sites_and_go_on_from_a_guide() -> None:
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).poisson(1.0, (3, 4, 2)).astype(float)})
    latent = lr.Innovations(2, initial=2, prior="ar1", priors={"time_constant": dist.LogNormal(1.0, 0.5)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=latent, observations={"y": head})
    quiet = {"reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")}
    fit = lr.fit(model, lr.Guide(model, encoder=lr.RNNEncoder(3)), data, steps=2, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        posterior = lr.sample(
            model, data, given=fit, parametrisation="noncentred", num_samples=6, warmup=6, chains=2, max_tree_depth=3,
            progress=False, device="cpu",
        )  # fmt: skip
    assert set(posterior.parameters(12)) == {"latent.time_constant", "y.readout.baseline"}
    latents = posterior.latents(12)
    assert {name: tuple(latents[name].shape) for name in ("initial", "innovations")} == {
        "initial": (12, 3, 2), "innovations": (12, 3, 4, 2),
    }  # fmt: skip
    assert set(posterior.chains.r_hat) == {"latent.time_constant", "y.readout.baseline", "initial", "innovations"}
    assert posterior.predictive(12)["y"].shape == (12, 3, 4, 2)


def refused(latent: str, **settings: Any) -> None:
    model, data = built((DEFAULTS[0], latent, DEFAULTS[2]))
    lr.sample(model, data, parametrisation="noncentred", progress=False, check_priors=False, **settings)


@pytest.mark.parametrize("latent", REFUSED)
def test_latents_that_are_no_location_and_scale_are_refused_by_name(latent: str) -> None:
    with pytest.raises(ValueError, match=r"location \+ scale \* normal noise.*'(innovations|switch_logits)' of .*\("):
        refused(latent)


def test_what_has_no_such_parametrisation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of local latents, and Deterministic.*draws none"):
        refused("deterministic")
    fit, data, _ = baseline_of_a_chain()
    with pytest.raises(ValueError, match=r"sites='parameters'.*parametrisation='noncentred'"):
        lr.sample(fit.model, data, given=fit, sites="parameters", parametrisation="noncentred")
    with pytest.raises(ValueError, match=r"parametrisation must be one of 'centred', 'noncentred'; found 'other'"):
        lr.sample(fit.model, data, parametrisation="other")
