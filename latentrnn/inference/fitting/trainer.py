"""The loop of a fit."""

from __future__ import annotations

import math
import sys
import time
from typing import Literal, NoReturn

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.batches.batches import Batches
from latentrnn.inference.fitting.batches.windowed import WindowedBatches
from latentrnn.inference.fitting.checkpoints.manager import CheckpointManager
from latentrnn.inference.fitting.checkpoints.record import capture, check_tensors, check_values, restore, surroundings
from latentrnn.inference.fitting.checkpoints.unfinished import Unfinished
from latentrnn.inference.fitting.distributed.processes import ProcessLost, SingleProcess, Terminated
from latentrnn.inference.fitting.divergence import Divergence, DivergenceMonitor
from latentrnn.inference.fitting.ending import FEWEST, Level, all_steps, converged, limited
from latentrnn.inference.fitting.evaluation import Bounds, TrainingBound, Validation, Watched, means
from latentrnn.inference.fitting.extremes import farthest_input
from latentrnn.inference.fitting.loss import TrainingLoss, scored_steps
from latentrnn.inference.fitting.reports import (
    Ending,
    Report,
    best_in_bar,
    call_back,
    left_in_bar,
    row_of,
    shown_in_bar,
    write_report,
    write_row,
)
from latentrnn.inference.fitting.rollback import RollbackPolicy, described
from latentrnn.inference.fitting.settings.optimizers import Staircase
from latentrnn.inference.fitting.settings.settings import Settings
from latentrnn.inference.fitting.snapshots import Average, Snapshot, in_order, put_back, take_snapshot
from latentrnn.inference.fitting.state import ALL_STEPS, TrainingState
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.windows import WindowPlan
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.progress import progress_bar

ONWARDS = "..., checkpointing=Checkpointing(directory, resume=True)"


