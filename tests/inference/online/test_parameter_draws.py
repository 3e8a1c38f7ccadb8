"""Draws of the parameters carried along with the particles: each what it is alone, weighed by its evidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.filters.particle_filter import ParticleFilter
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from latentrnn.inference.posterior.draws.stored_draws import StoredDraws
from tests.inference.online.streamed import LENGTH, STREAMED, steps_of
from tests.linear_gaussian import Array
from tests.models.priors_everywhere import names, with_priors
from tests.models.test_priors_of_features import FEATURES, PLACES
from tests.registry import (
    LATENTS,
    OBSERVATIONS,
    TRANSITIONS,
    default_transition,
    latent_for,
    make_data,
    shake,
)

DRAWS, PARTICLES = 3, 5


# -- in closed form --------------------------------------------------------------------------------------------------


def gamma_poisson(counts: Array) -> tuple[lr.Posterior, Array]:
    """Counts of an unknown rate and nothing else, with draws of the logarithm of it: a posterior, and the rates."""
    data = lr.SequenceData.from_arrays({"y": counts[None, :, None]}, dtype=torch.float64)
    head = lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)}, fixed={"weight": 0.0})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head}).double()
    torch.manual_seed(0)
    rates = torch.distributions.Gamma(3.0, 1.0).sample((400,)).double()
    draws = {"y.readout.baseline": rates.log().unsqueeze(-1)}
    return lr.Posterior(model, StoredDraws([], draws, ()), data, device="cpu"), rates.numpy()


def test_draws_are_weighed_by_their_evidence_as_in_closed_form() -> None:
    """Of draws from Gamma(3, 1) the weights are Poisson likelihoods; the mixture comes near the negative binomial."""
    counts = np.array([4.0, 6.0, 3.0, 5.0])
    posterior, rates = gamma_poisson(counts)
    online = lr.OnlineFilter(posterior, num_draws=len(rates))
    log_likelihood, shape, inverse_scale = np.zeros(len(rates)), 3.0, 1.0
    for count in counts:
        before = np.exp(log_likelihood - logsumexp(log_likelihood))
        found = online.update([count])
        expected = logsumexp(np.log(before) + stats.poisson.logpmf(count, rates))
        assert found.log_prob == pytest.approx(expected, abs=1e-10)
        assert found.predicted["y"].item() == pytest.approx(before @ rates, abs=1e-10)
        exact = stats.nbinom.logpmf(count, shape, inverse_scale / (inverse_scale + 1))
        assert found.log_prob == pytest.approx(exact, abs=0.15)
        shape, inverse_scale = shape + count, inverse_scale + 1
        log_likelihood += stats.poisson.logpmf(count, rates)
        weights = np.exp(log_likelihood - logsumexp(log_likelihood))
        np.testing.assert_allclose(found.draw_weights, weights, rtol=0, atol=1e-12)
        assert found.rates["y"].item() == pytest.approx(weights @ rates, abs=1e-10)
        assert found.rates["y"].item() == pytest.approx(shape / inverse_scale, rel=0.05)
        assert found.effective_draws == pytest.approx(1 / (weights**2).sum(), rel=1e-9)
    at_means = lr.OnlineFilter(posterior)  # negative control: parameters that stay at their means learn nothing
    still = [at_means.update([count]) for count in counts]
    assert still[0].predicted["y"] == still[-1].predicted["y"]
    assert still[0].draw_weights is None
    assert abs(still[-1].predicted["y"].item() - weights @ rates) > 1.0


def noise_scales() -> tuple[lr.LatentRNN, lr.SequenceData, Tensor]:
    """A level that wanders, seen with noise of an unknown scale: the model, data, and draws of the scale."""
    rng = np.random.default_rng(1)
    level = np.cumsum(rng.normal(size=30)) * 0.3
    y = level + 0.6 * rng.normal(size=30)
    data = lr.SequenceData.from_arrays({"y": y[None, :, None]}, dtype=torch.float64)
    head = lr.Gaussian(priors={"scale": dist.LogNormal(-0.5, 0.5)}, fixed={"weight": 1.0, "baseline": 0.0})
    latent = lr.MarkovNormal(fixed={"scale": 0.3, "initial_loc": 0.0, "initial_scale": 0.5})
    transition = lr.Linear(1, fixed={"weight": 1.0, "input_weight": 0.0, "bias": 0.0})
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations={"y": head}, inputs=[]).double()
    return model, data, torch.tensor([[0.3], [0.6], [0.9], [1.5]], dtype=torch.float64)


def kalman(y: Array, noise: float) -> Array:
    """(3, time): log p(y_t | y_<t) of the level under a noise scale, and its filtered means and variances, by hand."""
    mean, variance, found = 0.0, 0.25, []
    for value in y:
        variance += 0.09
        total = variance + noise**2
        density = stats.norm.logpdf(value, mean, total**0.5)
        mean, variance = mean + variance / total * (value - mean), variance * noise**2 / total
        found.append((density, mean, variance))
    return np.array(found).T


def test_a_linear_gaussian_model_of_unknown_noise_is_the_mixture_of_kalman_filters() -> None:
    model, data, scales = noise_scales()
    guide = StoredDraws(model.latent_sites(), {"y.scale": scales}, ())
    online = lr.OnlineFilter(lr.Posterior(model, guide, data, device="cpu"), num_draws=4, num_particles=20_000)
    y = data.observations["y"][0, :, 0].numpy()
    densities, means, variances = np.stack([kalman(y, noise) for noise in scales[:, 0].tolist()], 1)
    log_weights = np.cumsum(densities, 1)
    weights = np.exp(log_weights - logsumexp(log_weights, axis=0))
    total = 0.0
    for t, told in enumerate(steps_of(data)):
        found = online.update(**told)
        total += found.log_prob
        np.testing.assert_allclose(found.draw_weights, weights[:, t], rtol=0, atol=0.04)
        mean = weights[:, t] @ means[:, t]
        variance = weights[:, t] @ (variances[:, t] + (means[:, t] - mean) ** 2)
        assert found.mean.item() == pytest.approx(mean, abs=0.04)
        assert found.covariance.item() == pytest.approx(variance, rel=0.15)
        assert found.values.shape == (4 * 20_000, 1)
    assert total == pytest.approx(logsumexp(log_weights[:, -1] - math.log(4)), abs=0.25)
    # negative controls: what equal weights would say, and the noise that is likely is another than was likely first
    assert abs(total - np.logaddexp.reduce(densities - math.log(4), axis=0).sum()) > 1.0
    assert weights[:, 0].max() < 0.5 < weights[:, -1].max()


def test_steps_are_those_of_one_step_ahead_which_weighs_its_draws_by_the_past() -> None:
    """`Posterior.one_step_ahead` of single draws, weighed by hand, and of all together."""
    counts = np.array([4.0, 6.0, 3.0, 5.0])
    whole, _ = gamma_poisson(counts)
    model, data = whole.model, whole.data
    guide = lr.Guide(model).double()
    with torch.no_grad():
        guide.parameter_sites.loc["y_readout_baseline"].fill_(1.3)
        guide.parameter_sites.log_scale["y_readout_baseline"].fill_(-1.0)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    online = lr.OnlineFilter(posterior, num_draws=4)
    drawn = posterior.parameters(4)["y.readout.baseline"]
    assert torch.equal(online.draws["y.readout.baseline"], drawn)
    together = posterior.one_step_ahead("y", num_draws=4)
    ahead = []
    for value in drawn:
        alone = lr.Posterior(model, StoredDraws([], {"y.readout.baseline": value[None]}, ()), data, device="cpu")
        ahead.append(alone.one_step_ahead("y", num_draws=2).log_prob[0, :, 0])
    joint = torch.stack(ahead)
    before = torch.nn.functional.pad(joint.cumsum(1), (1, 0))[:, :-1].log_softmax(0)
    expected = torch.logsumexp(before + joint, 0)
    found = torch.tensor([online.update(**told).log_prob for told in steps_of(data)], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(found, together.log_prob[0, :, 0], rtol=0, atol=1e-9)
    # negative control: equal weights at every step
    assert (found - torch.logsumexp(joint - math.log(4), 0))[1:].abs().max() > 1e-3


# -- every part under draws as under each of them --------------------------------------------------------------------


def everywhere(
    observation: str, latent: str, transition: str | None = None, change: dict[str, Any] | None = None
) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    """A model with priors on all parameters of all components, and a guide with a causal encoder."""
    heads = OBSERVATIONS[observation]
    data = make_data(heads, (LENGTH,))
    described = {
        "transition": TRANSITIONS[default_transition(observation) if transition is None else transition](),
        "latent": LATENTS[latent](),
        "observations": heads.observations(),
        "inputs": heads.inputs(),
    } | (change or {})
    priors = names(lr.LatentRNN(data.spec, **described))
    model = lr.LatentRNN(data.spec, **{name: with_priors(part, priors) for name, part in described.items()}).double()
    shake(model)
    encoder = lr.RNNEncoder(4, direction="causal", mask_input=True)
    guide = lr.Guide(model, encoder=encoder, family=lr.MeanField()).double()
    guide.initialise(model, data)
    shake(guide)
    return model, guide, data


def drawn_from_priors(model: lr.LatentRNN, number: int = DRAWS) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {k: p.sample(torch.Size((number,))).double() for k, (p, _) in model.parameter_sites().items()}


def under(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, draws: dict[str, Tensor]) -> lr.Posterior:
    """A posterior whose parameters are these draws."""
    local = lr.Guide.from_config(guide.config(), model).double()
    local.load_state_dict(guide.state_dict())
    local.parameter_sites = None
    return lr.Posterior(model, StoredDraws(model.latent_sites(), draws, (), local), data, device="cpu")


def agree(
    model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, number: int = DRAWS, **settings: Any
) -> list[lr.FilteredState]:
    """A filter under many draws is the mixture of the filters under each: where nothing in them is left to chance."""
    draws = drawn_from_priors(model, number)
    together = lr.OnlineFilter(under(model, guide, data, draws), num_draws=number, **settings)
    alone = [
        lr.OnlineFilter(under(model, guide, data, {k: v[k_:][:1] for k, v in draws.items()}), **settings)
        for k_ in range(number)
    ]
    found, log_weights = [], torch.zeros(number, dtype=torch.float64)
    for told in steps_of(data):
        mixture, parts = together.update(**told), [each.update(**told) for each in alone]
        torch.testing.assert_close(mixture.states, torch.cat([part.states for part in parts]), rtol=0, atol=1e-9)
        before = log_weights.softmax(0)
        if mixture.log_prob is not None:
            own = torch.tensor([part.log_prob for part in parts], dtype=torch.float64)
            assert mixture.log_prob == pytest.approx(
                float(torch.logsumexp(log_weights.log_softmax(0) + own, 0)), abs=1e-8
            )
            log_weights = log_weights + own
        weights = log_weights.softmax(0)
        torch.testing.assert_close(mixture.draw_weights, weights, rtol=0, atol=1e-8)
        for field, share in (("rates", weights), ("predicted", before)):
            ours = getattr(mixture, field)
            assert ours.keys() == getattr(parts[0], field).keys()
            for name, value in ours.items():
                expected = sum(w * getattr(part, field)[name] for w, part in zip(share, parts, strict=True))
                torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-8)
        found.append(mixture)
    return found


@pytest.mark.parametrize("observation", STREAMED)
def test_heads_under_draws_are_mixtures_of_heads(observation: str) -> None:
    model, guide, data = everywhere(observation, "deterministic")
    found = agree(model, guide, data, num_particles=4)
    assert found[-1].weights.shape == (DRAWS,)  # of what is not random one particle is enough


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_transitions_under_draws_are_mixtures_of_transitions(transition: str) -> None:
    latent = latent_for(transition, "gaussian", "innovations")
    settings = {"num_particles": None, "proposal": "guide"}
    agree(*everywhere("gaussian", latent, transition), **settings)


@pytest.mark.parametrize("latent", LATENTS)
def test_latents_under_draws_go_with_the_guide_as_under_each(latent: str) -> None:
    clock = "gaussian irregular" if "ar1" in latent or "matern" in latent else "gaussian"
    found = agree(*everywhere(clock, latent), num_particles=None, proposal="guide")
    torch.testing.assert_close(found[-1].draw_weights, torch.full((DRAWS,), 1 / DRAWS).double())
    assert found[-1].mean.shape == found[-1].covariance.shape[:1]


@pytest.mark.parametrize("place", ["head", "beside a name", "transition", "beside the time", "stream"])
def test_features_under_draws_are_mixtures_of_features(place: str) -> None:
    """With another number of draws than steps that are kept, whose axis is not that of draws."""
    agree(*everywhere("gaussian", "deterministic", "gru", PLACES[place](FEATURES["convolution"]())), number=4)


@pytest.mark.parametrize("proposal", ["prior", "guide"])
@pytest.mark.parametrize("latent", LATENTS)
def test_particles_of_draws_are_those_of_the_batch_filter(latent: str, proposal: str) -> None:
    """One filter of the batch for each draw, with the random numbers that follow the draws' own."""
    if proposal == "guide" and latent in ("deterministic", "initial state", "initial state, learned"):
        pytest.skip("nothing along time to propose")
    clock = "gaussian irregular" if "ar1" in latent or "matern" in latent else "gaussian"
    model, guide, data = everywhere(clock, latent)
    online = lr.OnlineFilter(
        lr.Posterior(model, guide, data), num_draws=DRAWS, num_particles=PARTICLES, proposal=proposal
    )
    sampler = PosteriorSampler(model, guide, data, device="cpu", seed=0)
    with sampler.drawing():
        draws = sampler.parameter_trace(DRAWS)
        for name in model.parameter_sites():
            value = draws.nodes[name]["value"]
            assert torch.equal(online.draws[name], value.squeeze(1))
            draws.nodes[name]["value"] = value.unsqueeze(1)
        state = torch.get_rng_state()
        rollout = sampler.prior_rollout(draws)
        masks = {n: h.observed(data) for n, h in rollout.observations.items()}
        proposals = guide.local.proposals(guide.variational_parameters(data), data) if proposal == "guide" else None
        particles = PARTICLES if model.latent_sites() else 1
        torch.set_rng_state(state)
        whole = ParticleFilter(rollout, particles, DRAWS, proposals=proposals, masks=masks).run()
    total = sum(online.update(**told).log_prob for told in steps_of(data))
    assert total == pytest.approx(float(torch.logsumexp(whole.log_evidence, 0)) - math.log(DRAWS), abs=1e-8)
    last = (whole.log_weights + whole.log_evidence.log_softmax(0).unsqueeze(1)).flatten()
    found = online.memory.log_weights + online.memory.log_draw_weights
    torch.testing.assert_close(found.flatten(), last, rtol=0, atol=1e-7)


