"""The record of a run: what `mm` and the dashboard read, and no result depends on."""

import json
from pathlib import Path

import pytest

from mmcore import storage
from mmcore.core.runs import RunLog, list_runs


def begin(root: str) -> RunLog:
    return RunLog(root, recipe="configs/x.yaml", name="x", executor="local")


def events_of(root: str, log: RunLog) -> list[dict[str, object]]:
    data = storage.read(storage.join(root, "runs", log.run_id, "events.jsonl"))
    return [json.loads(line) for line in data.decode().splitlines()]


def test_a_run_that_has_begun_is_running(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    (record,) = list_runs(str(tmp_path))
    assert record["run_id"] == log.run_id
    assert (record["status"], record["name"], record["recipe"]) == (
        "running",
        "x",
        "configs/x.yaml",
    )
    assert "ended_at" not in record


def test_a_run_that_has_ended_says_how(tmp_path: Path) -> None:
    begin(str(tmp_path)).finish("failed", error="the disk is full")
    (record,) = list_runs(str(tmp_path))
    assert (record["status"], record["error"]) == ("failed", "the disk is full")
    assert record["seconds"] >= 0


def test_each_event_is_a_line_at_once_with_its_time_and_its_own_facts(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    log.event("step_started", "clean", {"num_tasks": 2})
    assert len(events_of(str(tmp_path), log)) == 1
    log.event("step_finished", "clean", {"seconds": 123.0})
    started, finished = events_of(str(tmp_path), log)
    assert (started["kind"], started["step"], started["num_tasks"]) == ("step_started", "clean", 2)
    assert finished["seconds"] == 123.0
    assert 0 <= started["at_seconds"] <= finished["at_seconds"] < 100  # type: ignore[operator]


def test_runs_are_listed_from_the_newest_to_the_oldest(tmp_path: Path) -> None:
    for run_id in ("20260101-000000-aaaa", "20260102-000000-aaaa"):
        storage.write(
            str(tmp_path / "runs" / run_id / "run.json"), json.dumps({"run_id": run_id}).encode()
        )
    (tmp_path / "runs" / "20260103-000000-half").mkdir()
    assert [run["run_id"][:8] for run in list_runs(str(tmp_path))] == ["20260102", "20260101"]
    assert list_runs(str(tmp_path / "empty")) == []


def test_two_runs_begun_at_once_have_two_records(tmp_path: Path) -> None:
    assert len({begin(str(tmp_path)).run_id for _ in range(5)}) == 5
    assert len(list_runs(str(tmp_path))) == 5


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_bucket_has_every_event_once_a_step_has_ended(bucket: str) -> None:
    log = begin(bucket)
    log.event("step_started", "clean", {})
    log.event("step_finished", "clean", {})
    log.event("step_started", "dedup", {})
    assert [event["kind"] for event in events_of(bucket, log)] == ["step_started", "step_finished"]
    log.finish("done")
    assert list_runs(bucket)[0]["status"] == "done"
