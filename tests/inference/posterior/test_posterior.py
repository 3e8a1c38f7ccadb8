"""What a posterior returns: shapes, units, the same numbers twice, and nothing that was not to be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from tests.registry import LATENTS, LENGTHS, OBSERVATIONS, default_transition, make_data, make_model

# what is computed is held to oracles that count steps, whatever time lies between them
pytestmark = pytest.mark.filterwarnings("ignore:LatentRNN. the data have irregular times")
SAMPLES = 5
every_observation = pytest.mark.parametrize("observation", OBSERVATIONS)


def make_posterior(
    observation: str, latent: str = "innovations with initial", *, lengths: tuple[int, ...] = LENGTHS, **options: Any
) -> lr.Posterior:
    data = make_data(OBSERVATIONS[observation], lengths)
    model, guide = make_model(default_transition(observation), latent, observation, data, **options)
    return lr.Posterior(model, guide, data, device="cpu")


def in_chunks(posterior: lr.Posterior, max_elements: int = 1) -> lr.Posterior:
    """The same posterior in parts, by default as small as there are."""
    return lr.Posterior(posterior.model, posterior.guide, posterior.data, device="cpu", max_elements=max_elements)


def methods(posterior: lr.Posterior) -> dict[str, Tensor]:
    """Everything that a posterior returns, by name."""
    found: dict[str, Tensor] = {f"latents {k}": v for k, v in posterior.latents(SAMPLES).items()}
    found |= {f"parameters {k}": v for k, v in posterior.parameters(SAMPLES).items()}
    for name, head in posterior.model.observations.items():
        found[f"rates {name}"] = posterior.rates(name, SAMPLES)
        found[f"mean {name}"] = posterior.mean(name, SAMPLES)
        if head.gain is not None:
            found[f"gain {name}"], found[f"gate {name}"] = posterior.gain(name, SAMPLES)
    for kind, values in (
        ("predictive", posterior.predictive(SAMPLES)),
        ("predictive of the prior", posterior.predictive(SAMPLES, latents="prior")),
        ("prior predictive", posterior.prior_predictive(SAMPLES)),
        ("recorded feedback", posterior.predictive(SAMPLES, feedback="recorded")),
    ):
        found |= {f"{kind} {name}": value for name, value in values.items()}
    found["log likelihood"] = posterior.log_likelihood(4, 3)
    for kind in ("elbo", "iwae"):
        evidence = posterior.evidence(kind, 4)
        found |= {f"{kind} values": evidence.values, f"{kind} error": evidence.standard_error}
    return found


def ended(posterior: lr.Posterior, head: str) -> Tensor:
    """Where a head's frames lie in padding, (sequence, time)."""
    data = posterior.data
    frames = torch.arange(data.observations[head].shape[1])
    return frames >= (data.lengths // data.spec.heads[head].clock)[:, None]


# -- shapes and padding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", LATENTS)
def test_latents(latent: str) -> None:
    posterior = make_posterior("poisson", latent)
    found = posterior.latents(SAMPLES)
    data, sites = posterior.data, posterior.model.latent_sites()
    reported = {"switch"} if "discrete" in latent else set()  # weights of the regimes
    assert set(found) == {"states"} | {site.name for site in sites} | reported
    size = {site.name: site.dim for site in sites}.get("states", posterior.model.transition.hidden_size)
    assert found["states"].shape == (SAMPLES, 3, 6, size)
    for site in sites:
        event = (6, site.dim) if site.along_time else (site.dim,)
        assert found[site.name].shape == (SAMPLES, 3, *event)
    for name, value in found.items():
        if value.dim() == 4:
            assert torch.equal(value.isnan().any(0).any(-1), ~data.valid), name
            assert torch.equal(value.isnan().all(0).all(-1), ~data.valid), name
        else:
            assert torch.isfinite(value).all(), name


@every_observation
def test_shapes_padding_and_support(observation: str) -> None:
    posterior = make_posterior(observation)
    found = methods(posterior)
    for name, head in posterior.model.observations.items():
        shape = posterior.data.observations[name].shape
        classes = (head.classes,) if isinstance(head, lr.Categorical) else ()
        assert found[f"rates {name}"].shape == (SAMPLES, *shape, *classes)
        assert found[f"mean {name}"].shape == (*shape, *classes)
        torch.testing.assert_close(found[f"rates {name}"].mean(0), found[f"mean {name}"], equal_nan=True)
        for kind in ("predictive", "predictive of the prior", "prior predictive", "recorded feedback"):
            value = found[f"{kind} {name}"]
            assert value.shape == (SAMPLES, *shape)
            if head.head.per_step:
                padding = ended(posterior, name)
                assert torch.equal(value.isnan(), padding[..., None].expand_as(value))
                head.check(name, value.nan_to_num(1.0), ~value.isnan())  # padding is no replicate
            else:
                assert torch.isfinite(value).all()
        if head.head.per_step:
            assert torch.equal(found[f"mean {name}"].flatten(2).isnan().any(-1), ended(posterior, name))
    for name, (_, start) in posterior.model.parameter_sites().items():
        assert found[f"parameters {name}"].shape == (SAMPLES, *start.shape)
    draws = 3 if posterior.model.parameter_sites() else 1
    assert found["log likelihood"].shape == (draws, 3)
    for kind in ("elbo", "iwae"):
        assert found[f"{kind} values"].shape == found[f"{kind} error"].shape == (3,)
        assert torch.isfinite(found[f"{kind} values"]).all()
        assert (found[f"{kind} error"] > 0).all()


@pytest.mark.parametrize("gated", ["poisson gain", "poisson gain, prior", "poisson gain, ungated"])
def test_gain(gated: str) -> None:
    posterior = make_posterior(gated)
    beta, gate = posterior.gain("y", SAMPLES)
    reader = posterior.model.observations["y"].gain.reader
    assert beta.shape == (SAMPLES, 2, reader.size)
    assert gate.shape == (SAMPLES, 3, 6, reader.size)
    torch.testing.assert_close(gate.nan_to_num(0.0).amax((1, 2)), torch.ones(SAMPLES, reader.size, dtype=gate.dtype))
    assert torch.equal(gate.isnan().any(-1), (~posterior.data.masks["y"].any(-1)).expand(SAMPLES, 3, 6))
    assert gate.nan_to_num(0.5).min() >= 0
    if gated == "poisson gain, ungated":
        assert (gate[~gate.isnan()] == 1.0).all()
        torch.testing.assert_close(beta[0], posterior.model.observations["y"].gain.beta.detach())


def test_exact_evidence_has_no_error() -> None:
    posterior = make_posterior("poisson history", "deterministic")
    for kind in ("elbo", "iwae"):
        evidence = posterior.evidence(kind)
        assert evidence.num_particles == 1
        assert not evidence.standard_error.any()
        assert evidence.total_standard_error == 0.0
    torch.testing.assert_close(posterior.log_likelihood()[0], evidence.values)


def test_evidence_is_ordered_and_narrows() -> None:
    posterior = make_posterior("poisson")
    elbo, iwae = (posterior.evidence(kind, 2000) for kind in ("elbo", "iwae"))
    assert (elbo.values < iwae.values + 6 * iwae.standard_error).all()
    few = posterior.evidence("elbo", 100)
    assert few.total_standard_error > 2 * elbo.total_standard_error
    assert abs(few.total - elbo.total) < 6 * few.total_standard_error


# -- the same numbers twice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("observation", ["several", "poisson gain, prior", "poisson history", "gaussian priors"])
def test_calling_twice_gives_the_same(observation: str) -> None:
    posterior = make_posterior(observation)
    state = torch.random.get_rng_state()
    first, second = methods(posterior), methods(posterior)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0.0, atol=0.0, equal_nan=True)
    other = lr.Posterior(posterior.model, posterior.guide, posterior.data, seed=1, device="cpu")
    assert not torch.equal(other.latents(SAMPLES)["initial"], posterior.latents(SAMPLES)["initial"])


