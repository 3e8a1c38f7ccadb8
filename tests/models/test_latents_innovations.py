"""Priors of innovations and of initial states against dense normals, SciPy and quadrature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Independent, kl_divergence

import latentrnn as lr
from latentrnn.inference.objectives.terms import has_closed_form
from latentrnn.models.latents.gaussian_process import LARGEST, NUGGET, GaussianProcess
from tests import oracles
from tests.linear_gaussian import set_linear
from tests.oracles import Array

# what is computed is held to oracles that count steps, whatever time lies between them
pytestmark = pytest.mark.filterwarnings("ignore:LatentRNN. the data have irregular times")
LENGTHS = (7, 4, 1)
GAUSSIAN = ("white", "ar1", "matern32", "squared_exponential")
PRIORS = (*GAUSSIAN, "student_t")
CLOCKS = ("steps", "dt", "times")


def make(prior: str, clock: str = "steps", lengths: tuple[int, ...] = LENGTHS) -> tuple[lr.LatentRNN, lr.SequenceData]:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": [rng.normal(size=(n, 2)) for n in lengths]},
        dt=0.1 if clock == "dt" else None,
        times=[5.0 + np.cumsum(rng.uniform(0.3, 2.0, n)) for n in lengths] if clock == "times" else None,
        dtype=torch.float64,
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(2),
        latent=lr.Innovations(2, prior=prior),
        observations={"y": lr.Gaussian(covariance="full")},
    ).double()
    with torch.no_grad():
        model.latent.log_scale.copy_(torch.tensor([0.3, -0.4]))
        if "log_time_constant" in dict(model.latent.named_parameters()):
            unit = 0.1 if clock == "dt" else 1.0
            model.latent.log_time_constant.copy_(torch.tensor([1.3 * unit, 4.0 * unit]).log())
    return model, data


def stamps(data: lr.SequenceData, n: int) -> Array:
    length = int(data.lengths[n])
    if data.times is not None:
        return data.times[n, :length].numpy()
    return np.arange(length) * (data.spec.dt or 1.0)


def kernel(prior: str, lag: Array, length_scale: float) -> Array:
    if prior == "white":
        return (lag == 0) * 1.0
    if prior == "ar1":
        return np.exp(-lag / length_scale)
    if prior == "matern32":
        x = np.sqrt(3) * lag / length_scale
        smooth = (1 + x) * np.exp(-x)
    else:
        smooth = np.exp(-(lag**2) / (2 * length_scale**2))
    return 0.999 * smooth + 0.001 * (lag == 0)


def covariance(model: lr.LatentRNN, data: lr.SequenceData, n: int, d: int) -> Array:
    times, latent = stamps(data, n), model.latent
    lengths = [1.0, 1.0] if latent.prior == "white" else latent.time_constant.tolist()
    return latent.scale[d].item() ** 2 * kernel(latent.prior, np.abs(np.subtract.outer(times, times)), lengths[d])


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("prior", PRIORS)
def test_densities(prior: str, clock: str) -> None:
    """Against one dense normal per dimension, or SciPy's Student-t; standard normal in padding."""
    model, data = make(prior, clock)
    u = torch.randn(3, len(data), data.num_steps, 2, dtype=torch.float64)
    found = model.latent.path_prior(data).log_prob(u).detach().numpy()
    for s in range(3):
        for n, length in enumerate(LENGTHS):
            value, rest = u[s, n, :length].numpy(), u[s, n, length:].numpy()
            expected = stats.norm.logpdf(rest).sum()
            for d in range(2):
                if prior == "student_t":
                    scale, degrees = model.latent.scale[d].item(), model.latent.degrees[d].item()
                    expected += stats.t.logpdf(value[:, d], degrees, 0, scale).sum()
                else:
                    expected += stats.multivariate_normal.logpdf(
                        value[:, d], np.zeros(length), covariance(model, data, n, d)
                    )
            assert found[s, n] == pytest.approx(expected, rel=1e-11, abs=1e-9)


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("prior", PRIORS)
def test_draws_have_the_moments_of_the_density(prior: str, clock: str) -> None:
    pyro.set_rng_seed(0)
    model, data = make(prior, clock)
    count = 40_000
    with torch.no_grad():
        draws = model.latent.path_prior(data).expand((count, len(data))).sample()
    assert draws.shape == (count, len(data), data.num_steps, 2)
    for n, length in enumerate(LENGTHS):
        for d in range(2):
            drawn = draws[:, n, :, d].numpy()
            expected = np.eye(data.num_steps)
            if prior == "student_t":  # compared where moments of every order do not matter
                scale, degrees = model.latent.scale[d].item(), model.latent.degrees[d].item()
                for t in range(length):
                    assert stats.kstest(drawn[:, t], stats.t(degrees, 0, scale).cdf).pvalue > 1e-7
                drawn = np.where(np.arange(data.num_steps) < length, 0.0, drawn)
                expected[:length, :length] = 0.0
            else:
                expected[:length, :length] = covariance(model, data, n, d)
            spread = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
            assert (np.abs(np.cov(drawn.T, bias=True).reshape(expected.shape) - expected) <= 6.5 * spread + 1e-12).all()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("prior", GAUSSIAN)
