"""Makes the report of a dataset version: once, as an artifact like any other.

It lies below `steps/NAME/report/`, under the fingerprint of what it is about: the version, the one
it is compared with, and what is to be forgotten. So a second call does nothing, and a wish to
forget makes another report. It is no step of the graph, because it follows from what is committed
alone: it can be made of any version at any time, and no step reads it. What was left out lies
whole in the rows of the steps; what the report adds is the choice of examples, and small previews
that stay when the source is gone. `examples.parquet` names every sample that is shown, so that a
purge finds it.
"""

from dataclasses import asdict, dataclass

from mmcore import storage
from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import (
    DATASETS,
    SHARD_STEP,
    STEPS,
    DatasetVersion,
    find_artifact,
    increment_versions,
)
from mmcore.core.manifest import Counts, Manifest, commit_manifest, load_manifest, manifest_url
from mmcore.core.rows import file_record
from mmcore.core.step import Artifact, canonical_json, fingerprint_of
from mmcore.sample import Json

STEP = "report"
REPORT_NAME = "report.html"
FACTS_NAME = "report.json"
EXAMPLES_NAME = "examples.parquet"
CODE_VERSION = 1


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
        # decoders and templates: a run that finds its report needs neither
        from mmcore.evaluate.data.gather import examples_table, tell
        from mmcore.evaluate.data.page import facts, page

        told = tell(root, version, before, source_url=source_url, config=config)
        data = {
            REPORT_NAME: page(told),
            FACTS_NAME: canonical_json(facts(told)),
            EXAMPLES_NAME: examples_table(told),
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
