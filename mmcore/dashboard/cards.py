"""What a gallery shows of a sample: its parts, its figures, and its twin beside it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from sqlite3 import Row
from urllib.parse import quote

from mmcore.dashboard.index.datasets import Dataset
from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.samples import find_samples
from mmcore.dashboard.media import StoredPart, parts_of


@dataclass(frozen=True)
class Card:
    """A sample in the gallery."""

    row: Row
    address: str
    parts: Sequence[StoredPart]
    media: str
    """Where its bytes are served, without the extension."""
    facts: Sequence[str]
    twin: "Card | None" = None

    def first(self, kind: str) -> StoredPart | None:
        """Return the part to show of a kind, or None."""
        return next((part for part in self.parts if part.kind == kind and part.url), None)

    @property
    def hidden(self) -> str:
        """Why there is no picture where one could be expected, or nothing."""
        if self.first("image") or self.first("video"):
            return ""
        pictures = [part.extension for part in self.parts if part.extension.endswith("svg")]
        if pictures:
            return "SVG, shown as text only"
        if any(part.kind in ("image", "video") for part in self.parts):
            return "The source is not at hand"
        return ""


def cards_of(
    index: SampleIndex, dataset: Dataset, rows: Iterable[Row], asked: str = ""
) -> list[Card]:
    """Return cards for samples; those that lost to a twin have its card beside theirs."""
    rows = list(rows)
    twins = find_samples(
        index.database, dataset, sorted({row["twin"] for row in rows if row["twin"]})
    )
    cards = []
    for row in rows:
        twin = twins.get(row["twin"]) if row["twin"] else None
        beside = _card(index, dataset, twin, "") if twin is not None else None
        cards.append(_card(index, dataset, row, asked, beside))
    return cards


def _card(
    index: SampleIndex, dataset: Dataset, row: Row, asked: str, twin: Card | None = None
) -> Card:
    name, version, key = quote(dataset.name), quote(dataset.version), quote(row["key"])
    tail = f"?{asked}" if asked else ""
    return Card(
        row=row,
        address=f"/datasets/{name}/{version}/samples/{key}{tail}",
        parts=parts_of(index, dataset, row["segment"], row["parts"]),
        media=f"/media/{name}/{version}/{key}",
        facts=_facts(row),
        twin=twin,
    )


def _facts(row: Row) -> list[str]:
    scores: Mapping[str, float] = json.loads(row["scores"]) if row["scores"] else {}
    facts = []
    if "image_width" in scores and "image_height" in scores:
        facts.append(f"{scores['image_width']:.0f} x {scores['image_height']:.0f} px")
    facts += [f"{scores[n]:.1f} s" for n in ("audio_seconds", "video_seconds") if n in scores]
    return facts
