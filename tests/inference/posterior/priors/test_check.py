"""Priors of another scale than the data are told before a fit, and others are not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

import latentrnn as lr
from latentrnn.inference.posterior.priors import check as prior_check
from latentrnn.inference.posterior.priors.check import NUMBERS, STARTS, some_of
from tests.models.priors_everywhere import built
from tests.registry import Combination, each_against_defaults

RNG = np.random.default_rng(0)
SETTINGS = {
    "steps": 2,
    "reporting": lr.Reporting(progress=False),
    "compute": lr.Compute(device="cpu"),
}


def normal(scale: float = 1.0, mean: float = 0.0, shape: tuple[int, ...] = (20, 40, 2)) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"y": RNG.normal(mean, scale, shape)}, dt=0.1, dtype=torch.float64)


def counts(mean: float, shape: tuple[int, ...] = (20, 40, 2)) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"y": RNG.poisson(mean, shape)}, dt=0.1)


def model_of(data: lr.SequenceData, head: lr.Observation, latent: lr.Latent | None = None) -> lr.LatentRNN:
    latent = lr.Deterministic() if latent is None else latent
    return lr.LatentRNN(data.spec, transition=lr.GRU(4), latent=latent, observations={"y": head})


def silent(model: lr.LatentRNN, data: lr.SequenceData, **options: Any) -> lr.PriorCheck:
    """The check, which must not warn: warnings are errors."""
    check = lr.check_priors(model, data, **options)
    assert not check.flagged
    assert check.messages() == []
    return check


# -- no false alarm ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", each_against_defaults()[::4], ids="-".join)
def test_data_drawn_from_the_priors_raise_no_alarm(parts: Combination) -> None:
    model, data = built(parts)
    drawn = model.prior_predictive(data, 2, device="cpu", seed=7)
    for row in range(2):
        values = {
            name: torch.where(data.masks[name], value[row], data.observations[name]) for name, value in drawn.items()
        }
        for initialise in (True, False):
            silent(model, data.with_observations(values), initialise=initialise)


ORDINARY: dict[str, Callable[[], tuple[lr.SequenceData, lr.Observation]]] = {
    "standard normal weights": lambda: (
        normal(),
        lr.Gaussian(priors={"weight": dist.Normal(0.0, 1.0), "baseline": dist.Normal(0.0, 1.0)}),
    ),
    "a vague baseline": lambda: (normal(), lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1000.0)})),
    "a vague scale": lambda: (normal(), lr.Gaussian(priors={"scale": dist.HalfCauchy(50.0)})),
    "a scale of the right size": lambda: (normal(3.0), lr.Gaussian(priors={"scale": dist.HalfNormal(1.0)})),
    "another level within reach": lambda: (normal(mean=9.0), lr.Gaussian(priors={"baseline": dist.Normal(0.0, 3.0)})),
    "rates of one": lambda: (counts(1.0), lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})),
    "rare events": lambda: (counts(0.02), lr.Poisson(priors={"baseline": dist.Normal(-3.0, 1.5)})),
    "vague rates": lambda: (counts(1.0), lr.Poisson(priors={"baseline": dist.Normal(0.0, 10.0)})),
    "no event at all": lambda: (counts(0.0), lr.Poisson(priors={"baseline": dist.Normal(-2.0, 3.0)})),
    "wider counts than the family's": lambda: (
        lr.SequenceData.from_arrays({"y": RNG.negative_binomial(0.2, 0.01, (20, 40, 2))}),
        lr.Poisson(priors={"weight": dist.Normal(0.0, 1.0)}),
    ),
    "far from zero, without a prior on that": lambda: (
        normal(1e-3, mean=1e4),
        lr.Gaussian(priors={"weight": dist.Normal(0.0, 1e-3)}),
    ),
    "no variation": lambda: (
        lr.SequenceData.from_arrays({"y": np.full((5, 6, 1), 2.0)}),
        lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)}),
    ),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_priors_raise_no_alarm(name: str) -> None:
    for latent in (lr.Deterministic(), lr.Innovations(2)):
        data, head = ORDINARY[name]()
        silent(model_of(data, head, latent), data)


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1.0, 1e6])
def test_units_alone_raise_no_alarm(unit: float) -> None:
    """What has no prior starts from the data; what has one is in the data's units."""
    data = normal(unit, mean=5 * unit)
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 10 * unit), "scale": dist.HalfNormal(unit)})
    silent(model_of(data, head), data)
    head = lr.Gaussian(gain=None, priors={"weight": dist.Normal(0.0, unit)})
    silent(model_of(data, head, lr.Innovations(2)), data)


