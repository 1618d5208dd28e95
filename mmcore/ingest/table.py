"""Tables: a row is a sample. Columns hold bytes, paths of files beside the table, or URLs.

captions.jsonl   {"id": 17, "image": "pictures/owl.png", "text": ["An owl.", "A bird of prey."]}
train.parquet    id, image: {bytes, path}, text, label
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, BinaryIO, ClassVar, Literal

from mmcore.core import in_hand
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.reader import Gathered
from mmcore.errors import ConfigError, SampleError
from mmcore.ingest.cells import ANY, Cell, caption_texts, plain_values, read_cell, url_of
from mmcore.ingest.described import as_text, find_field
from mmcore.ingest.fetchconfig import FetchConfig
from mmcore.ingest.layout import (
    Arrived,
    Aside,
    ContainerLayout,
    Corpus,
    Grouping,
    RawSample,
    container_sample,
    group_containers,
    is_hidden,
    record_key,
)
from mmcore.ingest.listed import Arriving, listed_urls
from mmcore.ingest.records import Record, class_names, count_records, format_of, read_records
from mmcore.sample import Json, Outcome, Part, Quarantined, Sample, sha256_hex

_MEDIA = ("image", "audio", "video", ANY)
_ROWS_AT_ONCE = 256
_BYTES_AT_ONCE = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column holds what; `a.b` is the field b of the objects in a."""

    # pydantic reads this when a recipe is checked
    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": False}

    key: str | None = None
    """What the corpus calls the sample. None: its number."""
    image: str | None = None
    """Bytes, `{bytes, path}` as Hugging Face writes it, a path, a `data:` URI or a URL."""
    audio: str | None = None
    video: str | None = None
    media: str | None = None
    """Of all three: what a cell holds is said by its first bytes, or by the name of the file."""
    caption: str | None = None
    """Text, or a list of texts."""
    label: str | None = None
    language: str | None = None
    licence: str | None = None
    source: str | None = None
    """Where the sample is from, for people. None: the table and the number of the row."""

    def named(self) -> dict[str, str]:
        """Return the columns that are named, by what they hold."""
        # asked for each row: what dataclasses copies took longer than all else
        return {name: column for name, column in vars(self).items() if column is not None}


