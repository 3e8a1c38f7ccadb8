"""A readout in which one recurrent stream asks another's past."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from latentrnn.data import DataSpec
from latentrnn.models.readouts.attention import AttentionReadout, check_heads
from latentrnn.models.readouts.dot_product import Asked
from latentrnn.models.readouts.readout import Surroundings, with_past
from latentrnn.support.arguments import check_text


class CrossAttention(AttentionReadout):
    """eta_t = W h_t + U c_t + b,  c_t = sum_{s<=t} alpha_ts V h^asked_s: one stream asks another's past.

        alpha_t = softmax_s(q_t . k_s / sqrt(size/heads))

    Queries q_t = Q h^asking_t are the states of one stream of a `Streams` transition, keys k_s = K h^asked_s and
    values those of another, now and earlier. W sees all streams, so that both are read out. The mechanism of
    `CausalAttention` otherwise.

    Args:
        asking: name of the stream that asks.
        asked: name of the stream whose past is attended to.
        size: channels of queries, keys and values, all heads together.
        heads: attention heads, a divisor of `size`.

    Raises:
        ValueError: a size below one, or one that the heads do not divide; when the model is put together, a stream
            that its states do not have.

    References:
        Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov. Multimodal transformer for unaligned multimodal language
        sequences. 2019.
    """

    memory = None

    def __init__(self, asking: str, asked: str, size: int = 32, *, heads: int = 1, **shared: Any) -> None:
        super().__init__(**shared)
        self.asking = check_text("CrossAttention", "asking", asking)
        self.asked = check_text("CrossAttention", "asked", asked)
        self.size, self.heads = check_heads("CrossAttention", size, heads)

    def build(self, hidden_size: int, outputs: int, spec: DataSpec) -> None:
        for argument, name in (("asking", self.asking), ("asked", self.asked)):
            if name not in self.parts:
                raise ValueError(
                    f"CrossAttention: {argument} names unknown stream {name!r}; the states have "
                    f"{sorted(self.parts) or 'no streams, as a Streams transition would give them'}"
                )
        self._query, self._source = self.parts[self.asking], self.parts[self.asked]
        asking, asked = (part.stop - part.start for part in (self._query, self._source))
        self._build(hidden_size, asked, outputs, self.heads, asking=asking)
        self.reset_parameters()

    def _asked(self, states: Tensor, surroundings: Surroundings) -> Asked:
        source = with_past(states, surroundings.past)[..., self._source]
        return Asked(states[..., self._query], source, causal=True)

    def attention_weights(self, states: Tensor) -> Tensor:
        """Return alpha, (..., head, time, source time), of states (..., time, hidden_size)."""
        return self.weights(states)
