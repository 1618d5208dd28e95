"""Brings a Prefect server to what the deployment files say; what says so already is left alone."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmcore import storage
from mmcore.errors import MissingExtra, StepError
from mmcore.operate import prefect_yaml
from mmcore.operate.automations import ensure_automation, silent_runs_automation
from mmcore.operate.connection import Connection
from mmcore.operate.deployed import remember_deployed
from mmcore.operate.deployments import Deployment
from mmcore.operate.events import open_prefect
from mmcore.telemetry import prefect as server
from mmcore.telemetry.prefect import PrefectApi

Say = Callable[[str], None]
_OWN_LIMIT = "deployment:"  # Prefect names a deployment's own concurrency limit so
_NUM_ERROR_LINES = 15


@dataclass
class Changes:
    """What was done, a line each, and what was right already."""

    done: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a person may want to see to."""


def deploy(
    connection: Connection,
    deployments: Sequence[Deployment],
    *,
    directory: str,
    dry_run: bool = False,
) -> Changes:
    """Create or update deployments, schedules, automations and limits; return what was done.

    A dry run returns what would be done. StepError with Prefect's own words when it refuses.
    """
    changes = Changes()
    content = prefect_yaml.render(deployments, root=connection.root)
    with open_prefect(connection) as prefect:
        there = _read(prefect)
        automations = {automation["name"] for automation in prefect.automations()}
        changed = []
        for row in content["deployments"]:
            name = full_name(row)
            found = there.get(name)
            has_triggers = {trigger["name"] for trigger in row["triggers"]} <= automations
            if found is not None and has_triggers and _is_up_to_date(found, row, directory):
                changes.unchanged.append(name)
            else:
                changes.done.append(f"{name}: {'created' if found is None else 'updated'}")
                changed.append(row)
        changes.notes += _strangers(there, content, directory)
        if dry_run:
            return changes
        _ensure_work_pools(prefect, deployments, changes)
        if changed:
            _run_prefect_deploy(connection, {**content, "deployments": changed}, directory)
            there = _read(prefect)
        for row in content["deployments"]:
            _remove_stale_schedules(prefect, there[full_name(row)], row, changes)
        for deployment in deployments:
            rows = [row for row in content["deployments"] if row["name"] == deployment.config.name]
            _share_limit(prefect, deployment, [there[full_name(row)] for row in rows], changes)
        wanted = silent_runs_automation()
        _count(changes, wanted["name"], ensure_automation(prefect, wanted))
    if storage.is_local(connection.root):
        remember_deployed(connection.root, deployments, directory)
    elif any(deployment.watched for deployment in deployments):
        changes.notes.append("the root is no local folder: run `mm watch NAME` where data arrives")
    return changes


def full_name(row: dict[str, Any]) -> str:
    """Return `flow/name` of a row of `prefect.yaml`."""
    return f"{prefect_yaml.flow_name(row)}/{row['name']}"


def _read(prefect: PrefectApi) -> dict[str, server.Deployment]:
    flows = prefect.flow_names()
    found = prefect.deployments(tags=[prefect_yaml.TAG])
    return {f"{flows[one.flow_id]}/{one.name}": one for one in found}


def _is_up_to_date(found: server.Deployment, row: dict[str, Any], directory: str) -> bool:
    """Return whether a deployment on the server was made of a row, in this directory.

    A schedule that somebody has paused stays paused.
    """
    slugs = {schedule.slug for schedule in found.schedules}
    return (
        found.version == row["version"]
        and _directory_of(found) == directory
        and {schedule["slug"] for schedule in row["schedules"]} <= slugs
    )


def _directory_of(found: server.Deployment) -> str | None:
    for step in found.pull_steps:
        if prefect_yaml.WORKING_DIRECTORY in step:
            return str(step[prefect_yaml.WORKING_DIRECTORY]["directory"])
    return None


