"""Every sequence weighs the same: over a pass, the steps' gradients average to the gradient of the whole.

Weights stay where they are while the gradients of the steps are noted, so that what is compared is one function. Draws
are replaced by a function of the sequences themselves, so that they do not depend on the batches.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import latentrnn as lr
from latentrnn.inference.fitting.batches.batches import Batches
from latentrnn.inference.fitting.distributed.processes import ProcessGroup
from latentrnn.inference.objectives.objective import Evaluation

# -- a fit that only looks -----------------------------------------------------------------------------------------


class Still(torch.optim.Optimizer):
    """Notes the gradient of every step, and moves nothing."""

    def __init__(self, weights: Any, seen: list[Tensor]) -> None:
        super().__init__(list(weights), {"lr": 1.0})
        self.seen = seen

    def step(self, closure: Any = None) -> None:
        weights = [p for group in self.param_groups for p in group["params"]]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        self.seen.append(torch.cat([part.reshape(-1) for part in parts]).clone())


@dataclass(frozen=True)
class Looking(lr.Adam):
    clip_norm: float = 1e30
    seen: list[Tensor] = field(default_factory=list)

    def build(self, weights: Any, exempt: Any = ()) -> torch.optim.Optimizer:
        return Still(weights, self.seen)


class Replayed(TorchFunctionMode):
    """Normal draws are zero, uniform ones a function of what they are drawn for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        standard = func is Tensor.normal_ and len(args) == 1  # how torch draws a Normal; initial weights name a scale
        if standard or func in (torch.normal, torch.randn, torch.randn_like):
            return torch.zeros_like(func(*args, **(kwargs or {})))
        if func is torch.rand_like:
            return (args[0] * 0.6180339887 + 0.25).frac()
        return func(*args, **(kwargs or {}))


def windows_of(steps: int) -> lr.Compute:
    return lr.Compute("cpu", window=lr.Window(steps))


def looked_at(model: Any, guide: Any, data: Any, steps: int, **settings: Any) -> tuple[Tensor, lr.FitResult]:
    """Gradients, (step, weight), and what a fit of so many steps reports."""
    optimizer = Looking()
    given = {
        "optimizer": optimizer,
        "objective": dataclasses.replace(settings.pop("objective", lr.ELBO()), kl=lr.KLWarmUp(0.0)),
        "reporting": lr.Reporting(every=1, progress=False),
        "compute": lr.Compute(device="cpu"),
    }
    with Replayed():
        result = lr.fit(model, guide, data, steps=steps, **(given | settings))
    return torch.stack(optimizer.seen), result


def assert_weighs_alike(model: Any, guide: Any, data: Any, steps: int, whole: Any = None, **settings: Any) -> None:
    """Over a pass of so many steps, gradients and reported terms average to those of all sequences at once."""
    shared = {name: value for name, value in settings.items() if name not in ("batch_size", "window")}
    expected, reported = looked_at(model, guide, data if whole is None else whole, 1, batch_size=10**6, **shared)
    assert expected.abs().max() > 1e-6
    assert steps > 1
    for passes in (1, 2):
        found, result = looked_at(model, guide, data, passes * steps, **settings)
        torch.testing.assert_close(found.mean(0), expected[0], rtol=1e-9, atol=1e-12)
        for name, values in reported.history.items():
            if name not in ("step", "learning_rate"):
                assert np.mean(result.history[name]) == pytest.approx(values[0], rel=1e-9, abs=1e-12), name


# -- what is fitted ------------------------------------------------------------------------------------------------

LENGTHS = {
    "one longest": [5] * 32 + [9],
    "all different": list(range(2, 15)),
    "alike": [6] * 10,
    "two kinds": [30, 3] * 5 + [3],
    "prime": [4, 9, 4, 7, 7, 12, 1],
}


def make_data(lengths: list[int], seed: int = 0) -> lr.SequenceData:
    return lr.SequenceData.from_arrays(*arrays(lengths, seed), dt=0.01, dtype=torch.float64)


