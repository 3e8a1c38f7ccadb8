"""The state-space models of the demo: a GRU between stimulus and spikes, with or without gain and spike history.

    h_t = GRU(h_{t-1}, [stimulus_t, spike_{t-1}]),   spikes_t ~ Poisson(exp(w . h_t + b + beta . (g_t * s_t)))

Every choice below was made on the validation stretch of recording 1 and frozen: bits per spike there were 1.41 with
windows of 200 bins taken 32 at a time, 1.74 with windows of 100 taken 4 at a time (the noise of small batches is what
keeps a GRU from learning 5.6 s of stimulus by heart), 1.40 with 20 ms of spike history in six filters and 1.73 with the
last bin alone (the GRU remembers the rest).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyro.distributions as dist

import latentrnn as lr

WINDOW, WARM_UP = 100, 50  # bins that a training window scores, and bins before it that set the state
CONTEXT = 500  # bins before validation and test stretches that set the state
PRIORS = {"weight": dist.Normal(0.0, 0.5)}


@dataclass(frozen=True)
class Variant:
    """One state-space model of the table."""

    name: str
    gain: bool
    history: bool


VARIANTS = (
    Variant("GRU", gain=False, history=False),
    Variant("GRU, gain", gain=True, history=False),
    Variant("GRU, spike history", gain=False, history=True),
    Variant("GRU, gain, spike history", gain=True, history=True),
)


def as_sequences(counts: np.ndarray, stimulus: np.ndarray, dt: float, train: slice) -> lr.SequenceData:
    """One recording as one sequence, the stimulus standardised by its training stretch."""
    reference = stimulus[train]
    return lr.SequenceData.from_arrays(
        {"spikes": counts[None].astype(float)},
        {"stimulus": stimulus[None]},
        dt=dt,
        standardise={"stimulus": (reference.mean(0), reference.std(0))},
        feature_names={"stimulus": ["amplitude", "log amplitude"]},
    )


def build(variant: Variant, spec: lr.DataSpec, *, hidden: int = 64, lags: int = 10) -> tuple[lr.LatentRNN, lr.Guide]:
    """The model and its guide, not yet fitted."""
    spikes = lr.Poisson(
        gain=lr.StimulusGain("stimulus", lags=lags) if variant.gain else None,
        feedback=lr.History(steps=1, filters=1) if variant.history else None,
    )
    model = lr.LatentRNN(
        spec,
        transition=lr.GRU(hidden),
        latent=lr.Deterministic(),
        observations={"spikes": spikes},
        inputs=["stimulus"],  # the gain's stimulus drives the state too: the receptor adapts
    )
    return model, lr.Guide(model)


def fit(
    variant: Variant, train: lr.SequenceData, validation: lr.SequenceData, *, seed: int, steps: int = 800
) -> lr.FitResult:
    """Fit to the training stretch, stopping by the validation stretch."""
    model, guide = build(variant, train.spec)
    return lr.fit(
        model,
        guide,
        train.windows(WINDOW, context=WARM_UP),
        validation=validation,
        seed=seed,
        steps=steps,
        batch_size=4,
        optimiser=lr.AdamW(learning_rate=3e-3, weight_decay=1e-2),
        stopping=lr.EarlyStopping(every=20, patience=10),
    )
