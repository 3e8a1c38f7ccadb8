"""Readouts that look back: attention over states up to the present one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentrnn.data import DataSpec, SequenceData
from latentrnn.models.features import CovariateReader, Feature, listed
from latentrnn.models.readouts.dot_product import Asked, Attention
from latentrnn.models.readouts.readout import Readout, Surroundings, with_past
from latentrnn.support.arguments import check_size


class AttentionReadout(Readout):
    """eta_t = W h_t + U c_t + b, with c_t what attention found: the common part of all that attend."""

    along_time = True
    network_weights: ClassVar[tuple[str, ...]] = ("weight", "attended_weight")
    attention: Attention
    size: int

    def _build(self, hidden_size: int, asked: int, outputs: int, heads: int, asking: int | None = None) -> None:
        self.attention = Attention(hidden_size if asking is None else asking, asked, self.size, heads)
        self.weight = nn.Parameter(torch.zeros(outputs, hidden_size))
        self.attended_weight = nn.Parameter(torch.zeros(outputs, self.size))
        self.baseline = nn.Parameter(torch.zeros(outputs))

    def reset_parameters(self) -> None:
        """Draw small output weights from torch's global generator; the maps of the attention reset themselves."""
        with torch.no_grad():
            for weight in (self.weight, self.attended_weight):
                weight.normal_(0.0, 0.5 / weight.shape[-1] ** 0.5)
            self.baseline.zero_()

    def forward(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        return self._output(states, self.attention(self._asked(states, surroundings)))

    def weights(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        """Return alpha, (..., head, time, source time), of states (..., time, hidden_size); see `forward`."""
        return self.attention.weights(self._asked(states, surroundings))

    def _asked(self, states: Tensor, surroundings: Surroundings) -> Asked:
        """Return what the states ask: by default all states up to the present one."""
        return Asked(states, with_past(states, surroundings.past), causal=True)

    def _output(self, states: Tensor, attended: Tensor) -> Tensor:
        return F.linear(states, self.weight, self.baseline) + F.linear(attended, self.attended_weight)


class CausalAttention(AttentionReadout):
    """eta_t = W h_t + U c_t + b,  c_t = sum_{s<=t} alpha_ts V h_s,  alpha_t = softmax_s(q_t . k_s / sqrt(size/heads)).

    Queries q = Q h and keys k = K h; each head attends by itself and has its share of `size`. Where the model runs
    step by step, all earlier states are kept (by a particle filter those of every particle).

    Args:
        size: channels of queries, keys and values, all heads together.
        heads: attention heads, a divisor of `size`.

    Raises:
        ValueError: a size below one, or one that the heads do not divide.

    References:
        Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin. Attention is all you need. 2017.
    """

    memory = None

    def __init__(self, size: int = 32, *, heads: int = 1, **shared: Any) -> None:
        super().__init__(**shared)
        self.size, self.heads = check_heads("CausalAttention", size, heads)

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        self._build(hidden_size, hidden_size, outputs, self.heads)
        self.reset_parameters()

    def attention_weights(self, states: Tensor) -> Tensor:
        """Return alpha, (..., head, time, source time), of states (..., time, hidden_size)."""
        return self.weights(states)


class WindowedAttention(AttentionReadout):
    """As `CausalAttention`, over the last `window` states, with a learned bias of every lag in the softmax.

        alpha_t = softmax_{t-window<s<=t}(q_t . k_s / sqrt(size/heads) + r_{t-s})

    Its cost grows with time times window, not with time squared.

    Args:
        window: states it reads, the present one included.
        size: channels of queries, keys and values, all heads together.
        heads: attention heads, a divisor of `size`.

    Raises:
        ValueError: a size below one, or one that the heads do not divide.

    References:
        Luong, Pham, Manning. Effective approaches to attention-based neural machine translation (local
        attention). 2015.
        Shaw, Uszkoreit, Vaswani. Self-attention with relative position representations. 2018.
    """

    def __init__(self, window: int, size: int = 32, *, heads: int = 1, **shared: Any) -> None:
        super().__init__(**shared)
        self.window = check_size("WindowedAttention", "window", window)
        self.size, self.heads = check_heads("WindowedAttention", size, heads)
        self.memory = self.window - 1

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        self._build(hidden_size, hidden_size, outputs, self.heads)
        self.lag_bias = nn.Parameter(torch.zeros(self.heads, self.window))  # the oldest lag first
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Treat all lags alike; draw small output weights from torch's global generator."""
        super().reset_parameters()
        with torch.no_grad():
            self.lag_bias.zero_()

    def forward(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        together = with_past(states, surroundings.past)
        alpha = self._alpha(states, together)
        values = self._windows(self.attention.value(together), states.shape[-2])
        return self._output(states, self.attention.join(torch.einsum("...htw,...htcw->...htc", alpha, values)))

    def weights(self, states: Tensor, surroundings: Surroundings = Surroundings()) -> Tensor:  # noqa: B008 - immutable
        together = with_past(states, surroundings.past)
        alpha = self._alpha(states, together)
        known, time = together.shape[-2], states.shape[-2]
        place = torch.arange(known - time, known, device=states.device)[:, None] + torch.arange(
            self.window, device=states.device
        )  # from window - 1 steps before the first state on
        padded = alpha.new_zeros(*alpha.shape[:-1], known + self.window - 1)
        return padded.scatter(-1, place.expand_as(alpha), alpha)[..., self.window - 1 :]

    def _alpha(self, states: Tensor, together: Tensor) -> Tensor:
        """Return the weights of each window, (..., head, time, window), the oldest state first."""
        known, time = together.shape[-2], states.shape[-2]
        attention = self.attention
        # one window per step, all within [start of the recording - window, t]: (..., head, time, channel, window)
        keys = self._windows(attention.key(together), time)
        scores = torch.einsum("...htc,...htcw->...htw", attention.split(attention.query(states)), keys)
        scores = scores / math.sqrt(self.size // self.heads) + self.lag_bias.unsqueeze(-2)
        step = torch.arange(known - time, known, device=states.device)
        lag = torch.arange(self.window - 1, -1, -1, device=states.device)
        return scores.masked_fill(step[:, None] < lag, -math.inf).softmax(-1)  # nothing before the first state

    def _windows(self, together: Tensor, time: int) -> Tensor:
        padded = F.pad(self.attention.split(together), (0, 0, self.window - 1, 0))
        return padded[..., -(time + self.window - 1) :, :].unfold(-2, self.window, 1)


class ModulatedAttention(AttentionReadout):
    """As `CausalAttention`, with queries that a context (who speaks, which task) scales and shifts.

        q_t = (1 + G x_t) * (Q h_t) + D x_t

    So the same state asks the past differently for another speaker or task.

    Args:
        by: the context: covariates (names or features such as `OneHot`).
        size: channels of queries, keys and values, all heads together.
        heads: attention heads, a divisor of `size`.

    Raises:
        ValueError: a size below one, or one that the heads do not divide, or no context.

    References:
        Perez, Strub, de Vries, Dumoulin, Courville. FiLM: visual reasoning with a general conditioning layer. 2018.
        Majumder, Poria, Hazarika, Mihalcea, Gelbukh, Cambria. DialogueRNN: an attentive RNN for emotion detection in
        conversations. 2019.
    """

    memory = None
    network_weights = ("weight", "attended_weight", "scale_weight", "shift_weight")

    def __init__(
        self, by: str | Feature | Sequence[str | Feature], size: int = 32, *, heads: int = 1, **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.by = listed("ModulatedAttention", "by", by)
        self.size, self.heads = check_heads("ModulatedAttention", size, heads)

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        self.reader = CovariateReader("ModulatedAttention", self.by, spec)
        self._build(hidden_size, hidden_size, outputs, self.heads)
        self.scale_weight = nn.Parameter(torch.zeros(self.size, self.reader.size))
        self.shift_weight = nn.Parameter(torch.zeros(self.size, self.reader.size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw small weights of the context and of the output from torch's global generator."""
        super().reset_parameters()
        with torch.no_grad():
            for weight in (self.scale_weight, self.shift_weight):
                weight.normal_(0.0, 0.1 / weight.shape[-1] ** 0.5)

    def surroundings(self, data: SequenceData) -> Surroundings:
        return Surroundings(context=self.reader(data))

    def _asked(self, states: Tensor, surroundings: Surroundings) -> Asked:
        x = surroundings.context
        assert x is not None
        scale, shift = 1 + F.linear(x, self.scale_weight), F.linear(x, self.shift_weight)
        return super()._asked(states, surroundings)._replace(scale=scale, shift=shift)


def check_heads(owner: str, size: int, heads: int) -> tuple[int, int]:
    """Return `size` and `heads`.

    Raises:
        ValueError: one is not a positive integer, or the heads do not divide the size.
    """
    size, heads = check_size(owner, "size", size), check_size(owner, "heads", heads)
    if size % heads:
        raise ValueError(f"{owner}: heads must divide size; found size={size} and heads={heads}")
    return size, heads
