"""Fitting: repeatable, without side effects, and it keeps what was learnt however it ends."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.fitting import evaluation
from latentrnn.inference.objectives.coordinated_dropout import coordinated_dropout
from latentrnn.support.isolation import random_state
from tests.inference.fitting.mishaps import Spoiled, WarmUp, Watched, before_steps, interrupting
from tests.registry import Fixed, fixed_latents

STEPS = 8


def make_data(sequences: int = 12, *, seed: int = 0, ragged: bool = True) -> lr.SequenceData:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 9, sequences) if ragged else np.full(sequences, 8)
    drive = [rng.normal(size=(n, 1)) for n in lengths]
    spikes = [rng.poisson(np.exp(0.5 + x @ np.ones((1, 2)))) for x in drive]
    return lr.SequenceData.from_arrays({"y": spikes}, {"drive": drive}, dt=0.01)


def make_parts(data: lr.SequenceData, **head: Any) -> tuple[lr.LatentRNN, lr.Guide]:
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4),
        latent=lr.Innovations(2, initial=2),
        observations={"y": lr.Poisson(**head)},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(3))


def fit(data: lr.SequenceData, validation: lr.SequenceData | None = None, **settings: Any) -> lr.FitResult:
    model, guide = make_parts(data)
    return lr.fit(
        model,
        guide,
        data,
        validation,
        **({"steps": STEPS, "reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")} | settings),
    )


def weights(*modules: torch.nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# -- repeatable, without side effects ------------------------------------------------------------------------------


def test_two_fits_with_one_seed_agree_bit_for_bit() -> None:
    data, validation = make_data(), make_data(5, seed=1)
    settings = {
        "batch_size": 5,
        "objective": lr.ELBO(num_particles=2, coordinated_dropout=0.3),
        "reporting": lr.Reporting(progress=False, every=1),
    }
    settings["stopping"] = lr.EarlyStopping(every=3)
    model, guide = make_parts(data)
    torch.manual_seed(1)
    first = lr.fit(
        model,
        guide,
        data,
        validation,
        seed=3,
        steps=STEPS,
        compute=lr.Compute(device="cpu"),
        **settings,
    )
    torch.manual_seed(2)  # nothing global matters, nor the weights that the model came with
    other_model, other_guide = make_parts(data)
    second = lr.fit(
        other_model,
        other_guide,
        data,
        validation,
        seed=3,
        steps=STEPS,
        compute=lr.Compute(device="cpu"),
        **settings,
    )
    assert same(weights(first.model, first.guide), weights(second.model, second.guide))
    assert first.history == second.history
    assert (first.best_step, first.stop_reason, first.used) == (second.best_step, second.stop_reason, second.used)
    third = lr.fit(
        model,
        guide,
        data,
        validation,
        seed=4,
        steps=STEPS,
        compute=lr.Compute(device="cpu"),
        **settings,
    )
    assert not same(weights(first.model), weights(third.model))
    assert first.history["elbo"] != third.history["elbo"]


def test_a_fit_leaves_its_inputs_and_the_generators_alone() -> None:
    data, validation = make_data(), make_data(5, seed=1)
    model, guide = make_parts(data)
    tensors = [*data.observations.values(), *data.masks.values(), *data.covariates.values(), data.lengths]
    before = weights(model, guide), [tensor.clone() for tensor in tensors]
    state = torch.random.get_rng_state()
    result = lr.fit(model, guide, data, validation, steps=STEPS, reporting=lr.Reporting(progress=False))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(weights(model, guide), before[0])
    assert same(tensors, before[1])
    assert all(parameter.grad is None for module in (model, guide) for parameter in module.parameters())
    assert not same(weights(result.model, result.guide), before[0])
    assert result.used == frozenset(data.keys) | frozenset(validation.keys)


def test_a_fit_goes_on_from_a_result() -> None:
    data = make_data()
    model, guide = make_parts(data)
    first = fit(data, steps=40)
    standing = lr.fit(
        model,
        guide,
        data,
        steps=1,
        start_from=first,
        optimizer=lr.Adam(learning_rate=1e-12),
        reporting=lr.Reporting(progress=False),
    )
    for old, new in zip(weights(first.model, first.guide), weights(standing.model, standing.guide), strict=True):
        torch.testing.assert_close(old, new, rtol=0.0, atol=1e-9)
    onwards = lr.fit(model, guide, data, steps=40, start_from=first, seed=1, reporting=lr.Reporting(progress=False))
    assert onwards.settings["continued"]
    assert not first.settings["continued"]
    evidence = [result.posterior(data).evidence("elbo").total for result in (first, onwards)]
    assert evidence[1] > evidence[0]
    assert onwards.used >= first.used


def test_a_result_remembers_what_its_start_had_seen() -> None:
    early, late = make_data(6), make_data(6, seed=1)
    first = fit(early)
    model, guide = make_parts(late)
    second = lr.fit(model, guide, late, steps=STEPS, start_from=first, reporting=lr.Reporting(progress=False))
    assert second.used == frozenset(early.keys) | frozenset(late.keys)


def test_weights_start_from_the_training_data() -> None:
    data = make_data(40)
    result = fit(data, steps=1, optimizer=lr.Adam(learning_rate=1e-9))
    seen = torch.where(data.masks["y"], data.observations["y"], torch.nan).flatten(0, 1).nanmean(0)
    torch.testing.assert_close(result.model.observations["y"].readout.baseline.exp().detach(), seen)


def test_a_fit_learns() -> None:
    data = make_data(30)
    result = fit(data, steps=150, reporting=lr.Reporting(progress=False, every=10))
    assert np.mean(result.history["elbo"][-3:]) > np.mean(result.history["elbo"][:3]) + 1


# -- schedules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kl", [lr.KLWarmUp(), lr.KLWarmUp(0.9, start=0.0), lr.KLWarmUp(0.0)])
def test_a_fit_ends_at_the_true_elbo(kl: lr.KLWarmUp) -> None:
    result = fit(make_data(), steps=20, reporting=lr.Reporting(progress=False, every=3), objective=lr.ELBO(kl=kl))
    assert result.history["kl_weight"][-1] == 1.0
    assert result.history["kl_weight"] == sorted(result.history["kl_weight"])
    assert result.history["step"][-1] == 19
    # what is reported is the true ELBO at every weight
    for row in zip(
        *(result.history[k] for k in ("elbo", "log_likelihood/y", "kl/initial", "kl/innovations")), strict=True
    ):
        assert row[0] == pytest.approx(row[1] - row[2] - row[3], abs=1e-4)


def test_learning_rates() -> None:
    for schedule, expected in (
        (lr.Constant(), [1.0] * 6),
        (lr.Cosine(rise=2, final=0.0), [0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464]),
        (lr.Plateau(), [1.0] * 6),
    ):
        result = fit(
            make_data(), steps=6, reporting=lr.Reporting(progress=False, every=1), optimizer=lr.AdamW(schedule=schedule)
        )
        rates = np.array(result.history["learning_rate"]) / 3e-3
        np.testing.assert_allclose(rates, expected, atol=1e-3)
    assert [lr.Plateau(patience=2).factor(0, 1, stale) for stale in (0, 1, 2, 4)] == [1.0, 1.0, 0.5, 0.25]


# -- how a fit can end ---------------------------------------------------------------------------------------------


class Scripted(lr.ELBO):
    """The ELBO in training; in evaluations, one at a time, what its user wrote down, nats per sequence."""

    script: ClassVar[list[float]] = []
    name = "elbo"

    def step(self, at: Any) -> Any:
        found = super().step(at)
        if torch.is_grad_enabled():
            return found
        return found._replace(bound=torch.tensor(self.script.pop(0) * at.data.total, dtype=torch.float64))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Validation ELBOs to be served in this order, where the objective is `Scripted`."""
    script: list[float] = []
    monkeypatch.setattr(Scripted, "script", script)
    return script


