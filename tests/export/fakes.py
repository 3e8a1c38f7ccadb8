"""A posterior of known arrays, so that the export can be checked value by value without fitting anything."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from latentrnn.data import SequenceData


def fake_data(*, ragged: bool = True, dt: float | None = 0.5) -> SequenceData:
    """Three sequences: counts of 2 channels, a slow Gaussian head with a hole in it, a label, and a covariate."""
    lengths = [6, 6, 4] if ragged else [6, 6, 6]
    counts = [torch.randint(0, 4, (length, 2)).float() for length in lengths]
    slow = [torch.randn(length // 2, 1) for length in lengths]
    slow[0][1, 0] = torch.nan
    return SequenceData.from_arrays(
        observations={"spikes": counts, "field": slow, "label": torch.tensor([[0.0], [1.0], [1.0]])},
        covariates={"stimulus": [torch.randn(length, 1) for length in lengths]},
        dt=dt,
        clocks={"field": 2},
        per_sequence=("label",),
        channel_names={"spikes": ["left", "right"], "field": ["lfp"]},
        sequence_names=["a", "b", "c"],
    )


@dataclass
class FakePosterior:
    """What `to_arviz` asks of a posterior; `sites=False` is a model whose parameters are all point estimates.

    As a posterior does, it gives the same draws whenever it is asked with the same seed.
    """

    data: SequenceData
    sites: bool = True
    heads: tuple[str, ...] | None = None
    seed: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    chains: None = None
    against_loo: str | None = None
    conditional_on: str = ""

    @property
    def model(self) -> SimpleNamespace:
        gain = SimpleNamespace(stimulus="stimulus", lags=1)
        heads = {
            name: SimpleNamespace(
                outputs_per_channel=1,
                gain=gain if name == "spikes" else None,
                covariates=[],
                head=self.data.spec.heads[name],
            )
            for name in self._modelled()
        }
        named = {
            "networks": {},
            "network_weights": dict,
            "with_learned_priors": list,
            "features": SimpleNamespace(names=[]),
            "parameter_axes": lambda: {"spikes.gain.beta": ("spikes", ("output", "feature"))},
        }
        return SimpleNamespace(observations=heads, spec=self.data.spec, **named)

    def reseeded(self, seed: int) -> FakePosterior:
        return replace(self, seed=seed)

    def latents(self, num_samples: int = 100) -> dict[str, Tensor]:
        trajectory = (num_samples, self.data.num_sequences, self.data.num_steps)
        padding = ~self.data.valid[..., None]
        return {
            "initial": self._normal(num_samples, self.data.num_sequences, 5),
            "innovations": self._normal(*trajectory, 2).masked_fill(padding, torch.nan),
            "states": self._normal(*trajectory, 4).masked_fill(padding, torch.nan),
        }

    def parameters(self, num_samples: int = 100) -> dict[str, Tensor]:
        return {"spikes.gain.beta": self._normal(num_samples, 2, 1)} if self.sites else {}

    def predictive(self, num_samples: int = 100) -> dict[str, Tensor]:
        return self._replicates(num_samples, offset=0.0)

    def prior_predictive(self, num_samples: int = 100) -> dict[str, Tensor]:
        return self._replicates(num_samples, offset=1.0)

    def log_likelihood(self, num_particles: int = 64, num_draws: int = 50) -> Tensor:
        self.asked["num_particles"] = num_particles
        return self._normal(num_draws if self.sites else 1, self.data.num_sequences) - 30

    def log_prior(self, num_draws: int = 50) -> dict[str, Tensor]:
        return {"spikes.gain.beta": self._normal(num_draws).double() - 2} if self.sites else {}

    def reason_against_loo(self) -> str | None:
        return self.against_loo if self.sites else "all are point estimates"

    def _replicates(self, num_samples: int, offset: float) -> dict[str, Tensor]:
        values = {
            name: self._normal(num_samples, *self.data.observations[name].shape) + offset for name in self._modelled()
        }
        return {name: value if name == "field" else value.exp().floor() for name, value in values.items()}

    def _modelled(self) -> tuple[str, ...]:
        return self.heads or tuple(self.data.observations)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))
