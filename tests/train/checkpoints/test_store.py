import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import checkpoint_killer
import pytest
import torch
from checkpoint_writers import WHOLE, state_of, store_in, write_steps, writers
from processes import import_path

from mmcore.errors import ConfigError, LeaseLost, StorageError
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.checkpoints.reading import Checkpoint
from mmcore.train.checkpoints.store import CheckpointStore, Found
from mmcore.train.checkpoints.writer import SharedState


def names(directory: Path) -> list[str]:
    return [found.id.name for found in store_in(directory).committed()[0]]


def newest(directory: Path) -> Found:
    return store_in(directory).committed()[0][0]


def test_what_ranks_wrote_is_one_checkpoint_that_verifies(tmp_path: Path) -> None:
    write_steps(tmp_path, 7, facts={7: {"epoch": 1}})
    found = newest(tmp_path)
    assert (found.id.name, found.num_ranks, found.facts["epoch"]) == ("step-00000007.1", 2, 1)
    checkpoint = Checkpoint(found)
    assert checkpoint.problems() == []
    for rank in (0, 1):
        assert Checkpoint(found).problems(rank=rank, num_ranks=2) == []
        for name, tensor in state_of(rank, 2, 7).tensors.items():
            assert torch.equal(checkpoint.tensors(rank)[name], tensor)
        assert checkpoint.rank_facts(rank) == {"rank": rank}
    assert checkpoint.file("metrics.jsonl") == b"{}\n"
    written = {file.name for file in Path(found.url).iterdir()}
    assert written == {record.path for record in found.manifest.files} | {"manifest.json"}


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_a_slice_is_read_whichever_ranks_hold_it(num_ranks: int, tmp_path: Path) -> None:
    write_steps(tmp_path, 5, num_ranks=num_ranks)
    checkpoint = Checkpoint(newest(tmp_path))
    assert checkpoint.parameters() == {"weight": (4, 5)}
    assert checkpoint.kinds() == ["master", "exp_avg"]
    assert checkpoint.read_slice("exp_avg", "weight", 0, 20).tolist() == (5 - WHOLE).tolist()
    for start, stop in ((0, 20), (3, 4), (6, 15), (9, 11), (19, 20), (4, 4)):
        found = checkpoint.read_slice("master", "weight", start, stop - start)
        assert found.tolist() == (WHOLE[start:stop] + 5).tolist()


def test_what_was_not_committed_is_no_checkpoint_and_is_cleaned_up(tmp_path: Path) -> None:
    write_steps(tmp_path, 3)
    first, second = writers(tmp_path, num_ranks=2)
    first.save(9, state_of(1, 2, 9), SharedState())
    first.wait()
    first.close()  # rank 0 never writes its part
    second.close()
    assert (tmp_path / "checkpoints" / "step-00000009.2" / "rank-00001.json").exists()
    assert names(tmp_path) == ["step-00000003.1"]
    write_steps(tmp_path, 12)
    assert [file.name for file in sorted((tmp_path / "checkpoints").iterdir())] == [
        "attempts",
        "step-00000003.1",
        "step-00000012.3",
    ]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "lengthen"])
@pytest.mark.parametrize("file", ["rank-00000.safetensors", "rank-00001.json", "metrics.jsonl"])
def test_damage_is_said_by_name(damage: str, file: str, tmp_path: Path) -> None:
    write_steps(tmp_path, 3)
    target = tmp_path / "checkpoints" / "step-00000003.1" / file
    data = bytearray(target.read_bytes())
    if damage == "flip":
        data[-1] ^= 4
    changed = {"flip": data, "cut": data[:-1], "lengthen": data + b"x"}
    target.unlink() if damage == "remove" else target.write_bytes(changed[damage])
    shares = [Checkpoint(newest(tmp_path)).problems(rank=r, num_ranks=2) for r in (0, 1)]
    (problem,) = [problem for share in shares for problem in share]
    assert f"step-00000003.1/{file} " in problem
    (problem,) = Checkpoint(newest(tmp_path)).problems()
    assert file in problem


def test_a_damaged_manifest_is_passed_over_by_name(tmp_path: Path) -> None:
    write_steps(tmp_path, 3, 6)
    (tmp_path / "checkpoints" / "step-00000006.1" / "manifest.json").write_text("{")
    found, problems = store_in(tmp_path).committed()
    assert [one.id.name for one in found] == ["step-00000003.1"]
    assert len(problems) == 1
    assert problems[0].startswith("step-00000006.1: ")


def test_a_checkpoint_of_another_training_is_passed_over(tmp_path: Path) -> None:
    write_steps(tmp_path, 3)
    found, problems = CheckpointStore(str(tmp_path), fingerprint="cd" * 32).committed()
    assert found == []
    assert "belongs to another training" in problems[0]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    losses = {2: 0.5, 4: 0.1, 6: 0.3, 8: 0.4, 10: 0.9}
    config = CheckpointConfig(keep_last=2, keep_best=1)
    facts = {step: {"val_loss": loss} for step, loss in losses.items()}
    write_steps(tmp_path, *losses, config=config, facts=facts)
    assert names(tmp_path) == ["step-00000010.1", "step-00000008.1", "step-00000004.1"]
    assert [one.id.step for one in store_in(tmp_path).best(config)] == [4]


def test_what_a_later_attempt_passed_over_does_not_count_as_one_of_the_newest(
    tmp_path: Path,
) -> None:
    write_steps(tmp_path, 6, 8)
    write_steps(tmp_path, 7)  # step 8 is damaged, say
    assert names(tmp_path) == ["step-00000007.2", "step-00000006.1"]


