"""From data to answers: random models of random data are fitted, and every method of a posterior is asked."""

from __future__ import annotations

import copy
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor

import latentrnn as lr
from tests.fuzz import rule
from tests.fuzz.cases import Case, cases, fits, frames, models
from tests.fuzz.conftest import number
from tests.fuzz.rule import TALLY, Refused, attempt, expect, expect_same, repeat

DRAWS = 3


class Asked:
    """A posterior, and a way of asking it for each of the things it knows."""

    def __init__(self, posterior: lr.Posterior, result: lr.FitResult, seed: int) -> None:
        self.posterior, self.result, self.data, self.seed = posterior, result, posterior.data, seed
        self.heads = list(posterior.model.observations)

    def _expect(self, what: str, head: str, value: Tensor, *leading: int) -> None:
        """Look at (*leading, sequence, frame, channel), NaN in padding; the mean of a symbol is its probabilities."""
        inside, classes = frames(self.data, head), self._classes(head)
        shape = (*leading, *self._shape(head))
        if classes is not None and what in ("mean", "rates", "counterfactual"):
            shape, inside = (*shape, classes), None if inside is None else inside[..., None]
        expect(f"{what}[{head!r}]", value, shape, inside)

    def _shape(self, head: str) -> tuple[int, ...]:
        """(sequence, frame, channel), or (sequence, channel)."""
        spec = self.data.spec.heads[head]
        return (len(self.data), *([self.data.num_steps // spec.clock] if spec.per_step else []), spec.channels)

    def _classes(self, head: str) -> int | None:
        observation = self.posterior.model.observations[head]
        return observation.classes if isinstance(observation, lr.Categorical) else None

    def mean(self) -> None:
        for head in self.heads:
            self._expect("mean", head, repeat("mean", lambda head=head: self.posterior.mean(head, DRAWS)))

    def rates(self) -> None:
        for head in self.heads:
            found = repeat("rates", lambda head=head: self.posterior.rates(head, DRAWS))
            self._expect("rates", head, found, DRAWS)

    def latents(self) -> None:
        model, along = self.posterior.model, (self.data.num_steps,)
        shapes = {site.name: (*(along if site.along_time else ()), site.dim) for site in model.latent_sites()}
        shapes["states"] = (*along, model.transition.hidden_size)
        if isinstance(model.latent, lr.Discrete | lr.RelaxedDiscrete):
            shapes["switch"] = (*along, 2)
        if isinstance(model.latent, lr.Discrete):  # readouts see the switch, too
            shapes["states"] = (*along, model.transition.hidden_size + 2)
        if isinstance(model.latent, lr.RecurrentNormal):
            shapes["states"] = (*along, 2)
        found = repeat("latents", lambda: self.posterior.latents(DRAWS))
        assert found.keys() == shapes.keys()
        for name, value in found.items():
            inside = self.data.valid[..., None] if len(shapes[name]) == 2 else None
            expect(f"latents[{name!r}]", value, (DRAWS, len(self.data), *shapes[name]), inside)

    def predictive(self) -> None:
        for head, value in repeat("predictive", lambda: self.posterior.predictive(DRAWS)).items():
            self._expect("predictive", head, value, DRAWS)

    def prior_predictive(self) -> None:
        found = repeat("prior_predictive", lambda: self.posterior.prior_predictive(DRAWS))
        assert set(found) == set(self.heads)
        for head, value in found.items():  # which may be anything, as wide as priors are
            assert value.shape == (DRAWS, *self._shape(head)), (head, value.shape)
            inside = frames(self.data, head)
            assert inside is None or not bool(value.isfinite()[~inside.expand(value.shape)].any()), head

    def impute(self) -> None:
        for head in self.heads:
            found = repeat("impute", lambda head=head: self.posterior.impute(head, DRAWS))
            if isinstance(found, Refused):
                continue
            self._expect("impute", head, found, DRAWS)
            seen = self.data.masks[head].expand(found.shape)
            assert torch.equal(found[seen], self.data.observations[head].expand(found.shape)[seen])

    def evidence(self, kind: str) -> None:
        found = repeat(f"evidence({kind})", lambda: self.posterior.evidence(kind, 4))
        if not isinstance(found, Refused):
            expect(f"evidence({kind})", found.values, (len(self.data),))
            assert repr(found)

    def log_likelihood(self) -> None:
        found = repeat("log_likelihood", lambda: self.posterior.log_likelihood(3, 2))
        expect("log_likelihood", found, (2 if self.posterior.model.parameter_sites() else 1, len(self.data)))

    def parameters(self) -> None:
        sites = self.posterior.model.parameter_sites()
        found = repeat("parameters", lambda: self.posterior.parameters(DRAWS))
        assert found.keys() == sites.keys()
        for name, value in found.items():
            expect(f"parameters[{name!r}]", value, (DRAWS, *sites[name][1].shape))

    def one_step_ahead(self) -> None:
        for head in self.heads:
            found = repeat("one_step_ahead", lambda head=head: self.posterior.one_step_ahead(head, 3, 2, 2))
            if isinstance(found, Refused):
                continue
            shape, classes = self._shape(head), self._classes(head)
            expect("log_prob", found.log_prob, (*shape[:2], 1) if self._joint(head) else shape)
            assert found.scored.shape == found.log_prob.shape
            assert found.observed.shape == shape
            # a symbol's mean has an axis of its probabilities
            assert found.mean.shape == (shape if classes is None else (*shape, classes)), found.mean.shape
            for of_zero in (found.log_prob_zero, found.standard_error):
                assert of_zero is None or of_zero.shape == found.log_prob.shape
            assert repr(found)

    def forecast(self) -> None:
        steps, count = 4, len(self.data)
        generator = torch.Generator().manual_seed(self.seed)
        future = {
            name: torch.randn(count, steps, spec.features, generator=generator)
            for name, spec in self.data.spec.covariates.items()
        }
        times = None
        if self.data.times is not None:
            last = self.data.times.gather(1, (self.data.lengths - 1)[:, None])
            times = last + torch.arange(1, steps + 1) * last.clamp_min(1e-9) * 0.1
        totals = {name: torch.full((count, steps), 3.0) for name in self.heads if self._counts_total(name)}
        found = repeat(
            "forecast",
            lambda: (
                self.posterior.forecast(
                    steps, future or None, times=times, totals=totals or None, num_samples=DRAWS
                ).samples
            ),
        )
        if isinstance(found, Refused):
            return
        assert set(found) == {head for head in self.heads if self.data.spec.heads[head].per_step}
        for head, value in found.items():
            spec = self.data.spec.heads[head]
            ahead = (self.data.lengths + steps) // spec.clock - self.data.lengths // spec.clock
            there = torch.arange(int(ahead.max())) < ahead[:, None]
            expect(f"forecast[{head!r}]", value, (DRAWS, *there.shape, spec.channels), there[..., None])

    def _joint(self, head: str) -> bool:
        """Whether a head's channels have one density together."""
        observation = self.posterior.model.observations[head]
        together = lr.Multinomial | lr.DirichletMultinomial | lr.AutoregressiveBernoulli
        correlated = isinstance(observation, lr.Gaussian) and observation.covariance != "diagonal"
        return isinstance(observation, together) or correlated

    def _counts_total(self, head: str) -> bool:
        return isinstance(self.posterior.model.observations[head], lr.Multinomial | lr.DirichletMultinomial)

    def gain(self) -> None:
        for head in self.heads:
            found, head_of = attempt("gain", lambda head=head: self.posterior.gain(head, DRAWS)), self.posterior.model
            gain = head_of.observations[head].gain
            assert isinstance(found, Refused) == (gain is None)
            if gain is not None:
                features = gain.lags * self.data.spec.covariates["x"].features
                expect("gain", found.beta, (DRAWS, head_of.observations[head].outputs, features))
                assert found.gate.shape == (DRAWS, *self._shape(head)[:2], features), found.gate.shape

    def counterfactual(self) -> None:
        if self.data.spec.covariates:
            size = float(self.data.covariates["x"].std())  # far outside of the data a log link may overflow
            found = repeat(
                "counterfactual", lambda: self.posterior.counterfactual({"x": size}, num_samples=DRAWS).rates
            )
            if not isinstance(found, Refused):
                for head, value in found.items():
                    self._expect("counterfactual", head, value, DRAWS)

    def unchanged(self) -> None:
        found = attempt("counterfactual", lambda: self.posterior.counterfactual(num_samples=DRAWS).rates)
        if not isinstance(found, Refused):
            for head in self.heads:
                if self.data.spec.heads[head].per_step:
                    rates = self.posterior.rates(head, DRAWS)
                    seen = ~rates.isnan()
                    assert torch.allclose(found[head][seen], rates[seen], rtol=1e-3, atol=1e-5), head

    def refined(self) -> None:
        found = attempt("refined", lambda: self.posterior.refined(2).evidence("elbo", 3))
        if not isinstance(found, Refused):
            expect("refined", found.values, (len(self.data),))

    def export(self) -> None:
        found = attempt("to_arviz", lambda: self.posterior.to_arviz(num_samples=DRAWS, num_particles=2))
        if isinstance(found, Refused):
            return
        for head in self.heads:
            drawn, observed = found["posterior_predictive"][head], found["observed_data"][head]
            assert drawn.shape == (1, DRAWS, *self._shape(head)), drawn.shape
            assert observed.shape == self._shape(head), observed.shape
            assert np.array_equal(np.isnan(observed.values), ~self.data.masks[head].numpy())

    def check(self) -> None:
        found = attempt("check", lambda: lr.posterior_predictive_check(self.posterior, num_samples=20))
        if not isinstance(found, Refused):
            assert repr(found)
            assert found.table is not None

    def held_out(self) -> None:
        found = attempt("held_out", lambda: lr.held_out_log_likelihood(self.posterior, num_particles=4))
        assert isinstance(found, Refused) or repr(found)

    def travels(self) -> None:
        there = attempt("pickle", lambda: pickle.loads(pickle.dumps(self.posterior)))
        twin = attempt("deepcopy", lambda: copy.deepcopy(self.posterior))
        for other in (there, twin):
            for head in self.heads:
                expect_same("after a trip", self.posterior.mean(head, 2), other.mean(head, 2))

    def saved(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fit"
            if isinstance(attempt("save", lambda: self.result.save(path)), Refused):
                return
            again = attempt("load", lambda: lr.load(path))
            assert not isinstance(again, Refused), again
            before = attempt("evidence", lambda: self.result.posterior(self.data).evidence("elbo", 3))
            after = attempt("evidence", lambda: again.posterior(self.data).evidence("elbo", 3))
            if not isinstance(before, Refused):
                expect_same("a saved fit", before.values, after.values)

    def online(self) -> None:
        found = attempt("OnlineFilter", lambda: lr.OnlineFilter(self.result, num_particles=5))
        if isinstance(found, Refused):
            return
        data = self.data
        for step in range(min(3, int(data.lengths[0]))):
            given = {}
            for head, spec in data.spec.heads.items():
                if spec.per_step and (step + 1) % spec.clock == 0:
                    frame = (step + 1) // spec.clock - 1
                    seen, values = data.masks[head][0, frame], data.observations[head][0, frame]
                    given[head] = torch.where(seen, values, torch.nan)
            covariates = {name: value[0, step] for name, value in data.covariates.items()}
            time = None if data.times is None else float(data.times[0, step])
            state = attempt("update", lambda given=given, covariates=covariates, time=time: found.update(
                given, covariates or None, time=time
            ))  # fmt: skip
            if isinstance(state, Refused):
                return
            assert state.step == step
            for head, value in state.rates.items():
                assert bool(value.isfinite().all()), head


ASK: list[Callable[[Asked], Any]] = [
    Asked.mean, Asked.rates, Asked.latents, Asked.predictive, Asked.prior_predictive, Asked.impute,
    lambda asked: asked.evidence("elbo"), lambda asked: asked.evidence("iwae"), lambda asked: asked.evidence("smc"),
    Asked.log_likelihood, Asked.parameters, Asked.one_step_ahead, Asked.forecast, Asked.gain, Asked.counterfactual,
    Asked.unchanged, Asked.refined, Asked.export, Asked.check, Asked.held_out, Asked.travels, Asked.saved, Asked.online,
]  # fmt: skip


def fitted(random: st.DataObject, case: Case) -> tuple[lr.FitResult, lr.SequenceData] | None:
    """Return a fit of a random model to the case's data, and data to ask of; None where something is refused."""
    pair = random.draw(models(case))
    if pair is None:
        return None
    settings_of_fit = random.draw(fits())
    case.described["fit"] = settings_of_fit
    train, test = case.data, case.data
    if len(case.data) > 2 and random.draw(st.booleans()):
        train, test = case.data[:2], case.data[2:]
        if random.draw(st.booleans()):
            settings_of_fit = settings_of_fit | {"validation": test}
    result = attempt("fit", lambda: lr.fit(*pair, train, **settings_of_fit))
    if isinstance(result, Refused):
        case.described["refused"] = result
        return None
    assert all(len(values) for values in result.history.values())
    assert result.history, "a fit that took no step came back"
    return result, test


@settings(settings.get_profile("fuzz"), max_examples=number(40))
@given(st.data())
def test_every_answer_is_sane_or_refused(random: st.DataObject) -> None:
    TALLY["cases"] += 1
    case = random.draw(cases())
    if case is None:
        return
    note(case.described)
    found = fitted(random, case)
    note(case.described)
    if found is None:
        return
    TALLY["fitted"] += 1
    result, data = found
    posterior = attempt("posterior", lambda: result.posterior(data))
    if isinstance(posterior, Refused):
        return
    asked = Asked(posterior, result, seed=1)
    for ask in random.draw(st.lists(st.sampled_from(ASK), min_size=2, max_size=5)):
        ask(asked)


# -- the questions themselves, of what is sure to have an answer -----------------------------------------------------


def counted(lengths: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    y = [rng.poisson(1.0, (n, 2)).astype(float) for n in lengths]
    y[0][1, 0] = np.nan
    return {"y": y, "z": [rng.integers(0, 3, (n // 2, 1)) for n in lengths]}, {
        "x": [rng.normal(size=(n, 2)) for n in lengths]
    }


WITH_ANSWERS: dict[str, Callable[[], tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]]] = {
    "innovations": lambda: asked_of(lr.Innovations(2, initial=3), gain=lr.StimulusGain("x", lags=2)),
    "a switch": lambda: asked_of(lr.Discrete(2), covariates=["x"]),
}


def asked_of(latent: lr.Latent, **settings: Any) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    data = lr.SequenceData.from_arrays(*counted([4, 6, 6, 3]), dt=0.1, clocks={"z": 2})
    heads = {"y": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)}, **settings), "z": lr.Categorical(3)}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=latent, observations=heads)
    return model, lr.Guide(model, encoder=lr.RNNEncoder(3)), data


@pytest.mark.parametrize("name", WITH_ANSWERS)
def test_every_question_has_an_answer_of_the_documented_shape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide, data = WITH_ANSWERS[name]()
    compute, reporting = lr.Compute(device="cpu"), lr.Reporting(progress=False)
    result = lr.fit(model, guide, data[:2], steps=2, compute=compute, reporting=reporting)
    refused: list[str] = []
    looked = rule.attempt

    def attempting(what: str, call: Callable[[], Any]) -> Any:
        found = looked(what, call)
        refused.extend([what] * isinstance(found, Refused))
        return found

    for module in (rule, sys.modules[__name__]):
        monkeypatch.setattr(module, "attempt", attempting)
    asked = Asked(result.posterior(data[2:], device="cpu"), result, seed=1)
    for ask in ASK:
        ask(asked)
    summed_out = {"refined", "counterfactual", "OnlineFilter"} if name == "a switch" else set()
    assert set(refused) == summed_out | {"gain"}  # of heads without one
