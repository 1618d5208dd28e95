"""Work on this machine, without any service: in this process, or in a few of its children."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

from mmcore.core import heap
from mmcore.core.cancel import StopSwitch
from mmcore.core.decoder import close_idle
from mmcore.core.executor import ONE_CPU, ItemT, Resources, ResultT
from mmcore.core.host_memory import available_host_bytes
from mmcore.errors import StepError
from mmcore.executors.children import die_with_parent, kill_with_all_below
from mmcore.executors.local_gang import run_gang
from mmcore.sample import Json

# spawned, never forked: a fork copies the locks of whatever threads the driver has
_SPAWN = multiprocessing.get_context("spawn")
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
        heap.give_back_at_once()
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
        run_gang(function, config, num_ranks=num_ranks, on_report=on_report, stop=self.stop)

    def num_ranks_now(self, most: int) -> int:
        return most

    def memory_bytes(self) -> int:
        return available_host_bytes()

    def close(self) -> None:
        """Kill the workers of a map that was left before its end, and this process's decoders."""
        close_idle()
        strangers, self._strangers = self._strangers, None
        if strangers is not None:
            for process in set(multiprocessing.active_children()) - strangers:
                kill_with_all_below(process)


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
