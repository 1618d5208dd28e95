"""One Prefect task per step: runs it in a thread, says what was counted as a markdown artifact."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from mmcore.cli.progress import describe_counts
from mmcore.core.graph import Plan
from mmcore.core.runner import Event, Run, StepResult
from mmcore.executors import make_executor
from mmcore.recipe.build import LoadedRecipe
from mmcore.recipe.execute import Summary, open_run, summarise


async def run_steps(
    loaded: LoadedRecipe, *, root: str, executor: str, workers: int, until: Sequence[str]
) -> dict[str, Any]:
    """Run the steps of a recipe that are not committed, each as a task; return the summary."""
    with open_run(
        loaded, root=root, executor=make_executor(executor, num_workers=workers), listener=_ignore
    ) as (run, log):
        plan = await asyncio.to_thread(run.plan, until)
        get_run_logger().info(
            "run %s: %d of %d steps to do", log.run_id, len(plan.to_run), len(plan.steps)
        )
        for planned in plan.steps:
            # a task per step: tens per run; shards are Ray's, and Prefect never sees them
            await run_step.with_options(task_run_name=planned.name, tags=[planned.name])(
                planned.name, run=run, plan=plan, dataset=loaded.recipe.name
            )
        summary: Summary = summarise(loaded.recipe.name, run.artifacts)
    return summary.to_json()


@task(name="step", cache_policy=NO_CACHE, persist_result=False)
async def run_step(name: str, *, run: Run, plan: Plan, dataset: str) -> None:
    """Run one step. The truth is its manifest; Prefect is told the counts."""
    result = await asyncio.to_thread(run.run_step, name, plan)
    get_run_logger().info("%s: %s", name, describe_result(result))
    await acreate_markdown_artifact(
        key=f"{dataset}-{name}".replace("_", "-"),
        markdown=markdown_of(name, result),
        description=f"{name} of {dataset}",
    )


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
