"""Ranks on this machine: who died, who is frozen, and who may still write something down."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import slow_gang
import tasks

from mmcore.core.executor import Executor
from mmcore.errors import RanksLost, RunCancelled, StepError
from mmcore.executors import local_gang
from mmcore.executors.local import LocalExecutor
from mmcore.train.restarts import Restarts


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    before = processes.children()
    yield
    processes.wait_until(
        lambda: processes.children() <= before, seconds=5, what="all children are gone"
    )


def test_a_frozen_rank_is_found_and_nobody_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gang, "_SILENCE_SECONDS", 4.0)
    with pytest.raises(RanksLost, match="rank-1 has been silent for 4 s: it is frozen"):
        LocalExecutor().gang(tasks.freeze_rank_one, {}, num_ranks=2, on_report=print)


def test_who_died_is_named_and_not_who_noticed_it() -> None:
    with pytest.raises(RanksLost, match=r"rank-1 died with exit code -9"):
        LocalExecutor().gang(tasks.wait_for_the_dead, {}, num_ranks=2, on_report=print)


def test_a_rank_that_fails_by_itself_is_not_lost() -> None:
    with pytest.raises(StepError, match=r"(?s)rank 1: .*loss is not finite") as caught:
        LocalExecutor().gang(tasks.fail_on_rank_one, {}, num_ranks=2, on_report=print)
    assert not isinstance(caught.value, RanksLost)


def cancelled(executor: LocalExecutor, function: Any, config: dict[str, Any]) -> list[Any]:
    """Run a gang that is cancelled once it has said something; return what was said."""
    said: list[Any] = []

    def cancel() -> None:
        while not said:
            time.sleep(0.05)
        executor.stop.throw(RunCancelled("somebody"))

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(RunCancelled, match="cancelled by somebody"):
        executor.gang(function, config, num_ranks=2, on_report=said.append)
    thread.join()
    return said


def test_ranks_that_ask_are_given_time_to_end(tmp_path: Path) -> None:
    config = {"directory": str(tmp_path)}
    said = cancelled(LocalExecutor(), tasks.wait_to_be_stopped, config)
    assert {file.name for file in tmp_path.iterdir()} == {"0", "1"}
    assert said[-1] == {"has_ended": True}


def test_ranks_that_never_ask_are_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gang, "_STOP_SECONDS", 3600.0)
    cancelled(LocalExecutor(), slow_gang.sleep_long, {})


class Losing:
    """An executor whose gangs are lost so many times, each after some progress or none."""

    def __init__(self, num_lost: int, room: list[int]) -> None:
        self.num_lost = num_lost
        self.room = room
        self.started: list[int] = []

    def gang(self, *_: Any, num_ranks: int, **__: Any) -> None:
        self.started.append(num_ranks)
        if len(self.started) <= self.num_lost:
            raise RanksLost("rank-0 died")

    def num_ranks_now(self, most: int) -> int:
        return min(most, self.room.pop(0) if self.room else most)

    def memory_bytes(self) -> int:
        return 2**40


def restarted(
    executor: Losing, *, counts: list[int], steps: list[int]
) -> tuple[list[int], list[str]]:
    said: list[str] = []
    as_executor: Executor = executor  # type: ignore[assignment]
    Restarts(counts=counts, say=said.append).run(
        as_executor,
        print,
        {},
        on_report=print,
        step_reached=lambda: steps.pop(0),  # type: ignore[arg-type]
    )
    return executor.started, said


def test_ranks_are_started_again_as_long_as_it_gets_somewhere() -> None:
    started, said = restarted(Losing(6, []), counts=[2], steps=[0, 10, 20, 30, 40, 50])
    assert started == [2] * 7
    assert said[5] == "restart 6 from step 50: rank-0 died"


def test_what_is_lost_again_and_again_is_given_up() -> None:
    with pytest.raises(RanksLost, match=r"started 4 times from step 10 and lost each time"):
        restarted(Losing(9, []), counts=[2], steps=[10] * 9)


def test_fewer_ranks_take_over_when_there_is_no_room_or_they_are_lost_again_and_again() -> None:
    started, _ = restarted(Losing(2, [4, 2, 4]), counts=[4, 2, 1], steps=[5, 10])
    assert started == [4, 2, 4]
    started, _ = restarted(Losing(3, []), counts=[4, 2], steps=[5, 5, 5])
    assert started == [4, 4, 2, 2]


def test_no_room_at_all_is_said() -> None:
    with pytest.raises(StepError, match="room for 1 ranks now and training needs 2"):
        restarted(Losing(0, [1]), counts=[4, 2], steps=[])
