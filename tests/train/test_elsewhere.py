"""Training from a bucket: through bad weather to the same bytes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import one_rank
import pytest
from shards import coloured_samples, write_inputs
from weather import weather_before

from mmcore import storage
from mmcore.core.step import Artifact

FILES = ("model.safetensors", "metrics.jsonl")


def test_a_server_that_answers_503_and_cuts_connections_changes_no_byte(
    bucket: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    here = write_inputs(tmp_path / "data", coloured_samples({"train": 24, "val": 5}, side=32))
    config = replace(one_rank.CONFIG, epochs=2)
    one_rank.run(here, tmp_path / "fair", config)
    for file in storage.list_files(here["shard"].url):
        data = Path(here["shard"].url, file.path).read_bytes()
        storage.write(storage.join(bucket, file.path), data)
    there = Artifact(bucket, here["shard"].manifest)
    seen: Counter[str] = Counter()

    def weather(number: int, path: str) -> str:
        """Every file is refused, then cut, then sent, from the first one to the last."""
        seen[path] += 1
        return {1: "busy", 2: "cut"}.get(seen[path], "fair")

    # a cache that keeps next to nothing: shards are fetched while it trains, again and again
    loader = replace(
        one_rank.LOADER,
        cache_directory=str(tmp_path / "cache"),
        max_disk_cache_bytes=30_000,
        max_cache_bytes=0,
    )
    monkeypatch.setattr(one_rank, "LOADER", loader)
    with weather_before(s3_server, weather) as (endpoint, happened):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        storage._filesystem_of.cache_clear()
        try:
            one_rank.run(
                replace(here, artifacts={**here.artifacts, "shard": there}),
                tmp_path / "foul",
                config,
            )
        finally:
            storage._filesystem_of.cache_clear()
    counts = Counter(happened)
    assert counts["busy"] == counts["cut"] == len(seen) >= 4
    for name in FILES:
        assert (tmp_path / "foul" / name).read_bytes() == (tmp_path / "fair" / name).read_bytes()
