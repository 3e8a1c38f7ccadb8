# %% [markdown]
# # How fast is it forgotten, and what is a rehearsal worth?
#
# Sixty items are rehearsed now and then, and asked for in every fourth of 120 trials. What was rehearsed fades, and
# what is left of earlier rehearsals adds up, so that a curve through the time since the last one is not enough. The
# log-odds of recall follow a memory that decays with a time constant of 30 trials, and of which a rehearsal is worth 3:
#
#     m_t = exp(-1 / decay) m_{t-1} + x_t,   y_t ~ Bernoulli(sigmoid(guess + gain m_t)) where asked
#     decay ~ LogNormal(log 10, 1) trials,   gain ~ Normal(0, 5),   guess ~ Normal(0, 3)
#
# Decay and gain with 95% intervals, by priors, and from a plain fit without any (`lr.uncertainty`); and how often these
# hold: `python examples/forgetting_curve/demo.py --out build/forgetting`.

# %%
from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
import pyro.distributions as dist
import torch

import latentrnn as lr
from examples.forgetting_curve.baselines import by_curve
from examples.forgetting_curve.figure import draw
from examples.gallery import Result, enough, held, options, quantiles, shown
from examples.simulate import Array, Forgetting, forgetting

PLANTED = {"decay": 30.0, "gain": 3.0}
SITES = {"decay": "transition.time_constant", "gain": "recalled.readout.weight"}
ITEMS, LEVEL = 60, 0.95


# %%
def as_sequences(found: Forgetting) -> lr.SequenceData:
    heads, covariates = {"recalled": found.recalled}, {"rehearsed": found.rehearsed}
    return lr.SequenceData.from_arrays(heads, covariates, dtype=torch.float64)


def memory(data: lr.SequenceData, *, priors: bool = True) -> lr.LatentRNN:
    """The equation above, whose gain is the readout's weight; without priors its numbers are learned as points."""
    decay = {"time_constant": dist.LogNormal(np.log(10.0), 1.0)} if priors else None
    recall = {"weight": dist.Normal(0.0, 5.0), "baseline": dist.Normal(0.0, 3.0)} if priors else None
    return lr.LatentRNN(
        data.spec,
        transition=lr.LeakyIntegrator(1, priors=decay, fixed={"input_weight": 1.0}),
        latent=lr.Deterministic(fixed={"initial_state": 0.0}),
        observations={"recalled": lr.Bernoulli(priors=recall)},
    )


def intervals(posterior: lr.Posterior, draws: int = 4000) -> dict[str, Array]:
    """95% intervals of decay, in trials, and gain, with their medians in between."""
    found = posterior.parameters(draws)
    return {name: quantiles(found[site], LEVEL) for name, site in SITES.items()}


def by_laplace(found: Forgetting) -> dict[str, Array]:
    """The same intervals in a fraction of a second."""
    data = as_sequences(found)
    return intervals(lr.laplace(memory(data), data).posterior(data))


def by_fit(found: Forgetting) -> dict[str, Array]:
    """Intervals from a fit of points, by the curvature of the likelihood at its mode."""
    data = as_sequences(found)
    model = memory(data, priors=False)
    settings = {"optimizer": lr.AdamW(0.05, weight_decay=0.0), "reporting": lr.Reporting(progress=False)}
    known = lr.uncertainty(lr.fit(model, lr.Guide(model), data, steps=100, **settings), data, list(SITES.values()))
    (low, high), middle = known.interval(LEVEL), known.mean
    return {name: np.array([float(each[site]) for each in (low, middle, high)]) for name, site in SITES.items()}


# %%
def main() -> None:
    """Infer, compare, check the claim, and draw."""
    given = options(__file__)
    simulations, items, draws = (3, 30, 100) if given.smoke else (100, ITEMS, 400)
    data = as_sequences(found := forgetting(0, items))
    posterior = lr.sample(memory(data), data, num_samples=draws, warmup=draws, progress=False)
    ways: dict[str, Callable[[Forgetting], dict[str, Array]]] = {
        "Laplace": by_laplace,
        "uncertainty": by_fit,
        "same equation": partial(by_curve, last_only=False),
        "last rehearsal": partial(by_curve, last_only=True),
    }
    rows = {how: [way(forgetting(seed, items)) for seed in range(simulations)] for how, way in ways.items()}
    of = {how: {name: [each[name] for each in row] for name in PLANTED} for how, row in rows.items()}
    ends = intervals(posterior, 4 * draws)
    hold = {how: " and ".join(held(row[name], PLANTED[name]) for name in PLANTED) for how, row in of.items()}
    told = {"NUTS": in_words(ends)} | {h: f"{in_words(rows[h][0])}, which hold in {what}" for h, what in hold.items()}
    print("95% intervals", *(f"{how}: {what}" for how, what in told.items()), sep="\n")

    for name, (low, _, high) in ends.items():
        assert low < PLANTED[name] < high < 2.0 * low, f"{name} should be recovered"
        for how in ("Laplace", "uncertainty"):
            assert enough(of[how][name], PLANTED[name], LEVEL), "intervals should hold as often as they say"
    if not given.smoke:
        assert not enough(of["last rehearsal"]["gain"], PLANTED["gain"], LEVEL), "the last rehearsal should not do"

    rates = posterior.rates("recalled", 400)[..., 0].numpy()
    each = {name: posterior.parameters(1600)[site].flatten().numpy() for name, site in SITES.items()}
    others = {how: rows[how][0] for how in ("same equation", "last rehearsal")}
    draw(given.out / "forgetting_curve.png", found, rates, each, others, PLANTED)
    Result(
        claim="decay (30 trials) and gain (3) of a memory in which rehearsals add up, with 95% intervals that hold",
        found=f"NUTS: {told['NUTS']}; Laplace: {told['Laplace']}; without priors (uncertainty): {told['uncertainty']}",
        baseline=f"least squares of the same equation: {told['same equation']}; of the time since the last rehearsal: "
        f"{told['last rehearsal']}",
    ).write(given.out)


def in_words(ends: dict[str, Array]) -> str:
    return f"decay {shown(ends['decay'])}, gain {shown(ends['gain'])}"


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: a decay for each learner with a `lr.Population` as prior; a second, slower memory beside it
# (`LeakyIntegrator(2)`), which is how forgetting comes to look like a power law; times in hours in the place of trials.
