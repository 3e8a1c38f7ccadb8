"""One argument of a good call is replaced by something else: the package takes it, or says what was expected."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import cache, wraps
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st

import latentrnn as lr
from tests.fuzz.conftest import number
from tests.fuzz.rule import TALLY, RawError, attempt

JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 0.0, -0.5, 0.5, 1.7, float("nan"), float("inf"), -float("inf"), 10**30,
    1e300, "", "a", "y", "x", b"x", 1j, [], [0], [1, 2], ["a"], ["y"], [None], (), (1, 2), (0.5, 0.5), {}, {"y": 1},
    {"y": None}, {1: 2}, {"a": "b"}, set(), range(3), object(), int, len, np.int64(2), np.float32(0.5),
    np.bool_(True), np.array(3), np.array("a"), np.array([]), np.arange(3), np.full((2, 3), np.nan), np.zeros((2, 5,
    2)), np.array([None, 1]), np.datetime64("2026-01-01"), torch.tensor(2), torch.tensor(0.5), torch.tensor([]),
    torch.zeros(2, 5, 2), torch.ones(3, dtype=torch.bool), torch.zeros(2, device="meta"), torch.eye(2).to_sparse(),
    torch.float16, torch.device("cpu"), dist.Normal(0.0, 1.0), dist.Normal(torch.zeros(2), 1.0), dist.Poisson(1.0),
    lr.GRU(2), lr.Poisson(), lr.AdamW(), lr.MeanField(), lr.ELBO(), lr.SMC(),
)  # fmt: skip

COMPONENTS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "GRU": (lr.GRU, {"hidden_size": 2, "layers": 1, "dropout": 0.0, "zoneout": 0.0, "layer_norm": False}),
    "LSTM": (lr.LSTM, {"hidden_size": 2, "layers": 2, "dropout": 0.1, "zoneout": 0.1, "layer_norm": False}),
    "VanillaRNN": (lr.VanillaRNN, {"hidden_size": 2, "layers": 1, "nonlinearity": "tanh"}),
    "Linear": (lr.Linear, {"hidden_size": 2}),
    "LeakyIntegrator": (lr.LeakyIntegrator, {"hidden_size": 2, "tau": 1.0, "learned": True, "average": True}),
    "CoupledGateLSTM": (lr.CoupledGateLSTM, {"hidden_size": 2, "priors": None}),
    "ModulatedForgetLSTM": (lr.ModulatedForgetLSTM, {"hidden_size": 2, "fixed": {"beta": 0.1}}),
    "MinGRU": (lr.MinGRU, {"hidden_size": 2, "priors": {"map.bias": dist.Normal(0.0, 1.0)}}),
    "DiagonalLinear": (lr.DiagonalLinear, {"hidden_size": 2, "priors": {"time_constant": dist.LogNormal(1.0, 1.0)}}),
    "Decay": (lr.Decay, {"transition": lr.GRU(2), "tau": 1.0, "learned": True}),
    "GatedTransition": (lr.GatedTransition, {"hidden_size": 2, "width": 3}),
    "SwitchingLinear": (lr.SwitchingLinear, {"hidden_size": 2, "regimes": 2, "weights": "softmax", "switch": "both"}),
    "ThermodynamicCell": (lr.ThermodynamicCell, {"hidden_size": 2, "width": 3, "time_scale": 1.0}),
    "NeuralODE": (
        lr.NeuralODE,
        {"hidden_size": 2, "width": 3, "time_scale": 1.0, "method": "rk4", "rtol": 1e-5, "atol": 1e-6, "substeps": 2},
    ),
    "Streams": (lr.Streams, {"streams": {"a": lr.GRU(2)}, "inputs": {"a": "x"}, "common": "a"}),
    "Deterministic": (lr.Deterministic, {"priors": None, "fixed": {"initial_state": 0.0}}),
    "Innovations": (lr.Innovations, {"dim": 2, "initial": 2, "prior": "white"}),
    "InitialState": (lr.InitialState, {"dim": 2, "prior": "standard"}),
    "LinearGaussian": (lr.LinearGaussian, {"observes": ["y"], "scale": "constant"}),
    "MarkovNormal": (lr.MarkovNormal, {"scale": "constant"}),
    "RecurrentNormal": (lr.RecurrentNormal, {"dim": 2, "initial": 2, "reads": "both"}),
    "RelaxedDiscrete": (lr.RelaxedDiscrete, {"num_states": 2, "temperature": 0.5, "initial": 2}),
    "Discrete": (lr.Discrete, {"num_states": 2, "weights": "shared", "driven": False, "observes": ["y"]}),
    "Poisson": (
        lr.Poisson,
        {
            "link": "exp",
            "gain": None,
            "feedback": None,
            "covariates": ["x"],
            "readout": None,
            "priors": {"baseline": dist.Normal(0.0, 1.0)},
            "pooling": "last",
        },
    ),
    "Gaussian": (lr.Gaussian, {"covariance": "low_rank", "rank": 1, "link": "identity", "readout": lr.LinearReadout()}),
    "StudentT": (lr.StudentT, {"link": "identity", "priors": {"df": dist.Uniform(2.0, 30.0)}}),
    "LogNormal": (lr.LogNormal, {"priors": {"scale": dist.HalfNormal(1.0)}, "fixed": None}),
    "Gamma": (lr.Gamma, {"link": "exp", "fixed": {"shape": 2.0}}),
    "ZeroInflatedGamma": (lr.ZeroInflatedGamma, {"zeros": "state", "link": "exp"}),
    "NegativeBinomial": (lr.NegativeBinomial, {"link": "exp", "exposure": "x", "fixed": {"dispersion": 1.0}}),
    "Bernoulli": (lr.Bernoulli, {"link": "sigmoid", "covariates": ["x"]}),
    "Multinomial": (lr.Multinomial, {"covariates": ["x"], "priors": {"baseline": dist.Normal(0.0, 1.0)}}),
    "DirichletMultinomial": (lr.DirichletMultinomial, {"gain": None, "readout": lr.LinearReadout()}),
    "DiscreteHazard": (lr.DiscreteHazard, {"link": "sigmoid", "pooling": "last"}),
    "Binomial": (lr.Binomial, {"total_count": 3, "link": "sigmoid"}),
    "BetaBinomial": (lr.BetaBinomial, {"total_count": [3, 2], "link": "sigmoid"}),
    "Categorical": (lr.Categorical, {"classes": 3}),
    "OrderedLogistic": (lr.OrderedLogistic, {"levels": 3}),
    "Volatility": (lr.Volatility, {"tails": "student"}),
    "ZeroInflatedPoisson": (lr.ZeroInflatedPoisson, {"zeros": "state", "link": "exp"}),
    "AutoregressiveBernoulli": (lr.AutoregressiveBernoulli, {"units": 3}),
    "Calcium": (
        lr.Calcium,
        {
            "decay": 0.5,
            "rise": 0.1,
            "kernel": "ar2",
            "learn_kernel": True,
            "drift": 0.1,
            "events": None,
            "link": "softplus",
            "response": "identity",
        },
    ),
    "StimulusGain": (
        lr.StimulusGain,
        {"stimulus": "x", "lags": 2, "gated": True, "priors": {"beta": dist.Normal(0.0, 1.0)}},
    ),
    "History": (lr.History, {"steps": 2, "filters": 1, "into": ("transition",)}),
    "LinearReadout": (lr.LinearReadout, {"priors": {"weight": dist.Normal(0.0, 1.0)}, "fixed": {"baseline": 0.0}}),
    "FactorReadout": (lr.FactorReadout, {"factors": 2, "priors": None}),
    "MLPReadout": (lr.MLPReadout, {"hidden_size": 3, "layers": 1, "activation": "tanh"}),
    "CausalAttention": (lr.CausalAttention, {"size": 4, "heads": 2}),
    "WindowedAttention": (lr.WindowedAttention, {"window": 2, "size": 4, "heads": 2}),
    "ModulatedAttention": (lr.ModulatedAttention, {"by": "x", "size": 4, "heads": 2}),
    "SourceAttention": (lr.SourceAttention, {"source": "x", "size": 4, "heads": 2, "hidden_size": 2, "valid": "x"}),
    "CrossAttention": (lr.CrossAttention, {"asking": "a", "asked": "b", "size": 4, "heads": 2}),
    "AttentionPooling": (lr.AttentionPooling, {"size": 4}),
    "Population": (lr.Population, {"name": "p", "location": dist.Normal(0.0, 1.0), "scale": dist.HalfNormal(1.0)}),
    "NetworkPrior": (
        lr.NetworkPrior,
        {"scale": 1.0, "bias_scale": dist.HalfNormal(1.0), "learned": True, "shared": False},
    ),
    "Lags": (lr.Lags, {"covariate": "x", "steps": 2, "future": 1}),
    "OneHot": (lr.OneHot, {"covariate": "x", "symbols": 3}),
    "Embedding": (lr.Embedding, {"covariate": "x", "symbols": 3, "dim": 2}),
    "Convolution": (
        lr.Convolution,
        {"covariates": "x", "filters": 2, "widths": (3,), "dilations": (1,), "causal": True, "activation": "relu"},
    ),
    "BidirectionalRNN": (lr.BidirectionalRNN, {"covariates": "x", "hidden_size": 2, "layers": 1}),
    "RNNEncoder": (
        lr.RNNEncoder,
        {
            "hidden_size": 3,
            "direction": "causal",
            "observes": ["y"],
            "layers": 1,
            "mask_input": True,
            "read_in": 2,
            "lag": 0,
            "cell": "gru",
        },
    ),
    "StepEncoder": (lr.StepEncoder, {"hidden_sizes": (3,), "observes": ["y"], "mask_input": True, "read_in": 2}),
    "Markov": (lr.Markov, {"hidden_size": 3, "mixing": "shared"}),
    "DrivenMarkov": (lr.DrivenMarkov, {"hidden_size": 3, "mixing": "shared"}),
    "GaussianChain": (lr.GaussianChain, {"readings": 2, "full": True}),
    "Flow": (lr.Flow, {"base": lr.MeanField(), "layers": 1, "hidden_size": 3}),
    "PerSequence": (lr.PerSequence, {"base": lr.MeanField()}),
    "OutcomeCalibration": (lr.OutcomeCalibration, {"steps": "y", "sequence": "z", "weight": 1.0, "name": "n"}),
    "AdamW": (
        lr.AdamW,
        {"learning_rate": 1e-2, "weight_decay": 0.01, "clip_norm": 1.0, "betas": (0.9, 0.99), "averaging": 0.5},
    ),
    "Cosine": (lr.Cosine, {"rise": 2, "final": 0.1}),
    "Plateau": (lr.Plateau, {"patience": 2, "factor_per_fall": 0.5}),
    "Staircase": (lr.Staircase, {"rise": 2, "factor_per_fall": 0.5, "falls": 2}),
    "KLWarmUp": (lr.KLWarmUp, {"fraction": 0.2, "start": 0.1}),
    "EarlyStopping": (
        lr.EarlyStopping,
        {"every": 2, "patience": 2, "num_particles": 2, "max_steps": 9, "max_time": 60.0, "monitor": ["y"]},
    ),
    "Rollback": (lr.Rollback, {"times": 2, "factor": 0.5, "tolerance": 20.0}),
    "ELBO": (lr.ELBO, {"sticking_the_landing": False, "free_bits": 0.1}),
    "IWAE": (lr.IWAE, {"doubly_reparameterised": True}),
    "Renyi": (lr.Renyi, {"alpha": 0.5}),
    "FIVO": (lr.FIVO, {"resample_below": 0.5}),
    "SMC": (lr.SMC, {"num_filters": 2, "proposal": "prior", "resample_below": 0.5}),
    "AIS": (lr.AIS, {"temperatures": 3, "leapfrog": 2, "pilot": 1}),
    "ConjugateForce": (lr.ConjugateForce, {"strain": "x"}),
    "PhysicalPenalty": (lr.PhysicalPenalty, {"function": lambda rollout: 0.0, "weight": 1.0, "name": "n"}),
    "LocalGlobalAgreement": (lr.LocalGlobalAgreement, {"steps": "y", "sequence": "z", "weight": 1.0, "name": "n"}),
    "PhaseClassAgreement": (lr.PhaseClassAgreement, {"steps": "y", "sequence": "z", "weight": 1.0, "name": "n"}),
    "SurvivalConsistency": (lr.SurvivalConsistency, {"steps": "y", "sequence": "z", "weight": 1.0, "name": "n"}),
    "Window": (lr.Window, {"steps": 3, "overlap": 1}),
    "Adam": (
        lr.Adam,
        {"learning_rate": 1e-2, "weight_decay": 0.01, "clip_norm": 1.0, "betas": (0.9, 0.99), "averaging": 0.5},
    ),
    "Checkpointing": (lr.Checkpointing, {"directory": "fits", "every": 60.0, "resume": False}),
    "Compute": (
        lr.Compute,
        {"device": "cpu", "processes": "auto", "matmul_precision": "high", "window": lr.Window(3)},
    ),
    "Reporting": (lr.Reporting, {"progress": False, "every": 10, "callbacks": (), "check_priors": True}),
    "Clamp": (lr.Clamp, {"value": np.zeros((5, 2)), "dims": ("time", "unit")}),
    "ParameterSpec": (
        lr.ParameterSpec.positive,
        {"raw": "log_rate", "least": 0.0, "unit": "per second or step", "dims": ("unit",)},
    ),
    "Statistic": (
        lr.Statistic,
        {"name": "mean", "function": len, "applies_to": frozenset({"count"}), "labels": ("a", "b")},
    ),
}


@cache
def world() -> dict[str, Any]:
    """A small fit and what belongs to it."""
    rng = np.random.default_rng(0)
    data = lr.SequenceData.from_arrays(
        {"y": rng.poisson(1.0, (12, 5, 2)), "z": rng.normal(size=(12, 1))},
        {"x": rng.normal(size=(12, 5, 1))},
        per_sequence=["z"],
        dt=0.1,
    )
    head = lr.Poisson(gain=lr.StimulusGain("x"), priors={"baseline": dist.Normal(0.0, 1.0)})
    model = lr.LatentRNN(
        data.spec,
        transition=lr.GRU(3),
        latent=lr.Innovations(1, initial=1),
        observations={"y": head, "z": lr.Gaussian()},
        inputs=["x"],
    )
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal"))
    result = lr.fit(model, guide, data[:4], steps=2, reporting=lr.Reporting(progress=False))
    many, smooth = result.posterior(data[6:]), data.select(heads=["y"], covariates=[])
    constant = lr.LatentRNN(
        smooth.spec,
        transition=lr.GRU(1),
        latent=lr.Deterministic(),
        observations={"y": lr.Poisson(fixed={"weight": 0.0})},
    )
    memory = lr.fit(constant, lr.Guide(constant), smooth, steps=2, reporting=lr.Reporting(progress=False))
    data = data[:6]
    posterior = result.posterior(data[4:])
    ensemble = lr.fit_ensemble(model, guide, data[:4], seeds=(0, 1), steps=1, reporting=lr.Reporting(progress=False))
    return {
        "ensemble": ensemble,
        "mixture": ensemble.posterior(data[4:]),
        "many": many,
        "smooth": smooth,
        "memory": memory,
        "data": data,
        "model": model,
        "guide": guide,
        "result": result,
        "posterior": posterior,
        "ahead": posterior.one_step_ahead("y", 3, 2, 2),
        "forecast": posterior.forecast(2, {"x": np.zeros((2, 2, 1))}, num_samples=4),
        "rates": posterior.mean("y", 2),
        "counts": data[4:].observations["y"],
    }


def table() -> pd.DataFrame:
    """Rows of two sequences, two of which are missing."""
    return pd.DataFrame(
        {
            "who": ["p"] * 3 + ["q"] * 2,
            "t": [0.0, 0.5, 1.5, 0.0, 0.5],
            "a": np.arange(5.0),
            "b": [1.0, np.nan, 2.0, 0.5, 1.5],
            "kind": list("pqppq"),
            "dose": [1.0, np.nan, 2.0, 0.0, 1.0],
            "site": ["x"] * 3 + ["y"] * 2,
            "died": [0] * 3 + [1] * 2,
        }
    )


def tagged() -> lr.SequenceData:
    """Data of which something is known."""
    tags = {"side": ["l", "r", "l"], "age": [1, 2, 3]}
    return lr.SequenceData.from_arrays({"y": np.ones((3, 4, 1))}, metadata=tags)


@cache
def nlb() -> dict[str, Any]:
    """What a submission is made of: held-in and held-out counts in bins of 20 ms, the latter unseen by the guide."""
    counts = np.ones((3, 4, 2))
    data = lr.SequenceData.from_arrays({"seen": counts, "hidden": counts}, dt=0.02)
    heads = {"seen": lr.Poisson(), "hidden": lr.Poisson()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(1), latent=lr.Innovations(1), observations=heads)
    posterior = lr.Posterior(model, lr.Guide(model, encoder=lr.RNNEncoder(1, observes=["seen"])), data)
    return {
        "path": "submission.h5",
        "dataset": "mc_maze_20",
        "train": posterior,
        "evaluation": posterior,
        "heldin": "seen",
        "heldout": "hidden",
        "forward_steps": 0,
        "num_samples": 2,
    }


def briefly(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Return a fit that takes one step where no number of steps is given, which is no mistake."""

    @wraps(fit)
    def limited(**named: Any) -> Any:
        return fit(**named | ({"stopping": lr.EarlyStopping(max_steps=1)} if named.get("steps", 1) is None else {}))

    return limited


