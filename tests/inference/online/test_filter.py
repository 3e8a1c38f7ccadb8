"""One step at a time: the batch filter's numbers, the encoder's on every prefix, flat memory, off and on again."""

from __future__ import annotations

import gc
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.filters.particle_filter import ParticleFilter
from latentrnn.inference.guides.families.gaussian_chain import GaussianChain
from latentrnn.inference.posterior.draws.sampler import PosteriorSampler
from tests import oracles
from tests.inference.online.streamed import LENGTH, STREAMED, setting, steps_of
from tests.linear_gaussian import as_data, as_model, random_problem
from tests.registry import (
    LATENTS,
    OBSERVATIONS,
    TRANSITIONS,
    default_transition,
    latent_for,
    make_data,
    make_model,
    shake,
)

PARTICLES = 9


def batch(model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, proposal: str) -> ParticleFilter:
    """The package's filter over the whole recording, with the random numbers of seed 0."""
    sampler = PosteriorSampler(model, guide, data, device="cpu", seed=0)
    with torch.no_grad():
        rollout = sampler.prior_rollout(sampler.parameter_trace(1))
        heads = {n: h for n, h in rollout.observations.items() if h.head.per_step}
        masks = {n: h.observed(data) for n, h in heads.items()}
        proposals = guide.local.proposals(guide.variational_parameters(data), data) if proposal == "guide" else None
        return ParticleFilter(rollout, PARTICLES, 1, proposals=proposals, masks=masks)


def compare(
    model: lr.LatentRNN, guide: lr.Guide, data: lr.SequenceData, proposal: str, **options: Any
) -> list[lr.FilteredState]:
    whole = batch(model, guide, data, proposal)
    settings = options | {"num_particles": PARTICLES, "proposal": proposal}
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), **settings)
    random = bool(model.latent_sites())
    found, total = [], 0.0
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        moments = list(whole.steps())
    for told, moment in zip(steps_of(data), moments, strict=True):
        found.append(online.update(**told))
        total += found[-1].log_prob
        ahead = moment.log_weights.softmax(1)[0, :, 0]
        for name, seen in moment.seen.items():
            mean = model.observations[name].mean(seen.distribution)[0, :, 0, 0]
            if not random:
                mean = mean[:1]
                ahead = torch.ones(1, dtype=mean.dtype)
            torch.testing.assert_close(found[-1].predicted[name], torch.tensordot(ahead, mean, 1), rtol=0, atol=1e-9)
        assert set(found[-1].predicted) == set(moment.seen)
    assert total == pytest.approx(float(whole.log_evidence), abs=1e-8)
    if random:
        torch.testing.assert_close(found[-1].weights.log(), whole.log_weights[0, :, 0], rtol=0, atol=1e-8)
        smallest = min(state.effective_sample_size for state in found)
        assert smallest == pytest.approx(float(whole.smallest_sample), abs=1e-8)
    return found


@pytest.mark.parametrize("observation", STREAMED)
def test_particles_are_those_of_the_batch_filter(observation: str) -> None:
    data = make_data(OBSERVATIONS[observation], (LENGTH,))
    model, _ = make_model(default_transition(observation), "innovations with initial", observation, data)
    if model.parameter_sites():
        pytest.skip("parameters stay at their means: see the test of that")
    compare(*setting(observation, "innovations with initial"), "prior")


@pytest.mark.parametrize("latent", LATENTS)
def test_every_latent_is_followed(latent: str) -> None:
    clock = "gaussian irregular" if "ar1" in latent or "matern" in latent else "gaussian"
    compare(*setting(clock, latent), "prior")


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_every_transition_is_followed(transition: str) -> None:
    compare(*setting("poisson", latent_for(transition, "poisson", "innovations"), transition), "prior")


@pytest.mark.parametrize("family", [lr.MeanField(), lr.Markov(4)], ids=["mean field", "markov"])
@pytest.mark.parametrize("latent", ["innovations with initial", "innovations ar1", "markov normal", "recurrent normal"])
def test_a_causal_guide_proposes_as_in_the_batch_filter(latent: str, family: lr.Family) -> None:
    found = compare(*setting("poisson softplus, missing", latent, family=family), "guide")
    assert found[0].values is not None
    model, guide, data = setting("several", latent, family=family)
    compare(model, guide, data, "guide")


