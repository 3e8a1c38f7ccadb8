"""Any step along time, with a backward that follows all steps at once and goes back through time in few operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from latentrnn.models.scans.adjoint import Adjoint, Known
from latentrnn.models.scans.operations import BackwardRecorder, Call, Key, NotRepeatableError, Recorder, key_of
from latentrnn.models.scans.replay import Replay, paired
from latentrnn.models.scans.transforms import (
    PLAIN,
    gradient_wanted,
    gradients_by_autograd,
    over_members,
    record_step,
)
from latentrnn.support.private_symbols import gradient_hooked, hooked, modes_active, transforms_active

Step = Callable[[Tensor, Tensor], Tensor]
FEWEST = 32  # steps below which recording one costs more than it saves
LARGEST = 4096  # numbers in the states of a step, on a CPU, above which its operations cost more than their calls


def unrolled_scan(owner: nn.Module, step: Step, inputs: Tensor, state: Tensor) -> Tensor | None:
    """Return s_{1:T} of s_t = step(s_{t-1}, a_t), or None where the steps must be taken one by one under autograd.

    One step is recorded and its operations are repeated along time. Then one call of `step` takes all steps at once,
    from the states that were found, and autograd follows that call: it has the gradients of inputs and parameters once
    the gradient of every state is known, which is lambda_t of `Adjoint`.

    Steps are taken one by one where no gradient is followed; within transforms of `torch.func`, forward derivatives,
    autocasting and other modes of torch's; where a module or a parameter has hooks; where there are fewer than 32
    steps, or, on a CPU, more than 4096 numbers in the states of a step; and where a step draws random numbers, writes
    into a tensor, hands a number to Python, has a backward in Python, or is not what it was when it was recorded, which
    is seen in what all steps at once give.

    Args:
        owner: the module whose step it is.
        step: of states (row, state) and inputs (row, channel) to states; rows do not know of each other.
        inputs: a_{1:T}, (..., time, channel).
        state: s_0, (..., state), with the same leading axes.

    Returns:
        (..., time, state), or None.
    """
    batch, steps = inputs.shape[:-2], inputs.shape[-2]
    if not _applies(owner, inputs, state):
        return None
    by_time = inputs.movedim(-2, 0).reshape(steps, -1, inputs.shape[-1])
    start = state.reshape(-1, state.shape[-1])
    try:
        unrolled = _Unrolled(owner, step, by_time, start)
    except NotRepeatableError:
        return None
    found = _Steps.apply(unrolled, by_time, start, *unrolled.leaves)
    return found.movedim(0, 1).reshape(*batch, steps, -1)


def _applies(owner: nn.Module, inputs: Tensor, state: Tensor) -> bool:
    """Return whether the rules of `unrolled_scan` allow it, as far as they do not depend on the step itself."""
    large = state.device.type == "cpu" and state.numel() > LARGEST
    if inputs.shape[-2] < FEWEST or large or not state.numel() or not state.is_floating_point():
        return False
    if transforms_active() or over_members() or modes_active() or torch.is_autocast_enabled(state.device.type):
        return False
    if torch.compiler.is_compiling() or hooked(owner) or not PLAIN.issuperset((type(inputs), type(state))):
        return False
    parameters = list(owner.parameters())
    swapped = not all(isinstance(each, nn.Parameter) for each in parameters)  # by `torch.func.functional_call`
    return not swapped and gradient_wanted(inputs, state, *parameters, *owner.buffers())


class _Unrolled:
    """All steps of a scan: the states, the call that autograd follows, and the way back through time."""

    def __init__(self, owner: nn.Module, step: Step, inputs: Tensor, start: Tensor) -> None:
        self.step, steps = step, len(inputs)
        state, one = (value.detach().clone() for value in (start, inputs[0]))
        state.requires_grad_()
        one.requires_grad_(inputs.requires_grad)
        calls, new = _recorded(step, state, one)
        if new.shape != state.shape or new.dtype != state.dtype or not new.requires_grad:
            raise NotRepeatableError("a step that returns something else than a state")
        gradient = torch.arange(new.numel(), dtype=new.dtype, device=new.device).cos().view_as(new)
        with BackwardRecorder() as back:
            (slope,) = torch.autograd.grad(new, state, gradient, allow_unused=True)
        with torch.no_grad():
            replay = Replay(calls, state, one, new)
            flat = inputs.detach().flatten(0, 1)
            ahead = _at_once(step, start.detach().repeat(steps, 1), flat)[0] if replay.ahead else None
            path = replay.run(start.detach(), inputs.detach(), ahead)
        self.states = path[1:]
        self.before = path[:-1].flatten(0, 1).requires_grad_()
        self.inputs = flat.requires_grad_(inputs.requires_grad)
        every, self.new = _at_once(step, self.before, self.inputs)
        if not agree(self.new.view_as(self.states), self.states):
            raise NotRepeatableError("steps that are not all alike")
        known: dict[Key, Known] = {key_of(state): Known(state, self.before), key_of(one): Known(one, self.inputs)}
        for single, many in paired(calls, every):
            for key, output, value in zip(single.keys, single.outputs, many.outputs, strict=True):
                if key is not None and output is not None and value is not None:
                    known[key] = Known(output, output if replay.constant(key) else value)
        with torch.no_grad():
            self.adjoint = Adjoint(back.calls, known, gradient, slope, steps)
            if slope is not None and not agree(self.adjoint.once(gradient).unsqueeze(0), slope.unsqueeze(0)):
                raise NotRepeatableError("a gradient that is not that of the recorded step")
        self.owner = owner
        self.leaves = _leaves(self.new, owner, {id(self.before), id(self.inputs)})

    def one_by_one(self, inputs: Tensor, start: Tensor, *_: Tensor) -> tuple[Tensor]:
        """Return the states, followed by autograd step by step."""
        states = []
        for a_t in inputs.unbind(0):
            start = self.step(start, a_t)
            states.append(start)
        found = torch.stack(states)
        there = {id(leaf) for leaf in _leaves(found, self.owner, set())}
        if not there.issuperset(id(leaf) for leaf in self.leaves) or not agree(found, self.states):
            raise RuntimeError(
                f"{type(self.owner).__name__}: a second derivative takes the steps again, but what they depend on has "
                "been exchanged since; take it before, or with by_rows = False"
            )
        return (found,)


class _Steps(torch.autograd.Function):
    """s_{1:T}, (time, row, state), of inputs (time, row, channel), s_0 and all parameters that are in the steps."""

    @staticmethod
    def forward(ctx: Any, unrolled: _Unrolled, inputs: Tensor, start: Tensor, *leaves: Tensor) -> Tensor:
        ctx.unrolled = unrolled
        ctx.save_for_backward(inputs, start, *leaves)
        return unrolled.states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        unrolled, given, needed = ctx.unrolled, ctx.saved_tensors, ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return (None, *gradients_by_autograd(unrolled.one_by_one, given, needed, gradients))
        path = unrolled.adjoint.run(gradients[0].contiguous())
        inputs, _, *leaves = given
        wanted = [
            *([unrolled.inputs] if needed[0] else []),
            *(leaf for leaf, need in zip(leaves, needed[2:], strict=True) if need),
        ]
        found: Any = iter(())
        if wanted:
            found = iter(
                torch.autograd.grad(unrolled.new, wanted, path[1:].flatten(0, 1), retain_graph=True, allow_unused=True)
            )
        to_inputs = next(found) if needed[0] else None
        return (
            None,
            None if to_inputs is None else to_inputs.view_as(inputs),
            path[0] if needed[1] else None,
            *(next(found) if need else None for need in needed[2:]),
        )


def _at_once(step: Step, state: Tensor, inputs: Tensor) -> tuple[list[Call], Tensor]:
    """Return operations and states of all rows and steps in one call."""
    try:
        return _recorded(step, state, inputs)
    except (RuntimeError, ValueError, IndexError) as error:  # the number of rows is in it
        raise NotRepeatableError(str(error)) from error


def _recorded(step: Step, state: Tensor, inputs: Tensor) -> tuple[list[Call], Tensor]:
    with record_step(), Recorder() as recorder:
        new = step(state, inputs)
    return recorder.calls, new


def agree(found: Tensor, expected: Tensor) -> bool:
    """Return whether nine in ten numbers of every step are the same but for rounding.

    A number may be off where its function is steep, such as the logit of a number next to one.

    Args:
        found, expected: (time, ...).
    """
    tolerance = torch.finfo(expected.dtype).eps ** 0.6
    found, expected = found.detach(), expected.detach()
    if bool((found - expected).abs_().max() <= tolerance):  # most often
        return True
    close = torch.isclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    return bool(close.flatten(1).to(torch.float32).mean(1).min() >= 0.9)


def _leaves(value: Tensor, owner: nn.Module, own: set[int]) -> list[Tensor]:
    """Return the tensors that a value depends on: leaves of its graph but for our own, and a module's that are none.

    Raises:
        NotRepeatableError: a function with a backward in Python, which may keep what no operation shows, or a hook.
    """
    inner: dict[Any, Tensor] = {
        (each.grad_fn, each.output_nr): each for each in (*owner.parameters(), *owner.buffers()) if each.grad_fn
    }
    found: dict[int, Tensor] = {}
    seen, left = set(), [(value.grad_fn, value.output_nr)]
    while left:
        edge = left.pop()
        if edge in seen or edge[0] is None:
            continue
        seen.add(edge)
        node, leaf = edge[0], inner.get(edge, getattr(edge[0], "variable", None))
        if isinstance(node, BackwardCFunction):
            raise NotRepeatableError(node.name())
        if leaf is None:
            left += node.next_functions
        elif id(leaf) not in own:
            found[id(leaf)] = leaf
    if any(gradient_hooked(leaf) for leaf in found.values()):
        raise NotRepeatableError("hooks on gradients, which would be called twice")
    return list(found.values())
