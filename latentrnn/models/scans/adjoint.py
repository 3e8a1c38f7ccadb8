"""The gradient's way back through time: what a step does to it, from operations that were recorded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latentrnn.models.scans.operations import Call, Key, NotRepeatableError, aten, by_step, key_of, replaced, tensors_in
from latentrnn.models.scans.program import Operation, Stream, copy, execute, operation_of

DEAREST = 3  # pieces up to which one operation each costs less than to put them side by side

# of these a gradient, which comes first, leaves multiplied entry by entry with what the others say
_SCALING = {
    aten.mul.Tensor,
    aten.sigmoid_backward.default,
    aten.tanh_backward.default,
    aten.threshold_backward.default,
    aten.logit_backward.default,
    aten.softplus_backward.default,
    aten.elu_backward.default,
    aten.gelu_backward.default,
    aten.silu_backward.default,
    aten.leaky_relu_backward.default,
    aten.hardtanh_backward.default,
    aten.hardsigmoid_backward.default,
    aten.log_sigmoid_backward.default,
    aten.div.Tensor,
    aten.neg.default,
    aten.div.Scalar,
    aten.mul.Scalar,
}
# entry by entry, so that they may be taken for all steps at once
_BY_ENTRY = {
    aten.mul.Tensor,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.div.Tensor,
    aten.rsub.Scalar,
    aten.neg.default,
    aten.exp.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.sin.default,
    aten.cos.default,
    aten.sgn.default,
    aten.sign.default,
    aten.reciprocal.default,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.pow.Tensor_Scalar,
    aten.mul.Scalar,
    aten.add.Scalar,
    aten.div.Scalar,
    aten.eq.Scalar,
    aten.eq.Tensor,
    aten.ne.Scalar,
    aten.lt.Scalar,
    aten.lt.Tensor,
    aten.le.Scalar,
    aten.le.Tensor,
    aten.gt.Scalar,
    aten.gt.Tensor,
    aten.ge.Scalar,
    aten.ge.Tensor,
    aten.logical_and.default,
    aten.logical_not.default,
    aten.bitwise_and.Tensor,
    aten.bitwise_not.default,
}


class Known(NamedTuple):
    """A value of the forward pass.

    Attributes:
        one: of one step, as it was recorded.
        every: of all steps, or, where it does not change, the same.
    """

    one: Tensor
    every: Tensor

    @property
    def changes(self) -> bool:
        return self.one.shape != self.every.shape


class Slot(NamedTuple):
    """Columns of a step: of lambda_t ("later"), of lambda_{t-1} ("earlier"), or of a buffer."""

    where: str | Tensor
    start: int
    stop: int

    def part(self, start: int, stop: int) -> Slot:
        return Slot(self.where, self.start + start, self.start + stop)


class Term(NamedTuple):
    """`slot * factor`, or `slot @ matrix`; a factor of all steps, (time * row, column), or one row for all of them."""

    slot: Slot
    factor: Tensor | None = None
    matrix: Tensor | None = None

    def columns(self, start: int, stop: int) -> Term:
        if self.matrix is not None:
            return Term(self.slot, matrix=self.matrix[:, start:stop].contiguous())
        return Term(self.slot.part(start, stop), None if self.factor is None else _part(self.factor, start, stop))


class Piece(NamedTuple):
    """A sum of terms that belongs to some columns of the whole."""

    start: int
    stop: int
    terms: list[Term]


class Linear(NamedTuple):
    """What is linear in lambda_t: (row, width), the sum of its pieces, zero where there is none."""

    width: int
    pieces: list[Piece]

    @classmethod
    def of(cls, *terms: Term, width: int) -> Linear:
        return cls(width, [Piece(0, width, list(terms))])


class Held(NamedTuple):
    """What a step computes by an operation that is not looked into."""

    value: Tensor


class Repeated(NamedTuple):
    """An operation of torch's that is repeated as it is, with what takes the places of its tensors."""

    call: Call
    given: dict[Key, Any]
    outputs: list[Tensor | None]


class Emitted(NamedTuple):
    """An operation of the loop: slots, factors and matrices that it is given, and the slot that it writes."""

    function: Callable[..., Any]
    given: Sequence[Any]
    out: Slot


