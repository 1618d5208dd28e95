"""`mm notify-data`: tell that new data has arrived."""

import os
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Overrides, Recipe, Root, print_json, say
from mmcore.recipe.execute import absolute_root

app = new_app()


@app.command()
def notify_data(
    recipe: Recipe,
    files: Annotated[
        list[str] | None,
        typer.Option("--files", metavar="FILE", help="What has arrived; may be repeated"),
    ] = None,
    root: Root = DEFAULT_ROOT,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    as_json: AsJson = False,
) -> int:
    """Emit the event that `mm watch` emits; the retraining that is deployed starts by it.

    For whoever knows better than a watcher when data is complete: a copying job, an upload hook.
    """
    from mmcore.operate.connection import connect
    from mmcore.operate.events import notify_data as notify
    from mmcore.recipe.build import load_recipe

    loaded = load_recipe(recipe, overrides=overrides)
    named = files or []
    event_id = notify(
        connect(absolute_root(root)),
        dataset=loaded.recipe.name,
        source=loaded.graph.source.url,
        num_files=len(named),
        num_bytes=sum(os.path.getsize(file) for file in named if os.path.isfile(file)),
        first_keys=named,
    )
    if as_json:
        print_json("notify-data", {"event_id": event_id, "dataset": loaded.recipe.name})
    else:
        say(f"told: new data for {loaded.recipe.name} (event {event_id})")
    return 0
