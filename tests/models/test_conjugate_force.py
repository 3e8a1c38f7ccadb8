"""A stress that is the derivative of the cell's energy creates none over closed cycles; one that is read out does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import latentrnn as lr

Array = NDArray[np.float64]
PERIOD, CYCLES = 48, 6


def data_of(strain: Array, stress: Array) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"stress": stress}, {"strain": strain}, dt=1.0, dtype=torch.float64)


def model_of(data: lr.SequenceData, readout: lr.Readout | None, width: int = 8) -> lr.LatentRNN:
    return lr.LatentRNN(
        data.spec,
        transition=lr.ThermodynamicCell(4, width=width),
        latent=lr.Deterministic(),
        observations={"stress": lr.Gaussian(readout=readout)},
    ).double()


def work_of_last_cycle(model: lr.LatentRNN, data: lr.SequenceData) -> float:
    """The trapezoidal sum of stress d(strain) over the last of many cycles, when the state goes round too."""
    stress = lr.Posterior(model, lr.Guide(model), data).mean("stress", 1)[0, -PERIOD - 1 :, 0].double()
    strain = data.covariates["strain"][0, -PERIOD - 1 :, 0].double()
    return float((0.5 * (stress[1:] + stress[:-1]) * strain.diff()).sum())


def cycles(seed: int) -> Array:
    """A closed loop of two harmonics, gone round many times, (1, time, 1)."""
    rng = np.random.default_rng(seed)
    time = 2 * np.pi * np.arange(PERIOD * CYCLES + 1) / PERIOD
    loop = rng.uniform(0.5, 2.0) * np.sin(time) + rng.uniform(0.0, 0.5) * np.sin(2 * time + rng.uniform(0, 6))
    return loop[None, :, None]


def negative_work(readout: bool, seeds: range) -> list[int]:
    """The seeds whose untrained, strongly nonlinear model creates energy."""
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        strain = cycles(seed)
        data = data_of(strain, np.zeros_like(strain))
        model = model_of(data, lr.ConjugateForce("strain") if readout else None)
        with torch.no_grad():
            model.transition.energy_scale.mul_(3.0)
            model.transition.drive_weight.mul_(2.0)
            if readout:
                model.observations["stress"].readout.elasticity.normal_()
                model.observations["stress"].readout.log_scale.normal_()
        if work_of_last_cycle(model, data) < 0:
            found.append(seed)
    return found


def test_closed_cycles_create_no_energy() -> None:
    assert negative_work(True, range(12)) == []


def test_a_linear_readout_does_create_energy() -> None:
    """The negative control: with the same cells, whose dissipation is never negative either."""
    assert len(negative_work(False, range(12))) >= 3


def test_the_force_is_the_derivative_of_the_energy() -> None:
    torch.manual_seed(0)
    cell = lr.ThermodynamicCell(3, width=5)
    cell.dt = 0.1
    cell.build(3)
    cell.double()
    state, inputs = torch.randn(7, 3, dtype=torch.float64), torch.rand(7, 3, dtype=torch.float64, requires_grad=True)
    (by_autograd,) = torch.autograd.grad(cell.energy(state, inputs).sum(), inputs)
    found = cell.conjugate_force(state, inputs[..., 1:])
    assert torch.allclose(found, by_autograd[..., 1:], rtol=0, atol=1e-12)


def maxwell_element() -> lr.SequenceData:
    """Noisy stress of a Maxwell element beside a spring."""
    rng = np.random.default_rng(0)
    strain = np.cumsum(0.3 * rng.normal(size=(24, 40, 1)), 1)
    stress, viscous = np.zeros_like(strain), np.zeros((24, 1))
    for step in range(strain.shape[1]):
        stress[:, step] = 2.0 * strain[:, step] + 5.0 * (strain[:, step] - viscous)
        viscous = viscous + 0.1 * (strain[:, step] - viscous)
    return data_of(strain, stress + 0.05 * rng.normal(size=stress.shape)).to(dtype=torch.float32)


@pytest.mark.slow
def test_it_learns_the_stress_of_a_maxwell_element() -> None:
    """Which the model can be: all but the noise is explained."""
    data = maxwell_element()
    model = model_of(data, lr.ConjugateForce("strain"), width=4).float()
    optimiser = lr.AdamW(learning_rate=0.02)
    result = lr.fit(
        model, lr.Guide(model), data[:18], steps=300, optimizer=optimiser, reporting=lr.Reporting(progress=False)
    )
    test = data[18:]
    found, stress = result.posterior(test).mean("stress", 1), test.observations["stress"]
    assert 1 - (found - stress).square().sum() / (stress - stress.mean()).square().sum() > 0.98


def test_it_survives_saving(tmp_path: Path) -> None:
    data = maxwell_element()
    model = model_of(data, lr.ConjugateForce("strain"), width=4).float()
    result = lr.fit(model, lr.Guide(model), data, steps=2, reporting=lr.Reporting(progress=False))
    result.save(tmp_path / "fit")
    again = lr.load(tmp_path / "fit")
    assert torch.equal(again.posterior(data).mean("stress", 1), result.posterior(data).mean("stress", 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transition": lr.GRU(3)}, "needs a ThermodynamicCell"),
        ({"latent": lr.Innovations(1)}, "no readout sees"),
        ({"readout": lr.ConjugateForce("other")}, "'other' does not drive the transition"),
        ({"inputs": []}, "'strain' does not drive the transition"),
        ({"channels": 2}, "the head has 2 outputs"),
    ],
)
def test_what_it_does_not_go_with_is_refused(options: dict[str, object], message: str) -> None:
    channels = options.pop("channels", 1)
    data = data_of(np.ones((2, 5, 1)) * np.arange(5.0)[:, None], np.zeros((2, 5, channels)))  # type: ignore[arg-type]
    readout = options.pop("readout", lr.ConjugateForce("strain"))
    parts = {"transition": lr.ThermodynamicCell(3), "latent": lr.Deterministic()} | options
    with pytest.raises(ValueError, match=message):
        lr.LatentRNN(data.spec, observations={"stress": lr.Gaussian(readout=readout)}, **parts)  # type: ignore[arg-type]


def test_every_way_of_asking_gives_the_same_stress() -> None:
    """Whole, step by step in particle filters, online and in forecasts: the strain that a step sees is its own."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    strain = np.cumsum(rng.normal(size=(4, 9, 1)), 1)
    data = data_of(strain, rng.normal(size=strain.shape))
    parts = {"transition": lr.ThermodynamicCell(3, width=4), "latent": lr.Deterministic()}
    model = lr.LatentRNN(
        data.spec, observations={"stress": lr.Gaussian(readout=lr.ConjugateForce("strain"))}, **parts
    ).double()
    posterior = lr.Posterior(model, lr.Guide(model), data)
    whole = posterior.mean("stress", 1)
    assert torch.allclose(posterior.one_step_ahead("stress", 2, 2).mean, whole, atol=1e-12)
    begun = lr.Posterior(model, lr.Guide(model), data.time_slice(0, 6))
    ahead = begun.forecast(3, {"strain": strain[:, 6:]}, num_samples=2000).mean("stress")
    assert torch.allclose(ahead, whole[:, 6:], atol=6 * 2000**-0.5)
    online = lr.OnlineFilter(posterior, num_particles=2)
    for step in range(9):
        state = online.update({"stress": data.observations["stress"][0, step]}, {"strain": strain[0, step]})
        assert torch.allclose(state.predicted["stress"], whole[0, step], atol=1e-12)


