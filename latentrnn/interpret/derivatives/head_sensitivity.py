"""How a head answers to a gate: the derivative of its linear predictor by the gate's pre-activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latentrnn.inference.posterior.draws.transition_runs import TransitionRun
from latentrnn.inference.posterior.posterior import Posterior
from latentrnn.interpret.derivatives.derivatives import by_draw
from latentrnn.interpret.results.labelled import AnyPosterior, in_rows, labelled, pooled, without_padding
from latentrnn.interpret.results.names import is_content, layers_of
from latentrnn.models.observations import Observation
from latentrnn.models.transitions import Transition
from latentrnn.support.arguments import check_choice
from latentrnn.support.isolation import isolated

if TYPE_CHECKING:
    import xarray

OWNER = "head_sensitivity"


@isolated
def head_sensitivity(
    posterior: AnyPosterior, head: str, gate: str = "output", *, num_samples: int = 10
) -> xarray.Dataset:
    """Return the derivative of a head's linear predictor by the logit of a gate, at every step.

        d eta_t / d logit(gate_t),   y_t ~ family(link(eta_t)),   eta_t = readout(h_t) + ...

    Of a head with a log link it is that of the logarithm of the rate. For an LSTM with a linear readout and its output
    gate it is w tanh(c_t) o_t (1 - o_t): how far the gate, as a valve, lets the cell be read at this step. A gate that
    lets in or forgets acts on h_t through the cell, and on later steps besides, which are left out.

    Args:
        posterior: of any model, or of an ensemble.
        head: a per-step head whose readout reads the state of its own step.
        gate: as in `trace`, e.g. "output", "layer1.output", "slow.forget"; its values must lie in [0, 1].
        num_samples: number of draws, those of `trace`.

    Returns:
        "sensitivity", (sample, sequence, time, output, unit), per unit of logit, and the gate itself, "gate", (sample,
        sequence, time, unit). Steps that a head with a slower clock does not read have zeros; padding is NaN.

    Raises:
        TypeError: something that is no posterior.
        ValueError: an unknown head or gate, a gate that is what is let in, a head that reads other steps or another
            head, or a latent that draws the states, past which no gate acts.

    References:
        Hochreiter, Schmidhuber. Long short-term memory. 1997.

    Example:
        >>> import numpy as np, latentrnn as lr
        >>> data = lr.SequenceData.from_arrays({"v": np.ones((2, 5, 1))}, {"x": np.ones((2, 5, 1))}, dt=0.01)
        >>> heads = {"v": lr.Poisson()}
        >>> model = lr.LatentRNN(data.spec, transition=lr.LSTM(3), latent=lr.Deterministic(), observations=heads)
        >>> posterior = lr.Posterior(model, lr.Guide(model), data)
        >>> dict(lr.interpret.head_sensitivity(posterior, "v", num_samples=1).sensitivity.sizes)
        {'sample': 1, 'sequence': 2, 'time': 5, 'output': 1, 'unit': 3}
    """
    return pooled(OWNER, posterior, num_samples, lambda one, count: _of_one(one, head, gate, count))


def _of_one(posterior: Posterior, head: str, gate: str, num_samples: int) -> xarray.Dataset:
    model, parts = posterior.model, []
    check_choice(OWNER, "head", head, list(model.observations))
    _check_head(model.observations[head], head)
    if model.latent.draws_states:
        raise ValueError(f"{OWNER}: {model.latent!r} draws the states that heads read: no gate acts on them")
    for run in posterior.transition_runs(num_samples):
        name, layer = _found(model.transition, gate, run)
        slope, value = _slope(run, head, name, layer)
        parts.append(
            {each: without_padding(tensor, run.rollout.data) for each, tensor in (("slope", slope), ("gate", value))}
        )
    arrays, axes = in_rows(parts), ("sample", "sequence", "time")
    variables = {
        "sensitivity": ((*axes, "output", "unit"), arrays["slope"]),
        "gate": ((*axes, "unit"), arrays["gate"]),
    }
    return labelled(posterior.data, variables, attributes={"head": head, "gate_name": gate})


def _check_head(observation: Observation, name: str) -> None:
    if not observation.head.per_step or observation.reads is not None or observation.readout.memory != 0:
        raise ValueError(
            f"{OWNER}: expected a per-step head that reads the state of its own step; head {name!r} "
            + ("is of whole sequences" if not observation.head.per_step else "reads other steps, or another head")
        )


def _found(transition: Transition, gate: str, run: TransitionRun) -> tuple[str, int]:
    """Return the name by which a gate is recorded, and of which layer it is."""
    known = {
        name if layers == 1 else ".".join(filter(None, (prefix, f"layer{layer}", last))): (name, layer)
        for name in run.gates()
        for prefix, _, last in [name.rpartition(".")]
        for layers in [layers_of(transition, name)]
        for layer in range(layers)
    }
    check_choice(OWNER, "gate", gate, known)
    if is_content(transition, known[gate][0]):
        raise ValueError(f"{OWNER}: gate {gate!r} is what is let in, and has no logit; expected how much of it")
    return known[gate]


def _slope(run: TransitionRun, head: str, name: str, layer: int) -> tuple[Tensor, Tensor]:
    """Return d eta / d logit, (sample, sequence, time, output, unit), and the gate, (sample, sequence, time, unit)."""
    gates = run.gates()[name]
    gate = gates.chunk(layers_of(run.transition, name), -1)[layer].detach()
    if not bool(((gate >= 0) & (gate <= 1)).all()):
        raise ValueError(f"{OWNER}: gate {name!r} has values outside [0, 1], and so no logit")
    hidden = _hidden_slope(run, name, layer, gate)
    with torch.enable_grad():
        states = run.transition.output(run.states).detach().requires_grad_()
        eta = run.rollout.predictor(head, states)
        by_hidden = torch.stack(
            [torch.autograd.grad(eta[..., k].sum(), states, retain_graph=True)[0] for k in range(eta.shape[-1])], -2
        )
    return by_hidden @ hidden, gate


def _hidden_slope(run: TransitionRun, name: str, layer: int, gate: Tensor) -> Tensor:
    """Return d h_t / d logit, (sample, sequence, time, hidden_size, unit)."""

    def of_one(transition: Transition, before: Tensor, inputs: Tensor, gate: Tensor) -> Tensor:
        with torch.enable_grad():
            nudge, seen = torch.zeros_like(gate, requires_grad=True), [0]

            def nudged(which: str, value: Tensor) -> Tensor:
                if which != name:
                    return value
                seen[0] += 1
                # sigmoid(logit(g) + nudge) to first order, which does not saturate
                return value if seen[0] != layer + 1 else value + value * (1 - value) * nudge

            with transition.gates_through(nudged):
                h_t = transition.output(transition.step(before, inputs))
            found = [
                torch.autograd.grad(h_t[..., k].sum(), nudge, retain_graph=True, allow_unused=True)[0]
                for k in range(h_t.shape[-1])
            ]
        return torch.stack([torch.zeros_like(gate) if each is None else each for each in found], -2).detach()

    rows = (value.flatten(1, 2) for value in (run.before, run.inputs, gate))
    return by_draw(run.transition, of_one, *rows).unflatten(1, gate.shape[1:3])
