"""What was found out once about the tensors of a data set, and holds for its batches too."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Facts:
    """Facts about one `SequenceData`. They are lost where tensors are replaced, and handed on where rows are taken."""

    def __init__(self) -> None:
        self.complete: dict[str, bool] = {}  # by head, whether all of its entries are observed and scored
        self.constants: dict[str, Tensor] = {}  # by key, one number per sequence

    def constant(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return (sequence,) numbers that depend on the data alone, computed where they are not known yet."""
        if key not in self.constants:
            self.constants[key] = compute()
        return self.constants[key]

    def of_rows(self, rows: Tensor) -> Facts:
        """Return what is known of some of the sequences; part of what is complete is complete."""
        new = Facts()
        new.complete = {name: True for name, value in self.complete.items() if value}
        new.constants = {key: values.index_select(0, rows) for key, values in self.constants.items()}
        return new
