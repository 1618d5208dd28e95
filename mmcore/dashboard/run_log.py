"""The end of a run's log, and what was added to it since."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore import storage
from mmcore.dashboard.templating import parse_time

TAIL_BYTES = 64 * 1024
_OWN_FIELDS = frozenset({"at", "level", "logger", "message", "traceback"})
_LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})
_MAX_CHARACTERS = 4000


@dataclass(frozen=True)
class LogLine:
    """One line, as it is shown."""

    at: str
    clock: str
    """The time of day, UTC."""
    level: str
    logger: str
    message: str
    fields: Sequence[tuple[str, str]]
    traceback: str


@dataclass(frozen=True)
class LogPart:
    """Lines, and where the next ones begin."""

    lines: Sequence[LogLine]
    end: int
    was_cut: bool
    """Whether there are older lines."""


def read_tail(run_url: str) -> LogPart:
    """Return the last 64 KB of a run's log, in whole lines."""
    url = storage.join(run_url, "log.jsonl")
    # an object store is asked for all of it: it does not say how long it is any cheaper
    num_bytes = os.path.getsize(url) if storage.is_local(url) and os.path.exists(url) else 0
    start = max(0, num_bytes - TAIL_BYTES)
    data = storage.read_if_exists(url, offset=start) or b""
    skipped = data.find(b"\n") + 1 if start else 0
    lines, used = _lines(data[skipped:])
    return LogPart(lines, start + skipped + used, start > 0)


def read_on(run_url: str, offset: int) -> LogPart:
    """Return the whole lines that were added after `offset`; of many, at most 64 KB at a time."""
    url = storage.join(run_url, "log.jsonl")
    data = storage.read_if_exists(url, offset=offset, num_bytes=TAIL_BYTES) or b""
    lines, used = _lines(data)
    return LogPart(lines, offset + used, False)


def _lines(data: bytes) -> tuple[Sequence[LogLine], int]:
    end = data.rfind(b"\n") + 1
    return [_line(line) for line in data[:end].splitlines() if line.strip()], end


def _line(data: bytes) -> LogLine:
    try:
        value: Any = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, Mapping):
        value = {"message": data.decode("utf-8", "replace")}
    level = str(value.get("level", "info")).lower()
    at = str(value.get("at") or "")
    moment = parse_time(at)
    return LogLine(
        at=at,
        clock=f"{moment:%H:%M:%S}" if moment else "",
        level=level if level in _LEVELS else "info",
        logger=str(value.get("logger") or ""),
        message=str(value.get("message") or "")[:_MAX_CHARACTERS],
        fields=[
            (str(name), _short(field))
            for name, field in sorted(value.items(), key=lambda item: item[0] != "step")
            if name not in _OWN_FIELDS and field is not None
        ],
        traceback=str(value.get("traceback") or "")[-_MAX_CHARACTERS:],
    )


def _short(field: Any) -> str:
    text = field if isinstance(field, str) else json.dumps(field)
    return text if len(text) <= 300 else f"{text[:300]}..."
