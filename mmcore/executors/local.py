"""Work on this machine, without any service: in this process, or in a few of its children."""

import ctypes
import multiprocessing
import os
import queue
import signal
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

from mmcore.core.cancel import StopSwitch
from mmcore.core.decoder import close_idle
from mmcore.core.executor import ONE_CPU, ItemT, Resources, ResultT
from mmcore.errors import StepError
from mmcore.executors.reaper import descendants, kill_all
from mmcore.sample import Json

# spawned, never forked: a fork copies the locks of whatever threads the driver has
_SPAWN = multiprocessing.get_context("spawn")
_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.25  # between two looks whether the run is to stop


@dataclass(eq=False)
class LocalExecutor:
    """Runs tasks in this process (one worker) or in child processes (several)."""

    num_workers: int = 1
    name: str = "local"
    stop: StopSwitch = field(default_factory=StopSwitch)
    _strangers: set[BaseProcess] | None = None
    """While workers are up: children of this process that are not ours."""

    def map(
        self,
        function: Callable[[ItemT], ResultT],
        items: Iterable[ItemT],
        *,
        resources: Resources = ONE_CPU,
    ) -> Iterator[tuple[int, ResultT]]:
        if self.num_workers <= 1:
            for index, item in enumerate(items):
                self.stop.check()
                yield index, function(item)
            return
        self._strangers = set(multiprocessing.active_children())
        with ProcessPoolExecutor(self.num_workers, _SPAWN, initializer=die_with_parent) as pool:
            try:
                yield from _map_windowed(
                    pool, function, enumerate(items), 2 * self.num_workers, self.stop
                )
            except Exception as error:
                if error is self.stop.error:
                    self.close()
                raise  # of a task that failed: those under way may end, and are recorded
            except BaseException:  # Ctrl-C, or nobody wants the rest
                self.close()
                raise
        self._strangers = None

    def gang(
        self,
        function: Callable[[Mapping[str, Any]], Json],
        config: Mapping[str, Any],
        *,
        num_ranks: int,
        on_report: Callable[[Mapping[str, Json]], None],
    ) -> None:
        reports: Any = _SPAWN.Queue()
        port = free_port()
        ranks = [
            _SPAWN.Process(
                target=_run_rank,
                args=(function, dict(config), rank, num_ranks, port, reports),
                name=f"rank-{rank}",
            )
            for rank in range(num_ranks)
        ]
        for process in ranks:
            process.start()
        try:
            _watch(ranks, reports, on_report, self.stop)
        finally:
            for process in ranks:
                _kill(process)

    def close(self) -> None:
        """Kill the workers of a map that was left before its end, and this process's decoders."""
        close_idle()
        strangers, self._strangers = self._strangers, None
        if strangers is not None:
            for process in set(multiprocessing.active_children()) - strangers:
                _kill(process)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no orphan works on."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)  # it died before the kernel was asked


def _kill(process: BaseProcess) -> None:
    """End a child with all that it has started."""
    if process.is_alive() and process.pid is not None:
        below = descendants(process.pid)
        process.kill()
        kill_all(below)
    process.join()


def _map_windowed(
    pool: ProcessPoolExecutor,
    function: Callable[[ItemT], ResultT],
    items: Iterator[tuple[int, ItemT]],
    window: int,
    stop: StopSwitch,
) -> Iterator[tuple[int, ResultT]]:
    """Keep a bounded number under way: queueing all at once fills the driver's memory."""
    running: dict[Future[ResultT], int] = {}
    exhausted = False
    try:
        while True:
            while not exhausted and len(running) < window:
                try:
                    index, item = next(items)
                except StopIteration:
                    exhausted = True
                else:
                    running[pool.submit(function, item)] = index
            if not running:
                return
            stop.check()
            for future in wait(running, _LOOK_SECONDS, FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise StepError(
            "a worker process died: it was killed, or the machine ran out of memory. Run the same "
            "command again: finished tasks are kept. With less memory, use fewer --workers."
        ) from error


def _run_rank(
    function: Callable[[Mapping[str, Any]], Json],
    config: dict[str, Any],
    rank: int,
    num_ranks: int,
    port: int,
    reports: Any,
) -> None:
    die_with_parent()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    config["report"] = (lambda report: reports.put(("report", report))) if rank == 0 else _ignore
    try:
        function(config)
    except BaseException:
        reports.put(("error", f"rank {rank}: {traceback.format_exc()}"))
        raise
    reports.put(("done", rank))


def _watch(
    ranks: list[SpawnProcess],
    reports: Any,
    on_report: Callable[[Mapping[str, Json]], None],
    stop: StopSwitch,
) -> None:
    """Pass reports on until every rank is done; raise when one of them is not going to be."""
    num_done = 0
    while num_done < len(ranks):
        stop.check()
        try:
            kind, value = reports.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            dead = [process for process in ranks if process.exitcode not in (None, 0)]
            if dead:
                raise StepError(
                    f"{dead[0].name} died with exit code {dead[0].exitcode}: it was killed, or the "
                    "machine ran out of memory. Run the same command again."
                ) from None
            continue
        if kind == "report":
            on_report(value)
        elif kind == "error":
            raise StepError(f"training failed on {value}")
        else:
            num_done += 1


def _ignore(_: Mapping[str, Json]) -> None:
    """Rank 0 alone reports."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
