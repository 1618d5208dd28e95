"""Gathers what the report of a dataset version says, from what is committed."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mmcore.core.change import INGEST_STEP
from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import DatasetVersion, increment_versions, made_increment
from mmcore.core.rows import table_bytes
from mmcore.evaluate.data.compare import compare
from mmcore.evaluate.data.contents import read_contents, shards_of_both
from mmcore.evaluate.data.examples import galleries
from mmcore.evaluate.data.limits import limits_of
from mmcore.evaluate.data.losses import Chain, Example, levels, read_losses
from mmcore.evaluate.data.page import Told, ranked
from mmcore.evaluate.data.reservoir import Reservoir
from mmcore.evaluate.data.work import ReportConfig
from mmcore.sample import Json, Sample

_EXAMPLES_SCHEMA = pa.schema(
    [("key", pa.string()), ("gallery", pa.string()), ("shown", pa.string())]
)


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


def examples_table(told: Told) -> bytes:
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