# -- where draws come from -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["normal", "multivariate", "low_rank", "flow", "point"])
def test_every_family_of_parameters_gives_the_draws_of_its_posterior(family: str) -> None:
    model, _, data = everywhere("gaussian population", "deterministic", "vanilla")
    guide = lr.Guide(model, global_family=family).double()
    guide.initialise(model, data)
    shake(guide)
    posterior = lr.Posterior(model, guide, data, device="cpu", seed=3)
    online = lr.OnlineFilter(posterior, num_draws=5, seed=3)
    for name, value in posterior.parameters(5).items():
        assert torch.equal(online.draws[name], value), name
    assert online.draws.keys() == model.parameter_sites().keys()
    found = [online.update(**told) for told in steps_of(data)][-1]
    assert math.isfinite(found.log_prob)
    equal = bool((found.draw_weights - 0.2).abs().max() < 1e-9)
    assert equal is (family == "point")


def test_chains_and_laplace_are_followed_by_their_own_draws() -> None:
    posterior, _ = gamma_poisson(np.array([4.0, 6.0, 3.0, 5.0]))
    model, data = posterior.model, posterior.data
    settings = {"num_samples": 100, "warmup": 100, "chains": 2, "progress": False, "device": "cpu"}
    chains = lr.sample(model, data, check_priors=False, **settings)
    online = lr.OnlineFilter(chains, num_draws=200)
    assert torch.equal(online.draws["y.readout.baseline"], chains.parameters(200)["y.readout.baseline"])  # all of them
    assert 1 < online.update([4.0]).effective_draws <= 200
    laplace = lr.laplace(model, data, device="cpu", check_priors=False)
    online = lr.OnlineFilter(laplace, num_draws=8)
    expected = laplace.posterior(data, device="cpu").parameters(8)["y.readout.baseline"]
    assert torch.equal(online.draws["y.readout.baseline"], expected)
    few = lr.OnlineFilter(lr.Posterior(model, laplace.guide, data), num_draws=8, seed=1)
    assert not torch.equal(few.draws["y.readout.baseline"], expected)


