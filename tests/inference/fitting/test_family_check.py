"""What is said at the end of a fit of a family that was given against the evidence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.fitting import fit as fitting
from latentrnn.inference.posterior import family_check


def rotation(trials: int, bins: int, channels: int) -> lr.SequenceData:
    """Counts that a slow rotation with noise drives, eigenvalues .969 +- .146i."""
    rng = np.random.default_rng(0)
    turn = np.array([[0.969, -0.146], [0.146, 0.969]])
    state, states = rng.normal(size=(trials, 2)), np.empty((trials, bins, 2))
    for t in range(bins):
        state = state @ turn.T + 0.2 * rng.normal(size=(trials, 2))
        states[:, t] = state
    rates = np.exp(states @ rng.normal(size=(2, channels)) * 0.7 - 0.5)
    return lr.SequenceData.from_arrays({"spikes": rng.poisson(np.clip(rates, 0, 50)).astype(float)}, dt=0.01)


def parts(data: lr.SequenceData, family: lr.Family | None) -> tuple[lr.LatentRNN, lr.Guide]:
    heads = {"spikes": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.MarkovNormal(), observations=heads)
    return model, lr.Guide(model, encoder=lr.RNNEncoder(12), family=family)


def test_a_family_against_the_evidence_is_named_in_one_line() -> None:
    data = rotation(20, 40, 12)
    settings = {"steps": 200, "optimizer": lr.AdamW(learning_rate=0.02), "reporting": lr.Reporting(progress=False)}
    with pytest.warns(UserWarning, match=r"the guide's family MeanField\(\) leaves at least") as told:
        result = lr.fit(*parts(data, lr.MeanField()), data, **settings)
    (message,) = {str(each.message) for each in told}
    assert "\n" not in message
    assert "Markov() is the default for MarkovNormal" in message
    assert [event for event in result.events if event in message]
    # what it says is a bound from below on what the family leaves
    posterior = result.posterior(data[:4])
    gap = posterior.evidence("iwae", 2000).values - posterior.evidence("elbo", 2000).values
    said = float(message.partition("at least ")[2].partition(" ")[0])
    assert 1.0 < said < float(gap.mean()) + 1.0


def test_the_default_and_short_fits_are_not_remarked_upon() -> None:
    data = rotation(12, 30, 6)
    quiet = lr.Reporting(progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lr.fit(*parts(data[:4], None), data[:4], steps=fitting.JUDGED_FROM, reporting=quiet)
        lr.fit(*parts(data, lr.MeanField()), data, steps=20, reporting=quiet)


def test_looking_changes_nothing() -> None:
    data = rotation(12, 30, 6)
    found = []
    for judged_from in (0, 10**6):
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(fitting, "JUDGED_FROM", judged_from)
            pair, before = parts(data, lr.MeanField()), torch.get_rng_state()
            result = lr.fit(*pair, data, steps=30, reporting=lr.Reporting(progress=False))
        assert torch.equal(torch.get_rng_state(), before)
        found.append((result.model.state_dict(), result.model.training))
    for name, value in found[0][0].items():
        torch.testing.assert_close(value, found[1][0][name], rtol=0, atol=0)
    assert found[0][1] == found[1][1]


def test_a_stored_recording_and_frames_are_looked_at(tmp_path) -> None:
    rng = np.random.default_rng(0)
    counts, frames = rng.poisson(1.0, (30, 12, 4)).astype(float), rng.normal(size=(30, 4, 2))
    for kind in (lr.SequenceData, lr.StoredSequences):
        data = kind.from_arrays({"spikes": counts, "slow": frames}, dt=0.01, clocks={"slow": 3})
        heads = {"spikes": lr.Poisson(), "slow": lr.Gaussian()}
        model = lr.LatentRNN(data.spec, transition=lr.Linear(2), latent=lr.MarkovNormal(), observations=heads)
        guide = lr.Guide(model, encoder=lr.RNNEncoder(4), family=lr.MeanField())
        guide.initialise(model, data.for_start() if kind is lr.StoredSequences else data)
        assert isinstance(family_check.family_remark(model, guide, data, 0), str)
