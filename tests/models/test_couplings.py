"""Couplings: against formulas written out, blind to padding, seen by a fit's loss and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.elbo import log_weights
from latentrnn.models import (
    Coupling,
    LocalGlobalAgreement,
    OutcomeCalibration,
    PhaseClassAgreement,
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
    course = model.unfold(data)
    found = model.couplings[0].penalty(course).detach()
    step, label = (
        model.observations[name].mean(course.distribution(name)).detach().numpy() for name in ("step", "label")
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
        result = lr.fit(model, guide, data, steps=60, optimiser=settings, progress=False)
        history = result.history
        at_the_end[weight] = history[f"coupling/{kind.__name__}"][-1]
        elbo = sum(
            v[-1] * (1 if k.startswith("log") else -1) for k, v in history.items() if k.startswith(("log", "kl/"))
        )
        assert history["elbo"][-1] == pytest.approx(elbo)
    assert at_the_end[30.0] < 0.9 * at_the_end[1e-6]


REFUSED = {
    "no weight": (lambda: SurvivalConsistency("step", "label", weight=0.0), "weight must be a positive number"),
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


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(make, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