def test_where_no_parameter_has_a_prior_draws_are_not_needed() -> None:
    data = make_data(OBSERVATIONS["gaussian"], (LENGTH,))
    parts = {"transition": lr.GRU(3), "latent": lr.Innovations(2), "observations": {"y": lr.Gaussian()}}
    model = lr.LatentRNN(data.spec, **parts).double()
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(3)).double(), data)
    with_draws, without = (lr.OnlineFilter(posterior, num_particles=5, num_draws=number) for number in (4, None))
    for told in steps_of(data):
        found, expected = with_draws.update(**told), without.update(**told)
        assert found.log_prob == expected.log_prob
        assert found.draw_weights is None


# -- what comes and goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("particles", "proposal"), [(PARTICLES, "prior"), (PARTICLES, "guide"), (None, "guide")])
def test_it_goes_on_after_being_saved_with_the_same_draws_alone(
    tmp_path: Path, particles: int | None, proposal: str
) -> None:
    model, guide, data = everywhere("gaussian history", "innovations ar1")
    told = steps_of(data)

    def made(seed: int = 0, number: int | None = DRAWS) -> lr.OnlineFilter:
        posterior = lr.Posterior(model, guide, data)
        return lr.OnlineFilter(posterior, num_particles=particles, proposal=proposal, num_draws=number, seed=seed)

    whole, first = made(), made()
    expected = [whole.update(**each) for each in told]
    for each in told[:3]:
        first.update(**each)
    first.save(tmp_path / "stream.safetensors")
    first.update(**told[3])  # what was saved does not move on
    second = made()
    second.load(tmp_path / "stream.safetensors")
    for each, state in zip(told[3:], expected[3:], strict=True):
        found = second.update(**each)
        assert torch.equal(found.states, state.states)
        assert torch.equal(found.weights, state.weights)
        assert torch.equal(found.draw_weights, state.draw_weights)
        assert found.log_prob == state.log_prob
    kept = second.state_dict()
    other = made(seed=5)
    with pytest.raises(ValueError, match=r"reached with other draws of '.*'; make the filter that goes on"):
        second.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"and 3 draws of the parameters"):
        second.load_state_dict(made(number=2).state_dict())
    with pytest.raises(ValueError, match=r"of another filter|a filter with \d+ particles"):
        second.load_state_dict(made(number=None).state_dict())
    with pytest.raises(ValueError, match=r"of another filter|a filter with \d+ particles"):
        made(number=None).load_state_dict(second.state_dict())
    after = second.state_dict()
    assert all(torch.equal(after[name], value) for name, value in kept.items())
    sizes = {name: value.shape for name, value in kept.items()}
    for each in told[:2] * 3:
        second.update(**each)
    assert {name: value.shape for name, value in second.state_dict().items()} == sizes  # nothing grows


