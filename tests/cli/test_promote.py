"""`mm promote` and `mm rollback` on a real registry."""

from pathlib import Path

import pytest
from command import Mm
from mlflow_store import empty_database, root

from mmcore.register.ledger import history
from mmcore.telemetry.model_registry import ModelRegistry

__all__ = ["empty_database", "root"]  # fixtures

SIDE = [{"name": "x", "dtype": "float32", "shape": [-1, 2]}]


@pytest.fixture
def registry(root: str, tmp_path: Path) -> ModelRegistry:
    """Three versions of the model `stamps`, none of them champion."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.safetensors").write_bytes(b"weights")
    made = ModelRegistry(root)
    for number in range(1, 4):
        made.register(
            "stamps",
            run_key=f"{number:064d}",
            source_directory=str(files),
            tags={},
            description="",
            signature={"inputs": SIDE, "outputs": SIDE},
            metrics={},
        )
    return made


def test_promotion_moves_the_champion_and_keeps_the_reason(
    mm: Mm, root: str, registry: ModelRegistry
) -> None:
    assert mm("promote", "stamps/1", "--why", "the first", "--root", root).code == 0
    said = mm("promote", "stamps/3", "--why", "fewer errors on shells", "--root", root)
    assert (said.code, said.out) == (
        0,
        "stamps/3 is champion instead of version 1: fewer errors on shells\n",
    )
    assert registry.aliases("stamps")["champion"] == 3
    assert [entry.why for entry in history(root, "stamps")][-2:] == [
        "the first",
        "fewer errors on shells",
    ]


def test_promoting_the_champion_does_nothing_and_says_so(
    mm: Mm, root: str, registry: ModelRegistry
) -> None:
    mm("promote", "stamps/2", "--why", "the first", "--root", root)
    again = mm("promote", "stamps/2", "--why", "again", "--root", root)
    assert again.code == 4
    assert "stamps/2 is the champion already" in again.err
    assert len(history(root, "stamps")) == 1
    told = mm("promote", "stamps/2", "--why", "again", "--root", root, "--json")
    assert (told.code, told.json()["version"], told.json()["why"]) == (4, 2, "the first")


def test_rollback_gives_the_place_back_step_by_step(
    mm: Mm, root: str, registry: ModelRegistry
) -> None:
    for number in (1, 2, 3):
        mm("promote", f"stamps/{number}", "--why", "better", "--root", root)
    said = mm("rollback", "stamps", "--why", "users complain", "--root", root, "--json")
    assert said.json()["version"] == 2
    assert registry.aliases("stamps")["champion"] == 2
    mm("rollback", "stamps", "--why", "still", "--root", root)
    assert registry.aliases("stamps")["champion"] == 1
    refused = mm("rollback", "stamps", "--why", "once more", "--root", root)
    assert refused.code == 1
    assert registry.aliases("stamps")["champion"] == 1


@pytest.mark.parametrize(
    ("version", "code", "expected"),
    [
        ("stamps", 2, "mm promote stamps/3"),
        ("stamps/newest", 2, "mm promote stamps/3"),
        ("stamps/9", 1, "stamps has no version 9"),
    ],
)
def test_a_version_that_is_not_there_is_refused_with_what_to_write(
    mm: Mm, root: str, registry: ModelRegistry, version: str, code: int, expected: str
) -> None:
    said = mm("promote", version, "--why", "better", "--root", root)
    assert said.code == code
    assert expected in said.err
    assert registry.aliases("stamps") == {}


def test_a_champion_needs_a_reason(mm: Mm, root: str, registry: ModelRegistry) -> None:
    assert mm("promote", "stamps/1", "--root", root).code == 2
    assert registry.aliases("stamps") == {}
