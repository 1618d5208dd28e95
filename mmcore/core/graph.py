"""The steps of a recipe and how they hang together; what would run, and why, before it does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore import storage
from mmcore.core.forgotten import load_forgotten
from mmcore.core.increment import Compare, Ground, stand
from mmcore.core.lineage import SHARD_STEP
from mmcore.core.manifest import load_manifest
from mmcore.core.reasons import why
from mmcore.core.source import (
    SCAN_STEP,
    Source,
    SourceState,
    describe_change,
    load_scan,
    look,
    scan_identity,
)
from mmcore.core.step import Artifact, Inputs, Step, fingerprint_of
from mmcore.errors import ConfigError
from mmcore.sample import Json, sha256_hex


@dataclass(frozen=True)
class Graph:
    """The steps of one recipe, in an order in which they can run."""

    name: str
    """The dataset's name; artifacts of its steps lie below `steps/<name>`."""
    source: Source
    steps: tuple[Step, ...]
    compare: Compare | None = None
    """How it is told what changed at the source; None: every change of it makes everything anew."""
    settled: str | None = None
    """The fingerprint of the dataset version whose splits are held on to when it is made anew."""

    def __post_init__(self) -> None:
        known = {SCAN_STEP}
        for step in self.steps:
            missing = set(step.inputs) - known
            if missing:
                raise ConfigError(
                    f"step {step.name!r} reads {sorted(missing)}, which no earlier step makes. "
                    f"Earlier steps: {sorted(known)}."
                )
            if step.name in known:
                raise ConfigError(f"two steps are named {step.name!r}; rename one of them.")
            known.add(step.name)

    def step(self, name: str) -> Step:
        """Return a step by its name; ConfigError when there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        known = ", ".join([SCAN_STEP, *(step.name for step in self.steps)])
        raise ConfigError(f"{self.name} has no step {name!r}. Its steps are: {known}.")

    def upstream(self, name: str) -> list[str]:
        """Return every step that a step depends on, directly or not, in graph order."""
        wanted: set[str] = set()
        pending = [name]
        while pending:
            current = pending.pop()
            if current == SCAN_STEP:
                continue
            for parent in self.step(current).inputs:
                if parent not in wanted:
                    wanted.add(parent)
                    pending.append(parent)
        return [step for step in (SCAN_STEP, *(s.name for s in self.steps)) if step in wanted]

    def directory(self, root: str, name: str) -> str:
        """Return the directory that holds every version of a step's artifact."""
        if name == SCAN_STEP:
            return storage.join(root, "steps", self.name, SCAN_STEP)
        return storage.join(root, self.step(name).directory or f"steps/{self.name}/{name}")

    def artifact_url(self, root: str, name: str, fingerprint: str) -> str:
        """Return where the artifact with a fingerprint lies."""
        return storage.join(self.directory(root, name), fingerprint[:16])

    def source_memory(self, root: str) -> str:
        """Return where it is remembered what the files of the source hash to."""
        return storage.join(root, "state", f"source-{sha256_hex(self.source.url.encode())[:12]}")

    def ground(self, root: str, scan: Artifact) -> Ground:
        """Return what a run over a scanned corpus builds on."""
        forgotten = load_forgotten(root, self.name)
        ground = Ground(
            scan,
            root=root,
            name=self.name,
            forgotten=forgotten,
            obeyed=forgotten.digest,
            settled=self.settled,
        )
        if self.compare is None:
            return ground
        return stand(self.name, self.steps, ground, self.compare)

    def identities(self, ground: Ground) -> dict[str, tuple[str, dict[str, Json]]]:
        """Return (fingerprint, its parts) of every step, in order."""
        fingerprints = {SCAN_STEP: ground.scan.manifest.fingerprint}
        first = ground.first
        found = {}
        for step in self.steps:
            pinned = {name: first[name].manifest.fingerprint for name in step.pinned & first.keys()}
            identity = step.identity(
                {**fingerprints, **pinned},
                base=ground.fingerprint,
                settled=ground.settled,
                forgotten=_left_out(step, ground),
            )
            fingerprints[step.name] = fingerprint_of(identity)
            found[step.name] = (fingerprints[step.name], identity)
        return found

    def inputs(self, step: Step, made: Mapping[str, Artifact], ground: Ground) -> Inputs:
        """Return what a step reads, given what this run has made or found so far."""
        first = ground.first if step.pinned else {}
        there = {**made, **first}
        bases = {name: there[name].url for name in self.upstream(step.name)}
        bases["source"] = self.source.url
        artifacts = {name: (there if name in step.pinned else made)[name] for name in step.inputs}
        history = ground.history if step.grows else ()
        settled = ground.settled_made if step.settles and not history else {}
        return Inputs(artifacts, bases, history, ground.forgotten, settled)


