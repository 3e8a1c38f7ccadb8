"""Stochastic variational inference."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from latentrnn.data import SequenceData
from latentrnn.inference.dropout import coordinated_dropout as split_entries
from latentrnn.inference.elbo import Terms, elbo_terms
from latentrnn.inference.guides import Guide
from latentrnn.inference.random import random_state
from latentrnn.inference.result import FitResult
from latentrnn.inference.schedules import AdamW, Constant, Cosine, EarlyStopping, KLWarmUp, Plateau
from latentrnn.models.state_space import LatentRNN

VALIDATION_SEED = 20_231  # every evaluation uses the same random numbers, so that only the weights differ


def fit(
    model: LatentRNN,
    guide: Guide,
    train: SequenceData,
    validation: SequenceData | None = None,
    *,
    seed: int = 0,
    steps: int = 1000,
    batch_size: int = 64,
    num_particles: int = 1,
    optimiser: AdamW = AdamW(),  # noqa: B008 - frozen
    learning_rate_schedule: Constant | Cosine | Plateau = Cosine(),  # noqa: B008
    kl: KLWarmUp = KLWarmUp(),  # noqa: B008
    stopping: EarlyStopping = EarlyStopping(),  # noqa: B008
    coordinated_dropout: float = 0.0,
    device: str | torch.device = "auto",
    start_from: FitResult | None = None,
    progress: bool = True,
    report_every: int = 10,
) -> FitResult:
    """Maximise the ELBO over the weights of copies of model and guide; the inputs are left untouched.

    The loss is minus the ELBO per scored step, log-likelihood and KL both at full weight once the warm-up is over.
    Validation always uses the true ELBO. Ctrl-C ends the fit and keeps the best weights so far.

    Args:
        model, guide: what to fit. Weights are drawn from `seed`, baselines and scales taken from `train`.
        train: training sequences.
        validation: sequences that decide when to stop and which weights to keep; without them the last are kept.
        seed: of weights, batches and draws; torch's global generators are left as they were.
        steps: optimiser steps at most.
        batch_size: sequences per step.
        num_particles: draws of the guide per step.
        optimiser: `AdamW` or `Adam`.
        learning_rate_schedule: `Constant`, `Cosine` or `Plateau`.
        kl: `KLWarmUp`.
        stopping: `EarlyStopping`.
        coordinated_dropout: probability with which an observed entry is hidden from the encoder; only hidden
            entries are then scored in training, so that the encoder cannot copy its input. The reported training
            ELBO is then an estimate under dropout; the validation ELBO is the true one.
        device: "auto" takes CUDA where there is one.
        start_from: go on from the weights of this result instead of drawing new ones.
        progress: whether to show a progress bar.
        report_every: steps between reports (on CUDA, the only times when the host waits for the device).

    Returns:
        The result, on the CPU.

    Raises:
        ValueError: data that do not fit the model, or a setting out of range.
        TypeError: an argument of the wrong kind.

    References:
        Hoffman, Blei, Wang, Paisley. Stochastic variational inference. 2013.
        Keshtkaran, Pandarinath. Enabling hyperparameter optimization in sequential autoencoders for spiking neural
        data (coordinated dropout). 2019.
    """
    _check(model, guide, train, validation)
    _check_dropout(model, guide, coordinated_dropout)
    _check_start(model, guide, start_from)
    plan = _Plan(
        steps, batch_size, num_particles, optimiser, learning_rate_schedule, kl, stopping, coordinated_dropout,
        progress, report_every,
    )  # fmt: skip
    device = resolve_device(device)
    with random_state(seed, device):
        model, guide = _starting_point(model, guide, train, start_from)
        model.to(device), guide.to(device)
        run = _Run(model, guide, train.to(device), None if validation is None else validation.to(device), plan)
        run.loop(torch.Generator().manual_seed(seed))
    model.to("cpu"), guide.to("cpu")
    used = frozenset(train.keys) | frozenset(() if validation is None else validation.keys)
    used |= frozenset() if start_from is None else start_from.used
    settings = plan.described() | {"continued": start_from is not None}
    return FitResult(model, guide, run.history, run.stop_reason, run.best_step, seed, settings, used, run.events)


@dataclass(frozen=True)
class _Plan:
    """The settings of one fit; see `fit`."""

    steps: int
    batch_size: int
    num_particles: int
    optimiser: AdamW
    learning_rate_schedule: Constant | Cosine | Plateau
    kl: KLWarmUp
    stopping: EarlyStopping
    coordinated_dropout: float
    progress: bool
    report_every: int

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "num_particles", "report_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"fit: {name} must be a positive integer; found {value!r}")
        kinds: dict[str, tuple[type, ...]] = {
            "optimiser": (AdamW,),
            "learning_rate_schedule": (Constant, Cosine, Plateau),
            "kl": (KLWarmUp,),
            "stopping": (EarlyStopping,),
        }
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                expected = " or ".join(each.__name__ for each in kind)
                raise TypeError(f"fit: {name} must be {expected}; found {type(getattr(self, name)).__name__}")

    def described(self) -> dict[str, Any]:
        """Return the settings in JSON form."""
        plain = {name: getattr(self, name) for name in ("steps", "batch_size", "num_particles", "coordinated_dropout")}
        objects = ("optimiser", "learning_rate_schedule", "kl", "stopping")
        return plain | {n: {"class": type(getattr(self, n)).__name__, **asdict(getattr(self, n))} for n in objects}


class _Run:
    """The state of one fit while it lasts."""

    def __init__(
        self, model: LatentRNN, guide: Guide, train: SequenceData, validation: SequenceData | None, plan: _Plan
    ) -> None:
        self.model, self.guide, self.train, self.validation, self.plan = model, guide, train, validation, plan
        self.parameters = [p for module in (model, guide) for p in module.parameters()]
        posteriors = [] if guide.parameter_sites is None else list(guide.parameter_sites.parameters())
        self.engine = plan.optimiser.build(self.parameters, exempt=posteriors)
        self.average = _Average(self.parameters, plan.optimiser.averaging)
        self.history: dict[str, list[float]] = {}
        self.events: list[str] = []
        self.stop_reason = "steps: all steps were taken; if the ELBO was still rising, try increasing `steps`"
        self.best_step, self.best_elbo, self.best = 0, -math.inf, self._weights()
        self.train_steps, self.validation_steps = (
            _scored_steps(train),
            0 if validation is None else _scored_steps(validation),
        )
        # on a GPU the host looks at the loss only now and then, and needs weights to go back to
        self.look_every = 1 if train.device.type == "cpu" else plan.report_every
        self.last_good = self.best

    def loop(self, generator: torch.Generator) -> None:
        """Take all steps, or fewer where the fit converges, diverges or is interrupted."""
        plan, pending, stale, step = self.plan, [], 0, 0
        batches = _endless(self.train, plan.batch_size, generator)
        with tqdm(total=plan.steps, disable=not plan.progress, desc="fit", unit="step") as bar:
            try:
                for step in range(plan.steps):
                    pending.append(self._gradient(next(batches), step, stale))
                    if (step + 1) % self.look_every == 0 and not self._finite(pending[-self.look_every :]):
                        break
                    self.engine.step()
                    self.average.update(step)
                    bar.update()
                    last = step + 1 == plan.steps
                    if (step + 1) % plan.report_every == 0 or last:
                        self._report(pending[-1], bar)
                        pending.clear()
                    if self.validation is not None and ((step + 1) % plan.stopping.every == 0 or last):
                        improved = self._evaluate(self.validation, step)
                        stale = 0 if improved or plan.kl.weight(step, plan.steps) < 1 else stale + 1
                        if not last and plan.stopping.patience is not None and stale >= plan.stopping.patience:
                            self.stop_reason = (
                                f"converged: the validation ELBO has not improved for {stale} evaluations; the weights "
                                f"of step {self.best_step} are kept"
                            )
                            break
            except KeyboardInterrupt:
                self.stop_reason = "interrupted: the best weights so far are kept; go on with fit(start_from=result)"
                self.events.append(f"step {step}: interrupted")
        self.average.swap()
        if math.isfinite(self.best_elbo):
            self.model.load_state_dict(self.best[0])
            self.guide.load_state_dict(self.best[1])
        else:
            self.best_step = step

    def _gradient(self, batch: SequenceData, step: int, stale: int) -> _Report:
        """Put the gradient of one step in place, and return what there is to say about it."""
        plan = self.plan
        weight = plan.kl.weight(step, plan.steps)
        rate = plan.optimiser.learning_rate * plan.learning_rate_schedule.factor(step, plan.steps, stale)
        for group in self.engine.param_groups:
            group["lr"] = rate
        shown, scored = batch, batch
        reweighted: dict[str, float] = {}
        if plan.coordinated_dropout and self.guide.encoder is not None:
            heads, visible = self.model.observations, self.guide.encoder.visible
            shown, scored, reweighted = split_entries(
                batch,
                plan.coordinated_dropout,
                visible,
                joint=[name for name, head in heads.items() if head.joint],
                centres={name: heads[name].history_centre for name in visible},
            )
        terms = elbo_terms(self.model, self.guide, scored, num_particles=plan.num_particles, guide_data=shown)
        terms = terms.reweighted(reweighted) if reweighted else terms
        loss = -terms.elbo(weight) / self.train_steps
        self.engine.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, plan.optimiser.clip_norm)
        return _Report(step, weight, rate, _detached(terms) | {"gradient": norm})

    def _finite(self, recent: list[_Report]) -> bool:
        """Look for a non-finite term; if there is one, say so and go back to the last good weights."""
        for report in recent:
            bad = [name for name, value in report.terms.items() if not math.isfinite(float(value))]
            if bad:
                names = ", ".join(
                    repr(name.partition("/")[2] or name) for name in bad if name != "gradient" or len(bad) == 1
                )
                self.stop_reason = (
                    f"non-finite loss at step {report.step}, at site {names}; what was learnt until then is kept. Try "
                    "a smaller learning rate or clip_norm, or look for extreme values in that head"
                )
                self.events.append(f"step {report.step}: non-finite {', '.join(bad)}")
                if self.look_every > 1:
                    self.model.load_state_dict(self.last_good[0])
                    self.guide.load_state_dict(self.last_good[1])
                return False
        if self.look_every > 1:
            self.last_good = self._weights()
        return True

    def _report(self, report: _Report, bar: tqdm) -> None:
        values = {k: float(v) / len(self.train) for k, v in report.terms.items() if k != "gradient"}
        likelihood = sum(v for k, v in values.items() if k.startswith("log_likelihood/"))
        elbo = likelihood - sum(v for k, v in values.items() if k.startswith("kl/"))
        row = {"step": report.step, "elbo": elbo, **values}
        row |= {"kl_weight": report.kl_weight, "learning_rate": report.learning_rate}
        for name, value in row.items():
            self.history.setdefault(name, []).append(value)
        per_step = len(self.train) / self.train_steps
        shown = {"elbo/step": elbo * per_step} | {k.partition("/")[2]: v * per_step for k, v in values.items()}
        if self.validation is not None and math.isfinite(self.best_elbo):
            shown["best valid"] = self.best_elbo * len(self.validation) / self.validation_steps
        bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()}, refresh=False)

    def _evaluate(self, validation: SequenceData, step: int) -> bool:
        self.average.swap()
        try:
            return self._judge(validation, step)
        finally:
            self.average.swap()

    def _judge(self, validation: SequenceData, step: int) -> bool:
        with torch.no_grad(), random_state(VALIDATION_SEED, validation.device):
            elbo = validation_elbo(self.model, self.guide, validation, self.plan.stopping.num_particles)
        self.history.setdefault("validation_step", []).append(step)
        self.history.setdefault("validation_elbo", []).append(elbo)
        if not elbo > self.best_elbo:
            return False
        self.best_elbo, self.best_step, self.best = elbo, step, self._weights()
        return True

    def _weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        model, guide = ({k: v.detach().clone() for k, v in m.state_dict().items()} for m in (self.model, self.guide))
        return model, guide


class _Average:
    """An exponential moving average of the weights, which can change places with the weights themselves."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step; early on the average forgets faster, so that the start does not linger."""
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average."""
        for parameter, value in zip(self.parameters, self.values, strict=False):
            kept = parameter.clone()
            parameter.copy_(value)
            value.copy_(kept)


class _Report(NamedTuple):
    step: int
    kl_weight: float
    learning_rate: float
    terms: dict[str, Tensor]  # nats, for the whole plate


def validation_elbo(
    model: nn.Module, guide: nn.Module, data: SequenceData, num_particles: int, batch_size: int = 256
) -> float:
    """Return the true ELBO of all sequences, nats per sequence; the caller sets the random state."""
    total = torch.zeros((), device=data.device)
    count = 0
    for batch in data.batches(batch_size) if len(data) > batch_size else [data]:
        # each batch's terms stand for the whole plate; averaged by the share of sequences they are its ELBO
        total = total + elbo_terms(model, guide, batch, num_particles=num_particles).elbo() * batch.num_sequences
        count += batch.num_sequences
    return float(total) / count / len(data)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device; "auto" is CUDA where there is one.

    Raises:
        ValueError: CUDA is asked for and there is none, or torch knows no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: expected 'auto' or the name of a torch device; found {device!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError('device: "cuda" was asked for, but torch finds no CUDA device; use "auto" or "cpu"')
    return device


def _starting_point(
    model: LatentRNN, guide: Guide, train: SequenceData, start_from: FitResult | None
) -> tuple[LatentRNN, Guide]:
    model, guide = copy.deepcopy(model), copy.deepcopy(guide)
    model.to(train.dtype), guide.to(train.dtype)
    if start_from is not None:
        model.load_state_dict(start_from.model.state_dict())
        guide.load_state_dict(start_from.guide.state_dict())
        return model, guide
    for module in [*reversed(list(model.modules())), *reversed(list(guide.modules()))]:  # children before parents
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    for name, head in model.observations.items():
        head.initialise(train.observations[name], train.masks[name])
    guide.initialise(model, train)
    return model, guide


def _endless(data: SequenceData, batch_size: int, generator: torch.Generator) -> Iterator[SequenceData]:
    while True:
        if batch_size >= len(data):
            yield data
        else:
            yield from data.batches(batch_size, generator=generator)


def _scored_steps(data: SequenceData) -> int:
    """Base steps that are scored, in the whole plate: the unit in which losses of different data sets compare."""
    return max(int((data.host_lengths - data.host_context).clip(0).sum()), 1)


def _detached(terms: Terms) -> dict[str, Tensor]:
    named = {f"log_likelihood/{k}": v.detach() for k, v in terms.log_likelihood.items()}
    return named | {f"kl/{k}": v.detach() for k, v in terms.kl.items()}


def _check_dropout(model: LatentRNN, guide: Guide, rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"fit: coordinated_dropout must be in [0, 1); found {rate}")
    if rate == 0:
        return
    if guide.encoder is None:
        raise ValueError("fit: coordinated_dropout hides entries from the encoder, but this guide has none")
    for name in guide.encoder.visible:
        if model.observations[name].feedback is not None:
            raise ValueError(
                f"fit: coordinated_dropout cannot hide entries of {name!r} from the encoder while they feed back into "
                "the state, where they would be seen all the same"
            )


def _check_start(model: LatentRNN, guide: Guide, start_from: Any) -> None:
    if start_from is None:
        return
    if not isinstance(start_from, FitResult):
        raise TypeError(f"fit: start_from must be a FitResult; found {type(start_from).__name__}")
    model.spec.check_compatible(start_from.spec)
    for part, expected, found in (("model", model, start_from.model), ("guide", guide, start_from.guide)):
        if expected.config() != found.config():
            raise ValueError(f"fit: start_from holds another {part}: expected {expected!r}; found {found!r}")


def _check(model: Any, guide: Any, train: Any, validation: Any) -> None:
    for name, value, kind in (("model", model, LatentRNN), ("guide", guide, Guide), ("train", train, SequenceData)):
        if not isinstance(value, kind):
            raise TypeError(f"fit: {name} must be a {kind.__name__}; found {type(value).__name__}")
    model.check(train)
    if validation is not None:
        model.check(validation)
        shared = validation.overlaps(train)
        if shared:
            raise ValueError(
                f"fit: {shared} validation sequences are training sequences too; validation.without(train)"
            )
    if [site.name for site in guide.sites] != [site.name for site in model.latent_sites()]:
        raise ValueError("fit: the guide was made for another model: its latent sites differ from this model's")
