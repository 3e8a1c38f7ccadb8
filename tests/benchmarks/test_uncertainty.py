"""Intervals of a decay and a gain that were planted, by the script that counts how many hold them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom

import latentrnn as lr
from benchmarks import uncertainty as study

CHEAP = ("over_all_weights", "on_a_plain_scale", "of_the_gain_alone", "by_laplace")
SIMULATIONS, LEARNERS = 60, 10


@pytest.mark.parametrize("name", CHEAP)
def test_every_way_gives_ends_around_what_was_planted(name: str) -> None:
    ends = getattr(study, name)(study.simulate(1000, LEARNERS), 1000)
    assert set(ends) == ({"gain"} if name == "of_the_gain_alone" else {"gain", "decay"})
    for quantity, (low, high) in ends.items():
        planted = study.PLANTED[quantity]
        assert 0.5 * planted < low < high < 2 * planted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["by_bootstrap", "by_guide", "by_nuts"])
def test_so_do_those_that_take_longer(name: str) -> None:
    test_every_way_gives_ends_around_what_was_planted(name)


def test_what_comes_to_nothing_holds_nothing() -> None:
    def way(data: lr.SequenceData, seed: int) -> study.Ends:
        if seed == 1:
            raise ValueError("no mode")
        return {"decay": (20.0, 40.0), "gain": (-np.inf, np.inf)}

    hits, widths, _ = study.covered(way, 2, 3)
    assert hits == {"decay": 2, "gain": 0}
    assert len(widths["decay"]) == 2


@pytest.mark.slow
def test_intervals_over_all_weights_hold_decay_and_gain_as_often_as_they_say() -> None:
    """70% intervals hold what was planted in about 70 of 100 simulations, 95% intervals in 95.

    The bounds are the 1e-6 quantiles of Binomial(60, p); intervals half or twice as wide are outside of those of 70%,
    and those of a gain whose decay is taken as known are narrower.
    """
    held = {name: np.zeros(4, dtype=int) for name in study.PLANTED}
    narrower = []
    for seed in range(SIMULATIONS):
        data = study.simulate(2000 + seed, LEARNERS)
        result = study.fitted(data, seed)
        found = lr.uncertainty(result, data, list(study.NAMES.values()), device="cpu")
        normal = torch.distributions.Normal(0.0, 1.0)
        reach = float(normal.icdf(torch.tensor(0.85)))
        levels = [0.7, 0.95, *(2 * float(normal.cdf(torch.tensor(f * reach))) - 1 for f in (0.5, 2.0))]
        for name, site in study.NAMES.items():
            ends = [tuple(end[site].item() for end in found.interval(level)) for level in levels]
            held[name] += [low < study.PLANTED[name] < high for low, high in ends]
        if seed < 5:
            alone = study.of_the_gain_alone(data, seed)["gain"]
            low, high = (end[study.NAMES["gain"]].item() for end in found.interval(0.95))
            narrower.append((alone[1] - alone[0]) / (high - low))
    for counts in held.values():
        least, most = binom.ppf([1e-6, 1 - 1e-6], SIMULATIONS, 0.7)
        assert least <= counts[0] <= most
        assert counts[1] >= binom.ppf(1e-6, SIMULATIONS, 0.95)
        assert counts[2] < least
        assert counts[3] > most
    assert max(narrower) < 0.9


@pytest.mark.slow
def test_gains_of_a_network_have_intervals_though_its_mode_is_not_reached() -> None:
    held, asked, said = study.network_gains(0)
    assert asked == 12
    assert held >= binom.ppf(1e-6, asked, 0.95)
    assert any("the point is no mode: a further step would gain" in text for text in said)
    assert not any("do not determine" in text for text in said)
