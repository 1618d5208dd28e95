"""Reads a YAML file into a checked value, remembering where every value came from.

`extends:` names files to start from, `${env:NAME}` and `${env:NAME:-default}` read the environment,
`--set a.b=c` has the last word. All errors are said at once, each with file, line and path, and
with a suggestion where a name is almost right.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from mmcore.errors import ConfigError

SchemaT = TypeVar("SchemaT", bound=BaseModel)
Path_ = tuple[str | int, ...]
_ENVIRONMENT = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_MAX_EXTENDS = 16


@dataclass(frozen=True)
class Origin:
    """Where a value was written."""

    source: str
    """A file, `--set`, or `default`."""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a configuration."""

    path: Path_
    message: str
    allowed: Sequence[str] = ()
    """The names that would have been right here, where a name is wrong."""


@dataclass(frozen=True)
class Loaded(Generic[SchemaT]):
    """A checked configuration."""

    value: SchemaT
    origins: Mapping[Path_, Origin]
    file: str
    problems: Sequence[Problem] = ()
    """What is wrong; `value` is then what is left: good for finding more, not for use."""

    def error(self, problems: Sequence[Problem]) -> ConfigError:
        """Return an error that says every problem with its place."""
        return _error(problems, self.origins, self.file)


def load_config(
    file: str, schema: type[SchemaT], *, overrides: Sequence[str] = ()
) -> Loaded[SchemaT]:
    """Read, merge and check a YAML file.

    Problems that leave something to look at further are in the result, so that the caller can say
    them together with its own; the others raise ConfigError at once.
    """
    raw, origins = _read(file, seen=())
    for override in overrides:
        _override(raw, origins, override)
    unset: list[Problem] = []
    raw = _expand(raw, (), unset)
    if unset:
        raise _error(unset, origins, file)
    try:
        return Loaded(schema.model_validate(raw), origins, file)
    except ValidationError as error:
        problems = list(problems_of(error, schema))
    try:
        value = schema.model_validate(_without(raw, [problem.path for problem in problems]))
    except ValidationError:
        raise _error(problems, origins, file) from None
    return Loaded(value, origins, file, problems)


def _without(raw: Any, paths: Sequence[Path_]) -> Any:
    """Return a copy without the values at some paths."""
    if isinstance(raw, dict):
        below = {key: [path[1:] for path in paths if path[:1] == (key,)] for key in raw}
        return {
            key: _without(value, below[key]) for key, value in raw.items() if () not in below[key]
        }
    return raw


def problems_of(error: ValidationError, schema: Any, prefix: Path_ = ()) -> Iterator[Problem]:
    """Turn what pydantic found into problems, with the names that would have been right."""
    for found in error.errors(include_url=False, include_context=False):
        path = tuple(found["loc"])
        if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            allowed = tuple(_field_names(schema, path[:-1]))
            yield Problem((*prefix, *path), "unknown key", allowed)
        elif found["type"] == "missing":
            yield Problem((*prefix, *path), "this key is required and is not there")
        else:
            message = found["msg"].removeprefix("Value error, ")
            got = found["input"]
            shown = "" if isinstance(got, dict | list) else f" (got {got!r})"
            yield Problem((*prefix, *path), f"{message}{shown}")


def suggest(name: str, allowed: Sequence[str]) -> str:
    """Return ' Did you mean x?', or the list of what is allowed, or nothing."""
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Allowed: {', '.join(sorted(allowed))}." if allowed else ""


def _read(file: str, *, seen: tuple[str, ...]) -> tuple[dict[str, Any], dict[Path_, Origin]]:
    """Return a file's values over those of the files that it extends."""
    if file in seen or len(seen) > _MAX_EXTENDS:
        raise ConfigError(
            f"{file}: extends itself, by way of {' -> '.join(seen)}. Break the circle."
        )
    own = _parse(file)
    own_origins = dict(_origins(own, file))
    merged: dict[str, Any] = {}
    origins: dict[Path_, Origin] = {}
    for parent in _parents(own.pop("extends", []), own_origins):
        below, below_origins = _read(str(Path(file).parent / parent), seen=(*seen, file))
        _merge(merged, below, origins, below_origins)
    _merge(merged, _plain(own), origins, own_origins)
    return merged, origins


def _parents(extends: Any, origins: Mapping[Path_, Origin]) -> list[str]:
    """Return the files that a file extends, the first one lowest."""
    files = [extends] if isinstance(extends, str) else extends
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise ConfigError(
            f"{origins['extends',]}: extends: expected a file or a list of files, found "
            f"{_plain(extends)!r}."
        )
    return files


