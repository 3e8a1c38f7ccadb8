"""Probes of states whose content is known: read where it is there, as badly as their controls where it is not."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.interpret import decode, probe
from tests.interpret.small import posterior_of

pytest.importorskip("sklearn")


def recording(sequences: int = 12, steps: int = 20) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    lengths = [steps - k % 3 for k in range(sequences)]
    symbol = [rng.integers(0, 4, (n, 1)) for n in lengths]
    return lr.SequenceData.from_arrays(
        {"spikes": [rng.poisson(1.0, (n, 3)).astype(float) for n in lengths]},
        {"symbol": symbol, "x": [rng.normal(size=(n, 2)) for n in lengths]},
        dt=0.01,
        dtype=torch.float64,
    )


@pytest.fixture(scope="module")
def posterior() -> lr.Posterior:
    torch.manual_seed(0)
    data = recording()
    heads = {"spikes": lr.Poisson()}
    parts = {"transition": lr.LSTM(6), "latent": lr.Deterministic(), "observations": heads}
    model = lr.LatentRNN(data.spec, inputs=[lr.OneHot("symbol", 4), "x"], **parts).double()
    return lr.Posterior(model, lr.Guide(model), data)


@pytest.fixture(scope="module")
def hidden(posterior: lr.Posterior) -> np.ndarray:
    return lr.interpret.trace(posterior, 1).hidden.values[0]


def test_what_is_in_the_state_is_read_and_more_exactly_than_controls(
    posterior: lr.Posterior, hidden: np.ndarray
) -> None:
    target = hidden @ np.arange(12.0).reshape(6, 2) + 3.0
    found = probe(posterior, target, controls=9)
    assert found.score.dims == ("fold", "variable")
    assert float(found.score.min()) > 0.999
    assert float(found.control_score.max()) < 0.5  # what all sequences have in common along time
    assert found.p_value.values.tolist() == [0.1, 0.1]
    np.testing.assert_allclose(found.selectivity, found.score.mean("fold") - found.control_score.mean("control"))
    np.testing.assert_allclose(found.prediction, target, atol=0.02 * np.nanstd(target))
    assert bool(np.isnan(found.prediction[2, -1]).all())  # padding


def test_a_slow_drift_that_the_state_does_not_know_is_no_better_than_its_controls(posterior: lr.Posterior) -> None:
    drift = np.random.default_rng(1).normal(size=(12, 20, 8)).cumsum(1)
    found = probe(posterior, drift, controls=19)
    assert 0.25 < float(found.p_value.mean()) < 0.85  # of eight drifts: 0.05 to 1, one as likely as another
    assert float(found.score.mean("fold").max()) < 0.1


def test_a_sequence_is_read_by_readers_that_have_not_seen_it(posterior: lr.Posterior, hidden: np.ndarray) -> None:
    target = hidden[..., 0] + np.random.default_rng(2).normal(size=hidden.shape[:2])
    before = probe(posterior, target, controls=0)
    target[4] += 100.0
    after = probe(posterior, target, controls=0)
    np.testing.assert_array_equal(after.prediction[4], before.prediction[4])
    assert float(np.nanmin(np.abs(after.prediction[3] - before.prediction[3]))) > 1.0
    assert "p_value" not in after


def test_predictions_are_those_of_the_normal_equations(posterior: lr.Posterior, hidden: np.ndarray) -> None:
    target = hidden[..., 0] + np.random.default_rng(2).normal(size=hidden.shape[:2])
    found = probe(posterior, target, controls=0, folds=3, seed=5)
    left = np.array_split(np.random.default_rng(5).permutation(12), 3)[0]
    known = ~np.isnan(target)
    train = known & ~np.isin(np.arange(12), left)[:, None]
    x, y = hidden[train], target[train]
    centre, spread = x.mean(0), x.std(0)
    z = (x - centre) / spread
    weights = np.linalg.solve(z.T @ z + float(found.penalty[0, 0]) * len(z) * np.eye(6), z.T @ (y - y.mean()))
    expected = (hidden[left] - centre) / spread @ weights + y.mean()
    np.testing.assert_allclose(found.prediction[left, :, 0], expected, atol=1e-10)
    there = known[left]
    r2 = 1 - np.var((target[left] - expected)[there]) / np.var(target[left][there])
    bias = np.mean((target[left] - expected)[there]) ** 2 / np.var(target[left][there])
    np.testing.assert_allclose(found.score[0, 0], r2 - bias, atol=1e-10)


def test_classes_are_read_by_logistic_regression(posterior: lr.Posterior, hidden: np.ndarray) -> None:
    middle = np.nanmedian(hidden[..., 0])
    two = np.where(np.isnan(hidden[..., 0]), np.nan, hidden[..., 0] > middle)
    found = probe(posterior, two, kind="logistic", controls=3, folds=3)
    assert found.metric == "auroc"
    assert float(found.score.min()) > 0.98
    assert 0.2 < float(found.control_score.mean()) < 0.8
    assert set(np.unique(found.prediction.values[~np.isnan(found.prediction.values)])) == {0.0, 1.0}
    found = probe(posterior, "symbol", kind="logistic", controls=2, folds=2, of=["hidden", "cell"])
    assert found.metric == "accuracy"
    assert float(found.score.mean()) > 0.9 > 0.6 > float(found.control_score.max())


def test_controls_by_type_are_read_where_types_are(posterior: lr.Posterior) -> None:
    symbol = posterior.data.covariates["symbol"][..., 0].numpy()
    by_symbol = np.array([0.3, -1.0, 0.4, 2.0])[symbol.astype(int)]
    plain, typed = (probe(posterior, by_symbol, types=types, controls=9) for types in (None, "symbol"))
    assert float(plain.selectivity[0]) > 0.3  # it is in the state
    assert float(typed.selectivity[0]) < 0.2  # as much else is that the symbol tells
    assert float(typed.control_score.mean()) > 0.2 > 0.0 > float(plain.control_score.mean())


def test_earlier_states_are_read_through_lags(posterior: lr.Posterior, hidden: np.ndarray) -> None:
    late = np.full(hidden.shape[:2], np.nan)
    late[:, 2:] = hidden[:, :-2, 1]
    now, then, ahead = (decode(posterior, late, lags=lags, controls=0) for lags in ([0], [0, 2], [-2, -3]))
    assert float(then.score.min()) > 0.999 > 0.8 > float(now.score.mean())
    assert float(ahead.score.mean()) < 0.8
    assert bool(then.prediction[:, :2].isnull().all())
    early = np.full(hidden.shape[:2], np.nan)
    early[:, :-1] = hidden[:, 1:, 1]
    assert float(decode(posterior, early, lags=[-1], controls=0).score.min()) > 0.999


def test_one_number_per_sequence_is_read_off_its_last_or_mean_state(
    posterior: lr.Posterior, hidden: np.ndarray
) -> None:
    last = np.array([row[n - 1, 0] for row, n in zip(hidden, posterior.data.host_lengths, strict=True)])
    assert float(probe(posterior, last, controls=0, folds=3).score.min()) > 0.8
    mean = np.nanmean(hidden[..., 0], 1)
    found = probe(posterior, mean, controls=4, folds=3, pooling="mean")
    assert float(found.score.min()) > 0.8
    assert found.prediction.dims == ("sequence", "variable")


def test_draws_are_averaged_and_members_are_probed_alone() -> None:
    data = recording()
    members = [posterior_of(lr.GRU(3), lr.Innovations(1), data) for _ in range(2)]
    mean = members[0].latents(5)["states"].mean(0).numpy()
    found = probe(lr.EnsemblePosterior(members, torch.tensor([0.5, 0.5])), mean, controls=0, num_samples=5)
    assert found.score.dims == ("member", "fold", "variable")
    assert float(found.score[0].min()) > 0.99
    gates = probe(members[0], lr.interpret.trace(members[0], 5)["update"].mean("sample").values, of="update",
                  controls=0, num_samples=5)  # fmt: skip
    assert float(gates.score.min()) > 0.99


def test_mistakes_are_named(posterior: lr.Posterior) -> None:
    for change, said in {
        "name": ({"target": "y"}, "names no covariate"),
        "shape": ({"target": np.zeros((12, 7))}, "found \\(12, 7\\)"),
        "lists": ({"target": [np.zeros(3)] * 12}, "numbers of each of 12 sequences"),
        "of": ({"of": "memory"}, "unknown \\['memory'\\]; there are"),
        "kind": ({"kind": "lasso"}, "kind"),
        "metric": ({"metric": "auroc"}, "metric of a ridge probe"),
        "classes": ({"kind": "logistic"}, "whole numbers"),
        "two classes": ({"target": "symbol", "kind": "logistic", "metric": "auroc"}, "two classes"),
        "folds": ({"folds": 13}, "13 folds need more sequences"),
        "types": ({"types": "x"}, "one code for each entry"),
        "pooling": ({"pooling": "max"}, "pooling"),
    }.values():
        with pytest.raises(ValueError, match=said):
            probe(posterior, **{"target": "x", **change})
    with pytest.raises(TypeError, match="expected a posterior"):
        probe(posterior.model, "x")


def test_without_sklearn_it_says_what_to_install(posterior: lr.Posterior, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'latentrnn\[probes\]'"):
        probe(posterior, "x")
