"""Work on this machine: the same results with any number of workers, and nobody left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import tasks

from mmcore.errors import ConfigError, IntegrityError, StepError
from mmcore.executors import make_executor
from mmcore.executors.local import LocalExecutor


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    # a process of its own counts the semaphores of all spawned ones; it stays until we end
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    before = processes.children()
    yield
    processes.wait_until(
        lambda: processes.children() <= before, seconds=5, what="all children are gone"
    )


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_item_gives_its_result_once(num_workers: int) -> None:
    found = list(LocalExecutor(num_workers=num_workers).map(tasks.double, range(20)))
    assert sorted(found) == [(i, 2 * i) for i in range(20)]


def test_one_worker_is_this_process_and_two_are_others() -> None:
    assert {pid for _, pid in LocalExecutor(num_workers=1).map(tasks.process_of, range(3))} == {
        os.getpid()
    }
    pids = {pid for _, pid in LocalExecutor(num_workers=2).map(tasks.process_of, range(8))}
    assert os.getpid() not in pids
    assert len(pids) <= 2


def test_no_items_start_no_process() -> None:
    before = multiprocessing.active_children()
    assert list(LocalExecutor(num_workers=2).map(tasks.die, [])) == []
    assert multiprocessing.active_children() == before


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1000):
            taken.append(i)
            yield i

    results = LocalExecutor(num_workers=2).map(tasks.double, items())
    next(results)
    assert len(taken) <= 8
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_of_a_task_arrives_with_its_message(num_workers: int) -> None:
    with pytest.raises(ValueError, match="three is too much"):
        list(LocalExecutor(num_workers=num_workers).map(tasks.fail_at_three, range(8)))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_our_errors_keep_their_type(num_workers: int) -> None:
    with pytest.raises(IntegrityError, match="part-3 holds other bytes") as caught:
        list(LocalExecutor(num_workers=num_workers).map(tasks.refuse_at_three, range(8)))
    assert type(caught.value) is IntegrityError


def test_a_killed_worker_is_one_clear_error() -> None:
    with pytest.raises(StepError, match=r"a worker process died.*finished tasks are kept"):
        list(LocalExecutor(num_workers=2).map(tasks.die, range(4)))


def test_ranks_reach_each_other_and_the_first_reports(tmp_path: Path) -> None:
    reports: list[Any] = []
    LocalExecutor().gang(
        tasks.sum_ranks, {"directory": str(tmp_path)}, num_ranks=2, on_report=reports.append
    )
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "0-of-2": "3",
        "1-of-2": "3",
    }
    assert reports == [{"step": 1, "sum": 3.0}, {"step": 2, "sum": 3.0}]


def test_a_rank_that_raises_ends_the_gang_with_its_name_and_message() -> None:
    with pytest.raises(StepError, match=r"(?s)rank 1: .*loss is not finite at step 7"):
        LocalExecutor().gang(tasks.fail_on_rank_one, {}, num_ranks=2, on_report=print)


def test_a_rank_that_is_killed_ends_the_gang() -> None:
    with pytest.raises(StepError, match=r"rank-1 died with exit code -9"):
        LocalExecutor().gang(tasks.kill_rank_one, {}, num_ranks=2, on_report=print)


def test_an_executor_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'dask' is not known. Use local or ray"):
        make_executor("dask", num_workers=1)


def test_workers_die_with_a_driver_that_is_killed_while_they_start() -> None:
    program = (
        "import time; from mmcore.executors.local import LocalExecutor\n"
        "if __name__ == '__main__':\n"
        "    print('ready', flush=True)\n"
        "    list(LocalExecutor(num_workers=2).map(time.sleep, [60] * 4))"
    )
    mark = f"MM_TEST_MARK_{os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ | {mark: "1"}
    )
    assert process.stdout is not None
    process.stdout.readline()
    processes.wait_until(
        lambda: len(processes.children(process.pid)) >= 2, seconds=30, what="a worker is starting"
    )
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    try:
        processes.wait_until(
            lambda: not processes.with_text(mark), seconds=10, what="no worker outlives its driver"
        )
    finally:
        processes.kill(processes.with_text(mark))