@pytest.mark.parametrize("clock", [1, 2])
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("family", [lr.Multinomial, lr.DirichletMultinomial])
def test_a_known_total_says_what_was_missed(family: type[lr.Observation], known: bool, clock: int) -> None:
    """Totals of some steps, of all categories, with a category missing now and then: as in the batch filter."""
    counts = np.random.default_rng(0).poisson(3.0, (1, LENGTH, 3)).astype(float)
    totals = counts.sum(-1)
    counts[0, 1:5, 1] = np.nan
    counts[0, 3] = np.nan
    totals[0, 4] = np.nan
    given = {"y": totals} if known else None
    other = {"x": np.zeros((1, clock * LENGTH, 1))}
    settings = {"clocks": {"y": clock}, "dtype": torch.float64}
    data = lr.SequenceData.from_arrays({"y": counts}, other, totals=given, **settings)
    parts = {"transition": lr.GRU(3), "latent": lr.Innovations(2), "observations": {"y": family()}}
    model = lr.LatentRNN(data.spec, **parts).double()
    shake(model)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal"))
    found = compare(model, guide, data, "prior")
    if known:  # negative control: without the totals other densities come
        untold = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=PARTICLES)
        without = [untold.update(each["observation"], each["covariates"]).log_prob for each in steps_of(data)]
        assert abs(without[2 * clock - 1] - found[2 * clock - 1].log_prob) > 0.1
        assert found[4 * clock - 1].predicted["y"].sum() == pytest.approx(totals[0, 3])


def test_a_read_in_reads_every_step() -> None:
    model, _, data = setting("several", "innovations")
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal", mask_input=True, read_in=4)).double()
    shake(guide)
    compare(model, guide, data, "guide")


def test_a_stream_belongs_to_a_session_even_while_it_shows_nothing() -> None:
    rng = np.random.default_rng(0)
    counts = {"one": rng.poisson(1.0, (1, LENGTH, 3)).astype(float), "two": rng.poisson(2.0, (1, LENGTH, 2))}
    counts["one"][0, 2:4] = np.nan
    parts = {name: lr.SequenceData.from_arrays({"y": values}, dtype=torch.float64) for name, values in counts.items()}
    joined = lr.SequenceData.join(parts)
    heads = lr.per_session(joined.spec, {"y": lr.Poisson()})
    model = lr.LatentRNN(joined.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal", read_in=4)).double()
    shake(model)
    shake(guide)
    compare(model, guide, joined.session("one"), "guide", session="one")
    with pytest.raises(ValueError, match=r"which one a sequence belongs to; use OnlineFilter\(..., session=name\)"):
        lr.OnlineFilter(lr.Posterior(model, guide, joined), num_particles=2, proposal="guide")
    with pytest.raises(ValueError, match=r"unknown session 'three'; the model has \['one', 'two'\]"):
        lr.OnlineFilter(lr.Posterior(model, guide, joined), session="three")


@pytest.mark.parametrize("steps", [1, 2])
def test_features_that_look_back_are_those_of_the_batch(steps: int) -> None:
    data = make_data(OBSERVATIONS["gaussian"], (LENGTH,))
    features = [lr.Lags("drive", steps + 1), lr.Convolution("stimulus", 2, widths=3, dilations=steps)]
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Innovations(2),
        observations={"y": lr.Gaussian(readout=lr.WindowedAttention(3, 2))},
        inputs=features,
    ).double()
    shake(model)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal")).double()
    compare(model, guide, data, "prior")


# -- the guide alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", ["innovations with initial", "innovations ar1", "markov normal"])
@pytest.mark.parametrize("family", [lr.MeanField(), GaussianChain()], ids=["mean field", "chain"])
def test_the_guide_alone_says_what_it_says_of_every_prefix(family: lr.Family, latent: str) -> None:
    model, guide, data = setting("poisson softplus, missing", latent, family=family)
    posterior = lr.Posterior(model, guide, data)
    online = lr.OnlineFilter(posterior, num_particles=None, proposal="guide")
    (site,) = [s.name for s in model.latent_sites() if s.along_time]
    for t, told in enumerate(steps_of(data)):
        found = online.update(**told)
        prefix = data.time_slice(0, t + 1)
        with torch.no_grad():
            numbers = guide.variational_parameters(prefix)
            if isinstance(family, GaussianChain):
                law = guide.local.trajectory(numbers, prefix)
                mean, covariance = law.mean[0, -1], law.covariance[0, -1]
            else:
                loc, raw = numbers[site][0, -1].chunk(2, -1)
                scale = torch.nn.functional.softplus(raw + np.log(np.expm1(0.3))) + 1e-5
                mean, covariance = loc, torch.diag(scale**2)
        torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.covariance, covariance, rtol=0, atol=1e-6)
        assert found.log_prob is None
    if latent.startswith("innovations") and isinstance(family, lr.MeanField):  # the rollout of the means
        with torch.no_grad():
            means = numbers[site].chunk(2, -1)[0]
            start = model.latent.start.map(numbers["initial"].chunk(2, -1)[0])
            states = model.transition.scan(torch.cat([model.transition_inputs(data), means], -1), start)[0]
        torch.testing.assert_close(found.states[0], states[0, -1], rtol=0, atol=1e-9)
        rate = model.observations["y"](states[:, -1:], model.observations["y"].inputs(data).at(LENGTH - 1), None)
        torch.testing.assert_close(found.rates["y"], model.observations["y"].mean(rate)[0, 0].detach())


