"""The loop of a fit: gradients, reports, evaluations, when to stop and what to keep."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.data.views.windows import of_whole
from latentrnn.inference.fitting.averaging import Average
from latentrnn.inference.fitting.batches import Batches
from latentrnn.inference.fitting.checkpoints.manager import Keeper
from latentrnn.inference.fitting.distributed.processes import Alone, ProcessLost, Terminated
from latentrnn.inference.fitting.divergence import Trouble, Watch
from latentrnn.inference.fitting.dropout import coordinated_dropout as split_entries
from latentrnn.inference.fitting.extremes import farthest_input
from latentrnn.inference.fitting.settings.settings import Settings
from latentrnn.inference.fitting.snapshots import Snapshot, put_back, take_snapshot
from latentrnn.inference.fitting.windows import WindowedBatches
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.windows import Reach
from latentrnn.inference.objectives.elbo import Terms
from latentrnn.inference.objectives.objectives import Evaluation, Objective
from latentrnn.models.rollout import Rollout
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.random_numbers import random_state

VALIDATION_SEED = 20_231  # every evaluation uses the same random numbers, so that only the weights differ
EVALUATED_AT_ONCE = 256  # sequences; how many decides which random numbers each gets


class Run:
    """The state of one fit while it lasts."""

    def __init__(
        self,
        model: LatentRNN,
        guide: Guide,
        train: SequenceData | StoredSequences,
        validation: SequenceData | StoredSequences | None,
        plan: Settings,
        generator: torch.Generator,
        cut: Reach | None = None,
        processes: Alone | None = None,
    ) -> None:
        self.model, self.guide, self.train, self.validation, self.plan = model, guide, train, validation, plan
        if isinstance(train, StoredSequences):
            train = train if cut is None else train.in_windows()
        else:
            for head in model.observations.values():
                train = head.prepare(train)
        self.train = train
        self.processes = processes or Alone()
        steps_of = {} if cut is None else {"steps_of": lambda num_steps: len(cut.windows(num_steps))}
        batches = Batches(train, plan.batch_size, generator, self.processes, **steps_of)
        self.cut, self.batches = cut, batches if cut is None else WindowedBatches(batches, cut)
        self.parameters = [p for module in (model, guide) for p in module.parameters()]
        posteriors = [] if guide.parameter_sites is None else list(guide.parameter_sites.parameters())
        self.engine = plan.optimizer.build(self.parameters, exempt=posteriors)
        self.average = Average(self.parameters, plan.optimizer.averaging)
        self.history: dict[str, list[float]] = {}
        self.events: list[str] = []
        self.stop_reason = "steps: all steps were taken; if the ELBO was still rising, try increasing `steps`"
        self.best_step, self.best_bound, self.best = 0, -math.inf, self._weights()
        self.train_steps = _scored_steps(train)
        self.validation_steps = 0 if validation is None else _scored_steps(validation)
        # on a GPU the host looks at the loss only now and then
        self.look_every = 1 if train.device.type == "cpu" else plan.reporting.every
        self.watch = Watch(plan.optimizer.rollback.tolerance, self.train_steps, plan.objective.likelihood_weights)
        self.step, self.stale = 0, 0  # the next step, and evaluations without improvement
        self.unjudged: int | None = None  # the step that was taken last, while its weights are still to be evaluated
        self.finished = False
        self.pending: list[Report] = []  # since the last one that was written down
        # so far, what they left of the learning rate, and the first step after the last one
        self.rollbacks, self.shrink, self.restart = 0, 1.0, 0
        self.good = [self.snapshot()]  # the last two; the older one is far enough from where trouble is seen

    def loop(self, keeper: Keeper | None = None) -> None:
        """Take all steps, or fewer where the fit converges, diverges or is interrupted."""
        plan = self.plan
        if not self.finished:
            shown = plan.reporting.progress and self.processes.first
            bars = tqdm(total=plan.steps, initial=self.step, disable=not shown, desc="fit", unit="step")
            with bars as bar, self.processes.attentive():
                try:
                    self._steps(bar, keeper)
                    self.finished = True
                except KeyboardInterrupt:
                    onwards = (
                        "start_from=result"
                        if keeper is None
                        else "..., checkpointing=Checkpointing(directory, resume=True)"
                    )
                    self.stop_reason = f"interrupted: the best weights so far are kept; go on with fit({onwards})"
                    self.events.append(f"step {self.step}: interrupted")
                except (ProcessLost, Terminated) as end:
                    self._leave(end, keeper)
            if keeper is not None and self.finished:
                keeper.write(self, finished=True)
        self.conclude()

    def conclude(self) -> None:
        """Keep the weights that are to be kept."""
        self.average.swap()
        if math.isfinite(self.best_bound):
            self.model.load_state_dict(self.best[0])
            self.guide.load_state_dict(self.best[1])
        else:
            self.best_step = min(self.step, self.plan.steps - 1)

    def _leave(self, end: ProcessLost | Terminated, keeper: Keeper | None) -> NoReturn:
        """End a fit whose processes cannot go on together: write down where it was, and say so."""
        kept = "no checkpointing= was given, so that what was learnt is lost"
        if keeper is not None:
            if isinstance(end, ProcessLost):
                self._back_to_mark()
            if isinstance(end, ProcessLost) or self.processes.first:
                keeper.write_now(self)
            kept = f"{keeper.directory} holds a checkpoint of it; start the same command again with resume=True"
        message = f"fit: {str(end) or 'terminated'} at step {self.step}; {kept}"
        # a launcher that has noticed too may end this process before anybody catches or prints the error
        print(message, file=sys.stderr, flush=True)
        if isinstance(end, Terminated):
            raise SystemExit(1)
        raise ProcessLost(message) from None

    def _mark(self) -> None:
        """Remember what a step uses up, should it fail half-way for want of another process."""
        if self.processes.size > 1:
            cuda = torch.cuda.get_rng_state(self.train.device) if self.train.device.type == "cuda" else None
            self.marked = torch.get_rng_state(), cuda, self.batches.start, self.batches.position

    def _back_to_mark(self) -> None:
        state, cuda, start, position = self.marked
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self.train.device)
        self.batches.go_to(start, position)

    def snapshot(self) -> Snapshot:
        """Copy all that a step changes."""
        return take_snapshot(self.step, self.model, self.guide, self.engine, self.average.values)

    def go_to(self, snapshot: Snapshot) -> None:
        """Give weights, moments and average the values of a snapshot."""
        put_back(snapshot, self.model, self.guide, self.engine, self.average.values)

    def _steps(self, bar: tqdm, keeper: Keeper | None) -> None:
        self._mark()
        if self.unjudged is not None and not self._evaluated(self.unjudged):
            return
        while self.step < self.plan.steps:
            batch = self.batches.next()
            with self.processes.draws(batch, self.plan.objective.num_particles):
                report = self._gradient(batch, self.step, self.stale)
            if not self.advance(report, bar, keeper):
                return

    def advance(self, report: Report, bar: tqdm, keeper: Keeper | None = None) -> bool:
        """Take the step whose gradient is in place, look at what came out, and return whether to go on."""
        plan, pending = self.plan, self.pending
        step, last = self.step, self.step + 1 == plan.steps
        pending.append(report)
        look = (step + 1) % self.look_every == 0 or last
        if look:
            trouble = self._look(pending[-self.look_every :])
            if trouble is not None:
                if not self._go_back(trouble):
                    return False
                pending.clear()
                self.step += 1
                self._mark()
                bar.update()
                return True
        self.engine.step()
        self.average.update(step)
        bar.update()
        if (step + 1) % plan.reporting.every == 0 or last:
            bar.set_postfix(self._report(report), refresh=False)
            pending.clear()
        self.step += 1
        self._mark()
        if self.validation is not None and ((step + 1) % plan.stopping.every == 0 or last):
            self.unjudged = step
            if not self._evaluated(step):
                return False
        if look:
            self.processes.heed()
            if keeper is not None:
                keeper.write(self)
        return True

    def _gradient(self, batch: SequenceData, step: int, stale: int) -> Report:
        """Put the gradient of one step in place, and return what there is to say about it."""
        with torch.enable_grad():
            loss, terms = self.loss(batch, step)
        self.engine.zero_grad(set_to_none=True)
        loss.backward()
        return self.reported(step, stale, self.processes.reduce(self.parameters, terms, batch))

    def reported(self, step: int, stale: int, terms: dict[str, Tensor]) -> Report:
        """Make the gradient that was put in place ready for the step, and return what there is to say about it."""
        plan = self.plan
        rate = self.shrink * plan.optimizer.learning_rate * plan.optimizer.schedule.factor(step, plan.steps, stale)
        for group in self.engine.param_groups:
            group["lr"] = rate
        # of windows what they add to the pass is held to it: were each held to it alone, those of rare kinds would lose
        largest = plan.optimizer.clip_norm * self.batches.steps_of_a_batch
        norm = nn.utils.clip_grad_norm_(self.parameters, largest)
        return Report(step, plan.objective.kl.weight(step, plan.steps), rate, terms | {"gradient": norm})

    def loss(self, batch: SequenceData, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and its terms in nats for the whole plate."""
        plan = self.plan
        weight = plan.objective.kl.weight(step, plan.steps)
        shown, scored = batch, batch
        reweighted: dict[str, float] = {}
        if plan.objective.coordinated_dropout and self.guide.encoder is not None:
            heads, visible = self.model.observations, self.guide.encoder.visible
            # a window sees what is around it, which is split with it
            shown, scored, reweighted = split_entries(
                batch if batch.around is None else batch.around.whole,
                plan.objective.coordinated_dropout,
                visible,
                joint=[name for name, head in heads.items() if head.joint],
                centres={name: heads[name].history_centre for name in visible},
                symbols=[name for name in visible if heads[name].encoder_input.symbols is not None],
            )
            if batch.around is not None:
                shown, scored = of_whole(batch, shown), of_whole(batch, scored)
        program = _Followed(self.model)
        at = Evaluation(program, self.guide, scored, plan.objective.num_particles, shown, weight, reweighted)
        surrogate, bound, terms = plan.objective.step(at)
        # couplings are no part of the program, so that nothing but this loss ever sees them
        penalties = {c: c.penalty(program.rollouts[-1]).mean() * batch.total for c in self.model.couplings}
        coupled = sum((c.weight * value for c, value in penalties.items()), torch.zeros(()))
        # what a weight adds to the bound is in the loss alone, so that the report stays true
        added = sum(
            ((w - 1) * terms.log_likelihood[name] for name, w in plan.objective.likelihood_weights.items()),
            torch.zeros(()),
        )
        loss = (coupled - surrogate - added) / self.train_steps
        reported = {f"coupling/{c.label}": value.detach() for c, value in penalties.items()}
        if plan.objective.name != "elbo":  # which the terms add up to
            reported[plan.objective.name] = bound
        return loss, _detached(terms) | reported

    def _look(self, recent: list[Report]) -> Trouble | None:
        """Look at the terms of some steps; where all is well, remember what can be gone back to."""
        names = list(recent[-1].terms)
        terms = [[value.to(self.train.device, torch.float64) for value in report.terms.values()] for report in recent]
        rows = torch.stack([torch.stack(values) for values in terms])  # one transfer for all
        steps = [report.step for report in recent]
        trouble = self.watch.look(steps, names, rows.tolist(), recent[-1].kl_weight)
        if trouble is None and self.watch.content and self.step > max(self.good[-1].step, self.restart):
            self.good = [self.good[-1], self.snapshot()]
        return trouble

    def _go_back(self, trouble: Trouble) -> bool:
        """Go back to weights at which all was well, to go on from there in smaller steps; return whether to go on.

        Raises:
            ValueError: there are no such weights, since no step led anywhere from the start.
        """
        rollback, older = self.plan.optimizer.rollback, self.good[0]
        self.events.append(f"step {trouble.step}: {trouble.message}")
        sound = [report for report in self.pending if report.step < trouble.step]
        if "step" not in self.history and sound:  # what was learnt is told, before it is forgotten
            self._report(sound[-1])
        # the bound and the gradient stand for all sites
        names = [name.partition("/")[2] for name in trouble.sites if "/" in name] or trouble.sites
        # at the weights that one would go back to smaller steps make no difference, and after the last step none follow
        last = self.step + 1 == self.plan.steps
        if last or self.rollbacks == rollback.times or trouble.step == max(older.step, self.restart):
            tried = f", after {self.rollbacks} rollback{'s' if self.rollbacks > 1 else ''}" if self.rollbacks else ""
            self.stop_reason = (
                f"{trouble.kind} loss at step {trouble.step}, at site {', '.join(map(repr, names))}{tried}; what was "
                "learnt until then is kept. Try a smaller learning rate or clip_norm, or look for extreme values in "
                "that head"
            )
            if trouble.kind == "exploding" or self.rollbacks or self.look_every > 1:
                kept = older if trouble.kind == "exploding" or self.rollbacks else self.good[-1]
                self.go_to(kept)
                self.step = kept.step
            # no step is left of those that were taken, nor weights that an evaluation found good on the way
            if self.step == 0 and not math.isfinite(self.best_bound):
                raise ValueError(self._nothing_learnt(trouble, names, tried))
            return False
        self.rollbacks += 1
        self.shrink *= rollback.factor
        self.events.append(
            f"step {self.step}: rolled back to the weights of step {older.step}, with {self.shrink:.3g} times the "
            f"learning rate from here on ({self.rollbacks} of {rollback.times})"
        )
        self.go_to(older)
        if isinstance(self.batches, WindowedBatches):
            self.batches.give_up()
        self.good, self.restart = [older], self.step + 1
        self.watch.forget()
        return True

    def _nothing_learnt(self, trouble: Trouble, names: list[str], tried: str) -> str:
        train = self.train.for_start() if isinstance(self.train, StoredSequences) else self.train
        return (
            f"fit: {trouble.kind} loss at step {trouble.step}, at site {', '.join(map(repr, names))}{tried}, before "
            f"anything was learnt. {farthest_input(train)}; or try a smaller learning rate or clip_norm"
        )

    def _report(self, report: Report) -> dict[str, str]:
        """Write a report into the history, and return what the progress bar shows of it."""
        values = {k: float(v) / len(self.train) for k, v in report.terms.items() if k != "gradient"}
        likelihood = sum(v for k, v in values.items() if k.startswith("log_likelihood/"))
        elbo = likelihood - sum(v for k, v in values.items() if k.startswith("kl/"))
        row = {"step": report.step, "elbo": elbo, **values}
        row |= {"kl_weight": report.kl_weight, "learning_rate": report.learning_rate}
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        per_step = len(self.train) / self.train_steps
        shown = {"elbo/step": elbo * per_step} | {k.partition("/")[2]: v * per_step for k, v in values.items()}
        if self.validation is not None and math.isfinite(self.best_bound):
            shown["best valid"] = self.best_bound * len(self.validation) / self.validation_steps
        return {name: f"{value:.4f}" for name, value in shown.items()}

    def _evaluated(self, step: int) -> bool:
        """Evaluate the weights that a step left, and return whether to go on."""
        plan = self.plan
        assert self.validation is not None
        improved = self._evaluate(self.validation, step)
        self.unjudged = None
        self.stale = 0 if improved or plan.objective.kl.weight(step, plan.steps) < 1 else self.stale + 1
        last = step + 1 == plan.steps
        if last or plan.stopping.patience is None or self.stale < plan.stopping.patience:
            return True
        self.stop_reason = (
            f"converged: the validation ELBO has not improved for {self.stale} evaluations; the weights "
            f"of step {self.best_step} are kept"
        )
        return False

    def _evaluate(self, validation: SequenceData | StoredSequences, step: int) -> bool:
        self.average.swap()
        self.model.eval(), self.guide.eval()  # without dropout and its like, which belong to training
        try:
            return self._judge(validation, step)
        finally:
            self.model.train(), self.guide.train()
            self.average.swap()

    def _judge(self, validation: SequenceData | StoredSequences, step: int) -> bool:
        several = self.plan.objective.fewest_particles > 1  # a bound that depends on how many there are
        with torch.no_grad(), random_state(VALIDATION_SEED, validation.device):
            particles = self.plan.objective.num_particles if several else self.plan.stopping.num_particles
            bound = validation_bound(
                self.plan.objective, self.model, self.guide, validation, particles,
                cut=self.cut, processes=self.processes,
                batch_size=self._evaluated_at_once(validation),
            )  # fmt: skip
        self.history.setdefault("validation_step", []).append(step)
        self.history.setdefault(f"validation_{self.plan.objective.name}", []).append(bound)
        if not bound > self.best_bound:
            return False
        self.best_bound, self.best_step, self.best = bound, step, self._weights()
        return True

    def _evaluated_at_once(self, validation: SequenceData | StoredSequences) -> int:
        """Return how many sequences: of what is large and not in memory, no more than a step takes."""
        large = isinstance(validation, StoredSequences) and not validation.small(EVALUATED_AT_ONCE)
        return self.plan.batch_size if large else EVALUATED_AT_ONCE

    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        model, guide = ({k: v.detach().clone() for k, v in m.state_dict().items()} for m in (self.model, self.guide))
        return model, guide


