"""What is complete in a folder or bucket prefix, and what is still being written.

A file is complete when its size and version have not changed for a while, its name is not that of a
temporary file, and no process of this machine has it open for writing. The last needs no waiting
for a writer that pauses; over a network file system, only the first two can be seen.
"""

import fnmatch
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmcore import storage
from mmcore.storage import FileInfo

TEMPORARY_NAMES = (
    "*.part",
    "*.partial",
    "*.tmp",
    "*.temp",
    "*.crdownload",
    "*.filepart",
    "*.swp",
    "*~",
    "~*",
    ".*",
)
"""As copying tools, browsers and editors name what is not ready; and hidden files and folders."""
_O_ACCMODE = 0o3


def is_temporary(path: str) -> bool:
    """Return whether a path, or a folder in it, is named like something that is not ready."""
    return any(
        fnmatch.fnmatchcase(part, pattern)
        for part in path.split("/")
        for pattern in TEMPORARY_NAMES
    )


@dataclass
class Settling:
    """Looks at listings of one place, and tells which files have settled.

    Time comes from the caller: of one clock that never goes back.
    """

    settle_seconds: float
    _since: dict[FileInfo, float] = field(default_factory=dict)
    """When each file was first seen as it is now."""

    def look(self, files: Iterable[FileInfo], *, now: float) -> list[FileInfo]:
        """Return the files that have settled."""
        present = [file for file in files if not is_temporary(file.path)]
        self._since = {file: self._since.get(file, now) for file in present}
        return [file for file, since in self._since.items() if now - since >= self.settle_seconds]


def open_for_writing(paths: Sequence[str]) -> set[str]:
    """Return which local files a process of this machine has open for writing.

    Processes of other users are only seen by root.
    """
    wanted = {}
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:
            continue
        wanted[stat.st_dev, stat.st_ino] = path
    found: set[str] = set()
    if not wanted:
        return found
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        try:
            handles = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # ended, or somebody else's
        for handle in handles:
            written = _written_through(pid, handle, wanted)
            if written is not None:
                found.add(written)
    return found


def being_written(url: str, files: Sequence[FileInfo]) -> set[FileInfo]:
    """Return which files of a place are open for writing; of a bucket, none can be."""
    if not storage.is_local(url):
        return set()
    by_path = {os.path.join(url, file.path): file for file in files}
    return {by_path[path] for path in open_for_writing(list(by_path))}


def _written_through(pid: str, handle: str, wanted: dict[tuple[int, int], str]) -> str | None:
    """Return the path that a handle of a process writes to, if it is one of those wanted."""
    try:
        stat = os.stat(f"/proc/{pid}/fd/{handle}")
        path = wanted.get((stat.st_dev, stat.st_ino))
        if path is None:
            return None
        info = Path(f"/proc/{pid}/fdinfo/{handle}").read_text()
    except OSError:
        return None
    flags = next(line.split()[1] for line in info.splitlines() if line.startswith("flags:"))
    return path if int(flags, 8) & _O_ACCMODE != os.O_RDONLY else None
