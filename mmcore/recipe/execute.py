"""Runs a recipe and says what came of it: what `mm run` and the flows have in common."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmcore import storage
from mmcore.core.executor import Executor
from mmcore.core.graph import Plan, make_plan
from mmcore.core.manifest import load_manifest
from mmcore.core.runner import Event, Listener, Run
from mmcore.core.runs import RunLog
from mmcore.core.step import Artifact
from mmcore.recipe.build import LoadedRecipe


def absolute_root(root: str) -> str:
    """Return a storage root that means the same in every process."""
    return os.path.abspath(root) if storage.is_local(root) else root.rstrip("/")


@contextmanager
def open_run(
    loaded: LoadedRecipe, *, root: str, executor: Executor, listener: Listener
) -> Iterator[tuple[Run, RunLog]]:
    """Yield a run and its log; the log says how it ended, and the executor is let go."""
    recipe = loaded.recipe
    log = RunLog(root, recipe=loaded.loaded.file, name=recipe.name, executor=executor.name)

    def tell(event: Event) -> None:
        log.event(event.kind, event.step, event.facts)
        listener(event)

    try:
        yield Run(loaded.graph, root=root, executor=executor, listener=tell), log
    except KeyboardInterrupt:
        log.finish("interrupted")
        raise
    except Exception as error:
        log.finish("failed", error=str(error))
        raise
    else:
        log.finish("done")
    finally:
        executor.close()


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

    def to_json(self) -> dict[str, Any]:
        """Return the summary with stable keys."""
        return {
            "dataset": self.dataset,
            "dataset_url": self.dataset_url,
            "model": self.model,
            "decision": self.decision,
            "metrics": dict(self.metrics),
            "report": self.report,
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
    )


def committed(plan: Plan) -> dict[str, Artifact]:
    """Return the artifacts that a plan found committed."""
    found = {}
    for step in plan.steps:
        if step.url is not None and (manifest := load_manifest(step.url)) is not None:
            found[step.name] = Artifact(step.url, manifest)
    return found


def plan_recipe(loaded: LoadedRecipe, *, root: str, until: Sequence[str] = ()) -> Plan:
    """Return what a run of the recipe would do."""
    return make_plan(loaded.graph, root, until)
