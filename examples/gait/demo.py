# %% [markdown]
# # Gait against muscles: LSTM or GRU?
#
# Whoever models movement has to choose a cell. Three times the same question, an angle or a gesture given what has been
# measured up to now:
#
#     h_t = cell(h_{t-1}, x_t),   knee_t ~ Normal(w . h_t + b, s)   or   gesture_t ~ Categorical(softmax(W h_t + b))
#
# from the hip of 39 boys in one gait cycle (20 steps), from eight electrodes on a forearm (eight minutes), and from
# hip and force of simulated walkers, whose knee depends on a load that showed 150 to 220 steps before. An LSTM of 27
# units has as many weights as a GRU of 32. Which one is ahead in log density of held-out sequences, with what error,
# and what does it cost? Recordings lie in the folder `--data`; what is simulated is written to a CSV file first.
# `python examples/gait/demo.py --out build/gait`; `--smoke` simulates alone.

# %%
from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np

import latentrnn as lr
from examples.gait.baselines import by_regression
from examples.gait.data import boys, muscles, walkers
from examples.gait.figure import draw
from examples.gait.scores import LATE, Judged, Split, folds, remembered
from examples.gallery import Result, options
from examples.simulate import Array, gait

SEEDS = (0,)
CELLS = {"GRU(32)": lr.GRU(32), "LSTM(27)": lr.LSTM(27)}


# %%
def judged(splits: Sequence[Split], lags: int, limit: int, *, last: int = 0) -> Judged:
    """Fit either cell to every split, nothing set but the number of steps, and regressions beside them."""
    head, covariate = next(iter(splits[0].train.spec.heads)), next(iter(splits[0].train.spec.covariates))
    found: dict[str, list[Array]] = {}
    seconds, weights, results = {}, {}, {}
    for name, cell in CELLS.items():
        begun, each = time.process_time(), []
        for seed in SEEDS:
            ahead = []
            for train, validation, test in splits:
                family = lr.Gaussian() if train.spec.heads[head].levels is None else lr.Categorical(8)
                model = lr.LatentRNN(
                    train.spec, transition=cell, latent=lr.Deterministic(), observations={head: family}
                )
                quiet = lr.Reporting(progress=False)
                result = lr.fit(model, lr.Guide(model), train, validation, seed=seed, steps=limit, reporting=quiet)
                scored = result.posterior(test).one_step_ahead(head, num_draws=2).log_prob.sum(-1).numpy()
                ahead.append(scored[:, -last:].mean(1))
            each.append(np.concatenate(ahead))
        print(f"{name}, {head}: {np.mean(each):.4f} nats per step; {result.stop_reason}", flush=True)
        found[name], results[name] = each, result
        seconds[name] = (time.process_time() - begun) / len(SEEDS) / len(splits)
        weights[name] = sum(value.numel() for value in result.model.parameters())
    regressed = [by_regression(train, test, head, covariate, lags)[:, -last:].mean(1) for train, _, test in splits]
    found["regression"] = [np.concatenate(regressed)]
    return Judged({name: np.stack(each) for name, each in found.items()}, seconds, weights, results)


# %%
def main() -> None:
    """Fit, compare, check the claim, and draw."""
    given = options(__file__)
    number, limit = (60, 500) if given.smoke else (60, 1500)  # steps of a fit; by default it takes some 8,000
    simulated = gait(0, 2 * number, strides=3 if given.smoke else 8)
    walks = walkers(simulated, given.out / "walkway.csv").split(0.4, 0.1, 0.5, seed=0)
    found = {"simulated gait": judged([Split(*walks)], 40, limit, last=LATE)}
    if not given.smoke:
        found["gait, 39 boys"] = judged(folds(boys(given.data)), 20, 400)
        arm = muscles(given.data)
        last, end = arm.where(chunk=5), arm.where(chunk=4)  # of each file 40 s, 10 s and 10 s
        found["muscles"] = judged([Split(arm.without(last).without(end), end, last)], 10, 400)
    late = {name: remembered(result, walks[2]) for name, result in found["simulated gait"].results.items()}
    shares = {name: 1 - np.mean((told - was) ** 2) / np.var(was) for name, (told, was) in late.items()}

    told, costs, choices, rivals = [], [], {}, {}
    for name, each in found.items():
        gap, error = choices[name] = each.ahead("LSTM(27)", "GRU(32)")
        rivals[name] = [each.ahead(cell, "regression") for cell in CELLS]
        chosen = "either" if abs(gap) <= 2 * error else "LSTM" if gap > 0 else "GRU"
        told.append(f"{name}: LSTM ahead by {gap:+.3f} (s.e. {error:.3f}), so {chosen}")
        costs.append("; ".join(f"{cell} {each.weights[cell]:,} and {each.seconds[cell]:.0f} s" for cell in CELLS))
        print(told[-1], "ahead of regression:", rivals[name], costs[-1], sep="\n  ")
    print("of how far knees move at the end of a walk is predicted:", {k: round(v, 3) for k, v in shares.items()})
    for name, leads in rivals.items():
        if name == "gait, 39 boys":
            assert all(gap > -2 * error for gap, error in leads), f"{name}: networks should be no worse than regression"
        else:
            assert all(gap > 2 * error for gap, error in leads), f"{name}: networks should be ahead of regression"
    loads = walks[2].covariates["angles"][..., 1].amax(1).numpy()
    tied = {name: float(np.corrcoef(swing, loads)[0, 1]) for name, (swing, _) in late.items()}
    print("correlation of predicted movement with the load:", tied)
    least = 0.3 if given.smoke else 0.8
    assert max(shares.values()) > least, "how far a knee moves should be predicted 150 steps after the load"
    assert min(tied.values()) < -least, "and it should be less, the larger the load was"

    draw(given.out / "gait.png", choices, {name: each.seconds for name, each in found.items()}, late)
    by = ", ".join(f"{name} {min(gap for gap, _ in leads):+.3f}" for name, leads in rivals.items())
    Result(
        claim="of gestures from muscles, and of simulated gait whose load showed 150 to 220 steps before, LSTM and GRU "
        "both tell more than regressions on the last steps, of 39 boys' gait no less; which to choose is said with its "
        "error (nats per step), where it can be told at all, and what it costs",
        found="; ".join(told)
        + f"; weights and processor time of a fit of 1,500, 400 and 400 steps: {', '.join(dict.fromkeys(costs))}; "
        f"of how far knees move at the end of a walk predicted: "
        f"{', '.join(f'{k} {v:.2f}' for k, v in shares.items())}; its correlation with the load "
        f"{', '.join(f'{k} {v:.2f}' for k, v in tied.items())}; {len(SEEDS)} seed, errors over sequences",
        baseline=f"ridge and logistic regression on the last 40, 20 and 10 steps; the lesser cell ahead by: {by}",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: `lr.compare` of both fits on the held-out sequences; `lr.interpret.time_constants` of what a cell
# keeps of the load; `lr.WindowedAttention` beside the cells, which forgets beyond its window.
