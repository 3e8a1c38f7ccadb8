"""A mixture of fits does what a posterior does, by formulas that are written out here."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import special

import latentrnn as lr
from tests.inference.sampling.test_ensemble import ensemble, setting

# the fits are short, so that some sequence's importance weights may have a heavy tail, which is said
pytestmark = pytest.mark.filterwarnings(
    "ignore:fit_ensemble. the member of seed:UserWarning", "ignore:held_out_log_likelihood. posterior:UserWarning"
)
SETTINGS = {"steps": 2, "reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")}
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def posterior() -> lr.EnsemblePosterior:
    return dataclasses.replace(ensemble(), weights=WEIGHTS).posterior(setting()[2][26:], device="cpu")


@functools.cache
def deterministic() -> tuple[lr.Ensemble, lr.SequenceData]:
    """One channel and nothing random within a member, so that every density is exact."""
    rng = np.random.default_rng(0)
    y = [rng.poisson(0.8, (n, 1)).astype(float) for n in (9, 7, 9, 9, 9, 9)]
    y[0][3] = np.nan
    data = lr.SequenceData.from_arrays({"y": y}, {"x": [rng.normal(size=(len(part), 1)) for part in y]})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    found = lr.fit_ensemble(
        model, lr.Guide(model), data[4:], seeds=[0, 1, 2], optimizer=lr.Adam(learning_rate=0.3), **SETTINGS
    )
    return dataclasses.replace(found, weights=WEIGHTS), data[:4]


def test_one_step_ahead_adds_up_to_the_evidence_of_the_mixture() -> None:
    mixture, data = deterministic()
    found = mixture.posterior(data, device="cpu")
    ahead = found.one_step_ahead("y")
    members = [p.one_step_ahead("y") for p in found.posteriors]
    steps = np.stack([m.log_prob.double().numpy()[..., 0] for m in members])  # (member, sequence, time)
    expected, means = np.zeros(steps.shape[1:]), np.zeros(steps.shape[1:])
    log_weights = np.repeat(np.log(WEIGHTS.numpy())[:, None], len(data), 1)
    for t in range(steps.shape[-1]):
        share = log_weights - special.logsumexp(log_weights, 0)
        expected[:, t] = special.logsumexp(share + steps[..., t], 0)
        means[:, t] = (np.exp(share) * np.stack([m.mean.numpy()[:, t, 0] for m in members])).sum(0)
        log_weights = log_weights + steps[..., t]
    scored = ahead.scored[..., 0].numpy()
    np.testing.assert_allclose(ahead.log_prob[..., 0].numpy()[scored], expected[scored], atol=1e-5)
    np.testing.assert_allclose(ahead.mean[..., 0].numpy()[scored], means[scored], rtol=1e-4)
    assert bool((ahead.log_prob[~ahead.scored] == 0).all())
    evidence = found.evidence("iwae").values
    np.testing.assert_allclose(ahead.log_prob.sum((1, 2)), evidence, rtol=1e-5)
    unmoved = special.logsumexp(np.log(WEIGHTS.numpy())[:, None, None] + steps, 0).sum(-1)
    assert np.abs(unmoved - evidence.numpy()).max() > 0.01, "weights that do not move would be seen"
    assert ahead.standard_error is None
    assert ahead.used == mixture.used


def test_random_members_have_an_error_one_step_ahead() -> None:
    found = posterior().one_step_ahead("y", num_particles=16, num_filters=2)
    assert found.standard_error is not None
    assert bool((found.standard_error[found.scored] > 0).all())
    alone = lr.EnsemblePosterior(posterior().posteriors, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    member = posterior().posteriors[1].one_step_ahead("y", num_particles=16, num_filters=2)
    mixed = alone.one_step_ahead("y", num_particles=16, num_filters=2)
    torch.testing.assert_close(mixed.log_prob, member.log_prob)
    torch.testing.assert_close(mixed.standard_error, member.standard_error)


def test_a_mixture_is_as_doubtful_as_its_members_whatever_their_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = lr.EnsemblePosterior(posterior().posteriors[:2], torch.tensor([0.5, 0.5], dtype=torch.float64))
    level = torch.zeros(4)
    sound = lr.Evidence("iwae", level, level, 64, level + 50, level + 0.3)
    doubtful = lr.Evidence("smc", level, level, 64, level + 1.2, level + 0.5, level + 5.0, "mixture")
    assert doubtful.doubtful.all()
    for found in ((sound, doubtful), (doubtful, sound)):
        told = iter(found)
        monkeypatch.setattr(lr.Posterior, "evidence", lambda *_, told=told: next(told))
        mixed = mixture.evidence("auto")
        assert mixed.doubtful.all()
        assert float(mixed.spread.max()) == 5.0
        assert {"iwae", "smc"} == set(mixed.kind.split(" and "))
        assert "not to be believed for 4 of 4 sequences" in repr(mixed)
    unlikely = iter((sound, dataclasses.replace(doubtful, values=level - 20)))  # which does not matter
    monkeypatch.setattr(lr.Posterior, "evidence", lambda *_: next(unlikely))
    assert not mixture.evidence("auto").doubtful.any()


def test_steps_that_a_member_thinks_impossible_rule_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = lr.EnsemblePosterior(posterior().posteriors[:2], torch.tensor([0.5, 0.5], dtype=torch.float64))
    base = posterior().posteriors[0].one_step_ahead("y", num_particles=16, num_filters=2)
    shape = base.log_prob.shape

    def mixed(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> lr.OneStepAhead:
        told = iter([dataclasses.replace(base, **first), dataclasses.replace(base, **second)])
        monkeypatch.setattr(lr.Posterior, "one_step_ahead", lambda *_, **__: next(told))
        return mixture.one_step_ahead("y")

    ruled_out = torch.full(shape, -1.0)
    ruled_out[:, 2] = -torch.inf
    level = torch.full(shape, -1.0)
    found = mixed({"log_prob": ruled_out}, {"log_prob": level})
    scored = found.scored[:, 3:]
    torch.testing.assert_close(found.log_prob[:, 3:][scored], level[:, 3:][scored])  # the other's alone
    both = mixed({"log_prob": ruled_out}, {"log_prob": ruled_out})
    assert not both.log_prob.isnan().any()
    errors = (
        {"log_prob_zero": level - 19, "standard_error_zero": level + 4},
        {"log_prob_zero": level, "standard_error_zero": level + 1},
    )
    none = {"log_prob": level, "standard_error": torch.zeros(shape)}
    zero = mixed(*({**none, **each} for each in errors))
    assert zero.standard_error_zero is not None
    assert float(zero.standard_error_zero[zero.scored].max()) == pytest.approx(3 * np.exp(-19.0), rel=1e-3)


def test_forecasts_are_pooled_and_their_scores_mixed() -> None:
    found = posterior()
    ahead = found.forecast(3, num_samples=20)
    assert ahead.samples["y"].shape == (20, 4, 3, 3)
    parts = [p.forecast(3, num_samples=n) for p, n in zip(found.posteriors, (4, 10, 6), strict=True)]
    assert torch.equal(ahead.samples["y"], torch.cat([part.samples["y"] for part in parts]))
    later = torch.ones(4, 3, 3)
    scores = np.stack([part.log_score("y", later).double().numpy() for part in parts])
    expected = special.logsumexp(np.log(WEIGHTS.numpy())[:, None, None, None] + scores, 0)
    np.testing.assert_allclose(ahead.log_score("y", later), expected, rtol=1e-5)
    copied = pickle.loads(pickle.dumps(ahead))
    assert torch.equal(copied.log_score("y", later), ahead.log_score("y", later))


def test_criticism_takes_a_mixture() -> None:
    found, member = posterior(), posterior().posteriors[0]
    check = lr.posterior_predictive_check(found, num_samples=30)
    assert set(check.p_values) == {"y"}
    score = lr.held_out_log_likelihood(found, num_particles=8)
    assert score.num_blocks == 4
    assert lr.predictive_pit(found, "y", num_samples=20).values.shape == (4, 12, 3)
    with pytest.raises(ValueError, match="a mixture of fits"):
        lr.predictive_pit(found, "y", num_samples=20, leave_one_out=True)
    with pytest.raises(ValueError, match="sequences were used to fit it or to stop"):
        lr.held_out_log_likelihood(ensemble().posterior(setting()[2][20:], device="cpu"))
    assert lr.one_step_ahead_log_likelihood(found.one_step_ahead("y", num_particles=8)).num_blocks == 4
    assert member.result is not None


def test_comparison_takes_a_mixture() -> None:
    mixture, data = deterministic()
    rng = np.random.default_rng(1)
    new = lr.SequenceData.from_arrays({"y": rng.poisson(0.8, (6, 9, 1))}, {"x": rng.normal(size=(6, 9, 1))})
    frame = lr.compare(
        {"mixture": mixture.posterior(new, device="cpu"), "member": mixture.members[0].posterior(new, device="cpu")}
    )
    total = next(column for column in ("elpd_loo", "elpd") if column in frame)
    assert frame.loc["mixture", total] == pytest.approx(mixture.posterior(new, device="cpu").evidence().total, rel=1e-5)
    assert len(data) == 4


def test_groups_hold_pooled_draws(tmp_path: Path) -> None:
    found = posterior()
    tree = found.to_arviz(num_samples=10, num_particles=4, container="datatree")
    assert tree["sample_stats"]["member"].values.tolist() == [[0, 0, 1, 1, 1, 1, 1, 2, 2, 2]]
    np.testing.assert_array_equal(tree["posterior_predictive"]["y"].values[0], found.predictive(10)["y"])
    assert "posterior" not in tree.children, "latents have each member's own coordinates"
    assert "log_likelihood" not in tree.children
    np.testing.assert_allclose(tree["log_evidence"]["log_evidence"], found.evidence("iwae", 4).values)
    by_draw = tree["log_evidence"]["log_evidence_by_draw"].values[0]
    np.testing.assert_allclose(by_draw[2], found.posteriors[1].log_likelihood(4)[0], rtol=1e-6)
    assert "mixture" in tree["log_evidence"].attrs["not_for"]
    import xarray

    path = found.to_netcdf(tmp_path / "mixture.nc", num_samples=10, num_particles=4)
    with xarray.open_datatree(path, engine="h5netcdf") as stored:
        assert set(stored.children) == set(tree.children)
        for name, group in tree.children.items():
            for variable, values in group.data_vars.items():
                np.testing.assert_array_equal(stored[name][variable].values, values.values)


def test_parameters_with_priors_are_pooled() -> None:
    data = setting()[2]
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(),
        observations={"y": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})},
    )  # fmt: skip
    found = lr.fit_ensemble(model, lr.Guide(model), data[:8], seeds=[0, 1], **SETTINGS).posterior(
        data[8:10], device="cpu"
    )
    drawn = found.parameters(6)["y.readout.baseline"]
    assert torch.equal(drawn[:3], found.posteriors[0].parameters(3)["y.readout.baseline"])
    tree = found.to_arviz(num_samples=6, num_particles=2, container="datatree")
    np.testing.assert_array_equal(tree["posterior"]["y.readout.baseline"].values[0], drawn)
    assert found.log_likelihood(2, 6).shape == (6, 2)


# members have coordinates, draws of chains and priors of their own, of which there is no mixture
OF_A_MEMBER = {"latents", "latent_parts", "transition_runs", "replays", "diagnose", "power_scaling", "device"}
ASKED: dict[str, tuple[Any, ...]] = {
    "restricted": (2,), "reseeded": (1,), "refined": (1,), "mean": ("y", 3), "rates": ("y", 6), "predictive": (6,),
    "prior_predictive": (6,), "parameters": (6,), "gain": ("y", 6), "couplings": (2,), "forecast": (2, {}),
    "impute": ("y", 6), "counterfactual": (), "evidence": ("iwae", 4), "log_likelihood": (2, 6),
    "log_likelihood_one_step_ahead": ("y", 2, 6), "log_prior": (6,), "log_likelihood_of_draws": (6,),
    "reason_against_loo": (), "one_step_ahead": ("y",), "summary": (), "to_xarray": (), "factors": (), "to_arviz": (),
    "to_netcdf": (), "replicate_parts": (6,), "seed": (), "conditional_on": (),
}  # fmt: skip


def test_whatever_is_asked_of_a_posterior_is_asked_of_a_mixture(tmp_path: Path) -> None:
    """All that is public: it works, or the error says which members have it."""
    public = {name for name in vars(lr.Posterior) if not name.startswith("_")}
    assert public == OF_A_MEMBER | set(ASKED)
    found = posterior()
    for name, arguments in ASKED.items():
        if name in ("gain", "forecast", "factors", "summary", "parameters", "log_prior"):
            continue  # of other models: see the tests of each
        value = getattr(found, name)
        settings = {"num_particles": 4, "num_filters": 2} if name == "one_step_ahead" else {}
        if name == "to_netcdf":
            arguments = (tmp_path / "mixture.nc",)
        if name.startswith("to_"):
            settings = {"num_samples": 6} | ({} if name == "to_xarray" else {"num_particles": 2})
        assert (value(*arguments, **settings) if callable(value) else value) is not None, name
    for name in OF_A_MEMBER:
        with pytest.raises(AttributeError, match=rf"no '{name}'; members have it: posteriors\[k\]\.{name}"):
            getattr(found, name)


def test_counterfactuals_and_densities_of_draws_are_pooled() -> None:
    found = posterior()
    counts = [int(n) for n in torch.bincount(found.members_of_draws(10), minlength=3)]
    nothing = found.counterfactual(num_samples=10)
    torch.testing.assert_close(nothing.rates["y"], found.rates("y", 10), equal_nan=True)
    by_draw, ahead = found.log_likelihood_of_draws(10), found.log_likelihood_one_step_ahead("y", 4, 10)
    start = 0
    for member, count in zip(found.posteriors, counts, strict=True):
        rows = slice(start, start + count)
        start += count
        torch.testing.assert_close(by_draw[rows], member.log_likelihood_of_draws(count))
        one = member.log_likelihood_one_step_ahead("y", 4, count)
        torch.testing.assert_close(ahead[rows], one.expand(count, *one.shape[1:]))
    refined = found.refined(2)
    assert isinstance(refined, lr.EnsemblePosterior)
    assert torch.equal(refined.weights, found.weights)


def test_what_is_of_one_member_alone_says_so() -> None:
    found = posterior()
    with pytest.raises(AttributeError, match=r"no 'latents'; members have it: posteriors\[k\]\.latents"):
        found.latents()
    with pytest.raises(AttributeError, match=r"no 'nonsense'$"):
        found.nonsense()
    with pytest.raises(ValueError, match="expected one weight for each of 3 members"):
        lr.EnsemblePosterior(found.posteriors, torch.ones(2) / 2)
    with pytest.raises(TypeError, match="posteriors must be a list of posteriors; found None"):
        lr.EnsemblePosterior(None, torch.ones(2) / 2)
    with pytest.raises(TypeError, match="each of posteriors must be a Posterior; found 'a'"):
        lr.EnsemblePosterior(["a", "b"], torch.ones(2) / 2)
    with pytest.raises(TypeError, match=r"weights must be a Tensor; found 0\.5"):
        lr.EnsemblePosterior(found.posteriors, 0.5)
    with pytest.raises(ValueError, match=r"unknown head \['y'\]"):
        found.one_step_ahead(["y"])
    assert found.restricted(2).mean("y", 4).shape == (2, 12, 3)
    assert found.reseeded(3).seed == 3
    assert found.impute("y", 5).shape == (5, 4, 12, 3)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ensemble().save("~/runs/mixture")
    ensemble().save("~/runs/mixture")
    directory = tmp_path / "runs" / "mixture"
    assert len(list(directory.iterdir())) == 4, "three members and a manifest: what was there before is gone"
    loaded = lr.Ensemble.load("~/runs/mixture", spec=setting()[2].spec)
    assert torch.equal(loaded.weights, ensemble().weights)
    assert torch.equal(loaded.log_evidence, ensemble().log_evidence)
    assert loaded.used == ensemble().used
    new = setting()[2][26:]
    before, after = (e.posterior(new, device="cpu").evidence("iwae", 4).values for e in (ensemble(), loaded))
    assert torch.equal(before, after)
    with pytest.raises(ValueError, match=r"not a latentrnn checkpoint.*Ensemble\.load"):
        lr.load(directory)


def edited(**entries: Any) -> Callable[[str], str]:
    """Change entries, and the checksum to match, as a well-meaning script would."""

    def damage(text: str) -> str:
        manifest = json.loads(text) | entries
        del manifest["checksum"]
        signed = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
        return json.dumps(manifest | {"checksum": hashlib.sha256(signed.encode()).hexdigest()})

    return damage


DAMAGE = {
    "truncated": (lambda text: text[: len(text) // 2], "damaged or truncated"),
    "another format": (lambda text: json.dumps({"format": "x"}), "not an ensemble"),
    "newer": (lambda text: text.replace('"format_version": 2', '"format_version": 3'), "expected 1 to 2; found 3"),
    "a version that is true": (edited(format_version=True), "expected 1 to 2; found True"),
    "a weight": (
        lambda text: re.sub(r'("weights": \[\s+)0\.', r"\g<1>1.", text),
        "damaged, or edited after it was saved",
    ),
    "no checksum": (lambda text: text.replace('"checksum"', '"check"'), "damaged, or edited after it was saved"),
    "a path": (edited(members=["../member-0-000000000000"] * 3), "members: expected different names"),
    "weights": (edited(weights=[1.0, 1.0, 1.0]), "add up to one"),
    "too few": (edited(weights=[1.0]), "expected 3 finite numbers"),
    "evidence": (edited(log_evidence=[[1], [1, 2], [1]]), "expected 1"),
    "used": (edited(used=[1]), r"used: expected \[key, start, stop\]"),
    "used backwards": (edited(used=[["a", 3, 1]]), r"used: expected \[key, start, stop\]"),
    "no checksums of members": (edited(checksums=None), "checksums: expected one for each of 3 members"),
    "another member": (edited(checksums=["a", "b", "c"]), "another fit than the one that"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_manifests_are_refused(case: str, tmp_path: Path) -> None:
    ensemble().save(tmp_path)
    damage, message = DAMAGE[case]
    path = tmp_path / "ensemble.json"
    before = path.read_text()
    path.write_text(damage(before))
    assert path.read_text() != before
    with pytest.raises(ValueError, match=message):
        lr.Ensemble.load(tmp_path)


def test_members_that_changed_places_are_refused(tmp_path: Path) -> None:
    ensemble().save(tmp_path)
    first, second, _ = (tmp_path / name for name in json.loads((tmp_path / "ensemble.json").read_text())["members"])
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    with pytest.raises(ValueError, match=r"another fit than the one that ensemble\.json was written with"):
        lr.Ensemble.load(tmp_path)


def test_ensembles_without_checksums_can_be_read(tmp_path: Path) -> None:
    """As they were written at first."""
    ensemble().save(tmp_path)
    path = tmp_path / "ensemble.json"
    manifest = json.loads(path.read_text()) | {"format_version": 1}
    del manifest["checksum"], manifest["checksums"]
    path.write_text(json.dumps(manifest))
    assert torch.equal(lr.Ensemble.load(tmp_path).weights, ensemble().weights)


def test_folders_without_an_ensemble_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such directory"):
        lr.Ensemble.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"not an ensemble; expected a directory with an ensemble\.json"):
        lr.Ensemble.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a directory to save to; found a file"):
        ensemble().save(tmp_path / "file")
