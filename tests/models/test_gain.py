"""A stimulus-gated gain against its equation in NumPy: gate, lags, and the stimulus by its root mean square."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import latentrnn as lr

RNG = np.random.default_rng(0)
LENGTHS, LAGS, FEATURES, CHANNELS, HIDDEN = (7, 5), 2, 2, 3, 4


@pytest.mark.parametrize("gated", [True, False])
def test_a_head_with_a_gain_is_its_equation(gated: bool) -> None:
    counts = [RNG.poisson(1.0, (steps, CHANNELS)).astype(float) for steps in LENGTHS]
    stimulus = [RNG.normal(1.0, 3.0, (steps, FEATURES)) for steps in LENGTHS]
    data = lr.SequenceData.from_arrays({"n": counts}, {"sound": stimulus}, dtype=torch.float64)
    head = lr.Poisson(gain=lr.StimulusGain("sound", lags=LAGS, gated=gated))
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(HIDDEN), latent=lr.Deterministic(), observations={"n": head}
    ).double()
    model.initialise(data)
    built = model.observations["n"]
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    states = torch.randn(2, 7, HIDDEN, dtype=torch.float64)
    rates = built.mean(built(states, built.inputs(data))).detach().numpy()

    weight = {name: parameter.detach().numpy() for name, parameter in built.named_parameters()}
    size = np.sqrt((np.concatenate(stimulus) ** 2).mean(0))  # of what was observed, without padding
    for number, steps in enumerate(LENGTHS):
        for t in range(steps):
            heard = [stimulus[number][t - lag] / size if t >= lag else np.zeros(FEATURES) for lag in range(LAGS)]
            s, h = np.concatenate(heard), states[number, t].numpy()
            gate = 1.0
            if gated:
                drive = weight["gain.state_weight"] @ h + weight["gain.stimulus_weight"] @ s + weight["gain.gate_bias"]
                gate = 1 / (1 + np.exp(-drive))
            eta = weight["readout.weight"] @ h + weight["readout.baseline"] + weight["gain.beta"] @ (gate * s)
            np.testing.assert_allclose(rates[number, t], np.exp(eta), rtol=1e-9)
