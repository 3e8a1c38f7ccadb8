"""Many streams in one call are as many filters, each with the recording of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.online.repeated import RepeatedStep
from tests.inference.online.streamed import LENGTH, STREAMED
from tests.models.test_latents_linear_gaussian import make, posterior_of
from tests.registry import LATENTS, OBSERVATIONS, default_transition, make_data, make_model, shake

PARTICLES = 9
STREAMS = 3


@contextmanager
def numbers_for_all(seed: int = 0) -> Iterator[None]:
    """Every stream draws the same random numbers, as those of a filter of its own: what is drawn has one stream."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.distributions.normal._standard_normal
    functions = {name: getattr(torch, name) for name in ("rand", "randn_like")}

    def one_stream(shape: Any) -> tuple[int, ...]:
        return (*shape[:2], 1, *shape[3:])

    def standard_normal(shape: Any, dtype: torch.dtype, device: Any) -> Tensor:
        assert len(shape) == 4, shape
        return torch.randn(one_stream(shape), generator=generator, dtype=dtype).expand(shape)

    def rand(*shape: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        assert len(shape) == 3, shape
        return functions["rand"](one_stream(shape), generator=generator, dtype=dtype).expand(shape)

    patch = pytest.MonkeyPatch()
    try:
        for module in (torch.distributions.normal, torch.distributions.multivariate_normal):
            if hasattr(module, "_standard_normal"):
                patch.setattr(module, "_standard_normal", standard_normal)
        patch.setattr(torch, "rand", rand)
        yield
    finally:
        patch.undo()
    assert torch.distributions.normal._standard_normal is normal


def model_of(observation: str, latent: str) -> tuple[lr.LatentRNN, lr.Guide, lr.SequenceData]:
    data = make_data(OBSERVATIONS[observation], (LENGTH,) * STREAMS)
    model, _ = make_model(default_transition(observation), latent, observation, data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(4, direction="causal", mask_input=True), family=lr.MeanField())
    guide = guide.double()
    guide.initialise(model, data)
    shake(guide)
    return model, guide, data


def plain(online: lr.OnlineFilter) -> lr.OnlineFilter:
    """Return the filter, which repeats nothing: to record a step would take more of the numbers for all."""
    if not online.exact:
        online.way.repeated = RepeatedStep(repeats=False)
    return online


def agree(make_filter: Callable[[Any], lr.OnlineFilter], data: lr.SequenceData) -> None:
    """A step of all is a step of each, to the last digits."""
    online = plain(make_filter(len(data)))
    with numbers_for_all():
        together = list(online.follow(data))
    for place in range(len(data)):
        online = plain(make_filter(None))
        with numbers_for_all():
            alone = list(online.follow(data[place : place + 1]))
        for whole, one in zip(together, alone, strict=True):
            found = whole[place]
            for name in ("values", "states", "weights", "spread", "draw_weights"):
                own, other = getattr(found, name), getattr(one, name)
                assert (own is None) == (other is None), name
                if own is not None:
                    torch.testing.assert_close(own, other, rtol=0, atol=1e-9)
            for name in ("rates", "predicted"):
                torch.testing.assert_close(getattr(found, name), getattr(one, name), rtol=0, atol=1e-9)
            assert (found.log_prob is None) == (one.log_prob is None)
            if one.log_prob is not None:
                assert found.log_prob == pytest.approx(one.log_prob, abs=1e-9)
                for head in one.predicted:
                    torch.testing.assert_close(
                        found.log_density(head), one.log_density(head), rtol=0, atol=1e-9, equal_nan=True
                    )
            assert (found.effective_sample_size is None) == (one.effective_sample_size is None)
    # negative control: the streams differ
    assert not torch.equal(together[-1].states[0], together[-1].states[1])


@pytest.mark.parametrize("observation", STREAMED)
def test_particles_of_every_head(observation: str) -> None:
    model, guide, data = model_of(observation, "innovations with initial")
    posterior = lr.Posterior(model, guide, data, device="cpu")
    agree(lambda streams: lr.OnlineFilter(posterior, num_particles=PARTICLES, streams=streams), data)


@pytest.mark.parametrize("latent", ["deterministic", "innovations ar1", "markov normal", "recurrent normal"])
@pytest.mark.parametrize("proposal", ["prior", "guide"])
def test_particles_of_latents(latent: str, proposal: str) -> None:
    assert latent in LATENTS
    model, guide, data = model_of("gaussian irregular" if latent == "innovations ar1" else "several", latent)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    settings = {"num_particles": PARTICLES, "proposal": proposal}
    agree(lambda streams: lr.OnlineFilter(posterior, streams=streams, **settings), data)


@pytest.mark.parametrize("observation", ["poisson softplus, missing", "several", "poisson history", "features"])
def test_the_guide_alone(observation: str) -> None:
    if observation == "features":
        observation = "gaussian irregular"
    model, guide, data = model_of(observation, "innovations with initial")
    posterior = lr.Posterior(model, guide, data, device="cpu")
    agree(lambda streams: lr.OnlineFilter(posterior, num_particles=None, proposal="guide", streams=streams), data)


@pytest.mark.parametrize("latent", ["innovations with initial", "markov normal"])
def test_draws_of_parameters_are_weighed_by_each_stream_alone(latent: str) -> None:
    model, guide, data = model_of("gaussian priors", latent)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    settings = {"num_particles": PARTICLES, "num_draws": 4}
    agree(lambda streams: lr.OnlineFilter(posterior, streams=streams, **settings), data)
    last = list(lr.OnlineFilter(posterior, streams=STREAMS, **settings).follow(data))[-1]
    assert last.draw_weights.shape == (STREAMS, 4)
    assert not torch.allclose(last.draw_weights[0], last.draw_weights[1])


def test_kalman_filters_with_slow_heads_holes_and_covariates() -> None:
    model, data = make(lengths=(9, 9, 9))
    agree(lambda streams: lr.OnlineFilter(posterior_of(model, data), streams=streams), data)


def test_a_sequence_that_has_ended_changes_nothing_for_the_others() -> None:
    rng = np.random.default_rng(0)
    long, short = rng.normal(size=(8, 2)), rng.normal(size=(3, 2))
    whole = lr.SequenceData.from_arrays({"y": [long, short]}, dtype=torch.float64)
    parts = {"transition": lr.Linear(2), "latent": lr.LinearGaussian(), "observations": {"y": lr.Gaussian()}}
    model = lr.LatentRNN(whole.spec, **parts).double()
    shake(model, 0.3)
    posterior = posterior_of(model, whole)
    together = list(lr.OnlineFilter(posterior, streams=["long", "short"]).follow(whole))
    alone = list(lr.OnlineFilter(posterior).follow(whole[:1]))
    for both, one in zip(together, alone, strict=True):
        assert both["long"].log_prob == pytest.approx(one.log_prob, abs=1e-12)
    assert [state["short"].log_prob == 0.0 for state in together] == [False] * 3 + [True] * 5
    assert sum(state["short"].log_prob for state in together) == pytest.approx(
        float(posterior_of(model, whole[1:]).evidence("exact").total), abs=1e-9
    )


def test_it_goes_on_after_being_saved(tmp_path: Path) -> None:
    model, guide, data = model_of("poisson history", "innovations with initial")
    posterior = lr.Posterior(model, guide, data, device="cpu")
    online = lr.OnlineFilter(posterior, num_particles=PARTICLES, streams=["a", "b", "c"])
    states = online.follow(data)
    for _ in range(3):
        next(states)
    online.save(tmp_path / "state.safetensors")
    again = copy.deepcopy(online)
    rest = list(states)
    again.load(tmp_path / "state.safetensors")
    from latentrnn.inference.online.recorded import steps_of

    told = list(steps_of(data, ["y"], many=True))[3:]
    for step, expected in zip(told, rest, strict=True):
        found = again.update(**step)
        assert torch.equal(found.weights, expected.weights)
        assert torch.equal(found["b"].pit("y"), expected["b"].pit("y"))
    with pytest.raises(ValueError, match="of each of 2 streams"):
        lr.OnlineFilter(posterior, num_particles=PARTICLES, streams=2).load(tmp_path / "state.safetensors")
    fresh = online.fresh(streams=["a", "b", "c"])
    assert torch.equal(next(fresh.follow(data)).weights, next(online.fresh(streams=3).follow(data)).weights)


def test_errors_name_the_stream() -> None:
    model, guide, data = model_of("poisson", "innovations")
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=3, streams=["a", "b", "c"])
    rest = {"drive": np.zeros((3, 1)), "stimulus": np.zeros((3, 2))}
    bad = np.zeros((3, 3))
    bad[1, 2] = -1.0
    with pytest.raises(ValueError, match=r"non-negative integers; found -1\.0 at stream 'b', step 0"):
        online.update(bad, rest)
    with pytest.raises(ValueError, match=r"expected \(stream, channel\) of shape \(3, 3\); found shape \(3,\)"):
        online.update(np.zeros(3), rest)
    holes = rest | {"drive": np.array([[0.0], [1.0], [np.nan]])}
    with pytest.raises(ValueError, match="NaN or infinity at stream 'c', step 0"):
        online.update(np.zeros((3, 3)), holes)
    found = online.update(np.zeros((3, 3)), rest)
    assert found.step == 0
    assert found["c"].name == "c"
    assert found[-1].name == "c"
    assert len(list(found)) == 3
    assert found.mean.shape == (3, 2)
    assert found.covariance.shape == (3, 2, 2)
    with pytest.raises(ValueError, match="unknown stream 'd'"):
        found["d"]
    with pytest.raises(ValueError, match="expected 3 sequences, one for each stream; found 2"):
        next(online.follow(data[:2]))
    with pytest.raises(ValueError, match="distinct names"):
        lr.OnlineFilter(lr.Posterior(model, guide, data), streams=["a", "a"])


