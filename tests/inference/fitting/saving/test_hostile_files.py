"""Files that nobody should trust: changed at random or by intent, they load or are a clear error, at little cost."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import safetensors.torch
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import latentrnn as lr
from latentrnn.inference.fitting.saving.bounded import SPARE_NUMBERS
from latentrnn.inference.fitting.saving.load import load
from latentrnn.inference.fitting.saving.manifest import MANIFEST
from latentrnn.inference.fitting.saving.save import save
from latentrnn.models.parameters.distributions import KNOWN, distribution_arguments, named_distribution
from tests.inference.fitting.saving.fits import make_data, make_result, states
from tests.inference.fitting.saving.test_damaged_checkpoints import sign

VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        -3,
        2**31,
        10**12,
        10**18,
        0.5,
        -0.5,
        1e300,
        "",
        "no",
        "../../x",
        "GRU",
        "os:system",
    ),
    *([], [1], [[]], {}, {"class": "GRU", "arguments": {}}, {"distribution": "Normal", "arguments": {}}),
    *({"$float": "nan"}, {"$float": "inf"}, {"class": "Poisson"}, [None] * 3, "x" * 300, "\u2028", "values", "model"),
]


def copied(good: Path, to: Path) -> Path:
    to.mkdir(exist_ok=True)
    for file in good.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good")
    save(make_result(), path)
    return path


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every entry of a manifest."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutate(manifest: dict[str, Any], rng: random.Random) -> None:
    """Change one entry: another value, none, another name, or that of another place."""
    everywhere = list(places(manifest))
    *way, last = rng.choice(everywhere)
    holder: Any = manifest
    for key in way:
        holder = holder[key]
    kind = rng.randrange(5)
    if kind == 0:
        del holder[last]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(["extra", "class", "$float", "arguments", "../../x"])] = holder.pop(last)
    elif kind == 2:
        other: Any = manifest
        for key in rng.choice(everywhere):
            other = other[key]
        holder[last] = copy.deepcopy(other)
    elif kind == 3 and isinstance(holder[last], int | float) and not isinstance(holder[last], bool):
        holder[last] = holder[last] * rng.choice([-1, 0, 2, 1000, 10**6, 10**9])
    else:
        holder[last] = copy.deepcopy(rng.choice(VALUES))


def loads_or_is_refused(path: Path) -> lr.FitResult | None:
    """Load; whatever is wrong is a ValueError that names a file of the folder."""
    try:
        return load(path)
    except ValueError as error:
        message = str(error)
    assert str(path) in message
    assert len(message) < 6000
    return None


def usable(result: lr.FitResult) -> None:
    """What loads has entries of the kinds that are documented."""
    assert type(result.best_step) is int
    assert type(result.seed) is int
    assert all(isinstance(key, lr.data.SequenceKey) and key.start <= key.stop for key in result.used)
    assert all(isinstance(values, list) for values in result.history.values())
    repr(result), repr(result.model), repr(result.guide)
    result.model.config()


def fuzz_manifests(good: Path, to: Path, seeds: range) -> int:
    path, refused = copied(good, to), 0
    original = json.loads((good / MANIFEST).read_text())
    for seed in seeds:
        rng, manifest = random.Random(seed), copy.deepcopy(original)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            mutate(manifest, rng)
        sign(manifest)
        (path / MANIFEST).write_text(json.dumps(manifest))
        with _Bounded(numbers=2**22):
            result = loads_or_is_refused(path)
        refused += result is None
        if result is not None:
            usable(result)
    return refused


def test_manifests_that_were_changed_and_signed_again(good: Path, tmp_path: Path) -> None:
    assert fuzz_manifests(good, tmp_path / "fit", range(60)) > 30


@pytest.mark.slow
def test_many_manifests_that_were_changed_and_signed_again(good: Path, tmp_path: Path) -> None:
    assert fuzz_manifests(good, tmp_path / "fit", range(1000, 2000)) > 500


def flip(content: bytes, rng: random.Random) -> bytes:
    """One bit, a piece cut off, a piece twice, or two pieces swapped."""
    kind, place = rng.randrange(4), rng.randrange(len(content))
    if kind == 0:
        return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
    if kind == 1:
        return content[:place]
    other = rng.randrange(len(content))
    low, high = sorted((place, other))
    return content[:high] + content[low:] if kind == 2 else content[low:high] + content[:low] + content[high:]


def fuzz_bytes(good: Path, to: Path, seeds: range) -> None:
    expected = load(good)
    names = sorted(file.name for file in good.iterdir())
    for seed in seeds:
        rng, path = random.Random(seed), copied(good, to)
        name = rng.choice([*names, MANIFEST])
        (path / name).write_bytes(flip((good / name).read_bytes(), rng))
        result = loads_or_is_refused(path)
        if result is not None:  # what was changed does not count: a space, a capital letter in an escape
            assert states(result).keys() == states(expected).keys()
            assert all(torch.equal(value, states(expected)[key]) for key, value in states(result).items())
            assert (result.used, str(result.history)) == (expected.used, str(expected.history))
            assert (result.settings, result.best_step) == (expected.settings, expected.best_step)


def test_bytes_that_were_changed(good: Path, tmp_path: Path) -> None:
    fuzz_bytes(good, tmp_path / "fit", range(60))


@pytest.mark.slow
def test_many_bytes_that_were_changed(good: Path, tmp_path: Path) -> None:
    fuzz_bytes(good, tmp_path / "fit", range(1000, 3000))


def weights_forged(path: Path, content: bytes) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / manifest["weights"]["model"]["file"]).write_bytes(content)
    manifest["weights"]["model"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    sign(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


def test_weights_that_were_changed_and_signed_again(good: Path, tmp_path: Path) -> None:
    """A header that was changed is refused, unless it says the same; numbers that were changed are those that load."""
    original, expected = next(good.glob("model-*")).read_bytes(), load(good)
    start = 8 + int.from_bytes(original[:8], "little")  # of the numbers
    path, came = copied(good, tmp_path / "fit"), Counter[str]()
    for seed in range(40):
        rng, numbers = random.Random(seed), seed % 2
        place = rng.randrange(start, len(original)) if numbers else 0
        changed = original[:place] + flip_one(original[place:], rng) if numbers else (
            flip(original[:start], rng) + original[start:]
        )  # fmt: skip
        weights_forged(path, changed)
        result = loads_or_is_refused(path)
        came["numbers" if numbers else "header", result is not None] += 1
        if result is None:
            continue
        usable(result)
        assert not numbers or changed != original
        found = states(result)
        assert found.keys() == states(expected).keys()
        differ = [name for name, value in states(expected).items() if not torch.equal(value, found[name])]
        assert len(differ) == numbers, differ
        assert all(torch.isfinite(found[name]).all() for name in differ)
        assert result.model.config() == expected.model.config()
    assert came["header", False] > 15
    assert came["numbers", True] > 15


def flip_one(content: bytes, rng: random.Random) -> bytes:
    """One bit of the first byte."""
    return bytes([content[0] ^ (1 << rng.randrange(8))]) + content[1:]


# -- sizes ---------------------------------------------------------------------------------------------------------


def sized(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def forge(path: Path) -> None:
        manifest = json.loads((path / MANIFEST).read_text())
        change(manifest)
        sign(manifest)
        (path / MANIFEST).write_text(json.dumps(manifest))

    return forge


def transition(name: str, **arguments: Any) -> Callable[[Path], None]:
    return sized(lambda m: m["model"].update(transition={"class": name, "arguments": arguments}))


def convolution() -> dict[str, Any]:
    sizes = list(range(1, 400))
    arguments = {"covariates": ["stimulus"], "filters": 8, "widths": sizes, "dilations": sizes}
    return {"class": "Convolution", "arguments": arguments}


SIZES: dict[str, Callable[[Path], None]] = {
    "layers": transition("GRU", hidden_size=4, layers=10**9),
    "more layers than 64 bits": transition("GRU", hidden_size=4, layers=10**18),
    "hidden units": transition("GRU", hidden_size=10**4),
    "hidden units of a diagonal": transition("DiagonalLinear", hidden_size=10**9),
    "width": transition("NeuralODE", hidden_size=4, width=10**6),
    "regimes": transition("SwitchingLinear", hidden_size=4, regimes=10**9),
    "latent": sized(lambda m: m["model"]["latent"]["arguments"].update(dim=10**5)),
    "classes": sized(
        lambda m: m["model"]["observations"].update(spikes={"class": "Categorical", "arguments": {"classes": 10**9}})
    ),
    "history": sized(
        lambda m: m["model"]["observations"]["spikes"]["arguments"].update(
            feedback={"class": "History", "arguments": {"steps": 10**9, "filters": 10}}
        )
    ),
    "banks": sized(lambda m: m["model"].update(inputs=[convolution()])),
    "lags": sized(
        lambda m: m["model"].update(inputs=[{"class": "Lags", "arguments": {"covariate": "stimulus", "steps": 10**9}}])
    ),
    "encoder": sized(lambda m: m["guide"]["encoder"]["arguments"].update(hidden_size=10**5)),
    "layers of the encoder": sized(lambda m: m["guide"]["encoder"]["arguments"].update(layers=10**9)),
    "layers of a flow": sized(
        lambda m: m["guide"].update(
            family={
                "class": "Flow",
                "arguments": {"base": {"class": "MeanField", "arguments": {}}, "layers": 10**9, "hidden_size": 3},
            }
        )
    ),
    "sequences": sized(
        lambda m: m["guide"].update(
            family={
                "class": "PerSequence",
                "arguments": {
                    "base": {"class": "MeanField", "arguments": {}},
                    "keys": [["a", 0, 5]],
                    "num_steps": 10**9,
                },
            }
        )
    ),
    "nested": sized(lambda m: m["settings"].update(deep=json.loads("[" * 400 + "]" * 400))),
}


@pytest.mark.parametrize("case", SIZES)
def test_nothing_larger_than_the_weights_is_built(case: str, good: Path, tmp_path: Path) -> None:
    path = copied(good, tmp_path / "fit")
    SIZES[case](path)
    bound = _Bounded(numbers=2**22)  # the spare ones of a file this small
    tracemalloc.start()
    try:
        with bound:
            loads_or_is_refused(path) if case == "nested" else _refused(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**25


# -- a file of some megabytes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large")
    save(make_result(600), path)
    return path


def peak_of(call: Callable[[], Any]) -> int:
    """The bytes that torch and Python hold at most while something runs, beyond what they held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        tracemalloc.start()
        try:
            call()
            python = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    made = sorted(((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"), key=lambda event: event[0])
    return python + max(itertools.accumulate((number for _, number in made), initial=0))


LARGE: dict[str, Callable[[Path], None] | None] = {
    "as it is": None,
    "more hidden units": transition("GRU", hidden_size=700),
    "twice the layers": transition("GRU", hidden_size=600, layers=2),
    "many layers": transition("GRU", hidden_size=600, layers=9),
    "many more hidden units": transition("GRU", hidden_size=6000),
    "more inputs": sized(lambda m: m["model"]["latent"]["arguments"].update(dim=900)),
    "weights of zeros": lambda path: weights_forged(path, safetensors.torch.save({"x": torch.zeros(10**6)})),
}


@pytest.mark.parametrize("case", LARGE)
def test_loading_takes_no_more_than_twice_the_memory_of_the_file(case: str, large: Path, tmp_path: Path) -> None:
    path, forge = copied(large, tmp_path / "fit"), LARGE[case]
    size = sum(file.stat().st_size for file in path.iterdir())
    assert size > 4e6
    if forge is None:
        load(path)  # what the first call alone keeps
    else:
        forge(path)
    peak = peak_of(lambda: load(path) if forge is None else _refused(path))
    spare = (
        0 if forge is None else 4 * SPARE_NUMBERS
    )  # what a description may ask for beyond the weights, whatever they are
    assert peak < 2 * size + spare + 2**20
    assert forge is not None or peak > size  # it sees the weights


def _refused(path: Path) -> None:
    with pytest.raises(ValueError, match=str(path)):
        load(path)


class _Bounded(TorchDispatchMode):
    """Watches what torch makes, for its memory is not Python's, and how often it is asked to."""

    def __init__(self, numbers: int, operations: int = 10**5) -> None:
        super().__init__()
        self.numbers, self.operations = numbers, operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations -= 1
        assert self.operations >= 0, "too many operations for a file this small"
        made = func(*args, **(kwargs or {}))
        for part in tree_leaves(made):
            if isinstance(part, torch.Tensor) and part.device.type != "meta":
                assert part.numel() <= self.numbers
        return made


def test_deeply_nested_json(good: Path, tmp_path: Path) -> None:
    path = copied(good, tmp_path / "fit")
    for depth in (900, 10**5):
        (path / MANIFEST).write_text('{"format": ' + "[" * depth + "]" * depth + "}")
        _refused(path)


# -- what a file may name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["enable_validation", "TransformedDistribution", "Poisson", "__builtins__", "torch_distribution", "", 3, None],
)
def test_no_other_name_of_pyro_is_called(name: Any) -> None:
    with pytest.raises(ValueError, match="distribution: expected one of"):
        named_distribution(name, {})


def test_arguments_of_distributions_are_checked() -> None:
    for arguments in (
        {"loc": 0.0, "scale": -1.0},
        {"loc": True, "scale": 1.0},
        {"loc": "0", "scale": 1.0},
        {"x": 1},
        [1],
    ):
        with pytest.raises(ValueError, match="distribution Normal"):
            named_distribution("Normal", arguments)


def test_every_listed_distribution_makes_the_round_trip() -> None:
    given: dict[str, dict[str, Any]] = {
        "Uniform": {"low": -1.0, "high": 2.0},
        "Stable": {"stability": 1.5, "skew": 0.1},
        "AffineBeta": {"concentration1": 2.0, "concentration0": 1.5, "loc": -1.0, "scale": 4.0},
        "Dirichlet": {"concentration": [2.0, 1.5]},
        "LKJCholesky": {"dim": 3, "concentration": 1.5},
        "OrderedNormal": {"loc": [0.5, 1.0], "scale": [1.0, 2.0]},
        "MultivariateNormal": {"loc": [0.5, 1.0], "scale_tril": [[1.0, 0.0], [0.5, 2.0]]},
    }
    many = {
        "Dirichlet": torch.tensor([0.25, 0.75]), "LKJCholesky": torch.eye(3), "MultivariateNormal": torch.ones(2),
        "OrderedNormal": torch.tensor([0.25, 0.75]),
    }  # fmt: skip
    for name, kind in KNOWN.items():
        arguments = given.get(name) or dict.fromkeys(kind.arg_constraints, 1.5)
        law = named_distribution(name, arguments)
        assert type(law) is kind
        assert distribution_arguments(law)
        plain = {k: v if isinstance(v, int) else v.tolist() for k, v in distribution_arguments(law).items()}
        again = named_distribution(name, plain)
        if name != "Stable":  # which has no density
            inside = many.get(name, torch.tensor(0.5 if name in ("Beta", "Kumaraswamy") else 1.9))
            assert torch.equal(again.log_prob(inside), law.log_prob(inside))


class OwnNormal(dist.Normal):
    """A distribution of the user's own, which no file can name."""


def test_a_prior_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    data = make_data()
    head = lr.Poisson(priors={"baseline": OwnNormal(0.0, 1.0)})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"spikes": head})
    result = lr.fit(model, lr.Guide(model), data, steps=2, reporting=lr.Reporting(progress=False))
    with pytest.raises(ValueError, match=r"distribution: expected one of .*OwnNormal"):
        save(result, tmp_path / "fit")
    assert not (tmp_path / "fit").exists()


