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
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from typing import Any

from mmcore.core.executor import ItemT, ResultT
from mmcore.errors import StepError
from mmcore.sample import Json

# spawned, never forked: a fork copies the locks of whatever threads the driver has
_SPAWN = multiprocessing.get_context("spawn")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class LocalExecutor:
    """Runs tasks in this process (one worker) or in child processes (several)."""

    num_workers: int = 1
    name: str = "local"

    def map(
        self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
    ) -> Iterator[tuple[int, ResultT]]:
        if self.num_workers <= 1:
            for index, item in enumerate(items):
                yield index, function(item)
            return
        with ProcessPoolExecutor(self.num_workers, _SPAWN, initializer=die_with_parent) as pool:
            yield from _map_windowed(pool, function, enumerate(items), 2 * self.num_workers)

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
            _watch(ranks, reports, on_report)
        finally:
            for process in ranks:
                if process.is_alive():
                    process.kill()
                process.join()

    def close(self) -> None:
        """Nothing is held between two calls."""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no orphan works on."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)  # it died before the kernel was asked


def _map_windowed(
    pool: ProcessPoolExecutor,
    function: Callable[[ItemT], ResultT],
    items: Iterator[tuple[int, ItemT]],
    window: int,
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
            for future in wait(running, return_when=FIRST_COMPLETED).done:
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
    ranks: list[SpawnProcess], reports: Any, on_report: Callable[[Mapping[str, Json]], None]
) -> None:
    """Pass reports on until every rank is done; raise when one of them is not going to be."""
    num_done = 0
    while num_done < len(ranks):
        try:
            kind, value = reports.get(timeout=1.0)
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
