"""Makes the report of a dataset version: once, as an artifact like any other.

It lies below `steps/NAME/report/`, under the fingerprint of what it is about: the version, the one
it is compared with, and what is to be forgotten. So a second call does nothing, and a wish to
forget makes another report. It is no step of the graph, because it follows from what is committed
alone: it can be made of any version at any time, and no step reads it. What was left out lies
whole in the rows of the steps; what the report adds is the choice of examples, and small previews
that stay when the source is gone. `examples.parquet` names every sample that is shown, so that a
purge finds it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from mmcore import storage
from mmcore.core.change import INGEST_STEP
from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import (
    DATASETS,
    SHARD_STEP,
    STEPS,
    DatasetVersion,
    find_artifact,
    increment_versions,
    made_increment,
)
from mmcore.core.manifest import Counts, Manifest, commit_manifest, load_manifest, manifest_url
from mmcore.core.rows import file_record, table_bytes
from mmcore.core.step import Artifact, canonical_json, fingerprint_of
from mmcore.evaluate.data.compare import compare
from mmcore.evaluate.data.contents import read_contents, shards_of_both
from mmcore.evaluate.data.examples import galleries
from mmcore.evaluate.data.limits import limits_of
from mmcore.evaluate.data.losses import Chain, Example, levels, read_losses
from mmcore.evaluate.data.page import Told, facts, page, ranked
from mmcore.evaluate.data.reservoir import Reservoir
from mmcore.sample import Json, Sample

STEP = "report"
REPORT_NAME = "report.html"
FACTS_NAME = "report.json"
EXAMPLES_NAME = "examples.parquet"
CODE_VERSION = 1
_EXAMPLES_SCHEMA = pa.schema(
    [("key", pa.string()), ("gallery", pa.string()), ("shown", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How much a report shows."""

    seed: int = 0
    """Of the choice of examples."""
    num_kept: int = 12
    """Examples of each split."""
    num_lost: int = 6
    """Examples of each reason."""


def find_report(
    root: str,
    version: DatasetVersion,
    *,
    against: DatasetVersion | None = None,
    config: ReportConfig | None = None,
) -> Artifact | None:
    """Return the report of a version as things are now, if it was made."""
    before = against or version_before(root, version)
    _, url = _place(root, version, before, config or ReportConfig())
    manifest = load_manifest(url)
    return None if manifest is None else Artifact(url, manifest)


def make_report(
    root: str,
    version: DatasetVersion,
    *,
    source_url: str | None,
    against: DatasetVersion | None = None,
    config: ReportConfig | None = None,
) -> Artifact:
    """Return the report of a version, made unless it is there; compared with the version before.

    `source_url` is where the raw corpus lies; without it there are no previews of what lies there
    alone.
    """
    config = config or ReportConfig()
    before = against or version_before(root, version)
    identity, url = _place(root, version, before, config)
    manifest = load_manifest(url)
    if manifest is None:
        told = tell(root, version, before, source_url=source_url, config=config)
        data = {
            REPORT_NAME: page(told),
            FACTS_NAME: canonical_json(facts(told)),
            EXAMPLES_NAME: _examples_table(told),
        }
        files = tuple(file_record(url, path, content) for path, content in sorted(data.items()))
        found: dict[str, Json] = {
            "dataset": str(version),
            "before": str(before) if before else None,
            "num_examples": len(told.galleries.cards()),
        }
        fingerprint = fingerprint_of(identity)
        manifest = Manifest(STEP, fingerprint, identity, Counts(), files, found)
        manifest = commit_manifest(url, manifest)
    return Artifact(url, manifest)


def version_before(root: str, version: DatasetVersion) -> DatasetVersion | None:
    """Return the version that one builds on; else the one of its name that was committed before."""
    *earlier, _ = increment_versions(version)
    wanted = earlier[-1] if earlier else _committed_before(root, version)
    if wanted is None:
        return None
    found = find_artifact(root, version.name, SHARD_STEP, wanted)
    return None if found is None else DatasetVersion(version.name, wanted, found)


