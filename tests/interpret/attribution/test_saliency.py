"""Saliency and mutagenesis: closed forms of linear models, central differences of counterfactuals for all others."""

from __future__ import annotations

import warnings

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.interpret import mutagenesis, saliency
from tests.interpret.small import Adapting, posterior_of, recording
from tests.registry import FEATURES, OBSERVATIONS, TRANSITIONS, latent_for, make_data, make_model

LENGTHS = (9, 7)


def symbols(sequences: int = 2) -> lr.SequenceData:
    """Sequences of four symbols, with a head of every step and one of the sequence."""
    rng = np.random.default_rng(0)
    base = [rng.integers(0, 4, (LENGTHS[k % 2], 1)) for k in range(sequences)]
    heads = {"v": [rng.normal(size=(len(b), 2)) for b in base], "kind": rng.integers(0, 3, (sequences, 1))}
    return lr.SequenceData.from_arrays(heads, {"base": base}, dt=0.5, dtype=torch.float64, per_sequence=["kind"])


def reader(
    feature: lr.Feature, transition: lr.Transition | None = None, latent: lr.Latent | None = None
) -> lr.Posterior:
    data = symbols()
    torch.manual_seed(0)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(3) if transition is None else transition,
        latent=lr.Innovations(1) if latent is None else latent,
        observations={"v": lr.Gaussian(), "kind": lr.Categorical(3)},
        inputs=[feature],
    ).double()
    return lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)).double(), data)


def differences(
    posterior: lr.Posterior, head: str, covariate: str, step: int, feature: int, samples: int
) -> np.ndarray:
    """d sum of the head's means / d x_{step, feature}, (sample, sequence, output), by counterfactuals."""
    ends = []
    for sign in (1, -1):
        moved = posterior.data.covariates[covariate].double().clone()
        moved[:, step, feature] += sign * 1e-5
        rates = posterior.counterfactual({covariate: moved}, num_samples=samples).rates[head]
        ends.append(rates.flatten(3).nansum(2).numpy())
    return (ends[0] - ends[1]) / 2e-5


def test_a_linear_memory_answers_with_its_powers() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (2, 8, 2))
    data = lr.SequenceData.from_arrays({"v": rng.normal(size=(2, 8, 1))}, {"x": x}, dtype=torch.float64)
    parts = {"transition": lr.Linear(3), "latent": lr.Deterministic(), "observations": {"v": lr.Gaussian()}}
    model = lr.LatentRNN(data.spec, **parts).double()
    posterior = lr.Posterior(model, lr.Guide(model), data)
    own = {name: value.detach().numpy() for name, value in model.named_parameters()}
    a, b = own["transition.recurrent_weight"], own["transition.input_weight"]
    c = model.observations["v"].readout.weight.detach().numpy()
    expected = np.stack([(c @ np.linalg.matrix_power(a, 5 - t) @ b)[0] if t <= 5 else np.zeros(2) for t in range(8)])
    found = saliency(posterior, "v", "x", step=5, num_samples=2)
    np.testing.assert_allclose(found.gradient[0, 0, :, :, 0], expected, atol=1e-12)
    np.testing.assert_allclose(found.norm[1, 1, :, 0], np.linalg.norm(expected, axis=1), atol=1e-12)
    path = saliency(posterior, "v", "x", step=5, method="integrated_gradients", baseline=1.0, points=1, num_samples=1)
    np.testing.assert_allclose(path.attribution[0, :, :, :, 0], (x - 1.0) * expected, atol=1e-12)
    moved = mutagenesis(posterior, "v", "x", step=5, delta=[0.5, -2.0], positions=[4, 1], num_samples=1)
    np.testing.assert_allclose(moved.change[0, 1, :, :, 0], expected[[4, 1]] * [0.5, -2.0], atol=1e-12)
    assert moved.time.values.tolist() == [4.0, 1.0]


@pytest.mark.parametrize("name", TRANSITIONS)
def test_every_transition_answers_to_its_covariates(name: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model, guide = make_model(name, latent_for(name, "poisson", "innovations"), "poisson", data)
    posterior = lr.Posterior(model, guide, data)
    covariate = "drive" if name == "streams" else "stimulus"  # which is all that drives it
    found = saliency(posterior, "y", covariate, quantity="mean", num_samples=2)
    expected = differences(posterior, "y", covariate, 1, 0, 2)
    np.testing.assert_allclose(found.gradient[:, :, 1, 0], expected, rtol=1e-5, atol=1e-8)
    assert bool(np.isnan(found.norm[:, 1, 3:]).all())  # padding


@pytest.mark.parametrize(
    "latent",
    [lr.InitialState(2), lr.MarkovNormal(), lr.RecurrentNormal(2), lr.Innovations(1, prior="ar1")],
    ids=repr,
)
def test_what_is_random_stays_as_it_is(latent: lr.Latent) -> None:
    posterior = posterior_of(Adapting(3), latent)
    found = saliency(posterior, "spikes", "x", quantity="mean", num_samples=3)
    np.testing.assert_allclose(
        found.gradient[:, :, 4, 1], differences(posterior, "spikes", "x", 4, 1, 3), rtol=1e-5, atol=1e-8
    )
    assert float(np.ptp(found.gradient[:, 0, 4, 1, 0].values)) > 0  # draws differ


def test_states_that_are_summed_out_answer_too() -> None:
    data = recording()
    heads = {"spikes": lr.Gaussian()}
    torch.manual_seed(0)
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.LinearGaussian(), observations=heads).double()
    posterior = lr.Posterior(model, lr.Guide(model).double(), data)
    found = saliency(posterior, "spikes", "x", quantity="mean", num_samples=2)
    expected = differences(posterior, "spikes", "x", 3, 0, 2)
    np.testing.assert_allclose(found.gradient[:, :, 3, 0], expected, rtol=1e-5, atol=1e-8)


