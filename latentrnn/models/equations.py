"""A model's equations, put together from its parts."""

from __future__ import annotations

from typing import Any

from latentrnn.models import sites
from latentrnn.models.features.feature import Feature

_DRAWN = {sites.INITIAL: "z_0", sites.INNOVATIONS: "u_t", sites.SWITCH: "c_t", sites.STATES: "z_t"}


def equations(model: Any) -> list[str]:
    """Return how a model makes data, a line each: what is drawn, the step of the state, and every head.

    Args:
        model: a `LatentRNN`, whose parts are named as they were given.
    """
    drawn = {site.name: _DRAWN.get(site.name, site.name) for site in model.latent_sites()}
    moves = sites.STATES in drawn
    before, seen = ("z_{t-1}", "z_t") if moves else ("h_{t-1}", "h_t")
    inputs = [f"{_named(item)}_t" for item in model.inputs]
    inputs += [f"{name}_{{<t}}" for name, head in model.observations.items() if head.feedback is not None]
    inputs += ["u_t"] if sites.INNOVATIONS in drawn else []
    first = [symbol for name, symbol in drawn.items() if name != sites.STATES]
    found = [f"{', '.join(first)} ~ {model.latent!r}"] if first else []
    found.append(f"h_t = {type(model.transition).__name__}({', '.join([before, *inputs])})")
    if moves:
        found.append(f"z_t ~ {model.latent!r} given h_t")
    for name, head in model.observations.items():
        terms = [f"{type(head.readout).__name__}({seen})"]
        if head.gain is not None:
            terms.append(f"{type(head.gain).__name__}({head.gain.stimulus}_t, {seen})")
        index = "_t" if head.head.per_step else ""
        found.append(f"{name}{index} ~ {type(head).__name__}(eta{index}),  eta{index} = {' + '.join(terms)}")
    return found


def _named(item: Any) -> str:
    if not isinstance(item, Feature):
        return str(item)
    return f"{type(item).__name__}({getattr(item, 'covariate', '')})"
