"""Heads by which validation sequences judge the weights of a fit."""

from __future__ import annotations

from collections.abc import Sequence

from latentrnn.inference.guides.guide import Guide
from latentrnn.models.state_space import LatentRNN


def check_monitored(model: LatentRNN, guide: Guide, given: Sequence[str], *, validated: bool) -> None:
    """Check the heads that a user wants to judge.

    Raises:
        ValueError: no validation sequences; an unknown head; one that the encoder sees, whose log-likelihood would tell
            how well it is copied.
    """
    if not validated:
        raise ValueError(
            f"fit: EarlyStopping(monitor={list(given)}) says what validation sequences are judged by; give validation"
        )
    for name in given:
        if name not in model.observations:
            known = sorted(model.observations)
            raise ValueError(f"fit: EarlyStopping(monitor=...) names {name!r}; the model has {known}")
        if guide.sites and guide.encoder is not None and name in guide.encoder.visible:
            raise ValueError(
                f"fit: EarlyStopping(monitor=...) names {name!r}, which the encoder sees: its log-likelihood would "
                "tell how well it is copied; hide it from the encoder (observes=), or judge by the bound"
            )
