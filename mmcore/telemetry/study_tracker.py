"""Several trainings as one study in MLflow: a run above theirs; `mlflow_store` says where."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mmcore.telemetry.mlflow_store import (
    connect,
    experiment_id_of,
    explained,
    find_or_create_run,
    runs_by_key,
)

EXPERIMENT = "mmcore"
STUDY_TAG = "mm.study"
_MAX_PARAM_CHARACTERS = 6000


@dataclass(frozen=True)
class Part:
    """One training of a study; its own run has been made by the step that trained."""

    run_key: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    status: str | None = None
    """`KILLED` for one that was ended early; None leaves what the training said."""


def record_study(
    root: str,
    *,
    run_key: str,
    run_name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    parts: Sequence[Part],
) -> None:
    """Record what a study came to, and put the runs of its trainings below it; twice is as once."""
    client = connect(root)
    with explained("record a study"):
        experiment = experiment_id_of(client, root, EXPERIMENT)
        study, was_there = find_or_create_run(client, experiment, run_name, run_key)
        known = client.get_run(study).data.params if was_there else {}
        news = [Param(k, str(v)[:_MAX_PARAM_CHARACTERS]) for k, v in params.items()]
        _log(client, study, metrics, tags, [one for one in news if one.key not in known])
        for part in parts:
            own, _ = find_or_create_run(client, experiment, part.run_key[:8], part.run_key)
            above = {**part.tags, **tags, MLFLOW_PARENT_RUN_ID: study, STUDY_TAG: run_key}
            _log(client, own, part.metrics, above, [])
            if part.status is not None:
                client.set_terminated(own, status=part.status)
        client.set_terminated(study, status="FINISHED")


def parts_of_study(root: str, run_key: str) -> list[Any]:
    """Return the runs below a study."""
    client = connect(root)
    with explained("read a study"):
        experiment = experiment_id_of(client, root, EXPERIMENT)
        (study,) = runs_by_key(client, [experiment], run_key)
        wanted = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{study.info.run_id}'"
        return list(client.search_runs([experiment], filter_string=wanted))


def _log(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    params: Sequence[Param],
) -> None:
    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in sorted(metrics.items())],
        params=list(params),
        tags=[RunTag(name, value) for name, value in sorted(tags.items())],
    )
