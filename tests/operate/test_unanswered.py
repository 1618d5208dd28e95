"""New data that was told of: told of again while nobody answers, and no more once somebody has."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect_server import PrefectServer
from processes import wait_until

from mmcore.operate.connection import Connection
from mmcore.operate.deploy import Changes
from mmcore.operate.deployed import list_deployed
from mmcore.operate.events import Arrival, notify_arrival
from mmcore.operate.unanswered import MAX_TIMES, Unanswered
from mmcore.telemetry.prefect import PrefectApi
from mmcore.telemetry.prefect_records import FlowRun

WATCHED = "watch: {debounce_seconds: %g}"
DEBOUNCE_SECONDS = 1
MINUTES = timedelta(minutes=1)


class Clock:
    """Real time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Told:
    """A deployment on a real server, and somebody who tells of new data."""

    def __init__(
        self, name: str, connection: Connection, api: PrefectApi, project: Callable[..., Changes]
    ) -> None:
        project(WATCHED % DEBOUNCE_SECONDS)
        self.name, self.connection, self.api = name, connection, api
        self.clock = Clock()
        self.unanswered = Unanswered(connection.root, patience_seconds=45, now=self.clock)

    def arrive(self, *, is_lost: bool = False) -> None:
        arrival = Arrival(dataset=self.name, source="corpus", num_files=1, num_bytes=1)
        before = len(self.runs())
        for _ in range(0 if is_lost else 4):
            # a server that is busy may not know yet of the automation that was just deployed
            notify_arrival(self.connection, arrival)
            deadline = time.monotonic() + 30
            while len(self.runs()) == before and time.monotonic() < deadline:
                time.sleep(0.2)
            if len(self.runs()) > before:
                break
        self.unanswered.told(arrival)

    def look(self) -> list[str]:
        return self.unanswered.look(list_deployed(self.connection.root))

    def runs(self) -> list[FlowRun]:
        return self.api.flow_runs(tags=[f"dataset:{self.name}"])

    def wait_for_runs(self, number: int) -> list[FlowRun]:
        wait_until(lambda: len(self.runs()) == number, seconds=120, what=f"{number} flow runs")
        return self.runs()


@pytest.fixture
def told(
    name: str,
    connection: Connection,
    api: PrefectApi,
    project: Callable[..., Changes],
    prefect_server: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Told:
    for variable, value in prefect_server.environment().items():
        monkeypatch.setenv(variable, value)
    return Told(name, connection, api, project)


def test_data_whose_run_crashed_is_told_of_again_and_another_run_starts(told: Told) -> None:
    told.arrive()
    (first,) = told.wait_for_runs(1)
    told.api.set_state(first.id, "CRASHED", message="killed")
    assert told.look() == []  # it has patience
    time.sleep(DEBOUNCE_SECONDS)  # the server's own clock, which no test can put forward
    told.clock.ahead = MINUTES
    assert told.look() == [told.name]
    runs = told.wait_for_runs(2)
    second = next(run for run in runs if run.id != first.id)
    assert second.parameters["arrived"]["num_files"] == 1


def test_data_whose_event_got_lost_is_told_of_again(told: Told) -> None:
    told.arrive(is_lost=True)
    told.clock.ahead = MINUTES
    assert told.look() == [told.name]
    told.wait_for_runs(1)


def test_it_is_not_told_again_while_the_debounce_would_swallow_it(
    told: Told, project: Callable[..., Changes]
) -> None:
    project(WATCHED % 3600)
    told.arrive(is_lost=True)
    told.clock.ahead = 59 * MINUTES
    assert told.look() == []
    told.clock.ahead = 61 * MINUTES
    assert told.look() == [told.name]


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED"])
def test_a_run_that_ended_is_an_answer_whatever_it_says(told: Told, state: str) -> None:
    told.arrive()
    told.api.set_state(told.wait_for_runs(1)[0].id, state)  # type: ignore[arg-type]
    told.clock.ahead = 60 * MINUTES
    assert told.look() == []
    told.clock.ahead = 120 * MINUTES
    assert told.look() == []
    assert len(told.runs()) == 1


def test_while_a_run_may_yet_answer_nothing_is_said(told: Told) -> None:
    told.arrive()
    (run,) = told.wait_for_runs(1)
    told.api.set_state(run.id, "RUNNING")
    told.clock.ahead = 60 * MINUTES
    assert told.look() == []


def test_a_run_that_was_handed_out_and_never_started_is_no_answer(told: Told) -> None:
    told.arrive()
    (run,) = told.wait_for_runs(1)
    told.api.set_state(run.id, "PENDING")
    told.clock.ahead = MINUTES
    assert told.look() == []
    told.clock.ahead = 5 * MINUTES
    assert told.look() == [told.name]
    assert told.api.flow_run(run.id).state_name == "Died"


def test_it_is_given_up_after_a_few_times(told: Told) -> None:
    told.arrive(is_lost=True)
    told.api.delete_deployment(str(told.api.deployment("retrain", told.name).id))  # type: ignore[union-attr]
    for number in range(1, MAX_TIMES + 2):
        told.clock.ahead += 60 * MINUTES
        assert told.look() == ([told.name] if number < MAX_TIMES else [])
