"""Derivatives of one step of a fitted transition, at every state and input that it met: one backward pass per output.

All steps of all sequences and draws are rows of one call, so that a pass costs what a step of the whole data costs.
Passes are plain reverse mode, which asks nothing of the operations of a user's own `step`. Draws of parameters, which a
transition takes by `vmap`, are gone through one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.transition_runs import TransitionRun
from latentrnn.interpret.results.names import is_content
from latentrnn.models.parameters.drawn import OverDraws
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_choice

LARGEST = 2**24  # numbers of Jacobians held at once

StepOutput = Callable[[Transition, Tensor], Tensor]  # of a transition and whole states (..., state_size)


def by_draw(transition: Transition, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Return `function(transition, *rows)` with the draws of parameters, if any, one after the other.

    Args:
        transition: of a run.
        function: of a transition and tensors (sample, row, ...) to one likewise.
        rows: (sample, row, ...).
    """
    if not isinstance(transition, OverDraws):
        return function(transition, *rows)
    one = [
        function(cast(Transition, transition.of_draw(draw)), *(value[draw : draw + 1] for value in rows))
        for draw in range(rows[0].shape[0])
    ]
    return torch.cat(one)


def jacobian(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Return the derivative of a function of rows, (..., output, input), at (..., input): zero where it reads nothing.

    Args:
        function: (..., input) to (..., output), each row by itself.
        at: where.
    """
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        value = function(at)
        if not value.requires_grad:
            return at.new_zeros(*value.shape, at.shape[-1])
        # one output channel of all rows at a time
        found = [
            torch.autograd.grad(value[..., place].sum(), at, retain_graph=True, allow_unused=True)[0]
            for place in range(value.shape[-1])
        ]
    zero = torch.zeros_like(at)
    return torch.stack([zero if each is None else each for each in found], -2).detach()


def step_jacobians(
    transition: Transition, before: Tensor, inputs: Tensor, of: StepOutput, by: str, path: str
) -> Tensor:
    """Return d of(s_t) / d s_{t-1} (by="state") or d a_t (by="input"), (sample, row, of, by).

    Args:
        transition: of a run.
        before: s_{t-1}, (sample, row, state_size).
        inputs: a_t, (sample, row, channel).
        of: part of the new state that is differentiated.
        by: "state" or "input".
        path: "total", or "direct" with the recorded gates held: what is let in (a candidate) stays free.
    """

    def of_one(transition: Transition, before: Tensor, inputs: Tensor) -> Tensor:
        def moved(at: Tensor) -> Tensor:
            state, given = (at, inputs) if by == "state" else (before, at)
            if path == "total":
                return of(transition, transition.step(state, given))
            with transition.gates_through(
                lambda name, value: value if is_content(transition, name) else value.detach()
            ):
                return of(transition, transition.step(state, given))

        return jacobian(moved, before if by == "state" else inputs)

    return by_draw(transition, of_one, before, inputs)


def jacobian_blocks(
    run: TransitionRun, of: StepOutput, by: str, path: str, steps: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the Jacobians of a run in blocks of steps: which of them, and (sample, sequence, time, of, by).

    Args:
        run: some of the sequences.
        of, by, path: see `step_jacobians`.
        steps: steps of each sequence, (sequence, number), in the place of all of them in order.
    """
    for block, before, inputs in step_blocks(run, steps):
        found = step_jacobians(run.transition, before.flatten(1, 2), inputs.flatten(1, 2), of, by, path)
        yield block, found.unflatten(1, before.shape[1:3])


def step_blocks(run: TransitionRun, steps: Tensor | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield s_{t-1} and a_t, (sample, sequence, time, size), of as many steps at once as Jacobians of may be held."""
    before, inputs = run.before, run.inputs
    if steps is not None:
        where = torch.arange(len(steps), device=before.device)[:, None], steps.to(before.device)
        before, inputs = before[:, where[0], where[1]], inputs[:, where[0], where[1]]
    samples, sequences, number, size = before.shape
    length = max(1, LARGEST // max(1, samples * sequences * size * max(size, inputs.shape[-1])))
    for first in range(0, number, length):
        block = slice(first, min(number, first + length))
        yield block, before[:, :, block], inputs[:, :, block]


def part_of_state(owner: str, transition: Transition, of: str) -> StepOutput:
    """Return what picks the part of whole states that is asked for: "state", "output" h_t, or a part by name.

    Raises:
        ValueError: no such part.
    """
    with torch.no_grad():
        names = transition.named_states(_some_state(transition))
    check_choice(owner, "of", of, dict.fromkeys(["state", "output", *names]))
    if of == "output":
        return lambda transition, state: transition.output(state)
    if of == "state":
        return whole_state
    return lambda transition, state: transition.named_states(state)[of]


def whole_state(transition: Transition, state: Tensor) -> Tensor:
    """Return whole states, (..., state_size)."""
    return state


def state_names(transition: Transition) -> list[str]:
    """Return the name of each number of the state: "cell[3]", "layer0.hidden[1]"; "state[k]" of what has none."""
    found = [f"state[{place}]" for place in range(transition.state_size)]
    at = _some_state(transition)
    taken: set[int] = set()
    for name, part in transition.named_states(at).items():
        if name == "state":
            continue
        each = jacobian(lambda state, name=name: transition.named_states(state)[name], at)[0]  # type: ignore[misc]
        for place in range(part.shape[-1]):
            where = each[place].nonzero().flatten().tolist()
            if len(where) == 1 and where[0] not in taken:
                found[where[0]] = f"{name}[{place}]"
                taken.add(where[0])
    return found


def part_names(transition: Transition, of: str, size: int) -> list[str]:
    """Return the name of each number of a part of the state."""
    if of == "state":
        return state_names(transition)
    name = "hidden" if of == "output" else of
    return [f"{name}[{place}]" for place in range(size)]


def _some_state(transition: Transition) -> Tensor:
    like = next(iter(transition.parameters()), torch.zeros(()))
    return torch.full((1, transition.state_size), 0.1, dtype=like.dtype, device=like.device)
