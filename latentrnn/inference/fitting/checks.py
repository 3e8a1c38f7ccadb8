"""What `fit` is told of model, guide and data, checked when it is told."""

from __future__ import annotations

from typing import Any

import torch

from latentrnn.data import SequenceData, StoredSequences
from latentrnn.inference.fitting.result import FitResult
from latentrnn.inference.guides.guide import Guide
from latentrnn.inference.objectives.objective import Objective
from latentrnn.models.state_space import LatentRNN


def check_arguments(
    model: Any,
    guide: Any,
    train: Any,
    validation: Any,
    objective: Objective,
    start_from: Any,
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
