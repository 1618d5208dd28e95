"""Where the checkpoints of a training lie, which of them exist, and which are kept.

`checkpoints/step-00000120.3/` holds what each rank wrote after 120 steps in the third attempt, and
`manifest.json`, which makes it a checkpoint: written last, create-only, with length and SHA-256 of
every file. Nothing is called latest: the newest that verifies is what training goes on from.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from mmcore import storage
from mmcore.core.lease import Fence
from mmcore.core.manifest import (
    MANIFEST_NAME,
    Counts,
    FileRecord,
    Manifest,
    commit_manifest,
    load_manifest,
)
from mmcore.errors import IntegrityError, LeaseLost
from mmcore.sample import Json
from mmcore.train.checkpoints.config import CheckpointConfig

DIRECTORY = "checkpoints"
CHUNK_BYTES = 8 << 20
"""What is read or written at once."""
_ATTEMPTS = "attempts"
_STEP = "checkpoint"
_NAME = re.compile(r"step-(\d{8,})\.(\d+)")


@dataclass(frozen=True, order=True)
class CheckpointId:
    """After how many steps a checkpoint was written, and by which attempt at the training."""

    step: int
    attempt: int

    @property
    def name(self) -> str:
        """Return the name of its directory."""
        return f"step-{self.step:08d}.{self.attempt}"

    @staticmethod
    def from_name(name: str) -> "CheckpointId | None":
        """Return what the name of a directory says; None when it is another's."""
        match = _NAME.fullmatch(name)
        return CheckpointId(int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True)
class Found:
    """A checkpoint that was committed; its bytes may have been damaged since."""

    id: CheckpointId
    url: str
    manifest: Manifest

    @property
    def facts(self) -> Mapping[str, Json]:
        """Return what it says besides tensors."""
        return self.manifest.facts

    @property
    def num_ranks(self) -> int:
        """Return how many ranks wrote it."""
        found = self.facts["num_ranks"]
        assert isinstance(found, int), "written by a store"
        return found