def test_divergences_are_exact(prior: str, clock: str) -> None:
    """KL(q || p) of a mean-field q against the formula for two dense normals; padding contributes nothing."""
    model, data = make(prior, clock)
    loc, scale = torch.randn(len(data), data.num_steps, 2).double(), torch.rand(len(data), data.num_steps, 2).double()
    valid = data.valid.unsqueeze(-1)
    loc, scale = torch.where(valid, loc, 0.0), torch.where(valid, scale + 0.1, 1.0)
    q, p = dist.Normal(loc, scale).to_event(2), model.latent.path_prior(data)
    assert has_closed_form(q, p)
    found = kl_divergence(q, p).detach().numpy()
    for n, length in enumerate(LENGTHS):
        expected = 0.0
        for d in range(2):
            mean, variance = loc[n, :length, d].numpy(), scale[n, :length, d].numpy() ** 2
            prior_covariance = covariance(model, data, n, d)
            precision = np.linalg.inv(prior_covariance)
            log_ratio = np.linalg.slogdet(prior_covariance)[1] - np.log(variance).sum()
            expected += 0.5 * (np.diag(precision) @ variance + mean @ precision @ mean - length + log_ratio)
        assert found[n] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_divergence_of_a_process_is_differentiable() -> None:
    _, data = make("squared_exponential", "times")
    valid, times = data.valid, data.times

    def divergence(log_scale: Tensor, log_length: Tensor, loc: Tensor, log_width: Tensor) -> Tensor:
        p = GaussianProcess("matern32", log_scale.exp(), log_length.exp(), times, valid, len(data))
        q = Independent(torch.distributions.Normal(loc, log_width.exp(), validate_args=False), 2, validate_args=False)
        return kl_divergence(q, p).sum()

    shape = (len(data), data.num_steps, 2)
    inputs = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((2,), (2,), shape, shape)]
    assert torch.autograd.gradcheck(divergence, inputs)


def test_a_student_t_has_no_closed_form() -> None:
    model, data = make("student_t")
    q = dist.Normal(torch.zeros(3, 7, 2).double(), 1.0).to_event(2)
    assert not has_closed_form(q, model.latent.path_prior(data))


@pytest.mark.parametrize("prior", ["matern32", "squared_exponential"])
def test_long_smooth_processes_factorise_in_single_precision(prior: str) -> None:
    times = torch.arange(1000.0)
    scale, length = torch.ones(1), torch.tensor([400.0])
    process = GaussianProcess(prior, scale, length, times, None, 1)
    u = process.sample()
    double = GaussianProcess(prior, scale.double(), length.double(), times.double(), None, 1)
    assert process.log_prob(u).item() == pytest.approx(double.log_prob(u.double()).item(), rel=1e-3, abs=1.0)


def test_too_long_a_process_is_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {LARGEST}; found {LARGEST + 1} steps"):
        GaussianProcess("matern32", torch.ones(1), torch.ones(1), torch.arange(LARGEST + 1.0), None, 1)


def test_unknown_priors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Innovations: prior must be one of .* found 'ar2'"):
        lr.Innovations(2, prior="ar2")
    with pytest.raises(ValueError, match="InitialState: prior must be one of 'standard', 'learned'; found 'free'"):
        lr.InitialState(2, prior="free")


# -- step by step ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("irregular", [False, True], ids=["regular", "irregular"])
@pytest.mark.parametrize("prior", ["white", "ar1", "matern32"])
def test_steps_have_the_covariance_of_the_whole(prior: str, irregular: bool) -> None:
    pyro.set_rng_seed(1)
    model, data = make(prior, "times" if irregular else "steps", (6,))
    latent, transition, count = model.latent, model.transition, 40_000
    gaps = torch.diff(data.times, dim=-1, prepend=data.times[:, :1]) if irregular else None
    with torch.no_grad():
        carry, drawn = latent.begin((count, 1)), []
        for t in range(6):
            a_t = torch.ones(count, 1, 1, dtype=torch.float64)
            carry = latent.advance(transition, carry, a_t[..., :0], None if gaps is None else gaps[:, t])
            drawn.append(carry.innovation[:, 0, :2])
    u = torch.stack(drawn, 1).numpy()
    for d in range(2):
        expected = covariance(model, data, 0, d)
        spread = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
        assert (np.abs(np.cov(u[..., d].T, bias=True) - expected) < 6.5 * spread).all()


