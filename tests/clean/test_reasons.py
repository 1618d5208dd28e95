"""Why samples are refused: every reason that cleaning gives can be looked up."""

import ast
from collections.abc import Iterator
from pathlib import Path

import mmcore.clean
import mmcore.media

REFUSALS = {"Dropped": 1, "Quarantined": 1, "SampleError": 0}
"""Where the reason stands among the arguments."""


def reasons(package: Path) -> Iterator[str]:
    for file in package.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = REFUSALS.get(node.func.id, len(node.args))
                if place < len(node.args) and isinstance(node.args[place], ast.Constant):
                    yield str(ast.literal_eval(node.args[place]))


def test_every_reason_is_in_the_documents() -> None:
    found = {
        reason
        for package in (mmcore.clean, mmcore.media)
        for reason in reasons(Path(str(package.__file__)).parent)
    }
    assert len(found) > 30
    page = (Path(__file__).parents[2] / "docs" / "cleaning.md").read_text()
    assert sorted(reason for reason in found if f"`{reason}`" not in page) == []
