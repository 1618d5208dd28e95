"""Why samples are refused: every reason that a step gives can be looked up."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFUSALS = {"Dropped": 1, "Quarantined": 1, "SampleError": 0}
"""Where the reason stands among the arguments."""
PACKAGES = ("media", "core", "models", "ingest", "clean", "dedup", "encode", "shard")


def reasons(package: Path) -> Iterator[str]:
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = REFUSALS.get(node.func.id, len(node.args))
                if place < len(node.args) and isinstance(node.args[place], ast.Constant):
                    yield str(ast.literal_eval(node.args[place]))


def test_every_reason_is_in_the_documents() -> None:
    found = {reason for package in PACKAGES for reason in reasons(ROOT / "mmcore" / package)}
    assert len(found) > 60
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("cleaning.md", "recipes.md"))
    assert sorted(reason for reason in found if f"`{reason}`" not in pages) == []
