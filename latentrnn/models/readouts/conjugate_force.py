"""The force that is conjugate to an input in a cell's free energy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.features import CovariateReader
from latentrnn.models.readouts.readout import Readout, Surroundings
from latentrnn.models.transitions.thermodynamic import ThermodynamicCell
from latentrnn.models.transitions.transition import Transition
from latentrnn.support.arguments import check_text


class ConjugateForce(Readout):
    """eta_t = c [d psi / d x (alpha_t, a_t) + e x_t] + b,  c > 0: the stress that goes with a strain x.

    psi is the free energy of the model's `ThermodynamicCell`, whose inputs a_t hold the strain, and e x^2 / 2 an
    elastic energy of its own. The work of the strain is then what the free energy gains plus what the cell dissipates,

        sum of stress d(strain) = change of psi + sum of D >= change of psi

    so that over a closed cycle no energy is created, whatever the weights, up to the error of the step in time. A cell
    whose dissipation is never negative does not say so of any other readout: of a linear one, nothing ties the stress
    that is read out to the energy that the internal variables store.

    Args:
        strain: a covariate of one feature, one of the model's `inputs`; the head has one channel, its stress.

    Raises:
        ValueError: when the model is put together, another transition than `ThermodynamicCell`, a strain that does not
            drive it, more than one channel or feature, a per-sequence head, or states that anything but covariates
            drives.

    References:
        Halphen, Nguyen. Sur les materiaux standard generalises. 1975.
        Coleman, Gurtin. Thermodynamics with internal state variables. 1967.
        Masi, Stefanou, Vannucci, Maffi-Berthier. Thermodynamics-based artificial neural networks for constitutive
        modeling. 2021.
    """

    along_time = True  # the strain that it reads besides the state is that of a step

    def __init__(self, strain: str, **shared: Any) -> None:
        super().__init__(**shared)
        self.strain = check_text("ConjugateForce", "strain", strain)

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        if outputs != 1:
            raise ValueError(
                f"ConjugateForce: the force along one strain is one number; the head has {outputs} outputs"
            )
        self.log_scale = nn.Parameter(torch.zeros(1))  # c
        self.elasticity = nn.Parameter(torch.zeros(1))  # e
        self.baseline = nn.Parameter(torch.zeros(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with the cell's energy alone."""
        with torch.no_grad():
            self.log_scale.zero_()
            self.elasticity.zero_()
            self.baseline.zero_()

    def attach(self, transition: Transition, inputs: CovariateReader, names: list[str], others: int) -> None:
        if not isinstance(transition, ThermodynamicCell):
            raise ValueError(f"ConjugateForce needs a ThermodynamicCell, whose energy it derives; found {transition!r}")
        if others:
            raise ValueError(
                "ConjugateForce: the energy must be a function of the state and of covariates; here innovations, "
                "fed-back heads or states that are drawn themselves come in too, which no readout sees. Use "
                "Deterministic() or InitialState()"
            )
        if self.strain not in names:
            raise ValueError(f"ConjugateForce: {self.strain!r} does not drive the transition; its inputs are {names}")
        place = names.index(self.strain)
        if inputs.sizes[place] != 1:
            raise ValueError(f"ConjugateForce: {self.strain!r} must have one feature; found {inputs.sizes[place]}")
        self.lookahead = inputs.lookahead
        self._column = sum(inputs.sizes[:place])
        self._source = (transition, inputs)  # a tuple, so that what belongs to the model is no part of the readout

    def surroundings(self, data: SequenceData) -> Surroundings:
        return Surroundings(context=self._source[1](data))

    def forward(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        inputs = surroundings.context
        assert inputs is not None
        cell = self._source[0]
        own = cell.energy_scale.dtype  # the cell's, which keeps its precision where densities are summed in double
        force = cell.conjugate_force(states.to(own), inputs.to(own))[..., self._column : self._column + 1]
        strain = inputs[..., self._column : self._column + 1]
        return self.log_scale.exp() * (force + self.elasticity * strain) + self.baseline
