"""Comparison: a planted truth wins, the numbers are ArviZ's, and what would mislead is refused."""

import importlib.util

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.criticism import compare, elpd_data, held_out_log_likelihood
from latentrnn.data import SequenceKey
from latentrnn.inference.evidence import rungs
from latentrnn.support import arviz_generations
from tests.criticism.fakes import FakePosterior, counts_data, one_step_ahead, poisson_one_step_ahead
from tests.generations import install_arviz

TOTAL = "elpd_loo" if arviz_generations.generation() == 0 else "elpd"


def sequences(number=30, steps=20, seed=0):
    rates = torch.rand(number, steps, 2, generator=torch.Generator().manual_seed(seed)) + 0.2
    return counts_data(torch.poisson(rates, generator=torch.Generator().manual_seed(seed + 1)))


@pytest.fixture
def models():
    """Evidence far below the range of exp, a truth ahead by 2 nats a sequence, a rival noisier than it."""
    data = sequences()
    generator = torch.Generator().manual_seed(3)
    truth = -1000 + 200 * torch.randn(30, generator=generator)
    close = truth - 2 + torch.randn(30, generator=generator)
    poor = truth - 300 - 100 * torch.rand(30, generator=generator)
    return {
        "poor": FakePosterior(data, log_evidence=poor),
        "truth": FakePosterior(data, log_evidence=truth),
        "close": FakePosterior(data, log_evidence=close),
    }


def test_the_planted_truth_ranks_first_with_true_numbers(models):
    frame = compare(models)
    assert list(frame.index) == ["truth", "close", "poor"]
    assert list(frame["rank"]) == [0, 1, 2]
    values = {name: model.log_evidence.double().numpy() for name, model in models.items()}
    for name, row in frame.iterrows():
        difference = values["truth"] - values[name]
        assert row[TOTAL] == pytest.approx(values[name].sum())
        assert row["se"] == pytest.approx(np.sqrt(30 * values[name].var()))
        assert row["elpd_diff"] == pytest.approx(difference.sum())
        assert row["dse"] == pytest.approx(np.sqrt(30 * difference.var()))
    assert frame["weight"].sum() == pytest.approx(1)
    assert frame.loc["truth", "weight"] > 0.9
    assert frame.attrs["unit"] == "sequence"
    assert not frame["warning"].any()


@pytest.mark.parametrize("method", ["stacking", "BB-pseudo-BMA", "pseudo-BMA"])
def test_weights_are_those_of_arviz_where_it_does_not_underflow(method):
    generator = torch.Generator().manual_seed(0)
    data = sequences()
    evidence = {name: -20 + torch.randn(30, generator=generator) for name in "abc"}
    frame = compare(
        {name: FakePosterior(data, log_evidence=values) for name, values in evidence.items()}, method=method
    )
    elpds = {name: elpd_data(values) for name, values in evidence.items()}
    expected = arviz_generations.compare(elpds, method)
    for column in ("rank", TOTAL, "elpd_diff", "dse"):
        theirs = expected.loc[frame.index, column].astype(float)
        # ArviZ 1.3 turned the sign of the difference; ours is what a model lies behind the best, in both generations
        np.testing.assert_allclose(
            frame[column].astype(float), theirs.abs() if column == "elpd_diff" else theirs, rtol=1e-6
        )
    np.testing.assert_allclose(frame["weight"], expected.loc[frame.index, "weight"].astype(float), atol=2e-3)
    if method == "stacking":
        np.testing.assert_allclose(frame["se"], expected.loc[frame.index, "se"].astype(float), rtol=1e-6)


def test_arviz_draws_the_frame(models):
    arviz = arviz_generations.library()  # of either generation
    assert arviz.plot_compare(compare(models)) is not None


@pytest.mark.parametrize(("scale", "factor"), [("deviance", -2.0), ("negative_log", -1.0)])
def test_scales_keep_the_order(models, scale, factor):
    frame, log = compare(models, scale=scale), compare(models)
    assert list(frame.index) == list(log.index)
    np.testing.assert_allclose(frame[TOTAL], factor * log[TOTAL])
    np.testing.assert_allclose(frame["elpd_diff"], abs(factor) * log["elpd_diff"])
    np.testing.assert_allclose(frame["dse"], abs(factor) * log["dse"])
    assert set(frame["scale"]) == {scale}


