"""From what was observed to features of every step, for a guide to turn into posteriors."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentrnn.data import DataSpec, HeadSpec, SequenceData
from latentrnn.data.windowing import onward
from latentrnn.inference.read_in import ReadIn
from latentrnn.models.component import Component
from latentrnn.models.features import CovariateReader
from latentrnn.models.observations import View
from latentrnn.models.scans import Layer, layer_of, run, run_ways
from latentrnn.models.transitions.transition import check_size

DIRECTIONS = ("causal", "backward", "bidirectional")
CELLS = ("gru", "lstm", "tanh", "relu")


class Encoding(NamedTuple):
    """What an encoder returns.

    Attributes:
        steps: features of every step, (sequence, time, step_size).
        summary: features of the sequence as a whole, for its initial state, (sequence, summary_size).
    """

    steps: Tensor
    summary: Tensor


class Encoder(Component):
    """Summarises observations and covariates; `observes` says which heads it is shown, and it sees no other."""

    step_size: int
    summary_size: int
    observes: list[str] | None
    visible: list[str]  # the heads that it sees, once built
    continues = False  # whether `forward` goes on from the window before, where the data are one of longer sequences
    lookahead = 0  # steps after a window that it needs to see
    max_elements: int | None = None  # numbers of what it is shown that a read-in may hold at once; None for all

    @abstractmethod
    def build(self, spec: DataSpec, heads: Mapping[str, View]) -> None:
        """Create the parameters for the heads of a model, given how each is shown; a per-sequence head never is."""

    @abstractmethod
    def forward(self, data: SequenceData) -> Encoding:
        """Encode a batch."""

    def follow(self) -> dict[str, bool]:
        """Get ready for `advance`: frames of slow heads come at the step at which they are known.

        Returns:
            By head that it sees, whether it can be told that entries are missing.
        """
        return {}

    def advance(self, data: SequenceData, memory: Tensor | None) -> tuple[Encoding, Tensor | None]:
        """Encode the last step of `data` alone, given what is remembered of the steps before; for online filters.

        Args:
            data: the step, after as many as the features of covariates look back.
            memory: what the step before returned, None at the first.

        Returns:
            Features of this step, (sequence, 1, step_size), with those for the initial state; and the new memory.

        Raises:
            ValueError: this encoder sees later steps.
        """
        raise ValueError(f"{type(self).__name__} cannot encode step by step; use RNNEncoder(direction='causal')")

    def initialise(self, data: SequenceData) -> None:
        """Take what scales it needs from the training data."""


class ReadingEncoder(Encoder):
    """What encoders share that read heads, masks and covariates step by step.

    Where entries can be missing, the encoder is told which, by the mask as further input. Numbers are shown in
    standard units, missing ones as average; symbols (`Categorical`) as one indicator each, a missing one as none. A
    slow head's frame is seen at its last base step, where it is first known.
    """

    mask_input: bool | None
    read_in: int | None

    def _set(self, observes: Sequence[str] | None, mask_input: bool | None, read_in: int | None) -> None:
        owner = type(self).__name__
        self.read_in = None if read_in is None else check_size(owner, "read_in", read_in)
        self.mask_input = mask_input
        self.observes = None if observes is None else [observes] if isinstance(observes, str) else list(observes)

    def _read(self, spec: DataSpec, heads: Mapping[str, View]) -> int:
        """Create what reading needs, and return the number of inputs per step."""
        owner = type(self).__name__
        self.visible = self._choose(spec, heads)
        self._clocks = {name: spec.heads[name].clock for name in self.visible}
        # a slow head's frames are absent between its clock ticks, which is one kind of missing
        self._masked = {
            name: self.mask_input is True
            or spec.heads[name].clock > 1
            or (self.mask_input is None and self._unseen(spec.heads[name]))
            for name in self.visible
        }
        self.covariates = CovariateReader(owner, list(spec.covariates), spec)
        self._views = {name: heads[name] for name in self.visible}
        widths = {}
        for name, view in self._views.items():
            widths[name] = view.size + (view.channels if self._masked[name] else 0)
            self.register_buffer(f"{name}_centre", torch.zeros(view.size))
            self.register_buffer(f"{name}_scale", torch.ones(view.size))
        self.reader = None if self.read_in is None or not widths else ReadIn(widths, self.read_in)
        size = self.covariates.size + (sum(widths.values()) if self.reader is None else self.reader.size)
        if size == 0:
            raise ValueError(f"{owner}: nothing to see: no covariate, and no per-step head among those it observes")
        return size

    def follow(self) -> dict[str, bool]:
        self._clocks = dict.fromkeys(self._clocks, 1)
        return dict(self._masked)

    def _choose(self, spec: DataSpec, heads: Mapping[str, View]) -> list[str]:
        if self.observes is None:
            return [name for name in heads if spec.heads[name].per_step]
        for name in self.observes:
            if name not in heads:
                raise ValueError(
                    f"{type(self).__name__}: observes unknown head {name!r}; the model has {sorted(heads)}"
                )
            if not spec.heads[name].per_step:
                raise ValueError(
                    f"{type(self).__name__}: {name!r} is a per-sequence head: showing it would leak the label"
                )
        return self.observes

    def _unseen(self, head: HeadSpec) -> bool:
        """Whether entries may be missing of which nothing but the mask can tell; a read-in leaves out whole sessions.

        A mask that is one in all of a session is no harmless constant: it adds to the session's offset once for each
        channel, which then learns as many times as fast. In simulated sessions it cost 0.05 to 0.07 bits per spike.
        """
        return head.missing or (head.session is not None and self.read_in is None)

    def initialise(self, data: SequenceData) -> None:
        """Take centre and scale of every visible head from the training data."""
        for name, view in self._views.items():
            centre, scale = view.scales(data.observations[name], data.masks[name])
            getattr(self, f"{name}_centre").copy_(centre)
            getattr(self, f"{name}_scale").copy_(scale)

    def inputs(self, data: SequenceData) -> Tensor:
        """Return all that is seen, (sequence, time, input)."""
        if self.reader is None:
            heads = [_joined(self._head(name, data)) for name in self.visible]
        else:
            heads = [self._read_in(data)]
        return _joined([*([self.covariates(data)] if self.covariates.size else []), *heads])

    def _read_in(self, data: SequenceData) -> Tensor:
        """Return what the read-in makes of all heads, in chunks of time where they are too wide to lay side by side."""
        present = {name: data.masks[name].flatten(1).any(1) for name in self.visible}
        width = sum(view.size for view in self._views.values())
        steps = data.num_steps
        if self.max_elements is not None:
            unit = math.lcm(*self._clocks.values())
            steps = max(1, self.max_elements // (data.num_sequences * width * unit)) * unit
        if steps >= data.num_steps:
            return self._read_part(data, present)
        found = []
        for start in range(0, data.num_steps, steps):
            part = data.time_slice(start, start + steps)
            if torch.is_grad_enabled():  # what was laid side by side is laid again for the gradient
                again: Any = checkpoint
                found.append(again(self._read_part, part, present, use_reentrant=False, preserve_rng_state=False))
            else:
                found.append(self._read_part(part, present))
        return torch.cat(found, 1)

    def _read_part(self, data: SequenceData, present: dict[str, Tensor]) -> Tensor:
        assert self.reader is not None
        return self.reader({name: _joined(self._head(name, data)) for name in self.visible}, present)

    def _head(self, name: str, data: SequenceData) -> list[Tensor]:
        view, mask = self._views[name], data.masks[name]
        scale = getattr(self, f"{name}_scale").reciprocal()
        values = torch.addcmul(-getattr(self, f"{name}_centre") * scale, view.show(data.observations[name]), scale)
        if not data.complete(name):
            values = torch.where(view.spread(mask), values, 0.0)
        if self._clocks[name] > 1:
            values, mask = (self._spread(part, self._clocks[name], data.num_steps) for part in (values, mask))
        elif not self._masked[name]:
            if self._unseen(data.spec.heads[name]):
                raise ValueError(
                    f"observations[{name!r}]: entries are missing, but the encoder was built from data without missing "
                    f"entries and has no input to be told by; use {type(self).__name__}(..., mask_input=True)"
                )
            return [values]
        return [values, mask.to(values.dtype)]

    @staticmethod
    def _spread(frames: Tensor, clock: int, steps: int) -> Tensor:
        """Put each frame at its last base step, where it is first known; zero elsewhere."""
        spread = frames.new_zeros(len(frames), steps, frames.shape[-1])
        spread[:, clock - 1 :: clock][:, : frames.shape[1]] = frames
        return spread


def _joined(parts: list[Tensor]) -> Tensor:
    """Return the parts side by side; a single one as it is, for even of one `cat` would make a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


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
        read_in: size to which an affine map of its own brings each head, the results being added up; None lays all
            heads side by side. For sessions with different channels (`SequenceData.join`): a head of which a sequence
            shows nothing then contributes nothing.
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
        read_in: int | None = None,
        lag: int = 0,
        cell: str = "gru",
    ) -> None:
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f"RNNEncoder: direction must be one of {list(DIRECTIONS)}; found {direction!r}")
        if cell not in CELLS:
            raise ValueError(f"RNNEncoder: cell must be one of {list(CELLS)}; found {cell!r}")
        if isinstance(lag, bool) or not isinstance(lag, int) or lag < 0:
            raise ValueError(f"RNNEncoder: lag must be a whole number of steps, not negative; found {lag!r}")
        if lag and direction != "causal":
            raise ValueError(f"RNNEncoder: a lag goes with direction='causal'; {direction!r} sees what follows anyway")
        self.hidden_size = check_size("RNNEncoder", "hidden_size", hidden_size)
        self.layers = check_size("RNNEncoder", "layers", layers)
        self.direction, self.lag, self.cell = direction, lag, cell
        self.lookahead = lag
        self._set(observes, mask_input, read_in)

    def build(self, spec: DataSpec, heads: Mapping[str, View]) -> None:
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
        seen = onward(data)  # of a window, also what follows
        inputs = self.inputs(seen)
        lengths = seen.lengths if seen.padded else None
        if data.around is None or self.forwards is None:
            steps = run_ways(self.forwards, self.backwards, inputs, lengths)
        else:
            ahead = self._ahead(self.forwards, inputs, data)
            if self.backwards is None:
                steps = ahead
            else:
                behind = run_ways(None, self.backwards, inputs, lengths)
                steps = torch.cat([ahead, behind[:, : data.num_steps]], -1)
        if self.direction == "causal":
            if not self.lag:
                return Encoding(steps, inputs.new_ones(len(inputs), 1))
            delayed = self._delayed(steps, torch.arange(self.lag, self.lag + data.num_steps), seen)
            return Encoding(delayed, self._delayed(steps, torch.tensor([self.lag - 1]), seen)[:, 0])
        steps = steps[:, : data.num_steps]
        if self.direction == "backward":
            return Encoding(steps, steps[:, 0])
        # each direction where it has seen everything
        rows, last = torch.arange(len(steps), device=steps.device), (data.lengths - 1).clamp_min(0)
        return Encoding(steps, torch.cat([steps[rows, last, : self.hidden_size], steps[:, 0, self.hidden_size :]], -1))

    def _ahead(self, kernel: nn.RNNBase, inputs: Tensor, data: SequenceData) -> Tensor:
        """Return features of every step of a window from what came before it, the windows before this one included."""
        steps, before = data.num_steps, None if data.remembered is None else data.remembered["encoder"]
        outputs, last = self._go_on(kernel, inputs[:, :steps], before)
        data.remember("encoder", last)
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
        if self.reader is not None:
            raise ValueError("RNNEncoder: a read-in looks at whole sequences to see which heads are there")
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
        return Encoding(below.unsqueeze(1), below.new_ones(len(below), 1)), torch.stack(layers)

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


