import itertools
import threading
import time
from collections.abc import Callable

import pytest

from mmcore.dashboard.refreshed import Refreshed
from mmcore.errors import StepError


@pytest.fixture
def count() -> Callable[[], int]:
    """Return 1, 2, 3 ... of the times that it was read."""
    numbers = itertools.count(1)
    return lambda: next(numbers)


def test_a_fresh_value_is_read_once(count: Callable[[], int]) -> None:
    known = Refreshed(count, max_age_seconds=600)
    assert [known.get(wait_seconds=30).value for _ in range(3)] == [1, 1, 1]


def test_what_nobody_asked_for_in_a_long_time_is_waited_for(count: Callable[[], int]) -> None:
    known = Refreshed(count, max_age_seconds=0.001)
    assert known.get(wait_seconds=30).value == 1
    time.sleep(0.05)  # far more than it may age
    assert known.get(wait_seconds=30).value == 2


def test_who_will_not_wait_gets_what_is_known(count: Callable[[], int]) -> None:
    may_read = threading.Event()
    may_read.set()

    def read() -> int:
        assert may_read.wait(30)
        return count()

    known = Refreshed(read, max_age_seconds=0.001)
    assert known.get(wait_seconds=30).value == 1
    may_read.clear()
    time.sleep(0.05)  # far more than it may age
    assert known.get().value == 1
    assert known.get(wait_seconds=0.1).value == 1
    may_read.set()
    assert known.get(wait_seconds=30).value == 2


def test_a_dropped_value_is_waited_for(count: Callable[[], int]) -> None:
    known = Refreshed(count, max_age_seconds=600)
    known.get(wait_seconds=30)
    known.drop()
    assert known.get(wait_seconds=30).value == 2


def test_a_failed_read_is_said_and_what_was_known_stays() -> None:
    answers = iter([7])

    def read() -> int:
        try:
            return next(answers)
        except StopIteration:
            raise StepError("the server is gone") from None

    known = Refreshed(read, max_age_seconds=600)
    assert known.get(wait_seconds=30).value == 7
    known.drop()
    again = known.get(wait_seconds=30)
    assert (again.value, again.error) == (7, "the server is gone")
