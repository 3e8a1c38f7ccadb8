"""A posterior of known arrays, so that the export can be checked value by value without fitting anything."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """What `to_arviz` asks of a posterior; `sites=False` is a model whose parameters are all point estimates."""

    data: SequenceData
    sites: bool = True
    heads: tuple[str, ...] | None = None
    asked: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, dict[str, Tensor] | Tensor] | None = None

    def fixed(self, num_samples: int) -> FakePosterior:
        """Answer with one set of draws from now on, and return self."""
        self.drawn = {
            "latents": self.latents(num_samples),
            "parameters": self.parameters(num_samples),
            "predictive": self.predictive(num_samples),
            "prior_predictive": self.prior_predictive(num_samples),
            "log_likelihood": self.log_likelihood(),
        }
        return self

    def latents(self, num_samples: int = 100) -> dict[str, Tensor]:
        if self.drawn:
            return self.drawn["latents"]
        trajectory = (num_samples, self.data.num_sequences, self.data.num_steps)
        return {
            "initial": torch.randn(num_samples, self.data.num_sequences, 5),
            "innovations": torch.randn(*trajectory, 2),
            "states": torch.randn(*trajectory, 4),
        }

    def parameters(self, num_samples: int) -> dict[str, Tensor]:
        if self.drawn:
            return self.drawn["parameters"]
        return {"spikes.gain.beta": torch.randn(num_samples, 2, 1)} if self.sites else {}

    def predictive(self, num_samples: int = 100) -> dict[str, Tensor]:
        return self.drawn["predictive"] if self.drawn else self._replicates(num_samples)

    def prior_predictive(self, num_samples: int) -> dict[str, Tensor]:
        return self.drawn["prior_predictive"] if self.drawn else self._replicates(num_samples)

    def log_likelihood(self, num_particles: int = 64) -> Tensor:
        self.asked["num_particles"] = num_particles
        if self.drawn:
            return self.drawn["log_likelihood"]
        return torch.randn(20 if self.sites else 1, self.data.num_sequences) - 30

    def _replicates(self, num_samples: int) -> dict[str, Tensor]:
        heads = self.heads or tuple(self.data.observations)
        shapes = {name: (num_samples, *self.data.observations[name].shape) for name in heads}
        return {
            name: torch.randn(shape) if name == "field" else torch.randint(0, 2, shape).float()
            for name, shape in shapes.items()
        }
