"""Discrete against the enumeration of every path, hidden Markov models by other code, and what it must refuse."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import special, stats
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.objectives.terms import log_weights
from latentrnn.models.latents import discrete
from tests import oracles, registry
from tests.linear_gaussian import FILES
from tests.models import test_battery as battery
from tests.oracles import Array
from tests.registry import OBSERVATIONS, make_data, shake

STATES = 3
LENGTHS = (6, 4, 2)
SETTINGS: dict[str, dict[str, object]] = {
    "shared": {},
    "separate": {"weights": "separate"},
    "driven": {"driven": True},
    "separate, driven": {"weights": "separate", "driven": True},
}


def make(case: str = "driven", hide: float = 0.25) -> tuple[lr.LatentRNN, lr.SequenceData]:
    """Three heads: counts with holes, voltages on a slower clock, classes."""
    rng = np.random.default_rng(0)
    counts = [rng.poisson(1.5, (n, 2)).astype(float) for n in LENGTHS]
    counts = [np.where(rng.random(each.shape) < hide, np.nan, each) for each in counts]
    data = lr.SequenceData.from_arrays(
        {
            "n": counts,
            "v": [rng.normal(size=(n // 2, 2)) for n in LENGTHS],
            "k": [rng.integers(0, 3, (n, 1)).astype(float) for n in LENGTHS],
        },
        {"x": [rng.normal(size=(n, 1)) for n in LENGTHS]},
        clocks={"v": 2},
        dtype=torch.float64,
    )
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(2),
        latent=lr.Discrete(STATES, **SETTINGS[case]),
        observations={"n": lr.Poisson(), "v": lr.Gaussian("full"), "k": lr.Categorical(3)},
    ).double()
    pyro.set_rng_seed(0)
    shake(model, 0.7)
    return model, data


def posterior_of(model: lr.LatentRNN, data: lr.SequenceData) -> lr.Posterior:
    return lr.Posterior(model, lr.Guide(model), data, device="cpu")


class Enumeration:
    """log p(y, c) of one sequence for every path c, equations written out in NumPy."""

    def __init__(self, model: lr.LatentRNN, data: lr.SequenceData, n: int) -> None:
        weights = {k: v.detach().numpy() for k, v in model.named_parameters()}
        cell = {k.removeprefix("transition.kernel.")[:-3]: v for k, v in weights.items() if "kernel" in k}
        latent, length = model.latent, int(data.lengths[n])
        h, self.hidden = weights["latent.initial_state"], []
        for t in range(length):
            h = oracles.gru_step(data.covariates["x"][n, t].numpy(), h, cell)
            self.hidden.append(h)
        noise = model.observations["v"].noise_scale_tril.detach().numpy() if "v" in model.observations else None
        self.emission = {name: np.zeros((length, STATES)) for name in model.observations}  # log p(y_t | c_t)
        self.moves = np.zeros((length, STATES, STATES))
        for t, c in itertools.product(range(length), range(STATES)):
            h, one = self.hidden[t], np.eye(STATES)[c]
            seen = np.concatenate([h, one] if latent.weights == "shared" else [one, np.outer(one, h).ravel()])
            logits = weights["latent.switch_logits"][c]
            if latent.driven:
                logits = logits + weights["latent.switch_weight"] @ h
            self.moves[t, c] = special.log_softmax(logits)
            for name in model.observations:
                head = f"observations.{name}.readout."
                eta = weights[head + "weight"] @ seen + weights[head + "baseline"]
                frame = t
                if name == "v":
                    frame, rest = divmod(t + 1, 2)
                    frame -= 1
                    if rest:
                        continue
                y, mask = data.observations[name][n, frame].numpy(), data.masks[name][n, frame].numpy()
                if name == "n":
                    found = stats.poisson.logpmf(y, np.exp(eta))[mask].sum()
                elif name == "v":
                    found = stats.multivariate_normal.logpdf(y, eta, noise @ noise.T)
                else:
                    found = special.log_softmax(eta)[int(y[0])]
                self.emission[name][t, c] = found
        self.first = special.log_softmax(weights["latent.initial_logits"])
        self.paths = np.array(list(itertools.product(range(STATES), repeat=length)))

    def joint(self, heads: list[str], until: int | None = None) -> Array:
        """log p(y of these heads at the steps before `until`, c) for every path."""
        steps, total = np.arange(self.paths.shape[1]), self.first[self.paths[:, 0]]
        total = total + self.moves[steps[1:], self.paths[:, :-1], self.paths[:, 1:]].sum(-1)
        for name in heads:
            total = total + self.emission[name][steps, self.paths][:, :until].sum(-1)
        return total


def densities(model: lr.LatentRNN, data: lr.SequenceData) -> dict[str, Tensor]:
    trace = poutine.trace(model).get_trace(data)
    return {n: trace.nodes[n]["fn"].log_prob(trace.nodes[n]["value"]).detach() for n in model.observations}


@pytest.mark.parametrize("case", SETTINGS)
def test_it_is_the_sum_over_all_paths(case: str) -> None:
    """Head by head p(y^1), p(y^2 | y^1), p(y^3 | y^1, y^2); ragged, with holes, on different clocks."""
    model, data = make(case)
    found = densities(model, data)
    for n in range(len(data)):
        paths, before = Enumeration(model, data, n), 0.0
        for k, name in enumerate(model.observations):
            total = special.logsumexp(paths.joint(list(model.observations)[: k + 1]))
            assert found[name][n].item() == pytest.approx(total - before, rel=0, abs=1e-10)
            before = total
        whole = log_weights(model, lr.Guide(model), data, 1)[0, n].item()
        assert whole == pytest.approx(before, rel=0, abs=1e-10)


def test_the_order_of_the_heads_does_not_change_their_joint_density() -> None:
    model, data = make()
    expected = sum(densities(model, data).values())
    turned = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(2),
        latent=lr.Discrete(STATES, driven=True),
        observations={"k": lr.Categorical(3), "v": lr.Gaussian("full"), "n": lr.Poisson()},
    ).double()
    turned.load_state_dict(model.state_dict())
    torch.testing.assert_close(sum(densities(turned, data).values()), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", SETTINGS)
def test_smoothed_probabilities_and_drawn_paths(case: str) -> None:
    model, data = make(case)
    found = posterior_of(model, data).latents(4000)
    start = 2 if model.latent.weights == "shared" else 0
    for n, length in enumerate(LENGTHS):
        paths = Enumeration(model, data, n)
        weights = special.softmax(paths.joint(list(model.observations)))
        expected = np.stack([[weights[paths.paths[:, t] == c].sum() for c in range(STATES)] for t in range(length)])
        np.testing.assert_allclose(found["switch"][0, n, :length], expected, rtol=0, atol=1e-10)
        drawn = found["states"][:, n, :length, start : start + STATES].numpy()
        error = np.sqrt(expected * (1 - expected) / 4000)
        assert (np.abs(drawn.mean(0) - expected) < 6 * error + 1e-3).all()
        # pairs of steps too: paths, not steps, are drawn
        pair = np.array([weights[(paths.paths[:, 0] == c) & (paths.paths[:, 1] == c)].sum() for c in range(STATES)])
        both = (drawn[:, 0] * drawn[:, 1]).mean(0)
        assert (np.abs(both - pair) < 6 * np.sqrt(pair * (1 - pair) / 4000) + 1e-3).all()


@pytest.mark.parametrize("name", ["n", "v", "k"])
def test_one_step_ahead_is_exact(name: str) -> None:
    model, data = make(hide=0.0)
    found = posterior_of(model, data).one_step_ahead(name)
    assert found.exact
    heads = list(model.observations)
    for n, length in enumerate(LENGTHS):
        paths = Enumeration(model, data, n)
        steps = np.arange(length)
        for frame in range(length // 2 if name == "v" else length):
            t = 2 * frame + 1 if name == "v" else frame
            past = paths.joint(heads, until=t)
            now = past + paths.emission[name][steps, paths.paths][:, t]
            if name == "n":  # entry by entry, so that channels need not add up: both together in the test below
                continue
            expected = special.logsumexp(now) - special.logsumexp(past)
            assert found.log_prob[n, frame].sum().item() == pytest.approx(expected, rel=0, abs=1e-10)


def test_one_step_ahead_adds_up_to_the_evidence() -> None:
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays({"n": rng.poisson(1.5, (2, 7, 1)).astype(float)}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Discrete(2, driven=True), observations={"n": lr.Poisson()}
    ).double()
    shake(model, 0.7)
    posterior = posterior_of(model, data)
    found = posterior.one_step_ahead("n")
    np.testing.assert_allclose(found.log_prob.sum((1, 2)), posterior.evidence().values, rtol=0, atol=1e-10)
    assert (found.mean > 0).all()


def test_steps_of_the_context_inform_but_are_not_scored() -> None:
    rng = np.random.default_rng(0)
    counts, voltages = rng.poisson(1.5, (2, 6, 1)).astype(float), rng.normal(size=(2, 6, 1))
    data = lr.SequenceData.from_arrays({"n": counts, "v": voltages}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.Linear(1),
        latent=lr.Discrete(2),
        observations={"n": lr.Poisson(), "v": lr.Gaussian()},
    ).double()
    shake(model, 0.7)
    later = data.windows(3, context=3)
    assert later.host_context.any()
    whole = log_weights(model, lr.Guide(model), data, 1).sum()
    informed = log_weights(model, lr.Guide(model), later, 1).sum()
    torch.testing.assert_close(informed, whole, rtol=0, atol=1e-10)
    blind = log_weights(model, lr.Guide(model), data.windows(3), 1).sum()
    assert abs(float((blind - whole).detach())) > 1e-3


def hmm(initial: Array, moves: Array, rates: Array, y: Array) -> tuple[lr.LatentRNN, lr.SequenceData]:
    data = lr.SequenceData.from_arrays({"n": y[None].astype(float)}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(1), latent=lr.Discrete(len(initial)), observations={"n": lr.Poisson()}
    ).double()
    with torch.no_grad():
        model.latent.initial_logits.copy_(torch.as_tensor(np.log(initial)))
        model.latent.switch_logits.copy_(torch.as_tensor(np.log(moves)))
        model.observations["n"].readout.weight[:, 0] = 0.0
        model.observations["n"].readout.weight[:, 1:] = torch.as_tensor(np.log(rates)).T
    return model, data


def check_hmm(model: lr.LatentRNN, data: lr.SequenceData, log_evidence: float, smoothed: Array) -> None:
    posterior = posterior_of(model, data)
    assert posterior.evidence().values.item() == pytest.approx(log_evidence, rel=0, abs=1e-8)
    np.testing.assert_allclose(posterior.latents(1)["switch"][0, 0], smoothed, rtol=0, atol=1e-8)


def test_against_a_hidden_markov_model_by_other_people_s_code() -> None:
    if not (FILES / "hmm_poisson.npz").exists():
        pytest.skip("reference file hmm_poisson.npz is not beside the repository (LATENTRNN_SHARED names its folder)")
    with np.load(FILES / "hmm_poisson.npz") as archive:
        file = dict(archive)
    keys = {key.lower(): key for key in file}
    initial = file[keys.get("initial", keys.get("pi", ""))]
    moves = file[keys.get("transition", keys.get("p", ""))]
    model, data = hmm(initial, moves, file["rates"], file[keys.get("counts", keys.get("y", ""))])
    check_hmm(model, data, float(file["log_evidence"]), file["smoothed"])


def test_against_the_forward_and_backward_recursions() -> None:
    rng = np.random.default_rng(1)
    initial, moves, rates = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3), rng.uniform(0.5, 6, (3, 4))
    y = rng.poisson(3.0, (200, 4))
    scores = stats.poisson.logpmf(y[:, None], rates).sum(-1)
    model, data = hmm(initial, moves, rates, y)
    check_hmm(model, data, *oracles.hmm_forward(initial, moves, scores))
    with torch.no_grad():  # negative control
        model.latent.switch_logits[0, 1] += 0.01
    with pytest.raises(AssertionError):
        check_hmm(model, data, *oracles.hmm_forward(initial, moves, scores))


def test_draws_share_one_path() -> None:
    """Two heads that say which regime it is agree with each other, and follow the chain."""
    data = lr.SequenceData.from_arrays({"a": np.zeros((1, 5, 1)), "b": np.zeros((1, 5, 1))}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(1),
        latent=lr.Discrete(2),
        observations={"a": lr.Bernoulli(), "b": lr.Bernoulli()},
    ).double()
    with torch.no_grad():
        for head in model.observations.values():
            head.readout.weight.copy_(torch.tensor([[0.0, -20.0, 20.0]]))
            head.readout.baseline.zero_()
    pyro.set_rng_seed(0)
    with pyro.plate("draws", 4000, dim=-2), torch.no_grad():
        both = poutine.uncondition(model)(data)
    for drawn in (both, posterior_of(model, data).prior_predictive(4000)):
        assert torch.equal(drawn["a"], drawn["b"])
        stays = (drawn["a"][:, :, 1:] == drawn["a"][:, :, :-1]).double().mean().item()
        assert stays == pytest.approx(0.9, abs=6 * (0.09 / 16_000) ** 0.5)
    given = poutine.condition(poutine.uncondition(model), data={"a": torch.ones(1, 5, 1).double()})
    assert torch.equal(given(data)["b"], torch.ones(1, 5, 1).double())
    replicates = posterior_of(model, data).predictive(20)
    assert not replicates["b"].any()  # the data are all zero, and say so


def test_what_is_held_out_does_not_inform_the_switch() -> None:
    rng = np.random.default_rng(0)
    found = []
    for held_out in (0.0, 5.0):
        data = lr.SequenceData.from_arrays({"a": rng.normal(size=(1, 4, 1)) * 0, "b": np.full((1, 4, 1), held_out)})
        pyro.set_rng_seed(0)
        model = lr.LatentRNN(
            data.spec,
            transition=lr.GRU(1),
            latent=lr.Discrete(2, observes=["a"]),
            observations={"a": lr.Gaussian(), "b": lr.Gaussian()},
        )
        found.append(posterior_of(model, data).mean("b", 20))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"y": lambda: lr.Poisson(feedback=lr.History(2, into="readout"))}, "the head feeds back"),
        ({"y": lambda: lr.Poisson(feedback=lr.History(2))}, "draws its states before any observation"),
        ({"y": lambda: lr.Poisson(readout=lr.WindowedAttention(2, 3))}, "depends on more than the present state"),
        ({"label": lambda: lr.Bernoulli()}, "one value for the whole sequence"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(heads: dict, message: str) -> None:
    data = lr.SequenceData.from_arrays({"y": np.ones((2, 4, 1)), "label": np.ones((2, 1))}, per_sequence=["label"])
    with pytest.raises(ValueError, match=message):
        lr.LatentRNN(
            data.spec,
            transition=lr.GRU(2),
            latent=lr.Discrete(2),
            observations={name: head() for name, head in heads.items()},
        )


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="num_states must be at least 2; found 1"):
        lr.Discrete(1)
    with pytest.raises(ValueError, match="weights must be one of 'shared', 'separate', 'none'; found 'own'"):
        lr.Discrete(2, weights="own")


def test_regimes_are_recovered() -> None:
    """Rates, persistence and path of a simulated switch; a model without one scores far less (negative control)."""
    rng = np.random.default_rng(0)
    paths = np.zeros((30, 60), dtype=int)
    for t in range(1, 60):
        paths[:, t] = np.where(rng.random(30) < 0.05, 1 - paths[:, t - 1], paths[:, t - 1])
    rates = np.array([[1.0, 6.0, 2.0], [5.0, 1.0, 2.0]])
    data = lr.SequenceData.from_arrays({"n": rng.poisson(rates[paths]).astype(float)})
    evidence = {}
    for latent in (lr.Discrete(2), lr.Deterministic()):
        model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=latent, observations={"n": lr.Poisson()})
        result = lr.fit(
            model,
            lr.Guide(model),
            data[:20],
            seed=0,
            steps=60,
            optimizer=lr.AdamW(0.05),
            reporting=lr.Reporting(progress=False),
        )
        posterior = result.posterior(data[20:])
        evidence[type(latent).__name__] = posterior.evidence().total
        if isinstance(latent, lr.Discrete):
            switch = posterior.latents(1)["switch"][0, ..., 1].numpy()
            right = ((switch > 0.5) == (paths[20:] == 1)).mean()
            assert max(right, 1 - right) > 0.95
            stays = result.model.latent.switch_logits.softmax(-1).diagonal().detach().numpy()
            np.testing.assert_allclose(stays, 0.95, atol=0.04)
    assert evidence["Discrete"] > evidence["Deterministic"] + 200


IRREGULAR = pytest.mark.filterwarnings("ignore:LatentRNN. the data have irregular times")


# -- the battery -----------------------------------------------------------------------------------------------------


def goes(observation: str) -> bool:
    """Whether the paths can be summed through the heads of a row of the registry."""
    heads, data = OBSERVATIONS[observation], make_data(OBSERVATIONS[observation])
    try:
        transition = registry.TRANSITIONS[registry.default_transition(observation)]()
        lr.LatentRNN(data.spec, transition=transition, latent=lr.Discrete(2), observations=heads.observations())
    except ValueError as error:
        return "Discrete" not in str(error)  # anything else would fail the test
    return True


@IRREGULAR
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_battery(observation: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shapes, gradients, padding, order, batches, precision and samples with every family of heads that goes."""
    if not goes(observation):
        return
    monkeypatch.setitem(registry.LATENTS, "discrete", lambda: lr.Discrete(2, driven=True))
    parts = (registry.default_transition(observation), "discrete", observation)
    battery.check_combination(parts, set(battery.TRIED) - {"context", "files"}, tmp_path)


