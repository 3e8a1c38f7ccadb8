"""Small recordings, posteriors of models that were not trained, and a transition of a user's own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import latentrnn as lr


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def recording(sequences: int = 3, steps: int = 12) -> lr.SequenceData:
    rng = np.random.default_rng(0)
    spikes = [rng.poisson(1.0, (steps - k, 3)).astype(float) for k in range(sequences)]
    x = [rng.normal(size=(steps - k, 2)) for k in range(sequences)]
    return lr.SequenceData.from_arrays({"spikes": spikes}, {"x": x}, dt=0.01)


def posterior_of(
    transition: lr.Transition, latent: lr.Latent, data: lr.SequenceData | None = None, head: lr.Poisson | None = None
) -> lr.Posterior:
    data = recording() if data is None else data
    torch.manual_seed(0)
    heads = {"spikes": lr.Poisson() if head is None else head}
    model = lr.LatentRNN(data.spec, transition=transition, latent=latent, observations=heads).double()
    return lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(4)).double(), data)


class Adapting(lr.Transition):
    """A transition of a user's own: h' = k h + W a, with a gate that closes as it fills."""

    def __init__(self, hidden_size: int, **shared: object) -> None:
        super().__init__(**shared)
        self.hidden_size = self.state_size = hidden_size

    def build(self, input_size: int) -> None:
        self.map = torch.nn.Linear(input_size, self.hidden_size)

    def step(self, state: Tensor, inputs: Tensor) -> Tensor:
        room = self.gate("room", torch.sigmoid(-state))
        return 0.9 * state + room * self.map(inputs)