Value = Known | Linear | Held


class Adjoint:
    """lambda_{t-1} = g_{t-1} + (d s_t / d s_{t-1})^T lambda_t, from the operations that one step's backward took.

    All is linear in lambda. What multiplies it entry by entry is taken for all steps at once and becomes one factor;
    products with a matrix, sums and columns side by side stay, a few operations per step.

    Args:
        calls: the operations of the backward of one step.
        known: values of the forward pass by key.
        gradient: what went into the backward, (row, state).
        found: what came out of it, None where the state has no effect.
        steps: T.

    Raises:
        NotRepeatableError: an operation on all rows at once that depends on their number.
    """

    def __init__(
        self, calls: list[Call], known: dict[Key, Known], gradient: Tensor, found: Tensor | None, steps: int
    ) -> None:
        self.rows, self.size = gradient.shape
        self.like, self.steps = gradient, steps
        self._emitted: list[Emitted | Repeated] = []
        self._computed: dict[int, tuple[Any, Slot]] = {}
        self._values: dict[Key, Value] = dict(known)
        self._values[key_of(gradient)] = Linear.of(Term(Slot("later", 0, self.size)), width=self.size)
        for call in calls:
            if not all(key in self._values for key, _ in call.found):
                for key, value in zip(call.keys, self._taken(call), strict=True):
                    if key is not None:
                        self._values[key] = value
        result = Linear(self.size, []) if found is None else self._value(found)
        if not isinstance(result, Linear) or result.width != self.size:
            raise NotRepeatableError("a gradient of the state that does not follow from that of the next")
        self._add_up(result)
        self._values.clear()  # of which factors are left
        self._computed.clear()

    def run(self, gradients: Tensor) -> Tensor:
        """Return lambda_{0:T}, (time + 1, row, state), of the gradients g_{1:T}, (time, row, state)."""
        found = torch.cat([torch.zeros_like(gradients[:1]), gradients])
        self._run(found)
        return found

    def once(self, gradient: Tensor) -> Tensor:
        """Return what becomes of the gradient at s_1, (row, state), at s_0."""
        found = torch.stack([torch.zeros_like(gradient), gradient])
        self._run(found)
        return found[0]

    # -- what an operation does ----------------------------------------------------------------------------------------

    def _value(self, tensor: Tensor) -> Value:
        found = self._values.get(key_of(tensor))
        return Known(tensor, tensor) if found is None else found

    def _every(self, given: Any) -> Any:
        """Return an argument of all steps."""
        if not isinstance(given, Tensor):
            return given
        value = self._value(given)
        assert isinstance(value, Known)
        if not value.changes and value.one.dim() == 2 and len(value.one) == self.rows > 1:
            number = value.one[:1, :1].detach()  # where all are the same, for any number of rows
            if not bool((value.one == number).all()):
                raise NotRepeatableError(f"numbers of {tuple(value.one.shape)} that belong to rows")
            return number
        return value.every.detach()

    def _taken(self, call: Call) -> list[Value]:
        values = [self._values.get(key) or Known(tensor, tensor) for key, tensor in call.given]
        known = [value for value in values if isinstance(value, Known)]
        if len(known) == len(values):
            if not any(value.changes for value in known):
                return [Known(output, output) for output in call.outputs]  # type: ignore[arg-type]
            if call.operation in _BY_ENTRY and not call.kwargs:
                (output,) = call.outputs
                assert output is not None
                return [Known(output, call.operation(*map(self._every, call.args)))]
        elif len(call.outputs) == 1 and all(isinstance(value, Linear | Known) for value in values):
            (output,) = call.outputs
            if output is not None and output.dim() == 2 and len(output) == self.rows:
                found = self._followed(call, output.shape[1], len(values) - len(known))
                if found is not None:
                    return [found]
        return self._repeated(call)

    def _followed(self, call: Call, width: int, linear: int) -> Linear | None:
        """Return what an operation does in a form that later ones can be joined with, None where there is none."""
        operation, args = call.operation, call.args
        first = self._value(args[0]) if isinstance(args[0], Tensor) else None
        if operation is aten.cat.default:
            return self._side_by_side(args[0]) if args[1:] in ((1,), (-1,)) else None
        if operation is aten.mul.Tensor and isinstance(first, Known):
            args = args[::-1]
            first = self._value(args[0])
        if not isinstance(first, Linear):
            return None
        if operation is aten.add.Tensor and linear == 2 and not call.kwargs:
            other = self._value(args[1])
            assert isinstance(other, Linear)
            return Linear(width, self._joined([*first.pieces, *other.pieces])) if first.width == other.width else None
        if linear > 1:
            return None
        if operation in _SCALING and first.width == width:
            return self._scaled(first, self._factor(operation, list(map(self._every, args[1:])), call.kwargs))
        if operation is aten.mm.default:
            matrix = self._value(args[1])
            return self._multiplied(first, matrix.one.detach()) if not matrix.changes else None  # type: ignore[union-attr]
        if operation is aten.slice.Tensor and args[1] in (1, -1) and args[4:] in ((), (1,)):
            start, stop, _ = slice(*args[2:4]).indices(first.width)
            return _columns(first, start, stop)
        if operation is aten.slice_backward.default and args[2] in (1, -1) and args[5] == 1:
            start, stop, _ = slice(*args[3:5]).indices(width)
            return Linear(width, [Piece(start + p.start, start + p.stop, p.terms) for p in first.pieces])
        if operation in (aten.view.default, aten._unsafe_view.default, aten.clone.default) and first.width == width:
            return first
        return None

    def _factor(self, operation: Any, others: list[Any], options: dict[str, Any]) -> Tensor:
        """Return what an operation multiplies a gradient by, entry by entry."""
        if operation is aten.mul.Tensor and isinstance(others[0], Tensor):
            return others[0]
        like = next(tensors_in(others), None)
        ones = self.like.new_ones(()) if like is None else torch.ones_like(like, dtype=self.like.dtype)
        return operation(ones, *others, **options)

    def _scaled(self, value: Linear, factor: Tensor) -> Linear:
        if factor.dim() > 2 or (factor.dim() == 2 and len(factor) not in (1, self.rows * self.steps)):
            raise NotRepeatableError(f"a factor of {tuple(factor.shape)}")
        pieces = []
        for piece in value.pieces:
            own = _part(factor, piece.start, piece.stop)
            (term, *rest) = piece.terms
            if rest or term.matrix is not None:
                term = Term(self._slot(piece))
            joined = own if term.factor is None else term.factor * own
            pieces.append(Piece(piece.start, piece.stop, [Term(term.slot, joined)]))
        return Linear(value.width, pieces)

    def _joined(self, pieces: list[Piece]) -> list[Piece]:
        """Return pieces of which none has the columns of another, and terms of which none has the slot of another."""
        found: dict[tuple[int, int], list[Term]] = {}
        for piece in pieces:
            terms = found.setdefault((piece.start, piece.stop), [])
            for term in piece.terms:
                twins = (i for i, t in enumerate(terms) if t.matrix is term.matrix is None and _same(t.slot, term.slot))
                twin = next(twins, None)
                if twin is None:
                    terms.append(term)
                else:
                    one = self.like.new_ones(())
                    factors = (one if each.factor is None else each.factor for each in (terms[twin], term))
                    terms[twin] = Term(term.slot, sum(factors))  # type: ignore[arg-type]
        return [Piece(start, stop, terms) for (start, stop), terms in found.items()]

    def _multiplied(self, value: Linear, matrix: Tensor) -> Linear:
        if not value.pieces:
            return Linear(matrix.shape[1], [])
        if _is_whole(value):
            (term, *rest) = value.pieces[0].terms
            if not rest and term.factor is not None and _is_row(term.factor):  # (x * d) A = x (diag(d) A)
                row = term.factor.expand(1, len(matrix)).reshape(-1, 1)
                return Linear.of(Term(term.slot, matrix=row * matrix), width=matrix.shape[1])
        return Linear.of(Term(self._slot(value), matrix=matrix.contiguous()), width=matrix.shape[1])

    def _side_by_side(self, parts: Sequence[Tensor]) -> Linear | None:
        pieces, start = [], 0
        for part in parts:
            value = self._value(part)
            if isinstance(value, Linear):
                pieces += [Piece(start + p.start, start + p.stop, p.terms) for p in value.pieces]
            elif not isinstance(value, Known) or value.changes or bool(value.one.any()):
                return None
            start += part.shape[1]
        return Linear(start, pieces)

    def _repeated(self, call: Call) -> list[Value]:
        if call.looks_at and not any(isinstance(self._value(tensor), Known) for _, tensor in call.given):
            found = call.operation(*replaced(call.args, lambda tensor: self._held(self._value(tensor))), **call.kwargs)
            return [self._as_it_lies(each) for each in (found if isinstance(found, list | tuple) else [found])]
        given: dict[Key, Any] = {}
        for key, tensor in call.given:
            value = self._value(tensor)
            given[key] = self._slot(value) if isinstance(value, Linear) else value
        own = [None if output is None else torch.empty_like(output).detach() for output in call.outputs]
        self._emitted.append(Repeated(call, given, own))
        return [self._as_it_lies(value) for value in own]

    def _as_it_lies(self, value: Tensor | None) -> Value:
        if value is not None and value.dim() == 2 and len(value) == self.rows:
            return Linear.of(Term(Slot(value, 0, value.shape[1])), width=value.shape[1])
        return Held(value)  # type: ignore[arg-type]

    def _held(self, value: Value) -> Tensor:
        """Return memory in which a value lies at every step, so that views of it need no operation."""
        if isinstance(value, Held):
            return value.value
        assert isinstance(value, Linear)
        slot = self._slot(value)
        if isinstance(slot.where, Tensor) and slot.where.shape == (self.rows, value.width) and not slot.start:
            return slot.where
        own = Slot(self.like.new_zeros(self.rows, value.width), 0, value.width)
        self._emit(copy, [slot], own)
        return own.where  # type: ignore[return-value]

    # -- operations of the loop ----------------------------------------------------------------------------------------

    def _slot(self, value: Linear | Piece) -> Slot:
        """Return where a value is computed, once for all that ask."""
        terms = value.terms if isinstance(value, Piece) else value.pieces
        if id(terms) not in self._computed:
            self._computed[id(terms)] = terms, self._compute(value)
        return self._computed[id(terms)][1]

    def _compute(self, value: Linear | Piece) -> Slot:
        if isinstance(value, Linear) and _is_whole(value):
            return self._slot(value.pieces[0])
        if isinstance(value, Piece) and len(value.terms) == 1 and value.terms[0][1:] == (None, None):
            return value.terms[0].slot
        width = value.width if isinstance(value, Linear) else value.stop - value.start
        out = Slot(self.like.new_zeros(self.rows, width), 0, width)
        if isinstance(value, Piece):
            self._sum(None, value.terms, out)
        elif not _is_tiled(value):
            self._emit(_zero, [], out)
            for piece in value.pieces:
                own = out.part(piece.start, piece.stop)
                self._sum(own, piece.terms, own)
        elif len(value.pieces) > DEAREST and all(len(p.terms) == 1 and p.terms[0].matrix is None for p in value.pieces):
            self._lay_side_by_side(value, out)
        else:
            for piece in value.pieces:
                self._sum(None, piece.terms, out.part(piece.start, piece.stop))
        return out

    def _lay_side_by_side(self, value: Linear, out: Slot) -> None:
        """Put columns side by side in one operation, and multiply them in another."""
        terms = [piece.terms[0] for piece in value.pieces]
        self._emit(_cat, [term.slot for term in terms], out)
        if any(term.factor is not None for term in terms):
            ones = self.like.new_ones(1, 1)
            factors = [ones if term.factor is None else term.factor for term in terms]
            rows = max(1 if _is_row(factor) else len(factor) for factor in factors)
            wide = [f.expand(rows, p.stop - p.start) for f, p in zip(factors, value.pieces, strict=True)]
            self._emit(torch.mul, [out, torch.cat(wide, 1)], out)

    def _sum(self, start: Slot | None, terms: list[Term], out: Slot) -> None:
        """Write a sum of terms, and of what there is at the start."""
        for term in sorted(terms, key=lambda term: (term.factor is not None) + 2 * (term.matrix is not None)):
            if start is None and term[1:] == (None, None):
                start = term.slot
                continue
            before = [] if start is None else [start]
            if term.matrix is not None:
                self._emit(torch.addmm if before else torch.mm, [*before, term.slot, Held(term.matrix)], out)
            elif term.factor is not None:
                self._emit(torch.addcmul if before else torch.mul, [*before, term.slot, term.factor], out)
            else:
                self._emit(torch.add, [*before, term.slot], out)
            start = out
        assert start is not None
        if not _same(start, out):
            self._emit(copy, [start], out)

    def _add_up(self, result: Linear) -> None:
        """Add to lambda_{t-1}, which begins as g_{t-1}."""
        for piece in result.pieces:
            own = Slot("earlier", piece.start, piece.stop)
            self._sum(own, piece.terms, own)

    def _emit(self, function: Callable[..., Any], given: Sequence[Any], out: Slot) -> None:
        self._emitted.append(Emitted(function, given, out))

    def _run(self, path: Tensor) -> None:
        """Go backwards in time through the first steps, which begin as g_{0:n}, (time + 1, row, state)."""
        count = len(path) - 1
        laid: dict[tuple[int, int], list[Tensor]] = {}

        def stream(given: Slot | Known | Held | Tensor) -> Stream:
            if isinstance(given, Slot):
                where, *columns = given
                if isinstance(where, Tensor):
                    return repeat(where[:, slice(*columns)])
                if (given.start, given.stop) not in laid:
                    laid[given.start, given.stop] = list(path[..., slice(*columns)].unbind(0))[::-1]
                steps = laid[given.start, given.stop]
                return steps[:-1] if where == "later" else steps[1:]
            if isinstance(given, Held):
                return repeat(given.value)
            if isinstance(given, Known):
                one = given.one.detach()
                return by_step(given.every.detach(), one, self.steps, count)[::-1] if given.changes else repeat(one)
            if _is_row(given):
                return repeat(given)
            return list(given.unflatten(0, (self.steps, self.rows))[:count].unbind(0))[::-1]

        program = []
        for each in self._emitted:
            if isinstance(each, Emitted):
                program.append(Operation(each.function, [stream(value) for value in each.given], stream(each.out)))
            else:
                call, out = each.call, each.outputs[0] if len(each.outputs) == 1 else each.outputs
                given = {key: stream(value) for key, value in each.given.items()}
                look_up = lambda tensor, given=given: given[key_of(tensor)]  # noqa: E731
                program.append(operation_of(call.operation, call.args, call.kwargs, call.outputs, look_up, repeat(out)))
        execute(program, count)