def test_draws_of_parameters_answer_each_for_itself() -> None:
    memory = lr.LeakyIntegrator(2, priors={"time_constant": dist.LogNormal(-3.0, 0.5)})
    posterior = posterior_of(memory, lr.Innovations(1))
    found = saliency(posterior, "spikes", "x", step=6, num_samples=4).gradient.values
    (tau,) = posterior.parameters(4).values()
    kept = np.exp(-0.01 / tau.numpy()).reshape(4, -1)
    weight = posterior.model.observations["spikes"].readout.weight.detach().numpy()
    onto = posterior.model.transition.input_weight.detach().numpy()[:, :2]  # of the innovation besides
    for t in (6, 3):
        expected = np.einsum("oh,sh,hk->sko", weight, kept ** (6 - t), onto)
        np.testing.assert_allclose(found[:, 0, t], expected, rtol=1e-6)


@pytest.mark.parametrize("feature", [lr.OneHot("base", 4), lr.Embedding("base", 4, 3)], ids=repr)
@pytest.mark.parametrize("head", ["v", "kind"])
def test_in_linear_models_the_first_order_is_all(feature: lr.Feature, head: str) -> None:
    posterior = reader(feature)
    first, all_of_it = (f(posterior, head, "base", num_samples=2) for f in (saliency, mutagenesis))
    np.testing.assert_allclose(first.change, all_of_it.change, atol=1e-12)
    assert first.change.dims == ("sample", "sequence", "time", "feature", "symbol", "output")
    codes = posterior.data.covariates["base"].long().numpy()
    there = np.take_along_axis(first.change.values[0, 0, :, 0, :, 0], codes[0], 1)
    np.testing.assert_array_equal(there, 0.0)
    gradient = first.change.values - first.change.values.mean(-2, keepdims=True)
    np.testing.assert_allclose(first.norm, np.linalg.norm(gradient, axis=(-3, -2)), atol=1e-12)


def test_mutations_are_runs_of_the_model() -> None:
    feature = lr.Convolution(lr.Embedding("base", 4, 2), 3, widths=3, causal=False, activation="tanh")
    posterior = reader(feature, lr.GRU(3))
    found = mutagenesis(posterior, "kind", "base", quantity="mean", positions=[2, 8], channel=1, num_samples=3)
    plain = posterior.rates("kind", 3)[..., 1]
    moved = posterior.data.covariates["base"].clone()
    moved[:, 2] = 3.0
    expected = posterior.counterfactual({"base": moved}, num_samples=3).rates["kind"][..., 1] - plain
    np.testing.assert_allclose(found.change.sel(time=1.0)[:, :, 0, 3], expected, atol=1e-12)
    assert bool(found.change.sel(time=4.0)[:, 1].isnull().all())  # the second sequence has seven steps
    assert bool(found.change.sel(time=4.0)[:, 0].notnull().all())


@pytest.mark.parametrize("kind", ["one-hot", "embedding", "convolution, centred", "bidirectional"])
def test_attributions_add_up_through_every_feature_of_symbols(kind: str) -> None:
    feature = FEATURES[kind]()
    rng = np.random.default_rng(0)
    covariates = {"drive": rng.normal(size=(2, 7, 1)), "symbol": rng.integers(0, 3, (2, 7, 1))}
    data = lr.SequenceData.from_arrays({"v": rng.normal(size=(2, 7, 1))}, covariates, dtype=torch.float64)
    torch.manual_seed(1)
    parts = {"transition": lr.LSTM(3), "latent": lr.Innovations(1), "observations": {"v": lr.Gaussian()}}
    model = lr.LatentRNN(data.spec, inputs=["drive", feature], **parts).double()
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)).double(), data)
    for baseline in ("mean", [0.5, 0.5, 0.0]):
        found = saliency(posterior, "v", "symbol", method="integrated_gradients", baseline=baseline, num_samples=2)
        assert float(np.abs(found.difference).min()) > 1e-4
        np.testing.assert_allclose(found.gap, 0.0, atol=1e-10)
        np.testing.assert_allclose(found.attribution.sum(("time", "feature")), found.difference, atol=1e-10)
    coarse = saliency(posterior, "v", "symbol", method="integrated_gradients", points=1, num_samples=2)
    assert float(np.abs(coarse.gap).max()) > 1e-8  # one point is too few, and the gap says so