def test_every_stream_may_have_a_session_of_its_own() -> None:
    rng = np.random.default_rng(0)
    parts = {
        name: lr.SequenceData.from_arrays({"y": rng.poisson(1.0, (2, 5, size)).astype(float)})
        for name, size in (("a", 2), ("b", 3))
    }
    data = lr.SequenceData.join(parts, shared=[])
    heads = {name: lr.Poisson() for name in data.spec.heads}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal", read_in=2, mask_input=True))
    guide.initialise(model, data)
    posterior = lr.Posterior(model, guide, data, device="cpu")
    settings = {"num_particles": None, "proposal": "guide"}
    both = lr.OnlineFilter(posterior, streams=2, session=["a", "b"], **settings)
    first, second = (lr.OnlineFilter(posterior, session=name, **settings) for name in "ab")
    seen = {"y_a": [1.0, 2.0], "y_b": [0.0, 3.0, 1.0]}
    found = both.update({"y_a": np.array([seen["y_a"], [np.nan] * 2]), "y_b": np.array([[np.nan] * 3, seen["y_b"]])})
    one, other = first.update({"y_a": seen["y_a"]}), second.update({"y_b": seen["y_b"]})
    torch.testing.assert_close(found[0].values, one.values, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1].values, other.values, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="one session for each of 2 streams; found 1"):
        lr.OnlineFilter(posterior, streams=2, session=["a"], **settings)


def test_a_family_of_a_users_own_is_followed_in_streams() -> None:
    """Nothing but what `Observation` asks for: marginals and transforms come from its entries."""

    class Laplace(lr.Observation):
        def family(self, eta: Tensor) -> dist.Distribution:
            return dist.Laplace(eta, torch.ones_like(eta), validate_args=False)

    data = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(2, 4, 2))}, dtype=torch.float64)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": Laplace()})
    model = model.double()
    found = next(lr.OnlineFilter(lr.Posterior(model, lr.Guide(model), data), streams=2).follow(data))
    expected = dist.Laplace(found.predicted["y"], torch.ones(2, 2).double())
    torch.testing.assert_close(found.pit("y"), expected.cdf(data.observations["y"][:, 0]))
    torch.testing.assert_close(
        found.quantiles("y", 0.9)[0], expected.icdf(torch.full((2, 2), 0.9, dtype=torch.float64))
    )
