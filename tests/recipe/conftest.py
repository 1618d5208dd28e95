from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import write_recipe

Write = Callable[..., str]


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., str]:
    """Write a recipe with some of its text replaced; return its path."""

    def write(*changes: tuple[str, str], more: str = "") -> str:
        file = write_recipe(tmp_path / "tiny.yaml", tmp_path / "corpus", more=more)
        text = file.read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in the recipe"
            text = text.replace(old, new)
        file.write_text(text)
        return str(file)

    return write