def test_an_over_fitted_rival_wins_in_sample_and_loses_held_out():
    """Rates fitted sequence by sequence memorise training counts; held out they are another draw's rates."""
    rng = np.random.default_rng(0)
    won = 0
    for _ in range(20):
        train, test = rng.poisson(2.0, (2, 40, 15, 2)).astype(float)
        memorised = np.maximum(train.mean(1, keepdims=True), 0.1)

        def evidence(rates, counts):
            rates = torch.as_tensor(np.broadcast_to(rates, counts.shape).copy())
            return torch.distributions.Poisson(rates).log_prob(torch.as_tensor(counts)).sum((1, 2))

        data = counts_data(test)
        frame = compare(
            {
                "memory": FakePosterior(data, log_evidence=evidence(memorised, test)),
                "truth": FakePosterior(data, log_evidence=evidence(2.0, test)),
            }
        )
        assert evidence(memorised, train).sum() > evidence(2.0, train).sum()
        won += frame.index[0] == "truth" and frame["elpd_diff"].iloc[1] > 2 * frame["dse"].iloc[1]
    assert won == 20


def test_order_of_the_sequences_does_not_matter(models):
    data = models["truth"].data
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    shuffled = FakePosterior(data[order.tolist()], log_evidence=models["close"].log_evidence[order])
    frame = compare({**models, "close": shuffled})
    np.testing.assert_allclose(frame["dse"], compare(models)["dse"])


def test_monte_carlo_error_beyond_the_difference_is_marked(models):
    noisy = FakePosterior(models["close"].data, log_evidence=models["close"].log_evidence, monte_carlo=10.0)
    frame = compare({"truth": models["truth"], "close": noisy, "poor": models["poor"]})
    assert frame.loc["close", "mc_se"] == pytest.approx(10 * np.sqrt(30))
    assert frame["warning"].to_dict() == {"truth": False, "close": True, "poor": False}
    noisy = FakePosterior(models["poor"].data, log_evidence=models["poor"].log_evidence, monte_carlo=10.0)
    frame = compare({"truth": models["truth"], "poor": noisy})
    assert not frame["warning"].any()  # thousands of nats apart


def recording(rates, counts, **options):
    return poisson_one_step_ahead(rates, counts, **options)


