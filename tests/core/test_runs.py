"""The record of a run: what `mm` and the dashboard read, and no result depends on."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import processes
import pytest

from mmcore import storage
from mmcore.core.process import Process, status_of
from mmcore.core.run_log import RunLog
from mmcore.core.runs import (
    DEAD_AFTER_SECONDS,
    close_record,
    effective_status,
    find_run,
    heartbeat_age,
    list_runs,
    load_run,
    process_of,
    read_events,
    request_cancel,
)
from mmcore.errors import ConfigError


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


def dead_process() -> Process:
    """A process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        status = status_of(child.pid)
        assert status is not None
        gone = replace(Process.current(), pid=child.pid, started=status.started)
        child.kill()
    return gone


def rewrite(root: str, log: RunLog, **facts: object) -> dict[str, object]:
    """Change what a record says, as if another process had written it."""
    record = {**log.record, **facts}
    storage.write(storage.join(log.url, "run.json"), json.dumps(record).encode())
    return load_run(root, log.run_id)


def test_a_record_says_what_was_asked_for_and_by_which_process(tmp_path: Path) -> None:
    log = RunLog(
        str(tmp_path), recipe="x.yaml", name="x", executor="ray", num_workers=3,
        overrides=["a.b=1"], until=["shard"], flow={"flow_run_id": "f", "flow_name": "n"},
    )  # fmt: skip
    record = load_run(str(tmp_path), log.run_id)
    assert (record["num_workers"], record["overrides"]) == (3, ["a.b=1"])
    assert (record["until"], record["flow_run_id"]) == (["shard"], "f")
    assert process_of(record) == Process.current()
    assert record["url"] == log.url


