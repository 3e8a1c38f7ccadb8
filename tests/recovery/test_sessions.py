"""Sessions with disjoint channels that read one Lorenz system: fitted together, held-out channels are predicted better.

Every session alone is starved: five training sequences, eight neurons shown to the encoder. Together they have one
transition and one recurrent encoder to learn, and each its own read-in and readouts. Weight decay, read-in and learning
rate were chosen on the sequences that they are scored on, but on those of another simulation, that of seed 0.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch

import latentrnn as lr
from tests.recovery.simulate import Array, paired_errors, shared_lorenz

pytestmark = pytest.mark.slow

SEED = 101
SESSIONS = 8
STARVED, PLENTY = 5, 60  # training sequences of a session
VALID, TEST = 5, 20


class Scores(NamedTuple):
    """Bits per spike of held-out channels in held-out sequences, one entry per session."""

    joint: Array
    alone: Array
    truth: Array  # of the rates that the counts were drawn from


def fit(train: lr.SequenceData, valid: lr.SequenceData, seed: int, steps: int) -> lr.FitResult:
    """One architecture, step budget and stopping rule for sessions together and alone: alone, each has the budget."""
    heads = {"heldin": lr.Poisson(), "heldout": lr.Poisson()}
    shown = ["heldin"]
    if train.sessions is not None:
        shown = list(train.spec.session_heads("heldin").values())
        heads = lr.per_session(train.spec, heads)
    model = lr.LatentRNN(train.spec, transition=lr.GRU(32), latent=lr.Innovations(2, initial=8), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(24, observes=shown, read_in=32))
    return lr.fit(
        model,
        guide,
        train,
        valid,
        seed=seed,
        steps=steps,
        batch_size=64,
        optimizer=lr.AdamW(learning_rate=4e-3, weight_decay=1.0),
        stopping=lr.EarlyStopping(every=20, patience=5),
        compute=lr.Compute(device="cpu"),
        reporting=lr.Reporting(progress=False),
    )


def bits(result: lr.FitResult, test: lr.SequenceData, head: str) -> float:
    rates = result.posterior(test, device="cpu").mean(head, num_samples=30)
    return lr.bits_per_spike(rates, test.observations[head])


@cache
def scores(sessions: int, sequences: int, seed: int = SEED, steps: int = 250) -> Scores:
    planted = shared_lorenz(seed, sessions, sequences + VALID + TEST)
    parts: dict[str, list[lr.SequenceData]] = {}
    for name, counts in planted.held_in.items():
        data = lr.SequenceData.from_arrays({"heldin": counts, "heldout": planted.held_out[name]}, dt=0.01)
        parts[name] = [data[:sequences], data[sequences : sequences + VALID], data[sequences + VALID :]]
    train, valid, test = (lr.SequenceData.join({name: part[i] for name, part in parts.items()}) for i in range(3))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        together = fit(train, valid, seed, steps)
        joint = [bits(together, test.session(name), f"heldout_{name}") for name in parts]
        alone = [bits(fit(part[0], part[1], seed, steps), part[2], "heldout") for part in parts.values()]
    finally:
        torch.set_num_threads(threads)
    truth = [
        lr.bits_per_spike(planted.rates[name][sequences + VALID :], part[2].observations["heldout"])
        for name, part in parts.items()
    ]
    return Scores(np.array(joint), np.array(alone), np.array(truth))


def test_held_out_channels_are_predicted_better_jointly() -> None:
    """The mean paired difference over eight sessions is more than two of its standard errors above zero."""
    found = scores(SESSIONS, STARVED)
    assert paired_errors(found.joint, found.alone) > 2
    assert (found.joint - found.alone).mean() > 0.04
    # both predict something, and neither more than the rates that the counts were drawn from
    assert found.alone.mean() > 0.1
    assert (found.joint < found.truth).all()


def test_sessions_with_plenty_of_data_need_no_others() -> None:
    """The control: what is gained above is the want of data, not the joint model's size or the fit's good luck.

    With fewer steps, which cost the sessions with plenty of data little and save a third of the time.
    """
    rich, poor = scores(2, PLENTY, steps=150), scores(SESSIONS, STARVED)
    assert rich.alone.mean() > poor.joint.mean()
    assert (rich.joint - rich.alone).mean() < 0.5 * (poor.joint - poor.alone).mean()
