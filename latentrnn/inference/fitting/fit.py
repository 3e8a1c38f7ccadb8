"""Stochastic variational inference."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from typing import Any

import torch

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.checkpointing import Keeper, identity_of, seed_begun_with
from latentrnn.inference.fitting.distributed.processes import join
from latentrnn.inference.fitting.matmul_precision import matrix_products
from latentrnn.inference.fitting.plan import Plan
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.schedules import AdamW, Constant, Cosine, EarlyStopping, KLWarmUp, Plateau, Rollback
from latentrnn.inference.fitting.trainer import Run
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.windows import Window, reach
from latentrnn.inference.objectives.objectives import ELBO, Objective
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_flag, check_number, check_seed, is_number
from latentrnn.support.devices import resolve_device
from latentrnn.support.isolation import isolated
from latentrnn.support.random_numbers import random_state


@isolated
def fit(
    model: LatentRNN,
    guide: Guide,
    train: SequenceData | StoredSequences,
    validation: SequenceData | StoredSequences | None = None,
    *,
    seed: int | None = 0,
    steps: int = 1000,
    batch_size: int = 64,
    num_particles: int = 1,
    objective: Objective = ELBO(),  # noqa: B008 - frozen
    optimiser: AdamW = AdamW(),  # noqa: B008 - frozen
    learning_rate_schedule: Constant | Cosine | Plateau = Cosine(),  # noqa: B008
    kl: KLWarmUp = KLWarmUp(),  # noqa: B008
    stopping: EarlyStopping = EarlyStopping(),  # noqa: B008
    rollback: Rollback = Rollback(),  # noqa: B008
    coordinated_dropout: float = 0.0,
    head_weights: Mapping[str, float] | None = None,
    window: Window | None = None,
    device: str | torch.device = "auto",
    start_from: FitResult | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    resume: bool = False,
    processes: str = "auto",
    matmul_precision: str | None = None,
    progress: bool = True,
    report_every: int = 10,
) -> FitResult:
    """Maximise the ELBO, or another bound on the log evidence, over the weights of copies of model and guide.

    The inputs are left untouched. The loss is minus the bound per scored step, log-likelihood and KL both at full
    weight once the warm-up is over. Validation uses the true bound. Ctrl-C ends the fit and keeps the best weights so
    far. A fit that was killed goes on from its last checkpoint, to the bit where an undisturbed one on the same machine
    would have gone.

    Args:
        model, guide: what to fit. Weights are drawn from `seed`, baselines and scales taken from `train`.
        train: training sequences, in memory or in files (`StoredSequences`).
        validation: sequences that decide when to stop and which weights to keep; without them the last are kept.
        seed: of weights, batches and draws, None for a fresh one, which the result tells; torch's global generators are
            left as they were. `resume=True` with None goes on with the seed that the fit was begun with.
        steps: optimiser steps at most.
        batch_size: sequences per step at most. A pass over the data takes as few steps as that allows, of batches whose
            sizes differ by one at most, and every sequence weighs the same in it.
        num_particles: draws of the guide per step.
        objective: the bound that is maximised: `ELBO`, `IWAE`, `Renyi` or `FIVO`.
        optimiser: `AdamW` or `Adam`.
        learning_rate_schedule: `Constant`, `Cosine` or `Plateau`.
        kl: `KLWarmUp`.
        stopping: `EarlyStopping`.
        rollback: `Rollback`, what to do about a loss that is non-finite or explodes.
        coordinated_dropout: probability with which an observed entry is hidden from the encoder; only hidden
            entries are then scored in training, so that the encoder cannot copy its input. The reported training
            ELBO is then an estimate under dropout; the validation ELBO is the true one.
        head_weights: factors of heads' log-likelihoods in the training loss; one where a head is not named. For a
            head that says little per step beside one that says much, and that the encoder does not see, e.g. known
            spikes beside fluorescence. Everything that is reported, the training ELBO too, has weights of one.
        window: `Window(steps)` for sequences too long to hold a whole pass of: they are gone through in windows that
            hand on their state, each a step of the optimiser, by truncated backpropagation.
        device: "auto" takes CUDA where there is one.
        start_from: go on from the weights of this result instead of drawing new ones.
        checkpoint: a folder for checkpoints of the fit while it is under way (weights, optimiser, schedules, history,
            random state, order of the data); the last two are kept. They are no results: `FitResult.save` writes those,
            to the same folder if you like.
        checkpoint_every: seconds between checkpoints.
        resume: go on from the folder's newest checkpoint, or begin where it has none yet, so that the same script can
            be started again however often it is killed. Model, data and settings must be what the fit was begun with;
            a fit that was finished is returned as it was.
        processes: "auto": started by `torchrun`, all processes fit together, each with its share of every batch, and
            end with the result that one process would have, up to rounding; one of them writes checkpoints and shows
            progress. "alone": this process by itself, whatever started it.
        matmul_precision: digits of float32 matrix products within the fit: "highest", "high" (TF32 on CUDA) or "medium"
            (bfloat16 where the processor has it); None leaves torch's setting. Sums, densities and weights keep single
            precision. docs/performance.md says what it changes.
        progress: whether to show a progress bar.
        report_every: steps between reports (on CUDA, the only times when the host waits for the device).

    Returns:
        The result, on the CPU.

    Raises:
        ValueError: data that do not fit the model or are of another floating type than the others, a setting out of
            range, or a loss that is no finite number before anything was learnt, with the input that is extreme; a
            checkpoint that is damaged, belongs to another fit, or is there without `resume`.
        TypeError: an argument of the wrong kind.
        ProcessLost: another process is gone; with `checkpoint` the state that all had reached is written first.

    References:
        Hoffman, Blei, Wang, Paisley. Stochastic variational inference. 2013.
        Keshtkaran, Pandarinath. Enabling hyperparameter optimization in sequential autoencoders for spiking neural
        data (coordinated dropout). 2019.
        Kingma, Rezende, Mohamed, Welling. Semi-supervised learning with deep generative models (a weight for what is
        known of some). 2014.
    """
    check_arguments(model, guide, train, validation, coordinated_dropout, head_weights, objective, start_from)
    plan = Plan(
        steps, batch_size, num_particles, objective, optimiser, learning_rate_schedule, kl, stopping, rollback,
        coordinated_dropout, dict(head_weights or {}), progress, report_every, window,
    )  # fmt: skip
    cut = None if window is None else reach("fit", window, model, guide, objective)
    resume = check_flag("fit", "resume", resume)
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"fit: checkpoint must be a folder, a string or a path; found {checkpoint!r}")
    number = check_seed("fit", seed)
    device = resolve_device(device)
    together = join(device, processes)
    device = together.place(device)
    if window is not None and together.size > 1:
        raise ValueError('fit: window is for a fit by one process; give processes="alone"')
    settings = plan.described() | {"continued": start_from is not None}
    if matmul_precision is not None:
        settings["matmul_precision"] = matmul_precision
    number = together.from_first(
        lambda: seed_begun_with(checkpoint, number) if checkpoint and resume and seed is None else number
    )
    used = frozenset(train.keys) | frozenset(() if validation is None else validation.keys)
    used |= frozenset() if start_from is None else start_from.used
    keeper = None
    if checkpoint is not None:
        identity = {
            "model": model.config(), "guide": guide.config(), "spec": model.spec.to_json(),
            "train": identity_of(train), "validation": identity_of(validation),
            "start_from": None if start_from is None else sorted(map(list, start_from.used)),
            "settings": settings | {"seed": number, "report_every": plan.report_every, "device": device.type},
        }  # fmt: skip
        keeper = Keeper(checkpoint, checkpoint_every, resume, identity)
    elif resume:
        raise ValueError("fit: resume=True needs checkpoint=, the folder to go on from")
    if together.size > 1:
        together.agree({
            "model": repr(model), "guide": repr(guide), "settings": repr(settings),
            "seed": repr(None if seed is None else int(seed)),
            "train": repr(identity_of(train)), "validation": repr(identity_of(validation)),
        })  # fmt: skip
    if isinstance(train, StoredSequences) and window is None and batch_size >= len(train):
        train = train.load()  # it is one batch
    with random_state(number, device), matrix_products(matmul_precision):
        first = train.for_start() if isinstance(train, StoredSequences) and start_from is None else train
        model, guide = starting_point(model, guide, first, start_from)
        del first
        model.to(device), guide.to(device)
        together.alike(model, guide)
        validation = None if validation is None else validation.to(device)
        run = Run(
            model, guide, train.to(device), validation, plan, torch.Generator().manual_seed(number), cut, together
        )
        if keeper is not None:
            keeper.take_up(run)
        run.loop(keeper)
        run.batches.close()
    model.to("cpu"), guide.to("cpu")
    return FitResult(model, guide, run.history, run.stop_reason, run.best_step, number, settings, used, run.events)


def starting_point(model: LatentRNN, guide: Guide, train: Any, start_from: FitResult | None) -> tuple[LatentRNN, Guide]:
    """Return copies with the weights at which a fit begins, drawn from torch's generators."""
    model, guide = copy.deepcopy(model).train(), copy.deepcopy(guide).train()
    model.to(train.dtype), guide.to(train.dtype)
    if start_from is not None:
        model.load_state_dict(start_from.model.state_dict())
        guide.load_state_dict(start_from.guide.state_dict())
        return model, guide
    for module in [*reversed(list(model.modules())), *reversed(list(guide.modules()))]:  # children before parents
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    model.initialise(train)
    guide.initialise(model, train)
    return model, guide


