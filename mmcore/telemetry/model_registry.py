"""Names, versions and aliases of models in MLflow; `mlflow_store` says where."""

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Schema, TensorSpec

from mmcore.errors import StepError
from mmcore.telemetry.mlflow_store import (
    RUN_KEY_TAG,
    connect,
    error_text,
    experiment_id_of,
    explained,
    find_or_create_run,
    in_environment,
    is_missing,
    runs_by_key,
)

SIGNATURE_FILE = "MLmodel"
_NUM_ATTEMPTS = 3


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model."""

    name: str
    version: int
    run_key: str
    """What it was made of: equal keys are the same model."""
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    description: str
    source: str
    run_id: str
    """The MLflow run that it came from, with its curves."""
    created_at: str
    """ISO 8601, UTC."""


class ModelRegistry:
    """Names, versions and aliases of models. One version per run key, however often it is tried."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._client = connect(root)

    def names(self) -> list[str]:
        """Return the names of all registered models, sorted."""
        with explained("list the models"):
            return sorted(
                model.name for model in self._client.search_registered_models(max_results=1000)
            )

    def versions(self, name: str) -> list[ModelVersion]:
        """Return the versions of a model, oldest first; empty when there is no such model."""
        with explained(f"list the versions of {name}"):
            # the search leaves aliases empty (mlflow issue 16734): they are asked for apart
            by_version: dict[int, list[str]] = {}
            for alias, version in self.aliases(name).items():
                by_version.setdefault(version, []).append(alias)
            found = self._client.search_model_versions(f"name = '{name}'")
            versions = [_version(item, by_version) for item in found]
        return sorted(versions, key=lambda version: version.version)

    def find_version(self, name: str, run_key: str) -> ModelVersion | None:
        """Return the version that was made of this run, or None."""
        same = (version for version in self.versions(name) if version.run_key == run_key)
        return next(same, None)

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version that each alias points at; empty when there is no such model."""
        try:
            aliases = self._client.get_registered_model(name).aliases
        except MlflowException as error:
            if is_missing(error):
                return {}
            raise StepError(error_text(f"read the aliases of {name}", error)) from error
        return {alias: int(version) for alias, version in sorted(aliases.items())}

    def check_version(self, name: str, version: int) -> None:
        """Raise StepError unless a version and its files are there."""
        with explained(f"look up version {version} of {name}"):
            try:
                source = self._client.get_model_version(name, str(version)).source
            except MlflowException as error:
                if is_missing(error):
                    raise StepError(
                        f"{name} has no version {version}. See: mm models {name}"
                    ) from error
                raise
            files = _files_of(self._client, source.removeprefix("models:/"))
        if SIGNATURE_FILE not in files:
            raise StepError(
                f"version {version} of {name} has no files at {source}: no alias was pointed at "
                "it. Delete the version in MLflow and run the register step again."
            )

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version; StepError when the version or its files are not there."""
        if self.aliases(name).get(alias) == version:
            return
        self.check_version(name, version)
        with explained(f"point {name}@{alias} at version {version}"):
            self._client.set_registered_model_alias(name, alias, str(version))

    def set_tags(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version; those that it has already with this value are left alone."""
        with explained(f"tag version {version} of {name}"):
            known = self._client.get_model_version(name, str(version)).tags
            for tag, value in sorted(tags.items()):
                if known.get(tag) != value:
                    self._client.set_model_version_tag(name, str(version), tag, value)

    def register(
        self,
        name: str,
        *,
        run_key: str,
        source_directory: str,
        tags: Mapping[str, str],
        description: str,
        signature: Mapping[str, Sequence[Mapping[str, Any]]],
        metrics: Mapping[str, float],
    ) -> ModelVersion:
        """Return the version of this run, made now if there is none.

        The version is the last thing written: files, signature and metrics lie there before it.
        `signature` names `inputs` and `outputs`, each a list of {name, dtype, shape}, -1 for any
        size.
        """
        problem: MlflowException | None = None
        for _ in range(_NUM_ATTEMPTS):
            found = self.find_version(name, run_key)
            if found is not None:
                self._delete_twins(found)
                self.set_tags(name, found.version, tags)
                with explained(f"record the metrics of {name}"):
                    self._record_metrics(found.run_id, metrics)
                return found
            try:
                self._create(name, run_key, source_directory, tags, description, signature, metrics)
            except MlflowException as error:
                # the answer may have been lost and not the request: look again before trying again
                problem = error
        found = self.find_version(name, run_key)
        if found is None:
            raise StepError(error_text(f"register {name}", problem)) from problem
        self._delete_twins(found)
        return found

    def _create(
        self,
        name: str,
        run_key: str,
        source_directory: str,
        tags: Mapping[str, str],
        description: str,
        signature: Mapping[str, Sequence[Mapping[str, Any]]],
        metrics: Mapping[str, float],
    ) -> None:
        run = self._run_of(name, run_key)
        model_id = self._logged_model(run, name, run_key, source_directory, signature)
        self._record_metrics(run.info.run_id, metrics, model_id)
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with in_environment(self._client.tracking_uri):
            self._client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run.info.run_id,
                tags={**tags, RUN_KEY_TAG: run_key},
                description=description,
                model_id=model_id,
            )

    def _run_of(self, name: str, run_key: str) -> Any:
        """Return the run that trained the model, or a new one when training was not recorded."""
        experiments = [found.experiment_id for found in self._client.search_experiments()]
        runs = runs_by_key(self._client, experiments, run_key)
        if runs:
            return runs[0]
        experiment_id = experiment_id_of(self._client, self._root, name)
        run_id, _ = find_or_create_run(self._client, experiment_id, f"{name} registered", run_key)
        self._client.set_terminated(run_id)
        return self._client.get_run(run_id)

    def _logged_model(
        self,
        run: Any,
        name: str,
        run_key: str,
        source_directory: str,
        signature: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> str:
        """Upload the files and the signature, going on with what an earlier attempt began."""
        begun = self._client.search_logged_models(
            [run.info.experiment_id], filter_string=f"tags.`{RUN_KEY_TAG}` = '{run_key}'"
        )
        logged = min(begun, key=lambda model: model.creation_timestamp, default=None)
        if logged is None:
            logged = self._client.create_logged_model(
                run.info.experiment_id,
                name=name,
                source_run_id=run.info.run_id,
                tags={RUN_KEY_TAG: run_key},
            )
        model_id: str = logged.model_id
        self._client.log_model_artifacts(model_id, source_directory)
        with tempfile.TemporaryDirectory(prefix="mm-signature-") as directory:
            described = Model(
                artifact_path=name,
                run_id=run.info.run_id,
                model_id=model_id,
                flavors={"mmcore": {"weights": "model.safetensors", "config": "model.json"}},
                signature=_signature(signature),
            )
            described.save(os.path.join(directory, SIGNATURE_FILE))
            self._client.log_model_artifacts(model_id, directory)
        self._client.finalize_logged_model(model_id, LoggedModelStatus.READY)
        return model_id

    def _record_metrics(
        self, run_id: str, metrics: Mapping[str, float], model_id: str | None = None
    ) -> None:
        known = self._client.get_run(run_id).data.metrics
        now = int(time.time() * 1000)
        news = [
            Metric(f"test/{name}", value, now, 0, model_id=model_id)
            for name, value in sorted(metrics.items())
            if known.get(f"test/{name}") != value
        ]
        for first in range(0, len(news), 500):
            self._client.log_batch(run_id, metrics=news[first : first + 500])

    def _delete_twins(self, first: ModelVersion) -> None:
        """Two processes at once may each have made a version: the oldest stays."""
        for version in self.versions(first.name):
            if version.run_key == first.run_key and version.version > first.version:
                try:
                    self._client.delete_model_version(first.name, str(version.version))
                except MlflowException as error:
                    if not is_missing(error):
                        raise StepError(error_text("delete a doubled version", error)) from error


def _files_of(client: MlflowClient, model_id: str) -> set[str]:
    return {item.path for item in client.list_logged_model_artifacts(model_id)}


def _signature(described: Mapping[str, Sequence[Mapping[str, Any]]]) -> ModelSignature:
    def schema(side: str) -> Schema:
        return Schema(
            [
                TensorSpec(np.dtype(spec["dtype"]), tuple(spec["shape"]), spec["name"])
                for spec in described[side]
            ]
        )

    return ModelSignature(inputs=schema("inputs"), outputs=schema("outputs"))


def _version(item: Any, aliases: Mapping[int, Sequence[str]]) -> ModelVersion:
    version = int(item.version)
    return ModelVersion(
        name=item.name,
        version=version,
        run_key=item.tags.get(RUN_KEY_TAG, ""),
        tags=dict(sorted(item.tags.items())),
        aliases=tuple(sorted(aliases.get(version, ()))),
        description=item.description or "",
        source=item.source,
        run_id=item.run_id or "",
        created_at=datetime.fromtimestamp(item.creation_timestamp / 1000, UTC).isoformat(
            timespec="seconds"
        ),
    )
