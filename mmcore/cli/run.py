"""`mm run`: run a recipe."""

from statistics import fmean
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import (
    ALL_CORES,
    DEFAULT_ROOT,
    NOTHING_TO_DO,
    AsJson,
    Executor,
    Overrides,
    Recipe,
    Root,
    Until,
    Workers,
    print_json,
    say,
)
from mmcore.core.graph import committed
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import (
    Summary,
    absolute_root,
    plan_recipe,
    run_recipe,
    summarise,
)

app = new_app()


@app.command()
def run(
    recipe: Recipe,
    root: Root = DEFAULT_ROOT,
    executor: Executor = "local",
    workers: Workers = ALL_CORES,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    until: Until = [],  # noqa: B006
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Fail when another run is at work on the dataset")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the dataset from the ground up, not on top")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Run a recipe: only the steps whose artifact is not there yet.

    Killed anywhere, the same command goes on. One run at a time works on a dataset: a second one
    waits, and does what is left. Stop a run with mm cancel. Exit code 4: nothing to do.
    """
    root = absolute_root(root)
    loaded = load_recipe(recipe, overrides=overrides, rebuild=rebuild)
    plan = plan_recipe(loaded, root=root, until=until)
    if not plan.to_run:
        summary = summarise(loaded.recipe.name, committed(plan))
        steps = [{"name": step.name, "ran": False, "reason": step.reason} for step in plan.steps]
        _conclude("nothing_to_do", steps, summary, as_json=as_json)
        return NOTHING_TO_DO
    from mmcore.cli.progress import progress_listener
    from mmcore.executors import make_executor

    with progress_listener() as listener:
        outcome = run_recipe(
            loaded,
            root=root,
            executor=make_executor(executor, num_workers=workers),
            listener=listener,
            until=until,
            is_waiting=not no_wait,
        )
    steps = [
        {"name": name, "ran": not result.was_cached, "seconds": round(result.seconds, 3)}
        for name, result in outcome.results.items()
    ]
    summary = summarise(loaded.recipe.name, outcome.artifacts)
    _conclude(outcome.status, steps, summary, as_json=as_json)
    return 0 if outcome.status == "done" else NOTHING_TO_DO


def _conclude(
    status: str, steps: list[dict[str, object]], summary: Summary, *, as_json: bool
) -> None:
    if as_json:
        print_json("run", {"status": status, "steps": steps, **summary.to_json()})
        return
    if status == "nothing_to_do":
        say(f"nothing to do: {len(steps)} steps are there, and no file, setting or code changed")
    print("\n".join(summary_lines(summary)))


def summary_lines(summary: Summary) -> list[str]:
    """Return what a person wants to see at the end of a run."""
    lines = [f"dataset   {summary.dataset}  ({summary.dataset_url})"] if summary.dataset else []
    if summary.contents:
        lines.append(f"contents  {summary.contents}")
    if summary.model:
        lines.append(f"model     {summary.model}  {summary.decision}")
    lines += [f"{name:<10}{value}" for name, value in headline(summary)]
    if summary.report:
        lines.append(f"report    {summary.report}")
    return lines


def headline(summary: Summary) -> list[tuple[str, str]]:
    """Return the three numbers to look at first, each beside what it has to beat."""
    metrics = summary.metrics
    if not metrics:
        return []
    alone = metrics["accuracy_by_modality"]
    best = max(sorted(alone), key=alone.__getitem__)
    directions = metrics["retrieval"]
    found = fmean(figures["recall_at_10"] for figures in directions.values())
    chance = fmean(figures["chance_at_10"] for figures in directions.values())
    return [
        (
            "accuracy",
            f"{metrics['accuracy']:.3f}  (best modality alone: {best} {alone[best]:.3f}, "
            f"majority {metrics['majority_accuracy']:.3f})",
        ),
        ("macro F1", f"{metrics['macro_f1']:.3f}"),
        ("R@10", f"{found:.3f}  (chance {chance:.3f}, mean of {len(directions)} directions)"),
    ]