def filter_of(result: lr.FitResult, *, seen: bool = False) -> lr.OnlineFilter:
    """An online filter of a few particles, before its first step or after it."""
    online = lr.OnlineFilter(result, num_particles=3)
    if seen:
        online.update({"y": [1.0, 0.0]}, {"x": [0.1]})
    return online


def calls() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Good calls of the world's methods: function and arguments."""
    of = world()
    data, posterior, result = of["data"], of["posterior"], of["result"]
    counts, x = np.ones((3, 4, 2)), np.arange(12.0).reshape(3, 4, 1)
    smooth, memory = data.select(heads=["y"]), of["memory"]
    fit = {
        "model": of["model"],
        "guide": of["guide"],
        "train": data[:4],
        "validation": data[4:],
        "seed": 0,
        "steps": 1,
        "batch_size": 2,
        "objective": lr.ELBO(),
        "optimizer": lr.AdamW(),
        "stopping": lr.EarlyStopping(),
        "start_from": None,
        "checkpointing": None,
        "compute": lr.Compute("cpu"),
        "reporting": lr.Reporting(progress=False, every=1),
    }
    forecast, many, mixture = of["forecast"], of["many"], of["mixture"]
    return {
        "from_arrays": (
            lr.SequenceData.from_arrays,
            {
                "observations": {"y": counts},
                "covariates": {"x": x},
                "dt": 0.1,
                "masks": {"y": counts > 0},
                "totals": None,
                "clocks": {},
                "per_sequence": [],
                "channel_names": {"y": ["a", "b"]},
                "feature_names": {"x": ["f"]},
                "sequence_names": ["1", "2", "3"],
                "metadata": {"side": ["l", "r", "l"]},
                "standardise": ["x"],
                "dtype": torch.float64,
            },
        ),
        "from_dataframe": (
            lr.SequenceData.from_dataframe,
            {
                "frame": table(),
                "observations": {"y": ["a", "b"], "died": "died"},
                "covariates": ["kind", "dose"],
                "time": "t",
                "group": "who",
                "per_sequence": ["died"],
                "metadata": ["site"],
                "dt": 0.5,
                "sampling": "regular",
                "missing_covariates": {"dose": 0.0, "kind": 0.0},
                "levels": {"kind": ["p", "q"]},
                "standardise": ["y"],
                "dtype": torch.float64,
            },
        ),
        "from_dataframe, a row for each value": (
            lr.SequenceData.from_dataframe,
            {
                "frame": table().melt(["who", "t"], ["a", "b"], "what", "number"),
                "observations": ["a"],
                "covariates": ["b"],
                "time": "t",
                "group": ["who"],
                "variable": "what",
                "value": "number",
                "dt": 0.5,
                "missing_covariates": "indicator",
            },
        ),
        "from_xarray": (
            lr.SequenceData.from_xarray,
            {
                "dataset": data.to_xarray(),
                "observations": ["y"],
                "covariates": {"x": "x"},
                "dt": 0.1,
                "sampling": "regular",
                "standardise": None,
                "dtype": torch.float32,
            },
        ),
        "to_lfads": (
            lr.to_lfads,
            {"path": "lfads.h5", "posteriors": {"train": posterior}, "heads": ["y"], "num_samples": 2},
        ),
        "to_nlb": (lr.to_nlb, nlb()),
        "to_nwb": (
            lr.to_nwb,
            {
                "path": "results.nwb",
                "posterior": posterior,
                "heads": ["y"],
                "num_samples": 2,
                "description": "a",
                "session_start": None,
            },
        ),
        "report": (
            lr.report,
            {
                "posterior": memory.posterior(of["smooth"][:4]),
                "path": "fit.html",
                "title": "a fit",
                "criticism": None,
                "comparison": None,
                "num_samples": 4,
            },
        ),
        "criticise": (
            lr.criticise,
            {"posterior": memory.posterior(of["smooth"][:4]), "heads": ["y"], "num_samples": 4, "level": 0.5},
        ),
        "auroc": (lr.auroc, {"probability": [0.1, 0.7, 0.4, 0.6], "outcome": [0, 1, 1, 0], "mask": [True] * 4}),
        "brier_score": (lr.brier_score, {"probability": [0.1, 0.7], "outcome": [0, 1], "mask": None}),
        "concordance": (lr.concordance, {"risk": [1.0, 2.0], "time": [2.0, 1.0], "observed": [True, True]}),
        "reliability": (lr.reliability, {"probability": [0.1, 0.7], "outcome": [0, 1], "mask": None, "bins": 2}),
        "bits_per_symbol": (lr.bits_per_symbol, {"one_step_ahead": of["ahead"], "block_length": 2}),
        "score_of": (lr.score_of, {"log_prob": of["ahead"].log_prob, "like": of["ahead"], "mean": of["ahead"].mean}),
        "score_of, whole sequences": (lr.score_of, {"log_prob": np.zeros(len(posterior.data)), "like": posterior}),
        "where": (tagged().where, {"side": "l", "age": [1, 2]}),
        "stored": (
            lr.StoredSequences.from_arrays,
            {
                "observations": {"y": counts},
                "covariates": {"x": x},
                "dt": 0.1,
                "masks": {"y": counts > 0},
                "clocks": {},
                "per_sequence": [],
                "channel_names": {"y": ["a", "b"]},
                "standardise": None,
            },
        ),
        "times": (
            lr.SequenceData.from_arrays,
            {"observations": {"y": counts}, "times": np.tile(np.arange(4.0), (3, 1))},
        ),
        "from_spike_times": (
            lr.SequenceData.from_spike_times,
            {
                "spike_times": [[[0.1, 0.2], []]],
                "dt": 0.1,
                "duration": 0.5,
                "start": 0.0,
                "name": "s",
                "channel_names": ["a", "b"],
            },
        ),
        "split": (
            data.split,
            {
                "train": 0.5,
                "valid": 0.25,
                "test": 0.25,
                "seed": 0,
                "stratify": list("aabbab"),
                "along": "sequence",
                "context": 0,
            },
        ),
        "time_slice": (data.select(heads=["y"]).time_slice, {"start": 1, "stop": 3}),
        "windows": (data.select(heads=["y"]).windows, {"length": 2, "context": 1}),
        "batches": (lambda **k: list(data.batches(**k)), {"batch_size": 2, "generator": None}),
        "batch": (data.batch, {"indices": torch.tensor([0, 1])}),
        "select": (data.select, {"heads": ["y"], "covariates": ["x"]}),
        "index": (lambda item: data[item], {"item": 1}),
        "mask_entries": (data.mask_entries, {"name": "y", "hide": torch.zeros(6, 5, 2, dtype=torch.bool)}),
        "with_observations": (data.with_observations, {"observations": {"y": data.observations["y"]}}),
        "overlaps": (data.overlaps, {"other": data}),
        "without": (data.without, {"other": data[:2]}),
        "to": (data.to, {"device": "cpu", "dtype": torch.float64}),
        "scored": (data.scored, {"name": "y"}),
        "complete": (data.complete, {"name": "y"}),
        "has": (data.has, {"name": "y"}),
        "session": (data.session, {"name": "a"}),
        "join": (lr.SequenceData.join, {"sessions": {"a": data[:2], "b": data[2:]}, "shared": []}),
        "per_session": (lr.per_session, {"spec": data.spec, "observations": {"y": lr.Poisson()}}),
        "LatentRNN": (
            lr.LatentRNN,
            {
                "spec": data.spec,
                "transition": lr.GRU(2),
                "latent": lr.Innovations(1),
                "observations": {"y": lr.Poisson()},
                "inputs": ["x"],
                "couplings": (),
                "max_elements": None,
            },
        ),
        "Guide": (
            lr.Guide,
            {"model": of["model"], "encoder": lr.RNNEncoder(2), "family": lr.MeanField(), "global_family": "normal"},
        ),
        "fit": (briefly(lr.fit), fit),
        "fit_ensemble": (
            briefly(lr.fit_ensemble),
            {
                "model": of["model"],
                "guide": of["guide"],
                "train": data[:4],
                "seeds": (0, 1),
                "optimizers": None,
                "vectorised": False,
                "stacking": None,
                "num_evidence_particles": 2,
                "steps": 1,
                "reporting": lr.Reporting(progress=False),
            },
        ),
        "laplace": (
            lr.laplace,
            {
                "model": of["model"],
                "data": data,
                "given": result,
                "num_particles": 2,
                "steps": 100,
                "device": "cpu",
                "seed": 0,
                "check_priors": True,
            },
        ),
        "laplace_smoother": (
            lr.laplace_smoother,
            {
                "model": lr.LatentRNN(
                    smooth.spec, transition=lr.Linear(1), latent=lr.MarkovNormal(), observations={"y": lr.Poisson()}
                ),
                "data": smooth,
                "given": None,
                "steps": 100,
                "device": "cpu",
            },
        ),
        "uncertainty": (
            lr.uncertainty,
            {
                "result": memory,
                "data": of["smooth"],
                "quantity": "y.readout.baseline",
                "how": "laplace",
                "transform": "auto",
                "polish": 100,
                "num_particles": 32,
                "max_dense": 100,
                "refits": None,
                "device": "cpu",
                "seed": 0,
                "progress": False,
            },
        ),
        "sample": (
            lr.sample,
            {
                "model": of["model"],
                "data": data[:2],
                "num_samples": 2,
                "warmup": 2,
                "chains": 1,
                "given": result,
                "sites": "parameters",
                "num_particles": 2,
                "target_acceptance": 0.8,
                "max_tree_depth": 2,
                "device": "cpu",
                "seed": 0,
                "progress": False,
                "check_priors": True,
            },
        ),
        "check_priors": (
            lr.check_priors,
            {"model": of["model"], "data": data, "initialise": True, "num_samples": 10, "seed": 0},
        ),
        "prior_predictive of a model": (
            of["model"].prior_predictive,
            {"data": data, "num_samples": 2, "seed": 0, "latents": True, "device": "cpu", "max_elements": 100},
        ),
        "Posterior": (
            lr.Posterior,
            {
                "model": of["model"],
                "guide": of["guide"],
                "data": data,
                "result": None,
                "device": "cpu",
                "seed": 0,
                "chains": None,
                "window": None,
                "max_elements": 100,
            },
        ),
        "posterior": (
            result.posterior,
            {"data": data, "device": "cpu", "seed": 0, "window": None, "max_elements": None},
        ),
        "reseeded": (posterior.reseeded, {"seed": 1}),
        "restricted": (posterior.restricted, {"count": 1}),
        "refined": (posterior.refined, {"steps": 1, "learning_rate": 0.1, "num_particles": 1}),
        "latents": (posterior.latents, {"num_samples": 2}),
        "parameters": (posterior.parameters, {"num_samples": 2}),
        "rates": (posterior.rates, {"head": "y", "num_samples": 2}),
        "mean": (posterior.mean, {"head": "y", "num_samples": 2}),
        "predictive": (
            posterior.predictive,
            {"num_samples": 2, "heads": ["y"], "latents": "posterior", "feedback": "free"},
        ),
        "prior_predictive": (posterior.prior_predictive, {"num_samples": 2, "heads": ["y"]}),
        "gain": (posterior.gain, {"head": "y", "num_samples": 2}),
        "impute": (posterior.impute, {"head": "y", "num_samples": 2}),
        "couplings": (posterior.couplings, {"num_samples": 2}),
        "forecast": (
            posterior.forecast,
            {
                "horizon": 2,
                "covariates": {"x": np.zeros((2, 2, 1))},
                "times": None,
                "totals": None,
                "num_samples": 2,
                "heads": ["y"],
            },
        ),
        "counterfactual": (
            posterior.counterfactual,
            {
                "covariates": {"x": 1.0},
                "clamp": {"update": 0.5},
                "from_step": 1,
                "feedback": "recorded",
                "num_samples": 2,
            },
        ),
        "evidence": (posterior.evidence, {"kind": "iwae", "num_particles": 2}),
        "log_likelihood": (posterior.log_likelihood, {"num_particles": 2, "num_draws": 2}),
        "log_likelihood_of_draws": (posterior.log_likelihood_of_draws, {"num_draws": 2}),
        "log_prior": (posterior.log_prior, {"num_draws": 2}),
        "one_step_ahead": (
            posterior.one_step_ahead,
            {"head": "y", "num_particles": 2, "num_filters": 2, "num_draws": 2},
        ),
        "to_arviz": (
            lr.to_arviz,
            {
                "posterior": posterior,
                "num_samples": 2,
                "num_particles": 2,
                "prior_predictive": True,
                "latents": True,
                "pointwise": "one_step_ahead",
                "seed": 0,
                "container": "auto",
            },
        ),
        "OnlineFilter": (
            lr.OnlineFilter,
            {
                "source": result,
                "num_particles": 3,
                "proposal": "prior",
                "seed": 0,
                "check": True,
                "session": None,
                "num_draws": 2,
                "streams": ["a", "b"],
            },
        ),
        "follow": (lambda **k: next(filter_of(result).follow(**k)), {"data": data[:1]}),
        "log_likelihood_one_step_ahead": (
            posterior.log_likelihood_one_step_ahead,
            {"head": "y", "num_particles": 2, "num_draws": 2},
        ),
        "fresh": (filter_of(result).fresh, {"streams": 2, "seed": 1}),
        "forecast of a filter": (
            filter_of(result, seen=True).forecast,
            {"horizon": 2, "covariates": {"x": np.zeros((2, 1))}, "times": None, "totals": None, "num_samples": 3},
        ),
        "pit of a step": (filter_of(result, seen=True).update({"y": [1.0, 0.0]}, {"x": [0.1]}).pit, {"head": "y"}),
        "quantiles of a step": (
            filter_of(result, seen=True).update({"y": [1.0, 0.0]}, {"x": [0.1]}).quantiles,
            {"head": "y", "probabilities": [0.1, 0.9]},
        ),
        "calibrate_alarm": (
            lr.calibrate_alarm,
            {
                "online": lr.OnlineFilter(many, num_particles=3),
                "data": many.data,
                "rate": 0.5,
                "rate_of": "step",
                "score": "tail",
                "by": "channel",
                "head": "y",
            },
        ),
        "update": (
            lambda **k: lr.OnlineFilter(result, num_particles=3).update(**k),
            {"observation": {"y": [1.0, 0.0]}, "covariates": {"x": [0.1]}, "time": None, "totals": None},
        ),
        "compare": (
            lr.compare,
            {
                "models": {"a": many, "b": many.reseeded(1)},
                "data": None,
                "leave_out": None,
                "block_length": None,
                "scale": "log",
                "method": "stacking",
                "num_particles": 2,
                "held_out": False,
            },
        ),
        "leave_future_out": (
            lr.leave_future_out,
            {
                "fit": lambda past: result,
                "data": data[:1],
                "head": "y",
                "start": 3,
                "refit_every": 2,
                "threshold": 0.7,
                "num_draws": 2,
                "num_particles": 2,
                "seed": 0,
            },
        ),
        "held_out": (lr.held_out_log_likelihood, {"posterior": posterior, "num_particles": 2, "held_out": False}),
        "check": (
            lr.posterior_predictive_check,
            {
                "posterior": posterior,
                "heads": ["y"],
                "kinds": {"y": "count"},
                "num_samples": 20,
                "latents": "posterior",
                "level": 0.01,
            },
        ),
        "prior_predictive_check": (
            lr.prior_predictive_check,
            {
                "prior": of["model"].prior_predictive(data, 20, device="cpu"),
                "heads": ["y"],
                "kinds": {"y": "count"},
                "level": 0.01,
            },
        ),
        "power_scaling": (
            lr.power_scaling,
            {
                "posterior": result.posterior(data[:4]),
                "num_samples": 100,
                "num_particles": 2,
                "threshold": 0.05,
                "seed": 0,
            },
        ),
        "summary": (
            lr.summary,
            {"posterior": posterior, "prob": 0.9, "num_samples": 20, "latents": False, "seed": 0},
        ),
        "prior's predictive": (
            of["model"].prior_predictive(data, 3, device="cpu").predictive,
            {"num_samples": 2, "heads": ["y"]},
        ),
        "teacher_forced": (
            lr.teacher_forced_check,
            {"posterior": posterior, "heads": ["y"], "num_samples": 20, "level": 0.01},
        ),
        "pit": (
            lr.predictive_pit,
            {"posterior": posterior, "head": "y", "num_samples": 20, "leave_one_out": False, "seed": 0},
        ),
        "bits_per_spike": (
            lr.bits_per_spike,
            {"rates": of["rates"], "counts": of["counts"], "mask": torch.ones_like(of["counts"], dtype=torch.bool)},
        ),
        "bits_by_block": (
            lr.bits_per_spike_by_block,
            {"rates": of["rates"], "counts": of["counts"], "mask": None, "block_length": 2},
        ),
        "r2": (lr.r2, {"prediction": of["rates"], "observed": of["counts"], "mask": None}),
        "crps": (lr.crps, {"samples": np.zeros((4, 2, 3)), "observed": np.zeros((2, 3)), "mask": None, "fair": True}),
        "coverage": (
            lr.coverage,
            {"samples": np.zeros((40, 2, 3)), "observed": np.zeros((2, 3)), "mask": None, "level": 0.9},
        ),
        "ahead bits": (lr.one_step_ahead_bits_per_spike, {"one_step_ahead": of["ahead"], "block_length": 2}),
        "ahead score": (lr.one_step_ahead_log_likelihood, {"one_step_ahead": of["ahead"], "block_length": None}),
        "time_rescaling": (lr.time_rescaling, {"one_step_ahead": of["ahead"], "family": None, "seed": 0}),
        "elpd_data": (lr.elpd_data, {"values": torch.zeros(4), "dim": "sequence"}),
        "paired": (
            lr.paired_difference,
            {
                "a": lr.held_out_log_likelihood(posterior, num_particles=2),
                "b": lr.held_out_log_likelihood(posterior, num_particles=2),
            },
        ),
        "climatology": (lr.climatology, {"data": data, "horizon": 2, "num_samples": 3}),
        "persistence": (lr.persistence, {"data": data, "horizon": 2}),
        "seasonal": (lr.seasonal_naive, {"data": data, "horizon": 2, "period": 2}),
        "ranks": (
            lr.rank_calibration,
            {"truth": {"a": torch.zeros(30)}, "draws": {"a": torch.randn(9, 30)}, "seed": 0},
        ),
        "forecast mean": (forecast.mean, {"head": "y"}),
        "forecast quantiles": (forecast.quantiles, {"head": "y", "probabilities": (0.1, 0.9)}),
        "forecast crps": (forecast.crps, {"head": "y", "observed": np.ones((2, 2, 2)), "mask": None}),
        "forecast coverage": (
            forecast.coverage,
            {"head": "y", "observed": np.ones((2, 2, 2)), "level": 0.9, "mask": None},
        ),
        "forecast score": (forecast.log_score, {"head": "y", "observed": np.ones((2, 2, 2)), "mask": None}),
        "load": (lr.load, {"path": "nowhere", "spec": None}),
        "save": (result.save, {"path": "fit"}),
        "to_netcdf": (posterior.to_netcdf, {"path": "fit.nc", "num_samples": 2, "num_particles": 2}),
        "diagnose": (
            posterior.diagnose,
            {
                "num_particles": 25,
                "num_sequences": 1,
                "annealing": lr.AIS(2, leapfrog=1, pilot=1),
                "refinement_steps": 1,
            },
        ),
        "simulation_based_calibration": (
            lr.simulation_based_calibration,
            {
                "posterior": posterior,
                "num_simulations": 2,
                "num_draws": 3,
                "refit": result.posterior,
                "quantities": None,
                "seed": 0,
                "progress": False,
            },
        ),
        "model_to_toml": (lr.model_to_toml, {"model": of["model"], "guide": None}),
        "model_from_toml": (
            lr.model_from_toml,
            {
                "source": {
                    "transition": {"class": "GRU", "hidden_size": 2},
                    "latent": {"class": "Deterministic"},
                    "observations": {"y": {"class": "Gaussian"}},
                },
                "spec": data.spec,
                "settings": {"transition.hidden_size": 3},
            },
        ),
        "Study": (
            lr.Study,
            {
                "folder": "study",
                "models": {"a": (of["model"], lr.Guide(of["model"], encoder=lr.RNNEncoder(3)))},
                "train": data[:1],
                "validation": None,
                "test": data[1:],
                "seeds": [0, 1],
                "settings": {"steps": [1, 2]},
                "trials": None,
                "fit": {"batch_size": 2},
                "storage": None,
                "name": "y",
                "kind": "iwae",
                "num_particles": 2,
                "checkpoint_every": 1.0,
                "heartbeat": 1,
            },
        ),
        "save an ensemble": (of["ensemble"].save, {"path": "mixture"}),
        "load an ensemble": (lr.Ensemble.load, {"path": "nowhere", "spec": None}),
        "mixture": (lr.EnsemblePosterior, {"posteriors": mixture.posteriors, "weights": mixture.weights}),
        "mixture's mean": (mixture.mean, {"head": "y", "num_samples": 2}),
        "mixture's predictive": (mixture.predictive, {"num_samples": 2, "heads": ["y"]}),
        "mixture's evidence": (mixture.evidence, {"kind": "iwae", "num_particles": 2}),
        "mixture, ahead": (mixture.one_step_ahead, {"head": "y", "num_particles": 2, "num_filters": 2}),
        "mixture's forecast": (
            mixture.forecast,
            {"horizon": 2, "covariates": {"x": np.zeros((2, 2, 1))}, "num_samples": 2},
        ),
        "mixture's export": (mixture.to_arviz, {"num_samples": 2, "num_particles": 2, "prior_predictive": False}),
    }


