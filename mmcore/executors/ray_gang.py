"""A gang of ranks that train together, placed and started again by Ray Train.

The driver hears of them through a queue of reports, and tells them to stop through one of orders.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mmcore.core.cancel import StopSwitch
from mmcore.errors import RanksLost, RunCancelled, StepError
from mmcore.executors.peers import is_of_a_lost_peer
from mmcore.sample import Json

_MAX_FAILURES = 3  # of a gang: as often Ray Train starts it again by itself
_SILENCE_SECONDS = 15.0  # after which a rank is taken for frozen
_STOP_SECONDS = 8.0  # for ranks that were told to stop to write a checkpoint
_LOOK_SECONDS = 0.25  # between two looks whether the run is to stop
_CANCEL_SECONDS = 5.0
_LISTENS = "listens"

OnReport = Callable[[Mapping[str, Json]], None]


def run_gang(
    function: Callable[[Mapping[str, Any]], Json],
    config: Mapping[str, Any],
    *,
    num_ranks: int,
    on_report: OnReport,
    stop: StopSwitch,
    leave: Callable[[], None],
) -> None:
    """Run a function on every rank of a gang, on the cluster that this process is connected to.

    `leave` ends the connection: what is left of a gang that is to stop ends with it.
    """
    # on this host: one that vanishes takes no report with it
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor_options = {"num_cpus": 0, "scheduling_strategy": here}
    reports, orders = (Queue(actor_options=actor_options) for _ in range(2))
    scratch = tempfile.mkdtemp(prefix="mm-ray-train-")
    loop_config = {"function": function, "config": dict(config), "reports": reports,
                   "orders": orders}  # fmt: skip
    gang = _Gang()
    trainer = _make_trainer(
        loop_config, num_ranks=num_ranks, scratch=scratch, controllers=gang.controllers
    )
    failures: list[BaseException] = []
    thread = threading.Thread(target=_fit, args=(trainer, failures), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            stop.check()
            _pass_on(reports, gang, on_report, timeout_seconds=_LOOK_SECONDS)
        _pass_on(reports, gang, on_report, timeout_seconds=0.0)
    except BaseException:
        if isinstance(stop.error, RunCancelled) and gang.listens:
            _let_end(orders, reports, gang, thread, on_report)
        # what is left of the gang ends with the connection; but Ray ends the whole process, in
        # the middle of cleaning up, when a thread still waits for a cluster that it has left
        try:
            gang.kill()
            thread.join(_CANCEL_SECONDS if gang.ranks else 0.0)
        finally:  # also where the cluster is gone
            leave()
        raise
    finally:
        if ray.is_initialized():
            gang.kill()
            reports.shutdown(force=True)
            orders.shutdown(force=True)
        shutil.rmtree(scratch, ignore_errors=True)
    if failures:
        raise RanksLost(
            f"Ray Train has started the ranks {_MAX_FAILURES + 1} times: {_innermost(failures[0])}"
        ) from failures[0]


def _make_trainer(
    loop_config: dict[str, Any], *, num_ranks: int, scratch: str, controllers: list[ActorHandle]
) -> Any:
    # Ray Train takes seconds to load, and data work does without
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    from mmcore.executors.ray_meeting import MeetingConfig, run_controller

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

        def _initialize_and_run_controller(self, **options: Any) -> Any:
            return run_controller(controllers, **options)

    use_gpu = ray.cluster_resources().get("GPU", 0) >= num_ranks
    return Trainer(
        _run_rank,
        train_loop_config=loop_config,
        torch_config=MeetingConfig(),
        scaling_config=ScalingConfig(num_workers=num_ranks, use_gpu=use_gpu),
        run_config=RunConfig(
            name="gang",
            storage_path=scratch,
            # without room, after a minute: else it would wait for a host that is gone for ever
            failure_config=FailureConfig(max_failures=_MAX_FAILURES, controller_failure_limit=0),
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
    controllers: list[ActorHandle] = field(default_factory=list)
    """Who starts them again."""
    listens: bool = False
    """Whether it ends by itself when it is told to."""

    def kill(self) -> None:
        """Leave none of them behind; those that have ended stay so."""
        for actor in (*self.controllers, *self.ranks):
            ray.kill(actor)


@dataclass(frozen=True)
class _Failure:
    """What ends the gang: a rank has gone wrong by itself, and would again."""

    said: str


def _let_end(
    orders: Queue,
    reports: Queue,
    gang: _Gang,
    thread: threading.Thread,
    on_report: OnReport,
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
    on_report: OnReport,
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