def law_of_the_file(means: Any, data: Any) -> torch.Tensor:
    return means["spikes"].sum(-1)


def law_of_another_file(means: Any, data: Any) -> torch.Tensor:
    return means["spikes"].mean(-1)


def test_a_file_names_only_functions_that_are_registered(tmp_path: Path) -> None:
    result = make_result(couplings=[lr.PhysicalPenalty(law_of_the_file)])
    save(result, tmp_path)
    assert load(tmp_path).model.couplings[0].function is law_of_the_file
    sized(lambda m: m["model"]["couplings"][0]["arguments"].update(function="os:system"))(tmp_path)
    with pytest.raises(ValueError, match=r"names the function 'system' of 'os', which is not registered"):
        load(tmp_path)
    # what nobody has mentioned yet, as in a process that has just begun
    sized(lambda m: m["model"]["couplings"][0]["arguments"].update(function=f"{__name__}:law_of_another_file"))(
        tmp_path
    )
    with pytest.raises(ValueError, match=r"PhysicalPenalty.register\(law_of_another_file\) before loading"):
        load(tmp_path)
    assert lr.PhysicalPenalty.register(law_of_another_file) is law_of_another_file
    assert load(tmp_path).model.couplings[0].function is law_of_another_file
    with pytest.raises(ValueError, match="has no name by which it can be found"):
        lr.PhysicalPenalty.register(lambda means, data: means)
    with pytest.raises(TypeError, match="expected a function; found int"):
        lr.PhysicalPenalty.register(3)  # type: ignore[type-var]