@contextmanager
def elsewhere() -> Iterator[None]:
    """Work in a folder of its own, which goes when all is done: "y" is a good name for a file."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        yield


def shown(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments[name]
    return f"{name}={type(value).__name__} {value!r:.80}"


def is_of_the_user(argument: str, value: Any) -> bool:
    """Whether a value is called as the user's function, whose errors are the user's too."""
    return callable(value) and argument in ("refit", "quantities", "quantity", "function")


def spoiled(random: st.DataObject, call: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with one or, at times, two of them replaced."""
    found = dict(arguments)
    names = st.sampled_from(list(arguments))
    for name in random.draw(st.lists(names, min_size=1, max_size=2 if len(found) > 1 else 1, unique=True)):
        junk = JUNK[random.draw(st.integers(0, len(JUNK) - 1))]
        if not is_of_the_user(name, junk):
            found[name] = junk
        note(f"{call}: {shown(found, name)}")
    return found


@settings(settings.get_profile("fuzz"), max_examples=number(300))
@given(st.data())
def test_a_component_takes_an_argument_or_says_what_it_expects(random: st.DataObject) -> None:
    TALLY["cases"] += 1
    name = random.draw(st.sampled_from(list(COMPONENTS)))
    make, arguments = COMPONENTS[name]
    made = attempt(name, lambda: make(**spoiled(random, name, arguments)))
    if isinstance(made, lr.Transition | lr.Latent | lr.Observation):  # what was taken can be described and made again
        assert repr(attempt("fresh", made.fresh)) == repr(made)
    elif dataclasses.is_dataclass(made):
        assert repr(made)