def test_early_stopping_keeps_the_best_weights(scripted: list[float]) -> None:
    data, validation = make_data(), make_data(5, seed=1)
    scripted += [1.0, 3.0, 2.0, 2.5, 2.9, 2.0]
    stopping = lr.EarlyStopping(every=2, patience=3)
    result = fit(
        data,
        validation,
        steps=100,
        stopping=stopping,
        objective=Scripted(kl=lr.KLWarmUp(0.0)),
        optimizer=lr.AdamW(schedule=lr.Constant()),
    )
    assert result.stop_reason.startswith("converged")
    assert result.best_step == 3
    assert result.history["validation_step"] == [1, 3, 5, 7, 9]
    assert result.history["validation_elbo"] == [1.0, 3.0, 2.0, 2.5, 2.9]
    # what is kept are the weights of that step
    best = fit(data, steps=4, objective=lr.ELBO(kl=lr.KLWarmUp(0.0)), optimizer=lr.AdamW(schedule=lr.Constant()))
    assert same(weights(result.model, result.guide), weights(best.model, best.guide))


def test_patience_waits_for_the_warm_up(scripted: list[float]) -> None:
    scripted += [3.0, *[1.0] * 9]
    result = fit(
        make_data(),
        make_data(5, seed=1),
        steps=10,
        stopping=lr.EarlyStopping(every=1, patience=3),
        objective=Scripted(kl=lr.KLWarmUp(0.5)),
    )
    assert result.history["validation_step"][-1] == 7  # the warm-up ends at step 5; three bad ones are 5, 6, 7


