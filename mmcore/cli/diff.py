"""`mm diff`: what distinguishes two dataset versions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.core.diff import diff as compare
from mmcore.core.lineage import find_dataset
from mmcore.recipe.execute import absolute_root

app = new_app()
SPLITS = ("train", "val", "test")
_MAX_VALUES = 20


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="NAME/VERSION, or its first digits")],
    after: Annotated[
        str, typer.Argument(metavar="B", help="NAME/VERSION; NAME alone is the newest")
    ],
    limit: Annotated[int, typer.Option(min=0, help="How many keys to name of each kind")] = 5,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Say which samples version B has gained, lost, changed or moved to another split since A, and
    how each score, label and language has drifted. Reads tables and no media.
    """
    root = absolute_root(root)
    found = compare(find_dataset(root, before), find_dataset(root, after))
    if as_json:
        print_json("diff", found)
        return 0
    print("\n".join(_lines(found, limit)))
    same = not any(found[kind] for kind in ("added", "removed", "changed", "moved"))
    say("the same samples" if same else f"from {found['before']} to {found['after']}")
    return 0


def _lines(found: Mapping[str, Any], limit: int) -> Iterator[str]:
    by_split = found["by_split"]
    splits = [name for name in SPLITS if any(name in counted for counted in by_split.values())]
    yield "".join(["samples   ", *(f"{name:>9}" for name in [*splits, "all"])])
    for kind, counted in by_split.items():
        numbers = [counted.get(split, 0) for split in splits]
        yield "".join([f"{kind:<10}", *(f"{number:>9}" for number in [*numbers, sum(numbers)])])
    yield f"{'moved':<10}" + " " * 9 * len(splits) + f"{len(found['moved']):>9}"
    for kind in ("added", "removed", "changed"):
        if found[kind] and limit:
            yield f"  {kind}: {_some(found[kind], limit)}"
    if found["moved"] and limit:
        told = [f"{key} ({one['from']} to {one['to']})" for key, one in found["moved"].items()]
        yield f"  moved: {_some(told, limit)}"
    yield from _score_lines(found["scores"])
    for field, values in found["counts"].items():
        yield from _count_lines(field, values)


def _score_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    if not scores:
        return
    yield ""
    rows = [["score", "mean", "median", "5 to 95 %", "KS", "p"]]
    for name, one in sorted(scores.items(), key=lambda item: (-(item[1]["ks"] or 0), item[0])):
        old, new = one["before"], one["after"]
        ks = "-" if one["ks"] is None else f"{one['ks']:.3f}"
        p_value = "-" if one["p_value"] is None else f"{one['p_value']:.2g}"
        spread = f"{_range(old)} -> {_range(new)}"
        rows.append(
            [name, _change(old, new, "mean"), _change(old, new, "p50"), spread, ks, p_value]
        )
    yield from _aligned(rows)


def _count_lines(field: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    rows = [[field, "before", "after", "change"]]
    ranked = sorted(values.items(), key=lambda item: (-_step(item[1]), item[0]))
    for value, one in ranked[:_MAX_VALUES]:
        rows.append(
            [value[:40], f"{one['before']}", f"{one['after']}", f"{one['after'] - one['before']:+}"]
        )
    yield from _aligned(rows)
    if len(values) > _MAX_VALUES:
        yield f"and {len(values) - _MAX_VALUES} more, which changed less"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *figures in rows:
        told = (f"{figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=True))
        yield "  ".join([f"{name:<{widths[0]}}", *told])


def _step(one: Mapping[str, int]) -> int:
    return abs(one["after"] - one["before"])


def _some(keys: list[str], limit: int) -> str:
    more = f", and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


def _change(old: Mapping[str, Any], new: Mapping[str, Any], name: str) -> str:
    return f"{_number(old.get(name))} -> {_number(new.get(name))}"


def _range(one: Mapping[str, Any]) -> str:
    return f"{_number(one.get('p05'))}..{_number(one.get('p95'))}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
