"""Couplings: against formulas written out, blind to padding, seen by a fit's loss and by nothing else."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.terms import log_weights
from latentrnn.models import (
    Coupling,
    LocalGlobalAgreement,
    OutcomeCalibration,
    PhaseClassAgreement,
    PhysicalPenalty,
    SurvivalConsistency,
)
from tests.registry import shake

KINDS = [SurvivalConsistency, LocalGlobalAgreement, PhaseClassAgreement, OutcomeCalibration]
LENGTHS = (6, 3, 5)


def make_data(seed: int = 0, lengths: tuple[int, ...] = LENGTHS, dtype: torch.dtype = torch.float64) -> lr.SequenceData:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, (len(lengths), 1)).astype(float)
    label[-1] = np.nan
    return lr.SequenceData.from_arrays(
        {"step": [rng.integers(0, 2, (steps, 1)).astype(float) for steps in lengths], "label": label},
        {"x": [rng.normal(size=(steps, 1)) for steps in lengths]},
        per_sequence=["label"],
        dtype=dtype,
    )


def make_model(data: lr.SequenceData, couplings: list[Coupling], classes: bool = False) -> lr.LatentRNN:
    family = (lambda: lr.Categorical(2)) if classes else lr.Bernoulli
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.InitialState(2),
        observations={"step": family(), "label": family()},
        couplings=couplings,
    ).to(data.dtype)
    shake(model, 0.5)
    return model


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("classes", [False, True], ids=["bernoulli", "categorical"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_penalty_is_its_formula(kind: type, classes: bool) -> None:
    if kind is SurvivalConsistency and classes:
        return
    data = make_data()
    model = make_model(data, [kind("step", "label")], classes)
    rollout = model.unroll(data)
    found = model.couplings[0].penalty(rollout).detach()
    step, label = (
        model.observations[name].mean(rollout.distribution(name)).detach().numpy() for name in ("step", "label")
    )
    for n, steps in enumerate(LENGTHS):
        if classes:
            p, q = step[n, :steps, 0], label[n, 0]
        else:
            p = np.stack([1 - step[n, :steps, 0], step[n, :steps, 0]], -1)
            q = np.array([1 - label[n, 0], label[n, 0]])
        if kind is SurvivalConsistency:
            alive = np.prod(p[:, 0])
            pooled = np.array([1 - alive, alive])
            expected = kl(pooled, q) + kl(q, pooled)
        elif kind is LocalGlobalAgreement:
            pooled = np.exp(np.log(p).mean(0)) / np.exp(np.log(p).mean(0)).sum()
            expected = kl(pooled, q) + kl(q, pooled)
        elif kind is PhaseClassAgreement:
            expected = kl(p.mean(0), q)
        else:
            outcome = int(data.observations["label"][n, 0])
            expected = -np.log(p[:, outcome]).mean() if data.masks["label"][n, 0] else 0.0
        assert float(found[n]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_no_density_sees_a_coupling(kind: type) -> None:
    data = make_data()
    coupled = make_model(data, [kind("step", "label", weight=7.0)])
    plain = make_model(data, [])
    plain.load_state_dict(coupled.state_dict())
    guide = lr.Guide(plain, encoder=lr.RNNEncoder(2)).double()
    found = []
    for model in (coupled, plain):
        torch.manual_seed(0)
        found.append(log_weights(model, guide, data, 3))
    assert torch.equal(*found)
    again = lr.LatentRNN.from_config(coupled.config(), data.spec)
    assert again.config() == coupled.config()
    assert again.couplings[0].weight == 7.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_lowers_the_penalty_and_reports_it_apart(kind: type) -> None:
    data = make_data(1, (6, 4) * 8, torch.float32)
    at_the_end = {}
    for weight in (1e-6, 30.0):
        model = make_model(data, [kind("step", "label", weight=weight)])
        guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
        settings = lr.AdamW(learning_rate=0.02)
        result = lr.fit(model, guide, data, steps=60, optimizer=settings, reporting=lr.Reporting(progress=False))
        history = result.history
        at_the_end[weight] = history[f"coupling/{kind.__name__}"][-1]
        elbo = sum(
            v[-1] * (1 if k.startswith("log") else -1) for k, v in history.items() if k.startswith(("log", "kl/"))
        )
        assert history["elbo"][-1] == pytest.approx(elbo)
    assert at_the_end[30.0] < 0.9 * at_the_end[1e-6]


# -- hazards, names ------------------------------------------------------------------------------------------------


def test_survival_follows_from_the_hazards_of_a_survival_head_too() -> None:
    """Steps after the event, which the hazard's own density leaves out, count for the product."""
    labelled, rng = make_data(), np.random.default_rng(3)
    steps = [rng.integers(0, 1, (length, 1)).astype(float) for length in LENGTHS]
    steps[0][3], steps[0][4:] = 1.0, np.nan
    data = lr.SequenceData.from_arrays(
        {"step": steps, "label": np.array([[0.0], [1.0], [1.0]])},
        {"x": [labelled.covariates["x"][n, :length].numpy() for n, length in enumerate(LENGTHS)]},
        per_sequence=["label"],
        dtype=torch.float64,
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.InitialState(2),
        observations={"step": lr.DiscreteHazard(link="cloglog"), "label": lr.Bernoulli()},
        couplings=[SurvivalConsistency("step", "label")],
    ).double()
    shake(model, 0.5)
    rollout = model.unroll(data)
    found = model.couplings[0].penalty(rollout).detach()
    hazard = model.observations["step"].mean(rollout.distribution("step"))
    alive = model.observations["step"].survival(hazard).detach().numpy()
    label = model.observations["label"].mean(rollout.distribution("label")).detach().numpy()
    for n, length in enumerate(LENGTHS):
        p, q = (np.array([1 - each, each]) for each in (alive[n, length - 1, 0], label[n, 0]))
        assert float(found[n]) == pytest.approx(kl(p, q) + kl(q, p), abs=1e-9)


