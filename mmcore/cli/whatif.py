"""`mm whatif`: what other limits would keep and drop."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import (
    DEFAULT_ROOT,
    AsJson,
    Overrides,
    Recipe,
    Root,
    print_json,
    say,
)

app = new_app()


@app.command()
def whatif(
    recipe: Recipe,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    root: Root = DEFAULT_ROOT,
    examples: Annotated[
        int, typer.Option(min=0, max=20, help="Samples to show of each kind of change")
    ] = 5,
    as_json: AsJson = False,
) -> int:
    """Say what cleaning with other limits would keep and drop. Nothing is decoded or written.

    mm whatif RECIPE --set clean.image.min_side=128 asks the scores that the last run stored: clean,
    what the stage looks at (or its key in the recipe), its field. What no stored score can say is
    counted as unknown; with the measuring stages (measure_image, measure_text ...) in front of the
    limits nothing is. Duplicates and splits come later and are not asked.
    """
    from mmcore.recipe.execute import absolute_root
    from mmcore.recipe.whatif import ask

    answer = ask(recipe, overrides, root=absolute_root(root))
    summary = answer.summary
    moved = {"gained": summary.gained, "lost": summary.lost, "unknown": summary.unknown}
    if as_json:
        print_json(
            "whatif",
            {
                "recipe": answer.recipe,
                "about": answer.about,
                "changed": answer.changed,
                "elsewhere": list(answer.elsewhere),
                "num_samples": summary.num_samples,
                "before": summary.before,
                "after": summary.after,
                "num_gained": summary.num_gained,
                "num_lost": summary.num_lost,
                "num_unknown": summary.num_unknown,
                "unknown_because": summary.unknown_because,
                "examples": {
                    kind: [asdict(change) for change in changes[:examples]]
                    for kind, changes in moved.items()
                },
            },
        )
        return 0
    print(f"{answer.changed}, of {summary.num_samples} samples of {answer.about}\n")
    print("\n".join(_table(summary.before, summary.after)))
    for kind, num in (
        ("lost", summary.num_lost),
        ("gained", summary.num_gained),
        ("unknown", summary.num_unknown),
    ):
        for line in _moved(kind, num, moved[kind][:examples]):
            print(line)
    for because, num in summary.unknown_because.items():
        print(f"  {num}: {because}")
    if answer.elsewhere:
        say(f"also changed, and not asked: {', '.join(answer.elsewhere)}")
    say("nothing was decoded; mm run with the same --set makes it so, from the same scores")
    return 0


def _table(before: dict[str, int], after: dict[str, int]) -> Iterator[str]:
    """Yield a line for each fate: what is kept first, then the reasons by name."""
    names = sorted(before.keys() | after.keys(), key=lambda name: (name != "kept", name))
    width = max(map(len, names), default=0)
    yield f"{'':<{width}}  {'before':>8}  {'after':>8}"
    for name in names:
        old, new = before.get(name, 0), after.get(name, 0)
        change = f"  {new - old:+}" if new != old else ""
        yield f"{name:<{width}}  {old:>8}  {new:>8}{change}"


def _moved(kind: str, num: int, changes: Sequence[Any]) -> Iterator[str]:
    if not num:
        return
    yield f"\n{kind} {num}{', for example' if len(changes) < num else ''}"
    width = max((len(change.key) for change in changes), default=0)
    for change in changes:
        yield f"  {change.key:<{width}}  {_said(change.before)} -> {_said(change.after)}"


def _said(verdict: Any) -> str:
    reason = verdict.reason or verdict.status
    return f"{reason} ({verdict.detail})" if verdict.detail else reason