def test_a_posterior_is_not_changed_by_what_happens_to_its_model() -> None:
    posterior = make_posterior("poisson")
    data = posterior.data
    model, guide = make_model("gru", "innovations", "poisson", data)
    kept = lr.Posterior(model, guide, data, device="cpu")
    before = kept.mean("y", SAMPLES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(kept.mean("y", SAMPLES).nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize(
    "observation", ["several", "poisson gain, prior", "gaussian priors", "gaussian population", "categorical history"]
)
def test_chunks_change_nothing_but_the_draws_of_latents(observation: str) -> None:
    posterior = make_posterior(observation, lengths=(4, 7, 3, 6, 2))
    exact = make_posterior(observation, "deterministic", lengths=(4, 7, 3, 6, 2))
    whole, exactly = methods(posterior), methods(exact)
    assert len({chunk.indices.rows.start for chunk in in_chunks(posterior).latent_parts(SAMPLES)}) == 5
    pieces, exact_pieces = methods(in_chunks(posterior)), methods(in_chunks(exact))
    for name, value in whole.items():
        assert pieces[name].shape == value.shape, name
        assert torch.equal(pieces[name].isnan(), value.isnan()), name
        if name.startswith("parameters"):
            assert torch.equal(pieces[name], value)
    for name, value in exactly.items():
        if name.split()[0] in ("latents", "parameters", "rates", "mean", "gate", "gain", "log"):
            torch.testing.assert_close(exact_pieces[name], value, equal_nan=True, rtol=0.0, atol=1e-9)


def test_chunks_have_the_same_distribution() -> None:
    """Means over 2000 draws in one chunk and in fifty agree to 6 standard errors (budget 1e-7, 14 entries)."""
    posterior = make_posterior("poisson")
    whole = posterior.latents(2000)["innovations"]
    forty = 40 * max(LENGTHS) * posterior.model.transition.state_size  # draws of one sequence
    pieces = in_chunks(posterior, forty).latents(2000)["innovations"]
    error = ((whole.var(0) + pieces.var(0)) / 2000).sqrt()
    assert ((whole.mean(0) - pieces.mean(0)).abs() / error).nan_to_num().max() < 6


# -- units ---------------------------------------------------------------------------------------------------------


def test_standardised_heads_come_back_in_the_users_units() -> None:
    rng = np.random.default_rng(0)
    drive = rng.normal(size=(20, 10, 1))
    values = 1000.0 + 50.0 * (0.9 * drive + 0.4 * rng.normal(size=(20, 10, 2)))
    data = lr.SequenceData.from_arrays({"y": values}, {"drive": drive}, standardise=["y", "drive"])
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(2), latent=lr.Innovations(1), observations={"y": lr.Gaussian()}
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4))
    settings = {"steps": 150, "optimizer": lr.Adam(learning_rate=0.02), "reporting": lr.Reporting(progress=False)}
    posterior = lr.fit(model, guide, data, **settings).posterior(data)
    mean, replicates = posterior.mean("y", 20), posterior.predictive(20)["y"]
    assert abs(float(mean.mean()) - 1000.0) < 10.0
    assert float(lr.r2(mean, data.observations["y"])) > 0.5
    assert abs(float(replicates.mean()) - 1000.0) < 10.0
    assert 35.0 < float(replicates.std()) < 65.0
    ahead = posterior.one_step_ahead("y", 32, 2)
    assert abs(float(ahead.mean.mean()) - 1000.0) < 15.0
    # a density in user units: the same data in standard units are denser by the scale of every entry
    location, scale = data.spec.heads["y"].location, data.spec.heads["y"].scale
    plain = lr.SequenceData.from_arrays(
        {"y": (values - np.array(location)) / np.array(scale)}, {"drive": drive}, standardise=["drive"]
    )
    other = lr.LatentRNN(
        plain.spec, transition=lr.Linear(2), latent=lr.Innovations(1), observations={"y": lr.Gaussian()}
    )
    rival = lr.fit(other, lr.Guide(other, encoder=lr.RNNEncoder(4)), plain, **settings).posterior(plain)
    jacobian = 20 * 10 * np.log(scale).sum()
    assert posterior.evidence().total == pytest.approx(rival.evidence().total - jacobian, abs=2.0)