class CheckpointStore:
    """The checkpoints of one training, below the directory that its model is going to have.

    Without a fingerprint they can be read alone, whatever training they are of.
    """

    def __init__(
        self, output_url: str, *, fingerprint: str | None = None, fence: Fence | None = None
    ) -> None:
        self.url = storage.join(output_url, DIRECTORY)
        self._fingerprint = fingerprint
        self._fence = fence

    def url_of(self, checkpoint: CheckpointId) -> str:
        """Return where the files of a checkpoint lie."""
        return storage.join(self.url, checkpoint.name)

    def begin_attempt(self, facts: Mapping[str, Json]) -> int:
        """Return the number of a new attempt, which no other process gets."""
        newest = self.newest_attempt()
        data = json.dumps(dict(facts), sort_keys=True).encode()
        while True:
            newest += 1
            if storage.create(storage.join(self.url, _ATTEMPTS, f"{newest:08d}.json"), data):
                return newest

    def newest_attempt(self) -> int:
        """Return the number of the newest attempt, 0 when there was none."""
        files = storage.list_files(storage.join(self.url, _ATTEMPTS))
        numbers = [int(file.path.removesuffix(".json")) for file in files if _is_attempt(file.path)]
        return max(numbers, default=0)

    def check_place(self, attempt: int) -> None:
        """Raise LeaseLost when another attempt goes on in the place of this one."""
        if self._fence is not None:
            self._fence.check()
        newest = self.newest_attempt()
        if newest != attempt:
            raise LeaseLost(
                f"the training below {self.url} is at attempt {newest} and this rank belongs to "
                f"{attempt}: it was given up for dead. It stops and commits nothing."
            )

    def commit(
        self, checkpoint: CheckpointId, files: Sequence[FileRecord], facts: Mapping[str, Json]
    ) -> Found:
        """Make a checkpoint exist whose files all lie there, written and synced."""
        self.check_place(checkpoint.attempt)
        assert self._fingerprint is not None, "a store that writes knows its training"
        ordered = tuple(sorted(files, key=lambda file: file.path))
        manifest = Manifest(_STEP, self._fingerprint, {}, Counts(), ordered, facts)
        url = self.url_of(checkpoint)
        return Found(checkpoint, url, commit_manifest(url, manifest))

    def committed(self) -> tuple[list[Found], list[str]]:
        """Return the checkpoints that exist, the newest first, and what is wrong with others."""
        found, problems = [], []
        for checkpoint in self._directories():
            try:
                one = self.load(checkpoint)
            except IntegrityError as error:
                problems.append(f"{checkpoint.name}: {error}")
            else:
                found += [one] if one is not None else []
        return found, problems

    def load(self, checkpoint: CheckpointId) -> Found | None:
        """Return a checkpoint, None when it was never finished; IntegrityError of others."""
        url = self.url_of(checkpoint)
        manifest = load_manifest(url)
        if manifest is None:
            return None
        if manifest.step != _STEP or self._fingerprint not in (None, manifest.fingerprint):
            raise IntegrityError(f"{url} belongs to another training. Move it away.")
        return Found(checkpoint, url, manifest)

    def best(self, config: CheckpointConfig) -> list[Found]:
        """Return those with the lowest validation loss, as many as are to stay."""
        return _best(self.committed()[0], config)

    def prune(self, config: CheckpointConfig, *, attempt: int) -> None:
        """Delete what is not to be kept, and what attempts before this one left half-written."""
        self.check_place(attempt)
        found, _ = self.committed()
        reached = max((one.id.step for one in found if one.id.attempt == attempt), default=None)
        if reached is not None:
            # further than this attempt, and yet it did not start from them: they are damaged
            found = [one for one in found if one.id.attempt == attempt or one.id.step < reached]
        kept = {one.id for one in [*found[: config.keep_last], *_best(found, config)]}
        is_there = {one.id for one in found}
        for checkpoint in self._directories():
            is_being_written = checkpoint.attempt == attempt and checkpoint not in is_there
            if checkpoint not in kept and not is_being_written:
                self._delete(checkpoint)
        for file in storage.list_files(self.url):
            if storage.is_abandoned(file.path):
                storage.delete(storage.join(self.url, file.path))

    def _directories(self) -> list[CheckpointId]:
        found = map(CheckpointId.from_name, storage.list_directories(self.url))
        return sorted((one for one in found if one is not None), reverse=True)

    def _delete(self, checkpoint: CheckpointId) -> None:
        # the manifest first: what is half deleted must not look like a checkpoint
        url = self.url_of(checkpoint)
        storage.delete(storage.join(url, MANIFEST_NAME))
        _delete_below(url)


def problem_of(found: Found, record: FileRecord) -> str | None:
    """Return what is wrong with a file of a checkpoint, reading all of it; None when nothing is."""
    digest, num_bytes = sha256(), 0
    url = storage.join(found.url, record.path)
    if not storage.exists(url):
        return f"{found.id.name}/{record.path} is missing"
    with storage.open_read(url) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            num_bytes += len(chunk)
    if num_bytes != record.num_bytes:
        return (
            f"{found.id.name}/{record.path} has {num_bytes} bytes, its manifest says "
            f"{record.num_bytes}"
        )
    if digest.hexdigest() != record.sha256:
        return f"{found.id.name}/{record.path} holds other bytes than its manifest says"
    return None


def _best(found: Sequence[Found], config: CheckpointConfig) -> list[Found]:
    judged = [one for one in found if isinstance(one.facts.get("val_loss"), int | float)]
    return sorted(judged, key=_by_loss)[: config.keep_best]


def _by_loss(found: Found) -> tuple[float, CheckpointId]:
    loss = found.facts["val_loss"]
    assert isinstance(loss, int | float), "those without were left out"
    return float(loss), found.id


def _is_attempt(path: str) -> bool:
    return path.removesuffix(".json").isdigit()


def _delete_below(url: str) -> None:
    for file in storage.list_files(url):
        storage.delete(storage.join(url, file.path))
    storage.delete_directory_if_empty(url)