def test_one_long_recording_is_compared_by_blocks():
    rates = torch.rand(1, 5000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.poisson(rates, generator=torch.Generator().manual_seed(1))
    items = {"mean": recording(rates.mean().expand_as(rates), counts), "truth": recording(rates, counts)}
    frame = compare(items, block_length=100)
    gain = (items["truth"].log_prob - items["mean"].log_prob).reshape(50, 100).sum(1).numpy()
    assert list(frame.index) == ["truth", "mean"]
    assert frame.loc["mean", "elpd_diff"] == pytest.approx(gain.sum())
    assert frame.loc["mean", "dse"] == pytest.approx(np.sqrt(50 * gain.var()))
    assert frame.attrs["num_units"] == 50
    assert "block of 100 steps" in frame.attrs["unit"]


def test_joint_and_separate_densities_of_one_head_compare():
    observed = torch.randn(6, 20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(observed)
    separate = one_step_ahead(log_prob, observed, observed)
    joint = one_step_ahead(
        log_prob.sum(-1, keepdim=True) - 0.1, observed, observed, standard_error=torch.full((6, 20, 1), 0.01)
    )
    frame = compare({"joint": joint, "separate": separate})
    assert frame.loc["joint", "elpd_diff"] == pytest.approx(0.1 * 120)
    assert frame.loc["joint", "mc_se"] == pytest.approx(0.01 * np.sqrt(120))


DATA = sequences()
EVIDENCE = torch.linspace(-10, -5, 30)
GOOD = FakePosterior(DATA, log_evidence=EVIDENCE)
KEY = DATA.keys[4]
HIDDEN = torch.zeros(30, 20, 2, dtype=torch.bool)
HIDDEN[0, 0, 0] = True
ONE = recording(torch.ones(6, 10, 1), torch.ones(6, 10, 1))


def posterior(data=DATA, **options):
    return FakePosterior(data, log_evidence=EVIDENCE[: len(data)], **options)


ERRORS = {
    "one model": ({"a": GOOD}, {}, ValueError, "at least 2"),
    "scale": ({"a": GOOD, "b": GOOD}, {"scale": "bits"}, ValueError, "scale must be one of 'log'"),
    "other data": (
        {"a": GOOD, "b": posterior(sequences(seed=9))},
        {},
        ValueError,
        r"b: its data are not those of 'a' \(0",
    ),
    "fewer data": ({"a": GOOD, "b": posterior(DATA[:20])}, {}, ValueError, "20 sequences shared, of 20 and 30"),
    "in sample": (
        {"a": GOOD, "b": posterior(used=frozenset(DATA.keys))},
        {},
        ValueError,
        "b: 30 of 30 sequences were used to fit it or to stop",
    ),
    "one sequence in sample": (
        {"a": posterior(used=frozenset({SequenceKey(KEY.key, 3, 5)})), "b": GOOD},
        {"held_out": True},
        ValueError,
        "a: 1 of 30 .*over-fitted.*az.loo",
    ),
    "unknown origin": ({"a": GOOD, "b": posterior(used=None)}, {}, ValueError, "b: cannot tell.*held_out=True"),
    "other heads": (
        {"a": GOOD, "b": posterior(heads=["spikes", "field"])},
        {},
        ValueError,
        r"b: scores heads \['field', 'spikes'\], 'a' scores \['spikes'\]",
    ),
    "other mask": (
        {"a": GOOD, "b": posterior(DATA.mask_entries("spikes", HIDDEN))},
        {},
        ValueError,
        "b: scores other entries of head 'spikes'",
    ),
    "other values": (
        {"a": GOOD, "b": posterior(DATA.with_observations({"spikes": DATA.observations["spikes"] + 1}))},
        {},
        ValueError,
        "observations of head 'spikes' differ",
    ),
    "few sequences": ({"a": posterior(DATA[:4]), "b": posterior(DATA[:4])}, {}, ValueError, "4 units .* need 5"),
    "not finite": (
        {"a": GOOD, "b": FakePosterior(DATA, log_evidence=torch.full((30,), -float("inf")))},
        {},
        ValueError,
        "b: log density -inf of unit 0 is not finite",
    ),
    "mixture": ({"a": GOOD, "b": ONE}, {}, TypeError, r"got both, one-step-ahead results being \['b'\]"),
    "blocks of evidence": ({"a": GOOD, "b": GOOD}, {"block_length": 5}, ValueError, "only for one-step-ahead"),
    "block length": (
        {"a": ONE, "b": ONE},
        {"block_length": 0},
        ValueError,
        "block_length must be a positive integer; found 0",
    ),
    "other head": (
        {"a": ONE, "b": recording(torch.ones(6, 10, 1), torch.ones(6, 10, 1), head="field")},
        {},
        ValueError,
        "b: scores head 'field', 'a' scores 'spikes'",
    ),
    "one step ahead of unknown origin": (
        {"a": ONE, "b": recording(torch.ones(6, 10, 1), torch.ones(6, 10, 1), used=None)},
        {},
        ValueError,
        "b: cannot tell",
    ),
    "one step ahead in sample": (
        {"a": ONE, "b": recording(torch.ones(6, 10, 1), torch.ones(6, 10, 1), used=frozenset(ONE.keys[:2]))},
        {},
        ValueError,
        "b: 2 of 6 sequences were used",
    ),
    "one recording whole": (
        {
            "a": recording(torch.ones(1, 10, 1), torch.ones(1, 10, 1)),
            "b": recording(torch.ones(1, 10, 1), torch.ones(1, 10, 1)),
        },
        {},
        ValueError,
        "1 units .*block_length",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_would_mislead_is_refused(case):
    models, options, error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        compare(models, **options)


def test_nothing_expensive_runs_before_a_refusal():
    class Expensive(FakePosterior):
        def evidence(self, kind="auto", num_particles=64):
            raise AssertionError("evaluated before it was refused")

    with pytest.raises(ValueError, match="were used"):
        compare({"a": Expensive(DATA), "b": Expensive(DATA, used=frozenset(DATA.keys))})


@pytest.mark.skipif(importlib.util.find_spec("arviz_stats") is None, reason="the ArviZ 1.x stack is not installed")
def test_the_newer_arviz_takes_the_same_values(models, monkeypatch):
    old = compare(models)
    install_arviz(monkeypatch, None)
    new = compare(models)
    assert list(new.index) == list(old.index)
    np.testing.assert_allclose(new["elpd"], old[TOTAL])
    np.testing.assert_allclose(new["dse"], old["dse"])
    np.testing.assert_allclose(new["weight"].astype(float), old["weight"].astype(float), atol=1e-4)


# -- numbers that are not to be believed -----------------------------------------------------------------------------


def test_a_comparison_does_not_rest_on_a_bad_number_in_silence(models):
    shape = torch.full((30,), 0.4)
    shape[:7] = 1.3
    bad = FakePosterior(models["close"].data, log_evidence=models["close"].log_evidence, pareto_k=shape)
    good = FakePosterior(models["truth"].data, log_evidence=models["truth"].log_evidence, pareto_k=shape.clamp(max=0.4))
    with pytest.warns(UserWarning, match="compare: 'bad': .*k-hat up to 1.30; not to be believed for 7 of 30.*try "):
        frame = compare({"good": good, "bad": bad})
    assert frame["warning"].to_dict() == {"good": False, "bad": True}
    assert frame["doubtful"].to_dict() == {"good": 0, "bad": 7}
    assert frame["pareto_k"].to_dict() == pytest.approx({"good": 0.4, "bad": 1.3})
    assert frame["ess"].to_dict() == {"good": 9.0, "bad": 9.0}
    assert good.asked == {"kind": "auto", "num_particles": 64}
    compare({"good": good, "again": good}, kind="smc", num_particles=np.int64(10))
    assert good.asked == {"kind": "smc", "num_particles": 10}


def test_a_held_out_score_says_what_it_rests_on(models):
    good = held_out_log_likelihood(models["truth"])
    assert "k-hat" not in str(good)
    shape = torch.full((30,), 0.9)
    bad = FakePosterior(models["truth"].data, log_evidence=models["truth"].log_evidence, pareto_k=shape)
    with pytest.warns(UserWarning, match="held_out_log_likelihood: .*not to be believed for 30 of 30"):
        score = held_out_log_likelihood(bad)
    assert float(score) == float(good)
    assert "k-hat up to 0.90; not to be believed for 30 of 30" in str(score)
    assert str(score) in repr(score)


@pytest.mark.parametrize(
    "score", [lambda p: compare({"a": p, "b": p}, kind="elbo"), lambda p: held_out_log_likelihood(p, kind="elbo")]
)
def test_a_bound_whose_gap_is_the_guide_s_decides_nothing(score):
    with pytest.raises(ValueError, match="kind must be one of 'auto', 'iwae', 'smc', 'ais', 'exact'; found 'elbo'"):
        score(GOOD)


def test_the_guide_does_not_decide_between_a_model_and_itself(monkeypatch):
    """The same model with a guide that follows the data and one that was never trained: as good as each other."""
    monkeypatch.setattr(rungs, "SHORT", 20)  # so that what is said of long sequences takes no long test
    rng = np.random.default_rng(1)
    data = lr.SequenceData.from_arrays({"s": rng.poisson(1.0, (5, 40, 2)).astype(float)}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.Innovations(1), observations={"s": lr.Poisson()}
    ).double()
    with torch.no_grad():
        model.transition.recurrent_weight.fill_(0.9)
        model.transition.input_weight.fill_(0.3)
        model.observations["s"].readout.weight.fill_(0.5)
    posteriors = {}
    for name, moved in (("good", 0.0), ("bad", 1.5)):
        guide = lr.Guide(model, encoder=lr.RNNEncoder(2)).double()
        with torch.no_grad():
            guide.local.heads["innovations"].map.weight.zero_()
            guide.local.heads["innovations"].map.bias.copy_(torch.tensor([moved, 0.54], dtype=torch.float64))
        posteriors[name] = lr.Posterior(model, guide, data, device="cpu")
    frame = compare(posteriors, held_out=True, num_particles=64)
    error = np.hypot(*frame["mc_se"])
    assert frame["elpd_diff"].iloc[1] < 5 * error
    assert error < 2
    assert set(frame["kind"]) == {"smc"}
    # as importance weights alone have it
    with pytest.warns(UserWarning, match="compare: 'good': "), pytest.warns(UserWarning, match="compare: 'bad': "):
        wrong = compare(posteriors, held_out=True, kind="iwae")
    assert list(wrong.index) == ["good", "bad"]
    assert wrong["elpd_diff"].iloc[1] > 5 * np.hypot(*wrong["mc_se"])
    assert wrong.loc["bad", "warning"]
