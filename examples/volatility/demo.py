# %% [markdown]
# # How volatile will the next day be, and how fast should that be forgotten?
#
# GARCH(1, 1) is a memory of squared returns with one forget gate that stands still. Here there are up to three, of
# absolute returns, with gates that read the last one, and of the course m of returns beside their size s (`cells.py`):
#
#     f = sigmoid(rest - shock |r| / s),   s <- f s + (1 - f) |r| exp(-leverage sign(r)),   m <- f m + (1 - f) r
#     log v_t = b + sum_k w_k log s_k^2 + c_k m_k / s_k,   r_t ~ StudentT or Normal, of mean zero and variance v_t
#
# each memory with numbers of its own, all with priors, at their mode (`models.py`). Which of this a model has, or
# whether it is a free `CoupledGateLSTM` with all settings of the fit left as they are, is chosen by the fourth fifth of
# the days, with parameters from the first three; then log-densities of the last are scored, each day given those before
# it, with parameters from the first four, beside GARCH models of the package arch:
# `python examples/volatility/demo.py --data ../shared/data --out build/volatility`.

# %%
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where `examples` is


import latentrnn as lr
from examples.gallery import RECORDINGS, Result, options
from examples.simulate import market
from examples.volatility.baselines import MODELS
from examples.volatility.data import bitcoin, hundred_days, standard, stocks
from examples.volatility.figure import draw
from examples.volatility.models import ATTEMPTS, about_shocks, as_sequence, fifths, fitted, gates, remembering
from examples.volatility.scores import BLOCK, ahead, judge, later, shown_all
from latentrnn.criticism import PairedDifference


# %%
def sentiment(seed: int, days: int, steps: int, *, planted: bool) -> PairedDifference:
    """What a model with the sentiment is ahead of one without on the last fifth of simulated days."""
    found = market(seed, days) if planted else market(seed, days, effect=0.0)
    data = as_sequence(standard(found.returns)[0], sentiment=found.sentiment)
    _, _, test, learned = fifths(data)
    attempt = ATTEMPTS["one memory, adaptive, leverage"]
    pair = (fitted(remembering(data, attempt, "student", names), learned, steps) for names in (("sentiment",), ()))
    scores = (lr.one_step_ahead_log_likelihood(ahead(each, test), block_length=BLOCK) for each in pair)
    return lr.paired_difference(*scores)


# %%
def main() -> None:
    """Choose, fit, compare, check the claims, and draw."""
    given = options(__file__)
    steps, days, seeds, attempts = 200, 3000, 3, ATTEMPTS
    if given.smoke:
        steps, days, seeds = 60, 1500, 1
        attempts = {name: ATTEMPTS[name] for name in ("one memory, adaptive, leverage",)}
        series = {"simulated": market(0, days, effect=0.0, leverage=0.15).returns}
    else:
        series = {"S&P 500": stocks(), "bitcoin": bitcoin(given.data / RECORDINGS["volatility"])}
    scaled, judged, others = {}, {}, {}
    for name, returns in series.items():
        print(name)
        scaled[name], unit = standard(returns)
        judged[name] = judge(scaled[name], attempts, steps, smoke=given.smoke)
        if name == "S&P 500" and (folder := given.data.parent / "reference_posteriors").is_dir():
            others = later(judged[name], scaled[name], hundred_days(folder) / unit)
    first = next(iter(series))
    lag, gate, error = about_shocks(gates(judged[first].fit, as_sequence(scaled[first])), scaled[first])
    before, after, uncertain = gate[lag < 0].mean(), gate[lag == 1].item(), error[lag == 1].item()
    helps, idle = ([sentiment(s, days, steps // 2, planted=planted) for s in range(seeds)] for planted in (True, False))
    closing = f"forget gate {before:.3f}, the day after a shock {after:.3f} (s.e. {uncertain:.3f})"
    told = f"sentiment planted {shown_all(helps)}, not planted {shown_all(idle)}"
    print(
        *(f"100 days of another time, above {name}: {lead}" for name, lead in others.items()), closing, told, sep="\n"
    )

    leads = {
        name: {rival: each.leads[each.chosen]["student", rival] for rival in MODELS} for name, each in judged.items()
    }
    courses = {name: each.course for name, each in judged.items()}
    draw(given.out / "volatility.png", courses, (lag, gate, error), leads)
    least = 0.0 if given.smoke else 2.0
    assert leads[first]["GARCH"].in_standard_errors > least, f"{first}: it should be ahead of GARCH"
    for name, each in {} if given.smoke else leads.items():
        for rival in ("GARCH", "GJR"):
            assert each[rival].in_standard_errors > -2.0, f"{name}: it should be no worse than {rival}"
    assert after < before - 3 * uncertain, "the gate should close after shocks"
    assert min(each.in_standard_errors for each in helps) > 2, "a sentiment should be of help where it was planted"
    assert max(each.in_standard_errors for each in idle) < 2, "a sentiment should be of no help where it was not"

    found = [
        f"{name}, {which}: "
        + ", ".join(f"{rival}, {tails} {shown_all([lead])}" for (tails, rival), lead in each.items())
        for name, of in judged.items()
        for which, each in of.leads.items()
    ]
    if others:
        ends = (f"{name} {shown_all([lead])}" for name, lead in others.items())
        found.append(f"100 days of another time: {', '.join(ends)}")
    rivals = (
        f"{name}: {', '.join(f'{rival} {value:.3f}' for rival, value in each.rivals.items())}"
        for name, each in judged.items()
    )
    Result(
        claim="log scores one day ahead: on stocks above GARCH by more than two standard errors, elsewhere no worse "
        "than GARCH and GJR-GARCH; the forget gate closes after shocks; a sentiment helps where it was planted, and "
        "there alone (nats per day ahead, with s.e. over blocks)",
        found="; ".join([*found, closing, told]),
        baseline=f"nats per day, Student tails, returns in standard deviations: {'; '.join(rivals)}",
    ).write(given.out)


if __name__ == "__main__":
    main()

# %% [markdown]
# What to try next: `lr.Innovations` in the place of `lr.Deterministic`, which is stochastic volatility; the day's range
# or volume as covariates of the head; several markets as sequences of one model.
