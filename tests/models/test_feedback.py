"""Heads that feed back: scored in parallel given the recording, drawn step by step given themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import Tensor

import latentrnn as lr
from latentrnn.models.observations import HeadInputs
from tests.registry import OBSERVATIONS, Fixed, fixed_latents, make_data, make_model

FEEDING = [name for name in OBSERVATIONS if "history" in name]
WITH_TRANSITION = [name for name in FEEDING if OBSERVATIONS[name].feeds_transition]


# -- stability: what only a free run shows -------------------------------------------------------------------------


def excitation(weight: float, data: lr.SequenceData) -> lr.Posterior:
    """A Poisson process that acts on itself one step later, log rate = b + weight y_{t-1}, nothing else.

    The baseline is such that, given the recorded past, the mean rate is the recording's.
    """
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(1),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(feedback=lr.History(1, filters=1, into="readout"))},
    )
    head = model.observations["y"]
    past = torch.nn.functional.pad(data.observations["y"], (0, 0, 1, 0))[:, :-1]
    with torch.no_grad():
        head.feedback.weight.fill_(1.0)
        head.feedback.own.fill_(weight)
        head.readout.weight.zero_()
        mean = data.observations["y"].mean()
        head.readout.baseline.fill_(float(mean.log() - (weight * past).exp().mean().log()))
    return lr.Posterior(model, lr.Guide(model), data)


def recording(weight: float = 0.0, rate: float = 0.23) -> lr.SequenceData:
    rng = np.random.default_rng(1)
    spikes = np.zeros((10, 300, 1))
    for t in range(300):
        before = spikes[:, t - 1] if t else 0.0
        spikes[:, t] = rng.poisson(rate * np.exp(weight * before))
    return lr.SequenceData.from_arrays({"y": spikes})


def mean_rate(check: lr.PredictiveCheck) -> dict[str, object]:
    (row,) = [row for row in check.table if row["statistic"].startswith("mean rate")]
    return row


def test_an_unstable_history_is_exposed_by_running_free() -> None:
    posterior = excitation(1.5, recording())
    observed = float(posterior.data.observations["y"].mean())
    assert float(posterior.mean("y", num_samples=2).mean()) == pytest.approx(observed, rel=1e-3)
    forced = mean_rate(lr.teacher_forced_check(posterior, num_samples=250))
    assert forced["p_value"] > 0.05  # given the recorded past, nothing is amiss
    check = lr.posterior_predictive_check(posterior, num_samples=250)
    row = mean_rate(check)
    assert row["flagged"]
    assert row["replicate_mean"] > 100 * observed


def test_a_stable_history_is_not_flagged() -> None:
    posterior = excitation(-1.0, recording(-1.0))
    check = lr.posterior_predictive_check(posterior, num_samples=250)
    row = mean_rate(check)
    assert check.flagged == []
    assert row["replicate_mean"] == pytest.approx(float(posterior.data.observations["y"].mean()), rel=0.1)


def test_pyro_predictive_runs_free_too() -> None:
    posterior = excitation(1.5, recording())
    model, guide = posterior.model, posterior.guide
    free = Predictive(poutine.uncondition(model), guide=guide, num_samples=20, parallel=True)(posterior.data)["y"]
    assert float(free.mean()) > 100 * float(posterior.data.observations["y"].mean())


# -- drawn as scored -----------------------------------------------------------------------------------------------


def stepwise(model: lr.LatentRNN, data: lr.SequenceData, values: dict[str, Tensor]) -> Tensor:
    """log p(y_t | y_{<t}, latents) of every step, (time, sequence), from data cut off after each step."""
    totals = []
    for steps in range(1, data.num_steps + 1):
        start = data.time_slice(0, steps)
        cut = {name: value[:, :steps] if value.dim() == 3 else value for name, value in values.items()}
        with Fixed(cut), torch.no_grad():
            trace = poutine.trace(model).get_trace(start)
        totals.append(trace.nodes["y"]["fn"].log_prob(start.observations["y"]))
    return torch.diff(torch.stack(totals), dim=0, prepend=torch.zeros(1, len(data), dtype=data.dtype))


@pytest.mark.parametrize("transition", ["vanilla", "gru stacked", "lstm stacked", "linear"])
@pytest.mark.parametrize("observation", FEEDING)
def test_no_step_sees_itself_or_later_ones(observation: str, transition: str) -> None:
    data = make_data(OBSERVATIONS[observation], (5, 5))
    model, _ = make_model(transition, "innovations with initial", observation, data)
    values = fixed_latents(model, data)
    with Fixed(values), torch.no_grad():
        trace = poutine.trace(model).get_trace(data)
    given = trace.nodes["y"]["fn"].given(data.observations["y"])
    entries = model.observations["y"].entry_log_prob(given, data.observations["y"]).sum(-1)
    torch.testing.assert_close(stepwise(model, data, values), entries.detach().T, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("observation", FEEDING)
def test_free_runs_are_scored_step_by_step_as_they_were_drawn(observation: str) -> None:
    """Written out here with `Transition.step` and one window of history, against the parallel score."""
    data = make_data(OBSERVATIONS[observation], (7, 7))
    data = dataclasses.replace(data, masks={"y": torch.ones_like(data.masks["y"])})
    model, _ = make_model("lstm", "innovations with initial", observation, data)
    values = fixed_latents(model, data)
    head, history = model.observations["y"], model.observations["y"].feedback
    with Fixed(values), torch.no_grad():
        drawn = poutine.trace(poutine.uncondition(model)).get_trace(data)
        y = drawn.nodes["y"]["value"]
        state = model.latent.start.map(values["initial"])
        past = torch.zeros(len(data), history.steps, head.history_channels, dtype=data.dtype)
        expected = torch.zeros(len(data), dtype=data.dtype)
        drive = model.transition_inputs(data)
        for t in range(data.num_steps):
            features = history.at(past)
            inputs = [drive[:, t], features] if "transition" in history.into else [drive[:, t]]
            state = model.transition.step(state, torch.cat([*inputs, values["innovations"][:, t]], -1))
            eta = head.readout(model.transition.output(state))
            if "readout" in history.into:
                eta = eta + history.to_predictor(features)
            y_t = y[:, t]
            if head.outputs_per_channel > 1:
                eta = eta.unflatten(-1, (-1, head.outputs_per_channel))
            if head.joint:
                expected += head.distribution(eta.unsqueeze(-2), HeadInputs()).log_prob(y_t.unsqueeze(-2))
            else:
                expected += head.family(eta).log_prob(y_t).sum(-1)
            past = torch.cat([past[:, 1:], head.encode_history(y_t, None)[:, None]], 1)
        torch.testing.assert_close(drawn.nodes["y"]["fn"].log_prob(y), expected, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("observation", ["poisson history", "gaussian history", "bernoulli history"])
def test_free_runs_have_the_expectations_that_the_score_says(observation: str) -> None:
    """y_t - E[y_t | y_{<t}] averages to nothing when the expectation is right (failure budget 1e-6 a case)."""
    data = make_data(OBSERVATIONS[observation], (20,) * 400)
    model, _ = make_model("gru", "deterministic", observation, data)
    with torch.no_grad():
        model.observations["y"].readout.weight.mul_(3.0)
        if "readout" in model.observations["y"].feedback.into:
            model.observations["y"].feedback.own.sub_(1.0)
        drawn = poutine.trace(poutine.uncondition(model)).get_trace(data)
        y, head = drawn.nodes["y"]["value"], drawn.nodes["y"]["fn"]
        expected = head.given(y).mean

        def surprise(given: Tensor) -> float:
            residual = y - head.given(given).mean
            # in standard errors over sequences: what the past says must not be correlated with the error
            correlation = (residual * (expected - expected.mean((0, 1)))).sum((1, 2))
            return abs(float(correlation.mean() / correlation.std() * len(correlation) ** 0.5))

        assert surprise(y) < 4.9
        assert surprise(y.roll(3, 0)) > 4.9  # negative control: another sequence's past


# -- several feeding heads -----------------------------------------------------------------------------------------


def two_heads() -> tuple[lr.LatentRNN, lr.SequenceData]:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"a": rng.poisson(1.0, (3, 6, 2)), "b": rng.normal(size=(3, 6, 1))})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4),
        latent=lr.InitialState(2),
        observations={"a": lr.Poisson(feedback=lr.History(3)), "b": lr.Gaussian(feedback=lr.History(2))},
    )
    return model, data


def test_two_feeding_heads_are_drawn_together() -> None:
    model, data = two_heads()
    trace = poutine.trace(poutine.uncondition(model)).get_trace(data)
    drawn = {name: trace.nodes[name]["value"] for name in ("a", "b")}
    latents = {"initial": trace.nodes["initial"]["value"]}
    with Fixed(latents):
        scored = poutine.trace(model).get_trace(data.with_observations(drawn))
    for name, value in drawn.items():
        expected = trace.nodes[name]["fn"].log_prob(value)
        torch.testing.assert_close(scored.nodes[name]["fn"].log_prob(value), expected)
    # each acts on the other: the states of one draw differ from those with the other head's recording
    mixed = data.with_observations({"b": drawn["b"]})
    with Fixed(latents):
        other = poutine.trace(model).get_trace(mixed)
    assert not torch.allclose(other.nodes["b"]["fn"].log_prob(drawn["b"]), scored.nodes["b"]["fn"].log_prob(drawn["b"]))


@pytest.mark.parametrize(("observed", "sampled"), [("a", "b"), ("b", "a")])
def test_one_feeding_head_cannot_be_drawn_while_another_is_observed(observed: str, sampled: str) -> None:
    model, data = two_heads()
    half = poutine.condition(poutine.uncondition(model), data={observed: data.observations[observed]})
    with pytest.raises(ValueError, match=f"head '{sampled}' is to be sampled while \\['{observed}'\\] are observed"):
        poutine.trace(half).get_trace(data)


# -- context, and what is refused ----------------------------------------------------------------------------------


def test_free_runs_start_from_the_recorded_context() -> None:
    data = make_data(OBSERVATIONS["poisson history"], (8, 8)).windows(4, context=3)
    model, guide = make_model("gru", "innovations", "poisson history", data)
    replicates = lr.Posterior(model, guide, data).predictive(20)["y"]
    for n, context in enumerate(data.host_context.tolist()):
        recorded = data.observations["y"][n, :context]
        assert torch.equal(replicates[:, n, :context], recorded.expand(20, *recorded.shape))
        drawn = replicates[:, n, context : int(data.host_lengths[n])]
        assert (drawn != drawn[:1]).any()


@pytest.mark.parametrize("into", ["transition", ("transition", "readout")])
def test_a_markov_latent_refuses_feedback_into_its_transition(into: str) -> None:
    data = make_data(OBSERVATIONS["poisson"])
    with pytest.raises(
        ValueError, match=r"MarkovNormal draws its states before any observation.*History\(into='readout'\)"
    ):
        lr.LatentRNN(
            data.spec,
            transition=lr.GRU(4),
            latent=lr.MarkovNormal(),
            observations={"y": lr.Poisson(feedback=lr.History(2, into=into))},
        )


def test_a_held_out_head_cannot_feed_back() -> None:
    """Its recorded past would reach the state, and with it the prediction that is to be made without it."""
    data = make_data(OBSERVATIONS["several"])
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4),
        latent=lr.Innovations(2),
        observations={"y": lr.Poisson(feedback=lr.History(2)), "slow": lr.Gaussian()},
    )
    with pytest.raises(
        ValueError, match=r"observations\['y'\] feeds back into the state but is held out from the encoder"
    ):
        lr.Guide(model, encoder=lr.RNNEncoder(3, observes=["slow"]))
    lr.Guide(model, encoder=lr.RNNEncoder(3, observes=["y"]))
    lr.Guide(model, encoder=lr.RNNEncoder(3))
