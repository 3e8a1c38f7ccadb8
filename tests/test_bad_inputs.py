"""Every mistake beyond `from_arrays` is named too: what, what was expected, what came."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.models.component import from_config

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(2.0, (4, 6, 3)).astype(float)
STIMULUS = RNG.normal(size=(4, 6, 1))
DATA = lr.SequenceData.from_arrays({"y": COUNTS}, {"stimulus": STIMULUS}, dt=0.01)
LABELLED = lr.SequenceData.from_arrays(
    {"y": COUNTS, "label": np.eye(4)[:, :1], "slow": COUNTS[:, ::2]}, per_sequence=["label"], clocks={"slow": 2}
)

Case = tuple[Callable[[], Any], type[Exception], str]


def model(data: lr.SequenceData = DATA, observations: Any = None, **parts: Any) -> lr.LatentRNN:
    arguments = {"transition": lr.GRU(3), "latent": lr.Innovations(2)} | parts
    return lr.LatentRNN(
        data.spec, observations={"y": lr.Poisson()} if observations is None else observations, **arguments
    )


def guide(of: lr.LatentRNN, **options: Any) -> lr.Guide:
    return lr.Guide(of, **({"encoder": lr.RNNEncoder(3)} | options))


def fit(train: Any = DATA, validation: Any = None, *, of: Any = None, by: Any = None, **settings: Any) -> lr.FitResult:
    of = model() if of is None else of
    by = guide(of) if by is None else by
    return lr.fit(
        of,
        by,
        train,
        validation,
        **({"steps": 1, "reporting": lr.Reporting(progress=False), "compute": lr.Compute(device="cpu")} | settings),
    )


def values(entry: float, family: lr.Observation, at: tuple[int, ...] = (1, 2, 0)) -> Callable[[], Any]:
    """Fit a family to counts (clipped to zeros and ones where it is binary) with one value that it cannot have."""
    spoiled = np.minimum(COUNTS, 1.0) if isinstance(family, lr.Bernoulli) else np.minimum(COUNTS, 2.0)
    spoiled[at] = entry
    data = lr.SequenceData.from_arrays({"y": spoiled})
    return lambda: fit(data, of=model(data, {"y": family}))


def posterior(**options: Any) -> lr.Posterior:
    made = model(**options)
    return lr.Posterior(made, guide(made), DATA)


PARTS: dict[str, Case] = {
    "hidden size zero": (lambda: lr.GRU(0), ValueError, "GRU: hidden_size must be a positive integer; found 0"),
    "hidden size half": (lambda: lr.LSTM(1.5), ValueError, "LSTM: hidden_size must be a positive integer; found 1.5"),
    "hidden size a boolean": (lambda: lr.Linear(True), ValueError, "Linear: hidden_size must be a positive integer"),
    "no layers": (lambda: lr.GRU(3, layers=0), ValueError, "GRU: layers must be a positive integer; found 0"),
    "unknown nonlinearity": (
        lambda: lr.VanillaRNN(3, nonlinearity="selu"),
        ValueError,
        "VanillaRNN: nonlinearity must be one of 'tanh', 'relu'; found 'selu'",
    ),
    "innovations of no dimension": (
        lambda: lr.Innovations(0),
        ValueError,
        "Innovations: dim must be a positive integer",
    ),
    "initial of no dimension": (
        lambda: lr.Innovations(1, initial=0),
        ValueError,
        "Innovations: initial must be a positive",
    ),
    "unknown prior of innovations": (
        lambda: lr.Innovations(2, prior="pink"),
        ValueError,
        "Innovations: prior must be one of 'white', 'student_t', 'ar1',",
    ),
    "initial state of no dimension": (lambda: lr.InitialState(-1), ValueError, "InitialState: dim must be a positive"),
    "unknown scale": (
        lambda: lr.MarkovNormal(scale="wide"),
        ValueError,
        "MarkovNormal: scale must be one of 'constant', 'state'; found 'wide'",
    ),
    "unknown covariance": (
        lambda: lr.Gaussian(covariance="banded"),
        ValueError,
        "Gaussian: covariance must be one of 'diagonal', 'low_rank', 'full'; found 'banded'",
    ),
    "unknown link": (
        lambda: lr.Poisson(link="log"),
        ValueError,
        "Poisson: link must be 'exp' or 'softplus'",  # or one that another test has named meanwhile
    ),
    "unknown pooling": (
        lambda: lr.Bernoulli(pooling="max"),
        ValueError,
        "Bernoulli: pooling must be one of ['last', 'mean', 'attention'] or a Pooling; found 'max'",
    ),
    "one class": (lambda: lr.Categorical(1), ValueError, "Categorical: classes must be at least 2; found 1"),
    "half a class": (
        lambda: lr.Categorical(2.5),
        ValueError,
        "Categorical: classes must be a positive integer; found 2.5",
    ),
    "a gain by name": (
        lambda: lr.Poisson(gain="stimulus"),
        TypeError,
        "Poisson: gain must be a StimulusGain; found str",
    ),
    "feedback by number": (
        lambda: lr.Poisson(feedback=20),
        TypeError,
        "Poisson: feedback must be a History; found int",
    ),
    "history of no steps": (lambda: lr.History(0), ValueError, "History: steps must be a positive integer; found 0"),
    "history into nothing": (
        lambda: lr.History(into=()),
        ValueError,
        "History: into must name 'transition', 'readout' or both; found []",
    ),
    "history into the unknown": (lambda: lr.History(into="gain"), ValueError, "found ['gain']"),
    "stimulus that is no name": (
        lambda: lr.StimulusGain(STIMULUS),
        TypeError,
        "StimulusGain: stimulus must be a string; found array",
    ),
    "no lags": (lambda: lr.StimulusGain("s", lags=0), ValueError, "StimulusGain: lags must be a positive integer"),
    "lags of no steps": (lambda: lr.Lags("s", 0), ValueError, "Lags: steps must be a positive integer; found 0"),
    "prior on the unknown": (
        lambda: model(observations={"y": lr.Poisson(priors={"slope": dist.Normal(0.0, 1.0)})}),
        ValueError,
        "observations['y']: Poisson: no prior can be put on 'slope'; expected none: it has no parameters of its own",
    ),
    "prior on a gate": (
        lambda: model(
            observations={"y": lr.Poisson(gain=lr.StimulusGain("stimulus", priors={"gate": dist.Normal(0.0, 1.0)}))}
        ),
        ValueError,
        "observations['y']: StimulusGain: no prior can be put on 'gate'; expected one of ['beta', 'state_weight', "
        "'stimulus_weight', 'gate_bias']",
    ),
    "prior that is a number": (
        lambda: lr.Poisson(priors={"weight": 1.0}),
        TypeError,
        "Poisson: priors['weight'] must be a distribution; found float",
    ),
    "prior that is a vector": (
        lambda: model(observations={"y": lr.Poisson(priors={"baseline": dist.Normal(torch.zeros(7), 1.0)})}),
        ValueError,
        "LinearReadout: priors['baseline'] must be a distribution of one entry, for all alike, or of shape (3,); found "
        "shape (7,)",
    ),
    "unknown class in a file": (
        lambda: from_config({"class": "Transformer", "arguments": {}}),
        ValueError,
        "unknown component class 'Transformer'; if it is your own, import what defines it first",
    ),
}

MODELS: dict[str, Case] = {
    "a coupling without a list": (
        lambda: model(couplings=lr.SurvivalConsistency("y", "label")),
        TypeError,
        "LatentRNN: couplings must be a list of Couplings; found SurvivalConsistency",
    ),
    "inputs in an array without axes": (
        lambda: model(inputs=np.array("x")),
        TypeError,
        "LatentRNN: inputs must be covariate names or features; found array('x'",
    ),
    "no couplings": (
        lambda: model(couplings=None),
        TypeError,
        "LatentRNN: couplings must be a list of Couplings; found None",
    ),
    "data instead of their spec": (
        lambda: lr.LatentRNN(DATA, transition=lr.GRU(3), latent=lr.Deterministic(), observations={"y": lr.Poisson()}),
        TypeError,
        "LatentRNN: spec must be a DataSpec (data.spec); found SequenceData",
    ),
    "transition by name": (
        lambda: model(transition="gru"),
        TypeError,
        "LatentRNN: transition must be a Transition; found str",
    ),
    "transition as a class": (
        lambda: model(transition=lr.GRU),
        TypeError,
        "transition must be a Transition; found type",
    ),
    "latent by number": (lambda: model(latent=4), TypeError, "LatentRNN: latent must be a Latent; found int"),
    "no observations": (
        lambda: model(observations={}),
        ValueError,
        "LatentRNN: observations must name at least one head of the data, ['y']; found {}",
    ),
    "observations without a name": (
        lambda: model(observations=lr.Poisson()),
        ValueError,
        "LatentRNN: observations must name at least one head of the data, ['y']; found Poisson()",
    ),
    "unknown head": (
        lambda: model(observations={"spikes": lr.Poisson()}),
        ValueError,
        "observations['spikes']: the data have no such head; they have ['y']",
    ),
    "a family by name": (
        lambda: model(observations={"y": "poisson"}),
        TypeError,
        "observations['y']: expected an Observation; found str",
    ),
    "unknown covariate": (
        lambda: model(inputs=["speed"]),
        ValueError,
        "inputs: unknown covariate 'speed'; the data have ['stimulus']",
    ),
    "inputs as numbers": (
        lambda: model(inputs=[3]),
        TypeError,
        "inputs: expected covariate names or features; found int",
    ),
    "gain on a missing stimulus": (
        lambda: model(observations={"y": lr.Poisson(gain=lr.StimulusGain("sound"))}),
        ValueError,
        "observations['y']: StimulusGain: unknown covariate 'sound'; the data have ['stimulus']",
    ),
    "head on an unknown covariate": (
        lambda: model(observations={"y": lr.Poisson(covariates=["speed"])}),
        ValueError,
        "observations['y']: unknown covariate 'speed'; the data have ['stimulus']",
    ),
    "MarkovNormal of an LSTM": (
        lambda: model(transition=lr.LSTM(3), latent=lr.MarkovNormal()),
        ValueError,
        "MarkovNormal draws the whole state at every step, but the state of LSTM(hidden_size=3) holds 6 numbers of "
        "which its output is 3; expected a single-layer transition without a separate cell state",
    ),
    "MarkovNormal of stacked layers": (
        lambda: model(transition=lr.GRU(3, layers=2), latent=lr.MarkovNormal()),
        ValueError,
        "MarkovNormal draws the whole state at every step, but the state of GRU(hidden_size=3, layers=2) holds 6 ",
    ),
    "MarkovNormal with feedback": (
        lambda: model(latent=lr.MarkovNormal(), observations={"y": lr.Poisson(feedback=lr.History(2))}),
        ValueError,
        "observations['y']: MarkovNormal draws its states before any observation, so feedback into the transition has "
        "nowhere to go; use History(into='readout'), or Innovations",
    ),
    "Multinomial of one channel": (
        lambda: model(lr.SequenceData.from_arrays({"y": COUNTS[..., :1]}), {"y": lr.Multinomial()}),
        ValueError,
        "observations['y']: Multinomial needs at least 2 channels; found 1",
    ),
    "Multinomial per sequence": (
        lambda: model(LABELLED, {"label": lr.Multinomial()}),
        ValueError,
        "observations['label']: Multinomial needs a per-step head",
    ),
    "full covariance per sequence": (
        lambda: model(LABELLED, {"label": lr.Gaussian(covariance="full")}),
        ValueError,
        "observations['label']: Gaussian(covariance='full') needs a per-step head",
    ),
    "feedback per sequence": (
        lambda: model(LABELLED, {"label": lr.Bernoulli(feedback=lr.History(2))}),
        ValueError,
        "observations['label']: a per-sequence head has no time axis for gain, covariates or feedback",
    ),
    "feedback of a slow head": (
        lambda: model(LABELLED, {"slow": lr.Poisson(feedback=lr.History(2))}),
        ValueError,
        "observations['slow']: feedback needs a head on the base clock; this one's clock is 2",
    ),
    "an array instead of data": (lambda: model()(COUNTS), TypeError, "expected SequenceData; found ndarray"),
    "data of other channels": (
        lambda: model()(lr.SequenceData.from_arrays({"y": COUNTS[..., :2]}, {"stimulus": STIMULUS}, dt=0.01)),
        ValueError,
        "observations['y'].channels: expected 3, found 2",
    ),
    "data without the covariate": (
        lambda: model()(DATA.select(covariates=[])),
        ValueError,
        "covariates['stimulus']: expected by the model, but the data has only []",
    ),
    "data of another clock": (
        lambda: posterior().model.check(lr.SequenceData.from_arrays({"y": COUNTS}, {"stimulus": STIMULUS}, dt=0.02)),
        ValueError,
        "dt: expected 0.01, found 0.02",
    ),
}

GUIDES: dict[str, Case] = {
    "no encoder": (
        lambda: lr.Guide(model()),
        ValueError,
        "Guide: the model's latent sites ['innovations'] need an encoder, e.g. RNNEncoder(64)",
    ),
    "mixing of a Markov guide": (
        lambda: lr.Markov(8, mixing="full"),
        ValueError,
        "Markov: mixing must be one of 'shared', 'step'; found 'full'",
    ),
    "a guide for data": (lambda: lr.Guide(DATA), TypeError, "Guide: model must be a LatentRNN; found SequenceData"),
    "encoder by number": (
        lambda: guide(model(), encoder=64),
        TypeError,
        "Guide: encoder must be an Encoder; found int",
    ),
    "unknown family": (
        lambda: guide(model(), global_family="lowrank"),
        ValueError,
        "Guide: global_family must be one of 'normal', 'multivariate', 'low_rank', 'flow', 'point'; found 'lowrank'",
    ),
    "unknown direction": (
        lambda: lr.RNNEncoder(3, direction="forward"),
        ValueError,
        "RNNEncoder: direction must be one of 'causal', 'backward', 'bidirectional'; found 'forward'",
    ),
    "unknown cell": (
        lambda: lr.RNNEncoder(3, cell="rnn"),
        ValueError,
        "RNNEncoder: cell must be one of 'gru', 'lstm', 'tanh', 'relu'; found 'rnn'",
    ),
    "encoder of no size": (lambda: lr.RNNEncoder(0), ValueError, "RNNEncoder: hidden_size must be a positive integer"),
    "encoder of no layers": (lambda: lr.RNNEncoder(3, layers=0), ValueError, "RNNEncoder: layers must be a positive"),
    "encoder of an unknown head": (
        lambda: guide(model(), encoder=lr.RNNEncoder(3, observes=["spikes"])),
        ValueError,
        "RNNEncoder: observes unknown head 'spikes'; the model has ['y']",
    ),
    "encoder of a label": (
        lambda: guide(
            model(LABELLED, {"y": lr.Poisson(), "label": lr.Bernoulli()}), encoder=lr.RNNEncoder(3, observes=["label"])
        ),
        ValueError,
        "RNNEncoder: 'label' is a per-sequence head: showing it would leak the label",
    ),
    "nothing to see": (
        lambda: guide(model(LABELLED), encoder=lr.RNNEncoder(3, observes=[])),
        ValueError,
        "RNNEncoder: nothing to see: no covariate, and no per-step head among those it observes",
    ),
    "held out, and yet fed back": (
        lambda: guide(
            model(observations={"y": lr.Poisson(feedback=lr.History(2))}), encoder=lr.RNNEncoder(3, observes=[])
        ),
        ValueError,
        "observations['y'] feeds back into the state but is held out from the encoder",
    ),
}

VALUES: dict[str, Case] = {
    "negative count": (
        values(-1.0, lr.Poisson()),
        ValueError,
        "observations['y']: Poisson needs non-negative integers; found -1.0 at sequence 1, step 2, channel 0",
    ),
    "half a count": (
        values(0.5, lr.Poisson()),
        ValueError,
        "Poisson needs non-negative integers; found 0.5 at sequence 1",
    ),
    "Bernoulli of two": (
        values(2.0, lr.Bernoulli()),
        ValueError,
        "observations['y']: Bernoulli needs zeros and ones; found 2.0 at sequence 1, step 2, channel 0",
    ),
    "code out of range": (
        values(3.0, lr.Categorical(3)),
        ValueError,
        "observations['y']: Categorical needs integer codes from 0 to 2; found 3.0 at sequence 1, step 2, channel 0",
    ),
    "half a code": (
        values(0.5, lr.Categorical(3)),
        ValueError,
        "Categorical needs integer codes from 0 to 2; found 0.5",
    ),
    "negative multinomial": (
        values(-2.0, lr.Multinomial()),
        ValueError,
        "observations['y']: Multinomial needs non-negative integers; found -2.0 at sequence 1, step 2, channel 0",
    ),
    "label of two": (
        lambda: fit(
            two := lr.SequenceData.from_arrays({"y": COUNTS, "label": [[0], [1], [2], [0]]}, per_sequence=["label"]),
            of=model(two, {"label": lr.Bernoulli(), "y": lr.Poisson()}),
        ),
        ValueError,
        "observations['label']: Bernoulli needs zeros and ones; found 2.0 at sequence 2, channel 0",
    ),
    "bad value in a posterior": (
        lambda: lr.Posterior(model(), guide(model()), DATA.with_observations({"y": DATA.observations["y"] - 9.0})),
        ValueError,
        "observations['y']: Poisson needs non-negative integers; found",
    ),
}

FITS: dict[str, Case] = {
    "processes by an array": (
        lambda: fit(compute=lr.Compute(device="cpu", processes=np.array(["auto", "alone"]))),
        ValueError,
        "Compute: processes must be 'auto' or 'alone'; found array(",
    ),
    "precision by an array": (
        lambda: fit(compute=lr.Compute(device="cpu", matmul_precision=np.array(["high", "high"]))),
        ValueError,
        "Compute: matmul_precision must be None or one of ['highest', 'high', 'medium']; found array(",
    ),
    "a device beyond all numbers": (
        lambda: fit(compute=lr.Compute(device=10**30)),
        ValueError,
        "device: expected 'auto' or the name of a torch device; found 1000000000000000000000000000000",
    ),
    "arguments in another order": (
        lambda: lr.fit(guide(model()), model(), DATA, reporting=lr.Reporting(progress=False)),
        TypeError,
        "fit: model must be a LatentRNN; found Guide",
    ),
    "an array to train on": (lambda: fit(COUNTS), TypeError, "fit: train must be a SequenceData; found ndarray"),
    "an array to validate on": (lambda: fit(DATA, COUNTS), TypeError, "expected SequenceData; found ndarray"),
    "the training data to validate on": (
        lambda: fit(DATA, DATA),
        ValueError,
        "fit: 4 validation sequences are training sequences too; validation.without(train)",
    ),
    "no steps": (lambda: fit(steps=0), ValueError, "fit: steps must be a positive integer; found 0"),
    "half a batch": (lambda: fit(batch_size=0.5), ValueError, "fit: batch_size must be a positive integer; found 0.5"),
    "no particles": (
        lambda: fit(objective=lr.ELBO(num_particles=0)),
        ValueError,
        "ELBO: num_particles must be a positive integer; found 0",
    ),
    "no reports": (
        lambda: fit(reporting=lr.Reporting(progress=False, every=0)),
        ValueError,
        "Reporting: every must be a positive integer; found 0",
    ),
    "optimizer of torch": (
        lambda: fit(optimizer=torch.optim.Adam),
        TypeError,
        "fit: optimizer must be AdamW; found type",
    ),
    "weight of the KL as a number": (
        lambda: fit(objective=lr.ELBO(kl=0.5)),
        TypeError,
        "ELBO: kl must be a KLWarmUp; found 0.5",
    ),
    "patience as a number": (lambda: fit(stopping=5), TypeError, "fit: stopping must be EarlyStopping; found int"),
    "schedule by name": (
        lambda: fit(optimizer=lr.AdamW(schedule="cosine")),
        TypeError,
        "AdamW: schedule must be a Constant or a Cosine or a Plateau or a Staircase; found 'cosine'",
    ),
    "start from a path": (
        lambda: fit(start_from="runs/gru"),
        TypeError,
        "fit: start_from must be a FitResult; found str",
    ),
    "start from another model": (
        lambda: fit(start_from=fit(of=(other := model(transition=lr.GRU(5))), by=guide(other))),
        ValueError,
        "fit: start_from holds another model: expected LatentRNN(transition=GRU(hidden_size=3)",
    ),
    "dropout of everything": (
        lambda: fit(objective=lr.ELBO(coordinated_dropout=1.0)),
        ValueError,
        "ELBO: coordinated_dropout must be in [0, 1); found 1.0",
    ),
    "unknown device": (
        lambda: fit(compute=lr.Compute(device="gpu")),
        ValueError,
        "device: expected 'auto' or the name of a torch device; found 'gpu'",
    ),
    "warm-up to the end": (
        lambda: lr.KLWarmUp(1.0),
        ValueError,
        "KLWarmUp: fraction must be in [0, 1), so that the fit ends at the ELBO; found 1.0",
    ),
    "negative warm-up": (lambda: lr.KLWarmUp(-0.1), ValueError, "KLWarmUp: fraction must be in [0, 1)"),
    "learning rate zero": (
        lambda: lr.Adam(learning_rate=0.0),
        ValueError,
        "Adam: learning_rate must be positive; found 0.0",
    ),
    "learning rate that is none": (
        lambda: lr.Adam(learning_rate=float("nan")),
        ValueError,
        "Adam: learning_rate must be positive; found nan",
    ),
    "negative decay": (
        lambda: lr.AdamW(weight_decay=-1.0),
        ValueError,
        "AdamW: weight_decay must not be negative; found -1.0",
    ),
    "clipping to nothing": (
        lambda: lr.AdamW(clip_norm=0.0),
        ValueError,
        "AdamW: clip_norm must be positive; found 0.0",
    ),
    "no patience": (
        lambda: lr.EarlyStopping(patience=0),
        ValueError,
        "EarlyStopping: patience must be at least 1 or None",
    ),
    "evaluation at every zero steps": (
        lambda: lr.EarlyStopping(every=0),
        ValueError,
        "EarlyStopping: every must be positive; found 0",
    ),
}
if not torch.cuda.is_available():
    FITS["CUDA without CUDA"] = (
        lambda: fit(compute=lr.Compute(device="cuda")),
        ValueError,
        'device: "cuda" was asked for, but torch finds no CUDA device; use "auto" or "cpu"',
    )

POSTERIORS: dict[str, Case] = {
    "no guide": (
        lambda: lr.Posterior(model(), None, DATA),
        TypeError,
        "Posterior: guide must be a Guide; found NoneType",
    ),
    "rates of an unknown head": (
        lambda: posterior().mean("spikes"),
        ValueError,
        "unknown head 'spikes'; the model has ['y']",
    ),
    "replicates of an unknown head": (
        lambda: posterior().predictive(2, heads=["spikes"]),
        ValueError,
        "predictive: unknown head 'spikes' in heads; there are ['y']",
    ),
    "gain without a gain": (lambda: posterior().gain("y"), ValueError, "gain: head 'y' has no StimulusGain"),
    "latents from nowhere": (
        lambda: posterior().predictive(2, latents="guide"),
        ValueError,
        "predictive: latents must be one of 'posterior', 'prior'; found 'guide'",
    ),
    "unknown feedback": (
        lambda: posterior().predictive(2, feedback="forced"),
        ValueError,
        "predictive: feedback must be one of 'free', 'recorded'; found 'forced'",
    ),
    "unknown evidence": (
        lambda: posterior().evidence("waic"),
        ValueError,
        "evidence: kind must be one of 'auto', 'elbo', 'iwae', 'smc', 'ais', 'exact'; found 'waic'",
    ),
    "one filter": (
        lambda: posterior().one_step_ahead("y", num_filters=1),
        ValueError,
        "one_step_ahead: num_filters must be an integer of at least 2; found 1",
    ),
    "one draw": (
        lambda: posterior().one_step_ahead("y", num_draws=1),
        ValueError,
        "one_step_ahead: num_draws must be an integer of at least 2; found 1",
    ),
    "no draws": (lambda: posterior().latents(0), ValueError, "number of draws must be a positive integer; found 0"),
    "no particles": (lambda: posterior().evidence(num_particles=0), ValueError, "num_particles must be a positive"),
    "rates against counts of another shape": (
        lambda: lr.bits_per_spike(torch.ones(4, 6, 2), COUNTS),
        ValueError,
        "rates: expected (sequence, time, channel) like counts; got (4, 6, 2) and (4, 6, 3)",
    ),
    "negative rates": (
        lambda: lr.bits_per_spike(-torch.ones(4, 6, 3), COUNTS),
        ValueError,
        "rates: expected non-negative expected counts, found -1",
    ),
    "nothing to score": (
        lambda: lr.bits_per_spike(torch.ones(4, 6, 3), np.zeros((4, 6, 3))),
        ValueError,
        "counts: no spike in the scored entries, bits per spike are undefined",
    ),
}

CASES = {
    f"{room}: {name}": case
    for room, cases in (
        ("part", PARTS),
        ("model", MODELS),
        ("guide", GUIDES),
        ("value", VALUES),
        ("fit", FITS),
        ("posterior", POSTERIORS),
    )
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_mistakes_are_named(name: str) -> None:
    mistake, error, message = CASES[name]
    with pytest.raises(error, match=re.escape(message)):
        mistake()


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit")
    fit().save(path)
    return path


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such directory; expected one that FitResult\.save wrote"):
        lr.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"not a latentrnn checkpoint; expected a directory with a latentrnn\.json"):
        lr.load(tmp_path)


def test_a_spec_that_differs(saved: Path) -> None:
    assert lr.load(saved, spec=DATA.spec).spec == DATA.spec
    other = lr.SequenceData.from_arrays({"y": COUNTS[..., :2]}, {"stimulus": STIMULUS}, dt=0.01)
    with pytest.raises(ValueError, match=r"does not fit this data: observations\['y'\]\.channels: expected 3, found 2"):
        lr.load(saved, spec=other.spec)


def test_damaged_files(saved: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        target = tmp_path / name
        target.mkdir()
        for file in saved.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    cut = copy("cut")
    weights = next(cut.glob("model-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="truncated or replaced; expected"):
        lr.load(cut)
    flipped = copy("flipped")
    weights = next(flipped.glob("guide-*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ValueError, match="damaged or replaced; expected SHA-256"):
        lr.load(flipped)
    garbled = copy("garbled")
    (garbled / "latentrnn.json").write_text('{"format": ')
    with pytest.raises(ValueError, match="damaged or truncated; not valid JSON"):
        lr.load(garbled)
    edited = copy("edited")
    manifest = json.loads((edited / "latentrnn.json").read_text())
    manifest["model"]["transition"]["arguments"]["hidden_size"] = 5
    (edited / "latentrnn.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="damaged, or edited after it was saved"):
        lr.load(edited)