def check_arguments(
    model: Any,
    guide: Any,
    train: Any,
    validation: Any,
    coordinated_dropout: float,
    head_weights: Mapping[str, float] | None,
    objective: Any,
    start_from: Any,
) -> None:
    """Check what `fit` is told of model, guide and data.

    Raises:
        ValueError, TypeError: as of `fit`.
    """
    _check(model, guide, train, validation)
    _check_dropout(model, guide, coordinated_dropout)
    _check_weights(model, head_weights, objective)
    _check_start(model, guide, train, start_from)


def _check_dropout(model: LatentRNN, guide: Guide, rate: float) -> None:
    if check_number("fit", "coordinated_dropout", rate, least=0, below=1) == 0:
        return
    if guide.encoder is None or not guide.sites:
        lacks = "this guide has none" if guide.encoder is None else "the model has no latents for one to infer"
        raise ValueError(f"fit: coordinated_dropout hides entries from the encoder, but {lacks}")
    for name in guide.encoder.visible:
        if model.observations[name].feedback is not None:
            raise ValueError(
                f"fit: coordinated_dropout cannot hide entries of {name!r} from the encoder while they feed back into "
                "the state, where they would be seen all the same"
            )


def _check_weights(model: LatentRNN, weights: Mapping[str, float] | None, objective: Any) -> None:
    if weights is not None and not isinstance(weights, Mapping):
        raise TypeError(f'fit: head_weights must name heads, e.g. {{"spikes": 2.0}}; found {weights!r:.80}')
    if weights and not (isinstance(objective, ELBO) and not objective.sticking_the_landing):
        raise ValueError(f"fit: head_weights needs objective=ELBO(), whose terms they multiply; found {objective!r}")
    for name, value in (weights or {}).items():
        if name not in model.observations:
            raise ValueError(f"fit: head_weights names {name!r}; the model has {sorted(model.observations)}")
        if not is_number(value) or not 0 <= value < math.inf:
            raise ValueError(f"fit: head_weights must be finite and not negative; found {value!r} for {name!r}")


