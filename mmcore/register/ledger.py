"""Who was champion when: `champions/<model>/<seq>.json`, created, never changed.

The entry is what counts; the alias in MLflow follows it. Whoever crowns a version checks that its
files are there, creates the next entry, sets the alias, and notes the outcome beside the entry.
Killed in between, the next one who looks sets the alias and notes it: `reconcile`. An alias that
moves although every entry is settled was moved by hand, and becomes an entry that says so.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from mmcore import storage
from mmcore.errors import ConfigError, StepError, StorageError

CHAMPION = "champion"
REGISTERED: Final = "registered"
PROMOTED: Final = "promoted"
ROLLED_BACK: Final = "rolled_back"
MOVED: Final = "moved"
Kind = Literal["registered", "promoted", "rolled_back", "moved"]
_FORMAT = "mm.champion"
_OUTCOME = ".outcome.json"
_MAX_ATTEMPTS = 100
_MAX_WHY_CHARACTERS = 2000


class Registry(Protocol):
    """What is needed here of `mmcore.telemetry.model_registry.ModelRegistry`."""

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version that each alias points at."""

    def check_version(self, name: str, version: int) -> None:
        """Raise StepError unless the version and its files are there."""

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version."""


class ChampionChanged(StepError):
    """Another one was crowned since the decision was made."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A version that became champion."""

    seq: int
    """Counted from 1 per model."""
    model: str
    version: int
    before: int | None
    """The champion before; None when there was none."""
    kind: Kind
    """`registered` by the register step, `promoted` or `rolled_back` by a person, `moved`: the
    alias was found at this version, set by hand or before there was a ledger."""
    why: str
    by: str
    """Who did it: a person at a host, the dashboard, the register step."""
    at: str
    """ISO 8601 with the time zone, by the clock of who did it."""


def history(root: str, model: str) -> list[Entry]:
    """Return the entries of a model, the oldest first; empty when it never had a champion."""
    names = sorted(name for name in _names(root, model) if not name.endswith(_OUTCOME))
    return [_load(root, model, int(name.removesuffix(".json"))) for name in names]