def test_priors_on_what_has_no_scale_raise_no_alarm() -> None:
    """An untrained network is not the prior's fault, however far from the data it is."""
    data = normal(0.01, mean=3.0)
    known = lr.Gaussian(fixed={"weight": 100.0, "baseline": 0.0, "scale": 0.01})
    memory = lr.LeakyIntegrator(2, priors={"time_constant": dist.LogNormal(-1.0, 0.5)})
    model = lr.LatentRNN(data.spec, transition=memory, latent=lr.Innovations(1), observations={"y": known})
    for initialise in (True, False):
        silent(model, data, initialise=initialise)


# -- alarm ---------------------------------------------------------------------------------------------------------


def walk(step: float) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"y": RNG.normal(0.0, step, (10, 50, 1)).cumsum(1)})


def walking(scale: dist.Distribution) -> Callable[[lr.SequenceData], lr.LatentRNN]:
    """A random walk seen with little noise, all known but the size of its steps."""

    def make(data: lr.SequenceData) -> lr.LatentRNN:
        still = lr.Linear(1, fixed={"weight": 1.0, "input_weight": 0.0, "bias": 0.0})
        latent = lr.LinearGaussian(priors={"scale": scale}, fixed={"initial_scale": 0.01})
        head = lr.Gaussian(fixed={"weight": 1.0, "baseline": 0.0, "scale": 0.01})
        return lr.LatentRNN(data.spec, transition=still, latent=latent, observations={"y": head})

    return make


def of(head: Callable[[], lr.Observation]) -> Callable[[lr.SequenceData], lr.LatentRNN]:
    return lambda data: model_of(data, head())


def positive(mean: float) -> lr.SequenceData:
    return lr.SequenceData.from_arrays({"y": RNG.gamma(4.0, mean / 4.0, (20, 40, 2))})


