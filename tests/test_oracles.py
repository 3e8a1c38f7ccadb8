"""The oracles against each other, against reference files where they are at hand, and against torch's cells."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from tests import oracles

SHARED = Path(os.environ.get("LATENTRNN_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "oracles"
FILES = ["lgssm_small", "lgssm_medium", "lgssm_inputs"]


def reference(name: str) -> dict[str, np.ndarray]:
    path = SHARED / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"reference file {name}.npz is not beside the repository (LATENTRNN_SHARED names its folder)")
    with np.load(path) as archive:
        return dict(archive)


def random_case(seed: int, *, hide: float) -> tuple[oracles.LGSSM, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    model = oracles.random_lgssm(rng, state_dim=3, channels=4, inputs=2)
    u = rng.normal(size=(25, 2))
    _, y = oracles.simulate_lgssm(rng, model, 25, u)
    missing = rng.random(y.shape) < hide
    missing[3] |= hide > 0  # a step at which nothing was observed
    return model, y, u, missing


@pytest.mark.parametrize("hide", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_recursions_agree_with_the_dense_joint_gaussian(seed: int, hide: float) -> None:
    model, y, u, missing = random_case(seed, hide=hide)
    filtered = oracles.kalman_filter(model, y, u, missing)
    means, covs, cross = oracles.rts_smoother(model, y, u, missing)
    dense = oracles.dense_posterior(model, y, u, missing)
    blocks = dense.covariance.reshape(25, 3, 25, 3).swapaxes(1, 2)
    assert filtered.log_evidence == pytest.approx(dense.log_evidence, abs=1e-9)
    np.testing.assert_allclose(means, dense.mean, atol=1e-9)
    np.testing.assert_allclose(covs, blocks[np.arange(25), np.arange(25)], atol=1e-9)
    np.testing.assert_allclose(cross, blocks[np.arange(24), np.arange(1, 25)], atol=1e-9)
    assert (filtered.log_predictive[3] == 0.0) == (hide > 0)


def test_the_values_of_missing_entries_do_not_matter() -> None:
    model, y, u, missing = random_case(0, hide=0.3)
    filled = np.where(missing, 1e6, y)
    assert oracles.kalman_filter(model, filled, u, missing).log_evidence == pytest.approx(
        oracles.kalman_filter(model, y, u, missing).log_evidence, abs=0.0
    )


@pytest.mark.parametrize("hide", [0.0, 0.3])
def test_the_diagonal_form_is_the_same_model(hide: float) -> None:
    model, y, u, missing = random_case(1, hide=hide)
    form = oracles.diagonalise(model)
    mean, cov = model.initial_state
    np.testing.assert_allclose(form.T @ model.Q @ form.T.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(form.T @ cov @ form.T.T, np.diag(form.initial_variance), atol=1e-12)
    np.testing.assert_allclose(form.T @ mean, form.initial_mean, atol=1e-12)
    assert (form.initial_variance > 0).all()

    original = oracles.dense_posterior(model, y, u, missing)
    moved = oracles.dense_posterior(form.model, y, u, missing, with_initial=True)
    assert moved.log_evidence == pytest.approx(original.log_evidence, abs=1e-9)
    np.testing.assert_allclose(moved.mean[1:], original.mean @ form.T.T, atol=1e-9)


def test_the_dense_posterior_satisfies_bayes_rule_at_any_trajectory() -> None:
    """log p(h) + log p(y | h) - log p(h | y) = log p(y): what an exact guide's ELBO is made of, sample by sample."""
    model, y, u, missing = random_case(2, hide=0.3)
    dense = oracles.dense_posterior(model, y, u, missing, with_initial=True)
    prior_mean, prior_cov = oracles.trajectory_prior(model, len(y), u, with_initial=True)
    rng = np.random.default_rng(0)
    for _ in range(3):
        h = rng.multivariate_normal(dense.mean.ravel(), dense.covariance)
        log_prior = stats.multivariate_normal.logpdf(h, prior_mean, prior_cov)
        log_posterior = stats.multivariate_normal.logpdf(h, dense.mean.ravel(), dense.covariance)
        log_likelihood = oracles.gaussian_log_prob(y, h.reshape(-1, 3)[1:] @ model.C.T + model.d, model.R, missing)
        assert log_prior + log_likelihood - log_posterior == pytest.approx(dense.log_evidence, abs=1e-8)


def test_simulations_have_the_moments_of_the_prior() -> None:
    rng = np.random.default_rng(5)
    model = oracles.random_lgssm(rng, state_dim=2, channels=2, inputs=1)
    u = rng.normal(size=(6, 1))
    mean, cov = oracles.trajectory_prior(model, 6, u)
    draws = np.stack([oracles.simulate_lgssm(rng, model, 6, u)[0].ravel() for _ in range(2000)])
    # Standard normal scores of the 12 means: beyond 6 with probability 2e-8.
    assert np.abs((draws.mean(0) - mean) / np.sqrt(np.diag(cov) / 2000)).max() < 6


