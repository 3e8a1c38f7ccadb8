"""Recurrent networks over what was observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from latentrnn.data import DataSpec, SequenceData
from latentrnn.data.views.windows import onward
from latentrnn.inference.guides.encoders.encoder import Encoding
from latentrnn.inference.guides.encoders.reading import ReadingEncoder
from latentrnn.models.observations import EncoderInput
from latentrnn.models.scans import Layer, final_states, layer_of, run, run_directions
from latentrnn.support.arguments import LARGEST_SIZE, check_choice, check_integer, check_size

DIRECTIONS = ("causal", "backward", "bidirectional")
CELLS = ("gru", "lstm", "tanh", "relu")


class RNNEncoder(ReadingEncoder):
    """A recurrent network over observations, masks and covariates.

    causal: features of step t see y_{<=t}, with a lag K y_{<=t+K} (fixed-lag smoothing, from a buffer of K steps);
    backward: y_{>=t}; bidirectional: everything (in windows, see `Window`). A causal encoder cannot inform the initial
    state (nothing lies before it), one with a lag does so by the first K steps.

    Args:
        hidden_size: hidden units per direction.
        direction: "causal", "backward" or "bidirectional".
        observes: heads that it is shown; by default every per-step head of the model. For co-smoothing, leave the
            held-out head out.
        layers: stacked layers per direction.
        mask_input: whether masks are an input; None decides by the data's spec (True where entries are missing).
        gap_input: whether the time since the step before is an input; None decides by the data's spec (True where steps
            have times of their own).
        read_in: size to which an affine map of its own brings each head, the results being added up; None lays all
            heads side by side. For many channels, and for sessions whose channels differ (`SequenceData.join`), of
            which another session's then contribute nothing.
        lag: steps that a causal encoder waits for.
        cell: "gru", "lstm", or a simple network with "tanh" or "relu".

    Raises:
        ValueError: an unknown direction, cell or head, a per-sequence head, a size below one, or a lag without need.
    """

    continues = True

    def __init__(
        self,
        hidden_size: int,
        *,
        direction: str = "bidirectional",
        observes: Sequence[str] | None = None,
        layers: int = 1,
        mask_input: bool | None = None,
        gap_input: bool | None = None,
        read_in: int | None = None,
        lag: int = 0,
        cell: str = "gru",
    ) -> None:
        super().__init__()
        self.direction = check_choice("RNNEncoder", "direction", direction, DIRECTIONS)
        self.cell = check_choice("RNNEncoder", "cell", cell, CELLS)
        self.lag = self.lookahead = check_integer("RNNEncoder", "lag", lag, most=LARGEST_SIZE)
        if lag and direction != "causal":
            raise ValueError(f"RNNEncoder: a lag goes with direction='causal'; {direction!r} sees what follows anyway")
        self.hidden_size = check_size("RNNEncoder", "hidden_size", hidden_size)
        self.layers = check_size("RNNEncoder", "layers", layers)
        self._set(observes, mask_input, read_in, gap_input)

    def build(self, spec: DataSpec, heads: Mapping[str, EncoderInput]) -> None:
        size = self._read(spec, heads)

        def kernel() -> nn.RNNBase:
            if self.cell in ("tanh", "relu"):
                return nn.RNN(size, self.hidden_size, self.layers, nonlinearity=self.cell, batch_first=True)
            kind = nn.GRU if self.cell == "gru" else nn.LSTM
            return kind(size, self.hidden_size, self.layers, batch_first=True)

        self.forwards = kernel() if self.direction != "backward" else None
        self.backwards = kernel() if self.direction != "causal" else None
        directions = 2 if self.direction == "bidirectional" else 1
        self.step_size = directions * self.hidden_size
        self.summary_size = 1 if self.direction == "causal" and not self.lag else self.step_size

    def forward(self, data: SequenceData) -> Encoding:
        seen = data if data.around is None else onward(data)  # of a window, also what follows
        inputs = self.inputs(seen)
        lengths = seen.lengths if seen.padded else None
        if data.around is None or self.forwards is None:
            steps, ends = run_directions(self.forwards, self.backwards, inputs, lengths)
        else:
            ahead = self._ahead(self.forwards, inputs, data)
            if self.backwards is None:
                steps = ahead
            else:
                behind, first = run_directions(None, self.backwards, inputs, lengths)
                steps = torch.cat([ahead, behind[:, : data.num_steps]], -1)
                ends = torch.cat([final_states(ahead, (False,), data.lengths), first], -1)
        if self.direction == "causal":
            if not self.lag:
                return Encoding(steps, inputs.new_ones(len(inputs), 1))
            delayed = self._delayed(steps, torch.arange(self.lag, self.lag + data.num_steps), seen)
            return Encoding(delayed, self._delayed(steps, torch.tensor([self.lag - 1]), seen)[:, 0])
        return Encoding(steps[:, : data.num_steps], ends)

    def _ahead(self, kernel: nn.RNNBase, inputs: Tensor, data: SequenceData) -> Tensor:
        """Return features of every step of a window from what came before it, the windows before this one included."""
        steps, before = data.num_steps, None if data.carry_in is None else data.carry_in["encoder"]
        outputs, last = self._go_on(kernel, inputs[:, :steps], before)
        data.carry_out("encoder", last)
        if not self.lag or inputs.shape[1] == steps:
            return outputs
        return torch.cat([outputs, self._go_on(kernel, inputs[:, steps:], last)[0]], 1)

    def _go_on(self, kernel: nn.RNNBase, inputs: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return features and the new memory, (layer, sequence, hidden_size); with c beside h, (2, ...), of an LSTM."""
        if memory is None:
            memory = inputs.new_zeros(self.layers, len(inputs), self.hidden_size)
            memory = torch.stack([memory, memory]) if self.cell == "lstm" else memory
        if self.cell != "lstm":
            return run(kernel, inputs, memory)
        outputs, last = run(kernel, inputs, tuple(memory.unbind(0)))
        return outputs, torch.stack(last)

    def advance(self, data: SequenceData, memory: Tensor | None) -> tuple[Encoding, Tensor | None]:
        if self.direction != "causal" or self.lag:
            raise ValueError(f"{self!r} sees steps that have not come yet; use direction='causal' without a lag")
        several = any(data.spec.heads[name].session is not None for name in self.visible)
        if self.reader is not None and several and data.sessions is None:
            raise ValueError(
                "RNNEncoder: a read-in of several sessions needs to know which one a sequence belongs to; use "
                "OnlineFilter(..., session=name)"
            )
        assert self.forwards is not None
        below = self.inputs(data)[:, -1]
        parts = 2 if self.cell == "lstm" else 1  # h, and c of an LSTM
        if memory is None:
            memory = below.new_zeros(self.layers, parts, len(below), self.hidden_size)
        layers = []
        for number, before in enumerate(memory.unbind(0)):
            new = self._advanced(below, before, layer_of(self.forwards, number))
            layers.append(new)
            below = new[0]
        memory = torch.stack(layers) if len(layers) > 1 else layers[0].unsqueeze(0)
        return Encoding(below.unsqueeze(1), below.new_ones(len(below), 1)), memory

    def _advanced(self, below: Tensor, before: Tensor, weights: Layer) -> Tensor:
        """Return what one layer knows after a step, (part, sequence, hidden_size), from what it knew before."""
        if self.cell == "lstm":
            return torch.stack(torch.lstm_cell(below, (before[0], before[1]), *weights))
        cell = {"gru": torch.gru_cell, "tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}[self.cell]
        return cell(below, before[0], *weights).unsqueeze(0)

    @staticmethod
    def _delayed(features: Tensor, steps: Tensor, data: SequenceData) -> Tensor:
        """Return the features of these steps, or those of the last step of a sequence that ends before."""
        last = (data.lengths - 1).clamp_min(0).unsqueeze(-1)
        chosen = torch.minimum(steps.to(data.device), last)
        return features.gather(1, chosen.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
