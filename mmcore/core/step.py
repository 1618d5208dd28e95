"""A step is a node of the graph: it writes one versioned artifact, all of it or none of it.

What a step is (name, configuration, inputs) gives its fingerprint. Where it runs (root, executor,
workers, hosts) arrives at run time and never enters it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, overload

from mmcore.core.executor import ONE_CPU, Executor, Resources
from mmcore.core.forgotten import NOTHING, Forgotten
from mmcore.core.lease import Fence
from mmcore.core.manifest import Counts, FileRecord, Manifest
from mmcore.sample import Json, sha256_hex


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: where it is, and the manifest that makes it exist."""

    url: str
    manifest: Manifest


@dataclass(frozen=True)
class Inputs:
    """What a task may read: the artifacts of the steps before it, and the raw corpus."""

    artifacts: Mapping[str, Artifact]
    """By step name."""
    bases: Mapping[str, str]
    """URL by base name, to resolve `PartRef.base`: `source`, and every step upstream."""
    history: tuple[Mapping[str, Artifact], ...] = ()
    """What earlier increments of the dataset made, by step, the first increment first. Given to
    steps that grow; empty for the first increment."""
    forgotten: Forgotten = NOTHING
    """What nobody may read, as it was known when the step began: for all workers the same."""
    settled: Mapping[str, Artifact] = field(default_factory=dict)
    """What made the newest increment of a version that is not built on and whose decisions are held
    on to, by step. Given to steps that settle."""
    directory: str = ""
    """Where all artifacts of the step lie, of whatever configuration. What is found there may save
    work and must not change what is written."""

    def __getitem__(self, step: str) -> Artifact:
        return self.artifacts[step]

    def earlier(self, step: str) -> list[Artifact]:
        """Return the artifacts of a step in earlier increments, the first one first."""
        return [increment[step] for increment in self.history]


@dataclass(frozen=True)
class Task:
    """One slice of a step's work, done by one worker: writes its files, returns a few numbers."""

    name: str
    """Unique in the step, usable in a file name: `part-000003`, `train-000000`."""
    payload: Json = None
    """What to do, small: it travels to the worker."""


class TasksMadeLate(Sequence[Task]):
    """Tasks of which only the names are there: each payload is made when it is asked for.

    So what goes to the workers is in memory as long as it is under way, and no longer.
    """

    def __init__(self, names: Sequence[str], payload: Callable[[int], Json]) -> None:
        self.names = names
        self._payload = payload

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        return Task(self.names[number], self._payload(number))


def task_names(tasks: Sequence[Task]) -> Sequence[str]:
    """Return what tasks are called, in order; no payload is made for it."""
    return tasks.names if isinstance(tasks, TasksMadeLate) else [task.name for task in tasks]


@dataclass(frozen=True)
class TaskReport:
    """What a task wrote. At most a few KB: bytes never travel through the executor."""

    files: Sequence[FileRecord]
    counts: Counts = field(default_factory=Counts)
    facts: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """What a task says while it is under way, for the progress bar and the log."""

    step: str
    done: float
    total: float
    message: str = ""


@dataclass(frozen=True)
class TaskContext:
    """Where a task runs and whom it may ask; nothing in it may change what it writes."""

    inputs: Inputs
    output_url: str
    """The directory of the artifact that is being made; names inside are relative to it."""
    root: str
    """The storage root."""
    fingerprint: str = ""
    """Of the step that is being made."""
    executor: Executor | None = None
    """Given to tasks that run in the driver (`Work.runs_in_driver`), for gangs of ranks."""
    report_progress: Callable[[Progress], None] | None = None
    """Given to tasks that run in the driver."""
    fence: Fence | None = None
    """To be asked before something is written that another run could be writing too."""


class Work(Protocol):
    """How a step is done. Implementations are frozen dataclasses: they travel to workers."""

    @property
    def runs_in_driver(self) -> bool:
        """Whether its tasks run in this process: those that start gangs of ranks, and tiny ones."""
        ...

    @property
    def samples_from(self) -> str | None:
        """The step whose kept samples all go into this one, or None where that is not so."""
        ...

    def identity(self) -> Mapping[str, Json]:
        """Return what decides the result, besides the inputs."""
        ...

    def tasks(self, inputs: Inputs) -> Sequence[Task]:
        """Return the tasks: always the same for the same inputs."""
        ...

    def run(self, task: Task, context: TaskContext) -> TaskReport:
        """Do one task: write its files below `context.output_url` and say what was written."""
        ...

    def finish(self, reports: Sequence[TaskReport], context: TaskContext) -> TaskReport:
        """Write what needs all tasks (indexes, totals).

        Return the files added, the facts of the whole step, and counts that no task has reported.
        The runner adds the files and counts of the tasks, but for files below `_tasks/`: those are
        scratch for this method and are deleted once the manifest is there.
        """
        ...


def resources_of(work: Work) -> Resources:
    """Return what each task of a work occupies: one processor, unless it says otherwise."""
    found = getattr(work, "resources", ONE_CPU)
    assert isinstance(found, Resources), "resources are of that kind"
    return found


@dataclass(frozen=True)
class Step:
    """A node of the graph."""

    name: str
    """`clean`, `split`, `train`: unique in a recipe, and one word."""
    work: Work
    inputs: tuple[str, ...] = ()
    """Names of the steps whose artifacts it reads. Their order does not matter."""
    directory: str = ""
    """Where its artifacts go below the root; `steps/<graph>/<name>` unless said otherwise."""
    max_quarantined: float = 1.0
    """The share of broken samples above which the step fails instead of going on without them."""
    grows: bool = False
    """Whether it takes new samples alone and looks at what earlier increments made."""
    settles: bool = False
    """Whether what it decided can be held on to when the dataset is compacted."""
    pinned: frozenset[str] = frozenset()
    """Those of its inputs that stay the first increment's, however much the dataset grows: a
    tokenizer that models share, a test set that they are all measured on."""

    def identity(
        self,
        inputs: Mapping[str, str],
        *,
        base: str | None = None,
        settled: str | None = None,
        forgotten: str | None = None,
    ) -> dict[str, Json]:
        """Return the parts of the fingerprint, to say which one changed.

        `inputs` are the fingerprints of what it reads, `base` that of the dataset version on which
        this increment builds, `settled` that of the version whose decisions stand, `forgotten` what
        stands for the samples that it leaves out.
        """
        identity: dict[str, Json] = {
            "step": self.name,
            "work": dict(self.work.identity()),
            "inputs": {name: inputs[name] for name in sorted(self.inputs)},
        }
        if self.grows and base is not None:
            identity["base"] = base
        if self.settles and settled is not None:
            identity["settled"] = settled
        if forgotten is not None:
            identity["forgotten"] = forgotten
        return identity


def fingerprint_of(identity: Mapping[str, Json]) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    return sha256_hex(canonical_json(identity))


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys, no spaces and no NaN: equal values give equal bytes."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()
