"""The combinations that the battery and the invariances run over have every pair that they promise."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from itertools import chain

import pytest

from tests.models import test_battery as battery
from tests.registry import LATENTS, OBSERVATIONS, TRANSITIONS, WAYS, check_each, each_against_defaults, fits_together

ALL = list(itertools.product(TRANSITIONS, LATENTS, OBSERVATIONS))


def anything(observation: str) -> bool:
    return True


def of_steps(observation: str) -> bool:
    return "per_sequence" not in OBSERVATIONS[observation].options


def with_priors(observation: str) -> bool:
    return observation in ("gaussian priors", "gaussian population", "poisson gain, prior", "readouts")


# property, heads that it is for, whether it is to try transition and latent, latent and heads, latent and way
PROMISED: list[tuple[str, Callable[[str], bool], bool, bool, bool]] = [
    ("shapes", anything, True, True, True),
    ("own samples", anything, True, True, True),
    ("a gradient for every parameter", anything, True, False, True),
    ("a gradient where sites are dependent", with_priors, False, True, True),
    ("padding, order and batches", anything, True, False, True),
    ("closed forms", anything, True, False, True),
    ("one step", anything, True, False, True),
    ("context", of_steps, True, False, True),
]
TRIED = battery.TRIED | {"a gradient where sites are dependent": battery.DEPENDENT}


@pytest.mark.parametrize(
    ("name", "suits", "transition_latent", "latent_heads", "latent_way"),
    PROMISED,
    ids=[promise[0] for promise in PROMISED],
)
def test_every_pair_is_tried(
    name: str,
    suits: Callable[[str], bool],
    transition_latent: bool,
    latent_heads: bool,
    latent_way: bool,
) -> None:
    possible = [c for c in ALL if fits_together(*c) and suits(c[2])]
    found = TRIED[name]
    assert set(found) <= set(possible)
    assert len(found) == len(set(found))
    assert {c[2] for c in found} == {c[2] for c in possible}
    assert {(c[0], way) for c in found for way in WAYS[c[2]]} == {(c[0], way) for c in possible for way in WAYS[c[2]]}
    if transition_latent:
        assert {c[:2] for c in found} == {c[:2] for c in possible}
    if latent_heads:
        assert {c[1:] for c in found} == {c[1:] for c in possible}
    if latent_way:
        pairs = [{(c[1], way) for c in several for way in WAYS[c[2]]} for several in (found, possible)]
        assert pairs[0] == pairs[1]
    assert {c for c in each_against_defaults() if suits(c[2])} <= set(found)


def test_no_combination_is_there_for_nothing() -> None:
    """Pairs of transitions and families, which see states alone, are not all tried: that would take far more."""
    few = {"shapes": len(LATENTS) * len(OBSERVATIONS), "one step": len(TRANSITIONS) * len(LATENTS)}
    for name, pairs in few.items():
        assert len(TRIED[name]) < 1.15 * pairs + len(each_against_defaults())
    assert len({c[::2] for c in TRIED["shapes"]}) > 0.5 * len(TRANSITIONS) * len(OBSERVATIONS)


def test_every_property_is_checked_and_named_where_it_does_not_hold() -> None:
    def fails() -> None:
        raise AssertionError("no")

    with pytest.raises(ExceptionGroup) as caught:
        check_each({"first": fails, "second": lambda: None, "third": fails})
    assert [error.__notes__ for error in caught.value.exceptions] == [["property: first"], ["property: third"]]
    assert set(chain.from_iterable(battery.TRIED.values())) == set(battery.COMBINATIONS)


def test_the_ways_in_which_heads_meet_the_rest_are_known() -> None:
    assert WAYS["gaussian"] == WAYS["poisson"] == frozenset()
    assert WAYS["poisson history"] == {"History", "feeds_transition"}
    assert WAYS["poisson gain, prior"] == {"StimulusGain", "priors"}
    assert WAYS["gaussian irregular"] == {"irregular", "inputs", "missing"}
    assert WAYS["several"] == {"clocks", "per_sequence", "MeanState", "missing", "several heads"}
    assert {name for name in OBSERVATIONS if "priors" in WAYS[name]} == {n for n in OBSERVATIONS if with_priors(n)}
    assert {"CausalAttention", "WindowedAttention", "CrossAttention", "SourceAttention", "ModulatedAttention"} <= set(
        itertools.chain(*WAYS.values())
    )
