"""A posterior taken part by part, along time, sequences and draws: the same numbers in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import latentrnn as lr
from tests.registry import OBSERVATIONS as HEADS
from tests.registry import make_data, make_model

LENGTHS = (11, 4, 7)
SAMPLES = 6


def posteriors(latent: str, heads: str, **settings: Any) -> tuple[lr.Posterior, lr.Posterior]:
    data = make_data(HEADS[heads], LENGTHS)
    model, guide = make_model("gru", latent, heads, data, direction="causal")
    return lr.Posterior(model, guide, data, device="cpu"), lr.Posterior(model, guide, data, device="cpu", **settings)


def alike(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("heads", ["poisson softplus, missing", "poisson history", "clocked", "per sequence"])
@pytest.mark.parametrize("settings", [{"window": lr.Window(4)}, {"max_elements": 20}], ids=["windows", "parts"])
def test_what_is_certain_is_the_same_in_parts(heads: str, settings: dict[str, Any]) -> None:
    whole, parts = posteriors("deterministic", heads, **settings)
    assert alike(whole.mean("y", SAMPLES), parts.mean("y", SAMPLES))
    assert alike(whole.rates("y", SAMPLES), parts.rates("y", SAMPLES))
    assert alike(whole.latents(SAMPLES)["states"], parts.latents(SAMPLES)["states"])
    assert alike(whole.evidence("elbo").values, parts.evidence("elbo").values)
    assert alike(whole.log_likelihood(), parts.log_likelihood())


@pytest.mark.parametrize("latent", ["innovations ar1", "markov normal", "recurrent normal"])
def test_moments_of_draws_in_windows_are_those_of_the_whole(latent: str) -> None:
    """Means of 4,000 draws, within 6 standard errors of each other at every entry (about 200 of them)."""
    whole, windows = posteriors(latent, "gaussian", window=lr.Window(4))
    first, second = (p.latents(4000)["states"] for p in (whole, windows))
    spread = (first.var(0) / 4000 + second.var(0) / 4000).sqrt()
    inside = ~torch.isnan(first[0])
    assert torch.equal(torch.isnan(first[0]), torch.isnan(second[0]))
    assert bool(((first.mean(0) - second.mean(0)).abs() < 6 * spread)[inside].all())
    assert windows.latents(3)["states"][:, 1, 4:].isnan().all()
    elbo, in_windows = (p.evidence("elbo", 4000) for p in (whole, windows))
    assert bool(((elbo.values - in_windows.values).abs() < 6 * (elbo.standard_error + in_windows.standard_error)).all())
    tighter = windows.evidence("iwae", 4000)
    assert bool((tighter.values > in_windows.values - 6 * in_windows.standard_error).all())


def test_shapes_and_padding_of_replicates_in_parts() -> None:
    for settings in ({"window": lr.Window(4)}, {"max_elements": 20}, {"window": lr.Window(3), "max_elements": 7}):
        whole, parts = posteriors("innovations with initial", "gaussian priors", **settings)
        for first, second in zip(
            (whole.predictive(SAMPLES), whole.prior_predictive(SAMPLES), whole.latents(SAMPLES)),
            (parts.predictive(SAMPLES), parts.prior_predictive(SAMPLES), parts.latents(SAMPLES)),
            strict=True,
        ):
            assert first.keys() == second.keys()
            for name, value in first.items():
                assert second[name].shape == value.shape
                assert torch.equal(second[name].isnan(), value.isnan())


def test_parameters_are_one_draw_in_all_parts() -> None:
    """Rates of a model whose only randomness is a parameter: each draw is one line over all windows and sequences."""
    whole, parts = posteriors("deterministic", "gaussian priors", window=lr.Window(4), max_elements=40)
    assert alike(whole.rates("y", SAMPLES), parts.rates("y", SAMPLES))
    assert float(whole.rates("y", SAMPLES)[:, 0, 0, 0].std()) > 0.01
    assert parts.evidence("iwae", 32).values.shape == (3,)


def test_parts_hold_no_more_than_they_may() -> None:
    _, parts = posteriors("innovations", "gaussian", window=lr.Window(4), max_elements=2 * 4 * 4)
    sizes = [chunk.values.numel() for chunk in parts.latent_parts(5) if chunk.name == "states"]
    assert max(sizes) <= 2 * 4 * 4
    assert sum(sizes) == 5 * 4 * (11 + 4 + 7)  # each sequence by itself is not padded


def test_what_needs_the_whole_is_refused_in_windows() -> None:
    _, windows = posteriors("innovations", "poisson", window=lr.Window(4))
    for call in (
        lambda: windows.impute("y"),
        lambda: windows.one_step_ahead("y"),
        lambda: windows.evidence("smc"),
        lambda: windows.refined(2),
        lambda: windows.counterfactual(),
    ):
        with pytest.raises(ValueError, match="without a window"):
            call()
    _, fed = posteriors("innovations", "poisson history", window=lr.Window(4))
    with pytest.raises(ValueError, match="run free"):
        fed.predictive(2)
    assert fed.predictive(2, feedback="recorded")["y"].shape == (2, 3, 11, 2)
    data = make_data(HEADS["gaussian"], LENGTHS)
    model, _ = make_model("gru", "innovations", "gaussian", data)
    guide = lr.Guide(model, encoder=lr.StepEncoder(), family=lr.GaussianChain())
    with pytest.raises(ValueError, match=r"Posterior: window: .*GaussianChain"):
        lr.Posterior(model, guide, data, window=lr.Window(4))
    with pytest.raises(ValueError, match="max_elements must be a positive"):
        lr.Posterior(model, guide, data, max_elements=0)
