"""A family bent by invertible networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from latentrnn.data import SequenceData
from latentrnn.inference.guides.encoders import Encoding
from latentrnn.inference.guides.families.family import Draw, Family, sample_site
from latentrnn.inference.guides.families.mean_field import MeanField
from latentrnn.inference.guides.flows import AutoregressiveFlow, Bent
from latentrnn.support.arguments import check_size


class Flow(Family):
    """z_t = f(x_t), x_{1:T} ~ base:  q(z) = q_base(x) prod_t |det f'(x_t)|^{-1}, with one f for all steps.

    f is a chain of inverse autoregressive flows over the dimensions of a step, so that draws cost little more than
    the base's. What the base knows of time it keeps; the flow adds skewness and curved dependence between
    dimensions (of one dimension it can only shift and stretch). Latents before the first step have their own.

    Args:
        base: the family that is bent.
        layers: maps in the chain.
        hidden_size: width of the network of each (at least the latent's dimension).

    Raises:
        ValueError: a number below one.
        TypeError: something that is not a family.

    References:
        Rezende, Mohamed. Variational inference with normalizing flows. 2015.
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling. Improved variational inference with inverse
        autoregressive flow. 2016.
    """

    flows: Mapping[str, AutoregressiveFlow]  # an nn.ModuleDict

    def __init__(self, base: Family, layers: int = 2, hidden_size: int = 32) -> None:
        super().__init__()
        if not isinstance(base, Family):
            raise TypeError(f"Flow: base must be a Family such as GaussianChain(); found {type(base).__name__}")
        self.base = base.fresh()
        self.amortised = base.amortised
        self.layers = check_size("Flow", "layers", layers)
        self.hidden_size = check_size("Flow", "hidden_size", hidden_size)

    @property
    def continues(self) -> bool:  # type: ignore[override]
        """Whether a window goes on from the one before: the base's own last value is not what was drawn."""
        return isinstance(self.base, MeanField)

    def _build(self, step_size: int, summary_size: int) -> None:
        self.base.build(self.sites, step_size, summary_size)
        self.flows = nn.ModuleDict(  # type: ignore[assignment]
            {site.name: AutoregressiveFlow(site.dim, self.layers, self.hidden_size) for site in self.sites}
        )

    def initialise(self, data: SequenceData) -> None:
        self.base.initialise(data)

    def variational_parameters(self, encoding: Encoding, data: SequenceData | None) -> dict[str, Tensor]:
        return self.base.variational_parameters(encoding, data)

    def sample(self, parameters: dict[str, Tensor], data: SequenceData, draw: Draw = sample_site) -> dict[str, Tensor]:
        values = {}
        along_time = {site.name: site.along_time for site in self.sites}
        valid = data.valid if data.padded else None

        def bent(name: str, base: Any) -> Tensor:
            distribution = Bent(base, self.flows[name], valid if along_time[name] else None)
            values[name] = draw(name, distribution)
            return distribution.unbend(values[name])[0]  # the base goes on with a value of its own

        self.base.sample(parameters, data, bent)
        return values