# -- what must not be seen -----------------------------------------------------------------------------------------


def co_smoothing() -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {
            "heldin": rng.poisson(1.0, (4, 8, 3)),
            "heldout": rng.poisson(1.0, (4, 8, 2)),
            "label": rng.integers(0, 2, (4, 1)),
        },
        per_sequence=["label"],
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(4),
        latent=lr.Innovations(2, initial=3),
        observations={"heldin": lr.Poisson(), "heldout": lr.Poisson(), "label": lr.Bernoulli()},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(4, observes=["heldin"])), data


def test_held_out_values_do_not_reach_their_prediction() -> None:
    model, guide, data = co_smoothing()
    other = data.with_observations(
        {"heldout": data.observations["heldout"] + 5, "label": 1 - data.observations["label"]}
    )
    before, after = (lr.Posterior(model, guide, d, device="cpu") for d in (data, other))
    for head in model.observations:
        assert torch.equal(before.mean(head, SAMPLES), after.mean(head, SAMPLES))
    assert torch.equal(before.latents(SAMPLES)["states"], after.latents(SAMPLES)["states"])
    shown = data.with_observations({"heldin": data.observations["heldin"] + 5})
    assert not torch.equal(lr.Posterior(model, guide, shown).mean("heldout", SAMPLES), before.mean("heldout", SAMPLES))


