"""Work on a Ray cluster: the one that RAY_ADDRESS names, or one on this machine for this run.

One task per shard; workers write the shard, at most a few KB come back, so that no bytes cross the
object store and nothing spills. Gangs of ranks are placed by Ray Train.
"""

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# before the import: Ray reads them when it is loaded
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# a host that vanishes without a word is given up after ten seconds; else it takes seven minutes
os.environ.setdefault("RAY_grpc_client_keepalive_time_ms", "5000")
os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", "5000")
if not os.environ.get("RAY_ADDRESS"):
    # else Ray takes loopback for a mistake, and every port of it listens on all interfaces
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError, WorkerCrashedError
from ray.util.queue import Empty, Queue

from mmcore.core.cancel import StopSwitch
from mmcore.core.executor import ONE_CPU, ItemT, Resources, ResultT
from mmcore.core.host_memory import available_host_bytes
from mmcore.errors import ConfigError, MmError, RanksLost, RunCancelled, StepError
from mmcore.executors.peers import is_of_a_lost_peer
from mmcore.executors.reaper import Reaper
from mmcore.sample import Json

_OBJECT_STORE_BYTES = 100 * 2**20  # metadata alone goes through it
_LOOPBACK = "127.0.0.1"
_MAX_RETRIES = 3  # of a task whose worker died; tasks are idempotent
_MAX_FAILURES = 3  # of a gang: as often Ray Train starts it again by itself
_SILENCE_SECONDS = 15.0  # after which a rank is taken for frozen
_COLLECTIVE_SECONDS = 60  # after which a rank takes the others for lost
_STOP_SECONDS = 8.0  # for ranks that were told to stop to write a checkpoint
_LOOK_SECONDS = 0.25  # between two looks whether the run is to stop
_CANCEL_SECONDS = 5.0
_LISTENS = "listens"
_SIGACTION_BYTES = 256  # more than struct sigaction has anywhere
_WORKER_ENV = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "TOKENIZERS_PARALLELISM": "false"}


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
        reports, orders = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        scratch = tempfile.mkdtemp(prefix="mm-ray-train-")
        loop_config = {"function": function, "config": dict(config), "reports": reports,
                       "orders": orders}  # fmt: skip
        trainer = _make_trainer(loop_config, num_ranks=num_ranks, scratch=scratch)
        gang = _Gang()
        failures: list[BaseException] = []
        thread = threading.Thread(target=_fit, args=(trainer, failures), daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                self.stop.check()
                _pass_on(reports, gang, on_report, timeout_seconds=_LOOK_SECONDS)
            _pass_on(reports, gang, on_report, timeout_seconds=0.0)
        except BaseException:
            if isinstance(self.stop.error, RunCancelled) and gang.listens:
                _let_end(orders, reports, gang, thread, on_report)
            # what is left of the gang ends with the connection; but Ray ends the whole process, in
            # the middle of cleaning up, when a thread still waits for a cluster that it has left
            try:
                for rank in gang.ranks:
                    ray.kill(rank)
                thread.join(_CANCEL_SECONDS if gang.ranks else 0.0)
            finally:  # also where the cluster is gone
                self.close()
            raise
        finally:
            if self._is_connected:
                reports.shutdown(force=True)
                orders.shutdown(force=True)
            shutil.rmtree(scratch, ignore_errors=True)
        if failures:
            raise RanksLost(
                f"Ray Train has started the ranks {_MAX_FAILURES + 1} times: "
                f"{_innermost(failures[0])}"
            ) from failures[0]

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


def _make_trainer(loop_config: dict[str, Any], *, num_ranks: int, scratch: str) -> Any:
    # Ray Train takes seconds to load, and data work does without
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    # a process of seconds to start as well; a run that is preempted goes on from its commits
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # a rank that is frozen; Ray's own value is ten minutes
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(_SILENCE_SECONDS))

    class Trainer(TorchTrainer):  # type: ignore[misc]
        """Without two actors, each of which takes seconds to start.

        One serves datasets of Ray Data, and ours are shards. The other removes the placement group
        of a controller that was killed, as Ray itself does; it outlives its driver, and ends only
        where a dashboard runs.
        """

        def _create_default_callbacks(self) -> list[Any]:
            return [
                callback
                for callback in super()._create_default_callbacks()
                if not isinstance(callback, DatasetsCallback | PlacementGroupCleanerCallback)
            ]

    use_gpu = ray.cluster_resources().get("GPU", 0) >= num_ranks
    return Trainer(
        _run_rank,
        train_loop_config=loop_config,
        torch_config=TorchConfig(
            backend="nccl" if use_gpu else "gloo", timeout_s=_COLLECTIVE_SECONDS
        ),
        scaling_config=ScalingConfig(num_workers=num_ranks, use_gpu=use_gpu),
        run_config=RunConfig(
            name="gang",
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
        ),
    )


