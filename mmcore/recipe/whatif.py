"""Asks what other limits would keep, before anything runs: rows and scores, no bytes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mmcore import storage
from mmcore.clean.whatif import Summary, summarize, what_if
from mmcore.core.ahead import AHEAD
from mmcore.core.change import standing
from mmcore.core.forgotten import load_forgotten
from mmcore.core.graph import Graph
from mmcore.core.lineage import committed_artifacts, dataset_versions, increments
from mmcore.core.map_work import MapWork
from mmcore.core.reasons import why
from mmcore.core.rows import read_rows
from mmcore.core.step import Artifact, canonical_json
from mmcore.errors import ConfigError
from mmcore.recipe.build import LoadedRecipe, load_recipe

STEP = "clean"


@dataclass(frozen=True)
class Answer:
    """What other settings of a recipe would do to the samples that its own have been applied to."""

    recipe: str
    about: str
    """The dataset version, or the artifact where there is no dataset yet."""
    changed: str
    """In words: `MinSide.min_side: 32 -> 128`."""
    elsewhere: tuple[str, ...]
    """Other steps whose settings change too; what that does is not asked here."""
    summary: Summary


def ask(file: str, overrides: Sequence[str], *, root: str) -> Answer:
    """Return what `overrides` would change; ConfigError when there is nothing to ask or to go by.

    Of a dataset that grew, every increment is asked about, but for what counts no more. The source
    is not looked at.
    """
    before, after = load_recipe(file), load_recipe(file, overrides=overrides)
    old, new = _work(before.graph), _work(after.graph)
    # what is made ahead for a later step decides nothing here
    old, new = replace(old, ahead=()), replace(new, ahead=())
    if old.identity() == new.identity():
        given = ", ".join(overrides) or "nothing was set"
        known = ", ".join(_settings(before)) or "there are none, since it has no stages"
        raise ConfigError(
            f"{STEP} stays as it is ({given}), so there is nothing to ask. --set one of its "
            f"fields: {known}."
        )
    about, artifacts = _committed(before.graph, old, root)
    rows = (
        row
        for artifact, gone in artifacts
        for row in read_rows(artifact)
        if row.sample.key not in gone
    )
    return Answer(
        recipe=file,
        about=about,
        changed=why({"work": dict(new.identity())}, {"work": dict(old.identity())}),
        elsewhere=tuple(_elsewhere(before.graph, after.graph)),
        summary=summarize(what_if(rows, old.stages, new.stages)),
    )


def _work(graph: Graph) -> MapWork:
    work = graph.step(STEP).work
    assert isinstance(work, MapWork), "cleaning goes sample by sample"
    return work


def _settings(loaded: LoadedRecipe) -> Iterator[str]:
    """Yield every field of every stage as `--set` spells it."""
    for name, stage in zip(loaded.recipe.clean, _work(loaded.graph).stages, strict=True):
        yield from (f"{STEP}.{name}.{field.name}" for field in fields(stage))


def _committed(
    graph: Graph, work: MapWork, root: str
) -> tuple[str, list[tuple[Artifact, frozenset[str]]]]:
    """Return what the recipe has made of the samples, each with the keys that do not count, and
    what to call it.
    """
    forgotten = load_forgotten(root, graph.name).keys
    wanted = canonical_json(dict(work.identity()))

    def is_it(artifact: Artifact) -> bool:
        made: Any = artifact.manifest.identity["work"]
        return canonical_json({name: made[name] for name in made.keys() - {AHEAD}}) == wanted

    for version in reversed(dataset_versions(root, graph.name)):
        made = increments(root, version)
        if made and all(is_it(increment[STEP]) for increment in made):
            return str(version), standing(made, STEP, forgotten)
    found = [one for one in committed_artifacts(graph.directory(root, STEP)) if is_it(one)]
    if not found:
        raise ConfigError(
            f"{graph.name} was not cleaned with these settings below {root}, so nothing is stored "
            f"to answer from. Do that first: mm run RECIPE --until {STEP}"
        )
    newest = max(found, key=lambda one: storage.modified_at(storage.join(one.url, "manifest.json")))
    return newest.url, [(newest, forgotten)]


def _elsewhere(before: Graph, after: Graph) -> Iterator[str]:
    old: Mapping[str, Any] = {step.name: step.work.identity() for step in before.steps}
    for step in after.steps:
        if step.name != STEP and old.get(step.name) != step.work.identity():
            yield step.name