def test_a_random_start_goes_with_it() -> None:
    rng = np.random.default_rng(0)
    strain = np.cumsum(rng.normal(size=(4, 9, 1)), 1)
    data = data_of(strain, rng.normal(size=strain.shape)).to(dtype=torch.float32)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.ThermodynamicCell(3, width=4),
        latent=lr.InitialState(2),
        observations={"stress": lr.Gaussian(readout=lr.ConjugateForce("strain"))},
    )
    result = lr.fit(
        model,
        lr.Guide(model, encoder=lr.RNNEncoder(3)),
        data,
        steps=2,
        objective=lr.ELBO(num_particles=2),
        reporting=lr.Reporting(progress=False),
    )
    posterior = result.posterior(data)
    assert posterior.predictive(3)["stress"].shape == (3, 4, 9, 1)
    for kind in ("elbo", "iwae", "smc"):
        assert bool(posterior.evidence(kind, 8).values.isfinite().all())


@pytest.mark.parametrize("latent", [lr.MarkovNormal(), lr.Discrete(2), lr.RecurrentNormal(2)], ids=repr)
def test_states_that_are_drawn_themselves_are_refused(latent: lr.Latent) -> None:
    data = data_of(np.ones((2, 5, 1)) * np.arange(5.0)[:, None], np.zeros((2, 5, 1)))
    heads = {"stress": lr.Gaussian(readout=lr.ConjugateForce("strain"))}
    with pytest.raises(ValueError, match="states that are drawn themselves come in too"):
        lr.LatentRNN(data.spec, transition=lr.ThermodynamicCell(3), latent=latent, observations=heads)


def test_a_per_sequence_head_has_no_strain_of_its_own() -> None:
    data = lr.SequenceData.from_arrays(
        {"stress": np.zeros((4, 1))}, {"strain": np.ones((4, 5, 1))}, per_sequence=["stress"]
    )
    heads = {"stress": lr.Gaussian(readout=lr.ConjugateForce("strain"))}
    with pytest.raises(ValueError, match="ConjugateForce reads states along time, but a per-sequence head"):
        lr.LatentRNN(data.spec, transition=lr.ThermodynamicCell(3), latent=lr.Deterministic(), observations=heads)
