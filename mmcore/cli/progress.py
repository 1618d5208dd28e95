"""Progress of a run: bars on a terminal, plain lines elsewhere; both on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmcore.core.graph import Plan
from mmcore.core.runner import Event, Listener

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress_listener(plan: Plan) -> Iterator[Listener]:
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
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
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


class _Lines:
    """A line for each step, and one every few seconds within a step."""

    def __init__(
        self, write: Callable[[str], object] = lambda line: print(line, file=sys.stderr)
    ) -> None:
        self.write = write
        self.last = 0.0

    def hear(self, event: Event) -> None:
        facts: Any = event.facts
        if event.kind == "step_started":
            resumed = f", {facts['num_resumed']} done before" if facts["num_resumed"] else ""
            self.write(f"{event.step}: {facts['num_tasks']} tasks{resumed}")
        elif event.kind == "step_finished":
            said = describe_counts(facts["counts"])
            self.write(f"{event.step}: done in {facts['seconds']:.1f} s  {said}".rstrip())
        elif event.kind == "step_skipped":
            self.write(f"{event.step}: there already")
        elif time.monotonic() - self.last > _SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            said = facts.get("message", "")
            self.write(f"{event.step}: {facts['done']:g} of {facts['total']:g}  {said}".rstrip())


class _Bars:
    """A bar for each step."""

    def __init__(self, bars: Any) -> None:
        self.bars = bars
        self.of_step: dict[str, Any] = {}

    def hear(self, event: Event) -> None:
        facts: Any = event.facts
        if event.step not in self.of_step:
            self.of_step[event.step] = self.bars.add_task(event.step, total=None, said="")
        bar = self.of_step[event.step]
        if event.kind == "step_started":
            self.bars.update(bar, total=facts["num_tasks"], completed=facts["num_resumed"])
        elif event.kind in ("task_finished", "progress"):
            said = facts.get("message", "")
            self.bars.update(bar, total=facts["total"], completed=facts["done"], said=said)
        elif event.kind == "step_finished":
            said = describe_counts(facts["counts"])
            task = self.bars.tasks[bar]
            self.bars.update(bar, total=task.total or 1, completed=task.total or 1, said=said)
        else:
            self.bars.update(bar, total=1, completed=1, said="there already")
