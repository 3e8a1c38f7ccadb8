"""Posteriors whose fault is known get the verdict that names it, and a good one none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.posterior.diagnosis import ADVICE
from tests.inference.evidence.test_evidence import inexact
from tests.linear_gaussian import as_data, as_model, exact_guide, random_problem

QUICK = lr.AIS(temperatures=12, leapfrog=4)


def white(seed: int = 0, noise: float = 1.0) -> tuple[lr.SequenceData, lr.LatentRNN]:
    """y_t = 2 u_t + noise, u_t white: the posterior is independent over steps, with known moments."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(6, 8, 1))
    data = lr.SequenceData.from_arrays({"y": 2 * u + noise * rng.normal(size=u.shape)}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.Innovations(1), observations={"y": lr.Gaussian()}
    ).double()
    with torch.no_grad():
        model.transition.recurrent_weight.zero_(), model.transition.bias.zero_()
        model.transition.input_weight.fill_(1.0)
        model.observations["y"].readout.weight.fill_(2.0), model.observations["y"].readout.baseline.zero_()
        model.observations["y"].log_noise_scale.fill_(math.log(noise))
        model.latent.log_scale.zero_()
    return data, model


def guided(data: lr.SequenceData, model: lr.LatentRNN, *, gain: float, scale: float) -> lr.Guide:
    """q(u_t) = Normal(gain y_t, scale^2)."""
    encoder = lr.StepEncoder()
    guide = lr.Guide(model, encoder=encoder).double()
    guide.initialise(model, data)
    head = guide.local.heads["innovations"]
    features = guide.encoder(data).steps
    with torch.no_grad():
        design = torch.cat([features.flatten(0, 1), torch.ones(data.num_steps * len(data), 1).double()], -1)
        target = gain * data.observations["y"].flatten(0, 1)
        solved = torch.linalg.lstsq(design, target).solution.squeeze(-1)
        head.map.weight.zero_()
        head.map.weight[0], head.map.bias[0] = solved[:-1], solved[-1]
        head.map.bias[1] = math.log(math.expm1(scale - 1e-5)) - math.log(math.expm1(0.3))
    return guide


def test_an_exact_guide_is_good() -> None:
    problem = random_problem(0, [6, 5, 4])
    data = as_data(problem)
    found = lr.Posterior(as_model(problem, data), exact_guide(problem), data, device="cpu").diagnose(annealing=QUICK)
    assert found.findings == ("good",)
    assert found.verdict == ADVICE["good"]
    assert abs(found.gap) < 1e-8
    assert found.amortisation_gap is None
    assert all(values.min() > 0.02 for values in found.kl.values())
    text = str(found)
    for part in ("elbo", "iwae", "ais", "k-hat above 0.7: 0 of 3", "KL of states", "good: Nothing to complain about"):
        assert part in text


def test_a_close_amortised_guide_is_good_and_its_divergence_is_the_known_one() -> None:
    data, model = white()
    guide = guided(data, model, gain=0.4, scale=1 / 5**0.5)
    found = lr.Posterior(model, guide, data, device="cpu").diagnose(annealing=QUICK)
    assert found.findings == ("good",), str(found)
    mean = (0.4 * data.observations["y"]) ** 2
    expected = float((0.5 * (0.2 - 1 - math.log(0.2) + mean)).mean())
    assert found.kl["innovations"].item() == pytest.approx(expected, rel=0.05)
    assert found.active["innovations"].tolist() == [True]
    assert abs(found.amortisation_gap) < 0.5
    assert set(found.signal_to_noise) == {"encoder", "model"}
    assert all(math.isfinite(value) and value >= 0 for value in found.signal_to_noise.values())


def test_a_collapsed_guide_is_called_so() -> None:
    data, model = white()
    with torch.no_grad():
        model.observations["y"].readout.weight.zero_()
    found = lr.Posterior(model, guided(data, model, gain=0.0, scale=1.0), data, device="cpu").diagnose(annealing=QUICK)
    assert found.findings == ("collapsed",), str(found)
    assert "KLWarmUp" in found.verdict
    assert found.active["innovations"].tolist() == [False]
    assert found.kl["innovations"].item() < 0.02


def test_a_guide_that_is_too_narrow_is_called_so() -> None:
    problem = random_problem(1, [8, 7, 6, 8])
    data = as_data(problem)
    guide, gap = inexact(problem, inflate=0.15, shift=0.0)
    posterior = lr.Posterior(as_model(problem, data), guide, data, device="cpu")
    found = posterior.diagnose(300, annealing=lr.AIS(temperatures=24, leapfrog=5))
    assert found.findings[0] == "narrow", str(found)
    assert "loose" in found.findings
    assert found.gap == pytest.approx(gap.mean(), abs=0.5 * gap.mean())
    assert (found.pareto_k > 0.7).double().mean() > 0.25
    assert found.width > 0.5
    # negative control: too wide is loose, and not narrow
    wide, gap = inexact(problem, inflate=2.2, shift=0.0)
    other = lr.Posterior(as_model(problem, data), wide, data, device="cpu").diagnose(300, annealing=QUICK)
    assert "loose" in other.findings, str(other)
    assert "narrow" not in other.findings
    assert other.width < -0.5


def test_an_encoder_that_errs_is_blamed() -> None:
    data, model = white()
    guide = guided(data, model, gain=0.1, scale=1 / 5**0.5)
    found = lr.Posterior(model, guide, data, device="cpu").diagnose(annealing=QUICK)
    assert "amortisation" in found.findings, str(found)
    assert found.amortisation_gap > 0.5 * found.gap
    assert "refined" in found.verdict


def test_a_dimension_that_is_not_used_is_noticed() -> None:
    data, _ = white()
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.Innovations(2), observations={"y": lr.Gaussian()}
    ).double()
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3)).double()
    with torch.no_grad():
        head = guide.local.heads["innovations"]
        head.map.weight.zero_()
        unit = math.log(math.expm1(1 - 1e-5)) - math.log(math.expm1(0.3))
        head.map.bias.copy_(torch.tensor([0.0, 0.0, 0.0, unit]))
        model.transition.input_weight.zero_()
    found = lr.Posterior(model, guide, data, device="cpu").diagnose(annealing=QUICK)
    assert found.findings[0] == "unused", str(found)
    assert found.kl["innovations"][0] > 0.1 > 0.02 > found.kl["innovations"][1]


def test_mistakes() -> None:
    data, model = white()
    posterior = lr.Posterior(model, guided(data, model, gain=0.4, scale=0.4), data, device="cpu")
    with pytest.raises(ValueError, match="diagnose: num_particles must be at least 25, for k-hat; found 10"):
        posterior.diagnose(10)
    still = lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Gaussian()}
    ).double()
    with pytest.raises(ValueError, match="diagnose: the model has no latents of single sequences"):
        lr.Posterior(still, lr.Guide(still), data, device="cpu").diagnose()
