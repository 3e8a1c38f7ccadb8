"""What a head becomes where one value of a covariate is another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latentrnn.inference.posterior.interventions.replays import Replay
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.attribution.substitutes import Substitute, substitute_of, with_covariate
from latentrnn.interpret.attribution.targets import Target, target_of
from latentrnn.interpret.results.labelled import AnyPosterior, pooled
from latentrnn.interpret.results.rows import Found, of_rows
from latentrnn.support.arguments import check_integer, check_list
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

MORE_ROWS = 16  # than where gradients are kept


@isolated
def mutagenesis(
    posterior: AnyPosterior,
    head: str,
    covariate: str,
    *,
    positions: Sequence[int] | None = None,
    delta: Any = None,
    channel: Any = None,
    step: int | None = None,
    quantity: str = "predictor",
    num_samples: int = 20,
) -> xarray.Dataset:
    """Return what each single change of a covariate would do to a head: f(x with x_t = k) - f(x), for every draw.

    In-silico mutagenesis: of a covariate of symbols (read by `OneHot` or `Embedding`) every symbol is put at every
    position; to any other a stated step is added. f, and what stays as it is, are those of `saliency`, whose "change"
    is this one to first order.

    Args:
        posterior: of any model, or of an ensemble.
        head: whose predictor or mean.
        covariate: the covariate's name.
        positions: base steps at which to change it; all by default. Each is a run of the model for every symbol.
        delta: what is added to numbers: one number, or one per feature, in the data's units; None for symbols.
        channel, step, quantity, num_samples: as in `saliency`.

    Returns:
        A dataset with "change", (sample, sequence, time, feature, output), of symbols (sample, sequence, time, feature,
        symbol, output): zero for the symbol that is there. "time" is that of the positions. NaN in padding, and where
        sequences end before `step`.

    Raises:
        TypeError: something that is no posterior.
        ValueError: an unknown head, covariate, channel, step or quantity; a position outside the data; no `delta` for
            numbers, or one for symbols; a `Discrete` latent.

    References:
        Zhou, Troyanskaya. Predicting effects of noncoding variants with deep learning-based sequence model. 2015.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> base = np.random.default_rng(0).integers(0, 4, (2, 6, 1))
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 6, 1))}, {"base": base})
        >>> parts = {"transition": lr.GRU(3), "latent": lr.Deterministic(), "observations": {"v": lr.Gaussian()}}
        >>> model = lr.LatentRNN(data.spec, inputs=[lr.OneHot("base", 4)], **parts)
        >>> posterior = lr.Posterior(model, lr.Guide(model), data)
        >>> found = lr.interpret.mutagenesis(posterior, "v", "base", positions=[2, 3], num_samples=1)
        >>> dict(found.change.sizes)
        {'sample': 1, 'sequence': 2, 'time': 2, 'feature': 1, 'symbol': 4, 'output': 1}
    """
    settings = {"head": head, "covariate": covariate, "quantity": quantity}

    def of_one(one: Posterior, count: int) -> xarray.Dataset:
        target = target_of("mutagenesis", one, head, quantity, step, channel)
        place = substitute_of("mutagenesis", one, covariate)
        steps = _positions(positions, one.data.num_steps)
        changes = Changes.of(place, steps, _delta(place, delta))
        return of_rows(one, count, partial(_changed, place, target, changes), place.coords, settings, steps=steps)

    return pooled("mutagenesis", posterior, num_samples, of_one)


@dataclass(frozen=True)
class Changes:
    """Every single change: one after the other, position by position, then by feature, then by symbol.

    Attributes:
        shape: (position, feature, [symbol]).
        position, feature: where each is, (change,).
        to: code of the symbol that it puts there, (change,); None where it adds.
        by: what it adds, (change,).
    """

    shape: tuple[int, ...]
    position: Tensor
    feature: Tensor
    to: Tensor | None
    by: Tensor | None

    @classmethod
    def of(cls, place: Substitute, steps: list[int], delta: Tensor | None) -> Changes:
        """Return the changes of a covariate at these steps."""
        symbols = () if place.symbols is None else (place.symbols,)
        shape = (len(steps), len(place.features), *symbols)
        at = torch.stack(torch.meshgrid(*[torch.arange(size) for size in shape], indexing="ij")).flatten(1)
        to, by = (at[2], None) if delta is None else (None, delta[at[1]])
        return cls(shape, torch.tensor(steps)[at[0]], at[1], to, by)

    def __len__(self) -> int:
        return len(self.position)


@torch.no_grad()
def _changed(place: Substitute, target: Target, changes: Changes, replay: Replay) -> Found:
    before, outputs = target.of(replay.rollout(replay.data))
    before = before.cpu()
    found = torch.full((len(replay) * len(changes), before.shape[-1]), torch.nan, dtype=before.dtype)
    pair = torch.arange(len(found))
    row, change = pair // len(changes), pair % len(changes)
    lengths, codes = replay.data.lengths.cpu(), replay.data.covariates[place.name].cpu()
    inside = changes.position[change] < lengths[row]
    at = row, changes.position[change].clamp_max(codes.shape[1] - 1), changes.feature[change]
    same = inside & (codes[at] == changes.to[change]) if changes.to is not None else torch.zeros_like(inside)
    found[same] = 0.0
    for part in (inside & ~same).nonzero().flatten().split(MORE_ROWS * replay.most_rows):
        taken = replay.take(row[part])
        values = taken.data.covariates[place.name].clone()
        where = (torch.arange(len(part)), changes.position[change[part]], changes.feature[change[part]])
        if changes.to is not None:
            values[where] = changes.to[change[part]].to(values)
        else:
            assert changes.by is not None
            values[where] += changes.by[change[part]].to(values)
        after = target.of(taken.rollout(with_covariate(taken.data, place.name, values)))[0]
        found[part] = after.cpu() - before[row[part]]
    shaped = found.reshape(len(replay), *changes.shape, -1)
    return Found({"change": (("time", *place.dims, "output"), shaped)}, outputs)


def _positions(positions: Sequence[int] | None, num_steps: int) -> list[int]:
    if positions is None:
        return list(range(num_steps))
    listed = check_list("mutagenesis", "positions", positions, "base steps")
    found = [check_integer("mutagenesis", "positions", each, most=num_steps - 1) for each in listed]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"mutagenesis: positions must be base steps, each once; found {listed}")
    return found


def _delta(place: Substitute, delta: Any) -> Tensor | None:
    if place.symbols is not None:
        if delta is not None:
            raise ValueError(f"mutagenesis: covariate {place.name!r} holds symbols, to which no delta can be added")
        return None
    found = np.asarray(np.nan if delta is None else delta, dtype=np.float64)
    if found.shape not in ((), (len(place.features),)) or not np.isfinite(found).all():
        raise ValueError(
            f"mutagenesis: covariate {place.name!r} holds numbers: delta must be what is added, one number or one for "
            f"each of {len(place.features)} features; found {delta!r}"
        )
    return torch.from_numpy(np.broadcast_to(found, (len(place.features),)).copy())
