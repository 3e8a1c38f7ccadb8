"""Several threads with posteriors, and iterators read in turns: answers are those of one thread, one at a time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.support.isolation import isolation

ROUNDS = 6


@cache
def fitted(rate: float) -> lr.FitResult:
    data = recording(rate)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4),
        latent=lr.Innovations(2),
        observations={"s": lr.Poisson(feedback=lr.History(steps=2, filters=1))},
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    return lr.fit(model, guide, data, steps=2, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu"))


@cache
def recording(rate: float) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"s": np.random.default_rng(0).poisson(rate, (6, 10, 2))})


def posterior(rate: float) -> lr.Posterior:
    return fitted(rate).posterior(recording(rate), device="cpu")


def online(of: lr.Posterior) -> float:
    follow = lr.OnlineFilter(of, num_particles=8)
    return sum(follow.update({"s": of.data.observations["s"][0, t]}).log_prob or 0.0 for t in range(4))


QUESTIONS: dict[str, Callable[[lr.Posterior], float]] = {
    "forecast": lambda of: float(of.forecast(3, num_samples=8).samples["s"].sum()),
    "predictive": lambda of: float(of.predictive(5)["s"].sum()),
    "evidence": lambda of: of.evidence("iwae", 8).total,
    "filters": lambda of: of.evidence("smc", 8).total,
    "one step ahead": lambda of: of.one_step_ahead("s", 8).total,
    "parts": lambda of: float(sum(value.nan_to_num().sum() for _, value, _, _ in of.latent_parts(4))),
    "online": online,
    "refined": lambda of: float(of.refined(2).mean("s", 4).sum()),
    "fit": lambda of: float(refit(of).history["elbo"][-1]),
}


def refit(of: lr.Posterior) -> lr.FitResult:
    return lr.fit(
        of.result.model,
        of.result.guide,
        of.data,
        steps=2,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )


@pytest.mark.parametrize("question", QUESTIONS)
def test_threads_get_the_answers_of_one_thread(question: str) -> None:
    ask, asked = QUESTIONS[question], [posterior(0.5), posterior(3.0)]
    alone = [ask(of) for of in asked]
    found: list[list[object]] = [[], []]
    together = threading.Barrier(2)

    def serve(which: int) -> None:
        together.wait()
        for _ in range(ROUNDS):
            try:
                found[which].append(ask(asked[which]))
            except Exception as error:
                found[which].append(error)

    threads = [threading.Thread(target=serve, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[alone[0]] * ROUNDS, [alone[1]] * ROUNDS]


def parts_of(of: lr.Posterior) -> list[torch.Tensor]:
    return [value.nan_to_num() for _, value, _, _ in of.replicate_parts(6)]


def test_iterators_read_in_turns_are_those_read_alone() -> None:
    small = [fitted(rate).posterior(recording(rate), device="cpu", max_elements=64) for rate in (0.5, 3.0)]
    alone = [parts_of(of) for of in small]
    assert len(alone[0]) > 2
    together = zip(*(of.replicate_parts(6) for of in small), strict=True)
    turns = [[value.nan_to_num() for _, value, _, _ in pair] for pair in together]
    for which in (0, 1):
        expected, found = alone[which], [turn[which] for turn in turns]
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_between_parts_torch_is_the_callers() -> None:
    of = fitted(0.5).posterior(recording(0.5), device="cpu", max_elements=64)
    alone = parts_of(of)
    torch.manual_seed(3)
    expected, found, parts = torch.rand(3), [], []
    torch.manual_seed(3)
    for _, value, _, _ in itertools.islice(of.replicate_parts(6), 3):  # and then it is left
        assert torch.is_grad_enabled()
        found.append(torch.rand(()))
        parts.append(value.nan_to_num())
        of.mean("s", 2)
    assert torch.equal(torch.stack(found), expected)
    assert all(torch.equal(one, other) for one, other in zip(alone, parts, strict=False))
    assert float(of.mean("s", 2).sum()) == float(of.mean("s", 2).sum())


def test_a_computation_that_fails_leaves_torch_and_the_other_threads_alone() -> None:
    of = posterior(0.5)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError):
        of.counterfactual(clamp={"update": lambda _: 1 / 0}, num_samples=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    answers: list[float] = []
    thread = threading.Thread(target=lambda: answers.append(of.evidence("iwae", 4).total), daemon=True)
    thread.start()
    thread.join(10)
    assert answers == [of.evidence("iwae", 4).total]


@pytest.mark.parametrize("question", QUESTIONS)
def test_nothing_leaks_into_torchs_generator(question: str) -> None:
    of = posterior(0.5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    QUESTIONS[question](of)
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_and_calibrating_hold_the_lock_while_models_are_built_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(3, 4, 1))})
    heads = {"y": lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)})}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    result = lr.laplace(model, data, device="cpu")
    result.save(tmp_path / "fit")
    held: dict[str, list[bool]] = {"build": [], "forward": []}

    def watch(name: str, original: Callable[..., Any]) -> Any:
        def watched(*args: Any) -> Any:
            held[name].append(another_has_to_wait())
            return original(*args)

        return watched

    monkeypatch.setattr(lr.GRU, "build", watch("build", lr.GRU.build))
    monkeypatch.setattr(lr.LatentRNN, "forward", watch("forward", lr.LatentRNN.forward))
    assert not another_has_to_wait()
    lr.load(tmp_path / "fit")
    assert held["build"] == [True]
    posterior = result.posterior(data, device="cpu")
    held["forward"].clear()
    lr.simulation_based_calibration(posterior, num_simulations=2, num_draws=3, refit=lambda data: result)
    assert len(held["forward"]) >= 8  # truth, reference and two densities of each
    assert all(held["forward"])


def another_has_to_wait() -> bool:
    """Whether a computation of another thread waits for this one."""

    def compute() -> None:
        with isolation():
            pass

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    thread.join(0.1)  # it takes microseconds where it can
    return thread.is_alive()
