"""`mm runs` and `mm cancel`, seen from outside."""

from pathlib import Path

from command import Made, Mm

from mmcore.core.run_log import RunLog


def test_runs_are_a_table_with_the_newest_first_and_what_failed(mm: Mm, tmp_path: Path) -> None:
    root = str(tmp_path)
    old, new = (RunLog(root, recipe="x.yaml", name="x", executor="local") for _ in range(2))
    old.finish("failed", error="clean: the disk is full\nmore lines")
    said = mm("runs", "--root", root)
    assert said.code == 0
    first, second = said.out.splitlines()
    assert first.startswith(f"{new.run_id}  x ")
    assert " running " in first
    assert second.startswith(f"{old.run_id}  x ")
    assert second.endswith("clean: the disk is full")
    rows = mm("runs", "--root", root, "--json").json()["runs"]
    assert [row["run_id"] for row in rows] == [new.run_id, old.run_id]
    assert [row["status"] for row in rows] == ["running", "failed"]


def test_runs_come_in_pages(mm: Mm, tmp_path: Path) -> None:
    root = str(tmp_path)
    logs = [RunLog(root, recipe="x.yaml", name="x", executor="local") for _ in range(3)]
    said = mm("runs", "--root", root, "--limit", "2")
    assert len(said.out.splitlines()) == 2
    assert f"mm runs --before {logs[1].run_id}" in said.err
    rest = mm("runs", "--root", root, "--before", logs[1].run_id, "--json").json()["runs"]
    assert [row["run_id"] for row in rest] == [logs[0].run_id]


def test_no_runs_are_no_error_and_say_how_to_begin(mm: Mm, tmp_path: Path) -> None:
    said = mm("runs", "--root", str(tmp_path))
    assert (said.code, said.out) == (0, "")
    assert "mm run RECIPE" in said.err


def test_one_run_is_shown_with_what_became_of_each_step(mm: Mm, made: Made) -> None:
    said = mm("runs", "latest", "--root", str(made.root))
    assert said.code == 0
    lines = said.out.splitlines()
    assert "  done  (" in lines[0]
    clean = next(line for line in lines if line.startswith("  clean"))
    assert "done" in clean
    assert "25 kept; dropped: image_too_small 1" in clean
    value = mm("runs", "latest", "--root", str(made.root), "--json").json()
    steps = {step["name"]: step for step in value["steps"]}
    assert steps["shard"]["state"] == "done"
    assert steps["clean"]["counts"]["kept"] == 25
    assert steps["clean"]["reason"]


def test_a_step_in_which_a_run_ended_is_shown_as_stopped(mm: Mm, tmp_path: Path) -> None:
    log = RunLog(str(tmp_path), recipe="x.yaml", name="x", executor="local")
    log.planned([{"name": "clean", "reason": "new"}, {"name": "dedup", "reason": "new"}])
    log.event("step_started", "clean", {"num_resumed": 0, "num_tasks": 4})
    shown = mm("runs", log.run_id, "--root", str(tmp_path), "--json").json()["steps"]
    assert [step["state"] for step in shown] == ["running", "planned"]
    log.finish("cancelled", cancelled_by="anna", why="wrong corpus")
    shown = mm("runs", log.run_id, "--root", str(tmp_path), "--json").json()["steps"]
    assert [step["state"] for step in shown] == ["stopped", "planned"]
    assert (
        "cancelled by: anna\nwhy: wrong corpus"
        in mm("runs", "--root", str(tmp_path), log.run_id).out
    )


def test_a_run_that_is_not_there_exits_with_2(mm: Mm, tmp_path: Path) -> None:
    for command in (["runs", "x"], ["cancel", "x"], ["cancel", "../x"]):
        said = mm(*command, "--root", str(tmp_path))
        assert (said.code, said.out) == (2, "")
        assert "See: mm runs" in said.err


def test_nothing_that_runs_is_nothing_to_cancel(mm: Mm, made: Made) -> None:
    said = mm("cancel", "latest", "--root", str(made.root))
    assert said.code == 1
    assert "is running. See: mm runs" in said.err
