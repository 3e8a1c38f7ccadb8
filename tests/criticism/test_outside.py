"""What another package says of the same data stands in our tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import latentrnn as lr


@pytest.fixture(scope="module")
def posterior() -> lr.Posterior:
    """White noise under a model that knows it: a baseline of zero, a scale of one, and no weight on the state."""
    counts = np.random.default_rng(0).normal(size=(12, 7, 2))
    counts[3, 5:] = np.nan
    data = lr.SequenceData.from_arrays({"y": counts}, dtype=torch.float64)
    head = lr.Gaussian(fixed={"weight": 0.0, "baseline": 0.0, "scale": 1.0})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head}).double()
    return lr.Posterior(model, lr.Guide(model).double(), data)


def densities(posterior: lr.Posterior, scale: float = 1.0) -> np.ndarray:
    return stats.norm(scale=scale).logpdf(posterior.data.observations["y"].numpy())


def test_the_same_densities_are_no_difference(posterior: lr.Posterior) -> None:
    ours = posterior.one_step_ahead("y")
    theirs = lr.score_of(densities(posterior), like=ours)
    ours_score, theirs_score = (lr.one_step_ahead_log_likelihood(item) for item in (ours, theirs))
    assert float(ours_score) == pytest.approx(float(theirs_score), abs=1e-12)
    assert float(lr.paired_difference(ours_score, theirs_score)) == pytest.approx(0.0, abs=1e-12)
    assert theirs.mean.isnan().all()


def test_a_worse_rival_is_behind_by_what_scipy_says(posterior: lr.Posterior) -> None:
    ours = posterior.one_step_ahead("y")
    wide = lr.score_of(densities(posterior, 2.0), like=ours)
    frame = lr.compare({"wide": wide, "ours": ours}, held_out=True)
    seen = posterior.data.masks["y"].numpy()
    expected = (densities(posterior) - densities(posterior, 2.0))[seen].sum()
    assert frame.index.tolist() == ["ours", "wide"]
    assert frame.elpd_diff["wide"] == pytest.approx(expected)


def test_whole_sequences(posterior: lr.Posterior) -> None:
    seen = posterior.data.masks["y"].numpy()
    whole = np.where(seen, densities(posterior, 2.0), 0.0).sum((1, 2))
    rival = lr.score_of(torch.from_numpy(whole), like=posterior)
    assert repr(rival) == f"OutsideEvidence(12 sequences, {whole.mean():.4g} nats per sequence)"
    for models in ({"ours": posterior, "wide": rival}, {"wide": rival, "ours": posterior}):
        frame = lr.compare(models, held_out=True)
        assert frame.index.tolist() == ["ours", "wide"]
        assert frame.elpd_diff["wide"] == pytest.approx(np.where(seen, densities(posterior), 0).sum() - whole.sum())
        assert frame.kind["wide"] == "outside"
        assert math.isnan(frame.pareto_k["wide"])
    reordered = lr.Posterior(posterior.model, posterior.guide, posterior.data[torch.arange(11, -1, -1)])
    frame = lr.compare({"ours": reordered, "wide": rival}, held_out=True)
    assert frame.dse["wide"] == pytest.approx(lr.compare({"ours": posterior, "wide": rival}, held_out=True).dse["wide"])


def test_mistakes_are_named(posterior: lr.Posterior) -> None:
    ours = posterior.one_step_ahead("y")
    with pytest.raises(ValueError, match=r"log_prob: expected shape \(12, 7, 2\), found \(12, 7\)"):
        lr.score_of(np.zeros((12, 7)), like=ours)
    with pytest.raises(ValueError, match=r"log_prob: expected shape \(12,\), a sequence each, found \(3,\)"):
        lr.score_of(np.zeros(3), like=posterior)
    values = densities(posterior)
    values[2, 1, 0] = np.nan
    with pytest.raises(ValueError, match="found nan at sequence 2, step 1, channel 0"):
        lr.score_of(values, like=ours)
    with pytest.raises(TypeError, match="score_of: like must be"):
        lr.score_of(np.zeros(3), like=posterior.data)
    with pytest.raises(ValueError, match="its data are not those of"):
        lr.compare({"a": posterior, "b": lr.score_of(np.zeros(5), like=lr.Posterior(
            posterior.model, posterior.guide, posterior.data[:5]))}, held_out=True)  # fmt: skip
