"""From deployment files to Prefect's own `prefect.yaml`: a pure function, which writes nothing.

The committed `prefect.yaml` is what it makes of `configs/deployments/`, so `prefect deploy --all`
does the same as `mm deploy` but for what only the REST API can: shared concurrency limits, the
automation that finds dead runs, and schedules that are gone.
"""

import hashlib
import json
from collections.abc import Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from mmcore.operate.deployments import Deployment, FlowName, ScheduleSection
from mmcore.operate.events import DATA_ARRIVED, dataset_resource

HEADER = """\
# Made of configs/deployments by `mm deploy --print > prefect.yaml`: change it there.
# `mm deploy` deploys it, and does what Prefect's file cannot say.
"""
TAG = "mm"
"""Every deployment of ours, and every run of it, carries this tag."""
HEARTBEAT_SECONDS = 30
"""Of a flow run; Prefect refuses less."""
ENTRYPOINTS: dict[FlowName, str] = {
    "retrain": "pipelines.flows.retrain",
    "end-to-end": "pipelines.flows.end_to_end",
    "prepare-data": "pipelines.flows.prepare_data",
}
WORKING_DIRECTORY = "prefect.deployments.steps.set_working_directory"
# the worker starts where `prefect deploy` was called, so that relative paths mean the same
_PULL = [{WORKING_DIRECTORY: {"directory": "{{ $PWD }}"}}]
_WHOLE_EVENT = {
    "__prefect_kind": "json",
    "value": {"__prefect_kind": "jinja", "template": "{{ event.payload | tojson }}"},
}


def render(deployments: Sequence[Deployment], *, root: str | None = None) -> dict[str, Any]:
    """Return the content of a `prefect.yaml`; without a root, flows use the worker's MM_ROOT."""
    rows = [
        _row(deployment, flow, root)
        for deployment in deployments
        for flow in sorted(deployment.config.flows, key=list(ENTRYPOINTS).index)
    ]
    return {"prefect-version": "3.8.8", "name": "mmcore", "pull": _PULL, "deployments": rows}


def to_yaml(content: dict[str, Any]) -> str:
    """Return a `prefect.yaml` as text; equal content gives equal text."""
    out = StringIO()
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(content, out)
    return HEADER + out.getvalue()


def flow_name(row: dict[str, Any]) -> FlowName:
    """Return the flow of a row of `deployments`."""
    return next(name for name, entrypoint in ENTRYPOINTS.items() if entrypoint == row["entrypoint"])


def dataset_tag(dataset: str) -> str:
    """Return the tag of all runs of a dataset; also the name of its concurrency limit."""
    return f"dataset:{dataset}"


def _row(deployment: Deployment, flow: FlowName, root: str | None) -> dict[str, Any]:
    config = deployment.config
    row: dict[str, Any] = {
        "name": config.name,
        "version": "",
        "entrypoint": ENTRYPOINTS[flow],
        "tags": [TAG, dataset_tag(deployment.dataset)],
        "parameters": {
            "recipe": config.recipe,
            "overrides": list(config.overrides),
            "root": root,
            "executor": config.executor,
            "workers": config.workers,
            "force": False,
            "policy": deployment.file,
        },
        "work_pool": {
            "name": config.work_pool,
            "job_variables": {
                "env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)},
            },
        },
        "concurrency_limit": {
            "limit": config.concurrency.limit,
            "collision_strategy": config.concurrency.collision.upper(),
        },
        "schedules": [_schedule(one) for one in config.schedules if one.flow == flow],
        "triggers": [_trigger(deployment)] if flow == "retrain" else [],
    }
    text = json.dumps(row, sort_keys=True).encode()
    # what a deployment on the server was made of: an equal version has nothing to be changed
    row["version"] = hashlib.sha256(text).hexdigest()[:16]
    return row


def _schedule(schedule: ScheduleSection) -> dict[str, Any]:
    when: dict[str, Any] = (
        {"cron": schedule.cron}
        if schedule.cron is not None
        else {"interval": schedule.interval_seconds}
    )
    return {
        "slug": schedule.slug,
        **when,
        "timezone": schedule.timezone,
        "active": schedule.active,
    }


def _trigger(deployment: Deployment) -> dict[str, Any]:
    """Return the automation that starts the retraining when data has arrived.

    The first event starts it, and further ones do nothing within the debounce. The run begins at
    the end of that time, so it sees what they told of.
    """
    watch = deployment.config.watch
    debounce_seconds = watch.debounce_seconds if watch is not None else 0.0
    return {
        "name": f"retrain/{deployment.config.name} on new data",
        "description": f"New data of {deployment.dataset} starts its retraining.",
        "enabled": True,
        "type": "event",
        "posture": "Reactive",
        "expect": [DATA_ARRIVED],
        "match": dataset_resource(deployment.dataset),
        "threshold": 1,
        "within": debounce_seconds,
        "schedule_after": debounce_seconds,
        "parameters": {"arrived": _WHOLE_EVENT},
    }
