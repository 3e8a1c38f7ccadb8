"""What results show of themselves where a notebook prints them: a line, never their arrays."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas
import pytest
import torch

import latentrnn as lr
from latentrnn.support.notebooks import page

RECORDS = {name: kind for name, kind in vars(lr).items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
WITH_ARRAYS = [
    name for name, kind in RECORDS.items()
    if any("Tensor" in str(field.type) and field.repr for field in dataclasses.fields(kind))
]  # fmt: skip


def test_there_are_records_with_arrays() -> None:
    assert {"Forecast", "Evidence", "Counterfactual", "SequenceData"} <= set(WITH_ARRAYS)


@pytest.mark.parametrize("name", WITH_ARRAYS)
def test_a_record_with_arrays_says_itself_what_it_shows(name: str) -> None:
    assert not hasattr(RECORDS[name].__repr__, "__wrapped__"), "the generated one prints every number"


SHOWN = (
    "SequenceData", "StoredSequences", "LatentRNN", "Guide", "FitResult", "Posterior", "EnsemblePosterior",
    "Ensemble", "Evidence", "Diagnosis", "Criticism", "PredictiveCheck", "PriorCheck", "PowerScaling", "TimeRescaling",
    "Calibration", "Coverage", "PIT", "Score", "Forecast", "Counterfactual", "CouplingReport", "OneStepAhead",
    "PriorPredictive", "Chains", "Uncertainty", "Study",
)  # fmt: skip


def test_every_result_is_shown_in_a_notebook() -> None:
    missing = {name for name in SHOWN if not hasattr(getattr(lr, name), "_repr_html_")}
    assert not missing
    asked = {name for name, kind in vars(lr).items() if isinstance(kind, type) and hasattr(kind, "to_dataframe")}
    assert asked <= set(SHOWN)


def test_every_public_class_has_a_repr_of_its_own() -> None:
    """Of an instance of any of them a notebook prints words, not an address."""
    bare = {
        name
        for name, kind in vars(lr).items()
        if isinstance(kind, type)
        and kind.__repr__ in (object.__repr__, torch.nn.Module.__repr__)
        and not inspect.isabstract(kind)
        and not getattr(kind, "_is_protocol", False)
    }
    assert not bare


def results() -> dict[str, tuple[Any, str]]:
    counts = np.random.default_rng(0).poisson(1.0, (5, 30, 2))
    data = lr.SequenceData.from_arrays({"s": counts, "label": np.zeros((5, 1))}, per_sequence=["label"])
    heads = {"s": lr.Poisson(), "label": lr.Bernoulli()}
    model = lr.LatentRNN(data.spec, transition=lr.GRU(3), latent=lr.Innovations(2), observations=heads)
    guide = lr.Guide(model, encoder=lr.RNNEncoder(3, direction="causal"))
    posterior = lr.fit(
        model, guide, data, steps=2, reporting=lr.Reporting(progress=False), compute=lr.Compute(device="cpu")
    ).posterior(data, device="cpu")
    ranks = torch.randint(0, 20, (50, 2))
    calibration = lr.Calibration(("a", "b"), ranks, 19)
    diagnosis = posterior.diagnose(
        25, num_sequences=2, annealing=lr.AIS(temperatures=2, leapfrog=1), refinement_steps=1
    )
    forced = lr.teacher_forced_check(posterior, num_samples=20)
    filtered = filtered_by = lr.OnlineFilter(posterior, num_particles=8)
    alone = lr.OnlineFilter(posterior, num_particles=None, proposal="guide")
    return {
        "forecast": (posterior.forecast(4, num_samples=3), "s: 3 samples x 5 sequences x 4 frames x 2 channels"),
        "counterfactual": (
            posterior.counterfactual(num_samples=3, from_step=2),
            "x 30 steps x 2 channels, label: 3 samples x 5 sequences x 1 channels, from step 2",
        ),
        "filtered": (filtered.update({"s": [0, 1]}), "effective sample size"),
        "filtered by the guide": (alone.update({"s": [0, 1]}), "step 0, no particles, rates of ['s']"),
        "calibration": (calibration, "50 simulations, 2 quantities, 19 draws each"),
        "coverage": (calibration.coverage(), "levels of 2 quantities, 50 intervals"),
        "posterior predictive check": (forced, "PredictiveCheck("),
        "evidence": (posterior.evidence("elbo", 5), "in 5 sequences"),
        "posterior": (posterior, "Posterior of"),
        "result": (posterior.result, "elbo="),
        "guide": (guide, "Guide("),
        "model": (model, "LatentRNN(transition=GRU(hidden_size=3)"),
        "data": (data, "SequenceData: 5 sequences of 30 steps"),
        "one step ahead": (posterior.one_step_ahead("s", 8, 2), "nats"),
        "filter": (filtered_by, "OnlineFilter("),
        "diagnosis": (diagnosis, "nats per sequence from the ELBO to the last rung"),
    }


SEVERAL_LINES = ("data", "posterior", "result", "model")


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[Any, str]]:
    return results()


def test_a_line_says_what_came(found: dict[str, tuple[Any, str]]) -> None:
    for name, (value, part) in found.items():
        assert part in repr(value), name
        assert "tensor(" not in repr(value), name
        if name not in SEVERAL_LINES:
            assert len(repr(value)) < 200, name
            assert "\n" not in repr(value), name


def test_a_notebook_shows_words_and_a_table(found: dict[str, tuple[Any, str]]) -> None:
    for name, (value, _) in found.items():
        if type(value).__name__ not in SHOWN:
            continue
        html = value._repr_html_()
        ElementTree.fromstring(html.replace("&nbsp;", " "))  # what opens closes
        assert f"<strong>{type(value).__name__}</strong>" in html, name
        assert "tensor(" not in html, name
        assert len(html) < 20_000, name
        assert ("<table" in html) == (hasattr(value, "to_dataframe") or name == "model"), name


def test_a_model_shows_its_equations_and_its_parameters(found: dict[str, tuple[Any, str]]) -> None:
    model = found["model"][0]
    assert model.equations() == [
        "u_t ~ Innovations(dim=2)",
        "h_t = GRU(h_{t-1}, u_t)",
        "s_t ~ Poisson(eta_t),  eta_t = LinearReadout(h_t)",
        "label ~ Bernoulli(eta),  eta = LinearReadout(h_t)",
    ]
    html = model._repr_html_()
    assert "h_t = GRU(h_{t-1}, u_t)" in html
    assert all(name in html for name in model.parameters_table().index[:12])


def test_bounds_say_of_what_they_are(found: dict[str, tuple[Any, str]]) -> None:
    html = found["result"][0]._repr_html_()
    assert "best ELBO of training batches" in html
    assert "nats per sequence" in html


def test_long_tables_are_cut_and_counted() -> None:
    found = page("Evidence", [], [pandas.DataFrame({"value": np.arange(30.0)})])
    assert "and 18 more rows" in found
    assert found.count("<tr") < 20


def test_a_graph_has_the_declared_parts() -> None:
    rng = np.random.default_rng(0)
    observed = {"spikes": rng.poisson(1.0, (2, 6, 2)), "field": rng.normal(size=(2, 6, 1))}
    covariates = {"light": rng.normal(size=(2, 6, 1)), "speed": rng.normal(size=(2, 6, 1))}
    data = lr.SequenceData.from_arrays(observed, covariates)
    heads = {
        "spikes": lr.Poisson(gain=lr.StimulusGain("light"), feedback=lr.History(2, into=["transition"])),
        "field": lr.Gaussian(),
    }
    model = lr.LatentRNN(
        data.spec, transition=lr.VanillaRNN(3), latent=lr.Innovations(2, initial=1), observations=heads, inputs="speed"
    )
    found = model.graph()
    assert set(found.edges) == {
        ("speed", "transition"), ("innovations", "transition"), ("initial", "transition"), ("transition", "transition"),
        ("transition", "spikes"), ("transition", "field"), ("light", "spikes.gain"), ("transition", "spikes.gain"),
        ("spikes.gain", "spikes"), ("spikes", "transition"),
    }  # fmt: skip
    assert found.to_mermaid().count("-->") == found.to_dot().count("->") == len(found.edges)
    svg = ElementTree.fromstring(found._repr_svg_())
    texts = [element.text for element in svg.iter() if element.tag.endswith("text")]
    assert {"spikes", "field", "light", "speed", "initial", "innovations", "spikes.gain", "transition"} <= set(texts)
    assert "spikes" in str(found)


def test_a_markov_state_stands_between() -> None:
    data = lr.SequenceData.from_arrays({"y": np.zeros((2, 5, 1))})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.MarkovNormal(), observations={"y": lr.Gaussian()})
    edges = set(model.graph().edges)
    assert edges >= {("transition", "states"), ("states", "transition"), ("states", "y")}
    assert ("transition", "y") not in edges
    assert model.equations()[-3:] == [
        "h_t = GRU(z_{t-1})",
        "z_t ~ MarkovNormal() given h_t",
        "y_t ~ Gaussian(eta_t),  eta_t = LinearReadout(z_t)",
    ]