def _committed_before(root: str, version: DatasetVersion) -> str | None:
    # by the times of the manifests alone: those of large datasets are megabytes
    directory = storage.join(root, DATASETS, version.name)
    urls = {
        name: manifest_url(storage.join(directory, name))
        for name in storage.list_directories(directory)
    }
    there = sorted(
        (storage.modified_at(url), name) for name, url in urls.items() if storage.exists(url)
    )
    names = [name for _, name in there]
    place = names.index(version.version) if version.version in names else 0
    return names[place - 1] if place else None


def tell(
    root: str,
    version: DatasetVersion,
    before: DatasetVersion | None,
    *,
    source_url: str | None,
    config: ReportConfig,
) -> Told:
    """Gather everything that a report says; memory does not grow with the size of the corpus."""
    made = [made_increment(root, version.name, one) for one in increment_versions(version)]
    chains: list[Chain] = [one for one in made if one]
    hidden = load_forgotten(root, version.name).keys
    kept: Reservoir[Sample] = Reservoir(config.num_kept, seed=config.seed)
    lost: Reservoir[Example] = Reservoir(config.num_lost, seed=config.seed)
    shared = shards_of_both(version, before) if before else None
    contents = read_contents(version, kept, shared=shared)
    losses = read_losses(chains, hidden=hidden, examples=lost)
    groups = list(dict.fromkeys(loss.group for loss, _ in ranked(losses)))
    shown = galleries(
        kept,
        lost,
        groups,
        chains,
        dataset_url=version.artifact.url,
        source_url=source_url,
        hidden=hidden,
    )
    return Told(
        version=version,
        before=before,
        levels=list(levels(chains)),
        unclaimed=_unclaimed(chains),
        num_unread=len(made) - len(chains),
        contents=contents,
        losses=losses,
        limits=limits_of(chains, sorted(contents.scores.keys() | losses.score_names())),
        drift=compare(read_contents(before, shared=shared), contents) if before else None,
        galleries=shown,
        settings=_settings(chains),
    )


def _place(
    root: str, version: DatasetVersion, before: DatasetVersion | None, config: ReportConfig
) -> tuple[dict[str, Json], str]:
    """Return the identity of a report, and where it lies."""
    forgotten = load_forgotten(root, version.name).digest
    identity: dict[str, Json] = {
        "step": STEP,
        "work": {"work": "data_report", "code_version": CODE_VERSION, **asdict(config)},
        "inputs": {SHARD_STEP: version.artifact.manifest.fingerprint},
    }
    if before is not None:
        identity["before"] = before.artifact.manifest.fingerprint
    if forgotten is not None:
        identity["forgotten"] = forgotten
    name = fingerprint_of(identity)[:16]
    return identity, storage.join(root, STEPS, version.name, STEP, name)


def _unclaimed(chains: Sequence[Chain]) -> dict[str, int]:
    """Return the files of the newest scan that are part of no sample, by why."""
    facts: Any = chains[-1][INGEST_STEP].manifest.facts if chains else {}
    unclaimed = facts.get("unclaimed")
    return dict(unclaimed) if isinstance(unclaimed, dict) else {}


def _settings(chains: Sequence[Chain]) -> dict[str, Json]:
    """Return how the steps of the newest increment were set up, with their fingerprints."""
    return {
        f"{step} {artifact.manifest.fingerprint[:16]}": artifact.manifest.identity.get("work")
        for step, artifact in (chains[-1].items() if chains else ())
    }


def _examples_table(told: Told) -> bytes:
    """Return which sample is shown where."""
    shown = told.galleries
    rows = [
        {"key": card.key, "gallery": gallery, "shown": what}
        for what, galleries_of in (("kept", shown.kept), ("lost", shown.lost))
        for gallery, cards in galleries_of.items()
        for card in cards
    ]
    for gallery, pairs in shown.pairs.items():
        for pair in pairs:
            rows.append({"key": pair.lost.key, "gallery": gallery, "shown": "lost"})
            rows.append({"key": pair.twin, "gallery": gallery, "shown": "survivor"})
    rows.sort(key=lambda row: (row["key"], row["gallery"], row["shown"]))
    return table_bytes(pa.Table.from_pylist(rows, schema=_EXAMPLES_SCHEMA))
