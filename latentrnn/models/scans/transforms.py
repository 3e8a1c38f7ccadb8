"""The transforms under which a scan runs: derivatives, which a hand-written backward gives or not, and many members."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

# what hand-written loops take. Tensors of other classes, as those with Pyro's provenance, from which it draws graphs of
# models, follow operations one by one, and not what happens in buffers.
PLAIN = frozenset({Tensor, nn.Parameter, type(None)})

_over_members = ContextVar("over_members", default=False)
_recorded = ContextVar("recorded", default=False)


def gradient_wanted(*tensors: Tensor) -> bool:
    """Return whether a gradient will be asked for."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def gradients_by_autograd(
    reference: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    needed: Sequence[bool],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return the gradients of `inputs` in a form that can be differentiated again, by evaluating `reference`.

    A hand-written backward calls it where a graph of it is wanted (`create_graph=True`, for Hessians).

    Args:
        reference: the same function of the inputs, written so that autograd follows it.
        inputs: its arguments, as they were saved.
        needed: for which of them a gradient is asked.
        gradients: of its results.
    """
    with torch.enable_grad():
        outputs = reference(*inputs)
    asked = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
    pairs = [(out, gradient) for out, gradient in zip(outputs, gradients, strict=True) if gradient is not None]
    found = iter(
        torch.autograd.grad(
            [out for out, _ in pairs], asked, [gradient for _, gradient in pairs], create_graph=True, allow_unused=True
        )
    )
    return [next(found) if need else None for need in needed]


@contextmanager
def vmap_over_members() -> Iterator[None]:
    """Within the block one level of `vmap` is over members, and no derivative is taken inside it."""
    before = _over_members.set(True)
    try:
        yield
    finally:
        _over_members.reset(before)


def over_members() -> bool:
    """Return whether a scan is that of many members."""
    return _over_members.get()


@contextmanager
def record_step() -> Iterator[None]:
    """Within the block the operations of a step are recorded."""
    before = _recorded.set(True)
    try:
        yield
    finally:
        _recorded.reset(before)


def step_is_recorded() -> bool:
    """Return whether a step must be put together from operations that can be repeated, not from torch's own cells."""
    return _recorded.get()
