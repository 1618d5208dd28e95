"""The one door to MLflow's store: where it is, how it is opened, what its errors mean.

Without a server everything lies below the storage root: `mlflow.db` (SQLite) and `mlartifacts/`.
MLFLOW_TRACKING_URI names a server instead. Whatever is written carries the tag `mm.run_key`, so
that doing it a second time finds what the first left, whole or not. Curves go in by
`training_tracker`, models by `model_registry`.

Importing these modules takes about a second: import them where they are used.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# before the import: MLflow reads these once
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mmcore.errors import ConfigError, StepError

RUN_KEY_TAG = "mm.run_key"

# a hundred lines of table migrations, and a line for each version that is made
for _noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)


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


@lru_cache(maxsize=8)
def _client_of(uri: str) -> MlflowClient:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_experiments(max_results=1)
    return client


def connect(root: str) -> MlflowClient:
    """Return the client of the store; the tables are made with the first one."""
    uri = tracking_uri(root)
    with explained(f"open {uri}"):
        if not uri.startswith(f"sqlite:///{os.path.abspath(root)}/"):
            return _client_of(uri)
        os.makedirs(root, exist_ok=True)
        # two processes that make the tables at once break each other's migration
        with open(os.path.join(root, "mlflow.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _client_of(uri)


def experiment_id_of(client: MlflowClient, root: str, name: str) -> str:
    """Return the id of an experiment, made now if there is none."""
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


def find_or_create_run(
    client: MlflowClient, experiment_id: str, run_name: str, run_key: str
) -> tuple[str, bool]:
    """Return the run's id, and whether it was there already."""
    runs = runs_by_key(client, [experiment_id], run_key)
    if runs:
        return runs[0].info.run_id, True
    run = client.create_run(experiment_id, run_name=run_name, tags={RUN_KEY_TAG: run_key})
    return run.info.run_id, False


def runs_by_key(client: MlflowClient, experiment_ids: list[str], run_key: str) -> list[Any]:
    """Return the runs of a key, oldest first."""
    wanted = f"tags.`{RUN_KEY_TAG}` = '{run_key}'"
    runs = client.search_runs(experiment_ids, filter_string=wanted)
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def _path_safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def is_missing(error: MlflowException) -> bool:
    """Return whether MLflow says that there is no such thing."""
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")


def error_text(doing: str, error: Exception | None) -> str:
    """Return what could not be done, why, and what to do."""
    return (
        f"MLflow could not {doing}: {error}. Check MLFLOW_TRACKING_URI and that the database or "
        "server answers, then run the same command again: nothing is recorded twice."
    )


@contextmanager
def in_environment(uri: str) -> Iterator[None]:
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
def explained(doing: str) -> Iterator[None]:
    """Raise what MLflow or its database raise as a StepError that says what was being done."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise StepError(error_text(doing, error)) from error
