"""What a fit returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentrnn.data import DataSpec, SequenceData, SequenceKey
from latentrnn.inference.fitting.history import by_step
from latentrnn.inference.fitting.saving.save import save
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.windows import Window
from latentrnn.inference.posterior.conditioning import remark
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.notebooks import ShownInNotebooks

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class FitResult(ShownInNotebooks):
    """A fitted model and guide, and how they came to be.

    Attributes:
        model, guide: fitted copies, on the CPU.
        history: per report `step`, `elbo` and its terms (nats per sequence, training batch, true weights),
            `kl_weight`, `learning_rate`; per evaluation `validation_step`, `validation_elbo` (nats per sequence,
            without the KL of parameters with priors, which is that of the training data).
            Another objective's bound stands under its own name: `iwae` and `validation_iwae`. Where heads were
            monitored, `validation_log_likelihood/<heads>` is what judged.
        stop_reason: which rule or limit ended the fit, and what to try next; of one without a number of steps also what
            remained to be gained by the same bound at the same learning rate, with the error of that estimate.
        best_step: the step whose weights are kept.
        seed: the seed.
        settings: everything else that `fit` was told, in JSON form.
        used: identity of every sequence that was fitted or decided when to stop.
        events: what happened on the way (losses that diverged, rollbacks, interrupts, resumes), in order.
    """

    model: LatentRNN
    guide: Guide
    history: dict[str, list[float]]
    stop_reason: str
    best_step: int
    seed: int
    settings: dict[str, Any]
    used: frozenset[SequenceKey]
    events: list[str] = field(default_factory=list)

    @property
    def conditioned_on(self) -> frozenset[SequenceKey] | None:
        """Identity of the sequences that were fitted; None where they are not told from those of the validation."""
        validated = any(name.startswith("validation_") and values for name, values in self.history.items())
        return None if validated else self.used

    @property
    def learned_from(self) -> frozenset[SequenceKey]:
        """Identity of the sequences from which what has no prior was learned: none where Laplace took it as given."""
        given = self.settings.get("method") == "laplace" and not self.settings.get("continued")
        return frozenset() if given else self.used

    @property
    def spec(self) -> DataSpec:
        """The spec of the data that the model was built for."""
        return self.model.spec

    def posterior(
        self,
        data: SequenceData,
        *,
        device: str = "auto",
        seed: int = 0,
        window: Window | None = None,
        max_elements: int | None = None,
    ) -> Posterior:
        """Return the posterior of the latents of `data` (and of parameters with priors).

        Args:
            data: sequences that fit the model's spec; they need not be those of the fit.
            device: "auto" (CUDA where there is one), or a torch device.
            seed: of every random number that the posterior will draw.
            window, max_elements: what bounds its memory, along long sequences and over draws; see `Posterior`.

        Raises:
            ValueError: the data do not fit the model, or a part of it cannot be gone through in windows.
        """
        return Posterior(
            self.model, self.guide, data, result=self, device=device, seed=seed, window=window,
            max_elements=max_elements,
        )  # fmt: skip

    def to_dataframe(self) -> pandas.DataFrame:
        """The history by step: what each report says of a training batch, and each evaluation of the validation data.

        They go by clocks of their own; what was not looked at at a step is NaN there. Bounds and their terms are in
        nats per sequence, columns as the names of `history`.
        """
        import pandas

        names, rows = by_step(self.history)
        return pandas.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis("step")

    def save(self, path: str | Path) -> None:
        """Write weights (safetensors) and description (JSON) into the folder `path`; `latentrnn.load` reads it."""
        save(self, path)

    @property
    def _bound(self) -> str:
        """The bound that decides which weights are kept, as the history calls it."""
        judged = [name for name in self.history if name.startswith("validation_") and name != "validation_step"]
        return max(judged, key=lambda each: "/" in each, default="elbo")  # of monitored heads, where there are any

    def _shown(self) -> tuple[list[str], list[Any]]:
        of = "validation sequences" if self._bound.startswith("validation_") else "training batches"
        name = self._bound.removeprefix("validation_").upper()
        values = self.history.get(self._bound) or [float("nan")]
        lines = [
            f"best {name} of {of}: {max(values):.4g} nats per sequence, at step {self.best_step}",
            self.stop_reason,
        ]
        lines += [given] if (given := remark(self.model, self.guide)) else []
        return [*lines, *self.events], [self.to_dataframe().tail(8)] if self.history else []

    def __repr__(self) -> str:
        values = self.history.get(self._bound) or [float("nan")]
        best = f"best_step={self.best_step}, {self._bound}={max(values):.4g} nats per sequence"
        given = remark(self.model, self.guide)
        return f"FitResult({best}, stop_reason={self.stop_reason!r}" + (f"; {given})" if given else ")")