def test_couplings_of_one_class_have_names() -> None:
    data = make_data(1, (6, 4) * 4, torch.float32)
    couplings = [PhaseClassAgreement("step", "label"), PhaseClassAgreement("step", "label", 2.0, name="again")]
    model = make_model(data, couplings)
    assert [coupling.label for coupling in lr.LatentRNN.from_config(model.config(), data.spec).couplings] == [
        "PhaseClassAgreement",
        "again",
    ]
    history = lr.fit(
        model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data, steps=3, reporting=lr.Reporting(progress=False)
    ).history
    assert history["coupling/again"] == history["coupling/PhaseClassAgreement"]


# -- physical penalties --------------------------------------------------------------------------------------------


def charge_is_kept(means: Mapping[str, Tensor], data: lr.SequenceData) -> Tensor:
    """Squared difference between the current and the change of the charge."""
    change = means["charge"].diff(dim=-2) / data.spec.dt
    return torch.nn.functional.pad((change - means["current"][..., 1:, :])[..., 0] ** 2, (1, 0))


def slow_stays_below(means: Mapping[str, Tensor], data: lr.SequenceData) -> Tensor:
    return means["slow"][..., 0].relu()


def class_follows_total(means: Mapping[str, Tensor], data: lr.SequenceData) -> Tensor:
    total = (means["charge"][..., 0] * data.valid).sum(-1)
    return (total - means["class"][..., 0, 1]).abs() + data.covariates["valve"][:, 0, 0].square()


