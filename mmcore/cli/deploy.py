"""`mm deploy`: deployments, schedules, triggers and limits, as their files say."""

import os
from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.recipe.execute import absolute_root

app = new_app()
_PLAN_SECONDS = 8.0  # for the server to plan what is new


@app.command()
def deploy(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Deployment files; default: configs/deployments"),
    ] = None,
    root: Root = DEFAULT_ROOT,
    print_file: Annotated[
        bool, typer.Option("--print", help="Print Prefect's prefect.yaml, and deploy nothing")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Deploy recipes to the Prefect server of `mm up`, or of PREFECT_API_URL.

    What the server has already stays as it is: a second time does nothing. A schedule that is gone
    from its file goes from the server; one that you paused stays paused until its file changes.
    """
    from mmcore.operate.deployments import load_deployments

    deployments = load_deployments(files or ())
    if print_file:
        from mmcore.operate.prefect_yaml import render, to_yaml

        print(to_yaml(render(deployments)), end="")
        return 0
    from mmcore.operate.connection import connect
    from mmcore.operate.deploy import deploy as bring_up_to_date
    from mmcore.operate.schedules import wait_until_planned

    connection = connect(absolute_root(root))
    changes = bring_up_to_date(connection, deployments, directory=os.getcwd(), dry_run=dry_run)
    next_runs: list[dict[str, Any]] = []
    if not dry_run:
        next_runs = wait_until_planned(connection, seconds=_PLAN_SECONDS)
    if as_json:
        print_json("deploy", {**vars(changes), "dry_run": dry_run, "next": next_runs})
        return 0
    for line in changes.done:
        print(f"would be {line}" if dry_run else line)
    if changes.unchanged:
        say(f"unchanged: {', '.join(changes.unchanged)}")
    for note in changes.notes:
        say(f"note: {note}")
    for deployment in deployments:
        if deployment.watched and not dry_run:
            say(f"watched: {deployment.watched}, for {deployment.dataset} (while `mm up` runs)")
    for run in next_runs:
        at = run["next"] or "not planned by the server yet; see: mm schedule"
        say(f"next: {run['deployment']} ({run['slug']}) at {at}")
    if not next_runs and not dry_run:
        say("next: nothing is scheduled")
    return 0
