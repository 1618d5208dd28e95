"""Keeps what a list of URLs brought, so that only what is not there is asked for.

A list is taken in slices of 64 URLs. The store has a record per slice, written as soon as the slice
is done, and packs with the bytes end to end, named by their content. What becomes part of the
scan's artifact (the packs, and one table of results) follows from what arrived alone, however many
scans it took.
"""

import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmcore import storage
from mmcore.core.manifest import FileRecord
from mmcore.core.reader import Gathered
from mmcore.core.rows import file_record
from mmcore.core.source import fetched_name
from mmcore.core.step import canonical_json, fingerprint_of
from mmcore.errors import IntegrityError
from mmcore.ingest.corpus import RESULTS_NAME
from mmcore.ingest.download import FINAL, Download, download_all
from mmcore.ingest.fetchconfig import FetchConfig
from mmcore.sample import sha256_hex

_URLS_PER_SLICE = 64
_MAX_PACK_BYTES = 64 << 20
_SCHEMA = pa.schema(
    [
        ("url", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("extension", pa.string()),
        ("pack", pa.string()),
        ("offset", pa.int64()),
        ("num_bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of a URL, and where its bytes lie."""

    url: str
    reason: str = ""
    detail: str = ""
    extension: str = ""
    pack: str = ""
    """As it is named in the scan's artifact."""
    offset: int = 0
    num_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Slice:
    """What is known of a slice of a list."""

    urls: tuple[str, ...]
    config: str
    """What was allowed when it was fetched: a failure under another configuration is forgotten."""
    results: Mapping[str, _Result]
    packs: tuple[FileRecord, ...]
    attempts: Mapping[str, int]
    """How many scans have tried in vain."""


def gather_list(
    path: str, urls: Iterable[str], *, store_url: str, config: FetchConfig, num_workers: int
) -> Gathered:
    """Fetch what of a list is not in the store, and return what the whole list brought."""
    store = _Store(store_url, path)
    gathering = _Gathering(store, config, per_host=max(1, config.per_host // num_workers))
    sink = io.BytesIO()
    digests: list[FileRecord] = []
    failed: dict[str, int] = {}
    num_fetched = num_pending = num_slices = 0
    with pq.ParquetWriter(sink, _SCHEMA, compression="zstd") as writer:
        for number, some in enumerate(_slices(urls)):
            done = gathering.slice(number, some)
            rows = [done.results[url] for url in done.urls]
            writer.write_table(pa.Table.from_pylist([asdict(row) for row in rows], _SCHEMA))
            digests += done.packs
            num_fetched += sum(not row.reason for row in rows)
            for row in rows:
                if row.reason:
                    failed[row.reason] = failed.get(row.reason, 0) + 1
            num_pending += sum(num < config.num_scans for num in done.attempts.values())
            num_slices += 1
    packs = {record.path: record for record in digests}
    table = file_record(store_url, storage.join(store.name, RESULTS_NAME), sink.getvalue())
    store.sweep(num_slices, {record.rpartition("/")[2] for record in packs})
    results = FileRecord(fetched_name(path, RESULTS_NAME), table.num_bytes, table.sha256)
    files = (*sorted(packs.values(), key=lambda record: record.path), results)
    counted = dict(sorted(failed.items()))
    return Gathered(path, table.sha256, files, num_fetched, counted, num_pending)


class _Gathering:
    """Fetches slices of one list."""

    def __init__(self, store: "_Store", config: FetchConfig, *, per_host: int) -> None:
        self._store = store
        self._config = config
        self._per_host = per_host
        self._allowed = fingerprint_of(config.identity())

    def slice(self, number: int, urls: Sequence[str]) -> _Slice:
        """Return a slice of the list, with whatever arrived by now."""
        before = self._store.load(number)
        if before is None or before.urls != tuple(urls):
            before = self._store.assembled(urls)
        if not self._store.holds(before):
            failed = {url: one for url, one in before.results.items() if one.reason}
            before = replace(before, results=failed)  # of what is lost nothing arrived
        is_same = before.config == self._allowed
        attempts = dict(before.attempts) if is_same else {}
        missing = [
            url
            for url in dict.fromkeys(urls)
            if (url not in before.results or before.results[url].reason)
            and attempts.get(url, 0) < self._config.num_scans
        ]
        if not missing and is_same:
            return before
        with tempfile.TemporaryDirectory(prefix="mm-fetch-") as directory:
            downloads = download_all(missing, directory, self._config, per_host=self._per_host)
            done = self._packed(number, urls, before, downloads, attempts)
        self._store.save(number, done)
        return done

    def _packed(
        self,
        number: int,
        urls: Sequence[str],
        before: _Slice,
        downloads: Sequence[Download],
        attempts: dict[str, int],
    ) -> _Slice:
        """Put old and new bytes end to end, in the list's order."""
        arrived = {download.url: download for download in downloads}
        results: dict[str, _Result] = {}
        packs: list[FileRecord] = []
        waiting: list[tuple[_Result, bytes]] = []

        def write() -> None:
            blob = b"".join(data for _, data in waiting)
            if not blob:
                return
            packs.append(self._store.write_pack(number, blob))
            offset = 0
            for result, data in waiting:
                results[result.url] = replace(result, pack=packs[-1].path, offset=offset)
                offset += len(data)
            waiting.clear()

        for url in dict.fromkeys(urls):
            download = arrived.get(url)
            if download is None:
                old = before.results[url]
                if old.reason:
                    results[url] = old
                    continue
                waiting.append((old, self._store.read(old)))
            elif download.reason:
                is_final = download.reason in FINAL
                attempts[url] = self._config.num_scans if is_final else attempts.get(url, 0) + 1
                results[url] = _Result(url, download.reason, download.detail)
            else:
                attempts.pop(url, None)
                data = Path(download.file).read_bytes()
                new = _Result(
                    url,
                    extension=download.extension,
                    num_bytes=len(data),
                    sha256=sha256_hex(data),
                )
                waiting.append((new, data))
            if sum(len(data) for _, data in waiting) >= _MAX_PACK_BYTES:
                write()
        write()
        return _Slice(tuple(urls), self._allowed, results, tuple(packs), attempts)


class _Store:
    """What is kept of one list, below the root."""

    def __init__(self, store_url: str, path: str) -> None:
        self.name = fetched_name(path).rstrip("/").rpartition("/")[2]
        self._list = path
        self._store_url = store_url
        self._url = storage.join(store_url, self.name)
        self._known: dict[str, tuple[_Result, int]] | None = None

    def load(self, number: int) -> _Slice | None:
        data = storage.read_if_exists(storage.join(self._url, f"{number:08d}.json"))
        return None if data is None else _decode(data)

    def save(self, number: int, value: _Slice) -> None:
        encoded = {**asdict(value), "results": [asdict(one) for one in value.results.values()]}
        storage.write(storage.join(self._url, f"{number:08d}.json"), canonical_json(encoded))

    def assembled(self, urls: Sequence[str]) -> _Slice:
        """Return what is known of URLs that lie in other slices: the list has moved."""
        if self._known is None:
            self._known = {}
            for file in storage.list_files(self._url):
                if file.path.endswith(".json"):
                    one = _decode(storage.read(storage.join(self._url, file.path)))
                    for url, result in one.results.items():
                        self._known[url] = (result, one.attempts.get(url, 0))
        found = {url: self._known[url] for url in urls if url in self._known}
        # of what was allowed then nothing is known: failures are tried again
        return _Slice((), "", {url: result for url, (result, _) in found.items()}, (), {})

    def holds(self, value: _Slice) -> bool:
        """Return whether the packs of a slice are all there."""
        return all(
            storage.exists(storage.join(self._url, pack.path.rpartition("/")[2]))
            for pack in value.packs
        )

    def write_pack(self, number: int, blob: bytes) -> FileRecord:
        digest = sha256_hex(blob)
        name = f"{number:08d}-{digest[:16]}.bin"
        url = storage.join(self._url, name)
        if not storage.exists(url):
            storage.write(url, blob)
        return FileRecord(fetched_name(self._list, name), len(blob), digest)

    def read(self, result: _Result) -> bytes:
        url = storage.join(self._url, result.pack.rpartition("/")[2])
        data = storage.read(url, offset=result.offset, num_bytes=result.num_bytes)
        if sha256_hex(data) != result.sha256:
            raise IntegrityError(
                f"{url} is not what was fetched (SHA-256 differs). Delete the folder {self._url}: "
                "what it held is fetched again."
            )
        return data

    def sweep(self, num_slices: int, packs: set[str]) -> None:
        """Delete what no slice of the list refers to any more."""
        wanted = {f"{number:08d}.json" for number in range(num_slices)} | packs | {RESULTS_NAME}
        for file in storage.list_files(self._url):
            if file.path not in wanted and not file.path.startswith(storage.TEMPORARY_PREFIX):
                storage.delete(storage.join(self._url, file.path))


def _decode(data: bytes) -> _Slice:
    value: dict[str, Any] = json.loads(data)
    results = [_Result(**one) for one in value["results"]]
    return _Slice(
        tuple(value["urls"]),
        value["config"],
        {result.url: result for result in results},
        tuple(FileRecord(**one) for one in value["packs"]),
        value["attempts"],
    )


def _slices(urls: Iterable[str]) -> Iterator[list[str]]:
    source = iter(urls)
    while some := list(islice(source, _URLS_PER_SLICE)):
        yield some