class Trainer:
    """Takes the steps of one fit.

    Args:
        model, guide: with the weights to begin with; they are trained in place.
        train, validation: on the device of the fit.
        settings: of the fit.
        generator: of the order of the data.
        windows: how long sequences are cut, if they are.
        processes: that share every batch.
        checkpoints: where the state is written now and then, if it is.

    Attributes:
        state: where the fit is.
    """

    def __init__(
        self,
        model: LatentRNN,
        guide: Guide,
        train: SequenceData | StoredSequences,
        validation: SequenceData | StoredSequences | None,
        settings: Settings,
        generator: torch.Generator,
        windows: WindowPlan | None = None,
        processes: SingleProcess | None = None,
        checkpoints: CheckpointManager | None = None,
    ) -> None:
        self.model, self.guide, self.settings, self.device = model, guide, settings, train.device
        self.processes, self.checkpoints = processes or SingleProcess(), checkpoints
        if windows is not None:
            train = train.in_windows()
        self.train, self.sequences = train, len(train)
        self.batches = _batches(train, settings.batch_size, generator, self.processes, windows)
        self.validation = None
        if validation is not None:
            self.validation = Validation(validation, settings, windows, self.processes)
        # a fit that goes on until it has converged is judged by its training sequences where it has no others
        self.watched: Watched | None = self.validation
        if settings.steps is None and self.validation is None:
            self.watched = TrainingBound(train, settings, windows, self.processes)
        self.parameters = [p for module in (model, guide) for p in module.parameters()]
        if not self.parameters:
            raise ValueError(
                "fit: there is nothing to learn, for every number of the model is known and nothing has a prior; "
                "lr.Posterior(model, lr.Guide(model), data) has its evidence and predictions"
            )
        self.optimizer = settings.optimizer.build_for(model, guide)
        self.average = Average(self.parameters, settings.optimizer.averaging or 0.0)
        self.loss = TrainingLoss(model, guide, settings.objective, scored_steps(train))
        self.rollback = RollbackPolicy(settings.optimizer.rollback, settings.steps)
        self.monitor = DivergenceMonitor(
            settings.optimizer.rollback.tolerance, self.loss.scored_steps, self.loss.likelihood_weights
        )
        # on a GPU the host looks at the loss only now and then
        self.check_every = 1 if self.device.type == "cpu" else settings.reporting.every
        self.ending: Ending | None = None  # how a callback ended the fit
        self.level = Level(settings, self._learned(), self.sequences, validation is not None)
        self.most_steps = settings.most_steps
        self.limit: str | None = None  # which was reached
        self.clock = time.monotonic()  # when the last step ended
        self.pending: list[Report] = []  # since the last one that was written into the history
        self.state = TrainingState(self._weights(), [])
        self.state.sound = [self.snapshot()]

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Take all steps, or fewer where the fit converges, diverges or is interrupted, and keep the best weights."""
        if not self.state.finished:
            self.clock = time.monotonic()
            with self._progress_bar() as bar, self.processes.defer_signals():
                try:
                    self._take_steps(bar)
                    failed = self.ending is not None and self.ending.failed
                    self.state.finished = self.limit is None and not failed
                    if self.limit is not None:
                        if self.processes.first:  # without what only comes of having been stopped
                            self._write_checkpoint()
                        self.settle()
                except KeyboardInterrupt:
                    onwards = "start_from=result" if self.checkpoints is None else ONWARDS
                    self.state.stop_reason = f"interrupted: the best weights so far are kept; go on with fit({onwards})"
                    self.state.log("interrupted")
                except (ProcessLost, Terminated) as end:
                    self._leave(end)
                if self.state.finished and self.processes.first:
                    self._write_checkpoint()
        self.conclude()

    def _take_steps(self, bar: tqdm) -> None:
        state = self.state
        self._mark()
        going = state.unevaluated_step is None or self._evaluate(state.unevaluated_step)
        while going and not self.limit_reached():
            batch = self.batches.next()
            with self.processes.draws(batch, self.settings.objective.num_particles):
                report = self.gradient(batch)
            going = self.advance(report, bar)

    def gradient(self, batch: SequenceData) -> Report:
        """Put the gradient of a batch in place, and return what there is to say about it."""
        weight = self.kl_weight
        with torch.enable_grad():
            loss, terms = self.loss(batch, weight)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return self.prepare_step(self.processes.reduce(self.parameters, terms, batch), weight)

    @property
    def kl_weight(self) -> float:
        """The weight of the KL term in the step that comes next."""
        return self.settings.kl_weight(self.state.step)

    def prepare_step(self, terms: dict[str, Tensor], kl_weight: float) -> Report:
        """Clip the gradient that is in place, set the learning rate, and return what there is to say about the step."""
        state, settings = self.state, self.settings
        schedule, largest_rate = settings.optimizer.schedule, settings.optimizer.learning_rate
        assert schedule is not None
        assert largest_rate is not None
        factor = schedule.factor(state.step, settings.warm_up_of, state.evaluations_without_improvement)
        rate = state.learning_rate_factor * largest_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # of windows what they add to the pass is held to it: were each held to it alone, those of rare kinds would lose
        largest = settings.optimizer.clip_norm * self.batches.steps_of_a_batch
        norm = nn.utils.clip_grad_norm_(self.parameters, largest)
        return Report(state.step, kl_weight, rate, terms | {"gradient": norm})

    def advance(self, report: Report, bar: tqdm) -> bool:
        """Take the step whose gradient is in place, see what came out, and return whether to go on."""
        state, step, last = self.state, self.state.step, self.state.step + 1 == self.settings.steps
        self.pending.append(report)
        checked = (step + 1) % self.check_every == 0 or last
        if checked and (divergence := self._divergence()) is not None:
            return self.recover(divergence) and self._end_step(bar)
        self.optimizer.step()
        self.average.update(step)
        if self.watched is not None and self.watched.is_due(step):
            state.unevaluated_step = step
        self._end_step(bar)
        going = not ((step + 1) % self.settings.reporting.every == 0 or last) or self._report(report, bar)
        if state.unevaluated_step is not None:
            reason = state.stop_reason
            converged = not self._evaluate(step)
            if not going:
                state.stop_reason = reason  # the evaluation that was due came after the end
            going = going and not converged
        if not going:
            return False
        if checked:
            self.processes.raise_pending_signals()
            # of several processes, which all have the same to write, one does
            if self.checkpoints is not None and self.processes.first and self.checkpoints.is_due():
                self._write_checkpoint()
        return True

    def _end_step(self, bar: tqdm) -> bool:
        self.state.step += 1
        now = time.monotonic()
        self.state.seconds, self.clock = self.state.seconds + now - self.clock, now
        self._mark()
        bar.update()
        return True

    def conclude(self) -> None:
        """Keep the weights that are to be kept, and say of a fit that took all of its steps whether it still gained."""
        state = self.state
        if state.stop_reason.startswith(ALL_STEPS) and len(state.history.get("step", ())) >= 2 * FEWEST:
            state.stop_reason = all_steps(state.history, self.settings.objective.name)
        self.average.swap()
        if math.isfinite(self.state.best_bound):
            self.model.load_state_dict(self.state.best[0])
            self.guide.load_state_dict(self.state.best[1])
        elif self.settings.steps is None:
            self.state.best_step = max(self.state.step - 1, 0)
        else:
            taken = self.state.step - (self.ending is not None)  # callbacks are called between two steps
            self.state.best_step = min(taken, self.settings.steps - 1)

    def close(self) -> None:
        """Leave nothing behind that reads ahead."""
        self.batches.close()

    # -- limits --------------------------------------------------------------------------------------------------------

    def limit_reached(self) -> bool:
        """Return whether no further step may be taken; of limits that come before the fit has ended, say which."""
        state, settings = self.state, self.settings
        if state.step >= self.most_steps:
            self.limit = "max_steps" if settings.steps is None else None
        elif self._out_of_time():
            self.limit = "max_time"
        else:
            return False
        if self.limit is not None and self.pending:
            state.unreported = row_of(self.pending[-1], self.sequences)
        return True

    def _out_of_time(self) -> bool:
        most, step = self.settings.stopping.max_time, self.state.step
        if most is None or (self.processes.size > 1 and step % self.settings.reporting.every):
            return False  # processes agree about the time at reports alone
        return self.processes.from_first(lambda: self.state.seconds) >= most

    def settle(self) -> None:
        """Make of the weights that a limit left what a fit gives back, and say what it stopped short of."""
        if self.limit is None:
            return
        state = self.state
        if self.check_every > 1 and self.pending and (divergence := self._divergence()) is not None:
            state.events.append(f"step {divergence.step}: {divergence.message}")
            self.go_to(state.sound[0])
        if state.unreported:
            write_row(state.unreported, state.history)
        evaluated = state.history.get("validation_step", [])
        if self.validation is not None and state.step and state.step - 1 not in evaluated[-1:]:
            self._keep_best(self._bounds(), state.step - 1)
        state.stop_reason = limited(self.limit, self.settings, state)

    # -- reports and evaluations ---------------------------------------------------------------------------------------

    def _progress_bar(self) -> tqdm:
        shown = self.settings.reporting.progress and self.processes.first
        total = self.settings.steps or self.settings.stopping.max_steps
        if not shown:
            return tqdm(disable=True)
        return progress_bar(total=total, initial=self.state.step, desc="fit", unit="step")

    def _report(self, report: Report, bar: tqdm) -> bool:
        """Write a report into the history, show it, and return whether to go on."""
        self.state.unreported = {}
        sequences, steps = self.sequences, self.loss.scored_steps
        row = write_report(report, self.state.history, sequences)
        self.pending.clear()
        shown = shown_in_bar(row, sequences, steps)
        if self.validation is not None:
            shown |= best_in_bar(self.state, len(self.validation.data), self.validation.scored_steps)
        if self.settings.steps is None:
            shown |= left_in_bar(self.state, sequences, steps)
        bar.set_postfix(shown, refresh=False)
        return self._call_back("report")

    def _evaluate(self, step: int) -> bool:
        """Evaluate the weights that a step left, keep them where they are the best, and return whether to go on."""
        if self.settings.steps is None:
            return self._judge(step)
        state = self.state
        assert self.validation is not None
        self.average.swap()
        self.model.eval(), self.guide.eval()  # without dropout and its like, which belong to training
        try:
            bound, judged = self.validation.bound(self.model, self.guide)
            if self.validation.judge(state, bound, judged, step):
                state.best_bound, state.best_step, state.best = judged, step, self._weights()
        finally:
            self.model.train(), self.guide.train()
            self.average.swap()
        state.unevaluated_step = None
        if not self._call_back("evaluation"):
            return False
        return not self.validation.converged(state, step)

    def _judge(self, step: int) -> bool:
        """Evaluate the weights that a step left, and return whether to go on, perhaps at a smaller learning rate."""
        state = self.state
        bounds = self._bounds()
        if self.validation is not None:
            self._keep_best(bounds, step)
        self.level.see(state, bounds.judged, step)
        state.unevaluated_step = None
        if self.validation is not None and not self._call_back("evaluation"):
            return False
        if not self.level.exhausted(state):
            return True
        if self.level.is_last(state):
            state.stop_reason = converged(self.settings, state, self.level.validated)
            return False
        self._fall()
        return True

    def _bounds(self) -> Bounds:
        """Return the bounds of the sequences that are watched, at the weights that would be kept."""
        assert self.watched is not None
        self.average.swap()
        self.model.eval(), self.guide.eval()
        try:
            return self.watched.bounds(self.model, self.guide)
        finally:
            self.model.train(), self.guide.train()
            self.average.swap()

    def _keep_best(self, bounds: Bounds, step: int) -> None:
        """Write the bound of the validation sequences into the history, and keep its weights if it is the best."""
        assert self.validation is not None
        bound, judged = means(bounds)
        if self.validation.judge(self.state, bound, judged, step):
            self.average.swap()
            self.state.best_bound, self.state.best_step, self.state.best = judged, step, self._weights()
            self.average.swap()

    def _fall(self) -> None:
        """Go on at a smaller learning rate, from the weights that would be kept."""
        state, schedule = self.state, self.settings.optimizer.schedule
        assert isinstance(schedule, Staircase)
        where = "the average of the last steps"
        self.average.swap()
        if self.validation is not None and math.isfinite(state.best_bound):
            where = f"the weights of step {state.best_step}"
            self.model.load_state_dict(state.best[0])
            self.guide.load_state_dict(state.best[1])
        self.average.restart()
        state.learning_rate_factor *= schedule.factor_per_fall
        self.level.fall(state)
        self.monitor.begin_again()
        state.sound, state.first_step_after_rollback = [self.snapshot()], state.step
        state.log(
            f"no further improvement; on from {where} with {state.learning_rate_factor:.3g} times the learning rate"
        )

    def _learned(self) -> int:
        """Return how many numbers of the model are learned, those of posteriors of parameters with them."""
        posteriors = self.guide.parameter_sites
        parts = [self.model, *([] if posteriors is None else [posteriors])]
        return sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)

    def _call_back(self, kind: Literal["report", "evaluation"]) -> bool:
        """Tell callbacks of what was written into the history last, and return whether to go on."""
        callbacks = tuple(self.settings.reporting.callbacks)
        if not callbacks:
            return True
        ending = self.processes.from_first(
            lambda: call_back(callbacks, kind, self.state, self.device, self.model, self.guide)
        )
        if ending is None:
            return True
        self.ending = ending
        self.state.stop_reason = f"{ending.said} at step {self.state.step - 1}; the best weights so far are kept"
        if ending.failed:
            self.state.log(ending.said)
        return False

    # -- divergence and rollback ---------------------------------------------------------------------------------------

    def _divergence(self) -> Divergence | None:
        """Check the terms of the last steps; where all is sound, remember what can be gone back to."""
        state, recent = self.state, self.pending[-self.check_every :]
        terms = [[value.to(self.device, torch.float64) for value in report.terms.values()] for report in recent]
        rows = torch.stack([torch.stack(values) for values in terms])  # one transfer for all
        steps = [report.step for report in recent]
        divergence = self.monitor.check(steps, list(recent[-1].terms), rows.tolist(), recent[-1].kl_weight)
        newest = max(state.sound[-1].step, state.first_step_after_rollback)
        if divergence is None and self.monitor.all_sound and state.step > newest:
            state.sound = [state.sound[-1], self.snapshot()]
        return divergence

    def recover(self, divergence: Divergence) -> bool:
        """Go back to sound weights; return whether to go on from there, in smaller steps.

        Raises:
            ValueError: there are no such weights, since no step led anywhere from the start.
        """
        state = self.state
        state.events.append(f"step {divergence.step}: {divergence.message}")
        sound = [report for report in self.pending if report.step < divergence.step]
        if "step" not in state.history and sound:  # what was learnt is told, before it is forgotten
            write_report(sound[-1], state.history, self.sequences)
        if not self.rollback.goes_back(state, divergence):
            self._give_up(divergence)
            return False
        self.go_to(self.rollback.begin(state))
        self.batches.abandon_batch()
        self.monitor.forget()
        self.pending.clear()
        return True

    def _give_up(self, divergence: Divergence) -> None:
        """End the fit at the last sound weights."""
        state, what = self.state, described(divergence, self.state)
        state.stop_reason = (
            f"{what}; what was learnt until then is kept. Try a smaller learning rate or clip_norm, or look for "
            "extreme values in that head"
        )
        from_before = divergence.kind == "exploding" or state.rollbacks > 0
        if from_before or self.check_every > 1:
            kept = state.sound[0 if from_before else -1]
            self.go_to(kept)
            state.step = kept.step
        # no step is left of those that were taken, nor weights that an evaluation found good on the way
        if state.step == 0 and not math.isfinite(state.best_bound):
            train = self.train.for_start() if isinstance(self.train, StoredSequences) else self.train
            raise ValueError(
                f"fit: {what}, before anything was learnt. {farthest_input(train)}; or try a smaller learning rate or "
                "clip_norm"
            )

    # -- states --------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Copy all that a step changes."""
        return take_snapshot(self.state.step, self.model, self.guide, self.optimizer, self.average.values)

    def go_to(self, snapshot: Snapshot) -> None:
        """Give weights, moments and average the values of a snapshot."""
        put_back(snapshot, self.model, self.guide, self.optimizer, self.average.values)

    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        model, guide = ({k: v.detach().clone() for k, v in m.state_dict().items()} for m in (self.model, self.guide))
        return model, guide

    def restore(self, where: str, found: Unfinished) -> None:
        """Go to where a checkpoint of this fit was written.

        Args:
            where: the file, for errors.
            found: what it holds.

        Raises:
            ValueError: it is no state of this fit.
        """
        values = check_values(where, found.values)
        if self.checkpoints is not None:
            self.checkpoints.check_identity(values["identity"])
        check_tensors(
            where, found.tensors, values, self.snapshot(), in_order(self.optimizer), self.batches.place().start
        )
        try:
            self.state, now = restore(found.tensors, values, self.batches, self.monitor, self.device)
            self.go_to(now)
        except Exception as error:  # whatever a file that was not written by a fit may still bring about
            raise ValueError(f"{where}: not the state of this fit ({type(error).__name__}: {error})") from error
        if self.state.finished:
            return
        then, here = values["surroundings"], surroundings(self.device, self.processes.size)
        changed = [f"{name} {here[name]}, not {then.get(name)}" for name in here if here[name] != then.get(name)]
        under = f" under {', '.join(changed)}, so that the last digits can differ" if changed else ""
        self.state.log(f"resumed{under}")

    def _write_checkpoint(self) -> None:
        """Write a checkpoint, if any are written; the fit must be between two steps."""
        if self.checkpoints is None:
            return
        found = capture(self.state, self.snapshot(), self.batches, self.monitor, self.device, self.processes.size)
        if problem := self.checkpoints.write(found, self.state.step):
            self.state.log(f"no checkpoint was written ({problem})")

    # -- several processes ---------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Remember what a step uses up, should it fail half-way for want of another process."""
        if self.processes.size > 1:
            cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
            self.marked = torch.get_rng_state(), cuda, self.batches.place()

    def _back_to_mark(self) -> None:
        state, cuda, place = self.marked
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self.device)
        self.batches.go_to(place)

    def _leave(self, end: ProcessLost | Terminated) -> NoReturn:
        """End a fit whose processes cannot go on together: write down where it was, and say so."""
        kept = "no checkpointing= was given, so that what was learnt is lost"
        if self.checkpoints is not None:
            if isinstance(end, ProcessLost):
                self._back_to_mark()
            if isinstance(end, ProcessLost) or self.processes.first:
                self._write_checkpoint()
            directory = self.checkpoints.directory
            kept = f"{directory} holds a checkpoint of it; start the same command again with resume=True"
        message = f"fit: {str(end) or 'terminated'} at step {self.state.step}; {kept}"
        # a launcher that has noticed too may end this process before anybody catches or prints the error
        print(message, file=sys.stderr, flush=True)
        if isinstance(end, Terminated):
            raise SystemExit(1)
        raise ProcessLost(message) from None


def _batches(
    train: SequenceData | StoredSequences,
    batch_size: int,
    generator: torch.Generator,
    processes: SingleProcess,
    windows: WindowPlan | None,
) -> Batches | WindowedBatches:
    if windows is None:
        return Batches(train, batch_size, generator, processes)
    batches = Batches(train, batch_size, generator, processes, lambda num_steps: len(windows.windows(num_steps)))
    return WindowedBatches(batches, windows)
