"""The whole room on a real, if tiny, fit: what it reads from a posterior is what a posterior has."""

import math

import pytest
import torch

import latentrnn as lr
from latentrnn.criticism import (
    bits_per_spike,
    compare,
    held_out_log_likelihood,
    one_step_ahead_bits_per_spike,
    paired_difference,
    posterior_predictive_check,
    time_rescaling,
)


@pytest.fixture(scope="module")
def split():
    counts = torch.poisson(torch.full((30, 25, 2), 0.5), generator=torch.Generator().manual_seed(0))
    return lr.SequenceData.from_arrays({"spikes": counts}, dt=0.01).split(0.6, 0.2, 0.2, seed=0)


@pytest.fixture(scope="module")
def results(split):
    train, validation, _ = split
    fits = {}
    for name, latent in {"fixed": lr.Deterministic(), "random": lr.Innovations(2)}.items():
        model = lr.LatentRNN(train.spec, transition=lr.GRU(4), latent=latent, observations={"spikes": lr.Poisson()})
        guide = lr.Guide(model, encoder=lr.RNNEncoder(4, direction="bidirectional"))
        fits[name] = lr.fit(
            model,
            guide,
            train,
            validation,
            seed=0,
            steps=30,
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(device="cpu"),
        )
    return fits


def test_checks_and_scores_of_held_out_sequences(results, split):
    test = split[2]
    scores = {}
    for name, result in results.items():
        posterior = result.posterior(test, device="cpu")
        check = posterior_predictive_check(posterior)
        assert 0 < check.global_p_value <= 1
        assert check.non_finite == {"spikes": 0.0}
        ahead = posterior.one_step_ahead("spikes", num_particles=32)
        assert time_rescaling(ahead).num_intervals.sum() > 50
        scores[name] = one_step_ahead_bits_per_spike(ahead, block_length=5)
        assert math.isfinite(bits_per_spike(posterior.mean("spikes", num_samples=5), test.observations["spikes"]))
        assert held_out_log_likelihood(posterior, num_particles=8).num_blocks == len(test)
    assert paired_difference(scores["fixed"], scores["random"]).standard_error > 0


def test_comparison_takes_held_out_sequences_and_refuses_the_others(results, split):
    train, validation, test = split
    frame = compare({name: result.posterior(test, device="cpu") for name, result in results.items()}, num_particles=8)
    assert sorted(frame.index) == ["fixed", "random"]
    for data in (train, validation):
        models = {name: result.posterior(data, device="cpu") for name, result in results.items()}
        with pytest.raises(ValueError, match="were used to fit it or to stop the fit"):
            compare(models)
