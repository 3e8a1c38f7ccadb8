# %% [markdown]
# # Recording sessions with other neurons each, and trials of unequal lengths
#
# Eight sessions record ten neurons each, never the same ones, while one two-dimensional rhythm drives them all. Trials
# last between 30 and 60 bins. Is a model of all sessions together better than one model per session?
#
# The sessions share the transition and the latent; readouts and baselines are each session's own:
#
#     h_t = GRU(h_{t-1}, z_t),   z_t ~ N(0, diag(scale^2)),   y^s_{t,n} ~ Poisson(exp(w^s_n . h_t + b^s_n))
#
# Simulated, so that the answer is known: `python examples/ragged_sessions/demo.py --out build/ragged_sessions`.

# %%
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import latentrnn as lr
from examples.gallery import options

SESSIONS, NEURONS, TRIALS, TRAIN, VALIDATION = tuple("abcdefgh"), 10, 50, 4, 8
DT = 0.02  # seconds per bin
HELD_OUT = 3  # neurons of each session that the encoder never sees: they are predicted from the others


# %%
def simulate(rng: np.random.Generator) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Counts and rates of one session, trials of (time, neuron): a noisy rotation at 2 Hz, read by exp(W x + b)."""
    angle, damping = 2 * np.pi * 2.0 * DT, 0.99
    rotation = damping * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    weights, baseline = rng.normal(size=(NEURONS, 2)), np.log(rng.uniform(0.1, 0.4, NEURONS))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    counts, rates = [], []
    for length in rng.integers(30, 61, TRIALS):
        state, path = rng.normal(0, 1, 2), []
        for _ in range(length):
            state = rotation @ state + rng.normal(0, 0.14, 2)
            path.append(state)
        rates.append(np.exp(np.array(path) @ weights.T + baseline))
        counts.append(rng.poisson(rates[-1]).astype(float))
    return counts, rates


def as_sequences(counts: list[NDArray[np.float64]]) -> lr.SequenceData:
    """Trials of unequal lengths as they are: nothing is padded by hand."""
    heads = {"seen": [trial[:, HELD_OUT:] for trial in counts], "held_out": [trial[:, :HELD_OUT] for trial in counts]}
    return lr.SequenceData.from_arrays(heads, dt=DT)


# %%
def fit(train: lr.SequenceData, validation: lr.SequenceData, steps: int) -> lr.FitResult:
    """The same model and settings for one session and for joined ones, which have a head for every session."""
    heads: dict[str, lr.Observation] = {"seen": lr.Poisson(), "held_out": lr.Poisson()}
    observes = ["seen"]
    if train.sessions is not None:
        observes = list(train.spec.session_heads("seen").values())
        heads = lr.per_session(train.spec, heads)
    model = lr.LatentRNN(train.spec, transition=lr.GRU(16), latent=lr.Innovations(2, initial=4), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(16, observes=observes, read_in=16))
    settings = {"optimizer": lr.AdamW(4e-3, weight_decay=1.0), "reporting": lr.Reporting(progress=False)}
    return lr.fit(model, guide, train, validation, steps=steps, **settings)


def score(result: lr.FitResult, test: lr.SequenceData, head: str) -> float:
    """Bits per spike of the held-out neurons in test trials, against each neuron's mean rate."""
    rates = result.posterior(test).mean(head, num_samples=30)
    return lr.bits_per_spike(rates, test.observations[head], test.scored(head))


# %%
def main() -> None:
    """Fit the sessions together and alone, and compare both with the rates that were planted."""
    given = options(__file__)
    steps = 20 if given.smoke else 500

    rng = np.random.default_rng(0)
    planted = {name: simulate(rng) for name in SESSIONS}
    ends = (TRAIN, TRAIN + VALIDATION, TRIALS)
    parts = {
        name: [as_sequences(counts[a:b]) for a, b in zip((0, *ends), ends, strict=False)]
        for name, (counts, _) in planted.items()
    }
    train, validation, test = (lr.SequenceData.join({name: part[i] for name, part in parts.items()}) for i in range(3))
    print(train)

    together = fit(train, validation, steps)
    rows = {}
    for name, (own_train, own_validation, own_test) in parts.items():
        rates = as_sequences(planted[name][1][ends[1] :]).observations["held_out"]
        rows[name] = (
            score(fit(own_train, own_validation, steps), own_test, "held_out"),
            score(together, test.session(name), f"held_out_{name}"),
            lr.bits_per_spike(rates, own_test.observations["held_out"], own_test.scored("held_out")),
        )
    print("\nbits per spike of held-out neurons\nsession   alone   together   planted rates")
    print("\n".join(f"{name:>7} {a:7.3f} {b:10.3f} {c:15.3f}" for name, (a, b, c) in rows.items()))
    gain = np.array([b - a for a, b, _ in rows.values()])
    print(f"together less alone: {gain.mean():.3f} (s.e. {gain.std(ddof=1) / len(gain) ** 0.5:.3f} over sessions)")
    if not given.smoke:
        assert gain.mean() > 0, "sessions together should predict held-out neurons better than alone"

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for values, label in zip(zip(*rows.values(), strict=True), ("alone", "together", "planted rates"), strict=True):
        axes.plot(list(rows), values, "o-", label=label)
    axes.set(xlabel="session", ylabel="bits per spike, held-out neurons")
    axes.legend()
    figure.savefig(given.out / "sessions.png", dpi=120)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: give every session more trials, and the advantage of joining them shrinks; leave out `read_in`, and
# the encoder has no common coordinates to work in; `join(..., shared=["behaviour"])` keeps what all sessions record.
