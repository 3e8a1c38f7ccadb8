"""Every kind of component learns a planted parameter with intervals that hold it as often as they say."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binom

import latentrnn as lr
from tests.models.learned_parameters import STEPS, Case, cases, covered, entry_of, learned, planted

CASES = list(cases())
LEAST = binom.ppf(1e-6, len(CASES), 0.9)


@pytest.mark.slow
def test_intervals_of_planted_parameters_hold_them() -> None:
    """One simulation of each kind; `benchmarks/prior_coverage.py` has forty."""
    kinds = {case.name for case in CASES}
    assert len(kinds) > 40
    assert {"LeakyIntegrator.time_constant", "Gaussian.scale", "NegativeBinomial.dispersion"} <= kinds
    found = {
        case.name: covered(case, ("normal", "multivariate")[number % 2 :][:1], number)[0]
        for number, case in enumerate(CASES)
    }
    missed = [name for name, held in found.items() if not held]
    assert len(CASES) - len(missed) >= LEAST, missed


@pytest.mark.slow
def test_intervals_that_are_too_narrow_are_noticed() -> None:
    """Negative control: at a level of a third far fewer are held."""
    few = CASES[::4]
    held = sum(covered(case, ["normal"], number, level=0.2)[0] for number, case in enumerate(few))
    assert held < binom.ppf(1e-6, len(few), 0.9)


def test_cases_have_no_random_numbers_in_common() -> None:
    """Else their intervals miss together, and all of them are no binomial trials."""
    same = [
        case for case in CASES if case.name in ("StudentT.scale", "LogNormal.scale")
    ]  # priors of one form and shape
    first, second = (torch.cat([places(case, seed) for seed in range(6)]) for case in same)
    assert len(first) == len(second)
    assert not bool(torch.isclose(first, second, atol=1e-3).any())


def places(case: Case, seed: int) -> torch.Tensor:
    """Where in its prior each entry lies that was planted."""
    model, _, site, value = planted(case, seed)
    prior, _ = model.parameter_sites()[site]
    return prior.base_dist.cdf(value).flatten()


@pytest.mark.slow
def test_longer_fits_find_no_wider_guide() -> None:
    case = next(each for each in CASES if each.name == "Linear.weight")  # whose entries hang together most
    model, data, site, value = planted(case, 0)

    def widths(steps: int, draws: int = 64) -> torch.Tensor:
        guide = learned(model, data, "multivariate", 0, steps=steps, draws=draws)
        return lr.Posterior(model, guide, data, device="cpu").parameters(4000)[site].flatten(1).std(0)

    long = widths(5 * STEPS)
    assert float((widths(STEPS) / long).log().mean().exp()) > 0.93
    assert float((widths(STEPS // 5) / long).log().mean().exp()) < 0.93  # negative control
    assert entry_of(torch.ones(3, *value.shape).cumsum(0), value, 1)[1] == float(value.flatten()[1])


def test_a_guide_moves_towards_what_was_planted() -> None:
    case = next(each for each in CASES if each.name == "LeakyIntegrator.time_constant")
    model, data, site, value = planted(case, 0)
    prior, _ = model.parameter_sites()[site]
    drawn = learned(model, data, "normal", 0).parameter_sites
    assert drawn is not None
    scale = drawn.log_scale[drawn._keys[site]].exp()
    assert value.shape == prior.event_shape
    assert bool((scale < 0.29).all())  # narrower than the prior, which has 0.3: these data tell all three
