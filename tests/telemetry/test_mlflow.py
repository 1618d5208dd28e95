import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import get_model_info

from mmcore.errors import ConfigError, StepError
from mmcore.telemetry.mlflow_store import tracking_uri
from mmcore.telemetry.model_registry import ModelRegistry
from mmcore.telemetry.training_tracker import TrainingTracker

SIGNATURE = {
    "inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 8, 8, 3]}],
    "outputs": [{"name": "logits.fused", "dtype": "float32", "shape": [-1, 3]}],
}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "model.json").write_text("{}")
    return str(directory)


@pytest.fixture
def register(root: str, weights: str) -> Callable[..., Any]:
    def do(registry: ModelRegistry | None = None, run_key: str = "a" * 64, **changes: Any) -> Any:
        plain: dict[str, Any] = {
            "source_directory": weights,
            "tags": {"mm.dataset": "stamps/1"},
            "description": "# card",
            "signature": SIGNATURE,
            "metrics": {"accuracy": 0.75},
        }
        registry = registry or ModelRegistry(root)
        return registry.register("stamps", run_key=run_key, **{**plain, **changes})

    return do


def test_environment_names_the_server_before_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    assert tracking_uri("s3://bucket/root") == "http://mlflow.example:5000"


def test_bucket_without_a_server_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="Set MLFLOW_TRACKING_URI"):
        tracking_uri("s3://bucket/root")
    assert tracking_uri("/data/mm") == "sqlite:////data/mm/mlflow.db"


def test_opening_a_new_store_says_nothing_and_touches_only_the_root(tmp_path: Path) -> None:
    code = (
        "from mmcore.telemetry.model_registry import ModelRegistry\n"
        f"assert ModelRegistry({str(tmp_path / 'root')!r}).names() == []"
    )
    working_directory = tmp_path / "cwd"
    working_directory.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=working_directory, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(working_directory.iterdir()) == []


def test_training_that_is_resumed_goes_on_in_the_same_run(root: str) -> None:
    first = TrainingTracker(root, "stamps", "train", "k1")
    first.log_params({"train": {"seed": 0, "epochs": 3}, "lr": 0.1})
    first.log_metrics({"loss": 2.0, "val_accuracy": 0.5}, step=0)
    first.finish("killed")
    second = TrainingTracker(root, "stamps", "train", "k1")
    second.log_params({"train": {"seed": 0, "epochs": 3}, "lr": 0.1})
    second.log_metrics({"loss": 2.0, "val_accuracy": 0.5}, step=0)
    second.log_metrics({"loss": 1.0, "val_accuracy": 0.6}, step=1)
    second.finish("finished")
    assert second.run_id == first.run_id
    client = MlflowClient(tracking_uri(root))
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "train.epochs": "3", "train.seed": "0"}
    history = client.get_metric_history(first.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 2.0), (1, 1.0)]


def test_other_run_key_is_another_run(root: str) -> None:
    runs = {TrainingTracker(root, "stamps", "train", key).run_id for key in ("k1", "k2")}
    assert len(runs) == 2


def test_unknown_status_is_refused(root: str) -> None:
    with pytest.raises(ConfigError, match="'done' is unknown"):
        TrainingTracker(root, "stamps", "train", "k1").finish("done")


def test_registering_twice_makes_one_version(root: str, register: Callable[..., Any]) -> None:
    first = register()
    again = register(tags={"mm.dataset": "stamps/2"})
    other = register(run_key="b" * 64)
    assert (first.version, again.version, other.version) == (1, 1, 2)
    registry = ModelRegistry(root)
    assert [version.version for version in registry.versions("stamps")] == [1, 2]
    found = registry.find_version("stamps", "a" * 64)
    assert found is not None
    assert found.tags["mm.dataset"] == "stamps/2"
    assert found.description == "# card"


def test_version_has_its_files_and_its_signature(
    root: str, register: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(root))
    info = get_model_info(f"models:/stamps/{version.version}")
    assert info.signature.inputs.input_names() == ["image"]
    assert info.signature.outputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, 3)
    client = MlflowClient(tracking_uri(root))
    model_id = version.source.removeprefix("models:/")
    files = {item.path for item in client.list_logged_model_artifacts(model_id)}
    assert files == {"MLmodel", "model.safetensors", "model.json"}
    assert client.get_run(version.run_id).data.metrics == {"test/accuracy": 0.75}
    assert client.get_logged_model(model_id).metrics[0].value == 0.75


