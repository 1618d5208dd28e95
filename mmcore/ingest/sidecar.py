"""Metadata files that strangers wrote: parsed with limits, or refused as a broken sample."""

import json
from collections.abc import Sequence
from typing import Any

from mmcore.core.step import canonical_json
from mmcore.errors import SampleError
from mmcore.ingest.layout import ReadFile, SourceFile
from mmcore.sample import Json

MAX_SIDECAR_BYTES = 2**20
MAX_DEPTH = 32


def read_text(file: SourceFile, read_file: ReadFile) -> str:
    """Return a small UTF-8 file as text; SampleError `metadata_unreadable` when it is not one."""
    if file.num_bytes > MAX_SIDECAR_BYTES:
        raise _unreadable(file, f"{file.num_bytes} bytes > {MAX_SIDECAR_BYTES} bytes")
    try:
        return read_file(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(file, f"not UTF-8: byte {error.start}") from error


def read_metadata(file: SourceFile, read_file: ReadFile) -> dict[str, Json]:
    """Return the object of a JSON file; SampleError `metadata_unreadable` when it is not one.

    Refused are: anything but an object, duplicate names, NaN and infinity, half surrogates,
    nesting deeper than 32, more than 1 MiB.
    """
    text = read_text(file, read_file)
    try:
        return parse_object(text)
    except ValueError as error:
        raise _unreadable(file, str(error)) from error


def parse_object(text: str) -> dict[str, Json]:
    """Return the JSON object that a stranger wrote; ValueError for what `read_metadata` refuses."""
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite
        )
        if _depth(value) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        # what could not be written again must not get in: half surrogates
        canonical_json(value)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError(f"the top level is {type(value).__name__}, not an object")
    return value


def _unreadable(file: SourceFile, detail: str) -> SampleError:
    return SampleError("metadata_unreadable", f"{file.path}: {detail}")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = min(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!a} occurs twice in one object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is too large for a number")
    return value


def _depth(value: object) -> int:
    depth = 0
    level = [value]
    while level:
        containers = [item for item in level if isinstance(item, dict | list)]
        depth += bool(containers)
        level = [
            inner
            for item in containers
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth
