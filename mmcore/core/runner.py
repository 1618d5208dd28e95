"""Runs the steps of a graph and holds them to the contract.

For each step: is it committed already? which of its tasks are? run the rest, check the accounts,
write the manifest last. Killed anywhere, the next run goes on from the tasks that were recorded.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath

from mmcore import storage
from mmcore.core import heap
from mmcore.core.executor import Executor
from mmcore.core.graph import Graph, Plan, make_plan, remember
from mmcore.core.increment import Ground
from mmcore.core.lease import Fence
from mmcore.core.manifest import (
    MANIFEST_NAME,
    Counts,
    FileRecord,
    Manifest,
    commit_manifest,
    load_manifest,
)
from mmcore.core.source import SCAN_STEP, scan
from mmcore.core.step import (
    Artifact,
    Inputs,
    Progress,
    Step,
    Task,
    TaskContext,
    TaskReport,
    Work,
    resources_of,
    task_names,
)
from mmcore.errors import AccountingError, StepError, StorageError
from mmcore.sample import Json

SCRATCH = "_tasks/"
_MIN_MEASURED = 100
"""An increment of fewer samples is measured as the last so many of its dataset."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, for progress bars, logs and the dashboard."""

    kind: str
    """`step_skipped`, `step_started`, `task_finished`, `progress`, `step_finished`."""
    step: str
    facts: Mapping[str, Json] = field(default_factory=dict)


Listener = Callable[[Event], None]


def ignore_event(_: Event) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class StepResult:
    """What came of a step."""

    artifact: Artifact
    was_cached: bool
    seconds: float


