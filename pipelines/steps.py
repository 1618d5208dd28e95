"""One Prefect task per step: runs it in a thread, says what was counted as a markdown artifact."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import httpx
from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TagsContext
from prefect.exceptions import PrefectException, TerminationSignal
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled

from mmcore.cli.progress import describe_counts
from mmcore.core.graph import Plan, committed
from mmcore.core.lineage import SHARD_STEP
from mmcore.core.runner import Event, Run, StepResult
from mmcore.core.step import Artifact
from mmcore.errors import RunCancelled
from mmcore.executors import make_executor
from mmcore.recipe.build import LoadedRecipe
from mmcore.recipe.contents import report_on_run
from mmcore.recipe.execute import (
    NOTHING_TO_DO,
    Summary,
    describe_plan,
    open_run,
    plan_recipe,
    summarise,
)
from mmcore.recipe.feasible import check_feasible
from pipelines.threads import StepThread, in_daemon_thread

IsEnough = Callable[[Mapping[str, Artifact]], bool]
_ARTIFACT_SECONDS = 20.0  # a Prefect server that is gone must not hold up the work


async def run_steps(
    loaded: LoadedRecipe,
    *,
    root: str,
    executor: str,
    workers: int,
    until: Sequence[str],
    is_enough: IsEnough | None = None,
) -> dict[str, Any]:
    """Run the steps of a recipe that are not committed, each as a task; return the summary.

    `is_enough` sees what is there after each step, and may end the run before its last step.
    RunCancelled when somebody has asked the run to stop.
    """
    # beside the event loop, as all that may wait: Prefect's heartbeats must go on
    plan = await in_daemon_thread(lambda: plan_recipe(loaded, root=root, until=until))
    if not plan.to_run:
        # no task, no record: a schedule that finds nothing new costs next to nothing
        get_run_logger().info("nothing to do: all %d steps are there", len(plan.steps))
        return summarise(loaded.recipe.name, committed(plan)).to_json()
    where = make_executor(executor, num_workers=workers)
    opened = open_run(
        loaded, root=root, executor=where, listener=_ignore, until=until, flow=_flow_facts()
    )
    thread = StepThread(where.stop, why_ended=_ended_from_outside)
    try:
        # it may have to wait for another run
        run, log = await thread.call(opened.__enter__)
        plan = await thread.call(run.plan, until)
        log.planned(describe_plan(loaded, plan))
        await thread.call(check_feasible, loaded, plan, root, where.memory_bytes)
        get_run_logger().info(
            "run %s: %d of %d steps to do", log.run_id, len(plan.to_run), len(plan.steps)
        )
        for planned in plan.steps:
            # a task per step: tens per run; shards are Ray's, and Prefect never sees them
            step: Any = run_step.with_options(task_run_name=planned.name)
            # without the tags of the flow: for each tag of a task Prefect asks its server for a
            # slot, and waits two seconds when SQLite is busy
            with TagsContext(current_tags=set()):
                state = await step(planned.name, of=_Steps(run, plan, thread), return_state=True)
            where.stop.check()
            await state.aresult()
            if planned.name == SHARD_STEP:
                await thread.call(report_on_run, run)
            if is_enough is not None and is_enough(run.artifacts):
                break
        if not plan.to_run:
            log.finish(NOTHING_TO_DO)
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError | TerminationSignal):
            where.stop.throw(_ended_from_outside())
        opened.__exit__(type(error), error, error.__traceback__)
        raise
    else:
        opened.__exit__(None, None, None)
    finally:
        thread.close()
    summary: Summary = summarise(loaded.recipe.name, run.artifacts)
    return summary.to_json()


@task(name="step", cache_policy=NO_CACHE, persist_result=False)
async def run_step(name: str, *, of: "_Steps") -> State[None] | None:
    """Run one step. The truth is its manifest; Prefect is told the counts."""
    try:
        result = await of.thread.call(of.run.run_step, name, of.plan)
    except RunCancelled as error:
        return Cancelled(message=str(error))
    get_run_logger().info("%s: %s", name, describe_result(result))
    if not result.was_cached:
        dataset = of.run.graph.name
        await _tell(f"{dataset}-{name}", markdown_of(name, result), f"{name} of {dataset}")
    return None


class _Steps:
    """What a task is given; no dataclass, since Prefect would look at every file of the plan."""

    def __init__(self, run: Run, plan: Plan, thread: StepThread) -> None:
        self.run = run
        self.plan = plan
        self.thread = thread


def _flow_facts() -> dict[str, Any]:
    return {
        "flow_run_id": flow_run.id,
        "flow_name": flow_run.flow_name,
        "deployment": deployment.name,
    }


def _ended_from_outside() -> RunCancelled:
    """Return why a run ends whose flow is ended: by the worker's SIGTERM, as a rule."""
    if "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker has started this process
        return RunCancelled("Prefect", "the flow run was cancelled, or its worker stopped")
    return RunCancelled("a signal", "the process of the flow was told to end")


async def _tell(key: str, markdown: str, description: str) -> None:
    """Show Prefect what a step came to; the work goes on without it."""
    artifact = acreate_markdown_artifact(
        key=key.replace("_", "-"), markdown=markdown, description=description
    )
    try:
        await asyncio.wait_for(artifact, _ARTIFACT_SECONDS)
    except (httpx.HTTPError, PrefectException, TimeoutError) as error:
        get_run_logger().warning("Prefect does not take the artifact %s: %r", key, error)


def describe_result(result: StepResult) -> str:
    """Return what a step came to, in a line."""
    if result.was_cached:
        return "there already, nothing changed"
    counts = describe_counts(asdict(result.artifact.manifest.counts))
    return f"made in {result.seconds:.1f} s  {counts}".rstrip()


def markdown_of(name: str, result: StepResult) -> str:
    """Return what a step came to, as a table."""
    manifest = result.artifact.manifest
    how = (
        "there already, nothing changed" if result.was_cached else f"made in {result.seconds:.1f} s"
    )
    lines = [f"### {name}: {how}", "", f"`{result.artifact.url}`", ""]
    counts = manifest.counts
    if counts.found:
        lines += ["| what | samples |", "| --- | ---: |", f"| found | {counts.found} |"]
        lines.append(f"| kept | {counts.kept} |")
        for what, reasons in (("dropped", counts.dropped), ("quarantined", counts.quarantined)):
            lines += [f"| {what}: {reason} | {num} |" for reason, num in reasons.items()]
        lines.append("")
    numbers = {
        fact: value
        for fact, value in manifest.facts.items()
        if isinstance(value, int | float | str)
    }
    if numbers:
        lines += ["| fact | value |", "| --- | --- |"]
        lines += [f"| {fact} | {value} |" for fact, value in numbers.items()]
    return "\n".join(lines)


def _ignore(_: Event) -> None:
    """Prefect shows tasks and artifacts; progress within a step is in the run's log."""
