"""The automation that Prefect lacks outside its cloud: a flow run that fell silent has crashed.

The one that starts a retraining when data arrives is the deployment's own: see `prefect_yaml`.
"""

from collections.abc import Mapping
from typing import Any

from mmcore.operate.prefect_yaml import HEARTBEAT_SECONDS, TAG
from mmcore.telemetry.prefect import PrefectApi

SILENT_NAME = "mm: a flow run that fell silent has crashed"
SILENT_SECONDS = 3 * HEARTBEAT_SECONDS
"""Two heartbeats may get lost. `mm up` finds a dead run of its own machine in a tenth of that."""
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def silent_runs_automation(silent_seconds: float = SILENT_SECONDS) -> dict[str, Any]:
    """Return the automation that calls a flow run of ours crashed when its heartbeats stop."""
    ends = [f"prefect.flow-run.{state}" for state in _ENDS]
    return {
        "name": SILENT_NAME,
        "description": f"No heartbeat for {silent_seconds:g} s, and no end: the process is gone.",
        "enabled": True,
        "tags": [TAG],
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            # other flow runs on the server may beat more slowly
            "match_related": {
                "prefect.resource.id": f"prefect.tag.{TAG}",
                "prefect.resource.role": "tag",
            },
            "for_each": ["prefect.resource.id"],
            "after": ["prefect.flow-run.heartbeat"],
            "expect": ["prefect.flow-run.heartbeat", *ends],
            "threshold": 1,
            "within": silent_seconds,
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "name": "Died",
                "message": f"no sign of life for {silent_seconds:g} s",
            }
        ],
    }


def ensure_automation(prefect: PrefectApi, wanted: Mapping[str, Any]) -> str:
    """Create or correct an automation of a name; return `created`, `updated` or `unchanged`."""
    found = [one for one in prefect.automations() if one["name"] == wanted["name"]]
    for superfluous in found[1:]:
        prefect.delete_automation(superfluous["id"])
    if not found:
        prefect.create_automation(wanted)
        return "created"
    if _holds(found[0], wanted):
        return "unchanged"
    prefect.update_automation(found[0]["id"], wanted)
    return "updated"


def _holds(found: Any, wanted: Any) -> bool:
    """Return whether what the server has says all that is wanted; it adds defaults of its own."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and _holds(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(found, list):
        if all(isinstance(one, str) for one in wanted):
            return sorted(found) == sorted(wanted)  # sets, on the server
        return len(found) == len(wanted) and all(map(_holds, found, wanted))
    return bool(found == wanted)
