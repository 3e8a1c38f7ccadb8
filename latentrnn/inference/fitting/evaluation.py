"""The bound of validation sequences: which weights to keep, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.distributed.processes import SingleProcess
from latentrnn.inference.fitting.loss import scored_steps
from latentrnn.inference.fitting.settings.settings import Settings
from latentrnn.inference.fitting.state import TrainingState
from latentrnn.inference.guides.windows import WindowPlan
from latentrnn.inference.objectives.objective import Evaluation, Objective, Step
from latentrnn.inference.objectives.terms import PARAMETERS
from latentrnn.support.isolation import random_state

VALIDATION_SEED = 20_231  # every evaluation uses the same random numbers, so that only the weights differ
EVALUATED_AT_ONCE = 256  # sequences; how many decides which random numbers each gets


class Bounds(NamedTuple):
    """An evaluation.

    Attributes:
        total: the bound of every sequence, (sequence,), nats, on the CPU.
        judged: what weights are judged by, likewise: the same, or E_q[log p(y | z)] of the monitored heads alone.
    """

    total: Tensor
    judged: Tensor


class Watched:
    """Sequences by whose bound weights are judged: the same ones, with the same draws, at every evaluation.

    Args:
        data: the sequences.
        settings: of the fit.
        windows: how long sequences are cut.
        processes: that share the evaluation.
    """

    def __init__(
        self,
        data: SequenceData | StoredSequences,
        settings: Settings,
        windows: WindowPlan | None,
        processes: SingleProcess,
    ) -> None:
        self.data, self.settings, self.windows, self.processes = data, settings, windows, processes

    def is_due(self, step: int) -> bool:
        """Return whether the weights that a step left are to be evaluated."""
        return (step + 1) % self.settings.stopping.every == 0 or step + 1 == self.settings.steps

    def bounds(self, model: nn.Module, guide: nn.Module) -> Bounds:
        """Return the bound of every sequence, and what it is judged by."""
        raise NotImplementedError

    @property
    def num_particles(self) -> int:
        """Draws per evaluation: those of the objective where its bound depends on how many there are."""
        objective = self.settings.objective
        return objective.num_particles if objective.fewest_particles > 1 else self.settings.stopping.num_particles


class Validation(Watched):
    """Evaluates weights on validation sequences, without the KL of parameters, which the training data have paid."""

    @property
    def monitor(self) -> Sequence[str]:
        """Heads whose log-likelihood judges; with none the bound does."""
        return self.settings.stopping.monitor

    @property
    def scored_steps(self) -> int:
        """Base steps that are scored, of all sequences."""
        return scored_steps(self.data)

    def bounds(self, model: nn.Module, guide: nn.Module) -> Bounds:
        with torch.no_grad(), random_state(VALIDATION_SEED, self.data.device):
            return bounds_by_sequence(
                self.settings.objective, model, guide, self.data, self.num_particles, batch_size=self._at_once(),
                windows=self.windows, processes=self.processes, monitor=self.monitor,
            )  # fmt: skip

    def bound(self, model: nn.Module, guide: nn.Module) -> tuple[float, float]:
        """Return the bound and what it is judged by, nats per sequence."""
        objective, particles = self.settings.objective, self.num_particles
        if self.monitor:
            return means(self.bounds(model, guide))
        with torch.no_grad(), random_state(VALIDATION_SEED, self.data.device):
            bound = validation_bound(
                objective, model, guide, self.data, particles, self._at_once(), self.windows, self.processes
            )
        return bound, bound

    def judge(self, state: TrainingState, bound: float, judged: float, step: int) -> bool:
        """Write an evaluation into the history, count those without improvement, and return whether it is the best."""
        state.history.setdefault("validation_step", []).append(step)
        state.history.setdefault(f"validation_{self.settings.objective.name}", []).append(bound)
        if self.monitor:
            state.history.setdefault(monitored_name(self.monitor), []).append(judged)
        best = judged > state.best_bound
        warming_up = self.settings.kl_weight(step) < 1
        state.evaluations_without_improvement = 0 if best or warming_up else state.evaluations_without_improvement + 1
        return best

    def converged(self, state: TrainingState, step: int) -> bool:
        """Return whether the fit ends after this evaluation, and say so in the state."""
        patience, count = self.settings.stopping.patience, state.evaluations_without_improvement
        if step + 1 == self.settings.steps or patience is None or count < patience:
            return False
        what = f"log-likelihood of {' and '.join(self.monitor)}" if self.monitor else "ELBO"
        state.stop_reason = (
            f"converged: the validation {what} has not improved for {count} evaluations; the weights of step "
            f"{state.best_step} are kept"
        )
        return True

    def _at_once(self) -> int:
        """Return how many sequences: of what is large and not in memory, no more than a step takes."""
        large = isinstance(self.data, StoredSequences) and not self.data.small(EVALUATED_AT_ONCE)
        return self.settings.batch_size if large else EVALUATED_AT_ONCE


class TrainingBound(Watched):
    """Evaluates weights on some of the training sequences: what a fit without validation sequences is judged by.

    As many as are evaluated at once, evenly spread, are taken, and the KL of parameters is shared out evenly.
    """

    @property
    def rows(self) -> Tensor:
        """Which sequences these are, (sequence,)."""
        count = len(self.data)
        return torch.linspace(0, count - 1, min(count, EVALUATED_AT_ONCE), dtype=torch.float64).long()

    def bounds(self, model: nn.Module, guide: nn.Module) -> Bounds:
        with torch.no_grad(), random_state(VALIDATION_SEED, self.data.device):
            return bounds_by_sequence(
                self.settings.objective, model, guide, self.data, self.num_particles, rows=self.rows,
                batch_size=self.settings.batch_size, windows=self.windows, processes=self.processes, parameters=True,
            )  # fmt: skip


def bounds_by_sequence(
    objective: Objective,
    model: nn.Module,
    guide: nn.Module,
    data: SequenceData | StoredSequences,
    num_particles: int,
    *,
    rows: Tensor | None = None,
    batch_size: int = EVALUATED_AT_ONCE,
    windows: WindowPlan | None = None,
    processes: SingleProcess | None = None,
    parameters: bool = False,
    monitor: Sequence[str] = (),
) -> Bounds:
    """Return the objective's bound of each sequence, in double precision on the CPU, and what weights are judged by.

    Where an objective does not tell the bounds of single sequences, those of a batch are alike. The caller sets the
    random state.

    Args:
        objective, model, guide, data, num_particles: what is evaluated.
        rows: of the sequences; None takes all.
        batch_size: sequences at once.
        windows: how long ones are cut.
        processes: that share each batch.
        parameters: whether the KL of parameters with priors counts, the same for every sequence.
        monitor: heads whose log-likelihood judges; with none the bound does.

    Raises:
        ValueError: heads are monitored, of which the objective does not tell the log-likelihood by sequence.
    """
    processes = processes or SingleProcess()
    if isinstance(data, StoredSequences) and windows is not None:
        data = data.in_windows()
    rows = torch.arange(len(data)) if rows is None else rows
    whole = len(rows) == len(data) and len(data) <= batch_size and not isinstance(data, StoredSequences)
    found = torch.zeros(2, len(rows), dtype=torch.float64)
    begin = 0
    for positions in [None] if whole else rows.split(batch_size):
        batch = processes.share(data, positions)  # type: ignore[arg-type]
        share = processes.share_of(batch)
        parts = [batch] if windows is None else windows.through(batch)
        with processes.draws(batch, num_particles):
            steps = [objective.step(Evaluation(model, guide, part, num_particles, by_sequence=True)) for part in parts]
        if share.weight:
            bounds = torch.stack([_of_each(step, share.held, len(data)) for step in steps]).sum(0)
            kl = steps[0].terms.kl.get(PARAMETERS) if parameters else None
            bounds = bounds if kl is None else bounds - float(kl.detach()) / len(data)
            judged = torch.stack([_of_heads(step, monitor) for step in steps]).sum(0) if monitor else bounds
            found[:, begin + share.start : begin + share.stop] = torch.stack([bounds, judged])
        begin += share.whole
    return Bounds(*processes.add(found).cpu())


def means(bounds: Bounds) -> tuple[float, float]:
    """Return the averages over sequences of a bound and of what it is judged by."""
    return float(bounds.total.mean()), float(bounds.judged.mean())


def monitored_name(monitor: Sequence[str]) -> str:
    """Return what the log-likelihood of monitored heads is called in a fit's history."""
    return f"validation_log_likelihood/{'+'.join(monitor)}"


