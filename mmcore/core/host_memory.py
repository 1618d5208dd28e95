"""How much memory this host can still give."""

from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_host_bytes(root: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the memory that this host, or this container, can still give."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit = _number(root / "memory.max")
    used = _number(root / "memory.current")
    if limit is not None and used is not None:
        return min(free, max(0, limit - used))
    return free


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
