"""What must not change a result: padding, order, batches, what is masked. Latents are replayed, in float64, to 1e-9."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.terms import elbo_terms, log_weights
from latentrnn.models.observations import Categorical
from tests.registry import (
    LENGTHS,
    OBSERVATIONS,
    Fixed,
    Heads,
    default_transition,
    fits_together,
    fixed_latents,
    make_data,
    make_model,
    rows,
)

EXACT = {"rtol": 1e-12, "atol": 1e-9}
DIRECTIONS = ("causal", "backward", "bidirectional")

every_observation = pytest.mark.parametrize("observation", OBSERVATIONS)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)


def weights(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, values: dict[str, Tensor]) -> Tensor:
    """log p(y, z) - log q(z | y) of every sequence, for given latents."""
    with Fixed(values):
        return log_weights(model, guide, data, 1)[0]


def local_elbo(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, values: dict[str, Tensor]) -> Tensor:
    """The ELBO with closed-form divergences, without the term of parameters, which does not belong to a sequence."""
    with Fixed(values):
        terms = elbo_terms(model, guide, data)
    return terms._replace(kl={name: kl for name, kl in terms.kl.items() if name != "parameters"}).elbo()


def spoil_padding(data: lr.SequenceData) -> lr.SequenceData:
    """Other values, inside every family's support, wherever a sequence has ended."""
    observations, covariates = dict(data.observations), {}
    for name, values in observations.items():
        spec = data.spec.heads[name]
        if spec.per_step:
            ended = torch.arange(values.shape[1]) >= (data.lengths // spec.clock)[:, None]
            observations[name] = torch.where(ended[..., None], 1.0, values)
    for name, values in data.covariates.items():
        covariates[name] = torch.where(data.valid[..., None], values, 17.0)
    return dataclasses.replace(data, observations=observations, covariates=covariates)


def check_padding_order_and_batches(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData) -> None:
    """Densities of given latents see neither padding nor order nor batch."""
    values = fixed_latents(model, data)
    expected = weights(model, guide, data, values)
    assert expected.shape == (len(data),)
    assert torch.isfinite(expected).all()

    spoilt = spoil_padding(data)
    torch.testing.assert_close(weights(model, guide, spoilt, values), expected, **EXACT)

    order = [2, 0, 1]
    permuted = weights(model, guide, data[order], rows(model, values, order, data.num_steps))
    torch.testing.assert_close(permuted, expected[order], **EXACT)

    for chosen in ([0], [1], [2], [1, 2]):  # each sequence alone has no padding at all
        batch = data.batch(torch.tensor(chosen))
        part = weights(model, guide, batch, rows(model, values, chosen, batch.num_steps))
        torch.testing.assert_close(part, expected[chosen], **EXACT)


def check_closed_forms(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData) -> None:
    """Divergences in closed form do not see padding."""
    values, alone = fixed_latents(model, data), []
    for n in range(len(data)):
        one = data[n]
        alone.append(local_elbo(model, guide, one, rows(model, values, [n], one.num_steps)))
    torch.testing.assert_close(local_elbo(model, guide, data, values), sum(alone), **EXACT)


@every_direction
@every_observation
def test_encoders_do_not_see_padding(direction: str, observation: str) -> None:
    data = make_data(OBSERVATIONS[observation])
    parts = default_transition(observation), "innovations with initial", observation
    _, guide = make_model(*parts, data, direction=direction)
    expected = guide.encoder(spoil_padding(data))
    for n, length in enumerate(LENGTHS):
        alone = guide.encoder(data[n])
        torch.testing.assert_close(alone.steps[0, :length], expected.steps[n, :length], **EXACT)
        torch.testing.assert_close(alone.summary[0], expected.summary[n], **EXACT)


def check_one_step(model: lr.LatentRNN, guide: lr.Guide, heads: Heads) -> None:
    """A sequence of one step, or of one frame of the slowest clock, is scored, and as the beginning of a longer one."""
    steps = 2 if "clocks" in heads.options else 1
    data = make_data(heads, (steps, steps))
    values = fixed_latents(model, data)
    expected = weights(model, guide, data, values)
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(weights(model, guide, data[1], rows(model, values, [1], steps))[0], expected[1], **EXACT)
    # it is also the first step of something longer
    longer = make_data(heads, (steps, 5, 4))
    values = fixed_latents(model, longer)
    found = weights(model, guide, longer, values)[0]
    alone = weights(model, guide, longer[0], rows(model, values, [0], steps))[0]
    torch.testing.assert_close(found, alone, **EXACT)


def other_values(data: lr.SequenceData, head: str, where: Tensor) -> dict[str, Tensor]:
    """Other values at `where`, inside every family's support."""
    values = data.observations[head]
    return {head: torch.where(where, torch.where(values == 1.0, 0.0, 1.0), values)}


def hide(data: lr.SequenceData, head: str, what: str) -> tuple[lr.SequenceData, Tensor]:
    where = torch.zeros_like(data.masks[head])
    where[..., 0 if what == "channel" else slice(None)] = True
    return data.mask_entries(head, where), where


def hiding_cases() -> list[tuple[str, str, str, str]]:
    cases = []
    latents = ("deterministic", "innovations with initial", "markov normal")
    for latent, (observation, heads) in itertools.product(latents, OBSERVATIONS.items()):
        if fits_together(default_transition(observation), latent, observation):
            for head, values in heads.draw.items():
                cases.append((latent, observation, head, "head"))
                if values(np.random.default_rng(0), 1).shape[1] > 1:
                    cases.append((latent, observation, head, "channel"))
    return cases


@pytest.mark.parametrize(("latent", "observation", "head", "what"), hiding_cases())
def test_masked_values_have_no_effect_and_no_gradient(latent: str, observation: str, head: str, what: str) -> None:
    data, where = hide(make_data(OBSERVATIONS[observation]), head, what)
    model, guide = make_model(default_transition(observation), latent, observation, data)
    values = fixed_latents(model, data)
    observed = data.observations[head].clone().requires_grad_()
    expected = weights(model, guide, data.with_observations({head: observed}), values)
    assert torch.isfinite(expected).all()
    if expected.requires_grad:
        (gradient,) = torch.autograd.grad(expected.sum(), observed, allow_unused=True)
        if gradient is not None:
            assert torch.isfinite(gradient).all()
            assert not gradient[where].any()
            if what == "channel" and not isinstance(model.observations[head], Categorical):
                assert gradient[data.masks[head]].any()  # what is observed does count
    changed = data.with_observations(other_values(data, head, where))
    torch.testing.assert_close(weights(model, guide, changed, values), expected, **EXACT)
    if what == "head" and list(model.observations) == [head]:
        with Fixed(values):
            assert float(elbo_terms(model, guide, data).log_likelihood[head].detach()) == 0.0


@pytest.mark.parametrize("family", ["poisson", "multinomial totals", "gaussian full"])
def test_masking_a_channel_is_leaving_it_out(family: str) -> None:
    arrays = make_data(OBSERVATIONS["poisson"]).observations["y"]
    readout, root = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    covariance = root @ root.mT + torch.eye(3)
    scores = []
    for kept in ([0, 1, 2], [1, 2]):
        data = lr.SequenceData.from_arrays(
            {"y": [arrays[n, :length, kept] for n, length in enumerate(LENGTHS)]}, dtype=torch.float64
        )
        data = data if len(kept) == 2 else hide(data, "y", "channel")[0]
        head = OBSERVATIONS[family].observations()["y"]
        model = lr.LatentRNN(
            data.spec, transition=lr.GRU(4), latent=lr.Deterministic(), observations={"y": head}
        ).double()
        for parameter in model.transition.parameters():
            torch.nn.init.constant_(parameter, 0.3)
        head = model.observations["y"]
        with torch.no_grad():
            head.readout.weight.copy_(readout[kept])
        if family == "gaussian full":
            head.set_noise_covariance(covariance[kept][:, kept])
        scores.append(weights(model, lr.Guide(model), data, {}))
    torch.testing.assert_close(scores[0], scores[1], **EXACT)


@pytest.mark.parametrize(
    "observation",
    [
        "poisson history",
        "poisson history into readout",
        "gaussian history",
        "categorical history",
        "attention, fed back",
    ],
)
def test_windows_with_all_of_their_past_score_what_the_whole_scores(observation: str) -> None:
    data = make_data(OBSERVATIONS[observation], (9, 7))
    model, guide = make_model("lstm", "deterministic", observation, data)
    whole = weights(model, guide, data, {}).sum()
    informed = weights(model, guide, data.windows(3, context=9), {}).sum()
    torch.testing.assert_close(informed, whole, **EXACT)
    blind = weights(model, guide, data.windows(3), {}).sum()
    assert abs(float((blind - whole).detach())) > 1e-6


def check_context(model: lr.LatentRNN, guide: lr.Guide, heads: Heads) -> None:
    """The context of windows is not scored."""
    data = make_data(heads, (6, 4)).windows(2, context=2)
    values = fixed_latents(model, data)
    with Fixed(values):
        expected = elbo_terms(model, guide, data).log_likelihood
    assert data.host_context.any()
    for name in data.observations:
        clock = data.spec.heads[name].clock
        steps = torch.arange(data.observations[name].shape[1]) * clock
        context = (steps < data.context[:, None])[..., None].expand_as(data.masks[name])
        hidden = data.mask_entries(name, context)
        with Fixed(values):
            found = elbo_terms(model, guide, hidden).log_likelihood[name]
        if model.observations[name].feedback is None:  # given the latents, the context does not matter at all
            torch.testing.assert_close(found, expected[name], **EXACT)
        else:  # it is in the history
            assert abs(float((found - expected[name]).detach())) > 1e-9


def test_context_informs_the_encoder() -> None:
    data = make_data(OBSERVATIONS["poisson"], (6, 4)).windows(2, context=2)
    _, guide = make_model("gru", "innovations", "poisson", data, direction="causal")
    context = (torch.arange(data.num_steps) < data.context[:, None])[..., None].expand_as(data.masks["y"])
    before = guide.encoder(data).steps
    after = guide.encoder(data.with_observations(other_values(data, "y", context))).steps
    scored = data.valid & ~context[..., 0] & (data.context > 0)[:, None]
    assert (before - after)[scored].abs().amax(-1).min() > 0