PLANTED: dict[str, tuple[Callable[[], lr.SequenceData], Callable[[lr.SequenceData], lr.LatentRNN], str, str]] = {
    "noise a thousandth, data of spread 10": (
        lambda: normal(10.0), of(lambda: lr.Gaussian(priors={"scale": dist.LogNormal(math.log(1e-3), 0.1)})),
        "standard deviation", r"y.scale ~ LogNormal\(loc=-6.908, scale=0.1\)",
    ),
    "the same, half-normal": (
        lambda: normal(10.0), of(lambda: lr.Gaussian(priors={"scale": dist.HalfNormal(1e-3)})),
        "standard deviation", r"y.scale ~ HalfNormal\(scale=0.001\)",
    ),
    "noise in millivolts, data in volts": (
        lambda: normal(0.02), of(lambda: lr.Gaussian(priors={"scale": dist.LogNormal(math.log(20.0), 0.3)})),
        "standard deviation", "y.scale",
    ),
    "noise of another family": (
        lambda: normal(10.0), of(lambda: lr.StudentT(priors={"scale": dist.LogNormal(math.log(1e-3), 0.1)})),
        "standard deviation", "y.scale",
    ),
    "a level held at zero": (
        lambda: normal(1.0, mean=300.0), of(lambda: lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1e-3)})),
        "mean", "y.readout.baseline ~ Normal",
    ),
    "a level elsewhere": (
        lambda: normal(1.0), of(lambda: lr.Gaussian(priors={"baseline": dist.Normal(1000.0, 1.0)})),
        "mean", "y.readout.baseline",
    ),
    "rates per second, counts per millisecond": (
        lambda: counts(0.02), of(lambda: lr.Poisson(priors={"baseline": dist.Normal(math.log(20.0), 0.3)})),
        "mean", "y.readout.baseline",
    ),
    "rates far below the counts": (
        lambda: counts(400.0), of(lambda: lr.Poisson(priors={"baseline": dist.Normal(0.0, 0.1)})),
        "largest absolute value", "y.readout.baseline",
    ),
    "a family of positive numbers": (
        lambda: positive(5e4), of(lambda: lr.Gamma(priors={"baseline": dist.Normal(0.0, 1.0)})),
        "mean", "y.readout.baseline",
    ),
    "zeros everywhere": (
        lambda: counts(30.0),
        of(lambda: lr.Poisson(priors={"baseline": dist.Normal(-4.0, 0.5)})),
        "share of zeros", "y.readout.baseline",
    ),
    "a shared population": (
        lambda: counts(400.0),
        of(lambda: lr.Poisson(priors={"baseline": lr.Population(
            "levels", location=dist.Normal(0.0, 0.1), scale=dist.HalfNormal(0.1))})),
        "mean", r"Population\(name='levels'",
    ),
    "a network of next to no weights": (
        lambda: counts(400.0),
        of(lambda: lr.Poisson(priors={"weights": lr.NetworkPrior(scale=1e-3, bias_scale=1e-3)})),
        "mean", r"y.readout.weights ~ NetworkPrior\(scale=0.001",
    ),
    "steps of a walk": (lambda: walk(5.0), walking(dist.HalfNormal(1e-4)), "standard deviation", "latent.scale"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_errors_are_told(name: str) -> None:
    make, model_for, statistic, prior = PLANTED[name]
    data = make()
    model = model_for(data)
    with pytest.warns(UserWarning, match=prior) as seen:
        check = lr.check_priors(model, data)
    assert [str(item.message) for item in seen] == [f"check_priors: {message}" for message in check.messages()]
    assert [item.filename for item in seen] == [__file__]
    row = next(row for row in check.flagged if row["statistic"] == statistic)
    assert not row["lowest"] <= row["observed"] <= row["highest"]
    assert f"{row['observed']:.3g}, in draws {row['lowest']:.3g} to {row['highest']:.3g}" in str(check)
    assert "observations['y']" in str(check)


@pytest.mark.parametrize("name", PLANTED)
def test_the_model_as_it_is_shows_them_too(name: str) -> None:
    make, model_for, _, prior = PLANTED[name]
    data = make()
    with pytest.warns(UserWarning, match=prior):
        lr.check_priors(model_for(data), data, initialise=False)


def test_only_the_prior_behind_it_is_named() -> None:
    data = normal(10.0)
    priors = {"scale": dist.HalfNormal(1e-3), "baseline": dist.Normal(0.0, 5.0), "weight": dist.Normal(0.0, 0.5)}
    model = model_of(data, lr.Gaussian(priors=priors))
    with pytest.warns(UserWarning, match="cannot have made"):
        check = lr.check_priors(model, data)
    assert [prior.split(" ~ ")[0] for prior in check.priors["y"]] == ["y.scale"]


def test_other_heads_are_left_out_of_it() -> None:
    data = lr.SequenceData.from_arrays({"y": RNG.normal(0.0, 10.0, (9, 20, 1)), "n": RNG.poisson(1.0, (9, 20, 1))})
    heads = {
        "y": lr.Gaussian(priors={"scale": dist.HalfNormal(1e-3)}),
        "n": lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)}),
    }
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations=heads)
    with pytest.warns(UserWarning, match=r"observations\['y'\]"):
        check = lr.check_priors(model, data)
    assert list(check.priors) == ["y"]
    assert {row["head"] for row in check.table} == {"y", "n"}


# -- before fits and samplers --------------------------------------------------------------------------------------

WRONG = {"scale": dist.HalfNormal(1e-3)}


def fitted(model: lr.LatentRNN, data: lr.SequenceData, check: bool = True, **options: Any) -> lr.FitResult:
    settings = SETTINGS | {"reporting": lr.Reporting(progress=False, check_priors=check)} | options
    return lr.fit(model, lr.Guide(model), data, **settings)


