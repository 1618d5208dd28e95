"""The one door to a Prefect server: its REST API over httpx, without the Prefect package.

Times go in and come out with their time zone. How a call is made is in `prefect_wire`.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx

from mmcore.telemetry.prefect_records import (
    ENDED,
    Deployment,
    FlowRun,
    Schedule,
    StateType,
    deployment_of,
    flow_run_of,
    moment_of,
)
from mmcore.telemetry.prefect_wire import PAGE_SIZE, PrefectError, PrefectUnreachable, PrefectWire

__all__ = [
    "ENDED",
    "PAGE_SIZE",
    "Deployment",
    "FlowRun",
    "PrefectApi",
    "PrefectError",
    "PrefectUnreachable",
    "Schedule",
    "StateType",
]


class PrefectApi(PrefectWire):
    """A Prefect server. Not for more than one thread at a time.

    >>> with PrefectApi("http://127.0.0.1:4200/api", "mm:secret") as prefect:
    ...     prefect.upcoming(limit=5)
    """

    # the server

    def healthy(self) -> bool:
        """Return whether the server is up and accepts our login; raises nothing."""
        try:
            self._ask("GET", "/admin/version")
        except PrefectError:
            return False
        return True

    def version(self) -> str:
        """Return the server's version, e.g. `3.8.8`."""
        return str(self._ask("GET", "/admin/version"))

    # events

    def emit_event(
        self,
        name: str,
        resource: Mapping[str, str],
        payload: Mapping[str, Any],
        *,
        related: Sequence[Mapping[str, str]] = (),
        event_id: str | None = None,
    ) -> str:
        """Emit one event and return its id; `resource` needs a `prefect.resource.id`.

        The server records an id once: with the same id it may be said again after a lost answer.
        """
        said = event_id or str(uuid.uuid4())
        event = {
            "id": said,
            "occurred": datetime.now(UTC).isoformat(),
            "event": name,
            "resource": dict(resource),
            "related": [dict(one) for one in related],
            "payload": dict(payload),
        }
        self._ask("POST", "/events", [event])
        return said

    def events(self, name: str, *, limit: int = 50) -> list[dict[str, Any]]:
        """Return the newest events of a name, the newest first."""
        body = {"filter": {"event": {"name": [name]}, "order": "DESC"}, "limit": min(limit, 50)}
        found: list[dict[str, Any]] = self._ask("POST", "/events/filter", body)["events"]
        return found

    # flow runs

    def flow_run(self, flow_run_id: str) -> FlowRun:
        """Return one flow run; PrefectError with status code 404 when there is none."""
        return flow_run_of(self._ask("GET", f"/flow_runs/{flow_run_id}"))

    def flow_runs(
        self,
        *,
        state_types: Sequence[StateType] = (),
        deployment_ids: Sequence[str] = (),
        tags: Sequence[str] = (),
        expected_before: datetime | None = None,
        expected_after: datetime | None = None,
        idempotency_keys: Sequence[str] = (),
        sort: str = "EXPECTED_START_TIME_DESC",
        limit: int = PAGE_SIZE,
    ) -> list[FlowRun]:
        """Return flow runs that fit all that is given, the newest first."""
        wanted: dict[str, Any] = {}
        if state_types:
            wanted["state"] = {"type": {"any_": list(state_types)}}
        if deployment_ids:
            wanted["deployment_id"] = {"any_": list(deployment_ids)}
        if tags:
            wanted["tags"] = {"all_": list(tags)}
        if idempotency_keys:
            wanted["idempotency_key"] = {"any_": list(idempotency_keys)}
        expected = {"before_": expected_before, "after_": expected_after}
        if any(expected.values()):
            wanted["expected_start_time"] = {
                key: moment.isoformat() for key, moment in expected.items() if moment is not None
            }
        body = {"flow_runs": wanted, "sort": sort, "limit": min(limit, PAGE_SIZE)}
        return [flow_run_of(found) for found in self._ask("POST", "/flow_runs/filter", body)]

    def upcoming(self, limit: int = 20) -> list[FlowRun]:
        """Return what runs next, the soonest first; what is late already stands before that."""
        return self.flow_runs(
            state_types=["SCHEDULED"], sort="NEXT_SCHEDULED_START_TIME_ASC", limit=limit
        )

    def create_flow_run(
        self,
        deployment_id: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        scheduled_at: datetime | None = None,
        idempotency_key: str | None = None,
        tags: Sequence[str] = (),
        labels: Mapping[str, str | int | float | bool] | None = None,
    ) -> FlowRun:
        """Have a deployment run now, or at a time; with a known key the run of before comes back.

        Parameters that are not given are the deployment's own.
        """
        details = {} if scheduled_at is None else {"scheduled_time": scheduled_at.isoformat()}
        body: dict[str, Any] = {
            "parameters": dict(parameters or {}),
            "state": {"type": "SCHEDULED", "state_details": details},
            "tags": list(tags),
            "idempotency_key": idempotency_key,
            "labels": dict(labels or {}),
        }
        if name is not None:
            body["name"] = name
        return flow_run_of(self._ask("POST", f"/deployments/{deployment_id}/create_flow_run", body))

    def cancel(self, flow_run_id: str, *, why: str = "") -> str:
        """Ask for the end of a flow run; return the type of the state it is in then.

        One that has not begun is CANCELLED at once; one that runs is CANCELLING until its worker
        or the run itself has seen to it; one that has ended stays as it is.
        """
        run = self.flow_run(flow_run_id)
        if run.has_ended:
            return run.state_type
        begun = run.state_type in ("PENDING", "RUNNING", "CANCELLING")
        return self.set_state(flow_run_id, "CANCELLING" if begun else "CANCELLED", message=why)

    def set_state(
        self,
        flow_run_id: str,
        state_type: StateType,
        *,
        name: str | None = None,
        message: str = "",
        force: bool = False,
    ) -> str:
        """Propose a state; return the type of the one that the server settled on."""
        state = {"type": state_type, "name": name, "message": message or None}
        body = {"state": state, "force": force}
        answer = self._ask("POST", f"/flow_runs/{flow_run_id}/set_state", body)
        settled = answer.get("state")
        if settled is None:  # ABORT and WAIT leave the run as it is
            return self.flow_run(flow_run_id).state_type
        return str(settled["type"])

    # deployments and their schedules

    def flow_names(self) -> dict[str, str]:
        """Return the names of all flows by their ids."""
        return {flow["id"]: flow["name"] for flow in self._pages("/flows/filter")}

    def deployments(self, *, tags: Sequence[str] = ()) -> list[Deployment]:
        """Return all deployments, or those that have every tag, sorted by name."""
        wanted = {"deployments": {"tags": {"all_": list(tags)}}} if tags else {}
        return [deployment_of(found) for found in self._pages("/deployments/filter", wanted)]

    def deployment(self, flow: str, name: str) -> Deployment | None:
        """Return the deployment `flow/name`, or None when there is none."""
        try:
            return deployment_of(self._ask("GET", f"/deployments/name/{flow}/{name}"))
        except PrefectError as error:
            if error.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def update_deployment(self, deployment_id: str, changes: Mapping[str, Any]) -> None:
        """Change fields of a deployment; what is not named stays."""
        self._ask("PATCH", f"/deployments/{deployment_id}", dict(changes))

    def delete_deployment(self, deployment_id: str) -> None:
        """Delete a deployment, its schedules and the runs that they planned."""
        self._ask("DELETE", f"/deployments/{deployment_id}")

    def set_schedule_active(self, deployment_id: str, schedule_id: str, active: bool) -> None:
        """Pause or resume a schedule; the runs that it had planned go when it pauses."""
        self._ask(
            "PATCH", f"/deployments/{deployment_id}/schedules/{schedule_id}", {"active": active}
        )

    def delete_schedule(self, deployment_id: str, schedule_id: str) -> None:
        """Delete a schedule and the runs that it had planned."""
        self._ask("DELETE", f"/deployments/{deployment_id}/schedules/{schedule_id}")

    # automations, concurrency limits, work pools

    def automations(self) -> list[dict[str, Any]]:
        """Return all automations."""
        return list(self._pages("/automations/filter"))

    def create_automation(self, automation: Mapping[str, Any]) -> None:
        """Create an automation: `name`, `trigger`, `actions`, ..."""
        self._ask("POST", "/automations/", dict(automation))

    def update_automation(self, automation_id: str, automation: Mapping[str, Any]) -> None:
        """Replace an automation."""
        self._ask("PUT", f"/automations/{automation_id}", dict(automation))

    def delete_automation(self, automation_id: str) -> None:
        """Delete an automation."""
        self._ask("DELETE", f"/automations/{automation_id}")

    def concurrency_limits(self) -> list[dict[str, Any]]:
        """Return all global concurrency limits: `id`, `name`, `limit`, `active_slots`."""
        return list(self._pages("/v2/concurrency_limits/filter"))

    def create_concurrency_limit(self, name: str, limit: int) -> str:
        """Create a global concurrency limit and return its id."""
        made = self._ask("POST", "/v2/concurrency_limits/", {"name": name, "limit": limit})
        return str(made["id"])

    def update_concurrency_limit(self, limit_id: str, limit: int) -> None:
        """Change how many a global concurrency limit lets through."""
        self._ask("PATCH", f"/v2/concurrency_limits/{limit_id}", {"limit": limit})

    def delete_concurrency_limit(self, limit_id: str) -> None:
        """Delete a global concurrency limit."""
        self._ask("DELETE", f"/v2/concurrency_limits/{limit_id}")

    def work_pools(self) -> list[dict[str, Any]]:
        """Return all work pools: `name`, `type`, `status`, `is_paused`."""
        return list(self._pages("/work_pools/filter"))

    def create_work_pool(self, name: str, *, kind: str = "process") -> None:
        """Create a work pool; ours run flows as processes of the worker's machine."""
        self._ask("POST", "/work_pools/", {"name": name, "type": kind})

    def worker_heard_at(self, work_pool: str, name: str) -> datetime | None:
        """Return when a worker last reported, or None when it never has."""
        for worker in self._pages(f"/work_pools/{work_pool}/workers/filter"):
            if worker["name"] == name:
                return moment_of(worker["last_heartbeat_time"])
        return None
