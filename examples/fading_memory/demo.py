# %% [markdown]
# # Fading memory: what is left of a gradient after 60 steps, and whether it suffices to learn
#
# A value is shown once and asked for 60 steps later, with distraction in between:
#
#     x_0 ~ Normal(0, 1),   x_1 ... x_60 ~ Normal(0, 0.3),   y ~ Normal(x_0, 0.1)
#
# A fit can only learn to hold it if some of the gradient reaches the first step. For a vanilla RNN that is turned by an
# orthogonal matrix of spectral radius r, r^60 is left at rest; of a cell whose forget gate (LSTM) or kept share (GRU)
# is f, f^60: 0.95^60 is 4.6%, 0.962^60 10%, 0.5^60 nothing, and above one it explodes. Fits start from weights that
# plant these numbers; what is left is measured, not typed in.
#
# The other way round, when should a memory fade? A cue says that the past is worth nothing from here on. A GRU can drop
# it by its reset gate, r_t = 0: n_t = tanh(W x_t + r_t U h_{t-1}) starts afresh, and h_t = n_t where the update gate is
# one. Does it, and only where the cue says so? Simulated: `python examples/fading_memory/demo.py`.

# %%
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

import latentrnn as lr
from examples.fading_memory.figure import draw
from examples.fading_memory.restart import Gates, by_regression, opened
from examples.fading_memory.starts import STARTS, UNITS, plant
from examples.gallery import Result, options, ranged
from examples.simulate import Array, Delayed, delayed

DELAY = 60
LAGS = [1, *range(5, DELAY + 1, 5)]
CUES, GATES = ("a change", "nothing"), ("reset", "update", "passed")


def as_sequences(found: Delayed) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"answer": found.answer}, {"x": found.inputs}, per_sequence=["answer"])


def learned(name: str, train: Delayed, test: Delayed, seed: int, steps: int) -> tuple[Array, float]:
    """Return the norms of the gradient by lag before the fit, at rest, and the variance explained after it."""
    (make, kept), data, held_out = STARTS[name], as_sequences(train), as_sequences(test)
    heads = {"answer": lr.Gaussian()}
    model = lr.LatentRNN(data.spec, transition=make(UNITS), latent=lr.Deterministic(), observations=heads)
    guide, quiet = lr.Guide(model), lr.Reporting(progress=False)
    begun = lr.fit(model, guide, data, steps=1, seed=seed, optimizer=lr.AdamW(1e-6), reporting=quiet)
    torch.manual_seed(seed)
    plant(begun.model.transition.kernel, kept)
    silent = as_sequences(Delayed(0 * test.inputs[:1] + train.inputs.mean(), test.answer[:1]))
    of = "cell" if make is lr.LSTM else "output"
    flow = lr.interpret.gradient_flow(begun.posterior(silent), LAGS, of, num_samples=1)
    options = {"optimizer": lr.AdamW(5e-3, weight_decay=0.0), "batch_size": 64, "reporting": quiet}
    result = lr.fit(model, guide, data, steps=steps, seed=seed, start_from=begun, **options)
    errors = result.posterior(held_out).mean("answer", 1).numpy() - test.answer
    return flow.norm.values[0, 0], float(1 - np.mean(errors**2) / test.answer.var())


def heeded(fits: list[Gates], cue: str) -> str:
    """Check that gates heed a cue where it tells of a change, and there alone; say what they do."""
    reset, update, passed = (np.array([fit.change(gate) for fit in fits]) for gate in GATES)  # (seed, before or at)
    shut, let = reset[:, 1] / reset[:, 0], passed[:, 1] / passed[:, 0]
    if cue == "a change":
        assert shut.max() < 0.5, "at a change the reset gate should shut"
        assert let.max() < 0.75, "so that less of the past should be let through"
        assert (update[:, 1] > update[:, 0] + 0.2).all(), "and the update gate open"
        assert min(fit.explained for fit in fits) > 0.98, "so that the fit follows a memory that is emptied"
    else:
        assert min(shut.min(), let.min()) > 0.85, "gates should be deaf to a cue that tells nothing"
    moves = zip(GATES, (reset, update, passed), strict=True)
    return f"{cue}: " + ", ".join(f"{k} {ranged(v[:, 0], '.2f')} to {ranged(v[:, 1], '.2f')}" for k, v in moves)


def main() -> None:
    """Measure, fit, check the claims, and draw."""
    given = options(__file__)
    seeds, steps = given.seeds(1 if given.smoke else 3), 140
    names = ["vanilla 0.5", "vanilla 0.95", "GRU 0.962"] if given.smoke else list(STARTS)
    train, test = delayed(0, 256), delayed(1, 200)
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(train.inputs[..., 0], train.answer[:, 0])
    ceiling = ridge.score(test.inputs[..., 0], test.answer[:, 0])
    flows, explained, told, fades, lasts = {}, {}, [], [], []
    for name in names:
        norms, scores = zip(*(learned(name, train, test, seed, steps) for seed in seeds), strict=True)
        flows[name], explained[name], kept = np.stack(norms), scores, float(np.mean(norms, 0)[-1])
        told.append(f"{name}: {kept:.2g} left, R2 {ranged(scores, '.2f')}")
        print(told[-1], flush=True)
        assert abs(np.log(kept / STARTS[name][1] ** DELAY)) < 0.1, f"{name}: the planted share should be what is left"
        if kept < 1:  # what explodes learns in some seeds
            (fades if kept < 1e-6 else lasts).extend(scores)
    assert max(fades) < 0.05, "where no gradient arrives nothing should be learned"
    assert np.mean(np.array(lasts) > 0.1) >= 2 / 3, "where some arrives the value should be learned in most seeds"
    assert np.mean(lasts) > 0.5, "and it should be learned well"
    gates = {cue: [opened(seed, 400, informative=cue == "a change") for seed in seeds] for cue in CUES}
    heed = "; ".join(heeded(fits, cue) for cue, fits in gates.items())
    print(heed)
    draw(given.out / "fading_memory.png", LAGS, flows, explained, gates)
    Result(
        claim="of a gradient over 60 steps 0.95^60 is left in a vanilla RNN, 0.962^60 in an LSTM or GRU, as measured "
        "at the start of a fit, and above one it explodes; in 140 steps of fitting a value 60 steps back is learned in "
        "most seeds where some is left, in none where none is, in some where it explodes; a GRU's reset gate shuts "
        "at a planted change, and not at cues that tell nothing",
        found="; ".join(told) + f"; from before a cue to it, where it tells {heed} (mean, range of {len(seeds)} seeds)",
        baseline=f"ridge regression on all 61 inputs: R2 {ceiling:.2f}; on 40 lags of inputs and cues, of the memory "
        f"that is emptied: R2 {ranged(map(by_regression, seeds), '.2f')}, GRU "
        f"{ranged((fit.explained for fit in gates['a change']), '.3f')}",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# The start is not fate: given 400 steps (of a rate of 3e-3), two of three fits from the vanilla start that keeps
# nothing found their way, by growing their recurrent weights on what is near. What to try next: one bit in the place of
# a value, which vanilla RNNs latch sooner; `lr.interpret.time_constants` of what was learned.
