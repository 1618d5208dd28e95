"""The one door to MLflow: runs with their curves, and the registry of models.

Without a server everything lies below the storage root: `mlflow.db` (SQLite) and `mlartifacts/`.
MLFLOW_TRACKING_URI names a server instead. Whatever is written carries the tag `mm.run_key`, so
that doing it a second time finds what the first left, whole or not.

Importing this module takes about a second: import it where it is used.
"""

import fcntl
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

# before the import: MLflow reads these once
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError

from mmcore.errors import ConfigError, StepError

RUN_KEY_TAG = "mm.run_key"
SIGNATURE_FILE = "MLmodel"
_NUM_ATTEMPTS = 3
_MAX_PARAM_CHARACTERS = 6000
_STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}

# a hundred lines of table migrations, and a line for each version that is made
for _noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)


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


def tracking_uri(root: str) -> str:
    """Return where runs and models are recorded; ConfigError when a bucket is all there is."""
    named = os.environ.get("MLFLOW_TRACKING_URI", "")
    if named:
        return named
    if "://" in root:
        raise ConfigError(
            f"MLflow cannot keep its database in {root}. Set MLFLOW_TRACKING_URI to a tracking "
            "server (http://...) or a database (postgresql://...), or use a root on a local disk."
        )
    return f"sqlite:///{os.path.abspath(root)}/mlflow.db"


class TrainingTracker:
    """Records one training run; a second tracker with the same key goes on with the same run."""

    def __init__(self, tracking_root: str, experiment: str, run_name: str, run_key: str) -> None:
        self._client = _connect(tracking_root)
        with _explained("record the training run"):
            experiment_id = _experiment_id(self._client, tracking_root, experiment)
            self._run_id, resumed = _find_or_create_run(
                self._client, experiment_id, run_name, run_key
            )
            if resumed:
                self._client.update_run(self._run_id, status="RUNNING")
        # steps by metric that an earlier attempt has recorded; None: this run is new
        self._recorded: dict[str, set[int]] | None = {} if resumed else None

    @property
    def run_id(self) -> str:
        """Return MLflow's id of the run."""
        return self._run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record configuration; nested mappings become dotted names. The first value stands."""
        with _explained("record parameters"):
            known = self._client.get_run(self._run_id).data.params
            news = [
                Param(name, str(value)[:_MAX_PARAM_CHARACTERS])
                for name, value in _flat(params)
                if name not in known
            ]
            for first in range(0, len(news), 100):
                self._client.log_batch(self._run_id, params=news[first : first + 100])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers of one step; what a resumed run repeats is recorded once."""
        now = int(time.time() * 1000)
        with _explained("record metrics"):
            news = [
                Metric(name, float(value), now, step)
                for name, value in sorted(metrics.items())
                if step not in self._steps_recorded(name)
            ]
            for first in range(0, len(news), 500):
                self._client.log_batch(self._run_id, metrics=news[first : first + 500])

    def finish(self, status: str = "finished") -> None:
        """End the run as `finished`, `failed` or `killed`."""
        if status.lower() not in _STATUSES:
            raise ConfigError(f"run status {status!r} is unknown. Use one of {sorted(_STATUSES)}.")
        with _explained("end the training run"):
            self._client.set_terminated(self._run_id, status=_STATUSES[status.lower()])

    def _steps_recorded(self, name: str) -> set[int]:
        if self._recorded is None:
            return set()
        if name not in self._recorded:
            history = self._client.get_metric_history(self._run_id, name)
            self._recorded[name] = {point.step for point in history}
        return self._recorded[name]


