"""All checks at once: what is wrong is found and named, what is right is left alone, what does not apply is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr

RATE = 1.5


def known(counts: np.ndarray, head: lr.Observation) -> lr.Posterior:
    """A posterior of a model of which every number is known: counts at one rate, without a state."""
    data = lr.SequenceData.from_arrays({"y": counts}, dt=0.02)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Deterministic(), observations={"y": head})
    return lr.Posterior(model, lr.Guide(model), data)


def poisson() -> lr.Poisson:
    return lr.Poisson(fixed={"weight": 0.0, "baseline": float(np.log(RATE))})


@pytest.fixture(scope="module")
def right() -> lr.Criticism:
    counts = np.random.default_rng(0).poisson(RATE, (40, 25, 2))
    return lr.criticise(known(counts, poisson()))


@pytest.fixture(scope="module")
def wrong() -> lr.Criticism:
    rng = np.random.default_rng(1)
    counts = rng.poisson(RATE * rng.gamma(1.0, 1.0, (40, 25, 2)))  # twice and a half as variable as Poisson
    return lr.criticise(known(counts, poisson()))


def test_the_right_model_is_left_alone(right: lr.Criticism) -> None:
    assert right.findings == []
    assert not right.to_dataframe().flagged.any()
    assert "Nothing was found at level 0.01" in str(right)


def test_over_dispersion_is_found_by_name(wrong: lr.Criticism) -> None:
    table = wrong.to_dataframe()
    flagged = table[table.flagged]
    assert set(flagged.check) >= {"rollouts", "time rescaling"}
    assert "Fano factor" in " ".join(flagged.statistic)
    assert any("in free-running replicates" in text for text in wrong.findings)
    assert any("intervals between events" in text for text in wrong.findings)
    assert str(wrong).startswith("What was found:")


def test_what_does_not_apply_is_said(right: lr.Criticism) -> None:
    assert list(right.skipped) == ["diagnosis"]
    assert "no latents of single sequences" in right.skipped["diagnosis"]
    assert repr(right) == "Criticism(reconstruction, rollouts, calibration, time rescaling: 0 findings)"


def test_every_check_is_in_the_table_and_in_the_figure(wrong: lr.Criticism) -> None:
    assert set(wrong.to_dataframe().check) == {"reconstruction", "rollouts", "calibration", "time rescaling"}
    axes = wrong.plot()
    assert wrong.rollouts is not None
    assert len(axes) == len(wrong.rollouts.discrepancies) + 2
    assert all(ax.get_xlabel() or ax.get_title() for ax in axes)


def test_sequences_that_were_fitted_have_no_calibration() -> None:
    counts = np.random.default_rng(2).poisson(RATE, (8, 6, 1))
    data = lr.SequenceData.from_arrays({"y": counts, "z": np.zeros((8, 1))}, per_sequence=["z"])
    heads = {"y": lr.Poisson(), "z": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations=heads)
    result = lr.fit(
        model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data, steps=2, seed=0, reporting=lr.Reporting(progress=False)
    )
    found = lr.criticise(result.posterior(data), heads=["y"], num_samples=20)
    assert list(found.skipped) == ["calibration of y"]
    assert "took part in the fit" in found.skipped["calibration of y"]
    assert found.diagnosis is not None


def test_mistakes_are_named() -> None:
    posterior = known(np.ones((3, 4, 1)), poisson())
    with pytest.raises(TypeError, match="criticise: posterior must be a Posterior"):
        lr.criticise(torch.zeros(2))
    with pytest.raises(ValueError, match="heads"):
        lr.criticise(posterior, heads=["x"])
    with pytest.raises(ValueError, match="level"):
        lr.criticise(posterior, level=2.0)