class Run:
    """One execution of a graph below a storage root."""

    def __init__(
        self, graph: Graph, *, root: str, executor: Executor, listener: Listener = ignore_event
    ) -> None:
        self.graph = graph
        self.root = root
        self.executor = executor
        self.listener = listener
        self.fence: Fence | None = None
        """Asked before anything is committed; None when no other run can be in the way."""
        self.making: str | None = None
        """The artifact that is being made now."""
        self.artifacts: dict[str, Artifact] = {}
        self.ground: Ground | None = None
        """What this run builds on; known once the scan is."""

    def plan(self, targets: Sequence[str] = ()) -> Plan:
        """Return what would run."""
        return make_plan(self.graph, self.root, targets)

    def run(self, targets: Sequence[str] = ()) -> dict[str, StepResult]:
        """Run what is not committed yet, in order, and return every step's result."""
        plan = self.plan(targets)
        return {step.name: self.run_step(step.name, plan) for step in plan.steps}

    def run_step(self, name: str, plan: Plan) -> StepResult:
        """Run one step, unless its artifact exists. The steps before it must have run."""
        started = time.monotonic()
        self.executor.stop.check()
        if name == SCAN_STEP:
            return self._scan(plan, started)
        step = self.graph.step(name)
        assert self.ground is not None, "the scan comes first"
        fingerprint, identity = self.graph.identities(self.ground)[name]
        url = self.graph.artifact_url(self.root, name, fingerprint)
        manifest = load_manifest(url)
        if manifest is not None:
            self._say("step_skipped", name, fingerprint=fingerprint, url=url)
            return self._done(name, Artifact(url, manifest), was_cached=True, started=started)
        inputs = self.graph.inputs(step, self.artifacts, self.ground)
        context = TaskContext(
            inputs=replace(inputs, directory=self.graph.directory(self.root, name)),
            output_url=url,
            root=self.root,
            fingerprint=fingerprint,
            fence=self.fence,
        )
        self.making = url
        try:
            counts, files, facts = self._make(step, context)
        except StorageError:
            # another run may have committed it meanwhile and swept away what this one was reading
            manifest = load_manifest(url)
            if manifest is None:
                raise
        else:
            made = Manifest(name, fingerprint, identity, counts, files, facts)
            self._check_place()
            manifest = commit_manifest(url, made)
        _sweep(url, manifest)
        self.making = None
        result = self._done(name, Artifact(url, manifest), was_cached=False, started=started)
        remember(self.graph, self.root, name, identity=identity, seconds=result.seconds)
        heap.give_back()
        return result

    def _scan(self, plan: Plan, started: float) -> StepResult:
        planned = plan.steps[0]
        if planned.url is not None:
            manifest = load_manifest(planned.url)
            assert manifest is not None, "the plan saw it"
            self._say("step_skipped", SCAN_STEP, fingerprint=planned.fingerprint, url=planned.url)
            assert plan.ground is not None, "the plan knows the scan"
            self.ground = plan.ground
            return self._done(SCAN_STEP, plan.ground.scan, was_cached=True, started=started)
        self._say("step_started", SCAN_STEP, num_tasks=1, num_resumed=0, why=planned.reason)
        artifact = scan(
            self.graph.source,
            plan.source,
            memory_url=self.graph.source_memory(self.root),
            directory=self.graph.directory(self.root, SCAN_STEP),
            executor=self.executor,
            before_commit=self._check_place,
        )
        self.ground = self.graph.ground(self.root, artifact)
        result = self._done(SCAN_STEP, artifact, was_cached=False, started=started)
        self.artifacts[SCAN_STEP] = self.ground.scan
        remember(self.graph, self.root, SCAN_STEP, identity={}, seconds=result.seconds)
        heap.give_back()
        return result

    def _make(
        self, step: Step, context: TaskContext
    ) -> tuple[Counts, tuple[FileRecord, ...], Mapping[str, Json]]:
        """Do the tasks that are not recorded yet, and put the whole together."""
        tasks = step.work.tasks(context.inputs)
        heap.give_back()
        names = task_names(tasks)
        reports = _recorded(names, context.output_url)
        missing = [number for number, name in enumerate(names) if name not in reports]
        self._say("step_started", step.name, num_tasks=len(tasks), num_resumed=len(reports))
        # one at a time: a payload that is made late is not held by a list
        for index, report in self._do(step, (tasks[number] for number in missing), context):
            self.executor.stop.check()
            name = names[missing[index]]
            reports[name] = report
            facts: dict[str, Json] = {"done": len(reports), "total": len(names)}
            self._say("task_finished", step.name, task=name, **facts)
        # what tasks were made of: some tens of bytes for each sample
        del tasks
        heap.give_back()
        in_order = [reports[name] for name in names]
        closing = step.work.finish(in_order, context)
        files = _files(step, [*in_order, closing])
        counts = Counts.total(report.counts for report in [*in_order, closing])
        assert self.ground is not None, "the scan comes first"
        before = [one[step.name].manifest for one in self.ground.history if step.name in one]
        _check(step, counts, context.inputs, Counts.total(one.counts for one in before))
        return counts, files, closing.facts

    def _check_place(self) -> None:
        """Raise when this run is to stop, or another one has taken its place."""
        self.executor.stop.check()
        if self.fence is not None:
            self.fence.check()

    def _do(
        self, step: Step, tasks: Iterable[Task], context: TaskContext
    ) -> Iterator[tuple[int, TaskReport]]:
        if not step.work.runs_in_driver:
            function = partial(run_and_record, step.work, context)
            return self.executor.map(function, tasks, resources=resources_of(step.work))
        heap.keep_for_more()
        context = replace(context, executor=self.executor, report_progress=self._progress)
        return enumerate(run_and_record(step.work, context, task) for task in tasks)

    def _done(
        self, name: str, artifact: Artifact, *, was_cached: bool, started: float
    ) -> StepResult:
        self.artifacts[name] = artifact
        result = StepResult(artifact, was_cached, time.monotonic() - started)
        if not was_cached:
            counts = asdict(artifact.manifest.counts)
            self._say(
                "step_finished",
                name,
                seconds=round(result.seconds, 3),
                counts=counts,
                url=artifact.url,
            )
        return result

    def _progress(self, progress: Progress) -> None:
        self._say(
            "progress",
            progress.step,
            done=progress.done,
            total=progress.total,
            message=progress.message,
        )

    def _say(self, kind: str, step: str, **facts: Json) -> None:
        self.listener(Event(kind, step, facts))


