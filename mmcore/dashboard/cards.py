"""What a gallery shows of a sample: its parts, its figures, and its twin beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from sqlite3 import Row
from urllib.parse import quote

from markupsafe import Markup

from mmcore.dashboard.index.datasets import Dataset
from mmcore.dashboard.index.live import SampleIndex
from mmcore.dashboard.index.samples import find_samples
from mmcore.dashboard.index.store import SampleDatabase
from mmcore.dashboard.media import StoredPart, parts_of
from mmcore.dashboard.templating import macro


@dataclass(frozen=True)
class Card:
    """A sample in the gallery."""

    row: Row
    address: str
    parts: Sequence[StoredPart]
    media: str
    """Where its bytes are served, without the extension."""
    twin: "Card | None" = None

    @cached_property
    def image(self) -> str:
        """The extension of the picture to show, or nothing."""
        return self._first("image")

    @cached_property
    def video(self) -> str:
        """The extension of the video to show, or nothing."""
        return self._first("video")

    @cached_property
    def audio(self) -> str:
        """The extension of the sound to play, or nothing."""
        return self._first("audio")

    @property
    def label(self) -> str:
        """What is said in place of the picture."""
        return str(self.row["caption"][:120] or self.row["key"])

    @property
    def tags(self) -> Markup:
        """Its split, class, language and figures as HTML."""
        row = self.row
        return _tags(row["split"], row["label"], row["language"], row["scores"])

    @property
    def hidden(self) -> str:
        """Why there is no picture where one could be expected, or nothing."""
        if self.image or self.video:
            return ""
        pictures = [part.extension for part in self.parts if part.extension.endswith("svg")]
        if pictures:
            return "SVG, shown as text only"
        if any(part.kind in ("image", "video") for part in self.parts):
            return "The source is not at hand"
        return ""

    def _first(self, kind: str) -> str:
        return next((part.extension for part in self.parts if part.url and part.kind == kind), "")


def gallery_of(
    index: SampleIndex, dataset: Dataset, rows: Sequence[Row], asked: str = ""
) -> Markup:
    """Return the cards of samples as HTML; those that lost to a twin have its picture as well."""
    twins = _twins(index, dataset, rows)
    database = index.database
    return Markup("").join(
        _html(index, database, dataset, row, twins.get(row["twin"]), asked) for row in rows
    )


@lru_cache(maxsize=4096)
def _html(
    index: SampleIndex,
    database: SampleDatabase,
    dataset: Dataset,
    row: Row,
    twin: Row | None,
    asked: str,
) -> Markup:
    """Return one card. Nothing that it is made of changes but with these arguments."""
    beside = _card(index, dataset, twin, "") if twin is not None else None
    return macro("sample_card.html", "card")(_card(index, dataset, row, asked, beside))


def card_of(index: SampleIndex, dataset: Dataset, row: Row, asked: str = "") -> Card:
    """Return the card of one sample; if it lost to a twin, that one's card is beside it."""
    twin = _twins(index, dataset, [row]).get(row["twin"])
    beside = _card(index, dataset, twin, "") if twin is not None else None
    return _card(index, dataset, row, asked, beside)


def _twins(index: SampleIndex, dataset: Dataset, rows: Sequence[Row]) -> Mapping[str, Row]:
    """Return the samples that these lost to, by their keys."""
    keys = sorted({row["twin"] for row in rows if row["twin"]})
    return find_samples(index.database, dataset, keys)


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
        twin=twin,
    )


@lru_cache(maxsize=4096)
def _tags(split: str, label: str, language: str, spelled_scores: str) -> Markup:
    scores: Mapping[str, float] = json.loads(spelled_scores) if spelled_scores else {}
    facts = []
    if "image_width" in scores and "image_height" in scores:
        facts.append(f"{scores['image_width']:.0f} x {scores['image_height']:.0f} px")
    facts += [f"{scores[n]:.1f} s" for n in ("audio_seconds", "video_seconds") if n in scores]
    return macro("sample_card.html", "tags")(split, label, language, facts)