def test_without_patience_a_fit_goes_on(scripted: list[float]) -> None:
    scripted += [3.0, *[1.0] * 9]
    stopping = lr.EarlyStopping(every=1, patience=None)
    result = fit(make_data(), make_data(5, seed=1), steps=10, stopping=stopping, objective=Scripted())
    assert result.stop_reason.startswith("steps")
    assert result.best_step == 0


def test_an_interrupt_keeps_what_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data()
    expected = fit(data, steps=5, optimizer=lr.AdamW(schedule=lr.Constant()), objective=lr.ELBO(kl=lr.KLWarmUp(0.0)))
    before_steps(monkeypatch, interrupting(5))
    result = fit(data, steps=100, optimizer=lr.AdamW(schedule=lr.Constant()), objective=lr.ELBO(kl=WarmUp(0.0)))
    assert result.stop_reason.startswith("interrupted")
    assert "start_from" in result.stop_reason
    assert result.events == ["step 5: interrupted"]
    assert same(weights(result.model, result.guide), weights(expected.model, expected.guide))


def test_an_interrupt_keeps_the_best_weights(monkeypatch: pytest.MonkeyPatch, scripted: list[float]) -> None:
    data = make_data()
    expected = fit(data, steps=2, optimizer=lr.AdamW(schedule=lr.Constant()), objective=lr.ELBO(kl=lr.KLWarmUp(0.0)))
    before_steps(monkeypatch, interrupting(5))
    scripted += [1.0, 9.0, 3.0, 4.0, 5.0]
    result = fit(
        data,
        make_data(5, seed=1),
        steps=100,
        stopping=lr.EarlyStopping(every=1),
        optimizer=lr.AdamW(schedule=lr.Constant()),
        objective=Scripted(kl=WarmUp(0.0)),
    )
    assert result.best_step == 1
    assert same(weights(result.model, result.guide), weights(expected.model, expected.guide))


@pytest.fixture
def spoiled_at_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """The KL of the initial state is no number in step 5, where the objective is `Spoiled`."""
    monkeypatch.setattr(Spoiled, "steps", (5,))
    monkeypatch.setattr(Spoiled, "site", "initial")


def test_a_non_finite_term_is_named_and_what_was_learnt_is_kept(spoiled_at_five: None) -> None:
    data = make_data()
    expected = fit(data, steps=5, optimizer=lr.AdamW(schedule=lr.Constant()), objective=lr.ELBO(kl=lr.KLWarmUp(0.0)))
    stop = lr.Rollback(times=0)
    result = fit(
        data,
        steps=100,
        optimizer=lr.AdamW(schedule=lr.Constant(), rollback=stop),
        objective=Spoiled(kl=WarmUp(0.0)),
    )
    assert result.stop_reason.startswith("non-finite loss at step 5, at site 'initial'")
    assert "learning rate" in result.stop_reason
    assert result.events == ["step 5: non-finite kl/initial, gradient"]
    assert same(weights(result.model, result.guide), weights(expected.model, expected.guide))


def test_an_extreme_value_stops_the_fit_at_its_head() -> None:
    rng = np.random.default_rng(0)
    calm, wild = rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 6, 2))
    wild[2, 3, 1] = 1e30  # its square is beyond single precision
    data = lr.SequenceData.from_arrays({"calm": calm, "wild": wild}, standardise={"wild": (0.0, 1.0)})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.InitialState(2),
        observations={"calm": lr.Gaussian(), "wild": lr.Gaussian()},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, observes=["calm"]))
    with pytest.raises(ValueError, match="non-finite loss at step 0, at site 'wild'") as caught:
        lr.fit(model, guide, data, steps=20, reporting=lr.Reporting(progress=False))
    assert "observations['wild'] reaches 1e+30" in str(caught.value)
    assert "standardise=['wild']" in str(caught.value)