class StepEncoder(ReadingEncoder):
    """What each step shows by itself, through a network of its own: features of step t see y_t alone.

    With `GaussianChain`, which carries what is seen along time, this is all that a linear-Gaussian model needs; with
    other families a step is then inferred from itself. The summary is the mean over steps.

    Args:
        hidden_sizes: widths of hidden layers with tanh; none passes the inputs on as they are.
        observes: heads that it is shown; by default every per-step head of the model.
        mask_input: whether masks are an input; None decides by the data's spec (True where entries are missing).
        read_in: see `RNNEncoder`.

    Raises:
        ValueError: an unknown head, a per-sequence head, or a size below one.

    References:
        Johnson, Duvenaud, Wiltschko, Datta, Adams. Composing graphical models with neural networks for structured
        representations and fast inference. 2016.
    """

    continues = True

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (),
        *,
        observes: Sequence[str] | None = None,
        mask_input: bool | None = None,
        read_in: int | None = None,
    ) -> None:
        super().__init__()
        self.hidden_sizes = [check_size("StepEncoder", "hidden_sizes", size) for size in hidden_sizes]
        self._set(observes, mask_input, read_in)

    def build(self, spec: DataSpec, heads: Mapping[str, View]) -> None:
        sizes = [self._read(spec, heads), *self.hidden_sizes]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.Tanh()]
        self.network = nn.Sequential(*layers)
        self.step_size = self.summary_size = sizes[-1]

    def forward(self, data: SequenceData) -> Encoding:
        steps = self.network(self.inputs(data))
        total = torch.where(data.valid.unsqueeze(-1), steps, 0.0).sum(1)
        return Encoding(steps, total / data.lengths.clamp_min(1).unsqueeze(-1))
