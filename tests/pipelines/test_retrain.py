"""The flow `retrain`: it decides on record, runs or says why not, and tells people."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alert_receiver import Receiver
from prefect_server import PrefectServer

from mmcore.core.runs import list_runs
from mmcore.recipe.retrain import list_decisions
from mmcore.telemetry.prefect import PrefectApi
from pipelines import flows

RunFlow = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
    "ignore:'imghdr' is deprecated:DeprecationWarning",  # apprise's plug-ins import it
)


def test_new_data_is_learned_from_and_too_little_of_it_waits_with_a_reason(
    run_flow: RunFlow, project: Path
) -> None:
    root = str(project / "root")
    arrived = {"dataset": "texts", "num_files": 40, "source": str(project / "corpus")}
    assert run_flow(flows.retrain, arrived=arrived).is_completed()
    (project / "corpus" / "one_more.txt").write_text("one more text than before")
    state = run_flow(flows.retrain)
    assert (state.type, state.name) == ("COMPLETED", "Skipped")
    assert "min_new_samples" in state.message
    forced = run_flow(flows.retrain, force=True)
    assert forced.name == "Completed"
    third, second, first = list_decisions(root, "texts")
    assert [first.trigger, second.trigger] == ["new data", "flow"]
    assert [one.verdict.should_run for one in (first, second, third)] == [True, False, True]
    assert first.outcome is not None
    assert second.outcome is None
    assert len(list_runs(root)) == 2


def test_a_run_is_linked_to_the_flow_run_that_made_it(
    run_flow: RunFlow, project: Path, api: PrefectApi
) -> None:
    state = run_flow(flows.prepare_data)
    (run,) = list_runs(str(project / "root"))
    assert run["flow_run_id"] == str(state.state_details.flow_run_id)
    assert run["flow_name"] == "prepare-data"
    assert api.flow_run(run["flow_run_id"]).name == "prepare-data texts"


def test_a_flow_that_fails_tells_people_what_and_where(
    run_flow: RunFlow, project: Path, receiver: Receiver
) -> None:
    (project / "d.yaml").write_text(
        f"name: texts\nrecipe: {project}/texts.yaml\nalerts: {{to: ['{receiver.url}']}}\n"
    )
    (project / "corpus").rename(project / "moved")
    state = run_flow(flows.prepare_data, policy=str(project / "d.yaml"))
    assert state.is_failed()
    (alert,) = receiver.alerts
    assert alert["title"] == "prepare-data texts: failed"
    assert "no file below" in alert["message"]


def test_a_flow_that_takes_too_long_is_ended_and_has_failed(
    run_flow: RunFlow, project: Path, receiver: Receiver
) -> None:
    (project / "d.yaml").write_text(
        f"name: texts\nrecipe: {project}/texts.yaml\ntimeout_seconds: 0.01\n"
        f"alerts: {{to: ['{receiver.url}']}}\n"
    )
    recipe = project / "texts.yaml"
    slow = "{slow: {use: slow_stages.Slow, seconds: 1}}"
    recipe.write_text(recipe.read_text().replace("{repair_caption: }", slow))
    state = run_flow(flows.prepare_data, policy=str(project / "d.yaml"))
    assert (state.type, state.name) == ("FAILED", "TimedOut")
    assert "timeout_seconds=0.01" in state.message
    (run,) = list_runs(str(project / "root"))
    assert run["status"] == "cancelled"
    assert len(receiver.alerts) == 1


def test_the_day_that_a_run_is_for_is_in_its_overrides_and_its_name(
    run_flow: RunFlow, project: Path, api: PrefectApi, on_server: PrefectServer
) -> None:
    (project / "corpus").rename(project / "2026-01-31")
    state = run_flow(
        flows.prepare_data,
        overrides=[f"source.path={project}/{{logical_date}}"],
        logical_date="2026-01-31",
    )
    assert state.is_completed()
    name = api.flow_run(str(state.state_details.flow_run_id)).name
    assert name == "prepare-data texts 2026-01-31"


def test_a_deployment_file_that_is_gone_fails_the_run_with_its_name(run_flow: RunFlow) -> None:
    state = run_flow(flows.prepare_data, policy="configs/deployments/gone.yaml")
    assert state.is_failed()
    assert "configs/deployments/gone.yaml" in state.message
