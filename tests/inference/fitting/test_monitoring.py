"""By which heads validation sequences judge the weights of a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.fitting.evaluation import bounds_by_sequence
from latentrnn.support.isolation import random_state

OBJECTIVES = {
    "elbo": lr.ELBO(),
    "sticking": lr.ELBO(sticking_the_landing=True),
    "iwae": lr.IWAE(num_particles=4),
    "renyi": lr.Renyi(num_particles=4),
    "fivo": lr.FIVO(num_particles=4),
}
STEPS, JUDGE = 8, "validation_log_likelihood/died"


def make_data(sequences: int = 12, seed: int = 0) -> lr.SequenceData:
    """Slow measurements of four channels, which can be predicted, and an outcome by chance, which cannot."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=(sequences, STEPS, 4)).cumsum(1)
    before = np.concatenate([np.zeros((sequences, 1, 4)), level[:, :-1]], 1)
    died = rng.integers(2, size=(sequences, 1)).astype(float)
    return lr.SequenceData.from_arrays(
        {"chart": level + 0.1 * rng.normal(size=level.shape), "died": died},
        {"value": before},
        per_sequence=["died"],
        dtype=torch.float64,
    )


def make_model(data: lr.SequenceData, latent: lr.Latent | None = None) -> lr.LatentRNN:
    heads = {"chart": lr.Gaussian(), "died": lr.Bernoulli(pooling="last")}
    return lr.LatentRNN(
        data.spec, transition=lr.GRU(16), latent=latent or lr.Deterministic(), observations=heads, inputs=["value"]
    )


DATA, VALIDATION = make_data(), make_data(30, 1)


def fit(
    stopping: lr.EarlyStopping | None = None,
    validation: lr.SequenceData | None = VALIDATION,
    steps: int | None = 120,
) -> lr.FitResult:
    model = make_model(DATA)
    return lr.fit(
        model,
        lr.Guide(model),
        DATA,
        validation,
        steps=steps,
        optimizer=lr.AdamW(0.02),
        stopping=stopping or lr.EarlyStopping(every=5, patience=None),
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute("cpu"),
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_tells_the_log_likelihood_of_each_head(name: str) -> None:
    # without random latents bounds and log-likelihoods are the same numbers, whatever the objective
    model = make_model(DATA)
    guide = lr.Guide(model)
    model.double().eval(), guide.double().eval()
    model.initialise(DATA)
    found = {}
    for monitor in ((), ("chart",), ("died",), ("chart", "died")):
        with torch.no_grad(), random_state(1, torch.device("cpu")):
            bounds = bounds_by_sequence(OBJECTIVES[name], model, guide, DATA, 4, monitor=monitor, batch_size=5)
        found[monitor] = bounds.judged
        np.testing.assert_allclose(bounds.total, found[()], rtol=1e-9)
    np.testing.assert_allclose(found["chart",] + found["died",], found[()], rtol=1e-9)
    np.testing.assert_allclose(found["chart", "died"], found[()], rtol=1e-9)
    risk = lr.Posterior(model, guide, DATA, device="cpu").mean("died", 1)[:, 0].double()
    died = DATA.observations["died"][:, 0]
    np.testing.assert_allclose(found["died",], torch.where(died > 0, risk, 1 - risk).log(), rtol=1e-6)


def test_with_latents_a_head_is_judged_under_the_guide_without_their_divergence() -> None:
    model = make_model(DATA, lr.Innovations(2))
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    model.double().eval(), guide.double().eval()
    model.initialise(DATA), guide.initialise(model, DATA)
    with torch.no_grad(), random_state(1, torch.device("cpu")):
        bounds = bounds_by_sequence(lr.ELBO(), model, guide, DATA, 3, monitor=("chart", "died"))
    assert bool((bounds.judged > bounds.total).all())


def test_the_weights_that_are_kept_are_the_best_for_what_judges() -> None:
    by_outcome, by_bound = fit(lr.EarlyStopping(every=5, patience=None, monitor="died")), fit()
    judged, elbo = by_outcome.history[JUDGE], by_bound.history["validation_elbo"]
    steps = by_outcome.history["validation_step"]
    np.testing.assert_allclose(by_outcome.history["validation_elbo"], elbo, rtol=1e-9)  # the course is the same
    assert JUDGE not in by_bound.history
    assert by_outcome.best_step == steps[int(np.argmax(judged))]
    assert by_bound.best_step == steps[int(np.argmax(elbo))]
    # an outcome by chance is best told at the beginning; the measurements go on gaining
    assert by_outcome.best_step < by_bound.best_step
    assert f"best_step={by_outcome.best_step}, validation_log_likelihood/died={max(judged):.4g}" in repr(by_outcome)


@pytest.mark.parametrize("steps", [None, 400])
def test_a_fit_ends_by_the_heads_that_judge(steps: int | None) -> None:
    result = fit(lr.EarlyStopping(every=5, patience=3, monitor=["died"]), steps=steps)
    assert "converged: the validation log-likelihood of died has not improved" in result.stop_reason
    assert result.history["step"][-1] < 350


def test_monitored_heads_are_described() -> None:
    # a fit that began before heads could be named goes on as the same fit
    assert "monitor" not in fit(steps=1).settings["stopping"]
    given = fit(lr.EarlyStopping(monitor="died"), steps=1)
    assert given.settings["stopping"]["monitor"] == ["died"]


def _seen() -> lr.FitResult:
    model = make_model(DATA, lr.Innovations(2))
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    return lr.fit(model, guide, DATA, VALIDATION, steps=1, stopping=lr.EarlyStopping(monitor="chart"))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: fit(lr.EarlyStopping(monitor="dead")), ValueError, r"names 'dead'; the model has \['chart', 'died'\]"),
        (lambda: fit(lr.EarlyStopping(monitor="died"), None), ValueError, r"monitor=\['died'\].*give validation"),
        (_seen, ValueError, "names 'chart', which the encoder sees"),
        (lambda: lr.EarlyStopping(monitor=3), TypeError, "EarlyStopping: monitor must be a list of names"),
    ],
)
def test_what_cannot_judge_is_refused(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wrong()


class Written(lr.ELBO):
    """An objective of a user's own that tells nothing of single heads."""

    def step(self, at: Any) -> Any:
        found = super().step(at)
        return found._replace(terms=found.terms._replace(heads_by_sequence=None))


def test_an_objective_that_does_not_tell_heads_says_how_to_go_on() -> None:
    model = make_model(DATA)
    with torch.no_grad(), pytest.raises(ValueError, match="to judge by the bound"):
        bounds_by_sequence(Written(), model.double(), lr.Guide(model), DATA, 1, monitor=("died",))