def _parse(file: str) -> Any:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        near = sorted(str(path) for path in Path(file).parent.glob("*.yaml"))
        raise ConfigError(f"{file}: no such file.{suggest(file, near)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    try:
        value = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise ConfigError(f"{where}: not YAML: {error.problem or error.context}") from None
    if not isinstance(value, dict):
        found = "nothing" if value is None else "a list" if isinstance(value, list) else repr(value)
        raise ConfigError(f"{file}: expected `key: value` lines at the top, found {found}.")
    return value


def _origins(value: Any, file: str, path: Path_ = ()) -> Iterator[tuple[Path_, Origin]]:
    lc: Any
    if isinstance(value, dict):
        lc = value.lc  # type: ignore[attr-defined]
        for key, inner in value.items():
            # a key that `<<` brings in stands at the place of its group
            line, column = lc.key(key) if key in (lc.data or {}) else (lc.line, lc.col)
            yield (*path, str(key)), Origin(file, line + 1, column + 1)
            yield from _origins(inner, file, (*path, str(key)))
    elif isinstance(value, list):
        lc = value.lc  # type: ignore[attr-defined]
        for i, inner in enumerate(value):
            line, column = lc.item(i) or (lc.line, lc.col)
            yield (*path, i), Origin(file, line + 1, column + 1)
            yield from _origins(inner, file, (*path, i))


def _plain(value: Any) -> Any:
    """Return ruamel's annotated containers and scalars as plain ones."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    return value


def _merge(
    into: dict[str, Any],
    more: Mapping[str, Any],
    origins: dict[Path_, Origin],
    more_origins: Mapping[Path_, Origin],
    path: Path_ = (),
) -> None:
    """Merge mappings key by key; anything else replaces what was there, and where it was from."""
    for key, value in more.items():
        at = (*path, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            origins |= {at: more_origins[at]}
            _merge(into[key], value, origins, more_origins, at)
        else:
            into[key] = value
            _forget(origins, at)
            origins |= {one: said for one, said in more_origins.items() if one[: len(at)] == at}


def _forget(origins: dict[Path_, Origin], path: Path_) -> None:
    """Drop what is known of a value that is about to be replaced."""
    for one in [one for one in origins if one[: len(path)] == path]:
        del origins[one]


def _override(raw: dict[str, Any], origins: dict[Path_, Origin], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {override!r}: expected a.b=value, for example train.epochs=3.")
    try:
        value = _plain(YAML(typ="rt", pure=True).load(StringIO(text)))
    except MarkedYAMLError as error:
        message = error.problem or error.context
        raise ConfigError(f"--set {override!r}: {text!r} is not YAML: {message}.") from None
    at: Any = raw
    path: Path_ = ()
    *parents, last = name.strip().split(".")
    for parent in parents:
        slot = _slot(at, parent, override)
        path = (*path, slot)
        if isinstance(at, dict) and at.get(parent) is None:
            at[parent] = {}  # `min_side:` alone is a group without fields
        at = at[slot]
        if not isinstance(at, dict | list):
            raise ConfigError(
                f"--set {override!r}: {'.'.join(map(str, path))} is {at!r}, not a group."
            )
    slot = _slot(at, last, override)
    at[slot] = value
    _forget(origins, (*path, slot))
    origins |= {(*path, slot, *below): Origin("--set") for below in _paths(value)}


def _slot(at: dict[str, Any] | list[Any], part: str, override: str) -> str | int:
    """Return the key of a group, or the index into a list, that a piece of a path means."""
    if isinstance(at, dict):
        return part
    if not part.isdecimal() or int(part) >= len(at):
        raise ConfigError(f"--set {override!r}: {part!r} is no index into a list of {len(at)}.")
    return int(part)


def _paths(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of a value and of everything in it."""
    yield path
    if isinstance(value, dict | list):
        for slot, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inner, (*path, slot))


def _expand(value: Any, path: Path_, unset: list[Problem]) -> Any:
    """Replace ${env:NAME} in every string; what has no value is added to `unset`."""
    if isinstance(value, dict):
        return {key: _expand(inner, (*path, key), unset) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, (*path, i), unset) for i, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        default: str | None = match[2]
        found = os.environ.get(name, default)
        if found is None:
            remedy = f"set it, or write ${{env:{name}:-default}}"
            message = f"the environment variable {name} is not set; {remedy}"
            unset.append(Problem(path, message))
            return match[0]
        return found

    return _ENVIRONMENT.sub(replaced, value)


def _error(problems: Sequence[Problem], origins: Mapping[Path_, Origin], file: str) -> ConfigError:
    lines = []
    for problem in problems:
        where = _nearest(problem.path, origins) or Origin(file)
        dotted = ".".join(str(part) for part in problem.path)
        hint = suggest(str(problem.path[-1]), problem.allowed) if problem.path else ""
        lines.append(
            f"{where}: {dotted}: {problem.message}.{hint}"
            if dotted
            else f"{where}: {problem.message}"
        )
    return ConfigError("\n".join(lines))


def _nearest(path: Path_, origins: Mapping[Path_, Origin]) -> Origin | None:
    return next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), None)


def _field_names(schema: Any, path: Path_) -> list[str]:
    """Return the names allowed at a path below a pydantic model or dataclass."""
    for part in path:
        fields = _fields(schema)
        if part not in fields:
            return []
        schema = fields[part]
    return list(_fields(schema))


def _fields(schema: Any) -> dict[Any, Any]:
    """Return the fields of a model or dataclass with their types; of `X | None`, those of X."""
    for option in (schema, *getattr(schema, "__args__", ())):
        if hasattr(option, "model_fields"):
            return {name: field.annotation for name, field in option.model_fields.items()}
        if dataclasses.is_dataclass(option):
            return {field.name: field.type for field in dataclasses.fields(option)}
    return {}
