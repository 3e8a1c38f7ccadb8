"""Random numbers that do not depend on how many processes share a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from latentrnn.support.private_symbols import standard_gamma


class Share(NamedTuple):
    """Which sequences of a batch one process has: those from `start` to `stop` of `whole`, with a `weight`."""

    start: int
    stop: int
    whole: int
    weight: float

    @property
    def held(self) -> int:
        """Sequences at hand."""
        return self.stop - self.start


@contextmanager
def drawn_for_all(share: Share, num_particles: int) -> Iterator[None]:
    """Draw every random number for the whole batch within the block, and keep those of the share.

    All processes start from the same state of torch's generators and leave it at the same state, that of a process
    which has the whole batch to itself; a draw costs as much as there. What is drawn outside the plate of sequences
    (parameters with priors) is the same everywhere. The axis of sequences is that of the site's plate, or else the
    first axis of the share's size that is not the particles'.

    Dropout inside a fused kernel is out of reach: it takes numbers as it would alone.

    Args:
        share: of the batch, which the programs are run on.
        num_particles: draws of the guide, the first axis where there are several.
    """
    draws = _Draws(share, num_particles)
    with draws, _Sites(draws):
        yield


class _Sites(Messenger):
    """Tells where the axis of sequences is in what is being drawn."""

    def __init__(self, draws: _Draws) -> None:
        super().__init__()
        self.draws = draws

    def _pyro_sample(self, msg: Any) -> None:
        inside = any(frame.dim == -1 for frame in msg["cond_indep_stack"])
        self.draws.axis = len(msg["fn"].batch_shape) - 1 if inside else _NOWHERE

    def _pyro_post_sample(self, msg: Any) -> None:
        self.draws.axis = None


_NOWHERE = -1  # what is drawn belongs to no sequence


class _Draws(TorchFunctionMode):
    """Draws for the whole batch; everything else is as ever."""

    def __init__(self, share: Share, num_particles: int) -> None:
        super().__init__()
        self.share, self.num_particles = share, num_particles
        self.axis: int | None = None  # of sequences, where a site's distribution tells

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drawn = _KINDS.get(func)
        if drawn is None or kwargs.get("generator") is not None or self.axis == _NOWHERE:
            return func(*args, **kwargs)
        return drawn(self, func, args, kwargs)

    def _place(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Return the axis of sequences, and how many particles lie in front of them in one axis; None for none."""
        count = self.share.held
        if self.axis is not None and self.axis < len(shape) and shape[self.axis] == count:
            return self.axis, 1
        first = 0  # behind the particles, and the axis of filters in front of them
        if self.num_particles > 1:
            leading = [shape[: len(front)] == front for front in ((self.num_particles,), (1, self.num_particles))]
            first = leading.index(True) + 1 if any(leading) else 0
        for axis in [*range(first, len(shape)), 0]:
            if shape and shape[axis] == count:
                return axis, 1
        if shape and shape[0] == count * self.num_particles:  # particles and sequences in rows
            return 0, self.num_particles
        return None

    def whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of what the whole batch would draw."""
        place = self._place(shape)
        if place is None:
            return shape
        axis, particles = place
        return (*shape[:axis], self.share.whole * particles, *shape[axis + 1 :])

    def own(self, drawn: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the share's part, in this shape, of what was drawn for the whole batch."""
        place = self._place(shape)
        if place is None:
            return drawn
        axis, particles = place
        if particles > 1:
            drawn = drawn.unflatten(axis, (particles, self.share.whole))
            return drawn.narrow(axis + 1, self.share.start, self.share.held).flatten(axis, axis + 1)
        return drawn.narrow(axis, self.share.start, self.share.held).contiguous()

    def everywhere(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return an argument of a draw for the whole batch, of which only the share's part is known."""
        place = self._place(shape)
        value = value.expand(shape)
        if place is None:
            return value
        axis, particles = place
        known = value.unflatten(axis, (particles, self.share.held)) if particles > 1 else value
        axis += int(particles > 1)
        index = torch.arange(self.share.whole, device=value.device) - self.share.start
        filled = known.index_select(axis, index.clamp(0, self.share.held - 1))
        return filled.flatten(axis - 1, axis) if particles > 1 else filled


def _made(draws: _Draws, func: Any, args: Any, kwargs: Any) -> Tensor:
    """torch.randn(*shape), torch.rand(shape), ..."""
    size = kwargs.pop("size", None) if "size" in kwargs else args
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)
    return draws.own(func(draws.whole(shape), **kwargs), shape)


def _made_like(draws: _Draws, func: Any, args: Any, kwargs: Any) -> Tensor:
    """torch.randn_like(tensor), ..."""
    shape = tuple(args[0].shape)
    return draws.own(func(args[0].new_empty(draws.whole(shape)), *args[1:], **kwargs), shape)


def _filled(draws: _Draws, func: Any, args: Any, kwargs: Any) -> Tensor:
    """tensor.normal_(...), ..."""
    shape = tuple(args[0].shape)
    if any(isinstance(argument, Tensor) for argument in args[1:]):
        return func(*args, **kwargs)
    drawn = func(args[0].new_empty(draws.whole(shape)), *args[1:], **kwargs)
    return args[0].copy_(draws.own(drawn, shape))


def _elementwise(draws: _Draws, func: Any, args: Any, kwargs: Any) -> Tensor:
    """torch.bernoulli(p), torch.normal(mean, scale), ..."""
    tensors = [argument for argument in args if isinstance(argument, Tensor)]
    if not tensors or kwargs:
        return func(*args, **kwargs)
    shape = tuple(torch.broadcast_shapes(*(tensor.shape for tensor in tensors)))
    whole = [draws.everywhere(argument, shape) if isinstance(argument, Tensor) else argument for argument in args]
    return draws.own(func(*whole), shape)


def _dropped(draws: _Draws, func: Any, args: Any, kwargs: Any) -> Tensor:
    """F.dropout(tensor, rate, training)."""
    named = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
    value, rate = named["input"], named.get("p", 0.5)
    if not named.get("training", True) or rate in (0, 1):
        return func(*args, **kwargs)
    kept = value.new_empty(draws.whole(tuple(value.shape))).bernoulli_(1 - rate)
    return value * (draws.own(kept, tuple(value.shape)) / (1 - rate))


_KINDS: dict[Any, Callable[[_Draws, Any, Any, Any], Tensor]] = {
    **dict.fromkeys((torch.randn, torch.rand), _made),
    **dict.fromkeys((torch.randn_like, torch.rand_like), _made_like),
    **dict.fromkeys(
        (
            *(Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_),
            *(Tensor.cauchy_, Tensor.log_normal_, Tensor.geometric_),
        ),
        _filled,
    ),
    **dict.fromkeys((torch.bernoulli, torch.normal, torch.poisson, standard_gamma), _elementwise),
    F.dropout: _dropped,
}
