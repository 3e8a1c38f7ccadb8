"""The combinations that the battery and the invariances run over have every pair that they promise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from tests.models import test_battery as battery
from tests.models import test_invariances as invariances
from tests.registry import LATENTS, OBSERVATIONS, TRANSITIONS, WAYS, each_against_defaults, fits_together

ALL = list(itertools.product(TRANSITIONS, LATENTS, OBSERVATIONS))


def tried(test: Callable[..., None]) -> list[tuple[str, str, str]]:
    """The combinations that pytest is told to run a test with."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return [parameters.values[0] for parameters in mark.args[1]]


def anything(observation: str) -> bool:
    return True


def of_steps(observation: str) -> bool:
    return "per_sequence" not in OBSERVATIONS[observation].options


def with_priors(observation: str) -> bool:
    return observation in ("gaussian priors", "gaussian population", "poisson gain, prior", "readouts")


# test, heads that it is for, whether it is to try transition and latent, latent and heads, latent and way
PROMISED = [
    (battery.test_shapes, anything, True, True, True),
    (battery.test_own_samples_are_scored_as_they_were_drawn, anything, True, True, True),
    (battery.test_every_parameter_has_a_gradient, anything, True, False, True),
    (battery.test_every_parameter_has_a_gradient_where_sites_are_dependent, with_priors, False, True, True),
    (invariances.test_padding_order_and_batches_change_nothing, anything, True, False, True),
    (invariances.test_one_step, anything, True, False, True),
    (invariances.test_context_is_not_scored, of_steps, True, False, True),
]


@pytest.mark.parametrize(
    ("test", "suits", "transition_latent", "latent_heads", "latent_way"),
    PROMISED,
    ids=[promise[0].__name__ for promise in PROMISED],
)
def test_every_pair_is_tried(
    test: Callable[..., None],
    suits: Callable[[str], bool],
    transition_latent: bool,
    latent_heads: bool,
    latent_way: bool,
) -> None:
    possible = [c for c in ALL if fits_together(*c) and suits(c[2])]
    found = tried(test)
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
    few = {
        battery.test_shapes: len(LATENTS) * len(OBSERVATIONS),
        invariances.test_one_step: len(TRANSITIONS) * len(LATENTS),
    }
    for test, pairs in few.items():
        assert len(tried(test)) < 1.15 * pairs + len(each_against_defaults())
    assert len({c[::2] for c in tried(battery.test_shapes)}) > 0.5 * len(TRANSITIONS) * len(OBSERVATIONS)


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
