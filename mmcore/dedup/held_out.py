"""Samples that must not be learned from: a list of keys and SHA-256, or a folder of files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmcore import storage
from mmcore.core.linkage import sha256_of
from mmcore.errors import ConfigError, StorageError
from mmcore.sample import Sample, sha256_hex

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class HeldOut:
    """Whether a sample is on the list; a column of those that are, without a value."""

    names: frozenset[str]
    """Keys, original keys, and SHA-256 in lower case."""
    width: int = 1
    lies_in_file: bool = False

    def of(self, sample: Sample) -> Sequence[bytes]:
        hashes = map(sha256_of, sample.parts.values())
        known = (sample.key, str(sample.meta.get("original_key")), *hashes)
        return [b"\1"] if any(name in self.names for name in known) else []

    @property
    def fingerprint(self) -> str:
        """What decides a result: who is on the list, and not where it lies."""
        return sha256_hex("\n".join(sorted(self.names)).encode())


def read_held_out(path: str) -> HeldOut:
    """Return the list at a path; ConfigError when it is not there or empty.

    A file has a key, an original key or a SHA-256 per line; empty lines and what follows `#` are
    for people. Of a folder, every file is held out by its content.
    """
    try:
        data = storage.read_if_exists(path) if storage.exists(path) else None
        if data is None:
            files = storage.list_files(path)
            names = {sha256_hex(storage.read(storage.join(path, file.path))) for file in files}
        else:
            lines = (
                line.split("#", 1)[0].strip() for line in data.decode("utf-8-sig").splitlines()
            )
            names = {line.lower() if _SHA256.fullmatch(line) else line for line in lines if line}
    except (StorageError, UnicodeDecodeError) as error:
        raise ConfigError(f"group_split.held_out: cannot read {path}: {error}") from error
    if not names:
        raise ConfigError(
            f"group_split.held_out: {path} is not there or names nothing. Give it a key or a "
            "SHA-256 per line, or a folder of files."
        )
    return HeldOut(frozenset(names))
