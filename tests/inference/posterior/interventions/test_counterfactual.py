"""The same latents under other covariates or held gates: linear models in closed form, no change without a cause."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from tests.linear_gaussian import as_data, as_model, exact_guide, random_problem
from tests.registry import LATENTS, OBSERVATIONS, default_transition, make_data, make_model

SAMPLES = 5


def make_posterior(observation: str, latent: str, transition: str | None = None) -> lr.Posterior:
    data = make_data(OBSERVATIONS[observation])
    transition = default_transition(observation) if transition is None else transition
    model, guide = make_model(transition, latent, observation, data)
    return lr.Posterior(model, guide, data, device="cpu")


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(-1.0), b.nan_to_num(-1.0)) and torch.equal(a.isnan(), b.isnan())


@pytest.mark.parametrize(
    ("observation", "latent"),
    [(name, "innovations with initial") for name in OBSERVATIONS] + [("gaussian", name) for name in LATENTS],
)
def test_nothing_changed_gives_the_rates_to_the_last_digit(observation: str, latent: str) -> None:
    posterior = make_posterior(observation, latent)
    found = posterior.counterfactual(num_samples=SAMPLES, from_step=2)
    for name, head in posterior.model.observations.items():
        if head.head.per_step:
            assert same(found.rates[name], posterior.rates(name, SAMPLES))
    states = posterior.latents(SAMPLES)["states"]
    # of a recurrent normal latent this is the site's z alone, where readouts see the network's output beside it
    assert same(found.states[..., : states.shape[-1]], states)


def test_chunks_keep_their_sequences() -> None:
    posterior = make_posterior("poisson", "deterministic")
    change = {"drive": torch.randn(3, 6, 1).double()}
    whole = posterior.counterfactual(change, num_samples=2)
    pieces = lr.Posterior(posterior.model, posterior.guide, posterior.data, device="cpu", max_elements=1)
    found = pieces.counterfactual(change, num_samples=2)
    torch.testing.assert_close(found.rates["y"], whole.rates["y"], equal_nan=True)


def test_a_linear_model_adds_what_the_inputs_add() -> None:
    """z'_t - z_t = sum_s A^(t-s) B (u'_s - u_s): the noise of every step is the inferred one."""
    problem = random_problem(3, [8, 5], inputs=1, hide=0.2)
    data = as_data(problem)
    posterior = lr.Posterior(as_model(problem, data), exact_guide(problem), data, device="cpu")
    other = np.random.default_rng(0).normal(size=(2, 8, 1))
    found = posterior.counterfactual({"u": other}, from_step=3, num_samples=SAMPLES).rates["y"]
    before = posterior.rates("y", SAMPLES)
    model = problem.model
    for row, r in enumerate(problem.recordings):
        added = np.zeros((len(r.y), 3))
        state = np.zeros(2)
        for t in range(len(r.y)):
            state = model.A @ state + (model.B @ (other[row, t] - r.u[t]) if t >= 3 else 0.0)
            added[t] = model.C @ state
        difference = (found - before)[:, row, : len(r.y)].numpy()
        np.testing.assert_allclose(difference, np.broadcast_to(added, difference.shape), rtol=0, atol=1e-9)
        assert np.abs(added[3:]).max() > 0.1
        assert not difference[:, :3].any()


@pytest.mark.parametrize("latent", ["markov normal, state scale", "recurrent normal"])
def test_every_step_is_as_surprising_as_it_was(latent: str) -> None:
    """(z_t - loc_t) / scale_t, loc and scale from the past of each rollout, is the same in both."""
    posterior = make_posterior("gaussian", latent)
    model, data = posterior.model, posterior.data
    changed = torch.randn(3, 6, 1).double()
    states = posterior.latents(SAMPLES)
    found = posterior.counterfactual({"drive": changed}, num_samples=SAMPLES).states

    def surprise(z: Tensor, start: Tensor, drive: Tensor) -> Tensor:
        with torch.no_grad():
            if latent.startswith("markov"):
                past = torch.cat([start.unsqueeze(-2), z[..., :-1, :]], -2)
                loc = model.transition.step(past, drive.expand(*past.shape[:-1], -1))
                return (z - loc) / model.latent.noise_scale(loc)
            past = torch.nn.functional.pad(z, (0, 0, 1, 0))[..., :-1, :]
            inputs = torch.cat([drive.expand(*past.shape[:-1], -1), past], -1)
            loc, scale = model.latent.prior(model.transition.scan(inputs, model.latent.start.map(start))[0])
            return (z - loc) / scale

    drives = [model.transition_inputs(data), model.transition_inputs(data)]
    drives[1] = torch.cat([changed, drives[0][..., 1:]], -1)
    old, new = states["states"], found
    if latent.startswith("recurrent"):
        new = new[..., :2]
        old = states["states"][..., :2]
    before, after = (surprise(z, states["initial"], d) for z, d in zip((old, new), drives, strict=True))
    inside = data.valid.expand(SAMPLES, -1, -1)
    torch.testing.assert_close(after[inside], before[inside], rtol=0, atol=1e-9)
    assert (new - old)[inside].abs().max() > 0.01


def test_a_closed_update_gate_keeps_the_state_from_its_step_on() -> None:
    posterior = make_posterior("poisson", "innovations with initial")
    before = posterior.latents(SAMPLES)["states"]
    found = posterior.counterfactual(clamp={"update": 0.0}, from_step=2, num_samples=SAMPLES).states
    torch.testing.assert_close(found[:, :, :2], before[:, :, :2], equal_nan=True, rtol=0, atol=1e-12)
    held = found[:, :, 1:2].expand_as(found[:, :, 2:])
    assert torch.equal(found[:, :, 2:][~found[:, :, 2:].isnan()], held[~found[:, :, 2:].isnan()])
    assert (before[:, 0, 2:] - found[:, 0, 2:]).abs().max() > 0.01
    halved = posterior.counterfactual(clamp={"update": lambda g: 0.5 * g}, num_samples=SAMPLES).states
    assert not torch.equal(halved[:, 0], before[:, 0])
    again = posterior.counterfactual(clamp={"update": lambda g: g}, from_step=2, num_samples=SAMPLES).states
    torch.testing.assert_close(again, before, equal_nan=True, rtol=0, atol=1e-12)


@pytest.mark.parametrize("latent", ["markov normal", "recurrent normal", "innovations"])
def test_gates_of_every_latent_are_held(latent: str) -> None:
    """With the reset gate as it would be anyway nothing moves; with it shut something does, from its step on."""
    posterior = make_posterior("gaussian", latent)
    before = posterior.latents(SAMPLES)["states"]
    size = before.shape[-1]
    same_gate = posterior.counterfactual(clamp={"reset": lambda g: g}, from_step=2, num_samples=SAMPLES).states
    same_gate = same_gate[..., :size]
    torch.testing.assert_close(same_gate, before, equal_nan=True, rtol=0, atol=1e-12)
    shut = posterior.counterfactual(clamp={"reset": 0.0}, from_step=2, num_samples=SAMPLES).states[..., :size]
    torch.testing.assert_close(shut[:, :, :2], before[:, :, :2], rtol=0, atol=1e-12)
    assert (shut[:, 0, 2:] - before[:, 0, 2:]).abs().max() > 1e-3


def test_a_gate_of_a_stream_is_held_by_its_name() -> None:
    posterior = make_posterior("poisson", "innovations", "streams")
    found = posterior.counterfactual(clamp={"first.update": 0.0}, num_samples=SAMPLES).states
    before = posterior.latents(SAMPLES)["states"]
    first, second = (posterior.model.transition.parts[name] for name in ("first", "second"))
    torch.testing.assert_close(found[..., second], before[..., second], equal_nan=True, rtol=0, atol=1e-12)
    assert (found[:, 0, 1:, first] == found[:, 0, :-1, first]).all()


def test_a_planted_gain_acts_as_planted() -> None:
    data = make_data(OBSERVATIONS["poisson gain, ungated"])
    model, guide = make_model("gru", "innovations", "poisson gain, ungated", data)
    model.inputs = []
    beta = torch.tensor([[0.8, -0.3], [0.0, 0.5]], dtype=torch.float64)
    with torch.no_grad():
        model.observations["y"].gain.beta.copy_(beta)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    doubled = {"stimulus": 2 * data.covariates["stimulus"]}
    found = posterior.counterfactual(doubled, from_step=1, num_samples=SAMPLES).rates["y"]
    ratio = (found / posterior.rates("y", SAMPLES)).log()
    expected = data.covariates["stimulus"] @ beta.T
    expected[:, 0] = 0.0
    inside = data.valid.expand(SAMPLES, -1, -1)
    torch.testing.assert_close(ratio[inside], expected.expand_as(ratio)[inside], rtol=0, atol=1e-9)


def test_free_feedback_starts_at_the_intervention() -> None:
    posterior = make_posterior("poisson history", "innovations")
    found = posterior.counterfactual(from_step=4, feedback="free", num_samples=200).rates["y"]
    recorded = posterior.rates("y", 200)
    # the step of the intervention still has the recorded past
    torch.testing.assert_close(found[:, :, :5], recorded[:, :, :5], equal_nan=True, rtol=0, atol=1e-12)
    assert not torch.equal(found[:, 0, 5:], recorded[:, 0, 5:])


ERRORS = {
    "unknown covariate": ({"covariates": {"odd": 1.0}}, "'odd'"),
    "shape": ({"covariates": {"drive": np.zeros((3, 5, 1))}}, r"covariates\['drive'\]: .*\(3, 6, 1\).*\(3, 5, 1\)"),
    "nan": ({"covariates": {"drive": np.nan}}, r"covariates\['drive'\]: expected numbers"),
    "gate": ({"clamp": {"forget": 1.0}}, r"no gate 'forget'; it has \['candidate', 'reset', 'update'\]"),
    "step": ({"from_step": 6}, "0 to 5; found 6"),
    "feedback": ({"feedback": "none"}, "one of 'recorded', 'free'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_done_is_named(case: str) -> None:
    arguments, match = ERRORS[case]
    with pytest.raises(ValueError, match=match):
        make_posterior("poisson", "innovations").counterfactual(num_samples=2, **arguments)


def test_a_switch_that_is_summed_out_has_no_path_to_keep() -> None:
    data = make_data(OBSERVATIONS["gaussian"])
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Discrete(2), observations={"y": lr.Gaussian()}
    ).double()
    with pytest.raises(ValueError, match="use RelaxedDiscrete"):
        lr.Posterior(model, lr.Guide(model), data).counterfactual(num_samples=2)