def _of_heads(step: Step, monitor: Sequence[str]) -> Tensor:
    """Return the log-likelihood of the monitored heads of each sequence of a batch, (sequence,), nats."""
    heads = step.terms.heads_by_sequence
    if heads is None:
        raise ValueError(
            f"fit: weights are judged by the log-likelihood of {list(monitor)}, which this objective does not tell by "
            "sequence (`Terms.heads_by_sequence`); leave out EarlyStopping(monitor=...), to judge by the bound"
        )
    return torch.stack([heads[name].detach().to("cpu", torch.float64) for name in monitor]).sum(0)


def _of_each(step: Step, sequences: int, plate: int) -> Tensor:
    """Return the bound of each sequence of a batch without the KL of parameters, (sequence,), nats."""
    own, average = step.terms.by_sequence, (step.given_parameters / plate).detach().to("cpu", torch.float64)
    if own is None:
        return average.expand(sequences)
    found = own.detach().to("cpu", torch.float64)
    # an objective of a user's own may hand out the terms of the one it is made of
    return found if torch.isclose(found.mean(), average, rtol=1e-3, atol=1e-3) else average.expand(sequences)


def validation_bound(
    objective: Objective,
    model: nn.Module,
    guide: nn.Module,
    data: SequenceData | StoredSequences,
    num_particles: int,
    batch_size: int = EVALUATED_AT_ONCE,
    windows: WindowPlan | None = None,
    processes: SingleProcess | None = None,
) -> float:
    """Return the objective's bound of all sequences, nats per sequence, the KL of parameters with priors left out.

    The caller sets the random state.
    """
    processes = processes or SingleProcess()
    total = torch.zeros((), device=data.device)
    if isinstance(data, StoredSequences) and windows is not None:
        data = data.in_windows()
    stored = isinstance(data, StoredSequences)
    for positions in torch.arange(len(data)).split(batch_size) if stored or len(data) > batch_size else [None]:
        batch = processes.share(data, positions)  # type: ignore[arg-type]
        share = processes.share_of(batch)
        # each batch's bound stands for the whole plate; averaged by the share of sequences they are its own. So does
        # each window's
        parts = [batch] if windows is None else windows.through(batch, enlarged=True)
        with processes.draws(batch, num_particles):
            steps = [objective.step(Evaluation(model, guide, part, num_particles)) for part in parts]
        bounds = [step.given_parameters for step in steps]
        bound = bounds[0] if len(bounds) == 1 else torch.stack(bounds).mean()
        total = total + (bound * share.weight * share.whole if share.weight else 0.0)
    return float(processes.add(total)) / len(data) / len(data)