def test_a_run_whose_process_lives_is_running(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    assert effective_status(load_run(str(tmp_path), log.run_id)) == "running"


def test_a_run_whose_process_is_gone_has_died_at_once(tmp_path: Path) -> None:
    log, gone = begin(str(tmp_path)), dead_process()
    log.beat()
    run = rewrite(str(tmp_path), log, pid=gone.pid, pid_started=gone.started)
    assert effective_status(run) == "died"


def test_a_process_that_has_the_number_of_a_dead_one_does_not_keep_its_run_alive(
    tmp_path: Path,
) -> None:
    log = begin(str(tmp_path))
    run = rewrite(str(tmp_path), log, pid_started=Process.current().started - 1)
    assert effective_status(run) == "died"


def test_a_run_whose_process_is_dead_and_not_yet_buried_has_died(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        status = status_of(child.pid)
        assert status is not None
        run = rewrite(str(tmp_path), log, pid=child.pid, pid_started=status.started)
        assert effective_status(run) == "running"
        os.kill(child.pid, signal.SIGKILL)
        processes.wait_until(
            lambda: effective_status(run) == "died", seconds=5, what="a zombie is dead"
        )
        assert os.path.exists(f"/proc/{child.pid}")


def test_a_run_of_another_machine_lives_by_its_heartbeat(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    log.beat()
    run = rewrite(str(tmp_path), log, machine="another boot", host="another")
    assert effective_status(run) == "running"
    assert 0 <= heartbeat_age(run) < 20
    old = time.time() - DEAD_AFTER_SECONDS - 1
    os.utime(tmp_path / "runs" / log.run_id / "heartbeat", (old, old))
    assert effective_status(run) == "died"


def test_a_run_that_is_asked_to_stop_is_cancelling_and_the_first_who_asked_counts(
    tmp_path: Path,
) -> None:
    root = str(tmp_path)
    log = begin(root)
    assert log.cancel_request() is None
    assert request_cancel(root, log.run_id, by="anna", why="wrong corpus")
    assert request_cancel(root, log.run_id, by="bert")
    request = log.cancel_request()
    assert request is not None
    assert (request["by"], request["why"]) == ("anna", "wrong corpus")
    assert effective_status(load_run(root, log.run_id)) == "cancelling"
    log.finish("cancelled", cancelled_by="anna")
    assert effective_status(load_run(root, log.run_id)) == "cancelled"


def test_a_run_that_was_killed_when_it_did_not_stop_is_cancelled_not_died(tmp_path: Path) -> None:
    root = str(tmp_path)
    log, gone = begin(root), dead_process()
    request_cancel(root, log.run_id, by="anna")
    run = rewrite(root, log, pid=gone.pid, pid_started=gone.started)
    assert effective_status(run) == "cancelled"
    close_record(run, "cancelled", error="killed")
    assert load_run(root, log.run_id)["status"] == "cancelled"


def test_a_run_that_has_ended_cannot_be_cancelled(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    log.finish("done")
    assert not request_cancel(str(tmp_path), log.run_id, by="anna")
    assert not (tmp_path / "runs" / log.run_id / "cancel.json").exists()


@pytest.mark.parametrize("name", ["20990101", "../state", "..", "", "a/b"])
def test_a_run_that_is_not_there_is_one_clear_error(tmp_path: Path, name: str) -> None:
    begin(str(tmp_path))
    with pytest.raises(ConfigError, match="there is no run"):
        load_run(str(tmp_path), name)
    with pytest.raises(ConfigError, match="there is no run"):
        request_cancel(str(tmp_path), name, by="anna")


def test_a_run_is_found_by_a_prefix_that_is_its_alone_or_as_the_latest(tmp_path: Path) -> None:
    root = str(tmp_path)
    logs = [begin(root) for _ in range(3)]
    assert find_run(root, "latest")["run_id"] == logs[-1].run_id
    assert find_run(root, logs[0].run_id)["run_id"] == logs[0].run_id
    assert find_run(root, logs[1].run_id[:-1])["run_id"] == logs[1].run_id
    with pytest.raises(ConfigError, match=r"3 runs begin with '20'.*Say more"):
        find_run(root, "20")
    with pytest.raises(ConfigError, match="there is no run 'latest'"):
        find_run(str(tmp_path / "empty"), "latest")


def test_identifiers_sort_by_time(tmp_path: Path) -> None:
    found = []
    for _ in range(5):
        found.append(begin(str(tmp_path)).run_id)
        time.sleep(0.002)
    assert found == sorted(found)


def test_runs_are_listed_in_pages_and_only_those_of_a_page_are_read(tmp_path: Path) -> None:
    root = str(tmp_path)
    names = [f"202601{day:02d}-000000-000aaaa" for day in range(1, 21)]
    for name in names:
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        (directory / "run.json").write_text(json.dumps({"run_id": name, "status": "done"}))
    (tmp_path / "runs" / names[0] / "run.json").write_text("broken")
    newest = list_runs(root, limit=3)
    assert [run["run_id"] for run in newest] == names[:-4:-1]
    older = list_runs(root, limit=3, before=newest[-1]["run_id"])
    assert [run["run_id"] for run in older] == names[-4:-7:-1]


def test_of_progress_a_few_lines_a_second_are_kept_and_always_the_last(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    log.planned([{"name": "clean", "will_run": True}])
    for done in range(1, 1001):
        log.event("task_finished", "clean", {"done": done, "total": 1000})
    events = read_events(log.url)
    assert events[0]["steps"] == [{"name": "clean", "will_run": True}]
    assert len(events) < 500
    assert events[-1]["done"] == 1000


def test_what_the_library_logs_is_kept_with_its_fields(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    logger = logging.getLogger("mmcore.clean.image")
    with log.listening():
        logger.info("shard_finished", extra={"shard": "train-000000", "num_kept": 7})
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("it failed")
    logger.error("after the run")
    lines = [json.loads(line) for line in (tmp_path / "runs" / log.run_id / "log.jsonl").open()]
    first, second = lines
    assert (first["message"], first["level"]) == ("shard_finished", "info")
    assert (first["logger"], first["shard"], first["num_kept"]) == (
        "mmcore.clean.image",
        "train-000000",
        7,
    )
    assert "ValueError: broken" in second["traceback"]


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    log.event("step_started", "clean", {})
    with (tmp_path / "runs" / log.run_id / "events.jsonl").open("a") as file:
        file.write('{"kind": "half')
    assert [event["kind"] for event in read_events(log.url)] == ["step_started"]


def test_only_the_first_end_of_a_run_counts(tmp_path: Path) -> None:
    log = begin(str(tmp_path))
    log.finish("cancelled")
    log.finish("failed", error="the store was closed")
    assert load_run(str(tmp_path), log.run_id)["status"] == "cancelled"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_bucket_gets_the_lines_with_the_heartbeat_and_knows_the_dead(bucket: str) -> None:
    log = begin(bucket)
    log.event("step_started", "clean", {})
    time.sleep(0.01)
    log.beat()
    assert [event["kind"] for event in read_events(log.url)] == ["step_started"]
    run = rewrite(bucket, log, machine="another boot")
    assert effective_status(run) == "running"
    assert request_cancel(bucket, log.run_id, by="anna")
    assert effective_status(run) == "cancelling"
