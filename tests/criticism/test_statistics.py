"""Field statistics against loops over the entries that count, written with numpy."""

import numpy as np
import pytest
import torch

from latentrnn.criticism import statistics as st

S, T, C = 3, 40, 2


@pytest.fixture
def field():
    """Two samples of counts, with missing entries and padding; the fillers are absurd on purpose."""
    rng = np.random.default_rng(1)
    values = rng.poisson(0.6, size=(2, S, T, C)).astype(float)
    mask = rng.random((S, T, C)) > 0.1
    mask[1, 25:] = False
    values[:, ~mask] = 999.0
    return torch.as_tensor(values), torch.as_tensor(mask)


def by_channel(values, mask, function):
    """function(list of per-sequence (values, mask) of one channel) for each sample and channel."""
    return np.array(
        [[function([(v[s, :, c], mask[s, :, c]) for s in range(S)]) for c in range(C)] for v in values.numpy()]
    )


def seen(sequences):
    return np.concatenate([v[m] for v, m in sequences])


def intervals(sequences):
    found = []
    for v, m in sequences:
        last = None
        for t in range(T):
            if not m[t]:
                last = None
            elif v[t] > 0:
                if last is not None:
                    found.append(t - last)
                last = t
    return np.array(found, dtype=float)


def windows(sequences, width):
    return np.array(
        [v[t : t + width].sum() for v, m in sequences for t in range(0, T - width + 1, width) if m[t : t + width].all()]
    )


def autocorrelation(sequences, lag):
    average, variance = seen(sequences).mean(), seen(sequences).var()
    products = [
        (v[t] - average) * (v[t + lag] - average) for v, m in sequences for t in range(T - lag) if m[t] and m[t + lag]
    ]
    return np.mean(products) / variance


ORACLES = {
    "mean_rate": (lambda v, m: st.mean_rate(v, m, dt=0.5), lambda x: seen(x).mean() / 0.5),
    "zero_fraction": (st.zero_fraction, lambda x: (seen(x) == 0).mean()),
    "standard_deviation": (st.standard_deviation, lambda x: seen(x).std()),
    "minimum": (st.minimum, lambda x: seen(x).min()),
    "maximum": (st.maximum, lambda x: seen(x).max()),
    "fano_1": (st.fano_factor, lambda x: windows(x, 1).var(ddof=1) / windows(x, 1).mean()),
    "fano_3": (
        lambda v, m: st.fano_factor(v, m, window=3),
        lambda x: windows(x, 3).var(ddof=1) / windows(x, 3).mean(),
    ),
    "interval_mean": (lambda v, m: st.interval_mean(v, m, dt=0.5), lambda x: intervals(x).mean() * 0.5),
    "interval_cv": (st.interval_cv, lambda x: intervals(x).std(ddof=1) / intervals(x).mean()),
    "autocorrelation_1": (
        lambda v, m: st.autocorrelation(v, m, lags=(1,))[..., 0],
        lambda x: autocorrelation(x, 1),
    ),
    "autocorrelation_5": (
        lambda v, m: st.autocorrelation(v, m, lags=(2, 5))[..., 1],
        lambda x: autocorrelation(x, 5),
    ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_statistic_equals_a_loop_over_the_entries_that_count(name, field):
    function, oracle = ORACLES[name]
    np.testing.assert_allclose(function(*field), by_channel(*field, oracle), rtol=1e-12)


def test_channel_covariance_and_correlation_equal_numpy(field):
    values, mask = field
    both = mask.all(-1, keepdim=True).expand_as(mask)  # numpy's covariance takes complete rows only
    for sample in range(2):
        rows = values[sample][both].reshape(-1, C).numpy()
        np.testing.assert_allclose(st.channel_covariance(values, both)[sample], np.cov(rows.T, ddof=0), rtol=1e-12)
        np.testing.assert_allclose(st.channel_correlation(values, both)[sample, 0], np.corrcoef(rows.T)[0, 1])


def test_population_coupling_is_the_correlation_with_the_rest():
    values = torch.randn(4, 50, 12, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    rows = values.reshape(-1, 12).double().numpy()
    expected = [np.corrcoef(rows[:, c], rows.sum(1) - rows[:, c])[0, 1] for c in range(12)]
    result = st.population_coupling(values, torch.ones_like(values, dtype=torch.bool))
    np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_class_share_counts_labels():
    values, mask = torch.tensor([[[0.0], [2.0], [2.0], [1.0]]]), torch.tensor([[[True], [True], [True], [False]]])
    assert st.class_share(values, mask, classes=(0, 1, 2))[0].tolist() == pytest.approx([1 / 3, 0, 2 / 3])


def test_padding_changes_nothing(field):
    values, mask = field
    padded = torch.cat([values, torch.full((2, S, 7, C), 5.0)], 2)
    longer = torch.cat([mask, torch.zeros(S, 7, C, dtype=torch.bool)], 1)
    for name, (function, _) in ORACLES.items():
        torch.testing.assert_close(function(padded, longer), function(values, mask), rtol=1e-12, atol=0, msg=name)


def test_undefined_is_nan_and_leaves_other_channels_alone():
    values, mask = torch.zeros(1, 10, 2), torch.ones(1, 10, 2, dtype=torch.bool)
    values[0, [2, 5, 9], 1] = 1.0
    mean, cv = st.inter_event_intervals(values, mask)
    assert mean[0].isnan()
    assert mean[1] == 3.5
    assert cv[1] == pytest.approx(np.std([3, 4], ddof=1) / 3.5)
    assert st.fano_factor(values, mask)[0].isnan()
    assert st.mean(values, torch.zeros_like(mask)).isnan().all()


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0.0, 3.0], "count"), ([0.0, 1.0], "count"), ([0.5, 1.0], "continuous"), ([-1.0, 1.0], "continuous")],
)
def test_kind_is_read_off_the_observed_values(values, kind):
    values = torch.tensor([*values, -7.5]).reshape(1, 3, 1)
    assert st.observation_kind(values, torch.tensor([True, True, False]).reshape(1, 3, 1)) == kind