@IRREGULAR
def test_most_families_go() -> None:
    assert sum(goes(observation) for observation in OBSERVATIONS) >= len(OBSERVATIONS) / 2
    assert not any(goes(name) for name in OBSERVATIONS if "history" in name or name == "readouts")


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("moving", [False, True])
def test_pairs_of_steps_sum_to_the_same_as_one_after_the_other(steps: int, moving: bool) -> None:
    torch.manual_seed(steps)
    evidence = torch.randn(2, 3, steps, 4, dtype=torch.float64, requires_grad=True)
    shape = (2, 3, steps, 4, 4) if moving else (1, 4, 4)
    moves = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    chain = discrete.Chain(torch.randn(4, dtype=torch.float64).log_softmax(-1), moves.log_softmax(-1))
    in_pairs, in_turn = chain.total(evidence), torch.logsumexp(chain.forward(evidence)[-1], -1)
    torch.testing.assert_close(in_pairs, in_turn, rtol=1e-12, atol=1e-12)
    both = [
        torch.autograd.grad(found.sum(), (evidence, moves), retain_graph=True, allow_unused=True)
        for found in (in_pairs, in_turn)
    ]
    torch.testing.assert_close(*both, rtol=1e-10, atol=1e-12)
    many = evidence.detach().repeat(30, 1, 1, 1)  # too much work for pairs
    if not moving:
        torch.testing.assert_close(chain.total(many)[:2], in_turn, rtol=1e-12, atol=1e-12)
