"""`mm backfill`: run a deployment for days that have passed."""

from datetime import datetime
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, NOTHING_TO_DO, AsJson, Root, print_json, say
from mmcore.recipe.execute import absolute_root

app = new_app()
_DATE = ["%Y-%m-%d"]


@app.command()
def backfill(
    deployment: Annotated[
        str, typer.Argument(metavar="DEPLOYMENT", help="flow/name, e.g. prepare-data/stamps")
    ],
    first: Annotated[datetime, typer.Option("--from", formats=_DATE, help="The first day")],
    last: Annotated[datetime, typer.Option("--to", formats=_DATE, help="The last day, included")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and run nothing")
    ] = False,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Run a deployment once for each day; a day that was asked for before is not run again.

    A run gets its day as `logical_date`, which stands for {logical_date} in the overrides of the
    deployment: `source.path=s3://raw/{logical_date}`. Exit code 4: nothing was to be added.
    """
    from mmcore.operate import schedules
    from mmcore.operate.connection import connect

    runs = schedules.backfill(
        connect(absolute_root(root)), deployment, first.date(), last.date(), dry_run=dry_run
    )
    num_new = sum(run.is_new for run in runs)
    if as_json:
        print_json("backfill", {"dry_run": dry_run, "runs": [vars(run) for run in runs]})
    else:
        for run in runs:
            new = "would run" if dry_run else f"flow run {run.flow_run_id}"
            print(f"{run.logical_date}  {new if run.is_new else 'asked for before'}")
        say(f"{num_new} of {len(runs)} days {'would be' if dry_run else 'were'} added")
    return 0 if num_new else NOTHING_TO_DO