def test_particles_follow_kalman() -> None:
    problem = random_problem(2, [12], inputs=1, hide=0.2)
    data = as_data(problem)
    model = as_model(problem, data)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal", mask_input=True)).double()
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=4000)
    r = problem.recordings[0]
    exact = oracles.kalman_filter(problem.model, r.y, r.u, r.missing)
    back = np.linalg.inv(oracles.diagonalise(problem.model).T)
    total = 0.0
    for t, told in enumerate(steps_of(data)):
        found = online.update(**told)
        total += found.log_prob
        spread = np.sqrt(np.diag(exact.filtered_covs[t]))
        assert (np.abs(back @ found.mean.numpy() - exact.filtered_means[t]) < 0.2 * spread).all()
        covariance = back @ found.covariance.numpy() @ back.T
        assert (np.abs(covariance - exact.filtered_covs[t]) < 0.25 * np.outer(spread, spread)).all()
    assert total == pytest.approx(exact.log_evidence, abs=0.5)


# -- what comes and goes ---------------------------------------------------------------------------------------------


def test_parameters_with_priors_stay_at_their_means() -> None:
    model, guide, data = setting("gaussian priors", "innovations")
    posterior = lr.Posterior(model, guide, data)
    online = lr.OnlineFilter(posterior, num_particles=3)
    mean = posterior.parameters(4000)["y.weight" if "y.weight" in posterior.parameters(1) else "y.readout.weight"].mean(
        0
    )
    assert (online.model.observations["y"].readout.weight - mean).abs().max() < 0.3
    assert np.isfinite(online.update(**steps_of(data)[0]).log_prob)


@pytest.mark.parametrize(("particles", "proposal"), [(PARTICLES, "prior"), (PARTICLES, "guide"), (None, "guide")])
def test_it_goes_on_after_being_saved(tmp_path: Path, particles: int | None, proposal: str) -> None:
    model, guide, data = setting("gaussian history", "innovations ar1", family=lr.MeanField())
    posterior, told = lr.Posterior(model, guide, data), steps_of(data)
    whole = lr.OnlineFilter(posterior, num_particles=particles, proposal=proposal)
    expected = [whole.update(**each) for each in told]
    first = lr.OnlineFilter(posterior, num_particles=particles, proposal=proposal)
    for each in told[:3]:
        first.update(**each)
    first.save(tmp_path / "stream.safetensors")
    first.update(**told[3])  # what was saved does not move on
    second = lr.OnlineFilter(posterior, num_particles=particles, proposal=proposal, seed=5)
    second.load(tmp_path / "stream.safetensors")
    for each, state in zip(told[3:], expected[3:], strict=True):
        found = second.update(**each)
        assert found.step == state.step
        assert torch.equal(found.states, state.states)
        assert torch.equal(found.weights, state.weights)
        assert found.log_prob == state.log_prob
    other = lr.OnlineFilter(posterior, num_particles=4)
    with pytest.raises(ValueError, match="with 4 particles"):
        other.load_state_dict(first.state_dict())