def test_draws_that_are_ruled_out_stay_so_and_leave_no_trace() -> None:
    """A rate of zero cannot give a count; states that grow without bound leave the others as they are."""
    data = lr.SequenceData.from_arrays({"y": np.zeros((1, 4, 1))}, dtype=torch.float64)
    head = lr.Gaussian(fixed={"weight": 1.0, "baseline": 0.0, "scale": 0.5})
    transition = lr.Linear(1, priors={"weight": dist.Normal(0.0, 1.0)}, fixed={"input_weight": 0.0, "bias": 1.0})
    model = lr.LatentRNN(
        data.spec, transition=transition, latent=lr.Deterministic(), observations={"y": head}, inputs=[]
    ).double()
    weights = torch.tensor([[[0.5]], [[1e200]]], dtype=torch.float64)
    guide = StoredDraws([], {"transition.weight": weights}, ())
    online = lr.OnlineFilter(lr.Posterior(model, guide, data, device="cpu"), num_draws=2)
    alone = lr.OnlineFilter(
        lr.Posterior(model, StoredDraws([], {"transition.weight": weights[:1]}, ()), data, device="cpu")
    )
    for step in range(6):
        found, expected = online.update([1.5]), alone.update([1.5])
        if step > 1:
            assert found.draw_weights.tolist() == [1.0, 0.0]
            assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-12)
            assert found.rates["y"].item() == pytest.approx(expected.rates["y"].item(), abs=1e-12)
            assert found.mean.item() == pytest.approx(expected.mean.item(), abs=1e-12)
            assert found.covariance.item() == pytest.approx(0.0, abs=1e-12)
    assert not online.memory.carry.state.isfinite().all()


