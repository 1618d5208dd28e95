"""Trainings: those that ended, from the index, and those that run or were left, from disk."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Row
from typing import Any

from mmcore import storage
from mmcore.core.lineage import STEPS
from mmcore.core.manifest import MANIFEST_NAME
from mmcore.core.runs import effective_status, list_runs, read_events
from mmcore.dashboard.index.catalogue import TRAIN_STEP
from mmcore.dashboard.index.live import SampleIndex

METRICS_NAME = "metrics.jsonl"
TIMING_NAME = "timing.jsonl"
MAX_POINTS = 1500
"""Of a curve; a longer one is thinned by averaging neighbours."""
_MAX_RUNS_LOOKED_AT = 20
_MAX_RANKS = 8
_PACE = ("samples_per_second", "tokens_per_second", "data_stall", "mfu")


@dataclass(frozen=True)
class Training:
    """One training: its weights, and where they come from."""

    name: str
    fingerprint: str
    """16 hex digits."""
    state: str
    """`done`, `running`, or `stopped`: begun, not ended, and nobody is at it."""
    dataset: str = ""
    """The fingerprint of the dataset version."""
    committed_at: float = 0.0
    facts: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    models: Sequence[str] = ()
    """`name/version` in the registry."""
    evaluation: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None
    """Of a running one: done, total, message."""
    run_id: str = ""

    @property
    def at(self) -> str:
        """Return `name/fingerprint`, as addresses have it."""
        return f"{self.name}/{self.fingerprint}"

    def figure(self, name: str) -> float | None:
        """Return a figure from the end of the training or the evaluation, or None."""
        for source in (self.facts, self.evaluation):
            value = (source or {}).get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        return None


def list_trainings(
    index: SampleIndex, *, limit: int = 50, before: tuple[float, int] | None = None
) -> list[tuple[int, Training]]:
    """Return trainings that ended, the newest first, each with its id for the next page."""
    rows = index.database.read().execute(
        "SELECT * FROM training WHERE (committed_at, id) < (?, ?) "
        "ORDER BY committed_at DESC, id DESC LIMIT ?",
        (*(before or (math.inf, 1 << 62)), limit),
    )
    return [(row["id"], _training(row)) for row in rows.fetchall()]


def trainings_of(index: SampleIndex, dataset: str) -> list[Training]:
    """Return the trainings on a dataset version, by its fingerprint, the newest first."""
    rows = index.database.read().execute(
        "SELECT * FROM training WHERE dataset=? ORDER BY committed_at DESC", (dataset,)
    )
    return [_training(row) for row in rows.fetchall()]


def trainings_that_saw(index: SampleIndex, segment: int) -> list[Training]:
    """Return the trainings on any dataset version that an increment is part of, newest first."""
    rows = index.database.read().execute(
        "SELECT training.* FROM dataset_segment"
        " JOIN dataset ON dataset.id = dataset_segment.dataset"
        " JOIN training ON training.dataset = dataset.fingerprint WHERE segment=?"
        " ORDER BY training.committed_at DESC",
        (segment,),
    )
    return [_training(row) for row in rows.fetchall()]


def find_training(index: SampleIndex, name: str, fingerprint: str) -> Training | None:
    """Return a training, ended or not; None when there is none."""
    row = (
        index.database.read()
        .execute("SELECT * FROM training WHERE name=? AND fingerprint=?", (name, fingerprint))
        .fetchone()
    )
    if row is not None:
        return _training(row)
    unended = unended_trainings(index.root)
    return next((one for one in unended if one.at == f"{name}/{fingerprint}"), None)


def unended_trainings(root: str) -> list[Training]:
    """Return the trainings that are begun and not committed, those that run first."""
    progress: Mapping[str, tuple[str, dict[str, Any]]] | None = None
    found = []
    for name in storage.list_directories(storage.join(root, STEPS)):
        directory = storage.join(root, STEPS, name, TRAIN_STEP)
        open_ones = [
            fingerprint
            for fingerprint in storage.list_directories(directory)
            if not storage.exists(storage.join(directory, fingerprint, MANIFEST_NAME))
        ]
        open_ones.sort(key=lambda one: _written_at(storage.join(directory, one)), reverse=True)
        if open_ones and progress is None:
            progress = _progress(root)
        run = progress.get(name) if progress else None
        for number, fingerprint in enumerate(open_ones):
            # a run trains one model at a time: the one that was written last
            is_running = run is not None and number == 0
            found.append(
                Training(
                    name,
                    fingerprint,
                    "running" if is_running else "stopped",
                    committed_at=_written_at(storage.join(directory, fingerprint)),
                    progress=run[1] if run and is_running else None,
                    run_id=run[0] if run and is_running else "",
                )
            )
    return sorted(found, key=lambda one: (one.state != "running", -one.committed_at))


def curves(root: str, training: Training) -> dict[str, Any]:
    """Return the columns of a training's curves: `steps`, `epochs`, and the clock's: `throughput`
    and, now and then, `memory`; and under `now` the newest figures.
    """
    url = storage.join(root, STEPS, training.name, TRAIN_STEP, training.fingerprint)
    steps: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    for line in _lines(storage.join(url, METRICS_NAME)):
        (steps if "loss" in line else epochs).append(line)
    timing = list(_lines(storage.join(url, TIMING_NAME)))
    return {
        "steps": _columns(steps),
        "epochs": _columns(epochs),
        "throughput": _throughput(steps, timing),
        "memory": _memory(timing),
        "now": _newest(steps, timing),
        "state": training.state,
    }


def _training(row: Row) -> Training:
    return Training(
        name=row["name"],
        fingerprint=row["fingerprint"],
        state="done",
        dataset=row["dataset"] or "",
        committed_at=row["committed_at"],
        facts=json.loads(row["facts"]),
        config=json.loads(row["config"]),
        models=json.loads(row["models"]),
        evaluation=json.loads(row["evaluation"]),
    )


def _progress(root: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return (run, progress) of the trainings that run now, by the name of their recipe."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for run in list_runs(root, limit=_MAX_RUNS_LOOKED_AT):
        if run.get("status") != "running" or effective_status(run) not in ("running", "cancelling"):
            continue
        events = [event for event in read_events(run["url"]) if event["step"] == TRAIN_STEP]
        if not events or events[-1]["kind"] in ("step_finished", "step_skipped"):
            continue
        last: dict[str, Any] = next(
            (event for event in reversed(events) if event["kind"] == "progress"), {}
        )
        found.setdefault(str(run["name"]), (str(run["run_id"]), last))
    return found


def _written_at(url: str) -> float:
    files = [file.path for file in storage.list_files(url)]
    if not files:
        return 0.0
    return max(storage.modified_at(storage.join(url, path)) for path in files)


def _lines(url: str) -> Iterator[dict[str, Any]]:
    data = storage.read_if_exists(url) or b""
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        yield json.loads(line)


def _columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return columns by name, thinned to MAX_POINTS; None where a line has no such figure."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    stride = max(1, -(-len(lines) // MAX_POINTS))
    columns: dict[str, list[float | None]] = {name: [] for name in names}
    for first in range(0, len(lines), stride):
        group = lines[first : first + stride]
        for name in names:
            values = [line[name] for line in group if line.get(name) is not None]
            if name in ("step", "epoch"):
                columns[name].append(values[-1] if values else None)
            else:
                columns[name].append(round(sum(values) / len(values), 6) if values else None)
    return columns


def _throughput(
    steps: Sequence[Mapping[str, Any]], timing: Sequence[Mapping[str, Any]]
) -> dict[str, list[float | None]]:
    """Return how fast a training was, a second or an epoch at a time, by the last step of each."""
    windows = [
        line for line in timing if "train_seconds" not in line and "samples_per_second" in line
    ]
    if windows:
        return _columns([{name: line.get(name) for name in ("step", *_PACE)} for line in windows])
    return _columns([_pace_of(line, of_epoch) for line, of_epoch in _epochs(steps, timing)])


def _pace_of(line: Mapping[str, Any], num_samples: float) -> dict[str, Any]:
    # older trainings have measured no more than how long an epoch took
    rate = line.get("samples_per_second", round(num_samples / line["train_seconds"], 2))
    measured = {name: line[name] for name in _PACE if name in line}
    return {"step": line["step"], "samples_per_second": rate, **measured}


def _epochs(
    steps: Sequence[Mapping[str, Any]], timing: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Yield the clock of each epoch and how many samples it had."""
    num_samples: dict[int, float] = {}
    before = 0.0
    for line in steps:
        total = line.get("samples")
        if total is not None:
            epoch = int(line["epoch"])
            num_samples[epoch] = num_samples.get(epoch, 0.0) + max(0.0, total - before)
            before = total
    for line in timing:
        if line.get("train_seconds") and int(line["epoch"]) in num_samples:
            yield line, num_samples[int(line["epoch"])]


def _memory(timing: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return the memory in MiB of the rank that has the most, and of the first ranks each."""
    lines = []
    for line in timing:
        found = {}
        for name in ("memory_bytes", "gpu_memory_bytes"):
            if isinstance(line.get(name), list) and line[name]:
                sizes = [round(size / 2**20, 1) for size in line[name]]
                found[name.replace("_bytes", "_mib")] = max(sizes)
                if name == "memory_bytes":
                    found |= {f"rank {rank}": size for rank, size in enumerate(sizes[:_MAX_RANKS])}
        if found:
            lines.append({"step": line["step"], **found})
    return _columns(lines)


def _newest(
    steps: Sequence[Mapping[str, Any]], timing: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the newest value of every figure of a step and of the clock."""
    found: dict[str, Any] = dict(steps[-1]) if steps else {}
    for name in (*_PACE, "memory_bytes", "gpu_memory_bytes"):
        is_wanted = list if name.endswith("_bytes") else int | float
        values = (line[name] for line in reversed(timing) if isinstance(line.get(name), is_wanted))
        value = next(values, None)
        if value is not None:
            found[name] = value
    return found
