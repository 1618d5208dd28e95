"""The automation that calls silent flow runs crashed, on a real server."""

import time

from processes import wait_until

from mmcore.operate.automations import SILENT_NAME, ensure_automation, silent_runs_automation
from mmcore.operate.prefect_yaml import TAG
from mmcore.telemetry.prefect import PrefectApi


def test_the_automation_for_silent_runs_is_made_once_and_corrected(api: PrefectApi) -> None:
    wanted = silent_runs_automation()
    ensure_automation(api, wanted)
    assert ensure_automation(api, wanted) == "unchanged"
    (found,) = [one for one in api.automations() if one["name"] == SILENT_NAME]
    api.update_automation(found["id"], {**wanted, "enabled": False})
    assert ensure_automation(api, wanted) == "updated"
    (found,) = [one for one in api.automations() if one["name"] == SILENT_NAME]
    assert found["enabled"] is True


def running(api: PrefectApi, *tags: str) -> str:
    """Return a flow run that runs, and has said so once."""
    flow = api._ask("POST", "/flows/", {"name": "silent"})
    body = {"name": "s", "flow_id": flow["id"], "tags": list(tags)}
    flow_run_id = str(api._ask("POST", "/flow_runs/", body)["id"])
    api.set_state(flow_run_id, "PENDING")
    api.set_state(flow_run_id, "RUNNING")
    api.emit_event(
        "prefect.flow-run.heartbeat",
        {"prefect.resource.id": f"prefect.flow-run.{flow_run_id}"},
        {},
        related=[
            {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
            for tag in tags
        ],
    )
    return flow_run_id


def test_a_flow_run_of_ours_that_falls_silent_is_crashed_and_one_that_has_ended_is_not(
    api: PrefectApi,
) -> None:
    ensure_automation(api, {**silent_runs_automation(10), "name": "soon silent"})
    time.sleep(3)  # the server's triggers hear of a new automation a moment after it is made
    silent, ended, stranger = running(api, TAG), running(api, TAG), running(api, "other")
    api.set_state(ended, "COMPLETED")
    wait_until(lambda: api.flow_run(silent).has_ended, seconds=120, what="it has crashed")
    crashed = api.flow_run(silent)
    assert (crashed.state_type, crashed.state_name) == ("CRASHED", "Died")
    assert api.flow_run(ended).state_type == "COMPLETED"
    assert api.flow_run(stranger).state_type == "RUNNING"
