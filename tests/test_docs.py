"""What pages of docs show works: their blocks run in order, in an empty directory."""

from __future__ import annotations

import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.test_readme import python_blocks, run, short_fits

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "extending.md"
CHOOSING = DOCS / "choosing.md"
INTERPRET = DOCS / "interpret.md"
CALLBACKS = DOCS / "howto" / "callbacks.md"
POPULATION = DOCS / "howto" / "population.md"
SHORT = sorted(
    {page for page in DOCS.rglob("*.md") if python_blocks(page.read_text())}
    - {PAGE, CHOOSING, INTERPRET, CALLBACKS, POPULATION}
)

__all__ = ["short_fits"]  # a fixture


@pytest.mark.usefixtures("short_fits")
@pytest.mark.parametrize("page", SHORT, ids=[page.relative_to(DOCS).as_posix() for page in SHORT])
def test_tours_and_how_tos_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(python_blocks(page.read_text()), str(page))


def test_the_page_on_extending_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = run(python_blocks(PAGE.read_text()), str(PAGE))
    assert {"HighwayCell", "Geometric"} <= namespace.keys()


def test_the_page_on_choosing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = run(python_blocks(CHOOSING.read_text()), str(CHOOSING))
    assert not namespace["check"].flagged  # type: ignore[attr-defined]
    assert namespace["scaling"].num_samples == 1000  # type: ignore[attr-defined]


def test_the_page_on_opening_a_model_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = run(python_blocks(INTERPRET.read_text()), str(INTERPRET))
    assert namespace["short"].dims == ("statistic", "time", "unit")  # type: ignore[attr-defined]
    assert float(abs(namespace["effect"].spikes[:, :, :10]).max()) == 0.0  # type: ignore[attr-defined]


class Recorder:
    """Stands in for a logger's package, writer and run: any method may be called, and all calls are kept."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def method(*arguments: Any, **named: Any) -> Recorder:
            self.calls.append((name, arguments, named))
            return self

        return method

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None: ...

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(arguments, named) for found, arguments, named in self.calls if found == name]


def test_the_page_on_callbacks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for the packages, whose calls are those that their manuals show."""
    monkeypatch.chdir(tmp_path)
    board, mlflow, wandb = Recorder(), Recorder(), Recorder()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    namespace = run(python_blocks(CALLBACKS.read_text()), str(CALLBACKS))
    scalars = board.named("add_scalar")
    assert {name for (name, _, _), _ in scalars} >= {"elbo", "validation_elbo", "learning_rate"}
    assert all(isinstance(value, float) for (_, value, _), _ in scalars)
    steps = [named["step"] for _, named in mlflow.named("log_metrics")]
    assert steps == sorted(steps)
    assert steps[-1] == 19
    logged = [metrics for (metrics,), _ in wandb.named("log")]
    assert any("validation_elbo" in metrics for metrics in logged)
    result = namespace["result"]
    assert "good_enough" in result.stop_reason or "all steps" in result.stop_reason  # type: ignore[attr-defined]


class Reported(Exception):
    """A member has reached the end of its iterations."""


class FakeTune(ModuleType):
    """Stands in for `ray.tune`: members one after the other, the second going on from the first one's checkpoint."""

    def __init__(self, folder: Path) -> None:
        super().__init__("ray.tune")
        self.folder, self.bounds, self.taken = folder, list[float](), list[str]()
        self.given: Any = None
        self.last: Any = None
        self.RunConfig = self.TuneConfig = dict
        self.Checkpoint = SimpleNamespace(from_directory=self.kept)

    def loguniform(self, low: float, high: float) -> tuple[float, float]:
        return low, high

    def kept(self, folder: str) -> Any:
        copy = self.folder / str(len(self.bounds))
        shutil.copytree(folder, copy)

        def as_directory() -> Any:
            self.taken.append(copy.name)
            return nullcontext(str(copy))

        return SimpleNamespace(as_directory=as_directory)

    def get_checkpoint(self) -> Any:
        return self.given

    def report(self, metrics: dict[str, float], *, checkpoint: Any) -> None:
        self.bounds.append(metrics["bound"])
        self.last = checkpoint
        if len(self.bounds) % 3 == 0:
            raise Reported

    def Tuner(self, trainable: Any, *, param_space: Any, tune_config: Any, run_config: Any) -> Any:
        assert tune_config["mode"] == "max"

        def fit() -> Any:
            for rate in (0.02, 0.01):
                with pytest.raises(Reported):
                    trainable({"learning_rate": rate})
                self.given = self.last
            return SimpleNamespace(get_best_result=lambda: SimpleNamespace(checkpoint=self.last))

        return SimpleNamespace(fit=fit)


def test_the_page_on_populations_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for Ray, whose calls are those that its manual shows."""
    monkeypatch.chdir(tmp_path)
    fake, ray, schedulers = FakeTune(tmp_path), ModuleType("ray"), ModuleType("ray.tune.schedulers")
    ray.tune, schedulers.PopulationBasedTraining = fake, dict  # type: ignore[attr-defined]
    for name, module in (("ray", ray), ("ray.tune", fake), ("ray.tune.schedulers", schedulers)):
        monkeypatch.setitem(sys.modules, name, module)
    namespace = run(python_blocks(POPULATION.read_text()), str(POPULATION))
    assert len(fake.bounds) == 6
    assert fake.taken == ["2", "5"]  # the second member began where the first one had come to
    assert namespace["result"].settings["continued"]  # type: ignore[attr-defined]
