"""Stochastic variational inference."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.checkpoints.manager import CheckpointManager, identity_of, seed_begun_with
from latentrnn.inference.fitting.distributed.processes import launched_processes
from latentrnn.inference.fitting.monitoring import check_monitored
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.fitting.settings.checkpointing import Checkpointing
from latentrnn.inference.fitting.settings.compute import Compute
from latentrnn.inference.fitting.settings.optimizers import AdamW
from latentrnn.inference.fitting.settings.reporting import Reporting
from latentrnn.inference.fitting.settings.settings import Settings
from latentrnn.inference.fitting.settings.stopping import EarlyStopping
from latentrnn.inference.fitting.state import TrainingState
from latentrnn.inference.fitting.trainer import Trainer
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.guides.windows import window_plan
from latentrnn.inference.objectives.elbo import ELBO
from latentrnn.inference.objectives.objective import Objective
from latentrnn.inference.posterior.family_check import family_remark
from latentrnn.inference.posterior.priors.check import warn_of_priors
from latentrnn.models.state_space import LatentRNN
from latentrnn.support.arguments import check_kind_of, check_seed
from latentrnn.support.deprecations import former_arguments
from latentrnn.support.devices import resolve_device
from latentrnn.support.isolation import isolated, matrix_products, random_state

LARGEST_BATCH, SMALLEST_BATCH = 64, 16  # sequences, where no batch size is given
PART_OF_FEW, PART_WHERE_NOTHING_IS_DRAWN = 4, 16  # batches of so many make up few sequences
JUDGED_FROM = 200  # steps, before which a guide has not learned what its family can say


@former_arguments("fit", checkpointing=Checkpointing.of_former)
@isolated
def fit(
    model: LatentRNN,
    guide: Guide,
    train: SequenceData | StoredSequences,
    validation: SequenceData | StoredSequences | None = None,
    *,
    seed: int | None = 0,
    steps: int | None = None,
    batch_size: int | None = None,
    objective: Objective = ELBO(),  # noqa: B008 - frozen
    optimizer: AdamW = AdamW(),  # noqa: B008 - frozen
    stopping: EarlyStopping = EarlyStopping(),  # noqa: B008
    start_from: FitResult | None = None,
    checkpointing: Checkpointing | None = None,
    compute: Compute = Compute(),  # noqa: B008
    reporting: Reporting = Reporting(),  # noqa: B008
) -> FitResult:
    """Maximise the ELBO, or another bound on the log evidence, over the weights of copies of model and guide.

    The inputs are left untouched. The loss is minus the bound per scored step, log-likelihood and KL both at full
    weight once the warm-up is over. Validation uses the true bound. Ctrl-C ends the fit and keeps the best weights so
    far. A fit that was killed goes on from its last checkpoint, to the bit where an undisturbed one on the same machine
    would have gone.

    Args:
        model, guide: what to fit. Weights are drawn from `seed`, baselines and scales taken from `train`.
        train: training sequences, in memory or in files (`StoredSequences`).
        validation: sequences that decide when to stop and which weights to keep; without them the last are kept, or
            their average where no number of steps is given.
        seed: of weights, batches and draws, None for a fresh one, which the result tells; torch's global generators are
            left as they were. Resumed with None, a fit goes on with the seed that it was begun with.
        steps: optimizer steps: exactly as many, unless validation ends the fit before. None goes on until the bound has
            stopped improving: the learning rate falls whenever no further improvement can be told from its error, and
            the fit ends when that has brought nothing (`EarlyStopping` has the rule).
        batch_size: sequences per step at most. A pass over the data takes as few steps as that allows, of batches whose
            sizes differ by one at most, and every sequence weighs the same in it. None: 64, or, where the transition
            is a network, a quarter of fewer than 256 sequences, or a sixteenth of fewer than 1,024 where nothing is
            drawn and no number of steps is given, but at least 16.
        objective: the bound that is maximised: `ELBO`, `IWAE`, `Renyi` or `FIVO`, with its draws per step, KL warm-up
            and coordinated dropout.
        optimizer: `AdamW` or `Adam`, with its learning-rate schedule, and what it does about a loss that diverges.
        stopping: `EarlyStopping`: when validation ends the fit, by which heads, and its limits, steps and seconds.
        start_from: go on from the weights of this result instead of drawing new ones.
        checkpointing: `Checkpointing`, for a fit that goes on where it was killed; None writes no checkpoints.
        compute: `Compute`: device, processes, digits of matrix products, windows over long sequences.
        reporting: `Reporting`: progress bar, steps between reports, callbacks, a look at the priors.

    Returns:
        The result, on the CPU.

    Raises:
        ValueError: data that do not fit the model or are of another floating type than the others, a setting out of
            range, or a loss that is no finite number before anything was learnt, with the input that is extreme; a
            checkpoint that is damaged, belongs to another fit, or is there without `resume`.
        TypeError: an argument of the wrong kind.
        ProcessLost: another process is gone; with `checkpointing` the state that all had reached is written first.

    Warns:
        UserWarning: the priors cannot have made the scale of the training data; see `check_priors`. Or, after some
            hundred steps, a family that was given in the place of the default one leaves nats that it need not.

    References:
        Hoffman, Blei, Wang, Paisley. Stochastic variational inference. 2013.
    """
    size = suited_batch_size(model, train, steps) if batch_size is None else batch_size
    settings = Settings(steps, size, objective, optimizer, stopping, compute, reporting)
    check_arguments(model, guide, train, validation, objective, start_from, stopping)
    if checkpointing is not None:
        check_kind_of("fit", "checkpointing", checkpointing, Checkpointing)
    window = compute.window
    windows = None if window is None else window_plan("fit", window, model, guide, objective)
    number = check_seed("fit", seed)
    device = resolve_device(compute.device)
    processes = launched_processes(device, compute.processes)
    device = processes.place(device)
    if window is not None and processes.size > 1:
        raise ValueError('fit: a window is for a fit by one process; give Compute(processes="alone")')
    described = settings.described(continued=start_from is not None)
    if processes.size > 1:
        processes.check_same({
            "model": repr(model), "guide": repr(guide), "settings": repr(described),
            "seed": repr(None if seed is None else int(seed)), "callbacks": repr(len(reporting.callbacks)),
            "train": repr(identity_of(train)), "validation": repr(identity_of(validation)),
        })  # fmt: skip
    if seed is None:
        number = processes.from_first(lambda: seed_begun_with(checkpointing, number))
    used = frozenset(train.keys) | frozenset(() if validation is None else validation.keys)
    used |= frozenset() if start_from is None else start_from.used
    checkpoints = None
    if checkpointing is not None:
        identity = {
            "model": model.config(), "guide": guide.config(), "spec": model.spec.to_json(),
            "train": identity_of(train), "validation": identity_of(validation),
            "start_from": None if start_from is None else sorted(map(list, start_from.used)),
            "settings": described | {"seed": number, "report_every": reporting.every, "device": device.type},
        }  # fmt: skip
        checkpoints = CheckpointManager(checkpointing, identity)
    if isinstance(train, StoredSequences) and window is None and settings.batch_size >= len(train):
        train = train.load()  # it is one batch
    with random_state(number, device), matrix_products(compute.matmul_precision):
        first = train.for_start() if isinstance(train, StoredSequences) and start_from is None else train
        model, guide = starting_point(model, guide, first, start_from)
        if reporting.check_priors and model.given.sampled and processes.first:
            warn_of_priors("fit", model, first, stacklevel=5)
        del first
        model.to(device), guide.to(device)
        processes.broadcast(model, guide)
        validation = None if validation is None else validation.to(device)
        order = torch.Generator().manual_seed(number)
        train = train.to(device)
        if isinstance(train, SequenceData):
            train = model.prepare(train)
        trainer = Trainer(model, guide, train, validation, settings, order, windows, processes, checkpoints)
        if checkpoints is not None and (found := processes.from_first(checkpoints.read)) is not None:
            trainer.restore(str(checkpoints.newest), found)
        trainer.run()
        trainer.close()
        state = trainer.state
        if state.step >= JUDGED_FROM and windows is None and processes.first:
            _judge_family(model, guide, train, number, state)
    model.to("cpu"), guide.to("cpu")
    return FitResult(
        model,
        guide,
        state.history,
        state.stop_reason,
        state.best_step,
        number,
        described | settings.limits,
        used,
        state.events,
    )


def _judge_family(
    model: LatentRNN, guide: Guide, train: SequenceData | StoredSequences, seed: int, state: TrainingState
) -> None:
    """Say where a family that was given in the place of the default one is too poor."""
    if remark := family_remark(model, guide, train, seed):
        state.events.append(remark)
        warnings.warn(f"fit: {remark}", UserWarning, stacklevel=5)


def suited_batch_size(model: Any, train: Any, steps: int | None) -> int:
    """Return the batch size of a fit that was given none: small, where a network might learn few sequences by heart.

    What keeps it from that is noise in the gradient. Where no latent and no parameter is drawn, batches alone bring
    any, and are smaller in a fit that goes on until it has converged. Numbers that mean something by themselves are
    better known from more sequences at once.
    """
    known = isinstance(model, LatentRNN) and isinstance(train, SequenceData | StoredSequences)
    if not known or not model.transition.is_network:
        return LARGEST_BATCH
    usual = steps is not None or model.latent_sites() or model.given.sampled
    part = PART_OF_FEW if usual else PART_WHERE_NOTHING_IS_DRAWN
    return min(max(len(train) // part, SMALLEST_BATCH), LARGEST_BATCH)


def check_arguments(
    model: Any,
    guide: Any,
    train: Any,
    validation: Any,
    objective: Objective,
    start_from: Any,
    stopping: EarlyStopping,
) -> None:
    """Check what `fit` is told of model, guide and data.

    Raises:
        ValueError, TypeError: as of `fit`.
    """
    _check(model, guide, train, validation)
    _check_dropout(model, guide, objective)
    for name in objective.likelihood_weights:
        if name not in model.observations:
            raise ValueError(f"fit: head_weights names {name!r}; the model has {sorted(model.observations)}")
    if stopping.monitor:
        check_monitored(model, guide, stopping.monitor, validated=validation is not None)
    _check_start(model, guide, train, start_from)


def _check_dropout(model: LatentRNN, guide: Guide, objective: Objective) -> None:
    if not objective.coordinated_dropout:
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


def starting_point(model: LatentRNN, guide: Guide, train: Any, start_from: FitResult | None) -> tuple[LatentRNN, Guide]:
    """Return copies with the weights at which a fit begins, drawn from torch's generators."""
    model, guide = copy.deepcopy(model).train(), copy.deepcopy(guide).train()
    dtype = train.dtype
    model.to(dtype), guide.to(dtype)
    if start_from is not None:
        model.load_state_dict(start_from.model.state_dict())
        guide.load_state_dict(start_from.guide.state_dict())
        return model, guide
    model.draw_weights()
    guide.draw_weights()
    model.initialise(train)
    guide.initialise(model, train)
    return model, guide
