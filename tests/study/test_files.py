"""Models, data and studies in files: what is written is read again, and what is wrong is named."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch

import latentrnn as lr
from latentrnn.models.component import from_config
from latentrnn.study.model_files import ModelFile
from latentrnn.study.parts import parts
from latentrnn.study.toml_models import _config, _plain
from tests.fuzz.test_misuse import COMPONENTS

MODEL = """
import latentrnn as lr

def model(data, hidden=3):
    return lr.LatentRNN(
        data.spec, transition=lr.GRU(hidden), latent=lr.Innovations(1), observations={"y": lr.Gaussian()}
    )

def plain(data):
    return lr.LatentRNN(
        data.spec, transition=lr.GRU(2), latent=lr.Deterministic(), observations={"y": lr.Gaussian()}
    )
"""


def data() -> lr.SequenceData:
    rng = np.random.default_rng(0)
    values = {"y": rng.normal(size=(4, 6, 2)), "n": rng.poisson(2.0, (4, 6, 1))}
    return lr.SequenceData.from_arrays(values, {"x": rng.normal(size=(4, 6, 1)), "cue": rng.normal(size=(4, 6, 1))})


def models() -> dict[str, tuple[lr.LatentRNN, lr.Guide]]:
    spec = data().spec
    plain = lr.LatentRNN(
        spec, transition=lr.LSTM(3, layers=2, dropout=0.1), latent=lr.Innovations(2, initial=3),
        observations={"y": lr.StudentT(), "n": lr.Poisson(gain=lr.StimulusGain("x", lags=2))},
    )  # fmt: skip
    priors = {"time_constant": dist.LogNormal(0.0, 1.0), "input_weight": dist.Normal(0.0, 0.5)}
    inferred = lr.LatentRNN(
        spec, transition=lr.LeakyIntegrator(2, priors=priors), latent=lr.Deterministic(),
        observations={
            "y": lr.Gaussian(fixed={"scale": [0.5, 1.5]}),
            "n": lr.NegativeBinomial(feedback=lr.History(2), priors={"dispersion": dist.Gamma(2.0, 1.0)}),
        },
        inputs=["cue", lr.Lags("x", 3)],
    )  # fmt: skip
    encoder = lr.RNNEncoder(4, direction="bidirectional", observes=["y"])
    return {
        "networks": (plain, lr.Guide(plain, encoder=encoder, family=lr.Flow(lr.GaussianChain()))),
        "priors": (inferred, lr.Guide(inferred, global_family="low_rank", global_rank=2)),
    }


@pytest.mark.parametrize("name", ["networks", "priors"])
def test_a_model_goes_through_a_file(name: str, tmp_path: Path) -> None:
    model, guide = models()[name]
    path = tmp_path / "model.toml"
    path.write_text(lr.model_to_toml(model, guide))
    again, its_guide = lr.model_from_toml(path, data().spec)
    assert repr(again) == repr(model)
    assert again.config() == model.config()
    assert its_guide.config() == guide.config()


def test_every_component_goes_through() -> None:
    tried = 0
    for name, (make, arguments) in COMPONENTS.items():
        part = make(**arguments)
        if not hasattr(part, "config") or name == "PhysicalPenalty":  # of a lambda, which no file can name
            continue
        config = part.config()
        again = from_config(_config(_plain(config, name), name))
        assert again.config() == config, name
        tried += 1
    assert tried > 40


def test_reading_leaves_the_generator_alone(tmp_path: Path) -> None:
    model, guide = models()["networks"]
    text = lr.model_to_toml(model, guide)
    path = tmp_path / "model.toml"
    path.write_text(text)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    lr.model_from_toml(path, data().spec)
    assert torch.rand(1) == expected


def test_settings_stand_in_the_place_of_the_files() -> None:
    tables = {
        "transition": {"class": "GRU", "hidden_size": 3},
        "latent": {"class": "InitialState", "dim": 2},
        "observations": {"y": {"class": "Gaussian"}, "n": {"class": "Poisson"}},
    }
    changed, its_guide = lr.model_from_toml(
        tables, data().spec, {"transition.hidden_size": 5, "observations.y.class": "StudentT"}
    )
    assert changed.transition.hidden_size == 5
    assert isinstance(changed.observations["y"], lr.StudentT)
    assert tables["transition"]["hidden_size"] == 3
    assert isinstance(its_guide.encoder, lr.RNNEncoder)


GOOD = {
    "transition": {"class": "GRU", "hidden_size": 3},
    "latent": {"class": "Deterministic"},
    "observations": {"y": {"class": "Gaussian"}, "n": {"class": "Poisson"}},
}


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"transition": None}, {}, "expected a table \\[transition\\]"),
        ({"encoder": {"class": "RNNEncoder"}}, {}, "unknown table 'encoder'; expected \\['transition'"),
        ({"transition": {"class": "Gru", "hidden_size": 3}}, {}, "unknown component class 'Gru'"),
        (
            {"transition": {"class": "GRU", "hidden": 3}},
            {},
            "transition: GRU has no argument 'hidden'; expected some of",
        ),
        ({"transition": {"class": "os:system"}}, {}, "unknown component class 'os:system'"),
        ({"transition": {"class": "GRU"}}, {}, "transition: GRU needs 'hidden_size'"),
        ({"latent": {"class": "GRU", "hidden_size": 2}}, {}, "latent"),
        ({"latent": {"class": "Innovations", "distribution": "Normal"}}, {}, "found both"),
        ({"guide": {"enc": 1}}, {}, "guide: expected \\['encoder'"),
        ({}, {"transitions.hidden_size": 2}, "there is no table 'transitions'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(changes: Any, settings: Any, message: str) -> None:
    tables = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises((ValueError, TypeError), match=message):
        lr.model_from_toml(tables, data().spec, settings)


def test_what_toml_has_no_word_for_is_refused() -> None:
    with pytest.raises(TypeError, match="model_to_toml: model must be"):
        lr.model_to_toml(lr.GRU(2))  # type: ignore[arg-type]
    config = {"class": "Lags", "arguments": {"covariate": "x", "steps": None}}
    with pytest.raises(TypeError, match=r"model_to_toml: inputs.steps: TOML has numbers.*found None. Keep such a"):
        _plain(config, "inputs")
    with pytest.raises(TypeError, match="cannot hold the name 'class'"):
        _plain({"class": "stim"}, "inputs")


def test_a_model_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODEL)
    model = ModelFile(tmp_path / "mine.py")
    values = lr.SequenceData.from_arrays({"y": np.zeros((2, 4, 1))})
    assert model(values, hidden=5).transition.hidden_size == 5
    assert pickle.loads(pickle.dumps(model))(values).transition.hidden_size == 3
    assert ModelFile("mine.py:plain", tmp_path)(values).transition.hidden_size == 2
    with pytest.raises(ValueError, match=r"mine.py: expected a function other\(data\), .*; found none"):
        ModelFile("mine.py:other", tmp_path)(values)
    with pytest.raises(FileNotFoundError, match="no file"):
        ModelFile(tmp_path / "yours.py")
    with pytest.raises(ValueError, match=r"ending in \.py or \.toml"):
        ModelFile(tmp_path / "mine.json")


def test_parts_of_a_file() -> None:
    many = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(20, 5, 1))})
    assert [len(part) for part in parts(many) if part is not None] == [14, 3, 3]
    assert parts(many, 0, 0) == (many, None, None)
    one = lr.SequenceData.from_arrays({"y": np.random.default_rng(0).normal(size=(1, 100, 1))})
    train, valid, test = parts(one, 0.2, 0.1)
    assert valid is not None
    assert test is not None
    # later stretches see what came before, and score their own steps alone
    assert [int(part.scored("y").sum()) for part in (train, valid, test)] == [70, 20, 10]
    assert test.num_steps == 100
    told = lr.SequenceData.from_arrays(
        {"y": np.random.default_rng(0).normal(size=(6, 5, 1))}, metadata={"part": ["train"] * 4 + ["valid", "test"]}
    )
    assert [len(part) for part in parts(told) if part is not None] == [4, 1, 1]
    with pytest.raises(ValueError, match=r"together below 1, or both 0; found 0\.5 and 0\.6"):
        parts(many, 0.5, 0.6)


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"trial": trial, "t": 0.1 * step, "y": rng.normal(), "site": "ab"[trial % 2]}
        for trial in range(20)
        for step in range(5)
    ]
    return pd.DataFrame(rows)


def test_files_by_what_they_end_in(tmp_path: Path) -> None:
    frame = table()
    options: dict[str, Any] = {"time": "t", "group": "trial", "metadata": ["site"]}
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "a.txt", index=False, sep=";")
    from_csv = lr.datasets.data_file(tmp_path / "a.csv", ["y"], **options)
    assert len(from_csv) == 20
    assert list(from_csv.metadata["site"][:2]) == ["a", "b"]
    for name in ("a.tsv", "a.txt"):
        assert torch.equal(
            lr.datasets.data_file(tmp_path / name, ["y"], **options).observations["y"], from_csv.observations["y"]
        )
    from_csv.to_xarray().to_netcdf(tmp_path / "a.nc")
    again = lr.datasets.data_file(tmp_path / "a.nc", ["y"])
    assert torch.equal(again.observations["y"], from_csv.observations["y"])
    cut = lr.datasets.data_file(tmp_path / "a.csv", {"y": "y"}, windows=2, **options)
    assert cut.num_steps == 2


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("a.csv", {}, ValueError, r"say which of a.csv is observed; it has \['trial', 't', 'y', 'site'\]"),
        ("a.csv", {"observations": ["z"]}, ValueError, "'z'"),
        ("b.csv", {"observations": ["y"]}, FileNotFoundError, "no file"),
        ("a.docx", {"observations": ["y"]}, ValueError, "ending in one of"),
        ("empty.csv", {"observations": ["y"]}, ValueError, "empty.csv is no table that can be read"),
        ("a.h5", {"observations": ["y"]}, ValueError, "needs dt alone"),
        ("a.csv", {"observations": ["y"], "colour": 1}, TypeError, "colour"),
    ],
)
def test_what_is_no_data_is_named(tmp_path: Path, name: str, arguments: Any, error: type, message: str) -> None:
    table().to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "a.h5").write_text("")
    with pytest.raises(error, match=message):
        lr.datasets.data_file(tmp_path / name, **arguments)


STUDY = """
folder = "sweep"
seeds = [0, 1]
heartbeat = 1
pruner = { class = "MedianPruner", n_startup_trials = 10 }