CALLS: dict[str, Callable[..., Any]] = {
    "fit": fitted,
    "laplace": lambda model, data, check=True: lr.laplace(model, data, device="cpu", check_priors=check),
    "sample": lambda model, data, check=True: lr.sample(
        model, data, num_samples=4, warmup=4, chains=1, device="cpu", progress=False, check_priors=check
    ),
}


def known_mean(data: lr.SequenceData, priors: dict[str, Any]) -> lr.LatentRNN:
    return model_of(data, lr.Gaussian(priors=priors, fixed={"weight": 0.0, "baseline": 0.0}))


@pytest.mark.parametrize("call", CALLS)
def test_fits_and_samplers_say_it_first(call: str) -> None:
    data = normal(10.0, shape=(4, 10, 1))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        CALLS[call](known_mean(data, WRONG), data)
    told = [item for item in seen if "cannot have made the scale" in str(item.message)]
    assert [item.filename for item in told] == [__file__]
    assert str(told[0].message).startswith(f"{call}: the priors cannot")
    assert "check_priors=False leaves this check out" in str(told[0].message)


@pytest.mark.parametrize("call", CALLS)
def test_it_can_be_left_out(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = normal(10.0, shape=(4, 10, 1))
    monkeypatch.setattr(prior_check, "compared", lambda *_: pytest.fail("nothing was to be drawn"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="sample: ")
        CALLS[call](known_mean(data, WRONG), data, False)


def test_without_priors_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_check, "compared", lambda *_: pytest.fail("nothing was to be drawn"))
    data = normal()
    fitted(model_of(data, lr.Gaussian()), data)


@pytest.mark.parametrize("vectorised", [False, True])
def test_an_ensemble_says_it_once(vectorised: bool) -> None:
    data = normal(10.0, shape=(4, 10, 1))
    model = known_mean(data, WRONG)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        lr.fit_ensemble(model, lr.Guide(model), data, seeds=(0, 1), vectorised=vectorised, **SETTINGS)
    assert len([item for item in seen if "cannot have made the scale" in str(item.message)]) == 1


def test_a_fit_is_the_same_with_and_without_it() -> None:
    data = normal(shape=(6, 10, 2))
    head = lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)})
    model = model_of(data, head)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, other = (fitted(model, data, check, batch_size=2) for check in (True, False))
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert one.history == other.history
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_files_are_looked_at_too(tmp_path: Any) -> None:
    np.save(tmp_path / "y.npy", RNG.normal(0.0, 10.0, (6, 30, 1)))
    stored = lr.StoredSequences.from_arrays({"y": np.load(tmp_path / "y.npy", mmap_mode="r")})
    model = known_mean(stored.load(), WRONG)
    with pytest.warns(UserWarning, match="check_priors: the priors cannot have made"):
        lr.check_priors(model, stored)
    with pytest.warns(UserWarning, match="fit: the priors cannot have made"):
        fitted(model, stored, batch_size=3)


