"""The record that makes an artifact exist: written last, once, naming every file."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from mmcore import storage
from mmcore.errors import AccountingError, IntegrityError
from mmcore.sample import Json, sha256_hex

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class FileRecord:
    """A file of an artifact."""

    path: str
    """Relative to the manifest."""
    num_bytes: int
    sha256: str
    num_samples: int | None = None
    """How many samples it holds, kept or not; None where it holds none by nature."""


@dataclass(frozen=True)
class Counts:
    """What became of the samples that went into a step or a task."""

    found: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    quarantined: Mapping[str, int] = field(default_factory=dict)
    """By reason."""

    def check(self, where: str) -> None:
        """Raise AccountingError unless found = kept + dropped + quarantined."""
        accounted = self.kept + sum(self.dropped.values()) + sum(self.quarantined.values())
        if self.found != accounted:
            raise AccountingError(
                f"{where}: {self.found} samples went in and {accounted} are accounted for "
                f"({self.kept} kept, {sum(self.dropped.values())} dropped, "
                f"{sum(self.quarantined.values())} quarantined). Nothing was committed. This is a "
                "fault of the step's code: run it again with --executor local to see where."
            )

    @staticmethod
    def total(parts: Iterable["Counts"]) -> "Counts":
        """Add counts up."""
        found = kept = 0
        dropped: dict[str, int] = {}
        quarantined: dict[str, int] = {}
        for part in parts:
            found += part.found
            kept += part.kept
            for into, more in ((dropped, part.dropped), (quarantined, part.quarantined)):
                for reason, num in more.items():
                    into[reason] = into.get(reason, 0) + num
        return Counts(found, kept, dict(sorted(dropped.items())), dict(sorted(quarantined.items())))


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, what it holds, and what was counted while it was made."""

    step: str
    fingerprint: str
    identity: Mapping[str, Json]
    """The parts of the fingerprint: step, work, inputs."""
    counts: Counts
    files: tuple[FileRecord, ...]
    facts: Mapping[str, Json] = field(default_factory=dict)
    """Results worth knowing without opening a file: sizes, metrics, versions. No clock."""

    def to_json(self) -> bytes:
        """Return the manifest as deterministic, readable JSON."""
        value = {"format": "mm.manifest", "format_version": FORMAT_VERSION, **asdict(self)}
        return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()

    @staticmethod
    def from_json(data: bytes, *, where: str) -> "Manifest":
        """Read a manifest, refusing anything that is not one."""
        try:
            value = json.loads(data)
            if (
                value.pop("format") != "mm.manifest"
                or value.pop("format_version") != FORMAT_VERSION
            ):
                raise ValueError("another format or version")
            value["counts"] = Counts(**value["counts"])
            value["files"] = tuple(FileRecord(**record) for record in value["files"])
            return Manifest(**value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"{where} is not a manifest of this version of mmcore: {error}. "
                "Move it away, and the step will be made again."
            ) from error


def manifest_url(artifact_url: str) -> str:
    """Return where the manifest of an artifact lies."""
    return storage.join(artifact_url, MANIFEST_NAME)


def load_manifest(artifact_url: str) -> Manifest | None:
    """Return the manifest of an artifact, or None: without one there is no artifact."""
    url = manifest_url(artifact_url)
    data = storage.read_if_exists(url)
    return None if data is None else _parsed(data, url)


@lru_cache(16)  # a plan looks at each several times; of a million samples that is most of its time
def _parsed(data: bytes, where: str) -> Manifest:
    return Manifest.from_json(data, where=where)


def commit_manifest(artifact_url: str, manifest: Manifest) -> Manifest:
    """Make the artifact exist, unless it does already; return the manifest that is in force.

    Create-only: of two runs at once one wins. The other must have made the same bytes.
    """
    url = manifest_url(artifact_url)
    if storage.create(url, manifest.to_json()):
        return manifest
    winner = load_manifest(artifact_url)
    assert winner is not None, f"{url} exists and cannot be read"
    if winner.files != manifest.files:
        raise IntegrityError(
            f"{url} was committed by another run with other bytes for the same inputs. "
            f"The step {manifest.step} is not deterministic; the first commit stays in force."
        )
    return winner


def verify_artifact(artifact_url: str, manifest: Manifest) -> list[str]:
    """Return what is wrong with an artifact's bytes, one line per file; empty when all is well."""
    problems = []
    for record in manifest.files:
        data = storage.read_if_exists(storage.join(artifact_url, record.path))
        if data is None:
            problems.append(f"{record.path}: missing")
        elif len(data) != record.num_bytes:
            problems.append(f"{record.path}: {len(data)} bytes, manifest says {record.num_bytes}")
        elif sha256_hex(data) != record.sha256:
            problems.append(f"{record.path}: SHA-256 differs from the manifest")
    return problems