def test_states_of_other_filters_are_refused_and_change_nothing() -> None:
    def filtered(hidden: int, proposal: str = "prior", steps: int = 4, **head: Any) -> lr.OnlineFilter:
        data = lr.SequenceData.from_arrays({"v": np.zeros((1, 5, 2))})
        parts = {"transition": lr.GRU(hidden), "latent": lr.Innovations(2), "observations": {"v": lr.Gaussian(**head)}}
        model = lr.LatentRNN(data.spec, **parts)
        guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal"))
        found = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=PARTICLES, proposal=proposal)
        for _ in range(steps):
            found.update([0.0, 1.0])
        return found

    guided, remembers = filtered(3, "guide"), filtered(3, "guide", readout=lr.WindowedAttention(3, 2))
    remembers.load_state_dict(remembers.state_dict())
    kept = guided.state_dict()
    for other, match in (
        (filtered(3), r"they differ in \['encoded'\]"),
        (filtered(5, "guide"), r"'carry.state' has shape \(1, 9, 1, 5\); expected \(1, 9, 1, 3\)"),
        (filtered(3, "guide", feedback=lr.History(2)), r"they differ in \['histories.v'\]"),
    ):
        with pytest.raises(ValueError, match=match):
            guided.load_state_dict(other.state_dict())
    after = guided.state_dict()
    assert all(torch.equal(after[name], value) for name, value in kept.items())
    fresh = filtered(3, "guide", steps=0)
    guided.load_state_dict(fresh.state_dict())  # back to before the first step
    assert guided.update([0.0, 1.0]).step == 0


def test_updates_leave_no_trace_in_global_state() -> None:
    model, guide, data = setting("poisson", "innovations")
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=PARTICLES)
    before = torch.get_rng_state()
    states = [online.update(**told) for told in steps_of(data)]
    assert torch.equal(torch.get_rng_state(), before)
    again = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=PARTICLES, seed=1)
    other = [again.update(**told) for told in steps_of(data)]
    assert not torch.equal(states[-1].states, other[-1].states)
    kept = states[0].states.clone()
    online.update(**steps_of(data)[0])
    assert torch.equal(states[0].states, kept)


def test_a_head_that_shows_nothing_says_nothing() -> None:
    model, guide, data = setting("poisson", "innovations")
    told = steps_of(data)[0]
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=PARTICLES)
    silent = online.update(None, told["covariates"])
    assert silent.log_prob == pytest.approx(0.0, abs=1e-12)
    assert silent.effective_sample_size == pytest.approx(PARTICLES)
    assert silent.covariance.shape == (2, 2)
    one = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=PARTICLES)
    assert torch.equal(one.update({"y": np.full(3, np.nan)}, told["covariates"]).states, silent.states)


