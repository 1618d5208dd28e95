"""`mm compact`: a dataset without tombstones, and on request without the bytes of the forgotten."""

from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import (
    ALL_CORES,
    DEFAULT_ROOT,
    NOTHING_TO_DO,
    AsJson,
    Executor,
    Overrides,
    Root,
    Workers,
    print_json,
    say,
)
from mmcore.core.diff import diff
from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import DatasetVersion, find_dataset
from mmcore.core.purge import purge
from mmcore.recipe.compact import UNTIL, is_compact, load_compaction
from mmcore.recipe.execute import absolute_root, plan_recipe, run_recipe

app = new_app()


@app.command()
def compact(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset, as mm datasets lists it")],
    recipe: Annotated[
        str | None, typer.Option(metavar="FILE", help="Default: that of the newest run")
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    keep_splits: Annotated[
        bool, typer.Option(help="Leave every sample in its split, whatever a new dataset would do")
    ] = False,
    purge_bytes: Annotated[
        bool, typer.Option("--purge", help="Then delete what still holds forgotten bytes")
    ] = False,
    root: Root = DEFAULT_ROOT,
    executor: Executor = "local",
    workers: Workers = ALL_CORES,
    as_json: AsJson = False,
) -> int:
    """Publish a version of a dataset without tombstones: what changed, vanished or is forgotten is
    not in its shards, and the shards of small increments are one again.

    It equals, byte for byte, a dataset made today from the source without what is forgotten. With
    --purge, every artifact and version with something of the forgotten is deleted. Exit code 4:
    there was nothing to do.
    """
    root = absolute_root(root)
    before, loaded = load_compaction(
        root, name, recipe=recipe, overrides=overrides, keep_splits=keep_splits
    )
    plan = None if is_compact(root, before) else plan_recipe(loaded, root=root, until=UNTIL)
    has_run = plan is not None and bool(plan.to_run)
    if has_run:
        from mmcore.cli.progress import progress_listener
        from mmcore.executors import make_executor

        with progress_listener() as listener:
            run_recipe(
                loaded,
                root=root,
                executor=make_executor(executor, num_workers=workers),
                listener=listener,
                until=UNTIL,
            )
    after = find_dataset(root, name)
    changed = diff(before, after) if has_run else None
    deleted = purge(root, name, load_forgotten(root, name)) if purge_bytes else []
    _say(before, after, changed, deleted, as_json=as_json)
    return 0 if has_run or deleted else NOTHING_TO_DO


def _say(
    before: DatasetVersion,
    after: DatasetVersion,
    changed: dict[str, Any] | None,
    deleted: list[str],
    *,
    as_json: bool,
) -> None:
    num_moved = len(changed["moved"]) if changed else 0
    facts: Any = (before.artifact.manifest.facts, after.artifact.manifest.facts)
    if as_json:
        value = {
            "before": str(before),
            "after": str(after),
            "has_run": changed is not None,
            "num_shards": {"before": facts[0]["num_shards"], "after": facts[1]["num_shards"]},
            "num_bytes": {"before": facts[0]["num_bytes"], "after": facts[1]["num_bytes"]},
            "num_moved": num_moved,
            "deleted": deleted,
        }
        print_json("compact", value)
        return
    if changed is None:
        say(f"nothing to compact: {after} has no tombstone and builds on nothing")
    else:
        print(
            f"{before} -> {after}: {facts[0]['num_shards']} -> {facts[1]['num_shards']} shards, "
            f"{facts[0]['num_bytes'] / 1e6:.1f} -> {facts[1]['num_bytes'] / 1e6:.1f} MB"
        )
    if num_moved:
        say(
            f"{num_moved} samples are in another split than before: an earlier model may have "
            "learned from what tests it now. --keep-splits leaves them where they were."
        )
    for url in deleted:
        print(f"deleted  {url}")
