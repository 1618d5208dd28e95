"""Progress of a run: bars on a terminal, plain lines elsewhere; both on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmcore.core.runner import Event, Listener

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress_listener() -> Iterator[Listener]:
    """Yield a listener that shows what happens until the block ends."""
    if not sys.stderr.isatty():
        yield _Lines().hear
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars).hear


def describe_counts(counts: dict[str, Any]) -> str:
    """Return counts in words: `950 in, 703 kept, dropped: too_small 3`."""
    if not counts["found"]:
        return ""
    said = [f"{counts['found']} in", f"{counts['kept']} kept"]
    for what in ("dropped", "quarantined"):
        if counts[what]:
            reasons = ", ".join(f"{reason} {num}" for reason, num in counts[what].items())
            said.append(f"{what}: {reasons}")
    return "; ".join(said)


def describe_end(event: Event) -> str:
    """Return the line that a finished or skipped step leaves behind."""
    facts: Any = event.facts
    if event.kind == "step_skipped":
        return f"{event.step}: there already"
    said = describe_counts(facts["counts"])
    return f"{event.step}: done in {facts['seconds']:.1f} s  {said}".rstrip()


def describe_wait(event: Event) -> str:
    """Return for whom a run waits."""
    return (
        f"waiting for {event.facts['description']}; then this run does what is left. Stop that "
        f"one: mm cancel {event.facts['holder']}"
    )


class _Lines:
    """A line when a step begins and ends, and one every few seconds within it."""

    def __init__(self) -> None:
        self.last = 0.0

    def hear(self, event: Event) -> None:
        facts: Any = event.facts
        if event.kind == "waiting":
            self._write(describe_wait(event))
        elif event.kind in ("step_finished", "step_skipped"):
            self._write(describe_end(event))
        elif event.kind == "step_started":
            resumed = f", {facts['num_resumed']} done before" if facts["num_resumed"] else ""
            self._write(f"{event.step}: {facts['num_tasks']} tasks{resumed}")
        elif time.monotonic() - self.last > _SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            said = facts.get("message", "")
            self._write(f"{event.step}: {facts['done']:g} of {facts['total']:g}  {said}".rstrip())

    def _write(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _Bars:
    """A bar for the step that runs; a line above it for each that has ended."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars
        self.bar: Any = None

    def hear(self, event: Event) -> None:
        facts: Any = event.facts
        if event.kind == "waiting":
            self.bars.console.print(describe_wait(event), markup=False, highlight=False)
        elif event.kind == "step_started":
            total, done = facts["num_tasks"], facts["num_resumed"]
            self.bar = self.bars.add_task(event.step, total=total, completed=done, said="")
        elif event.kind in ("task_finished", "progress"):
            said = facts.get("message", "")
            self.bars.update(self.bar, total=facts["total"], completed=facts["done"], said=said)
        else:
            if self.bar is not None:
                self.bars.remove_task(self.bar)
                self.bar = None
            self.bars.console.print(describe_end(event), markup=False, highlight=False)
