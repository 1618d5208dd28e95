"""One log per service, of bounded size, in one place."""

import os
import shutil

from mmcore.operate.connection import services_directory

MAX_BYTES = 10 * 2**20
"""Of a log; the one before it is kept beside it as `<name>.log.1`."""
_TAIL_BYTES = 8192


def log_path(root: str, name: str) -> str:
    """Return where a service logs."""
    return os.path.join(services_directory(root), "logs", f"{name}.log")


def open_log(root: str, name: str) -> int:
    """Open a log to append to, readable by its owner alone; return its descriptor."""
    path = log_path(root, name)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def rotate(path: str, *, max_bytes: int = MAX_BYTES) -> None:
    """Empty a log that has grown too large, after a copy; who writes to it goes on.

    What is written between the copy and the emptying is lost.
    """
    try:
        if os.path.getsize(path) > max_bytes:
            shutil.copy(path, f"{path}.1")
            os.truncate(path, 0)
    except FileNotFoundError:
        return


def last_lines(path: str, *, count: int = 10) -> list[str]:
    """Return the last lines of a log; none when there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