def _strangers(
    there: dict[str, server.Deployment], content: dict[str, Any], directory: str
) -> Iterator[str]:
    """Yield what is deployed from this directory and stands in no file of these."""
    named = {row["name"] for row in content["deployments"]}
    wanted = {full_name(row) for row in content["deployments"]}
    for name, found in sorted(there.items()):
        if _directory_of(found) == directory and name not in wanted:
            active = [schedule.slug for schedule in found.schedules if schedule.active]
            if found.name in named or active:
                runs = f", and runs by itself ({', '.join(map(str, active))})" if active else ""
                yield (
                    f"{name} is deployed, but is not among these files{runs}. "
                    f"Delete it with: prefect deployment delete {name}"
                )


def _ensure_work_pools(
    prefect: PrefectApi, deployments: Sequence[Deployment], changes: Changes
) -> None:
    there = {pool["name"] for pool in prefect.work_pools()}
    for name in sorted({deployment.config.work_pool for deployment in deployments} - there):
        prefect.create_work_pool(name)
        changes.done.append(f"work pool {name}: created")


def _run_prefect_deploy(connection: Connection, content: dict[str, Any], directory: str) -> None:
    """Have Prefect deploy a `prefect.yaml`; StepError with its last words."""
    if importlib.util.find_spec("prefect") is None:
        raise MissingExtra(
            "deploying needs Prefect. Install it with: pip install 'mmcore[flows,operate]'"
        )
    secrets = {
        "PREFECT_API_URL": connection.prefect_url or "",
        "PREFECT_API_AUTH_STRING": connection.prefect_auth or "",
    }
    environment = os.environ | {name: value for name, value in secrets.items() if value}
    environment |= {"PWD": directory, "DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "WARNING"}
    with tempfile.TemporaryDirectory(prefix="mm-deploy-") as temporary:
        file = os.path.join(temporary, "prefect.yaml")
        storage.write(file, prefect_yaml.to_yaml(content).encode())
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        ended = subprocess.run(
            [*command, "--prefect-file", file],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if ended.returncode != 0:
        lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
        raise StepError(
            "`prefect deploy` failed; what was deployed before stays as it was:\n"
            + "\n".join(lines[-_NUM_ERROR_LINES:])
        )


def _remove_stale_schedules(
    prefect: PrefectApi, found: server.Deployment, row: dict[str, Any], changes: Changes
) -> None:
    """Delete schedules that the file no longer has; those without a slug are somebody else's."""
    wanted = {schedule["slug"] for schedule in row["schedules"]}
    for schedule in found.schedules:
        if schedule.slug is not None and schedule.slug not in wanted:
            prefect.delete_schedule(found.id, schedule.id)
            changes.done.append(f"{full_name(row)}: schedule {schedule.slug} removed")


def _share_limit(
    prefect: PrefectApi,
    deployment: Deployment,
    found: Sequence[server.Deployment],
    changes: Changes,
) -> None:
    """Have all deployments of a dataset share one concurrency limit."""
    name = prefect_yaml.dataset_tag(deployment.dataset)
    wanted = deployment.config.concurrency.limit
    limits = {limit["name"]: limit for limit in prefect.concurrency_limits()}
    shared = limits.get(name)
    if shared is None:
        limit_id = prefect.create_concurrency_limit(name, wanted)
        _count(changes, f"limit {name}", "created")
    else:
        limit_id = shared["id"]
        is_right = shared["limit"] == wanted
        if not is_right:
            prefect.update_concurrency_limit(limit_id, wanted)
        _count(changes, f"limit {name}", "unchanged" if is_right else "updated")
    for one in found:
        if one.concurrency_limit is None or one.concurrency_limit["id"] != limit_id:
            prefect.update_deployment(one.id, {"global_concurrency_limit_id": limit_id})
        own = limits.get(f"{_OWN_LIMIT}{one.id}")
        if own is not None:
            prefect.delete_concurrency_limit(own["id"])


def _count(changes: Changes, name: str, what: str) -> None:
    if what == "unchanged":
        changes.unchanged.append(name)
    else:
        changes.done.append(f"{name}: {what}")
