"""`mm schedule`: list, pause and resume the schedules of deployments."""

from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.recipe.execute import absolute_root

app = new_app()
DeploymentName = Annotated[
    str, typer.Argument(metavar="DEPLOYMENT", help="flow/name, e.g. retrain/stamps")
]
Slug = Annotated[
    str | None, typer.Argument(metavar="[SLUG]", help="Of the schedule; default: all of them")
]


@app.callback(invoke_without_command=True)
def schedule(context: typer.Context, root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> int:
    """List, pause and resume the schedules of what is deployed; without a word: list.

    A paused schedule stays paused when `mm deploy` runs again with the same file.
    """
    return _list(None, root, as_json) if context.invoked_subcommand is None else 0


@app.command("list")
def list_(
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="Default: all")
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """List schedules, and when each runs next."""
    return _list(deployment, root, as_json)


@app.command()
def pause(
    deployment: DeploymentName,
    slug: Slug = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Pause a schedule; what it had planned is dropped, what runs goes on."""
    return _set_active(deployment, slug, root, as_json, active=False)


@app.command()
def resume(
    deployment: DeploymentName,
    slug: Slug = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Resume a schedule; what it missed is not made up for. See: mm backfill."""
    return _set_active(deployment, slug, root, as_json, active=True)


def _list(deployment: str | None, root: str, as_json: bool) -> int:
    # httpx takes a moment, and --help does not need it
    from mmcore.operate.connection import connect
    from mmcore.operate.schedules import list_schedules

    rows = list_schedules(connect(absolute_root(root)), deployment)
    if as_json:
        print_json("schedules", {"schedules": rows})
        return 0
    for row in rows:
        state = f"next {row['next'] or 'not planned yet'}" if row["active"] else "paused"
        print(f"{row['deployment']}  {row['slug'] or '(no slug)'}  {row['when']}  {state}")
    if not rows:
        say("no schedule. Add `schedules:` to a file in configs/deployments, then: mm deploy")
    return 0


def _set_active(
    deployment: str, slug: str | None, root: str, as_json: bool, *, active: bool
) -> int:
    from mmcore.operate.connection import connect
    from mmcore.operate.schedules import set_active

    changed = set_active(connect(absolute_root(root)), deployment, slug, active=active)
    word = "resumed" if active else "paused"
    if as_json:
        rows = [{"slug": slug, "changed": has_changed} for slug, has_changed in changed]
        print_json("schedule", {"active": active, "schedules": rows})
        return 0
    for name, has_changed in changed:
        print(f"{deployment} {name}: {word}" + ("" if has_changed else " already"))
    return 0
