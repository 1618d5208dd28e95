"""`mm status`: how the services are."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mmcore import storage
from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.operate import lifecycle
from mmcore.operate.lifecycle import ServiceStatus
from mmcore.operate.logs import last_lines

app = new_app()
_COLUMNS = ("service", "state", "address", "pid", "up", "restarts", "log")
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


@app.command()
def status(root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> int:
    """Show each service: its state, address, process, age, new starts and log.

    Of one that is not well, the reason and the end of its log are shown. Exit code 1: not all are
    well, or none runs.
    """
    found = lifecycle.status(root) if storage.is_local(root) else []
    is_well = bool(found) and all(one.is_well for one in found)
    if as_json:
        print_json("status", {"well": is_well, "services": to_json(found)})
    elif found:
        print("\n".join(table(found)))
        for one in found:
            if not one.is_well:
                _say_what_failed(one)
    if not found:
        say(f"no service runs for {root}. Start them with: mm up")
    return 0 if is_well else 1


def table(found: Sequence[ServiceStatus]) -> list[str]:
    """Return the lines of a table, one for each service."""
    rows = [_COLUMNS, *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def to_json(found: Sequence[ServiceStatus]) -> list[dict[str, Any]]:
    """Return what `--json` shows of services."""
    return [asdict(one) for one in found]


def _row(one: ServiceStatus) -> tuple[str, ...]:
    return (
        one.name,
        one.state,
        one.address,
        str(one.pid or ""),
        "" if one.uptime_seconds is None else _in_words(one.uptime_seconds),
        str(one.restarts),
        one.log,
    )


def _in_words(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _say_what_failed(one: ServiceStatus) -> None:
    say(f"\n{one.name} is {one.state}: {one.detail or 'it is on its way'}")
    for line in last_lines(one.log):
        say(f"    {line}")
