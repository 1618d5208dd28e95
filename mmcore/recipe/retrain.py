"""Whether new data is worth a new model: the recipe's policy, asked and answered on record.

Every answer is kept below `retrain/<dataset>/`, the refusals too: what came, what was decided and
why, and what came of it.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mmcore import storage
from mmcore.core.graph import Plan
from mmcore.core.increment import Ground
from mmcore.core.lineage import SHARD_STEP, made_from
from mmcore.core.manifest import load_manifest
from mmcore.core.runner import Run
from mmcore.core.source import SCAN_STEP
from mmcore.core.step import Artifact
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import LoadedRecipe
from mmcore.register.ledger import CHAMPION
from mmcore.register.work import TRAIN_FINGERPRINT_TAG, RegisterWork

DIRECTORY = "retrain"
_OUTCOME = ".outcome.json"


@dataclass(frozen=True)
class Verdict:
    """Whether to retrain, and why, for a person."""

    should_run: bool
    why: str
    num_new_samples: int
    """New and changed ones; what was removed or is to be forgotten is told in `why`."""
    dataset: str | None
    """`name/version` on which the new samples come, or that is there already."""
    overrides: tuple[str, ...] = ()
    """Settings of the recipe for this retraining, the weights to start from among them."""


@dataclass(frozen=True)
class DecisionRecord:
    """A verdict as it was recorded, and what came of it."""

    decision_id: str
    name: str
    """Of the dataset."""
    at: str
    """ISO 8601, UTC."""
    trigger: str
    """Who asked: `mm retrain`, `watch`, a schedule."""
    verdict: Verdict
    outcome: Mapping[str, Any] | None
    """None until the retraining has ended: `status`, `model`, `decision`, `error`."""


def wait_until_quiet(
    loaded: LoadedRecipe,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when the source has not changed for `retrain.quiet_seconds`."""
    quiet = loaded.recipe.retrain.quiet_seconds
    listing, since = None, clock()
    while True:
        seen = storage.list_files(loaded.graph.source.url)
        if seen != listing:
            listing, since = seen, clock()
        left = since + quiet - clock()
        if left <= 0:
            return
        sleep(min(left, 1.0))


def consider(
    loaded: LoadedRecipe, *, root: str, now: datetime | None = None, force: bool = False
) -> Verdict:
    """Look at the source and say whether to retrain. New files are hashed, nothing else is done."""
    run = Run(loaded.graph, root=root, executor=LocalExecutor())
    plan = run.plan()
    run.run_step(SCAN_STEP, plan)
    plan = run.plan()
    assert plan.ground is not None, "the source has just been hashed"
    if not force:
        unfinished = _unfinished(loaded, root, plan)
        if unfinished is not None:
            return unfinished
    dataset = next(step for step in plan.steps if step.name == SHARD_STEP)
    if not dataset.will_run:
        assert dataset.url is not None, "it was found there"
        return _on_a_dataset_that_is_there(loaded, root, dataset.url, force=force)
    if plan.ground.base is None:
        why = f"a dataset from the ground up: {plan.steps[1].reason}"
        return Verdict(True, why, 0, None)
    return _on_new_samples(loaded, root, plan.ground, now or datetime.now(UTC), force=force)


def nothing_gained(shard: Artifact) -> str | None:
    """Return why training would learn nothing new from a version, or None when it would."""
    increments: Any = shard.manifest.facts["increments"]
    last = increments[-1]
    if len(increments) == 1 or last["num_samples"].get("train"):
        return None
    if last.get("num_gone", {}).get("train"):
        return None  # less to learn from is another model too
    added = sum(last["num_samples"].values())
    return (
        f"{added} new samples came through and none into the training split"
        if added
        else "no new sample was kept; the run's funnel says why"
    )


def gains_nothing(artifacts: Mapping[str, Artifact]) -> bool:
    """Return whether a run may end before it trains."""
    return bool(outcome_of(artifacts)["status"] == "nothing_gained")