class AsGiven(lr.Feature):
    """A user's own reader, which takes a covariate's values as they come, whatever their unit."""

    def __init__(self, covariate: str) -> None:
        super().__init__()
        self.covariate = covariate

    def build(self, owner: str, spec: lr.DataSpec) -> None:
        self.size = spec.covariates[self.covariate].features

    def forward(self, data: lr.SequenceData) -> torch.Tensor:
        return data.covariates[self.covariate]


@pytest.mark.parametrize("rate", [3e-3, 1e-6])
def test_an_extreme_covariate_is_named_before_anything_is_learnt(rate: float) -> None:
    rng = np.random.default_rng(0)
    arrays = (
        {"s": rng.poisson(0.5, (6, 10, 3))},
        {"calm": rng.normal(size=(6, 10, 2)), "x": 1e6 * rng.normal(size=(6, 10, 3))},
    )

    def fitted(drive: Any) -> lr.FitResult:
        data = lr.SequenceData.from_arrays(*arrays)
        heads = {"s": lr.Poisson(gain=lr.StimulusGain("x"))}
        parts = {"transition": lr.Linear(3), "latent": lr.Innovations(2), "inputs": ["calm", drive]}
        model = lr.LatentRNN(data.spec, observations=heads, **parts)
        guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
        return lr.fit(
            model, guide, data, steps=15, optimizer=lr.AdamW(learning_rate=rate), reporting=lr.Reporting(progress=False)
        )

    with pytest.raises(ValueError, match=r"before anything was learnt. covariates\['x'\] reaches .*e\+06"):
        fitted(AsGiven("x"))
    assert fitted("x").history["step"] == [9, 14]  # in units of the training data it is as calm as the other


def test_a_fit_that_stops_early_reports_what_it_learnt(spoiled_at_five: None) -> None:
    stop = lr.AdamW(rollback=lr.Rollback(times=0))
    result = fit(make_data(), steps=100, optimizer=stop, objective=Spoiled(kl=WarmUp()))
    assert result.history["step"] == [4]
    assert math.isfinite(result.history["elbo"][0])


# -- weights of heads ------------------------------------------------------------------------------------------------


def two_heads() -> tuple[lr.SequenceData, lr.LatentRNN, lr.Guide]:
    rng = np.random.default_rng(0)
    arrays = {"y": rng.normal(size=(12, 8, 2)), "spikes": rng.poisson(1.0, (12, 8, 1)).astype(float)}
    data = lr.SequenceData.from_arrays(arrays, dt=0.01)
    observations = {"y": lr.Gaussian(), "spikes": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(2), observations=observations)
    return data, model, lr.Guide(model, encoder=lr.RNNEncoder(3, observes=["y"]))