@pytest.mark.parametrize("name", FILES)
def test_against_the_linear_gaussian_reference_files(name: str) -> None:
    file = reference(name)
    model = oracles.LGSSM(**{key: file[key] for key in ["A", "b", "B", "Q", "C", "d", "R", "m0", "S0"]})
    y, u, missing = file["y"], file["u"], file["missing"]
    filtered = oracles.kalman_filter(model, y, u)
    means, covs, _ = oracles.rts_smoother(model, y, u)
    assert filtered.log_evidence == pytest.approx(float(file["log_evidence"]), abs=1e-8)
    np.testing.assert_allclose(filtered.filtered_means, file["filtered_means"], atol=1e-9)
    np.testing.assert_allclose(means, file["smoothed_means"], atol=1e-9)
    np.testing.assert_allclose(covs, file["smoothed_covs"], atol=1e-9)

    hidden = oracles.kalman_filter(model, y, u, missing)
    assert hidden.log_evidence == pytest.approx(float(file["log_evidence_missing"]), abs=1e-8)
    np.testing.assert_allclose(oracles.rts_smoother(model, y, u, missing)[0], file["smoothed_means_missing"], atol=1e-9)
    moved = oracles.dense_posterior(oracles.diagonalise(model).model, y, u, missing, with_initial=True)
    assert moved.log_evidence == pytest.approx(float(file["log_evidence_missing"]), abs=1e-8)


def test_against_the_hidden_markov_reference_file() -> None:
    file = reference("hmm_poisson")
    log_likelihood = stats.poisson.logpmf(file["y"][:, None, :], file["rates"]).sum(-1)
    log_evidence, smoothed = oracles.hmm_forward(file["pi"], file["P"], log_likelihood)
    assert log_evidence == pytest.approx(float(file["log_evidence"]), abs=1e-8)
    np.testing.assert_allclose(smoothed, file["smoothed"], atol=1e-9)


def test_the_hidden_markov_model_against_every_path() -> None:
    rng = np.random.default_rng(0)
    initial, transition = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
    log_likelihood = rng.normal(size=(5, 3))
    paths = np.stack(np.meshgrid(*[np.arange(3)] * 5, indexing="ij"), -1).reshape(-1, 5)
    weight = np.array(
        [
            initial[path[0]]
            * np.prod([transition[i, j] for i, j in pairwise(path)])
            * np.exp(log_likelihood[np.arange(5), path].sum())
            for path in paths
        ]
    )
    occupied = (np.eye(3)[paths] * weight[:, None, None]).sum(0) / weight.sum()
    log_evidence, smoothed = oracles.hmm_forward(initial, transition, log_likelihood)
    assert log_evidence == pytest.approx(np.log(weight.sum()), abs=1e-12)
    np.testing.assert_allclose(smoothed, occupied, atol=1e-12)


@pytest.mark.parametrize("kind", ["tanh", "relu", "gru", "lstm"])
def test_written_out_cells_against_torch(kind: str) -> None:
    cells = {
        "tanh": torch.nn.RNNCell(4, 3),
        "relu": torch.nn.RNNCell(4, 3, nonlinearity="relu"),
        "gru": torch.nn.GRUCell(4, 3),
        "lstm": torch.nn.LSTMCell(4, 3),
    }
    cell = cells[kind].double()
    weights = {name: value.detach().numpy() for name, value in cell.named_parameters()}
    x, h, c = (torch.randn(size, dtype=torch.float64) for size in (4, 3, 3))
    if kind == "lstm":
        got = np.stack(oracles.lstm_step(x.numpy(), h.numpy(), c.numpy(), weights))
        expected = torch.stack(cell(x, (h, c)))
    else:
        step = {"tanh": oracles.rnn_step, "gru": oracles.gru_step}.get(kind)
        got = step(x.numpy(), h.numpy(), weights) if step else oracles.rnn_step(x.numpy(), h.numpy(), weights, "relu")
        expected = cell(x, h)
    np.testing.assert_allclose(got, expected.detach().numpy(), atol=1e-12)


def test_likelihoods_against_torch() -> None:
    rng = np.random.default_rng(0)
    logits, counts = rng.normal(size=(7, 4)), rng.poisson(2.0, size=(7, 4)).astype(float)
    missing = rng.random((7, 4)) < 0.3
    labels, class_logits = rng.integers(0, 5, size=(7, 4)), rng.normal(size=(7, 4, 5))
    as_torch, seen = torch.as_tensor(logits), torch.as_tensor(~missing)
    expected = {
        "poisson": torch.distributions.Poisson(as_torch.exp()).log_prob(torch.as_tensor(counts)),
        "bernoulli": torch.distributions.Bernoulli(logits=as_torch).log_prob(torch.as_tensor(1.0 * (counts > 1))),
        "categorical": torch.distributions.Categorical(logits=torch.as_tensor(class_logits)).log_prob(
            torch.as_tensor(labels)
        ),
    }
    got = {
        "poisson": oracles.poisson_log_prob(counts, np.exp(logits), missing),
        "bernoulli": oracles.bernoulli_log_prob(1.0 * (counts > 1), logits, missing),
        "categorical": oracles.categorical_log_prob(labels, class_logits, missing),
    }
    for family, value in expected.items():
        assert got[family] == pytest.approx(value[seen].sum().item(), abs=1e-10), family
    # The multinomial over what was observed: independent Poisson counts given their sum.
    rate = np.exp(logits)
    given_sum = sum(
        stats.poisson.logpmf(y[o], r[o]).sum() - stats.poisson.logpmf(y[o].sum(), r[o].sum())
        for y, r, o in zip(counts, rate, ~missing, strict=True)
        if o.any()
    )
    assert oracles.multinomial_log_prob(counts, logits, missing) == pytest.approx(given_sum, abs=1e-10)


def test_the_first_order_autoregression_has_its_recursion_s_covariance() -> None:
    root = np.linalg.inv(np.eye(6) - 0.8 * np.eye(6, k=-1))
    noise = 4.0 * np.diag([1.0] + [1 - 0.8**2] * 5)
    np.testing.assert_allclose(oracles.ar1_covariance(6, 0.8, 2.0), root @ noise @ root.T, atol=1e-12)
