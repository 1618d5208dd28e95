"""`python -m pipelines RECIPE`: the end-to-end flow, in this process, with or without a server.

Whether there is anything to do is decided before Prefect is imported.
"""

import asyncio
import os
import sys

import typer

from mmcore.cli.options import (
    ALL_CORES,
    DEFAULT_ROOT,
    NOTHING_TO_DO,
    Executor,
    Overrides,
    Recipe,
    Root,
    Workers,
    say,
)
from mmcore.cli.run import summary_lines
from mmcore.core.graph import committed
from mmcore.errors import MmError, RunCancelled
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import absolute_root, plan_recipe, summarise

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def end_to_end(
    recipe: Recipe,
    root: Root = DEFAULT_ROOT,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    executor: Executor = "ray",
    workers: Workers = ALL_CORES,
) -> None:
    """Run a recipe from end to end through Prefect. Exit code 4: nothing to do."""
    root = absolute_root(root)
    loaded = load_recipe(recipe, overrides=overrides)
    plan = plan_recipe(loaded, root=root)
    if plan.to_run:
        _run_flow(
            recipe,
            root=root,
            overrides=overrides,
            executor=executor,
            workers=workers,
            dataset=loaded.recipe.name,
        )
        plan = plan_recipe(loaded, root=root)
        code = 0
    else:
        num_steps = len(plan.steps)
        say(f"nothing to do: all {num_steps} steps are there; no file, setting or code changed")
        code = NOTHING_TO_DO
    print("\n".join(summary_lines(summarise(loaded.recipe.name, committed(plan)))))
    raise typer.Exit(code)


def _run_flow(
    recipe: str, *, root: str, overrides: list[str], executor: str, workers: int, dataset: str
) -> None:
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "mmcore",
        # a server that is gone is given up after seconds, not minutes: no result depends on it
        "PREFECT_CLIENT_MAX_RETRIES": "2",
    }.items():
        os.environ.setdefault(name, value)
    if "PREFECT_HOME" in os.environ:  # it makes the folder itself, but not those above it
        os.makedirs(os.environ["PREFECT_HOME"], exist_ok=True)
    from prefect import tags
    from prefect.exceptions import CancelledRun, TerminationSignal

    from mmcore.operate.prefect_yaml import dataset_tag
    from pipelines import flows
    from pipelines.server import ensure_api

    ensure_api()
    flow = flows.end_to_end(
        recipe, root=root, overrides=overrides, executor=executor, workers=workers
    )
    try:
        with tags(dataset_tag(dataset)):
            asyncio.run(flow)
    except (CancelledRun, TerminationSignal) as error:
        raise RunCancelled(*(["SIGTERM"] if isinstance(error, TerminationSignal) else [])) from None


if __name__ == "__main__":
    try:
        app()
    except MmError as error:
        say(f"mm: {error}")
        sys.exit(error.exit_code)
