"""How a model is put together: what each part is told of the others, and what does not go together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from latentrnn.data import DataSpec
from latentrnn.models import sites
from latentrnn.models.couplings import Coupling
from latentrnn.models.features import CovariateReader, Feature, Gap
from latentrnn.models.feedback import History
from latentrnn.models.latents import Latent
from latentrnn.models.observations import Observation
from latentrnn.models.readouts import FactorReadout
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_list


def check_parts(spec: Any, transition: Any, latent: Any, observations: Any) -> None:
    """Raise where an argument of a model is not what it must be, or a head is not one of the data's.

    Raises:
        ValueError: no head, or one that the data do not have.
        TypeError: something that is not the component its argument calls for.
    """
    if not isinstance(spec, DataSpec):
        raise TypeError(f"LatentRNN: spec must be a DataSpec (data.spec); found {type(spec).__name__}")
    for argument, value, kind in (("transition", transition, Transition), ("latent", latent, Latent)):
        if not isinstance(value, kind):
            raise TypeError(f"LatentRNN: {argument} must be a {kind.__name__}; found {type(value).__name__}")
    if not isinstance(observations, Mapping) or not observations:
        raise ValueError(
            f"LatentRNN: observations must name at least one head of the data, {sorted(spec.heads)}; "
            f"found {observations!r}"
        )
    for name, head in observations.items():
        if name not in spec.heads:
            raise ValueError(f"observations[{name!r}]: the data have no such head; they have {sorted(spec.heads)}")
        if not isinstance(head, Observation):
            raise TypeError(f"observations[{name!r}]: expected an Observation; found {type(head).__name__}")
        if name in sites.LATENTS + (sites.PLATE,):
            raise ValueError(f"observations[{name!r}]: the name is taken by a latent site; choose another")


def listed_inputs(
    inputs: Any, transition: Transition, observations: Mapping[str, Observation], spec: DataSpec
) -> list[str | Feature]:
    """Return the covariates and features that enter the transition besides those that it names itself.

    Raises:
        TypeError: neither names nor features.
    """
    if inputs is None:
        claimed = {covariate for head in observations.values() for covariate in head.claims}
        inputs = [] if transition.own_inputs else [name for name in spec.covariates if name not in claimed]
    if not isinstance(inputs, str | Feature | Iterable) or getattr(inputs, "ndim", 1) == 0:
        raise TypeError(f"LatentRNN: inputs must be covariate names or features; found {inputs!r}")
    return [inputs] if isinstance(inputs, str | Feature) else list(inputs)


def build_heads(
    observations: Mapping[str, Observation], transition: Transition, latent: Latent, spec: DataSpec
) -> None:
    """Build the heads, and connect those that read another head to it.

    Raises:
        ValueError: a head that cannot be built, or reads one that the model does not have.
    """
    for name, head in observations.items():
        head.readout.parts = latent.parts(transition)
        head.build(spec.heads[name], spec, latent.readout_size(transition))
    for name, head in observations.items():
        if isinstance(head.readout, FactorReadout) and (of := head.readout.of) is not None:
            if of not in observations or of == name:
                others = sorted(set(observations) - {name})
                raise ValueError(f"observations[{name!r}]: FactorReadout(of={of!r}), but the other heads are {others}")
            head.readout.share_factors(name, observations[of].readout)
        if head.reads is None:
            continue
        if head.reads not in observations:
            raise ValueError(
                f"observations[{name!r}]: it reads {head.reads!r}, which the model does not have; it has "
                f"{sorted(observations)}"
            )
        head.connect(observations[head.reads])


def build_states(
    transition: Transition,
    latent: Latent,
    features: CovariateReader,
    observations: Mapping[str, Observation],
    inputs: Sequence[str | Feature],
    spec: DataSpec,
) -> bool:
    """Build transition and latent, tell the readouts where states come from, and return whether an input is constant.

    A transition without any input gets a constant, so that library kernels have an input at all.

    Raises:
        ValueError: feedback that cannot enter the transition, or a transition that needs another switch.
    """
    fed_back = _feedback_sizes(observations, latent)
    size = features.size + sum(fed_back.values()) + latent.input_size
    constant = size == 0
    shares = {"the time since the last step": int(transition.timed), "covariates": features.size}
    shares |= {f"the past of {name!r}": channels for name, channels in fed_back.items()}
    shares |= {"a constant": int(constant), f"what {latent!r} draws": latent.input_size}
    transition.input_shares = {name: channels for name, channels in shares.items() if channels}
    _check_switch(transition, latent)
    transition.dt = spec.dt
    transition.build(max(size, 1) + int(transition.timed))
    latent.build(transition, spec.dt)
    others = sum(fed_back.values()) + latent.drawn_size(transition)
    names = [item if isinstance(item, str) else "" for item in [*transition.own_inputs, *inputs]]
    for head in observations.values():
        head.readout.attach(transition, features, names, others)
    latent.check_heads(observations)
    return constant


def _feedback_sizes(observations: Mapping[str, Observation], latent: Latent) -> dict[str, int]:
    """Return how many channels of each head's past enter the transition."""
    found = {}
    for name, head in observations.items():
        if head.feedback is None or "transition" not in head.feedback.into:
            continue
        found[name] = head.feedback.size
        if head.head.session is not None:
            raise ValueError(
                f"observations[{name!r}] belongs to session {head.head.session!r} alone: in the sequences of "
                "other sessions there is no past of it to feed into the transition; use History(into='readout')"
            )
        if not latent.consumes_feedback:
            raise ValueError(
                f"observations[{name!r}]: {type(latent).__name__} draws its states before any "
                "observation, so feedback into the transition has nowhere to go; use History(into='readout'), "
                "or Innovations"
            )
    return found


