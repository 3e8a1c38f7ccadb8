"""Every kind of component learns a planted parameter with intervals that hold it as often as they say."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from tests.models.learned_parameters import cases, covered, learned, planted

CASES = list(cases())
LEAST = binom.ppf(1e-6, len(CASES), 0.9)


@pytest.mark.slow
def test_intervals_of_planted_parameters_hold_them() -> None:
    """One simulation of each kind; `benchmarks/prior_coverage.py` has forty."""
    kinds = {case.name for case in CASES}
    assert len(kinds) > 40
    assert {"LeakyIntegrator.time_constant", "Gaussian.scale", "NegativeBinomial.dispersion"} <= kinds
    found = {
        case.name: covered(case, ("normal", "multivariate")[number % 2], number) for number, case in enumerate(CASES)
    }
    missed = [name for name, held in found.items() if not held]
    assert len(CASES) - len(missed) >= LEAST, missed


@pytest.mark.slow
def test_intervals_that_are_too_narrow_are_noticed() -> None:
    """Negative control: at a level of a third far fewer are held."""
    few = CASES[::4]
    held = sum(covered(case, "normal", number, level=0.2) for number, case in enumerate(few))
    assert held < binom.ppf(1e-6, len(few), 0.9)


def test_a_guide_moves_towards_what_was_planted() -> None:
    case = next(each for each in CASES if each.name == "LeakyIntegrator.time_constant")
    model, data, site, value = planted(case, 3)
    prior, _ = model.parameter_sites()[site]
    drawn = learned(model, data, "normal", 3).parameter_sites
    assert drawn is not None
    scale = drawn.log_scale[drawn._keys[site]].exp()
    assert value.shape == prior.event_shape
    assert bool((scale < 0.29).all())  # narrower than the prior, which has 0.3