class _Followed:
    """The model's program, which remembers the rollouts that it went."""

    def __init__(self, model: LatentRNN) -> None:
        self.model, self.rollouts = model, list[Rollout]()

    def __call__(self, data: SequenceData) -> dict[str, Tensor]:
        values, rollout = self.model.trace(data)
        self.rollouts.append(rollout)
        return values

    def unroll(self, data: SequenceData) -> Rollout:
        return self.model.unroll(data)


class Report(NamedTuple):
    """What there is to say about one step."""

    step: int
    kl_weight: float
    learning_rate: float
    terms: dict[str, Tensor]  # nats, for the whole plate


def validation_bound(
    objective: Objective,
    model: nn.Module,
    guide: nn.Module,
    data: SequenceData | StoredSequences,
    num_particles: int,
    batch_size: int = EVALUATED_AT_ONCE,
    cut: Reach | None = None,
    processes: Alone | None = None,
) -> float:
    """Return the objective's bound of all sequences, nats per sequence; the caller sets the random state."""
    processes = processes or Alone()
    total = torch.zeros((), device=data.device)
    if isinstance(data, StoredSequences) and cut is not None:
        data = data.in_windows()
    stored = isinstance(data, StoredSequences)
    for positions in torch.arange(len(data)).split(batch_size) if stored or len(data) > batch_size else [None]:
        batch = processes.share(data, positions)  # type: ignore[arg-type]
        share = processes.share_of(batch)
        # each batch's bound stands for the whole plate; averaged by the share of sequences they are its own. So does
        # each window's
        parts = [batch] if cut is None else cut.through(batch, enlarged=True)
        with processes.draws(batch, num_particles):
            bounds = [objective.step(Evaluation(model, guide, part, num_particles)).bound for part in parts]
        bound = bounds[0] if len(bounds) == 1 else torch.stack(bounds).mean()
        total = total + (bound * share.weight * share.whole if share.weight else 0.0)
    return float(processes.add(total)) / len(data) / len(data)


def _scored_steps(data: SequenceData | StoredSequences) -> int:
    """Base steps that are scored, in the whole plate: the unit in which losses of different data sets compare."""
    return max(int((data.host_lengths - data.host_context).clip(0).sum()), 1)


def _detached(terms: Terms) -> dict[str, Tensor]:
    named = {f"log_likelihood/{k}": v.detach() for k, v in terms.log_likelihood.items()}
    return named | {f"kl/{k}": v.detach() for k, v in terms.kl.items()}
