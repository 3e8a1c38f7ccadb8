"""Fits of one model from several seeds, whose steps are taken together."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from tqdm.auto import tqdm

from latentrnn.data import SequenceData
from latentrnn.data.record import Fact
from latentrnn.inference.fitting.fit import check_arguments, fit, starting_point, suited_batch_size
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.settings.optimizers import AdamW
from latentrnn.inference.fitting.settings.settings import Settings
from latentrnn.inference.fitting.trainer import Trainer
from latentrnn.inference.fitting.vectorised.random_numbers import Call, recording, replaying
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.iwae import IWAE
from latentrnn.inference.posterior.priors.check import warn_of_priors
from latentrnn.models.scans import vmap_over_members
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.devices import resolve_device
from latentrnn.support.isolation import matrix_products, random_state
from latentrnn.support.progress import progress_bar


def fit_vectorised(
    model: LatentRNN,
    guide: Guide,
    train: SequenceData,
    validation: SequenceData | None,
    seeds: Sequence[int],
    optimizers: Sequence[AdamW],
    settings: Mapping[str, Any],
) -> list[FitResult | ValueError]:
    """Return what `fit` returns for every seed, or raises where no step led anywhere; up to rounding.

    The weights of all members lie in one tensor each, and one pass of the programs with an axis of members gives all
    gradients. Everything else of a step (clipping, the optimizer, divergence, validation) is the member's own.

    Args:
        model, guide, train, validation: as of `fit`.
        seeds: one per member.
        optimizers: one per member.
        settings: of `fit`, the same for all.

    Raises:
        ValueError: what members cannot share a pass with; the message says why.
    """
    given = _arguments(model, guide, train, validation, settings)
    compute = given["compute"]
    device = resolve_device(compute.device)
    train, validation = model.prepare(train.to(device)), None if validation is None else validation.to(device)
    named = {field.name: given[field.name] for field in dataclasses.fields(Settings)}
    plans = [Settings(**named | {"optimizer": optimizer}) for optimizer in optimizers]
    members = [_Member(model, guide, train, validation, *of, device) for of in zip(plans, seeds, strict=True)]
    if plans[0].reporting.check_priors:
        warn_of_priors("fit_ensemble", members[0].trainer.model, train, stacklevel=6)
    total, shown = plans[0].steps or plans[0].stopping.max_steps, plans[0].reporting.progress
    bar = progress_bar(total=total, disable=not shown, desc="fit", unit="step")
    with random_state(0, device), bar, pyro.validation_enabled(False), matrix_products(compute.matmul_precision):
        active, stack = members, _Stack(members)
        try:
            while active:
                if active is members:
                    stack.first_step(bar)
                while all(member.going for member in active):
                    stack.step(bar)
                stack.take_apart()
                active = [member for member in active if member.going]
                stack = _Stack(active) if active else stack
        except KeyboardInterrupt:
            for member in active:
                member.trainer.state.stop_reason = "interrupted: the best weights so far are kept"
                member.trainer.state.log("interrupted")
            stack.take_apart()
        used = frozenset(train.keys) | frozenset(() if validation is None else validation.keys)
        return [
            member.result(seed, used) if member.failure is None else member.failure
            for member, seed in zip(members, seeds, strict=True)
        ]


class _Member:
    """One fit, which begins as it would alone, and its own random numbers."""

    def __init__(
        self,
        model: LatentRNN,
        guide: Guide,
        train: SequenceData,
        validation: SequenceData | None,
        settings: Settings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.device = device
        with random_state(seed, device), matrix_products(settings.compute.matmul_precision):
            model, guide = starting_point(model, guide, train, None)
            model.to(device), guide.to(device)
            self.trainer = Trainer(model, guide, train, validation, settings, torch.Generator().manual_seed(seed))
            self.keep_random_state()
        self.going = True
        self.failure: ValueError | None = None

    @property
    def pair(self) -> nn.Module:
        """Model and guide."""
        return nn.ModuleList([self.trainer.model, self.trainer.guide])

    def keep_random_state(self) -> None:
        """Remember where torch's generators are."""
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        self.random = torch.get_rng_state(), cuda

    def draw(self, calls: Sequence[Call]) -> list[Tensor]:
        """Make the draws of a step as this fit alone would."""
        state, cuda = self.random
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self.device)
        drawn = [call() for call in calls]
        self.keep_random_state()
        return drawn

    def result(self, seed: int, used: Any) -> FitResult:
        """Return what came out."""
        trainer, state = self.trainer, self.trainer.state
        trainer.settle()
        trainer.conclude()
        trainer.model.to("cpu"), trainer.guide.to("cpu")
        settings = trainer.settings.described(continued=False) | trainer.settings.limits
        return FitResult(
            trainer.model,
            trainer.guide,
            state.history,
            state.stop_reason,
            state.best_step,
            seed,
            settings,
            used,
            state.events,
        )