def _zero(*, out: Tensor) -> None:
    out.zero_()


def _cat(*parts: Tensor, out: Tensor) -> None:
    torch.cat(parts, 1, out=out)


def _same(one: Slot, other: Slot) -> bool:
    return one.where is other.where and (one.start, one.stop) == (other.start, other.stop)


def _is_row(factor: Tensor) -> bool:
    return factor.dim() < 2 or len(factor) == 1


def _is_whole(value: Linear) -> bool:
    return len(value.pieces) == 1 and value.pieces[0][:2] == (0, value.width)


def _is_tiled(value: Linear) -> bool:
    """Whether every column belongs to one piece; they are put in order."""
    value.pieces.sort(key=lambda piece: piece.start)
    ends = [0, *(piece.stop for piece in value.pieces)]
    return ends[-1] == value.width and all(p.start == end for p, end in zip(value.pieces, ends[:-1], strict=True))


def _part(factor: Tensor, start: int, stop: int) -> Tensor:
    """Return columns of a factor, which may be the same for all of them."""
    return factor if factor.dim() == 0 or factor.shape[-1] == 1 else factor[..., start:stop]


def _columns(value: Linear, start: int, stop: int) -> Linear:
    found = []
    for piece in value.pieces:
        first, last = max(start, piece.start), min(stop, piece.stop)
        if first < last:
            terms = piece.terms
            if (first, last) != (piece.start, piece.stop):
                terms = [term.columns(first - piece.start, last - piece.start) for term in terms]
            found.append(Piece(first - start, last - start, terms))
    return Linear(stop - start, found)
