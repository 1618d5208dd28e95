"""The flows: one idea, a recipe run up to some step, and retraining, which decides first.

`prepare-data`, `train-model`, `release-model` and `end-to-end` do nothing that is done already.
`retrain` waits until the source is quiet, asks the recipe's policy, and runs or says why not.
Parameters are few and flat; `policy` names the deployment file whose limits and alerts apply.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.flows import Flow
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed, Failed

from mmcore.core.graph import committed
from mmcore.core.runs import read_events
from mmcore.errors import GateRefused, MmError, RunCancelled, StepError
from mmcore.operate.alerts import send_alert
from mmcore.operate.deployments import (
    AlertKind,
    AlertsSection,
    DeploymentConfig,
    RetriesSection,
    fill_in,
    load_deployment_config,
)
from mmcore.recipe.build import LoadedRecipe, load_recipe
from mmcore.recipe.execute import absolute_root, plan_recipe
from mmcore.recipe.retrain import (
    conclude,
    consider,
    gains_nothing,
    outcome_of,
    record,
    wait_until_quiet,
)
from pipelines.limits import deadline, retried, runs_of, why_late
from pipelines.steps import IsEnough, run_steps
from pipelines.threads import in_daemon_thread

Outcome = dict[str, Any] | State[Any]
_ONCE = RetriesSection(max_retries=0)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a flow run was asked to do."""

    recipe: str
    root: str
    overrides: Sequence[str]
    executor: str
    workers: int
    force: bool
    """Run even when it is late, and even when the policy sees no reason to."""
    policy: DeploymentConfig | None

    @staticmethod
    def of(
        recipe: str,
        root: str | None,
        overrides: Sequence[str] | None,
        executor: str,
        workers: int,
        force: bool,
        policy: str | None,
        logical_date: str | None,
    ) -> "Request":
        """Fill in what a flow run was not told."""
        due = flow_run.scheduled_start_time or datetime.now(UTC)
        return Request(
            recipe=recipe,
            root=absolute_root(root or os.environ.get("MM_ROOT", ".mm")),
            overrides=fill_in(overrides or (), logical_date=logical_date or f"{due:%Y-%m-%d}"),
            executor=executor,
            workers=workers,
            force=force,
            policy=load_deployment_config(policy) if policy else None,
        )

    def load(self, *more: str) -> LoadedRecipe:
        """Return the recipe with its overrides, and more of them."""
        return load_recipe(self.recipe, overrides=[*self.overrides, *more])

    async def run(
        self, loaded: LoadedRecipe, until: Sequence[str] = (), *, is_enough: IsEnough | None = None
    ) -> dict[str, Any]:
        """Run the steps of a recipe up to those named that it has, or until it is enough."""
        there = [step.name for step in loaded.graph.steps if step.name in until]
        return await run_steps(
            loaded,
            root=self.root,
            executor=self.executor,
            workers=self.workers,
            until=there,
            is_enough=is_enough,
        )


def _run_name() -> str:
    """Name a run by what it does and to which recipe."""
    parameters = flow_run.parameters
    name = f"{flow_run.flow_name} {Path(str(parameters.get('recipe'))).stem}"
    day = parameters.get("logical_date")
    return f"{name} {day}" if day else name


def _recipe_flow(
    name: str, description: str, until: Sequence[str]
) -> Flow[..., Coroutine[Any, Any, Any]]:
    """Return the flow that runs a recipe up to some steps; none: to its end."""

    async def run_recipe(
        recipe: str,
        root: str | None = None,
        overrides: list[str] | None = None,
        executor: str = "ray",
        workers: int = 2,
        force: bool = False,
        policy: str | None = None,
        logical_date: str | None = None,
    ) -> Outcome:
        request = Request.of(
            recipe, root, overrides, executor, workers, force, policy, logical_date
        )

        async def work() -> dict[str, Any]:
            return await request.run(request.load(), until)

        return await _within_limits(request, work)

    made: Flow[..., Coroutine[Any, Any, Any]] = flow(
        name=name, description=description, flow_run_name=_run_name
    )(run_recipe)
    return made


prepare_data = _recipe_flow(
    "prepare-data", "Take a raw corpus to a published dataset version.", ["tokenizer", "shard"]
)
train_model = _recipe_flow(
    "train-model", "Train a model on the dataset, which is made where it is not there.", ["train"]
)
release_model = _recipe_flow(
    "release-model", "Evaluate the model, register it, let it ask for the place.", ["register"]
)
end_to_end = _recipe_flow(
    "end-to-end", "Take a raw corpus to a registered model: every step of the recipe.", []
)