def outcome_of(artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return what a retraining came to: `promoted`, `kept_champion`, `nothing_gained`, `done`."""
    shard, register = artifacts.get(SHARD_STEP), artifacts.get("register")
    found: dict[str, Any] = {"status": "done"}
    if shard is not None:
        found["dataset"] = shard.url.rsplit("/", 2)[-2] + "/" + shard.url.rsplit("/", 1)[-1]
    if register is not None:
        facts = register.manifest.facts
        model = f"{facts['model_name']}/{facts['version']}"
        found |= {"status": facts["decision"], "why": facts["why"], "model": model}
    elif shard is not None and (why := nothing_gained(shard)):
        found |= {"status": "nothing_gained", "why": why}
    return found


def record(root: str, name: str, verdict: Verdict, *, trigger: str) -> str:
    """Write a verdict down and return its id; ids sort by time."""
    now = datetime.now(UTC)
    decision_id = f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    value = {
        "format": "mm.retrain",
        "format_version": 1,
        "decision_id": decision_id,
        "name": name,
        "at": now.isoformat(timespec="seconds"),
        "trigger": trigger,
        "verdict": asdict(verdict),
    }
    storage.create(_url(root, name, f"{decision_id}.json"), _json(value))
    return decision_id


def conclude(root: str, name: str, decision_id: str, outcome: Mapping[str, Any]) -> None:
    """Write down what came of a verdict; the first word stands."""
    storage.create(_url(root, name, f"{decision_id}{_OUTCOME}"), _json(dict(outcome)))


def list_decisions(
    root: str, name: str | None = None, *, limit: int | None = None
) -> list[DecisionRecord]:
    """Return what was decided, the newest first."""
    names = [name] if name else storage.list_directories(storage.join(root, DIRECTORY))
    found = [
        (file.path.removesuffix(".json"), each)
        for each in names
        for file in storage.list_files(storage.join(root, DIRECTORY, each))
        if file.path.endswith(".json") and not file.path.endswith(_OUTCOME)
    ]
    newest = sorted(found, reverse=True)[:limit]
    return [_load(root, each, decision_id) for decision_id, each in newest]


def _load(root: str, name: str, decision_id: str) -> DecisionRecord:
    value = json.loads(storage.read(_url(root, name, f"{decision_id}.json")))
    outcome = storage.read_if_exists(_url(root, name, f"{decision_id}{_OUTCOME}"))
    verdict = {**value["verdict"], "overrides": tuple(value["verdict"]["overrides"])}
    return DecisionRecord(
        decision_id=decision_id,
        name=name,
        at=value["at"],
        trigger=value["trigger"],
        verdict=Verdict(**verdict),
        outcome=None if outcome is None else json.loads(outcome),
    )


def _unfinished(loaded: LoadedRecipe, root: str, plan: Plan) -> Verdict | None:
    """Return the verdict of a retraining that never ended, if its data is still the newest."""
    asked = (one for one in list_decisions(root, loaded.recipe.name) if one.verdict.should_run)
    last = next(asked, None)
    if last is None or last.outcome is not None:
        return None
    dataset = next(step for step in plan.steps if step.name == SHARD_STEP)
    if dataset.will_run:
        return None  # decided anew, for more may have come
    before = last.verdict
    why = f"the retraining of {last.at} did not end ({before.why}): it goes on"
    return Verdict(True, why, before.num_new_samples, before.dataset, before.overrides)


def _on_a_dataset_that_is_there(
    loaded: LoadedRecipe, root: str, url: str, *, force: bool
) -> Verdict:
    manifest = load_manifest(url)
    assert manifest is not None, "it was found there"
    name = f"{loaded.recipe.name}/{manifest.fingerprint[:16]}"
    has_model = bool(
        made_from(root, loaded.recipe.name, "train", shard=manifest.fingerprint)
    ) or nothing_gained(Artifact(url, manifest))
    if has_model and not force:
        return Verdict(False, f"no new sample since {name}", 0, name)
    why = "asked for" if has_model else "no model has learned from this dataset yet"
    return Verdict(True, why, 0, name, _settings(loaded, root))


def _on_new_samples(
    loaded: LoadedRecipe, root: str, ground: Ground, now: datetime, *, force: bool
) -> Verdict:
    policy = loaded.recipe.retrain
    number, base = ground.num_new or 0, str(ground.base)
    found = f"{ground.change} on top of {base}"
    enough_at = _last_time(loaded, root, ground) + timedelta(hours=policy.max_wait_hours)
    has_waited = policy.max_wait_hours > 0 and now >= enough_at
    if number < policy.min_new_samples and not has_waited and not force:
        why = f"{found}, and retrain.min_new_samples asks for {policy.min_new_samples}"
        if policy.max_wait_hours > 0:
            why += f"; from {enough_at:%Y-%m-%d %H:%M} UTC on they are enough"
        return Verdict(False, why, number, base)
    if number < policy.min_new_samples:
        found += ", asked for" if force else f", after {policy.max_wait_hours:g} hours"
    return Verdict(True, found, number, base, _settings(loaded, root))


def _last_time(loaded: LoadedRecipe, root: str, ground: Ground) -> datetime:
    """Return when new data was last learned from, or at least published."""
    for one in list_decisions(root, loaded.recipe.name):
        if one.verdict.should_run:
            return datetime.fromisoformat(one.at)
    assert ground.base is not None, "new samples come on top of something"
    published = storage.modified_at(storage.join(ground.base.artifact.url, "manifest.json"))
    return datetime.fromtimestamp(published, UTC)


def _settings(loaded: LoadedRecipe, root: str) -> tuple[str, ...]:
    """Return the settings of a retraining; the first training is as the recipe says."""
    policy = loaded.recipe.retrain
    start = tuple(_start(loaded, root))
    return (*policy.overrides, *start) if start or policy.start == "scratch" else ()


def _start(loaded: LoadedRecipe, root: str) -> Iterator[str]:
    """Yield the setting that names the weights to start from, when there are any."""
    if loaded.recipe.retrain.start == "scratch":
        return
    registers = (step.work for step in loaded.graph.steps if isinstance(step.work, RegisterWork))
    work = next(registers, None)
    if work is None:
        return
    # takes a second to load, and a refusal does not need it
    from mmcore.telemetry.model_registry import ModelRegistry

    registry = ModelRegistry(root)
    champion = registry.aliases(work.model_name).get(CHAMPION)
    versions = registry.versions(work.model_name) if champion is not None else []
    for version in versions:
        fingerprint = version.tags.get(TRAIN_FINGERPRINT_TAG, "")
        url = storage.join(root, "steps", loaded.recipe.name, "train", fingerprint[:16])
        if version.version == champion and load_manifest(url) is not None:
            yield f"train.start_from={fingerprint}"


def _url(root: str, name: str, file: str) -> str:
    return storage.join(root, DIRECTORY, name, file)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