def arrays(lengths: list[int], seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    drive = [rng.normal(size=(n, 1)) for n in lengths]
    # what a sequence is like depends on its length, which also decides its batch
    return {"y": [rng.poisson(1 + n / 5, (n, 2)) for n in lengths]}, {"drive": drive}


def deterministic(data: Any, **settings: Any) -> Any:
    model = lr.LatentRNN(
        data.spec, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": lr.Poisson()}, **settings
    )
    return model, lr.Guide(model)


def with_latents(data: Any, head: Any = None, **settings: Any) -> Any:
    heads = {"y": lr.Poisson() if head is None else head}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2, initial=2), observations=heads)
    return model, lr.Guide(model, encoder=lr.RNNEncoder(3), **settings)


def with_network_prior(data: Any, **settings: Any) -> Any:
    priors = {"weights": lr.NetworkPrior()}
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3, priors=priors),
        latent=lr.Innovations(2, initial=2),
        observations={"y": lr.Poisson(priors=priors)},
    )
    return model, lr.Guide(model, encoder=lr.RNNEncoder(3), **settings)


def cases() -> Iterator[Any]:
    for number, (name, lengths) in enumerate(LENGTHS.items()):
        sizes = [1, 2, 3, 5, 8, len(lengths) - 1]
        for size in sorted({min(sizes[at % 6], len(lengths) - 1) for at in (number, number + 3, 5)}):
            yield pytest.param(lengths, size, id=f"{name}, batches of {size}")


@pytest.mark.parametrize(("lengths", "size"), list(cases()))
def test_batches(lengths: list[int], size: int) -> None:
    data = make_data(lengths)
    assert_weighs_alike(*deterministic(data), data, -(-len(lengths) // size), batch_size=size)


KINDS: dict[str, Callable[[Any], tuple[Any, dict[str, Any]]]] = {
    "closed forms": lambda data: (with_latents(data), {}),
    "a posterior of parameters": lambda data: (
        with_latents(data, lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})),
        {},
    ),
    "a posterior of a network's weights": lambda data: (with_network_prior(data), {}),
    "one that correlates": lambda data: (with_network_prior(data, global_family="low_rank", global_rank=2), {}),
    "particles": lambda data: (with_latents(data), {"objective": lr.ELBO(num_particles=3)}),
    "IWAE": lambda data: (with_latents(data), {"objective": lr.IWAE(num_particles=3)}),
    "Renyi": lambda data: (with_latents(data), {"objective": lr.Renyi(0.3, num_particles=3)}),
    "free bits": lambda data: (with_latents(data), {"objective": lr.ELBO(free_bits=0.02)}),
    "sticking the landing": lambda data: (with_latents(data), {"objective": lr.ELBO(sticking_the_landing=True)}),
    "coordinated dropout": lambda data: (with_latents(data), {"objective": lr.ELBO(coordinated_dropout=0.3)}),
    "weights of heads": lambda data: (with_latents(data), {"objective": lr.ELBO(head_weights={"y": 3.0})}),
    "a family over time": lambda data: (with_latents(data, family=lr.Markov(3)), {}),
    "a number for every sequence": lambda data: (with_latents(data), {}),
    "a law that rates should keep": lambda data: (
        deterministic(data, couplings=[lr.PhysicalPenalty(small_rates, weight=0.7)]),
        {},
    ),
}


def small_rates(means: Any, data: Any) -> Tensor:
    return (means["y"][..., 0] - 1.0) ** 2


@pytest.mark.parametrize("kind", KINDS)
def test_objectives_and_everything_else_in_the_loss(kind: str) -> None:
    data = make_data(LENGTHS["prime"])
    (model, guide), settings = KINDS[kind](data)
    if kind == "a number for every sequence":
        guide = lr.Guide(model, family=lr.PerSequence(lr.MeanField()))
    assert_weighs_alike(model, guide, data, 3, batch_size=3, **settings)


