"""`mm cancel`: stop a run, and see to it that nothing of it is left."""

import contextlib
import getpass
import os
import signal
import time
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, NOTHING_TO_DO, AsJson, Root, print_json, say
from mmcore.core.runs import (
    Record,
    close_record,
    effective_status,
    find_run,
    list_runs,
    load_run,
    process_of,
    read_events,
    request_cancel,
)
from mmcore.errors import StepError
from mmcore.executors.reaper import kill_below
from mmcore.recipe.execute import absolute_root

app = new_app()
_PATIENCE_SECONDS = 20.0
"""A run kills itself after 15 s when it cannot stop in an orderly way."""
_FROZEN_SECONDS = 3.0
_LIMIT_SECONDS = 28.0
_LOOK_SECONDS = 0.25
_SAY_SECONDS = 3.0
_NUM_LOOKED_AT = 200
_GOING_ON = ("running", "cancelling")


@app.command()
def cancel(
    run: Annotated[
        str,
        typer.Argument(help="A run, the beginning of its name, or latest: the newest that runs"),
    ],
    why: Annotated[str, typer.Option(help="A reason, kept in the record of the run")] = "",
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Stop a run: no process, Ray task, half-written shard or lease of it stays.

    What is done is kept, and the next run goes on from there. Waits until the run is gone, 30 s at
    most. Exit code 4: it had ended already.
    """
    root = absolute_root(root)
    found = _newest_running(root) if run == "latest" else find_run(root, run)
    run_id = found["run_id"]
    if not request_cancel(root, run_id, by=getpass.getuser(), why=why):
        return _conclude(load_run(root, run_id), as_json=as_json, code=NOTHING_TO_DO)
    say(f"{run_id}: asked to stop")
    started = said_at = time.monotonic()
    while True:
        record = load_run(root, run_id)
        if effective_status(record) not in _GOING_ON and _is_gone(record):
            break
        seconds = time.monotonic() - started
        if seconds > _LIMIT_SECONDS:
            raise StepError(
                f"{run_id} still runs after {seconds:.0f} s: its process {record['pid']} is on "
                f"{record['host']}, and cannot be killed from here. Kill it there."
            )
        if seconds > (_FROZEN_SECONDS if _is_frozen(record) else _PATIENCE_SECONDS):
            _kill(record)
        if time.monotonic() - said_at > _SAY_SECONDS:
            said_at = time.monotonic()
            say(f"{run_id}: stopping, {seconds:.0f} s ({_doing(record)})")
        time.sleep(_LOOK_SECONDS)
    return _conclude(record, as_json=as_json, code=0)


def _conclude(record: Record, *, as_json: bool, code: int) -> int:
    status = effective_status(record)
    if status == "cancelled":
        close_record(record, "cancelled", error="the run was killed before it could stop by itself")
    if as_json:
        print_json("cancel", {"run_id": record["run_id"], "status": status})
    else:
        say(f"{record['run_id']}: {status}" + (" already" if code else ""))
    return code


def _newest_running(root: str) -> Record:
    for record in list_runs(root, limit=_NUM_LOOKED_AT):
        if effective_status(record) in _GOING_ON:
            return record
    raise StepError(f"no run below {root} is running. See: mm runs")


def _is_gone(record: Record) -> bool:
    """Return whether the process has ended too, where that can be seen from here."""
    if record.get("flow_run_id"):
        return True  # the process is that of the flow, which has a few words left for Prefect
    process = process_of(record)
    return process is None or not process.is_here or not process.is_alive


def _is_frozen(record: Record) -> bool:
    process = process_of(record)
    return process is not None and process.is_here and process.is_stopped


def _kill(record: Record) -> None:
    process = process_of(record)
    if process is not None and process.is_here and process.is_alive:
        say(f"{record['run_id']}: killing process {process.pid} and all below it")
        kill_below(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _doing(record: Record) -> str:
    events = read_events(record["url"])
    return f"in step {events[-1]['step']}" if events and events[-1]["step"] else "not begun"
