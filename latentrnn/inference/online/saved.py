"""What an online filter remembers as tensors by name, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from latentrnn.inference.online.memory import Memory
from latentrnn.inference.online.parameter_draws import Draws, check_draws
from latentrnn.inference.online.stream import Stream
from latentrnn.models.latents import Carry
from latentrnn.models.latents.kalman.filter import Moments

DRAWS = "draws."  # what names of draws of the parameters begin with in a state


def to_tensors(stream: Stream, memory: Memory, draws: Draws) -> dict[str, Tensor]:
    """Return everything that the next update needs besides the weights of model and guide, as tensors by name."""
    found = {f"stream.{name}": value for name, value in stream.state_dict().items()}
    found |= {f"histories.{name}": value for name, value in memory.histories.items()}
    found |= {f"pasts.{name}": value for name, value in memory.readout_memory.items() if value is not None}
    loose = {"before": memory.value, "encoded": memory.encoded, "chain": memory.chain}
    if memory.carry is not None:
        loose |= {"carry.state": memory.carry.state, "carry.innovation": memory.carry.innovation}
    found |= {name: value for name, value in loose.items() if value is not None}
    found |= {"log_weights": memory.log_weights, "random": memory.generator}
    if memory.moments is not None:
        found |= {"moments.loc": memory.moments.loc, "moments.root": memory.moments.root}
    if memory.log_draw_weights is not None:
        found["log_draw_weights"] = memory.log_draw_weights
        found |= {f"{DRAWS}{name}": value for name, value in draws.items()}
    return {name: value.clone().contiguous() for name, value in found.items()}


def remembered(state: Mapping[str, Tensor], heads: Sequence[str], feedback_heads: Sequence[str], drawn: bool) -> Memory:
    """Return what a filter remembers, of the tensors that `to_tensors` made."""
    return Memory(
        carry=Carry(state["carry.state"], state.get("carry.innovation")) if "carry.state" in state else None,
        value=state.get("before"),
        log_weights=state["log_weights"].double(),
        readout_memory={name: state.get(f"pasts.{name}") for name in heads},
        histories={name: state[f"histories.{name}"] for name in feedback_heads},
        encoded=state.get("encoded"),
        chain=state.get("chain"),
        generator=state["random"],
        log_draw_weights=state["log_draw_weights"].double() if drawn else None,
        moments=Moments(state["moments.loc"], state["moments.root"]) if "moments.loc" in state else None,
    )


def refuse_another(
    state: Mapping[str, Tensor],
    shape: tuple[int, int, int],
    draws: Draws,
    before: Collection[str],
    after: Mapping[str, torch.Size],
    heads: Sequence[str],
) -> None:
    """Raise unless a state has the tensors of a filter's, before a first step or after one.

    Args:
        state: the state.
        shape: of the filter's log-weights.
        draws: of the parameters.
        before: names before a first step.
        after: shapes after one.
        heads: that are followed.
    """
    if "log_weights" not in state or state["log_weights"].shape != shape:
        more = f" of each of {shape[2]} streams" if shape[2] > 1 else ""
        more += f", and {shape[0]} draws of the parameters" if draws else ""
        raise ValueError(f"OnlineFilter: expected the state of a filter with {shape[1]} particles{more}")
    # what readouts remember comes with their head's first frame, and grows to its full length
    names = {name for name in state if not name.startswith("pasts.")}
    steps = state.get("stream.steps")
    expected_names = set(before) if steps is None or not int(steps) else set(after)
    if names != expected_names:
        odd = sorted(names ^ expected_names)
        raise ValueError(f"OnlineFilter: the state is of another filter, or of another model: they differ in {odd}")
    for name, value in state.items():
        expected = after.get(name)
        known = name in after or name.removeprefix("pasts.") in heads
        if not known or (expected is not None and value.shape != expected):
            raise ValueError(
                f"OnlineFilter: the state is of another model: {name!r} has shape {tuple(value.shape)}; "
                f"expected {'nothing of this name' if expected is None else tuple(expected)}"
            )
    check_draws({name: state[f"{DRAWS}{name}"] for name in draws}, draws)