def test_context_is_not_scored_and_weighs_nothing() -> None:
    data = make_data([n + 8 for n in LENGTHS["all different"]])
    later = data.split(0.5, 0.3, 0.2, along="time", context=2)[1]
    assert later.host_context.max() > 0
    assert_weighs_alike(*deterministic(later), later, 4, batch_size=4)


def test_sessions() -> None:
    parts = {name: make_data(LENGTHS[name], seed) for seed, name in enumerate(["prime", "alike"])}
    data = lr.SequenceData.join(parts)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Innovations(2),
        observations=lr.per_session(data.spec, {"y": lr.Poisson()}),
    )
    assert_weighs_alike(model, lr.Guide(model, encoder=lr.RNNEncoder(3, read_in=2)), data, 4, batch_size=5)


@pytest.mark.parametrize("stored", [False, True])
def test_parts_of_a_stratified_split(stored: bool) -> None:
    """Strata decide which part a sequence goes to, and nothing after that: a part is a whole of its own."""
    lengths = LENGTHS["two kinds"]
    kind = lr.StoredSequences if stored else lr.SequenceData
    data: Any = kind.from_arrays(*arrays(lengths), dt=0.01, dtype=torch.float64)
    train = data.split(0.6, 0.2, 0.2, seed=0, stratify=[n > 10 for n in lengths])[0]
    assert sorted(set(train.host_lengths)) == [3, 30]
    whole = train.load() if stored else train
    assert_weighs_alike(*deterministic(train), train, 3, whole=whole, batch_size=len(train) // 3 + 1)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_stored_data(size: int) -> None:
    lengths = LENGTHS["prime"]
    stored = lr.StoredSequences.from_arrays(*arrays(lengths), dt=0.01, dtype=torch.float64)
    assert_weighs_alike(*with_latents(stored), stored, -(-7 // size), whole=make_data(lengths), batch_size=size)


# -- windows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("name", "size", "window"), [
    ("two kinds", 11, 10), ("two kinds", 3, 10), ("two kinds", 1, 7), ("all different", 4, 5), ("one longest", 32, 4),
])  # fmt: skip
def test_windows(name: str, size: int, window: int, stored: bool) -> None:
    """The reported terms average to the whole's, and so do gradients that no state carries on to other windows."""
    lengths = LENGTHS[name]
    data = make_data(lengths)
    given = lr.StoredSequences.from_arrays(*arrays(lengths), dt=0.01, dtype=torch.float64) if stored else data
    model, guide = deterministic(data)
    expected, reported = looked_at(model, guide, data, 1, batch_size=10**6)
    steps = steps_of_a_pass(data, size, window)
    found, result = looked_at(model, guide, given, steps, batch_size=size, compute=windows_of(window))
    for term in ("elbo", "log_likelihood/y"):
        assert np.mean(result.history[term]) == pytest.approx(reported.history[term][0], rel=1e-9)
    places = baselines(model)
    torch.testing.assert_close(found.mean(0)[places], expected[0][places], rtol=1e-9, atol=1e-12)
    assert expected[0][places].abs().max() > 1e-3


def steps_of_a_pass(data: lr.SequenceData, size: int, window: int) -> int:
    """Sorted by length, as a pass of few batches is, and windows of every batch."""
    count = -(-len(data) // size)
    batches = np.array_split(np.sort(data.host_lengths), count)
    return sum(-(-int(batch.max()) // window) for batch in batches)


def baselines(model: Any) -> list[int]:
    """Where the head's baseline, whose gradient takes no detour, lies among the weights as the optimiser has them."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    start = 0
    for parameter in [*matrices, *vectors]:
        if parameter is model.observations["y"].readout.baseline:
            return list(range(start, start + parameter.numel()))
        start += parameter.numel()
    raise AssertionError("no baseline")


# -- clipping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 12])
def test_clipping_meets_the_same_scale_in_windows(size: int) -> None:
    """Long and short sequences of one kind: the gradient of every window is that of the whole."""
    data = lr.SequenceData.from_arrays({"y": [np.full((n, 1), 3.0) for n in [96] * 4 + [12] * 8]}, dtype=torch.float64)
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.Deterministic(), observations={"y": lr.Poisson()}
    )
    guide = lr.Guide(model)
    expected = settled(model, guide, data, 1, batch_size=64)[0].norm()
    found = settled(model, guide, data, steps_of_a_pass(data, size, 12), batch_size=size, compute=windows_of(12))[0]
    ratios = found.norm(dim=1) / expected
    if size == 12:  # short sequences end in the first window of all
        assert float(ratios.max()) == pytest.approx(8 * 12 * 12 / (4 * 96 + 8 * 12), rel=1e-9)
    else:
        torch.testing.assert_close(ratios, torch.ones_like(ratios), rtol=1e-9, atol=0.0)


def settled(model: Any, guide: Any, data: Any, steps: int, **settings: Any) -> tuple[Tensor, lr.FitResult]:
    """Gradients where the state is zero at all times, so that all steps are alike."""
    start = lr.fit(
        model, guide, data, steps=1, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    with torch.no_grad():
        for parameter in start.model.transition.parameters():
            parameter.zero_()
        start.model.observations["y"].readout.baseline.zero_()  # not at the best, where the gradient would vanish
    return looked_at(model, guide, data, steps, start_from=start, **settings)


def test_clipping_meets_the_same_scale_in_uneven_batches() -> None:
    data = lr.SequenceData.from_arrays({"y": [np.full((6, 1), 3.0)] * 65}, dtype=torch.float64)
    model, guide = deterministic(data)
    whole = looked_at(model, guide, data, 1, batch_size=65)[0].norm()
    norms = looked_at(model, guide, data, 2, batch_size=64)[0].norm(dim=1)
    assert sorted((norms / whole).tolist()) == pytest.approx([64 / 65, 66 / 65], rel=1e-9)


# -- several processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7])
def test_shares_of_processes_add_up(size: int) -> None:
    """What two processes add up to, each with its share of every batch and the weight of the share."""
    data = make_data(LENGTHS["prime"])
    model, guide = with_latents(data, lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)}))
    model.double(), guide.double()

    def loss(batch: lr.SequenceData) -> Tensor:
        with Replayed():
            return lr.ELBO(free_bits=0.02).step(Evaluation(model, guide, batch)).surrogate

    with torch.no_grad():
        expected, total = float(loss(data)), 0.0
        for rank in (0, 1):
            group = member(rank)
            batches = Batches(data, size, torch.Generator().manual_seed(0), group)
            for _ in range(-(-7 // size)):
                batch = batches.next()
                total += float(loss(batch)) * group.share_of(batch).weight / -(-7 // size)
    assert total == pytest.approx(expected, rel=1e-12)


def test_windows_are_refused_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a window hands on belongs to the process that had it: rather an error than weights that do not add up."""
    monkeypatch.setattr("latentrnn.inference.fitting.fit.launched_processes", lambda device, processes: member(0))
    monkeypatch.setattr(ProcessGroup, "place", lambda self, device: device)
    data = make_data(LENGTHS["prime"])
    with pytest.raises(ValueError, match=r'a window is for a fit by one process; give Compute\(processes="alone"\)'):
        looked_at(*deterministic(data), data, 2, compute=windows_of(4))


def member(rank: int) -> ProcessGroup:
    """One of two processes, which never meets the other."""
    group = object.__new__(ProcessGroup)
    group.rank, group.size, group._shares = rank, 2, WeakKeyDictionary()
    return group


# -- going through data by hand ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 100])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_of_ones_own_average_to_the_whole(size: int, shuffled: bool) -> None:
    data = make_data(LENGTHS["prime"])
    model, guide = deterministic(data)
    model.double(), guide.double()
    generator = torch.Generator().manual_seed(1) if shuffled else None
    with torch.no_grad():
        parts = [float(lr.elbo_terms(model, guide, batch).elbo()) for batch in data.batches(size, generator=generator)]
        assert np.mean(parts) == pytest.approx(float(lr.elbo_terms(model, guide, data).elbo()), rel=1e-12)
    sizes = [len(batch) for batch in data.batches(size, generator=generator)]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-7 // size)


def test_weights_of_batches_that_are_not_the_pass_s_are_noticed() -> None:
    """The control: with the scale that a batch alone would have, the average is another one."""
    data = make_data(LENGTHS["one longest"])
    model, guide = deterministic(data)
    model.double(), guide.double()
    with torch.no_grad():
        whole = float(lr.elbo_terms(model, guide, data).elbo())
        cut = [torch.arange(32), torch.tensor([32])]
        alone = np.mean([float(lr.elbo_terms(model, guide, data.batch(at)).elbo()) for at in cut])
        alike = np.mean([float(lr.elbo_terms(model, guide, data.batch(at, total=2 * len(at))).elbo()) for at in cut])
    assert alike == pytest.approx(whole, rel=1e-12)
    assert abs(alone / whole - 1) > 0.3


# -- what comes of it ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("window", "size"), [(None, 64), (lr.Window(10), 65), (lr.Window(10), 16)])
def test_a_long_sequence_of_another_kind_does_not_pull(window: lr.Window | None, size: int) -> None:
    """64 sequences at rate 1 and a longer one at rate 4: the rate of a model without structure is the pooled one."""
    rng = np.random.default_rng(0)
    counts = [rng.poisson(1.0, (20, 1)) for _ in range(64)] + [rng.poisson(4.0, (25, 1))]
    data = lr.SequenceData.from_arrays({"y": counts})
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.Deterministic(), observations={"y": lr.Poisson()}
    )
    result = lr.fit(
        model,
        lr.Guide(model),
        data,
        batch_size=size,
        steps=600,
        compute=lr.Compute(window=window, device="cpu"),
        reporting=lr.Reporting(progress=False),
    )
    rate = float(result.posterior(data, device="cpu").mean("y")[:, -5:].nanmean())
    assert rate == pytest.approx(float(np.concatenate(counts).mean()), rel=0.03)


@pytest.mark.parametrize("size", [4, 16])
def test_windows_that_differ_in_kind_are_heard_in_their_measure(size: int) -> None:
    """Short sequences at another rate are in few windows, whose gradients are large: clipping must not mute them."""
    rng = np.random.default_rng(0)
    counts = [rng.poisson(1.0, (90, 1)) for _ in range(8)] + [rng.poisson(4.0, (10, 1)) for _ in range(8)]
    data = lr.SequenceData.from_arrays({"y": counts})
    model = lr.LatentRNN(
        data.spec, transition=lr.Linear(1), latent=lr.Deterministic(), observations={"y": lr.Poisson()}
    )

    def rate(clip_norm: float) -> float:
        result = lr.fit(
            model,
            lr.Guide(model),
            data,
            steps=900,
            batch_size=size,
            optimizer=lr.AdamW(0.003, clip_norm=clip_norm),
            compute=lr.Compute(window=lr.Window(10), device="cpu"),
            reporting=lr.Reporting(progress=False),
        )
        return float(result.posterior(data, device="cpu").mean("y")[:, -5:].nanmean())

    pooled, unclipped = float(np.concatenate(counts).mean()), rate(math.inf)
    assert rate(1.0) == pytest.approx(unclipped, rel=0.04)
    steps = {4: 5, 16: 9}[size]  # windows of a batch
    assert rate(1.0 / steps) < 0.9 * min(unclipped, pooled)  # negative control: every window held to a norm of one