def test_a_causal_encoder_does_not_see_the_future() -> None:
    posterior = make_posterior("poisson", "innovations", direction="causal", lengths=(6, 6))
    data = posterior.data
    later = (torch.arange(6) >= 4)[:, None].expand_as(data.observations["y"])
    other = data.with_observations({"y": torch.where(later, data.observations["y"] + 4, data.observations["y"])})
    changed = lr.Posterior(posterior.model, posterior.guide, other, device="cpu")
    before, after = posterior.latents(SAMPLES)["states"], changed.latents(SAMPLES)["states"]
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.equal(before[:, :, 4:], after[:, :, 4:])


def test_missing_entries_need_an_encoder_that_is_told() -> None:
    data = make_data(OBSERVATIONS["poisson"])
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations={"y": lr.Poisson()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    model.double(), guide.double()
    lr.Posterior(model, guide, data).latents(2)
    hidden = data.mask_entries("y", torch.rand(data.masks["y"].shape) < 0.3)
    with pytest.raises(ValueError, match=r"entries are missing.*mask_input=True"):
        lr.Posterior(model, guide, hidden).latents(2)
    told = lr.Guide(model, encoder=lr.RNNEncoder(3, mask_input=True)).double()
    lr.Posterior(model, told, hidden).latents(2)


# -- heads with another clock, end to end --------------------------------------------------------------------------


def end_to_end(observation: str) -> lr.Posterior:
    """Fit, and make the posterior of sequences that the fit has not seen."""
    data = make_data(OBSERVATIONS[observation], (6, 8, 5, 7, 8, 6), dtype=torch.float32)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.InitialState(2),
        observations=OBSERVATIONS[observation].observations(),
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    result = lr.fit(
        model,
        guide,
        data[:3],
        data[3:5],
        steps=5,
        batch_size=2,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    return result.posterior(data[3:], device="cpu")


@pytest.mark.parametrize(
    "observation", ["per sequence", "clocked", "several", "multinomial totals", "gaussian irregular"]
)
def test_end_to_end(observation: str) -> None:
    posterior = end_to_end(observation)
    for name, value in methods(posterior).items():
        assert torch.isfinite(value).any(), name
    for name, head in posterior.model.observations.items():
        if not head.head.per_step:
            with pytest.raises(ValueError, match="is a per-sequence head"):
                posterior.one_step_ahead(name)
            continue
        ahead = posterior.one_step_ahead(name, 16, 2)
        assert ahead.mean.shape == posterior.data.observations[name].shape
        assert torch.isfinite(ahead.log_prob).all()
        assert not ahead.log_prob[~ahead.scored].any()
    if observation == "per sequence":
        probabilities = posterior.mean("y", SAMPLES)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 1))
    if observation == "multinomial totals":
        replicates = posterior.predictive(SAMPLES)["y"].sum(-1)
        expected = posterior.data.totals["y"].expand_as(replicates)
        assert torch.equal(replicates.isnan(), ended(posterior, "y").expand_as(replicates))
        assert torch.equal(replicates[~replicates.isnan()], expected[~replicates.isnan()])