def test_student_t_steps_are_student_t() -> None:
    pyro.set_rng_seed(2)
    model, _ = make("student_t")
    with torch.no_grad():
        carry = model.latent.begin((20_000, 1))
        carry = model.latent.advance(model.transition, carry, torch.ones(20_000, 1, 0).double(), None)
    for d in range(2):
        law = stats.t(model.latent.degrees[d].item(), 0, model.latent.scale[d].item())
        drawn = carry.innovation[:, 0, d].numpy()
        assert stats.kstest(drawn, law.cdf).pvalue > 1e-7
        assert stats.kstest(drawn, stats.norm(0, drawn.std()).cdf).pvalue < 1e-7  # negative control


@pytest.mark.parametrize("clock", ["steps", "times"])
def test_a_smooth_process_is_filtered_with_its_own_memory(clock: str) -> None:
    """Linear, Innovations, Gaussian: y_1, ..., y_t are jointly Gaussian, and the density of the next is a ratio."""
    rng = np.random.default_rng(2)
    model, data = make("matern32", clock, (7,))
    numbers = oracles.random_lgssm(rng, state_dim=2, channels=2)
    set_linear(model, numbers)
    mixing = np.array([[1.0, 0.2], [-0.7, 0.5]])
    with torch.no_grad():
        model.transition.input_weight.copy_(torch.as_tensor(mixing))
    means, read, h, H = [], [], np.zeros(2), np.zeros((2, 7, 2))
    for t in range(7):
        h, H = numbers.A @ h + numbers.b, np.einsum("ij,jtd->itd", numbers.A, H)
        H[:, t] += mixing
        means.append(numbers.C @ h + numbers.d)
        read.append(np.einsum("ci,itd->ctd", numbers.C, H))
    total = np.kron(np.eye(7), numbers.R)
    for d in range(2):
        each = np.concatenate(read)[..., d]
        total = total + each @ covariance(model, data, 0, d) @ each.T
    y, mean = data.observations["y"].numpy().ravel(), np.concatenate(means)
    joint = [stats.multivariate_normal.logpdf(y[: 2 * t], mean[: 2 * t], total[: 2 * t, : 2 * t]) for t in range(1, 8)]
    expected = np.diff(joint, prepend=0.0)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    found = lr.Posterior(model, guide, data, device="cpu").one_step_ahead("y", num_particles=1000, num_filters=30)
    difference = np.abs(found.log_prob[0, :, 0].numpy() - expected)
    assert (difference < 6 * found.standard_error[0, :, 0].numpy() + 1e-9).all()
    assert found.standard_error.max() < 0.06


def test_what_has_no_finite_memory_is_not_filtered() -> None:
    model, data = make("squared_exponential")
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    with pytest.raises(ValueError, match=r"no finite memory.*use prior='matern32'"):
        lr.Posterior(model, guide, data, device="cpu").one_step_ahead("y", num_particles=3, num_filters=2)


# -- initial state ---------------------------------------------------------------------------------------------------


def test_a_learned_prior_of_the_initial_state() -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.normal(size=(3, 4, 1))}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.InitialState(2, prior="learned"),
        observations={"y": lr.Gaussian()},
    ).double()
    start = model.latent.start
    with torch.no_grad():
        start.loc.copy_(torch.tensor([1.0, -2.0]))
        start.log_scale.copy_(torch.tensor([0.5, -1.0]))
    g = torch.randn(5, 3, 2).double()
    expected = stats.norm.logpdf(g.numpy(), [1.0, -2.0], np.exp([0.5, -1.0])).sum(-1)
    np.testing.assert_allclose(start.prior((3,)).log_prob(g).detach(), expected, rtol=0, atol=1e-12)
    pyro.set_rng_seed(0)
    with torch.no_grad():
        states = model.latent.begin((40_000,)).state
        mean = start.map(torch.tensor([1.0, -2.0]).double())
        mixed = start.map.weight * start.log_scale.exp()
        error = (mixed @ mixed.T).diagonal().sqrt() / 40_000**0.5
        assert ((states.mean(0) - mean).abs() < 6 * error).all()
        model.latent.start.reset_parameters()
    standard = start.prior().log_prob(torch.ones(2).double()).item()
    assert standard == pytest.approx(-1 - math.log(2 * math.pi), abs=1e-12)


