"""GARCH models by the package arch."""

from __future__ import annotations

import numpy as np
from arch import arch_model
from scipy.stats import norm, t

from examples.simulate import Array

MODELS = {"GARCH": {"vol": "GARCH", "o": 0}, "GJR": {"vol": "GARCH", "o": 1}, "EGARCH": {"vol": "EGARCH", "o": 1}}


def by_garch(returns: Array, known: int, name: str, tails: str, others: tuple[Array, ...] = ()) -> list[Array]:
    """Return one-step-ahead log densities of every day, (day,), the parameters from the first days by likelihood.

    Args:
        returns: with mean zero, in units of about their standard deviation, (day,).
        known: number of first days, from which the parameters come.
        name: "GARCH", "GJR" (Glosten, Jagannathan, Runkle) or "EGARCH" (Nelson), each of order one.
        tails: "gaussian" or "student".
        others: more series, scored with the same parameters.
    """
    kind = {"mean": "Zero", "p": 1, "q": 1, "dist": {"gaussian": "normal", "student": "t"}[tails], "rescale": False}
    found = arch_model(returns[:known], **kind, **MODELS[name]).fit(disp="off")
    scores = []
    for each in (returns, *others):
        scale = np.asarray(arch_model(each, **kind, **MODELS[name]).fix(found.params).conditional_volatility)
        if tails == "gaussian":
            scores.append(norm.logpdf(each, scale=scale))
        else:
            nu = found.params["nu"]
            scores.append(t.logpdf(each, nu, scale=scale * np.sqrt((nu - 2) / nu)))
    return scores
