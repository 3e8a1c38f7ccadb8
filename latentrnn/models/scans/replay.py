"""A step that was recorded once, run again for all others on the same memory, without what Python adds to it."""

from __future__ import annotations

from collections import Counter
from itertools import repeat

from torch import Tensor

from latentrnn.models.scans.operations import Call, Key, NotRepeatableError, aten, by_step, key_of, memory_of
from latentrnn.models.scans.program import Operation, Stream, copy, execute, operation_of


class Replay:
    """Runs a recorded step along time.

    Args:
        calls: the operations of the step.
        state, inputs, new: s_{t-1}, (row, state), a_t, (row, channel), and s_t, as they were recorded.
    """

    def __init__(self, calls: list[Call], state: Tensor, inputs: Tensor, new: Tensor) -> None:
        self.calls, self.state, self.inputs, self.new = calls, state, inputs, new
        self.viewed = set[int]().union(*(call.looks_at for call in calls))
        self.by_state, self.by_input = _followed(calls, state), _followed(calls, inputs)

    def constant(self, key: Key) -> bool:
        """Whether a value of the step is that of every step."""
        return key not in self.by_state and key not in self.by_input

    @property
    def ahead(self) -> bool:
        """Whether something can be computed for all steps before the first: from inputs, whatever the state."""
        return any(not call.looks_at and self._of_input_alone(call) for call in self.calls)

    def _of_input_alone(self, call: Call) -> bool:
        return any(key in self.by_input for key in call.keys) and not any(key in self.by_state for key in call.keys)

    def run(self, start: Tensor, inputs: Tensor, ahead: list[Call] | None) -> Tensor:
        """Return s_{0:T}, (time + 1, row, state).

        Args:
            start: s_0, (row, state).
            inputs: a_{1:T}, (time, row, channel).
            ahead: the operations of a step of all rows and steps at once, whatever the state, where `ahead` asks.

        Raises:
            NotRepeatableError: all steps at once take other operations than one.
        """
        path = start.new_empty(len(inputs) + 1, *start.shape)
        path[0] = start
        states = path.unbind(0)
        streams, program = ({} if ahead is None else self._known_ahead(ahead, len(inputs))), []
        for own, given in ((self.state, states[:-1]), (self.inputs, inputs.unbind(0))):
            if any(self._looks_at(call, own, streams) for call in self.calls):
                program.append(Operation(copy, [given], repeat(own.detach())))  # views lie in that memory
            else:
                streams[key_of(own)] = given
        program += self._steps(streams, path[1:])
        execute(program, len(inputs))
        return path

    def _looks_at(self, call: Call, own: Tensor, streams: dict[Key, Stream]) -> bool:
        return memory_of(own) in call.looks_at and not all(key in streams for key, _ in call.found)

    def _known_ahead(self, ahead: list[Call], steps: int) -> dict[Key, Stream]:
        found: dict[Key, Stream] = {}
        for call, every in paired(self.calls, ahead):
            if self._of_input_alone(call):
                for key, one, many in zip(call.keys, call.outputs, every.outputs, strict=True):
                    if key is not None and one is not None and many is not None:
                        found[key] = by_step(many.detach(), one, steps)
        return found

    def _steps(self, streams: dict[Key, Stream], new: Tensor) -> list[Operation]:
        """Return the operations of a step but for views, which stay where they are, and what is known."""
        constants: dict[Key, Stream] = {}

        def stream(value: Tensor) -> Stream:
            key = key_of(value)
            if key in streams:
                return streams[key]
            if key not in constants:
                # the product of a few rows with a matrix as it lies is a quarter to a third faster
                fixed = value.detach()
                constants[key] = repeat(fixed.contiguous() if self.constant(key) else fixed)
            return constants[key]

        end, uses = key_of(self.new), Counter(key for call in self.calls for key, _ in call.given)
        products: dict[Key, tuple[int, Call]] = {}
        program: dict[int, Operation] = {}
        written, follows = self._place(streams, new), self.by_state | self.by_input
        for number, call in enumerate(self.calls):
            keys = [key for key, _ in call.found]
            known = all(key in streams or key not in follows for key in keys) and not any(
                key in written for key in keys
            )
            if call.looks_at or known or (keys == [end] and end in written and end not in streams):
                continue
            operation, args = call.operation, call.args
            if operation is aten.mm.default and uses[keys[0]] == 1 and keys[0] != end:
                products[keys[0]] = number, call
            elif operation is aten.add.Tensor and not call.kwargs and (sum_ := _summed(call, products)) is not None:
                before, args = sum_
                operation = aten.addmm.default
                del program[before]
            own: list[Tensor | None] = [None if output is None else output.detach() for output in call.outputs]
            out = streams[keys[0]] if keys[0] in written else repeat(own[0] if len(own) == 1 else own)
            program[number] = operation_of(operation, args, call.kwargs, call.outputs, stream, out)
        if end not in written:
            program[len(self.calls)] = Operation(copy, [stream(self.new)], new.unbind(0))
        return list(program.values())

    def _place(self, streams: dict[Key, Stream], new: Tensor) -> set[Key]:
        """Let what the new states are, or are put together from, be written where they are kept, and return which."""
        made = {key: call for call in self.calls for key, _ in call.found}

        def free(value: Tensor) -> bool:
            key = key_of(value)
            alone = key in made and len(made[key].outputs) == 1 and not made[key].looks_at and key in self.by_state
            return alone and key not in streams and memory_of(value) not in self.viewed

        end = key_of(self.new)
        if not free(self.new):
            return set()
        parts = made[end].args[0] if made[end].operation is aten.cat.default else []
        keys = {key_of(part) for part in parts}
        if parts and made[end].args[1:] in ((1,), (-1,)) and len(keys) == len(parts) and all(map(free, parts)):
            widths = [part.shape[1] for part in parts]
            for part, columns in zip(parts, new.split(widths, -1), strict=True):
                streams[key_of(part)] = columns.unbind(0)
            return {*keys, end}
        streams[end] = new.unbind(0)
        return {end}


def _summed(call: Call, products: dict[Key, tuple[int, Call]]) -> tuple[int, tuple[Tensor, ...]] | None:
    """Return which product a sum takes, with the arguments that give both in one operation."""
    for own, other in (call.args, call.args[::-1]):
        product = products.get(key_of(own)) if isinstance(own, Tensor) else None
        if product is not None and isinstance(other, Tensor) and own.shape == call.outputs[0].shape:  # type: ignore[union-attr]
            return product[0], (other, *product[1].args)
    return None


def paired(calls: list[Call], every: list[Call]) -> list[tuple[Call, Call]]:
    """Return each operation of one step with that of all steps at once.

    Raises:
        NotRepeatableError: they are not the same.
    """
    if [call.operation for call in calls] != [call.operation for call in every]:
        raise NotRepeatableError("all steps at once take other operations than one")
    return list(zip(calls, every, strict=True))


def _followed(calls: list[Call], start: Tensor) -> set[Key]:
    """Return the keys of a value and of all that is computed from it."""
    found = {key_of(start)}
    for call in calls:
        if any(key in found for key, _ in call.given):
            found.update(key for key, _ in call.found)
    return found