def refusals() -> dict[str, tuple[Any, str]]:
    def make(observation: str, latent: str = "innovations", **options: Any) -> Any:
        return lambda: lr.OnlineFilter(lr.Posterior(*setting(observation, latent)), **options)

    def encoder(**options: Any) -> Any:
        def build() -> None:
            model, _, data = setting("poisson", "innovations")
            guide = lr.Guide(model, encoder=lr.RNNEncoder(3, **options)).double()
            told = steps_of(data)[0]
            lr.OnlineFilter(lr.Posterior(model, guide, data), proposal="guide").update(**told)

        return build

    def chain() -> None:
        settings = setting("poisson", "innovations", family=GaussianChain())
        lr.OnlineFilter(lr.Posterior(*settings), proposal="guide")

    def markov() -> None:
        settings = setting("poisson", "innovations", family=lr.Markov(3))
        online = lr.OnlineFilter(lr.Posterior(*settings), proposal="guide", num_particles=None)
        online.update(**steps_of(settings[2])[0])

    def update(index: int = 0, heads: str = "poisson", **change: Any) -> Any:
        def build() -> None:
            model, guide, data = setting(heads, "innovations")
            online = lr.OnlineFilter(lr.Posterior(model, guide, data))
            for told in steps_of(data)[:index]:
                online.update(**told)
            online.update(**{**steps_of(data)[index], **change})

        return build

    def counted(total: Any, counts: tuple[float, ...] = (1.0, np.nan, 2.0), family: Any = lr.Multinomial) -> Any:
        def build() -> None:
            data = lr.SequenceData.from_arrays({"y": np.ones((1, 4, 3))})
            parts = {"transition": lr.GRU(3), "latent": lr.Innovations(2), "observations": {"y": family()}}
            model = lr.LatentRNN(data.spec, **parts)
            online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data))
            try:
                online.update({"y": counts}, totals={"y": total})
            finally:  # what was refused left nothing behind
                assert online.update({"y": [1, 0, 0]}).step == 0

        return build

    def exposed(value: float) -> Any:
        def build() -> None:
            data = lr.SequenceData.from_arrays({"y": np.ones((1, 4, 1))}, {"area": np.ones((1, 4, 1))})
            head = lr.Poisson(exposure="area")
            parts = {"latent": lr.Innovations(2), "observations": {"y": head}, "inputs": []}
            model = lr.LatentRNN(data.spec, transition=lr.GRU(3), **parts)
            online = lr.OnlineFilter(lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(2)), data))
            online.update({"y": [1]}, {"area": [2.0]})
            try:
                online.update({"y": [1]}, {"area": [value]})
            finally:
                assert online.update({"y": [1]}, {"area": [2.0]}).step == 1

        return build

    return {
        "total below": (counted(2.0), r"totals\['y'\]: expected at least 3, found 2 at step 0"),
        "total of all": (counted(4.0, (1.0, 0.0, 2.0)), r"totals\['y'\]: expected 3, the sum over channels, found 4"),
        "infinite total": (counted(np.inf), r"expected at least 3, found inf"),
        "half a count": (counted(5.5), r"totals\['y'\]: expected a whole number, found 5.5 at step 0"),
        "two totals": (counted([5.0, 5.0]), r"totals\['y'\]: expected one number; found shape \(2,\)"),
        "no total": (counted(3.0, family=lr.Poisson), r"totals: unknown \['y'\]; expected \[\]"),
        "exposure": (exposed(-2.0), r"covariates\['area'\]: an exposure must be positive; found -2.0 at step 1"),
        "no exposure": (exposed(0.0), "an exposure must be positive; found 0.0 at step 1"),
        "no proposal": (make("poisson", proposal="posterior"), "one of 'prior', 'guide'"),
        "the guide alone": (make("poisson", num_particles=None), "use proposal='guide'"),
        "past states": (make("calcium"), "more than the present state"),
        "risk": (make("hazard, missing"), "more than the present state"),
        "all states": (make("readouts"), "CausalAttention of head 'causal' remembers all"),
        "future": (make("features"), "have not come yet"),
        "bidirectional": (encoder(), "use direction='causal'"),
        "lag": (encoder(direction="causal", lag=2), "without a lag"),
        "chain": (chain, "lean on later ones"),
        "markov alone": (markov, "no moments of a step"),
        "no covariates": (update(covariates={}), "covariates: expected"),
        "size": (update(observation={"y": np.zeros(2)}), r"observation\['y'\]: expected 3 channels"),
        "unknown": (update(observation={"z": np.zeros(3)}), r"unknown \['z'\]"),
        "support": (update(observation={"y": np.array([0.0, -1.0, 2.0])}), "Poisson needs non-negative"),
        "infinite": (update(observation={"y": np.array([0.0, np.inf, 2.0])}), "infinity"),
        "nan": (update(covariates={"drive": [np.nan], "stimulus": [0.0, 0.0]}), "NaN or infinity at step 0"),
        "time": (update(1, "gaussian irregular", time=0.0), "time: expected more than"),
        "no time": (update(1, "gaussian irregular", time=None), "steps are irregular"),
    }


@pytest.mark.parametrize("case", refusals())
def test_what_cannot_be_followed_is_named(case: str) -> None:
    build, match = refusals()[case]
    with pytest.raises(ValueError, match=match):
        build()


def test_a_frame_comes_when_it_is_complete() -> None:
    model, guide, data = setting("several", "innovations")
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=3)
    told = steps_of(data)[0]
    with pytest.raises(ValueError, match=r"observation\['slow'\]: a frame is complete every 2 steps, not at step 0"):
        online.update({"slow": np.zeros(2)}, told["covariates"])
    assert online.update(**told).step == 0  # what was refused left nothing behind
    assert "slow" in online.update(**steps_of(data)[1]).predicted