@pytest.mark.parametrize("learned", [False, True], ids=["standard", "learned"])
def test_where_sequences_begin_is_recovered(learned: bool) -> None:
    """Sequences that begin around 3, read without a map of its own: only a learned prior can say so."""
    pyro.set_rng_seed(0)
    p = dist.Normal(torch.tensor([3.0, 3.0]), torch.tensor([0.5, 0.1])).to_event(1)
    g = p.sample((2000,))
    prior = lr.models.latents.initial_state.NormalStart(2, 2, learned=learned)
    if not learned:
        assert prior.prior().log_prob(g).mean() < p.log_prob(g).mean() - 5  # negative control
        assert not [name for name, _ in prior.named_parameters() if "map" not in name]
        return
    optimiser = torch.optim.Adam([prior.loc, prior.log_scale], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        (-prior.prior().log_prob(g).mean()).backward()
        optimiser.step()
    torch.testing.assert_close(prior.loc.detach(), torch.tensor([3.0, 3.0]), rtol=0, atol=0.06)
    torch.testing.assert_close(prior.log_scale.exp().detach(), torch.tensor([0.5, 0.1]), rtol=0.1, atol=0)


def test_the_share_that_is_white_is_what_the_documentation_says() -> None:
    assert NUGGET == 0.001


def fit_prior(prior: str, u: Tensor, **start: Any) -> lr.Innovations:
    """Maximum likelihood of a prior's parameters given trajectories (sequence, time, 1)."""
    data = lr.SequenceData.from_arrays({"y": np.zeros(u.shape)}, dt=0.1)
    latent = lr.Innovations(1, prior=prior)
    latent.build(lr.Linear(1), 0.1)
    optimiser = torch.optim.Adam(latent.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        (-latent.path_prior(data).log_prob(u).mean()).backward()
        optimiser.step()
    return latent


@pytest.mark.parametrize("prior", ["ar1", "matern32", "squared_exponential"])
def test_scale_and_length_scale_are_recovered(prior: str) -> None:
    pyro.set_rng_seed(3)
    data = lr.SequenceData.from_arrays({"y": np.zeros((60, 40, 1))}, dt=0.1)
    truth = lr.Innovations(1, prior=prior)
    truth.build(lr.Linear(1), 0.1)
    with torch.no_grad():
        truth.log_scale.fill_(math.log(2.0))
        truth.log_time_constant.fill_(math.log(0.4))
        u = truth.path_prior(data).sample()
    found = fit_prior(prior, u)
    assert found.scale.item() == pytest.approx(2.0, rel=0.12)
    assert found.time_constant.item() == pytest.approx(0.4, rel=0.12)
    white = fit_prior("white", u)  # negative control: without memory the paths are far less likely
    difference = found.path_prior(data).log_prob(u).mean() - white.path_prior(data).log_prob(u).mean()
    assert difference > 5


def test_degrees_of_freedom_are_recovered() -> None:
    pyro.set_rng_seed(4)
    u = dist.StudentT(3.0, 0.0, 0.5).sample((60, 40, 1))
    found, data = fit_prior("student_t", u), lr.SequenceData.from_arrays({"y": np.zeros(u.shape)}, dt=0.1)
    assert found.degrees.item() == pytest.approx(3.0, rel=0.2)
    assert found.scale.item() == pytest.approx(0.5, rel=0.1)
    white = fit_prior("white", u)
    assert found.path_prior(data).log_prob(u).mean() > white.path_prior(data).log_prob(u).mean() + 1


def test_the_nugget_of_a_process_can_be_said() -> None:
    """K = scale^2 [(1 - n) exp(-lag^2 / 2 l^2) + n 1(t = s)], by NumPy and SciPy, and refusals."""
    times = torch.arange(5, dtype=torch.float64)
    scale, length = torch.tensor([1.5], dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64)
    u = torch.randn(1, 5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for nugget in (1e-8, 0.3):
        process = GaussianProcess("squared_exponential", scale, length, times, None, 1, nugget)
        lags = np.subtract.outer(np.arange(5.0), np.arange(5.0))
        covariance = 1.5**2 * ((1 - nugget) * np.exp(-(lags**2) / 18) + nugget * np.eye(5))
        expected = stats.multivariate_normal.logpdf(u[0, :, 0], np.zeros(5), covariance, allow_singular=False)
        assert float(process.log_prob(u)) == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(ValueError, match=r"nugget=1e-12 cannot be factorised in torch.float32"):
        GaussianProcess("squared_exponential", scale.float(), 50 * length.float(), times.float(), None, 1, 1e-12)
    with pytest.raises(ValueError, match="a nugget is one of a Gaussian process; found prior='ar1'"):
        lr.Innovations(1, prior="ar1", nugget=0.1)
    with pytest.raises(ValueError, match="nugget"):
        lr.Innovations(1, prior="matern32", nugget=1.0)
    assert "nugget" not in repr(lr.Innovations(1, prior="matern32"))
