"""Numbers of its own for every sequence, instead of an encoder's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.data import SequenceData, SequenceKey
from latentrnn.inference.guides.encoders import Encoding
from latentrnn.inference.guides.families.family import Draw, Family, Proposals, sample_site
from latentrnn.support.arguments import check_list, check_size, is_integer


class PerSequence(Family):
    """A family whose parameters are learned for each training sequence by itself, on top of what an encoder says.

    Without an encoder this is the classical variational posterior, as tight as its family allows and blind to any
    other sequence: a posterior of new data starts from what the sequences share and has to be refined
    (`posterior.refined`). With an encoder it is the encoder's posterior, corrected sequence by sequence.

    Args:
        base: the family that the parameters are for.
        keys: the sequences that have parameters, as (key, start, stop); filled in by `fit`.
        num_steps: steps of the longest; filled in by `fit`.

    References:
        Hoffman, Blei, Wang, Paisley. Stochastic variational inference. 2013.
        Cremer, Li, Duvenaud. Inference suboptimality in variational autoencoders. 2018.
    """

    amortised = False

    def __init__(self, base: Family, keys: Sequence[Sequence[Any]] | None = None, num_steps: int | None = None) -> None:
        super().__init__()
        if not isinstance(base, Family) or isinstance(base, PerSequence):
            raise TypeError(f"PerSequence: base must be a Family such as GaussianChain(); found {base!r}")
        self.base = base.fresh()
        self.num_steps = None if num_steps is None else check_size("PerSequence", "num_steps", num_steps)
        if (keys is None) != (num_steps is None):
            raise ValueError(
                f"PerSequence: keys and num_steps go together, both are filled in by fit; found {keys!r:.80} and "
                f"{num_steps!r:.80}"
            )
        given = None if keys is None else check_list("PerSequence", "keys", keys, "keys of sequences")
        self.keys = None if given is None else [_checked_key(key) for key in given]
        self._rows: dict[tuple[Any, ...], int] = {}

    @classmethod
    def around(cls, family: Family, data: SequenceData, sizes: tuple[int, int]) -> PerSequence:
        """Return parameters for the sequences of `data` on top of a family that is built, and that keeps its weights.

        Args:
            family: the family; the parameters of a `PerSequence` go on from where they are.
            data: the sequences.
            sizes: of an encoder's features of steps and of sequences.
        """
        base = family.base if isinstance(family, PerSequence) else family
        new = cls(base)
        new.base, new._sizes = base, sizes
        new.sites, new.trajectories, new.starts = base.sites, base.trajectories, base.starts
        new.table = nn.ParameterDict()
        new.keys, new.num_steps = [tuple(key) for key in data.keys], data.num_steps
        new._allocate(data)
        if isinstance(family, PerSequence):
            with torch.no_grad():
                for site in new.sites:
                    for row, key in enumerate(new.keys):
                        if (before := family._rows.get(key)) is not None:
                            known = family.table[site.name][before]
                            new.table[site.name][row, : len(known)] = known[: data.num_steps]
        return new

    def _build(self, step_size: int, summary_size: int) -> None:
        self.base.build(self.sites, step_size, summary_size)
        self._sizes = step_size, summary_size
        self.table = nn.ParameterDict()
        if self.keys is not None:
            self._allocate(None)

    def initialise(self, data: SequenceData) -> None:
        """Give every sequence of the training data its own parameters, all zero."""
        self.base.initialise(data)
        self.keys, self.num_steps = [tuple(key) for key in data.keys], data.num_steps
        self._allocate(data)

    def _allocate(self, data: SequenceData | None) -> None:
        assert self.keys is not None
        assert self.num_steps is not None
        self._rows = {key: row for row, key in enumerate(self.keys)}
        like = next(self.base.parameters())
        steps, summary = (like.new_zeros(1, *shape) for shape in ((1, self._sizes[0]), (self._sizes[1],)))
        with torch.no_grad():
            parameters = self.base.variational_parameters(Encoding(steps, summary), data)
        for site in self.sites:
            size = parameters[site.name].shape[-1]
            shape = (len(self.keys), self.num_steps, size) if site.along_time else (len(self.keys), size)
            self.table[site.name] = nn.Parameter(like.new_zeros(shape))

    def variational_parameters(self, encoding: Encoding, data: SequenceData | None) -> dict[str, Tensor]:
        shared = self.base.variational_parameters(encoding, data)
        if data is None:
            return shared
        rows, known = self._find(data.keys, encoding.summary.device)
        found = {}
        for site in self.sites:
            own = self.table[site.name][rows]
            if site.along_time:  # steps after the longest sequence that has parameters have none: what is shared it is
                own = F.pad(own[:, : data.num_steps], (0, 0, 0, max(0, data.num_steps - own.shape[1])))
            there = known.reshape(-1, *[1] * (own.dim() - 1))
            found[site.name] = shared[site.name] + torch.where(there, own, 0.0)
        return found

    def knows(self, data: SequenceData) -> bool:
        """Whether every sequence of `data` has parameters of its own."""
        return all(tuple(key) in self._rows for key in data.keys)

    def _find(self, keys: Sequence[SequenceKey], device: torch.device) -> tuple[Tensor, Tensor]:
        rows = [self._rows.get(tuple(key), -1) for key in keys]
        found = torch.tensor(rows, device=device)
        return found.clamp_min(0), found >= 0

    def sample(self, parameters: dict[str, Tensor], data: SequenceData, draw: Draw = sample_site) -> dict[str, Tensor]:
        return self.base.sample(parameters, data, draw)

    def proposals(self, parameters: dict[str, Tensor], data: SequenceData) -> Proposals:
        return self.base.proposals(parameters, data)

    def __repr__(self) -> str:
        return f"PerSequence({self.base!r})"


def _checked_key(key: Any) -> tuple[Any, ...]:
    parts = check_list("PerSequence", "keys", key, "(key, start, stop)")
    if len(parts) != 3 or not isinstance(parts[0], str) or not all(map(is_integer, parts[1:])):
        raise ValueError(f"PerSequence: keys must be a list of (key, start, stop); found {key!r:.80}")
    return parts[0], int(parts[1]), int(parts[2])