@pytest.mark.slow
@pytest.mark.parametrize(("particles", "proposal"), [(None, "guide"), (20, "prior")])
def test_memory_does_not_grow(particles: int | None, proposal: str) -> None:
    """After a warm-up: what Python holds stays within 32 bytes an update, what the process holds within 4 MB."""
    model, guide, data = setting("gaussian history", "innovations ar1")
    online = lr.OnlineFilter(lr.Posterior(model, guide, data), num_particles=particles, proposal=proposal)
    told = steps_of(data)
    updates = 10_000 if particles is None else 2_000

    def run(count: int) -> list[lr.FilteredState]:
        return [online.update(**told[t % LENGTH]) for t in range(count)][:0]

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        run(1500)
        before = held()
        for _ in range(100):
            run(10)
        assert held() - before < 32 * 1000
        before, kept = held(), [online.update(**told[0]) for _ in range(100)]
        assert held() - before > 32 * 100  # negative control: states that are kept
        del kept
    finally:
        tracemalloc.stop()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(updates // 10):
        run(10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096
    sizes = {name: value.numel() for name, value in online.state_dict().items()}
    run(10)
    assert {name: value.numel() for name, value in online.state_dict().items()} == sizes


# -- what is refused, and when -----------------------------------------------------------------------------------------


def test_a_refused_step_leaves_the_filter_as_it_was() -> None:
    """A glitch in the stream, of every kind, and then the same step mended: as if nothing had been."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": rng.poisson(1.0, (6, 8, 1)).astype(float), "slow": rng.normal(size=(6, 4, 1))},
        {"s": rng.normal(size=(6, 8, 1))},
        clocks={"slow": 2},
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Innovations(1),
        observations={"y": lr.Poisson(), "slow": lr.Gaussian()},
        inputs=[lr.Lags("s", 2)],
    )
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal")), data, device="cpu")
    smooth, glitched = (lr.OnlineFilter(posterior, num_particles=20) for _ in range(2))
    glitches = [
        ({"y": [-1.0], "slow": [0.3]}, [0.5], ValueError, "Poisson needs non-negative integers; found -1.0 at step 1"),
        ({"y": [1.0, 2.0]}, [0.5], ValueError, "expected 1 channels"),
        ({"y": [1.0]}, [np.nan], ValueError, "NaN or infinity at step 1"),
        ({"y": [1.0]}, None, ValueError, "is not there"),
    ]
    first = [each.update({"y": [1.0]}, [0.1]) for each in (smooth, glitched)]
    assert torch.equal(first[0].weights, first[1].weights)
    for observation, covariates, error, message in glitches:
        with pytest.raises(error, match=message):
            glitched.update(observation, covariates)
    for step in (1, 2, 3):
        given = {"y": [1.0]} | ({"slow": [0.3]} if step % 2 else {})
        one, other = (each.update(given, [0.5 * step]) for each in (smooth, glitched))
        assert (one.step, other.step) == (step, step)
        assert torch.equal(one.weights, other.weights)
        assert torch.equal(one.rates["y"], other.rates["y"])


def test_an_error_within_a_step_takes_nothing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide, data = setting("poisson", "innovations")
    whole = lr.OnlineFilter(lr.Posterior(model, guide, data, device="cpu"), num_particles=10)
    state = whole.state_dict()

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(lr.Poisson, "mean", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            whole.update([0.0] * data.observations["y"].shape[-1], _covariates_of(data))
    after = whole.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in state.items())


def _covariates_of(data: lr.SequenceData) -> dict[str, list[float]]:
    return {name: [0.0] * value.shape[-1] for name, value in data.covariates.items()}


@pytest.mark.parametrize("direction", ["bidirectional", "backward"])
def test_what_cannot_be_followed_is_refused_at_construction(direction: str) -> None:
    data = lr.SequenceData.from_arrays({"y": np.zeros((3, 5, 1))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2, direction=direction))
    posterior = lr.Posterior(model, guide, data, device="cpu")
    lr.OnlineFilter(posterior)  # the prior needs no encoder
    for particles in (10, None):
        with pytest.raises(ValueError, match="causal"):
            lr.OnlineFilter(posterior, num_particles=particles, proposal="guide")
    markov = lr.Guide(model, encoder=lr.RNNEncoder(2, direction="causal"), family=lr.Markov(2))
    with pytest.raises(ValueError, match="OnlineFilter: Markov has no moments of a step in closed form"):
        lr.OnlineFilter(lr.Posterior(model, markov, data, device="cpu"), num_particles=None, proposal="guide")
    switched = {"latent": lr.Discrete(2), "observations": {"y": lr.Poisson()}}
    switch = lr.LatentRNN(data.spec, transition=lr.GRU(2), **switched)
    with pytest.raises(ValueError, match=r"ask for one_step_ahead or latents .* so far, or use RelaxedDiscrete"):
        lr.OnlineFilter(lr.Posterior(switch, lr.Guide(switch), data, device="cpu"))
    with pytest.raises(TypeError, match="source must be a FitResult or a Posterior; found LatentRNN"):
        lr.OnlineFilter(model)
