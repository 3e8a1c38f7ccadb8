"""Predictive checks: right models pass within a stated budget, wrong ones are found, nothing is NaN."""

import numpy as np
import pytest
import torch

from latentrnn.criticism import posterior_predictive_check, teacher_forced_check
from latentrnn.data import SequenceData
from tests.criticism.fakes import FakePosterior, counts_data


def poisson(rate, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.as_tensor(rate, dtype=torch.float32).expand(*shape).contiguous(), generator=generator)


def posterior_of(rate_data, rate_model, *, shape=(4, 100, 3), num_samples=200, seed=0, **options):
    data = counts_data(poisson(rate_data, *shape, seed=1000 + seed), **options)
    return FakePosterior(data, replicates={"spikes": poisson(rate_model, num_samples, *shape, seed=seed)})


def test_p_values_are_ranks_with_the_plus_one_correction():
    data = counts_data(torch.tensor([[[2.0], [0.0]], [[1.0], [1.0]]]))
    totals = torch.tensor([1.0, 4.0, 4.0, 6.0, 8.0])
    replicates = torch.zeros(5, 2, 2, 1)
    replicates[:, 0, 0, 0] = totals
    posterior = FakePosterior(data, replicates={"spikes": replicates})
    check = posterior_predictive_check(
        posterior, statistics={"total": lambda v, m: (v * m).sum((-3, -2, -1))}, num_samples=5
    )
    row = check.table[0]
    assert row["observed"] == 4.0
    assert row["replicate_mean"] == totals.mean()
    ends = np.quantile(totals.numpy(), [0.05, 0.95], method="weibull")  # right on average, see `quantiles`
    assert (row["lower"], row["upper"]) == pytest.approx(tuple(ends))
    assert row["p_value"] == pytest.approx(2 * min(1 + 3, 1 + 4) / 6 if 2 * 4 / 6 < 1 else 1.0)
    extreme = FakePosterior(data, replicates={"spikes": replicates + 10})
    check = posterior_predictive_check(
        extreme, statistics={"total": lambda v, m: (v * m).sum((-3, -2, -1))}, num_samples=5
    )
    assert check.p_values["spikes"]["total"].item() == pytest.approx(2 / 6)


def test_a_true_model_is_flagged_no_more_often_than_the_level_says():
    # each is flagged with probability at most 0.01: more than 4 of 40 has probability 7e-5, of 60 samples each 3e-5
    flagged = sum(bool(posterior_predictive_check(posterior_of(0.3, 0.3, seed=seed)).flagged) for seed in range(40))
    assert flagged <= 4


def test_whole_table_p_value_is_valid_under_exchangeability():
    p_values = [
        posterior_predictive_check(
            posterior_of(0.3, 0.3, shape=(2, 40, 2), num_samples=39, seed=seed), num_samples=39
        ).global_p_value
        for seed in range(150)
    ]
    # P(p <= 0.1) <= 0.1; more than 36 of 150 has probability below 1e-6
    assert sum(p <= 0.1 for p in p_values) <= 36


@pytest.mark.parametrize(("data", "model"), [(0.3, 0.45), (0.45, 0.3)])
def test_a_wrong_rate_is_flagged(data, model):
    check = posterior_predictive_check(posterior_of(data, model))
    assert any("mean rate" in row["statistic"] for row in check.flagged)
    assert check.global_p_value < 0.01


def test_overdispersion_is_found_by_the_fano_factor_not_by_the_mean():
    generator = torch.Generator().manual_seed(3)
    gains = torch.distributions.Gamma(2.0, 2.0).sample((1, 400, 3)).repeat_interleave(1, 0)
    data = counts_data(torch.poisson(1.5 * gains, generator=generator))
    mean = data.observations["spikes"].mean((0, 1))
    posterior = FakePosterior(data, replicates={"spikes": poisson(mean, 200, 1, 400, 3)})
    statistics = {row["statistic"].split(" (")[0] for row in posterior_predictive_check(posterior).flagged}
    assert "Fano factor" in statistics
    assert "mean rate" not in statistics


def test_one_wrong_channel_among_many_is_named():
    rate_data = torch.full((20,), 0.3)
    rate_data[7] = 1.2
    check = posterior_predictive_check(posterior_of(rate_data, 0.3, shape=(4, 100, 20)))
    names = {row["entry"] for row in check.flagged if "mean rate" in row["statistic"]}
    assert names == {posterior_of(0.3, 0.3, shape=(1, 2, 20)).data.spec.heads["spikes"].channel_names[7]}


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 3e38])
def test_exploding_replicates_are_a_misfit_and_never_nan(junk):
    posterior = posterior_of(0.3, 0.3)
    posterior.replicates["spikes"][:, 0, 50:] = junk
    check = posterior_predictive_check(posterior)
    assert all(np.isfinite(row["p_value"]) for row in check.table)
    assert any("mean rate" in row["statistic"] for row in check.flagged)
    assert check.non_finite["spikes"] == (junk != 3e38)
    assert "nan" not in str(check)


def test_all_junk_replicates_are_a_misfit():
    posterior = posterior_of(0.3, 0.3)
    posterior.replicates["spikes"].fill_(float("nan"))
    check = posterior_predictive_check(posterior)
    assert any("mean rate" in row["statistic"] for row in check.flagged)
    assert "100% of the replicates left the range of numbers" in str(check)