def test_weights_of_heads_are_in_the_gradient_and_not_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model, guide = two_heads()
    result = lr.fit(
        model,
        guide,
        data,
        steps=1,
        objective=lr.ELBO(head_weights={"spikes": 7.0}),
        reporting=lr.Reporting(progress=False),
    )
    assert result.settings["head_weights"] == {"spikes": 7.0}
    plain = lr.fit(model, guide, data, steps=1, reporting=lr.Reporting(progress=False))
    assert plain.settings["head_weights"] == {}
    for name in ("elbo", "log_likelihood/spikes", "log_likelihood/y"):
        assert result.history[name] == plain.history[name]
    parameters = [*plain.model.parameters(), *plain.guide.parameters()]
    drawn_from: list[Tensor] = []
    before_steps(monkeypatch, lambda step: drawn_from.append(torch.get_rng_state()))
    lr.fit(
        model,
        guide,
        data,
        steps=1,
        start_from=plain,
        objective=lr.ELBO(kl=WarmUp(0.0), head_weights={"spikes": 7.0}),
        optimizer=Watched(clip_norm=math.inf),
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    found = Watched.gradient
    with random_state(0):
        torch.set_rng_state(drawn_from[0])
        terms = lr.elbo_terms(plain.model, plain.guide, data)
    (spikes, y), kl = (terms.log_likelihood[name] for name in ("spikes", "y")), sum(terms.kl.values())
    expected = torch.autograd.grad(-(7 * spikes + y - kl) / (12 * 8), parameters, retain_graph=True)
    without = torch.autograd.grad(-(spikes + y - kl) / (12 * 8), parameters)
    torch.testing.assert_close(found, list(expected), rtol=1e-4, atol=1e-6)
    assert max(float((a - b).abs().max()) for a, b in zip(found, without, strict=True)) > 1e-2  # the control


def test_a_head_of_weight_zero_teaches_nothing() -> None:
    data, model, guide = two_heads()
    quiet = lr.Reporting(progress=False)
    fits = [
        lr.fit(model, guide, data, steps=n, objective=lr.ELBO(head_weights=w), optimizer=lr.Adam(), reporting=quiet)
        for n, w in ((1, {"spikes": 0.0}), (5, {"spikes": 0}), (5, None))
    ]
    start, end, control = (each.model.observations["spikes"].readout.weight for each in fits)
    assert torch.equal(start, end)
    assert not torch.equal(start, control)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"calls": 2.0}, r"head_weights names 'calls'; the model has \['spikes', 'y'\]"),
        ({"y": -1.0}, "head_weights must be finite and not negative; found -1.0 for 'y'"),
        ({"y": math.inf}, "head_weights must be finite and not negative; found inf for 'y'"),
        ({"y": True}, "head_weights must be finite and not negative; found True for 'y'"),
    ],
)
def test_weights_of_heads_that_make_no_sense_are_refused(weights: dict[str, float], message: str) -> None:
    data, model, guide = two_heads()
    with pytest.raises(ValueError, match=message):
        lr.fit(model, guide, data, objective=lr.ELBO(head_weights=weights), reporting=lr.Reporting(progress=False))


def test_weights_of_heads_need_the_terms_of_the_elbo() -> None:
    with pytest.raises(ValueError, match="head_weights multiply terms of heads, which sticking_the_landing never"):
        lr.ELBO(head_weights={"y": 2.0}, sticking_the_landing=True)
    with pytest.raises(TypeError, match="head_weights"):
        lr.IWAE(head_weights={"y": 2.0})  # type: ignore[call-arg]


# -- coordinated dropout -------------------------------------------------------------------------------------------


def test_hidden_entries_are_scored_and_not_shown() -> None:
    data = make_data(30)
    _, scored, factors = coordinated_dropout(data, 0.25, ["y"])
    hidden = data.masks["y"] & scored.masks["y"]
    assert 0.2 < float(hidden.sum() / data.masks["y"].sum()) < 0.3
    assert factors == {"y": 4.0}
    assert not (scored.masks["y"] & ~data.masks["y"]).any()
    assert torch.equal(scored.observations["y"], data.observations["y"])
    # whatever the hidden entries are, the encoder sees the same
    _, guide = make_parts(data)
    torch.manual_seed(5)
    first = coordinated_dropout(data, 0.25, ["y"])
    changed = data.with_observations({"y": torch.where(first[1].masks["y"], 77.0, data.observations["y"])})
    torch.manual_seed(5)
    unseen = coordinated_dropout(changed, 0.25, ["y"])
    assert torch.equal(guide.encoder(unseen[0]).steps, guide.encoder(first[0]).steps)


@pytest.mark.parametrize("joint", [False, True])
def test_dropout_keeps_the_expectation_of_log_likelihood_and_input(joint: bool) -> None:
    """Failure budget 1e-6: five standard errors of 400 draws each."""
    data = make_data(8)
    if joint:
        model = lr.LatentRNN(
            data.spec, transition=lr.GRU(4), latent=lr.Innovations(2), observations={"y": lr.Gaussian("full")}
        )
        guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    else:
        model, guide = make_parts(data)
    values = fixed_latents(model, data)
    with Fixed(values), torch.no_grad():
        full = lr.elbo_terms(model, guide, data).log_likelihood["y"]
        draws, inputs = [], []
        for _ in range(400):
            shown, scored, factors = coordinated_dropout(data, 0.4, ["y"], ["y"] if joint else [])
            terms = lr.elbo_terms(model, guide, scored, guide_data=shown).reweighted(factors)
            draws.append(terms.log_likelihood["y"])
            inputs.append(torch.where(data.masks["y"], shown.observations["y"], 0.0).sum())
    for found, expected in (
        (torch.stack(draws), full),
        (torch.stack(inputs), torch.where(data.masks["y"], data.observations["y"], 0.0).sum()),
    ):
        assert abs(float(found.mean() - expected)) < 5 * float(found.std()) / 20


