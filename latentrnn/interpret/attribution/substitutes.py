"""Values that stand in for a covariate: numbers as they are, codes of symbols one-hot, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.data.ingest.plain_numbers import to_tensor
from latentrnn.inference.posterior.interventions.replays import Replay
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.attribution.targets import Target
from latentrnn.models.features import Symbols
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.shown import shown


@dataclass(frozen=True)
class Substitute:
    """A covariate for which other values can stand in.

    Attributes:
        name: of the covariate.
        features: names of its features.
        symbols: of how many symbols it holds codes, None where it holds numbers.
    """

    name: str
    features: tuple[str, ...]
    symbols: int | None

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes of its values behind those of time."""
        return ("feature",) if self.symbols is None else ("feature", "symbol")

    @property
    def coords(self) -> dict[str, Any]:
        """Labels of these."""
        symbols = {} if self.symbols is None else {"symbol": range(self.symbols)}
        return {"feature": list(self.features), **symbols}

    def values(self, data: SequenceData) -> Tensor:
        """Return its values, (sequence, time, feature), or their one-hot coding, (..., symbol)."""
        codes = data.covariates[self.name]
        if self.symbols is None:
            return codes
        return (codes.unsqueeze(-1) == torch.arange(self.symbols, device=codes.device)).to(codes.dtype)

    def explained(
        self, replay: Replay, values: Tensor, target: Target, codes: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Return the target, (row, output), with values in the place of the covariate's own, and its outputs' names.

        Args:
            replay: the rows.
            values: (row, time, feature, [symbol]).
            target: what is asked of the head.
            codes: of symbols, what is read by parts that take them as numbers.
        """
        if self.symbols is None:
            return target.of(replay.rollout(with_covariate(replay.data, self.name, values)))
        data = replay.data if codes is None else with_covariate(replay.data, self.name, codes)
        with _standing_in(replay.model, self.name, values):
            return target.of(replay.rollout(data))

    def derivatives(self, replay: Replay, values: Tensor, target: Target) -> tuple[Tensor, list[Any]]:
        """Return d target / d values, (row, time, feature, [symbol,] output), and its outputs' names.

        NaN in rows whose target is.

        Raises:
            ValueError: the target does not depend on the values, or on codes of symbols as numbers too.
        """
        with torch.enable_grad():
            values = values.detach().requires_grad_()
            codes = replay.data.covariates[self.name].detach().requires_grad_()
            found, names = self.explained(replay, values, target, codes)
            if not found.requires_grad:
                raise self._independent(target)
            slopes = []
            for place in range(found.shape[1]):
                wanted = values if self.symbols is None else (values, codes)
                slope, *others = torch.autograd.grad(
                    found[:, place].sum(), wanted, retain_graph=place + 1 < found.shape[1], allow_unused=True
                )
                if slope is None:
                    raise self._independent(target)
                if any(other is not None for other in others):
                    raise ValueError(f"{target.owner}: covariate {self.name!r} is read as symbols and as numbers")
                slopes.append(slope)
        gone = found.detach().isnan().reshape(len(found), *[1] * (values.dim() - 1), -1)
        return torch.stack(slopes, -1).masked_fill(gone, torch.nan), names

    def _independent(self, target: Target) -> ValueError:
        return ValueError(
            f"{target.owner}: the {target.quantity} of head {target.spec.name!r} does not depend on covariate "
            f"{self.name!r} by differentiable operations"
        )

    def baseline(self, owner: str, posterior: Posterior, given: Any) -> Tensor:
        """Return the values of a baseline, (sequence, time, feature, [symbol]) or what broadcasts to them.

        Args:
            owner: who asks, for error messages.
            posterior: of the data, whose mean is the baseline "mean".
            given: "mean" or numbers.

        Raises:
            ValueError: another word, or a shape that does not fit.
        """
        data = posterior.data
        values = self.values(data)
        if isinstance(given, str):
            if given != "mean":
                raise ValueError(f"{owner}: baseline must be 'mean' or numbers; found {given!r}")
            return values[data.valid].mean(0).expand_as(values)
        found = to_tensor(f"{owner}: baseline", given).to(values)
        try:
            found = found.expand_as(values)
        except RuntimeError:
            axes = "(sequence, time, feature)" if self.symbols is None else "(sequence, time, feature, symbol)"
            raise ValueError(
                f"{owner}: baseline must broadcast to {axes} {tuple(values.shape)}; found {tuple(found.shape)}"
            ) from None
        if not bool(found[data.valid].isfinite().all()):
            raise ValueError(f"{owner}: baseline must be finite; found NaN or infinity")
        return found


def with_covariate(data: SequenceData, name: str, values: Tensor) -> SequenceData:
    """Return data with other values of a covariate."""
    return replace(data, covariates={**data.covariates, name: values})


def substitute_of(owner: str, posterior: Posterior, covariate: Any) -> Substitute:
    """Return a covariate of a model, as symbols where `OneHot` or `Embedding` read it.

    Raises:
        ValueError: there is none of this name, or features disagree on how many symbols there are.
    """
    known = posterior.model.spec.covariates
    if not isinstance(covariate, str) or covariate not in known:
        raise ValueError(f"{owner}: unknown covariate {shown(covariate)}; the data have {sorted(known)}")
    sizes = {reader.symbols for reader in _readers(posterior.model, covariate)}
    if len(sizes) > 1:
        raise ValueError(f"{owner}: features disagree on the symbols of covariate {covariate!r}: {sorted(sizes)}")
    return Substitute(covariate, known[covariate].feature_names, next(iter(sizes), None))


def _readers(model: LatentRNN, covariate: str) -> list[Symbols]:
    return [part for part in model.modules() if isinstance(part, Symbols) and part.covariate == covariate]


@contextmanager
def _standing_in(model: LatentRNN, covariate: str, weights: Tensor) -> Iterator[None]:
    """Let weights of the symbols stand in for a covariate's codes within the block."""
    readers = _readers(model, covariate)
    for reader in readers:
        reader.stand_in = weights
    try:
        yield
    finally:
        for reader in readers:
            reader.stand_in = None