class _Stack:
    """Members whose weights lie in one tensor each, of which theirs are views."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self.members = members
        self.program = _Program(members[0].trainer)
        pairs = [member.pair for member in members]
        self.weights = {name: _stacked(pairs, name) for name, _ in pairs[0].named_parameters()}
        buffers = [dict(pair.named_buffers()) for pair in pairs]
        # what all have alike (data's scales, indices) needs no axis of members
        apart = [name for name, first in buffers[0].items() if not all(torch.equal(first, b[name]) for b in buffers)]
        self.buffers = {name: torch.stack([found[name] for found in buffers]) for name in apart}
        self.calls: dict[tuple[int, ...], list[Call]] = {}

    def first_step(self, bar: tqdm) -> None:
        """Take the first step, which shows whether this model can be evaluated with an axis of members."""
        try:
            self.step(bar)
        except (NotImplementedError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise _refusal(f"a part of this model or guide ({reason})") from error

    def step(self, bar: tqdm) -> None:
        """Take one step of every member."""
        trainers = [member.trainer for member in self.members]
        kl_weight = trainers[0].kl_weight
        batches = [trainer.batches.next() for trainer in trainers]
        template = _template(batches)
        calls = self._calls(template, kl_weight)
        noise = [torch.stack(values) for values in zip(*(m.draw(calls) for m in self.members), strict=True)]
        values, axes = _tensors(batches)

        def one(state: dict[str, Tensor], values: dict[str, Any], noise: list[Tensor]) -> tuple[Tensor, Any]:
            with replaying(noise), vmap_over_members():
                return functional_call(self.program, state, (_filled(template, values), kl_weight))

        state = {f"pair.{name}": value for name, value in (self.weights | self.buffers).items()}
        with torch.enable_grad():
            losses, terms = vmap(one, in_dims=(0, axes, 0), randomness="error")(state, values, noise)
        for weight in self.weights.values():
            weight.grad = None
        losses.sum().backward()
        by_member = zip(*(value.unbind() for value in terms.values()), strict=True)
        for number, (member, own) in enumerate(zip(self.members, by_member, strict=True)):
            trainer = member.trainer
            for name, parameter in member.pair.named_parameters():
                gradient = self.weights[name].grad
                parameter.grad = None if gradient is None else gradient[number]
            report = trainer.prepare_step(dict(zip(terms, own, strict=True)), kl_weight)
            try:
                going = trainer.advance(report, bar if number == 0 else _SILENT)
            except ValueError as error:  # of a fit that came to nothing; the others go on
                going, member.failure = False, error
            member.going = going and not trainer.limit_reached()

    def take_apart(self) -> None:
        """Give every member weights of its own again."""
        for member in self.members:
            for parameter in member.pair.parameters():
                parameter.data, parameter.grad = parameter.data.clone(), None

    def _calls(self, batch: SequenceData, kl_weight: float) -> list[Call]:
        """Return the draws of a step with batches of this shape, found out by one evaluation."""
        key = batch.num_sequences, batch.num_steps, int(batch.host_context.max())
        if key not in self.calls:
            with torch.no_grad(), recording() as calls, vmap_over_members():
                self.program(batch, kl_weight)
            self.calls[key] = calls
        return self.calls[key]


class _Program(nn.Module):
    """The loss of one member as a function of its weights."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.pair = nn.ModuleList([trainer.model, trainer.guide])
        self.trainer = [trainer]

    def forward(self, batch: SequenceData, kl_weight: float) -> Any:
        return self.trainer[0].loss(batch, kl_weight)