def crown(
    registry: Registry,
    root: str,
    model: str,
    version: int,
    *,
    kind: Kind,
    why: str,
    by: str,
    instead_of: int | Literal["whoever"] | None = "whoever",
) -> Entry:
    """Make a version the champion, with a reason; return the entry that says so.

    A version that is champion already stays so, and nothing is written. ChampionChanged when
    another than `instead_of` has the place; StepError when the version or its files are missing.
    """
    why = why.strip()
    if not why:
        raise ConfigError("a reason is needed: it stays in the ledger. Say it with --why.")
    for _ in range(_MAX_ATTEMPTS):
        with _one_at_a_time(root, model):
            champion = reconcile(registry, root, model)
            entries = history(root, model)
            if champion == version:
                return entries[-1]
            if instead_of not in ("whoever", champion):
                raise ChampionChanged(
                    f"{model}: the champion is version {champion} now, not {instead_of}. "
                    "Look at it, and decide again."
                )
            registry.check_version(model, version)
            entry = Entry(
                seq=entries[-1].seq + 1 if entries else 1,
                model=model,
                version=version,
                before=champion,
                kind=kind,
                why=why[:_MAX_WHY_CHARACTERS],
                by=by,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            if _create(root, entry):
                reconcile(registry, root, model)
                return entry
    raise StorageError(f"{_directory(root, model)} changes all the time. Try again.")


def roll_back(registry: Registry, root: str, model: str, *, why: str, by: str) -> Entry:
    """Give the place back to the champion before, and to the one before that when done again.

    Versions that were deleted since are passed over; StepError when none is left.
    """
    champion = reconcile(registry, root, model)
    for version in predecessors(history(root, model)):
        try:
            registry.check_version(model, version)
        except StepError:
            continue
        return crown(
            registry, root, model, version, kind=ROLLED_BACK, why=why, by=by, instead_of=champion
        )
    raise StepError(
        f"{model} has no champion to go back to. Choose a version: mm promote {model}/VERSION "
        "--why REASON."
    )


def predecessors(entries: Sequence[Entry]) -> list[int]:
    """Return the versions that a roll back would try, the first one first."""
    reigns: list[int] = []
    for entry in entries:
        if entry.kind == ROLLED_BACK and entry.version in reigns[:-1]:
            while len(reigns) > 1:
                reigns.pop()
                if reigns[-1] == entry.version:
                    break
        elif not reigns or reigns[-1] != entry.version:
            reigns.append(entry.version)
    return [version for version in reversed(reigns[:-1]) if version != reigns[-1]]


def reconcile(registry: Registry, root: str, model: str) -> int | None:
    """Return the champion, after ledger and alias were brought to agree."""
    for _ in range(_MAX_ATTEMPTS):
        names = _names(root, model)
        newest = max((int(name[:8]) for name in names), default=0)
        alias = registry.aliases(model).get(CHAMPION)
        if newest == 0 and alias is None:
            return None
        if newest and f"{newest:08d}{_OUTCOME}" not in names:
            _settle(registry, root, _load(root, model, newest))
            continue
        entry = _load(root, model, newest) if newest else None
        if alias is None or (entry is not None and alias == entry.version):
            return alias
        if _adopt(root, model, newest + 1, alias, entry):
            return alias
    raise StorageError(f"{_directory(root, model)} changes all the time. Try again.")


def _settle(registry: Registry, root: str, entry: Entry) -> None:
    """Have the alias follow an entry whose maker may have been killed; note what came of it."""
    outcome: dict[str, object] = {"applied": True}
    try:
        registry.set_alias(entry.model, CHAMPION, entry.version)
        newest = max(int(name[:8]) for name in _names(root, entry.model))
        if newest > entry.seq:
            # in a bucket another one may have come between: the newest entry has the last word
            newer = _load(root, entry.model, newest)
            registry.set_alias(entry.model, CHAMPION, newer.version)
    except StepError as error:
        if registry.aliases(entry.model).get(CHAMPION) == entry.version:
            raise
        try:
            registry.check_version(entry.model, entry.version)
        except StepError:
            # deleted since: the alias stays where it is, and the ledger says so in its next entry
            outcome = {"applied": False, "error": str(error)}
        else:
            raise
    url = storage.join(_directory(root, entry.model), f"{entry.seq:08d}{_OUTCOME}")
    storage.create(url, json.dumps(outcome, sort_keys=True).encode())


def _adopt(root: str, model: str, seq: int, alias: int, newest: Entry | None) -> bool:
    """Record an alias that was moved without us."""
    why = (
        "the alias was there before the ledger was"
        if newest is None
        else "the alias was found here: it was not moved by mm"
    )
    entry = Entry(
        seq=seq,
        model=model,
        version=alias,
        before=newest.version if newest else None,
        kind=MOVED,
        why=why,
        by="unknown",
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return _create(root, entry)


def _create(root: str, entry: Entry) -> bool:
    value = {"format": _FORMAT, "format_version": 1, **asdict(entry)}
    url = storage.join(_directory(root, entry.model), f"{entry.seq:08d}.json")
    return storage.create(url, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def _load(root: str, model: str, seq: int) -> Entry:
    url = storage.join(_directory(root, model), f"{seq:08d}.json")
    try:
        value = json.loads(storage.read(url))
        if value.pop("format") != _FORMAT or value.pop("format_version") != 1:
            raise ValueError("another format or version")
        return Entry(**value)
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{url} is not an entry of the ledger: {error}. Move it away; the alias in the "
            "registry says who is champion."
        ) from error


def _names(root: str, model: str) -> set[str]:
    files = storage.list_files(_directory(root, model))
    return {file.path for file in files if file.path[:8].isdecimal() and file.path[8:9] == "."}


def _directory(root: str, model: str) -> str:
    return storage.join(root, "champions", model)


@contextmanager
def _one_at_a_time(root: str, model: str) -> Iterator[None]:
    """Let one process of this machine crown at a time.

    In a bucket there is no such lock: entries are created once in any case, and whoever looks next
    brings the alias to the newest.
    """
    if not storage.is_local(root):
        yield
        return
    os.makedirs(_directory(root, model), exist_ok=True)
    with open(os.path.join(_directory(root, model), "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
