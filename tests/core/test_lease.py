"""One holder at a time: it lets go, dies or falls silent, and the next one takes over."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import processes
import pytest

from mmcore import storage
from mmcore.core.lease import (
    EXPIRY_SECONDS,
    PATIENCE_SECONDS,
    Contender,
    Holder,
    Lease,
    acquire,
    current_holder,
    lease_url,
)
from mmcore.core.process import Process, status_of
from mmcore.errors import LeaseLost

# a process of another machine: nothing is known of it but its beats
ELSEWHERE = Process(host="another", machine="another boot", pid=1, started=1)
TRIALS = int(os.environ.get("MM_FAULT_TRIALS", "40"))


@dataclass
class Clock:
    """Time as a test wants it."""

    now: float = 1000.0
    naps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def holder(run_id: str, process: Process = ELSEWHERE) -> Holder:
    return Holder(run_id=run_id, process=process, since="2026-01-01T00:00:00+00:00")


@pytest.fixture(params=["disk", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = str(tmp_path) if request.param == "disk" else request.getfixturevalue("bucket")
    return lease_url(root, "toy")


def take(url: str, who: Holder, clock: Callable[[], float] | None = None) -> Lease | Holder:
    return Contender(url, who, clock=clock or Clock()).attempt()


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_a_lease_that_is_released_passes_on_at_once(url: str) -> None:
    first = take(url, holder("a"))
    assert isinstance(first, Lease)
    assert take(url, holder("b")) == holder("a")
    first.release()
    second = take(url, holder("b"))
    assert isinstance(second, Lease)
    assert second.fence.epoch == first.fence.epoch + 1
    second.fence.check()
    with pytest.raises(LeaseLost, match=r"another one took over \(epoch 1, now 2\)"):
        first.fence.check()


def test_who_holds_a_lease_can_be_asked(url: str) -> None:
    assert current_holder(url) is None
    lease = take(url, holder("a"))
    assert isinstance(lease, Lease)
    found = current_holder(url)
    assert found is not None
    assert found["holder"]["run_id"] == "a"
    lease.release()
    assert current_holder(url) is None


def test_a_holder_elsewhere_is_waited_for_while_it_beats_and_no_longer(url: str) -> None:
    first = take(url, holder("a"))
    assert isinstance(first, Lease)
    clock = Clock()
    contender = Contender(url, holder("b"), clock=clock)
    for _ in range(6):
        assert contender.attempt() == holder("a")
        clock.now += EXPIRY_SECONDS - 1
        first.beat()
    assert contender.attempt() == holder("a")
    clock.now += EXPIRY_SECONDS + 1
    second = contender.attempt()
    assert isinstance(second, Lease)
    with pytest.raises(LeaseLost):
        first.beat()


def test_a_contender_that_was_frozen_itself_does_not_take_its_sleep_for_silence(url: str) -> None:
    first = take(url, holder("a"))
    assert isinstance(first, Lease)
    clock = Clock()
    contender = Contender(url, holder("b"), clock=clock)
    assert contender.attempt() == holder("a")
    clock.now += 3600  # frozen; the holder went on
    first.beat()
    assert contender.attempt() == holder("a")


def test_the_lease_of_a_dead_process_of_this_machine_passes_on_at_once(url: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    status = status_of(child.pid)
    assert status is not None
    its = replace(Process.current(), pid=child.pid, started=status.started)
    assert isinstance(take(url, holder("a", its)), Lease)
    assert take(url, holder("b")) == holder("a", its)
    child.kill()
    # dead, but nobody has asked how it ended: a zombie has its number still
    processes.wait_until(lambda: not its.is_alive, seconds=10, what="it is dead")
    assert os.path.exists(f"/proc/{child.pid}")
    assert isinstance(take(url, holder("b")), Lease)
    child.communicate()


def test_another_process_with_the_number_of_a_dead_one_is_not_taken_for_it(url: str) -> None:
    dead = replace(Process.current(), started=Process.current().started - 1)
    assert isinstance(take(url, holder("a", dead)), Lease)
    assert isinstance(take(url, holder("b")), Lease)


def test_a_busy_process_of_this_machine_is_waited_for_longer_and_a_frozen_one_is_not(
    url: str,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1
    ) as child:
        status = status_of(child.pid)
        assert status is not None
        its = replace(Process.current(), pid=child.pid, started=status.started)
        assert isinstance(take(url, holder("a", its)), Lease)
        clock = Clock()
        contender = Contender(url, holder("b"), clock=clock)
        assert contender.attempt() == holder("a", its)
        clock.now += EXPIRY_SECONDS + 1
        assert contender.attempt() == holder("a", its)
        child.send_signal(signal.SIGSTOP)
        processes.wait_until(lambda: its.is_stopped, seconds=10, what="it is frozen")
        assert isinstance(contender.attempt(), Lease)
        child.send_signal(signal.SIGCONT)
        clock.now += PATIENCE_SECONDS
        child.kill()


def test_whoever_waits_hears_for_whom_and_may_give_up(url: str) -> None:
    assert isinstance(take(url, holder("a")), Lease)
    heard: list[Holder] = []

    class TooLong(Exception):
        pass

    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.naps) == 5:
            raise TooLong

    with pytest.raises(TooLong):
        acquire(url, holder("b"), on_wait=heard.append, sleep=sleep, clock=clock)
    assert heard == [holder("a")]
    assert heard[0].description == (
        "run a (host another, process 1, since 2026-01-01T00:00:00+00:00)"
    )


def test_waiting_ends_with_the_silence_of_the_holder(url: str) -> None:
    assert isinstance(take(url, holder("a")), Lease)
    clock = Clock()
    lease = acquire(url, holder("b"), on_wait=lambda _: None, sleep=clock.sleep, clock=clock)
    assert EXPIRY_SECONDS < sum(clock.naps) <= EXPIRY_SECONDS + 3
    lease.fence.check()


def test_of_many_who_want_a_free_lease_one_gets_it(url: str) -> None:
    found: list[Lease | Holder] = []
    start = threading.Barrier(8)

    def contend(name: str) -> None:
        start.wait()
        found.append(take(url, holder(name)))

    threads = [threading.Thread(target=contend, args=(f"r{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [one for one in found if isinstance(one, Lease)]
    assert len(winners) == 1
    losers = {one.run_id for one in found if isinstance(one, Holder)}
    assert len(losers) == 1


def test_old_epochs_are_pruned_and_a_holder_of_one_still_knows_that_it_is_late(url: str) -> None:
    first = take(url, holder("first"))
    assert isinstance(first, Lease)
    for i in range(20):
        last = take(url, holder(f"r{i}"))
        if isinstance(last, Holder):
            Lease(url, i + 1).release()
            last = take(url, holder(f"r{i}"))
        assert isinstance(last, Lease)
    names = {file.path for file in storage.list_files(url)}
    assert len([name for name in names if name.endswith(".json")]) < 12
    with pytest.raises(LeaseLost):
        first.fence.check()


def test_in_any_order_of_events_nobody_commits_beside_the_holder_of_the_newest_epoch(
    tmp_path: Path,
) -> None:
    """Three runs that beat, freeze, die, let go and commit as chance has it, in seeded trials."""
    for seed in range(TRIALS):
        dice = random.Random(seed)
        url = lease_url(str(tmp_path), f"toy-{seed}")
        clock = Clock()
        contenders: dict[str, Contender] = {}
        held: dict[str, Lease] = {}
        committed: list[tuple[str, int]] = []
        for _ in range(60):
            name = f"r{dice.randrange(3)}"
            clock.now += dice.choice([0.5, 1.0, 5.0, EXPIRY_SECONDS + 1])
            if name not in held:
                contender = contenders.setdefault(name, Contender(url, holder(name), clock=clock))
                found = contender.attempt()
                if isinstance(found, Lease):
                    held[name] = found
                continue
            lease = held[name]
            action = dice.choice(["beat", "beat", "commit", "release", "die"])
            try:
                if action == "beat":
                    lease.beat()
                elif action == "commit":
                    lease.fence.check()
                    committed.append((name, lease.fence.epoch))
                elif action == "release":
                    lease.release()
            except LeaseLost:
                action = "die"
            if action in ("release", "die"):
                del held[name], contenders[name]
        epochs = [epoch for _, epoch in committed]
        assert epochs == sorted(epochs), f"seed {seed}: a stale holder committed"
        owners: dict[int, set[str]] = {}
        for name, epoch in committed:
            owners.setdefault(epoch, set()).add(name)
        assert all(len(names) == 1 for names in owners.values()), f"seed {seed}"


def test_a_lease_file_says_who_and_where(tmp_path: Path) -> None:
    url = lease_url(str(tmp_path), "toy")
    assert isinstance(take(url, holder("a", Process.current())), Lease)
    value = json.loads((tmp_path / "leases" / "toy" / "00000001.json").read_text())
    assert (value["format"], value["epoch"], value["holder"]["run_id"]) == ("mm.lease", 1, "a")
    assert value["holder"]["process"]["pid"] == os.getpid()