def _check_switch(transition: Transition, latent: Latent) -> None:
    if transition.given_weights in (0, latent.switch_size):
        return
    has = f"has {latent.switch_size}" if latent.switch_size else "hands no switch to the transition"
    raise ValueError(
        f"{transition!r} is given the weights of {transition.given_weights} regimes, which must be "
        f"the states of a switch that it sees, as in RelaxedDiscrete({transition.given_weights}); {latent!r} {has}"
    )


def checked_couplings(couplings: Any, observations: Mapping[str, Observation], latent: Latent) -> list[Coupling]:
    """Return fresh copies of the couplings.

    Raises:
        ValueError: a coupling without the heads that it needs, two of one name, or any beside a latent that sums some
            of its state out of densities.
        TypeError: something that is no coupling.
    """
    couplings = check_list("LatentRNN", "couplings", couplings, "Couplings")
    for coupling in couplings:
        if not isinstance(coupling, Coupling):
            raise TypeError(f"LatentRNN: couplings must be Couplings; found {type(coupling).__name__}")
        coupling.check(observations)
    names = [coupling.label for coupling in couplings]
    if len(set(names)) < len(names):
        raise ValueError(f"LatentRNN: couplings must be of different classes, or have different names; found {names}")
    latent.check_couplings(couplings)
    return [coupling.fresh() for coupling in couplings]


def warn_where_time_is_ignored(transition: Transition, latent: Latent, modules: Iterable[Any], spec: DataSpec) -> None:
    """Warn where steps have times of their own and no part of the model knows them, or one counts them all the same."""
    modules = list(modules)
    knows = transition.timed or latent.timed or any(isinstance(part, Gap) for part in modules)
    if spec.irregular and not knows:
        warnings.warn(
            f"LatentRNN: the data have irregular times, but {transition!r} counts steps, whatever time lies "
            "between them; tell it with inputs=[..., lr.Gap()], let its state fade with lr.Decay(transition), or "
            "use a transition in continuous time (LeakyIntegrator, NeuralODE)",
            UserWarning,
            stacklevel=3,
        )
        return
    gap = any(isinstance(part, Gap) for part in modules)
    counting = sorted({type(part).__name__ for part in modules if _counts_steps(part)})
    if spec.irregular and counting and not gap:
        warnings.warn(
            f"LatentRNN: the data have irregular times, but {', '.join(counting)} looks back by steps, whatever time "
            "lies between them; tell it with inputs=[..., lr.Gap()]",
            UserWarning,
            stacklevel=3,
        )


def _counts_steps(part: Any) -> bool:
    """Whether a part looks at other steps than the present one, by their number."""
    if isinstance(part, Gap):
        return False
    return isinstance(part, History) or (isinstance(part, Feature) and bool(part.memory or part.lookahead))
