"""Runs a recipe and says what came of it: what `mm run` and the flows have in common."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmcore import storage
from mmcore.core.cancel import StopSwitch
from mmcore.core.executor import Executor
from mmcore.core.forget import mark_versions
from mmcore.core.graph import Plan, make_plan
from mmcore.core.lease import Holder, Lease, acquire, lease_url
from mmcore.core.lineage import SHARD_STEP
from mmcore.core.run_log import RunLog
from mmcore.core.runner import Event, Listener, Run, StepResult, sweep_temporaries
from mmcore.core.step import Artifact
from mmcore.errors import LeaseLost, RunCancelled, StepError
from mmcore.recipe.build import LoadedRecipe
from mmcore.recipe.contents import report_on_run, report_url
from mmcore.recipe.feasible import check_feasible
from mmcore.recipe.pulse import Pulse

NOTHING_TO_DO = "nothing_to_do"


def absolute_root(root: str) -> str:
    """Return a storage root that means the same in every process."""
    return os.path.abspath(root) if storage.is_local(root) else root.rstrip("/")


@contextmanager
def open_run(
    loaded: LoadedRecipe,
    *,
    root: str,
    executor: Executor,
    listener: Listener,
    until: Sequence[str] = (),
    flow: Mapping[str, Any] | None = None,
    is_waiting: bool = True,
) -> Iterator[tuple[Run, RunLog]]:
    """Yield a run that has its dataset to itself, and its log, which says how the run ended.

    While another run has the dataset, wait for it, or fail at once. Whatever ends the run, nothing
    of it is left: no worker, no half-written file, no lease.
    """
    log = RunLog(
        root,
        recipe=loaded.loaded.file,
        name=loaded.recipe.name,
        executor=executor.name,
        num_workers=executor.num_workers,
        overrides=loaded.overrides,
        until=until,
        source=loaded.graph.source.url,
        flow=flow,
    )
    stop = executor.stop

    def tell(event: Event) -> None:
        log.event(event.kind, event.step, event.facts)
        listener(event)

    run = Run(loaded.graph, root=root, executor=executor, listener=tell)
    pulse = Pulse(log, stop, on_stuck=lambda: _end(run, log, pulse.lease, stop.error))
    with log.listening(), _stopped_by_sigterm(stop), pulse:
        error: BaseException | None = None
        try:
            with stop.working():
                pulse.lease = _take_lease(log, root, stop, tell, is_waiting=is_waiting)
                run.fence = pulse.lease.fence
            yield run, log
            # a version that was being made when somebody asked has to name what it holds as well
            mark_versions(root, loaded.recipe.name)
        except BaseException as raised:
            # what breaks because the run is being stopped is no reason of its own
            error = stop.error or raised
            if not isinstance(raised, Exception):
                stop.throw(RunCancelled(type(raised).__name__, "the run was interrupted"))
            if error is not raised and isinstance(raised, Exception):
                raise error from raised
            raise
        finally:
            stop.wind_down()
            executor.close()
            _end(run, log, pulse.lease, error)


def _take_lease(
    log: RunLog, root: str, stop: StopSwitch, tell: Listener, *, is_waiting: bool
) -> Lease:
    url = lease_url(root, log.record["name"])
    holder = Holder(run_id=log.run_id, process=log.process, since=log.record["started_at"])

    def on_wait(other: Holder) -> None:
        if not is_waiting:
            raise StepError(
                f"{other.description} is at work on {log.record['name']}. Wait for it (without "
                f"--no-wait), or stop it: mm cancel {other.run_id}"
            )
        tell(Event("waiting", "", {"holder": other.run_id, "description": other.description}))

    return acquire(url, holder, on_wait=on_wait, sleep=stop.wait)


@contextmanager
def _stopped_by_sigterm(stop: StopSwitch) -> Iterator[None]:
    """Take SIGTERM as a request to cancel, unless somebody else has a use for it already."""
    is_free = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    )
    if is_free:
        signal.signal(signal.SIGTERM, stop.on_signal)
    try:
        yield
    finally:
        if is_free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(run: Run, log: RunLog, lease: Lease | None, error: BaseException | None) -> None:
    """Sweep what a run was writing, close its record and let the next one begin."""
    status, facts = how_it_ended(error)
    if isinstance(error, LeaseLost):
        lease = None  # what lies there is the other's now
    try:
        if lease is not None and run.making is not None:
            sweep_temporaries(run.making)
        log.finish(status, **facts)
    finally:
        if lease is not None:
            lease.release()


def how_it_ended(error: BaseException | None) -> tuple[str, dict[str, Any]]:
    """Return the status of a run that ended with an error or without, and what to say of it."""
    if error is None:
        return "done", {}
    if isinstance(error, RunCancelled):
        return "cancelled", {"error": str(error), "cancelled_by": error.by, "why": error.why}
    if isinstance(error, Exception):
        return "failed", {"error": str(error)}
    return "interrupted", {"error": type(error).__name__}


def run_recipe(
    loaded: LoadedRecipe,
    *,
    root: str,
    executor: Executor,
    listener: Listener,
    until: Sequence[str] = (),
    is_waiting: bool = True,
    is_enough: Callable[[Mapping[str, Artifact]], bool] | None = None,
) -> "Outcome":
    """Run the steps that are not committed, once no other run is at work on the dataset.

    `is_enough` sees what is there after each step, and may end the run before its last step.
    """
    with open_run(
        loaded,
        root=root,
        executor=executor,
        listener=listener,
        until=until,
        is_waiting=is_waiting,
    ) as (run, log):
        with executor.stop.working():
            plan = run.plan(until)
            log.planned(describe_plan(loaded, plan))
            check_feasible(loaded, plan, root, executor.memory_bytes)
            results = {}
            for step in plan.steps:
                results[step.name] = run.run_step(step.name, plan)
                if step.name == SHARD_STEP:
                    # before hours of training: what is wrong with data is seen here
                    report_on_run(run)
                if is_enough is not None and is_enough(run.artifacts):
                    break
        if not plan.to_run:
            log.finish(NOTHING_TO_DO)
    return Outcome(log.run_id, plan, results, run.artifacts)


def describe_plan(loaded: LoadedRecipe, plan: Plan) -> list[dict[str, Any]]:
    """Return what a run says it is going to do: a record for each step."""
    inputs = {step.name: list(step.inputs) for step in loaded.graph.steps}
    return [
        {
            "name": step.name,
            "inputs": inputs.get(step.name, []),
            "will_run": step.will_run,
            "reason": step.reason,
            "estimated_seconds": step.estimated_seconds,
        }
        for step in plan.steps
    ]


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    run_id: str
    plan: Plan
    results: Mapping[str, StepResult]
    artifacts: Mapping[str, Artifact]

    @property
    def status(self) -> str:
        """`done`, or `nothing_to_do`."""
        return "done" if self.plan.to_run else NOTHING_TO_DO


@dataclass(frozen=True)
class Summary:
    """What a recipe has come to: names to use and numbers to look at."""

    dataset: str | None
    """`name/version`"""
    dataset_url: str | None
    model: str | None
    """`name/version` in the registry."""
    decision: str | None
    """Why the model is champion, or is not."""
    metrics: Mapping[str, Any]
    report: str | None
    """Of the model."""
    contents: str | None = None
    """The data report."""

    def to_json(self) -> dict[str, Any]:
        """Return the summary with stable keys."""
        return {
            "dataset": self.dataset,
            "dataset_url": self.dataset_url,
            "model": self.model,
            "decision": self.decision,
            "metrics": dict(self.metrics),
            "report": self.report,
            "contents": self.contents,
        }


def summarise(name: str, artifacts: Mapping[str, Artifact]) -> Summary:
    """Gather from the artifacts what a person wants to know at the end."""
    shard, evaluate = artifacts.get("shard"), artifacts.get("evaluate")
    register = artifacts.get("register")
    registered: Mapping[str, Any] = register.manifest.facts if register else {}
    return Summary(
        dataset=f"{name}/{shard.url.rsplit('/', 1)[-1]}" if shard else None,
        dataset_url=shard.url if shard else None,
        model=f"{registered['model_name']}/{registered['version']}" if register else None,
        decision=f"{registered['decision']}: {registered['why']}" if register else None,
        metrics=evaluate.manifest.facts if evaluate else {},
        report=storage.join(evaluate.url, "report.html") if evaluate else None,
        contents=report_url(name, shard) if shard else None,
    )


def plan_recipe(loaded: LoadedRecipe, *, root: str, until: Sequence[str] = ()) -> Plan:
    """Return what a run of the recipe would do."""
    return make_plan(loaded.graph, root, until)
