"""A step by the guide alone: what a causal encoder and a family's moments say, without particles and densities."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from latentrnn.data import SequenceData
from latentrnn.inference.online.filtered_state import FilteredStates
from latentrnn.inference.online.followed import Followed
from latentrnn.inference.online.memory import Memory
from latentrnn.inference.online.repeated import RepeatedStep, repeatable
from latentrnn.models.latents import Carry


class ByGuide:
    """Steps by the guide alone, recorded and repeated where they do nothing but torch's operations."""

    def __init__(self, followed: Followed) -> None:
        self.followed = followed
        self.repeated = RepeatedStep(repeats=repeatable(followed.model, followed.guide))

    def step(
        self, number: int, data: SequenceData, memory: Memory, names: tuple[str, ...]
    ) -> tuple[Memory, FilteredStates]:
        """Return what is remembered of a step, and what is known after it."""
        due, carry = self.followed.heads_due(number), memory.carry
        remembered = {"encoded": memory.encoded, "chain": memory.chain, **memory.histories}
        if carry is not None:
            remembered |= {"state": carry.state, "innovation": carry.innovation}
        given = {name: value for name, value in remembered.items() if value is not None}
        times = () if data.times is None else (data.times,)
        buffers = (data.observations, data.masks, data.covariates, data.totals)
        tensors = [*(value for each in buffers for value in each.values()), *times, *given.values()]

        def told(*tensors: Tensor) -> tuple[Any, ...]:
            return self._told(data, due, dict(zip(given, tensors[len(tensors) - len(given) :], strict=True)))

        # of the stream's windows there are few, each in a place of its own
        kind = id(data), tuple(due), tuple(given)
        state, innovation, encoded, chain, histories, hidden, values, spread, weights, rates = self.repeated(
            kind, told, tensors
        )
        memory = memory._replace(carry=Carry(state, innovation), encoded=encoded, chain=chain, histories=histories)
        drawn = weights if self.followed.draws else None
        return memory, FilteredStates(
            number, names, values, hidden, weights, rates, {}, None, None, spread, drawn, predictions=None
        )

    def _told(self, data: SequenceData, due: list[str], given: dict[str, Tensor]) -> tuple[Any, ...]:
        """Return what is remembered of a step, and what the guide tells of it, given what was remembered."""
        followed = self.followed
        shape, latent, transition = followed.shape, followed.model.latent, followed.model.transition
        encoded, chain = given.get("encoded"), given.get("chain")
        histories = {name: given[name] for name in followed.feedback_heads}
        carry = Carry(given["state"], given.get("innovation")) if "state" in given else None
        now, filtered = followed.now(data, histories), None
        if followed.guided:
            numbers, encoded = followed.variational_parameters(data, encoded)
            filtered = followed.guide.local.filtered(numbers, chain)
            chain = filtered.memory
        if carry is None:
            priors = latent.start_prior(shape)
            starts = filtered.starts if filtered else {name: prior.mean for name, prior in priors.items()}
            carry = latent.begin_with(shape, {k: v.expand(*shape, -1) for k, v in starts.items()})
        mean = None if filtered is None else filtered.mean.expand(*shape, -1)
        carry = latent.step(transition, carry, now.inputs, now.gap).move(mean)
        hidden = latent.output(transition, carry)
        rates = {}
        for name in due:
            expected = followed.double_heads[name].mean(followed.distribution(name, now, hidden, None))
            expected = expected.expand(*shape, *expected.shape[3:])[:, 0, :, 0]
            rates[name] = (expected.mean(0) if followed.draws else expected[0]).to(hidden.dtype)
        values, spread = (None, None) if filtered is None else (filtered.mean.unsqueeze(1), filtered.covariance)
        if followed.draws and values is not None:
            values = values.expand(-1, shape[0], -1)
        weights = hidden.new_full((shape[2], shape[0]), 1 / shape[0])
        histories = followed.with_newest(histories, data)
        told = hidden[:, 0].transpose(0, 1), values, spread, weights, rates
        return carry.state, carry.innovation, encoded, chain, histories, *told
