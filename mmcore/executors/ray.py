"""Work on a Ray cluster: the one that RAY_ADDRESS names, or one on this machine for this run.

One task per shard; workers write the shard, at most a few KB come back, so that no bytes cross the
object store and nothing spills. Gangs of ranks are placed by Ray Train (`ray_gang.py`).
"""

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# before the import: Ray reads them when it is loaded
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if not os.environ.get("RAY_ADDRESS"):
    # else Ray takes loopback for a mistake, and every port of it listens on all interfaces
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from mmcore.core import heap
from mmcore.core.cancel import StopSwitch
from mmcore.core.executor import ONE_CPU, ItemT, Resources, ResultT
from mmcore.core.host_memory import available_host_bytes
from mmcore.errors import ConfigError, MmError, StepError
from mmcore.executors.ray_gang import run_gang
from mmcore.executors.reaper import Reaper
from mmcore.sample import Json

_OBJECT_STORE_BYTES = 100 * 2**20  # metadata alone goes through it
_LOOPBACK = "127.0.0.1"
_MAX_RETRIES = 3  # of a task whose worker died; tasks are idempotent
_LOOK_SECONDS = 0.25  # between two looks whether the run is to stop
_CANCEL_SECONDS = 5.0
_SIGACTION_BYTES = 256  # more than struct sigaction has anywhere
_WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "TOKENIZERS_PARALLELISM": "false",
}


class RayExecutor:
    """Runs tasks and gangs of ranks on a Ray cluster."""

    name = "ray"

    def __init__(self, *, num_workers: int) -> None:
        self.num_workers = num_workers
        self.stop = StopSwitch()
        self._is_connected = False
        self._reaper: Reaper | None = None  # while a cluster of our own is up

    def map(
        self,
        function: Callable[[ItemT], ResultT],
        items: Iterable[ItemT],
        *,
        resources: Resources = ONE_CPU,
    ) -> Iterator[tuple[int, ResultT]]:
        pending = enumerate(items)
        first = next(pending, None)
        if first is None:
            return  # nothing to do is no reason to start a cluster
        self._start()
        heap.give_back_at_once()
        shared = ray.put(function)
        apply = _apply.options(**self._possible(resources))
        running: dict[Any, int] = {}
        upcoming: tuple[int, ItemT] | None = first
        try:
            while running or upcoming is not None:
                self.stop.check()
                while upcoming is not None and len(running) < 2 * self.num_workers:
                    index, item = upcoming
                    running[apply.remote(shared, item)] = index
                    upcoming = next(pending, None)
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_SECONDS)
                for done in ready:
                    yield running.pop(done), _result(done)
        finally:
            _cancel(list(running))

    def _possible(self, resources: Resources) -> dict[str, float]:
        """Return what Ray is asked for; what the cluster lacks would be waited for without end."""
        has = ray.cluster_resources()
        if resources.num_gpus > has.get("GPU", 0):
            raise ConfigError(
                f"a stage asks for {resources.num_gpus:g} GPU and the cluster has "
                f"{has.get('GPU', 0):g}. Set its device to cpu, or run on a cluster with GPUs."
            )
        return {
            "num_cpus": min(resources.num_cpus, has.get("CPU", 1.0)),
            "num_gpus": resources.num_gpus,
        }

    def gang(
        self,
        function: Callable[[Mapping[str, Any]], Json],
        config: Mapping[str, Any],
        *,
        num_ranks: int,
        on_report: Callable[[Mapping[str, Json]], None],
    ) -> None:
        self._start()
        run_gang(
            function,
            config,
            num_ranks=num_ranks,
            on_report=on_report,
            stop=self.stop,
            leave=self.close,
        )

    def num_ranks_now(self, most: int) -> int:
        self._start()
        has = ray.cluster_resources()
        # of GPUs as many as are wanted, or the ranks run on processors
        num_gpus = int(has.get("GPU", 0))
        return min(most, num_gpus or max(int(has.get("CPU", 1)), 1))

    def memory_bytes(self) -> int:
        self._start()
        if self._reaper is not None:  # a cluster of our own is this machine
            return available_host_bytes()
        has = ray.cluster_resources()
        return int(has.get("memory", 0) + has.get("object_store_memory", 0))

    def close(self) -> None:
        """Leave the cluster, and stop it if this run started it.

        A cluster kills the tasks, actors and placement groups of a driver that has left.
        """
        if self._is_connected:
            self._is_connected = False
            ray.shutdown()
        if self._reaper is not None:
            if self.stop.is_thrown:
                self._reaper.clear()  # a start that was interrupted is unknown to Ray
            self._reaper.close()
            self._reaper = None

    def start(self) -> None:
        """Connect, for whoever speaks to the cluster in another way than `map` and `gang`."""
        self._start()

    def _start(self) -> None:
        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        self._is_connected = True
        if os.environ.get("RAY_ADDRESS"):
            # its workers have the environment of the cluster; secrets are never passed on
            names = (*_WORKER_ENV, "PYTHONPATH", "HF_HUB_OFFLINE")
            variables = _WORKER_ENV | {k: os.environ[k] for k in names if k in os.environ}
            with _sigterm_stays_ours():
                ray.init(runtime_env={"env_vars": variables}, **quiet)
            return
        os.environ.update(
            {name: os.environ.get(name, value) for name, value in _WORKER_ENV.items()}
        )
        self._reaper = Reaper()
        with _sigterm_stays_ours():
            ray.init(
                num_cpus=self.num_workers,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                _node_ip_address=_LOOPBACK,
                **quiet,
            )


@contextmanager
def _sigterm_stays_ours() -> Iterator[None]:
    """Undo what Ray does about SIGTERM when it starts.

    Its Python half replaces the handler; its C++ half takes the signal for a crash, prints a stack
    and aborts the process three seconds later, in the middle of cleaning up.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handler = signal.getsignal(signal.SIGTERM)
    action = ctypes.create_string_buffer(_SIGACTION_BYTES)
    libc.sigaction(int(signal.SIGTERM), None, action)
    try:
        yield
    finally:
        # steps of a flow run in a thread, where Python may set no handler
        libc.sigaction(int(signal.SIGTERM), action, None)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


# max_calls: else Ray ends a worker with a GPU after each task, and the model is loaded each time
@ray.remote(num_cpus=1, max_retries=_MAX_RETRIES, max_calls=0)  # type: ignore[untyped-decorator]
def _apply(function: Callable[[ItemT], ResultT], item: ItemT) -> ResultT:
    return function(item)


def _cancel(references: list[Any]) -> None:
    """Kill tasks that nobody waits for any more, and see them end."""
    if not references or not ray.is_initialized():
        return
    for reference in references:
        ray.cancel(reference, force=True)
    ray.wait(references, num_returns=len(references), timeout=_CANCEL_SECONDS)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, MmError):
            raise cause from error
        raise StepError(f"a task failed in a worker:\n{error}") from error
    except WorkerCrashedError as error:
        raise StepError(
            f"a worker died {_MAX_RETRIES + 1} times over the same task: it is killed, or the "
            "machine runs out of memory. Run again with fewer --workers; finished tasks are kept."
        ) from error
