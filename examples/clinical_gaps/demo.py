# %% [markdown]
# # What do the gaps in a chart say of a patient?
#
# In intensive care what is measured, and when, follows how ill a patient seems. A network that reads charts is told the
# values and the mask of what was charted, and its state has two heads: what is charted next, and death in hospital:
#
#     h_t = GRU(h_{t-1}, [values_{t-1}, mask_{t-1}, admission])
#     values_t ~ Normal(V h_t + v, s) where charted,   died ~ Bernoulli(sigmoid(w . h_T + b))
#
# What are the mask and the second head worth, and the time between steps (`lr.Gap`, and `lr.Decay`, by which the state
# fades), beside logistic regression on summaries? What becomes of a risk that is told another patient's mask? The first
# 48 hours of 3,996 patients, in hourly steps, from the folder `--data`: 55% are learned from, 15% choose settings, and
# 30% are scored.
# `python examples/clinical_gaps/demo.py --out build/clinical_gaps`; `--smoke` simulates stays.

# %%
from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is

import numpy as np
from scipy.special import logit

import latentrnn as lr
from examples.clinical_gaps.baselines import auroc, by_regression, resampled
from examples.clinical_gaps.data import as_sequences, load, split
from examples.clinical_gaps.figure import draw
from examples.gallery import Result, options, shown
from examples.simulate import Array, stays

UNITS, SEEDS, SMOKE = 32, (0, 1, 2), {"steps": 150, "optimizer": lr.AdamW(1e-2)}
# Of a stay some 360 values are charted, and one outcome: so charts weigh little, and the outcome alone validates.
BEST = {"optimizer": lr.AdamW(weight_decay=1.0), "objective": lr.ELBO(head_weights={"chart": 0.003})}
ARMS = {
    "mask and next chart": {},
    "without next chart": {"chart": False},
    "without mask": {"mask": False},
    "with gaps told": {"gaps": True},
}


# %%
def ward(data: lr.SequenceData, *, mask: bool = True, chart: bool = True, gaps: bool = False) -> lr.LatentRNN:
    """The equations above, or without the mask or the head of charts, or with the time between steps."""
    heads: dict[str, lr.Observation] = {"died": lr.Bernoulli(pooling="last")}
    return lr.LatentRNN(
        data.spec,
        transition=lr.Decay(lr.GRU(UNITS)) if gaps else lr.GRU(UNITS),
        latent=lr.Deterministic(),
        observations=heads | ({"chart": lr.Gaussian()} if chart else {}),
        inputs=["value", "admission", *(["seen"] if mask else []), *([lr.Gap()] if gaps else [])],
    )


def fitted(model: lr.LatentRNN, parts: Sequence[lr.SequenceData], seed: int, **settings: Any) -> lr.FitResult:
    """A fit that ends by itself; nothing is set but what is given."""
    result = lr.fit(model, lr.Guide(model), *parts, seed=seed, reporting=lr.Reporting(progress=False), **settings)
    print(f"seed {seed}, after {int(result.history['step'][-1]) + 1} steps: {result.stop_reason}", flush=True)
    return result


def risk(results: Sequence[lr.FitResult], data: lr.SequenceData) -> Array:
    """Probability of death, (patient,), averaged over fits."""
    return np.mean([result.posterior(data).mean("died", 1)[:, 0].double().numpy() for result in results], 0)


# %%
def main() -> None:
    """Fit, compare, check the claim, and draw."""
    given = options(__file__)
    warnings.filterwarnings("ignore", "LatentRNN: the data have irregular times")  # what telling them is worth is asked
    learn, choose, judge = split(stays(0, 800) if given.smoke else load(given.data))
    train, test, died = as_sequences(learn), as_sequences(judge), judge.died[:, 0]
    by_outcome = train, as_sequences(choose, outcome_alone=True)
    arms, seeds = (list(ARMS), SEEDS) if not given.smoke else (["mask and next chart", "without mask"], (0,))
    fits = {}
    for name in arms:
        model = ward(train, **ARMS[name])
        settings = {key: value for key, value in BEST.items() if key == "optimizer" or "chart" in model.observations}
        fits[name] = [fitted(model, by_outcome, seed, **settings | (SMOKE if given.smoke else {})) for seed in seeds]
    if not given.smoke:
        fits["default fit"] = [fitted(ward(train), (train, as_sequences(choose)), seeds[0])]  # takes the longest
    risks = {name: risk(found, test) for name, found in fits.items()}
    others = np.random.default_rng(0).permutation(len(died))
    risks["another's mask"] = risk(fits[arms[0]], as_sequences(judge, ~np.isnan(judge.charts[others])))
    risks["logistic regression"] = by_regression(learn, choose, judge)

    areas = {name: auroc(each, died) for name, each in risks.items()}
    draws = resampled(risks, died)
    spans = {name: np.quantile(draws[arms[0]] - each, [0.05, 0.5, 0.95]) for name, each in draws.items()}
    changed = np.median(np.abs(logit(risks["another's mask"]) - logit(risks[arms[0]])))
    for name, found in fits.items():
        print(name, "single seeds:", *(f"{auroc(risk([each], test), died):.3f}" for each in found))
    print(*(f"{name}: {areas[name]:.3f}, ours above it by {shown(spans[name])}" for name in areas), sep="\n")
    print(f"the log-odds of a patient who is told another's mask change by {changed:.2f} (median)")

    assert spans["another's mask"][0] > 0, "masks of other patients should be worse"
    assert spans["without mask"][0] > 0, "the mask should be worth something"
    if not given.smoke:
        assert spans["without next chart"][0] > 0, "the head of charts should be worth something"

    own, exchanged = risks[arms[0]], risks["another's mask"]
    draw(given.out / "clinical_gaps.png", {n: (areas[n], draws[n]) for n in areas}, own, exchanged, died)
    told = {name: f"{areas[name]:.3f} (less by {shown(spans[name], '.3f')})" for name in areas if name != arms[0]}
    Result(
        claim="the mask of what was charted and a head for the next chart both improve the prediction of death, and "
        "the mask of another patient makes it worse; no claim is made of being ahead of logistic regression",
        found=f"area under the ROC curve {shown(np.quantile(draws[arms[0]], [0.05, 0.5, 0.95]), '.3f')}; "
        + ", ".join(f"{name} {told[name]}" for name in told if name != "logistic regression")
        + f"; log-odds told another's mask change by {changed:.2f} (median); averages of {len(seeds)} fits, the "
        f"default alone one, as which ours has {auroc(risk(fits[arms[0]][:1], test), died):.3f}",
        baseline=f"logistic regression on mean, last, least, largest and number: {told['logistic regression']}",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: charts as they came, minute by minute, in the place of hours; a hazard for every day in the place of
# one outcome (`lr.DiscreteHazard`); `posterior.impute("chart")`, what a channel that was not charted would have shown.
