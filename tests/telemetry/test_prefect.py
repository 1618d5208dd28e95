"""The door to Prefect, against a real server with a login and CSRF protection."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect_server import AUTH, PrefectServer
from processes import wait_until

from mmcore.telemetry.prefect import PrefectApi, PrefectError, PrefectUnreachable

FLOW = {"name": "telemetry-flow"}


@pytest.fixture
def deployment_id(api: PrefectApi, request: pytest.FixtureRequest) -> str:
    """A deployment without a schedule or a place to run."""
    flow = api._ask("POST", "/flows/", FLOW)
    body = {
        "name": request.node.name[:50],
        "flow_id": flow["id"],
        "enforce_parameter_schema": False,
    }
    return str(api._ask("POST", "/deployments/", body)["id"])


def test_a_server_with_login_and_csrf_is_written_to(api: PrefectApi) -> None:
    assert api.healthy()
    event_id = api.emit_event("mm.test", {"prefect.resource.id": "mm.dataset.x"}, {"num_files": 3})
    wait_until(lambda: api.events("mm.test"), seconds=30, what="the event is recorded")
    (event,) = api.events("mm.test")
    assert (event["id"], event["payload"]) == (event_id, {"num_files": 3})


def test_an_event_said_twice_with_one_id_is_one_event(api: PrefectApi) -> None:
    for _ in range(2):
        said = api.emit_event(
            "mm.twice",
            {"prefect.resource.id": "mm.dataset.x"},
            {},
            event_id="0c5a3d9e-9f3e-4b0e-8f2e-4b1f6a1f0001",
        )
    api.emit_event("mm.after", {"prefect.resource.id": "mm.dataset.x"}, {})
    wait_until(lambda: api.events("mm.after"), seconds=30, what="a later event is recorded")
    assert [event["id"] for event in api.events("mm.twice")] == [said]


@pytest.mark.parametrize("auth", [None, "mm:wrong", "wrong"])
def test_a_wrong_login_is_refused_with_what_to_do(
    prefect_server: PrefectServer, auth: str | None
) -> None:
    with PrefectApi(prefect_server.url, auth) as stranger:
        assert not stranger.healthy()
        with pytest.raises(PrefectError, match="PREFECT_API_AUTH_STRING") as refused:
            stranger.deployments()
    assert refused.value.status_code == 401
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "http://no host/api", "nonsense"])
def test_no_server_is_an_error_that_says_how_to_get_one(url: str) -> None:
    with PrefectApi(url, AUTH) as nobody:
        assert not nobody.healthy()
        with pytest.raises(PrefectUnreachable, match="mm up"):
            nobody.upcoming()


def test_a_flow_run_that_has_not_begun_is_cancelled_at_once_and_stays_so(
    api: PrefectApi, deployment_id: str
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    run = api.create_flow_run(deployment_id, {"a": 1}, scheduled_at=later, tags=["one"])
    assert (run.state_type, run.parameters, run.tags) == ("SCHEDULED", {"a": 1}, ("one",))
    assert run.expected_start == later
    assert run.id in [upcoming.id for upcoming in api.upcoming(limit=200)]
    assert api.cancel(run.id, why="a test") == "CANCELLED"
    ended = api.flow_run(run.id)
    assert (ended.has_ended, ended.message) == (True, "a test")
    assert api.cancel(run.id) == "CANCELLED"
    assert run.id not in [upcoming.id for upcoming in api.upcoming(limit=200)]


def test_a_flow_run_that_runs_is_asked_to_end(api: PrefectApi, deployment_id: str) -> None:
    run = api.create_flow_run(deployment_id)
    api.set_state(run.id, "PENDING")
    assert api.set_state(run.id, "RUNNING") == "RUNNING"
    assert api.cancel(run.id) == "CANCELLING"
    assert not api.flow_run(run.id).has_ended


def test_a_flow_run_with_a_known_key_is_the_one_of_before(
    api: PrefectApi, deployment_id: str
) -> None:
    first = api.create_flow_run(deployment_id, idempotency_key="once")
    assert api.create_flow_run(deployment_id, idempotency_key="once").id == first.id
    assert [run.id for run in api.flow_runs(idempotency_keys=["once"])] == [first.id]
    assert api.flow_runs(deployment_ids=[deployment_id], state_types=["RUNNING"]) == []


def test_what_is_not_there_is_told_apart_from_what_fails(api: PrefectApi) -> None:
    assert api.deployment("retrain", "nowhere") is None
    with pytest.raises(PrefectError, match="404") as missing:
        api.flow_run("00000000-0000-4000-8000-000000000000")
    assert missing.value.status_code == 404


def test_more_than_a_page_of_things_is_read_whole(api: PrefectApi) -> None:
    for i in range(201):
        api.create_concurrency_limit(f"paged-{i:03d}", 1)
    names = [limit["name"] for limit in api.concurrency_limits()]
    for limit in api.concurrency_limits():
        api.delete_concurrency_limit(limit["id"])
    assert sum(name.startswith("paged-") for name in names) == 201
