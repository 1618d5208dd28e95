import threading
from pathlib import Path
from typing import Any

import pytest

from mmcore.errors import ConfigError, StepError, StorageError
from mmcore.register.ledger import (
    CHAMPION,
    PROMOTED,
    REGISTERED,
    ChampionChanged,
    crown,
    history,
    predecessors,
    reconcile,
    roll_back,
)


class Killed(BaseException):
    """The process is gone at this point."""


class Registry:
    """A registry in memory with versions 1 to 5, which a test can have killed before a write."""

    def __init__(self) -> None:
        self.alias: dict[str, int] = {}
        self.versions = {1, 2, 3, 4, 5}
        self.dies = False

    def aliases(self, name: str) -> dict[str, int]:
        return dict(self.alias)

    def check_version(self, name: str, version: int) -> None:
        if version not in self.versions:
            raise StepError(f"{name} has no version {version}")

    def set_alias(self, name: str, alias: str, version: int) -> None:
        if self.dies:
            raise Killed
        self.check_version(name, version)
        self.alias[alias] = version


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def give(registry: Registry, root: str, version: int, **changes: Any) -> Any:
    plain = {"kind": REGISTERED, "why": f"version {version} is better", "by": "test"}
    return crown(registry, root, "stamps", version, **{**plain, **changes})


def reigns(root: str) -> list[tuple[int, int | None, str]]:
    return [(entry.version, entry.before, entry.kind) for entry in history(root, "stamps")]


def test_alias_and_ledger_say_the_same(registry: Registry, root: str) -> None:
    assert reconcile(registry, root, "stamps") is None
    give(registry, root, 1)
    give(registry, root, 2, kind=PROMOTED)
    assert registry.alias == {CHAMPION: 2}
    assert reigns(root) == [(1, None, "registered"), (2, 1, "promoted")]


def test_crowning_the_champion_again_writes_nothing(registry: Registry, root: str) -> None:
    first = give(registry, root, 1)
    assert give(registry, root, 1) == first
    assert len(history(root, "stamps")) == 1


@pytest.mark.parametrize("next_one", ["reconcile", "crown", "roll_back"])
def test_killed_between_entry_and_alias_is_repaired_by_whoever_comes_next(
    registry: Registry, root: str, next_one: str
) -> None:
    give(registry, root, 1)
    registry.dies = True
    with pytest.raises(Killed):
        give(registry, root, 2)
    registry.dies = False
    assert registry.alias == {CHAMPION: 1}
    assert reigns(root)[-1][0] == 2
    if next_one == "reconcile":
        assert reconcile(registry, root, "stamps") == 2
    elif next_one == "crown":
        give(registry, root, 2)
    else:
        roll_back(registry, root, "stamps", why="no good", by="test")
        assert reigns(root)[-1] == (1, 2, "rolled_back")
        give(registry, root, 2)
    assert registry.alias == {CHAMPION: 2}
    assert [version for version, _, kind in reigns(root) if kind == "registered"][:2] == [1, 2]


def test_killed_before_the_outcome_is_noted_is_no_move_by_hand(
    registry: Registry, root: str
) -> None:
    give(registry, root, 1)
    (Path(root) / "champions" / "stamps" / "00000001.outcome.json").unlink()
    assert reconcile(registry, root, "stamps") == 1
    assert reigns(root) == [(1, None, "registered")]


def test_alias_moved_by_hand_becomes_an_entry(registry: Registry, root: str) -> None:
    give(registry, root, 1)
    registry.alias[CHAMPION] = 3
    assert reconcile(registry, root, "stamps") == 3
    assert reigns(root)[-1] == (3, 1, "moved")
    assert reconcile(registry, root, "stamps") == 3
    assert len(history(root, "stamps")) == 2


def test_champion_of_before_there_was_a_ledger_is_taken_over(registry: Registry, root: str) -> None:
    registry.alias[CHAMPION] = 2
    give(registry, root, 3)
    assert reigns(root) == [(2, None, "moved"), (3, 2, "registered")]


def test_decision_against_a_champion_of_yesterday_is_refused(registry: Registry, root: str) -> None:
    give(registry, root, 1)
    give(registry, root, 2)
    with pytest.raises(ChampionChanged, match="version 2 now, not 1"):
        give(registry, root, 3, instead_of=1)
    with pytest.raises(ChampionChanged):
        give(registry, root, 3, instead_of=None)
    assert registry.alias == {CHAMPION: 2}
    assert give(registry, root, 3, instead_of=2).version == 3


def test_version_that_is_not_there_is_refused_before_anything_is_written(
    registry: Registry, root: str
) -> None:
    give(registry, root, 1)
    with pytest.raises(StepError, match="no version 9"):
        give(registry, root, 9)
    assert reigns(root) == [(1, None, "registered")]
    assert registry.alias == {CHAMPION: 1}


def test_reason_is_required(registry: Registry, root: str) -> None:
    with pytest.raises(ConfigError, match="reason"):
        give(registry, root, 1, why="  ")
    assert history(root, "stamps") == []


def test_rolling_back_goes_back_one_reign_at_a_time(registry: Registry, root: str) -> None:
    for version in (1, 2, 3):
        give(registry, root, version)
    assert roll_back(registry, root, "stamps", why="a", by="test").version == 2
    assert roll_back(registry, root, "stamps", why="b", by="test").version == 1
    with pytest.raises(StepError, match="no champion to go back to"):
        roll_back(registry, root, "stamps", why="c", by="test")
    give(registry, root, 4)
    assert roll_back(registry, root, "stamps", why="d", by="test").version == 1
    assert registry.alias == {CHAMPION: 1}


def test_old_version_that_is_promoted_again_can_be_rolled_back_all_the_way(
    registry: Registry, root: str
) -> None:
    for version in (1, 2, 1):
        give(registry, root, version)
    assert predecessors(history(root, "stamps")) == [2]
    assert roll_back(registry, root, "stamps", why="a", by="test").version == 2
    assert roll_back(registry, root, "stamps", why="b", by="test").version == 1


def test_rolling_back_passes_over_versions_that_were_deleted(registry: Registry, root: str) -> None:
    for version in (1, 2, 3):
        give(registry, root, version)
    registry.versions.remove(2)
    assert roll_back(registry, root, "stamps", why="a", by="test").version == 1


def test_version_deleted_before_its_alias_was_set_does_not_block_the_others(
    registry: Registry, root: str
) -> None:
    give(registry, root, 1)
    registry.dies = True
    with pytest.raises(Killed):
        give(registry, root, 2)
    registry.dies = False
    registry.versions.remove(2)
    assert reconcile(registry, root, "stamps") == 1
    assert give(registry, root, 3).before == 1
    assert registry.alias == {CHAMPION: 3}


def test_many_at_once_leave_one_champion_and_every_entry(registry: Registry, root: str) -> None:
    barrier = threading.Barrier(5)

    def one(version: int) -> None:
        barrier.wait()
        give(registry, root, version)

    threads = [threading.Thread(target=one, args=(version,)) for version in (1, 2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = history(root, "stamps")
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.before for entry in entries] == [None, *(entry.version for entry in entries[:-1])]
    assert registry.alias == {CHAMPION: entries[-1].version}


def test_damaged_entry_is_said_with_a_remedy(registry: Registry, root: str) -> None:
    give(registry, root, 1)
    (Path(root) / "champions" / "stamps" / "00000001.json").write_text("{half")
    with pytest.raises(StorageError, match="not an entry of the ledger"):
        history(root, "stamps")
