"""What was left out on the way to a dataset version, gathered while rows of steps stream by."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmcore import storage
from mmcore.core.change import INGEST_STEP, read_gone
from mmcore.core.manifest import FileRecord
from mmcore.core.rows import Row, decode_row, rows_files
from mmcore.core.step import Artifact
from mmcore.core.tables import rows_where, table_of
from mmcore.errors import IntegrityError
from mmcore.evaluate.data.contents import score_values
from mmcore.evaluate.data.reservoir import Reservoir
from mmcore.evaluate.data.sketch import Sketch, union
from mmcore.sample import sha256_hex

Chain = Mapping[str, Artifact]
"""What made an increment, by step."""


@dataclass(frozen=True)
class Loss:
    """Samples that a rule of a step did not keep, for one reason."""

    step: str
    status: str
    """`dropped` or `quarantined`."""
    rule: str
    reason: str

    @property
    def group(self) -> str:
        """What examples of it go by, whichever rule decided."""
        return " ".join((self.step, self.status, self.reason))


@dataclass(frozen=True)
class Example:
    """A sample that was left out, and where its bytes are to be found."""

    loss: Loss
    row: Row
    increment: int
    """The number of the increment that saw it, from 0."""


@dataclass
class Losses:
    """What is counted of the samples that were left out."""

    counts: Counter[Loss] = field(default_factory=Counter)
    scores: dict[tuple[str, str], Sketch] = field(default_factory=dict)
    """By (score, rule): the values of samples that the rule left out."""

    def score_names(self) -> set[str]:
        """Return the scores that something left out has."""
        return {score for score, _ in self.scores}

    def sketches_of(self, score: str, rules: Collection[str]) -> tuple[Sketch, Sketch]:
        """Return the values of what was left out by some rules, and of what was by others."""
        given = [(rule, one) for (name, rule), one in self.scores.items() if name == score]
        return (
            union(one for rule, one in given if rule in rules),
            union(one for rule, one in given if rule not in rules),
        )


def read_losses(
    chains: Sequence[Chain],
    *,
    hidden: frozenset[str],
    examples: Reservoir[Example],
) -> Losses:
    """Count what was left out, and offer it as examples.

    What a later increment took in again or put an end to is counted, as the manifests do, and not
    shown; what is `hidden`, or lost to something hidden, is not shown either.
    """
    found = Losses()
    over = set(hidden)
    for number in reversed(range(len(chains))):
        for step, artifact in chains[number].items():
            for record in rows_files(artifact):
                lost = _lost_rows(artifact, record)
                if lost.num_rows:
                    _count(lost, step, found)
                    shown = _without(lost, over, hidden)
                    _sketch(shown, found)
                    _offer(shown, step, number, examples)
        over |= read_gone(chains[number][INGEST_STEP].url).keys()
    return found


def find_rows(chains: Sequence[Chain], step: str, keys: frozenset[str]) -> dict[str, Example]:
    """Return the samples of some keys as a step had them, kept or not, the newest increment's."""
    found: dict[str, Example] = {}
    for number in reversed(range(len(chains))):
        artifact = chains[number].get(step)
        if artifact is None or not keys - found.keys():
            continue
        for record in rows_files(artifact):
            data = _read(artifact, record)
            for values in rows_where(data, "key", sorted(keys - found.keys())):
                row = decode_row(values)
                loss = Loss(step, row.status, row.rule, row.reason)
                found.setdefault(row.sample.key, Example(loss, row, number))
    return found


def _lost_rows(artifact: Artifact, record: FileRecord) -> pa.Table:
    data = _read(artifact, record)
    lost = pc.not_equal(table_of(data, ["status"])["status"], "kept")
    if not pc.any(lost).as_py():
        return pa.table({})
    return table_of(data).filter(lost)


def _read(artifact: Artifact, record: FileRecord) -> bytes:
    url = storage.join(artifact.url, record.path)
    data = storage.read(url)
    if sha256_hex(data) != record.sha256:
        raise IntegrityError(
            f"{url} is not the file that was committed (SHA-256 differs). Delete the directory "
            f"{artifact.url} and run again: the step will be made anew."
        )
    return data


def _count(lost: pa.Table, step: str, found: Losses) -> None:
    columns = (lost[name].to_pylist() for name in ("status", "rule", "reason"))
    found.counts.update(Loss(step, *values) for values in zip(*columns, strict=True))


def _without(lost: pa.Table, over: set[str], hidden: frozenset[str]) -> pa.Table:
    left_out = pc.is_in(lost["key"], pa.array(sorted(over), pa.string()))
    of_hidden = pc.is_in(lost["twin"], pa.array(sorted(hidden), pa.string()))
    return lost.filter(pc.invert(pc.or_(left_out, of_hidden)))


def _sketch(lost: pa.Table, found: Losses) -> None:
    rules = _one_chunk(lost["rule"]).dictionary_encode()
    codes, names = np.array(rules.indices.to_pylist()), rules.dictionary.to_pylist()
    for score, values, rows in score_values(_one_chunk(lost["scores"])):
        for code in np.unique(codes[rows]).tolist():
            of_rule = values[codes[rows] == code]
            found.scores.setdefault((score, names[code]), Sketch()).add(of_rule)


def _offer(lost: pa.Table, step: str, number: int, examples: Reservoir[Example]) -> None:
    columns = (lost[name].to_pylist() for name in ("key", "status", "rule", "reason"))
    for place, (key, status, rule, reason) in enumerate(zip(*columns, strict=True)):
        loss = Loss(step, status, rule, reason)
        examples.offer(loss.group, key, partial(_example, lost, place, loss, number))


def _example(lost: pa.Table, place: int, loss: Loss, number: int) -> Example:
    return Example(loss, decode_row(lost.slice(place, 1).to_pylist()[0]), number)


def _one_chunk(column: pa.ChunkedArray) -> Any:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def levels(chains: Sequence[Chain]) -> Iterator[tuple[str, int, int]]:
    """Yield (step, found, kept) in the order of the steps, all increments added up."""
    totals: dict[str, list[int]] = {}
    for chain in chains:
        for step, artifact in chain.items():
            counts = artifact.manifest.counts
            total = totals.setdefault(step, [0, 0])
            total[0] += counts.found
            total[1] += counts.kept
    yield from ((step, found, kept) for step, (found, kept) in totals.items() if found)
