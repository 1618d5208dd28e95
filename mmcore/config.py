"""Reads a YAML file into a checked value, remembering where every value came from.

`extends:` names files to start from, `${env:NAME}` and `${env:NAME:-default}` read the environment,
`--set a.b=c` has the last word. All errors are said at once, each with file, line and path, and
with a suggestion where a name is almost right.
"""

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
    """What is wrong; `value` is then what is left without it, good for finding more, not for use."""

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
    raw = _expand(raw, (), origins, file)
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
        below = {key: [path[1:] for path in paths if path[0] == key] for key in raw}
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
    origins = dict(_origins(own, file))
    extends = own.pop("extends", [])
    merged: dict[str, Any] = {}
    merged_origins: dict[Path_, Origin] = {}
    for parent in [extends] if isinstance(extends, str) else extends:
        below, below_origins = _read(str(Path(file).parent / parent), seen=(*seen, file))
        _merge(merged, below)
        merged_origins |= below_origins
    _merge(merged, _plain(own))
    return merged, merged_origins | origins


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
        found = "nothing" if value is None else type(value).__name__
        raise ConfigError(f"{file}: expected `key: value` lines at the top, found {found}.")
    return value


def _origins(value: Any, file: str, path: Path_ = ()) -> Iterator[tuple[Path_, Origin]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            line, column = value.lc.key(key)  # type: ignore[attr-defined]
            yield (*path, key), Origin(file, line + 1, column + 1)
            yield from _origins(inner, file, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            line, column = value.lc.item(i)  # type: ignore[attr-defined]
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


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Merge mappings key by key; anything else replaces what was there."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _override(raw: dict[str, Any], origins: dict[Path_, Origin], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {override!r}: expected a.b=value, for example train.epochs=3.")
    *parents, last = name.strip().split(".")
    at: Any = raw
    for i, parent in enumerate(parents):
        at = at.setdefault(parent, {}) if isinstance(at, dict) else _item(at, parent, override)
        if not isinstance(at, dict | list):
            raise ConfigError(
                f"--set {override!r}: {'.'.join(parents[: i + 1])} is {at!r}, not a group."
            )
    value = _plain(YAML(typ="rt", pure=True).load(StringIO(text)))
    path: list[str | int] = [*parents, last]
    if isinstance(at, list):
        _item(at, last, override)
        at[int(last)] = value
    else:
        at[last] = value
    typed = tuple(int(part) if isinstance(part, str) and part.isdigit() else part for part in path)
    origins[typed] = Origin("--set")


def _item(at: list[Any], index: str, override: str) -> Any:
    if not index.isdigit() or int(index) >= len(at):
        raise ConfigError(f"--set {override!r}: {index!r} is no index into a list of {len(at)}.")
    return at[int(index)]


def _expand(value: Any, path: Path_, origins: Mapping[Path_, Origin], file: str) -> Any:
    """Replace ${env:NAME} in every string."""
    if isinstance(value, dict):
        return {key: _expand(inner, (*path, key), origins, file) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, (*path, i), origins, file) for i, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = os.environ.get(name, default)
        if found is None:
            problem = Problem(path, f"the environment variable {name} is not set; set it, or write "
                              f"${{env:{name}:-default}}")  # fmt: skip
            raise _error([problem], origins, file)
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
        if hasattr(option, "__dataclass_fields__"):
            return {name: field.type for name, field in option.__dataclass_fields__.items()}
    return {}
