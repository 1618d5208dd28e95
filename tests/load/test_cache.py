import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmcore import storage
from mmcore.errors import IntegrityError, StorageError
from mmcore.load.cache import Group, ShardCache
from mmcore.sample import sha256_hex

PIECE = 10_000


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-000000.tar"
    path.write_bytes(np.random.default_rng(0).bytes(20 * PIECE))
    return path


def group(shard: Path, number: int) -> Group:
    first, last = number * PIECE, (number + 1) * PIECE
    data = shard.read_bytes()[first:last]
    parts = ((first, 4000, sha256_hex(data[:4000])), (first + 4000, 6000, sha256_hex(data[4000:])))
    return Group(f"piece-{number}", str(shard), first, last, parts)


def read(cache: ShardCache, one: Group) -> bytes:
    with cache.opened(one) as handle:
        return os.pread(handle, PIECE, 0)


def kept(cache: ShardCache) -> list[str]:
    return sorted(name for name in os.listdir(cache.directory) if not name.startswith(".lock-"))


def test_a_piece_is_fetched_once(shard: Path, tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path / "cache"), 1 << 20)
    one = group(shard, 3)
    expected = shard.read_bytes()[3 * PIECE : 4 * PIECE]
    assert read(cache, one) == expected
    shard.unlink()
    assert read(cache, one) == expected
    assert kept(cache) == ["piece-3"]


def test_the_bound_holds_and_what_nobody_used_for_longest_goes_first(
    shard: Path, tmp_path: Path
) -> None:
    cache = ShardCache(str(tmp_path / "cache"), 3 * PIECE + 1)
    for number in (0, 1, 2, 0, 3):
        read(cache, group(shard, number))
        time.sleep(0.01)
        sizes = [os.path.getsize(os.path.join(cache.directory, name)) for name in kept(cache)]
        assert sum(sizes) <= cache.max_bytes
    assert kept(cache) == ["piece-0", "piece-2", "piece-3"]


def test_a_flipped_byte_is_refused_by_name_and_not_kept(shard: Path, tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path / "cache"), 1 << 20)
    one = group(shard, 3)
    data = bytearray(shard.read_bytes())
    data[3 * PIECE + 4001] ^= 4
    shard.write_bytes(data)
    with pytest.raises(IntegrityError, match=rf"{shard} holds other bytes at 34000 than the table"):
        read(cache, one)
    assert kept(cache) == []


def test_a_cut_shard_is_refused(shard: Path, tmp_path: Path) -> None:
    one = group(shard, 19)
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="other bytes"):
        read(ShardCache(str(tmp_path / "cache"), 1 << 20), one)


def test_a_piece_that_never_fits_says_what_to_raise(shard: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Raise loader\.max_disk"):
        read(ShardCache(str(tmp_path / "cache"), PIECE - 1), group(shard, 0))


def test_what_a_killed_process_left_is_swept(shard: Path, tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path / "cache"), 2 * PIECE)
    process = multiprocessing.get_context("spawn").Process(target=_half_a_piece, args=(cache.directory,))  # fmt: skip
    process.start()
    process.join()
    assert len(kept(cache)) == 1
    read(cache, group(shard, 0))
    assert kept(cache) == ["piece-0"]


def _half_a_piece(directory: str) -> None:
    Path(directory, storage.temporary_name()).write_bytes(b"half")


def _read_all(directory: str, groups: list[Group], seed: int) -> None:
    cache = ShardCache(directory, 5 * PIECE)
    order = np.random.default_rng(seed).permutation(len(groups))
    for number in [*order, *order[::-1]] * 3:
        data = read(cache, groups[number])
        at = 0
        for _, num_bytes, sha256 in groups[number].parts:
            assert sha256_hex(data[at : at + num_bytes]) == sha256
            at += num_bytes


def test_processes_share_it_and_one_that_is_killed_harms_nobody(
    shard: Path, tmp_path: Path
) -> None:
    directory = str(tmp_path / "cache")
    groups = [group(shard, number) for number in range(20)]
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=_read_all, args=(directory, groups, seed)) for seed in range(3)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 60
    while not os.path.exists(directory) or not kept(ShardCache(directory, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim = processes[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes[1:]] == [0, 0]
    cache = ShardCache(directory, 5 * PIECE)
    read(cache, group(shard, 0))
    assert sum(os.path.getsize(os.path.join(directory, name)) for name in kept(cache)) <= 5 * PIECE


def test_ranks_that_want_one_piece_at_once_fetch_it_once(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    original = storage.read

    def slow(url: str, **where: int) -> bytes:
        fetched.append(where)
        time.sleep(0.05)
        return original(url, **where)

    monkeypatch.setattr(storage, "read", slow)
    caches = [ShardCache(str(tmp_path / "cache"), 1 << 20) for _ in range(4)]
    threads = [threading.Thread(target=read, args=(one, group(shard, 2))) for one in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
