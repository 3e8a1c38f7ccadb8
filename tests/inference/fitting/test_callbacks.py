"""What a fit tells its callbacks, and what they can make it do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import latentrnn as lr


def fit(*callbacks: Any, steps: int = 12, **settings: Any) -> lr.FitResult:
    counts = np.random.default_rng(0).poisson(1.0, (9, 5, 2))
    data = lr.SequenceData.from_arrays({"y": counts})
    model = lr.LatentRNN(data.spec, transition=lr.GRU(2), latent=lr.Innovations(1), observations={"y": lr.Poisson()})
    guide = lr.Guide(model, encoder=lr.RNNEncoder(2))
    return lr.fit(
        model,
        guide,
        data[:6],
        data[6:],
        steps=steps,
        stopping=lr.EarlyStopping(every=4),
        compute=lr.Compute("cpu"),
        reporting=lr.Reporting(progress=False, every=3, callbacks=callbacks),
        **settings,
    )


def test_callbacks_are_told_what_the_history_says() -> None:
    told: list[lr.Progress] = []
    result = fit(told.append)
    assert [(p.kind, p.step) for p in told] == [
        ("report", 2), ("evaluation", 3), ("report", 5), ("evaluation", 7),
        ("report", 8), ("report", 11), ("evaluation", 11),
    ]  # fmt: skip
    assert [p.terms["elbo"] for p in told if p.kind == "report"] == result.history["elbo"]
    assert [p.terms["validation_elbo"] for p in told if p.kind == "evaluation"] == result.history["validation_elbo"]
    assert [len(p.history["elbo"]) for p in told] == [1, 1, 2, 2, 3, 4, 4]  # as it was then
    assert told[-1].best_bound == max(result.history["validation_elbo"])
    assert told[-1].best_step == result.best_step


def test_callbacks_change_nothing() -> None:
    def draws(progress: lr.Progress) -> None:
        torch.rand(3)

    plain, watched = fit(), fit(draws)
    assert plain.history == watched.history
    assert plain.settings == watched.settings


def test_a_callback_ends_the_fit() -> None:
    def enough(progress: lr.Progress) -> bool:
        return progress.step >= 5

    result = fit(enough)
    assert result.stop_reason == "callback enough: it ended the fit at step 5; the best weights so far are kept"
    assert result.history["step"] == [2, 5]
    assert result.best_step == 3


def test_an_error_in_a_callback_loses_nothing(tmp_path: Any) -> None:
    class Logger:
        def __call__(self, progress: lr.Progress) -> None:
            if progress.step == 5:
                raise OSError("disk full")

    kept = lr.Checkpointing(tmp_path, every=0.0, resume=True)
    with pytest.warns(RuntimeWarning, match="fit: callback Logger raised OSError: disk full"):
        result = fit(Logger(), checkpointing=kept)
    assert result.stop_reason.startswith("callback Logger raised OSError: disk full at step 5; the best weights so far")
    assert result.history["step"] == [2, 5]
    assert result.best_step == 3
    onwards, whole = fit(checkpointing=kept), fit()  # and the fit can be gone on with
    assert onwards.history == whole.history


@pytest.mark.parametrize(("callbacks", "found"), [([3], "found 3"), (3, "must be a list")])
def test_what_is_no_function_is_refused(callbacks: Any, found: str) -> None:
    with pytest.raises(TypeError, match=f"callbacks .*{found}"):
        lr.Reporting(callbacks=callbacks)


@pytest.mark.parametrize("yes", [True, np.bool_(True), torch.tensor(True), np.array([1.0]).max() > 0])
def test_numpys_and_torchs_true_end_a_fit_too(yes: Any) -> None:
    assert fit(lambda progress: yes).history["step"] == [2]


@pytest.mark.parametrize("no", [None, False, np.bool_(False), torch.tensor(False)])
def test_what_is_not_true_does_not(no: Any) -> None:
    assert fit(lambda progress: no).history == fit().history


def test_an_answer_of_another_kind_is_told_and_does_not_end_the_fit() -> None:
    with pytest.warns(RuntimeWarning, match="must return True, False or None; found float"):
        assert fit(lambda progress: 1.0, steps=4).history["step"] == [2, 3]


@pytest.mark.parametrize(("last", "kept"), [(11, [3, 7, 11]), (2, [])])
def test_what_was_due_is_evaluated_before_a_callback_ends_the_fit(last: int, kept: list[int]) -> None:
    def ends(progress: lr.Progress) -> bool:
        return progress.kind == "report" and progress.step == last

    plain, ended = fit(), fit(ends)
    assert ended.history.get("validation_step", []) == kept
    assert ended.stop_reason == f"callback ends: it ended the fit at step {last}; the best weights so far are kept"
    if last == 11:
        assert ended.best_step == plain.best_step
    else:  # nothing was evaluated: the weights are those of the last step
        assert ended.best_step == last