def test_what_is_not_scored_counts_in_neither():
    mask = torch.ones(4, 100, 3, dtype=torch.bool)
    mask[:, 60:] = False
    posterior = posterior_of(0.3, 0.3, masks=mask)
    check = posterior_predictive_check(posterior)
    posterior.replicates["spikes"][:, ~mask] = float("nan")
    other = posterior_predictive_check(posterior)
    assert other.non_finite["spikes"] == 0
    assert [row["p_value"] for row in other.table] == [row["p_value"] for row in check.table]


def test_context_is_not_scored():
    whole = posterior_of(0.3, 0.3).data
    _, _, later = whole.split(0.5, 0.1, 0.4, along="time", context=20)
    shape = later.observations["spikes"].shape
    replicates = torch.zeros(200, *shape)
    replicates[:, :, :20] = 50.0  # in the context only
    check = posterior_predictive_check(
        FakePosterior(later, replicates={"spikes": replicates}), statistics={"mean": lambda v, m: (v * m).sum((-3, -2))}
    )
    assert all(row["replicate_mean"] == 0 for row in check.table)


def test_silent_and_unobserved_channels_stay_in_order():
    counts = poisson(0.3, 4, 100, 3, seed=5)
    counts[..., 0] = 0.0
    mask = torch.ones(4, 100, 3, dtype=torch.bool)
    mask[..., 2] = False
    data = counts_data(counts, masks=mask)
    check = posterior_predictive_check(FakePosterior(data, replicates={"spikes": poisson(0.3, 200, 4, 100, 3)}))
    interval = [row for row in check.table if "mean interval" in row["statistic"]]
    names = data.spec.heads["spikes"].channel_names
    assert [row["entry"] for row in interval] == list(names[:2])  # nothing to say of the third
    assert interval[0]["flagged"]  # no interval at all, where every replicate has some
    assert np.isnan(interval[0]["observed"])


def test_heads_of_every_shape_and_kind():
    generator = torch.Generator().manual_seed(4)
    data = SequenceData.from_arrays(
        {
            "spikes": poisson(0.5, 30, 20, 2),
            "field": torch.randn(30, 20, 1, generator=generator),
            "choice": torch.randint(0, 3, (30, 1), generator=generator).float(),
        },
        per_sequence=("choice",),
    )
    replicates = {
        "spikes": poisson(0.5, 200, 30, 20, 2),
        "field": torch.randn(200, 30, 20, 1, generator=generator) * 2,
        "choice": torch.randint(0, 3, (200, 30, 1), generator=generator).float(),
    }
    check = posterior_predictive_check(FakePosterior(data, replicates=replicates), kinds={"choice": "categorical"})
    assert list(check.p_values["choice"]) == ["class share"]
    assert {row["head"] for row in check.flagged} == {"field"}
    assert check.to_dataframe().shape[0] == len(check.table)
    assert "field" in str(check)


def test_heads_that_are_not_modelled_are_left_out():
    data = SequenceData.from_arrays({"spikes": poisson(0.3, 4, 100, 3), "other": torch.zeros(4, 100, 1)})
    posterior = FakePosterior(data, replicates={"spikes": poisson(0.3, 200, 4, 100, 3)}, heads=["spikes"])
    assert list(posterior_predictive_check(posterior).p_values) == ["spikes"]
    with pytest.raises(ValueError, match="unknown head 'other' in heads"):
        posterior_predictive_check(posterior, heads=["other"])


def test_options_reach_predictive():
    posterior = posterior_of(0.3, 0.3)
    check = posterior_predictive_check(posterior, latents="prior")
    assert posterior.asked == {"num_samples": 200, "heads": ["spikes"], "latents": "prior"}
    assert "free-running" in str(check)
    check = teacher_forced_check(posterior)
    assert posterior.asked == {"num_samples": 200, "heads": ["spikes"], "feedback": "recorded"}
    assert "teacher-forced" in str(check)


def test_too_few_replicates_to_flag_are_said_so():
    check = posterior_predictive_check(posterior_of(0.3, 3.0, num_samples=50), num_samples=50)
    assert not check.flagged
    assert "cannot tell with fewer than num_samples=200" in str(check)


ERRORS = {
    "unknown head": ({"heads": ["spiks"]}, r"check: unknown head 'spiks' in heads; there are \['spikes'\]"),
    "unknown kind": ({"kinds": {"field": "count"}}, "unknown head 'field' in kinds"),
    "one sample": ({"num_samples": 1}, "num_samples must be an integer of at least 2; found 1"),
    "level": ({"level": 0.0}, "level must be in .0, 1.; found 0.0"),
    "statistic loses the samples": (
        {"statistics": {"sum": lambda v, m: v.sum()}},
        r"statistics\['sum'\]: expected \(\*sample",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case):
    options, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        posterior_predictive_check(posterior_of(0.3, 0.3), **options)


def test_nothing_scored_is_an_error():
    data = counts_data(torch.zeros(2, 5, 1)).mask_entries("spikes", torch.ones(2, 5, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="no scored entry"):
        posterior_predictive_check(FakePosterior(data, replicates={"spikes": torch.zeros(200, 2, 5, 1)}))
