"""The chains that networks are compared with, and densities of the next click in one layout."""

from __future__ import annotations

import numpy as np
import pytest

import latentrnn as lr
from examples.next_click.baselines import MarkovChain, bits, chains
from examples.next_click.data import as_sequences, split
from examples.next_click.scores import by_chain, by_memory, by_networks, saved
from examples.simulate import clicks


def test_a_chain_is_what_its_equation_says() -> None:
    chain = MarkovChain([np.array([0, 1, 1, 0]), np.array([1, 0])], 2, (1.0, 2.0))
    zeroth = (np.array([3, 3]) + 0.5) / 7  # three clicks on each page, and one more that is spread evenly
    first = (np.array([2, 1]) + 2 * zeroth) / 5  # after page 1: twice page 0, once page 1
    start = (np.array([1, 1]) + 2 * zeroth) / 4
    np.testing.assert_allclose(chain.log_prob(np.array([1, 0])), np.log([start[1], first[0]]), rtol=1e-12)
    assert chain.parameters == 2


def test_probabilities_add_up_to_one_after_any_past() -> None:
    visits = clicks(0, 20, pages=4)
    chain = MarkovChain(visits, 4, (1.0, 4.0, 2.0, 8.0))
    for past in ([], [0], [3, 1], [2, 2, 1], [1, 0, 3, 3, 2]):
        last = [chain.log_prob(np.array([*past, code]))[-1] for code in range(4)]
        assert np.exp(last).sum() == pytest.approx(1.0, abs=1e-12)


def test_chains_are_smoothed_by_validation_and_find_a_chain_of_the_first_order() -> None:
    learn, choose, judge = split(clicks(0, 200, interest=0.0))
    assert [len(part) for part in (learn, choose, judge)] == [120, 30, 50]
    found = chains(learn, choose, 8, 3)
    assert [chain.order for chain in found] == [0, 1, 2, 3]
    of_order = [bits(chain, judge) for chain in found]
    assert of_order[1] < of_order[0] - 0.1  # where a visitor is says much, and what was before nothing
    assert min(of_order[2:]) > of_order[1] - 0.01


def test_a_network_that_sees_all_clicks_is_scored_as_itself() -> None:
    visits = clicks(0, 12)
    data = as_sequences(visits)
    heads = {"click": lr.Categorical(8, feedback=lr.History(1, 1))}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=lr.Deterministic(), observations=heads)
    result = lr.fit(model, lr.Guide(model), data[:6], seed=0, steps=20, reporting=lr.Reporting(progress=False))
    whole = by_networks([result], data[6:])
    longest = max(map(len, visits))
    np.testing.assert_allclose(by_memory(result, data[6:], longest, whole).log_prob, whole.log_prob, atol=1e-5)
    assert abs(saved(whole, by_memory(result, data[6:], 1, whole))[0]) > 1e-4
    chain = by_chain(MarkovChain(visits[:6], 8, (1.0, 4.0)), visits[6:], whole)
    each = np.concatenate([MarkovChain(visits[:6], 8, (1.0, 4.0)).log_prob(visit) for visit in visits[6:]])
    assert float(chain.log_prob.sum()) == pytest.approx(each.sum(), rel=1e-9)
    assert saved(whole, chain)[0] == pytest.approx(float(whole.log_prob.sum() - each.sum()) / len(each) / np.log(2))
