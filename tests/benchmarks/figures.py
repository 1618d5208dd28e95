"""Rows of figures beside their goals, as every benchmark prints and writes them."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).parents[2]
Against = Literal["bare", "peer"]


@dataclass(frozen=True)
class Row:
    """One figure beside its goal; without figures where it was not measured, and `note` says why."""

    name: str
    ours: float | None
    reference: float | None
    ratio: float | None
    goal: float | None
    better: str
    reached: bool | None
    against: Against = "bare"
    """Whether the reference is bare work, or somebody else's."""
    note: str = ""


def row(
    name: str,
    ours: float,
    reference: float,
    *,
    goal: float | None,
    better: str,
    value: float,
    against: Against = "bare",
    note: str = "",
) -> Row:
    """Return a row; `value` is what the goal is about, and no goal is for scale."""
    reached = None
    if goal is not None:
        reached = bool(value <= goal if better == "lower" else value >= goal)
    figures = _rounded(ours), _rounded(reference), _rounded(value)
    return Row(name, *figures, goal, better, reached, against, note)


def not_measured(name: str, why: str, *, goal: float | None = None, better: str = "higher") -> Row:
    """Return a row without figures."""
    return Row(name, None, None, None, goal, better, None, "bare", why)


def publish(rows: Sequence[Row], name: str) -> None:
    """Print a table, and write build/benchmarks/NAME.json."""
    output = REPOSITORY / "build" / "benchmarks" / f"{name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([asdict(one) for one in rows], indent=1) + "\n")
    width = max(len(one.name) for one in rows)
    print(f"{'what':<{width}}  {'ours':>9} {'bare':>9} {'peer':>9} {'ratio':>8} {'goal':>6}")
    for one in rows:
        bare, peer = (
            _shown(one.reference if one.against == kind else None) for kind in ("bare", "peer")
        )
        cells = [_shown(one.ours), bare, peer, f"{_shown(one.ratio):>8}", f"{_shown(one.goal):>6}"]
        print(
            f"{one.name:<{width}}  {' '.join(f'{cell:>9}' for cell in cells[:3])} {cells[3]} {cells[4]}"
            f"  {_verdict(one)}{'  ' if one.note else ''}{one.note}"
        )
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; written to {output}")


def _verdict(one: Row) -> str:
    if one.ratio is None:
        return "not measured"
    return {True: "reached", False: "MISSED", None: ""}[one.reached]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _rounded(value: float) -> float:
    """Return four digits that count, and of a large number every digit before the point."""
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))