def test_a_state_says_how_many_draws_are_left() -> None:
    posterior, _ = gamma_poisson(np.array([4.0, 6.0]))
    online = lr.OnlineFilter(posterior, num_draws=400)
    found = online.update([4.0])
    assert f", {found.effective_draws:.1f} of 400 draws of the parameters" in repr(found)
    assert lr.OnlineFilter(posterior).update([4.0]).effective_draws is None


def refusals() -> dict[str, tuple[Callable[[], Any], type[Exception], str]]:
    def made(**settings: Any) -> Callable[[], Any]:
        return lambda: lr.OnlineFilter(gamma_poisson(np.array([4.0]))[0], **settings)

    def ensemble() -> None:
        posterior = gamma_poisson(np.array([4.0]))[0]
        lr.OnlineFilter(lr.EnsemblePosterior([posterior], torch.ones(1)))

    return {
        "none": (made(num_draws=0), ValueError, "num_draws"),
        "half": (made(num_draws=2.5), ValueError, "num_draws must be a positive integer; found 2.5"),
        "ensemble": (ensemble, TypeError, "found EnsemblePosterior; of an ensemble, give one member"),
    }


@pytest.mark.parametrize("case", refusals())
def test_what_cannot_be_carried_along_is_refused(case: str) -> None:
    build, kind, match = refusals()[case]
    with pytest.raises(kind, match=match):
        build()