@dataclass(frozen=True, kw_only=True)
class TableLayout(ContainerLayout):
    """Read Parquet, JSON lines, CSV and TSV: a sample per row, or per row and caption."""

    columns: Columns
    tables: tuple[str, ...] = ()
    """Patterns of the paths of tables (`*.jsonl`, `train/*`). None: all that are tables by name."""
    captions: Literal["first", "each"] = "first"
    """Of a list: take the first one, all of them staying in the metadata; or make a sample of
    each."""
    licence: str = "unknown"
    """Of every row that does not name its own."""
    language: str = "und"
    """BCP 47 tag of the captions whose row does not name its own; `und` is undetermined."""
    fetch: FetchConfig | None = None
    """How URLs in the columns are fetched. None: they are not, and their rows are quarantined."""

    names_files: ClassVar[bool] = True
    _formats: ClassVar[tuple[str, ...]] = ("parquet", "jsonl", "ndjson", "csv", "tsv")
    _other: ClassVar[str] = "not_in_a_table"

    def __post_init__(self) -> None:
        named = self.columns.named()
        if not any(named.get(name) for name in (*_MEDIA, "caption")):
            raise ConfigError(
                "columns: none of image, audio, video, media and caption is named: a row would "
                "hold nothing. For example: {key: id, image: image, caption: text}."
            )

    def identity(self) -> dict[str, Json]:
        fetch = None if self.fetch is None else self.fetch.identity()
        return {**super().identity(), "fetch": fetch}

    def group(self, files: Sequence[Any]) -> Grouping:
        return group_containers(files, self._is_table, self._other)

    def scan_identity(self) -> Mapping[str, Json]:
        identity: dict[str, Json] = {"reader": "table", "code_version": 1}
        identity["tables"] = list(self.tables)
        if self.fetch is not None:
            identity |= {"fetch": self.fetch.identity(), "columns": [*self._media_columns()]}
        return identity

    def count(self, path: str, stream: BinaryIO) -> int | None:
        return count_records(path, stream) if self._is_table(path) else None

    def records(self, raw: RawSample, corpus: Corpus) -> Iterator[Outcome | Aside]:
        with self._open(raw, corpus) as stream:
            names: Mapping[str, Sequence[str]] = {}
            if format_of(raw.original_key) == "parquet":
                names = class_names(raw.original_key, stream)
                stream.seek(0)
            rows = read_records(raw.original_key, stream)
            for some in _batches(self._rows(raw, rows, corpus)):
                yield from self._outcomes(raw, some, corpus, names)

    def lists(self, paths: Sequence[str]) -> list[str]:
        if self.fetch is None:
            return []
        return [path for path in paths if not is_hidden(path) and self._is_table(path)]

    def gather(
        self, path: str, *, url: str, store_url: str, num_workers: int, limits: DecoderLimits
    ) -> Gathered:
        # httpx is loaded where something is fetched, and nowhere else
        from mmcore.ingest.gather import gather_list

        assert self.fetch is not None, "lists() named none"
        urls = listed_urls(self, path, url, limits)
        return gather_list(
            path, urls, store_url=store_url, config=self.fetch, num_workers=num_workers
        )

    def urls_in(self, path: str, stream: BinaryIO) -> Iterator[list[str]]:
        """Yield the URLs of every row of a list that names some."""
        for record in read_records(path, stream):
            urls = self._urls(record)
            if urls:
                yield urls

    def _urls(self, record: Record) -> list[str]:
        """Return the URLs of a row, in the order of the columns."""
        found = (url_of(find_field(record.values, column)) for column in self._media_columns())
        return [url for url in found if url is not None]

    def _media_columns(self) -> list[str]:
        return [column for name, column in self.columns.named().items() if name in _MEDIA]

    def _is_table(self, path: str) -> bool:
        is_named = not self.tables or any(fnmatchcase(path, one) for one in self.tables)
        return is_named and format_of(path) in self._formats

    def _open(self, raw: RawSample, corpus: Corpus) -> AbstractContextManager[BinaryIO]:
        file = raw.files[""]
        is_parquet = format_of(raw.original_key) == "parquet"
        return corpus.seekable(file) if is_parquet else corpus.stream(file)

    def _rows(
        self, raw: RawSample, rows: Iterable[Record], corpus: Corpus
    ) -> Iterator[tuple[Record, Mapping[str, Arrived]]]:
        """Yield the rows, each with what became of its URLs."""
        if self.fetch is None:
            return ((row, {}) for row in rows)
        arrived = Arriving(corpus.arrived(raw.original_key))
        return ((row, {url: arrived.of(url) for url in self._urls(row)}) for row in rows)

    def _outcomes(
        self,
        raw: RawSample,
        rows: Sequence[tuple[Record, Mapping[str, Arrived]]],
        corpus: Corpus,
        names: Mapping[str, Sequence[str]],
    ) -> Iterator[Outcome]:
        cells = []
        for row, arrived in rows:
            in_hand.begin(raw.original_key, row.number)
            cells.append(self._cells(raw, row, arrived))
        wanted = [path for row in cells for cell in row.values() for path in cell.paths]
        files = corpus.find(sorted(set(wanted)))
        for (row, _), found in zip(rows, cells, strict=True):
            in_hand.begin(raw.original_key, row.number)
            try:
                if row.problem is not None:
                    raise SampleError(*row.problem)
                yield from self._samples(raw, row, found, files, names)
            except SampleError as error:
                yield Quarantined(self._bare(raw, row), error.reason, error.detail)

    def _cells(
        self, raw: RawSample, row: Record, arrived: Mapping[str, Arrived]
    ) -> dict[str, Cell]:
        return {
            name: read_cell(find_field(row.values, column), raw.original_key, arrived)
            for name, column in self.columns.named().items()
            if name in _MEDIA
        }

    def _samples(
        self,
        raw: RawSample,
        row: Record,
        cells: Mapping[str, Cell],
        files: Mapping[str, Any],
        names: Mapping[str, Sequence[str]],
    ) -> Iterator[Sample]:
        missing = [
            column
            for column in self.columns.named().values()
            if column.split(".")[0] not in row.values and column not in row.values
        ]
        if missing and format_of(raw.original_key) not in ("jsonl", "ndjson"):
            there = ", ".join(sorted(row.values))
            raise SampleError("column_missing", f"no column {missing[0]}; there are: {there}")
        parts: dict[str, Part] = {}
        hashes: dict[str, Json] = {}
        for modality, cell in cells.items():
            part = cell.part(modality, files)
            if part is not None:
                extension, one, digest = part
                parts[extension] = one
                hashes[extension] = digest
        texts = self._captions(row)
        if not parts and not texts:
            there = ", ".join(sorted(map(str, row.values)))
            detail = f"row {row.number} has no part and no caption; its columns: {there:.120}"
            raise SampleError("row_empty", detail)
        meta = self._meta(raw, row, cells, names)
        key = self._name(raw, row)
        if self.captions == "first" or len(texts) < 2:
            more: dict[str, Json] = {"captions": [*texts]} if len(texts) > 1 else {}
            yield _sample(raw, key, parts, hashes, texts[:1], {**meta, **more})
            return
        for number, text in enumerate(texts):
            group = record_key(raw.original_key, key)
            one_of: dict[str, Json] = {"caption_group": meta.get("caption_group", group)}
            yield _sample(
                raw, f"{key}/{number}", parts, hashes, [text], {**meta, **one_of}, name=key
            )

    def _captions(self, row: Record) -> list[str]:
        column = self.columns.caption
        return [] if column is None else caption_texts(find_field(row.values, column), column)

    def _name(self, raw: RawSample, row: Record) -> str:
        """Return what the corpus calls a row."""
        key = None if self.columns.key is None else find_field(row.values, self.columns.key)
        if self.columns.key is None:
            return f"{row.number:06d}"
        if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
            raise SampleError("key_missing", f"row {row.number}: {self.columns.key} is {key!a:.80}")
        return str(key)

    def _meta(
        self,
        raw: RawSample,
        row: Record,
        cells: Mapping[str, Cell],
        names: Mapping[str, Sequence[str]],
    ) -> dict[str, Json]:
        named = self.columns.named()
        told: dict[str, Json] = plain_values(row.values, without=set(named.values()))
        said: dict[str, Json] = {"source": f"{raw.original_key}#{row.number}"}
        said |= {"licence": self.licence, "language": self.language}
        for name in ("label", "language", "licence", "source"):
            column = named.get(name)
            value = None if column is None else find_field(row.values, column)
            classes = names.get(column or "", ())
            if classes and isinstance(value, int) and not isinstance(value, bool):
                value = classes[value] if 0 <= value < len(classes) else None
            if value is not None and value != "":
                said[name] = value
        if self.columns.label is not None and "label" not in said:
            raise SampleError("label_missing", f"row {row.number} has no {self.columns.label}")
        urls: list[Json] = [cell.url for cell in cells.values() if cell.url]
        if urls:
            said["url"] = urls[0] if len(urls) == 1 else urls
        return as_text({**told, **said}, f"{raw.original_key}#{row.number}")

    def _bare(self, raw: RawSample, row: Record) -> Sample:
        """Return what stands in the accounts for a row that is broken."""
        if row.is_rest:
            return container_sample(raw, at=str(row.number))
        # with a #, so that it is no key of another row
        number = f"{row.number:06d}" if self.columns.key is None else f"#{row.number:06d}"
        try:
            name = self._name(raw, row) if row.problem is None else number
        except SampleError:
            name = number
        said: dict[str, Json] = {
            "source": f"{raw.original_key}#{row.number}",
            "licence": self.licence,
            "original_key": name,
        }
        urls: list[Json] = [*self._urls(row)]
        if urls:
            said["url"] = urls[0] if len(urls) == 1 else urls
        return Sample(key=record_key(raw.original_key, name), meta=said)