class DensityAlone(TorchDistribution):
    """A density that nobody can draw from."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = torch.distributions.constraints.real

    def __init__(self, location: Tensor) -> None:
        self.location = location
        super().__init__(location.shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> DensityAlone:
        return DensityAlone(self.location.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return -(value - self.location).abs()


class LaplaceDensity(lr.Observation):
    """Densities alone, which a fit needs no more than."""

    def family(self, eta: Tensor) -> Any:
        return DensityAlone(eta)


class Overflow(lr.Observation):
    """Refuses what is far away, as some distributions refuse their arguments."""

    def family(self, eta: Tensor) -> Any:
        if bool((eta.abs() > 50).any()):
            raise ValueError("the location must be below 50")
        return dist.Normal(eta, 1.0)


def test_a_family_that_cannot_be_drawn_stops_no_fit() -> None:
    data = normal(shape=(4, 10, 1))
    model = model_of(data, LaplaceDensity(priors={"baseline": dist.Normal(0.0, 1.0)}))
    fitted(model, data)
    with pytest.raises(NotImplementedError):
        lr.check_priors(model, data)
    far = model_of(data, Overflow(priors={"baseline": dist.Normal(0.0, 100.0)}))
    with pytest.warns(UserWarning, match=r"could not be drawn from the priors.*\(the location must be below 50\)"):
        fitted(far, data)
    with pytest.raises(ValueError, match="below 50"):
        lr.check_priors(far, data)


# -- what it costs, says and refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3000, 40, 2), (1, 100_000, 2), (5, 300, 4000)])
def test_no_more_is_drawn_than_takes_a_moment(shape: tuple[int, ...]) -> None:
    data = lr.SequenceData.from_arrays({"y": np.zeros(shape, np.float32)})
    model = model_of(data, lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)}))
    some = some_of(model, data, 40)
    drawn = (40 + STARTS) * some.observations["y"].numel()
    assert drawn <= 2 * NUMBERS
    assert 10 <= some.num_steps <= 100


def test_networks_with_many_weights_are_looked_at_by_fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    data = counts(1.0)
    seen = []
    monkeypatch.setattr(prior_check, "compared", lambda *given: seen.append(given[2]) or lr.PriorCheck((), {}, 1))
    for size in (8, 200, 400):
        transition = lr.GRU(size, priors={"weights": lr.NetworkPrior()})
        model = lr.LatentRNN(
            data.spec, transition=transition, latent=lr.Deterministic(), observations={"y": lr.Poisson()}
        )
        prior_check.warn_of_priors("fit", model, data, stacklevel=1)
    assert seen[0] == 40
    assert 10 <= seen[1] < 40
    assert len(seen) == 2, "480,000 weights are too many"


def test_steps_that_are_looked_at_are_scored_and_whole_frames() -> None:
    slow = RNG.normal(0.0, 10.0, (2, 90, 1))
    data = lr.SequenceData.from_arrays({"y": slow, "fast": np.zeros((2, 270, 1))}, clocks={"y": 3})
    late = data.windows(240, context=30)
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(2),
        latent=lr.Deterministic(),
        observations={"y": lr.Gaussian(priors={"scale": dist.HalfNormal(1e-3)})},
    )
    some = some_of(model, late, 40)
    assert bool(some.scored("y").any())
    assert some.num_steps % 3 == 0
    with pytest.warns(UserWarning, match="cannot have made"):
        lr.check_priors(model, late)


def test_the_table() -> None:
    data = counts(2.0)
    check = silent(model_of(data, lr.Poisson(priors={"baseline": dist.Normal(0.0, 1.0)})), data)
    frame = check.to_dataframe()
    assert list(frame.columns) == ["head", "statistic", "observed", "lowest", "highest", "flagged"]
    assert frame["statistic"].tolist() == [
        "mean", "standard deviation", "largest absolute value", "share of zeros",
    ]  # fmt: skip
    values = some_of(model_of(data, lr.Poisson()), data, 40).observations["y"].double()
    within = (values - values.mean((0, 1))).square().mean().sqrt()
    expected = [values.mean(), within, values.max(), (values == 0).double().mean()]
    np.testing.assert_allclose(frame["observed"], [float(value) for value in expected], rtol=1e-6)
    assert repr(check) == "PriorCheck(heads ['y'], 40 draws, 0 flagged)"
    assert str(check).count("\n") == 5


def test_what_is_refused() -> None:
    data = normal()
    model = model_of(data, lr.Gaussian(priors={"baseline": dist.Normal(0.0, 1.0)}))
    with pytest.raises(ValueError, match="no parameter has a prior"):
        lr.check_priors(model_of(data, lr.Gaussian()), data)
    with pytest.raises(TypeError, match="model must be a LatentRNN"):
        lr.check_priors(data, data)
    with pytest.raises(TypeError, match="data must be"):
        lr.check_priors(model, np.zeros(3))
    with pytest.raises(ValueError, match="num_samples must be at least 10; found 3"):
        lr.check_priors(model, data, num_samples=3)
    with pytest.raises(TypeError, match="initialise must be True or False"):
        lr.check_priors(model, data, initialise="no")
    with pytest.raises(TypeError, match="check_priors must be True or False"):
        lr.Reporting(check_priors="no")
    with pytest.raises(TypeError, match="check_priors must be True or False"):
        lr.laplace(model, data, check_priors=1.5)
    with pytest.raises(TypeError, match="check_priors must be True or False"):
        lr.sample(model, data, check_priors="no")