_SILENT = tqdm(disable=True)


def _stacked(pairs: Sequence[nn.Module], name: str) -> Tensor:
    parameters = [pair.get_parameter(name) for pair in pairs]
    stacked = torch.stack([parameter.detach() for parameter in parameters])
    for parameter, view in zip(parameters, stacked.unbind(), strict=True):
        parameter.data = view
    return stacked.requires_grad_(parameters[0].requires_grad)


_FIELDS = ("observations", "masks", "covariates", "totals", "lengths", "context", "times", "indices")


def _tensors(batches: Sequence[SequenceData]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all tensors of the batches, stacked where they differ, and where their axis of members is."""
    first = batches[0]
    parts = [{name: getattr(batch, name) for name in _FIELDS if getattr(batch, name) is not None} for batch in batches]
    for batch, part in zip(batches, parts, strict=True):
        known = {name: batch.constant(name) for name in batch.observations}
        part["constants"] = {name: constant for name, constant in known.items() if constant is not None}
    if all(batch is first for batch in batches):
        return parts[0], dict.fromkeys(parts[0])
    stacked: dict[str, Any] = {}
    for name, value in parts[0].items():
        if isinstance(value, dict):
            stacked[name] = {key: torch.stack([part[name][key] for part in parts]) for key in value}
        else:
            stacked[name] = torch.stack([part[name] for part in parts])
    return stacked, dict.fromkeys(stacked, 0)


def _template(batches: Sequence[SequenceData]) -> SequenceData:
    """Return a batch of which all that the host decides by is true of every member."""
    first = batches[0]
    complete = {name: all(batch.complete(name) for batch in batches) for name in first.observations}
    sessions = first.sessions if all(batch.sessions == first.sessions for batch in batches) else None
    # the host asks whether there is context at all; how much a member has is in its tensors
    context = np.maximum.reduce([batch.host_context for batch in batches])
    known = {name: Fact.of(whole, first.masks[name]) for name, whole in complete.items()}
    return dataclasses.replace(first, host_context=context, sessions=sessions, gapless=known)


def _filled(template: SequenceData, values: dict[str, Any]) -> SequenceData:
    """Return a batch with the tensors of one member."""
    fields = {name: value for name, value in values.items() if name != "constants"}
    known = {name: Fact.of(fact.value, fields["masks"][name]) for name, fact in template.gapless.items()}
    filled = dataclasses.replace(template, **fields, gapless=known, constants={})
    for name, constant in values["constants"].items():
        filled = filled.with_constant(name, constant)
    return filled


def _arguments(model: Any, guide: Any, train: Any, validation: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(fit).bind(model, guide, train, validation, **settings)
    bound.apply_defaults()
    given = dict(bound.arguments)
    if given["batch_size"] is None:
        given["batch_size"] = suited_batch_size(model, train, given["steps"])
    Settings(**{field.name: given[field.name] for field in dataclasses.fields(Settings)})  # whose kinds come first
    names = list(inspect.signature(check_arguments).parameters)
    check_arguments(*(given[name] for name in names))
    objective = given["objective"]
    encoder_chunk = None if guide.encoder is None else guide.encoder.max_elements
    in_chunks = model.max_elements is not None or encoder_chunk is not None
    scaled = isinstance(objective, IWAE) and objective.doubly_reparameterised
    for problem, found in (
        ("stored data, which are read for one fit at a time", not isinstance(train, SequenceData)),
        ("a window, whose state belongs to one fit", given["compute"].window is not None),
        ("sequences of different lengths, whose batches differ in size", getattr(train, "padded", False)),
        ("max_elements, whose chunks are computed again after the pass over the members", in_chunks),
        (f"{guide.local!r}, whose numbers belong to sequences", bool(guide.sites) and not guide.local.amortised),
        (f"{objective!r}, whose estimator scales gradients draw by draw", scaled),
    ):
        if found:
            raise _refusal(problem)
    return given


def _refusal(problem: str) -> ValueError:
    return ValueError(f"fit_ensemble: vectorised=True does not go with {problem}; leave it out")