@settings(settings.get_profile("fuzz"), max_examples=number(200, few=25))
@given(st.data())
def test_a_call_takes_an_argument_or_says_what_it_expects(random: st.DataObject) -> None:
    TALLY["cases"] += 1
    name = random.draw(st.sampled_from(list(calls())))
    call, arguments = calls()[name]
    with elsewhere():
        attempt(name, lambda: call(**spoiled(random, name, arguments)))


# one of each kind of what can go wrong below a check: no attribute, no truth, no hash, no order, no numbers, too large
HARSH = (
    None, -1, 10**30, float("nan"), "a", b"x", [None], {"a": "b"}, object(), torch.zeros(2, 5, 2), np.array([None, 1]),
    torch.zeros(2, device="meta"), True, [[1], [2, 3]], lr.GRU(2),
)  # fmt: skip


@pytest.mark.slow
def test_every_argument_of_every_call_is_taken_or_refused() -> None:
    """All of them one by one, where the tests above try some together."""
    raw = []
    for name, (call, arguments) in (calls() | COMPONENTS).items():
        for argument in arguments:
            for junk in HARSH:
                if is_of_the_user(argument, junk):
                    continue
                given = dict(arguments) | {argument: junk}
                try:
                    with elsewhere():
                        attempt(name, lambda call=call, given=given: call(**given))
                except RawError as error:
                    raw.append(f"{shown(given, argument)}: {error}")
    assert not raw


