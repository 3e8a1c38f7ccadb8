"""What a fit returns travels by pickle and copy, and does not mind the caller's modes of torch, nor the data's type."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import torch.utils.data

import latentrnn as lr
from latentrnn.inference.sampling.ensemble import stacking_weights
from latentrnn.support.isolation import isolation

COUNTS = np.random.default_rng(0).poisson(0.7, (5, 8, 2))


def recording(dtype: torch.dtype = torch.float32, steps: int = 8) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"s": COUNTS[:, :steps]}, dtype=dtype)


@cache
def result() -> lr.FitResult:
    data = recording()
    heads = {"s": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(1), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3))
    return lr.fit(model, guide, data, steps=2, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu"))


def posterior(data: lr.SequenceData | None = None) -> lr.Posterior:
    return result().posterior(recording() if data is None else data, device="cpu")


def mixture() -> lr.EnsemblePosterior:
    return lr.EnsemblePosterior([posterior(), posterior().reseeded(1)], torch.tensor([0.5, 0.5], dtype=torch.float64))


def filtered() -> lr.OnlineFilter:
    found = lr.OnlineFilter(posterior(), num_particles=8)
    for counts in ([1, 0], [0, 0], [2, 1]):
        found.update({"s": counts})
    return found


TRIPS: dict[str, Callable[[Any], Any]] = {"pickle": lambda it: pickle.loads(pickle.dumps(it)), "copy": copy.deepcopy}
LATER = np.ones((5, 2, 2))
TRAVELLERS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "posterior": (posterior, lambda it: it.forecast(2, num_samples=3).samples["s"].sum()),
    "result": (result, lambda it: it.posterior(recording(), device="cpu").mean("s", 3).sum()),
    "forecast": (lambda: posterior().forecast(2, num_samples=3), lambda it: it.log_score("s", LATER).sum()),
    "evidence": (lambda: posterior().evidence("iwae", 4), lambda it: it.total),
    "one step ahead": (lambda: posterior().one_step_ahead("s", 4, num_draws=2), lambda it: it.total),
    "ensemble": (lambda: mixture(), lambda it: it.forecast(2, num_samples=6).samples["s"].sum()),
    "filter after updates": (lambda: filtered(), lambda it: it.update({"s": [0, 2]}).log_prob),
    "filter": (lambda: lr.OnlineFilter(posterior(), num_particles=8), lambda it: it.update({"s": [1, 0]}).log_prob),
}


@pytest.mark.parametrize("trip", TRIPS)
@pytest.mark.parametrize("name", TRAVELLERS)
def test_after_a_trip_the_numbers_are_the_same(name: str, trip: str) -> None:
    make, ask = TRAVELLERS[name]
    thing, expected = make(), ask(make())
    if not name.startswith("filter"):  # whose every answer moves it on
        assert ask(thing) == expected
    assert ask(TRIPS[trip](thing)) == expected


# -- to other processes ----------------------------------------------------------------------------------------------


def total(of: lr.Posterior) -> float:
    return of.evidence("iwae", 4).total


def drawn(of: lr.Posterior) -> torch.Tensor:
    return of.mean("s", 3)


def next_step(of: lr.OnlineFilter) -> float:
    return float(of.update({"s": [0, 2]}).log_prob or 0.0)


def itself(of: Any) -> Any:
    return of


# what starts workers by forking warns in newer versions of Python, where other threads run
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_worker_of_a_pool_gives_the_same_answers(start: str) -> None:
    here = posterior()
    here.forecast(2, num_samples=3)  # it has been used
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(1, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def there(function: Callable[[Any], Any], of: Any) -> Any:
            return pool.submit(function, of).result(timeout=100)

        assert there(total, here) == total(here)
        assert torch.equal(there(drawn, here), drawn(here))
        assert there(total, mixture()) == total(mixture())
        assert there(next_step, filtered()) == next_step(filtered())
        back = there(itself, here)  # there and back
        assert total(back) == total(here)
        assert total(there(itself, result()).posterior(recording(), device="cpu")) == total(here)
        assert back.data.keys == here.data.keys
    assert total(here) == total(posterior())


class Answers(torch.utils.data.Dataset):
    """What a posterior says of one sequence after another, and the sequence."""

    def __init__(self, of: lr.Posterior) -> None:
        self.of = of

    def __len__(self) -> int:
        return len(self.of.data)

    def __getitem__(self, index: int) -> tuple[lr.SequenceData, torch.Tensor]:
        part = self.of.data[index]
        return part, result().posterior(part, device="cpu").mean("s", 3)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_worker_of_a_data_loader_gives_the_same_answers() -> None:
    here = posterior()
    loader = torch.utils.data.DataLoader(Answers(here), batch_size=None, num_workers=1)
    found = list(loader)
    assert len(found) == len(here.data)
    for index, (part, mean) in enumerate(found):
        expected = result().posterior(here.data[index], device="cpu").mean("s", 3)
        assert torch.equal(mean, expected)
        assert torch.equal(result().posterior(part, device="cpu").mean("s", 3), expected)
        assert part.keys == here.data[index].keys


@contextmanager
def default_device() -> Any:
    before = torch.get_default_device()
    torch.set_default_device("meta")  # stands in for one that the machine may lack
    try:
        yield
    finally:
        torch.set_default_device(None if before.type == "cpu" else before)


@contextmanager
def default_dtype() -> Any:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": default_device,
    "default dtype": default_dtype,
}
CALLS: dict[str, Callable[[], float]] = {
    "fit": lambda: refit().history["elbo"][-1],
    "refined": lambda: float(posterior().refined(2).mean("s", 3).sum()),
    "annealing": lambda: posterior().evidence(lr.AIS(temperatures=2, leapfrog=1), 2).total,
    "laplace": lambda: float(lr.laplace(result().model, recording(), given=result(), num_particles=4).best_step),
    "forecast": lambda: float(posterior().forecast(2, num_samples=3).samples["s"].sum()),
    "sample": lambda: chains(),
    "diagnose": lambda: float(diagnosed().kl["innovations"].sum()),
    "ensemble": lambda: members(),
    "one step ahead": lambda: posterior().one_step_ahead("s", 4, num_draws=2).total,
    "scores": lambda: scores(posterior().forecast(2, num_samples=3)),
    "time rescaling": lambda: float(lr.time_rescaling(posterior().one_step_ahead("s", 4)).rescaled[0].sum()),
    "stacking": lambda: float(stacking_weights(torch.tensor([[-1.0, -2.0], [-2.0, -1.5]], device="cpu"))[0]),
}


def scores(found: lr.Forecast) -> float:
    parts = found.quantiles("s"), found.crps("s", LATER), found.coverage("s", LATER)
    return float(sum(part.sum() for part in parts))


def chains() -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # too few draws to mix
        found = lr.sample(
            result().model, recording(), given=result(), sites="parameters", num_particles=2, num_samples=2, warmup=1,
            chains=1, max_tree_depth=1, progress=False, device="cpu",
        )  # fmt: skip
    return float(found.parameters(2)["s.readout.baseline"].sum())


def diagnosed() -> lr.Diagnosis:
    few = lr.AIS(temperatures=2, leapfrog=1)
    return posterior().diagnose(25, num_sequences=2, annealing=few, refinement_steps=2)


def members() -> float:
    found = lr.fit_ensemble(
        result().model,
        result().guide,
        recording(),
        seeds=(0, 1),
        steps=2,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )
    return float(found.posterior(recording(), device="cpu").mean("s", 2).sum())


def refit() -> lr.FitResult:
    return lr.fit(
        result().model,
        result().guide,
        recording(),
        steps=2,
        reporting=lr.Reporting(progress=False),
        compute=lr.Compute(device="cpu"),
    )


@cache
def expected(call: str) -> float:
    return CALLS[call]()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", CALLS)
def test_modes_around_a_call_change_nothing(call: str, mode: str) -> None:
    before = expected(call)
    if mode in ("default device", "default dtype"):
        data = recording()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{__name__}.recording", lambda: data)
            with MODES[mode]():
                found = CALLS[call]()
    else:
        with MODES[mode]():
            found = CALLS[call]()
    assert found == before


@pytest.mark.parametrize("call", CALLS)
def test_what_differentiates_does_so_within_another_computation(call: str) -> None:
    """As where a function of the user's, called by the package, fits a model without thinking of gradients."""
    before = expected(call)
    with isolation(), torch.no_grad():
        assert CALLS[call]() == before


