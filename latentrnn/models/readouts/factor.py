"""A readout through a few factors."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentrnn.data import DataSpec
from latentrnn.models.parameters.parameter_spec import ParameterSpec
from latentrnn.models.readouts.linear import linear
from latentrnn.models.readouts.readout import Readout, Surroundings
from latentrnn.support.arguments import check_size, check_text


class FactorReadout(Readout):
    """f_t = A h_t / |A|,  eta_t = C f_t + b: many channels driven by a few factors.

    Each row of A is divided by its norm, so that the scale of a factor lies in the loadings C alone.

    Args:
        factors: number of factors.
        of: another head, whose factors these are too: A is that head's, C and b are this one's own. So neurons that are
            held out, or another kind of recording, are driven by the same factors.
        **shared: `priors` and `fixed`; see `Component`.

    Raises:
        ValueError: fewer than one factor; when the model is put together, another head that is not there, or has not
            as many factors of its own.

    References:
        Pandarinath, O'Shea, Collins, Jozefowicz, Stavisky, ... Sussillo. Inferring single-trial neural population
        dynamics using sequential auto-encoders. 2018.
    """

    declared: ClassVar = {
        "loading": ParameterSpec("loading", unit="of eta per unit of factor", dims=("output", "factor")),
        "baseline": ParameterSpec("baseline", unit="of eta", dims=("output",)),
    }
    writes_priors = True
    broadcasts = True
    per_output = ("loading",)
    arguments_added_later: ClassVar = MappingProxyType({"of": None})
    network_weights = ("weight", "loading")
    loading: Tensor
    baseline: Tensor

    def __init__(self, factors: int, of: str | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.factors = check_size("FactorReadout", "factors", factors)
        self.of = None if of is None else check_text("FactorReadout", "of", of)

    def arguments(self) -> dict[str, Any]:
        found = super().arguments()
        if self.of is None:
            del found["of"]  # described as before there was one
        return found

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        """Create `weight` A (factors, hidden_size), `loading` C (outputs, factors) and `baseline` (outputs,)."""
        self.weight = nn.Parameter(torch.zeros(self.factors, hidden_size))
        self.loading = nn.Parameter(torch.zeros(outputs, self.factors))
        self.baseline = nn.Parameter(torch.zeros(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and small loadings from torch's global generator."""
        with torch.no_grad():
            if self.of is None:
                self.weight.normal_()
            self.loading.normal_(0.0, 0.5 / self.factors**0.5)
            self.baseline.zero_()

    def share_factors(self, name: str, other: Readout) -> None:
        """Take the factors of another head's readout in the place of one's own; called once, when all are built.

        Args:
            name: of this head, for error messages.
            other: the readout of the head `of`.

        Raises:
            ValueError: it has other factors, or shares those of a third.
        """
        if not isinstance(other, FactorReadout) or other.of is not None or other.factors != self.factors:
            raise ValueError(
                f"observations[{name!r}]: FactorReadout(of={self.of!r}) needs a head with a FactorReadout("
                f"{self.factors}) of its own; found {other!r}"
            )
        self.weight = other.weight

    def to_factors(self, states: Tensor) -> Tensor:
        """Return f, (..., time, factors), of states (..., time, hidden_size)."""
        return linear(states, nn.functional.normalize(self.weight, dim=-1))

    def forward(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        return linear(self.to_factors(states), self.loading, self.baseline)