# what calls return, or hand to a user's function; bases of classes of a user's own; and what takes no argument
RESULTS = {
    "Alarm", "Alarms", "Calibration", "Chains", "Counterfactual", "CouplingReport", "Coverage", "Criticism", "DataSpec",
    "Diagnosis",
    "Ensemble", "Evidence", "FilteredState", "FilteredStates", "FitResult", "Forecast", "GatePlace", "OneStepAhead",
    "PIT",
    "PowerScaling",
    "PredictiveCheck", "PriorCheck", "PriorPredictive", "ProcessLost", "Progress", "Reliability", "Score",
    "TimeRescaling", "Uncertainty",
}  # fmt: skip
BASES = {
    "Callback", "Coupling", "Encoder", "Family", "Feature", "Latent", "Link", "Objective", "Observation", "Pooling",
    "Readout", "Transition",
}  # fmt: skip
NO_ARGUMENTS = {"Combiner", "Constant", "Gap", "MeanField"}
UNCHECKED = {"OrderedNormal", "elbo_terms"}  # as distributions of torch are, and what runs at every step of a fit


def test_everything_public_that_takes_arguments_is_called() -> None:
    public = {name: value for name, value in vars(lr).items() if callable(value) and name[0] != "_"}
    del public["former_name"]  # of the module's own
    called = [call for call, _ in [*COMPONENTS.values(), *calls().values()]]
    owners = [getattr(call, "__self__", None) for call in called]  # of constructors by another name
    tried = {id(inspect.unwrap(call)) for call in [*called, *filter(inspect.isclass, owners)]}
    left = {name for name, value in public.items() if id(inspect.unwrap(value)) not in tried}
    assert left == RESULTS | BASES | NO_ARGUMENTS | UNCHECKED


@pytest.mark.filterwarnings("ignore:sample. :UserWarning")  # chains of two draws have not mixed
def test_the_calls_are_good_as_they_stand() -> None:
    """A negative control: refusals are of what was replaced, not of the call."""
    wrong = {}
    for name, (call, arguments) in calls().items():
        if name in ("load", "load an ensemble", "session"):
            continue  # there is nothing to load, and there are no sessions
        try:
            with elsewhere():
                call(**arguments)
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    for name, (make, arguments) in COMPONENTS.items():
        try:
            make(**arguments)
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    assert not wrong
