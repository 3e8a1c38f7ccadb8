"""Fits from several seeds, and weights that no other weights beat on the sequences that decide them."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy import optimize

import latentrnn as lr
from latentrnn.inference.sampling.ensemble import stacking_weights

# the fits are short, so that some sequence's importance weights may have a heavy tail, which is said
pytestmark = pytest.mark.filterwarnings("ignore:fit_ensemble. the member of seed:UserWarning")
SETTINGS = {
    "steps": 25,
    "optimizer": lr.Adam(learning_rate=0.03),
    "reporting": lr.Reporting(progress=False),
    "compute": lr.Compute(device="cpu"),
}


def setting(transition: lr.Transition | None = None) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 6, (30, 1, 1))
    counts = rng.poisson(np.exp(np.sin(phase + 0.5 * np.arange(12)[:, None] + np.arange(3)))).astype(float)
    data = lr.SequenceData.from_arrays({"y": counts})
    parts = {"transition": transition or lr.GRU(4), "latent": lr.InitialState(2), "observations": {"y": lr.Poisson()}}
    model = lr.LatentRNN(data.spec, **parts)
    return model, lr.Guide(model, encoder=lr.RNNEncoder(4)), data


@functools.cache
def ensemble() -> lr.Ensemble:
    model, guide, data = setting()
    return lr.fit_ensemble(model, guide, data[:14], data[14:18], seeds=[3, 1, 2], stacking=data[18:26], **SETTINGS)


def test_members_are_fits_of_their_seeds() -> None:
    model, guide, data = setting()
    alone = lr.fit(model, guide, data[:14], data[14:18], seed=1, **SETTINGS)
    member = ensemble().members[1]
    assert member.seed == 1
    for name, value in alone.model.state_dict().items():
        assert torch.equal(value, member.model.state_dict()[name])
    assert ensemble().used >= alone.used | frozenset(data[18:26].keys)


def test_predictions_and_evidence_are_those_of_the_mixture() -> None:
    _, _, data = setting()
    new = data[26:]
    found = ensemble().posterior(new, device="cpu")
    weights = ensemble().weights
    assert float(weights.sum()) == pytest.approx(1)
    means = torch.stack([member.posterior(new, device="cpu").mean("y", 20) for member in ensemble().members])
    expected = torch.einsum("k,ksct->sct", weights.float(), means)
    torch.testing.assert_close(found.mean("y", 20), expected)
    members = [member.posterior(new, device="cpu").evidence("iwae", 30) for member in ensemble().members]
    mixture = np.log(sum(w * np.exp(m.values.double().numpy()) for w, m in zip(weights.numpy(), members, strict=True)))
    found_evidence = found.evidence("iwae", 30)
    assert found_evidence.values.numpy() == pytest.approx(mixture, rel=1e-5)
    assert bool((found_evidence.standard_error > 0).all())
    assert found.rates("y", 17).shape == (17, 4, 12, 3)
    assert found.predictive(9)["y"].shape == (9, 4, 12, 3)
    # a mixture that leans on one member is that member
    alone = lr.EnsemblePosterior(found.posteriors, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert torch.equal(alone.evidence("iwae", 30).values, members[1].values)
    assert torch.equal(alone.rates("y", 5), found.posteriors[1].rates("y", 5))


def test_on_its_own_sequences_no_single_member_is_better() -> None:
    found = ensemble()
    mixture = torch.logsumexp(found.log_evidence + found.weights.log()[:, None], 0).sum()
    assert float(mixture) >= float(found.log_evidence.sum(1).max()) - 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_weights_maximise_the_sum_of_log_densities(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = -2000 + 1.5 * rng.normal(size=(4, 40)) + np.array([[0.0], [0.5], [-3.0], [0.4]])
    weights = stacking_weights(torch.as_tensor(values)).numpy()

    def energy(w: np.ndarray) -> float:
        return -np.log(w @ np.exp(values - values.max(0))).sum()

    best = optimize.minimize(
        energy, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert energy(weights) <= best.fun + 1e-6
    assert np.abs(weights - best.x).max() < 1e-3
    assert (weights >= 0).all()


def test_weights_of_clear_cases() -> None:
    assert stacking_weights(torch.zeros(3, 5)).tolist() == pytest.approx([1 / 3] * 3)
    better = torch.stack([torch.zeros(30), torch.full((30,), -5.0)])
    assert stacking_weights(better)[0] > 1 - 1e-6
    # each member knows half of the sequences: none may be left out, though one is better on average
    halves = torch.tensor([[0.0, 0.0, -50.0], [-50.0, -50.0, 0.0]])
    assert stacking_weights(halves).tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-6)


def test_errors() -> None:
    model, guide, data = setting()
    with pytest.raises(ValueError, match=r"2 stacking sequences are in train too.*stacking\.without\(train\)"):
        lr.fit_ensemble(model, guide, data[:10], stacking=data[8:12], **SETTINGS)
    with pytest.raises(ValueError, match="seeds must be different"):
        lr.fit_ensemble(model, guide, data[:10], seeds=[1, 1], **SETTINGS)
    with pytest.raises(ValueError, match="start_from belongs to one fit"):
        lr.fit_ensemble(model, guide, data[:10], start_from=ensemble().members[0], **SETTINGS)
    with pytest.raises(ValueError, match=r"expected finite \(member, sequence\)"):
        stacking_weights(torch.tensor([[0.0, torch.nan]]))
    equal = lr.fit_ensemble(model, guide, data[:10], seeds=[0, 1], **{**SETTINGS, "steps": 1})
    assert equal.weights.tolist() == [0.5, 0.5]
    assert equal.log_evidence is None


MISUSE: dict[str, tuple[dict[str, Any], str]] = {
    "no seeds": ({"seeds": None}, "seeds must be a list of integers; found None"),
    "a text for seeds": ({"seeds": "12"}, "seeds must be a list of integers; found '12'"),
    "lists among the seeds": ({"seeds": [[0], [1]]}, r"each of seeds must be an integer.*found \[0\]"),
    "fractions among the seeds": ({"seeds": [0.5, 1.5]}, "each of seeds must be an integer.*found 0.5"),
    "a word for a flag": ({"vectorised": "no"}, "vectorised must be True or False; found 'no'"),
    "no list of optimizers": ({"optimizers": 3}, "optimizers must be a list of AdamW, one for each seed; found 3"),
    "numbers for optimizers": ({"optimizers": [3, 4]}, "optimizer must be AdamW; found int"),
    "a number to stack by": ({"stacking": 3}, "stacking must be a SequenceData; found 3"),
    "a setting that fit does not have": ({"typo": 3}, "'typo' is no setting of fit"),
    "one seed for all": ({"seed": 0}, "seed belongs to one fit"),
}


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize("case", MISUSE)
def test_misuse_is_refused_by_name(case: str, vectorised: bool) -> None:
    model, guide, data = setting()
    arguments, message = MISUSE[case]
    quiet = {"reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")}
    settings = quiet | {"steps": 1, "seeds": [0, 1], "vectorised": vectorised} | arguments
    with pytest.raises((TypeError, ValueError), match=message):
        lr.fit_ensemble(model, guide, data[:10], **settings)


def test_fresh_seeds_are_told() -> None:
    model, guide, data = setting()
    settings = SETTINGS | {"steps": 1}
    for vectorised in (False, True):
        found = lr.fit_ensemble(model, guide, data[:10], seeds=[None, np.int64(4)], vectorised=vectorised, **settings)
        again = lr.fit_ensemble(model, guide, data[:10], seeds=[m.seed for m in found.members], **settings)
        assert found.members[1].seed == 4
        first, second = (each.members[0].model.state_dict() for each in (found, again))
        assert all(torch.allclose(value, second[name], atol=1e-6) for name, value in first.items())


@pytest.mark.parametrize("vectorised", [False, True])
def test_a_seed_that_leads_nowhere_does_not_take_the_others_with_it(vectorised: bool) -> None:
    model, guide, data = setting()
    optimizers = [lr.Adam(0.01), lr.Adam(1e30), lr.Adam(0.02)]  # whose second step is no number any more
    settings = SETTINGS | {"steps": 6, "seeds": [0, 1, 2], "vectorised": vectorised, "optimizers": optimizers}
    del settings["optimizer"]
    with pytest.warns(RuntimeWarning, match="fit_ensemble: no member of seed 1: .*before anything was learnt"):
        found = lr.fit_ensemble(model, guide, data[:10], **settings)
    assert [member.seed for member in found.members] == [0, 2]
    assert found.weights.tolist() == [0.5, 0.5]
    assert "before anything was learnt" in found.failures[1]
    with pytest.raises(ValueError, match="before anything was learnt"):
        lr.fit_ensemble(model, guide, data[:10], **settings | {"optimizers": [lr.Adam(1e30)] * 3})


class OutOfMemory(lr.GRU):
    """A transition whose scan fails as often as it still should."""

    left: ClassVar[int] = 0

    def scan(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        if self.left:
            type(self).left -= 1
            raise RuntimeError("out of memory")
        return super().scan(inputs, state)


def test_an_error_of_one_process_of_several_ends_the_ensemble(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are in the midst of the same fit: whoever went on alone would leave them waiting for ever."""
    model, guide, data = setting(OutOfMemory(4))
    settings = {"seeds": [0, 1], "steps": 2, "reporting": SETTINGS["reporting"], "compute": SETTINGS["compute"]}
    monkeypatch.setattr(OutOfMemory, "left", 1)
    with monkeypatch.context() as patch:
        several = SimpleNamespace(size=2)
        patch.setattr("latentrnn.inference.sampling.ensemble.launched_processes", lambda *_: several)
        with pytest.raises(RuntimeError, match="out of memory"):
            lr.fit_ensemble(model, guide, data[:10], **settings)
    monkeypatch.setattr(OutOfMemory, "left", 1)
    with pytest.warns(RuntimeWarning, match="no member of seed 0: out of memory") as seen:
        found = lr.fit_ensemble(model, guide, data[:10], **settings)
    assert [member.seed for member in found.members] == [1]
    assert [item.filename for item in seen if "seed 0" in str(item.message)] == [__file__]  # where the call is
