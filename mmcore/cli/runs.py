"""`mm runs`: which runs there were, how each ended, and what one of them did."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.cli.progress import describe_counts
from mmcore.core.runs import (
    Record,
    effective_status,
    find_run,
    heartbeat_age,
    list_runs,
    read_events,
)
from mmcore.recipe.execute import absolute_root

app = new_app()
_GOING_ON = ("running", "cancelling")


@app.command()
def runs(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="A run, the beginning of its name, or latest")
    ] = "",
    root: Root = DEFAULT_ROOT,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first")] = 20,
    before: Annotated[str, typer.Option(metavar="RUN", help="Go on below this run")] = "",
    as_json: AsJson = False,
) -> int:
    """List runs, the newest first: how each is or how it ended; or show the steps of one.

    A run whose process is gone is shown as died: on this machine at once, elsewhere within 30 s.
    """
    root = absolute_root(root)
    if run:
        return _show(find_run(root, run), as_json=as_json)
    found = list_runs(root, limit=limit, before=before or None)
    rows = [{**record, "status": effective_status(record)} for record in found]
    if as_json:
        print_json("runs", {"runs": rows})
        return 0
    for row in rows:
        print("  ".join(_cells(row)).rstrip())
    if not rows:
        say(f"no run below {root} yet. Begin one with: mm run RECIPE")
    elif len(rows) == limit:
        say(f"older ones: mm runs --before {rows[-1]['run_id']}")
    return 0


def _cells(run: Record) -> list[str]:
    seconds = f"{run['seconds']:.1f} s" if "seconds" in run else ""
    error = str(run.get("error", "")).split("\n")[0]
    cells = [f"{run['run_id']:<24}", f"{run['name']:<20}", f"{run['status']:<13}"]
    return [*cells, run["started_at"][:19].replace("T", " "), f"{seconds:>9}", error[:80]]


def _show(run: Record, *, as_json: bool) -> int:
    record = {**run, "status": effective_status(run)}
    steps = describe_steps(read_events(run["url"]), is_over=record["status"] not in _GOING_ON)
    if as_json:
        print_json("run_record", {"run": record, "steps": steps})
        return 0
    where = f"process {run['pid']} of {run['host']}, --executor {run['executor']}"
    print(f"{run['run_id']}  {run['name']}  {record['status']}  ({run['recipe']}; {where})")
    if record["status"] in _GOING_ON:
        print(f"heartbeat {heartbeat_age(run):.0f} s ago")
    for name in ("error", "cancelled_by", "why"):
        if record.get(name):
            print(f"{name.replace('_', ' ')}: {record[name]}")
    for step in steps:
        seconds = f"{step['seconds']:.1f} s" if step["seconds"] is not None else ""
        said = describe_counts(step["counts"]) if step["counts"] else step["reason"] or ""
        print(f"  {step['name']:<10} {step['state']:<9} {seconds:>9}  {said}".rstrip())
    return 0


def describe_steps(events: list[dict[str, Any]], *, is_over: bool) -> list[dict[str, Any]]:
    """Return what became of each step, in order: planned, kept, running, stopped or done.

    A run that has failed or was cancelled has stopped in a step; the next run goes on there.
    """
    steps: dict[str, dict[str, Any]] = {}

    def step_of(event: Mapping[str, Any], name: str) -> dict[str, Any]:
        empty = {"name": name, "state": "planned", "reason": event.get("reason")}
        numbers = {"done": None, "total": None, "seconds": None, "counts": None, "url": None}
        return steps.setdefault(name, {**empty, **numbers})

    for event in events:
        kind = event["kind"]
        if kind == "planned":
            for planned in event["steps"]:
                step_of(planned, planned["name"])
        elif kind == "step_skipped":
            step_of(event, event["step"]).update(state="kept", url=event.get("url"))
        elif kind == "step_started":
            started = step_of(event, event["step"])
            started.update(state="running", done=event["num_resumed"], total=event["num_tasks"])
        elif kind in ("task_finished", "progress"):
            step_of(event, event["step"]).update(done=event["done"], total=event["total"])
        elif kind == "step_finished":
            facts = {name: event[name] for name in ("seconds", "counts", "url")}
            step_of(event, event["step"]).update(state="done", **facts)
    for step in steps.values():
        if is_over and step["state"] == "running":
            step["state"] = "stopped"
    return list(steps.values())