def test_data_of_another_type_are_those_of_the_models() -> None:
    wide, narrow = posterior(recording(torch.float64)), posterior()
    assert wide.evidence("iwae", 4).total == narrow.evidence("iwae", 4).total
    assert torch.equal(wide.forecast(2, num_samples=3).samples["s"], narrow.forecast(2, num_samples=3).samples["s"])
    assert torch.equal(wide.mean("s", 3), narrow.mean("s", 3))


@pytest.mark.parametrize("part", ["observations", "covariates"])
def test_what_narrowing_takes_from_values_is_said_once(part: str) -> None:
    values = np.random.default_rng(0).normal(size=(3, 5, 1))

    def made(offset: float, dtype: torch.dtype) -> lr.SequenceData:
        moved = {"y": values + offset * (part == "observations")}, {"x": values + offset * (part == "covariates")}
        return lr.SequenceData.from_arrays(*moved, dtype=dtype)

    data = made(0.0, torch.float32)
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.InitialState(1), observations={"y": lr.Gaussian()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
    lr.Posterior(model, guide, made(0.0, torch.float64), device="cpu")
    far = made(1e8, torch.float64)
    with pytest.warns(
        UserWarning, match=rf"Posterior: {part}\['[xy]'\]: float32 changes values by up to .* in float64"
    ):
        found = lr.Posterior(model, guide, far, device="cpu")
    found.restricted(2)  # warnings are errors here
    lr.Posterior(model.double(), guide.double(), far, device="cpu")


@pytest.mark.parametrize("encoder", [None, lr.RNNEncoder(2)])
def test_numbers_per_sequence_serve_longer_sequences(encoder: lr.Encoder | None) -> None:
    short, long = recording(steps=5), lr.SequenceData.from_arrays({"s": COUNTS[:3] + 1})
    model = lr.LatentRNN(short.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"s": lr.Poisson()})
    guide = lr.Guide(model, encoder=encoder, family=lr.PerSequence(lr.MeanField()))
    fitted = lr.fit(
        model, guide, short, long, steps=2, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    )
    new = fitted.posterior(long, device="cpu")
    assert new.mean("s", 2).shape == (3, 8, 2)
    # what is known of a new sequence is what sequences share: the answer of the family without numbers
    shared = copy.deepcopy(new.guide)
    shared.local = shared.local.base
    alone = lr.Posterior(new.model, shared, long, device="cpu")
    assert torch.equal(new.mean("s", 2), alone.mean("s", 2))


