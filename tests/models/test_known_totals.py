"""Counts that share a total, some categories missing: what a known total says of them, and what is left without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

import latentrnn as lr
from latentrnn.models.observations.beta_binomial import BetaBinomialCounts
from latentrnn.models.observations.dirichlet_multinomial import DirichletMultinomialCounts
from latentrnn.models.observations.multinomial import MultinomialCounts

FAMILIES = pytest.mark.parametrize("family", [lr.Multinomial(), lr.DirichletMultinomial()], ids=["multinomial", "DM"])
BASELINE, CONCENTRATION = np.array([0.4, -0.3, 0.9]), 2.5
SHARES = special.softmax(BASELINE)
COUNTS = np.array(
    [
        [[3.0, 1.0, 2.0], [2.0, np.nan, np.nan], [np.nan, np.nan, np.nan], [4.0, 0.0, np.nan]],
        [[np.nan, 5.0, 1.0], [0.0, np.nan, 0.0], [1.0, 1.0, np.nan], [0.0, 2.0, 2.0]],
    ]
)
TOTALS = np.array([[6.0, 7.0, 5.0, 4.0], [8.0, 0.0, 9.0, 4.0]])
UNKNOWN = np.where(np.isnan(COUNTS).any(-1), np.nan, TOTALS)


def posterior_of(family: lr.Observation, totals: Any) -> lr.Posterior:
    """A model whose shares are `SHARES` at every step."""
    data = lr.SequenceData.from_arrays(
        {"y": COUNTS}, totals=None if totals is None else {"y": totals}, dtype=torch.float64
    )
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": family}
    ).double()
    head: Any = model.observations["y"]
    with torch.no_grad():
        head.readout.weight.zero_()
        head.readout.baseline.copy_(torch.as_tensor(BASELINE))
        if isinstance(family, lr.DirichletMultinomial):
            head.log_concentration.fill_(np.log(CONCENTRATION))
    return lr.Posterior(model, lr.Guide(model), data, device="cpu")


def log_pmf(family: lr.Observation, counts: Any, shares: Any) -> float:
    if isinstance(family, lr.DirichletMultinomial):
        return float(stats.dirichlet_multinomial.logpmf(counts, CONCENTRATION * shares, sum(counts)))
    return float(stats.multinomial.logpmf(counts, sum(counts), shares))


def by_hand(family: lr.Observation, known: bool) -> Any:
    """log p of every step: the missing categories as one, or, with an unknown total, left out."""
    found = np.zeros(TOTALS.shape)
    for place in np.ndindex(TOTALS.shape):
        y, seen = COUNTS[place], ~np.isnan(COUNTS[place])
        counts, shares = y[seen], SHARES[seen]
        if known and not seen.all():
            counts, shares = np.append(counts, TOTALS[place] - counts.sum()), np.append(shares, SHARES[~seen].sum())
        elif not known and isinstance(family, lr.Multinomial):
            shares = shares / shares.sum()
        if len(counts) > 1:  # one category, given its own count, is certain
            found[place] = log_pmf(family, counts, shares)
    return found


@FAMILIES
@pytest.mark.parametrize("totals", [TOTALS, UNKNOWN, None], ids=["known", "unknown", "none"])
def test_density_is_the_marginal_of_what_was_observed(family: lr.Observation, totals: Any) -> None:
    posterior, expected = posterior_of(family, totals), by_hand(family, totals is TOTALS)
    np.testing.assert_allclose(posterior.one_step_ahead("y").log_prob[..., 0], expected, atol=1e-12)
    np.testing.assert_allclose(posterior.evidence("elbo").values, expected.sum(1), atol=1e-12)
    other = by_hand(family, totals is not TOTALS)
    assert np.abs(expected - other).max() > 0.5  # the two are not the same
    # a window that sees the first two steps and does not score them
    later = lr.Posterior(posterior.model, posterior.guide, posterior.data.windows(2, context=2), device="cpu")
    names = [key.start for key in later.data.keys]
    found = later.evidence("elbo").values.numpy()
    np.testing.assert_allclose(found[np.array(names) == 2], expected[:, 2:].sum(1), atol=1e-12)


@FAMILIES
def test_means_draws_and_completions_share_out_a_known_total(family: lr.Observation) -> None:
    posterior = posterior_of(family, TOTALS)
    np.testing.assert_allclose(posterior.mean("y", 1), TOTALS[..., None] * SHARES, rtol=1e-12)
    drawn, completed = posterior.predictive(4000)["y"], posterior.impute("y", 4000)
    for replicates in (drawn, completed):
        np.testing.assert_array_equal(replicates.sum(-1), np.broadcast_to(TOTALS, (4000, 2, 4)))
    # 14 places with counts to share out, entries bounded at 6 standard errors
    error = drawn.std(0) / 4000**0.5 + 1e-12
    assert ((drawn.mean(0) - torch.as_tensor(TOTALS[..., None] * SHARES)).abs() / error).max() < 6
    assert ((drawn.mean(0) - torch.as_tensor(TOTALS[..., None] / 3)).abs() / error).max() > 20
    hidden = completed[:, 0, 1, 1:]  # five units over two categories
    expected = 5 * SHARES[1:] / SHARES[1:].sum()
    assert ((hidden.mean(0) - torch.as_tensor(expected)).abs() / (hidden.std(0) / 4000**0.5)).max() < 6


@FAMILIES
def test_without_a_total_the_observed_categories_share_what_was_seen(family: lr.Observation) -> None:
    posterior = posterior_of(family, None)
    seen, mask = np.nansum(COUNTS, -1), ~np.isnan(COUNTS)
    among = (SHARES * mask).sum(-1)
    expected = (seen / np.where(among > 0, among, 1.0))[..., None] * SHARES
    np.testing.assert_allclose(posterior.mean("y", 1), expected, rtol=1e-12, atol=1e-12)
    drawn = posterior.predictive(4000)["y"]
    np.testing.assert_array_equal((drawn * torch.as_tensor(mask)).sum(-1), np.broadcast_to(seen, (4000, 2, 4)))
    error = drawn.std(0) / 4000**0.5 + 1e-12
    assert ((drawn.mean(0) - torch.as_tensor(expected)).abs() / error).max() < 6
    with pytest.raises(ValueError, match="share a total, which is not known at sequence 0, step 1"):
        posterior.impute("y", 2)


@FAMILIES
def test_a_forecast_with_known_totals_scores_the_marginal(family: lr.Observation) -> None:
    posterior = posterior_of(family, None)
    future, totals = np.array([[[2.0, np.nan, 1.0]], [[np.nan, np.nan, 4.0]]]), np.array([[7.0], [4.0]])
    forecast = posterior.forecast(1, num_samples=3, totals={"y": totals})
    found = forecast.log_score("y", future)
    expected = [
        log_pmf(family, [2.0, 1.0, 4.0], SHARES[[0, 2, 1]]),
        log_pmf(family, [4.0, 0.0], np.array([SHARES[2], SHARES[:2].sum()])),
    ]
    np.testing.assert_allclose(np.ravel(found), expected, atol=1e-12)


@pytest.mark.parametrize("hidden", [(1, 2), (2,)], ids=["one seen", "two seen"])
@FAMILIES
def test_a_known_total_teaches_the_shares_of_what_was_seen(family: lr.Observation, hidden: tuple[int, ...]) -> None:
    """With the total as the only other count, the observed shares are those of the whole."""
    counts = np.random.default_rng(0).multinomial(10, [0.7, 0.2, 0.1], (8, 25)).astype(float)
    totals, expected = counts.sum(-1), counts.mean((0, 1))
    counts[..., hidden] = np.nan
    data = lr.SequenceData.from_arrays({"y": counts}, totals={"y": totals})
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.Deterministic(), observations={"y": family})
    fitted = lr.fit(
        model, lr.Guide(model), data, steps=100, optimizer=lr.AdamW(0.1), seed=0, reporting=lr.Reporting(progress=False)
    )
    found = fitted.posterior(data).mean("y", 1).mean((0, 1)).numpy()
    seen = [c for c in range(3) if c not in hidden]
    np.testing.assert_allclose(found[seen], expected[seen], atol=0.15)
    assert abs(found[list(hidden)].sum() - expected[list(hidden)].sum()) < 0.2


@pytest.mark.parametrize("family", [lr.Multinomial, lr.DirichletMultinomial])
def test_totals_of_counts_are_whole(family: type[lr.Observation]) -> None:
    counts, totals = np.array([[[1.0, np.nan, 2.0], [1.0, 1.0, 1.0]]]), np.array([[7.5, 3.0]])
    data = lr.SequenceData.from_arrays({"y": counts}, totals={"y": totals})
    parts = {"transition": lr.GRU(2), "latent": lr.Deterministic(), "observations": {"y": family()}}
    model = lr.LatentRNN(data.spec, **parts)
    with pytest.raises(ValueError, match=r"totals\['y'\]: .* needs whole numbers; found 7.5 at sequence 0, step 0"):
        lr.fit(model, lr.Guide(model), data, steps=1, reporting=lr.Reporting(progress=False))


def test_totals_are_nothing_to_a_family_whose_channels_share_none() -> None:
    counts = np.random.default_rng(0).poisson(3.0, (2, 4, 3)).astype(float)
    totals = counts.sum(-1)
    counts[0, 1, 1] = np.nan
    data = lr.SequenceData.from_arrays({"y": counts}, totals={"y": totals})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    posterior = lr.Posterior(model, lr.Guide(model), data, device="cpu")
    assert posterior.forecast(3, num_samples=2).mean("y").shape == (2, 3, 3)
    completed = posterior.impute("y", 2)
    seen = ~np.isnan(counts)
    np.testing.assert_array_equal(completed.numpy()[:, seen], np.broadcast_to(counts[seen], (2, seen.sum())))


# -- draws at small concentrations, and of shares that underflow ------------------------------------------------------


def share_of_mixed(alpha: list[float], total: int) -> float:
    """P(more than one category is hit), by gamma functions."""
    whole = sum(alpha)
    log = [
        special.gammaln(a + total) - special.gammaln(a) - special.gammaln(whole + total) + special.gammaln(whole)
        for a in alpha
    ]
    return float(1 - np.exp(log).sum())


@pytest.mark.parametrize("concentration", [3.0, 0.05, 0.01, 1e-3])
def test_draws_are_right_at_any_concentration(concentration: float) -> None:
    torch.manual_seed(0)
    n = 20000
    one = torch.full((1, n, 3), concentration / 3)
    draws = DirichletMultinomialCounts(one, torch.full((1, n), 10.0), None).sample()
    pair = torch.full((n,), concentration / 2)
    successes = BetaBinomialCounts(pair, pair, torch.full((n,), 10.0), validate_args=False).sample()
    found = {
        3: float((draws.amax(-1) < 10).double().mean()),
        2: float(((successes > 0) & (successes < 10)).double().mean()),
    }
    for categories, share in found.items():
        expected = share_of_mixed([concentration / categories] * categories, 10)
        # 8 bounds; of rare events a normal approximation's fifth standard error would be passed too often
        assert stats.binom.sf(round(n * share) - 1, n, expected) > 1e-7
        assert stats.binom.cdf(round(n * share), n, expected) > 1e-7
        assert stats.binom.cdf(round(n * share), n, 2 * expected if expected < 0.5 else 1 - 1e-3) < 1e-3


def test_a_hidden_category_that_takes_nearly_all_leaves_the_others_their_shares() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([200.0, 0.0, 0.0]).expand(1, 4000, 3)
    seen = torch.tensor([True, False, False]).expand(1, 4000, 3)
    counts = MultinomialCounts(logits, torch.full((1, 4000), 10.0), None)
    rest = counts.completed(torch.zeros(1, 4000, 3), seen)
    np.testing.assert_array_equal(rest.sum(-1), 10.0)
    assert abs(float(rest[..., 1].mean()) - 5.0) < 5.5 * (2.5 / 4000) ** 0.5