class ModelRegistry:
    """Names, versions and aliases of models. One version per run key, however often it is tried."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._client = _connect(root)

    def names(self) -> list[str]:
        """Return the names of all registered models, sorted."""
        with _explained("list the models"):
            return sorted(
                model.name for model in self._client.search_registered_models(max_results=1000)
            )

    def versions(self, name: str) -> list[ModelVersion]:
        """Return the versions of a model, oldest first; empty when there is no such model."""
        with _explained(f"list the versions of {name}"):
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
            if _is_missing(error):
                return {}
            raise StepError(_message(f"read the aliases of {name}", error)) from error
        return {alias: int(version) for alias, version in sorted(aliases.items())}

    def check_version(self, name: str, version: int) -> None:
        """Raise StepError unless a version and its files are there."""
        with _explained(f"look up version {version} of {name}"):
            try:
                source = self._client.get_model_version(name, str(version)).source
            except MlflowException as error:
                if _is_missing(error):
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
        with _explained(f"point {name}@{alias} at version {version}"):
            self._client.set_registered_model_alias(name, alias, str(version))

    def set_tags(self, name: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version; those that it has already with this value are left alone."""
        with _explained(f"tag version {version} of {name}"):
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
                with _explained(f"record the metrics of {name}"):
                    self._record_metrics(found.run_id, metrics)
                return found
            try:
                self._create(name, run_key, source_directory, tags, description, signature, metrics)
            except MlflowException as error:
                # the answer may have been lost and not the request: look again before trying again
                problem = error
        found = self.find_version(name, run_key)
        if found is None:
            raise StepError(_message(f"register {name}", problem)) from problem
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
        with _in_environment(self._client.tracking_uri):
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
        runs = _runs_by_key(self._client, experiments, run_key)
        if runs:
            return runs[0]
        experiment_id = _experiment_id(self._client, self._root, name)
        run_id, _ = _find_or_create_run(self._client, experiment_id, f"{name} registered", run_key)
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
                    if not _is_missing(error):
                        raise StepError(_message("delete a doubled version", error)) from error


@lru_cache(maxsize=8)
def _client_of(uri: str) -> MlflowClient:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)
    return client


def _connect(root: str) -> MlflowClient:
    """Return the client of the store; the tables are made with the first one."""
    uri = tracking_uri(root)
    with _explained(f"open {uri}"), warnings.catch_warnings():
        # the tables of MLflow use what SQLAlchemy 2.1 deprecates; said once, on the first query
        warnings.simplefilter("ignore", DeprecationWarning)
        if not uri.startswith(f"sqlite:///{os.path.abspath(root)}/"):
            return _client_of(uri)
        os.makedirs(root, exist_ok=True)
        # two processes that make the tables at once break each other's migration
        with open(os.path.join(root, "mlflow.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _client_of(uri)


def _experiment_id(client: MlflowClient, root: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        is_local = client.tracking_uri.startswith("sqlite:")
        location = f"{os.path.abspath(root)}/mlartifacts/{_path_safe(name)}" if is_local else None
        try:
            created: str = client.create_experiment(name, artifact_location=location)
            return created
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)
    experiment_id: str = found.experiment_id
    return experiment_id


def _find_or_create_run(
    client: MlflowClient, experiment_id: str, run_name: str, run_key: str
) -> tuple[str, bool]:
    """Return the run's id, and whether it was there already."""
    runs = _runs_by_key(client, [experiment_id], run_key)
    if runs:
        return runs[0].info.run_id, True
    run = client.create_run(experiment_id, run_name=run_name, tags={RUN_KEY_TAG: run_key})
    return run.info.run_id, False


def _runs_by_key(client: MlflowClient, experiment_ids: list[str], run_key: str) -> list[Any]:
    wanted = f"tags.`{RUN_KEY_TAG}` = '{run_key}'"
    runs = client.search_runs(experiment_ids, filter_string=wanted)
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


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


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(values.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _path_safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def _is_missing(error: MlflowException) -> bool:
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")


def _message(doing: str, error: Exception | None) -> str:
    return (
        f"MLflow could not {doing}: {error}. Check MLFLOW_TRACKING_URI and that the database or "
        "server answers, then run the same command again: nothing is recorded twice."
    )


@contextmanager
def _in_environment(uri: str) -> Iterator[None]:
    """Name the store to MLflow's own code: a models:/ address is resolved by the environment.

    mlflow.set_tracking_uri would do it for the rest of the process, whatever its next root is.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise StepError(_message(doing, error)) from error
