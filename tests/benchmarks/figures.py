"""Rows of figures beside their goals, as every benchmark prints and writes them."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Row:
    """One figure beside its goal."""

    name: str
    ours: float
    reference: float
    ratio: float
    goal: float
    better: str
    reached: bool


def row(name: str, ours: float, reference: float, *, goal: float, better: str, value: float) -> Row:
    """Return a row; `value` is what the goal is about."""
    reached = value <= goal if better == "lower" else value >= goal
    return Row(name, round(ours, 4), round(reference, 4), round(value, 3), goal, better, reached)


def publish(rows: Sequence[Row], name: str) -> None:
    """Print a table, and write build/benchmarks/NAME.json."""
    output = REPOSITORY / "build" / "benchmarks" / f"{name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([asdict(one) for one in rows], indent=1) + "\n")
    width = max(len(one.name) for one in rows)
    print(f"{'what':<{width}}  {'ours':>9} {'reference':>9} {'value':>8} {'goal':>6}")
    for one in rows:
        verdict = "reached" if one.reached else "MISSED"
        print(
            f"{one.name:<{width}}  {one.ours:>9} {one.reference:>9} {one.ratio:>8} {one.goal:>6}  {verdict}"
        )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; written to {output}")