[data]
file = "trials.csv"
observations = ["y"]
time = "t"
group = "trial"
split = { valid = 0.2, test = 0.3, seed = 0 }

[models]
gru = "mine.py"
plain = "mine.py:plain"
linear = "linear.toml"

[settings]
hidden = [2, 3]

[fit]
steps = 5
stopping.every = 2
optimizer = { class = "Adam", learning_rate = 0.01 }
"""
LINEAR = """
[transition]
class = "Linear"
hidden_size = 1

[latent]
class = "LinearGaussian"

[observations.y]
class = "Gaussian"
"""


def written_study(folder: Path) -> Path:
    table().to_csv(folder / "trials.csv", index=False)
    (folder / "mine.py").write_text(MODEL)
    (folder / "linear.toml").write_text(LINEAR)
    (folder / "study.toml").write_text(STUDY)
    return folder / "study.toml"


def test_a_study_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    found = lr.Study.from_toml(written_study(tmp_path))
    assert found.folder == tmp_path / "sweep"
    assert [len(part) for part in (found.train, found.validation, found.test)] == [10, 4, 6]  # type: ignore[arg-type]
    # a TOML file takes any setting by its path, and "hidden" is none of it
    with pytest.warns(RuntimeWarning, match=r"4 of 10 runs failed, the first, linear-hidden=2-seed=0"):
        frame = found.run(progress=False).to_dataframe()
    assert set(frame[frame["status"] == "complete"]["model"]) == {"gru", "plain"}
    assert found.load("gru-hidden=3-seed=1").settings["optimiser"]["class"] == "Adam"
    assert set(found.table().index) == {"gru, hidden=2", "gru, hidden=3", "plain"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds =", "seed =", "unknown entry 'seed'; expected"),
        ('"MedianPruner"', '"median"', "pruner: expected a class of optuna.pruners; found 'median'"),
        ("n_startup_trials", "n_startups", "n_startups"),
        ('file = "trials.csv"', "", "expected file, the path of the data"),
        ("trials.csv", "trial.csv", "no file"),
        ('"mine.py:plain"', '"other.py"', "no file"),
        ("valid = 0.2", "validation = 0.2", "data.split: expected valid, test and seed"),
        ("[models]", "[model]", "unknown entry 'model'"),
        ("steps = 5", "steps = ", "not TOML"),
    ],
)
def test_what_is_wrong_in_a_study_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    pytest.importorskip("optuna")
    path = written_study(tmp_path)
    assert old in STUDY
    path.write_text(STUDY.replace(old, new, 1))
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        lr.Study.from_toml(path)