def test_draws_of_points_are_numbers() -> None:
    data = recording()
    heads = {"s": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    of = lr.Posterior(model, lr.Guide(model, global_family="point"), data, device="cpu")
    assert not any(value.requires_grad for value in of.parameters(2).values())
    assert not any(value.requires_grad for value in of.latents(2).values())


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "reseeded": (lambda: posterior().reseeded(1.7), TypeError, "reseeded: seed must be an integer"),
    "seed": (lambda: result().posterior(recording(), seed="a"), TypeError, "seed must be an integer"),
    "restricted": (lambda: posterior().restricted(-1), ValueError, "restricted: count must be a positive integer"),
    "horizon": (lambda: posterior().forecast("a"), ValueError, "horizon must be a positive integer"),
    "device": (lambda: result().posterior(recording(), device=None), ValueError, "device: expected 'auto'"),
    "meta": (lambda: result().posterior(recording(), device="meta"), ValueError, 'device: "meta" cannot compute'),
    "data": (lambda: result().posterior(None), TypeError, "data must be a SequenceData; found NoneType"),
}


DEVICES: dict[str, Callable[[str], Any]] = {
    "posterior": lambda device: result().posterior(recording(), device=device),
    "fit": lambda device: lr.fit(result().model, result().guide, recording(), steps=1, compute=lr.Compute(device)),
    "laplace": lambda device: lr.laplace(result().model, recording(), given=result(), device=device),
    "sample": lambda device: lr.sample(result().model, recording(), given=result(), device=device, progress=False),
    "ensemble": lambda device: lr.fit_ensemble(
        result().model, result().guide, recording(), steps=1, compute=lr.Compute(device)
    ),
    "data": lambda device: recording().to(device),
    "stored data": lambda device: lr.StoredSequences.from_arrays({"s": COUNTS}).to(device),
}
# of Apple, of Intel, of makers whose modules nobody installs, and one too many of NVIDIA's
FOREIGN = ["mps", "mps:0", "xpu", "hpu", "xla", "vulkan", "mtia", "cuda:99"]


@pytest.mark.parametrize("device", FOREIGN)
@pytest.mark.parametrize("call", DEVICES)
def test_a_device_that_is_not_there_is_named(call: str, device: str) -> None:
    if device.startswith("mps") and torch.backends.mps.is_available():
        pytest.skip("it is there")
    if device.startswith("xpu") and torch.xpu.is_available():
        pytest.skip("it is there")
    word = "cuda" if device == "cuda:99" and not torch.cuda.is_available() and call[-4:] != "data" else device
    with pytest.raises(ValueError, match=rf"(device|to): .*['\"]{word}['\"]"):
        DEVICES[call](device)


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(case: str) -> None:
    call, error, match = WRONG[case]
    with pytest.raises(error, match=match):
        call()


def test_numpys_numbers_count_as_pythons() -> None:
    of = posterior()
    assert torch.equal(of.reseeded(np.int64(1)).mean("s", np.int64(3)), of.reseeded(1).mean("s", 3))
    assert len(of.restricted(np.int32(2)).data) == 2
    assert isinstance(of.reseeded(None).seed, int)