def run_and_record(work: Work, context: TaskContext, task: Task) -> TaskReport:
    """Do a task and record it beside its files, so that a later run need not do it again."""
    if context.fence is not None:
        context.fence.check()
    report = work.run(task, context)
    report.counts.check(f"task {task.name}")
    if context.fence is not None:
        context.fence.check()
    record = json.dumps(asdict(report), sort_keys=True, allow_nan=False).encode()
    storage.write(_record_url(context.output_url, task.name), record)
    heap.give_back()
    return report


def _record_url(output_url: str, task_name: str) -> str:
    return storage.join(output_url, f"{SCRATCH}{task_name}.json")


def _recorded(names: Sequence[str], output_url: str) -> dict[str, TaskReport]:
    """Return the reports of tasks that an earlier run finished and whose files are all there."""
    sizes = {file.path: file.num_bytes for file in storage.list_files(output_url)}
    reports = {}
    for name in names:
        if f"{SCRATCH}{name}.json" not in sizes:
            continue
        value = json.loads(storage.read(_record_url(output_url, name)))
        files = tuple(FileRecord(**record) for record in value["files"])
        if all(sizes.get(file.path) == file.num_bytes for file in files):
            reports[name] = TaskReport(files, Counts(**value["counts"]), value["facts"])
    return reports


def _files(step: Step, reports: Sequence[TaskReport]) -> tuple[FileRecord, ...]:
    files = [
        file for report in reports for file in report.files if not file.path.startswith(SCRATCH)
    ]
    paths = {file.path for file in files}
    if len(paths) != len(files):
        raise AccountingError(f"{step.name}: two tasks wrote a file of the same name")
    return tuple(sorted(files, key=lambda file: file.path))


def _check(step: Step, counts: Counts, inputs: Inputs, before: Counts) -> None:
    """Hold a step to its accounts: what went in is what came out, kept or not.

    `before` is what earlier increments counted: of a few newcomers to a large dataset half may be
    broken, and that is no sign of a fault.
    """
    counts.check(step.name)
    source = step.work.samples_from
    if source is not None:
        expected = inputs[source].manifest.counts.kept
        if counts.found != expected:
            raise AccountingError(
                f"{step.name}: {source} kept {expected} samples and {counts.found} came in. "
                "Nothing was committed. This is a fault of the step's code, or of a file that "
                "vanished."
            )
    num_quarantined = sum(counts.quarantined.values())
    measured = max(counts.found, min(before.found + counts.found, _MIN_MEASURED))
    if num_quarantined > step.max_quarantined * measured:
        reasons = ", ".join(f"{reason} {num}" for reason, num in counts.quarantined.items())
        raise StepError(
            f"{step.name}: {num_quarantined} of {counts.found} samples are broken ({reasons}), "
            f"more than max_quarantined = {step.max_quarantined:g} allows. Look at the source, or "
            "raise max_quarantined in the recipe."
        )


def sweep_temporaries(url: str) -> None:
    """Delete what was being written below a URL; for whoever knows that nobody writes there."""
    for file in storage.list_files(url):
        if file.path.rsplit("/", 1)[-1].startswith(storage.TEMPORARY_PREFIX):
            storage.delete(storage.join(url, file.path))


def _sweep(url: str, manifest: Manifest) -> None:
    """Delete what the manifest does not name; leave alone what a live process is writing."""
    named = {file.path for file in manifest.files} | {MANIFEST_NAME}
    directories = {SCRATCH}
    for file in storage.list_files(url):
        is_temporary = file.path.rsplit("/", 1)[-1].startswith(storage.TEMPORARY_PREFIX)
        if file.path not in named and (not is_temporary or storage.is_abandoned(file.path)):
            storage.delete(storage.join(url, file.path))
            directories |= {str(parent) for parent in PurePosixPath(file.path).parents[:-1]}
    for directory in sorted(directories, key=len, reverse=True):
        storage.delete_directory_if_empty(storage.join(url, directory))