def _left_out(step: Step, ground: Ground) -> str | None:
    """Return what stands for the samples that a step does not read though its inputs have them."""
    if SCAN_STEP in step.inputs:
        return ground.obeyed
    return ground.hidden_in_first if SHARD_STEP in step.pinned else None


@dataclass(frozen=True)
class PlannedStep:
    """What a run would do about one step."""

    name: str
    will_run: bool
    reason: str
    fingerprint: str | None
    """None while the source has not been hashed."""
    url: str | None
    estimated_seconds: float | None
    """From the last time it ran here; None when it never did."""


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    steps: tuple[PlannedStep, ...]
    source: SourceState
    ground: Ground | None = None
    """None while the source has not been hashed."""

    @property
    def to_run(self) -> list[PlannedStep]:
        """The steps that would run."""
        return [step for step in self.steps if step.will_run]

    @property
    def estimated_seconds(self) -> float:
        """The sum of what is known."""
        return sum(step.estimated_seconds or 0.0 for step in self.to_run)


def make_plan(graph: Graph, root: str, targets: Sequence[str] = ()) -> Plan:
    """Compare the graph with what is committed; list the source, read no data.

    With targets, only they and what they depend on are planned.
    """
    memory = load_memory(graph, root)
    state = look(graph.source, graph.source_memory(root))
    scan = _known_scan(graph, root, state)
    wanted = {*targets, *(up for target in targets for up in graph.upstream(target))}
    steps = [step for step in graph.steps if not targets or step.name in wanted]
    if scan is None:
        why = describe_change(state, graph.source_memory(root))
        planned = [PlannedStep(SCAN_STEP, True, why, None, None, _seconds(memory, SCAN_STEP))]
        planned += [
            PlannedStep(
                step.name, True, "its input may change", None, None, _seconds(memory, step.name)
            )
            for step in steps
        ]
        return Plan(tuple(planned), state)
    done = PlannedStep(
        SCAN_STEP, False, "no file changed", scan.manifest.fingerprint, scan.url, None
    )
    ground = graph.ground(root, scan)
    planned = list(_plan_steps(graph, root, steps, graph.identities(ground), memory, ground))
    return Plan((done, *planned), state, ground)


def committed(plan: Plan) -> dict[str, Artifact]:
    """Return the artifacts that a plan found committed."""
    found = {}
    for step in plan.steps:
        if step.url is not None and (manifest := load_manifest(step.url)) is not None:
            found[step.name] = Artifact(step.url, manifest)
    return found


def _plan_steps(
    graph: Graph,
    root: str,
    steps: Sequence[Step],
    identities: Mapping[str, tuple[str, dict[str, Json]]],
    memory: Mapping[str, Any],
    ground: Ground,
) -> Iterator[PlannedStep]:
    for step in steps:
        fingerprint, identity = identities[step.name]
        url = graph.artifact_url(root, step.name, fingerprint)
        if load_manifest(url) is not None:
            yield PlannedStep(
                step.name,
                False,
                "inputs, configuration and code are unchanged",
                fingerprint,
                url,
                None,
            )
        else:
            before = memory.get(step.name)
            reason = why(identity, before and before["identity"])
            if SCAN_STEP in step.inputs and ground.change is not None:
                reason = f"{ground.change}, on top of {ground.base}"
            yield PlannedStep(
                step.name, True, reason, fingerprint, url, _seconds(memory, step.name)
            )


def _known_scan(graph: Graph, root: str, state: SourceState) -> Artifact | None:
    if state.content is None:
        return None
    return load_scan(graph.directory(root, SCAN_STEP), state.content)


def load_memory(graph: Graph, root: str) -> dict[str, Any]:
    """Return what is remembered of each step: its last identity and what it cost."""
    data = storage.read_if_exists(_memory_url(graph, root))
    memory: dict[str, Any] = {} if data is None else json.loads(data)
    return memory


def remember(
    graph: Graph, root: str, name: str, *, identity: Mapping[str, Json], seconds: float
) -> None:
    """Remember a step that ran. A cache for plans: losing it loses no result."""
    memory = load_memory(graph, root)
    memory[name] = {"identity": identity, "seconds": round(seconds, 3)}
    storage.write(_memory_url(graph, root), json.dumps(memory, sort_keys=True, indent=1).encode())


def _memory_url(graph: Graph, root: str) -> str:
    return storage.join(root, "state", f"steps-{graph.name}.json")


def _seconds(memory: Mapping[str, Any], name: str) -> float | None:
    return memory[name]["seconds"] if name in memory else None


__all__ = [
    "Graph",
    "Plan",
    "PlannedStep",
    "committed",
    "load_memory",
    "make_plan",
    "remember",
    "scan_identity",
]