def _check_start(model: LatentRNN, guide: Guide, train: SequenceData | StoredSequences, start_from: Any) -> None:
    if start_from is None:
        return
    if not isinstance(start_from, FitResult):
        raise TypeError(f"fit: start_from must be a FitResult; found {type(start_from).__name__}")
    for name, weight in start_from.model.state_dict().items():
        # wider numbers hold narrower ones exactly, and not the other way round
        if weight.is_floating_point() and torch.promote_types(weight.dtype, train.dtype) != train.dtype:
            raise ValueError(
                f"fit: start_from has weights of {_name(weight.dtype)} ({name!r}), train is {_name(train.dtype)}, to "
                f"which they would be rounded; {_cast('train', train, weight.dtype)}"
            )
    model.spec.check_compatible(start_from.spec)
    for here, there in ((model.spec.heads, start_from.spec.heads), (model.spec.covariates, start_from.spec.covariates)):
        for name, own in here.items():
            if (own.location, own.scale) != (there[name].location, there[name].scale):
                raise ValueError(
                    f"fit: start_from standardised {name!r} otherwise, so its weights mean other units; give "
                    "from_arrays standardise={name: (location, scale)} with the values of the first fit"
                )
    for part, expected, found in (("model", model, start_from.model), ("guide", guide, start_from.guide)):
        if expected.config() != found.config():
            raise ValueError(f"fit: start_from holds another {part}: expected {expected!r}; found {found!r}")


def _check(model: Any, guide: Any, train: Any, validation: Any) -> None:
    kinds = (("model", model, LatentRNN), ("guide", guide, Guide), ("train", train, SequenceData))
    for name, value, kind in kinds:
        if not isinstance(value, kind) and not (name == "train" and isinstance(value, StoredSequences)):
            raise TypeError(f"fit: {name} must be a {kind.__name__}; found {type(value).__name__}")
    if isinstance(train, StoredSequences) and guide.sites and not guide.local.amortised:
        raise ValueError(f"fit: {guide.local!r} holds numbers for every sequence, which stored data have too many of")
    _check_data(model, train)
    if validation is not None:
        if not isinstance(validation, SequenceData | StoredSequences):
            raise TypeError(f"fit: validation: expected SequenceData; found {type(validation).__name__}")
        if validation.dtype != train.dtype:
            raise ValueError(
                f"fit: validation is {_name(validation.dtype)}, train is {_name(train.dtype)}, which decides what is "
                f"computed with; {_cast('validation', validation, train.dtype)}"
            )
        _check_data(model, validation)
        shared = validation.overlaps(train)
        if shared:
            raise ValueError(
                f"fit: {shared} validation sequences are training sequences too; validation.without(train)"
            )
    if [site.name for site in guide.sites] != [site.name for site in model.latent_sites()]:
        raise ValueError("fit: the guide was made for another model: its latent sites differ from this model's")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _cast(name: str, data: SequenceData | StoredSequences, dtype: torch.dtype) -> str:
    """Say how data come to be of another floating type."""
    if isinstance(data, StoredSequences):
        return f"read it with from_arrays(..., dtype={dtype})"
    return f"give {name}.to(dtype={dtype})"


def _check_data(model: LatentRNN, data: SequenceData | StoredSequences) -> None:
    if not isinstance(data, StoredSequences):
        model.check(data)
        return
    whole = not all(head.mask_by_step for head in model.observations.values())
    for part, row, step in data.through(whole=whole):
        try:
            model.check(part)
        except ValueError as error:
            steps = f", steps from step {step}" if step else ""
            raise ValueError(f"{error} (sequences counted from sequence {row}{steps})") from None