def _run_rank(loop_config: dict[str, Any]) -> None:
    """What Ray Train runs on each rank; RANK, WORLD_SIZE and the rest are set by it.

    Of what goes wrong Ray Train learns only when a rank has lost another, which helps to start
    again; all else is said to the driver, which ends the gang.
    """
    config = loop_config["config"]
    rank = os.environ["RANK"]
    reports = loop_config["reports"]
    reports.put(ray.get_runtime_context().current_actor)
    config["report"] = reports.put if rank == "0" else lambda report: None
    config["should_stop"] = _StopAsked(loop_config) if rank == "0" else lambda: False
    try:
        loop_config["function"](config)
    except Exception as error:
        if is_of_a_lost_peer(error):
            raise
        reports.put(_Failure(f"rank {rank}: {type(error).__name__}: {error}"))
        raise


class _StopAsked:
    """Tells the first rank whether the run has been told to stop; asking costs a step nothing."""

    def __init__(self, loop_config: Mapping[str, Any]) -> None:
        self._loop_config = loop_config
        self._was_told = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self) -> bool:
        if self._thread is None:
            self._loop_config["reports"].put(_LISTENS)
            self._thread = threading.Thread(target=self._listen, daemon=True, name="orders")
            self._thread.start()
        return self._was_told.is_set()

    def _listen(self) -> None:
        with contextlib.suppress(RayError):  # the driver has ended
            self._loop_config["orders"].get()
            self._was_told.set()


@dataclass
class _Gang:
    """What the driver knows of its ranks."""

    ranks: list[ActorHandle] = field(default_factory=list)
    listens: bool = False
    """Whether it ends by itself when it is told to."""


@dataclass(frozen=True)
class _Failure:
    """What ends the gang: a rank has gone wrong by itself, and would again."""

    said: str


def _let_end(
    orders: Queue,
    reports: Queue,
    gang: _Gang,
    thread: threading.Thread,
    on_report: Callable[[Mapping[str, Json]], None],
) -> None:
    """Tell the ranks to stop, and give them the time to say where they were."""
    deadline = time.monotonic() + _STOP_SECONDS
    with contextlib.suppress(RayError, StepError):
        orders.put("stop")
        while thread.is_alive() and time.monotonic() < deadline:
            _pass_on(reports, gang, on_report, timeout_seconds=_LOOK_SECONDS)


def _fit(trainer: Any, failures: list[BaseException]) -> None:
    try:
        trainer.fit()
    except (Exception, SystemExit) as error:  # raised again by the thread that waits
        # Ray ends a thread in which it waits for a cluster that is gone
        failures.append(error)


def _pass_on(
    reports: Queue,
    gang: _Gang,
    on_report: Callable[[Mapping[str, Json]], None],
    *,
    timeout_seconds: float,
) -> None:
    """Pass on what the first rank says; each rank first says which actor it is."""
    try:
        while True:
            said = reports.get(block=timeout_seconds > 0, timeout=timeout_seconds or None)
            if isinstance(said, ActorHandle):
                gang.ranks.append(said)
            elif said == _LISTENS:
                gang.listens = True
            elif isinstance(said, _Failure):
                raise StepError(f"training failed: {said.said}")
            else:
                on_report(said)
    except Empty:
        return


def _innermost(error: BaseException) -> str:
    """Return what a rank said, out of Ray Train's wrapping."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for rank, failure in sorted(failures.items()):
        cause = getattr(failure, "cause", None) or failure
        return f"rank {rank}: {type(cause).__name__}: {cause}"
    return f"{type(error).__name__}: {error}"