@flow(name="retrain", flow_run_name=_run_name)
async def retrain(
    recipe: str,
    root: str | None = None,
    overrides: list[str] | None = None,
    executor: str = "ray",
    workers: int = 2,
    force: bool = False,
    policy: str | None = None,
    logical_date: str | None = None,
    arrived: dict[str, Any] | None = None,
) -> Outcome:
    """Retrain on new data when the recipe's policy asks for it; otherwise say why not.

    `arrived` is what the event told that started it.
    """
    request = Request.of(recipe, root, overrides, executor, workers, force, policy, logical_date)
    if arrived is not None:
        get_run_logger().info(
            "new data: %s files in %s", arrived.get("num_files"), arrived.get("source")
        )

    async def decide_and_run() -> Outcome:
        return await _decide_and_run(request, trigger="new data" if arrived else _trigger())

    return await _within_limits(request, decide_and_run)


async def _decide_and_run(request: Request, *, trigger: str) -> Outcome:
    loaded = request.load()
    name = loaded.recipe.name
    seconds = request.policy.timeout_seconds if request.policy is not None else None
    try:
        await asyncio.wait_for(in_daemon_thread(wait_until_quiet, loaded), seconds)
    except TimeoutError:
        raise StepError(
            f"{loaded.graph.source.url} was still being written to after timeout_seconds="
            f"{seconds:g}. Stop what writes there, or lower retrain.quiet_seconds."
        ) from None
    verdict = await in_daemon_thread(
        lambda: consider(loaded, root=request.root, force=request.force)
    )
    decision_id = await asyncio.to_thread(record, request.root, name, verdict, trigger=trigger)
    if not verdict.should_run:
        return Completed(name="Skipped", message=verdict.why)
    get_run_logger().info("retraining: %s", verdict.why)
    chosen = request.load(*verdict.overrides)
    summary = await request.run(chosen, is_enough=gains_nothing)
    made = await asyncio.to_thread(lambda: committed(plan_recipe(chosen, root=request.root)))
    # without an outcome, the next retraining takes this one up where it was
    await asyncio.to_thread(conclude, request.root, name, decision_id, outcome_of(made))
    return summary


def _trigger() -> str:
    """Return what started this flow run, for the record of decisions."""
    return f"deployment {deployment.name}" if deployment.name else "flow"


async def _within_limits(request: Request, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Do the work of a flow run unless it is late; end it in time, retry it, tell of its end."""
    policy = request.policy
    limits = (policy.skip_if_late_seconds, policy.timeout_seconds) if policy else (None, None)
    late = None if request.force else await why_late(limits[0])
    if late is not None:
        return Completed(name="Skipped", message=late)
    alerts = policy.alerts if policy is not None else AlertsSection()
    async with deadline(request.root, flow_run.id, limits[1]) as limit:
        try:
            outcome = await retried(
                work, policy.retries if policy is not None else _ONCE, logger=get_run_logger()
            )
        except RunCancelled as error:
            if not limit.has_passed:
                return Cancelled(message=str(error))
            await _alert(alerts, "failed", request, str(error))
            return Failed(name="TimedOut", message=str(error))
        except MmError as error:
            kind: AlertKind = "refused" if isinstance(error, GateRefused) else "failed"
            await _alert(alerts, kind, request, str(error))
            raise
    if isinstance(outcome, dict):
        await _alert_of_decision(alerts, request, outcome)
    return outcome


async def _alert_of_decision(
    alerts: AlertsSection, request: Request, summary: dict[str, Any]
) -> None:
    """Tell what became of a model that this flow run registered."""
    if not summary.get("decision") or not alerts.to:
        return
    if await asyncio.to_thread(_has_registered, request.root, flow_run.id):
        kind: AlertKind = "promoted" if summary["decision"].startswith("promoted") else "refused"
        await _alert(alerts, kind, request, f"{summary['model']}: {summary['decision']}")


def _has_registered(root: str, flow_run_id: str | None) -> bool:
    return any(
        event["kind"] == "step_finished" and event["step"] == "register"
        for run in runs_of(root, flow_run_id)
        for event in read_events(run["url"])
    )


async def _alert(alerts: AlertsSection, kind: AlertKind, request: Request, text: str) -> None:
    title = f"{flow_run.flow_name} {Path(request.recipe).stem}: {kind}"
    body = f"{text}\n\nflow run {flow_run.name} ({flow_run.id}), root {request.root}"
    await asyncio.to_thread(send_alert, alerts, kind, title=title, body=body)
