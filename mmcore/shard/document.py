"""The `json` part: what is known of a sample, the same fields of the same types in each.

Readers infer a table's columns from the first few samples, so nothing may be null, empty or of
another type later: what a sample lacks is "" or -1, and lists and objects are JSON text.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mmcore.core.step import canonical_json
from mmcore.errors import StepError
from mmcore.media.near.prints import without_prints
from mmcore.sample import Json, Sample

EXTENSION = "json"
SCORES = "scores"


@dataclass(frozen=True, slots=True)
class Schema:
    """The fields of the `json` part of a dataset."""

    fields: Mapping[str, str]
    """`str`, `int`, `float` or `bool` by metadata field."""
    scores: tuple[str, ...]


class SchemaTally:
    """What fields samples have, and of what types: a few words for each field."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = defaultdict(set)
        self._num_with: Counter[str] = Counter()
        self._scores: set[str] = set()
        self._num_samples = 0

    def add(self, sample: Sample) -> None:
        """Take note of a sample; of its prints not: they are of use to no reader of shards."""
        self._num_samples += 1
        self._scores.update(sample.scores)
        for name, value in without_prints(sample.meta).items():
            self._kinds[name].add(_kind(value))
            self._num_with[name] += 1

    def update(self, other: "SchemaTally") -> None:
        """Take note of what was noted elsewhere."""
        self._num_samples += other._num_samples
        self._scores |= other._scores
        self._num_with += other._num_with
        for name, kinds in other._kinds.items():
            self._kinds[name] |= kinds

    def schema(self) -> Schema:
        """Return the fields that cover every sample, each with the narrowest type for them."""
        if SCORES in self._kinds:
            raise StepError(
                f"a metadata field is called {SCORES!r}, which is where the shards keep what "
                "stages measured. Rename the field where the data comes in."
            )
        fields = {}
        for name in sorted(self._kinds):
            lacking = {"null"} if self._num_with[name] < self._num_samples else set()
            fields[name] = _narrowest(self._kinds[name] | lacking)
        return Schema(fields, tuple(sorted(self._scores)))


def schema_of(samples: Iterable[Sample]) -> Schema:
    """Return the fields that cover every sample, each with the narrowest type that holds them."""
    tally = SchemaTally()
    for sample in samples:
        tally.add(sample)
    return tally.schema()


def document(sample: Sample, schema: Schema) -> bytes:
    """Return the `json` part of a sample; equal samples give equal bytes."""
    value: dict[str, Json] = {
        name: _fitted(sample.meta.get(name), kind) for name, kind in schema.fields.items()
    }
    if schema.scores:
        # NaN and infinity are not JSON, and a score that could not be measured is lacking
        measured = {name: sample.scores.get(name, math.nan) for name in schema.scores}
        value[SCORES] = {
            name: float(score) if math.isfinite(score) else -1.0 for name, score in measured.items()
        }
    return canonical_json(value)


def misfit(sample: Sample, schema: Schema) -> str | None:
    """Return why a sample's metadata does not fit a schema that was made without it, or None."""
    for name, kind in schema.fields.items():
        value = sample.meta.get(name)
        fits = {"str": True, "bool": isinstance(value, bool), "float": _kind(value) != "str"}
        if not fits.get(kind, _kind(value) in ("null", "bool", "int")):
            return f"metadata field {name!r} is {value!r} and not a value of type {kind}"
    return None


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        # Arrow has no wider integer
        return "int" if -(2**63) <= value < 2**63 else "str"
    return "float" if isinstance(value, float) else "str"


def _narrowest(found: set[str]) -> str:
    known = found - {"null"}
    if not known or "str" in known:
        return "str"
    if known == {"bool"}:
        # a bool has no third value to say "lacking"
        return "int" if "null" in found else "bool"
    return "float" if "float" in known else "int"


def _fitted(value: Json, kind: str) -> Json:
    if kind == "str":
        if value is None:
            return ""
        return value if isinstance(value, str) else canonical_json(value).decode()
    if kind == "bool":
        return value
    assert value is None or isinstance(value, bool | int | float), "the schema covers it"
    lacking = -1 if value is None else value
    return int(lacking) if kind == "int" else float(lacking)