def test_dropout_hides_average_values_as_averages() -> None:
    """A head far from zero: what is hidden must not look like an extreme value."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"y": rng.normal(1000.0, 50.0, (20, 10, 2))}, standardise=["y"])
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Innovations(2), observations={"y": lr.Gaussian()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    guide.initialise(model, data)
    model.observations["y"].initialise(data.observations["y"], data.masks["y"])
    centres = {"y": model.observations["y"].history_centre}
    shown, _, _ = coordinated_dropout(data, 0.3, ["y"], centres=centres)
    seen = guide.encoder.inputs(shown)
    assert seen.abs().max() < 8
    assert abs(float(seen.mean())) < 0.3


def test_a_fit_with_dropout_learns_and_reports_the_true_validation_elbo() -> None:
    data, validation = make_data(30), make_data(10, seed=1)
    result = fit(
        data, validation, steps=100, stopping=lr.EarlyStopping(every=25), objective=lr.ELBO(coordinated_dropout=0.3)
    )
    with torch.no_grad(), random_state(evaluation.VALIDATION_SEED):
        expected = evaluation.validation_bound(lr.ELBO(), result.model, result.guide, validation, 4)
    assert max(result.history["validation_elbo"]) == pytest.approx(expected, abs=1e-4)
    assert result.settings["coordinated_dropout"] == 0.3


def test_dropout_is_refused_where_it_cannot_hide() -> None:
    data = make_data()
    model, guide = make_parts(data, feedback=lr.History(2))
    with pytest.raises(ValueError, match="coordinated_dropout cannot hide entries of 'y'"):
        lr.fit(model, guide, data, objective=lr.ELBO(coordinated_dropout=0.2), reporting=lr.Reporting(progress=False))
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": lr.Poisson()})
    with pytest.raises(ValueError, match="hides entries from the encoder, but this guide has none"):
        lr.fit(
            model,
            lr.Guide(model),
            data,
            objective=lr.ELBO(coordinated_dropout=0.2),
            reporting=lr.Reporting(progress=False),
        )
    idle = lr.Guide(model, encoder=lr.RNNEncoder(3))  # has nothing to infer, and was never built
    with pytest.raises(ValueError, match="the model has no latents for one to infer"):
        lr.fit(model, idle, data, objective=lr.ELBO(coordinated_dropout=0.2), reporting=lr.Reporting(progress=False))


# -- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_batches_estimate_the_full_elbo(batch_size: int) -> None:
    """Every sequence is in one batch of an epoch and counts alike: the estimates average to the whole."""
    data = make_data(14).to(dtype=torch.float64)
    model, guide = make_parts(data, priors={"baseline": torch.distributions.Normal(0.0, 1.0)})
    model.double(), guide.double()
    values = fixed_latents(model, data)
    names = [site.name for site in model.latent_sites()]

    def terms(batch: lr.SequenceData) -> Any:
        chosen = range(len(data)) if batch.indices is None else batch.indices.tolist()
        local = {name: values[name][list(chosen)] for name in names}
        local["innovations"] = local["innovations"][:, : batch.num_steps]
        with Fixed(values | local), torch.no_grad():
            return lr.elbo_terms(model, guide, batch)

    full = terms(data)
    parts = [terms(batch) for batch in data.batches(batch_size, generator=torch.Generator())]
    estimate = sum(part.elbo() for part in parts) / len(parts)
    torch.testing.assert_close(estimate, full.elbo(), rtol=0.0, atol=1e-9)
    for part in parts:  # the term of parameters does not depend on the batch
        torch.testing.assert_close(part.kl["parameters"], full.kl["parameters"], rtol=0.0, atol=1e-9)


def test_a_fit_visits_every_sequence_once_an_epoch() -> None:
    data = make_data(14)
    seen: list[list[str]] = []

    class Noting(lr.ELBO):
        """The ELBO of a user who writes down what it is asked for."""

        def step(self, at: Any) -> Any:
            seen.append(list(at.data.names))
            return super().step(at)

    fit(data, steps=8, batch_size=4, objective=Noting())
    assert len(seen) == 8
    for epoch in (seen[:4], seen[4:]):
        assert sorted(name for batch in epoch for name in batch) == sorted(data.names)
    assert seen[:4] != seen[4:]


def test_validation_does_not_depend_on_its_batches() -> None:
    data = make_data(14, ragged=False)
    deterministic = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": lr.Poisson()}
    )
    guide = lr.Guide(deterministic)
    with torch.no_grad():
        found = [
            evaluation.validation_bound(lr.ELBO(), deterministic, guide, data, 1, batch_size=size)
            for size in (3, 5, 14)
        ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


@pytest.mark.parametrize(
    "objective",
    [lr.ELBO(), lr.ELBO(sticking_the_landing=True), lr.IWAE(), lr.Renyi(0.5), lr.FIVO()],
    ids=lambda objective: f"{objective.name} {getattr(objective, 'sticking_the_landing', '')}",
)
@pytest.mark.parametrize("family", ["point", "multivariate"])
def test_validation_is_the_density_given_the_parameters(objective: lr.ELBO, family: str) -> None:
    """New sequences are given the parameters that training inferred; their KL, paid there, counts for nothing here."""
    data = make_data(8, ragged=False)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(priors={"weight": torch.distributions.Normal(0.0, 0.1)})},
    )
    guide = lr.Guide(model, global_family=family)
    with torch.no_grad():
        guide.parameter_sites.log_scale.fill_(-20.0) if family == "multivariate" else None
        bound = evaluation.validation_bound(objective, model, guide, data, 4)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    assert bound == pytest.approx(float(posterior.log_likelihood(num_draws=1).mean()), rel=1e-5)
    kl = float(lr.elbo_terms(model, guide, data, analytic_kl=False).kl["parameters"].detach()) / len(data)
    assert abs(kl) > 0.1  # what it would be off by


def test_validation_must_not_overlap_training() -> None:
    data = make_data()
    model, guide = make_parts(data)
    with pytest.raises(
        ValueError, match=r"2 validation sequences are training sequences too; validation\.without\(train\)"
    ):
        lr.fit(model, guide, data, data[[1, 3]], reporting=lr.Reporting(progress=False))
    windows = data.windows(4)
    first, second = windows[: len(windows) // 2], windows[len(windows) // 2 :]
    lr.fit(
        model, guide, first, second.without(first), steps=1, reporting=lr.Reporting(progress=False)
    )  # other stretches of a sequence are fine


# -- devices -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    data = make_data(14)
    start = fit(data, steps=1)
    values = fixed_latents(start.model, data)
    found = []
    for device in ("cpu", "cuda"):
        here = data.to(device)
        pair = copy.deepcopy(start.model).to(device), copy.deepcopy(start.guide).to(device)
        with Fixed({name: value.to(device) for name, value in values.items()}), torch.no_grad():
            found.append({k: v.cpu() for k, v in lr.elbo_terms(*pair, here).log_likelihood.items()})
    torch.testing.assert_close(found[0]["y"], found[1]["y"], rtol=1e-4, atol=1e-3)
    # other generators, other draws: the two fits agree in what they reach, not in how
    results = [
        fit(data, make_data(6, seed=1), steps=60, compute=lr.Compute(device=device)) for device in ("cpu", "cuda")
    ]
    assert results[1].history["elbo"][-1] == pytest.approx(results[0].history["elbo"][-1], rel=0.2)
    assert all(parameter.device.type == "cpu" for parameter in results[1].model.parameters())


@pytest.fixture(autouse=True)
def _no_progress_bar(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capsys.readouterr().err == ""  # progress=False is silent


def test_a_fit_does_not_go_on_in_other_units() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(6, 5, 2))
    units, others = (
        lr.SequenceData.from_arrays({"voltage": values}, standardise={"voltage": (0.0, scale)}) for scale in (1.0, 2.0)
    )

    def parts(data: lr.SequenceData) -> tuple[lr.LatentRNN, lr.Guide]:
        heads = {"voltage": lr.Gaussian()}
        model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
        return model, lr.Guide(model)

    first = lr.fit(
        *parts(units), units, steps=1, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    lr.fit(
        *parts(units),
        units,
        steps=1,
        start_from=first,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    with pytest.raises(ValueError, match="start_from standardised 'voltage' otherwise"):
        lr.fit(
            *parts(others),
            others,
            steps=1,
            start_from=first,
            reporting=lr.Reporting(progress=False),
            compute=lr.Compute(device="cpu"),
        )