def circuit(seed: int = 0, sequences: int = 3, dtype: torch.dtype = torch.float64, **heads: Any) -> lr.SequenceData:
    """A valve lets current through; charge gathers. Nobody measured the current."""
    rng = np.random.default_rng(seed)
    steps = 8
    valve = rng.normal(size=(sequences, steps, 1))
    current = np.tanh(1.5 * valve + 0.5)
    charge = 0.5 * current.cumsum(1)
    observations = {"charge": charge + 0.02 * rng.normal(size=charge.shape), "current": np.full(charge.shape, np.nan)}
    lengths = [steps] * sequences if sequences > 3 else [8, 5, 6]
    observations = {name: [v[:n] for v, n in zip(value, lengths, strict=True)] for name, value in observations.items()}
    observations["slow"] = [rng.normal(size=(n // 2, 1)) for n in lengths]
    observations["class"] = rng.integers(0, 2, (sequences, 1)).astype(float)
    return lr.SequenceData.from_arrays(
        observations,
        {"valve": [v[:n] for v, n in zip(valve, lengths, strict=True)]},
        dt=0.5,
        clocks={"slow": 2},
        per_sequence=["class"],
        dtype=dtype,
    )


def circuit_model(data: lr.SequenceData, *couplings: Coupling, latent: lr.Latent | None = None) -> lr.LatentRNN:
    heads = {"charge": lr.Gaussian(), "current": lr.Gaussian(), "slow": lr.Gaussian(), "class": lr.Categorical(2)}
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(8),
        latent=lr.InitialState(2) if latent is None else latent,
        observations=heads,
        couplings=couplings,
    ).to(data.dtype)
    shake(model, 0.5)
    return model


@pytest.mark.parametrize("law", [charge_is_kept, slow_stays_below, class_follows_total])
def test_a_physical_penalty_is_its_function_s_sum_over_the_steps_inside(law: Callable[..., Tensor]) -> None:
    data = circuit()
    model = circuit_model(data, PhysicalPenalty(law))
    draws, lengths = 4, (8, 5, 6)
    with pyro.plate("draws", draws, dim=-2):
        rollout = model.unroll(data)
    found = model.couplings[0].penalty(rollout)
    assert found.shape == (draws, 3)
    means = {name: head.mean(rollout.distribution(name)).detach().numpy() for name, head in model.observations.items()}
    for s, n in itertools.product(range(draws), range(3)):
        charge, current = means["charge"][s, n, : lengths[n], 0], means["current"][s, n, : lengths[n], 0]
        if law is charge_is_kept:
            expected = sum(((charge[t] - charge[t - 1]) / 0.5 - current[t]) ** 2 for t in range(1, lengths[n]))
        elif law is slow_stays_below:
            expected = np.maximum(means["slow"][s, n, : lengths[n] // 2, 0], 0).sum()
        else:
            expected = abs(charge.sum() - means["class"][s, n, 0, 1]) + float(data.covariates["valve"][n, 0, 0]) ** 2
        assert float(found[s, n].detach()) == pytest.approx(expected, abs=1e-9)


def test_a_physical_penalty_does_not_see_what_lies_in_padding() -> None:
    data = circuit()
    model = circuit_model(data, PhysicalPenalty(charge_is_kept), latent=lr.Deterministic())
    penalty = model.couplings[0].penalty(model.unroll(data))
    for n in range(3):
        torch.testing.assert_close(model.couplings[0].penalty(model.unroll(data[n]))[0], penalty[n])
    penalty.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.transition.parameters())


@pytest.mark.slow
def test_a_law_tells_what_nobody_measured() -> None:
    """With the law the current is known from the charge; the control is the same fit with hardly any weight on it."""
    train, test = (circuit(seed, 60, torch.float32) for seed in (0, 1))
    valve = test.covariates["valve"].numpy()
    truth, found = np.tanh(1.5 * valve + 0.5), {}
    for weight in (1e-9, 3.0):
        model = circuit_model(train, PhysicalPenalty(charge_is_kept, weight), latent=lr.Deterministic())
        optimiser = lr.AdamW(learning_rate=0.02)
        result = lr.fit(
            model, lr.Guide(model), train, steps=500, optimizer=optimiser, reporting=lr.Reporting(progress=False)
        )
        current = result.posterior(test).mean("current", num_samples=1).numpy()
        error = ((current - truth)[:, 1:] ** 2).mean() / truth[:, 1:].var()
        found[weight] = error, result.posterior(test).couplings(2)["charge_is_kept"].mean
    assert found[3.0][0] < 0.1  # measured: 0.005
    assert found[1e-9][0] > 0.5  # measured: 0.77
    assert found[3.0][1] < 0.1 * found[1e-9][1]


def test_a_named_law_is_saved_and_a_nameless_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = circuit(0, 6, torch.float32)
    law = PhysicalPenalty(charge_is_kept, 2.0, "Kirchhoff")
    result = lr.fit(
        model := circuit_model(data, law),
        lr.Guide(model, encoder=lr.RNNEncoder(2)),
        data,
        steps=2,
        reporting=lr.Reporting(progress=False),
    )
    assert set(result.posterior(data).couplings(2)) == {"Kirchhoff"}
    result.save(tmp_path / "law")
    again = lr.load(tmp_path / "law")
    assert again.model.couplings[0].function is charge_is_kept
    assert again.model.config() == result.model.config()
    assert repr(again.model) == repr(result.model)
    monkeypatch.delattr(f"{__name__}.charge_is_kept")
    with pytest.raises(ValueError, match=r"there is no function '.*test_couplings:charge_is_kept'; import"):
        lr.load(tmp_path / "law")
    monkeypatch.undo()

    def local(means: Mapping[str, Tensor], data: lr.SequenceData) -> Tensor:
        return charge_is_kept(means, data)

    for nameless in (local, lambda means, data: local(means, data), functools.partial(charge_is_kept)):
        model = circuit_model(data, PhysicalPenalty(nameless))
        guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
        result = lr.fit(model, guide, data, steps=2, reporting=lr.Reporting(progress=False))
        assert result.posterior(data).couplings(2)
        with pytest.raises(ValueError, match="has no name by which it can be found again"):
            result.save(tmp_path / "nameless")
        assert not (tmp_path / "nameless").exists()


# -- reports -------------------------------------------------------------------------------------------------------


def test_a_posterior_reports_couplings_with_their_monte_carlo_error() -> None:
    data = circuit()
    model = circuit_model(data, PhysicalPenalty(charge_is_kept), PhysicalPenalty(class_follows_total, name="total"))
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
    posterior = lr.Posterior(model, guide, data)
    few, many = posterior.couplings(50), posterior.couplings(4000)
    assert list(few) == list(many) == ["charge_is_kept", "total"]
    rates = {name: posterior.rates(name, 4000).double() for name in ("charge", "current")}
    inside = data.valid
    by_hand = torch.where(inside, charge_is_kept(rates, data), 0.0).sum(-1)
    torch.testing.assert_close(many["charge_is_kept"].values, by_hand.mean(0))
    for name, report in many.items():
        assert report.values.shape == report.standard_error.shape == (3,)
        assert report.mean == pytest.approx(float(report.values.mean()))
        assert abs(report.mean - few[name].mean) < 5 * few[name].mean_standard_error
        assert 4 < few[name].mean_standard_error / report.mean_standard_error < 20  # nine, by the number of draws
        assert report.num_samples == 4000
        assert name in repr(report)


def test_a_report_has_no_error_where_nothing_is_random_and_no_density_sees_it() -> None:
    data = circuit()
    coupled, plain = (
        circuit_model(data, *laws, latent=lr.Deterministic()) for laws in ([PhysicalPenalty(charge_is_kept)], [])
    )
    plain.load_state_dict(coupled.state_dict())
    posteriors = [lr.Posterior(model, lr.Guide(model), data) for model in (coupled, plain)]
    report = posteriors[0].couplings()["charge_is_kept"]
    assert report.mean > 0
    assert report.mean_standard_error == 0
    assert posteriors[1].couplings() == {}
    for quantity in (
        lambda p: p.evidence().values,
        lambda p: p.log_likelihood(),
        lambda p: p.one_step_ahead("charge").log_prob,
    ):
        first, second = (quantity(posterior) for posterior in posteriors)
        assert torch.equal(first, second)


def shaped(result: Callable[[Tensor], Any]) -> Callable[[], object]:
    """A penalty of a shape (or kind) that it must not have."""
    data = circuit()
    law = PhysicalPenalty(lambda means, data: result(means["charge"]), name="law")
    return lambda: law.penalty(circuit_model(data, law).unroll(data))


REFUSED = {
    "a scalar": (shaped(lambda q: q.sum()), "PhysicalPenalty 'law': expected one penalty per step, (3, 8) or (3, 4)"),
    "channels": (shaped(lambda q: q), "or per sequence, (3,); found shape (3, 8, 1)"),
    "one step less": (shaped(lambda q: q.diff(dim=-2)[..., 0]), "found shape (3, 7)"),
    "no such function": (lambda: PhysicalPenalty("physics:law"), "there is no function 'physics:law'"),
    "an empty name": (lambda: PhysicalPenalty(charge_is_kept, 1.0, ""), "name must not be empty"),
    "one law twice": (
        lambda: circuit_model(circuit(), *[PhysicalPenalty(charge_is_kept)] * 2),
        "of different classes, or have different names; found ['charge_is_kept', 'charge_is_kept']",
    ),
    "a switch that is summed out": (
        lambda: lr.LatentRNN(
            circuit().spec,
            transition=lr.GRU(2),
            latent=lr.Discrete(2),
            observations={"charge": lr.Gaussian()},
            couplings=[PhysicalPenalty(charge_is_kept)],
        ),
        "Discrete sums its switch out of every head's density",
    ),
    "one draw": (
        lambda: lr.Posterior(
            model := circuit_model(circuit(), latent=lr.Deterministic()), lr.Guide(model), circuit()
        ).couplings(1),
        "couplings: num_samples must be at least 2",
    ),
    "hazards of an outcome": (
        lambda: lr.LatentRNN(
            make_data().spec,
            transition=lr.GRU(2),
            latent=lr.Deterministic(),
            observations={"step": lr.DiscreteHazard(), "label": lr.Bernoulli()},
            couplings=[OutcomeCalibration("step", "label")],
        ),
        "OutcomeCalibration: 'step' must be a Bernoulli or Categorical head of one channel",
    ),
    "no weight": (lambda: SurvivalConsistency("step", "label", weight=0.0), "weight must be positive"),
    "an unknown head": (
        lambda: make_model(make_data(), [SurvivalConsistency("hazard", "label")]),
        "unknown head 'hazard'",
    ),
    "heads the wrong way round": (
        lambda: make_model(make_data(), [PhaseClassAgreement("label", "step")]),
        "'label' must be a per-step head",
    ),
    "hazards of classes": (
        lambda: make_model(make_data(), [SurvivalConsistency("step", "label")], classes=True),
        "both heads must be Bernoulli",
    ),
    "twice": (lambda: make_model(make_data(), [OutcomeCalibration("step", "label")] * 2), "of different classes"),
}


def test_a_law_must_be_a_function_that_returns_a_tensor() -> None:
    with pytest.raises(TypeError, match="PhysicalPenalty: function must be a function; found int"):
        PhysicalPenalty(3)
    with pytest.raises(TypeError, match="PhysicalPenalty 'law': expected a tensor; found float"):
        shaped(lambda q: 0.0)()


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(make, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