def test_numbers_in_parts_are_those_in_one() -> None:
    posterior = posterior_of(lr.GRU(3), lr.Deterministic())
    small = lr.Posterior(posterior.model, posterior.guide, posterior.data, max_elements=40)
    assert len(list(small.replays(1))) > len(list(posterior.replays(1)))
    for find in (saliency, lambda *given, **named: mutagenesis(*given, delta=0.5, **named)):
        whole, parts = (find(each, "spikes", "x", num_samples=2) for each in (posterior, small))
        for name in whole.data_vars:
            np.testing.assert_allclose(parts[name], whole[name], atol=1e-12)


def test_nothing_random_is_found_once_for_all_draws() -> None:
    posterior = reader(lr.OneHot("base", 4), lr.GRU(3), lr.Deterministic())
    assert [replay.draws for replay in posterior.replays(5)] == [1]
    found = saliency(posterior, "kind", "base", num_samples=5)
    assert found.sizes["sample"] == 5
    assert float(np.nanmax(np.ptp(found.norm.values, axis=0))) == 0.0


def test_members_of_an_ensemble_answer_each_for_itself() -> None:
    data = recording()
    members = []
    for seed in range(2):
        members.append(posterior_of(lr.GRU(3), lr.Innovations(1), data))
        with torch.no_grad():
            members[-1].model.observations["spikes"].readout.weight.mul_(1 + seed)
    found = saliency(lr.EnsemblePosterior(members, torch.tensor([0.5, 0.5])), "spikes", "x", num_samples=2)
    assert found.member.values.tolist() == [0, 1]
    np.testing.assert_allclose(found.gradient[1], 2 * found.gradient[0], atol=1e-12)


def test_chains_and_laplace_are_asked_as_fits_are() -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"v": rng.normal(size=(3, 6, 1))}, {"x": rng.normal(size=(3, 6, 1))})
    prior = {"weight": dist.Normal(0.0, 1.0)}
    heads = {"v": lr.Gaussian(priors=prior)}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # chains as short as these have not mixed
        chains = lr.sample(model, data, num_samples=4, warmup=4, progress=False)
    for posterior in (lr.laplace(model, data).posterior(data), chains):
        found = saliency(posterior, "v", "x", num_samples=3)
        assert float(np.ptp(found.gradient[:, 0, 0, 0, 0].values)) > 0
        assert bool(np.isfinite(found.gradient).all())


def test_mistakes_are_named() -> None:
    posterior = reader(lr.OneHot("base", 4))
    for change, said in {
        "head": ({"head": "w"}, "unknown head 'w'"),
        "covariate": ({"covariate": "x"}, "unknown covariate 'x'"),
        "channel": ({"channel": 7}, "channel must be one of"),
        "step": ({"step": 9}, "step"),
        "step of a sequence": ({"head": "kind", "step": 1}, "one value per sequence"),
        "quantity": ({"quantity": "median"}, "quantity"),
        "method": ({"method": "lime"}, "method"),
        "baseline": ({"method": "integrated_gradients", "baseline": "zero"}, "'mean' or numbers"),
        "shape": ({"method": "integrated_gradients", "baseline": [0.5, 0.5]}, "must broadcast"),
    }.values():
        with pytest.raises(ValueError, match=said):
            saliency(posterior, **{"head": "v", "covariate": "base", **change})
    with pytest.raises(ValueError, match="holds symbols"):
        mutagenesis(posterior, "v", "base", delta=1.0)
    with pytest.raises(ValueError, match="delta must be what is added"):
        mutagenesis(posterior_of(lr.GRU(2), lr.InitialState(1)), "spikes", "x")
    with pytest.raises(ValueError, match="base steps, each once"):
        mutagenesis(posterior, "v", "base", positions=[1, 1])
    with pytest.raises(TypeError, match="expected a posterior"):
        saliency(posterior.model, "v", "base")


def test_what_is_read_in_two_ways_or_not_at_all_is_refused() -> None:
    data = symbols()
    parts = {"transition": lr.GRU(2), "latent": lr.Deterministic(), "observations": {"v": lr.Gaussian()}}
    for inputs, said in (([lr.OneHot("base", 4), "base"], "as symbols and as numbers"), ([], "does not depend")):
        model = lr.LatentRNN(data.spec, inputs=inputs, **parts).double()
        with pytest.raises(ValueError, match=said):
            saliency(lr.Posterior(model, lr.Guide(model), data), "v", "base")
    disagreeing = [lr.OneHot("base", 4), lr.Embedding("base", 5, 2)]
    model = lr.LatentRNN(data.spec, inputs=disagreeing, **parts).double()
    with pytest.raises(ValueError, match="disagree"):
        saliency(lr.Posterior(model, lr.Guide(model), data), "v", "base")