def test_version_hangs_on_the_run_that_trained_it(root: str, register: Callable[..., Any]) -> None:
    tracker = TrainingTracker(root, "training", "train", "a" * 64)
    tracker.finish("finished")
    assert register().run_id == tracker.run_id


class LosesTheAnswer(ModelRegistry):
    """A registry whose server does the work, and whose answer is lost on the way."""

    def _create(self, *arguments: Any) -> None:
        super()._create(*arguments)
        raise MlflowException("connection reset")


class DiesBeforeTheVersion(ModelRegistry):
    """A process that is gone after the upload and before the version is made."""

    def _record_metrics(self, *arguments: Any) -> None:
        raise KeyboardInterrupt


def test_lost_answer_does_not_make_a_second_version(
    root: str, register: Callable[..., Any]
) -> None:
    assert register(LosesTheAnswer(root)).version == 1
    assert len(ModelRegistry(root).versions("stamps")) == 1


def test_attempt_killed_before_the_version_is_finished_by_the_next(
    root: str, register: Callable[..., Any]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        register(DiesBeforeTheVersion(root))
    assert ModelRegistry(root).versions("stamps") == []
    assert register().version == 1
    client = MlflowClient(tracking_uri(root))
    experiments = [found.experiment_id for found in client.search_experiments()]
    assert len(client.search_logged_models(experiments)) == 1
    assert len(client.search_runs(experiments)) == 1


def test_registry_that_never_answers_is_an_error_with_a_remedy(
    root: str, register: Callable[..., Any]
) -> None:
    class Down(ModelRegistry):
        def _create(self, *arguments: Any) -> None:
            raise MlflowException("no route to host")

    with pytest.raises(StepError, match=r"could not register stamps: no route to host\. Check"):
        register(Down(root))


def test_version_that_two_processes_made_at_once_is_reduced_to_the_older(
    root: str, register: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = register()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(root))
    client = MlflowClient(tracking_uri(root))
    client.create_model_version(
        "stamps", source=first.source, run_id=first.run_id, tags={"mm.run_key": "a" * 64}
    )
    assert len(ModelRegistry(root).versions("stamps")) == 2
    assert register().version == 1
    assert [version.version for version in ModelRegistry(root).versions("stamps")] == [1]


def test_alias_is_shown_with_its_version_and_moves(root: str, register: Callable[..., Any]) -> None:
    register()
    register(run_key="b" * 64)
    registry = ModelRegistry(root)
    registry.set_alias("stamps", "champion", 1)
    assert registry.aliases("stamps") == {"champion": 1}
    registry.set_alias("stamps", "champion", 2)
    assert [version.aliases for version in registry.versions("stamps")] == [(), ("champion",)]


def test_alias_never_points_at_a_version_that_is_not_there(
    root: str, register: Callable[..., Any]
) -> None:
    register()
    registry = ModelRegistry(root)
    with pytest.raises(StepError, match="stamps has no version 7"):
        registry.set_alias("stamps", "champion", 7)
    assert registry.aliases("stamps") == {}


def test_alias_never_points_at_a_version_without_files(
    root: str, register: Callable[..., Any]
) -> None:
    version = register()
    for file in Path(root, "mlartifacts").rglob("MLmodel"):
        file.unlink()
    with pytest.raises(StepError, match="has no files"):
        ModelRegistry(root).set_alias("stamps", "champion", version.version)


def test_two_roots_in_one_process_are_two_stores(
    root: str, register: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copy(Path(root, "mlflow.db"), other)
    assert register().version == 1
    assert ModelRegistry(str(other)).names() == []
    assert register(ModelRegistry(str(other))).version == 1
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_model_that_nobody_registered_has_no_versions_and_no_aliases(root: str) -> None:
    registry = ModelRegistry(root)
    assert registry.versions("nothing") == []
    assert registry.aliases("nothing") == {}
    assert registry.find_version("nothing", "k") is None