def test_defaults_suit_the_kind_and_the_length(field):
    def names(*arguments, **options):
        return " ".join(item.name for item in st.default_statistics(*arguments, **options))

    values, mask = field
    counts = names(values[0], mask, dt=0.001)
    assert all(part in counts for part in ("Hz", "zero", "Fano", "interval CV", "autocorrelation", "correlation"))
    continuous = names(values[0] + 0.5, mask)
    assert "standard deviation" in continuous
    assert "Fano" not in continuous
    one_step = names(values[0, :, :1, :1], torch.ones(S, 1, 1, dtype=torch.bool))
    assert "interval" not in one_step
    assert "autocorrelation" not in one_step
    assert names(values[0], mask, kind="categorical") == "class share"


ERRORS = {
    "lag": (lambda v, m: st.autocorrelation(v, m, lags=(T,)), "lags: expected between 1 and 39 steps, got 40"),
    "window": (lambda v, m: st.fano_factor(v, m, window=T + 1), "window: 41 steps do not fit into 40"),
    "kind": (lambda v, m: st.default_statistics(v[0], m, kind="spiky"), "kind: expected 'count'.*got 'spiky'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case, field):
    call, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        call(*field)


def test_steps_are_sorted_by_a_covariate_and_by_its_last_steps():
    covariate = torch.tensor([[0.0, 3.0, 3.0, 3.0, 1.0, 2.0]])
    valid = torch.ones(1, 6, dtype=torch.bool)
    # sums of the two steps before: 0, 0, 3, 6, 6, 4
    cells = st.response_cells(covariate, valid, steps=2)
    assert [st.CELLS[cell] for cell in cells[0].tolist()] == [
        "low after low", "high after low", "high after middle",
        "high after high", "low after high", "middle after middle",
    ]  # fmt: skip
    padded = st.response_cells(torch.cat([covariate, torch.full((1, 2), 9.0)], 1), torch.arange(8)[None] < 6, steps=2)
    assert padded[:, :6].equal(cells)


def test_means_of_cells_are_those_of_their_entries():
    rng = torch.Generator().manual_seed(0)
    values = torch.rand(3, 4, 6, 2, generator=rng)
    mask = torch.rand(4, 6, 2, generator=rng) < 0.8
    cells = torch.randint(0, 8, (4, 6), generator=rng)
    found = st.response(values, mask, cells=cells)
    assert found.shape == (3, 2, 9)
    assert found[..., 8].isnan().all()
    there = mask[..., 1] & (cells == 4)
    torch.testing.assert_close(found[2, 1, 4], values[2, ..., 1][there].double().mean())