def test_an_attempt_that_was_given_up_for_dead_commits_nothing(tmp_path: Path) -> None:
    (writer,) = writers(tmp_path, num_ranks=1)
    store_in(tmp_path).begin_attempt({})
    writer.save(4, state_of(0, 1, 4), SharedState())
    with pytest.raises(LeaseLost, match="at attempt 2 and this rank belongs to 1"):
        writer.wait()
    writer.close()
    assert names(tmp_path) == []


def test_a_file_that_vanished_is_not_committed(tmp_path: Path) -> None:
    last, first = writers(tmp_path, num_ranks=2)
    last.save(4, state_of(1, 2, 4), SharedState())
    last.wait()
    (tmp_path / "checkpoints" / "step-00000004.1" / "rank-00001.safetensors").unlink()
    first.save(4, state_of(0, 2, 4), SharedState())
    with pytest.raises(StorageError, match=r"rank-00001.safetensors has None bytes"):
        first.wait()
    assert names(tmp_path) == []


def test_a_full_disk_is_raised_at_the_next_checkpoint(tmp_path: Path) -> None:
    (writer,) = writers(tmp_path, num_ranks=1)
    (tmp_path / "checkpoints" / "step-00000004.1").write_text("in the way")
    writer.save(4, state_of(0, 1, 4), SharedState())
    with pytest.raises(StorageError, match="cannot write"):
        writer.save(5, state_of(0, 1, 5), SharedState())
    writer.close()


def test_a_bucket_holds_checkpoints_as_a_disk_does(bucket: str, tmp_path: Path) -> None:
    write_steps(bucket, 3, 6, 9)
    write_steps(tmp_path, 3, 6, 9)
    found, problems = store_in(bucket).committed()
    assert ([one.id.name for one in found], problems) == (names(tmp_path), [])
    checkpoint = Checkpoint(found[0])
    assert checkpoint.problems() == []
    assert found[0].manifest.files == newest(tmp_path).manifest.files
    assert checkpoint.read_slice("master", "weight", 7, 9).tolist() == (WHOLE[7:16] + 9).tolist()


def test_the_same_state_is_the_same_bytes(tmp_path: Path) -> None:
    write_steps(tmp_path / "a", 3)
    write_steps(tmp_path / "b", 3)
    files = [newest(tmp_path / one).manifest.files for one in "ab"]
    assert files[0] == files[1]


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    write_steps(tmp_path, 3)
    for record in newest(tmp_path).manifest.files:
        data = (tmp_path / "checkpoints" / "step-00000003.1" / record.path).read_bytes()
        assert not data.startswith(b"\x80")
        if record.path.endswith((".json", ".jsonl")):
            json.loads(data)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"every_steps": -1}, "every_steps=-1. Use more than 0"),
        ({"keep_last": 1}, "keep_last=1. Use 2 or more"),
        ({"keep_best": -2}, "keep_best=-2. Use 0 or more"),
    ],
)
def test_a_bad_setting_is_refused(fields: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CheckpointConfig(**fields)  # type: ignore[arg-type]


def killed_at_each(call: str, directory: Path, *, rank: int = 0, num_ranks: int = 1) -> list[Path]:
    """Write a third checkpoint again and again, killed at the first, second, ... call."""
    support = str(Path(checkpoint_killer.__file__).parent)
    ranks = [str(rank), str(num_ranks)]
    command = [sys.executable, checkpoint_killer.__file__, call, str(directory), *ranks]
    environment = {**os.environ, "PYTHONPATH": import_path(support), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [Path(line) for line in done.stdout.split()]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("call", "at_least"), [("write", 4), ("fsync", 8), ("rename", 3), ("link", 1), ("unlink", 8)]
)
def test_killed_at_any_call_there_is_a_whole_checkpoint_or_none(
    call: str, at_least: int, tmp_path: Path
) -> None:
    left = killed_at_each(call, tmp_path)
    assert len(left) >= at_least  # that many were killed; the next one came to its end
    for directory in left:
        for found in store_in(directory).committed()[0]:
            assert Checkpoint(found).problems() == [], directory
        before = names(directory)
        assert before[0] in ("step-00000020.1", "step-00000030.2")
        write_steps(directory, 40, num_ranks=1)
        assert names(directory) == ["step-00000040.3", before[0]]
        remaining = [file.name for file in (directory / "checkpoints").rglob(".tmp-*")]
        assert remaining == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("call", "at_least"), [("write", 2), ("fsync", 4), ("rename", 2)])
def test_the_second_rank_is_killed_at_any_call_and_what_it_did_not_finish_is_not_committed(
    call: str, at_least: int, tmp_path: Path
) -> None:
    left = killed_at_each(call, tmp_path, rank=1, num_ranks=2)
    assert len(left) >= at_least
    for directory in left:
        found = store_in(directory).committed()[0]
        assert all(Checkpoint(one).problems() == [] for one in found), directory
        written = directory / "checkpoints/step-00000030.2/rank-00001.json"
        newest_name = "step-00000030.2" if written.exists() else "step-00000020.1"
        assert found[0].id.name == newest_name
        write_steps(directory, 40)
        assert names(directory) == ["step-00000040.3", newest_name]
        remaining = [file.name for file in (directory / "checkpoints").rglob(".tmp-*")]
        assert remaining == []
