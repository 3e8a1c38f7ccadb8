"""R-hat of ranks: ArviZ's numbers, and what the classic one does not see."""

from __future__ import annotations

import math
import warnings

import arviz_stats
import numpy as np
import pytest
import torch

import latentrnn as lr
from latentrnn.inference.posterior.draws.mixing import rank_normalised_r_hat
from latentrnn.support import arviz_generations

RNG = np.random.default_rng(0)
SHAPE = (4, 101, 2, 3)  # an odd number of draws, of which the middle one is left out
FAMILIES = {
    "Normal": RNG.normal(size=SHAPE),
    "no variance": RNG.standard_cauchy(SHAPE),
    "ties": RNG.poisson(1.5, SHAPE).astype(float),
    "two values": RNG.integers(0, 2, SHAPE).astype(float),
    "apart": RNG.normal(size=SHAPE) + np.arange(4).reshape(4, 1, 1, 1),
    "of unequal spread": RNG.normal(size=SHAPE) * np.array([1.0, 1.0, 1.0, 4.0]).reshape(4, 1, 1, 1),
    "drifting": RNG.normal(size=SHAPE) + np.linspace(-2, 2, 101).reshape(1, 101, 1, 1),
    "four draws": RNG.normal(size=(2, 4, 2, 3)),
    "five draws": RNG.normal(size=(2, 5, 2, 3)),
}


def of_chains(values: np.ndarray) -> torch.Tensor:
    """R-hat as `Chains` has it."""
    rate = torch.ones(len(values))
    diverging = torch.zeros(values.shape[:2], dtype=torch.bool)
    return lr.Chains.of({"x": torch.as_tensor(values)}, diverging, rate, rate).r_hat["x"]


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_arviz_s(name: str) -> None:
    values, found = FAMILIES[name], of_chains(FAMILIES[name])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # some split chains of four draws have no spread
        expected = arviz_stats.base.array_stats.rhat(values, chain_axis=0, draw_axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    if arviz_generations.generation() == 0:
        np.testing.assert_allclose(found, arviz_generations.library().rhat(
            arviz_generations.library().convert_to_dataset({"x": values}))["x"], rtol=1e-10)  # fmt: skip


def test_it_sees_a_chain_of_another_spread() -> None:
    """The classic split R-hat compares means, which are equal here; so are means of what has none."""
    assert bool((of_chains(FAMILIES["of unequal spread"]) > 1.1).all())
    assert bool((of_chains(FAMILIES["Normal"]) < 1.05).all())
    assert bool((of_chains(FAMILIES["no variance"]) < 1.05).all())
    shifted = FAMILIES["no variance"] + np.arange(4).reshape(4, 1, 1, 1) * 2
    assert bool((of_chains(shifted) > 1.1).all())


def test_it_does_not_change_with_what_keeps_order() -> None:
    """Bulk ranks are those of any increasing function; here the tails do not decide."""
    values = torch.as_tensor(FAMILIES["apart"])
    torch.testing.assert_close(rank_normalised_r_hat(values), rank_normalised_r_hat(values.exp()), rtol=1e-12, atol=0)


def test_one_chain_is_compared_by_its_halves() -> None:
    drifting = FAMILIES["drifting"][:1]
    halves = np.concatenate([drifting[:, :50], drifting[:, -50:]])
    assert bool((of_chains(drifting) > 1.1).all())
    # two chains, split once more, are another question: the halves alone are compared here
    scores = torch.as_tensor(halves).flatten(0, 1).argsort(0).argsort(0).double() + 1
    scores = torch.special.ndtri((scores - 0.375) / 100.25).reshape(halves.shape)
    within, between = scores.var(1).mean(0), 50 * scores.mean(1).var(0)
    torch.testing.assert_close(of_chains(drifting), ((between / within + 49) / 50).sqrt(), rtol=1e-12, atol=0)


def test_what_never_moves_and_what_is_too_short_has_none() -> None:
    values = np.full((2, 40, 3), 0.1)
    values[..., 1] = RNG.normal(size=(2, 40))
    values[0, 3, 2] = math.nan
    assert of_chains(values).isnan().tolist() == [True, False, True]
    assert of_chains(values[:, :3]).isnan().all()
    stuck = np.concatenate([np.zeros((1, 40, 1)), np.ones((1, 40, 1))])
    assert float(of_chains(stuck)) > 1e3
