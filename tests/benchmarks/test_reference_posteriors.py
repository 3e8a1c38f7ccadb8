"""Models in this library's parts have the posteriors that others computed."""

from __future__ import annotations

import pytest

from benchmarks import reference_posteriors


@pytest.mark.skipif(not reference_posteriors.FOLDER.exists(), reason=f"{reference_posteriors.FOLDER} is not there")
@pytest.mark.parametrize(
    "name",
    ["arK", pytest.param("hmm_example", marks=pytest.mark.slow), pytest.param("hmm_drive_1", marks=pytest.mark.slow)],
)
def test_a_model_of_our_parts_has_its_reference_posterior(name: str) -> None:
    problem, reference = reference_posteriors.read(name)
    assert len(reference) >= 6
    posterior = reference_posteriors.by_nuts(problem, draws=500, warmup=300, chains=4)
    assert posterior.chains is not None
    assert posterior.chains.largest_r_hat < 1.01
    means, spreads = reference_posteriors.deviations(problem, reference_posteriors.all_draws(posterior), reference)
    assert means < 0.1
    assert spreads < 0.1