def _sample(
    raw: RawSample,
    key: str,
    parts: Mapping[str, Part],
    hashes: Mapping[str, Json],
    texts: Sequence[str],
    meta: Mapping[str, Json],
    *,
    name: str = "",
) -> Sample:
    original, parts = dict(hashes), dict(parts)
    if texts:
        data = texts[0].encode()
        original["txt"], parts["txt"] = sha256_hex(data), Part(data=data)
    fixed: dict[str, Json] = {"original_key": name or key, "original_sha256": original}
    return Sample(
        key=record_key(raw.original_key, key),
        parts=parts,
        meta={**meta, **fixed},
    )


def _batches(
    rows: Iterator[tuple[Record, Mapping[str, Arrived]]],
) -> Iterator[list[tuple[Record, Mapping[str, Arrived]]]]:
    """Yield a few rows at a time: the files that they name are looked up together."""
    some: list[tuple[Record, Mapping[str, Arrived]]] = []
    num_bytes = 0
    for row in rows:
        some.append(row)
        num_bytes += sum(map(_num_bytes, row[0].values.values()))
        if len(some) == _ROWS_AT_ONCE or num_bytes >= _BYTES_AT_ONCE:
            yield some
            some, num_bytes = [], 0
    if some:
        yield some


def _num_bytes(value: Any) -> int:
    """Return about how much a cell holds."""
    if isinstance(value, dict):
        return sum(map(_num_bytes, value.values()))
    return len(value) if isinstance(value, str | bytes) else 0
