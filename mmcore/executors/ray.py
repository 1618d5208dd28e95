"""Work on a Ray cluster: the one that RAY_ADDRESS names, or one on this machine for this run.

One task per shard; workers write the shard, at most a few KB come back, so that no bytes cross the
object store and nothing spills. Gangs of ranks are placed by Ray Train.
"""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

# before the import: Ray reads them when it is loaded
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError
from ray.util.queue import Empty, Queue

from mmcore.core.executor import ItemT, ResultT
from mmcore.errors import MmError, StepError
from mmcore.executors.reaper import Reaper
from mmcore.sample import Json

_OBJECT_STORE_BYTES = 100 * 2**20  # metadata alone goes through it
_MAX_RETRIES = 3  # of a task whose worker died; tasks are idempotent
_WORKER_ENV = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "TOKENIZERS_PARALLELISM": "false"}


class RayExecutor:
    """Runs tasks and gangs of ranks on a Ray cluster."""

    name = "ray"

    def __init__(self, *, num_workers: int) -> None:
        self.num_workers = num_workers
        self._reaper: Reaper | None = None  # while a cluster is up

    def map(
        self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]
    ) -> Iterator[tuple[int, ResultT]]:
        pending = enumerate(items)
        first = next(pending, None)
        if first is None:
            return  # nothing to do is no reason to start a cluster
        self._start()
        shared = ray.put(function)
        running: dict[Any, int] = {}
        upcoming: tuple[int, ItemT] | None = first
        while running or upcoming is not None:
            while upcoming is not None and len(running) < 2 * self.num_workers:
                index, item = upcoming
                running[_apply.remote(shared, item)] = index
                upcoming = next(pending, None)
            for done in ray.wait(list(running), num_returns=1)[0]:
                yield running.pop(done), _result(done)

    def gang(
        self,
        function: Callable[[Mapping[str, Any]], Json],
        config: Mapping[str, Any],
        *,
        num_ranks: int,
        on_report: Callable[[Mapping[str, Json]], None],
    ) -> None:
        self._start()
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        reports = Queue(actor_options={"num_cpus": 0})
        scratch = tempfile.mkdtemp(prefix="mm-ray-train-")
        use_gpu = ray.cluster_resources().get("GPU", 0) >= num_ranks
        trainer = TorchTrainer(
            _run_rank,
            train_loop_config={"function": function, "config": dict(config), "reports": reports},
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=num_ranks, use_gpu=use_gpu),
            run_config=RunConfig(
                name="gang", storage_path=scratch, failure_config=FailureConfig(max_failures=0)
            ),
        )
        failures: list[Exception] = []
        thread = threading.Thread(target=_fit, args=(trainer, failures), daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                _pass_on(reports, on_report, timeout_seconds=0.5)
            _pass_on(reports, on_report, timeout_seconds=0.0)
        finally:
            reports.shutdown(force=True)
            shutil.rmtree(scratch, ignore_errors=True)
        if failures:
            raise StepError(f"training failed: {_innermost(failures[0])}") from failures[0]

    def close(self) -> None:
        """Stop the cluster, if this run started it."""
        if self._reaper is not None:
            ray.shutdown()
            self._reaper.close()
            self._reaper = None

    def _start(self) -> None:
        if ray.is_initialized():
            return
        os.environ.update(
            {name: os.environ.get(name, value) for name, value in _WORKER_ENV.items()}
        )
        self._reaper = Reaper()
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
        else:
            ray.init(
                num_cpus=self.num_workers,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                **quiet,
            )


@ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)  # type: ignore[untyped-decorator]
def _apply(function: Callable[[ItemT], ResultT], item: ItemT) -> ResultT:
    return function(item)


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


def _run_rank(loop_config: dict[str, Any]) -> None:
    """What Ray Train runs on each rank; RANK, WORLD_SIZE and the rest are set by it."""
    config = loop_config["config"]
    is_first = os.environ["RANK"] == "0"
    reports = loop_config["reports"]
    config["report"] = reports.put if is_first else lambda report: None
    loop_config["function"](config)


def _fit(trainer: Any, failures: list[Exception]) -> None:
    try:
        trainer.fit()
    except Exception as error:  # raised again by the thread that waits
        failures.append(error)


def _pass_on(
    reports: Queue, on_report: Callable[[Mapping[str, Json]], None], *, timeout_seconds: float
) -> None:
    try:
        while True:
            on_report(reports.get(block=timeout_seconds > 0, timeout=timeout_seconds or None))
    except Empty:
        return


def _innermost(error: BaseException) -> str:
    """Return what a rank said, out of Ray Train's wrapping."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for rank, failure in sorted(failures.items()):
        cause = getattr(failure, "cause", None) or failure
        return f"rank {rank}: {type(cause).__name__}: {cause}"
    return f"{type(error).__name__}: {error}"
